//! Who may ask: an operator whom the policy knows, and nobody who approved or took another part. Rules 40 and 44.

use super::{BatchFacts, Refusal};
use crate::domain::ledger::entry::Role;
use crate::domain::policy::separation::Part;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match facts.by.role {
        Role::Operator => Ok(()),
        role @ (Role::Auditor | Role::Account | Role::Ceremony | Role::Daemon) => {
            Err(Refusal::Asker { account: facts.by.account.clone(), role })
        }
    }
}

/// An account that the policy gives to nobody could be an approver's second one.
pub(super) fn check_person(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match (facts.by.role, &facts.by.person) {
        (Role::Operator, None) => Err(Refusal::AskerUnknown { account: facts.by.account.clone() }),
        (Role::Operator, Some(_)) | (Role::Auditor | Role::Account | Role::Ceremony | Role::Daemon, _) => Ok(()),
    }
}

pub(super) fn check_separation(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some(person), Some(determination)) = (&facts.by.person, facts.determination) else { return Ok(()) };
    if determination.approvers.contains(person) {
        return Err(Refusal::AskerApproved { person: person.clone() });
    }
    // Under a policy of the first version, which names no Parties, nobody asked for more.
    match facts.incident {
        Some(incident) if !facts.policy.parties().is_empty() => {
            incident.parts.check(person, Part::Operator).map_err(Refusal::Separation)
        }
        Some(_) | None => Ok(()),
    }
}
