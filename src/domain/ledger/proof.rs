//! Pure. C2SP tlog-proof, `c2sp.org/tlog-proof@v1`: the receipt of one entry, checkable without us.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{CheckpointError, SignedCheckpoint, parse_decimal, parse_hash, shorten};
use super::merkle::{MerkleError, verify_inclusion};
use super::note::{NOTE_LEN_MAX, Verifier};
use crate::domain::names::Digest;

/// The first line.
const MAGIC: &str = "c2sp.org/tlog-proof@v1";
/// A tree of at most 2^64 leaves has no longer path.
const PATH_LEN_MAX: usize = 64;
/// The greatest length of a proof in octets: a note, a path, and as much again for extra data.
pub const PROOF_LEN_MAX: usize = 2 * NOTE_LEN_MAX;

/// Why octets are no proof, or prove nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Too long to be looked at.
    #[error("proof: expected at most {PROOF_LEN_MAX} octets, found {len}")]
    TooLong {
        /// Its length in octets.
        len: usize,
    },
    /// A line is not what it should be.
    #[error("proof, line {line}: expected {expected}, found {found:?}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
        /// What stood there, cut to 80 characters.
        found: String,
    },
    /// The checkpoint in it.
    #[error("proof: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The path in it.
    #[error("proof: {0}")]
    Path(#[from] MerkleError),
}

/// A receipt. Nothing in it can be believed before [`Proof::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The entry's index in the ledger.
    pub index: u64,
    /// From the leaf's sibling to the root's child.
    pub path: Vec<Digest>,
    /// The signed checkpoint, verbatim.
    pub checkpoint: Vec<u8>,
}

impl Proof {
    /// The file's content. Its name should end in `.tlog-proof`.
    pub fn to_octets(&self) -> Vec<u8> {
        let Self { index, path, checkpoint } = self;
        let mut text = format!("{MAGIC}\nindex {index}\n");
        for hash in path {
            writeln!(text, "{}", STANDARD.encode(hash.0)).expect("a String takes everything");
        }
        text.push('\n');
        let mut octets = text.into_bytes();
        octets.extend(checkpoint);
        octets
    }

    /// Parses a proof. An `extra` line must be base64 and is passed over: nothing authenticates it. The checkpoint is parsed
    /// where it is verified.
    pub fn parse(octets: &[u8]) -> Result<Self, ProofError> {
        if octets.len() > PROOF_LEN_MAX {
            return Err(ProofError::TooLong { len: octets.len() });
        }
        let mut lines = Lines { rest: octets, line: 0 };
        let magic = lines.next()?;
        if magic != MAGIC {
            return Err(lines.wrong("c2sp.org/tlog-proof@v1", magic));
        }
        let mut line = lines.next()?;
        if let Some(extra) = line.strip_prefix("extra ") {
            STANDARD.decode(extra).map_err(|_| lines.wrong("extra data in padded standard base64", line))?;
            line = lines.next()?;
        }
        let index = line
            .strip_prefix("index ")
            .and_then(parse_decimal)
            .ok_or_else(|| lines.wrong("index, a space, and a decimal without leading zeros", line))?;
        let mut path = Vec::new();
        loop {
            let line = lines.next()?;
            if line.is_empty() {
                break;
            }
            if path.len() == PATH_LEN_MAX {
                return Err(lines.wrong("the empty line after at most 64 hashes", line));
            }
            path.push(parse_hash(line).ok_or_else(|| lines.wrong("32 octets in padded standard base64", line))?);
        }
        Ok(Self { index, path, checkpoint: lines.rest.to_vec() })
    }

    /// Checks that the leaf with this hash is in the ledger whose checkpoints `key` signs, at [`Proof::index`]. Answers the
    /// checkpoint that proves it.
    pub fn verify(&self, leaf: Digest, key: &Verifier) -> Result<SignedCheckpoint, ProofError> {
        let checkpoint = SignedCheckpoint::verify(&self.checkpoint, key)?;
        verify_inclusion(leaf, self.index, &checkpoint.head(), &self.path)?;
        Ok(checkpoint)
    }
}

/// Lines ended by a line feed, until the caller takes the rest.
struct Lines<'a> {
    rest: &'a [u8],
    /// The number of the line last handed out.
    line: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a str, ProofError> {
        self.line += 1;
        let ended = self.rest.iter().position(|octet| *octet == b'\n');
        let text = ended.and_then(|len| str::from_utf8(&self.rest[..len]).ok());
        let (Some(len), Some(text)) = (ended, text) else {
            return Err(self.wrong("a line of UTF-8 ended by a line feed", &String::from_utf8_lossy(self.rest)));
        };
        self.rest = &self.rest[len + 1..];
        Ok(text)
    }

    fn wrong(&self, expected: &'static str, found: &str) -> ProofError {
        ProofError::Line { line: self.line, expected, found: shorten(found) }
    }
}

#[cfg(test)]
mod tests;
