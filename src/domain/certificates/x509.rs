//! Pure. Any X.509 certificate, read strictly as DER, its octets kept.
//!
//! What is read here is what every certificate has (RFC 5280 4.1). What an SMKI certificate must have besides is in
//! `profile`; what a person's must have is in `person`.

use std::ops::Range;

use der::asn1::{
    AnyRef, BitStringRef, GeneralizedTime, IntRef, ObjectIdentifier, OctetStringRef, PrintableStringRef, SetOfVec,
    UtcTime, Utf8StringRef,
};
use der::{Choice, Decode, Encode, Length, Reader, Sequence, Tag, Tagged, ValueOrd, Writer};

use super::DerFault;
use super::signature::{PublicKey, PublicKeyError};
use crate::domain::names::Digest;
use crate::domain::time::Timestamp;

/// Most octets of one certificate. SMKI's have about 420; a person's with a long chain of extensions some 2,000.
pub const CERTIFICATE_LEN_MAX: usize = 8 * 1024; // No official reference.

/// Most extensions of one certificate, so that looking for duplicates stays cheap.
pub const EXTENSIONS_MAX: usize = 32; // No official reference.

/// Most attributes of one name.
pub const NAME_ATTRIBUTES_MAX: usize = 32; // No official reference.

/// ecdsa-with-SHA256 (RFC 5758 3.2).
pub const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// subjectKeyIdentifier (RFC 5280 4.2.1.2).
pub const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
/// keyUsage (RFC 5280 4.2.1.3).
pub const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
/// subjectAltName (RFC 5280 4.2.1.6).
pub const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// basicConstraints (RFC 5280 4.2.1.9).
pub const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
/// certificatePolicies (RFC 5280 4.2.1.4).
pub const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
/// authorityKeyIdentifier (RFC 5280 4.2.1.1).
pub const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
/// extKeyUsage (RFC 5280 4.2.1.12).
pub const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");

/// commonName (RFC 4519 2.3).
pub const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// organizationalUnitName (RFC 4519 2.20).
pub const ORGANISATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
/// x500UniqueIdentifier (RFC 4519 2.44).
pub const UNIQUE_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.45");

/// `TBSCertificate` (RFC 5280 4.1), its parts in the octets they came in.
#[derive(Sequence)]
pub(super) struct Body<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) version: Option<u8>,
    pub(super) serial: IntRef<'a>,
    pub(super) algorithm: Algorithm<'a>,
    pub(super) issuer: Whole<'a>,
    pub(super) validity: Validity,
    pub(super) subject: Whole<'a>,
    pub(super) spki: Whole<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Vec<RawExtension<'a>>>,
}

/// Any element in the octets it came in, its tag and length among them.
#[derive(Clone, Copy)]
pub(super) struct Whole<'a>(pub(super) &'a [u8]);

impl<'a> Decode<'a> for Whole<'a> {
    type Error = der::Error;

    fn decode<R: Reader<'a>>(reader: &mut R) -> der::Result<Self> {
        reader.tlv_bytes().map(Self)
    }
}

impl Encode for Whole<'_> {
    fn encoded_len(&self) -> der::Result<Length> {
        self.0.len().try_into()
    }

    fn encode(&self, out: &mut impl Writer) -> der::Result<()> {
        out.write(self.0)
    }
}

/// `Certificate`, a CertificationRequest too: a body, an algorithm and a signature over the body.
#[derive(Sequence)]
pub(super) struct Signed<'a> {
    pub(super) body: Whole<'a>,
    pub(super) algorithm: Algorithm<'a>,
    pub(super) signature: BitStringRef<'a>,
}

/// `AlgorithmIdentifier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Sequence, ValueOrd)]
pub(crate) struct Algorithm<'a> {
    pub(crate) oid: ObjectIdentifier,
    #[asn1(optional = "true")]
    pub(crate) parameters: Option<AnyRef<'a>>,
}

/// ecdsa-with-SHA256, whose parameters are absent (RFC 5758 3.2).
pub(crate) const ECDSA: Algorithm<'static> = Algorithm { oid: ECDSA_WITH_SHA256, parameters: None };

/// `Time ::= CHOICE { utcTime, generalTime }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(crate) enum Time {
    /// Until 2049.
    #[asn1(type = "UTCTime")]
    Utc(UtcTime),
    /// From 2050 on.
    #[asn1(type = "GeneralizedTime")]
    Generalized(GeneralizedTime),
}

impl Time {
    pub(crate) fn to_timestamp(self) -> Timestamp {
        let since = match self {
            Self::Utc(time) => time.to_unix_duration(),
            Self::Generalized(time) => time.to_unix_duration(),
        };
        let ms = i64::try_from(since.as_millis()).expect("a DER time ends with the year 9999");
        Timestamp::from_unix_ms(ms).expect("a DER time lies between 1970 and 9999")
    }

    /// UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 4.1.2.5). Milliseconds are cut off.
    pub(crate) fn from_timestamp(at: Timestamp) -> Self {
        let seconds = u64::try_from(at.unix_seconds()).expect("a moment is never before 1970");
        let since = std::time::Duration::from_secs(seconds);
        match UtcTime::from_unix_duration(since) {
            Ok(time) => Self::Utc(time),
            Err(_) => {
                Self::Generalized(GeneralizedTime::from_unix_duration(since).expect("a moment ends with the year 9999"))
            }
        }
    }
}

/// `Validity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Sequence)]
pub(super) struct Validity {
    pub(super) not_before: Time,
    pub(super) not_after: Time,
}

/// `Extension`.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct RawExtension<'a> {
    pub(super) id: ObjectIdentifier,
    /// DEFAULT FALSE: there only where it is TRUE.
    #[asn1(optional = "true")]
    pub(super) critical: Option<bool>,
    pub(super) value: &'a OctetStringRef,
}

/// `AttributeTypeAndValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Sequence, ValueOrd)]
pub(super) struct NameAttribute<'a> {
    pub(super) kind: ObjectIdentifier,
    pub(super) value: AnyRef<'a>,
}

/// `RDNSequence`.
pub(super) type Rdns<'a> = Vec<SetOfVec<NameAttribute<'a>>>;

/// An extension of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// extnID.
    pub id: ObjectIdentifier,
    /// Whether whoever does not know it must refuse the certificate.
    pub critical: bool,
    /// The DER inside extnValue.
    pub value: Vec<u8>,
}

/// Why octets are not a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    /// Longer than [`CERTIFICATE_LEN_MAX`].
    #[error("certificate: expected at most {CERTIFICATE_LEN_MAX} octets, found {found}")]
    TooLong {
        /// How many octets there were.
        found: usize,
    },
    /// Not strict DER of the right shape.
    #[error(transparent)]
    Der(#[from] DerFault),
    /// DER that can be written shorter or in another order.
    #[error("certificate: expected the one DER encoding of its contents (RFC 5280 4.1), found another")]
    NotCanonical,
    /// More extensions or attributes of a name than the limit.
    #[error("certificate: expected at most {max} {what}, found {found}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// One extension twice (RFC 5280 4.2).
    #[error("certificate: expected each extension once, found {id} twice")]
    DuplicateExtension {
        /// Which.
        id: ObjectIdentifier,
    },
    /// The two signature algorithms differ (RFC 5280 4.1.1.2).
    #[error("certificate: expected the same signature algorithm inside and outside, found {inside} and {outside}")]
    AlgorithmsDiffer {
        /// Within the signed body.
        inside: ObjectIdentifier,
        /// Beside the signature.
        outside: ObjectIdentifier,
    },
}

/// A certificate as it came, with what every certificate says. Digests and texts are made when they are asked for: of millions of
/// certificates of Devices none is.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    octets: Vec<u8>,
    body: Range<usize>,
    version: u8,
    serial: Range<usize>,
    algorithm: ObjectIdentifier,
    algorithm_bare: bool,
    issuer: Range<usize>,
    subject: Range<usize>,
    not_before: Timestamp,
    not_after: Timestamp,
    times_shortest: bool,
    spki: Range<usize>,
    unique_ids: bool,
    extensions: Vec<Extension>,
    signature: Range<usize>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({:?}, SHA-256 {})", self.subject_text(), self.sha256())
    }
}

/// Why a name is one.
const READ: &str = "both names were read with the certificate";

impl Certificate {
    /// Reads one certificate of at most [`CERTIFICATE_LEN_MAX`] octets of DER, and nothing behind it.
    pub fn from_der(octets: &[u8]) -> Result<Self, X509Error> {
        let fault = DerFault::within("certificate");
        if octets.len() > CERTIFICATE_LEN_MAX {
            return Err(X509Error::TooLong { found: octets.len() });
        }
        let signed = Signed::from_der(octets).map_err(&fault)?;
        let body = Body::from_der(signed.body.0).map_err(&fault)?;
        let signature = signed.signature.as_bytes().ok_or(X509Error::NotCanonical)?;
        if body.algorithm != signed.algorithm {
            let (inside, outside) = (body.algorithm.oid, signed.algorithm.oid);
            return Err(X509Error::AlgorithmsDiffer { inside, outside });
        }
        let raw_extensions = body.extensions.unwrap_or_default();
        if raw_extensions.len() > EXTENSIONS_MAX {
            return Err(X509Error::TooMany { what: "extensions", max: EXTENSIONS_MAX, found: raw_extensions.len() });
        }
        let mut extensions: Vec<Extension> = Vec::with_capacity(raw_extensions.len());
        for RawExtension { id, critical, value } in raw_extensions {
            if extensions.iter().any(|seen| seen.id == id) {
                return Err(X509Error::DuplicateExtension { id });
            }
            // A DEFAULT that was written out is all that the reader forgives of these types, as a test shows that encodes them again; to do
            // that here would take as long as to read them.
            if critical == Some(false) {
                return Err(X509Error::NotCanonical);
            }
            let critical = critical.unwrap_or_default();
            extensions.push(Extension { id, critical, value: value.as_bytes().to_vec() });
        }
        let Validity { not_before, not_after } = body.validity;
        let times_shortest =
            [not_before, not_after].iter().all(|time| *time == Time::from_timestamp(time.to_timestamp()));
        let (Whole(issuer), Whole(subject), Whole(spki)) = (body.issuer, body.subject, body.spki);
        name(issuer)?;
        name(subject)?;
        // All of them are parts of it; one of no octets may lie anywhere.
        let place = |part: &[u8]| {
            if part.is_empty() {
                return 0..0;
            }
            let from = part.as_ptr().addr() - octets.as_ptr().addr();
            from..from + part.len()
        };
        Ok(Self {
            body: place(signed.body.0),
            version: body.version.map_or(1, |version| version.saturating_add(1)),
            serial: place(body.serial.as_bytes()),
            algorithm: body.algorithm.oid,
            algorithm_bare: body.algorithm.parameters.is_none(),
            issuer: place(issuer),
            subject: place(subject),
            not_before: not_before.to_timestamp(),
            not_after: not_after.to_timestamp(),
            times_shortest,
            spki: place(spki),
            unique_ids: body.issuer_unique_id.is_some() || body.subject_unique_id.is_some(),
            extensions,
            signature: place(signature),
            octets: octets.to_vec(),
        })
    }

    /// The whole certificate, as it came.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The octets that its issuer signed (tbsCertificate).
    pub fn body(&self) -> &[u8] {
        &self.octets[self.body.clone()]
    }

    /// 1, 2 or 3.
    pub const fn version(&self) -> u8 {
        self.version
    }

    /// The contents of the INTEGER serialNumber: two's complement, most significant first, no octet too many.
    pub fn serial(&self) -> &[u8] {
        &self.octets[self.serial.clone()]
    }

    /// The issuer's name in DER.
    pub fn issuer(&self) -> &[u8] {
        &self.octets[self.issuer.clone()]
    }

    /// The subject's name in DER.
    pub fn subject(&self) -> &[u8] {
        &self.octets[self.subject.clone()]
    }

    /// The issuer's name for people, in the order of the certificate: `OU=07, CN=Z1`.
    pub fn issuer_text(&self) -> String {
        name_text(&name(self.issuer()).expect(READ))
    }

    /// The subject's name for people: `OU=01, uniqueIdentifier=90B3D51F30000001`. Empty if the name is. Safe on a terminal.
    pub fn subject_text(&self) -> String {
        name_text(&name(self.subject()).expect(READ))
    }

    /// The first second of its validity.
    pub const fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The last second of its validity, which is still inside (RFC 5280 4.1.2.5).
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether it is valid at `at`, from its first second to the end of its last.
    pub fn is_in_force(&self, at: Timestamp) -> bool {
        self.not_before.unix_seconds() <= at.unix_seconds() && at.unix_seconds() <= self.not_after.unix_seconds()
    }

    /// Whether UTCTime is used until 2049 and GeneralizedTime from 2050 on (RFC 5280 4.1.2.5).
    pub const fn has_times_in_their_form(&self) -> bool {
        self.times_shortest
    }

    /// The SubjectPublicKeyInfo in DER.
    pub fn spki(&self) -> &[u8] {
        &self.octets[self.spki.clone()]
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what policy pins people and keys by.
    pub fn spki_sha256(&self) -> Digest {
        Digest::of(self.spki())
    }

    /// SHA-256 of the whole certificate.
    pub fn sha256(&self) -> Digest {
        Digest::of(&self.octets)
    }

    /// The public key, if it is one on P-256.
    pub fn public_key(&self) -> Result<PublicKey, PublicKeyError> {
        PublicKey::from_spki(self.spki())
    }

    /// The algorithm of its signature.
    pub const fn algorithm(&self) -> ObjectIdentifier {
        self.algorithm
    }

    /// Whether its signature is ecdsa-with-SHA256, without parameters.
    pub fn is_signed_with_ecdsa_sha256(&self) -> bool {
        self.algorithm == ECDSA_WITH_SHA256 && self.algorithm_bare
    }

    /// Its issuer's signature: the contents of the BIT STRING.
    pub fn signature(&self) -> &[u8] {
        &self.octets[self.signature.clone()]
    }

    /// Whether issuerUniqueID or subjectUniqueID, relics of version 2, are there.
    pub const fn has_unique_ids(&self) -> bool {
        self.unique_ids
    }

    /// All extensions, in order.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// One extension.
    pub fn extension(&self, id: ObjectIdentifier) -> Option<&Extension> {
        self.extensions.iter().find(|extension| extension.id == id)
    }

    /// The bits of keyUsage, if it is there. Bit n of the result is bit n of the BIT STRING (0 digitalSignature, 1
    /// nonRepudiation, 4 keyAgreement, 5 keyCertSign, 6 cRLSign).
    pub fn key_usage(&self) -> Result<Option<KeyUsage>, DerFault> {
        self.extension(KEY_USAGE).map(|extension| KeyUsage::from_der(&extension.value)).transpose()
    }

    /// basicConstraints, if it is there.
    pub fn basic_constraints(&self) -> Result<Option<BasicConstraints>, DerFault> {
        let read = |extension: &Extension| {
            BasicConstraints::from_der(&extension.value).map_err(DerFault::within("basicConstraints"))
        };
        self.extension(BASIC_CONSTRAINTS).map(read).transpose()
    }

    /// subjectKeyIdentifier, if it is there.
    pub fn subject_key_identifier(&self) -> Result<Option<&[u8]>, DerFault> {
        match self.extension(SUBJECT_KEY_IDENTIFIER) {
            None => Ok(None),
            Some(extension) => <&OctetStringRef>::from_der(&extension.value)
                .map(|key| Some(key.as_bytes()))
                .map_err(DerFault::within("subjectKeyIdentifier")),
        }
    }

    /// authorityKeyIdentifier, if it is there.
    pub fn authority_key_identifier(&self) -> Result<Option<AuthorityKeyIdentifier>, DerFault> {
        let read = |extension: &Extension| AuthorityKeyIdentifier::from_der(&extension.value);
        self.extension(AUTHORITY_KEY_IDENTIFIER).map(read).transpose()
    }

    /// The OIDs of certificatePolicies, if it is there. Qualifiers are passed over.
    pub fn policies(&self) -> Result<Option<Vec<ObjectIdentifier>>, DerFault> {
        let read = |extension: &Extension| {
            Vec::<PolicyInformation<'_>>::from_der(&extension.value)
                .map(|policies| policies.iter().map(|policy| policy.oid).collect())
                .map_err(DerFault::within("certificatePolicies"))
        };
        self.extension(CERTIFICATE_POLICIES).map(read).transpose()
    }
}

/// `PolicyInformation` (RFC 5280 4.2.1.4).
#[derive(Sequence)]
pub(super) struct PolicyInformation<'a> {
    pub(super) oid: ObjectIdentifier,
    #[asn1(optional = "true")]
    pub(super) qualifiers: Option<AnyRef<'a>>,
}

/// `BasicConstraints` (RFC 5280 4.2.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Sequence)]
pub struct BasicConstraints {
    /// Whether the subject may issue certificates.
    #[asn1(default = "Default::default")]
    pub ca: bool,
    /// How many further CAs may stand between the subject and a leaf.
    #[asn1(optional = "true")]
    pub path_len: Option<u8>,
}

/// `AuthorityKeyIdentifier` (RFC 5280 4.2.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityKeyIdentifier {
    /// `[0] keyIdentifier`: the issuer's subjectKeyIdentifier.
    pub key: Option<Vec<u8>>,
    /// Whether it names the issuer's certificate by authorityCertIssuer or authorityCertSerialNumber too.
    pub names_certificate: bool,
}

impl AuthorityKeyIdentifier {
    fn from_der(der: &[u8]) -> Result<Self, DerFault> {
        let fault = DerFault::within("authorityKeyIdentifier");
        let mut read = Self { key: None, names_certificate: false };
        let mut next = 0; // The three fields are optional and in order: [0], [1], [2].
        for part in Vec::<AnyRef<'_>>::from_der(der).map_err(&fault)? {
            match part.tag() {
                Tag::ContextSpecific { number, .. } if (next..3).contains(&number.value()) => {
                    next = number.value() + 1;
                    if number.value() == 0 {
                        read.key = Some(part.value().to_vec());
                    } else {
                        read.names_certificate = true;
                    }
                }
                tag => return Err(fault(tag.unexpected_error(None).to_error())),
            }
        }
        Ok(read)
    }
}

/// The bits of keyUsage: bit n is bit n of the BIT STRING.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyUsage(u16);

impl KeyUsage {
    /// cRLSign and nothing else.
    pub const CRL_SIGN: Self = Self(1 << 6);
    /// digitalSignature and nothing else: `03020780`.
    pub const DIGITAL_SIGNATURE: Self = Self(1);
    /// keyAgreement and nothing else: `03020308`.
    pub const KEY_AGREEMENT: Self = Self(1 << 4);
    /// keyCertSign and nothing else: `03020204`.
    pub const KEY_CERT_SIGN: Self = Self(1 << 5);
    /// keyCertSign and cRLSign: `03020106`.
    pub const KEY_CERT_SIGN_AND_CRL_SIGN: Self = Self(1 << 5 | 1 << 6);
    /// nonRepudiation (contentCommitment) and nothing else.
    pub const NON_REPUDIATION: Self = Self(1 << 1);

    const NAMES: [&str; 9] = [
        "digitalSignature",
        "nonRepudiation",
        "keyEncipherment",
        "dataEncipherment",
        "keyAgreement",
        "keyCertSign",
        "cRLSign",
        "encipherOnly",
        "decipherOnly",
    ];

    /// Whether any bit of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn from_der(der: &[u8]) -> Result<Self, DerFault> {
        let fault = DerFault::within("keyUsage");
        let bits = BitStringRef::from_der(der).map_err(&fault)?;
        // A named bit list drops trailing zero bits (X.690 11.2.2), which also says that one octet or two suffice.
        let last = bits.raw_bytes().last().copied().unwrap_or(0);
        let canonical = last.trailing_zeros() == u32::from(bits.unused_bits());
        if !canonical || bits.bit_len() > Self::NAMES.len() {
            return Err(fault(Tag::BitString.value_error().into()));
        }
        let set = bits.bits().enumerate().filter(|(_, set)| *set);
        Ok(Self(set.fold(0, |all, (bit, _)| all | 1 << bit)))
    }

    pub(super) fn to_der(self) -> Vec<u8> {
        let bit_len = u8::try_from(16 - self.0.leading_zeros()).expect("a u16 has 16 bits");
        let mut octets = vec![0; usize::from(bit_len.div_ceil(8))];
        for bit in (0..bit_len).filter(|bit| self.0 >> bit & 1 == 1) {
            octets[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
        }
        let unused = (8 - bit_len % 8) % 8;
        BitStringRef::new(unused, &octets)
            .and_then(|bits| bits.to_der())
            .expect("at most two octets, of which fewer than eight bits are unused")
    }
}

impl std::fmt::Display for KeyUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = Self::NAMES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1);
        let names: Vec<_> = set.map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "no bit" } else { "" })?;
        f.write_str(&names.join("+"))
    }
}

impl std::fmt::Debug for KeyUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyUsage({self})")
    }
}

/// Reads a name (RFC 5280 4.1.2.4).
pub(super) fn name(der: &[u8]) -> Result<Rdns<'_>, X509Error> {
    let fault = DerFault::within("name");
    let rdns = Rdns::from_der(der).map_err(&fault)?;
    // A reader forgives a set in another order, which one of one attribute, as nearly all are, has not.
    if rdns.iter().any(|rdn| rdn.len() != 1) && rdns.to_der().map_err(fault)? != der {
        return Err(X509Error::NotCanonical);
    }
    let found = rdns.iter().map(SetOfVec::len).sum();
    if found > NAME_ATTRIBUTES_MAX {
        return Err(X509Error::TooMany { what: "attributes of a name", max: NAME_ATTRIBUTES_MAX, found });
    }
    Ok(rdns)
}

/// A name for people, in the order it is written in, safe on a terminal.
fn name_text(rdns: &Rdns<'_>) -> String {
    let texts = rdns.iter().map(|rdn| rdn.iter().map(attribute_text).collect::<Vec<_>>().join(" + "));
    texts.collect::<Vec<_>>().join(", ")
}

fn attribute_text(attribute: &NameAttribute<'_>) -> String {
    const NAMES: [(&str, ObjectIdentifier); 8] = [
        ("CN", COMMON_NAME),
        ("OU", ORGANISATIONAL_UNIT),
        ("uniqueIdentifier", UNIQUE_IDENTIFIER),
        ("serialNumber", ObjectIdentifier::new_unwrap("2.5.4.5")),
        ("C", ObjectIdentifier::new_unwrap("2.5.4.6")),
        ("L", ObjectIdentifier::new_unwrap("2.5.4.7")),
        ("ST", ObjectIdentifier::new_unwrap("2.5.4.8")),
        ("O", ObjectIdentifier::new_unwrap("2.5.4.10")),
    ];
    let known = NAMES.iter().find(|(_, kind)| *kind == attribute.kind);
    let kind = known.map_or_else(|| attribute.kind.to_string(), |(name, _)| (*name).to_owned());
    let value = match (string(attribute.value), octets_of_bit_string(attribute.value)) {
        (Some(text), _) => text.replace('\\', "\\\\").replace(',', "\\,").replace('+', "\\+"),
        (None, Some(octets)) => hex::encode_upper(octets),
        (None, None) => format!("#{}", hex::encode(attribute.value.value())),
    };
    // A name is somebody else's text: what would move a cursor or turn a line around is shown and not done.
    let mut shown = format!("{kind}=");
    for c in value.chars() {
        let harmless = c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ';
        if harmless { shown.push(c) } else { shown.extend(c.escape_unicode()) }
    }
    shown
}

/// The text of a UTF8String or PrintableString.
pub(super) fn string(value: AnyRef<'_>) -> Option<&str> {
    match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str()),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.as_str()),
        _ => None,
    }
}

/// The octets of a BIT STRING without unused bits.
pub(super) fn octets_of_bit_string(value: AnyRef<'_>) -> Option<&[u8]> {
    match value.tag() {
        Tag::BitString => value.decode_as::<BitStringRef<'_>>().ok().and_then(|bits| bits.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
