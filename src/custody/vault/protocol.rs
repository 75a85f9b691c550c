//! Shell. The pipe between the daemon and a vault: frames and messages as those of a token's worker ([`crate::hsm::protocol`]), one
//! answer to each asking, in order. What is secret in them is sealed to one of the two processes that may open it, neither of which is the daemon.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::domain::names::{PresentationId, TokenName};
use crate::hsm::one_time::SealTo;

/// What the vault is told first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The program's version: both sides must be the same build.
    pub version: String,
    /// The process id of who started it: a vault whose parent is another one is an orphan, and ends.
    pub parent_pid: i32,
    /// The custody file, as it lies.
    pub file: ByteBuf,
}

/// From the daemon to the vault.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToVault {
    /// Make a key to which a share can be sealed.
    Present {
        /// What the share is presented for ([`Purpose`](crate::custody::present::Purpose)): bound into the sealing.
        info: ByteBuf,
    },
    /// A share, sealed.
    Take {
        /// To the key of this presentation, which is used up.
        presentation: PresentationId,
        /// The index that the share must have.
        index: u16,
        /// The sealed share.
        sealed: ByteBuf,
    },
    /// Nothing comes for a presentation any more.
    Abandon {
        /// Which.
        presentation: PresentationId,
    },
    /// A share that counts no more.
    Forget {
        /// Its index.
        index: u16,
    },
    /// Put these shares together and open the PINs.
    Open {
        /// Their indices.
        indices: Vec<u16>,
    },
    /// The PIN of a token.
    Pin {
        /// Which.
        token: TokenName,
        /// Its serial number.
        serial: String,
        /// The key of its worker.
        seal_to: SealTo,
    },
}

/// From the vault to the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromVault {
    /// It has read the custody file and waits.
    Ready {
        /// What could not be done to keep its memory.
        warnings: Vec<String>,
    },
    /// It cannot use the custody file, and ends.
    Refused {
        /// Why.
        why: String,
    },
    /// A key to seal to.
    SealTo {
        /// Of this presentation.
        presentation: PresentationId,
        /// The key.
        seal_to: SealTo,
    },
    /// Done.
    Done,
    /// The PIN, sealed to the worker.
    Pin {
        /// As [`SealTo::seal`] gives it.
        sealed: ByteBuf,
    },
    /// Not done.
    Fault(super::VaultFault),
}
