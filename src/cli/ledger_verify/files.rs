//! Shell: the files of an export, each accounted for.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::VerifyError;
use crate::cli::ledger_export::{BLOBS, CHECKPOINT, CHECKPOINTS, SIGNATURE_RECORD_LEN, SIGNATURES};
use crate::domain::audit::{AuditError, Evidence};
use crate::domain::fold::{Blobs, BookError};
use crate::domain::ledger::tiles::{self, TILE_LEN_MAX, TileName};
use crate::domain::names::Digest;
use crate::domain::policy::files::FILE_LEN_MAX;

/// Octets of a file read at a time.
const PIECE_LEN: usize = 64 * 1024;
/// Records of signatures kept at a time.
const RECORDS_AT_ONCE: usize = 1_024;

/// An export: which files it has, and which of them were used.
pub(super) struct Export {
    root: PathBuf,
    /// By path below `root`: whether it was used.
    files: RefCell<BTreeMap<String, bool>>,
    /// Those tiles of which nobody has said yet that they belong to it.
    tiles: HashSet<TileName>,
    /// A folder with nothing in it.
    empty: Option<String>,
    signatures: Signatures,
}

fn wrong(name: &str, reason: impl ToString) -> VerifyError {
    AuditError::file(name, reason).into()
}

impl Export {
    /// Looks at every name, and refuses what can be no export: links, devices, other names.
    pub(super) fn open(root: &Path) -> Result<Self, VerifyError> {
        let (mut files, mut tiles) = (BTreeMap::new(), HashSet::new());
        let mut folders = vec![String::new()];
        let mut empty = None;
        while let Some(folder) = folders.pop() {
            let path = root.join(&folder);
            let unreadable = |source| VerifyError::Read { path: path.clone(), source };
            let mut any = false;
            for entry in fs::read_dir(&path).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                any = true;
                let Ok(name) = entry.file_name().into_string() else {
                    return Err(wrong(&entry.path().display().to_string(), "expected a name in ASCII"));
                };
                let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                let kind = entry.file_type().map_err(unreadable)?;
                if kind.is_dir() {
                    folders.push(name);
                } else if !kind.is_file() {
                    return Err(wrong(
                        &name,
                        "expected a file, found a link or a device; nothing else belongs to an export",
                    ));
                } else if let Ok(tile) = name.parse() {
                    tiles.insert(tile);
                } else if is_known(&name) {
                    files.insert(name, false);
                } else {
                    return Err(wrong(
                        &name,
                        "it does not belong to an export; remove it, or find out who put it there",
                    ));
                }
            }
            if !any && !folder.is_empty() {
                empty = Some(folder);
            }
        }
        if !files.contains_key(SIGNATURES) {
            return Err(missing(SIGNATURES));
        }
        let signatures = Signatures::open(&root.join(SIGNATURES))?;
        files.insert(SIGNATURES.to_owned(), true);
        Ok(Self { root: root.to_owned(), files: RefCell::new(files), tiles, empty, signatures })
    }

    /// The file of that name, which is used from here on.
    fn take(&self, name: &str) -> Result<File, VerifyError> {
        match self.files.borrow_mut().get_mut(name) {
            Some(used) => *used = true,
            None => return Err(missing(name)),
        }
        let path = self.root.join(name);
        File::open(&path).map_err(|source| VerifyError::Read { path, source })
    }

    /// A whole file of at most `max` octets.
    pub(super) fn read(&self, name: &str, max: usize) -> Result<Vec<u8>, VerifyError> {
        let mut octets = Vec::new();
        let limit = (max as u64).saturating_add(1);
        self.take(name)?
            .take(limit)
            .read_to_end(&mut octets)
            .map_err(|source| VerifyError::Read { path: self.root.join(name), source })?;
        at_most(name, max, octets)
    }

    /// The tiles, once [`Export::expect_tiles`] has seen that all of them are there.
    pub(super) fn tiles(&self) -> Tiles<'_> {
        Tiles { root: &self.root }
    }

    /// The tiles of a ledger of this size are there, and no others.
    pub(super) fn expect_tiles(&mut self, size: u64) -> Result<(), VerifyError> {
        // A size that a checkpoint claims may be far beyond what is there: the first missing name ends this.
        for name in tiles::names(size) {
            if !self.tiles.remove(&name) {
                return Err(missing(&name.to_string()));
            }
        }
        match self.tiles.iter().map(ToString::to_string).min() {
            Some(name) => Err(wrong(&name, format!("a ledger of {size} entries has no such tile"))),
            None => Ok(()),
        }
    }

    /// Without a look at who names them: each blob has the SHA-256 that it is called by.
    pub(super) fn check_blobs(&self) -> Result<(), VerifyError> {
        let names: Vec<String> = self.files.borrow().keys().filter(|name| top(name) == "blobs").cloned().collect();
        for name in names {
            let digest = digest_of(&name).ok_or_else(|| wrong(&name, "expected a SHA-256 as its name"))?;
            self.stream(digest, &mut |_| {}).map_err(|error| wrong(&name, error))?;
        }
        self.signatures.use_all();
        Ok(())
    }

    /// After everything else: nothing is left over.
    pub(super) fn finish(&self) -> Result<(), VerifyError> {
        if let Some(folder) = &self.empty {
            return Err(wrong(folder, "the folder is empty; it does not belong to an export"));
        }
        if let Some((name, _)) = self.files.borrow().iter().find(|(_, used)| !**used) {
            return Err(wrong(name, "no entry names it; it does not belong to this ledger"));
        }
        match self.signatures.first_unused().map_err(|reason| wrong(SIGNATURES, reason))? {
            Some(intent) => {
                Err(wrong(SIGNATURES, format!("it has a signature of intent {intent}, of which none was released")))
            }
            None => Ok(()),
        }
    }
}

fn at_most(name: &str, max: usize, octets: Vec<u8>) -> Result<Vec<u8>, VerifyError> {
    if octets.len() > max { Err(wrong(name, format!("expected at most {max} octets, found more"))) } else { Ok(octets) }
}

/// The tiles of an export, which several threads read.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    root: &'a Path,
}

impl Tiles<'_> {
    /// One of them.
    pub(super) fn read(self, name: TileName) -> Result<Vec<u8>, VerifyError> {
        let mut octets = Vec::new();
        let len = self.read_into(name, &mut octets)?;
        octets.truncate(len);
        Ok(octets)
    }

    /// One of them in place of what is in `octets`, which grows where that is too short; how long it is.
    pub(super) fn read_into(self, name: TileName, octets: &mut Vec<u8>) -> Result<usize, VerifyError> {
        let name = name.to_string();
        let path = self.root.join(&name);
        let mut len = 0;
        let mut read = || {
            let mut file = File::open(&path)?;
            while len <= TILE_LEN_MAX {
                if len == octets.len() {
                    octets.resize((2 * len).clamp(PIECE_LEN, TILE_LEN_MAX + 1), 0);
                }
                match file.read(&mut octets[len..]) {
                    Ok(0) => break,
                    Ok(more) => len += more,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        match read() {
            Ok(()) if len <= TILE_LEN_MAX => Ok(len),
            Ok(()) => Err(wrong(&name, format!("expected at most {TILE_LEN_MAX} octets, found more"))),
            Err(source) => Err(VerifyError::Read { path, source }),
        }
    }
}

fn missing(name: &str) -> VerifyError {
    wrong(name, "it is missing")
}

fn top(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

fn digest_of(name: &str) -> Option<Digest> {
    name.strip_prefix(BLOBS)?.strip_prefix('/')?.parse().ok()
}

/// Names are compared as they are listed, so that upper and lower case differ on every file system.
fn is_known(name: &str) -> bool {
    [CHECKPOINT, CHECKPOINTS, SIGNATURES].contains(&name) || digest_of(name).is_some()
}

fn no_answer(error: &VerifyError, digest: Digest) -> BookError {
    match error {
        VerifyError::Wrong(_) => BookError::BlobMissing { digest },
        VerifyError::Read { .. } | VerifyError::Key { .. } | VerifyError::Write(_) | VerifyError::Command(_) => {
            BookError::Store { reason: error.to_string() }
        }
    }
}

impl Blobs for Export {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        let mut octets = Vec::new();
        let mut len = 0;
        self.stream(digest, &mut |piece| {
            len += piece.len();
            if len <= FILE_LEN_MAX {
                octets.extend(piece);
            }
        })?;
        // More would be no document, nor a file of a policy.
        if len <= FILE_LEN_MAX {
            return Ok(octets);
        }
        Err(BookError::Store { reason: format!("blob {digest}: expected at most {FILE_LEN_MAX} octets, found {len}") })
    }

    fn stream(&self, digest: Digest, piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        let mut file = self.take(&format!("{BLOBS}/{digest}")).map_err(|error| no_answer(&error, digest))?;
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        let mut buffer = vec![0; PIECE_LEN];
        loop {
            let len = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(BookError::Store { reason: error.to_string() }),
            };
            hash.update(&buffer[..len]);
            piece(&buffer[..len]);
        }
        let found = Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets");
        if found == digest { Ok(()) } else { Err(BookError::BlobAltered { digest, found }) }
    }
}

impl Evidence for Export {
    fn signature(&self, intent: u64) -> Result<Option<[u8; 64]>, BookError> {
        let found = self.signatures.look(intent).map_err(|reason| BookError::Store { reason })?;
        Ok(found.map(|(_, signature)| signature))
    }

    fn release(&self, intent: u64) -> Result<bool, BookError> {
        self.signatures.release(intent).map_err(|reason| BookError::Store { reason })
    }

    fn at_once(&self, count: usize, one: &(dyn Fn(usize) + Sync)) {
        crate::processors::at_once(count, one);
    }
}

type Record = (u64, [u8; 64]);

/// The file of signatures: records in ascending order, found without being kept.
struct Signatures {
    file: File,
    count: u64,
    /// Where outcomes are.
    outcomes: RefCell<Cursor>,
    /// Where releases are: a chunk behind those, or everything.
    releases: RefCell<Cursor>,
    /// Which records were released.
    used: RefCell<Vec<u64>>,
}

/// A place in the file of somebody who goes through it in order, nearly.
#[derive(Default)]
struct Cursor {
    /// The records before it are of intents below `passed`, and the others are not.
    next: u64,
    /// The first intent that was not asked for.
    passed: u64,
    /// The records read last, as they lie, and the place of the first of them.
    block: (u64, Vec<u8>),
}

impl Signatures {
    fn open(path: &Path) -> Result<Self, VerifyError> {
        let unreadable = |source| VerifyError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let record_len = SIGNATURE_RECORD_LEN as u64;
        if !len.is_multiple_of(record_len) {
            return Err(wrong(
                SIGNATURES,
                format!("expected records of {record_len} octets, found {len} octets in all"),
            ));
        }
        let count = len / record_len;
        let words = usize::try_from(count.div_ceil(64)).map_err(|_| wrong(SIGNATURES, "it is too large"))?;
        let this = Self {
            file,
            count,
            outcomes: RefCell::default(),
            releases: RefCell::default(),
            used: RefCell::new(vec![0; words]),
        };
        let (mut cursor, mut before) = (Cursor::default(), None);
        for place in 0..count {
            let (intent, _) = this.record(place, &mut cursor).map_err(|reason| wrong(SIGNATURES, reason))?;
            if let Some(before) = before.filter(|before| *before >= intent) {
                let reason = format!("record {place}: expected an intent above {before}, found {intent}");
                return Err(wrong(SIGNATURES, reason));
            }
            before = Some(intent);
        }
        Ok(this)
    }

    fn record(&self, place: u64, cursor: &mut Cursor) -> Result<Record, String> {
        let (from, octets) = &mut cursor.block;
        let at = |from: u64, octets: &[u8]| {
            let records = octets.as_chunks::<SIGNATURE_RECORD_LEN>().0;
            records.get(usize::try_from(place.checked_sub(from)?).ok()?).map(|record| {
                let (intent, signature) = record.split_first_chunk().expect("a record has more than 8 octets");
                (u64::from_be_bytes(*intent), signature.try_into().expect("and 64 more"))
            })
        };
        if let Some(record) = at(*from, octets) {
            return Ok(record);
        }
        *from = place / RECORDS_AT_ONCE as u64 * RECORDS_AT_ONCE as u64;
        let len = usize::try_from(self.count.saturating_sub(*from)).unwrap_or(usize::MAX).min(RECORDS_AT_ONCE);
        octets.resize(len * SIGNATURE_RECORD_LEN, 0);
        self.file.read_exact_at(octets, *from * SIGNATURE_RECORD_LEN as u64).map_err(|error| error.to_string())?;
        at(*from, octets).ok_or_else(|| format!("record {place}: the file has become shorter"))
    }

    /// The record of an intent, and its place. Where they are asked for in order, those that are not there are not looked for.
    fn find(&self, intent: u64, cursor: &mut Cursor) -> Result<Option<(u64, [u8; 64])>, String> {
        let ahead = if cursor.next < self.count { Some(self.record(cursor.next, cursor)?.0) } else { None };
        let is_next = cursor.passed <= intent && ahead.is_none_or(|ahead| intent <= ahead);
        if !is_next {
            let (mut low, mut high) = if intent < cursor.passed { (0, cursor.next) } else { (cursor.next, self.count) };
            while low < high {
                let middle = low.midpoint(high);
                if self.record(middle, cursor)?.0 < intent { low = middle + 1 } else { high = middle }
            }
            cursor.next = low;
        }
        let place = cursor.next;
        let found = if place < self.count { Some(self.record(place, cursor)?) } else { None };
        let found = found.filter(|(of, _)| *of == intent);
        (cursor.next, cursor.passed) = if found.is_some() { (place + 1, intent + 1) } else { (place, intent) };
        Ok(found.map(|(_, signature)| (place, signature)))
    }

    /// What is published of an outcome.
    fn look(&self, intent: u64) -> Result<Option<(u64, [u8; 64])>, String> {
        self.find(intent, &mut self.outcomes.borrow_mut())
    }

    /// It was released; whether it is there.
    fn release(&self, intent: u64) -> Result<bool, String> {
        let found = self.find(intent, &mut self.releases.borrow_mut())?;
        Ok(found.is_some_and(|(place, _)| self.mark(place)))
    }

    fn mark(&self, place: u64) -> bool {
        let mut used = self.used.borrow_mut();
        let word = usize::try_from(place / 64).ok().and_then(|word| used.get_mut(word));
        word.map(|word| *word |= 1 << (place % 64)).is_some()
    }

    /// Whose they are was not looked at.
    fn use_all(&self) {
        self.used.borrow_mut().fill(u64::MAX);
    }

    /// The intent of the first signature that was not released.
    fn first_unused(&self) -> Result<Option<u64>, String> {
        let used = self.used.borrow();
        let is_used = |place: u64| {
            usize::try_from(place / 64).ok().and_then(|word| used.get(word)).is_some_and(|w| w >> (place % 64) & 1 == 1)
        };
        let unused = (0..self.count).find(|place| !is_used(*place));
        let cursor = &mut self.releases.borrow_mut();
        unused.map(|place| self.record(place, cursor).map(|(intent, _)| intent)).transpose()
    }
}
