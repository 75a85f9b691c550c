//! Pure. What stands beside a contingency key pair on its token, and what comes of asking the token about it.
//!
//! A *generation* of contingency material is a key pair, the Contingency Symmetric Key that unwraps its public half on a Device, and a
//! wrapping key, the only one under which that key leaves the token. Labels of the latter two are made of the pair's; their CKA_IDs are
//! their own.

use serde::{Deserialize, Serialize};

use crate::domain::ledger::contingency::ContingencyPrepared;
use crate::domain::names::{KeyId, KeyLabel, TokenName};

/// The two secret keys that stand beside a contingency key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// `CKA_ID` of the Contingency Symmetric Key, an AES key.
    pub symmetric: KeyId,
    /// `CKA_ID` of its wrapping key, AES of 256 bit.
    pub wrapping: KeyId,
    /// Length of the Contingency Symmetric Key in bits: 128 or 256.
    pub bits: u16,
    /// Whether only a key that the token's security officer marked as trusted wraps the Contingency Symmetric Key
    /// (`CKA_WRAP_WITH_TRUSTED`, PKCS#11 3.1, 4.9). Without it, whoever has the token's PIN gets the key out under one of their own, by any tool
    /// that wraps keys.
    pub wrap_with_trusted: bool,
}

impl From<&ContingencyPrepared> for Material {
    fn from(prepared: &ContingencyPrepared) -> Self {
        let ContingencyPrepared { symmetric, wrapping, bits, wrap_with_trusted, .. } = *prepared;
        Self { symmetric, wrapping, bits, wrap_with_trusted }
    }
}

impl Material {
    /// Its length in octets.
    pub(super) fn len(self) -> u64 {
        u64::from(self.bits / 8)
    }
}

/// How errors call the Contingency Symmetric Key.
pub const SYMMETRIC_KEY: &str = "Contingency Symmetric Key";
/// How errors call its wrapping key.
pub const WRAPPING_KEY: &str = "wrapping key";

/// `CKA_LABEL` of the Contingency Symmetric Key of that pair.
pub fn symmetric_label(pair: &KeyLabel) -> String {
    format!("{pair}-symmetric")
}

/// `CKA_LABEL` of its wrapping key.
pub fn wrapping_label(pair: &KeyLabel) -> String {
    format!("{pair}-wrapping")
}

/// What came of unwrapping a WrappedApexContingencyKey in the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compared {
    /// It gave exactly the public half of the key pair.
    Matches,
    /// It gave something else: what, in words.
    Differs(String),
    /// It gave nothing: why, in words. The symmetric key is another, the octets were altered, or the token does not do the algorithm.
    Failed(String),
}

/// `info` of a Contingency Symmetric Key that is sealed to the daemon: of this token, of this pair.
pub(super) fn release_info(token: &TokenName, serial: &str, pair: &KeyLabel) -> Vec<u8> {
    format!("smkid Contingency Symmetric Key\n{token}\n{serial}\n{pair}\n").into_bytes()
}
