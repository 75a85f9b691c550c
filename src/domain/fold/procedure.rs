//! Pure. The fold of an incident's way through the procedure, and what the procedure looks at in it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Blobs, Fold, FoldError, not_known};
use crate::domain::incident::statuses::{CompareError, Found, compare_all};
use crate::domain::incident::targets::Proof;
use crate::domain::incident::{Determined as Followed, DutyArising, Progress, State, TakeError, Targets};
use crate::domain::ledger::entry::{DeterminationWithdrawn, IncidentClosed};
use crate::domain::ledger::meaning::Meaning;
use crate::domain::ledger::steps::{CompromiseClass, ResponsesTaken, SmiStatus, Step, StepTaken};
use crate::domain::names::{DeterminationId, Digest, FileKind, IncidentId, KeyLabel, KeyUse, StepId};
use crate::domain::policy::facts::{AcceptedFile, DeterminationFacts, IncidentFacts, Standing};
use crate::domain::procedure::in_force::{Determined, IncidentView, Waiting, WithKey};
use crate::domain::responses::{Outcome, ResultLine};
use crate::domain::time::Timestamp;

impl Fold {
    /// The duties that arise with a step, by the procedure of the policy in force.
    fn arising(&self, step: &StepId) -> Vec<DutyArising> {
        let Some(procedure) = self.policy().and_then(|adopted| adopted.policy.procedure()) else { return Vec::new() };
        let duties = procedure.base().duties.iter().filter(|duty| duty.arises_with == *step);
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

    fn files_of(&self, incident: &IncidentId, kind: FileKind) -> impl Iterator<Item = &AcceptedFile> {
        let files = self.incidents.get(incident).map_or(&[][..], |facts| &facts.files);
        files.iter().filter(move |file| file.kind == kind)
    }

    pub(super) fn progress_mut(&mut self, incident: &IncidentId) -> Option<&mut Progress> {
        self.incidents.get_mut(incident).and_then(|facts| facts.progress.as_mut())
    }

    pub(super) fn close_incident(
        &mut self,
        closed: &IncidentClosed,
        index: u64,
        at: Timestamp,
    ) -> Result<(), FoldError> {
        let incident = self.incident_mut(&closed.incident)?;
        if let Some(progress) = &mut incident.progress {
            progress.enter(State::Closed, at);
        }
        incident.closed = Some(closed.reason.clone());
        incident.closed_at = Some(at);
        self.settle(&closed.incident, Meaning::Close, index, at);
        Ok(())
    }

    pub(super) fn withdraw(&mut self, withdrawn: &DeterminationWithdrawn, at: Timestamp) -> Result<(), FoldError> {
        let facts = self.determination_mut(withdrawn.determination)?;
        facts.withdrawn = true;
        let (id, incident) = (facts.id, facts.incident.clone());
        if let Some(progress) = self.progress_mut(&incident)
            && progress.determined.is_some_and(|determined| determined.id == id)
            && !matches!(progress.state, State::Executed | State::PostRecovery | State::Closed)
        {
            progress.withdraw(at);
        }
        Ok(())
    }

    pub(super) fn take_step(
        &mut self,
        taken: &StepTaken,
        index: u64,
        at: Timestamp,
        blobs: &dyn Blobs,
    ) -> Result<(), FoldError> {
        let layout = self.policy().map(|adopted| adopted.policy.layout(FileKind::SmiExtract));
        let progress = self
            .progress_mut(&taken.incident)
            .ok_or_else(|| not_known("incident in the procedure", &taken.incident))?;
        if let (Step::ImportStatuses { extract, .. }, Some(layout)) = (&taken.step, layout) {
            let mut statuses = Vec::new();
            let (targets, source) = (&progress.targets, |piece: &mut dyn FnMut(&[u8])| blobs.stream(*extract, piece));
            let compared = compare_all(targets, &layout, (&taken.incident, at), source, |target, row, found| {
                if let (Found::New, Some((place, _))) = (found, target) {
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
            progress.stranded_accepted = None;
        }
        let list = taken.step.devices().map(|devices| devices.list);
        let named = |piece: &mut dyn FnMut(&[u8])| list.map_or(Ok(()), |list| blobs.stream(list, piece));
        let steps = progress.take(&taken.step, index, at, named).map_err(|error| match error {
            TakeError::Source(error) => FoldError::Book(error),
            TakeError::Targets(error) => FoldError::Document {
                what: "list of Devices",
                digest: list.unwrap_or(Digest([0; 32])),
                reason: error.to_string(),
            },
        })?;
        if taken.carried > 0 {
            let held = self
                .incidents
                .get(&taken.incident)
                .and_then(|facts| facts.progress.as_ref())
                .map(|progress| self.held_elsewhere(&taken.incident, &progress.targets));
            if let Some((progress, held)) = self.progress_mut(&taken.incident).zip(held) {
                progress.targets.record(held);
            }
        }
        for step in steps {
            let arising = self.arising(&step);
            if let Some(progress) = self.progress_mut(&taken.incident) {
                progress.arise(arising, at);
            }
        }
        Ok(())
    }

    /// Of these targets of an incident, those that keep the SMI Status that another incident recorded last, with their places: nothing
    /// but the keys leads out of it, however often a Device is assessed.
    pub fn held_elsewhere(&self, incident: &IncidentId, targets: &Targets) -> Vec<(usize, SmiStatus, Timestamp)> {
        let mut others: Vec<_> = self.incidents.values().filter(|facts| facts.id != *incident).collect();
        others.sort_by_key(|facts| facts.opened);
        targets
            .held_by(others.into_iter().filter_map(|facts| facts.progress.as_ref()).map(|progress| &progress.targets))
    }

    /// A step was taken by an entry of its own: it is done, and the duties arise that the profile has arise with it.
    pub(super) fn settle(&mut self, incident: &IncidentId, step: Meaning, index: u64, at: Timestamp) {
        let arising = self.arising(&step.id());
        if let Some(progress) = self.progress_mut(incident) {
            progress.note_done(step.id(), index, at);
            progress.arise(arising, at);
        }
    }

    /// The PMA determined: what a determination opens begins again.
    pub(super) fn follow(
        &mut self,
        incident: &IncidentId,
        determined: Followed,
        index: u64,
        at: Timestamp,
        blobs: &dyn Blobs,
    ) -> Result<(), FoldError> {
        let procedure = self.policy().and_then(|adopted| adopted.policy.procedure());
        let opened = procedure.into_iter().flat_map(|procedure| &procedure.base().steps);
        let anew: Vec<StepId> = opened.filter(|step| step.needs.is_some()).map(|step| step.id.clone()).collect();
        if let Some(progress) = self.progress_mut(incident) {
            progress.follow(determined, anew, at);
        }
        self.settle(incident, Meaning::Determine, index, at);
        self.list_targets(determined.id, blobs)
    }

    /// The Devices that a determination lists, once its scope is known, are known of the targets too.
    pub(super) fn list_targets(&mut self, id: DeterminationId, blobs: &dyn Blobs) -> Result<(), FoldError> {
        let Some(facts) = self.determinations.get(&id) else { return Ok(()) };
        let Some(list) = facts.scope.as_ref().map(|scope| scope.device_list) else { return Ok(()) };
        let incident = facts.incident.clone();
        let Some(progress) = self.progress_mut(&incident) else { return Ok(()) };
        progress.list(id, |piece: &mut dyn FnMut(&[u8])| blobs.stream(list, piece)).map_err(|error| match error {
            TakeError::Source(error) => FoldError::Book(error),
            TakeError::Targets(error) => {
                FoldError::Document { what: "device list", digest: list, reason: error.to_string() }
            }
        })
    }

    /// What Devices proved by their Responses is known of the targets too.
    pub(super) fn prove_targets(&mut self, taken: &ResponsesTaken, lines: &[ResultLine]) {
        if let Some(progress) = self.progress_mut(&taken.incident) {
            let proofs = lines.iter().filter_map(|line| Some((line.device?, proof(line.outcome)?)));
            progress.prove_all(proofs, taken.determination);
        }
    }

    /// The incident for which the key was activated goes on; where an older daemon named none, all that wait for the key.
    pub(super) fn key_activated(&mut self, key: &KeyLabel, incident: Option<&IncidentId>, index: u64, at: Timestamp) {
        let waiting = match incident {
            Some(incident) => {
                let progress = self.incidents.get(incident).and_then(|facts| facts.progress.as_ref());
                let awaits = progress.is_some_and(|progress| progress.state.awaits_key());
                awaits.then(|| incident.clone()).into_iter().collect()
            }
            None => self.following(Some(key), |progress| progress.state.awaits_key()),
        };
        for incident in waiting {
            if let Some(progress) = self.progress_mut(&incident) {
                progress.enter(State::KeyActive, at);
            }
            self.settle(&incident, Meaning::ActivateKey, index, at);
        }
    }

    /// The incidents that were using this key, or any, stand still.
    pub(super) fn keys_locked(&mut self, key: Option<&KeyLabel>, at: Timestamp) {
        for incident in self.following(key, |progress| progress.state.may_sign()) {
            if let Some(progress) = self.progress_mut(&incident) {
                progress.enter(State::Paused, at);
            }
        }
    }

    /// The incidents that stand so, and whose determination requires this key, or any.
    fn following(&self, key: Option<&KeyLabel>, stands: impl Fn(&Progress) -> bool) -> Vec<IncidentId> {
        let follows = |facts: &&IncidentFacts| {
            let Some(progress) = facts.progress.as_ref().filter(|progress| stands(progress)) else { return false };
            let of = progress.determined.and_then(|determined| self.determinations.get(&determined.id));
            let required = of.and_then(|facts| facts.key.as_ref());
            key.is_none() || required.is_some_and(|(label, _)| Some(label) == key)
        };
        self.incidents.values().filter(follows).map(|facts| facts.id.clone()).collect()
    }

    /// What the procedure looks at in an incident, at a moment.
    pub fn incident_view(&self, incident: &IncidentId, now: Timestamp) -> Option<IncidentView<'static>> {
        let facts = self.incidents.get(incident)?;
        let progress = facts.progress.as_ref();
        let mut done = BTreeSet::from([Meaning::Notify.id()]);
        done.extend(progress.iter().flat_map(|progress| progress.done.keys().cloned()));
        if progress.is_some_and(Progress::wants_report_of_its_end) {
            done.remove(&Meaning::ReportProgress.id());
        }
        let followed = self.followed(facts);
        if followed.is_some() {
            done.insert(Meaning::Determine.id());
        }
        if facts.closed.is_some() {
            done.insert(Meaning::Close.id());
        }
        let to_execute = followed.filter(|facts| facts.execute);
        let departures = self.departures(incident);
        Some(IncidentView {
            determination: self.determined(followed),
            not_in_force: to_execute.and_then(|facts| facts.not_in_force(now)).map(|why| why.to_string().into()),
            begins: to_execute.filter(|facts| facts.standing(now) == Standing::NotYet).map(|facts| facts.window.from),
            method: progress.and_then(|progress| progress.method),
            done,
            waiting: progress.filter(|progress| !progress.targets.is_empty()).map(waiting).unwrap_or_default(),
            arisen: progress.map(|progress| progress.duties.keys().cloned().collect()).unwrap_or_default(),
            departures: departures.iter().map(|departure| (departure.step.clone(), departure.direction)).collect(),
            state: progress.map(|progress| progress.state),
            state_name: match progress {
                Some(progress) => progress.state.as_str(),
                None if facts.closed.is_some() => "closed",
                None => "open",
            },
        })
    }

    /// The determination that an incident follows.
    pub fn followed_by(&self, incident: &IncidentId) -> Option<DeterminationId> {
        self.incidents.get(incident).and_then(|facts| self.followed(facts)).map(|facts| facts.id)
    }

    /// The same, with what is known of it; in one that is in no procedure, the last that still stands.
    fn followed(&self, facts: &IncidentFacts) -> Option<&DeterminationFacts> {
        match &facts.progress {
            Some(progress) => progress.determined.and_then(|determined| self.determinations.get(&determined.id)),
            None => self
                .determinations
                .values()
                .filter(|of| of.incident == facts.id && !of.withdrawn && of.superseded_by.is_none())
                .max_by_key(|of| of.recorded),
        }
    }

    fn determined(&self, followed: Option<&DeterminationFacts>) -> Determined {
        match followed {
            None => Determined::None,
            Some(facts) if !facts.execute => Determined::NotToExecute,
            Some(facts) => {
                let label = facts.key.as_ref().map(|(label, _)| label);
                let used = label.and_then(|label| self.keys.get(label)).map(|key| key.record.use_);
                Determined::Execute(match used {
                    Some(KeyUse::Contingency) => WithKey::Contingency,
                    Some(KeyUse::Recovery | KeyUse::Ledger) | None => WithKey::Recovery,
                })
            }
        }
    }
}

/// For how many Devices each step is still to be taken that is taken Device by Device.
fn waiting(progress: &Progress) -> BTreeMap<StepId, Waiting> {
    let counts = progress.targets.counts();
    BTreeMap::from([
        (Meaning::SetRecovery.id(), Waiting::Wanted(progress.targets.without_recovery())),
        (Meaning::SetRecovered.id(), Waiting::Owed(counts.proven_not_recovered)),
        (Meaning::HandOver.id(), Waiting::Owed(counts.under_dcc_control)),
    ])
}

/// What a message proves of a recovery; none where it says nothing of it.
const fn proof(outcome: Outcome) -> Option<Proof> {
    match outcome {
        Outcome::Recovered => Some(Proof::Succeeded),
        Outcome::Failed => Some(Proof::Failed),
        Outcome::Accepted
        | Outcome::Alert
        | Outcome::Foreign
        | Outcome::Unmatched
        | Outcome::Unverified
        | Outcome::Malformed
        | Outcome::Duplicate
        | Outcome::Contradiction => None,
    }
}
