//! Shell: `smkictl recovery check`: a folder of commands against its manifest, and against an export of the ledger.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::super::contingency_command::{Generation, Generations};
use super::super::exported::Exported;
use super::super::input::{self, InputError};
use super::super::{CliError, Context, Exit};
use super::out::files::{MANIFEST_LEN_MAX, digest_of};
use crate::api::wire::Item;
use crate::domain::commands::container::{self, Fields, Header, Reader, Record};
use crate::domain::commands::manifest::{self, Format, Manifest, NAME, PARTIAL_NAME, Ranges};
use crate::domain::commands::pairs::{Pairs, Settled, Step, Whose};
use crate::domain::gbcs::{SIGNATURE_PART_LEN, SymmetricKey, take_symmetric_key};
use crate::domain::ledger::entry::{Batch, DeterminationRecorded, Genesis, Intent, KeyMade, KeyRecord, SignResult};
use crate::domain::ledger::glance::Glance;
use crate::domain::names::{DeviceId, Digest};

/// Octets of a file that are read at a time.
const PIECE_LEN: usize = 256 * 1024;

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// An export of the ledger, to compare each command with what was recorded of it
    #[arg(long, value_name = "EXPORT")]
    ledger: Option<PathBuf>,
}

/// What was checked.
#[derive(Serialize)]
struct Checked {
    files: usize,
    commands: u64,
    determination: String,
    request: Option<String>,
    /// Devices whose commands were unknown or withheld when it was fetched.
    awaited: usize,
    /// Whether the commands were compared with the ledger.
    ledger: bool,
}

/// Why a folder is not good: what is wrong, or what cannot be read.
enum Bad {
    Wrong(String),
    Failed(CliError),
}

impl From<CliError> for Bad {
    fn from(error: CliError) -> Self {
        Self::Failed(error)
    }
}

fn wrong<T>(path: &Path, what: impl std::fmt::Display) -> Result<T, Bad> {
    Err(Bad::Wrong(format!("{}: {what}", path.display())))
}

impl Check {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, CliError> {
        let checked = match self.check() {
            Ok(checked) => checked,
            Err(Bad::Failed(error)) => return Err(error),
            Err(Bad::Wrong(why)) => {
                context.print.error(&why);
                return Ok(Exit::Unverified);
            }
        };
        context.print.answer(&checked, |text| {
            text.row("commands", checked.commands)
                .row("files", checked.files)
                .row("determination", &checked.determination)
                .some("request", checked.request.as_ref())
                .some("awaited", (checked.awaited > 0).then(|| awaited(checked.awaited)).as_ref())
                .row("ledger", if checked.ledger { "agrees with it" } else { "not compared; --ledger EXPORT does" });
        })?;
        Ok(Exit::Done)
    }

    fn check(&self) -> Result<Checked, Bad> {
        let path = self.folder.join(NAME);
        let octets = match input::file(&path, MANIFEST_LEN_MAX) {
            Err(InputError::Unreadable { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && self.folder.join(PARTIAL_NAME).exists() =>
            {
                return wrong(
                    &self.folder,
                    "it is not whole yet: it has no manifest.json, and manifest.partial says so",
                );
            }
            octets => octets.map_err(CliError::from)?,
        };
        let manifest = Manifest::parse(&octets).or_else(|error| wrong(&path, error))?;
        let mut ledger = match &self.ledger {
            Some(export) => Some(Exported::open(export)?),
            None => None,
        };
        let of = &manifest.folder.of;
        let generations = match &ledger {
            Some(ledger) => Some(check_key(ledger, of)?),
            None => None,
        };
        let generation = generations.as_ref().and_then(|generations| generations.get(&of.key));
        for file in &manifest.files {
            self.check_file(&manifest, file, ledger.as_mut(), generation)?;
        }
        for entry in fs::read_dir(&self.folder).map_err(CliError::from)? {
            let name = entry.map_err(CliError::from)?.file_name();
            let name = name.to_string_lossy();
            if name != NAME && !manifest.files.iter().any(|file| *file.name == *name) {
                return wrong(&self.folder.join(&*name), "its manifest does not name it");
            }
        }
        Ok(Checked {
            files: manifest.files.len(),
            commands: manifest.commands,
            determination: of.determination.to_string(),
            request: of.request.map(|request| request.to_string()),
            awaited: manifest.awaited(),
            ledger: ledger.is_some(),
        })
    }

    fn check_file(
        &self,
        manifest: &Manifest,
        file: &manifest::File,
        ledger: Option<&mut Exported>,
        generation: Option<&Generation>,
    ) -> Result<(), Bad> {
        let path = self.folder.join(&*file.name);
        let Some((octets, sha256)) = digest_of(&path)? else { return wrong(&path, "it is missing") };
        if (octets, sha256) != (file.octets, file.sha256) {
            let (expected, len) = (file.sha256, file.octets);
            return wrong(
                &path,
                format!("expected {len} octets of SHA-256 {expected}, found {octets} of {sha256}; it was changed"),
            );
        }
        let mut found = Ranges::default();
        let mut said: BTreeMap<u64, Said> = BTreeMap::new();
        let (mut count, mut symmetric) = (0, None);
        let mut take = |fields: Option<Fields>, command: &[u8]| {
            let at = count;
            count += 1;
            let Some(fields) = fields else { return Ok(()) };
            let fault = |what: String| Err(format!("command {at}: {what}"));
            if let Err(error) = container::check_command(fields, command) {
                return fault(error.to_string());
            }
            if found.has(fields.intent) {
                return fault(format!("intent {} has a command before it", fields.intent));
            }
            found.insert(fields.intent);
            let of = match generation {
                None => Said::of(fields, command.get(1..end_of(command)).unwrap_or_default(), command),
                // Recorded of it is what it is without its symmetric key.
                Some(generation) => {
                    let unfilled = without_key(command, generation, &mut symmetric);
                    let unfilled = unfilled.map_err(|why| format!("command {at}: {why}"))?;
                    Said::of(fields, unfilled.get(1..).unwrap_or_default(), command)
                }
            };
            said.insert(fields.intent, of);
            Ok(())
        };
        let read = match manifest.folder.format {
            Format::Container => read_container(&path, &manifest.folder.of, &mut take),
            Format::Ndjson => read_lines(&path, &manifest.folder.of, false, &mut take),
            Format::Hex | Format::Each => read_lines(&path, &manifest.folder.of, true, &mut take),
        };
        read?;
        if count != file.commands {
            return wrong(&path, format!("expected {} commands, found {count}", file.commands));
        }
        // A line of hexadecimal does not say its intent.
        if manifest.folder.format != Format::Hex && found.ranges() != file.intents {
            return wrong(&path, "its commands are not those of the intents that the manifest says");
        }
        match ledger {
            Some(ledger) if manifest.folder.format != Format::Hex => {
                compare(&path, &said, file, &manifest.folder.of, ledger)
            }
            Some(_) => wrong(
                &path,
                "hexadecimal lines do not say their intents: the ledger cannot be asked; fetch a container",
            ),
            None => Ok(()),
        }
    }
}

fn awaited(devices: usize) -> String {
    format!(
        "{devices} Devices had no command yet: unknown, or withheld; the same fetch into the folder asks for them again"
    )
}

/// What is kept of a command, to compare it with the ledger.
struct Said {
    device: DeviceId,
    counter: u64,
    /// SHA-256 of what was signed.
    command: Digest,
    /// SHA-256 of the signature.
    signature: Digest,
}

impl Said {
    /// `recorded` is what its intent has the digest of.
    fn of(fields: Fields, recorded: &[u8], command: &[u8]) -> Self {
        Self {
            device: fields.device,
            counter: fields.counter,
            command: Digest::of(recorded),
            signature: Digest::of(command.get(end_of(command) + 1..).unwrap_or_default()),
        }
    }
}

/// Where the signature of a command begins.
const fn end_of(command: &[u8]) -> usize {
    command.len().saturating_sub(SIGNATURE_PART_LEN)
}

/// A Contingency command without its symmetric key, which is the one of its generation. `known` is the key that was found so last.
fn without_key(command: &[u8], generation: &Generation, known: &mut Option<SymmetricKey>) -> Result<Vec<u8>, String> {
    let (key, unfilled) = take_symmetric_key(command).map_err(|error| error.to_string())?;
    if known.as_ref().is_none_or(|known| known.octets() != key.octets()) {
        if !generation.is_of(&key) {
            return Err(
                "its symmetric key does not unwrap the field that was made for the Root OCA Certificate".to_owned()
            );
        }
        *known = Some(key);
    }
    Ok(unfilled)
}

type Take<'a> = dyn FnMut(Option<Fields>, &[u8]) -> Result<(), String> + 'a;

fn read_container(path: &Path, of: &Header, take: &mut Take<'_>) -> Result<(), Bad> {
    let mut file = File::open(path).map_err(CliError::from)?;
    let (mut reader, mut piece) = (Reader::of_file(), vec![0; PIECE_LEN]);
    loop {
        let len = file.read(&mut piece).map_err(CliError::from)?;
        if len == 0 {
            return reader.finish().or_else(|error| wrong(path, error));
        }
        reader.feed(&piece[..len]);
        while let Some(record) = reader.record().or_else(|error| wrong(path, error))? {
            match record {
                Record::Header(header) if header != *of => {
                    return wrong(path, "its header is not what the manifest says the folder is of");
                }
                Record::Command(fields, octets) => {
                    take(Some(fields), reader.octets(&octets)).or_else(|why| wrong(path, why))?;
                }
                Record::Header(_) | Record::Line(_) | Record::End(_) => {}
            }
        }
    }
}

fn read_lines(path: &Path, of: &Header, is_hex: bool, take: &mut Take<'_>) -> Result<(), Bad> {
    let mut file = BufReader::new(File::open(path).map_err(CliError::from)?);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(CliError::from)? == 0 {
            return Ok(());
        }
        number += 1;
        let fault = |what: String| wrong(path, format!("line {number}: {what}"));
        let Some(text) = line.strip_suffix(b"\n") else { return fault("it has no end".to_owned()) };
        if is_hex {
            let Ok(octets) = hex::decode(text) else { return fault("expected hexadecimal".to_owned()) };
            take(None, &octets).or_else(fault)?;
            continue;
        }
        let item: Item = match serde_json::from_slice(text) {
            Ok(item) => item,
            Err(error) => return fault(error.to_string()),
        };
        let template = item.template.as_ref().and_then(|name| of.template(name));
        let (Some(counter), Some(intent), Some(template), Some(command)) =
            (item.counter, item.intent, template, &item.command)
        else {
            return fault("expected a command with its counter, intent and template".to_owned());
        };
        take(Some(Fields { device: item.device, counter, intent, template }), &command.0).or_else(fault)?;
    }
}

/// The key that the folder names is the determination's, and the ledger's. Answers what is known of contingency keys by then.
fn check_key(ledger: &Exported, of: &Header) -> Result<Generations, Bad> {
    let (mut key, mut determined, mut generations) = (None, false, Generations::default());
    ledger.leaves(0..ledger.head().size, &mut |index, leaf| {
        let Some(glance) = Glance::at(leaf) else { return Ok(ControlFlow::Continue(())) };
        generations.entry(&glance, ledger).map_err(|why| CliError::Unfit(format!("entry {index}: {why}")))?;
        let is_ours = |record: &KeyRecord| record.label == of.key && record.spki_sha256 == of.spki_sha256;
        if glance.kind == b"genesis" {
            let genesis: Option<Genesis> = glance.read().ok();
            if genesis.as_ref().is_some_and(|genesis| genesis.origin != of.origin) {
                return Ok(ControlFlow::Break(()));
            }
            key = genesis.and_then(|genesis| genesis.keys.into_iter().find(is_ours));
        } else if glance.kind == b"key-made" {
            key = key.take().or(glance.read().ok().map(|KeyMade { key }| key).filter(is_ours));
        } else if glance.kind == b"determination-recorded" {
            let recorded: Option<DeterminationRecorded> = glance.read().ok();
            determined |= recorded.is_some_and(|recorded| recorded.determination == of.determination);
        }
        let both = key.is_some() && determined;
        Ok(if both { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if key.is_some() && determined {
        Ok(generations)
    } else {
        Err(Bad::Wrong(format!(
            "the export is of another ledger, or has no key {} of SHA-256 {} or no determination {}",
            of.key, of.spki_sha256, of.determination
        )))
    }
}

/// Compares the commands of a file with their intents and outcomes.
fn compare(
    path: &Path,
    said: &BTreeMap<u64, Said>,
    file: &manifest::File,
    of: &Header,
    ledger: &mut Exported,
) -> Result<(), Bad> {
    let mut left: BTreeMap<u64, &Said> = said.iter().map(|(intent, said)| (*intent, said)).collect();
    let whose = |batch: &Batch| {
        let is_asked =
            batch.determination == of.determination && of.request.is_none_or(|request| request == batch.request);
        if is_asked { Whose::Asked } else { Whose::Other }
    };
    let (mut pairs, mut seen, mut fault) = (Pairs::default(), 0_u64, None);
    let ledger = &*ledger;
    ledger.leaves(file.first_intent..ledger.head().size, &mut |index, leaf| {
        let step = Glance::at(leaf).and_then(|glance| Step::at(index, &glance).ok().flatten());
        let found = match step {
            None => Ok(()),
            Some(Step::Batch(at, batch)) => {
                pairs.batch(at, whose(&batch), batch.determination);
                Ok(())
            }
            Some(Step::Intent(at, intent)) => {
                if pairs.whose(intent.batch).is_none() {
                    let batch = batch(ledger, intent.batch)?;
                    if let Some(batch) = batch {
                        pairs.batch(intent.batch, whose(&batch), batch.determination);
                    }
                }
                let agrees = said.get(&at).map_or(Ok(()), |said| {
                    seen += 1;
                    agrees(at, &intent, said, pairs.whose(intent.batch))
                });
                pairs.intent(at, intent, ());
                agrees
            }
            Some(Step::Outcome(outcome)) => {
                pairs.outcome(outcome);
                std::iter::from_fn(|| pairs.settled()).try_for_each(|settled| settles(&settled, &mut left))
            }
        };
        if let Err(why) = found {
            fault = Some(why);
            return Ok(ControlFlow::Break(()));
        }
        Ok(if left.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if let Some(why) = fault {
        return wrong(path, why);
    }
    if let Some((intent, _)) = left.first_key_value() {
        return wrong(path, format!("the export has no signed outcome of intent {intent}"));
    }
    if seen != said.len() as u64 {
        return wrong(path, format!("{} of its commands have no intent in the export", said.len() as u64 - seen));
    }
    Ok(())
}

/// What an intent says is what its command is.
fn agrees(at: u64, intent: &Intent, said: &Said, whose: Option<Whose>) -> Result<(), String> {
    if (intent.device, intent.counter, intent.command) != (said.device, said.counter, said.command) {
        return Err(format!("intent {at} is of other octets than its command"));
    }
    if whose != Some(Whose::Asked) {
        return Err(format!("batch {} is of another determination or request", intent.batch));
    }
    Ok(())
}

/// What became of the intent of a command.
fn settles(settled: &Settled, left: &mut BTreeMap<u64, &Said>) -> Result<(), String> {
    let SignResult::Signed(signature) = settled.result else { return Ok(()) };
    match left.remove(&settled.place) {
        Some(said) if said.signature != signature => {
            Err(format!("the outcome of intent {} is another signature than its command's", settled.signed_as))
        }
        Some(_) | None => Ok(()),
    }
}

/// The batch that stands there, if one does.
fn batch(ledger: &Exported, index: u64) -> Result<Option<Batch>, CliError> {
    let mut found = None;
    ledger.leaves(index..index.saturating_add(1), &mut |_, leaf| {
        let glance = Glance::at(leaf).filter(|glance| glance.kind == b"batch");
        found = glance.and_then(|glance| glance.read().ok());
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}
