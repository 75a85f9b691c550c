//! Pure. The state: what the entries so far amount to. The ledger is the state; this is its fold.
//!
//! Small state is kept here: policy, people, keys, incidents, determinations, intents without an outcome. What grows with
//! the number of Devices is kept in a [`Book`], which a store or a verifier brings: [`Fold::apply`] says by [`Change`]s
//! what an entry alters there, and they become durable together with the entry.
//!
//! The same fold runs in the daemon, at each start, and in the audit. It judges nothing: what may be recorded is decided
//! before, by [`crate::domain::policy::rules`] and [`crate::domain::intake`]. It refuses only what it cannot understand.

pub mod book;
pub(in crate::domain) mod dense;
mod directions;
pub mod jobs;
mod kept;
mod keys;
mod packed;
mod procedure;
pub mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use book::{Blobs, Book, BookError, Change, MemoryBook, RequestFacts, listed_line};
pub use kept::KeptError;

use directions::Directions;
use jobs::{JobFacts, JobState};
use serde::{Deserialize, Serialize};

use crate::domain::determination::document::{
    Decision, Determination, Form, Schedule, Scope as DocumentScope, Written,
};
use crate::domain::gbcs::Template;
use crate::domain::incident::{Determined, Progress, State};
use crate::domain::ledger::entry::{
    Actor, Batch, CertificateImported, ClockAccepted, ClockState, DeterminationRecorded, DeterminationSuspended, Entry,
    Event, FileAccepted, Genesis, IncidentOpened, Intent, KeyCopied, KeyMade, PolicyAdopted, ResponseTally,
    ResponsesTaken, Role, ScheduleRecorded, Settled, SignResult, SignatureRecord,
};
use crate::domain::ledger::meaning::Meaning;
use crate::domain::ledger::merkle;
use crate::domain::names::{
    DeterminationId, DeviceId, Digest, IncidentId, KeyLabel, Origin, PersonId, Purpose, RequestId, StatementId,
};
use crate::domain::policy::Policy;
use crate::domain::policy::facts::Ending;
use crate::domain::policy::facts::{
    AcceptedFile, DeterminationFacts, DeviceFacts, IncidentFacts, IntentState, KeyFacts, Scope, Tally,
};
use crate::domain::policy::rules::BatchFacts;
use crate::domain::policy::separation::{Part, PartsTaken};
use crate::domain::responses::bundle;
use crate::domain::time::Timestamp;

/// A policy that was adopted.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// 1 for the first.
    pub sequence: u32,
    /// Its digest.
    pub digest: Digest,
    /// The entry that adopted it.
    pub entry: u64,
    /// The policy.
    pub policy: Arc<Policy>,
}

/// An intent that has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenIntent {
    /// What was intended.
    pub intent: Intent,
    /// With which key.
    pub key: KeyLabel,
    /// Under which determination.
    pub determination: DeterminationId,
    /// The job whose Device it is, if it is one's.
    pub job: Option<RequestId>,
}

impl OpenIntent {
    /// As the book keeps it.
    fn facts(&self, index: u64, state: IntentState) -> DeviceFacts {
        let Intent { batch: _, template, device: _, counter, attempt, command: _ } = &self.intent;
        DeviceFacts {
            intent: index,
            determination: self.determination,
            template: template.clone(),
            counter: *counter,
            attempt: *attempt,
            state,
        }
    }

    fn change(&self, index: u64, state: IntentState) -> Change {
        Change::Device { key: self.key.clone(), device: self.intent.device, facts: self.facts(index, state) }
    }
}

/// A certification intent that has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenCertification {
    /// The key.
    pub key: KeyLabel,
    /// The CertificationRequestInfo, a blob.
    pub request_info: Digest,
}

/// The state after so many entries.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    size: u64,
    last_at: Option<Timestamp>,
    clock_untrusted: bool,
    /// The entry by which an operator accepted the clock last.
    clock_accepted: Option<u64>,
    genesis: Option<(Genesis, Digest)>,
    /// Every policy that was ever adopted, the one in force last.
    policies: Vec<Adopted>,
    keys: BTreeMap<KeyLabel, KeyFacts>,
    incidents: BTreeMap<IncidentId, IncidentFacts>,
    determinations: BTreeMap<DeterminationId, DeterminationFacts>,
    /// Batches that an open intent names, and the last of each that may still get intents.
    batches: BTreeMap<u64, Batch>,
    /// The last of these of each request.
    last_batches: BTreeMap<RequestId, u64>,
    open: BTreeMap<u64, OpenIntent>,
    certifications: BTreeMap<u64, OpenCertification>,
    /// Whether an activation was for one incident: then each later one is too.
    activations_bound: bool,
    /// Whether an activation or a batch named the procedure profile in force: from the first on, each does.
    profiles_named: bool,
    /// The last ceremony: genesis, and the adoption of the first policy.
    ceremony_at: Option<Timestamp>,
    /// The last exercise that was recorded.
    exercise_at: Option<Timestamp>,
    /// The statements of Key Custodians that were presented: each counts once, in every life of the daemon.
    statements: BTreeSet<StatementId>,
    /// The SHA-256 of each.
    statement_digests: BTreeSet<Digest>,
    /// What was directed about the procedure.
    directions: Directions,
    /// Every job.
    jobs: BTreeMap<RequestId, JobFacts>,
    /// The Devices of jobs whose outcome is unknown, and whose they are.
    unknown_of_jobs: BTreeMap<(KeyLabel, DeviceId), RequestId>,
    /// The last snapshot.
    snapshot: Option<u64>,
    /// How many entries there were that may have altered the Relevant Devices of an incident.
    targets_altered: u64,
    /// Lines of the device lists that determinations, schedules and jobs since the last snapshot name.
    listed: u64,
}

/// Why an entry cannot be folded in: it speaks of what is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The first entry is not the beginning, or the beginning comes again.
    #[error("expected the genesis entry at index 0 and nowhere else")]
    Genesis,
    /// Time went back.
    #[error("the entry is of {found}, before the one that precedes it, {last}")]
    TimeWentBack {
        /// The preceding entry's moment.
        last: Timestamp,
        /// This one's.
        found: Timestamp,
    },
    /// A name that the entries before do not know.
    #[error("no {what} {name} stands in the entries before")]
    NotKnown {
        /// Which kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A name given twice.
    #[error("{what} {name} stands in the entries before already")]
    KnownAlready {
        /// Which kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A document that an entry names and that cannot be read.
    #[error("the {what} {digest} cannot be read: {reason}")]
    Document {
        /// Which kind of document.
        what: &'static str,
        /// Its SHA-256.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// The book could not answer.
    #[error(transparent)]
    Book(#[from] BookError),
}

impl Fold {
    /// How many entries are folded in.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When the last one was recorded.
    pub fn last_at(&self) -> Option<Timestamp> {
        self.last_at
    }

    /// Genesis and its leaf hash.
    pub fn genesis(&self) -> Option<(&Genesis, Digest)> {
        self.genesis.as_ref().map(|(genesis, hash)| (genesis, *hash))
    }

    /// The ledger's origin.
    pub fn origin(&self) -> Option<&Origin> {
        self.genesis.as_ref().map(|(genesis, _)| &genesis.origin)
    }

    /// Live or exercise.
    pub fn purpose(&self) -> Option<Purpose> {
        self.genesis.as_ref().map(|(genesis, _)| genesis.purpose)
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<&Adopted> {
        self.policies.last()
    }

    /// Every policy that was ever adopted, the one in force last.
    pub fn policies(&self) -> &[Adopted] {
        &self.policies
    }

    /// A policy that was in force once, or is, by its digest.
    pub fn policy_by_digest(&self, digest: Digest) -> Option<&Adopted> {
        self.policies.iter().rev().find(|adopted| adopted.digest == digest)
    }

    /// When the arrangements were last used or rehearsed, as far as the ledger says: its ceremony, or an exercise.
    pub fn rehearsed_at(&self) -> Option<Timestamp> {
        self.ceremony_at.max(self.exercise_at)
    }

    /// The keys.
    pub fn keys(&self) -> &BTreeMap<KeyLabel, KeyFacts> {
        &self.keys
    }

    /// Whether a statement of a Key Custodian was presented before, by its id or its SHA-256.
    pub fn is_statement_used(&self, id: StatementId, document: Digest) -> bool {
        self.statements.contains(&id) || self.statement_digests.contains(&document)
    }

    /// Whether an activation of this ledger was for one incident: an older daemon's were for every one.
    pub fn activations_bound(&self) -> bool {
        self.activations_bound
    }

    /// Whether an activation or a batch named the procedure profile in force: from the first on, each does.
    pub fn profiles_named(&self) -> bool {
        self.profiles_named
    }

    /// The incidents.
    pub fn incidents(&self) -> &BTreeMap<IncidentId, IncidentFacts> {
        &self.incidents
    }

    /// The last snapshot.
    pub fn last_snapshot(&self) -> Option<u64> {
        self.snapshot
    }

    /// How many lines have the device lists that determinations, schedules and jobs since the last snapshot name: a start reads each of those
    /// lists again.
    pub fn listed_since_snapshot(&self) -> u64 {
        self.listed
    }

    /// Rises with each entry that may have altered the Relevant Devices of an incident.
    pub fn targets_altered(&self) -> u64 {
        self.targets_altered
    }

    /// The determinations.
    pub fn determinations(&self) -> &BTreeMap<DeterminationId, DeterminationFacts> {
        &self.determinations
    }

    /// The batch of that index, while an intent may name it.
    pub fn batch(&self, index: u64) -> Option<&Batch> {
        self.batches.get(&index)
    }

    /// Intents without an outcome, by index.
    pub fn open_intents(&self) -> &BTreeMap<u64, OpenIntent> {
        &self.open
    }

    /// Certification intents without an outcome, by index.
    pub fn open_certifications(&self) -> &BTreeMap<u64, OpenCertification> {
        &self.certifications
    }

    /// Whether an operator still has to look at the clock.
    pub fn clock_untrusted(&self) -> bool {
        self.clock_untrusted
    }

    /// The same, if what lies behind so many entries is not believed.
    pub fn clock_untrusted_but_for(&self, covered: u64) -> bool {
        self.clock_untrusted || self.clock_accepted.is_some_and(|entry| entry >= covered)
    }

    /// The person whom the policy in force maps an account to.
    pub fn person_of_account(&self, account: &str) -> Option<PersonId> {
        let adopted = self.policies.last()?;
        adopted.policy.person_by_account(account).map(|person| person.id.clone())
    }

    /// What the rules of a batch look at; none before the first policy.
    pub fn batch_facts<'a>(
        &'a self,
        by: &'a Actor,
        determination_id: DeterminationId,
        now: Timestamp,
        clock: ClockState,
    ) -> Option<BatchFacts<'a>> {
        let adopted = self.policies.last()?;
        let determination = self.determinations.get(&determination_id);
        let key = determination.and_then(|facts| facts.key.as_ref()).and_then(|(label, _)| self.keys.get(label));
        let line = determination.and_then(|facts| facts.symmetric_key.as_ref());
        Some(BatchFacts {
            now,
            clock,
            by,
            policy: &adopted.policy,
            policy_digest: adopted.digest,
            determination_id,
            determination,
            incident: determination.and_then(|facts| self.incidents.get(&facts.incident)),
            key,
            stopped_by: key.and_then(|key| self.stopped_by(&key.record.label)),
            compromised_in: key.and_then(|key| self.compromised_in(&key.record.label)),
            next: line.and_then(|line| self.keys.get(&line.next)),
            next_compromised_in: line.and_then(|line| self.next_compromised_in(&line.next)),
        })
    }

    /// What stops a key: the first foreign answer that no operator has looked at, of all that were handed in under a determination
    /// of this key, in whichever incident and whatever became of that determination since; with that determination. Each is
    /// resumed by itself.
    pub fn stopped_by(&self, key: &KeyLabel) -> Option<(DeterminationId, u64)> {
        let of_key = self.determinations.values().filter(|facts| facts.key.as_ref().is_some_and(|(of, _)| of == key));
        of_key.filter_map(|facts| Some((facts.id, facts.foreign?))).min_by_key(|(_, entry)| *entry)
    }

    fn leave(&mut self, settled: &Settled, changes: &mut Vec<Change>) -> Result<(), FoldError> {
        let tally = &mut self.determination_mut(settled.determination)?.tally;
        tally.unknown = tally.unknown.saturating_sub(1);
        tally.left += 1;
        self.leave_in_job(&settled.key, settled.device);
        changes.push(Change::Leave { key: settled.key.clone(), device: settled.device });
        Ok(())
    }

    /// Folds in the next entry.
    ///
    /// `leaf` is the entry as it lies; `blobs` gives the documents it names; what it alters in the book is pushed on
    /// `changes`, in order.
    #[expect(clippy::too_many_lines, reason = "a table, one row for each kind")]
    pub fn apply(
        &mut self,
        entry: &Entry,
        leaf: &[u8],
        blobs: &dyn Blobs,
        changes: &mut Vec<Change>,
    ) -> Result<(), FoldError> {
        let index = self.size;
        let Entry { v: _, at, clock, by, event } = entry;
        if let Some(last) = self.last_at.filter(|last| at < last) {
            return Err(FoldError::TimeWentBack { last, found: *at });
        }
        if matches!(event, Event::Genesis(_)) != (index == 0) {
            return Err(FoldError::Genesis);
        }
        match event {
            Event::Genesis(genesis) => {
                self.ceremony_at = Some(*at);
                self.begin(genesis, merkle::leaf_hash(leaf));
            }
            Event::PolicyAdopted(adopted) => {
                if self.policies.is_empty() {
                    self.ceremony_at = Some(*at);
                }
                self.adopt(adopted, blobs)?;
            }
            Event::CertificationIntent(intent) => {
                self.key_mut(&intent.key)?;
                let open = OpenCertification { key: intent.key.clone(), request_info: intent.request_info };
                self.certifications.insert(index, open);
            }
            Event::CertificateImported(CertificateImported { key, party, certificate, path: _ }) => {
                self.key_mut(key)?.certificate = Some((*certificate, *party));
            }
            Event::Started(started) => self.start(started, *at),
            Event::Stopped(_) => {
                self.keys.values_mut().for_each(KeyFacts::lock);
                self.keys_locked(None, *at);
            }
            Event::IncidentOpened(opened) => self.open_incident(opened, index, *at)?,
            Event::StepTaken(taken) => self.take_step(taken, index, *at, blobs)?,
            Event::IncidentClosed(closed) => self.close_incident(closed, index, *at)?,
            Event::DeterminationRecorded(recorded) => self.record(recorded, index, *at, blobs, changes)?,
            Event::ScheduleRecorded(recorded) => self.schedule(recorded, blobs, changes)?,
            Event::DeterminationSuspended(suspended) => {
                self.suspend(suspended, *at, *clock)?;
            }
            Event::DeterminationWithdrawn(withdrawn) => self.withdraw(withdrawn, *at)?,
            Event::DirectionRecorded(recorded) => self.directions.take_in(recorded, *at, blobs)?,
            Event::KeyCopied(KeyCopied { key, token, serial, spki_sha256: _, by: _ }) => {
                self.key_mut(key)?.copies.insert(token.clone(), serial.clone());
            }
            Event::SharesBegun(begun) => {
                let facts = self.key_mut(&begun.key)?;
                facts.dealing = Some(begun.clone());
                facts.presented.clear();
            }
            Event::SharesDealt(dealt) => {
                let facts = self.key_mut(&dealt.key)?;
                (facts.shares, facts.dealing) = (Some(dealt.clone()), None);
                facts.presented.clear();
            }
            Event::CustodianPresented(presented) => self.present(presented, index)?,
            Event::KeyMade(KeyMade { key }) => self.know(key),
            Event::KeyDestruction(destruction) => {
                let facts = self.key_mut(&destruction.key)?;
                facts.lock();
                facts.ending = Some(Ending::Begun { entry: index, document: destruction.document });
                self.keys_locked(Some(&destruction.key), *at);
            }
            Event::KeyDestroyed(destroyed) => {
                self.key_mut(&destroyed.key)?.ending = Some(Ending::Destroyed { entry: index });
            }
            Event::CeremonyRecorded(_) => self.ceremony_at = Some(*at),
            Event::KeyActivated(activated) => self.activate(activated, index, *at)?,
            Event::KeyLocked(locked) => {
                self.key_mut(&locked.key)?.lock();
                self.keys_locked(Some(&locked.key), *at);
            }
            Event::Batch(batch) => {
                self.profiles_named |= batch.profile.is_some();
                self.begin_batch(batch, index, changes)?;
                if let Some(progress) = self.progress_mut(&batch.incident).filter(|progress| progress.state.may_sign())
                {
                    progress.enter(State::Executing, *at);
                }
            }
            Event::Intent(intent) => self.intend(intent, index, *at, changes)?,
            Event::Outcome(outcome) => self.resolve(outcome.intent, &outcome.result, changes)?,
            Event::Released(released) => {
                self.determination_mut(released.determination)?;
                changes.extend(
                    released.intents.iter().map(|(from, until)| Change::Release { from: *from, until: *until }),
                );
            }
            Event::Settled(settled) => self.leave(settled, changes)?,
            Event::Refused(_) | Event::RefusalsFolded(_) | Event::TokenHealth(_) | Event::LoginRetried(_) => {}
            Event::Snapshot(_) => (self.snapshot, self.listed) = (Some(index), 0),
            Event::ClockJumped(_) => self.clock_untrusted = true,
            Event::ClockAccepted(accepted) => self.accept_clock(accepted, index),
            Event::FileAccepted(accepted) => self.accept_file(accepted, index, *at)?,
            Event::ExerciseRecorded(recorded) => self.exercise_at = self.exercise_at.max(Some(recorded.at)),
            Event::ResponsesTaken(taken) => self.take_responses(taken, index, blobs, changes)?,
            Event::DeviceCertificatesImported(imported) => {
                changes.push(self.device_keys(imported.certificates, index, blobs)?);
            }
            Event::SigningResumed(resumed) => {
                let facts = self.determination_mut(resumed.determination)?;
                (facts.foreign, facts.resumed) = (None, Some((index, resumed.stopped_by)));
            }
            Event::JobStarted(started) => self.start_job(started, by, index, *at)?,
            Event::JobPassed(passed) => self.pass_in_job(passed)?,
            Event::JobPaused(paused) => self.stop_job(paused.request, JobState::Paused, (by, *at, &paused.reason))?,
            Event::JobResumed(resumed) => self.resume_job(resumed.request, index)?,
            Event::JobCancelled(cancelled) => {
                self.stop_job(cancelled.request, JobState::Cancelled, (by, *at, &cancelled.reason))?;
            }
            Event::JobEnded(ended) => self.end_job(ended, *at)?,
            Event::ContingencyPrepared(prepared) => self.prepare_contingency(prepared, index)?,
            Event::RootImported(imported) => self.import_root(imported, index)?,
            Event::ContingencyChecked(checked) => self.check_contingency(checked, index)?,
            Event::SymmetricKeySpent(spent) => self.spend(spent, *at)?,
            Event::SymmetricRelease(release) => self.release_symmetric(release, by, index)?,
            Event::SymmetricReleased(released) => self.symmetric_released(released)?,
        }
        self.targets_altered += u64::from(may_alter_targets(event));
        self.take_parts(by, event);
        self.last_at = Some(*at);
        self.size += 1;
        Ok(())
    }

    fn begin(&mut self, genesis: &Genesis, leaf_hash: Digest) {
        genesis.keys.iter().for_each(|record| self.know(record));
        self.genesis = Some((genesis.clone(), leaf_hash));
    }

    /// What an operator let go on by an entry that lay under no checkpoint at a start stands still again: nobody was told of it,
    /// and whoever could write to the disk could have put it there.
    fn take_back(&mut self, from: u64) {
        for facts in self.determinations.values_mut() {
            if let Some((_, stopped_by)) = facts.resumed.take_if(|(entry, _)| *entry >= from) {
                facts.foreign = facts.foreign.or(Some(stopped_by));
            }
        }
        for facts in self.keys.values_mut() {
            facts.contingency.take_if(|contingency| !contingency.take_back(from));
        }
        self.clock_untrusted = self.clock_untrusted_but_for(from);
    }

    fn suspend(
        &mut self,
        suspended: &DeterminationSuspended,
        at: Timestamp,
        clock: ClockState,
    ) -> Result<(), FoldError> {
        let facts = self.determination_mut(suspended.determination)?;
        facts.suspended_until = facts.suspended_until.max(Some(suspended.until));
        facts.suspended_by.extend(suspended.signatures.iter().map(|signature| signature.person.clone()));
        if clock == ClockState::Untrusted {
            facts.suspended_ms = facts.suspended_ms.max(suspended.until.unix_ms() - at.unix_ms());
        }
        Ok(())
    }

    /// From here on the clock counts again. Whoever suspended a determination meanwhile did so for hours, which no clock told: they
    /// begin here.
    fn accept_clock(&mut self, accepted: &ClockAccepted, index: u64) {
        (self.clock_untrusted, self.clock_accepted) = (false, Some(index));
        for facts in self.determinations.values_mut() {
            let until = accepted.from.map(|from| from.plus_ms(std::mem::take(&mut facts.suspended_ms)));
            facts.suspended_until = facts.suspended_until.max(until.filter(|_| facts.suspended_until.is_some()));
        }
    }

    fn adopt(&mut self, adopted: &PolicyAdopted, blobs: &dyn Blobs) -> Result<(), FoldError> {
        let policy = book::read_policy(adopted.policy, blobs)?;
        for (id, facts) in &mut self.determinations {
            if !adopted.carries_over.contains(id) && facts.dropped_by_policy.is_none() {
                facts.dropped_by_policy = Some(adopted.policy);
            }
        }
        self.policies.push(Adopted {
            sequence: adopted.sequence,
            digest: adopted.policy,
            entry: self.size,
            policy: Arc::new(policy),
        });
        Ok(())
    }

    fn open_incident(&mut self, opened: &IncidentOpened, index: u64, at: Timestamp) -> Result<(), FoldError> {
        let IncidentOpened { incident, compromised, key, description, notification, profile: _ } = opened;
        let progress = notification.clone().map(|notification| Progress::reported(notification, at, index));
        let facts = IncidentFacts {
            id: incident.clone(),
            opened: index,
            opened_at: at,
            compromised: compromised.clone(),
            key: *key,
            description: description.clone(),
            closed: None,
            closed_at: None,
            progress,
            files: Vec::new(),
            parts: PartsTaken::default(),
        };
        if self.incidents.insert(incident.clone(), facts).is_some() {
            return Err(known("incident", incident));
        }
        self.settle(incident, Meaning::Notify, index, at);
        Ok(())
    }

    fn accept_file(&mut self, accepted: &FileAccepted, index: u64, at: Timestamp) -> Result<(), FoldError> {
        let FileAccepted { incident, profile: _, kind, file, signature, party, smsr, rows } = accepted;
        let signer = signature.as_ref().map(|signature| signature.person.clone());
        let (party, smsr) = (party.clone(), smsr.clone());
        let accepted = AcceptedFile { entry: index, at, kind: *kind, file: *file, signer, party, smsr, rows: *rows };
        self.incident_mut(incident)?.files.push(accepted);
        if let Some(step) = Meaning::of_file(*kind) {
            self.settle(incident, step, index, at);
        }
        Ok(())
    }

    /// Notes who took which part in the incident that an entry is about.
    fn take_parts(&mut self, by: &Actor, event: &Event) {
        let of = |id: DeterminationId| self.determinations.get(&id).map(|facts| facts.incident.clone());
        let of_job = |request: RequestId| self.jobs.get(&request).map(|job| job.incident.clone());
        let (incident, signers_part, asker_takes_part) = match event {
            Event::IncidentOpened(entry) => (Some(entry.incident.clone()), None, true),
            Event::StepTaken(entry) => (Some(entry.incident.clone()), None, true),
            Event::IncidentClosed(entry) => (Some(entry.incident.clone()), None, true),
            Event::Batch(entry) => (Some(entry.incident.clone()), None, true),
            Event::FileAccepted(entry) => (Some(entry.incident.clone()), Some(Part::Aro), false),
            Event::DeterminationRecorded(entry) => (Some(entry.incident.clone()), Some(Part::Approver), false),
            Event::ScheduleRecorded(entry) => (of(entry.determination), Some(Part::Approver), false),
            Event::DeterminationSuspended(entry) => (of(entry.determination), Some(Part::Approver), false),
            Event::DeterminationWithdrawn(entry) => (of(entry.determination), Some(Part::Approver), false),
            Event::Settled(entry) => (of(entry.determination), None, true),
            Event::ResponsesTaken(entry) => (Some(entry.incident.clone()), None, true),
            Event::SigningResumed(entry) => (Some(entry.incident.clone()), None, true),
            Event::KeyActivated(entry) => (entry.incident.clone(), None, true),
            Event::JobStarted(entry) => (Some(entry.incident.clone()), None, true),
            Event::JobPaused(entry) => (of_job(entry.request), None, true),
            Event::JobResumed(entry) => (of_job(entry.request), None, true),
            Event::JobCancelled(entry) => (of_job(entry.request), None, true),
            Event::CustodianPresented(entry) => (Some(entry.incident.clone()), Some(Part::Custodian), false),
            Event::SymmetricRelease(entry) => (Some(entry.incident.clone()), None, true),
            Event::DirectionRecorded(entry) => {
                (self.directions.departed_in(entry.direction), Some(Part::Approver), false)
            }
            // Of no incident, or the daemon's own doing under a batch whose asker was noted.
            Event::Genesis(_)
            | Event::PolicyAdopted(_)
            | Event::CertificationIntent(_)
            | Event::CertificateImported(_)
            | Event::Started(_)
            | Event::Stopped(_)
            | Event::KeyCopied(_)
            | Event::SharesBegun(_)
            | Event::SharesDealt(_)
            | Event::KeyMade(_)
            | Event::KeyDestruction(_)
            | Event::KeyDestroyed(_)
            | Event::CeremonyRecorded(_)
            | Event::KeyLocked(_)
            | Event::Intent(_)
            | Event::Outcome(_)
            | Event::Released(_)
            | Event::Refused(_)
            | Event::RefusalsFolded(_)
            | Event::ClockJumped(_)
            | Event::TokenHealth(_)
            | Event::LoginRetried(_)
            | Event::Snapshot(_)
            | Event::ClockAccepted(_)
            | Event::JobPassed(_)
            | Event::JobEnded(_)
            | Event::ExerciseRecorded(_)
            | Event::ContingencyPrepared(_)
            | Event::RootImported(_)
            | Event::ContingencyChecked(_)
            | Event::SymmetricKeySpent(_)
            | Event::SymmetricReleased(_)
            | Event::DeviceCertificatesImported(_) => return,
        };
        let Some(facts) = incident.and_then(|incident| self.incidents.get_mut(&incident)) else { return };
        if let Some(part) = signers_part {
            event.signatures().iter().for_each(|signature| facts.parts.take(&signature.person, part));
        }
        if let Some(person) = by.person.as_ref().filter(|_| asker_takes_part && by.role == Role::Operator) {
            facts.parts.take(person, Part::Operator);
        }
    }

    fn record(
        &mut self,
        recorded: &DeterminationRecorded,
        index: u64,
        at: Timestamp,
        blobs: &dyn Blobs,
        changes: &mut Vec<Change>,
    ) -> Result<(), FoldError> {
        let document: Written<Determination> = read(recorded.document, blobs)?;
        let form = document.form();
        if self.determinations.contains_key(&form.id) {
            return Err(known("determination", form.id));
        }
        if let Some(superseded) = form.supersedes {
            self.determination_mut(superseded)?.superseded_by = Some(form.id);
        }
        let counter_start = form.counter_start.unwrap_or(0);
        let scope = match form.scope() {
            Some(scope) => Some(build_scope(&scope, counter_start, recorded.document)?),
            None => None,
        };
        if let Some(scope) = &scope {
            self.listed = self.listed.saturating_add(scope.devices);
            changes.push(Change::List { determination: form.id, devices: scope.device_list });
        }
        let facts = DeterminationFacts {
            id: form.id,
            incident: form.incident.clone(),
            decision_number: form.decision_number,
            method: form.method,
            recorded: index,
            document: recorded.document,
            execute: form.decision == Decision::Execute,
            key: form.key.as_ref().map(|key| (key.label.clone(), key.spki_sha256)),
            symmetric_key: form.symmetric_key.clone(),
            counter_start,
            window: form.window,
            policy: form.policy,
            proposer: form.proposer.clone(),
            approvers: persons(&recorded.signatures),
            scope,
            suspended_until: None,
            suspended_ms: 0,
            suspended_by: std::collections::BTreeSet::new(),
            withdrawn: false,
            superseded_by: None,
            dropped_by_policy: None,
            intents: 0,
            tally: Tally::default(),
            responses: ResponseTally::default(),
            foreign: None,
            resumed: None,
            recent: std::collections::VecDeque::new(),
        };
        let determined = Determined { id: form.id, execute: facts.execute, method: form.method };
        self.determinations.insert(form.id, facts);
        self.follow(&form.incident, determined, index, at, blobs)
    }

    fn schedule(
        &mut self,
        recorded: &ScheduleRecorded,
        blobs: &dyn Blobs,
        changes: &mut Vec<Change>,
    ) -> Result<(), FoldError> {
        let document: Written<Schedule> = read(recorded.document, blobs)?;
        let facts = self.determination_mut(recorded.determination)?;
        let scope = build_scope(&document.form().scope(), facts.counter_start, recorded.document)?;
        changes.push(Change::List { determination: recorded.determination, devices: scope.device_list });
        facts.approvers.extend(persons(&recorded.signatures));
        let listed = scope.devices;
        facts.scope = Some(scope);
        self.listed = self.listed.saturating_add(listed);
        self.list_targets(recorded.determination, blobs)
    }

    fn begin_batch(&mut self, batch: &Batch, index: u64, changes: &mut Vec<Change>) -> Result<(), FoldError> {
        self.determination_mut(batch.determination)?;
        // A batch gets no further intents once its request has gone on in another.
        if let Some(before) = self.last_batches.insert(batch.request, index)
            && !self.has_open_intents(before)
        {
            self.batches.remove(&before);
        }
        self.batches.insert(index, batch.clone());
        changes.push(Change::Batch { index, request: batch.request, asked: batch.asked });
        Ok(())
    }

    fn intend(
        &mut self,
        intent: &Intent,
        index: u64,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<(), FoldError> {
        let batch = self.batches.get(&intent.batch).ok_or_else(|| not_known("batch", intent.batch))?;
        let (key, determination, request) = (batch.key.clone(), batch.determination, batch.request);
        let job = if self.jobs.is_empty() { None } else { self.intend_in_job(intent, (request, &key), at) };
        let facts = self.determination_mut(determination)?;
        facts.count_intent(at);
        if intent.attempt > 1 {
            facts.tally.unknown = facts.tally.unknown.saturating_sub(1);
        }
        let open = OpenIntent { intent: intent.clone(), key, determination, job };
        changes.push(open.change(index, IntentState::Open));
        self.open.insert(index, open);
        Ok(())
    }

    fn resolve(&mut self, intent: u64, result: &SignResult, changes: &mut Vec<Change>) -> Result<(), FoldError> {
        if self.certifications.remove(&intent).is_some() {
            if let SignResult::Signed(_) = result {
                // A certification request is public: its signature is released by its outcome, and no determination could
                // be named for it.
                changes.push(Change::Release { from: intent, until: intent + 1 });
            }
            return Ok(());
        }
        let open = self.open.remove(&intent).ok_or_else(|| not_known("open intent", intent))?;
        let tally = &mut self.determination_mut(open.determination)?.tally;
        // A further attempt that comes to nothing leaves the Device where it was: the first one may have been signed, so no
        // new counter under this determination.
        let again = open.intent.attempt > 1;
        let state = match result {
            SignResult::Signed(_) => IntentState::Signed,
            SignResult::Failed(_) if !again => IntentState::Failed,
            SignResult::NotSigned(_) if !again => IntentState::NotSigned,
            SignResult::Failed(_) | SignResult::NotSigned(_) | SignResult::Unknown(_) => IntentState::Unknown,
        };
        match result {
            SignResult::Signed(_) => tally.signed += 1,
            SignResult::Failed(_) => tally.failed += 1,
            SignResult::NotSigned(_) => tally.not_signed += 1,
            SignResult::Unknown(_) => {}
        }
        tally.unknown += u64::from(state == IntentState::Unknown);
        self.resolve_in_job(&open, result, state == IntentState::Unknown);
        changes.push(open.change(intent, state));
        Ok(())
    }

    fn take_responses(
        &mut self,
        taken: &ResponsesTaken,
        index: u64,
        blobs: &dyn Blobs,
        changes: &mut Vec<Change>,
    ) -> Result<(), FoldError> {
        let lines = match blobs.lines_in(taken.results) {
            Some(lines) => lines,
            None => book::results(taken.results, blobs)?.into(),
        };
        let facts = self.determination_mut(taken.determination)?;
        facts.responses.add(&taken.tally);
        if taken.tally.foreign > 0 {
            facts.foreign = Some(index);
        }
        self.prove_targets(taken, &lines);
        changes.push(Change::Responses { determination: taken.determination, entry: index, lines });
        Ok(())
    }

    /// The keys in the certificates of a bundle that was verified under the policy in force.
    fn device_keys(&self, certificates: Digest, entry: u64, blobs: &dyn Blobs) -> Result<Change, FoldError> {
        if let Some(keys) = blobs.keys_in(certificates) {
            return Ok(Change::DeviceKeys { entry, keys });
        }
        let wrong = |reason| FoldError::Document { what: "bundle of certificates", digest: certificates, reason };
        let policy = &self.policy().ok_or_else(|| wrong("no policy is in force".to_owned()))?.policy;
        let mut octets = Vec::new();
        blobs.stream(certificates, &mut |piece| octets.extend_from_slice(piece))?;
        let keys = bundle::keys(&octets, policy).map_err(wrong)?;
        Ok(Change::DeviceKeys { entry, keys: keys.into() })
    }

    /// Forgets a batch that gets no further intents: its request is done.
    pub fn end_batch(&mut self, index: u64) {
        if !self.has_open_intents(index)
            && let Some(batch) = self.batches.remove(&index)
        {
            self.last_batches.remove(&batch.request);
        }
    }

    /// Few intents are open at a time: those that the token signs, and the next ones.
    fn has_open_intents(&self, batch: u64) -> bool {
        self.open.values().any(|open| open.intent.batch == batch)
    }

    fn key_mut(&mut self, label: &KeyLabel) -> Result<&mut KeyFacts, FoldError> {
        self.keys.get_mut(label).ok_or_else(|| not_known("key", label))
    }

    fn incident_mut(&mut self, id: &IncidentId) -> Result<&mut IncidentFacts, FoldError> {
        self.incidents.get_mut(id).ok_or_else(|| not_known("incident", id))
    }

    fn determination_mut(&mut self, id: DeterminationId) -> Result<&mut DeterminationFacts, FoldError> {
        self.determinations.get_mut(&id).ok_or_else(|| not_known("determination", id))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "names are given by value and by reference")]
fn not_known(what: &'static str, name: impl ToString) -> FoldError {
    FoldError::NotKnown { what, name: name.to_string() }
}

#[expect(clippy::needless_pass_by_value, reason = "as above")]
fn known(what: &'static str, name: impl ToString) -> FoldError {
    FoldError::KnownAlready { what, name: name.to_string() }
}

fn persons(signatures: &[SignatureRecord]) -> std::collections::BTreeSet<PersonId> {
    signatures.iter().map(|signature| signature.person.clone()).collect()
}

/// Whether an entry may alter the Relevant Devices of an incident.
fn may_alter_targets(event: &Event) -> bool {
    matches!(
        event,
        Event::StepTaken(_)
            | Event::DeterminationRecorded(_)
            | Event::ScheduleRecorded(_)
            | Event::DeterminationWithdrawn(_)
            | Event::ResponsesTaken(_)
    )
}

/// Reads a document that an entry names.
pub fn read<F: Form>(digest: Digest, blobs: &dyn Blobs) -> Result<Written<F>, FoldError> {
    let octets = blobs.blob(digest)?;
    Written::read(octets).map_err(|faults| FoldError::Document {
        what: F::TYPE,
        digest,
        reason: faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    })
}

/// What a document says may be signed, ready for use.
pub fn build_scope(scope: &DocumentScope<'_>, counter_start: u64, document: Digest) -> Result<Scope, FoldError> {
    let mut templates = BTreeMap::new();
    for template in scope.templates {
        let parsed = Template::parse(template.payload.octets()).map_err(|error| FoldError::Document {
            what: "command template",
            digest: document,
            reason: format!("{}: {error}", template.name),
        })?;
        templates.insert(template.name.clone(), Arc::new(parsed));
    }
    Ok(Scope {
        templates,
        devices: scope.devices.count,
        device_list: scope.devices.sha256,
        device_root: scope.devices.root,
        intents_max: scope.limits.intents,
        per_hour_max: scope.limits.per_hour,
        retries_max: scope.limits.retries_of_unknown,
        retries_by_itself: scope.limits.retry_by_itself,
        counter_start,
    })
}

#[cfg(test)]
pub(in crate::domain) mod tests;
