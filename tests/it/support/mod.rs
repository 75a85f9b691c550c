//! What several tests need.

pub mod softhsm;
