//! Pure. Lines of a file as values, piece by piece: the header line by its layout, each further line by its kind.

use std::fmt;
use std::str::FromStr;

use super::csv::{self, Read};
use super::faults::{Fault, FileFaults};
use super::layout::{self, Layout};
use crate::domain::names::FileKind;

/// The greatest length of a file in octets: a million lines of the widest layout that grows with Devices. No official reference.
pub const FILE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// The most lines below the header. What was seen is kept to find what stands there twice: some 100 MB for so many. No official
/// reference.
pub const ROWS_MAX: u64 = 1_000_000;

/// A line of a kind of file.
pub trait Row: Sized {
    /// What the lines before leave behind, to judge the next one by.
    type Seen: Default;

    /// Reads a line; its faults go to `cells`.
    fn read(cells: &mut Cells<'_>, seen: &mut Self::Seen) -> Option<Self>;

    /// What can be said once every line was seen.
    fn end(rows: u64, faults: &mut FileFaults) {
        if rows == 0 {
            faults.add(1, None, None, Fault::NoRows);
        }
    }
}

/// The fields of one line, by our names of their columns.
pub struct Cells<'a> {
    kind: FileKind,
    line: u64,
    header: &'a [Option<&'static str>],
    fields: &'a [String],
    faults: &'a mut FileFaults,
}

impl Cells<'_> {
    /// The line, counted from 1.
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// The kind of file.
    pub const fn kind(&self) -> FileKind {
        self.kind
    }

    fn place(&self, column: &str) -> Option<(usize, &str)> {
        let at = self.header.iter().position(|heading| *heading == Some(column))?;
        Some((at + 1, self.fields[at].as_str()))
    }

    fn form(&self, column: &str) -> (&'static str, Option<&'static str>) {
        let found = layout::columns(self.kind).iter().find(|ours| ours.name == column);
        found.map_or(("a value", None), |column| (column.form, Some(column.name)))
    }

    /// Says a fault in a column of this line.
    pub fn fault(&mut self, column: &str, fault: Fault) {
        let place = self.place(column).map(|(at, _)| at);
        let (_, heading) = self.form(column);
        self.faults.add(self.line, place, heading, fault);
    }

    /// A value that may be missing. None too if it is not of its form, which is then said.
    pub fn optional<T: FromStr>(&mut self, column: &str) -> Option<T> {
        let (_, text) = self.place(column)?;
        if text.is_empty() {
            return None;
        }
        let parsed = text.parse();
        if parsed.is_err() {
            let (form, _) = self.form(column);
            let fault = Fault::value(form, text);
            self.fault(column, fault);
        }
        parsed.ok()
    }

    /// A value that must be there. None if it is not, or not of its form, which is then said.
    pub fn required<T: FromStr>(&mut self, column: &str) -> Option<T> {
        if self.place(column).is_some_and(|(_, text)| text.is_empty()) {
            let (expected, _) = self.form(column);
            self.fault(column, Fault::ValueMissing { expected });
        }
        self.optional(column)
    }

    /// Whether there is a value.
    pub fn has(&self, column: &str) -> bool {
        self.place(column).is_some_and(|(_, text)| !text.is_empty())
    }

    /// Says that something stands in an earlier line already.
    pub fn twice(&mut self, column: &str, what: &dyn fmt::Display, first: u64) {
        self.fault(column, Fault::Twice { what: what.to_string(), first });
    }
}

/// Reads a file of one kind, piece by piece.
///
/// Rows are given as they come and *before* the file is known to be whole and right: whoever keeps them lets go of them unless
/// [`TableReader::finish`] says how many there were.
pub struct TableReader<R: Row> {
    layout: Layout,
    csv: csv::Reader,
    table: Table<R>,
    len: u64,
}

struct Table<R: Row> {
    header: Option<Vec<Option<&'static str>>>,
    seen: R::Seen,
    rows: u64,
    faults: FileFaults,
}

impl<R: Row> TableReader<R> {
    /// Of files that are laid out so.
    pub fn new(layout: Layout) -> Self {
        let table = Table { header: None, seen: R::Seen::default(), rows: 0, faults: FileFaults::default() };
        Self { layout, csv: csv::Reader::default(), table, len: 0 }
    }

    /// The next octets.
    pub fn feed(&mut self, piece: &[u8], each: &mut dyn FnMut(R)) {
        let before = self.len;
        self.len = self.len.saturating_add(piece.len() as u64);
        if self.len > FILE_LEN_MAX {
            if before <= FILE_LEN_MAX {
                self.table.faults.add(1, None, None, Fault::FileLength { max: FILE_LEN_MAX });
            }
            return;
        }
        let (layout, table) = (&self.layout, &mut self.table);
        self.csv.feed(piece, &mut |read| table.take(layout, read, each));
    }

    /// No more octets come: how many rows there were, or everything that is wrong.
    pub fn finish(mut self, each: &mut dyn FnMut(R)) -> Result<u64, FileFaults> {
        if self.len <= FILE_LEN_MAX {
            let (layout, table) = (&self.layout, &mut self.table);
            self.csv.finish(&mut |read| table.take(layout, read, each));
            if self.table.faults.is_empty() {
                match self.table.header {
                    None => self.table.faults.add(1, None, None, Fault::Empty),
                    Some(_) => R::end(self.table.rows, &mut self.table.faults),
                }
            }
        }
        if self.table.faults.is_empty() { Ok(self.table.rows) } else { Err(self.table.faults) }
    }
}

impl<R: Row> Table<R> {
    fn take(&mut self, layout: &Layout, read: Read, each: &mut dyn FnMut(R)) {
        let record = match read {
            Read::Record(record) => record,
            Read::Fault(line, column, fault) => {
                let heading = self.header.as_ref().and_then(|header| header.get(column - 1).copied().flatten());
                self.faults.add(line, Some(column), heading, fault);
                // Lines below a header that cannot be read would all be faults.
                if line == 1 {
                    self.header = Some(Vec::new());
                }
                return;
            }
        };
        let Some(header) = &self.header else {
            let found = layout.header(record.line, &record.fields, &mut self.faults);
            self.header = Some(if self.faults.is_empty() { found } else { Vec::new() });
            return;
        };
        if header.is_empty() {
            return;
        }
        self.rows += 1;
        if self.rows > ROWS_MAX {
            if self.rows == ROWS_MAX + 1 {
                self.faults.add(record.line, None, None, Fault::RowsMany { max: ROWS_MAX });
            }
            return;
        }
        if record.fields.len() != header.len() {
            let is_empty = matches!(record.fields.as_slice(), [only] if only.is_empty());
            let fault = if is_empty {
                Fault::LineEmpty
            } else {
                Fault::Fields { expected: header.len(), found: record.fields.len() }
            };
            self.faults.add(record.line, None, None, fault);
            return;
        }
        let mut cells =
            Cells { kind: layout.kind(), line: record.line, header, fields: &record.fields, faults: &mut self.faults };
        if let Some(row) = R::read(&mut cells, &mut self.seen) {
            each(row);
        }
    }
}

/// Reads a whole file, or says everything that is wrong with it.
pub fn read_rows<R: Row>(layout: &Layout, octets: &[u8]) -> Result<Vec<R>, FileFaults> {
    let mut reader = TableReader::new(layout.clone());
    let mut rows = Vec::new();
    reader.feed(octets, &mut |row| rows.push(row));
    reader.finish(&mut |row| rows.push(row))?;
    Ok(rows)
}
