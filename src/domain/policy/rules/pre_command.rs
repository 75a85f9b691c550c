//! A pre-command made elsewhere equals the template octet for octet but for Device and counter. Rules 3 and 27.

use super::{CommandFacts, Refusal};

pub(super) fn check_template(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    match (facts.pre_command, facts.listed) {
        (Some(Err(mismatch)), Some(listed)) => {
            Err(Refusal::NotTheTemplate { template: listed.template.clone(), mismatch: mismatch.clone() })
        }
        (Some(Ok(_)) | None, _) | (Some(Err(_)), None) => Ok(()),
    }
}

pub(super) fn check_originator(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    let (Some(Ok((found, _))), Some(key)) = (facts.pre_command, facts.batch.key) else { return Ok(()) };
    match key.originator(facts.batch.policy) {
        Some(expected) if expected != *found => {
            Err(Refusal::Originator { key: key.record.label.clone(), expected, found: *found })
        }
        Some(_) | None => Ok(()),
    }
}
