//! Pure. Octets and facts in, values out: no file, socket, clock, random source, database or PKCS#11 in here.
//!
//! Dependencies point one way: `names, time ← gbcs, certificates, ledger ← determination ← policy ← fold ← intake ←
//! audit`.
//! Dependencies point one way: `names, time ← gbcs, certificates, ledger ← determination ← files ← policy ← fold ← audit`.
//! Dependencies point one way: `names, time ← gbcs, certificates, ledger ← determination ← policy ← responses ← fold ← audit`.
//! Dependencies point one way: `names, time ← gbcs, certificates, ledger ← determination ← procedure ← policy ← fold ← audit`.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod audit;
pub mod certificates;
pub mod commands;
pub mod custody;
pub mod determination;
pub mod files;
pub mod fold;
pub mod gbcs;
pub mod incident;
pub mod intake;
pub mod ledger;
pub mod names;
pub mod policy;
pub mod procedure;
pub mod responses;
pub mod time;
