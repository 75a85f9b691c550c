//! Pure. The Parties: who acts under which EUI-64.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use crate::domain::determination::prose::Prose;
use crate::domain::names::{PartyId, SecParty};

/// What a Party is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartyKind {
    /// The DCC.
    Dcc,
    /// An energy supplier.
    Supplier,
    /// A network operator.
    NetworkOperator,
    /// A Registration Data Provider.
    Rdp,
    /// Any other.
    Other,
}

impl fmt::Display for PartyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dcc => "dcc",
            Self::Supplier => "supplier",
            Self::NetworkOperator => "network-operator",
            Self::Rdp => "rdp",
            Self::Other => "other",
        })
    }
}

/// A Party.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// As the persons' `party`.
    pub id: SecParty,
    /// Its own name.
    pub name: Prose,
    /// What it is.
    pub kind: PartyKind,
    /// Under which it acts: User ids, and subjects of its Organisation Certificates.
    #[serde(default)]
    pub eui64: BTreeSet<PartyId>,
}

/// Every Party that the policy names; none in a policy without `[[party]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parties {
    parties: BTreeMap<SecParty, Party>,
    by_eui64: BTreeMap<PartyId, SecParty>,
}

/// Why a Party cannot join the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartyFault {
    /// Two of one name.
    #[error("party {id} stands here twice; name each once")]
    Twice {
        /// Which.
        id: SecParty,
    },
    /// An EUI-64 of two.
    #[error("EUI-64 {eui64} is of both {first} and {second}; it belongs to one Party")]
    OfTwo {
        /// Which.
        eui64: PartyId,
        /// Who came first.
        first: SecParty,
        /// Who came second.
        second: SecParty,
    },
}

impl Parties {
    /// Takes in one more; every fault is told.
    pub fn insert(&mut self, party: Party) -> Vec<PartyFault> {
        let mut faults = Vec::new();
        for eui64 in &party.eui64 {
            if let Some(first) = self.by_eui64.insert(*eui64, party.id.clone()).filter(|first| *first != party.id) {
                faults.push(PartyFault::OfTwo { eui64: *eui64, first, second: party.id.clone() });
            }
        }
        if let Some(first) = self.parties.insert(party.id.clone(), party) {
            faults.push(PartyFault::Twice { id: first.id });
        }
        faults
    }

    /// Whether the policy names none.
    pub fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// Each, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Party> {
        self.parties.values()
    }

    /// The Party of that id.
    pub fn get(&self, id: &SecParty) -> Option<&Party> {
        self.parties.get(id)
    }

    /// The Party that acts under that EUI-64.
    pub fn of(&self, eui64: PartyId) -> Option<&Party> {
        self.by_eui64.get(&eui64).and_then(|id| self.parties.get(id))
    }
}
