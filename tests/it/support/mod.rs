//! What several tests need.

pub mod lab;
pub mod ledger_fixture;
pub mod softhsm;
