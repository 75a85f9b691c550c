//! Pure. A small strict reader and writer of DER, for the structures of CS02b and no others (X.690 section 10).
//!
//! The `der` crate refuses the length forms that genuine Devices send, so the few rules that we need are here, once. Every
//! error names the octet of the *message* it is about. Nothing recurses: each structure is read by a function of its own.

use std::borrow::Cow;
use std::ops::Range;

use super::codes::{CellUsage, KeyUsage, RemotePartyRole, SeqNumber, TrustAnchorCell};

/// Universal and context tags of CS02b.
pub(super) mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const NULL: u8 = 0x05;
    pub const ENUMERATED: u8 = 0x0A;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    /// `[n] IMPLICIT` of a primitive type.
    pub const fn primitive(n: u8) -> u8 {
        0x80 | n
    }
    /// `[n] IMPLICIT` of a constructed type.
    pub const fn constructed(n: u8) -> u8 {
        0xA0 | n
    }
}

/// Which length forms are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// DER: as few octets as can be. Commands, pre-commands and templates.
    Strict,
    /// Long forms with leading zeros too: Devices send `82 00 DE` for 222. Responses and Alerts only.
    AsObserved,
}

/// What is wrong with a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthFault {
    /// `80`: BER's indefinite form.
    Indefinite,
    /// More than two octets of length: no message is that long.
    TooWide {
        /// The first octet.
        first: u8,
    },
    /// More octets than the value needs.
    NotMinimal {
        /// The length they say.
        length: usize,
    },
}

/// Why octets are not a CS02b message. Each variant says the octet, what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The whole input is longer than any message.
    #[error("expected a message of at most {max} octets, found {found}")]
    TooLong {
        /// The limit.
        max: usize,
        /// The input's length.
        found: usize,
    },
    /// The octets end in the middle of something.
    #[error("octet {at}: expected {need} more octets of {what}, found {left}")]
    Truncated {
        /// Where the missing thing begins.
        at: usize,
        /// What it is.
        what: &'static str,
        /// How many octets it needs.
        need: usize,
        /// How many there are before its enclosing structure ends.
        left: usize,
    },
    /// Another tag, or another fixed octet of the framing.
    #[error("octet {at}: expected {what} (0x{expected:02X}), found 0x{found:02X}")]
    Octet {
        /// Where.
        at: usize,
        /// What belongs there.
        what: &'static str,
        /// The octet that announces it.
        expected: u8,
        /// The octet found.
        found: u8,
    },
    /// A length that DER, or this reader, does not allow.
    #[error("octet {at}: expected a minimal length of at most two octets for {what}, found {}", length_fault(*.fault))]
    Length {
        /// Where the length begins.
        at: usize,
        /// What it is the length of.
        what: &'static str,
        /// What is wrong with it.
        fault: LengthFault,
    },
    /// Octets after the end.
    #[error("octet {at}: expected the end of {what}, found {left} more octets")]
    Trailing {
        /// The first surplus octet.
        at: usize,
        /// What should have ended.
        what: &'static str,
        /// How many octets remain.
        left: usize,
    },
    /// A well-formed element with a value outside its type.
    #[error("octet {at}: expected {expected}, found {found}")]
    Value {
        /// Where the value begins.
        at: usize,
        /// What is allowed there.
        expected: Cow<'static, str>,
        /// What stands there, shortened.
        found: String,
    },
    /// An element that this message must, or must not, carry.
    #[error("octet {at}: expected {rule}, found it {}", if *.present { "present" } else { "absent" })]
    Presence {
        /// Where it stands, or the structure that lacks it.
        at: usize,
        /// The rule.
        rule: &'static str,
        /// Whether it is there.
        present: bool,
    },
    /// The payload disagrees with the header.
    #[error("octet {at}: expected {what} {header} as in the header, found {payload}")]
    Disagreement {
        /// Where the payload says it.
        at: usize,
        /// What of.
        what: &'static str,
        /// The header's value.
        header: u64,
        /// The payload's value.
        payload: u64,
    },
}

fn length_fault(fault: LengthFault) -> String {
    match fault {
        LengthFault::Indefinite => "the indefinite form".to_owned(),
        LengthFault::TooWide { first } => format!("{} octets of length", first & 0x7F),
        LengthFault::NotMinimal { length } => format!("{length} in more octets than it needs"),
    }
}

/// X.690 11.5.
const CELL_USAGE_DEFAULT_RULE: &str = "trustAnchorCellUsage absent where it is management, its default";

/// How many octets of a wrong value an error shows.
const FOUND_OCTETS_MAX: usize = 16; // A GeneralizedTime whole; enough to recognise the rest by.

/// Hexadecimal of the first few octets.
pub(super) fn shown(octets: &[u8]) -> String {
    let head = &octets[..octets.len().min(FOUND_OCTETS_MAX)];
    let more = if head.len() < octets.len() { "…" } else { "" };
    if head.is_empty() { "no octets".to_owned() } else { format!("{}{more}", hex::encode_upper(head)) }
}

/// Reads a range of the message from its start to its end. Positions are octets of the whole message.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
    end: usize,
    lengths: Lengths,
}

impl<'a> Reader<'a> {
    /// Over `range` of `octets`, which must lie within them.
    pub fn new(octets: &'a [u8], range: Range<usize>, lengths: Lengths) -> Self {
        debug_assert!(range.start <= range.end && range.end <= octets.len());
        Self { octets, at: range.start, end: range.end, lengths }
    }

    /// The next octet's position.
    pub fn at(&self) -> usize {
        self.at
    }

    /// From now on, other length forms.
    pub fn set_lengths(&mut self, lengths: Lengths) {
        self.lengths = lengths;
    }

    /// How many octets are left.
    pub fn left(&self) -> usize {
        self.end - self.at
    }

    /// The next octet, not taken.
    pub fn peek(&self) -> Option<u8> {
        if self.at < self.end { Some(self.octets[self.at]) } else { None }
    }

    /// The next `need` octets.
    pub fn take(&mut self, need: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let left = self.left();
        if need > left {
            return Err(DecodeError::Truncated { at: self.at, what, need, left });
        }
        let taken = &self.octets[self.at..self.at + need];
        self.at += need;
        Ok(taken)
    }

    /// The next `N` octets.
    pub fn take_array<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N], DecodeError> {
        Ok(self.take(N, what)?.try_into().expect("take(N) returned N octets"))
    }

    /// One octet that can only be `expected`.
    pub fn octet(&mut self, expected: u8, what: &'static str) -> Result<(), DecodeError> {
        let at = self.at;
        let [found] = *self.take_array::<1>(what)?;
        if found == expected { Ok(()) } else { Err(DecodeError::Octet { at, what, expected, found }) }
    }

    /// A length in BER's definite form, of at most two octets (65,535), minimal unless `AsObserved`.
    pub fn length(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let at = self.at;
        let fault = |fault| Err(DecodeError::Length { at, what, fault });
        let [first] = *self.take_array::<1>(what)?;
        let (length, least) = match first {
            0..0x80 => return Ok(usize::from(first)),
            0x80 => return fault(LengthFault::Indefinite),
            0x81 => (usize::from(self.take_array::<1>(what)?[0]), 0x80),
            0x82 => (usize::from(u16::from_be_bytes(*self.take_array::<2>(what)?)), 0x100),
            0x83.. => return fault(LengthFault::TooWide { first }),
        };
        match self.lengths {
            Lengths::Strict if length < least => fault(LengthFault::NotMinimal { length }),
            Lengths::Strict | Lengths::AsObserved => Ok(length),
        }
    }

    /// The contents of the next element, taken, if it has this tag, a length in one octet, and is whole.
    ///
    /// Nearly all are so, and a Response has many. What is wrong with another is said by whoever reads it step by step.
    #[inline]
    fn short(&mut self, tag: u8) -> Option<&'a [u8]> {
        let [found, length @ 0..0x80, rest @ ..] = &self.octets[self.at..self.end] else { return None };
        let contents = rest.get(..usize::from(*length)).filter(|_| *found == tag)?;
        self.at += 2 + contents.len();
        Some(contents)
    }

    /// Tag, length, and a reader of the contents.
    #[inline]
    pub fn element(&mut self, tag: u8, what: &'static str) -> Result<Self, DecodeError> {
        match self.short(tag) {
            Some(contents) => {
                let at = self.at - contents.len();
                Ok(Self { octets: self.octets, at, end: self.at, lengths: self.lengths })
            }
            None => self.long_element(tag, what),
        }
    }

    #[cold]
    fn long_element(&mut self, tag: u8, what: &'static str) -> Result<Self, DecodeError> {
        self.octet(tag, what)?;
        let length = self.length(what)?;
        let at = self.at;
        self.take(length, what)?;
        Ok(Self { octets: self.octets, at, end: self.at, lengths: self.lengths })
    }

    /// As `element`, if the next tag is this one.
    pub fn optional(&mut self, tag: u8, what: &'static str) -> Result<Option<Self>, DecodeError> {
        if self.peek() == Some(tag) { self.element(tag, what).map(Some) } else { Ok(None) }
    }

    /// A whole element, tag and length included, its contents unread.
    pub fn whole(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let from = self.at;
        self.element(tag, what)?;
        Ok(&self.octets[from..self.at])
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.octets[self.at..self.end];
        self.at = self.end;
        rest
    }

    /// Nothing may be left.
    pub fn finish(&self, what: &'static str) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { at: self.at, what, left }),
        }
    }

    /// An INTEGER or ENUMERATED from 0 to 2^63 − 1, in as few octets as can be (X.690 8.3.2, which BER keeps too).
    #[inline]
    pub fn unsigned(&mut self, tag: u8, what: &'static str) -> Result<u64, DecodeError> {
        let from = self.at;
        if let Some([value @ 0..0x80]) = self.short(tag) {
            return Ok(u64::from(*value));
        }
        self.at = from;
        self.long_unsigned(tag, what)
    }

    fn long_unsigned(&mut self, tag: u8, what: &'static str) -> Result<u64, DecodeError> {
        let mut contents = self.element(tag, what)?;
        let at = contents.at;
        let octets = contents.rest();
        let refuse = |fault: &str| {
            Err(DecodeError::Value { at, expected: Cow::Owned(format!("{what}, {fault}")), found: shown(octets) })
        };
        match octets {
            [] => refuse("at least one octet"),
            [0x80..=0xFF, ..] => refuse("not negative"),
            [0, 0..0x80, ..] => refuse("in as few octets as can be"),
            [..] if octets.len() > 8 => refuse("at most 9223372036854775807"),
            [..] => Ok(octets.iter().fold(0, |value, octet| value << 8 | u64::from(*octet))),
        }
    }

    /// An INTEGER or ENUMERATED of a closed list.
    pub fn coded<T>(
        &mut self,
        tag: u8,
        what: &'static str,
        expected: &'static str,
        from_code: impl FnOnce(u64) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let code = self.unsigned(tag, what)?;
        from_code(code).ok_or_else(|| DecodeError::Value {
            at: self.at - unsigned_len(code),
            expected: Cow::Borrowed(expected),
            found: code.to_string(),
        })
    }

    /// A counter.
    pub fn seq_number(&mut self, tag: u8, what: &'static str) -> Result<SeqNumber, DecodeError> {
        Ok(SeqNumber::new(self.unsigned(tag, what)?).expect("unsigned returns at most 2^63 - 1"))
    }

    /// An OCTET STRING of `N` octets.
    #[inline]
    pub fn octet_string<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let from = self.at;
        if let Some(octets) = self.short(tag::OCTET_STRING)
            && let Ok(octets) = octets.try_into()
        {
            return Ok(octets);
        }
        self.at = from;
        self.other_octet_string(what)
    }

    /// One whose length is written in more octets, or is another one.
    #[cold]
    fn other_octet_string<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut contents = self.element(tag::OCTET_STRING, what)?;
        let octets = *contents.take_array::<N>(what)?;
        contents.finish(what)?;
        Ok(octets)
    }

    /// A `RemotePartyRole`.
    pub fn role(&mut self) -> Result<RemotePartyRole, DecodeError> {
        self.coded(tag::INTEGER, "remotePartyRole", RemotePartyRole::EXPECTED, RemotePartyRole::from_code)
    }

    /// A `TrustAnchorCellIdentifier` under `tag`.
    pub fn cell(&mut self, tag: u8, what: &'static str) -> Result<TrustAnchorCell, DecodeError> {
        let mut fields = self.element(tag, what)?;
        let role = fields.role()?;
        let mut bits = fields.element(tag::BIT_STRING, "trustAnchorCellKeyUsage")?;
        let at = bits.at;
        let octets = bits.rest();
        let two = octets.try_into().ok();
        let key_usage =
            KeyUsage::ALL.iter().copied().find(|usage| Some(usage.bit_string()) == two).ok_or_else(|| {
                DecodeError::Value {
                    at,
                    expected: Cow::Borrowed("digitalSignature (0780), keyAgreement (0308) or keyCertSign (0204)"),
                    found: shown(octets),
                }
            })?;
        let cell_usage = if fields.peek() == Some(tag::INTEGER) {
            let at = fields.at;
            let usage =
                fields.coded(tag::INTEGER, "trustAnchorCellUsage", CellUsage::EXPECTED, CellUsage::from_code)?;
            if usage == CellUsage::Management {
                return Err(DecodeError::Presence { at, rule: CELL_USAGE_DEFAULT_RULE, present: true });
            }
            usage
        } else {
            CellUsage::Management
        };
        fields.finish(what)?;
        Ok(TrustAnchorCell { role, key_usage, cell_usage })
    }
}

/// The octets of a definite length, as few as can be.
pub(super) fn write_length(out: &mut Vec<u8>, length: usize) {
    match length {
        0..0x80 => out.push(u8::try_from(length).expect("below 128")),
        0x80..0x100 => out.extend([0x81, u8::try_from(length).expect("below 256")]),
        _ => {
            let octets = length.to_be_bytes();
            let from = octets.iter().position(|octet| *octet != 0).expect("the length is not zero");
            out.push(0x80 | u8::try_from(octets.len() - from).expect("at most 8"));
            out.extend(&octets[from..]);
        }
    }
}

/// How many octets `write_length` writes.
pub(super) const fn length_len(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x100 => 2,
        _ => 1 + (usize::BITS - length.leading_zeros()).div_ceil(8) as usize,
    }
}

/// Tag and length before what `contents` writes. The length is put in afterwards: its structures are a few kilobytes, so
/// moving them up by two octets costs less than measuring them first.
pub(super) fn write_element(out: &mut Vec<u8>, tag: u8, contents: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let from = out.len();
    contents(out);
    let length = out.len() - from;
    let len = length_len(length);
    out.extend_from_slice(&[0; 9][..len]);
    out.copy_within(from..from + length, from + len);
    let mut octets = Vec::with_capacity(len);
    write_length(&mut octets, length);
    out[from..from + len].copy_from_slice(&octets);
}

/// An element of the given contents.
pub(super) fn write_octets(out: &mut Vec<u8>, tag: u8, contents: &[u8]) {
    out.push(tag);
    write_length(out, contents.len());
    out.extend_from_slice(contents);
}

/// How many octets the contents of a non-negative INTEGER are: 1 to 9.
pub(super) const fn unsigned_len(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize / 8 + 1
}

/// A non-negative INTEGER or ENUMERATED.
pub(super) fn write_unsigned(out: &mut Vec<u8>, tag: u8, value: u64) {
    let len = unsigned_len(value);
    out.extend([tag, u8::try_from(len).expect("at most 9")]);
    if len == 9 {
        out.push(0);
    }
    out.extend_from_slice(&value.to_be_bytes()[8usize.saturating_sub(len)..]);
}

/// A `TrustAnchorCellIdentifier` under `tag`; the default usage is left out.
pub(super) fn write_cell(out: &mut Vec<u8>, tag: u8, cell: TrustAnchorCell) {
    let TrustAnchorCell { role, key_usage, cell_usage } = cell;
    write_element(out, tag, |out| {
        write_unsigned(out, tag::INTEGER, u64::from(role.code()));
        write_octets(out, tag::BIT_STRING, &key_usage.bit_string());
        match cell_usage {
            CellUsage::Management => {}
            CellUsage::PrePaymentTopUp => write_unsigned(out, tag::INTEGER, u64::from(cell_usage.code())),
        }
    });
}

#[cfg(test)]
mod tests;
