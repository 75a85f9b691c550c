//! Shell: the tables, and what a connection must be before it is trusted.
//!
//! Numbers of 64 bits lie in SQLite's signed integers by their bits; none of them is compared or ordered in SQL but indices,
//! which stay far below 2^63.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::super::{Base, StoreError};
use super::device_keys;
use super::{found, incoming};

/// `SMKI`: how `file` and we know the database by.
const APPLICATION_ID: i32 = 0x534D_4B49;
/// Rises with each change of a table.
pub(super) const SCHEMA_VERSION: i32 = 3;
/// The oldest that is brought up to date when it is opened: tables that the ledger makes were added since, and one was dropped.
const SCHEMA_VERSION_MIN: i32 = 1;
/// The first SQLite without the WAL-reset fault of 3.7.0 to 3.51.2.
const SQLITE_MIN: i32 = 3_051_003;
/// Another connection of this process holds the write lock for one transaction at most.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// More than there are statements here, so that none is prepared twice.
const STATEMENTS_MAX: usize = 128;

/// The ledger and what is not derived from it.
const LEDGER: &str = "
CREATE TABLE leaf (idx INTEGER PRIMARY KEY, hash BLOB NOT NULL, octets BLOB NOT NULL) STRICT;
CREATE TABLE node (level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, idx)) STRICT, WITHOUT ROWID;
CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL, root BLOB NOT NULL) STRICT;
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, root BLOB NOT NULL, note BLOB NOT NULL) STRICT;
CREATE TABLE blob (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, len INTEGER NOT NULL) STRICT;
CREATE TABLE chunk (id INTEGER PRIMARY KEY, octets BLOB NOT NULL) STRICT;
";

/// What a snapshot keeps: as of how many entries the rows of what grows with Devices are, and by which entry that is so; the pages of
/// those rows, each with the list of its parts; the rest of the state.
const KEPT: &str = "
CREATE TABLE IF NOT EXISTS main.base (id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL, snapshot INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS main.row_page (id INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, first BLOB NOT NULL, last BLOB NOT NULL,
    rows INTEGER NOT NULL, pending INTEGER NOT NULL, digest BLOB NOT NULL, parts BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS main.part (name TEXT PRIMARY KEY, octets BLOB NOT NULL) STRICT;
";
/// The first version with these. In an older one every row was written with its entry.
const KEPT_SINCE: i32 = 3;

/// One derived table: its columns, those that identify a row first.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    pub(super) columns: &'static str,
    pub(super) definition: &'static str,
    /// The schema version that it came with.
    pub(super) since: i32,
}

/// The derived tables, which exist twice while the derived state is made again.
pub(super) const DERIVED: [Table; 8] = [
    Table {
        name: "device",
        key: "key, device",
        columns: "key, device, counter, determination, template, intent, state, attempt",
        definition: "(key TEXT NOT NULL, device BLOB NOT NULL, counter INTEGER NOT NULL, determination BLOB NOT NULL,
            template TEXT NOT NULL, intent INTEGER NOT NULL, state INTEGER NOT NULL, attempt INTEGER NOT NULL,
            PRIMARY KEY (key, device)) STRICT, WITHOUT ROWID",
        since: 1,
    },
    Table {
        name: "list",
        key: "id",
        columns: "id, determination, blob, len",
        definition: "(id INTEGER PRIMARY KEY, determination BLOB NOT NULL UNIQUE, blob BLOB NOT NULL, len INTEGER NOT NULL) STRICT",
        since: 1,
    },
    Table {
        name: "page",
        key: "list, first",
        columns: "list, first, at, len, lines, root",
        definition: "(list INTEGER NOT NULL, first BLOB NOT NULL, at INTEGER NOT NULL, len INTEGER NOT NULL, lines INTEGER NOT NULL,
            root BLOB NOT NULL, PRIMARY KEY (list, first)) STRICT, WITHOUT ROWID",
        since: 3,
    },
    Table {
        name: "signature",
        key: "intent",
        columns: "intent, octets, released",
        definition: "(intent INTEGER PRIMARY KEY, octets BLOB NOT NULL, released INTEGER NOT NULL) STRICT",
        since: 1,
    },
    Table {
        name: "request",
        key: "id",
        columns: "id, asked, first_batch, last_batch",
        definition:
            "(id BLOB PRIMARY KEY, asked BLOB NOT NULL, first_batch INTEGER NOT NULL, last_batch INTEGER NOT NULL)
            STRICT, WITHOUT ROWID",
        since: 1,
    },
    Table {
        name: "earlier",
        key: "key, device, counter",
        columns: "key, device, counter, intent",
        definition: "(key TEXT NOT NULL, device BLOB NOT NULL, counter INTEGER NOT NULL, intent INTEGER NOT NULL,
            PRIMARY KEY (key, device, counter)) STRICT, WITHOUT ROWID",
        since: 2,
    },
    Table {
        name: "response",
        key: "determination, device",
        columns: "determination, device, entry, intent, outcome, detail, foreign_counter",
        definition: "(determination BLOB NOT NULL, device BLOB NOT NULL, entry INTEGER, intent INTEGER, outcome TEXT, detail TEXT,
            foreign_counter INTEGER, PRIMARY KEY (determination, device)) STRICT, WITHOUT ROWID",
        since: 2,
    },
    device_keys::TABLE,
];

/// Derived tables of older versions that no later one has: a row for each Device of a list, until version 3.
const DROPPED: [&str; 1] = ["listed"];

/// The few Devices that wait for an outcome, found without reading the many that do not.
const INDEX: &str = "CREATE INDEX device_pending ON device (key, state, device) WHERE state IN (1, 5);";

/// Makes the derived tables in a schema.
pub(super) fn create_derived(connection: &Connection, schema: &str) -> rusqlite::Result<()> {
    DERIVED.iter().try_for_each(|table| {
        connection.execute_batch(&format!("CREATE TABLE {schema}.{} {}", table.name, table.definition))
    })
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(StoreError::SqliteTooOld { found: rusqlite::version() });
    }
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    Ok(())
}

/// Memory of the writer for pages, in KiB: those that a chunk writes, and the upper levels of every tree. A larger one only fills
/// up with what was written: at 16 MiB it was a third of the daemon's memory, and no faster.
const WRITER_CACHE_KIB: u32 = 1024;
/// The same for a reader, which reads in order or here and there, and seldom twice.
const READER_CACHE_KIB: u32 = 256;

fn limit_cache(connection: &Connection, kib: u32) -> rusqlite::Result<()> {
    // A negative size counts KiB, a positive one pages.
    connection.execute_batch(&format!("PRAGMA cache_size = -{kib}"))
}

/// FULL: each commit is synced before it is answered. The WAL is cut back to 64 MiB once a long transaction made it larger.
fn make_durable(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    check(path, "journal mode", "wal", &mode)?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;",
    )?;
    limit_cache(connection, WRITER_CACHE_KIB)?;
    let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    check(path, "synchronous", "2", &synchronous.to_string())
}

fn check(path: &Path, what: &'static str, expected: &str, found: &str) -> Result<(), StoreError> {
    if expected == found {
        return Ok(());
    }
    Err(StoreError::Foreign { path: path.into(), what, expected: expected.into(), found: found.into() })
}

/// Makes the tables in an empty file, in one transaction: a database has all of them or is none of ours.
pub(super) fn create(path: &Path, empty_root: &[u8; 32]) -> Result<(), StoreError> {
    let mut connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection)?;
    make_durable(&connection, path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(LEDGER)?;
    transaction.execute_batch(KEPT)?;
    create_derived(&transaction, "main")?;
    transaction.execute_batch(INDEX)?;
    transaction.execute_batch(found::DEFINITION)?;
    transaction.execute_batch(incoming::DEFINITION)?;
    transaction.execute("INSERT INTO head VALUES (1, 0, ?1)", [empty_root])?;
    transaction.execute("INSERT INTO base VALUES (1, 0, NULL)", [])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(())
}

fn check_identity(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    check(path, "application id", &APPLICATION_ID.to_string(), &found.to_string())?;
    let found = version(connection)?;
    if (SCHEMA_VERSION_MIN..=SCHEMA_VERSION).contains(&found) {
        return Ok(());
    }
    check(path, "schema version", &SCHEMA_VERSION.to_string(), &found.to_string())
}

/// The schema version of the database.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA main.user_version", [], |row| row.get(0))
}

/// Makes the tables that an older version had not, empty. Their rows are those that the ledger makes ([`adopt_new_tables`]):
/// until these are in, the database keeps its old version.
fn add_new_tables(connection: &mut Connection) -> Result<(), StoreError> {
    let found = version(connection)?;
    let transaction = connection.transaction()?;
    for table in DERIVED.iter().filter(|table| table.since > found) {
        transaction.execute_batch(&format!("CREATE TABLE IF NOT EXISTS main.{} {}", table.name, table.definition))?;
    }
    transaction.execute_batch(found::DEFINITION)?;
    transaction.execute_batch(incoming::DEFINITION)?;
    if found < KEPT_SINCE {
        transaction.execute_batch(KEPT)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Takes over, from the tables made again, the rows of those that the database's old version had not, and calls it up to date.
pub(super) fn adopt_new_tables(connection: &Connection) -> Result<(), StoreError> {
    let found = version(connection)?;
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    for Table { name, columns, .. } in DERIVED.iter().filter(|table| table.since > found) {
        transaction.execute_batch(&format!(
            "DELETE FROM main.{name}; INSERT INTO main.{name} ({columns}) SELECT {columns} FROM rebuilt.{name}"
        ))?;
    }
    if found < KEPT_SINCE {
        transaction.execute("INSERT OR REPLACE INTO main.base SELECT 1, size, NULL FROM main.head", [])?;
    }
    for name in DROPPED {
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS main.{name}"))?;
    }
    transaction.pragma_update(Some("main"), "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// As of how many entries the rows of what grows with Devices are, and the snapshot by which that is so.
pub(super) fn base(connection: &Connection) -> Result<Base, StoreError> {
    let sql = if version(connection)? < KEPT_SINCE {
        "SELECT size, NULL FROM main.head WHERE id = 1"
    } else {
        "SELECT size, snapshot FROM main.base WHERE id = 1"
    };
    let base = connection.query_row(sql, [], |row| {
        let (size, snapshot): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
        Ok(Base { size: size.cast_unsigned(), snapshot: snapshot.map(i64::cast_unsigned) })
    })?;
    Ok(base)
}

/// The writer's connection.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let mut connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection)?;
    check_identity(&connection, path)?;
    make_durable(&connection, path)?;
    add_new_tables(&mut connection)?;
    Ok(connection)
}

/// A connection beside the writer's, for what is written between its transactions.
pub(super) fn open_beside(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection)?;
    check_identity(&connection, path)?;
    make_durable(&connection, path)?;
    Ok(connection)
}

/// A connection for making the state again beside the store: it writes to nothing but what is attached to it.
pub(super) fn open_scratch(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection)?;
    check_identity(&connection, path)?;
    limit_cache(&connection, WRITER_CACHE_KIB)?;
    Ok(connection)
}

/// A connection that cannot write.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection)?;
    check_identity(&connection, path)?;
    limit_cache(&connection, READER_CACHE_KIB)?;
    Ok(connection)
}
