//! Pure. Whether shares of a key may be recorded as dealt: to whom the policy in force gives them, all of them and nobody else.

use std::collections::{BTreeMap, BTreeSet};

use super::copies::PlaceFault;
use super::facts::KeyFacts;
use super::{Activation, Policy};
use crate::domain::certificates::signature::{FIXED_LEN, PublicKey};
use crate::domain::determination::people::Role;
use crate::domain::ledger::custody::{Holder, SharesDealt};
use crate::domain::names::{KeyLabel, PersonId, ShareName};
use crate::domain::time::Timestamp;

/// Why shares are not taken for dealt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DealFault {
    /// The policy has the key opened in another way.
    #[error(
        "the policy in force does not have key {key} opened by Key Custodians (keys.toml: activation = \"custodians\")"
    )]
    Activation {
        /// The key.
        key: KeyLabel,
    },
    /// Not the next generation.
    #[error("expected generation {expected} of the shares of key {key}, found {found}")]
    Generation {
        /// The key.
        key: KeyLabel,
        /// One more than the last.
        expected: u32,
        /// By the entry.
        found: u32,
    },
    /// Not as many as the policy says.
    #[error("expected that {expected} shares open key {key}, as the policy in force says, found {found}")]
    Threshold {
        /// The key.
        key: KeyLabel,
        /// By the policy.
        expected: u32,
        /// By the entry.
        found: u32,
    },
    /// The commitments cannot be those of such a set.
    #[error("expected {expected} commitments, compressed points in hexadecimal, found {found}")]
    Commitments {
        /// As many as the threshold.
        expected: u32,
        /// What stands there.
        found: String,
    },
    /// Others than the policy's custodians have the shares.
    #[error("expected the shares of the Key Custodians in force: {expected}; found {found}")]
    Holders {
        /// By the policy.
        expected: String,
        /// By the entry.
        found: String,
    },
    /// Two shares that are one.
    #[error("share {share}: expected an index of its own, from 1, found {index}")]
    Index {
        /// The share.
        share: ShareName,
        /// Its index.
        index: u16,
    },
    /// The tokens.
    #[error(transparent)]
    Place(#[from] PlaceFault),
    /// A first generation that names a former one.
    #[error(
        "generation 1 of the shares of key {key} has no generation before it, and carries a signature by the secret of one"
    )]
    Former {
        /// The key.
        key: KeyLabel,
    },
    /// The former custodians did not take part.
    #[error(
        "expected that the secret of generation {former} of the shares of key {key} signed who has the next, which takes as many of its \
         custodians as opened the key; found {found}"
    )]
    NotByFormer {
        /// The key.
        key: KeyLabel,
        /// The generation before.
        former: u32,
        /// What stands there.
        found: &'static str,
    },
    /// No token at all.
    #[error("expected the tokens of key {key} whose PINs were sealed, found none")]
    NoToken {
        /// The key.
        key: KeyLabel,
    },
}

impl KeyFacts {
    /// Whether these shares may be recorded as dealt at that moment.
    pub fn may_deal(&self, policy: &Policy, dealt: &SharesDealt, at: Timestamp) -> Result<(), DealFault> {
        let key = self.record.label.clone();
        if !policy.key(&key).is_some_and(|of_policy| of_policy.activation == Activation::Custodians) {
            return Err(DealFault::Activation { key });
        }
        let expected = self.shares.as_ref().map_or(0, |last| last.generation).saturating_add(1);
        if dealt.generation != expected {
            return Err(DealFault::Generation { key, expected, found: dealt.generation });
        }
        let expected = policy.custodians().threshold;
        if dealt.threshold != expected {
            return Err(DealFault::Threshold { key, expected, found: dealt.threshold });
        }
        let is_point = |text: &str| !text.bytes().any(|b| b.is_ascii_uppercase()) && point(text).is_some();
        let count = u32::try_from(dealt.commitments.len()).unwrap_or(u32::MAX);
        if count != expected || !dealt.commitments.iter().all(|text| is_point(text)) {
            return Err(DealFault::Commitments { expected, found: dealt.commitments.join(", ") });
        }
        let in_force: BTreeMap<&ShareName, &PersonId> = policy
            .roster(Role::KeyCustodian, at)
            .flat_map(|person| person.shares.iter().map(|share| (share, &person.id)))
            .collect();
        let held: BTreeMap<&ShareName, &PersonId> =
            dealt.holders.iter().map(|Holder { share, person, .. }| (share, person)).collect();
        if held != in_force || dealt.holders.len() != in_force.len() {
            return Err(DealFault::Holders { expected: listed(&in_force), found: listed(&held) });
        }
        let mut indices = BTreeSet::new();
        for Holder { share, index, .. } in &dealt.holders {
            if *index == 0 || !indices.insert(*index) {
                return Err(DealFault::Index { share: share.clone(), index: *index });
            }
        }
        if dealt.tokens.is_empty() {
            return Err(DealFault::NoToken { key });
        }
        self.may_be_on(policy, dealt.tokens.iter().map(|found| (&found.token, &*found.serial)))?;
        self.is_signed_by_the_former(policy, dealt)
    }

    /// Whoever can write to the disk makes shares useless by dealing others, so the former custodians must have taken part: their secret
    /// is a scalar of P-256, and the first commitment of their generation its public key.
    fn is_signed_by_the_former(&self, policy: &Policy, dealt: &SharesDealt) -> Result<(), DealFault> {
        let key = self.record.label.clone();
        let Some(last) = &self.shares else {
            return if dealt.former.is_none() { Ok(()) } else { Err(DealFault::Former { key }) };
        };
        let fault = |found| DealFault::NotByFormer { key: key.clone(), former: last.generation, found };
        let signature = dealt.former.as_ref().ok_or_else(|| fault("no signature"))?;
        let mut octets = [0; FIXED_LEN];
        if signature.bytes().any(|b| b.is_ascii_uppercase()) || hex::decode_to_slice(&**signature, &mut octets).is_err()
        {
            return Err(fault("no signature: 64 octets in hexadecimal, in lower case"));
        }
        let secret = last.commitments.first().and_then(|text| point(text));
        let signed = dealt.signed_by_the_former(policy.origin());
        if secret.is_some_and(|secret| secret.verifies_fixed(&signed, &octets)) {
            Ok(())
        } else {
            Err(fault("a signature by something else, or over something else"))
        }
    }
}

/// A commitment: a compressed point in hexadecimal.
fn point(text: &str) -> Option<PublicKey> {
    PublicKey::from_compressed(&hex::decode(text).ok()?).ok()
}

fn listed(holders: &BTreeMap<&ShareName, &PersonId>) -> String {
    if holders.is_empty() {
        return "nobody".to_owned();
    }
    holders.iter().map(|(share, person)| format!("{share} of {person}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
