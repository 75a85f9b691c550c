//! What leaves: commands that were signed, now or before, each with a `released` entry, while the determination is in force.

use std::collections::HashMap;
use std::sync::Arc;

use super::{About, Job, NotAccepted, Told, ToldOutcome, asker_changed, entry_at, facts, intent_entry, reason};
use crate::domain::certificates::signature::PublicKey;
use crate::domain::commands::{self, CommandOctets, RebuildError};
use crate::domain::fold::Fold;
use crate::domain::gbcs;
use crate::domain::ledger::entry::{Actor, Event, Intent, Reason, Released};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, KeyUse, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Wanted, WantedForm};
use crate::domain::policy::rules::{self, BatchFacts, Refusal};
use crate::recorder::{CannotRecord, Recorder};

/// Whether what was signed for a Device may be handed over, where its batch may.
pub(super) fn release_to(recorder: &Recorder, job: &Job, device: DeviceId) -> Result<(), Vec<Reason>> {
    match facts(recorder, &job.by, job.determination) {
        Some(facts) => rules::decide_release_to(&facts, device).map_err(|refusal| vec![refusal.reason()]),
        None => Err(vec![reason("policy", "no policy is in force")]),
    }
}

/// The rules of what is handed over: as it may be released, and with all that belongs into it at hand.
pub(super) fn may_hand_over(facts: &BatchFacts<'_>) -> Result<(), Vec<Refusal>> {
    rules::decide_release(facts)?;
    rules::decide_filling(facts).map_err(|refusal| vec![refusal])
}

/// Whether what a key signs has the Contingency Symmetric Key inside.
pub fn needs_symmetric(fold: &Fold, key: &KeyLabel) -> bool {
    fold.keys().get(key).is_some_and(|facts| facts.record.use_ == KeyUse::Contingency)
}

/// Why a Contingency command is not handed over: nothing has the key that belongs into it.
pub fn not_held(key: &KeyLabel, determination: DeterminationId) -> Reason {
    let text = format!(
        "the Contingency Symmetric Key of key {key} is not held by smkid, and no command of mode 9 is whole without it: activate the key if it \
         is locked, then `smkictl key release-symmetric {key} --determination {determination}`"
    );
    reason("symmetric-key-released", &text)
}

/// Records that signed commands are about to be handed over.
pub(super) fn release(recorder: &mut Recorder, job: &Job, intents: Vec<(u64, u64)>) -> Result<(), CannotRecord> {
    let released = Released { request: job.request, determination: job.determination, intents: joined(intents) };
    recorder.queue(&job.by, Event::Released(released)).map(drop)
}

/// Signed commands of a request that are about to be handed over again.
#[derive(Debug)]
pub struct HandOver {
    /// To whom. The person is whom the account belonged to when this was asked.
    pub by: Actor,
    /// Of which request.
    pub request: RequestId,
    /// Under which determination.
    pub determination: DeterminationId,
    /// SHA-256 of what was asked.
    pub asked: Digest,
    /// The intents, with their Devices.
    pub signed: Vec<(u64, DeviceId)>,
}

/// The route that hands over what was signed before, as refusals name it.
pub const FETCH: &str = "recovery-fetch";

/// Records that commands which were signed before are about to be handed over, while their determination is in force. Answers, for each of
/// them that is withheld, why; or why all of them are, which is recorded.
pub fn hand_over(
    recorder: &mut Recorder,
    hand_over: HandOver,
) -> Result<Result<HashMap<u64, Vec<Reason>>, NotAccepted>, CannotRecord> {
    let HandOver { by, request, determination, asked, signed } = hand_over;
    let known = recorder.known(by.clone());
    let may_release = match facts(recorder, &known, determination).map(|facts| may_hand_over(&facts)) {
        _ if known.person != by.person => Err(vec![asker_changed(&by)]),
        Some(Ok(())) => Ok(()),
        Some(Err(refusals)) => Err(refusals.iter().map(Refusal::reason).collect::<Vec<_>>()),
        None => Err(vec![reason("policy", "no policy is in force")]),
    };
    if let Err(reasons) = may_release {
        let about = About { operation: FETCH, request, determination, asked };
        let entry = about.refuse(recorder, &known, None, reasons.clone())?;
        return Ok(Err((reasons, entry)));
    }
    let (mut withheld, mut intents) = (HashMap::new(), Vec::with_capacity(signed.len()));
    if let Some(facts) = facts(recorder, &known, determination) {
        for (intent, device) in signed {
            // It may have been left out of the incident since.
            match rules::decide_release_to(&facts, device) {
                Ok(()) => intents.push((intent, intent + 1)),
                Err(refusal) => drop(withheld.insert(intent, vec![refusal.reason()])),
            }
        }
    }
    if !intents.is_empty() {
        let released = Released { request, determination, intents: joined(intents) };
        recorder.queue(&known, Event::Released(released))?;
    }
    Ok(Ok(withheld))
}

/// Ranges in ascending order, those that touch made one.
fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, until) in ranges {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(until),
            Some(_) | None => joined.push((from, until)),
        }
    }
    joined
}

/// Where a request has the command that another request's further attempt settled: its last intent at the same octets before that. None if it
/// asked for no such.
fn place_of(recorder: &Recorder, job: &mut Job, at: u64, further: &Intent) -> Result<Option<u64>, CannotRecord> {
    for place in recorder.store().intents_of(further.device)?.into_iter().rev().skip_while(|place| *place >= at) {
        if let Some(before) = intent_entry(recorder, place)?
            && before.command == further.command
            && is_own(recorder, job, before.batch)?
        {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// What the ledger has for a Device from an earlier run of the same request: told again, and never signed again. With the intent that was
/// signed, or not.
pub(super) fn recorded_before(
    recorder: &Recorder,
    job: &mut Job,
    wanted: &Wanted,
    last: Option<&DeviceFacts>,
) -> Result<Option<(Told, u64)>, CannotRecord> {
    let Some(last) = last.filter(|last| job.repeated && last.determination == job.determination) else {
        return Ok(None);
    };
    let outcome = match (last.state, &wanted.form) {
        (IntentState::Signed | IntentState::Left, _) => None,
        (IntentState::Unknown, WantedForm::Device | WantedForm::PreCommand(_)) => {
            Some(ToldOutcome::Unknown("what became of it is unknown; settle it first".into()))
        }
        (IntentState::Unknown, WantedForm::Retry)
        | (IntentState::Open | IntentState::Failed | IntentState::NotSigned, _) => return Ok(None),
    };
    let Some(entry) = intent_entry(recorder, last.intent)?.filter(|entry| entry.device == wanted.device) else {
        return Ok(None);
    };
    let place = if is_own(recorder, job, entry.batch)? {
        Some(last.intent)
    } else if entry.attempt > 1 {
        place_of(recorder, job, last.intent, &entry)?
    } else {
        None
    };
    let Some(place) = place else { return Ok(None) };
    let outcome = match (outcome, last.state) {
        (Some(outcome), _) => outcome,
        (None, IntentState::Left) => ToldOutcome::Left,
        (None, _) if job.needs_symmetric && job.symmetric.is_none() => {
            ToldOutcome::Withheld(vec![not_held(&job.key, job.determination)])
        }
        (None, _) => match rebuild(recorder, job, &entry, last.intent)? {
            Some(command) => match release_to(recorder, job, wanted.device) {
                Ok(()) => ToldOutcome::Signed(command),
                Err(reasons) => ToldOutcome::Withheld(reasons),
            },
            None => return Ok(None),
        },
    };
    let (template, counter) = (Some(entry.template), Some(entry.counter));
    Ok(Some((Told { device: wanted.device, template, counter, intent: Some(place), outcome }, last.intent)))
}

/// Whether a batch belongs to this request.
pub(super) fn is_own(recorder: &Recorder, job: &mut Job, batch: u64) -> Result<bool, CannotRecord> {
    if let Some(known) = job.own_batches.get(&batch) {
        return Ok(*known);
    }
    let own = match entry_at(recorder, batch)?.map(|entry| entry.event) {
        Some(Event::Batch(entry)) => entry.request == job.request,
        Some(_) | None => false,
    };
    job.own_batches.insert(batch, own);
    Ok(own)
}

/// A command again, octet for octet, from its template, Device, counter and kept signature.
///
/// A Contingency command is made again only while its key is held: the rule of the batch has said so before.
pub(super) fn rebuild(
    recorder: &Recorder,
    job: &Job,
    intent: &Intent,
    at: u64,
) -> Result<Option<CommandOctets>, CannotRecord> {
    let Some(signature) = recorder.store().signature(at)? else { return Ok(None) };
    let fold = recorder.fold();
    let template = fold
        .determinations()
        .get(&job.determination)
        .and_then(|facts| facts.scope.as_ref())
        .and_then(|scope| scope.templates.get(&intent.template));
    let originator = fold.policy().and_then(|adopted| fold.keys().get(&job.key)?.originator(&adopted.policy));
    let (Some(template), Some(originator)) = (template, originator) else { return Ok(None) };
    let mut octets = commands::room_for(template);
    match commands::rebuild(template, originator, intent, &signature.octets, job.symmetric.as_ref(), &mut octets) {
        // The row alone is nobody's word: a start from a snapshot does not compare it with the outcome of then.
        Ok(()) => {
            let key = fold.keys().get(&job.key).and_then(|key| PublicKey::from_spki(&key.record.spki_octets()).ok());
            let body = &octets[1..octets.len() - gbcs::SIGNATURE_PART_LEN];
            let is_it = key.is_some_and(|key| key.verifies_fixed(body, &signature.octets));
            Ok(is_it.then_some(octets))
        }
        Err(RebuildError::Differs { .. } | RebuildError::SymmetricKeyNeeded | RebuildError::SymmetricKey(_)) => {
            Ok(None)
        }
        Err(RebuildError::Fill(error)) => Err(CannotRecord::Fill(error)),
    }
}

/// The pre-command and its signature: the command that a Device accepts. In mode 9 with its symmetric key, if that is held.
pub(super) fn finish(octets: Arc<Vec<u8>>, signature: &[u8; 64], job: &Job) -> Result<CommandOctets, Vec<Reason>> {
    let mut octets: CommandOctets = if job.needs_symmetric {
        let symmetric = job.symmetric.as_ref().ok_or_else(|| vec![not_held(&job.key, job.determination)])?;
        commands::filled(&octets, symmetric).map_err(|error| vec![reason("rebuild", &error.to_string())])?
    } else {
        // The token has let go of it by now; a copy is made only if it has not.
        Arc::try_unwrap(octets).unwrap_or_else(|shared| shared.to_vec()).into()
    };
    gbcs::finish(&mut octets, signature);
    Ok(octets)
}
