//! Pure. On which tokens a key may be used: the one on which it was generated, and those to which the policy has it cloned and a
//! ceremony found it brought.

use std::collections::BTreeSet;

use super::facts::KeyFacts;
use super::{Key, Policy};
use crate::domain::ledger::entry::KeyCopied;
use crate::domain::names::{Digest, KeyLabel, KeyUse, TokenName};

/// Why a key is not to be used on a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceFault {
    /// The policy does not give the key this token.
    #[error("the policy in force gives key {key} no token {token}")]
    NotGiven {
        /// The key.
        key: KeyLabel,
        /// The token.
        token: TokenName,
    },
    /// The policy does, and no ceremony has looked.
    #[error("no ceremony found key {key} brought to token {token}")]
    NotFound {
        /// The key.
        key: KeyLabel,
        /// The token.
        token: TokenName,
    },
    /// Another token under that name.
    #[error("token {token}: expected serial number {expected}, as the ceremony found it, found {found}")]
    Serial {
        /// The token.
        token: TokenName,
        /// As recorded.
        expected: String,
        /// As it answered.
        found: String,
    },
    /// The same token twice.
    #[error("it names token {token} twice")]
    Twice {
        /// The token.
        token: TokenName,
    },
}

/// Why a token is not taken for one that holds a clone of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyFault {
    /// The ledger key has one place.
    #[error("key {key} signs checkpoints, from one token: it keeps the ledger's head too. A clone of it is not used")]
    Ledger {
        /// The key.
        key: KeyLabel,
    },
    /// The policy names no such clone.
    #[error(
        "the policy in force has key {key} cloned to no token {token}: expected one of its `copies` in keys.toml. Adopt a \
         policy that names it, or take the clone off that token"
    )]
    NotNamed {
        /// The key.
        key: KeyLabel,
        /// The token.
        token: TokenName,
    },
    /// Other means than the policy's.
    #[error("the policy in force has key {key} cloned to token {token} by {expected:?}, not by {found:?}")]
    Means {
        /// The key.
        key: KeyLabel,
        /// The token.
        token: TokenName,
        /// By the policy.
        expected: String,
        /// By the entry.
        found: String,
    },
    /// Another key.
    #[error(
        "token {token} holds another key: expected the public key of {key}, whose SPKI has SHA-256 {expected}, found {found}"
    )]
    Differs {
        /// The key.
        key: KeyLabel,
        /// The token.
        token: TokenName,
        /// Of the key's record.
        expected: Digest,
        /// On the token.
        found: Digest,
    },
    /// One token under two names.
    #[error("token {token} has the serial number {serial} of token {other}: a clone lies on a token of its own")]
    SameToken {
        /// The token.
        token: TokenName,
        /// Its serial number.
        serial: String,
        /// The token that has it too.
        other: TokenName,
    },
    /// It was recorded before, of another token.
    #[error("token {token}: a clone of key {key} was recorded there under the serial number {expected}, found {found}")]
    Replaced {
        /// The key.
        key: KeyLabel,
        /// The token.
        token: TokenName,
        /// As recorded.
        expected: String,
        /// As found.
        found: String,
    },
}

impl KeyFacts {
    /// The serial number under which a token is known to hold this key; `None` if it is not known to.
    pub fn serial_on(&self, token: &TokenName) -> Option<&str> {
        if self.record.token == *token {
            return Some(&self.record.serial);
        }
        self.copies.get(token).map(|serial| &**serial)
    }

    /// Whether the key may be used on these tokens, each by the serial number that it answered: the policy gives them to it, and
    /// a ceremony found it there.
    pub fn may_be_on<'a>(
        &self,
        policy: &Policy,
        tokens: impl Iterator<Item = (&'a TokenName, &'a str)>,
    ) -> Result<(), PlaceFault> {
        let key = &self.record.label;
        let mut named = BTreeSet::new();
        for (token, found) in tokens {
            // A policy without clones may call the one token of a key otherwise than its ledger does: nobody asked before there were clones.
            let is_given = |of_policy: &Key| {
                of_policy.tokens().any(|known| known == token)
                    || (of_policy.copies.is_empty() && self.record.token == *token)
            };
            if !policy.key(key).is_some_and(is_given) {
                return Err(PlaceFault::NotGiven { key: key.clone(), token: token.clone() });
            }
            let Some(expected) = self.serial_on(token) else {
                return Err(PlaceFault::NotFound { key: key.clone(), token: token.clone() });
            };
            if expected != found {
                let (expected, found) = (expected.to_owned(), found.to_owned());
                return Err(PlaceFault::Serial { token: token.clone(), expected, found });
            }
            if !named.insert(token) {
                return Err(PlaceFault::Twice { token: token.clone() });
            }
        }
        Ok(())
    }

    /// Whether a clone may be recorded: the policy names it, and it is of this key, on a further token.
    pub fn may_copy(&self, policy: &Policy, copied: &KeyCopied) -> Result<(), CopyFault> {
        let KeyCopied { key, token, serial, spki_sha256, by } = copied;
        let (key, token) = (key.clone(), token.clone());
        if self.record.use_ == KeyUse::Ledger {
            return Err(CopyFault::Ledger { key });
        }
        let Some(means) = policy.key(&key).and_then(|of_policy| of_policy.copies.get(&token)) else {
            return Err(CopyFault::NotNamed { key, token });
        };
        if means.as_str() != &**by {
            let (expected, found) = (means.as_str().to_owned(), by.to_string());
            return Err(CopyFault::Means { key, token, expected, found });
        }
        if self.record.spki_sha256 != *spki_sha256 {
            let (expected, found) = (self.record.spki_sha256, *spki_sha256);
            return Err(CopyFault::Differs { key, token, expected, found });
        }
        let others = std::iter::once((&self.record.token, &self.record.serial)).chain(&self.copies);
        for (other, known) in others {
            if *other == token && known != serial {
                let (expected, found) = (known.to_string(), serial.to_string());
                return Err(CopyFault::Replaced { key, token, expected, found });
            }
            if *other != token && known == serial {
                return Err(CopyFault::SameToken { token, serial: serial.to_string(), other: other.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
