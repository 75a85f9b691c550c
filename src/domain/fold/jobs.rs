//! Pure. Jobs: what was asked, how far each has come, and who let it stand still or ended it.
//!
//! Whatever is shown of a job's progress stands here, so that it is the same after a restart and never counted anew from the log.
//! It does not grow with the Devices: what failed is kept as ranges of the list ([`BEHIND_MAX`]), and of single Devices those alone
//! whose outcome is unknown, as a worker or the daemon that died leaves them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Fold, FoldError, OpenIntent, not_known};
use crate::domain::ledger::entry::{Actor, Intent, Reason, SignResult};
use crate::domain::ledger::jobs::{
    DeviceRefused, JobEnded, JobList, JobPassed, JobStarted, JobTally, REFUSED_TOLD_MAX,
};
use crate::domain::names::{DeterminationId, DeviceId, Digest, IncidentId, KeyLabel, RequestId};
use crate::domain::policy::facts::{Recent, count_recent};
use crate::domain::time::Timestamp;

/// Ranges of a job's list in which Devices were left without a signature. The nearest are joined where there would be more: then
/// Devices between them are looked at again, and no more than that.
pub const BEHIND_MAX: usize = 64;

/// Jobs that are over and still known: the ledger has all of them, and the state does not grow by what was done.
pub const OVER_MAX: usize = 1_000;

/// Of how many of these it is still known which Devices were refused first, and why: each may have twenty with ten reasons each, which every
/// snapshot would write again.
pub const OVER_TOLD_MAX: usize = 50;

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFacts {
    /// Its request.
    pub request: RequestId,
    /// SHA-256 of what was asked.
    pub asked: Digest,
    /// The incident.
    pub incident: IncidentId,
    /// Under which determination.
    pub determination: DeterminationId,
    /// With which key.
    pub key: KeyLabel,
    /// For which Devices, if not for all.
    pub list: Option<JobList>,
    /// At most so many intents an hour.
    pub per_hour: Option<u64>,
    /// Who started it, in whose name its intents are recorded.
    pub by: Actor,
    /// When.
    pub started: Timestamp,
    /// The entry.
    pub entry: u64,
    /// The entry by which an operator let it go on last.
    pub resumed: Option<u64>,
    /// How it stands.
    pub state: JobState,
    /// The Device of its list that it came to last.
    pub position: Option<DeviceId>,
    /// What became of its Devices.
    pub tally: JobTally,
    /// How often each rule refused one.
    pub rules: BTreeMap<Box<str>, u64>,
    /// The first that were refused.
    pub refused_first: Vec<DeviceRefused>,
    /// Ranges of its list, the ends included, in which Devices were left without a signature.
    pub behind: Vec<(DeviceId, DeviceId)>,
    /// The Device of those that was taken up again last.
    pub taken: Option<DeviceId>,
    /// Its intents by the minute in which they were recorded.
    pub recent: Recent,
}

/// How a job stands by what is recorded. One that runs may have to wait all the same, as what it needs comes and goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It goes on.
    Running,
    /// An operator lets it stand still.
    Paused(JobStop),
    /// An operator ended it.
    Cancelled(JobStop),
    /// It came to its end.
    Ended {
        /// When.
        at: Timestamp,
        /// Why before every Device was come to; empty if each was.
        why: Vec<Reason>,
    },
}

/// By whom, when and why a job was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobStop {
    /// By whom.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Box<str>,
}

impl JobState {
    /// Whether it never goes on.
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Running | Self::Paused(_) => false,
            Self::Cancelled(_) | Self::Ended { .. } => true,
        }
    }
}

impl JobFacts {
    fn left_behind(&mut self, device: DeviceId) {
        let at = self.behind.partition_point(|(_, until)| *until < device);
        if self.behind.get(at).is_some_and(|(from, _)| *from <= device) {
            return;
        }
        self.behind.insert(at, (device, device));
        if self.behind.len() > BEHIND_MAX {
            let number = |device: DeviceId| u64::from_be_bytes(device.0.0);
            let gap = |at: &usize| number(self.behind[at + 1].0) - number(self.behind[*at].1);
            // What was left again lies before the Device that was taken up last, and what is still to come behind it: as one they would be
            // taken for looked at once the next one is taken up.
            let parts = |at: &usize| {
                let is_before = |device: DeviceId| self.taken.is_some_and(|taken| device <= taken);
                is_before(self.behind[*at].1) && !is_before(self.behind[at + 1].0)
            };
            let nearest = (0..self.behind.len() - 1).filter(|at| !parts(at)).min_by_key(gap).unwrap_or_default();
            self.behind[nearest].1 = self.behind[nearest + 1].1;
            self.behind.remove(nearest + 1);
        }
    }

    /// They are taken up again from the first of a range to its last, so what lies before this Device was looked at.
    fn taken_up(&mut self, device: DeviceId) {
        let Some(at) = self.behind.iter().position(|(from, until)| *from <= device && device <= *until) else { return };
        self.taken = Some(device);
        match device.0.0.iter().rposition(|octet| *octet != u8::MAX) {
            Some(_) if device < self.behind[at].1 => {
                let next = u64::from_be_bytes(device.0.0) + 1;
                self.behind[at].0 = DeviceId(crate::domain::names::Eui64(next.to_be_bytes()));
            }
            Some(_) | None => drop(self.behind.remove(at)),
        }
    }
}

impl Fold {
    /// The jobs.
    pub fn jobs(&self) -> &BTreeMap<RequestId, JobFacts> {
        &self.jobs
    }

    /// The Devices of a job whose outcome is unknown, in the order of their ids.
    pub fn unknowns_of_job(&self, request: RequestId) -> impl Iterator<Item = DeviceId> + '_ {
        self.unknown_of_jobs.iter().filter(move |(_, of)| **of == request).map(|((_, device), _)| *device)
    }

    pub(super) fn start_job(
        &mut self,
        started: &JobStarted,
        by: &Actor,
        index: u64,
        at: Timestamp,
    ) -> Result<(), FoldError> {
        let JobStarted { request, asked, incident, determination, key, list, per_hour, reason: _ } = started;
        self.determination_mut(*determination)?;
        // An entry that nobody has judged may say any number.
        self.listed = self.listed.saturating_add(list.map_or(0, |list| list.devices));
        let facts = JobFacts {
            request: *request,
            asked: *asked,
            incident: incident.clone(),
            determination: *determination,
            key: key.clone(),
            list: *list,
            per_hour: *per_hour,
            by: by.clone(),
            started: at,
            entry: index,
            resumed: None,
            state: JobState::Running,
            position: None,
            tally: JobTally::default(),
            rules: BTreeMap::new(),
            refused_first: Vec::new(),
            behind: Vec::new(),
            taken: None,
            recent: Recent::new(),
        };
        match self.jobs.insert(*request, facts) {
            None => Ok(()),
            Some(_) => Err(super::known("job", request)),
        }
    }

    pub(super) fn stop_job(
        &mut self,
        request: RequestId,
        state: impl FnOnce(JobStop) -> JobState,
        (by, at, reason): (&Actor, Timestamp, &str),
    ) -> Result<(), FoldError> {
        self.job_mut(request)?.state = state(JobStop { by: by.clone(), at, reason: reason.into() });
        self.forget_jobs();
        Ok(())
    }

    pub(super) fn resume_job(&mut self, request: RequestId, index: u64) -> Result<(), FoldError> {
        let job = self.job_mut(request)?;
        (job.state, job.resumed) = (JobState::Running, Some(index));
        Ok(())
    }

    /// A job whose start, or whose last resumption, lay under no checkpoint at a start of the daemon stands still: nobody was told of it,
    /// and whoever could write to the disk could have put it there. An operator lets it go on, or not.
    pub(super) fn take_back_jobs(&mut self, from: u64, at: Timestamp) {
        for job in self.jobs.values_mut().filter(|job| job.state == JobState::Running) {
            if job.entry.max(job.resumed.unwrap_or(0)) >= from {
                let reason =
                    "it was started or resumed by an entry under no checkpoint, of which nobody was told".into();
                job.state = JobState::Paused(JobStop { by: Actor::daemon(), at, reason });
            }
        }
    }

    /// Of jobs that are over the last [`OVER_MAX`] are kept, of each no more than is shown, and of the last [`OVER_TOLD_MAX`] all of that.
    fn forget_jobs(&mut self) {
        for job in self.jobs.values_mut().filter(|job| job.state.is_over()) {
            (job.behind, job.recent) = (Vec::new(), Recent::new());
        }
        let mut over: Vec<(u64, RequestId)> =
            self.jobs.values().filter(|job| job.state.is_over()).map(|job| (job.entry, job.request)).collect();
        over.sort_unstable();
        for (_, request) in &over[..over.len().saturating_sub(OVER_MAX)] {
            self.jobs.remove(request);
            self.unknown_of_jobs.retain(|_, of| of != request);
        }
        for (_, request) in &over[..over.len().saturating_sub(OVER_TOLD_MAX)] {
            if let Some(job) = self.jobs.get_mut(request) {
                job.refused_first = Vec::new();
            }
        }
    }

    pub(super) fn end_job(&mut self, ended: &JobEnded, at: Timestamp) -> Result<(), FoldError> {
        self.job_mut(ended.request)?.state = JobState::Ended { at, why: ended.why.clone() };
        self.forget_jobs();
        Ok(())
    }

    pub(super) fn pass_in_job(&mut self, passed: &JobPassed) -> Result<(), FoldError> {
        let JobPassed { request, until, already, refused, rules, first } = passed;
        let job = self.job_mut(*request)?;
        job.position = job.position.max(Some(*until));
        job.tally.already += already;
        job.tally.refused += refused;
        for count in rules {
            *job.rules.entry(count.rule.clone()).or_default() += count.count;
        }
        let room = REFUSED_TOLD_MAX.saturating_sub(job.refused_first.len());
        job.refused_first.extend(first.iter().take(room).cloned());
        Ok(())
    }

    /// Counts an intent for the job that it belongs to, and says which that is: a further attempt belongs to the job that left the
    /// unknown, whoever settles it.
    pub(super) fn intend_in_job(
        &mut self,
        intent: &Intent,
        (request, key): (RequestId, &KeyLabel),
        at: Timestamp,
    ) -> Option<RequestId> {
        if let Some(own) = self.jobs.get_mut(&request) {
            own.tally.intents += 1;
            count_recent(&mut own.recent, at);
        }
        // Few are unknown, and most often none: no key is made to look for them.
        if intent.attempt > 1 && !self.unknown_of_jobs.is_empty() {
            let of = self.unknown_of_jobs.remove(&(key.clone(), intent.device));
            if let Some(job) = of.and_then(|of| self.jobs.get_mut(&of)) {
                job.tally.unknown = job.tally.unknown.saturating_sub(1);
                return of;
            }
        }
        let job = self.jobs.get_mut(&request)?;
        if intent.attempt == 1 {
            if job.position.is_some_and(|position| intent.device <= position) {
                job.tally.not_signed = job.tally.not_signed.saturating_sub(1);
                job.taken_up(intent.device);
            }
            job.position = job.position.max(Some(intent.device));
            return Some(request);
        }
        // An unknown of no job, settled by one: its command is another request's.
        None
    }

    /// Counts what became of an intent for its job. `is_unknown`: whether its Device is left as unknown.
    pub(super) fn resolve_in_job(&mut self, open: &OpenIntent, result: &SignResult, is_unknown: bool) {
        let Some(job) = open.job.and_then(|of| self.jobs.get_mut(&of)) else { return };
        let device = open.intent.device;
        if is_unknown {
            job.tally.unknown += 1;
            self.unknown_of_jobs.insert((open.key.clone(), device), job.request);
        } else if matches!(result, SignResult::Signed(_)) {
            job.tally.signed += 1;
        } else {
            job.tally.not_signed += 1;
            if !job.state.is_over() {
                job.left_behind(device);
            }
        }
    }

    /// An unknown is left as it is.
    pub(super) fn leave_in_job(&mut self, key: &KeyLabel, device: DeviceId) {
        let of = self.unknown_of_jobs.remove(&(key.clone(), device));
        if let Some(job) = of.and_then(|of| self.jobs.get_mut(&of)) {
            job.tally.unknown = job.tally.unknown.saturating_sub(1);
            job.tally.left += 1;
        }
    }

    fn job_mut(&mut self, request: RequestId) -> Result<&mut JobFacts, FoldError> {
        self.jobs.get_mut(&request).ok_or_else(|| not_known("job", request))
    }
}

#[cfg(test)]
mod tests;
