//! Pure. Detached CMS signatures over a document, one `.p7s` per PMA member: strict verification, and writing.
//!
//! The format is that of `openssl cms -sign -binary -cades` (RFC 5652, RFC 5035), and of it only what a PMA member needs:
//! DER, detached, signed attributes, SHA-256, ECDSA over P-256, and a signing-certificate-v2 that pins the certificate.
//! Everything else is refused. Signed attributes are required because CMS without them lets a signature over one thing be
//! passed off as one over another.

use std::collections::BTreeSet;

use der::asn1::{AnyRef, IntRef, ObjectIdentifier, OctetStringRef, SetOfVec};
use der::{Choice, Decode, Encode, Sequence, Tag, Tagged, ValueOrd};

use crate::domain::certificates::pem::{self, PemError};
use crate::domain::certificates::signature::{FIXED_LEN, PublicKeyError, SignatureError, to_der};
use crate::domain::certificates::x509::{Algorithm, ECDSA, ECDSA_WITH_SHA256, Time, X509Error};
use crate::domain::certificates::{Certificate, DerFault};
use crate::domain::names::Digest;
use crate::domain::time::Timestamp;

/// Most octets of a `.p7s`. With one signer and one certificate it has about 900; as PEM a third more.
pub const P7S_LEN_MAX: usize = 32 * 1024; // No official reference.
/// Most signers of one file.
pub const SIGNERS_MAX: usize = 16; // No official reference.
/// Most certificates in one file.
pub const CERTIFICATES_MAX: usize = 32; // No official reference; two for each signer.
/// Most signed attributes of one signer. Tools write four to six.
pub const ATTRIBUTES_MAX: usize = 16; // No official reference.

/// id-data (RFC 5652 4).
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
/// id-signedData (RFC 5652 5.1).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// id-contentType (RFC 5652 11.1).
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
/// id-messageDigest (RFC 5652 11.2).
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
/// id-signingTime (RFC 5652 11.3).
const SIGNING_TIME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");
/// id-aa-signingCertificateV2 (RFC 5035 3).
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
/// id-sha256 (RFC 5754 2.2).
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");

/// Whether signing-certificate-v2 must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ess {
    /// It must: `openssl cms -sign -cades` writes it.
    Required,
    /// The policy waives it for this signer. If it is there all the same, it must be right.
    Waived,
}

/// Whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSigner {
    /// The signer's certificate. Whether anybody vouches for it is not known yet.
    pub certificate: Certificate,
    /// When the signer says it was signed. A claim: it proves nothing and decides nothing.
    pub claimed_signing_time: Option<Timestamp>,
}

impl VerifiedSigner {
    /// SHA-256 of the signer's SubjectPublicKeyInfo, which policy maps to a person. One key has one.
    pub fn spki_sha256(&self) -> Digest {
        self.certificate.spki_sha256()
    }
}

/// A file whose every signature verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// At least one, each with a key of its own.
    pub signers: Vec<VerifiedSigner>,
    /// Every certificate in the file, the signers' included: where a CA between may be found.
    pub certificates: Vec<Certificate>,
}

/// Why a file is not a signature over the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmsError {
    /// Longer than [`P7S_LEN_MAX`].
    #[error("CMS: expected at most {P7S_LEN_MAX} octets, found {found}")]
    TooLong {
        /// How many octets there were.
        found: usize,
    },
    /// S/MIME, which `openssl cms` writes unless told otherwise.
    #[error("CMS: expected DER or PEM, found S/MIME; sign with -outform DER")]
    Smime,
    /// Text armour that cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// BER with indefinite lengths, which a tool that streams writes.
    #[error("CMS: expected DER, found a length that is left open (BER); sign without -stream")]
    Indefinite,
    /// Not strict DER of the right shape.
    #[error(transparent)]
    Der(#[from] DerFault),
    /// DER that can be written shorter or in another order.
    #[error("CMS: expected the one DER encoding of its contents, found another {within}")]
    NotCanonical {
        /// Where.
        within: &'static str,
    },
    /// Something other than signed data.
    #[error("CMS: expected id-signedData ({SIGNED_DATA}), found {found}")]
    NotSignedData {
        /// What it says.
        found: ObjectIdentifier,
    },
    /// The signature is over something other than plain octets.
    #[error("CMS: expected content of type id-data ({DATA}), found {found}")]
    NotData {
        /// What it says.
        found: ObjectIdentifier,
    },
    /// The file holds the document.
    #[error("CMS: expected a detached signature, found the content inside; sign without -nodetach")]
    NotDetached,
    /// CRLs, which nobody here asks for.
    #[error("CMS: expected no CRLs, found some; sign without them")]
    Crls,
    /// More of something than its limit, or none.
    #[error("CMS: expected 1 to {max} {what}, found {found}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many there may be.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// A version that does not fit the contents.
    #[error("CMS: expected version {expected} of SignedData for such signers, found {found}")]
    Version {
        /// What it must be.
        expected: u8,
        /// What it is.
        found: u8,
    },
    /// Something among the certificates is none, or cannot be read.
    #[error("CMS: certificate {number}: {fault}")]
    Certificate {
        /// Which, counted from 1.
        number: usize,
        /// What is wrong with it.
        fault: X509Error,
    },
    /// One certificate twice.
    #[error("CMS: expected each certificate once, found {sha256} twice")]
    DuplicateCertificate {
        /// Its SHA-256.
        sha256: Digest,
    },
    /// A signer's signature does not count, and with it the file.
    #[error("CMS: signer {number} of {of}: {fault}")]
    Signer {
        /// Which, counted from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// What is wrong.
        fault: SignerFault,
    },
    /// One key twice, under whatever certificates.
    #[error("CMS: expected each key to sign once, found the key {spki_sha256} twice")]
    DuplicateSigner {
        /// SHA-256 of its SubjectPublicKeyInfo.
        spki_sha256: Digest,
    },
    /// The signature that was to be put in is none.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// Why one signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerFault {
    /// Not strict DER of the right shape.
    #[error(transparent)]
    Der(#[from] DerFault),
    /// DER that can be written shorter or in another order.
    #[error("expected the one DER encoding of its contents, found another")]
    NotCanonical,
    /// A version that does not fit how the signer is named.
    #[error("expected version {expected} of SignerInfo, found {found}")]
    Version {
        /// What it must be.
        expected: u8,
        /// What it is.
        found: u8,
    },
    /// Another digest.
    #[error("expected the digest SHA-256 ({SHA256}), found {found}; sign with -md sha256")]
    DigestAlgorithm {
        /// What it says.
        found: ObjectIdentifier,
    },
    /// Another signature algorithm.
    #[error("expected ecdsa-with-SHA256 ({ECDSA_WITH_SHA256}), found {found}; sign with a P-256 key and -md sha256")]
    SignatureAlgorithm {
        /// What it says.
        found: ObjectIdentifier,
    },
    /// No signed attributes.
    #[error("expected signed attributes, found none; sign without -noattr")]
    NoSignedAttributes,
    /// Unsigned attributes, which anybody could have put there.
    #[error("expected no unsigned attributes, found {found}; sign without a time stamp or countersignature")]
    UnsignedAttributes {
        /// How many there are.
        found: usize,
    },
    /// More signed attributes than [`ATTRIBUTES_MAX`].
    #[error("expected at most {ATTRIBUTES_MAX} signed attributes, found {found}")]
    TooManyAttributes {
        /// How many there are.
        found: usize,
    },
    /// A signed attribute that must be there is not.
    #[error("expected the signed attribute {attribute}, found none{advice}")]
    AttributeAbsent {
        /// Its name.
        attribute: &'static str,
        /// What to do, with a separator.
        advice: &'static str,
    },
    /// A signed attribute twice.
    #[error("expected each signed attribute once, found {found} twice")]
    DuplicateAttribute {
        /// Which.
        found: ObjectIdentifier,
    },
    /// A signed attribute with other than one value.
    #[error("expected one value of the signed attribute {attribute}, found {found}")]
    AttributeValues {
        /// Its OID.
        attribute: ObjectIdentifier,
        /// How many there are.
        found: usize,
    },
    /// The attribute contentType says something else.
    #[error("expected the signed attribute contentType to be id-data ({DATA}), found {found}")]
    ContentType {
        /// What it says.
        found: ObjectIdentifier,
    },
    /// The document is not the one that was signed.
    #[error(
        "expected a signature over the document with SHA-256 {expected}, found one over {found}; is it the same file, octet for octet?"
    )]
    OtherDocument {
        /// The document's digest.
        expected: Digest,
        /// messageDigest, in hexadecimal.
        found: String,
    },
    /// The signer's certificate is not in the file.
    #[error("expected the signer's certificate ({sid}) in the file, found {found} others; sign without -nocerts")]
    CertificateAbsent {
        /// How the file names the signer.
        sid: String,
        /// How many certificates there are.
        found: usize,
    },
    /// Several certificates fit.
    #[error("expected one certificate of the signer ({sid}), found {found}")]
    CertificateAmbiguous {
        /// How the file names the signer.
        sid: String,
        /// How many fit.
        found: usize,
    },
    /// The signer's key is not on P-256.
    #[error("signer's {0}")]
    Key(#[from] PublicKeyError),
    /// signing-certificate-v2 is not about the signer's certificate.
    #[error("expected signing-certificate-v2 to name the certificate {expected} by its SHA-256, found {found}")]
    SigningCertificate {
        /// SHA-256 of the signer's certificate.
        expected: Digest,
        /// What it has.
        found: String,
    },
    /// The signature does not verify.
    #[error(
        "expected a signature by the key of {subject:?} over the signed attributes, found one that does not verify"
    )]
    Forged {
        /// The subject of the certificate.
        subject: String,
    },
}

/// `ContentInfo` (RFC 5652 3).
#[derive(Sequence)]
struct ContentInfo<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: AnyRef<'a>,
}

/// `SignedData` (RFC 5652 5.1).
#[derive(Sequence)]
struct SignedData<'a> {
    version: u8,
    digest_algorithms: SetOfVec<Algorithm<'a>>,
    content: EncapsulatedContent<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    certificates: Option<SetOfVec<AnyRef<'a>>>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    crls: Option<SetOfVec<AnyRef<'a>>>,
    signers: SetOfVec<AnyRef<'a>>,
}

/// `EncapsulatedContentInfo` (RFC 5652 5.2).
#[derive(Sequence)]
struct EncapsulatedContent<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    content: Option<AnyRef<'a>>,
}

/// `SignerInfo` (RFC 5652 5.3).
#[derive(Sequence)]
struct SignerInfo<'a> {
    version: u8,
    sid: SignerId<'a>,
    digest_algorithm: Algorithm<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    signed_attributes: Option<SetOfVec<Attribute<'a>>>,
    signature_algorithm: Algorithm<'a>,
    signature: &'a OctetStringRef,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    unsigned_attributes: Option<SetOfVec<AnyRef<'a>>>,
}

/// `SignerIdentifier` (RFC 5652 5.3).
#[derive(Clone, Copy, Choice)]
enum SignerId<'a> {
    IssuerAndSerial(IssuerAndSerial<'a>),
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    KeyIdentifier(&'a OctetStringRef),
}

/// `IssuerAndSerialNumber` (RFC 5652 10.2.4).
#[derive(Clone, Copy, Sequence)]
struct IssuerAndSerial<'a> {
    issuer: AnyRef<'a>,
    serial: IntRef<'a>,
}

/// `Attribute` (RFC 5652 5.3).
#[derive(Clone, Debug, PartialEq, Eq, Sequence, ValueOrd)]
struct Attribute<'a> {
    kind: ObjectIdentifier,
    values: SetOfVec<AnyRef<'a>>,
}

/// `SigningCertificateV2` (RFC 5035 3).
#[derive(Sequence)]
struct SigningCertificateV2<'a> {
    certificates: Vec<EssCertIdV2<'a>>,
    #[asn1(optional = "true")]
    policies: Option<AnyRef<'a>>,
}

/// `ESSCertIDv2` (RFC 5035 4). hashAlgorithm is SHA-256 by default.
#[derive(Sequence)]
struct EssCertIdV2<'a> {
    #[asn1(optional = "true")]
    hash_algorithm: Option<Algorithm<'a>>,
    hash: &'a OctetStringRef,
    #[asn1(optional = "true")]
    issuer_serial: Option<IssuerSerial<'a>>,
}

/// `IssuerSerial` (RFC 5035 5) with one directoryName.
#[derive(Sequence)]
struct IssuerSerial<'a> {
    issuer: DirectoryName<'a>,
    serial: IntRef<'a>,
}

/// `GeneralNames` of exactly one directoryName.
#[derive(Sequence)]
struct DirectoryName<'a> {
    #[asn1(context_specific = "4", tag_mode = "EXPLICIT")]
    name: AnyRef<'a>,
}

/// Verifies a detached CMS signature, DER or PEM, over the octets of `document`.
///
/// # Shape
/// Every signer in the file must verify, or the file is refused: a file is as good as its worst signature. Whether the
/// signer's certificate is vouched for and whose key it is are the next questions:
/// [`check_person_certificate`](crate::domain::certificates::person::check_person_certificate), and the policy.
///
/// # Errors
/// [`CmsError`], which says what to do about it where the signer can do something.
///
/// # Source
/// RFC 5652 section 5; RFC 5035 section 3; RFC 5754.
pub fn verify(p7s: &[u8], document: &[u8], ess: Ess) -> Result<Verified, CmsError> {
    verify_digest(p7s, &Digest::of(document), ess)
}

/// The same over a document of which only the SHA-256 is at hand.
pub fn verify_digest(p7s: &[u8], document: &Digest, ess: Ess) -> Result<Verified, CmsError> {
    let octets = unarmoured(p7s)?;
    let fault = |fault: der::Error| match fault.kind() {
        der::ErrorKind::IndefiniteLength => CmsError::Indefinite,
        _ => CmsError::Der(DerFault::within("CMS")(fault)),
    };
    let info = ContentInfo::from_der(&octets).map_err(fault)?;
    if info.kind != SIGNED_DATA {
        return Err(CmsError::NotSignedData { found: info.kind });
    }
    let data: SignedData<'_> = info.content.decode_as().map_err(fault)?;
    // Encoding again shows what a reader forgives: a set in another order, a DEFAULT that was written out.
    if info.to_der().map_err(fault)? != *octets
        || data.to_der().map_err(fault)? != info.content.to_der().map_err(fault)?
    {
        return Err(CmsError::NotCanonical { within: "SignedData" });
    }
    if data.content.kind != DATA {
        return Err(CmsError::NotData { found: data.content.kind });
    }
    if data.content.content.is_some() {
        return Err(CmsError::NotDetached);
    }
    if data.crls.is_some() {
        return Err(CmsError::Crls);
    }
    let certificates = read_certificates(data.certificates.as_ref())?;
    let of = data.signers.len();
    if !(1..=SIGNERS_MAX).contains(&of) {
        return Err(CmsError::Count { what: "signers", max: SIGNERS_MAX, found: of });
    }
    let mut signers = Vec::with_capacity(of);
    let mut keys = BTreeSet::new();
    let mut expected_version = 1;
    for (index, signer) in data.signers.iter().enumerate() {
        let verified = verify_signer(*signer, &certificates, document, ess);
        let (version, signer) = verified.map_err(|fault| CmsError::Signer { number: index + 1, of, fault })?;
        expected_version = expected_version.max(version);
        if !keys.insert(signer.spki_sha256()) {
            return Err(CmsError::DuplicateSigner { spki_sha256: signer.spki_sha256() });
        }
        signers.push(signer);
    }
    // RFC 5652 5.1: 3 if any signer is named by its key identifier, else 1.
    if data.version != expected_version {
        return Err(CmsError::Version { expected: expected_version, found: data.version });
    }
    Ok(Verified { signers, certificates })
}

/// The DER inside a PEM file; DER as it is.
fn unarmoured(p7s: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, CmsError> {
    const LABELS: [&str; 2] = ["CMS", "PKCS7"];
    if p7s.len() > P7S_LEN_MAX {
        return Err(CmsError::TooLong { found: p7s.len() });
    }
    if p7s.starts_with(b"MIME-Version:") {
        return Err(CmsError::Smime);
    }
    if !pem::is_pem(p7s) {
        return Ok(p7s.into());
    }
    let blocks = pem::blocks(pem::text(p7s)?)?;
    match blocks.as_slice() {
        [block] if LABELS.contains(&block.label) => Ok(block.decode()?.into()),
        [] | [_] => Err(pem::absent(LABELS[0], &blocks).into()),
        [_, _, ..] => Err(PemError::TooMany { wanted: LABELS[0], max: 1, found: blocks.len() }.into()),
    }
}

fn read_certificates(embedded: Option<&SetOfVec<AnyRef<'_>>>) -> Result<Vec<Certificate>, CmsError> {
    let found = embedded.map_or(0, SetOfVec::len);
    if found > CERTIFICATES_MAX {
        return Err(CmsError::Count { what: "certificates", max: CERTIFICATES_MAX, found });
    }
    let mut certificates = Vec::with_capacity(found);
    let mut seen = BTreeSet::new();
    for (index, any) in embedded.into_iter().flat_map(SetOfVec::iter).enumerate() {
        let unreadable = |fault| CmsError::Certificate { number: index + 1, fault };
        let octets = any.to_der().map_err(|fault| unreadable(DerFault::within("certificate")(fault).into()))?;
        let certificate = Certificate::from_der(&octets).map_err(unreadable)?;
        if !seen.insert(certificate.sha256()) {
            return Err(CmsError::DuplicateCertificate { sha256: certificate.sha256() });
        }
        certificates.push(certificate);
    }
    Ok(certificates)
}

/// Answers the version of SignerInfo too, on which that of SignedData depends.
fn verify_signer(
    signer: AnyRef<'_>,
    certificates: &[Certificate],
    document: &Digest,
    ess: Ess,
) -> Result<(u8, VerifiedSigner), SignerFault> {
    let fault = DerFault::within("SignerInfo");
    let info: SignerInfo<'_> = signer.decode_as().map_err(&fault)?;
    if info.to_der().map_err(&fault)? != signer.to_der().map_err(&fault)? {
        return Err(SignerFault::NotCanonical);
    }
    let expected = info.sid.version();
    if info.version != expected {
        return Err(SignerFault::Version { expected, found: info.version });
    }
    if !is_plain(info.digest_algorithm, SHA256) {
        return Err(SignerFault::DigestAlgorithm { found: info.digest_algorithm.oid });
    }
    if !is_plain(info.signature_algorithm, ECDSA_WITH_SHA256) {
        return Err(SignerFault::SignatureAlgorithm { found: info.signature_algorithm.oid });
    }
    if let Some(unsigned) = &info.unsigned_attributes {
        return Err(SignerFault::UnsignedAttributes { found: unsigned.len() });
    }
    let attributes = info.signed_attributes.as_ref().ok_or(SignerFault::NoSignedAttributes)?;
    let attributes = Attributes::read(attributes)?;
    attributes.check_content(document)?;
    let certificate = info.sid.find(certificates)?;
    let key = certificate.public_key()?;
    attributes.check_signing_certificate(certificate, ess)?;
    let claimed_signing_time = attributes.signing_time()?;
    // RFC 5652 5.4: what is signed is the DER of the SET OF, not of the [0] it travels under.
    let attributes_der = attributes.0.to_der().map_err(&fault)?;
    if !key.verifies_der(&attributes_der, info.signature.as_bytes()) {
        return Err(SignerFault::Forged { subject: certificate.subject_text() });
    }
    Ok((expected, VerifiedSigner { certificate: certificate.clone(), claimed_signing_time }))
}

/// Whether an algorithm is the one named, its parameters absent or, as some tools write, NULL.
fn is_plain(algorithm: Algorithm<'_>, expected: ObjectIdentifier) -> bool {
    algorithm.oid == expected && algorithm.parameters.is_none_or(AnyRef::is_null)
}

impl SignerId<'_> {
    const fn version(self) -> u8 {
        match self {
            Self::IssuerAndSerial(_) => 1,
            Self::KeyIdentifier(_) => 3,
        }
    }

    fn find(self, certificates: &[Certificate]) -> Result<&Certificate, SignerFault> {
        let (sid, fitting): (String, Vec<&Certificate>) = match self {
            Self::IssuerAndSerial(IssuerAndSerial { issuer, serial }) => {
                let issuer = issuer.to_der().map_err(DerFault::within("issuer of the signer"))?;
                let fits = |c: &&Certificate| c.issuer() == issuer && c.serial() == serial.as_bytes();
                let sid = format!("serial number {}", hex::encode(serial.as_bytes()));
                (sid, certificates.iter().filter(fits).collect())
            }
            Self::KeyIdentifier(key) => {
                let fits = |c: &&Certificate| c.subject_key_identifier() == Ok(Some(key.as_bytes()));
                let sid = format!("key identifier {}", hex::encode(key.as_bytes()));
                (sid, certificates.iter().filter(fits).collect())
            }
        };
        match fitting.as_slice() {
            [one] => Ok(one),
            [] => Err(SignerFault::CertificateAbsent { sid, found: certificates.len() }),
            [_, _, ..] => Err(SignerFault::CertificateAmbiguous { sid, found: fitting.len() }),
        }
    }
}

/// Signed attributes, each once.
struct Attributes<'a, 'b>(&'b SetOfVec<Attribute<'a>>);

impl<'a, 'b> Attributes<'a, 'b> {
    fn read(attributes: &'b SetOfVec<Attribute<'a>>) -> Result<Self, SignerFault> {
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(SignerFault::TooManyAttributes { found: attributes.len() });
        }
        let mut seen = BTreeSet::new();
        for Attribute { kind, values } in attributes.iter() {
            if !seen.insert(*kind) {
                return Err(SignerFault::DuplicateAttribute { found: *kind });
            }
            if values.is_empty() {
                return Err(SignerFault::AttributeValues { attribute: *kind, found: 0 });
            }
        }
        Ok(Self(attributes))
    }

    /// The one value of an attribute.
    fn value(&self, kind: ObjectIdentifier) -> Result<Option<AnyRef<'a>>, SignerFault> {
        let Some(attribute) = self.0.iter().find(|attribute| attribute.kind == kind) else { return Ok(None) };
        match attribute.values.as_slice() {
            [value] => Ok(Some(*value)),
            values => Err(SignerFault::AttributeValues { attribute: kind, found: values.len() }),
        }
    }

    fn check_content(&self, document: &Digest) -> Result<(), SignerFault> {
        let absent = |attribute| SignerFault::AttributeAbsent { attribute, advice: "" };
        let kind = self.value(CONTENT_TYPE)?.ok_or(absent("contentType"))?;
        let kind: ObjectIdentifier = kind.decode_as().map_err(DerFault::within("contentType"))?;
        if kind != DATA {
            return Err(SignerFault::ContentType { found: kind });
        }
        let digest = self.value(MESSAGE_DIGEST)?.ok_or(absent("messageDigest"))?;
        digest.tag().assert_eq(Tag::OctetString).map_err(DerFault::within("messageDigest"))?;
        if digest.value() != document.octets() {
            // SHA-512 is 64 octets; whatever is longer need not be shown in full.
            let found = hex::encode(digest.value().get(..64).unwrap_or(digest.value()));
            return Err(SignerFault::OtherDocument { expected: *document, found });
        }
        Ok(())
    }

    fn check_signing_certificate(&self, certificate: &Certificate, ess: Ess) -> Result<(), SignerFault> {
        let fault = DerFault::within("signing-certificate-v2");
        let Some(value) = self.value(SIGNING_CERTIFICATE_V2)? else {
            return match ess {
                Ess::Required => Err(SignerFault::AttributeAbsent {
                    attribute: "signing-certificate-v2",
                    advice: "; sign with -cades, or have the policy waive it for this signer",
                }),
                Ess::Waived => Ok(()),
            };
        };
        let wrong = |found: String| SignerFault::SigningCertificate { expected: certificate.sha256(), found };
        let ess: SigningCertificateV2<'_> = value.decode_as().map_err(&fault)?;
        // RFC 5035 3: the first is the signer's own; further ones narrow the path and are passed over.
        let first = ess.certificates.first().ok_or_else(|| wrong("no certificate".to_owned()))?;
        if let Some(algorithm) = first.hash_algorithm.filter(|algorithm| !is_plain(*algorithm, SHA256)) {
            return Err(wrong(format!("the digest algorithm {}", algorithm.oid)));
        }
        if first.hash.as_bytes() != certificate.sha256().octets() {
            return Err(wrong(hex::encode(first.hash.as_bytes().get(..64).unwrap_or(first.hash.as_bytes()))));
        }
        if let Some(IssuerSerial { issuer, serial }) = &first.issuer_serial {
            let same_issuer = issuer.name.to_der().map_err(fault)? == certificate.issuer();
            if !same_issuer || serial.as_bytes() != certificate.serial() {
                return Err(wrong("its digest beside the issuer or serial number of another".to_owned()));
            }
        }
        Ok(())
    }

    fn signing_time(&self) -> Result<Option<Timestamp>, SignerFault> {
        let read = |value: AnyRef<'_>| Time::from_der(&value.to_der()?).map(Time::to_timestamp);
        let value = self.value(SIGNING_TIME)?;
        Ok(value.map(read).transpose().map_err(DerFault::within("signingTime"))?)
    }
}

/// The octets a signer signs: the DER SET of the signed attributes contentType, signingTime, messageDigest and
/// signing-certificate-v2 (RFC 5652 5.4).
pub fn signed_attributes(
    document: &Digest,
    certificate: &Certificate,
    signing_time: Timestamp,
) -> Result<Vec<u8>, CmsError> {
    let fault = DerFault::within("signed attributes");
    let time = Time::from_timestamp(signing_time).to_der().map_err(&fault)?;
    let kind = DATA.to_der().map_err(&fault)?;
    let digest = OctetStringRef::new(document.octets()).and_then(|digest| digest.to_der()).map_err(&fault)?;
    let certificate_sha256 = certificate.sha256();
    let ess = SigningCertificateV2 {
        certificates: vec![EssCertIdV2 {
            hash_algorithm: None,
            hash: OctetStringRef::new(certificate_sha256.octets()).map_err(&fault)?,
            issuer_serial: Some(IssuerSerial {
                issuer: DirectoryName { name: AnyRef::from_der(certificate.issuer()).map_err(&fault)? },
                serial: IntRef::new(certificate.serial()).map_err(&fault)?,
            }),
        }],
        policies: None,
    };
    let ess = ess.to_der().map_err(&fault)?;
    let attribute = |(kind, value): (ObjectIdentifier, &'_ Vec<u8>)| -> der::Result<Vec<u8>> {
        Attribute { kind, values: SetOfVec::from_iter([AnyRef::from_der(value)?])? }.to_der()
    };
    let attributes =
        [(CONTENT_TYPE, &kind), (SIGNING_TIME, &time), (MESSAGE_DIGEST, &digest), (SIGNING_CERTIFICATE_V2, &ess)]
            .map(attribute)
            .into_iter()
            .collect::<der::Result<Vec<_>>>()
            .map_err(&fault)?;
    let set =
        attributes.iter().map(|octets| AnyRef::from_der(octets)).collect::<der::Result<Vec<_>>>().map_err(&fault)?;
    Ok(SetOfVec::from_iter(set).and_then(|set| set.to_der()).map_err(fault)?)
}

/// The `.p7s` in DER from the signed attributes and the signature over them, 64 octets of `r ‖ s`. The signer's certificate
/// and those in `others`, such as a CA's in between, go in. Whether the signature verifies is not looked at.
pub fn assemble(
    signed_attributes: &[u8],
    signature: &[u8; FIXED_LEN],
    certificate: &Certificate,
    others: &[Certificate],
) -> Result<Vec<u8>, CmsError> {
    let fault = DerFault::within("CMS");
    let digest_algorithm = Algorithm { oid: SHA256, parameters: None };
    let signature = to_der(signature)?;
    let signer = SignerInfo {
        version: 1,
        sid: SignerId::IssuerAndSerial(IssuerAndSerial {
            issuer: AnyRef::from_der(certificate.issuer()).map_err(&fault)?,
            serial: IntRef::new(certificate.serial()).map_err(&fault)?,
        }),
        digest_algorithm,
        signed_attributes: Some(SetOfVec::from_der(signed_attributes).map_err(&fault)?),
        signature_algorithm: ECDSA,
        signature: OctetStringRef::new(&signature).map_err(&fault)?,
        unsigned_attributes: None,
    };
    let signer = signer.to_der().map_err(&fault)?;
    let mut embedded = vec![certificate];
    embedded.extend(others.iter().filter(|other| other.sha256() != certificate.sha256()));
    let embedded = embedded.into_iter().map(|c| AnyRef::from_der(c.octets())).collect::<der::Result<Vec<_>>>();
    let data = SignedData {
        version: 1,
        digest_algorithms: SetOfVec::from_iter([digest_algorithm]).map_err(&fault)?,
        content: EncapsulatedContent { kind: DATA, content: None },
        certificates: Some(embedded.and_then(SetOfVec::from_iter).map_err(&fault)?),
        crls: None,
        signers: AnyRef::from_der(&signer).and_then(|signer| SetOfVec::from_iter([signer])).map_err(&fault)?,
    };
    let data = data.to_der().map_err(&fault)?;
    let content = AnyRef::from_der(&data).map_err(&fault)?;
    Ok(ContentInfo { kind: SIGNED_DATA, content }.to_der().map_err(fault)?)
}
