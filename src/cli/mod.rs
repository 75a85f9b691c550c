//! Shell: `smkictl`.

pub mod gbcs;
