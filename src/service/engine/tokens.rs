//! Shell: how the tokens stand, in the words of the API; and an operator who lets a PIN be offered again.

use std::sync::Arc;

use super::super::configuration;
use super::super::keys::{ActivationError, Keys};
use super::super::start::StartFault;
use super::keys::{closed, locked, shut_down};
use super::{Answer, Daemon};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire::{self, TokenCircuit, TokenStanding, TokenState, Tokens, Trouble};
use crate::domain::fold::Fold;
use crate::domain::ledger::entry::{Actor, Event, LoginRetried};
use crate::domain::names::{KeyLabel, TokenName};
use crate::hsm::offers::Asked;
use crate::hsm::{Circuit, Standing, Token};
use crate::recorder::shortened;

/// Every token of the configuration and how it stands.
pub(super) fn standings(keys: &Keys) -> Vec<TokenStanding> {
    keys.tokens().into_iter().map(|(settings, token)| standing(keys, settings, token.as_ref())).collect()
}

fn standing(keys: &Keys, settings: &configuration::Token, token: Option<&Token>) -> TokenStanding {
    let name = settings.name.clone();
    let Some(token) = token else {
        // Nobody is logged in; but a PIN that was refused is worth knowing before the key is activated again.
        let withheld = match keys.offers(settings) {
            Ok(offers) => offers.mark().withheld().map(|why| format!("no PIN is offered: {why}")),
            Err(error) => Some(error.to_string()),
        };
        let circuit = if withheld.is_some() { TokenCircuit::Locked } else { TokenCircuit::Idle };
        let trouble = withheld.map(|what| Trouble {
            what,
            remedy: format!("Put the PIN right, then `smkictl hsm retry-login {name}`, then activate the key"),
        });
        return TokenStanding { token: name, circuit, since: None, until: None, failures: 0, trouble };
    };
    let Standing { circuit, since, failures, why } = token.standing();
    let (circuit, until, remedy) = match circuit {
        Circuit::Up => (TokenCircuit::Up, None, String::new()),
        Circuit::Down { until } => (TokenCircuit::Down, Some(until), "It is tried again by itself".to_owned()),
        Circuit::Trying => (TokenCircuit::Trying, None, "It is being tried".to_owned()),
        Circuit::Locked => (TokenCircuit::Locked, None, "Nothing is tried by itself until then".to_owned()),
    };
    let trouble = why.map(|why| Trouble { what: why.to_string(), remedy });
    let failures = if circuit == TokenCircuit::Up { 0 } else { failures };
    TokenStanding { token: name, circuit, since: Some(since), until, failures, trouble }
}

/// All that is known of every token.
fn states(keys: &Keys, fold: &Fold) -> Vec<TokenState> {
    let state = |(settings, token): (&configuration::Token, Option<Token>)| {
        let report = token.as_ref().and_then(Token::report);
        let held = token.as_ref().and_then(Token::sessions);
        let on_it = fold.keys().values().filter(|key| key.serial_on(&settings.name).is_some());
        TokenState {
            standing: standing(keys, settings, token.as_ref()),
            label: settings.label.clone(),
            serial: settings.serial.clone(),
            module: settings.module.display().to_string(),
            keys: on_it.map(|key| key.record.label.clone()).collect(),
            worker: token.as_ref().and_then(Token::worker_pid),
            sessions: held.as_ref().map(|held| held.open),
            sessions_wanted: report.as_ref().map(|report| report.sessions),
            sessions_lacking: held.and_then(|held| held.lacking),
            is_a: report
                .map(|report| format!("{} {}, firmware {}", report.manufacturer, report.model, report.firmware)),
        }
    };
    keys.tokens().into_iter().map(state).collect()
}

impl Daemon {
    pub(super) async fn tokens(&self) -> Answer<Tokens> {
        let keys = Arc::clone(&self.keys);
        let tokens = self.read(move |recorder| Ok(states(&keys, recorder.fold())));
        Ok(Tokens { tokens: tokens.await? })
    }

    /// Records who lets the PIN be offered again, then does. That of the ledger token cannot be recorded before it is up: then the
    /// journal has it at once, the token's mark keeps it across restarts, and the ledger is told once it can be.
    pub(super) async fn retry_login(&self, caller: &Caller, name: TokenName) -> Answer<wire::LoginRetried> {
        let keys = Arc::clone(&self.keys);
        let asked_about = name.clone();
        let (settings, was) =
            waited(move || Ok((keys.settings(&asked_about)?.clone(), keys.withheld(&asked_about)?))).await?;
        let Some(was) = was else {
            return Err(Failure::Unavailable {
                why: format!("nothing withholds the PIN of token {name}"),
                remedy: "`smkictl hsm status` says how it stands".into(),
            });
        };
        let actor = caller.actor();
        let retried = LoginRetried {
            token: name.clone(),
            serial: settings.serial.clone().into(),
            asked: self.clock.now().at,
            was: shortened(&was).into(),
        };
        tracing::info!(token = %name, account = %actor.account, "its PIN may be offered again, by an operator: {was}");
        let is_ledger = self.keys.ledger().is_some_and(|token| *token.name() == name);
        let (entry, asked) = if is_ledger {
            (None, Some(Asked { by: actor, retried }))
        } else {
            let recorded = self.change(move |recorder| {
                let by = recorder.known(actor);
                recorder.queue(&by, Event::LoginRetried(retried)).map(Ok)
            });
            (Some(recorded.await?), None)
        };
        let keys = Arc::clone(&self.keys);
        let asked_about = name.clone();
        waited(move || keys.retry_login(&asked_about, asked)).await?;
        let found = standings(&self.keys).into_iter().find(|standing| standing.token == name);
        let token = found.ok_or_else(|| Failure::NotFound { what: format!("token {name}") })?;
        Ok(wire::LoginRetried { entry, was, token })
    }

    /// Locks a key while nothing can be recorded: to stop is never put off. It is recorded once it can be; until then whoever
    /// asked is told that it is not.
    pub(super) async fn lock_unrecorded<R>(&self, actor: Actor, key: KeyLabel, trouble: wire::Trouble) -> Answer<R> {
        let (keys, label) = (Arc::clone(&self.keys), key.clone());
        let stopped = tokio::task::spawn_blocking(move || {
            keys.fence();
            keys.remove(&label).map(shut_down)
        });
        let closing = stopped.await.map_err(|error| Failure::Internal { what: error.to_string() })?;
        closed(closing).await;
        tracing::warn!(key = %key, account = %actor.account, "locked on demand while nothing can be recorded");
        let (desk, label) = (self.desk.clone(), key.clone());
        tokio::spawn(async move {
            let recorded = desk.record(move |recorder| {
                let by = recorder.known(actor);
                recorder.queue(&by, locked(recorder.fold(), &label, "on demand"))
            });
            let _ = recorded.await;
        });
        Err(Failure::Unavailable {
            why: format!(
                "key {key} is locked, and what was not at the token is not signed. That is not recorded yet: {}",
                trouble.what
            ),
            remedy: format!("It is recorded once it can be. {}", trouble.remedy),
        })
    }
}

/// Does what may wait for a token or a disk.
async fn waited<R: Send + 'static>(work: impl FnOnce() -> Result<R, ActivationError> + Send + 'static) -> Answer<R> {
    let done =
        tokio::task::spawn_blocking(work).await.map_err(|error| Failure::Internal { what: error.to_string() })?;
    done.map_err(|error| match error {
        ActivationError::Token(StartFault::NotConfigured { token }) => {
            Failure::NotFound { what: format!("token {token}") }
        }
        other => Failure::Unavailable { why: other.to_string(), remedy: "Mend that, then ask again".into() },
    })
}
