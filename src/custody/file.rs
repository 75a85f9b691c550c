//! Shell: the custody file of one generation of a key's shares, `custody/KEY.GENERATION.json` in the state directory: the sealed PINs, and
//! what is public of the share set. Its SHA-256 stands in the ledger; it does not, so that an export gives old shares nothing to open.
//!
//! Read strictly: a field that is not known, or a digest that is not the ledger's, and it is not used. Written in one step and for good.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::scheme::{Commitments, SchemeError, SealingSecret};
use super::sealing::{self, SealingError};
use crate::domain::ledger::custody::{Holder, SharesDealt};
use crate::domain::ledger::entry::TokenFound;
use crate::domain::names::{Digest, KeyLabel, Origin, TokenName};

/// Where in the state the custody files lie.
const FOLDER: &str = "custody";
/// The version of the form.
const VERSION: u32 = 1;
/// The longest file of ours: a hundred shares and a hundred tokens have half of it.
pub const FILE_LEN_MAX: u64 = 256 * 1024;

/// One generation of a key's shares, and the PINs that they open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodyFile {
    version: u32,
    /// The ledger.
    pub origin: Origin,
    /// The key whose tokens these are.
    pub key: KeyLabel,
    /// From 1; a re-share makes the next.
    pub generation: u32,
    /// How many shares open it.
    pub threshold: u32,
    /// The commitments: compressed points of P-256 in hexadecimal, `threshold` of them.
    pub commitments: Vec<Box<str>>,
    /// Who holds which share.
    pub holders: Vec<Holder>,
    /// The tokens and their PINs.
    pub tokens: Vec<SealedPin>,
}

/// A token's PIN, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedPin {
    /// The token, as policy and configuration call it.
    pub token: TokenName,
    /// Its serial number.
    pub serial: Box<str>,
    /// The PIN under the sealing secret ([`sealing`]), in base64.
    pub pin: Box<str>,
}

/// Why a custody file is not used, or not written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{}: cannot be {what}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It is not there.
    #[error(
        "{}: the custody file with SHA-256 {expected}, which the ledger names, is not there, and without it no share opens anything. Put back the \
         copy of a backup, or of a custodian; it belongs to the account of smkid, mode 0600",
        path.display()
    )]
    Absent {
        /// Where.
        path: PathBuf,
        /// By the ledger.
        expected: Digest,
    },
    /// It is not of the form.
    #[error("{}: expected a custody file, found {found}. Put the copy of a custodian in its place", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// What.
        found: String,
    },
    /// It is not the one that the ledger names.
    #[error(
        "{}: expected the file with SHA-256 {expected}, which the ledger names, found {found}. Put the copy of a custodian in its place",
        path.display()
    )]
    Digest {
        /// Which.
        path: PathBuf,
        /// By the ledger.
        expected: Digest,
        /// What lies there.
        found: Digest,
    },
    /// A token that was not there when it was dealt.
    #[error(
        "the shares of key {key}, generation {generation}, were dealt without token {token} with serial number {serial}: deal anew \
         (`smkictl ceremony deal --key {key}`), with the key locked"
    )]
    Token {
        /// The key.
        key: KeyLabel,
        /// The generation.
        generation: u32,
        /// The token.
        token: TokenName,
        /// Its serial number.
        serial: Box<str>,
    },
    /// Its commitments.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// A PIN.
    #[error("token {token}: {source}")]
    Pin {
        /// Whose.
        token: TokenName,
        /// What is wrong.
        source: SealingError,
    },
}

/// What a custody file is made of, but for the PINs.
pub struct Set<'a> {
    /// The ledger.
    pub origin: Origin,
    /// The key.
    pub key: KeyLabel,
    /// From 1.
    pub generation: u32,
    /// The commitments.
    pub commitments: &'a Commitments,
    /// Who holds which share.
    pub holders: Vec<Holder>,
}

impl CustodyFile {
    /// Seals the PINs of a key's tokens under a new secret.
    pub fn seal(set: Set<'_>, secret: &SealingSecret, pins: &[(TokenFound, SecretString)]) -> Result<Self, FileError> {
        let Set { origin, key, generation, commitments, holders } = set;
        let seal = |(found, pin): &(TokenFound, SecretString)| {
            let TokenFound { token, serial } = found.clone();
            let of = sealing::Of { origin: &origin, key: &key, generation, token: &token, serial: &serial };
            match sealing::seal(secret, of, pin) {
                Ok(sealed) => Ok(SealedPin { token, serial, pin: STANDARD.encode(sealed).into() }),
                Err(source) => Err(FileError::Pin { token, source }),
            }
        };
        let tokens = pins.iter().map(seal).collect::<Result<_, _>>()?;
        Ok(Self {
            version: VERSION,
            threshold: u32::try_from(commitments.threshold()).expect("at most a hundred"),
            commitments: commitments.octets().iter().map(|octets| hex::encode(octets).into()).collect(),
            origin,
            key,
            generation,
            holders,
            tokens,
        })
    }

    /// Opens a token's PIN.
    pub fn pin(&self, secret: &SealingSecret, sealed: &SealedPin) -> Result<SecretString, FileError> {
        let SealedPin { token, serial, pin } = sealed;
        let Self { origin, key, generation, .. } = self;
        let closed = |source| FileError::Pin { token: token.clone(), source };
        let octets = STANDARD.decode(pin.as_bytes()).map_err(|_| closed(SealingError::Closed))?;
        let of = sealing::Of { origin, key, generation: *generation, token, serial };
        sealing::open(secret, of, &octets).map_err(closed)
    }

    /// The sealed PIN of a token.
    ///
    /// # Errors
    /// [`FileError::Token`].
    pub fn token(&self, token: &TokenName, serial: &str) -> Result<&SealedPin, FileError> {
        let found = self.tokens.iter().find(|sealed| sealed.token == *token && *sealed.serial == *serial);
        found.ok_or_else(|| FileError::Token {
            key: self.key.clone(),
            generation: self.generation,
            token: token.clone(),
            serial: serial.into(),
        })
    }

    /// The commitments, k of them.
    pub fn commitments(&self) -> Result<Commitments, SchemeError> {
        let commitments = Commitments::read_hex(&self.commitments)?;
        let threshold = usize::try_from(self.threshold).unwrap_or(usize::MAX);
        if commitments.threshold() != threshold {
            return Err(SchemeError::Numbers { threshold, count: commitments.threshold() });
        }
        Ok(commitments)
    }

    /// What the ledger says of it, but for what is not in it: tokens that were left, and what the generation before says.
    pub fn dealt(&self) -> SharesDealt {
        let token = |sealed: &SealedPin| TokenFound { token: sealed.token.clone(), serial: sealed.serial.clone() };
        SharesDealt {
            key: self.key.clone(),
            generation: self.generation,
            threshold: self.threshold,
            commitments: self.commitments.clone(),
            holders: self.holders.clone(),
            tokens: self.tokens.iter().map(token).collect(),
            sealed: self.digest(),
            left: Vec::new(),
            by: Vec::new(),
            former: None,
        }
    }

    /// Whether this is the custody file of what the ledger says, or is to say.
    pub fn is_of(&self, dealt: &SharesDealt) -> bool {
        let SharesDealt { left, by, former, .. } = dealt.clone();
        SharesDealt { left, by, former, ..self.dealt() } == *dealt
    }

    /// As it lies in the file.
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = serde_json::to_vec_pretty(self).expect("names and texts");
        octets.push(b'\n');
        octets
    }

    /// The SHA-256 of the file.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.octets())
    }

    /// Reads octets of the form, in this one way of writing it.
    ///
    /// # Errors
    /// In words, what is wrong.
    pub fn from_octets(octets: &[u8]) -> Result<Self, String> {
        let file: Self = serde_json::from_slice(octets).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("version {}; this program knows {VERSION}", file.version));
        }
        if file.octets() != octets {
            return Err("other white space or order than it is written in".to_owned());
        }
        file.commitments().map_err(|error| error.to_string())?;
        Ok(file)
    }

    /// Where the file of a generation lies.
    pub fn path(state: &Path, key: &KeyLabel, generation: u32) -> PathBuf {
        state.join(FOLDER).join(format!("{key}.{generation}.json"))
    }

    /// Reads the file of a generation; `None` if there is none.
    pub fn find(state: &Path, key: &KeyLabel, generation: u32) -> Result<Option<Self>, FileError> {
        let path = Self::path(state, key, generation);
        let failed = |source| FileError::Io { path: path.clone(), what: "read", source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut octets = Vec::new();
        file.take(FILE_LEN_MAX + 1).read_to_end(&mut octets).map_err(failed)?;
        let form = |found| FileError::Form { path: path.clone(), found };
        if octets.len() as u64 > FILE_LEN_MAX {
            return Err(form(format!("more than {FILE_LEN_MAX} octets")));
        }
        let file = Self::from_octets(&octets).map_err(form)?;
        if file.key != *key || file.generation != generation {
            return Err(form(format!("that of key {}, generation {}", file.key, file.generation)));
        }
        Ok(Some(file))
    }

    /// Reads the file that the ledger names.
    pub fn read(state: &Path, dealt: &SharesDealt) -> Result<Self, FileError> {
        let path = Self::path(state, &dealt.key, dealt.generation);
        let Some(file) = Self::find(state, &dealt.key, dealt.generation)? else {
            return Err(FileError::Absent { path, expected: dealt.sealed });
        };
        let found = file.digest();
        if found != dealt.sealed {
            return Err(FileError::Digest { path, expected: dealt.sealed, found });
        }
        Ok(file)
    }

    /// Writes it where there is none yet, or the same.
    ///
    /// # Errors
    /// [`FileError::Digest`] if another lies there.
    pub fn write_once(&self, state: &Path) -> Result<(), FileError> {
        match Self::find(state, &self.key, self.generation)? {
            Some(found) if found == *self => Ok(()),
            Some(found) => Err(FileError::Digest {
                path: Self::path(state, &self.key, self.generation),
                expected: self.digest(),
                found: found.digest(),
            }),
            None => self.write(state).map(drop),
        }
    }

    /// Writes it, in one step and for good. One that lies there in its place must have been found void.
    pub fn write(&self, state: &Path) -> Result<PathBuf, FileError> {
        let path = Self::path(state, &self.key, self.generation);
        write(&path, &self.octets()).map_err(|source| FileError::Io { path: path.clone(), what: "written", source })?;
        Ok(path)
    }
}

/// Which tokens may have their PINs of a generation already, beside its custody file until the ledger has it: `KEY.GENERATION.changing`. Each
/// is written down before it is changed, so that after a crash it is known of which tokens nobody can tell. It is no proof of anything: that a
/// token has its new PIN is seen by logging in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changing {
    /// SHA-256 of the custody file.
    sealed: Digest,
    /// Tokens that may have been changed.
    pub begun: Vec<TokenName>,
}

impl Changing {
    /// What lies beside the custody file that the ledger names; nothing was begun where nothing of it does.
    pub fn read(state: &Path, dealt: &SharesDealt) -> Result<Self, FileError> {
        let path = Self::path(state, dealt);
        let nothing = Self { sealed: dealt.sealed, begun: Vec::new() };
        match fs::read(&path) {
            Ok(octets) => match serde_json::from_slice::<Self>(&octets) {
                Ok(found) if found.sealed == dealt.sealed => Ok(found),
                Ok(_) => Ok(nothing),
                // Whoever wrote it, a token may be either: each is looked at.
                Err(_) => Ok(Self::of_all(dealt)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(nothing),
            Err(source) => Err(FileError::Io { path, what: "read", source }),
        }
    }

    /// That any of the tokens may have been changed.
    pub fn of_all(dealt: &SharesDealt) -> Self {
        Self { sealed: dealt.sealed, begun: dealt.tokens.iter().map(|found| found.token.clone()).collect() }
    }

    /// Whether anything lies there.
    pub fn exists(state: &Path, dealt: &SharesDealt) -> bool {
        Self::path(state, dealt).exists()
    }

    /// Keeps it, for good.
    pub fn write(&self, state: &Path, dealt: &SharesDealt) -> Result<(), FileError> {
        let path = Self::path(state, dealt);
        let octets = serde_json::to_vec(self).expect("names");
        write(&path, &octets).map_err(|source| FileError::Io { path, what: "written", source })
    }

    /// The ledger has the generation: nothing is left to be told.
    pub fn remove(state: &Path, dealt: &SharesDealt) -> Result<(), FileError> {
        let path = Self::path(state, dealt);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::Io { path, what: "removed", source: error })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(state: &Path, dealt: &SharesDealt) -> PathBuf {
        CustodyFile::path(state, &dealt.key, dealt.generation).with_extension("changing")
    }
}

/// Writes a file of the custody folder, which only its owner reads; makes the folder where there is none. Both belong to whom the state
/// directory belongs, also where root writes them: the daemon reads them.
fn write(path: &Path, octets: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let state = folder.parent().unwrap_or(Path::new("."));
    if !folder.is_dir() {
        DirBuilder::new().mode(0o700).create(folder)?;
        give_to_owner_of(state, &File::open(folder)?)?;
        File::open(state)?.sync_all()?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    give_to_owner_of(state, &file)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

fn give_to_owner_of(state: &Path, file: &File) -> io::Result<()> {
    let (owner, found) = (fs::metadata(state)?, file.metadata()?);
    if (owner.uid(), owner.gid()) == (found.uid(), found.gid()) || !nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

#[cfg(test)]
mod tests;
