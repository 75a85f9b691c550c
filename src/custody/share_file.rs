//! Shell: the file in which a custodian keeps a share. A share is a scalar of P-256, and is written as the private key that it is (PKCS#8,
//! RFC 5208), so that tools which we did not write open it too:
//!
//! - under a passphrase, encrypted (PBES2 with scrypt and AES-256, RFC 8018 and 7914): `openssl pkey -in share.pem -pubout` shows the point
//!   that the ledger's commitments give for it;
//! - to a certificate, in CMS EnvelopedData ([`envelope`]): `openssl cms -decrypt -inform PEM -in share.pem -inkey …` gives it, with a key
//!   file or a card.
//!
//! A file says in words before its first line of armour what it is; that is for people, and nothing is concluded from it.

pub mod envelope;

use std::io;

use der::pem::LineEnding;
use der::{Decode as _, Encode as _, SecretDocument};
use getrandom::SysRng;
use getrandom::rand_core::TryRng as _;
use pkcs8::PrivateKeyInfoRef;
use pkcs8::pkcs5::pbes2;
use pkcs8::pkcs5::scrypt;
use pkcs8::spki::AlgorithmIdentifierRef;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::scheme::{SCALAR_LEN, SchemeError, Share};
use crate::domain::certificates::Certificate;
use crate::domain::certificates::pem;
use crate::domain::names::{KeyLabel, PersonId, ShareName};
use crate::hsm::signer::{EC_PUBLIC_KEY, P256, SignerError, scalar_from_pem};
use envelope::EnvelopeError;

/// The shortest passphrase of a share, in characters. No official reference: what is random and typed at a console twice a year. Whoever has
/// the file may try as many as they like.
pub const PASSPHRASE_LEN_MIN: usize = 12;
/// The longest share file of ours; a certificate's issuer may be long.
pub const FILE_LEN_MAX: usize = 64 * 1024;

/// scrypt: N = 2^14 and r = 8 take 16 MB, and OpenSSL 3 gives it 32 at most; p = 8 makes it eight times as slow.
const SCRYPT: (u8, u32, u32) = (14, 8, 8);

/// What a share file is called by, for people.
#[derive(Clone, Debug)]
pub struct Title<'a> {
    /// The key.
    pub key: &'a KeyLabel,
    /// From 1.
    pub generation: u32,
    /// The share.
    pub share: &'a ShareName,
    /// Whose.
    pub person: &'a PersonId,
}

impl Title<'_> {
    fn lines(&self, opened_by: &str) -> String {
        let Self { key, generation, share, person } = self;
        format!("Share {share} of key {key}, generation {generation}, of {person}. Opened by {opened_by}.\n")
    }
}

/// Why a share file is not made, or does not open.
#[derive(Debug, thiserror::Error)]
pub enum ShareFileError {
    /// The passphrase is too short.
    #[error("expected a passphrase of at least {PASSPHRASE_LEN_MIN} characters, found {0}")]
    Passphrase(usize),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
    /// It cannot be encrypted.
    #[error("the share cannot be encrypted: {0}")]
    Encryption(String),
    /// What is in it is no share, or the passphrase is wrong.
    #[error("share file: {0}")]
    Key(#[from] SignerError),
    /// CMS.
    #[error("share file: {0}")]
    Envelope(#[from] EnvelopeError),
    /// It is sealed to a certificate, and no key was given.
    #[error(
        "the share file is sealed to a certificate: give its private key (--key-file), or open it with the card first: openssl cms -decrypt \
         -inform PEM -in FILE -inkey … (to a present by a pipe and `--share -`; at a ceremony to a file in memory, -out /dev/shm/FILE, which is \
         destroyed afterwards)"
    )]
    NoKey,
    /// It is no scalar.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
}

/// Writes a share under a passphrase.
pub fn under_passphrase(
    share: &Share,
    title: &Title<'_>,
    passphrase: &SecretString,
) -> Result<Vec<u8>, ShareFileError> {
    check_passphrase(passphrase)?;
    let failed = |error: &dyn std::fmt::Display| ShareFileError::Encryption(error.to_string());
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    let filled = SysRng.try_fill_bytes(&mut salt).and_then(|()| SysRng.try_fill_bytes(&mut iv));
    filled.map_err(|_| ShareFileError::NoRandom)?;
    let (log_n, r, p) = SCRYPT;
    let scrypt = scrypt::Params::new(log_n, r, p).map_err(|error| failed(&error))?;
    let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(scrypt, &salt, iv).map_err(|error| failed(&error))?;
    let clear = pkcs8(share)?;
    let passphrase = passphrase.expose_secret();
    let info = PrivateKeyInfoRef::from_der(clear.as_bytes()).map_err(|error| failed(&error))?;
    let sealed = info.encrypt_with_params(parameters, passphrase).map_err(|error| failed(&error))?;
    let armoured = sealed.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).map_err(|error| failed(&error))?;
    Ok([title.lines("its passphrase").as_bytes(), armoured.as_bytes()].concat())
}

/// Writes a share to the key of a certificate, which must be on P-256.
pub fn to_certificate(share: &Share, title: &Title<'_>, certificate: &Certificate) -> Result<Vec<u8>, ShareFileError> {
    let clear = pkcs8(share)?;
    let clear = clear.to_pem("PRIVATE KEY", LineEnding::LF);
    let clear = clear.map_err(|error| ShareFileError::Encryption(error.to_string()))?;
    let sealed = envelope::seal(clear.as_bytes(), certificate)?;
    let opened_by = format!("the key of the certificate of {}", certificate.subject_text().escape_debug());
    Ok([title.lines(&opened_by).as_bytes(), pem::to_pem("CMS", &sealed).as_bytes()].concat())
}

/// Whether a passphrase is long enough.
pub fn check_passphrase(passphrase: &SecretString) -> Result<(), ShareFileError> {
    match passphrase.expose_secret().chars().count() {
        found if found < PASSPHRASE_LEN_MIN => Err(ShareFileError::Passphrase(found)),
        _ => Ok(()),
    }
}

/// Whether the file is sealed to a certificate; else it wants a passphrase, or is open.
pub fn is_to_certificate(text: &str) -> bool {
    pem::blocks(text).is_ok_and(|blocks| blocks.iter().any(|block| block.label == "CMS"))
}

/// Opens a share file: under a passphrase; to a certificate whose private key is in `key_file`; or open already, as it comes from
/// `openssl cms -decrypt`. `ask` is called for the passphrase of the share, or of the key file, only if there is one.
pub fn open(
    text: &Zeroizing<String>,
    index: u16,
    key_file: Option<&Zeroizing<String>>,
    ask: impl FnOnce() -> io::Result<SecretString>,
) -> Result<Share, ShareFileError> {
    Ok(Share::new(index, scalar(text, key_file, ask)?)?)
}

/// The same where it is not known yet with which index it was dealt: its octets.
pub fn scalar(
    text: &Zeroizing<String>,
    key_file: Option<&Zeroizing<String>>,
    ask: impl FnOnce() -> io::Result<SecretString>,
) -> Result<Zeroizing<[u8; SCALAR_LEN]>, ShareFileError> {
    let scalar = if is_to_certificate(text) {
        let key = scalar_from_pem(key_file.ok_or(ShareFileError::NoKey)?, ask)?;
        let clear = envelope::open(text, &key)?;
        scalar_from_pem(&clear, || Err(io::Error::other("a share in an envelope has no passphrase")))?
    } else {
        scalar_from_pem(text, ask)?
    };
    Ok(scalar)
}

/// The share as a private key on P-256, with its public key beside it.
fn pkcs8(share: &Share) -> Result<SecretDocument, ShareFileError> {
    let failed = |error: der::Error| ShareFileError::Encryption(error.to_string());
    let point = share.point();
    let octets: &[u8; SCALAR_LEN] = share.octets();
    let inner = sec1::EcPrivateKey { private_key: octets, parameters: None, public_key: Some(&point) };
    let inner = Zeroizing::new(inner.to_der().map_err(failed)?);
    let algorithm = AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some((&P256).into()) };
    let inner = der::asn1::OctetStringRef::new(&inner).map_err(failed)?;
    SecretDocument::encode_msg(&PrivateKeyInfoRef::new(algorithm, inner)).map_err(failed)
}

#[cfg(test)]
mod tests;
