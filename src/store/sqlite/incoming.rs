//! Shell: long uploads on their way into the database. They are copied and hashed ahead of the entry that names them, in short transactions
//! between which the writer records what it likes; what the entry's own transaction then does is to call them a blob. So it takes no longer to
//! record a list of ten million Devices than one of ten.
//!
//! What was brought and is not adopted is of no meaning to anybody, and goes when the next comes. It has row ids of its own, above those of
//! the blobs that come with their entries.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::super::{Staging, StagingError, StoreError};
use super::blobs::{self, CHUNK_BITS, CHUNK_LEN, INCOMING_FIRST, INSERT_CHUNK, to_digest};
use super::{DATABASE, schema};
use crate::domain::names::Digest;

/// `len` is none until all of it is there.
pub(super) const DEFINITION: &str = "CREATE TABLE IF NOT EXISTS main.incoming (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, len INTEGER) STRICT;";

/// What is shorter is copied with its entry in some milliseconds.
pub const BRING_LEN_MIN: u64 = 4 * 1024 * 1024;

/// Rows that are written or deleted in a transaction: 4 MiB, some ten milliseconds for which the writer may have to wait ([`Staging::turn_to_write`]).
const ROWS: usize = 16;

/// How long the writer is given way after each: it takes its turn at once.
const GIVE_WAY: Duration = Duration::from_millis(10);

/// Brings uploads into the database of a state directory, one at a time.
#[derive(Debug)]
pub struct Incoming {
    database: PathBuf,
    staging: Arc<Staging>,
    one: Mutex<()>,
}

impl Incoming {
    /// Into the database of the store that has this staging.
    pub fn new(directory: &Path, staging: Arc<Staging>) -> Self {
        Self { database: directory.join(DATABASE), staging, one: Mutex::default() }
    }

    /// Copies an upload that waits, if it is long, so that an entry can adopt it at once. It waits on as before. To be called where one may
    /// wait.
    ///
    /// # Errors
    /// It cannot be copied, or is not what its SHA-256 says any more.
    pub fn bring(&self, digest: Digest) -> Result<(), StoreError> {
        if self.staging.len(digest).is_none_or(|len| len < BRING_LEN_MIN) {
            return Ok(());
        }
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = schema::open_beside(&self.database)?;
        let is_there = "SELECT len IS NOT NULL FROM main.incoming WHERE digest = ?1";
        let is_there = connection.query_row(is_there, [digest.0], |row| row.get(0)).optional()?;
        if is_there == Some(true) || blobs::find(&connection, digest)?.is_some() {
            return Ok(());
        }
        self.drop_all(&connection)?;
        let copied = self.copy(&mut connection, digest);
        if copied.is_err() {
            // The first error is the one to tell.
            let _ = self.drop_all(&connection);
        }
        copied
    }

    fn copy(&self, connection: &mut Connection, digest: Digest) -> Result<(), StoreError> {
        // It may have expired meanwhile.
        let Some(mut file) = self.staging.open_staged(digest)? else { return Ok(()) };
        let id = self.begin(connection, digest)?;
        let (mut context, mut len, mut number) = (Context::new(&SHA256), 0_u64, 0_i64);
        // Row by row, and each no longer than it is: after one buffer of megabytes was given back, malloc keeps as many for later.
        let mut rows: [Vec<u8>; ROWS] = std::array::from_fn(|_| Vec::with_capacity(CHUNK_LEN));
        loop {
            for row in &mut rows {
                row.clear();
                file.by_ref().take(CHUNK_LEN as u64).read_to_end(row).map_err(StagingError::Source)?;
                context.update(row);
                len += row.len() as u64;
            }
            if rows[0].is_empty() {
                break;
            }
            let turn = self.staging.turn_to_write();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut insert = transaction.prepare_cached(INSERT_CHUNK)?;
                for row in rows.iter().filter(|row| !row.is_empty()) {
                    insert.execute((id << CHUNK_BITS | number, row))?;
                    number += 1;
                }
            }
            transaction.commit()?;
            drop(turn);
            thread::sleep(GIVE_WAY);
        }
        let found = to_digest(context);
        if found != digest {
            return Err(StoreError::BlobCorrupt { digest, found });
        }
        let _turn = self.staging.turn_to_write();
        connection.execute("UPDATE main.incoming SET len = ?1 WHERE id = ?2", (len.cast_signed(), id))?;
        Ok(())
    }

    /// The row id of the next upload: above those that are on their way, and those that came so and are blobs.
    fn begin(&self, connection: &mut Connection, digest: Digest) -> Result<i64, StoreError> {
        let _turn = self.staging.turn_to_write();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let greatest = |table: &str| {
            let sql = format!("SELECT max(id) FROM main.{table}");
            transaction.query_row(&sql, [], |row| row.get::<_, Option<i64>>(0))
        };
        let id = greatest("incoming")?.max(greatest("blob")?).map_or(INCOMING_FIRST, |id| INCOMING_FIRST.max(id + 1));
        transaction.execute("INSERT INTO main.incoming VALUES (?1, ?2, NULL)", (id, digest.0))?;
        transaction.commit()?;
        Ok(id)
    }

    /// Drops whatever was brought and not adopted. From the first step on nobody adopts it.
    fn drop_all(&self, connection: &Connection) -> Result<(), StoreError> {
        let in_turn = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            let _turn = self.staging.turn_to_write();
            connection.execute(sql, values)
        };
        in_turn("UPDATE main.incoming SET len = NULL WHERE len IS NOT NULL", &[])?;
        loop {
            let first = "SELECT id FROM main.incoming ORDER BY id LIMIT 1";
            let Some(id) = connection.query_row(first, [], |row| row.get::<_, i64>(0)).optional()? else {
                return Ok(());
            };
            let some =
                "DELETE FROM main.chunk WHERE id IN (SELECT id FROM main.chunk WHERE id >= ?1 AND id < ?2 LIMIT ?3)";
            let (from, until, rows) = (id << CHUNK_BITS, (id + 1) << CHUNK_BITS, i64::try_from(ROWS).unwrap_or(1));
            while in_turn(some, &[&from, &until, &rows])? > 0 {
                thread::sleep(GIVE_WAY);
            }
            in_turn("DELETE FROM main.incoming WHERE id = ?1", &[&id])?;
        }
    }
}

/// Makes what was brought a blob, within the caller's transaction; false if it was not brought.
pub(super) fn adopt(connection: &Connection, digest: Digest) -> Result<bool, StoreError> {
    let brought = "SELECT id, digest, len FROM main.incoming WHERE digest = ?1 AND len IS NOT NULL";
    let sql = format!("INSERT INTO main.blob (id, digest, len) {brought}");
    let is_adopted = connection.prepare_cached(&sql)?.execute([digest.0])? == 1;
    if is_adopted {
        connection.prepare_cached("DELETE FROM main.incoming WHERE digest = ?1")?.execute([digest.0])?;
    }
    Ok(is_adopted)
}

#[cfg(test)]
mod tests;
