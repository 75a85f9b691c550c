//! Shell: `smkictl`.

pub mod signer;
