//! Shell: `smkictl ledger`, as far as it needs the daemon.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ledger_commands::LedgerCommands;
use super::ledger_export::{self, LedgerExport};
use super::ledger_source::DaemonSource;
use super::ledger_verify::{self, LedgerVerify};
use super::print::Text;
use super::{CliError, Context, Exit, release};
use crate::api::client::with_query;
use crate::api::wire;
use crate::domain::incident::timeline;
use crate::domain::ledger::entry::Event;
use crate::domain::names::{DeterminationId, DeviceId, IncidentId};

/// Read the ledger.
#[derive(Subcommand, Debug)]
pub enum Ledger {
    /// Show entries, one a line (with --output json, one JSON object a line); those that every filter lets through
    #[command(after_help = "Examples:\n  smkictl ledger list --from 100\n  smkictl ledger list --kind refused\n  \
        smkictl ledger list --device 00DB1234567890A0 --output json | jq .entry")]
    List(List),
    /// Show one entry whole
    #[command(after_help = "Example:\n  smkictl ledger show 41")]
    Show {
        /// Its index
        index: u64,
    },
    /// Get the receipt of an entry, a C2SP tlog-proof, for somebody outside
    #[command(after_help = "Example:\n  smkictl ledger proof 41 --out 41.tlog-proof")]
    Proof(Proof),
    /// Write the whole ledger to a directory that somebody outside can verify
    #[command(after_help = "Example:\n  smkictl ledger export export/")]
    Export(LedgerExport),
    /// Verify an export: needs no daemon, no database and no HSM
    #[command(after_help = "Examples:\n  smkictl ledger verify export/ --key ledger.pem --genesis 5a41…\n  \
        smkictl ledger verify export/ --key ledger.vkey --genesis 5a41… --checkpoint seen-last-month")]
    Verify(LedgerVerify),
    /// Make signed commands again, octet for octet, from an export alone: needs no daemon and no HSM
    #[command(after_help = "Examples:\n  smkictl ledger commands export/ --request 77b0… --out commands/\n  \
        smkictl ledger commands export/ --device 00DB1234567890A0 --out - --format hex\n\n\
        Each is made of its determination's template, its intent and its released signature, and compared with the digests that its entries \
        have. Verify the export itself with `smkictl ledger verify`. The files are those of `smkictl recovery fetch`.\n\n\
        Status: 0 done, 1 there is none, or the export cannot be read.")]
    Commands(LedgerCommands),
    /// Print the newest checkpoint, a C2SP signed note
    #[command(after_help = "Example:\n  smkictl ledger checkpoint > checkpoint")]
    Checkpoint,
}

/// Arguments of `list`.
#[derive(Args, Debug)]
pub struct List {
    /// From this index
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// Until before this index
    #[arg(long, value_name = "INDEX")]
    until: Option<u64>,
    /// Of this kind only, such as `determination-recorded`
    #[arg(long)]
    kind: Option<String>,
    /// About this incident only
    #[arg(long, value_name = "ID")]
    incident: Option<IncidentId>,
    /// About this determination only
    #[arg(long, value_name = "ID")]
    determination: Option<DeterminationId>,
    /// About this Device only
    #[arg(long, value_name = "EUI64")]
    device: Option<DeviceId>,
}

/// Arguments of `proof`.
#[derive(Args, Debug)]
pub struct Proof {
    /// The entry's index
    index: u64,
    /// Write it to a file that does not exist yet; else to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Ledger {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Export(args) => {
                let args = LedgerExport { output: context.print.output(), ..args };
                // The export waits for each piece, so it has a thread of its own.
                let run = || -> Result<Exit, CliError> {
                    let source = DaemonSource::new(&context.client)?;
                    context.offline(|out, err| ledger_export::run(&args, &source, out, err))
                };
                std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or(Ok(Exit::Local))
            }
            Self::Verify(args) => {
                let args = LedgerVerify { output: context.print.output(), ..args };
                context.offline(|out, err| ledger_verify::run(&args, out, err))
            }
            Self::Commands(commands) => commands.run(context),
            Self::List(list) => list.run(context).await,
            Self::Show { index } => show(index, context).await,
            Self::Proof(Proof { index, out }) => {
                let proof = context.client.text(&format!("/v1/ledger/proof/{index}")).await?;
                match out {
                    None => context.print.octets(proof.as_bytes())?,
                    Some(path) => {
                        release::write_new(&path, proof.as_bytes())?;
                        context.print.note(&format!("receipt of entry {index} in {}", path.display()));
                    }
                }
                Ok(Exit::Done)
            }
            Self::Checkpoint => {
                let checkpoint = context.client.text("/v1/ledger/checkpoint").await?;
                context.print.octets(checkpoint.as_bytes())?;
                Ok(Exit::Done)
            }
        }
    }
}

impl List {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { mut from, until, kind, incident, determination, device } = self;
        loop {
            let path = with_query(
                "/v1/ledger/entries",
                &[
                    ("from", from.map(|index| index.to_string())),
                    ("until", until.map(|index| index.to_string())),
                    ("kind", kind.clone()),
                    ("incident", incident.as_ref().map(ToString::to_string)),
                    ("determination", determination.map(|id| id.to_string())),
                    ("device", device.map(|id| id.to_string())),
                ],
            );
            let some: wire::Entries = context.client.get(&path).await?;
            if context.print.is_json() {
                for entry in &some.entries {
                    context.print.json_line(entry)?;
                }
            } else if !some.entries.is_empty() {
                context.print.answer(&some, |text| {
                    for entry in &some.entries {
                        line(entry, text);
                    }
                })?;
            }
            match some.next {
                Some(next) if from.is_none_or(|from| next > from) => from = Some(next),
                Some(_) | None => return Ok(Exit::Done),
            }
        }
    }
}

async fn show(index: u64, context: &Context) -> Result<Exit, CliError> {
    let path = match index.checked_add(1) {
        Some(until) => format!("/v1/ledger/entries?from={index}&until={until}"),
        None => format!("/v1/ledger/entries?from={index}"),
    };
    let some: wire::Entries = context.client.get(&path).await?;
    let Some(entry) = some.entries.first() else {
        context.print.error(&format!("the ledger has no entry {index} yet"));
        return Ok(Exit::Local);
    };
    let pretty = serde_json::from_str::<serde_json::Value>(entry.entry.get())
        .and_then(|value| serde_json::to_string_pretty(&value))
        .map_err(std::io::Error::from)?;
    context.print.answer(entry, |text| {
        text.line(&pretty);
    })?;
    Ok(Exit::Done)
}

/// What an event says, as the story of its incident tells it, with the incident's id where the event names one; none for events that a
/// story only counts, and for those of a newer daemon.
pub(super) fn told(event: &str) -> Option<String> {
    let what = timeline::tell(&serde_json::from_str::<Event>(event).ok()?)?;
    let value: serde_json::Value = serde_json::from_str(event).ok()?;
    let incident = value.as_object()?.values().next()?.get("incident").and_then(|incident| incident.as_str());
    Some(incident.map_or_else(|| what.clone(), |incident| format!("{incident}: {what}")))
}

/// An entry on one line. Read as JSON and not as our type, so that a newer daemon's entries are shown too.
fn line(entry: &wire::EntryAt, text: &mut Text) {
    let value: serde_json::Value = serde_json::from_str(entry.entry.get()).unwrap_or_default();
    let (kind, what) = match &value["event"] {
        serde_json::Value::Object(event) => {
            event.iter().next().map(|(kind, what)| (kind.clone(), what.to_string())).unwrap_or_default()
        }
        other => (other.to_string(), String::new()),
    };
    let what = told(&value["event"].to_string()).unwrap_or(what);
    let by = value["by"]["account"].as_str().unwrap_or("?");
    let at = value["at"].as_str().unwrap_or("?");
    text.row(&entry.index.to_string(), format!("{at}  {by}  {kind}  {what}"));
}
