//! Pure. May this step of the procedure be taken now? Every guard is asked, and every reason told.

use std::collections::{BTreeMap, BTreeSet};

use super::targets::Counts;
use super::{Progress, State, step_id, timeline};
use crate::domain::ledger::entry::Reason;
use crate::domain::ledger::steps::{CompromiseClass, Method, SmiStatus, Step};
use crate::domain::names::{DeterminationId, Digest, DirectionId, KeyLabel, MechanismId, StepId};
use crate::domain::time::Timestamp;

/// Octets of what somebody writes into a step: a page, so that it fits an entry many times over.
pub const TEXT_LEN_MAX: usize = 4_000;

/// What the procedure in force says of a step that may have to precede another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It is due, by this text.
    Due {
        /// The profile, and the label of the step in it.
        by: Box<str>,
    },
    /// Nobody need take it yet, by this text.
    Relieved {
        /// The variation and its clause.
        by: Box<str>,
    },
    /// It is not asked for.
    NotRequired,
}

/// The gates that the procedure in force sets at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gates {
    /// Setting the SMI Status 'recovery'.
    pub status: Gate,
    /// Submitting the ADT file.
    pub adt: Gate,
}

/// The determination that the incident follows, as far as steps look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is in force; if not, why.
    pub in_force: Result<(), Box<str>>,
    /// Whether its scope (templates with the replacement certificates, device list, limits) is recorded.
    pub has_scope: bool,
    /// The key that it requires; none if it is not to execute.
    pub key: Option<KeyLabel>,
}

/// The facts that a step is decided by.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// How far the incident has come.
    pub progress: &'a Progress,
    /// Now.
    pub now: Timestamp,
    /// The gates of the procedure in force.
    pub gates: &'a Gates,
    /// The permitted mechanisms for confirming a Compromise.
    pub mechanisms: &'a BTreeSet<MechanismId>,
    /// The accepted notification files of the incident's class, by SHA-256.
    pub notifications: &'a BTreeSet<Digest>,
    /// Whether an ADT file of the affected Subscriber was accepted.
    pub adt_accepted: bool,
    /// The determination.
    pub determination: Option<Standing>,
    /// Steps from which the PMA directed to depart, and by which direction.
    pub departures: &'a BTreeMap<StepId, DirectionId>,
}

/// A step that may be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Decided {
    /// The directions that it relied on.
    pub departures: Vec<DirectionId>,
}

/// Guards that were asked, and what they said.
struct Guards<'a> {
    situation: &'a Situation<'a>,
    reasons: Vec<Reason>,
    departures: Vec<DirectionId>,
}

impl Guards<'_> {
    fn demand(&mut self, rule: &str, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.reasons.push(Reason { rule: rule.into(), text: text().into() });
        }
    }

    /// A step of the procedure must precede, unless the PMA directed to depart from it (rule 7).
    fn precedes(&mut self, meaning: &str, rule: &str, holds: bool, text: impl FnOnce() -> String) {
        if holds {
            return;
        }
        let step = step_id(meaning);
        match self.situation.departures.get(&step) {
            Some(direction) if self.departures.contains(direction) => {}
            Some(direction) => self.departures.push(*direction),
            None => {
                let text = format!("{}; or record a direction of the SMKI PMA to depart from step {step}", text());
                self.reasons.push(Reason { rule: rule.into(), text: text.into() });
            }
        }
    }

    fn text(&mut self, field: &str, text: &str) {
        self.demand("text", !text.trim().is_empty() && text.len() <= TEXT_LEN_MAX, || {
            format!("{field}: expected 1 to {TEXT_LEN_MAX} octets of text, found {}", text.len())
        });
    }

    fn from(&mut self, states: &[State]) {
        let found = self.situation.progress.state;
        self.demand("incident-state", states.contains(&found), || {
            let expected: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
            format!(
                "expected the incident to be {}, found {found}; `smkictl incident next` says what is to be done",
                expected.join(" or ")
            )
        });
    }

    fn counts(&self) -> Counts {
        self.situation.progress.targets.counts()
    }
}

/// States in which an incident still goes on.
const OPEN: &[State] = &[
    State::Reported,
    State::Confirmed,
    State::Assessed,
    State::SubscriberRecovery,
    State::Referred,
    State::DeterminedNotToExecute,
    State::DeterminedToExecute,
    State::Prepared,
    State::KeyActive,
    State::Executing,
    State::Paused,
    State::Executed,
    State::PostRecovery,
    State::Dismissed,
    State::Withdrawn,
];

/// States in which the targets are known and the incident is not over.
const TARGETED: &[State] = &[
    State::Assessed,
    State::SubscriberRecovery,
    State::Referred,
    State::DeterminedNotToExecute,
    State::DeterminedToExecute,
    State::Prepared,
    State::KeyActive,
    State::Executing,
    State::Paused,
    State::Executed,
    State::PostRecovery,
    State::Withdrawn,
];

/// May this step be taken?
///
/// # Errors
/// Every reason against it.
pub fn decide(step: &Step, situation: &Situation<'_>) -> Result<Decided, Vec<Reason>> {
    let mut guards = Guards { situation, reasons: Vec::new(), departures: Vec::new() };
    let progress = situation.progress;
    match step {
        Step::Confirm { mechanism, certainty: _, evidence } => {
            guards.from(&[State::Reported]);
            guards.text("evidence", evidence);
            guards.demand("mechanism", situation.mechanisms.contains(mechanism), || {
                let known: Vec<&str> = situation.mechanisms.iter().map(MechanismId::as_str).collect();
                format!("mechanism: expected a permitted one ({}), found {mechanism}", known.join(", "))
            });
        }
        Step::Dismiss { reason } => {
            guards.from(&[State::Reported]);
            guards.text("reason", reason);
            no_open_duties(&mut guards);
        }
        Step::Assess { method, targets } => {
            guards.from(&[State::Confirmed, State::Assessed]);
            guards.demand("targets", targets.count > 0, || "targets: expected at least one Relevant Device".into());
            let fits = match progress.class() {
                CompromiseClass::Organisation => *method != Method::Contingency,
                CompromiseClass::Other => *method == Method::Contingency,
            };
            guards.demand("method", fits, || {
                let expected = match progress.class() {
                    CompromiseClass::Organisation => "Method 1, 2 or 3 for an Organisation key",
                    CompromiseClass::Other => "the Contingency route for this class of key",
                };
                format!("method: expected {expected}, found {}", timeline::method(*method))
            });
        }
        Step::Inform { duty, recipient, at, how } => {
            guards.from(OPEN);
            guards.text("recipient", recipient);
            guards.text("how", how);
            guards.demand("in-the-future", *at <= situation.now, || {
                format!("at: expected a moment that is over, found {at}; it is {}", situation.now)
            });
            match progress.duties.get(duty) {
                None => guards.demand("duty", false, || {
                    let open: Vec<String> = progress.open_duties().map(|(id, _)| id.to_string()).collect();
                    let open =
                        if open.is_empty() { "none is open".to_owned() } else { format!("open: {}", open.join(", ")) };
                    format!("duty: expected one that arose ({open}), found {duty}")
                }),
                Some(known) => guards.demand("duty", known.met.is_none(), || {
                    format!("duty {duty} was met already, by entry {}", known.met.unwrap_or_default())
                }),
            }
        }
        Step::Refer { notification, new_facts } => refer(&mut guards, *notification, new_facts.as_deref()),
        Step::SubscriberRecovery { note } => {
            guards.from(&[State::Assessed]);
            guards.text("note", note);
            guards.demand("method", progress.method == Some(Method::SubscriberKey), || {
                "method: only Method 1 goes on without the SMKI PMA; refer the incident, or assess it again".into()
            });
        }
        Step::SetStatus { .. } => set_status(&mut guards, step),
        Step::Prepare { note } => prepare(&mut guards, note),
        Step::Pause { reason } => {
            guards.from(&[State::KeyActive, State::Executing]);
            guards.text("reason", reason);
        }
        Step::Exclude { devices, reason } => {
            guards.from(TARGETED);
            guards.text("reason", reason);
            guards.demand("devices", devices.count > 0, || "devices: expected at least one".into());
        }
        Step::Finish { note } => {
            guards.from(&[State::Executing, State::Paused]);
            guards.text("note", note);
            let counts = guards.counts();
            guards.demand("outstanding", counts.outstanding == 0, || {
                format!(
                    "expected every target proven recovered or left out with a reason; {} are outstanding, {} of them with \
                     a Response that says they failed",
                    counts.outstanding, counts.failed
                )
            });
        }
        Step::BeginPostRecovery { note } => {
            guards.from(&[State::Executed]);
            guards.text("note", note);
        }
        Step::HandOver { devices: _, evidence } => {
            guards.from(&[State::PostRecovery, State::DeterminedNotToExecute, State::Withdrawn]);
            guards.text("evidence", evidence);
            let waiting = guards.counts().under_dcc_control;
            guards.demand("method", waiting > 0, || {
                "no Device is under the DCC's control; only Method 2 puts them there, to be handed over afterwards"
                    .into()
            });
        }
        Step::AcceptStranded { count, reason } => {
            guards.from(&[
                State::DeterminedNotToExecute,
                State::SubscriberRecovery,
                State::Executed,
                State::PostRecovery,
                State::Withdrawn,
                State::Dismissed,
            ]);
            guards.text("reason", reason);
            let stranded = guards.counts().stranded;
            guards.demand("stranded", *count == stranded, || {
                format!(
                    "count: expected {stranded}, the number that is stranded now, found {count}; read the list again"
                )
            });
        }
    }
    let Guards { situation: _, reasons, departures } = guards;
    if reasons.is_empty() { Ok(Decided { departures }) } else { Err(reasons) }
}

fn no_open_duties(guards: &mut Guards<'_>) {
    let open: Vec<String> = guards.situation.progress.open_duties().map(|(id, _)| id.to_string()).collect();
    guards.demand("open-duty", open.is_empty(), || {
        format!("duties to inform are open: {}; record each with `smkictl incident inform`", open.join(", "))
    });
}

/// The base procedure wants SMI Status and ADT file before the referral; the variation of 2017 moves both behind the
/// determination (rules 16 and 21).
fn preceding(guards: &mut Guards<'_>) {
    let gates = guards.situation.gates;
    if let Gate::Due { by } = &gates.status {
        let missing = guards.situation.progress.targets.without_recovery();
        guards.precedes("set-smi-status-recovery", "smi-status", missing == 0, || {
            format!("{by}: {missing} targets have no SMI Status 'recovery' recorded yet; `smkictl incident set-status`")
        });
    }
    if let Gate::Due { by } = &gates.adt {
        guards.precedes("submit-adt-file", "adt-file", guards.situation.adt_accepted, || {
            format!("{by}: no Anomaly Detection Thresholds file of the affected Subscriber's ARO was accepted; `smkictl file submit`")
        });
    }
}

fn refer(guards: &mut Guards<'_>, notification: Digest, new_facts: Option<&str>) {
    let situation = guards.situation;
    guards.from(&[State::Assessed, State::DeterminedNotToExecute]);
    guards.precedes(
        "submit-notification-file",
        "notification-file",
        situation.notifications.contains(&notification),
        || {
            format!(
                "expected the SHA-256 of an accepted notification file of this incident's class, found {notification}"
            )
        },
    );
    let again = situation.progress.state == State::DeterminedNotToExecute;
    guards.demand("new-facts", again == new_facts.is_some(), || {
        if again {
            "new_facts: the PMA determined not to execute; expected what is new since".into()
        } else {
            "new_facts: expected none, for the PMA has not determined yet".into()
        }
    });
    if let Some(text) = new_facts {
        guards.text("new_facts", text);
    }
    preceding(guards);
}

fn prepare(guards: &mut Guards<'_>, note: &str) {
    let situation = guards.situation;
    guards.from(&[State::DeterminedToExecute]);
    guards.text("note", note);
    match &situation.determination {
        None => guards.demand("determination", false, || "no determination to execute is recorded".into()),
        Some(Standing { in_force, has_scope, key: _ }) => {
            if let Err(why) = in_force {
                guards.demand("determination", false, || why.to_string());
            }
            guards.demand("scope", *has_scope, || {
                "the determination left templates and device list to a schedule, which is not recorded yet".into()
            });
        }
    }
    preceding(guards);
}

fn set_status(guards: &mut Guards<'_>, step: &Step) {
    let Step::SetStatus { status, from, devices: _, reason, acknowledged, overridden } = step else { return };
    let progress = guards.situation.progress;
    guards.from(TARGETED);
    guards.demand("in-the-future", *from <= guards.situation.now, || {
        format!("from: expected a day that has begun, found {from}; it is {}", guards.situation.now)
    });
    for (field, text) in [("reason", reason), ("overridden", overridden)] {
        if let Some(text) = text {
            guards.text(field, text);
        }
    }
    match status {
        SmiStatus::Recovery => {
            guards.demand("acknowledgement", *acknowledged, || {
                "a Device with SMI Status 'recovery' comes back only by being recovered with the Recovery or Contingency \
                 Private Key (direction of 18 July 2017, paragraph (b)); acknowledge it with --acknowledge-one-way"
                    .into()
            });
            if let (Gate::Relieved { by }, None) = (&guards.situation.gates.status, &progress.determined) {
                guards.demand("reason", reason.is_some(), || {
                    format!(
                        "{by}: nobody need set it before the PMA determined; give the reason for doing so all the same"
                    )
                });
            }
        }
        SmiStatus::Recovered => {}
        status @ (SmiStatus::Pending
        | SmiStatus::Whitelisted
        | SmiStatus::InstalledNotCommissioned
        | SmiStatus::Commissioned
        | SmiStatus::Decommissioned
        | SmiStatus::Withdrawn
        | SmiStatus::Suspended) => {
            // Which Devices may leave 'recovery' is decided Device by Device.
            guards.demand("status", *status != SmiStatus::Pending, || {
                format!("status: expected one that a Device in the field can have, found {status}")
            });
        }
    }
}

/// May the SMI Status of this one Device be set so? (Rules 18 and 20.)
///
/// # Errors
/// Why not.
pub fn decide_status(target: &super::Target, status: SmiStatus, overridden: bool) -> Result<(), String> {
    use super::targets::{Control, Proof};
    let device = target.device;
    match status {
        SmiStatus::Recovered if target.proof != Proof::Succeeded && !overridden => Err(format!(
            "Device {device}: expected a verified Response that proves its recovery, found {}; take its Response in first",
            if target.proof == Proof::Failed { "one that says it failed" } else { "none" }
        )),
        SmiStatus::Recovery if target.proof == Proof::Succeeded => {
            Err(format!("Device {device} is proven recovered; it is not set back to 'recovery'"))
        }
        SmiStatus::Recovery | SmiStatus::Recovered => Ok(()),
        SmiStatus::Pending
        | SmiStatus::Whitelisted
        | SmiStatus::InstalledNotCommissioned
        | SmiStatus::Commissioned
        | SmiStatus::Decommissioned
        | SmiStatus::Withdrawn
        | SmiStatus::Suspended => {
            let from_recovery = matches!(target.status, SmiStatus::Recovery | SmiStatus::Recovered);
            if from_recovery && target.proof != Proof::Succeeded && !overridden {
                return Err(format!(
                    "Device {device}: no way leads from '{}' back to {status} without a verified Response that proves its \
                     recovery, or an override with its reason",
                    target.status
                ));
            }
            if from_recovery && target.control == Control::Dcc && !overridden {
                return Err(format!(
                    "Device {device} is under the DCC's control (Method 2) until it is handed over; record the handover"
                ));
            }
            Ok(())
        }
    }
}

/// May the incident be closed?
///
/// # Errors
/// Every reason against it.
pub fn decide_close(progress: &Progress) -> Result<(), Vec<Reason>> {
    let mut reasons = Vec::new();
    let mut demand = |rule: &str, holds: bool, text: String| {
        if !holds {
            reasons.push(Reason { rule: rule.into(), text: text.into() });
        }
    };
    let closable = [
        State::PostRecovery,
        State::SubscriberRecovery,
        State::DeterminedNotToExecute,
        State::Dismissed,
        State::Withdrawn,
    ];
    let expected: Vec<&str> = closable.iter().map(|state| state.as_str()).collect();
    demand(
        "incident-state",
        closable.contains(&progress.state),
        format!("expected the incident to be {}, found {}", expected.join(" or "), progress.state),
    );
    let open: Vec<String> = progress.open_duties().map(|(id, _)| id.to_string()).collect();
    demand(
        "open-duty",
        open.is_empty(),
        format!("duties to inform are open: {}; record each with `smkictl incident inform`", open.join(", ")),
    );
    let counts = progress.targets.counts();
    demand(
        "stranded",
        counts.stranded == 0 || progress.stranded_accepted == Some(counts.stranded),
        format!(
            "{} Devices stay in 'recovery' without a key to bring them back; report them, then `smkictl incident accept-stranded`",
            counts.stranded
        ),
    );
    demand(
        "hand-over",
        counts.under_dcc_control == 0,
        format!("{} Devices are under the DCC's control (Method 2) and not handed over", counts.under_dcc_control),
    );
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// May the PMA determine on the incident now?
///
/// # Errors
/// Why not.
pub fn decide_determination(progress: &Progress, supersedes: Option<DeterminationId>) -> Result<(), Reason> {
    let may = match progress.state {
        State::Referred => true,
        State::DeterminedNotToExecute
        | State::DeterminedToExecute
        | State::Prepared
        | State::KeyActive
        | State::Executing
        | State::Paused => supersedes.is_some() && supersedes == progress.determined.map(|determined| determined.id),
        State::Reported
        | State::Confirmed
        | State::Dismissed
        | State::Assessed
        | State::SubscriberRecovery
        | State::Executed
        | State::PostRecovery
        | State::Closed
        | State::Withdrawn => false,
    };
    if may {
        return Ok(());
    }
    Err(Reason {
        rule: "incident-state".into(),
        text: format!(
            "expected the incident to be referred to the SMKI PMA (or determined, and this to supersede the determination that \
             it follows{}), found {}",
            progress.determined.map_or(String::new(), |determined| format!(", {}", determined.id)),
            progress.state
        )
        .into(),
    })
}

#[cfg(test)]
mod tests;
