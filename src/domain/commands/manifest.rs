//! Pure. The manifest of a folder of signed commands: what each file holds, by which a folder is checked and a fetch that was cut goes on.
//!
//! While a folder is written its manifest is partial: a line for the folder, then one for each file that is whole, NDJSON. The manifest itself comes last.

use serde::{Deserialize, Serialize};

use super::container::Header;
use crate::domain::names::{DeviceId, Digest};

/// The version that this program writes. It reads [`VERSION_BEFORE`] too.
pub const VERSION: u8 = 2;

/// The version before, which is checked and not gone on with: it does not tell which Devices are awaited, and a command that another request
/// settled may stand at another intent.
pub const VERSION_BEFORE: u8 = 1;

/// The name of a manifest in its folder.
pub const NAME: &str = "manifest.json";

/// The name of a manifest whose folder is not whole yet.
pub const PARTIAL_NAME: &str = "manifest.partial";

/// How commands lie in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Each in a file of its own, `EUI64.bin`.
    Each,
    /// Containers ([`super::container`]).
    Container,
    /// Lines of JSON, as the API answers them, the command in base64.
    Ndjson,
    /// A command a line, in hexadecimal.
    Hex,
}

/// What a folder is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// [`VERSION`], or [`VERSION_BEFORE`].
    pub version: u8,
    /// How commands lie in its files.
    pub format: Format,
    /// Where they are from.
    pub of: Header,
    /// Whether the files have the commands of all intents up to the last, but for those of Devices that are [`File::awaited`]: then a fetch goes on
    /// after the last.
    pub in_order: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name in the folder.
    pub name: Box<str>,
    /// Its length.
    pub octets: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// How many commands it holds.
    pub commands: u64,
    /// The lowest leaf index of their intents.
    pub first_intent: u64,
    /// The highest.
    pub last_intent: u64,
    /// All of them, as half-open ranges in ascending order.
    pub intents: Vec<(u64, u64)>,
    /// Devices whose command was unknown or withheld, and may yet come: told since the file before it was written. A fetch asks for them by name.
    /// In a folder that is whole and in order the last file has all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub awaited: Vec<DeviceId>,
}

/// The checkpoint that covers what the files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Covering {
    /// The size of the ledger.
    pub size: u64,
    /// Its root.
    pub root: Digest,
}

/// The manifest of a folder that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the folder is of.
    pub folder: Folder,
    /// Its files.
    pub files: Vec<File>,
    /// How many commands they hold.
    pub commands: u64,
    /// The checkpoint that covers them.
    pub checkpoint: Covering,
}

/// Leaf indices, in ranges. Made for indices that come in order, nearly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Those of files.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a File>) -> Self {
        let mut ranges: Vec<(u64, u64)> = files.into_iter().flat_map(|file| file.intents.iter().copied()).collect();
        ranges.sort_unstable();
        let mut joined = Self::default();
        for (from, until) in ranges {
            match joined.0.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                Some(_) | None => joined.0.push((from, until)),
            }
        }
        joined
    }

    /// One more, if it is not in yet.
    pub fn insert(&mut self, index: u64) {
        let at = match self.0.last() {
            // The common case: one goes on where the last ended.
            Some(last) if last.1 == index => {
                let end = self.0.len() - 1;
                self.0[end].1 += 1;
                return;
            }
            Some(last) if last.1 < index => self.0.len(),
            Some(_) if self.has(index) => return,
            Some(_) | None => self.0.partition_point(|(from, _)| *from <= index),
        };
        self.0.insert(at, (index, index + 1));
        self.join(at);
    }

    /// Joins the range at this place with its neighbours where they touch.
    fn join(&mut self, at: usize) {
        if self.0.get(at + 1).is_some_and(|next| self.0[at].1 == next.0) {
            self.0[at].1 = self.0.remove(at + 1).1;
        }
        if at > 0 && self.0[at - 1].1 == self.0[at].0 {
            self.0[at - 1].1 = self.0.remove(at).1;
        }
    }

    /// Whether it is in.
    pub fn has(&self, index: u64) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= index);
        after > 0 && index < self.0[after - 1].1
    }

    /// In ascending order.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// The lowest and the highest.
    pub fn ends(&self) -> Option<(u64, u64)> {
        Some((self.0.first()?.0, self.0.last()?.1 - 1))
    }
}

/// Why a manifest is none, or is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of this form.
    #[error("line {line}: not a manifest of this version: {reason}")]
    Form {
        /// Counted from 1.
        line: usize,
        /// What the reader said.
        reason: String,
    },
    /// Another version.
    #[error("it has version {found}; this program reads versions {VERSION_BEFORE} and {VERSION}")]
    Version {
        /// What stands there.
        found: u8,
    },
    /// A name that leads elsewhere, or a file that holds nothing.
    #[error("file {name:?}: {reason}")]
    File {
        /// The file.
        name: Box<str>,
        /// What is wrong.
        reason: &'static str,
    },
    /// Files share intents.
    #[error("{twice} of its commands lie in more than one file: remove the folder, and fetch into another")]
    Twice {
        /// How many.
        twice: u64,
    },
    /// The sum of the files is another.
    #[error("its files hold {found} commands, it says {expected}")]
    Count {
        /// The manifest's.
        expected: u64,
        /// Of the files.
        found: u64,
    },
}

impl Manifest {
    /// Reads one, and checks what can be checked without the files.
    pub fn parse(octets: &[u8]) -> Result<Self, ManifestError> {
        let this: Self = serde_json::from_slice(octets)
            .map_err(|error| ManifestError::Form { line: error.line(), reason: error.to_string() })?;
        check_version(&this.folder)?;
        this.files.iter().try_for_each(check_file)?;
        let found = this.files.iter().fold(0_u64, |all, file| all.saturating_add(file.commands));
        let places = Ranges::of(&this.files).ranges().iter().fold(0_u64, |all, (from, until)| all + (until - from));
        if places != found {
            return Err(ManifestError::Twice { twice: found - places });
        }
        if found == this.commands { Ok(this) } else { Err(ManifestError::Count { expected: this.commands, found }) }
    }

    /// How many Devices had no command yet, if that is known: a folder that is not in order is asked for whole.
    pub fn awaited(&self) -> usize {
        if self.folder.in_order { self.files.iter().map(|file| file.awaited.len()).sum() } else { 0 }
    }
}

/// Reads a partial manifest: what the folder is of, and the files that are whole. A last line without its end was being written, and counts
/// for nothing. None if not even the first line is whole.
pub fn parse_partial(octets: &[u8]) -> Result<Option<(Folder, Vec<File>)>, ManifestError> {
    let whole = octets.iter().rposition(|octet| *octet == b'\n').map_or(&[][..], |end| &octets[..end]);
    if whole.is_empty() {
        return Ok(None);
    }
    let form = |line: usize, error: serde_json::Error| ManifestError::Form { line, reason: error.to_string() };
    let mut lines = whole.split(|octet| *octet == b'\n').enumerate();
    let Some((_, first)) = lines.next() else { return Ok(None) };
    let folder: Folder = serde_json::from_slice(first).map_err(|error| form(1, error))?;
    check_version(&folder)?;
    let mut files = Vec::new();
    for (at, line) in lines {
        let file: File = serde_json::from_slice(line).map_err(|error| form(at + 1, error))?;
        check_file(&file)?;
        files.push(file);
    }
    Ok(Some((folder, files)))
}

fn check_version(folder: &Folder) -> Result<(), ManifestError> {
    if [VERSION, VERSION_BEFORE].contains(&folder.version) {
        Ok(())
    } else {
        Err(ManifestError::Version { found: folder.version })
    }
}

fn check_file(file: &File) -> Result<(), ManifestError> {
    let wrong = |reason| Err(ManifestError::File { name: file.name.clone(), reason });
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if file.name.is_empty() || file.name.starts_with('.') || !file.name.chars().all(is_plain) {
        return wrong("expected a name in the folder, of letters, digits, `-`, `_` and `.`");
    }
    let (mut before, mut count) = (0, 0);
    for (from, until) in &file.intents {
        if *from < before || until <= from {
            return wrong("expected ranges of intents in ascending order");
        }
        (before, count) = (*until, count + (until - from));
    }
    let ends = file.intents.first().zip(file.intents.last()).map(|(first, last)| (first.0, last.1 - 1));
    if ends != Some((file.first_intent, file.last_intent)) || count != file.commands {
        return wrong("its ranges of intents are not those of its first, its last and its number of commands");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
