//! Pure. What the ledger says about the procedure: directions, and how far an incident has come.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fold, FoldError, known, read};
use crate::domain::determination::document::Written;
use crate::domain::ledger::steps::DirectionRecorded;
use crate::domain::names::{DeterminationId, DirectionId, IncidentId, KeyUse, StepId};
use crate::domain::policy::facts::DeterminationFacts;
use crate::domain::procedure::direction::{Departure, Direction, Directs};
use crate::domain::procedure::in_force::{Determined, IncidentView, WithKey};
use crate::domain::procedure::variation::Extension;
use crate::domain::time::Timestamp;

/// Every direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Directions {
    ids: BTreeSet<DirectionId>,
    extensions: Vec<Extension>,
    departures: BTreeMap<IncidentId, Vec<Departure>>,
}

impl Directions {
    /// Takes in the next.
    pub(super) fn take_in(
        &mut self,
        recorded: &DirectionRecorded,
        at: Timestamp,
        blobs: &dyn super::Blobs,
    ) -> Result<(), FoldError> {
        let document: Written<Direction> = read(recorded.document, blobs)?;
        let form = document.form();
        if !self.ids.insert(form.id) {
            return Err(known("direction", form.id));
        }
        let direction = form.id;
        match &form.directs {
            Directs::Extension { variation, until } => self.extensions.push(Extension {
                direction,
                variation: variation.clone(),
                until: *until,
                reference: form.reference.clone(),
                recorded: at,
            }),
            Directs::Departure { incident, step, reason } => {
                let departure = Departure { direction, step: step.clone(), reason: reason.clone(), recorded: at };
                self.departures.entry(incident.clone()).or_default().push(departure);
            }
        }
        Ok(())
    }
}

/// The meaning of a step that the ledger records by an entry of its own.
fn step(meaning: &str) -> StepId {
    meaning.parse().expect("the meanings named in this file are of the form of a step")
}

impl Fold {
    /// Every extension of a variation, oldest first.
    pub fn extensions(&self) -> &[Extension] {
        &self.directions.extensions
    }

    /// The departures in an incident, oldest first.
    pub fn departures(&self, incident: &IncidentId) -> &[Departure] {
        self.directions.departures.get(incident).map_or(&[], Vec::as_slice)
    }

    /// Whether a direction of that id was taken in.
    pub fn has_direction(&self, id: DirectionId) -> bool {
        self.directions.ids.contains(&id)
    }

    /// How far an incident has come, as far as entries of their own say it: its opening is the notification, and a determination the
    /// SMKI PMA's step.
    pub fn incident_view(&self, incident: &IncidentId, now: Timestamp) -> Option<IncidentView<'static>> {
        let facts = self.incidents.get(incident)?;
        let mut done = BTreeSet::from([step("notify-compromise")]);
        let progress = facts.progress.as_ref();
        done.extend(progress.iter().flat_map(|progress| progress.done.keys().cloned()));
        let determined = self.standing_determination(incident);
        if determined.is_some() {
            done.insert(step("determine"));
        }
        if facts.closed.is_some() {
            done.insert(step("close"));
        }
        let determination = match determined {
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
        };
        let departures = self.departures(incident);
        Some(IncidentView {
            determination,
            not_in_force: determined
                .filter(|facts| facts.execute)
                .and_then(|facts| facts.not_in_force(now))
                .map(|why| why.to_string().into()),
            method: progress.and_then(|progress| progress.method),
            done,
            departures: departures.iter().map(|departure| (departure.step.clone(), departure.direction)).collect(),
            state_name: match progress {
                Some(progress) => progress.state.as_str(),
                None if facts.closed.is_some() => "closed",
                None => "open",
            },
        })
    }

    /// The determination that an incident follows.
    pub fn followed_by(&self, incident: &IncidentId) -> Option<DeterminationId> {
        match &self.incidents.get(incident)?.progress {
            Some(progress) => progress.determined.map(|determined| determined.id),
            None => self.standing_determination(incident).map(|facts| facts.id),
        }
    }

    /// The last determination of an incident that still stands.
    fn standing_determination(&self, incident: &IncidentId) -> Option<&DeterminationFacts> {
        self.determinations
            .values()
            .filter(|facts| facts.incident == *incident && !facts.withdrawn && facts.superseded_by.is_none())
            .max_by_key(|facts| facts.recorded)
    }
}
