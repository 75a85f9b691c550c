//! Shell: `smkictl file`: the files of the procedure.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Change, CliError, Context, Exit, document, input, release};
use crate::api::client::{ClientError, with_query};
use crate::api::routes::Verb;
use crate::api::wire::{self, Base64};
use crate::domain::determination::document::{Determination, Written};
use crate::domain::files::{Column, Content, Counted, DeviceState, ExportRow, FILE_LEN_MAX, Layout, Progress, columns};
use crate::domain::incident::Counts;
use crate::domain::incident::timeline::counted;
use crate::domain::ledger::steps::CompromiseClass;
use crate::domain::names::{FileKind, IncidentId};
use crate::domain::policy::Policy;
use crate::domain::procedure::calendar::shown;

/// A file longer than this is uploaded first: in base64 it still fits the request.
const IN_REQUEST_LEN_MAX: u64 = 2 * 1024 * 1024;

/// Submit, check and make the files of the procedure.
#[derive(Subcommand, Debug)]
pub enum File {
    /// Submit a file to an incident, with the detached signature of an ARO
    #[command(
        after_help = "Examples:\n  smkictl file submit INC-2017-07 --kind adt thresholds.csv --signature thresholds.csv.p7s\n  \
        smkictl file submit INC-2017-07 --kind smi-extract statuses.csv\n\nAn ARO signs with\n  \
        openssl cms -sign -cades -binary -in FILE -signer CERT.pem -inkey KEY.pem -outform DER -out FILE.p7s"
    )]
    Submit(Submit),
    /// Show the files of an incident
    #[command(after_help = "Example:\n  smkictl file list INC-2017-07")]
    List {
        /// Which
        incident: IncidentId,
    },
    /// Check a file without a daemon: every fault with its line and column
    #[command(after_help = "Examples:\n  smkictl file check adt thresholds.csv\n  \
        smkictl file check adt thresholds.csv --policy keys-policy/")]
    Check(Check),
    /// Print the columns of a kind of file, what they mean, and an example
    #[command(after_help = "Example:\n  smkictl file layout organisation-notification")]
    Layout {
        /// Of which kind
        kind: FileKind,
        /// As this policy maps them; else ours
        #[arg(long, value_name = "DIR")]
        policy: Option<PathBuf>,
    },
    /// Write the SMI Status of every target of an incident, for whoever keeps the Smart Metering Inventory
    #[command(after_help = "Example:\n  smkictl file export INC-2017-07 --out statuses.csv")]
    Export {
        /// Of which
        incident: IncidentId,
        /// Write it to a file that does not exist yet; else to stdout
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make the Recovery Progress File of an incident from what the daemon knows
    #[command(after_help = "Example:\n  smkictl file progress INC-2017-07 --out progress.csv")]
    Progress {
        /// Of which
        incident: IncidentId,
        /// Write it to a file that does not exist yet; else to stdout
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Arguments of `submit`.
#[derive(Args, Debug)]
pub struct Submit {
    /// To which incident
    incident: IncidentId,
    /// The file, octet for octet as it was signed
    file: PathBuf,
    /// Which kind of file
    #[arg(long)]
    kind: FileKind,
    /// The detached CMS signature, DER; none for an SMI Status extract
    #[arg(long, value_name = "FILE.p7s")]
    signature: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Which kind of file
    kind: FileKind,
    /// The file
    file: PathBuf,
    /// As this policy lays it out; else as ours are
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
}

impl File {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Submit(submit) => submit.run(context).await,
            Self::List { incident } => list(&incident, context).await,
            Self::Check(Check { kind, file, policy }) => check(kind, &file, policy.as_deref(), context),
            Self::Layout { kind, policy } => layout(&layout_of(kind, policy.as_deref())?, context),
            Self::Export { incident, out } => export(incident, out.as_deref(), context).await,
            Self::Progress { incident, out } => progress(&incident, out.as_deref(), context).await,
        }
    }
}

impl Submit {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { incident, file, kind, signature, change } = self;
        let signature = signature.map(|path| input::file(&path, input::DOCUMENT_LEN_MAX).map(Base64)).transpose()?;
        let (sha256, len) = document::digest_of(&file)?;
        let mut ask = wire::FileSubmit { kind, octets: None, staged: None, signature };
        if len <= IN_REQUEST_LEN_MAX {
            ask.octets = Some(Base64(input::file(&file, IN_REQUEST_LEN_MAX)?));
        } else {
            ask.staged = Some(sha256);
            let to = with_query("/v1/uploads/devices", &[("sha256", Some(sha256.to_string()))]);
            if change.dry_run {
                context.print.note(&format!("Would send PUT {to}, {len} octets of {}", file.display()));
            } else {
                let stored: wire::Stored = context.client.put(&to, document::octets_of(&file)?).await?;
                context.print.note(&format!("file {} uploaded, {} octets", stored.sha256, stored.len));
            }
        }
        let path = format!("/v1/incidents/{incident}/files");
        if change.dry_run {
            return context.would_send(Verb::Post, &path, Some(&ask));
        }
        let file: wire::File = context.client.post(&path, &ask).await?;
        context.print.answer(&file, |text| {
            text.row(
                "recorded",
                format!("{}, {}, entry {}", file.kind.title(), counted(file.rows, "line"), file.entry),
            )
            .row("sha256", file.sha256)
            .some("signed by", file.signer.as_ref())
            .some("for", file.party.as_ref())
            .some("SMSR", file.smsr.as_ref());
        })?;
        Ok(Exit::Done)
    }
}

async fn list(incident: &IncidentId, context: &Context) -> Result<Exit, CliError> {
    let all: wire::Files = context.client.get(&format!("/v1/incidents/{incident}/files")).await?;
    context.print.answer(&all, |text| {
        for file in &all.files {
            let by = match (&file.signer, &file.party) {
                (Some(signer), Some(party)) => format!("signed by {signer} for {party}"),
                (_, _) => "brought by an operator".to_owned(),
            };
            let smsr = file.smsr.as_ref().map(|smsr| format!(", SMSR {smsr}")).unwrap_or_default();
            let (kind, rows, entry) = (file.kind.title(), counted(file.rows, "line"), file.entry);
            let at = shown(file.at);
            text.row(&at, format!("{kind}, {rows}, {by}{smsr}, entry {entry}, {}", file.sha256));
        }
        if all.files.is_empty() {
            text.line(&format!("Incident {incident} has no files."));
        }
    })?;
    Ok(Exit::Done)
}

/// The layout of a kind: as a policy's directory says, else ours.
fn layout_of(kind: FileKind, policy: Option<&Path>) -> Result<Layout, CliError> {
    Ok(match policy {
        None => Layout::standard(kind),
        Some(folder) => read_policy(folder)?.layout(kind),
    })
}

/// The policy in a directory, or every fault of it.
pub(super) fn read_policy(folder: &Path) -> Result<Policy, CliError> {
    Policy::parse(&input::policy(folder)?).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        CliError::Input(input::InputError::Faulty { path: folder.to_owned(), faults: faults.join("\n  ") })
    })
}

fn check(kind: FileKind, file: &Path, policy: Option<&Path>, context: &Context) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct Place {
        line: u64,
        column: Option<usize>,
        heading: Option<&'static str>,
        fault: String,
    }
    #[derive(Serialize)]
    struct Checked<'a> {
        kind: FileKind,
        layout: &'a str,
        rows: Option<u64>,
        faults: Vec<Place>,
        more_faults: u64,
    }
    let layout = layout_of(kind, policy)?;
    let read = Content::read(&layout, &input::file(file, FILE_LEN_MAX)?);
    let mut checked = Checked { kind, layout: layout.label(), rows: None, faults: Vec::new(), more_faults: 0 };
    match &read {
        Ok(whole) => checked.rows = Some(whole.rows()),
        Err(faults) => {
            checked.more_faults = faults.more;
            let place = |found: &crate::domain::files::FileFault| Place {
                line: found.line,
                column: found.column,
                heading: found.heading,
                fault: found.fault.to_string(),
            };
            checked.faults = faults.faults.iter().map(place).collect();
        }
    }
    context.print.answer(&checked, |text| match &read {
        Ok(whole) => {
            text.row("file", format!("{}, {}", kind.title(), counted(whole.rows(), "line")))
                .row("layout", layout.label());
            text.line("Who signed it is looked at when it is submitted.");
        }
        Err(faults) => {
            for fault in &faults.faults {
                text.line(&format!("{}: {fault}", file.display()));
            }
            if faults.more > 0 {
                text.line(&format!("and {} more", faults.more));
            }
        }
    })?;
    Ok(if read.is_ok() { Exit::Done } else { Exit::Unverified })
}

fn layout(layout: &Layout, context: &Context) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct ColumnShown<'a> {
        column: &'static str,
        heading: Option<&'a str>,
        required: bool,
        form: &'static str,
        meaning: &'static str,
    }
    #[derive(Serialize)]
    struct Shown<'a> {
        kind: FileKind,
        label: &'a str,
        columns: Vec<ColumnShown<'a>>,
        ignored: Vec<&'a str>,
        example: String,
    }
    let kind = layout.kind();
    let column = |&Column { name, required, form, meaning, example: _ }: &Column| ColumnShown {
        column: name,
        heading: layout.heading(name),
        required,
        form,
        meaning,
    };
    let shown = Shown {
        kind,
        label: layout.label(),
        columns: columns(kind).iter().map(column).collect(),
        ignored: layout.ignored().collect(),
        example: layout.example(),
    };
    context.print.answer(&shown, |text| {
        text.line(&format!("{} ({})\n", kind.title(), shown.label));
        text.line("CSV, UTF-8, RFC 4180 quoting, a header line; the columns in any order:\n");
        for column in &shown.columns {
            let heading = column.heading.unwrap_or(column.column);
            let optional = if column.required { "" } else { " [may be absent]" };
            text.row(heading, format!("{}: {}{optional}", column.meaning, column.form));
        }
        for ignored in &shown.ignored {
            text.row(ignored, "ignored");
        }
        text.line("\nExample:\n");
        text.line(&shown.example.replace('\r', ""));
    })?;
    Ok(Exit::Done)
}

/// The targets of an incident as an SMI Status export.
async fn export(incident: IncidentId, out: Option<&Path>, context: &Context) -> Result<Exit, CliError> {
    let (mut text, mut part, mut count) = (String::new(), Vec::new(), 0_u64);
    ExportRow::write_header(&mut text);
    let mut csv = context.client.octets(&format!("/v1/incidents/{incident}/devices")).await?;
    while let Some(piece) = csv.next().await? {
        for octet in piece {
            if octet != b'\n' {
                part.push(octet);
                continue;
            }
            // The first line has the names of the columns.
            if count > 0 {
                exported(&part, &incident)?.write(&mut text);
            }
            count += 1;
            part.clear();
        }
        if out.is_none() {
            context.print.octets(text.as_bytes())?;
            text.clear();
        }
    }
    if let Some(path) = out {
        release::write_new(path, text.as_bytes())?;
        let count = count.saturating_sub(1);
        context
            .print
            .note(&format!("SMI Statuses of the {count} targets of incident {incident} in {}", path.display()));
    }
    Ok(Exit::Done)
}

/// The first three columns of a line about a target: the Device, its status, and since when.
fn exported(line: &[u8], incident: &IncidentId) -> Result<ExportRow, CliError> {
    let fault = || ClientError::Answer { why: format!("no line about a target: {}", String::from_utf8_lossy(line)) };
    let mut fields = std::str::from_utf8(line).map_err(|_| fault())?.split(',');
    let mut field = || fields.next().ok_or_else(fault);
    Ok(ExportRow {
        device: field()?.parse().map_err(|_| fault())?,
        status: field()?.parse().map_err(|_| fault())?,
        from: field()?.parse().map_err(|_| fault())?,
        incident: incident.clone(),
    })
}

/// What the daemon knows of an incident, as a progress file counts it: Devices by what became of their commands under each
/// determination, and targets by what they proved.
async fn progress(incident: &IncidentId, out: Option<&Path>, context: &Context) -> Result<Exit, CliError> {
    let one: wire::Incident = context.client.get(&format!("/v1/incidents/{incident}")).await?;
    let status: wire::Status = context.client.get("/v1/status").await?;
    let all: wire::Determinations = context.client.get("/v1/determinations").await?;
    let mut counts = Vec::new();
    for determination in all.determinations.iter().filter(|of| of.incident == *incident) {
        let document = Written::<Determination>::read(determination.document.0.clone()).ok();
        let method = document.and_then(|document| document.form().method);
        let done = &determination.done;
        for (state, devices) in [
            (DeviceState::Listed, determination.devices_count.unwrap_or(0)),
            (DeviceState::Signed, done.signed),
            (DeviceState::NotSigned, done.not_signed),
            (DeviceState::SigningFailed, done.failed),
            (DeviceState::SigningUnknown, done.unknown),
            (DeviceState::Left, done.left),
        ] {
            counts.push(Counted { determination: Some(determination.determination), method, state, devices });
        }
    }
    let mut whole = |method, state, devices| counts.push(Counted { determination: None, method, state, devices });
    match one.progress.as_ref().filter(|progress| progress.devices.targets > 0) {
        // What Devices proved, and what was set: of all targets, whatever was determined when.
        Some(progress) => {
            let Counts {
                in_recovery,
                recovered,
                succeeded,
                failed,
                excluded,
                under_dcc_control,
                stranded,
                overridden_out,
                ..
            } = progress.devices;
            // Who is in 'recovery' while the incident goes on may still be recovered.
            let stranded = if progress.state.has_ended() { stranded } else { 0 };
            for (state, devices) in [
                (DeviceState::Recovery, in_recovery),
                (DeviceState::Succeeded, succeeded),
                (DeviceState::Failed, failed),
                (DeviceState::LeftOut, excluded),
                (DeviceState::Recovered, recovered),
                (DeviceState::UnderDccControl, under_dcc_control),
                (DeviceState::Stranded, stranded),
                (DeviceState::Overridden, overridden_out),
            ] {
                whole(progress.method, state, devices);
            }
        }
        // Before the assessment no Device is a target, and that is what there is to report.
        None => whole(None, DeviceState::Listed, 0),
    }
    let class = one.progress.as_ref().map(|progress| progress.notification.class);
    let file = Progress {
        incident: incident.clone(),
        class: class.unwrap_or(CompromiseClass::Organisation),
        party: one.compromised.party,
        certificate: one.compromised.certificate_sha256,
        at: status.clock.now,
        counts,
    };
    let text = file.write();
    match out {
        None => context.print.octets(text.as_bytes())?,
        Some(path) => {
            release::write_new(path, text.as_bytes())?;
            context.print.note(&format!("{} of incident {incident} in {}", file.kind().title(), path.display()));
        }
    }
    Ok(Exit::Done)
}
