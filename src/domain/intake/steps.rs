//! Pure. A step of the procedure: may it be taken, with the incident, the files and the lists as they are?

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Reasons, policy_in_force};
use crate::domain::fold::BookError;
use crate::domain::incident::decide::{Gate, Gates, Situation, Standing, decide_status};
use crate::domain::incident::targets::TargetsError;
use crate::domain::incident::{self, Progress, TakeError, Targets};
use crate::domain::ledger::entry::Reason;
use crate::domain::ledger::steps::{DevicesNamed, ProfileInForce, Step, StepTaken};
use crate::domain::names::{DeviceId, Digest, DirectionId, IncidentId, MechanismId, StepId};
use crate::domain::policy::facts::DeterminationFacts;
use crate::domain::policy::rules::Refusal;
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
        let view = fold.incident_view(incident_id)?;
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
    let id = facts.id;
    let refusal = if facts.withdrawn {
        Some(Refusal::Withdrawn { id })
    } else if let Some(by) = facts.superseded_by {
        Some(Refusal::Superseded { id, by })
    } else if let Some(until) = facts.suspended_until.filter(|until| now < *until) {
        Some(Refusal::Suspended { id, until })
    } else if facts.window.until <= now {
        Some(Refusal::Window { id, window: facts.window, now })
    } else {
        None
    };
    let in_force = refusal.map_or(Ok(()), |refusal| Err(refusal.to_string().into()));
    let key = facts.key.as_ref().map(|(key, _)| key.clone());
    Standing { in_force, has_scope: facts.scope.is_some(), key }
}

/// A step of an incident.
///
/// # Errors
/// Every reason against it.
pub fn step(context: &Context<'_>, incident: &IncidentId, step: &Step) -> Result<StepTaken, Vec<Reason>> {
    let mut reasons = Reasons::default();
    policy_in_force(context.fold, &mut reasons)?;
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
    check_list(context, view.progress, step, &mut reasons);
    reasons.demand("incident-closed", facts.closed.is_none(), || format!("incident {incident} is closed"));
    let profile = view.profile.clone();
    reasons.end(decided.map(|decided| StepTaken {
        incident: incident.clone(),
        profile,
        step: step.clone(),
        departures: decided.departures,
    }))
}

/// The list that a step names: as long as it says, and each Device of it fit for the step.
fn check_list(context: &Context<'_>, progress: &Progress, step: &Step, reasons: &mut Reasons) {
    let list = step.devices();
    if let Some(DevicesNamed { list, count }) = list {
        let lines = count_lines(context, list);
        match lines {
            Ok(found) => reasons.demand("devices", found == count, || {
                format!("devices: expected {count} lines in list {list}, found {found}")
            }),
            Err(error) => {
                reasons.add("devices", error);
                return;
            }
        }
    }
    let stream = |digest: Digest| move |piece: &mut dyn FnMut(&[u8])| context.blobs.stream(digest, piece);
    let mut unfit: Vec<String> = Vec::new();
    let mut more = 0_u64;
    let mut tell = |text: String| {
        if unfit.len() < incident::targets::FAULTS_TOLD_MAX {
            unfit.push(text);
        } else {
            more += 1;
        }
    };
    let read: Result<(), TakeError<BookError>> = match step {
        Step::Assess { targets, .. } => Targets::read(stream(targets.list)).map(|later| {
            if let Some(device) = progress.targets.dropped_by(&later) {
                tell(format!(
                    "Device {device} is missing, and something was recorded of it since it was assessed: it stays among the \
                     targets; leave it out with `smkictl incident exclude`"
                ));
            }
        }),
        Step::SetStatus { status, overridden, devices, .. } => {
            let mut targets = progress.targets.clone();
            targets.each(devices.map(|devices| stream(devices.list)), |target| {
                if let Err(text) = decide_status(target, *status, overridden.is_some()) {
                    tell(text);
                }
            })
        }
        Step::Exclude { devices, .. } => {
            let mut targets = progress.targets.clone();
            targets.each(Some(stream(devices.list)), |target| {
                if target.proof == incident::targets::Proof::Succeeded {
                    tell(format!("Device {} is proven recovered; there is nothing to leave out", target.device));
                }
            })
        }
        Step::HandOver { devices, .. } => {
            let mut targets = progress.targets.clone();
            let all = devices.is_none();
            targets.each(devices.map(|devices| stream(devices.list)), |target| {
                let handed_over = target.control == incident::targets::Control::HandedOver;
                let waits = target.status == crate::domain::ledger::steps::SmiStatus::Recovered && !handed_over;
                if !waits && !all {
                    tell(format!(
                        "Device {}: expected SMI Status 'recovered' and no handover yet, found '{}'",
                        target.device, target.status
                    ));
                }
            })
        }
        Step::Confirm { .. }
        | Step::Dismiss { .. }
        | Step::Inform { .. }
        | Step::Refer { .. }
        | Step::SubscriberRecovery { .. }
        | Step::Prepare { .. }
        | Step::Pause { .. }
        | Step::Finish { .. }
        | Step::BeginPostRecovery { .. }
        | Step::AcceptStranded { .. } => Ok(()),
    };
    match read {
        Ok(()) => {}
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
    for text in unfit {
        reasons.add("device-unfit", text);
    }
    if more > 0 {
        reasons.add("device-unfit", format!("and {more} more Devices"));
    }
}

fn count_lines(context: &Context<'_>, list: Digest) -> Result<u64, BookError> {
    let mut lines = 0;
    context.blobs.stream(list, &mut |piece| lines += incident::targets::line_feeds(piece))?;
    Ok(lines)
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
