use super::*;

/// A person for tests: `spki(n)` are keys, the window is 2026 to 2030.
pub(in crate::domain) fn person(id: &str, role: Role, keys: &[u8]) -> Person {
    Person {
        id: id.parse().unwrap(),
        name: format!("Name of {id}").parse().unwrap(),
        party: "dcc".parse().unwrap(),
        roles: BTreeSet::from([role]),
        keys: keys.iter().map(|&n| spki(n)).collect(),
        accounts: Vec::new(),
        shares: Vec::new(),
        window: window("2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
        records: Records::default(),
    }
}

pub(in crate::domain) fn spki(n: u8) -> Digest {
    Digest([n; 32])
}

pub(in crate::domain) fn window(from: &str, until: &str) -> Window {
    Window { from: from.parse().unwrap(), until: until.parse().unwrap() }
}

fn faults(persons: Vec<Person>) -> String {
    match Roster::new(persons) {
        Ok(_) => "none".into(),
        Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[track_caller]
fn refused(persons: Vec<Person>, because: &str) {
    let found = faults(persons);
    assert!(found.contains(because), "expected {because:?}, found {found}");
}

#[test]
fn two_key_records_of_one_public_key_are_refused() {
    let one = person("one", Role::PmaMember, &[1]);
    refused(vec![one.clone(), person("two", Role::PmaMember, &[1])], "belongs to both one and two");
    refused(vec![person("one", Role::PmaMember, &[1, 1])], "stands here twice, perhaps written in two ways");
    assert_eq!(faults(vec![one, person("two", Role::PmaMember, &[2])]), "none");
}

#[test]
fn a_key_of_two_persons_is_refused_whatever_their_roles() {
    let one = person("one", Role::PmaMember, &[1]);
    refused(vec![one, person("two", Role::Auditor, &[1])], "belongs to both one and two");
}

#[test]
fn an_account_and_a_share_are_one_persons() {
    let mut one = person("one", Role::KeyCustodian, &[]);
    one.accounts.push("alice".parse().unwrap());
    one.shares.push("s1".parse().unwrap());
    let two = Person { id: "two".parse().unwrap(), name: "Two".parse().unwrap(), ..one.clone() };
    let found = faults(vec![one.clone(), two]);
    assert!(found.contains("account alice belongs to both") && found.contains("share s1 belongs to both"), "{found}");
    one.shares.push("s1".parse().unwrap());
    refused(vec![one], "share s1 belongs to both one and one");
}

#[test]
fn nobody_holds_two_of_the_separate_roles_and_anybody_may_audit_too() {
    for first in Role::SEPARATE {
        for second in Role::SEPARATE {
            let mut p = person("one", first, &[1]);
            p.roles.insert(second);
            assert_eq!(faults(vec![p]) == "none", first == second, "{first} and {second}");
        }
        let mut p = person("one", first, &[1]);
        p.roles.insert(Role::Auditor);
        assert_eq!(faults(vec![p]), "none");
    }
}

#[test]
fn every_fault_is_reported_and_not_only_the_first() {
    let mut one = person("one", Role::PmaMember, &[]);
    one.roles.insert(Role::Operator);
    one.window = window("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    let faults = Roster::new([one.clone(), one]).unwrap_err();
    assert_eq!(faults.len(), 7, "{faults:?}");
}

#[test]
fn one_human_being_under_two_ids_is_noticed() {
    let one = person("one", Role::PmaMember, &[1]);
    let again = Person { id: "uno".parse().unwrap(), keys: vec![spki(2)], ..one.clone() };
    refused(vec![one, again], "are both Name of one of dcc");
}

#[test]
fn a_person_stands_from_the_first_moment_until_the_last() {
    let roster = Roster::new([person("one", Role::PmaMember, &[1])]).unwrap();
    let count = |at: &str| roster.holding(Role::PmaMember, at.parse().unwrap()).count();
    assert_eq!(count("2025-12-31T23:59:59.999Z"), 0);
    assert_eq!(count("2026-01-01T00:00:00Z"), 1);
    assert_eq!(count("2029-12-31T23:59:59.999Z"), 1);
    assert_eq!(count("2030-01-01T00:00:00Z"), 0);
}

#[test]
fn the_most_who_ever_stand_together_are_counted_at_one_moment() {
    let mut early = person("early", Role::PmaMember, &[1]);
    early.window = window("2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    let roster = Roster::new([early, person("late", Role::PmaMember, &[2])]).unwrap();
    assert_eq!(roster.most_holding(Role::PmaMember).0, 1);
    assert_eq!(roster.most_holding(Role::Aro), (0, Timestamp::MIN));
}
