//! The one integration crate.

#![expect(clippy::unwrap_used, reason = "in tests a failed unwrap is a failed test")]

mod hsm;
mod support;
