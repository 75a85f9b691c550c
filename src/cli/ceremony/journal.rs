//! The journal of a ceremony: what was begun, asked, answered, read aloud and done, one JSON object a line, durable before the
//! next thing happens. An interruption at any point leaves it readable, and the ceremony goes on from it; the minutes are made from it.
//!
//! Each line names the SHA-256 of the one before, so that a line that was taken out or changed is noticed. Nothing secret is in it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::{Capacity, Kind};
use super::{CeremonyError, room};
use crate::cli::input::{self, InputError};
use crate::domain::names::{Digest, Origin, PersonId, Purpose};
use crate::domain::time::Timestamp;

/// The name of the file in the plan's `out`.
pub const JOURNAL: &str = "ceremony.journal";
/// Asked before a step.
pub const SHALL_IT: &str = "Shall it be done?";
/// Asked before a step that was begun before.
pub const GO_ON: &str = "Go on with it?";
/// A ceremony of a week writes a hundredth of it.
pub const JOURNAL_LEN_MAX: u64 = 16 * 1024 * 1024;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// When, by the machine's clock.
    pub at: Timestamp,
    /// SHA-256 of the line before, without its line feed; of nothing for the first.
    pub prev: Digest,
    /// What.
    pub what: What,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum What {
    /// The ceremony begins. The first line, and only that.
    Opened {
        /// SHA-256 of the plan.
        plan: Digest,
        /// What for.
        kind: Kind,
        /// As the plan heads it.
        title: Box<str>,
        /// The room.
        place: Box<str>,
        /// Live or exercise.
        purpose: Purpose,
        /// The ledger.
        origin: Origin,
        /// The digest of the policy.
        policy: Digest,
        /// What was agreed upon for interruptions.
        when_interrupted: Box<str>,
        /// Whether the tokens were scratch.
        rehearsal: bool,
    },
    /// People sit down: at the beginning, and after each interruption or adjournment.
    Session {
        /// From 1.
        number: u32,
        /// The account that runs the program.
        account: Box<str>,
        /// Version and SHA-256 of the program.
        program: Box<str>,
        /// At which step the session before was cut off, if it did not end in good order.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interrupted: Option<Box<str>>,
    },
    /// Somebody is there.
    Present {
        /// By the policy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        person: Option<PersonId>,
        /// Their name.
        name: Box<str>,
        /// As what.
        capacity: Capacity,
    },
    /// Somebody who was expected is not.
    Absent {
        /// Their name.
        name: Box<str>,
        /// As what they were expected.
        capacity: Capacity,
    },
    /// A step begins: this stands before anything is done.
    Begun {
        /// Which.
        step: Box<str>,
        /// Its heading.
        title: Box<str>,
        /// What it will do, as it was said.
        says: Box<str>,
    },
    /// A question was answered.
    Answered {
        /// The step.
        step: Box<str>,
        /// What was asked.
        asked: Box<str>,
        /// What was answered.
        answer: Box<str>,
    },
    /// A digest was read aloud as words, and compared.
    Read {
        /// The step.
        step: Box<str>,
        /// What has this digest.
        what: Box<str>,
        /// The digest.
        sha256: Digest,
        /// Who compared it, besides the conductor.
        compared: Vec<Box<str>>,
    },
    /// Something of an earlier attempt at this step was there already.
    Found {
        /// The step.
        step: Box<str>,
        /// What.
        what: Box<str>,
    },
    /// The step was done.
    Done {
        /// Which.
        step: Box<str>,
        /// What came of it: names and values.
        facts: Vec<(Box<str>, Box<str>)>,
    },
    /// The step failed; the ceremony goes on there.
    Failed {
        /// Which.
        step: Box<str>,
        /// Why.
        why: Box<str>,
    },
    /// People rise in good order.
    Adjourned {
        /// Before or in which step.
        step: Box<str>,
        /// Why, or what is waited for.
        why: Box<str>,
    },
    /// Somebody wanted it on record.
    Remark {
        /// During which step.
        step: Box<str>,
        /// What.
        text: Box<str>,
    },
    /// All steps are done. The transcript in the ledger ends here.
    Closed {},
    /// The ledger has it.
    Recorded {
        /// The index of the entry.
        entry: u64,
    },
}

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
        let mut octets = if path.exists() { input::file(&path, JOURNAL_LEN_MAX)? } else { Vec::new() };
        let whole = octets.iter().rposition(|&octet| octet == b'\n').map_or(0, |at| at + 1);
        octets.truncate(whole);
        let lines = read(&path, &octets)?;
        let unreadable = |source| InputError::Unreadable { path: path.clone(), source };
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(unreadable)?;
        file.set_len(whole as u64).map_err(unreadable)?;
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
            What::Adjourned { .. } | What::Failed { .. } | What::Closed {} | What::Recorded { .. } => None,
            _ => {
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
        transcript(&self.lines, &self.octets)
    }
}

/// The octets up to and with the line that closes the ceremony.
pub fn transcript<'a>(lines: &[Line], octets: &'a [u8]) -> &'a [u8] {
    let Some(closed) = lines.iter().position(|line| matches!(line.what, What::Closed {})) else { return octets };
    let len = octets.split_inclusive(|&octet| octet == b'\n').take(closed + 1).map(<[u8]>::len).sum();
    &octets[..len]
}

/// SHA-256 of the last line, without its line feed.
fn last(octets: &[u8]) -> Digest {
    let whole = octets.strip_suffix(b"\n").unwrap_or(octets);
    Digest::of(whole.rsplit(|&octet| octet == b'\n').next().unwrap_or_default())
}

/// Reads the lines of a journal or transcript, each of which must name the one before.
pub fn read(path: &Path, octets: &[u8]) -> Result<Vec<Line>, CeremonyError> {
    let mut lines = Vec::new();
    let mut prev = Digest::of(&[]);
    for (at, octets) in octets.split(|&octet| octet == b'\n').enumerate().filter(|(_, octets)| !octets.is_empty()) {
        let wrong = |error: String| InputError::Line { path: path.to_owned(), line: at + 1, error };
        let line: Line = serde_json::from_slice(octets).map_err(|error| wrong(error.to_string()))?;
        if line.prev != prev {
            let error =
                format!("it names the line before as {}, which is {prev}: a line was changed or taken out", line.prev);
            return Err(wrong(error).into());
        }
        prev = Digest::of(octets);
        lines.push(line);
    }
    Ok(lines)
}
