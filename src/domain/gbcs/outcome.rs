//! Pure. What a Device answers (GBCS 13.3, `ResponsePayload` and `AlertPayload`).

use std::ops::Range;

use super::codes::{
    AlertCode, CredentialsReplacementMode, SeqNumber, StatusCode, SubjectKeyIdentifier, TrustAnchorCell,
};
use super::command::{GeneralizedTime, SeqNumberChange, read_seq_number_changes, write_seq_number_changes};
use super::der::{DecodeError, Lengths, Reader, tag, write_cell, write_element, write_octets, write_unsigned};
use crate::domain::names::Eui64;

/// `ResponsePayload`: the Command was accepted, and, unless it is future dated or a cancellation, executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponsePayload {
    /// What became of it.
    pub outcome: Option<ExecutionOutcome>,
}

/// `AlertPayload`: a future-dated Command was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertPayload {
    /// `8F66` or `8F67`.
    pub alert_code: AlertCode,
    /// When it was to be executed.
    pub execution: GeneralizedTime,
    /// What became of it.
    pub outcome: ExecutionOutcome,
}

/// `ExecutionOutcome`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionOutcome {
    /// The Command's counter.
    pub seq_number: SeqNumber,
    /// The Command's mode.
    pub mode: CredentialsReplacementMode,
    /// Counters as set.
    pub changes: Vec<SeqNumberChange>,
    /// One per replacement, in the Command's order.
    pub replacements: Vec<ReplacementOutcome>,
}

/// `ReplacementOutcome`. A root has no EUI-64: its identifiers are eight zero octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplacementOutcome {
    /// Which cell.
    pub cell: TrustAnchorCell,
    /// What became of it.
    pub status: StatusCode,
    /// `existingSubjectUniqueID`: whose certificate was there.
    pub existing_id: Eui64,
    /// `existingSubjectKeyIdentifier`: which key was there.
    pub existing_key_id: SubjectKeyIdentifier,
    /// `replacingSubjectUniqueID`: whose is there now.
    pub replacing_id: Eui64,
    /// `replacingSubjectKeyIdentifier`: which key is there now.
    pub replacing_key_id: SubjectKeyIdentifier,
}

/// No `ReplacementOutcome` has fewer octets: its own and its cell's headers, role, key usage, status, and four times eight octets.
const REPLACEMENT_LEN_MIN: usize = 2 + 2 + 3 + 4 + 3 + 4 * 10;

impl ResponsePayload {
    pub(super) fn read(octets: &[u8], range: Range<usize>) -> Result<Self, DecodeError> {
        let mut whole = Reader::new(octets, range, Lengths::AsObserved);
        let mut payload = whole.element(tag::SEQUENCE, "ResponsePayload")?;
        whole.finish("ResponsePayload")?;
        payload.element(tag::NULL, "commandAccepted")?.finish("commandAccepted, a NULL")?;
        let outcome = if payload.left() > 0 { Some(ExecutionOutcome::read(&mut payload)?) } else { None };
        payload.finish("ResponsePayload")?;
        Ok(Self { outcome })
    }

    /// Appends the strict DER.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { outcome } = self;
        write_element(out, tag::SEQUENCE, |out| {
            write_octets(out, tag::NULL, &[]);
            if let Some(outcome) = outcome {
                outcome.write(out);
            }
        });
    }
}

impl AlertPayload {
    pub(super) fn read(octets: &[u8], range: Range<usize>) -> Result<Self, DecodeError> {
        let mut whole = Reader::new(octets, range, Lengths::AsObserved);
        let mut payload = whole.element(tag::SEQUENCE, "AlertPayload")?;
        whole.finish("AlertPayload")?;
        let alert_code = payload.coded(tag::INTEGER, "alertCode", "alertCode 0 to 4294967295", |code| {
            u32::try_from(code).ok().map(AlertCode)
        })?;
        let execution = GeneralizedTime::read(&mut payload)?;
        let outcome = ExecutionOutcome::read(&mut payload)?;
        payload.finish("AlertPayload")?;
        Ok(Self { alert_code, execution, outcome })
    }

    /// Appends the strict DER.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { alert_code, execution, outcome } = self;
        write_element(out, tag::SEQUENCE, |out| {
            write_unsigned(out, tag::INTEGER, u64::from(alert_code.0));
            execution.write(out);
            outcome.write(out);
        });
    }
}

impl ExecutionOutcome {
    fn read(payload: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut fields = payload.element(tag::SEQUENCE, "ExecutionOutcome")?;
        let seq_number = fields.seq_number(tag::INTEGER, "authorisingRemotePartySeqNumber")?;
        let mode = fields.coded(
            tag::INTEGER,
            "credentialsReplacementMode",
            CredentialsReplacementMode::EXPECTED,
            CredentialsReplacementMode::from_code,
        )?;
        let changes = read_seq_number_changes(fields.element(tag::SEQUENCE, "remotePartySeqNumberChanges")?)?;
        let mut list = fields.element(tag::SEQUENCE, "replacementOutcomes")?;
        fields.finish("ExecutionOutcome")?;
        let mut replacements = Vec::with_capacity(list.left() / REPLACEMENT_LEN_MIN);
        while list.left() > 0 {
            let mut fields = list.element(tag::SEQUENCE, "ReplacementOutcome")?;
            let outcome = ReplacementOutcome {
                cell: fields.cell(tag::SEQUENCE, "affectedTrustAnchorCell")?,
                status: fields.coded(tag::ENUMERATED, "statusCode", StatusCode::EXPECTED, StatusCode::from_code)?,
                existing_id: Eui64(fields.octet_string("existingSubjectUniqueID")?),
                existing_key_id: SubjectKeyIdentifier(fields.octet_string("existingSubjectKeyIdentifier")?),
                replacing_id: Eui64(fields.octet_string("replacingSubjectUniqueID")?),
                replacing_key_id: SubjectKeyIdentifier(fields.octet_string("replacingSubjectKeyIdentifier")?),
            };
            fields.finish("ReplacementOutcome")?;
            replacements.push(outcome);
        }
        Ok(Self { seq_number, mode, changes, replacements })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Self { seq_number, mode, changes, replacements } = self;
        write_element(out, tag::SEQUENCE, |out| {
            write_unsigned(out, tag::INTEGER, seq_number.get());
            write_unsigned(out, tag::INTEGER, u64::from(mode.code()));
            write_seq_number_changes(out, tag::SEQUENCE, changes);
            write_element(out, tag::SEQUENCE, |out| replacements.iter().for_each(|outcome| outcome.write(out)));
        });
    }
}

impl ReplacementOutcome {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { cell, status, existing_id, existing_key_id, replacing_id, replacing_key_id } = self;
        write_element(out, tag::SEQUENCE, |out| {
            write_cell(out, tag::SEQUENCE, *cell);
            write_unsigned(out, tag::ENUMERATED, u64::from(status.code()));
            write_octets(out, tag::OCTET_STRING, existing_id.octets());
            write_octets(out, tag::OCTET_STRING, &existing_key_id.0);
            write_octets(out, tag::OCTET_STRING, replacing_id.octets());
            write_octets(out, tag::OCTET_STRING, &replacing_key_id.0);
        });
    }
}

#[cfg(test)]
mod tests;
