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
fn a_deal_is_unfinished_from_its_first_token_until_the_ledger_has_it() {
    let state = tempfile::tempdir().unwrap();
    let (_, key) = names();
    let unfinished = |last| Changing::unfinished(state.path(), &key, last).unwrap();
    assert_eq!(unfinished(0), None);
    let (_, file) = sealed(1);
    file.write(state.path()).unwrap();
    assert_eq!(unfinished(0), None, "no token was begun");
    let former = Some("aabb".into());
    let changing = Changing { begun: vec!["smki-a".parse().unwrap()], former, ..Changing::default() };
    changing.write(state.path(), &file).unwrap();
    assert_eq!(Changing::read(state.path(), &file).unwrap(), changing);
    assert_eq!(unfinished(0), Some(1));
    assert_eq!(unfinished(1), None, "the ledger has it");
    Changing::remove(state.path(), &file).unwrap();
    assert_eq!(unfinished(0), None);
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
fn the_former_secret_signs_what_the_ledger_says_of_the_next_generation() {
    use crate::domain::certificates::signature::PublicKey;
    let ((former, before), (_, next)) = (sealed(1), sealed(2));
    let dealt = next.dealt_after(Some(next.sign_by_former(&former).unwrap()));
    let signature: [u8; 64] = hex::decode(&*dealt.former.clone().unwrap()).unwrap().try_into().unwrap();
    let secret = PublicKey::from_compressed(&hex::decode(&*before.commitments[0]).unwrap()).unwrap();
    assert!(secret.verifies_fixed(&dealt.signed_by_the_former(&next.origin), &signature));
}
