//! Shell, for it draws random numbers. The PIN of a token under a sealing secret: HKDF-SHA256 (RFC 5869) gives a key for this token
//! and this generation alone, AES-256-GCM (SP 800-38D) seals with it. The PIN is padded to one length first, so that the length tells nothing.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::scheme::SealingSecret;
use crate::domain::names::{KeyLabel, Origin, TokenName};
use crate::hsm::handle::PIN_LEN_MAX;

/// The length of a PIN, and the PIN padded with zeros.
const PADDED_LEN: usize = 2 + PIN_LEN_MAX;
/// Octets of a sealed PIN: a nonce, the padded PIN, a tag.
pub const SEALED_LEN: usize = NONCE_LEN + PADDED_LEN + 16;
/// First in what the key is derived by, so that no other use of the secret gives the same.
const DOMAIN: &str = "smkid sealed PIN v1";

/// Whose PIN it is. Each of these makes another key: what was sealed for one opens for no other.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// The ledger.
    pub origin: &'a Origin,
    /// The key for which the secret was made.
    pub key: &'a KeyLabel,
    /// The generation of its share set.
    pub generation: u32,
    /// The token, as the policy calls it.
    pub token: &'a TokenName,
    /// Its serial number.
    pub serial: &'a str,
}

impl Of<'_> {
    /// Each part behind its length, so that no two lists are the same octets.
    fn info(&self) -> Vec<u8> {
        let generation = self.generation.to_string();
        let parts = [DOMAIN, self.origin.as_str(), self.key.as_str(), &generation, self.token.as_str(), self.serial];
        let length = |part: &str| u32::try_from(part.len()).expect("names are short").to_be_bytes();
        parts.iter().flat_map(|part| length(part).into_iter().chain(part.bytes())).collect()
    }
}

fn derived(secret: &SealingSecret, info: &[u8]) -> LessSafeKey {
    let extracted = Salt::new(HKDF_SHA256, &[]).extract(secret.octets());
    let info = [info];
    let expanded = extracted.expand(&info, &AES_256_GCM).expect("32 octets are within what HKDF gives");
    LessSafeKey::new(UnboundKey::from(expanded))
}

/// A PIN is not sealed, or does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// It is longer than any.
    #[error("expected a PIN of 1 to {PIN_LEN_MAX} octets, found {0}")]
    Length(usize),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
    /// It was sealed under another secret, for another token, key, generation or ledger, or altered.
    #[error("the sealed PIN does not open: it is of another secret, generation, key, token or ledger, or was altered")]
    Closed,
}

/// Seals a PIN.
pub fn seal(secret: &SealingSecret, of: Of<'_>, pin: &SecretString) -> Result<Vec<u8>, SealingError> {
    let pin = pin.expose_secret().as_bytes();
    if pin.is_empty() || pin.len() > PIN_LEN_MAX {
        return Err(SealingError::Length(pin.len()));
    }
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| SealingError::NoRandom)?;
    let mut padded = Zeroizing::new([0; PADDED_LEN]);
    padded[..2].copy_from_slice(&u16::try_from(pin.len()).expect("PIN_LEN_MAX fits a u16").to_be_bytes());
    padded[2..2 + pin.len()].copy_from_slice(pin);
    let info = of.info();
    let tag = derived(secret, &info)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&info), &mut *padded)
        .expect("some hundred octets are within what AES-GCM seals");
    Ok([&nonce, padded.as_slice(), tag.as_ref()].concat())
}

/// Opens a sealed PIN.
pub fn open(secret: &SealingSecret, of: Of<'_>, sealed: &[u8]) -> Result<SecretString, SealingError> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealingError::Closed)?;
    let mut octets = Zeroizing::new(sealed.to_vec());
    let info = of.info();
    let opened =
        derived(secret, &info).open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(&info), &mut octets);
    let padded = opened.map_err(|_| SealingError::Closed)?;
    let (len, rest) = padded.split_first_chunk::<2>().ok_or(SealingError::Closed)?;
    let pin = rest.get(..u16::from_be_bytes(*len).into()).ok_or(SealingError::Closed)?;
    std::str::from_utf8(pin).map(SecretString::from).map_err(|_| SealingError::Closed)
}

#[cfg(test)]
mod tests;
