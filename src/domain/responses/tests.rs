use super::bundle::{BundleError, CERTIFICATES_MAX};
use super::messages::{MESSAGES_MAX, Messages, MessagesError, canonical};
use super::results::{in_order, text_of};
use super::*;
use crate::domain::gbcs::proof::Expected;
use crate::domain::gbcs::samples::{
    COUNTER, DEVICE, Key, RECOVERY, alert, command, recovery_update, response, success, two_certificates,
};
use crate::domain::gbcs::{
    AlertCode, CredentialsReplacementMode, ExecutionOutcome, Message, StatusCode, SubjectKeyIdentifier,
};
use crate::domain::ledger::entry::ResponseTally;
use crate::domain::names::{Digest, Eui64};
use crate::domain::policy::facts::IntentState;

const MODE: CredentialsReplacementMode = CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery;
const INTENT: u64 = 41;
const OURS: DeterminationId = DeterminationId([7; 16]);

fn outcome() -> ExecutionOutcome {
    let certificates = two_certificates();
    let supplier = Eui64([0xA0, 0xB1, 0xC2, 0xD3, 0xE4, 1, 0, 0]);
    let ids = [(RECOVERY.0, SubjectKeyIdentifier([0x41; 8])), (supplier, SubjectKeyIdentifier([0x42; 8]))];
    success(&recovery_update(&certificates, &[]), &ids)
}

fn one_failed() -> ExecutionOutcome {
    let mut outcome = outcome();
    outcome.replacements[1].status = StatusCode::NoTrustAnchor;
    outcome
}

fn signed(octets: Vec<u8>) -> Vec<u8> {
    Key::generate().finish(octets)
}

fn recovered() -> Vec<u8> {
    signed(response(MODE, Some(outcome())))
}

fn last() -> DeviceFacts {
    DeviceFacts {
        intent: INTENT,
        determination: OURS,
        template: "esme".parse().unwrap(),
        counter: COUNTER,
        attempt: 1,
        state: IntentState::Signed,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn verified(octets: &[u8]) -> Verified {
    Verified {
        answer: Message::decode(octets).unwrap().into_answer().unwrap(),
        from: at("2026-01-01T00:00:00Z"),
        until: at("2026-12-31T23:59:59Z"),
    }
}

/// What a message of the Device comes to, with what the ledger knows changed by `change`.
fn decided(octets: &[u8], change: impl FnOnce(&mut Facts<'_>, &mut Option<DeviceFacts>, &mut Responded)) -> String {
    let certificates = two_certificates();
    let expected = Expected::from_command(&command(recovery_update(&certificates, &[]))).unwrap();
    let (mut last, mut responded) = (Some(last()), Responded::default());
    let mut facts = Facts {
        at: at("2026-11-24T10:00:00Z"),
        determination: OURS,
        originator: RECOVERY,
        last: None,
        expected: Some(&expected.of),
        earlier: None,
        responded: None,
    };
    change(&mut facts, &mut last, &mut responded);
    let facts = Facts { last: last.as_ref(), responded: Some(&responded), ..facts };
    decide(&Reading::Verified(verified(octets)), &facts).to_string()
}

fn split(file: &[u8]) -> Result<Vec<Vec<u8>>, MessagesError> {
    Messages::split(file.into()).map(|messages| messages.all().into_iter().map(<[u8]>::to_vec).collect())
}

fn kept(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Messages::default();
    for message in messages {
        all.push(message);
    }
    all.into_kept()
}

fn read(octets: &[u8]) -> Result<Vec<Vec<u8>>, MessagesError> {
    let messages = Messages::read(octets.into())?;
    assert_eq!(messages.kept(), kept(&split(octets).unwrap()));
    Ok(messages.all().into_iter().map(<[u8]>::to_vec).collect())
}

#[expect(clippy::unnecessary_wraps, reason = "as the facts have it")]
fn said(entry: u64, intent: u64, outcome: Outcome, detail: &str) -> Option<OwnResult> {
    Some(OwnResult { entry, intent, outcome, detail: detail.into() })
}

#[test]
fn only_an_answer_that_says_so_of_every_cell_proves_a_recovery() {
    let check =
        |octets: &[u8], expected: &str| assert_eq!(decided(octets, |_, _, _| {}), format!("{DEVICE},{expected}"));
    check(&recovered(), "41,recovered");
    check(&signed(response(MODE, Some(one_failed()))), "41,failed,supplier digitalSignature: noTrustAnchor");
    check(&signed(response(MODE, None)), "41,accepted");
    check(
        &signed(alert(AlertCode::FUTURE_DATED_SUCCESS, outcome())),
        "41,alert,0x8F66 future-dated command actioned successfully: 2 of 2 cells replaced",
    );
    let failed = decided(&signed(alert(AlertCode::FUTURE_DATED_FAILURE, one_failed())), |_, _, _| {});
    assert!(failed.contains("41,alert,0x8F67") && failed.ends_with(": 1 of 2 cells replaced"), "{failed}");
}

#[test]
fn whatever_our_own_command_cannot_have_done_is_foreign() {
    let foreign =
        |octets: &[u8], change: fn(&mut Facts<'_>, &mut Option<DeviceFacts>, &mut Responded), expected: &str| {
            let found = decided(octets, change);
            assert!(found.contains(",foreign,counter 7000: ") && found.contains(expected), "{found}");
        };
    let mut other = outcome();
    other.replacements[0].replacing_key_id = SubjectKeyIdentifier([0x99; 8]);
    foreign(&signed(response(MODE, Some(other.clone()))), |_, _, _| {}, "not an answer to the command of intent 41");
    foreign(&signed(alert(AlertCode::FUTURE_DATED_SUCCESS, other)), |_, _, _| {}, "not an answer");
    foreign(&recovered(), |_, last, _| *last = None, "no command with this counter was signed");
    for counter in [COUNTER - 1, COUNTER + 1] {
        let octets = recovered();
        let certificates = two_certificates();
        let expected = Expected::from_command(&command(recovery_update(&certificates, &[]))).unwrap();
        let last = DeviceFacts { counter, ..last() };
        let facts = Facts {
            at: at("2026-11-24T10:00:00Z"),
            determination: OURS,
            originator: RECOVERY,
            last: Some(&last),
            expected: Some(&expected.of),
            earlier: None,
            responded: None,
        };
        let reading = Reading::Verified(verified(&octets));
        assert_eq!(decide(&reading, &facts).outcome, Outcome::Foreign, "{counter}");
        let earlier = Facts { earlier: Some(12), ..facts };
        let line = decide(&reading, &earlier);
        assert_eq!((line.outcome, line.intent), (Outcome::Unmatched, Some(12)), "{counter}");
    }
    // What is known as foreign is not told twice, or whoever sends a file again would stop the signing again.
    let again = decided(&recovered(), |_, last, responded| {
        *last = None;
        responded.foreign = Some(COUNTER);
    });
    assert!(again.contains(",duplicate,"), "{again}");
}

#[test]
fn every_state_of_an_intent_either_may_be_answered_or_makes_the_answer_foreign() {
    for state in IntentState::ALL {
        let certificates = two_certificates();
        let expected = Expected::from_command(&command(recovery_update(&certificates, &[]))).unwrap();
        let last = DeviceFacts { state, ..last() };
        let octets = recovered();
        let facts = Facts {
            at: at("2026-11-24T10:00:00Z"),
            determination: OURS,
            originator: RECOVERY,
            last: Some(&last),
            expected: Some(&expected.of),
            earlier: None,
            responded: None,
        };
        let outcome = decide(&Reading::Verified(verified(&octets)), &facts).outcome;
        let may = matches!(state, IntentState::Open | IntentState::Signed | IntentState::Unknown | IntentState::Left);
        assert_eq!(outcome, if may { Outcome::Recovered } else { Outcome::Foreign }, "{state:?}");
    }
}

#[test]
fn answers_to_others_prove_nothing_here() {
    let party = decided(&recovered(), |facts, _, _| facts.originator = PartyId(Eui64([9; 8])));
    assert!(party.contains("-,unmatched,an answer to A0B1C2D3E4000001, not to 0909090909090909"), "{party}");
    let determination = decided(&recovered(), |facts, _, _| facts.determination = DeterminationId([8; 16]));
    assert!(determination.contains("41,unmatched,an answer to a command under determination 0707"), "{determination}");
}

#[test]
fn a_certificate_counts_from_its_first_second_to_the_end_of_its_last() {
    for (now, expected) in [
        ("2025-12-31T23:59:59.999Z", "unverified"),
        ("2026-01-01T00:00:00Z", "recovered"),
        ("2026-12-31T23:59:59.999Z", "recovered"),
        ("2027-01-01T00:00:00Z", "unverified"),
    ] {
        let found = decided(&recovered(), |facts, _, _| facts.at = at(now));
        assert!(found.contains(expected), "{now}: {found}");
    }
}

#[test]
fn what_a_device_said_before_makes_the_same_a_duplicate_and_another_thing_a_contradiction() {
    let failed = "supplier digitalSignature: noTrustAnchor";
    let check = |octets: Vec<u8>, before: Option<OwnResult>, expected: &str| {
        let found = decided(&octets, |_, _, responded| responded.own = before);
        assert!(found.starts_with(&format!("{DEVICE},41,{expected}")), "{found}");
    };
    let fails = || signed(response(MODE, Some(one_failed())));
    check(recovered(), said(5, INTENT, Outcome::Recovered, ""), "duplicate,entry 5 has recovered");
    check(fails(), said(5, INTENT, Outcome::Failed, failed), "duplicate,entry 5 has failed");
    check(recovered(), said(5, INTENT, Outcome::Failed, failed), "contradiction,it says recovered; entry 5 has failed");
    check(fails(), said(5, INTENT, Outcome::Recovered, ""), "contradiction,it says failed");
    check(fails(), said(5, INTENT, Outcome::Failed, "another cell"), "contradiction,");
    check(recovered(), said(5, INTENT, Outcome::Contradiction, "both"), "contradiction,");
    // Acceptance says nothing of execution, so what comes after it is news, and it is none after what came.
    check(recovered(), said(5, INTENT, Outcome::Accepted, ""), "recovered");
    check(fails(), said(5, INTENT, Outcome::Accepted, ""), "failed");
    check(signed(response(MODE, None)), said(5, INTENT, Outcome::Recovered, ""), "duplicate,");
    // What it said of an intent before this one is another matter.
    check(recovered(), said(5, INTENT - 1, Outcome::Failed, failed), "recovered");
}

#[test]
fn what_is_no_answer_is_malformed_and_what_nobody_vouches_for_is_unverified() {
    let none = Candidates::default();
    let malformed = |octets: &[u8], expected: &str| match Reading::of(octets, &none) {
        Reading::Malformed { why } => assert!(why.contains(expected), "{why}"),
        other => panic!("{other:?}"),
    };
    let octets = recovered();
    malformed(&octets[..60], "octet");
    malformed(&[0x41], "octet 0");
    let certificates = two_certificates();
    malformed(&command(recovery_update(&certificates, &[])), "found a Command");
    match Reading::of(&octets, &none) {
        Reading::Unverified { device, why } => assert_eq!((device, why.contains("no certificate")), (DEVICE, true)),
        other => panic!("{other:?}"),
    }
    // Both are told in a line, without the ledger being asked anything.
    let facts = Facts {
        at: Timestamp::MIN,
        determination: OURS,
        originator: RECOVERY,
        last: None,
        expected: None,
        earlier: None,
        responded: None,
    };
    let line = |reading: Reading| decide(&reading, &facts).to_string();
    assert_eq!(line(Reading::Malformed { why: "octet 3: x\ny".into() }), "-,-,malformed,octet 3: x y");
    assert_eq!(line(Reading::Unverified { device: DEVICE, why: "x".into() }), format!("{DEVICE},-,unverified,x"));
}

#[test]
fn a_file_of_messages_is_told_apart_and_has_one_text() {
    let (a, b) = (recovered(), signed(response(MODE, Some(one_failed()))));
    let all = vec![a.clone(), b.clone()];
    let text = canonical(&all);
    assert_eq!(text.lines().count(), 2);
    for file in [text.clone(), text.to_uppercase(), format!("\r\n{}\r\n\n{}", hex::encode(&a), hex::encode(&b))] {
        assert_eq!(split(file.as_bytes()).unwrap(), all);
    }
    assert_eq!(split(&[&a[..], &b].concat()).unwrap(), all);
    assert_eq!(read(text.as_bytes()).unwrap(), all);
    assert_eq!(read(text.to_uppercase().as_bytes()), Err(MessagesError::NotCanonical));
    assert_eq!(split(b""), Err(MessagesError::Empty));
    assert_eq!(split(b"\n\n"), Err(MessagesError::Empty));
    assert!(matches!(split(b"DF09\nDF0\n"), Err(MessagesError::Line { line: 2, .. })));
    // A message that is cut, or followed by something else, takes the rest with it.
    let cut = [&a[..], &b[..100]].concat();
    assert_eq!(split(&cut).unwrap(), [a.clone(), b[..100].to_vec()]);
    let mut torn = [&a[..], &b, &a].concat();
    torn[a.len()] = 0;
    assert_eq!(split(&torn).unwrap().len(), 2);
    assert_eq!(split(&b"00\n".repeat(MESSAGES_MAX)).unwrap().len(), MESSAGES_MAX);
    assert_eq!(split(&b"00\n".repeat(MESSAGES_MAX + 1)), Err(MessagesError::TooMany));
}

#[test]
fn results_are_lines_sorted_by_device_that_are_read_back_in_one_form() {
    let device = |n: u8| Some(DeviceId(Eui64([n; 8])));
    let lines = [
        ResultLine::new(device(2), Some(7), Outcome::Failed, "a: x; b, c: y"),
        ResultLine::new(None, None, Outcome::Malformed, "octet 3"),
        ResultLine::new(device(1), Some(9), Outcome::Recovered, ""),
        ResultLine::new(device(2), None, Outcome::Foreign, &ResultLine::foreign_detail(7_009, "never signed")),
    ];
    let sorted: Vec<ResultLine> = in_order(&lines).into_iter().cloned().collect();
    let (text, tally) = text_of(&sorted);
    assert_eq!(
        text,
        "-,-,malformed,octet 3\n0101010101010101,9,recovered\n0202020202020202,7,failed,a: x; b, c: y\n\
         0202020202020202,-,foreign,counter 7009: never signed\n"
    );
    assert_eq!((tally.messages(), tally.recovered, tally.failed, tally.foreign, tally.malformed), (4, 1, 1, 1, 1));
    let read: Vec<_> = text.lines().map(|line| ResultLine::parse(line).unwrap()).collect();
    assert_eq!(read, [&lines[1], &lines[2], &lines[0], &lines[3]].map(Clone::clone));
    assert_eq!(read, sorted);
    for wrong in ["", "0101010101010101,9", "0101010101010101,09,recovered", "x,9,recovered", "-,-,lost", "-,-,alert,"]
    {
        assert!(ResultLine::parse(wrong).is_err(), "{wrong}");
    }
    for outcome in Outcome::ALL {
        assert_eq!(outcome.as_str().parse(), Ok(outcome));
        let mut tally = ResponseTally::default();
        outcome.count(&mut tally);
        assert_eq!(tally.messages(), 1);
    }
}

#[test]
fn what_is_kept_of_a_device_is_what_it_proved_last_and_the_last_foreign_counter() {
    let mut kept = Responded::default();
    let line = |outcome, detail: &str| ResultLine::new(Some(DEVICE), Some(INTENT), outcome, detail);
    for outcome in [Outcome::Alert, Outcome::Unmatched, Outcome::Unverified, Outcome::Malformed, Outcome::Duplicate] {
        assert!(!kept.absorb(&line(outcome, "x"), 3), "{outcome}");
    }
    assert_eq!(kept, Responded::default());
    assert!(kept.absorb(&line(Outcome::Foreign, &ResultLine::foreign_detail(88, "x")), 3));
    assert!(kept.absorb(&line(Outcome::Recovered, ""), 4));
    assert_eq!(kept, Responded { own: said(4, INTENT, Outcome::Recovered, ""), foreign: Some(88) });
    assert!(kept.absorb(&line(Outcome::Contradiction, "both"), 5));
    assert_eq!(kept, Responded { own: said(5, INTENT, Outcome::Contradiction, "both"), foreign: Some(88) });
}

#[test]
fn messages_are_kept_as_octets_where_each_says_where_it_ends_and_else_as_text() {
    let (one, two) = (recovered(), signed(response(MODE, Some(one_failed()))));
    let whole = [one.clone(), two.clone()];
    assert_eq!(kept(&whole), [one.clone(), two.clone()].concat());
    assert_eq!(read(&kept(&whole)).unwrap(), whole);
    // As older entries have them.
    assert_eq!(read(canonical(&whole).as_bytes()).unwrap(), whole);
    for cut in
        [vec![one.clone(), two[..two.len() - 1].to_vec()], vec![one[..9].to_vec(), two.clone()], vec![vec![0xDD; 9]]]
    {
        assert_eq!(kept(&cut), canonical(&cut).into_bytes());
        assert_eq!(read(&kept(&cut)).unwrap(), cut);
    }
    let not_kept = [[&one[..], &two[..9]].concat(), vec![0xDD; 9], hex::encode_upper(&one).into_bytes()];
    for octets in not_kept {
        assert_eq!(read(&octets), Err(MessagesError::NotCanonical));
    }
}

#[test]
fn a_bundle_is_taken_apart_by_the_lengths_in_it_up_to_what_one_entry_takes() {
    let certificate =
        |len: usize| [&[0x30, 0x82][..], &u16::try_from(len).unwrap().to_be_bytes(), &vec![7; len]].concat();
    let short = [&[0x30, 0x81, 0x80][..], &[7; 128]].concat();
    let all = [certificate(256), short.clone(), certificate(65_535)];
    assert_eq!(bundle::split(&all.concat()).unwrap(), all);
    assert_eq!(bundle::split(b"").unwrap(), Vec::<&[u8]>::new());
    let wrong = |octets: &[u8], octet| assert_eq!(bundle::split(octets), Err(BundleError::NotDer { octet }));
    wrong(&[&short[..], &short[..130]].concat(), 131);
    // Lengths that DER writes otherwise, and another type.
    wrong(&[&[0x30, 0x81, 0x7F][..], &[7; 127]].concat(), 0);
    wrong(&[&[0x30, 0x82, 0, 0x80][..], &[7; 128]].concat(), 0);
    wrong(&[&[0x31, 0x81, 0x80][..], &[7; 128]].concat(), 0);
    assert_eq!(bundle::split(&short.repeat(CERTIFICATES_MAX)).unwrap().len(), CERTIFICATES_MAX);
    assert_eq!(bundle::split(&short.repeat(CERTIFICATES_MAX + 1)), Err(BundleError::TooMany));
}

#[test]
fn imported_keys_are_relied_on_while_the_policy_has_their_device_ca_and_only_those_that_came_before() {
    let trust = Trust::of_anchors(Vec::new(), crate::domain::certificates::Profile::test());
    let key = DeviceKey {
        device: DEVICE,
        point: [4; 65],
        device_ca: Digest([1; 32]),
        from: at("2026-01-01T00:00:00Z"),
        until: at("2026-12-31T23:59:59Z"),
    };
    assert_eq!(trust.relied_on(vec![ImportedKey { key, entry: 3 }], 9), [], "the policy has no such Device CA");
    for (moment, is_in_force) in [
        ("2025-12-31T23:59:59.999Z", false),
        ("2026-01-01T00:00:00Z", true),
        ("2026-12-31T23:59:59.999Z", true),
        ("2027-01-01T00:00:00Z", false),
    ] {
        assert_eq!(key.is_in_force(at(moment)), is_in_force, "{moment}");
    }
}
