//! The one integration crate.
mod store;
