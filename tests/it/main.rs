//! The one integration crate.

#![allow(clippy::unwrap_used, reason = "in tests a failed unwrap is a failed test, in their helpers too")]

mod store;
