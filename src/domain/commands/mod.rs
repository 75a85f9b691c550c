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
    let from = out.len();
    template.fill(originator, intent.device, intent.counter, out)?;
    // What the intent says is all but the first octet, and without the key.
    let (expected, found) = (intent.command, Digest::of(&out[from + 1..]));
    if found != expected {
        out.truncate(from);
        return Err(RebuildError::Differs { expected, found });
    }
    finish(template, from, signature, symmetric, out)
}

/// The same of what [`rebuild`] has compared with its intent before, and without that: a command is some four kilobytes, and what it is made
/// of some hundred octets, for whoever keeps many.
///
/// # Errors
/// Nothing is appended.
pub fn rebuild_compared(
    template: &Template,
    originator: PartyId,
    (device, counter): (DeviceId, u64),
    signature: &[u8; 64],
    symmetric: Option<&SymmetricKey>,
    out: &mut Vec<u8>,
) -> Result<(), RebuildError> {
    let from = out.len();
    template.fill(originator, device, counter, out)?;
    finish(template, from, signature, symmetric, out)
}

/// Ends a command that begins there and was filled but for its key; takes it away again where that cannot be.
fn finish(
    template: &Template,
    from: usize,
    signature: &[u8; 64],
    symmetric: Option<&SymmetricKey>,
    out: &mut Vec<u8>,
) -> Result<(), RebuildError> {
    let made = if template.needs_symmetric_key() { fill_in_place(from, symmetric, out) } else { Ok(()) };
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

/// Room for one command that [`rebuild`] makes: what it outgrew would not be wiped.
pub fn room_for(template: &Template) -> CommandOctets {
    let mut octets = CommandOctets::new(template.needs_symmetric_key());
    octets.reserve_exact(rebuilt_len_max(template));
    octets
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
