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
    let shown = name_text(&vec![rdn]);
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

/// Whether octets are what they are read as, written again: DER has one form of everything.
fn is_written_again(octets: &[u8]) -> bool {
    let signed = Signed::from_der(octets).unwrap();
    let body = signed.body.0;
    signed.to_der().unwrap() == octets && Body::from_der(body).unwrap().to_der().unwrap() == body
}

#[test]
fn whatever_octet_of_a_certificate_is_another_it_is_refused_or_still_in_the_one_form_of_der() {
    let (mut read, mut refused) = (0, 0);
    for octets in crate::domain::gbcs::samples::two_certificates() {
        assert!(is_written_again(&octets));
        for at in 0..octets.len() {
            for other in [0x00, 0x01, 0x02, 0x30, 0x7F, 0x80, 0x81, 0xFF]
                .into_iter()
                .chain([1, 2, 0x20, 0x40, 0x80].map(|bit| octets[at] ^ bit))
            {
                let mut altered = octets.clone();
                altered[at] = other;
                if Certificate::from_der(&altered).is_ok() {
                    assert!(is_written_again(&altered), "octet {at}: {other:02x}");
                    read += 1;
                } else {
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 1_000 && refused > 1_000, "{read} {refused}");
}

#[test]
fn a_default_that_is_written_out_is_refused() {
    let sample = crate::domain::gbcs::samples::two_certificates().remove(0);
    let with = |critical: Option<bool>| {
        let signed = Signed::from_der(&sample).unwrap();
        let mut body = Body::from_der(signed.body.0).unwrap();
        let value = OctetStringRef::new(&[5, 0]).unwrap();
        body.extensions = Some(vec![RawExtension { id: SUBJECT_ALT_NAME, critical, value }]);
        let body = body.to_der().unwrap();
        let octets = Signed { body: Whole(&body), ..signed }.to_der().unwrap();
        Certificate::from_der(&octets).map(|certificate| certificate.extension(SUBJECT_ALT_NAME).unwrap().critical)
    };
    assert_eq!(with(None), Ok(false));
    assert_eq!(with(Some(true)), Ok(true));
    assert_eq!(with(Some(false)), Err(X509Error::NotCanonical));
}

#[test]
fn attributes_of_one_set_are_in_the_order_of_der() {
    let attribute =
        |kind, text| NameAttribute { kind, value: AnyRef::from(Utf8StringRef::new(text).unwrap()) }.to_der().unwrap();
    let (first, second) = (attribute(COMMON_NAME, "a"), attribute(ORGANISATIONAL_UNIT, "b"));
    let set = |parts: [&[u8]; 2]| {
        let parts = parts.concat();
        let set = [&[0x31, u8::try_from(parts.len()).unwrap()], &parts[..]].concat();
        [&[0x30, u8::try_from(set.len()).unwrap()], &set[..]].concat()
    };
    assert_eq!(name(&set([&first, &second])).map(|rdns| rdns.len()), Ok(1));
    assert!(name(&set([&second, &first])).is_err());
}
