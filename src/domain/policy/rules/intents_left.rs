//! The determination's number of intents in all. Limits count intents, never outcomes. Rules 3 and 26.

use super::{CommandFacts, Refusal};

pub(super) fn check(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    let (Some(determination), Some(scope)) = (facts.batch.determination, facts.batch.scope()) else { return Ok(()) };
    let used = determination.intents;
    if used < scope.intents_max { Ok(()) } else { Err(Refusal::IntentsSpent { limit: scope.intents_max, used }) }
}
