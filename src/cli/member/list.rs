//! Shell: `smkictl determination devices`: makes a device list of what a spreadsheet or a database gave out, and says whatever it
//! changed. It sorts ten million Devices in some 100 MB: in runs of a million on the disk, which are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::files::{self, write_new_with};
use super::page::Page;
use super::{MemberError, Seat};
use crate::api::failure::Exit;
use crate::domain::determination::devices::{DeviceFaultKind, DeviceFaults, DeviceListReader, DeviceRow, FAULTS_MAX};
use crate::domain::determination::document::{DeviceList, TEMPLATES_MAX};
use crate::domain::determination::rough::{ROUGH_LEN_MAX, Tidied};
use crate::domain::names::{DeviceId, Eui64, TemplateName};

/// Rows that are sorted at a time: 48 octets each.
const RUN_LEN: usize = 1 << 20;
/// Octets of a row on the disk.
const ROW_LEN: usize = 8 + 8 + 8 + 1 + 8;

/// Arguments of `smkictl determination devices`.
#[derive(Args, Debug)]
pub struct Devices {
    /// A Device a line: EUI-64, template and counter, separated by commas, in any order
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
    /// Where the device list goes; without it, only what would be changed is told
    #[arg(long, value_name = "LIST")]
    pub out: Option<PathBuf>,
    /// The template of Devices whose line names none
    #[arg(long, value_name = "NAME")]
    pub template: Option<TemplateName>,
    /// How many faults are told one by one
    #[arg(long, value_name = "N", default_value_t = FAULTS_MAX)]
    pub faults: usize,
}

/// A Device, as it was read. Rows are sorted by Device, then by line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    device: u64,
    line: u64,
    template: usize,
    counter: Option<u64>,
}

impl Row {
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let Self { device, line, template, counter } = *self;
        for number in [device, line, template as u64] {
            to.write_all(&number.to_be_bytes())?;
        }
        to.write_all(&[u8::from(counter.is_some())])?;
        to.write_all(&counter.unwrap_or(0).to_be_bytes())
    }

    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut octets = [0; ROW_LEN];
        from.read_exact(&mut octets)?;
        let number = |at: usize| u64::from_be_bytes(octets[at..at + 8].try_into().expect("eight octets"));
        let template = usize::try_from(number(16)).expect("written from one");
        Ok(Self { device: number(0), line: number(8), template, counter: (octets[24] == 1).then(|| number(25)) })
    }

    fn id(&self) -> DeviceId {
        DeviceId(Eui64(self.device.to_be_bytes()))
    }
}

/// What was made of a file.
struct Made {
    list: DeviceList,
    changed: Changed,
}

/// What is other in the list than in the file.
struct Changed {
    tidied: Tidied,
    /// Lines whose Device is below one before it.
    moved: u64,
    /// Lines that got the template of all.
    template: u64,
    /// Lines that say again what one before them says.
    again: u64,
}

/// Does it.
pub fn run(args: &Devices, seat: &mut Seat<'_>) -> Result<Exit, MemberError> {
    let made = make(args, RUN_LEN)?;
    let Made { list, changed: Changed { tidied, moved, template, again } } = made;
    let Tidied { empty, header, mark, carriage_return, digits, around } = tidied;
    let changes = [
        ("byte order mark dropped", mark),
        ("header line dropped", header),
        ("empty lines dropped", empty),
        ("carriage returns dropped", carriage_return),
        ("EUI-64s rewritten as 16 upper-case digits", digits),
        ("lines with blanks, quotes or empty fields around", around),
        ("lines that got the template of --template", template),
        ("lines out of order, sorted", moved),
        ("lines dropped that say again what another says", again),
    ];
    let mut page = Page::default();
    page.row("list", args.out.as_ref().map_or_else(|| "not written: no --out".into(), |out| out.display().to_string()));
    page.row("Devices", list.count);
    page.row("SHA-256", list.sha256);
    page.row("root", list.root);
    for (what, count) in changes.iter().filter(|(_, count)| *count > 0) {
        page.row("changed", format!("{what}: {count}"));
    }
    let is_same = changes.iter().all(|(_, count)| *count == 0);
    if is_same {
        page.row("changed", "nothing: the file is a device list as it is");
    }
    let json = json!({
        "list": args.out, "devices": list.count, "sha256": list.sha256, "root": list.root,
        "changed": {
            "byte_order_mark": mark, "header": header, "empty": empty, "carriage_return": carriage_return, "digits": digits,
            "around": around, "template": template, "moved": moved, "again": again,
        },
    });
    seat.answer(&json, &page)?;
    Ok(Exit::Done)
}

/// Reads, sorts in runs of so many, merges and writes.
fn make(args: &Devices, run_len: usize) -> Result<Made, MemberError> {
    let folder = args.out.as_ref().map_or(Path::new("."), |out| out.parent().unwrap_or(Path::new(".")));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut rough = Rough::read(args, folder, run_len)?;
    let refused = |faults: &DeviceFaults| MemberError::Devices {
        path: args.from.clone(),
        faults: faults.to_string().replace('\n', "\n  "),
    };
    if !rough.faults.is_empty() {
        return Err(refused(&rough.faults));
    }
    let mut outcome = None;
    let mut write = |to: &mut dyn Write| {
        match rough.merge(to)?.finish() {
            Ok(list) => outcome = Some(list),
            Err(faults) if rough.faults.is_empty() => rough.faults = faults,
            Err(_) => {}
        }
        if rough.faults.is_empty() { Ok(()) } else { Err(io::Error::other("refused")) }
    };
    let written = match &args.out {
        Some(out) => write_new_with(out, |file| write(file)),
        None => write(&mut io::sink()).map_err(|source| MemberError::Write { path: folder.to_owned(), source }),
    };
    if !rough.faults.is_empty() {
        return Err(refused(&rough.faults));
    }
    written?;
    let list = outcome.expect("a list without faults");
    Ok(Made { list, changed: rough.changed })
}

/// A file that was read: its rows in sorted runs.
struct Rough {
    runs: Vec<BufReader<File>>,
    last: Vec<Row>,
    templates: Vec<TemplateName>,
    changed: Changed,
    faults: DeviceFaults,
}

impl Rough {
    fn read(args: &Devices, folder: &Path, run_len: usize) -> Result<Self, MemberError> {
        let unreadable = |source| MemberError::Read { path: args.from.clone(), source };
        let unwritable = |source| MemberError::Write { path: folder.to_owned(), source };
        let changed = Changed { tidied: Tidied::default(), moved: 0, template: 0, again: 0 };
        let faults = DeviceFaults::up_to(args.faults);
        let mut rough = Self { runs: Vec::new(), last: Vec::new(), templates: Vec::new(), changed, faults };
        let mut file = BufReader::with_capacity(files::PIECE_LEN, File::open(&args.from).map_err(unreadable)?);
        let (mut line, mut before) = (Vec::new(), 0);
        for number in 1.. {
            line.clear();
            let most = ROUGH_LEN_MAX as u64 + 1;
            if file.by_ref().take(most).read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
                break;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            } else if line.len() as u64 == most {
                // The rest of a line that is too long.
                file.skip_until(b'\n').map_err(unreadable)?;
            }
            match rough.row(args, number, &line) {
                Ok(Some(row)) => {
                    rough.changed.moved += u64::from(row.device < before);
                    before = before.max(row.device);
                    rough.last.push(row);
                    if rough.last.len() == run_len {
                        rough.put_away(folder).map_err(unwritable)?;
                    }
                }
                Ok(None) => {}
                Err(kind) => rough.faults.add(number, kind),
            }
        }
        rough.last.sort_unstable();
        Ok(rough)
    }

    fn row(&mut self, args: &Devices, number: u64, line: &[u8]) -> Result<Option<Row>, DeviceFaultKind> {
        let Some(read) = self.changed.tidied.read(number, line)? else { return Ok(None) };
        let name = match (read.template, &args.template) {
            (Some(name), _) => name,
            (None, Some(name)) => {
                self.changed.template += 1;
                name.clone()
            }
            (None, None) => return Err(DeviceFaultKind::NoTemplate { found: read.device }),
        };
        let template = match self.templates.iter().position(|known| *known == name) {
            Some(template) => template,
            None if self.templates.len() < TEMPLATES_MAX => {
                self.templates.push(name);
                self.templates.len() - 1
            }
            None => return Err(DeviceFaultKind::Templates { max: TEMPLATES_MAX, found: name }),
        };
        let device = u64::from_be_bytes(*read.device.0.octets());
        Ok(Some(Row { device, line: number, template, counter: read.counter }))
    }

    /// Sorts what was read last, and puts it on the disk until it is merged. Nobody finds it there: the file has no name.
    fn put_away(&mut self, folder: &Path) -> io::Result<()> {
        self.last.sort_unstable();
        let mut run = BufWriter::with_capacity(files::PIECE_LEN, tempfile::tempfile_in(folder)?);
        self.last.drain(..).try_for_each(|row| row.write(&mut run))?;
        let mut run = run.into_inner()?;
        run.rewind()?;
        self.runs.push(BufReader::with_capacity(files::PIECE_LEN, run));
        Ok(())
    }

    /// Writes the list, and reads it as it is written.
    fn merge(&mut self, to: &mut dyn Write) -> io::Result<DeviceListReader> {
        let mut reader = DeviceListReader::new(&self.templates, u64::MAX);
        let (mut to, mut text) = (BufWriter::with_capacity(files::PIECE_LEN, to), Vec::new());
        let mut next = BinaryHeap::with_capacity(self.runs.len() + 1);
        let mut last = std::mem::take(&mut self.last).into_iter();
        let own = self.runs.len();
        for at in 0..=own {
            next.extend(self.take(at, &mut last)?.map(|row| Reverse((row, at))));
        }
        let mut before: Option<Row> = None;
        while let Some(Reverse((row, at))) = next.pop() {
            next.extend(self.take(at, &mut last)?.map(|row| Reverse((row, at))));
            match before.filter(|before| before.device == row.device) {
                Some(same) if (same.template, same.counter) == (row.template, row.counter) => self.changed.again += 1,
                Some(other) => {
                    self.faults.add(row.line, DeviceFaultKind::Contradicts { found: row.id(), line: other.line });
                }
                None => {
                    text.clear();
                    let listed = DeviceRow { device: row.id(), template: row.template, counter: row.counter };
                    listed.write(&self.templates, &mut text)?;
                    reader.feed(&text, |_| {});
                    to.write_all(&text)?;
                    before = Some(row);
                }
            }
        }
        to.flush()?;
        Ok(reader)
    }

    /// The next row of a run; of those that stayed in memory, behind the runs.
    fn take(&mut self, run: usize, last: &mut std::vec::IntoIter<Row>) -> io::Result<Option<Row>> {
        let Some(run) = self.runs.get_mut(run) else { return Ok(last.next()) };
        if run.fill_buf()?.is_empty() { Ok(None) } else { Row::read(run).map(Some) }
    }
}

#[cfg(test)]
mod tests;
