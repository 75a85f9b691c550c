//! Pure. The fold of an incident's way through the procedure.

use super::{Blobs, Fold, FoldError, not_known};
use crate::domain::incident::targets::Proof;
use crate::domain::incident::{DutyArising, Moment, Progress, State, TakeError};
use crate::domain::ledger::steps::{ResponsesTaken, Step, StepTaken};
use crate::domain::names::{IncidentId, KeyLabel};
use crate::domain::responses::{Outcome, ResultLine};
use crate::domain::time::Timestamp;

impl Fold {
    /// The duties that arise at a moment, by the procedure of the policy in force.
    pub(super) fn arising(&self, moment: Moment) -> Vec<DutyArising> {
        let procedure = self.policy().and_then(|adopted| adopted.policy.procedure());
        procedure.map(|procedure| procedure.duties_arising(moment)).unwrap_or_default()
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
            Step::Confirm { .. } => self.arising(Moment::Confirmed),
            Step::Finish { .. } => self.arising(Moment::Executed),
            Step::BeginPostRecovery { .. } => self.arising(Moment::Closing),
            Step::Dismiss { .. }
            | Step::Assess { .. }
            | Step::Inform { .. }
            | Step::Refer { .. }
            | Step::SubscriberRecovery { .. }
            | Step::SetStatus { .. }
            | Step::Prepare { .. }
            | Step::Pause { .. }
            | Step::Exclude { .. }
            | Step::HandOver { .. }
            | Step::AcceptStranded { .. } => Vec::new(),
        };
        let progress =
            self.progress_mut(&taken.incident).ok_or_else(|| not_known("incident in the procedure", &taken.incident))?;
        let list = taken.step.devices().map(|devices| devices.list);
        let named = |piece: &mut dyn FnMut(&[u8])| list.map_or(Ok(()), |list| blobs.stream(list, piece));
        progress.take(&taken.step, index, at, named).map_err(|error| match error {
            TakeError::Source(error) => FoldError::Book(error),
            TakeError::Targets(error) => FoldError::Document {
                what: "list of Devices",
                digest: list.unwrap_or_default(),
                reason: error.to_string(),
            },
        })?;
        progress.arise(arising, at);
        Ok(())
    }

    /// What Devices proved by their Responses is known of the targets too.
    pub(super) fn prove_targets(&mut self, taken: &ResponsesTaken, blobs: &dyn Blobs) -> Result<(), FoldError> {
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
                            progress.targets.prove(device, proof);
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

    /// The incidents that wait for this key go on.
    pub(super) fn key_activated(&mut self, key: &KeyLabel, at: Timestamp) {
        for progress in self.following(Some(key)) {
            if matches!(progress.state, State::Prepared | State::Paused) {
                progress.enter(State::KeyActive, at);
            }
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
