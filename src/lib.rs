//! `smkid`, an HSM-backed SMKI key management daemon, and `smkictl`, its admin CLI.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod domain;
pub mod exercise;
pub mod hsm;
pub mod pipeline;
pub mod recorder;
pub mod service;
pub mod state;
pub mod store;
