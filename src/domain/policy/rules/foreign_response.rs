//! No Device has answered a command that was not signed here; or an operator has looked at it since.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some(determination) = facts.determination else { return Ok(()) };
    match determination.foreign {
        Some(entry) => Err(Refusal::ForeignResponse { id: determination.id, entry }),
        None => Ok(()),
    }
}
