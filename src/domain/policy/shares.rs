//! Pure. Whether shares of a key may be recorded as dealt: to whom the policy in force gives them, all of them and nobody else.

use std::collections::{BTreeMap, BTreeSet};

use super::copies::PlaceFault;
use super::facts::KeyFacts;
use super::{Activation, Policy};
use crate::domain::certificates::signature::{FIXED_LEN, PublicKey};
use crate::domain::determination::people::Role;
use crate::domain::ledger::custody::{Holder, SharesDealt};
use crate::domain::ledger::entry::TokenFound;
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
    /// Tokens that hold the key and are not said.
    #[error(
        "expected that every token that holds key {key} is dealt for, or said to be left, where the policy gives it the key no more: {expected}; \
         found {found} to be left"
    )]
    Left {
        /// The key.
        key: KeyLabel,
        /// Those that the policy gives it no more.
        expected: String,
        /// By the entry.
        found: String,
    },
    /// A first generation that names a former one.
    #[error("generation 1 of the shares of key {key} has no generation before it, and says who brought shares of one")]
    Former {
        /// The key.
        key: KeyLabel,
    },
    /// Too few of the former custodians, or of too few Parties.
    #[error(
        "expected that at least {need} holders of generation {former} of the shares of key {key}, of at least {parties_need} Parties, brought \
         theirs; found {found}"
    )]
    By {
        /// The key.
        key: KeyLabel,
        /// The generation before.
        former: u32,
        /// As many as opened it.
        need: u32,
        /// By the policy in force.
        parties_need: u32,
        /// Who did, and of which Parties.
        found: String,
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
        self.are_left(policy, dealt)?;
        self.is_signed_by_the_former(policy, dealt)
    }

    /// The tokens that hold the key, but for these.
    pub fn left_by(&self, tokens: &[TokenFound]) -> Vec<TokenFound> {
        let known = std::iter::once((&self.record.token, &self.record.serial)).chain(&self.copies);
        let others = known.filter(|(token, _)| tokens.iter().all(|found| found.token != **token));
        others.map(|(token, serial)| TokenFound { token: token.clone(), serial: serial.clone() }).collect()
    }

    /// A token that keeps its PIN stays open to who has enough shares of before: nobody overlooks it.
    fn are_left(&self, policy: &Policy, dealt: &SharesDealt) -> Result<(), DealFault> {
        let expected = self.left_by(&dealt.tokens);
        let is_given = |left: &TokenFound| {
            policy.key(&self.record.label).is_some_and(|key| key.tokens().any(|token| *token == left.token))
        };
        if expected == dealt.left && !expected.iter().any(is_given) {
            return Ok(());
        }
        let names = |found: &[TokenFound]| {
            let names: Vec<&str> = found.iter().map(|found| found.token.as_str()).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let (key, found) = (self.record.label.clone(), names(&dealt.left));
        let expected: Vec<TokenFound> = expected.into_iter().filter(|left| !is_given(left)).collect();
        Err(DealFault::Left { key, expected: names(&expected), found })
    }

    /// Whoever can write to the disk makes shares useless by dealing others, so the former custodians must have taken part: their secret
    /// is a scalar of P-256, and the first commitment of their generation its public key.
    fn is_signed_by_the_former(&self, policy: &Policy, dealt: &SharesDealt) -> Result<(), DealFault> {
        let key = self.record.label.clone();
        let Some(last) = &self.shares else {
            let has_none = dealt.former.is_none() && dealt.by.is_empty();
            return if has_none { Ok(()) } else { Err(DealFault::Former { key }) };
        };
        self.are_enough(policy, last, &dealt.by)?;
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

impl KeyFacts {
    /// Whether those who brought shares of a generation are enough to open it: holders of it, each once, and no one Party alone. Whoever ceased
    /// since still counts as one of the Party that the policy knows them by: the shares are theirs until others are dealt.
    pub fn are_enough(&self, policy: &Policy, of: &SharesDealt, by: &[PersonId]) -> Result<(), DealFault> {
        let holders: BTreeSet<&PersonId> = of.holders.iter().map(|holder| &holder.person).collect();
        let persons: BTreeSet<&PersonId> = by.iter().filter(|person| holders.contains(person)).collect();
        let party = |person: &&PersonId| policy.people().person(person).map(|person| &person.party);
        let parties: BTreeSet<_> = persons.iter().filter_map(party).collect();
        let (need, parties_need) = (of.threshold, policy.custodians().parties_min);
        let reach = |found: usize, need: u32| found >= usize::try_from(need).unwrap_or(usize::MAX);
        if persons.len() == by.len() && reach(persons.len(), need) && reach(parties.len(), parties_need) {
            return Ok(());
        }
        let names: Vec<&str> = by.iter().map(PersonId::as_str).collect();
        let unknown: Vec<&str> =
            persons.iter().filter(|person| party(person).is_none()).map(|id| id.as_str()).collect();
        let found = format!(
            "{}, of {} Parties{}",
            if names.is_empty() { "nobody".into() } else { names.join(", ") },
            parties.len(),
            if unknown.is_empty() {
                String::new()
            } else {
                // Their Party is not known, so they stand for none.
                format!(
                    "; the policy in force does not know {}: whoever leaves stays in persons.toml, with `ceased` and `until`",
                    unknown.join(", ")
                )
            }
        );
        Err(DealFault::By { key: self.record.label.clone(), former: of.generation, need, parties_need, found })
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
