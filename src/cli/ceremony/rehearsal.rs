//! `ceremony run --dry-run`: the same ceremony on scratch tokens. Nothing else differs: steps, questions, minutes, interruptions.
//!
//! The tokens are SoftHSM's, in a folder beside the plan's `out`, which stays until the rehearsal is over, so that it too can be
//! interrupted and gone on with. At the end it is destroyed, tokens and PINs and all; journal and minutes stay in `out`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::CeremonyError;
use super::conduct::steps;
use super::journal::JOURNAL;
use super::keys::{holdings, make_folder};
use super::room;
use crate::domain::names::{Purpose, TokenName};
use crate::domain::policy::Policy;
use crate::exercise::softhsm::{CONFIGURATION_VARIABLE, SoftHsm};
use crate::service::configuration::Configuration;

/// The end of the name of the scratch folder: `OUT.rehearsal`.
const SUFFIX: &str = ".rehearsal";
/// In it, what stands for the plan's `out`.
const OUT: &str = "out";
/// What says that the scratch folder is whole.
const CONFIGURATION: &str = "smkid.toml";

/// A rehearsal that goes on.
pub struct Rehearsal {
    folder: PathBuf,
    tokens: Vec<TokenName>,
}

impl Rehearsal {
    /// Makes scratch tokens for those of the policy, or finds those of a rehearsal that was interrupted.
    pub fn enter(out: &Path, policy: &Policy, configuration: &Configuration) -> Result<Self, CeremonyError> {
        let folder = std::path::absolute(scratch(out))?;
        let tokens: Vec<TokenName> = configuration.tokens.iter().map(|token| token.name.clone()).collect();
        let rehearsal = Self { folder, tokens };
        if rehearsal.configuration().is_file() {
            return Ok(rehearsal);
        }
        if rehearsal.folder.exists() {
            // Cut off while it was made: nothing was done with it yet.
            fs::remove_dir_all(&rehearsal.folder)?;
        }
        crate::exercise::layout::create_private(&rehearsal.folder).map_err(rehearsal_fault)?;
        let softhsm = SoftHsm::prepare(&rehearsal.folder).map_err(rehearsal_fault)?;
        let held = holdings(policy);
        let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
        let mut text = format!("version = 1\nstate = {}\n", quoted(&rehearsal.folder.join("state")));
        for token in &configuration.tokens {
            let scratch =
                softhsm.make_token_with_officer(&format!("rehearsal {}", token.name)).map_err(rehearsal_fault)?;
            let guarded = held
                .get(&token.name)
                .is_none_or(|uses| uses.iter().any(|use_| *use_ != crate::domain::names::KeyUse::Ledger));
            fs::rename(&scratch.pin_file, rehearsal.pin_file(&token.name))?;
            if let Some(so_pin_file) = &scratch.so_pin_file {
                fs::rename(so_pin_file, rehearsal.so_pin_file(&token.name))?;
            }
            // As in earnest, what a live Recovery key lies behind is asked for; the rehearsal tells it to whoever is to type it.
            let pin = match (policy.purpose(), guarded, &token.pin) {
                (Purpose::Exercise, _, Some(_)) | (Purpose::Live, false, Some(_)) => {
                    format!("pin = {{ file = {} }}\n", quoted(&rehearsal.pin_file(&token.name)))
                }
                _ => String::new(),
            };
            let _ = write!(
                text,
                "\n[[token]]\nname = \"{}\"\nmodule = {}\nlabel = \"{}\"\nserial = \"{}\"\ndeadline_ms = {}\n{pin}environment = {{ \
                 {CONFIGURATION_VARIABLE} = {} }}\n",
                token.name,
                quoted(softhsm.module()),
                scratch.label,
                scratch.serial,
                token.deadline_ms,
                quoted(softhsm.configuration()),
            );
        }
        let _ = write!(text, "\n[ledger]\ntoken = \"{}\"\n", configuration.ledger.token);
        if configuration.clock_offset_ms != 0 {
            let _ = write!(text, "\n[exercise]\nclock_offset_ms = {}\n", configuration.clock_offset_ms);
        }
        room::replace(&rehearsal.configuration(), text.as_bytes())?;
        Ok(rehearsal)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// In place of the plan's `out`.
    pub fn out(&self) -> PathBuf {
        self.folder.join(OUT)
    }

    /// In place of a plan's `out`, whether there is a rehearsal or not.
    pub fn out_beside(out: &Path) -> PathBuf {
        scratch(out).join(OUT)
    }

    /// In place of the plan's configuration.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join(CONFIGURATION)
    }

    fn pin_file(&self, token: &TokenName) -> PathBuf {
        self.folder.join(format!("{token}.pin"))
    }

    fn so_pin_file(&self, token: &TokenName) -> PathBuf {
        self.folder.join(format!("{token}.so-pin"))
    }

    /// The PIN of each scratch token's security officer.
    pub fn so_pin_files(&self) -> Vec<(TokenName, PathBuf)> {
        self.tokens.iter().map(|token| (token.clone(), self.so_pin_file(token))).collect()
    }

    /// The PIN of each scratch token.
    pub fn pin_files(&self) -> Vec<(TokenName, PathBuf)> {
        self.tokens.iter().map(|token| (token.clone(), self.pin_file(token))).collect()
    }

    /// Says the PINs of the scratch tokens to whoever is to type them.
    pub fn tell_pins(&self) -> Result<(), CeremonyError> {
        let mut stderr = std::io::stderr().lock();
        for token in &self.tokens {
            let pin = fs::read_to_string(self.pin_file(token))?;
            let so_pin = fs::read_to_string(self.so_pin_file(token))?;
            writeln!(
                stderr,
                "  scratch token {token}: its PIN for this rehearsal is {}, its security officer's {}",
                pin.trim(),
                so_pin.trim()
            )?;
        }
        Ok(())
    }

    /// Destroys tokens, PINs and scratch ledger. Journal and minutes were written elsewhere, or are moved there.
    pub fn destroy(self, out: &Path) -> Result<(), CeremonyError> {
        make_folder(out)?;
        // The document is the same in earnest, and so are the signatures over it.
        for signature in steps::signatures(&self.out())? {
            fs::copy(&signature, out.join(signature.file_name().unwrap_or_default()))?;
        }
        let journal = self.out().join(JOURNAL);
        if journal.is_file() {
            fs::copy(&journal, out.join(format!("rehearsal.{JOURNAL}")))?;
        }
        fs::remove_dir_all(&self.folder)?;
        Ok(room::sync_folder(out)?)
    }
}

/// The scratch folder beside a plan's `out`.
fn scratch(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(SUFFIX);
    out.with_file_name(name)
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn rehearsal_fault(error: impl ToString) -> CeremonyError {
    CeremonyError::Rehearsal(error.to_string())
}
