use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::domain::gbcs::samples::{
    COUNTER, Key, alert, command, contingency_update, framed, header, maced_command, pre_command, recovery_update,
    response, seq, success, two_certificates,
};
use crate::domain::gbcs::{
    AlertCode, CredentialsReplacementMode, MESSAGE_LEN_MAX, PlaintextSymmetricKey, SubjectKeyIdentifier,
    TrustAnchorCell, Update,
};
use crate::domain::gbcs::{KeyUsage, RemotePartyRole};
use crate::domain::names::Eui64;

const RECOVERY: CredentialsReplacementMode = CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery;

fn written(message: &Message<'_>) -> Vec<u8> {
    let mut octets = Vec::new();
    message.encode(&mut octets).unwrap();
    octets
}

/// One message of every shape.
fn messages() -> Vec<Vec<u8>> {
    let (certificates, path) = (two_certificates(), [framed(420)]);
    let update = recovery_update(&certificates, &path);
    let mode = |mode| Update { mode, ..update.clone() };
    let ids = [(Eui64([1; 8]), SubjectKeyIdentifier([0x41; 8])); 2];
    let key = Key::generate();
    let mut messages = vec![
        pre_command(update.clone()),
        key.finish(response(RECOVERY, None)),
        key.finish(response(RECOVERY, Some(success(&update, &ids)))),
        key.finish(alert(AlertCode::FUTURE_DATED_SUCCESS, success(&update, &ids))),
        maced_command(mode(CredentialsReplacementMode::AccessControlBrokerByACB), false),
    ];
    for each in CredentialsReplacementMode::ALL {
        messages.push(if each.is_never_maced() { command(mode(*each)) } else { maced_command(mode(*each), true) });
    }
    messages
}

#[test]
fn every_shape_of_message_is_written_as_it_was_read() {
    for octets in messages() {
        let message = Message::decode(&octets).unwrap();
        assert_eq!(written(&message), octets);
        assert_eq!(message.frame.octets, octets);
    }
}

#[test]
fn a_recovery_command_of_eight_replacements_is_as_long_as_a_genuine_one() {
    let certificates: Vec<_> = [406, 432, 406, 407, 407, 407, 407, 406].into_iter().map(framed).collect();
    let path = [framed(420)];
    let octets = command(recovery_update(&certificates, &path));
    assert_eq!(octets.len(), 3986);
    let message = Message::decode(&octets).unwrap();
    assert_eq!(message.frame.payload, 36..3921);
    // The control field, octet for octet: mode, disapply, recovery cell, counter 7000, floor 0, the other roles' floors.
    let control = "3042020108810101A2070201010302078083021B58840100A62A\
                   3010020102020100300830060201000201003006020103020100300602010402010030060201050201 00";
    assert_eq!(hex::encode_upper(&octets[40..108]), control.replace(' ', ""));
    assert_eq!(octets[116..522], certificates[0]);
    assert_eq!(hex::encode_upper(&octets[522..531]), "300702010103020780");
    assert_eq!(hex::encode_upper(&octets[1806..1818]), "300A020102030203080201 01".replace(' ', ""));
    assert_eq!(octets[3501..3921], path[0]);
}

#[test]
fn openssl_reads_what_is_written() {
    let certificates = two_certificates();
    let octets = command(recovery_update(&certificates, &certificates[..1]));
    let mut child = std::process::Command::new("openssl")
        .args(["asn1parse", "-inform", "DER"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let payload = Message::decode(&octets).unwrap().frame.payload_octets().to_vec();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &payload).unwrap();
    let answer = child.wait_with_output().unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.status.success(), "{text}");
    assert_eq!(text.matches("uniqueIdentifier").count() + text.matches("x500UniqueIdentifier").count(), 3, "{text}");
    assert!(text.contains("cont [ 3 ]"), "{text}");
}

#[test]
fn the_header_and_a_commands_payload_agree_on_mode_and_counter() {
    #[track_caller]
    fn check(octets: &[u8], at: usize, value: u8, expected: &str) {
        let mut octets = octets.to_vec();
        octets[at] = value;
        let error = Message::decode(&octets).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let octets = pre_command(recovery_update(&[], &[]));
    assert!(octets.len() - 35 < 128, "the header ends at octet 34");
    check(&octets, 10, 0x59, "expected authorisingRemotePartySeqNumber 7001 as in the header, found 7000");
    check(&octets, 3, 0x80, "expected authorisingRemotePartySeqNumber 9223372036854782808 as in the header");
    check(&octets, 32, 7, "expected credentialsReplacementMode 7 as in the header, found 8");
    let ids = [(Eui64([1; 8]), SubjectKeyIdentifier([0x41; 8]))];
    let certificates = [framed(10)];
    let outcome = success(&recovery_update(&certificates, &[]), &ids);
    let octets = Key::generate().finish(response(RECOVERY, Some(outcome)));
    check(&octets, 44, 9, "expected credentialsReplacementMode 9 as in the header, found 8");
}

#[test]
fn parts_that_make_no_message_are_not_written() {
    let payload = Payload::Response(ResponsePayload { outcome: None });
    let refused = |header: &Header| encode_unsigned(header, &payload, &mut Vec::new()).unwrap_err().to_string();
    let text = refused(&header(Cra::Command, RECOVERY.message_code()));
    assert!(text.contains("expected CRA Flag 1 as in the header, found 2"), "{text}");
    let text = refused(&header(Cra::Response, MessageCode::FutureDatedExecution));
    assert!(text.contains("expected Message Code and CRA Flag 203"), "{text}");
}

#[test]
fn a_symmetric_key_is_written_in_mode_9_and_in_no_other_and_only_a_pre_command_waits_for_it() {
    let octets = [0xEE; 32];
    let key = || PlaintextSymmetricKey::new(&octets);
    let written = |update: Update<'_>, plaintext_symmetric_key, authentication| {
        let header = header(Cra::Command, update.mode.message_code());
        let payload = CommandPayload { update, seq_number: seq(COUNTER), plaintext_symmetric_key };
        let mut octets = Vec::new();
        let done = encode(&header, &Payload::Command(payload), authentication, &mut octets);
        done.map(|()| octets).map_err(|error| error.to_string())
    };
    let (pre_command, signed) = (Authentication::PreCommand, Authentication::Signed(&[1; 64]));
    for authentication in [pre_command, signed] {
        assert!(written(contingency_update(&[], &[]), key(), authentication).is_ok());
        assert!(written(recovery_update(&[], &[]), None, authentication).is_ok());
        let error = written(recovery_update(&[], &[]), key(), authentication).unwrap_err();
        assert!(error.contains("in no mode but anyByContingency, found it present"), "{error}");
    }
    let unfilled = written(contingency_update(&[], &[]), None, pre_command).unwrap();
    assert!(Message::decode_unfilled(&unfilled).is_ok());
    let error = written(contingency_update(&[], &[]), None, signed).unwrap_err();
    assert!(error.contains("in a signed Command of mode anyByContingency, found it absent"), "{error}");
}

#[test]
fn a_command_too_long_for_any_message_is_not_written() {
    let certificates = [framed(60_000), framed(6_000)];
    let payload = CommandPayload {
        update: recovery_update(&certificates, &[]),
        seq_number: seq(COUNTER),
        plaintext_symmetric_key: None,
    };
    let header = header(Cra::Command, RECOVERY.message_code());
    let refused = encode_unsigned(&header, &Payload::Command(payload), &mut Vec::new());
    assert!(matches!(refused, Err(EncodeError::TooLong { found: 66_000.. })), "{refused:?}");
}

#[test]
fn long_forms_of_lengths_are_accepted_on_responses_and_alerts_and_refused_on_commands() {
    let certificates = [framed(20), framed(20)];
    let update = recovery_update(&certificates, &[]);
    let ids = [(Eui64([1; 8]), SubjectKeyIdentifier([0x41; 8])); 2];
    let key = Key::generate();
    let mut seen = 0;
    for unsigned in [
        pre_command(update.clone()),
        response(RECOVERY, Some(success(&update, &ids))),
        alert(AlertCode::FUTURE_DATED_SUCCESS, success(&update, &ids)),
    ] {
        let header_len = if unsigned[2] == 2 { 45 } else { 33 };
        assert_eq!(unsigned[header_len], 0x81, "the content is 128 to 255 octets");
        let mut wide = unsigned[..header_len].to_vec();
        wide.extend([0x81, unsigned[header_len + 1] + 1]);
        let payload = &unsigned[header_len + 2..];
        assert_eq!(payload[..2], [0x30, 0x81]);
        wide.extend([&[0x30, 0x82, 0x00], &payload[2..]].concat());
        let (wide, strict) = (key.finish(wide), key.finish(unsigned));
        let strict = Message::decode(&strict).unwrap();
        match (Message::decode(&wide), strict.frame.header.cra) {
            (Err(error), Cra::Command) => {
                let text = error.to_string();
                assert!(text.starts_with("octet 36: expected a minimal length"), "{text}");
            }
            (Ok(wide), Cra::Response | Cra::Alert) => {
                assert_eq!(wide.payload, strict.payload);
                assert_eq!(
                    written(&wide)[..wide.frame.payload.start],
                    strict.frame.octets[..strict.frame.payload.start]
                );
            }
            (other, cra) => panic!("{cra}: {other:?}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn every_cut_of_a_message_is_refused_but_for_its_pre_command() {
    for octets in messages() {
        let message = Message::decode(&octets).unwrap();
        let is_maced = message.frame.mac().is_some();
        for cut in 0..octets.len() {
            let is_pre_command =
                message.frame.header.cra == Cra::Command && !is_maced && cut == message.frame.payload.end;
            assert_eq!(Message::decode(&octets[..cut]).is_ok(), is_pre_command, "{cut}");
        }
    }
}

#[test]
fn every_changed_octet_of_a_message_is_refused_or_says_something_else() {
    for octets in messages() {
        let message = Message::decode(&octets).unwrap();
        let mut changed = octets.clone();
        for at in 0..octets.len() {
            for bits in [0x01, 0x80, 0xFF] {
                changed[at] = octets[at] ^ bits;
                let of = |frame: Result<Frame<'_>, _>| frame.and_then(Answer::from_frame);
                let answer = Message::decode(&changed).map(Message::into_answer);
                assert_eq!(of(Frame::parse(&changed)), answer, "octet {at}");
                if let Ok(other) = Message::decode(&changed) {
                    assert!(
                        (&other.payload, &other.frame.header, other.frame.authentication)
                            != (&message.payload, &message.frame.header, message.frame.authentication),
                        "octet {at}"
                    );
                    if other.frame.header.cra == Cra::Command {
                        assert_eq!(written(&other), changed, "octet {at}");
                    }
                }
            }
            changed[at] = octets[at];
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it measures how long a refusal takes")]
fn deep_nesting_and_huge_lengths_are_refused_at_once() {
    let started = Instant::now();
    let octets = pre_command(recovery_update(&[], &[]));
    let with_payload = |payload: &[u8]| {
        let mut message = octets[..33].to_vec();
        message.push(0x82);
        message.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        message.extend(payload);
        message
    };
    // Tag, length of two octets, contents; so deep that a reader that recursed would have no stack left.
    let mut nested = Vec::new();
    for left in (0..PAYLOAD_LEN / 4).rev() {
        nested.extend([0x30, 0x82]);
        nested.extend(u16::try_from(4 * left).unwrap().to_be_bytes());
    }
    for message in [
        with_payload(&nested),
        with_payload(&vec![0x30; PAYLOAD_LEN]),
        with_payload(&[&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF][..], &[0; 300]].concat()),
        vec![0x30; 10_000_000],
        vec![0xDF; MESSAGE_LEN_MAX],
    ] {
        assert!(Message::decode(&message).is_err());
    }
    assert!(started.elapsed() < Duration::from_secs(1));
}

const PAYLOAD_LEN: usize = 60_000;

#[test]
fn a_list_of_the_smallest_elements_decodes_without_taking_much_room() {
    let cell = TrustAnchorCell::management(RemotePartyRole::Root, KeyUsage::KeyCertSign);
    let mut update = recovery_update(&[], &[]);
    let certificate: &[u8] = &[0x30, 0x00];
    update.replacements = vec![crate::domain::gbcs::Replacement { certificate, cell }; 4000];
    let octets = command(update);
    match Message::decode(&octets).unwrap().payload {
        Payload::Command(payload) => {
            let room = payload.update.replacements.capacity() * size_of::<crate::domain::gbcs::Replacement<'_>>();
            assert_eq!(payload.update.replacements.len(), 4000);
            assert!(room <= 8 * octets.len(), "{room} octets for {}", octets.len());
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn arbitrary_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Message::decode(&octets);
    }

    #[test]
    fn a_payload_of_arbitrary_octets_never_panics_and_a_command_is_written_as_it_was_read(
        payload in proptest::collection::vec(
            prop_oneof![Just(0x30_u8), Just(0x02), Just(0x01), Just(0x00), Just(0x82), Just(0x81), any::<u8>()], 0..300),
        cra in 1_u8..=3,
    ) {
        let mut octets = pre_command(recovery_update(&[], &[]))[..33].to_vec();
        octets[2] = cra;
        if cra == 3 {
            octets[31..33].copy_from_slice(&[0x00, 0xCB]);
        }
        crate::domain::gbcs::der::write_length(&mut octets, payload.len());
        octets.extend(&payload);
        octets.push(64);
        octets.extend([7; 64]);
        if let Ok(message) = Message::decode(&octets) {
            prop_assert!(message.frame.header.cra != Cra::Command || written(&message) == octets);
        }
    }

    #[test]
    fn a_message_with_a_few_changed_octets_never_panics_and_a_command_is_written_as_it_was_read(
        which in 0_usize..15,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let messages = messages();
        let mut octets = messages[which % messages.len()].clone();
        for (at, value) in changes {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        if let Ok(message) = Message::decode(&octets) {
            prop_assert!(message.frame.header.cra != Cra::Command || written(&message) == octets);
        }
    }
}
