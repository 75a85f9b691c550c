//! Shell: what an exercise leaves behind, in a layout that scripts rely on. It is documented in `src/docs/exercise.md`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::domain::names::DeviceId;

/// How many commands, and how many responses and Device Certificates, are written as files of their own. Those of the first
/// Devices by EUI-64: more files than that in one folder help nobody.
pub const FILES_MAX: usize = 10_000;

/// Why something could not be left behind.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The folder is in use.
    #[error("{}: expected a new or empty folder, found one with files in it; name another, or remove it", .0.display())]
    NotEmpty(PathBuf),
    /// The disk.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl LayoutError {
    /// For `map_err`.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

/// The folder `--out`.
pub struct Layout {
    root: PathBuf,
}

/// The folders in it, for each reader one.
const FOLDERS: [&str; 10] = [
    "commands",
    "responses",
    "certificates",
    "certificates/before",
    "certificates/devices",
    "keys",
    "determination",
    "documents",
    "pre-commands",
    "policy",
];

impl Layout {
    /// Takes a folder, new or empty, and makes those within it.
    pub fn create(root: &Path) -> Result<Self, LayoutError> {
        fs::create_dir_all(root).map_err(LayoutError::at(root))?;
        if fs::read_dir(root).map_err(LayoutError::at(root))?.next().is_some() {
            return Err(LayoutError::NotEmpty(root.to_owned()));
        }
        let root = root.canonicalize().map_err(LayoutError::at(root))?;
        for folder in FOLDERS {
            let path = root.join(folder);
            fs::create_dir(&path).map_err(LayoutError::at(&path))?;
        }
        Ok(Self { root })
    }

    /// A path within.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a new file; its folders are made if they are missing.
    pub fn write(&self, name: &str, octets: impl AsRef<[u8]>) -> Result<PathBuf, LayoutError> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(LayoutError::at(folder))?;
        }
        let mut file = File::create_new(&path).map_err(LayoutError::at(&path))?;
        file.write_all(octets.as_ref()).map_err(LayoutError::at(&path))?;
        Ok(path)
    }

    /// Writes what belongs to one Device: `FOLDER/EUI64.ENDING`.
    pub fn write_for(&self, folder: &str, device: DeviceId, ending: &str, octets: &[u8]) -> Result<(), LayoutError> {
        self.write(&format!("{folder}/{device}.{ending}"), octets).map(drop)
    }
}

/// Writes a file that only its owner may read.
pub fn write_secret(path: &Path, octets: &[u8]) -> Result<(), LayoutError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(LayoutError::at(path))?;
    file.write_all(octets).map_err(LayoutError::at(path))
}

/// Makes a folder that only its owner may enter.
pub fn create_private(path: &Path) -> Result<(), LayoutError> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(LayoutError::at(path))
}

#[cfg(test)]
mod tests;
