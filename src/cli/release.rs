//! Shell: signed commands into files, one per Device, whole or not at all, and never over something else.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::CliError;
use super::input::{self, InputError};
use crate::domain::names::DeviceId;

/// A folder that commands are put into.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder if it is not there. Its parent must be.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(source) => return Err(InputError::Unreadable { path: path.to_owned(), source }.into()),
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Puts a command into `EUI64.bin`. The same command once more changes nothing: a request may be repeated.
    pub fn put(&self, device: DeviceId, command: &[u8]) -> Result<(), CliError> {
        write_new(&self.path.join(format!("{device}.bin")), command)
    }

    /// Returns once everything that was put is on the disk.
    pub fn finish(self) -> Result<(), CliError> {
        let folder = File::open(&self.path)?;
        rustix::fs::syncfs(&folder).map_err(io::Error::from)?;
        Ok(())
    }
}

/// Writes a file that does not exist yet, under another name first. One with the same contents is left as it is.
pub fn write_new(path: &Path, octets: &[u8]) -> Result<(), CliError> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let written =
        File::create(&new).and_then(|mut file| file.write_all(octets)).and_then(|()| put_in_place(&new, path));
    match written {
        Ok(()) => Ok(()),
        Err(error) => {
            // The first error is the one to tell.
            let _ = fs::remove_file(&new);
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error.into());
            }
            if input::file(path, octets.len() as u64).is_ok_and(|found| found == octets) {
                Ok(())
            } else {
                Err(InputError::Exists { path: path.to_owned() }.into())
            }
        }
    }
}

/// Renames without replacing. Some file systems cannot (NFS); a hard link is refused alike where something is.
pub fn put_in_place(new: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(new, path)?;
            fs::remove_file(new)
        }
        other => other.map_err(io::Error::from),
    }
}

#[cfg(test)]
mod tests;
