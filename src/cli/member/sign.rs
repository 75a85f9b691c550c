//! Shell: `smkictl determination sign`: one person's signature, made with their own key after they were shown the document.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;
use serde_json::json;

use super::files::{self, PEM_LEN_MAX, Paper};
use super::page::Page;
use super::show::{Beside, Shown};
use super::{Ask, MemberError, Seat};
use crate::api::failure::Exit;
use crate::domain::certificates::Certificate;
use crate::domain::determination::cms::{self, Ess};
use crate::domain::determination::words::Words;
use crate::domain::names::{Digest, PersonId};
use crate::hsm::person::{KeyOnToken, PersonToken};
use crate::hsm::signer::{PemSigner, PersonSigner, SignerError};

/// How many of the document's words are typed to confirm it. Two of 256 each: typing them without having the page in view
/// succeeds once in 65,536 times.
const WORDS_TYPED: usize = 2;

/// Arguments of `smkictl determination sign`.
#[derive(Args, Debug)]
pub struct Sign {
    /// The document
    #[arg(value_name = "ID.json")]
    pub file: PathBuf,
    /// What lies beside it
    #[command(flatten)]
    pub beside: Beside,
    /// Your private key (PEM: PKCS#8, encrypted or not, or SEC1)
    #[arg(long, value_name = "KEY.pem", required_unless_present = "pkcs11_module", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// A file with the passphrase of --key. Else it is asked for
    #[arg(long, value_name = "FILE", requires = "key")]
    pub passphrase_file: Option<PathBuf>,
    /// Your certificate (PEM). Certificates behind it go into the signature too. From a token it may be left out
    #[arg(long, value_name = "CERT.pem")]
    pub certificate: Option<PathBuf>,
    /// Certificates between yours and the CA that the policy names (PEM)
    #[arg(long, value_name = "CHAIN.pem")]
    pub chain: Option<PathBuf>,
    /// Sign with a smart card or other token: the PKCS#11 module of its maker, or OpenSC's
    #[arg(long, value_name = "MODULE.so", conflicts_with = "key", requires = "token")]
    pub pkcs11_module: Option<PathBuf>,
    /// The token's label
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub token: Option<String>,
    /// The token's serial number, where two have one label
    #[arg(long, value_name = "SERIAL", requires = "pkcs11_module")]
    pub serial: Option<String>,
    /// The key's label on the token
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub key_label: Option<String>,
    /// The key's CKA_ID on the token, in hexadecimal
    #[arg(long, value_name = "HEX", requires = "pkcs11_module")]
    pub key_id: Option<String>,
    /// A file with the token's PIN. Else it is asked for
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pub pin_file: Option<PathBuf>,
    /// What the policy calls you: the MEMBER in ID.MEMBER.p7s. With --policy it is found by your key; a suspension and a custodian's
    /// statement name you
    #[arg(long, value_name = "ID")]
    pub member: Option<PersonId>,
    /// Where the signature goes. [beside the document, as ID.MEMBER.p7s]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// For scripts: the document's SHA-256, instead of the words typed at the terminal
    #[arg(long, value_name = "SHA256")]
    pub confirm: Option<Digest>,
}

/// Shows the document, asks, signs, verifies and writes the signature.
pub fn run(args: &Sign, seat: &mut Seat<'_>) -> Result<Exit, MemberError> {
    let shown = Shown::open(Paper::open(&args.file)?, &args.beside, seat.now)?;
    seat.err.write_all(shown.page().text().as_bytes()).map_err(MemberError::Answer)?;
    if let Some((what, fault)) = shown.undecodable() {
        return Err(MemberError::Undecodable { what, fault });
    }
    let digest = shown.paper().digest();
    if let Some(expected) = args.confirm.filter(|expected| *expected != digest) {
        return Err(MemberError::NotConfirmed { expected: expected.to_string(), found: digest.to_string() });
    }
    if args.confirm.is_none() && !seat.ask.is_there() {
        return Err(MemberError::NobodyThere);
    }
    let (certificate, mut others) = match &args.certificate {
        Some(path) => files::read_certificates(path).map(|(first, rest)| (Some(first), rest))?,
        None => (None, Vec::new()),
    };
    if let Some(path) = &args.chain {
        let (first, rest) = files::read_certificates(path)?;
        others.extend(std::iter::once(first).chain(rest));
    }
    if let Some(certificate) = &certificate {
        check_in_force(certificate, seat)?;
    }
    // The words come before the PIN: nobody's key is opened before they have agreed.
    if args.confirm.is_none() {
        confirm(digest, seat)?;
    }
    let signer = signer(args, certificate, seat.ask)?;
    check_in_force(signer.certificate(), seat)?;
    let member = member(args, &shown, signer.certificate(), seat)?;
    let out = match (&args.out, &member) {
        (Some(out), _) => out.clone(),
        (None, Some(member)) => args.file.with_file_name(format!("{}.{member}.p7s", stem(&args.file, &shown))),
        (None, None) => {
            let fault =
                "expected --member or --out, or --policy of a policy that has your key; found neither".to_owned();
            return Err(MemberError::Described { field: "--member".to_owned(), fault });
        }
    };
    let p7s = sign(shown.paper(), &*signer, &others, seat)?;
    files::write_new(&out, &p7s)?;
    let mut page = Page::default();
    page.row("signature", out.display());
    page.row("document SHA-256", digest);
    page.row("signed by", signer.certificate().subject_text());
    let subject = signer.certificate().subject_text();
    seat.answer(&json!({ "signature": out, "document": digest, "member": member, "subject": subject }), &page)?;
    Ok(Exit::Done)
}

/// The document's file without its ending, as long as it is called as it should be; else as it should be.
fn stem(file: &Path, shown: &Shown) -> String {
    match file.file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) if file.extension().is_some_and(|ending| ending == "json") => stem.to_owned(),
        Some(_) | None => shown.paper().stem(),
    }
}

/// Asks for the first words of the document's SHA-256.
fn confirm(digest: Digest, seat: &mut Seat<'_>) -> Result<(), MemberError> {
    let words: Vec<&str> = Words(digest).iter().take(WORDS_TYPED).collect();
    let prompt = format!("To sign exactly this, type the first {WORDS_TYPED} words of its SHA-256: ");
    let typed = seat.ask.line(&prompt).map_err(MemberError::Ask)?;
    let same = typed.split_whitespace().map(str::to_lowercase).eq(words.iter().map(|word| (*word).to_owned()));
    if same {
        return Ok(());
    }
    let typed: Vec<&str> = typed.split_whitespace().take(WORDS_TYPED + 1).collect();
    Err(MemberError::NotConfirmed {
        expected: format!("{:?}", typed.join(" ")),
        found: format!("{:?}", words.join(" ")),
    })
}

fn check_in_force(certificate: &Certificate, seat: &Seat<'_>) -> Result<(), MemberError> {
    if certificate.is_in_force(seat.now) {
        return Ok(());
    }
    Err(MemberError::NotInForce {
        subject: certificate.subject_text(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        at: seat.now,
    })
}

fn signer(
    args: &Sign,
    certificate: Option<Certificate>,
    ask: &mut dyn Ask,
) -> Result<Box<dyn PersonSigner>, MemberError> {
    if let (Some(module), Some(token)) = (&args.pkcs11_module, &args.token) {
        let key = KeyOnToken { label: args.key_label.clone(), id: args.key_id.as_deref().map(key_id).transpose()? };
        let pin = || secret(args.pin_file.as_deref(), &format!("PIN of token {token:?}: "), ask);
        let signer = PersonToken::open(module, token, args.serial.as_deref(), &key, certificate, pin)
            .map_err(|error| SignerError::Token(Box::new(error)))?;
        return Ok(Box::new(signer));
    }
    let (Some(key), Some(certificate)) = (&args.key, certificate) else {
        let fault = "expected --key with --certificate, or --pkcs11-module with --token".to_owned();
        return Err(MemberError::Described { field: "--key".to_owned(), fault });
    };
    let text = files::read_text(key, PEM_LEN_MAX)?;
    let passphrase = || secret(args.passphrase_file.as_deref(), &format!("Passphrase of {}: ", key.display()), ask);
    Ok(Box::new(PemSigner::from_pem(&text, certificate, passphrase)?))
}

fn key_id(text: &str) -> Result<Vec<u8>, MemberError> {
    hex::decode(text).map_err(|fault| MemberError::Described {
        field: "--key-id".to_owned(),
        fault: format!("expected hexadecimal digits in pairs: {fault}"),
    })
}

/// A PIN or passphrase, from a file (its first line) or typed.
fn secret(file: Option<&Path>, prompt: &str, ask: &mut dyn Ask) -> io::Result<SecretString> {
    let Some(path) = file else { return ask.secret(prompt) };
    files::read_secret(path).map_err(|error| io::Error::other(error.to_string()))
}

/// Who signs, by the policy and by what was said; the policy must know them as one who may.
fn member(
    args: &Sign,
    shown: &Shown,
    certificate: &Certificate,
    seat: &Seat<'_>,
) -> Result<Option<PersonId>, MemberError> {
    let refused = |why: String| Err(MemberError::NotCounted(why));
    let Some(policy) = shown.policy() else {
        // Whom it names is known without a policy; whether the key is theirs is not.
        let (named, said) = (shown.paper().signed_alone_by(), args.member.as_ref());
        return match (named, said) {
            (Some(named), Some(said)) if named != said => {
                refused(format!("the {} is by {named}, not by {said}", shown.paper().noun()))
            }
            (named, said) => Ok(said.or(named).cloned()),
        };
    };
    let Some(person) = policy.person_by_spki(&certificate.spki_sha256()) else {
        // Who joins or leaves with a policy may be known by the other one only.
        if matches!(shown.paper(), Paper::Adoption(_)) {
            return Ok(args.member.clone());
        }
        return refused(format!(
            "the policy does not know the key of {}, SHA-256 {}; is it the right certificate?",
            certificate.subject_text(),
            certificate.spki_sha256()
        ));
    };
    if let Some(said) = args.member.as_ref().filter(|said| **said != person.id) {
        return refused(format!("the policy says that this key is of {}, not of {said}", person.id));
    }
    let role = shown.paper().signed_as();
    if !person.roles.contains(&role) {
        return refused(format!("{} is no {role} under the policy", person.id));
    }
    if !person.window.contains(seat.now) {
        return refused(format!("{} is appointed {}; it is {}", person.id, person.window, seat.now));
    }
    if shown.paper().proposer() == Some(&person.id) {
        return refused(format!("{} proposed this document, and may not approve it", person.id));
    }
    if let Some(named) = shown.paper().signed_alone_by().filter(|named| **named != person.id) {
        return refused(format!("the {} is by {named}, not by {}", shown.paper().noun(), person.id));
    }
    Ok(Some(person.id.clone()))
}

/// Signs, and verifies with another implementation than the one that signed before anything is kept.
fn sign(
    paper: &Paper,
    signer: &dyn PersonSigner,
    others: &[Certificate],
    seat: &Seat<'_>,
) -> Result<Vec<u8>, MemberError> {
    let attributes = cms::signed_attributes(&paper.digest(), signer.certificate(), seat.now)?;
    let signature = signer.sign(&attributes)?;
    let p7s = cms::assemble(&attributes, &signature, signer.certificate(), others)?;
    cms::verify(&p7s, paper.octets(), Ess::Required)?;
    Ok(p7s)
}
