//! What a job that the daemon runs by itself has beside a request that somebody waits for: where it goes on, what its limits leave,
//! and what it passed over.
//!
//! It walks its list once, in its order, and each turn leaves its place in the ledger by its intents and by what it passed over. Then
//! it takes up again what was left without a signature, then what is unknown and may be signed again by itself. Nothing of it grows
//! with the Devices.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::{Halt, Job, Source, follow_policy, intent_entry, is_own, needs_symmetric, reason};
use crate::domain::fold::Book as _;
use crate::domain::fold::jobs::JobState;
use crate::domain::intake::{self, jobs::Room};
use crate::domain::ledger::entry::{Batch, Event, JobPassed};
use crate::domain::ledger::jobs::{DeviceRefused, REFUSED_TOLD_MAX, RuleCount};
use crate::domain::names::{DeviceId, Digest, RequestId};
use crate::domain::policy::facts::{IntentState, Wanted, WantedForm};
use crate::domain::policy::files::CHUNK_DEFAULT;
use crate::domain::policy::rules::Refusal;
use crate::recorder::{CannotRecord, Recorder};

/// Commands of a chunk until one is signed, after a token signed nothing: each may fail, and counts against the limits.
const PROBE: usize = 4;

/// Lines of a list that one turn looks through for what was left behind.
const LOOKED_THROUGH_MAX: usize = 8_000;

/// Lines that are read at a time for that.
const READ_MAX: usize = 1_000;

/// Reasons of a refused Device that are told.
const REASONS_MAX: usize = 10;

/// The Devices of a job's own list, a page at a time; or why it cannot be read.
pub type Feed = mpsc::Receiver<Result<Vec<DeviceId>, String>>;

/// What belongs to a job that the daemon runs by itself.
#[derive(Debug)]
pub(super) struct Kept {
    phase: Phase,
    /// Where the job names its Devices: those that come next.
    given: Option<Given>,
    /// Whether a signature came since the token was given up last.
    proven: bool,
    /// Signatures, for whoever watches.
    signed: Arc<AtomicU64>,
    /// Set where an operator stopped it and that cannot be recorded yet.
    held: Arc<AtomicBool>,
}

impl Kept {
    pub(super) fn count_signed(&mut self) {
        self.proven = true;
        self.signed.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Given {
    page: VecDeque<DeviceId>,
    feed: Feed,
    /// Why it cannot be read to its end.
    fault: Option<String>,
}

#[derive(Debug)]
enum Phase {
    /// The list, for the first time.
    List,
    /// What was left without a signature: these ranges of it, after this Device.
    Behind { ranges: VecDeque<(DeviceId, DeviceId)>, after: Option<DeviceId> },
    /// What is unknown and may be signed again.
    Unknowns(VecDeque<DeviceId>),
}

/// How a job is to go on.
#[derive(Debug)]
pub struct GoOn {
    /// Which.
    pub request: RequestId,
    /// The batch with which it was accepted, for its first run; each other begins one.
    pub batch: Option<u64>,
    /// The route, as refusals name it.
    pub operation: &'static str,
    /// Commands of a chunk, by the configuration.
    pub chunk: usize,
    /// Whether a token gave no signatures last: then it is tried with few commands.
    pub probing: bool,
    /// Its own list from where it stands, if it names its Devices.
    pub feed: Option<Feed>,
    /// Counts its signatures.
    pub signed: Arc<AtomicU64>,
    /// Set where an operator stopped it and that cannot be recorded yet.
    pub held: Arc<AtomicBool>,
}

/// Lets a job go on in the name of whoever started it; none if it stands still or is over. The caller has looked whether it may be
/// signed for, and each turn looks again.
pub fn go_on(recorder: &mut Recorder, on: GoOn) -> Result<Option<Job>, CannotRecord> {
    let GoOn { request, batch, operation, chunk, probing, feed, signed, held } = on;
    let facts = recorder.fold().jobs().get(&request).filter(|job| job.state == JobState::Running).cloned();
    let Some(facts) = facts else { return Ok(None) };
    let by = recorder.known(facts.by.clone());
    let of_policy = recorder.fold().policy().map(|adopted| adopted.policy.limits().chunk);
    let of_policy = of_policy.and_then(|most| usize::try_from(most).ok()).unwrap_or(CHUNK_DEFAULT as usize);
    let chunk = chunk.min(of_policy).max(1);
    let accepted = batch.filter(|batch| recorder.fold().batch(*batch).is_some_and(|batch| batch.request == request));
    let batch = if let Some(batch) = accepted {
        batch
    } else {
        let policy = recorder.fold().policy().map_or(Digest([0; 32]), |adopted| adopted.digest);
        let profile = intake::profile_in_force(recorder.fold(), recorder.moment().at);
        let (incident, determination, key) = (facts.incident.clone(), facts.determination, facts.key.clone());
        let entry = Batch { request, asked: facts.asked, incident, determination, policy, profile, key };
        recorder.queue(&by, Event::Batch(entry))?
    };
    let given = feed.map(|feed| Given { page: VecDeque::new(), feed, fault: None });
    let mut job = Job {
        request,
        asked: facts.asked,
        disowned: by.person != facts.by.person,
        by,
        operation,
        determination: facts.determination,
        needs_symmetric: needs_symmetric(recorder.fold(), &facts.key),
        key: facts.key,
        source: Source::List { after: facts.position },
        chunk,
        batch,
        repeated: false,
        own_batches: HashMap::new(),
        again: Vec::new(),
        symmetric: None,
        kept: Some(Kept { phase: Phase::List, given, proven: !probing, signed, held }),
    };
    follow_policy(recorder, &mut job)?;
    Ok(Some(job))
}

impl Job {
    /// The leaf that its intents name.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Fetches the next Devices of a job's own list, where it has one: enough for a turn.
    pub(super) async fn fetch(&mut self) {
        let Some(Given { page, feed, fault }) = self.kept.as_mut().and_then(|kept| kept.given.as_mut()) else { return };
        while page.len() < self.chunk && fault.is_none() {
            match feed.recv().await {
                Some(Ok(devices)) => page.extend(devices),
                Some(Err(why)) => *fault = Some(why),
                None => return,
            }
        }
    }
}

/// How many commands the next turn may have: a chunk, or what the limits leave of it.
pub(super) fn room(recorder: &Recorder, job: &Job) -> Result<usize, Halt> {
    let Some(kept) = &job.kept else { return Ok(job.chunk) };
    let stopped = |rule: &str, text: &str| Err(Halt::Stopped(vec![reason(rule, text)]));
    let fold = recorder.fold();
    let Some(facts) = fold.jobs().get(&job.request).filter(|facts| facts.state == JobState::Running) else {
        return stopped("job-state", "the job was stopped");
    };
    if kept.held.load(Ordering::SeqCst) {
        return stopped("job-state", "the job was stopped, which is not recorded yet");
    }
    if let Some(why) = kept.given.as_ref().and_then(|given| given.fault.as_ref()) {
        return stopped("job-list", &format!("the job's list of Devices cannot be read: {why}"));
    }
    let chunk = if kept.proven { job.chunk } else { job.chunk.min(PROBE) };
    match intake::jobs::room(fold, facts, recorder.moment().at) {
        Room::Intents(most) => Ok(usize::try_from(most).unwrap_or(usize::MAX).min(chunk)),
        Room::Until(until) => Err(Halt::Limited(until)),
        Room::Spent { limit } => Err(Halt::Stopped(vec![Refusal::IntentsSpent { limit, used: limit }.reason()])),
    }
}

/// The next Devices of a job, at most so many; and whether it has come to its end. Chunks that are with the token may yet leave
/// something: whoever runs the job looks once they are concluded.
pub(super) fn next_wanted(
    recorder: &Recorder,
    job: &mut Job,
    most: usize,
) -> Result<(Vec<Wanted>, bool), CannotRecord> {
    let Some(mut kept) = job.kept.take() else { return Ok((Vec::new(), true)) };
    let wanted = next_of(recorder, job, &mut kept, most);
    job.kept = Some(kept);
    wanted
}

fn next_of(
    recorder: &Recorder,
    job: &mut Job,
    kept: &mut Kept,
    most: usize,
) -> Result<(Vec<Wanted>, bool), CannotRecord> {
    let first = |device| Wanted { device, form: WantedForm::Device };
    let mut budget = LOOKED_THROUGH_MAX;
    loop {
        let next = match (&mut kept.phase, &mut kept.given) {
            (Phase::List, Some(given)) => {
                let wanted: Vec<Wanted> = given.page.drain(..given.page.len().min(most)).map(first).collect();
                if !wanted.is_empty() {
                    return Ok((wanted, false));
                }
                behind(recorder, job)
            }
            (Phase::List, None) => {
                let Source::List { after } = &mut job.source else { return Ok((Vec::new(), true)) };
                let listed = recorder.store().listed_from(job.determination, *after, most)?;
                *after = listed.last().map(|listed| listed.device).or(*after);
                if !listed.is_empty() {
                    return Ok((listed.into_iter().map(|listed| first(listed.device)).collect(), false));
                }
                behind(recorder, job)
            }
            (Phase::Behind { ranges, after }, _) => {
                let Some((from, until)) = ranges.front().copied() else {
                    kept.phase = unknowns(recorder, job);
                    continue;
                };
                let start = after.or_else(|| before(from));
                let page = recorder.store().listed_from(job.determination, start, READ_MAX)?;
                let within = page.iter().map(|listed| listed.device).take_while(|device| *device <= until);
                let (mut wanted, mut looked) = (Vec::new(), 0);
                let mut last_looked = *after;
                for device in within {
                    looked += 1;
                    last_looked = Some(device);
                    if was_left(recorder, job, device)? {
                        wanted.push(first(device));
                    }
                    if wanted.len() == most {
                        break;
                    }
                }
                let is_full = wanted.len() == most;
                let is_over = last_looked == Some(until)
                    || (looked < page.len() && !is_full)
                    || (looked == page.len() && page.len() < READ_MAX);
                *after = last_looked;
                if is_over {
                    ranges.pop_front();
                    *after = None;
                }
                budget = budget.saturating_sub(page.len().max(1));
                if !wanted.is_empty() || budget == 0 {
                    return Ok((wanted, false));
                }
                continue;
            }
            (Phase::Unknowns(devices), _) => {
                let again = |device| Wanted { device, form: WantedForm::Retry };
                let wanted: Vec<Wanted> = devices.drain(..devices.len().min(most)).map(again).collect();
                let is_over = wanted.is_empty();
                return Ok((wanted, is_over));
            }
        };
        kept.phase = next;
    }
}

/// The Device before the range: lists are read after one.
fn before(from: DeviceId) -> Option<DeviceId> {
    let before = u64::from_be_bytes(from.0.0).checked_sub(1)?;
    Some(DeviceId(crate::domain::names::Eui64(before.to_be_bytes())))
}

fn behind(recorder: &Recorder, job: &Job) -> Phase {
    let facts = recorder.fold().jobs().get(&job.request);
    let ranges = facts.map(|facts| facts.behind.iter().copied().collect()).unwrap_or_default();
    Phase::Behind { ranges, after: None }
}

fn unknowns(recorder: &Recorder, job: &Job) -> Phase {
    let scope = recorder.fold().determinations().get(&job.determination).and_then(|facts| facts.scope.as_ref());
    if scope.is_some_and(|scope| scope.retries_by_itself) {
        Phase::Unknowns(recorder.fold().unknowns_of_job(job.request).collect())
    } else {
        Phase::Unknowns(VecDeque::new())
    }
}

/// Whether this job left a Device without a signature, and nobody gave it one since.
fn was_left(recorder: &Recorder, job: &mut Job, device: DeviceId) -> Result<bool, CannotRecord> {
    let Some(last) = recorder.device(&job.key, device)? else { return Ok(false) };
    if last.determination != job.determination
        || last.attempt > 1
        || !matches!(last.state, IntentState::Failed | IntentState::NotSigned)
    {
        return Ok(false);
    }
    match intent_entry(recorder, last.intent)? {
        Some(entry) => is_own(recorder, job, entry.batch),
        None => Ok(false),
    }
}

/// What one turn of a job passed over.
pub(super) struct Passed {
    /// The last Device of the list that this turn looks at; none in what was looked at before, where nothing is counted again.
    until: Option<DeviceId>,
    already: u64,
    refused: u64,
    rules: BTreeMap<&'static str, u64>,
    first: Vec<DeviceRefused>,
}

impl Passed {
    pub(super) fn of(job: &Job, wanted: &[Wanted]) -> Self {
        let is_list = job.kept.as_ref().is_some_and(|kept| matches!(kept.phase, Phase::List));
        let until = wanted.last().filter(|_| is_list).map(|last| last.device);
        Self { until, already: 0, refused: 0, rules: BTreeMap::new(), first: Vec::new() }
    }

    pub(super) fn refused(&mut self, device: DeviceId, refusals: &[Refusal]) {
        if self.until.is_none() {
            return;
        }
        if let [Refusal::AlreadySigned { .. }] = refusals {
            self.already += 1;
            return;
        }
        self.refused += 1;
        for refusal in refusals {
            *self.rules.entry(refusal.rule()).or_default() += 1;
        }
        if self.first.len() < REFUSED_TOLD_MAX {
            let reasons = refusals.iter().take(REASONS_MAX).map(Refusal::reason).collect();
            self.first.push(DeviceRefused { device, reasons });
        }
    }

    pub(super) fn record(self, recorder: &mut Recorder, job: &Job) -> Result<(), CannotRecord> {
        let Self { until, already, refused, rules, mut first } = self;
        let Some(until) = until.filter(|_| already + refused > 0) else { return Ok(()) };
        let told = recorder.fold().jobs().get(&job.request).map_or(0, |facts| facts.refused_first.len());
        first.truncate(REFUSED_TOLD_MAX.saturating_sub(told));
        let rules = rules.into_iter().map(|(rule, count)| RuleCount { rule: rule.into(), count }).collect();
        let passed = JobPassed { request: job.request, until, already, refused, rules, first };
        recorder.queue(&job.by, Event::JobPassed(passed)).map(drop)
    }
}
