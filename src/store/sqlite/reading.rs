//! Shell: everything that is read, over whichever connection.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::{ControlFlow, Range};

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::super::{DerivedState, Reader, SignatureRow, StoreError, StoredCheckpoint, StoredLeaf};
use super::blobs::{self, BlobReader};
use super::derived::{self, Schema};
use super::device_keys;
use super::found;
use super::lists::{self, PageCache};
use super::overlay::Shared;
use crate::domain::determination::document::DeviceList;
use crate::domain::fold::RequestFacts;
use crate::domain::ledger::merkle::{Head, MerkleError, Subtree, leaf_hash};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};
use crate::domain::responses::{ImportedKey, Responded};

/// How many entries one statement reads, so that a long reading does not keep the WAL from being emptied.
const LEAVES_A_STATEMENT: u64 = 4096;
/// Devices whose keys are read in one transaction, while whoever commits waits: some two milliseconds.
const KEYS_A_TRANSACTION: usize = 256;

/// Has a connection to derived tables.
pub(super) trait Tables {
    /// Which set of them.
    const SCHEMA: Schema;
    fn connection(&self) -> &Connection;
    /// What lies over the tables; none over those made again.
    fn shared(&self) -> Option<&Shared>;
    /// The pages of device lists that were read last.
    fn pages(&self) -> &PageCache;
}

/// Has a connection to a ledger, and the derived tables are the ledger's own.
pub(super) trait Ledger: Tables {}

pub(super) fn hash_at(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Digest> {
    row.get(at).map(Digest)
}

fn check_range(connection: &Connection, range: &Range<u64>) -> Result<(), StoreError> {
    let size = head(connection)?.size;
    if range.start < range.end && range.end > size {
        return Err(MerkleError::NoSuchLeaf { index: range.end - 1, size }.into());
    }
    Ok(())
}

impl<T: Tables> DerivedState for T {
    fn device(&self, key: &KeyLabel, device: DeviceId) -> Result<Option<DeviceFacts>, StoreError> {
        match self.shared() {
            Some(shared) => shared.read().device(self.connection(), key, device),
            None => derived::select_device(self.connection(), T::SCHEMA, key)?.one(device),
        }
    }

    fn devices(&self, key: &KeyLabel, devices: &[DeviceId]) -> Result<Vec<Option<DeviceFacts>>, StoreError> {
        if let Some(shared) = self.shared() {
            return shared.read().devices(self.connection(), key, devices);
        }
        let mut select = derived::select_device(self.connection(), T::SCHEMA, key)?;
        devices.iter().map(|device| select.one(*device)).collect()
    }

    fn devices_in(
        &self,
        key: &KeyLabel,
        state: IntentState,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<(DeviceId, DeviceFacts)>, StoreError> {
        match self.shared() {
            Some(shared) => shared.read().devices_in(self.connection(), key, state, after, limit),
            None => derived::devices_in(self.connection(), T::SCHEMA, (key, state), after, limit, |_| true),
        }
    }

    fn listed(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Listed>, StoreError> {
        lists::listed(self.connection(), (T::SCHEMA, self.pages()), determination, device)
    }

    fn listed_from(
        &self,
        determination: DeterminationId,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        lists::listed_from(self.connection(), (T::SCHEMA, self.pages()), determination, after, limit)
    }

    fn list_head(&self, determination: DeterminationId) -> Result<Option<DeviceList>, StoreError> {
        lists::head(self.connection(), T::SCHEMA, determination)
    }

    fn listed_count(&self, determination: DeterminationId) -> Result<Option<u64>, StoreError> {
        lists::count(self.connection(), T::SCHEMA, determination)
    }

    fn signature(&self, intent: u64) -> Result<Option<SignatureRow>, StoreError> {
        derived::signature(self.connection(), T::SCHEMA, intent)
    }

    fn released_from(&self, from: u64, limit: usize) -> Result<Vec<(u64, [u8; 64])>, StoreError> {
        derived::released_from(self.connection(), T::SCHEMA, from, limit)
    }

    fn request(&self, id: RequestId) -> Result<Option<RequestFacts>, StoreError> {
        match self.shared() {
            Some(shared) => shared.read().request(self.connection(), id),
            None => derived::request(self.connection(), T::SCHEMA, id),
        }
    }

    fn earlier(&self, key: &KeyLabel, device: DeviceId, counter: u64) -> Result<Option<u64>, StoreError> {
        match self.shared() {
            Some(shared) => shared.read().earlier(self.connection(), key, device, counter),
            None => derived::earlier(self.connection(), T::SCHEMA, key, device, counter),
        }
    }

    fn responded(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Responded>, StoreError> {
        match self.shared() {
            Some(shared) => shared.read().responded(self.connection(), determination, device),
            None => derived::select_responded(self.connection(), T::SCHEMA, determination)?.one(device),
        }
    }

    fn responded_many(
        &self,
        determination: DeterminationId,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<Responded>>, StoreError> {
        if let Some(shared) = self.shared() {
            return shared.read().responded_many(self.connection(), determination, devices);
        }
        let mut select = derived::select_responded(self.connection(), T::SCHEMA, determination)?;
        devices.iter().map(|device| select.one(*device)).collect()
    }

    fn device_keys(&self, device: DeviceId) -> Result<Vec<ImportedKey>, StoreError> {
        match self.shared() {
            Some(shared) => {
                let connection = self.connection();
                let stored = || device_keys::select(connection, T::SCHEMA)?.all(device);
                shared.read().device_keys(connection, device, stored)
            }
            None => device_keys::select(self.connection(), T::SCHEMA)?.all(device),
        }
    }

    fn device_keys_of(&self, devices: &BTreeSet<DeviceId>) -> Result<Vec<(DeviceId, Vec<ImportedKey>)>, StoreError> {
        let (mut found, mut devices) = (Vec::with_capacity(devices.len()), devices.iter().copied().peekable());
        while devices.peek().is_some() {
            // The state first and the tables after it, both held: no snapshot comes in between, which takes rows from the one to the
            // other. Each statement would else take the locks of a transaction for itself, which cost as much as it does.
            let state = self.shared().map(Shared::read);
            let connection = self.connection();
            let transaction = connection.is_autocommit().then(|| connection.unchecked_transaction()).transpose()?;
            let mut select = device_keys::select(connection, T::SCHEMA)?;
            for device in devices.by_ref().take(KEYS_A_TRANSACTION) {
                let keys = match &state {
                    Some(state) => state.device_keys(connection, device, || select.all(device))?,
                    None => select.all(device)?,
                };
                found.push((device, keys));
            }
            drop(select);
            transaction.map(Transaction::finish).transpose()?;
        }
        Ok(found)
    }

    fn has_device_keys(&self) -> Result<bool, StoreError> {
        match self.shared() {
            Some(shared) => shared.read().has_device_keys(self.connection()),
            None => Ok(device_keys::is_any(self.connection(), T::SCHEMA)?),
        }
    }
}

impl<T: Ledger> Reader for T {
    fn head(&self) -> Result<Head, StoreError> {
        Ok(head(self.connection())?)
    }

    fn leaves(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(StoredLeaf<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        check_range(self.connection(), &range)?;
        let mut select = self
            .connection()
            .prepare_cached("SELECT idx, hash, octets FROM main.leaf WHERE idx >= ?1 AND idx < ?2 ORDER BY idx")?;
        let mut next = range.start;
        while next < range.end {
            let until = range.end.min(next.saturating_add(LEAVES_A_STATEMENT));
            let mut rows = select.query((next.cast_signed(), until.cast_signed()))?;
            while next < until {
                let row = rows.next()?.filter(|row| row.get(0) == Ok(next.cast_signed()));
                let row = row.ok_or_else(|| missing_leaf(next))?;
                let hash = hash_at(row, 1)?;
                let octets = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
                let found = leaf_hash(octets);
                if found != hash {
                    return Err(StoreError::LeafCorrupt { index: next, expected: hash, found });
                }
                if visit(StoredLeaf { index: next, octets, hash }).is_break() {
                    return Ok(());
                }
                next += 1;
            }
        }
        Ok(())
    }

    fn uncommon(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(StoredLeaf<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        check_range(self.connection(), &range)?;
        found::uncommon(self.connection(), &range, visit)
    }

    fn intents_of(&self, device: DeviceId) -> Result<Vec<u64>, StoreError> {
        found::intents_of(self.connection(), device)
    }

    fn leaf_hashes(&self, range: Range<u64>, visit: &mut dyn FnMut(Digest)) -> Result<(), StoreError> {
        check_range(self.connection(), &range)?;
        let mut select = self
            .connection()
            .prepare_cached("SELECT idx, hash FROM main.leaf WHERE idx >= ?1 AND idx < ?2 ORDER BY idx")?;
        let mut rows = select.query((range.start.cast_signed(), range.end.cast_signed()))?;
        for index in range {
            let row = rows.next()?.filter(|row| row.get(0) == Ok(index.cast_signed()));
            visit(hash_at(row.ok_or_else(|| missing_leaf(index))?, 1)?);
        }
        Ok(())
    }

    fn node(&self, subtree: Subtree) -> Result<Option<Digest>, StoreError> {
        let mut select =
            self.connection().prepare_cached("SELECT hash FROM main.node WHERE level = ?1 AND idx = ?2")?;
        Ok(select.query_row((subtree.level, subtree.index.cast_signed()), |row| hash_at(row, 0)).optional()?)
    }

    fn checkpoints(&self, from_size: u64, limit: usize) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let mut select = self
            .connection()
            .prepare_cached("SELECT size, root, note FROM main.checkpoint WHERE size >= ?1 ORDER BY size LIMIT ?2")?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = select.query_map((from_size.cast_signed(), limit), read_checkpoint)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn latest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, StoreError> {
        let mut select = self
            .connection()
            .prepare_cached("SELECT size, root, note FROM main.checkpoint ORDER BY size DESC LIMIT 1")?;
        Ok(select.query_row([], read_checkpoint).optional()?)
    }

    fn blob_len(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        Ok(blobs::find(self.connection(), digest)?.map(|(_, len)| len))
    }

    fn open_blob(&self, digest: Digest) -> Result<Box<dyn Read + '_>, StoreError> {
        Ok(Box::new(BlobReader::open(self.connection(), digest)?))
    }
}

pub(super) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    connection
        .prepare_cached("SELECT size, root FROM main.head WHERE id = 1")?
        .query_row([], |row| Ok(Head { size: row.get::<_, i64>(0)?.cast_unsigned(), root: hash_at(row, 1)? }))
}

fn read_checkpoint(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredCheckpoint> {
    let head = Head { size: row.get::<_, i64>(0)?.cast_unsigned(), root: hash_at(row, 1)? };
    Ok(StoredCheckpoint { head, note: row.get(2)? })
}

fn missing_leaf(index: u64) -> StoreError {
    StoreError::HeadCorrupt { expected: format!("an entry {index}"), found: "none".into() }
}
