//! Shell: the store in one SQLite database. WAL and `synchronous=FULL`: a commit that was answered is on the disk.
//!
//! The state directory holds `ledger.db` (with SQLite's own `-wal` and `-shm`), `lock`, `ballast` and `staging/`.

mod blobs;
mod derived;
mod device_keys;
mod found;
mod incoming;
mod lists;
mod overlay;
mod reading;
mod schema;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

pub use self::incoming::Incoming;

use self::derived::{Schema, StoredRows};
use self::lists::PageCache;
use self::overlay::{Overlay, Shared};
use self::reading::{Ledger, Tables};
use super::files::{Ballast, Lock, failed, sync_directory};
use super::{Base, Batch, Derived, Reader, Rebuild, Staging, StagingLimits, Store, StoreError, Vouch, same_head};
use crate::domain::fold::snapshot::{Pages, Table, Tables as KeptTables, of_each};
use crate::domain::ledger::merkle::{Frontier, Head, Leaf};
use crate::domain::ledger::tiles::TILE_HEIGHT;
use crate::domain::names::Digest;

/// The database within the state directory.
const DATABASE: &str = "ledger.db";
/// The derived state in the making, removed afterwards and when the next one begins.
const REBUILT: &str = "rebuilt.db";
/// The same beside a daemon that was started from a snapshot.
const CHECKED: &str = "checked.db";
/// How many operations of a rebuild one transaction holds; their undo log is in memory.
const REBUILD_TRANSACTION_LEN: usize = 10_000;

impl Tables for SqliteStore {
    const SCHEMA: Schema = Schema::Main;
    fn connection(&self) -> &Connection {
        &self.connection
    }
    fn shared(&self) -> Option<&Shared> {
        Some(&self.shared)
    }
    fn pages(&self) -> &PageCache {
        &self.pages
    }
}
impl Ledger for SqliteStore {}

impl Tables for SqliteReader {
    const SCHEMA: Schema = Schema::Main;
    fn connection(&self) -> &Connection {
        &self.connection
    }
    fn shared(&self) -> Option<&Shared> {
        Some(&self.shared)
    }
    fn pages(&self) -> &PageCache {
        &self.pages
    }
}
impl Ledger for SqliteReader {}

impl Tables for SqliteRebuild<'_> {
    const SCHEMA: Schema = Schema::Rebuilt;
    fn connection(&self) -> &Connection {
        self.connection
    }
    fn shared(&self) -> Option<&Shared> {
        None
    }
    fn pages(&self) -> &PageCache {
        &self.pages
    }
}

/// A read-only connection of its own.
pub struct SqliteReader {
    connection: Connection,
    shared: Arc<Shared>,
    pages: PageCache,
}

impl SqliteReader {
    /// Opens the ledger of a state directory for reading, whether or not a daemon is running on it. In the process of the store that
    /// is open there, it shows of Devices what the store does; in another, what the last snapshot has of them.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(DATABASE);
        if !path.exists() {
            return Err(StoreError::Absent { path });
        }
        let connection = schema::open_reader(&path)?;
        Ok(Self { connection, shared: Shared::of_reader(directory), pages: PageCache::default() })
    }

    /// Some octets of a blob, from a place on. They are not checked: whoever asks knows what they must be.
    pub fn blob_at(&self, digest: Digest, at: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        blobs::read_at(&self.connection, digest, at, len)
    }
}

/// The store that a daemon runs on.
pub struct SqliteStore {
    connection: Connection,
    shared: Arc<Shared>,
    directory: PathBuf,
    frontier: Frontier,
    pages: PageCache,
    staging: Arc<Staging>,
    ballast: Ballast,
    /// Why nothing can be recorded any more, once writing has failed in a way that leaves open what reached the disk.
    broken: Option<String>,
    _lock: Lock,
}

impl SqliteStore {
    /// Makes the empty ledger of a state directory, which must exist, and opens it. For the ceremony alone.
    pub fn create(directory: &Path, limits: StagingLimits) -> Result<Self, StoreError> {
        let lock = Lock::take(directory)?;
        let path = directory.join(DATABASE);
        // The file is made here and not by SQLite, for its mode; SQLite gives its other files the same.
        if path.exists() {
            return Err(StoreError::Exists { path });
        }
        make_private(&path)?;
        schema::create(&path, Head::empty().root.octets())?;
        sync_directory(directory)?;
        Self::open_locked(directory, limits, lock)
    }

    /// Whether a state directory has a ledger.
    pub fn exists(directory: &Path) -> bool {
        directory.join(DATABASE).exists()
    }

    /// Makes the ledger that was begun in one directory that of another on the same disk: at once, durably, and never in the
    /// place of one. Nobody may have either open. For the ceremony alone, so that a ledger without its first policy never stands.
    pub fn install(from: &Path, to: &Path) -> Result<(), StoreError> {
        let (old, new) = (from.join(DATABASE), to.join(DATABASE));
        // The last connection that closes leaves no log behind; one that is there holds entries that would be lost.
        let log = from.join(format!("{DATABASE}-wal"));
        if log.exists() {
            let source = std::io::Error::other("its write-ahead log is still there: somebody has it open");
            return Err(failed("move the ledger", &log)(source));
        }
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            &old,
            rustix::fs::CWD,
            &new,
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(StoreError::Exists { path: new }),
            Err(error) => return Err(failed("move the ledger", &new)(error.into())),
        }
        sync_directory(to)?;
        sync_directory(from)
    }

    /// Opens the ledger of a state directory. There must be one. Inner hashes and head are checked against each other;
    /// [`Reader::check_tree`] reads every entry too.
    pub fn open(directory: &Path, limits: StagingLimits) -> Result<Self, StoreError> {
        // Asked before the lock is taken, so that a wrong directory stays as it is.
        let path = directory.join(DATABASE);
        if !path.exists() {
            return Err(StoreError::Absent { path });
        }
        let lock = Lock::take(directory)?;
        Self::open_locked(directory, limits, lock)
    }

    fn open_locked(directory: &Path, limits: StagingLimits, lock: Lock) -> Result<Self, StoreError> {
        let connection = schema::open_writer(&directory.join(DATABASE))?;
        let head = reading::head(&connection)?;
        let greatest = derived::greatest_leaf(&connection)?;
        if greatest.map_or(0, |index| index.cast_unsigned() + 1) != head.size {
            return Err(StoreError::HeadCorrupt {
                expected: format!("{} entries", head.size),
                found: greatest.map_or("none".into(), |index| format!("a last entry {index}")),
            });
        }
        let mut store = Self {
            connection,
            shared: Shared::of_store(directory),
            directory: directory.into(),
            frontier: Frontier::new(),
            pages: PageCache::default(),
            staging: Arc::new(Staging::open(&directory.join("staging"), limits)?),
            ballast: Ballast::new(directory),
            broken: None,
            _lock: lock,
        };
        store.frontier = Frontier::load(head.size, |subtree| store.subtree(subtree))?;
        same_head(head, store.frontier.head())?;
        Ok(store)
    }

    /// Reserves disk space that is released when the disk is full, so that the daemon can still record that it stops.
    pub fn reserve_space(&self, len: u64) -> Result<(), StoreError> {
        self.ballast.reserve(len)
    }

    /// Turns the database's errors into what the caller must do.
    fn recorded<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let Err(StoreError::Database(error)) = result else { return result };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                Err(StoreError::CannotRecord { reason: error.to_string(), released: self.ballast.release() })
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                self.broken = Some(error.to_string());
                Err(StoreError::Broken { reason: error.to_string() })
            }
            Some(_) | None => Err(StoreError::Database(error)),
        }
    }

    fn check_usable(&self) -> Result<(), StoreError> {
        match &self.broken {
            None => Ok(()),
            Some(reason) => Err(StoreError::Broken { reason: reason.clone() }),
        }
    }

    fn append(
        &mut self,
        expected_size: u64,
        batch: &Batch<'_>,
        coming: &mut dyn FnMut(Head),
    ) -> Result<Frontier, StoreError> {
        let Batch { leaves, blobs, staged, derived } = *batch;
        let _turn = self.staging.turn_to_write();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let head = reading::head(&transaction)?;
        if head.size != expected_size {
            return Err(StoreError::SizeMoved { expected: expected_size, found: head.size });
        }
        same_head(head, self.frontier.head())?;
        let mut frontier = self.frontier.clone();
        push(&transaction, &mut frontier, leaves)?;
        coming(frontier.head());
        for (digest, octets) in blobs {
            blobs::put(&transaction, *digest, octets)?;
        }
        for digest in staged {
            adopt(&transaction, &self.staging, *digest)?;
        }
        let mut rows = Overlay::default();
        {
            let state = self.shared.read();
            for derived in derived {
                derived::apply_at_once(&transaction, Schema::Main, derived)?;
                state.stage(&transaction, derived, &mut rows)?;
            }
        }
        put_head(&transaction, frontier.head())?;
        self.shared.publish(rows, || Ok(transaction.commit()?))?;
        Ok(frontier)
    }

    /// As [`Store::snapshot_at`]; the frontier after it.
    fn take_snapshot(&mut self, expected_size: u64, vouch: &mut dyn Vouch) -> Result<Option<Frontier>, StoreError> {
        let _turn = self.staging.turn_to_write();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let head = reading::head(&transaction)?;
        if head.size != expected_size {
            return Err(StoreError::SizeMoved { expected: expected_size, found: head.size });
        }
        same_head(head, self.frontier.head())?;
        let (written, tables) = self.shared.read().write(&transaction)?;
        vouch.parts(&mut |name, octets| {
            transaction.prepare_cached("INSERT OR REPLACE INTO main.part VALUES (?1, ?2)")?.execute((name, octets))?;
            Ok(())
        })?;
        let Some(octets) = vouch.leaf(&tables) else { return Ok(None) };
        let mut frontier = self.frontier.clone();
        push(&transaction, &mut frontier, &[Leaf::new(&octets)?])?;
        let after = frontier.head();
        put_head(&transaction, after)?;
        // Under a checkpoint at once: a snapshot that the tables have and no checkpoint vouches for would be of no use to a start.
        let Some(note) = vouch.note(after) else { return Ok(None) };
        put_checkpoint(&transaction, after, &note)?;
        transaction
            .execute("UPDATE main.base SET size = ?1, snapshot = ?1 WHERE id = 1", [expected_size.cast_signed()])?;
        self.shared.settle(written, || Ok(transaction.commit()?))?;
        Ok(Some(frontier))
    }
}

/// Writes entries, and the inner hashes that they complete.
fn push(connection: &Connection, frontier: &mut Frontier, leaves: &[Leaf<'_>]) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached("INSERT INTO main.leaf (idx, hash, octets) VALUES (?1, ?2, ?3)")?;
    let mut insert_node = connection.prepare_cached("INSERT INTO main.node (level, idx, hash) VALUES (?1, ?2, ?3)")?;
    for leaf in leaves {
        insert.execute((frontier.size().cast_signed(), leaf.hash().0, leaf.octets()))?;
        let mut inserted = Ok(0);
        frontier.push_with(leaf.hash(), |subtree, hash| {
            if subtree.level > 0 && subtree.level.is_multiple_of(TILE_HEIGHT) && inserted.is_ok() {
                inserted = insert_node.execute((subtree.level, subtree.index.cast_signed(), hash.0));
            }
        });
        inserted?;
    }
    Ok(())
}

fn put_head(connection: &Connection, Head { size, root }: Head) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE main.head SET size = ?1, root = ?2 WHERE id = 1")?
        .execute((size.cast_signed(), root.0))?;
    Ok(())
}

fn put_checkpoint(connection: &Connection, head: Head, note: &[u8]) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT INTO main.checkpoint (size, root, note) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute((head.size.cast_signed(), head.root.0, note))?;
    Ok(())
}

/// Takes an upload over into the store. What is there already is as good as uploaded again.
fn adopt(connection: &Connection, staging: &Staging, digest: Digest) -> Result<(), StoreError> {
    if blobs::find(connection, digest)?.is_some() || incoming::adopt(connection, digest)? {
        return Ok(());
    }
    let file = staging.open_staged(digest)?.ok_or(StoreError::NotStaged { digest })?;
    blobs::copy(connection, digest, file)
}

impl Store for SqliteStore {
    fn append_at(
        &mut self,
        expected_size: u64,
        batch: &Batch<'_>,
        coming: &mut dyn FnMut(Head),
    ) -> Result<Head, StoreError> {
        self.let_go()?;
        self.check_usable()?;
        if batch.leaves.is_empty() {
            return Err(StoreError::NoLeaves);
        }
        let result = self.append(expected_size, batch, coming);
        self.frontier = self.recorded(result)?;
        self.staging.forget(batch.staged);
        Ok(self.frontier.head())
    }

    fn put_checkpoint(&mut self, head: Head, note: &[u8]) -> Result<(), StoreError> {
        self.let_go()?;
        self.check_usable()?;
        let expected = if head.size == self.frontier.size() { self.frontier.root() } else { self.root_at(head.size)? };
        if head.root != expected {
            return Err(StoreError::CheckpointMismatch { size: head.size, expected, found: head.root });
        }
        let put = put_checkpoint(&self.connection, head, note);
        self.recorded(put)
    }

    fn base(&self) -> Result<Base, StoreError> {
        schema::base(&self.connection)
    }

    fn part(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        overlay::part(&self.connection, name)
    }

    fn believe(&mut self, tables: &KeptTables, now: bool) -> Result<(), StoreError> {
        let pages = of_each(|table| overlay::pages(&self.connection, table))?;
        for ((table, (pages, _)), kept) in Table::ALL.into_iter().zip(&pages).zip(tables) {
            let found = pages.kept();
            if found != *kept {
                return Err(StoreError::PagesDiffer {
                    table: table.as_str(),
                    expected: Box::new(*kept),
                    found: Box::new(found),
                });
            }
        }
        self.shared.hold(pages, false);
        if now { self.shared.read().see_all(&self.connection) } else { Ok(()) }
    }

    fn make_pages(&mut self) -> Result<(), StoreError> {
        self.let_go()?;
        let _turn = self.staging.turn_to_write();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let pages = overlay::made(&transaction)?;
        transaction.commit()?;
        self.shared.hold(pages, true);
        Ok(())
    }

    fn replay(&mut self, derived: &[Derived<'_>]) -> Result<(), StoreError> {
        replay(&self.connection, &self.shared, derived)
    }

    fn waiting(&self) -> usize {
        self.shared.read().overlay().len()
    }

    fn snapshot_at(&mut self, expected_size: u64, vouch: &mut dyn Vouch) -> Result<Option<Head>, StoreError> {
        self.let_go()?;
        self.check_usable()?;
        let result = self.take_snapshot(expected_size, vouch);
        let Some(frontier) = self.recorded(result)? else { return Ok(None) };
        self.frontier = frontier;
        Ok(Some(self.frontier.head()))
    }

    fn hold(&self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            self.connection.prepare_cached("BEGIN")?.execute([])?;
        }
        Ok(())
    }

    fn let_go(&self) -> Result<(), StoreError> {
        if !self.connection.is_autocommit() {
            self.connection.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(())
    }

    fn staging(&self) -> &Arc<Staging> {
        &self.staging
    }

    fn reader(&self) -> Result<Box<dyn Reader + Send>, StoreError> {
        Ok(Box::new(SqliteReader::open(&self.directory)?))
    }

    fn rebuild(&mut self) -> Result<Box<dyn Rebuild + '_>, StoreError> {
        self.let_go()?;
        Ok(Box::new(SqliteRebuild::begin(&self.connection, &self.shared, self.directory.join(REBUILT))?))
    }
}

/// A place of its own in which the rows are made again beside a daemon that goes on.
pub struct Scratch {
    connection: Connection,
    shared: Shared,
    path: PathBuf,
}

impl Scratch {
    /// In the state directory, where the store is open.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let connection = schema::open_scratch(&directory.join(DATABASE))?;
        Ok(Self { connection, shared: Shared::default(), path: directory.join(CHECKED) })
    }

    /// Begins.
    pub fn rebuild(&self) -> Result<Box<dyn Rebuild + '_>, StoreError> {
        Ok(Box::new(SqliteRebuild::begin(&self.connection, &self.shared, self.path.clone())?))
    }
}

/// Puts what entries make of rows, which are in the ledger already, over the tables.
fn replay(connection: &Connection, shared: &Shared, derived: &[Derived<'_>]) -> Result<(), StoreError> {
    let mut rows = Overlay::default();
    {
        let state = shared.read();
        derived.iter().try_for_each(|derived| state.stage(connection, derived, &mut rows))?;
    }
    shared.extend(rows);
    Ok(())
}

/// An empty file that only its owner may read.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map(drop).map_err(failed("create", path))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Derived tables in a database of their own beside the store's, so that memory stays bounded.
struct SqliteRebuild<'a> {
    connection: &'a Connection,
    shared: &'a Shared,
    path: PathBuf,
    pages: PageCache,
    /// Operations since the last commit.
    pending: usize,
}

impl<'a> SqliteRebuild<'a> {
    fn begin(connection: &'a Connection, shared: &'a Shared, path: PathBuf) -> Result<Self, StoreError> {
        remove(&path)?;
        make_private(&path)?;
        // No sync and no file of undo: what is made here is thrown away, and begun anew after a crash.
        let name = path.to_string_lossy().into_owned();
        connection.execute("ATTACH DATABASE ?1 AS rebuilt", [&name])?;
        let rebuild = Self { connection, shared, path, pages: PageCache::default(), pending: 0 };
        rebuild.connection.execute_batch("PRAGMA rebuilt.journal_mode = MEMORY; PRAGMA rebuilt.synchronous = OFF;")?;
        schema::create_derived(rebuild.connection, "rebuilt")?;
        Ok(rebuild)
    }
}

impl SqliteRebuild<'_> {
    fn commit(&mut self) -> rusqlite::Result<()> {
        self.pending = 0;
        if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("COMMIT") }
    }
}

impl Drop for SqliteRebuild<'_> {
    fn drop(&mut self) {
        // Nothing here is kept; what fails now is cleared away when the next rebuild begins.
        let _ = self.commit();
        self.connection.flush_prepared_statement_cache();
        let _ = self.connection.execute_batch("DETACH DATABASE rebuilt");
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Rebuild for SqliteRebuild<'_> {
    fn apply(&mut self, derived: &[Derived<'_>]) -> Result<(), StoreError> {
        for derived in derived {
            if self.connection.is_autocommit() {
                self.connection.execute_batch("BEGIN")?;
            }
            derived::apply(self.connection, derived)?;
            self.pending += 1;
            if self.pending >= REBUILD_TRANSACTION_LEN {
                self.commit()?;
            }
        }
        Ok(())
    }

    fn replay(&mut self, derived: &[Derived<'_>]) -> Result<(), StoreError> {
        replay(self.connection, self.shared, derived)
    }

    fn tables(&self) -> Result<KeptTables, StoreError> {
        let rows = StoredRows { connection: self.connection, schema: Schema::Rebuilt };
        of_each(|table| Ok(Pages::made(table, &rows, |_| ())?.kept()))
    }

    fn compare_lists(&mut self) -> Result<(), StoreError> {
        self.commit()?;
        derived::compare_lists(self.connection)
    }

    fn compare_and_finish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.commit()?;
        // Of an older version only what it had can be compared; the rest is what the ledger makes.
        let version = schema::version(self.connection)?;
        {
            // As the tables would be after a snapshot now, and never are: the transaction is not committed.
            let transaction = self.connection.unchecked_transaction()?;
            self.shared.read().overlay().write(&transaction)?;
            derived::compare(&transaction, schema::DERIVED.iter().filter(|table| table.since <= version))?;
        }
        schema::adopt_new_tables(self.connection)
    }
}

#[cfg(test)]
mod tests;
