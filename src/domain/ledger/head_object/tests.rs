use super::*;
use crate::domain::names::Digest;

const ROOT: &str = "0ac52c6299863e8e1d90c8080149a89bf5da8e3ee1d9f07630f0378f68f1ab62";

#[track_caller]
fn check(text: &str, expected: &str) {
    match HeadObject::parse(text.as_bytes()) {
        Ok(read) => {
            assert_eq!(expected, "", "{text:?} was read");
            assert_eq!(read.to_octets(), text.as_bytes());
        }
        Err(error) => {
            let error = error.to_string();
            assert!(!expected.is_empty() && error.contains(expected), "{text:?}: {error}");
        }
    }
}

#[test]
fn a_head_is_read_as_it_was_written_and_nothing_else_is() {
    check(&format!("a/b\n0\n{ROOT}\n"), "");
    check(&format!("a/b\n18446744073709551615\n{ROOT}\n"), "");
    check(&format!("a/b\n18446744073709551616\n{ROOT}\n"), "line 2");
    check(&format!("a/b\n042\n{ROOT}\n"), "line 2");
    check(&format!("a/b\n\n{ROOT}\n"), "line 2");
    check(&format!("A/b\n42\n{ROOT}\n"), "origin");
    check(&format!("a/b\n42\n{}\n", ROOT.to_uppercase()), "SHA-256 digest");
    check(&format!("a/b\n42\n{}\n", &ROOT[1..]), "SHA-256 digest");
    check(&format!("a/b\n42\n{ROOT}"), "3 lines");
    check(&format!("a/b\n42\n{ROOT}\n\n"), "3 lines");
    check(&format!("a/b\n42\n{ROOT}\nmore\n"), "3 lines");
    check("", "3 lines");
}

#[test]
fn the_longest_head_fits_and_one_octet_more_does_not() {
    let origin: Origin = "a".repeat(Origin::LEN_MAX).parse().unwrap();
    let longest = HeadObject { origin, head: Head { size: u64::MAX, root: Digest([0xff; 32]) } };
    let mut octets = longest.to_octets();
    assert_eq!(octets.len(), HEAD_OBJECT_LEN_MAX);
    assert_eq!(HeadObject::parse(&octets), Ok(longest));
    octets.push(b'\n');
    assert_eq!(HeadObject::parse(&octets), Err(HeadObjectError::Text { found: HEAD_OBJECT_LEN_MAX + 1 }));
    assert_eq!(HeadObject::parse(&[0xff]), Err(HeadObjectError::Text { found: 1 }));
}
