//! The codec against genuine GBCS messages, which are no part of the repository: `SMKI_VECTORS` names a folder with a
//! `manifest.json` that says what each message is.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use smkid::cli::gbcs::{GbcsShow, Output, run};
use smkid::domain::gbcs::proof::{Expected, Verdict};
use smkid::domain::gbcs::{Cra, Message, Payload, Template, finish};
use smkid::domain::names::{DeviceId, PartyId};

struct Vector {
    path: PathBuf,
    octets: Vec<u8>,
    expected: Value,
}

/// Every message of the manifest; none, as the runner says, where there is no folder.
fn vectors() -> Vec<Vector> {
    let Some(folder) = crate::support::vectors::folder() else { return Vec::new() };
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let vectors: Vec<Vector> = manifest
        .as_array()
        .unwrap()
        .iter()
        .map(|expected| {
            let path = folder.join(expected["file"].as_str().unwrap());
            let octets = hex::decode(fs::read_to_string(&path).unwrap().trim()).unwrap();
            Vector { path, octets, expected: expected.clone() }
        })
        .collect();
    assert!(!vectors.is_empty(), "the manifest names no message");
    vectors
}

fn shown(file: &Path, certificate: Option<PathBuf>) -> (u8, Value) {
    let file = file.to_str().unwrap().to_owned();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = run(
        &GbcsShow { file, certificate, root: None, show_symmetric_key: false, output: Output::Json },
        &mut out,
        &mut err,
    );
    (status, serde_json::from_slice(&out).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&err))))
}

/// Everything the manifest says is in the answer; the answer may say more. EUI-64s differ in case.
#[track_caller]
fn check_says(file: &str, expected: &Value, found: &Value) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, value) in expected {
                let answer = found.get(name).unwrap_or_else(|| panic!("{file}: no {name}"));
                if !matches!(name.as_str(), "file" | "verifiesWith") {
                    check_says(&format!("{file}: {name}"), value, answer);
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            assert_eq!(expected.len(), found.len(), "{file}");
            expected.iter().zip(found).for_each(|(expected, found)| check_says(file, expected, found));
        }
        (Value::String(expected), Value::String(found)) if expected.len() == 16 => {
            assert_eq!(&expected.to_lowercase(), &found.to_lowercase(), "{file}");
        }
        _ => assert_eq!(expected, found, "{file}"),
    }
}

#[test]
fn every_genuine_message_is_shown_as_the_manifest_says_and_its_signature_verifies() {
    for Vector { path, expected, .. } in vectors() {
        let certificate = expected["signature"]["verifiesWith"].as_str();
        let folder = path.parent().unwrap().parent().unwrap();
        let (status, found) = shown(&path, certificate.map(|name| folder.join(name)));
        assert_eq!(status, 0, "{}", path.display());
        check_says(&path.display().to_string(), &expected, &found);
        if certificate.is_some() {
            let (status, found) = shown(&path, Some(folder.join("certs/00db1234567890a3-ds.pem")));
            assert_eq!((status, &found["signature"]["valid"]), (5, &Value::Bool(false)), "{}", path.display());
        }
    }
}

#[test]
fn every_genuine_command_and_pre_command_is_written_anew_octet_for_octet() {
    for Vector { path, octets, .. } in vectors() {
        let message = Message::decode(&octets).unwrap();
        if message.frame.header.cra == Cra::Command {
            let mut written = Vec::new();
            message.encode(&mut written).unwrap();
            assert!(written == octets, "{}", path.display());
        }
    }
}

#[test]
fn every_genuine_command_makes_a_template_that_fills_to_its_pre_command() {
    for Vector { path, octets, .. } in vectors() {
        let message = Message::decode(&octets).unwrap();
        let Payload::Command(payload) = &message.payload else { continue };
        let template = Template::from_command_payload(message.frame.payload_octets()).unwrap();
        assert_eq!(template.update(), payload.update);
        let header = &message.frame.header;
        let (originator, device) = (PartyId(header.originator), DeviceId(header.recipient));
        let mut filled = Vec::new();
        template.fill(originator, device, header.counter, &mut filled).unwrap();
        let pre_command = &octets[message.frame.grouping_header_at..message.frame.payload.end];
        assert!(filled == pre_command, "{}", path.display());
        assert_eq!(template.matches(pre_command), Ok((originator, device, header.counter)));
        if let (Some(signature), None) = (message.frame.signature(), message.frame.mac()) {
            finish(&mut filled, signature);
            assert!(filled == octets, "{}", path.display());
        }
    }
}

#[test]
fn no_genuine_message_survives_a_cut_or_a_changed_octet_unnoticed() {
    for Vector { path, octets, .. } in vectors() {
        let message = Message::decode(&octets).unwrap();
        for cut in 0..octets.len() {
            // A Command without a MAC Header, cut after its payload, is a pre-command: another message, and a valid one.
            let is_pre_command = cut == message.frame.payload.end && message.frame.signature().is_some();
            match Message::decode(&octets[..cut]) {
                Err(_) => {}
                Ok(_) => assert!(is_pre_command, "{}: cut at {cut}", path.display()),
            }
        }
        let mut changed = octets.clone();
        for at in 0..octets.len() {
            changed[at] ^= 0x01 << (at % 8);
            if let Ok(other) = Message::decode(&changed) {
                let same = other.payload == message.payload
                    && other.frame.header == message.frame.header
                    && other.frame.authentication == message.frame.authentication;
                assert!(!same, "{}: changed at {at}", path.display());
            }
            changed[at] = octets[at];
        }
    }
}

/// The Command that an answer is to: for a Response by its name, for an Alert by the counter in its outcome.
fn command_of<'a>(vectors: &'a [Vector], answer: &Vector) -> Option<&'a Vector> {
    let message = Message::decode(&answer.octets).unwrap();
    let name = answer.path.to_str().unwrap().replace("_RESPONSE_", "_COMMAND_");
    vectors.iter().find(|other| match (&message.payload, Message::decode(&other.octets).unwrap().payload) {
        (Payload::Response(_), Payload::Command(_)) => other.path.to_str() == Some(&name),
        (Payload::Alert(alert), Payload::Command(command)) => {
            command.update.mode == alert.outcome.mode && command.seq_number == alert.outcome.seq_number
        }
        _ => false,
    })
}

#[test]
fn every_genuine_answer_proves_what_its_outcomes_say_of_its_command() {
    let vectors = vectors();
    let mut seen = [0; 4];
    for answer in &vectors {
        let Some(command) = command_of(&vectors, answer) else { continue };
        let pem = answer.path.parent().unwrap().parent().unwrap().join("certs/00db1234567890a0-ds.pem");
        let pem = x509_parser::pem::parse_x509_pem(&fs::read(pem).unwrap()).unwrap().1;
        let point = pem.parse_x509().unwrap().public_key().subject_public_key.data.to_vec();
        let expected = Expected::from_command(&command.octets).unwrap();
        let name = answer.path.display();
        let is_alert = answer.expected["craFlag"] == 3;
        let failed = answer.expected["decoded"]["executionOutcome"]["outcomes"]
            .as_array()
            .map(|outcomes| outcomes.iter().any(|outcome| outcome["status"] != 0));
        match (expected.judge(&answer.octets, point.first_chunk().unwrap()), failed) {
            (Verdict::Recovered(_), Some(false)) => seen[0] += 1,
            (Verdict::NotRecovered(_), Some(true)) => seen[1] += 1,
            (Verdict::AcceptedOnly, None) => seen[2] += 1,
            (verdict, _) => panic!("{name}: {verdict:?}"),
        }
        seen[3] += usize::from(is_alert);
    }
    assert!(vectors.is_empty() || seen.iter().all(|count| *count > 0), "{seen:?}");
}
