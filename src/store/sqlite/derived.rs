//! Shell: the derived tables, in the store's schema or in the one where they are made again.

use std::borrow::Borrow;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::str::FromStr;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, ToSql};

use super::super::derived::from_code;
use super::super::{Derived, SignatureRow, StoreError};
use super::device_keys;
use super::lists;
use super::schema::Table;
use crate::domain::fold::RequestFacts;
use crate::domain::fold::snapshot::rows::split_device_key;
use crate::domain::fold::snapshot::{self, Rows};
use crate::domain::names::{DeterminationId, DeviceId, Digest, Eui64, KeyLabel, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState};
use crate::domain::responses::{OwnResult, Responded};

/// Which of the two sets of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// The store's own.
    Main,
    /// The one made again.
    Rebuilt,
}

/// A statement about a derived table of a schema; both texts are constants, so that each is prepared once.
macro_rules! sql {
    ($schema:expr, $before:literal, $after:literal) => {
        match $schema {
            Schema::Main => concat!($before, " main.", $after),
            Schema::Rebuilt => concat!($before, " rebuilt.", $after),
        }
    };
}
pub(super) use sql;

fn corrupt(table: &'static str, expected: &'static str, found: &Value) -> StoreError {
    StoreError::RowCorrupt { table, expected, found: format!("{found:?}") }
}

fn text<T: FromStr>(row: &Row<'_>, at: usize, table: &'static str, expected: &'static str) -> Result<T, StoreError> {
    match row.get_ref(at)? {
        ValueRef::Text(octets) => str::from_utf8(octets).ok().and_then(|text| text.parse().ok()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
    .ok_or_else(|| row.get(at).map_or_else(StoreError::from, |found| corrupt(table, expected, &found)))
}

pub(super) fn octets<const N: usize>(row: &Row<'_>, at: usize, table: &'static str) -> Result<[u8; N], StoreError> {
    match row.get_ref(at)? {
        ValueRef::Blob(octets) => octets.try_into().ok(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => None,
    }
    .ok_or_else(|| row.get(at).map_or_else(StoreError::from, |found| corrupt(table, "octets of fixed length", &found)))
}

pub(super) fn number(row: &Row<'_>, at: usize) -> Result<u64, StoreError> {
    Ok(row.get::<_, i64>(at)?.cast_unsigned())
}

/// Columns: counter, determination, template, intent, state, attempt.
fn device_row(row: &Row<'_>) -> Result<DeviceFacts, StoreError> {
    Ok(DeviceFacts {
        counter: number(row, 0)?,
        determination: DeterminationId(octets(row, 1, "device")?),
        template: text(row, 2, "device", "a template name")?,
        intent: number(row, 3)?,
        state: from_code(row.get(4)?)?,
        attempt: row.get(5)?,
    })
}

/// At most one row, read by `read`.
pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(params)?;
    rows.next()?.map(read).transpose()
}

/// All rows, read by `read`.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The place before every Device: BLOBs compare octet by octet, and the empty one is the least.
pub(super) fn after(device: Option<&DeviceId>) -> &[u8] {
    device.map_or(&[], |device| device.0.octets())
}

/// A statement that finds what a table has of a Device: made ready once, for however many Devices are asked for.
pub(super) struct ByDevice<'a, T> {
    select: CachedStatement<'a>,
    /// Which of its parameters the Device is: the last.
    at: usize,
    read: fn(DeviceId, &Row<'_>) -> Result<T, StoreError>,
}

impl<'a, T> ByDevice<'a, T> {
    /// `before` are the parameters before the Device.
    pub(super) fn new(
        connection: &'a Connection,
        sql: &str,
        before: &[&dyn ToSql],
        read: fn(DeviceId, &Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Self, StoreError> {
        let mut select = connection.prepare_cached(sql)?;
        debug_assert_eq!(select.parameter_count(), before.len() + 1, "the Device is the last of them");
        for (at, value) in (1..).zip(before) {
            select.raw_bind_parameter(at, value)?;
        }
        Ok(Self { select, at: before.len() + 1, read })
    }

    /// The Device's row, where it has one at most.
    pub(super) fn one(&mut self, device: DeviceId) -> Result<Option<T>, StoreError> {
        self.select.raw_bind_parameter(self.at, device.0.octets())?;
        let mut rows = self.select.raw_query();
        rows.next()?.map(|row| (self.read)(device, row)).transpose()
    }

    /// All rows of the Device.
    pub(super) fn all(&mut self, device: DeviceId) -> Result<Vec<T>, StoreError> {
        self.select.raw_bind_parameter(self.at, device.0.octets())?;
        let (mut rows, mut found) = (self.select.raw_query(), Vec::new());
        while let Some(row) = rows.next()? {
            // Nearly always there is one.
            if found.is_empty() {
                found.reserve_exact(1);
            }
            found.push((self.read)(device, row)?);
        }
        Ok(found)
    }
}

/// The last intents for Devices under a key.
pub(super) fn select_device<'a>(
    connection: &'a Connection,
    schema: Schema,
    key: &KeyLabel,
) -> Result<ByDevice<'a, DeviceFacts>, StoreError> {
    let sql = sql!(
        schema,
        "SELECT counter, determination, template, intent, state, attempt FROM",
        "device WHERE key = ?1 AND device = ?2"
    );
    ByDevice::new(connection, sql, &[&key.as_str()], |_, row| device_row(row))
}

/// The Devices under a key in a state, after one; at most `limit` of those whose rows `lies` says are as in the table.
pub(super) fn devices_in(
    connection: &Connection,
    schema: Schema,
    (key, state): (&KeyLabel, IntentState),
    from: Option<DeviceId>,
    limit: usize,
    lies: impl Fn(&DeviceId) -> bool,
) -> Result<Vec<(DeviceId, DeviceFacts)>, StoreError> {
    let sql = if state.is_pending() {
        // The first term is the index's own, word for word, so that SQLite may use it.
        sql!(
            schema,
            "SELECT counter, determination, template, intent, state, attempt, device FROM",
            "device WHERE state IN (1, 5) AND key = ?1 AND state = ?2 AND device > ?3 ORDER BY device"
        )
    } else {
        sql!(
            schema,
            "SELECT counter, determination, template, intent, state, attempt, device FROM",
            "device WHERE key = ?1 AND state = ?2 AND device > ?3 ORDER BY device"
        )
    };
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query((key.as_str(), state.code(), after(from.as_ref())))?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let device = DeviceId(Eui64(octets(row, 6, "device")?));
        if lies(&device) {
            found.push((device, device_row(row)?));
        }
    }
    Ok(found)
}

/// Visits the Devices under a key, from one on, or after one, until `visit` breaks.
pub(super) fn devices_of_page(
    connection: &Connection,
    key: &KeyLabel,
    from: Option<&DeviceId>,
    past: Option<DeviceId>,
    visit: &mut dyn FnMut(DeviceId, DeviceFacts) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT counter, determination, template, intent, state, attempt, device FROM main.device \
         WHERE key = ?1 AND device >= ?2 AND device > ?3 ORDER BY device",
    )?;
    let mut rows = select.query((key.as_str(), after(from), after(past.as_ref())))?;
    while let Some(row) = rows.next()? {
        if visit(DeviceId(Eui64(octets(row, 6, "device")?)), device_row(row)?).is_break() {
            break;
        }
    }
    Ok(())
}

pub(super) fn signature(
    connection: &Connection,
    schema: Schema,
    intent: u64,
) -> Result<Option<SignatureRow>, StoreError> {
    let sql = sql!(schema, "SELECT octets, released FROM", "signature WHERE intent = ?1");
    one(connection, sql, [intent.cast_signed()], |row| {
        Ok(SignatureRow { octets: octets(row, 0, "signature")?, released: row.get(1)? })
    })
}

pub(super) fn released_from(
    connection: &Connection,
    schema: Schema,
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, [u8; 64])>, StoreError> {
    let sql = sql!(
        schema,
        "SELECT intent, octets FROM",
        "signature WHERE intent >= ?1 AND released = 1 ORDER BY intent LIMIT ?2"
    );
    all(connection, sql, (from.cast_signed(), i64::try_from(limit).unwrap_or(i64::MAX)), |row| {
        Ok((number(row, 0)?, octets(row, 1, "signature")?))
    })
}

pub(super) fn request(
    connection: &Connection,
    schema: Schema,
    id: RequestId,
) -> Result<Option<RequestFacts>, StoreError> {
    let sql = sql!(schema, "SELECT asked, first_batch, last_batch FROM", "request WHERE id = ?1");
    one(connection, sql, [id.0], request_row)
}

/// Columns: asked, first_batch, last_batch.
fn request_row(row: &Row<'_>) -> Result<RequestFacts, StoreError> {
    Ok(RequestFacts {
        asked: Digest(octets(row, 0, "request")?),
        first_batch: number(row, 1)?,
        last_batch: number(row, 2)?,
    })
}

pub(super) fn earlier(
    connection: &Connection,
    schema: Schema,
    key: &KeyLabel,
    device: DeviceId,
    counter: u64,
) -> Result<Option<u64>, StoreError> {
    let sql = sql!(schema, "SELECT intent FROM", "earlier WHERE key = ?1 AND device = ?2 AND counter = ?3");
    one(connection, sql, (key.as_str(), device.0.octets(), counter.cast_signed()), |row| number(row, 0))
}

/// What Devices have answered under a determination.
pub(super) fn select_responded(
    connection: &Connection,
    schema: Schema,
    determination: DeterminationId,
) -> Result<ByDevice<'_, Responded>, StoreError> {
    let sql = sql!(
        schema,
        "SELECT entry, intent, outcome, detail, foreign_counter FROM",
        "response WHERE determination = ?1 AND device = ?2"
    );
    ByDevice::new(connection, sql, &[&determination.0], |_, row| responded_row(row))
}

/// Columns: entry, intent, outcome, detail, foreign_counter.
fn responded_row(row: &Row<'_>) -> Result<Responded, StoreError> {
    let own = match row.get::<_, Option<i64>>(0)? {
        None => None,
        Some(entry) => Some(OwnResult {
            entry: entry.cast_unsigned(),
            intent: number(row, 1)?,
            outcome: text(row, 2, "response", "a result such as recovered")?,
            detail: row.get::<_, String>(3)?.into(),
        }),
    };
    Ok(Responded { own, foreign: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned) })
}

/// Puts what Devices said over what is there.
pub(super) fn put_responded(
    connection: &Connection,
    schema: Schema,
    all: impl IntoIterator<Item = (DeterminationId, DeviceId, impl Borrow<Responded>)>,
) -> Result<(), StoreError> {
    let sql = sql!(
        schema,
        "INSERT INTO",
        "response AS before VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET \
         entry = coalesce(excluded.entry, before.entry), intent = coalesce(excluded.intent, before.intent), \
         outcome = coalesce(excluded.outcome, before.outcome), detail = coalesce(excluded.detail, before.detail), \
         foreign_counter = coalesce(excluded.foreign_counter, before.foreign_counter)"
    );
    let mut put = connection.prepare_cached(sql)?;
    for (determination, device, said) in all {
        let Responded { own, foreign } = said.borrow();
        put.execute((
            determination.0,
            device.0.octets(),
            own.as_ref().map(|own| own.entry.cast_signed()),
            own.as_ref().map(|own| own.intent.cast_signed()),
            own.as_ref().map(|own| own.outcome.as_str()),
            own.as_ref().map(|own| &*own.detail),
            foreign.map(u64::cast_signed),
        ))?;
    }
    Ok(())
}

/// Whether an insertion failed because the row is there already.
fn is_duplicate(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

pub(super) fn put_device(
    connection: &Connection,
    schema: Schema,
    key: &KeyLabel,
    device: DeviceId,
    row: &DeviceFacts,
) -> Result<(), StoreError> {
    let DeviceFacts { counter, determination, template, intent, state, attempt } = row;
    let sql = sql!(schema, "INSERT OR REPLACE INTO", "device VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    connection.prepare_cached(sql)?.execute((
        key.as_str(),
        device.0.octets(),
        counter.cast_signed(),
        determination.0,
        template.as_str(),
        intent.cast_signed(),
        state.code(),
        attempt,
    ))?;
    Ok(())
}

pub(super) fn put_request(
    connection: &Connection,
    schema: Schema,
    id: RequestId,
    row: &RequestFacts,
) -> Result<(), StoreError> {
    let RequestFacts { asked, first_batch, last_batch } = row;
    let sql = sql!(schema, "INSERT OR REPLACE INTO", "request VALUES (?1, ?2, ?3, ?4)");
    connection.prepare_cached(sql)?.execute((id.0, asked.0, first_batch.cast_signed(), last_batch.cast_signed()))?;
    Ok(())
}

pub(super) fn put_earlier(
    connection: &Connection,
    key: &KeyLabel,
    device: DeviceId,
    counter: u64,
    intent: u64,
) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO main.earlier VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute((key.as_str(), device.0.octets(), counter.cast_signed(), intent.cast_signed()))?;
    Ok(())
}

/// A command that another counter overtakes, in the tables made again.
const EARLIER_REBUILT: &str = "INSERT OR REPLACE INTO rebuilt.earlier SELECT key, device, counter, intent FROM rebuilt.device \
     WHERE key = ?1 AND device = ?2 AND counter <> ?3 AND state IN (1, 2, 5, 6)";

/// Applies one operation on the tables made again, within the caller's transaction.
pub(super) fn apply(connection: &Connection, derived: &Derived<'_>) -> Result<(), StoreError> {
    match derived {
        Derived::Device { key, device, row } => {
            if row.state == IntentState::Open {
                // As `DeviceFacts::is_overtaken_by` says: 1, 2, 5 and 6 are the states that may be signed.
                let mut insert = connection.prepare_cached(EARLIER_REBUILT)?;
                insert.execute((key.as_str(), device.0.octets(), row.counter.cast_signed()))?;
            }
            put_device(connection, Schema::Rebuilt, key, *device, row)
        }
        Derived::Responses { determination, entry, lines } => {
            let said = lines.iter().filter_map(|line| Some((*determination, line.device?, line.said(*entry)?)));
            put_responded(connection, Schema::Rebuilt, said)
        }
        Derived::Request { id, row } => put_request(connection, Schema::Rebuilt, *id, row),
        Derived::DeviceKeys { entry, keys } => {
            device_keys::add(connection, Schema::Rebuilt, keys.iter().map(|key| (key, *entry)))
        }
        Derived::List { .. } | Derived::Signature { .. } | Derived::Released { .. } => {
            apply_at_once(connection, Schema::Rebuilt, derived)
        }
    }
}

/// Applies one operation on the tables that have what is so now, within the caller's transaction. The others wait for a snapshot.
pub(super) fn apply_at_once(connection: &Connection, schema: Schema, derived: &Derived<'_>) -> Result<(), StoreError> {
    match derived {
        Derived::List { determination, blob, pages } => {
            lists::import(connection, schema, *determination, *blob, *pages)?;
        }
        Derived::Signature { intent, octets, released } => {
            let sql = sql!(schema, "INSERT INTO", "signature VALUES (?1, ?2, ?3)");
            match connection.prepare_cached(sql)?.execute((intent.cast_signed(), octets, released)) {
                Err(e) if is_duplicate(&e) => return Err(StoreError::SignatureExists { intent: *intent }),
                result => {
                    result?;
                }
            }
        }
        Derived::Released { from, until } => {
            let sql = sql!(
                schema,
                "UPDATE",
                "signature SET released = 1 WHERE intent >= ?1 AND intent < ?2 AND released = 0"
            );
            connection.prepare_cached(sql)?.execute((from.cast_signed(), until.cast_signed()))?;
        }
        Derived::Device { .. } | Derived::Request { .. } | Derived::Responses { .. } | Derived::DeviceKeys { .. } => {}
    }
    Ok(())
}

/// The rows of the tables that grow with Devices, in order.
pub(super) struct StoredRows<'a> {
    pub(super) connection: &'a Connection,
    pub(super) schema: Schema,
}

impl Rows for StoredRows<'_> {
    type Error = StoreError;

    fn rows_from(
        &self,
        table: snapshot::Table,
        from: &[u8],
        visit: &mut dyn FnMut(snapshot::Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let (connection, schema) = (self.connection, self.schema);
        let (label, device) = split_device_key(from);
        match table {
            snapshot::Table::Device => {
                let same = sql!(
                    schema,
                    "SELECT counter, determination, template, intent, state, attempt, key, device FROM",
                    "device WHERE key = ?1 AND device >= ?2 ORDER BY device"
                );
                let later = sql!(
                    schema,
                    "SELECT counter, determination, template, intent, state, attempt, key, device FROM",
                    "device WHERE key > ?1 ORDER BY key, device"
                );
                let mut last: Option<KeyLabel> = None;
                from_on(connection, (same, later), (label, device), |row| {
                    let facts = device_row(row)?;
                    let key = same_label(row, 6, "device", &mut last)?;
                    let device = DeviceId(Eui64(octets(row, 7, "device")?));
                    Ok(visit(snapshot::Row::Device { key, device, facts: &facts }))
                })
            }
            snapshot::Table::Request => {
                let sql = sql!(
                    schema,
                    "SELECT asked, first_batch, last_batch, id FROM",
                    "request WHERE id >= ?1 ORDER BY id"
                );
                each(connection, sql, [from], |row| {
                    let facts = request_row(row)?;
                    Ok(visit(snapshot::Row::Request { id: RequestId(octets(row, 3, "request")?), facts: &facts }))
                })
                .map(|_| ())
            }
            snapshot::Table::Earlier => {
                let same = sql!(
                    schema,
                    "SELECT key, device, counter, intent FROM",
                    "earlier WHERE key = ?1 AND device >= ?2 ORDER BY device, counter"
                );
                let later = sql!(
                    schema,
                    "SELECT key, device, counter, intent FROM",
                    "earlier WHERE key > ?1 ORDER BY key, device, counter"
                );
                let mut last: Option<KeyLabel> = None;
                let device = device.get(..8).unwrap_or(device);
                from_on(connection, (same, later), (label, device), |row| {
                    let key = same_label(row, 0, "earlier", &mut last)?;
                    let device = DeviceId(Eui64(octets(row, 1, "earlier")?));
                    let (counter, intent) = (number(row, 2)?, number(row, 3)?);
                    Ok(visit(snapshot::Row::Earlier { key, device, counter, intent }))
                })
            }
            snapshot::Table::DeviceKey => device_keys::each(connection, schema, from.get(..8).unwrap_or(from), visit),
            snapshot::Table::Response => {
                let same = sql!(
                    schema,
                    "SELECT entry, intent, outcome, detail, foreign_counter, determination, device FROM",
                    "response WHERE determination = ?1 AND device >= ?2 ORDER BY device"
                );
                let later = sql!(
                    schema,
                    "SELECT entry, intent, outcome, detail, foreign_counter, determination, device FROM",
                    "response WHERE determination > ?1 ORDER BY determination, device"
                );
                from_on(connection, (same, later), from.split_at(from.len().min(DeterminationId::LEN)), |row| {
                    let responded = responded_row(row)?;
                    let determination = DeterminationId(octets(row, 5, "response")?);
                    let device = DeviceId(Eui64(octets(row, 6, "response")?));
                    Ok(visit(snapshot::Row::Response { determination, device, responded: &responded }))
                })
            }
        }
    }
}

/// Visits rows until it breaks.
fn each(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    mut visit: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>, StoreError>,
) -> Result<ControlFlow<()>, StoreError> {
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(params)?;
    while let Some(row) = rows.next()? {
        if visit(row)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Visits the rows from a pair of columns on until it breaks: by one statement those of the `first` from the `second` on, by another those of
/// every later `first`. One with both in its condition would compare them once more with each row that it finds.
fn from_on(
    connection: &Connection,
    (same, later): (&str, &str),
    (first, second): (impl ToSql + Copy, &[u8]),
    mut visit: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    if each(connection, same, (first, second), &mut visit)?.is_continue() {
        let _ = each(connection, later, [first], visit)?;
    }
    Ok(())
}

/// A row's label: nearly always that of the row before.
fn same_label<'a>(
    row: &Row<'_>,
    at: usize,
    table: &'static str,
    last: &'a mut Option<KeyLabel>,
) -> Result<&'a KeyLabel, StoreError> {
    let is_same = match (row.get_ref(at)?, &*last) {
        (ValueRef::Text(octets), Some(label)) => octets == label.as_str().as_bytes(),
        _ => false,
    };
    if !is_same {
        *last = Some(text(row, at, table, "a key's label")?);
    }
    Ok(last.as_ref().expect("it was put there"))
}

/// Compares both sets of tables row by row, in the order of their keys: linear, and one row of each in memory.
pub(super) fn compare<'a>(
    connection: &Connection,
    tables: impl IntoIterator<Item = &'a Table>,
) -> Result<(), StoreError> {
    for Table { name, key, columns, .. } in tables {
        let select = |schema| connection.prepare(&format!("SELECT {columns} FROM {schema}.{name} ORDER BY {key}"));
        let (mut recorded, mut rebuilt) = (select("main")?, select("rebuilt")?);
        let (mut recorded, mut rebuilt) = (recorded.query([])?, rebuilt.query([])?);
        loop {
            let (a, b) = (recorded.next()?, rebuilt.next()?);
            let same = match (a, b) {
                (None, None) => break,
                (Some(a), Some(b)) => same_values(a, b)?,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !same {
                return Err(StoreError::DerivedDiffers { table: name, recorded: show(a)?, rebuilt: show(b)? });
            }
        }
    }
    Ok(())
}

/// Compares the device lists that were made again with the store's of the same numbers, and that what was released is so in the store.
pub(super) fn compare_lists(connection: &Connection) -> Result<(), StoreError> {
    for (name, number, columns) in
        [("list", "id", "id, determination, blob, len"), ("page", "list", "list, first, at, len, lines, root")]
    {
        for (one, other) in [("main", "rebuilt"), ("rebuilt", "main")] {
            let sql = format!(
                "SELECT {columns} FROM {one}.{name} WHERE {number} <= (SELECT coalesce(max(id), 0) FROM rebuilt.list) \
                 EXCEPT SELECT {columns} FROM {other}.{name} LIMIT 1"
            );
            let mut select = connection.prepare(&sql)?;
            let mut rows = select.query([])?;
            let row = rows.next()?;
            if row.is_some() {
                let (found, nothing) = (show(row)?, "nothing".to_owned());
                let (recorded, rebuilt) = if one == "main" { (found, nothing) } else { (nothing, found) };
                return Err(StoreError::DerivedDiffers { table: name, recorded, rebuilt });
            }
        }
    }
    let sql = "SELECT made.intent, made.octets, made.released FROM rebuilt.signature AS made \
               LEFT JOIN main.signature AS kept ON kept.intent = made.intent \
               WHERE kept.octets IS NOT made.octets OR kept.released < made.released LIMIT 1";
    let mut select = connection.prepare(sql)?;
    let mut rows = select.query([])?;
    match rows.next()? {
        None => Ok(()),
        row @ Some(_) => {
            let (recorded, rebuilt) = ("another, or none".to_owned(), show(row)?);
            Err(StoreError::DerivedDiffers { table: "signature", recorded, rebuilt })
        }
    }
}

fn same_values(a: &Row<'_>, b: &Row<'_>) -> rusqlite::Result<bool> {
    for at in 0..a.as_ref().column_count() {
        if a.get_ref(at)? != b.get_ref(at)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A row for a person: `key recovery-1, device 00DB…`.
fn show(row: Option<&Row<'_>>) -> Result<String, StoreError> {
    let Some(row) = row else { return Ok("nothing".into()) };
    let statement = row.as_ref();
    let mut text = String::new();
    for at in 0..statement.column_count() {
        let separator = if at == 0 { "" } else { ", " };
        let value = match row.get_ref(at)? {
            ValueRef::Null => "none".into(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Blob(octets) => hex::encode_upper(octets),
        };
        write!(text, "{separator}{} {value}", statement.column_name(at)?).expect("a String takes everything");
    }
    Ok(text)
}

/// Whether a row exists that the store's indices say should not: entries beyond the head.
pub(super) fn greatest_leaf(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.query_row("SELECT max(idx) FROM main.leaf", [], |row| row.get(0)).optional().map(Option::flatten)
}
