//! Shell: where the PIN of a token comes from. Whatever it is, it goes to the worker sealed to a key that the worker made for it, and
//! is opened there alone.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::errors::HsmError;
use super::handle::PIN_LEN_MAX;
use super::one_time::{PinFor, SealTo, pin_info};
use crate::domain::names::TokenName;

/// Who has a PIN and gives it sealed, never in clear: the vault of an active key.
pub trait PinKeeper: Send + Sync {
    /// The PIN of a token, sealed to its worker with [`pin_info`] for its login. Waits.
    ///
    /// # Errors
    /// In words, why there is none; it stays so.
    fn seal_pin(&self, seal_to: &SealTo) -> Result<Vec<u8>, String>;
}

/// Where the PIN comes from. Cheap to clone, without Debug.
#[derive(Clone)]
pub enum PinSource {
    /// A stored credential, or one that was typed: held here while the token is active.
    Held(SecretString),
    /// The vault has it. A worker that died is replaced for as long as the vault lives.
    Apart(Arc<dyn PinKeeper>),
    /// That of the token's security officer, at a ceremony: what it is used for is done in one login, and signs nothing.
    Officer(SecretString),
    /// Nobody here: the token asks by itself, at a PIN pad or for a set of cards (`CKF_PROTECTED_AUTHENTICATION_PATH`).
    ProtectedPath,
}

impl From<SecretString> for PinSource {
    fn from(pin: SecretString) -> Self {
        Self::Held(pin)
    }
}

impl PinSource {
    /// Whether the token asks by itself.
    pub const fn is_protected_path(&self) -> bool {
        matches!(self, Self::ProtectedPath)
    }

    /// Whether it is the security officer's.
    pub const fn is_officers(&self) -> bool {
        matches!(self, Self::Officer(_))
    }

    /// Refuses a PIN that no worker has room for, before one is started.
    pub(super) fn check(&self) -> Result<(), HsmError> {
        match self {
            Self::Held(pin) | Self::Officer(pin) if pin.expose_secret().len() > PIN_LEN_MAX => {
                Err(HsmError::PinWithheld { why: format!("it is longer than {PIN_LEN_MAX} octets") })
            }
            Self::Held(_) | Self::Officer(_) | Self::Apart(_) | Self::ProtectedPath => Ok(()),
        }
    }

    /// What answers a worker that wants the PIN; nothing where the token asks by itself.
    pub(super) fn answer(&self, token: &TokenName, serial: &str, seal_to: &SealTo) -> Result<Vec<u8>, HsmError> {
        match self {
            Self::Held(pin) | Self::Officer(pin) => {
                let what = if self.is_officers() { PinFor::Officer } else { PinFor::Login };
                let sealed = seal_to.seal(&pin_info(what, token, serial), pin.expose_secret().as_bytes());
                sealed.map_err(|error| HsmError::Protocol { found: error.to_string() })
            }
            Self::Apart(keeper) => keeper.seal_pin(seal_to).map_err(|why| HsmError::PinNotHad { why }),
            Self::ProtectedPath => Ok(Vec::new()),
        }
    }
}

/// A PIN out of memory that is wiped; none if it is not UTF-8.
pub(super) fn secret(octets: &Zeroizing<Vec<u8>>) -> Option<SecretString> {
    std::str::from_utf8(octets).ok().map(SecretString::from)
}

/// A PIN and the one in its place, as they are sealed: the length of the old one, the old one, the new one.
pub(super) fn changed(old: &SecretString, new: &SecretString) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let (old, new) = (old.expose_secret().as_bytes(), new.expose_secret().as_bytes());
    if old.len() > PIN_LEN_MAX || new.len() > PIN_LEN_MAX {
        return Err(HsmError::PinWithheld { why: format!("it is longer than {PIN_LEN_MAX} octets") });
    }
    let len = u16::try_from(old.len()).expect("PIN_LEN_MAX fits a u16").to_be_bytes();
    let mut both = Zeroizing::new(Vec::with_capacity(len.len() + old.len() + new.len()));
    both.extend_from_slice(&len);
    both.extend_from_slice(old);
    both.extend_from_slice(new);
    Ok(both)
}

/// The two of [`changed`].
pub(super) fn both(octets: &[u8]) -> Option<(SecretString, SecretString)> {
    let (len, pins) = octets.split_first_chunk::<2>()?;
    let (old, new) = pins.split_at_checked(u16::from_be_bytes(*len).into())?;
    let pin = |octets| std::str::from_utf8(octets).ok().map(SecretString::from);
    Some((pin(old)?, pin(new)?))
}
