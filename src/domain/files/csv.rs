//! Pure. Comma-separated values (RFC 4180), strictly and piece by piece: UTF-8 without byte order mark, fields separated by
//! commas, quoted where they must be, lines ended by CR LF or LF.

use super::faults::Fault;

/// The longest field in octets: a paragraph. No official reference.
pub const FIELD_LEN_MAX: usize = 4_096;
/// The most fields in a line: several times our widest layout, for columns that a policy maps to nothing.
pub const FIELDS_MAX: usize = 64;

/// What UTF-8 makes of U+FEFF.
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// A line's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The line on which it begins, counted from 1.
    pub line: u64,
    /// Its fields, without quotation marks.
    pub fields: Vec<String>,
}

/// What reading gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A record.
    Record(Record),
    /// A fault: its line, the field within it counted from 1, and what. The record that it is in is left out.
    Fault(u64, usize, Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing of the line was read.
    LineStart,
    /// A comma was read.
    FieldStart,
    /// Within a field without quotation marks.
    Bare,
    /// Within quotation marks.
    Quoted,
    /// A quotation mark was read within quotation marks: it closes them, or is the first of two.
    Closing,
    /// A carriage return was read that must be followed by a line feed.
    Returned,
    /// After a fault: nothing more of this line is looked at.
    Skipping,
}

/// Reads octets as they come.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// Of the octet that comes next.
    line: u64,
    /// On which the record begins.
    begun: u64,
    /// On which the field begins.
    field_begun: u64,
    fields: Vec<String>,
    field: Vec<u8>,
    /// The first octets of the file, until there are three or it is known that they are no mark.
    seen: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: State::LineStart,
            line: 1,
            begun: 1,
            field_begun: 1,
            fields: Vec::new(),
            field: Vec::new(),
            seen: 0,
        }
    }
}

impl Reader {
    /// The next octets; what they come to goes to `each`.
    pub fn feed(&mut self, mut piece: &[u8], each: &mut dyn FnMut(Read)) {
        while let Some((&octet, rest)) = piece.split_first() {
            // Most octets are ordinary ones of fields without quotation marks: they are taken together.
            let plain = if self.state == State::Bare && self.seen == BYTE_ORDER_MARK.len() { plain(piece) } else { 0 };
            let fits = plain.min(FIELD_LEN_MAX - self.field.len());
            if fits > 0 {
                self.field.extend_from_slice(&piece[..fits]);
                piece = &piece[fits..];
            } else {
                self.octet(octet, each);
                piece = rest;
            }
        }
    }

    /// No more octets come.
    pub fn finish(mut self, each: &mut dyn FnMut(Read)) {
        match self.state {
            State::LineStart | State::Skipping => {}
            State::Quoted => self.fault(Fault::Unclosed, each),
            State::Returned => self.fault(Fault::LoneReturn, each),
            State::FieldStart | State::Bare | State::Closing => {
                self.end_field(each);
                if self.state != State::Skipping {
                    self.end_record(each);
                }
            }
        }
    }

    fn octet(&mut self, octet: u8, each: &mut dyn FnMut(Read)) {
        if self.seen < BYTE_ORDER_MARK.len() {
            let is_mark = self.field.len() == self.seen && octet == BYTE_ORDER_MARK[self.seen];
            self.seen = if is_mark { self.seen + 1 } else { BYTE_ORDER_MARK.len() };
            if is_mark && self.seen == BYTE_ORDER_MARK.len() {
                self.fault(Fault::ByteOrderMark, each);
                return;
            }
        }
        match (self.state, octet) {
            (State::Skipping, b'\n') => {
                self.line += 1;
                self.begin_line();
            }
            (State::Skipping, _) => {}
            (State::Quoted, b'"') => self.state = State::Closing,
            (State::Quoted, _) => {
                self.line += u64::from(octet == b'\n');
                self.push(octet, each);
            }
            (State::Closing, b'"') => {
                self.state = State::Quoted;
                self.push(octet, each);
            }
            (State::LineStart | State::FieldStart, b'"') => {
                self.field_begun = self.line;
                self.state = State::Quoted;
            }
            (State::Bare, b'"') => self.fault(Fault::QuoteWithin, each),
            (State::Returned | State::LineStart | State::FieldStart | State::Bare | State::Closing, b'\n') => {
                self.end_field(each);
                if self.state != State::Skipping {
                    self.end_record(each);
                }
                self.line += 1;
                self.begin_line();
            }
            (State::Returned, _) => self.fault(Fault::LoneReturn, each),
            (State::LineStart | State::FieldStart | State::Bare | State::Closing, b'\r') => {
                self.state = State::Returned;
            }
            (State::LineStart | State::FieldStart | State::Bare | State::Closing, b',') => {
                self.end_field(each);
                if self.state != State::Skipping {
                    self.state = State::FieldStart;
                }
            }
            (State::Closing, _) => self.fault(Fault::BehindQuote { found: char::from(octet) }, each),
            (State::LineStart | State::FieldStart | State::Bare, _) => {
                if self.state != State::Bare {
                    self.field_begun = self.line;
                    self.state = State::Bare;
                }
                self.push(octet, each);
            }
        }
    }

    fn push(&mut self, octet: u8, each: &mut dyn FnMut(Read)) {
        if self.field.len() == FIELD_LEN_MAX {
            self.fault(Fault::FieldLength { max: FIELD_LEN_MAX }, each);
        } else {
            self.field.push(octet);
        }
    }

    fn end_field(&mut self, each: &mut dyn FnMut(Read)) {
        match String::from_utf8(std::mem::take(&mut self.field)) {
            Ok(_) if self.fields.len() == FIELDS_MAX => self.fault(Fault::FieldsMany { max: FIELDS_MAX }, each),
            Ok(text) => self.fields.push(text),
            Err(error) => {
                let octet = error.as_bytes()[error.utf8_error().valid_up_to()];
                self.fault(Fault::NotUtf8 { octet }, each);
            }
        }
    }

    fn end_record(&mut self, each: &mut dyn FnMut(Read)) {
        each(Read::Record(Record { line: self.begun, fields: std::mem::take(&mut self.fields) }));
    }

    fn begin_line(&mut self) {
        self.state = State::LineStart;
        self.begun = self.line;
        self.field_begun = self.line;
        self.fields.clear();
        self.field.clear();
    }

    /// Says a fault of the field that is being read, and skips the rest of its line.
    fn fault(&mut self, fault: Fault, each: &mut dyn FnMut(Read)) {
        let line = if self.state == State::Quoted { self.field_begun } else { self.line };
        each(Read::Fault(line, self.fields.len() + 1, fault));
        self.fields.clear();
        self.field.clear();
        self.state = State::Skipping;
    }
}

/// How many octets at the beginning mean nothing but themselves.
fn plain(octets: &[u8]) -> usize {
    octets.iter().position(|octet| matches!(octet, b',' | b'"' | b'\r' | b'\n')).unwrap_or(octets.len())
}

/// Writes a record, with CR LF at its end as RFC 4180 has it; what needs quotation marks gets them.
pub fn write_record<'a>(fields: impl IntoIterator<Item = &'a str>, to: &mut String) {
    for (at, field) in fields.into_iter().enumerate() {
        if at > 0 {
            to.push(',');
        }
        if field.contains(['"', ',', '\r', '\n']) {
            to.push('"');
            to.push_str(&field.replace('"', "\"\""));
            to.push('"');
        } else {
            to.push_str(field);
        }
    }
    to.push_str("\r\n");
}

#[cfg(test)]
mod tests;
