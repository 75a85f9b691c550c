//! Pure. Commands decided again: every intent as the rules allow it, every signature after an intent under a checkpoint, and
//! nothing handed over that was not signed for that request under a determination in force.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::documents::Again;
use super::{Audit, Check, Checked, Evidence, Permitted, demand, text};
use crate::domain::certificates::signature::PublicKey;
use crate::domain::fold::Book as _;
use crate::domain::gbcs::{SymmetricKey, Template, put_symmetric_key};
use crate::domain::intake;
use crate::domain::ledger::entry::{Actor, Batch, ClockState, Entry, Intent, Outcome, Released, SignResult};
use crate::domain::names::{DeterminationId, DeviceId, Digest, PartyId, RequestId, TemplateName};
use crate::domain::policy::facts::WantedForm;
use crate::domain::policy::rules::{self, BatchFacts, CommandFacts, Refusal};
use crate::domain::time::Timestamp;

/// A batch that may be signed at this moment, by whom.
pub(super) struct Allowed {
    batch: u64,
    at: Timestamp,
    clock: ClockState,
    by: Actor,
}

/// What an intent was to sign.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    template: Arc<Template>,
    originator: PartyId,
    device: DeviceId,
    counter: u64,
    pub(super) key: Arc<PublicKey>,
}

impl Filled {
    /// What is signed: all of the pre-command but its first octet.
    pub(super) fn fill<'a>(&self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], String> {
        scratch.clear();
        self.template.fill(self.originator, self.device, self.counter, scratch).map_err(text)?;
        Ok(&scratch[1..])
    }

    /// The whole command of mode 9 with the Contingency Symmetric Key in it; what is signed is all of it but its first octet.
    pub(super) fn fill_with(&self, key: &SymmetricKey, scratch: &mut Vec<u8>) -> Result<Zeroizing<Vec<u8>>, String> {
        self.fill(scratch)?;
        put_symmetric_key(scratch, key).map_err(text)
    }

    /// It has another SHA-256 than the intent says.
    pub(super) fn differs(&self, template: &TemplateName, found: Digest, command: Digest) -> String {
        let Self { device, counter, .. } = self;
        format!("template {template} for Device {device} and counter {counter} has SHA-256 {found}, found {command}")
    }
}

/// Intents of one request in a row; other kinds of entries may lie between.
pub(super) struct Run {
    from: u64,
    /// After the last of them.
    until: u64,
    request: RequestId,
    determination: DeterminationId,
    /// Whether they are further attempts after an unknown.
    again: bool,
}

pub(super) fn allowed<T>(decided: Result<T, Vec<Refusal>>) -> Result<T, String> {
    decided.map_err(|refusals| {
        let refusals: Vec<String> = refusals.iter().map(|refusal| format!("{}: {refusal}", refusal.rule())).collect();
        format!("it was not permitted: {}", refusals.join("; "))
    })
}

impl Again<'_> {
    pub(super) fn facts<'a>(&self, entry: &'a Entry, determination: DeterminationId) -> Result<BatchFacts<'a>, String>
    where
        Self: 'a,
    {
        let Entry { v: _, at, clock, by, event: _ } = entry;
        self.fold.batch_facts(by, determination, *at, *clock).ok_or_else(|| "no policy is in force".into())
    }

    pub(super) fn check_batch(&self, batch: &Batch, entry: &Entry) -> Permitted {
        let Batch { request, asked, incident, determination: id, policy, profile, key } = batch;
        if let Some(known) = self.book.request(*request).map_err(text)? {
            demand(known.asked == *asked, || {
                format!("request {request} was used in entry {} for something else", known.first_batch)
            })?;
        }
        let facts = self.facts(entry, *id)?;
        let determination = facts.determination.ok_or_else(|| format!("no determination {id} was recorded before"))?;
        demand(determination.key.as_ref().is_some_and(|(label, _)| label == key), || {
            format!("key {key} is not the one that determination {id} requires")
        })?;
        demand(determination.incident == *incident, || {
            format!("determination {id} is of incident {}, the batch of {incident}", determination.incident)
        })?;
        demand(facts.policy_digest == *policy, || {
            format!("it names policy {policy}; in force is {}", facts.policy_digest)
        })?;
        let expected = intake::profile_in_force(self.fold, entry.at);
        demand(*profile == expected || (profile.is_none() && !self.fold.profiles_named()), || {
            format!("it names profile {profile:?} of the procedure; in force is {expected:?}")
        })?;
        allowed(rules::decide_batch(&facts))
    }
}

/// The signature of an intent if it is published: it hashes to what its outcome says.
fn published(evidence: &dyn Evidence, intent: u64, expected: Digest) -> Result<Option<[u8; 64]>, String> {
    let Some(octets) = evidence.signature(intent).map_err(text)? else { return Ok(None) };
    let found = Digest::of(&octets);
    demand(found == expected, || {
        format!("the signature of intent {intent}: its outcome has SHA-256 {expected}, found {found}")
    })?;
    Ok(Some(octets))
}

/// From here on the signature of an intent may be published, and has to be.
fn release(evidence: &dyn Evidence, intent: u64) -> Permitted {
    let is_there = evidence.release(intent).map_err(text)?;
    demand(is_there, || format!("the signature of intent {intent} was released and is missing"))
}

impl Audit<'_> {
    pub(super) fn check_intent(&mut self, intent: &Intent, entry: &Entry) -> Permitted {
        let index = self.fold.size();
        let Intent { batch: batch_index, template, device, counter, attempt, command } = intent;
        if let Some(open) = self.fold.open_intents().range(..self.started).next() {
            let started = self.started;
            return Err(format!("intent {} has no outcome, and the daemon started since (entry {started})", open.0));
        }
        let batch = self.fold.batch(*batch_index).ok_or_else(|| {
            format!("it belongs to batch {batch_index}, which does not stand before it, or ended with its run")
        })?;
        let (request, id) = (batch.request, batch.determination);
        self.again().check_in_job(request, entry)?;
        self.check_listed(request, *device)?;
        let facts = self.again().facts(entry, id)?;
        demand(batch.policy == facts.policy_digest, || {
            format!("its batch names policy {}; in force is {}", batch.policy, facts.policy_digest)
        })?;
        // Nothing that the rules of the batch look at changes by an intent.
        let is_allowed = self.allowed.as_ref().is_some_and(|allowed| {
            (allowed.batch, allowed.at, allowed.clock) == (*batch_index, entry.at, entry.clock)
                && allowed.by == entry.by
        });
        if !is_allowed {
            allowed(rules::decide_batch(&facts))?;
        }
        let listed = self.book.listed(id, *device).map_err(text)?;
        let last = self.book.device(&batch.key, *device).map_err(text)?;
        let is_retry = *attempt > 1;
        let facts = CommandFacts {
            batch: &facts,
            device: *device,
            form: if is_retry { &WantedForm::Retry } else { &WantedForm::Device },
            pre_command: None,
            listed: listed.as_ref(),
            last: last.as_ref(),
        };
        let mut decided = rules::decide(&facts);
        if !is_retry && !decided.as_ref().is_ok_and(|allowance| allowance.counter == *counter) {
            // A counter that is not the daemon's own next can only be that of a pre-command made elsewhere, which was its
            // template octet for octet: so it is if the digest below agrees.
            let originator = facts.batch.key.and_then(|key| key.originator(facts.batch.policy));
            let says = originator.map(|originator| Ok((originator, *counter)));
            let form = WantedForm::PreCommand(Vec::new());
            decided = rules::decide(&CommandFacts { form: &form, pre_command: says.as_ref(), ..facts });
        }
        let allowance = allowed(decided)?;
        demand(allowance.template_name == *template, || {
            format!("Device {device}: expected template {}, found {template}", allowance.template_name)
        })?;
        demand(allowance.counter == *counter && allowance.attempt == *attempt, || {
            let (expected, expected_attempt) = (allowance.counter, allowance.attempt);
            format!(
                "Device {device}: expected counter {expected}, attempt {expected_attempt}; found counter {counter}, \
                 attempt {attempt}"
            )
        })?;
        let key = self.keys.get(&batch.key).ok_or_else(|| format!("the ledger has no key {}", batch.key))?;
        let filled = Filled {
            template: allowance.template,
            originator: allowance.originator,
            device: *device,
            counter: *counter,
            key: Arc::clone(key),
        };
        let what = Checked::Command { filled: filled.clone(), template: template.clone(), command: *command };
        (self.checks)(Check { index, what });
        if is_retry {
            let before = self.unknown.get(&(batch.key.clone(), *device));
            demand(before == Some(command), || "it is a further attempt, and not the octets of the one before".into())?;
        }
        self.filled.insert(index, filled);
        if !is_allowed {
            self.allowed =
                Some(Allowed { batch: *batch_index, at: entry.at, clock: entry.clock, by: entry.by.clone() });
        }
        let again = *attempt > 1;
        let same = |run: &&mut Run| run.request == request && run.determination == id && run.again == again;
        match self.runs.last_mut().filter(same) {
            Some(run) => run.until = index + 1,
            None => self.runs.push(Run { from: index, until: index + 1, request, determination: id, again }),
        }
        Ok(())
    }

    pub(super) fn check_outcome(&mut self, outcome: &Outcome) -> Permitted {
        let Outcome { intent, result } = outcome;
        let index = self.fold.size();
        let open = self.fold.open_intents().get(intent);
        if let Some(open) = open {
            let of_device = (open.key.clone(), open.intent.device);
            match result {
                SignResult::Unknown(_) => self.unknown.insert(of_device, open.intent.command),
                // A further attempt that came to nothing leaves the first as unknown as it was.
                SignResult::Failed(_) | SignResult::NotSigned(_) if open.intent.attempt > 1 => None,
                SignResult::Signed(_) | SignResult::Failed(_) | SignResult::NotSigned(_) => {
                    self.unknown.remove(&of_device)
                }
            };
        }
        let signature = match result {
            SignResult::Signed(signature) => *signature,
            // The fold knows whether there is such an intent.
            SignResult::Failed(_) | SignResult::NotSigned(_) | SignResult::Unknown(_) => return Ok(()),
        };
        let certification = self.fold.open_certifications().get(intent);
        demand(open.is_some() || certification.is_some(), || {
            format!("no open intent {intent} stands before it: something was signed that was not intended")
        })?;
        let covered = self.roots.covered();
        demand(*intent < covered, || {
            format!("no checkpoint was signed between intent {intent} and it; the last one covers {covered} entries")
        })?;
        if let Some(certification) = certification {
            let key = Arc::clone(self.keys.get(&certification.key).ok_or("the ledger has no such key")?);
            let info = self.evidence.blob(certification.request_info).map_err(text)?;
            release(self.evidence, *intent)?;
            let signature = published(self.evidence, *intent, signature)?;
            let signature = signature.ok_or_else(|| format!("the signature of intent {intent} is missing"))?;
            let what = Checked::Certification { intent: *intent, info, signature, key };
            (self.checks)(Check { index, what });
        } else if let Some(filled) = self.filled.get(intent) {
            // Checked here, and not when it is released: so all that is kept until then is whose it is.
            let device = filled.device;
            if let Some(signature) = published(self.evidence, *intent, signature)? {
                let key = open.map(|open| &open.key);
                let symmetric_key = key.and_then(|key| self.symmetric_key_of(key));
                // What a Contingency Private Key signed has a key in it that no ledger keeps.
                if filled.template.needs_symmetric_key() && symmetric_key.is_none() {
                    self.summary.contingency_unverified += 1;
                } else {
                    let what = Checked::Signature { intent: *intent, filled: filled.clone(), symmetric_key, signature };
                    (self.checks)(Check { index, what });
                }
            }
            self.pending.insert(*intent, device);
        }
        Ok(())
    }

    pub(super) fn check_release(&mut self, released: &Released, entry: &Entry) -> Permitted {
        let Released { request, determination: id, intents } = released;
        let index = self.fold.size();
        demand(self.book.request(*request).map_err(text)?.is_some(), || {
            format!("no request {request} was taken in before: what was refused is not released")
        })?;
        let Entry { v: _, at, clock, by, event: _ } = entry;
        let facts = self.fold.batch_facts(by, *id, *at, *clock).ok_or("no policy is in force")?;
        allowed(rules::decide_release(&facts))?;
        let mut before = 0;
        demand(!intents.is_empty(), || "it names no intents".into())?;
        for &(from, until) in intents {
            demand(before <= from && from < until && until <= index, || {
                format!("expected ranges of earlier entries in ascending order, found {from} until {until}")
            })?;
            before = until;
            if let Some((open, _)) = self.fold.open_intents().range(from..until).next() {
                return Err(format!("intent {open} has no outcome yet"));
            }
            let first = self.runs.partition_point(|run| run.until <= from);
            let mut any = false;
            for run in self.runs[first..].iter().take_while(|run| run.from < until) {
                any = true;
                // A retry settles another request's unknown, and its command may go to either of the two.
                demand(run.determination == *id && (run.request == *request || run.again), || {
                    format!("intents from {} are of request {}, not of {request}", run.from.max(from), run.request)
                })?;
            }
            demand(any, || format!("no intent lies from {from} until {until}"))?;
            while let Some((intent, device)) = self.pending.take_first(from, until) {
                allowed(rules::decide_release_to(&facts, device).map_err(|refusal| vec![refusal]))?;
                release(self.evidence, intent)?;
                self.summary.released += 1;
            }
        }
        Ok(())
    }
}
