//! Shell: blobs in rows of [`CHUNK_LEN`], so that one of any length streams in and out.
//!
//! A chunk's row id is the blob's id and the chunk's number in one integer, so that the chunks of a blob lie side by side.

use std::io::{self, Read};

use ring::digest::{Context, SHA256};
use rusqlite::{Connection, MAIN_DB, OptionalExtension as _};

use super::super::StoreError;
use crate::domain::names::Digest;

/// Octets a row. Large enough that a row's cost is small, small enough to be held by everyone who streams.
pub(super) const CHUNK_LEN: usize = 256 * 1024;
/// Bits of a chunk's row id that number it within its blob: 2^24 chunks are 4 TiB.
pub(super) const CHUNK_BITS: u32 = 24;

/// The first row id of a blob that was brought ahead of its entry ([`super::incoming`]).
pub(super) const INCOMING_FIRST: i64 = 1 << 38;

pub(super) fn to_digest(context: Context) -> Digest {
    Digest(context.finish().as_ref().try_into().expect("SHA-256 has 32 octets"))
}

/// A blob's row id and length.
pub(super) fn find(connection: &Connection, digest: Digest) -> rusqlite::Result<Option<(i64, u64)>> {
    connection
        .prepare_cached("SELECT id, len FROM main.blob WHERE digest = ?1")?
        .query_row([digest.0], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))
        .optional()
}

/// Stores a small blob of this digest, unless it is there.
pub(super) fn put(connection: &Connection, digest: Digest, octets: &[u8]) -> Result<(), StoreError> {
    if find(connection, digest)?.is_some() {
        return Ok(());
    }
    let id = begin(connection, digest)?;
    let mut insert = connection.prepare_cached(INSERT_CHUNK)?;
    for (number, piece) in (0..1_i64 << CHUNK_BITS).zip(octets.chunks(CHUNK_LEN)) {
        insert.execute((id << CHUNK_BITS | number, piece))?;
    }
    end(connection, id, octets.len() as u64)
}

pub(super) const INSERT_CHUNK: &str = "INSERT INTO main.chunk (id, octets) VALUES (?1, ?2)";

/// A blob's row, whose length is not known yet.
fn begin(connection: &Connection, digest: Digest) -> Result<i64, StoreError> {
    // One above the greatest, of those that were not brought: an id beyond may be taken by what is on its way.
    let next = "INSERT INTO main.blob (id, digest, len)
        SELECT 1 + coalesce((SELECT id FROM main.blob WHERE id < ?1 ORDER BY id DESC LIMIT 1), 0), ?2, 0";
    connection.prepare_cached(next)?.execute((INCOMING_FIRST, digest.0))?;
    Ok(connection.last_insert_rowid())
}

fn end(connection: &Connection, id: i64, len: u64) -> Result<(), StoreError> {
    connection.prepare_cached("UPDATE main.blob SET len = ?1 WHERE id = ?2")?.execute((len.cast_signed(), id))?;
    Ok(())
}

/// Stores what `octets` reads, which must be of this digest. Within the caller's transaction: an error undoes it.
pub(super) fn copy(connection: &Connection, digest: Digest, mut octets: impl Read) -> Result<(), StoreError> {
    let id = begin(connection, digest)?;
    let mut insert = connection.prepare_cached(INSERT_CHUNK)?;
    let mut context = Context::new(&SHA256);
    let mut piece = Vec::new();
    let mut len = 0;
    for number in 0..1_i64 << CHUNK_BITS {
        piece.clear();
        let got = octets
            .by_ref()
            .take(CHUNK_LEN as u64)
            .read_to_end(&mut piece)
            .map_err(|e| StoreError::Staging(super::super::StagingError::Source(e)))?;
        if got == 0 {
            break;
        }
        context.update(&piece);
        insert.execute((id << CHUNK_BITS | number, &piece))?;
        len += got as u64;
    }
    let found = to_digest(context);
    if found != digest {
        return Err(StoreError::BlobCorrupt { digest, found });
    }
    end(connection, id, len)
}

/// Some octets of a blob, from a place on. They are not checked: whoever asks knows what they must be.
pub(super) fn read_at(connection: &Connection, digest: Digest, at: u64, len: usize) -> Result<Vec<u8>, StoreError> {
    let (id, _) = find(connection, digest)?.ok_or(StoreError::NoSuchBlob { digest })?;
    let mut octets = vec![0; len];
    let (mut at, mut rest) = (at, octets.as_mut_slice());
    while !rest.is_empty() {
        let number = i64::try_from(at / CHUNK_LEN as u64).unwrap_or(i64::MAX >> CHUNK_BITS);
        let within = usize::try_from(at % CHUNK_LEN as u64).expect("less than a chunk");
        let (now, later) = rest.split_at_mut(rest.len().min(CHUNK_LEN - within));
        connection
            .blob_open(MAIN_DB, "chunk", "octets", id << CHUNK_BITS | number, true)?
            .read_at_exact(now, within)?;
        at += now.len() as u64;
        rest = later;
    }
    Ok(octets)
}

/// A blob as it is read, a chunk at a time.
pub(super) struct BlobReader<'a> {
    connection: &'a Connection,
    digest: Digest,
    /// The row id of the next chunk.
    next: i64,
    piece: Vec<u8>,
    /// How much of `piece` has been handed out.
    at: usize,
    /// `None` once the end was reached and the digest checked.
    context: Option<Context>,
}

impl<'a> BlobReader<'a> {
    pub(super) fn open(connection: &'a Connection, digest: Digest) -> Result<Self, StoreError> {
        let (id, _) = find(connection, digest)?.ok_or(StoreError::NoSuchBlob { digest })?;
        let context = Some(Context::new(&SHA256));
        Ok(Self { connection, digest, next: id << CHUNK_BITS, piece: Vec::new(), at: 0, context })
    }

    fn load(&mut self) -> rusqlite::Result<bool> {
        let mut select = self.connection.prepare_cached("SELECT octets FROM main.chunk WHERE id = ?1")?;
        let mut rows = select.query([self.next])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        self.piece.clear();
        self.piece.extend(row.get_ref(0)?.as_blob()?);
        self.at = 0;
        self.next += 1;
        Ok(true)
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            if self.context.is_none() {
                return Ok(0);
            }
            if self.load().map_err(io::Error::other)? {
                self.context.as_mut().expect("asked above").update(&self.piece);
            } else {
                let found = self.context.take().map(to_digest).expect("asked above");
                if found != self.digest {
                    let wrong = StoreError::BlobCorrupt { digest: self.digest, found };
                    return Err(io::Error::new(io::ErrorKind::InvalidData, wrong));
                }
                return Ok(0);
            }
        }
        let len = buffer.len().min(self.piece.len() - self.at);
        buffer[..len].copy_from_slice(&self.piece[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}
