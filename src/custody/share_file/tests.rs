use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::custody::scheme::{SealingSecret, split};

const PASSPHRASE: &str = "korrekt pferd batterie";

fn share() -> (Share, crate::custody::scheme::Commitments) {
    let (mut shares, commitments) = split(&SealingSecret::make(), 2, 3).unwrap();
    (shares.remove(1), commitments)
}

struct Names {
    key: KeyLabel,
    share: ShareName,
    person: PersonId,
}

impl Names {
    fn new() -> Self {
        Self { key: "recovery-1".parse().unwrap(), share: "share-2".parse().unwrap(), person: "bert".parse().unwrap() }
    }

    fn title(&self) -> Title<'_> {
        let Self { key, share, person } = self;
        Title { key, generation: 1, share, person }
    }
}

fn text(octets: Vec<u8>) -> Zeroizing<String> {
    Zeroizing::new(String::from_utf8(octets).unwrap())
}

fn typed(passphrase: &str) -> impl FnOnce() -> io::Result<SecretString> {
    let passphrase = SecretString::from(passphrase);
    move || Ok(passphrase)
}

fn nobody() -> io::Result<SecretString> {
    Err(io::Error::other("nobody is asked"))
}

/// Runs openssl in a folder; what it printed.
fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A key and a certificate of somebody, made by openssl: `NAME.key` and `NAME.pem`.
fn person(folder: &Path, name: &str) -> Certificate {
    let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/O=Party/CN={name}"));
    let curve = "ec_paramgen_curve:prime256v1";
    openssl(
        folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            curve,
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-subj",
            &subject,
        ],
    );
    pem::certificate(&fs::read_to_string(folder.join(certificate)).unwrap()).unwrap()
}

#[test]
fn openssl_shows_of_a_share_under_a_passphrase_the_very_point_that_the_commitments_give() {
    let folder = tempfile::tempdir().unwrap();
    let ((share, commitments), names) = (share(), Names::new());
    let file = under_passphrase(&share, &names.title(), &PASSPHRASE.into()).unwrap();
    fs::write(folder.path().join("share.pem"), &file).unwrap();
    let pass = format!("pass:{PASSPHRASE}");
    let spki = openssl(folder.path(), &["pkey", "-in", "share.pem", "-passin", &pass, "-pubout", "-outform", "DER"]);
    assert_eq!(spki[spki.len() - 65..], commitments.point(2).unwrap());

    let text = text(file);
    assert!(text.starts_with("Share share-2 of key recovery-1, generation 1, of bert."), "{}", &*text);
    assert!(!is_to_certificate(&text));
    let opened = open(&text, 2, None, typed(PASSPHRASE)).unwrap();
    assert!(commitments.fit(&opened));
    assert_eq!(opened.octets(), share.octets());
    let wrong = open(&text, 2, None, typed("korrekt pferd batterien")).map(|_| ()).unwrap_err();
    assert!(matches!(wrong, ShareFileError::Key(SignerError::WrongPassphrase)), "{wrong}");
}

#[test]
fn a_share_that_openssl_put_under_another_passphrase_is_still_the_share() {
    let folder = tempfile::tempdir().unwrap();
    let ((share, _), names) = (share(), Names::new());
    let file = under_passphrase(&share, &names.title(), &PASSPHRASE.into()).unwrap();
    fs::write(folder.path().join("share.pem"), file).unwrap();
    let (old, new) = (format!("pass:{PASSPHRASE}"), "pass:another passphrase");
    let options = ["-topk8", "-v2", "aes-256-cbc", "-scrypt"];
    openssl(
        folder.path(),
        &[&["pkcs8", "-in", "share.pem", "-passin", &old, "-out", "new.pem", "-passout", new][..], &options].concat(),
    );
    let text = text(fs::read(folder.path().join("new.pem")).unwrap());
    assert_eq!(open(&text, 2, None, typed("another passphrase")).unwrap().octets(), share.octets());
}

#[test]
fn a_passphrase_of_twelve_characters_is_taken_and_one_of_eleven_is_not() {
    let ((share, _), names) = (share(), Names::new());
    let make = |passphrase: &str| under_passphrase(&share, &names.title(), &passphrase.into());
    assert!(matches!(make("elf zeichen").unwrap_err(), ShareFileError::Passphrase(11)));
    assert!(make("zwölf zeiche").is_ok());
}

#[test]
fn openssl_opens_a_share_to_a_certificate_with_its_key_and_so_do_we() {
    let folder = tempfile::tempdir().unwrap();
    let ((share, commitments), names) = (share(), Names::new());
    let certificate = person(folder.path(), "bert");
    let file = to_certificate(&share, &names.title(), &certificate).unwrap();
    fs::write(folder.path().join("share.pem"), &file).unwrap();
    let decrypt = ["cms", "-decrypt", "-inform", "PEM", "-in", "share.pem", "-inkey", "bert.key", "-recip", "bert.pem"];
    let clear = text(openssl(folder.path(), &decrypt));
    assert_eq!(open(&clear, 2, None, nobody).unwrap().octets(), share.octets(), "what openssl hands on");
    let alone = ["cms", "-decrypt", "-inform", "PEM", "-in", "share.pem", "-inkey", "bert.key"];
    assert_eq!(text(openssl(folder.path(), &alone)), clear, "without the certificate too");

    let file = text(file);
    assert!(is_to_certificate(&file));
    let key = text(fs::read(folder.path().join("bert.key")).unwrap());
    let opened = open(&file, 2, Some(&key), nobody).unwrap();
    assert_eq!(opened.octets(), share.octets());
    assert!(commitments.fit(&opened));
    assert!(matches!(open(&file, 2, None, nobody).map(|_| ()).unwrap_err(), ShareFileError::NoKey));
}

#[test]
fn nobody_elses_key_opens_a_share_to_a_certificate_and_no_altered_one_passes_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let ((share, commitments), names) = (share(), Names::new());
    let (certificate, _) = (person(folder.path(), "bert"), person(folder.path(), "cleo"));
    let file = to_certificate(&share, &names.title(), &certificate).unwrap();
    let key = |name: &str| text(fs::read(folder.path().join(format!("{name}.key"))).unwrap());
    let refused = open(&text(file.clone()), 2, Some(&key("cleo")), nobody).map(|_| ()).unwrap_err();
    assert!(matches!(refused, ShareFileError::Envelope(EnvelopeError::Closed)), "{refused}");

    let octets = pem::blocks(&text(file)).unwrap()[0].decode().unwrap();
    for at in (0..octets.len()).step_by(7) {
        let mut altered = octets.clone();
        altered[at] ^= 1;
        let altered = Zeroizing::new(pem::to_pem("CMS", &altered));
        // What the mode of encryption lets through, the commitment finds.
        if let Ok(opened) = open(&altered, 2, Some(&key("bert")), nobody) {
            assert!(opened.octets() == share.octets() || !commitments.fit(&opened), "octet {at}");
        }
    }
}
