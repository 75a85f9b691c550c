use serde_json::{Value, json};

use super::super::tests::asked;
use super::super::{GbcsShow, Output, run};
use crate::domain::certificates::pem::certificate_to_pem;
use crate::domain::gbcs::{Template, finish, put_symmetric_key};
use crate::domain::names::{DeviceId, Eui64, PartyId};
use crate::exercise::lab::tests::{Generation, generation, lab};
use crate::exercise::lab::{Lab, Renewal, SoftKey};
use crate::exercise::template::tests::recovery;
use crate::exercise::template::{contingency, template};

/// A Root with a wrapped key that Devices hold, and what replaces it.
struct Bench {
    lab: Lab,
    held: Generation,
    renewal: Renewal,
}

impl Bench {
    fn new() -> Self {
        let (mut lab, held) = (lab(), generation());
        lab.carry(held.wrapped.clone()).unwrap();
        let (recovery, _) = recovery(&lab);
        let renewal = lab.renew(Some(generation().wrapped), &recovery).unwrap();
        Self { lab, held, renewal }
    }

    fn unfilled(template: &Template) -> Vec<u8> {
        let mut octets = Vec::new();
        template.fill(PartyId(Eui64([9; 8])), DeviceId(Eui64([1; 8])), 1, &mut octets).unwrap();
        octets
    }

    fn command(&self, template: &Template, key: &SoftKey) -> Vec<u8> {
        let mut command = put_symmetric_key(&Self::unfilled(template), &self.held.symmetric).unwrap().to_vec();
        let signature = key.sign(&command[1..]).unwrap();
        finish(&mut command, &signature);
        command
    }

    fn right(&self) -> Vec<u8> {
        self.command(&contingency(&self.renewal).unwrap(), &self.held.key)
    }
}

/// Exit status, standard output, standard error.
fn shown(message: &[u8], root: &[u8], show_symmetric_key: bool, output: Output) -> (u8, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("message"), message).unwrap();
    std::fs::write(path("root.pem"), certificate_to_pem(root)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let file = path("message").to_str().unwrap().to_owned();
    let args = GbcsShow { root: Some(path("root.pem")), show_symmetric_key, output, ..asked(file) };
    let status = run(&args, &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn the_right_command_is_verified_with_the_root_held_and_every_step_is_told() {
    let bench = Bench::new();
    let (command, root) = (bench.right(), bench.lab.root_oca().octets());
    let (status, out, err) = shown(&command, root, false, Output::Text);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    for expected in [
        "As a Device sees it that holds the Root OU=00, CN=LR",
        &format!("by aes-256-gcm: the Contingency Public Key, SHA-256 {}", bench.held.key.public().spki_sha256()),
        "signature         verifies under that key",
        "the root is the first replacement",
        "a self-signed Root OCA Certificate, OU=00, CN=LR2",
        "the new root carries a wrapped key of its own, aes-256-gcm",
        "8 other certificates lead to the new root",
        "verified          yes",
    ] {
        assert!(out.contains(expected), "{expected} is not in\n{out}");
    }
    let (_, out, _) = shown(&command, root, false, Output::Json);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&found["root"]["verified"], &found["root"]["sha256"]),
        (&json!(true), &json!(bench.lab.root_oca().sha256()))
    );
    let what: Vec<_> = found["root"]["findings"].as_array().unwrap().iter().map(|finding| &finding["what"]).collect();
    assert_eq!(what, ["unwraps", "signature", "root-first", "new-root", "next-key", "leads-to-new-root"]);
}

#[test]
fn the_symmetric_key_is_shown_only_to_whoever_asks_for_it_and_no_digest_of_it_ever() {
    let bench = Bench::new();
    let (command, root) = (bench.right(), bench.lab.root_oca().octets());
    let key = hex::encode(bench.held.symmetric.octets());
    let digest = crate::domain::names::Digest::of(bench.held.symmetric.octets()).to_string();
    for output in [Output::Text, Output::Json] {
        for asked in [false, true] {
            let (status, out, err) = shown(&command, root, asked, output);
            assert_eq!((status, err.as_str()), (0, ""));
            assert_eq!(out.contains(&key), asked, "{out}");
            assert!(!out.contains(&digest));
        }
    }
}

#[test]
fn a_wrong_root_a_wrong_key_or_a_wrong_signature_is_status_5_and_says_why() {
    #[track_caller]
    fn check(message: &[u8], root: &[u8], expected: &str) {
        for output in [Output::Text, Output::Json] {
            let (status, out, err) = shown(message, root, false, output);
            assert_eq!(status, 5, "{out}");
            assert!(err.contains(expected), "{expected} is not in\n{err}");
            match output {
                Output::Text => assert!(out.contains("verified          NO"), "{out}"),
                Output::Json => assert!(out.contains("\"verified\": false"), "{out}"),
            }
        }
    }
    let bench = Bench::new();
    let approved = contingency(&bench.renewal).unwrap();
    let (command, root) = (bench.right(), bench.lab.root_oca().octets());
    check(&command, lab().root_oca().octets(), "this Root OCA Certificate carries no wrapped Contingency Public Key");
    check(&command, bench.renewal.root_oca().octets(), "this Contingency Symmetric Key does not belong to this Root");
    check(&command, bench.lab.issuing_oca().octets(), "expected a Root OCA Certificate, found that of");
    check(&bench.command(&approved, &SoftKey::generate().unwrap()), root, "does not verify under that key");
    let filled = put_symmetric_key(&Bench::unfilled(&approved), &bench.held.symmetric).unwrap();
    check(&filled, root, "there is none: a pre-command");
    check(&Bench::unfilled(&approved), root, "the place of the Contingency Symmetric Key is empty");
    let (recovery, key) = recovery(&bench.lab);
    let mut by_recovery = Bench::unfilled(&template(&bench.lab, &recovery, bench.lab.after()).unwrap());
    let signature = key.sign(&by_recovery[1..]).unwrap();
    finish(&mut by_recovery, &signature);
    check(&by_recovery, root, "expected a Command of mode anyByContingency, found one of mode");
}

#[test]
fn what_a_device_would_take_and_nobody_should_send_is_status_5_too() {
    let bench = Bench::new();
    let root = bench.lab.root_oca().octets();
    let approved = contingency(&bench.renewal).unwrap();
    let (recovery, _) = recovery(&bench.lab);
    let check = |template: &Template, expected: &str| {
        let (status, out, err) = shown(&bench.command(template, &bench.held.key), root, false, Output::Text);
        assert_eq!(status, 5, "{out}");
        assert!(err.contains(expected) && out.contains("signature         verifies under that key"), "{err}");
    };
    let mut update = approved.update();
    update.replacements.swap(0, 1);
    check(&Template::from_update(&update).unwrap(), "the root is replacement 2: expected it first");
    update.replacements.remove(1);
    check(&Template::from_update(&update).unwrap(), "the root is NOT replaced");
    let bare = bench.lab.renew(None, &recovery).unwrap();
    check(&contingency(&bare).unwrap(), "the new root carries NO wrapped Contingency Public Key");
    let same = bench.lab.renew(Some(bench.held.wrapped.clone()), &recovery).unwrap();
    check(&contingency(&same).unwrap(), "carries the wrapped key of the root held");
    let mut update = approved.update();
    update.replacements[2].certificate = bench.lab.before()[0].octets();
    check(
        &Template::from_update(&update).unwrap(),
        "replacement 3, supplier digitalSignature: does not lead to the new root",
    );
    let mut update = approved.update();
    update.replacements[0].certificate = bench.renewal.issuing_oca().octets();
    check(&Template::from_update(&update).unwrap(), "expected a Root OCA Certificate, found that of");
}

#[test]
fn a_pre_command_with_the_place_of_its_key_empty_is_shown_as_that() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("message");
    std::fs::write(&path, Bench::unfilled(&contingency(&bench.renewal).unwrap())).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(run(&asked(path.to_str().unwrap().to_owned()), &mut out, &mut err), 0);
    let out = String::from_utf8(out).unwrap();
    assert!(out.starts_with("Pre-command, Message Code 0x0109") && out.contains("not in it yet"), "{out}");
}
