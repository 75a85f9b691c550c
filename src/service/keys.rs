//! Shell: the keys that are active, and the tokens they are on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::configuration::{self, Configuration};
use super::presentations::Presentations;
use super::start::{self, StartFault};
use crate::custody::vault::{Vault, VaultConfig};
use crate::domain::fold::Fold;
use crate::domain::gbcs::SymmetricKey;
use crate::domain::ledger::tokens::TokenHealth;
use crate::domain::names::{KeyLabel, TokenName};
use crate::domain::policy::facts::KeyFacts;
use crate::domain::time::Timestamp;
use crate::hsm::offers::{Asked, Offers};
use crate::hsm::{Condition, Expectations, PinSource, Several, Token};

/// Why a key cannot be activated on a token.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// The policy names a clone that no ceremony has found.
    #[error(
        "no ceremony found key {key} on token {token} yet: have the maker's means clone it there, then `smkictl ceremony copy \
         --key {key} --token {token}`, then lock the key and activate it again"
    )]
    NotBrought {
        /// The key.
        key: KeyLabel,
        /// The token.
        token: TokenName,
    },
    /// The configuration describes another token under that name.
    #[error(
        "token {token}: expected serial number {expected}, on which the ceremony found key {key}, found {found}. Correct `serial` \
         of this token in the configuration"
    )]
    Serial {
        /// The key.
        key: KeyLabel,
        /// The token.
        token: TokenName,
        /// As recorded.
        expected: String,
        /// As it answered.
        found: String,
    },
    /// The token, or the way to it.
    #[error(transparent)]
    Token(#[from] StartFault),
}

/// The tokens by the names that policy and configuration give them, and the keys that are active.
pub struct Keys {
    configuration: Configuration,
    active: Mutex<BTreeMap<KeyLabel, Active>>,
    ledger: Mutex<Option<Token>>,
    /// Tokens that were let go with changes that the ledger was not told yet.
    let_go: Mutex<Vec<Token>>,
    head_trouble: Mutex<Option<(String, Option<u32>)>>,
    /// How often each key was locked.
    locks: Mutex<BTreeMap<KeyLabel, u64>>,
    /// Of each key for which Key Custodians present, or which they opened.
    vaults: Mutex<BTreeMap<KeyLabel, Kept>>,
    vault_config: VaultConfig,
    /// Of Key Custodians whose shares are still to come.
    pub presentations: Presentations,
}

/// A key that is active.
struct Active {
    tokens: Several,
    /// The tokens on which it is not, although the policy has it there, and why.
    left_out: BTreeMap<TokenName, String>,
}

/// The vault of a key.
struct Kept {
    vault: Vault,
    /// The entry of the presentation recorded last whose share lies in it. One that was started after another had died holds none of those
    /// before.
    recorded_last: Option<u64>,
}

/// Where the PINs of a key's tokens come from.
pub enum OpenedBy {
    /// Stored, as the configuration names them: in an exercise.
    Stored,
    /// From the vault in which the shares of Key Custodians were put together.
    Vault(Vault),
    /// Each token asks by itself.
    ProtectedPath,
}

/// What came of activating a key on its tokens.
#[derive(Default)]
pub struct Started {
    /// Logged in and checked.
    pub tokens: Vec<Token>,
    /// And the others.
    pub left_out: Vec<(TokenName, ActivationError)>,
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
            locks: Mutex::default(),
            vaults: Mutex::default(),
            vault_config: VaultConfig::default(),
            presentations: Presentations::default(),
        }
    }

    /// The ledger token, whether it is up or not.
    pub fn ledger(&self) -> Option<Token> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tokens of the configuration, in its order, each with its handle while it is the ledger's or a key on it is active.
    pub fn tokens(&self) -> Vec<(&configuration::Token, Option<Token>)> {
        let active = self.all_active().into_iter().flat_map(|(_, tokens)| tokens.tokens());
        let known: Vec<Token> = self.ledger().into_iter().chain(active).collect();
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

    /// All of it, however soon after the last: nothing more is told after a stop.
    pub fn last_to_tell(&self) -> Vec<TokenHealth> {
        let mut let_go = self.let_go.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.tokens().into_iter().filter_map(|(_, token)| token);
        present.chain(std::mem::take(&mut *let_go)).flat_map(|token| token.last_to_tell()).collect()
    }

    /// What is known of the PIN of a token that has no handle.
    pub fn offers(&self, token: &configuration::Token) -> Result<Arc<Offers>, ActivationError> {
        let config = start::daemon_token_config(&self.configuration, &token.name)?;
        Offers::open(config.pin_marks.as_deref(), (&config.serial, &config.label))
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

    /// An operator put the PIN of a token right: it may be offered again, and is at once where the token is in use. What the ledger
    /// was not told yet is kept: [`Keys::asked`]. Waits.
    pub fn retry_login(&self, name: &TokenName, asked: Option<Asked>) -> Result<(), ActivationError> {
        let (settings, token) = self.configured(name)?;
        let failed = |source| StartFault::Hsm { token: name.clone(), source };
        match (token, &settings.pin) {
            (Some(token), Some(pin)) => token.unlock(start::stored_pin(pin)?, asked),
            (Some(_) | None, _) => self.offers(settings)?.allow_again(asked),
        }
        .map_err(failed)?;
        Ok(())
    }

    /// Who let the PIN of the ledger token be offered again, as far as the ledger was not told.
    pub fn asked(&self) -> Vec<Asked> {
        self.ledger().and_then(|token| token.mark()).map_or_else(Vec::new, |mark| mark.asked)
    }

    /// The ledger was told of the first so many of them. One that cannot be forgotten is told again after the next start: better twice
    /// than never. Waits for the disk.
    pub fn told(&self, count: usize) {
        if let Some(Err(error)) = self.ledger().map(|token| token.told(count)) {
            tracing::warn!("{error}");
        }
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
        self.head_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone().map(|(why, _)| why)
    }

    /// Whether another worker than the one that could not keep the head serves the ledger token now: what the token itself refuses, it
    /// would refuse again.
    pub fn owes_head(&self) -> bool {
        let trouble = self.head_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble
            .zip(self.ledger())
            .is_some_and(|((_, by), token)| matches!(token.condition(), Condition::Up) && token.worker_pid() != by)
    }

    /// The newest head was kept on the ledger token, or why not, and by which worker.
    pub fn set_head_trouble(&self, why: Option<(String, Option<u32>)>) {
        *self.head_trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The tokens of an active key.
    pub fn active(&self, key: &KeyLabel) -> Option<Several> {
        self.lock().get(key).map(|active| active.tokens.clone())
    }

    /// The Contingency Symmetric Key of an active key, if it is held.
    pub fn symmetric(&self, key: &KeyLabel) -> Option<SymmetricKey> {
        self.active(key)?.symmetric()
    }

    /// Why an active key is not active on a token of its.
    pub fn left_out(&self, key: &KeyLabel, token: &TokenName) -> Option<String> {
        self.lock().get(key)?.left_out.get(token).cloned()
    }

    /// Every active key and its tokens.
    pub fn all_active(&self) -> Vec<(KeyLabel, Several)> {
        self.lock().iter().map(|(key, active)| (key.clone(), active.tokens.clone())).collect()
    }

    /// From here on the key can be used on what was started, besides the tokens on which it is active already: jobs hold those, and
    /// fences reach them. What comes back is the caller's to shut down: tokens that somebody else started meanwhile.
    ///
    /// Nothing happens where nothing was started and nothing is active.
    pub fn insert(&self, key: KeyLabel, started: Vec<Token>, left_out: BTreeMap<TokenName, String>) -> Vec<Token> {
        let mut all = self.lock();
        if started.is_empty() && !all.contains_key(&key) {
            return Vec::new();
        }
        let active =
            all.entry(key.clone()).or_insert_with(|| Active { tokens: Several::new(key), left_out: BTreeMap::new() });
        active.left_out = left_out;
        started.into_iter().filter_map(|token| active.tokens.add(token)).collect()
    }

    /// How a vault is run.
    pub fn vault_config(&self) -> &VaultConfig {
        &self.vault_config
    }

    /// The vault of a key.
    pub fn vault(&self, key: &KeyLabel) -> Option<Vault> {
        self.vaults().get(key).map(|kept| kept.vault.clone())
    }

    /// Keeps a vault that was started; answers the one that is kept, which is another where somebody else was quicker.
    pub fn keep_vault(&self, key: &KeyLabel, vault: Vault) -> Vault {
        let mut all = self.vaults();
        if let Some(kept) = all.get(key).filter(|kept| kept.vault.is_alive()) {
            vault.shutdown();
            return kept.vault.clone();
        }
        all.insert(key.clone(), Kept { vault: vault.clone(), recorded_last: None });
        vault
    }

    /// The entry of the presentation recorded last for a key whose share lies in its vault, which lives.
    pub fn recorded_last(&self, key: &KeyLabel) -> Option<u64> {
        self.vaults().get(key).filter(|kept| kept.vault.is_alive())?.recorded_last
    }

    /// A presentation is recorded of which the share lies in this vault. On the recorder's thread, and before the presentation ends: whoever
    /// sees that nobody waits any more sees this too.
    pub fn mark_recorded(&self, key: &KeyLabel, vault: &Vault, entry: u64) {
        if let Some(kept) = self.vaults().get_mut(key).filter(|kept| kept.vault.is(vault)) {
            kept.recorded_last = Some(entry);
        }
    }

    /// Ends the vault of a key: what it held is gone when this returns, and nobody's share is awaited any more.
    pub fn end_vault(&self, key: &KeyLabel) {
        self.shut_down_vault(key);
        self.presentations.clear(key);
    }

    /// The same, unless somebody has begun to present, or a presentation was recorded since this one was the last.
    pub fn end_idle_vault(&self, key: &KeyLabel, seen: Option<u64>) {
        self.presentations.held(key, |_, waits| {
            if !waits && self.recorded_last(key) == seen {
                self.shut_down_vault(key);
            }
        });
    }

    fn shut_down_vault(&self, key: &KeyLabel) {
        let kept = self.vaults().remove(key);
        if let Some(kept) = kept {
            kept.vault.shutdown();
        }
    }

    /// The keys that have a vault.
    pub fn gathering(&self) -> Vec<KeyLabel> {
        self.vaults().keys().cloned().collect()
    }

    fn vaults(&self) -> std::sync::MutexGuard<'_, BTreeMap<KeyLabel, Kept>> {
        self.vaults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the key was locked: whoever activates it meanwhile asks before and after.
    pub fn locks(&self, key: &KeyLabel) -> u64 {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }

    /// From here on it cannot, and what Key Custodians presented for it is gone. The tokens are the caller's to shut down.
    pub fn remove(&self, key: &KeyLabel) -> Option<Several> {
        self.end_vault(key);
        *self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default() += 1;
        let tokens = self.lock().remove(key)?.tokens;
        self.let_go.lock().unwrap_or_else(PoisonError::into_inner).extend(tokens.tokens());
        Some(tokens)
    }

    /// Stops everything at every token that is not yet begun. Whoever calls this on the recorder's thread knows, once it
    /// returns, that no further C_Sign begins for what was submitted before.
    pub fn fence(&self) {
        let replies: Vec<_> = self.all_active().into_iter().flat_map(|(_, tokens)| tokens.fence()).collect();
        for reply in replies {
            // A worker that does not answer is killed by its keeper, which stops it all the more.
            let _ = reply.wait();
        }
    }

    /// The same for one key alone.
    pub fn fence_key(&self, key: &KeyLabel) {
        for reply in self.active(key).map(|tokens| tokens.fence()).unwrap_or_default() {
            let _ = reply.wait();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<KeyLabel, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the worker of each token that the policy in force gives a key, all at once, and logs in with the PIN, once
    /// each; from then on they are kept up. Where the key is active already the worker stays, unless its token is locked. Waits: call
    /// it where one may.
    pub fn start(&self, label: &KeyLabel, wanted: Vec<Wanted>, opened: &OpenedBy) -> Started {
        let active = self.active(label);
        if let Some(active) = &active {
            self.let_go.lock().unwrap_or_else(PoisonError::into_inner).extend(active.let_go_of_locked());
        }
        let is_active = |token: &TokenName| active.as_ref().is_some_and(|tokens| tokens.token(token).is_some());
        let wanted = wanted.into_iter().filter(|wanted| !is_active(&wanted.token));
        thread::scope(|scope| {
            let starting: Vec<_> = wanted
                .map(|wanted| (wanted.token.clone(), scope.spawn(move || self.start_on(label, wanted, opened))))
                .collect();
            let mut started = Started::default();
            for (token, thread) in starting {
                match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                    Ok(up) => started.tokens.push(up),
                    Err(why) => started.left_out.push((token, why)),
                }
            }
            started
        })
    }

    fn start_on(&self, label: &KeyLabel, wanted: Wanted, opened: &OpenedBy) -> Result<Token, ActivationError> {
        let Wanted { token, serial, expectations } = wanted;
        let (name, key) = (&token.clone(), label.clone());
        let Some(serial) = serial else {
            return Err(ActivationError::NotBrought { key, token });
        };
        let settings = start::configured(&self.configuration, name)?;
        let pin = match opened {
            OpenedBy::Stored => {
                let pin = settings.pin.as_ref().ok_or_else(|| StartFault::PinAbsent { token: name.clone() })?;
                PinSource::Held(start::stored_pin(pin)?)
            }
            OpenedBy::Vault(vault) => vault.pin_source(token.clone(), serial.clone()),
            OpenedBy::ProtectedPath => PinSource::ProtectedPath,
        };
        let config = start::daemon_token_config(&self.configuration, name)?;
        let (up, report) = start::start_token(config, pin, expectations)?;
        if report.serial != serial {
            up.shutdown();
            return Err(ActivationError::Serial { key, token, expected: serial, found: report.serial });
        }
        for warning in report.warnings {
            tracing::warn!(key = %label, token = %token, "{warning}");
        }
        up.keep_up().map_err(|source| StartFault::Hsm { token, source })?;
        Ok(up)
    }
}

/// A token that the policy gives a key, and what must be found there.
pub struct Wanted {
    /// Which.
    pub token: TokenName,
    /// The serial number under which a ceremony found the key there; none if it has not.
    pub serial: Option<String>,
    /// What else the ledger demands of it.
    pub expectations: Expectations,
}

/// Every token that the policy in force gives a key, its own first.
pub fn wanted(key: &KeyFacts, fold: &Fold) -> Vec<Wanted> {
    let wanted = |token: TokenName| Wanted {
        serial: key.serial_on(&token).map(ToOwned::to_owned),
        expectations: start::expectations(fold, &token),
        token,
    };
    tokens_of(key, fold).into_iter().map(wanted).collect()
}

/// The tokens that the policy in force gives a key, its own first; that of its record if there is no policy or no such key in it.
pub fn tokens_of(key: &KeyFacts, fold: &Fold) -> Vec<TokenName> {
    let of_policy = fold.policy().and_then(|adopted| adopted.policy.key(&key.record.label));
    of_policy.map_or_else(|| vec![key.record.token.clone()], |key| key.tokens().cloned().collect())
}
