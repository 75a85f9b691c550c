//! Pure. No two incidents are about one Private Key at a time: what the one has of its Devices, the other would not know.

use super::Reasons;
use crate::domain::fold::Fold;
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::names::{Digest, IncidentId};

/// Whether what a Root OCA Certificate carries is meant, and not the key that it is of.
pub(super) const fn is_of_contingency(key: Option<OtherKey>) -> bool {
    match key {
        Some(OtherKey::Contingency | OtherKey::ContingencySymmetric) => true,
        Some(OtherKey::Recovery | OtherKey::IssuingOca | OtherKey::RootOca) | None => false,
    }
}

/// Refuses an incident while another one is open about the same public key, in whichever certificate.
pub(super) fn check_no_other(
    fold: &Fold,
    incident: &IncidentId,
    (spki, key): (Digest, Option<OtherKey>),
    reasons: &mut Reasons,
) {
    let mut others = fold.incidents().values().filter(|other| other.id != *incident);
    let open = others.find(|other| {
        other.closed.is_none()
            && other.progress.is_some()
            && other.compromised.spki_sha256 == spki
            && is_of_contingency(other.key) == is_of_contingency(key)
    });
    if let Some(other) = open {
        reasons.add(
            "compromised-known",
            format!(
                "incident {} is open about this certificate, or another of the same key; record there what is new (`smkictl incident \
                 next {}`), or close it first",
                other.id, other.id
            ),
        );
    }
}
