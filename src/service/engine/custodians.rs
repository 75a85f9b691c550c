//! Shell: Key Custodians present their shares. What they state is judged and recorded here; the shares go through sealed, to the vault of
//! their key, and nothing of them is kept.

use std::sync::{Arc, PoisonError};

use super::super::keys::Keys;
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
use crate::domain::names::{Digest, KeyLabel, PresentationId};
use crate::domain::policy::custodians::Count;
use crate::domain::time::Timestamp;
use crate::recorder::{CannotRecord, Recorder};

/// The route, as refusals name it.
const OPERATION: &str = "custodian-present";

/// Presentations of one key that may wait for their share: some for each custodian, and no more, for anybody may begin one who has a
/// custodian's signature.
const WAITING_MAX: usize = 64;

/// A presentation whose share is still to come.
#[derive(Clone)]
pub struct Waiting {
    account: Box<str>,
    statement: Vec<u8>,
    signature: Vec<u8>,
    index: u16,
    /// When it is given up.
    until: Timestamp,
}

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
            let standing = self.custody_standing(key).await?;
            return Ok(wire::PresentationBegun { share: None, recorded: Some(wire::Presented { entry, standing }) });
        }
        let (Some(dealt), Some(share), Some(origin)) = (dealt, event.share.clone(), origin) else {
            return Err(Failure::Internal { what: format!("no shares of key {key} were dealt") });
        };
        let index = dealt.holders.iter().find(|holder| holder.share == share.name).map_or(0, |holder| holder.index);
        let purpose = Purpose {
            origin,
            key: key.clone(),
            generation: share.generation,
            incident: event.incident.clone(),
            statement: event.statement,
        };
        let (keys, state, of) = (Arc::clone(&self.keys), self.state.clone(), key.clone());
        let begun = tokio::task::spawn_blocking(move || {
            let vault = vault_for(&keys, &state, &of, &dealt)?;
            vault.presentation(&purpose).map_err(|fault| vault_failure(&fault))
        });
        let (presentation, seal_to) = begun.await.map_err(|error| Failure::Internal { what: error.to_string() })??;
        let waiting = Waiting {
            account: by.account,
            statement: sent.statement,
            signature: sent.signature,
            index,
            until: event.until,
        };
        {
            let mut all = self.presentations.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= WAITING_MAX {
                return Err(Failure::TooMany {
                    what: format!("{WAITING_MAX} presentations wait for their shares"),
                    retry_after_s: 60,
                });
            }
            all.insert(presentation, (key, waiting));
        }
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
        let found = {
            let mut all = self.presentations.lock().unwrap_or_else(PoisonError::into_inner);
            let is_theirs = |found: &(KeyLabel, Waiting)| found.0 == key && found.1.account == actor.account;
            if all.get(&presentation).is_some_and(is_theirs) { all.remove(&presentation) } else { None }
        };
        let (Some((_, waiting)), Some(vault)) = (found, self.keys.vault(&key)) else {
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
            // It was locked, or its shares dealt anew, while the share was on its way: the vault is another, or none.
            if keys.vault(&of).and_then(|vault| vault.pid()) != vault.pid() || !vault.is_alive() {
                let why = format!("key {of} was locked while the share was on its way");
                return Ok(Err(Failure::Unavailable { why, remedy: "Present it anew".into() }));
            }
            match judge(recorder, &by, &of, &sent)? {
                Ok(event) => record(recorder, &by, event, &sent).map(Ok),
                Err(failure) => {
                    let _ = vault.forget(index);
                    Ok(Err(failure))
                }
            }
        });
        let entry = recorded.await?;
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

/// What is done on each tick for a key whose vault is there and which is not active: its shares are let go once the first of them counts no
/// longer, for then its custodian has to come again in any case; and a vault in which nobody presented is ended.
pub(super) async fn look_after_vault(daemon: &Daemon, key: KeyLabel) {
    let now = daemon.clock.now().at;
    let waits = {
        let mut all = daemon.presentations.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, waiting)| now < waiting.until);
        all.values().any(|(of, _)| *of == key)
    };
    let keys = Arc::clone(&daemon.keys);
    let _ = daemon
        .desk
        .record(move |recorder| {
            let now = recorder.moment().at;
            let Some(facts) = recorder.fold().keys().get(&key) else { return Ok(()) };
            if facts.is_active(now) {
                return Ok(());
            }
            if facts.presented.is_empty() {
                // Nothing was recorded, so nothing is told.
                if !waits {
                    keys.end_vault(&key);
                }
                return Ok(());
            }
            match why_gone(recorder, &keys, &key) {
                Some(why) => lock(recorder, &Actor::daemon(), &keys, &key, &why).map(drop),
                None => Ok(()),
            }
        })
        .await;
}

/// Why what was presented for a key that is not active opens it no more, and everybody who did presents anew.
fn why_gone(recorder: &Recorder, keys: &Keys, key: &KeyLabel) -> Option<String> {
    let (fold, now) = (recorder.fold(), recorder.moment().at);
    let facts = fold.keys().get(key).filter(|facts| !facts.is_active(now))?;
    let anew = "those who presented present anew";
    let in_vault = facts.presented.values().any(|presented| presented.share.is_some());
    if facts.presented.values().any(|presented| now >= presented.until) {
        return Some(format!("the time to gather Key Custodians is over: {anew}"));
    }
    if in_vault && keys.vault(key).is_none_or(|vault| !vault.is_alive()) {
        return Some(format!("the vault of its shares has ended: {anew}"));
    }
    let gathered = gathered_for(fold);
    let (_, incident, of) = gathered.into_iter().find(|(gathered, ..)| gathered == key)?;
    let is_closed = fold.incidents().get(&incident).is_some_and(|incident| incident.closed.is_some());
    if is_closed { Some(format!("incident {incident} is closed")) } else { has_ended(fold, &incident, of, now) }
}

/// The indices of the shares of those who count, for the vault to put together.
pub(super) fn indices(dealt: Option<&SharesDealt>, count: &Count) -> Vec<u16> {
    let holders = dealt.map_or(&[][..], |dealt| &dealt.holders);
    let counted = holders.iter().filter(|holder| count.by.contains_key(&holder.person));
    let of_share = counted.filter(|holder| {
        let presented = count.by.get(&holder.person).and_then(|presented| presented.share.as_ref());
        presented.is_some_and(|(name, _)| *name == holder.share)
    });
    of_share.map(|holder| holder.index).collect()
}
