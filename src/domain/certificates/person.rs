//! Pure. The certificate of a person who signs documents: a PMA member, a Key Custodian.
//!
//! Such a certificate is none of the SMKI's: it may come from any CA that the policy names. What counts is the key, which the
//! policy pins; the path shows that the named CA vouches for it still.

use der::asn1::ObjectIdentifier;

use super::signature::PublicKeyError;
use super::x509::{
    AUTHORITY_KEY_IDENTIFIER, BASIC_CONSTRAINTS, CERTIFICATE_POLICIES, Certificate, EXTENDED_KEY_USAGE, KEY_USAGE,
    KeyUsage, SUBJECT_ALT_NAME, SUBJECT_KEY_IDENTIFIER,
};
use crate::domain::names::Digest;
use crate::domain::time::Timestamp;

/// Most CAs above a person, the named one counted: person → CA, or person → CA → named CA.
pub const CAS_MAX: usize = 2; // No official reference; fewer to go wrong.

/// One thing that is wrong with a person's certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersonFault {
    /// The key is not on P-256.
    #[error("{subject}: {fault}")]
    Key {
        /// Whose.
        subject: String,
        /// What is wrong with it.
        fault: PublicKeyError,
    },
    /// The certificate's signature is not ECDSA over P-256.
    #[error("{subject}: expected a signature ecdsa-with-SHA256 by a P-256 key, found {found}")]
    Algorithm {
        /// Whose.
        subject: String,
        /// What it says.
        found: ObjectIdentifier,
    },
    /// Not valid at the moment.
    #[error(
        "{subject}: expected to be valid at {at}, found validity from {not_before} to {not_after}; sign with a certificate in force"
    )]
    NotInForce {
        /// Whose.
        subject: String,
        /// The moment.
        at: Timestamp,
        /// Its first second.
        not_before: Timestamp,
        /// Its last second.
        not_after: Timestamp,
    },
    /// keyUsage forbids signing documents.
    #[error("{subject}: expected keyUsage digitalSignature or nonRepudiation, or none, found {found}")]
    MayNotSign {
        /// Whose.
        subject: String,
        /// What it says.
        found: KeyUsage,
    },
    /// A person's certificate that could issue others.
    #[error("{subject}: expected a person's certificate, found a CA's")]
    IsCa {
        /// Whose.
        subject: String,
    },
    /// The issuer is no CA.
    #[error("{issuer}: expected a CA (basicConstraints cA TRUE, keyUsage keyCertSign), found none")]
    NotCa {
        /// The issuer.
        issuer: String,
    },
    /// More CAs below than allowed.
    #[error("{issuer}: expected at most {path_len} CAs below it (pathLenConstraint), found 1")]
    PathLen {
        /// The issuer.
        issuer: String,
        /// What it allows.
        path_len: u8,
    },
    /// A critical extension that is not understood here.
    #[error("{subject}: expected no critical extension that is unknown here, found {id}")]
    UnknownCritical {
        /// Whose.
        subject: String,
        /// Which.
        id: ObjectIdentifier,
    },
    /// An extension that cannot be read.
    #[error("{subject}: {fault}")]
    Extension {
        /// Whose.
        subject: String,
        /// What is wrong with it.
        fault: super::DerFault,
    },
    /// No way to a named CA.
    #[error(
        "{subject}: expected its issuer {issuer} to be one of the CAs that the policy names, or to be issued by one and \
         to be in the file, found no such certificate with a key that verifies the signature"
    )]
    NoPath {
        /// Whose.
        subject: String,
        /// The issuer's name.
        issuer: String,
    },
}

/// Everything that is wrong with a person's certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate of {subject:?} (SHA-256 {sha256}): {}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct PersonError {
    /// Whose.
    pub subject: String,
    /// Its SHA-256.
    pub sha256: Digest,
    /// At least one.
    pub faults: Vec<PersonFault>,
}

/// Checks that a CA among `anchors` vouches at `at` for a person's certificate, directly or through one CA among `others`
/// (what came embedded with a signature). Answers the named CA.
///
/// # Errors
/// [`PersonError`] with every fault.
///
/// # Source
/// RFC 5280 section 6, without policies and revocation: a person is taken off the roster by policy.
pub fn check_person_certificate<'a>(
    certificate: &Certificate,
    others: &[Certificate],
    anchors: &'a [Certificate],
    at: Timestamp,
) -> Result<&'a Certificate, PersonError> {
    let mut faults = Vec::new();
    examine(certificate, at, &mut faults);
    if matches!(certificate.basic_constraints(), Ok(Some(constraints)) if constraints.ca) {
        faults.push(PersonFault::IsCa { subject: certificate.subject_text() });
    }
    if let Ok(Some(found)) = certificate.key_usage()
        && !found.intersects(KeyUsage::DIGITAL_SIGNATURE)
        && !found.intersects(KeyUsage::NON_REPUDIATION)
    {
        faults.push(PersonFault::MayNotSign { subject: certificate.subject_text(), found });
    }
    let anchor = find_anchor(certificate, others, anchors, at, &mut faults);
    match anchor {
        Some(anchor) if faults.is_empty() => Ok(anchor),
        Some(_) | None => {
            Err(PersonError { subject: certificate.subject_text(), sha256: certificate.sha256(), faults })
        }
    }
}

fn find_anchor<'a>(
    certificate: &Certificate,
    others: &[Certificate],
    anchors: &'a [Certificate],
    at: Timestamp,
    faults: &mut Vec<PersonFault>,
) -> Option<&'a Certificate> {
    if let Some(anchor) = anchors.iter().find(|anchor| issued(anchor, certificate)) {
        examine_ca(anchor, 0, at, faults);
        return Some(anchor);
    }
    for ca in others.iter().filter(|ca| issued(ca, certificate)) {
        if let Some(anchor) = anchors.iter().find(|anchor| issued(anchor, ca)) {
            examine_ca(ca, 0, at, faults);
            examine_ca(anchor, 1, at, faults);
            return Some(anchor);
        }
    }
    let (subject, issuer) = (certificate.subject_text(), certificate.issuer_text());
    faults.push(PersonFault::NoPath { subject, issuer });
    None
}

/// Whether `issuer` issued `certificate`: the names chain and the signature verifies.
fn issued(issuer: &Certificate, certificate: &Certificate) -> bool {
    issuer.subject() == certificate.issuer()
        && certificate.is_signed_with_ecdsa_sha256()
        && issuer.public_key().is_ok_and(|key| key.verifies_der(certificate.body(), certificate.signature()))
}

/// What holds for every certificate on the way, the named CA's included.
fn examine(certificate: &Certificate, at: Timestamp, faults: &mut Vec<PersonFault>) {
    const KNOWN: [ObjectIdentifier; 7] = [
        KEY_USAGE,
        BASIC_CONSTRAINTS,
        SUBJECT_ALT_NAME,
        SUBJECT_KEY_IDENTIFIER,
        AUTHORITY_KEY_IDENTIFIER,
        CERTIFICATE_POLICIES,
        EXTENDED_KEY_USAGE,
    ];
    let subject = certificate.subject_text();
    if let Err(fault) = certificate.public_key() {
        faults.push(PersonFault::Key { subject: subject.clone(), fault });
    }
    if !certificate.is_signed_with_ecdsa_sha256() {
        faults.push(PersonFault::Algorithm { subject: subject.clone(), found: certificate.algorithm() });
    }
    if !certificate.is_in_force(at) {
        let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
        faults.push(PersonFault::NotInForce { subject: subject.clone(), at, not_before, not_after });
    }
    let unknown = certificate.extensions().iter().filter(|e| e.critical && !KNOWN.contains(&e.id));
    faults.extend(unknown.map(|e| PersonFault::UnknownCritical { subject: subject.clone(), id: e.id }));
    let unreadable = [certificate.key_usage().err(), certificate.basic_constraints().err()];
    let extension = |fault| PersonFault::Extension { subject: subject.clone(), fault };
    faults.extend(unreadable.into_iter().flatten().map(extension));
}

fn examine_ca(ca: &Certificate, cas_below: u8, at: Timestamp, faults: &mut Vec<PersonFault>) {
    examine(ca, at, faults);
    let issuer = || ca.subject_text();
    let may_sign =
        matches!(ca.key_usage(), Ok(usage) if usage.is_none_or(|usage| usage.intersects(KeyUsage::KEY_CERT_SIGN)));
    match ca.basic_constraints() {
        Ok(Some(constraints)) if constraints.ca && may_sign => {
            if let Some(path_len) = constraints.path_len.filter(|path_len| *path_len < cas_below) {
                faults.push(PersonFault::PathLen { issuer: issuer(), path_len });
            }
        }
        Ok(Some(_) | None) | Err(_) => faults.push(PersonFault::NotCa { issuer: issuer() }),
    }
}
