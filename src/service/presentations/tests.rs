use super::*;

fn of(key: &str, person: &str) -> (KeyLabel, PersonId) {
    (key.parse().unwrap(), person.parse().unwrap())
}

fn waiting(account: &str, until_ms: i64) -> Waiting {
    Waiting {
        account: account.into(),
        statement: Vec::new(),
        signature: Vec::new(),
        index: 1,
        until: Timestamp::from_unix_ms(until_ms).unwrap(),
    }
}

fn id(n: u8) -> PresentationId {
    PresentationId([n; PresentationId::LEN])
}

#[test]
fn each_custodian_has_one_place_for_each_key_and_takes_nobody_elses() {
    let all = Presentations::default();
    let (key, anna) = (of("recovery-1", "anna").0, of("recovery-1", "anna"));
    let (first, none) = all.begin(anna.clone(), waiting("a", 10));
    assert_eq!(none, None);
    assert!(all.made(&anna, first, id(1)));
    let (other, none) = all.begin(of("recovery-1", "bert"), waiting("b", 10));
    assert_eq!(none, None, "another person's");
    assert!(all.made(&of("recovery-1", "bert"), other, id(2)));
    assert_eq!(all.begin(of("recovery-2", "anna"), waiting("a", 10)).1, None, "another key's");

    assert!(all.find(&key, id(1), "a").is_some());
    assert!(all.find(&key, id(1), "b").is_none(), "another account's");
    assert!(all.find(&of("recovery-2", "anna").0, id(1), "a").is_none());

    // However often one begins, the others keep their place.
    for _ in 0..1_000 {
        all.begin(anna.clone(), waiting("a", 10));
    }
    assert!(all.find(&key, id(1), "a").is_none(), "the one before is given up");
    assert!(all.find(&key, id(2), "b").is_some());
    assert!(!all.made(&anna, first, id(3)), "a beginning that was given up gets no key");
}

#[test]
fn a_place_is_kept_until_its_end_its_time_or_the_end_of_its_vault() {
    let all = Presentations::default();
    let (key, anna) = (of("recovery-1", "anna").0, of("recovery-1", "anna"));
    let waits = || all.held(&key, |waits, any| (waits(&anna.1), any));
    assert_eq!(waits(), (false, false));
    let (attempt, _) = all.begin(anna.clone(), waiting("a", 10));
    assert_eq!(waits(), (true, true), "before the vault is asked");
    all.expire(Timestamp::from_unix_ms(9).unwrap());
    assert_eq!(waits(), (true, true));
    all.made(&anna, attempt, id(1));
    assert_eq!(all.begin(anna.clone(), waiting("a", 10)).1, Some(id(1)), "for the vault to forget");
    all.end(id(1));
    assert_eq!(waits(), (true, true), "what ended was another");
    all.expire(Timestamp::from_unix_ms(10).unwrap());
    assert_eq!(waits(), (false, false));
    let (attempt, _) = all.begin(anna.clone(), waiting("a", 10));
    all.give_up(&anna, attempt);
    assert_eq!(waits(), (false, false));
    all.begin(anna.clone(), waiting("a", 10));
    all.clear(&key);
    assert_eq!(waits(), (false, false));
}
