//! Pure. Responses of Devices, and an operator's leave to go on after a foreign one.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{DESCRIPTION_LEN_MAX, Reasons, profile_in_force};
use crate::domain::fold::{Book, BookError, Fold};
use crate::domain::gbcs::proof::OfTemplate;
use crate::domain::ledger::entry::{Reason, ResponsesTaken, SigningResumed};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, PartyId, TemplateName};
use crate::domain::policy::facts::{DeterminationFacts, DeviceFacts};
use crate::domain::responses::{
    self, Facts, ImportedKey, Outcome, Reading, Responded, ResultLine, Trust, Verified, messages, results,
};
use crate::domain::time::Timestamp;

/// What was handed in, read and verified as far as that goes without the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Handed<'a> {
    /// The messages as they came.
    pub messages: &'a [&'a [u8]],
    /// Each of them, read.
    pub readings: &'a [Reading],
    /// SHA-256 of the messages in the form in which they are kept ([`messages::Messages::kept`]).
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
    /// The same in the order of their text ([`results::in_order`]).
    pub sorted: Arc<[ResultLine]>,
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
        devices: devices_of(book, key, determination, handed.readings)?,
    };
    let mut seen: HashMap<Octets<'_>, usize> = HashMap::with_capacity(count);
    let mut lines = Vec::with_capacity(count);
    for (n, (octets, reading)) in (1..).zip(handed.messages.iter().zip(handed.readings)) {
        let told = Octets { octets, is_verified: reading.verified().is_some() };
        let line = match seen.entry(told) {
            Entry::Occupied(before) => {
                let why = format!("the same octets as message {}", before.get());
                ResultLine::new(responses::device_of(octets), None, Outcome::Duplicate, &why)
            }
            Entry::Vacant(place) => {
                place.insert(n);
                session.decide(reading)?
            }
        };
        lines.push(line);
    }
    let sorted: Arc<[ResultLine]> = results::in_order(&lines).into_iter().cloned().collect();
    let (text, tally) = results::text_of(&sorted);
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
    Ok(Taken { event, results: text, lines, sorted })
}

/// A message among others, of which one of the same octets is read alike.
#[derive(PartialEq, Eq)]
struct Octets<'a> {
    octets: &'a [u8],
    is_verified: bool,
}

impl Hash for Octets<'_> {
    /// Of one that was verified its end is enough: the half of the signature that is its `s`. Of another somebody may have made thousands with
    /// the same end.
    fn hash<H: Hasher>(&self, state: &mut H) {
        const END_LEN: usize = 32;
        let from = if self.is_verified { self.octets.len().saturating_sub(END_LEN) } else { 0 };
        state.write(&self.octets[from..]);
    }
}

/// The keys of these Devices that were imported before an entry, and that the policy relies on.
pub fn imported_keys(
    book: &dyn Book,
    trust: &Trust,
    devices: &BTreeSet<DeviceId>,
    before: u64,
) -> Result<HashMap<DeviceId, Vec<ImportedKey>>, BookError> {
    let found = book.device_keys_of(devices)?;
    Ok(found.into_iter().map(|(device, known)| (device, trust.relied_on(known, before))).collect())
}

/// What an answer to each template has to say.
fn expected(facts: &DeterminationFacts, originator: PartyId) -> BTreeMap<&TemplateName, OfTemplate> {
    let templates = facts.scope.iter().flat_map(|scope| &scope.templates);
    templates
        .filter_map(|(name, template)| Some((name, OfTemplate::new(originator, &template.update()).ok()?)))
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
    expected: BTreeMap<&'a TemplateName, OfTemplate>,
    devices: HashMap<DeviceId, OfDevice>,
}

/// What is known of a Device.
struct OfDevice {
    /// The last intent for it with the determination's key.
    last: Option<DeviceFacts>,
    /// What it has answered, the messages before included, which no entry has yet.
    responded: Responded,
}

/// What the book has of the Devices whose messages were verified. They are looked up in their order, for neighbours lie together:
/// Devices answer in none, and of millions each would have to be fetched from elsewhere.
fn devices_of(
    book: &dyn Book,
    key: &KeyLabel,
    determination: DeterminationId,
    readings: &[Reading],
) -> Result<HashMap<DeviceId, OfDevice>, BookError> {
    let devices: BTreeSet<DeviceId> = readings.iter().filter_map(Reading::verified).map(Verified::device).collect();
    let devices = Vec::from_iter(devices);
    let (last, responded) = (book.devices(key, &devices)?, book.responded_many(determination, &devices)?);
    let found = devices.into_iter().zip(last).zip(responded).map(|((device, last), responded)| {
        let responded = responded.unwrap_or_default();
        (device, OfDevice { last, responded })
    });
    Ok(found.collect())
}

impl Session<'_> {
    fn decide(&mut self, reading: &Reading) -> Result<ResultLine, BookError> {
        let mut known = reading.verified().and_then(|verified| self.devices.get_mut(&verified.device()));
        let last = known.as_ref().and_then(|known| known.last.as_ref());
        let earlier = match reading.verified() {
            Some(verified) if last.is_none_or(|last| last.counter != verified.answer.counter()) => {
                self.book.earlier(self.key, verified.device(), verified.answer.counter())?
            }
            Some(_) | None => None,
        };
        let expected = last.and_then(|last| self.expected.get(&last.template));
        let facts = Facts {
            at: self.at,
            determination: self.determination,
            originator: self.originator,
            last,
            expected,
            earlier,
            responded: known.as_ref().map(|known| &known.responded),
        };
        let line = responses::decide(reading, &facts);
        if let Some(known) = &mut known {
            known.responded.absorb(&line, self.entry);
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
