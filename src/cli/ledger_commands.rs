//! Shell: `smkictl ledger commands EXPORT`: the signed commands again, years later, from an export alone.
//!
//! Templates are in the determination's document, Device and counter in the intent, the signature is released. Each command is compared with the
//! digest of its intent, and its signature with that of its outcome. The certificate of the key is the one of then.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::contingency_command::{ContingencyCommand, Generations};
use super::exported::Exported;
use super::recovery::out::files::Order;
use super::recovery::out::{As, Format, Out, below};
use super::{CliError, Context, Exit};
use crate::domain::commands::container::{Fields, Header};
use crate::domain::commands::pairs::{Pairs, Settled, Step, Whose};
use crate::domain::commands::{CommandOctets, rebuild, rebuilt_len_max};
use crate::domain::determination::document::{Determination, Schedule};
use crate::domain::fold::{self, book::read_policy};
use crate::domain::gbcs::{SIGNATURE_PART_LEN, Template};
use crate::domain::ledger::entry::{
    Batch, CertificateImported, DeterminationRecorded, Genesis, Intent, ScheduleRecorded, SignResult,
};
use crate::domain::ledger::glance::Glance;
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, Origin, PartyId, RequestId, TemplateName};

/// Commands that are made together: what is read of the entries is read again where it was left.
const SETTLED_MAX: usize = 4_096;

/// Arguments of `commands`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true).multiple(true).args(["determination", "request", "device"])))]
pub struct LedgerCommands {
    /// The export
    #[arg(value_name = "EXPORT")]
    export: PathBuf,
    /// Those under this determination
    #[arg(long, value_name = "ID")]
    determination: Option<DeterminationId>,
    /// Those of this request, or job
    #[arg(long, value_name = "ID")]
    request: Option<RequestId>,
    /// Those for this Device
    #[arg(long, value_name = "EUI64")]
    device: Option<DeviceId>,
    /// Where they go: a directory, or `-` for stdout. Without --determination and --request the directory gets one below it for each determination
    #[arg(long, value_name = "DIR|-")]
    out: PathBuf,
    #[command(flatten)]
    how: As,
    #[command(flatten)]
    contingency: ContingencyCommand,
}

/// What was made.
#[derive(Default, Serialize)]
struct Made {
    commands: u64,
    /// Signed, and not released: the export has no signature of them.
    not_released: u64,
}

/// What a determination says.
struct Determined {
    key: Option<(KeyLabel, Digest)>,
    templates: BTreeMap<TemplateName, Arc<Template>>,
}

/// What an intent was made of at its time.
struct MadeOf {
    determination: DeterminationId,
    key: KeyLabel,
    originator: PartyId,
}

/// Reads through an export.
struct Walk<'a> {
    args: &'a LedgerCommands,
    context: &'a Context,
    origin: Option<Origin>,
    determinations: HashMap<DeterminationId, Determined>,
    originators: HashMap<KeyLabel, PartyId>,
    /// Under whose EUI-64 contingency keys sign, which have no certificate: by the policy of then.
    contingency_originators: HashMap<(Digest, KeyLabel), Option<PartyId>>,
    generations: Generations,
    batches: HashMap<u64, Batch>,
    pairs: Pairs<MadeOf>,
    outs: BTreeMap<DeterminationId, (Header, Out)>,
    made: Made,
    command: CommandOctets,
}

fn wrong(index: u64, what: impl std::fmt::Display) -> CliError {
    CliError::Unfit(format!("entry {index}: {what}; `smkictl ledger verify` says what is wrong with the export"))
}

impl LedgerCommands {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, CliError> {
        let mut export = Exported::open(&self.export)?;
        let size = export.head().size;
        let mut walk = Walk {
            args: self,
            context,
            origin: None,
            determinations: HashMap::new(),
            originators: HashMap::new(),
            contingency_originators: HashMap::new(),
            generations: Generations::with(self.contingency.keys()?),
            batches: HashMap::new(),
            pairs: Pairs::default(),
            outs: BTreeMap::new(),
            made: Made::default(),
            command: CommandOctets::new(true),
        };
        let mut settled = Vec::new();
        let mut from = 0;
        while from < size {
            // What is settled is written outside the reading of entries, which borrows the export.
            export.leaves(from..size, &mut |index, leaf| {
                from = index + 1;
                walk.entry(&export, index, leaf, &mut settled)?;
                Ok(if settled.len() < SETTLED_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            for place in settled.drain(..) {
                walk.write(&mut export, place)?;
            }
        }
        let made = walk.finish(&export)?;
        if made.not_released > 0 {
            context.print.note(&format!(
                "{} are signed and were not released: the export has no signature of them",
                made.not_released
            ));
        }
        if self.out.as_os_str() != "-" {
            context.print.answer(&made, |text| {
                text.row("commands", made.commands);
            })?;
        }
        Ok(if made.commands == 0 { Exit::Local } else { Exit::Done })
    }
}

impl Walk<'_> {
    /// One entry. What came to its end is put behind `settled`, in the order of the intents.
    fn entry(
        &mut self,
        export: &Exported,
        index: u64,
        leaf: &[u8],
        settled: &mut Vec<Settled<MadeOf>>,
    ) -> Result<(), CliError> {
        let Some(glance) = Glance::at(leaf) else { return Err(wrong(index, "it is none that this program reads")) };
        let unreadable = |error: serde_json::Error| wrong(index, error);
        self.generations.entry(&glance, export).map_err(|why| wrong(index, why))?;
        match glance.kind {
            b"genesis" => self.origin = Some(glance.read::<Genesis>().map_err(unreadable)?.origin),
            b"certificate-imported" => {
                let imported: CertificateImported = glance.read().map_err(unreadable)?;
                self.originators.insert(imported.key, imported.party);
            }
            b"determination-recorded" => {
                let recorded: DeterminationRecorded = glance.read().map_err(unreadable)?;
                let document = fold::read::<Determination>(recorded.document, export);
                let document = document.map_err(|error| wrong(index, error))?;
                let form = document.form();
                let key = form.key.as_ref().map(|key| (key.label.clone(), key.spki_sha256));
                let scope = form.scope().map(|scope| fold::build_scope(&scope, 0, recorded.document)).transpose();
                let templates = scope.map_err(|error| wrong(index, error))?.map(|scope| scope.templates);
                let determined = Determined { key, templates: templates.unwrap_or_default() };
                self.determinations.insert(recorded.determination, determined);
            }
            b"schedule-recorded" => {
                let recorded: ScheduleRecorded = glance.read().map_err(unreadable)?;
                let document = fold::read::<Schedule>(recorded.document, export);
                let document = document.map_err(|error| wrong(index, error))?;
                let scope = fold::build_scope(&document.form().scope(), 0, recorded.document);
                let scope = scope.map_err(|error| wrong(index, error))?;
                if let Some(determined) = self.determinations.get_mut(&recorded.determination) {
                    determined.templates = scope.templates;
                }
            }
            _ => match Step::at(index, &glance).map_err(unreadable)? {
                Some(Step::Batch(at, batch)) if self.args.determination.is_none_or(|of| of == batch.determination) => {
                    let is_asked = self.args.request.is_none_or(|request| request == batch.request);
                    let whose = if is_asked { Whose::Asked } else { Whose::Other };
                    self.pairs.batch(at, whose, batch.determination);
                    self.batches.insert(at, batch);
                }
                Some(Step::Intent(at, intent)) => self.intent(export, at, intent)?,
                Some(Step::Outcome(outcome)) => {
                    self.pairs.outcome(outcome);
                    settled.extend(std::iter::from_fn(|| self.pairs.settled()));
                }
                Some(Step::Batch(..)) | None => {}
            },
        }
        Ok(())
    }

    fn intent(&mut self, export: &Exported, index: u64, intent: Intent) -> Result<(), CliError> {
        let Some(batch) = self.batches.get(&intent.batch) else { return Ok(()) };
        if self.args.device.is_some_and(|device| device != intent.device) {
            return Ok(());
        }
        let originator = if self.generations.get(&batch.key).is_some() {
            let of = (batch.policy, batch.key.clone());
            if let Some(known) = self.contingency_originators.get(&of) {
                *known
            } else {
                let policy = read_policy(batch.policy, export).map_err(|error| wrong(index, error))?;
                let originator = policy.key(&batch.key).and_then(|key| key.originator);
                self.contingency_originators.insert(of, originator);
                originator
            }
        } else {
            self.originators.get(&batch.key).copied()
        };
        let originator = originator.ok_or_else(|| wrong(index, format!("key {} has no certificate", batch.key)))?;
        let made_of = MadeOf { determination: batch.determination, key: batch.key.clone(), originator };
        self.pairs.intent(index, intent, made_of);
        Ok(())
    }

    /// What became of an intent: its command, if it was signed.
    fn write(&mut self, export: &mut Exported, settled: Settled<MadeOf>) -> Result<(), CliError> {
        let Settled { place, signed_as: at, intent, result, with } = settled;
        let MadeOf { determination, key, originator } = with;
        let expected = match result {
            SignResult::Signed(expected) => expected,
            SignResult::Failed(_) | SignResult::NotSigned(_) | SignResult::Unknown(_) => return Ok(()),
        };
        let Some(signature) = export.signature(at)? else {
            self.made.not_released += 1;
            return Ok(());
        };
        let found = Digest::of(&signature);
        if found != expected {
            return Err(wrong(
                at,
                format!("its outcome has the signature of SHA-256 {expected}, the export has {found}"),
            ));
        }
        let determined = self.determinations.get(&determination);
        let template = determined.and_then(|determined| determined.templates.get(&intent.template));
        let template = template.ok_or_else(|| wrong(at, format!("no template {} was determined", intent.template)))?;
        self.command.clear();
        let with = template.needs_symmetric_key().then(|| self.generations.symmetric(&key));
        let with = with.transpose().map_err(|why| CliError::Unfit(format!("intent {at}: {why}")))?;
        let symmetric = with.as_ref().map(|(symmetric, _)| *symmetric);
        let command = &mut self.command;
        // What it outgrows is not wiped.
        command.reserve_exact(rebuilt_len_max(template));
        rebuild(template, originator, &intent, &signature, symmetric, command).map_err(|error| wrong(at, error))?;
        // What was signed had the key inside, and the intent says nothing of it.
        let body = &command[1..command.len() - SIGNATURE_PART_LEN];
        if with.is_some_and(|(_, public)| !public.verifies_fixed(body, &signature)) {
            return Err(wrong(
                at,
                format!("the signature is not one of key {key} over the command with its symmetric key"),
            ));
        }
        let fields = |header: &Header| {
            let template = header.template(&intent.template).unwrap_or_default();
            Fields { device: intent.device, counter: intent.counter, intent: place, template }
        };
        if !self.outs.contains_key(&determination) {
            let opened = self.open(determination, at, export.head().size)?;
            self.outs.insert(determination, opened);
        }
        if let Some((header, out)) = self.outs.get_mut(&determination) {
            let fields = fields(header);
            if !out.has(fields.intent) {
                out.command(self.context, fields, &self.command)?;
            }
            self.made.commands += 1;
        }
        Ok(())
    }

    fn open(&self, determination: DeterminationId, at: u64, size: u64) -> Result<(Header, Out), CliError> {
        let LedgerCommands { request, out, how, .. } = self.args;
        let is_of_one = self.args.determination.is_some() || request.is_some();
        let is_stdout = out.as_os_str() == "-";
        if !is_of_one && is_stdout && !self.outs.is_empty() {
            return Err(CliError::Unfit(
                "the Device has commands under several determinations; give --out a directory, or --determination"
                    .to_owned(),
            ));
        }
        let path: PathBuf = if is_of_one || is_stdout {
            out.clone()
        } else {
            std::fs::create_dir_all(out)?;
            below(Path::new(out), &determination.to_string())
        };
        let determined = self.determinations.get(&determination);
        let key = determined.and_then(|determined| determined.key.clone().map(|key| (determined, key)));
        let Some(((determined, (key, spki_sha256)), origin)) = key.zip(self.origin.clone()) else {
            return Err(wrong(at, format!("determination {determination} has no key")));
        };
        let templates = determined.templates.keys().cloned().collect();
        let header = Header { origin, determination, request: *request, key, spki_sha256, templates };
        // An export may lack what was not released yet: a fetch does not go on after its last.
        let mut out = Out::open(Some(&path), *how, Format::Container, *request, Order::Any)?;
        out.covered_by(size)?;
        out.begin(&header)?;
        Ok((header, out))
    }

    fn finish(self, export: &Exported) -> Result<Made, CliError> {
        for (_, out) in self.outs.into_values() {
            out.finish(self.context, true, Some(export.head()))?;
        }
        Ok(self.made)
    }
}
