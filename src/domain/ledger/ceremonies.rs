//! Pure. What ceremonies after the first record: keys made and destroyed, and the ceremony itself with its plan and transcript.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::entry::{KeyRecord, SignatureRecord, TokenFound};
use crate::domain::names::{Digest, KeyLabel, PersonId};
use crate::domain::time::Timestamp;

/// How many must bear witness throughout, besides the conductor: who makes a key does not bear witness to it. No official reference.
pub const WITNESSES_MIN: usize = 2;

/// What a ceremony that has a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CeremonyKind {
    /// Keys, ledger and shares were made.
    First,
    /// A key got a new certificate.
    Renewal,
    /// A key was made after genesis, under a policy that names it.
    NewKey,
    /// A key was found on a further token.
    Copy,
    /// The sealing secret was split anew.
    ReShare,
}

impl CeremonyKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::First, Self::Renewal, Self::NewKey, Self::Copy, Self::ReShare];

    /// As plans and entries write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Renewal => "renewal",
            Self::NewKey => "new-key",
            Self::Copy => "copy",
            Self::ReShare => "re-share",
        }
    }
}

impl fmt::Display for CeremonyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As what somebody was in the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// Ran the program, and did what it said.
    Conductor,
    /// Looked on, compared what was read aloud, and signed the minutes.
    Witness,
    /// Of the SMKI PMA.
    PmaMember,
    /// Took a share.
    KeyCustodian,
    /// Looked on for the assurance of the SMKI.
    Auditor,
    /// Served the HSM, for its maker or its owner.
    Engineer,
}

impl Capacity {
    /// Whether they look on for others, compare what is read aloud, and sign the minutes.
    pub const fn bears_witness(self) -> bool {
        match self {
            Self::Witness | Self::PmaMember | Self::Auditor => true,
            Self::Conductor | Self::KeyCustodian | Self::Engineer => false,
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conductor => "conductor",
            Self::Witness => "witness",
            Self::PmaMember => "member of the SMKI PMA",
            Self::KeyCustodian => "Key Custodian",
            Self::Auditor => "auditor",
            Self::Engineer => "engineer of the HSM",
        })
    }
}

/// Somebody who was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attendance {
    /// What the policy calls them, if it knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// Their name.
    pub name: Box<str>,
    /// As what.
    pub capacity: Capacity,
}

/// A ceremony came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CeremonyRecorded {
    /// What for.
    pub kind: CeremonyKind,
    /// The plan, a blob.
    pub plan: Digest,
    /// The transcript, a blob: the lines from which the minutes are made.
    pub transcript: Digest,
    /// When it was opened.
    pub from: Timestamp,
    /// When its transcript was closed.
    pub until: Timestamp,
    /// Everyone who was there in any of its sessions.
    pub people: Vec<Attendance>,
}

/// A key was made after genesis, under a policy in force that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyMade {
    /// The key.
    pub key: KeyRecord,
}

/// A key is about to be destroyed: from here on it is not activated any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDestruction {
    /// Which.
    pub key: KeyLabel,
    /// The document, a blob.
    pub document: Digest,
    /// Who signed it.
    pub signatures: Vec<SignatureRecord>,
}

/// A key is on no token any more: each was looked at afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDestroyed {
    /// Which.
    pub key: KeyLabel,
    /// The entry that said that it would be.
    pub destruction: u64,
    /// The tokens on which it was destroyed and found absent.
    pub tokens: Vec<TokenFound>,
}
