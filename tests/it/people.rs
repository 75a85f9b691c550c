//! A PMA member's tools, as they are used: the real `smkictl`, with openssl and SoftHSM as the other side.

use std::fs;

use serde_json::{Value, json};
use smkid::domain::gbcs::Template;
use smkid::domain::names::Digest;

use crate::support::desk::{MEMBERS, Office, copy};
use crate::support::token::{MODULE, PIN, TestToken};

mod refused;
mod warned;

#[test]
fn what_we_sign_verifies_with_plain_openssl_and_two_of_three_are_enough() {
    let office = Office::new();
    let (stem, sha256) = office.draft();
    let show = format!("determination show {stem}.json --policy policy --output json --signature {stem}.anna.p7s");
    office.sign("anna", &stem, &sha256);
    office.scratch.openssl(&format!(
        "cms -verify -binary -inform DER -in {stem}.anna.p7s -content {stem}.json -CAfile ca.pem -purpose any -out /dev/null"
    ));
    let standing = |shown: &Value| shown["signatures"]["standings"][0].clone();
    let one = standing(&office.smkictl(&show).ok().json());
    assert_eq!((&one["approved"], &one["missing"]), (&json!(["anna"]), &json!(1)));
    assert_eq!(one["maySign"], json!(["bert", "cora"]));
    office.sign("bert", &stem, &sha256);
    let two = standing(&office.smkictl(&format!("{show} --signature {stem}.bert.p7s")).ok().json());
    assert_eq!((&two["approved"], &two["quorate"]), (&json!(["anna", "bert"]), &json!(true)));
}

#[test]
fn what_openssl_signs_counts_like_ours() {
    let office = Office::new();
    let (stem, _) = office.draft();
    for member in ["anna", "bert"] {
        office.scratch.openssl(&format!(
            "cms -sign -binary -cades -md sha256 -nosmimecap -in {stem}.json -signer {member}.pem -inkey {member}.key \
             -outform DER -out {stem}.{member}.p7s"
        ));
    }
    let shown = office
        .smkictl(&format!(
            "determination show {stem}.json --policy policy --output json --signature {stem}.anna.p7s --signature {stem}.bert.p7s"
        ))
        .ok()
        .json();
    assert_eq!(shown["signatures"]["standings"][0]["quorate"], true);
}

#[test]
fn the_page_says_everything_and_sha256sum_agrees() {
    let office = Office::new();
    let (stem, sha256) = office.draft();
    let found = Digest::of(&office.scratch.read(&format!("{stem}.json")));
    assert_eq!(found.to_string(), sha256);
    let page = office
        .smkictl(&format!(
            "determination show {stem}.json --devices {stem}.devices.txt --policy policy --compromised compromised.pem"
        ))
        .ok()
        .out;
    for expected in [
        "SHALL be used",
        "(an exercise, not the real thing)",
        "Method 3",
        "anyExceptAbnormalRootByRecovery",
        "into cell supplier keyAgreement prePaymentTopUp",
        "Organisation 90B3D51F30010000, role 02, keyAgreement",
        "path certificate 1 of 1",
        "in London",
        "2 Devices, highest counter known 5, of 00DB1234567890A0",
        "00DB1234567890A0",
        "misuse-seen",
        "| None seen.",
        "WARNINGS (0)",
        &sha256,
    ] {
        assert!(page.contains(expected), "expected {expected:?} in {page}");
    }
    assert!(!page.contains("Not looked at"), "{page}");
    let listed = office.scratch.text(&format!("{stem}.devices.txt"));
    assert_eq!(listed, office.scratch.text("devices.txt"));
}

#[test]
fn a_template_from_a_command_and_one_from_certificates_are_the_same() {
    let office = Office::new();
    let (stem, _) = office.draft();
    let shown = office.smkictl(&format!("determination show {stem}.json --output json")).ok().json();
    let octets = payload(&shown["document"]["templates"][0]);
    let template = Template::parse(&octets).unwrap();
    let mut pre_command = Vec::new();
    template
        .fill("90B3D51F30000002".parse().unwrap(), "00DB1234567890A0".parse().unwrap(), 41, &mut pre_command)
        .unwrap();
    office.scratch.write("pre.bin", &pre_command);
    office.scratch.write("pre.hex", hex::encode(&pre_command));
    office.scratch.write("template.der", &octets);
    for file in ["pre.bin", "pre.hex", "template.der"] {
        office.draft_toml(|text| {
            let end = text.find("path = [").unwrap();
            format!("{}command = \"{file}\"\n", &text[..end])
        });
        let (stem, _) = office.draft();
        let shown = office.smkictl(&format!("determination show {stem}.json --output json")).ok().json();
        assert_eq!(payload(&shown["document"]["templates"][0]), octets, "{file}");
    }
    office.scratch.write("pre.bin", &pre_command[..40]);
    office.draft_toml(|text| {
        let end = text.find("path = [").unwrap();
        format!("{}command = \"pre.bin\"\n", &text[..end])
    });
    office.smkictl("determination draft --from draft.toml --head checkpoint --policy policy").is(1).says("pre.bin");
}

fn payload(template: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(template["payload"].as_str().unwrap()).unwrap()
}

#[test]
fn a_scope_left_open_a_schedule_a_withdrawal_and_a_suspension_are_drafted_signed_and_counted() {
    let office = Office::new();
    let mut scope = String::new();
    office.draft_toml(|text| {
        let limits = text.find("[limits]").unwrap();
        let factors = text.find("[[factor]]").unwrap();
        let templates = text.find("[[template]]").unwrap();
        scope = format!("devices = \"devices.txt\"\n{}{}", &text[limits..factors], &text[templates..]);
        let open = text[..templates].replace(&text[limits..factors], "");
        open.replace("devices = \"devices.txt\"", "schedule = \"later\"")
    });
    let (determination, _) = office.draft();
    let about = format!("determination = \"{determination}.json\"\n");
    office.scratch.write("schedule.toml", format!("{about}proposer = \"operator-1\"\n{scope}"));
    office.scratch.write("withdrawal.toml", format!("{about}proposer = \"operator-1\"\nreason = \"No.\"\n"));
    office.scratch.write("suspension.toml", format!("{about}member = \"anna\"\nhours = 5\nreason = \"Wait.\"\n"));
    for (kind, needed) in [("schedule", 2), ("withdrawal", 2), ("suspension", 1)] {
        let (stem, sha256) = office.draft_of(kind, &format!("{kind}.toml"));
        assert!(stem.starts_with(&format!("{determination}-{kind}")), "{stem}");
        let standing = |signatures: &str| {
            let show = format!("determination show {stem}.json --policy policy --output json {signatures}");
            office.smkictl(&show).ok().json()["signatures"]["standings"][0].clone()
        };
        assert_eq!(standing("")["missing"], needed, "{kind}");
        office.sign("anna", &stem, &sha256);
        assert_eq!(standing(&format!("--signature {stem}.anna.p7s"))["missing"], needed - 1, "{kind}");
    }
    let sign = format!(
        "determination sign {determination}-suspension-anna.json --policy policy --key bert.key --certificate bert.pem \
         --confirm {}",
        Digest::of(&office.scratch.read(&format!("{determination}-suspension-anna.json")))
    );
    office.smkictl(&sign).is(4).says("the suspension is by anna, not by bert");
}

#[test]
fn suspend_and_withdraw_draft_what_draft_of_their_type_drafts() {
    let office = Office::new();
    let (determination, _) = office.draft();
    let seen = "--head checkpoint --policy policy --output json";
    let about = format!("determination = \"{determination}.json\"\n");
    office.scratch.write("withdrawal.toml", format!("{about}proposer = \"operator-1\"\nreason = \"No.\"\n"));
    office.scratch.write("suspension.toml", format!("{about}member = \"anna\"\nhours = 5\nreason = \"Wait.\"\n"));
    for (kind, command, ending, needed) in [
        ("suspension", "suspend", "--member anna --hours 5 --reason Wait.", 1),
        ("withdrawal", "withdraw", "--proposer operator-1 --reason No.", 2),
    ] {
        let (drafted, _) = office.draft_of(kind, &format!("{kind}.toml"));
        let expected = office.scratch.read(&format!("{drafted}.json"));
        fs::remove_file(office.scratch.path(&format!("{drafted}.json"))).unwrap();
        let answer =
            office.smkictl(&format!("determination {command} {determination}.json {ending} {seen}")).ok().json();
        let file = answer["document"].as_str().unwrap();
        assert_eq!(file, format!("./{drafted}.json"), "{kind}");
        assert_eq!(office.scratch.read(file), expected, "{kind}");
        // And on: signed and counted.
        office.sign("anna", &drafted, answer["sha256"].as_str().unwrap());
        let show = format!("determination show {file} --policy policy --output json --signature {drafted}.anna.p7s");
        assert_eq!(office.smkictl(&show).ok().json()["signatures"]["standings"][0]["missing"], needed - 1, "{kind}");
        // Nothing is overwritten, and only a determination is suspended or withdrawn.
        office.smkictl(&format!("determination {command} {determination}.json {ending} {seen}")).is(1).says("exists");
        office
            .smkictl(&format!("determination {command} {file} {ending} {seen}"))
            .is(1)
            .says("expected the determination");
        office.smkictl(&format!("determination {command} {determination}.json {seen}")).is(2).says("required");
        // By its id, the daemon is asked, and there is none.
        office.smkictl(&format!("--socket ./none determination {command} {determination} {ending} {seen}")).is(3);
    }
}

#[test]
fn a_policy_is_checked_and_its_adoption_drafted_and_signed_by_everyone() {
    let office = Office::new();
    let checked = office.smkictl("policy check policy").ok().out;
    for expected in ["2 of 3 PMA members", "2 Key Custodians of at least 2 Parties", "WARNINGS (0)", "digest"] {
        assert!(checked.contains(expected), "expected {expected:?} in {checked}");
    }
    let answer = office.smkictl("policy draft policy --first --output json").ok().json();
    let sha256 = answer["sha256"].as_str().unwrap();
    let show = "determination show policy-1.json --policy policy --output json";
    let mut given = String::new();
    for member in MEMBERS {
        let show = office.smkictl(&format!("{show}{given}")).ok().json();
        assert_eq!(show["signatures"]["standings"][0]["quorate"], false, "without {member}");
        office.sign(member, "policy-1", sha256);
        given = format!("{given} --signature policy-1.{member}.p7s");
    }
    assert_eq!(office.smkictl(&format!("{show}{given}")).ok().json()["signatures"]["standings"][0]["quorate"], true);

    // The next one, under the daemon's status.
    let digest = office.smkictl("policy check policy --output json").ok().json()["sha256"].clone();
    let status = json!({
        "origin": "smkid.example/ledger", "purpose": "exercise", "policy": { "sequence": 1, "sha256": digest },
        "ledger": { "size": 9, "root": Digest([7; 32]) }, "version": "ignored",
    });
    office.scratch.write("status.json", status.to_string());
    fs::rename(office.scratch.path("policy"), office.scratch.path("old")).unwrap();
    copy(&office.scratch.path("old"), &office.scratch.path("new"));
    let text = office.scratch.text("new/policy.toml").replace("suspension_hours_max = 72", "suspension_hours_max = 24");
    office.scratch.write("new/policy.toml", text);
    office.smkictl("policy draft new --head status.json --predecessor old").ok();
    let next = "determination show policy-2.json --policy new --predecessor old --output json";
    let standings = office.smkictl(next).ok().json()["signatures"]["standings"].clone();
    assert_eq!((&standings[0]["missing"], &standings[1]["missing"]), (&json!(2), &json!(2)));
    office.smkictl("policy draft new --head status.json --predecessor new --out /tmp").is(1).says("predecessor");

    office.scratch.write("new/keys.toml", "version = 1\nunknown = 2\n");
    let refused = office.smkictl("policy check new").is(4).out;
    assert!(refused.contains("NOT a policy") && refused.contains("keys.toml line 2"), "{refused}");
}

#[test]
fn a_smart_card_signs_with_its_own_certificate_and_with_one_from_a_file() {
    let office = Office::new();
    let token = TestToken::new("card of anna");
    let key = office.scratch.path("anna.key");
    let certificate = office.scratch.path("anna.pem");
    let der = |name: &str| office.scratch.path(name).display().to_string();
    office.scratch.openssl("pkcs8 -topk8 -nocrypt -in anna.key -out anna.p8");
    office.scratch.openssl("x509 -in anna.pem -outform DER -out anna.crt");
    token.run(
        "softhsm2-util",
        &["--import", &der("anna.p8"), "--token", "card of anna", "--label", "sign", "--id", "01", "--pin", PIN],
    );
    token.run(
        "pkcs11-tool",
        &[
            "--module",
            MODULE,
            "--login",
            "--pin",
            PIN,
            "--write-object",
            &der("anna.crt"),
            "--type",
            "cert",
            "--id",
            "01",
        ],
    );
    assert!(key.exists() && certificate.exists());
    office.scratch.write("pin", format!("{PIN}\n"));
    let (stem, sha256) = office.draft();
    let sign = |more: &str| {
        // The label has blanks, which our helper splits at; so arguments are given one by one.
        let mut command = token.command(env!("CARGO_BIN_EXE_smkictl"));
        command.current_dir(office.scratch.path("."));
        command.args(["determination", "sign", &format!("{stem}.json"), "--pkcs11-module", MODULE]);
        command.args(["--token", "card of anna", "--pin-file", "pin", "--confirm", &sha256]);
        let output = command.args(more.split_whitespace()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(sign("--policy policy").0, 0, "{}", sign("--policy policy --out again").1);
    assert_eq!(sign("--certificate anna.pem --key-id 01 --out from-file.p7s").0, 0);
    for p7s in [format!("{stem}.anna.p7s"), "from-file.p7s".to_owned()] {
        office.scratch.openssl(&format!(
            "cms -verify -binary -inform DER -in {p7s} -content {stem}.json -CAfile ca.pem -purpose any -out /dev/null"
        ));
    }
    for (more, expected) in [
        ("--certificate bert.pem --out x", "found one by another key"),
        ("--key-label other --out x", "expected one private key with label \"other\", found 0"),
        ("--serial 123 --out x", "serial number \"123\", found 0"),
        ("--key-id 1 --out x", "--key-id: expected hexadecimal digits in pairs"),
    ] {
        let (status, said) = sign(more);
        assert_eq!(status, 1, "{more}: {said}");
        assert!(said.contains(expected), "{more}: expected {expected:?} in {said}");
    }
    office.scratch.write("pin", "wrong-pin-0000");
    let (status, said) = sign("--out x");
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("the token refused the PIN (CKR_PIN_INCORRECT); it was tried once"), "{said}");
    assert!(!office.scratch.path("x").exists());
}

#[test]
fn a_card_driven_by_openssl_counts_too() {
    let office = Office::new();
    let token = TestToken::new("bert");
    office.scratch.openssl("pkcs8 -topk8 -nocrypt -in bert.key -out bert.p8");
    let p8 = office.scratch.path("bert.p8").display().to_string();
    token.run("softhsm2-util", &["--import", &p8, "--token", "bert", "--label", "sign", "--id", "02", "--pin", PIN]);
    let (stem, _) = office.draft();
    let uri = format!("pkcs11:token=bert;id=%02;type=private;pin-value={PIN}");
    let mut command = token.command("openssl");
    command.env("PKCS11_MODULE_PATH", MODULE).current_dir(office.scratch.path("."));
    command.args(["cms", "-sign", "-binary", "-cades", "-md", "sha256", "-nosmimecap", "-in", &format!("{stem}.json")]);
    command.args(["-signer", "bert.pem", "-engine", "pkcs11", "-keyform", "engine", "-inkey", &uri]);
    command.args(["-outform", "DER", "-out", "bert.p7s"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let show = format!("determination show {stem}.json --policy policy --output json --signature bert.p7s");
    let shown = office.smkictl(&show).ok().json();
    assert_eq!(shown["signatures"]["standings"][0]["approved"], json!(["bert"]));
}

#[test]
fn each_sample_is_what_is_read() {
    let office = Office::new();
    for (kind, missing) in [
        ("determination", "compromised.pem.sample"),
        ("schedule", "00112233445566778899aabbccddeeff.json"),
        ("withdrawal", "00112233445566778899aabbccddeeff.json"),
        ("suspension", "00112233445566778899aabbccddeeff.json"),
    ] {
        let sample = office.smkictl(&format!("determination draft --type {kind} --sample")).ok().out;
        office.scratch.write("sample.toml", sample.replace("compromised.pem", "compromised.pem.sample"));
        let draft = format!("determination draft --type {kind} --from sample.toml --head checkpoint --policy policy");
        // It is read to its end, and fails only for the files that it names.
        office.smkictl(&draft).is(1).says(&format!("{missing}: cannot be read"));
    }
}
