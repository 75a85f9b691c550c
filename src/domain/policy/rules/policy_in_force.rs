//! The policy that came into force since carries the determination over.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some(determination) = facts.determination else { return Ok(()) };
    match determination.dropped_by_policy {
        Some(policy) => Err(Refusal::NotCarriedOver { id: determination.id, policy }),
        None => Ok(()),
    }
}
