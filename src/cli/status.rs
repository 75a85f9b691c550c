//! Shell: `smkictl status`.

use clap::Args;

use super::print::{Text, Tone};
use super::{CliError, Context, Exit, hsm};
use crate::api::wire::{self, KeyToken, KeyTokenState, ServiceState};
use crate::domain::ledger::entry::ClockState;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600_000;

/// Show what the daemon is doing, whether it can sign, and what stands in the way.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  smkictl status\n  smkictl status --output json")]
pub struct Status {}

/// The tokens of a key that has several, and why it is not active on some. What is wrong with a token itself is told with that token.
fn tokens(text: &mut Text, tokens: &[KeyToken]) {
    for token in tokens {
        let name = &token.token;
        match token.state {
            KeyTokenState::Off => text.row("", format!("on {name}: not logged in")),
            KeyTokenState::Up => text.row("", format!("on {name}: up")),
            KeyTokenState::Down => text.toned("", format!("on {name}: down, left out until it is back"), Tone::Warning),
            KeyTokenState::Locked => text.toned("", format!("on {name}: waits for an operator, left out"), Tone::Bad),
            KeyTokenState::LeftOut => {
                let why =
                    token.trouble.as_ref().map_or_else(String::new, |why| format!(": {}. {}", why.what, why.remedy));
                text.toned("", format!("on {name}: left out, the key was not activated on it{why}"), Tone::Warning)
            }
        };
    }
}

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
            let wire::Clock { now, wall, state, offset_ms } = status.clock;
            match state {
                ClockState::Trusted => text.row("clock", now),
                ClockState::Untrusted => {
                    text.toned("clock", format!("{wall}, not trusted; the ledger goes on at {now}"), Tone::Bad)
                }
                ClockState::SetForExercise => text.toned("clock", format!("{now}, not the true time"), Tone::Warning),
            };
            if offset_ms != 0 {
                let side = if offset_ms < 0 { "behind" } else { "ahead of" };
                let (ms, days) = (offset_ms.unsigned_abs(), offset_ms.unsigned_abs() / DAY_MS);
                let set = format!("set for an exercise, {ms} ms ({days} days) {side} this machine's clock");
                text.toned("", set, Tone::Warning);
            }
            for key in &status.keys {
                let state = match (key.active, key.until) {
                    (true, Some(until)) => {
                        let of = key.incident.as_ref().map(|incident| format!(" for incident {incident}"));
                        format!("active{} until {until}", of.unwrap_or_default())
                    }
                    (true, None) => "active".to_owned(),
                    // Not locked by anybody: no token of it is up.
                    (false, _) if key.trouble.is_some() => "cannot be used now".to_owned(),
                    (false, _) => "locked".to_owned(),
                };
                text.row(&format!("key {}", key.key), format!("{} on token {}, {state}", key.use_, key.token));
                if let Some(contingency) = &key.contingency {
                    symmetric(text, contingency);
                }
                if let [_] | [] = key.tokens.as_slice() {
                    if let Some(trouble) = &key.trouble {
                        text.toned("", format!("{}. {}", trouble.what, trouble.remedy), Tone::Bad);
                    }
                } else {
                    tokens(text, &key.tokens);
                }
            }
            for token in &status.tokens {
                hsm::say(token, text);
            }
            let open = match status.incidents_open {
                0 => "0".to_owned(),
                open => format!("{open}; `smkictl incident list` shows them, `incident next` what is to be done"),
            };
            text.row("open incidents", open).row("determinations in force", status.determinations_in_force);
            if !status.jobs.is_empty() {
                let count = |of: &wire::JobCount| format!("{} {}", of.count, of.state.as_str());
                let counts: Vec<String> = status.jobs.iter().map(count).collect();
                text.row("jobs", format!("{}; `smkictl recovery status` shows them", counts.join(", ")));
            }
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

/// How the symmetric key of a contingency key stands.
fn symmetric(text: &mut Text, contingency: &wire::ContingencyState) {
    let wire::ContingencyState { root, spent, released, held } = contingency;
    match root {
        Some(root) => text.row("  in the Root OCA Certificate", root),
        None => text.toned("  in the Root OCA Certificate", "of none that was imported", Tone::Warning),
    };
    let state = match (released, held) {
        (Some(determination), true) => format!("held by smkid, for determination {determination}"),
        (Some(_) | None, _) => "in the token alone".to_owned(),
    };
    text.row("  symmetric key", state);
    if let Some(wire::SpentFor { incident, .. }) = spent {
        let said = format!("for incident {incident}, and no other: this generation is to be replaced");
        text.toned("  spent", said, Tone::Warning);
    }
}
