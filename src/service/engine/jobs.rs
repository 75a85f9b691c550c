//! Shell: jobs. The daemon runs them by itself, whoever listens: one of a key at a time, in the order in which they were started; what
//! stands in the way of one is waited for, and the others of its key wait behind it ([`conduct`]).
//!
//! What a job is lies in the ledger. Here lies only why it does not go on at the moment, how fast it is ([`lives`]), and what was said of it
//! that is not recorded yet ([`unrecorded`]).

mod conduct;
mod lives;
mod unrecorded;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Answer, Daemon, Running, answers, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::fold::jobs::{JobFacts, JobState, JobStop};
use crate::domain::fold::{Blobs as _, Fold};
use crate::domain::intake;
use crate::domain::intake::jobs::{self as rules_of_jobs, ListReader};
use crate::domain::ledger::entry::{Actor, Event, JobCancelled, JobPaused, JobResumed, JobStarted, Reason};
use crate::domain::ledger::jobs::{JobList, LIST_LINE_LEN, RuleCount};
use crate::domain::names::{Digest, KeyLabel, RequestId};
use crate::domain::time::Timestamp;
use crate::pipeline::{self, Request, WantedSet};
use crate::recorder::Recorder;
use crate::state::StoredDocuments;
use crate::store::Staging;
use crate::store::sqlite::SqliteReader;
use conduct::{first_of_keys, up};
use lives::{Live, Standing};
use unrecorded::Said;

pub(super) use conduct::begin;
pub(super) use lives::Lives;

/// The route that starts one, as refusals name it.
const START: &str = "job-start";

/// How an operator stops a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
            Some(sha256) if may_ask => {
                let devices = self.count_list(sha256).await?;
                self.bring(sha256).await?;
                Some(JobList { sha256, devices })
            }
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
            // A list that was not read is another's who is refused below.
            let is_read = list.is_none_or(|list| list.devices > 0);
            if let Some(event) = event.as_ref().filter(|_| is_read)
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
        self.lives.nudges().nudge();
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
        if stop == Stop::Cancel {
            self.lives.accepted().remove(&request);
        }
        self.let_go(request).await;
        self.lives.nudges().nudge();
        self.show_job(request).await
    }

    /// The ledger has the last word of a job: what was said before and could not be recorded counts no more.
    async fn let_go(&self, request: RequestId) {
        let holds = Arc::clone(&self.lives.holds);
        if holds.is_stuck(request) {
            let gone = tokio::task::spawn_blocking(move || holds.let_go(request)).await;
            if let Ok(Err(error)) = gone {
                tracing::warn!(job = %request, "what is kept of its stop cannot be taken away: {error}");
            }
        }
    }

    /// Stops a job while nothing can be recorded: the fence stands at once, and the job is held until it can.
    async fn stop_unrecorded(
        &self,
        (actor, request, key): (Actor, RequestId, KeyLabel),
        stop: Stop,
        reason: String,
        trouble: wire::Trouble,
    ) -> Answer<wire::Job> {
        let decided = self.read(move |recorder| {
            let by = recorder.known(actor);
            let size = recorder.fold().size();
            Ok(stop.decide(recorder.fold(), &by, request, &reason).map(|_| Said { by, stop, reason, size }))
        });
        let said = decided.await?.map_err(|reasons| Failure::Refused { reasons, entry: None })?;
        let account = said.by.account.clone();
        let holds = &self.lives.holds;
        let is_first = holds.hold(request, said.clone());
        let keys = Arc::clone(&self.keys);
        let fenced = tokio::task::spawn_blocking(move || keys.fence_key(&key));
        fenced.await.map_err(|error| Failure::Internal { what: error.to_string() })?;
        let not_kept = conduct::keep(holds, request).await;
        tracing::warn!(job = %request, %account, "{} while nothing can be recorded", stop.done());
        if is_first {
            tokio::spawn(conduct::tell(Arc::clone(holds), conduct::Ledger::of(self), request, said));
        }
        self.lives.nudges().nudge();
        let restart = match not_kept {
            None => "a restart before that lets it stand still too".to_owned(),
            Some(why) => format!(
                "a restart before that forgets it, for it cannot be kept on the disk ({why}): say it again before the key is activated"
            ),
        };
        Err(Failure::Unavailable {
            why: format!(
                "job {request} {}, and what was not at the token is not signed. That is not recorded yet: {}",
                stop.done(),
                trouble.what
            ),
            remedy: format!("It is recorded once it can be; {restart}. {}", trouble.remedy),
        })
    }

    pub(super) async fn resume_job(&self, caller: &Caller, request: RequestId) -> Answer<wire::Job> {
        let actor = caller.actor();
        let asked = Digest::of(request.to_string().as_bytes());
        let holds = Arc::clone(&self.lives.holds);
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let fold = recorder.fold();
            let Some(job) = fold.jobs().get(&request) else { return Ok(Err(not_found(request))) };
            // What stopped it can never be recorded, so by the ledger it runs.
            if job.state == JobState::Running && holds.is_stuck(request) {
                return match may_act(fold, &by, request) {
                    Ok(()) => {
                        tracing::warn!(job = %request, account = %by.account, "goes on; what stopped it is not recorded");
                        Ok(Ok(()))
                    }
                    Err(reasons) => refused(recorder, &by, "job-resume", asked, (None, None), reasons),
                };
            }
            match may_act(fold, &by, request).and_then(|()| rules_of_jobs::may_resume(fold, request)) {
                Ok(()) => recorder.queue(&by, Event::JobResumed(JobResumed { request })).map(|_| Ok(())),
                Err(reasons) => refused(recorder, &by, "job-resume", asked, (None, None), reasons),
            }
        })
        .await?;
        self.let_go(request).await;
        self.lives.nudges().nudge();
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

    pub(super) async fn list_jobs(&self, of: wire::JobsOf) -> Answer<wire::Jobs> {
        let holds = Arc::clone(&self.lives.holds);
        let page = self.read(move |recorder| {
            let (fold, at) = (recorder.fold(), recorder.moment().at);
            let mut all: Vec<&JobFacts> =
                fold.jobs().values().filter(|job| of.from.is_none_or(|from| job.entry >= from)).collect();
            all.sort_unstable_by_key(|job| job.entry);
            let next = all.get(wire::Jobs::COUNT_MAX).map(|job| job.entry);
            let first = first_of_keys(fold, &holds);
            let page = all.into_iter().take(wire::Jobs::COUNT_MAX);
            Ok((page.map(|job| shown(fold, job, &first, at)).collect::<Vec<_>>(), next))
        });
        let (jobs, next) = page.await?;
        Ok(wire::Jobs { jobs: jobs.into_iter().map(|shown| self.alive(shown)).collect(), next })
    }

    /// What reads the jobs that are not over.
    pub(super) fn open_jobs(&self) -> impl FnOnce(&Recorder) -> Vec<Shown> + Send + use<> {
        let holds = Arc::clone(&self.lives.holds);
        move |recorder| {
            let (fold, at) = (recorder.fold(), recorder.moment().at);
            let first = first_of_keys(fold, &holds);
            fold.jobs().values().filter(|job| !job.state.is_over()).map(|job| shown(fold, job, &first, at)).collect()
        }
    }

    /// How many of these stand how.
    pub(super) fn counted(&self, open: Vec<Shown>) -> Vec<wire::JobCount> {
        use wire::JobState::{Limited, Paused, Running, Waiting};
        let found: Vec<_> = open.into_iter().map(|shown| self.alive(shown).state).collect();
        let count = |state| found.iter().filter(|found| **found == state).count() as u64;
        let counts = [Running, Limited, Waiting, Paused].map(|state| wire::JobCount { state, count: count(state) });
        counts.into_iter().filter(|of| of.count > 0).collect()
    }

    pub(super) async fn show_job(&self, request: RequestId) -> Answer<wire::Job> {
        let holds = Arc::clone(&self.lives.holds);
        let found = self.read(move |recorder| {
            let (fold, at) = (recorder.fold(), recorder.moment().at);
            Ok(fold.jobs().get(&request).map(|job| shown(fold, job, &first_of_keys(fold, &holds), at)))
        });
        Ok(self.alive(found.await?.ok_or_else(|| not_found(request))?))
    }

    /// With what is not recorded: what it waits for, and how fast it is.
    fn alive(&self, Shown { mut job, behind, per_hour }: Shown) -> wire::Job {
        if job.state != wire::JobState::Running {
            return job;
        }
        let held = self.lives.holds.why(job.request);
        let (standing, pace) = {
            let all = self.lives.all();
            let live = all.get(&job.request);
            (live.map(|live| live.standing.clone()), live.map(Live::pace).unwrap_or_default())
        };
        let waits = |why: Vec<Reason>| (wire::JobState::Waiting, why, None);
        let (state, why, until) = match (self.in_the_way(), standing) {
            _ if held.is_some() => waits(vec![super::reason("job-state", held.unwrap_or_default())]),
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
pub(super) struct Shown {
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
    let mut reader = ListReader::default();
    let mut feed = |piece: &[u8]| reader.feed(piece, |_| ());
    if let Some(file) = staging.open_staged(sha256).map_err(crate::store::StoreError::from)? {
        crate::state::pieces(file, &mut feed).map_err(|error| Failure::Internal { what: error.to_string() })?;
    } else {
        let stored = SqliteReader::open(state)?;
        StoredDocuments(&stored)
            .stream(sha256, &mut feed)
            .map_err(|_| Failure::from(crate::store::StoreError::NotStaged { digest: sha256 }))?;
    }
    match reader.finish() {
        Ok(0) => Err(wrong("nothing".into())),
        Ok(devices) => Ok(devices),
        Err(faults) => Err(wrong(faults.to_string())),
    }
}
