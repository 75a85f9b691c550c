use super::*;

/// A command of this mode with a payload of `padding` octets beside the mode.
fn of_mode(mode: u8, padding: usize) -> Vec<u8> {
    let der = |tag: u8, content: &[u8]| {
        let mut octets = vec![tag];
        match content.len() {
            len @ 0..=0x7f => octets.push(u8::try_from(len).unwrap()),
            len @ 0x80..=0xff => octets.extend([0x81, u8::try_from(len).unwrap()]),
            len => {
                octets.push(0x82);
                octets.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        octets.extend(content);
        octets
    };
    let control = der(0x30, &[0x02, 0x01, mode]);
    let payload = der(0x30, &[control, der(0x04, &vec![0; padding])].concat());
    let mut octets = vec![0x09, 0x01];
    octets.extend(7000_u64.to_be_bytes());
    octets.extend([0x08, 0x90, 0xb3, 0xd5, 0x1f, 0x30, 0, 0, 1]);
    octets.extend([0x08, 0x00, 0xdb, 0x12, 0x34, 0x56, 0x78, 0x90, 0xa0]);
    octets.extend([0x00, 0x02, 0x01, mode]);
    // The content's length is written as that of any DER element.
    octets.extend(&der(0x00, &payload)[1..]);
    octets
}

const ORIGIN: &str = "smki.example/ledger";
const SPKI: [u8; 5] = [0x30, 0x03, 0x01, 0x02, 0x03];

fn verdict(use_: KeyUse, kind: Kind, octets: &[u8]) -> Result<(), KindError> {
    let origin = ORIGIN.parse().unwrap();
    permitted(use_, kind, octets, Facts { spki: &SPKI, origin: Some(&origin) })
}

/// `expected`: the offset at which the octets are refused, or `None` when they are taken.
#[track_caller]
fn check(use_: KeyUse, kind: Kind, octets: &[u8], expected: Option<usize>) {
    let found = match verdict(use_, kind, octets) {
        Ok(()) => None,
        Err(KindError::Form { offset, .. }) => Some(offset),
        Err(error @ KindError::Use { .. }) => panic!("{error}"),
    };
    assert_eq!(found, expected);
}

#[track_caller]
fn check_checkpoint(text: &str, expected: Option<usize>) {
    check(KeyUse::Ledger, Kind::Checkpoint, text.as_bytes(), expected);
}

#[track_caller]
fn check_request(octets: &[u8], expected: Option<usize>) {
    check(KeyUse::Recovery, Kind::CertificationRequest, octets, expected);
}

#[test]
fn each_key_signs_its_own_kinds_and_no_other() {
    let uses = [KeyUse::Ledger, KeyUse::Recovery, KeyUse::Contingency];
    let kinds = [Kind::Command, Kind::CertificationRequest, Kind::Checkpoint];
    for use_ in uses {
        for kind in kinds {
            let suits = (use_ == KeyUse::Ledger) == (kind == Kind::Checkpoint);
            let refused_by_use = verdict(use_, kind, b"") == Err(KindError::Use { use_, kind });
            assert_eq!(refused_by_use, !suits, "{use_} {kind}");
        }
    }
}

#[test]
fn a_command_is_signed_by_the_key_of_its_mode() {
    for padding in [0, 100, 120, 200, 4000] {
        check(KeyUse::Recovery, Kind::Command, &of_mode(8, padding), None);
        check(KeyUse::Contingency, Kind::Command, &of_mode(9, padding), None);
        check(KeyUse::Recovery, Kind::Command, &of_mode(9, padding), Some(31));
        check(KeyUse::Contingency, Kind::Command, &of_mode(8, padding), Some(31));
    }
    check(KeyUse::Recovery, Kind::Command, &of_mode(4, 0), Some(31));
}

#[test]
fn a_command_is_refused_at_the_octet_that_is_wrong() {
    let good = of_mode(8, 4000);
    for (offset, place) in
        [(0, 0), (1, 1), (10, 10), (19, 19), (28, 28), (29, 29), (30, 30), (31, 31), (32, 32), (35, 35)]
    {
        let mut octets = good.clone();
        octets[offset] ^= 0x40;
        check(KeyUse::Recovery, Kind::Command, &octets, Some(place));
    }
    // The message code of mode 8 over a payload of mode 9.
    let mut octets = good.clone();
    let control = 39;
    assert_eq!(octets[control..control + 5], [0x30, 3, 2, 1, 8]);
    octets[control + 4] = 9;
    check(KeyUse::Recovery, Kind::Command, &octets, Some(control + 2));
    // With the tag that is not signed, as a Response, cut, and with one octet too many.
    check(KeyUse::Recovery, Kind::Command, &[&[0xdf], &good[..]].concat(), Some(0));
    check(KeyUse::Recovery, Kind::Command, &good[..good.len() - 1], Some(32));
    check(KeyUse::Recovery, Kind::Command, &[&good[..], &[0]].concat(), Some(32));
    for len in 0..60 {
        assert!(verdict(KeyUse::Recovery, Kind::Command, &good[..len]).is_err());
    }
}

#[test]
fn no_digest_is_of_any_kind() {
    for octets in [[0u8; 32], [0x30; 32], [0x09; 32], [b'\n'; 32]] {
        for (use_, kind) in [
            (KeyUse::Recovery, Kind::Command),
            (KeyUse::Contingency, Kind::Command),
            (KeyUse::Recovery, Kind::CertificationRequest),
            (KeyUse::Ledger, Kind::Checkpoint),
        ] {
            assert!(verdict(use_, kind, &octets).is_err(), "{use_} {kind}");
        }
    }
}

#[test]
fn a_checkpoint_is_three_lines_of_our_ledger() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let at_size = ORIGIN.len() + 1;
    check_checkpoint(&format!("{ORIGIN}\n0\n{root}\n"), None);
    check_checkpoint(&format!("{ORIGIN}\n42\n{root}\n"), None);
    check_checkpoint(&format!("{ORIGIN}\n9999999999999999999\n{root}\n"), None);
    check_checkpoint(&format!("{ORIGIN}\n10000000000000000000\n{root}\n"), Some(at_size));
    check_checkpoint(&format!("{ORIGIN}\n042\n{root}\n"), Some(at_size));
    check_checkpoint(&format!("{ORIGIN}\n\n{root}\n"), Some(at_size));
    check_checkpoint(&format!("{ORIGIN}\n-1\n{root}\n"), Some(at_size));
    check_checkpoint(&format!("another/ledger\n42\n{root}\n"), Some(0));
    check_checkpoint(&format!("{ORIGIN}x\n42\n{root}\n"), Some(0));
    check_checkpoint(&format!("{ORIGIN}\n42\n{root}"), Some(at_size + 3));
    check_checkpoint(&format!("{ORIGIN}\n42\n{}\n", &root[1..]), Some(at_size + 3));
    check_checkpoint(&format!("{ORIGIN}\n42\n{root}=\n"), Some(at_size + 3));
    check_checkpoint(&format!("{ORIGIN}\n42\n{root}\nextension\n"), Some(at_size + 3 + 45));
    check_checkpoint("", Some(0));
    let facts = Facts { spki: &SPKI, origin: None };
    let text = format!("{ORIGIN}\n42\n{root}\n");
    assert!(permitted(KeyUse::Ledger, Kind::Checkpoint, text.as_bytes(), facts).is_err(), "without a ledger");
}

#[test]
fn a_certification_request_is_for_the_key_that_signs_it() {
    let request = |version: u8, subject: &[u8], spki: &[u8]| {
        let mut body = vec![0x02, 0x01, version];
        body.extend(subject);
        body.extend(spki);
        body.extend([0xa0, 0x00]);
        [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat()
    };
    let subject = [0x30, 0x02, 0x05, 0x00];
    check_request(&request(0, &subject, &SPKI), None);
    check_request(&request(1, &subject, &SPKI), Some(2));
    check_request(&request(0, &[0x31, 0x00], &SPKI), Some(5));
    check_request(&request(0, &subject, &[0x30, 0x03, 0x01, 0x02, 0x04]), Some(9));
    check_request(&request(0, &[0x30, 0x7f, 0x05, 0x00], &SPKI), Some(134));
    check_request(&request(0, &subject, &SPKI)[1..], Some(0));
    check_request(&[request(0, &subject, &SPKI), vec![0]].concat(), Some(0));
}

#[test]
fn lengths_are_of_least_octets() {
    #[track_caller]
    fn case(octets: &[u8], expected: Option<(usize, usize)>) {
        assert_eq!(ber_len(octets, 0), expected);
    }
    case(&[0x7f], Some((1, 0x7f)));
    case(&[0x81, 0x7f], None);
    case(&[0x81, 0x80], Some((2, 0x80)));
    case(&[0x82, 0x00, 0xff], None);
    case(&[0x82, 0x01, 0x00], Some((3, 0x100)));
    case(&[0x83, 0x00, 0xff, 0xff], None);
    case(&[0x83, 0x01, 0x00, 0x00], Some((4, 0x1_0000)));
    case(&[0x80], None);
    case(&[0x84, 1, 0, 0, 0], None);
    case(&[0x82, 0x01], None);
    case(&[], None);
}
