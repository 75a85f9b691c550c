//! Pure. What entries say about the custody of keys: who was given shares of what opens their tokens.

use serde::{Deserialize, Serialize};

use super::entry::TokenFound;
use crate::domain::names::{Digest, KeyLabel, PersonId, ShareName};

/// Key Custodians were given shares of a random secret that seals the PINs of a key's tokens: one *generation* of its shares. Those of the
/// generation before open nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharesDealt {
    /// Whose tokens they open.
    pub key: KeyLabel,
    /// 1 for the first, one more each time.
    pub generation: u32,
    /// How many shares open them.
    pub threshold: u32,
    /// By which each share can be verified on its own (Feldman's scheme over P-256): `threshold` compressed points in hexadecimal, that of
    /// the secret first.
    pub commitments: Vec<Box<str>>,
    /// Who holds which share.
    pub holders: Vec<Holder>,
    /// The tokens whose PINs were sealed, each changed with this generation.
    pub tokens: Vec<TokenFound>,
    /// SHA-256 of the custody file, in which the sealed PINs are. It lies in the state directory and in no export.
    pub sealed: Digest,
}

/// Who holds a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The share, as persons.toml names it.
    pub share: ShareName,
    /// Whose it is.
    pub person: PersonId,
    /// Where the polynomial was taken for it, from 1.
    pub index: u16,
    /// What its file is opened by.
    pub sealed: Sealed,
}

/// What a share's file is opened by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sealed {
    /// A passphrase that the custodian chose.
    Passphrase,
    /// The key of a certificate: SHA-256 of its SubjectPublicKeyInfo.
    Certificate(Digest),
}
