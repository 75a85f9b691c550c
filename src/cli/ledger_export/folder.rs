//! Shell: the folder of an export while it is written: under another name until it is whole.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{CHECKPOINT, ExportError, SIGNATURE_RECORD_LEN, SIGNATURES, TILES, head_of};
use crate::domain::ledger::entry::{Entry, Event};
use crate::domain::ledger::merkle::Head;
use crate::domain::ledger::tiles::{self, TILE_WIDTH, TileName};

/// How many entries are whole: below it nothing is written again. Not a part of an export; it goes when that is whole.
const PROGRESS: &str = "progress";
/// The ending of a file that is not whole yet.
const NEW: &str = "new";

/// The folder.
pub(super) struct Folder {
    /// What it will be called.
    dir: PathBuf,
    /// What it is called until then.
    partial: PathBuf,
    /// Entries that are there.
    whole: u64,
    /// Locked while this is held.
    open: File,
}

pub(super) fn failed(doing: &'static str, path: &Path, source: io::Error) -> ExportError {
    ExportError::File { doing, path: path.to_owned(), source }
}

fn is_empty(dir: &Path) -> Result<Option<bool>, ExportError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(Some(entries.next().is_none())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look into it", dir, error)),
    }
}

impl Folder {
    fn partial(dir: &Path) -> PathBuf {
        let mut partial = dir.as_os_str().to_owned();
        partial.push(".partial");
        partial.into()
    }

    /// What an interrupted export to `dir` has left, if anything.
    pub(super) fn left(dir: &Path) -> Option<PathBuf> {
        Some(Self::partial(dir)).filter(|partial| partial.join(PROGRESS).is_file())
    }

    /// Takes over what is there: an export, a part of one, or nothing.
    pub(super) fn open(dir: &Path) -> Result<Self, ExportError> {
        let partial = Self::partial(dir);
        let begun = is_empty(&partial)?;
        match is_empty(dir)? {
            None => {}
            // Of two, the whole one is not what was interrupted.
            Some(true) => fs::remove_dir(dir).map_err(|error| failed("make way for the export", dir, error))?,
            Some(false) if begun.is_none() && dir.join(CHECKPOINT).is_file() => {
                Self::lock(dir)?;
                fs::rename(dir, &partial).map_err(|error| failed("rename it while it is written", dir, error))?;
            }
            Some(false) => return Err(ExportError::NotEmpty { path: dir.to_owned() }),
        }
        match begun {
            Some(false) if !partial.join(CHECKPOINT).is_file() && !partial.join(PROGRESS).is_file() => {
                return Err(ExportError::NotEmpty { path: partial });
            }
            Some(_) => {}
            None => match fs::create_dir(&partial) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(failed("make it", &partial, error));
                }
                Ok(()) | Err(_) => {}
            },
        }
        let open = Self::lock(&partial)?;
        let mut folder = Self { dir: dir.to_owned(), partial, whole: 0, open };
        folder.whole = match fs::read_to_string(folder.path(PROGRESS)) {
            Ok(text) => {
                let size = text.trim_end().parse().ok().filter(|size: &u64| size.is_multiple_of(TILE_WIDTH));
                size.ok_or_else(|| ExportError::Earlier {
                    path: folder.path(PROGRESS),
                    reason: format!("expected a multiple of {TILE_WIDTH}, found {text:?}"),
                })?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Whole bundles stay; the last is written again with what has come since.
                folder.exported()?
            }
            Err(error) => return Err(failed("read it", &folder.path(PROGRESS), error)),
        };
        folder.keep(folder.whole)?;
        Ok(folder)
    }

    fn lock(dir: &Path) -> Result<File, ExportError> {
        let open = File::open(dir).map_err(|error| failed("open it", dir, error))?;
        match open.try_lock() {
            Ok(()) => Ok(open),
            Err(TryLockError::WouldBlock) => Err(ExportError::Busy { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed("lock it", dir, error)),
        }
    }

    /// How many entries are whole here, a multiple of 256.
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    /// The head that is exported here, if any is.
    pub(super) fn earlier(&self) -> Result<Option<Head>, ExportError> {
        let path = self.path(CHECKPOINT);
        match fs::read(&path) {
            Ok(note) => head_of(&note).map(Some).map_err(|reason| ExportError::Earlier { path, reason }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read it", &path, error)),
        }
    }

    /// How many entries are here of which everything is that they name: those of the export that was whole here, to the last multiple of 256.
    pub(super) fn exported(&self) -> Result<u64, ExportError> {
        Ok(self.earlier()?.map_or(0, |head| head.size / TILE_WIDTH * TILE_WIDTH))
    }

    /// What is here is no beginning of what is exported.
    pub(super) fn not_ours(&self, reason: String) -> ExportError {
        ExportError::Earlier { path: self.partial.clone(), reason }
    }

    pub(super) fn read(&self, name: TileName) -> Result<Vec<u8>, ExportError> {
        let path = self.path(&name.to_string());
        fs::read(&path).map_err(|error| failed("read it", &path, error))
    }

    /// Visits entries that are whole here, and some more about them.
    pub(super) fn leaves(
        &self,
        range: Range<u64>,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        for place in range.start / TILE_WIDTH..range.end.div_ceil(TILE_WIDTH) {
            let name = TileName::bundle(place);
            let octets = self.read(name)?;
            tiles::entries(name, &octets)?.into_iter().try_for_each(|(index, entry)| visit(index, entry))?;
        }
        Ok(())
    }

    /// Whether an entry that is whole here is a certification intent.
    pub(super) fn is_certification(&self, index: u64) -> Result<bool, ExportError> {
        let name = TileName::bundle(index / TILE_WIDTH);
        let octets = self.read(name)?;
        let entries = tiles::entries(name, &octets)?;
        let entry = entries.iter().find(|(at, _)| *at == index).map(|(_, octets)| Entry::from_leaf(octets));
        Ok(matches!(entry, Some(Ok(Entry { event: Event::CertificationIntent(_), .. }))))
    }

    /// Writes a file whole.
    pub(super) fn write(&self, name: &str, octets: &[u8]) -> Result<(), ExportError> {
        let path = self.path(name);
        let written = match fs::write(&path, octets) {
            // Most files have a folder already, which saves looking.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_folder(&path)?;
                fs::write(&path, octets)
            }
            written => written,
        };
        written.map_err(|error| failed("write it", &path, error))
    }

    fn make_folder(&self, of: &Path) -> Result<(), ExportError> {
        let folder = of.parent().unwrap_or(&self.partial);
        fs::create_dir_all(folder).map_err(|error| failed("make", folder, error))
    }

    /// Begins a file that is written in pieces; it has its name once it is [`Folder::put`].
    pub(super) fn create(&self, name: &str) -> Result<BufWriter<File>, ExportError> {
        let path = self.path(name).with_extension(NEW);
        self.make_folder(&path)?;
        File::create(&path).map(BufWriter::new).map_err(|error| failed("create it", &path, error))
    }

    /// Gives a file its name.
    pub(super) fn put(&self, mut file: BufWriter<File>, name: &str) -> Result<(), ExportError> {
        let path = self.path(name);
        file.flush()
            .and_then(|()| file.get_ref().sync_all())
            .and_then(|()| fs::rename(path.with_extension(NEW), &path))
            .map_err(|error| failed("write it", &path, error))
    }

    /// What was written so far is durable: an export that is interrupted goes on behind so many entries.
    pub(super) fn keep(&self, whole: u64) -> Result<(), ExportError> {
        rustix::fs::syncfs(&self.open).map_err(|error| failed("sync it", &self.partial, error.into()))?;
        let mut file = self.create(PROGRESS)?;
        writeln!(file, "{whole}").map_err(|error| failed("write it", &self.path(PROGRESS), error))?;
        self.put(file, PROGRESS)
    }

    /// The signatures that are here, in order.
    pub(super) fn signatures(&self) -> Result<impl Iterator<Item = Result<(u64, [u8; 64]), ExportError>>, ExportError> {
        let path = self.path(SIGNATURES);
        let file = match File::open(&path) {
            Ok(file) => Some(BufReader::with_capacity(1 << 16, file)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read it", &path, error)),
        };
        let mut file = file;
        Ok(std::iter::from_fn(move || {
            let mut record = [0; SIGNATURE_RECORD_LEN];
            match file.as_mut()?.read_exact(&mut record) {
                Ok(()) => {
                    let (intent, octets) = record.split_first_chunk().expect("a record has more than 8 octets");
                    Some(Ok((u64::from_be_bytes(*intent), octets.try_into().expect("and 64 more"))))
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
                Err(error) => Some(Err(failed("read it", &path, error))),
            }
        }))
    }

    /// How many files a folder has.
    pub(super) fn count(&self, name: &str) -> Result<u64, ExportError> {
        match fs::read_dir(self.path(name)) {
            Ok(files) => Ok(files.count() as u64),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(failed("look into it", &self.path(name), error)),
        }
    }

    /// Removes what is no part of an export of this size, and gives the whole its name.
    pub(super) fn finish(self, size: u64) -> Result<(), ExportError> {
        let partial_tiles = tiles::names(size).filter(|name| u64::from(name.width()) < TILE_WIDTH);
        let keep: Vec<PathBuf> = partial_tiles.map(|name| self.path(&name.to_string())).collect();
        Self::sweep(&self.path(TILES), &keep)?;
        let progress = self.path(PROGRESS);
        rustix::fs::syncfs(&self.open).map_err(|error| failed("sync it", &self.partial, error.into()))?;
        fs::remove_file(&progress).map_err(|error| failed("remove it", &progress, error))?;
        fs::rename(&self.partial, &self.dir).map_err(|error| failed("give it its name", &self.dir, error))
    }

    /// Removes the parts of tiles that an earlier size had, and the folders that are empty then.
    fn sweep(folder: &Path, keep: &[PathBuf]) -> Result<(), ExportError> {
        let removed = |path: &Path, error| failed("remove it", path, error);
        let listed = |error| failed("look into it", folder, error);
        for entry in fs::read_dir(folder).map_err(listed)? {
            let entry = entry.map_err(listed)?;
            let path = entry.path();
            if !entry.file_type().map_err(listed)?.is_dir() {
                continue;
            }
            if path.extension().is_none_or(|ending| ending != "p") {
                Self::sweep(&path, keep)?;
                continue;
            }
            if keep.iter().all(|name| !name.starts_with(&path)) {
                fs::remove_dir_all(&path).map_err(|error| removed(&path, error))?;
                continue;
            }
            for part in fs::read_dir(&path).map_err(listed)? {
                let part = part.map_err(listed)?.path();
                if !keep.contains(&part) {
                    fs::remove_file(&part).map_err(|error| removed(&part, error))?;
                }
            }
        }
        Ok(())
    }
}
