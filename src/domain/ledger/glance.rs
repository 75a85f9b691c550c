//! Pure. What kind of entry a leaf is, without reading all of it: for walks over millions of leaves that care for two or three kinds.
//!
//! It relies on the one encoding ([`super::entry`]): a leaf that is not in it has no glance, or one whose contents cannot be read.

use serde::Deserialize;

/// What stands before the kind.
const BEFORE: &[u8] = br#","event":{""#;
/// What stands behind the contents: the ends of event and entry.
const BEHIND: &[u8] = b"}}";

/// The kind of an entry, and its contents as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance<'a> {
    /// As [`super::entry::Event::kind`] says it.
    pub kind: &'a [u8],
    contents: &'a [u8],
}

impl<'a> Glance<'a> {
    /// At a leaf. What precedes the event has texts of others, but quotation marks are escaped in those.
    pub fn at(leaf: &'a [u8]) -> Option<Self> {
        let from = leaf.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
        let rest = &leaf[from..];
        let kind = &rest[..rest.iter().position(|octet| *octet == b'"')?];
        let contents = rest.get(kind.len()..)?.strip_prefix(br#"":"#)?.strip_suffix(BEHIND)?;
        Some(Self { kind, contents })
    }

    /// What the entry says, in the type of its kind.
    pub fn read<T: Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.contents)
    }
}

#[cfg(test)]
mod tests;
