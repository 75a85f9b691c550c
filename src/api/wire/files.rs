//! Shell. Wire types of the procedure's files, of people's activity and of exercises.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Base64;
use crate::domain::names::{Digest, FileKind, IncidentId, PersonId, SecParty, SmsrReference};
use crate::domain::time::Timestamp;

/// Submits a file of the procedure: its octets, or the SHA-256 of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSubmit {
    /// Which kind of file.
    pub kind: FileKind,
    /// The file, octet for octet as it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<Base64>,
    /// The SHA-256 of a file that was uploaded before, for one that is too long for a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{64}$")]
    pub staged: Option<Digest>,
    /// The detached CMS signature of an ARO, DER; none for an SMI Status extract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Base64>,
}

/// A file that was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct File {
    /// The index of the ledger entry.
    pub entry: u64,
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// Which kind of file.
    pub kind: FileKind,
    /// Its digest, by which the ledger's blobs have it.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// The ARO who signed it.
    #[schema(value_type = Option<String>)]
    pub signer: Option<PersonId>,
    /// The ARO's Party.
    #[schema(value_type = Option<String>)]
    pub party: Option<SecParty>,
    /// The reference of the DCC Service Management Service Request, in an ADT file.
    #[schema(value_type = Option<String>)]
    pub smsr: Option<SmsrReference>,
    /// Lines below its header.
    pub rows: u64,
}

/// The files of an incident, in the order in which they were taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Files {
    /// The incident.
    #[schema(value_type = String)]
    pub incident: IncidentId,
    /// Them.
    pub files: Vec<File>,
}

/// Which entries of a person are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivityOf {
    /// From this index; 0 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Recorded at this moment or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub since: Option<Timestamp>,
    /// Recorded before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
}

/// What a person had to do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// Their signature is what it rests on.
    Signed,
    /// Their account asked for it.
    Asked,
    /// Both.
    SignedAndAsked,
}

/// An entry that a person signed or asked for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Act {
    /// The index of the entry.
    pub index: u64,
    /// When it was recorded.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// What the person did.
    pub did: Did,
    /// The kind of the entry, such as `file-accepted`.
    pub kind: String,
    /// What happened, as the entry says it.
    #[schema(value_type = Object)]
    pub event: Box<RawValue>,
}

/// What a person did, at most [`Activity::COUNT_MAX`] entries at a time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Activity {
    /// Who.
    #[schema(value_type = String)]
    pub person: PersonId,
    /// What, oldest first.
    pub acts: Vec<Act>,
    /// From which index to ask on, if there may be more.
    pub next: Option<u64>,
}

impl Activity {
    /// As many as of entries.
    pub const COUNT_MAX: usize = super::Entries::COUNT_MAX;
}

/// Records that the arrangements were rehearsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExerciseRecord {
    /// When it took place.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// SHA-256 of what came of it, such as `summary.json`.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    pub report: Digest,
    /// What was rehearsed.
    pub note: String,
}
