//! The daemon holds the Contingency Symmetric Key, released under this very determination. Rules 28 and 34.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some((key, contingency)) = facts.generation() else { return Ok(()) };
    if contingency.and_then(|contingency| contingency.released) == Some(facts.determination_id) {
        return Ok(());
    }
    Err(Refusal::SymmetricKeyNotReleased { key: key.record.label.clone(), id: facts.determination_id })
}
