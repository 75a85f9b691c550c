//! Shell: `smkictl`.

pub mod gbcs;
pub mod signer;
