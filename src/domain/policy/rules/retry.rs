//! An unknown may be signed again only as the same octets with the same counter, within the determination's retry limit.

use super::{CommandFacts, Refusal};
use crate::domain::policy::facts::{IntentState, WantedForm};

pub(super) fn check(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    match facts.form {
        WantedForm::Device | WantedForm::PreCommand(_) => return Ok(()),
        WantedForm::Retry => {}
    }
    let device = facts.device;
    let unknown = facts
        .last
        .filter(|last| last.state == IntentState::Unknown && last.determination == facts.batch.determination_id);
    let (Some(last), Some(scope)) = (unknown, facts.batch.scope()) else {
        return Err(Refusal::NothingUnknown { device });
    };
    // The first attempt is no retry.
    let used = last.attempt.saturating_sub(1);
    if used < scope.retries_max {
        Ok(())
    } else {
        Err(Refusal::RetriesSpent { device, limit: scope.retries_max, used })
    }
}
