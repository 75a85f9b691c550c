//! Shell: the private key a person signs documents with, from a PEM file. A key on a token is another [`PersonSigner`].

use der::asn1::ObjectIdentifier;
use der::{Decode, SecretDocument};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use sec1::EcPrivateKey;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::domain::certificates::pem::{self, Block, PemError};
use crate::domain::certificates::signature::{FIXED_LEN, PublicKeyError};
use crate::domain::certificates::{Certificate, DerFault};

/// Octets of a private key on P-256.
const SCALAR_LEN: usize = 32;

/// id-ecPublicKey (RFC 5480 2.1.1).
pub const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// secp256r1, which is P-256 (RFC 5480 2.1.1.1).
pub const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// Whoever can sign as a person.
pub trait PersonSigner {
    /// The person's certificate, whose key signs.
    fn certificate(&self) -> &Certificate;

    /// Signs `octets` by ECDSA over P-256 with SHA-256, which the signer takes itself. Answers 64 octets, `r ‖ s`.
    fn sign(&self, octets: &[u8]) -> Result<[u8; FIXED_LEN], SignerError>;
}

/// Why a person's key cannot be had, or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The file is not PEM, or has no private key in it.
    #[error("private key: {0}")]
    Pem(#[from] PemError),
    /// The old way of OpenSSL to encrypt a key, whose key derivation is a single MD5.
    #[error(
        "private key: line {line}: expected PKCS#8, found OpenSSL's traditional encryption (Proc-Type: 4,ENCRYPTED), which \
         protects badly and is not read here; convert it with: openssl pkcs8 -topk8 -in OLD.pem -out NEW.pem"
    )]
    TraditionalEncryption {
        /// The line of `-----BEGIN`, counted from 1.
        line: usize,
    },
    /// The passphrase does not open the key.
    #[error("private key: the passphrase is wrong, or the file is damaged")]
    WrongPassphrase,
    /// Encrypted in a way that is not read here.
    #[error(
        "private key: expected encryption by PBES2 with AES and PBKDF2 or scrypt, found {found}; convert it with: openssl pkcs8 \
         -topk8 -v2 aes-256-cbc -in OLD.pem -out NEW.pem"
    )]
    Encryption {
        /// What it is encrypted with.
        found: pkcs8::Error,
    },
    /// Asking for the passphrase failed.
    #[error("passphrase: {0}")]
    Passphrase(#[source] std::io::Error),
    /// The key cannot be read.
    #[error("private key: {0}")]
    Der(#[from] DerFault),
    /// A key of another algorithm or on another curve.
    #[error("private key: expected an EC key on P-256 ({P256}), found {found}; only P-256 is used here")]
    NotP256 {
        /// The algorithm or curve.
        found: String,
    },
    /// The certificate's key is not on P-256.
    #[error("certificate {subject:?}: {fault}")]
    Certificate {
        /// Whose.
        subject: String,
        /// What is wrong with it.
        fault: PublicKeyError,
    },
    /// Key and certificate do not belong together.
    #[error(
        "private key: expected the key of the certificate {subject:?}, found another; is it the right pair of files?"
    )]
    OtherKey {
        /// Whose certificate.
        subject: String,
    },
    /// The system's random source failed.
    #[error("the system's random source failed; nothing was signed")]
    Random,
    /// A token would not, in the token's words.
    #[error("token: {0}")]
    Token(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A person's key in memory.
pub struct PemSigner {
    key: EcdsaKeyPair,
    certificate: Certificate,
}

impl PemSigner {
    /// Reads the private key of `certificate` from a PEM text: PKCS#8, PKCS#8 encrypted (PBES2), or SEC1. Certificates and EC
    /// parameters beside it are passed over. `ask` is called for the passphrase only if there is one.
    pub fn from_pem(
        text: &Zeroizing<String>,
        certificate: Certificate,
        ask: impl FnOnce() -> std::io::Result<SecretString>,
    ) -> Result<Self, SignerError> {
        let scalar = scalar_from_pem(text, ask)?;
        let subject = || certificate.subject_text();
        let public =
            certificate.public_key().map_err(|fault| SignerError::Certificate { subject: subject(), fault })?;
        // Given the public key, ring checks that the two are a pair.
        let key = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            scalar.as_slice(),
            public.point(),
            &SystemRandom::new(),
        )
        .map_err(|_| SignerError::OtherKey { subject: subject() })?;
        Ok(Self { key, certificate })
    }
}

impl PersonSigner for PemSigner {
    fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    fn sign(&self, octets: &[u8]) -> Result<[u8; FIXED_LEN], SignerError> {
        let signature = self.key.sign(&SystemRandom::new(), octets).map_err(|_| SignerError::Random)?;
        Ok(signature.as_ref().try_into().expect("ring's fixed form of P-256 is 64 octets long"))
    }
}

/// Reads a private key on P-256 from a PEM text, in any of the forms of [`PemSigner::from_pem`]: 32 octets, big-endian.
pub fn scalar_from_pem(
    text: &Zeroizing<String>,
    ask: impl FnOnce() -> std::io::Result<SecretString>,
) -> Result<Zeroizing<[u8; SCALAR_LEN]>, SignerError> {
    let blocks = pem::blocks(text)?;
    let kinds = |block: &&Block<'_>| Kind::of(block.label).is_some();
    let block = blocks.iter().find(kinds).ok_or_else(|| pem::absent(Kind::Plain.label(), &blocks))?;
    if block.text.contains("Proc-Type:") {
        return Err(SignerError::TraditionalEncryption { line: block.line });
    }
    let damaged = |fault: der::Error| match fault.kind() {
        der::ErrorKind::Pem(fault) => {
            SignerError::Pem(PemError::Block { line: block.line, label: block.label.to_owned(), fault })
        }
        _ => SignerError::Der(DerFault::within("PEM")(fault)),
    };
    let (label, document) = SecretDocument::from_pem(block.text).map_err(damaged)?;
    match Kind::of(label) {
        Some(Kind::Encrypted) => from_pkcs8(decrypt(&document, ask)?.as_bytes()),
        Some(Kind::Sec1) => from_sec1(document.as_bytes(), None),
        Some(Kind::Plain) | None => from_pkcs8(document.as_bytes()),
    }
}

/// The forms a private key is written in.
#[derive(Clone, Copy)]
enum Kind {
    /// PKCS#8 (RFC 5208).
    Plain,
    /// PKCS#8, encrypted.
    Encrypted,
    /// SEC1 (RFC 5915).
    Sec1,
}

impl Kind {
    const fn label(self) -> &'static str {
        match self {
            Self::Plain => "PRIVATE KEY",
            Self::Encrypted => "ENCRYPTED PRIVATE KEY",
            Self::Sec1 => "EC PRIVATE KEY",
        }
    }

    fn of(label: &str) -> Option<Self> {
        [Self::Plain, Self::Encrypted, Self::Sec1].into_iter().find(|kind| kind.label() == label)
    }
}

fn decrypt(
    document: &SecretDocument,
    ask: impl FnOnce() -> std::io::Result<SecretString>,
) -> Result<SecretDocument, SignerError> {
    let encrypted = EncryptedPrivateKeyInfoRef::from_der(document.as_bytes())
        .map_err(DerFault::within("EncryptedPrivateKeyInfo"))?;
    let passphrase = ask().map_err(SignerError::Passphrase)?;
    encrypted.decrypt(passphrase.expose_secret()).map_err(|found| match found {
        // A wrong passphrase shows as padding that does not fit, or by chance as a key that is no DER.
        pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::DecryptFailed) | pkcs8::Error::Asn1(_) => {
            SignerError::WrongPassphrase
        }
        found => SignerError::Encryption { found },
    })
}

fn from_pkcs8(der: &[u8]) -> Result<Zeroizing<[u8; SCALAR_LEN]>, SignerError> {
    let info = PrivateKeyInfoRef::from_der(der).map_err(DerFault::within("PrivateKeyInfo"))?;
    if info.algorithm.oid != EC_PUBLIC_KEY {
        return Err(SignerError::NotP256 { found: format!("the algorithm {}", info.algorithm.oid) });
    }
    let curve = info.algorithm.parameters_oid().map_err(|fault| SignerError::NotP256 { found: fault.to_string() })?;
    from_sec1(info.private_key.as_bytes(), Some(curve))
}

/// `curve` is what stands around the key; SEC1 alone must say it inside.
fn from_sec1(der: &[u8], curve: Option<ObjectIdentifier>) -> Result<Zeroizing<[u8; SCALAR_LEN]>, SignerError> {
    let key = EcPrivateKey::from_der(der).map_err(DerFault::within("ECPrivateKey"))?;
    let inside = key.parameters.and_then(sec1::EcParameters::named_curve);
    let curves: Vec<_> = curve.into_iter().chain(inside).collect();
    if curves.is_empty() || curves.iter().any(|curve| *curve != P256) {
        let found = curves.first().map_or("no named curve".to_owned(), |curve| format!("the curve {curve}"));
        return Err(SignerError::NotP256 { found });
    }
    let scalar = <[u8; SCALAR_LEN]>::try_from(key.private_key)
        .map_err(|_| SignerError::NotP256 { found: format!("a key of {} octets", key.private_key.len()) })?;
    Ok(Zeroizing::new(scalar))
}
