//! The determination's number of intents in any 60 minutes.

use super::{CommandFacts, Refusal};

pub(super) fn check(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    let (Some(determination), Some(scope)) = (facts.batch.determination, facts.batch.scope()) else { return Ok(()) };
    let limit = scope.per_hour_max;
    let used = determination.intents_of_last_hour(facts.batch.now);
    if used < limit { Ok(()) } else { Err(Refusal::Rate { limit, used }) }
}
