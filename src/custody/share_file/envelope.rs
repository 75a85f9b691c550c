//! Shell, for it makes a key of the moment. CMS EnvelopedData (RFC 5652 6) to one certificate on P-256: ECDH with a key of the moment
//! (RFC 5753, dhSinglePass-stdDH-sha256kdf-scheme), AES-256 key wrap (RFC 3394), AES-256-CBC. What every tool for CMS opens.
//!
//! CBC has no authentication of its own. What is in the envelope is a share, which its commitment in the ledger authenticates.

use aes_kw::{KeyInit as _, KwAes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use der::asn1::{AnyRef, BitStringRef, IntRef, ObjectIdentifier, OctetStringRef};
use der::{Choice, Decode as _, Encode as _, Sequence, Tag, Tagged as _};
use getrandom::SysRng;
use getrandom::rand_core::{TryRng as _, UnwrapErr};
use p256::ecdh::diffie_hellman;
use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{PublicKey, SecretKey};
use pkcs8::spki::AlgorithmIdentifierRef;
use ring::digest;
use zeroize::Zeroizing;

use crate::domain::certificates::pem::{self, PemError};
use crate::domain::certificates::signature::PublicKeyError;
use crate::domain::certificates::{Certificate, DerFault};
use crate::hsm::signer::{EC_PUBLIC_KEY, P256};

/// id-envelopedData (RFC 5652 6.1).
const ENVELOPED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.3");
/// id-data (RFC 5652 4).
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
/// dhSinglePass-stdDH-sha256kdf-scheme (RFC 5753 7.1.4).
const ECDH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.1.11.1");
/// id-aes256-wrap (RFC 3565 2.3.2).
const AES_256_WRAP: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.45");
/// id-aes256-CBC (RFC 3565 4.1).
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");

/// Octets of a key of AES-256.
const KEY_LEN: usize = 32;
/// The same in bits, as the key derivation takes it.
const KEY_BITS: [u8; 4] = 256_u32.to_be_bytes();
/// Octets of a block.
const BLOCK_LEN: usize = 16;

/// Why an envelope is not made, or does not open.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The certificate's key.
    #[error("the certificate of {subject}: {fault}")]
    Certificate {
        /// Whose.
        subject: String,
        /// What is wrong with its key.
        fault: PublicKeyError,
    },
    /// PEM.
    #[error("CMS: {0}")]
    Pem(#[from] PemError),
    /// Not the one shape that is written here.
    #[error("CMS: {0}")]
    Der(#[from] DerFault),
    /// Other algorithms, or another recipient than one.
    #[error("CMS: expected {expected}, found {found}. Open it with `openssl cms -decrypt` and hand it on (--share -)")]
    Other {
        /// What is written here.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// It does not open.
    #[error("CMS: it does not open with this private key: it is sealed to another certificate, or was altered")]
    Closed,
}

#[derive(Sequence)]
struct ContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: EnvelopedData<'a>,
}

#[derive(Sequence)]
struct EnvelopedData<'a> {
    version: u8,
    /// A SET OF RecipientInfo.
    recipients: AnyRef<'a>,
    content: EncryptedContent<'a>,
}

#[derive(Choice)]
enum RecipientInfo<'a> {
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    KeyAgreement(KeyAgreement<'a>),
}

#[derive(Sequence)]
struct KeyAgreement<'a> {
    version: u8,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    originator: Originator<'a>,
    algorithm: AlgorithmIdentifierRef<'a>,
    keys: Vec<RecipientKey<'a>>,
}

#[derive(Choice)]
enum Originator<'a> {
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Key(OriginatorKey<'a>),
}

#[derive(Sequence)]
struct OriginatorKey<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    point: BitStringRef<'a>,
}

#[derive(Sequence)]
struct RecipientKey<'a> {
    recipient: IssuerAndSerial<'a>,
    key: &'a OctetStringRef,
}

#[derive(Sequence)]
struct IssuerAndSerial<'a> {
    issuer: AnyRef<'a>,
    serial: IntRef<'a>,
}

#[derive(Sequence)]
struct EncryptedContent<'a> {
    content_type: ObjectIdentifier,
    algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    content: &'a OctetStringRef,
}

/// What the key that wraps is derived by (RFC 5753 7.2).
#[derive(Sequence)]
struct SharedInfo<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    bits: &'a OctetStringRef,
}

const WRAP: AlgorithmIdentifierRef<'static> = AlgorithmIdentifierRef { oid: AES_256_WRAP, parameters: None };

/// Seals octets to a certificate. DER.
pub fn seal(clear: &[u8], certificate: &Certificate) -> Result<Vec<u8>, EnvelopeError> {
    let theirs = certificate.public_key();
    let theirs = theirs.map_err(|fault| EnvelopeError::Certificate {
        subject: certificate.subject_text().escape_debug().to_string(),
        fault,
    })?;
    let theirs = PublicKey::from_sec1_bytes(theirs.point()).map_err(|_| EnvelopeError::Closed)?;
    let moment = SecretKey::generate_from_rng(&mut UnwrapErr(SysRng));
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let mut iv = [0; BLOCK_LEN];
    let random = SysRng.try_fill_bytes(&mut *key).and_then(|()| SysRng.try_fill_bytes(&mut iv));
    random.map_err(|_| EnvelopeError::Other { expected: "random numbers", found: "none".to_owned() })?;

    let wrapping = wrapping_key(&moment, &theirs)?;
    let mut wrapped = [0; KEY_LEN + aes_kw::IV_LEN];
    KwAes256::new(&(*wrapping).into()).wrap_key(&*key, &mut wrapped).map_err(|_| EnvelopeError::Closed)?;

    let mut octets = Zeroizing::new(vec![0; clear.len() / BLOCK_LEN * BLOCK_LEN + BLOCK_LEN]);
    octets[..clear.len()].copy_from_slice(clear);
    let encrypting = cbc::Encryptor::<aes::Aes256>::new(&(*key).into(), &iv.into());
    let content = encrypting.encrypt_padded::<Pkcs7>(&mut octets, clear.len()).map_err(|_| EnvelopeError::Closed)?;

    let point = moment.public_key().to_sec1_point(false);
    envelope(certificate, point.as_bytes(), &wrapped, &iv, content)
        .map_err(|fault| DerFault::within("CMS")(fault).into())
}

fn envelope(
    certificate: &Certificate,
    point: &[u8],
    wrapped: &[u8],
    iv: &[u8],
    content: &[u8],
) -> Result<Vec<u8>, der::Error> {
    let wrap = WRAP.to_der()?;
    let agreement = KeyAgreement {
        version: 3,
        originator: Originator::Key(OriginatorKey {
            algorithm: AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some((&P256).into()) },
            point: BitStringRef::from_bytes(point)?,
        }),
        algorithm: AlgorithmIdentifierRef { oid: ECDH, parameters: Some(AnyRef::from_der(&wrap)?) },
        keys: vec![RecipientKey {
            recipient: IssuerAndSerial {
                issuer: AnyRef::from_der(certificate.issuer())?,
                serial: IntRef::new(certificate.serial())?,
            },
            key: OctetStringRef::new(wrapped)?,
        }],
    };
    let recipients = RecipientInfo::KeyAgreement(agreement).to_der()?;
    let content = EncryptedContent {
        content_type: DATA,
        algorithm: AlgorithmIdentifierRef { oid: AES_256_CBC, parameters: Some(OctetStringRef::new(iv)?.into()) },
        content: OctetStringRef::new(content)?,
    };
    // Version 2: a recipient by key agreement, and no certificates or attributes (RFC 5652 6.1).
    let content = EnvelopedData { version: 2, recipients: AnyRef::new(Tag::Set, &recipients)?, content };
    ContentInfo { content_type: ENVELOPED_DATA, content }.to_der()
}

/// Opens an envelope, PEM, with the private key of its recipient: text.
pub fn open(text: &str, key: &[u8; KEY_LEN]) -> Result<Zeroizing<String>, EnvelopeError> {
    let blocks = pem::blocks(text)?;
    let block = blocks.iter().find(|block| block.label == "CMS").ok_or_else(|| pem::absent("CMS", &blocks))?;
    let octets = block.decode()?;
    let ContentInfo { content_type, content } =
        ContentInfo::from_der(&octets).map_err(DerFault::within("EnvelopedData"))?;
    let EnvelopedData { recipients, content, .. } = content;
    let is = |expected: &'static str, wanted: ObjectIdentifier, found: ObjectIdentifier| {
        if wanted == found { Ok(()) } else { Err(EnvelopeError::Other { expected, found: found.to_string() }) }
    };
    is("id-envelopedData", ENVELOPED_DATA, content_type)?;
    if recipients.tag() != Tag::Set {
        return Err(EnvelopeError::Other { expected: "a SET of recipients", found: recipients.tag().to_string() });
    }
    let RecipientInfo::KeyAgreement(agreement) =
        RecipientInfo::from_der(recipients.value()).map_err(DerFault::within("the one recipient"))?;
    let Originator::Key(originator) = &agreement.originator;
    is("ECDH with SHA-256", ECDH, agreement.algorithm.oid)?;
    is("AES-256-CBC", AES_256_CBC, content.algorithm.oid)?;
    let [recipient] = agreement.keys.as_slice() else {
        return Err(EnvelopeError::Other { expected: "one recipient", found: agreement.keys.len().to_string() });
    };
    let iv = content.algorithm.parameters.and_then(|iv| <[u8; BLOCK_LEN]>::try_from(iv.value()).ok());
    let iv = iv.ok_or(EnvelopeError::Closed)?;

    let ours = SecretKey::from_slice(key).map_err(|_| EnvelopeError::Closed)?;
    let theirs = originator.point.as_bytes().and_then(|point| PublicKey::from_sec1_bytes(point).ok());
    let wrapping = wrapping_key(&ours, &theirs.ok_or(EnvelopeError::Closed)?)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let unwrapped = KwAes256::new(&(*wrapping).into()).unwrap_key(recipient.key.as_bytes(), &mut *key);
    unwrapped.map_err(|_| EnvelopeError::Closed)?;

    let mut octets = Zeroizing::new(content.content.as_bytes().to_vec());
    let decrypting = cbc::Decryptor::<aes::Aes256>::new(&(*key).into(), &iv.into());
    let clear = decrypting.decrypt_padded::<Pkcs7>(&mut octets).map_err(|_| EnvelopeError::Closed)?;
    let text = std::str::from_utf8(clear).map_err(|_| EnvelopeError::Closed)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The key that wraps, by ECDH and the X9.63 key derivation with SHA-256, which gives 32 octets at once.
fn wrapping_key(ours: &SecretKey, theirs: &PublicKey) -> Result<Zeroizing<[u8; KEY_LEN]>, EnvelopeError> {
    let bits = OctetStringRef::new(&KEY_BITS).map_err(DerFault::within("SharedInfo"))?;
    let info = SharedInfo { algorithm: WRAP, bits }.to_der().map_err(DerFault::within("SharedInfo"))?;
    let shared = diffie_hellman(ours.to_nonzero_scalar(), theirs.as_affine());
    let mut hashing = digest::Context::new(&digest::SHA256);
    hashing.update(shared.raw_secret_bytes());
    hashing.update(&1_u32.to_be_bytes());
    hashing.update(&info);
    Ok(Zeroizing::new(hashing.finish().as_ref().try_into().expect("SHA-256 has 32 octets")))
}
