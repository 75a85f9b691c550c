//! Pure. The Contingency Symmetric Key, and its way into and out of a Command of mode anyByContingency (GBCS 13.3,
//! `plaintextSymmetricKey`).
//!
//! A Command of that mode is made, approved, recorded and made again *unfilled*: the place of the key is there with no octets
//! (`80 00`). The key is put in right before the octets are signed, and again when they are handed over; nothing in between
//! holds it.

use std::fmt;

use zeroize::Zeroizing;

use super::codes::{CredentialsReplacementMode, MessageCode};
use super::command::{Cut, Slots, field};
use super::der::{DecodeError, Lengths, Reader, length_len, tag, write_octets};
use super::framing::{Authentication, Cra, Frame, Header, PAYLOAD_LEN_MAX};
use super::message::{KeyPlace, Message};

/// The Contingency Symmetric Key, an AES key: what unwraps the Contingency Public Key in a Root OCA Certificate.
///
/// Wiped when dropped, and shown by nothing.
#[derive(Clone)]
pub struct SymmetricKey(Zeroizing<Vec<u8>>);

/// Why octets are no such key. Says nothing of the octets but their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Contingency Symmetric Key: expected 16 or 32 octets (AES of 128 or 256 bit), found {found} octets")]
pub struct SymmetricKeyError {
    /// How many octets there were.
    pub found: usize,
}

impl SymmetricKey {
    /// The sizes in octets: AES of 128 and 256 bit. No document that could be read says which it is.
    pub const LENS: [usize; 2] = [16, 32];
    /// The longest.
    pub const LEN_MAX: usize = 32;

    /// The key of these octets, which are copied: whoever owns them wipes them.
    pub fn new(octets: &[u8]) -> Result<Self, SymmetricKeyError> {
        if Self::LENS.contains(&octets.len()) {
            Ok(Self(Zeroizing::new(octets.to_vec())))
        } else {
            Err(SymmetricKeyError { found: octets.len() })
        }
    }

    /// The key itself, 16 or 32 octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

/// How much longer a pre-command becomes at most when the key is put in; lengths included.
pub const SYMMETRIC_KEY_GROWTH_MAX: usize = SymmetricKey::LEN_MAX + 6;

/// Why a key cannot be put into a Command, or taken out of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillKeyError {
    /// Not a CS02b Command, or the place of the key is not as it should be.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A Response or an Alert.
    #[error("expected a Command of mode anyByContingency, found a {found}")]
    NotACommand {
        /// What it is.
        found: Cra,
    },
    /// A Command of another mode, which has no such key.
    #[error("expected a Command of mode anyByContingency, found one of mode {found}")]
    Mode {
        /// Its mode.
        found: CredentialsReplacementMode,
    },
    /// It is signed: nothing can be put into it any more.
    #[error("expected a pre-command, which ends after its payload, found a signature or a MAC")]
    Signed,
    /// The key inside is no AES key.
    #[error(transparent)]
    Key(#[from] SymmetricKeyError),
    /// With the key it could be longer than any message.
    #[error("expected a payload of at most {PAYLOAD_LEN_MAX} octets with the Contingency Symmetric Key, found {found}")]
    TooLong {
        /// How long the payload would be at most.
        found: usize,
    },
}

/// The whole pre-command with the key in its place.
///
/// # Shape
/// `pre_command` is whole, from `DF` on, and unfilled: `80 00` where the key belongs. So is the answer, filled; what is signed is
/// all of it but its first octet.
///
/// # Errors
/// The octets are no such pre-command; their offsets count from `DF`.
///
/// # Source
/// GBCS 13.3: the key is within the payload, and so is signed with it.
pub fn put_symmetric_key(pre_command: &[u8], key: &SymmetricKey) -> Result<Zeroizing<Vec<u8>>, FillKeyError> {
    let (message, place) = read(pre_command, Slots::KeyEmpty)?;
    match message.frame.authentication {
        Authentication::PreCommand => exchange(&message.frame, &place, key.octets()),
        Authentication::Signed(_) | Authentication::SignedAndMac(..) | Authentication::Mac(_) => {
            Err(FillKeyError::Signed)
        }
    }
}

/// The key inside a Command, and the pre-command without it: what [`put_symmetric_key`] was given.
///
/// # Shape
/// `message` is a whole Command of mode anyByContingency from `DF` on, signed or not. The pre-command ends after its payload.
pub fn take_symmetric_key(message: &[u8]) -> Result<(SymmetricKey, Vec<u8>), FillKeyError> {
    let (message, place) = read(message, Slots::Filled)?;
    let mut element = Reader::new(message.frame.octets, place.element.clone(), Lengths::Strict);
    let key = SymmetricKey::new(element.element(field::PLAINTEXT_SYMMETRIC_KEY, KEY)?.rest())?;
    // There is no key in it any more: it need not be wiped.
    let unfilled = exchange(&message.frame, &place, &[])?.to_vec();
    Ok((key, unfilled))
}

const KEY: &str = "plaintextSymmetricKey";

fn read(octets: &[u8], slots: Slots) -> Result<(Message<'_>, KeyPlace), FillKeyError> {
    let frame = Frame::parse(octets)?;
    match (frame.header.cra, frame.header.code) {
        (Cra::Command, MessageCode::UpdateSecurityCredentials(CredentialsReplacementMode::AnyByContingency)) => {}
        (Cra::Command, MessageCode::UpdateSecurityCredentials(found)) => return Err(FillKeyError::Mode { found }),
        (found, _) => return Err(FillKeyError::NotACommand { found }),
    }
    let (message, place) = Message::read(frame, slots)?;
    let place = place.expect("a payload of mode anyByContingency does not read without the field");
    Ok((message, place))
}

/// The pre-command with these octets in the place of the key.
fn exchange(frame: &Frame<'_>, place: &KeyPlace, key: &[u8]) -> Result<Zeroizing<Vec<u8>>, FillKeyError> {
    let octets = frame.octets;
    let mut whole = Reader::new(octets, place.control.clone(), Lengths::Strict);
    let control = whole.element(tag::SEQUENCE, "AuthorisingRemotePartyControl")?;
    let cut = Cut {
        before: &octets[control.at()..place.element.start],
        after: &octets[place.element.end..frame.payload.end],
        control_after_len: place.control.end - place.element.end,
    };
    let element_len = 1 + length_len(key.len()) + key.len();
    let found = frame.payload.len() + element_len;
    if found > PAYLOAD_LEN_MAX {
        return Err(FillKeyError::TooLong { found });
    }
    let mut filled = Zeroizing::new(Vec::with_capacity(Header::LEN_MAX + found + SYMMETRIC_KEY_GROWTH_MAX));
    cut.write(&frame.header, element_len, |out| write_octets(out, field::PLAINTEXT_SYMMETRIC_KEY, key), &mut filled);
    Ok(filled)
}

#[cfg(test)]
mod tests;
