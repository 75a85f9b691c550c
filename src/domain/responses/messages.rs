//! Pure. A file of messages: hexadecimal, one a line, or one binary message after another.
//!
//! They are kept as they would stand in the second, which is half as long; or, where one of them cannot be told from the next by
//! its own octets, as the first, in one form. Older entries name the first alone.

use std::borrow::Cow;

use crate::domain::gbcs::signed_message_len;

/// Messages of one entry. Each costs some rows to look up while everybody waits for the recorder: together some 50 ms.
pub const MESSAGES_MAX: usize = 4_096;

/// Octets of a file of messages. A Response has some 600, twice that in hexadecimal; the most of them have room twice over.
pub const MESSAGES_LEN_MAX: u64 = 8 * 1024 * 1024;

/// Octets of the file itself, which may be in hexadecimal: twice those of its messages, and what ends a line, two octets at most.
pub const FILE_LEN_MAX: u64 = 2 * (MESSAGES_LEN_MAX + MESSAGES_MAX as u64);

/// Why a file is not one of messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessagesError {
    /// Nothing is in it.
    #[error("expected messages, one a line in hexadecimal or binary one after another, found nothing")]
    Empty,
    /// Too many for one entry.
    #[error("expected at most {MESSAGES_MAX} messages, found more; hand them in in parts, as smkictl does")]
    TooMany,
    /// A line of something else.
    #[error("line {line}: expected a message in hexadecimal, found {found:?}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// Its beginning.
        found: String,
    },
    /// Not a form that is kept.
    #[error(
        "expected whole binary messages one after another, or lower-case hexadecimal, one message a line; found another form"
    )]
    NotCanonical,
}

/// The first octet of a message: general-signing or general-ciphering (GBCS 7.2). Neither is one of text.
const FIRST_OCTETS: [u8; 2] = [0xDF, 0xDD];

/// Whether a file that begins with this octet is one of binary messages.
pub fn is_binary(first: u8) -> bool {
    FIRST_OCTETS.contains(&first)
}

/// Characters of a wrong line that are shown.
const FOUND_LEN_MAX: usize = 40;

/// The messages of a file, told apart by its first octet; no more than one entry takes. They lie in one piece of memory: the file itself,
/// where it is binary.
///
/// In a binary file a message that cannot be read takes the rest of the file with it, for nobody can tell where the next begins:
/// it is the last one answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    octets: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// Each says itself where it ends.
    are_whole: bool,
}

impl Default for Messages {
    /// None.
    fn default() -> Self {
        Self { octets: Vec::new(), ends: Vec::new(), are_whole: true }
    }
}

impl Messages {
    /// Takes a file apart.
    pub fn split(file: Vec<u8>) -> Result<Self, MessagesError> {
        let first = file.first().ok_or(MessagesError::Empty)?;
        let messages = if is_binary(*first) { Self::binary(file) } else { Self::lines(&file)? };
        match messages.ends.len() {
            0 => Err(MessagesError::Empty),
            1..=MESSAGES_MAX => Ok(messages),
            _ => Err(MessagesError::TooMany),
        }
    }

    /// Reads a form that is kept, and no other.
    pub fn read(kept: Vec<u8>) -> Result<Self, MessagesError> {
        let text = kept.first().is_some_and(|first| !is_binary(*first)).then(|| kept.clone());
        let messages = Self::split(kept)?;
        let is_kept = match text {
            None => messages.are_whole,
            Some(text) => canonical(&messages.all()).as_bytes() == text,
        };
        if is_kept { Ok(messages) } else { Err(MessagesError::NotCanonical) }
    }

    fn binary(octets: Vec<u8>) -> Self {
        let (mut ends, mut end, mut are_whole) = (Vec::new(), 0, true);
        while end < octets.len() && ends.len() <= MESSAGES_MAX {
            let rest = &octets[end..];
            let len = signed_message_len(rest);
            are_whole &= len.is_ok();
            end += len.unwrap_or(rest.len());
            ends.push(end);
        }
        Self { octets, ends, are_whole }
    }

    fn lines(file: &[u8]) -> Result<Self, MessagesError> {
        let mut messages = Self { octets: Vec::with_capacity(file.len() / 2), ..Self::default() };
        let lines = (1..).zip(file.split(|octet| *octet == b'\n')).map(|(line, digits)| (line, digits.trim_ascii()));
        for (line, digits) in lines.filter(|(_, digits)| !digits.is_empty()).take(MESSAGES_MAX + 1) {
            let message = hex::decode(digits).map_err(|_| {
                let found = String::from_utf8_lossy(digits).chars().take(FOUND_LEN_MAX).collect();
                MessagesError::Line { line, found }
            })?;
            messages.push(&message);
        }
        Ok(messages)
    }

    /// One more.
    pub fn push(&mut self, message: &[u8]) {
        self.are_whole &= is_whole(message);
        self.octets.extend_from_slice(message);
        self.ends.push(self.octets.len());
    }

    /// How many.
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of them, in order.
    pub fn all(&self) -> Vec<&[u8]> {
        let mut from = 0;
        let ends = self.ends.iter().map(|end| &self.octets[std::mem::replace(&mut from, *end)..*end]);
        ends.collect()
    }

    /// Octets of all of them together.
    pub fn octets_len(&self) -> u64 {
        self.octets.len() as u64
    }

    /// The form in which they are kept: binary, if each says itself where it ends, else as [`canonical`].
    pub fn kept(&self) -> Cow<'_, [u8]> {
        if self.are_whole { Cow::Borrowed(&self.octets) } else { Cow::Owned(canonical(&self.all()).into()) }
    }

    /// The same, of messages that are needed no longer.
    pub fn into_kept(self) -> Vec<u8> {
        if self.are_whole { self.octets } else { canonical(&self.all()).into() }
    }

    /// Their octets, one message after the other.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

/// Messages as lower-case hexadecimal, one a line.
pub fn canonical(messages: &[impl AsRef<[u8]>]) -> String {
    let mut text = String::with_capacity(messages.iter().map(|message| 2 * message.as_ref().len() + 1).sum());
    for message in messages {
        text.push_str(&hex::encode(message));
        text.push('\n');
    }
    text
}

/// Whether a message says itself where it ends.
pub fn is_whole(message: &[u8]) -> bool {
    signed_message_len(message) == Ok(message.len())
}
