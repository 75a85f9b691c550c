//! Pure. What entries about the procedure say: the bodies of those events that are not about keys and commands.
//!
//! *Warning:* these types are what lies in ledgers, as in [`super::entry`].

use serde::{Deserialize, Serialize};

use super::entry::SignatureRecord;
use crate::domain::names::{Digest, DirectionId, ProfileId};

/// The profile in force at an entry's own moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileInForce {
    /// The base profile.
    pub base: ProfileId,
    /// The variations in force, by their ids.
    pub variations: Vec<ProfileId>,
}

/// A direction was taken in: it extends a variation, or departs from a step in one incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectionRecorded {
    /// Its id.
    pub direction: DirectionId,
    /// The document, a blob.
    pub document: Digest,
    /// Who signed it.
    pub signatures: Vec<SignatureRecord>,
    /// The policy under which the signatures were counted.
    pub policy: Digest,
    /// The direction's own text, a blob, where it came with the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Digest>,
}
