//! Shell: how a few leaves are found among many, without a table of their own: two indices over the leaves themselves, which SQLite keeps
//! in the same transaction as these. They hold nothing that is not in a leaf, and whoever uses them reads the leaf.
//!
//! What is searched for stands in a leaf's JSON outside of every text: within one, each quotation mark has a backslash before it. The
//! contract of stores holds both against [`Common`] and a reading of every leaf.
//!
//! Of a command's two leaves neither is in the first index, and the intent, with some 25 octets, in the second.
//!
//! [`Common`]: crate::domain::ledger::entry::Common

use std::ops::{ControlFlow, Range};

use rusqlite::Connection;

use super::super::{StoreError, StoredLeaf};
use super::reading::hash_at;
use crate::domain::ledger::merkle::leaf_hash;
use crate::domain::names::DeviceId;

/// It is no signed outcome, which ends in `,"result":{"signed":"`, 64 digits, `"}}}}`. Asked first: at a known place, it costs a fiftieth of
/// a search through all of a leaf, of which half are such outcomes.
macro_rules! is_not_signed_outcome {
    () => {
        "substr(octets, -90, 21) <> X'2C22726573756C74223A7B227369676E6564223A22'"
    };
}

/// `"event":{"intent":{` stands in it.
macro_rules! is_intent {
    () => {
        concat!(is_not_signed_outcome!(), " AND instr(octets, X'226576656E74223A7B22696E74656E74223A7B') > 0")
    };
}

/// It is neither an intent nor a signed outcome.
macro_rules! is_uncommon {
    () => {
        concat!(is_not_signed_outcome!(), " AND instr(octets, X'226576656E74223A7B22696E74656E74223A7B') = 0")
    };
}

/// The Device of an intent: the 16 digits behind `"device":"`.
macro_rules! device {
    () => {
        "substr(octets, instr(octets, X'22646576696365223A22') + 10, 16)"
    };
}

/// Makes the indices where they are missing: over an older ledger, once, by reading all of it.
pub(super) const DEFINITION: &str = concat!(
    "CREATE INDEX IF NOT EXISTS main.leaf_uncommon ON leaf (idx) WHERE ",
    is_uncommon!(),
    "; CREATE INDEX IF NOT EXISTS main.leaf_device ON leaf (",
    device!(),
    ") WHERE ",
    is_intent!(),
    ";"
);

/// As [`super::Reader::uncommon`].
pub(super) fn uncommon(
    connection: &Connection,
    range: &Range<u64>,
    visit: &mut dyn FnMut(StoredLeaf<'_>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut select = connection.prepare_cached(concat!(
        "SELECT idx, hash, octets FROM main.leaf INDEXED BY leaf_uncommon WHERE ",
        is_uncommon!(),
        " AND idx >= ?1 AND idx < ?2 ORDER BY idx"
    ))?;
    let mut rows = select.query((range.start.cast_signed(), range.end.cast_signed()))?;
    while let Some(row) = rows.next()? {
        let (index, hash) = (row.get::<_, i64>(0)?.cast_unsigned(), hash_at(row, 1)?);
        let octets = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let found = leaf_hash(octets);
        if found != hash {
            return Err(StoreError::LeafCorrupt { index, expected: hash, found });
        }
        if visit(StoredLeaf { index, octets, hash }).is_break() {
            break;
        }
    }
    Ok(())
}

/// As [`super::Reader::intents_of`].
pub(super) fn intents_of(connection: &Connection, device: DeviceId) -> Result<Vec<u64>, StoreError> {
    let mut select = connection.prepare_cached(concat!(
        "SELECT idx FROM main.leaf INDEXED BY leaf_device WHERE ",
        device!(),
        " = ?1 AND ",
        is_intent!(),
        " ORDER BY idx"
    ))?;
    let rows = select.query_map([device.to_string().as_bytes()], |row| row.get::<_, i64>(0))?;
    rows.map(|index| Ok(index?.cast_unsigned())).collect()
}
