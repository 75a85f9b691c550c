use super::*;

#[track_caller]
fn check(octets: &str, says: &str) {
    let Err(reasons) = read_document(octets.as_bytes()) else { panic!("{octets} is a document") };
    let text = reasons.iter().map(|reason| &*reason.text).collect::<Vec<_>>().join("; ");
    assert!(text.contains(says), "{octets}: expected {says:?} in {text}");
}

#[test]
fn the_type_alone_says_as_what_a_document_is_read() {
    check(r#"{"type":"smkid-policy-adoption/v1"}"#, "smkid-policy-adoption/v1");
    // The name of another type in some other member means nothing.
    check(r#"{"type":"smkid-withdrawal/v1","reason":"smkid-policy-adoption/v1"}"#, "smkid-withdrawal/v1");
    check(r#"{"type":"smkid-policy-adoption/v1","reason":"smkid-withdrawal/v1"}"#, "smkid-policy-adoption/v1");
    check(r#"{"type":"smkid-adoption/v9"}"#, "smkid-adoption/v9");
    check("smkid-policy-adoption/v1", "expected");
}
