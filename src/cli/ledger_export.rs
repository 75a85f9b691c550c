//! Shell: `smkictl ledger export DIR`: a ledger as a directory of files that anyone can check (`src/docs/export.md`).
//!
//! An export that is there already is brought up to date: what it has is not asked for again. While it is written it has another name,
//! so that under its own it is always whole; and what an interrupted one has written is gone on with.
//!
//! Nothing that grows with the ledger is in memory but two bits for each entry: whether it is an intent whose signature there is, and
//! whether that was released.

mod folder;

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;

use super::print::Output;
use crate::domain::audit::join_checkpoints;
use crate::domain::fold::book;
use crate::domain::ledger::checkpoint::Checkpoint;
use crate::domain::ledger::entry::{Common, Entry, EntryError, Event};
use crate::domain::ledger::merkle::{Head, Leaf, MerkleError};
use crate::domain::ledger::note::Note;
use crate::domain::ledger::tiles::{TileError, Tiler};
use crate::domain::names::Digest;
use crate::domain::policy::files::FILE_LEN_MAX;
use crate::store::{Reader, StoreError, each_leaf};
use folder::{Folder, failed};

/// The newest signed checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// Every signed checkpoint, the oldest first.
pub const CHECKPOINTS: &str = "checkpoints";
/// The released signatures.
pub const SIGNATURES: &str = "signatures";
/// The folder of what entries name by SHA-256.
pub const BLOBS: &str = "blobs/sha256";
/// The folder of tiles.
pub const TILES: &str = "tile";

/// A record of [`SIGNATURES`]: the intent's leaf index, big-endian, and r ‖ s.
pub const SIGNATURE_RECORD_LEN: usize = 8 + 64;

/// Checkpoints asked for at a time.
const CHECKPOINTS_AT_ONCE: usize = 1_000;
/// Signatures asked for at a time.
const SIGNATURES_AT_ONCE: usize = 10_000;
/// Octets of a blob read at a time.
const PIECE_LEN: usize = 64 * 1024;

/// After so many entries what was written is made durable, and an export that is interrupted goes on from there.
const KEEP_EVERY: u64 = 1 << 20;

/// Done.
const DONE: u8 = 0;
/// A local failure.
const LOCAL_FAILURE: u8 = 1;
/// The daemon is not reachable.
const UNREACHABLE: u8 = 3;

/// Arguments of `smkictl ledger export`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smkictl ledger export /media/usb/ledger-2026-11-24")]
pub struct LedgerExport {
    /// Where to: a directory that does not exist yet, is empty, or holds an earlier export of this ledger, which is brought up to date
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// For people or for programs
    #[arg(skip)]
    pub output: Output,
}

/// Why there is no export: not under the name that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The daemon cannot be reached.
    #[error("the daemon does not answer: {reason}; is smkid running?")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// The daemon answered, and not with what was asked for.
    #[error("{what}: {reason}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A file.
    #[error("{}: cannot {doing}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is something already.
    #[error("{}: it is there, is not empty, and is no export; an export is never written over anything else", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody writes there.
    #[error("{}: another export is being written there; wait until it has ended", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// There is what is to be gone on with, and it is none.
    #[error("{}: {reason}; remove it, and export anew", path.display())]
    Earlier {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tile that is to be gone on from.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// Nothing was ever signed.
    #[error("the ledger has no signed checkpoint yet; the first one comes with the ceremony")]
    NoCheckpoint,
    /// An entry that cannot be read.
    #[error("entry {index}: {source}")]
    Entry {
        /// Which.
        index: u64,
        /// Why.
        source: EntryError,
    },
    /// A leaf that cannot be one.
    #[error(transparent)]
    Leaf(#[from] MerkleError),
    /// Size or root.
    #[error(
        "the newest checkpoint is of {} entries and root {}, the entries read are {} and have root {}: the store was edited",
        expected.size, expected.root, found.size, found.root
    )]
    Head {
        /// The checkpoint's.
        expected: Head,
        /// Of the entries.
        found: Head,
    },
    /// Other octets than those of the digest.
    #[error("blob {digest}: its octets hash to {found}")]
    Blob {
        /// Asked for.
        digest: Digest,
        /// Found.
        found: Digest,
    },
    /// A signature that was released and is not there.
    #[error("{expected} signatures were released, {found} of them are there: the store was edited")]
    Signatures {
        /// How many were released.
        expected: u64,
        /// How many came.
        found: u64,
    },
}

/// Where a ledger is read from: a store, or a daemon.
#[expect(
    clippy::type_complexity,
    reason = "a visitor with its one kind of error; a name for it would hide its lifetime"
)]
pub trait Source {
    /// The signed notes of all checkpoints, the oldest first.
    fn checkpoints(&self) -> Result<Vec<Vec<u8>>, ExportError>;

    /// Visits the entries of `range` in order, each with its index.
    fn leaves(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError>;

    /// Streams a blob.
    fn blob(&self, digest: Digest) -> Result<Box<dyn Read + '_>, ExportError>;

    /// Visits the signatures of those intents of `range` that are wanted, in the order of their leaves. One that is not there
    /// is left out.
    fn signatures(
        &self,
        range: Range<u64>,
        wanted: &dyn Fn(u64) -> bool,
        visit: &mut dyn FnMut(u64, &[u8; 64]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError>;
}

/// A store, read directly.
pub struct StoreSource<'a>(pub &'a dyn Reader);

impl Source for StoreSource<'_> {
    fn checkpoints(&self) -> Result<Vec<Vec<u8>>, ExportError> {
        let (mut notes, mut from) = (Vec::new(), 0);
        loop {
            let some = self.0.checkpoints(from, CHECKPOINTS_AT_ONCE)?;
            let Some(last) = some.last() else { return Ok(notes) };
            from = last.head.size + 1;
            notes.extend(some.into_iter().map(|checkpoint| checkpoint.note));
        }
    }

    fn leaves(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        each_leaf(self.0, range, |leaf| visit(leaf.index, leaf.octets))
    }

    fn blob(&self, digest: Digest) -> Result<Box<dyn Read + '_>, ExportError> {
        Ok(self.0.open_blob(digest)?)
    }

    fn signatures(
        &self,
        range: Range<u64>,
        wanted: &dyn Fn(u64) -> bool,
        visit: &mut dyn FnMut(u64, &[u8; 64]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let mut from = range.start;
        loop {
            let some = self.0.released_from(from, SIGNATURES_AT_ONCE)?;
            for (intent, octets) in &some {
                if *intent >= range.end {
                    return Ok(());
                }
                if wanted(*intent) {
                    visit(*intent, octets)?;
                }
            }
            let Some((last, _)) = some.last() else { return Ok(()) };
            from = last + 1;
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// Entries.
    pub entries: u64,
    /// The root over them.
    pub root: Digest,
    /// Signed checkpoints.
    pub checkpoints: u64,
    /// Blobs.
    pub blobs: u64,
    /// Signatures.
    pub signatures: u64,
}

/// Exports a ledger: the answer on `out`, everything else on `err`.
///
/// Returns the exit status: 0 done, 1 local failure, 3 the daemon cannot be reached.
pub fn run(args: &LedgerExport, source: &dyn Source, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let told = export(source, &args.dir).and_then(|done| {
        let answer = match args.output {
            Output::Text => format!(
                "{} entries, {} checkpoints, {} documents and {} signatures are in {}\nroot {}\n",
                done.entries,
                done.checkpoints,
                done.blobs,
                done.signatures,
                args.dir.display(),
                done.root
            ),
            Output::Json => format!("{:#}\n", serde_json::json!(done)),
        };
        out.write_all(answer.as_bytes()).and_then(|()| out.flush()).map_err(|source| ExportError::File {
            doing: "write the answer",
            path: "standard output".into(),
            source,
        })
    });
    match told {
        Ok(()) => DONE,
        Err(error) => {
            // Where even standard error is closed there is nobody left to tell; the exit status still says it.
            let _ = writeln!(err, "smkictl ledger export: {error}");
            if let Some(partial) = Folder::left(&args.dir) {
                let _ =
                    writeln!(err, "What is written lies in {}; the same command goes on with it.", partial.display());
            }
            if matches!(error, ExportError::Unreachable { .. }) { UNREACHABLE } else { LOCAL_FAILURE }
        }
    }
}

/// One bit for each entry.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: u64) -> Self {
        let words = len.div_ceil(64).try_into().expect("a ledger's bits fit the memory of a machine that holds it");
        Self(vec![0; words])
    }

    fn has(&self, at: u64) -> bool {
        usize::try_from(at / 64).ok().and_then(|word| self.0.get(word)).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn set(&mut self, at: u64) {
        if let Some(word) = usize::try_from(at / 64).ok().and_then(|word| self.0.get_mut(word)) {
            *word |= 1 << (at % 64);
        }
    }

    /// From the first that is set until behind the last; none if there is none.
    fn range(&self) -> Option<Range<u64>> {
        let first = self.0.iter().position(|word| *word != 0)?;
        let last = self.0.iter().rposition(|word| *word != 0)?;
        let from = first as u64 * 64 + u64::from(self.0[first].trailing_zeros());
        Some(from..last as u64 * 64 + 64 - u64::from(self.0[last].leading_zeros()))
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Exports a ledger up to its newest checkpoint into `dir`: all of it, or what is still to come of it.
pub fn export(source: &dyn Source, dir: &Path) -> Result<Exported, ExportError> {
    export_keeping(source, dir, KEEP_EVERY)
}

/// The same, where what was written is made durable after so many entries, a multiple of 256.
pub fn export_keeping(source: &dyn Source, dir: &Path, keep_every: u64) -> Result<Exported, ExportError> {
    let notes = source.checkpoints()?;
    let newest = notes.last().ok_or(ExportError::NoCheckpoint)?;
    let answer = |reason: String| ExportError::Answer { what: "the newest checkpoint".into(), reason };
    let expected = head_of(newest).map_err(answer)?;
    let folder = Folder::open(dir)?;
    let entries = copy_entries(source, &folder, expected, keep_every)?;
    let blobs = copy_blobs(source, &folder, &entries)?;
    let signatures = copy_signatures(source, &folder, &entries.released)?;
    folder.write(CHECKPOINTS, &join_checkpoints(notes.iter().map(Vec::as_slice)))?;
    folder.write(CHECKPOINT, newest)?;
    folder.finish(expected.size)?;
    let Head { size, root } = expected;
    Ok(Exported { entries: size, root, checkpoints: notes.len() as u64, blobs, signatures })
}

/// Size and root of a signed checkpoint, whose signature is not looked at.
fn head_of(note: &[u8]) -> Result<Head, String> {
    let note = Note::parse(note).map_err(|error| error.to_string())?;
    Ok(Checkpoint::parse(note.text()).map_err(|error| error.to_string())?.head())
}

/// What the entries say about the other files.
struct Found {
    /// The intents whose signature is released.
    released: Bits,
    /// The blobs that new entries name.
    blobs: BTreeSet<Digest>,
    policies: BTreeSet<Digest>,
}

/// Reads what entries say about the other files.
struct Reading<'a> {
    folder: &'a Folder,
    /// The first entry that is read: what those before it name is there ([`Folder::exported`]).
    base: u64,
    size: u64,
    signed: Bits,
    certifications: BTreeSet<u64>,
    /// Of intents that were released.
    ranges: Vec<(u64, u64)>,
    found: Found,
}

impl Reading<'_> {
    fn entry(&mut self, index: u64, octets: &[u8]) -> Result<(), ExportError> {
        match Common::of(octets) {
            Some(Common::Intent) => return Ok(()),
            Some(Common::Signed { intent }) => {
                self.signed.set(intent);
                // A certification request is no secret, and its signature is checked like any other.
                let is_certification = self.certifications.contains(&intent)
                    || (intent < self.base && self.folder.is_certification(intent)?);
                if is_certification {
                    self.found.released.set(intent);
                }
                return Ok(());
            }
            None => {}
        }
        let entry = Entry::from_leaf(octets).map_err(|source| ExportError::Entry { index, source })?;
        self.found.blobs.extend(entry.event.blobs());
        // Not every kind of entry matters here: those that do not are left out.
        if let Event::PolicyAdopted(adopted) = &entry.event {
            self.found.policies.insert(adopted.policy);
        } else if let Event::CertificationIntent(_) = &entry.event {
            self.certifications.insert(index);
        } else if let Event::Released(these) = &entry.event {
            self.ranges.extend(these.intents.iter().map(|(from, until)| (*from, (*until).min(self.size))));
        }
        Ok(())
    }

    fn end(mut self) -> Result<Found, ExportError> {
        // Which of the earlier intents were signed, earlier entries say.
        let least = self.ranges.iter().map(|(from, _)| *from).min();
        if let Some(from) = least.filter(|from| *from < self.base) {
            let signed = &mut self.signed;
            self.folder.leaves(from..self.base, |_, octets| {
                if let Some(Common::Signed { intent }) = Common::of(octets) {
                    signed.set(intent);
                }
                Ok(())
            })?;
        }
        for (from, until) in self.ranges {
            (from..until).filter(|at| self.signed.has(*at)).for_each(|at| self.found.released.set(at));
        }
        Ok(self.found)
    }
}

fn copy_entries(source: &dyn Source, folder: &Folder, expected: Head, keep_every: u64) -> Result<Found, ExportError> {
    let begin = folder.whole();
    let earlier = folder.earlier()?;
    if let Some(earlier) = earlier.filter(|earlier| earlier.size > expected.size) {
        return Err(folder.not_ours(format!(
            "it is of {} entries, and this ledger has {}: it was rolled back, or is another",
            earlier.size, expected.size
        )));
    }
    let mut tiler = Tiler::resume(begin, |name| folder.read(name))?;
    let extends = |tiler: &Tiler| match earlier.filter(|earlier| earlier.size == tiler.head().size) {
        Some(earlier) if earlier.root != tiler.head().root => {
            let reason =
                format!("its {} entries are not those of this ledger, or its files were changed", earlier.size);
            Err(folder.not_ours(reason))
        }
        Some(_) | None => Ok(()),
    };
    extends(&tiler)?;
    let base = folder.exported()?.min(begin);
    let mut reading = Reading {
        folder,
        base,
        size: expected.size,
        signed: Bits::new(expected.size),
        certifications: BTreeSet::new(),
        ranges: Vec::new(),
        found: Found { released: Bits::new(expected.size), blobs: BTreeSet::new(), policies: BTreeSet::new() },
    };
    // Those that an export which was interrupted has brought: what they name it had not come to.
    folder.leaves(base..begin, |index, octets| reading.entry(index, octets))?;
    source.leaves(begin..expected.size, &mut |index, octets| {
        tiler.push(&Leaf::new(octets)?, |name, tile| folder.write(&name.to_string(), tile))?;
        if earlier.is_some_and(|earlier| earlier.size == index + 1) {
            extends(&tiler)?;
        }
        if (index + 1).is_multiple_of(keep_every) {
            folder.keep(index + 1)?;
        }
        reading.entry(index, octets)
    })?;
    let head = tiler.finish(|name, tile| folder.write(&name.to_string(), tile))?;
    if head != expected && begin > 0 {
        let (ours, theirs) = (head.root, expected.root);
        let reason =
            format!("with what came since it has root {ours}, the newest checkpoint {theirs}: its files were changed");
        return Err(folder.not_ours(reason));
    }
    if head != expected {
        return Err(ExportError::Head { expected, found: head });
    }
    reading.end()
}

fn copy_blobs(source: &dyn Source, folder: &Folder, entries: &Found) -> Result<u64, ExportError> {
    let mut left: VecDeque<Digest> = entries.blobs.iter().copied().collect();
    let mut seen = entries.blobs.clone();
    while let Some(digest) = left.pop_front() {
        let name = format!("{BLOBS}/{digest}");
        let is_policy = entries.policies.contains(&digest);
        if folder.has(&name) && !is_policy {
            continue;
        }
        let mut file = folder.create(&name)?;
        let written = |error| failed("write it", &folder.path(&name), error);
        let mut from = source.blob(digest)?;
        let mut sums = Vec::new();
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        let mut piece = vec![0; PIECE_LEN];
        loop {
            let len = from
                .read(&mut piece)
                .map_err(|error| ExportError::Answer { what: format!("blob {digest}"), reason: error.to_string() })?;
            let Some(octets) = piece.get(..len).filter(|octets| !octets.is_empty()) else { break };
            hash.update(octets);
            if is_policy && sums.len() < FILE_LEN_MAX {
                sums.extend(octets);
            }
            file.write_all(octets).map_err(written)?;
        }
        let found = Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets");
        if found != digest {
            return Err(ExportError::Blob { digest, found });
        }
        folder.put(file, &name)?;
        left.extend(book::sums(&sums).into_iter().map(|(_, file)| file).filter(|file| seen.insert(*file)));
    }
    folder.count(BLOBS)
}

/// The signatures that are there, and those that are not yet, in the order of their intents.
fn copy_signatures(source: &dyn Source, folder: &Folder, released: &Bits) -> Result<u64, ExportError> {
    let mut earlier = folder.signatures()?.peekable();
    let mut file = folder.create(SIGNATURES)?;
    let written = |error| failed("write it", &folder.path(SIGNATURES), error);
    let (expected, mut found, mut all) = (released.count(), 0, 0);
    let mut write = |intent: u64, octets: &[u8; 64]| {
        all += 1;
        file.write_all(&intent.to_be_bytes()).and_then(|()| file.write_all(octets)).map_err(written)
    };
    if let Some(range) = released.range() {
        source.signatures(range, &|intent| released.has(intent), &mut |intent, octets| {
            found += 1;
            while let Some(before) = earlier.next_if(|record| record.as_ref().map_or(true, |(at, _)| *at <= intent)) {
                let (at, before) = before?;
                if at < intent {
                    write(at, &before)?;
                }
            }
            write(intent, octets)
        })?;
    }
    for record in earlier {
        let (at, octets) = record?;
        write(at, &octets)?;
    }
    folder.put(file, SIGNATURES)?;
    if found == expected { Ok(all) } else { Err(ExportError::Signatures { expected, found }) }
}
