//! The one integration crate.

mod gbcs_vectors;
#![allow(
    clippy::unwrap_used,
    reason = "all of this crate is tests, helpers included: a failed unwrap is a failed test"
)]

mod certificates;
mod certificates_vectors;
mod cms;
#[path = "support/lab.rs"]
mod lab;
