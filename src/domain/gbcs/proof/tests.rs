use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::domain::gbcs::samples::{
    COUNTER, DEVICE, Key, RECOVERY, alert, certificate, command, contingency_update, maced_command, random_octets,
    recovery_update, response, success, two_certificates,
};
use crate::domain::gbcs::{KeyUsage, RemotePartyRole};

const MODE: CredentialsReplacementMode = CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery;

fn ids() -> [(Eui64, SubjectKeyIdentifier); 2] {
    let supplier = Eui64([0xA0, 0xB1, 0xC2, 0xD3, 0xE4, 1, 0, 0]);
    [(RECOVERY.0, SubjectKeyIdentifier([0x41; 8])), (supplier, SubjectKeyIdentifier([0x42; 8]))]
}

fn expected() -> Expected {
    let certificates = two_certificates();
    Expected::from_command(&command(recovery_update(&certificates, &[]))).unwrap()
}

fn good_outcome() -> ExecutionOutcome {
    let certificates = two_certificates();
    success(&recovery_update(&certificates, &[]), &ids())
}

/// What a Response with `outcome`, changed by `change` before it is signed, proves.
fn judged(outcome: Option<ExecutionOutcome>, change: impl FnOnce(&mut Vec<u8>)) -> Verdict {
    let key = Key::generate();
    let mut octets = response(MODE, outcome);
    change(&mut octets);
    expected().judge(&key.finish(octets), &key.point)
}

#[track_caller]
fn refused(verdict: Verdict, expected: &[&str]) {
    match verdict {
        Verdict::Refused(reasons) => {
            assert_eq!(reasons.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_expected_is_read_from_the_command() {
    let expected = expected();
    assert_eq!((expected.of.originator, expected.device, expected.counter), (RECOVERY, DEVICE, COUNTER));
    let found: Vec<_> = expected.of.replacements.iter().map(|each| (each.id, each.key_id)).collect();
    assert_eq!(found, ids());
}

#[test]
fn a_device_is_recovered_if_it_signed_that_every_certificate_sent_is_in_its_cell() {
    match judged(Some(good_outcome()), |_| {}) {
        Verdict::Recovered(cells) => {
            assert_eq!(cells.len(), 2);
            assert_eq!(cells[1].now, Holder(ids()[1].0, ids()[1].1));
            assert_eq!(cells[1].before, Holder(Eui64([0xB0; 8]), SubjectKeyIdentifier([0x4B; 8])));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_failed_cell_is_told_and_the_device_is_not_recovered() {
    let mut outcome = good_outcome();
    outcome.replacements[1].status = StatusCode::NoTrustAnchor;
    outcome.replacements[1].replacing_id = Eui64([0xB0; 8]);
    match judged(Some(outcome), |_| {}) {
        Verdict::NotRecovered(cells) => {
            assert_eq!(cells.iter().map(CellResult::is_replaced).collect::<Vec<_>>(), [true, false]);
            assert_eq!(cells[1].status, StatusCode::NoTrustAnchor);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn acceptance_alone_proves_no_recovery() {
    assert_eq!(judged(None, |_| {}), Verdict::AcceptedOnly);
}

#[test]
fn an_alert_of_the_commands_counter_proves_what_its_outcomes_and_its_code_agree_on() {
    let key = Key::generate();
    let judge = |code, outcome| expected().judge(&key.finish(alert(code, outcome)), &key.point);
    assert!(matches!(judge(AlertCode::FUTURE_DATED_SUCCESS, good_outcome()), Verdict::Recovered(_)));
    let mut failed = good_outcome();
    failed.replacements[0].status = StatusCode::ResourcesBusy;
    assert!(matches!(judge(AlertCode::FUTURE_DATED_FAILURE, failed.clone()), Verdict::NotRecovered(_)));
    let (success, failure) =
        ("0x8F66 future-dated command actioned successfully", "0x8F67 future-dated command not actioned successfully");
    refused(
        judge(AlertCode::FUTURE_DATED_SUCCESS, failed),
        &[&format!("expected Alert Code {failure} as its outcomes say, found {success}")],
    );
    refused(
        judge(AlertCode::FUTURE_DATED_FAILURE, good_outcome()),
        &[&format!("expected Alert Code {success} as its outcomes say, found {failure}")],
    );
    let other = ExecutionOutcome { seq_number: SeqNumber::new(COUNTER - 1).unwrap(), ..good_outcome() };
    refused(
        judge(AlertCode::FUTURE_DATED_SUCCESS, other),
        &["expected authorisingRemotePartySeqNumber 7000, found 6999"],
    );
}

#[test]
fn an_answer_with_a_wrong_signature_is_refused_before_its_payload_is_looked_at() {
    let (key, other) = (Key::generate(), Key::generate());
    let octets = key.finish(response(MODE, Some(good_outcome())));
    let signature = "the signature does not verify with the Device's digitalSignature key";
    refused(expected().judge(&octets, &other.point), &[signature]);
    for at in 0..octets.len() {
        let mut octets = octets.clone();
        octets[at] ^= 0x10;
        assert!(matches!(expected().judge(&octets, &key.point), Verdict::Refused(_)), "octet {at}");
    }
    let mut broken = octets;
    broken[50] ^= 0xFF; // within the payload, which no longer reads
    broken[10] ^= 1;
    refused(expected().judge(&broken, &key.point), &["expected Originator Counter 7000, found 7001", signature]);
}

#[test]
fn a_payload_that_does_not_read_is_refused_though_it_is_signed() {
    let verdict = judged(None, |octets| *octets.last_mut().unwrap() = 1);
    refused(verdict, &["octet 50: expected 1 more octets of commandAccepted, found 0"]);
}

#[test]
fn every_reason_of_the_header_is_named() {
    let verdict = judged(Some(good_outcome()), |octets| {
        octets[10] ^= 1;
        octets[12] = 0x77;
        octets[21] = 0x88;
    });
    refused(
        verdict,
        &[
            "expected originator 00FEDCBA98765432, the Device, found 77FEDCBA98765432",
            "expected recipient A0B1C2D3E4000001, the Command's originator, found 88B1C2D3E4000001",
            "expected Originator Counter 7000, found 7001",
        ],
    );
    let key = Key::generate();
    let mode = CredentialsReplacementMode::AnyByContingency;
    let octets = key.finish(response(mode, Some(ExecutionOutcome { mode, ..good_outcome() })));
    refused(
        expected().judge(&octets, &key.point),
        &[
            "expected Message Code 0x0108 anyExceptAbnormalRootByRecovery, found 0x0109 anyByContingency",
            "expected credentialsReplacementMode anyExceptAbnormalRootByRecovery, found anyByContingency",
        ],
    );
}

#[test]
fn every_reason_of_the_outcome_is_named() {
    let mut outcome = good_outcome();
    outcome.seq_number = SeqNumber::ZERO;
    outcome.replacements.swap(0, 1);
    let verdict = judged(Some(outcome), |_| {});
    refused(
        verdict,
        &[
            "expected authorisingRemotePartySeqNumber 7000, found 0",
            "outcome 1: expected cell recovery digitalSignature, found supplier digitalSignature",
            "outcome 1, recovery digitalSignature: expected A0B1C2D3E4000001 key 4141414141414141 as sent, \
             found A0B1C2D3E4010000 key 4242424242424242",
            "outcome 2: expected cell supplier digitalSignature, found recovery digitalSignature",
            "outcome 2, supplier digitalSignature: expected A0B1C2D3E4010000 key 4242424242424242 as sent, \
             found A0B1C2D3E4000001 key 4141414141414141",
        ],
    );
    let mut outcome = good_outcome();
    outcome.replacements.pop();
    refused(judged(Some(outcome), |_| {}), &["expected 2 outcomes, found 1"]);
    let mut outcome = good_outcome();
    outcome.replacements.push(outcome.replacements[0]);
    refused(judged(Some(outcome), |_| {}), &["expected 2 outcomes, found 3"]);
}

#[test]
fn a_command_or_what_is_only_maced_or_no_message_answers_nothing() {
    let key = Key::generate();
    let octets = key.finish(crate::domain::gbcs::samples::pre_command(recovery_update(&[], &[])));
    refused(expected().judge(&octets, &key.point), &["expected a Response or an Alert, found a Command"]);
    let mode = CredentialsReplacementMode::AccessControlBrokerByACB;
    let octets = maced_command(Update { mode, ..recovery_update(&[], &[]) }, false);
    refused(
        expected().judge(&octets, &key.point),
        &["expected a Response or an Alert, found a Command", "expected a signature of the Device, found none"],
    );
    refused(expected().judge(&[], &key.point), &["octet 0: expected 1 more octets of general-signing tag, found 0"]);
}

#[test]
fn a_root_has_no_uniqueidentifier_and_is_reported_with_zeros() {
    let certificates = [certificate("00", None, [0x45; 8])];
    let mut update = recovery_update(&certificates, &[]);
    update.replacements[0].cell = TrustAnchorCell::management(RemotePartyRole::Root, KeyUsage::KeyCertSign);
    let expected = OfTemplate::new(RECOVERY, &update).unwrap();
    assert_eq!((expected.replacements[0].id, expected.replacements[0].key_id.0), (Eui64([0; 8]), [0x45; 8]));
}

#[test]
fn the_answer_to_a_contingency_command_proves_a_new_root_only_if_it_says_so_in_its_own_mode() {
    let contingency = CredentialsReplacementMode::AnyByContingency;
    let certificates = [certificate("00", None, [0x45; 8]), two_certificates().swap_remove(0)];
    let update = contingency_update(&certificates, &[]);
    let sent = command(update.clone());
    let expected = Expected::from_command(&sent).unwrap();
    let ids = [(Eui64([0; 8]), SubjectKeyIdentifier([0x45; 8])), (RECOVERY.0, SubjectKeyIdentifier([0x41; 8]))];
    let key = Key::generate();
    let judge = |mode, change: fn(&mut ExecutionOutcome)| {
        let mut outcome = success(&update, &ids);
        change(&mut outcome);
        outcome.mode = mode;
        expected.judge(&key.finish(response(mode, Some(outcome))), &key.point)
    };
    match judge(contingency, |_| {}) {
        Verdict::Recovered(cells) => {
            assert_eq!((cells[0].cell, cells[0].now.0), (TrustAnchorCell::ROOT, Eui64([0; 8])));
        }
        other => panic!("{other:?}"),
    }
    refused(
        judge(contingency, |outcome| outcome.replacements[0].replacing_id = Eui64([1; 8])),
        &[
            "outcome 1, root keyCertSign: expected 0000000000000000 key 4545454545454545 as sent, found 0101010101010101 key \
           4545454545454545",
        ],
    );
    // As a Device answers to which the root was not given, and everything else does not lead to it.
    let failed = judge(contingency, |outcome| {
        outcome.replacements.iter_mut().for_each(|replacement| replacement.status = StatusCode::NoTrustAnchor);
    });
    assert!(matches!(failed, Verdict::NotRecovered(cells) if cells.len() == 2));
    refused(
        judge(MODE, |_| {}),
        &[
            "expected Message Code 0x0109 anyByContingency, found 0x0108 anyExceptAbnormalRootByRecovery",
            "expected credentialsReplacementMode anyByContingency, found anyExceptAbnormalRootByRecovery",
        ],
    );
}

#[test]
fn a_command_whose_certificate_cannot_be_read_says_which() {
    let certificates = [two_certificates()[0].clone(), vec![0x30, 0x00]];
    let error = Expected::from_command(&command(recovery_update(&certificates, &[]))).unwrap_err().to_string();
    assert_eq!(error, "sent message, certificate of replacement 2: expected an X.509 certificate");
    let error = Expected::from_command(&Key::generate().finish(response(MODE, None))).unwrap_err();
    assert_eq!(error, ExpectedError::NotACommand { found: Cra::Response });
}

/// n of P-256, SEC 2 2.4.2.
const ORDER: &str = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";

/// n − s.
fn other_s(s: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let mut difference: Vec<u8> = hex::decode(ORDER)
        .unwrap()
        .iter()
        .zip(s)
        .rev()
        .map(|(n, s)| {
            let value = i16::from(*n) - i16::from(*s) - borrow;
            borrow = i16::from(value < 0);
            u8::try_from(value.rem_euclid(256)).unwrap()
        })
        .collect();
    difference.reverse();
    difference
}

#[test]
fn a_signature_with_either_s_verifies_and_no_other_does() {
    let key = Key::generate();
    let octets: [u8; 100] = random_octets();
    let signature = key.sign(&octets);
    let mut other = signature;
    other[32..].copy_from_slice(&other_s(&signature[32..]));
    assert_ne!(signature, other);
    assert!(verify_signature(&octets, &signature, &key.point));
    assert!(verify_signature(&octets, &other, &key.point));
    assert!(!verify_signature(&octets[1..], &signature, &key.point));
    assert!(!verify_signature(&octets, &[0; 64], &key.point));
    assert!(!verify_signature(&octets, &signature, &Key::generate().point));
    assert!(!verify_signature(&octets, &signature, &[4; 65]));
}

#[test]
fn a_signature_made_by_openssl_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |args: &[&str], input: &[u8]| {
        let mut child = Command::new("openssl")
            .args(args)
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let answer = child.wait_with_output().unwrap();
        assert!(answer.status.success(), "{args:?}");
        answer.stdout
    };
    let tbs = b"09 01 and so on";
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem"], &[]);
    let spki = openssl(&["ec", "-in", "key.pem", "-pubout", "-outform", "DER"], &[]);
    let point: [u8; 65] = *spki.last_chunk().unwrap();
    let der = openssl(&["dgst", "-sha256", "-sign", "key.pem"], tbs);
    // SEQUENCE { INTEGER r, INTEGER s }
    let r_len = usize::from(der[3]);
    let half = |octets: &[u8]| {
        let mut half = [0; 32];
        let octets = &octets[octets.len().saturating_sub(32)..];
        half[32 - octets.len()..].copy_from_slice(octets);
        half
    };
    let (r, s) = (half(&der[4..4 + r_len]), half(&der[4 + r_len + 2..]));
    let signature: [u8; 64] = [r, s].concat().try_into().unwrap();
    assert!(verify_signature(tbs, &signature, &point));
    assert!(!verify_signature(b"09 01 and so off", &signature, &point));
}
