//! What several tests need.

pub mod accounts;
pub mod console;
pub mod copies;
pub mod desk;
pub mod fake_engine;
pub mod lab;
pub mod ledger_fixture;
pub mod meter;
pub mod seeded;
pub mod site;
pub mod token;
pub mod vectors;
