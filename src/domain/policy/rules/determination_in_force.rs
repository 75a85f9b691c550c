//! The determination is in force at this moment. Rules 1 and 9.

use super::{BatchFacts, Refusal};

pub(super) fn check_window(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some(determination) = facts.determination else { return Ok(()) };
    if determination.window.contains(facts.now) {
        return Ok(());
    }
    Err(Refusal::Window { id: determination.id, window: determination.window, now: facts.now })
}

pub(super) fn check_suspension(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some(determination) = facts.determination else { return Ok(()) };
    match determination.suspended_until {
        Some(until) if facts.now < until => Err(Refusal::Suspended { id: determination.id, until }),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn check_withdrawal(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some(determination) = facts.determination else { return Ok(()) };
    if determination.withdrawn { Err(Refusal::Withdrawn { id: determination.id }) } else { Ok(()) }
}

pub(super) fn check_supersession(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some(determination) = facts.determination else { return Ok(()) };
    match determination.superseded_by {
        Some(by) => Err(Refusal::Superseded { id: determination.id, by }),
        None => Ok(()),
    }
}
