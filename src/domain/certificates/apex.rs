//! Pure. The Contingency Public Key as a Root OCA Certificate carries it: encrypted, in the extension
//! id-pe-wrappedApexContinKey (RFC 5934 section 9).
//!
//! Which algorithm the SMKI uses, no public document says. So the reading is a table by the OID of the wrapping algorithm, and
//! what is written is one choice of that table, which the policy names.

use std::fmt;
use std::str::FromStr;

use aes::{Aes128, Aes256};
use aes_kw::{AesKwp, IV_LEN, KeyInit as _};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Sequence, Tagged as _};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use super::DerFault;
use super::profile::WRAPPED_APEX_CONTINGENCY_KEY;
use super::signature::{PublicKey, PublicKeyError, SPKI_LEN};
use super::x509::{Algorithm, Certificate};
use crate::domain::gbcs::SymmetricKey;

/// Most octets of a wrapped key that is read. A P-256 key takes 96 to 107.
pub const WRAPPED_LEN_MAX: usize = 1024; // No official reference.
/// Octets of a GCM nonce (RFC 5084 3.2 recommends 12; no other is read).
pub const GCM_NONCE_LEN: usize = 12;
/// Octets of the GCM tag that is written, and the longest.
pub const GCM_TAG_LEN: usize = 16;
/// Octets of the shortest GCM tag, which is the DEFAULT too (RFC 5084 3.2).
const GCM_TAG_LEN_MIN: usize = 12;
/// Octets of a block of AES, and so of a CBC initialisation vector (RFC 3565 4.1).
pub const BLOCK_LEN: usize = 16;

/// An algorithm by which the Contingency Public Key is wrapped, with its size of key.
///
/// In text `aes-256-gcm`, and alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum WrapAlgorithm {
    /// AES key wrap with padding, 128 bit (RFC 5649).
    #[serde(rename = "aes-128-wrap-pad")]
    Aes128WrapPad,
    /// The same, 256 bit.
    #[serde(rename = "aes-256-wrap-pad")]
    Aes256WrapPad,
    /// AES-GCM, 128 bit (RFC 5084).
    #[serde(rename = "aes-128-gcm")]
    Aes128Gcm,
    /// The same, 256 bit.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// AES-CBC with the padding of CMS (RFC 5652 6.3), 128 bit (RFC 3565). It has no check of integrity.
    #[serde(rename = "aes-128-cbc")]
    Aes128Cbc,
    /// The same, 256 bit.
    #[serde(rename = "aes-256-cbc")]
    Aes256Cbc,
}

/// How the key is wrapped, whatever its size.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    WrapPad,
    Gcm,
    Cbc,
}

/// An arc of NIST's AES algorithms (2.16.840.1.101.3.4.1).
macro_rules! aes_oid {
    ($arc:literal) => {
        ObjectIdentifier::new_unwrap(concat!("2.16.840.1.101.3.4.1.", $arc))
    };
}

impl WrapAlgorithm {
    /// The table.
    pub const ALL: [Self; 6] =
        [Self::Aes128WrapPad, Self::Aes256WrapPad, Self::Aes128Gcm, Self::Aes256Gcm, Self::Aes128Cbc, Self::Aes256Cbc];

    /// Its name in policy, entries and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes128WrapPad => "aes-128-wrap-pad",
            Self::Aes256WrapPad => "aes-256-wrap-pad",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Aes128Cbc => "aes-128-cbc",
            Self::Aes256Cbc => "aes-256-cbc",
        }
    }

    /// Its OID (RFC 5649 section 6, RFC 5084 section 3.2, RFC 3565 section 4.1).
    pub const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Aes128WrapPad => aes_oid!("8"),
            Self::Aes256WrapPad => aes_oid!("48"),
            Self::Aes128Gcm => aes_oid!("6"),
            Self::Aes256Gcm => aes_oid!("46"),
            Self::Aes128Cbc => aes_oid!("2"),
            Self::Aes256Cbc => aes_oid!("42"),
        }
    }

    /// By its OID.
    ///
    /// # Errors
    /// [`ApexError::Bits192`]: one of the table's algorithms with a key of 192 bit, which is not read.
    /// [`ApexError::Algorithm`]: any other.
    pub fn from_oid(oid: ObjectIdentifier) -> Result<Self, ApexError> {
        const BITS_192: [ObjectIdentifier; 3] = [aes_oid!("28"), aes_oid!("26"), aes_oid!("22")];
        match Self::ALL.into_iter().find(|known| known.oid() == oid) {
            Some(known) => Ok(known),
            None if BITS_192.contains(&oid) => Err(ApexError::Bits192 { found: oid }),
            None => Err(ApexError::Algorithm { found: oid }),
        }
    }

    /// Octets of its key: 16 or 32.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128WrapPad | Self::Aes128Gcm | Self::Aes128Cbc => 16,
            Self::Aes256WrapPad | Self::Aes256Gcm | Self::Aes256Cbc => 32,
        }
    }

    const fn family(self) -> Family {
        match self {
            Self::Aes128WrapPad | Self::Aes256WrapPad => Family::WrapPad,
            Self::Aes128Gcm | Self::Aes256Gcm => Family::Gcm,
            Self::Aes128Cbc | Self::Aes256Cbc => Family::Cbc,
        }
    }
}

impl fmt::Display for WrapAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for WrapAlgorithm {
    type Err = ApexError;

    fn from_str(text: &str) -> Result<Self, ApexError> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| ApexError::Name { found: text.chars().take(40).collect() })
    }
}

/// What a wrapping needs beside its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapParameters {
    /// AES key wrap with padding: nothing, and no parameters field (RFC 5649 section 6).
    None,
    /// AES-GCM (RFC 5084 3.2). The wrapped octets are the ciphertext and, after it, the tag; there is no additional data.
    Gcm {
        /// aes-nonce.
        nonce: [u8; GCM_NONCE_LEN],
        /// aes-ICVlen, octets of the tag: 12 to 16.
        icv_len: usize,
    },
    /// AES-CBC (RFC 3565 4.1).
    Cbc {
        /// AES-IV.
        iv: [u8; BLOCK_LEN],
    },
}

/// The Contingency Public Key, wrapped: the contents of `ApexContingencyKey`.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedApexKey {
    algorithm: WrapAlgorithm,
    parameters: WrapParameters,
    wrapped: Vec<u8>,
}

impl fmt::Debug for WrappedApexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedApexKey({}, {} octets)", self.algorithm, self.wrapped.len())
    }
}

/// Why octets are no wrapped Contingency Public Key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApexError {
    /// Not the one DER encoding of `ApexContingencyKey`.
    #[error(transparent)]
    Der(#[from] DerFault),
    /// Not the one DER encoding, though it reads.
    #[error("wrappedApexContinKey: expected the one DER encoding of an ApexContingencyKey (RFC 5934 9), found another")]
    NotCanonical,
    /// `SEQUENCE {}`: the extension that says there is no contingency key.
    #[error(
        "wrappedApexContinKey: expected wrapAlgorithm and wrappedContinPubKey, found both absent: it carries no key"
    )]
    Absent,
    /// One without the other.
    #[error(
        "wrappedApexContinKey: expected wrapAlgorithm and wrappedContinPubKey both, or neither (RFC 5934 9), found {found} alone"
    )]
    OneOnly {
        /// Which is there.
        found: &'static str,
    },
    /// An algorithm outside the table.
    #[error(
        "wrapAlgorithm: expected AES wrap with padding, AES-GCM or AES-CBC of 128 or 256 bit \
         (2.16.840.1.101.3.4.1.8, .48, .6, .46, .2, .42), found {found}"
    )]
    Algorithm {
        /// Its OID.
        found: ObjectIdentifier,
    },
    /// An algorithm of the table with a key of 192 bit.
    #[error(
        "wrapAlgorithm: expected a key of 128 or 256 bit, found {found}, of 192 bit: a Contingency Symmetric Key of 24 octets is not handled"
    )]
    Bits192 {
        /// Its OID.
        found: ObjectIdentifier,
    },
    /// No name of an algorithm.
    #[error(
        "wrap algorithm: expected aes-128-wrap-pad, aes-256-wrap-pad, aes-128-gcm, aes-256-gcm, aes-128-cbc or aes-256-cbc, found {found:?}"
    )]
    Name {
        /// What was found.
        found: String,
    },
    /// Parameters that are not those of the algorithm.
    #[error("wrapAlgorithm {algorithm}: expected {expected}, found {found}")]
    Parameters {
        /// The algorithm.
        algorithm: WrapAlgorithm,
        /// Its parameters.
        expected: &'static str,
        /// What there was.
        found: String,
    },
    /// So many octets cannot be a P-256 SubjectPublicKeyInfo wrapped by that algorithm.
    #[error(
        "wrappedContinPubKey: expected {expected} octets, a P-256 SubjectPublicKeyInfo of 91 wrapped by {algorithm}, found {found}"
    )]
    Length {
        /// The algorithm.
        algorithm: WrapAlgorithm,
        /// How many they would be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// No AES key is that long.
    #[error("wrap algorithm: expected a key of 16 or 32 octets, found {found}")]
    KeyLen {
        /// What was asked for.
        found: usize,
    },
}

/// Why a symmetric key does not unwrap the Contingency Public Key. None says anything of the key but its length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// A key of another size.
    #[error("expected a Contingency Symmetric Key of {expected} octets for {algorithm}, found one of {found}")]
    KeyLength {
        /// The algorithm of the extension.
        algorithm: WrapAlgorithm,
        /// Its key's length.
        expected: usize,
        /// The key's.
        found: usize,
    },
    /// The tag, or the check value, or the padding is not right.
    #[error(
        "the {what} of {algorithm} does not fit: this Contingency Symmetric Key does not belong to this Root OCA Certificate, or the \
         extension was altered"
    )]
    Integrity {
        /// The algorithm.
        algorithm: WrapAlgorithm,
        /// What does not fit.
        what: &'static str,
    },
    /// What came out is no P-256 key.
    #[error("unwrapped by {algorithm}: {fault}")]
    Key {
        /// The algorithm. AES-CBC has no check of integrity: with a wrong key this is where it shows.
        algorithm: WrapAlgorithm,
        /// What is wrong with it.
        fault: PublicKeyError,
    },
    /// The point is of the right form and not on the curve.
    #[error("unwrapped by {algorithm}: expected a point on P-256, found one that is not on the curve")]
    NotOnCurve {
        /// The algorithm.
        algorithm: WrapAlgorithm,
    },
}

/// `ApexContingencyKey` (RFC 5934 section 9).
#[derive(Sequence)]
struct Contents<'a> {
    #[asn1(optional = "true")]
    algorithm: Option<Algorithm<'a>>,
    #[asn1(optional = "true")]
    wrapped: Option<&'a OctetStringRef>,
}

/// `GCMParameters` (RFC 5084 3.2).
#[derive(Sequence)]
struct GcmParameters<'a> {
    nonce: &'a OctetStringRef,
    #[asn1(default = "gcm_tag_len_default")]
    icv_len: u8,
}

const fn gcm_tag_len_default() -> u8 {
    12
}

impl WrappedApexKey {
    /// Reads the extension's value: the DER inside extnValue, all of it.
    ///
    /// # Source
    /// RFC 5934 section 9: `SEQUENCE { wrapAlgorithm AlgorithmIdentifier OPTIONAL, wrappedContinPubKey OCTET STRING OPTIONAL }`.
    pub fn from_der(value: &[u8]) -> Result<Self, ApexError> {
        let fault = DerFault::within("wrappedApexContinKey");
        let contents = Contents::from_der(value).map_err(&fault)?;
        if contents.to_der().map_err(&fault)? != value {
            return Err(ApexError::NotCanonical);
        }
        let (identifier, wrapped) = match (contents.algorithm, contents.wrapped) {
            (Some(identifier), Some(wrapped)) => (identifier, wrapped.as_bytes()),
            (None, None) => return Err(ApexError::Absent),
            (Some(_), None) => return Err(ApexError::OneOnly { found: "wrapAlgorithm" }),
            (None, Some(_)) => return Err(ApexError::OneOnly { found: "wrappedContinPubKey" }),
        };
        let algorithm = WrapAlgorithm::from_oid(identifier.oid)?;
        Self::new(algorithm, parameters(algorithm, identifier.parameters)?, wrapped.to_vec())
    }

    /// What a certificate carries: `None` if it has no such extension, or one that says there is no key.
    ///
    /// Whether the certificate is a Root OCA's is the profile's business.
    pub fn of_certificate(certificate: &Certificate) -> Result<Option<Self>, ApexError> {
        let Some(extension) = certificate.extension(WRAPPED_APEX_CONTINGENCY_KEY) else { return Ok(None) };
        match Self::from_der(&extension.value) {
            Ok(key) => Ok(Some(key)),
            Err(ApexError::Absent) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// From its parts. `wrapped` is what the algorithm wrote: for GCM the ciphertext and the tag behind it.
    pub fn new(algorithm: WrapAlgorithm, parameters: WrapParameters, wrapped: Vec<u8>) -> Result<Self, ApexError> {
        let expected = match (algorithm.family(), parameters) {
            (Family::WrapPad, WrapParameters::None) => SPKI_LEN.next_multiple_of(IV_LEN) + IV_LEN,
            (Family::Gcm, WrapParameters::Gcm { nonce: _, icv_len })
                if (GCM_TAG_LEN_MIN..=GCM_TAG_LEN).contains(&icv_len) =>
            {
                SPKI_LEN + icv_len
            }
            (Family::Cbc, WrapParameters::Cbc { iv: _ }) => SPKI_LEN.next_multiple_of(BLOCK_LEN),
            (Family::WrapPad | Family::Gcm | Family::Cbc, other) => {
                return Err(ApexError::Parameters {
                    algorithm,
                    expected: algorithm.expected(),
                    found: format!("{other:?}"),
                });
            }
        };
        let found = wrapped.len();
        if found == expected {
            Ok(Self { algorithm, parameters, wrapped })
        } else {
            Err(ApexError::Length { algorithm, expected, found })
        }
    }

    /// What AES-GCM wrote with a tag of 16 octets, the ciphertext first; `key_len` is 16 or 32 octets.
    pub fn new_gcm(nonce: [u8; GCM_NONCE_LEN], ciphertext_and_tag: Vec<u8>, key_len: usize) -> Result<Self, ApexError> {
        let algorithm = match key_len {
            16 => WrapAlgorithm::Aes128Gcm,
            32 => WrapAlgorithm::Aes256Gcm,
            found => return Err(ApexError::KeyLen { found }),
        };
        Self::new(algorithm, WrapParameters::Gcm { nonce, icv_len: GCM_TAG_LEN }, ciphertext_and_tag)
    }

    /// The DER of the extension's value.
    pub fn to_der(&self) -> Vec<u8> {
        let der = match self.parameters {
            WrapParameters::None => self.write(None),
            WrapParameters::Gcm { nonce, icv_len } => OctetStringRef::new(&nonce)
                .and_then(|nonce| {
                    let icv_len = u8::try_from(icv_len).expect("a tag has 16 octets at most");
                    GcmParameters { nonce, icv_len }.to_der()
                })
                .and_then(|parameters| self.write(Some(AnyRef::from_der(&parameters)?))),
            WrapParameters::Cbc { iv } => OctetStringRef::new(&iv).and_then(|iv| self.write(Some(AnyRef::from(iv)))),
        };
        der.expect("a few octet strings of known length can be written")
    }

    fn write(&self, parameters: Option<AnyRef<'_>>) -> der::Result<Vec<u8>> {
        let algorithm = Algorithm { oid: self.algorithm.oid(), parameters };
        Contents { algorithm: Some(algorithm), wrapped: Some(OctetStringRef::new(&self.wrapped)?) }.to_der()
    }

    /// By which algorithm.
    pub const fn algorithm(&self) -> WrapAlgorithm {
        self.algorithm
    }

    /// With which parameters.
    pub const fn parameters(&self) -> WrapParameters {
        self.parameters
    }

    /// What the algorithm wrote: for GCM the ciphertext, and the tag behind it.
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }

    /// Wraps a public key in memory: what a token does for a key of its own, here for a lab and for tests.
    ///
    /// # Errors
    /// A key of another size than the algorithm's, or parameters of another.
    pub fn wrap(
        public: &PublicKey,
        key: &SymmetricKey,
        algorithm: WrapAlgorithm,
        parameters: WrapParameters,
    ) -> Result<Self, WrapError> {
        algorithm.takes(key)?;
        let spki = public.to_spki();
        let wrapped = match (algorithm.family(), parameters) {
            (Family::Gcm, WrapParameters::Gcm { nonce, icv_len }) => {
                let (mut ciphertext, tag) = gcm(key, nonce, &spki);
                ciphertext.extend_from_slice(tag.get(..icv_len).unwrap_or(&tag));
                ciphertext
            }
            (Family::Cbc, WrapParameters::Cbc { iv }) => cbc_encrypt(key, iv, &spki),
            // Parameters of another algorithm are refused below.
            (Family::WrapPad | Family::Gcm | Family::Cbc, _) => key_wrap(key, &spki),
        };
        Ok(Self::new(algorithm, parameters, wrapped)?)
    }

    /// Unwraps the Contingency Public Key. Answers its DER SubjectPublicKeyInfo, 91 octets, strictly of a P-256 key with an uncompressed
    /// point on the curve.
    ///
    /// # Source
    /// RFC 5934 section 9: decrypting wrappedContinPubKey yields a PublicKeyInfo. RFC 5649, RFC 5084 and RFC 5652 6.3 for how.
    pub fn unwrap_with(&self, key: &SymmetricKey) -> Result<Vec<u8>, UnwrapError> {
        let algorithm = self.algorithm;
        algorithm.takes(key)?;
        let wrong = |what| UnwrapError::Integrity { algorithm, what };
        let clear = match self.parameters {
            WrapParameters::None => key_unwrap(key, &self.wrapped).ok_or(wrong("check value"))?,
            WrapParameters::Gcm { nonce, icv_len } => {
                let (ciphertext, tag) = self.wrapped.split_at(self.wrapped.len() - icv_len);
                // In counter mode encrypting again is decrypting; then what is clear is encrypted as its writer did, for the tag, of which
                // ring itself checks none that was shortened.
                let (clear, _) = gcm(key, nonce, ciphertext);
                let (again, expected) = gcm(key, nonce, &clear);
                if again != ciphertext || &expected[..icv_len] != tag {
                    return Err(wrong("tag"));
                }
                clear
            }
            WrapParameters::Cbc { iv } => cbc_decrypt(key, iv, &self.wrapped).ok_or(wrong("padding"))?,
        };
        let public = PublicKey::from_spki(&clear).map_err(|fault| UnwrapError::Key { algorithm, fault })?;
        if p256::PublicKey::from_sec1_bytes(public.point()).is_err() {
            return Err(UnwrapError::NotOnCurve { algorithm });
        }
        Ok(clear)
    }
}

/// Why a public key cannot be wrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// The key is not the algorithm's.
    #[error(transparent)]
    Key(#[from] UnwrapError),
    /// The parameters are not.
    #[error(transparent)]
    Parameters(#[from] ApexError),
}

impl WrapAlgorithm {
    fn takes(self, key: &SymmetricKey) -> Result<(), UnwrapError> {
        let (expected, found) = (self.key_len(), key.octets().len());
        if found == expected { Ok(()) } else { Err(UnwrapError::KeyLength { algorithm: self, expected, found }) }
    }

    const fn expected(self) -> &'static str {
        match self.family() {
            Family::WrapPad => "no parameters (RFC 5649)",
            Family::Gcm => "GCMParameters with a nonce of 12 octets and a tag of 12 to 16 (RFC 5084)",
            Family::Cbc => "an initialisation vector of 16 octets (RFC 3565)",
        }
    }
}

fn parameters(algorithm: WrapAlgorithm, found: Option<AnyRef<'_>>) -> Result<WrapParameters, ApexError> {
    let wrong = |found: String| ApexError::Parameters { algorithm, expected: algorithm.expected(), found };
    let Some(found) = found else {
        return match algorithm.family() {
            Family::WrapPad => Ok(WrapParameters::None),
            Family::Gcm | Family::Cbc => Err(wrong("none".to_owned())),
        };
    };
    match algorithm.family() {
        Family::WrapPad => Err(wrong(format!("parameters with tag {}", found.tag()))),
        Family::Gcm => {
            let read: GcmParameters<'_> = found.decode_as().map_err(|fault: der::Error| wrong(fault.to_string()))?;
            // A reader forgives a DEFAULT that was written out.
            if read.to_der().ok() != found.to_der().ok() {
                return Err(ApexError::NotCanonical);
            }
            let (nonce, icv_len) = (read.nonce.as_bytes(), usize::from(read.icv_len));
            let text = || format!("a nonce of {} octets and a tag of {icv_len}", nonce.len());
            let nonce = nonce.try_into().map_err(|_| wrong(text()))?;
            if !(GCM_TAG_LEN_MIN..=GCM_TAG_LEN).contains(&icv_len) {
                return Err(wrong(text()));
            }
            Ok(WrapParameters::Gcm { nonce, icv_len })
        }
        Family::Cbc => {
            let iv: &OctetStringRef = found.decode_as().map_err(|fault: der::Error| wrong(fault.to_string()))?;
            let iv = iv.as_bytes();
            Ok(WrapParameters::Cbc { iv: iv.try_into().map_err(|_| wrong(format!("one of {} octets", iv.len())))? })
        }
    }
}

/// Encrypts by AES-GCM without additional data: the ciphertext, and its tag of 16 octets.
fn gcm(key: &SymmetricKey, nonce: [u8; GCM_NONCE_LEN], clear: &[u8]) -> (Vec<u8>, [u8; GCM_TAG_LEN]) {
    let algorithm = if key.octets().len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key.octets()).expect("a key of 16 or 32 octets"));
    let mut octets = clear.to_vec();
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut octets)
        .expect("a few hundred octets are far from GCM's limit");
    (octets, tag.as_ref().try_into().expect("ring's tags have 16 octets"))
}

fn cbc_encrypt(key: &SymmetricKey, iv: [u8; BLOCK_LEN], clear: &[u8]) -> Vec<u8> {
    let mut octets = vec![0; clear.len() / BLOCK_LEN * BLOCK_LEN + BLOCK_LEN];
    octets[..clear.len()].copy_from_slice(clear);
    let written = match key.octets() {
        key if key.len() == 16 => cbc::Encryptor::<Aes128>::new_from_slices(key, &iv)
            .expect("a key of 16 octets, a vector of 16")
            .encrypt_padded::<Pkcs7>(&mut octets, clear.len()),
        key => cbc::Encryptor::<Aes256>::new_from_slices(key, &iv)
            .expect("a key of 32 octets, a vector of 16")
            .encrypt_padded::<Pkcs7>(&mut octets, clear.len()),
    };
    written.expect("there is room for the padding").to_vec()
}

/// `None`: the padding is none.
fn cbc_decrypt(key: &SymmetricKey, iv: [u8; BLOCK_LEN], wrapped: &[u8]) -> Option<Vec<u8>> {
    let mut octets = wrapped.to_vec();
    let clear = match key.octets() {
        key if key.len() == 16 => cbc::Decryptor::<Aes128>::new_from_slices(key, &iv)
            .expect("a key of 16 octets, a vector of 16")
            .decrypt_padded::<Pkcs7>(&mut octets),
        key => cbc::Decryptor::<Aes256>::new_from_slices(key, &iv)
            .expect("a key of 32 octets, a vector of 16")
            .decrypt_padded::<Pkcs7>(&mut octets),
    };
    clear.ok().map(<[u8]>::to_vec)
}

fn key_wrap(key: &SymmetricKey, clear: &[u8]) -> Vec<u8> {
    let mut octets = vec![0; clear.len().next_multiple_of(IV_LEN) + IV_LEN];
    let written = match key.octets() {
        key if key.len() == 16 => {
            AesKwp::<Aes128>::new_from_slice(key).expect("a key of 16 octets").wrap_key(clear, &mut octets)
        }
        key => AesKwp::<Aes256>::new_from_slice(key).expect("a key of 32 octets").wrap_key(clear, &mut octets),
    };
    written.expect("there is room for the padding").to_vec()
}

/// `None`: the check value, the length in it or the padding is none.
fn key_unwrap(key: &SymmetricKey, wrapped: &[u8]) -> Option<Vec<u8>> {
    let mut octets = vec![0; wrapped.len()];
    let clear = match key.octets() {
        key if key.len() == 16 => {
            AesKwp::<Aes128>::new_from_slice(key).expect("a key of 16 octets").unwrap_key(wrapped, &mut octets)
        }
        key => AesKwp::<Aes256>::new_from_slice(key).expect("a key of 32 octets").unwrap_key(wrapped, &mut octets),
    };
    clear.ok().map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests;
