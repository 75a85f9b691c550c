//! A Contingency Symmetric Key is of one incident: its first release bars it from every other. Rule 34.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some((key, Some(contingency))), Some(determination)) = (facts.generation(), facts.determination) else {
        return Ok(());
    };
    match contingency.spent_elsewhere(&determination.incident) {
        Some(spent) => Err(Refusal::SpentElsewhere { key: key.record.label.clone(), spent: spent.clone() }),
        None => Ok(()),
    }
}
