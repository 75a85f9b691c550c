//! The key may be used for the mode of every template. Rule 27.

use super::{BatchFacts, Refusal};
use crate::domain::names::KeyUse;

/// The one mode that a use can ever have, whatever a policy says.
const fn mode_of(use_: KeyUse) -> Option<u8> {
    match use_ {
        KeyUse::Ledger => None,
        KeyUse::Recovery => Some(8),
        KeyUse::Contingency => Some(9),
    }
}

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some(key), Some(scope)) = (facts.key, facts.scope()) else { return Ok(()) };
    let label = &key.record.label;
    let of_policy = facts.policy.key(label).map(|key| key.modes.clone()).unwrap_or_default();
    let permitted: Vec<u8> = of_policy.into_iter().filter(|mode| Some(*mode) == mode_of(key.record.use_)).collect();
    for template in scope.templates.values() {
        let mode = template.mode().code();
        if !permitted.contains(&mode) {
            return Err(Refusal::ModeNotPermitted { key: label.clone(), mode, permitted });
        }
    }
    Ok(())
}
