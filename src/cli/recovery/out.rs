//! Shell: where signed commands go: a folder of files with a manifest, files one by one, or stdout.

pub(in crate::cli) mod files;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::super::release::Folder;
use super::super::{CliError, Context};
use crate::api::wire::{Base64, Item, ItemOutcome};
use crate::domain::commands::container::{self, Fields, Header};
use crate::domain::commands::manifest::{Covering, Format as Lies};
use crate::domain::ledger::checkpoint::Checkpoint;
use crate::domain::ledger::note::Note;
use crate::domain::names::{DeviceId, RequestId};
use files::{Files, Order};

/// A file for each of more Devices than these takes longer than their signatures, and no tool lists such a folder: another format is to be
/// chosen, or this one by name.
pub const EACH_MAX: u64 = 100_000;

/// Commands of a file, if nobody says otherwise: 400 MB of them.
const FILE_SIZE: &str = "100000";

/// How commands lie where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Each in a file of its own, EUI64.bin
    Each,
    /// The container of signed commands (container.md)
    Container,
    /// A line of JSON each, the command in base64
    Ndjson,
    /// A line of hexadecimal each
    Hex,
}

impl Format {
    const fn lies(self) -> Lies {
        match self {
            Self::Each => Lies::Each,
            Self::Container => Lies::Container,
            Self::Ndjson => Lies::Ndjson,
            Self::Hex => Lies::Hex,
        }
    }
}

/// How much a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSize {
    /// Commands.
    Commands(u64),
    /// Octets, at least one command.
    Octets(u64),
}

impl FromStr for FileSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected a number of commands, such as 100000, or of octets, such as 256MiB, found {text:?}");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        let octets = |each: u64| number.checked_mul(each).map(Self::Octets).ok_or_else(wrong);
        match unit {
            "" => Ok(Self::Commands(number)),
            "KiB" => octets(1 << 10),
            "MiB" => octets(1 << 20),
            "GiB" => octets(1 << 30),
            _ => Err(wrong()),
        }
    }
}

/// How what goes out is to lie.
#[derive(Args, Clone, Copy, Debug)]
pub struct As {
    /// How signed commands lie there
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// What a file holds: a number of commands, or of octets with KiB, MiB or GiB
    #[arg(long, value_name = "N", default_value = FILE_SIZE)]
    pub file_size: FileSize,
}

/// Where signed commands go.
pub(in crate::cli) enum Out {
    /// A file each.
    Each(Folder),
    /// Files with a manifest.
    Files(Box<Files>),
    /// Standard output.
    Stdout(Box<Stdout>),
    /// `settle --action leave` signs nothing.
    Nowhere,
}

/// Commands on standard output, in some form.
pub(in crate::cli) struct Stdout {
    format: Lies,
    header: Option<Header>,
    buffer: Vec<u8>,
    container: Option<(container::Writer, ring::digest::Context)>,
}

impl Stdout {
    /// Octets that go out together.
    const LEN: usize = 256 * 1024;

    fn flush(&mut self, context: &Context) -> Result<(), CliError> {
        if let Some((_, hash)) = &mut self.container {
            hash.update(&self.buffer);
        }
        context.print.octets(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl Out {
    /// Opens it before anything is asked: what stands in its way is told while nothing was signed yet. `by_default` is the format that a
    /// folder has if none is said.
    pub(in crate::cli) fn open(
        out: Option<&Path>,
        how: As,
        by_default: Format,
        request: Option<RequestId>,
        order: Order,
    ) -> Result<Self, CliError> {
        let Some(path) = out else { return Ok(Self::Nowhere) };
        if path.as_os_str() == "-" {
            let format = how.format.unwrap_or(Format::Ndjson).lies();
            if format == Lies::Each {
                return Err(CliError::Unfit(
                    "--format each makes files, and stdout is one stream; choose ndjson, container or hex, or a folder"
                        .to_owned(),
                ));
            }
            return Ok(Self::Stdout(Box::new(Stdout { format, header: None, buffer: Vec::new(), container: None })));
        }
        match how.format.unwrap_or(by_default) {
            Format::Each => Folder::open(path).map(Self::Each),
            format @ (Format::Container | Format::Ndjson | Format::Hex) => {
                Files::open(path, format.lies(), how.file_size, request, order)
                    .map(|files| Self::Files(Box::new(files)))
            }
        }
    }

    /// After which intent a fetch goes on where one was cut.
    pub(in crate::cli) fn after(&self) -> Option<u64> {
        match self {
            Self::Files(files) => files.after(),
            Self::Each(_) | Self::Stdout(_) | Self::Nowhere => None,
        }
    }

    /// Whose commands did not come before, and are asked for by name once the others came.
    pub(in crate::cli) fn take_awaited(&mut self) -> BTreeSet<DeviceId> {
        match self {
            Self::Files(files) => files.take_awaited(),
            Self::Each(_) | Self::Stdout(_) | Self::Nowhere => BTreeSet::new(),
        }
    }

    /// A Device came without its command, which may yet come: a later fetch into the same folder asks for it again.
    pub(in crate::cli) fn awaits(&mut self, device: DeviceId) {
        match self {
            Self::Files(files) => files.awaits(device),
            Self::Each(_) | Self::Stdout(_) | Self::Nowhere => {}
        }
    }

    /// Refuses an export that is older than what lies in a folder.
    pub(in crate::cli) fn covered_by(&self, size: u64) -> Result<(), CliError> {
        match self {
            Self::Files(files) => files.covered_by(size),
            Self::Each(_) | Self::Stdout(_) | Self::Nowhere => Ok(()),
        }
    }

    /// What the commands are from. A folder may be told the same again.
    pub(in crate::cli) fn begin(&mut self, header: &Header) -> Result<(), CliError> {
        match self {
            Self::Files(files) => files.begin(header),
            Self::Stdout(stdout) => {
                if stdout.format == Lies::Container {
                    let writer = container::Writer::begin(header, &mut stdout.buffer);
                    stdout.container = Some((writer, ring::digest::Context::new(&ring::digest::SHA256)));
                }
                stdout.header = Some(header.clone());
                Ok(())
            }
            Self::Each(_) | Self::Nowhere => Ok(()),
        }
    }

    /// Whether a command is there already, of before: it is not put again.
    pub(in crate::cli) fn has(&self, intent: u64) -> bool {
        match self {
            Self::Files(files) => files.has(intent),
            Self::Each(_) | Self::Stdout(_) | Self::Nowhere => false,
        }
    }

    /// Takes a command.
    pub(in crate::cli) fn command(&mut self, context: &Context, fields: Fields, octets: &[u8]) -> Result<(), CliError> {
        match self {
            Self::Each(folder) => folder.put(fields.device, octets),
            Self::Files(files) => files.put(fields, octets),
            Self::Stdout(stdout) => {
                match (&mut stdout.container, &stdout.header) {
                    (Some((writer, _)), _) => writer.command(fields, octets, &mut stdout.buffer),
                    (None, Some(header)) => line(stdout.format, header, fields, octets, &mut stdout.buffer),
                    (None, None) => {}
                }
                // A pipe may feed what waits for each line.
                if stdout.container.is_none() || stdout.buffer.len() >= Stdout::LEN {
                    stdout.flush(context)
                } else {
                    Ok(())
                }
            }
            Self::Nowhere => Ok(()),
        }
    }

    /// A line of JSON that goes the way of the commands: with what was not signed. Answers whether it did.
    pub(in crate::cli) fn line(&mut self, context: &Context, line: &[u8]) -> Result<bool, CliError> {
        let Self::Stdout(stdout) = self else { return Ok(false) };
        match (&mut stdout.container, stdout.format) {
            (Some((writer, _)), _) => writer.line(line, &mut stdout.buffer),
            (None, Lies::Ndjson) => stdout.buffer.extend_from_slice(line),
            (None, Lies::Hex | Lies::Each | Lies::Container) => return Ok(false),
        }
        stdout.flush(context)?;
        Ok(true)
    }

    /// All that came is on the disk. Only what is whole, with nothing left to fetch, gets a manifest, with the checkpoint over it.
    pub(in crate::cli) fn finish(
        self,
        context: &Context,
        is_whole: bool,
        covering: Option<Covering>,
    ) -> Result<(), CliError> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Each(folder) => folder.finish(),
            Self::Files(files) => match covering.filter(|_| is_whole) {
                Some(covering) => files.finish(covering),
                None => files.keep(),
            },
            Self::Stdout(mut stdout) => {
                if let Some((writer, _)) = stdout.container.clone().filter(|_| is_whole) {
                    writer.end_before_digest(&mut stdout.buffer);
                    stdout.flush(context)?;
                    if let Some((_, hash)) = stdout.container.take() {
                        stdout.buffer.extend_from_slice(hash.finish().as_ref());
                    }
                }
                stdout.flush(context)
            }
        }
    }
}

/// The newest checkpoint: what was handed over lies under it.
pub(super) async fn covering(context: &Context) -> Result<Covering, CliError> {
    let note = context.client.text("/v1/ledger/checkpoint").await?;
    covering_of(note.as_bytes()).map_err(|why| CliError::Unfit(format!("the daemon's checkpoint: {why}")))
}

/// What a signed checkpoint says.
pub(in crate::cli) fn covering_of(note: &[u8]) -> Result<Covering, String> {
    let note = Note::parse(note).map_err(|error| error.to_string())?;
    let head = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?.head();
    Ok(Covering { size: head.size, root: head.root })
}

/// Appends a command as a line, in hexadecimal or JSON.
fn line(format: Lies, header: &Header, fields: Fields, octets: &[u8], out: &mut Vec<u8>) {
    if format == Lies::Hex {
        let from = out.len();
        out.resize(from + 2 * octets.len(), 0);
        hex::encode_to_slice(octets, &mut out[from..]).expect("two digits for each octet");
        out.push(b'\n');
        return;
    }
    let Fields { device, counter, intent, template } = fields;
    let item = Item {
        device,
        template: header.templates.get(usize::from(template)).cloned(),
        counter: Some(counter),
        outcome: ItemOutcome::Signed,
        command: Some(Base64(octets.to_vec())),
        intent: Some(intent),
        reasons: Vec::new(),
    };
    item.append_line(out);
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Each => "each",
            Self::Container => "container",
            Self::Ndjson => "ndjson",
            Self::Hex => "hex",
        })
    }
}

/// The folder for one determination of several.
pub(in crate::cli) fn below(path: &Path, name: &str) -> PathBuf {
    path.join(name)
}

#[cfg(test)]
mod tests;
