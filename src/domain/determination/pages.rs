//! Pure. A device list by pages, so that one Device of ten million is found without a row for each.
//!
//! A page is [`PAGE_LINES`] lines, so that its RFC 6962 root is the root of a complete subtree of the tree over all lines (the last page's
//! is what remains): the roots of the pages fold to the root that the PMA signed, which a start compares. Whoever finds a page by the Device
//! that it begins with reads its octets, and believes them once they make its root again ([`Page::read`]).

use std::cmp::Ordering;

use crate::domain::ledger::merkle::{Frontier, leaf_hash};
use crate::domain::names::{DeviceId, Digest, Eui64};

/// Lines of every page but the last. A level of the ledger's own tiles; some 6 kB, and 40,000 pages for ten million Devices.
pub const PAGE_LINES: u32 = 256;

/// One page: where it lies, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The Device of its first line.
    pub first: DeviceId,
    /// Where it begins in the list, in octets.
    pub at: u64,
    /// Its length in octets, line feeds included.
    pub len: u32,
    /// How many lines it has: 1 to [`PAGE_LINES`].
    pub lines: u32,
    /// The RFC 6962 root over its lines, without their line feeds.
    pub root: Digest,
}

/// Makes the pages of a list, and the root over all of it, as its lines come.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Those that are whole.
    all: Vec<Page>,
    /// The tree over their roots.
    tree: Frontier,
    /// Where the next line begins.
    at: u64,
    first: Option<DeviceId>,
    begun: u64,
    lines: Frontier,
}

impl Pages {
    /// The next line: its Device, its leaf hash, and its length in octets without its line feed.
    pub fn push(&mut self, device: DeviceId, leaf: Digest, len: usize) {
        self.first.get_or_insert(device);
        self.lines.push(leaf);
        self.at += len as u64 + 1;
        if self.lines.size() == u64::from(PAGE_LINES) {
            self.turn();
        }
    }

    /// Ends the page that has been begun, if one has.
    fn turn(&mut self) {
        let Some(first) = self.first.take() else { return };
        let lines = std::mem::take(&mut self.lines);
        let root = lines.root();
        self.tree.push(root);
        self.all.push(Page {
            first,
            at: self.begun,
            len: u32::try_from(self.at - self.begun).expect("a page of lines of bounded length"),
            lines: u32::try_from(lines.size()).expect("at most a page"),
            root,
        });
        self.begun = self.at;
    }

    /// How many lines there are so far.
    pub fn lines(&self) -> u64 {
        self.all.len() as u64 * u64::from(PAGE_LINES) + self.lines.size()
    }

    /// The end of the list: its pages, and the RFC 6962 root over its lines.
    pub fn finish(mut self) -> (Vec<Page>, Digest) {
        self.turn();
        (self.all, self.tree.root())
    }
}

/// What lies where a page should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page that begins with Device {first}: expected the root {expected}, found {found}")]
pub struct PageError {
    /// The Device that the page begins with.
    pub first: DeviceId,
    /// The root that it should have.
    pub expected: Digest,
    /// The root over what was read.
    pub found: Digest,
}

/// The lines of a page, known to be those of its root.
#[derive(Clone, Debug)]
pub struct PageText {
    text: Box<str>,
    /// Where each line ends: the place of its line feed.
    ends: Box<[u32]>,
}

impl Page {
    /// Believes the octets of this page if they make its root.
    pub fn read(&self, octets: Vec<u8>) -> Result<PageText, PageError> {
        let (mut tree, mut ends, mut from) = (Frontier::new(), Vec::with_capacity(self.lines as usize), 0);
        for (end, _) in (0_u32..).zip(&octets).filter(|(_, octet)| **octet == b'\n') {
            tree.push(leaf_hash(&octets[from..end as usize]));
            from = end as usize + 1;
            ends.push(end);
        }
        let found = tree.root();
        let wrong = PageError { first: self.first, expected: self.root, found };
        if found != self.root || from != octets.len() {
            return Err(wrong);
        }
        let text = String::from_utf8(octets).map_err(|_| wrong)?.into_boxed_str();
        // By its first Device it was looked for: one that another was given would hide those between.
        if text.as_bytes().get(..16) != Some(&upper_hex(self.first.0)) {
            return Err(wrong);
        }
        Ok(PageText { text, ends: ends.into() })
    }
}

impl PageText {
    /// How many lines it has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A line, without its line feed, by its number from 0.
    fn line(&self, at: usize) -> &str {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1);
        &self.text[from..self.ends[at] as usize]
    }

    /// Where a Device stands, or where it would.
    fn place(&self, device: DeviceId) -> Result<usize, usize> {
        let digits = upper_hex(device.0);
        let (mut from, mut until) = (0, self.len());
        while from < until {
            let middle = usize::midpoint(from, until);
            let line = self.line(middle).as_bytes();
            match line[..line.len().min(digits.len())].cmp(&digits) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => until = middle,
            }
        }
        Err(from)
    }

    /// The line of a Device.
    pub fn find(&self, device: DeviceId) -> Option<&str> {
        self.place(device).ok().map(|at| self.line(at))
    }

    /// The lines of the Devices after this one, in order; all of them if none is given.
    pub fn after(&self, device: Option<DeviceId>) -> impl Iterator<Item = &str> {
        let from = device.map_or(0, |device| self.place(device).map_or_else(|at| at, |at| at + 1));
        (from..self.len()).map(|at| self.line(at))
    }

    /// Whether a Device that is on the list at all stands on this page: it is none before the first and none after the last.
    pub fn spans(&self, device: DeviceId) -> bool {
        let digits = upper_hex(device.0);
        let begins = |line: &str| line.as_bytes()[..line.len().min(digits.len())].cmp(&digits);
        let last = self.len().checked_sub(1);
        last.is_some_and(|last| begins(self.line(0)).is_le() && begins(self.line(last)).is_ge())
    }
}

/// As a list has it.
fn upper_hex(eui64: Eui64) -> [u8; 16] {
    let mut digits = [0; 16];
    hex::encode_to_slice(eui64.octets(), &mut digits).expect("two digits for each octet");
    digits.make_ascii_uppercase();
    digits
}

#[cfg(test)]
mod tests;
