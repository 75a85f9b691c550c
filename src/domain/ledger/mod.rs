//! Pure. Entries, the Merkle tree over them, checkpoints and proofs.

pub mod entry;
//!
//! `merkle ← tiles`, `merkle, note ← checkpoint ← proof`. A leaf is opaque in these files: octets and their hash.

pub mod checkpoint;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod tiles;
