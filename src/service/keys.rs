//! Shell: the keys that are active, and the tokens they are on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::configuration::{Pin, Token as TokenSettings};
use crate::domain::fold::Fold;
use crate::domain::names::{KeyLabel, KeyUse, Purpose, TokenName};
use crate::domain::policy::facts::KeyFacts;
use crate::hsm::{ExpectedKey, Expectations, HsmError, Token, TokenConfig, TokenReport};

/// The greatest PIN file: a PIN, a line feed, and somebody's mistake.
const PIN_FILE_LEN_MAX: u64 = 1024;

/// Why a key cannot be activated.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// The policy has Key Custodians activate it.
    #[error(
        "the policy has key {key} activated by Key Custodians, which this version cannot do yet; a stored PIN is for the ledger \
         token, and for exercises"
    )]
    Custodians {
        /// The key.
        key: KeyLabel,
    },
    /// The configuration does not have the token.
    #[error("smkid.toml describes no token {token}; add a [[token]] of that name")]
    NoToken {
        /// Its name.
        token: TokenName,
    },
    /// No PIN.
    #[error("smkid.toml gives no pin for token {token}")]
    NoPin {
        /// Its name.
        token: TokenName,
    },
    /// The PIN cannot be read.
    #[error("the PIN of token {token} cannot be read from {}: {source}", path.display())]
    Pin {
        /// The token.
        token: TokenName,
        /// From where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token.
    #[error(transparent)]
    Hsm(#[from] HsmError),
}

/// The tokens by the names that policy and configuration give them, and the keys that are active.
#[derive(Default)]
pub struct Keys {
    settings: BTreeMap<TokenName, TokenSettings>,
    active: Mutex<BTreeMap<KeyLabel, Token>>,
}

impl Keys {
    /// Nothing is active yet.
    pub fn new(settings: impl IntoIterator<Item = TokenSettings>) -> Self {
        let settings = settings.into_iter().map(|token| (token.name.clone(), token)).collect();
        Self { settings, active: Mutex::default() }
    }

    /// A stored PIN for a live Recovery or Contingency token, which is no setting that anybody can have.
    pub fn forbidden_pin(&self, fold: &Fold) -> Option<(TokenName, KeyUse)> {
        if fold.purpose() != Some(Purpose::Live) {
            return None;
        }
        fold.keys().values().map(|key| &key.record).find_map(|record| {
            let stored = self.settings.get(&record.token).is_some_and(|token| token.pin.is_some());
            (stored && record.use_ != KeyUse::Ledger).then(|| (record.token.clone(), record.use_))
        })
    }

    /// The token of an active key.
    pub fn active(&self, key: &KeyLabel) -> Option<Token> {
        self.lock().get(key).cloned()
    }

    /// Every active key and its token.
    pub fn all_active(&self) -> Vec<(KeyLabel, Token)> {
        self.lock().iter().map(|(key, token)| (key.clone(), token.clone())).collect()
    }

    /// From here on the key can be used.
    pub fn insert(&self, key: KeyLabel, token: Token) {
        self.lock().insert(key, token);
    }

    /// From here on it cannot. The token is the caller's to shut down.
    pub fn remove(&self, key: &KeyLabel) -> Option<Token> {
        self.lock().remove(key)
    }

    /// Stops everything at every token that is not yet begun. Whoever calls this on the recorder's thread knows, once it
    /// returns, that no further C_Sign begins for what was submitted before.
    pub fn fence(&self) {
        let replies: Vec<_> = self.all_active().into_iter().map(|(_, token)| token.fence()).collect();
        for reply in replies {
            // A worker that does not answer is killed by its keeper, which stops it all the more.
            let _ = reply.wait();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<KeyLabel, Token>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the worker of a key's token and logs in with the stored PIN, once. Waits: call it where one may.
    pub fn start(&self, key: &KeyFacts, fold: &Fold) -> Result<(Token, TokenReport), ActivationError> {
        let name = &key.record.token;
        let settings = self.settings.get(name).ok_or_else(|| ActivationError::NoToken { token: name.clone() })?;
        let pin = settings.pin.as_ref().ok_or_else(|| ActivationError::NoPin { token: name.clone() })?;
        let pin = read_pin(name, pin)?;
        let record = &key.record;
        let expected = ExpectedKey {
            label: record.label.clone(),
            id: record.id,
            use_: record.use_,
            spki: Some(record.spki_octets()),
        };
        let expectations = Expectations {
            keys: vec![expected],
            genesis: fold.genesis().map(|(_, hash)| hash),
            origin: fold.origin().cloned(),
        };
        Ok(Token::start(token_config(settings), pin, expectations)?)
    }
}

/// How a token of the configuration is run.
pub fn token_config(settings: &TokenSettings) -> TokenConfig {
    let environment = settings.environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    TokenConfig {
        name: settings.name.clone(),
        module: settings.module.clone(),
        label: settings.label.clone(),
        serial: settings.serial.clone(),
        sessions: u16::try_from(settings.sessions).unwrap_or(u16::MAX),
        call_deadline: Duration::from_millis(settings.deadline_ms),
        environment: environment.collect(),
        program: None,
    }
}

/// Reads a stored PIN: the first line of the file.
pub fn read_pin(token: &TokenName, pin: &Pin) -> Result<SecretString, ActivationError> {
    use std::io::Read as _;
    let path = match pin {
        Pin::File(path) => path.clone(),
        Pin::Credential(name) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").unwrap_or_default();
            PathBuf::from(directory).join(name)
        }
    };
    let failed = |source| ActivationError::Pin { token: token.clone(), path: path.clone(), source };
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(PIN_FILE_LEN_MAX).unwrap_or(1024)));
    let file = std::fs::File::open(&path).map_err(failed)?;
    file.take(PIN_FILE_LEN_MAX).read_to_string(&mut text).map_err(failed)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        let empty = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "expected a PIN in the first line, found none");
        return Err(failed(empty));
    }
    Ok(SecretString::from(line.to_owned()))
}
