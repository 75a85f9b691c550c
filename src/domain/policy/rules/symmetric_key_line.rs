//! The determination releases the symmetric key of this very generation: it says so, and names the Root OCA Certificate that carries it.
//! Rules 1, 2 and 28.

use super::{BatchFacts, Refusal};
use crate::domain::determination::document::SymmetricKeyLine;
use crate::domain::names::DeterminationId;
use crate::domain::policy::facts::KeyFacts;
use crate::domain::policy::{Policy, WrapWithTrusted};

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some((key, _)), Some(determination)) = (facts.generation(), facts.determination) else { return Ok(()) };
    check_line(key, determination.symmetric_key.as_ref(), facts.determination_id, facts.policy)
}

/// Whether a line is about the generation of a contingency key, and that is as the policy wants it.
pub fn check_line(
    facts: &KeyFacts,
    line: Option<&SymmetricKeyLine>,
    id: DeterminationId,
    policy: &Policy,
) -> Result<(), Refusal> {
    let key = facts.record.label.clone();
    let Some(line) = line else { return Err(Refusal::NoSymmetricKeyLine { id, key }) };
    let Some((contingency, found)) = facts.contingency.as_ref().and_then(|facts| Some((facts, facts.root?))) else {
        return Err(Refusal::NoContingencyRoot { key });
    };
    let wanted = policy.key(&key).and_then(|key| key.contingency).map(|of| of.wrap_with_trusted);
    if line.root_sha256 != found {
        Err(Refusal::OtherContingencyRoot { id, key, determined: line.root_sha256, found })
    } else if wanted != Some(WrapWithTrusted::NotEnforced) && !contingency.prepared.wrap_with_trusted {
        Err(Refusal::NotWrappedWithTrusted { key })
    } else {
        Ok(())
    }
}
