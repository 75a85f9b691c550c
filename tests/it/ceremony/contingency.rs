//! What makes a contingency key a generation: its symmetric key and the field for the Root OCA Certificate, made at the ceremony; and
//! that certificate, taken in.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use smkid::domain::certificates::apex::{WrapAlgorithm, WrapParameters, WrappedApexKey};
use smkid::domain::certificates::bodies::Template;
use smkid::domain::certificates::pem;
use smkid::domain::ledger::contingency::{Compared, ContingencyPrepared, RootImported};
use smkid::domain::ledger::entry::Event;
use smkid::domain::names::Digest;

use super::Stage;
use crate::lab::{Key, VALIDITY, issue_octets};
use crate::support::token::{PIN, SO_PIN, TestToken};

/// With the PINs of the tokens, but for that of the security officer.
const TOKENS: &str = "--config smkid.toml --pin-file smki-a=smki.pin --pin-file smki-c=smki.pin";
/// Of the security officer.
const OFFICER: &str = "--so-pin-file smki-c=so.pin";

/// What the policy says of a contingency key that may sign, on a token of its own.
pub const CONTINGENCY: &str = r#"
[[token]]
name = "smki-c"

[[key]]
label = "contingency-1"
use = "contingency"
token = "smki-c"
modes = [9]
originator = "90B3D51F30000003"
activation = "stored"
"#;

impl Stage {
    /// With a contingency key in the policy, on a third token.
    pub fn with_contingency() -> (Self, TestToken) {
        let (stage, token) = (Self::new(), TestToken::new("contingency token"));
        let keys = stage.scratch.text("policy/keys.toml");
        stage.scratch.write("policy/keys.toml", keys + CONTINGENCY);
        for (name, pin) in [("so.pin", SO_PIN), ("wrong.pin", PIN)] {
            stage.scratch.write(name, format!("{pin}\n"));
            fs::set_permissions(stage.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        stage.configure_third(None, &token);
        (stage, token)
    }

    /// The configuration, with that token besides; `fault` is what goes wrong with its module.
    pub fn configure_third(&self, fault: Option<&str>, token: &TestToken) {
        self.configure("");
        let config = fault.map_or_else(|| token.config(1), |script| token.failing(1, script));
        let mut environment = String::new();
        for (name, value) in &config.environment {
            writeln!(environment, "{} = \"{}\"", name.display(), value.display()).unwrap();
        }
        let more = format!(
            "\n[[token]]\nname = \"smki-c\"\nmodule = \"{}\"\nlabel = \"{}\"\nserial = \"{}\"\ndeadline_ms = 10000\n\
             [token.environment]\n{environment}",
            config.module.display(),
            token.label,
            token.serial,
        );
        self.scratch.write("smkid.toml", self.scratch.text("smkid.toml") + &more);
    }

    /// A Root OCA Certificate that carries this field, or none; signed with its own key.
    pub fn write_root(&self, name: &str, field: Option<&WrappedApexKey>) -> Digest {
        let template = Template::RootOca { common_name: "ZA2".into(), contingency: field.cloned() };
        let octets = issue_octets(&template, &Key::generate(), None, VALIDITY);
        self.scratch.write_certificate(name, &octets);
        Digest::of(&octets)
    }

    /// What the ledger says of the material.
    pub fn prepared(&self) -> Vec<ContingencyPrepared> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| if let Event::ContingencyPrepared(found) = event { Some(found) } else { None })
            .collect()
    }
}

#[test]
fn a_contingency_key_gets_its_symmetric_key_and_the_root_that_carries_it_is_taken_in() {
    let (stage, token) = Stage::with_contingency();
    stage.expect(0, "contingency-1", &format!("keys {TOKENS} --policy policy --out keys"));
    stage.adoption();
    let begin = Stage::begin().replace(super::TOKENS, TOKENS);
    stage.expect(0, "Key contingency-1 is to sign: `smkictl ceremony contingency --key contingency-1", &begin);
    let make = |more: &str| format!("contingency {TOKENS} --key contingency-1 --out keys {more}");
    let import = |root: &str, more: &str| format!("import-root {TOKENS} --key contingency-1 --root {root} {more}");

    // Of another key there is none, and no root before there is a field.
    stage.expect(1, "expected a contingency key", &make(OFFICER).replace("contingency-1", "recovery-1"));
    stage.write_root("bare.pem", None);
    stage.expect(4, "has no contingency material; a ceremony makes it first", &import("bare.pem", ""));
    // A dry run, nobody to ask, and the user's PIN for the officer's: nothing is made.
    stage.expect(0, "Nothing was made", &make("--dry-run"));
    stage.expect(1, "PIN of the security officer", &make(""));
    let said = stage.expect(3, "as its security officer", &make("--so-pin-file smki-c=wrong.pin"));
    assert!(said.contains("CKR_PIN_INCORRECT"), "{said}");
    assert_eq!(Stage::pkcs11_tool(&token, "--list-objects --type secrkey"), "");
    assert!(stage.prepared().is_empty());

    // It is cut off once all is made, before it is recorded: done again, what stands is taken.
    stage.configure_third(Some("C_Encrypt * kill"), &token);
    stage.expect(3, "the worker ended", &make(OFFICER));
    assert!(stage.prepared().is_empty());
    stage.configure_third(None, &token);
    let said = stage.expect(0, "Next: hand both files to the Root OCA's operator", &make(OFFICER));
    assert!(said.contains("Found: the wrapping key and the Contingency Symmetric Key"), "{said}");
    let prepared = stage.prepared();
    let [prepared] = prepared.as_slice() else { panic!("{prepared:?}") };
    assert_eq!((prepared.bits, prepared.wrap_with_trusted, &*prepared.algorithm), (256, true, "aes-256-gcm"));
    let listed = Stage::pkcs11_tool(&token, "--list-objects --type secrkey");
    for named in ["contingency-1-symmetric", "contingency-1-wrapping"] {
        assert_eq!(listed.matches(named).count(), 1, "{listed}");
    }
    for id in [prepared.symmetric, prepared.wrapping] {
        assert!(listed.contains(&id.to_string()), "{listed}");
        assert!(stage.scratch.text("keys/contingency-1.contingency.json").contains(&id.to_string()));
    }
    // The operator's files are the field, and say so.
    let der = stage.scratch.read("keys/contingency-1.wrapped-apex.der");
    let text = stage.scratch.text("keys/contingency-1.wrapped-apex.txt");
    let field = WrappedApexKey::from_der(&der).unwrap();
    assert_eq!((Digest::of(&der), field.algorithm()), (prepared.extension, WrapAlgorithm::Aes256Gcm));
    let lines: String = text.lines().filter(|line| hex::decode(line.trim()).is_ok()).map(str::trim).collect();
    assert!(lines.contains(&hex::encode(&der)), "{text}");
    for said in ["1.3.6.1.5.5.7.1.20", "What to do", &prepared.extension.to_string()] {
        assert!(text.contains(said), "{said} in {text}");
    }
    // Once more: it is found, and nothing is made anew.
    stage.expect(0, "Found: the contingency material, recorded", &make(""));
    assert_eq!(stage.prepared().len(), 1);
    assert_eq!(stage.scratch.read("keys/contingency-1.wrapped-apex.der"), der);

    // A wrapping key that was destroyed by whoever reaches the token, without a PIN, is made anew by the security officer alone.
    token.pkcs11_tool(&[
        "--token-label",
        &token.label,
        "--delete-object",
        "--type",
        "secrkey",
        "--label",
        "contingency-1-wrapping",
    ]);
    stage.expect(1, "PIN of the security officer", &make(""));
    stage.expect(0, "was made anew", &make(OFFICER));
    assert_eq!((stage.prepared().len(), stage.scratch.read("keys/contingency-1.wrapped-apex.der") == der), (1, true));

    // The root that carries it, and others.
    stage.expect(4, "has no WrappedApexContingencyKey field", &import("bare.pem", ""));
    let WrapParameters::Gcm { nonce, icv_len } = field.parameters() else { panic!("{field:?}") };
    let mut other = nonce;
    other[0] ^= 1;
    let parameters = WrapParameters::Gcm { nonce: other, icv_len };
    let altered = WrappedApexKey::new(field.algorithm(), parameters, field.wrapped().to_vec()).unwrap();
    stage.write_root("other.pem", Some(&altered));
    stage.expect(4, "is not the one that was made for key contingency-1", &import("other.pem", ""));
    let root = stage.write_root("root.pem", Some(&field));
    stage.expect(0, "Nothing was recorded", &import("root.pem", "--dry-run"));
    let events = stage.events();
    assert!(!events.iter().any(|event| matches!(event, Event::RootImported(_))), "{events:?}");
    stage.expect(0, "can be determined on", &import("root.pem", ""));
    let Some(Event::RootImported(RootImported { key, root: recorded, compared })) = stage.events().pop() else {
        panic!()
    };
    assert_eq!((key.as_str(), recorded, compared), ("contingency-1", root, Compared::InToken));
    stage.expect(4, "has its Root OCA Certificate already", &import("root.pem", ""));
    let certificate = pem::certificate(&stage.scratch.text("root.pem")).unwrap();
    assert_eq!(WrappedApexKey::of_certificate(&certificate).unwrap(), Some(field));
}

#[test]
fn a_live_ceremony_takes_no_officers_pin_from_a_file() {
    let (stage, _token) = Stage::with_contingency();
    super::set_purpose(&stage.path("policy"), "live");
    let keys = stage.scratch.text("policy/keys.toml");
    stage.scratch.write("policy/keys.toml", keys.replace(CONTINGENCY, ""));
    stage.expect(
        4,
        "--pin-file is for exercises",
        &format!("keys --config smkid.toml {OFFICER} --policy policy --out keys"),
    );
}
