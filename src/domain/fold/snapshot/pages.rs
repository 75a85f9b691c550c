//! Pure. The pages of a table: runs of rows in the order of their keys, and the parts of each page, which are shorter runs.
//!
//! A part begins with the first row of the table, and with each row whose key's SHA-256 begins with an octet below
//! [`PART_BEGINNINGS`]: with one in 16. A page begins with the first row too, and with each whose octet is below
//! [`PAGE_BEGINNINGS`]: with one in 256. So both are a function of the rows, however they came. A part has the SHA-256 of its rows, and a page that of the
//! list of its parts. A row that changes, or comes in between, alters its part and the list of its page, and nothing else: it costs some 16 rows
//! wherever it lies, be there a thousand or ten million. A page or a part that is not there shows too: what lies between the
//! last key of a page and the first key of the next does not exist.
//!
//! Pages are in memory; the lists of their parts are kept where the rows are, and read where a row of the page changes or is read first.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use super::{Rows, Table};
use crate::domain::ledger::snapshots::TableKept;
use crate::domain::names::Digest;

/// How many of the 256 first octets of a hash let a page begin: with 1, a page has 256 rows on average. Ten million Devices have 40,000
/// pages, of some 150 octets each in memory.
pub const PAGE_BEGINNINGS: u8 = 1;

/// How many of them let a part begin: with 16, a part has 16 rows on average, and a page 16 parts, of some 60 octets each.
pub const PART_BEGINNINGS: u8 = 16;

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
    /// SHA-256 of the list of its parts.
    pub digest: Digest,
}

/// One part of a page, as the list has it: the length of the key in two octets, the key, both counts, the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The key of its first row.
    pub first: &'a [u8],
    /// How many rows it has.
    pub rows: u32,
    /// How many of them are still to be settled.
    pub pending: u32,
    /// SHA-256 of its rows, each with its length in four octets before it.
    pub digest: Digest,
}

impl<'a> Part<'a> {
    fn write(&self, list: &mut Vec<u8>) {
        let Self { first, rows, pending, digest } = self;
        list.extend_from_slice(&u16::try_from(first.len()).unwrap_or(u16::MAX).to_be_bytes());
        list.extend_from_slice(first);
        list.extend_from_slice(&rows.to_be_bytes());
        list.extend_from_slice(&pending.to_be_bytes());
        list.extend_from_slice(digest.octets());
    }

    fn read(list: &mut &'a [u8]) -> Option<Self> {
        let mut rest = *list;
        let first = usize::from(u16::from_be_bytes(array(&mut rest)?));
        let (first, mut rest) = rest.split_at_checked(first)?;
        let (rows, pending) = (u32::from_be_bytes(array(&mut rest)?), u32::from_be_bytes(array(&mut rest)?));
        let digest = Digest(array(&mut rest)?);
        *list = rest;
        Some(Self { first, rows, pending, digest })
    }
}

fn array<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (octets, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*octets)
}

/// The parts in a list that was compared with the digest of its page.
pub fn parts(mut list: &[u8]) -> Vec<Part<'_>> {
    std::iter::from_fn(|| Part::read(&mut list)).collect()
}

/// In which of these parts the row of a key lies, if its page has it. A group is in one part whole, whichever of its rows came first.
pub fn part_of(table: Table, parts: &[Part<'_>], key: &[u8]) -> usize {
    let group = table.group(key);
    parts.partition_point(|part| table.group(part.first) <= group).saturating_sub(1)
}

/// The octet that says whether a page or a part begins with the row of this key.
fn octet(table: Table, key: &[u8]) -> u8 {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(&[table.code()]);
    hash.update(table.group(key));
    hash.finish().as_ref()[0]
}

/// A part that was made of its rows.
struct Run {
    first: Vec<u8>,
    last: Vec<u8>,
    /// The [`octet`] of its first key.
    octet: u8,
    rows: u32,
    pending: u32,
    digest: Digest,
}

/// The part that the next row may belong to.
struct Open {
    first: Vec<u8>,
    last: Vec<u8>,
    octet: u8,
    rows: u32,
    pending: u32,
    hash: ring::digest::Context,
}

impl Open {
    fn new(key: &[u8], octet: u8) -> Self {
        let hash = ring::digest::Context::new(&ring::digest::SHA256);
        Self { first: key.to_vec(), last: Vec::new(), octet, rows: 0, pending: 0, hash }
    }

    fn close(self) -> Run {
        let Self { first, last, octet, rows, pending, hash } = self;
        let digest = Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets");
        Run { first, last, octet, rows, pending, digest }
    }
}

/// Visits the parts of the rows from one key up to another. `may_begin` is asked of the first row of each group but the first one, in their
/// order: a row of which it is known that it begins no part is not hashed to learn that.
fn read<R: Rows + ?Sized>(
    table: Table,
    rows: &R,
    (from, until): (&[u8], Option<&[u8]>),
    may_begin: &mut dyn FnMut(&[u8]) -> bool,
    each: &mut dyn FnMut(Run),
) -> Result<(), R::Error> {
    let (mut open, mut octets, mut key) = (None::<Open>, Vec::new(), Vec::new());
    rows.rows_from(table, from, &mut |row| {
        key.clear();
        row.put_key(&mut key);
        if until.is_some_and(|until| *key >= *until) {
            return ControlFlow::Break(());
        }
        // Rows of one group stay together: what comes after the group does not open a part.
        let goes_on = open.as_ref().is_some_and(|open| table.group(&open.last) == table.group(&key));
        if !goes_on && (open.is_none() || may_begin(&key)) {
            let octet = octet(table, &key);
            if (octet < PART_BEGINNINGS || open.is_none())
                && let Some(before) = open.replace(Open::new(&key, octet))
            {
                each(before.close());
            }
        }
        let open = open.as_mut().expect("it was put there");
        octets.clear();
        octets.extend_from_slice(&[0; 4]);
        row.encode(&mut octets);
        let len = u32::try_from(octets.len() - 4).unwrap_or(u32::MAX);
        octets[..4].copy_from_slice(&len.to_be_bytes());
        open.hash.update(&octets);
        open.rows += 1;
        open.pending += u32::from(row.is_pending());
        std::mem::swap(&mut open.last, &mut key);
        ControlFlow::Continue(())
    })?;
    if let Some(open) = open {
        each(open.close());
    }
    Ok(())
}

/// A page that was made, with the list of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The page.
    pub page: Page,
    /// The list of its parts.
    pub list: Vec<u8>,
}

/// Makes pages of parts that come in order.
#[derive(Default)]
struct Binder {
    made: Vec<Made>,
    first: Vec<u8>,
    last: Vec<u8>,
    rows: u32,
    pending: u32,
    list: Vec<u8>,
}

impl Binder {
    /// The next part, and the key of its last row.
    fn push(&mut self, part: &Part<'_>, last: &[u8]) {
        if self.list.is_empty() {
            part.first.clone_into(&mut self.first);
        }
        part.write(&mut self.list);
        self.rows += part.rows;
        self.pending += part.pending;
        last.clone_into(&mut self.last);
    }

    /// One that was made of its rows; with `whole` in the same page, wherever pages would begin.
    fn push_made(&mut self, run: &Run, whole: bool) {
        if run.octet < PAGE_BEGINNINGS && !whole {
            self.close();
        }
        let Run { first, last, octet: _, rows, pending, digest } = run;
        self.push(&Part { first, rows: *rows, pending: *pending, digest: *digest }, last);
    }

    fn close(&mut self) {
        if self.list.is_empty() {
            return;
        }
        let Self { made, first, last, rows, pending, list } = self;
        let list = std::mem::take(list);
        let page = Page {
            first: first.as_slice().into(),
            last: last.as_slice().into(),
            rows: std::mem::take(rows),
            pending: std::mem::take(pending),
            digest: Digest::of(&list),
        };
        made.push(Made { page, list });
    }

    fn finish(mut self) -> Vec<Made> {
        self.close();
        self.made
    }
}

/// The pages of one table, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    table: Table,
    all: Vec<Page>,
}

/// A page of which rows change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched<'a> {
    /// Which; of a table without rows there is none.
    pub page: Option<usize>,
    /// The list of its parts.
    pub list: Vec<u8>,
    /// Which of them, in order.
    pub parts: Vec<usize>,
    /// The keys of the rows that change or come in, in order; of a table without rows none is told.
    pub keys: Vec<&'a [u8]>,
}

/// Some pages of a table, and those that took their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Which, counted as they were before.
    pub old: Range<usize>,
    /// What they became.
    pub new: Vec<Made>,
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

    /// Those of a table with these rows; `each` is given each with the list of its parts. Linear in the rows.
    pub fn made<R: Rows + ?Sized>(table: Table, rows: &R, mut each: impl FnMut(&Made)) -> Result<Self, R::Error> {
        let (mut binder, mut all) = (Binder::default(), Vec::new());
        read(table, rows, (&[], None), &mut |_| true, &mut |run| {
            binder.push_made(&run, false);
            for made in binder.made.drain(..) {
                each(&made);
                all.push(made.page);
            }
        })?;
        for made in binder.finish() {
            each(&made);
            all.push(made.page);
        }
        Ok(Self { table, all })
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
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        let mut octets = vec![self.table.code()];
        let mut rows = 0;
        let mut take = |page: &Page| {
            let Page { first, last, rows: of_page, pending, digest } = page;
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
        };
        let mut at = 0;
        for Renewed { old, new } in renewed {
            self.all[at..old.start].iter().for_each(&mut take);
            new.iter().map(|made| &made.page).for_each(&mut take);
            at = old.end;
        }
        self.all[at..].iter().for_each(&mut take);
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
        let group = self.table.group(key);
        self.all.partition_point(|page| self.table.group(&page.first) <= group).saturating_sub(1)
    }

    /// Before which key the rows of a page end.
    fn end(&self, page: usize) -> Option<&[u8]> {
        self.all.get(page + 1).map(|next| self.table.group(&next.first))
    }

    /// The pages and parts that change if the rows of these keys change or come in: all of them, in the order of the keys, octet by octet.
    /// `list` has the list of the parts of a page.
    pub fn touched<'a, E>(
        &self,
        keys: impl IntoIterator<Item = &'a [u8]>,
        mut list: impl FnMut(usize) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<Touched<'a>>, E> {
        let mut touched = Vec::new();
        let mut before: &[u8] = &[];
        let mut keys = keys
            .into_iter()
            .inspect(|key| {
                debug_assert!(before < *key, "keys come in order, each once");
                before = *key;
            })
            .peekable();
        while let Some(first) = keys.next() {
            let page = self.slot(first);
            if self.all.is_empty() {
                touched.push(Touched { page: None, list: Vec::new(), parts: Vec::new(), keys: Vec::new() });
                break;
            }
            let until = self.end(page);
            let list = list(page)?;
            let of_page = parts(&list);
            let (mut changed, mut of_rows) = (vec![part_of(self.table, &of_page, first)], vec![first]);
            while let Some(key) = keys.next_if(|key| until.is_none_or(|until| **key < *until)) {
                let part = part_of(self.table, &of_page, key);
                if changed.last() != Some(&part) {
                    changed.push(part);
                }
                of_rows.push(key);
            }
            touched.push(Touched { page: Some(page), list, parts: changed, keys: of_rows });
        }
        Ok(touched)
    }

    /// Between which keys the rows of some neighbouring parts of a page lie.
    fn between<'a>(
        &'a self,
        page: usize,
        parts: &[Part<'a>],
        Range { start, end }: Range<usize>,
    ) -> (&'a [u8], Option<&'a [u8]>) {
        // The first page begins where the table does, and the last ends there: no row lies before or after.
        let is_first = page == 0 && start == 0;
        let from = parts.get(start).filter(|_| !is_first).map_or(&[][..], |part| self.table.group(part.first));
        (from, parts.get(end).map(|part| self.table.group(part.first)).or_else(|| self.end(page)))
    }

    /// Makes those pages anew: the rows are as they are now, which are those of before and those of the keys that were told.
    pub fn renewed<R: Rows + ?Sized>(&self, touched: &[Touched<'_>], rows: &R) -> Result<Vec<Renewed>, R::Error> {
        touched.iter().map(|touched| self.renew(touched, rows)).collect()
    }

    fn renew<R: Rows + ?Sized>(&self, touched: &Touched<'_>, rows: &R) -> Result<Renewed, R::Error> {
        let Touched { page, list, parts: changed, keys } = touched;
        let mut binder = Binder::default();
        let Some(page) = *page else {
            read(self.table, rows, (&[], None), &mut |_| true, &mut |run| binder.push_made(&run, false))?;
            return Ok(Renewed { old: 0..0, new: binder.finish() });
        };
        let of_page = parts(list);
        // Whether a row begins a part is a matter of its key, and of its coming first in its group; and rows are never taken away. So one that
        // was there before and began none begins none now.
        let mut began = of_page.iter().map(|part| part.first).peekable();
        let mut came = keys.iter().copied().peekable();
        let mut may_begin = |key: &[u8]| {
            while began.next_if(|first| **first < *key).is_some() {}
            while came.next_if(|changed| **changed < *key).is_some() {}
            began.peek().is_some_and(|first| **first == *key) || came.peek().is_some_and(|changed| **changed == *key)
        };
        let (mut at, mut changed) = (0, changed.iter().copied().peekable());
        // The key of the last row of a part that stays is known of the last one alone, and asked for of no other: rows are never taken
        // away, so a page begins but with a part that was made now, and before that one stands another such, or nothing.
        let last = &self.all[page].last;
        while let Some(start) = changed.next() {
            (at..start).for_each(|stays| binder.push(&of_page[stays], last));
            // Neighbours are read in one go.
            at = start + 1;
            while changed.next_if_eq(&at).is_some() {
                at += 1;
            }
            let between = self.between(page, &of_page, start..at);
            read(self.table, rows, between, &mut may_begin, &mut |run| binder.push_made(&run, false))?;
        }
        (at..of_page.len()).for_each(|stays| binder.push(&of_page[stays], last));
        Ok(Renewed { old: page..page + 1, new: binder.finish() })
    }

    /// Puts pages in the place of those that they were made of.
    pub fn put(&mut self, renewed: Vec<Renewed>) {
        let page = |made: Made| made.page;
        // Few, and those of a job that walks the Devices in order lie at the end: the others stay where they are.
        if renewed.len() <= SPLICED_MAX {
            for Renewed { old, new } in renewed.into_iter().rev() {
                self.all.splice(old, new.into_iter().map(page));
            }
            return;
        }
        let mut all = Vec::with_capacity(self.all.len() + 16);
        let (mut before, mut at) = (std::mem::take(&mut self.all).into_iter(), 0);
        for Renewed { old, new } in renewed {
            all.extend(before.by_ref().take(old.start - at));
            before.by_ref().take(old.len()).for_each(drop);
            all.extend(new.into_iter().map(page));
            at = old.end;
        }
        all.extend(before);
        self.all = all;
    }

    /// Whether a page is what its rows come to, as they are now.
    pub fn is_so<R: Rows + ?Sized>(&self, at: usize, rows: &R) -> Result<bool, R::Error> {
        let mut binder = Binder::default();
        let from = if at == 0 { &[][..] } else { self.table.group(&self.all[at].first) };
        read(self.table, rows, (from, self.end(at)), &mut |_| true, &mut |run| binder.push_made(&run, true))?;
        Ok(binder.finish().pop().is_some_and(|made| made.page == self.all[at]))
    }
}

/// Pages with the lists of their parts, for whoever keeps both in memory.
#[derive(Clone, Debug)]
pub struct WithParts {
    pages: Pages,
    /// By the first key of the page.
    lists: HashMap<Box<[u8]>, Box<[u8]>>,
}

impl WithParts {
    /// Of a table without rows.
    pub fn empty(table: Table) -> Self {
        Self { pages: Pages::empty(table), lists: HashMap::new() }
    }

    /// The pages.
    pub const fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Takes in that the rows of these keys, which come in order, changed or came in.
    pub fn renew<'a, R: Rows + ?Sized>(
        &mut self,
        keys: impl IntoIterator<Item = &'a [u8]>,
        rows: &R,
    ) -> Result<(), R::Error> {
        let Self { pages, lists } = self;
        let list = |page: usize| Ok(lists[&pages.all[page].first].to_vec());
        let renewed = pages.renewed(&pages.touched(keys, list)?, rows)?;
        for Renewed { old, new } in &renewed {
            pages.all[old.clone()].iter().for_each(|page| drop(lists.remove(&page.first)));
            lists.extend(new.iter().map(|made| (made.page.first.clone(), made.list.as_slice().into())));
        }
        pages.put(renewed);
        Ok(())
    }
}
