//! Pure. An incident's way through the SMKI Recovery Procedure: where it stands, what may be done next and by whom.
//!
//! ```text
//! Reported ─▶ Confirmed ─▶ Assessed ─▶ Referred ─▶ DeterminedToExecute ─▶ Prepared ─▶ KeyActive ─▶ Executing ─▶ Executed
//!    │                        │           ▲  │                                            ▲            │            │
//!    ▼                        ▼           │  ▼                                            └─ Paused ◀──┘            ▼
//! Dismissed          SubscriberRecovery   DeterminedNotToExecute                                              PostRecovery
//! ```
//!
//! [`Progress`] is kept by the fold; [`decide()`] says whether a step may be taken, and the daemon and the audit ask it alike. The
//! numbers of rules are those of the table in `src/docs/procedure-rules.md`.

pub mod decide;
pub mod next;
pub mod targets;
pub mod timeline;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use decide::{Decided, Situation, decide};
pub use targets::{Counts, Target, Targets};

use crate::domain::ledger::steps::{CompromiseClass, Method, Notification, SmiStatus, Step};
use crate::domain::names::{DeterminationId, DutyId, StepId};
use crate::domain::time::Timestamp;

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A Compromise was notified.
    Reported,
    /// It was confirmed by a permitted mechanism.
    Confirmed,
    /// It was none.
    Dismissed,
    /// Class, Relevant Subscriber, Relevant Devices and method are known.
    Assessed,
    /// The Subscriber recovers with its own key (Method 1).
    SubscriberRecovery,
    /// The SMKI PMA has it.
    Referred,
    /// The PMA determined not to execute.
    DeterminedNotToExecute,
    /// The PMA determined to execute.
    DeterminedToExecute,
    /// What must precede the use of the key is done.
    Prepared,
    /// The key of the determination is active.
    KeyActive,
    /// Commands are being signed.
    Executing,
    /// Signing was paused or the key was locked.
    Paused,
    /// Every target came to an end.
    Executed,
    /// Control is handed back, spent material replaced.
    PostRecovery,
    /// It is over.
    Closed,
    /// The PMA withdrew its determination.
    Withdrawn,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 16] = [
        Self::Reported,
        Self::Confirmed,
        Self::Dismissed,
        Self::Assessed,
        Self::SubscriberRecovery,
        Self::Referred,
        Self::DeterminedNotToExecute,
        Self::DeterminedToExecute,
        Self::Prepared,
        Self::KeyActive,
        Self::Executing,
        Self::Paused,
        Self::Executed,
        Self::PostRecovery,
        Self::Closed,
        Self::Withdrawn,
    ];

    /// Its name, as programs read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Confirmed => "confirmed",
            Self::Dismissed => "dismissed",
            Self::Assessed => "assessed",
            Self::SubscriberRecovery => "subscriber-recovery",
            Self::Referred => "referred",
            Self::DeterminedNotToExecute => "determined-not-to-execute",
            Self::DeterminedToExecute => "determined-to-execute",
            Self::Prepared => "prepared",
            Self::KeyActive => "key-active",
            Self::Executing => "executing",
            Self::Paused => "paused",
            Self::Executed => "executed",
            Self::PostRecovery => "post-recovery",
            Self::Closed => "closed",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// What it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Reported => "a Compromise was notified, and is not confirmed yet",
            Self::Confirmed => "the Compromise, or the suspicion, was confirmed by a permitted mechanism",
            Self::Dismissed => "it was no Compromise; the incident waits to be closed",
            Self::Assessed => "Relevant Devices and method are recorded; the SMKI PMA does not have it yet",
            Self::SubscriberRecovery => "the Subscriber recovers with its own key (Method 1)",
            Self::Referred => "it is before the SMKI PMA, which has not determined yet",
            Self::DeterminedNotToExecute => "the SMKI PMA determined that recovery is not executed",
            Self::DeterminedToExecute => "the SMKI PMA determined that recovery is executed; it is being prepared",
            Self::Prepared => "everything before the use of the key is done; the key is locked",
            Self::KeyActive => "the key is active, and nothing is signed yet",
            Self::Executing => "commands are being signed, and Devices answer",
            Self::Paused => "signing is paused, and the key is locked",
            Self::Executed => "every target is proven recovered or left out; Post-Recovery has not begun",
            Self::PostRecovery => "SMI Status, handover and reports are brought to their end",
            Self::Closed => "it is over",
            Self::Withdrawn => "the SMKI PMA withdrew its determination; the incident waits to be closed",
        }
    }

    /// Whether an incident goes no further than to its closure, so that Devices left in 'recovery' are stranded for good.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Dismissed
            | Self::SubscriberRecovery
            | Self::DeterminedNotToExecute
            | Self::Executed
            | Self::PostRecovery
            | Self::Closed
            | Self::Withdrawn => true,
            Self::Reported
            | Self::Confirmed
            | Self::Assessed
            | Self::Referred
            | Self::DeterminedToExecute
            | Self::Prepared
            | Self::KeyActive
            | Self::Executing
            | Self::Paused => false,
        }
    }

    /// Whether commands may be signed.
    pub const fn may_sign(self) -> bool {
        matches!(self, Self::KeyActive | Self::Executing)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A duty to inform, which arose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty {
    /// When.
    pub arisen: Timestamp,
    /// By when it is to be met, where the profile sets a limit.
    pub due: Option<Timestamp>,
    /// Towards whom.
    pub recipient: Box<str>,
    /// What is to be told.
    pub text: Box<str>,
    /// The step that is taken by meeting it.
    pub step: Option<StepId>,
    /// The entry that met it.
    pub met: Option<u64>,
}

/// What a profile says about a duty that arises with a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DutyArising {
    /// Which.
    pub duty: DutyId,
    /// Towards whom.
    pub recipient: Box<str>,
    /// What is to be told.
    pub text: Box<str>,
    /// Within how many hours, where that is known.
    pub within_hours: Option<u32>,
    /// The step that is taken by meeting it.
    pub step: Option<StepId>,
}

/// The determination that an incident follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Determined {
    /// Which.
    pub id: DeterminationId,
    /// Whether to execute.
    pub execute: bool,
    /// By which method, if to execute.
    pub method: Option<Method>,
}

/// How far an incident has come: what the ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How it came to be known.
    pub notification: Notification,
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// The method that was proposed, or determined.
    pub method: Option<Method>,
    /// Steps that were taken, by meaning, with the entry that recorded each last.
    pub done: BTreeMap<StepId, u64>,
    /// Duties to inform.
    pub duties: BTreeMap<DutyId, Duty>,
    /// The Relevant Devices.
    pub targets: Targets,
    /// What the PMA determined last.
    pub determined: Option<Determined>,
    /// Whether the stranded Devices were accepted, and how many they were.
    pub stranded_accepted: Option<u64>,
}

impl Progress {
    /// An incident that was just reported.
    pub fn reported(notification: Notification, at: Timestamp, index: u64) -> Self {
        let mut done = BTreeMap::new();
        done.insert(step_id("notify-compromise"), index);
        Self {
            notification,
            state: State::Reported,
            since: at,
            method: None,
            done,
            duties: BTreeMap::new(),
            targets: Targets::default(),
            determined: None,
            stranded_accepted: None,
        }
    }

    /// Whether a step was taken.
    pub fn has_done(&self, step: &StepId) -> bool {
        self.done.contains_key(step)
    }

    /// Duties that nobody met yet.
    pub fn open_duties(&self) -> impl Iterator<Item = (&DutyId, &Duty)> {
        self.duties.iter().filter(|(_, duty)| duty.met.is_none())
    }

    /// The kind of notification file that goes with its class.
    pub fn class(&self) -> CompromiseClass {
        self.notification.class
    }

    /// Enters a state.
    pub fn enter(&mut self, state: State, at: Timestamp) {
        if self.state != state {
            (self.state, self.since) = (state, at);
        }
    }

    /// Duties arise.
    pub fn arise(&mut self, duties: impl IntoIterator<Item = DutyArising>, at: Timestamp) {
        for DutyArising { duty, recipient, text, within_hours, step } in duties {
            let due = within_hours.map(|hours| at.plus_ms(i64::from(hours) * 3_600_000));
            self.duties.entry(duty).or_insert(Duty { arisen: at, due, recipient, text, step, met: None });
        }
    }

    /// Takes a step that was decided: what it alters here. `named` reads the Devices of the list that it names, in order.
    ///
    /// # Errors
    /// What `named` says, where a list cannot be read.
    pub fn take<E>(
        &mut self,
        step: &Step,
        index: u64,
        at: Timestamp,
        named: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<(), TakeError<E>> {
        match step {
            Step::Confirm { certainty, .. } => {
                self.notification.certainty = *certainty;
                self.enter(State::Confirmed, at);
            }
            Step::Dismiss { .. } => self.enter(State::Dismissed, at),
            Step::Assess { method, targets: _ } => {
                self.targets = self.targets.reassessed(Targets::read(named)?);
                self.method = Some(*method);
                self.enter(State::Assessed, at);
            }
            Step::Inform { duty, .. } => {
                if let Some(duty) = self.duties.get_mut(duty) {
                    duty.met.get_or_insert(index);
                    if let Some(step) = duty.step.clone() {
                        self.done.insert(step, index);
                    }
                }
            }
            Step::Refer { .. } => self.enter(State::Referred, at),
            Step::SubscriberRecovery { .. } => self.enter(State::SubscriberRecovery, at),
            Step::SetStatus { status, from, devices, overridden, .. } => {
                let is_overridden = overridden.is_some();
                self.targets.each(devices.is_some().then_some(named), |target| {
                    (target.status, target.since) = (*status, *from);
                    target.overridden |= is_overridden;
                })?;
            }
            Step::Prepare { .. } => self.enter(State::Prepared, at),
            Step::Pause { .. } => self.enter(State::Paused, at),
            Step::Exclude { .. } => self.targets.each(Some(named), |target| target.excluded = true)?,
            Step::Finish { .. } => {
                self.done.insert(step_id("execute"), index);
                self.enter(State::Executed, at);
            }
            Step::BeginPostRecovery { .. } => self.enter(State::PostRecovery, at),
            Step::HandOver { devices, .. } => {
                self.targets.each(devices.is_some().then_some(named), |target| {
                    if target.status == SmiStatus::Recovered {
                        (target.control, target.status, target.since) =
                            (targets::Control::HandedOver, SmiStatus::Commissioned, at);
                    }
                })?;
            }
            Step::AcceptStranded { count, .. } => self.stranded_accepted = Some(*count),
        }
        self.done.insert(step.meaning(), index);
        Ok(())
    }
}

/// Why a step cannot be folded in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeError<E> {
    /// A list of Devices cannot be had.
    #[error(transparent)]
    Source(E),
    /// A list of Devices cannot be read.
    #[error(transparent)]
    Targets(#[from] targets::TargetsError),
}

/// A step id that this program names itself.
pub(crate) fn step_id(text: &str) -> StepId {
    text.parse().expect("the program's own step ids are step ids")
}

#[cfg(test)]
mod tests;
