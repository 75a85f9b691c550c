use super::*;

// One throw-away P-256 key, written by `openssl ec` in each way it knows; and a P-384 key.
const NAMED: &str = include_str!("tests/named.pem");
const COMPRESSED: &str = include_str!("tests/compressed.pem");
const EXPLICIT: &str = include_str!("tests/explicit.pem");
const P384: &str = include_str!("tests/p384.pem");

#[test]
fn the_digest_is_that_of_the_der_as_openssl_writes_it() {
    assert_eq!(digest_of_pem(NAMED).unwrap().to_string(), include_str!("tests/named.sha256").trim());
}

#[test]
fn another_wrapping_of_the_same_pem_is_the_same_key() {
    let crlf = NAMED.replace('\n', "\r\n");
    assert_eq!(digest_of_pem(&crlf), digest_of_pem(NAMED));
    assert_eq!(digest_of_pem(&format!("\n\n{NAMED}\n")), digest_of_pem(NAMED));
}

#[test]
fn other_encodings_of_the_same_key_are_refused_and_named() {
    assert_eq!(digest_of_pem(COMPRESSED), Err(SpkiError::Compressed));
    assert_eq!(digest_of_pem(EXPLICIT), Err(SpkiError::Parameters));
}

#[test]
fn other_curves_other_blocks_and_other_lengths_are_refused() {
    assert_eq!(digest_of_pem(P384), Err(SpkiError::Parameters));
    assert!(matches!(digest_of_pem("no pem"), Err(SpkiError::Pem { .. })));
    assert!(matches!(digest_of_pem(&NAMED.replace("PUBLIC KEY", "CERTIFICATE")), Err(SpkiError::Pem { .. })));
    let (_, der) = der::pem::decode_vec(NAMED.as_bytes()).unwrap();
    assert!(digest_of_der(&der).is_ok());
    assert_eq!(digest_of_der(&der[..90]), Err(SpkiError::Kind { len: 90 }));
    assert_eq!(digest_of_der(&[der.as_slice(), &[0]].concat()), Err(SpkiError::Kind { len: 92 }));
    assert_eq!(digest_of_der(&[]), Err(SpkiError::Kind { len: 0 }));
}
