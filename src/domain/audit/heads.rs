//! Pure. The signed checkpoints of an export: each by the ledger's key, and all of one tree.

use super::{Audit, AuditError};
use crate::domain::intake::{self, Heads};
use crate::domain::ledger::checkpoint::SignedCheckpoint;
use crate::domain::ledger::merkle::{Frontier, Head};
use crate::domain::ledger::note::{Note, Verifier};
use crate::domain::names::Digest;

/// The name of the file of all checkpoints.
const FILE: &str = "checkpoints";

/// One file of these notes: each as it was signed, and an empty line after it.
///
/// A note is its text, an empty line and its signature lines, and neither the text nor the signature lines have an empty line
/// in them: so every second empty line ends a note.
pub fn join_checkpoints<'a>(notes: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut file = Vec::new();
    for note in notes {
        file.extend(note);
        file.push(b'\n');
    }
    file
}

/// Reads one checkpoint: signed by this key, and by nobody else.
///
/// A further signature, such as a witness's, would be carried without being checked: it is refused until it can be.
pub fn read_checkpoint(octets: &[u8], key: &Verifier) -> Result<Head, String> {
    let signed = SignedCheckpoint::verify(octets, key).map_err(|error| error.to_string())?;
    let lines = Note::parse(octets).map_err(|error| error.to_string())?.signatures().len();
    if lines == 1 { Ok(signed.head()) } else { Err(format!("expected one signature line, found {lines}")) }
}

/// Reads the file of all checkpoints: the oldest first, each larger than the one before.
pub fn read_checkpoints(octets: &[u8], key: &Verifier) -> Result<Vec<Head>, AuditError> {
    let wrong = |number: usize, reason: String| AuditError::file(format!("{FILE}, checkpoint {number}"), reason);
    let empty_line = |octets: &[u8]| octets.windows(2).position(|pair| pair == b"\n\n");
    let mut heads: Vec<Head> = Vec::new();
    let mut rest = octets;
    while !rest.is_empty() {
        let number = heads.len() + 1;
        let cut = || wrong(number, "expected a note and an empty line after it, found the end of the file".into());
        let text_len = empty_line(rest).ok_or_else(cut)? + 2;
        let note_len = text_len + empty_line(&rest[text_len..]).ok_or_else(cut)? + 1;
        let head = read_checkpoint(&rest[..note_len], key).map_err(|reason| wrong(number, reason))?;
        if let Some(last) = heads.last().filter(|last| last.size >= head.size) {
            return Err(wrong(number, format!("expected a size above {}, found {}", last.size, head.size)));
        }
        if head.size == 0 {
            return Err(wrong(number, "it is of an empty ledger".into()));
        }
        heads.push(head);
        rest = &rest[note_len + 1..];
    }
    Ok(heads)
}

/// The roots over the entries as they come, compared with every checkpoint at its size.
pub struct Roots<'a> {
    frontier: Frontier,
    signed: &'a [Head],
    passed: usize,
    earlier: Option<Head>,
}

impl<'a> Roots<'a> {
    /// With the signed checkpoints of the ledger, and one that somebody saw earlier.
    pub fn new(signed: &'a [Head], earlier: Option<Head>) -> Self {
        Self { frontier: Frontier::new(), signed, passed: 0, earlier }
    }

    /// One more entry. Answers whether a checkpoint was signed over exactly the entries so far.
    pub fn push(&mut self, leaf: Digest) -> Result<bool, AuditError> {
        self.frontier.push(leaf);
        let size = self.frontier.size();
        if let Some(earlier) = self.earlier.filter(|earlier| earlier.size == size) {
            let found = self.frontier.root();
            if found != earlier.root {
                return Err(AuditError::entry(
                    size - 1,
                    "the checkpoint given",
                    format!(
                        "this ledger does not extend it: at size {size} it has root {}, the ledger {found}",
                        earlier.root
                    ),
                ));
            }
        }
        let Some(head) = self.signed.get(self.passed).filter(|head| head.size == size) else { return Ok(false) };
        self.passed += 1;
        let found = self.frontier.root();
        if head.root == found {
            return Ok(true);
        }
        Err(AuditError::file(
            format!("{FILE}, checkpoint {}", self.passed),
            format!("at size {size} it has root {}, the entries {found}: entries were changed", head.root),
        ))
    }

    /// The size of the newest checkpoint over no more than the entries so far; 0 if there is none.
    pub fn covered(&self) -> u64 {
        self.passed.checked_sub(1).and_then(|last| self.signed.get(last)).map_or(0, |head| head.size)
    }

    /// After the last entry. Answers how many checkpoints there are.
    pub fn finish(self) -> Result<u64, AuditError> {
        let size = self.frontier.size();
        if let Some(head) = self.signed.get(self.passed) {
            let reason = format!("it is of {} entries, and there are {size}", head.size);
            return Err(AuditError::file(format!("{FILE}, checkpoint {}", self.passed + 1), reason));
        }
        if self.covered() != size {
            let reason = format!("expected the last checkpoint to be of all {size} entries, found {}", self.covered());
            return Err(AuditError::file(FILE, reason));
        }
        match self.earlier.filter(|earlier| earlier.size > size) {
            Some(earlier) => Err(AuditError::file(
                "the checkpoint given",
                format!("it is of {} entries, and this ledger has {size}: it was rolled back", earlier.size),
            )),
            None => Ok(self.passed as u64),
        }
    }
}

/// The heads that a drafter may have seen: those signed before the entry that is being looked at.
impl Heads for Audit<'_> {
    fn head(&self, size: u64) -> Option<intake::Head> {
        let signed = &self.roots.signed[..self.roots.passed];
        let at = signed.binary_search_by_key(&size, |head| head.size).ok()?;
        Some(intake::Head { root: signed[at].root, at: *self.head_times.get(at)? })
    }
}
