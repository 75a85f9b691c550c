//! Shell: owns the PKCS#11 module, in the worker only. The one file that names cryptoki.
//!
//! Rules it keeps: one session stays open for life, so that the login is never lost by accident, and nobody logs out; a
//! session belongs to one thread; a session on which anything failed is closed and never used again; objects are looked up once and
//! their handles kept; whoever creates or destroys objects also does all look-ups, on one session, one at a time; nothing is
//! concluded from an absence.

pub mod contingency;
pub mod person;

use std::collections::BTreeMap;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11};
use cryptoki::error::{Error, Rv, RvError};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Limit, Slot, TokenInfo};
use cryptoki::types::AuthPin;
use secrecy::SecretString;

use super::errors::{Certainty, Class, Fault, HsmError};
use super::protocol::{self, Setup};
use super::returns::{self, Judgement};
use super::verify::PublicPoint;
use super::{APPLICATION, ExpectedKey, GENESIS_LABEL, KeyReport, TokenReport};
use crate::domain::names::{Digest, KeyId, KeyLabel, KeyUse};

/// The handle of a private key that was checked. Valid in the process that found it, on every session.
#[derive(Clone, Copy, Debug)]
pub struct KeyHandle(ObjectHandle);

/// Told of each call of the module before it is made, by its name: so that whoever watches knows which one hangs.
pub type Watch = Box<dyn Fn(&'static str) + Send>;

/// How to log in.
pub enum Login {
    /// With this PIN.
    Pin(SecretString),
    /// The token asks by itself: C_Login without a PIN.
    AtTheToken,
}

/// A token, logged in.
pub struct LoggedIn {
    /// What configuration calls it.
    name: String,
    watch: Watch,
    module: Pkcs11,
    slot: Slot,
    /// Read-write; open as long as the worker lives (trap: closing the last session logs everyone out), and used for all
    /// that is not signing.
    life: Session,
    info: TokenInfo,
}

impl LoggedIn {
    /// Loads the module, finds the token by label and serial number and logs in, once, with what `pin` answers. It is asked once
    /// all else is well, and told whether the token says that a wrong PIN was entered since the last good one
    /// (`CKF_USER_PIN_COUNT_LOW`).
    pub fn open(
        setup: &Setup,
        watch: Watch,
        pin: impl FnOnce(bool) -> Result<Login, HsmError>,
    ) -> Result<Self, HsmError> {
        let name = setup.name.as_str().to_owned();
        let failed = |error| fault(&name, error);
        watch("loading the module");
        let module = Pkcs11::new(&setup.module)
            .map_err(|error| HsmError::ModuleLoad { path: setup.module.clone(), found: error.to_string() })?;
        // Trap: without OS_LOCKING_OK modules assume one thread, and crash with more.
        watch("C_Initialize");
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(failed)?;
        let (slot, info) = find_token(&module, &watch, setup)?;
        // SoftHSM 2.6.1 has no CKM_ECDSA_SHA256; CKM_ECDSA over a digest that we take is what every token has.
        watch("C_GetMechanismList");
        if !module.get_mechanism_list(slot).map_err(failed)?.contains(&MechanismType::ECDSA) {
            return Err(HsmError::MechanismAbsent { mechanism: "CKM_ECDSA".to_owned() });
        }
        let at_risk = if setup.officer {
            [(info.so_pin_locked(), "CKF_SO_PIN_LOCKED"), (info.so_pin_final_try(), "CKF_SO_PIN_FINAL_TRY")]
        } else {
            [(info.user_pin_locked(), "CKF_USER_PIN_LOCKED"), (info.user_pin_final_try(), "CKF_USER_PIN_FINAL_TRY")]
        };
        for (set, flag) in at_risk {
            if set {
                return Err(HsmError::PinAtRisk { flag: flag.to_owned() });
            }
        }
        if setup.protected_path && !info.protected_authentication_path() {
            return Err(HsmError::NoProtectedPath);
        }
        watch("C_OpenSession");
        let life = module.open_rw_session(slot).map_err(failed)?;
        watch("the wait for the PIN");
        let (user, count_low) = if setup.officer {
            (UserType::So, info.so_pin_count_low())
        } else {
            (UserType::User, info.user_pin_count_low())
        };
        let login = pin(count_low)?;
        let pin: Option<AuthPin> = match login {
            Login::Pin(pin) => Some(pin),
            Login::AtTheToken => None,
        };
        watch(if pin.is_some() { "C_Login" } else { protocol::AT_THE_TOKEN });
        match life.login(user, pin.as_ref()) {
            Ok(()) => {}
            Err(error) => {
                let is_about_the_pin =
                    matches!(error, Error::Pkcs11(rv, Function::Login) if returns::is_about_the_pin(code(rv)));
                return Err(match failed(error) {
                    HsmError::Call(fault) if is_about_the_pin => HsmError::PinRefused(fault),
                    other => other,
                });
            }
        }
        Ok(Self { name, watch, module, slot, life, info })
    }

    /// Changes the PIN with which it was logged in.
    pub fn set_pin(&self, old: &SecretString, new: &SecretString) -> Result<(), HsmError> {
        self.call("C_SetPIN", |life| life.set_pin(old, new))
    }

    /// Makes one call on the session that is kept for life.
    fn call<T>(
        &self,
        name: &'static str,
        call: impl FnOnce(&Session) -> cryptoki::error::Result<T>,
    ) -> Result<T, HsmError> {
        (self.watch)(name);
        call(&self.life).map_err(|error| fault(&self.name, error))
    }

    /// Checks genesis and keys against what is expected of this token.
    pub fn check(&self, setup: &Setup) -> Result<(TokenReport, BTreeMap<KeyLabel, KeyHandle>), HsmError> {
        let found = self.read_data(GENESIS_LABEL)?;
        let genesis = found.as_deref().and_then(|octets| Digest::try_from(octets).ok());
        if let Some(expected) = setup.genesis
            && genesis != Some(expected)
        {
            return Err(match found {
                None => HsmError::GenesisAbsent { expected },
                Some(octets) => HsmError::GenesisDiffers { expected, found: hex::encode(octets) },
            });
        }
        let mut keys = Vec::with_capacity(setup.keys.len());
        let mut handles = BTreeMap::new();
        for expected in &setup.keys {
            let (report, handle) = self.check_key(expected)?;
            handles.insert(report.label.clone(), handle);
            keys.push(report);
        }
        let report = TokenReport {
            label: trimmed(self.info.label()).to_owned(),
            serial: trimmed(self.info.serial_number()).to_owned(),
            manufacturer: trimmed(self.info.manufacturer_id()).to_owned(),
            model: trimmed(self.info.model()).to_owned(),
            firmware: self.info.firmware_version().to_string(),
            pin_len_max: u32::try_from(self.info.max_pin_length()).unwrap_or(u32::MAX),
            sessions: sessions_of(setup, self.info.max_session_count()),
            keys,
            genesis,
            warnings: Vec::new(),
        };
        Ok((report, handles))
    }

    /// A signer with no session yet; it opens one at its first use.
    pub fn signer(&self) -> Signer {
        Signer { token: self.name.clone(), module: self.module.clone(), slot: self.slot, session: None }
    }

    /// Finds a key and checks that it can do nothing but sign, was born on the token and cannot leave it.
    pub fn check_key(&self, expected: &ExpectedKey) -> Result<(KeyReport, KeyHandle), HsmError> {
        let ExpectedKey { label, id, use_, spki, cloned, material } = expected;
        let private = self.find_one(label, *id, ObjectClass::PRIVATE_KEY)?;
        let public = self.find_one(label, *id, ObjectClass::PUBLIC_KEY)?;
        self.check_attributes(label, private, *cloned)?;
        let point = self.public_point(label, public)?;
        let found = point.to_spki();
        match spki {
            Some(known) if *known != found => Err(HsmError::KeyDiffers {
                label: label.clone(),
                expected: Digest::of(known),
                found: Digest::of(&found),
            }),
            Some(_) | None => {
                if let Some(material) = material {
                    self.check_material(label, *material)?;
                }
                Ok((KeyReport { label: label.clone(), id: *id, use_: *use_, spki: found }, KeyHandle(private)))
            }
        }
    }

    /// The one object of a class with this label and CKA_ID. Another with only one of the two makes both unusable.
    fn find_one(&self, label: &KeyLabel, id: KeyId, class: ObjectClass) -> Result<ObjectHandle, HsmError> {
        let class_name = if class == ObjectClass::PRIVATE_KEY { "private key" } else { "public key" };
        let by_label = self.find(&[Attribute::Class(class), Attribute::Label(label.as_str().into())])?;
        let by_id = self.find(&[Attribute::Class(class), Attribute::Id(id.octets().to_vec())])?;
        match (by_label.as_slice(), by_id.as_slice()) {
            ([one], [same]) if one == same => Ok(*one),
            ([], _) | (_, []) => Err(HsmError::KeyAbsent { label: label.clone(), id, class: class_name.to_owned() }),
            (labelled, identified) => {
                let mut all: Vec<_> = labelled.iter().chain(identified).map(ObjectHandle::handle).collect();
                all.sort_unstable();
                all.dedup();
                Err(HsmError::KeyDuplicate { label: label.clone(), id, class: class_name.to_owned(), count: all.len() })
            }
        }
    }

    fn check_attributes(&self, label: &KeyLabel, key: ObjectHandle, cloned: bool) -> Result<(), HsmError> {
        let wanted = [
            AttributeType::KeyType,
            AttributeType::EcParams,
            AttributeType::Token,
            AttributeType::Private,
            AttributeType::Sensitive,
            AttributeType::AlwaysSensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Local,
            AttributeType::Sign,
            AttributeType::Decrypt,
            AttributeType::Unwrap,
            AttributeType::Derive,
            AttributeType::SignRecover,
            AttributeType::AlwaysAuthenticate,
        ];
        let attributes = self.call("C_GetAttributeValue", |life| life.get_attributes(key, &wanted))?;
        let is = |name: &str, found: Option<bool>, expected: bool| {
            if found == Some(expected) {
                return Ok(());
            }
            Err(HsmError::KeyUnfit {
                label: label.clone(),
                attribute: name.to_owned(),
                expected: expected.to_string(),
                found: found.map_or_else(|| "no such attribute".to_owned(), |found| found.to_string()),
            })
        };
        // Trap: what a token does not tell is left out of the answer without an error, so presence is what is checked.
        macro_rules! flag {
            ($variant:ident) => {
                attributes.iter().find_map(|a| if let Attribute::$variant(value) = a { Some(*value) } else { None })
            };
        }
        let unfit = |attribute: &str, expected: &str, found: String| HsmError::KeyUnfit {
            label: label.clone(),
            attribute: attribute.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        if !attributes.iter().any(|a| matches!(a, Attribute::KeyType(KeyType::EC))) {
            return Err(unfit("CKA_KEY_TYPE", "CKK_EC", "another".to_owned()));
        }
        match attributes.iter().find_map(|a| if let Attribute::EcParams(params) = a { Some(params) } else { None }) {
            Some(params) if *params == PRIME256V1 => {}
            Some(params) => return Err(unfit("CKA_EC_PARAMS", "prime256v1", hex::encode(params))),
            None => return Err(unfit("CKA_EC_PARAMS", "prime256v1", "no such attribute".to_owned())),
        }
        is("CKA_TOKEN", flag!(Token), true)?;
        is("CKA_PRIVATE", flag!(Private), true)?;
        is("CKA_SENSITIVE", flag!(Sensitive), true)?;
        is("CKA_ALWAYS_SENSITIVE", flag!(AlwaysSensitive), true)?;
        is("CKA_EXTRACTABLE", flag!(Extractable), false)?;
        is("CKA_NEVER_EXTRACTABLE", flag!(NeverExtractable), true)?;
        // By the letter of PKCS#11 3.1 (common key attributes) a clone is not local. What was unwrapped or put in in clear fails above.
        if !cloned {
            is("CKA_LOCAL", flag!(Local), true)?;
        }
        is("CKA_SIGN", flag!(Sign), true)?;
        is("CKA_DECRYPT", flag!(Decrypt), false)?;
        is("CKA_UNWRAP", flag!(Unwrap), false)?;
        is("CKA_DERIVE", flag!(Derive), false)?;
        // These two have no meaning for EC on many tokens; absent is as good as false.
        is("CKA_SIGN_RECOVER", flag!(SignRecover).or(Some(false)), false)?;
        // Trap: a login for each C_Sign has no place in cryptoki's single-part call, and would put the PIN in every signature.
        is("CKA_ALWAYS_AUTHENTICATE", flag!(AlwaysAuthenticate).or(Some(false)), false)
    }

    fn public_point(&self, label: &KeyLabel, key: ObjectHandle) -> Result<PublicPoint, HsmError> {
        let attributes =
            self.call("C_GetAttributeValue", |life| life.get_attributes(key, &[AttributeType::EcPoint]))?;
        let octets =
            attributes.iter().find_map(|a| if let Attribute::EcPoint(octets) = a { Some(octets) } else { None });
        // CKA_EC_POINT is a DER OCTET STRING around the point (PKCS#11 3.1, 6.3.3); some modules leave the wrapping away.
        octets
            .and_then(|octets| PublicPoint::from_octets(octets.strip_prefix(&[0x04, 0x41]).unwrap_or(octets)))
            .ok_or_else(|| HsmError::KeyUnfit {
                label: label.clone(),
                attribute: "CKA_EC_POINT".to_owned(),
                expected: "an uncompressed point of P-256".to_owned(),
                found: octets.map_or_else(|| "no such attribute".to_owned(), hex::encode),
            })
    }

    /// Makes a P-256 key pair that can only sign, cannot leave and cannot be changed.
    ///
    /// Refuses a label or CKA_ID that is taken. When the making fails, whatever has the new CKA_ID is destroyed: the id is
    /// 16 fresh random octets and was looked for before, so nothing else can have it. (Trap: a failed C_GenerateKeyPair may leave
    /// half a pair.)
    pub fn generate_key(&self, label: &KeyLabel, id: KeyId, use_: KeyUse) -> Result<(KeyReport, KeyHandle), HsmError> {
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            let by_label = self.find(&[Attribute::Class(class), Attribute::Label(label.as_str().into())])?;
            let by_id = self.find(&[Attribute::Class(class), Attribute::Id(id.octets().to_vec())])?;
            if !by_label.is_empty() || !by_id.is_empty() {
                return Err(HsmError::KeyExists { label: label.clone(), id });
            }
        }
        let name = [Attribute::Label(label.as_str().into()), Attribute::Id(id.octets().to_vec())];
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::EcParams(PRIME256V1.to_vec()),
            Attribute::Verify(true),
            Attribute::Encrypt(false),
            Attribute::Wrap(false),
            Attribute::Modifiable(false),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
            Attribute::SignRecover(false),
            Attribute::Modifiable(false),
        ];
        let made = self
            .call("C_GenerateKeyPair", |life| {
                let (public, private) = ([&public[..], &name].concat(), [&private[..], &name].concat());
                life.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            })
            .and_then(|_| {
                self.check_key(&ExpectedKey {
                    label: label.clone(),
                    id,
                    use_,
                    spki: None,
                    cloned: false,
                    material: None,
                })
            });
        if made.is_err() {
            for orphan in self.find(&[Attribute::Id(id.octets().to_vec())])? {
                self.call("C_DestroyObject", |life| life.destroy_object(orphan))?;
            }
        }
        made
    }

    /// Destroys the key pair with this label, CKA_ID and public key, the private half first; then looks whether it is gone.
    ///
    /// What the public half shows is the only proof of which key it is, so without it, or with another one, nothing is destroyed.
    /// That the pair is gone already is no error, nor that only its public half is left: a destruction that was cut off is done again.
    pub fn destroy_key(&self, label: &KeyLabel, id: KeyId, spki: Digest) -> Result<(), HsmError> {
        let of = |class| self.find(&[Attribute::Class(class), Attribute::Id(id.octets().to_vec())]);
        let (private, public) = (of(ObjectClass::PRIVATE_KEY)?, of(ObjectClass::PUBLIC_KEY)?);
        let class = "public key".to_owned();
        match (private.as_slice(), public.as_slice()) {
            ([], []) => return Ok(()),
            ([_] | [], [one]) => {
                let found = Digest::of(&self.public_point(label, *one)?.to_spki());
                if found != spki {
                    return Err(HsmError::KeyDiffers { label: label.clone(), expected: spki, found });
                }
            }
            (_, []) => return Err(HsmError::KeyAbsent { label: label.clone(), id, class }),
            (all, more) => {
                let count = all.len() + more.len();
                return Err(HsmError::KeyDuplicate { label: label.clone(), id, class, count });
            }
        }
        for object in private.into_iter().chain(public) {
            self.call("C_DestroyObject", |life| life.destroy_object(object))?;
        }
        let left = of(ObjectClass::PRIVATE_KEY)?.len() + of(ObjectClass::PUBLIC_KEY)?.len();
        if left == 0 { Ok(()) } else { Err(HsmError::KeyExists { label: label.clone(), id }) }
    }

    /// The value of the data object with this label, if there is one.
    ///
    /// Two of one value are one: a write that was cut off between making the new and destroying the old.
    pub fn read_data(&self, label: &str) -> Result<Option<Vec<u8>>, HsmError> {
        let mut values = Vec::new();
        for handle in self.find(&data_template(label))? {
            let attributes =
                self.call("C_GetAttributeValue", |life| life.get_attributes(handle, &[AttributeType::Value]))?;
            values.extend(
                attributes.into_iter().filter_map(|a| if let Attribute::Value(v) = a { Some(v) } else { None }),
            );
        }
        values.dedup();
        match values.len() {
            0 | 1 => Ok(values.pop()),
            count => Err(HsmError::DataDuplicate { label: label.to_owned(), count }),
        }
    }

    /// Writes a data object: makes the new one, then destroys the old ones, so that there is one at every moment.
    pub fn write_data(&self, label: &str, octets: &[u8], once: bool) -> Result<(), HsmError> {
        let old = self.find(&data_template(label))?;
        if once && !old.is_empty() {
            return match self.read_data(label)? {
                Some(found) if found == octets => Ok(()),
                found => Err(HsmError::GenesisExists { found: hex::encode(found.unwrap_or_default()) }),
            };
        }
        let mut template = data_template(label).to_vec();
        template.extend([Attribute::Private(false), Attribute::Value(octets.to_vec())]);
        self.call("C_CreateObject", |life| life.create_object(&template))?;
        for handle in old {
            self.call("C_DestroyObject", |life| life.destroy_object(handle))?;
        }
        Ok(())
    }

    /// Ends the module. Every signer must be gone: C_Finalize beside a running C_Sign crashes most modules (trap), and a session
    /// dropped after it would close another's of the same number (trap).
    pub fn close(self) -> Result<(), HsmError> {
        let Self { name, watch, module, slot: _, life, info: _ } = self;
        drop(life);
        watch("C_Finalize");
        module.finalize().map_err(|error| fault(&name, error))
    }

    fn find(&self, template: &[Attribute]) -> Result<Vec<ObjectHandle>, HsmError> {
        self.call("C_FindObjects", |life| life.find_objects(template))
    }
}

/// One signing session, of one thread (trap: two threads on one session crash the module).
pub struct Signer {
    token: String,
    module: Pkcs11,
    slot: Slot,
    session: Option<Session>,
}

impl Signer {
    /// Opens a session unless there is one.
    pub fn ready(&mut self) -> Result<(), HsmError> {
        if self.session.is_none() {
            let opened = self.module.open_ro_session(self.slot);
            self.session = Some(opened.map_err(|error| fault(&self.token, error))?);
        }
        Ok(())
    }

    /// Whether it has one.
    pub const fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// Signs a digest that the worker took of octets it has checked: r and s.
    ///
    /// On any error the session is closed: an unfinished operation would stick in it (trap).
    pub fn sign(&mut self, key: KeyHandle, digest: &[u8; 32]) -> Result<[u8; 64], HsmError> {
        self.ready()?;
        let session = self.session.as_ref().expect("`ready` has just opened it");
        let signed = session.sign(&Mechanism::Ecdsa, key.0, digest);
        let signed = signed.map_err(|error| fault(&self.token, error)).and_then(|octets| {
            <[u8; 64]>::try_from(octets.as_slice()).map_err(|_| HsmError::SignatureLength { found: octets.len() })
        });
        if signed.is_err() {
            self.session = None;
        }
        signed
    }
}

/// The one slot whose token has this label and serial number: slot numbers change, and one label may be given twice.
fn find_token(module: &Pkcs11, watch: &Watch, setup: &Setup) -> Result<(Slot, TokenInfo), HsmError> {
    let Setup { name, label, serial, .. } = setup;
    let mut matching = Vec::new();
    let mut seen = Vec::new();
    let mut unreadable = None;
    watch("C_GetSlotList");
    for slot in module.get_slots_with_token().map_err(|error| fault(name.as_str(), error))? {
        watch("C_GetTokenInfo");
        match module.get_token_info(slot) {
            Ok(info) if trimmed(info.label()) == label && trimmed(info.serial_number()) == serial => {
                matching.push((slot, info));
            }
            Ok(info) if info.token_initialized() => {
                seen.push(format!(
                    "{:?} with serial number {:?}",
                    trimmed(info.label()),
                    trimmed(info.serial_number())
                ));
            }
            Ok(_) => {}
            // A slot that cannot be read, by cryptoki's strictness or the module's, does not hide the others (trap).
            Err(error) => {
                seen.push(format!("slot {} that cannot be read ({error})", slot.id()));
                unreadable.get_or_insert(fault(name.as_str(), error));
            }
        }
    }
    let count = matching.len();
    match matching.pop() {
        Some(one) if count == 1 => Ok(one),
        Some(_) => Err(HsmError::TokenDuplicate { label: label.clone(), serial: serial.clone(), count }),
        // It may be the one that could not be read: then what its slot answered says more than that it was not seen.
        None => Err(unreadable.unwrap_or_else(|| HsmError::TokenAbsent {
            label: label.clone(),
            serial: serial.clone(),
            found: if seen.is_empty() { "none".to_owned() } else { seen.join(", ") },
        })),
    }
}

/// Strings of tokens are padded with blanks; some modules pad with NUL, which cryptoki leaves in (trap).
fn trimmed(text: &str) -> &str {
    text.trim_end_matches([' ', '\0'])
}

/// How many sessions sign. A security officer signs nothing; and beside a contingency key one session more is left free, for what is
/// done with its symmetric key.
fn sessions_of(setup: &Setup, limit: Limit) -> u16 {
    let kept = if setup.keys.iter().any(|key| key.material.is_some()) { 2 } else { 1 };
    if setup.officer { 0 } else { sessions_within(setup.sessions, limit, kept) }
}

/// As many signing sessions as wanted, within the token's limit, some being kept.
fn sessions_within(wanted: u16, limit: Limit, kept: u64) -> u16 {
    match limit {
        Limit::Max(max) => wanted.min(u16::try_from(max.saturating_sub(kept)).unwrap_or(u16::MAX)).max(1),
        Limit::Unavailable | Limit::Infinite => wanted,
    }
}

fn data_template(label: &str) -> [Attribute; 4] {
    [
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Application(APPLICATION.into()),
        Attribute::Label(label.into()),
    ]
}

/// The OID 1.2.840.10045.3.1.7 in DER: `CKA_EC_PARAMS` of P-256 as named curve.
const PRIME256V1: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The number behind what cryptoki calls a return value. The numbers are the standard's; cryptoki's names change with its
/// versions, and what it does not know yet it gives as a number anyhow.
fn code(rv: RvError) -> u64 {
    match rv {
        RvError::VendorDefined(code) | RvError::UnknownErrorCode(code) => code,
        known => returns::VALUES
            .iter()
            .map(|value| value.code)
            .find(|code| matches!(Rv::from(*code), Rv::Error(rv) if rv == known))
            .unwrap_or(returns::VENDOR_DEFINED),
    }
}

/// What a failed call of this token's module means.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` is given")]
fn fault(token: &str, error: Error) -> HsmError {
    let Error::Pkcs11(rv, function) = error else {
        // No call was answered: cryptoki could not make it, or not read the answer.
        return HsmError::Call(Box::new(Fault {
            token: token.to_owned(),
            function: "the module".to_owned(),
            rv: "no return value".to_owned(),
            class: Class::ReplaceWorker,
            certainty: Certainty::SignatureMayExist,
            cause: error.to_string(),
            advice: "check that it is the module of this token's vendor; the worker is replaced by itself".to_owned(),
        }));
    };
    let function = format!("C_{function:?}");
    let Judgement { name, meaning, certainty } = returns::judge(&function, code(rv));
    HsmError::Call(Box::new(Fault {
        token: token.to_owned(),
        function,
        rv: name.into_owned(),
        class: meaning.class,
        certainty,
        cause: meaning.cause.to_owned(),
        advice: meaning.advice.to_owned(),
    }))
}

#[cfg(test)]
mod tests;
