//! Pure. C2SP signed-note v1.0.0, with the one signature type we make and check: `0x02`, ECDSA P-256 over SHA-256.

use crate::domain::names::Digest;
use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

/// The greatest length of a note in octets. The specification asks for room for 16 signatures of up to 5 kB each.
pub const NOTE_LEN_MAX: usize = 128 * 1024;

/// Signature type ECDSA, signed-note "Signature types".
const TYPE_ECDSA: u8 = 0x02;

/// SubjectPublicKeyInfo of an uncompressed P-256 key up to the point: RFC 5480 2.1.1 in DER.
const SPKI_P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE,
    0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// 0x04 ‖ X ‖ Y.
const POINT_LEN: usize = 65;

/// Why octets are no signed note, no key, or not signed by a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Too long to be looked at.
    #[error("note: expected at most {NOTE_LEN_MAX} octets, found {len}")]
    TooLong {
        /// Its length in octets.
        len: usize,
    },
    /// Not UTF-8.
    #[error("note, octet {at}: expected UTF-8")]
    NotUtf8 {
        /// The first octet that is not.
        at: usize,
    },
    /// A control character.
    #[error("note, octet {at}: expected no control character but the line feed, found 0x{found:02x}")]
    Control {
        /// Where it stands.
        at: usize,
        /// What it is.
        found: u8,
    },
    /// The parts are not there.
    #[error("note: expected a text, an empty line, and at least one signature line, each ended by a line feed")]
    Parts,
    /// A line after the text is no signature.
    #[error("note, signature line {line}: expected {expected}")]
    SignatureLine {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        expected: &'static str,
    },
    /// No signature by this key.
    #[error("note: expected a signature by {key}, found none")]
    NotSigned {
        /// Name and key id.
        key: String,
    },
    /// A signature that claims to be by this key does not verify.
    #[error("note, signature line {line}: the signature by {key} does not verify: text or signature were changed")]
    BadSignature {
        /// Counted from 1.
        line: usize,
        /// Name and key id.
        key: String,
    },
    /// Not a key of the kind we use.
    #[error("{what}: expected {expected}")]
    Key {
        /// `vkey`, `PEM`, `SubjectPublicKeyInfo` or `key name`.
        what: &'static str,
        /// The form of it.
        expected: &'static str,
    },
}

/// Whether a text may be the name of a key: not empty, no Unicode space, no plus sign, no control character.
fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// A P-256 public key with its name, which verifies notes of signature type `0x02`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    name: Box<str>,
    /// The first 4 octets of SHA-256 of `spki`: for this type alone, neither name nor type goes in.
    key_id: [u8; 4],
    spki: [u8; SPKI_P256_HEAD.len() + POINT_LEN],
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.name, hex::encode(self.key_id))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({self})")
    }
}

impl Verifier {
    /// From the key's name and its SubjectPublicKeyInfo in DER: P-256, named curve, uncompressed point.
    pub fn from_spki(name: &str, spki: &[u8]) -> Result<Self, NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::Key { what: "key name", expected: "a text without spaces and plus signs" });
        }
        let wrong = || NoteError::Key {
            what: "SubjectPublicKeyInfo",
            expected: "91 octets of DER: id-ecPublicKey, secp256r1, and an uncompressed point",
        };
        let octets: [u8; SPKI_P256_HEAD.len() + POINT_LEN] = spki.try_into().map_err(|_| wrong())?;
        if !octets.starts_with(&SPKI_P256_HEAD) || octets[SPKI_P256_HEAD.len()] != 0x04 {
            return Err(wrong());
        }
        let [a, b, c, d, ..] = Digest::of(&octets).0;
        Ok(Self { name: name.into(), key_id: [a, b, c, d], spki: octets })
    }

    /// From the key's name and a PEM file as `openssl pkey -pubout` writes it (RFC 7468 13).
    pub fn from_pem(name: &str, pem: &str) -> Result<Self, NoteError> {
        let wrong = || NoteError::Key { what: "PEM", expected: "one block -----BEGIN PUBLIC KEY-----" };
        let (label, spki) = der::pem::decode_vec(pem.as_bytes()).map_err(|_| wrong())?;
        if label != "PUBLIC KEY" {
            return Err(wrong());
        }
        Self::from_spki(name, &spki)
    }

    /// From a C2SP verifier key: `name+hex(key id)+base64(0x02 ‖ SubjectPublicKeyInfo)`, with or without a line feed after it.
    pub fn from_vkey(text: &str) -> Result<Self, NoteError> {
        let wrong = |expected| NoteError::Key { what: "vkey", expected };
        let mut parts = text.strip_suffix('\n').unwrap_or(text).splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("name+key id+base64 of the key"));
        };
        let octets = STANDARD.decode(key).map_err(|_| wrong("the key in padded standard base64"))?;
        let Some((&TYPE_ECDSA, spki)) = octets.split_first() else {
            return Err(wrong("a key of type 0x02, ECDSA"));
        };
        let verifier = Self::from_spki(name, spki)?;
        if id != hex::encode(verifier.key_id) {
            return Err(wrong("the key id to be the first 4 octets of SHA-256 of the key, in lower-case hexadecimal"));
        }
        Ok(verifier)
    }

    /// The C2SP verifier key, without a line feed.
    pub fn vkey(&self) -> String {
        let mut key = vec![TYPE_ECDSA];
        key.extend(self.spki);
        format!("{self}+{}", STANDARD.encode(key))
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id.
    pub const fn key_id(&self) -> [u8; 4] {
        self.key_id
    }

    /// SubjectPublicKeyInfo in DER, 91 octets.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key itself: `04 ‖ x ‖ y` (SEC 1 2.3.3).
    pub fn point(&self) -> &[u8] {
        &self.spki[SPKI_P256_HEAD.len()..]
    }

    fn verifies(&self, text: &[u8], signature_der: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.point()).verify(text, signature_der).is_ok()
    }
}

/// `ECDSA-Sig-Value` in DER (RFC 3279 2.2.3) from r ‖ s as a token answers, 32 octets each.
pub fn signature_to_der(signature: &[u8; 64]) -> Vec<u8> {
    let mut body = Vec::with_capacity(72);
    for half in signature.as_chunks::<32>().0 {
        let zeros = half.iter().take(31).take_while(|octet| **octet == 0).count();
        let magnitude = &half[zeros..];
        // An INTEGER is signed: a leading 1 bit needs an octet 0 before it.
        let pad = usize::from(magnitude[0] >= 0x80);
        body.push(0x02);
        body.push(u8::try_from(magnitude.len() + pad).expect("at most 33"));
        body.extend(&[0][..pad]);
        body.extend(magnitude);
    }
    let mut der = vec![0x30, u8::try_from(body.len()).expect("at most 70")];
    der.append(&mut body);
    der
}

/// One line of signature, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: Box<str>,
    /// The id of the key.
    pub key_id: [u8; 4],
    /// The signature itself, whose form the key's type determines.
    pub octets: Vec<u8>,
}

/// A well-formed signed note. Nothing in it can be believed before [`Note::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    whole: Box<str>,
    text: Range<usize>,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// Parses a note strictly: its form is checked in every line, also in those of signatures by keys we do not know.
    pub fn parse(octets: &[u8]) -> Result<Self, NoteError> {
        if octets.len() > NOTE_LEN_MAX {
            return Err(NoteError::TooLong { len: octets.len() });
        }
        let whole = str::from_utf8(octets).map_err(|e| NoteError::NotUtf8 { at: e.valid_up_to() })?;
        if let Some(at) = octets.iter().position(|octet| *octet < 0x20 && *octet != b'\n') {
            return Err(NoteError::Control { at, found: octets[at] });
        }
        // The text may contain empty lines; the last empty line of the note ends it.
        let text_len = whole.rfind("\n\n").ok_or(NoteError::Parts)? + 1;
        let lines = whole[text_len + 1..].strip_suffix('\n').ok_or(NoteError::Parts)?;
        let signatures = lines
            .split('\n')
            .enumerate()
            .map(|(i, line)| {
                parse_signature(line).map_err(|expected| NoteError::SignatureLine { line: i + 1, expected })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { whole: whole.into(), text: 0..text_len, signatures })
    }

    /// A note of `text` with one signature of type `0x02` (in DER), which [`Note::verify`] has still to verify.
    pub fn assemble(text: &str, key: &Verifier, signature_der: &[u8]) -> Result<Self, NoteError> {
        let mut signature = key.key_id.to_vec();
        signature.extend(signature_der);
        let whole = format!("{text}\n\u{2014} {} {}\n", key.name, STANDARD.encode(signature));
        Self::parse(whole.as_bytes())
    }

    /// The whole note, as it came.
    pub fn octets(&self) -> &[u8] {
        self.whole.as_bytes()
    }

    /// What is signed: everything before the empty line, with its last line feed.
    pub fn text(&self) -> &str {
        &self.whole[self.text.clone()]
    }

    /// The signatures, in order.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Checks that `key` signed the text. Signatures by other keys are passed over, as the specification demands; each one
    /// with this key's name and id must verify.
    pub fn verify(&self, key: &Verifier) -> Result<(), NoteError> {
        let mut verified = false;
        for (i, signature) in self.signatures.iter().enumerate() {
            if signature.name != key.name || signature.key_id != key.key_id {
                continue;
            }
            if !key.verifies(self.text().as_bytes(), &signature.octets) {
                return Err(NoteError::BadSignature { line: i + 1, key: key.to_string() });
            }
            verified = true;
        }
        if verified { Ok(()) } else { Err(NoteError::NotSigned { key: key.to_string() }) }
    }
}

fn parse_signature(line: &str) -> Result<NoteSignature, &'static str> {
    let line = line.strip_prefix("\u{2014} ").ok_or("an em dash (U+2014) and a space at its beginning")?;
    let (name, signature) = line.split_once(' ').ok_or("name, space and base64 after the dash")?;
    if !is_key_name(name) {
        return Err("a key name without spaces and plus signs");
    }
    let signature = STANDARD.decode(signature).map_err(|_| "the signature in padded standard base64")?;
    match signature.split_first_chunk() {
        Some((key_id, octets)) if !octets.is_empty() => {
            Ok(NoteSignature { name: name.into(), key_id: *key_id, octets: octets.to_vec() })
        }
        Some(_) | None => Err("a key id of 4 octets and a signature after it"),
    }
}

#[cfg(test)]
pub(in crate::domain::ledger) mod tests;
