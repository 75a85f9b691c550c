//! Shell: where entries lie.
//!
//! [`Store`] is what the one writer thread holds: it appends in one durable transaction or not at all. [`Reader`] is what
//! everybody may hold. [`DerivedState`] is the part of both that the fold of the ledger has written and can write again.
//! `sqlite` is the store; `memory` is for tests. `tests.rs` is the contract, run against both.

mod derived;
mod files;
pub mod memory;
pub mod sqlite;
mod staging;

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;

pub use derived::{Derived, SignatureRow};
pub use files::Lock;
pub use staging::{Staging, StagingError, StagingLimits, UPLOAD_COST, Upload};

use crate::domain::determination::document::DeviceList;
use crate::domain::determination::pages::PageError;
use crate::domain::fold::RequestFacts;
use crate::domain::fold::snapshot::Tables;
use crate::domain::ledger::entry::{Common, Entry, Event};
use crate::domain::ledger::merkle::{self, Frontier, Head, Leaf, MerkleError, Subtree};
use crate::domain::ledger::snapshots::TableKept;
use crate::domain::ledger::tiles::TILE_HEIGHT;
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};
use crate::domain::responses::{ImportedKey, Responded};

/// What goes wrong with a store. After any error from [`Store::append_at`] nothing of the batch was recorded, but for
/// [`StoreError::Broken`], which leaves it open until the store is opened again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process or thread has appended: the fence.
    #[error(
        "the ledger has {found} entries where {expected} were expected: another process has appended to it; stop this one"
    )]
    SizeMoved {
        /// The size that the caller decided against.
        expected: u64,
        /// The size of the ledger.
        found: u64,
    },
    /// A batch without an entry: nothing changes but by an entry.
    #[error("a batch without entries was to be recorded; derived state and blobs change only with an entry")]
    NoLeaves,
    /// The disk is full.
    #[error(
        "cannot record: the disk is full ({reason}); {}. Free space, then start again",
        if *.released { "the reserved space has been released so that the daemon can stop in order" }
        else { "there was no reserved space left to release" }
    )]
    CannotRecord {
        /// What the database said.
        reason: String,
        /// Whether the ballast was released: then one more small append can succeed.
        released: bool,
    },
    /// Writing failed in a way that leaves open what reached the disk.
    #[error(
        "cannot record: writing failed ({reason}); whether the last entries are on the disk shows when the store is opened again. Stop, check the disk, start again"
    )]
    Broken {
        /// What the database said.
        reason: String,
    },
    /// Another process holds the state directory.
    #[error("{} is in use by process {pid}; only one smkid may run on it", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote there: its process id.
        pid: String,
    },
    /// There is no ledger.
    #[error("{}: no ledger; it is made by `smkictl ceremony`, or restored from a backup, and never by smkid itself", path.display())]
    Absent {
        /// The database file.
        path: PathBuf,
    },
    /// There is a ledger already.
    #[error("{}: there is a ledger already; it is never overwritten", path.display())]
    Exists {
        /// The database file.
        path: PathBuf,
    },
    /// The file is not one of ours, or of another version.
    #[error("{}: expected {what} {expected}, found {found}", path.display())]
    Foreign {
        /// The database file.
        path: PathBuf,
        /// `application_id`, `schema version` or `journal mode`.
        what: &'static str,
        /// What we write there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The SQLite in this program has a known fault.
    #[error("SQLite {found}: expected 3.51.3 or later, which can not lose a WAL frame; build with the bundled one")]
    SqliteTooOld {
        /// Its version.
        found: &'static str,
    },
    /// The octets of an entry are not those that were recorded.
    #[error(
        "entry {index}: its octets hash to {found}, recorded was {expected}: the row was edited or the disk is failing; restore from a backup"
    )]
    LeafCorrupt {
        /// The entry.
        index: u64,
        /// The hash that was recorded.
        expected: Digest,
        /// The hash of the octets.
        found: Digest,
    },
    /// Size, root, entries and inner hashes do not belong together.
    #[error(
        "the ledger's head says {expected}, found {found}: rows were edited, added or removed; restore from a backup"
    )]
    HeadCorrupt {
        /// The stored size and root, or what follows from them.
        expected: String,
        /// What the rows say.
        found: String,
    },
    /// A row of a derived table cannot be read.
    #[error("table {table}: expected {expected}, found {found}: the row was edited")]
    RowCorrupt {
        /// The table.
        table: &'static str,
        /// The form of the value.
        expected: &'static str,
        /// The value.
        found: String,
    },
    /// There is no such blob.
    #[error("blob {digest}: not in the store")]
    NoSuchBlob {
        /// Its SHA-256.
        digest: Digest,
    },
    /// A blob to be adopted was never uploaded, has expired, or was dropped at a restart.
    #[error("upload {digest}: not staged; it expired or the daemon was restarted since: upload it again")]
    NotStaged {
        /// Its SHA-256.
        digest: Digest,
    },
    /// A blob's octets are not those that were uploaded.
    #[error("blob {digest}: its octets hash to {found}: they were edited, or the disk is failing")]
    BlobCorrupt {
        /// The SHA-256 that it was given by.
        digest: Digest,
        /// The SHA-256 of what is there.
        found: Digest,
    },
    /// A checkpoint of another ledger or of a future one.
    #[error("checkpoint of size {size}: expected the root {expected}, found {found}")]
    CheckpointMismatch {
        /// The size it names.
        size: u64,
        /// Our root at that size.
        expected: Digest,
        /// The root it names.
        found: Digest,
    },
    /// A determination has one device list.
    #[error("determination {determination}: it has a device list already")]
    ListExists {
        /// The determination.
        determination: DeterminationId,
    },
    /// A line of a device list.
    #[error("device list {digest}, line {line}: {reason}")]
    ListLine {
        /// The list's SHA-256.
        digest: Digest,
        /// Counted from 1.
        line: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A page of a device list is not what it was when the list was taken in.
    #[error("device list {digest}: {source}: it was edited, or the disk is failing; restore from a backup")]
    ListPage {
        /// The list's SHA-256.
        digest: Digest,
        /// Which page.
        source: Box<PageError>,
    },
    /// A signature of this intent was recorded before.
    #[error("intent {intent}: it has a recorded signature already")]
    SignatureExists {
        /// The intent's index.
        intent: u64,
    },
    /// The derived state is not the fold of the ledger.
    #[error(
        "table {table}: the store has {recorded}, the ledger makes {rebuilt}: the row was edited, or another version of smkid wrote it"
    )]
    DerivedDiffers {
        /// The table.
        table: &'static str,
        /// The first row that differs as it stands in the store; `nothing` if there is none.
        recorded: String,
        /// The row as the ledger makes it; `nothing` if there is none.
        rebuilt: String,
    },
    /// Rows that grow with Devices are not those that the snapshot commits to.
    #[error(
        "table {table}, {rows}: these are not the rows that the last snapshot has: they were edited, added or removed. Restore the newest copy of \
         the state directory, or let `smkid check-state` say which row differs from the ledger"
    )]
    PageDiffers {
        /// The table.
        table: &'static str,
        /// From which row to which.
        rows: Box<str>,
    },
    /// The list of a table's pages is not the one that the snapshot commits to.
    #[error(
        "table {table}: the list of its pages is {found}, the last snapshot has {expected}: it was edited. Restore the newest copy of the \
         state directory"
    )]
    PagesDiffer {
        /// The table.
        table: &'static str,
        /// What the snapshot has.
        expected: Box<TableKept>,
        /// What the list comes to.
        found: Box<TableKept>,
    },
    /// An index or size beyond the ledger's.
    #[error(transparent)]
    Merkle(#[from] MerkleError),
    /// Uploads.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// A file beside the database.
    #[error("{}: cannot {doing}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database, in any other way.
    #[error("the database: {0}")]
    Database(#[from] rusqlite::Error),
}

/// What one transaction records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// The entries, in order. At least one.
    pub leaves: &'a [Leaf<'a>],
    /// Small documents that the entries name, each with its SHA-256, which whoever brings it has just taken and whoever reads it takes again.
    /// One that is there already is not stored twice.
    pub blobs: &'a [(Digest, &'a [u8])],
    /// Uploads that the entries name, to be taken over from [`Staging`].
    pub staged: &'a [Digest],
    /// What follows from the entries, applied in order after the blobs are there.
    pub derived: &'a [Derived<'a>],
}

/// One entry as it is read back, its octets checked against its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredLeaf<'a> {
    /// Its index.
    pub index: u64,
    /// Its octets, as they were appended.
    pub octets: &'a [u8],
    /// Its leaf hash.
    pub hash: Digest,
}

/// A signed checkpoint as it was put. Whoever reads one verifies its note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// Size and root.
    pub head: Head,
    /// The signed note.
    pub note: Vec<u8>,
}

/// The derived state: what a decision must know of each Device, list, signature and request.
pub trait DerivedState {
    /// What is known of a Device under a key; `None` if no command for it was ever intended.
    fn device(&self, key: &KeyLabel, device: DeviceId) -> Result<Option<DeviceFacts>, StoreError>;

    /// As [`DerivedState::device`] for each of these, in their order; held as for [`DerivedState::responded_many`].
    fn devices(&self, key: &KeyLabel, devices: &[DeviceId]) -> Result<Vec<Option<DeviceFacts>>, StoreError> {
        devices.iter().map(|device| self.device(key, *device)).collect()
    }

    /// The Devices under a key in this state, in the order of their ids, after the given one; at most `limit`.
    /// Quick for `Open` and `Unknown`, which are still to be settled; a scan for the others.
    fn devices_in(
        &self,
        key: &KeyLabel,
        state: IntentState,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<(DeviceId, DeviceFacts)>, StoreError>;

    /// The line of a determination's device list that names this Device.
    fn listed(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Listed>, StoreError>;

    /// As [`DerivedState::listed`] for each of these, in their order.
    fn listed_many(
        &self,
        determination: DeterminationId,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<Listed>>, StoreError> {
        devices.iter().map(|device| self.listed(determination, *device)).collect()
    }

    /// The lines of a device list in order, after the given Device; at most `limit`.
    fn listed_from(
        &self,
        determination: DeterminationId,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError>;

    /// What a determination's device list is, as far as those believe who look Devices up in it: the root is what the pages fold to
    /// by which they are found. Linear in the list's pages.
    fn list_head(&self, determination: DeterminationId) -> Result<Option<DeviceList>, StoreError>;

    /// How many lines a determination's device list has; `None` if none was imported.
    fn listed_count(&self, determination: DeterminationId) -> Result<Option<u64>, StoreError>;

    /// The signature that was made under the intent with this leaf index.
    fn signature(&self, intent: u64) -> Result<Option<SignatureRow>, StoreError>;

    /// The released signatures of intents from `from` on, in order; at most `limit`.
    fn released_from(&self, from: u64, limit: usize) -> Result<Vec<(u64, [u8; 64])>, StoreError>;

    /// A request.
    fn request(&self, id: RequestId) -> Result<Option<RequestFacts>, StoreError>;

    /// The intent before the last for a Device under a key that has this counter and was, or may have been, signed.
    fn earlier(&self, key: &KeyLabel, device: DeviceId, counter: u64) -> Result<Option<u64>, StoreError>;

    /// What a Device has answered under a determination.
    fn responded(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Responded>, StoreError>;

    /// As [`DerivedState::responded`] for each of these, in their order. Whoever asks for many holds the store ([`Store::hold`]), or each is
    /// looked up in a transaction of its own.
    fn responded_many(
        &self,
        determination: DeterminationId,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<Responded>>, StoreError> {
        devices.iter().map(|device| self.responded(determination, *device)).collect()
    }

    /// The keys of a Device whose certificates were imported, in no order.
    fn device_keys(&self, device: DeviceId) -> Result<Vec<ImportedKey>, StoreError>;

    /// The same of each of these.
    fn device_keys_of(&self, devices: &BTreeSet<DeviceId>) -> Result<Vec<(DeviceId, Vec<ImportedKey>)>, StoreError> {
        devices.iter().map(|device| Ok((*device, self.device_keys(*device)?))).collect()
    }

    /// Whether any Device's certificate was imported.
    fn has_device_keys(&self) -> Result<bool, StoreError>;
}

/// Reads a ledger and what belongs to it. Each call sees what was committed when it began; the ledger only grows, so an
/// index or size read before stays good.
pub trait Reader: DerivedState {
    /// Size and root.
    fn head(&self) -> Result<Head, StoreError>;

    /// Visits the entries of `range` in order, each checked against its hash, until `visit` breaks.
    fn leaves(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(StoredLeaf<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Visits those entries of `range`, in order, that are neither intents nor outcomes of what was signed ([`Common`]): in a large
    /// ledger some in a thousand. Each is checked against its hash; one that an edited index leaves out is not missed.
    fn uncommon(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(StoredLeaf<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.leaves(range, &mut |leaf| {
            if Common::of(leaf.octets).is_none() { visit(leaf) } else { ControlFlow::Continue(()) }
        })
    }

    /// The intents for a Device, with any key, in order. Whoever asks reads them.
    fn intents_of(&self, device: DeviceId) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        self.leaves(0..self.head()?.size, &mut |leaf| {
            let is_of = |entry: Entry| matches!(entry.event, Event::Intent(intent) if intent.device == device);
            if Common::of(leaf.octets) == Some(Common::Intent) && Entry::from_leaf(leaf.octets).is_ok_and(is_of) {
                found.push(leaf.index);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Visits the hashes of the entries of `range`, without reading the entries.
    fn leaf_hashes(&self, range: Range<u64>, visit: &mut dyn FnMut(Digest)) -> Result<(), StoreError>;

    /// The stored hash of a complete subtree whose level is a multiple of 8 and not 0; `None` if it is not complete.
    fn node(&self, subtree: Subtree) -> Result<Option<Digest>, StoreError>;

    /// The signed checkpoints of at least this size, the smallest first; at most `limit`.
    fn checkpoints(&self, from_size: u64, limit: usize) -> Result<Vec<StoredCheckpoint>, StoreError>;

    /// The signed checkpoint of the greatest size.
    fn latest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, StoreError>;

    /// A blob's length in octets; `None` if it is not in the store. Staged uploads are not.
    fn blob_len(&self, digest: Digest) -> Result<Option<u64>, StoreError>;

    /// Streams a blob. The read that would answer the end fails with `InvalidData` if the octets were not those of the digest,
    /// so nothing read is to be believed before the end.
    fn open_blob(&self, digest: Digest) -> Result<Box<dyn Read + '_>, StoreError>;

    /// One entry.
    fn leaf(&self, index: u64) -> Result<Vec<u8>, StoreError> {
        let mut octets = Vec::new();
        self.leaves(index..index.saturating_add(1), &mut |leaf| {
            octets.extend(leaf.octets);
            ControlFlow::Break(())
        })?;
        Ok(octets)
    }

    /// The hash of a complete subtree, from at most 255 stored ones.
    fn subtree(&self, subtree: Subtree) -> Result<Digest, StoreError> {
        let Subtree { level, index } = subtree;
        let stored = level / TILE_HEIGHT * TILE_HEIGHT;
        let from = index << (level - stored);
        let until = (index + 1) << (level - stored);
        let mut frontier = Frontier::new();
        if stored == 0 {
            self.leaf_hashes(from..until, &mut |hash| frontier.push(hash))?;
        } else {
            for index in from..until {
                let part = Subtree { level: stored, index };
                let node = self.node(part)?.ok_or_else(|| StoreError::HeadCorrupt {
                    expected: format!("an inner hash at level {stored}, place {index}"),
                    found: "none".into(),
                })?;
                frontier.push(node);
            }
        }
        Ok(frontier.root())
    }

    /// The root of the first `size` entries.
    fn root_at(&self, size: u64) -> Result<Digest, StoreError> {
        let head = self.head()?;
        if size > head.size {
            return Err(MerkleError::SizesReversed { first: size, second: head.size }.into());
        }
        merkle::root_at(size, |subtree| self.subtree(subtree))
    }

    /// The path from an entry to the root of the first `size`.
    fn inclusion_path(&self, index: u64, size: u64) -> Result<Vec<Digest>, StoreError> {
        merkle::inclusion_path(index, size, |subtree| self.subtree(subtree))
    }

    /// One entry, proven to stand there under this head, whatever hashes are stored: for what a decision rests on, since a start from a
    /// snapshot does not read what lies before that.
    fn leaf_under(&self, index: u64, head: &Head) -> Result<Vec<u8>, StoreError> {
        let octets = self.leaf(index)?;
        let path = self.inclusion_path(index, head.size)?;
        merkle::verify_inclusion(merkle::leaf_hash(&octets), index, head, &path).map_err(|error| {
            let Head { size, root } = head;
            StoreError::HeadCorrupt {
                expected: format!("{size} entries with the root {root}, entry {index} among them"),
                found: format!("another entry there ({error})"),
            }
        })?;
        Ok(octets)
    }

    /// The path that proves the first `first` entries a prefix of the first `second`.
    fn consistency_path(&self, first: u64, second: u64) -> Result<Vec<Digest>, StoreError> {
        merkle::consistency_path(first, second, |subtree| self.subtree(subtree))
    }

    /// Reads every entry and recomputes every stored hash up to the head, which it answers. Linear in the ledger.
    fn check_tree(&self) -> Result<Head, StoreError> {
        let head = self.head()?;
        let mut frontier = Frontier::new();
        let mut wrong = Ok(());
        self.leaves(0..head.size, &mut |leaf| {
            frontier.push_with(leaf.hash, |subtree, hash| {
                if wrong.is_ok() && subtree.level > 0 && subtree.level.is_multiple_of(TILE_HEIGHT) {
                    wrong = self.subtree(subtree).and_then(|stored| same_node(subtree, stored, hash));
                }
            });
            if wrong.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        wrong?;
        same_head(head, frontier.head())?;
        Ok(head)
    }
}

fn same_node(subtree: Subtree, stored: Digest, hash: Digest) -> Result<(), StoreError> {
    if stored == hash {
        return Ok(());
    }
    let Subtree { level, index } = subtree;
    Err(StoreError::HeadCorrupt {
        expected: format!("{stored} at level {level}, place {index}"),
        found: hash.to_string(),
    })
}

/// Whether the head that is stored is the one that was computed.
pub fn same_head(stored: Head, computed: Head) -> Result<(), StoreError> {
    if stored == computed {
        return Ok(());
    }
    let say = |head: Head| format!("{} entries with the root {}", head.size, head.root);
    Err(StoreError::HeadCorrupt { expected: say(stored), found: say(computed) })
}

/// As of when the rows of what grows with Devices lie in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// After so many entries.
    pub size: u64,
    /// The entry that commits to them; none before the first snapshot.
    pub snapshot: Option<u64>,
}

/// Gives what vouches for a snapshot. None undoes it.
pub trait Vouch {
    /// The parts of the state that are others than those kept, one after the other: together they may be large.
    fn parts(&mut self, put: &mut PutPart<'_>) -> Result<(), StoreError>;
    /// The entry, once it is known what the tables come to.
    fn leaf(&mut self, tables: &Tables) -> Option<Vec<u8>>;
    /// The signed checkpoint over it.
    fn note(&mut self, head: Head) -> Option<Vec<u8>>;
}

/// Keeps a part of the state under its name.
pub type PutPart<'a> = dyn FnMut(&str, &[u8]) -> Result<(), StoreError> + 'a;

/// The writer's handle. One thread of one process has it.
pub trait Store: Reader + Send {
    /// Records a batch if the ledger still has `expected_size` entries: one durable transaction or nothing. After it returns,
    /// everything in it survives a loss of power.
    ///
    /// `coming` hears the head that this leads to once the fence is passed, while nobody else can write, and before anything is durable:
    /// it may come to nothing yet.
    ///
    /// # Errors
    /// [`StoreError::SizeMoved`] is the fence. [`StoreError::CannotRecord`] and [`StoreError::Broken`] mean stop.
    fn append_at(
        &mut self,
        expected_size: u64,
        batch: &Batch<'_>,
        coming: &mut dyn FnMut(Head),
    ) -> Result<Head, StoreError>;

    /// Stores a signed checkpoint durably. Its root must be ours at its size; the first one of a size stays.
    fn put_checkpoint(&mut self, head: Head, note: &[u8]) -> Result<(), StoreError>;

    /// From here on reads see one state, until the next write or [`Store::let_go`]: a decision asks for thousands of rows, and
    /// a read of its own for each costs more than the row.
    fn hold(&self) -> Result<(), StoreError>;

    /// Ends what [`Store::hold`] began, if it did: what is held is in the way of the database's own tidying.
    fn let_go(&self) -> Result<(), StoreError>;

    /// Where uploads wait. It may be shared with other threads.
    fn staging(&self) -> &Arc<Staging>;

    /// As of how many entries the rows of what grows with Devices lie in the tables. What the entries after them changed is in
    /// memory, once [`Store::replay`] was told.
    fn base(&self) -> Result<Base, StoreError>;

    /// A part of the state that the last snapshot kept.
    fn part(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// From here on the rows in the tables are believed where they are those of these tables, as a snapshot under a verified checkpoint
    /// says. The list of pages is compared at once; the rows page by page, when they are read first, or all of them
    /// now.
    fn believe(&mut self, tables: &Tables, now: bool) -> Result<(), StoreError>;

    /// Makes the pages of the rows in the tables, which were compared with the ledger: no snapshot was taken yet, and the first one then has
    /// no more to do than any other. Linear in the rows.
    fn make_pages(&mut self) -> Result<(), StoreError>;

    /// Takes in what entries after [`Store::base`] make of the rows: they are in the ledger already. What lies in other tables is
    /// passed over.
    fn replay(&mut self, derived: &[Derived<'_>]) -> Result<(), StoreError>;

    /// How many changed rows wait in memory for a snapshot.
    fn waiting(&self) -> usize;

    /// Takes a snapshot if the ledger still has `expected_size` entries: writes what waits in memory into the tables, keeps parts in
    /// the place of those with their names, and records the entry that commits to all of it, and the checkpoint over that, in one
    /// durable transaction. `None`, and nothing is done, if `vouch` gives no entry or no note.
    fn snapshot_at(&mut self, expected_size: u64, vouch: &mut dyn Vouch) -> Result<Option<Head>, StoreError>;

    /// Another handle for reading, for another thread.
    fn reader(&self) -> Result<Box<dyn Reader + Send>, StoreError>;

    /// Begins to make the derived state again from the ledger, beside the one in the store. Read the ledger through a
    /// [`Store::reader`] meanwhile.
    fn rebuild(&mut self) -> Result<Box<dyn Rebuild + '_>, StoreError>;
}

/// Derived state in the making. As [`DerivedState`] it shows what has been applied so far, and nothing of the store's.
///
/// What no entry holds, the 64 octets of a signature, is read from the store, compared with the SHA-256 in its entry by whoever
/// folds, and applied again.
pub trait Rebuild: DerivedState {
    /// Applies operations as [`Store::append_at`] did.
    fn apply(&mut self, derived: &[Derived<'_>]) -> Result<(), StoreError>;

    /// As [`Store::replay`], for the store itself.
    fn replay(&mut self, derived: &[Derived<'_>]) -> Result<(), StoreError>;

    /// What the tables that grow with Devices come to so far. Linear in their rows.
    fn tables(&self) -> Result<Tables, StoreError>;

    /// Compares the device lists with those of the store that have the same numbers, and that what was released is: the store may have
    /// gone on since.
    fn compare_lists(&mut self) -> Result<(), StoreError>;

    /// Compares with what the store has, row by row. [`StoreError::DerivedDiffers`] names the first row that differs.
    fn compare_and_finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// Visits the entries of `range` in order, to the first fault, of the visitor or of the reader.
pub fn each_leaf<E: From<StoreError>>(
    reader: &(impl Reader + ?Sized),
    range: Range<u64>,
    mut visit: impl FnMut(StoredLeaf<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut fault = None;
    reader.leaves(range, &mut |leaf| match visit(leaf) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            fault = Some(error);
            ControlFlow::Break(())
        }
    })?;
    fault.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
