//! The key is active at this moment. Rule 39.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match facts.key {
        Some(key) if !key.is_active(facts.now) => Err(Refusal::KeyLocked { key: key.record.label.clone() }),
        Some(_) | None => Ok(()),
    }
}
