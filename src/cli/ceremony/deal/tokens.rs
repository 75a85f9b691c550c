//! The PINs of a key's tokens, changed one token after the other: what is about to be done is written down before, and a token whose PIN
//! was changed has logged in with the new one before anything goes on.

use std::path::PathBuf;

use getrandom::SysRng;
use getrandom::rand_core::TryRng as _;
use secrecy::SecretString;
use zeroize::{Zeroize as _, Zeroizing};

use super::super::CeremonyError;
use super::super::opened::{Ledger, Opened};
use super::DealError;
use super::people::Brought;
use crate::cli::input::InputError;
use crate::custody::file::{Changing, CustodyFile};
use crate::custody::scheme::SealingSecret;
use crate::domain::ledger::custody::SharesDealt;
use crate::domain::ledger::entry::TokenFound;
use crate::hsm::{HsmError, Token, TokenReport};
use crate::service::start::{self, StartFault};

/// Characters of a new PIN, of 5 bits each. No official reference: 160 bits, which nobody types.
const PIN_LEN: u32 = 32;
/// The shortest that a token may force: 80 bits.
const PIN_LEN_MIN: u32 = 16;
/// What a PIN is made of: what every token takes that takes letters.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The change of the PINs, with what the old ones are had by.
pub struct Change<'a> {
    state: PathBuf,
    before: Option<&'a CustodyFile>,
    brought: &'a Brought,
    /// Of the generation before, once it was needed.
    secret: Option<SealingSecret>,
}

/// A token that is up under its old PIN, and the new one.
pub struct Ready {
    /// Which.
    pub found: TokenFound,
    token: Token,
    old: SecretString,
    /// Its next PIN.
    pub new: SecretString,
}

impl<'a> Change<'a> {
    /// Nothing is asked of anybody yet.
    pub fn new(state: PathBuf, before: Option<&'a CustodyFile>, brought: &'a Brought) -> Self {
        Self { state, before, brought, secret: None }
    }

    /// Logs in to a token with its old PIN, and makes the new one.
    pub fn log_in(&mut self, opened: &Opened<Ledger>, found: &TokenFound) -> Result<Ready, CeremonyError> {
        let old = self.old(opened, found)?;
        let (token, report) = start(opened, found, &old)?;
        let new = fresh_pin(found, &report)?;
        Ok(Ready { found: found.clone(), token, old, new })
    }

    /// The old PIN: by the shares of the generation before, or, for a token that had none, as that of any token at a ceremony.
    fn old(&mut self, opened: &Opened<Ledger>, found: &TokenFound) -> Result<SecretString, CeremonyError> {
        if let Some(before) = self.before
            && let Ok(sealed) = before.token(&found.token, &found.serial)
        {
            let secret = self.former(before)?;
            return Ok(before.pin(secret, sealed).map_err(DealError::from)?);
        }
        opened.room.pin(&found.token, &[opened.key.use_])
    }

    /// The secret of the generation before, put together once.
    pub fn former(&mut self, before: &CustodyFile) -> Result<&SealingSecret, DealError> {
        let secret = match self.secret.take() {
            Some(secret) => secret,
            None => self.brought.secret(before)?,
        };
        Ok(self.secret.insert(secret))
    }

    /// What the ledger is to say of a new generation: with who brought shares of the one before, and the signature by its secret, where there
    /// is one.
    pub fn begin(&mut self, file: &CustodyFile, left: Vec<TokenFound>) -> Result<SharesDealt, DealError> {
        let mut begun = SharesDealt { left, ..file.dealt() };
        if let Some(before) = self.before {
            begun.by = self.brought.persons(before.generation);
            let signature = self.former(before)?.sign(&begun.signed_by_the_former(&file.origin))?;
            begun.former = Some(hex::encode(signature).into());
        }
        Ok(begun)
    }

    /// Changes the PIN of a token that is up.
    pub fn change(
        &self,
        opened: &Opened<Ledger>,
        ready: Ready,
        begun: &SharesDealt,
        changing: &mut Changing,
    ) -> Result<(), CeremonyError> {
        let Ready { found, token, old, new } = ready;
        if !changing.begun.contains(&found.token) {
            changing.begun.push(found.token.clone());
            changing.write(&self.state, begun).map_err(DealError::from)?;
        }
        let unfinished = |source| DealError::Unfinished { token: found.token.clone(), source: Box::new(source) };
        token.set_pin(&old, new.clone()).map_err(unfinished)?;
        token.shutdown();
        match start(opened, &found, &new) {
            Ok((token, _)) => token.shutdown(),
            Err(StartFault::Hsm { source, .. }) => return Err(unfinished(source).into()),
            Err(fault) => return Err(fault.into()),
        }
        Ok(())
    }

    /// Goes on with a token of a deal that was cut off: it has its new PIN once it has logged in with it. One that was begun may have either,
    /// so the new one is tried first.
    pub fn finish(
        &mut self,
        opened: &Opened<Ledger>,
        found: &TokenFound,
        new: SecretString,
        begun: &SharesDealt,
        changing: &mut Changing,
    ) -> Result<(), CeremonyError> {
        if changing.begun.contains(&found.token) {
            match start(opened, found, &new) {
                Ok((token, _)) => {
                    token.shutdown();
                    return Ok(());
                }
                Err(StartFault::Hsm { source: HsmError::PinRefused { .. }, .. }) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        let old = self.old(opened, found)?;
        let (token, _) = start(opened, found, &old)?;
        self.change(opened, Ready { found: found.clone(), token, old, new }, begun, changing)
    }
}

fn start(opened: &Opened<Ledger>, found: &TokenFound, pin: &SecretString) -> Result<(Token, TokenReport), StartFault> {
    let config = start::token_config(&opened.room.configuration, &found.token, Some(opened.room.worker()))?;
    let expectations = start::expectations(opened.fold(), &found.token);
    start::start_token(config, pin.clone(), expectations)
}

/// A PIN of random letters and digits, as long as the token takes.
fn fresh_pin(found: &TokenFound, report: &TokenReport) -> Result<SecretString, CeremonyError> {
    let len = report.pin_len_max.min(PIN_LEN);
    if len < PIN_LEN_MIN {
        let (token, found) = (found.token.clone(), report.pin_len_max);
        return Err(DealError::PinLength { token, found, need: PIN_LEN_MIN }.into());
    }
    let mut octets = Zeroizing::new([0; PIN_LEN as usize]);
    SysRng.try_fill_bytes(&mut *octets).map_err(|_| InputError::NoRandom)?;
    let mut pin = String::with_capacity(PIN_LEN as usize);
    pin.extend(octets.iter().take(len as usize).map(|octet| char::from(ALPHABET[usize::from(octet % 32)])));
    let secret = SecretString::from(pin.as_str());
    pin.zeroize();
    Ok(secret)
}
