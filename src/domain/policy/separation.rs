//! Pure. Separation of parts within one incident: approver, ARO, Key Custodian and operator are different people.
//!
//! The roster gives nobody two of these roles at a time. A later policy may give a person another role; what they have done in an
//! incident stays, and bars them from another part in it.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::domain::names::PersonId;

/// A part that a person took in an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Signed a determination, its schedule, suspension or withdrawal.
    Approver,
    /// Signed a file as ARO.
    Aro,
    /// Gave a share.
    Custodian,
    /// Opened or closed the incident, or asked for commands.
    Operator,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Approver => "approver",
            Self::Aro => "ARO",
            Self::Custodian => "Key Custodian",
            Self::Operator => "operator",
        })
    }
}

/// Somebody who would take a second part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{person} acted in this incident as {before} and may not act in it as {now}: nobody takes two parts; ask somebody else"
)]
pub struct TwoParts {
    /// Who.
    pub person: PersonId,
    /// What they did before.
    pub before: Part,
    /// What they would do now.
    pub now: Part,
}

/// Who took which part in an incident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsTaken(BTreeMap<PersonId, BTreeSet<Part>>);

impl PartsTaken {
    /// Notes that a person took a part.
    pub fn take(&mut self, person: &PersonId, part: Part) {
        self.0.entry(person.clone()).or_default().insert(part);
    }

    /// Whether a person may take a part: they have taken no other.
    pub fn check(&self, person: &PersonId, now: Part) -> Result<(), TwoParts> {
        let taken = self.0.get(person);
        match taken.and_then(|parts| parts.iter().copied().find(|before| *before != now)) {
            Some(before) => Err(TwoParts { person: person.clone(), before, now }),
            None => Ok(()),
        }
    }

    /// Everyone who took a part.
    pub fn iter(&self) -> impl Iterator<Item = (&PersonId, Part)> {
        self.0.iter().flat_map(|(person, parts)| parts.iter().map(move |part| (person, *part)))
    }
}

#[cfg(test)]
mod tests;
