//! Shell: jobs. The daemon runs them by itself, whoever listens: one of a key at a time, in the order in which they were started; what
//! stands in the way of one is waited for, and the others of its key wait behind it.
//!
//! What a job is lies in the ledger. Here lies only why it does not go on at the moment, and how fast it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Answer, Daemon, Running, answers, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::fold::jobs::{JobFacts, JobState, JobStop};
use crate::domain::fold::{Blobs as _, Fold};
use crate::domain::intake;
use crate::domain::intake::jobs::{self as rules_of_jobs, ListReader, Room};
use crate::domain::ledger::entry::{Actor, Event, JobCancelled, JobEnded, JobPaused, JobResumed, JobStarted, Reason};
use crate::domain::ledger::jobs::{JobList, JobTally, LIST_LINE_LEN, RuleCount};
use crate::domain::names::{DeviceId, Digest, KeyLabel, RequestId};
use crate::domain::policy::rules::{self, Refusal};
use crate::domain::time::Timestamp;
use crate::hsm::{Condition, Several};
use crate::pipeline::{self, Feed, First, GoOn, Ran, Request, WantedSet};
use crate::recorder::{Recorded, Recorder};
use crate::state::StoredDocuments;
use crate::store::sqlite::SqliteReader;
use crate::store::{Reader as _, Staging};

/// The route that starts one, as refusals name it.
const START: &str = "job-start";

/// How often it is looked whether a job can go on: a key that is activated, a token that is back.
const LOOK: Duration = Duration::from_millis(100);

/// How soon a token that signed nothing is tried again; doubled each time up to [`TOKEN_PAUSE_MAX`].
const TOKEN_PAUSE_FIRST: Duration = Duration::from_secs(2);

/// The longest pause before a token that signed nothing is tried again.
const TOKEN_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The span of a rate.
const SPAN: Duration = Duration::from_secs(10);

/// How often it is measured.
const SAMPLE: Duration = Duration::from_millis(500);

/// Devices of a job's list that are read at a time.
const PAGE: usize = 1_000;

/// Pages that may wait.
const PAGES_MAX: usize = 2;

/// Octets of a list that are read at a time.
const PIECE_LEN: usize = 64 * 1024;

/// How an operator stops a job.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    Pause,
    Cancel,
}

impl Stop {
    const fn operation(self) -> &'static str {
        match self {
            Self::Pause => "job-pause",
            Self::Cancel => "job-cancel",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Pause => "is paused",
            Self::Cancel => "is cancelled",
        }
    }

    fn decide(self, fold: &Fold, by: &Actor, request: RequestId, reason: &str) -> Result<Event, Vec<Reason>> {
        may_act(fold, by, request)?;
        Ok(match self {
            Self::Pause => {
                rules_of_jobs::may_pause(fold, request, reason)?;
                Event::JobPaused(JobPaused { request, reason: reason.into() })
            }
            Self::Cancel => {
                rules_of_jobs::may_cancel(fold, request, reason)?;
                Event::JobCancelled(JobCancelled { request, reason: reason.into() })
            }
        })
    }
}

/// Whether whoever asks may act in the incident of a job.
fn may_act(fold: &Fold, by: &Actor, request: RequestId) -> Result<(), Vec<Reason>> {
    fold.jobs().get(&request).map_or(Ok(()), |job| intake::operator(fold, by, &job.incident))
}

/// How jobs stand, beside what is recorded of them.
#[derive(Default)]
pub(super) struct Lives {
    all: Mutex<BTreeMap<RequestId, Live>>,
    /// The batches with which jobs were accepted, until they run.
    accepted: Mutex<BTreeMap<RequestId, u64>>,
    /// Something happened that may let a job go on.
    nudge: Notify,
}

/// How a job stands that is being run or waits for something.
struct Live {
    standing: Standing,
    signed: Arc<AtomicU64>,
    held: Arc<AtomicBool>,
    samples: VecDeque<Sample>,
}

#[derive(Clone, Debug)]
enum Standing {
    Running,
    Waiting(Vec<Reason>),
    Limited(Timestamp),
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    signed: u64,
    busy: Duration,
    sessions: u64,
}

/// How fast a job is.
#[derive(Clone, Copy, Default)]
struct Pace {
    rate: Option<f64>,
    hsm_busy: Option<f64>,
}

impl Lives {
    fn all(&self) -> MutexGuard<'_, BTreeMap<RequestId, Live>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self) -> MutexGuard<'_, BTreeMap<RequestId, u64>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of<R>(&self, request: RequestId, with: impl FnOnce(&mut Live) -> R) -> R {
        let mut all = self.all();
        with(all.entry(request).or_insert_with(|| Live {
            standing: Standing::Waiting(Vec::new()),
            signed: Arc::default(),
            held: Arc::default(),
            samples: VecDeque::new(),
        }))
    }

    fn stand(&self, request: RequestId, standing: Standing) {
        self.of(request, |live| {
            if !matches!(standing, Standing::Running) {
                live.samples.clear();
            }
            live.standing = standing;
        });
    }

    fn sample(&self, request: RequestId, tokens: &Several) {
        let (busy, sessions) = tokens.busy();
        self.of(request, |live| {
            let at = Instant::now();
            live.samples.push_back(Sample { at, signed: live.signed.load(Ordering::Relaxed), busy, sessions });
            // One of before the span stays, so that it is covered.
            while live.samples.len() > 2 && at - live.samples[1].at >= SPAN {
                live.samples.pop_front();
            }
        });
    }
}

impl Live {
    fn pace(&self) -> Pace {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return Pace::default() };
        let span = (last.at - first.at).as_secs_f64();
        if span <= 0.0 {
            return Pace::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let per_second = |count: u64| count as f64 / span;
        // A worker that was replaced counts from nothing.
        let busy = last.busy.saturating_sub(first.busy).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "sessions are few")]
        let of_all = busy / (span * last.sessions.max(1) as f64);
        Pace {
            rate: Some(per_second(last.signed.saturating_sub(first.signed))),
            hsm_busy: Some((of_all * 100.0).min(100.0)),
        }
    }
}

/// Lets the daemon run its jobs from here on.
pub(super) fn begin(daemon: &Arc<Daemon>) {
    let conducted = conduct(Arc::clone(daemon), daemon.stopping.subscribe());
    daemon.jobs.lock().unwrap_or_else(PoisonError::into_inner).spawn(conducted);
}

/// Runs the first job of each key, each in a task of its own.
async fn conduct(daemon: Arc<Daemon>, mut stopping: watch::Receiver<bool>) {
    let mut runs: JoinSet<KeyLabel> = JoinSet::new();
    let mut busy: BTreeSet<KeyLabel> = BTreeSet::new();
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            () = daemon.lives.nudge.notified() => {}
            Some(ended) = runs.join_next() => {
                if let Ok(key) = ended {
                    busy.remove(&key);
                }
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        if daemon.not_ready.borrow().is_some() {
            continue;
        }
        let Ok(first) = daemon.desk.look(|recorder| Ok(first_of_keys(recorder.fold()))).await else { break };
        for (key, request) in first {
            if busy.insert(key.clone()) {
                let (daemon, stopping) = (Arc::clone(&daemon), stopping.clone());
                runs.spawn(async move {
                    run_one(&daemon, request, stopping).await;
                    daemon.lives.all().remove(&request);
                    key
                });
            }
        }
    }
    while runs.join_next().await.is_some() {}
}

/// The job of each key whose turn it is: the first that was started of those that run.
fn first_of_keys(fold: &Fold) -> BTreeMap<KeyLabel, RequestId> {
    let mut running: Vec<&JobFacts> = fold.jobs().values().filter(|job| job.state == JobState::Running).collect();
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
        return Gate::Ends(vec![super::reason("asker-changed", text)]);
    }
    let said = |refusals: &[Refusal]| refusals.iter().map(Refusal::reason).collect::<Vec<_>>();
    match fold.batch_facts(&by, job.determination, moment.at, moment.clock).map(|facts| rules::decide_batch(&facts)) {
        None => return Gate::Waits(vec![super::reason("policy", "no policy is in force yet".into())]),
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
    let mut first = true;
    loop {
        if !first {
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        first = false;
        if *stopping.borrow() {
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
        let (signed, held) = daemon.lives.of(request, |live| (Arc::clone(&live.signed), Arc::clone(&live.held)));
        if held.load(Ordering::SeqCst) {
            continue;
        }
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
            held,
        };
        let Ok(job) = daemon.desk.record(move |recorder| Ok(pipeline::go_on(recorder, on)?.map(First::Accepted))).await
        else {
            return;
        };
        let Some(first) = job.into_some() else { continue };
        daemon.lives.stand(request, Standing::Running);
        let ran = run_sampled(daemon, request, &tokens, first, stopping.clone()).await;
        drop(running);
        daemon.runs_ended.fetch_add(1, Ordering::Relaxed);
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
                if !goes_on && end_soon(daemon, request, &mut stopping).await {
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
async fn end_soon(daemon: &Daemon, request: RequestId, stopping: &mut watch::Receiver<bool>) -> bool {
    loop {
        if end(daemon, request, Vec::new()).await {
            return true;
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return false,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The tokens of a key, if one is up; else why not.
fn up(daemon: &Daemon, key: &KeyLabel) -> Result<Several, Vec<Reason>> {
    let Some(tokens) = daemon.keys.active(key) else {
        return Err(vec![super::reason("key-locked", format!("key {key} is locked"))]);
    };
    match tokens.condition() {
        Condition::Up => Ok(tokens),
        Condition::Down(_) | Condition::Locked(_) => {
            let standing =
                tokens.tokens().iter().map(|token| token.standing().told_of(token.name())).collect::<Vec<_>>();
            Err(vec![super::reason("token", standing.join("; "))])
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
    let state = daemon.state.clone();
    tokio::task::spawn_blocking(move || {
        let read = || -> Result<(), String> {
            let reader = SqliteReader::open(&state).map_err(|error| error.to_string())?;
            // What is read is the list only if all of it is: that shows at its end, and nothing may be signed before.
            StoredDocuments(&reader).stream(list.sha256, &mut |_| ()).map_err(|error| error.to_string())?;
            let mut octets = reader.open_blob(list.sha256).map_err(|error| error.to_string())?;
            let (mut lines, mut page, mut piece) = (ListReader::default(), Vec::new(), vec![0; PIECE_LEN]);
            loop {
                let len = octets.read(&mut piece).map_err(|error| error.to_string())?;
                let take = |device| page.extend(Some(device).filter(|device| Some(*device) > after));
                lines.feed(&piece[..len], take).map_err(|error| error.to_string())?;
                if page.len() >= PAGE || (len == 0 && !page.is_empty()) {
                    // The job needs no more.
                    if pages.blocking_send(Ok(std::mem::take(&mut page))).is_err() {
                        return Ok(());
                    }
                }
                if len == 0 {
                    return Ok(());
                }
            }
        };
        if let Err(why) = read() {
            let _ = pages.blocking_send(Err(why));
        }
    });
    feed
}

impl Daemon {
    pub(super) async fn start_job(&self, caller: &Caller, start: wire::JobStart) -> Answer<wire::Job> {
        let asked = answers::digest_of(&start)?;
        let wire::JobStart { request, determination, list, per_hour, reason } = start;
        // The same again is answered with how it stands.
        let known = self.read(move |recorder| Ok(recorder.fold().jobs().get(&request).map(|job| job.asked)));
        if known.await? == Some(asked) {
            return self.show_job(request).await;
        }
        // Nobody has a list read who could not have anything signed: they are refused below, for all there is.
        let actor = caller.actor();
        let may_ask = self.read(move |recorder| Ok(pipeline::may_ask(recorder, actor, determination))).await?;
        let list = match list {
            None => None,
            Some(sha256) if may_ask => Some(JobList { sha256, devices: self.count_list(sha256).await? }),
            Some(sha256) => Some(JobList { sha256, devices: 0 }),
        };
        let running = Running::begin(&self.running, request)?;
        let (actor, chunk) = (caller.actor(), self.chunk);
        let started = self.change(move |recorder| {
            let by = recorder.known(actor);
            let scope = recorder.fold().determinations().get(&determination);
            let scope = scope.and_then(|facts| Some((facts.incident.clone(), facts.key.clone()?.0)));
            let reason = reason.map(Into::into);
            let event = scope.map(|(incident, key)| JobStarted {
                request,
                asked,
                incident,
                determination,
                key,
                list,
                per_hour,
                reason,
            });
            if let Some(event) = &event
                && let Err(reasons) = rules_of_jobs::may_start(recorder.fold(), event)
            {
                return refused(recorder, &by, START, asked, (None, Some(determination)), reasons);
            }
            let ask = Request {
                by: by.clone(),
                operation: START,
                id: request,
                asked,
                determination,
                wanted: WantedSet::All,
                chunk,
            };
            match (pipeline::accept(recorder, ask)?, event) {
                (Ok(_), Some(JobStarted { list: Some(JobList { devices: 0, .. }), .. })) => {
                    let what = "whoever asks may do so only since the list would have been read; ask again".into();
                    Ok(Err(Failure::Internal { what }))
                }
                (Ok(job), Some(event)) => {
                    if let Some(list) = list
                        && recorder.store().blob_len(list.sha256)?.is_none()
                        && !recorder.claim_staged(list.sha256)
                    {
                        let text = format!("list {} waited too long and was dropped; upload it again", list.sha256);
                        let reasons = vec![super::reason("devices", text)];
                        return refused(recorder, &by, START, asked, (None, Some(determination)), reasons);
                    }
                    recorder.queue(&by, Event::JobStarted(event)).map(|_| Ok(job.batch()))
                }
                (Ok(_), None) => Ok(Err(Failure::Internal { what: "an accepted request has no key".into() })),
                (Err((reasons, entry)), _) => Ok(Err(Failure::Refused { reasons, entry })),
            }
        });
        let batch = started.await?;
        self.lives.accepted().insert(request, batch);
        drop(running);
        self.lives.nudge.notify_one();
        self.show_job(request).await
    }

    /// The Devices of a list that was uploaded, or that another job has.
    async fn count_list(&self, sha256: Digest) -> Answer<u64> {
        let failed = |error: &dyn std::fmt::Display| Failure::Internal { what: error.to_string() };
        let turn = Arc::clone(&self.looks).acquire_owned().await.map_err(|error| failed(&error))?;
        let (staging, state) = (Arc::clone(&self.staging), self.state.clone());
        let counted = tokio::task::spawn_blocking(move || {
            let counted = count_list(&staging, &state, sha256);
            drop(turn);
            counted
        })
        .await;
        counted.map_err(|error| failed(&error))?
    }

    /// Pauses or cancels a job: the fence stands before this is answered.
    pub(super) async fn stop_job(
        &self,
        caller: &Caller,
        request: RequestId,
        stop: Stop,
        reason: String,
    ) -> Answer<wire::Job> {
        super::check_reason(&reason)?;
        let actor = caller.actor();
        let key = self.read(move |recorder| Ok(recorder.fold().jobs().get(&request).map(|job| job.key.clone())));
        let key = key.await?.ok_or_else(|| not_found(request))?;
        if let Some(trouble) = self.in_the_way() {
            return self.stop_unrecorded((actor, request, key), stop, reason, trouble).await;
        }
        let keys = Arc::clone(&self.keys);
        let asked = Digest::of(format!("{request} {reason}").as_bytes());
        self.change(move |recorder| {
            let by = recorder.known(actor);
            match stop.decide(recorder.fold(), &by, request, &reason) {
                Ok(event) => {
                    keys.fence_key(&key);
                    recorder.queue(&by, event).map(|_| Ok(()))
                }
                Err(reasons) => refused(recorder, &by, stop.operation(), asked, (None, None), reasons),
            }
        })
        .await?;
        self.lives.nudge.notify_one();
        self.show_job(request).await
    }

    /// Stops a job while nothing can be recorded: the fence stands at once, and the job is held until it can.
    async fn stop_unrecorded(
        &self,
        (actor, request, key): (Actor, RequestId, KeyLabel),
        stop: Stop,
        reason: String,
        trouble: wire::Trouble,
    ) -> Answer<wire::Job> {
        let (asker, said) = (actor.clone(), reason.clone());
        let decided = self.read(move |recorder| {
            let by = recorder.known(asker);
            Ok(stop.decide(recorder.fold(), &by, request, &said).map(drop))
        });
        if let Err(reasons) = decided.await? {
            return Err(Failure::Refused { reasons, entry: None });
        }
        let held = self.lives.of(request, |live| Arc::clone(&live.held));
        held.store(true, Ordering::SeqCst);
        let keys = Arc::clone(&self.keys);
        let fenced = tokio::task::spawn_blocking(move || keys.fence_key(&key));
        fenced.await.map_err(|error| Failure::Internal { what: error.to_string() })?;
        tracing::warn!(
            job = %request,
            account = %actor.account,
            "{} while nothing can be recorded; a restart before it is recorded forgets it",
            stop.done()
        );
        let desk = self.desk.clone();
        tokio::spawn(async move {
            let recorded = desk.record(move |recorder| {
                let by = recorder.known(actor);
                match stop.decide(recorder.fold(), &by, request, &reason) {
                    Ok(event) => recorder.queue(&by, event).map(drop),
                    // It came to its end before.
                    Err(_) => Ok(()),
                }
            });
            if recorded.await.is_ok() {
                held.store(false, Ordering::SeqCst);
            }
        });
        Err(Failure::Unavailable {
            why: format!(
                "job {request} {}, and what was not at the token is not signed. That is not recorded yet: {}",
                stop.done(),
                trouble.what
            ),
            remedy: format!(
                "It is recorded once it can be; if smkid is restarted before, say it again before the key is activated. {}",
                trouble.remedy
            ),
        })
    }

    pub(super) async fn resume_job(&self, caller: &Caller, request: RequestId) -> Answer<wire::Job> {
        let actor = caller.actor();
        let asked = Digest::of(request.to_string().as_bytes());
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let fold = recorder.fold();
            if !fold.jobs().contains_key(&request) {
                return Ok(Err(not_found(request)));
            }
            match may_act(fold, &by, request).and_then(|()| rules_of_jobs::may_resume(fold, request)) {
                Ok(()) => recorder.queue(&by, Event::JobResumed(JobResumed { request })).map(|_| Ok(())),
                Err(reasons) => refused(recorder, &by, "job-resume", asked, (None, None), reasons),
            }
        })
        .await?;
        self.lives.nudge.notify_one();
        self.show_job(request).await
    }

    /// Whether a request goes on: it is being run, or it is a job that is not over, whatever it waits for.
    pub(super) async fn is_open(&self, request: RequestId) -> Answer<bool> {
        if self.running.lock().unwrap_or_else(PoisonError::into_inner).contains(&request) {
            return Ok(true);
        }
        self.read(move |recorder| Ok(recorder.fold().jobs().get(&request).is_some_and(|job| !job.state.is_over())))
            .await
    }

    pub(super) async fn list_jobs(&self) -> Answer<wire::Jobs> {
        let all = self.read(|recorder| {
            let (fold, at) = (recorder.fold(), recorder.moment().at);
            let mut all: Vec<&JobFacts> = fold.jobs().values().collect();
            all.sort_by_key(|job| job.entry);
            let first = first_of_keys(fold);
            Ok(all.into_iter().map(|job| shown(fold, job, &first, at)).collect::<Vec<_>>())
        });
        Ok(wire::Jobs { jobs: all.await?.into_iter().map(|shown| self.alive(shown)).collect() })
    }

    pub(super) async fn show_job(&self, request: RequestId) -> Answer<wire::Job> {
        let found = self.read(move |recorder| {
            let (fold, at) = (recorder.fold(), recorder.moment().at);
            Ok(fold.jobs().get(&request).map(|job| shown(fold, job, &first_of_keys(fold), at)))
        });
        Ok(self.alive(found.await?.ok_or_else(|| not_found(request))?))
    }

    /// With what is not recorded: what it waits for, and how fast it is.
    fn alive(&self, Shown { mut job, behind, per_hour }: Shown) -> wire::Job {
        if job.state != wire::JobState::Running {
            return job;
        }
        let (standing, held, pace) = {
            let all = self.lives.all();
            let live = all.get(&job.request);
            let held = live.is_some_and(|live| live.held.load(Ordering::SeqCst));
            (live.map(|live| live.standing.clone()), held, live.map(Live::pace).unwrap_or_default())
        };
        let waits = |why: Vec<Reason>| (wire::JobState::Waiting, why, None);
        let (state, why, until) = match (self.in_the_way(), standing) {
            _ if held => {
                waits(vec![super::reason("job-state", "an operator stopped it, which is not recorded yet".into())])
            }
            (Some(trouble), _) => {
                waits(vec![super::reason("ledger-token", format!("{}. {}", trouble.what, trouble.remedy))])
            }
            (None, Some(Standing::Running)) => match up(self, &job.key) {
                Ok(_) => (wire::JobState::Running, Vec::new(), None),
                Err(why) => waits(why),
            },
            (None, Some(Standing::Waiting(why))) if !why.is_empty() => waits(why),
            (None, Some(Standing::Limited(until))) => (wire::JobState::Limited, Vec::new(), Some(until)),
            (None, Some(Standing::Waiting(_)) | None) => match behind {
                Some(first) => {
                    let text = format!(
                        "job {first} of the same key was started before it; pause that one to let this one go first"
                    );
                    waits(vec![super::reason("job-order", text)])
                }
                None => waits(Vec::new()),
            },
        };
        (job.state, job.why, job.until) = (state, why, until);
        if state == wire::JobState::Running {
            (job.rate, job.hsm_busy) = (pace.rate, pace.hsm_busy);
            job.eta_s = eta_s(job.total.saturating_sub(job.done), pace.rate, per_hour);
        }
        job
    }
}

fn not_found(request: RequestId) -> Failure {
    Failure::NotFound { what: format!("job {request}") }
}

/// Seconds that so many Devices take at a rate, and by the limits of an hour.
fn eta_s(left: u64, rate: Option<f64>, per_hour: Option<u64>) -> Option<u64> {
    let rate = rate.filter(|rate| *rate > 0.0)?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for people"
    )]
    let at_rate = (left as f64 / rate).ceil() as u64;
    // The first of an hour come at once.
    let by_limit = per_hour.map_or(0, |most| left.saturating_sub(1) / most.max(1) * 3_600);
    Some(at_rate.max(by_limit))
}

/// A job by what is recorded, and what is looked at beside.
struct Shown {
    job: wire::Job,
    /// The job of the same key whose turn comes before.
    behind: Option<RequestId>,
    /// The lower of the two limits of an hour.
    per_hour: Option<u64>,
}

fn shown(fold: &Fold, job: &JobFacts, first: &BTreeMap<KeyLabel, RequestId>, at: Timestamp) -> Shown {
    let act = |by: &Actor, at: Timestamp, reason: Option<&str>| wire::JobAct {
        account: by.account.to_string(),
        person: by.person.clone(),
        at,
        reason: reason.map(ToOwned::to_owned),
    };
    let of_stop = |stop: &JobStop| Some(act(&stop.by, stop.at, Some(&stop.reason)));
    let (state, why, stopped, ended) = match &job.state {
        JobState::Running => (wire::JobState::Running, Vec::new(), None, None),
        JobState::Paused(stop) => (wire::JobState::Paused, Vec::new(), of_stop(stop), None),
        JobState::Cancelled(stop) => (wire::JobState::Cancelled, Vec::new(), of_stop(stop), Some(stop.at)),
        JobState::Ended { at, why } => (wire::JobState::Ended, why.clone(), None, Some(*at)),
    };
    let facts = fold.determinations().get(&job.determination);
    let scope = facts.and_then(|facts| facts.scope.as_ref());
    let intents_left = facts.zip(scope).map_or(0, |(facts, scope)| scope.intents_max.saturating_sub(facts.intents));
    let of_determination = scope.map(|scope| scope.per_hour_max);
    let per_hour = match (of_determination, job.per_hour) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let done = job.tally.done();
    let elapsed_ms = ended.unwrap_or(at).unix_ms() - job.started.unix_ms();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate_overall = (elapsed_ms > 0 && done > 0).then(|| done as f64 * 1_000.0 / elapsed_ms as f64);
    let first = first.get(&job.key).copied();
    let rules = job.rules.iter().map(|(rule, count)| RuleCount { rule: rule.clone(), count: *count }).collect();
    let job = wire::Job {
        request: job.request,
        incident: job.incident.clone(),
        determination: job.determination,
        key: job.key.clone(),
        state,
        why,
        until: None,
        started: act(&job.by, job.started, None),
        stopped,
        ended,
        total: rules_of_jobs::total(fold, job).unwrap_or(0),
        done,
        tally: job.tally,
        rules,
        refused: job.refused_first.clone(),
        per_hour: job.per_hour,
        intents_left,
        rate: None,
        rate_overall,
        eta_s: None,
        hsm_busy: None,
    };
    let behind = first.filter(|first| *first != job.request);
    Shown { job, behind, per_hour }
}

fn count_list(staging: &Staging, state: &std::path::Path, sha256: Digest) -> Answer<u64> {
    let wrong = |found: String| {
        let expected = format!("one EUI-64 a line of {LIST_LINE_LEN} octets, sorted, each once");
        Failure::malformed("list", &expected, &found, "`smkictl recovery start` makes it from any list of Devices.")
    };
    let (mut reader, mut fault) = (ListReader::default(), None);
    let mut feed = |piece: &[u8]| {
        if fault.is_none() {
            fault = reader.feed(piece, |_| ()).err();
        }
    };
    if let Some(file) = staging.open_staged(sha256).map_err(crate::store::StoreError::from)? {
        crate::state::pieces(file, &mut feed).map_err(|error| Failure::Internal { what: error.to_string() })?;
    } else {
        let stored = SqliteReader::open(state)?;
        StoredDocuments(&stored)
            .stream(sha256, &mut feed)
            .map_err(|_| Failure::from(crate::store::StoreError::NotStaged { digest: sha256 }))?;
    }
    match fault.map_or_else(|| reader.finish(), Err) {
        Ok(0) => Err(wrong("nothing".into())),
        Ok(devices) => Ok(devices),
        Err(fault) => Err(wrong(fault.to_string())),
    }
}
