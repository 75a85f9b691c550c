use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::domain::determination::document::{KeyChosen, Type};
use crate::domain::fold::tests::standing;
use crate::domain::fold::{Blobs, BookError};
use crate::domain::intake::{Head, Heads};
use crate::domain::ledger::ceremonies::CeremonyKind;
use crate::domain::ledger::entry::{ClockState, TokenFound};
use crate::domain::ledger::transcript::{Line, What};
use crate::domain::names::{KeyId, Purpose};

const AT: &str = "2017-07-21T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A key, the public half of which is any octets.
fn record(label: &str, use_: KeyUse, token: &str, octet: u8) -> KeyRecord {
    let spki = [octet; 91];
    KeyRecord {
        label: label.parse().unwrap(),
        use_,
        token: token.parse().unwrap(),
        serial: format!("000{octet}").into(),
        id: KeyId([octet; 16]),
        spki_sha256: Digest::of(&spki),
        spki: STANDARD.encode(spki).into(),
    }
}

fn facts(record: KeyRecord) -> KeyFacts {
    KeyFacts {
        record,
        copies: std::collections::BTreeMap::new(),
        shares: None,
        dealing: None,
        presented: std::collections::BTreeMap::new(),
        contingency: None,
        certificate: None,
        active: None,
        active_for: None,
        ending: None,
    }
}

fn recovery() -> KeyRecord {
    record("recovery-1", KeyUse::Recovery, "smki-a", 2)
}

/// The ledger's key and a Recovery key stand; the policy names a contingency key, too.
fn ledger() -> Fold {
    standing(vec![facts(record("ledger-1", KeyUse::Ledger, "ledger-a", 1)), facts(recovery())])
}

#[track_caller]
fn rules<T>(decided: Result<T, Vec<Reason>>) -> Vec<String> {
    decided.err().into_iter().flatten().map(|reason| reason.rule.to_string()).collect()
}

#[test]
fn a_key_is_recorded_as_the_policy_names_it_and_once() {
    let fold = ledger();
    let new = || record("contingency-1", KeyUse::Contingency, "smki-c", 3);
    assert_eq!(may_make(&fold, &new()), Ok(()));
    let rules_of = |key: KeyRecord| rules(may_make(&fold, &key));
    assert_eq!(rules_of(KeyRecord { token: "smki-b".parse().unwrap(), ..new() }), ["key-place"]);
    assert_eq!(rules_of(KeyRecord { use_: KeyUse::Recovery, ..new() }), ["key-place"]);
    assert_eq!(rules_of(KeyRecord { label: "contingency-2".parse().unwrap(), ..new() }), ["key-unknown"]);
    assert_eq!(rules_of(KeyRecord { spki_sha256: Digest([8; 32]), ..new() }), ["key-spki"]);
    // Of a key that stands: its label, its CKA_ID, its public half.
    assert_eq!(rules_of(KeyRecord { label: "recovery-1".parse().unwrap(), ..new() }), ["key-place", "key-known"]);
    assert_eq!(rules_of(KeyRecord { id: recovery().id, ..new() }), ["key-known"]);
    let (spki, spki_sha256) = (recovery().spki, recovery().spki_sha256);
    assert_eq!(rules_of(KeyRecord { spki_sha256, spki, ..new() }), ["key-known"]);
    let second = record("ledger-1", KeyUse::Ledger, "ledger-a", 4);
    assert_eq!(rules_of(second), ["key-use", "key-known"]);
}

/// No documents; one signed head.
struct Signed(Head);

impl Blobs for Signed {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        Err(BookError::BlobMissing { digest })
    }

    fn stream(&self, digest: Digest, _: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        Err(BookError::BlobMissing { digest })
    }
}

impl Heads for Signed {
    fn head(&self, size: u64) -> Option<Head> {
        (size == 7).then_some(self.0)
    }
}

/// The rules against a destruction of the Recovery key that nobody signed, once the key stands like that.
fn against(change: impl FnOnce(&mut KeyFacts), document: impl FnOnce(&mut Destruction)) -> Vec<String> {
    let mut key = facts(recovery());
    change(&mut key);
    let fold = standing(vec![facts(record("ledger-1", KeyUse::Ledger, "ledger-a", 1)), key]);
    let policy = &fold.policy().unwrap().policy;
    let head = Head { root: Digest([5; 32]), at: at(AT) };
    let mut form = Destruction {
        r#type: Type::default(),
        purpose: policy.purpose(),
        proposer: "member-1".parse().unwrap(),
        ledger: crate::domain::determination::document::LedgerHead {
            origin: policy.origin().clone(),
            size: 7,
            root: head.root,
        },
        policy: policy.digest(),
        key: KeyChosen { label: recovery().label, spki_sha256: recovery().spki_sha256 },
        cka_id: recovery().id,
        tokens: vec![TokenFound { token: recovery().token, serial: recovery().serial }],
        reason: "Superseded".parse().unwrap(),
    };
    document(&mut form);
    let signed = Signed(head);
    let context = Context { fold: &fold, blobs: &signed, heads: &signed, at: at(AT), clock: ClockState::Trusted };
    let written = Written::write(&form).unwrap();
    let submission = Submission { signatures: &[], devices: None };
    rules(destruction(&context, &written, &submission))
}

#[test]
fn a_key_is_destroyed_while_it_is_locked_and_only_once() {
    let as_it_stands = |_: &mut KeyFacts| {};
    let as_drafted = |_: &mut Destruction| {};
    let nobody_signed = against(as_it_stands, as_drafted);
    assert!(!nobody_signed.iter().any(|rule| rule.starts_with("key-")), "{nobody_signed:?}");
    let more = |rules: Vec<String>| {
        let mut rules = rules;
        rules.retain(|rule| !nobody_signed.contains(rule));
        rules
    };
    let active_until = |until: Option<Timestamp>| more(against(|key| key.active = Some(until), as_drafted));
    assert_eq!(active_until(None), ["key-active"]);
    assert_eq!(active_until(Some(at("2017-07-21T12:00:01Z"))), ["key-active"]);
    assert!(active_until(Some(at(AT))).is_empty(), "at the end of its time it is locked");
    let ending = |ending| more(against(|key| key.ending = Some(ending), as_drafted));
    assert_eq!(ending(Ending::Begun { entry: 5, document: Digest([1; 32]) }), ["key-ends"]);
    assert_eq!(ending(Ending::Destroyed { entry: 6 }), ["key-ends"]);
    // It names the key that the ledger has, and each of its tokens.
    assert_eq!(more(against(as_it_stands, |form| form.cka_id = KeyId([9; 16]))), ["key-id"]);
    assert_eq!(more(against(as_it_stands, |form| form.key.spki_sha256 = Digest([9; 32]))), ["key-spki"]);
    let cloned = |key: &mut KeyFacts| drop(key.copies.insert("smki-b".parse().unwrap(), "0009".into()));
    assert_eq!(more(against(cloned, as_drafted)), ["key-tokens"]);
    let with_clone = |form: &mut Destruction| {
        form.tokens.push(TokenFound { token: "smki-b".parse().unwrap(), serial: "0009".into() });
    };
    assert!(more(against(cloned, with_clone)).is_empty());
    assert_eq!(more(against(as_it_stands, with_clone)), ["key-tokens"]);
}

/// Lines that name each other.
fn lines(whats: &[(&str, What)]) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut prev = Digest::of(&[]);
    for (at, what) in whats {
        let line = serde_json::to_vec(&Line { at: at.parse().unwrap(), prev, what: what.clone() }).unwrap();
        prev = Digest::of(&line);
        octets.extend(line);
        octets.push(b'\n');
    }
    octets
}

fn present(id: Option<&str>, name: &str, capacity: Capacity) -> (&'static str, What) {
    ("2017-07-21T08:01:00Z", What::Present { person: id.map(|id| id.parse().unwrap()), name: name.into(), capacity })
}

/// What a ceremony of the ledger writes down, from opening to close.
fn held() -> Vec<(&'static str, What)> {
    let fold = ledger();
    let policy = &fold.policy().unwrap().policy;
    let opened = What::Opened {
        plan: Digest([1; 32]),
        kind: CeremonyKind::Renewal,
        title: "Renewal".into(),
        place: "Room 4".into(),
        purpose: policy.purpose(),
        origin: policy.origin().clone(),
        policy: policy.digest(),
        when_interrupted: "go on".into(),
        rehearsal: false,
    };
    vec![
        ("2017-07-21T08:00:00Z", opened),
        present(Some("operator-1"), "Operator One", Capacity::Conductor),
        present(None, "Guest", Capacity::Witness),
        present(Some("auditor-1"), "Auditor One", Capacity::Auditor),
        ("2017-07-21T08:02:00Z", What::Begun { step: "opening".into(), title: "".into(), says: "".into() }),
        ("2017-07-21T08:03:00Z", What::Done { step: "opening".into(), facts: Vec::new() }),
        ("2017-07-21T09:00:00Z", What::Closed {}),
    ]
}

/// The rules against recording these lines as what they tell, at that moment.
fn against_transcript(whats: &[(&str, What)], moment: &str) -> Vec<String> {
    let octets = lines(whats);
    if let Ok(told) = transcript::told(&octets) {
        rules(may_record(&ledger(), &told.recorded, &octets, at(moment)))
    } else {
        let told = transcript::told(&lines(&held())).unwrap();
        rules(may_record(&ledger(), &told.recorded, &octets, at(moment)))
    }
}

#[test]
fn a_ceremony_is_recorded_as_its_transcript_tells_it() {
    let octets = lines(&held());
    let told = transcript::told(&octets).unwrap().recorded;
    let rules_of = |recorded: CeremonyRecorded| rules(may_record(&ledger(), &recorded, &octets, at(AT)));
    assert!(rules_of(told.clone()).is_empty());
    // Whatever the entry says otherwise.
    let fewer = told.people[..2].to_vec();
    for (recorded, rules) in [
        (CeremonyRecorded { kind: CeremonyKind::Copy, ..told.clone() }, vec!["ceremony-transcript"]),
        (CeremonyRecorded { plan: Digest([2; 32]), ..told.clone() }, vec!["ceremony-transcript"]),
        (CeremonyRecorded { from: at("2017-07-21T07:59:59Z"), ..told.clone() }, vec!["ceremony-transcript"]),
        (CeremonyRecorded { until: at("2017-07-21T09:00:01Z"), ..told.clone() }, vec!["ceremony-transcript"]),
        (CeremonyRecorded { people: fewer, ..told.clone() }, vec!["ceremony-people", "ceremony-transcript"]),
    ] {
        assert_eq!(rules_of(recorded), rules);
    }
    // Another ledger's transcript.
    let mut other = held();
    let (_, What::Opened { purpose, .. }) = &mut other[0] else { panic!() };
    *purpose = if *purpose == Purpose::Live { Purpose::Exercise } else { Purpose::Live };
    assert_eq!(against_transcript(&other, AT), ["ceremony-transcript"]);
    let mut rehearsed = held();
    let (_, What::Opened { rehearsal, .. }) = &mut rehearsed[0] else { panic!() };
    *rehearsal = true;
    assert_eq!(against_transcript(&rehearsed, AT), ["ceremony-transcript"]);
}

#[test]
fn a_transcript_begins_with_its_opening_ends_with_its_close_and_does_what_it_began() {
    let without = |at: usize| {
        let mut whats = held();
        whats.remove(at);
        against_transcript(&whats, AT)
    };
    assert_eq!(without(0), ["ceremony-transcript"]);
    assert_eq!(without(5), ["ceremony-transcript"], "a step that was begun and not done");
    assert_eq!(without(6), ["ceremony-transcript"]);
    assert!(without(4).is_empty(), "done is what counts");
    let mut twice = held();
    twice.insert(6, ("2017-07-21T08:59:00Z", What::Closed {}));
    assert_eq!(against_transcript(&twice, AT), ["ceremony-transcript"]);
    // A line that was changed.
    let octets = lines(&held());
    let told = transcript::told(&octets).unwrap().recorded;
    let changed = String::from_utf8(octets).unwrap().replace("Guest", "Ghost").into_bytes();
    assert!(rules(may_record(&ledger(), &told, &changed, at(AT))).contains(&"ceremony-transcript".to_owned()));
}

#[test]
fn a_transcript_is_no_longer_than_one_that_is_read_again() {
    let of = |text: String| {
        let mut whats = held();
        whats.insert(6, ("2017-07-21T08:59:00Z", What::Remark { step: "closing".into(), text: text.into() }));
        lines(&whats)
    };
    let room = usize::try_from(transcript::TRANSCRIPT_LEN_MAX).unwrap() - of(String::new()).len();
    let longest = of("x".repeat(room));
    assert_eq!(longest.len() as u64, transcript::TRANSCRIPT_LEN_MAX);
    let told = transcript::told(&longest).unwrap().recorded;
    assert!(rules(may_record(&ledger(), &told, &longest, at(AT))).is_empty());
    let longer = of("x".repeat(room + 1));
    assert!(transcript::told(&longer).unwrap_err().text.starts_with("expected at most 16777216 octets"));
    assert_eq!(rules(may_record(&ledger(), &told, &longer, at(AT))), ["ceremony-transcript"]);
}

#[test]
fn a_ceremony_is_over_when_it_is_recorded() {
    assert!(against_transcript(&held(), "2017-07-21T09:00:00Z").is_empty());
    assert_eq!(against_transcript(&held(), "2017-07-21T08:59:59.999Z"), ["ceremony-time"]);
    let mut backwards = held();
    backwards[6].0 = "2017-07-21T07:59:59Z";
    assert_eq!(against_transcript(&backwards, AT), ["ceremony-time"]);
}

#[test]
fn one_conducts_a_ceremony_and_two_bear_witness() {
    let with = |at: usize, who: (&'static str, What)| {
        let mut whats = held();
        whats[at] = who;
        against_transcript(&whats, AT)
    };
    assert!(with(2, present(Some("member-1"), "Member One", Capacity::PmaMember)).is_empty());
    assert_eq!(with(2, present(None, "Guest", Capacity::Engineer)), ["ceremony-people"]);
    assert_eq!(with(2, present(Some("custodian-1"), "Custodian One", Capacity::KeyCustodian)), ["ceremony-people"]);
    assert_eq!(with(1, present(Some("operator-1"), "Operator One", Capacity::Witness)), ["ceremony-people"]);
    assert_eq!(with(2, present(None, "Guest", Capacity::Conductor)), ["ceremony-people"], "two conductors");
    assert_eq!(
        with(2, present(Some("auditor-1"), "Auditor One", Capacity::Witness)),
        ["ceremony-people"],
        "one person"
    );
    // Whoever was there in two sessions was there once.
    let mut again = held();
    again.insert(4, present(None, "Guest", Capacity::Witness));
    assert!(against_transcript(&again, AT).is_empty());
}
