//! The one integration crate.

#![allow(clippy::unwrap_used)] // Also in helpers: a failed unwrap is a failed test.

mod api;
mod smkictl;
mod smkid;
mod systemd;

mod support {
    pub mod fake_engine;
}
