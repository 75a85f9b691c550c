//! Pure. Counting m of n: persons, not signatures, certificates, key records or accounts.
//!
//! What is counted are distinct persons with distinct keys, who hold the role `pma-member` both in the policy that the
//! document names and in the one in force, at the moment of counting. A signature that does not count is named with its
//! reason and disturbs nobody else's: whoever may deliver a signature could otherwise block a determination.

use std::collections::BTreeMap;

use super::document::{self, Proposed, Written};
use super::people::{Role, Roster};
use crate::domain::names::{Digest, PersonId};
use crate::domain::time::Timestamp;

/// A signature that was verified: by `spki`, over octets whose SHA-256 is `signed`.
///
/// Made by the CMS verification, which checks signature, chain and attributes. `spki` is a digest of the one encoding
/// ([`super::spki::digest_of_der`]), and `signed` is computed from the octets, never taken from a name or an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature {
    /// SHA-256 of the signer's DER SubjectPublicKeyInfo.
    pub spki: Digest,
    /// SHA-256 of the octets that were signed.
    pub signed: Digest,
    /// SHA-256 of the `.p7s` itself.
    pub p7s: Digest,
}

/// How many approvals are needed, m of n: 2 ≤ m ≤ n.
///
/// There is no quorum of none or one: neither a setting nor its absence can say "no approval needed". Checked when the
/// policy is read, and again whenever it is used, with n counted at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    approvals: u32,
    of: u32,
}

/// Why a number of approvals is no quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// Fewer than two.
    #[error(
        "expected at least {} approvals, found {approvals}; one person alone never determines",
        Quorum::APPROVALS_MIN
    )]
    TooFew {
        /// What stands in the policy.
        approvals: u32,
    },
    /// More than there are people.
    #[error(
        "expected at most as many approvals as members in force, {of}, found {approvals}; nothing could ever be determined"
    )]
    AboveRoster {
        /// What stands in the policy.
        approvals: u32,
        /// Members in force.
        of: u32,
    },
}

impl Quorum {
    /// Two persons: with one there would be no second pair of eyes.
    pub const APPROVALS_MIN: u32 = 2;

    /// `approvals` of `of` members.
    pub fn new(approvals: u32, of: u32) -> Result<Self, QuorumError> {
        if approvals < Self::APPROVALS_MIN {
            Err(QuorumError::TooFew { approvals })
        } else if approvals > of {
            Err(QuorumError::AboveRoster { approvals, of })
        } else {
            Ok(Self { approvals, of })
        }
    }

    /// `approvals` of the members of `roster` who are in force at that moment.
    pub fn at(approvals: u32, roster: &Roster, at: Timestamp) -> Result<Self, QuorumError> {
        let members = roster.holding(Role::PmaMember, at).count();
        Self::new(approvals, u32::try_from(members).unwrap_or(u32::MAX))
    }

    /// m.
    pub fn approvals(self) -> u32 {
        self.approvals
    }

    /// n.
    pub fn of(self) -> u32 {
        self.of
    }
}

/// The people of one policy and how many of them must approve. Numbers as the policy has them: they are checked again at
/// each count.
#[derive(Clone, Copy, Debug)]
pub struct Electorate<'a> {
    /// The digest of its policy.
    pub policy: Digest,
    /// Its people.
    pub roster: &'a Roster,
    /// m.
    pub approvals: u32,
}

/// By whom is counted: a signature counts under the policy that its document names, and its signer must still stand in
/// the one in force.
#[derive(Clone, Copy, Debug)]
pub struct Electorates<'a> {
    /// The policy that the document names.
    pub named: Electorate<'a>,
    /// The policy in force now; the same, unless it has changed since.
    pub in_force: Electorate<'a>,
}

/// What a count goes by.
#[derive(Clone, Copy, Debug)]
pub struct Count<'a> {
    /// SHA-256 of the octets of the document.
    pub document: Digest,
    /// By whom.
    pub electorates: Electorates<'a>,
    /// Who proposed the document, and so may not approve it. An adoption of a policy has none.
    pub proposer: Option<&'a PersonId>,
    /// The moment of counting.
    pub at: Timestamp,
}

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// Bound by the digest of the octets, never by an id within them.
    #[error("signature {p7s} is over other octets, SHA-256 {signed}")]
    OtherOctets {
        /// Which.
        p7s: Digest,
        /// Over what.
        signed: Digest,
    },
    /// No one's key.
    #[error("signature {p7s} is by a key that the {policy} does not know, SPKI SHA-256 {spki}")]
    UnknownKey {
        /// Which.
        p7s: Digest,
        /// The key.
        spki: Digest,
        /// Which of the two policies.
        policy: WhichPolicy,
    },
    /// The key changed hands between the two policies.
    #[error("signature {p7s} is by a key of {named} in the policy named and of {in_force} in the one in force")]
    OtherPerson {
        /// Which.
        p7s: Digest,
        /// Whose it was.
        named: PersonId,
        /// Whose it is.
        in_force: PersonId,
    },
    /// Not a member.
    #[error("{person} is no pma-member in the {policy}; signature {p7s} is not an approval")]
    WrongRole {
        /// Who.
        person: PersonId,
        /// Which.
        p7s: Digest,
        /// Which of the two policies.
        policy: WhichPolicy,
    },
    /// Before the appointment.
    #[error("{person} is appointed from {from} in the {policy}; it is {at}")]
    NotYetAppointed {
        /// Who.
        person: PersonId,
        /// From when.
        from: Timestamp,
        /// Now.
        at: Timestamp,
        /// Which of the two policies.
        policy: WhichPolicy,
    },
    /// After it.
    #[error("{person} ceased at {until} in the {policy}; it is {at}")]
    Ceased {
        /// Who.
        person: PersonId,
        /// Since when.
        until: Timestamp,
        /// Now.
        at: Timestamp,
        /// Which of the two policies.
        policy: WhichPolicy,
    },
    /// Whoever asks does not approve.
    #[error("{person} proposed this document, and may not approve it")]
    Proposer {
        /// Who.
        person: PersonId,
    },
    /// A suspension is by the member it names.
    #[error("signature {p7s} is by {found}; expected {expected}, whom the document names")]
    OtherMember {
        /// Who signed.
        found: PersonId,
        /// Whom the document names.
        expected: PersonId,
        /// Which.
        p7s: Digest,
    },
    /// One key counts once, however many signatures or certificates it has.
    #[error("signature {p7s} is by a key of {person} that is counted already; a key counts once")]
    KeyAgain {
        /// Whose.
        person: PersonId,
        /// Which.
        p7s: Digest,
    },
    /// One person counts once, however many keys they have.
    #[error("signature {p7s} is by {person}, who is counted already with another key; a person counts once")]
    PersonAgain {
        /// Who.
        person: PersonId,
        /// Which.
        p7s: Digest,
    },
}

/// One of the two policies of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichPolicy {
    /// The one that the document names.
    Named,
    /// The one in force.
    InForce,
}

/// Why a document is not approved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotQuorate {
    /// Of those who signed, too few count.
    #[error("expected approvals of {need} persons, found {have}{}", list(not_counted))]
    TooFew {
        /// m.
        need: u32,
        /// Persons counted.
        have: u32,
        /// Every signature that does not count, and why.
        not_counted: Vec<NotCounted>,
    },
    /// The wrong people would be asked.
    #[error("the document names policy {expected}, and is counted under {found}")]
    OtherPolicy {
        /// What stands in the document.
        expected: Digest,
        /// Whose people were to be counted.
        found: Digest,
    },
    /// The policy's number is none, now that its people are counted.
    #[error("the {policy} has no quorum at {at}: {fault}")]
    NoQuorum {
        /// Which of the two policies.
        policy: WhichPolicy,
        /// When.
        at: Timestamp,
        /// Why.
        fault: QuorumError,
    },
}

/// Who approved, each with the key and signature by which they are counted; and what was not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    by: BTreeMap<PersonId, Signature>,
    not_counted: Vec<NotCounted>,
}

impl Approvals {
    /// Who approved, by person.
    pub fn persons(&self) -> impl Iterator<Item = (&PersonId, &Signature)> {
        self.by.iter()
    }

    /// How many persons approved.
    pub fn len(&self) -> usize {
        self.by.len()
    }

    /// Whether nobody did.
    pub fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// The signatures that did not count, and why.
    pub fn not_counted(&self) -> &[NotCounted] {
        &self.not_counted
    }
}

impl Count<'_> {
    /// Counts, and demands the greater of both policies' numbers.
    ///
    /// # Errors
    /// [`NotQuorate`] with every reason. Signatures that do not count never make a quorate document fail.
    pub fn quorate(&self, signatures: &[Signature]) -> Result<Approvals, NotQuorate> {
        let mut need = 0;
        for (policy, electorate) in
            [(WhichPolicy::Named, self.electorates.named), (WhichPolicy::InForce, self.electorates.in_force)]
        {
            let quorum = Quorum::at(electorate.approvals, electorate.roster, self.at)
                .map_err(|fault| NotQuorate::NoQuorum { policy, at: self.at, fault })?;
            need = quorum.approvals().max(need);
        }
        let Approvals { by, not_counted } = self.tally(signatures);
        let have = u32::try_from(by.len()).unwrap_or(u32::MAX);
        if have < need {
            return Err(NotQuorate::TooFew { need, have, not_counted });
        }
        Ok(Approvals { by, not_counted })
    }

    /// Who of those who signed counts, however many they are. For showing how far a document has come.
    pub fn tally(&self, signatures: &[Signature]) -> Approvals {
        let mut approvals = Approvals { by: BTreeMap::new(), not_counted: Vec::new() };
        for signature in signatures {
            match self.approver(signature, &approvals.by) {
                Ok(person) => {
                    approvals.by.insert(person.clone(), *signature);
                }
                Err(reason) => approvals.not_counted.push(reason),
            }
        }
        approvals
    }

    /// Whether `signature` is by `member`, a pma-member in force: what a suspension needs, and nothing more.
    pub fn is_by(&self, member: &PersonId, signature: &Signature) -> Result<(), NotCounted> {
        let found = self.approver(signature, &BTreeMap::new())?;
        if found == member {
            return Ok(());
        }
        Err(NotCounted::OtherMember { found: found.clone(), expected: member.clone(), p7s: signature.p7s })
    }

    /// Whom one signature makes an approver, beside those counted already.
    fn approver(
        &self,
        signature: &Signature,
        counted: &BTreeMap<PersonId, Signature>,
    ) -> Result<&PersonId, NotCounted> {
        let Signature { spki, signed, p7s } = *signature;
        if signed != self.document {
            return Err(NotCounted::OtherOctets { p7s, signed });
        }
        let person = self.standing(signature, WhichPolicy::Named)?;
        let now = self.standing(signature, WhichPolicy::InForce)?;
        if person != now {
            return Err(NotCounted::OtherPerson { p7s, named: person.clone(), in_force: now.clone() });
        }
        if self.proposer == Some(person) {
            return Err(NotCounted::Proposer { person: person.clone() });
        }
        match counted.get(person) {
            Some(first) if first.spki == spki => Err(NotCounted::KeyAgain { person: person.clone(), p7s }),
            Some(_) => Err(NotCounted::PersonAgain { person: person.clone(), p7s }),
            None => Ok(person),
        }
    }

    /// Whose key it is, if that person is a member in force at this moment under that policy.
    fn standing(&self, signature: &Signature, policy: WhichPolicy) -> Result<&PersonId, NotCounted> {
        let Signature { spki, p7s, .. } = *signature;
        let roster = match policy {
            WhichPolicy::Named => self.electorates.named.roster,
            WhichPolicy::InForce => self.electorates.in_force.roster,
        };
        let found = roster.person_by_spki(&spki).ok_or(NotCounted::UnknownKey { p7s, spki, policy })?;
        let person = found.id.clone();
        if !found.roles.contains(&Role::PmaMember) {
            return Err(NotCounted::WrongRole { person, p7s, policy });
        }
        if self.at < found.window.from {
            return Err(NotCounted::NotYetAppointed { person, from: found.window.from, at: self.at, policy });
        }
        if self.at >= found.window.until {
            return Err(NotCounted::Ceased { person, until: found.window.until, at: self.at, policy });
        }
        Ok(&found.id)
    }
}

impl std::fmt::Display for WhichPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Named => "policy that the document names",
            Self::InForce => "policy in force",
        })
    }
}

/// The reasons, each after a semicolon.
fn list(reasons: &[NotCounted]) -> String {
    reasons.iter().fold(String::new(), |text, reason| text + "; " + &reason.to_string())
}

/// A determination and how far it has come.
pub type Determination<Stage> = Ballot<document::Determination, Stage>;

/// A document and how far it has come: `Draft` → [`Ballot::close`] → `Quorate` → [`Ballot::record`] → `Recorded`, the only
/// stage that can be acted on. A stage does not survive storage: what is read back is parsed, counted and proven again.
#[derive(Clone, Debug)]
#[must_use]
pub struct Ballot<Form, Stage> {
    document: Written<Form>,
    stage: Stage,
}

/// Read, and not yet counted.
#[derive(Clone, Copy, Debug)]
pub struct Draft;

/// Approved by enough persons.
#[derive(Clone, Debug)]
pub struct Quorate {
    approvals: Approvals,
}

/// In the ledger.
#[derive(Clone, Debug)]
pub struct Recorded {
    approvals: Approvals,
    receipt: Receipt,
}

/// Where an entry lies in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Counted from 0.
    pub leaf_index: u64,
    /// The RFC 9162 2.1.1 leaf hash of the entry that names the document by its SHA-256.
    pub leaf_hash: Digest,
}

impl<Form: Proposed> Ballot<Form, Draft> {
    /// A document as it was read.
    pub fn draft(document: Written<Form>) -> Self {
        Self { document, stage: Draft }
    }

    /// Counts who signed exactly these octets.
    ///
    /// # Errors
    /// Gives the document back with the reasons: more signatures may come.
    pub fn close(
        self,
        electorates: Electorates<'_>,
        signatures: &[Signature],
        at: Timestamp,
    ) -> Result<Ballot<Form, Quorate>, (Self, NotQuorate)> {
        // Digest, policy and proposer come out of the document itself, so that nobody can count another document's
        // signatures for this one.
        let form = self.document.form();
        let count = Count { document: self.document.digest(), electorates, proposer: Some(form.proposer()), at };
        let counted = if form.policy() == electorates.named.policy {
            count.quorate(signatures)
        } else {
            Err(NotQuorate::OtherPolicy { expected: form.policy(), found: electorates.named.policy })
        };
        match counted {
            Ok(approvals) => Ok(Ballot { document: self.document, stage: Quorate { approvals } }),
            Err(fault) => Err((self, fault)),
        }
    }
}

impl<Form> Ballot<Form, Quorate> {
    /// Becomes actionable once `proves` finds that `receipt` is of an entry that names the document of this digest, and
    /// that the entry lies in the ledger (RFC 9162 2.1.3.2).
    pub fn record<E>(
        self,
        receipt: Receipt,
        proves: impl FnOnce(&Receipt, Digest) -> Result<(), E>,
    ) -> Result<Ballot<Form, Recorded>, E> {
        proves(&receipt, self.document.digest())?;
        let Self { document, stage: Quorate { approvals } } = self;
        Ok(Ballot { document, stage: Recorded { approvals, receipt } })
    }

    /// Who approved.
    pub fn approvals(&self) -> &Approvals {
        &self.stage.approvals
    }
}

impl<Form> Ballot<Form, Recorded> {
    /// Who approved.
    pub fn approvals(&self) -> &Approvals {
        &self.stage.approvals
    }

    /// Where it lies.
    pub fn receipt(&self) -> Receipt {
        self.stage.receipt
    }
}

impl<Form, Stage> Ballot<Form, Stage> {
    /// The document.
    pub fn document(&self) -> &Written<Form> {
        &self.document
    }
}

#[cfg(test)]
mod tests;
