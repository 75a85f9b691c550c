//! Who may ask: an operator, and nobody who approved. Rules 40 and 44.

use super::{BatchFacts, Refusal};
use crate::domain::ledger::entry::Role;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match facts.by.role {
        Role::Operator => Ok(()),
        role @ (Role::Auditor | Role::Account | Role::Ceremony | Role::Daemon) => {
            Err(Refusal::Asker { account: facts.by.account.clone(), role })
        }
    }
}

pub(super) fn check_separation(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some(person), Some(determination)) = (&facts.by.person, facts.determination) else { return Ok(()) };
    if determination.approvers.contains(person) {
        return Err(Refusal::AskerApproved { person: person.clone() });
    }
    Ok(())
}
