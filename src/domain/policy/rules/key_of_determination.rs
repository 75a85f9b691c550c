//! The key is the one that the determination requires, and has its certificate. Rules 1 and 2.

use super::{BatchFacts, Refusal};
use crate::domain::names::KeyUse;

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some((label, determined)) = facts.determination.and_then(|determination| determination.key.as_ref()) else {
        return Ok(());
    };
    let Some(key) = facts.key else { return Err(Refusal::KeyUnknown { key: label.clone() }) };
    if key.record.label != *label || key.record.spki_sha256 != *determined {
        return Err(Refusal::KeyDiffers { key: label.clone(), determined: *determined, found: key.record.spki_sha256 });
    }
    Ok(())
}

pub(super) fn check_certificate(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    match facts.key {
        // The Contingency Private Key has none: the Root OCA Certificate carries its public half.
        Some(key) if key.certificate.is_none() && key.record.use_ != KeyUse::Contingency => {
            Err(Refusal::KeyWithoutCertificate { key: key.record.label.clone() })
        }
        Some(_) | None => Ok(()),
    }
}
