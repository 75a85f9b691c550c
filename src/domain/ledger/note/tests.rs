#![expect(clippy::disallowed_types, reason = "a test makes its keys")]

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use super::*;

/// A key of the test's own, and what verifies its notes.
pub(in crate::domain::ledger) struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    pub(in crate::domain::ledger) verifier: Verifier,
}

impl Signer {
    pub(in crate::domain::ledger) fn new(name: &str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let spki = [&SPKI_P256_HEAD[..], key.public_key().as_ref()].concat();
        Self { key, random, verifier: Verifier::from_spki(name, &spki).unwrap() }
    }

    pub(in crate::domain::ledger) fn sign(&self, text: &str) -> Vec<u8> {
        self.key.sign(&self.random, text.as_bytes()).unwrap().as_ref().to_vec()
    }

    pub(in crate::domain::ledger) fn note(&self, text: &str) -> Note {
        Note::assemble(text, &self.verifier, &self.sign(text)).unwrap()
    }
}

/// Made by `openssl ecparam -name prime256v1 -genkey` and signed by `openssl dgst -sha256 -sign`, 3.0: not by our code.
const PEM: &str = include_str!("tests/openssl.pem");
const SIGNATURE: &str = include_str!("tests/openssl.sig.b64");
const TEXT: &str = "ledger.example/smki\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";

#[test]
fn a_signature_made_by_openssl_verifies_as_a_note() {
    let key = Verifier::from_pem("ledger.example/smki", PEM).unwrap();
    let signature = STANDARD.decode(SIGNATURE.trim()).unwrap();
    let note = Note::assemble(TEXT, &key, &signature).unwrap();
    assert_eq!(note.text(), TEXT);
    assert_eq!(note.signatures()[0].key_id, key.key_id());
    // openssl pkey -pubin -in openssl.pem -outform DER | sha256sum | cut -c1-8
    assert_eq!(hex::encode(key.key_id()), include_str!("tests/openssl.keyid").trim());
    assert!(Note::assemble("another\n", &key, &signature).unwrap().verify(&key).is_err());
}

#[test]
fn a_vkey_is_read_as_it_is_written_and_in_no_other_form() {
    let key = Signer::new("ledger.example/smki").verifier;
    let vkey = key.vkey();
    assert_eq!(Verifier::from_vkey(&vkey), Ok(key.clone()));
    assert_eq!(Verifier::from_vkey(&format!("{vkey}\n")), Ok(key.clone()));
    let (name, id, base64) = (key.name(), hex::encode(key.key_id()), STANDARD.encode([&[2], key.spki()].concat()));
    assert_eq!(vkey, format!("{name}+{id}+{base64}"));
    let mut ed25519 = vec![1];
    ed25519.extend([7; 32]);
    let mut unknown = vec![3];
    unknown.extend(key.spki());
    for wrong in [
        String::new(),
        format!("{name}+{id}"),
        format!("+{id}+{base64}"),
        format!("{name}+{}+{base64}", id.to_uppercase() + " "),
        format!("{name}+00000000+{base64}"),
        format!("{name}+{id}+{}", base64.trim_end_matches('=').to_owned() + "A"),
        format!("{name}+{id}+{base64}="),
        format!("{name}+{id}+{}", STANDARD.encode(&ed25519)),
        format!("{name}+{id}+{}", STANDARD.encode(&unknown)),
        format!("a b+{id}+{base64}"),
        format!("{vkey}\n\n"),
    ] {
        assert!(Verifier::from_vkey(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let key = Signer::new("a").verifier;
    for at in 0..=SPKI_P256_HEAD.len() {
        let mut spki = key.spki().to_vec();
        spki[at] ^= 1;
        assert!(Verifier::from_spki("a", &spki).is_err(), "{at}");
    }
    assert!(Verifier::from_spki("a", &key.spki()[..90]).is_err());
    assert!(Verifier::from_spki("a", &[key.spki(), &[0]].concat()).is_err());
    assert!(Verifier::from_pem("a", &PEM.replace("PUBLIC KEY", "PRIVATE KEY")).is_err());
    assert!(Verifier::from_pem("a", "").is_err());
}

#[test]
fn every_octet_changed_in_a_signed_note_is_noticed() {
    let signer = Signer::new("ledger.example/smki");
    let note = signer.note(TEXT);
    for at in 0..note.octets().len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut changed = note.octets().to_vec();
            changed[at] ^= bit;
            assert!(
                Note::parse(&changed).and_then(|note| note.verify(&signer.verifier)).is_err(),
                "octet {at}, bit {bit:#x}"
            );
        }
    }
    for len in 0..note.octets().len() {
        let cut = &note.octets()[..len];
        assert!(Note::parse(cut).and_then(|note| note.verify(&signer.verifier)).is_err(), "{len}");
    }
}

#[test]
fn signatures_by_unknown_keys_are_passed_over_and_a_second_signature_by_ours_must_verify() {
    let (ours, witness) = (Signer::new("a"), Signer::new("w"));
    let note = ours.note("text\n");
    let lines = |note: &Note| String::from_utf8(note.octets()[note.text().len() + 1..].to_vec()).unwrap();
    let both = format!("text\n\n{}{}", lines(&witness.note("text\n")), lines(&note));
    let parsed = Note::parse(both.as_bytes()).unwrap();
    parsed.verify(&ours.verifier).unwrap();
    parsed.verify(&witness.verifier).unwrap();
    // Another type of signature under our name, with another key id, is another key.
    let foreign = format!("text\n\n\u{2014} a {}\n{}", STANDARD.encode([1; 100]), lines(&note));
    Note::parse(foreign.as_bytes()).unwrap().verify(&ours.verifier).unwrap();
    assert!(matches!(note.verify(&witness.verifier), Err(NoteError::NotSigned { .. })));
    // One good and one bad signature by our key: refused.
    let two = format!("text\n\n{}{}", lines(&note), lines(&ours.note("other\n")));
    assert_eq!(
        Note::parse(two.as_bytes()).unwrap().verify(&ours.verifier),
        Err(NoteError::BadSignature { line: 2, key: ours.verifier.to_string() })
    );
}

#[test]
fn at_least_sixteen_signatures_are_accepted() {
    let ours = Signer::new("a");
    let many: Vec<_> = (0..16).map(|i| format!("\u{2014} w{i} {}\n", STANDARD.encode([i; 4 + 2420 + 8]))).collect();
    let note = String::from_utf8(ours.note("text\n").octets().to_vec()).unwrap() + &many.concat();
    Note::parse(note.as_bytes()).unwrap().verify(&ours.verifier).unwrap();
}

#[test]
fn a_text_may_contain_empty_lines() {
    let ours = Signer::new("a");
    let note = ours.note("one\n\ntwo\n\n");
    assert_eq!(note.text(), "one\n\ntwo\n\n");
    assert_eq!(Note::parse(note.octets()), Ok(note));
}

#[test]
fn malformed_notes_are_refused() {
    let line = format!("\u{2014} a {}\n", STANDARD.encode([1; 70]));
    for wrong in [
        String::new(),
        "\n".into(),
        "text\n".into(),
        "text\n\n".into(),
        "text\n\n\n".into(),
        format!("text\n{line}"),
        format!("text\n\n{}", line.trim_end()),
        format!("text\n\n{}", line.replace('\u{2014}', "-")),
        format!("text\n\n{}", line.replace(" a ", "  ")),
        format!("text\n\n{}", line.replace(" a ", " a+b ")),
        format!("text\n\n{}", line.replace(" a ", " a\u{a0}b ")),
        format!("text\n\n{}", line.replace("=\n", "\n")),
        format!("text\n\n\u{2014} a {}\n", STANDARD.encode([1; 4])),
        format!("te\txt\n\n{line}"),
        format!("text\r\n\n{line}"),
        format!("text\n\n{line}x\n"),
        format!("{}\n\n{line}", "x".repeat(NOTE_LEN_MAX)),
    ] {
        assert!(Note::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    assert_eq!(Note::parse(&[b'a', 0xFF]), Err(NoteError::NotUtf8 { at: 1 }));
    assert_eq!(Note::parse(b"a\x07"), Err(NoteError::Control { at: 1, found: 7 }));
}

#[track_caller]
fn der(r: &[u8], s: &[u8], expected: &str) {
    let mut signature = [0; 64];
    signature[32 - r.len()..32].copy_from_slice(r);
    signature[64 - s.len()..].copy_from_slice(s);
    assert_eq!(hex::encode(signature_to_der(&signature)), expected);
}

#[test]
fn integers_of_a_signature_are_minimal_and_never_negative() {
    der(&[1], &[0x7F], "300602010102017f");
    der(&[0x80], &[0xFF, 0], "300902020080020300ff00");
    der(&[0], &[0], "3006020100020100");
    let long = [0xFF; 32];
    der(&long, &[1], &format!("3026022100{}020101", "ff".repeat(32)));
}
