//! The determination is the one that the incident follows. Rules 1 and 3.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some((incident, progress)) = facts.incident.and_then(|facts| Some((facts, facts.progress.as_ref()?))) else {
        return Ok(());
    };
    let follows = progress.determined.map(|determined| determined.id);
    if follows == Some(facts.determination_id) {
        return Ok(());
    }
    Err(Refusal::NotFollowed { id: facts.determination_id, incident: incident.id.clone() })
}
