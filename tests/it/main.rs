//! The one integration crate.

mod policy;
