use std::collections::BTreeMap;

use super::*;
use crate::domain::ledger::entry::KeyRecord;
use crate::domain::names::KeyId;
use crate::domain::policy::tests::{changed, example, policy};

const MEANS: &str = "The maker's domain cloning, at the ceremony";
const SPKI: Digest = Digest([1; 32]);

fn facts(use_: KeyUse, copies: &[(&str, &str)]) -> KeyFacts {
    let label = if use_ == KeyUse::Ledger { "ledger-1" } else { "recovery-1" };
    let token = if use_ == KeyUse::Ledger { "ledger-a" } else { "smki-a" };
    let record = KeyRecord {
        label: label.parse().unwrap(),
        use_,
        token: token.parse().unwrap(),
        serial: "0001".into(),
        id: KeyId([7; 16]),
        spki_sha256: SPKI,
        spki: "".into(),
    };
    let copies: BTreeMap<_, _> =
        copies.iter().map(|(token, serial)| (token.parse().unwrap(), Box::from(*serial))).collect();
    KeyFacts {
        record,
        copies,
        shares: None,
        dealing: None,
        certificate: None,
        active: None,
        active_for: None,
        ending: None,
        presented: BTreeMap::new(),
        contingency: None,
    }
}

fn copied(change: impl FnOnce(&mut KeyCopied)) -> KeyCopied {
    let mut copied = KeyCopied {
        key: "recovery-1".parse().unwrap(),
        token: "smki-b".parse().unwrap(),
        serial: "0002".into(),
        spki_sha256: SPKI,
        by: MEANS.into(),
    };
    change(&mut copied);
    copied
}

#[track_caller]
fn check(facts: &KeyFacts, change: impl FnOnce(&mut KeyCopied), expected: Option<&str>) {
    let found = facts.may_copy(&policy(&example()), &copied(change)).err().map(|fault| fault.to_string());
    match (&found, expected) {
        (None, None) => {}
        (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
        _ => panic!("expected {expected:?}, found {found:?}"),
    }
}

#[test]
fn a_clone_is_recorded_where_the_policy_has_it_and_as_it_has_it() {
    let recovery = facts(KeyUse::Recovery, &[]);
    check(&recovery, |_| {}, None);
    check(&recovery, |copied| copied.token = "smki-a".parse().unwrap(), Some("cloned to no token smki-a"));
    check(&recovery, |copied| copied.token = "smki-c".parse().unwrap(), Some("cloned to no token smki-c"));
    check(&recovery, |copied| copied.by = "By post".into(), Some("not by \"By post\""));
    // The token is another key's then, and holds no clone.
    let mut files = changed("keys.toml", "copies = [{ token", "copies = [] # [{ token");
    let text = String::from_utf8(files["keys.toml"].clone()).unwrap();
    let (before, contingency) = text.split_once("label = \"contingency-1\"").unwrap();
    let before = before.replace("[[token]]\nname = \"smki-c\"\n\n", "");
    let moved = format!("{before}label = \"contingency-1\"{}", contingency.replacen("smki-c", "smki-b", 1));
    files.insert("keys.toml".to_owned(), moved.into_bytes());
    let without = policy(&files);
    assert_eq!(
        recovery.may_copy(&without, &copied(|_| {})),
        Err(CopyFault::NotNamed { key: "recovery-1".parse().unwrap(), token: "smki-b".parse().unwrap() })
    );
}

#[test]
fn a_clone_is_the_same_key_on_another_token() {
    let recovery = facts(KeyUse::Recovery, &[]);
    check(&recovery, |copied| copied.spki_sha256 = Digest([2; 32]), Some("token smki-b holds another key"));
    check(&recovery, |copied| copied.serial = "0001".into(), Some("serial number 0001 of token smki-a"));
    let again = facts(KeyUse::Recovery, &[("smki-b", "0002")]);
    check(&again, |_| {}, None);
    check(
        &again,
        |copied| copied.serial = "0003".into(),
        Some("recorded there under the serial number 0002, found 0003"),
    );
}

#[test]
fn the_ledger_key_has_one_token() {
    let ledger = facts(KeyUse::Ledger, &[]);
    check(&ledger, |copied| copied.key = "ledger-1".parse().unwrap(), Some("from one token"));
}

#[test]
fn a_policy_without_clones_may_call_the_token_of_a_key_otherwise_and_one_with_clones_may_not() {
    let recovery = facts(KeyUse::Recovery, &[]);
    let own = "smki-a".parse().unwrap();
    let text = String::from_utf8(example()["keys.toml"].clone()).unwrap();
    let (before, after) = text.split_once("label = \"recovery-1\"").unwrap();
    let (_, rest) = after.split_once("modes = [8]").unwrap();
    let before = before.replace("[[token]]\nname = \"smki-a\"\n\n", "");
    let with = |copies: &str, token: &str| {
        let mut files = example();
        let key = format!("label = \"recovery-1\"\nuse = \"recovery\"\ntoken = \"smki-b\"\n{copies}modes = [8]");
        files.insert("keys.toml".to_owned(), format!("{before}{key}{rest}{token}").into_bytes());
        policy(&files)
    };
    let without = with("", "");
    assert_eq!(recovery.may_be_on(&without, [(&own, "0001")].into_iter()), Ok(()));
    let other_serial = recovery.may_be_on(&without, [(&own, "0009")].into_iter());
    assert!(matches!(other_serial, Err(PlaceFault::Serial { .. })), "{other_serial:?}");
    let cloned = "copies = [{ token = \"smki-d\", by = \"The maker's means\" }]\n";
    let cloned = recovery.may_be_on(&with(cloned, "\n[[token]]\nname = \"smki-d\"\n"), [(&own, "0001")].into_iter());
    assert!(matches!(cloned, Err(PlaceFault::NotGiven { .. })), "{cloned:?}");
}

#[test]
fn a_key_is_known_to_be_on_its_own_token_and_where_a_ceremony_found_it() {
    let recovery = facts(KeyUse::Recovery, &[("smki-b", "0002")]);
    let serial = |token: &str| recovery.serial_on(&token.parse().unwrap()).map(ToOwned::to_owned);
    assert_eq!(serial("smki-a").as_deref(), Some("0001"));
    assert_eq!(serial("smki-b").as_deref(), Some("0002"));
    assert_eq!(serial("smki-c"), None);
}
