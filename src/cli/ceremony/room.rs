//! Where a ceremony takes place: the configuration, the policy, the tokens that are plugged in, and who is asked for PINs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::{CeremonyError, Tokens};
use crate::cli::input;
use std::sync::Arc;

use crate::domain::ledger::entry::{Actor, Channel, Role};
use crate::domain::names::{KeyUse, Purpose, TokenName};
use crate::domain::policy::{Files, Policy};
use crate::hsm::{Expectations, Token, TokenConfig, TokenReport, hardening};
use crate::service::clock::{Before, Clock};
use crate::service::configuration::{self, Configuration};
use crate::service::start::{self, StartFault};

/// What every step but `adoption` has at hand.
pub struct Room {
    /// Of the daemon that will run.
    pub configuration: Configuration,
    purpose: Purpose,
    pin_files: BTreeMap<TokenName, PathBuf>,
    so_pin_files: BTreeMap<TokenName, PathBuf>,
    worker: PathBuf,
}

impl Room {
    /// A PIN file is refused unless this is an exercise.
    pub fn enter(tokens: &Tokens, configuration: Configuration, purpose: Purpose) -> Result<Self, CeremonyError> {
        match purpose {
            Purpose::Live if !tokens.pin_files.is_empty() || !tokens.so_pin_files.is_empty() => {
                return Err(CeremonyError::PinFile(purpose));
            }
            Purpose::Live | Purpose::Exercise => {}
        }
        start::check_clock(purpose, &configuration)?;
        // PINs, and what opens them, come together in this process.
        for warning in hardening::keep_memory() {
            eprintln!("warning: {warning}");
        }
        for (token, _) in tokens.pin_files.iter().chain(&tokens.so_pin_files) {
            if !configuration.tokens.iter().any(|configured| configured.name == *token) {
                return Err(CeremonyError::PinFileUnused(token.clone()));
            }
        }
        let pin_files = tokens.pin_files.iter().cloned().collect();
        let so_pin_files = tokens.so_pin_files.iter().cloned().collect();
        // The module is loaded by smkid's worker only, which lies beside this program.
        let worker = std::env::current_exe()?.with_file_name("smkid");
        if !worker.is_file() {
            return Err(CeremonyError::NoWorker { path: worker });
        }
        Ok(Self { configuration, purpose, pin_files, so_pin_files, worker })
    }

    /// How a token's worker is run.
    pub fn token_config(&self, token: &TokenName) -> Result<TokenConfig, CeremonyError> {
        Ok(start::token_config(&self.configuration, token, Some(self.worker.clone()))?)
    }

    /// The PIN of a token that holds keys of these uses: from a file of an exercise, from the configuration, or from the terminal.
    pub fn pin(&self, token: &TokenName, holds: &[KeyUse]) -> Result<SecretString, CeremonyError> {
        let configured = start::configured(&self.configuration, token)?;
        self.check_pin_source(configured, holds)?;
        if let Some(path) = self.pin_files.get(token) {
            return Ok(start::pin_file(path)?);
        }
        match &configured.pin {
            Some(pin) => Ok(start::stored_pin(pin)?),
            None => ask(token, "PIN"),
        }
    }

    /// The PIN of a token's security officer: from a file of an exercise, or from the terminal.
    pub fn officer_pin(&self, token: &TokenName) -> Result<SecretString, CeremonyError> {
        match self.so_pin_files.get(token) {
            Some(path) => Ok(start::pin_file(path)?),
            None => ask(token, "PIN of the security officer"),
        }
    }

    fn check_pin_source(&self, token: &configuration::Token, holds: &[KeyUse]) -> Result<(), StartFault> {
        start::check_pin_source(self.purpose, token, holds.iter().copied())
    }

    /// Refuses what would be refused later, before anything is done.
    pub fn check_tokens<'a>(
        &self,
        tokens: impl IntoIterator<Item = (&'a TokenName, &'a [KeyUse])>,
    ) -> Result<(), CeremonyError> {
        for (token, holds) in tokens {
            self.check_pin_source(start::configured(&self.configuration, token)?, holds)?;
        }
        Ok(())
    }

    /// Starts a token's worker and logs in.
    pub fn start(
        &self,
        token: &TokenName,
        holds: &[KeyUse],
        expectations: Expectations,
    ) -> Result<(Token, TokenReport), CeremonyError> {
        let pin = self.pin(token, holds)?;
        Ok(start::start_token(self.token_config(token)?, pin, expectations)?)
    }

    /// The clock. `before` is what the ledger says, if there is one yet.
    pub fn clock(&self, before: Option<Before>) -> Arc<Clock> {
        Arc::new(Clock::start(before, self.configuration.clock_offset_ms))
    }

    /// The program that the workers run.
    pub fn worker(&self) -> PathBuf {
        self.worker.clone()
    }
}

/// Asks for a PIN without echo.
fn ask(token: &TokenName, what: &'static str) -> Result<SecretString, CeremonyError> {
    if !io::stdin().is_terminal() {
        return Err(CeremonyError::NoTerminal { token: token.clone(), what });
    }
    let prompt = format!("{what} of token {token}: ");
    let pin = rpassword::prompt_password(prompt)
        .map(zeroize::Zeroizing::new)
        .map_err(|source| CeremonyError::Asking { token: token.clone(), what, source })?;
    Ok(SecretString::from(pin.as_str()))
}

/// The policy in a folder, and its files.
pub fn read_policy(folder: &Path) -> Result<(Policy, Files), CeremonyError> {
    let files = input::policy(folder)?;
    let unfit = |faults| CeremonyError::Policy { folder: folder.to_owned(), faults };
    let policy = Policy::parse(&files).map_err(unfit)?;
    policy.fit_for_new_use().map_err(|fault| unfit(vec![fault]))?;
    Ok((policy, files))
}

/// Whoever conducts the ceremony, by the account that this program runs under.
pub fn conductor() -> Actor {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten();
    let account = user.map_or_else(|| format!("uid-{}", nix::unistd::Uid::effective()), |user| user.name);
    Actor { person: None, account: account.into(), role: Role::Ceremony, channel: Channel::Console }
}

/// Writes a file in the place of the one before, durably or not at all.
pub fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(octets)?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
    }
    written?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the entries of a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}
