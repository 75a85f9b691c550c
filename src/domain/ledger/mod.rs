//! Pure. Entries, the Merkle tree over them, checkpoints and proofs.

pub mod entry;
