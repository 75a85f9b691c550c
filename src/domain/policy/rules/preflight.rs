//! Before any use the Root OCA Certificate's field was unwrapped with the symmetric key, and gave the key's public half. Rule 33.

use super::{BatchFacts, Refusal};
use crate::domain::ledger::contingency::CheckResult;
use crate::domain::policy::contingency::ContingencyFacts;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some((key, contingency)), Some(determination)) = (facts.generation(), facts.determination) else {
        return Ok(());
    };
    let incident = &determination.incident;
    // That there is no material is said by its own rule.
    let Some(contingency) = contingency.filter(|contingency| contingency.root.is_some()) else { return Ok(()) };
    if contingency.is_checked_for(incident) {
        return Ok(());
    }
    Err(Refusal::NotChecked {
        key: key.record.label.clone(),
        incident: incident.clone(),
        id: facts.determination_id,
        found: found(contingency),
    })
}

/// What the last check came to, if there was one.
fn found(contingency: &ContingencyFacts) -> String {
    let Some(checked) = &contingency.checked else { return String::new() };
    let (entry, incident) = (checked.entry, &checked.incident);
    match &checked.result {
        CheckResult::Matches => format!(" (entry {entry} was for incident {incident})"),
        CheckResult::Differs(text) => format!(", or it differs: entry {entry} found {text}"),
        CheckResult::Failed(text) => format!(", or the check failed: entry {entry} says {text}"),
    }
}
