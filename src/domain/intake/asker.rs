//! Pure. Who may act as operator in an incident.

use super::Reasons;
use crate::domain::fold::Fold;
use crate::domain::ledger::entry::{Actor, Reason};
use crate::domain::names::{IncidentId, PersonId};
use crate::domain::policy::separation::Part;

/// Whether whoever asks may act in an incident as its operator: a person of the policy in force who took no other part in it (rule
/// 40). What asks for signatures is decided by [`crate::domain::policy::rules`], which say the same.
///
/// # Errors
/// Every reason against it.
pub fn operator(fold: &Fold, by: &Actor, incident: &IncidentId) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    if let Some(person) = person(fold, by)? {
        let names_parties = fold.policy().is_some_and(|adopted| !adopted.policy.parties().is_empty());
        if let Some(facts) = fold.incidents().get(incident).filter(|_| names_parties) {
            reasons.take("separation", facts.parts.check(person, Part::Operator));
        }
    }
    reasons.end(Some(()))
}

/// The person who asks. A policy of the first version names no Parties and knows no procedure, and under one nobody asked: there it
/// may be none.
///
/// # Errors
/// The account is nobody's whom the policy in force names.
pub fn person<'a>(fold: &Fold, by: &'a Actor) -> Result<Option<&'a PersonId>, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let policy = fold.policy().map(|adopted| &adopted.policy);
    let asks = policy.is_some_and(|policy| !policy.parties().is_empty() || policy.procedure().is_some());
    reasons.demand("asker-unknown", by.person.is_some() || !asks, || {
        format!(
            "account {} belongs to nobody whom the policy in force names; a person answers for it: give the account to one in \
             persons.toml",
            by.account
        )
    });
    reasons.end(Some(by.person.as_ref()))
}
