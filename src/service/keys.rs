//! Shell: the keys that are active, and the tokens they are on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, PoisonError};

use super::configuration::{self, Configuration};
use super::start::{self, StartFault};
use crate::domain::fold::Fold;
use crate::domain::ledger::tokens::TokenHealth;
use crate::domain::names::{KeyLabel, TokenName};
use crate::domain::policy::facts::KeyFacts;
use crate::domain::time::Timestamp;
use crate::hsm::offers::Offers;
use crate::hsm::{Condition, Token, TokenReport};

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
    /// The token, or the way to it.
    #[error(transparent)]
    Token(#[from] StartFault),
}

/// The tokens by the names that policy and configuration give them, and the keys that are active.
pub struct Keys {
    configuration: Configuration,
    active: Mutex<BTreeMap<KeyLabel, Token>>,
    ledger: Mutex<Option<Token>>,
    /// Tokens that were let go with changes that the ledger was not told yet.
    let_go: Mutex<Vec<Token>>,
    head_trouble: Mutex<Option<String>>,
}

impl Keys {
    /// Nothing is active yet.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            active: Mutex::default(),
            ledger: Mutex::default(),
            let_go: Mutex::default(),
            head_trouble: Mutex::default(),
        }
    }

    /// The ledger token, whether it is up or not.
    pub fn ledger(&self) -> Option<Token> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tokens of the configuration, in its order, each with its handle while it is the ledger's or a key on it is active.
    pub fn tokens(&self) -> Vec<(&configuration::Token, Option<Token>)> {
        let known: Vec<Token> = self.ledger().into_iter().chain(self.lock().values().cloned()).collect();
        let handle = |name| known.iter().find(|token| token.name() == name).cloned();
        self.configuration.tokens.iter().map(|token| (token, handle(&token.name))).collect()
    }

    /// What the ledger is to be told of how the tokens stand; `now` is the moment of the entries.
    pub fn to_tell(&self, now: Timestamp) -> Vec<TokenHealth> {
        let mut let_go = self.let_go.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.tokens().into_iter().filter_map(|(_, token)| token);
        let last = std::mem::take(&mut *let_go).into_iter().flat_map(|token| token.last_to_tell());
        present.flat_map(|token| token.to_tell(now)).chain(last).collect()
    }

    /// What is known of the PIN of a token that has no handle.
    pub fn offers(&self, token: &configuration::Token) -> Result<Offers, ActivationError> {
        let config = start::daemon_token_config(&self.configuration, &token.name)?;
        Offers::open(config.pin_marks.as_deref(), &config.serial)
            .map_err(|source| StartFault::Hsm { token: token.name.clone(), source }.into())
    }

    /// How the configuration describes a token.
    pub fn settings(&self, name: &TokenName) -> Result<&configuration::Token, ActivationError> {
        Ok(self.configured(name)?.0)
    }

    /// Why no PIN of a token is offered any more; none if nothing stands in the way.
    pub fn withheld(&self, name: &TokenName) -> Result<Option<String>, ActivationError> {
        let (settings, token) = self.configured(name)?;
        match token.map(|token| (token.condition(), token.mark())) {
            Some((Condition::Locked(why), _)) => Ok(Some(why.to_string())),
            Some((Condition::Up | Condition::Down(_), Some(mark))) => Ok(mark.withheld()),
            Some((Condition::Up | Condition::Down(_), None)) | None => Ok(self.offers(settings)?.mark().withheld()),
        }
    }

    /// An operator put the PIN of a token right: it may be offered again, and is at once where the token is in use. Waits.
    pub fn retry_login(&self, name: &TokenName) -> Result<(), ActivationError> {
        let (settings, token) = self.configured(name)?;
        let failed = |source| StartFault::Hsm { token: name.clone(), source };
        match (token, &settings.pin) {
            (Some(token), Some(pin)) => token.unlock(start::stored_pin(pin)?),
            (Some(_) | None, _) => self.offers(settings)?.allow_again(),
        }
        .map_err(failed)?;
        Ok(())
    }

    fn configured(&self, name: &TokenName) -> Result<(&configuration::Token, Option<Token>), StartFault> {
        let found = self.tokens().into_iter().find(|(settings, _)| settings.name == *name);
        found.ok_or_else(|| StartFault::NotConfigured { token: name.clone() })
    }

    /// The ledger token, which is kept whether it is up or not.
    pub fn set_ledger(&self, token: Token) {
        *self.ledger.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    /// Why the ledger's newest head could not be kept on the ledger token, until it can again.
    pub fn head_trouble(&self) -> Option<String> {
        self.head_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest head was kept on the ledger token, or why not.
    pub fn set_head_trouble(&self, why: Option<String>) {
        *self.head_trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The token of an active key.
    pub fn active(&self, key: &KeyLabel) -> Option<Token> {
        self.lock().get(key).cloned()
    }

    /// Every active key and its token.
    pub fn all_active(&self) -> Vec<(KeyLabel, Token)> {
        self.lock().iter().map(|(key, token)| (key.clone(), token.clone())).collect()
    }

    /// From here on the key can be used. If it can be already, the token stays that one, because jobs hold it and the fence must
    /// reach them: the second comes back, and is the caller's to shut down.
    pub fn insert(&self, key: KeyLabel, token: Token) -> Option<Token> {
        match self.lock().entry(key) {
            Entry::Vacant(place) => {
                place.insert(token);
                None
            }
            Entry::Occupied(_) => Some(token),
        }
    }

    /// From here on it cannot. The token is the caller's to shut down.
    pub fn remove(&self, key: &KeyLabel) -> Option<Token> {
        let token = self.lock().remove(key);
        let mut let_go = self.let_go.lock().unwrap_or_else(PoisonError::into_inner);
        let_go.extend(token.clone());
        token
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

    /// Starts the worker of a key's token and logs in with the stored PIN, once; from then on it is kept up. Waits: call it where
    /// one may.
    pub fn start(&self, key: &KeyFacts, fold: &Fold) -> Result<(Token, TokenReport), ActivationError> {
        let name = &key.record.token;
        let settings = start::configured(&self.configuration, name)?;
        let pin = settings.pin.as_ref().ok_or_else(|| StartFault::PinAbsent { token: name.clone() })?;
        let pin = start::stored_pin(pin)?;
        let config = start::daemon_token_config(&self.configuration, name)?;
        let (token, report) = start::start_token(config, pin, start::expectations(fold, name))?;
        token.keep_up().map_err(|source| StartFault::Hsm { token: name.clone(), source })?;
        Ok((token, report))
    }
}
