use super::*;
use crate::domain::ledger::custody::{Holder, Sealed, SharesDealt};
use crate::domain::ledger::entry::KeyRecord;
use crate::domain::names::{Digest, KeyUse};
use crate::domain::policy::tests::{example, policy};

const INCIDENT: &str = "INC-1";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-06-01T12:00:00Z")
}

fn determination() -> DeterminationId {
    DeterminationId([1; 16])
}

/// Custodians of the example are of a Party each: 1 of supplier-a, 2 of network-a, 3 of dcc.
fn example_policy(change: impl Fn(&str) -> String) -> Policy {
    let mut files = example();
    let persons = String::from_utf8(files["persons.toml"].clone()).unwrap();
    files.insert("persons.toml".into(), change(&persons).into_bytes());
    policy(&files)
}

fn key(persons: &[usize]) -> KeyFacts {
    let label = "recovery-1".parse().unwrap();
    let holder = |n: u16| Holder {
        share: format!("share-{n}").parse().unwrap(),
        person: format!("custodian-{n}").parse().unwrap(),
        index: n,
        sealed: Sealed::Passphrase,
    };
    let shares = SharesDealt {
        key: "recovery-1".parse().unwrap(),
        generation: 2,
        threshold: 2,
        commitments: Vec::new(),
        holders: (1..=3).map(holder).collect(),
        tokens: Vec::new(),
        sealed: Digest([0; 32]),
        left: Vec::new(),
        by: Vec::new(),
        former: None,
    };
    let record = KeyRecord {
        label,
        use_: KeyUse::Recovery,
        token: "smki-a".parse().unwrap(),
        serial: "0001".into(),
        id: "a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0".parse().unwrap(),
        spki_sha256: Digest([1; 32]),
        spki: "".into(),
    };
    let presented = |n: &usize| {
        let presented = Presented {
            entry: 100 + *n as u64,
            incident: INCIDENT.parse().unwrap(),
            determination: determination(),
            share: Some((format!("share-{n}").parse().unwrap(), 2)),
            until: now().plus_ms(1),
            expires: now().plus_ms(1_000),
        };
        (format!("custodian-{n}").parse().unwrap(), presented)
    };
    KeyFacts {
        record,
        copies: BTreeMap::new(),
        shares: Some(shares),
        dealing: None,
        certificate: None,
        active: None,
        active_for: None,
        ending: None,
        presented: persons.iter().map(presented).collect(),
        contingency: None,
    }
}

fn count(policy: &Policy, key: &KeyFacts, at: Timestamp) -> Count {
    Count::of(policy, key, (&INCIDENT.parse().unwrap(), determination()), at)
}

#[test]
fn k_persons_of_enough_parties_are_enough_and_one_fewer_of_either_is_not() {
    let of_several = example_policy(str::to_owned);
    assert!(!count(&of_several, &key(&[]), now()).is_enough());
    assert!(!count(&of_several, &key(&[1]), now()).is_enough());
    let enough = count(&of_several, &key(&[2, 1]), now());
    assert!(enough.is_enough());
    assert_eq!(enough.entries(), [101, 102]);
    assert_eq!(enough.expires(), Some(now().plus_ms(1_000)));
    // The second is of the first one's Party now; the third still is not.
    let of_one = example_policy(|text| {
        text.replace(
            "name = \"Custodian Two\"\nparty = \"network-a\"",
            "name = \"Custodian Two\"\nparty = \"supplier-a\"",
        )
    });
    let one_party = count(&of_one, &key(&[1, 2]), now());
    assert_eq!((one_party.have(), one_party.parties_have(), one_party.is_enough()), (2, 1, false));
    assert!(count(&of_one, &key(&[1, 2, 3]), now()).is_enough());
}

#[test]
fn a_custodian_counts_until_the_last_moment_of_their_appointment_and_of_what_they_presented() {
    let policy = example_policy(str::to_owned);
    assert_eq!(count(&policy, &key(&[1, 2]), now()).have(), 2);
    let over = count(&policy, &key(&[1, 2]), now().plus_ms(1));
    assert!(matches!(over.not_counted[..], [NotCounted::Over { .. }, NotCounted::Over { .. }]));
    // Once it is open, until the statements expire.
    let mut open = key(&[1, 2]);
    (open.active, open.active_for) = (Some(None), Some(INCIDENT.parse().unwrap()));
    assert!(count(&policy, &open, now().plus_ms(999)).is_enough());
    assert!(!count(&policy, &open, now().plus_ms(1_000)).is_enough());
    let ends = example_policy(|text| {
        let ceases =
            "appointed = \"Nomination form 2 of 2025-11-20\"\nuntil = \"2026-06-01T12:00:00Z\"\nceased = \"letter\"";
        text.replace("appointed = \"Nomination form 2 of 2025-11-20\"", ceases)
    });
    assert_eq!(count(&ends, &key(&[1, 2]), now().plus_ms(-1)).have(), 2);
    let ceased = count(&ends, &key(&[1, 2]), now());
    assert_eq!(ceased.have(), 1);
    assert!(matches!(&ceased.not_counted[..], [NotCounted::Ceased { person, .. }] if person.as_str() == "custodian-2"));
}

#[test]
fn what_was_presented_counts_for_its_incident_determination_and_share_set_alone() {
    let policy = example_policy(str::to_owned);
    let other = |change: &dyn Fn(&mut Presented)| {
        let mut key = key(&[1, 2]);
        key.presented.values_mut().for_each(change);
        count(&policy, &key, now()).not_counted
    };
    let differs = other(&|presented| presented.incident = "INC-2".parse().unwrap());
    assert!(matches!(differs[..], [NotCounted::Other { .. }, NotCounted::Other { .. }]));
    let differs = other(&|presented| presented.determination = DeterminationId([2; 16]));
    assert!(matches!(differs[..], [NotCounted::Other { .. }, NotCounted::Other { .. }]));
    let older = other(&|presented| presented.share.as_mut().unwrap().1 = 1);
    assert!(matches!(older[..], [NotCounted::Share { .. }, NotCounted::Share { .. }]));
    let third = other(&|presented| presented.share.as_mut().unwrap().0 = "share-3".parse().unwrap());
    assert!(matches!(third[..], [NotCounted::Share { .. }, NotCounted::Share { .. }]));
    let none = other(&|presented| presented.share = None);
    assert!(matches!(none[..], [NotCounted::Share { .. }, NotCounted::Share { .. }]));
    assert!(other(&|_| {}).is_empty());
}

#[test]
fn as_many_are_needed_as_the_policy_says_and_as_were_dealt_for() {
    let policy = example_policy(str::to_owned);
    let mut dealt_for_three = key(&[1, 2]);
    dealt_for_three.shares.as_mut().unwrap().threshold = 3;
    assert_eq!(count(&policy, &dealt_for_three, now()).need, 3);
    assert!(!count(&policy, &dealt_for_three, now()).is_enough());
    let mut dealt_for_one = key(&[1]);
    dealt_for_one.shares.as_mut().unwrap().threshold = 1;
    assert_eq!(count(&policy, &dealt_for_one, now()).need, 2);
    assert!(!count(&policy, &dealt_for_one, now()).is_enough());
}

#[test]
fn who_opened_an_active_key_is_counted_where_custodians_open_it_for_the_incident_in_question() {
    let policy = example_policy(str::to_owned);
    let of_active = |key: &KeyFacts, incident: &str, at| {
        Count::of_active(&policy, key, (&incident.parse().unwrap(), determination()), at)
    };
    let mut open = key(&[1, 2]);
    assert_eq!(of_active(&open, INCIDENT, now()), None, "it is locked");
    (open.active, open.active_for) = (Some(Some(now().plus_ms(500))), Some(INCIDENT.parse().unwrap()));
    assert!(of_active(&open, INCIDENT, now().plus_ms(499)).unwrap().is_enough());
    assert_eq!(of_active(&open, INCIDENT, now().plus_ms(500)), None, "its time is over");
    assert_eq!(of_active(&open, "INC-2", now()), None, "it is active for another");
    open.presented.pop_first();
    let short = of_active(&open, INCIDENT, now()).unwrap();
    assert!(!short.is_enough());
    assert_eq!(short.shortfall(), "1 of 2 Key Custodians count, of 1 of 2 Parties");
    open.active_for = None;
    assert_eq!(of_active(&open, INCIDENT, now()), None, "an older daemon activated it for every incident");
}

#[test]
fn statements_open_a_key_until_those_that_hold_are_too_few_of_persons_or_of_parties() {
    let policy = example_policy(str::to_owned);
    let parties: Vec<&str> = [1, 2, 3]
        .map(|n| policy.people().person(&format!("custodian-{n}").parse().unwrap()).unwrap().party.as_str())
        .into();
    let holding = |ms: [i64; 3]| {
        let mut key = key(&[1, 2, 3]);
        for (presented, ms) in key.presented.values_mut().zip(ms) {
            presented.expires = now().plus_ms(ms);
        }
        count(&policy, &key, now()).expires()
    };
    assert!(parties[0] != parties[1] && parties[1] != parties[2] && parties[0] != parties[2], "{parties:?}");
    assert_eq!(holding([30, 20, 10]), Some(now().plus_ms(20)), "the first to end is more than is needed");
    assert_eq!(holding([10, 10, 20]), Some(now().plus_ms(10)), "two at once");
    assert_eq!(holding([10, 20, 30]), Some(now().plus_ms(20)));
    assert_eq!(count(&policy, &key(&[]), now()).expires(), None);
    let of_one = example_policy(|text| {
        text.replace(
            "name = \"Custodian Two\"\nparty = \"network-a\"",
            "name = \"Custodian Two\"\nparty = \"supplier-a\"",
        )
    });
    let mut key = key(&[1, 2, 3]);
    for (presented, ms) in key.presented.values_mut().zip([30, 20, 10]) {
        presented.expires = now().plus_ms(ms);
    }
    assert_eq!(count(&of_one, &key, now()).expires(), Some(now().plus_ms(10)), "then two are left, of one Party");
}
