//! Shell: the Contingency Symmetric Key on its token: made, used within, and let out under a key of the moment.
//!
//! How it gets out. It is wrapped by the trusted key alone (`CKA_WRAP_WITH_TRUSTED`), which is on the token and never leaves it. So it
//! is wrapped under that (AES key wrap, RFC 3394), unwrapped into a copy that lives for one session, and the copy is wrapped under a key of
//! 32 random octets that this process made for it. What comes out is unwrapped here, in memory that is wiped. To read the copy's
//! value would be shorter; many tokens show no value of a secret key, and a network HSM would send it in clear.
//!
//! Who has the PIN can do the same: that is what the daemon does. What the trusted key takes from them is the short ways: a wrapping key of
//! their own, the vendor's export, a tool that asks for CKA_VALUE. (`CKA_UNWRAP_TEMPLATE` could demand that a copy be sensitive, not that
//! it stay inside, or nothing came out; and cryptoki has no attribute for it.)
//!
//! The trusted key is a public object, since its maker sees no other. So whoever reaches the token without a PIN may destroy it, and
//! do no more: it opens nothing that is not private. The security officer then makes another under the same name, which wraps the
//! symmetric key as well (`ceremony contingency`).

use aes_kw::{KeyInit as _, KwAes256};
use cryptoki::error::Error;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Class, HsmError, LoggedIn, code, fault, returns};
use crate::domain::certificates::apex::{GCM_NONCE_LEN, GCM_TAG_LEN, WrapParameters, WrappedApexKey};
use crate::domain::gbcs::SymmetricKey;
use crate::domain::names::{Digest, KeyId, KeyLabel};
use crate::hsm::contingency::{Compared, Material, SYMMETRIC_KEY, WRAPPING_KEY, symmetric_label, wrapping_label};

/// Length of a wrapping key, and of a key of the moment, in octets.
const KEK_LEN: usize = 32;
/// Length of the tag that AES-GCM appends, in bits (RFC 5084, the ICV).
const TAG_BITS: u64 = 8 * GCM_TAG_LEN as u64;

/// What the Contingency Symmetric Key may do and be; with [`AttributeType::WrapWithTrusted`] where that was recorded. It encrypts
/// once, when the extension of the Root OCA Certificate is made, and decrypts when that is compared.
const SYMMETRIC: [(AttributeType, bool); 13] = [
    (AttributeType::Token, true),
    (AttributeType::Private, true),
    (AttributeType::Sensitive, true),
    (AttributeType::AlwaysSensitive, true),
    (AttributeType::Local, true),
    (AttributeType::Extractable, true),
    (AttributeType::Encrypt, true),
    (AttributeType::Decrypt, true),
    (AttributeType::Sign, false),
    (AttributeType::Verify, false),
    (AttributeType::Wrap, false),
    (AttributeType::Unwrap, false),
    (AttributeType::Derive, false),
];
/// The same of its wrapping key, with [`AttributeType::Trusted`].
const WRAPPING: [(AttributeType, bool); 13] = [
    (AttributeType::Token, true),
    (AttributeType::Sensitive, true),
    (AttributeType::AlwaysSensitive, true),
    (AttributeType::Local, true),
    (AttributeType::Extractable, false),
    (AttributeType::NeverExtractable, true),
    (AttributeType::Wrap, true),
    (AttributeType::Unwrap, true),
    (AttributeType::Encrypt, false),
    (AttributeType::Decrypt, false),
    (AttributeType::Sign, false),
    (AttributeType::Verify, false),
    (AttributeType::Derive, false),
];

/// Who logged in decides what a wrapping key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrappingKey {
    /// Made by the security officer, who alone can mark it (`CKA_TRUSTED`). It is a public object: the officer sees no other. That shows
    /// nothing and opens nothing, for what it could wrap is private.
    Trusted,
    /// Made by the user, on a module that knows no trusted keys.
    Plain,
}

/// A secret key as it is looked for.
struct Secret<'k> {
    pair: &'k KeyLabel,
    label: String,
    id: KeyId,
    what: &'static str,
}

impl<'k> Secret<'k> {
    fn symmetric(pair: &'k KeyLabel, id: KeyId) -> Self {
        Self { pair, label: symmetric_label(pair), id, what: SYMMETRIC_KEY }
    }

    fn wrapping(pair: &'k KeyLabel, id: KeyId) -> Self {
        Self { pair, label: wrapping_label(pair), id, what: WRAPPING_KEY }
    }

    fn unfit(&self, attribute: &str, expected: &dyn std::fmt::Display, found: Option<String>) -> HsmError {
        HsmError::KeyUnfit {
            label: self.pair.clone(),
            attribute: format!("{attribute} of the {}", self.what),
            expected: expected.to_string(),
            found: found.unwrap_or_else(|| "no such attribute".to_owned()),
        }
    }
}

/// A session for one piece of work: what is made on it is gone with it, and so is whatever failed on it.
struct Apart<'t> {
    token: &'t LoggedIn,
    session: Session,
}

impl Apart<'_> {
    fn call<T>(
        &self,
        name: &'static str,
        call: impl FnOnce(&Session) -> cryptoki::error::Result<T>,
    ) -> Result<T, HsmError> {
        (self.token.watch)(name);
        call(&self.session).map_err(|error| fault(&self.token.name, error))
    }

    /// A key that lives as long as the session.
    fn generate(&self, uses: &[Attribute]) -> Result<ObjectHandle, HsmError> {
        let template = [&for_the_moment()[..], &[Attribute::ValueLen((KEK_LEN as u64).into())], uses].concat();
        self.call("C_GenerateKey", |session| session.generate_key(&Mechanism::AesKeyGen, &template))
    }
}

/// What is gone with its session.
fn for_the_moment() -> [Attribute; 3] {
    [Attribute::Token(false), Attribute::Private(true), Attribute::Sensitive(true)]
}

impl LoggedIn {
    fn apart(&self) -> Result<Apart<'_>, HsmError> {
        (self.watch)("C_OpenSession");
        let session = self.module.open_ro_session(self.slot).map_err(|error| fault(&self.name, error))?;
        Ok(Apart { token: self, session })
    }

    /// Makes the wrapping key of a pair: as the security officer a trusted one.
    ///
    /// Refuses a label or CKA_ID that is taken. As in [`LoggedIn::generate_key`] nothing half made is left.
    pub fn make_wrapping(&self, pair: &KeyLabel, id: KeyId, kind: WrappingKey) -> Result<(), HsmError> {
        self.check_mechanisms()?;
        let secret = Secret::wrapping(pair, id);
        let is_trusted = kind == WrappingKey::Trusted;
        let mut template = vec![
            Attribute::Token(true),
            Attribute::Private(!is_trusted),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Wrap(true),
            Attribute::Unwrap(true),
            Attribute::Encrypt(false),
            Attribute::Decrypt(false),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Derive(false),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::ValueLen((KEK_LEN as u64).into()),
        ];
        if is_trusted {
            template.push(Attribute::Trusted(true));
        }
        self.make_secret(&secret, template, || self.check_wrapping(&secret, is_trusted).map(drop))
    }

    /// Makes the Contingency Symmetric Key of a pair, and tries whether the module holds to what the key says of wrapping.
    ///
    /// # Errors
    /// [`HsmError::NotGuarded`]: it does not; then the key is destroyed.
    pub fn make_symmetric(&self, pair: &KeyLabel, material: Material) -> Result<(), HsmError> {
        let secret = Secret::symmetric(pair, material.symmetric);
        let mut template = vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(true),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
            Attribute::Modifiable(false),
            Attribute::Copyable(false),
            Attribute::ValueLen(material.len().into()),
        ];
        if material.wrap_with_trusted {
            template.push(Attribute::WrapWithTrusted(true));
        }
        self.make_secret(&secret, template, || {
            let symmetric = self.check_symmetric(&secret, material)?;
            self.check_wrapping(&Secret::wrapping(pair, material.wrapping), material.wrap_with_trusted)?;
            if material.wrap_with_trusted { self.check_guard(pair, symmetric) } else { Ok(()) }
        })
    }

    /// Makes a secret key on the token; when that fails, or `judge` does not like it, nothing with its CKA_ID is left.
    fn make_secret(
        &self,
        secret: &Secret<'_>,
        mut template: Vec<Attribute>,
        judge: impl FnOnce() -> Result<(), HsmError>,
    ) -> Result<(), HsmError> {
        let by_id =
            || self.find(&[Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Id(secret.id.octets().to_vec())]);
        let labelled = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(secret.label.as_bytes().to_vec())];
        if !by_id()?.is_empty() || !self.find(&labelled)?.is_empty() {
            return Err(HsmError::KeyExists { label: secret.pair.clone(), id: secret.id });
        }
        template.push(Attribute::Id(secret.id.octets().to_vec()));
        template.push(Attribute::Label(secret.label.as_bytes().to_vec()));
        let made = self.call("C_GenerateKey", |life| life.generate_key(&Mechanism::AesKeyGen, &template));
        let made = made.and_then(|_| judge());
        if made.is_err() {
            for orphan in by_id()? {
                self.call("C_DestroyObject", |life| life.destroy_object(orphan))?;
            }
        }
        made
    }

    /// Whether the symmetric key is guarded: a key that the user made does not wrap it, and the user cannot mark one as trusted. The
    /// same key of the user's wraps another one, so it is not for want of the mechanism.
    fn check_guard(&self, pair: &KeyLabel, symmetric: ObjectHandle) -> Result<(), HsmError> {
        let apart = self.apart()?;
        let wraps = [Attribute::Extractable(false), Attribute::Wrap(true)];
        let self_made = apart.generate(&wraps)?;
        let control = apart.generate(&[Attribute::Extractable(true)])?;
        let wrap = |key| apart.call("C_WrapKey", |session| session.wrap_key(&Mechanism::AesKeyWrap, self_made, key));
        wrap(control)?.zeroize();
        let open = |why: &str| HsmError::NotGuarded { label: pair.clone(), why: why.to_owned() };
        match wrap(symmetric) {
            Ok(mut out) => {
                out.zeroize();
                return Err(open("a wrapping key that the user made wraps it"));
            }
            Err(error) if error.class() == Class::OurFault => {}
            Err(error) => return Err(error),
        }
        match apart.generate(&[&wraps[..], &[Attribute::Trusted(true)]].concat()) {
            Ok(_) => Err(open("the user can mark a wrapping key as trusted (CKA_TRUSTED)")),
            Err(error) if error.class() == Class::OurFault => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks what stands beside a contingency pair.
    pub fn check_material(&self, pair: &KeyLabel, material: Material) -> Result<(), HsmError> {
        self.check_mechanisms()?;
        // In the order in which they are made.
        self.check_wrapping(&Secret::wrapping(pair, material.wrapping), material.wrap_with_trusted)?;
        self.check_symmetric(&Secret::symmetric(pair, material.symmetric), material).map(drop)
    }

    /// What is done with these keys takes mechanisms that signing does not.
    fn check_mechanisms(&self) -> Result<(), HsmError> {
        (self.watch)("C_GetMechanismList");
        let offered = self.module.get_mechanism_list(self.slot).map_err(|error| fault(&self.name, error))?;
        for (wanted, name) in
            [(MechanismType::AES_KEY_WRAP, "CKM_AES_KEY_WRAP"), (MechanismType::AES_GCM, "CKM_AES_GCM")]
        {
            if !offered.contains(&wanted) {
                return Err(HsmError::MechanismAbsent { mechanism: name.to_owned() });
            }
        }
        Ok(())
    }

    /// Destroys what stands beside a contingency pair: the secret keys with these labels and CKA_IDs. That one is gone already is no error.
    pub fn destroy_material(&self, pair: &KeyLabel, material: Material) -> Result<(), HsmError> {
        for secret in [Secret::symmetric(pair, material.symmetric), Secret::wrapping(pair, material.wrapping)] {
            let named = [
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::Label(secret.label.as_bytes().to_vec()),
                Attribute::Id(secret.id.octets().to_vec()),
            ];
            for key in self.find(&named)? {
                self.call("C_DestroyObject", |life| life.destroy_object(key))?;
            }
            if !self.find(&named)?.is_empty() {
                return Err(HsmError::KeyExists { label: pair.clone(), id: secret.id });
            }
        }
        Ok(())
    }

    fn check_symmetric(&self, secret: &Secret<'_>, material: Material) -> Result<ObjectHandle, HsmError> {
        let guarded = material.wrap_with_trusted.then_some((AttributeType::WrapWithTrusted, true));
        self.check_secret(secret, material.len(), SYMMETRIC.into_iter().chain(guarded))
    }

    fn check_wrapping(&self, secret: &Secret<'_>, is_trusted: bool) -> Result<ObjectHandle, HsmError> {
        let trusted = is_trusted.then_some((AttributeType::Trusted, true));
        self.check_secret(secret, KEK_LEN as u64, WRAPPING.into_iter().chain(trusted))
    }

    /// The one secret key of that label and CKA_ID, an AES key of so many octets, with these attributes.
    fn check_secret(
        &self,
        secret: &Secret<'_>,
        len: u64,
        wanted: impl Iterator<Item = (AttributeType, bool)>,
    ) -> Result<ObjectHandle, HsmError> {
        let class = Attribute::Class(ObjectClass::SECRET_KEY);
        let by_label = self.find(&[class.clone(), Attribute::Label(secret.label.as_bytes().to_vec())])?;
        let by_id = self.find(&[class, Attribute::Id(secret.id.octets().to_vec())])?;
        let (label, id, what) = (secret.pair.clone(), secret.id, secret.what.to_owned());
        let key = match (by_label.as_slice(), by_id.as_slice()) {
            ([one], [same]) if one == same => *one,
            ([], _) | (_, []) => return Err(HsmError::KeyAbsent { label, id, class: what }),
            (labelled, identified) => {
                let count = labelled.len().max(identified.len()).max(2);
                return Err(HsmError::KeyDuplicate { label, id, class: what, count });
            }
        };
        let wanted: Vec<(AttributeType, bool)> = wanted.collect();
        let types: Vec<AttributeType> = wanted.iter().map(|(kind, _)| *kind).collect();
        let asked = [&types[..], &[AttributeType::KeyType, AttributeType::ValueLen]].concat();
        let found = self.call("C_GetAttributeValue", |life| life.get_attributes(key, &asked))?;
        if !found.iter().any(|attribute| matches!(attribute, Attribute::KeyType(KeyType::AES))) {
            return Err(secret.unfit("CKA_KEY_TYPE", &"CKK_AES", Some("another".to_owned())));
        }
        let found_len = found.iter().find_map(|attribute| match attribute {
            Attribute::ValueLen(len) => Some(u64::from(*len)),
            _ => None,
        });
        if found_len != Some(len) {
            return Err(secret.unfit("CKA_VALUE_LEN", &len, found_len.map(|found| found.to_string())));
        }
        for (kind, expected) in wanted {
            // Trap: what a token does not tell is left out of the answer without an error, so presence is what is checked.
            let found = found.iter().find(|attribute| attribute.attribute_type() == kind).and_then(flag);
            if found != Some(expected) {
                let found = found.map(|found| found.to_string());
                return Err(secret.unfit(&kind.to_string(), &expected, found));
            }
        }
        Ok(key)
    }

    /// Wraps the public half of a pair with the Contingency Symmetric Key, in the token: AES-GCM with a nonce of the token's. First it is tried
    /// whether that key is guarded as it says.
    ///
    /// # Shape
    /// `spki` is what is wrapped, the DER SubjectPublicKeyInfo (RFC 5934, 9: PublicKeyInfo). The answer is the DER ApexContingencyKey,
    /// the value of the extension WrappedApexContingencyKey.
    pub fn wrap_public(&self, pair: &KeyLabel, spki: &[u8], material: Material) -> Result<Vec<u8>, HsmError> {
        let symmetric = self.check_symmetric(&Secret::symmetric(pair, material.symmetric), material)?;
        if material.wrap_with_trusted {
            // Tried here as well: whoever made the key may have been cut off before it was.
            self.check_guard(pair, symmetric)?;
        }
        let apart = self.apart()?;
        let mut nonce = [0; GCM_NONCE_LEN];
        apart.call("C_GenerateRandom", |session| session.generate_random_slice(&mut nonce))?;
        let wrapped = apart.call("C_Encrypt", |session| {
            let mut iv = nonce;
            let parameters = GcmParams::new(&mut iv, &[], TAG_BITS.into())?;
            session.encrypt(&Mechanism::AesGcm(parameters), symmetric, spki)
        })?;
        let extension = WrappedApexKey::new_gcm(nonce, wrapped, usize::from(material.bits / 8))
            .map_err(|error| HsmError::Protocol { found: format!("C_Encrypt: {error}") })?
            .to_der();
        match self.compare_wrapped(pair, spki, material, &extension)? {
            Compared::Matches => Ok(extension),
            Compared::Differs(why) | Compared::Failed(why) => Err(HsmError::Protocol {
                found: format!("what the token has just wrapped does not unwrap there: {why}"),
            }),
        }
    }

    /// Unwraps a WrappedApexContingencyKey with the Contingency Symmetric Key, in the token, and compares what it gives with the public
    /// half of the pair. Nothing leaves the token but that.
    pub fn compare_wrapped(
        &self,
        pair: &KeyLabel,
        spki: &[u8],
        material: Material,
        extension: &[u8],
    ) -> Result<Compared, HsmError> {
        let wrapped = match WrappedApexKey::from_der(extension) {
            Ok(wrapped) => wrapped,
            Err(error) => return Ok(Compared::Failed(error.to_string())),
        };
        let algorithm = wrapped.algorithm();
        let WrapParameters::Gcm { mut nonce, icv_len } = wrapped.parameters() else {
            return Ok(Compared::Failed(format!(
                "it is wrapped by {algorithm}, and in the token only what is wrapped by AES-GCM is compared"
            )));
        };
        if algorithm.key_len() != usize::from(material.bits / 8) {
            let bits = material.bits;
            return Ok(Compared::Failed(format!(
                "it is wrapped by {algorithm}, and the symmetric key has {bits} bits"
            )));
        }
        let symmetric = self.check_symmetric(&Secret::symmetric(pair, material.symmetric), material)?;
        let apart = self.apart()?;
        (self.watch)("C_Decrypt");
        let opened = GcmParams::new(&mut nonce, &[], (8 * icv_len as u64).into())
            .and_then(|parameters| apart.session.decrypt(&Mechanism::AesGcm(parameters), symmetric, wrapped.wrapped()));
        let found = match opened {
            Ok(found) => found,
            Err(error) => return self.not_opened(error),
        };
        if found == spki {
            return Ok(Compared::Matches);
        }
        let (found, expected) = (Digest::of(&found), Digest::of(spki));
        Ok(Compared::Differs(format!(
            "it unwraps to octets with SHA-256 {found}; the SubjectPublicKeyInfo of key {pair} has {expected}"
        )))
    }

    /// What C_Decrypt answers of octets that are not authentic differs among modules: some say it is the data, SoftHSM only that
    /// something failed. Of a token that is gone, or a session, they all say something else.
    fn not_opened(&self, error: Error) -> Result<Compared, HsmError> {
        let of_the_data = match &error {
            Error::Pkcs11(rv, cryptoki::context::Function::Decrypt) => {
                let judged = returns::judge("C_Decrypt", code(*rv));
                judged.meaning.class == Class::OurFault
                    || matches!(&*judged.name, "CKR_GENERAL_ERROR" | "CKR_FUNCTION_FAILED")
            }
            _ => false,
        };
        match fault(&self.name, error) {
            HsmError::Call(fault) if of_the_data => Ok(Compared::Failed(format!(
                "the token's symmetric key does not open it (C_Decrypt: {}): it was wrapped with another, or altered",
                fault.rv
            ))),
            other => Err(other),
        }
    }

    /// Lets the Contingency Symmetric Key out, as the head of this file says.
    pub fn release_symmetric(&self, pair: &KeyLabel, material: Material) -> Result<SymmetricKey, HsmError> {
        let symmetric = self.check_symmetric(&Secret::symmetric(pair, material.symmetric), material)?;
        let wrapping = self.check_wrapping(&Secret::wrapping(pair, material.wrapping), material.wrap_with_trusted)?;
        let apart = self.apart()?;
        let wrapped =
            apart.call("C_WrapKey", |session| session.wrap_key(&Mechanism::AesKeyWrap, wrapping, symmetric))?;
        let mut copy = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Extractable(true),
            Attribute::Encrypt(false),
            Attribute::Decrypt(false),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Derive(false),
        ];
        copy.extend(for_the_moment());
        let copy = apart
            .call("C_UnwrapKey", |session| session.unwrap_key(&Mechanism::AesKeyWrap, wrapping, &wrapped, &copy))?;
        let mut moment = Zeroizing::new([0; KEK_LEN]);
        SystemRandom::new().fill(&mut *moment).map_err(|_| HsmError::Protocol {
            found: "the system gives no random octets for a key of the moment".to_owned(),
        })?;
        let kek = apart.import(&moment)?;
        let out = apart.call("C_WrapKey", |session| session.wrap_key(&Mechanism::AesKeyWrap, kek, copy))?;
        let mut key = Zeroizing::new([0; KEK_LEN]);
        let key = KwAes256::new((&*moment).into()).unwrap_key(&out, &mut *key).map(SymmetricKey::new);
        match key {
            Ok(Ok(key)) if key.octets().len() as u64 == material.len() => Ok(key),
            _ => Err(HsmError::Protocol {
                found: format!("C_WrapKey: expected a key of {} octets by AES key wrap, found none", material.len()),
            }),
        }
    }
}

impl Apart<'_> {
    /// Brings a wrapping key of the moment to the token.
    fn import(&self, value: &[u8; KEK_LEN]) -> Result<ObjectHandle, HsmError> {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Extractable(false),
            Attribute::Wrap(true),
            Attribute::Unwrap(false),
            Attribute::Encrypt(false),
            Attribute::Decrypt(false),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Derive(false),
            Attribute::Value(value.to_vec()),
        ];
        template.extend(for_the_moment());
        let imported = self.call("C_CreateObject", |session| session.create_object(&template));
        for attribute in &mut template {
            if let Attribute::Value(octets) = attribute {
                octets.zeroize();
            }
        }
        imported
    }
}

/// The value of an attribute that is one or the other.
const fn flag(attribute: &Attribute) -> Option<bool> {
    match attribute {
        Attribute::Token(value)
        | Attribute::Private(value)
        | Attribute::Sensitive(value)
        | Attribute::AlwaysSensitive(value)
        | Attribute::Local(value)
        | Attribute::Extractable(value)
        | Attribute::NeverExtractable(value)
        | Attribute::Encrypt(value)
        | Attribute::Decrypt(value)
        | Attribute::Sign(value)
        | Attribute::Verify(value)
        | Attribute::Wrap(value)
        | Attribute::Unwrap(value)
        | Attribute::Derive(value)
        | Attribute::Trusted(value)
        | Attribute::WrapWithTrusted(value) => Some(*value),
        _ => None,
    }
}
