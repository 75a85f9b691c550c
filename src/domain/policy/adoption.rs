//! Pure. How one policy takes another's place: by a document that both their members sign, as TUF rotates its root.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Policy;
use crate::domain::determination::document::{DocumentFault, Form, Type, Written, twice};
use crate::domain::determination::people::Role;
use crate::domain::determination::quorum::{Approvals, Count, Electorates, NotQuorate, Signature};
use crate::domain::names::{DeterminationId, Digest, Origin, PersonId, Purpose};
use crate::domain::time::Timestamp;

/// `smkid-policy-adoption/v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adoption {
    /// [`Form::TYPE`].
    pub r#type: Type<Self>,
    /// Live or exercise.
    pub purpose: Purpose,
    /// Which ledger.
    pub origin: Origin,
    /// 1 for the first policy, one more for each later one.
    pub sequence: u32,
    /// The digest of the policy that is adopted.
    pub policy: Digest,
    /// The digest of the one in force, or null for the first. The field is always there, as the next.
    #[serde(deserialize_with = "Option::deserialize")]
    pub predecessor: Option<Digest>,
    /// The head that the drafter saw, or null for the first.
    #[serde(deserialize_with = "Option::deserialize")]
    pub ledger: Option<Head>,
    /// The determinations that stay in force. Others are suspended.
    pub carries_over: Vec<DeterminationId>,
}

/// A head of the ledger that `origin` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// How many entries it had.
    pub size: u64,
    /// Its RFC 9162 root.
    pub root: Digest,
}

impl Form for Adoption {
    const TYPE: &'static str = "smkid-policy-adoption/v1";

    fn faults(&self) -> Vec<DocumentFault> {
        let mut faults = Vec::new();
        if self.sequence == 0 {
            faults.push(DocumentFault::Number { field: "sequence", min: 1, max: u64::from(u32::MAX), found: 0 });
        }
        let first = self.sequence == 1;
        for (field, present) in [("predecessor", self.predecessor.is_some()), ("ledger", self.ledger.is_some())] {
            if first && present {
                faults.push(DocumentFault::Surplus { field, because: "the first policy has none (null)" });
            } else if !first && !present {
                faults.push(DocumentFault::Missing { field, because: "a later policy takes another's place" });
            }
        }
        if first && !self.carries_over.is_empty() {
            let because = "before the first policy there is no determination";
            faults.push(DocumentFault::Surplus { field: "carries_over", because });
        }
        let ids: Vec<String> = self.carries_over.iter().map(ToString::to_string).collect();
        faults.extend(twice("carries_over", ids.iter().map(String::as_str)));
        faults
    }
}

/// What an adoption is judged by.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The policy in force and its sequence number; none at the ceremony.
    pub old: Option<(&'a Policy, u32)>,
    /// The policy that shall be adopted, as it was read from its files.
    pub new: &'a Policy,
    /// The determinations in force.
    pub determinations: &'a BTreeSet<DeterminationId>,
    /// Whether a head is a prefix of our ledger.
    pub is_prefix: &'a dyn Fn(&Head) -> bool,
    /// Every verified signature over the document.
    pub signatures: &'a [Signature],
    /// Now.
    pub at: Timestamp,
}

/// Why a policy is not adopted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptionRefusal {
    /// Live and exercise never mix.
    #[error("the adoption is {adoption}, the new policy {new}, the policy in force {old}; expected one purpose")]
    Purpose {
        /// Of the document.
        adoption: Purpose,
        /// Of the new policy.
        new: Purpose,
        /// Of the old one; of the new one if there is none.
        old: Purpose,
    },
    /// One ledger, one origin.
    #[error(
        "the adoption is for {adoption}, the new policy for {new}, the policy in force for {old}; expected one origin"
    )]
    Origin {
        /// Of the document.
        adoption: Origin,
        /// Of the new policy.
        new: Origin,
        /// Of the old one; of the new one if there is none.
        old: Origin,
    },
    /// Other files.
    #[error("the adoption names policy {expected}, the files given have digest {found}")]
    Policy {
        /// What stands in the document.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// Not the next.
    #[error("sequence: expected {expected}, found {found}")]
    Sequence {
        /// One more than the one in force.
        expected: u32,
        /// What stands in the document.
        found: u32,
    },
    /// Not in the place of the one in force.
    #[error("predecessor: expected {}, found {}", or_none(*expected), or_none(*found))]
    Predecessor {
        /// The policy in force.
        expected: Option<Digest>,
        /// What stands in the document.
        found: Option<Digest>,
    },
    /// Drafted on another ledger.
    #[error("the ledger head of size {size} and root {root} is none of ours; draft the adoption on our ledger")]
    Head {
        /// Its size.
        size: u64,
        /// Its root.
        root: Digest,
    },
    /// Nothing to carry over.
    #[error("determination {id} is to be carried over and is not in force")]
    CarriesOver {
        /// Which.
        id: DeterminationId,
    },
    /// The first policy needs everyone.
    #[error("{person} is a pma-member of the first policy and has not signed; everyone on its roster must")]
    NotSigned {
        /// Who.
        person: PersonId,
    },
    /// The members of the policy in force.
    #[error("the policy in force: {0}")]
    Old(NotQuorate),
    /// The members of the new policy.
    #[error("the new policy: {0}")]
    New(NotQuorate),
}

/// A policy that was adopted, and who by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Its sequence number.
    pub sequence: u32,
    /// Its digest.
    pub policy: Digest,
    /// Who approved under the policy before it; none at the ceremony.
    pub old: Option<Approvals>,
    /// Who approved under itself.
    pub new: Approvals,
}

/// Judges an adoption: the first is signed by everyone on its roster, each later one by the quorum of the old policy and
/// by that of the new.
///
/// # Errors
/// Every reason.
pub fn check(adoption: &Written<Adoption>, facts: &Facts<'_>) -> Result<Adopted, Vec<AdoptionRefusal>> {
    let mut refusals = Vec::new();
    let Adoption { r#type: _, purpose, origin, sequence, policy, predecessor, ledger, carries_over } = adoption.form();
    let before = facts.old.map_or(facts.new, |(old, _)| old);
    if *purpose != facts.new.purpose() || *purpose != before.purpose() {
        let (new, old) = (facts.new.purpose(), before.purpose());
        refusals.push(AdoptionRefusal::Purpose { adoption: *purpose, new, old });
    }
    if origin != facts.new.origin() || origin != before.origin() {
        let (new, old) = (facts.new.origin().clone(), before.origin().clone());
        refusals.push(AdoptionRefusal::Origin { adoption: origin.clone(), new, old });
    }
    if *policy != facts.new.digest() {
        refusals.push(AdoptionRefusal::Policy { expected: *policy, found: facts.new.digest() });
    }
    let expected = facts.old.map_or(1, |(_, sequence)| sequence.saturating_add(1));
    if *sequence != expected {
        refusals.push(AdoptionRefusal::Sequence { expected, found: *sequence });
    }
    let expected = facts.old.map(|(old, _)| old.digest());
    if *predecessor != expected {
        refusals.push(AdoptionRefusal::Predecessor { expected, found: *predecessor });
    }
    if let Some(head) = ledger.filter(|head| !(facts.is_prefix)(head)) {
        refusals.push(AdoptionRefusal::Head { size: head.size, root: head.root });
    }
    let lost = carries_over.iter().filter(|id| !facts.determinations.contains(id));
    refusals.extend(lost.map(|&id| AdoptionRefusal::CarriesOver { id }));

    let count = |policy: &Policy| {
        let electorates = Electorates { named: policy.electorate(), in_force: policy.electorate() };
        Count { document: adoption.digest(), electorates, proposer: None, at: facts.at }.quorate(facts.signatures)
    };
    let old = facts.old.map(|(old, _)| count(old));
    let new = count(facts.new);
    if let (None, Ok(approvals)) = (&old, &new) {
        let signed = |person: &PersonId| approvals.persons().any(|(signer, _)| signer == person);
        let missing = facts.new.roster(Role::PmaMember, facts.at).filter(|member| !signed(&member.id));
        refusals.extend(missing.map(|member| AdoptionRefusal::NotSigned { person: member.id.clone() }));
    }
    match (old.transpose(), new) {
        (Ok(old), Ok(new)) if refusals.is_empty() => Ok(Adopted { sequence: *sequence, policy: *policy, old, new }),
        (old, new) => {
            refusals.extend(old.err().map(AdoptionRefusal::Old));
            refusals.extend(new.err().map(AdoptionRefusal::New));
            Err(refusals)
        }
    }
}

fn or_none(digest: Option<Digest>) -> String {
    digest.map_or_else(|| "none".into(), |digest| digest.to_string())
}

#[cfg(test)]
mod tests;
