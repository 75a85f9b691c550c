//! Pure. Entries of the procedure: what was taken in of its files, and rehearsals.

use serde::{Deserialize, Serialize};

use super::entry::SignatureRecord;
use crate::domain::names::{Digest, FileKind, IncidentId, ProfileId, SecParty, SmsrReference};
use crate::domain::time::Timestamp;

/// The procedure profile in force at an entry's own time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileInForce {
    /// The base text.
    pub base: ProfileId,
    /// The variations laid over it.
    pub variations: Vec<ProfileId>,
}

/// A file of the procedure was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileAccepted {
    /// In which incident.
    pub incident: IncidentId,
    /// Under which profile; none where the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
    /// Which kind of file.
    pub kind: FileKind,
    /// SHA-256 of the file, a blob.
    pub file: Digest,
    /// The ARO's signature; none for an extract of the Smart Metering Inventory, which the DCC imports itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureRecord>,
    /// For whom it was submitted: the signer's Party.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub party: Option<SecParty>,
    /// The reference of the DCC Service Management Service Request, in an ADT file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smsr: Option<SmsrReference>,
    /// Lines below its header.
    pub rows: u64,
}

/// The arrangements were rehearsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExerciseRecorded {
    /// When.
    pub at: Timestamp,
    /// SHA-256 of what came of it, the `summary.json` of an exercise or another report. The report itself is kept elsewhere.
    pub report: Digest,
    /// What was rehearsed, in the operator's words.
    pub note: Box<str>,
}
