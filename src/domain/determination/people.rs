//! Pure. Who the people are: one table, in which each key, account and share belongs to exactly one person.
//!
//! The roster is flat and explicit. There are no groups, hence no indirect members to be recognised or forgotten.

mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::prose::Prose;
use crate::domain::names::{AccountName, Digest, PersonId, SecParty, ShareName};
use crate::domain::time::{Timestamp, Window};

pub use records::{Credential, CredentialState, Day, Records, Screening};

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Determines, and changes the policy.
    PmaMember,
    /// Keeps a share, and activates a key with others of another Party.
    KeyCustodian,
    /// Authorised Responsible Officer of a Subscriber: notifies a Compromise.
    Aro,
    /// Runs the procedure; never approves it.
    Operator,
    /// Reads everything, changes nothing.
    Auditor,
}

impl Role {
    /// Of these four nobody holds two: who asks, who approves, who unlocks and who is affected are different people.
    pub const SEPARATE: [Self; 4] = [Self::PmaMember, Self::KeyCustodian, Self::Aro, Self::Operator];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PmaMember => "pma-member",
            Self::KeyCustodian => "key-custodian",
            Self::Aro => "aro",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        })
    }
}

/// One person, as the policy names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// By what documents and entries call the person.
    pub id: PersonId,
    /// The person's own name.
    pub name: Prose,
    /// Who employs the person.
    pub party: SecParty,
    /// What the person may do.
    pub roles: BTreeSet<Role>,
    /// SHA-256 of the DER SubjectPublicKeyInfo of each key the person signs with.
    pub keys: Vec<Digest>,
    /// The person's UNIX accounts on the daemon's machine.
    pub accounts: Vec<AccountName>,
    /// The shares the person keeps.
    pub shares: Vec<ShareName>,
    /// From the appointment until it ceases.
    pub window: Window,
    /// What else is on record.
    pub records: Records,
}

/// Why the table of persons is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// Documents could not say whom they mean.
    #[error("person {person} stands here twice; give each person one entry")]
    IdTwice {
        /// The id.
        person: PersonId,
    },
    /// One human being with two entries would count twice.
    #[error(
        "{first} and {second} are both {name} of {party}: give one person one entry, or tell two people apart by their names"
    )]
    NameTwice {
        /// The name.
        name: Prose,
        /// Their Party.
        party: SecParty,
        /// Who came first.
        first: PersonId,
        /// Who came second.
        second: PersonId,
    },
    /// One signature would count twice.
    #[error("key {key} belongs to both {first} and {second}; each person signs with keys of their own")]
    KeyOfTwo {
        /// SHA-256 of its SPKI.
        key: Digest,
        /// Who came first.
        first: PersonId,
        /// Who came second.
        second: PersonId,
    },
    /// Two records of one key, perhaps written in two ways.
    #[error("key {key} of {person} stands here twice, perhaps written in two ways; name each key once")]
    KeyTwice {
        /// SHA-256 of its SPKI.
        key: Digest,
        /// Whose.
        person: PersonId,
    },
    /// Nobody could say who asked.
    #[error("account {account} belongs to both {first} and {second}; an account is one person's")]
    AccountOfTwo {
        /// The account.
        account: AccountName,
        /// Who came first.
        first: PersonId,
        /// Who came second, or the same again.
        second: PersonId,
    },
    /// One share would count twice.
    #[error("share {share} belongs to both {first} and {second}; a share is kept by one person")]
    ShareOfTwo {
        /// The share.
        share: ShareName,
        /// Who came first.
        first: PersonId,
        /// Who came second, or the same again.
        second: PersonId,
    },
    /// Separation of roles.
    #[error("{person} is both {first} and {second}; of pma-member, key-custodian, aro and operator nobody holds two")]
    TwoRoles {
        /// Who.
        person: PersonId,
        /// One role.
        first: Role,
        /// Another.
        second: Role,
    },
    /// An entry without effect is a mistake.
    #[error("{person} has no role; expected at least one of pma-member, key-custodian, aro, operator, auditor")]
    NoRole {
        /// Who.
        person: PersonId,
    },
    /// A member who cannot sign makes a quorum look larger than it is.
    #[error(
        "{person} is a pma-member without a key; name the SHA-256 of the SPKI of the key they sign with, or its PEM"
    )]
    MemberWithoutKey {
        /// Who.
        person: PersonId,
    },
    /// Shares make a custodian.
    #[error("{person} keeps share {share} and is no key-custodian; give the role, or the share to a custodian")]
    ShareWithoutRole {
        /// Who.
        person: PersonId,
        /// The share.
        share: ShareName,
    },
    /// Nobody is appointed for no time.
    #[error("{person} is appointed {window}, which contains no moment; `until` must come after `from`")]
    WindowEmpty {
        /// Who.
        person: PersonId,
        /// The window.
        window: Window,
    },
}

impl RosterError {
    /// Whose entry the fault is in: of two, the later.
    pub fn person(&self) -> &PersonId {
        match self {
            Self::NameTwice { second: person, .. }
            | Self::KeyOfTwo { second: person, .. }
            | Self::AccountOfTwo { second: person, .. }
            | Self::ShareOfTwo { second: person, .. }
            | Self::IdTwice { person }
            | Self::KeyTwice { person, .. }
            | Self::TwoRoles { person, .. }
            | Self::NoRole { person }
            | Self::MemberWithoutKey { person }
            | Self::ShareWithoutRole { person, .. }
            | Self::WindowEmpty { person, .. } => person,
        }
    }
}

/// The table of persons. Every key, account and share maps to exactly one person, and nobody holds two of
/// [`Role::SEPARATE`]: [`Roster::new`] is the only way to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    persons: BTreeMap<PersonId, Person>,
    by_key: BTreeMap<Digest, PersonId>,
    by_account: BTreeMap<AccountName, PersonId>,
    by_share: BTreeMap<ShareName, PersonId>,
}

impl Roster {
    /// Checks the table, and reports every fault in it.
    pub fn new(persons: impl IntoIterator<Item = Person>) -> Result<Self, Vec<RosterError>> {
        let mut faults = Vec::new();
        let mut roster = Self {
            persons: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_account: BTreeMap::new(),
            by_share: BTreeMap::new(),
        };
        let mut by_name: BTreeMap<(Prose, SecParty), PersonId> = BTreeMap::new();
        for person in persons {
            faults.extend(faults_alone(&person));
            let id = &person.id;
            for &key in &person.keys {
                match roster.by_key.insert(key, id.clone()) {
                    Some(first) if first == *id => faults.push(RosterError::KeyTwice { key, person: first }),
                    Some(first) => faults.push(RosterError::KeyOfTwo { key, first, second: id.clone() }),
                    None => {}
                }
            }
            for account in &person.accounts {
                if let Some(first) = roster.by_account.insert(account.clone(), id.clone()) {
                    faults.push(RosterError::AccountOfTwo { account: account.clone(), first, second: id.clone() });
                }
            }
            for share in &person.shares {
                if let Some(first) = roster.by_share.insert(share.clone(), id.clone()) {
                    faults.push(RosterError::ShareOfTwo { share: share.clone(), first, second: id.clone() });
                }
            }
            let name = (person.name.clone(), person.party.clone());
            if let Some(first) = by_name.insert(name, id.clone()).filter(|first| first != id) {
                let (name, party) = (person.name.clone(), person.party.clone());
                faults.push(RosterError::NameTwice { name, party, first, second: id.clone() });
            }
            if let Some(first) = roster.persons.insert(id.clone(), person) {
                faults.push(RosterError::IdTwice { person: first.id });
            }
        }
        if faults.is_empty() { Ok(roster) } else { Err(faults) }
    }

    /// The person of that id.
    pub fn person(&self, id: &PersonId) -> Option<&Person> {
        self.persons.get(id)
    }

    /// Whose key that is, known by the SHA-256 of its SPKI.
    pub fn person_by_spki(&self, spki: &Digest) -> Option<&Person> {
        self.by_key.get(spki).and_then(|id| self.persons.get(id))
    }

    /// Whose UNIX account that is.
    pub fn person_by_account(&self, account: &str) -> Option<&Person> {
        let account = account.parse().ok()?;
        self.by_account.get::<AccountName>(&account).and_then(|id| self.persons.get(id))
    }

    /// Who keeps that share.
    pub fn person_by_share(&self, share: &ShareName) -> Option<&Person> {
        self.by_share.get(share).and_then(|id| self.persons.get(id))
    }

    /// Everyone, by id.
    pub fn persons(&self) -> impl Iterator<Item = &Person> {
        self.persons.values()
    }

    /// Who holds `role` at that moment, by id.
    pub fn holding(&self, role: Role, at: Timestamp) -> impl Iterator<Item = &Person> {
        self.persons().filter(move |p| p.roles.contains(&role) && p.window.contains(at))
    }

    /// The greatest number of persons who ever hold `role` at the same time, and a moment at which they do.
    pub fn most_holding(&self, role: Role) -> (u32, Timestamp) {
        self.persons()
            .filter(|p| p.roles.contains(&role))
            .map(|p| (u32::try_from(self.holding(role, p.window.from).count()).unwrap_or(u32::MAX), p.window.from))
            .max_by_key(|&(count, from)| (count, std::cmp::Reverse(from)))
            .unwrap_or((0, Timestamp::MIN))
    }
}

/// What is wrong with one entry by itself.
fn faults_alone(person: &Person) -> Vec<RosterError> {
    let mut faults = Vec::new();
    let id = || person.id.clone();
    if person.roles.is_empty() {
        faults.push(RosterError::NoRole { person: id() });
    }
    let mut separate = Role::SEPARATE.into_iter().filter(|role| person.roles.contains(role));
    if let (Some(first), Some(second)) = (separate.next(), separate.next()) {
        faults.push(RosterError::TwoRoles { person: id(), first, second });
    }
    if person.roles.contains(&Role::PmaMember) && person.keys.is_empty() {
        faults.push(RosterError::MemberWithoutKey { person: id() });
    }
    if let (Some(share), false) = (person.shares.first(), person.roles.contains(&Role::KeyCustodian)) {
        faults.push(RosterError::ShareWithoutRole { person: id(), share: share.clone() });
    }
    if person.window.is_empty() {
        faults.push(RosterError::WindowEmpty { person: id(), window: person.window });
    }
    faults
}

#[cfg(test)]
pub(in crate::domain) mod tests;
