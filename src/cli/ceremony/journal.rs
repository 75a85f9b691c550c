//! The journal of a ceremony: what was begun, asked, answered, read aloud and done, one JSON object a line, durable before the
//! next thing happens. An interruption at any point leaves it readable, and the ceremony goes on from it; the minutes are made from it.
//!
//! Whoever can write the file can write it anew. So whenever people rise they note its SHA-256, and compare it before they go on; and
//! that of the transcript before the ledger has it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{CeremonyError, room};
use crate::cli::input::{self, InputError};
use crate::domain::ledger::transcript::{self, TRANSCRIPT_LEN_MAX};
pub use crate::domain::ledger::transcript::{Line, What};
use crate::domain::names::Digest;
use crate::domain::time::Timestamp;

/// The name of the file in the plan's `out`.
pub const JOURNAL: &str = "ceremony.journal";
/// Asked before a step.
pub const SHALL_IT: &str = "Shall it be done?";
/// Asked before a step that was begun before.
pub const GO_ON: &str = "Go on with it?";

/// The journal of a ceremony that goes on.
pub struct Journal {
    path: PathBuf,
    file: File,
    lines: Vec<Line>,
    octets: Vec<u8>,
}

impl Journal {
    /// Opens the journal of a folder, or begins one. Half a line at the end, which an interruption can leave, is cut off: what it was
    /// to say was not done yet.
    pub fn open(folder: &Path) -> Result<Self, CeremonyError> {
        let path = folder.join(JOURNAL);
        let (octets, lines) = whole(&path)?;
        let unreadable = |source| InputError::Unreadable { path: path.clone(), source };
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(unreadable)?;
        file.set_len(octets.len() as u64).map_err(unreadable)?;
        file.sync_all().map_err(unreadable)?;
        room::sync_folder(folder)?;
        Ok(Self { path, file, lines, octets })
    }

    /// Adds a line, durably.
    pub fn write(&mut self, at: Timestamp, what: What) -> Result<(), CeremonyError> {
        let line = Line { at, prev: last(&self.octets), what };
        let mut octets = serde_json::to_vec(&line).map_err(std::io::Error::from)?;
        octets.push(b'\n');
        let written = self.file.write_all(&octets).and_then(|()| self.file.sync_all());
        written.map_err(|source| InputError::Unreadable { path: self.path.clone(), source })?;
        self.octets.extend_from_slice(&octets);
        self.lines.push(line);
        Ok(())
    }

    /// What it says so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether the step was done.
    pub fn is_done(&self, id: &str) -> bool {
        self.lines.iter().any(|line| matches!(&line.what, What::Done { step, .. } if **step == *id))
    }

    /// How often the step was begun, whatever became of it.
    pub fn begun(&self, id: &str) -> usize {
        self.lines.iter().filter(|line| matches!(&line.what, What::Begun { step, .. } if **step == *id)).count()
    }

    /// How often it was agreed to do the step, whatever became of it.
    pub fn agreed(&self, id: &str) -> usize {
        let yes = |line: &&Line| matches!(&line.what, What::Answered { step, answer, .. } if **step == *id && **answer == *"yes");
        self.lines.iter().filter(yes).count()
    }

    /// How people left it: what they have noted of it, as far as it says so itself. None if it was not begun.
    pub fn left(&self) -> Option<Left> {
        let last = self.lines.last()?;
        let rose = |line: &Line| matches!(line.what, What::Adjourned { .. } | What::Failed { .. });
        let as_of = |line: &Line, count| (line.at, Digest::of(transcript::up_to(&self.octets, count)));
        let rose =
            self.lines.iter().rposition(rose).map(|at| (as_of(&self.lines[at], at + 1), at + 1 == self.lines.len()));
        let cut_off = (!rose.is_some_and(|(_, last)| last)).then(|| as_of(last, self.lines.len()));
        Some(Left { rose: rose.map(|(rose, _)| rose), cut_off })
    }

    /// The octets that they lie in.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Whether all steps are done.
    pub fn is_closed(&self) -> bool {
        self.lines.iter().any(|line| matches!(line.what, What::Closed {}))
    }

    /// The entry that records it.
    pub fn recorded(&self) -> Option<u64> {
        self.lines.iter().find_map(|line| if let What::Recorded { entry } = line.what { Some(entry) } else { None })
    }

    /// How many sessions there were.
    pub fn sessions(&self) -> u32 {
        let sessions = self.lines.iter().filter(|line| matches!(line.what, What::Session { .. })).count();
        u32::try_from(sessions).unwrap_or(u32::MAX)
    }

    /// At which step the last session was cut off, unless it ended in good order.
    pub fn interrupted(&self) -> Option<Box<str>> {
        let last = self.lines.last()?;
        match &last.what {
            What::Adjourned { .. } | What::Failed { .. } | What::Recorded { .. } => None,
            _ => {
                if self.is_closed() {
                    return Some("the close".into());
                }
                let begun = self.lines.iter().rev().find_map(|line| match &line.what {
                    What::Begun { title, .. } => Some(title.clone()),
                    What::Session { .. } => Some("the roll-call".into()),
                    _ => None,
                });
                Some(begun.unwrap_or_else(|| "the opening".into()))
            }
        }
    }

    /// The transcript: everything up to and with the line that closes it; all of it while it is open.
    pub fn transcript(&self) -> &[u8] {
        transcript::of(&self.lines, &self.octets)
    }
}

/// How people left a journal. Each is when, and the SHA-256 of the journal as it was then.
pub struct Left {
    /// When they last rose, and noted its words.
    pub rose: Option<(Timestamp, Digest)>,
    /// The last line, if they did not rise after it: then nobody was told to note anything.
    pub cut_off: Option<(Timestamp, Digest)>,
}

/// When the ceremony of that plan was opened, by the journal of a folder; none if it was not.
pub fn opened(folder: &Path, of: Digest) -> Result<Option<Timestamp>, CeremonyError> {
    let (_, lines) = whole(&folder.join(JOURNAL))?;
    let first = lines.first().filter(|line| matches!(&line.what, What::Opened { plan, .. } if *plan == of));
    Ok(first.map(|line| line.at))
}

/// The whole lines of a journal, and the octets that they lie in; none if there is no journal.
fn whole(path: &Path) -> Result<(Vec<u8>, Vec<Line>), CeremonyError> {
    let mut octets = if path.exists() { input::file(path, TRANSCRIPT_LEN_MAX)? } else { Vec::new() };
    octets.truncate(octets.iter().rposition(|&octet| octet == b'\n').map_or(0, |at| at + 1));
    let lines = read(path, &octets)?;
    Ok((octets, lines))
}

/// SHA-256 of the last line, without its line feed.
fn last(octets: &[u8]) -> Digest {
    let whole = octets.strip_suffix(b"\n").unwrap_or(octets);
    Digest::of(whole.rsplit(|&octet| octet == b'\n').next().unwrap_or_default())
}

/// Reads the lines of a journal or transcript.
pub fn read(path: &Path, octets: &[u8]) -> Result<Vec<Line>, CeremonyError> {
    let wrong =
        |fault: transcript::LineFault| InputError::Line { path: path.to_owned(), line: fault.line, error: fault.text };
    Ok(transcript::read(octets).map_err(wrong)?)
}
