//! Pure. One public key, one digest: a key is known by the SHA-256 of the one encoding of its SubjectPublicKeyInfo.
//!
//! The published mistakes of m-of-n systems are mostly this one: a key counted twice because it was written in two ways.
//! So there is one way (RFC 5480 section 2: named curve, uncompressed point), and every other is refused, not converted:
//! a signer who presents another encoding has something else in mind.

use crate::domain::names::Digest;

/// SubjectPublicKeyInfo of P-256 up to the point: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING,
/// no unused bits, uncompressed } (RFC 5480 2.1.1, 2.2).
const PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// The same with a compressed point: 33 octets instead of 65.
const PREFIX_COMPRESSED: [u8; 26] = [
    0x30, 0x39, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x22, 0x00,
];

/// OBJECT IDENTIFIER id-ecPublicKey (RFC 5480 2.1.1).
const EC_PUBLIC_KEY: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// The length of the one encoding, in octets.
pub const SPKI_LEN: usize = 91;

/// Why a public key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpkiError {
    /// No PEM, or not one block of the right kind.
    #[error(
        "expected one PEM block BEGIN PUBLIC KEY, found {found}; `openssl pkey -pubin` or `openssl x509 -pubkey` writes one"
    )]
    Pem {
        /// What the PEM reader said.
        found: String,
    },
    /// The same key could be written uncompressed, and would have another digest.
    #[error(
        "expected an uncompressed P-256 point, found a compressed one; write it with `openssl ec -conv_form uncompressed`"
    )]
    Compressed,
    /// The curve is written out instead of named.
    #[error(
        "expected the curve by name (prime256v1), found other parameters; write it with `openssl ec -param_enc named_curve`"
    )]
    Parameters,
    /// Anything else.
    #[error("expected a P-256 SubjectPublicKeyInfo of {SPKI_LEN} octets, found {len} octets of another kind")]
    Kind {
        /// In octets.
        len: usize,
    },
}

/// The digest by which the key in `der`, a SubjectPublicKeyInfo, is known.
///
/// # Errors
/// Everything but the one encoding of a P-256 key is refused, so that one key never has two digests.
pub fn digest_of_der(der: &[u8]) -> Result<Digest, SpkiError> {
    if der.len() == SPKI_LEN && der.starts_with(&PREFIX) {
        return Ok(Digest::of(der));
    }
    Err(if der.starts_with(&PREFIX_COMPRESSED) {
        SpkiError::Compressed
    } else if der.windows(EC_PUBLIC_KEY.len()).take(9).any(|w| w == EC_PUBLIC_KEY) && !der.starts_with(&PREFIX[..26]) {
        SpkiError::Parameters
    } else {
        SpkiError::Kind { len: der.len() }
    })
}

/// The digest by which the key in a PEM block `PUBLIC KEY` is known.
pub fn digest_of_pem(pem: &str) -> Result<Digest, SpkiError> {
    let (label, der) =
        der::pem::decode_vec(pem.trim_ascii().as_bytes()).map_err(|e| SpkiError::Pem { found: e.to_string() })?;
    if label != "PUBLIC KEY" {
        return Err(SpkiError::Pem { found: format!("BEGIN {label}") });
    }
    digest_of_der(&der)
}

#[cfg(test)]
mod tests;
