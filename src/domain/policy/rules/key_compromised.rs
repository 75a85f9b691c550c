//! A key that is, or may be, Compromised itself is not used any more. Rules 1 and 34, and SEC Appendix L 6.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match (facts.key, facts.compromised_in) {
        (Some(key), Some(incident)) => {
            Err(Refusal::KeyCompromised { key: key.record.label.clone(), incident: incident.clone() })
        }
        (None, _) | (_, None) => Ok(()),
    }
}
