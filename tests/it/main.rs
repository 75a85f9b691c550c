//! The one integration crate.

#![allow(
    clippy::unwrap_used,
    reason = "all of this crate is tests, helpers included: a failed unwrap is a failed test"
)]

mod audit;
mod certificates;
mod certificates_vectors;
mod cms;
mod gbcs_vectors;
mod hsm;
mod policy;
mod store;
mod support;

use support::lab;
