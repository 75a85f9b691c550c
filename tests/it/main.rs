//! The one integration crate.

mod gbcs_vectors;
