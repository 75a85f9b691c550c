//! Shell: how jobs stand, beside what is recorded of them: what each waits for, and how fast it is.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::unrecorded::Holds;
use crate::domain::ledger::entry::Reason;
use crate::domain::names::{Digest, RequestId};
use crate::domain::time::Timestamp;
use crate::hsm::Several;

/// The span of a rate.
const SPAN: Duration = Duration::from_secs(10);

/// Lists of jobs that are known to be what their digests say. Each was read once since the start.
const LISTS_MAX: usize = 64;

/// How jobs stand, beside what is recorded of them.
pub(in super::super) struct Lives {
    all: Mutex<BTreeMap<RequestId, Live>>,
    /// The batches with which jobs were accepted, until they run.
    accepted: Mutex<BTreeMap<RequestId, u64>>,
    /// Those that stand still by what is not recorded yet.
    pub(super) holds: Arc<Holds>,
    nudges: Nudges,
    lists: Arc<Mutex<VecDeque<Digest>>>,
}

/// How a job stands that is being run or waits for something.
pub(super) struct Live {
    pub(super) standing: Standing,
    signed: Arc<AtomicU64>,
    samples: VecDeque<Sample>,
}

#[derive(Clone, Debug)]
pub(super) enum Standing {
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
pub(super) struct Pace {
    pub(super) rate: Option<f64>,
    pub(super) hsm_busy: Option<f64>,
}

impl Lives {
    /// With what a state directory has of before this start.
    ///
    /// # Errors
    /// What stands still cannot be told.
    pub(in super::super) fn open(state: &Path) -> io::Result<Self> {
        Ok(Self {
            all: Mutex::default(),
            accepted: Mutex::default(),
            holds: Arc::new(Holds::open(state)?),
            nudges: Nudges(watch::channel(0).0),
            lists: Arc::default(),
        })
    }

    pub(super) fn all(&self) -> MutexGuard<'_, BTreeMap<RequestId, Live>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn accepted(&self) -> MutexGuard<'_, BTreeMap<RequestId, u64>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may let a job go on.
    pub(super) fn nudges(&self) -> Nudges {
        self.nudges.clone()
    }

    /// Lists that were read since the start, and are what they should be.
    pub(super) fn lists(&self) -> Lists {
        Lists(Arc::clone(&self.lists))
    }

    fn of<R>(&self, request: RequestId, with: impl FnOnce(&mut Live) -> R) -> R {
        let mut all = self.all();
        with(all.entry(request).or_insert_with(|| Live {
            standing: Standing::Waiting(Vec::new()),
            signed: Arc::default(),
            samples: VecDeque::new(),
        }))
    }

    /// Counts the signatures of a job.
    pub(super) fn signed(&self, request: RequestId) -> Arc<AtomicU64> {
        self.of(request, |live| Arc::clone(&live.signed))
    }

    pub(super) fn stand(&self, request: RequestId, standing: Standing) {
        self.of(request, |live| {
            if !matches!(standing, Standing::Running) {
                live.samples.clear();
            }
            live.standing = standing;
        });
    }

    pub(super) fn sample(&self, request: RequestId, tokens: &Several) {
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

    /// Nobody runs a job any more.
    pub(super) fn end(&self, request: RequestId) {
        self.all().remove(&request);
        self.accepted().remove(&request);
        self.holds.forget(request);
    }
}

/// Counts what was said that may let a job go on, or another in its place.
#[derive(Clone)]
pub(super) struct Nudges(watch::Sender<u64>);

impl Nudges {
    pub(super) fn nudge(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    pub(super) fn heard(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Live {
    pub(super) fn pace(&self) -> Pace {
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

/// Lists of jobs that were read since the start, and are what their digests say.
#[derive(Clone)]
pub(super) struct Lists(Arc<Mutex<VecDeque<Digest>>>);

impl Lists {
    pub(super) fn is_known(&self, list: Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&list)
    }

    pub(super) fn know(&self, list: Digest) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !lists.contains(&list) {
            lists.push_back(list);
        }
        if lists.len() > LISTS_MAX {
            lists.pop_front();
        }
    }
}
