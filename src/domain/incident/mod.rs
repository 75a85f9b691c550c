//! Pure. An incident's way through the SMKI Recovery Procedure: where it stands, what may be done next and by whom.
//!
//! ```text
//! Reported ─▶ Confirmed ─▶ Assessed ─▶ Referred ─▶ DeterminedToExecute ─▶ Prepared ─▶ KeyActive ─▶ Executing ─▶ Executed
//!    │                        │           ▲  │                                            ▲            │            │
//!    ▼                        ▼           │  ▼                                            └─ Paused ◀──┘            ▼
//! Dismissed          SubscriberRecovery   DeterminedNotToExecute                                              PostRecovery
//! ```
//!
//! [`Progress`] is kept by the fold; [`decide()`] says whether a step may be taken, and the daemon and the audit ask it alike. What the
//! profile in force demands of a step, and in which states it has its place, [`crate::domain::procedure`] says. The numbers of rules
//! are those of the table in `src/docs/procedure-rules.md`.

pub mod decide;
pub mod next;
pub mod routes;
pub mod statuses;
pub mod targets;
pub mod timeline;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use decide::{Decided, Situation, decide};
pub use targets::{Accepted, Counts, Target, Targets};

use crate::domain::ledger::meaning::Meaning;
use crate::domain::ledger::steps::{CompromiseClass, Method, Notification, SmiStatus, Step};
use crate::domain::names::{DeterminationId, DeviceId, DutyId, StepId};
pub use crate::domain::procedure::State;
use crate::domain::time::Timestamp;

/// A duty to inform, which arose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Determined {
    /// Which.
    pub id: DeterminationId,
    /// Whether to execute.
    pub execute: bool,
    /// By which method, if to execute.
    pub method: Option<Method>,
}

/// A step that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// The entry that recorded it last.
    pub entry: u64,
    /// When.
    pub at: Timestamp,
}

/// How far an incident has come: what the ledger says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// How it came to be known.
    pub notification: Notification,
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// The entry by which a person paused it, while it stands still by that; none while it does so only because its key is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<u64>,
    /// The method that was proposed, or determined.
    pub method: Option<Method>,
    /// Steps that were taken, by meaning. What is done Device by Device stands here once it was done for any.
    pub done: BTreeMap<StepId, Taken>,
    /// Duties to inform.
    pub duties: BTreeMap<DutyId, Duty>,
    /// The Relevant Devices. They are kept apart: they grow with Devices.
    #[serde(skip)]
    pub targets: Targets,
    /// What the PMA determined last.
    pub determined: Option<Determined>,
    /// Whether the Devices that are left behind, as they are now, were accepted, and how many they were.
    pub stranded_accepted: Option<Accepted>,
}

impl Progress {
    /// An incident that was just reported.
    pub fn reported(notification: Notification, at: Timestamp, index: u64) -> Self {
        let done = BTreeMap::from([(Meaning::Notify.id(), Taken { entry: index, at })]);
        Self {
            notification,
            state: State::Reported,
            since: at,
            paused_by: None,
            method: None,
            done,
            duties: BTreeMap::new(),
            targets: Targets::default(),
            determined: None,
            stranded_accepted: None,
        }
    }

    /// Whether a step was taken, for any Device where it is done Device by Device.
    pub fn has_done(&self, step: Meaning) -> bool {
        self.done.contains_key(&step.id())
    }

    /// Whether every target came to an end, and no progress file says so: what came before says nothing of it.
    pub fn wants_report_of_its_end(&self) -> bool {
        let entry = |step: Meaning| self.done.get(&step.id()).map(|taken| taken.entry);
        entry(Meaning::Finish).is_some_and(|finish| entry(Meaning::ReportProgress) < Some(finish))
    }

    /// A step was taken.
    pub fn note_done(&mut self, step: StepId, entry: u64, at: Timestamp) {
        self.done.insert(step, Taken { entry, at });
    }

    /// Duties that nobody met yet.
    pub fn open_duties(&self) -> impl Iterator<Item = (&DutyId, &Duty)> {
        self.duties.iter().filter(|(_, duty)| duty.met.is_none())
    }

    /// The kind of notification file that goes with its class.
    pub fn class(&self) -> CompromiseClass {
        self.notification.class
    }

    /// Enters a state. While signing stands still the key is locked: it must be activated again.
    pub fn enter(&mut self, state: State, at: Timestamp) {
        if state == State::Paused {
            self.done.remove(&Meaning::ActivateKey.id());
        } else {
            self.paused_by = None;
        }
        if self.state != state {
            (self.state, self.since) = (state, at);
        }
    }

    /// The PMA determined: the incident follows that from now on, and `anew`, what a determination opens, begins again. Which Devices
    /// it lists, [`Progress::list`] is told.
    pub fn follow(&mut self, determined: Determined, anew: impl IntoIterator<Item = StepId>, at: Timestamp) {
        for step in anew {
            self.done.remove(&step);
        }
        if self.targets.follow(&determined) {
            self.stranded_accepted = None;
        }
        self.method = determined.method.or(self.method);
        let state = if determined.execute { State::DeterminedToExecute } else { State::DeterminedNotToExecute };
        self.determined = Some(determined);
        self.enter(state, at);
    }

    /// Duties arise. One that was met arises anew, and what met it is to be done again; one that is open stays as it is.
    pub fn arise(&mut self, duties: impl IntoIterator<Item = DutyArising>, at: Timestamp) {
        for DutyArising { duty, recipient, text, within_hours, step } in duties {
            if self.duties.get(&duty).is_some_and(|known| known.met.is_none()) {
                continue;
            }
            if let Some(step) = &step {
                self.done.remove(step);
            }
            let due = within_hours.map(|hours| at.plus_ms(i64::from(hours) * 3_600_000));
            self.duties.insert(duty, Duty { arisen: at, due, recipient, text, step, met: None });
        }
    }

    /// The PMA withdrew the determination that the incident follows: it wants nothing of anybody any more.
    pub fn withdraw(&mut self, at: Timestamp) {
        if self.targets.release() {
            self.stranded_accepted = None;
        }
        self.enter(State::Withdrawn, at);
    }

    /// The Devices that a determination lists, by itself or by its schedule; those of one that the incident does not follow, or not
    /// any more, are nothing to it.
    ///
    /// # Errors
    /// The list cannot be had, or is none.
    pub fn list<E>(
        &mut self,
        determination: DeterminationId,
        source: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<(), TakeError<E>> {
        let is_followed = self.determined.is_some_and(|determined| determined.id == determination);
        if is_followed && self.targets.list(source)? {
            self.stranded_accepted = None;
        }
        Ok(())
    }

    /// What a Device's Response proved, under a determination.
    pub fn prove(&mut self, device: DeviceId, proof: targets::Proof, determination: DeterminationId) {
        self.prove_all([(device, proof)], determination);
    }

    /// The same of many, best in the order of their Devices.
    pub fn prove_all(
        &mut self,
        proofs: impl IntoIterator<Item = (DeviceId, targets::Proof)>,
        determination: DeterminationId,
    ) {
        if self.targets.prove(proofs, determination) {
            self.stranded_accepted = None;
        }
    }

    /// Takes a step that was decided: what it alters here. `named` reads the Devices of the list that it names, in order. Answers the
    /// steps of the procedure that were taken by it.
    ///
    /// # Errors
    /// What `named` says, where a list cannot be read.
    pub fn take<E>(
        &mut self,
        step: &Step,
        index: u64,
        at: Timestamp,
        named: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<Vec<StepId>, TakeError<E>> {
        let mut taken = vec![step.meaning().id()];
        match step {
            Step::Confirm { certainty, .. } => {
                self.notification.certainty = *certainty;
                self.enter(State::Confirmed, at);
            }
            Step::Dismiss { .. } => self.enter(State::Dismissed, at),
            Step::Assess { method, targets: _ } => {
                self.targets = self.targets.reassessed(&Targets::read(named)?);
                self.method = Some(*method);
                self.stranded_accepted = None;
                self.enter(State::Assessed, at);
            }
            Step::Inform { duty, .. } => {
                if let Some(duty) = self.duties.get_mut(duty) {
                    duty.met.get_or_insert(index);
                    taken.extend(duty.step.clone());
                }
            }
            Step::Refer { .. } => self.enter(State::Referred, at),
            Step::SubscriberRecovery { .. } => self.enter(State::SubscriberRecovery, at),
            Step::SetStatus { status, from, devices, overridden, .. } => {
                let mut is_altered = false;
                self.targets.each(devices.is_some().then_some(named), |target| {
                    // Whoever overrides does so for the Devices that need it.
                    let was = target.left_behind();
                    if overridden.is_some() && decide::decide_device(step, target, false).is_err() {
                        target.overrule();
                    }
                    (target.status, target.since) = (*status, *from);
                    is_altered |= was != target.left_behind();
                })?;
                if is_altered {
                    self.stranded_accepted = None;
                }
            }
            // Where the extract can be read, before this.
            Step::ImportStatuses { .. } => {}
            Step::Prepare { .. } => self.enter(State::Prepared, at),
            Step::Pause { .. } => {
                self.enter(State::Paused, at);
                self.paused_by = Some(index);
            }
            Step::Exclude { .. } => self.targets.each(Some(named), |target| target.excluded = true)?,
            Step::Finish { .. } => {
                taken.push(Meaning::Execute.id());
                self.enter(State::Executed, at);
            }
            Step::BeginPostRecovery { .. } => self.enter(State::PostRecovery, at),
            Step::HandOver { devices, .. } => {
                self.targets.each(devices.is_some().then_some(named), |target| {
                    if target.waits_for_hand_over() {
                        (target.control, target.status, target.since) =
                            (targets::Control::HandedOver, SmiStatus::Commissioned, at);
                    }
                })?;
            }
            Step::AcceptStranded { count, overridden, .. } => {
                self.stranded_accepted =
                    Some(Accepted { stranded: *count, overridden: overridden.unwrap_or_default() });
            }
        }
        for step in &taken {
            self.note_done(step.clone(), index, at);
        }
        Ok(taken)
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

#[cfg(test)]
mod tests;
