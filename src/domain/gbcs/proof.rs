//! Pure. What a Device's answer proves (GBCS 13.3): that it was recovered, or what else.
//!
//! The signature is checked over the octets as they came, and before the payload is looked at. A refusal carries every
//! reason that can be known: with a wrong signature the header is judged, the payload is not.

use std::fmt;

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::codes::{
    AlertCode, CredentialsReplacementMode, MessageCode, SeqNumber, StatusCode, SubjectKeyIdentifier, TrustAnchorCell,
};
use super::command::Update;
use super::der::DecodeError;
use super::framing::{Cra, Frame, Header};
use super::message::{Answer, AnswerPayload, Message, Payload};
use super::outcome::{ExecutionOutcome, ReplacementOutcome};
use crate::domain::names::{DeviceId, Eui64, PartyId};

/// OID 2.5.4.45, `uniqueIdentifier`.
const UNIQUE_IDENTIFIER: &str = "2.5.4.45";

/// Whether `signature`, `r ‖ s` of 32 octets each, is one over `tbs` by the P-256 key `public_point` (`04 ‖ x ‖ y`).
///
/// ECDSA with SHA-256. A high `s` is accepted: GBCS has no rule against it, and half of all signatures have one.
pub fn verify_signature(tbs: &[u8], signature: &[u8; 64], public_point: &[u8; 65]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_point).verify(tbs, signature).is_ok()
}

/// What the Response or Alert to a Command has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// As to any Command of its template.
    pub of: OfTemplate,
    /// To whom it was sent.
    pub device: DeviceId,
    /// With which counter.
    pub counter: u64,
}

/// What the Response or Alert to any Command of one template has to say: all but Device and counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfTemplate {
    /// Who sends the Commands.
    pub originator: PartyId,
    /// In which mode.
    pub mode: CredentialsReplacementMode,
    /// What they replace, in order.
    pub replacements: Vec<Replacing>,
}

/// A replacement as a Device reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacing {
    /// The cell.
    pub cell: TrustAnchorCell,
    /// The certificate's `uniqueIdentifier`; zeros for a root, which has none.
    pub id: Eui64,
    /// The certificate's subjectKeyIdentifier.
    pub key_id: SubjectKeyIdentifier,
}

/// Why a Command does not say what to expect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpectedError {
    /// The octets are not a message.
    #[error("sent message: {0}")]
    Decode(#[from] DecodeError),
    /// They are a Response or an Alert.
    #[error("sent message: expected a Command, found a {found}")]
    NotACommand {
        /// What it is.
        found: Cra,
    },
    /// A certificate in it cannot be read.
    #[error("sent message, certificate of replacement {n}: expected {expected}")]
    Certificate {
        /// Which replacement, from 1.
        n: usize,
        /// What it lacks.
        expected: &'static str,
    },
}

impl Expected {
    /// From the Command as it was sent, or as it was to be signed.
    pub fn from_command(octets: &[u8]) -> Result<Self, ExpectedError> {
        let message = Message::decode(octets)?;
        let header = &message.frame.header;
        let (originator, device) = (PartyId(header.originator), DeviceId(header.recipient));
        match &message.payload {
            Payload::Command(payload) => {
                let of = OfTemplate::new(originator, &payload.update)?;
                Ok(Self { of, device, counter: header.counter })
            }
            Payload::Response(_) | Payload::Alert(_) => Err(ExpectedError::NotACommand { found: header.cra }),
        }
    }

    /// What `answer`, a Response or an Alert, proves, if `public_point` (`04 ‖ x ‖ y`) is the digitalSignature key of the
    /// Device; that it is, its certificate has to show.
    pub fn judge(&self, answer: &[u8], public_point: &[u8; 65]) -> Verdict {
        let frame = match Frame::parse(answer) {
            Ok(frame) => frame,
            Err(error) => return Verdict::Refused(vec![Reason::Decode(error)]),
        };
        let mut reasons = self.of.header_reasons(&frame.header, self.device, self.counter);
        match frame.signature() {
            None => reasons.push(Reason::NotSigned),
            Some(signature) if verify_signature(frame.tbs(), signature, public_point) => {}
            Some(_) => reasons.push(Reason::Signature),
        }
        if reasons.iter().any(|reason| matches!(reason, Reason::NotSigned | Reason::Signature)) {
            return Verdict::Refused(reasons);
        }
        match Answer::from_frame(frame) {
            Ok(Some(answer)) => self.of.weigh(&answer, self.device, self.counter),
            Ok(None) => Verdict::Refused(reasons), // the CRA Flag is among them
            Err(error) => {
                reasons.push(Reason::Decode(error));
                Verdict::Refused(reasons)
            }
        }
    }
}

impl OfTemplate {
    /// From who sends the Commands, and what they do.
    pub fn new(originator: PartyId, update: &Update<'_>) -> Result<Self, ExpectedError> {
        let replacements = (1..)
            .zip(&update.replacements)
            .map(|(n, replacement)| {
                let (id, key_id) = subject_of(replacement.certificate)
                    .map_err(|expected| ExpectedError::Certificate { n, expected })?;
                Ok(Replacing { cell: replacement.cell, id, key_id })
            })
            .collect::<Result<_, ExpectedError>>()?;
        Ok(Self { originator, mode: update.mode, replacements })
    }

    /// As [`Expected::judge`], of an answer whose signature is known to be this Device's, to the Command of this counter.
    pub fn weigh(&self, answer: &Answer, device: DeviceId, counter: u64) -> Verdict {
        let mut reasons = self.header_reasons(&answer.header, device, counter);
        let (outcome, alert_code) = match &answer.payload {
            AnswerPayload::Response(payload) => (payload.outcome.as_ref(), None),
            AnswerPayload::Alert(payload) => (Some(&payload.outcome), Some(payload.alert_code)),
        };
        let Some(outcome) = outcome else {
            return if reasons.is_empty() { Verdict::AcceptedOnly } else { Verdict::Refused(reasons) };
        };
        self.outcome_reasons(outcome, counter, &mut reasons);
        let cells: Vec<CellResult> =
            self.replacements.iter().zip(&outcome.replacements).map(|(sent, outcome)| sent.result(outcome)).collect();
        let is_complete = cells.iter().all(CellResult::is_replaced);
        if let Some(found) = alert_code {
            let is_success = outcome.replacements.iter().all(|outcome| outcome.status == StatusCode::Success);
            let expected = if is_success { AlertCode::FUTURE_DATED_SUCCESS } else { AlertCode::FUTURE_DATED_FAILURE };
            if found != expected {
                reasons.push(Reason::AlertCode { expected, found });
            }
        }
        match (reasons.is_empty(), is_complete) {
            (false, _) => Verdict::Refused(reasons),
            (true, true) => Verdict::Recovered(cells),
            (true, false) => Verdict::NotRecovered(cells),
        }
    }

    /// An Alert has the Device's own counter; its outcome names the Command's.
    fn header_reasons(&self, header: &Header, device: DeviceId, counter: u64) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let code = match header.cra {
            Cra::Command => {
                reasons.push(Reason::NotAnAnswer);
                return reasons;
            }
            Cra::Response => self.mode.message_code(),
            Cra::Alert => MessageCode::FutureDatedExecution,
        };
        if header.code != code {
            reasons.push(Reason::MessageCode { expected: code, found: header.code });
        }
        if header.originator != device.0 {
            reasons.push(Reason::Originator { expected: device, found: header.originator });
        }
        if header.recipient != self.originator.0 {
            reasons.push(Reason::Recipient { expected: self.originator, found: header.recipient });
        }
        if header.cra == Cra::Response && header.counter != counter {
            reasons.push(Reason::Counter { expected: counter, found: header.counter });
        }
        reasons
    }

    fn outcome_reasons(&self, outcome: &ExecutionOutcome, counter: u64, reasons: &mut Vec<Reason>) {
        if outcome.seq_number.get() != counter {
            reasons.push(Reason::SeqNumber { expected: counter, found: outcome.seq_number });
        }
        if outcome.mode != self.mode {
            reasons.push(Reason::Mode { expected: self.mode, found: outcome.mode });
        }
        let (expected, found) = (self.replacements.len(), outcome.replacements.len());
        if expected != found {
            reasons.push(Reason::OutcomeCount { expected, found });
        }
        for (n, (sent, outcome)) in (1..).zip(self.replacements.iter().zip(&outcome.replacements)) {
            if sent.cell != outcome.cell {
                reasons.push(Reason::Cell { n, expected: sent.cell, found: outcome.cell });
            }
            let found = (outcome.replacing_id, outcome.replacing_key_id);
            if outcome.status == StatusCode::Success && found != (sent.id, sent.key_id) {
                let (expected, found) = (Holder(sent.id, sent.key_id), Holder(found.0, found.1));
                reasons.push(Reason::Replacing { n, cell: sent.cell, expected, found });
            }
        }
    }
}

impl Replacing {
    fn result(&self, outcome: &ReplacementOutcome) -> CellResult {
        CellResult {
            cell: self.cell,
            status: outcome.status,
            before: Holder(outcome.existing_id, outcome.existing_key_id),
            now: Holder(outcome.replacing_id, outcome.replacing_key_id),
        }
    }
}

/// What an answer proves.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The Device holds, in every cell, the certificate that was sent.
    Recovered(Vec<CellResult>),
    /// The Device executed the Command, and at least one cell failed.
    NotRecovered(Vec<CellResult>),
    /// The Device accepted the Command and says nothing of its execution: it is future dated, or a cancellation.
    AcceptedOnly,
    /// It proves nothing: every reason, at least one.
    Refused(Vec<Reason>),
}

/// What the Device says of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellResult {
    /// The cell.
    pub cell: TrustAnchorCell,
    /// What became of its replacement.
    pub status: StatusCode,
    /// Who was in it.
    pub before: Holder,
    /// Who is in it now: unchanged on failure.
    pub now: Holder,
}

impl CellResult {
    /// Whether the certificate that was sent is in the cell.
    pub fn is_replaced(&self) -> bool {
        self.status == StatusCode::Success
    }
}

/// Whose certificate a cell holds, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub Eui64, pub SubjectKeyIdentifier);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key {}", self.0, self.1)
    }
}

/// Why an answer proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Not a CS02b message.
    #[error("{0}")]
    Decode(DecodeError),
    /// A Command.
    #[error("expected a Response or an Alert, found a Command")]
    NotAnAnswer,
    /// Another use case or mode.
    #[error("expected Message Code {expected}, found {found}")]
    MessageCode {
        /// The Command's, or the Alert's.
        expected: MessageCode,
        /// The answer's.
        found: MessageCode,
    },
    /// From another Device.
    #[error("expected originator {expected}, the Device, found {found}")]
    Originator {
        /// The Command's recipient.
        expected: DeviceId,
        /// The answer's originator.
        found: Eui64,
    },
    /// To another Party.
    #[error("expected recipient {expected}, the Command's originator, found {found}")]
    Recipient {
        /// The Command's originator.
        expected: PartyId,
        /// The answer's recipient.
        found: Eui64,
    },
    /// To another Command. A counter that was never signed is the sign of another's key.
    #[error("expected Originator Counter {expected}, found {found}")]
    Counter {
        /// The Command's.
        expected: u64,
        /// The answer's.
        found: u64,
    },
    /// It carries no signature.
    #[error("expected a signature of the Device, found none")]
    NotSigned,
    /// Its signature is not the Device's.
    #[error("the signature does not verify with the Device's digitalSignature key")]
    Signature,
    /// Its outcome is of another Command.
    #[error("expected authorisingRemotePartySeqNumber {expected}, found {found}")]
    SeqNumber {
        /// The Command's.
        expected: u64,
        /// The outcome's.
        found: SeqNumber,
    },
    /// Its outcome is of another mode.
    #[error("expected credentialsReplacementMode {expected}, found {found}")]
    Mode {
        /// The Command's.
        expected: CredentialsReplacementMode,
        /// The outcome's.
        found: CredentialsReplacementMode,
    },
    /// More or fewer outcomes than replacements.
    #[error("expected {expected} outcomes, found {found}")]
    OutcomeCount {
        /// How many replacements were sent.
        expected: usize,
        /// How many outcomes came.
        found: usize,
    },
    /// An outcome of another cell.
    #[error("outcome {n}: expected cell {expected}, found {found}")]
    Cell {
        /// Which, from 1.
        n: usize,
        /// The cell sent.
        expected: TrustAnchorCell,
        /// The cell reported.
        found: TrustAnchorCell,
    },
    /// Success, yet another certificate.
    #[error("outcome {n}, {cell}: expected {expected} as sent, found {found}")]
    Replacing {
        /// Which, from 1.
        n: usize,
        /// The cell.
        cell: TrustAnchorCell,
        /// The certificate sent.
        expected: Holder,
        /// The certificate reported.
        found: Holder,
    },
    /// The Alert Code says another thing than the outcomes.
    #[error("expected Alert Code {expected} as its outcomes say, found {found}")]
    AlertCode {
        /// What the outcomes amount to.
        expected: AlertCode,
        /// What the Alert says.
        found: AlertCode,
    },
}

/// A certificate's EUI-64 (zeros if it has no `uniqueIdentifier`, as a root) and key identifier. `Err` says what it lacks.
fn subject_of(certificate: &[u8]) -> Result<(Eui64, SubjectKeyIdentifier), &'static str> {
    let (rest, certificate) = X509Certificate::from_der(certificate).map_err(|_| "an X.509 certificate")?;
    if !rest.is_empty() {
        return Err("nothing after the certificate");
    }
    let unique_id = certificate
        .subject()
        .iter_attributes()
        .find(|attribute| attribute.attr_type().to_id_string() == UNIQUE_IDENTIFIER)
        .map(|attribute| match attribute.attr_value().data {
            [0, octets @ ..] => Eui64::try_from(octets).map_err(|_| "a uniqueIdentifier of 8 octets"),
            _ => Err("a uniqueIdentifier of whole octets"),
        })
        .transpose()?;
    let key_id = certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
        .ok_or("a subjectKeyIdentifier")?;
    let key_id = key_id.try_into().map_err(|_| "a subjectKeyIdentifier of 8 octets")?;
    Ok((unique_id.unwrap_or(Eui64([0; 8])), SubjectKeyIdentifier(key_id)))
}

#[cfg(test)]
mod tests;
