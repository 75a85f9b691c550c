//! Shell: `smkictl`.

pub mod gbcs;
pub mod ledger_export;
pub mod ledger_verify;
pub mod signer;
