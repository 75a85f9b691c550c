//! Pure. Command templates: everything in a Command but Device and counter, approved once, filled for each Device.
//!
//! A template is the DER of a whole `CommandPayload` whose `authorisingRemotePartySeqNumber` is there with no octets
//! (`83 00`): the place of the counter. In mode 9 `plaintextSymmetricKey` is empty alike (`80 00`), so that the Contingency
//! Symmetric Key lies in no document; it stays empty when a template is filled, and [`super::put_symmetric_key`] puts it into the
//! pre-command. The form is ours; GBCS has no such thing.

use std::fmt;
use std::ops::Range;

use super::codes::{CredentialsReplacementMode, SeqNumber, TrustAnchorCell};
use super::command::{self, Cut, Slots, Update, field};
use super::der::{DecodeError, Lengths, Reader, shown, tag, unsigned_len, write_unsigned};
use super::framing::{Cra, Header, PAYLOAD_LEN_MAX};
use super::symmetric::SYMMETRIC_KEY_GROWTH_MAX;
use crate::domain::names::{DeviceId, Eui64, PartyId};

/// How much longer a payload becomes when its counter, of at most 8 octets, is put in; lengths included.
const COUNTER_GROWTH_MAX: usize = 8 + 4;

/// Octets of the Grouping Header before its content length, without date-time.
const HEADER_LEN: usize = 33;

/// A command template, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    octets: Box<[u8]>,
    /// The contents of `AuthorisingRemotePartyControl` before the counter.
    before: Range<usize>,
    /// From after the counter to the end of the payload.
    after: Range<usize>,
    /// How many octets of `after` belong to `AuthorisingRemotePartyControl`.
    control_after_len: usize,
    mode: CredentialsReplacementMode,
}

/// Why octets are not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not a `CommandPayload` with its counter left out.
    #[error("template: {0}")]
    Decode(#[from] DecodeError),
    /// Longer than any Command can be.
    #[error("template: expected at most {max} octets, found {found}")]
    TooLong {
        /// The limit.
        max: usize,
        /// Its length.
        found: usize,
    },
    /// A command that is not authorised by the cell of its mode: recovery, or the root in mode anyByContingency.
    #[error("template: expected authorising cell {expected} in mode {mode}, found {found}")]
    AuthorisingCell {
        /// The mode.
        mode: CredentialsReplacementMode,
        /// The cell of that mode.
        expected: TrustAnchorCell,
        /// The cell named.
        found: TrustAnchorCell,
    },
}

/// Why a template cannot be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// No such counter.
    #[error("expected a counter of at most 9223372036854775807, found {0}")]
    Counter(u64),
}

impl Template {
    /// The longest template. One of mode anyByContingency leaves room for its symmetric key too, [`SYMMETRIC_KEY_GROWTH_MAX`] octets.
    pub const LEN_MAX: usize = PAYLOAD_LEN_MAX - COUNTER_GROWTH_MAX;

    /// Checks a template.
    ///
    /// # Errors
    /// Offsets are octets of `octets`.
    pub fn parse(octets: &[u8]) -> Result<Self, TemplateError> {
        let too_long = |max| TemplateError::TooLong { max, found: octets.len() };
        if octets.len() > Self::LEN_MAX {
            return Err(too_long(Self::LEN_MAX));
        }
        let read = command::read(octets, 0..octets.len(), Slots::Empty)?;
        let mode = read.update.mode;
        if let (Some(expected), Some(found)) = (mode.authorised_by(), read.update.authorising_cell)
            && found != expected
        {
            return Err(TemplateError::AuthorisingCell { mode, expected, found });
        }
        let key_growth = read.symmetric_key_element.as_ref().map_or(0, |_| SYMMETRIC_KEY_GROWTH_MAX);
        if octets.len() > Self::LEN_MAX - key_growth {
            return Err(too_long(Self::LEN_MAX - key_growth));
        }
        let mut control = Reader::new(octets, read.control.clone(), Lengths::Strict);
        let contents = control.element(tag::SEQUENCE, "AuthorisingRemotePartyControl")?;
        Ok(Self {
            octets: octets.into(),
            before: contents.at()..read.seq_number_element.start,
            after: read.seq_number_element.end..octets.len(),
            control_after_len: read.control.end - read.seq_number_element.end,
            mode,
        })
    }

    /// The template of a real `CommandPayload`: the same with the counter's place empty, and the symmetric key's in mode 9.
    pub fn from_command_payload(octets: &[u8]) -> Result<Self, TemplateError> {
        if octets.len() > PAYLOAD_LEN_MAX {
            return Err(TemplateError::TooLong { max: PAYLOAD_LEN_MAX, found: octets.len() });
        }
        Self::from_update(&command::read(octets, 0..octets.len(), Slots::Filled)?.update)
    }

    /// The template of Commands that do this.
    pub fn from_update(update: &Update<'_>) -> Result<Self, TemplateError> {
        let empty_key = (update.mode == CredentialsReplacementMode::AnyByContingency).then_some(&[][..]);
        let mut octets = Vec::new();
        command::write(&mut octets, update, empty_key, None);
        Self::parse(&octets)
    }

    /// The template itself, as it came.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The mode.
    pub fn mode(&self) -> CredentialsReplacementMode {
        self.mode
    }

    /// Whether its commands have the Contingency Symmetric Key inside.
    pub fn needs_symmetric_key(&self) -> bool {
        self.mode == CredentialsReplacementMode::AnyByContingency
    }

    /// All it says. Reads it anew: keep the answer rather than ask twice.
    pub fn update(&self) -> Update<'_> {
        command::read(&self.octets, 0..self.octets.len(), Slots::Empty).expect("Template::parse has read it").update
    }

    /// How many octets [`Template::fill`] appends at most.
    pub fn filled_len_max(&self) -> usize {
        Header::LEN_MAX + self.octets.len() + COUNTER_GROWTH_MAX
    }

    /// Appends the whole pre-command, from `DF` on. What is signed is all of it but that first octet; in mode anyByContingency only
    /// after [`super::put_symmetric_key`], for the place of the key is empty here too.
    ///
    /// # Errors
    /// Nothing is appended: a counter above 2^63 − 1.
    pub fn fill(
        &self,
        originator: PartyId,
        device: DeviceId,
        counter: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), FillError> {
        let seq_number = SeqNumber::new(counter).ok_or(FillError::Counter(counter))?;
        let header = Header {
            cra: Cra::Command,
            counter,
            originator: originator.0,
            recipient: device.0,
            date_time: None,
            code: self.mode.message_code(),
        };
        let cut = Cut {
            before: &self.octets[self.before.clone()],
            after: &self.octets[self.after.clone()],
            control_after_len: self.control_after_len,
        };
        let counter = |out: &mut Vec<u8>| write_unsigned(out, field::AUTHORISING_SEQ_NUMBER, seq_number.get());
        cut.write(&header, 2 + unsigned_len(seq_number.get()), counter, out);
        Ok(())
    }

    /// Whether a pre-command made elsewhere is this template filled, octet for octet: for whom it is and with what counter. One of mode
    /// anyByContingency has its place of the key empty: with a key it is no template's, for nobody has one before it is released.
    ///
    /// # Errors
    /// The first octet that differs, and the field it lies in.
    pub fn matches(&self, pre_command: &[u8]) -> Result<(PartyId, DeviceId, u64), Mismatch> {
        let eui64 = |from: usize| Some(Eui64(*pre_command.get(from..)?.first_chunk()?));
        let counter = pre_command.get(3..).and_then(<[u8]>::first_chunk).map(|octets| u64::from_be_bytes(*octets));
        let (Some(counter), Some(originator), Some(device)) = (counter, eui64(12), eui64(21)) else {
            let found = pre_command.len();
            return Err(Mismatch::Short { need: HEADER_LEN, found });
        };
        let (originator, device) = (PartyId(originator), DeviceId(device));
        let mut expected = Vec::new();
        self.fill(originator, device, counter, &mut expected).map_err(Mismatch::Unfillable)?;
        if expected == pre_command {
            return Ok((originator, device, counter));
        }
        let at = expected.iter().zip(pre_command).take_while(|(expected, found)| expected == found).count();
        Err(Mismatch::Differs {
            at,
            field: locate(&expected, pre_command, at),
            expected: Octet(expected.get(at).copied()),
            found: Octet(pre_command.get(at).copied()),
        })
    }
}

/// Why a pre-command is not a template filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Too short to have a header.
    #[error("expected a pre-command of at least {need} octets, found {found}")]
    Short {
        /// The length of a header.
        need: usize,
        /// The pre-command's length.
        found: usize,
    },
    /// The template cannot be filled for it.
    #[error(transparent)]
    Unfillable(FillError),
    /// It says something else than the template.
    #[error("octet {at}, {field}: expected {expected} as in the template, found {found}")]
    Differs {
        /// The first octet that differs.
        at: usize,
        /// What it belongs to.
        field: Field,
        /// The template's octet.
        expected: Octet,
        /// The pre-command's octet.
        found: Octet,
    },
}

/// An octet, or the end of the octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Octet(pub Option<u8>);

impl fmt::Display for Octet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(octet) => f.write_str(&shown(&[octet])),
            None => f.write_str("the end"),
        }
    }
}

/// A part of a pre-command. Items of lists count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The Grouping Header, but for its content length.
    GroupingHeader,
    /// A tag or length that encloses others: one of the fields within has another length.
    Structure,
    /// credentialsReplacementMode.
    Mode,
    /// plaintextSymmetricKey.
    SymmetricKey,
    /// applyTimeBasedCPVChecks.
    CpvChecks,
    /// authorisingRemotePartyTACellIdentifier.
    AuthorisingCell,
    /// authorisingRemotePartySeqNumber.
    SeqNumber,
    /// newRemotePartyFloorSeqNumber.
    NewFloor,
    /// newRemotePartySpecialistFloorSeqNumber.
    NewSpecialistFloors,
    /// otherRemotePartySeqNumberChanges.
    OtherChanges,
    /// The certificate of a replacement.
    ReplacementCertificate(usize),
    /// The cell of a replacement.
    ReplacementCell(usize),
    /// One of certificationPathCertificates.
    PathCertificate(usize),
    /// executionDateTime.
    ExecutionDateTime,
    /// After the last octet of the payload.
    End,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GroupingHeader => f.write_str("Grouping Header"),
            Self::Structure => f.write_str("length of a structure"),
            Self::Mode => f.write_str("credentialsReplacementMode"),
            Self::SymmetricKey => f.write_str("plaintextSymmetricKey"),
            Self::CpvChecks => f.write_str("applyTimeBasedCPVChecks"),
            Self::AuthorisingCell => f.write_str("authorisingRemotePartyTACellIdentifier"),
            Self::SeqNumber => f.write_str("authorisingRemotePartySeqNumber"),
            Self::NewFloor => f.write_str("newRemotePartyFloorSeqNumber"),
            Self::NewSpecialistFloors => f.write_str("newRemotePartySpecialistFloorSeqNumber"),
            Self::OtherChanges => f.write_str("otherRemotePartySeqNumberChanges"),
            Self::ReplacementCertificate(n) => write!(f, "certificate of replacement {n}"),
            Self::ReplacementCell(n) => write!(f, "cell of replacement {n}"),
            Self::PathCertificate(n) => write!(f, "path certificate {n}"),
            Self::ExecutionDateTime => f.write_str("executionDateTime"),
            Self::End => f.write_str("end"),
        }
    }
}

/// The field in which a pre-command first departs from a filled template, given the first octet that differs.
///
/// A field of another length shows first in the length of what encloses it: then the fields themselves are compared.
fn locate(filled: &[u8], pre_command: &[u8], at: usize) -> Field {
    if at < HEADER_LEN {
        return Field::GroupingHeader;
    }
    if at >= filled.len() {
        return Field::End;
    }
    let expected = fields(filled).expect("fill wrote strict DER").0;
    if let Some((field, _)) = expected.iter().find(|(_, place)| place.contains(&at)) {
        return *field;
    }
    // What cannot be read differs in its structure.
    let Some((found, _)) = fields(pre_command).ok().filter(|(_, end)| *end == pre_command.len()) else {
        return Field::Structure;
    };
    for (n, (field, place)) in expected.iter().enumerate() {
        match found.get(n) {
            Some((other, there)) if other == field && filled[place.clone()] == pre_command[there.clone()] => {}
            Some((other, _)) if other != field => return *other,
            Some(_) | None => return *field,
        }
    }
    found.get(expected.len()).map_or(Field::Structure, |(field, _)| *field)
}

/// What the octets of a pre-command belong to, in order.
type Fields = Vec<(Field, Range<usize>)>;

/// The fields of a pre-command in their order, each with its place; and where the payload ends. Tags and lengths around fields
/// are in none of them.
fn fields(octets: &[u8]) -> Result<(Fields, usize), DecodeError> {
    let mut found = Vec::new();
    let mut content = Reader::new(octets, HEADER_LEN..octets.len(), Lengths::Strict);
    content.length("the content")?;
    let mut payload = content.element(tag::SEQUENCE, "CommandPayload")?;
    let mut control = payload.element(tag::SEQUENCE, "AuthorisingRemotePartyControl")?;
    while let Some(tag) = control.peek() {
        let from = control.at();
        control.whole(tag, "control field")?;
        found.extend(control_field(tag).map(|field| (field, from..control.at())));
    }
    let mut list = payload.element(tag::SEQUENCE, "replacements")?;
    for n in 1.. {
        if list.left() == 0 {
            break;
        }
        let mut replacement = list.element(tag::SEQUENCE, "TrustAnchorReplacement")?;
        let from = replacement.at();
        replacement.whole(tag::SEQUENCE, "replacementCertificate")?;
        found.push((Field::ReplacementCertificate(n), from..replacement.at()));
        let from = replacement.at();
        replacement.rest();
        found.push((Field::ReplacementCell(n), from..replacement.at()));
    }
    let mut list = payload.element(tag::SEQUENCE, "certificationPathCertificates")?;
    for n in 1.. {
        if list.left() == 0 {
            break;
        }
        let from = list.at();
        list.whole(tag::SEQUENCE, "Certificate")?;
        found.push((Field::PathCertificate(n), from..list.at()));
    }
    let from = payload.at();
    payload.rest();
    if payload.at() > from {
        found.push((Field::ExecutionDateTime, from..payload.at()));
    }
    Ok((found, payload.at()))
}

fn control_field(tag: u8) -> Option<Field> {
    match tag {
        tag::INTEGER => Some(Field::Mode),
        field::PLAINTEXT_SYMMETRIC_KEY => Some(Field::SymmetricKey),
        field::APPLY_TIME_BASED_CPV_CHECKS => Some(Field::CpvChecks),
        field::AUTHORISING_CELL => Some(Field::AuthorisingCell),
        field::AUTHORISING_SEQ_NUMBER => Some(Field::SeqNumber),
        field::NEW_FLOOR => Some(Field::NewFloor),
        field::NEW_SPECIALIST_FLOORS => Some(Field::NewSpecialistFloors),
        field::OTHER_CHANGES => Some(Field::OtherChanges),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
