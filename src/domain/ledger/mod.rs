//! Pure. Entries, the Merkle tree over them, checkpoints and proofs.
//!
//! `merkle ← tiles`, `merkle, note ← checkpoint ← proof`. A leaf is opaque in these files: octets and their hash. What the
//! octets say is in [`entry`].

pub mod ceremonies;
pub mod checkpoint;
pub mod contingency;
pub mod custody;
pub mod entry;
pub mod glance;
pub mod head_object;
pub mod jobs;
pub mod meaning;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod snapshots;
pub mod steps;
pub mod tiles;
pub mod tokens;
pub mod transcript;
pub mod words;
