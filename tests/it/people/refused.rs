//! What is not signed, and texts that would act on whoever reads them.

use std::io;

use secrecy::SecretString;
use smkid::cli::member::show::Beside;
use smkid::cli::member::sign::Sign;
use smkid::cli::member::{Ask, Determination, Seat};
use smkid::domain::determination::words::Words;
use smkid::domain::names::Digest;
use smkid::wall_clock::wall_clock as now;

use crate::support::desk::Office;

#[test]
fn nothing_is_signed_with_a_wrong_pair_an_expired_certificate_or_for_another_document() {
    let office = Office::new();
    let (stem, sha256) = office.draft();
    let sign = |more: &str| office.smkictl(&format!("determination sign {stem}.json --member anna {more}"));
    let anna = "--key anna.key --certificate anna.pem";
    let confirm = format!("--confirm {sha256}");
    sign(&format!("--key anna.key --certificate bert.pem {confirm}")).is(1).says("is it the right pair of files?");
    sign(&format!("{anna} --confirm {}", Digest([1; 32]))).is(5).says("expected the document's SHA-256 to be 0101");
    sign(anna).is(1).says("nobody is at the terminal to confirm it");
    sign(&format!("--key nothing.key --certificate anna.pem {confirm}")).is(1).says("nothing.key: cannot be read");
    sign(&format!("--key anna.pem --certificate anna.pem {confirm}")).is(1).says("private key");
    office.person("eve", "ec -pkeyopt ec_paramgen_curve:P-256", "-days -1");
    sign(&format!("--key eve.key --certificate eve.pem {confirm}")).is(1).says("is valid from");
    office.person("p384", "ec -pkeyopt ec_paramgen_curve:P-384", "-days 9");
    sign(&format!("--key p384.key --certificate p384.pem {confirm}")).is(1).says("P-256");
    assert!(!office.scratch.path(&format!("{stem}.anna.p7s")).exists(), "nothing was written so far");
    sign(&format!("{anna} {confirm}")).is(0);
    let before = office.scratch.read(&format!("{stem}.anna.p7s"));
    sign(&format!("{anna} {confirm}")).is(1).says("exists already and is not overwritten");
    assert_eq!(office.scratch.read(&format!("{stem}.anna.p7s")), before);
}

#[test]
fn whom_the_policy_does_not_count_is_told_before_signing() {
    let office = Office::new();
    let (stem, sha256) = office.draft();
    let sign = |who: &str, more: &str| {
        office.smkictl(&format!(
            "determination sign {stem}.json --policy policy --key {who}.key --certificate {who}.pem --confirm {sha256} {more}"
        ))
    };
    sign("dora", "--member anna").is(4).says("the policy does not know the key of");
    sign("bert", "--member anna").is(4).says("this key is of bert, not of anna");
    sign("bert", "").is(0);
    assert!(office.scratch.path(&format!("{stem}.bert.p7s")).exists(), "the policy says who it is");
    office.draft_toml(|text| text.replace("operator-1", "cora"));
    let (stem, sha256) = office.draft();
    office
        .smkictl(&format!(
            "determination sign {stem}.json --policy policy --key cora.key --certificate cora.pem --confirm {sha256}"
        ))
        .is(4)
        .says("cora proposed this document, and may not approve it");
}

#[test]
fn a_list_or_a_signature_of_another_document_is_a_failed_verification() {
    let office = Office::new();
    let (stem, sha256) = office.draft();
    office.scratch.write("devices.txt", "00DB1234567890A0,single,6\n00DB1234567890A1,single\n");
    let show = |more: &str| office.smkictl(&format!("determination show {stem}.json --policy policy {more}"));
    show("--devices devices.txt").is(5).says("not a device list for this document");
    office.scratch.write("devices.txt", "00DB1234567890A1,single\n00DB1234567890A0,single\n");
    show("--devices devices.txt").is(5).says("line 2: expected a Device above");
    office
        .smkictl("determination draft --from draft.toml --head checkpoint --policy policy")
        .is(5)
        .says("sort the list");
    office.sign("anna", &stem, &sha256);
    office.scratch.write("devices.txt", "00DB1234567890A0,single\n00DB1234567890A1,single\n");
    let (other, _) = office.draft();
    let wrong = office.smkictl(&format!("determination show {other}.json --policy policy --signature {stem}.anna.p7s"));
    let wrong = wrong.is(5).out;
    assert!(wrong.contains("NOT VALID") && wrong.contains("is it the same file, octet for octet?"), "{wrong}");
    office.smkictl(&format!(
        "determination sign {stem}.json --key dora.key --certificate dora.pem --member dora --confirm {sha256}"
    ));
    let stranger = show(&format!("--signature {stem}.dora.p7s")).is(0).out;
    assert!(stranger.contains("nobody that a policy given names") && stranger.contains("NOT COUNTED"), "{stranger}");
}

#[test]
fn texts_of_a_document_cannot_act_on_a_terminal_or_pass_for_lines_of_ours() {
    let office = Office::new();
    let comment = r#"comment = "None seen.\nWARNINGS (0)\n  None.\nSigned by everyone аnna \u061c\u00ad""#;
    office.draft_toml(|text| text.replace("comment = \"None seen.\"", comment));
    let (stem, _) = office.draft();
    let page = office.smkictl(&format!("determination show {stem}.json")).ok().out;
    for line in page.lines().filter(|line| line.contains("Signed by everyone") || line.contains("None.")) {
        assert!(line.starts_with("    | ") || line == "  None.", "{line:?}");
    }
    assert!(page.contains("\\u{0430}nna \\u{061c}\\u{00ad}"), "{page}");
    assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "{page:?}");
    let shown = office.smkictl(&format!("determination show {stem}.json --output json")).ok();
    assert!(shown.out.is_ascii(), "{}", shown.out);

    // What cannot be read is quoted in the error, and acts there as little.
    for (name, document) in [
        ("escape", "{\"type\": \"smkid-\\u001b[2J\\u202edetermination/v1\"}".to_owned()),
        ("key", "{\"type\": \"smkid-determination/v1\", \"\\u001b[2J\": 1}".to_owned()),
        ("raw", "{\"type\": \"\u{9b}2J\u{202e}\"}".to_owned()),
    ] {
        office.scratch.write(name, document);
        let refused = office.smkictl(&format!("determination show {name}")).is(1);
        assert!(refused.err.contains("not a document that can be signed"), "{}", refused.err);
        assert!(refused.err.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')), "{:?}", refused.err);
    }
}

#[test]
fn descriptions_that_contradict_themselves_are_refused_and_leave_nothing() {
    let office = Office::new();
    let check = |from: &str, to: &str, expected: &str| {
        office.draft_toml(|text| {
            assert!(text.contains(from), "{from:?}");
            text.replacen(from, to, 1)
        });
        let draft = "determination draft --from draft.toml --head checkpoint --policy policy --out out";
        std::fs::create_dir_all(office.scratch.path("out")).unwrap();
        office.smkictl(draft).is(1).says(expected);
        assert_eq!(std::fs::read_dir(office.scratch.path("out")).unwrap().count(), 0, "{expected}");
    };
    check(
        "incident = \"INC-1\"",
        "incident = \"INC-1\"\npurpose = \"live\"",
        "purpose: expected one value, found live",
    );
    check("intents = 2", "intents = 3", "limits.intents");
    check("[limits]", "[limit]", "unknown field `limit`");
    check("devices = \"devices.txt\"\n", "", "devices: expected devices, limits and template together");
    check("decision = \"execute\"", "decision = \"not-execute\"", "expected none, because the decision is not-execute");
    check("path = [", "command = \"x\"\npath = [", "expected `command` alone");
    check("supplier digitalSignature", "supplier signing", "expected digitalSignature, keyAgreement or keyCertSign");
    check("compromised = \"compromised.pem\"", "compromised = \"issuing.pem\"", "expected an Organisation Certificate");
    check("certificate = \"recovery.pem\"", "", "key: expected in certificate or spki_sha256; found nowhere");
    let keyed = "determination draft --from draft.toml --head checkpoint --ledger-key anna.pub --policy policy";
    office.scratch.openssl("x509 -in anna.pem -noout -pubkey -out anna.pub");
    office.draft_toml(|text| text);
    office.smkictl(keyed).is(1).says("checkpoint");
}

/// Somebody who types what they are told to.
struct Scripted(String);

impl Ask for Scripted {
    fn is_there(&self) -> bool {
        true
    }
    fn line(&mut self, _: &str) -> io::Result<String> {
        Ok(self.0.clone())
    }
    fn secret(&mut self, _: &str) -> io::Result<SecretString> {
        Ok(SecretString::from("passphrase".to_owned()))
    }
}

#[test]
fn a_person_types_the_first_words_of_what_they_were_shown() {
    let office = Office::new();
    let (stem, sha256) = office.draft();
    let digest: Digest = sha256.parse().unwrap();
    office.scratch.openssl("pkcs8 -topk8 -v2 aes-256-cbc -passout pass:passphrase -in anna.key -out anna.enc");
    let sign = |typed: &str, out: &str| {
        let args = Sign {
            file: office.scratch.path(&format!("{stem}.json")),
            beside: Beside::default(),
            key: Some(office.scratch.path("anna.enc")),
            passphrase_file: None,
            certificate: Some(office.scratch.path("anna.pem")),
            chain: Some(office.scratch.path("ca.pem")),
            pkcs11_module: None,
            token: None,
            serial: None,
            key_label: None,
            key_id: None,
            pin_file: None,
            member: None,
            out: Some(office.scratch.path(out)),
            confirm: None,
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut desk = Seat {
            out: &mut stdout,
            err: &mut stderr,
            ask: &mut Scripted(typed.to_owned()),
            now: now(),
            json: false,
            daemon: None,
        };
        let exit = Determination::Sign(Box::new(args)).run(&mut desk);
        (exit.status(), String::from_utf8(stderr).unwrap())
    };
    let words: Vec<&str> = Words(digest).iter().take(3).collect();
    for typed in ["", "yes", words[0], &words.join(" "), &format!("{} {}", words[1], words[0])] {
        if typed == format!("{} {}", words[0], words[1]) {
            continue; // Both words alike, once in 256 documents.
        }
        let (status, said) = sign(typed, "no.p7s");
        assert_eq!(status, 5, "{typed:?}: {said}");
        assert!(said.contains("WARNINGS (0)"), "the page was shown first: {said}");
        assert!(!office.scratch.path("no.p7s").exists());
    }
    let (status, said) = sign(&format!(" {}  {}\n", words[0].to_uppercase(), words[1]), "yes.p7s");
    assert_eq!(status, 0, "{said}");
    office.scratch.openssl(&format!(
        "cms -verify -binary -inform DER -in yes.p7s -content {stem}.json -CAfile ca.pem -purpose any -out /dev/null"
    ));
}
