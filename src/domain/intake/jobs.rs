//! Pure. Jobs: which may be started, and by whom one is let stand still, go on or end.
//!
//! A job is started where its first command could be signed: by whom, for what and when is asked by the rules of its batch. Any
//! operator of its incident may pause, resume and cancel it, whoever started it: whoever sees that something is wrong must be able to
//! stop it. None of the three needs the determination to be in force.

use super::{DESCRIPTION_LEN_MAX, Reasons};
use crate::domain::determination::devices::{FAULTS_MAX, eui64};
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
        | Refusal::KeyCompromised { .. }
        | Refusal::NoSymmetricKeyLine { .. }
        | Refusal::OtherContingencyRoot { .. }
        | Refusal::SpentElsewhere { .. }
        | Refusal::IntentsSpent { .. } => true,
        Refusal::Clock
        | Refusal::ClockSet
        | Refusal::ProcedureState { .. }
        | Refusal::Paused { .. }
        | Refusal::NotPrepared { .. }
        | Refusal::NotATarget { .. }
        | Refusal::Excluded { .. }
        | Refusal::Suspended { .. }
        | Refusal::ScopeOutstanding { .. }
        | Refusal::ForeignResponse { .. }
        | Refusal::KeyWithoutCertificate { .. }
        | Refusal::KeyLocked { .. }
        | Refusal::NoContingencyRoot { .. }
        | Refusal::NotWrappedWithTrusted { .. }
        | Refusal::NextGeneration { .. }
        | Refusal::NotChecked { .. }
        | Refusal::SymmetricKeyNotReleased { .. }
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
    /// What came of a line of which more is to come.
    cut: Vec<u8>,
    lines: u64,
    /// The last Device, with its line.
    last: Option<(DeviceId, u64)>,
    faults: Vec<ListFault>,
    more: u64,
}

/// What is wrong with a line of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ListFault {
    /// From 1.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// Every fault of a list, up to [`FAULTS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFaults {
    /// The first of them, by line.
    pub faults: Vec<ListFault>,
    /// How many more there are.
    pub more: u64,
}

impl std::fmt::Display for ListFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        f.write_str(&told.join("; "))?;
        if self.more == 0 { Ok(()) } else { write!(f, "; and {} more", self.more) }
    }
}

impl ListReader {
    /// Takes the next octets, and hands out the Device of each line that has one. Nothing is to be done with them before
    /// [`ListReader::finish`] has found no fault in any line.
    pub fn feed(&mut self, mut octets: &[u8], mut take: impl FnMut(DeviceId)) {
        while let Some(end) = octets.iter().position(|octet| *octet == b'\n') {
            let (line, rest) = octets.split_at(end);
            octets = &rest[1..];
            let device = if self.cut.is_empty() {
                self.line(line)
            } else {
                self.keep(line);
                let whole = std::mem::take(&mut self.cut);
                self.line(&whole)
            };
            if let Some(device) = device {
                take(device);
            }
        }
        self.keep(octets);
    }

    /// No more of a line than shows that it is too long.
    fn keep(&mut self, octets: &[u8]) {
        let room = usize::try_from(LIST_LINE_LEN).unwrap_or(usize::MAX).saturating_sub(self.cut.len());
        self.cut.extend(&octets[..octets.len().min(room)]);
    }

    fn line(&mut self, line: &[u8]) -> Option<DeviceId> {
        self.lines += 1;
        let Some(device) = eui64(line).map(DeviceId) else {
            let found = String::from_utf8_lossy(&line[..line.len().min(32)]).into_owned();
            self.fault(format!("expected an EUI-64 as 16 upper-case hexadecimal digits, found {found:?}"));
            return None;
        };
        match self.last {
            Some((last, at)) if last == device => {
                self.fault(format!("Device {device} stands in line {at} already"));
            }
            Some((last, _)) if last > device => {
                self.fault(format!(
                    "expected a Device above {last}, found {device}; sort the list with `LC_ALL=C sort`"
                ));
            }
            Some(_) | None => {}
        }
        self.last = Some((device, self.lines));
        Some(device)
    }

    fn fault(&mut self, reason: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(ListFault { line: self.lines, reason });
        } else {
            self.more += 1;
        }
    }

    /// How many there were.
    ///
    /// # Errors
    /// Every fault, of all lines.
    pub fn finish(mut self) -> Result<u64, ListFaults> {
        if !self.cut.is_empty() {
            self.lines += 1;
            self.fault("expected a line feed at the end of the last line, found the end of the file".into());
        }
        let Self { lines, faults, more, .. } = self;
        if faults.is_empty() { Ok(lines) } else { Err(ListFaults { faults, more }) }
    }
}

#[cfg(test)]
mod tests;
