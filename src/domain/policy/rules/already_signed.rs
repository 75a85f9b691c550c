//! One live command per Device under a determination. Rule 26.

use super::{CommandFacts, Refusal};
use crate::domain::policy::facts::{IntentState, WantedForm};

pub(super) fn check(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    let Some(last) = facts.last else { return Ok(()) };
    let (device, intent) = (facts.device, last.intent);
    let same = last.determination == facts.batch.determination_id;
    match (last.state, facts.form) {
        (IntentState::Open, _) => Err(Refusal::InFlight { device, intent }),
        (IntentState::Signed, _) if same => Err(Refusal::AlreadySigned { device, intent }),
        (IntentState::Unknown, WantedForm::Device | WantedForm::PreCommand(_)) if same => {
            Err(Refusal::OutcomeUnknown { device, intent })
        }
        (IntentState::Left, _) if same => Err(Refusal::LeftUnknown { device, intent }),
        (
            IntentState::Signed
            | IntentState::Unknown
            | IntentState::Left
            | IntentState::Failed
            | IntentState::NotSigned,
            _,
        ) => Ok(()),
    }
}
