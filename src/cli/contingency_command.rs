//! Shell: where a Contingency Symmetric Key comes from when commands are made or verified again: from one of them. No ledger has it.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;

use super::CliError;
use super::gbcs::{message_octets, read_file};
use crate::domain::certificates::apex::WrappedApexKey;
use crate::domain::certificates::signature::PublicKey;
use crate::domain::fold::Blobs;
use crate::domain::gbcs::{MESSAGE_LEN_MAX, SymmetricKey, take_symmetric_key};
use crate::domain::ledger::contingency::ContingencyPrepared;
use crate::domain::ledger::entry::{Genesis, KeyMade, KeyRecord};
use crate::domain::ledger::glance::Glance;
use crate::domain::names::{KeyLabel, KeyUse};

/// Octets of a file with one command: hexadecimal takes two for one, and white space.
const FILE_LEN_MAX: usize = 4 * MESSAGE_LEN_MAX;

/// Taken by what makes or verifies commands of mode 9 from an export.
#[derive(Args, Clone, Debug, Default)]
pub struct ContingencyCommand {
    /// A signed command of mode 9 that was handed over, as octets or hexadecimal: the Contingency Symmetric Key is taken from it, for no ledger
    /// has it, and compared with the field of the Root OCA Certificate that was made for its key. Any one of a generation does; give one of each
    #[arg(long = "contingency-command", value_name = "FILE")]
    commands: Vec<PathBuf>,
}

impl ContingencyCommand {
    /// The keys inside.
    pub(super) fn keys(&self) -> Result<Vec<SymmetricKey>, CliError> {
        let key = |path: &PathBuf| {
            let wrong = |why: &dyn std::fmt::Display| CliError::Unfit(format!("{}: {why}", path.display()));
            let octets = read_file(path, FILE_LEN_MAX)
                .and_then(|octets| message_octets(&octets))
                .map_err(|error| wrong(&error))?;
            take_symmetric_key(&octets).map(|(key, _)| key).map_err(|error| wrong(&error))
        };
        self.commands.iter().map(key).collect()
    }
}

/// The contingency keys of an export, each with what is known to unwrap its public half.
#[derive(Default)]
pub(super) struct Generations {
    given: Vec<SymmetricKey>,
    keys: HashMap<KeyLabel, Generation>,
}

/// One of them.
pub(super) struct Generation {
    record: KeyRecord,
    field: Option<WrappedApexKey>,
    symmetric: Option<SymmetricKey>,
}

impl Generation {
    /// Whether a symmetric key is the one of this generation: it unwraps the field of its Root OCA Certificate to its public half.
    pub(super) fn is_of(&self, key: &SymmetricKey) -> bool {
        let unwrapped = self.field.as_ref().and_then(|field| field.unwrap_with(key).ok());
        unwrapped.is_some_and(|spki| spki == self.record.spki_octets())
    }
}

impl Generations {
    /// With the keys that somebody gave.
    pub(super) fn with(given: Vec<SymmetricKey>) -> Self {
        Self { given, keys: HashMap::new() }
    }

    /// Takes what an entry says of them.
    pub(super) fn entry(&mut self, glance: &Glance<'_>, blobs: &dyn Blobs) -> Result<(), String> {
        let text = |error: serde_json::Error| error.to_string();
        match glance.kind {
            b"genesis" => {
                for record in glance.read::<Genesis>().map_err(text)?.keys {
                    self.key(record);
                }
            }
            b"key-made" => self.key(glance.read::<KeyMade>().map_err(text)?.key),
            b"contingency-prepared" => {
                let prepared: ContingencyPrepared = glance.read().map_err(text)?;
                let octets = blobs.blob(prepared.extension).map_err(|error| error.to_string())?;
                let field = WrappedApexKey::from_der(&octets).map_err(|error| error.to_string())?;
                if let Some(generation) = self.keys.get_mut(&prepared.key) {
                    generation.field = Some(field);
                    generation.symmetric = self.given.iter().find(|key| generation.is_of(key)).cloned();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn key(&mut self, record: KeyRecord) {
        if record.use_ == KeyUse::Contingency {
            self.keys.insert(record.label.clone(), Generation { record, field: None, symmetric: None });
        }
    }

    /// A contingency key; none if the key is of another use.
    pub(super) fn get(&self, key: &KeyLabel) -> Option<&Generation> {
        self.keys.get(key)
    }

    /// The symmetric key of a generation, and the public half of its pair.
    ///
    /// # Errors
    /// Why there is none, and where to get it.
    pub(super) fn symmetric(&self, key: &KeyLabel) -> Result<(&SymmetricKey, PublicKey), String> {
        let unknown = || format!("the export has no contingency key {key}");
        let Generation { record, symmetric, .. } = self.keys.get(key).ok_or_else(unknown)?;
        let public = PublicKey::from_spki(&record.spki_octets()).map_err(|error| error.to_string())?;
        let none = || {
            let given = if self.given.is_empty() {
                "the ledger alone does not make it: no entry and no document has the Contingency Symmetric Key that belongs into it"
            } else {
                "none of the commands given has a symmetric key that unwraps the field made for this key"
            };
            format!(
                "its command is of mode 9, and {given}. Give --contingency-command FILE, with any command of key {key} that was handed over"
            )
        };
        symmetric.as_ref().map(|symmetric| (symmetric, public)).ok_or_else(none)
    }
}
