//! The determination releases the symmetric key of this very generation: it says so, and names the Root OCA Certificate that carries it.
//! Rules 1, 2 and 28.

use super::{BatchFacts, Refusal};
use crate::domain::policy::WrapWithTrusted;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some((key, contingency)) = facts.generation() else { return Ok(()) };
    let (id, key) = (facts.determination_id, key.record.label.clone());
    let Some(line) = facts.determination.and_then(|determination| determination.symmetric_key.as_ref()) else {
        return Err(Refusal::NoSymmetricKeyLine { id, key });
    };
    let Some((contingency, root)) = contingency.and_then(|facts| Some((facts, facts.root?))) else {
        return Err(Refusal::NoContingencyRoot { key });
    };
    let wanted = facts.policy.key(&key).and_then(|key| key.contingency.as_ref()).map(|of| of.wrap_with_trusted);
    if line.root_sha256 != root {
        Err(Refusal::OtherContingencyRoot { id, key, determined: line.root_sha256, found: root })
    } else if wanted != Some(WrapWithTrusted::NotEnforced) && !contingency.prepared.wrap_with_trusted {
        Err(Refusal::NotWrappedWithTrusted { key })
    } else {
        Ok(())
    }
}
