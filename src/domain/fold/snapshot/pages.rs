//! Pure. The pages of a table: runs of rows in the order of their keys, each with the SHA-256 of its rows.
//!
//! A page begins with the first row of the table, and with each row whose key's SHA-256 begins with an octet below
//! [`BEGINNINGS`]: with one in 256. So the pages are a function of the rows, and a row that changes, or comes in between, alters the
//! page that it lies in and no other. A page that is not there shows too: what lies between the last key of one and the first key of
//! the next does not exist.

use std::ops::{ControlFlow, Range};

use super::{Row, Rows, Table};
use crate::domain::ledger::snapshots::TableKept;
use crate::domain::names::Digest;

/// How many of the 256 first octets of a hash let a page begin: with 1, a page has 256 rows on average. Ten million Devices have 40,000
/// pages, of some 150 octets each in memory.
pub const BEGINNINGS: u8 = 1;

/// Runs of pages that are replaced one by one; of more, the whole list is made anew.
pub(super) const SPLICED_MAX: usize = 32;

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The key of its first row.
    pub first: Box<[u8]>,
    /// The key of its last row.
    pub last: Box<[u8]>,
    /// How many rows it has.
    pub rows: u32,
    /// How many of them are still to be settled.
    pub pending: u32,
    /// SHA-256 of its rows, each with its length in four octets before it.
    pub digest: Digest,
}

/// Whether a page begins with the row of this key.
fn begins(table: Table, key: &[u8]) -> bool {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(&[table.code()]);
    hash.update(table.group(key));
    hash.finish().as_ref()[0] < BEGINNINGS
}

/// Makes pages of rows that come in order.
struct Builder {
    table: Table,
    pages: Vec<Page>,
    open: Option<Open>,
    octets: Vec<u8>,
}

/// The page that the next row may belong to.
struct Open {
    first: Box<[u8]>,
    last: Vec<u8>,
    rows: u32,
    pending: u32,
    hash: ring::digest::Context,
}

impl Open {
    fn close(self) -> Page {
        let digest = Digest::try_from(self.hash.finish().as_ref()).expect("SHA-256 has 32 octets");
        Page { first: self.first, last: self.last.into(), rows: self.rows, pending: self.pending, digest }
    }
}

impl Builder {
    fn new(table: Table) -> Self {
        Self { table, pages: Vec::new(), open: None, octets: Vec::new() }
    }

    /// With `whole`, one page is made of all rows, wherever pages would begin.
    fn push(&mut self, key: Vec<u8>, row: &Row<'_>, whole: bool) {
        // Rows of one group stay together: what comes after the group does not open a page.
        let same_group = self.open.as_ref().is_some_and(|open| self.table.group(&open.last) == self.table.group(&key));
        if self.open.is_some() && !whole && !same_group && begins(self.table, &key) {
            self.pages.extend(self.open.take().map(Open::close));
        }
        let open = self.open.get_or_insert_with(|| Open {
            first: key.as_slice().into(),
            last: Vec::new(),
            rows: 0,
            pending: 0,
            hash: ring::digest::Context::new(&ring::digest::SHA256),
        });
        self.octets.clear();
        self.octets.extend_from_slice(&[0; 4]);
        row.encode(&mut self.octets);
        let len = u32::try_from(self.octets.len() - 4).unwrap_or(u32::MAX);
        self.octets[..4].copy_from_slice(&len.to_be_bytes());
        open.hash.update(&self.octets);
        open.rows += 1;
        open.pending += u32::from(row.is_pending());
        open.last = key;
    }

    fn finish(mut self) -> Vec<Page> {
        self.pages.extend(self.open.take().map(Open::close));
        self.pages
    }
}

/// The pages of one table, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    table: Table,
    all: Vec<Page>,
}

/// Some pages of a table, and those that took their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Which, counted as they were before.
    pub old: Range<usize>,
    /// What they became.
    pub new: Vec<Page>,
}

impl Pages {
    /// Of a table without rows.
    pub const fn empty(table: Table) -> Self {
        Self { table, all: Vec::new() }
    }

    /// Those that are kept somewhere; [`Pages::kept`] tells whether they are the ones that were committed to.
    pub const fn of(table: Table, all: Vec<Page>) -> Self {
        Self { table, all }
    }

    /// Those of a table with these rows. Linear in them.
    pub fn made<R: Rows + ?Sized>(table: Table, rows: &R) -> Result<Self, R::Error> {
        Ok(Self { table, all: read(table, rows, &[], None, false)? })
    }

    /// All of them.
    pub fn all(&self) -> &[Page] {
        &self.all
    }

    /// What a snapshot says of the table.
    pub fn kept(&self) -> TableKept {
        self.kept_with(&[])
    }

    /// The same once these pages have taken the place of others.
    pub fn kept_with(&self, renewed: &[Renewed]) -> TableKept {
        let mut renewed = renewed.iter().peekable();
        let mut at = 0;
        let all = std::iter::from_fn(|| {
            if let Some(Renewed { old, new }) = renewed.next_if(|renewed| renewed.old.start == at) {
                at = old.end;
                return Some(new.as_slice());
            }
            let until = renewed.peek().map_or(self.all.len(), |renewed| renewed.old.start);
            let pages = &self.all[at..until];
            at = until;
            (!pages.is_empty()).then_some(pages)
        });
        self.hash(all.flatten())
    }

    fn hash<'a>(&self, pages: impl Iterator<Item = &'a Page>) -> TableKept {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        let mut octets = vec![self.table.code()];
        let mut rows = 0;
        for Page { first, last, rows: of_page, pending, digest } in pages {
            for key in [first, last] {
                octets.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
                octets.extend_from_slice(key);
            }
            octets.extend_from_slice(&of_page.to_be_bytes());
            octets.extend_from_slice(&pending.to_be_bytes());
            octets.extend_from_slice(digest.octets());
            hash.update(&octets);
            octets.clear();
            rows += u64::from(*of_page);
        }
        hash.update(&octets);
        TableKept { rows, sha256: Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets") }
    }

    /// The page that has the row of this key, if the table has one.
    pub fn covering(&self, key: &[u8]) -> Option<usize> {
        let at = self.slot(key);
        self.all.get(at).filter(|page| *page.first <= *key && *key <= *page.last).map(|_| at)
    }

    /// The first page that has a row at this key or after it.
    pub fn from(&self, key: &[u8]) -> usize {
        self.all.partition_point(|page| *page.last < *key)
    }

    /// Where the row of this key would lie.
    fn slot(&self, key: &[u8]) -> usize {
        self.all.partition_point(|page| *page.first <= *key).saturating_sub(1)
    }

    /// The pages that change if the rows of these keys, which come in order, change or come in.
    pub fn touched<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> Vec<Range<usize>> {
        let mut touched: Vec<Range<usize>> = Vec::new();
        for key in keys {
            // Of no page there is one, which is empty.
            let slot = self.slot(key);
            let until = (slot + 1).min(self.all.len());
            match touched.last_mut() {
                Some(last) if slot < last.end || (last.start == last.end && slot == last.start) => {}
                // Neighbours are read in one go.
                Some(last) if slot == last.end => last.end = until,
                Some(_) | None => touched.push(slot..until),
            }
        }
        touched
    }

    /// Hashes those pages anew: the rows are as they are now.
    pub fn renewed<R: Rows + ?Sized>(&self, touched: &[Range<usize>], rows: &R) -> Result<Vec<Renewed>, R::Error> {
        touched
            .iter()
            .map(|old| {
                let from = if old.start == 0 { &[][..] } else { &*self.all[old.start].first };
                let until = self.all.get(old.end).map(|page| &*page.first);
                Ok(Renewed { old: old.clone(), new: read(self.table, rows, from, until, false)? })
            })
            .collect()
    }

    /// Puts pages in the place of those that they were made of.
    pub fn put(&mut self, renewed: Vec<Renewed>) {
        // Few, and those of a job that walks the Devices in order lie at the end: the others stay where they are.
        if renewed.len() <= SPLICED_MAX {
            for Renewed { old, new } in renewed.into_iter().rev() {
                self.all.splice(old, new);
            }
            return;
        }
        let mut all = Vec::with_capacity(self.all.len() + 16);
        let (mut before, mut at) = (std::mem::take(&mut self.all).into_iter(), 0);
        for Renewed { old, new } in renewed {
            all.extend(before.by_ref().take(old.start - at));
            before.by_ref().take(old.len()).for_each(drop);
            all.extend(new);
            at = old.end;
        }
        all.extend(before);
        self.all = all;
    }

    /// What a page comes to, as its rows are now; none if there are no rows any more.
    pub fn read_again<R: Rows + ?Sized>(&self, at: usize, rows: &R) -> Result<Option<Page>, R::Error> {
        // The first one begins where the table does, and the last ends there: no row lies before or after.
        let from = if at == 0 { &[][..] } else { &*self.all[at].first };
        let until = self.all.get(at + 1).map(|page| &*page.first);
        Ok(read(self.table, rows, from, until, true)?.pop())
    }
}

/// The pages of the rows from one key up to another.
fn read<R: Rows + ?Sized>(
    table: Table,
    rows: &R,
    from: &[u8],
    until: Option<&[u8]>,
    whole: bool,
) -> Result<Vec<Page>, R::Error> {
    let mut builder = Builder::new(table);
    rows.rows_from(table, from, &mut |row| {
        let key = row.key();
        if until.is_some_and(|until| *key >= *until) {
            return ControlFlow::Break(());
        }
        builder.push(key, &row, whole);
        ControlFlow::Continue(())
    })?;
    Ok(builder.finish())
}
