//! Pure. The head of a ledger as the data objects on the ledger token hold it: what a rolled-back disk cannot take back.
//!
//! ```text
//! smki.example/ledger
//! 42
//! 0ac52c6299863e8e1d90c8080149a89bf5da8e3ee1d9f07630f0378f68f1ab62
//! ```
//!
//! Origin, size in decimal, root in hexadecimal; three lines, each ended by a line feed. `pkcs11-tool --read-object` shows it.

use super::checkpoint::{parse_decimal, shorten};
use super::merkle::Head;
use crate::domain::names::{NameError, Origin};

/// The two data objects, written in turn: writing one anew makes the new before it destroys the old, so whoever is cut off
/// between leaves two in one place, and the other place tells the head before.
pub const HEAD_LABELS: [&str; 2] = ["smkid-head-a", "smkid-head-b"];

/// Octets of the longest: an origin, 20 digits, 64 digits and three line feeds.
pub const HEAD_OBJECT_LEN_MAX: usize = Origin::LEN_MAX + 20 + 64 + 3;

/// Why octets are no head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadObjectError {
    /// Not text of the right length.
    #[error("head object: expected at most {HEAD_OBJECT_LEN_MAX} octets of ASCII text, found {found} octets")]
    Text {
        /// How many octets there were.
        found: usize,
    },
    /// Other than three lines.
    #[error("head object: expected 3 lines (origin, size, root), found {found}")]
    Lines {
        /// How many.
        found: usize,
    },
    /// The origin or the root.
    #[error("head object: {0}")]
    Name(#[from] NameError),
    /// The size.
    #[error("head object, line 2: expected a size in decimal without leading zeros, found {found:?}")]
    Size {
        /// What stood there, cut to 80 characters.
        found: String,
    },
}

/// The head of the ledger by that origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadObject {
    /// Which ledger.
    pub origin: Origin,
    /// Its head at one moment.
    pub head: Head,
}

impl HeadObject {
    /// The octets of the object.
    pub fn to_octets(&self) -> Vec<u8> {
        let Self { origin, head: Head { size, root } } = self;
        format!("{origin}\n{size}\n{root}\n").into_bytes()
    }

    /// Reads the octets of an object.
    pub fn parse(octets: &[u8]) -> Result<Self, HeadObjectError> {
        let text = std::str::from_utf8(octets).ok().filter(|text| text.is_ascii() && text.len() <= HEAD_OBJECT_LEN_MAX);
        let text = text.ok_or(HeadObjectError::Text { found: octets.len() })?;
        let found = text.bytes().filter(|octet| *octet == b'\n').count();
        let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or_default().splitn(4, '\n').collect();
        let &[origin, size, root] = lines.as_slice() else {
            return Err(HeadObjectError::Lines { found });
        };
        let size = parse_decimal(size).ok_or_else(|| HeadObjectError::Size { found: shorten(size) })?;
        Ok(Self { origin: origin.parse()?, head: Head { size, root: root.parse()? } })
    }
}

#[cfg(test)]
mod tests;
