//! Nothing is signed by a clock that jumped. Rule 47.

use super::{BatchFacts, Refusal};
use crate::domain::ledger::entry::ClockState;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match facts.clock {
        ClockState::Trusted => Ok(()),
        ClockState::Untrusted => Err(Refusal::Clock),
    }
}
