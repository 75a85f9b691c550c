//! Shell: keys, opened for one incident and locked again.

use std::sync::Arc;

use super::super::keys::{self, ActivationError, Keys, Started};
use super::{Answer, Daemon, answers, incident, make, reason, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::fold::Fold;
use crate::domain::intake;
use crate::domain::ledger::entry::{Actor, Event, KeyLocked, Refused, TokenFound};
use crate::domain::names::{DeterminationId, Digest, IncidentId, KeyLabel, KeyUse, TokenName};
use crate::domain::policy::facts::{KeyFacts, Standing};
use crate::domain::time::Timestamp;
use crate::hsm::{Condition, Several};
use crate::recorder::{CannotRecord, Recorder};

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
        let actor = caller.actor();
        let asked = Digest::of(format!("{key} {incident}").as_bytes());
        let (label, of) = (key.clone(), incident.clone());
        let checked = self.change(move |recorder| {
            let by = recorder.known(actor);
            let Some(facts) = recorder.fold().keys().get(&label).cloned() else {
                return Ok(Err(Failure::NotFound { what: format!("key {label}") }));
            };
            match intake::may_activate(&incident::context(recorder), &by, &label, &of) {
                Ok(_) => Ok(Ok((by, facts, recorder.fold().clone()))),
                Err(reasons) => refused(recorder, &by, OPERATION, asked, (Some(of), None), reasons),
            }
        });
        let (by, facts, fold): (Actor, KeyFacts, Fold) = checked.await?;
        let (keys, of_key) = (Arc::clone(&self.keys), facts.clone());
        let started = tokio::task::spawn_blocking(move || keys.start(&of_key, &fold)).await;
        let Started { tokens, left_out } = started.map_err(|error| Failure::Internal { what: error.to_string() })?;
        let why = left_out.iter().map(|(token, why)| (token.clone(), why.to_string())).collect();
        for second in self.keys.insert(key.clone(), tokens, why) {
            // Somebody activated it meanwhile. A worker that no fence reaches may not go on.
            let _ = tokio::task::spawn_blocking(move || second.shutdown()).await;
        }
        let told = self.tell_left_out(&by, asked, &incident, &left_out).await;
        if let (None, Some((_, first))) = (self.keys.active(&key), left_out.first()) {
            told?;
            let remedy = "The key stays locked: mend that, then activate it again".into();
            return Err(Failure::Unavailable { why: first.to_string(), remedy });
        }
        let (keys, label) = (Arc::clone(&self.keys), key.clone());
        let changed = self.change(move |recorder| {
            // A policy may have given the account to somebody else while the PIN was asked for.
            let by = recorder.known(by);
            let Some(active) = keys.active(&label) else {
                let why = format!("key {label} was locked while it was being activated");
                return Ok(Err(Failure::Unavailable {
                    why,
                    remedy: "Activate it again if that is still wanted".into(),
                }));
            };
            let on = found_on(&facts, recorder.fold(), &active);
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
            Ok(match answers::key_state(recorder, &keys, &label) {
                Some(key) => Ok(wire::KeyChanged { entry, key }),
                None => Err(Failure::NotFound { what: format!("key {label}") }),
            })
        });
        let changed = match told {
            Ok(()) => changed.await,
            Err(failure) => Err(failure),
        };
        if changed.is_err() {
            self.shut_unless_recorded(key).await;
        }
        let changed = changed?;
        make::keep_head(&self.desk, &self.keys).await;
        Ok(changed)
    }

    /// Tokens that were unlocked for an activation which then was not recorded are locked again.
    async fn shut_unless_recorded(&self, key: KeyLabel) {
        let keys = Arc::clone(&self.keys);
        let tokens = self.read(move |recorder| {
            let is_recorded = recorder.fold().keys().get(&key).is_some_and(|facts| facts.active.is_some());
            Ok(if is_recorded { None } else { keys.remove(&key) })
        });
        if let Ok(Some(tokens)) = tokens.await {
            let _ = tokio::task::spawn_blocking(move || tokens.shutdown()).await;
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

/// Those tokens of a key that are up, in the order of the policy.
fn found_on(key: &KeyFacts, fold: &Fold, active: &Several) -> Vec<TokenFound> {
    let is_up = |token: &TokenName| active.token(token).is_some_and(|token| matches!(token.condition(), Condition::Up));
    let found = |token: TokenName| key.serial_on(&token).map(Into::into).map(|serial| TokenFound { token, serial });
    keys::tokens_of(key, fold).into_iter().filter(is_up).filter_map(found).collect()
}

/// That a key is locked, with the incident that stands still by it.
pub(super) fn locked(fold: &Fold, key: &KeyLabel, reason: &str) -> Event {
    let incident = fold.keys().get(key).and_then(|facts| facts.active_for.clone());
    Event::KeyLocked(KeyLocked { key: key.clone(), reason: reason.into(), incident })
}

/// Locks a key and records it, with the incident that stands still by it: the fence stands before the next `C_Sign`. Answers the
/// entry, and its tokens where it had any, which are the caller's to shut down.
pub(super) fn lock(
    recorder: &mut Recorder,
    by: &Actor,
    keys: &Keys,
    key: &KeyLabel,
    reason: &str,
) -> Result<(u64, Option<Several>), CannotRecord> {
    keys.fence();
    let tokens = keys.remove(key);
    let event = locked(recorder.fold(), key, reason);
    Ok((recorder.queue(by, event)?, tokens))
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
