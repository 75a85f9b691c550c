//! Pure. Jobs: which may be started, and by whom one is let stand still, go on or end.
//!
//! A job is started where its first command could be signed: by whom, for what and when is asked by the rules of its batch. Any
//! operator of its incident may pause, resume and cancel it, whoever started it: whoever sees that something is wrong must be able to
//! stop it. None of the three needs the determination to be in force.

use super::{DESCRIPTION_LEN_MAX, Reasons};
use crate::domain::determination::devices::eui64;
use crate::domain::fold::Fold;
use crate::domain::fold::jobs::{JobFacts, JobState};
use crate::domain::ledger::entry::{JobStarted, Reason};
use crate::domain::ledger::jobs::LIST_LINE_LEN;
use crate::domain::names::{DeviceId, RequestId};
use crate::domain::policy::facts::{frees_at, last_hour};
use crate::domain::policy::rules::Refusal;
use crate::domain::time::Timestamp;

/// Whether a job of this form can be started. Whether anything may be signed is asked by the rules.
pub fn may_start(fold: &Fold, started: &JobStarted) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    let JobStarted { request, list, per_hour, reason, .. } = started;
    reasons.demand("job-known", !fold.jobs().contains_key(request), || format!("job {request} was started before"));
    reasons.demand("per-hour", *per_hour != Some(0), || "per hour: expected at least 1, found 0".into());
    reasons.demand("devices", list.is_none_or(|list| list.devices > 0), || "the list of Devices is empty".into());
    if let Some(reason) = reason {
        check_reason(&mut reasons, reason);
    }
    reasons.end(Some(()))
}

/// Whether this job can be paused.
pub fn may_pause(fold: &Fold, request: RequestId, reason: &str) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    check_reason(&mut reasons, reason);
    if let Some(job) = known(fold, request, &mut reasons) {
        reasons.demand("job-state", job.state == JobState::Running, || {
            format!("job {request} {}: only one that runs can be paused", said(&job.state))
        });
    }
    reasons.end(Some(()))
}

/// Whether this job can go on.
pub fn may_resume(fold: &Fold, request: RequestId) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    if let Some(job) = known(fold, request, &mut reasons) {
        reasons.demand("job-state", matches!(job.state, JobState::Paused(_)), || {
            format!("job {request} {}: only one that is paused can be resumed", said(&job.state))
        });
    }
    reasons.end(Some(()))
}

/// Whether this job can be ended by an operator.
pub fn may_cancel(fold: &Fold, request: RequestId, reason: &str) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    check_reason(&mut reasons, reason);
    if let Some(job) = known(fold, request, &mut reasons) {
        reasons.demand("job-state", !job.state.is_over(), || {
            format!("job {request} {}: nothing is left to cancel", said(&job.state))
        });
    }
    reasons.end(Some(()))
}

fn known<'f>(fold: &'f Fold, request: RequestId, reasons: &mut Reasons) -> Option<&'f JobFacts> {
    let job = fold.jobs().get(&request);
    reasons.demand("job-unknown", job.is_some(), || format!("no job {request} was started"));
    job
}

fn check_reason(reasons: &mut Reasons, reason: &str) {
    reasons.demand("reason", !reason.trim().is_empty() && reason.len() <= DESCRIPTION_LEN_MAX, || {
        format!("reason: expected 1 to {DESCRIPTION_LEN_MAX} octets of text, found {}", reason.len())
    });
}

const fn said(state: &JobState) -> &'static str {
    match state {
        JobState::Running => "is running",
        JobState::Paused(_) => "is paused",
        JobState::Cancelled(_) => "was cancelled",
        JobState::Ended { .. } => "has ended",
    }
}

/// How many Devices a job is for; none while its determination has no list.
pub fn total(fold: &Fold, job: &JobFacts) -> Option<u64> {
    let of_all = || fold.determinations().get(&job.determination)?.scope.as_ref().map(|scope| scope.devices);
    job.list.map(|list| list.devices).or_else(of_all)
}

/// What of a job may be recorded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// So many intents, at least one.
    Intents(u64),
    /// None before this moment: the determination's limit of an hour is used up, or the job's own.
    Until(Timestamp),
    /// None any more: the determination's intents in all are used up.
    Spent {
        /// What the determination permits.
        limit: u64,
    },
}

/// How many intents the limits leave to a job at this moment.
pub fn room(fold: &Fold, job: &JobFacts, at: Timestamp) -> Room {
    let facts = fold.determinations().get(&job.determination);
    let Some((facts, scope)) = facts.and_then(|facts| Some((facts, facts.scope.as_ref()?))) else {
        return Room::Until(at.plus_ms(60_000));
    };
    let in_all = scope.intents_max.saturating_sub(facts.intents);
    if in_all == 0 {
        return Room::Spent { limit: scope.intents_max };
    }
    let of_all = scope.per_hour_max.saturating_sub(facts.intents_of_last_hour(at));
    let own = job.per_hour.map_or(u64::MAX, |most| most.saturating_sub(last_hour(&job.recent, at)));
    if of_all.min(own) > 0 {
        return Room::Intents(in_all.min(of_all).min(own));
    }
    // Whichever lasts longer: both must leave room.
    let frees = |recent, left| if left == 0 { frees_at(recent, at) } else { None };
    let until = frees(&facts.recent, of_all).max(frees(&job.recent, own));
    // A limit of none frees never; it is asked again in a minute.
    Room::Until(until.unwrap_or_else(|| at.plus_ms(60_000)))
}

/// Whether a refusal of its batch ends a job: what it says does not pass. Everything else is waited for.
pub fn ends_job(refusal: &Refusal, at: Timestamp) -> bool {
    match refusal {
        Refusal::Window { window, .. } => at >= window.until,
        Refusal::Asker { .. }
        | Refusal::AskerUnknown { .. }
        | Refusal::AskerApproved { .. }
        | Refusal::Separation(_)
        | Refusal::DeterminationUnknown { .. }
        | Refusal::NotFollowed { .. }
        | Refusal::DeterminationNegative { .. }
        | Refusal::Withdrawn { .. }
        | Refusal::Superseded { .. }
        | Refusal::NotCarriedOver { .. }
        | Refusal::IncidentNotOpen { .. }
        | Refusal::KeyUnknown { .. }
        | Refusal::KeyDiffers { .. }
        | Refusal::ModeNotPermitted { .. }
        | Refusal::RootCell { .. }
        | Refusal::IntentsSpent { .. } => true,
        Refusal::Clock
        | Refusal::ClockSet
        | Refusal::ProcedureState { .. }
        | Refusal::NotPrepared { .. }
        | Refusal::NotATarget { .. }
        | Refusal::Excluded { .. }
        | Refusal::Suspended { .. }
        | Refusal::ScopeOutstanding { .. }
        | Refusal::ForeignResponse { .. }
        | Refusal::KeyWithoutCertificate { .. }
        | Refusal::KeyLocked { .. }
        | Refusal::KeyOfAnotherIncident { .. }
        | Refusal::TooFewCustodians { .. }
        | Refusal::DeviceOutOfScope { .. }
        | Refusal::NotTheTemplate { .. }
        | Refusal::Originator { .. }
        | Refusal::CounterTooLow { .. }
        | Refusal::CounterTooHigh { .. }
        | Refusal::CounterExhausted { .. }
        | Refusal::Rate { .. }
        | Refusal::InFlight { .. }
        | Refusal::AlreadySigned { .. }
        | Refusal::OutcomeUnknown { .. }
        | Refusal::LeftUnknown { .. }
        | Refusal::NothingUnknown { .. }
        | Refusal::RetryDiffers { .. }
        | Refusal::RetriesSpent { .. } => false,
    }
}

/// Reads the list of a job as it comes, and insists on its one form.
#[derive(Debug, Default)]
pub struct ListReader {
    line: Vec<u8>,
    lines: u64,
    last: Option<DeviceId>,
}

/// What is wrong with a list: its line, from 1, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ListFault {
    /// From 1.
    pub line: u64,
    /// Why.
    pub reason: String,
}

impl ListReader {
    /// Takes the next octets, and hands out each Device.
    pub fn feed(&mut self, octets: &[u8], mut take: impl FnMut(DeviceId)) -> Result<(), ListFault> {
        for octet in octets {
            self.line.push(*octet);
            if self.line.len() as u64 == LIST_LINE_LEN {
                take(self.device()?);
            }
        }
        Ok(())
    }

    fn device(&mut self) -> Result<DeviceId, ListFault> {
        self.lines += 1;
        let fault = |reason: String| ListFault { line: self.lines, reason };
        let device = self.line.strip_suffix(b"\n").and_then(eui64).map(DeviceId);
        let device = device
            .ok_or_else(|| fault("expected 16 upper-case hex digits and a line feed, found something else".into()))?;
        if let Some(last) = self.last.filter(|last| *last >= device) {
            return Err(fault(format!("expected Devices in ascending order, each once; found {device} after {last}")));
        }
        self.line.clear();
        self.last = Some(device);
        Ok(device)
    }

    /// How many there were.
    pub fn finish(self) -> Result<u64, ListFault> {
        if self.line.is_empty() {
            return Ok(self.lines);
        }
        Err(ListFault { line: self.lines + 1, reason: "it is cut short: its line feed is missing".into() })
    }
}

#[cfg(test)]
mod tests;
