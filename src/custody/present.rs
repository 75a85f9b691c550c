//! Shell: the half of a presentation that happens at a custodian's console: a share is sealed to the vault, for one purpose.

use serde::Serialize;

use super::scheme::Share;
use crate::domain::names::{Digest, IncidentId, KeyLabel, Origin};
use crate::hsm::one_time::{NotSealed, SealTo};

/// What a share is presented for. Console and daemon must say the same, or nothing opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Purpose {
    /// The ledger.
    pub origin: Origin,
    /// The key.
    pub key: KeyLabel,
    /// The generation of its share set.
    pub generation: u32,
    /// The incident.
    pub incident: IncidentId,
    /// The SHA-256 of the statement that the custodian signed.
    pub statement: Digest,
}

impl Purpose {
    /// As it is bound into the sealing: one encoding for each value.
    pub fn info(&self) -> Vec<u8> {
        let mut info = b"smkid share for the vault v1\n".to_vec();
        info.extend(serde_json::to_vec(self).expect("names and numbers"));
        info
    }
}

/// Seals a share to the key of a presentation.
pub fn seal(share: &Share, purpose: &Purpose, seal_to: &SealTo) -> Result<Vec<u8>, NotSealed> {
    seal_to.seal(&purpose.info(), share.octets())
}
