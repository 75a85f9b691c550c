//! Shell: device lists. A list is a blob; the tables say only by which pages ([`crate::domain::determination::pages`]) its Devices are
//! found. A page's octets are believed once they make its root, so what a decision reads of a list is authenticated when it is read; the
//! row of a page itself is compared like every other when the derived state is made again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Row};

use super::super::StoreError;
use super::super::derived::{each_listed, out_of_order};
use super::blobs::{self, BlobReader};
use super::derived::{Schema, after, number, octets, one, sql};
use crate::domain::determination::document::DeviceList;
use crate::domain::determination::pages::{Page, PageText, Pages};
use crate::domain::fold::listed_line;
use crate::domain::ledger::merkle::{Frontier, leaf_hash};
use crate::domain::names::{DeterminationId, DeviceId, Digest, Eui64};
use crate::domain::policy::facts::Listed;

/// Pages that a connection keeps, read and checked: as many as a chunk of a job goes through, and some for requests beside it.
const KEPT_MAX: usize = 8;

/// The pages that were read last. A list never changes, so they stay right.
#[derive(Default)]
pub(super) struct Kept(Mutex<VecDeque<(DeterminationId, Arc<PageText>)>>);

impl Kept {
    /// The page on which this Device of the list stands, if it is kept.
    fn find(&self, determination: DeterminationId, device: DeviceId) -> Option<Arc<PageText>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(of, page)| *of == determination && page.spans(device))?;
        // The last used is the last to go.
        let found = kept.remove(at)?;
        let page = Arc::clone(&found.1);
        kept.push_front(found);
        Some(page)
    }

    fn keep(&self, determination: DeterminationId, page: &Arc<PageText>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT_MAX - 1);
        kept.push_front((determination, Arc::clone(page)));
    }
}

/// A list in the tables.
struct Found {
    id: i64,
    blob: Digest,
    len: u64,
}

fn find(connection: &Connection, schema: Schema, determination: DeterminationId) -> Result<Option<Found>, StoreError> {
    let sql = sql!(schema, "SELECT id, blob, len FROM", "list WHERE determination = ?1");
    one(connection, sql, [determination.0], |row| {
        Ok(Found { id: row.get(0)?, blob: Digest(octets(row, 1, "list")?), len: number(row, 2)? })
    })
}

/// What a determination's list is, by the rows of its pages: they lie side by side, and their roots fold to its root.
pub(super) fn head(
    connection: &Connection,
    schema: Schema,
    determination: DeterminationId,
) -> Result<Option<DeviceList>, StoreError> {
    let Some(list) = find(connection, schema, determination)? else { return Ok(None) };
    let sql = sql!(schema, "SELECT first, at, len, lines, root FROM", "page WHERE list = ?1 ORDER BY first");
    let mut select = connection.prepare_cached(sql)?;
    let (mut rows, mut tree, mut begins, mut count) = (select.query([list.id])?, Frontier::new(), 0, 0);
    while let Some(row) = rows.next()? {
        let Page { at, len, lines, root, .. } = page_row(row)?;
        if at != begins {
            let expected = "pages side by side";
            return Err(StoreError::RowCorrupt {
                table: "page",
                expected,
                found: format!("one at {at}, not {begins}"),
            });
        }
        tree.push(root);
        (begins, count) = (at + u64::from(len), count + u64::from(lines));
    }
    if count != list.len {
        let found = format!("{count} lines in the pages of one of {}", list.len);
        return Err(StoreError::RowCorrupt { table: "list", expected: "as many lines as its pages have", found });
    }
    Ok(Some(DeviceList { count, sha256: list.blob, root: tree.root() }))
}

/// How many lines a determination's list has.
pub(super) fn count(
    connection: &Connection,
    schema: Schema,
    determination: DeterminationId,
) -> Result<Option<u64>, StoreError> {
    Ok(find(connection, schema, determination)?.map(|list| list.len))
}

fn page_row(row: &Row<'_>) -> Result<Page, StoreError> {
    let small = |at| {
        let found = number(row, at)?;
        let expected = "the length of a page";
        u32::try_from(found).map_err(|_| StoreError::RowCorrupt { table: "page", expected, found: found.to_string() })
    };
    Ok(Page {
        first: DeviceId(Eui64(octets(row, 0, "page")?)),
        at: number(row, 1)?,
        len: small(2)?,
        lines: small(3)?,
        root: Digest(octets(row, 4, "page")?),
    })
}

/// The page that begins with this Device or with one before it.
fn page_of(connection: &Connection, schema: Schema, list: i64, device: DeviceId) -> Result<Option<Page>, StoreError> {
    let sql = sql!(
        schema,
        "SELECT first, at, len, lines, root FROM",
        "page WHERE list = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1"
    );
    one(connection, sql, (list, device.0.octets()), page_row)
}

/// The first page that begins after this Device; the first of all if none is given.
fn page_after(
    connection: &Connection,
    schema: Schema,
    list: i64,
    device: Option<DeviceId>,
) -> Result<Option<Page>, StoreError> {
    let sql = sql!(
        schema,
        "SELECT first, at, len, lines, root FROM",
        "page WHERE list = ?1 AND first > ?2 ORDER BY first LIMIT 1"
    );
    one(connection, sql, (list, after(device.as_ref())), page_row)
}

/// Reads a page and checks it.
fn read(connection: &Connection, list: &Found, page: &Page) -> Result<PageText, StoreError> {
    let octets = blobs::read_at(connection, list.blob, page.at, page.len as usize)?;
    page.read(octets).map_err(|source| StoreError::ListPage { digest: list.blob, source: Box::new(source) })
}

/// The page that a Device would stand on.
fn page_for(
    connection: &Connection,
    (schema, kept): (Schema, &Kept),
    list: &Found,
    determination: DeterminationId,
    device: DeviceId,
) -> Result<Option<Arc<PageText>>, StoreError> {
    if let Some(page) = kept.find(determination, device) {
        return Ok(Some(page));
    }
    let Some(page) = page_of(connection, schema, list.id, device)? else {
        check_next(connection, schema, list, None)?;
        return Ok(None);
    };
    let text = if let Some(text) = kept.find(determination, page.first) {
        text
    } else {
        let text = Arc::new(read(connection, list, &page)?);
        kept.keep(determination, &text);
        text
    };
    if !text.spans(device) {
        check_next(connection, schema, list, Some(page.first))?;
    }
    Ok(Some(text))
}

/// A Device between two pages is on neither, if the second does begin where its row says: whoever edits that hides nobody.
fn check_next(
    connection: &Connection,
    schema: Schema,
    list: &Found,
    before: Option<DeviceId>,
) -> Result<(), StoreError> {
    let next = page_after(connection, schema, list.id, before)?;
    next.map_or(Ok(()), |page| read(connection, list, &page).map(drop))
}

fn line(text: &str) -> Result<Listed, StoreError> {
    let expected = "a page of EUI64,template[,counter] lines";
    listed_line(text).map_err(|found| StoreError::RowCorrupt { table: "page", expected, found })
}

/// The line of a Device.
pub(super) fn listed(
    connection: &Connection,
    tables: (Schema, &Kept),
    determination: DeterminationId,
    device: DeviceId,
) -> Result<Option<Listed>, StoreError> {
    // A job asks for the Devices of a page one after the other.
    if let Some(page) = tables.1.find(determination, device) {
        return page.find(device).map(line).transpose();
    }
    let Some(list) = find(connection, tables.0, determination)? else { return Ok(None) };
    let Some(page) = page_for(connection, tables, &list, determination, device)? else { return Ok(None) };
    page.find(device).map(line).transpose()
}

/// The lines after a Device, in order; at most `limit`.
pub(super) fn listed_from(
    connection: &Connection,
    tables: (Schema, &Kept),
    determination: DeterminationId,
    from: Option<DeviceId>,
    limit: usize,
) -> Result<Vec<Listed>, StoreError> {
    let (schema, kept) = tables;
    let Some(list) = find(connection, schema, determination)? else { return Ok(Vec::new()) };
    let mut found = Vec::with_capacity(limit.min(list.len.try_into().unwrap_or(usize::MAX)));
    if let Some(from) = from
        && let Some(page) = page_for(connection, tables, &list, determination, from)?
    {
        for text in page.after(Some(from)).take(limit) {
            found.push(line(text)?);
        }
    }
    let mut seen = found.last().map(|listed: &Listed| listed.device).or(from);
    while found.len() < limit {
        let Some(page) = page_after(connection, schema, list.id, seen)? else { break };
        let page = Arc::new(read(connection, &list, &page)?);
        kept.keep(determination, &page);
        for text in page.after(None).take(limit - found.len()) {
            found.push(line(text)?);
        }
        seen = found.last().map(|listed| listed.device);
    }
    Ok(found)
}

/// Makes a determination's list of a blob. `pages` were made of the same octets, if they are given.
pub(super) fn import(
    connection: &Connection,
    schema: Schema,
    determination: DeterminationId,
    digest: Digest,
    pages: Option<&[Page]>,
) -> Result<(), StoreError> {
    if find(connection, schema, determination)?.is_some() {
        return Err(StoreError::ListExists { determination });
    }
    let made;
    let pages = match pages {
        Some(pages) if blobs::find(connection, digest)?.is_some() => pages,
        Some(_) | None => {
            made = make_pages(connection, digest)?;
            &made
        }
    };
    // The greatest id and one, not what SQLite would choose, so that the tables made again have the same.
    let sql = sql!(schema, "SELECT coalesce(max(id), 0) + 1 FROM", "list");
    let id: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    let sql = sql!(schema, "INSERT INTO", "page VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    let mut insert = connection.prepare_cached(sql)?;
    let mut count = 0;
    for Page { first, at, len, lines, root } in pages {
        insert.execute((id, first.0.octets(), at.cast_signed(), len, lines, root.0))?;
        count += u64::from(*lines);
    }
    let sql = sql!(schema, "INSERT INTO", "list VALUES (?1, ?2, ?3, ?4)");
    connection.prepare_cached(sql)?.execute((id, determination.0, digest.0, count.cast_signed()))?;
    Ok(())
}

fn make_pages(connection: &Connection, digest: Digest) -> Result<Vec<Page>, StoreError> {
    let (mut pages, mut before) = (Pages::default(), None);
    each_listed(digest, BlobReader::open(connection, digest)?, |number, line, Listed { device, .. }| {
        if before.is_some_and(|before| before >= device) {
            return Err(out_of_order(digest, number, before == Some(device), device));
        }
        before = Some(device);
        pages.push(device, leaf_hash(line.as_bytes()), line.len());
        Ok(())
    })?;
    Ok(pages.finish().0)
}
