//! Shell: keys, opened for one incident and locked again.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::keys::{self, ActivationError, Keys, OpenedBy, Started, Wanted};
use super::{Answer, Daemon, answers, custodians, incident, make, reason, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::fold::Fold;
use crate::domain::intake;
use crate::domain::ledger::entry::{Actor, Event, KeyLocked, Refused, TokenFound};
use crate::domain::names::{DeterminationId, Digest, IncidentId, KeyLabel, KeyUse, TokenName};
use crate::domain::policy::Activation;
use crate::domain::policy::custodians::Count;
use crate::domain::policy::facts::{KeyFacts, Standing};
use crate::domain::time::Timestamp;
use crate::hsm::{Condition, Several, Token};
use crate::recorder::{CannotRecord, Recorder, shortened};

/// The route, as refusals name it.
const OPERATION: &str = "key-activate";

impl Daemon {
    /// Opens a key for one incident. The incident is asked about before its token is touched, and again when that is done.
    pub(super) async fn activate(
        &self,
        caller: &Caller,
        key: KeyLabel,
        incident: IncidentId,
    ) -> Answer<wire::KeyChanged> {
        self.is_checked().await?;
        let actor = caller.actor();
        let asked = Digest::of(format!("{key} {incident}").as_bytes());
        let (label, of) = (key.clone(), incident.clone());
        let checked = self.change(move |recorder| {
            let by = recorder.known(actor);
            let Some(facts) = recorder.fold().keys().get(&label).cloned() else {
                return Ok(Err(Failure::NotFound { what: format!("key {label}") }));
            };
            match intake::may_activate(&incident::context(recorder), &by, &label, &of) {
                Ok(_) => {
                    // Not the whole state: that has every target of every incident.
                    let fold = recorder.fold();
                    let opening = Opening::of(&facts, fold, &of, recorder.moment().at);
                    Ok(opening.map(|opening| (by, keys::wanted(&facts, fold), opening, facts)))
                }
                Err(reasons) => refused(recorder, &by, OPERATION, asked, (Some(of), None), reasons),
            }
        });
        let (by, wanted, opening, facts): (Actor, Vec<Wanted>, Opening, KeyFacts) = checked.await?;
        let opened = self.open(&key, opening).await?;
        let (keys, of_key) = (Arc::clone(&self.keys), key.clone());
        let locks_before = self.keys.locks(&key);
        let started = tokio::task::spawn_blocking(move || keys.start(&of_key, wanted, &opened)).await;
        let Started { tokens, left_out } = started.map_err(|error| Failure::Internal { what: error.to_string() })?;
        let why = left_out.iter().map(|(token, why)| (token.clone(), why.to_string())).collect();
        let told = self.tell_left_out(&by, asked, &incident, &left_out).await;
        if let (None, true, Some((_, first))) = (self.keys.active(&key), tokens.is_empty(), left_out.first()) {
            told?;
            let remedy = "The key stays locked: mend that, then activate it again".into();
            return Err(Failure::Unavailable { why: first.to_string(), remedy });
        }
        let started = tokens.clone();
        let (keys, label) = (Arc::clone(&self.keys), key.clone());
        let changed = self.change(move |recorder| {
            // A policy may have given the account to somebody else while the PIN was asked for.
            let by = recorder.known(by);
            if keys.locks(&label) != locks_before {
                let why = format!("key {label} was locked while it was being activated");
                return Ok(Err(Failure::Unavailable {
                    why,
                    remedy: "Activate it again if that is still wanted".into(),
                }));
            }
            let active = keys.active(&label).map_or_else(Vec::new, |active| active.tokens());
            let on = found_on(&facts, recorder.fold(), &[active, tokens.clone()].concat());
            if on.is_empty() {
                let why = format!("the token of key {label} went away while it was being activated");
                let remedy = "Activate it again, once that is mended".into();
                return Ok(Err(Failure::Unavailable { why, remedy }));
            }
            let event = match intake::activation(&incident::context(recorder), &by, (&label, &incident), on) {
                Ok(event) => event,
                Err(reasons) => return refused(recorder, &by, OPERATION, asked, (Some(incident), None), reasons),
            };
            let entry = recorder.queue(&by, Event::KeyActivated(event))?;
            // Not before: what is running uses them at once. Those that somebody else started meanwhile come back.
            keys.insert(label.clone(), tokens, why);
            Ok(match answers::key_state(recorder, &keys, &label) {
                Some(key) => Ok(wire::KeyChanged { entry, key }),
                None => Err(Failure::NotFound { what: format!("key {label}") }),
            })
        });
        let changed = match told {
            Ok(()) => changed.await,
            Err(failure) => Err(failure),
        };
        // What signs for no key has nothing to be logged in for, and no fence reaches it.
        let used = self.keys.active(&key).map_or_else(Vec::new, |active| active.tokens());
        let needless = started.into_iter().filter(|token| !used.iter().any(|used| used.is(token)));
        closed(needless.map(shut_down_one).collect::<Vec<_>>()).await;
        let changed = changed?;
        make::keep_head(&self.desk, &self.keys).await;
        Ok(changed)
    }

    /// Where the PINs come from: where Key Custodians open the key, the vault puts their shares together first.
    async fn open(&self, label: &KeyLabel, opening: Opening) -> Answer<OpenedBy> {
        let indices = match opening {
            Opening::Stored => return Ok(OpenedBy::Stored),
            Opening::ProtectedPath => return Ok(OpenedBy::ProtectedPath),
            Opening::Shares(indices) => indices,
        };
        let remedy = || format!("Let enough Key Custodians present anew (smkictl custodian status {label})");
        let locks_before = self.keys.locks(label);
        let opened = match self.keys.vault(label) {
            None => Err(format!("the shares of key {label} are gone: their vault has ended")),
            Some(vault) => {
                let of_vault = vault.clone();
                let opened = tokio::task::spawn_blocking(move || of_vault.open(&indices)).await;
                let opened = opened.map_err(|error| Failure::Internal { what: error.to_string() })?;
                opened.map(|()| OpenedBy::Vault(vault)).map_err(|fault| fault.to_string())
            }
        };
        match opened {
            Ok(opened) => Ok(opened),
            // Where it is active it stays so, on the tokens that are up.
            Err(why) if self.keys.active(label).is_some() => Err(Failure::Unavailable {
                why,
                remedy: format!("For another token, lock the key first (smkictl key lock {label}). {}", remedy()),
            }),
            Err(why) => {
                // What is recorded is not in the vault: those who presented could not do it again. Where the key was locked meanwhile, they
                // can, and what has come since is not to be lost.
                let (keys, of, reason) = (Arc::clone(&self.keys), label.clone(), shortened(&why).clone());
                let locked = self.change(move |recorder| {
                    if keys.locks(&of) == locks_before {
                        lock(recorder, &Actor::daemon(), &keys, &of, &reason)?;
                    }
                    Ok(Ok(()))
                });
                locked.await?;
                Err(Failure::Unavailable { why, remedy: remedy() })
            }
        }
    }

    /// Records that a key was not activated, or not on all of its tokens, and why: a wrong PIN or another token is worth knowing
    /// afterwards too.
    async fn tell_left_out(
        &self,
        by: &Actor,
        asked: Digest,
        incident: &IncidentId,
        left_out: &[(TokenName, ActivationError)],
    ) -> Answer<()> {
        if left_out.is_empty() {
            return Ok(());
        }
        let refused = Refused {
            operation: OPERATION.into(),
            incident: Some(incident.clone()),
            determination: None,
            request: None,
            device: None,
            asked,
            reasons: left_out.iter().map(|(_, why)| reason("token", why.to_string())).collect(),
        };
        let by = by.clone();
        self.change(move |recorder| {
            let by = recorder.known(by);
            recorder.refuse(&by, refused).map(|_| Ok(()))
        })
        .await
    }
}

/// What opens a key under the policy in force.
enum Opening {
    /// PINs of the configuration.
    Stored,
    /// The HSM asks for them itself.
    ProtectedPath,
    /// The shares of these indices, which those presented who count.
    Shares(Vec<u16>),
}

impl Opening {
    /// It was permitted before, so that policy, key and determination are there.
    fn of(facts: &KeyFacts, fold: &Fold, incident: &IncidentId, at: Timestamp) -> Answer<Self> {
        let label = &facts.record.label;
        let policy = fold.policy().map(|adopted| &adopted.policy);
        let key = policy.and_then(|policy| policy.key(label));
        let (Some(policy), Some(key), Some(of)) = (policy, key, fold.followed_by(incident)) else {
            return Err(Failure::Internal { what: format!("nothing says how key {label} is opened for {incident}") });
        };
        Ok(match key.activation {
            Activation::Stored => Self::Stored,
            Activation::ProtectedPath => Self::ProtectedPath,
            Activation::Custodians => {
                let count = Count::of(policy, facts, (incident, of), at);
                Self::Shares(custodians::indices(facts.shares.as_ref(), &count))
            }
        })
    }
}

/// Those tokens of a key that are up, in the order of the policy.
fn found_on(key: &KeyFacts, fold: &Fold, active: &[Token]) -> Vec<TokenFound> {
    let is_up =
        |name: &TokenName| active.iter().any(|token| token.name() == name && token.condition() == Condition::Up);
    let found = |token: TokenName| key.serial_on(&token).map(Into::into).map(|serial| TokenFound { token, serial });
    keys::tokens_of(key, fold).into_iter().filter(is_up).filter_map(found).collect()
}

/// That a key is locked, with the incident that stands still by it.
pub(super) fn locked(fold: &Fold, key: &KeyLabel, reason: &str) -> Event {
    let incident = fold.keys().get(key).and_then(|facts| facts.active_for.clone());
    Event::KeyLocked(KeyLocked { key: key.clone(), reason: reason.into(), incident })
}

/// Tokens that are being shut down, whether anybody waits for it or not.
pub(super) struct Closing(oneshot::Receiver<()>);

/// Begins to shut down the tokens of a key, all at once: they are gone soon, also where what is to be recorded waits for the ledger token.
pub(super) fn shut_down(tokens: Several) -> Closing {
    closing(move || tokens.shutdown())
}

fn shut_down_one(token: Token) -> Closing {
    closing(move || token.shutdown())
}

fn closing(shut_down: impl Fn() + Clone + Send + 'static) -> Closing {
    let (done, closed) = oneshot::channel();
    let here = shut_down.clone();
    let work = move || {
        shut_down();
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("closing".into()).spawn(work).is_ok() {
        return Closing(closed);
    }
    // No thread can be made: then it is done here.
    here();
    let (done, closed) = oneshot::channel();
    let _ = done.send(());
    Closing(closed)
}

/// Waits until they are shut down.
pub(super) async fn closed(closing: impl IntoIterator<Item = Closing>) {
    for Closing(closed) in closing {
        if closed.await.is_err() {
            tracing::error!("a token could not be shut down; the journal above says more");
        }
    }
}

/// Locks a key and records it, with the incident that stands still by it: the fence stands before the next `C_Sign`, and its tokens are
/// being shut down. Answers the entry, and them where it had any.
pub(super) fn lock(
    recorder: &mut Recorder,
    by: &Actor,
    keys: &Keys,
    key: &KeyLabel,
    reason: &str,
) -> Result<(u64, Option<Closing>), CannotRecord> {
    keys.fence();
    let closing = keys.remove(key).map(shut_down);
    let event = locked(recorder.fold(), key, reason);
    Ok((recorder.queue(by, event)?, closing))
}

/// The keys for which Key Custodians presented and which are not active yet, each with the incident and the determination for which they
/// did.
pub(super) fn gathered_for(fold: &Fold) -> Vec<(KeyLabel, IncidentId, DeterminationId)> {
    let gathering = fold.keys().values().filter(|facts| facts.active.is_none());
    let last = gathering.filter_map(|facts| Some((facts, facts.presented.values().max_by_key(|one| one.entry)?)));
    last.map(|(facts, one)| (facts.record.label.clone(), one.incident.clone(), one.determination)).collect()
}

/// The keys that are active, each with its incident and the determination for which it is.
pub(super) fn active_for(fold: &Fold) -> Vec<(KeyLabel, IncidentId, DeterminationId)> {
    let active = fold.keys().values().filter(|facts| facts.active.is_some());
    let of_incident = active.filter_map(|facts| Some((facts.record.label.clone(), facts.active_for.clone()?)));
    of_incident.filter_map(|(key, incident)| fold.followed_by(&incident).map(|id| (key, incident, id))).collect()
}

/// Why a key that was active for a determination of an incident is locked now: its incident follows another, or what it followed has
/// ended for good. A suspension ends by itself: the key stays open through it, within its time, and signs nothing. One that is not to
/// execute opens no key.
pub(super) fn has_ended(fold: &Fold, incident: &IncidentId, of: DeterminationId, at: Timestamp) -> Option<String> {
    let standing = fold.determinations().get(&of).map(|facts| facts.standing(at));
    let why = match standing {
        Some(Standing::Withdrawn) => "was withdrawn",
        Some(Standing::Superseded) => "was superseded",
        Some(Standing::NotCarriedOver) => "was not carried over by the policy adopted",
        Some(Standing::Expired) => "is over",
        Some(
            Standing::NotExecute
            | Standing::Suspended
            | Standing::NotYet
            | Standing::AwaitsSchedule
            | Standing::InForce,
        )
        | None => {
            let follows_another = fold.followed_by(incident) != Some(of);
            return follows_another.then(|| format!("determination {of} is followed no longer"));
        }
    };
    Some(format!("determination {of} {why}"))
}

/// The active keys that nobody needs once an incident is closed: none was activated for another, nor, where an older daemon
/// activated it for all, has another open incident a determination for it.
pub(super) fn needed_no_longer(fold: &Fold, closing: &IncidentId, keys: &Keys) -> Vec<KeyLabel> {
    let is_open = |incident: &IncidentId| fold.incidents().get(incident).is_some_and(|facts| facts.closed.is_none());
    let is_needed = |key: &KeyLabel| match fold.keys().get(key).and_then(|facts| facts.active_for.as_ref()) {
        Some(incident) => incident != closing,
        None => fold.determinations().values().any(|determination| {
            determination.key.as_ref().is_some_and(|(named, _)| named == key)
                && determination.incident != *closing
                && is_open(&determination.incident)
        }),
    };
    let is_active = |key: &KeyLabel, recorded: bool| recorded || keys.active(key).is_some();
    let of_ours = fold.keys().values().filter(|facts| facts.record.use_ != KeyUse::Ledger);
    let active = of_ours.filter(|facts| is_active(&facts.record.label, facts.active.is_some()));
    active.map(|facts| facts.record.label.clone()).filter(|key| !is_needed(key)).collect()
}
