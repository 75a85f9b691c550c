use super::*;
use crate::domain::gbcs::{samples, take_symmetric_key};
use crate::domain::names::DeviceId;

const ORIGINATOR: PartyId = PartyId(crate::domain::names::Eui64([2, 0, 0, 0, 0, 0, 0, 9]));

/// A template of mode 9, an intent of it, and the pre-command that this has the digest of.
fn contingency() -> (Template, Intent, Vec<u8>) {
    let certificates = samples::two_certificates();
    let template = Template::from_update(&samples::contingency_update(&certificates, &certificates)).unwrap();
    let device = DeviceId([1; 8].into());
    let mut unfilled = Vec::new();
    template.fill(ORIGINATOR, device, 7_001, &mut unfilled).unwrap();
    let intent = Intent {
        batch: 4,
        template: "esme".parse().unwrap(),
        device,
        counter: 7_001,
        attempt: 1,
        command: Digest::of(&unfilled[1..]),
    };
    (template, intent, unfilled)
}

#[test]
fn a_command_of_mode_9_is_made_again_with_its_key_and_not_without() {
    let (template, intent, unfilled) = contingency();
    let (key, signature) = (SymmetricKey::new(&[7; 32]).unwrap(), [9; 64]);
    let mut out = b"before".to_vec();
    let without = rebuild(&template, ORIGINATOR, &intent, &signature, None, &mut out);
    assert_eq!((without, out.as_slice()), (Err(RebuildError::SymmetricKeyNeeded), &b"before"[..]));

    rebuild(&template, ORIGINATOR, &intent, &signature, Some(&key), &mut out).unwrap();
    let command = out.strip_prefix(b"before").unwrap();
    let (found, without) = take_symmetric_key(command).unwrap();
    assert_eq!((found.octets(), without), (key.octets(), unfilled.clone()));
    assert!(command.ends_with(&signature));
    let room = room_for(&template);
    assert!(room.has_key() && command.len() <= room.capacity());
    // Once more, without its intent.
    let (of, mut again) = ((intent.device, intent.counter), b"before".to_vec());
    let without = rebuild_compared(&template, ORIGINATOR, of, &signature, None, &mut again);
    assert_eq!((without, again.as_slice()), (Err(RebuildError::SymmetricKeyNeeded), &b"before"[..]));
    rebuild_compared(&template, ORIGINATOR, of, &signature, Some(&key), &mut again).unwrap();
    assert_eq!(again, out);
    // As it goes to the token, and from there out, it is the same.
    let mut signed = filled(&unfilled, &key).unwrap();
    assert_eq!(signed.capacity(), signed.len() + gbcs::SIGNATURE_PART_LEN);
    gbcs::finish(&mut signed, &signature);
    assert_eq!(signed.as_slice(), command);
    assert!(signed.has_key() && !format!("{signed:?}").contains("07"));
}

#[test]
fn what_is_not_what_the_intent_says_is_not_made_whatever_key_there_is() {
    let (template, intent, _) = contingency();
    let key = SymmetricKey::new(&[7; 16]).unwrap();
    let (expected, mut out) = (Digest([1; 32]), Vec::new());
    let other = Intent { command: expected, ..intent };
    let made = rebuild(&template, ORIGINATOR, &other, &[9; 64], Some(&key), &mut out);
    assert!(matches!(made, Err(RebuildError::Differs { expected: said, .. }) if said == expected) && out.is_empty());
}
