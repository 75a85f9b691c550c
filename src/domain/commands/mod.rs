//! Pure. Signed commands as they are handed over and kept: the container ([`container`]), the manifest of a folder of files ([`manifest`]),
//! which intent of a ledger came to which end ([`pairs`]), and a command made again from what the ledger keeps of it ([`rebuild`]). The form is ours; `src/docs/container.md` describes it for others.

pub mod container;
pub mod manifest;
pub mod pairs;

use crate::domain::gbcs::{self, FillError, Template};
use crate::domain::ledger::entry::Intent;
use crate::domain::names::{Digest, PartyId};

/// Why a command cannot be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// The template cannot be filled.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// Other octets than those that were to be signed.
    #[error(
        "made again it has SHA-256 {found}, and its intent says {expected}: template, Device, counter or the certificate of the key are \
         not those of then"
    )]
    Differs {
        /// The intent's.
        expected: Digest,
        /// Of what was made.
        found: Digest,
    },
}

/// Appends the whole signed command of an intent, octet for octet as it was signed: the template filled, and `40 ‖ r ‖ s`.
///
/// # Errors
/// Nothing is appended.
pub fn rebuild(
    template: &Template,
    originator: PartyId,
    intent: &Intent,
    signature: &[u8; 64],
    out: &mut Vec<u8>,
) -> Result<(), RebuildError> {
    let from = out.len();
    template.fill(originator, intent.device, intent.counter, out)?;
    // What is signed is all but the first octet.
    let found = Digest::of(&out[from + 1..]);
    if found != intent.command {
        out.truncate(from);
        return Err(RebuildError::Differs { expected: intent.command, found });
    }
    gbcs::finish(out, signature);
    Ok(())
}
