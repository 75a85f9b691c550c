//! Pure. The fold of an incident's way through the procedure.

use std::collections::BTreeSet;

use super::{Blobs, Fold, FoldError, not_known};
use crate::domain::incident::statuses::{CompareError, Found, compare_all};
use crate::domain::incident::targets::Proof;
use crate::domain::incident::{DutyArising, Progress, State, TakeError, step_id};
use crate::domain::ledger::steps::{CompromiseClass, ResponsesTaken, Step, StepTaken};
use crate::domain::names::{Digest, FileKind, IncidentId, KeyLabel};
use crate::domain::policy::facts::AcceptedFile;
use crate::domain::responses::{Outcome, ResultLine};
use crate::domain::time::Timestamp;

impl Fold {
    /// The duties that arise with a step, by the procedure of the policy in force.
    pub(super) fn arising(&self, step: &str) -> Vec<DutyArising> {
        let Some(procedure) = self.policy().and_then(|adopted| adopted.policy.procedure()) else { return Vec::new() };
        let duties = procedure.base().duties.iter().filter(|duty| duty.arises_with.as_str() == step);
        duties
            .map(|duty| DutyArising {
                duty: duty.id.clone(),
                recipient: duty.to.to_string().into(),
                text: duty.text.as_str().into(),
                within_hours: duty
                    .met_by
                    .as_ref()
                    .and_then(|step| procedure.base().step(step))
                    .and_then(|step| step.hours),
                step: duty.met_by.clone(),
            })
            .collect()
    }

    /// The notification files of an incident that go with its class.
    pub fn notifications(&self, incident: &IncidentId, class: CompromiseClass) -> BTreeSet<Digest> {
        let kind = match class {
            CompromiseClass::Organisation => FileKind::OrganisationNotification,
            CompromiseClass::Other => FileKind::OtherNotification,
        };
        self.files_of(incident, kind).map(|file| file.file).collect()
    }

    /// Whether an ADT file was accepted in an incident.
    pub fn adt_accepted(&self, incident: &IncidentId) -> bool {
        self.files_of(incident, FileKind::Adt).next().is_some()
    }

    fn files_of(&self, incident: &IncidentId, kind: FileKind) -> impl Iterator<Item = &AcceptedFile> {
        let files = self.incidents.get(incident).map_or(&[][..], |facts| &facts.files);
        files.iter().filter(move |file| file.kind == kind)
    }

    /// A file was accepted: the step that it is.
    pub(super) fn file_is_step(&mut self, incident: &IncidentId, kind: FileKind, index: u64) {
        let step = match kind {
            FileKind::OrganisationNotification | FileKind::OtherNotification => "submit-notification-file",
            FileKind::Adt => "submit-adt-file",
            FileKind::OrganisationProgress | FileKind::OtherProgress => "report-progress",
            FileKind::SmiExtract | FileKind::SmiExport => return,
        };
        if let Some(progress) = self.progress_mut(incident) {
            progress.done.insert(step_id(step), index);
        }
    }

    pub(super) fn progress_mut(&mut self, incident: &IncidentId) -> Option<&mut Progress> {
        self.incidents.get_mut(incident).and_then(|facts| facts.progress.as_mut())
    }

    pub(super) fn take_step(
        &mut self,
        taken: &StepTaken,
        index: u64,
        at: Timestamp,
        blobs: &dyn Blobs,
    ) -> Result<(), FoldError> {
        let arising = match &taken.step {
            Step::Confirm { .. } | Step::Assess { .. } | Step::Refer { .. } | Step::Prepare { .. } => {
                self.arising(taken.step.meaning().as_str())
            }
            Step::Finish { .. } => self.arising("execute"),
            Step::Dismiss { .. }
            | Step::Inform { .. }
            | Step::SubscriberRecovery { .. }
            | Step::SetStatus { .. }
            | Step::ImportStatuses { .. }
            | Step::Pause { .. }
            | Step::Exclude { .. }
            | Step::BeginPostRecovery { .. }
            | Step::HandOver { .. }
            | Step::AcceptStranded { .. } => Vec::new(),
        };
        let layout = self.policy().map(|adopted| adopted.policy.layout(FileKind::SmiExtract));
        let progress = self
            .progress_mut(&taken.incident)
            .ok_or_else(|| not_known("incident in the procedure", &taken.incident))?;
        if let (Step::ImportStatuses { extract, .. }, Some(layout)) = (&taken.step, layout) {
            let mut statuses = Vec::new();
            let (targets, source) = (&progress.targets, |piece: &mut dyn FnMut(&[u8])| blobs.stream(*extract, piece));
            let compared = compare_all(targets, &layout, (&taken.incident, at), source, |_, row, found| {
                if let (Found::New, Ok(place)) = (found, targets.place(row.device)) {
                    statuses.push((place, row.status, row.from));
                }
            });
            compared.map_err(|error| match error {
                CompareError::Source(error) => FoldError::Book(error),
                CompareError::Faults(faults) => {
                    FoldError::Document { what: "extract", digest: *extract, reason: faults.to_string() }
                }
            })?;
            progress.targets.record(statuses);
        }
        let list = taken.step.devices().map(|devices| devices.list);
        let named = |piece: &mut dyn FnMut(&[u8])| list.map_or(Ok(()), |list| blobs.stream(list, piece));
        progress.take(&taken.step, index, at, named).map_err(|error| match error {
            TakeError::Source(error) => FoldError::Book(error),
            TakeError::Targets(error) => FoldError::Document {
                what: "list of Devices",
                digest: list.unwrap_or(Digest([0; 32])),
                reason: error.to_string(),
            },
        })?;
        progress.arise(arising, at);
        Ok(())
    }

    /// What Devices proved by their Responses is known of the targets too.
    pub(super) fn prove_targets(&mut self, taken: &ResponsesTaken, blobs: &dyn Blobs) -> Result<(), FoldError> {
        let method = self.determinations.get(&taken.determination).and_then(|facts| facts.method);
        let Some(progress) = self.progress_mut(&taken.incident) else { return Ok(()) };
        let (mut part, mut fault) = (Vec::new(), None);
        blobs.stream(taken.results, &mut |piece| {
            for &octet in piece {
                if octet != b'\n' {
                    part.push(octet);
                    continue;
                }
                let line = std::str::from_utf8(&part).map_err(|error| error.to_string()).and_then(ResultLine::parse);
                part.clear();
                match line {
                    Ok(line) => {
                        let proof = match line.outcome {
                            Outcome::Recovered => Proof::Succeeded,
                            Outcome::Failed => Proof::Failed,
                            Outcome::Accepted
                            | Outcome::Alert
                            | Outcome::Foreign
                            | Outcome::Unmatched
                            | Outcome::Unverified
                            | Outcome::Malformed
                            | Outcome::Duplicate
                            | Outcome::Contradiction => continue,
                        };
                        if let Some(device) = line.device {
                            progress.targets.prove(device, proof, method);
                        }
                    }
                    Err(reason) => fault = Some(reason),
                }
            }
        })?;
        match fault {
            None => Ok(()),
            Some(reason) => Err(FoldError::Document { what: "list of results", digest: taken.results, reason }),
        }
    }

    /// The incident for which the key was activated goes on; where an older daemon named none, all that wait for the key.
    pub(super) fn key_activated(&mut self, key: &KeyLabel, incident: Option<&IncidentId>, index: u64, at: Timestamp) {
        let go_on = |progress: &mut Progress| {
            if progress.state.awaits_key() {
                progress.done.insert(step_id("activate-key"), index);
                progress.enter(State::KeyActive, at);
            }
        };
        match incident {
            Some(incident) => self.progress_mut(incident).into_iter().for_each(go_on),
            None => self.following(Some(key)).for_each(go_on),
        }
    }

    /// The incidents that were using this key, or any, stand still.
    pub(super) fn keys_locked(&mut self, key: Option<&KeyLabel>, at: Timestamp) {
        for progress in self.following(key) {
            if progress.state.may_sign() {
                progress.enter(State::Paused, at);
            }
        }
    }

    /// The incidents whose determination requires this key, or any.
    fn following(&mut self, key: Option<&KeyLabel>) -> impl Iterator<Item = &mut Progress> {
        let determinations = &self.determinations;
        self.incidents.values_mut().filter_map(|facts| facts.progress.as_mut()).filter(move |progress| {
            let required = progress
                .determined
                .and_then(|determined| determinations.get(&determined.id))
                .and_then(|facts| facts.key.as_ref());
            key.is_none() || required.is_some_and(|(label, _)| Some(label) == key)
        })
    }
}
