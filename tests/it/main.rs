//! The one integration crate.

#![allow(
    clippy::unwrap_used,
    reason = "all of this crate is tests, helpers included: a failed unwrap is a failed test"
)]

mod certificates;
mod certificates_vectors;
mod ceremony;
mod cms;
mod gbcs_vectors;
mod hsm;
#[path = "support/lab.rs"]
mod lab;
mod policy;
mod store;
#![expect(clippy::unwrap_used, reason = "in tests a failed unwrap is a failed test")]

mod hsm;
mod support;
