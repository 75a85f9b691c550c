//! Shell: the files beside the database. The lock keeps a second daemon away; the ballast is space for stopping in order.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use super::StoreError;

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::File { doing, path: path.into(), source }
}

/// Makes a directory's entries durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync the directory", path))
}

/// The exclusive lock on a state directory. The kernel drops it with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says who has it.
    pub fn take(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("lock");
        // Not truncated before it is ours: the holder's process id stands in it.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open the lock file", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                (&file).take(20).read_to_string(&mut pid).map_err(failed("read the lock file", &path))?;
                return Err(StoreError::Locked { path, pid: pid.trim().into() });
            }
            Err(e) => return Err(failed("lock", &path)(e.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed("write the lock file", &path))?;
        Ok(Self { _file: file })
    }
}

/// A file of no meaning that takes up space until the disk is full.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.join("ballast") }
    }

    /// Makes the file `len` octets long, with blocks of the disk behind each.
    pub(super) fn reserve(&self, len: u64) -> Result<(), StoreError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(failed("create the reserved space", &self.path))?;
        if len == 0 {
            return Ok(());
        }
        match fallocate(&file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // A file system without fallocate: octets do the same, slower.
            Err(rustix::io::Errno::OPNOTSUPP) => std::io::copy(&mut std::io::repeat(0).take(len), &mut &file)
                .map(drop)
                .map_err(failed("reserve space", &self.path)),
            Err(e) => Err(failed("reserve space", &self.path)(e.into())),
        }
    }

    /// Gives the space back. Answers whether there was any.
    pub(super) fn release(&self) -> bool {
        let len = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        len > 0 && std::fs::remove_file(&self.path).is_ok()
    }
}
