//! Shell: `smkictl incident`.

mod steps;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::print::{Text, Tone};
use super::{Change, CliError, Context, Exit, input};
use crate::api::client::with_query;
use crate::api::routes::Verb;
use crate::api::wire;
use crate::domain::incident::next::ACTORS;
use crate::domain::incident::routes::Route;
use crate::domain::incident::{Accepted, routes, timeline};
use crate::domain::intake::whose;
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::steps::{Certainty, CompromiseClass, Notification};
use crate::domain::names::{DeviceId, Digest, IncidentId, SecParty};
use crate::domain::procedure::Actor;
use crate::domain::procedure::calendar::shown;
use crate::domain::time::Timestamp;

/// Carry incidents through the SMKI Recovery Procedure.
#[derive(Subcommand, Debug)]
pub enum Incident {
    /// Open an incident for a certificate whose Private Key is, or may be, Compromised
    #[command(after_help = "Examples:\n  smkictl incident open INC-2017-07 --certificate compromised.pem \\\n      \
        --notified-by 'Officer One' --party supplier-b --certainty suspected --class organisation --channel telephone \\\n      \
        --notified-at 2017-07-22T02:10:00Z --recovery-event 2017-07-21T22:00:00Z \\\n      \
        --description 'Key material seen on a stolen server'\n  \
        smkictl incident open INC-2017-08 --key root-oca --certificate root.pem --class other --party dcc …")]
    Open(Box<Open>),
    /// Show every incident
    #[command(after_help = "Example:\n  smkictl incident list")]
    List,
    /// Show one incident: where it stands, its duties, its Devices
    #[command(after_help = "Example:\n  smkictl incident show INC-2017-07")]
    Show {
        /// Which
        incident: IncidentId,
    },
    /// Say what is to be done now, and by whom
    #[command(after_help = "Example:\n  smkictl incident next INC-2017-07")]
    Next {
        /// Which
        incident: IncidentId,
    },
    /// Tell an incident's story
    #[command(after_help = "Example:\n  smkictl incident timeline INC-2017-07")]
    Timeline {
        /// Which
        incident: IncidentId,
    },
    /// Show the Relevant Devices and what became of each, as CSV
    #[command(after_help = "Example:\n  smkictl incident devices INC-2017-07 | grep ',yes$'    # the stranded")]
    Devices {
        /// Which
        incident: IncidentId,
    },
    /// Tell one Device's story: each SMI Status with its date, its commands, its Responses
    #[command(after_help = "Example:\n  smkictl incident history INC-2017-07 00DB1234567890A0")]
    History {
        /// In which incident
        incident: IncidentId,
        /// Its EUI-64: 16 digits of 0-9 and A-F
        device: DeviceId,
    },
    /// What moves it on, step by step
    #[command(flatten)]
    Step(steps::Step),
    /// Compare an SMI Status extract that was submitted with what is recorded of the targets: what is new, and what contradicts
    #[command(after_help = "Example:\n  smkictl incident compare-statuses INC-2017-07 --extract 9f86d0…")]
    CompareStatuses {
        /// In which incident
        incident: IncidentId,
        /// SHA-256 of the extract, as `smkictl file submit` answered it
        #[arg(long, value_name = "SHA-256")]
        extract: Digest,
    },
    /// Close an incident; the keys that no other open incident needs are locked
    #[command(
        after_help = "Example:\n  smkictl incident close INC-2017-07 --reason 'All Devices recovered, report sent'"
    )]
    Close(Close),
}

/// Arguments of `open`.
#[derive(Args, Debug)]
pub struct Open {
    /// What to call it: 1 to 40 characters of A-Z, 0-9 and -
    incident: IncidentId,
    /// The certificate (PEM)
    #[arg(long, value_name = "FILE.pem")]
    certificate: PathBuf,
    /// Which key is meant, where it is not the one behind an Organisation Certificate on Devices. The certificate is then that of the OCA, or
    /// of the Recovery Private Key; for contingency material that of the Root OCA that carries it
    #[arg(long, value_enum, requires = "by")]
    key: Option<KeyArg>,
    /// What was notified, as it is to stand in the ledger
    #[arg(long, value_name = "TEXT")]
    description: String,
    #[command(flatten)]
    notified: Notified,
    #[command(flatten)]
    change: Change,
}

/// How it came to be known: asked for where the policy in force has the steps of the procedure. All of it or none.
#[derive(Args, Debug)]
pub struct Notified {
    /// Who notified, by name
    #[arg(
        long = "notified-by",
        value_name = "NAME",
        requires_all = ["party", "certainty", "class", "at", "channel", "recovery_event"]
    )]
    by: Option<String>,
    /// For which Party or RDP, as the policy calls it
    #[arg(long, value_name = "PARTY", requires = "by")]
    party: Option<SecParty>,
    /// Whether the Compromise is proven or feared
    #[arg(long, value_enum, requires = "by")]
    certainty: Option<CertaintyArg>,
    /// Whether the key is behind an Organisation Certificate on Devices, or another one
    #[arg(long, value_enum, requires = "by")]
    class: Option<ClassArg>,
    /// When the notification came
    #[arg(long = "notified-at", value_name = "TIME", requires = "by")]
    at: Option<Timestamp>,
    /// By which way it came, such as telephone
    #[arg(long, value_name = "TEXT", requires = "by")]
    channel: Option<String>,
    /// The Recovery Event: Relevant Devices are those commissioned immediately before it
    #[arg(long, value_name = "TIME", requires = "by")]
    recovery_event: Option<Timestamp>,
}

impl Notified {
    /// All of it, if it was given.
    fn notification(self) -> Option<Notification> {
        let Self { by, party, certainty, class, at, channel, recovery_event } = self;
        let class = match class? {
            ClassArg::Organisation => CompromiseClass::Organisation,
            ClassArg::Other => CompromiseClass::Other,
        };
        Some(Notification {
            by: by?.into(),
            party: party?,
            certainty: certainty?.into(),
            class,
            at: at?,
            channel: channel?.into(),
            recovery_event: recovery_event?,
        })
    }
}

/// Whether a Compromise is proven.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CertaintyArg {
    /// Trust in the key is lost
    Actual,
    /// It may be lost
    Suspected,
}

impl From<CertaintyArg> for Certainty {
    fn from(argument: CertaintyArg) -> Self {
        match argument {
            CertaintyArg::Actual => Self::Actual,
            CertaintyArg::Suspected => Self::Suspected,
        }
    }
}

/// Which kind of key.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ClassArg {
    /// Behind an Organisation Certificate on Devices
    Organisation,
    /// Recovery, Contingency, or an OCA's
    Other,
}

/// Which key with a way of its own (SEC Appendix L 5 and 6).
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyArg {
    /// The Recovery Private Key
    Recovery,
    /// The Contingency Private Key
    Contingency,
    /// The Contingency Symmetric Key
    ContingencySymmetric,
    /// An Issuing OCA Private Key
    IssuingOca,
    /// The Root OCA Private Key
    RootOca,
}

impl From<KeyArg> for OtherKey {
    fn from(argument: KeyArg) -> Self {
        match argument {
            KeyArg::Recovery => Self::Recovery,
            KeyArg::Contingency => Self::Contingency,
            KeyArg::ContingencySymmetric => Self::ContingencySymmetric,
            KeyArg::IssuingOca => Self::IssuingOca,
            KeyArg::RootOca => Self::RootOca,
        }
    }
}

/// Arguments of `close`.
#[derive(Args, Debug)]
pub struct Close {
    /// Which
    incident: IncidentId,
    /// Why, as it is to stand in the ledger
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    change: Change,
}

impl Incident {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Open(open) => open.run(context).await,
            Self::List => {
                let all: wire::Incidents = context.client.get("/v1/incidents").await?;
                context.print.answer(&all, |text| list(&all, text))?;
                Ok(Exit::Done)
            }
            Self::Show { incident } => {
                let one: wire::Incident = context.client.get(&format!("/v1/incidents/{incident}")).await?;
                context.print.answer(&one, |text| show(&one, text))?;
                Ok(Exit::Done)
            }
            Self::Next { incident } => {
                let found: wire::Next = context.client.get(&format!("/v1/incidents/{incident}/next")).await?;
                context.print.answer(&found, |text| next(&incident, &found, text))?;
                Ok(Exit::Done)
            }
            Self::Timeline { incident } => {
                let story = whole_story(&incident, context).await?;
                context.print.answer(&story, |text| {
                    for item in &story.items {
                        text.row(&shown(item.at), format!("{:<14} {}  [entry {}]", item.who, item.what, item.entry));
                    }
                })?;
                Ok(Exit::Done)
            }
            Self::Devices { incident } => {
                let mut csv = context.client.octets(&format!("/v1/incidents/{incident}/devices")).await?;
                while let Some(piece) = csv.next().await? {
                    context.print.octets(&piece)?;
                }
                Ok(Exit::Done)
            }
            Self::History { incident, device } => {
                let story: wire::DeviceHistory =
                    context.client.get(&format!("/v1/incidents/{incident}/devices/{device}")).await?;
                context.print.answer(&story, |text| history(&story, text))?;
                Ok(Exit::Done)
            }
            Self::CompareStatuses { incident, extract } => compare_statuses(&incident, extract, context).await,
            Self::Close(Close { incident, reason, change }) => {
                recorded(context, &format!("/v1/incidents/{incident}/close"), &wire::Why { reason }, change).await
            }
            Self::Step(step) => step.run(context).await,
        }
    }
}

impl Open {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { incident, certificate, key, description, notified, change } = self;
        let certificate_pem = input::text(&certificate, input::DOCUMENT_LEN_MAX)?;
        let notification = notified.notification();
        let key = key.map(OtherKey::from);
        let ask = wire::IncidentOpen { incident, certificate_pem, key, description, notification };
        recorded(context, "/v1/incidents", &ask, change).await
    }
}

fn history(story: &wire::DeviceHistory, text: &mut Text) {
    text.row("Device", story.device).row("incident", &story.incident);
    for item in &story.items {
        let profile = item.profile.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
        let by = if profile.is_empty() { String::new() } else { format!(", {profile}") };
        text.row(&shown(item.at), format!("{:<14} {}  [entry {}{by}]", item.who, item.what, item.entry));
    }
}

fn list(all: &wire::Incidents, text: &mut Text) {
    for incident in &all.incidents {
        let (name, opened) = (incident.incident.as_str(), shown(incident.opened));
        let Some(progress) = &incident.progress else {
            let state = if incident.closed.is_some() { "closed" } else { "open" };
            text.row(name, format!("{state}, opened {opened}"));
            continue;
        };
        let open = progress.duties.iter().filter(|duty| duty.met.is_none()).count();
        let duties = match open {
            0 => String::new(),
            1 => ", 1 duty to inform is open".to_owned(),
            open => format!(", {open} duties to inform are open"),
        };
        let (state, since) = (progress.state, shown(progress.since));
        text.row(name, format!("{state} since {since}, opened {opened}{duties}: {}", incident.description));
    }
    if all.incidents.is_empty() {
        text.line("There are no incidents.");
    }
}

/// What stands in capitals in a command is to be put in.
const PUT_IN: &str =
    "What stands in CAPITALS is yours to put in. TIME is such as 2017-07-22T03:10:00+01:00, DATE such as 2017-07-22.";

fn next(incident: &IncidentId, found: &wire::Next, text: &mut Text) {
    let (state, since) = (found.state, shown(found.since));
    text.line(&format!("Incident {incident} is {state} since {since}: {}.", state.meaning()));
    for todo in &found.todo {
        let may = if todo.required { "" } else { " (may)" };
        let by = todo.by.as_ref().map(|by| format!(" [{by}]")).unwrap_or_default();
        let due = todo.due.map(|due| format!("; until {}", shown(due))).unwrap_or_default();
        text.row(&format!("{}{may}", todo.who), format!("{}{due}{by}", todo.what));
        if let Some(command) = &todo.command {
            text.row("", format!("  {}", command.replace("INCIDENT", incident.as_str())));
        }
    }
    if found.todo.is_empty() {
        text.line("Nothing is to be done.");
        return;
    }
    let idle = |who: &&Actor| !found.todo.iter().any(|todo| todo.who == **who);
    let idle: Vec<String> = ACTORS.iter().filter(idle).map(ToString::to_string).collect();
    if !idle.is_empty() {
        text.line(&format!("Nothing now for: {}.", idle.join(", ")));
    }
    if found.todo.iter().any(|todo| todo.command.is_some()) {
        text.line(PUT_IN);
    }
}

/// Shows the lines of an extract that are not what is recorded, and says how to record those that may be.
async fn compare_statuses(incident: &IncidentId, extract: Digest, context: &Context) -> Result<Exit, CliError> {
    /// Columns before the one that says what was found; none of them has a comma in it.
    const BEFORE_FOUND: usize = 6;
    let path = format!("/v1/incidents/{incident}/files/{extract}/statuses");
    let (mut csv, mut part) = (context.client.octets(&path).await?, Vec::new());
    let (mut changes, mut contradictions) = (0_u64, 0_u64);
    while let Some(piece) = csv.next().await? {
        context.print.octets(&piece)?;
        for octet in piece {
            if octet != b'\n' {
                part.push(octet);
                continue;
            }
            match part.split(|octet| *octet == b',').nth(BEFORE_FOUND) {
                Some(b"new") => changes += 1,
                Some(b"contradiction") => contradictions += 1,
                Some(_) | None => {}
            }
            part.clear();
        }
    }
    context.print.note(&format!("{changes} changes and {contradictions} contradictions"));
    if changes > 0 {
        context.print.note(&format!(
            "To record the changes: smkictl incident import-statuses {incident} --extract {extract} --changes {changes} \
             --contradictions {contradictions}"
        ));
    }
    Ok(if contradictions == 0 { Exit::Done } else { Exit::Unverified })
}

/// Every part of a story, put together.
async fn whole_story(incident: &IncidentId, context: &Context) -> Result<wire::Timeline, CliError> {
    let mut story = wire::Timeline { items: Vec::new(), next: None };
    loop {
        let of = [("from", story.next.map(|from| from.to_string()))];
        let part: wire::Timeline =
            context.client.get(&with_query(&format!("/v1/incidents/{incident}/timeline"), &of)).await?;
        story.items.extend(part.items);
        story.next = part.next;
        if story.next.is_none() {
            return Ok(story);
        }
    }
}

fn show(incident: &wire::Incident, text: &mut Text) {
    text.row("incident", &incident.incident);
    if let Some(progress) = &incident.progress {
        text.row("state", format!("{} since {}", progress.state, shown(progress.since)))
            .row("", progress.state.meaning());
    }
    text.row("opened", shown(incident.opened))
        .some("closed", incident.closed.map(shown))
        .row("description", &incident.description)
        .row(
            "compromised",
            format!("certificate {} of {}", incident.compromised.certificate_sha256, whose(incident.compromised.party)),
        )
        .some("key", incident.key.map(routes::name));
    if let Some(progress) = &incident.progress {
        let notification = &progress.notification;
        let certainty = match notification.certainty {
            Certainty::Actual => "actual",
            Certainty::Suspected => "suspected",
        };
        text.row("class", format!("{}, {certainty}", timeline::class(notification.class)))
            .row(
                "notified",
                format!(
                    "{} of {}, by {}, at {}",
                    notification.by,
                    notification.party,
                    notification.channel,
                    shown(notification.at)
                ),
            )
            .row("recovery event", shown(notification.recovery_event))
            .some("method", progress.method.map(timeline::method));
    }
    if let Some(key) = incident.key {
        let Route { methods, acts, renew, refuses, text: by } = routes::of(Some(key));
        let methods: Vec<&str> = methods.iter().map(|method| timeline::method(*method)).collect();
        text.row("way out", methods.join(" or "))
            .row("who can act", acts)
            .row("made anew", renew)
            .row("refused", refuses)
            .row("by", by);
    }
    for determination in &incident.determinations {
        text.row("determination", determination);
    }
    let Some(progress) = &incident.progress else { return };
    devices(progress, text);
    let mut duties: Vec<&wire::Duty> = progress.duties.iter().collect();
    duties.sort_by_key(|duty| duty.arisen);
    for duty in duties {
        let (state, tone) = match (duty.met, duty.due) {
            (Some(entry), _) => (format!("met, entry {entry}"), Tone::Good),
            (None, Some(due)) => (format!("OPEN, until {}", shown(due)), Tone::Warning),
            (None, None) => ("OPEN".to_owned(), Tone::Warning),
        };
        text.toned("duty", format!("{} to inform the {}: {state}", duty.duty, duty.recipient), tone);
    }
}

/// The Relevant Devices, as far as they are known.
fn devices(progress: &wire::Progress, text: &mut Text) {
    let counts = progress.devices;
    if counts.targets == 0 {
        text.row("devices", "none named yet: they are, when the incident is assessed");
        return;
    }
    text.row(
        "devices",
        format!(
            "{} targets: {} proven recovered, {} failed, {} left out, {} outstanding",
            counts.targets, counts.succeeded, counts.failed, counts.excluded, counts.outstanding
        ),
    )
    .row("SMI Status", format!("{} in 'recovery', {} in 'recovered'", counts.in_recovery, counts.recovered));
    if counts.wanted_again > 0 {
        text.row(
            "again",
            format!("{} recovered under an earlier determination, to be recovered again", counts.wanted_again),
        );
    }
    if counts.under_dcc_control > 0 {
        text.row("DCC's control", format!("{} to be handed over", counts.under_dcc_control));
    }
    let of = |stranded| Accepted { stranded, overridden: progress.overridden_accepted.unwrap_or_default() };
    let accepted = progress.stranded_accepted.map(of);
    if let Some(left) = counts.to_accept() {
        let is = match (progress.state.has_ended(), accepted == Some(left)) {
            (_, true) => "accepted",
            (true, false) => "NOT ACCEPTED yet",
            (false, false) => "if the incident ended now",
        };
        text.row("stranded", format!("{}, {is}", left.stranded));
        if left.overridden > 0 {
            text.row("overridden", format!("{} out of 'recovery' without proof, {is}", left.overridden));
        }
    }
}

/// Sends what is answered by the entry that records it.
pub(super) async fn recorded<T: serde::Serialize>(
    context: &Context,
    path: &str,
    ask: &T,
    change: Change,
) -> Result<Exit, CliError> {
    if change.dry_run {
        return context.would_send(Verb::Post, path, Some(ask));
    }
    let recorded: wire::Recorded = context.client.post(path, ask).await?;
    context.print.answer(&recorded, |text| {
        text.row("recorded", format!("entry {}", recorded.entry));
    })?;
    Ok(Exit::Done)
}
