//! The one integration crate.

mod certificates;
mod certificates_vectors;
#[path = "support/lab.rs"]
mod lab;
