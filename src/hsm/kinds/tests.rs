use std::time::{Duration, Instant};

use super::*;
use crate::domain::certificates::bodies::certification_request_info;
use crate::domain::certificates::subject::OrganisationSubject;
use crate::domain::gbcs::samples::{self, Key, framed, recovery_update};
use crate::domain::gbcs::{PlaintextSymmetricKey, SeqNumber, Update, encode_unsigned, take_symmetric_key};

const ORIGIN: &str = "smki.example/ledger";

/// The signed range of a command of this mode with so many replacements of 420 octets.
fn of_mode(mode: CredentialsReplacementMode, replacements: usize) -> Vec<u8> {
    let certificates = vec![framed(420); replacements];
    let message = samples::pre_command(Update { mode, ..recovery_update(&certificates, &[]) });
    message[1..].to_vec()
}

const RECOVERY: CredentialsReplacementMode = CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery;
const CONTINGENCY: CredentialsReplacementMode = CredentialsReplacementMode::AnyByContingency;

fn public(key: &Key) -> PublicKey {
    PublicKey::from_point(&key.point).unwrap()
}

fn verdict(use_: KeyUse, kind: Kind, octets: &[u8], spki: &[u8]) -> Result<(), KindError> {
    let origin = ORIGIN.parse().unwrap();
    permitted(use_, kind, &Shown::new(octets), Facts { spki, origin: Some(&origin) })
}

/// `expected`: a part of why the octets are refused, or `None` when they are taken.
#[track_caller]
fn check(use_: KeyUse, kind: Kind, octets: &[u8], spki: &[u8], expected: Option<&str>) {
    match (verdict(use_, kind, octets, spki), expected) {
        (Ok(()), None) => {}
        (Err(KindError::Form { kind: found, why }), Some(expected)) => {
            assert_eq!(found, kind);
            assert!(why.contains(expected), "expected {expected:?}, found {why}");
        }
        (found, expected) => panic!("expected {expected:?}, found {found:?}"),
    }
}

#[track_caller]
fn check_command(use_: KeyUse, octets: &[u8], expected: Option<&str>) {
    check(use_, Kind::Command, octets, &[], expected);
}

#[track_caller]
fn check_checkpoint(text: &str, expected: Option<&str>) {
    check(KeyUse::Ledger, Kind::Checkpoint, text.as_bytes(), &[], expected);
}

#[test]
fn each_key_signs_its_own_kinds_and_no_other() {
    let uses = [KeyUse::Ledger, KeyUse::Recovery, KeyUse::Contingency];
    let kinds = [Kind::Command, Kind::CertificationRequest, Kind::Checkpoint];
    for use_ in uses {
        for kind in kinds {
            let suits = (use_ == KeyUse::Ledger) == (kind == Kind::Checkpoint);
            let refused_by_use = verdict(use_, kind, b"", &[]) == Err(KindError::Use { use_, kind });
            assert_eq!(refused_by_use, !suits, "{use_} {kind}");
        }
    }
}

#[test]
fn a_command_is_signed_by_the_key_of_its_mode() {
    for replacements in [1, 2, 8] {
        check_command(KeyUse::Recovery, &of_mode(RECOVERY, replacements), None);
        check_command(KeyUse::Contingency, &of_mode(CONTINGENCY, replacements), None);
        check_command(KeyUse::Recovery, &of_mode(CONTINGENCY, replacements), Some("0108 of this key, found 0109"));
        check_command(KeyUse::Contingency, &of_mode(RECOVERY, replacements), Some("0109 of this key, found 0108"));
    }
    check_command(KeyUse::Recovery, &of_mode(CredentialsReplacementMode::SupplierBySupplier, 1), Some("found 0102"));
}

#[test]
fn a_contingency_command_has_an_aes_key_inside_and_a_recovery_command_has_none() {
    let certificates = vec![framed(420)];
    let update = |mode| Update { mode, ..recovery_update(&certificates, &[]) };
    let of_len = |len: usize| {
        let unfilled = take_symmetric_key(&samples::pre_command(update(CONTINGENCY))).unwrap().1;
        if len == 0 {
            return unfilled;
        }
        let header = samples::header(Cra::Command, CONTINGENCY.message_code());
        let octets = vec![0xEE; len];
        let key = PlaintextSymmetricKey::new(&octets);
        let seq_number = SeqNumber::new(samples::COUNTER).unwrap();
        let payload = CommandPayload { update: update(CONTINGENCY), seq_number, plaintext_symmetric_key: key };
        let mut whole = Vec::new();
        encode_unsigned(&header, &Payload::Command(payload), &mut whole).unwrap();
        whole
    };
    for len in [16, 32] {
        check_command(KeyUse::Contingency, &of_len(len)[1..], None);
    }
    for len in [1, 15, 17, 24, 31, 33, 64] {
        check_command(
            KeyUse::Contingency,
            &of_len(len)[1..],
            Some("a plaintextSymmetricKey of 16 or 32 octets, found"),
        );
    }
    // What stands in templates and in the ledger, with the place of the key empty, is signed by nothing.
    check_command(KeyUse::Contingency, &of_len(0)[1..], Some("plaintextSymmetricKey"));
    // A key in a command of mode 8, whose lengths are right.
    let mut mixed = of_len(32)[1..].to_vec();
    let code = mixed.windows(2).position(|octets| octets == [0x01, 0x09]).unwrap();
    mixed[code + 1] = 0x08;
    let mode = mixed.windows(3).position(|octets| octets == [0x02, 0x01, 0x09]).unwrap();
    mixed[mode + 2] = 0x08;
    check_command(KeyUse::Recovery, &mixed, Some("plaintextSymmetricKey in no mode but anyByContingency"));
}

#[test]
fn only_a_whole_unsigned_command_is_signed() {
    let good = of_mode(RECOVERY, 8);
    check_command(KeyUse::Recovery, &[&[0xdf], &good[..]].concat(), Some("octet 1"));
    check_command(KeyUse::Recovery, &good[..good.len() - 1], Some("octet"));
    check_command(KeyUse::Recovery, &[&good[..], &[0]].concat(), Some("octet"));
    for len in (0..good.len()).step_by(7) {
        assert!(verdict(KeyUse::Recovery, Kind::Command, &good[..len], &[]).is_err());
    }
    // A signed one, and a Response.
    let certificates = vec![framed(420)];
    let signed = samples::command(recovery_update(&certificates, &[]));
    check_command(KeyUse::Recovery, &signed[1..], Some("found a signature"));
    let response = Key::generate().finish(samples::response(RECOVERY, None));
    check_command(KeyUse::Recovery, &response[1..], Some("expected a Command"));
    // The message code of mode 8 over a payload of mode 9.
    let mut mixed = of_mode(CONTINGENCY, 1);
    assert_eq!(mixed[29..32], [0x02, 0x01, 0x09]);
    mixed[31] = 0x08;
    assert!(verdict(KeyUse::Recovery, Kind::Command, &mixed, &[]).is_err());
    // The counter in the payload is that of the header.
    let mut other_counter = good;
    other_counter[9] ^= 1;
    assert!(verdict(KeyUse::Recovery, Kind::Command, &other_counter, &[]).is_err());
}

#[test]
fn a_command_is_judged_in_microseconds() {
    const ROUNDS: u32 = 200;
    // 10 µs in an optimised build; this bound holds in one that is not, on a busy machine, and tells apart what is quadratic.
    const MOST: Duration = Duration::from_millis(1);
    let octets = of_mode(RECOVERY, 8);
    let from = Instant::now();
    for _ in 0..ROUNDS {
        check_command(KeyUse::Recovery, &octets, None);
    }
    let each = from.elapsed() / ROUNDS;
    println!("{each:?} for a command of {} octets", octets.len());
    assert!(each < MOST, "{each:?}");
}

#[test]
fn no_digest_is_of_any_kind() {
    let spki = public(&Key::generate()).to_spki();
    for octets in [[0u8; 32], [0x30; 32], [0x09; 32], [b'\n'; 32]] {
        for (use_, kind) in [
            (KeyUse::Recovery, Kind::Command),
            (KeyUse::Contingency, Kind::Command),
            (KeyUse::Recovery, Kind::CertificationRequest),
            (KeyUse::Ledger, Kind::Checkpoint),
        ] {
            assert!(verdict(use_, kind, &octets, &spki).is_err(), "{use_} {kind}");
        }
    }
}

#[test]
fn a_checkpoint_is_three_lines_of_our_ledger() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    check_checkpoint(&format!("{ORIGIN}\n0\n{root}\n"), None);
    check_checkpoint(&format!("{ORIGIN}\n42\n{root}\n"), None);
    check_checkpoint(&format!("{ORIGIN}\n{}\n{root}\n", u64::MAX), None);
    check_checkpoint(&format!("{ORIGIN}\n18446744073709551616\n{root}\n"), Some("line 2"));
    check_checkpoint(&format!("{ORIGIN}\n042\n{root}\n"), Some("line 2"));
    check_checkpoint(&format!("another/ledger\n42\n{root}\n"), Some("expected the origin"));
    check_checkpoint(&format!("{ORIGIN}x\n42\n{root}\n"), Some("expected the origin"));
    check_checkpoint(&format!("{ORIGIN}\n42\n{root}"), Some("3 lines"));
    check_checkpoint(&format!("{ORIGIN}\n42\n{}\n", &root[1..]), Some("line 3"));
    check_checkpoint(&format!("{ORIGIN}\n42\n{root}\nextension\n"), Some("3 lines"));
    let facts = Facts { spki: &[], origin: None };
    let text = format!("{ORIGIN}\n42\n{root}\n");
    assert!(
        permitted(KeyUse::Ledger, Kind::Checkpoint, &Shown::new(text.as_bytes()), facts).is_err(),
        "without a ledger"
    );
}

#[test]
fn a_certification_request_is_for_the_key_that_signs_it() {
    let (own, other) = (public(&Key::generate()), public(&Key::generate()));
    let subject = OrganisationSubject { common_name: None, role: 1, party: samples::RECOVERY };
    let info = certification_request_info(&subject, &own).unwrap();
    let check = |octets: &[u8], key: &PublicKey, expected: Option<&str>| {
        check(KeyUse::Recovery, Kind::CertificationRequest, octets, &key.to_spki(), expected);
    };
    check(&info, &own, None);
    check(&info, &other, Some("expected the key"));
    check(&info[1..], &own, Some(""));
    check(&[&info[..], &[0]].concat(), &own, Some(""));
    // Only the Party may be another.
    let taken = (0..info.len()).filter(|at| {
        let mut octets = info.clone();
        octets[*at] ^= 0x80;
        verdict(KeyUse::Recovery, Kind::CertificationRequest, &octets, &own.to_spki()).is_ok()
    });
    let party = info.windows(8).position(|octets| octets == samples::RECOVERY.0.octets()).unwrap();
    assert_eq!(taken.collect::<Vec<_>>(), (party..party + 8).collect::<Vec<_>>());
}
