//! Shell: uploads on their way into the store. They lie in a directory of their own, so that a large upload never holds up
//! the writer, and nobody can fill the ledger's disk: each account has a quota, all of them together a budget.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{Context, SHA256};

use crate::domain::names::Digest;
use crate::domain::time::Timestamp;

/// What an upload costs its account besides its octets: a file takes a block on the disk, and an inode, however short it is.
pub const UPLOAD_COST: u64 = 4_096;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagingLimits {
    /// Octets that one account may have waiting.
    pub account_len_max: u64,
    /// Octets that may wait in all.
    pub total_len_max: u64,
}

/// Why an upload is not taken.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The account has too much waiting.
    #[error(
        "account {account}: at most {len_max} octets may wait to be recorded; have what is uploaded recorded, or wait until it expires"
    )]
    AccountQuota {
        /// The account.
        account: Box<str>,
        /// The quota in octets.
        len_max: u64,
    },
    /// All accounts together have too much waiting.
    #[error(
        "at most {len_max} octets of uploads may wait in all; have what is uploaded recorded, or wait until it expires"
    )]
    Budget {
        /// The budget in octets.
        len_max: u64,
    },
    /// This upload is too long in itself.
    #[error("upload: expected at most {len_max} octets, found more")]
    TooLong {
        /// The limit that the caller set.
        len_max: u64,
    },
    /// The file system.
    #[error("{}: cannot {doing}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Whoever uploads stopped.
    #[error("upload: cannot be read: {0}")]
    Source(std::io::Error),
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StagingError {
    move |source| StagingError::File { doing, path: path.into(), source }
}

#[derive(Debug)]
struct Staged {
    /// What is charged for it in octets: its length and [`UPLOAD_COST`].
    charged: u64,
    len: u64,
    account: Box<str>,
    at: Timestamp,
    /// An entry is about to adopt it, so it does not expire.
    claimed: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    blobs: HashMap<Digest, Staged>,
    /// Octets by account, those of uploads in progress included.
    accounts: HashMap<Box<str>, u64>,
    total: u64,
    /// Numbers the files of uploads in progress.
    uploads: u64,
}

impl Waiting {
    fn charge(&mut self, account: &str, len: u64, limits: &StagingLimits) -> Result<(), StagingError> {
        let used = self.accounts.get(account).copied().unwrap_or(0);
        if used.saturating_add(len) > limits.account_len_max {
            return Err(StagingError::AccountQuota { account: account.into(), len_max: limits.account_len_max });
        }
        if self.total.saturating_add(len) > limits.total_len_max {
            return Err(StagingError::Budget { len_max: limits.total_len_max });
        }
        *self.accounts.entry(account.into()).or_default() += len;
        self.total += len;
        Ok(())
    }

    fn refund(&mut self, account: &str, len: u64) {
        self.total -= len;
        if let Some(used) = self.accounts.get_mut(account) {
            *used -= len;
            if *used == 0 {
                self.accounts.remove(account);
            }
        }
    }
}

/// The uploads that wait to be adopted by an entry. What is not adopted is gone after a restart.
#[derive(Debug)]
pub struct Staging {
    directory: PathBuf,
    limits: StagingLimits,
    waiting: Mutex<Waiting>,
    writing: Mutex<()>,
}

impl Staging {
    /// Opens the directory, making it if need be, and drops everything in it.
    pub(super) fn open(directory: &Path, limits: StagingLimits) -> Result<Self, StagingError> {
        match std::fs::remove_dir_all(directory) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed("empty", directory)(e)),
            Ok(()) | Err(_) => {}
        }
        std::fs::create_dir(directory).map_err(failed("create", directory))?;
        Ok(Self { directory: directory.into(), limits, waiting: Mutex::default(), writing: Mutex::default() })
    }

    /// The turn of whoever writes to the database: the store with an entry, or an upload on its way there. Each waits for the other's
    /// transaction and no longer, where SQLite would look for its turn seldom, and in the end give up.
    pub(super) fn turn_to_write(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change under the lock is complete or not begun when anything can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    /// Begins an upload of at most `len_max` octets on an account, at a time from which it may expire.
    pub fn begin(self: &Arc<Self>, account: &str, at: Timestamp, len_max: u64) -> Result<Upload, StagingError> {
        let number = {
            let mut waiting = self.waiting();
            waiting.charge(account, UPLOAD_COST, &self.limits)?;
            waiting.uploads += 1;
            waiting.uploads
        };
        let path = self.directory.join(format!("upload-{number}"));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| {
            self.waiting().refund(account, UPLOAD_COST);
            failed("create", &path)(error)
        })?;
        let staged = Staged { charged: UPLOAD_COST, len: 0, account: account.into(), at, claimed: false };
        Ok(Upload {
            staging: Arc::clone(self),
            file,
            path,
            context: Context::new(&SHA256),
            staged: Some(staged),
            len_max,
        })
    }

    /// Takes a whole upload from a reader, a piece at a time. Answers its SHA-256 and its length in octets.
    pub fn stage(
        self: &Arc<Self>,
        account: &str,
        at: Timestamp,
        len_max: u64,
        octets: &mut dyn Read,
    ) -> Result<(Digest, u64), StagingError> {
        let mut upload = self.begin(account, at, len_max)?;
        let mut piece = vec![0; 64 * 1024];
        loop {
            match octets.read(&mut piece) {
                Ok(0) => return upload.finish(),
                Ok(len) => upload.write(&piece[..len])?,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(StagingError::Source(e)),
            }
        }
    }

    /// The length in octets of an upload that waits.
    pub fn len(&self, digest: Digest) -> Option<u64> {
        self.waiting().blobs.get(&digest).map(|staged| staged.len)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting().blobs.is_empty()
    }

    /// Reads an upload that waits; `None` if there is none with this SHA-256.
    pub fn open_staged(&self, digest: Digest) -> Result<Option<File>, StagingError> {
        // Under the lock, so that it does not expire between the question and the opening.
        let waiting = self.waiting();
        if !waiting.blobs.contains_key(&digest) {
            return Ok(None);
        }
        let path = self.path(digest);
        File::open(&path).map(Some).map_err(failed("open", &path))
    }

    /// Drops the uploads that were begun before this moment. Answers how many.
    pub fn expire(&self, before: Timestamp) -> usize {
        let is_late = |staged: &Staged| staged.at < before && !staged.claimed;
        let late: Vec<Digest> =
            self.waiting().blobs.iter().filter(|(_, staged)| is_late(staged)).map(|(digest, _)| *digest).collect();
        self.drop_all(&late, is_late);
        late.len()
    }

    /// Keeps an upload from expiring, because an entry is about to adopt it; false if it does not wait (any more).
    #[must_use]
    pub fn claim(&self, digest: Digest) -> bool {
        match self.waiting().blobs.get_mut(&digest) {
            Some(staged) => {
                staged.claimed = true;
                true
            }
            None => false,
        }
    }

    /// Drops these uploads, because an entry adopted them.
    pub(super) fn forget(&self, digests: &[Digest]) {
        self.drop_all(digests, |_| true);
    }

    /// Drops these uploads, because what was in them is recorded in another form. One that is claimed stays.
    pub fn discard(&self, digests: &[Digest]) {
        self.drop_all(digests, |staged| !staged.claimed);
    }

    fn drop_all(&self, digests: &[Digest], is_meant: impl Fn(&Staged) -> bool) {
        let mut waiting = self.waiting();
        for digest in digests {
            if waiting.blobs.get(digest).is_some_and(&is_meant)
                && let Some(staged) = waiting.blobs.remove(digest)
            {
                waiting.refund(&staged.account, staged.charged);
                // A file that cannot be removed is removed at the next start; nothing refers to it.
                let _ = std::fs::remove_file(self.path(*digest));
            }
        }
    }
}

/// An upload in progress. Dropped unfinished, it leaves nothing.
pub struct Upload {
    staging: Arc<Staging>,
    file: File,
    path: PathBuf,
    context: Context,
    /// What has been charged; `None` once the upload is finished.
    staged: Option<Staged>,
    len_max: u64,
}

impl Upload {
    /// Appends a piece.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StagingError> {
        let staged = self.staged.as_mut().expect("only finish takes it, and consumes the upload");
        let len = piece.len() as u64;
        if staged.len + len > self.len_max {
            return Err(StagingError::TooLong { len_max: self.len_max });
        }
        self.staging.waiting().charge(&staged.account, len, &self.staging.limits)?;
        staged.len += len;
        staged.charged += len;
        self.context.update(piece);
        self.file.write_all(piece).map_err(failed("write", &self.path))
    }

    /// Ends the upload. It waits under its SHA-256, which is answered with its length in octets.
    pub fn finish(mut self) -> Result<(Digest, u64), StagingError> {
        let digest = self.context.clone().finish();
        let digest = Digest(digest.as_ref().try_into().expect("SHA-256 has 32 octets"));
        let target = self.staging.path(digest);
        let mut waiting = self.staging.waiting();
        std::fs::rename(&self.path, &target).map_err(failed("name the upload", &target))?;
        let mut staged = self.staged.take().expect("taken here only");
        let len = staged.len;
        // The same octets once more: the later upload is the one that counts, for its time and its account.
        staged.claimed = waiting.blobs.get(&digest).is_some_and(|before| before.claimed);
        if let Some(before) = waiting.blobs.insert(digest, staged) {
            waiting.refund(&before.account, before.charged);
        }
        Ok((digest, len))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            self.staging.waiting().refund(&staged.account, staged.charged);
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
