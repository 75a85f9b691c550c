//! How often each function was called: in a file beside the script, so that all processes count together and a count outlives
//! each of them; or, when the script says so, in this process alone.
//!
//! The file has a line of fixed length for each function: its name, the calls so far, and how many of them were made before the
//! script had its present text. It is written in place, a number at a time, so that a process that is killed leaves a
//! whole file. Three lines more: all calls (`*`), which text that is (`script`), and until when the token is gone (`gone`, in
//! milliseconds since 1970, and for the how-manieth time).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::FUNCTIONS;

/// The lines after those of the functions.
const ALL: usize = FUNCTIONS.len();
const SCRIPT: usize = ALL + 1;
const GONE: usize = ALL + 2;
const LINES: usize = ALL + 3;

const NAME_LEN: usize = 24;
const NUMBER_LEN: usize = 21;
const LINE_LEN: usize = NAME_LEN + 2 * NUMBER_LEN + 1;

/// The number of a call.
#[derive(Clone, Copy)]
pub struct Count {
    /// From 1.
    pub n: u64,
    /// How many calls were made before the script had its present text.
    pub base: u64,
}

/// Where they are kept.
pub enum Counts {
    /// By all processes.
    Shared(File),
    /// By this one.
    Own(Box<[[u64; 2]; LINES]>),
}

impl Counts {
    /// Counts of this process.
    pub fn own() -> Self {
        Self::Own(Box::new([[0; 2]; LINES]))
    }

    /// Counts of all processes, in this file.
    pub fn shared(path: &PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let locked = Lock::of(&file)?;
        if file.metadata()?.len() != (LINES * LINE_LEN) as u64 {
            file.set_len(0)?;
            let mut text = String::with_capacity(LINES * LINE_LEN);
            for name in FUNCTIONS.iter().copied().chain(["*", "script", "gone"]) {
                text += &line(name, [0; 2]);
            }
            file.write_all_at(text.as_bytes(), 0)?;
        }
        drop(locked);
        Ok(Self::Shared(file))
    }

    /// The script has a text of this digest from here on, if it had not before.
    pub fn adopt(&mut self, digest: u64) -> io::Result<()> {
        self.exclusively(|counts| {
            if counts.get(SCRIPT)?[0] == digest {
                return Ok(());
            }
            for place in 0..=ALL {
                let [n, _] = counts.get(place)?;
                counts.put(place, [n, n])?;
            }
            let [_, times] = counts.get(GONE)?;
            counts.put(GONE, [0, times])?;
            counts.put(SCRIPT, [digest, 0])
        })
    }

    /// One more call of this function: the number among its calls, and among all. Kept before anything happens, so that a
    /// killed process has counted.
    pub fn count(&mut self, function: usize) -> io::Result<(Count, Count)> {
        self.exclusively(|counts| {
            let mut one_more = |place| -> io::Result<Count> {
                let [n, base] = counts.get(place)?;
                counts.put(place, [n + 1, base])?;
                Ok(Count { n: n + 1, base })
            };
            Ok((one_more(function)?, one_more(ALL)?))
        })
    }

    /// The numbers that the next call of this function will have.
    pub fn next(&mut self, function: usize) -> io::Result<(Count, Count)> {
        let next = |[n, base]: [u64; 2]| Count { n: n + 1, base };
        Ok((next(self.get(function)?), next(self.get(ALL)?)))
    }

    /// The token is gone until this moment, in milliseconds since 1970.
    pub fn set_gone(&mut self, until_ms: u64) -> io::Result<()> {
        self.exclusively(|counts| {
            let [before, times] = counts.get(GONE)?;
            counts.put(GONE, [before.max(until_ms), times + 1])
        })
    }

    /// Until when the token is gone, and how often it went.
    pub fn gone(&mut self) -> io::Result<(u64, u64)> {
        self.get(GONE).map(|[until, times]| (until, times))
    }

    fn exclusively<T>(&mut self, what: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let _locked = match self {
            Self::Shared(file) => Some(Lock::of(file)?),
            Self::Own(_) => None,
        };
        what(self)
    }

    fn get(&self, place: usize) -> io::Result<[u64; 2]> {
        match self {
            Self::Own(counts) => Ok(counts[place]),
            Self::Shared(file) => {
                let mut octets = [0; LINE_LEN];
                file.read_exact_at(&mut octets, (place * LINE_LEN) as u64)?;
                let text = String::from_utf8_lossy(&octets);
                let mut numbers = text.split_whitespace().skip(1).filter_map(|number| number.parse().ok());
                match (numbers.next(), numbers.next()) {
                    (Some(n), Some(base)) => Ok([n, base]),
                    _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("expected counts, found {text:?}"))),
                }
            }
        }
    }

    fn put(&mut self, place: usize, numbers: [u64; 2]) -> io::Result<()> {
        match self {
            Self::Own(counts) => {
                counts[place] = numbers;
                Ok(())
            }
            Self::Shared(file) => {
                let text = line("", numbers);
                file.write_all_at(&text.as_bytes()[NAME_LEN..], (place * LINE_LEN + NAME_LEN) as u64)
            }
        }
    }
}

fn line(name: &str, [n, base]: [u64; 2]) -> String {
    format!("{name:NAME_LEN$}{n:>NUMBER_LEN$}{base:>NUMBER_LEN$}\n")
}

/// Other processes wait; threads of this one hold a mutex already.
struct Lock(i32);

impl Lock {
    fn of(file: &File) -> io::Result<Self> {
        let fd = file.as_raw_fd();
        // SAFETY: flock(2) takes a descriptor, open as long as the borrowed file is.
        match unsafe { libc::flock(fd, libc::LOCK_EX) } {
            0 => Ok(Self(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: as above; whoever holds this holds the counts, and with them the file.
        unsafe { libc::flock(self.0, libc::LOCK_UN) };
    }
}
