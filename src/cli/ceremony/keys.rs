//! `ceremony keys`: the key pairs of the policy, each on its token.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::room::{self, Room};
use super::{CeremonyError, Keys};
use crate::cli::input::{self, InputError};
use crate::cli::print::Printer;
use crate::cli::release::write_new;
use crate::domain::certificates::pem;
use crate::domain::certificates::signature::PublicKey;
use crate::domain::determination::words::Words;
use crate::domain::ledger::entry::KeyRecord;
use crate::domain::names::{Digest, KeyId, KeyLabel, KeyUse, Origin, Purpose, TokenName};
use crate::domain::policy::{Key, Policy};
use crate::hsm::{Expectations, ExpectedKey, HsmError, Token};
use crate::service::configuration::Configuration;
use crate::service::start::{self, StartFault};
use crate::store::sqlite::SqliteStore;
use crate::store::{Lock, StoreError};

/// The version of keys.json.
const VERSION: u32 = 1;
/// The name of the file.
const KEYS_FILE: &str = "keys.json";

/// `keys.json`: the keys made so far, for everyone to read. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysFile {
    /// 1.
    pub version: u32,
    /// Of the policy they were made for.
    pub purpose: Purpose,
    /// The ledger that they are for.
    pub origin: Origin,
    /// The keys, by label.
    pub keys: Vec<MadeKey>,
}

/// A key pair that stands on a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeKey {
    /// Its `CKA_LABEL`.
    pub label: KeyLabel,
    /// What it is for.
    #[serde(rename = "use")]
    pub use_: KeyUse,
    /// Its token, as policy and configuration call it.
    pub token: TokenName,
    /// The serial number of that token.
    pub serial: Box<str>,
    /// Its `CKA_ID`.
    pub id: KeyId,
    /// SHA-256 of its DER SubjectPublicKeyInfo.
    pub spki_sha256: Digest,
    /// The DER SubjectPublicKeyInfo in base64.
    pub spki: Box<str>,
    /// `spki_sha256` as words for reading aloud.
    pub words: Box<str>,
}

impl MadeKey {
    fn new(key: &Key, serial: &str, id: KeyId, spki: &[u8]) -> Self {
        let spki_sha256 = Digest::of(spki);
        Self {
            label: key.label.clone(),
            use_: key.key_use,
            token: key.token.clone(),
            serial: serial.into(),
            id,
            spki_sha256,
            spki: STANDARD.encode(spki).into(),
            words: aloud(spki_sha256),
        }
    }

    /// As genesis names it.
    pub fn record(&self) -> KeyRecord {
        let Self { label, use_, token, serial, id, spki_sha256, spki, words: _ } = self.clone();
        KeyRecord { label, use_, token, serial, id, spki_sha256, spki }
    }

    /// Its public half.
    pub fn public_key(&self) -> Result<PublicKey, String> {
        let octets = STANDARD.decode(&*self.spki).map_err(|error| format!("spki: {error}"))?;
        PublicKey::from_spki(&octets).map_err(|error| format!("spki: {error}"))
    }

    /// What must be found on its token.
    pub fn expected(&self) -> ExpectedKey {
        let spki = Some(self.record().spki_octets());
        ExpectedKey { label: self.label.clone(), id: self.id, use_: self.use_, spki, cloned: false, material: None }
    }

    fn fault(&self, policy: &Policy, configuration: &Configuration) -> Option<String> {
        let Some(key) = policy.key(&self.label) else {
            return Some("the policy has no such key".to_owned());
        };
        if key.key_use != self.use_ || key.token != self.token {
            return Some(format!(
                "the policy has it as a {} key on token {}, here it is a {} key on {}",
                key.key_use, key.token, self.use_, self.token
            ));
        }
        let configured = configuration.tokens.iter().find(|token| token.name == self.token);
        if let Some(token) = configured.filter(|token| *token.serial != *self.serial) {
            return Some(format!(
                "token {}: expected the serial number {}, the configuration has {}",
                self.token, self.serial, token.serial
            ));
        }
        match self.public_key() {
            Err(fault) => Some(fault),
            Ok(public) if public.spki_sha256() != self.spki_sha256 => {
                Some(format!("spki_sha256: expected {}, found {}", public.spki_sha256(), self.spki_sha256))
            }
            Ok(_) if aloud(self.spki_sha256) != self.words => Some("words: not those of spki_sha256".to_owned()),
            Ok(_) => None,
        }
    }
}

fn aloud(digest: Digest) -> Box<str> {
    Words(digest).iter().collect::<Vec<_>>().join(" ").into()
}

impl KeysFile {
    /// Reads keys.json of a folder and holds it against policy and configuration. Without the file there are no keys yet.
    pub fn read(folder: &Path, policy: &Policy, configuration: &Configuration) -> Result<Self, CeremonyError> {
        let path = folder.join(KEYS_FILE);
        let wrong = |why: String| CeremonyError::KeysFile { path: path.clone(), why };
        if !path.exists() {
            let (purpose, origin) = (policy.purpose(), policy.origin().clone());
            return Ok(Self { version: VERSION, purpose, origin, keys: Vec::new() });
        }
        let octets = input::file(&path, input::DOCUMENT_LEN_MAX)?;
        let read: Self = serde_json::from_slice(&octets).map_err(|error| wrong(error.to_string()))?;
        if read.version != VERSION {
            return Err(wrong(format!("version: expected {VERSION}, found {}", read.version)));
        }
        if read.purpose != policy.purpose() || read.origin != *policy.origin() {
            return Err(wrong(format!(
                "its keys are {} keys for {}; the policy is {} for {}",
                read.purpose,
                read.origin,
                policy.purpose(),
                policy.origin()
            )));
        }
        for (at, key) in read.keys.iter().enumerate() {
            if read.keys[..at].iter().any(|other| other.label == key.label || other.id == key.id) {
                return Err(wrong(format!("key {}: it, or its id, stands there twice", key.label)));
            }
            if let Some(fault) = key.fault(policy, configuration) {
                return Err(wrong(format!("key {}: {fault}", key.label)));
            }
        }
        Ok(read)
    }

    /// Every key of the policy is there, or which is not.
    pub fn complete(&self, folder: &Path, policy: &Policy) -> Result<(), CeremonyError> {
        let missing: Vec<&str> = self.missing(policy).map(|key| key.label.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!("these keys of the policy are not made yet: {}; run `ceremony keys`", missing.join(", "));
        Err(CeremonyError::KeysFile { path: folder.join(KEYS_FILE), why })
    }

    fn missing<'a>(&'a self, policy: &'a Policy) -> impl Iterator<Item = &'a Key> {
        policy.keys().filter(|key| !self.keys.iter().any(|made| made.label == key.label))
    }

    /// One more key, written down.
    fn add(&mut self, key: &Key, serial: &str, id: KeyId, spki: &[u8], folder: &Path) -> Result<(), CeremonyError> {
        self.keys.push(MadeKey::new(key, serial, id, spki));
        self.keys.sort_by(|a, b| a.label.cmp(&b.label));
        self.write(folder)
    }

    fn write(&self, folder: &Path) -> Result<(), CeremonyError> {
        let mut octets = serde_json::to_vec_pretty(self).map_err(std::io::Error::from)?;
        octets.push(b'\n');
        Ok(room::replace(&folder.join(KEYS_FILE), &octets)?)
    }

    /// Each public key as a file of its own.
    pub fn write_public_keys(&self, folder: &Path, policy: &Policy) -> Result<(), CeremonyError> {
        let uses: Vec<KeyUse> = policy.keys().map(|key| key.key_use).collect();
        for key in &self.keys {
            let public = key.public_key().map_err(|why| CeremonyError::Key { key: key.label.clone(), why })?;
            let name = format!("{}.pem", stem(&key.label, key.use_, &uses));
            write_new(&folder.join(name), pem::public_key_to_pem(&public).as_bytes())?;
        }
        Ok(())
    }

    /// The keys on a token.
    pub fn on<'a>(&'a self, token: &'a TokenName) -> impl Iterator<Item = &'a MadeKey> {
        self.keys.iter().filter(move |key| key.token == *token)
    }
}

/// The tokens of a policy's keys, and what they are for. Clones are brought to their tokens by the maker's means, later.
pub fn holdings(policy: &Policy) -> BTreeMap<TokenName, Vec<KeyUse>> {
    let mut tokens: BTreeMap<TokenName, Vec<KeyUse>> = BTreeMap::new();
    for key in policy.keys() {
        tokens.entry(key.token.clone()).or_default().push(key.key_use);
    }
    tokens
}

/// What files about a key are called: by its use, or by its label if it is not the only one of that use.
pub fn stem<'a>(label: &KeyLabel, use_: KeyUse, all: impl IntoIterator<Item = &'a KeyUse>) -> String {
    let alone = all.into_iter().filter(|other| **other == use_).count() == 1;
    if alone { use_.to_string() } else { label.to_string() }
}

impl Keys {
    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let (policy, _) = room::read_policy(&self.policy)?;
        let configuration = Configuration::read(&self.tokens.config)?;
        start::check_ledger_token(&configuration, &policy.ledger_key().token)?;
        let room = Room::enter(&self.tokens, configuration, policy.purpose())?;
        let holdings = holdings(&policy);
        room.check_tokens(holdings.iter().map(|(token, uses)| (token, uses.as_slice())))?;
        let state = &room.configuration.state;
        if SqliteStore::exists(state) {
            return Err(StoreError::Exists { path: state.clone() }.into());
        }
        let mut file = KeysFile::read(&self.out, &policy, &room.configuration)?;
        let missing: Vec<Key> = file.missing(&policy).cloned().collect();
        if self.change.dry_run {
            print.answer(&file, |text| {
                for key in &missing {
                    text.row("would make", format!("{} key {} on token {}", key.key_use, key.label, key.token));
                }
            })?;
            print.note("Nothing was made. No token was asked.");
            return Ok(());
        }
        // Without a ledger no daemon runs, but another ceremony may.
        let _lock = if state.is_dir() { Some(Lock::take(state)?) } else { None };
        make_folder(&self.out)?;
        for (token, uses) in &holdings {
            make_on(&room, token, uses, &missing, &mut file, &self.out, print)?;
        }
        file.write_public_keys(&self.out, &policy)?;
        print.answer(&file, |text| {
            for key in &file.keys {
                text.row("key", format!("{} ({}) on token {}", key.label, key.use_, key.token))
                    .row("CKA_ID", key.id)
                    .row("SHA-256", key.spki_sha256)
                    .line(&Words(key.spki_sha256).to_string());
            }
        })?;
        for key in policy.keys() {
            for copy in key.copies.keys() {
                print.warning(&format!(
                    "key {}: it is for the maker's means to clone it to token {copy}; once it is there, after `ceremony begin`: \
                     `smkictl ceremony copy --key {} --token {copy}`",
                    key.label, key.label
                ));
            }
        }
        if missing.is_empty() {
            print.note("Every key stood already; nothing was made.");
        }
        print.note(
            "Next: read the words aloud, have others compare; then `smkictl ceremony adoption`, and have everyone on the roster sign it.",
        );
        Ok(())
    }
}

/// Makes a folder unless it is there.
pub fn make_folder(path: &Path) -> Result<(), InputError> {
    fs::create_dir_all(path).map_err(|source| InputError::Unreadable { path: path.to_owned(), source })
}

/// Makes the keys that are missing on one token, each written down before the next.
fn make_on(
    room: &Room,
    name: &TokenName,
    uses: &[KeyUse],
    missing: &[Key],
    file: &mut KeysFile,
    folder: &Path,
    print: Printer,
) -> Result<(), CeremonyError> {
    let keys = file.on(name).map(MadeKey::expected).collect();
    let (token, report) = room.start(name, uses, Expectations { keys, genesis: None, origin: None })?;
    if let Some(found) = report.genesis {
        return Err(CeremonyError::TokenTaken { token: name.clone(), found });
    }
    for key in missing.iter().filter(|key| key.token == *name) {
        make(room, &token, &report.serial, key, draw_id()?, file, folder)?;
        print.note(&format!("made key {} on token {name}", key.label));
    }
    token.shutdown();
    Ok(())
}

/// A `CKA_ID` that no key has.
pub fn draw_id() -> Result<KeyId, InputError> {
    let mut id = [0; KeyId::LEN];
    SystemRandom::new().fill(&mut id).map_err(|_| InputError::NoRandom)?;
    Ok(KeyId(id))
}

/// Makes one key pair, and writes it down.
fn make(
    room: &Room,
    token: &Token,
    serial: &str,
    key: &Key,
    id: KeyId,
    file: &mut KeysFile,
    folder: &Path,
) -> Result<(), CeremonyError> {
    let made = token.generate_key(key.label.clone(), id, key.key_use).wait();
    let made = made.map_err(|source| match source {
        HsmError::KeyExists { label, id: _ } => {
            let remove = removal(room, &key.token, &label);
            CeremonyError::Orphan { token: key.token.clone(), label, path: folder.join(KEYS_FILE), remove }
        }
        source => StartFault::Hsm { token: key.token.clone(), source }.into(),
    })?;
    file.add(key, serial, id, &made.spki, folder)
}

/// How what has this label is taken off a token by hand: whatever its `CKA_ID` is.
fn removal(room: &Room, token: &TokenName, label: &KeyLabel) -> String {
    let configured = room.configuration.tokens.iter().find(|configured| configured.name == *token);
    let (module, name) =
        configured.map_or_else(Default::default, |found| (found.module.display().to_string(), found.label.clone()));
    ["privkey", "pubkey"]
        .map(|kind| {
            format!(
                "pkcs11-tool --module {module} --token-label '{name}' --login --delete-object --type {kind} --label {label}"
            )
        })
        .join("\n  ")
}

/// A key that a plan names before it is made.
pub struct Planned<'a> {
    /// As the policy has it.
    pub key: &'a Key,
    /// Its `CKA_ID`, by the plan.
    pub id: KeyId,
    /// The genesis that its token may carry: of the ledger that stands, if one does.
    pub genesis: Option<Digest>,
}

impl Planned<'_> {
    /// Makes the key unless it stands. A pair with the label and the `CKA_ID` of the plan, whole and as fit as one that is made now, is
    /// the plan's key where its making was `begun` before: an interruption came between making it and writing it down. Whether it was found,
    /// and the key.
    pub fn stand(
        &self,
        room: &Room,
        folder: &Path,
        policy: &Policy,
        begun: bool,
    ) -> Result<(MadeKey, bool), CeremonyError> {
        let Self { key, id, genesis } = *self;
        let mut file = KeysFile::read(folder, policy, &room.configuration)?;
        let written = file.keys.iter().any(|made| made.label == key.label);
        if let Some(other) = file.keys.iter().find(|made| made.label == key.label && made.id != id) {
            let why =
                format!("keys.json has it with the CKA_ID {}, the plan with {id}: it is of another ceremony", other.id);
            return Err(CeremonyError::Key { key: key.label.clone(), why });
        }
        let early = |place: String| CeremonyError::Early { place, key: key.label.clone(), id };
        if written && !begun {
            return Err(early(folder.join(KEYS_FILE).display().to_string()));
        }
        let uses: Vec<KeyUse> =
            policy.keys().filter(|other| other.token == key.token).map(|other| other.key_use).collect();
        // Asked for once: what is found may need a second login.
        let pin = room.pin(&key.token, &uses)?;
        let expected: Vec<ExpectedKey> = file.on(&key.token).map(MadeKey::expected).collect();
        let login = |keys: Vec<ExpectedKey>| {
            let expectations = Expectations { keys, genesis: None, origin: None };
            start::start_token(room.token_config(&key.token)?, pin.clone(), expectations).map_err(CeremonyError::from)
        };
        let (token, report) = login(expected.clone())?;
        if let Some(found) = report.genesis.filter(|found| Some(*found) != genesis) {
            return Err(CeremonyError::TokenTaken { token: key.token.clone(), found });
        }
        let mut found = written;
        if !written {
            match make(room, &token, &report.serial, key, id, &mut file, folder) {
                Err(CeremonyError::Orphan { .. }) => {
                    token.shutdown();
                    let ours = ExpectedKey {
                        label: key.label.clone(),
                        id,
                        use_: key.key_use,
                        spki: None,
                        cloned: false,
                        material: None,
                    };
                    let (token, report) = login(expected.into_iter().chain([ours]).collect())
                        .map_err(|error| half_made(error, room, key, id))?;
                    if !begun {
                        token.shutdown();
                        return Err(early(format!("token {}", key.token)));
                    }
                    let pair = report.keys.iter().find(|pair| pair.id == id).ok_or(StartFault::NoLedgerKey)?;
                    file.add(key, &report.serial, id, &pair.spki, folder)?;
                    token.shutdown();
                    found = true;
                }
                other => {
                    other?;
                    token.shutdown();
                }
            }
        }
        let made = file.keys.iter().find(|made| made.label == key.label).ok_or(StartFault::NoLedgerKey)?;
        Ok((made.clone(), found))
    }
}

/// What has our label is not our pair, or half of it.
fn half_made(error: CeremonyError, room: &Room, key: &Key, id: KeyId) -> CeremonyError {
    match error {
        CeremonyError::Start(StartFault::Hsm {
            source: source @ (HsmError::KeyAbsent { .. } | HsmError::KeyDuplicate { .. } | HsmError::KeyUnfit { .. }),
            ..
        }) => {
            let (token, label) = (key.token.clone(), key.label.clone());
            let remove = removal(room, &token, &label);
            CeremonyError::HalfMade { token, label, id, why: source.to_string(), remove }
        }
        other => other,
    }
}
