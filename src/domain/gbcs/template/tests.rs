use super::*;
use crate::domain::gbcs::message::{Message, Payload};
use crate::domain::gbcs::samples::{
    COUNTER, DEVICE, RECOVERY, contingency_update, framed, pre_command, recovery_update,
};
use crate::domain::gbcs::{GeneralizedTime, KeyUsage, RemotePartyRole};

fn template_of(update: &Update<'_>) -> Template {
    Template::from_update(update).unwrap()
}

#[test]
fn a_template_says_all_that_its_commands_say_and_its_counter_stands_empty() {
    let (certificates, path) = ([framed(406), framed(432)], [framed(420)]);
    let update = recovery_update(&certificates, &path);
    let template = template_of(&update);
    assert_eq!(template.update(), update);
    assert_eq!(template.mode(), update.mode);
    assert!(template.octets().windows(2).any(|window| window == [0x83, 0x00]));
    assert_eq!(Template::parse(template.octets()), Ok(template.clone()));
    let octets = pre_command(update);
    let payload = Message::decode(&octets).unwrap().frame.payload_octets().to_vec();
    assert_eq!(Template::from_command_payload(&payload), Ok(template));
    assert!(matches!(Template::parse(&payload), Err(TemplateError::Decode(DecodeError::Trailing { .. }))));
}

#[test]
fn a_filled_template_is_the_message_that_the_encoder_writes_for_every_size_of_counter() {
    // The lengths of control, payload and content pass 127 and 255, each with another certificate and counter. No element
    // is 130 or 259 octets long in all.
    for certificate_len in (10..=300).filter(|len| ![130, 259].contains(len)) {
        let (certificates, path) = ([framed(certificate_len)], [framed(20)]);
        let template = template_of(&recovery_update(&certificates, &path));
        for size in [0, 6, 7, 8, 15, 16, 31, 62, 63] {
            for counter in [(1 << size) - 1, 1_u64 << size.min(62)] {
                let mut filled = vec![0xAA];
                template.fill(RECOVERY, DEVICE, counter, &mut filled).unwrap();
                let filled = &filled[1..];
                assert!(filled.len() <= template.filled_len_max());
                let message = Message::decode(filled).unwrap();
                assert_eq!(message.frame.header.counter, counter);
                assert_eq!((message.frame.header.originator, message.frame.header.recipient), (RECOVERY.0, DEVICE.0));
                let mut written = Vec::new();
                message.encode(&mut written).unwrap();
                assert_eq!(written, filled);
                assert_eq!(template.matches(filled), Ok((RECOVERY, DEVICE, counter)));
                match message.payload {
                    Payload::Command(payload) => assert_eq!(payload.update, template.update()),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_counter_above_2_to_the_63_less_1_fills_nothing() {
    let template = template_of(&recovery_update(&[], &[]));
    let mut out = Vec::new();
    assert_eq!(template.fill(RECOVERY, DEVICE, 1 << 63, &mut out), Err(FillError::Counter(1 << 63)));
    assert!(out.is_empty());
    assert_eq!(template.fill(RECOVERY, DEVICE, (1 << 63) - 1, &mut out), Ok(()));
}

#[test]
fn a_contingency_template_holds_no_symmetric_key_and_is_filled_without_one() {
    let update = contingency_update(&[], &[]);
    let octets = pre_command(update.clone());
    let payload = Message::decode(&octets).unwrap().frame.payload_octets().to_vec();
    assert!(payload.windows(32).any(|window| window == [0xEE; 32]));
    let template = Template::from_command_payload(&payload).unwrap();
    assert!(!template.octets().contains(&0xEE));
    assert!(template.octets().windows(5).any(|window| window == [2, 1, 9, 0x80, 0x00]));
    assert_eq!(template.update(), update);
    let mut out = Vec::new();
    template.fill(RECOVERY, DEVICE, COUNTER, &mut out).unwrap();
    assert!(out.windows(5).any(|window| window == [2, 1, 9, 0x80, 0x00]));
    assert_eq!(template.matches(&out), Ok((RECOVERY, DEVICE, COUNTER)));
    // It is nothing that a Device would take: only who asks for it by name reads it.
    assert!(Message::decode(&out).unwrap_err().to_string().contains("1 to 64 octets, found 0 octets"));
    match Message::decode_unfilled(&out).unwrap().payload {
        Payload::Command(command) => {
            assert_eq!(command.update, update);
            assert!(command.plaintext_symmetric_key.is_none());
        }
        other => panic!("{other:?}"),
    }
    // With a key in it a pre-command is no template's.
    let error = template.matches(&octets).unwrap_err();
    assert!(error.to_string().contains("plaintextSymmetricKey"), "{error}");
    assert!(Message::decode_unfilled(&octets).is_err());
    assert!(Message::decode_unfilled(&pre_command(recovery_update(&[], &[]))).is_err());
    crate::domain::gbcs::finish(&mut out, &[1; 64]);
    let error = Message::decode_unfilled(&out).unwrap_err().to_string();
    assert!(error.contains("expected the end of an unfilled pre-command, found 65 more octets"), "{error}");
    // Neither with a key in it, nor without the place for one.
    let mut without = template.octets().to_vec();
    let at = without.windows(2).position(|window| window == [0x80, 0x00]).unwrap();
    let mut with = without.clone();
    with.splice(at..at + 2, [0x80, 1, 7]);
    without.drain(at..at + 2);
    for (mut octets, by) in [(with, 1_i8), (without, -2)] {
        for length_at in [1, 3] {
            octets[length_at] = octets[length_at].checked_add_signed(by).unwrap();
        }
        let error = Template::parse(&octets).unwrap_err().to_string();
        assert!(error.contains("plaintextSymmetricKey"), "{error}");
    }
}

#[test]
fn a_template_is_authorised_by_the_cell_of_its_mode() {
    let cell = TrustAnchorCell::management(RemotePartyRole::Supplier, KeyUsage::DigitalSignature);
    let with = |update: Update<'_>, cell| {
        Template::from_update(&Update { authorising_cell: Some(cell), ..update }).map(drop).map_err(|e| e.to_string())
    };
    let refused =
        |expected: &str, found: &str| Err(format!("template: expected authorising cell {expected}, found {found}"));
    let recovery = "recovery digitalSignature in mode anyExceptAbnormalRootByRecovery";
    let contingency = "root keyCertSign in mode anyByContingency";
    assert_eq!(with(recovery_update(&[], &[]), TrustAnchorCell::RECOVERY), Ok(()));
    assert_eq!(with(recovery_update(&[], &[]), cell), refused(recovery, "supplier digitalSignature"));
    assert_eq!(with(recovery_update(&[], &[]), TrustAnchorCell::ROOT), refused(recovery, "root keyCertSign"));
    assert_eq!(with(contingency_update(&[], &[]), TrustAnchorCell::ROOT), Ok(()));
    assert_eq!(
        with(contingency_update(&[], &[]), TrustAnchorCell::RECOVERY),
        refused(contingency, "recovery digitalSignature")
    );
}

#[test]
fn a_template_is_as_long_as_fits_with_the_longest_counter_and_no_longer() {
    let empty = template_of(&recovery_update(&[], &[])).octets().len();
    // 4 more, because the lengths of payload and list are of three octets then, and not of one.
    let certificate = |len: usize| [framed(len)];
    let longest = certificate(Template::LEN_MAX - empty - 4);
    let template = template_of(&recovery_update(&[], &longest));
    assert_eq!(template.octets().len(), Template::LEN_MAX);
    let mut filled = Vec::new();
    template.fill(RECOVERY, DEVICE, (1 << 63) - 1, &mut filled).unwrap();
    crate::domain::gbcs::finish(&mut filled, &[1; 64]);
    assert!(filled.len() <= crate::domain::gbcs::MESSAGE_LEN_MAX);
    assert!(Message::decode(&filled).is_ok());
    let longer = certificate(Template::LEN_MAX - empty - 3);
    let error = Template::from_update(&recovery_update(&[], &longer)).unwrap_err();
    assert_eq!(error, TemplateError::TooLong { max: Template::LEN_MAX, found: Template::LEN_MAX + 1 });
}

#[test]
fn a_pre_command_that_says_something_else_is_refused_with_the_field_that_differs() {
    let (certificates, path) = ([framed(406), framed(432)], [framed(420)]);
    let mut update = recovery_update(&certificates, &path);
    update.execution = GeneralizedTime::from_timestamp("2030-01-15T00:00:00Z".parse().unwrap());
    let template = template_of(&update);
    let good = pre_command(update);
    assert_eq!(template.matches(&good), Ok((RECOVERY, DEVICE, COUNTER)));
    let mut seen = Vec::new();
    for at in 0..good.len() {
        let mut other = good.clone();
        other[at] ^= 1;
        match template.matches(&other) {
            // Originator and Device are whatever the pre-command says.
            Ok((originator, device, counter)) => {
                assert!((12..20).contains(&at) || (21..29).contains(&at), "octet {at}");
                assert_ne!((originator, device), (RECOVERY, DEVICE), "octet {at}");
                assert_eq!(counter, COUNTER);
            }
            Err(Mismatch::Differs { at: found, field, .. }) => {
                // Another counter in the header shows where the payload says the right one, or how long it is.
                assert!(found == at || (3..11).contains(&at), "octet {at}: {found}");
                if seen.last() != Some(&field) {
                    seen.push(field);
                }
            }
            Err(other) => panic!("octet {at}: {other}"),
        }
    }
    let fields: Vec<String> = seen.iter().map(ToString::to_string).collect();
    let wanted = [
        "Grouping Header",
        "authorisingRemotePartySeqNumber",
        "Grouping Header",
        "length of a structure",
        "credentialsReplacementMode",
        "applyTimeBasedCPVChecks",
        "authorisingRemotePartyTACellIdentifier",
        "authorisingRemotePartySeqNumber",
        "newRemotePartyFloorSeqNumber",
        "otherRemotePartySeqNumberChanges",
        "length of a structure",
        "certificate of replacement 1",
        "cell of replacement 1",
        "length of a structure",
        "certificate of replacement 2",
        "cell of replacement 2",
        "length of a structure",
        "path certificate 1",
        "executionDateTime",
    ];
    assert_eq!(fields, wanted);
}

#[test]
fn a_field_of_another_length_is_named_and_not_the_length_that_encloses_it() {
    let template = |certificates: &[Vec<u8>], path: &[Vec<u8>]| template_of(&recovery_update(certificates, path));
    let (one, two) = ([framed(406)], [framed(406), framed(432)]);
    let field = |template: &Template, certificates: &[Vec<u8>], path: &[Vec<u8>]| match template
        .matches(&pre_command(recovery_update(certificates, path)))
        .unwrap_err()
    {
        Mismatch::Differs { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(&template(&one, &[]), &[framed(407)], &[]), Field::ReplacementCertificate(1));
    assert_eq!(field(&template(&two, &[]), &[framed(406), framed(500)], &[]), Field::ReplacementCertificate(2));
    assert_eq!(field(&template(&one, &[]), &two, &[]), Field::ReplacementCertificate(2));
    assert_eq!(field(&template(&two, &[]), &one, &[]), Field::ReplacementCertificate(2));
    assert_eq!(field(&template(&one, &[framed(420)]), &one, &[framed(421)]), Field::PathCertificate(1));
    assert_eq!(field(&template(&one, &[]), &one, &[framed(421)]), Field::PathCertificate(1));
}

#[test]
fn a_pre_command_that_is_longer_or_shorter_than_its_template_is_refused() {
    let template = template_of(&recovery_update(&[], &[]));
    let good = pre_command(recovery_update(&[], &[]));
    let text = |octets: &[u8]| template.matches(octets).unwrap_err().to_string();
    let len = good.len();
    assert_eq!(text(&good[..20]), "expected a pre-command of at least 33 octets, found 20");
    let longer = [&good[..], &[0x40]].concat();
    assert_eq!(text(&longer), format!("octet {len}, end: expected the end as in the template, found 40"));
    let cut = text(&good[..len - 1]);
    assert_eq!(cut, format!("octet {}, length of a structure: expected 00 as in the template, found the end", len - 1));
}
