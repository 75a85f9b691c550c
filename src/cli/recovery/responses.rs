//! Shell: what Devices answered, on its way in; how far each has come; and leave to go on after a foreign answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use axum::body::Body;
use clap::{Args, ValueEnum};

use super::SHOWN_MAX;
use crate::api::client::{ClientError, with_query};
use crate::api::routes::Verb;
use crate::api::wire::{self, DeviceState};
use crate::cli::input::{self, InputError};
use crate::cli::print::{Text, Tone};
use crate::cli::{Change, CliError, Context, Exit};
use crate::domain::certificates::pem::{self, certificate_to_pem};
use crate::domain::certificates::{Kind, Profile, SmkiCertificate, Usage};
use crate::domain::ledger::entry::ResponseTally;
use crate::domain::names::{DeterminationId, DeviceId, Digest};
use crate::domain::responses::device_of;
use crate::domain::responses::messages::{self, MESSAGES_LEN_MAX, MESSAGES_MAX};

/// The greatest file of Responses or certificates: some 200,000 of either. It is held in memory while it is sent in parts.
const FILE_LEN_MAX: u64 = 256 * 1024 * 1024;

/// Arguments of `responses`.
#[derive(Args, Debug)]
pub struct Responses {
    /// Responses and Alerts: hexadecimal, one a line, or binary, one after another
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The Devices' certificates: a file of them in PEM, or a directory of files in PEM or DER
    #[arg(long, value_name = "DIR|FILE")]
    certificates: PathBuf,
    /// Under which determination the commands were signed
    #[arg(long, value_name = "ID")]
    determination: DeterminationId,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `devices`.
#[derive(Args, Debug)]
pub struct Devices {
    /// Of this determination
    #[arg(long, value_name = "ID")]
    determination: DeterminationId,
    /// Only those in this state
    #[arg(long, value_enum)]
    state: Option<State>,
}

/// The states that a Device can be in; `signed` are all that have a signed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// A command was signed, whatever came back
    Signed,
    /// No command was signed
    Unsigned,
    /// A command was signed, and the Device has not answered
    NoResponse,
    /// It accepted the command and has not said that it executed it
    Accepted,
    /// It proved that it holds every certificate that was sent
    Succeeded,
    /// It proved that at least one cell failed
    Failed,
    /// It proved two things that exclude each other
    Contradicted,
    /// It answered a command that was never signed here
    Foreign,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Unsigned => "unsigned",
            Self::NoResponse => "no-response",
            Self::Accepted => "accepted",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Contradicted => "contradicted",
            Self::Foreign => "foreign",
        }
    }
}

/// Arguments of `resume-after-foreign`.
#[derive(Args, Debug)]
pub struct Resume {
    /// Under which determination
    #[arg(long, value_name = "ID")]
    determination: DeterminationId,
    /// What was found out, and why it is right to go on, as it is to stand in the ledger
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    change: Change,
}

impl Responses {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let mut all = Vec::new();
        for path in &self.files {
            let octets = input::file(path, FILE_LEN_MAX)?;
            let wrong = |error: messages::MessagesError| InputError::Unreadable {
                path: path.clone(),
                source: std::io::Error::other(error.to_string()),
            };
            all.extend(messages::all(&octets, usize::MAX).map_err(wrong)?);
        }
        let certificates = certificates(context, &self.certificates)?;
        let mut tally = ResponseTally::default();
        for part in parts(&all) {
            let (text, bundle) = (messages::canonical(part), bundle(part, &certificates));
            let ask = wire::RecoveryResponses {
                determination: self.determination,
                responses: Digest::of(text.as_bytes()),
                certificates: Digest::of(bundle.as_bytes()),
            };
            if self.change.dry_run {
                context.would_send(Verb::Post, "/v1/recovery/responses", Some(&ask))?;
                continue;
            }
            upload(context, ask.responses, text).await?;
            upload(context, ask.certificates, bundle).await?;
            tally.add(&send(context, &ask).await?);
        }
        if self.change.dry_run {
            return Ok(Exit::Done);
        }
        if !context.print.is_json() {
            context.print.answer(&tally, |text| counts(&tally, text))?;
        }
        let told = tally.recovered + tally.accepted + tally.duplicate;
        Ok(match (tally.messages() - told, told) {
            (0, _) => Exit::Done,
            (_, 0) => Exit::Unverified,
            (_, _) => Exit::Partly,
        })
    }
}

/// Messages that one call takes.
fn parts(all: &[Vec<u8>]) -> Vec<&[Vec<u8>]> {
    let mut parts = Vec::new();
    let (mut from, mut len) = (0, 0);
    for (at, message) in all.iter().enumerate() {
        if at - from == MESSAGES_MAX || (at > from && len + message.len() as u64 > MESSAGES_LEN_MAX) {
            parts.push(&all[from..at]);
            (from, len) = (at, 0);
        }
        len += message.len() as u64;
    }
    parts.push(&all[from..]);
    parts
}

/// Devices' certificates for signatures, by Device, in DER.
type Known = BTreeMap<DeviceId, Vec<Vec<u8>>>;

fn certificates(context: &Context, path: &Path) -> Result<Known, CliError> {
    let files = if path.is_dir() {
        input::directory(path, FILE_LEN_MAX)?
    } else {
        vec![(path.to_owned(), input::file(path, FILE_LEN_MAX)?)]
    };
    let (mut known, mut others) = (Known::new(), 0_u64);
    for (path, octets) in files {
        let all = if pem::is_pem(&octets) {
            let wrong = |error: pem::PemError| InputError::Unreadable {
                path: path.clone(),
                source: std::io::Error::other(error.to_string()),
            };
            pem::text(&octets).and_then(pem::bundle).map_err(wrong)?
        } else {
            vec![octets]
        };
        for octets in all {
            match SmkiCertificate::parse(&octets, &Profile::shape_only()).map(|certificate| certificate.kind()) {
                Ok(Kind::Device { device, usage: Usage::DigitalSignature }) => {
                    known.entry(device).or_default().push(octets);
                }
                Ok(_) | Err(_) => others += 1,
            }
        }
    }
    if others > 0 {
        context.print.note(&format!("{others} certificates are not of Devices for signatures; they are not sent"));
    }
    Ok(known)
}

/// The certificates that these messages need, in PEM.
fn bundle(messages: &[Vec<u8>], known: &Known) -> String {
    let devices: BTreeSet<DeviceId> = messages.iter().filter_map(|octets| device_of(octets)).collect();
    let theirs = devices.iter().filter_map(|device| known.get(device)).flatten();
    theirs.map(|octets| certificate_to_pem(octets)).collect()
}

async fn upload(context: &Context, sha256: Digest, text: String) -> Result<(), CliError> {
    let to = with_query("/v1/uploads", &[("sha256", Some(sha256.to_string()))]);
    let _: wire::Stored = context.client.put(&to, Body::from(text)).await?;
    Ok(())
}

/// Has them taken in, and shows what proves no recovery.
async fn send(context: &Context, ask: &wire::RecoveryResponses) -> Result<ResponseTally, CliError> {
    let text = context.client.post_for_text("/v1/recovery/responses", ask).await?;
    let unread = |error: serde_json::Error| ClientError::Answer { why: error.to_string() };
    let mut shown = 0;
    for line in text.lines() {
        if line.starts_with(r#"{"summary""#) {
            let wire::ResponsesSummaryLine { summary } = serde_json::from_str(line).map_err(unread)?;
            if context.print.is_json() {
                context.print.json_line(&wire::ResponsesSummaryLine { summary: summary.clone() })?;
            } else {
                context.print.note(&format!("recorded in entry {}", summary.entry));
            }
            return Ok(summary.tally);
        }
        let item: wire::ResponseItem = serde_json::from_str(line).map_err(unread)?;
        if context.print.is_json() {
            context.print.json_line(&item)?;
        } else if shown < SHOWN_MAX {
            shown += 1;
            let device = item.device.map_or_else(|| "-".to_owned(), |device| device.to_string());
            context.print.note(&format!("message {}: {device} {}: {}", item.message, item.result, item.detail));
        }
    }
    Err(ClientError::Cut { lines: text.lines().count() as u64 }.into())
}

fn counts(tally: &ResponseTally, text: &mut Text) {
    text.toned("recovered", tally.recovered, Tone::Good);
    for (name, count, tone) in [
        ("failed", tally.failed, Tone::Bad),
        ("accepted, not executed yet", tally.accepted, Tone::Warning),
        ("Alerts", tally.alert, Tone::Warning),
        ("to a foreign command: signing is stopped", tally.foreign, Tone::Bad),
        ("contradictions", tally.contradiction, Tone::Bad),
        ("unmatched", tally.unmatched, Tone::Warning),
        ("unverified", tally.unverified, Tone::Bad),
        ("malformed", tally.malformed, Tone::Bad),
        ("known before", tally.duplicate, Tone::Warning),
    ] {
        if count > 0 {
            text.toned(name, count, tone);
        }
    }
}

impl Devices {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let mut all: Vec<wire::RecoveryDevice> = Vec::new();
        let mut after: Option<DeviceId> = None;
        loop {
            let query = [
                ("determination", Some(self.determination.to_string())),
                ("state", self.state.map(|state| state.name().to_owned())),
                ("after", after.map(|device| device.to_string())),
            ];
            let page: wire::RecoveryDevices = context.client.get(&with_query("/v1/recovery/devices", &query)).await?;
            all.extend(page.devices);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        context.print.answer(&all, |text| {
            let mut count: BTreeMap<DeviceState, u64> = BTreeMap::new();
            for one in &all {
                *count.entry(one.state).or_default() += 1;
                let detail = one.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
                text.row(&one.device.to_string(), format!("{}, {}{detail}", one.template, one.state));
            }
            for (state, count) in count {
                text.row(&state.to_string(), count);
            }
            if all.is_empty() {
                text.line("There are none.");
            }
        })?;
        Ok(Exit::Done)
    }
}

impl Resume {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let ask = wire::RecoveryResume { determination: self.determination, reason: self.reason };
        crate::cli::incident::recorded(context, "/v1/recovery/resume", &ask, self.change).await
    }
}
