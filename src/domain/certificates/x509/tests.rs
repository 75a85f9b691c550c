use super::*;

#[track_caller]
fn check(usage: KeyUsage, der: &str, text: &str) {
    assert_eq!(hex::encode(usage.to_der()), der);
    assert_eq!(KeyUsage::from_der(&usage.to_der()).unwrap(), usage);
    assert_eq!(usage.to_string(), text);
}

#[test]
fn key_usage_is_a_named_bit_list() {
    check(KeyUsage::DIGITAL_SIGNATURE, "03020780", "digitalSignature");
    check(KeyUsage::KEY_AGREEMENT, "03020308", "keyAgreement");
    check(KeyUsage::KEY_CERT_SIGN, "03020204", "keyCertSign");
    check(KeyUsage::KEY_CERT_SIGN_AND_CRL_SIGN, "03020106", "keyCertSign+cRLSign");
    check(KeyUsage(1 << 8), "0303070080", "decipherOnly");
}

#[test]
fn key_usage_with_trailing_zero_bits_or_unknown_bits_is_refused() {
    for der in ["03020080", "03020680", "0303078000", "03020700", "0303060040", "030100", ""] {
        assert!(KeyUsage::from_der(&hex::decode(der).unwrap()).is_err(), "{der}");
    }
}

#[test]
fn a_name_is_shown_without_what_moves_a_cursor() {
    let value = "a,\u{1b}[2J\u{202e}é";
    let value = AnyRef::from(Utf8StringRef::new(value).unwrap());
    let rdn = SetOfVec::from_iter([NameAttribute { kind: COMMON_NAME, value }]).unwrap();
    let shown = name_text(&vec![rdn].to_der().unwrap()).unwrap();
    assert_eq!(shown, "CN=a\\,\\u{1b}[2J\\u{202e}é");
}

#[test]
fn times_change_their_form_with_the_year_2050() {
    let form = |text: &str| Time::from_timestamp(text.parse().unwrap());
    assert!(matches!(form("2049-12-31T23:59:59Z"), Time::Utc(_)));
    assert!(matches!(form("2050-01-01T00:00:00Z"), Time::Generalized(_)));
    for text in ["1970-01-01T00:00:00Z", "2049-12-31T23:59:59Z", "2050-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
        assert_eq!(form(text).to_timestamp(), text.parse().unwrap());
    }
}

#[test]
fn an_authority_key_identifier_has_its_three_fields_in_order() {
    let read = |der: &str| AuthorityKeyIdentifier::from_der(&hex::decode(der).unwrap());
    assert_eq!(read("3000").unwrap(), AuthorityKeyIdentifier { key: None, names_certificate: false });
    assert_eq!(read("3003800141").unwrap(), AuthorityKeyIdentifier { key: Some(vec![0x41]), names_certificate: false });
    assert!(read("3006800141820101").unwrap().names_certificate);
    assert!(read("3006820101800141").is_err());
    assert!(read("3006800141800142").is_err());
    assert!(read("3003830141").is_err());
    assert!(read("3003040141").is_err());
}

#[test]
fn a_certificate_is_at_most_so_long() {
    let octets = vec![0x30; CERTIFICATE_LEN_MAX + 1];
    assert_eq!(Certificate::from_der(&octets), Err(X509Error::TooLong { found: CERTIFICATE_LEN_MAX + 1 }));
    assert!(matches!(Certificate::from_der(&octets[1..]), Err(X509Error::Der(_))));
}
