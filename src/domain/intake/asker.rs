//! Pure. Who may act as operator in an incident.

use super::Reasons;
use crate::domain::fold::Fold;
use crate::domain::ledger::entry::{Actor, Reason};
use crate::domain::names::IncidentId;
use crate::domain::policy::separation::Part;

/// Whether whoever asks may act in an incident as its operator: a person of the policy in force who took no other part in it (rule
/// 40). What asks for signatures is decided by [`crate::domain::policy::rules`], which say the same.
///
/// # Errors
/// Every reason against it.
pub fn operator(fold: &Fold, by: &Actor, incident: &IncidentId) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    let policy = fold.policy().map(|adopted| &adopted.policy);
    // A policy of the first version names no Parties and knows no procedure, and under one nobody asked.
    let (names_parties, knows_steps) =
        policy.map_or((false, false), |policy| (!policy.parties().is_empty(), policy.procedure().is_some()));
    match &by.person {
        None => reasons.demand("asker-unknown", !names_parties && !knows_steps, || {
            format!(
                "account {} belongs to nobody whom the policy in force names; a person takes the steps of the procedure: give the \
                 account to one in persons.toml",
                by.account
            )
        }),
        Some(person) => {
            if let Some(facts) = fold.incidents().get(incident).filter(|_| names_parties) {
                reasons.take("separation", facts.parts.check(person, Part::Operator));
            }
        }
    }
    reasons.end(Some(()))
}
