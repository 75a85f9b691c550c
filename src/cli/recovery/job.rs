//! Shell: `smkictl recovery start | status | watch | pause | resume | cancel`: jobs, which the daemon runs by itself.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Request;
use crate::api::client::{ClientError, with_query};
use crate::api::routes::Verb;
use crate::api::wire::{self, Job, JobState};
use crate::cli::input;
use crate::cli::print::{Text, Tone};
use crate::cli::{Change, CliError, Context, Exit};
use crate::domain::ledger::entry::Reason;
use crate::domain::ledger::jobs::LIST_LINE_LEN;
use crate::domain::names::{DeterminationId, DeviceId, Digest, RequestId};

/// The route.
const JOBS: &str = "/v1/recovery/jobs";

/// How often `watch` asks.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How often `watch` says something where there is no terminal and nothing else to say.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// Devices whose lines go out together.
const LINES_AT_A_TIME: usize = 8_192;

/// Arguments of `start`.
#[derive(Args, Debug)]
pub struct Start {
    /// Under which determination
    #[arg(long, value_name = "ID")]
    determination: DeterminationId,
    /// `all` of the determination, or a file with one EUI-64 a line, in any order
    #[arg(long, value_name = "all|FILE")]
    devices: String,
    /// Record at most N intents an hour, if the determination permits more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    per_hour: Option<u64>,
    /// Why, as it is to stand in the ledger
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    request: Request,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Of this job; of all without it
    job: Option<RequestId>,
}

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub struct Watch {
    /// Which job
    job: RequestId,
}

/// Arguments of `pause` and `cancel`.
#[derive(Args, Debug)]
pub struct Stop {
    /// Which job
    job: RequestId,
    /// Why, as it is to stand in the ledger
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `resume`.
#[derive(Args, Debug)]
pub struct Resume {
    /// Which job
    job: RequestId,
    #[command(flatten)]
    change: Change,
}

impl Start {
    /// Starts it, and says how it stands.
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { determination, devices, per_hour, reason, request, change } = self;
        let list = if devices == "all" { None } else { Some(upload(context, Path::new(&devices), &change).await?) };
        let request = request.id(context)?;
        let ask = wire::JobStart { request, determination, list, per_hour, reason };
        if change.dry_run {
            return context.would_send(Verb::Post, JOBS, Some(&ask));
        }
        let job: Job = context.client.post(JOBS, &ask).await?;
        context.print.answer(&job, |text| told(&job, text))?;
        Ok(Exit::Done)
    }
}

impl Status {
    /// Shows one job, or all.
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        if let Some(job) = self.job {
            let job: Job = context.client.get(&format!("{JOBS}/{job}")).await?;
            context.print.answer(&job, |text| told(&job, text))?;
            return Ok(Exit::Done);
        }
        let mut all = wire::Jobs { jobs: Vec::new(), next: None };
        let mut from = None;
        loop {
            let path = with_query(JOBS, &[("from", from.map(|from: u64| from.to_string()))]);
            let page: wire::Jobs = context.client.get(&path).await?;
            all.jobs.extend(page.jobs);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        context.print.answer(&all, |text| {
            for job in &all.jobs {
                text.row(&job.request.to_string(), line(job));
            }
            if all.jobs.is_empty() {
                text.line("There are none.");
            }
        })?;
        Ok(Exit::Done)
    }
}

impl Stop {
    pub(super) async fn pause(self, context: &Context) -> Result<Exit, CliError> {
        self.run(context, "pause").await
    }

    pub(super) async fn cancel(self, context: &Context) -> Result<Exit, CliError> {
        self.run(context, "cancel").await
    }

    async fn run(self, context: &Context, how: &str) -> Result<Exit, CliError> {
        let Self { job, reason, change } = self;
        let (path, why) = (format!("{JOBS}/{job}/{how}"), wire::Why { reason });
        if change.dry_run {
            return context.would_send(Verb::Post, &path, Some(&why));
        }
        let job: Job = context.client.post(&path, &why).await?;
        context.print.answer(&job, |text| told(&job, text))?;
        Ok(Exit::Done)
    }
}

impl Resume {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let path = format!("{JOBS}/{}/resume", self.job);
        if self.change.dry_run {
            return context.would_send::<()>(Verb::Post, &path, None);
        }
        let job: Job = context.client.post_nothing(&path).await?;
        context.print.answer(&job, |text| told(&job, text))?;
        Ok(Exit::Done)
    }
}

impl Watch {
    /// Follows a job to its end, over restarts of the daemon. Whoever interrupts it leaves the job running.
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let path = format!("{JOBS}/{}", self.job);
        // From here on Ctrl-C is ours, and not only once it is waited for.
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut shown = Shown::new(context);
        // A job that is not there, or a daemon, is told at once.
        let mut job: Job = context.client.get(&path).await?;
        loop {
            shown.job(&job)?;
            if job.state.is_over() {
                break;
            }
            job = loop {
                tokio::select! {
                    _ = interrupted.recv() => {
                        shown.end();
                        context.print.note(&format!(
                            "job {} is left as it is: smkid goes on with it by itself. `smkictl recovery watch {}` follows it again",
                            job.request, job.request
                        ));
                        return Ok(Exit::Partly);
                    }
                    () = tokio::time::sleep(ASK_EVERY) => {}
                }
                match context.client.get::<Job>(&path).await {
                    Ok(job) => {
                        shown.answered();
                        break job;
                    }
                    Err(ClientError::Unreachable { .. } | ClientError::Broken { .. } | ClientError::Cut { .. }) => {
                        shown.unanswered();
                    }
                    Err(other) => {
                        shown.end();
                        return Err(other.into());
                    }
                }
            };
        }
        shown.end();
        if !context.print.is_json() {
            context.print.answer(&job, |text| told(&job, text))?;
        }
        Ok(exit(&job))
    }
}

/// What `watch` has shown.
struct Shown<'c> {
    context: &'c Context,
    /// The width of the terminal, if there is one.
    width: Option<usize>,
    drawn: bool,
    state: Option<JobState>,
    said: Instant,
    last: Option<Job>,
    is_gone: bool,
}

impl<'c> Shown<'c> {
    fn new(context: &'c Context) -> Self {
        let width = context.print.progress_width();
        Self { context, width, drawn: false, state: None, said: Instant::now(), last: None, is_gone: false }
    }

    fn job(&mut self, job: &Job) -> Result<(), CliError> {
        let print = &self.context.print;
        if print.is_json() {
            // One object for each change, and none twice.
            if self.last.as_ref() != Some(job) {
                print.json_line(job)?;
                self.last = Some(job.clone());
            }
            return Ok(());
        }
        let is_news = self.state != Some(job.state);
        if self.width.is_some() {
            // Why it waits is told once, above the line that is drawn.
            if is_news && let Some(why) = why(job) {
                self.end();
                print.note(&why);
            }
            // It may have been resized since.
            self.width = print.progress_width();
            if let Some(width) = self.width {
                print.progress(&bar(job, width), width);
                self.drawn = true;
            }
        } else if is_news || self.said.elapsed() >= SAY_EVERY {
            let why = why(job).map(|why| format!(": {why}")).unwrap_or_default();
            print.note(&format!("{}{why}", line(job)));
            self.said = Instant::now();
        }
        self.state = Some(job.state);
        Ok(())
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.drawn) {
            self.context.print.progress_done();
        }
    }

    fn unanswered(&mut self) {
        if !std::mem::replace(&mut self.is_gone, true) {
            self.end();
            self.context
                .print
                .warning("smkid does not answer; it is asked again until it does. A job goes on by itself");
        }
    }

    fn answered(&mut self) {
        if std::mem::take(&mut self.is_gone) {
            self.context.print.note("smkid answers again");
            self.state = None;
        }
    }
}

/// Why it does not go on, in one line.
fn why(job: &Job) -> Option<String> {
    match (job.state, job.until) {
        (JobState::Limited, Some(until)) => Some(format!("the limit of an hour is used up until {until}")),
        (JobState::Running | JobState::Limited, _) => None,
        (JobState::Paused | JobState::Cancelled, _) => job.stopped.as_ref().and_then(|stopped| stopped.reason.clone()),
        (JobState::Waiting | JobState::Ended, _) => {
            let reasons: Vec<&str> = job.why.iter().map(|reason| &*reason.text).collect();
            (!reasons.is_empty()).then(|| reasons.join("; "))
        }
    }
}

/// How far it has come, in per cent, rounded down: 100 is all.
fn per_cent(job: &Job) -> u64 {
    (u128::from(job.done.min(job.total)) * 100)
        .checked_div(job.total.into())
        .map_or(100, |part| u64::try_from(part).unwrap_or(100))
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Seconds as people say them.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A job in one line.
fn line(job: &Job) -> String {
    let mut line = format!(
        "{}, {} of {} Devices ({} %)",
        job.state.as_str(),
        grouped(job.done),
        grouped(job.total),
        per_cent(job)
    );
    for part in details(job) {
        line.push_str(", ");
        line.push_str(&part);
    }
    line
}

fn details(job: &Job) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(rate) = job.rate {
        parts.push(format!("{rate:.0}/s"));
    }
    if let Some(eta) = job.eta_s {
        parts.push(format!("{} left", span(eta)));
    }
    if let Some(busy) = job.hsm_busy {
        parts.push(format!("HSM {busy:.0} %"));
    }
    for (count, name) in
        [(job.tally.refused, "refused"), (job.tally.unknown, "unknown"), (job.tally.not_signed, "not signed")]
    {
        if count > 0 {
            parts.push(format!("{} {name}", grouped(count)));
        }
    }
    parts
}

/// The line that `watch` draws on a terminal.
fn bar(job: &Job, width: usize) -> String {
    let words = line(job);
    let room = width.saturating_sub(words.chars().count() + 4);
    // Too narrow for a bar that says anything.
    if room < 10 {
        return words;
    }
    let room = room.min(40);
    let full = room * usize::try_from(per_cent(job)).unwrap_or(100) / 100;
    format!("[{}{}] {words}", "#".repeat(full), ".".repeat(room - full))
}

/// All of a job, for people.
fn told(job: &Job, text: &mut Text) {
    let tone = match job.state {
        JobState::Running => Tone::Good,
        JobState::Ended if job.why.is_empty() => Tone::Good,
        JobState::Waiting | JobState::Limited | JobState::Paused => Tone::Warning,
        JobState::Cancelled | JobState::Ended => Tone::Bad,
    };
    text.row("job", job.request).row("incident", &job.incident).row("determination", job.determination);
    text.row("started", format!("{} by {}", job.started.at, job.started.account));
    text.toned("state", job.state.as_str(), tone);
    if let Some(stopped) = &job.stopped {
        let why = stopped.reason.as_deref().unwrap_or_default();
        text.row("stopped", format!("{} by {}: {why}", stopped.at, stopped.account));
    }
    for Reason { rule, text: why } in &job.why {
        text.toned("", format!("{why} ({rule})"), Tone::Warning);
    }
    text.some("goes on", job.until).some("ended", job.ended);
    text.row("done", format!("{} of {} Devices ({} %)", grouped(job.done), grouped(job.total), per_cent(job)));
    text.toned("signed", grouped(job.tally.signed), Tone::Good);
    for (name, count, tone) in [
        ("had a command already", job.tally.already, Tone::Warning),
        ("not signed", job.tally.not_signed, Tone::Warning),
        ("unknown", job.tally.unknown, Tone::Bad),
        ("left as unknown", job.tally.left, Tone::Warning),
        ("refused", job.tally.refused, Tone::Bad),
    ] {
        if count > 0 {
            text.toned(name, grouped(count), tone);
        }
    }
    for count in &job.rules {
        text.row("", format!("{}: {}", count.rule, grouped(count.count)));
    }
    if let Some(rate) = job.rate {
        text.row("rate", format!("{rate:.0} a second in the last ten"));
    }
    if let Some(rate) = job.rate_overall {
        text.row("overall", format!("{rate:.0} Devices a second since its start"));
    }
    text.some("left", job.eta_s.map(span));
    text.some("HSM busy", job.hsm_busy.map(|busy| format!("{busy:.0} %")));
    text.some("per hour", job.per_hour.map(grouped));
    text.row("intents left", grouped(job.intents_left));
    for refused in &job.refused {
        let reasons: Vec<String> =
            refused.reasons.iter().map(|reason| format!("{} ({})", reason.text, reason.rule)).collect();
        text.line(&format!("{} refused: {}", refused.device, reasons.join("; ")));
    }
    if job.tally.refused > job.refused.len() as u64 {
        text.line(&format!(
            "… {} of {} refused are shown; `smkictl recovery devices --determination {} --state unsigned` \
             has every Device without a command",
            job.refused.len(),
            grouped(job.tally.refused),
            job.determination
        ));
    }
    next(job, text);
}

/// What to do now.
fn next(job: &Job, text: &mut Text) {
    let id = job.request;
    match job.state {
        JobState::Running | JobState::Limited | JobState::Waiting => {
            text.line(&format!("Follow it with `smkictl recovery watch {id}`."));
        }
        JobState::Paused => {
            text.line(&format!("Let it go on with `smkictl recovery resume {id}`."));
        }
        JobState::Cancelled | JobState::Ended => {}
    }
    if job.tally.unknown > 0 && job.state.is_over() {
        text.line(&format!(
            "Say what is to become of the unknown: `smkictl recovery settle --determination {} --devices all --action retry|leave`.",
            job.determination
        ));
    }
    if job.tally.signed > 0 {
        text.line(&format!("Fetch what is signed with `smkictl recovery fetch {id} --out DIR`."));
    }
}

/// The status of `sign`: all that was asked for was signed, or had a command; all refused, or stopped before anything was signed;
/// else partly done.
fn exit(job: &Job) -> Exit {
    let wire::JobTally { intents: _, signed, not_signed, unknown, left, already, refused } = job.tally;
    let is_stopped = job.state == JobState::Cancelled || !job.why.is_empty();
    if is_stopped {
        return if signed + left == 0 { Exit::Refused } else { Exit::Partly };
    }
    if not_signed + unknown + refused == 0 {
        Exit::Done
    } else if signed + already + left + not_signed + unknown == 0 {
        Exit::Refused
    } else {
        Exit::Partly
    }
}

fn lines_of(devices: &[(DeviceId, u32)]) -> Vec<u8> {
    let mut lines = Vec::new();
    for (device, _) in devices {
        writeln!(lines, "{device}").expect("a Vec takes everything");
    }
    lines
}

/// Uploads the list of a job in its one form, unless nothing is to be changed. Answers its SHA-256.
async fn upload(context: &Context, path: &Path, change: &Change) -> Result<Digest, CliError> {
    let devices = input::device_lines(path, u64::MAX)?;
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    devices.chunks(LINES_AT_A_TIME).for_each(|some| hash.update(&lines_of(some)));
    let sha256 = Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets");
    let to = with_query("/v1/uploads", &[("sha256", Some(sha256.to_string()))]);
    let (count, len) = (devices.len(), devices.len() as u64 * LIST_LINE_LEN);
    if change.dry_run {
        context.print.note(&format!("Would send PUT {to}, {len} octets of {}", path.display()));
        return Ok(sha256);
    }
    let pieces = futures_util::stream::unfold((devices, 0), |(devices, from)| async move {
        let some = &devices[from..devices.len().min(from + LINES_AT_A_TIME)];
        let (octets, until) = (lines_of(some), from + some.len());
        (!octets.is_empty()).then(|| (Ok::<_, std::io::Error>(Bytes::from(octets)), (devices, until)))
    });
    let stored: wire::Stored = context.client.put(&to, Body::from_stream(pieces)).await?;
    context.print.note(&format!("list {} of {count} Devices uploaded", stored.sha256));
    Ok(sha256)
}

#[cfg(test)]
mod tests;
