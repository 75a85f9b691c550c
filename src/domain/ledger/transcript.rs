//! Pure. The transcript of a ceremony: the lines of its journal from the one that opens it to the one that closes it. The minutes are made
//! from it, and the entry that records the ceremony says of it what it says itself.
//!
//! Each line names the SHA-256 of the one before, so that a line that was taken out or changed is noticed. Nothing secret is in it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ceremonies::{Attendance, Capacity, CeremonyKind, CeremonyRecorded};
use crate::domain::names::{Digest, Origin, PersonId, Purpose};
use crate::domain::time::Timestamp;

/// Octets that a transcript may have, and with them a journal. A ceremony of a week writes a hundredth of it.
pub const TRANSCRIPT_LEN_MAX: u64 = 16 * 1024 * 1024;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct LineFault {
    /// From 1.
    pub line: usize,
    /// Expected and found.
    pub text: String,
}

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
        kind: CeremonyKind,
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

/// Reads the lines of a journal or a transcript, each of which must name the one before.
///
/// # Errors
/// The first line that is none, or does not follow the one before.
pub fn read(octets: &[u8]) -> Result<Vec<Line>, LineFault> {
    let mut lines = Vec::new();
    let mut prev = Digest::of(&[]);
    for (at, octets) in octets.split(|&octet| octet == b'\n').enumerate().filter(|(_, octets)| !octets.is_empty()) {
        let wrong = |text: String| LineFault { line: at + 1, text };
        let line: Line = serde_json::from_slice(octets).map_err(|error| wrong(error.to_string()))?;
        if line.prev != prev {
            let found = line.prev;
            return Err(wrong(format!(
                "it names the line before as {found}, which is {prev}: a line was changed or taken out"
            )));
        }
        prev = Digest::of(octets);
        lines.push(line);
    }
    Ok(lines)
}

/// The octets up to and with the line that closes the ceremony; all of them while it is open.
pub fn of<'a>(lines: &[Line], octets: &'a [u8]) -> &'a [u8] {
    match lines.iter().position(|line| matches!(line.what, What::Closed {})) {
        Some(closed) => up_to(octets, closed + 1),
        None => octets,
    }
}

/// The octets of the first `count` lines.
pub fn up_to(octets: &[u8], count: usize) -> &[u8] {
    let len = octets.split_inclusive(|&octet| octet == b'\n').take(count).map(<[u8]>::len).sum();
    &octets[..len]
}

/// What the transcript of a ceremony that is over says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The entry that records it.
    pub recorded: CeremonyRecorded,
    /// Live or exercise.
    pub purpose: Purpose,
    /// The ledger.
    pub origin: Origin,
    /// Whether the tokens were scratch.
    pub rehearsal: bool,
}

/// Reads the transcript of a ceremony that is over.
///
/// # Errors
/// What it lacks to be one.
pub fn told(octets: &[u8]) -> Result<Told, LineFault> {
    let wrong = |line: usize, text: &str| LineFault { line, text: text.to_owned() };
    if octets.len() as u64 > TRANSCRIPT_LEN_MAX {
        return Err(wrong(
            1,
            &format!("expected at most {TRANSCRIPT_LEN_MAX} octets from here to the close, found {}", octets.len()),
        ));
    }
    let lines = read(octets)?;
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
        return Err(wrong(1, "expected the line that opens a ceremony, found nothing"));
    };
    let What::Opened { plan, kind, purpose, origin, rehearsal, .. } = &first.what else {
        return Err(wrong(1, "expected the line that opens a ceremony"));
    };
    if last.what != (What::Closed {}) || !octets.ends_with(b"\n") {
        return Err(wrong(lines.len(), "expected the line that closes the ceremony, and nothing after it"));
    }
    let mut open = BTreeSet::new();
    for (at, line) in lines.iter().enumerate() {
        match &line.what {
            What::Opened { .. } if at > 0 => return Err(wrong(at + 1, "the ceremony is opened twice")),
            What::Closed {} if at + 1 < lines.len() => {
                return Err(wrong(at + 1, "the ceremony is closed before its end"));
            }
            What::Recorded { .. } => return Err(wrong(at + 1, "a transcript ends before the ledger has it")),
            What::Begun { step, .. } => {
                open.insert(step);
            }
            What::Done { step, .. } => {
                open.remove(step);
            }
            _ => {}
        }
    }
    if let Some(step) = open.first() {
        return Err(wrong(lines.len(), &format!("the ceremony is closed, and its step {step} was begun and not done")));
    }
    let recorded = CeremonyRecorded {
        kind: *kind,
        plan: *plan,
        transcript: Digest::of(octets),
        from: first.at,
        until: last.at,
        people: attendances(&lines),
    };
    Ok(Told { recorded, purpose: *purpose, origin: origin.clone(), rehearsal: *rehearsal })
}

/// Everyone who was there in any session, once.
fn attendances(lines: &[Line]) -> Vec<Attendance> {
    let mut people: Vec<Attendance> = Vec::new();
    for line in lines {
        let What::Present { person, name, capacity } = &line.what else { continue };
        let found = Attendance { person: person.clone(), name: name.clone(), capacity: *capacity };
        if !people.contains(&found) {
            people.push(found);
        }
    }
    people
}
