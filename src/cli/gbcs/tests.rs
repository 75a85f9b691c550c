use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::gbcs::samples::{
    DEVICE, Key, RECOVERY, alert, certificate, framed, maced_command, pre_command, recovery_update, response, success,
    two_certificates,
};
use crate::domain::gbcs::{
    AlertCode, CredentialsReplacementMode, GeneralizedTime, KeyUsage, RemotePartyRole, SubjectKeyIdentifier,
    TrustAnchorCell, Update,
};
use crate::domain::names::Eui64;

const MODE: CredentialsReplacementMode = CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery;

/// To show that file to a person, and no more.
pub(super) fn asked(file: String) -> GbcsShow {
    GbcsShow { file, certificate: None, root: None, show_symmetric_key: false, output: Output::Text }
}

/// Exit status, standard output, standard error.
fn shown(input: &[u8], certificate_pem: Option<&[u8]>, output: Output) -> (u8, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, octets: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, octets).unwrap();
        path
    };
    let file = at("message", input).to_str().unwrap().to_owned();
    let certificate: Option<PathBuf> = certificate_pem.map(|pem| at("certificate.pem", pem));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = run(&GbcsShow { certificate, output, ..asked(file) }, &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn json_of(input: &[u8]) -> Value {
    let (status, out, err) = shown(input, None, Output::Json);
    assert_eq!((status, err.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

fn text_of(input: &[u8]) -> String {
    let (status, out, err) = shown(input, None, Output::Text);
    assert_eq!((status, err.as_str()), (0, ""));
    out
}

fn recovery_command(key: &Key) -> Vec<u8> {
    let (certificates, path) = (two_certificates(), [certificate("07", None, [0x47; 8])]);
    key.finish(pre_command(recovery_update(&certificates, &path)))
}

/// A certificate of that key.
fn pem_of(key: &Key, id: Eui64) -> String {
    use base64::Engine;
    let der = certificate("01", Some(id.0), [0x41; 8]);
    // The sample's point is 04 and 64 octets 11: put the key's there.
    let at = der.windows(64).position(|window| window == [0x11; 64]).unwrap();
    let mut der = der;
    der[at - 1..at + 64].copy_from_slice(&key.point);
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

#[test]
fn binary_and_hexadecimal_of_any_case_and_spacing_are_told_apart() {
    let octets = recovery_command(&Key::generate());
    let upper = hex::encode_upper(&octets);
    let spaced: String =
        upper.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap().to_owned() + " \r\n").collect();
    let expected = text_of(&octets);
    for input in [upper.clone(), hex::encode(&octets), spaced, format!("\t{upper}\n\n")] {
        assert_eq!(text_of(input.as_bytes()), expected);
    }
    assert!(expected.contains("Command, Message Code 0x0108 anyExceptAbnormalRootByRecovery"));
}

#[test]
fn what_is_no_message_is_a_local_failure_with_a_reason() {
    #[track_caller]
    fn check(input: &[u8], expected: &str) {
        let (status, out, err) = shown(input, None, Output::Text);
        assert_eq!((status, out.as_str()), (1, ""));
        assert!(err.contains(expected), "{err}");
    }
    check(b"", "the message is empty");
    check(b" \n", "the message is empty");
    check(b"DF0", "odd number of hexadecimal digits, 3");
    check(b"DF08", "not a CS02b message: octet 1: expected length of transaction-id (0x09), found 0x08");
    check(b"hello", "octet 0: expected general-signing tag (0xDF), found 0x68");
    check(&vec![b'0'; INPUT_LEN_MAX + 1], "expected at most 262140 octets, found more");
    check(&vec![0xDF; MESSAGE_LEN_MAX + 1], "expected a message of at most 65535 octets");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(run(&asked("/nonexistent/message".to_owned()), &mut out, &mut err), 1);
    assert!(String::from_utf8(err).unwrap().contains("cannot read /nonexistent/message"));
}

#[test]
fn a_signature_is_checked_with_the_certificate_and_a_wrong_one_is_status_5() {
    let key = Key::generate();
    let octets = recovery_command(&key);
    let pem = pem_of(&key, RECOVERY.0);
    let (status, out, err) = shown(&octets, Some(pem.as_bytes()), Output::Text);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("verified        yes") && !out.contains("NOTE"), "{out}");
    let (_, out, _) = shown(&octets, Some(pem_of(&key, DEVICE.0).as_bytes()), Output::Text);
    assert!(out.contains("NOTE            the certificate's EUI-64 is not the originator's"), "{out}");

    let other = pem_of(&Key::generate(), RECOVERY.0);
    let (status, out, err) = shown(&octets, Some(other.as_bytes()), Output::Text);
    assert_eq!(status, 5);
    assert!(out.contains("THE SIGNATURE IS NOT BY THIS CERTIFICATE'S KEY"), "{out}");
    assert!(err.contains("does not verify"), "{err}");
    let mut changed = octets.clone();
    changed[200] ^= 1;
    let (status, out, _) = shown(&changed, Some(pem.as_bytes()), Output::Json);
    assert_eq!(status, 5);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["signature"]["valid"], json!(false));

    for unsigned in [
        pre_command(recovery_update(&[], &[])),
        maced_command(
            Update { mode: CredentialsReplacementMode::AccessControlBrokerByACB, ..recovery_update(&[], &[]) },
            false,
        ),
    ] {
        let (status, out, err) = shown(&unsigned, Some(pem.as_bytes()), Output::Text);
        assert_eq!(status, 5);
        assert!(out.contains("NO: there is no signature") && err.contains("there is no signature"), "{out}{err}");
    }
    for (pem, expected) in [
        ("", "expected a certificate in PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "found \"PUBLIC KEY\""),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "expected an X.509 certificate"),
    ] {
        let (status, out, err) = shown(&octets, Some(pem.as_bytes()), Output::Text);
        assert_eq!((status, out.as_str()), (1, ""));
        assert!(err.contains(expected), "{err}");
    }
}

#[test]
fn a_command_is_told_in_full_to_programs() {
    let key = Key::generate();
    let octets = recovery_command(&key);
    let end = octets.len() - 65;
    let certificates = two_certificates();
    let found = json_of(&octets);
    let sha256 = |octets: &[u8]| hex::encode(ring::digest::digest(&ring::digest::SHA256, octets));
    assert_eq!(found["craFlag"], json!(1));
    assert_eq!(found["messageCode"], json!("0108"));
    assert_eq!(found["originator"], json!("A0B1C2D3E4000001"));
    assert_eq!(found["recipient"], json!("00FEDCBA98765432"));
    assert_eq!(found["originatorCounter"], json!(7000));
    assert_eq!((&found["dateTime"], &found["macHeader"]), (&json!(""), &json!(false)));
    assert_eq!(found["tbsRange"], json!([1, end]));
    assert_eq!(found["tbsSha256"], json!(sha256(&octets[1..end])));
    assert_eq!(found["signature"]["offset"], json!(end + 1));
    assert_eq!(found["signature"].get("valid"), None);
    let decoded = &found["decoded"];
    assert_eq!((&decoded["mode"], &decoded["applyTimeBasedCPVChecks"]), (&json!(8), &json!(1)));
    assert_eq!(
        decoded["authorisingCell"],
        json!({"role": "recovery", "keyUsage": "digitalSignature", "cellUsage": "management"})
    );
    assert_eq!(
        decoded["otherChanges"][0],
        json!({"role": "supplier", "floor": 0, "specialist": [{"usage": 0, "seq": 0}]})
    );
    assert_eq!(
        decoded["replacements"][1],
        json!({
            "cell": {"role": "supplier", "keyUsage": "digitalSignature", "cellUsage": "management"},
            "certSha256": sha256(&certificates[1]),
            "certLength": certificates[1].len(),
            "subject": "2.5.4.45=#00a0b1c2d3e4010000,OU=02",
            "issuer": "OU=07",
            "ski": "4242424242424242",
        })
    );
    let details = &found["certificates"][1];
    assert_eq!((&details["role"], &details["eui64"]), (&json!("supplier"), &json!("A0B1C2D3E4010000")));
    assert_eq!(details["keyId"], json!("4242424242424242"));
    assert_eq!(
        (&details["notBefore"], &details["notAfter"]),
        (&json!("2026-01-01T00:00:00.000Z"), &json!("2036-01-01T00:00:00.000Z"))
    );
    assert_eq!(found["certificates"][2]["role"], json!("issuingAuthority"));
}

#[test]
fn a_command_is_told_in_full_to_people() {
    let text = text_of(&recovery_command(&Key::generate()));
    for expected in [
        "from (Party)    A0B1C2D3E4000001",
        "to   (Device)   00FEDCBA98765432",
        "counter         7000",
        "8 anyExceptAbnormalRootByRecovery: the Recovery Private Key replaces any",
        "when            at once",
        "the Device IGNORES validity dates",
        "the key in cell recovery digitalSignature",
        "supplier             0, prepayment top-up 0",
        "Replacements (2)",
        "2. into cell supplier digitalSignature",
        "EUI-64       A0B1C2D3E4010000",
        "key id       4242424242424242",
        "valid        from 2026-01-01T00:00:00.000Z to 2036-01-01T00:00:00.000Z",
        "Path certificates (1)",
        "role         issuingAuthority",
        "signature r",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn a_cancellation_and_a_future_date_are_told() {
    let when = |at: &str| {
        let execution = GeneralizedTime::from_timestamp(at.parse().unwrap());
        text_of(&pre_command(Update { execution, ..recovery_update(&[], &[]) }))
    };
    assert!(when("9999-12-31T23:59:59Z").contains("CANCELS a pending command (99991231235959Z)"));
    assert!(when("2030-01-15T00:00:00Z").contains("when            2030-01-15T00:00:00.000Z (20300115000000Z)"));
    assert!(when("2030-01-15T00:00:00Z").starts_with("Pre-command, "));
}

#[test]
fn a_contingency_command_is_explained_and_its_symmetric_key_is_not_shown() {
    let cell = TrustAnchorCell::management(RemotePartyRole::Root, KeyUsage::KeyCertSign);
    let certificates = [certificate("00", None, [0x45; 8])];
    let mode = CredentialsReplacementMode::AnyByContingency;
    let mut update = Update { mode, authorising_cell: Some(cell), ..recovery_update(&certificates, &[]) };
    let octets = pre_command(update.clone());
    assert!(
        text_of(&octets).contains("NOT replaced: the Device keeps a root whose Contingency Symmetric Key is spent")
    );
    update.replacements[0].cell = cell;
    let octets = pre_command(update);
    assert!(hex::encode(&octets).contains(&"ee".repeat(32)));
    let (text, json) = (text_of(&octets), json_of(&octets).to_string());
    assert!(
        text.contains("32 octets in clear in this message") && text.contains("must carry the next wrapped key"),
        "{text}"
    );
    assert!(json.contains("\"plaintextSymmetricKeyLength\":32"), "{json}");
    for answer in [text, json] {
        assert!(!answer.to_lowercase().contains("eeee"), "{answer}");
    }
}

#[test]
fn responses_and_alerts_tell_what_became_of_each_cell() {
    let (key, certificates) = (Key::generate(), two_certificates());
    let update = recovery_update(&certificates, &[]);
    let ids = [(RECOVERY.0, SubjectKeyIdentifier([0x41; 8])); 2];
    let mut outcome = success(&update, &ids);
    outcome.replacements[1].status = crate::domain::gbcs::StatusCode::NoTrustAnchor;
    let octets = key.finish(response(MODE, Some(outcome.clone())));
    let text = text_of(&octets);
    for expected in [
        "from (Device)   00FEDCBA98765432",
        "Device's clock  2026-11-24 01:02:03.45",
        "Outcomes (2, of which 1 failed)",
        "1. cell recovery digitalSignature: done, success (0)",
        "2. cell supplier digitalSignature: FAILED, noTrustAnchor (10)",
        "now          A0B1C2D3E4000001 key 4141414141414141",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let found = json_of(&octets);
    assert_eq!(found["dateTime"], json!("07ea0b18ff0102032d8000ff"));
    assert_eq!(found["decoded"]["executionOutcome"]["outcomes"][1]["status"], json!(10));
    assert_eq!(json_of(&key.finish(response(MODE, None)))["decoded"], json!({"accepted": true}));
    assert!(text_of(&key.finish(response(MODE, None))).contains("proves acceptance only"));

    let octets = key.finish(alert(AlertCode::FUTURE_DATED_FAILURE, outcome));
    assert!(text_of(&octets).contains("Alert Code 0x8F67 future-dated command not actioned successfully"));
    let found = json_of(&octets);
    assert_eq!((&found["decoded"]["alertCode"], &found["originatorCounter"]), (&json!("8f67"), &json!(99)));
    assert_eq!(found["decoded"]["executionDateTime"], json!("20261201000000Z"));
}

#[test]
fn a_mac_is_told_and_that_it_was_not_checked() {
    let mode = CredentialsReplacementMode::AccessControlBrokerByACB;
    let octets = maced_command(Update { mode, ..recovery_update(&[], &[]) }, false);
    assert!(text_of(&octets).contains("MAC             3a3a3a3a3a3a3a3a3a3a3a3a (not checked)"));
    let found = json_of(&octets);
    assert_eq!((&found["macHeader"], &found["mac"]), (&json!(true), &json!("3a3a3a3a3a3a3a3a3a3a3a3a")));
    assert_eq!(found["signature"], json!("zero length (MAC only)"));
    assert_eq!(json_of(&pre_command(recovery_update(&[], &[])))["signature"], json!("absent (pre-command)"));
}

#[test]
fn a_certificate_that_cannot_be_read_is_told_and_the_rest_is_shown() {
    // The third nests 15,000 deep.
    let mut nested = Vec::new();
    for left in (0..15_000_u16).rev() {
        nested.extend([0x30, 0x82]);
        nested.extend((4 * left).to_be_bytes());
    }
    let certificates = [framed(100), two_certificates()[1].clone(), nested];
    let octets = pre_command(recovery_update(&certificates, &[]));
    let text = text_of(&octets);
    assert_eq!(text.matches("CANNOT BE READ").count(), 2, "{text}");
    assert!(text.contains("EUI-64       A0B1C2D3E4010000"));
    let found = json_of(&octets);
    assert!(found["decoded"]["replacements"][0]["error"].is_string());
    assert_eq!(found["decoded"]["replacements"][1]["ski"], json!("4242424242424242"));
    assert!(found["certificates"][2]["error"].is_string());
}

#[test]
fn a_name_cannot_act_on_the_terminal_or_pass_for_two() {
    let certificates = [certificate("\u{1b}[2J,CN=x\u{202e}", None, [0x41; 8])];
    let text = text_of(&pre_command(recovery_update(&certificates, &[])));
    assert!(text.contains(r"subject      OU=\1B[2J\,CN\=x\E2\80\AE"), "{text}");
    assert!(!text.contains('\u{1b}') && text.contains("role         none of the SMKI roles"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_certificate_with_changed_octets_never_panics(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut certificate = two_certificates()[1].clone();
        for (at, value) in changes {
            // The outer framing stays: without it the message is refused before any certificate is read.
            let at = 4 + at.index(certificate.len() - 4);
            certificate[at] = value;
        }
        let certificates = [certificate];
        let octets = pre_command(recovery_update(&certificates, &certificates));
        let shown = Shown::new(&octets, None).unwrap();
        prop_assert!(text::render(&shown).contains("Replacements (1)"));
        prop_assert!(json::render(&shown)["certificates"][1]["sha256"].is_string());
    }
}
