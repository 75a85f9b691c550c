//! No Device has answered a command of this key that was not signed here, under whichever determination that came to be known; or an
//! operator has looked at it since.

use super::{BatchFacts, Refusal};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match (facts.key, facts.stopped_by) {
        (Some(key), Some((id, entry))) => Err(Refusal::ForeignResponse { key: key.record.label.clone(), id, entry }),
        (None, _) | (_, None) => Ok(()),
    }
}
