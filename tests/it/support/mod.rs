//! What several tests need.

pub mod lab;
pub mod softhsm;
