//! Shell: an export as it is read for its commands: entries in order, documents, released signatures. Whether it is what the ledger's key
//! signed is `smkictl ledger verify`'s to say.

use std::fs::{self, File};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::CliError;
use super::ledger_export::{BLOBS, CHECKPOINT, SIGNATURE_RECORD_LEN, SIGNATURES};
use super::recovery::out::covering_of;
use crate::domain::commands::manifest::Covering;
use crate::domain::fold::{Blobs, BookError};
use crate::domain::ledger::tiles::{self, TILE_WIDTH, TileKind};
use crate::domain::names::Digest;
use crate::domain::policy::files::FILE_LEN_MAX;

/// Records of signatures that are read at a time.
const RECORDS_AT_ONCE: u64 = 1_024;

/// An export.
pub(super) struct Exported {
    root: PathBuf,
    head: Covering,
    signatures: File,
    count: u64,
    /// The records that were read last, and the place of the first of them.
    block: (u64, Vec<u8>),
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> CliError + '_ {
    move |error| CliError::Unfit(format!("{}: cannot be read: {error}", path.display()))
}

impl Exported {
    /// Opens one.
    pub(super) fn open(root: &Path) -> Result<Self, CliError> {
        let path = root.join(CHECKPOINT);
        let note = fs::read(&path).map_err(unreadable(&path))?;
        let head = covering_of(&note).map_err(|why| CliError::Unfit(format!("{}: {why}", path.display())))?;
        let path = root.join(SIGNATURES);
        let signatures = File::open(&path).map_err(unreadable(&path))?;
        let len = signatures.metadata().map_err(unreadable(&path))?.len();
        let count = len / SIGNATURE_RECORD_LEN as u64;
        Ok(Self { root: root.to_owned(), head, signatures, count, block: (0, Vec::new()) })
    }

    /// What its newest checkpoint says.
    pub(super) fn head(&self) -> Covering {
        self.head
    }

    /// Visits entries in order, until one breaks.
    #[expect(
        clippy::type_complexity,
        reason = "a visitor with its one kind of error; a name for it would hide its lifetime"
    )]
    pub(super) fn leaves(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<ControlFlow<()>, CliError>,
    ) -> Result<(), CliError> {
        let begin = usize::try_from(range.start / TILE_WIDTH).unwrap_or(usize::MAX);
        let bundles = tiles::names(self.head.size).take_while(|name| name.kind() == TileKind::Entries);
        for name in bundles.skip(begin) {
            let path = self.root.join(name.to_string());
            let octets = fs::read(&path).map_err(unreadable(&path))?;
            let wrong = |error: tiles::TileError| CliError::Unfit(format!("{}: {error}", path.display()));
            for (index, leaf) in tiles::entries(name, &octets).map_err(wrong)? {
                if index >= range.end {
                    return Ok(());
                }
                if index >= range.start && visit(index, leaf)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The released signature of an intent: quick where they are asked for in order, nearly.
    pub(super) fn signature(&mut self, intent: u64) -> Result<Option<[u8; 64]>, CliError> {
        let (mut low, mut high) = (0, self.count);
        // What is looked for is mostly in the block that was read last.
        let len = self.block.1.len() as u64 / SIGNATURE_RECORD_LEN as u64;
        if let Some((first, last)) = len.checked_sub(1).map(|last| (self.held(0), self.held(last))) {
            if intent < first {
                high = self.block.0;
            } else if intent > last {
                low = self.block.0 + len;
            } else {
                (low, high) = (self.block.0, self.block.0 + len);
            }
            // And else in the next.
            if low == self.block.0 + len && low < self.count {
                self.read(low)?;
                let len = self.block.1.len() as u64 / SIGNATURE_RECORD_LEN as u64;
                if intent <= self.held(len - 1) {
                    high = low + len;
                }
            }
        }
        while low < high {
            let middle = low.midpoint(high);
            let found = self.record(middle)?;
            match found.cmp(&intent) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(self.signature_at(middle))),
            }
        }
        Ok(None)
    }

    /// The intent of a record of the block, by its place in that.
    fn held(&self, at: u64) -> u64 {
        let from = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(SIGNATURE_RECORD_LEN);
        let octets = self.block.1.get(from..).and_then(<[u8]>::first_chunk);
        octets.map_or(u64::MAX, |octets| u64::from_be_bytes(*octets))
    }

    fn signature_at(&self, place: u64) -> [u8; 64] {
        let at = usize::try_from(place - self.block.0).unwrap_or(usize::MAX).saturating_mul(SIGNATURE_RECORD_LEN);
        let octets = self.block.1.get(at + 8..).and_then(<[u8]>::first_chunk);
        octets.copied().unwrap_or([0; 64])
    }

    /// The intent of a record, whose block is held from here on.
    fn record(&mut self, place: u64) -> Result<u64, CliError> {
        let len = self.block.1.len() as u64 / SIGNATURE_RECORD_LEN as u64;
        if !(self.block.0..self.block.0 + len).contains(&place) {
            self.read(place / RECORDS_AT_ONCE * RECORDS_AT_ONCE)?;
        }
        Ok(self.held(place - self.block.0))
    }

    fn read(&mut self, from: u64) -> Result<(), CliError> {
        let records = (self.count - from).min(RECORDS_AT_ONCE);
        let len = usize::try_from(records).unwrap_or_default() * SIGNATURE_RECORD_LEN;
        let mut octets = vec![0; len];
        let path = self.root.join(SIGNATURES);
        self.signatures.read_exact_at(&mut octets, from * SIGNATURE_RECORD_LEN as u64).map_err(unreadable(&path))?;
        self.block = (from, octets);
        Ok(())
    }
}

impl Blobs for Exported {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        let path = self.root.join(format!("{BLOBS}/{digest}"));
        let octets = super::input::file(&path, FILE_LEN_MAX as u64)
            .map_err(|error| BookError::Store { reason: error.to_string() })?;
        let found = Digest::of(&octets);
        if found == digest { Ok(octets) } else { Err(BookError::BlobAltered { digest, found }) }
    }

    fn stream(&self, digest: Digest, piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        piece(&self.blob(digest)?);
        Ok(())
    }
}
