//! Pure. The container of signed commands: one stream of records, in files and as the daemon's answer (`src/docs/container.md`).
//!
//! ```text
//! 53 4D 4B 49 43 4D 44 01   "SMKICMD" and the version
//! length u32, header        JSON: where the commands are from, and the names of their templates
//! records                   kind u8, length u32, body
//!   1  command              Device 8, Originator Counter u64, intent u64, template u16, the whole command
//!   2  line                 JSON, as a line of the NDJSON form: what became of what was not signed, why it stopped, the summary
//!   0  end                  how many commands u64; in a file then the SHA-256 of all octets before it
//! ```
//!
//! Numbers are big-endian. Nothing follows the end, and what has none is cut. An answer of the daemon has no SHA-256 at its end: a socket
//! loses nothing, and four kilobytes of each command would be hashed twice more.
//!
//! An answer of differences has the version 2, and one kind more:
//!
//! ```text
//!   3  likewise             Device 8, Originator Counter u64, intent u64, template u16, then what differs from the last command of that
//!                           template: place u16, length u16, octets; as often as need be
//! ```
//!
//! Commands of one template differ in some eighty octets of four thousand, which would else go through five buffers of daemon, kernel and
//! client: it is a third of what the way out costs.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::CommandOctets;
use crate::domain::names::{DeterminationId, DeviceId, Digest, Eui64, KeyLabel, Origin, RequestId, TemplateName};

/// The media type of an answer in this form.
pub const MEDIA_TYPE: &str = "application/vnd.smkid.commands";

/// The first octets: a name and the version.
pub const MAGIC: [u8; 8] = *b"SMKICMD\x01";

/// The first octets of an answer of differences.
const MAGIC_DIFFERENCES: [u8; 8] = *b"SMKICMD\x02";

/// The greatest header in octets.
pub const HEADER_LEN_MAX: usize = 64 * 1024;

/// The greatest body of a record in octets: GBCS messages have at most 65,535 octets of payload and a short frame; reasons may be longer.
pub const BODY_LEN_MAX: usize = 1024 * 1024;

/// Octets before the body of a record.
const FRAME_LEN: usize = 1 + 4;

/// Octets of a command's body before the command.
const FIELDS_LEN: usize = 8 + 8 + 8 + 2;

const KIND_END: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_LINE: u8 = 2;
const KIND_LIKEWISE: u8 = 3;

/// Octets before what differs: place and length.
const DIFFERENCE_HEAD_LEN: usize = 2 + 2;

/// Octets that are compared at a time; what differs is told by these.
const COMPARED_LEN: usize = 16;

/// What differs of a command in more octets than these is not worth being told by differences.
const DIFFERENCES_LEN_MAX: usize = 512;

/// Where the commands of a container are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The ledger.
    pub origin: Origin,
    /// Under which determination they were signed.
    pub determination: DeterminationId,
    /// By which request; none where it is of several.
    pub request: Option<RequestId>,
    /// With which key.
    pub key: KeyLabel,
    /// SHA-256 of that key's DER SubjectPublicKeyInfo.
    pub spki_sha256: Digest,
    /// The templates, which commands name by their place in this list.
    pub templates: Vec<TemplateName>,
}

impl Header {
    /// The place of a template in the list.
    pub fn template(&self, name: &TemplateName) -> Option<u16> {
        self.templates.iter().position(|known| known == name).and_then(|at| u16::try_from(at).ok())
    }
}

/// What stands beside a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The Device.
    pub device: DeviceId,
    /// The Originator Counter.
    pub counter: u64,
    /// The index of its intent's leaf.
    pub intent: u64,
    /// Its template's place in the header.
    pub template: u16,
}

/// Writes a container, record by record, behind what is in a buffer already. Whoever has the buffer empties it as it likes.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    commands: u64,
    /// The last command of each template, where commands are told by differences; one may have a symmetric key inside.
    lasts: Option<Vec<CommandOctets>>,
}

impl Writer {
    /// Begins one: magic and header.
    pub fn begin(header: &Header, out: &mut Vec<u8>) -> Self {
        write_header(MAGIC, header, out);
        Self::default()
    }

    /// Begins an answer of differences.
    pub fn begin_differences(header: &Header, out: &mut Vec<u8>) -> Self {
        write_header(MAGIC_DIFFERENCES, header, out);
        Self { commands: 0, lasts: Some(vec![CommandOctets::new(true); header.templates.len()]) }
    }

    /// One command.
    pub fn command(&mut self, fields: Fields, command: &[u8], out: &mut Vec<u8>) {
        self.commands += 1;
        let last = self.lasts.as_mut().and_then(|lasts| lasts.get_mut(usize::from(fields.template)));
        let Some(last) = last else { return write_command(KIND_COMMAND, fields, command, out) };
        let mut differences = Vec::new();
        if differ(last, command, &mut differences) {
            write_command(KIND_LIKEWISE, fields, &differences, out);
        } else {
            write_command(KIND_COMMAND, fields, command, out);
            last.clear();
            last.extend_from_slice(command);
        }
    }

    /// One line, with or without its line feed.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        out.push(KIND_LINE);
        out.extend_from_slice(&len_of(line.len()));
        out.extend_from_slice(line);
    }

    /// The end of an answer.
    pub fn end(self, out: &mut Vec<u8>) {
        self.end_with(8, out);
    }

    /// The end of a file, but for the SHA-256 of all octets so far, which has to follow.
    pub fn end_before_digest(self, out: &mut Vec<u8>) {
        self.end_with(8 + Digest::LEN, out);
    }

    fn end_with(self, len: usize, out: &mut Vec<u8>) {
        out.push(KIND_END);
        out.extend_from_slice(&len_of(len));
        out.extend_from_slice(&self.commands.to_be_bytes());
    }
}

fn write_header(magic: [u8; 8], header: &Header, out: &mut Vec<u8>) {
    let header = serde_json::to_vec(header).expect("a header is made of names, and a Vec takes them");
    out.extend_from_slice(&magic);
    out.extend_from_slice(&len_of(header.len()));
    out.extend_from_slice(&header);
}

/// A record about a command: the command, or what differs.
fn write_command(kind: u8, fields: Fields, octets: &[u8], out: &mut Vec<u8>) {
    let Fields { device, counter, intent, template } = fields;
    let mut head = [0; FRAME_LEN + FIELDS_LEN];
    head[0] = kind;
    head[1..5].copy_from_slice(&len_of(FIELDS_LEN + octets.len()));
    head[5..13].copy_from_slice(device.0.octets());
    head[13..21].copy_from_slice(&counter.to_be_bytes());
    head[21..29].copy_from_slice(&intent.to_be_bytes());
    head[29..31].copy_from_slice(&template.to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(octets);
}

/// Appends what makes one command of another, and makes it; false, with nothing made, if that is too much.
fn differ(last: &mut [u8], command: &[u8], out: &mut Vec<u8>) -> bool {
    if last.len() != command.len() || command.len() > usize::from(u16::MAX) {
        return false;
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (n, (before, now)) in last.chunks(COMPARED_LEN).zip(command.chunks(COMPARED_LEN)).enumerate() {
        if before == now {
            continue;
        }
        let at = n * COMPARED_LEN;
        match ranges.last_mut() {
            Some(range) if range.end == at => range.end = at + now.len(),
            Some(_) | None => ranges.push(at..at + now.len()),
        }
    }
    if ranges.iter().map(|range| DIFFERENCE_HEAD_LEN + range.len()).sum::<usize>() > DIFFERENCES_LEN_MAX {
        return false;
    }
    let short = |len: usize| u16::try_from(len).expect("no command is longer").to_be_bytes();
    for range in ranges {
        out.extend_from_slice(&short(range.start));
        out.extend_from_slice(&short(range.len()));
        out.extend_from_slice(&command[range.clone()]);
        last[range.clone()].copy_from_slice(&command[range]);
    }
    true
}

/// Makes of the last command another, by what differs; none if that does not fit.
fn make(last: &mut [u8], mut differences: &[u8]) -> Option<()> {
    while let Some((head, rest)) = differences.split_first_chunk::<DIFFERENCE_HEAD_LEN>() {
        let [place, len] =
            [[head[0], head[1]], [head[2], head[3]]].map(|octets| usize::from(u16::from_be_bytes(octets)));
        let (octets, rest) = rest.split_at_checked(len)?;
        last.get_mut(place..place + len)?.copy_from_slice(octets);
        differences = rest;
    }
    differences.is_empty().then_some(())
}

fn len_of(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("no command, line or header comes near 4 GiB").to_be_bytes()
}

/// What a container is wrong with, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("octet {at}: {fault}")]
pub struct ContainerError {
    /// Counted from 0 in the whole container.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

/// What is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something else.
    #[error("expected `SMKICMD` and version 1, found {}; it is no container of signed commands that this version reads", Hex(.0))]
    Magic(Vec<u8>),
    /// The header.
    #[error("the header: {0}")]
    Header(String),
    /// A length that nothing has.
    #[error("{what}: expected {expected} octets, found the length {found}")]
    Len {
        /// Of what.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What stands there.
        found: usize,
    },
    /// A record of an unknown kind.
    #[error("expected a record of kind 0, 1 or 2, or 3 in an answer of differences, found {0}")]
    Kind(u8),
    /// A template that the header does not name.
    #[error("expected one of the header's {known} templates, found the place {found}")]
    Template {
        /// How many there are.
        known: usize,
        /// What stands there.
        found: u16,
    },
    /// The octets of a command are another's.
    #[error(
        "the command is for Device {found_device} with counter {found_counter}, its record says {device} with counter {counter}"
    )]
    Command {
        /// The record's.
        device: DeviceId,
        /// The record's.
        counter: u64,
        /// The command's.
        found_device: DeviceId,
        /// The command's.
        found_counter: u64,
    },
    /// What differs does not fit the last command.
    #[error("expected what differs from the last command of its template, found octets beside it, or no such command")]
    Differences,
    /// A command too short to be one.
    #[error("expected a signed GBCS command, found {0} octets")]
    Short(usize),
    /// Commands are missing or too many.
    #[error("the end says {expected} commands, found {found}")]
    Count {
        /// The end's.
        expected: u64,
        /// Of the records.
        found: u64,
    },
    /// Octets were changed.
    #[error("the octets before have SHA-256 {found}, the end says {expected}: it was changed")]
    Digest {
        /// The end's.
        expected: Digest,
        /// Of the octets.
        found: Digest,
    },
    /// There is more.
    #[error("expected nothing after the end, found more")]
    Surplus,
    /// There is less.
    #[error("it is cut: {what} does not end")]
    Cut {
        /// What.
        what: &'static str,
    },
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Where a reader has the octets of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Octets(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Held(Range<usize>),
    /// As the last command of this template.
    Last(usize),
}

/// A record, as it is read. Its octets lie in the reader until it is fed again ([`Reader::octets`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The header, always the first.
    Header(Header),
    /// A command.
    Command(Fields, Octets),
    /// A line.
    Line(Octets),
    /// The end, after that many commands.
    End(u64),
}

/// Reads a container as it comes, with memory for one record.
pub struct Reader {
    held: Vec<u8>,
    /// How much of what is held was read.
    read: usize,
    /// Where in the container what is held begins.
    base: u64,
    header: Option<usize>,
    /// The last command of each template, if they are told by differences.
    lasts: Option<Vec<Vec<u8>>>,
    commands: u64,
    ended: bool,
    /// Over all that was read, where the end has to say it.
    hash: Option<ring::digest::Context>,
}

impl Reader {
    /// Of an answer.
    pub fn of_answer() -> Self {
        Self { held: Vec::new(), read: 0, base: 0, header: None, lasts: None, commands: 0, ended: false, hash: None }
    }

    /// Of a file, whose end has a SHA-256.
    pub fn of_file() -> Self {
        Self { hash: Some(ring::digest::Context::new(&ring::digest::SHA256)), ..Self::of_answer() }
    }

    /// Takes more octets. What was read before is forgotten.
    pub fn feed(&mut self, octets: &[u8]) {
        self.base += self.read as u64;
        self.held.drain(..self.read);
        self.read = 0;
        self.held.extend_from_slice(octets);
    }

    /// The octets of a record that was read last.
    pub fn octets(&self, of: &Octets) -> &[u8] {
        match &of.0 {
            Place::Held(range) => &self.held[range.clone()],
            Place::Last(template) => {
                self.lasts.as_ref().and_then(|lasts| lasts.get(*template)).map_or(&[], Vec::as_slice)
            }
        }
    }

    /// How many commands were read.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// The next record; none if it is not all there yet.
    ///
    /// # Errors
    /// The first octet that is wrong. Nothing is to be read after it.
    pub fn record(&mut self) -> Result<Option<Record>, ContainerError> {
        let Some(templates) = self.header else { return self.read_header() };
        if self.ended {
            return if self.read < self.held.len() { Err(self.fault(0, Fault::Surplus)) } else { Ok(None) };
        }
        let Some((frame, rest)) = self.held[self.read..].split_first_chunk::<FRAME_LEN>() else { return Ok(None) };
        let [kind, len @ ..] = *frame;
        let len = u32::from_be_bytes(len) as usize;
        self.check_len(kind, len)?;
        if rest.len() < len {
            return Ok(None);
        }
        let body = self.read + FRAME_LEN..self.read + FRAME_LEN + len;
        let record = match kind {
            KIND_END => Record::End(self.read_end(&body)?),
            KIND_COMMAND | KIND_LIKEWISE => {
                let fields = self.read_fields(&body, templates)?;
                self.commands += 1;
                Record::Command(fields, self.read_command(kind, fields, body.start + FIELDS_LEN..body.end)?)
            }
            _ => Record::Line(Octets(Place::Held(body.clone()))),
        };
        if let Some(hash) = &mut self.hash {
            hash.update(&self.held[self.read..body.end]);
        }
        self.read = body.end;
        Ok(Some(record))
    }

    /// That it came to its end.
    pub fn finish(&self) -> Result<(), ContainerError> {
        let what = match (self.ended, self.header) {
            (true, _) => return Ok(()),
            (false, None) => "its header",
            (false, Some(_)) if self.read < self.held.len() => "a record",
            (false, Some(_)) => "the container",
        };
        Err(self.fault(self.held.len() - self.read, Fault::Cut { what }))
    }

    fn fault(&self, from: usize, fault: Fault) -> ContainerError {
        ContainerError { at: self.base + (self.read + from) as u64, fault }
    }

    fn read_header(&mut self) -> Result<Option<Record>, ContainerError> {
        let head = &self.held[self.read..];
        let begun = &head[..head.len().min(MAGIC.len())];
        let has_differences = self.hash.is_none() && begun == MAGIC_DIFFERENCES;
        if !MAGIC.starts_with(begun) && !has_differences {
            return Err(self.fault(0, Fault::Magic(begun.to_vec())));
        }
        let Some(len) = head.get(MAGIC.len()..).and_then(<[u8]>::first_chunk::<4>) else { return Ok(None) };
        let len = u32::from_be_bytes(*len) as usize;
        if len > HEADER_LEN_MAX {
            let expected = format!("at most {HEADER_LEN_MAX}");
            return Err(self.fault(MAGIC.len(), Fault::Len { what: "the header", expected, found: len }));
        }
        let from = MAGIC.len() + 4;
        let Some(text) = head.get(from..from + len) else { return Ok(None) };
        let header: Header =
            serde_json::from_slice(text).map_err(|error| self.fault(from, Fault::Header(error.to_string())))?;
        if let Some(hash) = &mut self.hash {
            hash.update(&self.held[self.read..self.read + from + len]);
        }
        self.read += from + len;
        self.header = Some(header.templates.len());
        self.lasts = has_differences.then(|| vec![Vec::new(); header.templates.len()]);
        Ok(Some(Record::Header(header)))
    }

    /// A length is judged before its octets are waited for.
    fn check_len(&self, kind: u8, len: usize) -> Result<(), ContainerError> {
        let (what, least, most) = match kind {
            KIND_END => {
                let expected = 8 + if self.hash.is_some() { Digest::LEN } else { 0 };
                ("the end", expected, expected)
            }
            KIND_COMMAND => ("a command", FIELDS_LEN, BODY_LEN_MAX),
            KIND_LINE => ("a line", 0, BODY_LEN_MAX),
            KIND_LIKEWISE if self.lasts.is_some() => ("what differs", FIELDS_LEN, BODY_LEN_MAX),
            other => return Err(self.fault(0, Fault::Kind(other))),
        };
        if (least..=most).contains(&len) {
            return Ok(());
        }
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Err(self.fault(1, Fault::Len { what, expected, found: len }))
    }

    fn read_fields(&self, body: &Range<usize>, templates: usize) -> Result<Fields, ContainerError> {
        let octets = &self.held[body.clone()];
        let u64_at = |at: usize| u64::from_be_bytes(octets[at..at + 8].try_into().expect("8 octets"));
        let device = DeviceId(Eui64(octets[..8].try_into().expect("8 octets")));
        let (counter, intent) = (u64_at(8), u64_at(16));
        let template = u16::from_be_bytes([octets[24], octets[25]]);
        if usize::from(template) >= templates {
            let fault = Fault::Template { known: templates, found: template };
            return Err(self.fault(FRAME_LEN + 24, fault));
        }
        Ok(Fields { device, counter, intent, template })
    }

    /// A command that is there whole, or what differs from the last.
    fn read_command(&mut self, kind: u8, fields: Fields, rest: Range<usize>) -> Result<Octets, ContainerError> {
        let (template, held) = (usize::from(fields.template), &self.held[rest.clone()]);
        let Some(last) = self.lasts.as_mut().and_then(|lasts| lasts.get_mut(template)) else {
            return Ok(Octets(Place::Held(rest)));
        };
        if kind == KIND_COMMAND {
            last.clear();
            last.extend_from_slice(held);
        } else if last.is_empty() || make(last, held).is_none() {
            return Err(self.fault(FRAME_LEN + FIELDS_LEN, Fault::Differences));
        } else if let Err(fault) = check_command(fields, last) {
            return Err(self.fault(FRAME_LEN, fault));
        }
        Ok(Octets(Place::Last(template)))
    }

    fn read_end(&mut self, body: &Range<usize>) -> Result<u64, ContainerError> {
        let octets = &self.held[body.clone()];
        let expected = u64::from_be_bytes(octets[..8].try_into().expect("8 octets"));
        if expected != self.commands {
            return Err(self.fault(FRAME_LEN, Fault::Count { expected, found: self.commands }));
        }
        if let Some(hash) = &self.hash {
            let mut hash = hash.clone();
            hash.update(&self.held[self.read..body.start + 8]);
            let found = Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets");
            let expected = Digest::try_from(&octets[8..]).expect("its length was checked");
            if found != expected {
                return Err(self.fault(FRAME_LEN + 8, Fault::Digest { expected, found }));
            }
        }
        self.ended = true;
        Ok(expected)
    }
}

/// Device and counter of a signed command, as its own Grouping Header has them (GBCS 7.2): what a record says of it has to agree.
///
/// # Errors
/// With the octet's place in the command.
pub fn check_command(fields: Fields, command: &[u8]) -> Result<(), Fault> {
    let counter = command.get(3..).and_then(<[u8]>::first_chunk::<8>);
    let device = command.get(21..).and_then(<[u8]>::first_chunk::<8>);
    let (Some(counter), Some(device)) = (counter, device) else { return Err(Fault::Short(command.len())) };
    let (found_device, found_counter) = (DeviceId(Eui64(*device)), u64::from_be_bytes(*counter));
    let Fields { device, counter, intent: _, template: _ } = fields;
    if (found_device, found_counter) == (device, counter) {
        Ok(())
    } else {
        Err(Fault::Command { device, counter, found_device, found_counter })
    }
}

#[cfg(test)]
mod tests;
