//! Pure. The entry that commits to the state after those before it.

use serde::{Deserialize, Serialize};

use crate::domain::names::{Digest, IncidentId};

/// How state is encoded where it is hashed. A program that encodes it otherwise takes the next number, and checks a ledger whole when
/// it meets a snapshot of another.
pub const FORM: u32 = 2;

/// The state after the entries before this one, by digests: see [`crate::domain::fold::snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// How it is encoded; [`FORM`].
    pub form: u32,
    /// SHA-256 of the fold without the Relevant Devices.
    pub fold: Digest,
    /// The Relevant Devices of each incident that has any, by incident.
    pub targets: Vec<TargetsKept>,
    /// The last intent for each Device with a key.
    pub device: TableKept,
    /// The requests.
    pub request: TableKept,
    /// The intents before the last that were, or may have been, signed.
    pub earlier: TableKept,
    /// What Devices have answered.
    pub response: TableKept,
    /// The keys of Devices whose certificates were imported.
    pub device_key: TableKept,
}

impl Snapshot {
    /// The tables, in the order of [`crate::domain::fold::snapshot::Table::ALL`].
    pub const fn tables(&self) -> [TableKept; 5] {
        [self.device, self.request, self.earlier, self.response, self.device_key]
    }
}

/// The Relevant Devices of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetsKept {
    /// Whose.
    pub incident: IncidentId,
    /// SHA-256 of their encoding.
    pub sha256: Digest,
}

/// A table of what grows with Devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableKept {
    /// How many rows it has.
    pub rows: u64,
    /// SHA-256 of the list of its pages.
    pub sha256: Digest,
}

impl std::fmt::Display for TableKept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "of {} rows, {}", self.rows, self.sha256)
    }
}
