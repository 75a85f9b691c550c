//! The Originator Counter rises strictly per key and Device. Rule 31.

use super::{COUNTER_MAX, CommandFacts, Refusal};
use crate::domain::policy::facts::WantedForm;

pub(super) fn check(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    let base = facts.counter_base();
    match facts.form {
        WantedForm::Device if base >= COUNTER_MAX => Err(Refusal::CounterExhausted { base }),
        // The same octets again: the counter stands already.
        WantedForm::Device | WantedForm::Retry => Ok(()),
        WantedForm::PreCommand(_) => {
            let Some(Ok((_, found))) = facts.pre_command else { return Ok(()) };
            let step_max = facts.batch.policy.limits().max_counter_step;
            if *found <= base {
                Err(Refusal::CounterTooLow { base, found: *found })
            } else if *found - base > step_max {
                Err(Refusal::CounterTooHigh { base, found: *found, step_max })
            } else {
                Ok(())
            }
        }
    }
}
