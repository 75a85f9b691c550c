//! The one integration crate.

mod certificates;
mod certificates_vectors;
mod cms;
#[path = "support/lab.rs"]
mod lab;
