//! Pure. The SMKI certificate profile: what a certificate must be for a Device to use it.
//!
//! The rules are those of GBCS section 12 as published, seen to hold in the certificates of the test PKI. Where no document
//! at hand settles a rule, it is a parameter: [`Profile`].

use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Sequence};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::DerFault;
use super::signature::{PublicKey, PublicKeyError};
use super::subject::{OrganisationSubject, Subject, SubjectError};
use super::x509::{
    AUTHORITY_KEY_IDENTIFIER, AuthorityKeyIdentifier, BASIC_CONSTRAINTS, BasicConstraints, CERTIFICATE_POLICIES,
    Certificate, KEY_USAGE, KeyUsage, SUBJECT_ALT_NAME, SUBJECT_KEY_IDENTIFIER, X509Error,
};
use crate::domain::names::{DeviceId, Digest, Eui64, PartyId};
use crate::domain::time::Timestamp;

/// Octets of a KeyIdentifier of the SMKI (RFC 5280 4.2.1.2, method 2).
pub const KEY_IDENTIFIER_LEN: usize = 8;
/// A KeyIdentifier of the SMKI.
pub type KeyIdentifier = [u8; KEY_IDENTIFIER_LEN];

/// Most octets of a serial number (RFC 5280 4.1.2.2). The samples have 16; GBCS' own rule could not be read.
pub const SERIAL_LEN_MAX: usize = 20;

/// notAfter of a Device Certificate, the second of [`Timestamp::MAX`]: it does not expire (GBCS section 12; RFC 5280 4.1.2.5).
pub const DEVICE_NOT_AFTER: &str = "99991231235959Z";

/// id-on-hardwareModuleName (RFC 4108 5).
pub const HARDWARE_MODULE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.4");
/// id-pe-wrappedApexContinKey (RFC 5934 9): the Contingency Public Key, encrypted, within the Root OCA Certificate.
pub const WRAPPED_APEX_CONTINGENCY_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.20");

/// certificatePolicies of Organisation and OCA Certificates in the test PKI. The live one is unknown.
pub const TEST_ORGANISATION_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.826.0.1.8641679.1.2.1.4");
/// certificatePolicies of Device Certificates in the test PKI. The live one is unknown.
pub const TEST_DEVICE_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.826.0.1.1800000.1.2.1.4");
/// hwType in the subjectAltName of Device Certificates in the test PKI.
pub const TEST_HARDWARE_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.826.0.1.8641679.1.2.2.1");

/// What the profile leaves to the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The policies certificates may be issued under.
    pub policies: Policies,
    /// The keyUsage a Root OCA Certificate may have. No Root OCA Certificate was seen.
    pub root_key_usage: Vec<KeyUsage>,
}

/// The certificate policies of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policies {
    /// Not looked at: for showing a certificate to a person, never for deciding about one.
    NotChecked,
    /// Each certificate names at least one of these. An empty list lets none through.
    OneOf {
        /// For Organisation, Issuing OCA and Root OCA Certificates.
        organisation: Vec<ObjectIdentifier>,
        /// For Device Certificates, and the CAs that issue them.
        device: Vec<ObjectIdentifier>,
    },
}

impl Profile {
    /// The profile for deciding: certificates under these policies only.
    pub fn with_policies(organisation: Vec<ObjectIdentifier>, device: Vec<ObjectIdentifier>) -> Self {
        Self { policies: Policies::OneOf { organisation, device }, ..Self::shape_only() }
    }

    /// The profile for showing: everything but the policies. A root's keyUsage is keyCertSign, with or without cRLSign.
    pub fn shape_only() -> Self {
        let root_key_usage = vec![KeyUsage::KEY_CERT_SIGN, KeyUsage::KEY_CERT_SIGN_AND_CRL_SIGN];
        Self { policies: Policies::NotChecked, root_key_usage }
    }

    /// The test PKI's policies, which the exercise uses too.
    pub fn test() -> Self {
        Self::with_policies(vec![TEST_ORGANISATION_POLICY], vec![TEST_DEVICE_POLICY])
    }
}

/// What the key of a leaf may be used for: exactly one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    /// keyUsage digitalSignature.
    DigitalSignature,
    /// keyUsage keyAgreement.
    KeyAgreement,
}

impl Usage {
    /// The bit of keyUsage.
    pub const fn key_usage(self) -> KeyUsage {
        match self {
            Self::DigitalSignature => KeyUsage::DIGITAL_SIGNATURE,
            Self::KeyAgreement => KeyUsage::KEY_AGREEMENT,
        }
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key_usage().fmt(f)
    }
}

/// The kinds of certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A Remote Party's.
    Organisation {
        /// The number of its RemotePartyRole, as OU has it: 1 is recovery.
        role: u8,
        /// Whose it is.
        party: PartyId,
        /// What its key is for.
        usage: Usage,
    },
    /// An Issuing OCA's.
    IssuingOca,
    /// A Root OCA's, self-signed.
    RootOca,
    /// A CA's that issues Device Certificates. No profile of it could be read: its subject is `CN` alone as Device
    /// Certificates name their issuer, and it is held to what any CA certificate must be.
    DeviceCa,
    /// A Device's.
    Device {
        /// Whose it is.
        device: DeviceId,
        /// What its key is for.
        usage: Usage,
    },
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Organisation { role, party, usage } => write!(f, "Organisation {party}, role {role:02X}, {usage}"),
            Self::IssuingOca => f.write_str("Issuing OCA"),
            Self::RootOca => f.write_str("Root OCA"),
            Self::DeviceCa => f.write_str("Device CA"),
            Self::Device { device, usage } => write!(f, "Device {device}, {usage}"),
        }
    }
}

/// One rule that a certificate breaks. Each says what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// X.509 version.
    #[error("version: expected 3, found {found}")]
    Version {
        /// What it says.
        found: u8,
    },
    /// serialNumber.
    #[error("serialNumber: expected a positive number of at most {SERIAL_LEN_MAX} octets, found {found}")]
    Serial {
        /// Its octets in hexadecimal.
        found: String,
    },
    /// signatureAlgorithm.
    #[error("signatureAlgorithm: expected ecdsa-with-SHA256 without parameters, found {found}")]
    SignatureAlgorithm {
        /// What it says.
        found: ObjectIdentifier,
    },
    /// issuerUniqueID or subjectUniqueID.
    #[error("expected neither issuerUniqueID nor subjectUniqueID (RFC 5280 4.1.2.8)")]
    UniqueIds,
    /// subject.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The issuer of a Root OCA Certificate.
    #[error("issuer: expected the subject itself in a Root OCA Certificate, found {found}")]
    RootIssuer {
        /// What it says.
        found: String,
    },
    /// The signature of a Root OCA Certificate.
    #[error("signature: expected one by the Root OCA's own key, found another")]
    RootSignature,
    /// subjectPublicKeyInfo.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// notBefore later than notAfter.
    #[error("validity: expected notBefore before notAfter, found {not_before} and {not_after}")]
    ValidityOrder {
        /// The first second.
        not_before: Timestamp,
        /// The last second.
        not_after: Timestamp,
    },
    /// UTCTime where GeneralizedTime belongs, or the other way round.
    #[error("validity: expected UTCTime until 2049 and GeneralizedTime from 2050 on (RFC 5280 4.1.2.5)")]
    TimeForm,
    /// A Device Certificate that expires.
    #[error("notAfter: expected {DEVICE_NOT_AFTER} in a Device Certificate, found {found}")]
    DeviceExpires {
        /// The last second.
        found: Timestamp,
    },
    /// An extension that must be there is not.
    #[error("{extension}: expected, not found")]
    Absent {
        /// Its name.
        extension: &'static str,
    },
    /// An extension that must not be there is.
    #[error("{extension}: not expected in this kind of certificate, found")]
    Present {
        /// Its name.
        extension: &'static str,
    },
    /// An extension that must be critical is not.
    #[error("{extension}: expected critical, found non-critical")]
    NotCritical {
        /// Its name.
        extension: &'static str,
    },
    /// An extension that must not be critical is.
    #[error("{extension}: expected non-critical, found critical")]
    Critical {
        /// Its name.
        extension: &'static str,
    },
    /// A critical extension that no rule is about.
    #[error("expected no critical extension but those of the profile, found {id}")]
    UnknownCritical {
        /// Which.
        id: ObjectIdentifier,
    },
    /// An extension that cannot be read.
    #[error(transparent)]
    Extension(#[from] DerFault),
    /// keyUsage.
    #[error("keyUsage: expected {expected}, found {found}")]
    KeyUsage {
        /// What it may be.
        expected: String,
        /// What it is.
        found: KeyUsage,
    },
    /// certificatePolicies without a policy.
    #[error("certificatePolicies: expected at least one policy, found none")]
    NoPolicy,
    /// certificatePolicies of a Device Certificate.
    #[error("certificatePolicies: expected exactly one policy in a Device Certificate, found {found}")]
    DevicePolicies {
        /// How many there are.
        found: usize,
    },
    /// None of the policies is one of the environment's.
    #[error(
        "certificatePolicies: expected one of this environment's ({expected}), found {found}; is it a certificate of another environment?"
    )]
    ForeignPolicy {
        /// The environment's.
        expected: String,
        /// The certificate's.
        found: String,
    },
    /// subjectKeyIdentifier is not the key's.
    #[error("subjectKeyIdentifier: expected {expected} (RFC 5280 4.2.1.2, method 2, of its key), found {found}")]
    SubjectKeyIdentifier {
        /// That of the key, in hexadecimal.
        expected: String,
        /// What it says.
        found: String,
    },
    /// authorityKeyIdentifier is not of the one form.
    #[error("authorityKeyIdentifier: expected [0] keyIdentifier of {KEY_IDENTIFIER_LEN} octets alone, found {found}")]
    AuthorityKeyIdentifier {
        /// What it has.
        found: String,
    },
    /// basicConstraints of a CA.
    #[error(
        "basicConstraints: expected cA TRUE, pathLenConstraint {expected}, found cA {ca}, pathLenConstraint {path_len:?}"
    )]
    BasicConstraints {
        /// What pathLenConstraint must be.
        expected: &'static str,
        /// What cA is.
        ca: bool,
        /// What pathLenConstraint is.
        path_len: Option<u8>,
    },
    /// subjectAltName of a Device Certificate.
    #[error(
        "subjectAltName: expected one otherName with id-on-hardwareModuleName and a hwSerialNum of 8 octets, found {found}"
    )]
    HardwareModuleName {
        /// What it has.
        found: String,
    },
}

/// Why octets are not a certificate of the SMKI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate at all.
    #[error(transparent)]
    X509(#[from] X509Error),
    /// A certificate that breaks rules of the profile: all that it breaks.
    #[error("certificate {subject:?} (SHA-256 {sha256}) is not within the SMKI profile: {}", list(violations))]
    OffProfile {
        /// Whom it is about.
        subject: String,
        /// Its SHA-256.
        sha256: Digest,
        /// At least one.
        violations: Vec<Violation>,
    },
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A certificate within the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmkiCertificate {
    certificate: Certificate,
    kind: Kind,
    key: PublicKey,
    subject_key_identifier: KeyIdentifier,
    authority_key_identifier: Option<KeyIdentifier>,
    policies: Vec<ObjectIdentifier>,
    path_len: Option<u8>,
}

impl std::ops::Deref for SmkiCertificate {
    type Target = Certificate;

    /// What every certificate says: octets, names, validity, digests.
    fn deref(&self) -> &Certificate {
        &self.certificate
    }
}

impl SmkiCertificate {
    /// Reads one certificate of DER and holds it against the profile. Signatures of issuers are the path's business.
    ///
    /// # Errors
    /// [`CertificateError::X509`]: no certificate. [`CertificateError::OffProfile`]: every rule it breaks.
    pub fn parse(octets: &[u8], profile: &Profile) -> Result<Self, CertificateError> {
        Self::from_certificate(Certificate::from_der(octets)?, profile)
    }

    /// The same from a certificate that was read already.
    pub fn from_certificate(certificate: Certificate, profile: &Profile) -> Result<Self, CertificateError> {
        let mut rules = Rules { certificate: &certificate, violations: Vec::new() };
        let read = rules.read(profile);
        let violations = rules.violations;
        match read {
            Some(read) if violations.is_empty() => Ok(Self {
                kind: read.kind,
                key: read.key,
                subject_key_identifier: read.subject_key_identifier,
                authority_key_identifier: read.authority_key_identifier,
                policies: read.policies,
                path_len: read.path_len,
                certificate,
            }),
            Some(_) | None => Err(CertificateError::OffProfile {
                subject: certificate.subject_text(),
                sha256: certificate.sha256(),
                violations,
            }),
        }
    }

    /// What it is, and whose.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its public key.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// subjectKeyIdentifier, which is that of the key.
    pub const fn subject_key_identifier(&self) -> KeyIdentifier {
        self.subject_key_identifier
    }

    /// authorityKeyIdentifier; only a Root OCA Certificate may lack it.
    pub const fn authority_key_identifier(&self) -> Option<KeyIdentifier> {
        self.authority_key_identifier
    }

    /// The policies it was issued under, at least one.
    pub fn policies(&self) -> &[ObjectIdentifier] {
        &self.policies
    }

    /// pathLenConstraint, in a CA's certificate that has one.
    pub const fn path_len(&self) -> Option<u8> {
        self.path_len
    }

    /// Whether it is a CA's.
    pub const fn is_ca(&self) -> bool {
        match self.kind {
            Kind::IssuingOca | Kind::RootOca | Kind::DeviceCa => true,
            Kind::Organisation { .. } | Kind::Device { .. } => false,
        }
    }

    /// The certificate without what the profile says of it.
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// The KeyIdentifier of a key: 0100 and the low 60 bits of the SHA-1 of its point (RFC 5280 4.2.1.2, method 2).
pub fn key_identifier(key: &PublicKey) -> KeyIdentifier {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, key.point());
    let (_, low) = hash.as_ref().split_last_chunk::<KEY_IDENTIFIER_LEN>().expect("SHA-1 is 20 octets long");
    let mut identifier = *low;
    identifier[0] = identifier[0] & 0x0F | 0x40;
    identifier
}

/// `HardwareModuleName` (RFC 4108 5).
#[derive(Sequence)]
struct HardwareModuleName<'a> {
    hardware_type: ObjectIdentifier,
    serial: &'a OctetStringRef,
}

/// `OtherName` with a HardwareModuleName inside (RFC 5280 4.2.1.6).
#[derive(Sequence)]
struct OtherName<'a> {
    id: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: HardwareModuleName<'a>,
}

/// `GeneralNames` of exactly one otherName.
#[derive(Sequence)]
struct OneOtherName<'a> {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true")]
    name: OtherName<'a>,
}

/// subjectAltName of a Device Certificate, the DER inside extnValue.
pub(super) fn device_alt_name(device: DeviceId, hardware_type: ObjectIdentifier) -> der::Result<Vec<u8>> {
    let serial = OctetStringRef::new(device.0.octets())?;
    let value = HardwareModuleName { hardware_type, serial };
    OneOtherName { name: OtherName { id: HARDWARE_MODULE_NAME, value } }.to_der()
}

/// What the rules find in a certificate whose kind and key can be told.
struct Read {
    kind: Kind,
    key: PublicKey,
    subject_key_identifier: KeyIdentifier,
    authority_key_identifier: Option<KeyIdentifier>,
    policies: Vec<ObjectIdentifier>,
    path_len: Option<u8>,
}

/// Whether an extension must be critical.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Criticality {
    Critical,
    NonCritical,
}

/// Holds a certificate against one rule after the other and keeps what it breaks.
struct Rules<'a> {
    certificate: &'a Certificate,
    violations: Vec<Violation>,
}

impl Rules<'_> {
    /// Every rule, in the order of the certificate. `None` if it is unclear what the certificate is; then a violation says why.
    fn read(&mut self, profile: &Profile) -> Option<Read> {
        self.head();
        let subject = self.keep(Subject::from_der(self.certificate.subject()));
        let key = self.keep(self.certificate.public_key());
        self.validity(subject.as_ref());
        if let (Some(Subject::RootOca { .. }), Some(key)) = (&subject, &key) {
            self.self_signed(key);
        }
        let bits = self.key_usage(subject.as_ref(), profile);
        let subject_key_identifier = self.subject_key_identifier(key.as_ref());
        let authority_key_identifier = self.authority_key_identifier(subject.as_ref(), subject_key_identifier);
        let policies = self.policies(subject.as_ref(), &profile.policies);
        let path_len = self.basic_constraints(subject.as_ref());
        let device = self.alt_name(subject.as_ref());
        self.further_extensions(subject.as_ref());

        let usage = match bits {
            Some(KeyUsage::DIGITAL_SIGNATURE) => Some(Usage::DigitalSignature),
            Some(KeyUsage::KEY_AGREEMENT) => Some(Usage::KeyAgreement),
            Some(_) | None => None,
        };
        let kind = match subject? {
            Subject::Organisation(OrganisationSubject { common_name: _, role, party }) => {
                Kind::Organisation { role, party, usage: usage? }
            }
            Subject::IssuingOca { .. } => Kind::IssuingOca,
            Subject::RootOca { .. } => Kind::RootOca,
            Subject::DeviceCa { .. } => Kind::DeviceCa,
            Subject::Device => Kind::Device { device: device?, usage: usage? },
        };
        let (key, subject_key_identifier) = (key?, subject_key_identifier?);
        Some(Read { kind, key, subject_key_identifier, authority_key_identifier, policies, path_len })
    }

    fn broken(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    fn keep<T>(&mut self, read: Result<T, impl Into<Violation>>) -> Option<T> {
        read.map_err(|fault| self.violations.push(fault.into())).ok()
    }

    fn head(&mut self) {
        let certificate = self.certificate;
        if certificate.version() != 3 {
            self.broken(Violation::Version { found: certificate.version() });
        }
        let serial = certificate.serial();
        // Two's complement: a first bit of 1 is a negative number; the number zero is the one octet 00.
        let positive = serial.first().is_some_and(|first| *first < 0x80) && serial != [0];
        // A leading zero octet only keeps a number positive and is not counted.
        let len = serial.len() - usize::from(serial.first() == Some(&0));
        if !positive || len > SERIAL_LEN_MAX {
            self.broken(Violation::Serial { found: hex::encode(serial) });
        }
        if !certificate.is_signed_with_ecdsa_sha256() {
            self.broken(Violation::SignatureAlgorithm { found: certificate.algorithm() });
        }
        if certificate.has_unique_ids() {
            self.broken(Violation::UniqueIds);
        }
    }

    fn validity(&mut self, subject: Option<&Subject>) {
        let (not_before, not_after) = (self.certificate.not_before(), self.certificate.not_after());
        if not_before > not_after {
            self.broken(Violation::ValidityOrder { not_before, not_after });
        }
        if !self.certificate.has_times_in_their_form() {
            self.broken(Violation::TimeForm);
        }
        let expires = not_after.unix_seconds() != Timestamp::MAX.unix_seconds();
        if subject == Some(&Subject::Device) && expires {
            self.broken(Violation::DeviceExpires { found: not_after });
        }
    }

    fn self_signed(&mut self, key: &PublicKey) {
        let certificate = self.certificate;
        if certificate.issuer() != certificate.subject() {
            self.broken(Violation::RootIssuer { found: certificate.issuer_text() });
        }
        if !key.verifies_der(certificate.body(), certificate.signature()) {
            self.broken(Violation::RootSignature);
        }
    }

    /// Whether the extension is there, and as critical as it must be.
    fn has(&mut self, id: ObjectIdentifier, name: &'static str, expected: Criticality) -> bool {
        let Some(extension) = self.certificate.extension(id) else {
            self.broken(Violation::Absent { extension: name });
            return false;
        };
        match (expected, extension.critical) {
            (Criticality::Critical, false) => self.broken(Violation::NotCritical { extension: name }),
            (Criticality::NonCritical, true) => self.broken(Violation::Critical { extension: name }),
            (Criticality::Critical, true) | (Criticality::NonCritical, false) => {}
        }
        true
    }

    fn key_usage(&mut self, subject: Option<&Subject>, profile: &Profile) -> Option<KeyUsage> {
        self.has(KEY_USAGE, "keyUsage", Criticality::Critical);
        let found = self.keep(self.certificate.key_usage())??;
        let expected = match subject? {
            Subject::Organisation(_) | Subject::Device => &[KeyUsage::DIGITAL_SIGNATURE, KeyUsage::KEY_AGREEMENT][..],
            Subject::IssuingOca { .. } => &[KeyUsage::KEY_CERT_SIGN_AND_CRL_SIGN][..],
            Subject::RootOca { .. } | Subject::DeviceCa { .. } => &profile.root_key_usage,
        };
        if !expected.contains(&found) {
            let expected = expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            self.broken(Violation::KeyUsage { expected, found });
        }
        Some(found)
    }

    fn subject_key_identifier(&mut self, key: Option<&PublicKey>) -> Option<KeyIdentifier> {
        self.has(SUBJECT_KEY_IDENTIFIER, "subjectKeyIdentifier", Criticality::NonCritical);
        let found = self.keep(self.certificate.subject_key_identifier())??;
        let expected = key_identifier(key?);
        if found != expected {
            let (expected, found) = (hex::encode_upper(expected), hex::encode_upper(found));
            self.broken(Violation::SubjectKeyIdentifier { expected, found });
        }
        Some(expected)
    }

    fn authority_key_identifier(
        &mut self,
        subject: Option<&Subject>,
        own: Option<KeyIdentifier>,
    ) -> Option<KeyIdentifier> {
        let is_root = matches!(subject, Some(Subject::RootOca { .. }));
        // A CA for Devices may be a root of its own.
        let self_issued = is_root
            || matches!(subject, Some(Subject::DeviceCa { .. }))
                && self.certificate.issuer() == self.certificate.subject();
        if self_issued && self.certificate.extension(AUTHORITY_KEY_IDENTIFIER).is_none() {
            return None;
        }
        self.has(AUTHORITY_KEY_IDENTIFIER, "authorityKeyIdentifier", Criticality::NonCritical);
        let AuthorityKeyIdentifier { key, names_certificate } =
            self.keep(self.certificate.authority_key_identifier())??;
        let octets = key.as_deref().unwrap_or_default();
        let identifier = KeyIdentifier::try_from(octets).ok();
        let foreign_root = is_root && own.is_some() && identifier != own;
        if identifier.is_none() || names_certificate || foreign_root {
            let more = if names_certificate { " and authorityCertIssuer or authorityCertSerialNumber" } else { "" };
            let why = if foreign_root { " in a Root OCA Certificate whose own is another" } else { "" };
            let found = format!("{:?}{more}{why}", hex::encode_upper(octets));
            self.broken(Violation::AuthorityKeyIdentifier { found });
        }
        identifier
    }

    fn policies(&mut self, subject: Option<&Subject>, policies: &Policies) -> Vec<ObjectIdentifier> {
        self.has(CERTIFICATE_POLICIES, "certificatePolicies", Criticality::Critical);
        let Some(found) = self.keep(self.certificate.policies()).flatten() else { return Vec::new() };
        if found.is_empty() {
            self.broken(Violation::NoPolicy);
        }
        if subject == Some(&Subject::Device) && found.len() != 1 {
            self.broken(Violation::DevicePolicies { found: found.len() });
        }
        let expected = match (policies, subject) {
            (Policies::NotChecked, _) | (_, None) => None,
            (Policies::OneOf { device, .. }, Some(Subject::Device | Subject::DeviceCa { .. })) => Some(device),
            (
                Policies::OneOf { organisation, .. },
                Some(Subject::Organisation(_) | Subject::IssuingOca { .. } | Subject::RootOca { .. }),
            ) => Some(organisation),
        };
        if let Some(expected) = expected
            && !found.iter().any(|policy| expected.contains(policy))
        {
            self.broken(Violation::ForeignPolicy { expected: oids(expected), found: oids(&found) });
        }
        found
    }

    fn basic_constraints(&mut self, subject: Option<&Subject>) -> Option<u8> {
        let path_len_allowed: &[Option<u8>] = match subject? {
            Subject::Organisation(_) | Subject::Device => {
                if self.certificate.extension(BASIC_CONSTRAINTS).is_some() {
                    self.broken(Violation::Present { extension: "basicConstraints" });
                }
                return None;
            }
            Subject::IssuingOca { .. } => &[Some(0)],
            // Unseen. It must be able to have one Issuing OCA below it.
            Subject::RootOca { .. } => &[None, Some(1), Some(2)],
            Subject::DeviceCa { .. } => &[None, Some(0), Some(1), Some(2)],
        };
        self.has(BASIC_CONSTRAINTS, "basicConstraints", Criticality::Critical);
        let BasicConstraints { ca, path_len } = self.keep(self.certificate.basic_constraints())??;
        if !ca || !path_len_allowed.contains(&path_len) {
            let expected = if path_len_allowed.len() == 1 { "0" } else { "absent or small" };
            self.broken(Violation::BasicConstraints { expected, ca, path_len });
        }
        path_len
    }

    fn alt_name(&mut self, subject: Option<&Subject>) -> Option<DeviceId> {
        if subject? != &Subject::Device {
            if self.certificate.extension(SUBJECT_ALT_NAME).is_some() {
                self.broken(Violation::Present { extension: "subjectAltName" });
            }
            return None;
        }
        self.has(SUBJECT_ALT_NAME, "subjectAltName", Criticality::Critical);
        let extension = self.certificate.extension(SUBJECT_ALT_NAME)?;
        let found = match OneOtherName::from_der(&extension.value) {
            Ok(OneOtherName { name: OtherName { id, value } }) => {
                match (id, Eui64::try_from(value.serial.as_bytes())) {
                    (HARDWARE_MODULE_NAME, Ok(id)) => return Some(DeviceId(id)),
                    (id, _) => format!("{id} and {} octets", value.serial.as_bytes().len()),
                }
            }
            Err(fault) => fault.to_string(),
        };
        self.broken(Violation::HardwareModuleName { found });
        None
    }

    fn further_extensions(&mut self, subject: Option<&Subject>) {
        const KNOWN: [ObjectIdentifier; 6] = [
            KEY_USAGE,
            SUBJECT_KEY_IDENTIFIER,
            AUTHORITY_KEY_IDENTIFIER,
            CERTIFICATE_POLICIES,
            BASIC_CONSTRAINTS,
            SUBJECT_ALT_NAME,
        ];
        let is_root = matches!(subject, Some(Subject::RootOca { .. }));
        for extension in self.certificate.extensions() {
            let id = extension.id;
            if id == WRAPPED_APEX_CONTINGENCY_KEY && !is_root {
                self.broken(Violation::Present { extension: "wrappedApexContinKey" });
            } else if extension.critical && !KNOWN.contains(&id) && id != WRAPPED_APEX_CONTINGENCY_KEY {
                self.broken(Violation::UnknownCritical { id });
            }
        }
    }
}

fn oids(all: &[ObjectIdentifier]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
