//! Pure. ECDSA over P-256 with SHA-256: verification, and the two ways to write a signature down.
//!
//! PKCS#11 and GBCS write 64 octets, `r ‖ s`; X.509, CMS and C2SP notes write the DER `SEQUENCE { r, s }`.

use der::asn1::UintRef;
use der::{Decode, Encode, Sequence};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use super::DerFault;
use crate::domain::names::Digest;

/// Octets of `r ‖ s`: two numbers of 32 octets each, most significant first.
pub const FIXED_LEN: usize = 64;

/// Octets of an uncompressed point of P-256: `04 ‖ x ‖ y` (RFC 5480 2.2).
pub const POINT_LEN: usize = 65;

/// Octets of a compressed point of P-256: `02 ‖ x` or `03 ‖ x`.
const COMPRESSED_LEN: usize = 33;

/// The DER SubjectPublicKeyInfo of a P-256 key up to its point: id-ecPublicKey, prime256v1, BIT STRING (RFC 5480 2.1.1).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE,
    0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Octets of the DER SubjectPublicKeyInfo of a P-256 key with an uncompressed point.
pub const SPKI_LEN: usize = SPKI_PREFIX.len() + POINT_LEN;

/// A public key on P-256 as an uncompressed point, `04 ‖ x ‖ y`.
///
/// That the point lies on the curve is checked by whoever uses the key: a key that does not verifies nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; POINT_LEN]);

/// Why octets are not a public key on P-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// The key is of another algorithm, on another curve, or not written as the standard says.
    #[error(
        "public key: expected the 91 octets of a SubjectPublicKeyInfo with id-ecPublicKey, prime256v1 and an uncompressed \
         point, found {found_len} octets of something else; only P-256 is used here"
    )]
    NotP256 {
        /// How many octets there were.
        found_len: usize,
    },
    /// The point is compressed, or of a wrong length.
    #[error(
        "public key: expected a point of 65 octets beginning with 04, found {found_len} octets beginning with {first:02X?}"
    )]
    Point {
        /// How many octets there were.
        found_len: usize,
        /// The first of them.
        first: Option<u8>,
    },
    /// The point is not compressed, or not on the curve.
    #[error(
        "public key: expected a compressed point of P-256, 33 octets beginning with 02 or 03, found {found_len} octets beginning with \
         {first:02X?}, or no point of that curve"
    )]
    Compressed {
        /// How many octets there were.
        found_len: usize,
        /// The first of them.
        first: Option<u8>,
    },
}

impl PublicKey {
    /// From an uncompressed point of 65 octets.
    pub fn from_point(point: &[u8]) -> Result<Self, PublicKeyError> {
        match <[u8; POINT_LEN]>::try_from(point) {
            Ok(octets) if octets[0] == 0x04 => Ok(Self(octets)),
            Ok(_) | Err(_) => Err(PublicKeyError::Point { found_len: point.len(), first: point.first().copied() }),
        }
    }

    /// From a compressed point of 33 octets, `02 ‖ x` or `03 ‖ x` (SEC1, 2.3.3), which must lie on the curve.
    pub fn from_compressed(point: &[u8]) -> Result<Self, PublicKeyError> {
        let wrong = || PublicKeyError::Compressed { found_len: point.len(), first: point.first().copied() };
        // The one form: the compact one, with an octet of 5 before it, would be a second.
        let is_compressed = point.len() == COMPRESSED_LEN && matches!(point[0], 0x02 | 0x03);
        let found = is_compressed.then(|| p256::PublicKey::from_sec1_bytes(point).ok()).flatten().ok_or_else(wrong)?;
        Self::from_point(found.to_sec1_point(false).as_bytes())
    }

    /// From a DER SubjectPublicKeyInfo: exactly one encoding is accepted, so that one key has one digest.
    pub fn from_spki(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let point = spki.strip_prefix(&SPKI_PREFIX).ok_or(PublicKeyError::NotP256 { found_len: spki.len() })?;
        Self::from_point(point)
    }

    /// `04 ‖ x ‖ y`, 65 octets.
    pub const fn point(&self) -> &[u8; POINT_LEN] {
        &self.0
    }

    /// The DER SubjectPublicKeyInfo, 91 octets.
    pub fn to_spki(&self) -> [u8; SPKI_LEN] {
        let mut spki = [0; SPKI_LEN];
        spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
        spki[SPKI_PREFIX.len()..].copy_from_slice(&self.0);
        spki
    }

    /// SHA-256 of the DER SubjectPublicKeyInfo: what policy pins keys and people by.
    pub fn spki_sha256(&self) -> Digest {
        Digest::of(&self.to_spki())
    }

    /// Whether `signature`, the DER `SEQUENCE { r, s }`, is this key's over `octets`.
    #[must_use]
    pub fn verifies_der(&self, octets: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(octets, signature).is_ok()
    }

    /// Whether `signature`, 64 octets of `r ‖ s`, is this key's over `octets`.
    #[must_use]
    pub fn verifies_fixed(&self, octets: &[u8], signature: &[u8; FIXED_LEN]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0).verify(octets, signature).is_ok()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", hex::encode(self.0))
    }
}

/// `ECDSA-Sig-Value ::= SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279 2.2.3).
#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// Why a signature cannot be written the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not the DER `SEQUENCE { r, s }`.
    #[error(transparent)]
    Der(#[from] DerFault),
    /// A number does not fit 32 octets.
    #[error(
        "ECDSA signature: expected r and s of at most 32 octets each, found {r_len} and {s_len}; it is not one of P-256"
    )]
    TooLong {
        /// Octets of r.
        r_len: usize,
        /// Octets of s.
        s_len: usize,
    },
    /// A number is zero, which no signature has.
    #[error("ECDSA signature: expected r and s above zero")]
    Zero,
}

/// Writes `r ‖ s` as the DER `SEQUENCE { r, s }`, 8 to 72 octets.
///
/// # Errors
/// [`SignatureError::Zero`]: r or s is zero, so that this is no signature.
pub fn to_der(fixed: &[u8; FIXED_LEN]) -> Result<Vec<u8>, SignatureError> {
    let fault = DerFault::within("ECDSA signature");
    let (r, s) = fixed.split_at(FIXED_LEN / 2);
    if r.iter().all(|octet| *octet == 0) || s.iter().all(|octet| *octet == 0) {
        return Err(SignatureError::Zero);
    }
    let value = EcdsaSigValue { r: UintRef::new(r).map_err(&fault)?, s: UintRef::new(s).map_err(&fault)? };
    Ok(value.to_der().map_err(fault)?)
}

/// Reads the DER `SEQUENCE { r, s }`, strictly, and writes it as `r ‖ s`.
pub fn from_der(signature: &[u8]) -> Result<[u8; FIXED_LEN], SignatureError> {
    let EcdsaSigValue { r, s } =
        EcdsaSigValue::from_der(signature).map_err(DerFault::within("ECDSA signature (SEQUENCE of r and s)"))?;
    let (r, s) = (r.as_bytes(), s.as_bytes());
    let half = FIXED_LEN / 2;
    if r.len() > half || s.len() > half {
        return Err(SignatureError::TooLong { r_len: r.len(), s_len: s.len() });
    }
    if r.iter().all(|octet| *octet == 0) || s.iter().all(|octet| *octet == 0) {
        return Err(SignatureError::Zero);
    }
    let mut fixed = [0; FIXED_LEN];
    fixed[half - r.len()..half].copy_from_slice(r);
    fixed[FIXED_LEN - s.len()..].copy_from_slice(s);
    Ok(fixed)
}

#[cfg(test)]
mod tests;
