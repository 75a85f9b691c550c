//! Shell: what commands read from files, each with a limit.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use crate::api::wire::{Base64, DeviceAsk, Devices};
use crate::domain::determination::devices::{FAULTS_MAX, LINE_LEN_MAX, eui64};
use crate::domain::names::{DeviceId, NameError, RequestId};
use crate::domain::policy::Files;
use crate::domain::policy::files::FILE_LEN_MAX;

/// The greatest certificate, determination or other document.
pub const DOCUMENT_LEN_MAX: u64 = 1024 * 1024;
/// The greatest list of Devices that a request names one by one: what the daemon takes in a request, as text.
pub const DEVICES_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Octets of a line of a list of Devices, with its line feed: more is no line of any of ours.
const DEVICE_LINE_LEN_MAX: u64 = LINE_LEN_MAX as u64 + 2;
/// Octets of a list that are read at a time.
const DEVICES_READ_LEN: usize = 256 * 1024;
/// Octets of a wrong line that are told.
const FOUND_LEN_MAX: usize = 32;
/// The greatest pre-command: GBCS messages have at most 65,535 octets of payload and a short frame (GBCS 7.2).
pub const PRE_COMMAND_LEN_MAX: u64 = 128 * 1024;

/// How deep the folders of a policy may lie. Ours have one level, `anchors/` and `procedure/`.
const POLICY_DEPTH_MAX: usize = 4;
/// Files in a policy, so that a wrong directory is noticed before all of it is read. No official reference.
const POLICY_FILES_MAX: usize = 1_000;

/// Why an argument or a file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is too long.
    #[error("{}: expected at most {limit} octets, found more", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// How long it may be.
        limit: u64,
    },
    /// It has no contents.
    #[error("{}: expected {expected}, found nothing", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// A line is wrong.
    #[error("{}:{line}: {error}", path.display())]
    Line {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        error: String,
    },
    /// It is no policy.
    #[error("{}: not a policy:\n  {faults}", path.display())]
    Policy {
        /// Which directory.
        path: PathBuf,
        /// Every fault, one a line.
        faults: String,
    },
    /// It is not text.
    #[error("{}: expected text in UTF-8, found other octets", path.display())]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// It is not the directory of a policy.
    #[error(
        "{}: expected a file, at most {POLICY_DEPTH_MAX} folders deep and among the first {POLICY_FILES_MAX}, found something else; \
         is it the directory of a policy?",
        path.display()
    )]
    NotPolicy {
        /// What was found.
        path: PathBuf,
    },
    /// Faults in what should be right.
    #[error("{}: found\n  {faults}", path.display())]
    Faulty {
        /// Where.
        path: PathBuf,
        /// Each on a line.
        faults: String,
    },
    /// There would be something to overwrite.
    #[error("{}: exists with other contents and is not overwritten. Choose another --out", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// The system gave no random numbers.
    #[error("the system gives no random numbers; choose a request id with --request")]
    NoRandom,
    /// An argument is no such thing.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A whole file of at most `limit` octets.
pub fn file(path: &Path, limit: u64) -> Result<Vec<u8>, InputError> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    let mut octets = Vec::new();
    File::open(path).map_err(unreadable)?.take(limit + 1).read_to_end(&mut octets).map_err(unreadable)?;
    if octets.len() as u64 > limit {
        return Err(InputError::TooLong { path: path.to_owned(), limit });
    }
    Ok(octets)
}

/// A whole file of text.
pub fn text(path: &Path, limit: u64) -> Result<String, InputError> {
    String::from_utf8(file(path, limit)?).map_err(|_| InputError::NotText { path: path.to_owned() })
}

/// The regular files of a directory with their contents, by name.
pub fn directory(path: &Path, limit: u64) -> Result<Vec<(PathBuf, Vec<u8>)>, InputError> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_type().map_err(unreadable)?.is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    paths.into_iter().map(|path| file(&path, limit).map(|octets| (path, octets))).collect()
}

/// Every file of a policy's directory, by its path from there with `/` between.
pub fn policy(folder: &Path) -> Result<Files, InputError> {
    let mut files = Files::new();
    collect(folder, "", POLICY_DEPTH_MAX, &mut files)?;
    Ok(files)
}

fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut Files) -> Result<(), InputError> {
    let unreadable = |source| InputError::Unreadable { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|_| InputError::NotText { path: path.clone() })?;
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() && depth > 0 {
            collect(&path, &format!("{prefix}{name}/"), depth - 1, files)?;
        } else if kind.is_file() && files.len() < POLICY_FILES_MAX {
            files.insert(format!("{prefix}{name}"), file(&path, FILE_LEN_MAX as u64)?);
        } else {
            return Err(InputError::NotPolicy { path });
        }
    }
    Ok(())
}

/// `all`, or a file with a Device a line: `00DB1234567890A0`, or a line of a determination's device list.
pub fn devices(argument: &str) -> Result<Devices, InputError> {
    if argument == "all" {
        return Ok(Devices::All);
    }
    let devices = device_lines(Path::new(argument), DEVICES_LEN_MAX)?;
    Ok(Devices::Listed(devices.into_iter().map(|(device, _)| DeviceAsk { device }).collect()))
}

/// The Devices of a file, one a line, each with its line; in their order, each once. Every fault is told with its line, up to
/// [`FAULTS_MAX`].
pub fn device_lines(path: &Path, limit: u64) -> Result<Vec<(DeviceId, u32)>, InputError> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    let mut lines = BufReader::with_capacity(DEVICES_READ_LEN, File::open(path).map_err(unreadable)?);
    let (mut devices, mut line, mut at, mut read) = (Vec::<(DeviceId, u32)>::new(), Vec::new(), 0_u32, 0_u64);
    let (mut faults, mut more) = (Vec::<(u32, String)>::new(), 0_u64);
    let mut fault = |at: u32, text: String| if faults.len() < FAULTS_MAX { faults.push((at, text)) } else { more += 1 };
    loop {
        line.clear();
        let len = lines.by_ref().take(DEVICE_LINE_LEN_MAX).read_until(b'\n', &mut line).map_err(unreadable)?;
        if len == 0 {
            break;
        }
        (at, read) = (at + 1, read + len as u64);
        if read > limit {
            return Err(InputError::TooLong { path: path.to_owned(), limit });
        }
        if len as u64 == DEVICE_LINE_LEN_MAX && line.last() != Some(&b'\n') {
            fault(at, format!("expected a line of less than {DEVICE_LINE_LEN_MAX} octets, found more"));
            lines.skip_until(b'\n').map_err(unreadable)?;
            continue;
        }
        // In the form of a determination's list, template and counter follow; they are the determination's to say.
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let digits = text.split(|octet| *octet == b',').next().unwrap_or_default();
        match eui64(digits) {
            Some(device) => devices.push((DeviceId(device), at)),
            None => fault(
                at,
                format!(
                    "EUI-64: expected 16 upper-case hexadecimal digits, found {:?}",
                    String::from_utf8_lossy(&digits[..digits.len().min(FOUND_LEN_MAX)])
                ),
            ),
        }
    }
    devices.sort_unstable();
    for pair in devices.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        fault(pair[1].1, format!("Device {} stands in line {} already", pair[1].0, pair[0].1));
    }
    if !faults.is_empty() {
        faults.sort_unstable();
        let mut told: Vec<String> = faults.into_iter().map(|(at, text)| format!("line {at}: {text}")).collect();
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        return Err(InputError::Faulty { path: path.to_owned(), faults: told.join("\n  ") });
    }
    if devices.is_empty() {
        return Err(InputError::Empty { path: path.to_owned(), expected: "one Device a line" });
    }
    Ok(devices)
}

/// One pre-command, or a directory of them in the order of their names. Binary.
pub fn pre_commands(path: &Path) -> Result<Vec<Base64>, InputError> {
    let commands: Vec<Base64> = if path.is_dir() {
        directory(path, PRE_COMMAND_LEN_MAX)?.into_iter().map(|(_, octets)| Base64(octets)).collect()
    } else {
        vec![Base64(file(path, PRE_COMMAND_LEN_MAX)?)]
    };
    if commands.iter().any(|command| command.0.is_empty()) || commands.is_empty() {
        return Err(InputError::Empty { path: path.to_owned(), expected: "pre-commands" });
    }
    Ok(commands)
}

/// 128 random bits.
pub fn request_id() -> Result<RequestId, InputError> {
    let mut octets = [0; RequestId::LEN];
    SystemRandom::new().fill(&mut octets).map_err(|_| InputError::NoRandom)?;
    Ok(RequestId(octets))
}

#[cfg(test)]
mod tests;
