//! Shell: a folder of files of a chosen size, and its manifest.
//!
//! A file is written under another name, synced, entered into the partial manifest, and only then given its name; the manifest comes last. So
//! whatever ends the program, no file looks whole that is not, and what is whole is not fetched again. Syncing is a thread's: a file of some
//! hundred megabytes takes seconds, in which the next one fills.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use ring::digest::{Context as Hash, SHA256};
use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, fcntl_getfl, fcntl_setfl, flock};
use rustix::io::Errno;

use super::super::super::CliError;
use super::super::super::input::{self, InputError};
use super::super::super::release;
use super::FileSize;
use crate::domain::commands::container::{self, Fields, Header};
use crate::domain::commands::manifest::{
    self, Covering, File as Entered, Folder, Format, Manifest, NAME, PARTIAL_NAME, Ranges, VERSION,
};
use crate::domain::names::{DeviceId, Digest, RequestId};

/// Octets that are written together.
const BUFFER_LEN: usize = 1024 * 1024;

/// What is written past the system's cache begins at a multiple of this in memory; in the file it does by [`BUFFER_LEN`].
const ALIGNMENT: usize = 4096;

/// Octets after which the system is told that they are not needed again, so that it writes them meanwhile, and forgets them.
const BEHIND_LEN: u64 = 8 * 1024 * 1024;

/// Octets of a file that are read at a time, to check it.
const PIECE_LEN: usize = 256 * 1024;

/// The greatest manifest: some hundred thousand files.
pub(in crate::cli) const MANIFEST_LEN_MAX: u64 = 256 * 1024 * 1024;

/// Whether commands come in the order of their intents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Order {
    /// All of a request, one after the other.
    InOrder,
    /// As they are signed, or some of them.
    Any,
}

/// A folder that is being filled.
pub(in crate::cli) struct Files {
    path: PathBuf,
    /// Holds the folder's lock: two that fill one would each undo the other's.
    _lock: File,
    format: Format,
    size: FileSize,
    order: Order,
    /// What was there, and is whole.
    known: Option<Known>,
    /// The size of the checkpoint over them, if they were all.
    covered: Option<u64>,
    have: Ranges,
    /// Whose command did not come before: asked for by name.
    awaited: BTreeSet<DeviceId>,
    /// Whose command did not come this time, and may yet come.
    came_without: BTreeSet<DeviceId>,
    /// Those of them that no file tells of yet.
    not_entered: Vec<DeviceId>,
    header: Option<Header>,
    folder: Option<Folder>,
    entered: Vec<Entered>,
    current: Option<Current>,
    syncer: Option<Syncer>,
}

/// A folder and its files, as a manifest has them.
type Known = (Folder, Vec<Entered>);

/// The file that is being written.
struct Current {
    file: File,
    path: PathBuf,
    name: String,
    buffer: Vec<u8>,
    /// Where whole blocks of the buffer are written past the system's cache: 0.4 us for each 4 KiB instead of 1.2, beside the signing of what
    /// comes next, and nothing is left to be synced at the end (measured on ext4). None where the file system has no such writing.
    direct: Option<Block>,
    /// Octets of before the buffer.
    written: u64,
    /// Up to where the system was told.
    told: u64,
    hash: Hash,
    commands: u64,
    intents: Ranges,
    container: Option<container::Writer>,
}

/// A file that is whole, and not on the disk for sure.
struct Whole {
    file: File,
    from: PathBuf,
    to: PathBuf,
    entered: Entered,
}

/// The thread that makes whole files durable and gives them their names.
struct Syncer {
    whole: mpsc::SyncSender<Whole>,
    thread: JoinHandle<Result<(), CliError>>,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> CliError + '_ {
    move |error| CliError::Unfit(format!("{}: {error}", path.display()))
}

/// The name of a file while it is written.
fn hidden(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.part"))
}

fn sync_folder(path: &Path) -> Result<(), CliError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed(path))
}

/// Replaces a file: all of it or nothing.
fn replace(path: &Path, octets: &[u8]) -> Result<(), CliError> {
    let new = hidden(path);
    let written = File::create(&new)
        .and_then(|mut file| file.write_all(octets).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(failed(path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Length and SHA-256 of a file; none if it is not there.
pub(in crate::cli) fn digest_of(path: &Path) -> Result<Option<(u64, Digest)>, CliError> {
    use std::io::Read as _;
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(InputError::Unreadable { path: path.to_owned(), source }.into()),
    };
    let (mut hash, mut len, mut piece) = (Hash::new(&SHA256), 0, vec![0; PIECE_LEN]);
    loop {
        match file.read(&mut piece).map_err(failed(path))? {
            0 => break,
            read => {
                hash.update(&piece[..read]);
                len += read as u64;
            }
        }
    }
    Ok(Some((len, Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets"))))
}

impl Files {
    /// Opens a folder, which is made if it is not there, and looks at what is whole in it.
    pub(in crate::cli) fn open(
        path: &Path,
        format: Format,
        size: FileSize,
        request: Option<RequestId>,
        order: Order,
    ) -> Result<Self, CliError> {
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(source) => return Err(InputError::Unreadable { path: path.to_owned(), source }.into()),
        }
        let lock = File::open(path).map_err(failed(path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(CliError::Unfit(format!(
                    "{}: another smkictl is writing there; wait for it, or choose another --out",
                    path.display()
                )));
            }
            Err(error) => return Err(failed(path)(error.into())),
        }
        let (mut known, covered) = Self::known(path)?;
        if let Some((folder, files)) = &mut known {
            let other = |what: &str, found: String| {
                CliError::Unfit(format!("{}: its files are of {what} {found}; choose another --out", path.display()))
            };
            if folder.format != format {
                return Err(other("the format", format!("{:?}", folder.format).to_lowercase()));
            }
            if folder.of.request != request {
                let found = folder.of.request.map_or_else(|| "none".to_owned(), |request| request.to_string());
                return Err(other("request", found));
            }
            if folder.version != VERSION {
                return Err(CliError::Unfit(format!(
                    "{}: its manifest has version {}, and only version {VERSION} is gone on with; choose another --out, into which all commands \
                     come again. `recovery check` reads both",
                    path.display(),
                    folder.version
                )));
            }
            folder.in_order &= Self::keep_whole(path, files)?;
        }
        let have = Ranges::of(known.iter().flat_map(|(_, files)| files));
        let files = known.as_ref().map(|(_, files)| files.clone()).unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            format,
            size,
            order,
            known,
            covered,
            have,
            awaited: files.iter().flat_map(|file| file.awaited.iter().copied()).collect(),
            came_without: BTreeSet::new(),
            not_entered: Vec::new(),
            header: None,
            folder: None,
            entered: files,
            current: None,
            syncer: None,
        })
    }

    /// What manifest or partial manifest say is there; and the size of the checkpoint that a manifest has.
    fn known(path: &Path) -> Result<(Option<Known>, Option<u64>), CliError> {
        let wrong = |name: &str, error: manifest::ManifestError| {
            CliError::Unfit(format!("{}: {error}; choose another --out", path.join(name).display()))
        };
        for name in [NAME, PARTIAL_NAME] {
            let octets = match input::file(&path.join(name), MANIFEST_LEN_MAX) {
                Ok(octets) => octets,
                Err(InputError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            return if name == NAME {
                let whole = Manifest::parse(&octets).map_err(|error| wrong(name, error))?;
                Ok((Some((whole.folder, whole.files)), Some(whole.checkpoint.size)))
            } else {
                Ok((manifest::parse_partial(&octets).map_err(|error| wrong(name, error))?, None))
            };
        }
        Ok((None, None))
    }

    /// Keeps the files that are there as they were entered. One that was entered and had not got its name yet gets it. Answers whether all are there.
    fn keep_whole(path: &Path, files: &mut Vec<Entered>) -> Result<bool, CliError> {
        let before = files.len();
        let mut kept = Vec::with_capacity(before);
        for file in std::mem::take(files) {
            let named = path.join(&*file.name);
            match digest_of(&named)? {
                Some(found) if found == (file.octets, file.sha256) => kept.push(file),
                Some((_, found)) => {
                    return Err(CliError::Unfit(format!(
                        "{}: it has SHA-256 {found}, its manifest says {}: it was changed since. Remove it, and run this again: its \
                         commands are fetched anew",
                        named.display(),
                        file.sha256
                    )));
                }
                None if digest_of(&hidden(&named))? == Some((file.octets, file.sha256)) => {
                    fs::rename(hidden(&named), &named).map_err(failed(&named))?;
                    kept.push(file);
                }
                None => {}
            }
        }
        *files = kept;
        Ok(files.len() == before)
    }

    /// After which intent one goes on, if all before it is there, but for what is awaited.
    pub(in crate::cli) fn after(&self) -> Option<u64> {
        let in_order = self.known.as_ref().is_some_and(|(folder, _)| folder.in_order);
        self.have.ends().filter(|_| in_order && self.order == Order::InOrder).map(|(_, last)| last)
    }

    /// Whose commands did not come before, and are not among those after [`Self::after`]: they are asked for by name, once the others came.
    pub(in crate::cli) fn take_awaited(&mut self) -> BTreeSet<DeviceId> {
        if self.after().is_none() {
            return BTreeSet::new();
        }
        // What came this time may be asked for again.
        self.have = Ranges::of(&self.entered);
        std::mem::take(&mut self.awaited)
    }

    /// A Device came without its command, which may yet come.
    pub(in crate::cli) fn awaits(&mut self, device: DeviceId) {
        if self.came_without.insert(device) {
            self.not_entered.push(device);
        }
    }

    /// Whether a command is in one of the files already.
    pub(in crate::cli) fn has(&self, intent: u64) -> bool {
        self.have.has(intent) || self.current.as_ref().is_some_and(|current| current.intents.has(intent))
    }

    /// Now it is known what the files are of.
    pub(in crate::cli) fn begin(&mut self, header: &Header) -> Result<(), CliError> {
        if let Some(begun) = &self.header {
            let other =
                || CliError::Unfit(format!("{}: what came is of {begun:?}, then of {header:?}", self.path.display()));
            return if begun == header { Ok(()) } else { Err(other()) };
        }
        let in_order = self.order == Order::InOrder && self.known.as_ref().is_none_or(|(folder, _)| folder.in_order);
        let folder = Folder { version: VERSION, format: self.format, of: header.clone(), in_order };
        if let Some((known, _)) = self.known.as_ref().filter(|(known, _)| known.of != folder.of) {
            return Err(CliError::Unfit(format!(
                "{}: its files are of determination {} in {}; choose another --out",
                self.path.display(),
                known.of.determination,
                known.of.origin
            )));
        }
        self.remove_leftovers()?;
        let partial = self.path.join(PARTIAL_NAME);
        let mut lines = json_line(&folder);
        self.entered.iter().for_each(|file| lines.extend(json_line(file)));
        replace(&partial, &lines)?;
        // From here on the folder is not whole.
        match fs::remove_file(self.path.join(NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&self.path)(error)),
            Ok(()) | Err(_) => sync_folder(&self.path)?,
        }
        self.syncer = Some(Syncer::start(&partial)?);
        (self.header, self.folder) = (Some(header.clone()), Some(folder));
        Ok(())
    }

    /// Removes what was being written when somebody was killed: what is whole of it was given its name.
    fn remove_leftovers(&self) -> Result<(), CliError> {
        for entry in fs::read_dir(&self.path).map_err(failed(&self.path))? {
            let entry = entry.map_err(failed(&self.path))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".commands-") && name.ends_with(".part") {
                fs::remove_file(entry.path()).map_err(failed(&entry.path()))?;
            }
        }
        Ok(())
    }

    /// Refuses a ledger that is older than what lies here, before anything is changed.
    pub(in crate::cli) fn covered_by(&self, size: u64) -> Result<(), CliError> {
        match self.covered.filter(|covered| *covered > size) {
            Some(covered) => Err(CliError::Unfit(format!(
                "{}: its files are covered by a checkpoint of {covered} entries, and the export has {size}; choose another --out, or a \
                 newer export",
                self.path.display()
            ))),
            None => Ok(()),
        }
    }

    /// Puts a command.
    pub(in crate::cli) fn put(&mut self, fields: Fields, octets: &[u8]) -> Result<(), CliError> {
        let Some(header) = &self.header else { return Ok(()) };
        let mut current = match self.current.take() {
            Some(current) => current,
            None => Current::create(&self.path, self.format, header, &self.entered)?,
        };
        match &mut current.container {
            Some(writer) => writer.command(fields, octets, &mut current.buffer),
            None => super::line(self.format, header, fields, octets, &mut current.buffer),
        }
        current.commands += 1;
        current.intents.insert(fields.intent);
        if current.buffer.len() >= BUFFER_LEN {
            current.flush()?;
        }
        let is_full = match self.size {
            FileSize::Commands(most) => current.commands >= most,
            FileSize::Octets(most) => current.written + current.buffer.len() as u64 + octets.len() as u64 > most,
        };
        if is_full {
            return self.close(current);
        }
        self.current = Some(current);
        Ok(())
    }

    /// A file is whole: it is synced, entered and given its name meanwhile.
    fn close(&mut self, current: Current) -> Result<(), CliError> {
        let whole = current.end(&self.path, std::mem::take(&mut self.not_entered))?;
        self.entered.push(whole.entered.clone());
        let Some(syncer) = &self.syncer else { return Ok(()) };
        if syncer.whole.send(whole).is_ok() {
            return Ok(());
        }
        self.syncer.take().map_or(Ok(()), Syncer::end)
    }

    /// Keeps what came, and no manifest: it goes on from here.
    pub(in crate::cli) fn keep(mut self) -> Result<(), CliError> {
        if let Some(current) = self.current.take() {
            self.close(current)?;
        }
        self.syncer.take().map_or(Ok(()), Syncer::end)
    }

    /// Everything is there: the manifest says so.
    pub(in crate::cli) fn finish(mut self, checkpoint: Covering) -> Result<(), CliError> {
        if let Some(current) = self.current.take() {
            self.close(current)?;
        }
        self.syncer.take().map_or(Ok(()), Syncer::end)?;
        let Some(mut folder) = self.folder else { return Ok(()) };
        if let Some(last) =
            self.entered.iter().map(|file| file.last_intent).max().filter(|last| *last >= checkpoint.size)
        {
            return Err(CliError::Unfit(format!(
                "{}: it has a command of entry {last}, and the checkpoint covers {} entries: it is older than what lies there. All commands \
                 are kept; choose another --out",
                self.path.display(),
                checkpoint.size
            )));
        }
        folder.in_order = self.order == Order::InOrder;
        if folder.in_order {
            // All was asked for: what is not here, or is awaited, and whoever was awaited before.
            self.entered.iter_mut().for_each(|file| file.awaited.clear());
            if let Some(last) = self.entered.last_mut() {
                last.awaited.extend(self.came_without);
            }
        }
        let commands = self.entered.iter().map(|file| file.commands).sum();
        let manifest = Manifest { folder, files: self.entered, commands, checkpoint };
        let mut octets = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from)?;
        octets.push(b'\n');
        if octets.len() as u64 > MANIFEST_LEN_MAX {
            return Err(CliError::Unfit(format!(
                "{}: its manifest would have {} octets, and one has at most {MANIFEST_LEN_MAX}: most of the request was unknown or withheld. \
                 All commands are kept",
                self.path.display(),
                octets.len()
            )));
        }
        replace(&self.path.join(NAME), &octets)?;
        let partial = self.path.join(PARTIAL_NAME);
        fs::remove_file(&partial).map_err(failed(&partial))?;
        sync_folder(&self.path)
    }
}

fn json_line(value: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("it is made of texts and numbers");
    line.push(b'\n');
    line
}

impl Current {
    fn create(folder: &Path, format: Format, header: &Header, before: &[Entered]) -> Result<Self, CliError> {
        let ending = match format {
            Format::Container => "smkicmd",
            Format::Ndjson => "ndjson",
            Format::Hex | Format::Each => "hex",
        };
        // Behind the greatest number: a file that was lost leaves its own free, and one that is being synced has not got its name yet.
        let number = |name: &str| name.strip_prefix("commands-")?.split('.').next()?.parse::<usize>().ok();
        let last = before.iter().filter_map(|file| number(&file.name)).max().unwrap_or_default();
        let name = (last + 1..=usize::MAX)
            .map(|number| format!("commands-{number:06}.{ending}"))
            .find(|name| !folder.join(name).exists())
            .expect("there are more numbers than files");
        let path = hidden(&folder.join(&name));
        let (file, direct) = create(&path).map_err(failed(&path))?;
        let mut buffer = Vec::with_capacity(BUFFER_LEN + 16 * 1024);
        let container = (format == Format::Container).then(|| container::Writer::begin(header, &mut buffer));
        let (hash, intents) = (Hash::new(&SHA256), Ranges::default());
        Ok(Self { file, path, name, buffer, direct, written: 0, told: 0, hash, commands: 0, intents, container })
    }

    /// Writes the whole blocks of the buffer.
    fn flush(&mut self) -> Result<(), CliError> {
        let mut from = 0;
        while let Some(octets) = self.buffer.get(from..from + BUFFER_LEN) {
            self.hash.update(octets);
            let written = match &mut self.direct {
                Some(block) => block.write(&mut self.file, octets),
                None => self.file.write_all(octets).map(|()| true),
            };
            if !written.map_err(failed(&self.path))? {
                self.direct = None;
            }
            from += BUFFER_LEN;
        }
        self.buffer.drain(..from);
        self.written += from as u64;
        if self.direct.is_none()
            && let Some(len) = NonZeroU64::new(self.written - self.told).filter(|len| len.get() >= BEHIND_LEN)
        {
            // Only advice: where a file system has none, syncing takes longer.
            let _ = fadvise(&self.file, self.told, Some(len), Advice::DontNeed);
            self.told = self.written;
        }
        Ok(())
    }

    /// Writes all of the buffer: its rest is no whole block, so it goes through the cache.
    fn flush_all(&mut self) -> Result<(), CliError> {
        self.flush()?;
        if self.direct.take().is_some() {
            through_cache(&self.file).map_err(failed(&self.path))?;
        }
        self.hash.update(&self.buffer);
        self.file.write_all(&self.buffer).map_err(failed(&self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is left, and says what the file is.
    fn end(mut self, folder: &Path, awaited: Vec<DeviceId>) -> Result<Whole, CliError> {
        if let Some(container) = self.container.take() {
            container.end_before_digest(&mut self.buffer);
            self.flush_all()?;
            let digest = self.hash.clone().finish();
            self.buffer.extend_from_slice(digest.as_ref());
        }
        self.flush_all()?;
        let Self { file, path, name, written, hash, commands, intents, .. } = self;
        let sha256 = Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets");
        let (first_intent, last_intent) = intents.ends().unwrap_or_default();
        let to = folder.join(&name);
        let intents = intents.ranges().to_vec();
        let entered = Entered {
            name: name.into(),
            octets: written,
            sha256,
            commands,
            first_intent,
            last_intent,
            intents,
            awaited,
        };
        Ok(Whole { file, from: path, to, entered })
    }
}

/// Memory that begins where writing past the cache wants it to.
struct Block {
    memory: Vec<u8>,
    begin: usize,
}

impl Block {
    fn new() -> Self {
        let memory = vec![0; BUFFER_LEN + ALIGNMENT];
        let begin = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, begin }
    }

    /// Writes a whole block. False if the file system took it only through the cache, as all that follows.
    fn write(&mut self, file: &mut File, octets: &[u8]) -> io::Result<bool> {
        let Some(block) = self.memory.get_mut(self.begin..self.begin + BUFFER_LEN) else {
            through_cache(file)?;
            return file.write_all(octets).map(|()| false);
        };
        block.copy_from_slice(octets);
        match file.write(block) {
            Ok(len) if len == BUFFER_LEN => Ok(true),
            // What it did not take of it is no whole block any more.
            Ok(len) => through_cache(file).and_then(|()| file.write_all(&octets[len..])).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                through_cache(file).and_then(|()| file.write_all(octets)).map(|()| false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Makes a file, past the system's cache if the file system lets one.
fn create(path: &Path) -> io::Result<(File, Option<Block>)> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    match options.clone().custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path) {
        Ok(file) => Ok((file, Some(Block::new()))),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok((options.open(path)?, None)),
        Err(error) => Err(error),
    }
}

fn through_cache(file: &File) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    Ok(fcntl_setfl(file, flags - OFlags::DIRECT)?)
}

impl Syncer {
    fn start(partial: &Path) -> Result<Self, CliError> {
        let mut manifest = File::options().append(true).open(partial).map_err(failed(partial))?;
        let partial = partial.to_owned();
        // One waits while another is synced: more would only fill memory with what the disk cannot take.
        let (whole, wholes) = mpsc::sync_channel::<Whole>(1);
        let thread = thread::spawn(move || {
            for Whole { file, from, to, entered } in wholes {
                file.sync_all().map_err(failed(&from))?;
                manifest
                    .write_all(&json_line(&entered))
                    .and_then(|()| manifest.sync_data())
                    .map_err(failed(&partial))?;
                match release::put_in_place(&from, &to) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        return Err(InputError::Exists { path: to }.into());
                    }
                    Err(error) => return Err(failed(&to)(error)),
                }
                to.parent().map_or(Ok(()), sync_folder)?;
            }
            Ok(())
        });
        Ok(Self { whole, thread })
    }

    fn end(self) -> Result<(), CliError> {
        drop(self.whole);
        self.thread.join().unwrap_or_else(|_| Err(CliError::Unfit("the thread that syncs files ended".to_owned())))
    }
}

#[cfg(test)]
mod tests;
