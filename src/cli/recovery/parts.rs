//! Shell: files of any size, in parts: one is read while those before it are on their way, and no more than a few are in memory.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::api::client::{ClientError, with_query};
use crate::api::wire;
use crate::cli::input::InputError;
use crate::cli::{CliError, Context};
use crate::domain::names::{DeviceId, Digest};

/// Parts on their way at a time: as many as the daemon holds.
const IN_FLIGHT: usize = 4;

/// How often it is told how far it has come.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Octets that are read at a time.
const READ_LEN: usize = 256 * 1024;

/// Where in a file something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum At {
    /// In text: counted from 1.
    Line(u64),
    /// In binary: counted from 0.
    Octet(u64),
}

/// A file, and where in it something stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    pub(super) at: At,
}

/// What one thing in a file is, and where it stands. What cannot be read is told, and what follows it is read all the same, if it
/// is known where that begins.
pub(super) type Found<'a> = (At, Result<&'a [u8], String>);

/// One line of the list of what did not do what it should.
#[derive(Debug, Serialize)]
pub(super) struct Fault<'a> {
    file: &'a str,
    #[serde(flatten)]
    at: At,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<u64>,
    result: &'a str,
    detail: &'a str,
}

/// Where faults are told: on the terminal the first few, in a file all.
pub(super) struct Faults<'a> {
    context: &'a Context,
    file: Option<(PathBuf, io::BufWriter<File>)>,
    count: u64,
}

impl<'a> Faults<'a> {
    /// Begins the list, in a file that must not be there yet, if one is named.
    pub(super) fn open(context: &'a Context, file: Option<&Path>) -> Result<Self, CliError> {
        let file = file.map(|path| match File::create_new(path) {
            Ok(file) => Ok((path.to_owned(), io::BufWriter::new(file))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(CliError::Input(InputError::Exists { path: path.to_owned() }))
            }
            Err(source) => Err(CliError::Input(InputError::Unreadable { path: path.to_owned(), source })),
        });
        Ok(Self { context, file: file.transpose()?, count: 0 })
    }

    pub(super) fn tell(
        &mut self,
        place: &Place,
        (device, intent): (Option<DeviceId>, Option<u64>),
        result: &str,
        detail: &str,
    ) -> Result<(), CliError> {
        self.count += 1;
        let file = place.file.to_string_lossy();
        let fault = Fault { file: &file, at: place.at, device, intent, result, detail };
        if let Some((_, list)) = &mut self.file {
            serde_json::to_writer(&mut *list, &fault).map_err(io::Error::from)?;
            list.write_all(b"\n")?;
        }
        if self.context.print.is_json() {
            self.context.print.json_line(&fault)?;
        } else if self.count <= super::SHOWN_MAX {
            let device = device.map(|device| format!(" {device}")).unwrap_or_default();
            let at = match place.at {
                At::Line(line) => format!("{file}:{line}"),
                At::Octet(octet) => format!("{file}, octet {octet}"),
            };
            self.context.print.note(&format!("{at}:{device} {result}: {detail}"));
        }
        Ok(())
    }

    /// Ends the list.
    pub(super) fn finish(self, option: &str) -> Result<(), CliError> {
        let hidden = self.count.saturating_sub(super::SHOWN_MAX);
        let print = self.context.print;
        match self.file {
            Some((path, list)) => {
                let file = list.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_all()?;
                print.note(&format!("{}: {} lines", path.display(), self.count));
            }
            None if hidden > 0 && !print.is_json() => {
                print.note(&format!("… and {hidden} more; {option} FILE or --output json has all"));
            }
            None => {}
        }
        Ok(())
    }
}

/// Tells how far it has come, on a terminal and in a log alike by lines.
pub(super) struct Progress<'a> {
    context: &'a Context,
    begun: Instant,
    told: Instant,
}

impl<'a> Progress<'a> {
    pub(super) fn begin(context: &'a Context) -> Self {
        let now = Instant::now();
        Self { context, begun: now, told: now }
    }

    /// `what` is told with how many of them there are each second, if it is time.
    pub(super) fn tell(&mut self, done: u64, what: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.context.print.is_json() || now - self.told < TELL_EVERY {
            return;
        }
        self.told = now;
        let ms = u64::try_from((now - self.begun).as_millis()).unwrap_or(u64::MAX).max(1);
        self.context.print.note(&format!("{done}, {} a second: {}", done.saturating_mul(1_000) / ms, what()));
    }
}

/// Reads on a thread of its own, which waits while enough parts are on their way.
pub(super) fn read<P: Send + 'static>(
    read: impl FnOnce(&mut dyn FnMut(P) -> bool) -> Result<(), CliError> + Send + 'static,
) -> mpsc::Receiver<Result<P, CliError>> {
    let (parts, read_parts) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read(&mut |part| parts.blocking_send(Ok(part)).is_ok()) {
            let _ = parts.blocking_send(Err(error));
        }
    });
    read_parts
}

/// Sends each part while others are on their way, and takes the answers in the order of the parts. After a fault nothing more is
/// sent, and what is on its way is waited for.
pub(super) async fn send<P, R: Send + 'static, F: Future<Output = Result<R, CliError>> + Send + 'static>(
    mut parts: mpsc::Receiver<Result<P, CliError>>,
    send: impl Fn(P) -> F,
    mut take: impl FnMut(R) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut on_its_way: VecDeque<tokio::task::JoinHandle<Result<R, CliError>>> = VecDeque::new();
    let mut fault = None;
    loop {
        while fault.is_none() && on_its_way.len() < IN_FLIGHT {
            match parts.recv().await {
                Some(Ok(part)) => on_its_way.push_back(tokio::spawn(send(part))),
                Some(Err(error)) => fault = Some(error),
                None => break,
            }
        }
        let Some(first) = on_its_way.pop_front() else { break };
        let answer = first.await.unwrap_or_else(|error| Err(CliError::Unfit(error.to_string())));
        if let Err(error) = answer.and_then(&mut take) {
            fault = fault.or(Some(error));
        }
    }
    fault.map_or(Ok(()), Err)
}

/// Uploads octets under their SHA-256.
pub(super) async fn upload(client: &crate::api::client::Client, octets: Vec<u8>) -> Result<Digest, ClientError> {
    let sha256 = Digest::of(&octets);
    let to = with_query("/v1/uploads", &[("sha256", Some(sha256.to_string()))]);
    let _: wire::Stored = client.put(&to, axum::body::Body::from(octets)).await?;
    Ok(sha256)
}

/// The files that are meant: those named, and of a directory the regular ones in it, by name.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<Arc<Path>>, InputError> {
    let mut all = Vec::new();
    for path in paths {
        let unreadable = |source| InputError::Unreadable { path: path.clone(), source };
        if !fs::metadata(path).map_err(unreadable)?.is_dir() {
            all.push(Arc::from(path.as_path()));
            continue;
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if entry.file_type().map_err(unreadable)?.is_file() {
                inside.push(Arc::from(entry.path()));
            }
        }
        inside.sort();
        all.extend(inside);
    }
    Ok(all)
}

/// A file that is read piece by piece.
pub(super) struct Source {
    path: Arc<Path>,
    file: BufReader<File>,
}

impl Source {
    pub(super) fn open(path: &Arc<Path>) -> Result<Self, InputError> {
        match File::open(path) {
            Ok(file) => Ok(Self { path: Arc::clone(path), file: BufReader::with_capacity(READ_LEN, file) }),
            Err(source) => Err(InputError::Unreadable { path: path.to_path_buf(), source }),
        }
    }

    fn unreadable(&self) -> impl Fn(io::Error) -> InputError + use<> {
        let path = self.path.to_path_buf();
        move |source| InputError::Unreadable { path: path.clone(), source }
    }

    /// The first octet; none if the file is empty.
    pub(super) fn first(&mut self) -> Result<Option<u8>, InputError> {
        let unreadable = self.unreadable();
        Ok(self.file.fill_buf().map_err(unreadable)?.first().copied())
    }

    /// Visits the lines, without what ends them; `None` for one that is longer than `len_max` octets.
    pub(super) fn lines(
        &mut self,
        len_max: u64,
        mut visit: impl FnMut(u64, Option<&[u8]>) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let unreadable = self.unreadable();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let len = self.file.by_ref().take(len_max + 1).read_until(b'\n', &mut line).map_err(&unreadable)?;
            if len == 0 {
                break;
            }
            let is_whole = line.last() == Some(&b'\n') || len as u64 <= len_max;
            if !is_whole {
                self.file.skip_until(b'\n').map_err(&unreadable)?;
            }
            visit(number, is_whole.then(|| line.trim_ascii()))?;
        }
        Ok(())
    }

    /// Visits things that say themselves where they end, each with the octet at which it begins. `len_of` is asked with at least
    /// `len_max` octets, or all that are left. Answers where it went no further, if that is not the end.
    pub(super) fn pieces<E>(
        &mut self,
        len_max: usize,
        len_of: impl Fn(&[u8]) -> Result<usize, E>,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), CliError>,
    ) -> Result<Option<(u64, E)>, CliError> {
        let unreadable = self.unreadable();
        let (mut held, mut from, mut octet) = (Vec::new(), 0, 0_u64);
        loop {
            if held.len() - from < len_max {
                held.drain(..from);
                from = 0;
                let wanted = (len_max + READ_LEN - held.len()) as u64;
                self.file.by_ref().take(wanted).read_to_end(&mut held).map_err(&unreadable)?;
                if held.is_empty() {
                    return Ok(None);
                }
            }
            match len_of(&held[from..]) {
                Ok(len) => {
                    visit(octet, &held[from..from + len])?;
                    from += len;
                    octet += len as u64;
                }
                Err(error) => return Ok(Some((octet, error))),
            }
        }
    }
}
