//! What several tests need.

pub mod fake_engine;
pub mod lab;
pub mod softhsm;
