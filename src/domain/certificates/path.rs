//! Pure. The path check: leaf → Issuing OCA → Root, the Root given as trust anchor.
//!
//! A path check of our own because the common ones refuse what GBCS asks for: certificatePolicies marked critical.
//! It follows RFC 5280 section 6 as far as the SMKI goes: no name constraints, no policy mappings, no CRLs.

use der::asn1::ObjectIdentifier;

use super::profile::{Kind, SmkiCertificate};
use super::x509::KeyUsage;
use crate::domain::names::Digest;
use crate::domain::time::Timestamp;

/// Most certificates on a path, the leaf counted and the Root not: DUIS lets a command bring three.
pub const PATH_LEN_MAX: usize = 3;

/// Most certificates that may be offered to build a path from.
pub const OFFERED_MAX: usize = 8; // No official reference; a command brings three.

/// Whether validity matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Every certificate must be valid at this moment.
    At(Timestamp),
    /// Validity is not looked at, as a Device does when told `applyTimeBasedCPVChecks` disapply.
    Disapplied,
}

/// One thing that is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nobody offered is the issuer.
    #[error(
        "{certificate}: expected a certificate of its issuer {issuer} with key identifier {key_identifier} among those given and the Root, found none"
    )]
    NoIssuer {
        /// Whose issuer is missing.
        certificate: String,
        /// The issuer's name.
        issuer: String,
        /// authorityKeyIdentifier in hexadecimal.
        key_identifier: String,
    },
    /// A signature that its issuer did not make.
    #[error("{certificate}: expected a signature by {issuer}, found one that its key does not verify")]
    Signature {
        /// Whose signature.
        certificate: String,
        /// The issuer.
        issuer: String,
    },
    /// The issuer is no CA.
    #[error("{issuer}: expected a CA, found a certificate that may not issue others")]
    NotCa {
        /// The issuer.
        issuer: String,
    },
    /// The issuer may not sign certificates.
    #[error("{issuer}: expected keyUsage keyCertSign, found another")]
    MayNotSign {
        /// The issuer.
        issuer: String,
    },
    /// More CAs below than allowed.
    #[error("{issuer}: expected at most {path_len} CAs below it (pathLenConstraint), found {found}")]
    PathLen {
        /// The issuer.
        issuer: String,
        /// What it allows.
        path_len: u8,
        /// How many there are.
        found: usize,
    },
    /// The path goes on and on.
    #[error("expected at most {PATH_LEN_MAX} certificates below the Root, found more")]
    TooLong,
    /// More certificates were offered than are looked at.
    #[error("expected at most {OFFERED_MAX} certificates to build the path from, found {found}")]
    TooManyOffered {
        /// How many there were.
        found: usize,
    },
    /// No policy runs through the path.
    #[error("expected a certificate policy that runs from the leaf to the Root and is one of {expected}, found none")]
    Policy {
        /// The policies that are accepted.
        expected: String,
    },
    /// Not valid at the moment.
    #[error("{certificate}: expected to be valid at {at}, found validity from {not_before} to {not_after}")]
    NotInForce {
        /// Which.
        certificate: String,
        /// The moment.
        at: Timestamp,
        /// Its first second.
        not_before: Timestamp,
        /// Its last second.
        not_after: Timestamp,
    },
    /// The trust anchor is no CA of the SMKI.
    #[error("trust anchor {anchor}: expected a Root OCA, an Issuing OCA or a Device CA, found {kind}")]
    Anchor {
        /// Its name.
        anchor: String,
        /// What it is.
        kind: String,
    },
}

/// Everything that is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certification path of {leaf} (SHA-256 {sha256}): {}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct PathError {
    /// Whose path.
    pub leaf: String,
    /// The leaf's SHA-256.
    pub sha256: Digest,
    /// At least one.
    pub faults: Vec<PathFault>,
}

/// Checks the path from `leaf` to `anchor` over the certificates `offered`, in any order. An offered certificate that is not
/// on the path does no harm.
///
/// # Shape
/// Answers the path below the anchor, leaf first: 1 to [`PATH_LEN_MAX`] certificates.
///
/// # Errors
/// [`PathError`] with every fault: signature, chaining of names and key identifiers, CA and path length, keyUsage, policies
/// (one of `policies` must run from leaf to anchor; an empty list lets nothing through) and validity at `time`.
///
/// # Source
/// RFC 5280 section 6; GBCS section 12.
pub fn check<'a>(
    leaf: &'a SmkiCertificate,
    offered: &'a [SmkiCertificate],
    anchor: &SmkiCertificate,
    policies: &[ObjectIdentifier],
    time: Time,
) -> Result<Vec<&'a SmkiCertificate>, PathError> {
    let mut faults = Vec::new();
    if offered.len() > OFFERED_MAX {
        faults.push(PathFault::TooManyOffered { found: offered.len() });
    }
    if !anchor.is_ca() {
        faults.push(PathFault::Anchor { anchor: named(anchor), kind: anchor.kind().to_string() });
    }
    let mut path = vec![leaf];
    let mut current = leaf;
    while faults.is_empty() {
        let cas_below = path.iter().filter(|certificate| certificate.is_ca()).count();
        // The anchor itself may be asked about, as a Root that a command replaces: it is its own issuer.
        if issued(anchor, current) {
            step(current, anchor, cas_below, &mut faults);
            break;
        }
        let Some(issuer) = offered.iter().find(|candidate| issued(candidate, current)) else {
            let key_identifier = current.authority_key_identifier().map_or("(none)".to_owned(), hex::encode_upper);
            let issuer = current.issuer_text();
            faults.push(PathFault::NoIssuer { certificate: named(current), issuer, key_identifier });
            break;
        };
        if path.len() == PATH_LEN_MAX {
            faults.push(PathFault::TooLong);
            break;
        }
        step(current, issuer, cas_below, &mut faults);
        path.push(issuer);
        current = issuer;
    }
    let runs_through = |policy: &&ObjectIdentifier| path.iter().all(|on_path| on_path.policies().contains(policy));
    if !policies.iter().any(|policy| runs_through(&policy)) {
        let expected = policies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        faults.push(PathFault::Policy { expected });
    }
    if let Time::At(at) = time {
        let expired = path.iter().copied().chain([anchor]).filter(|on_path| !on_path.is_in_force(at));
        faults.extend(expired.map(|certificate| PathFault::NotInForce {
            certificate: named(certificate),
            at,
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        }));
    }
    if faults.is_empty() { Ok(path) } else { Err(PathError { leaf: named(leaf), sha256: leaf.sha256(), faults }) }
}

/// Whether `issuer` is who `certificate` says issued it, by name and by key identifier. Its signature is not looked at.
pub fn issued(issuer: &SmkiCertificate, certificate: &SmkiCertificate) -> bool {
    let self_signed_without = certificate.authority_key_identifier().is_none() && certificate.kind() == Kind::RootOca;
    issuer.subject() == certificate.issuer()
        && (certificate.authority_key_identifier() == Some(issuer.subject_key_identifier()) || self_signed_without)
}

/// What one issuer must be for the certificate below it.
fn step(below: &SmkiCertificate, issuer: &SmkiCertificate, cas_below: usize, faults: &mut Vec<PathFault>) {
    if !issuer.is_ca() {
        faults.push(PathFault::NotCa { issuer: named(issuer) });
    }
    if !matches!(issuer.key_usage(), Ok(Some(usage)) if usage.intersects(KeyUsage::KEY_CERT_SIGN)) {
        faults.push(PathFault::MayNotSign { issuer: named(issuer) });
    }
    if let Some(path_len) = issuer.path_len()
        && cas_below > usize::from(path_len)
        && below.sha256() != issuer.sha256()
    {
        faults.push(PathFault::PathLen { issuer: named(issuer), path_len, found: cas_below });
    }
    if !issuer.key().verifies_der(below.body(), below.signature()) {
        faults.push(PathFault::Signature { certificate: named(below), issuer: named(issuer) });
    }
}

fn named(certificate: &SmkiCertificate) -> String {
    match certificate.kind() {
        kind @ (Kind::Device { .. } | Kind::Organisation { .. }) => kind.to_string(),
        kind @ (Kind::IssuingOca | Kind::RootOca | Kind::DeviceCa) => {
            format!("{kind} ({})", certificate.subject_text())
        }
    }
}
