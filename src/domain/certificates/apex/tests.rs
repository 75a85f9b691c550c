use proptest::prelude::*;

use super::*;
use crate::domain::gbcs::samples::Key;

fn public() -> PublicKey {
    PublicKey::from_point(&Key::generate().point).unwrap()
}

fn key(algorithm: WrapAlgorithm, octet: u8) -> SymmetricKey {
    SymmetricKey::new(&vec![octet; algorithm.key_len()]).unwrap()
}

fn parameters_of(algorithm: WrapAlgorithm) -> WrapParameters {
    match algorithm.family() {
        Family::WrapPad => WrapParameters::None,
        Family::Gcm => WrapParameters::Gcm { nonce: [7; 12], icv_len: 16 },
        Family::Cbc => WrapParameters::Cbc { iv: [7; 16] },
    }
}

fn wrapped(algorithm: WrapAlgorithm, public: &PublicKey) -> WrappedApexKey {
    WrappedApexKey::wrap(public, &key(algorithm, 0x5A), algorithm, parameters_of(algorithm)).unwrap()
}

#[test]
fn every_algorithm_of_the_table_gives_back_what_it_wrapped_by_its_own_key_and_by_no_other() {
    let public = public();
    for algorithm in WrapAlgorithm::ALL {
        let extension = wrapped(algorithm, &public).to_der();
        let read = WrappedApexKey::from_der(&extension).unwrap();
        assert_eq!((read.algorithm(), read.parameters()), (algorithm, parameters_of(algorithm)));
        assert_eq!(read.unwrap_with(&key(algorithm, 0x5A)).unwrap(), public.to_spki(), "{algorithm}");
        assert!(read.unwrap_with(&key(algorithm, 0x5B)).is_err(), "{algorithm}");
        let found = if algorithm.key_len() == 16 { 32 } else { 16 };
        let other_size = SymmetricKey::new(&vec![0x5A; found]).unwrap();
        let expected = UnwrapError::KeyLength { algorithm, expected: algorithm.key_len(), found };
        assert_eq!(read.unwrap_with(&other_size), Err(expected));
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        assert_eq!(WrapAlgorithm::from_oid(algorithm.oid()), Ok(algorithm));
        let text = serde_json::to_string(&algorithm).unwrap();
        assert_eq!(text, format!("\"{algorithm}\""));
        assert_eq!(serde_json::from_str::<WrapAlgorithm>(&text).unwrap(), algorithm);
    }
}

#[test]
fn an_altered_octet_is_found_wherever_the_algorithm_has_a_check_of_integrity() {
    let public = public();
    for algorithm in WrapAlgorithm::ALL {
        let good = wrapped(algorithm, &public);
        for at in 0..good.wrapped().len() {
            let mut octets = good.wrapped().to_vec();
            octets[at] ^= 1;
            let altered = WrappedApexKey::new(algorithm, good.parameters(), octets).unwrap();
            // AES-CBC has none: there a key must not come out that is this one.
            match altered.unwrap_with(&key(algorithm, 0x5A)) {
                Ok(spki) => assert!(algorithm.family() == Family::Cbc && spki != public.to_spki(), "{algorithm}, {at}"),
                Err(UnwrapError::Integrity { .. }) => {}
                Err(UnwrapError::Key { .. } | UnwrapError::NotOnCurve { .. }) => {
                    assert!(algorithm.family() == Family::Cbc, "{algorithm}, {at}");
                }
                Err(other @ UnwrapError::KeyLength { .. }) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_gcm_tag_may_be_of_12_to_16_octets_and_12_is_not_written_down() {
    let (public, algorithm) = (public(), WrapAlgorithm::Aes256Gcm);
    for icv_len in 0..=20 {
        let parameters = WrapParameters::Gcm { nonce: [7; 12], icv_len };
        let made = WrappedApexKey::wrap(&public, &key(algorithm, 0x5A), algorithm, parameters);
        if !(12..=16).contains(&icv_len) {
            let error = made.unwrap_err().to_string();
            assert!(error.contains("a tag of 12 to 16"), "{error}");
            continue;
        }
        let extension = made.unwrap().to_der();
        let tail = [2, 1, u8::try_from(icv_len).unwrap()];
        assert_eq!(extension.windows(3).any(|window| window == tail), icv_len != 12);
        let read = WrappedApexKey::from_der(&extension).unwrap();
        assert_eq!(read.unwrap_with(&key(algorithm, 0x5A)).unwrap(), public.to_spki());
        assert!(matches!(
            read.unwrap_with(&key(algorithm, 0x5B)),
            Err(UnwrapError::Integrity { algorithm: WrapAlgorithm::Aes256Gcm, what: "tag" })
        ));
    }
    let made = wrapped(algorithm, &public);
    let by_parts = WrappedApexKey::new_gcm([7; 12], made.wrapped().to_vec(), 32);
    assert_eq!(by_parts, Ok(made.clone()));
    assert_eq!(WrappedApexKey::new_gcm([7; 12], made.wrapped().to_vec(), 24), Err(ApexError::KeyLen { found: 24 }));
    assert!(matches!(
        WrappedApexKey::new_gcm([7; 12], made.wrapped()[1..].to_vec(), 32),
        Err(ApexError::Length { expected: 107, found: 106, .. })
    ));
}

/// An extension's value of these hexadecimal contents, whose lengths are below 128.
#[track_caller]
fn check(contents: &str, expected: &str) {
    let contents = hex::decode(contents.replace(' ', "")).unwrap();
    let mut value = vec![0x30];
    match u8::try_from(contents.len()).unwrap() {
        len @ 0..0x80 => value.push(len),
        len => value.extend([0x81, len]),
    }
    value.extend(contents);
    let error = WrappedApexKey::from_der(&value).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_is_no_wrapped_key_is_refused_with_what_was_expected_and_found() {
    let wrap_pad = "30 0B 06 09 60 86 48 01 65 03 04 01";
    check("", "found both absent: it carries no key");
    check(&format!("{wrap_pad} 08"), "found wrapAlgorithm alone");
    check("04 02 00 00", "found wrappedContinPubKey alone");
    check(
        &format!("{wrap_pad} 08 04 02 00 00"),
        "expected 104 octets, a P-256 SubjectPublicKeyInfo of 91 wrapped by aes-128-wrap-pad, found 2",
    );
    for arc in ["1C", "1A", "16"] {
        check(&format!("{wrap_pad} {arc} 04 02 00 00"), "of 192 bit");
    }
    check(&format!("{wrap_pad} 05 04 02 00 00"), "found 2.16.840.1.101.3.4.1.5"); // AES wrap without padding
    check("30 07 06 05 2B 0E 03 02 1A 04 02 00 00", "found 1.3.14.3.2.26");
    check("30 0D 06 09 60 86 48 01 65 03 04 01 08 05 00 04 02 00 00", "aes-128-wrap-pad: expected no parameters");
    check(&format!("{wrap_pad} 2E 04 02 00 00"), "aes-256-gcm: expected GCMParameters with a nonce of 12 octets");
    check(&format!("{wrap_pad} 2A 04 02 00 00"), "aes-256-cbc: expected an initialisation vector of 16 octets");
    let gcm = |parameters: &str| {
        let len = 11 + parameters.replace(' ', "").len() / 2;
        format!("30 {len:02X} 06 09 60 86 48 01 65 03 04 01 2E {parameters} 04 02 00 00")
    };
    check(&gcm("30 0D 04 08 0707070707070707 02 01 10"), "found a nonce of 8 octets and a tag of 16");
    check(&gcm("30 11 04 0C 070707070707070707070707 02 01 08"), "a tag of 8");
    check(&gcm("05 00"), "found");
    check(&gcm("30 11 04 0C 070707070707070707070707 02 01 0C"), "expected the one DER encoding"); // its DEFAULT
    check(&format!("{wrap_pad} 08 04 02 00 00 05 00"), "wrappedApexContinKey");
    let error = "aes-192-gcm".parse::<WrapAlgorithm>().unwrap_err().to_string();
    assert!(error.contains("found \"aes-192-gcm\""), "{error}");
}

#[test]
fn what_unwraps_to_anything_but_a_p_256_key_is_refused() {
    let algorithm = WrapAlgorithm::Aes256Gcm;
    let symmetric = key(algorithm, 0x5A);
    let holding = |spki: &[u8]| {
        let (mut octets, tag) = gcm(&symmetric, [7; 12], spki);
        octets.extend(tag);
        WrappedApexKey::new_gcm([7; 12], octets, 32).unwrap().unwrap_with(&symmetric)
    };
    let good = public().to_spki();
    assert_eq!(holding(&good).unwrap(), good);
    let mut off_curve = good;
    off_curve[90] ^= 1;
    assert_eq!(holding(&off_curve), Err(UnwrapError::NotOnCurve { algorithm }));
    let mut other_curve = good;
    other_curve[22] ^= 1;
    assert!(matches!(holding(&other_curve), Err(UnwrapError::Key { .. })));
    let mut compressed = good;
    compressed[26] = 2;
    assert!(matches!(holding(&compressed), Err(UnwrapError::Key { .. })));
}

proptest! {
    #[test]
    fn no_octets_make_the_reader_panic_and_what_it_reads_it_writes_again(
        octets in proptest::collection::vec(any::<u8>(), 0..200),
        which in 0_usize..6,
        at in any::<proptest::sample::Index>(),
        with in any::<u8>(),
    ) {
        let algorithm = WrapAlgorithm::ALL[which];
        let mut altered = wrapped(algorithm, &public()).to_der();
        let at = at.index(altered.len());
        altered[at] = with;
        for value in [octets, altered] {
            if let Ok(read) = WrappedApexKey::from_der(&value) {
                prop_assert_eq!(read.to_der(), value);
                let _ = read.unwrap_with(&key(algorithm, 0x5A));
            }
        }
    }
}
