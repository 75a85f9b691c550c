//! What a Device could answer to a command, true or not: made by hand and signed with whatever key.

use smkid::domain::gbcs::proof::{Expected, Replacing};
use smkid::domain::gbcs::{
    AlertCode, AlertPayload, Cra, DlmsDateTime, ExecutionOutcome, GeneralizedTime, Header, Message, MessageCode,
    Payload, ReplacementOutcome, ResponsePayload, SeqNumber, StatusCode, SubjectKeyIdentifier, encode_unsigned, finish,
};
use smkid::domain::names::Eui64;
use smkid::domain::time::Timestamp;

const AT: &str = "2026-11-24T10:00:00Z";

/// What a Device reports that did all that the command says.
fn outcome(command: &[u8]) -> ExecutionOutcome {
    let Expected { of: expected, device: _, counter } = Expected::from_command(command).unwrap();
    let replaced = |sent: &Replacing| ReplacementOutcome {
        cell: sent.cell,
        status: StatusCode::Success,
        existing_id: Eui64([0xB0; 8]),
        existing_key_id: SubjectKeyIdentifier([0x4B; 8]),
        replacing_id: sent.id,
        replacing_key_id: sent.key_id,
    };
    ExecutionOutcome {
        seq_number: SeqNumber::new(counter).unwrap(),
        mode: expected.mode,
        changes: Vec::new(),
        replacements: expected.replacements.iter().map(replaced).collect(),
    }
}

fn header(command: &[u8], cra: Cra) -> Header {
    let header = Message::decode(command).unwrap().frame.header;
    let at: Timestamp = AT.parse().unwrap();
    Header {
        cra,
        originator: header.recipient,
        recipient: header.originator,
        date_time: (cra == Cra::Response).then(|| DlmsDateTime::from_timestamp(at)),
        ..header
    }
}

fn signed(header: &Header, payload: &Payload<'_>, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Vec<u8> {
    let mut octets = Vec::new();
    encode_unsigned(header, payload, &mut octets).unwrap();
    let signature = sign(&octets[1..]);
    finish(&mut octets, &signature);
    octets
}

/// A Response to a command, or to a pre-command that nobody signed; `change` says how it departs from success.
pub fn response(
    command: &[u8],
    change: impl FnOnce(&mut Header, &mut ExecutionOutcome),
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> Vec<u8> {
    let (mut header, mut outcome) = (header(command, Cra::Response), outcome(command));
    change(&mut header, &mut outcome);
    signed(&header, &Payload::Response(ResponsePayload { outcome: Some(outcome) }), sign)
}

/// The Alert with which a Device says that it executed it later.
pub fn alert(command: &[u8], sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Vec<u8> {
    let header = Header { counter: 99, code: MessageCode::FutureDatedExecution, ..header(command, Cra::Alert) };
    let execution = GeneralizedTime::from_timestamp(AT.parse().unwrap()).unwrap();
    let alert_code = AlertCode::FUTURE_DATED_SUCCESS;
    signed(&header, &Payload::Alert(AlertPayload { alert_code, execution, outcome: outcome(command) }), sign)
}

/// As [`response`], with one cell that failed.
pub fn one_cell_failed(_: &mut Header, outcome: &mut ExecutionOutcome) {
    let cell = &mut outcome.replacements[0];
    cell.status = StatusCode::NoTrustAnchor;
    (cell.replacing_id, cell.replacing_key_id) = (cell.existing_id, cell.existing_key_id);
}
