//! Pure. What a subscriber or a CA of the SMKI signs: certification requests and certificate bodies, to be signed elsewhere.
//!
//! A body is made here, signed by whoever holds the key (an HSM, a key in memory), and put together with the signature here.

use der::asn1::{AnyRef, BitStringRef, IntRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Sequence};

use super::DerFault;
use super::apex::WrappedApexKey;
use super::profile::{
    KEY_IDENTIFIER_LEN, KeyIdentifier, SERIAL_LEN_MAX, SmkiCertificate, Usage, WRAPPED_APEX_CONTINGENCY_KEY,
};
use super::profile::{device_alt_name, key_identifier};
use super::signature::{FIXED_LEN, PublicKey, PublicKeyError, SignatureError, to_der};
use super::subject::{OrganisationSubject, Subject, SubjectError};
use super::x509::{
    AUTHORITY_KEY_IDENTIFIER, BASIC_CONSTRAINTS, BasicConstraints, Body, CERTIFICATE_POLICIES, ECDSA, KEY_USAGE,
    KeyUsage, PolicyInformation, RawExtension, SUBJECT_ALT_NAME, SUBJECT_KEY_IDENTIFIER, Signed, Time, Validity, Whole,
};
use crate::domain::names::{DeviceId, Digest};
use crate::domain::time::Timestamp;

/// Most octets of a certification request that is read. Ours have about 250.
pub const REQUEST_LEN_MAX: usize = 4 * 1024; // No official reference.

/// Why a body cannot be made, or a request not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The subject cannot be written.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// No strict DER of the right shape.
    #[error(transparent)]
    Der(#[from] DerFault),
    /// The signature is none.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The key is not on P-256.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// A serial number that may not be.
    #[error(
        "serialNumber: expected 1 to {SERIAL_LEN_MAX} octets, neither all zero nor with the first bit set, found {found}"
    )]
    Serial {
        /// The octets in hexadecimal.
        found: String,
    },
    /// notBefore later than notAfter.
    #[error("validity: expected notBefore before notAfter, found {not_before} and {not_after}")]
    Validity {
        /// The first second.
        not_before: Timestamp,
        /// The last second.
        not_after: Timestamp,
    },
    /// The issuer given is no CA, or is missing for a certificate that is not self-signed.
    #[error("issuer: expected {expected}, found {found}")]
    Issuer {
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Too long.
    #[error("certification request: expected at most {REQUEST_LEN_MAX} octets, found {found}")]
    TooLong {
        /// How many octets there were.
        found: usize,
    },
    /// Not what we write for that subject and key.
    #[error(
        "certification request: expected version 0, the subject of an Organisation Certificate, a P-256 key and no attributes \
         (RFC 2986 4.1), found something else"
    )]
    NotOurForm,
    /// The subject is not an Organisation's.
    #[error("certification request: expected the subject of an Organisation Certificate, found {found}")]
    NotOrganisation {
        /// The subject.
        found: String,
    },
    /// Not signed by its own key.
    #[error("certification request: expected a signature by the key inside it, found another")]
    NotSelfSigned,
    /// A request for another key.
    #[error("certification request: expected the key {expected}, found {found}")]
    OtherKey {
        /// SHA-256 of the SubjectPublicKeyInfo that was expected.
        expected: Digest,
        /// That of the one inside.
        found: Digest,
    },
}

/// What a certificate is issued for. Its form is given by GBCS section 12.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// An Organisation Certificate.
    Organisation {
        /// Whose.
        subject: OrganisationSubject,
        /// What its key is for.
        usage: Usage,
    },
    /// An Issuing OCA Certificate.
    IssuingOca {
        /// Its name.
        common_name: String,
    },
    /// A Root OCA Certificate, self-signed.
    RootOca {
        /// Its name.
        common_name: String,
        /// The Contingency Public Key that it carries, wrapped; a Root OCA Certificate may have none.
        contingency: Option<WrappedApexKey>,
    },
    /// The certificate of a CA that issues Device Certificates, self-signed. Of our own making: no profile of it was read.
    DeviceCa {
        /// Its name.
        common_name: String,
    },
    /// A Device Certificate. notAfter is always 9999-12-31T23:59:59Z.
    Device {
        /// Whose.
        device: DeviceId,
        /// What its key is for.
        usage: Usage,
        /// hwType of its subjectAltName.
        hardware_type: ObjectIdentifier,
    },
}

/// What varies between certificates of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Particulars<'a> {
    /// A positive number, most significant octet first: 1 to 20 octets, the first bit 0. SMKI's have 16.
    pub serial: &'a [u8],
    /// The first second.
    pub not_before: Timestamp,
    /// The last second. Passed over for a Device.
    pub not_after: Timestamp,
    /// The key it certifies.
    pub key: &'a PublicKey,
    /// certificatePolicies: one OID.
    pub policy: ObjectIdentifier,
}

/// The octets that the issuer signs (tbsCertificate). `issuer` is `None` for what is self-signed: Root OCA and Device CA.
///
/// # Source
/// GBCS section 12; the order of extensions is that of the test PKI's certificates.
pub fn tbs(
    template: &Template,
    particulars: &Particulars<'_>,
    issuer: Option<&SmkiCertificate>,
) -> Result<Vec<u8>, BodyError> {
    let fault = DerFault::within("certificate body");
    let &Particulars { serial, not_before, not_after, key, policy } = particulars;
    let serial_fits =
        (1..=SERIAL_LEN_MAX).contains(&serial.len()) && serial[0] < 0x80 && serial.iter().any(|o| *o != 0);
    if !serial_fits {
        return Err(BodyError::Serial { found: hex::encode(serial) });
    }
    let not_after = match template {
        Template::Device { .. } => Timestamp::MAX,
        Template::Organisation { .. }
        | Template::IssuingOca { .. }
        | Template::RootOca { .. }
        | Template::DeviceCa { .. } => not_after,
    };
    if not_before > not_after {
        return Err(BodyError::Validity { not_before, not_after });
    }
    let subject = template.subject().to_der()?;
    let (issuer_name, issuer_key) = issuer_of(template, issuer, &subject)?;
    let extensions = template.extensions(key_identifier(key), issuer_key, policy).map_err(&fault)?;
    let extensions = extensions
        .iter()
        .map(|(id, critical, value)| {
            Ok(RawExtension { id: *id, critical: critical.then_some(true), value: OctetStringRef::new(value)? })
        })
        .collect::<der::Result<Vec<_>>>()
        .map_err(&fault)?;
    let spki = key.to_spki();
    // The number as DER has it: no leading zero octet but where it keeps the number positive.
    let significant = &serial[serial.iter().take_while(|octet| **octet == 0).count()..];
    let padded: Vec<u8> = if significant[0] < 0x80 { significant.to_vec() } else { [&[0], significant].concat() };
    let body = Body {
        version: Some(2), // v3
        serial: IntRef::new(&padded).map_err(&fault)?,
        algorithm: ECDSA,
        issuer: Whole::from_der(&issuer_name).map_err(&fault)?,
        validity: Validity { not_before: Time::from_timestamp(not_before), not_after: Time::from_timestamp(not_after) },
        subject: Whole::from_der(&subject).map_err(&fault)?,
        spki: Whole::from_der(&spki).map_err(&fault)?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    };
    Ok(body.to_der().map_err(fault)?)
}

/// Name and key identifier of the issuer; no key identifier if it is self-signed.
fn issuer_of(
    template: &Template,
    issuer: Option<&SmkiCertificate>,
    subject: &[u8],
) -> Result<(Vec<u8>, Option<KeyIdentifier>), BodyError> {
    let wrong = |expected, found: Option<&SmkiCertificate>| BodyError::Issuer {
        expected,
        found: found.map_or("none".to_owned(), |issuer| issuer.kind().to_string()),
    };
    match (template, issuer) {
        (Template::RootOca { .. } | Template::DeviceCa { .. }, None) => Ok((subject.to_vec(), None)),
        (Template::RootOca { .. } | Template::DeviceCa { .. }, Some(_)) => {
            Err(wrong("none, as it is self-signed", issuer))
        }
        (Template::Organisation { .. } | Template::IssuingOca { .. } | Template::Device { .. }, Some(ca))
            if ca.is_ca() =>
        {
            Ok((ca.subject().to_vec(), Some(ca.subject_key_identifier())))
        }
        (Template::Organisation { .. } | Template::IssuingOca { .. } | Template::Device { .. }, _) => {
            Err(wrong("the certificate of a CA", issuer))
        }
    }
}

impl Template {
    fn subject(&self) -> Subject {
        match self {
            Self::Organisation { subject, usage: _ } => Subject::Organisation(subject.clone()),
            Self::IssuingOca { common_name } => Subject::IssuingOca { common_name: common_name.clone() },
            Self::RootOca { common_name, contingency: _ } => Subject::RootOca { common_name: common_name.clone() },
            Self::DeviceCa { common_name } => Subject::DeviceCa { common_name: common_name.clone() },
            Self::Device { .. } => Subject::Device,
        }
    }

    /// Id, criticality and value of each extension, in the order seen in certificates of that kind.
    fn extensions(
        &self,
        own: KeyIdentifier,
        issuer: Option<KeyIdentifier>,
        policy: ObjectIdentifier,
    ) -> der::Result<Vec<(ObjectIdentifier, bool, Vec<u8>)>> {
        let ku = |bits: KeyUsage| (KEY_USAGE, true, bits.to_der());
        let bc = |path_len| -> der::Result<_> {
            Ok((BASIC_CONSTRAINTS, true, BasicConstraints { ca: true, path_len }.to_der()?))
        };
        let ski = (SUBJECT_KEY_IDENTIFIER, false, OctetStringRef::new(&own)?.to_der()?);
        let cp = (CERTIFICATE_POLICIES, true, vec![PolicyInformation { oid: policy, qualifiers: None }].to_der()?);
        let aki = issuer.map(|key| (AUTHORITY_KEY_IDENTIFIER, false, authority(key)));
        let mut all = match self {
            Self::Organisation { subject: _, usage } => vec![ku(usage.key_usage()), ski, cp],
            // A Device CA's was not seen: it is written as an Issuing OCA's.
            Self::IssuingOca { .. } | Self::DeviceCa { .. } => {
                vec![ku(KeyUsage::KEY_CERT_SIGN_AND_CRL_SIGN), bc(Some(0))?, cp, ski]
            }
            // Unseen; in the order of an Issuing OCA's. Nor is it known whether the wrapped key is critical: RFC 5934 leaves it open.
            Self::RootOca { common_name: _, contingency } => {
                let apex = contingency.as_ref().map(|key| (WRAPPED_APEX_CONTINGENCY_KEY, false, key.to_der()));
                let all = [ku(KeyUsage::KEY_CERT_SIGN_AND_CRL_SIGN), bc(None)?, cp, ski];
                all.into_iter().chain(apex).collect()
            }
            Self::Device { device, usage, hardware_type } => {
                let san = (SUBJECT_ALT_NAME, true, device_alt_name(*device, *hardware_type)?);
                vec![ku(usage.key_usage()), ski, san, cp]
            }
        };
        all.extend(aki);
        Ok(all)
    }
}

/// authorityKeyIdentifier in the one form: a SEQUENCE of `[0] keyIdentifier` alone.
fn authority(key: KeyIdentifier) -> Vec<u8> {
    const HEADER: [u8; 4] = [0x30, 0x0A, 0x80, 0x08];
    const _: () = assert!(KEY_IDENTIFIER_LEN == 8, "the lengths in the header are those of a key identifier");
    [&HEADER[..], &key[..]].concat()
}

/// A certificate from its body and the issuer's signature, 64 octets of `r ‖ s`. Whether it verifies is not looked at.
pub fn assemble(tbs: &[u8], signature: &[u8; FIXED_LEN]) -> Result<Vec<u8>, BodyError> {
    signed(tbs, signature, DerFault::within("certificate body"))
}

fn signed(
    body: &[u8],
    signature: &[u8; FIXED_LEN],
    fault: impl Fn(der::Error) -> DerFault,
) -> Result<Vec<u8>, BodyError> {
    let signature = to_der(signature)?;
    let signed = Signed {
        body: Whole::from_der(body).map_err(&fault)?,
        algorithm: ECDSA,
        signature: BitStringRef::from_bytes(&signature).map_err(&fault)?,
    };
    Ok(signed.to_der().map_err(fault)?)
}

/// `CertificationRequestInfo` (RFC 2986 4.1).
#[derive(Sequence)]
struct RequestInfo<'a> {
    version: u8,
    subject: AnyRef<'a>,
    spki: AnyRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true")]
    attributes: Vec<AnyRef<'a>>,
}

/// The octets that a subscriber signs (certificationRequestInfo) to ask for an Organisation Certificate: the subject, the key
/// and no attributes.
pub fn certification_request_info(subject: &OrganisationSubject, key: &PublicKey) -> Result<Vec<u8>, BodyError> {
    let fault = DerFault::within("certificationRequestInfo");
    let (subject, spki) = (Subject::Organisation(subject.clone()).to_der()?, key.to_spki());
    let info = RequestInfo {
        version: 0,
        subject: AnyRef::from_der(&subject).map_err(&fault)?,
        spki: AnyRef::from_der(&spki).map_err(&fault)?,
        attributes: Vec::new(),
    };
    Ok(info.to_der().map_err(fault)?)
}

/// A certification request from its info and the subscriber's signature, 64 octets of `r ‖ s`.
pub fn assemble_request(info: &[u8], signature: &[u8; FIXED_LEN]) -> Result<Vec<u8>, BodyError> {
    signed(info, signature, DerFault::within("certificationRequestInfo"))
}

/// Reads the octets of a certificationRequestInfo, and accepts exactly those that [`certification_request_info`] writes for the
/// subject and key inside. Nothing else that is ever signed, a GBCS message or a certificate body, reads as one.
pub fn read_certification_request_info(info: &[u8]) -> Result<(OrganisationSubject, PublicKey), BodyError> {
    let fault = DerFault::within("certificationRequestInfo");
    if info.len() > REQUEST_LEN_MAX {
        return Err(BodyError::TooLong { found: info.len() });
    }
    let read = RequestInfo::from_der(info).map_err(&fault)?;
    let subject = match Subject::from_der(&read.subject.to_der().map_err(&fault)?)? {
        Subject::Organisation(subject) => subject,
        other @ (Subject::IssuingOca { .. } | Subject::RootOca { .. } | Subject::DeviceCa { .. } | Subject::Device) => {
            return Err(BodyError::NotOrganisation { found: format!("{other:?}") });
        }
    };
    let key = PublicKey::from_spki(&read.spki.to_der().map_err(fault)?)?;
    if certification_request_info(&subject, &key)? != info {
        return Err(BodyError::NotOurForm);
    }
    Ok((subject, key))
}

/// Checks that `info` is a genuine certificationRequestInfo for the key `expected`: what a signer asks before it signs one.
pub fn is_certification_request_info(info: &[u8], expected: &PublicKey) -> Result<OrganisationSubject, BodyError> {
    let (subject, key) = read_certification_request_info(info)?;
    if key == *expected {
        Ok(subject)
    } else {
        let [expected, found] = [expected, &key].map(PublicKey::spki_sha256);
        Err(BodyError::OtherKey { expected, found })
    }
}

/// Reads a certification request and checks that the key inside signed it.
pub fn read_request(request: &[u8]) -> Result<(OrganisationSubject, PublicKey), BodyError> {
    let fault = DerFault::within("certification request");
    if request.len() > REQUEST_LEN_MAX {
        return Err(BodyError::TooLong { found: request.len() });
    }
    let read = Signed::from_der(request).map_err(&fault)?;
    if read.algorithm != ECDSA || read.to_der().map_err(&fault)? != request {
        return Err(BodyError::NotOurForm);
    }
    let Whole(info) = read.body;
    let (subject, key) = read_certification_request_info(info)?;
    let signature = read.signature.as_bytes().ok_or(BodyError::NotOurForm)?;
    if key.verifies_der(info, signature) { Ok((subject, key)) } else { Err(BodyError::NotSelfSigned) }
}
