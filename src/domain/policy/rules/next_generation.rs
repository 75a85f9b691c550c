//! The new Root OCA Certificate carries the next generation, which is there, unused and sound: nothing is signed when it is missing. Rule 34.

use std::fmt;

use super::{BatchFacts, Refusal};
use crate::domain::gbcs::RemotePartyRole;
use crate::domain::names::{Digest, IncidentId, KeyLabel, KeyUse};
use crate::domain::policy::facts::KeyFacts;

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
    let expected = next_root(&key.record.label, &line.next, facts.next, facts.next_compromised_in).map_err(refused)?;
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

/// The Root OCA Certificate that carries the next generation after `key`, which is `label`.
///
/// # Errors
/// Why that is none.
pub fn next_root(
    key: &KeyLabel,
    label: &KeyLabel,
    next: Option<&KeyFacts>,
    compromised_in: Option<&IncidentId>,
) -> Result<Digest, NotNext> {
    if label == key {
        return Err(NotNext::Same);
    }
    let next = next.ok_or(NotNext::Unknown)?;
    if next.record.use_ != KeyUse::Contingency {
        return Err(NotNext::Use(next.record.use_));
    }
    if next.ending.is_some() {
        return Err(NotNext::Ending);
    }
    let contingency = next.contingency.as_ref().ok_or(NotNext::NoRoot)?;
    let root = contingency.root.ok_or(NotNext::NoRoot)?;
    if let Some((incident, _)) = &contingency.spent {
        return Err(NotNext::Spent(incident.clone()));
    }
    match compromised_in {
        Some(incident) => Err(NotNext::Compromised(incident.clone())),
        None => Ok(root),
    }
}
