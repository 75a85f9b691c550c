//! Shell: small files that are replaced in one step and for good: after a power cut there stands the old or the new.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Puts these octets in the place of what the file had. Makes its folder where there is none.
pub fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        // Its name is in the folder above it, and outlives a power cut only with that.
        File::open(folder.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    }
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

/// Takes the file away, if there is one.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the file has; none if there is none.
///
/// # Errors
/// It cannot be read, or is longer than a file of ours.
pub fn read(path: &Path, len_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut octets = Vec::new();
    let len = match File::open(path) {
        Ok(file) => file.take(len_max + 1).read_to_end(&mut octets)? as u64,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if len > len_max {
        return Err(io::Error::other(format!("it has more than {len_max} octets")));
    }
    Ok(Some(octets))
}
