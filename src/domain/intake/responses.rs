//! Pure. Responses of Devices, and an operator's leave to go on after a foreign one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{DESCRIPTION_LEN_MAX, Reasons, profile_in_force};
use crate::domain::fold::{Book, BookError, Fold};
use crate::domain::gbcs::proof::Expected;
use crate::domain::ledger::entry::{Reason, ResponsesTaken, SigningResumed};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, PartyId, TemplateName};
use crate::domain::policy::facts::{DeterminationFacts, DeviceFacts};
use crate::domain::responses::{
    self, DeviceKey, Facts, Outcome, Reading, Responded, ResultLine, Trust, messages, results,
};
use crate::domain::time::Timestamp;

/// What was handed in, read and verified as far as that goes without the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Handed<'a> {
    /// The messages as they came.
    pub messages: &'a [Vec<u8>],
    /// Each of them, read.
    pub readings: &'a [Reading],
    /// SHA-256 of the messages in the form in which they are kept ([`messages::kept`]).
    pub responses: Digest,
    /// SHA-256 of the certificates that were given for them.
    pub certificates: Digest,
    /// What was imported before this entry was relied on too.
    pub imported_before: Option<u64>,
}

/// What messages amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The event.
    pub event: ResponsesTaken,
    /// The lines of results, as they are kept.
    pub results: String,
    /// A line for each message, in the order of the messages.
    pub lines: Vec<ResultLine>,
}

/// Why nothing was decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponsesError {
    /// It is refused.
    #[error("{}", .0.iter().map(|reason| format!("{}: {}", reason.rule, reason.text)).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Reason>),
    /// The book gave no answer.
    #[error(transparent)]
    Book(#[from] BookError),
}

/// Responses of Devices to commands under a determination.
pub fn responses(
    fold: &Fold,
    book: &dyn Book,
    at: Timestamp,
    determination: DeterminationId,
    handed: &Handed<'_>,
) -> Result<Taken, ResponsesError> {
    let mut reasons = Reasons::default();
    let found = fold.determinations().get(&determination);
    reasons.demand("determination-unknown", found.is_some(), || {
        format!("no determination {determination} is recorded; expected the one under which the commands were signed")
    });
    let known = found.and_then(|facts| {
        let (label, _) = facts.key.as_ref()?;
        let originator = fold.keys().get(label)?.originator(&fold.policy()?.policy)?;
        Some((facts, label, originator))
    });
    if let Some(facts) = found.filter(|_| known.is_none()) {
        let why = if facts.execute { "its key has no certificate" } else { "it is not to execute recovery" };
        reasons.add("nothing-signed", format!("under determination {determination} nothing was signed: {why}"));
    }
    let count = handed.messages.len();
    reasons.demand("responses", (1..=messages::MESSAGES_MAX).contains(&count), || {
        format!("expected 1 to {} messages, found {count}; hand them in in parts", messages::MESSAGES_MAX)
    });
    reasons.demand("imported-before", handed.imported_before.is_none_or(|before| before <= fold.size()), || {
        format!("imported_before: expected at most {}, the entries before this one", fold.size())
    });
    let (facts, key, originator) = reasons.end(known).map_err(ResponsesError::Refused)?;
    let mut session = Session {
        book,
        key,
        determination,
        originator,
        at,
        entry: fold.size(),
        expected: expected(facts, originator),
        fresh: HashMap::new(),
    };
    let mut seen: HashMap<&[u8], usize> = HashMap::new();
    let mut lines = Vec::with_capacity(count);
    for (n, (octets, reading)) in (1..).zip(handed.messages.iter().zip(handed.readings)) {
        let line = match seen.insert(octets, n) {
            Some(before) => {
                seen.insert(octets, before);
                let why = format!("the same octets as message {before}");
                ResultLine::new(responses::device_of(octets), None, Outcome::Duplicate, &why)
            }
            None => session.decide(octets, reading)?,
        };
        lines.push(line);
    }
    let (text, tally) = results::text_of(&lines);
    let event = ResponsesTaken {
        incident: facts.incident.clone(),
        profile: profile_in_force(fold, at),
        determination,
        responses: handed.responses,
        certificates: handed.certificates,
        imported_before: handed.imported_before,
        results: Digest::of(text.as_bytes()),
        tally,
    };
    Ok(Taken { event, results: text, lines })
}

/// The keys of these Devices that were imported before an entry, and that the policy relies on.
pub fn imported_keys(
    book: &dyn Book,
    trust: &Trust,
    devices: &BTreeSet<DeviceId>,
    before: u64,
) -> Result<BTreeMap<DeviceId, Vec<DeviceKey>>, BookError> {
    devices.iter().map(|device| Ok((*device, trust.relied_on(book.device_keys(*device)?, before)))).collect()
}

/// What an answer to each template has to say, but for Device and counter.
fn expected(facts: &DeterminationFacts, originator: PartyId) -> BTreeMap<&TemplateName, Expected> {
    let templates = facts.scope.iter().flat_map(|scope| &scope.templates);
    let nobody = DeviceId([0; 8].into());
    templates
        .filter_map(|(name, template)| Some((name, Expected::new(originator, nobody, 0, &template.update()).ok()?)))
        .collect()
}

struct Session<'a> {
    book: &'a dyn Book,
    key: &'a KeyLabel,
    determination: DeterminationId,
    originator: PartyId,
    at: Timestamp,
    /// The entry that these messages are going to have.
    entry: u64,
    expected: BTreeMap<&'a TemplateName, Expected>,
    /// What the messages before say, which no entry has yet.
    fresh: HashMap<DeviceId, Responded>,
}

impl Session<'_> {
    fn decide(&mut self, octets: &[u8], reading: &Reading) -> Result<ResultLine, BookError> {
        let (mut last, mut earlier, mut responded): (Option<DeviceFacts>, Option<u64>, Option<Responded>) =
            (None, None, None);
        if let Reading::Verified(verified) = reading {
            last = self.book.device(self.key, verified.device)?;
            if last.as_ref().is_none_or(|last| last.counter != verified.counter) {
                earlier = self.book.earlier(self.key, verified.device, verified.counter)?;
            }
            responded = match self.fresh.get(&verified.device) {
                Some(fresh) => Some(fresh.clone()),
                None => self.book.responded(self.determination, verified.device)?,
            };
        }
        let expected = last.as_ref().and_then(|last| self.expected.get(&last.template));
        let facts = Facts {
            at: self.at,
            determination: self.determination,
            originator: self.originator,
            last: last.as_ref(),
            expected,
            earlier,
            responded: responded.as_ref(),
        };
        let line = responses::decide(octets, reading, &facts);
        if let Some(device) = line.device {
            let mut known = responded.unwrap_or_default();
            if known.absorb(&line, self.entry) {
                self.fresh.insert(device, known);
            }
        }
        Ok(line)
    }
}

/// An operator lets signing under a determination go on that a foreign answer had stopped.
pub fn resumption(
    fold: &Fold,
    determination: DeterminationId,
    reason: &str,
    at: Timestamp,
) -> Result<SigningResumed, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let facts = fold.determinations().get(&determination);
    reasons
        .demand("determination-unknown", facts.is_some(), || format!("no determination {determination} is recorded"));
    let stopped_by = facts.and_then(|facts| facts.foreign);
    reasons.demand("nothing-stopped", facts.is_none() || stopped_by.is_some(), || {
        format!("no answer to a foreign command stops determination {determination}: there is nothing to resume")
    });
    reasons.demand("reason", !reason.trim().is_empty() && reason.len() <= DESCRIPTION_LEN_MAX, || {
        format!("reason: expected 1 to {DESCRIPTION_LEN_MAX} octets of text, found {}", reason.len())
    });
    reasons.end(facts.zip(stopped_by).map(|(facts, stopped_by)| SigningResumed {
        incident: facts.incident.clone(),
        profile: profile_in_force(fold, at),
        determination,
        stopped_by,
        reason: reason.into(),
    }))
}
