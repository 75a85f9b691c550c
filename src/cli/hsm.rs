//! Shell: `smkictl hsm`.

use clap::{Args, Subcommand};

use super::print::{Text, Tone};
use super::{Change, CliError, Context, Exit};
use crate::api::routes::Verb;
use crate::api::wire::{self, TokenCircuit};
use crate::domain::names::{KeyLabel, TokenName};

/// Show how the tokens stand, and let a PIN be offered again.
#[derive(Subcommand, Debug)]
pub enum Hsm {
    /// Show every token: whether it is up, since when, and what stands in its way
    #[command(after_help = "Examples:\n  smkictl hsm status\n  smkictl hsm status --output json")]
    Status,
    /// Let the PIN of a token be offered again, once you have put it right
    #[command(
        after_help = "Example:\n  smkictl hsm retry-login ledger\n\nA refused PIN is offered once and never again by itself, \
        whatever restarts, so that no loop locks the token.\nPut the right PIN where `pin` of the token says; a credential of \
        systemd is read at the start of the service,\nso `systemctl restart smkid` comes first there. Then this. It is recorded."
    )]
    RetryLogin(RetryLogin),
}

/// Arguments of `retry-login`.
#[derive(Args, Debug)]
pub struct RetryLogin {
    /// The token, as `smkictl hsm status` shows it
    token: TokenName,
    #[command(flatten)]
    change: Change,
}

impl Hsm {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Status => {
                let all: wire::Tokens = context.client.get("/v1/hsm").await?;
                context.print.answer(&all, |text| {
                    for token in &all.tokens {
                        rows(token, text);
                    }
                })?;
            }
            Self::RetryLogin(RetryLogin { token, change }) => {
                let path = format!("/v1/hsm/{token}/retry-login");
                if change.dry_run {
                    return context.would_send::<()>(Verb::Post, &path, None);
                }
                let retried: wire::LoginRetried = context.client.post_nothing(&path).await?;
                context.print.answer(&retried, |text| {
                    let entry = retried
                        .entry
                        .map_or_else(|| "once the ledger token is up".to_owned(), |entry| format!("entry {entry}"));
                    text.row("token", format!("{} may be offered its PIN again", retried.token.token))
                        .row("before", &retried.was)
                        .row("recorded", entry);
                    if retried.token.circuit == TokenCircuit::Idle {
                        text.row("next", "activate the key on it again, with `smkictl key activate`");
                    } else {
                        text.row("next", "it is tried now; `smkictl hsm status` shows what came of it");
                    }
                })?;
            }
        }
        Ok(Exit::Done)
    }
}

/// How a token stands, and what to do about it.
pub fn say(token: &wire::TokenStanding, text: &mut Text) {
    let tone = match token.circuit {
        TokenCircuit::Idle | TokenCircuit::Up => Tone::Good,
        TokenCircuit::Trying => Tone::Warning,
        TokenCircuit::Down | TokenCircuit::Locked => Tone::Bad,
    };
    text.toned(&format!("token {}", token.token), standing(token), tone);
    if let Some(trouble) = &token.trouble {
        text.toned("", format!("{}. {}", trouble.what, trouble.remedy), Tone::Bad);
    }
}

fn standing(token: &wire::TokenStanding) -> String {
    let since = token.since.map_or_else(String::new, |since| format!(" since {since}"));
    let until = token.until.map_or_else(String::new, |until| format!(", tried again at {until}"));
    let failures = match token.failures {
        0 => String::new(),
        1 => ", 1 failure".to_owned(),
        more => format!(", {more} failures in a row"),
    };
    match token.circuit {
        TokenCircuit::Idle => "idle: no key on it is active".to_owned(),
        TokenCircuit::Up => format!("up{since}"),
        TokenCircuit::Down => format!("down{since}{failures}{until}"),
        TokenCircuit::Trying => format!("being tried{failures}"),
        TokenCircuit::Locked => format!("waits for an operator{since}"),
    }
}

fn rows(token: &wire::TokenState, text: &mut Text) {
    let keys: Vec<&str> = token.keys.iter().map(KeyLabel::as_str).collect();
    say(&token.standing, text);
    text.row("", format!("label {:?}, serial number {:?}, keys: {}", token.label, token.serial, keys.join(", ")));
    if let Some(is_a) = &token.is_a {
        text.row("", is_a);
    }
    if let (Some(worker), Some(sessions)) = (token.worker, token.sessions) {
        let wanted = token.sessions_wanted.filter(|wanted| *wanted != sessions);
        let of = wanted.map_or_else(String::new, |wanted| format!(" of {wanted}"));
        text.row("", format!("worker {worker}, {sessions}{of} sessions, {}", token.module));
        if let Some(why) = &token.sessions_lacking {
            text.toned("", format!("fewer sessions sign than are wanted: {why}"), Tone::Warning);
        }
    }
}
