//! Templates, Devices and limits are settled: in the determination, or in its schedule. Rule 3.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some(determination) = facts.determination else { return Ok(()) };
    if determination.execute && determination.scope.is_none() {
        return Err(Refusal::ScopeOutstanding { id: determination.id });
    }
    Ok(())
}
