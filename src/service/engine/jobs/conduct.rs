//! Shell: the daemon runs its jobs: one of a key at a time, in the order in which they were started. What stands in the way of one is
//! waited for, and the others of its key wait behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::lives::{Lists, Nudges, Standing};
use super::unrecorded::{self, Holds, Said, Told};
use super::{Daemon, START};
use crate::api::wire;
use crate::domain::fold::jobs::{JobFacts, JobState};
use crate::domain::fold::{Blobs as _, Fold};
use crate::domain::intake::jobs::{self as rules_of_jobs, ListReader, Room};
use crate::domain::ledger::entry::{Actor, Event, JobEnded, Reason};
use crate::domain::ledger::jobs::{JobList, JobTally, LIST_LINE_LEN};
use crate::domain::names::{DeviceId, KeyLabel, RequestId};
use crate::domain::policy::rules::{self, Refusal};
use crate::domain::time::Timestamp;
use crate::hsm::{Condition, Several};
use crate::pipeline::{self, Feed, First, GoOn, Ran};
use crate::recorder::{Desk, Recorded, Recorder};
use crate::service::engine::{Running, reason};
use crate::state::StoredDocuments;
use crate::store::sqlite::SqliteReader;

/// The least time between two looks whether a job can go on, whatever else is recorded meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// The longest time between them: a token that is back, a window that begins and an hour that is over are recorded by nobody.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// How soon a token that signed nothing is tried again; doubled each time up to [`TOKEN_PAUSE_MAX`].
const TOKEN_PAUSE_FIRST: Duration = Duration::from_secs(2);

/// The longest pause before a token that signed nothing is tried again.
const TOKEN_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often the rate is measured.
const SAMPLE: Duration = Duration::from_millis(500);

/// Devices of a job's list that are read at a time.
const PAGE: u64 = 4_096;

/// Pages that may wait.
const PAGES_MAX: usize = 2;

/// Lets the daemon run its jobs from here on.
pub(in super::super) fn begin(daemon: &Arc<Daemon>) {
    for (request, said) in daemon.lives.holds.to_tell() {
        tokio::spawn(tell(Arc::clone(&daemon.lives.holds), Ledger::of(daemon), request, said));
    }
    daemon.spawn(conduct(Arc::clone(daemon), daemon.stopping.subscribe()));
}

/// Where what was said is recorded, once it can be.
pub(super) struct Ledger {
    desk: Desk,
    not_ready: watch::Receiver<Option<wire::Trouble>>,
    nudges: Nudges,
}

impl Ledger {
    pub(super) fn of(daemon: &Daemon) -> Self {
        Self { desk: daemon.desk.clone(), not_ready: daemon.not_ready.clone(), nudges: daemon.lives.nudges() }
    }
}

/// Records what was said of a job while nothing could be recorded, once it can be; until then the job is held. If the daemon stops before,
/// the next start does so.
pub(super) async fn tell(holds: Arc<Holds>, mut ledger: Ledger, request: RequestId, first: Said) {
    if ledger.not_ready.wait_for(Option::is_none).await.is_err() {
        return;
    }
    let mut next = Some(first);
    while let Some(said) = next {
        let told = ledger.desk.record(move |recorder| unrecorded::tell(recorder, request, said)).await;
        match told.map(Recorded::into_inner) {
            Ok(Told::Recorded | Told::Needless) => {
                next = holds.told(request);
                keep(&holds, request).await;
            }
            Ok(Told::NotPermitted(why)) => {
                next = holds.passed_over(request);
                if next.is_some() {
                    tracing::warn!(job = %request, "it was stopped, which cannot be recorded: {why}. It was stopped again since");
                    keep(&holds, request).await;
                } else {
                    tracing::warn!(job = %request, "it was stopped, which cannot be recorded: {why}. It stands still until an operator lets it go on");
                    holds.stick(request, why);
                }
            }
            Err(_) => return,
        }
    }
    ledger.nudges.nudge();
}

/// Makes what is held durable, where one may wait; why it is not, if it is not.
pub(super) async fn keep(holds: &Arc<Holds>, request: RequestId) -> Option<String> {
    let holds = Arc::clone(holds);
    let kept = tokio::task::spawn_blocking(move || holds.keep(request)).await;
    let why = match kept {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(job = %request, "what is not recorded of it cannot be kept: {why}");
    Some(why)
}

/// Runs the first job of each key, each in a task of its own.
async fn conduct(daemon: Arc<Daemon>, mut stopping: watch::Receiver<bool>) {
    let (mut runs, mut busy): (JoinSet<KeyLabel>, BTreeSet<KeyLabel>) = (JoinSet::new(), BTreeSet::new());
    let (mut nudged, mut not_ready) = (daemon.lives.nudges().heard(), daemon.not_ready.clone());
    let is_ready = tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => false,
        ready = not_ready.wait_for(Option::is_none) => ready.is_ok(),
    };
    if !is_ready {
        return;
    }
    loop {
        let holds = Arc::clone(&daemon.lives.holds);
        let first = daemon.desk.look(move |recorder| Ok(first_of_keys(recorder.fold(), &holds))).await;
        let Ok(first) = first else { break };
        for (key, request) in first {
            if busy.insert(key.clone()) {
                let (daemon, stopping) = (Arc::clone(&daemon), stopping.clone());
                runs.spawn(async move {
                    run_one(&daemon, request, stopping).await;
                    daemon.lives.end(request);
                    key
                });
            }
        }
        // Whatever lets a job be the first of its key is said, or is the end of another.
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            said = nudged.changed() => if said.is_err() { break },
            Some(ended) = runs.join_next() => {
                if let Ok(key) = ended {
                    busy.remove(&key);
                }
            }
        }
    }
    while runs.join_next().await.is_some() {}
}

/// The job of each key whose turn it is: the first that was started of those that run and are not held.
pub(super) fn first_of_keys(fold: &Fold, holds: &Holds) -> BTreeMap<KeyLabel, RequestId> {
    let runs = |job: &&JobFacts| job.state == JobState::Running && !holds.is_held(job.request);
    let mut running: Vec<&JobFacts> = fold.jobs().values().filter(runs).collect();
    running.sort_by_key(|job| std::cmp::Reverse(job.entry));
    running.into_iter().map(|job| (job.key.clone(), job.request)).collect()
}

/// Whether a job can go on, by what is recorded.
enum Gate {
    /// It stands still, or is over.
    Shut,
    /// It is over, for these reasons, which do not pass.
    Ends(Vec<Reason>),
    /// Not yet.
    Waits(Vec<Reason>),
    /// The limits of an hour leave no room before this moment.
    Limited(Timestamp),
    /// Now, with this key; its own list, if it has one, from the Device after this.
    Open { key: KeyLabel, list: Option<JobList>, after: Option<DeviceId>, so_far: JobTally },
}

fn gate(recorder: &Recorder, request: RequestId) -> Gate {
    let (fold, moment) = (recorder.fold(), recorder.moment());
    let Some(job) = fold.jobs().get(&request).filter(|job| job.state == JobState::Running) else { return Gate::Shut };
    let by = recorder.known(job.by.clone());
    if by.person != job.by.person {
        let text = format!(
            "account {} belongs to somebody else since this job was started, by the policy in force now; who has it now must start another",
            by.account
        );
        return Gate::Ends(vec![reason("asker-changed", text)]);
    }
    let said = |refusals: &[Refusal]| refusals.iter().map(Refusal::reason).collect::<Vec<_>>();
    match fold.batch_facts(&by, job.determination, moment.at, moment.clock).map(|facts| rules::decide_batch(&facts)) {
        None => return Gate::Waits(vec![reason("policy", "no policy is in force yet".into())]),
        Some(Err(refusals)) => {
            let lasting = refusals.iter().any(|refusal| rules_of_jobs::ends_job(refusal, moment.at));
            return if lasting { Gate::Ends(said(&refusals)) } else { Gate::Waits(said(&refusals)) };
        }
        Some(Ok(())) => {}
    }
    match rules_of_jobs::room(fold, job, moment.at) {
        Room::Spent { limit } => Gate::Ends(said(&[Refusal::IntentsSpent { limit, used: limit }])),
        Room::Until(until) => Gate::Limited(until),
        Room::Intents(_) => {
            let (key, list, after) = (job.key.clone(), job.list, job.position);
            Gate::Open { key, list, after, so_far: job.tally }
        }
    }
}

/// Runs a job until it stands still, is over, or the daemon stops.
async fn run_one(daemon: &Arc<Daemon>, request: RequestId, mut stopping: watch::Receiver<bool>) {
    let (mut pause, mut not_before) = (TOKEN_PAUSE_FIRST, None::<(Instant, Vec<Reason>)>);
    let (mut happens, mut first) = (Happens::of(daemon), true);
    let held = daemon.lives.holds.of(request);
    loop {
        if !first {
            happens.wait(&mut stopping).await;
        }
        first = false;
        if *stopping.borrow() || held.load(Ordering::SeqCst) {
            return;
        }
        let Ok(gate) = daemon.desk.look(move |recorder| Ok(gate(recorder, request))).await else { return };
        let (key, list, after, before) = match gate {
            Gate::Shut => return,
            Gate::Ends(why) => {
                if end(daemon, request, why).await {
                    return;
                }
                continue;
            }
            Gate::Waits(why) => {
                daemon.lives.stand(request, Standing::Waiting(why));
                continue;
            }
            Gate::Limited(until) => {
                daemon.lives.stand(request, Standing::Limited(until));
                continue;
            }
            Gate::Open { key, list, after, so_far } => (key, list, after, so_far),
        };
        let tokens = match up(daemon, &key) {
            Ok(tokens) => tokens,
            Err(why) => {
                daemon.lives.stand(request, Standing::Waiting(why));
                continue;
            }
        };
        if let Some((at, why)) = &not_before
            && Instant::now() < *at
        {
            daemon.lives.stand(request, Standing::Waiting(why.clone()));
            continue;
        }
        let signed = daemon.lives.signed(request);
        let signed_before = signed.load(Ordering::Relaxed);
        // Whoever starts it is done with it, and nobody else signs for this request meanwhile.
        let Ok(running) = Running::begin(&daemon.running, request) else { continue };
        let on = GoOn {
            request,
            batch: daemon.lives.accepted().remove(&request),
            operation: START,
            chunk: daemon.chunk,
            probing: not_before.is_some(),
            feed: list.map(|list| feed(daemon, list, after)),
            signed: Arc::clone(&signed),
            held: Arc::clone(&held),
        };
        let Ok(job) = daemon.desk.record(move |recorder| Ok(pipeline::go_on(recorder, on)?.map(First::Accepted))).await
        else {
            return;
        };
        let Some(first) = job.into_some() else { continue };
        daemon.lives.stand(request, Standing::Running);
        let ran = run_sampled(daemon, request, &tokens, first, stopping.clone()).await;
        drop(running);
        daemon.runs_ended.send_modify(|count| *count += 1);
        let Ok(ran) = ran else { return };
        let has_signed = signed.load(Ordering::Relaxed) > signed_before;
        if has_signed {
            (pause, not_before) = (TOKEN_PAUSE_FIRST, None);
        }
        match ran {
            Ran::ToItsEnd => {
                if *stopping.borrow() {
                    return;
                }
                // What was with the token when the list came to its end may have left something to take up again.
                let goes_on = daemon.desk.look(move |recorder| Ok(goes_on(recorder, request, before))).await;
                let Ok(goes_on) = goes_on else { return };
                if !goes_on && end_soon(daemon, request, &mut happens, &mut stopping).await {
                    return;
                }
            }
            Ran::Stopped(why) if why.iter().any(|reason| &*reason.rule == "token") => {
                not_before = Some((Instant::now() + pause, why.clone()));
                pause = (pause * 2).min(TOKEN_PAUSE_MAX);
                daemon.lives.stand(request, Standing::Waiting(why));
            }
            Ran::Stopped(why) if why.iter().any(|reason| &*reason.rule == "job-list") => {
                if end(daemon, request, why).await {
                    return;
                }
            }
            // What stopped it stands before the gate too.
            Ran::Stopped(why) => daemon.lives.stand(request, Standing::Waiting(why)),
            Ran::Limited(until) => daemon.lives.stand(request, Standing::Limited(until)),
        }
    }
}

/// One run, measured.
async fn run_sampled(
    daemon: &Arc<Daemon>,
    request: RequestId,
    tokens: &Several,
    first: Recorded<First>,
    stopping: watch::Receiver<bool>,
) -> Result<Ran, crate::recorder::Closed> {
    let (news, _heard) = mpsc::channel(1);
    let run = pipeline::run(&daemon.desk, tokens.clone(), first, news, stopping);
    tokio::pin!(run);
    let mut sample = tokio::time::interval(SAMPLE);
    loop {
        tokio::select! {
            ran = &mut run => return ran.map(|(ran, _)| ran),
            _ = sample.tick() => daemon.lives.sample(request, tokens),
        }
    }
}

/// Whether a job that came to the end of its list has something to take up again: what was left without a signature, as long as a run
/// signs anything; and what is unknown, as long as a run tries any of it, which is as often as the determination allows.
fn goes_on(recorder: &Recorder, request: RequestId, before: JobTally) -> bool {
    let fold = recorder.fold();
    let Some(job) = fold.jobs().get(&request) else { return false };
    let scope = fold.determinations().get(&job.determination).and_then(|facts| facts.scope.as_ref());
    let by_itself = scope.is_some_and(|scope| scope.retries_by_itself);
    let has_signed = job.tally.signed + job.tally.unknown != before.signed + before.unknown;
    let has_tried = job.tally.intents > before.intents;
    (!job.behind.is_empty() && has_signed) || (job.behind.is_empty() && by_itself && job.tally.unknown > 0 && has_tried)
}

/// Ends a job whose Devices were all come to, once that can be said: a further attempt for one may be with the token, by another request.
/// False if it stands still meanwhile, or the daemon stops.
async fn end_soon(
    daemon: &Daemon,
    request: RequestId,
    happens: &mut Happens,
    stopping: &mut watch::Receiver<bool>,
) -> bool {
    while !end(daemon, request, Vec::new()).await {
        happens.wait(stopping).await;
        if *stopping.borrow() {
            return false;
        }
    }
    true
}

/// What may let a job go on, or stop it.
struct Happens {
    /// Something was recorded.
    grown: watch::Receiver<u64>,
    /// Something was said.
    nudged: watch::Receiver<u64>,
}

impl Happens {
    fn of(daemon: &Daemon) -> Self {
        Self { grown: daemon.desk.grown(), nudged: daemon.lives.nudges().heard() }
    }

    /// Waits for something to happen, or for as long as nobody tells what does.
    async fn wait(&mut self, stopping: &mut watch::Receiver<bool>) {
        let at_most = tokio::time::Instant::now() + LOOK_MAX;
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => {}
            _ = self.grown.changed() => {}
            _ = self.nudged.changed() => {}
            () = tokio::time::sleep_until(at_most) => {}
        }
    }
}

/// The tokens of a key, if one is up; else why not.
pub(super) fn up(daemon: &Daemon, key: &KeyLabel) -> Result<Several, Vec<Reason>> {
    let Some(tokens) = daemon.keys.active(key) else {
        return Err(vec![reason("key-locked", format!("key {key} is locked"))]);
    };
    match tokens.condition() {
        Condition::Up => Ok(tokens),
        Condition::Down(_) | Condition::Locked(_) => {
            let standing =
                tokens.tokens().iter().map(|token| token.standing().told_of(token.name())).collect::<Vec<_>>();
            Err(vec![reason("token", standing.join("; "))])
        }
    }
}

/// Records that a job ended, if it runs. False if it cannot be said yet: then it is asked again.
async fn end(daemon: &Daemon, request: RequestId, why: Vec<Reason>) -> bool {
    let ended = daemon.desk.record(move |recorder| {
        let fold = recorder.fold();
        let Some(job) = fold.jobs().get(&request).filter(|job| job.state == JobState::Running) else { return Ok(true) };
        if why.is_empty() && rules_of_jobs::total(fold, job) != Some(job.tally.done()) {
            return Ok(false);
        }
        let tally = job.tally;
        recorder.queue(&Actor::daemon(), Event::JobEnded(JobEnded { request, tally, why }))?;
        Ok(true)
    });
    ended.await.is_ok_and(crate::recorder::Recorded::into_inner)
}

/// The Devices of a job's own list after the one it came to last, as they are wanted: read on a thread of its own.
fn feed(daemon: &Daemon, list: JobList, after: Option<DeviceId>) -> Feed {
    let (pages, feed) = mpsc::channel(PAGES_MAX);
    let (state, lists) = (daemon.state.clone(), daemon.lives.lists());
    tokio::task::spawn_blocking(move || {
        let read = || -> Result<(), String> {
            let reader = SqliteReader::open(&state).map_err(|error| error.to_string())?;
            let mut at = first_line_after(&reader, &lists, list, after)?;
            while at < list.devices {
                let page = lines(&reader, list, at..list.devices.min(at + PAGE))?;
                at += page.len() as u64;
                // The job needs no more.
                if pages.blocking_send(Ok(page)).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        };
        if let Err(why) = read() {
            let _ = pages.blocking_send(Err(why));
        }
    });
    feed
}

/// The line of a list, from 0, at which a job goes on. What is read is the list only if all of it is, which shows at its end, and nothing may
/// be signed before: it is read whole once after each start.
fn first_line_after(
    reader: &SqliteReader,
    lists: &Lists,
    list: JobList,
    after: Option<DeviceId>,
) -> Result<u64, String> {
    if !lists.is_known(list.sha256) {
        StoredDocuments(reader).stream(list.sha256, &mut |_| ()).map_err(|error| error.to_string())?;
        lists.know(list.sha256);
    }
    let Some(after) = after else { return Ok(0) };
    let (mut low, mut high) = (0, list.devices);
    while low < high {
        let middle = low + (high - low) / 2;
        if lines(reader, list, middle..middle + 1)?.iter().all(|device| *device <= after) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Some lines of a list that is known to be what its digest says.
fn lines(reader: &SqliteReader, list: JobList, of: std::ops::Range<u64>) -> Result<Vec<DeviceId>, String> {
    let count = usize::try_from(of.end - of.start).expect("a page");
    let len = count * usize::try_from(LIST_LINE_LEN).expect("a line");
    let octets = reader.blob_at(list.sha256, of.start * LIST_LINE_LEN, len).map_err(|error| error.to_string())?;
    let (mut lines, mut devices) = (ListReader::default(), Vec::with_capacity(count));
    lines.feed(&octets, |device| devices.push(device));
    lines.finish().map_err(|faults| faults.to_string())?;
    Ok(devices)
}
