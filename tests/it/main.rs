//! The one integration crate.

#![allow(
    clippy::unwrap_used,
    reason = "all of this crate is tests, helpers included: a failed unwrap is a failed test"
)]

mod certificates;
mod certificates_vectors;
mod cms;
mod gbcs_vectors;
#[path = "support/lab.rs"]
mod lab;
mod store;
mod policy;
#![expect(clippy::unwrap_used, reason = "in tests a failed unwrap is a failed test")]

mod hsm;
mod support;
