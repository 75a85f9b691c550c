//! Shell: what Devices answered, on its way in; how far each has come; and leave to go on after a foreign answer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::certificates::{Given, no_such};
use super::parts::{self, At, Faults, Found, Place, Progress, Source};
use crate::api::client::{Client, ClientError, with_query};
use crate::api::routes::Verb;
use crate::api::wire::{self, DeviceState};
use crate::cli::print::{Text, Tone};
use crate::cli::{Change, CliError, Context, Exit};
use crate::domain::gbcs::signed_message_len;
use crate::domain::ledger::entry::ResponseTally;
use crate::domain::names::{DeterminationId, DeviceId, Digest};
use crate::domain::responses::device_of;
use crate::domain::responses::messages::{self, MESSAGES_LEN_MAX, MESSAGES_MAX, Messages};

/// Octets of one message: at most 65,535 of payload, and a short frame (GBCS 7.2).
const MESSAGE_LEN_MAX: usize = 66 * 1024;

/// Characters of a wrong line that are shown.
const FOUND_LEN_MAX: usize = 40;

const NOTHING: &str = "expected messages, one a line in hexadecimal or binary one after another, found nothing";

/// Arguments of `responses`.
#[derive(Args, Debug)]
pub struct Responses {
    /// Responses and Alerts: hexadecimal, one a line, or binary, one after another; of a directory, every file in it
    #[arg(value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// The Devices' certificates, of those that were not imported before: a file or a directory of files, in PEM or DER
    #[arg(long, value_name = "DIR|FILE")]
    certificates: Option<PathBuf>,
    /// Under which determination the commands were signed
    #[arg(long, value_name = "ID")]
    determination: DeterminationId,
    /// Write what proves no recovery to this new file, one JSON object a line, with where it stands and why
    #[arg(long, value_name = "FILE")]
    unproven: Option<PathBuf>,
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

/// What is sent at once: the messages in a form that the daemon takes, where each stands, and what could not be read.
#[derive(Default)]
struct Part {
    messages: Messages,
    certificates: Vec<u8>,
    places: Vec<Place>,
    unreadable: Vec<(Place, String)>,
}

/// The end of what was handed in, for programs.
#[derive(Serialize)]
struct Total {
    tally: ResponseTally,
    unreadable: u64,
}

impl Responses {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let files = parts::files(&self.files)?;
        let given = self.certificates.as_deref().map(|path| Given::read(context, path)).transpose()?;
        let dry_run = self.change.dry_run;
        let mut faults = Faults::open(context, self.unproven.as_deref().filter(|_| !dry_run))?;
        let mut progress = Progress::begin(context);
        let parts = parts::read(move |emit| read(&files, &given.unwrap_or_default(), emit));
        let determination = self.determination;
        if dry_run {
            return would_send(context, determination, parts).await;
        }
        let (mut tally, mut unreadable) = (ResponseTally::default(), 0_u64);
        let client = context.client.clone();
        let sent = parts::send(
            parts,
            |part| hand_in(client.clone(), determination, part),
            |(part, answer): (Part, Option<(Vec<wire::ResponseItem>, wire::ResponsesSummary)>)| {
                unreadable += part.unreadable.len() as u64;
                for (place, why) in &part.unreadable {
                    faults.tell(place, (None, None), "unreadable", why)?;
                }
                let Some((items, summary)) = answer else { return Ok(()) };
                for wire::ResponseItem { message, device, intent, result, detail } in items {
                    let place = usize::try_from(message).ok().and_then(|n| part.places.get(n.checked_sub(1)?));
                    let place = place.ok_or_else(|| no_such("message", message))?;
                    faults.tell(place, (device, intent), &result, &detail)?;
                }
                tally.add(&summary.tally);
                if context.print.is_json() {
                    context.print.json_line(&wire::ResponsesSummaryLine { summary })?;
                }
                let others = tally.messages() - tally.recovered;
                progress.tell(tally.messages(), || format!("{} recovered, {others} others", tally.recovered));
                Ok(())
            },
        );
        let sent = sent.await;
        faults.finish("--unproven")?;
        if let (Err(_), 1..) = (&sent, tally.messages()) {
            let messages = tally.messages();
            context.print.note(&format!(
                "{messages} messages were taken in before this; hand in the same files again: what was taken in counts once"
            ));
        }
        sent?;
        context.print.answer(&Total { tally, unreadable }, |text| {
            counts(&tally, text);
            if unreadable > 0 {
                text.toned("cannot be read", unreadable, Tone::Bad);
            }
        })?;
        let told = tally.recovered + tally.accepted + tally.duplicate;
        Ok(match (tally.messages() + unreadable - told, told) {
            (0, _) => Exit::Done,
            (_, 0) => Exit::Unverified,
            (_, _) => Exit::Partly,
        })
    }
}

async fn would_send(
    context: &Context,
    determination: DeterminationId,
    mut parts: tokio::sync::mpsc::Receiver<Result<Part, CliError>>,
) -> Result<Exit, CliError> {
    while let Some(part) = parts.recv().await {
        let part = part?;
        for (place, why) in &part.unreadable {
            context.print.warning(&format!("{}: {why}", place.file.display()));
        }
        let ask = wire::RecoveryResponses {
            determination,
            responses: Digest::of(&part.messages.kept()),
            certificates: (!part.certificates.is_empty()).then(|| Digest::of(&part.certificates)),
        };
        context.would_send(Verb::Post, PATH, Some(&ask))?;
    }
    Ok(Exit::Done)
}

const PATH: &str = "/v1/recovery/responses";

/// Has a part taken in.
async fn hand_in(
    client: Client,
    determination: DeterminationId,
    mut part: Part,
) -> Result<(Part, Option<(Vec<wire::ResponseItem>, wire::ResponsesSummary)>), CliError> {
    if part.places.is_empty() {
        return Ok((part, None));
    }
    let responses = parts::upload(&client, std::mem::take(&mut part.messages).into_kept()).await?;
    let certificates = match std::mem::take(&mut part.certificates) {
        none if none.is_empty() => None,
        some => Some(parts::upload(&client, some).await?),
    };
    let ask = wire::RecoveryResponses { determination, responses, certificates };
    let text = client.post_for_text(PATH, &ask).await?;
    let unread = |error: serde_json::Error| ClientError::Answer { why: error.to_string() };
    let mut items = Vec::new();
    for line in text.lines() {
        if line.starts_with(r#"{"summary""#) {
            let wire::ResponsesSummaryLine { summary } = serde_json::from_str(line).map_err(unread)?;
            return Ok((part, Some((items, summary))));
        }
        items.push(serde_json::from_str(line).map_err(unread)?);
    }
    Err(ClientError::Cut { lines: items.len() as u64 }.into())
}

/// Messages that are sorted by their Devices before they are cut into parts. Devices answer in no order, and the daemon finds what it knows of
/// neighbours in one place: of a full window's parts each has a sixteenth of the Devices.
const WINDOW_MESSAGES_MAX: usize = 16 * MESSAGES_MAX;

/// Octets of those, which are held in memory beside the parts that are on their way.
const WINDOW_LEN_MAX: u64 = 32 * 1024 * 1024;

/// How many times as many messages a window has as the one before, up to [`WINDOW_MESSAGES_MAX`]. The first has no more than a part takes, so
/// that the daemon verifies while the next is read.
const WINDOW_GROWTH: usize = 4;

/// Some messages of the files, each with where it stands.
#[derive(Default)]
struct Window {
    messages: Messages,
    places: Vec<Place>,
}

impl Window {
    /// Whether there is no room for a message of so many octets, where so many messages and octets are sorted together.
    fn is_full(&self, (most, len_max): (usize, u64), len: usize) -> bool {
        self.messages.len() >= most || self.messages.octets_len() + len as u64 > len_max
    }

    /// Which of the messages comes first, and so on: by Device, and as they came for each; or as they came, where one part has them all.
    fn order(all: &[&[u8]]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..all.len()).collect();
        if all.len() > MESSAGES_MAX {
            order.sort_by_cached_key(|at| device_of(all[*at]));
        }
        order
    }

    /// Cuts them into parts, the last one included.
    fn cut(&mut self, part: &mut Part, given: &Given, emit: &mut dyn FnMut(Part) -> bool) -> bool {
        let Self { messages, places } = std::mem::take(self);
        let (all, mut is_wanted) = (messages.all(), true);
        for at in Self::order(&all) {
            let len = part.messages.octets_len() + all[at].len() as u64;
            if part.messages.len() == MESSAGES_MAX || len > MESSAGES_LEN_MAX {
                is_wanted &= end(part, given, emit);
            }
            part.messages.push(all[at]);
            part.places.push(places[at].clone());
        }
        is_wanted & (part.messages.is_empty() || end(part, given, emit))
    }
}

/// Cuts files into parts.
fn read(files: &[Arc<Path>], given: &Given, emit: &mut dyn FnMut(Part) -> bool) -> Result<(), CliError> {
    let (mut window, mut part, mut is_wanted) = (Window::default(), Part::default(), true);
    let mut window_max = MESSAGES_MAX;
    for file in files {
        // What comes through a pipe may come slowly, and goes out a part at a time.
        let is_regular = fs::metadata(file).is_ok_and(|file| file.is_file());
        let mut visit = |(at, found): Found<'_>| {
            let place = Place { file: Arc::clone(file), at };
            match found {
                Ok(octets) => {
                    let most = if is_regular { (window_max, WINDOW_LEN_MAX) } else { (MESSAGES_MAX, MESSAGES_LEN_MAX) };
                    if window.is_full(most, octets.len()) {
                        is_wanted &= window.cut(&mut part, given, emit);
                        window_max = (window_max * WINDOW_GROWTH).min(WINDOW_MESSAGES_MAX);
                    }
                    window.messages.push(octets);
                    window.places.push(place);
                }
                Err(why) => {
                    part.unreadable.push((place, why));
                    if part.unreadable.len() == MESSAGES_MAX {
                        is_wanted &= end(&mut part, given, emit);
                    }
                }
            }
            Ok(())
        };
        each(file, &mut visit)?;
        if !is_wanted {
            return Ok(());
        }
    }
    window.cut(&mut part, given, emit);
    if !part.unreadable.is_empty() {
        end(&mut part, given, emit);
    }
    Ok(())
}

fn end(part: &mut Part, given: &Given, emit: &mut dyn FnMut(Part) -> bool) -> bool {
    let mut part = std::mem::take(part);
    part.certificates = given.bundle(&part.messages);
    emit(part)
}

/// Visits the messages of a file: binary one after another, or hexadecimal, one a line.
fn each(path: &Arc<Path>, visit: &mut dyn FnMut(Found<'_>) -> Result<(), CliError>) -> Result<(), CliError> {
    let mut source = Source::open(path)?;
    match source.first()? {
        Some(first) if messages::is_binary(first) => {
            let stopped = source
                .pieces(MESSAGE_LEN_MAX, signed_message_len, |octet, found| visit((At::Octet(octet), Ok(found))))?;
            match stopped {
                None => Ok(()),
                Some((octet, why)) => {
                    // Nobody can tell where the next one begins.
                    let why = format!("expected a signed message: {why}; the rest of the file was not read");
                    visit((At::Octet(octet), Err(why)))
                }
            }
        }
        Some(_) => {
            let mut found_any = false;
            source.lines(2 * MESSAGE_LEN_MAX as u64 + 2, |number, line| {
                let octets = match line {
                    Some([]) => return Ok(()),
                    Some(digits) => hex::decode(digits).map_err(|_| {
                        let found: String = String::from_utf8_lossy(digits).chars().take(FOUND_LEN_MAX).collect();
                        format!("expected a message in hexadecimal, found {found:?}")
                    }),
                    None => Err(format!("expected a message of at most {MESSAGE_LEN_MAX} octets, found a longer line")),
                };
                found_any = true;
                visit((At::Line(number), octets.as_deref().map_err(String::clone)))
            })?;
            if found_any { Ok(()) } else { visit((At::Line(1), Err(NOTHING.to_owned()))) }
        }
        None => visit((At::Octet(0), Err(NOTHING.to_owned()))),
    }
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
    /// Page by page: there may be ten million.
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let print = context.print;
        let mut count: BTreeMap<DeviceState, u64> = BTreeMap::new();
        let mut after: Option<DeviceId> = None;
        loop {
            let query = [
                ("determination", Some(self.determination.to_string())),
                ("state", self.state.map(|state| state.name().to_owned())),
                ("after", after.map(|device| device.to_string())),
            ];
            let page: wire::RecoveryDevices = context.client.get(&with_query("/v1/recovery/devices", &query)).await?;
            if print.is_json() {
                // One array in all, as if it were written at once.
                let mut octets = Vec::new();
                for one in &page.devices {
                    octets.push(if count.is_empty() && octets.is_empty() { b'[' } else { b',' });
                    serde_json::to_writer(&mut octets, one).map_err(std::io::Error::from)?;
                }
                print.octets(&octets)?;
            } else if !page.devices.is_empty() {
                print.answer(&page, |text| {
                    for one in &page.devices {
                        let detail = one.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
                        text.row(&one.device.to_string(), format!("{}, {}{detail}", one.template, one.state));
                    }
                })?;
            }
            page.devices.iter().for_each(|one| *count.entry(one.state).or_default() += 1);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if print.is_json() {
            print.octets(if count.is_empty() { b"[]\n" } else { b"]\n" })?;
            return Ok(Exit::Done);
        }
        print.answer(&(), |text| {
            for (state, count) in &count {
                text.row(&state.to_string(), count);
            }
            if count.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::names::Eui64;

    /// A message of this Device and number, of which nobody reads more than its frame (GBCS 7.2.7).
    fn message(device: u64, number: u64) -> Vec<u8> {
        let mut octets = vec![0xDF, 0x09, 0x02];
        octets.extend_from_slice(&number.to_be_bytes());
        for id in [device, 7] {
            octets.push(8);
            octets.extend_from_slice(&id.to_be_bytes());
        }
        octets.extend_from_slice(&[0, 2, 0x01, 0x08, 2, 5, 0, 64]);
        octets.extend_from_slice(&[9; 64]);
        octets
    }

    /// The parts of a file of these messages.
    fn parts_of(file: &[u8]) -> Vec<Part> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages");
        std::fs::write(&path, file).unwrap();
        let mut parts = Vec::new();
        let mut emit = |part| {
            parts.push(part);
            true
        };
        read(&[path.into()], &Given::default(), &mut emit).unwrap();
        parts
    }

    #[test]
    fn a_message_of_the_test_is_one() {
        let octets = message(0x00DB_1234_5678_90A0, 5);
        assert_eq!(device_of(&octets), Some(DeviceId(Eui64(0x00DB_1234_5678_90A0_u64.to_be_bytes()))));
    }

    #[test]
    fn the_first_part_stays_as_it_came_and_what_follows_is_sorted_by_device_and_each_keeps_its_place() {
        let count = 3 * MESSAGES_MAX as u64 + 5;
        // Devices in no order, each twice, the second time at once.
        let devices: Vec<u64> = (0..count).map(|n| n / 2 * 7_919 % 10_007).collect();
        let all: Vec<Vec<u8>> = (0..).zip(&devices).map(|(n, device)| message(*device, n)).collect();
        let len = all[0].len() as u64;
        let parts = parts_of(&all.concat());
        let lens: Vec<_> = parts.iter().map(|part| part.messages.len()).collect();
        assert_eq!(lens, [MESSAGES_MAX, MESSAGES_MAX, MESSAGES_MAX, 5]);
        let mut came = Vec::new();
        for part in &parts {
            assert_eq!(part.messages.len(), part.places.len());
            for (octets, place) in part.messages.all().into_iter().zip(&part.places) {
                let At::Octet(at) = place.at else { panic!("of a binary file") };
                let n = at / len;
                assert_eq!(octets, all[usize::try_from(n).unwrap()]);
                came.push((devices[usize::try_from(n).unwrap()], n));
            }
        }
        assert_eq!(came.len() as u64, count);
        let (first, rest) = came.split_at(MESSAGES_MAX);
        assert!(first.is_sorted_by_key(|(_, n)| *n), "as they came");
        assert!(rest.is_sorted(), "by Device, and as they came for each");
    }

    #[test]
    fn messages_of_one_part_stay_as_they_came_and_what_cannot_be_read_is_told_once() {
        let all: Vec<Vec<u8>> = (0..20).map(|n| message(100 - n, n)).collect();
        let parts = parts_of(format!("{}no message\n", messages::canonical(&all)).as_bytes());
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].messages.all(), all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!(parts[0].unreadable.len(), 1);
        assert_eq!(parts[0].unreadable[0].0.at, At::Line(21));
        // As many as one part has, and one more.
        for (count, expected) in [(MESSAGES_MAX, 1), (MESSAGES_MAX + 1, 2)] {
            let all: Vec<Vec<u8>> = (0..count as u64).map(|n| message(n, n)).collect();
            assert_eq!(parts_of(messages::canonical(&all).as_bytes()).len(), expected);
        }
        let many = "no message\n".repeat(MESSAGES_MAX + 1);
        assert_eq!(
            parts_of(many.as_bytes()).iter().map(|part| part.unreadable.len()).collect::<Vec<_>>(),
            [MESSAGES_MAX, 1]
        );
    }
}
