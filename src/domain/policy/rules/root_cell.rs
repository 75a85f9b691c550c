//! The Recovery Private Key never replaces a root unless the policy says otherwise. Rule 32.

use super::{BatchFacts, Refusal};
use crate::domain::names::KeyUse;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some(key), Some(scope)) = (facts.key, facts.scope()) else { return Ok(()) };
    if key.record.use_ != KeyUse::Recovery {
        return Ok(());
    }
    match scope.templates.iter().find(|(_, template)| template.replaces_root()) {
        Some((name, _)) => Err(Refusal::RootCell { template: name.clone() }),
        None => Ok(()),
    }
}
