//! Pure. What a CS02b Command says (GBCS 13.3, `CommandPayload`).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use super::codes::{CredentialsReplacementMode, RemotePartyRole, SeqNumber, TrustAnchorCell};
use super::der::{
    DecodeError, Lengths, Reader, length_len, shown, tag, write_cell, write_element, write_length, write_octets,
    write_unsigned,
};
use super::framing::Header;
use crate::domain::time::{Timestamp, from_generalized};

/// Fields of `AuthorisingRemotePartyControl`, by context tag.
pub(super) mod field {
    use super::tag::{constructed, primitive};
    pub const PLAINTEXT_SYMMETRIC_KEY: u8 = primitive(0);
    pub const APPLY_TIME_BASED_CPV_CHECKS: u8 = primitive(1);
    pub const AUTHORISING_CELL: u8 = constructed(2);
    pub const AUTHORISING_SEQ_NUMBER: u8 = primitive(3);
    pub const NEW_FLOOR: u8 = primitive(4);
    pub const NEW_SPECIALIST_FLOORS: u8 = constructed(5);
    pub const OTHER_CHANGES: u8 = constructed(6);
}

/// A whole `CommandPayload`.
///
/// No `Debug` shows the symmetric key.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandPayload<'a> {
    /// All of it but the two fields below.
    pub update: Update<'a>,
    /// `authorisingRemotePartySeqNumber`: the Originator Counter again.
    pub seq_number: SeqNumber,
    /// Present in mode 9 and in no other; absent there too in what [`super::Message::decode_unfilled`] read.
    pub plaintext_symmetric_key: Option<PlaintextSymmetricKey<'a>>,
}

/// What a Command does: everything in a `CommandPayload` but the counter and the symmetric key, which are the two things
/// that are not settled when a Command is approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// `credentialsReplacementMode`.
    pub mode: CredentialsReplacementMode,
    /// `applyTimeBasedCPVChecks`.
    pub cpv_checks: CpvChecks,
    /// `authorisingRemotePartyTACellIdentifier`: which stored key verifies the signature. Absent only in mode 4.
    pub authorising_cell: Option<TrustAnchorCell>,
    /// `newRemotePartyFloorSeqNumber`: the authorising role's counter afterwards.
    pub new_floor: Option<SeqNumber>,
    /// `newRemotePartySpecialistFloorSeqNumber`.
    pub new_specialist_floors: Option<Vec<SpecialistFloor>>,
    /// `otherRemotePartySeqNumberChanges`: other roles' counters afterwards.
    pub other_changes: Option<Vec<SeqNumberChange>>,
    /// `replacements`, in order; outcomes come back in the same order.
    pub replacements: Vec<Replacement<'a>>,
    /// `certificationPathCertificates`: each the DER of one certificate, of which only the outer framing was read.
    pub path_certificates: Vec<&'a [u8]>,
    /// `executionDateTime`: absent to execute at once.
    pub execution: Option<GeneralizedTime>,
}

impl Update<'_> {
    /// Whether it replaces the root.
    pub fn replaces_root(&self) -> bool {
        self.replacements.iter().any(|replacement| replacement.cell.role == RemotePartyRole::Root)
    }

    /// The roles whose credentials it replaces by the Contingency route and for which it sets no counter floor. The root's is the authorising
    /// role's ([`Self::new_floor`]). The recovery cell's role is none of them: it has no floor in the one such Response that is public
    /// (GBCS 13.3), so it may lack one.
    pub fn replaced_without_floor(&self) -> BTreeSet<RemotePartyRole> {
        let others = self.other_changes.iter().flatten().map(|change| change.role);
        let own = self.new_floor.map(|_| RemotePartyRole::Root);
        let with_floor: BTreeSet<RemotePartyRole> = others.chain(own).chain([RemotePartyRole::Recovery]).collect();
        let replaced = self.replacements.iter().map(|replacement| replacement.cell.role);
        replaced.filter(|role| !with_floor.contains(role)).collect()
    }

    /// Every counter floor that it sets, and whose, in order.
    pub fn floors(&self) -> Vec<(String, u64)> {
        let top_up = |whose: &str, special: &SpecialistFloor| (format!("{whose}, top-up"), special.floor.get());
        let own = self.new_floor.map(|floor| ("the authorising role".to_owned(), floor.get()));
        let own_special = self.new_specialist_floors.iter().flatten();
        let others = self.other_changes.iter().flatten().flat_map(|change| {
            let special = change.specialist_floors.iter().flatten();
            std::iter::once((change.role.to_string(), change.floor.get()))
                .chain(special.map(move |special| top_up(change.role.name(), special)))
        });
        own.into_iter()
            .chain(own_special.map(|special| top_up("the authorising role", special)))
            .chain(others)
            .collect()
    }
}

/// Whether the Device looks at validity dates when it checks certification paths (`applyTimeBasedCPVChecks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpvChecks {
    /// It does. The default, so absent on the wire.
    Apply,
    /// It does not.
    Disapply,
}

/// `TrustAnchorReplacement`: a certificate and the cell it goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement<'a> {
    /// The DER of the certificate, of which only the outer framing was read.
    pub certificate: &'a [u8],
    /// Where it goes.
    pub cell: TrustAnchorCell,
}

/// `RemotePartySeqNumberChange`: what a role's counters become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeqNumberChange {
    /// Whose.
    pub role: RemotePartyRole,
    /// Its counter.
    pub floor: SeqNumber,
    /// Its counters of special use.
    pub specialist_floors: Option<Vec<SpecialistFloor>>,
}

/// `SpecialistSeqNumber`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialistFloor {
    /// Which counter.
    pub usage: SpecialistUse,
    /// Its value.
    pub floor: SeqNumber,
}

/// `seqNumberUsage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialistUse {
    /// `prepaymentTopUp(0)`, the only one.
    PrepaymentTopUp,
}

/// `plaintextSymmetricKey`: the Contingency Symmetric Key, which unwraps the Contingency Public Key that a Device holds.
///
/// It borrows the message's octets, so that no second copy exists; whoever owns those wipes them. No `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PlaintextSymmetricKey<'a>(&'a [u8]);

impl<'a> PlaintextSymmetricKey<'a> {
    /// The least length: one octet. Which sizes are right is a matter of the Organisation Certificate Policy, Annex B.
    pub const LEN_MIN: usize = 1;
    /// The greatest length. No official reference: twice the largest AES key, since the algorithm is the policy's choice.
    pub const LEN_MAX: usize = 64;

    /// The key of these octets, or `None` if their number is out of bounds.
    pub fn new(octets: &'a [u8]) -> Option<Self> {
        (Self::LEN_MIN..=Self::LEN_MAX).contains(&octets.len()).then_some(Self(octets))
    }

    /// The key itself.
    pub fn expose(&self) -> &'a [u8] {
        self.0
    }
}

/// A GeneralizedTime `YYYYMMDDHHMMSSZ`: whole seconds, UTC. Shown as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GeneralizedTime(Timestamp);

impl GeneralizedTime {
    /// 15 characters.
    pub const LEN: usize = 15;
    /// `99991231235959Z`, in milliseconds since 1970: as executionDateTime it cancels a pending Command.
    const CANCELLATION_UNIX_MS: i64 = 253_402_300_799_000;

    /// That second, or `None` if `at` lies between two.
    pub fn from_timestamp(at: Timestamp) -> Option<Self> {
        (at.unix_ms() % 1000 == 0).then_some(Self(at))
    }

    /// The moment.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    /// Whether it is the moment that cancels a pending Command instead of scheduling one.
    pub fn is_cancellation(self) -> bool {
        self.0.unix_ms() == Self::CANCELLATION_UNIX_MS
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut contents = reader.element(tag::GENERALIZED_TIME, "executionDateTime")?;
        let at = contents.at();
        let octets = contents.rest();
        let text = std::str::from_utf8(octets)
            .ok()
            .filter(|text| text.len() == Self::LEN && text[..Self::LEN - 1].bytes().all(|b| b.is_ascii_digit()));
        text.and_then(|text| from_generalized(text).ok()).map(Self).ok_or_else(|| DecodeError::Value {
            at,
            expected: Cow::Borrowed("a time YYYYMMDDHHMMSSZ of the calendar, from 1970 on"),
            found: shown(octets),
        })
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        write_octets(out, tag::GENERALIZED_TIME, self.to_string().as_bytes());
    }
}

impl fmt::Display for GeneralizedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.0.to_calendar();
        let (year, month, day) = t.to_calendar_date();
        let (hour, minute, second) = t.to_hms();
        write!(f, "{year:04}{:02}{day:02}{hour:02}{minute:02}{second:02}Z", u8::from(month))
    }
}

impl fmt::Debug for GeneralizedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GeneralizedTime({self})")
    }
}

impl fmt::Debug for CommandPayload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { update, seq_number, plaintext_symmetric_key } = self;
        f.debug_struct("CommandPayload")
            .field("update", update)
            .field("seq_number", seq_number)
            .field("has_plaintext_symmetric_key", &plaintext_symmetric_key.is_some())
            .finish()
    }
}

/// Whether the places of counter and symmetric key hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slots {
    /// Both: a Command.
    Filled,
    /// The counter only: a pre-command of mode anyByContingency as it is recorded. In every other mode the same as `Filled`.
    KeyEmpty,
    /// Neither: a template.
    Empty,
}

/// A payload as read, and where its counter stands.
pub(super) struct Read<'a> {
    pub update: Update<'a>,
    /// With [`Slots::Empty`] there is none.
    pub seq_number: Option<SeqNumber>,
    /// With [`Slots::Filled`] only.
    pub plaintext_symmetric_key: Option<PlaintextSymmetricKey<'a>>,
    /// Of `plaintextSymmetricKey`, filled or empty: tag, length and contents.
    pub symmetric_key_element: Option<Range<usize>>,
    /// Of `AuthorisingRemotePartyControl`: tag, length and contents.
    pub control: Range<usize>,
    /// Of `authorisingRemotePartySeqNumber`: tag, length and contents.
    pub seq_number_element: Range<usize>,
}

/// Reads the `CommandPayload` that `range` of `octets` is, all of it, as strict DER.
pub(super) fn read(octets: &[u8], range: Range<usize>, slots: Slots) -> Result<Read<'_>, DecodeError> {
    let mut whole = Reader::new(octets, range, Lengths::Strict);
    let mut payload = whole.element(tag::SEQUENCE, "CommandPayload")?;
    whole.finish("CommandPayload")?;

    let control_from = payload.at();
    let mut control = payload.element(tag::SEQUENCE, "AuthorisingRemotePartyControl")?;
    let control_range = control_from..payload.at();
    let mode_at = control.at();
    let mode = control.coded(
        tag::INTEGER,
        "credentialsReplacementMode",
        CredentialsReplacementMode::EXPECTED,
        CredentialsReplacementMode::from_code,
    )?;
    let key_from = control.at();
    let plaintext_symmetric_key = read_symmetric_key(&mut control, mode, slots)?;
    let symmetric_key_element = Some(key_from..control.at()).filter(|element| !element.is_empty());
    let cpv_checks = read_cpv_checks(&mut control)?;
    let authorising_cell = match control.peek() {
        Some(field::AUTHORISING_CELL) => {
            Some(control.cell(field::AUTHORISING_CELL, "authorisingRemotePartyTACellIdentifier")?)
        }
        _ => None,
    };
    if authorising_cell.is_none() && mode != CredentialsReplacementMode::AccessControlBrokerByACB {
        let rule = "authorisingRemotePartyTACellIdentifier in every mode but accessControlBrokerByACB";
        return Err(DecodeError::Presence { at: mode_at, rule, present: false });
    }
    let seq_from = control.at();
    let seq_number = read_seq_number(&mut control, slots)?;
    let seq_number_element = seq_from..control.at();
    let new_floor = match control.peek() {
        Some(field::NEW_FLOOR) => Some(control.seq_number(field::NEW_FLOOR, "newRemotePartyFloorSeqNumber")?),
        _ => None,
    };
    let new_specialist_floors = control
        .optional(field::NEW_SPECIALIST_FLOORS, "newRemotePartySpecialistFloorSeqNumber")?
        .map(read_specialist_floors)
        .transpose()?;
    let other_changes = control
        .optional(field::OTHER_CHANGES, "otherRemotePartySeqNumberChanges")?
        .map(read_seq_number_changes)
        .transpose()?;
    control.finish("AuthorisingRemotePartyControl")?;

    let mut list = payload.element(tag::SEQUENCE, "replacements")?;
    let mut replacements = Vec::new();
    while list.left() > 0 {
        let mut replacement = list.element(tag::SEQUENCE, "TrustAnchorReplacement")?;
        let certificate = replacement.whole(tag::SEQUENCE, "replacementCertificate")?;
        let cell = replacement.cell(tag::SEQUENCE, "targetTrustAnchorCell")?;
        replacement.finish("TrustAnchorReplacement")?;
        replacements.push(Replacement { certificate, cell });
    }
    let mut list = payload.element(tag::SEQUENCE, "certificationPathCertificates")?;
    let mut path_certificates = Vec::new();
    while list.left() > 0 {
        path_certificates.push(list.whole(tag::SEQUENCE, "Certificate")?);
    }
    let execution = match payload.peek() {
        Some(tag::GENERALIZED_TIME) => Some(GeneralizedTime::read(&mut payload)?),
        _ => None,
    };
    payload.finish("CommandPayload")?;

    let update = Update {
        mode,
        cpv_checks,
        authorising_cell,
        new_floor,
        new_specialist_floors,
        other_changes,
        replacements,
        path_certificates,
        execution,
    };
    Ok(Read {
        update,
        seq_number,
        plaintext_symmetric_key,
        symmetric_key_element,
        control: control_range,
        seq_number_element,
    })
}

/// `plaintextSymmetricKey`: only for anyByContingency, and then always (GBCS 13.3).
fn read_symmetric_key<'a>(
    control: &mut Reader<'a>,
    mode: CredentialsReplacementMode,
    slots: Slots,
) -> Result<Option<PlaintextSymmetricKey<'a>>, DecodeError> {
    let at = control.at();
    let field = control.optional(field::PLAINTEXT_SYMMETRIC_KEY, "plaintextSymmetricKey")?;
    let is_contingency = mode == CredentialsReplacementMode::AnyByContingency;
    let Some(mut contents) = field else {
        if is_contingency {
            let rule = "plaintextSymmetricKey in mode anyByContingency";
            return Err(DecodeError::Presence { at, rule, present: false });
        }
        return Ok(None);
    };
    if !is_contingency {
        let rule = "plaintextSymmetricKey in no mode but anyByContingency";
        return Err(DecodeError::Presence { at, rule, present: true });
    }
    match slots {
        Slots::Empty | Slots::KeyEmpty => {
            contents.finish("plaintextSymmetricKey, which stands empty until it is put in")?;
            Ok(None)
        }
        Slots::Filled => {
            let at = contents.at();
            let octets = contents.rest();
            let key = PlaintextSymmetricKey::new(octets).ok_or_else(|| DecodeError::Value {
                at,
                expected: Cow::Borrowed("a plaintextSymmetricKey of 1 to 64 octets"),
                found: format!("{} octets", octets.len()), // and never the octets themselves
            })?;
            Ok(Some(key))
        }
    }
}

fn read_cpv_checks(control: &mut Reader<'_>) -> Result<CpvChecks, DecodeError> {
    if control.peek() != Some(field::APPLY_TIME_BASED_CPV_CHECKS) {
        return Ok(CpvChecks::Apply);
    }
    control.coded(
        field::APPLY_TIME_BASED_CPV_CHECKS,
        "applyTimeBasedCPVChecks",
        "applyTimeBasedCPVChecks 1 (disapply), or no such field for its default, apply",
        |code| (code == 1).then_some(CpvChecks::Disapply),
    )
}

fn read_seq_number(control: &mut Reader<'_>, slots: Slots) -> Result<Option<SeqNumber>, DecodeError> {
    match slots {
        Slots::Filled | Slots::KeyEmpty => {
            control.seq_number(field::AUTHORISING_SEQ_NUMBER, "authorisingRemotePartySeqNumber").map(Some)
        }
        Slots::Empty => {
            let contents = control.element(field::AUTHORISING_SEQ_NUMBER, "authorisingRemotePartySeqNumber")?;
            contents.finish("authorisingRemotePartySeqNumber, which a template leaves empty")?;
            Ok(None)
        }
    }
}

fn read_specialist_floors(mut list: Reader<'_>) -> Result<Vec<SpecialistFloor>, DecodeError> {
    let mut floors = Vec::new();
    while list.left() > 0 {
        let mut fields = list.element(tag::SEQUENCE, "SpecialistSeqNumber")?;
        let usage = fields.coded(tag::INTEGER, "seqNumberUsage", "seqNumberUsage 0 (prepaymentTopUp)", |code| {
            (code == 0).then_some(SpecialistUse::PrepaymentTopUp)
        })?;
        let floor = fields.seq_number(tag::INTEGER, "seqNumber")?;
        fields.finish("SpecialistSeqNumber")?;
        floors.push(SpecialistFloor { usage, floor });
    }
    Ok(floors)
}

/// The elements of a `SEQUENCE OF RemotePartySeqNumberChange`.
pub(super) fn read_seq_number_changes(mut list: Reader<'_>) -> Result<Vec<SeqNumberChange>, DecodeError> {
    let mut changes = Vec::new();
    while list.left() > 0 {
        let mut fields = list.element(tag::SEQUENCE, "RemotePartySeqNumberChange")?;
        let role = fields.role()?;
        let floor = fields.seq_number(tag::INTEGER, "floorSeqNumber")?;
        let specialist_floors =
            fields.optional(tag::SEQUENCE, "specialistFloorSeqNumber")?.map(read_specialist_floors).transpose()?;
        fields.finish("RemotePartySeqNumberChange")?;
        changes.push(SeqNumberChange { role, floor, specialist_floors });
    }
    Ok(changes)
}

impl CommandPayload<'_> {
    /// Appends the strict DER.
    ///
    /// In mode 9 a key that is not there leaves its place empty.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { update, seq_number, plaintext_symmetric_key } = self;
        let is_contingency = update.mode == CredentialsReplacementMode::AnyByContingency;
        let key = plaintext_symmetric_key.map(|key| key.0).or(is_contingency.then_some(&[][..]));
        write(out, update, key, Some(*seq_number));
    }
}

/// A payload cut open at one element of its control: what a template is filled with, or a pre-command.
pub(super) struct Cut<'a> {
    /// The contents of `AuthorisingRemotePartyControl` before the element.
    pub before: &'a [u8],
    /// From after the element to the end of the payload.
    pub after: &'a [u8],
    /// How many octets of `after` belong to `AuthorisingRemotePartyControl`.
    pub control_after_len: usize,
}

impl Cut<'_> {
    /// Appends the whole pre-command from `DF` on, with an element of `element_len` octets, which `element` appends, in the cut. All that
    /// it appends is reserved at once: a vector that grows would leave copies of a symmetric key behind.
    pub fn write(&self, header: &Header, element_len: usize, element: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        let Self { before, after, control_after_len } = *self;
        let control_len = before.len() + element_len + control_after_len;
        let payload_len = 1 + length_len(control_len) + before.len() + element_len + after.len();
        let content_len = 1 + length_len(payload_len) + payload_len;
        out.reserve(Header::LEN_MAX + content_len);
        header.write(out, content_len);
        out.push(tag::SEQUENCE);
        write_length(out, payload_len);
        out.push(tag::SEQUENCE);
        write_length(out, control_len);
        out.extend_from_slice(before);
        let from = out.len();
        element(out);
        debug_assert_eq!(out.len() - from, element_len);
        out.extend_from_slice(after);
    }
}

/// Appends the strict DER of a payload; an absent counter leaves its place empty, as in a template.
pub(super) fn write(
    out: &mut Vec<u8>,
    update: &Update<'_>,
    plaintext_symmetric_key: Option<&[u8]>,
    seq_number: Option<SeqNumber>,
) {
    let Update {
        mode,
        cpv_checks,
        authorising_cell,
        new_floor,
        new_specialist_floors,
        other_changes,
        replacements,
        path_certificates,
        execution,
    } = update;
    write_element(out, tag::SEQUENCE, |out| {
        write_element(out, tag::SEQUENCE, |out| {
            write_unsigned(out, tag::INTEGER, u64::from(mode.code()));
            if let Some(key) = plaintext_symmetric_key {
                write_octets(out, field::PLAINTEXT_SYMMETRIC_KEY, key);
            }
            match cpv_checks {
                CpvChecks::Apply => {}
                CpvChecks::Disapply => write_unsigned(out, field::APPLY_TIME_BASED_CPV_CHECKS, 1),
            }
            if let Some(cell) = authorising_cell {
                write_cell(out, field::AUTHORISING_CELL, *cell);
            }
            match seq_number {
                Some(seq_number) => write_unsigned(out, field::AUTHORISING_SEQ_NUMBER, seq_number.get()),
                None => write_octets(out, field::AUTHORISING_SEQ_NUMBER, &[]),
            }
            if let Some(floor) = new_floor {
                write_unsigned(out, field::NEW_FLOOR, floor.get());
            }
            if let Some(floors) = new_specialist_floors {
                write_specialist_floors(out, field::NEW_SPECIALIST_FLOORS, floors);
            }
            if let Some(changes) = other_changes {
                write_seq_number_changes(out, field::OTHER_CHANGES, changes);
            }
        });
        write_element(out, tag::SEQUENCE, |out| {
            for Replacement { certificate, cell } in replacements {
                write_element(out, tag::SEQUENCE, |out| {
                    out.extend_from_slice(certificate);
                    write_cell(out, tag::SEQUENCE, *cell);
                });
            }
        });
        write_element(out, tag::SEQUENCE, |out| {
            for certificate in path_certificates {
                out.extend_from_slice(certificate);
            }
        });
        if let Some(execution) = execution {
            execution.write(out);
        }
    });
}

fn write_specialist_floors(out: &mut Vec<u8>, tag: u8, floors: &[SpecialistFloor]) {
    write_element(out, tag, |out| {
        for SpecialistFloor { usage, floor } in floors {
            write_element(out, tag::SEQUENCE, |out| {
                let usage = match usage {
                    SpecialistUse::PrepaymentTopUp => 0,
                };
                write_unsigned(out, tag::INTEGER, usage);
                write_unsigned(out, tag::INTEGER, floor.get());
            });
        }
    });
}

/// A `SEQUENCE OF RemotePartySeqNumberChange` under `tag`.
pub(super) fn write_seq_number_changes(out: &mut Vec<u8>, tag: u8, changes: &[SeqNumberChange]) {
    write_element(out, tag, |out| {
        for SeqNumberChange { role, floor, specialist_floors } in changes {
            write_element(out, tag::SEQUENCE, |out| {
                write_unsigned(out, tag::INTEGER, u64::from(role.code()));
                write_unsigned(out, tag::INTEGER, floor.get());
                if let Some(floors) = specialist_floors {
                    write_specialist_floors(out, tag::SEQUENCE, floors);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests;
