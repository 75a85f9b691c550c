use std::collections::BTreeMap;

use super::*;
use crate::domain::ledger::custody::Sealed;
use crate::domain::ledger::entry::{KeyRecord, TokenFound};
use crate::domain::names::{Digest, KeyId, KeyUse};
use crate::domain::policy::tests::{changed, example, policy};

fn facts(generation: Option<u32>) -> KeyFacts {
    let record = KeyRecord {
        label: "recovery-1".parse().unwrap(),
        use_: KeyUse::Recovery,
        token: "smki-a".parse().unwrap(),
        serial: "0001".into(),
        id: KeyId([7; 16]),
        spki_sha256: Digest([1; 32]),
        spki: "".into(),
    };
    let shares = generation.map(|generation| SharesDealt { generation, ..dealt() });
    KeyFacts {
        record,
        copies: BTreeMap::new(),
        shares,
        presented: BTreeMap::new(),
        certificate: None,
        active: None,
        active_for: None,
        ending: None,
    }
}

fn dealt() -> SharesDealt {
    let holders = (1..=3).map(|n| Holder {
        share: format!("share-{n}").parse().unwrap(),
        person: format!("custodian-{n}").parse().unwrap(),
        index: n,
        sealed: Sealed::Passphrase,
    });
    SharesDealt {
        key: "recovery-1".parse().unwrap(),
        generation: 1,
        threshold: 2,
        commitments: vec!["02".repeat(33).into(), "03".repeat(33).into()],
        holders: holders.collect(),
        tokens: vec![TokenFound { token: "smki-a".parse().unwrap(), serial: "0001".into() }],
        sealed: Digest([9; 32]),
    }
}

fn now() -> Timestamp {
    "2026-07-21T12:00:00Z".parse().unwrap()
}

#[track_caller]
fn check(facts: &KeyFacts, change: impl FnOnce(&mut SharesDealt), expected: Option<&str>) {
    let mut dealt = dealt();
    change(&mut dealt);
    let found = facts.may_deal(&policy(&example()), &dealt, now()).err().map(|fault| fault.to_string());
    match (&found, expected) {
        (None, None) => {}
        (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
        _ => panic!("expected {expected:?}, found {found:?}"),
    }
}

#[test]
fn shares_are_dealt_to_the_custodians_in_force_all_of_them_and_nobody_else() {
    let first = facts(None);
    check(&first, |_| {}, None);
    check(&first, |dealt| drop(dealt.holders.pop()), Some("expected the shares of the Key Custodians in force"));
    check(&first, |dealt| dealt.holders[0].person = "member-1".parse().unwrap(), Some("share-1 of member-1"));
    check(&first, |dealt| dealt.holders[0].share = "share-9".parse().unwrap(), Some("share-9 of custodian-1"));
    let twice = |dealt: &mut SharesDealt| {
        let again = dealt.holders[0].clone();
        dealt.holders.push(Holder { index: 4, ..again });
    };
    check(&first, twice, Some("expected the shares of the Key Custodians in force"));
    check(&first, |dealt| dealt.holders[1].index = 1, Some("an index of its own"));
    check(&first, |dealt| dealt.holders[1].index = 0, Some("an index of its own"));
}

#[test]
fn shares_are_dealt_with_the_policys_threshold_and_as_many_commitments() {
    let first = facts(None);
    check(&first, |dealt| dealt.threshold = 1, Some("2 shares open key recovery-1"));
    check(&first, |dealt| dealt.threshold = 3, Some("2 shares open key recovery-1"));
    check(&first, |dealt| drop(dealt.commitments.pop()), Some("expected 2 commitments"));
    check(&first, |dealt| dealt.commitments[1] = "03".into(), Some("expected 2 commitments"));
    check(&first, |dealt| dealt.commitments[1] = "0G".repeat(33).into(), Some("expected 2 commitments"));
}

#[test]
fn a_generation_follows_the_one_before_and_its_tokens_hold_the_key() {
    check(&facts(Some(1)), |_| {}, Some("expected generation 2"));
    check(&facts(Some(1)), |dealt| dealt.generation = 2, None);
    check(&facts(Some(1)), |dealt| dealt.generation = 3, Some("expected generation 2"));
    check(&facts(None), |dealt| dealt.tokens.clear(), Some("found none"));
    let token = |name: &'static str, serial: &'static str| {
        move |dealt: &mut SharesDealt| {
            dealt.tokens[0] = TokenFound { token: name.parse().unwrap(), serial: serial.into() }
        }
    };
    check(&facts(None), token("smki-b", "0002"), Some("no ceremony found key recovery-1"));
    check(&facts(None), token("ledger-a", "0001"), Some("gives key recovery-1 no token ledger-a"));
    check(&facts(None), token("smki-a", "0002"), Some("expected serial number 0001"));
}

#[test]
fn no_shares_are_dealt_of_a_key_that_is_opened_otherwise() {
    let files = changed("policy.toml", "purpose = \"live\"", "purpose = \"exercise\"");
    let mut files = files;
    let keys = String::from_utf8(files["keys.toml"].clone()).unwrap();
    files.insert("keys.toml".to_owned(), keys.replace("\"custodians\"", "\"stored\"").into_bytes());
    let refused = facts(None).may_deal(&policy(&files), &dealt(), now()).unwrap_err();
    assert!(matches!(refused, DealFault::Activation { .. }), "{refused}");
}
