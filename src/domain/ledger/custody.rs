//! Pure. Stand-in until the entries come.

use serde::{Deserialize, Serialize};

use super::entry::TokenFound;
use crate::domain::names::{Digest, KeyLabel, PersonId, ShareName};

/// Who holds a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The share.
    pub share: ShareName,
    /// Whose.
    pub person: PersonId,
    /// From 1.
    pub index: u32,
    /// To what.
    pub sealed: Box<str>,
}

/// Shares were dealt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharesDealt {
    /// Which.
    pub key: KeyLabel,
    /// From 1.
    pub generation: u32,
    /// k.
    pub threshold: u32,
    /// Points.
    pub commitments: Vec<Box<str>>,
    /// Who.
    pub holders: Vec<Holder>,
    /// Where.
    pub tokens: Vec<TokenFound>,
    /// SHA-256 of the file.
    pub sealed: Digest,
}
