//! Shell: `smkictl recovery`.

mod certificates;
mod check;
mod fetch;
mod job;
pub(super) mod out;
mod parts;
mod responses;

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::print::{Text, Tone};
use super::{Change, CliError, Context, Exit, input};
use crate::api::client::{Answered, ClientError, Commands};
use crate::api::routes::Verb;
use crate::api::wire::{self, Item, ItemOutcome, StoppedLine, Summary, SummaryLine};
use crate::domain::ledger::entry::Reason;
use crate::domain::names::{DeterminationId, DeviceId, RequestId};
use out::files::Order;
use out::{As, EACH_MAX, Format, Out};

/// Commands that are not signed are shown with every reason, up to so many; `--output json` shows all.
const SHOWN_MAX: u64 = 20;

/// Devices that are asked for by name at a time: two megabytes of names.
const AGAIN_MAX: usize = 100_000;

/// Sign recovery commands, and settle those of unknown outcome.
#[derive(Subcommand, Debug)]
pub enum Recovery {
    /// Sign recovery commands under a determination
    #[command(
        after_help = "Examples:\n  smkictl recovery sign --determination 5f2c… --devices all --out commands/\n  \
        smkictl recovery sign --determination 5f2c… --devices ten-of-them.txt --out commands/\n  \
        smkictl recovery sign --determination 5f2c… --devices all --out commands/ --format container\n  \
        smkictl recovery sign --determination 5f2c… --pre-commands from-the-dcc/ --out commands/\n\n\
        If the connection breaks, run it again with the request id that it printed: what was signed is given out again, \
        and nothing is signed twice; or `smkictl recovery fetch` it. Each command goes into DIR/EUI64.bin; with another --format \
        into files of --file-size with a manifest, which more than 100,000 Devices need. With `--out -`, and with --output json, \
        stdout has one JSON object a line, the last of them the summary.\n\n\
        Status: 0 all signed, 4 all refused, 6 some not signed. If it is stopped in the middle, it says why, and the status is 4 \
        if nothing was signed, else 6."
    )]
    Sign(Sign),
    /// Start a job: smkid signs by itself, and you may go away and come back
    #[command(after_help = "Examples:\n  smkictl recovery start --determination 5f2c… --devices all\n  \
        smkictl recovery start --determination 5f2c… --devices ten-of-them.txt --reason 'The first ten'\n  \
        smkictl recovery start --determination 5f2c… --devices all --per-hour 50000\n\n\
        The request id that it prints is the job's. A job goes on after a restart once its key is active again; each Device gets one \
        live command. What it signs is handed over by `smkictl recovery fetch`. Of the jobs of one key, one runs and the others wait, \
        in the order in which they were started.")]
    Start(job::Start),
    /// Show the jobs, or how far one has come
    #[command(after_help = "Examples:\n  smkictl recovery status\n  smkictl recovery status 77b0… --output json")]
    Status(job::Status),
    /// Follow a job to its end
    #[command(
        after_help = "Examples:\n  smkictl recovery watch 77b0…\n  smkictl recovery watch 77b0… --output json\n\n\
        It is drawn in one line on a terminal; else a line now and then, and at each change; with --output json one object a line. A \
        restart of smkid is waited for. Ctrl-C leaves the job as it is.\n\n\
        Status: 0 all signed, 4 all refused, 6 some not signed, or left before its end. If it is stopped in the middle, the status \
        is 4 if nothing was signed, else 6."
    )]
    Watch(job::Watch),
    /// Let a job stand still, before the next signature
    #[command(after_help = "Example:\n  smkictl recovery pause 77b0… --reason 'The DCC asks for an hour'\n\n\
        Any operator of the incident may. What is signed stays signed.")]
    Pause(job::Stop),
    /// Let a paused job go on
    #[command(after_help = "Example:\n  smkictl recovery resume 77b0…")]
    Resume(job::Resume),
    /// End a job, before the next signature
    #[command(after_help = "Example:\n  smkictl recovery cancel 77b0… --reason 'Wrong list'\n\n\
        Any operator of the incident may. What is signed stays signed, and can be fetched. Another job may take up the rest.")]
    Cancel(job::Stop),
    /// Say what is to become of commands whose outcome nobody knows
    #[command(
        after_help = "Examples:\n  smkictl recovery settle --determination 5f2c… --devices all --action retry \\\n      \
        --reason 'The HSM was power-cycled' --out commands/\n  \
        smkictl recovery settle --determination 5f2c… --devices two.txt --action leave --reason 'Meters were exchanged'\n\n\
        `retry` signs the same octets with the same counter again, as often as the determination allows."
    )]
    Settle(Settle),
    /// Show the commands whose outcome nobody knows
    #[command(after_help = "Example:\n  smkictl recovery unknowns --determination 5f2c…")]
    Unknowns {
        /// Of this determination
        #[arg(long, value_name = "ID")]
        determination: DeterminationId,
    },
    /// Take in what Devices answered: each Response is verified and judged
    #[command(
        after_help = "Examples:\n  smkictl recovery responses monday.bin tuesday/ --determination 5f2c… --unproven unproven.ndjson\n  \
        smkictl recovery responses answers.hex --certificates devices/ --determination 5f2c…\n\n\
        Files may be of any size. Certificates of many Devices are imported first (`smkictl recovery certificates import`); those of \
        a few may be given here. A Device is recovered only if its own signature says that every certificate sent is in its cell. What \
        proves no recovery is told with why. A Response to a command that was never signed here stops signing under the \
        determination. If it breaks off, run it again: what was taken in is told as a duplicate, and counts once.\n\n\
        Status: 0 all prove what was to be done, 5 none does, 6 some do not."
    )]
    Responses(responses::Responses),
    /// Certificates of Devices, imported once
    #[command(subcommand)]
    Certificates(certificates::Certificates),
    /// Show how far each Device of a determination has come
    #[command(after_help = "Examples:\n  smkictl recovery devices --determination 5f2c…\n  \
        smkictl recovery devices --determination 5f2c… --state no-response")]
    Devices(responses::Devices),
    /// Let signing go on that a Response to a foreign command had stopped
    #[command(after_help = "Example:\n  smkictl recovery resume-after-foreign --determination 5f2c… \\\n      \
        --reason 'The Device was tested in the laboratory with this counter'")]
    ResumeAfterForeign(responses::Resume),
    /// Get the signed commands of a request, or of a job: again, after a crash, or while it runs
    #[command(after_help = "Examples:\n  smkictl recovery fetch 77b0… --out commands/\n  \
        smkictl recovery fetch 77b0… --out commands/ --follow --file-size 256MiB\n  \
        smkictl recovery fetch 77b0… --out - --devices two.txt --format hex\n\n\
        Every command is made again from its template, Device, counter and recorded signature, and compared with what its intent says. \
        Files are written whole or not at all; if it is cut, run it again: what is whole by manifest.partial is kept. manifest.json comes last. \
        What was unknown or withheld is asked for again by the next fetch into the same folder. Only while the determination is in force.\n\n\
        Status: 0 every command is there, 4 refused, 6 some are not signed, or it is still running.")]
    Fetch(fetch::Fetch),
    /// Check a folder of commands against its manifest, and against an export of the ledger: needs no daemon
    #[command(
        after_help = "Examples:\n  smkictl recovery check commands/\n  smkictl recovery check commands/ --ledger export/\n\n\
        With --ledger each command is compared with its intent and its outcome; verify the export itself with `smkictl ledger verify`.\n\n\
        Status: 0 good, 1 something cannot be read, 5 it is not what its manifest or the ledger says."
    )]
    Check(check::Check),
    /// Show how far a request has come
    #[command(after_help = "Example:\n  smkictl recovery request 77b0…")]
    Request {
        /// Which
        request: RequestId,
    },
}

/// Arguments of `sign`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("scope").required(true).args(["devices", "pre_commands"])))]
pub struct Sign {
    /// Under which determination
    #[arg(long, value_name = "ID")]
    determination: DeterminationId,
    /// `all` of the determination, or a file with one EUI-64 a line (after a comma: the highest counter known for it)
    #[arg(long, value_name = "all|FILE")]
    devices: Option<String>,
    /// Commands that somebody else made, without signature: a file, or a directory of them
    #[arg(long, value_name = "FILE|DIR")]
    pre_commands: Option<PathBuf>,
    #[command(flatten)]
    request: Request,
    /// Where signed commands go: a directory, or `-` for stdout
    #[arg(long, value_name = "DIR|-", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: As,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `settle`.
#[derive(Args, Debug)]
pub struct Settle {
    /// Under which determination
    #[arg(long, value_name = "ID")]
    determination: DeterminationId,
    /// `all` unknowns, or a file with one EUI-64 a line
    #[arg(long, value_name = "all|FILE")]
    devices: String,
    /// What to do
    #[arg(long, value_enum)]
    action: Action,
    /// Why, as it is to stand in the ledger
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    request: Request,
    /// Where commands signed by a retry go: a directory, or `-` for stdout
    #[arg(long, value_name = "DIR|-", required_if_eq("action", "retry"))]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: As,
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Debug)]
struct Request {
    /// The request's id, to repeat one; else a new one is chosen and printed
    #[arg(long, value_name = "ID")]
    request: Option<RequestId>,
}

/// What can become of an unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Sign the same octets with the same counter again
    Retry,
    /// Leave it; nothing more is signed for that Device under the determination
    Leave,
}

impl Recovery {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Sign(sign) => sign.run(context).await,
            Self::Settle(settle) => settle.run(context).await,
            Self::Start(start) => start.run(context).await,
            Self::Status(status) => status.run(context).await,
            Self::Watch(watch) => watch.run(context).await,
            Self::Pause(stop) => stop.pause(context).await,
            Self::Resume(resume) => resume.run(context).await,
            Self::Cancel(stop) => stop.cancel(context).await,
            Self::Fetch(fetch) => fetch.run(context).await,
            Self::Check(check) => check.run(context),
            Self::Responses(responses) => responses.run(context).await,
            Self::Certificates(certificates) => certificates.run(context).await,
            Self::Devices(devices) => devices.run(context).await,
            Self::ResumeAfterForeign(resume) => resume.run(context).await,
            Self::Unknowns { determination } => {
                let path = format!("/v1/recovery/unknowns?determination={determination}");
                let all: wire::Unknowns = context.client.get(&path).await?;
                context.print.answer(&all, |text| {
                    for one in &all.unknowns {
                        text.row(
                            &one.device.to_string(),
                            format!("{}, counter {}, attempt {}, {}", one.template, one.counter, one.attempt, one.at),
                        );
                    }
                    if all.unknowns.is_empty() {
                        text.line("There are none.");
                    }
                    if all.more {
                        text.line("There are more: settle these, then ask again.");
                    }
                })?;
                Ok(Exit::Done)
            }
            Self::Request { request } => {
                let state: wire::RequestState = context.client.get(&format!("/v1/recovery/requests/{request}")).await?;
                context.print.answer(&state, |text| {
                    let running = if state.running { "still running" } else { "ended" };
                    text.row("request", format!("{}, {running}", state.request))
                        .row("determination", state.determination)
                        .row("taken in", state.at);
                    counts(&state.done, text);
                })?;
                Ok(Exit::Done)
            }
        }
    }
}

impl Request {
    /// The id, chosen if there is none, and printed before anything can break.
    fn id(&self, context: &Context) -> Result<RequestId, CliError> {
        let request = match self.request {
            Some(request) => request,
            None => input::request_id()?,
        };
        context.print.note(&format!("request {request} (to repeat it: --request {request})"));
        Ok(request)
    }
}

impl Sign {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let devices = self.devices.as_deref().map(input::devices).transpose()?;
        let pre_commands = self.pre_commands.as_deref().map(input::pre_commands).transpose()?;
        let out = self.out.filter(|_| !self.change.dry_run);
        if self.how.format.is_none() && out.as_ref().is_some_and(|out| out.as_os_str() != "-") {
            self::check_each(context, self.determination, devices.as_ref()).await?;
        }
        let request = self.request.id(context)?;
        let out = Out::open(out.as_deref(), self.how, Format::Each, Some(request), Order::Any)?;
        let ask = wire::RecoverySign { request, determination: self.determination, devices, pre_commands };
        let path = "/v1/recovery/sign";
        if self.change.dry_run {
            return context.would_send(Verb::Post, path, Some(&ask));
        }
        take(context, context.client.post_for_commands(path, &ask).await?, out, None).await
    }
}

/// A file each is what few Devices get if nobody says otherwise; with more somebody has to say.
async fn check_each(
    context: &Context,
    determination: DeterminationId,
    devices: Option<&wire::Devices>,
) -> Result<(), CliError> {
    let count = match devices {
        // What stands in a request is little.
        None => return Ok(()),
        Some(wire::Devices::Listed(devices)) => devices.len() as u64,
        Some(wire::Devices::All) => {
            let found: wire::Determination = context.client.get(&format!("/v1/determinations/{determination}")).await?;
            found.devices_count.unwrap_or_default()
        }
    };
    few_enough(count)
}

/// Refuses a file each for more than [`EACH_MAX`] Devices.
fn few_enough(count: u64) -> Result<(), CliError> {
    if count <= EACH_MAX {
        return Ok(());
    }
    Err(CliError::Unfit(format!(
        "{count} Devices: a file each is too many above {EACH_MAX}. Choose --format {} (container.md), ndjson or hex, in files of \
         --file-size; or --format {} if it is to be so",
        Format::Container,
        Format::Each
    )))
}

impl Settle {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let devices = input::devices(&self.devices)?;
        let request = self.request.id(context)?;
        let out = self.out.filter(|_| !self.change.dry_run);
        let out = Out::open(out.as_deref(), self.how, Format::Each, Some(request), Order::Any)?;
        let action = match self.action {
            Action::Retry => wire::SettleAction::Retry,
            Action::Leave => wire::SettleAction::Leave,
        };
        let ask =
            wire::RecoverySettle { request, determination: self.determination, devices, action, reason: self.reason };
        let path = "/v1/recovery/settle";
        if self.change.dry_run {
            return context.would_send(Verb::Post, path, Some(&ask));
        }
        take(context, context.client.post_for_commands(path, &ask).await?, out, None).await
    }
}

/// Takes the answer as it comes. What was taken is kept, also when the rest is cut. `again` is where what did not come before is asked for.
async fn take(context: &Context, mut commands: Commands, mut out: Out, again: Option<&str>) -> Result<Exit, CliError> {
    let mut taken = Taken::default();
    let mut ended = receive(context, &mut commands, &mut out, &mut taken).await;
    let is_stdout = matches!(out, Out::Stdout(_));
    let mut summary = commands.summary();
    let mut stopped = commands.stopped().to_vec();
    if let Some(path) = again
        && let Some(summary) = &mut summary
        && ended.is_ok()
        && stopped.is_empty()
    {
        ended = ask_again(context, path, &mut out, &mut taken, (summary, &mut stopped)).await;
    }
    let is_whole = ended.is_ok() && summary.is_some();
    if is_whole && is_stdout {
        if !stopped.is_empty() {
            out.line(context, &json(&StoppedLine { stopped: stopped.clone() }))?;
        }
        if let Some(summary) = summary {
            out.line(context, &json(&SummaryLine { summary }))?;
        }
    }
    let is_sum = |summary: Summary| Summary { intents: 0, ..summary } == Summary { intents: 0, ..taken.counted };
    let is_all = is_whole && stopped.is_empty() && summary.is_some_and(is_sum);
    let covering = if is_all && matches!(out, Out::Files(_)) { Some(out::covering(context).await?) } else { None };
    let finished = out.finish(context, is_all, covering);
    let hidden = taken.counted.others().saturating_sub(SHOWN_MAX);
    if hidden > 0 && !is_stdout && !context.print.is_json() {
        context.print.note(&format!("… and {hidden} more; --output json shows all"));
    }
    // What broke the answer is told before what it did to the files.
    ended?;
    finished?;
    let Some(summary) = summary else {
        return Err(ClientError::Cut { lines: taken.counted.signed + taken.counted.others() }.into());
    };
    if !stopped.is_empty() {
        if context.print.is_json() && !is_stdout {
            context.print.json_line(&StoppedLine { stopped: stopped.clone() })?;
        }
        context.print.error(&why_stopped(&stopped));
    }
    if context.print.is_json() && !is_stdout {
        context.print.json_line(&SummaryLine { summary })?;
    } else if !is_stdout {
        context.print.answer(&summary, |text| counts(&summary, text))?;
    }
    if !is_sum(summary) {
        let why = format!("its summary is {summary:?}, its parts come to {:?}", taken.counted);
        return Err(ClientError::Answer { why }.into());
    }
    Ok(exit(&summary, !stopped.is_empty()))
}

/// Asks for the commands that were unknown or withheld when the folder was written before, by the names of their Devices.
async fn ask_again(
    context: &Context,
    path: &str,
    out: &mut Out,
    taken: &mut Taken,
    (summary, stopped): (&mut Summary, &mut Vec<Reason>),
) -> Result<(), CliError> {
    // What stands behind it came already; of what was recorded meanwhile one alone would hide the others before it.
    let until = out.after();
    let awaited: Vec<DeviceId> = out.take_awaited().into_iter().collect();
    if !awaited.is_empty() {
        context.print.note(&format!("asking again for {} Devices that had no command before", awaited.len()));
    }
    for devices in awaited.chunks(AGAIN_MAX) {
        let ask = wire::RecoveryFetch { devices: Some(devices.to_vec()), until, ..wire::RecoveryFetch::default() };
        let mut commands = context.client.post_for_commands(path, &ask).await?;
        receive(context, &mut commands, out, taken).await?;
        let lines = taken.counted.signed + taken.counted.others();
        summary.add(&commands.summary().ok_or(ClientError::Cut { lines })?);
        stopped.extend_from_slice(commands.stopped());
        if !stopped.is_empty() {
            break;
        }
    }
    Ok(())
}

async fn receive(context: &Context, commands: &mut Commands, out: &mut Out, taken: &mut Taken) -> Result<(), CliError> {
    let header = commands.header().await?.clone();
    out.begin(&header)?;
    while let Some(answered) = commands.next().await? {
        match answered {
            Answered::Command(fields, octets) => {
                taken.counted.count(ItemOutcome::Signed);
                if !out.has(fields.intent) {
                    out.command(context, fields, commands.octets(&octets))?;
                }
                if context.print.is_json() && !matches!(out, Out::Stdout(_)) {
                    context.print.json_line(&Item {
                        device: fields.device,
                        template: header.templates.get(usize::from(fields.template)).cloned(),
                        counter: Some(fields.counter),
                        outcome: ItemOutcome::Signed,
                        command: None,
                        intent: Some(fields.intent),
                        reasons: Vec::new(),
                    })?;
                }
            }
            Answered::Told(item) => taken.told(context, &item, out)?,
        }
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("it is made of texts and numbers");
    line.push(b'\n');
    line
}

fn why_stopped(reasons: &[Reason]) -> String {
    let reasons: Vec<String> =
        reasons.iter().map(|reason| format!("\n    {} ({})", reason.text, reason.rule)).collect();
    format!("stopped before its end; what has no line above was not done:{}", reasons.concat())
}

/// What came so far.
#[derive(Default)]
struct Taken {
    counted: Summary,
}

impl Taken {
    /// What became of a Device that has no command.
    fn told(&mut self, context: &Context, item: &Item, out: &mut Out) -> Result<(), CliError> {
        self.counted.count(item.outcome);
        if item.outcome == ItemOutcome::Signed {
            let why = format!("{} is signed, and its command is not there", item.device);
            return Err(ClientError::Answer { why }.into());
        }
        if let ItemOutcome::Unknown | ItemOutcome::Withheld = item.outcome {
            out.awaits(item.device);
        }
        if out.line(context, &json(item))? {
            return Ok(());
        }
        if context.print.is_json() && !matches!(out, Out::Stdout(_)) {
            return Ok(context.print.json_line(item)?);
        }
        let is_worth_telling = match item.outcome {
            ItemOutcome::Signed | ItemOutcome::Left => false,
            ItemOutcome::Withheld
            | ItemOutcome::Failed
            | ItemOutcome::NotSigned
            | ItemOutcome::Unknown
            | ItemOutcome::Refused => true,
        };
        if is_worth_telling && self.counted.others() <= SHOWN_MAX {
            context.print.note(&told(item));
        }
        Ok(())
    }
}

fn told(item: &Item) -> String {
    let reasons: Vec<String> =
        item.reasons.iter().map(|reason| format!("\n    {} ({})", reason.text, reason.rule)).collect();
    format!("{} {}{}", item.device, item.outcome, reasons.concat())
}

fn counts(summary: &Summary, text: &mut Text) {
    text.toned("signed", summary.signed, Tone::Good);
    for (name, count, tone) in [
        ("signed, not handed over", summary.withheld, Tone::Warning),
        ("failed", summary.failed, Tone::Bad),
        ("not signed", summary.not_signed, Tone::Warning),
        ("unknown", summary.unknown, Tone::Bad),
        ("refused", summary.refused, Tone::Bad),
        ("left", summary.left, Tone::Warning),
    ] {
        if count > 0 {
            text.toned(name, count, tone);
        }
    }
}

/// All signed, or left as was asked: done. All refused, or stopped before anything was done: refused. Else partly done.
fn exit(summary: &Summary, is_stopped: bool) -> Exit {
    let Summary { intents: _, signed, withheld, failed, not_signed, unknown, refused, left } = *summary;
    if is_stopped {
        return if signed + left == 0 { Exit::Refused } else { Exit::Partly };
    }
    if withheld + failed + not_signed + unknown + refused == 0 {
        Exit::Done
    } else if signed + withheld + left + failed + not_signed + unknown == 0 {
        Exit::Refused
    } else {
        Exit::Partly
    }
}

#[cfg(test)]
mod tests;
