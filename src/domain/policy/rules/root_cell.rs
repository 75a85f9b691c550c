//! The Recovery Private Key never replaces a root unless the policy says otherwise. Rule 32.

use super::{BatchFacts, Refusal};
use crate::domain::names::KeyUse;
use crate::domain::policy::RootCell;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some(key), Some(scope)) = (facts.key, facts.scope()) else { return Ok(()) };
    if key.record.use_ != KeyUse::Recovery || facts.policy.mode_8().root_cell == RootCell::Permit {
        return Ok(());
    }
    match scope.templates.iter().find(|(_, template)| template.update().replaces_root()) {
        Some((name, _)) => Err(Refusal::RootCell { template: name.clone() }),
        None => Ok(()),
    }
}
