//! Nothing is signed by a clock that jumped, and by one that was set only where the policy in force says exercise. Rule 47.

use super::{BatchFacts, Refusal};
use crate::domain::ledger::entry::ClockState;
use crate::domain::names::Purpose;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match (facts.clock, facts.policy.purpose()) {
        (ClockState::Trusted, _) | (ClockState::SetForExercise, Purpose::Exercise) => Ok(()),
        (ClockState::SetForExercise, Purpose::Live) => Err(Refusal::ClockSet),
        (ClockState::Untrusted, _) => Err(Refusal::Clock),
    }
}
