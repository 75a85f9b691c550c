//! Pure. Text that people wrote for people, within a document that is signed or a policy that is reviewed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 1 to [`Prose::LEN_MAX`] octets of UTF-8 without control characters (but line feeds) and without characters that
/// turn the direction of writing: what is shown on a terminal is what is signed, in the order in which it stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prose(Box<str>);

/// Why a text is no [`Prose`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProseError {
    /// Nothing there, or more than anybody reads.
    #[error("text: expected 1 to {} octets, found {len}", Prose::LEN_MAX)]
    Length {
        /// In octets.
        len: usize,
    },
    /// A character that would hide or reorder what is shown.
    #[error("text: expected no control or direction characters but line feeds, found U+{:04X} at octet {at}", *.found as u32)]
    Character {
        /// The character.
        found: char,
        /// Its offset in octets.
        at: usize,
    },
}

impl Prose {
    /// A page of text. No official reference.
    pub const LEN_MAX: usize = 4_000;

    /// Whether a character may stand in it: none that would hide or reorder what is shown.
    pub fn may_have(character: char) -> bool {
        let hides = (character.is_control() && character != '\n')
            || matches!(
                character,
                '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            );
        !hides
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prose {
    type Err = ProseError;
    fn from_str(text: &str) -> Result<Self, ProseError> {
        if !(1..=Self::LEN_MAX).contains(&text.len()) {
            return Err(ProseError::Length { len: text.len() });
        }
        match text.char_indices().find(|&(_, c)| !Self::may_have(c)) {
            Some((at, found)) => Err(ProseError::Character { found, at }),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for Prose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Prose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Prose {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Prose {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
