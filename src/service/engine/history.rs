//! Shell: one Device's story in an incident, told from the entries: the fold's own steps, taken for this Device alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;

use super::answers;
use crate::api::wire::{self, DeviceEvent};
use crate::domain::determination::document::{Decision, Determination, Written};
use crate::domain::fold::{Blobs, FoldError, book};
use crate::domain::incident::decide::decide_device;
use crate::domain::incident::statuses::{CompareError, Found, compare_all};
use crate::domain::incident::targets::{Control, LeftBehind, Proof, Target, Targets};
use crate::domain::incident::{Determined, Progress, TakeError, timeline};
use crate::domain::ledger::entry::{Entry, Event, Outcome, ProfileInForce, ResponsesTaken, SignResult, StepTaken};
use crate::domain::ledger::steps::{SmiStatus, Step};
use crate::domain::names::{DeterminationId, DeviceId, Digest, FileKind, IncidentId, ProfileId};
use crate::domain::procedure::calendar::{CivilDate, shown};
use crate::domain::responses::{self, ResultLine};
use crate::domain::time::Timestamp;
use crate::state::StoredDocuments;
use crate::store::{Reader, StoreError};

/// What is told of a Device.
type Told = Vec<DeviceEvent>;

/// Where an incident begins: its entry, and the policy that was in force then, for an extract is read by the layout of the policy in force
/// when it was imported.
#[derive(Clone, Debug)]
pub(super) struct Beginning {
    pub(super) incident: IncidentId,
    pub(super) opened: u64,
    pub(super) policy: Option<Digest>,
}

/// What happened to a Device in an incident, oldest first; nothing if the incident never named it. `all` are the incidents that are
/// in a procedure, from the one that was opened first: only where something was carried over from them are they looked at. The inner
/// error is that of a list that cannot be read.
pub(super) fn history(
    reader: &dyn Reader,
    of: &Beginning,
    all: &[Beginning],
    device: DeviceId,
) -> Result<Result<Told, FoldError>, StoreError> {
    match told(reader, of, std::slice::from_ref(of), device)? {
        Ok(Some(told)) => Ok(Ok(told)),
        Ok(None) => Ok(told(reader, of, all, device)?.map(Option::unwrap_or_default)),
        Err(error) => Ok(Err(error)),
    }
}

/// The same, in one pass over these incidents; none where others are to be looked at, and only this one was.
fn told(
    reader: &dyn Reader,
    of: &Beginning,
    among: &[Beginning],
    device: DeviceId,
) -> Result<Result<Option<Told>, FoldError>, StoreError> {
    let only = |of: &Beginning| wire::EntriesOf { incident: Some(of.incident.clone()), ..wire::EntriesOf::default() };
    let filters: Vec<_> = among.iter().map(only).collect();
    let mut each: Vec<_> = among
        .iter()
        .zip(&filters)
        .map(|(of, filter)| {
            (of, answers::About::new(filter, reader), History { policy: of.policy, ..History::of(device) })
        })
        .collect();
    let (mut failed, mut is_alone_enough) = (None, true);
    let from = among.iter().map(|of| of.opened).min().unwrap_or_default();
    answers::of_device(reader, device, from..reader.head()?.size.max(from), &mut |leaf| {
        let Ok(entry) = Entry::from_leaf(leaf.octets) else { return ControlFlow::Continue(()) };
        let carries = matches!(&entry.event, Event::StepTaken(taken) if taken.carried > 0);
        for at in 0..each.len() {
            let (begins, about, history) = &mut each[at];
            if let Event::PolicyAdopted(adopted) = &entry.event {
                history.policy = Some(adopted.policy);
            }
            if leaf.index < begins.opened || !about.takes(leaf.index, &entry) {
                continue;
            }
            if carries {
                if among.len() == 1 {
                    is_alone_enough = false;
                    return ControlFlow::Break(());
                }
                let others = each.iter().enumerate().filter(|(other, _)| *other != at);
                let stood = others.filter_map(|(_, (.., history))| history.progress.as_ref());
                let stood = stood.map(|progress| progress.targets.clone()).collect();
                each[at].2.elsewhere = stood;
            }
            if let Err(error) = each[at].2.take(leaf.index, &entry, &StoredDocuments(reader)) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failed {
        return Ok(Err(error));
    }
    let asked = each.into_iter().find(|(begins, ..)| begins.incident == of.incident);
    Ok(Ok(asked.filter(|_| is_alone_enough).map(|(.., history)| history.told)))
}

/// What is known of the Device so far.
struct History {
    device: DeviceId,
    /// The policy in force.
    policy: Option<Digest>,
    /// The incident as it would be if the Device were its only target.
    progress: Option<Progress>,
    batches: BTreeMap<u64, DeterminationId>,
    /// Its intents without an outcome.
    open: BTreeSet<u64>,
    /// Its intents that were signed and not released.
    signed: BTreeSet<u64>,
    /// How it stood in other incidents when it was assessed.
    elsewhere: Vec<Targets>,
    told: Told,
}

impl History {
    fn of(device: DeviceId) -> Self {
        let (batches, told) = (BTreeMap::new(), Vec::new());
        let (open, signed) = (BTreeSet::new(), BTreeSet::new());
        Self { device, policy: None, progress: None, batches, open, signed, elsewhere: Vec::new(), told }
    }

    #[expect(clippy::too_many_lines, reason = "a table, one row for each kind")]
    fn take(&mut self, index: u64, entry: &Entry, blobs: &dyn Blobs) -> Result<(), FoldError> {
        let Entry { v: _, at, clock: _, by: _, event } = entry;
        let tell = |history: &mut Self, profile: Option<&ProfileInForce>, what: String| {
            history.told.push(DeviceEvent {
                entry: index,
                at: *at,
                who: timeline::who(&entry.by),
                profile: profile.map(names).unwrap_or_default(),
                smi_status: history.target().map(|target| target.status),
                since: history.target().map(|target| target.since),
                what,
            });
        };
        match event {
            Event::IncidentOpened(opened) => {
                let notification = opened.notification.clone();
                self.progress = notification.map(|notification| Progress::reported(notification, *at, index));
            }
            Event::StepTaken(taken) => {
                if let Some(what) = self.step(taken, index, *at, blobs)? {
                    tell(self, Some(&taken.profile), what);
                }
            }
            Event::IncidentClosed(closed) => {
                if let Some(target) = self.target() {
                    let what = match target.left_behind() {
                        Some(LeftBehind::Stranded) => "Stranded when the incident",
                        Some(LeftBehind::Overridden) => "Out of 'recovery' without proof when the incident",
                        None => "The incident",
                    };
                    let what = format!("{what} was closed: {}", closed.reason);
                    tell(self, closed.profile.as_ref(), what);
                }
            }
            Event::DeterminationRecorded(recorded) => {
                let document = Written::<Determination>::read(blobs.blob(recorded.document)?).ok();
                if let (Some(document), Some(progress)) = (document, &mut self.progress) {
                    let form = document.form();
                    let execute = form.decision == Decision::Execute;
                    progress.follow(Determined { id: form.id, execute, method: form.method }, [], *at);
                }
                if let Some(what) = self.list(recorded.determination, recorded.devices, blobs)? {
                    tell(self, None, what);
                }
            }
            Event::DeterminationWithdrawn(withdrawn) => self.withdraw(withdrawn.determination, *at),
            Event::ScheduleRecorded(recorded) => {
                if let Some(what) = self.list(recorded.determination, Some(recorded.devices), blobs)? {
                    tell(self, None, what);
                }
            }
            Event::Batch(batch) => {
                self.batches.insert(index, batch.determination);
            }
            Event::Intent(intent) if intent.device == self.device => {
                self.open.insert(index);
                let under = self.batches.get(&intent.batch);
                let under = under.map(|id| format!(" under determination {id}")).unwrap_or_default();
                let (template, counter, attempt) = (&intent.template, intent.counter, intent.attempt);
                tell(
                    self,
                    None,
                    format!("Command intended: template {template}, counter {counter}, attempt {attempt}{under}"),
                );
            }
            Event::Outcome(outcome) if self.open.remove(&outcome.intent) => {
                if matches!(outcome.result, SignResult::Signed(_)) {
                    self.signed.insert(outcome.intent);
                }
                tell(self, None, became(outcome));
            }
            Event::Released(released) => {
                let is_in =
                    |intent: &u64| released.intents.iter().any(|(from, until)| (*from..*until).contains(intent));
                for intent in self.signed.iter().copied().filter(is_in).collect::<Vec<_>>() {
                    self.signed.remove(&intent);
                    tell(self, None, format!("Command of intent {intent} released to request {}", released.request));
                }
            }
            Event::Settled(settled) if settled.device == self.device => {
                tell(self, None, format!("Unknown of intent {} left as it is: {}", settled.intent, settled.reason));
            }
            Event::ResponsesTaken(taken) => {
                for what in self.responses(taken, blobs)? {
                    tell(self, taken.profile.as_ref(), what);
                }
            }
            // Of other Devices, or of none.
            Event::Intent(_)
            | Event::Outcome(_)
            | Event::Settled(_)
            | Event::Genesis(_)
            | Event::PolicyAdopted(_)
            | Event::CertificationIntent(_)
            | Event::CertificateImported(_)
            | Event::Started(_)
            | Event::Stopped(_)
            | Event::DeterminationSuspended(_)
            | Event::DirectionRecorded(_)
            | Event::KeyCopied(_)
            | Event::SharesBegun(_)
            | Event::SharesDealt(_)
            | Event::CustodianPresented(_)
            | Event::KeyMade(_)
            | Event::KeyDestruction(_)
            | Event::KeyDestroyed(_)
            | Event::CeremonyRecorded(_)
            | Event::KeyActivated(_)
            | Event::KeyLocked(_)
            | Event::TokenHealth(_)
            | Event::LoginRetried(_)
            | Event::DeviceCertificatesImported(_)
            | Event::Snapshot(_)
            | Event::Refused(_)
            | Event::RefusalsFolded(_)
            | Event::ClockJumped(_)
            | Event::ClockAccepted(_)
            | Event::FileAccepted(_)
            | Event::ExerciseRecorded(_)
            | Event::JobStarted(_)
            | Event::JobPassed(_)
            | Event::JobPaused(_)
            | Event::JobResumed(_)
            | Event::JobCancelled(_)
            | Event::JobEnded(_)
            | Event::ContingencyPrepared(_)
            | Event::RootImported(_)
            | Event::ContingencyChecked(_)
            | Event::SymmetricKeySpent(_)
            | Event::SymmetricRelease(_)
            | Event::SymmetricReleased(_)
            | Event::SigningResumed(_) => {}
        }
        Ok(())
    }

    fn withdraw(&mut self, id: DeterminationId, at: Timestamp) {
        let of = |progress: &&mut Progress| progress.determined.is_some_and(|determined| determined.id == id);
        if let Some(progress) = self.progress.as_mut().filter(of) {
            progress.withdraw(at);
        }
    }

    fn target(&self) -> Option<Target> {
        self.progress.as_ref().and_then(|progress| progress.targets.get(self.device))
    }

    /// Takes a step for this Device alone. Answers what it did to it, if anything.
    fn step(
        &mut self,
        taken: &StepTaken,
        index: u64,
        at: Timestamp,
        blobs: &dyn Blobs,
    ) -> Result<Option<String>, FoldError> {
        let before = self.target();
        if let Step::ImportStatuses { extract, .. } = &taken.step {
            self.import(&taken.incident, *extract, at, blobs)?;
        }
        let Some(progress) = &mut self.progress else { return Ok(None) };
        let list = taken.step.devices().map(|devices| devices.list);
        let own = list.map(|list| own_lines(self.device, list, blobs)).transpose()?.unwrap_or_default();
        let is_assessment = matches!(taken.step, Step::Assess { .. });
        if is_assessment && own.is_empty() {
            // A list of no targets is none that can be read.
            progress.targets = Targets::default();
        } else {
            let line = |piece: &mut dyn FnMut(&[u8])| -> Result<(), FoldError> {
                piece(own.as_bytes());
                Ok(())
            };
            progress.take(&taken.step, index, at, line).map_err(|error| match error {
                TakeError::Source(error) => error,
                TakeError::Targets(error) => FoldError::Document {
                    what: "list of Devices",
                    digest: list.unwrap_or(Digest([0; 32])),
                    reason: error.to_string(),
                },
            })?;
        }
        if let (true, Some(progress)) = (taken.carried > 0, &mut self.progress) {
            let held = progress.targets.held_by(&self.elsewhere);
            progress.targets.record(held);
        }
        let after = self.target();
        let is_named = (before.is_some() || after.is_some()) && (list.is_none() || is_assessment || !own.is_empty());
        Ok(if is_named { did(&taken.step, before, after, &own) } else { None })
    }

    /// Takes what an extract says of this Device, where it says something new.
    fn import(
        &mut self,
        incident: &IncidentId,
        extract: Digest,
        at: Timestamp,
        blobs: &dyn Blobs,
    ) -> Result<(), FoldError> {
        let (Some(progress), Some(policy)) = (&mut self.progress, self.policy) else { return Ok(()) };
        let layout = book::read_policy(policy, blobs)?.layout(FileKind::SmiExtract);
        let (targets, source) = (&progress.targets, |piece: &mut dyn FnMut(&[u8])| blobs.stream(extract, piece));
        let mut statuses = Vec::new();
        let compared = compare_all(targets, &layout, (incident, at), source, |target, row, found| {
            if let (Found::New, Some((place, _))) = (found, target) {
                statuses.push((place, row.status, row.from));
            }
        });
        compared.map_err(|error| match error {
            CompareError::Source(error) => FoldError::Book(error),
            CompareError::Faults(faults) => {
                FoldError::Document { what: "extract", digest: extract, reason: faults.to_string() }
            }
        })?;
        progress.targets.record(statuses);
        Ok(())
    }

    /// A determination lists Devices. Answers what that does to this one, where it was recovered before.
    fn list(
        &mut self,
        id: DeterminationId,
        list: Option<Digest>,
        blobs: &dyn Blobs,
    ) -> Result<Option<String>, FoldError> {
        let (Some(progress), Some(list)) = (&mut self.progress, list) else { return Ok(None) };
        let own = own_lines(self.device, list, blobs)?;
        let line = |piece: &mut dyn FnMut(&[u8])| -> Result<(), FoldError> {
            piece(own.as_bytes());
            Ok(())
        };
        progress.list(id, line).map_err(|error| match error {
            TakeError::Source(error) => error,
            TakeError::Targets(error) => {
                FoldError::Document { what: "device list", digest: list, reason: error.to_string() }
            }
        })?;
        let is_wanted = self.target().is_some_and(|target| target.is_wanted_again());
        Ok(is_wanted.then(|| format!("Determination {id} lists it: it is to be recovered again")))
    }

    /// What this Device's own messages proved.
    fn responses(&mut self, taken: &ResponsesTaken, blobs: &dyn Blobs) -> Result<Vec<String>, FoldError> {
        let wrong = |reason| FoldError::Document { what: "list of results", digest: taken.results, reason };
        let mut told = Vec::new();
        for line in own_lines(self.device, taken.results, blobs)?.lines() {
            let line = ResultLine::parse(line).map_err(wrong)?;
            let proof = match line.outcome {
                responses::Outcome::Recovered => Some(Proof::Succeeded),
                responses::Outcome::Failed => Some(Proof::Failed),
                _ => None,
            };
            if let (Some(proof), Some(progress)) = (proof, &mut self.progress) {
                progress.prove(self.device, proof, taken.determination);
            }
            let mut what = format!("Response: {}", line.outcome);
            if let Some(intent) = line.intent {
                let _ = write!(what, ", to the command of intent {intent}");
            }
            if !line.detail.is_empty() {
                let _ = write!(what, ": {}", line.detail);
            }
            told.push(what);
        }
        Ok(told)
    }
}

/// The base profile and the variations laid over it.
fn names(profile: &ProfileInForce) -> Vec<ProfileId> {
    std::iter::once(&profile.base).chain(&profile.variations).cloned().collect()
}

/// The lines of this Device in a list whose lines begin with an EUI-64, each with its line feed. The rest is not kept.
fn own_lines(device: DeviceId, list: Digest, blobs: &dyn Blobs) -> Result<String, FoldError> {
    let id = device.to_string();
    let (mut own, mut part, mut is_other) = (Vec::new(), Vec::new(), false);
    blobs.stream(list, &mut |piece| {
        for &octet in piece {
            if !is_other {
                part.push(octet);
                is_other = part.len() <= id.len() && !id.as_bytes().starts_with(&part);
                is_other &= octet != b'\n';
            }
            if octet == b'\n' {
                if !is_other && part.len() > id.len() {
                    own.extend_from_slice(&part);
                }
                part.clear();
                is_other = false;
            }
        }
    })?;
    String::from_utf8(own).map_err(|error| FoldError::Document {
        what: "list of Devices",
        digest: list,
        reason: format!("expected UTF-8: {error}"),
    })
}

/// What became of an intent.
fn became(outcome: &Outcome) -> String {
    let intent = outcome.intent;
    match &outcome.result {
        SignResult::Signed(_) => format!("Command of intent {intent} signed"),
        SignResult::Failed(why) => format!("Command of intent {intent} failed: {why}"),
        SignResult::NotSigned(why) => format!("Command of intent {intent} not signed: {why}"),
        SignResult::Unknown(why) => format!("Command of intent {intent} is of unknown outcome: {why}"),
    }
}

/// A day of London; before the calendar begins, the moment.
fn day(at: Timestamp) -> String {
    CivilDate::of(at).map_or_else(|_| shown(at), |day| day.to_string())
}

/// What a step did to the Device, if anything: how it stood before and after, and its line in the list of the step.
fn did(step: &Step, before: Option<Target>, after: Option<Target>, line: &str) -> Option<String> {
    let because = |reason: &Option<Box<str>>| reason.as_ref().map(|why| format!(", because {why}")).unwrap_or_default();
    let known =
        |acknowledged: bool| if acknowledged { ", acknowledged as a way that only these keys lead back" } else { "" };
    Some(match step {
        Step::Assess { method, targets: _ } => {
            let Some(target) = after else {
                return Some("Assessed again: it is no Relevant Device any more".to_owned());
            };
            let mut fields = line.trim_end().splitn(4, ',').skip(1);
            let (status, since) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let evidence = fields.next().unwrap_or_default();
            let mut what = format!(
                "Assessed, {} proposed: '{status}' since {since} immediately before the Recovery Event; evidence: {evidence}",
                timeline::method(*method)
            );
            if target.is_touched() {
                let _ = write!(what, "; it stays '{}' since {}, as recorded before", target.status, day(target.since));
            }
            what
        }
        Step::SetStatus { status, from, devices: _, reason, acknowledged, overridden } => {
            // Whoever overrides does so for the Devices that need it.
            let is_of_this = before.is_some_and(|before| decide_device(step, &before, false).is_err());
            let overridden = overridden
                .as_ref()
                .filter(|_| is_of_this)
                .map(|why| format!(", without proof, overridden: {why}"))
                .unwrap_or_default();
            let known = known(*acknowledged && *status == SmiStatus::Recovery);
            format!("SMI Status '{status}' from {}{}{known}{overridden}", day(*from), because(reason))
        }
        Step::ImportStatuses { extract, acknowledged, reason, .. } => {
            let (before, after) = (before?, after?);
            if (before.status, before.since) == (after.status, after.since) {
                return None;
            }
            format!(
                "SMI Status '{}' from {}, imported from the Inventory's extract, SHA-256 {extract}{}{}",
                after.status,
                day(after.since),
                because(reason),
                known(*acknowledged && after.status == SmiStatus::Recovery)
            )
        }
        Step::Exclude { devices: _, reason } => format!("Left out: {reason}"),
        Step::HandOver { devices: _, evidence } => {
            let back = |target: Target| target.control == Control::HandedOver;
            if before.is_some_and(back) || !after.is_some_and(back) {
                return None;
            }
            format!("Handed back to its Subscriber: {evidence}")
        }
        Step::AcceptStranded { count: _, overridden: _, reason } => match after?.left_behind()? {
            LeftBehind::Stranded => format!("Accepted as stranded: {reason}"),
            LeftBehind::Overridden => {
                format!("Accepted as set from 'recovery' to '{}' without proof: {reason}", after?.status)
            }
        },
        Step::Confirm { .. }
        | Step::Dismiss { .. }
        | Step::Inform { .. }
        | Step::Refer { .. }
        | Step::SubscriberRecovery { .. }
        | Step::Prepare { .. }
        | Step::Pause { .. }
        | Step::Finish { .. }
        | Step::BeginPostRecovery { .. } => return None,
    })
}

#[cfg(test)]
mod tests;
