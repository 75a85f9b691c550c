//! The new Root OCA Certificate carries the next generation, which is there, unused and sound: nothing is signed when it is missing. Rule 34.

use std::fmt;

use super::{BatchFacts, Refusal};
use crate::domain::determination::document::SymmetricKeyLine;
use crate::domain::gbcs::RemotePartyRole;
use crate::domain::names::{Digest, IncidentId, KeyLabel, KeyUse};
use crate::domain::policy::Policy;
use crate::domain::policy::facts::KeyFacts;

/// The mode of a contingency key.
const MODE: u8 = 9;

/// Why a contingency key is not the next generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotNext {
    /// It is the key that is used.
    Same,
    /// The ledger has none of that name.
    Unknown,
    /// It is a key for something else.
    Use(KeyUse),
    /// It was destroyed, or is about to be.
    Ending,
    /// It has no Root OCA Certificate that carries it.
    NoRoot,
    /// It was used itself.
    Spent(IncidentId),
    /// It is, or may be, Compromised.
    Compromised(IncidentId),
    /// The policy in force does not let it sign.
    NotPermitted,
    /// The determination names another Root OCA Certificate than the one that carries it.
    Determined {
        /// The one in the determination.
        expected: Digest,
        /// The one that was taken in.
        found: Digest,
    },
    /// A template puts another root on the Devices.
    OtherRoot {
        /// The one that carries it.
        expected: Digest,
        /// The one in the template.
        found: Digest,
    },
}

impl fmt::Display for NotNext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => f.write_str("is the key that is used itself, whose symmetric key everybody has afterwards"),
            Self::Unknown => f.write_str("is no key of the ledger"),
            Self::Use(found) => write!(f, "is a {found} key, and no contingency key"),
            Self::Ending => f.write_str("was destroyed, or is about to be"),
            Self::NoRoot => f.write_str("has no Root OCA Certificate that carries it"),
            Self::Spent(incident) => write!(f, "is spent itself, in incident {incident}"),
            Self::Compromised(incident) => write!(f, "is, or may be, Compromised (incident {incident})"),
            Self::NotPermitted => write!(f, "may not sign mode {MODE} by the policy in force"),
            Self::Determined { expected, found } => {
                write!(f, "is carried by Root OCA Certificate {found}, and the determination names {expected}")
            }
            Self::OtherRoot { expected, found } => {
                write!(f, "is carried by Root OCA Certificate {expected}, and a template puts {found} on the Devices")
            }
        }
    }
}

pub(super) fn check(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let (Some((key, _)), Some(determination)) = (facts.generation(), facts.determination) else { return Ok(()) };
    // That there is no such line is said by its own rule.
    let Some(line) = &determination.symmetric_key else { return Ok(()) };
    let refused = |why| Refusal::NextGeneration { next: line.next.clone(), why };
    let next = Next { key: facts.next, compromised_in: facts.next_compromised_in, policy: facts.policy };
    let expected = next_root(&key.record.label, line, next).map_err(refused)?;
    let templates = facts.scope().into_iter().flat_map(|scope| scope.templates.values());
    let mut roots = templates.flat_map(|template| {
        let replacements = template.update().replacements;
        let roots = replacements.into_iter().filter(|replacement| replacement.cell.role == RemotePartyRole::Root);
        roots.map(|replacement| Digest::of(replacement.certificate)).collect::<Vec<_>>()
    });
    match roots.find(|found| *found != expected) {
        Some(found) => Err(refused(NotNext::OtherRoot { expected, found })),
        None => Ok(()),
    }
}

/// What is known of the key that may be the next generation.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    /// The key, if the ledger has it.
    pub key: Option<&'a KeyFacts>,
    /// The incident in which it is, or may be, Compromised, or the root that carries it.
    pub compromised_in: Option<&'a IncidentId>,
    /// The policy in force.
    pub policy: &'a Policy,
}

/// The Root OCA Certificate that carries the generation after `key`, as the line names both.
///
/// # Errors
/// Why there is none.
pub fn next_root(key: &KeyLabel, line: &SymmetricKeyLine, next: Next<'_>) -> Result<Digest, NotNext> {
    let found = root_after(key, &line.next, next)?;
    if found == line.next_root_sha256 {
        Ok(found)
    } else {
        Err(NotNext::Determined { expected: line.next_root_sha256, found })
    }
}

/// The Root OCA Certificate that carries `label`, if that can be the generation after `key`.
///
/// # Errors
/// Why it cannot.
pub fn root_after(key: &KeyLabel, label: &KeyLabel, next: Next<'_>) -> Result<Digest, NotNext> {
    if label == key {
        return Err(NotNext::Same);
    }
    let Next { key, compromised_in, policy } = next;
    let next = key.ok_or(NotNext::Unknown)?;
    if next.record.use_ != KeyUse::Contingency {
        return Err(NotNext::Use(next.record.use_));
    }
    if next.ending.is_some() {
        return Err(NotNext::Ending);
    }
    let contingency = next.contingency.as_ref().ok_or(NotNext::NoRoot)?;
    let found = contingency.root.ok_or(NotNext::NoRoot)?;
    if let Some((incident, _)) = &contingency.spent {
        return Err(NotNext::Spent(incident.clone()));
    }
    if let Some(incident) = compromised_in {
        return Err(NotNext::Compromised(incident.clone()));
    }
    if !policy.key(label).is_some_and(|key| key.modes.contains(&MODE)) {
        return Err(NotNext::NotPermitted);
    }
    Ok(found)
}
