//! Pure. The results of messages: one line each, `EUI64,intent,result[,detail]`, sorted by Device; and what is kept for each Device.
//!
//! A field that is not known is `-`. The detail goes to the end of the line and may hold commas.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::domain::ledger::entry::ResponseTally;
use crate::domain::names::DeviceId;

/// Characters of a detail: enough for every cell of a Device with its status.
pub const DETAIL_LEN_MAX: usize = 600;

/// What a message comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The Device holds every certificate that was sent.
    Recovered,
    /// It executed the command, and at least one cell failed.
    Failed,
    /// It accepted the command and says nothing of its execution.
    Accepted,
    /// An Alert about one of our commands.
    Alert,
    /// An answer to a command that this ledger never signed.
    Foreign,
    /// An answer to another Party, or to a command under another determination.
    Unmatched,
    /// No trusted certificate, or no valid signature.
    Unverified,
    /// Not a message.
    Malformed,
    /// Said before.
    Duplicate,
    /// The Device has signed something else before about the same command.
    Contradiction,
}

impl Outcome {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::Recovered,
        Self::Failed,
        Self::Accepted,
        Self::Alert,
        Self::Foreign,
        Self::Unmatched,
        Self::Unverified,
        Self::Malformed,
        Self::Duplicate,
        Self::Contradiction,
    ];

    /// As it stands in lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Failed => "failed",
            Self::Accepted => "accepted",
            Self::Alert => "alert",
            Self::Foreign => "foreign",
            Self::Unmatched => "unmatched",
            Self::Unverified => "unverified",
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::Contradiction => "contradiction",
        }
    }

    /// Counts one more.
    pub const fn count(self, tally: &mut ResponseTally) {
        *match self {
            Self::Recovered => &mut tally.recovered,
            Self::Failed => &mut tally.failed,
            Self::Accepted => &mut tally.accepted,
            Self::Alert => &mut tally.alert,
            Self::Foreign => &mut tally.foreign,
            Self::Unmatched => &mut tally.unmatched,
            Self::Unverified => &mut tally.unverified,
            Self::Malformed => &mut tally.malformed,
            Self::Duplicate => &mut tally.duplicate,
            Self::Contradiction => &mut tally.contradiction,
        } += 1;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .ok_or_else(|| format!("expected a result such as recovered, found {text:?}"))
    }
}

/// What one message comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultLine {
    /// The Device, as far as it is known.
    pub device: Option<DeviceId>,
    /// The intent that it answers, as far as it is known.
    pub intent: Option<u64>,
    /// What.
    pub outcome: Outcome,
    /// Why, or how far; empty if there is nothing to add.
    pub detail: Box<str>,
}

/// What the detail of a foreign answer begins with.
const COUNTER: &str = "counter ";

impl ResultLine {
    /// With a detail that fits a line: without control characters, and not longer than [`DETAIL_LEN_MAX`].
    pub fn new(device: Option<DeviceId>, intent: Option<u64>, outcome: Outcome, detail: &str) -> Self {
        let plain = detail.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self { device, intent, outcome, detail: plain.take(DETAIL_LEN_MAX).collect::<String>().into() }
    }

    /// The detail of a foreign answer, from which [`Responded`] knows its counter.
    pub fn foreign_detail(counter: u64, why: &str) -> String {
        format!("{COUNTER}{counter}: {why}")
    }

    fn foreign_counter(&self) -> Option<u64> {
        self.detail.strip_prefix(COUNTER)?.split(':').next()?.parse().ok()
    }

    /// What it adds to what its Device said; none if it is nothing that is kept of it.
    pub fn said(&self, entry: u64) -> Option<Responded> {
        match self.outcome {
            Outcome::Recovered | Outcome::Failed | Outcome::Accepted | Outcome::Contradiction => {
                let own = OwnResult { entry, intent: self.intent?, outcome: self.outcome, detail: self.detail.clone() };
                Some(Responded { own: Some(own), foreign: None })
            }
            Outcome::Foreign => Some(Responded { own: None, foreign: Some(self.foreign_counter()?) }),
            Outcome::Alert | Outcome::Unmatched | Outcome::Unverified | Outcome::Malformed | Outcome::Duplicate => None,
        }
    }

    /// Reads a line without its line feed.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut fields = line.splitn(4, ',');
        let (Some(device), Some(intent), Some(outcome), detail) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(format!("expected EUI64,intent,result or EUI64,intent,result,detail, found {line:?}"));
        };
        let device = known(device).map(str::parse).transpose().map_err(|error| format!("{error}"))?;
        let intent =
            known(intent).map(str::parse).transpose().map_err(|error| format!("intent {intent:?}: {error}"))?;
        let read = Self { device, intent, outcome: outcome.parse()?, detail: detail.unwrap_or_default().into() };
        if read.to_string() == line {
            Ok(read)
        } else {
            Err(format!("expected {:?}, the one form of this line, found {line:?}", read.to_string()))
        }
    }
}

fn known(field: &str) -> Option<&str> {
    (field != "-").then_some(field)
}

impl fmt::Display for ResultLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, intent, outcome, detail } = self;
        match device {
            Some(device) => write!(f, "{device},")?,
            None => f.write_str("-,")?,
        }
        match intent {
            Some(intent) => write!(f, "{intent},")?,
            None => f.write_str("-,")?,
        }
        f.write_str(outcome.as_str())?;
        if detail.is_empty() { Ok(()) } else { write!(f, ",{detail}") }
    }
}

/// Lines in the order of their text: by Device, and as they came for each.
pub fn in_order(lines: &[ResultLine]) -> Vec<&ResultLine> {
    let mut sorted: Vec<_> = lines.iter().collect();
    sorted.sort_by_key(|line| line.device);
    sorted
}

/// The one text of results that are [`in_order`]; and how many there are of each.
pub fn text_of(sorted: &[ResultLine]) -> (String, ResponseTally) {
    debug_assert!(sorted.is_sorted_by_key(|line| line.device), "lines are in the order of their text");
    let (mut text, mut tally) = (String::new(), ResponseTally::default());
    for line in sorted {
        writeln!(text, "{line}").expect("a String takes everything");
        line.outcome.count(&mut tally);
    }
    (text, tally)
}

/// What a Device said of our own command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnResult {
    /// The entry that has it.
    pub entry: u64,
    /// The intent of the command.
    pub intent: u64,
    /// Recovered, failed, accepted, or a contradiction.
    pub outcome: Outcome,
    /// The cells that failed, or what contradicts what.
    pub detail: Box<str>,
}

/// What a Device has answered under a determination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Responded {
    /// The last that it proved about our own command.
    pub own: Option<OwnResult>,
    /// The counter of the last foreign command that it answered.
    pub foreign: Option<u64>,
}

impl Responded {
    /// With what was said before it, where it says nothing.
    #[must_use]
    pub fn over(self, before: Self) -> Self {
        Self { own: self.own.or(before.own), foreign: self.foreign.or(before.foreign) }
    }

    /// Takes in a line of this Device; true if it changed anything.
    pub fn absorb(&mut self, line: &ResultLine, entry: u64) -> bool {
        let said = line.said(entry);
        let is_any = said.is_some();
        if let Some(said) = said {
            *self = said.over(std::mem::take(self));
        }
        is_any
    }
}
