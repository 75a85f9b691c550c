//! Shell: Key Custodians present their shares. What they state is judged and recorded here; the shares go through sealed, to the vault of
//! their key, and nothing of them is kept.

use std::sync::Arc;

use super::super::keys::Keys;
use super::super::presentations::Waiting;
use super::keys::{gathered_for, has_ended, lock};
use super::{Answer, Daemon, answers, incident, make, reason, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire;
use crate::custody::file::CustodyFile;
use crate::custody::present::Purpose;
use crate::custody::vault::{Vault, VaultFault};
use crate::domain::custody::Statement;
use crate::domain::determination::document::Written;
use crate::domain::intake::{self, Submission};
use crate::domain::ledger::custody::{CustodianPresented, SharesDealt};
use crate::domain::ledger::entry::{Actor, Event};
use crate::domain::names::{Digest, KeyLabel, PersonId, PresentationId};
use crate::domain::policy::custodians::{Count, Presented};
use crate::recorder::{CannotRecord, Recorder};

/// The route, as refusals name it.
const OPERATION: &str = "custodian-present";

/// A statement and its signature, as they came.
struct Sent {
    statement: Vec<u8>,
    signature: Vec<u8>,
}

impl Daemon {
    /// Judges what a custodian states, and says to what the share is to be sealed. Where the HSM itself asks there is none: then the
    /// statement is recorded at once.
    pub(super) async fn begin_presentation(
        &self,
        caller: &Caller,
        key: KeyLabel,
        sent: wire::Present,
    ) -> Answer<wire::PresentationBegun> {
        let actor = caller.actor();
        let sent = Sent { statement: sent.statement.0, signature: sent.signature.0 };
        let (of, keys) = (key.clone(), Arc::clone(&self.keys));
        let judged = self.change(move |recorder| {
            let by = recorder.known(actor);
            // Before somebody is told that they presented already, or brings a share to those that are gone.
            if let Some(why) = why_gone(recorder, &keys, &of) {
                lock(recorder, &Actor::daemon(), &keys, &of, &why)?;
            }
            let event = match judge(recorder, &by, &of, &sent)? {
                Ok(event) => event,
                Err(failure) => return Ok(Err(failure)),
            };
            let dealt = recorder.fold().keys().get(&of).and_then(|facts| facts.shares.clone());
            let recorded =
                if event.share.is_none() { Some(record(recorder, &by, event.clone(), &sent)?) } else { None };
            let origin = recorder.fold().origin().cloned();
            Ok(Ok((by, event, dealt, recorded, origin, sent)))
        });
        let (by, event, dealt, recorded, origin, sent) = judged.await?;
        if let Some(entry) = recorded {
            make::keep_head(&self.desk, &self.keys).await;
            let standing = self.custody_standing(key).await?;
            return Ok(wire::PresentationBegun { share: None, recorded: Some(wire::Presented { entry, standing }) });
        }
        let (Some(dealt), Some(share), Some(origin)) = (dealt, event.share.clone(), origin) else {
            return Err(Failure::Internal { what: format!("no shares of key {key} were dealt") });
        };
        let Some(index) = dealt.index_of(&share.name, share.generation) else {
            return Err(Failure::Internal { what: format!("share {} of key {key} was not dealt", share.name) });
        };
        let purpose = Purpose {
            origin,
            key: key.clone(),
            generation: share.generation,
            incident: event.incident.clone(),
            statement: event.statement,
        };
        let waiting = Waiting {
            account: by.account,
            statement: sent.statement,
            signature: sent.signature,
            index,
            until: event.until,
        };
        let of = (key, event.signature.person);
        let (attempt, before) = self.keys.presentations.begin(of.clone(), waiting);
        let (keys, state) = (Arc::clone(&self.keys), self.state.clone());
        let begun = tokio::task::spawn_blocking(move || {
            let made = vault_for(&keys, &state, &of.0, &dealt).and_then(|vault| {
                if let Some(before) = before {
                    vault.abandon(before).map_err(|fault| vault_failure(&fault))?;
                }
                Ok((vault.presentation(&purpose).map_err(|fault| vault_failure(&fault))?, vault))
            });
            let ((presentation, seal_to), vault) = made.inspect_err(|_| keys.presentations.give_up(&of, attempt))?;
            if keys.presentations.made(&of, attempt, presentation) {
                return Ok((presentation, seal_to));
            }
            // Where the vault is gone, so is what it would forget.
            let _ = vault.abandon(presentation);
            let (key, person) = of;
            Err(Failure::Unavailable {
                why: format!("key {key} was locked meanwhile, or {person} began another presentation"),
                remedy: "Present the share anew".into(),
            })
        });
        let (presentation, seal_to) = begun.await.map_err(|error| Failure::Internal { what: error.to_string() })??;
        let share = wire::ShareWanted {
            presentation,
            seal_to: wire::Base64(seal_to.octets().to_vec()),
            share: share.name,
            index,
            generation: share.generation,
        };
        Ok(wire::PresentationBegun { share: Some(share), recorded: None })
    }

    /// Gives the sealed share to the vault, which checks it against its commitment, and records who presented.
    pub(super) async fn end_presentation(
        &self,
        caller: &Caller,
        (key, presentation): (KeyLabel, PresentationId),
        sealed: Vec<u8>,
    ) -> Answer<wire::Presented> {
        let actor = caller.actor();
        let found = self.keys.presentations.find(&key, presentation, &actor.account);
        let (Some(waiting), Some(vault)) = (found, self.keys.vault(&key)) else {
            return Err(Failure::NotFound {
                what: format!(
                    "presentation {presentation} of key {key}: it is over, or was another's. Present the share anew"
                ),
            });
        };
        let index = waiting.index;
        let of = vault.clone();
        let taken = tokio::task::spawn_blocking(move || of.take(presentation, index, &sealed));
        let taken = taken.await.map_err(|error| Failure::Internal { what: error.to_string() })?;
        let sent = Sent { statement: waiting.statement, signature: waiting.signature };
        let (keys, of) = (Arc::clone(&self.keys), key.clone());
        let recorded = self.change(move |recorder| {
            let by = recorder.known(actor);
            if let Some(why) = why_needless(recorder, &keys, &of, &vault) {
                return Ok(Err(why));
            }
            if let Err(fault) = taken {
                let rule = match fault {
                    VaultFault::Altered { .. } => "share-altered",
                    VaultFault::NotOurs => "share-not-sealed-to-us",
                    VaultFault::TooFew { .. }
                    | VaultFault::Unsealable { .. }
                    | VaultFault::Closed
                    | VaultFault::NoPin { .. }
                    | VaultFault::Ended { .. } => "vault",
                };
                let asked = Digest::of(&sent.statement);
                let form = Written::<Statement>::read(sent.statement.clone()).ok();
                let about = form.map(|document| (document.form().incident.clone(), document.form().determination));
                let (incident, determination) = about.unzip();
                let reasons = vec![reason(rule, fault.to_string())];
                return refused(recorder, &by, OPERATION, asked, (incident, determination), reasons);
            }
            match judge(recorder, &by, &of, &sent)? {
                Ok(event) => {
                    let entry = record(recorder, &by, event, &sent)?;
                    keys.mark_recorded(&of, &vault, entry);
                    Ok(Ok(entry))
                }
                Err(failure) => {
                    // The very share may count already, by a presentation before.
                    if !is_held(recorder, &of, index) {
                        let _ = vault.forget(index);
                    }
                    Ok(Err(failure))
                }
            }
        });
        let recorded = recorded.await;
        self.keys.presentations.end(presentation);
        let entry = recorded?;
        make::keep_head(&self.desk, &self.keys).await;
        Ok(wire::Presented { entry, standing: self.custody_standing(key).await? })
    }

    /// Who presented for a key, and who still can.
    pub(super) async fn custody_standing(&self, key: KeyLabel) -> Answer<wire::Custody> {
        self.read(move |recorder| {
            let facts = recorder.fold().keys().get(&key);
            Ok(facts.and_then(|facts| answers::custody(facts, recorder.fold(), recorder.moment().at)))
        })
        .await?
        .ok_or_else(|| Failure::NotFound { what: "a key that Key Custodians open, by that name".into() })
    }
}

/// Judges a presentation with the state of now; refuses it, and records that, where anything speaks against it.
fn judge(
    recorder: &mut Recorder,
    by: &Actor,
    key: &KeyLabel,
    sent: &Sent,
) -> Result<Answer<CustodianPresented>, CannotRecord> {
    let asked = Digest::of(&sent.statement);
    let document: Written<Statement> = match Written::read(sent.statement.clone()) {
        Ok(document) => document,
        Err(faults) => return refused(recorder, by, OPERATION, asked, (None, None), intake::unreadable(&faults)),
    };
    let form = document.form();
    let about = (Some(form.incident.clone()), Some(form.determination));
    if form.key.label != *key {
        let text = format!("the statement is about key {}, and was sent for key {key}", form.key.label);
        return refused(recorder, by, OPERATION, asked, about, vec![reason("statement-key", text)]);
    }
    let signatures = [sent.signature.clone()];
    let submission = Submission { signatures: &signatures, devices: None };
    match intake::presentation(&incident::context(recorder), &document, &submission) {
        Ok(event) => Ok(Ok(event)),
        Err(reasons) => refused(recorder, by, OPERATION, asked, about, reasons),
    }
}

fn record(recorder: &mut Recorder, by: &Actor, event: CustodianPresented, sent: &Sent) -> Result<u64, CannotRecord> {
    recorder.queue_blob(sent.statement.clone());
    recorder.queue_blob(sent.signature.clone());
    recorder.queue(by, Event::CustodianPresented(event))
}

/// The vault of a key, for the shares that were dealt last; started where there is none. Waits.
fn vault_for(keys: &Keys, state: &std::path::Path, key: &KeyLabel, dealt: &SharesDealt) -> Result<Vault, Failure> {
    if let Some(vault) = keys.vault(key).filter(Vault::is_alive) {
        return Ok(vault);
    }
    let file = CustodyFile::read(state, dealt).map_err(|error| Failure::Unavailable {
        why: error.to_string(),
        remedy: "Put a custodian's copy of the custody file in its place".into(),
    })?;
    let vault = Vault::start(keys.vault_config(), &file).map_err(|fault| vault_failure(&fault))?;
    Ok(keys.keep_vault(key, vault))
}

fn vault_failure(fault: &VaultFault) -> Failure {
    Failure::Unavailable { why: fault.to_string(), remedy: "Present the share anew".into() }
}

/// Why a share that was on its way is needed no more, which says nothing against who brought it.
fn why_needless(recorder: &Recorder, keys: &Keys, key: &KeyLabel, vault: &Vault) -> Option<Failure> {
    let (why, remedy) = if !keys.vault(key).is_some_and(|kept| kept.is(vault)) {
        ("was locked", "Present it anew")
    } else if recorder.fold().keys().get(key).is_some_and(|facts| facts.is_active(recorder.moment().at)) {
        ("was activated", "Nothing: enough others are there")
    } else if !vault.is_alive() || are_elsewhere(recorder, keys, key) {
        ("lost its vault, and with it the shares that were there,", "Present it anew, as everybody does who presented")
    } else {
        return None;
    };
    Some(Failure::Unavailable { why: format!("key {key} {why} while the share was on its way"), remedy: remedy.into() })
}

/// Whether shares were brought by presentations that are recorded, and do not lie in the vault of now: theirs has ended.
fn are_elsewhere(recorder: &Recorder, keys: &Keys, key: &KeyLabel) -> bool {
    let facts = recorder.fold().keys().get(key);
    let are_any = facts.is_some_and(|facts| facts.presented.values().any(|presented| presented.share.is_some()));
    are_any && keys.recorded_last(key).is_none()
}

/// Whether a recorded presentation brought the share with that index.
fn is_held(recorder: &Recorder, key: &KeyLabel, index: u16) -> bool {
    let Some(facts) = recorder.fold().keys().get(key) else { return false };
    let mut presented = facts.presented.values().filter_map(|presented| presented.share.as_ref());
    presented.any(|(name, generation)| {
        facts.shares.as_ref().is_some_and(|dealt| dealt.index_of(name, *generation) == Some(index))
    })
}

/// What there is to do for a key whose vault is there and which is not active.
enum Due {
    Nothing,
    /// Nobody presented: the vault is ended, unless somebody is about to.
    Idle,
    /// The time of these is over: their shares are let go, unless they come again.
    Over(Vec<(PersonId, u16)>),
    /// Nothing of it opens the key any more: it is locked.
    Gone(String),
}

impl Due {
    fn of(recorder: &Recorder, keys: &Keys, key: &KeyLabel) -> Self {
        let now = recorder.moment().at;
        let Some(facts) = recorder.fold().keys().get(key).filter(|facts| facts.active.is_none()) else {
            return Self::Nothing;
        };
        if facts.presented.is_empty() {
            return Self::Idle;
        }
        if let Some(why) = why_gone(recorder, keys, key) {
            return Self::Gone(why);
        }
        let over = facts.presented.iter().filter(|(_, presented)| now >= presented.until);
        let index = |presented: &Presented| {
            let (share, generation) = presented.share.as_ref()?;
            facts.shares.as_ref()?.index_of(share, *generation)
        };
        let over: Vec<_> = over.filter_map(|(person, presented)| Some((person.clone(), index(presented)?))).collect();
        if over.is_empty() { Self::Nothing } else { Self::Over(over) }
    }
}

/// What is done on each tick for a key whose vault is there and which is not active: the share of each whose time is over is let go; once all are, or
/// what they presented for has ended, everybody presents anew; a vault in which nobody presented is ended. It is decided, and done, also while
/// nothing can be recorded.
pub(super) async fn look_after_vault(daemon: &Daemon, key: KeyLabel) {
    daemon.keys.presentations.expire(daemon.clock.now().at);
    let (keys, label) = (Arc::clone(&daemon.keys), key.clone());
    // With the presentation that was the last at that moment: what is due is no more once another was recorded. The next tick looks anew.
    let due =
        daemon.desk.look(move |recorder| Ok((Due::of(recorder, &keys, &label), keys.recorded_last(&label)))).await;
    let keys = Arc::clone(&daemon.keys);
    let Ok((due, seen)) = due else { return };
    match due {
        Due::Nothing => {}
        Due::Idle => {
            let _ = tokio::task::spawn_blocking(move || keys.end_idle_vault(&key, seen)).await;
        }
        Due::Over(over) => {
            let forget = move || {
                let Some(vault) = keys.vault(&key) else { return };
                keys.presentations.held(&key, |waits, _| {
                    if keys.recorded_last(&key) != seen {
                        return;
                    }
                    // Who comes again may have brought the share already.
                    for (_, index) in over.iter().filter(|(person, _)| !waits(person)) {
                        let _ = vault.forget(*index);
                    }
                });
            };
            let _ = tokio::task::spawn_blocking(forget).await;
        }
        Due::Gone(reason) => {
            let label = key.clone();
            make::lock_by_itself(daemon, key, &reason, move |recorder| why_gone(recorder, &keys, &label)).await;
        }
    }
}

/// Why what was presented for a key that is not active opens it no more, and everybody who did presents anew.
fn why_gone(recorder: &Recorder, keys: &Keys, key: &KeyLabel) -> Option<String> {
    let (fold, now) = (recorder.fold(), recorder.moment().at);
    let facts = fold.keys().get(key).filter(|facts| !facts.is_active(now))?;
    let anew = "those who presented present anew";
    if !facts.presented.is_empty() && facts.presented.values().all(|presented| now >= presented.until) {
        return Some(format!("the time to gather Key Custodians is over: {anew}"));
    }
    if are_elsewhere(recorder, keys, key) {
        return Some(format!("the vault of its shares has ended: {anew}"));
    }
    let gathered = gathered_for(fold);
    let (_, incident, of) = gathered.into_iter().find(|(gathered, ..)| gathered == key)?;
    let is_closed = fold.incidents().get(&incident).is_some_and(|incident| incident.closed.is_some());
    if is_closed { Some(format!("incident {incident} is closed")) } else { has_ended(fold, &incident, of, now) }
}

/// The indices of the shares of those who count, for the vault to put together.
pub(super) fn indices(dealt: Option<&SharesDealt>, count: &Count) -> Vec<u16> {
    let counted = count.by.values().filter_map(|presented| presented.share.as_ref());
    counted.filter_map(|(share, generation)| dealt?.index_of(share, *generation)).collect()
}
