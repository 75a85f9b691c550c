//! The determination lists the Device. Rules 3 and 24.

use super::{CommandFacts, Refusal};

pub(super) fn check(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    let known = facts
        .listed
        .is_some_and(|listed| facts.batch.scope().is_some_and(|scope| scope.templates.contains_key(&listed.template)));
    if known {
        Ok(())
    } else {
        Err(Refusal::DeviceOutOfScope { id: facts.batch.determination_id, device: facts.device })
    }
}
