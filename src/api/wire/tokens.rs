//! Shell. The tokens, as the socket tells of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Trouble;
use crate::domain::names::{KeyLabel, TokenName};
use crate::domain::time::Timestamp;

/// Every token of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// In the order of the configuration.
    pub tokens: Vec<TokenState>,
}

/// One token: how it stands, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenState {
    /// How it stands.
    pub standing: TokenStanding,
    /// Its `CKA_LABEL`, by the configuration.
    pub label: String,
    /// Its serial number, by the configuration.
    pub serial: String,
    /// The vendor's module.
    pub module: String,
    /// The keys on it that the ledger knows.
    #[schema(value_type = Vec<String>)]
    pub keys: Vec<KeyLabel>,
    /// The process id of its worker.
    pub worker: Option<u32>,
    /// Sessions that sign.
    pub sessions: Option<u16>,
    /// Sessions that are wanted: by the configuration, within what the token says that it has.
    #[serde(default)]
    pub sessions_wanted: Option<u16>,
    /// Why fewer sign than are wanted, if so. Another is tried every second.
    #[serde(default)]
    pub sessions_lacking: Option<String>,
    /// Manufacturer, model and firmware, as it answered.
    pub is_a: Option<String>,
}

/// How a token stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenStanding {
    /// What configuration, policy and entries call it.
    #[schema(value_type = String)]
    pub token: TokenName,
    /// The state of its circuit breaker.
    pub circuit: TokenCircuit,
    /// Since when; none while it is idle.
    #[schema(value_type = Option<String>)]
    pub since: Option<Timestamp>,
    /// When it is tried again by itself.
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// What stands in its way, and what to do.
    pub trouble: Option<Trouble>,
}

/// The state of a token's circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenCircuit {
    /// No key on it is active, so nobody is logged in.
    Idle,
    /// It is logged in and asked: the circuit is closed.
    Up,
    /// It failed or is away, and nothing is asked of it until it is tried again: the circuit is open.
    Down,
    /// It is being tried.
    Trying,
    /// It takes an operator: no PIN is offered by itself.
    Locked,
}

/// A PIN may be offered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginRetried {
    /// The index of the ledger entry; none if it is made once the ledger token is there.
    pub entry: Option<u64>,
    /// Why none was offered any more.
    pub was: String,
    /// The token as it is now.
    pub token: TokenStanding,
}
