//! Shell: the keys that are active, and the tokens they are on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, PoisonError};

use super::configuration::Configuration;
use super::start::{self, StartFault};
use crate::domain::names::KeyLabel;
use crate::domain::policy::facts::KeyFacts;
use crate::hsm::{Expectations, Token, TokenReport};

/// The tokens by the names that policy and configuration give them, and the keys that are active.
pub struct Keys {
    configuration: Configuration,
    active: Mutex<BTreeMap<KeyLabel, Token>>,
    ledger: Mutex<Option<Token>>,
    head_trouble: Mutex<Option<String>>,
}

impl Keys {
    /// Nothing is active yet.
    pub fn new(configuration: Configuration) -> Self {
        Self { configuration, active: Mutex::default(), ledger: Mutex::default(), head_trouble: Mutex::default() }
    }

    /// The ledger token, once it is there.
    pub fn ledger(&self) -> Option<Token> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ledger token is there.
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

    /// Starts the worker of a key's token, of which [`start::expectations`] are had, and logs in with the stored PIN, once. Waits: call
    /// it where one may.
    pub fn start(&self, key: &KeyFacts, expected: Expectations) -> Result<(Token, TokenReport), StartFault> {
        let name = &key.record.token;
        let settings = start::configured(&self.configuration, name)?;
        let pin = settings.pin.as_ref().ok_or_else(|| StartFault::PinAbsent { token: name.clone() })?;
        let pin = start::stored_pin(pin)?;
        start::start_token(start::token_config(&self.configuration, name, None)?, pin, expected)
    }
}
