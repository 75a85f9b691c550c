//! Shell: what must hold before a ledger is written to: the store's own checks, the tokens' genesis, and the head that the
//! ledger token keeps. The daemon's start and the ceremony ask the same functions.
//!
//! Everything here that speaks with a token waits for it: call it on a plain thread, or within `spawn_blocking`.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::checkpoint::TokenSigner;
use super::configuration::{self, Configuration, Pin};
use super::notify;
use crate::api::engine::{Fatal, FatalKind};
use crate::domain::fold::Fold;
use crate::domain::ledger::entry::{Entry, Event, KeyRecord};
use crate::domain::ledger::head_object::{HEAD_LABELS, HeadObject, HeadObjectError};
use crate::domain::ledger::merkle::Head;
use crate::domain::ledger::note::NoteError;
use crate::domain::names::{Digest, KeyUse, Origin, Purpose, TokenName};
use crate::domain::policy::facts::KeyFacts;
use crate::hsm::handle::PIN_LEN_MAX;
use crate::hsm::{Expectations, ExpectedKey, HsmError, Material, PinSource, Token, TokenConfig, TokenReport};
use crate::state::{self, StateError};
use crate::store::sqlite::{SqliteReader, SqliteStore};
use crate::store::{Reader, StagingLimits, StoreError};

/// Where in the state it is kept that a token refused its PIN, or that one was offered.
const PIN_MARKS: &str = "pin-marks";

/// Where systemd puts the credentials of a unit (systemd.exec, "Credentials").
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// How often the service manager hears that a start goes on, at most.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// How long the next step of a start may take: the last of them read every row of the tables, twenty million in a minute or two.
const STEP_MAX: Duration = Duration::from_secs(15 * 60);

/// Why nothing is started. Nothing was recorded and nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger in it.
    #[error(transparent)]
    State(#[from] StateError),
    /// The ledger key of genesis.
    #[error("the ledger key of the genesis entry: {0}")]
    LedgerKey(#[from] NoteError),
    /// The store has entries, and the first is not a genesis with a ledger key.
    #[error("the genesis entry names no ledger key; this is no ledger that a ceremony made")]
    NoLedgerKey,
    /// A token.
    #[error("token {token}: {source}")]
    Hsm {
        /// Which.
        token: TokenName,
        /// What it, or its worker, said.
        source: HsmError,
    },
    /// A token that holds a key and is not described.
    #[error("no [[token]] of the configuration is called {token}; describe it there: module, label, serial, pin")]
    NotConfigured {
        /// Which.
        token: TokenName,
    },
    /// Configuration and ledger disagree about the ledger token.
    #[error("ledger.token: expected {expected}, which holds the ledger key, found {found}")]
    LedgerToken {
        /// By the policy, or by genesis.
        expected: TokenName,
        /// By the configuration.
        found: TokenName,
    },
    /// A clock that was set where it may not be.
    #[error(
        "exercise.clock_offset_ms: expected 0, for ledger and policy are live, found {found}: a clock that is set opens windows \
         that are closed; remove [exercise] from the configuration"
    )]
    ClockSet {
        /// By how many milliseconds it is set.
        found: i64,
    },
    /// A stored PIN where none may be.
    #[error(
        "token {token}: it holds a live {use_} key, whose PIN may not be stored; remove `pin` of this token from the configuration"
    )]
    PinStored {
        /// Which.
        token: TokenName,
        /// What its key is for.
        use_: KeyUse,
    },
    /// No PIN at hand.
    #[error("token {token}: no PIN is configured; give `pin` of this token in the configuration")]
    PinAbsent {
        /// Which.
        token: TokenName,
    },
    /// A PIN file that cannot be used.
    #[error("{}: expected a PIN: {why}", path.display())]
    PinFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The ledger token keeps no head.
    #[error(
        "token {token} keeps no head of the ledger, so nobody can tell whether the ledger was rolled back. If the ceremony was \
         interrupted, run `smkictl ceremony begin` again; else it is not the token of this ledger"
    )]
    HeadAbsent {
        /// The ledger token.
        token: TokenName,
    },
    /// What stands on the ledger token is no head.
    #[error("token {token}, object {label}: {source}")]
    HeadUnreadable {
        /// The ledger token.
        token: TokenName,
        /// Which object.
        label: &'static str,
        /// What is wrong with it.
        source: HeadObjectError,
    },
    /// The head of another ledger.
    #[error("token {token} keeps the head of the ledger {found}; this one is {expected}. Is it the right token?")]
    HeadOrigin {
        /// The ledger token.
        token: TokenName,
        /// Our origin.
        expected: Origin,
        /// The one found.
        found: Origin,
    },
    /// The ledger is older than what the token saw, or another.
    #[error(
        "token {token} keeps the head of {} entries with root {}, which this ledger of {size} entries {}. It was rolled back or \
         replaced: restore the newest copy of the state directory; nothing is recorded on this one",
        seen.size, seen.root,
        ours.map_or_else(|| "does not reach".to_owned(), |root| format!("does not have: its root there is {root}"))
    )]
    RolledBack {
        /// The ledger token.
        token: TokenName,
        /// What the token saw.
        seen: Head,
        /// The size of this ledger.
        size: u64,
        /// Our root at that size, if we have as many entries.
        ours: Option<Digest>,
    },
}

/// The token is not what it was, and only a person can say why.
pub const MEND_AND_RESTART: &str = "Mend it, then `systemctl restart smkid`";

impl StartFault {
    /// How the daemon ends by it, and what to do.
    pub fn fatal(&self) -> Fatal {
        const CONFIGURE: &str = "Correct the configuration (`smkid check-config` reads it), then start smkid again";
        const RESTORE: &str =
            "Restore the newest copy of the state directory; a new ledger is made by `smkictl ceremony` only";
        const NOTHING: &str = "Nothing was recorded and nothing was signed";
        let (kind, remedy) = match self {
            Self::Store(StoreError::CannotRecord { .. } | StoreError::Broken { .. }) => {
                (FatalKind::CannotRecord, "Free space or mend the disk, then start smkid again")
            }
            Self::LedgerKey(_) | Self::NoLedgerKey => (FatalKind::RefusedToStart, RESTORE),
            Self::Hsm { source, .. } if source.locks() => (FatalKind::RefusedToStart, MEND_AND_RESTART),
            Self::Hsm { .. } => {
                (FatalKind::RefusedToStart, "Bring the token back, or correct its [[token]], then start smkid again")
            }
            Self::NotConfigured { .. }
            | Self::LedgerToken { .. }
            | Self::ClockSet { .. }
            | Self::PinStored { .. }
            | Self::PinAbsent { .. }
            | Self::PinFile { .. } => (FatalKind::Configuration, CONFIGURE),
            Self::Store(_)
            | Self::State(_)
            | Self::HeadAbsent { .. }
            | Self::HeadUnreadable { .. }
            | Self::HeadOrigin { .. }
            | Self::RolledBack { .. } => (FatalKind::RefusedToStart, NOTHING),
        };
        Fatal { kind, why: self.to_string(), remedy: remedy.to_owned() }
    }
}

/// Opens the ledger of a configuration and makes the whole state from it again. It is locked from here on. For whoever uses keys at once.
pub fn open_ledger(configuration: &Configuration) -> Result<(SqliteStore, Fold), StartFault> {
    let mut store = SqliteStore::open(&configuration.state, staging_limits(configuration))?;
    let fold = state::check_all(&mut store)?;
    Ok((store, fold))
}

/// The same for the daemon, from the newest snapshot if there is one; and what is still to be checked before a key is activated.
pub fn open_since_snapshot(
    configuration: &Configuration,
) -> Result<(SqliteStore, Fold, Option<state::Unchecked>), StartFault> {
    let mut store = SqliteStore::open(&configuration.state, staging_limits(configuration))?;
    let mut told: Option<Instant> = None;
    let (fold, unchecked) = state::start(&mut store, &mut |entries| {
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            told = Some(Instant::now());
            notify::still_starting(STEP_MAX, &format!("checking the ledger: {entries} entries so far"));
        }
    })?;
    Ok((store, fold, unchecked))
}

/// Checks the whole state of a configuration against its ledger, as a start does that finds no snapshot. It is locked meanwhile.
pub fn check_state(configuration: &Configuration) -> Result<Fold, StartFault> {
    let mut store = SqliteStore::open(&configuration.state, staging_limits(configuration))?;
    Ok(state::check_all(&mut store)?)
}

/// What may wait as uploads.
pub fn staging_limits(configuration: &Configuration) -> StagingLimits {
    let limits = &configuration.limits;
    StagingLimits { account_len_max: limits.upload_quota_octets, total_len_max: limits.disk_budget_octets }
}

/// The token of that name, as the configuration describes it.
pub fn configured<'a>(
    configuration: &'a Configuration,
    token: &TokenName,
) -> Result<&'a configuration::Token, StartFault> {
    let found = configuration.tokens.iter().find(|configured| configured.name == *token);
    found.ok_or_else(|| StartFault::NotConfigured { token: token.clone() })
}

/// How the worker of one of the configuration's tokens is run. `program` is the `smkid` to run; `None` is this very program.
pub fn token_config(
    configuration: &Configuration,
    token: &TokenName,
    program: Option<PathBuf>,
) -> Result<TokenConfig, StartFault> {
    let token = configured(configuration, token)?;
    Ok(TokenConfig {
        name: token.name.clone(),
        module: token.module.clone(),
        label: token.label.clone(),
        serial: token.serial.clone(),
        sessions: u16::try_from(token.sessions).unwrap_or(u16::MAX),
        call_deadline: Duration::from_millis(token.deadline_ms),
        environment: token.environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        program,
        pin_marks: None,
        clock_offset_ms: configuration.clock_offset_ms,
    })
}

/// The same for the daemon, which remembers across restarts what became of each PIN that it offered.
pub fn daemon_token_config(configuration: &Configuration, token: &TokenName) -> Result<TokenConfig, StartFault> {
    let config = token_config(configuration, token, None)?;
    Ok(TokenConfig { pin_marks: Some(configuration.state.join(PIN_MARKS)), ..config })
}

/// What the ledger of a configuration is for, by its genesis entry; `None` if there is no ledger there. It is read and not locked.
pub fn ledger_purpose(configuration: &Configuration) -> Result<Option<Purpose>, StartFault> {
    let reader = match SqliteReader::open(&configuration.state) {
        Ok(reader) => reader,
        Err(StoreError::Absent { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match Entry::from_leaf(&reader.leaf(0)?).map(|entry| entry.event) {
        Ok(Event::Genesis(genesis)) => Ok(Some(genesis.purpose)),
        Ok(_) | Err(_) => Err(StartFault::NoLedgerKey),
    }
}

/// Whether the clock may be set as it is: by nothing where ledger and policy are live.
pub fn check_clock(purpose: Purpose, configuration: &Configuration) -> Result<(), StartFault> {
    match (purpose, configuration.clock_offset_ms) {
        (Purpose::Exercise, _) | (Purpose::Live, 0) => Ok(()),
        (Purpose::Live, found) => Err(StartFault::ClockSet { found }),
    }
}

/// What a ledger demands of a token: its keys by id and public key, those that were cloned to it too, genesis, and the origin where
/// the ledger key is.
pub fn expectations(fold: &Fold, token: &TokenName) -> Expectations {
    let mut keys: Vec<ExpectedKey> = Vec::new();
    for key in fold.keys().values() {
        // What is being destroyed may be gone from this token already.
        if key.ending.is_none() && is_wanted(fold, key, token) {
            keys.push(expected(key, token));
        }
    }
    let is_ledgers = |key: &KeyFacts| key.record.use_ == KeyUse::Ledger && key.record.token == *token;
    Expectations {
        keys,
        genesis: fold.genesis().map(|(_, leaf_hash)| leaf_hash),
        origin: fold.keys().values().any(is_ledgers).then(|| fold.origin().cloned()).flatten(),
    }
}

/// Whether a ledger demands a key on a token: it is known there, and the policy in force gives it that token. A clone that the policy names
/// no more may have been taken off.
fn is_wanted(fold: &Fold, key: &KeyFacts, token: &TokenName) -> bool {
    let of_policy = fold.policy().and_then(|adopted| adopted.policy.key(&key.record.label));
    let is_given = of_policy.is_none_or(|key| key.tokens().any(|given| given == token));
    key.serial_on(token).is_some() && (is_given || key.record.token == *token)
}

/// What must be found of a key on one of its tokens.
pub fn expected(key: &KeyFacts, token: &TokenName) -> ExpectedKey {
    let record = &key.record;
    ExpectedKey {
        label: record.label.clone(),
        id: record.id,
        use_: record.use_,
        spki: Some(record.spki_octets()),
        cloned: record.token != *token,
        material: key
            .contingency
            .as_ref()
            .filter(|of| of.prepared.token == *token)
            .map(|of| Material::from(&of.prepared)),
    }
}

/// Whether a PIN of this token may lie on the machine: not where a live Recovery or Contingency key is.
pub fn check_pin_source(
    purpose: Purpose,
    token: &configuration::Token,
    holds: impl IntoIterator<Item = KeyUse>,
) -> Result<(), StartFault> {
    let guarded = holds.into_iter().find(|use_| match use_ {
        KeyUse::Ledger => false,
        KeyUse::Recovery | KeyUse::Contingency => true,
    });
    match (purpose, guarded, &token.pin) {
        (Purpose::Live, Some(use_), Some(_)) => Err(StartFault::PinStored { token: token.name.clone(), use_ }),
        (Purpose::Live | Purpose::Exercise, _, _) => Ok(()),
    }
}

/// Reads a PIN from where the configuration says.
pub fn stored_pin(pin: &Pin) -> Result<SecretString, StartFault> {
    match pin {
        Pin::File(path) => pin_file(path),
        Pin::Credential(name) => match std::env::var_os(CREDENTIALS) {
            Some(folder) => pin_file(&Path::new(&folder).join(name)),
            None => Err(StartFault::PinFile {
                path: PathBuf::from(name),
                why: format!(
                    "{CREDENTIALS} is not set, so the service manager passed no credentials (LoadCredential=)"
                ),
            }),
        },
    }
}

/// Reads a PIN file: one line, which only its owner may read.
pub fn pin_file(path: &Path) -> Result<SecretString, StartFault> {
    let wrong = |why: String| StartFault::PinFile { path: path.to_owned(), why };
    let failed = |error: io::Error| wrong(format!("it cannot be read ({error})"));
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(wrong(format!("others than its owner may use it (mode {mode:o}); chmod 600 it")));
    }
    // Room for all of it from the start: a buffer that grows leaves copies behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(PIN_LEN_MAX + 2));
    file.take(PIN_LEN_MAX as u64 + 2).read_to_end(&mut octets).map_err(failed)?;
    let line = octets.strip_suffix(b"\n").unwrap_or(&octets);
    let text = std::str::from_utf8(line).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    if text.is_empty() || text.len() > PIN_LEN_MAX || text.contains('\n') {
        return Err(wrong(format!("it must be one line of 1 to {PIN_LEN_MAX} octets")));
    }
    Ok(SecretString::from(text))
}

/// Starts a token's worker, which checks genesis and every key before it answers. [`expectations`] says what is demanded.
pub fn start_token(
    config: TokenConfig,
    pin: impl Into<PinSource>,
    expectations: Expectations,
) -> Result<(Token, TokenReport), StartFault> {
    let token = config.name.clone();
    Token::start(config, pin, expectations).map_err(|source| StartFault::Hsm { token, source })
}

/// Starts the ledger token and checks the head that it keeps against the ledger. From here on checkpoints can be signed.
pub fn ledger_signer(
    configuration: &Configuration,
    fold: &Fold,
    reader: &dyn Reader,
    program: Option<PathBuf>,
    pin: SecretString,
) -> Result<TokenSigner, StartFault> {
    let record = ledger_key(fold)?;
    check_ledger_token(configuration, &record.token)?;
    let config = token_config(configuration, &record.token, program)?;
    ledger_signer_on(Token::new(config, pin, expectations(fold, &record.token)), fold, reader)
}

/// The same on a token that may be up already.
pub fn ledger_signer_on(token: Token, fold: &Fold, reader: &dyn Reader) -> Result<TokenSigner, StartFault> {
    let verifier = state::ledger_verifier(fold)?.ok_or(StartFault::NoLedgerKey)?;
    token.restart().map_err(|source| StartFault::Hsm { token: token.name().clone(), source })?;
    let origin = fold.origin().ok_or(StartFault::NoLedgerKey)?;
    check_head_object(&token, reader, origin)?;
    let deadline = token.config().call_deadline;
    Ok(TokenSigner::new(token, ledger_key(fold)?.label.clone(), verifier, deadline))
}

/// The ledger key, as genesis has it.
pub fn ledger_key(fold: &Fold) -> Result<&KeyRecord, StartFault> {
    let genesis = fold.genesis().map(|(genesis, _)| genesis.keys.as_slice()).unwrap_or_default();
    genesis.iter().find(|record| record.use_ == KeyUse::Ledger).ok_or(StartFault::NoLedgerKey)
}

/// Configuration and ledger, or policy, must mean the same token.
pub fn check_ledger_token(configuration: &Configuration, expected: &TokenName) -> Result<(), StartFault> {
    let found = &configuration.ledger.token;
    if found == expected {
        Ok(())
    } else {
        Err(StartFault::LedgerToken { expected: expected.clone(), found: found.clone() })
    }
}

/// The head that the ledger token keeps must be a prefix of our log. Answers it.
///
/// # Errors
/// [`StartFault::HeadAbsent`] and [`StartFault::RolledBack`] mean that the daemon must not go on with this ledger.
pub fn check_head_object(token: &Token, reader: &dyn Reader, origin: &Origin) -> Result<Head, StartFault> {
    let size = reader.head()?.size;
    let mut newest: Option<Head> = None;
    for (_, object) in read_head_objects(token)? {
        let Some(HeadObject { origin: found, head: seen }) = object else { continue };
        if found != *origin {
            return Err(StartFault::HeadOrigin { token: token.name().clone(), expected: origin.clone(), found });
        }
        let ours = if seen.size <= size { Some(reader.root_at(seen.size)?) } else { None };
        if ours != Some(seen.root) {
            return Err(StartFault::RolledBack { token: token.name().clone(), seen, size, ours });
        }
        if newest.is_none_or(|head| head.size < seen.size) {
            newest = Some(seen);
        }
    }
    newest.ok_or_else(|| StartFault::HeadAbsent { token: token.name().clone() })
}

/// Keeps a head on the ledger token, in the place of the older of the two. Call it with heads under a signed checkpoint.
pub fn write_head_object(token: &Token, origin: &Origin, head: Head) -> Result<(), StartFault> {
    let objects = read_head_objects(token)?;
    let size = |object: &Option<HeadObject>| object.as_ref().map(|object| object.head.size);
    let [(first, a), (second, b)] = &objects;
    let label = if size(a) <= size(b) { first } else { second };
    let octets = HeadObject { origin: origin.clone(), head }.to_octets();
    token.write_data(label, &octets).wait().map_err(|source| StartFault::Hsm { token: token.name().clone(), source })
}

/// Both places. One that a cut-off write left in two versions is taken for empty if the other can be read.
fn read_head_objects(token: &Token) -> Result<[(&'static str, Option<HeadObject>); 2], StartFault> {
    let read = |label: &'static str| match token.read_data(label).wait() {
        Ok(Some(octets)) => match HeadObject::parse(&octets) {
            Ok(object) => Ok(Some(object)),
            Err(source) => Err(StartFault::HeadUnreadable { token: token.name().clone(), label, source }),
        },
        Ok(None) => Ok(None),
        Err(source) => Err(StartFault::Hsm { token: token.name().clone(), source }),
    };
    let cut_off = |result: &Result<Option<HeadObject>, StartFault>| {
        matches!(result, Err(StartFault::Hsm { source: HsmError::DataDuplicate { .. }, .. }))
    };
    let [a, b] = HEAD_LABELS.map(read);
    let (a, b) = match (a, b) {
        (a, Ok(Some(b))) if cut_off(&a) => (None, Some(b)),
        (Ok(Some(a)), b) if cut_off(&b) => (Some(a), None),
        (a, b) => (a?, b?),
    };
    Ok([(HEAD_LABELS[0], a), (HEAD_LABELS[1], b)])
}

#[cfg(test)]
mod tests;
