//! The incident is open.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some(determination) = facts.determination else { return Ok(()) };
    match facts.incident {
        Some(incident) if incident.closed.is_none() => Ok(()),
        Some(_) | None => Err(Refusal::IncidentNotOpen { incident: determination.incident.clone() }),
    }
}
