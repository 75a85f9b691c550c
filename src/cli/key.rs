//! Shell: `smkictl key`.

use clap::{Args, Subcommand};

use super::print::{Text, Tone};
use super::{Change, CliError, Context, Exit, custodian, input};
use crate::api::client::ClientError;
use crate::api::routes::Verb;
use crate::api::wire::{self, KeyTokenState};
use crate::domain::ledger::contingency::{CheckResult, ReleaseResult};
use crate::domain::names::{DeterminationId, IncidentId, KeyLabel, RequestId};

/// Activate and lock keys.
#[derive(Subcommand, Debug)]
pub enum Key {
    /// Open a key for one incident, until it is locked or its time is over
    #[command(after_help = "Example:\n  smkictl key activate recovery-1 --incident INC-2026-11-24")]
    Activate(Activate),
    /// Lock a key: what is not yet signed is not signed
    #[command(after_help = "Example:\n  smkictl key lock recovery")]
    Lock(Which),
    /// Release the Contingency Symmetric Key into the commands of a determination: the first time spends it
    #[command(after_help = "\
Examples:
  smkictl key release-symmetric contingency-1 --determination 5f2c… --check
  smkictl key release-symmetric contingency-1 --determination 5f2c…

The token unwraps the public key in the Root OCA Certificate that the Devices hold and compares it with the key's own; that is recorded, and what \
differs stops here. Then it is recorded that the symmetric key is spent, and for which incident: it is released for no other, and the generation has \
to be replaced, whatever comes of it. Then the token gives it out, to smkid alone, which keeps it in memory and puts it into each command \
that it signs or hands over. It is gone when the key is locked, its time is over, or smkid ends: another release under the same determination brings \
it back.")]
    ReleaseSymmetric(ReleaseSymmetric),
}

/// Arguments of a release.
#[derive(Args, Debug)]
pub struct ReleaseSymmetric {
    #[command(flatten)]
    which: Which,
    /// The determination whose commands have it inside
    #[arg(long, value_name = "ID")]
    determination: DeterminationId,
    /// Have the token compare the Root OCA Certificate with the key, which is recorded, and release nothing
    #[arg(long)]
    check: bool,
    /// The request's id, to ask again what became of one; else a new one is chosen and printed
    #[arg(long, value_name = "ID")]
    request: Option<RequestId>,
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
            Self::ReleaseSymmetric(release) => return release.run(context).await,
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

impl ReleaseSymmetric {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { which: Which { key, change }, determination, check, request } = self;
        let request = match request {
            Some(request) => request,
            None => input::request_id()?,
        };
        let path = format!("/v1/keys/{key}/symmetric-release");
        let ask = wire::SymmetricRelease { request, determination, check_only: check };
        if change.dry_run {
            return context.would_send(Verb::Post, &path, Some(&ask));
        }
        if !check {
            context.print.note(&format!("request {request} (to ask what became of it: --request {request})"));
        }
        let released: wire::SymmetricReleased = context.client.post(&path, &ask).await?;
        context.print.answer(&released, |text| released_rows(&released, text))?;
        Ok(match (&released.outcome, released.checked.as_ref().map(|checked| &checked.result)) {
            (Some(ReleaseResult::Released), _) | (None, Some(CheckResult::Matches) | None) => Exit::Done,
            (None, Some(CheckResult::Differs(_))) => Exit::Unverified,
            (None, Some(CheckResult::Failed(_))) | (Some(ReleaseResult::Failed(_) | ReleaseResult::Unknown(_)), _) => {
                Exit::Unreachable
            }
            (Some(ReleaseResult::NotReleased(_)), _) => Exit::Refused,
        })
    }
}

fn released_rows(released: &wire::SymmetricReleased, text: &mut Text) {
    let wire::SymmetricReleased { key, determination, checked, spent_before, intent, outcome, held } = released;
    text.row("key", key).row("determination", determination);
    if let Some(wire::CheckedRoot { entry, root, result }) = checked {
        text.row("root", root);
        let (found, tone) = match result {
            CheckResult::Matches => ("its field unwraps to this key's public half".to_owned(), None),
            CheckResult::Differs(why) => (format!("it is not this key's: {why}"), Some(Tone::Bad)),
            CheckResult::Failed(why) => (format!("it could not be compared: {why}"), Some(Tone::Bad)),
        };
        let found = format!("{found} (entry {entry})");
        match tone {
            None => text.row("checked", found),
            Some(tone) => text.toned("checked", found, tone),
        };
    }
    let Some(outcome) = outcome else {
        text.row("released", "no: only the check was asked for");
        return;
    };
    let again = format!(
        "the same again with a new request id: smkictl key release-symmetric {key} --determination {determination}"
    );
    let (said, tone) = match outcome {
        ReleaseResult::Released if *held => ("held by smkid until the key is locked".to_owned(), None),
        ReleaseResult::Released => (format!("released before, and held no longer; {again}"), Some(Tone::Warning)),
        ReleaseResult::Failed(why) => (format!("the token failed: {why}; {again}"), Some(Tone::Bad)),
        ReleaseResult::NotReleased(why) => (format!("not released: {why}"), Some(Tone::Bad)),
        ReleaseResult::Unknown(why) => (format!("unknown whether it left the token: {why}; {again}"), Some(Tone::Bad)),
    };
    match tone {
        None => text.row("symmetric key", said),
        Some(tone) => text.toned("symmetric key", said, tone),
    };
    text.some("recorded", intent.map(|intent| format!("entry {intent}")));
    let spent = if *spent_before { "before this" } else { "by this: its generation is to be replaced" };
    text.toned("spent", spent, Tone::Warning);
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
