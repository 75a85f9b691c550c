//! Shell: `smkictl status`.

use clap::Args;

use super::print::Tone;
use super::{CliError, Context, Exit};
use crate::api::wire::{self, ServiceState};
use crate::domain::ledger::entry::ClockState;

/// Show what the daemon is doing, whether it can sign, and what stands in the way.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  smkictl status\n  smkictl status --output json")]
pub struct Status {}

impl Status {
    /// Asks and shows.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let status: wire::Status = context.client.get("/v1/status").await?;
        context.print.answer(&status, |text| {
            let (state, tone) = match status.state {
                ServiceState::Ready => ("ready", Tone::Good),
                ServiceState::ReadOnly => ("answers reads only", Tone::Warning),
                ServiceState::Stopping => ("stopping", Tone::Warning),
            };
            text.toned("state", state, tone)
                .row("version", &status.version)
                .row("purpose", status.purpose)
                .row(
                    "ledger",
                    format!("{}, {} entries, root {}", status.origin, status.ledger.size, status.ledger.root),
                )
                .row("genesis", status.genesis);
            match &status.policy {
                Some(policy) => text.row("policy", format!("number {}, {}", policy.sequence, policy.sha256)),
                None => text.toned("policy", "none", Tone::Bad),
            };
            match status.clock.state {
                ClockState::Trusted => text.row("clock", status.clock.now),
                ClockState::Untrusted => {
                    text.toned("clock", format!("{}, not trusted: it jumped", status.clock.now), Tone::Bad)
                }
            };
            for key in &status.keys {
                let state = match (key.active, key.until) {
                    (true, Some(until)) => format!("active until {until}"),
                    (true, None) => "active".to_owned(),
                    (false, _) => "locked".to_owned(),
                };
                text.row(&format!("key {}", key.key), format!("{} on token {}, {state}", key.use_, key.token));
                if let Some(trouble) = &key.trouble {
                    text.toned("", format!("{}. {}", trouble.what, trouble.remedy), Tone::Bad);
                }
            }
            text.row("open incidents", status.incidents_open)
                .row("determinations in force", status.determinations_in_force);
            if status.unknowns > 0 {
                let unknowns = format!("{}; see smkictl recovery settle --help", status.unknowns);
                text.toned("unknown outcomes", unknowns, Tone::Warning);
            }
            for reminder in &status.reminders {
                text.toned("reminder", format!("{}. {}", reminder.what, reminder.remedy), Tone::Warning);
            }
            for problem in &status.problems {
                text.toned("problem", format!("{}. {}", problem.what, problem.remedy), Tone::Bad);
            }
        })?;
        Ok(Exit::Done)
    }
}
