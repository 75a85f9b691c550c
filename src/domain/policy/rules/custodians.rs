//! Those who opened the key still count, and are enough: who ceased since, or whose share is another's now, counts no more at once.
//! Rules 36 and 37.

use super::{BatchFacts, Refusal};
use crate::domain::policy::custodians::Count;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some(key), Some(determination)) = (facts.key, facts.determination) else { return Ok(()) };
    let of = (&determination.incident, facts.determination_id);
    match Count::of_active(facts.policy, key, of, facts.now) {
        Some(count) if !count.is_enough() => {
            Err(Refusal::TooFewCustodians { key: key.record.label.clone(), shortfall: count.shortfall() })
        }
        Some(_) | None => Ok(()),
    }
}
