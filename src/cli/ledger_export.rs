//! Shell: `smkictl ledger export DIR`: a ledger as a directory of files that anyone can check (`src/docs/export.md`).

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;

use super::print::Output;
use crate::domain::audit::join_checkpoints;
use crate::domain::fold::book;
use crate::domain::ledger::checkpoint::Checkpoint;
use crate::domain::ledger::entry::{Entry, EntryError, Event, SignResult};
use crate::domain::ledger::merkle::{Head, Leaf, MerkleError};
use crate::domain::ledger::note::Note;
use crate::domain::ledger::tiles::Tiler;
use crate::domain::names::Digest;
use crate::domain::policy::files::FILE_LEN_MAX;
use crate::store::{Reader, StoreError, each_leaf};

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
/// Octets of a blob read at a time.
const PIECE_LEN: usize = 64 * 1024;

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
    /// Where to: a directory that does not exist yet, or is empty
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// For people or for programs
    #[arg(skip)]
    pub output: Output,
}

/// Why there is no export. Nothing is left under the name that was asked for.
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
    #[error("{}: it is there and not empty; an export is never written over another", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// What an interrupted export left.
    #[error("{}: it is left of an export that was interrupted, or of one that still runs; remove it and try again", path.display())]
    Leftover {
        /// The directory.
        path: PathBuf,
    },
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
        for intent in range.filter(|intent| wanted(*intent)) {
            if let Some(row) = self.0.signature(intent)? {
                visit(intent, &row.octets)?;
            }
        }
        Ok(())
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

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// The folder being written: under another name until it is whole.
struct Target {
    partial: PathBuf,
}

impl Target {
    fn path(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    fn create(&self, name: &str) -> Result<BufWriter<File>, ExportError> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|source| failed("make", folder, source))?;
        }
        File::create_new(&path).map(BufWriter::new).map_err(|source| failed("create it", &path, source))
    }

    fn write(&self, name: &str, octets: &[u8]) -> Result<(), ExportError> {
        let mut file = self.create(name)?;
        file.write_all(octets)
            .and_then(|()| file.flush())
            .map_err(|source| failed("write it", &self.path(name), source))
    }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> ExportError {
    ExportError::File { doing, path: path.to_owned(), source }
}

/// Exports a ledger up to its newest checkpoint into `dir`, all of it or nothing.
pub fn export(source: &dyn Source, dir: &Path) -> Result<Exported, ExportError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => {}
            Some(_) => return Err(ExportError::NotEmpty { path: dir.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look into it", dir, error)),
    }
    let mut partial = dir.as_os_str().to_owned();
    partial.push(".partial");
    let target = Target { partial: partial.into() };
    match fs::create_dir(&target.partial) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(ExportError::Leftover { path: target.partial });
        }
        Err(error) => return Err(failed("make it", &target.partial, error)),
    }
    let done = fill(source, &target).and_then(|done| {
        fs::rename(&target.partial, dir).map_err(|error| failed("give it its name", dir, error))?;
        Ok(done)
    });
    if done.is_err() {
        // Half an export is worth nothing; what hinders its removal is not what to tell.
        let _ = fs::remove_dir_all(&target.partial);
    }
    done
}

fn fill(source: &dyn Source, target: &Target) -> Result<Exported, ExportError> {
    let notes = source.checkpoints()?;
    let newest = notes.last().ok_or(ExportError::NoCheckpoint)?;
    let answer = |reason: String| ExportError::Answer { what: "the newest checkpoint".into(), reason };
    let note = Note::parse(newest).map_err(|error| answer(error.to_string()))?;
    let expected = Checkpoint::parse(note.text()).map_err(|error| answer(error.to_string()))?.head();
    target.write(CHECKPOINT, newest)?;
    target.write(CHECKPOINTS, &join_checkpoints(notes.iter().map(Vec::as_slice)))?;

    let mut tiler = Tiler::new();
    let (mut signed, mut released) = (Bits::new(expected.size), Bits::new(expected.size));
    let mut certifications = BTreeSet::new();
    let (mut blobs, mut policies) = (BTreeSet::new(), BTreeSet::new());
    source.leaves(0..expected.size, &mut |index, octets| {
        tiler.push(&Leaf::new(octets)?, |name, tile| target.write(&name.to_string(), tile))?;
        let entry = Entry::from_leaf(octets).map_err(|source| ExportError::Entry { index, source })?;
        blobs.extend(entry.event.blobs());
        // Not every kind of entry matters here: those that do not are left out.
        if let Event::PolicyAdopted(adopted) = &entry.event {
            policies.insert(adopted.policy);
        } else if let Event::CertificationIntent(_) = &entry.event {
            certifications.insert(index);
        } else if let Event::Outcome(outcome) = &entry.event
            && let SignResult::Signed(_) = outcome.result
        {
            signed.set(outcome.intent);
            // A certification request is no secret, and its signature is checked like any other.
            if certifications.contains(&outcome.intent) {
                released.set(outcome.intent);
            }
        } else if let Event::Released(these) = &entry.event {
            for (from, until) in &these.intents {
                (*from..(*until).min(expected.size)).filter(|at| signed.has(*at)).for_each(|at| released.set(at));
            }
        }
        Ok(())
    })?;
    let found = tiler.finish(|name, tile| target.write(&name.to_string(), tile))?;
    if found != expected {
        return Err(ExportError::Head { expected, found });
    }
    let blobs = copy_blobs(source, target, blobs, &policies)?;
    let signatures = copy_signatures(source, target, &released, expected.size)?;
    let (entries, root) = (expected.size, expected.root);
    Ok(Exported { entries, root, checkpoints: notes.len() as u64, blobs, signatures })
}

fn copy_blobs(
    source: &dyn Source,
    target: &Target,
    named: BTreeSet<Digest>,
    policies: &BTreeSet<Digest>,
) -> Result<u64, ExportError> {
    let mut left: VecDeque<Digest> = named.iter().copied().collect();
    let mut seen = named;
    while let Some(digest) = left.pop_front() {
        let name = format!("{BLOBS}/{digest}");
        let mut file = target.create(&name)?;
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
            if policies.contains(&digest) && sums.len() < FILE_LEN_MAX {
                sums.extend(octets);
            }
            file.write_all(octets).map_err(|error| failed("write it", &target.path(&name), error))?;
        }
        file.flush().map_err(|error| failed("write it", &target.path(&name), error))?;
        let found = Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets");
        if found != digest {
            return Err(ExportError::Blob { digest, found });
        }
        left.extend(book::sums(&sums).into_iter().map(|(_, file)| file).filter(|file| seen.insert(*file)));
    }
    Ok(seen.len() as u64)
}

fn copy_signatures(source: &dyn Source, target: &Target, released: &Bits, size: u64) -> Result<u64, ExportError> {
    let mut file = target.create(SIGNATURES)?;
    let written = |error| failed("write it", &target.path(SIGNATURES), error);
    let mut found = 0;
    source.signatures(0..size, &|intent| released.has(intent), &mut |intent, octets| {
        found += 1;
        file.write_all(&intent.to_be_bytes()).and_then(|()| file.write_all(octets)).map_err(written)
    })?;
    file.flush().map_err(written)?;
    let expected = released.count();
    if found == expected { Ok(found) } else { Err(ExportError::Signatures { expected, found }) }
}
