//! Shell. The release of the Contingency Symmetric Key, and how a contingency key stands. Neither has an octet of the key.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::ledger::contingency::{CheckResult, ReleaseResult};
use crate::domain::names::{DeterminationId, Digest, IncidentId, KeyLabel, RequestId};

/// Asks that the Contingency Symmetric Key is released, to be put into the commands of a determination: to smkid itself, which holds it in
/// memory alone until the key is locked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SymmetricRelease {
    /// How the caller calls this: the same again is answered with what was recorded of it, and releases nothing.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub request: RequestId,
    /// Into the commands of which determination.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub determination: DeterminationId,
    /// Whether to do what precedes the release alone: the token compares the Root OCA Certificate with the key, which is recorded, and
    /// nothing is spent or released.
    #[serde(default)]
    pub check_only: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SymmetricReleased {
    /// The contingency key.
    #[schema(value_type = String)]
    pub key: KeyLabel,
    /// The determination.
    #[schema(value_type = String)]
    pub determination: DeterminationId,
    /// What the token found before: none where the release was recorded earlier, and only told again.
    pub checked: Option<CheckedRoot>,
    /// Whether the key was spent before this was asked.
    pub spent_before: bool,
    /// The index of the entry that says that the token is about to be asked; none if only the check was asked for.
    pub intent: Option<u64>,
    /// What became of it; none if only the check was asked for.
    #[schema(value_type = Option<Object>)]
    pub outcome: Option<ReleaseResult>,
    /// Whether smkid holds the key for this determination now. If it does not, a new release under the same determination brings it
    /// back: ask with a new id.
    pub held: bool,
}

/// The Root OCA Certificate's field, unwrapped in the token and compared with the key's own public half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckedRoot {
    /// The index of its entry.
    pub entry: u64,
    /// SHA-256 of the certificate.
    #[schema(value_type = String)]
    pub root: Digest,
    /// What was found.
    #[schema(value_type = Object)]
    pub result: CheckResult,
}

/// How a contingency key stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContingencyState {
    /// SHA-256 of the Root OCA Certificate that carries its public half; none if none was taken in.
    #[schema(value_type = Option<String>)]
    pub root: Option<Digest>,
    /// For what its symmetric key is spent, if it is: then the generation is to be replaced, whatever came of it.
    pub spent: Option<SpentFor>,
    /// For which determination the symmetric key is released, if it is.
    #[schema(value_type = Option<String>)]
    pub released: Option<DeterminationId>,
    /// Whether smkid holds it now.
    pub held: bool,
}

/// For what a symmetric key is spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpentFor {
    /// The incident: it is released for no other, ever.
    #[schema(value_type = String)]
    pub incident: IncidentId,
    /// The determination by which it was first released.
    #[schema(value_type = String)]
    pub determination: DeterminationId,
}
