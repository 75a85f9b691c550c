//! The one integration crate.

mod hsm;
mod support;
