//! Shell: `smkictl incident`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::print::Text;
use super::{Change, CliError, Context, Exit, input};
use crate::api::routes::Verb;
use crate::api::wire;
use crate::domain::names::IncidentId;

/// Open, show and close incidents.
#[derive(Subcommand, Debug)]
pub enum Incident {
    /// Open an incident for a certificate whose Private Key is, or may be, Compromised
    #[command(after_help = "Example:\n  smkictl incident open INC-2017-07 --certificate compromised.pem \\\n      \
        --description 'Notified by the Subscriber by telephone at 02:10, confirmed in writing'")]
    Open(Open),
    /// Show every incident
    #[command(after_help = "Example:\n  smkictl incident list")]
    List,
    /// Show one incident
    #[command(after_help = "Example:\n  smkictl incident show INC-2017-07")]
    Show {
        /// Which
        incident: IncidentId,
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
    /// What was notified, as it is to stand in the ledger
    #[arg(long, value_name = "TEXT")]
    description: String,
    #[command(flatten)]
    change: Change,
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
            Self::Open(Open { incident, certificate, description, change }) => {
                let certificate_pem = input::text(&certificate, input::DOCUMENT_LEN_MAX)?;
                let ask = wire::IncidentOpen { incident, certificate_pem, description };
                recorded(context, "/v1/incidents", &ask, change).await
            }
            Self::List => {
                let all: wire::Incidents = context.client.get("/v1/incidents").await?;
                context.print.answer(&all, |text| {
                    for incident in &all.incidents {
                        let state = if incident.closed.is_some() { "closed" } else { "open" };
                        text.row(incident.incident.as_str(), format!("{state}, since {}", incident.opened));
                    }
                    if all.incidents.is_empty() {
                        text.line("There are no incidents.");
                    }
                })?;
                Ok(Exit::Done)
            }
            Self::Show { incident } => {
                let one: wire::Incident = context.client.get(&format!("/v1/incidents/{incident}")).await?;
                context.print.answer(&one, |text| show(&one, text))?;
                Ok(Exit::Done)
            }
            Self::Close(Close { incident, reason, change }) => {
                recorded(context, &format!("/v1/incidents/{incident}/close"), &wire::Why { reason }, change).await
            }
        }
    }
}

fn show(incident: &wire::Incident, text: &mut Text) {
    text.row("incident", &incident.incident)
        .row("opened", incident.opened)
        .some("closed", incident.closed)
        .row("description", &incident.description)
        .row(
            "compromised",
            format!("certificate {} of {}", incident.compromised.certificate_sha256, incident.compromised.party),
        );
    for determination in &incident.determinations {
        text.row("determination", determination);
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
