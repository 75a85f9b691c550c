//! Pure. C2SP tlog-checkpoint v1.0.0: the head of a ledger as the text of a signed note.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::merkle::Head;
use super::note::{Note, NoteError, Verifier, signature_to_der};
use crate::domain::names::{Digest, NameError, Origin};

/// Why a note is no checkpoint, or not this ledger's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text has other than three lines.
    #[error("checkpoint: expected 3 lines (origin, size, root) and no extension lines, found {found}")]
    Lines {
        /// How many.
        found: usize,
    },
    /// The first line.
    #[error("checkpoint, line 1: {0}")]
    Origin(#[from] NameError),
    /// The second line.
    #[error("checkpoint, line 2: expected a size in decimal without leading zeros, found {found:?}")]
    Size {
        /// What stood there, cut to 80 characters.
        found: String,
    },
    /// The third line.
    #[error("checkpoint, line 3: expected a root of 32 octets in padded standard base64, found {found:?}")]
    Root {
        /// What stood there, cut to 80 characters.
        found: String,
    },
    /// The origin is another than the key's name, so this is the checkpoint of another ledger.
    #[error("checkpoint, line 1: expected the origin to be the key's name {expected}, found {found}")]
    OtherLedger {
        /// The name of the key.
        expected: String,
        /// The origin.
        found: Origin,
    },
}

/// A size in ASCII decimal without leading zeros (0 itself is `0`).
pub(super) fn parse_decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

/// 32 octets in padded standard base64.
pub(super) fn parse_hash(text: &str) -> Option<Digest> {
    STANDARD.decode(text).ok()?.try_into().ok().map(Digest)
}

pub(super) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// What a ledger says of itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger's name, and that of the key which signs its checkpoints.
    pub origin: Origin,
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
}

impl Checkpoint {
    /// Of a ledger with this head.
    pub fn new(origin: Origin, head: Head) -> Self {
        Self { origin, size: head.size, root: head.root }
    }

    /// Size and root.
    pub const fn head(&self) -> Head {
        Head { size: self.size, root: self.root }
    }

    /// The text to be signed, all of it: `origin LF size LF base64(root) LF`. The token's worker hashes it with SHA-256.
    pub fn text(&self) -> String {
        let Self { origin, size, root } = self;
        format!("{origin}\n{size}\n{}\n", STANDARD.encode(root.0))
    }

    /// Parses the text of a note. Extension lines are refused: we write none, and nobody can audit them.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let found = text.bytes().filter(|b| *b == b'\n').count();
        let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or_default().splitn(4, '\n').collect();
        let &[origin, size, root] = lines.as_slice() else {
            return Err(CheckpointError::Lines { found });
        };
        Ok(Self {
            origin: origin.parse()?,
            size: parse_decimal(size).ok_or_else(|| CheckpointError::Size { found: shorten(size) })?,
            root: parse_hash(root).ok_or_else(|| CheckpointError::Root { found: shorten(root) })?,
        })
    }
}

/// A checkpoint under a signature that has been verified: here, or by [`SignedCheckpoint::assemble_verified`] where it came from the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Parses a signed checkpoint and verifies that `key`, whose name is the origin, signed it.
    pub fn verify(octets: &[u8], key: &Verifier) -> Result<Self, CheckpointError> {
        Self::from_note(Note::parse(octets)?, key)
    }

    /// Puts a token's signature (r ‖ s) under a checkpoint, and verifies it.
    pub fn assemble(checkpoint: &Checkpoint, key: &Verifier, signature: &[u8; 64]) -> Result<Self, CheckpointError> {
        Self::from_note(put_under(checkpoint, key, signature)?, key)
    }

    /// The same with a signature that was verified over [`Checkpoint::text`] where it came from the token, with the key `by` (`04 ‖ x ‖ y`). It
    /// is not verified again if that is this very key: a command waits for two of these, and a verification takes about as long as a
    /// C_Sign of SoftHSM.
    pub(crate) fn assemble_verified(
        checkpoint: &Checkpoint,
        key: &Verifier,
        signature: &[u8; 64],
        by: &[u8],
    ) -> Result<Self, CheckpointError> {
        let note = put_under(checkpoint, key, signature)?;
        if by != key.point() {
            return Self::from_note(note, key);
        }
        debug_assert_eq!(note.verify(key), Ok(()), "whoever calls this has verified it");
        Self::verified(note, key)
    }

    fn from_note(note: Note, key: &Verifier) -> Result<Self, CheckpointError> {
        note.verify(key)?;
        Self::verified(note, key)
    }

    fn verified(note: Note, key: &Verifier) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin.as_str() != key.name() {
            return Err(CheckpointError::OtherLedger { expected: key.name().into(), found: checkpoint.origin });
        }
        Ok(Self { checkpoint, note })
    }

    /// What was signed.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Size and root.
    pub const fn head(&self) -> Head {
        self.checkpoint.head()
    }

    /// The note as it came, to be stored and exported.
    pub fn octets(&self) -> &[u8] {
        self.note.octets()
    }
}

fn put_under(checkpoint: &Checkpoint, key: &Verifier, signature: &[u8; 64]) -> Result<Note, NoteError> {
    Note::assemble(&checkpoint.text(), key, &signature_to_der(signature))
}

#[cfg(test)]
mod tests;
