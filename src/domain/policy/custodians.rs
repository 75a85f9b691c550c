//! Pure. Whether those who presented are enough to open a key: k persons, of several Parties, each in force now.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::domain::determination::people::Role;
use crate::domain::names::{DeterminationId, IncidentId, PersonId, SecParty, ShareName};
use crate::domain::policy::facts::KeyFacts;
use crate::domain::policy::{Activation, Policy};
use crate::domain::time::Timestamp;

/// A presentation as it stands since the key was last locked and the daemon last started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presented {
    /// Its entry.
    pub entry: u64,
    /// For which incident alone.
    pub incident: IncidentId,
    /// Under which determination.
    pub determination: DeterminationId,
    /// Which share of which generation; none where the HSM itself asks.
    pub share: Option<(ShareName, u32)>,
    /// The first moment at which it no longer counts towards an activation.
    pub until: Timestamp,
    /// The first moment at which the statement holds no more.
    pub expires: Timestamp,
}

/// Why a presentation counts no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// For another incident, or for a determination that the incident follows no longer.
    #[error("{person} presented for incident {incident} under determination {determination}, not for this")]
    Other {
        /// Who.
        person: PersonId,
        /// For which.
        incident: IncidentId,
        /// Under which.
        determination: DeterminationId,
    },
    /// The appointment is over, or the policy names the person no more.
    #[error("{person} is no key-custodian in force at {at}")]
    Ceased {
        /// Who.
        person: PersonId,
        /// Now.
        at: Timestamp,
    },
    /// Another has the share by the policy in force, or it was dealt anew.
    #[error("the share that {person} presented is not theirs any more, or was dealt anew since")]
    Share {
        /// Who.
        person: PersonId,
    },
    /// Too long ago.
    #[error("what {person} presented counted until {until}; it is {at}")]
    Over {
        /// Who.
        person: PersonId,
        /// Until when.
        until: Timestamp,
        /// Now.
        at: Timestamp,
    },
}

/// Who counts, and how many are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The entries of those who count, by person.
    pub by: BTreeMap<PersonId, Presented>,
    /// Of which Party each of them is.
    pub parties: BTreeMap<PersonId, SecParty>,
    /// k, of the policy in force or of the shares that were dealt last, whichever is more.
    pub need: u32,
    /// Of how many Parties.
    pub parties_need: u32,
    /// What counts no more, and why.
    pub not_counted: Vec<NotCounted>,
}

impl Count {
    /// Counts those who presented for this incident and determination, at that moment.
    ///
    /// While the key is active for the incident, what opened it counts until its statements expire: a token that was away can be brought in
    /// without presenting anew.
    pub fn of(
        policy: &Policy,
        key: &KeyFacts,
        (incident, determination): (&IncidentId, DeterminationId),
        at: Timestamp,
    ) -> Self {
        let is_open = key.is_active(at) && key.active_for.as_ref() == Some(incident);
        let by_shares = policy.key(&key.record.label).is_some_and(|key| key.activation == Activation::Custodians);
        let (need, parties_need) = needed(policy, key);
        let mut count =
            Self { by: BTreeMap::new(), parties: BTreeMap::new(), need, parties_need, not_counted: Vec::new() };
        for (id, presented) in &key.presented {
            let person = id.clone();
            let until = if is_open { presented.expires } else { presented.until };
            if presented.incident != *incident || presented.determination != determination {
                let (incident, determination) = (presented.incident.clone(), presented.determination);
                count.not_counted.push(NotCounted::Other { person, incident, determination });
                continue;
            }
            let in_force = policy
                .people()
                .person(id)
                .filter(|person| person.roles.contains(&Role::KeyCustodian) && person.window.contains(at));
            let Some(of_policy) = in_force else {
                count.not_counted.push(NotCounted::Ceased { person, at });
                continue;
            };
            let is_theirs = presented.share.as_ref().map_or(!by_shares, |(name, generation)| {
                let is_dealt = key.shares.as_ref().is_some_and(|dealt| {
                    dealt.generation == *generation
                        && dealt.holders.iter().any(|holder| holder.share == *name && holder.person == *id)
                });
                by_shares && is_dealt && of_policy.shares.contains(name)
            });
            if !is_theirs {
                count.not_counted.push(NotCounted::Share { person });
            } else if at >= until {
                count.not_counted.push(NotCounted::Over { person, until, at });
            } else {
                count.parties.insert(person.clone(), of_policy.party.clone());
                count.by.insert(person, presented.clone());
            }
        }
        count
    }

    /// Those who opened a key that is active, where Key Custodians open it and it is active for this incident; `None` where nobody has to
    /// count: the key is locked, its credential is stored, or an older daemon activated it for every incident.
    pub fn of_active(
        policy: &Policy,
        key: &KeyFacts,
        (incident, determination): (&IncidentId, DeterminationId),
        at: Timestamp,
    ) -> Option<Self> {
        let is_open = key.is_active(at) && key.active_for.as_ref() == Some(incident);
        match policy.key(&key.record.label)?.activation {
            Activation::Custodians | Activation::ProtectedPath if is_open => {
                Some(Self::of(policy, key, (incident, determination), at))
            }
            Activation::Custodians | Activation::ProtectedPath | Activation::Stored => None,
        }
    }

    /// How many persons count.
    pub fn have(&self) -> u32 {
        number(self.by.len())
    }

    /// Of how many Parties they are.
    pub fn parties_have(&self) -> u32 {
        number(self.parties.values().collect::<BTreeSet<_>>().len())
    }

    /// Whether they are enough.
    pub fn is_enough(&self) -> bool {
        self.have() >= self.need && self.parties_have() >= self.parties_need
    }

    /// How they fall short, in words; whoever counts no more is named with why.
    pub fn shortfall(&self) -> String {
        let (have, need, parties, parties_need) = (self.have(), self.need, self.parties_have(), self.parties_need);
        let why = self.why();
        format!("{have} of {need} Key Custodians count, of {parties} of {parties_need} Parties{why}")
    }

    /// Who counts no more, and why; each behind a semicolon.
    pub fn why(&self) -> String {
        self.not_counted.iter().map(|fault| format!("; {fault}")).collect::<Vec<_>>().concat()
    }

    /// The entries of those who count, in their order.
    pub fn entries(&self) -> Vec<u64> {
        let mut entries: Vec<u64> = self.by.values().map(|presented| presented.entry).collect();
        entries.sort_unstable();
        entries
    }

    /// The first moment at which the statements that still hold are too few, of persons or of Parties.
    pub fn expires(&self) -> Option<Timestamp> {
        let mut moments: Vec<Timestamp> = self.by.values().map(|presented| presented.expires).collect();
        moments.sort_unstable();
        moments.into_iter().find(|at| {
            let hold = self.by.iter().filter(|(_, presented)| presented.expires > *at).map(|(person, _)| person);
            let persons: Vec<&PersonId> = hold.collect();
            let parties: BTreeSet<_> = persons.iter().filter_map(|person| self.parties.get(*person)).collect();
            number(persons.len()) < self.need || number(parties.len()) < self.parties_need
        })
    }
}

/// How many persons and how many Parties a key needs: k of the policy in force or of the shares that were dealt last, whichever is more. Fewer
/// than were dealt for open nothing, whatever a later policy says; more than that it may well demand.
pub fn needed(policy: &Policy, key: &KeyFacts) -> (u32, u32) {
    let by_shares = policy.key(&key.record.label).is_some_and(|key| key.activation == Activation::Custodians);
    let dealt = key.shares.as_ref().filter(|_| by_shares).map_or(0, |dealt| dealt.threshold);
    (policy.custodians().threshold.max(dealt), policy.custodians().parties_min)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
