//! Pure. A step of the procedure: may it be taken, with the incident, the files and the lists as they are?

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Reasons, policy_in_force};
use crate::domain::fold::BookError;
use crate::domain::incident::decide::{Gate, Gates, Situation, Standing, decide_import, decide_status};
use crate::domain::incident::statuses::{Compared, compare_all};
use crate::domain::incident::targets::{Control, Proof, TargetsError};
use crate::domain::incident::{self, Progress, TakeError, Targets};
use crate::domain::ledger::entry::Reason;
use crate::domain::ledger::steps::{DevicesNamed, ProfileInForce, SmiStatus, Step, StepTaken};
use crate::domain::names::{DeviceId, Digest, DirectionId, FileKind, IncidentId, MechanismId, StepId};
use crate::domain::policy::Policy;
use crate::domain::policy::facts::{DeterminationFacts, IncidentFacts};
use crate::domain::procedure::calendar::CivilDate;
use crate::domain::procedure::in_force::{Awaits, Requirement, required};
use crate::domain::time::Timestamp;

/// What a step is decided by, put together from the state. Lives as long as [`Situation`] borrows from it.
#[derive(Clone, Debug)]
pub struct View<'a> {
    progress: &'a Progress,
    now: Timestamp,
    /// The profile in force.
    pub profile: ProfileInForce,
    gates: Gates,
    mechanisms: BTreeSet<MechanismId>,
    notifications: BTreeSet<Digest>,
    adt_accepted: bool,
    determination: Option<Standing>,
    departures: BTreeMap<StepId, DirectionId>,
}

impl<'a> View<'a> {
    /// Of an incident at a moment; none if it is not known, or none of the procedure.
    pub fn of(context: &Context<'a>, incident_id: &IncidentId) -> Option<Self> {
        let (fold, now) = (context.fold, context.at);
        let facts = fold.incidents().get(incident_id)?;
        let progress = facts.progress.as_ref()?;
        let procedure = fold.policy()?.policy.procedure()?;
        let in_force = procedure.in_force(now, fold.extensions());
        let of = progress.determined.and_then(|determined| fold.determinations().get(&determined.id));
        let view = fold.incident_view(incident_id, now)?;
        let gate_of = |meaning: &str| gate(required(&incident::step_id(meaning), &in_force, &view));
        Some(Self {
            progress,
            now,
            gates: Gates { status: gate_of("set-smi-status-recovery"), adt: gate_of("submit-adt-file") },
            profile: in_force.ids(),
            mechanisms: procedure.base().mechanisms.iter().map(|mechanism| mechanism.id.clone()).collect(),
            notifications: fold.notifications(incident_id, progress.class()),
            adt_accepted: fold.adt_accepted(incident_id),
            determination: of.map(|facts| standing(facts, now)),
            departures: view.departures,
        })
    }

    /// As the guards look at it.
    pub fn situation(&self) -> Situation<'_> {
        Situation {
            progress: self.progress,
            now: self.now,
            gates: &self.gates,
            mechanisms: &self.mechanisms,
            notifications: &self.notifications,
            adt_accepted: self.adt_accepted,
            determination: self.determination.clone(),
            departures: &self.departures,
        }
    }
}

/// What the procedure in force says of a step that may have to precede. Once it was taken it is due no more by itself; whether it was
/// taken for every target, the guards count.
fn gate(requirement: Requirement) -> Gate {
    match requirement {
        Requirement::Due { by } | Requirement::Done { by } => Gate::Due { by: by.to_string().into() },
        Requirement::NotYetDue { by, awaits: Awaits::Gate(_), .. } => Gate::Relieved { by: by.to_string().into() },
        Requirement::NotYetDue { awaits: Awaits::Steps(_), .. }
        | Requirement::Unknown { .. }
        | Requirement::Permitted { .. }
        | Requirement::NotRequired { .. }
        | Requirement::Blocked { .. } => Gate::NotRequired,
    }
}

/// Whether a determination is in force, as far as the procedure asks.
fn standing(facts: &DeterminationFacts, now: Timestamp) -> Standing {
    let in_force = facts.not_in_force(now).map_or(Ok(()), |refusal| Err(refusal.to_string().into()));
    Standing { in_force, has_scope: facts.scope.is_some() }
}

/// A step of an incident.
///
/// # Errors
/// Every reason against it.
pub fn step(context: &Context<'_>, incident: &IncidentId, step: &Step) -> Result<StepTaken, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let policy = &policy_in_force(context.fold, &mut reasons)?.policy;
    let Some(facts) = context.fold.incidents().get(incident) else {
        reasons.add("incident-unknown", format!("no incident {incident} is known"));
        return Err(reasons.0);
    };
    let Some(view) = View::of(context, incident) else {
        reasons.add(
            "no-procedure",
            format!(
                "incident {incident} was opened under a policy without the steps of the procedure (procedure/base.toml), so \
                 none can be recorded for it"
            ),
        );
        return Err(reasons.0);
    };
    let decided = match incident::decide(step, &view.situation()) {
        Ok(decided) => Some(decided),
        Err(further) => {
            reasons.0.extend(further);
            None
        }
    };
    check_list(context, policy, view.progress, step, &mut reasons);
    if let Step::ImportStatuses { extract, .. } = step {
        match compared(context, policy, facts, view.progress, *extract) {
            Ok(compared) => {
                reasons.0.extend(decide_import(step, &compared, &view.situation()).err().unwrap_or_default());
            }
            Err(text) => reasons.add("extract", text),
        }
    }
    reasons.demand("incident-closed", facts.closed.is_none(), || format!("incident {incident} is closed"));
    let profile = view.profile.clone();
    reasons.end(decided.map(|decided| StepTaken {
        incident: incident.clone(),
        profile,
        step: step.clone(),
        departures: decided.departures,
    }))
}

/// The list that a step names: no longer than it says and the policy permits, and each Device of it fit for the step.
fn check_list(context: &Context<'_>, policy: &Policy, progress: &Progress, step: &Step, reasons: &mut Reasons) {
    let list = step.devices();
    let (count, most) = (list.map_or(0, |list| list.count), policy.limits().devices_max);
    if count > most {
        reasons.add("devices", format!("devices: the policy's devices_max is {most}, found {count}"));
        return;
    }
    let named =
        || list.map(|DevicesNamed { list, .. }| move |piece: &mut dyn FnMut(&[u8])| context.blobs.stream(list, piece));
    let mut unfit = Unfit::default();
    let targets = &progress.targets;
    let read: Result<u64, TakeError<BookError>> = match (step, named()) {
        (Step::Assess { .. }, Some(source)) => Targets::read_first(source, count).map(|(later, lines)| {
            if let Some(device) = targets.dropped_by(&later) {
                unfit.tell(format!(
                    "Device {device} is missing, and something was recorded of it since it was assessed: it stays among the \
                     targets; leave it out with `smkictl incident exclude`"
                ));
            }
            let event = progress.notification.recovery_event;
            for (line, target) in later.commissioned_after(event) {
                unfit.tell(format!(
                    "line {line}: Device {} was commissioned on {}, after the Recovery Event of {event}; a Relevant Device was \
                     at or immediately before it (SEC L10.30(a))",
                    target.device,
                    day(target.since)
                ));
            }
            lines
        }),
        (Step::SetStatus { status, overridden, .. }, named) => targets.look(named, count, |target| {
            if let Err(text) = decide_status(target, *status, overridden.is_some()) {
                unfit.tell(text);
            }
        }),
        (Step::Exclude { .. }, named) => targets.look(named, count, |target| {
            if target.proof == Proof::Succeeded {
                unfit.tell(format!("Device {} is proven recovered; there is nothing to leave out", target.device));
            }
        }),
        (Step::HandOver { devices: Some(_), .. }, named) => targets.look(named, count, |target| {
            if target.status != SmiStatus::Recovered || target.control == Control::HandedOver {
                unfit.tell(format!(
                    "Device {}: expected SMI Status 'recovered' and no handover yet, found '{}'",
                    target.device, target.status
                ));
            }
        }),
        (
            Step::Assess { .. }
            | Step::HandOver { .. }
            | Step::Confirm { .. }
            | Step::Dismiss { .. }
            | Step::Inform { .. }
            | Step::Refer { .. }
            | Step::SubscriberRecovery { .. }
            | Step::ImportStatuses { .. }
            | Step::Prepare { .. }
            | Step::Pause { .. }
            | Step::Finish { .. }
            | Step::BeginPostRecovery { .. }
            | Step::AcceptStranded { .. },
            _,
        ) => return,
    };
    match read {
        Ok(found) => {
            if let Some(DevicesNamed { list, count }) = list {
                reasons.demand("devices", found == count, || {
                    format!("devices: expected {count} lines in list {list}, found {found}")
                });
            }
        }
        Err(TakeError::Source(error)) => reasons.add("devices", error),
        Err(TakeError::Targets(TargetsError { faults, more })) => {
            for fault in faults {
                reasons.add("devices", format!("line {}: {}", fault.line, fault.fault));
            }
            if more > 0 {
                reasons.add("devices", format!("and {more} more faults"));
            }
        }
    }
    unfit.end(reasons);
}

/// What an extract comes to that was accepted in this incident.
fn compared(
    context: &Context<'_>,
    policy: &Policy,
    facts: &IncidentFacts,
    progress: &Progress,
    extract: Digest,
) -> Result<Compared, String> {
    if !facts.has_extract(extract) {
        return Err(format!(
            "expected the SHA-256 of an SMI Status extract that incident {} has, found {extract}; `smkictl file submit … --kind \
             smi-extract`",
            facts.id
        ));
    }
    let source = |piece: &mut dyn FnMut(&[u8])| context.blobs.stream(extract, piece);
    let of = (&facts.id, context.at);
    compare_all(&progress.targets, &policy.layout(FileKind::SmiExtract), of, source, |_, _, _| {})
        .map_err(|error| error.to_string())
}

/// A moment as the day in London that begins with it.
fn day(at: Timestamp) -> String {
    CivilDate::of(at).map_or_else(|_| at.to_string(), |day| day.to_string())
}

/// Devices that are not fit for a step: some are told, the rest is counted.
#[derive(Default)]
struct Unfit {
    told: Vec<String>,
    more: u64,
}

impl Unfit {
    fn tell(&mut self, text: String) {
        if self.told.len() < incident::targets::FAULTS_TOLD_MAX {
            self.told.push(text);
        } else {
            self.more += 1;
        }
    }

    fn end(self, reasons: &mut Reasons) {
        for text in self.told {
            reasons.add("device-unfit", text);
        }
        if self.more > 0 {
            reasons.add("device-unfit", format!("and {} more Devices", self.more));
        }
    }
}

/// Octets of an EUI-64 in hexadecimal.
const EUI64_LEN: usize = 16;

/// The Devices of a determination's list that are no targets of the incident, or are left out: at most
/// [`incident::targets::FAULTS_TOLD_MAX`], and how many more.
///
/// # Errors
/// The list cannot be read.
pub fn outside_of_targets(
    context: &Context<'_>,
    progress: &Progress,
    list: Digest,
) -> Result<(Vec<DeviceId>, u64), BookError> {
    let (mut outside, mut more, mut part) = (Vec::new(), 0, Vec::new());
    context.blobs.stream(list, &mut |piece| {
        for &octet in piece {
            if octet != b'\n' {
                // The EUI-64 is what a line begins with; the rest of it is not looked at here.
                if part.len() < EUI64_LEN {
                    part.push(octet);
                }
                continue;
            }
            let device = std::str::from_utf8(&part).ok().and_then(|text| text.parse::<DeviceId>().ok());
            part.clear();
            let Some(device) = device else { continue };
            if progress.targets.get(device).is_some_and(|target| !target.excluded) {
                continue;
            }
            if outside.len() < incident::targets::FAULTS_TOLD_MAX { outside.push(device) } else { more += 1 }
        }
    })?;
    Ok((outside, more))
}

/// What is to be done next in an incident, and by whom.
pub fn next(context: &Context<'_>, incident: &IncidentId) -> Option<Vec<incident::next::ToDo>> {
    View::of(context, incident).map(|view| incident::next::next(&view.situation()))
}
