use proptest::prelude::*;

use super::*;
use crate::domain::gbcs::samples::{
    COUNTER, DEVICE, Key, RECOVERY, contingency_update, framed, pre_command, recovery_update, response,
};
use crate::domain::gbcs::{MESSAGE_LEN_MAX, Payload, Template, finish};

fn key(len: usize) -> SymmetricKey {
    SymmetricKey::new(&vec![0xEE; len]).unwrap()
}

fn unfilled(certificate_len: usize, counter: u64) -> Vec<u8> {
    let certificates = [framed(certificate_len)];
    let template = Template::from_update(&contingency_update(&certificates, &[])).unwrap();
    let mut octets = Vec::new();
    template.fill(RECOVERY, DEVICE, counter, &mut octets).unwrap();
    octets
}

#[test]
fn a_symmetric_key_is_of_16_or_32_octets_and_nothing_shows_it() {
    for len in 0..=65 {
        match SymmetricKey::new(&vec![0xEE; len]) {
            Ok(key) => {
                assert!(len == 16 || len == 32, "{len}");
                assert_eq!((key.octets().len(), format!("{key:?}").as_str()), (len, "SymmetricKey(..)"));
            }
            Err(error) => {
                assert!(len != 16 && len != 32, "{len}");
                assert!(error.to_string().contains(&format!("found {len} octets")), "{error}");
            }
        }
    }
}

#[test]
fn a_filled_command_is_what_the_encoder_writes_and_what_is_taken_out_is_what_was_put_in() {
    // The lengths of control, payload and content pass 127 and 255.
    for certificate_len in (10..=300).filter(|len| ![130, 259].contains(len)) {
        for len in SymmetricKey::LENS {
            let before = unfilled(certificate_len, COUNTER);
            assert!(!before.windows(4).any(|octets| octets == [0xEE; 4]));
            let filled = put_symmetric_key(&before, &key(len)).unwrap();
            assert!(filled.len() > before.len() && filled.len() <= before.len() + SYMMETRIC_KEY_GROWTH_MAX);
            let message = Message::decode(&filled).unwrap();
            let mut written = Vec::new();
            message.encode(&mut written).unwrap();
            assert_eq!(written, **filled);
            let Payload::Command(command) = &message.payload else { panic!("a Command") };
            assert_eq!(command.plaintext_symmetric_key.unwrap().expose(), vec![0xEE; len]);
            let signed = Key::generate().finish(filled.to_vec());
            for message in [filled.as_slice(), &signed] {
                let (taken, unfilled) = take_symmetric_key(message).unwrap();
                assert_eq!((taken.octets(), unfilled.as_slice()), (key(len).octets(), before.as_slice()));
            }
        }
    }
}

#[test]
fn a_key_is_put_once_into_a_pre_command_of_mode_9_and_into_nothing_else() {
    let put = |octets: &[u8]| put_symmetric_key(octets, &key(32)).map(drop).unwrap_err().to_string();
    let filled = put_symmetric_key(&unfilled(50, COUNTER), &key(32)).unwrap();
    assert!(put(&filled).contains("expected the end of plaintextSymmetricKey"), "{}", put(&filled));
    let mut signed = unfilled(50, COUNTER);
    finish(&mut signed, &[1; 64]);
    assert!(put(&signed).contains("expected a pre-command"), "{}", put(&signed));
    let recovery = pre_command(recovery_update(&[], &[]));
    assert!(put(&recovery).contains("found one of mode anyExceptAbnormalRootByRecovery"), "{}", put(&recovery));
    let answer = response(CredentialsReplacementMode::AnyByContingency, None);
    assert!(put(&Key::generate().finish(answer)).contains("found a Response"));
    assert!(put(b"").contains("general-signing"), "{}", put(b""));
    // A counter that differs between header and payload makes no message, filled or not.
    let mut other = unfilled(50, COUNTER);
    other[10] ^= 1;
    assert!(put(&other).contains("as in the header"), "{}", put(&other));
}

#[test]
fn a_key_is_taken_only_from_a_command_that_has_one_of_16_or_32_octets() {
    let take = |octets: &[u8]| take_symmetric_key(octets).map(drop).unwrap_err().to_string();
    assert!(take(&unfilled(50, COUNTER)).contains("found 0 octets"));
    assert!(take(&pre_command(recovery_update(&[], &[]))).contains("found one of mode"));
    let odd = [0xEE; 24];
    let mut octets = Vec::new();
    let update = contingency_update(&[], &[]);
    let payload = Payload::Command(crate::domain::gbcs::CommandPayload {
        update,
        seq_number: crate::domain::gbcs::samples::seq(COUNTER),
        plaintext_symmetric_key: crate::domain::gbcs::PlaintextSymmetricKey::new(&odd),
    });
    let header =
        crate::domain::gbcs::samples::header(Cra::Command, CredentialsReplacementMode::AnyByContingency.message_code());
    crate::domain::gbcs::encode_unsigned(&header, &payload, &mut octets).unwrap();
    assert!(take(&octets).contains("expected 16 or 32 octets"), "{}", take(&octets));
}

#[test]
fn the_longest_template_still_has_room_for_its_counter_its_key_and_its_signature() {
    let most = Template::LEN_MAX - SYMMETRIC_KEY_GROWTH_MAX;
    let empty = Template::from_update(&contingency_update(&[], &[])).unwrap().octets().len();
    let template = |len: usize| Template::from_update(&contingency_update(&[], &[framed(len)]));
    // 4 more, because the lengths of payload and list are of three octets then, and not of one.
    let longest = template(most - empty - 4).unwrap();
    assert_eq!(longest.octets().len(), most);
    let mut octets = Vec::new();
    longest.fill(RECOVERY, DEVICE, (1 << 63) - 1, &mut octets).unwrap();
    let mut filled = put_symmetric_key(&octets, &key(32)).unwrap().to_vec();
    finish(&mut filled, &[1; 64]);
    assert!(filled.len() <= MESSAGE_LEN_MAX && Message::decode(&filled).is_ok());
    assert!(template(most - empty - 3).unwrap_err().to_string().contains(&format!("at most {most} octets")));
}

proptest! {
    #[test]
    fn whatever_is_put_in_is_taken_out_again(
        octets in prop_oneof![proptest::collection::vec(any::<u8>(), 16), proptest::collection::vec(any::<u8>(), 32)],
        counter in 0_u64..1 << 63,
        certificate_len in 300_usize..2_000,
    ) {
        let before = unfilled(certificate_len, counter);
        let filled = put_symmetric_key(&before, &SymmetricKey::new(&octets).unwrap()).unwrap();
        let (key, after) = take_symmetric_key(&filled).unwrap();
        prop_assert_eq!(key.octets(), octets.as_slice());
        prop_assert_eq!(after, before);
    }

    #[test]
    fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..500, with in any::<u8>()) {
        let _ = put_symmetric_key(&octets, &key(16));
        let _ = take_symmetric_key(&octets);
        for mut message in [unfilled(100, COUNTER), put_symmetric_key(&unfilled(100, COUNTER), &key(16)).unwrap().to_vec()] {
            let at = at % message.len();
            message[at] = with;
            let _ = put_symmetric_key(&message, &key(16));
            let _ = take_symmetric_key(&message);
        }
    }
}
