use super::*;

fn fixed(r: &[u8], s: &[u8]) -> [u8; FIXED_LEN] {
    let mut octets = [0; FIXED_LEN];
    octets[32 - r.len()..32].copy_from_slice(r);
    octets[64 - s.len()..].copy_from_slice(s);
    octets
}

#[track_caller]
fn check(r: &[u8], s: &[u8], der: &str) {
    let fixed = fixed(r, s);
    assert_eq!(hex::encode(to_der(&fixed).unwrap()), der);
    assert_eq!(from_der(&hex::decode(der).unwrap()).unwrap(), fixed);
}

#[test]
fn r_and_s_go_to_der_and_back() {
    check(&[1], &[2], "3006020101020102");
    check(&[0x7F], &[0x80], "300702017f02020080");
    check(&[1, 0], &[0xFF, 0xFF], "3009020201000203 00ffff".replace(' ', "").as_str());
    let (r, s) = ([0xFF; 32], [0x7F; 32]);
    check(&r, &s, &format!("3045022100{}0220{}", "ff".repeat(32), "7f".repeat(32)));
}

#[track_caller]
fn refuses(der: &str) -> String {
    from_der(&hex::decode(der).unwrap()).unwrap_err().to_string()
}

#[test]
fn refuses_every_other_way_to_write_a_signature() {
    let too_long = format!("3046022101{}020101", "00".repeat(32));
    for der in [
        "",
        "30",
        "300602010102010200",     // an octet behind it
        "300702010102020002",     // a leading zero too many
        "3006020181020102",       // negative
        "308106020101020102",     // a length too long
        "30060201010201",         // cut
        "3009020101020102020103", // three numbers
        "3080020101020102 0000",  // indefinite
        too_long.as_str(),
    ] {
        refuses(&der.replace(' ', ""));
    }
    let long = format!("3028 0223 01{} 020101", "00".repeat(34)).replace(' ', "");
    assert!(refuses(&long).contains("found 35 and 1"), "{}", refuses(&long));
}

#[test]
fn refuses_zero_both_ways() {
    assert_eq!(to_der(&fixed(&[], &[1])), Err(SignatureError::Zero));
    assert_eq!(to_der(&fixed(&[1], &[])), Err(SignatureError::Zero));
    assert_eq!(from_der(&[0x30, 6, 2, 1, 0, 2, 1, 1]), Err(SignatureError::Zero));
    assert_eq!(from_der(&[0x30, 6, 2, 1, 1, 2, 1, 0]), Err(SignatureError::Zero));
}

#[test]
fn a_key_has_one_encoding() {
    let mut point = [7; POINT_LEN];
    point[0] = 4;
    let key = PublicKey::from_point(&point).unwrap();
    assert_eq!(PublicKey::from_spki(&key.to_spki()), Ok(key));
    let mut spki = key.to_spki();
    spki[22] = 0x08; // secp384r1's neighbour
    assert!(matches!(PublicKey::from_spki(&spki), Err(PublicKeyError::NotP256 { found_len: 91 })));
    let longer = [&key.to_spki()[..], &[0]].concat();
    assert!(matches!(PublicKey::from_spki(&longer), Err(PublicKeyError::Point { found_len: 66, .. })));
    point[0] = 2;
    assert!(matches!(PublicKey::from_point(&point), Err(PublicKeyError::Point { first: Some(2), .. })));
    assert!(matches!(PublicKey::from_point(&[]), Err(PublicKeyError::Point { first: None, .. })));
}

#[test]
fn a_compressed_point_is_read_in_one_form_and_only_on_the_curve() {
    // The generator, SP 800-186 3.2.1.3.
    let x = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
    let y = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    let read = |text: String| PublicKey::from_compressed(&hex::decode(text).unwrap());
    assert_eq!(hex::encode(read(format!("03{x}")).unwrap().point()), format!("04{x}{y}"));
    assert_ne!(read(format!("02{x}")).unwrap(), read(format!("03{x}")).unwrap());
    for other in [format!("04{x}{y}"), format!("05{x}"), format!("03{x}00"), format!("03{}", &x[2..]), String::new()] {
        assert!(matches!(read(other).unwrap_err(), PublicKeyError::Compressed { .. }));
    }
    assert!(read(format!("02{:064x}", 1)).is_err(), "no point has this x");
}
