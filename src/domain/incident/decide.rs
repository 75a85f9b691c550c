//! Pure. May this step of the procedure be taken now? Every guard is asked, and every reason told.
//!
//! Where a step has its place, and what must come before it, is the profile's word ([`crate::domain::procedure::in_force`]), which
//! [`Guards::place`] asks; what the step itself must say, and which Devices are fit for it, is asked here.

use std::collections::BTreeSet;

use super::routes::{self, Generation, Route};
use super::statuses::Compared;
use super::targets::{Counts, Proof};
use super::{Duty, Progress, State, Target, timeline};
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::entry::Reason;
use crate::domain::ledger::meaning::Meaning;
use crate::domain::ledger::steps::{CompromiseClass, Method, SmiStatus, Step};
use crate::domain::names::{DeterminationId, Digest, DirectionId, DutyId, KeyLabel, MechanismId, StepId};
use crate::domain::procedure::calendar::CivilDate;
use crate::domain::procedure::in_force::{Awaits, Demand, May, Requirement};
use crate::domain::procedure::places;
use crate::domain::time::Timestamp;

/// Octets of what somebody writes into a step: a page, so that it fits an entry many times over.
pub const TEXT_LEN_MAX: usize = 4_000;

/// The determination that the incident follows, as far as steps look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Why it is not in force, if it is not.
    pub not_in_force: Option<Box<str>>,
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
    /// How many of its Devices stand where.
    pub counts: Counts,
    /// Now.
    pub now: Timestamp,
    /// What the procedure in force demands about each of its steps, in their order.
    pub demands: &'a [Demand<'a>],
    /// The permitted mechanisms for confirming a Compromise.
    pub mechanisms: &'a BTreeSet<MechanismId>,
    /// The accepted notification files of the incident's class, by SHA-256.
    pub notifications: &'a BTreeSet<Digest>,
    /// The determination.
    pub determination: Option<Followed>,
    /// Which key the incident is about, where it is none behind an Organisation Certificate on Devices, and somebody said so.
    pub key: Option<OtherKey>,
    /// The contingency generation that it uses, or used.
    pub generation: Option<Generation>,
}

impl<'a> Situation<'a> {
    /// What is demanded about a step, if the profile has it.
    pub fn demand(&self, step: &StepId) -> Option<&'a Demand<'a>> {
        self.demands.iter().find(|demand| demand.step.id == *step)
    }

    /// The way out of this Compromise. Of one of before anybody said which key is meant, the class says it.
    pub fn route(&self) -> Route {
        match (self.key, self.progress.class()) {
            (None, CompromiseClass::Other) => routes::of(Some(OtherKey::Recovery)),
            (key, CompromiseClass::Organisation | CompromiseClass::Other) => routes::of(key),
        }
    }

    /// The open duties to inform, each with the direction of the SMKI PMA to leave out the step that would meet it, if there is one.
    pub fn open_duties(&self) -> impl Iterator<Item = (&'a DutyId, &'a Duty, Option<DirectionId>)> {
        self.progress.open_duties().map(|(id, duty)| {
            let step = duty.step.as_ref().and_then(|step| self.demand(step));
            (id, duty, step.and_then(|demand| demand.requirement.departed_by()))
        })
    }
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

impl<'a> Guards<'a> {
    const fn new(situation: &'a Situation<'a>) -> Self {
        Self { situation, reasons: Vec::new(), departures: Vec::new() }
    }

    fn demand(&mut self, rule: &str, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.reasons.push(Reason { rule: rule.into(), text: text().into() });
        }
    }

    fn depart(&mut self, direction: DirectionId) {
        if !self.departures.contains(&direction) {
            self.departures.push(direction);
        }
    }

    fn text(&mut self, field: &str, text: &str) {
        self.demand("text", !text.trim().is_empty() && text.len() <= TEXT_LEN_MAX, || {
            format!("{field}: expected 1 to {TEXT_LEN_MAX} octets of text, found {}", text.len())
        });
    }

    /// A step has its place: the state of the incident, and the profile in force. Answers by which text it is early, if it is: then
    /// whoever takes it says why.
    fn place(&mut self, step: Meaning) -> Option<String> {
        let (found, states) = (self.situation.progress.state, places(step));
        if !states.contains(&found) {
            self.demand("incident-state", false, || {
                let expected: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
                format!(
                    "expected the incident to be {}, found {found}; `smkictl incident next` says what is to be done",
                    expected.join(" or ")
                )
            });
            return None;
        }
        // A step that the profile does not have is taken wherever the states let it.
        let Demand { step, requirement, missing, departures } = self.situation.demand(&step.id())?;
        for direction in departures {
            self.depart(*direction);
        }
        match (requirement.may(), requirement) {
            (May::Yes, _) => None,
            (May::WithReason, _) => requirement.by().map(ToString::to_string),
            (May::No, Requirement::NotYetDue { .. }) if !missing.is_empty() => {
                for before in missing {
                    self.precedes(before);
                }
                None
            }
            (May::No, Requirement::NotYetDue { awaits: Awaits::Gate(_), .. } | Requirement::Blocked { .. }) => {
                self.demand("determination", false, || format!("step {}: {requirement}", step.id));
                None
            }
            (May::No, _) => {
                self.demand("procedure", false, || format!("step {}: {requirement}", step.id));
                None
            }
        }
    }

    /// A step that comes before was not taken.
    fn precedes(&mut self, step: &StepId) {
        let demand = self.situation.demand(step);
        let by = demand.and_then(|demand| demand.requirement.by()).map_or_else(String::new, |by| format!("{by}: "));
        let waiting = |count: u64| if count == 1 { "1 target has".to_owned() } else { format!("{count} targets have") };
        let (rule, text) = match Meaning::of(step) {
            Some(Meaning::SubmitNotification) => (
                "notification-file",
                format!("{by}no notification file of this incident's class was accepted; `smkictl file submit`"),
            ),
            Some(Meaning::SetRecovery) => {
                let missing = self.situation.progress.targets.without_recovery();
                let text = format!("{by}{} no SMI Status 'recovery' recorded yet", waiting(missing));
                ("smi-status", format!("{text}; `smkictl incident set-status`"))
            }
            Some(Meaning::SubmitThresholds) => (
                "adt-file",
                format!(
                    "{by}no Anomaly Detection Thresholds file of the affected Subscriber's ARO was accepted; `smkictl file submit`"
                ),
            ),
            Some(Meaning::SetRecovered) => {
                let missing = self.situation.counts.proven_not_recovered;
                let text = format!("{by}{} proven a recovery and no SMI Status 'recovered'", waiting(missing));
                ("smi-status", format!("{text}; `smkictl incident set-status INCIDENT recovered --devices LIST`"))
            }
            Some(Meaning::HandOver) => (
                "hand-over",
                format!(
                    "{by}{} Devices are under the DCC's control (Method 2) and not handed over; `smkictl incident hand-over`",
                    self.situation.counts.under_dcc_control
                ),
            ),
            Some(Meaning::ReportProgress) => (
                "progress-file",
                format!(
                    "{by}no Recovery Progress File was accepted since every target came to an end; `smkictl file progress` makes it, \
                     an ARO of the affected Subscriber signs it, `smkictl file submit`"
                ),
            ),
            Some(_) | None => {
                let mut duties = self.situation.progress.open_duties();
                match duties.find(|(_, duty)| duty.step.as_ref() == Some(step)) {
                    Some((duty, _)) => (
                        "open-duty",
                        format!("{by}duty {duty} is not met; `smkictl incident inform INCIDENT --duty {duty} …`"),
                    ),
                    None => ("procedure", format!("{by}step {step} comes before, and was not taken")),
                }
            }
        };
        let may_depart = demand.is_some_and(|demand| demand.step.departure);
        let way = if may_depart {
            format!("; or record a direction of the SMKI PMA to depart from step {step}")
        } else {
            String::new()
        };
        self.demand(rule, false, || format!("{text}{way}"));
    }

    /// Every duty to inform is met, but for those from whose step the PMA directed to depart.
    fn no_open_duties(&mut self) {
        let mut open = Vec::new();
        for (duty, _, departed) in self.situation.open_duties() {
            match departed {
                Some(direction) => self.depart(direction),
                None => open.push(duty.as_str()),
            }
        }
        // Said once for all of them.
        self.reasons.retain(|reason| &*reason.rule != "open-duty");
        self.demand("open-duty", open.is_empty(), || {
            format!("duties to inform are open: {}; record each with `smkictl incident inform`", open.join(", "))
        });
    }

    fn end(self) -> Result<Decided, Vec<Reason>> {
        let Self { situation: _, reasons, departures } = self;
        if reasons.is_empty() { Ok(Decided { departures }) } else { Err(reasons) }
    }
}

/// May this step be taken?
///
/// # Errors
/// Every reason against it.
#[expect(clippy::too_many_lines, reason = "a table, one row for each step")]
pub fn decide(step: &Step, situation: &Situation<'_>) -> Result<Decided, Vec<Reason>> {
    let mut guards = Guards::new(situation);
    let progress = situation.progress;
    let early = guards.place(step.meaning());
    match step {
        Step::Confirm { mechanism, certainty: _, evidence } => {
            guards.text("evidence", evidence);
            guards.demand("mechanism", situation.mechanisms.contains(mechanism), || {
                let known: Vec<&str> = situation.mechanisms.iter().map(MechanismId::as_str).collect();
                format!("mechanism: expected a permitted one ({}), found {mechanism}", known.join(", "))
            });
        }
        Step::Dismiss { reason } => {
            guards.text("reason", reason);
            guards.no_open_duties();
        }
        Step::Assess { method, targets } => {
            guards.demand("targets", targets.count > 0, || "targets: expected at least one Relevant Device".into());
            let methods = situation.route().methods;
            guards.demand("method", methods.contains(method), || {
                let expected: Vec<&str> = methods.iter().map(|method| timeline::method(*method)).collect();
                let of = match (situation.key, progress.class()) {
                    (Some(key), _) => routes::name(key),
                    (None, CompromiseClass::Organisation) => "an Organisation key",
                    (None, CompromiseClass::Other) => "this class of key",
                };
                format!("method: expected {} for {of}, found {}", expected.join(" or "), timeline::method(*method))
            });
        }
        Step::Inform { duty, recipient, at, how } => {
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
            let generation = situation.generation.as_ref();
            if let Some(generation) = generation.filter(|of| routes::replacement_id(&of.key) == *duty) {
                replaced(&mut guards, duty, generation);
            }
        }
        Step::Refer { notification, new_facts } => refer(&mut guards, *notification, new_facts.as_deref()),
        Step::SubscriberRecovery { note } => {
            guards.text("note", note);
            guards.demand("method", progress.method == Some(Method::SubscriberKey), || {
                "method: only Method 1 goes on without the SMKI PMA; refer the incident, or assess it again".into()
            });
        }
        Step::SetStatus { .. } => set_status(&mut guards, step, early),
        Step::ImportStatuses { reason, .. } => {
            if let Some(reason) = reason {
                guards.text("reason", reason);
            }
        }
        Step::Prepare { note } => {
            guards.text("note", note);
            match &situation.determination {
                None => guards.demand("determination", false, || "no determination to execute is recorded".into()),
                Some(Followed { not_in_force: _, has_scope, key: _ }) => guards.demand("scope", *has_scope, || {
                    "the determination left templates and device list to a schedule, which is not recorded yet".into()
                }),
            }
        }
        Step::Pause { reason } => {
            guards.text("reason", reason);
            guards.demand("incident-state", progress.paused_by.is_none(), || {
                format!("it is paused already, by entry {}", progress.paused_by.unwrap_or_default())
            });
        }
        Step::Exclude { devices, reason } => {
            guards.text("reason", reason);
            guards.demand("devices", devices.count > 0, || "devices: expected at least one".into());
        }
        Step::Finish { note } => {
            guards.text("note", note);
            let counts = situation.counts;
            guards.demand("outstanding", counts.outstanding == 0, || {
                let again = match counts.wanted_again {
                    0 => String::new(),
                    again => format!(
                        "; {again} were recovered under an earlier determination, and the one that is followed wants them recovered again"
                    ),
                };
                format!(
                    "expected every target proven recovered or left out with a reason; {} are outstanding, {} of them with \
                     a Response that says they failed{again}",
                    counts.outstanding, counts.failed
                )
            });
        }
        Step::BeginPostRecovery { note } => guards.text("note", note),
        Step::HandOver { devices: _, evidence } => {
            guards.text("evidence", evidence);
            if situation.counts.under_dcc_control == 0 {
                // That there is nothing to hand over says it all.
                guards.reasons.retain(|reason| &*reason.rule == "incident-state" || &*reason.rule == "text");
                guards.demand("method", false, || {
                    "no Device is under the DCC's control; only Method 2 puts them there, to be handed over afterwards"
                        .into()
                });
            }
        }
        Step::AcceptStranded { count, overridden, reason } => {
            guards.text("reason", reason);
            let Counts { stranded, overridden_out, .. } = situation.counts;
            guards.demand("stranded", *count == stranded, || {
                format!(
                    "count: expected {stranded}, the number that is stranded now, found {count}; read the list again"
                )
            });
            let found = overridden.unwrap_or_default();
            guards.demand("stranded", found == overridden_out, || {
                format!(
                    "overridden: expected {overridden_out}, the number that was set from 'recovery' to another status without \
                     proof, found {found}; read the list again"
                )
            });
        }
    }
    guards.end()
}

/// A generation is replaced once there is a next one, and every target has proved that it holds it.
fn replaced(guards: &mut Guards<'_>, duty: &DutyId, generation: &Generation) {
    if let Err(why) = &generation.next {
        guards.demand("next-generation", false, || format!("duty {duty}: nothing has taken its place yet: {why}"));
    }
    let situation = guards.situation;
    // Where the SMKI PMA wants nothing of the Devices any more, whoever informs it says what became of them.
    let wants_none = matches!(situation.progress.state, State::Withdrawn | State::DeterminedNotToExecute);
    let Counts { targets, succeeded, excluded, outstanding, .. } = situation.counts;
    guards.demand("next-generation", wants_none || outstanding == 0, || {
        format!(
            "duty {duty}: of {targets} targets {succeeded} proved that they hold the new root and {excluded} were left out; expected every \
             one, for the others hold the generation that everybody can open"
        )
    });
}

fn refer(guards: &mut Guards<'_>, notification: Option<Digest>, new_facts: Option<&str>) {
    let situation = guards.situation;
    // That there is none, and no direction to do without, was said where the step has its place.
    let is_said = guards.reasons.iter().any(|reason| &*reason.rule == "notification-file");
    let departs = situation
        .demand(&Meaning::SubmitNotification.id())
        .is_some_and(|demand| demand.requirement.departed_by().is_some());
    match notification {
        Some(file) => guards.demand("notification-file", is_said || situation.notifications.contains(&file), || {
            format!("expected the SHA-256 of an accepted notification file of this incident's class, found {file}")
        }),
        None => guards.demand("notification-file", is_said || departs, || {
            "expected the SHA-256 of the accepted notification file that goes with the referral, found none; name it with \
             --notification"
                .into()
        }),
    }
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
}

fn set_status(guards: &mut Guards<'_>, step: &Step, early: Option<String>) {
    let Step::SetStatus { status, from, devices: _, reason, acknowledged, overridden } = step else { return };
    guards.demand("in-the-future", *from <= guards.situation.now, || {
        format!("from: expected a day that has begun, found {from}; it is {}", guards.situation.now)
    });
    let begins = CivilDate::of(*from).ok().map(CivilDate::begins);
    guards.demand("from", begins == Some(*from), || {
        let expected = begins.map_or_else(String::new, |begins| format!(", such as {begins}"));
        format!("from: expected the moment at which a day begins in London{expected}, found {from}")
    });
    for (field, text) in [("reason", reason), ("overridden", overridden)] {
        if let Some(text) = text {
            guards.text(field, text);
        }
    }
    match status {
        SmiStatus::Recovery => one_way_door(guards, *acknowledged, reason.as_deref(), early),
        SmiStatus::Recovered => {
            if let Some(by) = early {
                guards.demand("reason", reason.is_some(), || {
                    format!(
                        "{by}: nobody need set it before the PMA determined; give the reason for doing so all the same"
                    )
                });
            }
        }
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

/// Whoever records 'recovery' knows what it means, and says why where nobody asks for it yet (rules 16 and 17).
fn one_way_door(guards: &mut Guards<'_>, acknowledged: bool, reason: Option<&str>, early: Option<String>) {
    guards.demand("acknowledgement", acknowledged, || {
        "a Device with SMI Status 'recovery' comes back only by being recovered with the Recovery or Contingency Private \
         Key (direction of 18 July 2017, paragraph (b)); acknowledge it with --acknowledge-one-way"
            .into()
    });
    if let Some(by) = early {
        guards.demand("reason", reason.is_some(), || {
            format!("{by}: nobody need set it before the PMA determined; give the reason for doing so all the same")
        });
    }
}

/// May an extract that comes to this be recorded? What was read must be what is so, as with stranded Devices; and what is 'recovery' in it
/// goes through the gate that it would go through by itself.
///
/// # Errors
/// Every reason against it.
pub fn decide_import(step: &Step, compared: &Compared, situation: &Situation<'_>) -> Result<(), Vec<Reason>> {
    let Step::ImportStatuses { extract: _, changes, contradictions, acknowledged, reason } = step else {
        return Ok(());
    };
    let mut guards = Guards::new(situation);
    guards.demand("extract", compared.new > 0, || {
        "the extract says nothing of the targets that is not recorded already, or contradicts it".into()
    });
    let (new, against) = (compared.new, compared.contradictions);
    guards.demand("extract", *changes == new && *contradictions == against, || {
        format!(
            "expected {new} changes and {against} contradictions, as it stands now, found {changes} and {contradictions}; read the \
             comparison again"
        )
    });
    if compared.to_recovery > 0 {
        let early = guards.place(Meaning::SetRecovery);
        one_way_door(&mut guards, *acknowledged, reason.as_deref(), early);
    }
    guards.end().map(drop)
}

/// May this one Device be named in the step? (Rules 18 and 20.) Without an override, or with the one that the step gives.
///
/// # Errors
/// Why not.
pub fn decide_device(step: &Step, target: &Target, with_override: bool) -> Result<(), String> {
    let device = target.device;
    match step {
        Step::SetStatus { status, from, overridden, .. } => {
            let overridden = with_override && overridden.is_some();
            decide_status(target, *status, overridden)?;
            if *from < target.since && !overridden {
                return Err(format!(
                    "Device {device}: its SMI Status '{}' applies from {}; expected a day not before that, found {from}, or an \
                     override with its reason",
                    target.status, target.since
                ));
            }
            Ok(())
        }
        Step::Exclude { .. } if target.is_proven() => {
            Err(format!("Device {device} is proven recovered; there is nothing to leave out"))
        }
        Step::HandOver { devices, .. } => {
            // Without a list it is about those that wait, and about no other.
            if !target.waits_for_hand_over() && devices.is_none() {
                return Ok(());
            }
            if target.waits_for_hand_over() && target.status == SmiStatus::Recovered {
                return Ok(());
            }
            let expected = "expected one under the DCC's control with SMI Status 'recovered'";
            let is = if target.waits_for_hand_over() { "under" } else { "not under" };
            Err(format!("Device {device}: {expected}, found '{}' and {is} its control", target.status))
        }
        Step::Exclude { .. }
        | Step::Confirm { .. }
        | Step::Dismiss { .. }
        | Step::Assess { .. }
        | Step::Inform { .. }
        | Step::Refer { .. }
        | Step::SubscriberRecovery { .. }
        | Step::ImportStatuses { .. }
        | Step::Prepare { .. }
        | Step::Pause { .. }
        | Step::Finish { .. }
        | Step::BeginPostRecovery { .. }
        | Step::AcceptStranded { .. } => Ok(()),
    }
}

/// May the SMI Status of this one Device be set so? 'recovered' is what a Device itself proves: nobody can say it in its place.
pub(super) fn decide_status(target: &Target, status: SmiStatus, overridden: bool) -> Result<(), String> {
    let device = target.device;
    match status {
        SmiStatus::Recovered if target.is_wanted_again() => Err(format!(
            "Device {device}: it was recovered under an earlier determination, and the one that the incident follows wants it recovered \
             again; take its Response under that in first"
        )),
        SmiStatus::Recovered if !target.is_proven() => Err(format!(
            "Device {device}: expected a verified Response that proves its recovery, found {}; take its Response in first. No \
             override takes its place: a Device that was seen to on site is set to Commissioned with an override",
            if target.answer() == Proof::Failed { "one that says it failed" } else { "none" }
        )),
        SmiStatus::Recovery if target.is_proven() => {
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
            // No override either: its Subscriber would never get it back.
            if target.waits_for_hand_over() {
                return Err(format!(
                    "Device {device} is under the DCC's control (Method 2) until it is handed over; record the handover with \
                     `smkictl incident hand-over`"
                ));
            }
            let from_recovery = matches!(target.status, SmiStatus::Recovery | SmiStatus::Recovered);
            if from_recovery && !target.is_proven() && !overridden {
                return Err(format!(
                    "Device {device}: no way leads from '{}' back to {status} without a verified Response that proves its \
                     recovery, or an override with its reason",
                    target.status
                ));
            }
            Ok(())
        }
    }
}

/// May a file be taken in that is a step of the procedure? Whoever is relieved of it and sends it all the same says so by signing it.
///
/// # Errors
/// Every reason against it.
pub fn decide_file(step: Meaning, situation: &Situation<'_>) -> Result<Decided, Vec<Reason>> {
    let mut guards = Guards::new(situation);
    guards.place(step);
    guards.end()
}

/// May the incident be closed?
///
/// # Errors
/// Every reason against it.
pub fn decide_close(situation: &Situation<'_>) -> Result<Decided, Vec<Reason>> {
    let mut guards = Guards::new(situation);
    guards.place(Meaning::Close);
    guards.no_open_duties();
    if let Some(left) = situation.counts.to_accept() {
        guards.demand("stranded", situation.progress.stranded_accepted == Some(left), || {
            format!(
                "{} Devices stay in 'recovery' without a key to bring them back, and {} were set from there to another status \
                 without proof; report them, then `smkictl incident accept-stranded`",
                left.stranded, left.overridden
            )
        });
    }
    guards.end()
}

/// May the PMA determine on the incident now?
///
/// # Errors
/// Why not.
pub fn decide_determination(
    situation: &Situation<'_>,
    supersedes: Option<DeterminationId>,
) -> Result<Decided, Vec<Reason>> {
    let progress = situation.progress;
    let follows = progress.determined.map(|determined| determined.id);
    // Beyond the referral the PMA has determined already, and determines in the place of that.
    let is_asked = progress.state == State::Referred || (supersedes.is_some() && supersedes == follows);
    let mut guards = Guards::new(situation);
    if places(Meaning::Determine).contains(&progress.state) && is_asked {
        guards.place(Meaning::Determine);
    } else {
        guards.demand("incident-state", false, || {
            format!(
                "expected the incident to be referred to the SMKI PMA (or determined, and this to supersede the determination \
                 that it follows{}), found {}",
                follows.map_or_else(String::new, |id| format!(", {id}")),
                progress.state
            )
        });
    }
    guards.end()
}

#[cfg(test)]
mod tests;
