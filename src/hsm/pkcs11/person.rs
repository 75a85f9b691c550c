//! Shell: a person's own smart card or token, with which they sign documents.
//!
//! It is not one of ours: no worker, no genesis, no CKA_ID of our making. The module is loaded into `smkictl` itself, on the
//! person's machine, for one signature; what the worker process protects is the daemon, which never comes here.
//! One login, with a PIN that is tried once. Lies beneath `pkcs11.rs`, so that cryptoki is named in one place.

use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::Error;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, CertificateType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use ring::digest;
use secrecy::SecretString;

use super::{PRIME256V1, code, trimmed};
use crate::domain::certificates::Certificate;
use crate::domain::certificates::signature::{FIXED_LEN, PublicKeyError};
use crate::domain::certificates::x509::X509Error;
use crate::hsm::returns;
use crate::hsm::signer::{PersonSigner, SignerError};

/// Which key on the token: by label, by CKA_ID, by both, or the only one there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyOnToken {
    /// CKA_LABEL.
    pub label: Option<String>,
    /// CKA_ID.
    pub id: Option<Vec<u8>>,
}

/// Why a person's token does not sign.
#[derive(Debug, thiserror::Error)]
pub enum PersonTokenError {
    /// The module does not load.
    #[error("{}: expected a PKCS#11 module, found {found}", path.display())]
    Module {
        /// Which.
        path: PathBuf,
        /// What the loader said.
        found: String,
    },
    /// A function of the module failed.
    #[error("{rv}: {cause}")]
    Call {
        /// Function and return value.
        rv: String,
        /// The likely cause.
        cause: String,
    },
    /// No token, or several.
    #[error("expected one token with label {label:?}{}, found {matching}; there are: {seen}", serial.as_ref().map(|serial| format!(" and serial number {serial:?}")).unwrap_or_default())]
    Token {
        /// The label asked for.
        label: String,
        /// The serial number asked for.
        serial: Option<String>,
        /// How many fit.
        matching: usize,
        /// All tokens.
        seen: String,
    },
    /// The token cannot do it.
    #[error("expected a token that does CKM_ECDSA, found none of it; documents are signed by ECDSA over P-256")]
    Mechanism,
    /// A wrong PIN now could lock the token.
    #[error("the token says {flag}: put the PIN right with the token's own tool first; no PIN was tried")]
    PinAtRisk {
        /// Which flag.
        flag: &'static str,
    },
    /// The PIN could not be had.
    #[error("PIN: {0}")]
    Pin(#[source] std::io::Error),
    /// The token refused the PIN.
    #[error("the token refused the PIN ({rv}); it was tried once and is not tried again")]
    PinRefused {
        /// The return value.
        rv: String,
    },
    /// No key, or several.
    #[error("expected one private key{wanted}, found {found}; name it by --key-label or --key-id")]
    Key {
        /// What was asked for.
        wanted: String,
        /// How many fit.
        found: usize,
    },
    /// A key that cannot sign documents.
    #[error("the key is not usable: expected {expected}, found {found}")]
    KeyUnfit {
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// No certificate for the key, or several.
    #[error(
        "expected one X.509 certificate with the key's CKA_ID on the token, found {found}; give it with --certificate"
    )]
    Certificate {
        /// How many there are.
        found: usize,
    },
    /// The certificate on the token is none.
    #[error("certificate on the token: {0}")]
    CertificateUnreadable(#[from] X509Error),
    /// The certificate's key is not on P-256.
    #[error("certificate: {0}")]
    CertificateKey(#[from] PublicKeyError),
    /// Key and certificate do not belong together.
    #[error(
        "expected a signature by the key of the certificate of {subject}, found one by another key; is it the right pair?"
    )]
    OtherKey {
        /// Whose.
        subject: String,
    },
    /// Something else than a signature on P-256.
    #[error("expected a signature of 64 octets, found {found}")]
    SignatureLength {
        /// How many.
        found: usize,
    },
}

/// A person's token, logged in.
pub struct PersonToken {
    session: Session,
    key: ObjectHandle,
    certificate: Certificate,
}

impl PersonToken {
    /// Loads the module, finds the token and the key, and logs in once with what `pin` answers. The certificate is the one
    /// given, else the one on the token.
    pub fn open(
        module: &Path,
        label: &str,
        serial: Option<&str>,
        key: &KeyOnToken,
        certificate: Option<Certificate>,
        pin: impl FnOnce() -> std::io::Result<SecretString>,
    ) -> Result<Self, PersonTokenError> {
        let loaded = Pkcs11::new(module)
            .map_err(|error| PersonTokenError::Module { path: module.to_owned(), found: error.to_string() })?;
        loaded.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(fault)?;
        let (slot, info) = find_token(&loaded, label, serial)?;
        if !loaded.get_mechanism_list(slot).map_err(fault)?.contains(&MechanismType::ECDSA) {
            return Err(PersonTokenError::Mechanism);
        }
        for (set, flag) in
            [(info.user_pin_locked(), "CKF_USER_PIN_LOCKED"), (info.user_pin_final_try(), "CKF_USER_PIN_FINAL_TRY")]
        {
            if set {
                return Err(PersonTokenError::PinAtRisk { flag });
            }
        }
        let session = loaded.open_ro_session(slot).map_err(fault)?;
        let pin = pin().map_err(PersonTokenError::Pin)?;
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) => {}
            Err(Error::Pkcs11(rv, Function::Login)) if returns::is_about_the_pin(code(rv)) => {
                let rv = returns::judge("C_Login", code(rv)).name.into_owned();
                return Err(PersonTokenError::PinRefused { rv });
            }
            Err(error) => return Err(fault(error)),
        }
        let key = find_key(&session, key)?;
        check_key(&session, key)?;
        let certificate = match certificate {
            Some(certificate) => certificate,
            None => find_certificate(&session, key)?,
        };
        Ok(Self { session, key, certificate })
    }
}

impl PersonSigner for PersonToken {
    fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    fn sign(&self, octets: &[u8]) -> Result<[u8; FIXED_LEN], SignerError> {
        self.sign_checked(octets).map_err(|error| SignerError::Token(Box::new(error)))
    }
}

impl PersonToken {
    /// Whether key and certificate belong together shows when the signature verifies: tokens need not tell a public key.
    fn sign_checked(&self, octets: &[u8]) -> Result<[u8; FIXED_LEN], PersonTokenError> {
        let hashed = digest::digest(&digest::SHA256, octets);
        let signed = self.session.sign(&Mechanism::Ecdsa, self.key, hashed.as_ref()).map_err(fault)?;
        let signature = <[u8; FIXED_LEN]>::try_from(signed.as_slice())
            .map_err(|_| PersonTokenError::SignatureLength { found: signed.len() })?;
        if self.certificate.public_key()?.verifies_fixed(octets, &signature) {
            Ok(signature)
        } else {
            Err(PersonTokenError::OtherKey { subject: self.certificate.subject_text() })
        }
    }
}

fn fault(error: Error) -> PersonTokenError {
    match error {
        Error::Pkcs11(rv, function) => {
            let function = format!("C_{function:?}");
            let judgement = returns::judge(&function, code(rv));
            let rv = format!("{function} answered {}", judgement.name);
            PersonTokenError::Call { rv, cause: judgement.meaning.cause.to_owned() }
        }
        other => PersonTokenError::Call { rv: "cryptoki".to_owned(), cause: other.to_string() },
    }
}

fn find_token(module: &Pkcs11, label: &str, serial: Option<&str>) -> Result<(Slot, TokenInfo), PersonTokenError> {
    let mut matching = Vec::new();
    let mut seen = Vec::new();
    for slot in module.get_slots_with_token().map_err(fault)? {
        match module.get_token_info(slot) {
            Ok(info) => {
                let (its_label, its_serial) = (trimmed(info.label()), trimmed(info.serial_number()));
                if info.token_initialized() {
                    seen.push(format!("{its_label:?} with serial number {its_serial:?}"));
                }
                if its_label == label && serial.is_none_or(|serial| serial == its_serial) {
                    matching.push((slot, info));
                }
            }
            // A slot that cannot be read does not hide the others.
            Err(error) => seen.push(format!("slot {} that cannot be read ({error})", slot.id())),
        }
    }
    let count = matching.len();
    match matching.pop() {
        Some(one) if count == 1 => Ok(one),
        Some(_) | None => Err(PersonTokenError::Token {
            label: label.to_owned(),
            serial: serial.map(ToOwned::to_owned),
            matching: count,
            seen: if seen.is_empty() { "none".to_owned() } else { seen.join(", ") },
        }),
    }
}

fn find_key(session: &Session, wanted: &KeyOnToken) -> Result<ObjectHandle, PersonTokenError> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    let mut words = String::new();
    if let Some(label) = &wanted.label {
        template.push(Attribute::Label(label.as_bytes().to_vec()));
        words = format!("{words} with label {label:?}");
    }
    if let Some(id) = &wanted.id {
        template.push(Attribute::Id(id.clone()));
        words = format!("{words} with CKA_ID {}", hex::encode(id));
    }
    let found = session.find_objects(&template).map_err(fault)?;
    match found.as_slice() {
        [one] => Ok(*one),
        others => Err(PersonTokenError::Key { wanted: words, found: others.len() }),
    }
}

/// What is not told counts as fit but for what must be known: the signature is verified afterwards.
fn check_key(session: &Session, key: ObjectHandle) -> Result<(), PersonTokenError> {
    let wanted =
        [AttributeType::KeyType, AttributeType::EcParams, AttributeType::Sign, AttributeType::AlwaysAuthenticate];
    for attribute in session.get_attributes(key, &wanted).map_err(fault)? {
        let unfit = |expected, found: String| Err(PersonTokenError::KeyUnfit { expected, found });
        match attribute {
            Attribute::KeyType(kind) if kind != KeyType::EC => return unfit("an EC key", kind.to_string()),
            Attribute::EcParams(params) if params != PRIME256V1 => {
                return unfit("a key on P-256", format!("CKA_EC_PARAMS {}", hex::encode(params)));
            }
            Attribute::Sign(false) => return unfit("a key that signs", "CKA_SIGN false".to_owned()),
            // cryptoki makes C_SignInit and C_Sign in one call, between which such a token wants its PIN again.
            Attribute::AlwaysAuthenticate(true) => {
                let found =
                    "one that wants its PIN for each signature (CKA_ALWAYS_AUTHENTICATE); sign with openssl cms \
                             instead, as the page on determinations says"
                        .to_owned();
                return unfit("a key that signs after one login", found);
            }
            _ => {}
        }
    }
    Ok(())
}

fn find_certificate(session: &Session, key: ObjectHandle) -> Result<Certificate, PersonTokenError> {
    let attributes = session.get_attributes(key, &[AttributeType::Id]).map_err(fault)?;
    let id = attributes.into_iter().find_map(|a| if let Attribute::Id(id) = a { Some(id) } else { None });
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Err(PersonTokenError::Certificate { found: 0 }) };
    let template = [
        Attribute::Class(ObjectClass::CERTIFICATE),
        Attribute::CertificateType(CertificateType::X_509),
        Attribute::Id(id),
    ];
    let found = session.find_objects(&template).map_err(fault)?;
    let [one] = found.as_slice() else { return Err(PersonTokenError::Certificate { found: found.len() }) };
    let attributes = session.get_attributes(*one, &[AttributeType::Value]).map_err(fault)?;
    let value = attributes.into_iter().find_map(|a| if let Attribute::Value(value) = a { Some(value) } else { None });
    let value = value.ok_or(PersonTokenError::Certificate { found: 0 })?;
    Ok(Certificate::from_der(&value)?)
}
