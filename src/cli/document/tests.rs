use super::*;

#[test]
fn signatures_are_found_beside_their_document_and_no_others() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["ab.json", "ab.carol.p7s", "ab.alice.p7s", "ab.p7s", "abc.bob.p7s", "ab.alice.p7s.old", "ab..p7s"] {
        std::fs::write(scratch.path().join(name), name).unwrap();
    }
    let names: Vec<String> = beside(&scratch.path().join("ab.json"))
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["ab.alice.p7s", "ab.carol.p7s"]);
    assert!(matches!(beside(&scratch.path().join("xy.json")), Err(InputError::Empty { .. })));
}

#[test]
fn a_digest_is_the_one_of_the_whole_file() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("devices");
    let octets = vec![7; PIECE_LEN + 1];
    std::fs::write(&path, &octets).unwrap();
    let expected = std::process::Command::new("sha256sum").arg(&path).output().unwrap().stdout;
    let (sha256, len) = digest_of(&path).unwrap();
    assert!(String::from_utf8(expected).unwrap().starts_with(&sha256.to_string()));
    assert_eq!(len, octets.len() as u64);
}
