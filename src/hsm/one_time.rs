//! Shell: what is sealed to one process alone, by a key that it made for this (HPKE, RFC 9180): a share to the vault, a PIN to the worker
//! of a token. Whoever carries it learns nothing and cannot alter it.
//!
//! Base mode; DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. `info` says what for, and must be the same on both sides.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::DhP256HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::names::TokenName;

type Kem = DhP256HkdfSha256;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type EncappedKey = <Kem as hpke::Kem>::EncappedKey;

/// Octets of an uncompressed point of P-256: a public key, and what precedes what was sealed.
const POINT_LEN: usize = 65;

/// The public half of a [`OneTimeKey`]: an uncompressed point of P-256, 65 octets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealTo(#[serde(with = "serde_bytes")] Vec<u8>);

impl SealTo {
    /// Reads it; whether it is a point is seen when something is sealed to it.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        (octets.len() == POINT_LEN).then(|| Self(octets.to_vec()))
    }

    /// The point.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Seals a secret to it: the sender's point of 65 octets, the ciphertext, a tag of 16.
    ///
    /// # Errors
    /// [`NotSealed`] if it is no point of the curve.
    pub fn seal(&self, info: &[u8], secret: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let public = <Kem as hpke::Kem>::PublicKey::from_bytes(&self.0).map_err(|_| NotSealed)?;
        let sealed = hpke::single_shot_seal::<AesGcm256, HkdfSha256, Kem>(&OpModeS::Base, &public, info, secret, &[]);
        let (encapped, ciphertext) = sealed.map_err(|_| NotSealed)?;
        Ok([encapped.to_bytes().as_slice(), &ciphertext].concat())
    }
}

/// A key to seal to is no point of P-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key to seal to is no point of P-256")]
pub struct NotSealed;

/// What came was not sealed to this key for this purpose, or was altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came was not sealed to this key for this purpose, or was altered on its way")]
pub struct NotOpened;

/// A key pair that is made for one sealing, and gone after it. It has no Debug and is wiped.
pub struct OneTimeKey {
    private: PrivateKey,
    public: SealTo,
}

impl OneTimeKey {
    /// Makes one. Panics without the system's random source, which ends the process that asked.
    pub fn make() -> Self {
        let (private, public) = Kem::gen_keypair();
        Self { private, public: SealTo(public.to_bytes().to_vec()) }
    }

    /// What is sealed to.
    pub const fn seal_to(&self) -> &SealTo {
        &self.public
    }

    /// Opens what was sealed. The key is used up, whatever comes of it.
    pub fn open(self, info: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let (encapped, ciphertext) = sealed.split_at_checked(POINT_LEN).ok_or(NotOpened)?;
        let encapped = EncappedKey::from_bytes(encapped).map_err(|_| NotOpened)?;
        hpke::single_shot_open::<AesGcm256, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.private,
            &encapped,
            info,
            ciphertext,
            &[],
        )
        .map(Zeroizing::new)
        .map_err(|_| NotOpened)
    }
}

/// For what a PIN is sealed to a token's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinFor {
    /// To log in with.
    Login,
    /// To be changed: the old one and the new.
    Change,
    /// To log in with as the token's security officer.
    Officer,
}

/// `info` of a PIN that is sealed to the worker of a token.
pub fn pin_info(what: PinFor, token: &TokenName, serial: &str) -> Vec<u8> {
    let what = match what {
        PinFor::Login => "login",
        PinFor::Change => "change",
        PinFor::Officer => "login as security officer",
    };
    format!("smkid PIN for {what}\n{token}\n{serial}\n").into_bytes()
}

#[cfg(test)]
mod tests;
