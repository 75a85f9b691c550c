//! The key is active at this moment, and for this incident. Rule 39.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match facts.key {
        Some(key) if !key.is_active(facts.now) => Err(Refusal::KeyLocked { key: key.record.label.clone() }),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn check_incident(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some(key), Some(determination)) = (facts.key, facts.determination) else { return Ok(()) };
    match &key.active_for {
        Some(incident) if *incident != determination.incident => Err(Refusal::KeyOfAnotherIncident {
            key: key.record.label.clone(),
            active_for: incident.clone(),
            incident: determination.incident.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}
