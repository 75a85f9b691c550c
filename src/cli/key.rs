//! Shell: `smkictl key`.

use clap::{Args, Subcommand};

use super::print::Text;
use super::{Change, CliError, Context, Exit, custodian};
use crate::api::client::ClientError;
use crate::api::routes::Verb;
use crate::api::wire::{self, KeyTokenState};
use crate::domain::names::{IncidentId, KeyLabel};

/// Activate and lock keys.
#[derive(Subcommand, Debug)]
pub enum Key {
    /// Open a key for one incident, until it is locked or its time is over
    #[command(after_help = "Example:\n  smkictl key activate recovery-1 --incident INC-2026-11-24")]
    Activate(Activate),
    /// Lock a key: what is not yet signed is not signed
    #[command(after_help = "Example:\n  smkictl key lock recovery")]
    Lock(Which),
}

/// Arguments of an activation.
#[derive(Args, Debug)]
pub struct Activate {
    #[command(flatten)]
    which: Which,
    /// The incident whose determination requires the key: it signs for no other
    #[arg(long)]
    incident: IncidentId,
}

/// Arguments of both.
#[derive(Args, Debug)]
pub struct Which {
    /// The key's label, as `smkictl status` shows it
    key: KeyLabel,
    #[command(flatten)]
    change: Change,
}

impl Key {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let (which, ask) = match self {
            Self::Activate(Activate { which, incident }) => (which, Some(wire::KeyActivate { incident })),
            Self::Lock(which) => (which, None),
        };
        let action = if ask.is_some() { "activate" } else { "lock" };
        let path = format!("/v1/keys/{}/{action}", which.key);
        if which.change.dry_run {
            return context.would_send(Verb::Post, &path, ask.as_ref());
        }
        let changed: wire::KeyChanged = match &ask {
            Some(ask) => match context.client.post(&path, ask).await {
                Ok(changed) => changed,
                Err(error) => {
                    tell_who_is_missing(context, &which.key, &error).await;
                    return Err(error.into());
                }
            },
            None => context.client.post_nothing(&path).await?,
        };
        context.print.answer(&changed, |text| {
            let state = if changed.key.active { "active" } else { "locked" };
            text.row("key", format!("{} is {state}", changed.key.key))
                .some("for incident", changed.key.incident.as_ref())
                .some("until", changed.key.until)
                .row("recorded", format!("entry {}", changed.entry));
            let up = changed.key.tokens.iter().filter(|token| token.state == KeyTokenState::Up);
            let up: Vec<&str> = up.map(|token| token.token.as_str()).collect();
            if !up.is_empty() {
                text.row("on", up.join(", "));
            }
        })?;
        if changed.key.active {
            for token in changed.key.tokens.iter().filter(|token| token.state != KeyTokenState::Up) {
                let why = token.trouble.as_ref().map_or("", |trouble| trouble.what.as_str());
                context.print.warning(&format!("not on token {}: {why}", token.token));
            }
        }
        Ok(Exit::Done)
    }
}

/// Where a key stays locked because too few Key Custodians presented: who is there, and who can still come.
async fn tell_who_is_missing(context: &Context, key: &KeyLabel, error: &ClientError) {
    let ClientError::Problem(problem) = error else { return };
    let is_short =
        problem.reasons.iter().any(|reason| matches!(&*reason.rule, "custodians" | "custodians-of-one-party"));
    if !is_short {
        return;
    }
    // What was refused is told in any case; this is beside it.
    let Ok(status) = context.client.get::<wire::Status>("/v1/status").await else { return };
    let custody = status.keys.into_iter().find(|found| found.key == *key).and_then(|found| found.custody);
    if let Some(custody) = custody {
        let mut text = Text::default();
        custodian::standing(&custody, &mut text);
        context.print.rows(&text);
    }
}
