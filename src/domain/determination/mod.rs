//! Pure. What the PMA determined, and who signed it.
//!
//! A document is read once and keeps its octets ([`document`]); signatures over it are verified ([`cms`]) and counted as
//! persons ([`quorum`], [`people`]); what it lists line by line is read as a stream ([`devices`]) and found by
//! pages ([`pages`]); its SHA-256 is read aloud
//! ([`words`]).

pub mod cms;
pub mod devices;
pub mod document;
mod json;
pub mod pages;
pub mod people;
pub mod prose;
pub mod quorum;
pub mod rough;
pub mod spki;
pub mod times;
pub mod words;
