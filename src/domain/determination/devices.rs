//! Pure. The device list: canonical text, read as a stream, so that ten million Devices need no more memory than one.
//!
//! One Device a line: `EUI64,template[,counter]` and a line feed. EUI-64 as 16 upper-case hexadecimal digits, strictly
//! ascending; the counter, if any, is the highest that the Device is known to have accepted, in decimal without leading
//! zeros. There is one text for one list, so that `sha256sum` reproduces its digest.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use super::document::DeviceList;
use super::pages::{Page, Pages};
use crate::domain::ledger::merkle::leaf_hash;
use crate::domain::names::{DeviceId, Digest, Eui64, TemplateName};

/// A line without its line feed: EUI-64, comma, template name, comma and the 20 digits of the greatest counter.
pub const LINE_LEN_MAX: usize = 16 + 1 + TemplateName::LEN_MAX + 1 + 20;

/// How many faults are told one by one, unless more are asked for. No official reference.
pub const FAULTS_MAX: usize = 20;

/// One Device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Which Device.
    pub device: DeviceId,
    /// The place of its template among the determination's templates.
    pub template: usize,
    /// The highest counter that it is known to have accepted.
    pub counter: Option<u64>,
}

impl DeviceRow {
    /// Writes the one line of this Device.
    pub fn write(&self, templates: &[TemplateName], to: &mut impl Write) -> io::Result<()> {
        let Self { device, template, counter } = *self;
        write!(to, "{device},{}", templates[template])?;
        match counter {
            Some(counter) => writeln!(to, ",{counter}"),
            None => writeln!(to),
        }
    }
}

/// What is wrong with a list, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct DeviceFault {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong.
    pub kind: DeviceFaultKind,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFaultKind {
    /// No such line is possible.
    #[error("expected at most {LINE_LEN_MAX} octets and a line feed, found more")]
    TooLong,
    /// The last line is cut.
    #[error("expected a line feed at the end of the last line, found the end of the file")]
    Cut,
    /// Two or three fields.
    #[error("expected EUI64,template or EUI64,template,counter, found {found} fields")]
    Fields {
        /// How many.
        found: usize,
    },
    /// Not an EUI-64.
    #[error("expected an EUI-64 as 16 upper-case hexadecimal digits, found {found:?}")]
    Eui64 {
        /// What stands there.
        found: String,
    },
    /// Not one of the determination's.
    #[error("expected one of the document's templates, found {found:?}")]
    Template {
        /// What stands there.
        found: String,
    },
    /// Not the one text of a number.
    #[error("expected a counter from 0 to 18446744073709551615 without leading zeros, found {found:?}")]
    Counter {
        /// What stands there.
        found: String,
    },
    /// Not sorted.
    #[error("expected a Device above {before}, found {found}; sort the list with `LC_ALL=C sort`")]
    Order {
        /// The Device of the line before.
        before: DeviceId,
        /// The Device of this line.
        found: DeviceId,
    },
    /// A Device twice.
    #[error("{found} stands there twice; each Device gets one template")]
    Twice {
        /// The Device.
        found: DeviceId,
    },
    /// No line at all.
    #[error("expected at least one Device, found none")]
    Empty,
    /// A Device twice, and not the same of it.
    #[error("{found} stands in line {line} too, with another template or counter")]
    Contradicts {
        /// The Device.
        found: DeviceId,
        /// The other line.
        line: u64,
    },
    /// A line without a template, and none that holds for all.
    #[error("{found} has no template; name the one for all of them with --template")]
    NoTemplate {
        /// The Device.
        found: DeviceId,
    },
    /// More templates than a document has.
    #[error("expected at most {max} templates, found one more: {found}")]
    Templates {
        /// The limit.
        max: usize,
        /// The template of this line.
        found: TemplateName,
    },
    /// More than the caller allows.
    #[error("expected at most {max} Devices, found more")]
    TooMany {
        /// The caller's limit.
        max: u64,
    },
}

/// Every fault in a list, up to a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFaults {
    /// The first of them, by line.
    pub faults: Vec<DeviceFault>,
    /// How many more there are.
    pub more: u64,
    /// How many are told one by one.
    most: usize,
}

impl Default for DeviceFaults {
    fn default() -> Self {
        Self::up_to(FAULTS_MAX)
    }
}

impl DeviceFaults {
    /// None yet; so many are to be told one by one.
    pub const fn up_to(most: usize) -> Self {
        Self { faults: Vec::new(), more: 0, most }
    }

    /// One more.
    pub fn add(&mut self, line: u64, kind: DeviceFaultKind) {
        if self.faults.len() < self.most {
            self.faults.push(DeviceFault { line, kind });
        } else {
            self.more += 1;
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty() && self.more == 0
    }
}

impl fmt::Display for DeviceFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))?;
        if self.more > 0 { write!(f, "\nand {} more", self.more) } else { Ok(()) }
    }
}

impl std::error::Error for DeviceFaults {}

/// Reads a list in pieces of any size.
///
/// Rows are handed out before the whole list is known to be good: whoever keeps them throws them away when
/// [`DeviceListReader::finish`] refuses.
pub struct DeviceListReader {
    templates: BTreeMap<Box<[u8]>, usize>,
    devices_max: u64,
    pages: Pages,
    sha256: ring::digest::Context,
    /// The beginning of a line whose end has not come yet; at most `LINE_LEN_MAX + 1` octets.
    carry: Vec<u8>,
    line: u64,
    before: Option<DeviceId>,
    faults: DeviceFaults,
}

impl DeviceListReader {
    /// For a document with these templates, and a policy that allows so many Devices.
    pub fn new<'a>(templates: impl IntoIterator<Item = &'a TemplateName>, devices_max: u64) -> Self {
        let place = |(i, name): (usize, &TemplateName)| (name.as_str().as_bytes().into(), i);
        Self {
            templates: templates.into_iter().enumerate().map(place).collect(),
            devices_max,
            pages: Pages::default(),
            sha256: ring::digest::Context::new(&ring::digest::SHA256),
            carry: Vec::with_capacity(LINE_LEN_MAX + 1),
            line: 0,
            before: None,
            faults: DeviceFaults::default(),
        }
    }

    /// The next octets. `row` is given each good row, in order.
    pub fn feed(&mut self, mut octets: &[u8], mut row: impl FnMut(DeviceRow)) {
        self.sha256.update(octets);
        while let Some(end) = octets.iter().position(|&b| b == b'\n') {
            let (head, rest) = (&octets[..end], &octets[end + 1..]);
            if self.carry.is_empty() {
                self.line(head, &mut row);
            } else {
                self.keep(head);
                let carry = std::mem::take(&mut self.carry);
                self.line(&carry, &mut row);
                self.carry = carry;
                self.carry.clear();
            }
            octets = rest;
        }
        self.keep(octets);
    }

    /// Whether the list is refused already. Reading on only finds more of its faults.
    pub fn is_refused(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The end of the list.
    ///
    /// # Errors
    /// All that was wrong, up to [`FAULTS_MAX`]. On success the three values that a document gives; compare them.
    pub fn finish(self) -> Result<DeviceList, DeviceFaults> {
        self.finish_with_pages().map(|(list, _)| list)
    }

    /// The same, and by which pages its Devices are found.
    ///
    /// # Errors
    /// As [`DeviceListReader::finish`].
    pub fn finish_with_pages(mut self) -> Result<(DeviceList, Vec<Page>), DeviceFaults> {
        if !self.carry.is_empty() {
            self.faults.add(self.line + 1, DeviceFaultKind::Cut);
        } else if self.line == 0 {
            self.faults.add(1, DeviceFaultKind::Empty);
        }
        if self.is_refused() {
            return Err(self.faults);
        }
        let sha256 = Digest::try_from(self.sha256.finish().as_ref()).expect("SHA-256 has 32 octets");
        let (pages, root) = self.pages.finish();
        Ok((DeviceList { count: self.line, sha256, root }, pages))
    }

    /// Keeps the beginning of a line: one octet too many is enough to know that it is too long.
    fn keep(&mut self, octets: &[u8]) {
        let space = (LINE_LEN_MAX + 1).saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&octets[..octets.len().min(space)]);
    }

    fn line(&mut self, line: &[u8], row: &mut impl FnMut(DeviceRow)) {
        self.line += 1;
        if self.line > self.devices_max {
            if self.line - 1 == self.devices_max {
                self.faults.add(self.line, DeviceFaultKind::TooMany { max: self.devices_max });
            }
            return;
        }
        match self.read(line) {
            Ok(found) => {
                if let Some(before) = self.before.filter(|&before| before >= found.device) {
                    let found = found.device;
                    let kind = if before == found {
                        DeviceFaultKind::Twice { found }
                    } else {
                        DeviceFaultKind::Order { before, found }
                    };
                    self.faults.add(self.line, kind);
                } else {
                    self.pages.push(found.device, leaf_hash(line), line.len());
                    row(found);
                }
                self.before = Some(found.device);
            }
            Err(kind) => self.faults.add(self.line, kind),
        }
    }

    fn read(&self, line: &[u8]) -> Result<DeviceRow, DeviceFaultKind> {
        if line.len() > LINE_LEN_MAX {
            return Err(DeviceFaultKind::TooLong);
        }
        let shown = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let mut fields = line.split(|&b| b == b',');
        let (Some(device), Some(template), counter, None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(DeviceFaultKind::Fields { found: line.split(|&b| b == b',').count() });
        };
        let device = eui64(device).ok_or_else(|| DeviceFaultKind::Eui64 { found: shown(device) })?;
        let template =
            *self.templates.get(template).ok_or_else(|| DeviceFaultKind::Template { found: shown(template) })?;
        let counter = match counter {
            Some(text) => Some(decimal(text).ok_or_else(|| DeviceFaultKind::Counter { found: shown(text) })?),
            None => None,
        };
        Ok(DeviceRow { device: DeviceId(device), template, counter })
    }
}

/// An EUI-64 as lists have it: 16 upper-case hexadecimal digits. By hand, because it is done ten million times: no text, no allocation.
pub fn eui64(digits: &[u8]) -> Option<Eui64> {
    let digits: &[u8; 16] = digits.try_into().ok()?;
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let mut octets = [0; 8];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(Eui64(octets))
}

/// A decimal number without leading zeros.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
