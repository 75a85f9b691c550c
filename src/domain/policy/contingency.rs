//! Pure. What the ledger says of a generation of contingency material.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::ledger::contingency::{CheckResult, ContingencyPrepared};
use crate::domain::ledger::entry::Actor;
use crate::domain::names::{DeterminationId, Digest, IncidentId, RequestId};

/// A generation: what belongs to one contingency key, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContingencyFacts {
    /// The leaf that recorded how it was made.
    pub entry: u64,
    /// How it was made.
    pub prepared: ContingencyPrepared,
    /// SHA-256 of the Root OCA Certificate that carries it, once that was taken in.
    pub root: Option<Digest>,
    /// The leaf that recorded that.
    pub root_entry: Option<u64>,
    /// What came of the last check before use.
    pub checked: Option<Checked>,
    /// The incident that it is of for ever, and the determination under which its symmetric key was to be released first.
    pub spent: Option<(IncidentId, DeterminationId)>,
    /// Releases whose outcome is not recorded yet, by the leaf that announced them.
    pub releasing: BTreeMap<u64, Releasing>,
    /// The requests for releases: each is used once.
    pub requests: BTreeSet<RequestId>,
    /// Under which determination the daemon holds the symmetric key: from its release until the key is locked or the daemon starts.
    pub released: Option<DeterminationId>,
}

/// A check before use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// The leaf that recorded it.
    pub entry: u64,
    /// For which incident.
    pub incident: IncidentId,
    /// Of which Root OCA Certificate.
    pub root: Digest,
    /// What came of it.
    pub result: CheckResult,
}

/// A release that was announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Releasing {
    /// Who asked.
    pub by: Actor,
    /// Under which determination.
    pub determination: DeterminationId,
    /// Whether the key was locked since, or the daemon ended: whatever became of it, nobody holds it.
    pub lapsed: bool,
}

impl ContingencyFacts {
    /// Of material that was just made.
    pub const fn new(prepared: ContingencyPrepared, entry: u64) -> Self {
        Self {
            entry,
            prepared,
            root: None,
            root_entry: None,
            checked: None,
            spent: None,
            releasing: BTreeMap::new(),
            requests: BTreeSet::new(),
            released: None,
        }
    }

    /// What of it lay under no checkpoint at a start is not believed: a ceremony's entries always lie under one, so whoever could write to
    /// the disk put it there. Answers whether the material itself still is.
    pub fn take_back(&mut self, from: u64) -> bool {
        self.checked.take_if(|checked| checked.entry >= from);
        if self.root_entry.is_some_and(|entry| entry >= from) {
            (self.root, self.root_entry) = (None, None);
        }
        self.entry < from
    }

    /// The key was locked: nobody holds the symmetric key any more.
    pub fn lapse(&mut self) {
        self.released = None;
        self.releasing.values_mut().for_each(|releasing| releasing.lapsed = true);
    }

    /// The incident that it is of, if it is of another than this one.
    pub fn spent_elsewhere(&self, incident: &IncidentId) -> Option<&IncidentId> {
        self.spent.as_ref().map(|(spent, _)| spent).filter(|spent| *spent != incident)
    }

    /// Whether the last check was for this incident, of the Root OCA Certificate that carries it, and found it so.
    pub fn is_checked_for(&self, incident: &IncidentId) -> bool {
        self.checked.as_ref().is_some_and(|checked| {
            checked.incident == *incident
                && self.root == Some(checked.root)
                && matches!(checked.result, CheckResult::Matches)
        })
    }
}
