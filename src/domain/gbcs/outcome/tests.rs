use super::*;
use crate::domain::gbcs::samples::{Key, alert, eight_cells, framed, recovery_update, response, seq, success};
use crate::domain::gbcs::{
    CellUsage, KeyUsage, Message, Payload, RemotePartyRole, SeqNumberChange, SpecialistFloor, SpecialistUse,
};

const RECOVERY: CredentialsReplacementMode = CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery;

fn eight_outcomes() -> ExecutionOutcome {
    let certificates: Vec<_> = (0..8).map(|_| framed(10)).collect();
    let ids = [(Eui64([0xB1; 8]), SubjectKeyIdentifier([0x4C; 8])); 8];
    success(&recovery_update(&certificates, &[]), &ids)
}

#[test]
fn responses_are_as_long_as_those_of_devices() {
    // GBCS messages with the same outcomes: 115 octets accepted only, 621 for Recovery, 675 for Contingency.
    let len = |mode, outcome| Key::generate().finish(response(mode, outcome)).len();
    assert_eq!(len(RECOVERY, None), 115);
    assert_eq!(len(RECOVERY, Some(eight_outcomes())), 621);
    let mode = CredentialsReplacementMode::AnyByContingency;
    let mut outcome = ExecutionOutcome { mode, ..eight_outcomes() };
    let root = TrustAnchorCell::management(RemotePartyRole::Root, KeyUsage::KeyCertSign);
    outcome.replacements.insert(0, ReplacementOutcome { cell: root, ..outcome.replacements[0] });
    outcome.changes[0].role = RemotePartyRole::Root;
    assert_eq!(len(mode, Some(outcome)), 675);
}

#[test]
fn responses_and_alerts_read_as_written() {
    let mut outcome = eight_outcomes();
    for (outcome, status) in outcome.replacements.iter_mut().zip(StatusCode::ALL) {
        outcome.status = *status;
    }
    let octets = Key::generate().finish(response(RECOVERY, Some(outcome.clone())));
    let message = Message::decode(&octets).unwrap();
    assert_eq!(message.payload, Payload::Response(ResponsePayload { outcome: Some(outcome.clone()) }));
    let mut written = Vec::new();
    message.encode(&mut written).unwrap();
    assert_eq!(written, octets);

    for alert_code in [AlertCode(0), AlertCode::FUTURE_DATED_FAILURE, AlertCode(u32::MAX)] {
        let octets = Key::generate().finish(alert(alert_code, outcome.clone()));
        match Message::decode(&octets).unwrap().payload {
            Payload::Alert(payload) => {
                assert_eq!((payload.alert_code, &payload.outcome), (alert_code, &outcome));
                assert_eq!(payload.execution.to_string(), "20261201000000Z");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// `expected` is empty if the Response payload reads, else what its error says.
#[track_caller]
fn check(octets: &str, expected: &str) {
    let octets = hex::decode(octets.replace(' ', "")).unwrap();
    match ResponsePayload::read(&octets, 0..octets.len()) {
        Ok(_) => assert_eq!(expected, ""),
        Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{error}"),
    }
}

#[test]
fn a_response_says_accepted_and_perhaps_an_outcome() {
    check("3002 0500", "");
    check("3000", "expected 1 more octets of commandAccepted, found 0");
    check("3003 050100", "octet 4: expected the end of commandAccepted, a NULL, found 1 more octets");
    check("3004 0500 0500", "expected ExecutionOutcome (0x30), found 0x05");
    check("3010 0500 300A 020101 020108 3000 3000 0000", "expected the end of ResponsePayload");
    check("300E 0500 300A 020101 020108 3000 3000", "");
    check("300E 0500 300A 020101 02010A 3000 3000", "credentialsReplacementMode");
    check("3010 0500 300C 020101 020108 3000 3000 0500", "expected the end of ExecutionOutcome");
}

const OUTCOME: &str =
    "300702010103020780 0A0100 0408B0B0B0B0B0B0B0B0 0408B0B0B0B0B0B0B0B0 0408B0B0B0B0B0B0B0B0 0408B0B0B0B0B0B0B0B0";

#[track_caller]
fn check_outcome(outcome: &str, expected: &str) {
    let outcome = outcome.replace(' ', "");
    let len = outcome.len() / 2;
    let list = format!("30{:02X} 30{len:02X} {outcome}", len + 2);
    let execution = format!("30{:02X} 020101 020108 3000 {list}", len + 12);
    check(&format!("30{:02X} 0500 {execution}", len + 16), expected);
}

#[test]
fn identifiers_are_of_eight_octets_and_status_codes_of_the_list() {
    check_outcome(OUTCOME, "");
    check_outcome(&OUTCOME.replace("0A0100", "0A010A"), "");
    check_outcome(&OUTCOME.replace("0A0100", "0A017F"), "");
    check_outcome(&OUTCOME.replace("0A0100", "0A0101"), "expected statusCode 0, 5, 10, 17, 25, 30, 127, found 1");
    check_outcome(&OUTCOME.replace("0A0100", "020100"), "expected statusCode (0x0A), found 0x02");
    let (short, long) = ("0407B0B0B0B0B0B0B0", "0409B0B0B0B0B0B0B0B0B0");
    check_outcome(
        &OUTCOME.replacen("0408B0B0B0B0B0B0B0B0", short, 1),
        "expected 8 more octets of existingSubjectUniqueID, found 7",
    );
    check_outcome(&OUTCOME.replacen("0408B0B0B0B0B0B0B0B0", long, 1), "expected the end of existingSubjectUniqueID");
    check_outcome(&format!("{OUTCOME} 0500"), "expected the end of ReplacementOutcome");
}

#[test]
fn an_alert_code_is_of_32_bits() {
    let mut octets = Vec::new();
    AlertPayload {
        alert_code: AlertCode(0x8F66),
        execution: GeneralizedTime::from_timestamp("2030-01-15T00:00:00Z".parse().unwrap()).unwrap(),
        outcome: ExecutionOutcome { seq_number: seq(1), mode: RECOVERY, changes: vec![], replacements: vec![] },
    }
    .write(&mut octets);
    assert_eq!(octets[2..7], [2, 3, 0, 0x8F, 0x66]);
    let mut wide = octets.clone();
    wide.splice(2..7, [2, 5, 1, 0, 0, 0, 0]);
    wide[1] += 2;
    let error = AlertPayload::read(&wide, 0..wide.len()).unwrap_err().to_string();
    assert_eq!(error, "octet 4: expected alertCode 0 to 4294967295, found 4294967296");
}

#[test]
fn changes_with_and_without_special_floors_read_as_written() {
    let floor = SpecialistFloor { usage: SpecialistUse::PrepaymentTopUp, floor: seq(5) };
    let change =
        |specialist_floors| SeqNumberChange { role: RemotePartyRole::LoadController, floor: seq(3), specialist_floors };
    let mut outcome = eight_outcomes();
    outcome.changes = vec![change(None), change(Some(vec![])), change(Some(vec![floor; 3]))];
    let payload = ResponsePayload { outcome: Some(outcome) };
    let mut octets = Vec::new();
    payload.write(&mut octets);
    assert_eq!(ResponsePayload::read(&octets, 0..octets.len()), Ok(payload));
}

#[test]
fn the_top_up_cell_is_told_from_the_management_cell() {
    let cells = eight_cells();
    assert_eq!((cells[2].cell_usage, cells[3].cell_usage), (CellUsage::Management, CellUsage::PrePaymentTopUp));
    let outcome = eight_outcomes();
    assert_eq!(outcome.replacements.iter().map(|outcome| outcome.cell).collect::<Vec<_>>(), cells);
}
