//! A plan with a contingency key that may sign: its material has its names beforehand, is made, waits for the Root OCA Certificate, and
//! stands in the minutes.

use secrecy::SecretString;
use smkid::domain::certificates::apex::WrappedApexKey;
use smkid::domain::ledger::entry::Event;
use smkid::domain::names::KeyId;
use smkid::hsm::{Expectations, PinSource, Token};

use super::{Stage, line, unfolded};
use crate::support::token::SO_PIN;

/// What a run of that plan is given besides.
const MORE: &str = "--pin-file smki-c=smki.pin --so-pin-file smki-c=so.pin";

#[test]
fn a_plan_with_a_contingency_key_makes_a_generation_and_waits_for_its_root() {
    let (stage, token) = Stage::with_contingency();
    let stage = stage.with_plan();
    let plan = stage.scratch.text("plan.toml");
    let planned =
        |name: &str| -> KeyId { line(&plan, name).rsplit(' ').next().unwrap().trim_matches('"').parse().unwrap() };
    let ids = [planned("symmetric_id = "), planned("wrapping_id = ")];
    // A plan without names for what it makes, with one name for two, or with such names for another key, is no plan.
    for (from, to, said) in [
        (line(&plan, "wrapping_id = "), "", "expected `symmetric_id` and `wrapping_id`"),
        (line(&plan, "root = "), "", "and `root`, where the Root OCA Certificate"),
        (
            line(&plan, "wrapping_id = "),
            &*line(&plan, "symmetric_id = ").replace("symmetric", "wrapping"),
            "is that of contingency-1",
        ),
        ("certificate = ", "root = \"root.pem\"\ncertificate = ", "are for a contingency key that this ceremony makes"),
    ] {
        stage.scratch.write("edited.toml", plan.replacen(from, to, 1));
        stage.expect(1, said, "check edited.toml");
    }
    stage.expect(0, "its Contingency Symmetric Key, CKA_ID", "check plan.toml");

    stage.unattended(6, "0 signatures lie there", MORE);
    stage.sign_adoption("ceremony");
    // Somebody who read the plan was there before.
    let officer = || {
        let officer = PinSource::Officer(SecretString::from(SO_PIN));
        Token::start(token.config(1), officer, Expectations::default()).unwrap().0
    };
    let early = officer();
    early.make_wrapping("contingency-1".parse().unwrap(), ids[1]).wait().unwrap();
    early.shutdown();
    stage.unattended(5, "nobody began to make it at this ceremony", MORE);
    Stage::pkcs11_tool(&token, "--delete-object --type secrkey --label contingency-1-wrapping");
    let said = stage.unattended(6, "contingency-1-root-oca.pem: nothing lies there yet", MORE);
    assert!(said.contains("marks it as trusted"), "{said}");
    let [prepared] = &stage.prepared()[..] else { panic!("one was to be made") };
    assert_eq!([prepared.symmetric, prepared.wrapping], ids);

    // Another Root OCA Certificate is refused, and waited on; then the right one lies there.
    stage.lay_certificates();
    let field = WrappedApexKey::from_der(&stage.scratch.read("ceremony/contingency-1.wrapped-apex.der")).unwrap();
    stage.write_root("certificates/contingency-1-root-oca.pem", None);
    stage.unattended(6, "the Root OCA Certificate is refused", MORE);
    let root = stage.write_root("certificates/contingency-1-root-oca.pem", Some(&field));
    stage.unattended(0, "Next: print the minutes", MORE);
    let events = stage.events();
    assert!(
        events.iter().any(|event| matches!(event, Event::RootImported(imported) if imported.root == root)),
        "{events:?}"
    );
    let minutes = unfolded(&stage.minutes());
    for said in [
        "The Contingency Symmetric Key of contingency-1 is made".to_owned(),
        format!("256 bits, CKA_ID {}", ids[0]),
        "trusted, which alone wraps it (CKA_WRAP_WITH_TRUSTED, tried)".to_owned(),
        format!("aes-256-gcm, SHA-256 {}", prepared.extension),
        "The Root OCA Certificate that carries key contingency-1 is recorded".to_owned(),
        root.to_string(),
    ] {
        assert!(minutes.contains(&said), "expected {said:?} in {minutes}");
    }
}

#[test]
fn a_rehearsal_makes_a_generation_on_its_scratch_token() {
    let (stage, token) = Stage::with_contingency();
    let stage = stage.with_plan();
    stage.unattended(6, "REHEARSAL", "--dry-run");
    stage.sign_adoption("ceremony.rehearsal/out");
    stage.unattended(0, "The scratch tokens are destroyed", "--dry-run");
    let minutes = unfolded(&stage.scratch.text("ceremony/minutes-of-rehearsal.txt"));
    assert!(minutes.contains("passed over: no Root OCA Certificate carries a scratch key"), "{minutes}");
    assert!(minutes.contains("wraps it (CKA_WRAP_WITH_TRUSTED, tried)"), "{minutes}");
    assert!(!Stage::pkcs11_tool(&token, "--list-objects").contains("contingency-1"), "the real token was not touched");
}
