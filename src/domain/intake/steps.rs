//! Pure. A step of the procedure: may it be taken, with the incident, the files and the lists as they are?

use std::collections::BTreeSet;

use super::{Context, OF_AN_OCA, Reasons, check_clock, policy_in_force};
use crate::domain::determination::devices;
use crate::domain::fold::BookError;
use crate::domain::incident::decide::{
    Decided, Followed, Situation, decide_close, decide_device, decide_file, decide_import,
};
use crate::domain::incident::routes::Generation;
use crate::domain::incident::statuses::{Compared, compare_all};
use crate::domain::incident::targets::TargetsError;
use crate::domain::incident::{self, Counts, Progress, TakeError, Targets};
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::entry::{IncidentClosed, Reason};
use crate::domain::ledger::meaning::Meaning;
use crate::domain::ledger::steps::{DevicesNamed, ProfileInForce, Step, StepTaken};
use crate::domain::names::{DeviceId, Digest, FileKind, IncidentId, MechanismId};
use crate::domain::policy::Policy;
use crate::domain::policy::facts::IncidentFacts;
use crate::domain::procedure::calendar::CivilDate;
use crate::domain::procedure::in_force::{Demand, demands};
use crate::domain::time::Timestamp;

/// What a step is decided by, put together from the state. Lives as long as [`Situation`] borrows from it.
#[derive(Clone, Debug)]
pub struct View<'a> {
    progress: &'a Progress,
    counts: Counts,
    now: Timestamp,
    /// The profile in force.
    pub profile: ProfileInForce,
    demands: Vec<Demand<'a>>,
    mechanisms: BTreeSet<MechanismId>,
    notifications: BTreeSet<Digest>,
    determination: Option<Followed>,
    key: Option<OtherKey>,
    generation: Option<Generation>,
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
        Some(Self {
            progress,
            counts: progress.targets.counts(),
            now,
            profile: in_force.ids(),
            demands: demands(&in_force, &view),
            mechanisms: procedure.base().mechanisms.iter().map(|mechanism| mechanism.id.clone()).collect(),
            notifications: fold.notifications(incident_id, progress.class()),
            determination: of.map(|facts| Followed {
                not_in_force: view.not_in_force,
                has_scope: facts.scope.is_some(),
                key: facts.key.as_ref().map(|(key, _)| key.clone()),
            }),
            key: facts.key,
            generation: super::contingency::generation(fold, incident_id, of),
        })
    }

    /// As the guards look at it.
    pub fn situation(&self) -> Situation<'_> {
        Situation {
            progress: self.progress,
            counts: self.counts,
            now: self.now,
            demands: &self.demands,
            mechanisms: &self.mechanisms,
            notifications: &self.notifications,
            determination: self.determination.clone(),
            key: self.key,
            generation: self.generation.clone(),
        }
    }
}

/// Whether a file of this kind has its place in the incident now. In one that is in no procedure it has one always.
///
/// # Errors
/// Every reason against it.
pub fn file_in_place(context: &Context<'_>, incident: &IncidentId, kind: FileKind) -> Result<Decided, Vec<Reason>> {
    match (Meaning::of_file(kind), View::of(context, incident)) {
        (Some(step), Some(view)) => decide_file(step, &view.situation()),
        (Some(_) | None, _) => Ok(Decided::default()),
    }
}

/// The end of an incident.
///
/// # Errors
/// Every reason against it.
pub fn closing(context: &Context<'_>, incident: &IncidentId, reason: &str) -> Result<IncidentClosed, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let Some(facts) = context.fold.incidents().get(incident) else {
        reasons.add("incident-unknown", format!("no incident {incident} is known"));
        return Err(reasons.0);
    };
    if facts.closed.is_some() {
        reasons.add("incident-closed", format!("incident {incident} is closed already"));
        return Err(reasons.0);
    }
    // One that was opened under a policy without the procedure's steps has nothing else to go by.
    check_clock(context, &mut reasons);
    let view = View::of(context, incident);
    if view.is_none() && facts.progress.is_some() {
        reasons.add(
            "no-procedure",
            "the policy in force has no steps of the procedure (procedure/base.toml); adopt one that has",
        );
        return Err(reasons.0);
    }
    let Decided { departures } =
        view.as_ref().map_or_else(|| Ok(Decided::default()), |view| decide_close(&view.situation()))?;
    let profile = view.map(|view| view.profile);
    reasons.end(Some(IncidentClosed { incident: incident.clone(), reason: reason.into(), profile, departures }))
}

/// A step of an incident. A list that it names, or an extract, is long, and everybody waits while it is read: it is, where nothing else
/// speaks against the step.
///
/// # Errors
/// Every reason against it; of the Devices, only where there is no other.
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
    if !matches!(step, Step::Pause { .. } | Step::Exclude { .. }) {
        check_clock(context, &mut reasons);
    }
    reasons.demand("incident-closed", facts.closed.is_none(), || format!("incident {incident} is closed"));
    let decided = incident::decide(step, &view.situation()).unwrap_or_else(|further| {
        reasons.0.extend(further);
        Decided::default()
    });
    if let Step::Assess { .. } = step {
        check_subscriber(policy, facts, &mut reasons);
    }
    if !reasons.0.is_empty() {
        return Err(reasons.0);
    }
    let carried = check_list(context, policy, (incident, view.progress), step, &mut reasons);
    if let Step::ImportStatuses { extract, .. } = step {
        match compared(context, policy, facts, view.progress, *extract) {
            Ok(compared) => {
                reasons.0.extend(decide_import(step, &compared, &view.situation()).err().unwrap_or_default());
            }
            Err(text) => reasons.add("extract", text),
        }
    }
    let profile = view.profile.clone();
    reasons.end(Some(StepTaken {
        incident: incident.clone(),
        profile,
        step: step.clone(),
        departures: decided.departures,
        carried,
    }))
}

/// The list that a step names: no longer than it says and the policy permits, and each Device of it fit for the step. Answers how many
/// Devices of an assessment keep the status that another incident recorded.
fn check_list(
    context: &Context<'_>,
    policy: &Policy,
    (incident, progress): (&IncidentId, &Progress),
    step: &Step,
    reasons: &mut Reasons,
) -> u64 {
    let list = step.devices();
    let (count, most) = (list.map_or(0, |list| list.count), policy.limits().devices_max);
    if count > most {
        reasons.add("devices", format!("devices: the policy's devices_max is {most}, found {count}"));
        return 0;
    }
    let named =
        || list.map(|DevicesNamed { list, .. }| move |piece: &mut dyn FnMut(&[u8])| context.blobs.stream(list, piece));
    let (mut unfit, mut carried) = (Unfit::default(), 0);
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
            carried = context.fold.held_elsewhere(incident, &targets.reassessed(&later)).len() as u64;
            lines
        }),
        (Step::SetStatus { .. } | Step::Exclude { .. } | Step::HandOver { .. }, named) => {
            targets.look(named, count, |target| {
                if let Err(text) = decide_device(step, target, true) {
                    unfit.tell(text);
                }
            })
        }
        (
            Step::Assess { .. }
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
        ) => return 0,
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
    carried
}

/// The Party behind the compromised certificate is one that the policy names (SEC Section L10.30(b)): without it nobody can sign for the
/// affected Subscriber. A policy of the first version names no Parties.
fn check_subscriber(policy: &Policy, facts: &IncidentFacts, reasons: &mut Reasons) {
    let (parties, eui64) = (policy.parties(), facts.compromised.party);
    // An OCA is the DCC's, and has no EUI-64.
    if eui64 == OF_AN_OCA {
        return;
    }
    reasons.demand("party-unknown", parties.is_empty() || parties.of(eui64).is_some(), || {
        format!(
            "the compromised certificate is {eui64}'s, and no [[party]] of the policy in force has that EUI-64; the PMA must adopt \
             a policy that names it"
        )
    });
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
    let (mut outside, mut more, mut part, mut finder) = (Vec::new(), 0, Vec::new(), progress.targets.finder());
    context.blobs.stream(list, &mut |piece| {
        for &octet in piece {
            if octet != b'\n' {
                // The EUI-64 is what a line begins with; the rest of it is not looked at here.
                if part.len() < EUI64_LEN {
                    part.push(octet);
                }
                continue;
            }
            let device = devices::eui64(&part).map(DeviceId);
            part.clear();
            let Some(device) = device else { continue };
            if finder.find(device).is_some_and(|(_, target)| !target.excluded) {
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

#[cfg(test)]
pub(crate) mod tests;
