//! Shell: the keys of Devices whose certificates were imported. Rows are only added: what one says never changes.

use std::ops::ControlFlow;

use rusqlite::{Connection, Row};

use super::super::StoreError;
use super::derived::{ByDevice, Schema};
use super::schema::Table;
use crate::domain::fold::snapshot;
use crate::domain::names::{DeviceId, Digest, Eui64};
use crate::domain::responses::{DeviceKey, ImportedKey};
use crate::domain::time::Timestamp;

/// A row has some 130 octets. The public key is x ‖ y; dates are seconds since 1970.
pub(super) const TABLE: Table = Table {
    name: "device_key",
    key: "device, point, device_ca, valid_from, valid_until",
    columns: "device, point, device_ca, valid_from, valid_until, entry",
    definition: "(device BLOB NOT NULL, point BLOB NOT NULL, device_ca BLOB NOT NULL, valid_from INTEGER NOT NULL,
        valid_until INTEGER NOT NULL, entry INTEGER NOT NULL,
        PRIMARY KEY (device, point, device_ca, valid_from, valid_until)) STRICT, WITHOUT ROWID",
    since: 3,
};

const NAME: &str = TABLE.name;

/// The first octet of an uncompressed point (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// Adds keys, each with the entry that it came with.
pub(super) fn add<'a>(
    connection: &Connection,
    schema: Schema,
    keys: impl IntoIterator<Item = (&'a DeviceKey, u64)>,
) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(match schema {
        Schema::Main => "INSERT INTO main.device_key VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        Schema::Rebuilt => "INSERT INTO rebuilt.device_key VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    })?;
    for (DeviceKey { device, point, device_ca, from, until }, entry) in keys {
        let dates = (from.unix_seconds(), until.unix_seconds());
        insert.execute((device.0.octets(), &point[1..], device_ca.0, dates.0, dates.1, entry.cast_signed()))?;
    }
    Ok(())
}

/// The keys of Devices.
pub(super) fn select(connection: &Connection, schema: Schema) -> Result<ByDevice<'_, ImportedKey>, StoreError> {
    let sql = match schema {
        Schema::Main => {
            "SELECT point, device_ca, valid_from, valid_until, entry FROM main.device_key WHERE device = ?1"
        }
        Schema::Rebuilt => {
            "SELECT point, device_ca, valid_from, valid_until, entry FROM rebuilt.device_key WHERE device = ?1"
        }
    };
    ByDevice::new(connection, sql, &[], imported)
}

/// Columns: point, device_ca, valid_from, valid_until, entry.
fn imported(device: DeviceId, row: &Row<'_>) -> Result<ImportedKey, StoreError> {
    let mut point = [UNCOMPRESSED; 65];
    point[1..].copy_from_slice(&octets::<64>(row, 0)?);
    let device_ca = Digest(octets(row, 1)?);
    let (from, until) = (moment(row, 2)?, moment(row, 3)?);
    let key = DeviceKey { device, point, device_ca, from, until };
    Ok(ImportedKey { key, entry: row.get::<_, i64>(4)?.cast_unsigned() })
}

/// Visits the keys from a Device on, in order, until `visit` breaks.
pub(super) fn each(
    connection: &Connection,
    schema: Schema,
    from: &[u8],
    visit: &mut dyn FnMut(snapshot::Row<'_>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut select = connection.prepare_cached(match schema {
        Schema::Main => {
            "SELECT point, device_ca, valid_from, valid_until, entry, device FROM main.device_key WHERE device >= ?1 \
             ORDER BY device, point, device_ca, valid_from, valid_until"
        }
        Schema::Rebuilt => {
            "SELECT point, device_ca, valid_from, valid_until, entry, device FROM rebuilt.device_key WHERE device >= ?1 \
             ORDER BY device, point, device_ca, valid_from, valid_until"
        }
    })?;
    let mut rows = select.query([from])?;
    while let Some(row) = rows.next()? {
        let key = imported(DeviceId(Eui64(octets(row, 5)?)), row)?;
        if visit(snapshot::Row::DeviceKey(&key)).is_break() {
            break;
        }
    }
    Ok(())
}

fn octets<const N: usize>(row: &Row<'_>, at: usize) -> Result<[u8; N], StoreError> {
    let found = row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from)?;
    found.try_into().map_err(|_| StoreError::RowCorrupt {
        table: NAME,
        expected: "octets of fixed length",
        found: hex::encode(found),
    })
}

fn moment(row: &Row<'_>, at: usize) -> Result<Timestamp, StoreError> {
    let seconds: i64 = row.get(at)?;
    let moment = seconds.checked_mul(1_000).and_then(|ms| Timestamp::from_unix_ms(ms).ok());
    moment.ok_or_else(|| StoreError::RowCorrupt {
        table: NAME,
        expected: "a moment in seconds since 1970",
        found: seconds.to_string(),
    })
}

/// Whether any was imported at all.
pub(super) fn is_any(connection: &Connection, schema: Schema) -> rusqlite::Result<bool> {
    let mut select = connection.prepare_cached(match schema {
        Schema::Main => "SELECT EXISTS (SELECT 1 FROM main.device_key)",
        Schema::Rebuilt => "SELECT EXISTS (SELECT 1 FROM rebuilt.device_key)",
    })?;
    select.query_row([], |row| row.get(0))
}
