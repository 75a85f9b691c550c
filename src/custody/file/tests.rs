use secrecy::ExposeSecret as _;

use super::*;
use crate::custody::scheme::split;

fn names() -> (Origin, KeyLabel) {
    ("smki.example/recovery".parse().unwrap(), "recovery-1".parse().unwrap())
}

fn pins() -> Vec<(TokenFound, SecretString)> {
    let found = |token: &str, serial: &str| TokenFound { token: token.parse().unwrap(), serial: serial.into() };
    vec![(found("smki-a", "01"), "77581136".into()), (found("smki-b", "02"), "another".into())]
}

fn sealed(generation: u32) -> (SealingSecret, CustodyFile) {
    let secret = SealingSecret::make();
    let (_, commitments) = split(&secret, 2, 3).unwrap();
    let (origin, key) = names();
    let set = Set { origin, key, generation, commitments: &commitments, holders: Vec::new() };
    let file = CustodyFile::seal(set, &secret, &pins()).unwrap();
    (secret, file)
}

#[test]
fn what_was_written_is_read_again_and_opens() {
    let state = tempfile::tempdir().unwrap();
    let (secret, file) = sealed(1);
    let path = file.write(state.path()).unwrap();
    assert_eq!(path, state.path().join("custody/recovery-1.1.json"));
    let read = CustodyFile::read(state.path(), &file.dealt()).unwrap();
    assert_eq!(read, file);
    for (found, pin) in pins() {
        let sealed = read.token(&found.token, &found.serial).unwrap();
        assert_eq!(read.pin(&secret, sealed).unwrap().expose_secret(), pin.expose_secret());
    }
    assert!(CustodyFile::find(state.path(), &names().1, 2).unwrap().is_none());
}

#[test]
fn a_generation_opens_nothing_of_another_even_if_its_name_is_put_on_it() {
    let (secret, file) = sealed(1);
    let (_, other) = sealed(2);
    assert!(file.pin(&secret, &other.tokens[0]).is_err());
    let renamed = CustodyFile { generation: 2, ..file.clone() };
    assert!(renamed.pin(&secret, &renamed.tokens[0]).is_err(), "the same secret, under another generation's name");
    assert!(file.pin(&secret, &file.tokens[0]).is_ok());
    let moved = SealedPin { token: "smki-b".parse().unwrap(), ..file.tokens[0].clone() };
    assert!(file.pin(&secret, &moved).is_err(), "the PIN of one token under the name of another");
}

#[test]
fn only_the_file_that_the_ledger_names_is_read() {
    let state = tempfile::tempdir().unwrap();
    let (_, file) = sealed(1);
    let (_, other) = sealed(1);
    other.write(state.path()).unwrap();
    let fault = CustodyFile::read(state.path(), &file.dealt()).unwrap_err();
    assert!(matches!(fault, FileError::Digest { expected, .. } if expected == file.digest()), "{fault}");
    assert!(CustodyFile::read(state.path(), &other.dealt()).is_ok());
}

#[test]
fn a_file_that_is_written_in_any_other_way_is_no_custody_file() {
    let (_, file) = sealed(1);
    let text = String::from_utf8(file.octets()).unwrap();
    assert!(CustodyFile::from_octets(text.as_bytes()).is_ok());
    let altered = [
        ("a field more", text.replacen('{', "{\n  \"pin\": \"\",", 1)),
        ("another version", text.replace("\"version\": 1", "\"version\": 2")),
        ("a threshold that is not that of the commitments", text.replace("\"threshold\": 2", "\"threshold\": 3")),
        ("a blank more", text.replacen(": ", ":  ", 1)),
        ("no end", text[..text.len() - 2].to_owned()),
    ];
    for (why, altered) in altered {
        assert_ne!(altered, text, "{why}");
        assert!(CustodyFile::from_octets(altered.as_bytes()).is_err(), "{why}");
    }
}

#[test]
fn a_token_that_was_dealt_without_is_named_with_what_to_do() {
    let (_, file) = sealed(1);
    for (token, serial) in [("smki-c", "03"), ("smki-a", "02")] {
        let fault = file.token(&token.parse().unwrap(), serial).unwrap_err().to_string();
        assert!(fault.contains(token) && fault.contains("ceremony deal --key recovery-1"), "{fault}");
    }
}

#[test]
fn which_tokens_were_begun_is_kept_beside_the_very_file_that_they_follow() {
    let state = tempfile::tempdir().unwrap();
    let ((_, file), (_, other)) = (sealed(1), sealed(1));
    let (begun, another) = (file.dealt(), other.dealt());
    let mut changing = Changing::read(state.path(), &begun).unwrap();
    assert!(changing.begun.is_empty() && !Changing::exists(state.path(), &begun));
    file.write(state.path()).unwrap();
    changing.begun.push("smki-a".parse().unwrap());
    changing.write(state.path(), &begun).unwrap();
    assert_eq!(Changing::read(state.path(), &begun).unwrap(), changing);
    assert!(Changing::read(state.path(), &another).unwrap().begun.is_empty(), "they follow another file");
    fs::write(state.path().join("custody/recovery-1.1.changing"), r#"{"begun":["smki-a"],"done":["smki-a"]}"#).unwrap();
    // What cannot be read says nothing: any token may have been changed.
    assert_eq!(Changing::read(state.path(), &begun).unwrap(), Changing::of_all(&begun));
    Changing::remove(state.path(), &begun).unwrap();
    Changing::remove(state.path(), &begun).unwrap();
    assert!(!Changing::exists(state.path(), &begun));
}

#[test]
fn a_custody_file_that_is_gone_is_told_with_what_to_put_back() {
    let state = tempfile::tempdir().unwrap();
    let (_, file) = sealed(1);
    let told = CustodyFile::read(state.path(), &file.dealt()).unwrap_err().to_string();
    for expected in ["custody/recovery-1.1.json", &file.digest().to_string(), "of a backup, or of a custodian", "0600"]
    {
        assert!(told.contains(expected), "expected {expected:?} in {told}");
    }
}

#[test]
fn a_custody_file_is_put_where_none_is_and_never_over_another() {
    let state = tempfile::tempdir().unwrap();
    let ((_, file), (_, other)) = (sealed(1), sealed(1));
    file.write_once(state.path()).unwrap();
    file.write_once(state.path()).unwrap();
    let fault = other.write_once(state.path()).unwrap_err();
    assert!(matches!(fault, FileError::Digest { found, .. } if found == file.digest()), "{fault}");
    assert_eq!(CustodyFile::find(state.path(), &names().1, 1).unwrap(), Some(file));
}

#[test]
fn a_custody_file_is_that_of_what_the_ledger_says_whatever_else_that_says() {
    let (_, file) = sealed(1);
    let plain = file.dealt();
    let more = SharesDealt {
        left: vec![TokenFound { token: "smki-c".parse().unwrap(), serial: "03".into() }],
        by: vec!["anna".parse().unwrap()],
        former: Some("aabb".into()),
        ..plain.clone()
    };
    assert!(file.is_of(&plain) && file.is_of(&more));
    assert!(!file.is_of(&SharesDealt { generation: 2, ..more.clone() }));
    assert!(!file.is_of(&SharesDealt { tokens: Vec::new(), ..more.clone() }));
    assert!(!file.is_of(&SharesDealt { sealed: Digest([0; 32]), ..more }));
}
