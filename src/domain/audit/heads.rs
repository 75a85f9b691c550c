//! Pure. The signed checkpoints of an export: each by the ledger's key, and all of one tree.

use super::{Audit, AuditError};
use crate::domain::intake::{self, Heads};
use crate::domain::ledger::checkpoint::SignedCheckpoint;
use crate::domain::ledger::merkle::{Frontier, Head, Subtrees};
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

/// The file of all checkpoints, note by note: each is to be read by [`read_checkpoint`], several at once if there are many.
#[derive(Debug)]
pub struct Notes<'a> {
    /// The whole notes.
    pub notes: Vec<&'a [u8]>,
    /// What stands behind them is none.
    fault: Option<AuditError>,
}

impl<'a> Notes<'a> {
    /// Finds where each note ends.
    pub fn split(octets: &'a [u8]) -> Self {
        let empty_line = |octets: &[u8]| octets.windows(2).position(|pair| pair == b"\n\n");
        let (mut notes, mut rest) = (Vec::new(), octets);
        while !rest.is_empty() {
            let text_len = empty_line(rest).map(|at| at + 2);
            let Some(len) = text_len.and_then(|text| Some(text + empty_line(&rest[text..])? + 1)) else {
                let reason = "expected a note and an empty line after it, found the end of the file".into();
                let fault = Some(wrong(notes.len() + 1, reason));
                return Self { notes, fault };
            };
            notes.push(&rest[..len]);
            rest = &rest[len + 1..];
        }
        Self { notes, fault: None }
    }

    /// With what became of each note, in order: the oldest first, each larger than the one before.
    pub fn heads(self, read: impl IntoIterator<Item = Result<Head, String>>) -> Result<Vec<Head>, AuditError> {
        let mut heads: Vec<Head> = Vec::with_capacity(self.notes.len());
        for head in read {
            let number = heads.len() + 1;
            let head = head.map_err(|reason| wrong(number, reason))?;
            if let Some(last) = heads.last().filter(|last| last.size >= head.size) {
                return Err(wrong(number, format!("expected a size above {}, found {}", last.size, head.size)));
            }
            if head.size == 0 {
                return Err(wrong(number, "it is of an empty ledger".into()));
            }
            heads.push(head);
        }
        self.fault.map_or(Ok(heads), Err)
    }
}

fn wrong(number: usize, reason: String) -> AuditError {
    AuditError::file(format!("{FILE}, checkpoint {number}"), reason)
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

    /// The next bundle, as the tree over it: as [`Roots::push`] for each of its entries, but that a checkpoint within it costs some
    /// hashes, and what lies between checkpoints none.
    pub fn push_bundle(&mut self, bundle: &Subtrees) -> Result<(), AuditError> {
        let from = self.frontier.size();
        let until = from + bundle.leaves().len() as u64;
        let mut compared = from;
        let is_next = |size: u64, compared: u64| (compared < size && size <= until).then_some(size);
        while let Some(size) = [self.earlier, self.signed.get(self.passed).copied()]
            .iter()
            .filter_map(|head| is_next(head.as_ref()?.size, compared))
            .min()
        {
            let mut frontier = self.frontier.clone();
            let within = usize::try_from(size - from).expect("a bundle is in memory");
            frontier.push_first(within, bundle, |_, _| ());
            self.compare(frontier.head())?;
            compared = size;
        }
        self.frontier.push_first(bundle.leaves().len(), bundle, |_, _| ());
        Ok(())
    }

    /// One more entry. Answers whether a checkpoint was signed over exactly the entries so far.
    pub fn push(&mut self, leaf: Digest) -> Result<bool, AuditError> {
        self.frontier.push(leaf);
        let size = self.frontier.size();
        let is_named = |head: Option<&Head>| head.is_some_and(|head| head.size == size);
        if is_named(self.earlier.as_ref()) || is_named(self.signed.get(self.passed)) {
            self.compare(self.frontier.head())
        } else {
            Ok(false)
        }
    }

    /// Compares the head over the first entries with those that name its size. Answers whether it was signed.
    fn compare(&mut self, found: Head) -> Result<bool, AuditError> {
        let Head { size, root: found } = found;
        if let Some(earlier) = self.earlier.filter(|earlier| earlier.size == size && earlier.root != found) {
            let root = earlier.root;
            let reason =
                format!("this ledger does not extend it: at size {size} it has root {root}, the ledger {found}");
            return Err(AuditError::entry(size - 1, "the checkpoint given", reason));
        }
        let Some(head) = self.signed.get(self.passed).filter(|head| head.size == size) else { return Ok(false) };
        self.passed += 1;
        if head.root == found {
            return Ok(true);
        }
        let (number, root) = (self.passed, head.root);
        let reason = format!("at size {size} it has root {root}, the entries {found}: entries were changed");
        Err(AuditError::file(format!("{FILE}, checkpoint {number}"), reason))
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
