//! There is a determination, and it is to execute. Rules 1 and 6.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let id = facts.determination_id;
    match facts.determination {
        None => Err(Refusal::DeterminationUnknown { id }),
        Some(determination) if !determination.execute => Err(Refusal::DeterminationNegative { id }),
        Some(_) => Ok(()),
    }
}
