//! Pure. A file of messages: hexadecimal, one a line, or one binary message after another.
//!
//! They are kept as they would stand in the second, which is half as long; or, where one of them cannot be told from the next by
//! its own octets, as the first, in one form. Older entries name the first alone.

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

/// The messages of a file, told apart by its first octet; no more than one entry takes.
///
/// In a binary file a message that cannot be read takes the rest of the file with it, for nobody can tell where the next begins:
/// it is the last one answered.
pub fn split(octets: &[u8]) -> Result<Vec<Vec<u8>>, MessagesError> {
    let messages = all(octets, MESSAGES_MAX + 1)?;
    if messages.len() > MESSAGES_MAX { Err(MessagesError::TooMany) } else { Ok(messages) }
}

/// As [`split`], the first `count_max` messages of a file of any number.
pub fn all(octets: &[u8], count_max: usize) -> Result<Vec<Vec<u8>>, MessagesError> {
    let first = octets.first().ok_or(MessagesError::Empty)?;
    let messages = if is_binary(*first) { binary(octets, count_max) } else { lines(octets, count_max)? };
    if messages.is_empty() { Err(MessagesError::Empty) } else { Ok(messages) }
}

fn binary(mut octets: &[u8], count_max: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !octets.is_empty() && messages.len() < count_max {
        let (message, rest) = octets.split_at(signed_message_len(octets).unwrap_or(octets.len()));
        messages.push(message.to_vec());
        octets = rest;
    }
    messages
}

fn lines(octets: &[u8], count_max: usize) -> Result<Vec<Vec<u8>>, MessagesError> {
    let lines = (1..).zip(octets.split(|octet| *octet == b'\n')).map(|(line, digits)| (line, digits.trim_ascii()));
    lines
        .filter(|(_, digits)| !digits.is_empty())
        .take(count_max)
        .map(|(line, digits)| {
            hex::decode(digits).map_err(|_| {
                let found = String::from_utf8_lossy(digits).chars().take(FOUND_LEN_MAX).collect();
                MessagesError::Line { line, found }
            })
        })
        .collect()
}

/// Messages as lower-case hexadecimal, one a line.
pub fn canonical(messages: &[Vec<u8>]) -> String {
    let mut text = String::with_capacity(messages.iter().map(|message| 2 * message.len() + 1).sum());
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

/// The form in which messages are kept: binary, if each says itself where it ends, else as [`canonical`].
pub fn kept(messages: &[Vec<u8>]) -> Vec<u8> {
    if messages.iter().all(|message| is_whole(message)) { messages.concat() } else { canonical(messages).into() }
}

/// Reads a form that is kept, and no other.
pub fn read(octets: &[u8]) -> Result<Vec<Vec<u8>>, MessagesError> {
    let messages = split(octets)?;
    let is_kept = if octets.first().is_some_and(|first| is_binary(*first)) {
        messages.iter().all(|message| is_whole(message))
    } else {
        canonical(&messages).as_bytes() == octets
    };
    if is_kept { Ok(messages) } else { Err(MessagesError::NotCanonical) }
}
