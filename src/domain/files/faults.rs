//! Pure. What is wrong with a file, and where: the line and the column, as whoever made it counts them.

use std::fmt;

/// How many faults are told one by one; the rest is counted. A screen or two: whoever has more has made another file.
pub const FAULTS_MAX: usize = 100;

/// How much of a value a fault quotes, in characters.
const FOUND_LEN_MAX: usize = 80;

/// What is wrong in one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Too long as a whole.
    #[error("expected a file of at most {max} octets, found more; send it in parts, each with its own header line")]
    FileLength {
        /// The limit.
        max: u64,
    },
    /// Nothing there.
    #[error("expected a header line with the names of the columns, found an empty file")]
    Empty,
    /// A mark that spreadsheets write.
    #[error("expected the first column's name, found a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    /// Octets that are no text.
    #[error("expected UTF-8, found octet 0x{octet:02X}; save the file as UTF-8")]
    NotUtf8 {
        /// The first that is none.
        octet: u8,
    },
    /// A quotation mark in a field that does not begin with one.
    #[error("found a quotation mark within a field; put the whole field in quotation marks and double those within")]
    QuoteWithin,
    /// Something behind a closing quotation mark.
    #[error("expected a comma or the end of the line behind the closing quotation mark, found {found:?}")]
    BehindQuote {
        /// What.
        found: char,
    },
    /// A quotation mark that is never closed.
    #[error("the quotation mark that opens this field is never closed")]
    Unclosed,
    /// A carriage return without its line feed.
    #[error("found a carriage return without a line feed; end lines with CR LF or LF")]
    LoneReturn,
    /// A field longer than any of ours.
    #[error("expected at most {max} octets in a field, found more")]
    FieldLength {
        /// The limit.
        max: usize,
    },
    /// More fields than any of ours has.
    #[error("expected at most {max} fields in a line, found more")]
    FieldsMany {
        /// The limit.
        max: usize,
    },
    /// Another separator than the comma, as spreadsheets of other countries write it.
    #[error("expected commas between the columns, found {found:?}; save the file with commas as separators")]
    Separator {
        /// What stands there.
        found: char,
    },
    /// A line with nothing in it.
    #[error("the line is empty; remove it")]
    LineEmpty,
    /// A line that does not fit the header.
    #[error(
        "expected {expected} fields, as in the header line, found {found}; a field with a comma in it stands in quotation marks"
    )]
    Fields {
        /// As in the header.
        expected: usize,
        /// In this line.
        found: usize,
    },
    /// A column that must be there.
    #[error(
        "the header line has no column {column}{}; add it, or map a column of yours to it in the policy's files.toml",
        heading.as_ref().map(|heading| format!(", which the policy's layout calls {heading:?}")).unwrap_or_default()
    )]
    ColumnMissing {
        /// Our name for it.
        column: &'static str,
        /// The layout's name for it, if that is another.
        heading: Option<String>,
    },
    /// A column nobody knows.
    #[error(
        "column {found:?} is not of this layout; remove it, or map it in the policy's files.toml, to \"ignore\" if need be"
    )]
    ColumnUnknown {
        /// As the file has it.
        found: String,
    },
    /// A column that stands there twice.
    #[error("column {column} stands here and in column {first}; a line has it once")]
    ColumnTwice {
        /// Our name for it.
        column: &'static str,
        /// Where it stood first, counted from 1.
        first: usize,
    },
    /// A value that must be there.
    #[error("expected {expected}, found nothing")]
    ValueMissing {
        /// The form of the column.
        expected: &'static str,
    },
    /// A value of another form.
    #[error("expected {expected}, found {found:?}")]
    Value {
        /// The form of the column.
        expected: String,
        /// What stands there, cut.
        found: String,
    },
    /// Two lines about one thing.
    #[error("{what} stands in line {first} already; a file says it once")]
    Twice {
        /// What.
        what: String,
        /// Where it stood first.
        first: u64,
    },
    /// Lines that should agree and do not.
    #[error("expected {expected}, as in line {first}, found {found}")]
    Differs {
        /// What the first line says.
        expected: String,
        /// Where.
        first: u64,
        /// What this one says.
        found: String,
    },
    /// A header and nothing below it.
    #[error("expected at least one line below the header line, found none")]
    NoRows,
    /// More than the one line.
    #[error("expected one line below the header line, as a notification is about one Private Key, found {found}")]
    OneRow {
        /// How many.
        found: u64,
    },
    /// Too many lines.
    #[error("expected at most {max} lines below the header line, found more; send it in parts")]
    RowsMany {
        /// The limit.
        max: u64,
    },
}

impl Fault {
    /// A value of another form than the column's.
    pub fn value(expected: &(impl fmt::Display + ?Sized), found: &str) -> Self {
        Self::Value { expected: expected.to_string(), found: found.chars().take(FOUND_LEN_MAX).collect() }
    }
}

/// A fault and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}{}: {fault}", column.map(|column| format!(", column {column}")).unwrap_or_default(),
    heading.as_ref().map(|heading| format!(" ({heading})")).unwrap_or_default())]
pub struct FileFault {
    /// Counted from 1; the header is line 1.
    pub line: u64,
    /// The field within the line, counted from 1; none if the whole line is meant.
    pub column: Option<usize>,
    /// Our name of that column, where it has one.
    pub heading: Option<&'static str>,
    /// What is wrong there.
    pub fault: Fault,
}

/// Everything that is wrong with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFaults {
    /// The first [`FAULTS_MAX`] of them, in the order in which they were met.
    pub faults: Vec<FileFault>,
    /// How many more there were.
    pub more: u64,
}

impl FileFaults {
    /// One more.
    pub(super) fn add(&mut self, line: u64, column: Option<usize>, heading: Option<&'static str>, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(FileFault { line, column, heading, fault });
        } else {
            self.more += 1;
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for FileFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if at == 0 { "" } else { "; " })?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for FileFaults {}
