//! Pure. Signed commands as they are handed over and kept: the container ([`container`]), the manifest of a folder of files ([`manifest`]),
//! which intent of a ledger came to which end ([`pairs`]), and a command made again from what the ledger keeps of it ([`rebuild`]). The form is ours; `src/docs/container.md` describes it for others.
//!
//! What the ledger keeps of a Contingency command is unfilled: its symmetric key lies nowhere, and is put in when the command is signed and
//! when it is handed over ([`filled`]). Octets that have it are [`CommandOctets`].

pub mod container;
pub mod manifest;
mod octets;
pub mod pairs;

pub use octets::CommandOctets;

use crate::domain::gbcs::{
    self, FillError, FillKeyError, SYMMETRIC_KEY_GROWTH_MAX, SymmetricKey, Template, put_symmetric_key,
};
use crate::domain::ledger::entry::Intent;
use crate::domain::names::{DeviceId, Digest, PartyId};

/// Why a command cannot be made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// A Contingency command without its key.
    #[error(
        "it is of mode anyByContingency, and the ledger has not the Contingency Symmetric Key that belongs into it: that lies in no entry and \
         no document"
    )]
    SymmetricKeyNeeded,
    /// The key has no place in it.
    #[error(transparent)]
    SymmetricKey(#[from] FillKeyError),
}

/// Appends the whole signed command of an intent, octet for octet as it was signed: the template filled, in mode 9 with the Contingency
/// Symmetric Key in its place, and `40 ‖ r ‖ s`. Whether the signature is one of these octets is asked of the public key.
///
/// # Errors
/// Nothing is appended.
pub fn rebuild(
    template: &Template,
    originator: PartyId,
    intent: &Intent,
    signature: &[u8; 64],
    symmetric: Option<&SymmetricKey>,
    out: &mut Vec<u8>,
) -> Result<(), RebuildError> {
    let check = |unfilled: &[u8]| {
        let (expected, found) = (intent.command, Digest::of(unfilled));
        if found == expected { Ok(()) } else { Err(RebuildError::Differs { expected, found }) }
    };
    make(template, originator, (intent.device, intent.counter), (signature, symmetric), check, out)
}

/// The same once more, of what [`rebuild`] has compared with its intent before: a command is some four kilobytes, and what it is made of
/// some hundred octets, for whoever keeps many.
///
/// # Errors
/// Nothing is appended.
pub fn rebuild_again(
    template: &Template,
    originator: PartyId,
    (device, counter): (DeviceId, u64),
    signature: &[u8; 64],
    symmetric: Option<&SymmetricKey>,
    out: &mut Vec<u8>,
) -> Result<(), RebuildError> {
    make(template, originator, (device, counter), (signature, symmetric), |_| Ok(()), out)
}

/// `check` is given what the intent says: all but the first octet, and without the key.
fn make(
    template: &Template,
    originator: PartyId,
    (device, counter): (DeviceId, u64),
    (signature, symmetric): (&[u8; 64], Option<&SymmetricKey>),
    check: impl FnOnce(&[u8]) -> Result<(), RebuildError>,
    out: &mut Vec<u8>,
) -> Result<(), RebuildError> {
    let from = out.len();
    template.fill(originator, device, counter, out)?;
    let made = check(&out[from + 1..])
        .and_then(|()| if template.needs_symmetric_key() { fill_in_place(from, symmetric, out) } else { Ok(()) });
    match made {
        Ok(()) => gbcs::finish(out, signature),
        Err(_) => out.truncate(from),
    }
    made
}

fn fill_in_place(from: usize, symmetric: Option<&SymmetricKey>, out: &mut Vec<u8>) -> Result<(), RebuildError> {
    let filled = put_symmetric_key(&out[from..], symmetric.ok_or(RebuildError::SymmetricKeyNeeded)?)?;
    out.truncate(from);
    out.extend_from_slice(&filled);
    Ok(())
}

/// How many octets [`rebuild`] appends at most.
pub fn rebuilt_len_max(template: &Template) -> usize {
    let key = if template.needs_symmetric_key() { SYMMETRIC_KEY_GROWTH_MAX } else { 0 };
    template.filled_len_max() + key + gbcs::SIGNATURE_PART_LEN
}

/// A Contingency pre-command as it is signed: with its key inside, and room for the signature behind it.
///
/// # Errors
/// As [`put_symmetric_key`].
pub fn filled(pre_command: &[u8], symmetric: &SymmetricKey) -> Result<CommandOctets, FillKeyError> {
    let whole = put_symmetric_key(pre_command, symmetric)?;
    let mut octets = CommandOctets::new(true);
    octets.reserve_exact(whole.len() + gbcs::SIGNATURE_PART_LEN);
    octets.extend_from_slice(&whole);
    Ok(octets)
}

#[cfg(test)]
mod tests;
