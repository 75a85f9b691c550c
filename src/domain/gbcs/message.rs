//! Pure. A whole CS02b message: framing and payload, decoded and encoded.

use std::ops::Range;

use zeroize::Zeroizing;

use super::codes::{CredentialsReplacementMode, MessageCode};
use super::command::{self, CommandPayload, SeqNumberChange, Slots};
use super::der::DecodeError;
use super::framing::{self, Authentication, Cra, EncodeError, Frame, Header};
use super::outcome::{AlertPayload, ResponsePayload};

/// A message as it came, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The framing, and the octets themselves.
    pub frame: Frame<'a>,
    /// What it says.
    pub payload: Payload<'a>,
}

/// Where the symmetric key of a Command stands, counted from the message's first octet.
pub(super) struct KeyPlace {
    /// Of `AuthorisingRemotePartyControl`: tag, length and contents.
    pub control: Range<usize>,
    /// Of `plaintextSymmetricKey`: tag, length and contents.
    pub element: Range<usize>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Command or pre-command.
    Command(CommandPayload<'a>),
    /// Response.
    Response(ResponsePayload),
    /// Alert.
    Alert(AlertPayload),
}

/// A Response or an Alert that was read, without its octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its Grouping Header.
    pub header: Header,
    /// What it says.
    pub payload: AnswerPayload,
}

/// What a Response or an Alert says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPayload {
    /// Response.
    Response(ResponsePayload),
    /// Alert.
    Alert(AlertPayload),
}

impl Answer {
    /// As [`Message::from_frame`] and then [`Message::into_answer`], without the room that a Command would take: of millions that counts.
    pub fn from_frame(frame: Frame<'_>) -> Result<Option<Self>, DecodeError> {
        let (octets, range, cra) = (frame.octets, frame.payload.clone(), frame.header.cra);
        let (payload, mode) = match cra {
            Cra::Command => return Message::from_frame(frame).map(Message::into_answer),
            Cra::Response => {
                let payload = ResponsePayload::read(octets, range)?;
                let mode = payload.outcome.as_ref().map(|outcome| outcome.mode);
                (AnswerPayload::Response(payload), mode)
            }
            Cra::Alert => (AnswerPayload::Alert(AlertPayload::read(octets, range)?), None),
        };
        agree_on(&frame.header, (cra, mode), frame.payload.start)?;
        Ok(Some(Self { header: frame.header, payload }))
    }

    /// The counter of the Command that it answers: a Response repeats it, an Alert names it in its outcome.
    pub const fn counter(&self) -> u64 {
        match &self.payload {
            AnswerPayload::Response(_) => self.header.counter,
            AnswerPayload::Alert(payload) => payload.outcome.seq_number.get(),
        }
    }
}

impl<'a> Message<'a> {
    /// What it says without its octets; none of a Command.
    pub fn into_answer(self) -> Option<Answer> {
        let payload = match self.payload {
            Payload::Command(_) => return None,
            Payload::Response(payload) => AnswerPayload::Response(payload),
            Payload::Alert(payload) => AnswerPayload::Alert(payload),
        };
        Some(Answer { header: self.frame.header, payload })
    }

    /// Reads the message that all of `octets` is. Neither signature nor MAC is checked: see [`super::proof`].
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        Self::from_frame(Frame::parse(octets)?)
    }

    /// Reads a pre-command of mode anyByContingency whose place of the symmetric key is empty (`80 00`), as it is approved and
    /// recorded; its payload has no `plaintext_symmetric_key`. A Device never sees one: [`Message::decode`] refuses it.
    ///
    /// # Errors
    /// As [`Message::decode`]; and a key that is there, or a signature: over those octets nobody signs.
    pub fn decode_unfilled(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let frame = Frame::parse(octets)?;
        let end = frame.payload.end;
        let (message, place) = Self::read(frame, Slots::KeyEmpty)?;
        match (place, message.frame.authentication) {
            (Some(_), Authentication::PreCommand) => Ok(message),
            (Some(_), _) => {
                Err(DecodeError::Trailing { at: end, what: "an unfilled pre-command", left: octets.len() - end })
            }
            (None, _) => {
                let rule = "plaintextSymmetricKey, of no octets, in an unfilled pre-command";
                Err(DecodeError::Presence { at: message.frame.payload.start, rule, present: false })
            }
        }
    }

    /// Reads the payload of a message whose framing was read, and perhaps its signature checked, already.
    pub fn from_frame(frame: Frame<'a>) -> Result<Self, DecodeError> {
        Ok(Self::read(frame, Slots::Filled)?.0)
    }

    /// The message, and where its symmetric key stands if it has a place for one.
    pub(super) fn read(frame: Frame<'a>, slots: Slots) -> Result<(Self, Option<KeyPlace>), DecodeError> {
        let (octets, range) = (frame.octets, frame.payload.clone());
        let (payload, place) = match frame.header.cra {
            Cra::Command => {
                let read = command::read(octets, range, slots)?;
                let payload = CommandPayload {
                    update: read.update,
                    seq_number: read.seq_number.expect("only a template has no counter"),
                    plaintext_symmetric_key: read.plaintext_symmetric_key,
                };
                let control = read.control;
                (Payload::Command(payload), read.symmetric_key_element.map(|element| KeyPlace { control, element }))
            }
            Cra::Response => (Payload::Response(ResponsePayload::read(octets, range)?), None),
            Cra::Alert => (Payload::Alert(AlertPayload::read(octets, range)?), None),
        };
        agree(&frame.header, &payload, frame.payload.start)?;
        Ok((Self { frame, payload }, place))
    }

    /// Appends the message, written anew as strict DER: for a Command the very octets it was decoded from, for a Response
    /// or Alert those unless its lengths were not minimal.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode(&self.frame.header, &self.payload, self.frame.authentication, out)
    }
}

/// Appends a message made of these parts.
///
/// An unsigned Response or Alert, for whoever holds the Device's key, is what [`encode_unsigned`] appends.
pub fn encode(
    header: &Header,
    payload: &Payload<'_>,
    authentication: Authentication<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    agree(header, payload, 0).map_err(EncodeError::Inconsistent)?;
    key_where_it_belongs(payload, authentication).map_err(EncodeError::Inconsistent)?;
    // Room for the most at once: a vector that grows would leave copies of a symmetric key behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(payload_len_max(payload)));
    match payload {
        Payload::Command(payload) => payload.write(&mut octets),
        Payload::Response(payload) => payload.write(&mut octets),
        Payload::Alert(payload) => payload.write(&mut octets),
    }
    framing::write(header, &octets, authentication, out)
}

/// Appends a message that stops after its payload: what is signed is all of it but its first octet, and
/// [`super::finish`] appends the signature.
pub fn encode_unsigned(header: &Header, payload: &Payload<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode(header, payload, Authentication::PreCommand, out)
}

/// A symmetric key is in mode anyByContingency and in no other, and only a pre-command can wait for it (GBCS 13.3).
fn key_where_it_belongs(payload: &Payload<'_>, authentication: Authentication<'_>) -> Result<(), DecodeError> {
    let Payload::Command(command) = payload else { return Ok(()) };
    let is_contingency = command.update.mode == CredentialsReplacementMode::AnyByContingency;
    match (is_contingency, command.plaintext_symmetric_key.is_some(), authentication) {
        (true, true, _) | (false, false, _) | (true, false, Authentication::PreCommand) => Ok(()),
        (true, false, _) => {
            let rule = "plaintextSymmetricKey in a signed Command of mode anyByContingency";
            Err(DecodeError::Presence { at: 0, rule, present: false })
        }
        (false, true, _) => {
            let rule = "plaintextSymmetricKey in no mode but anyByContingency";
            Err(DecodeError::Presence { at: 0, rule, present: true })
        }
    }
}

/// A bound on the length of what is written for `payload`.
fn payload_len_max(payload: &Payload<'_>) -> usize {
    /// No replacement's cell and lengths, outcome, or change of counters is longer.
    const ITEM_LEN_MAX: usize = 96;
    /// Control fields, lengths, times.
    const FIXED_LEN_MAX: usize = 256;
    let (items, certificates) = match payload {
        Payload::Command(CommandPayload { update, .. }) => {
            let replaced = update.replacements.iter().map(|replacement| replacement.certificate.len());
            let path = update.path_certificates.iter().map(|certificate| certificate.len());
            let floors = update.new_specialist_floors.as_ref().map_or(0, Vec::len);
            let changes = update.other_changes.iter().flatten().map(change_items).sum::<usize>();
            (update.replacements.len() + floors + changes, replaced.chain(path).sum())
        }
        Payload::Response(ResponsePayload { outcome: None }) => (0, 0),
        Payload::Response(ResponsePayload { outcome: Some(outcome) })
        | Payload::Alert(AlertPayload { outcome, .. }) => {
            (outcome.replacements.len() + outcome.changes.iter().map(change_items).sum::<usize>(), 0)
        }
    };
    FIXED_LEN_MAX + items * ITEM_LEN_MAX + certificates
}

fn change_items(change: &SeqNumberChange) -> usize {
    1 + change.specialist_floors.as_ref().map_or(0, Vec::len)
}

/// The payload is of the header's kind, mode and counter: Message Code = 0100 + mode (GBCS 16.2), and a Command's
/// authorisingRemotePartySeqNumber = its Originator Counter (GBCS 13.3). A Response's counter is judged in `proof`, where
/// the Command is known.
fn agree(header: &Header, payload: &Payload<'_>, at: usize) -> Result<(), DecodeError> {
    let (cra, mode) = match payload {
        Payload::Command(payload) => (Cra::Command, Some(payload.update.mode)),
        Payload::Response(payload) => (Cra::Response, payload.outcome.as_ref().map(|outcome| outcome.mode)),
        Payload::Alert(_) => (Cra::Alert, None),
    };
    agree_on(header, (cra, mode), at)?;
    if let Payload::Command(payload) = payload
        && payload.seq_number.get() != header.counter
    {
        let (header, payload) = (header.counter, payload.seq_number.get());
        return Err(DecodeError::Disagreement { at, what: "authorisingRemotePartySeqNumber", header, payload });
    }
    Ok(())
}

/// The same of a payload of this kind and mode.
fn agree_on(
    header: &Header,
    (cra, mode): (Cra, Option<CredentialsReplacementMode>),
    at: usize,
) -> Result<(), DecodeError> {
    let disagreement = |what, header, payload| Err(DecodeError::Disagreement { at, what, header, payload });
    if cra != header.cra {
        return disagreement("CRA Flag", u64::from(header.cra.code()), u64::from(cra.code()));
    }
    match (header.code, cra, mode) {
        (MessageCode::UpdateSecurityCredentials(stated), Cra::Command | Cra::Response, Some(mode)) => {
            if stated != mode {
                return disagreement("credentialsReplacementMode", u64::from(stated.code()), u64::from(mode.code()));
            }
        }
        (MessageCode::UpdateSecurityCredentials(_), Cra::Command | Cra::Response, None)
        | (MessageCode::FutureDatedExecution, Cra::Alert, _) => {}
        (MessageCode::UpdateSecurityCredentials(_), Cra::Alert, _)
        | (MessageCode::FutureDatedExecution, Cra::Command | Cra::Response, _) => {
            return disagreement("Message Code and CRA Flag", u64::from(header.code.value()), u64::from(cra.code()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
