//! Pure. What the ledger says about the procedure: directions.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::{Fold, FoldError, known, read};
use crate::domain::determination::document::Written;
use crate::domain::ledger::steps::DirectionRecorded;
use crate::domain::names::{DirectionId, IncidentId};
use crate::domain::procedure::direction::{Departure, Direction, Directs};
use crate::domain::procedure::variation::Extension;
use crate::domain::time::Timestamp;

/// Every direction.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

    /// In which incident a direction departs from a step, if it does.
    pub(super) fn departed_in(&self, direction: DirectionId) -> Option<IncidentId> {
        let mut all = self.departures.iter();
        let found = all.find(|(_, departures)| departures.iter().any(|departure| departure.direction == direction));
        found.map(|(incident, _)| incident.clone())
    }
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
}
