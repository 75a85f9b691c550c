use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::*;
use crate::custody::scheme::{SealingSecret, split};
use crate::domain::ledger::custody::Sealed;
use crate::domain::ledger::entry::{KeyRecord, TokenFound};
use crate::domain::names::{Digest, KeyId, KeyUse};
use crate::domain::policy::tests::{changed, example, policy};

/// The secret of a generation, and what is public of its split.
struct Dealt(SealingSecret, Vec<Box<str>>);

impl Dealt {
    fn make() -> Self {
        let secret = SealingSecret::make();
        let (_, commitments) = split(&secret, 2, 3).unwrap();
        let commitments = commitments.octets().iter().map(|octets| hex::encode(octets).into()).collect();
        Self(secret, commitments)
    }

    /// Its signature over a deal of the next generation, for the ledger of the example.
    fn sign(&self, dealt: &SharesDealt) -> Box<str> {
        self.sign_for(policy(&example()).origin().as_str(), dealt)
    }

    fn sign_for(&self, origin: &str, dealt: &SharesDealt) -> Box<str> {
        let signed = dealt.signed_by_the_former(&origin.parse().unwrap());
        hex::encode(self.0.sign(&signed).unwrap()).into()
    }
}

fn persons(numbers: &[u32]) -> Vec<PersonId> {
    numbers.iter().map(|n| format!("custodian-{n}").parse().unwrap()).collect()
}

static FORMER: LazyLock<Dealt> = LazyLock::new(Dealt::make);
static NEXT: LazyLock<Dealt> = LazyLock::new(Dealt::make);

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
    let shares = generation.map(|generation| SharesDealt { generation, commitments: FORMER.1.clone(), ..dealt() });
    KeyFacts {
        record,
        copies: BTreeMap::new(),
        shares,
        dealing: None,
        presented: BTreeMap::new(),
        contingency: None,
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
        commitments: NEXT.1.clone(),
        holders: holders.collect(),
        tokens: vec![TokenFound { token: "smki-a".parse().unwrap(), serial: "0001".into() }],
        sealed: Digest([9; 32]),
        left: Vec::new(),
        by: Vec::new(),
        former: None,
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
    check(
        &first,
        |dealt| dealt.commitments[0] = dealt.commitments[0].to_uppercase().into(),
        Some("expected 2 commitments"),
    );
    // x = 1 is that of no point of the curve: nobody could ever deal again.
    check(&first, |dealt| dealt.commitments[0] = format!("02{:064x}", 1).into(), Some("expected 2 commitments"));
}

#[test]
fn a_generation_follows_the_one_before_and_its_tokens_hold_the_key() {
    check(&facts(Some(1)), |_| {}, Some("expected generation 2"));
    let second = |dealt: &mut SharesDealt| {
        dealt.generation = 2;
        dealt.by = persons(&[1, 2]);
        dealt.former = Some(FORMER.sign(dealt));
    };
    check(&facts(Some(1)), second, None);
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

#[test]
fn shares_are_dealt_anew_by_nobody_but_those_who_put_the_former_secret_together() {
    let one = facts(Some(1));
    let by_former = Some("expected that the secret of generation 1 of the shares of key recovery-1 signed");
    let second = |sign: fn(&SharesDealt) -> Option<Box<str>>| {
        move |dealt: &mut SharesDealt| {
            dealt.generation = 2;
            dealt.by = persons(&[1, 2]);
            dealt.former = sign(dealt);
        }
    };
    check(&one, second(|dealt| Some(FORMER.sign(dealt))), None);
    check(&one, second(|_| None), by_former);
    // And so many persons of so many Parties brought their shares, as whoever conducted it says: no Party deals by itself.
    let brought_by = |by: Vec<PersonId>| {
        move |dealt: &mut SharesDealt| {
            (dealt.generation, dealt.by) = (2, by);
            dealt.former = Some(FORMER.sign(dealt));
        }
    };
    check(&one, brought_by(persons(&[2, 3])), None);
    check(&one, brought_by(persons(&[1, 2, 3])), None);
    for (by, found) in [
        (persons(&[]), "found nobody, of 0 Parties"),
        (persons(&[1]), "found custodian-1, of 1 Parties"),
        (persons(&[1, 1]), "found custodian-1, custodian-1, of 1 Parties"),
        (
            vec!["custodian-1".parse().unwrap(), "member-1".parse().unwrap()],
            "found custodian-1, member-1, of 1 Parties",
        ),
    ] {
        check(&one, brought_by(by), Some(found));
    }
    let mut of_one_party = facts(Some(1));
    let ours = policy(&example()).people().person(&"custodian-1".parse().unwrap()).unwrap().party.clone();
    let same = policy(&example())
        .people()
        .persons()
        .find(|person| person.party == ours && person.id.as_str() != "custodian-1")
        .unwrap()
        .id
        .clone();
    of_one_party.shares.as_mut().unwrap().holders[1].person = same.clone();
    check(&of_one_party, brought_by(vec!["custodian-1".parse().unwrap(), same]), Some("of 1 Parties"));
    // Who was struck out, and not left with an end, is of no Party that anybody knows.
    let mut struck_out = facts(Some(1));
    struck_out.shares.as_mut().unwrap().holders[1].person = "custodian-9".parse().unwrap();
    let by = vec!["custodian-1".parse().unwrap(), "custodian-9".parse().unwrap()];
    check(&struck_out, brought_by(by), Some("does not know custodian-9"));
    check(&one, second(|dealt| Some(NEXT.sign(dealt))), by_former);
    check(&one, second(|dealt| Some(FORMER.sign_for("smki.example/other", dealt))), by_former);
    check(&one, second(|dealt| Some(FORMER.sign(dealt).to_uppercase().into())), by_former);
    check(&one, second(|_| Some("00".repeat(64).into())), by_former);
    check(&one, second(|_| Some("00".repeat(63).into())), by_former);
    check(
        &facts(None),
        |dealt| dealt.former = Some(FORMER.sign(dealt)),
        Some("generation 1 of the shares of key recovery-1 has no"),
    );
    check(
        &facts(None),
        |dealt| dealt.by = persons(&[1, 2]),
        Some("generation 1 of the shares of key recovery-1 has no"),
    );
    // Everything that the entry says is signed.
    let altered: [fn(&mut SharesDealt); 6] = [
        |dealt| dealt.by = persons(&[1, 3]),
        |dealt| dealt.holders[0].sealed = Sealed::Certificate(Digest([1; 32])),
        |dealt| dealt.holders[0].index = 7,
        |dealt| dealt.holders.swap(0, 1),
        |dealt| dealt.sealed = Digest([8; 32]),
        |dealt| dealt.commitments = FORMER.1.clone(),
    ];
    for alter in altered {
        let signed_before = |dealt: &mut SharesDealt| {
            second(|dealt| Some(FORMER.sign(dealt)))(dealt);
            alter(dealt);
        };
        check(&one, signed_before, by_former);
        let signed_after = |dealt: &mut SharesDealt| {
            second(|_| None)(dealt);
            alter(dealt);
            dealt.former = Some(FORMER.sign(dealt));
        };
        check(&one, signed_after, None);
    }
}

#[test]
fn a_token_that_holds_the_key_is_dealt_for_or_said_to_be_left_where_the_policy_gives_it_the_key_no_more() {
    let found = |token: &str, serial: &str| TokenFound { token: token.parse().unwrap(), serial: serial.into() };
    let mut first = facts(None);
    first.copies.insert("smki-z".parse().unwrap(), "0009".into());
    check(&first, |_| {}, Some("the policy gives it the key no more: smki-z; found none to be left"));
    check(&first, |dealt| dealt.left = vec![found("smki-z", "0009")], None);
    check(&first, |dealt| dealt.left = vec![found("smki-z", "0008")], Some("found smki-z to be left"));
    check(&facts(None), |dealt| dealt.left = vec![found("smki-z", "0009")], Some("found smki-z to be left"));
    // What the policy gives is dealt for.
    let mut given = facts(None);
    given.copies.insert("smki-b".parse().unwrap(), "0002".into());
    check(&given, |dealt| dealt.left = vec![found("smki-b", "0002")], Some("found smki-b to be left"));
    check(&given, |dealt| dealt.tokens.push(found("smki-b", "0002")), None);
}
