//! Pure. What entries say about the tokens themselves: how they stand, and who lets a PIN be offered again.

use serde::{Deserialize, Serialize};

use crate::domain::names::TokenName;
use crate::domain::time::Timestamp;

/// How a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It is logged in, and its keys were checked.
    Up,
    /// It failed or is away; it is looked for again and again, with pauses.
    Down,
    /// It takes an operator: no PIN is offered by itself.
    Locked,
}

/// A token came to stand otherwise. What it was asked for meanwhile stands in the outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenHealth {
    /// Which, as policy and configuration call it.
    pub token: TokenName,
    /// How it stood.
    pub from: Health,
    /// How it stands.
    pub to: Health,
    /// When, by the daemon's clock. Before the entry's own moment where nothing could be recorded then, or not so often.
    pub since: Timestamp,
    /// The function of the module that failed, such as `C_Sign`, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Box<str>>,
    /// What it answered, such as `CKR_DEVICE_ERROR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Box<str>>,
    /// What went wrong, in words; none when it came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<str>>,
    /// How many more changes lie between `from` and `to` that are not told one by one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub folded: u64,
}

/// An operator put the PIN of a token right, and lets it be offered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRetried {
    /// Which.
    pub token: TokenName,
    /// Its serial number, by the configuration.
    pub serial: Box<str>,
    /// When it was asked for. Before the entry's own moment where it is the ledger token, which records it once it is up.
    pub asked: Timestamp,
    /// Why no PIN had been offered any more.
    pub was: Box<str>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
const fn is_zero(count: &u64) -> bool {
    *count == 0
}
