use super::*;

fn entry(event: Event) -> Entry {
    let by = Actor { person: None, account: "alice".into(), role: Role::Operator, channel: Channel::Socket };
    Entry { v: VERSION, at: "2017-07-21T10:00:00Z".parse().unwrap(), clock: ClockState::Trusted, by, event }
}

/// The golden form: a change of these octets is a change of every ledger there is.
#[test]
fn an_intent_has_one_encoding() {
    let intent = Intent {
        batch: 41,
        template: "esme".parse().unwrap(),
        device: "00DB1234567890A0".parse().unwrap(),
        counter: 7000,
        attempt: 1,
        command: Digest([0x5a; 32]),
    };
    let leaf = entry(Event::Intent(intent)).to_leaf().unwrap();
    assert_eq!(
        String::from_utf8(leaf.clone()).unwrap(),
        concat!(
            r#"{"v":1,"at":"2017-07-21T10:00:00.000Z","clock":"trusted","#,
            r#""by":{"account":"alice","role":"operator","channel":"socket"},"#,
            r#""event":{"intent":{"batch":41,"template":"esme","device":"00DB1234567890A0","counter":7000,"attempt":1,"#,
            r#""command":"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"}}}"#
        )
    );
    assert_eq!(Entry::from_canonical_leaf(&leaf).unwrap().to_leaf().unwrap(), leaf);
}

#[test]
fn an_outcome_has_one_encoding() {
    let leaf = entry(Event::Outcome(Outcome { intent: 42, result: SignResult::NotSigned("fence".into()) })).to_leaf();
    assert!(
        String::from_utf8(leaf.unwrap())
            .unwrap()
            .ends_with(r#""event":{"outcome":{"intent":42,"result":{"not-signed":"fence"}}}}"#)
    );
}

#[test]
fn the_kind_is_the_tag_that_stands_in_the_leaf() {
    let events = [
        Event::Stopped(Stopped { reason: "SIGTERM".into() }),
        Event::Settled(Settled {
            intent: 1,
            determination: DeterminationId([1; 16]),
            key: "recovery".parse().unwrap(),
            device: "00DB1234567890A0".parse().unwrap(),
            reason: "left".into(),
        }),
        Event::ClockJumped(ClockJumped { by_ms: -3 }),
        Event::RefusalsFolded(RefusalsFolded { account: "bob".into(), count: 3, since: Timestamp::MIN }),
    ];
    for event in events {
        let kind = event.kind();
        let leaf = String::from_utf8(entry(event).to_leaf().unwrap()).unwrap();
        assert!(leaf.contains(&format!(r#""event":{{"{kind}":"#)), "{leaf}");
    }
}

#[test]
fn another_spelling_of_the_same_entry_is_not_canonical() {
    let leaf = entry(Event::Stopped(Stopped { reason: "SIGTERM".into() })).to_leaf().unwrap();
    let text = String::from_utf8(leaf).unwrap();
    let spaced = text.replace(r#""v":1"#, r#""v": 1"#);
    assert_eq!(Entry::from_canonical_leaf(spaced.as_bytes()), Err(EntryError::NotCanonical));
    let shorter = text.replace("10:00:00.000Z", "10:00:00Z");
    assert_eq!(Entry::from_canonical_leaf(shorter.as_bytes()), Err(EntryError::NotCanonical));
}

#[test]
fn an_unknown_field_or_kind_or_version_is_refused() {
    let leaf = entry(Event::Stopped(Stopped { reason: "x".into() })).to_leaf().unwrap();
    let text = String::from_utf8(leaf).unwrap();
    for (from, to) in
        [(r#""v":1"#, r#""v":2"#), ("stopped", "halted"), (r#""reason""#, r#""cause""#), (r#"{"v""#, r#"{"w":0,"v""#)]
    {
        assert!(Entry::from_leaf(text.replacen(from, to, 1).as_bytes()).is_err(), "{from} -> {to}");
    }
}

#[test]
fn a_leaf_has_at_most_65_535_octets() {
    let with = |len: usize| entry(Event::Stopped(Stopped { reason: "x".repeat(len).into() })).to_leaf();
    let overhead = with(0).unwrap().len();
    assert_eq!(with(LEAF_LEN_MAX - overhead).unwrap().len(), LEAF_LEN_MAX);
    assert_eq!(with(LEAF_LEN_MAX - overhead + 1), Err(EntryError::TooLong { len: LEAF_LEN_MAX + 1 }));
}
