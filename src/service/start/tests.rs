use std::fs;

use secrecy::ExposeSecret as _;

use super::*;

#[track_caller]
fn check_pin(octets: &[u8], mode: u32, expected: Result<&str, &str>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pin");
    fs::write(&path, octets).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    match (pin_file(&path), expected) {
        (Ok(pin), Ok(expected)) => assert_eq!(pin.expose_secret(), expected),
        (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
        (found, expected) => panic!("expected {expected:?}, found {:?}", found.map(|_| "a PIN")),
    }
}

#[test]
fn a_pin_file_is_one_line_that_only_its_owner_reads() {
    check_pin(b"1234\n", 0o600, Ok("1234"));
    check_pin(b"1234", 0o400, Ok("1234"));
    check_pin(b" 12 34 ", 0o400, Ok(" 12 34 "));
    check_pin(b"1234\n", 0o640, Err("mode 640"));
    check_pin(b"1234\n", 0o604, Err("mode 604"));
    check_pin(b"", 0o600, Err("1 to 256"));
    check_pin(b"\n", 0o600, Err("1 to 256"));
    check_pin(b"1234\n5678\n", 0o600, Err("one line"));
    check_pin(b"\xff", 0o600, Err("UTF-8"));
    let longest = "7".repeat(PIN_LEN_MAX);
    check_pin(format!("{longest}\n").as_bytes(), 0o600, Ok(&longest));
    check_pin(format!("{longest}7\n").as_bytes(), 0o600, Err("1 to 256"));
    check_pin(format!("{longest}77777").as_bytes(), 0o600, Err("1 to 256"));
}

#[test]
fn a_clock_is_set_in_an_exercise_only_and_a_live_ledger_says_what_to_do() {
    let configuration = |offset_ms: i64| {
        let token = "[[token]]\nname = \"l\"\nmodule = \"/m.so\"\nlabel = \"l\"\nserial = \"1\"";
        let exercise = format!("[exercise]\nclock_offset_ms = {offset_ms}");
        Configuration::parse(&format!("version = 1\n{token}\n[ledger]\ntoken = \"l\"\n{exercise}\n")).unwrap()
    };
    for (purpose, offset_ms, allowed) in [
        (Purpose::Live, 0, true),
        (Purpose::Live, 1, false),
        (Purpose::Live, -1, false),
        (Purpose::Exercise, 0, true),
        (Purpose::Exercise, 1, true),
        (Purpose::Exercise, -1, true),
    ] {
        assert_eq!(check_clock(purpose, &configuration(offset_ms)).is_ok(), allowed, "{purpose} {offset_ms}");
    }
    let error = super::super::StartError::from(check_clock(Purpose::Live, &configuration(-7)).unwrap_err());
    assert_eq!(error.end().status(), 78);
    let said = error.to_string();
    assert!(said.contains("exercise.clock_offset_ms: expected 0") && said.contains("found -7"), "{said}");
    assert!(said.contains("remove [exercise]"), "{said}");
}

#[test]
fn only_a_live_recovery_or_contingency_token_must_not_have_a_stored_pin() {
    let token = |pin: Option<Pin>| configuration::Token {
        name: "token-a".parse().unwrap(),
        module: "/module.so".into(),
        label: "a".into(),
        serial: "1".into(),
        sessions: 1,
        deadline_ms: 1_000,
        environment: std::collections::BTreeMap::new(),
        pin,
    };
    let (ledger, recovery, contingency) = (KeyUse::Ledger, KeyUse::Recovery, KeyUse::Contingency);
    for (purpose, holds, stored, allowed) in [
        (Purpose::Live, vec![ledger], true, true),
        (Purpose::Live, vec![recovery], true, false),
        (Purpose::Live, vec![contingency], true, false),
        (Purpose::Live, vec![ledger, recovery], true, false),
        (Purpose::Live, vec![recovery], false, true),
        (Purpose::Exercise, vec![recovery, contingency], true, true),
    ] {
        for pin in [Pin::File("/pin".into()), Pin::Credential("pin".into())] {
            let token = token(stored.then_some(pin));
            let found = check_pin_source(purpose, &token, holds.clone());
            assert_eq!(found.is_ok(), allowed, "{purpose} {holds:?} {stored}");
        }
    }
}
