//! Pure. The whole-log audit: replays every entry, and before each asks again whether it was permitted.
//!
//! The same functions that decide in the daemon decide here: [`crate::domain::intake`] for documents and
//! [`crate::domain::policy::rules`] for commands, with the state as it was, at the entry's own time and in the name of
//! whoever asked. So the signer of the ledger is not trusted: whoever holds its key can order entries as they like, but not
//! one that the rules, or the PMA members' own signatures, do not bear out.
//!
//! It stands at the top of the domain and not in `ledger/`, because it needs all of it: entries, fold, documents, rules.
//!
//! Memory: the fold, and a [`MemoryBook`], which grows with the Devices: ten octets for each that a list names, 32 once it has a command,
//! 16 while that is signed and not released, 24 once it has answered, and 96 for each certificate of a Device that was imported.
//! Neither commands nor signatures are checked in passing: [`Audit::new`] is told where to with them, so
//! that a shell spreads them over its processors.

mod actor;
mod commands;
mod contingency;
mod documents;
mod heads;
mod jobs;
mod responses;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::domain::certificates::signature::PublicKey;
use crate::domain::fold::dense::Dense;
use crate::domain::fold::snapshot::{self, Table, TargetsSeen, WithParts};
use crate::domain::fold::{Blobs, BookError, Fold, MemoryBook};
use crate::domain::gbcs::SymmetricKey;
use crate::domain::ledger::contingency::ReleaseResult;
use crate::domain::ledger::entry::{
    ClockState, Entry, Event, Genesis, KeyRecord, ResponseTally, SignResult, Snapshot, Started,
};
use crate::domain::ledger::merkle::leaf_hash;
use crate::domain::ledger::note::Verifier;
use crate::domain::ledger::snapshots::FORM;
use crate::domain::names::{DeviceId, Digest, KeyLabel, KeyUse, RequestId, TemplateName};
use crate::domain::time::Timestamp;

use commands::{Allowed, Filled, Run};
pub use documents::Again;
pub use heads::{Notes, Roots, join_checkpoints, read_checkpoint};

/// What the audit needs beside the entries.
pub trait Evidence: Blobs {
    /// The published signature (r ‖ s) that was made under the intent with this leaf index.
    fn signature(&self, intent: u64) -> Result<Option<[u8; 64]>, BookError>;

    /// It was released: whether it is published. What is published and not released belongs to nothing.
    fn release(&self, intent: u64) -> Result<bool, BookError>;

    /// Does it once for each number below this one, in any order: a shell may spread it over its processors.
    fn at_once(&self, count: usize, one: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(one);
    }
}

/// One value for each, in their order ([`Evidence::at_once`]).
fn each_at_once<T: Sync, R: Send + Sync>(evidence: &dyn Evidence, all: &[T], one: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let made: Vec<OnceLock<R>> = all.iter().map(|_| OnceLock::new()).collect();
    evidence.at_once(all.len(), &|n| {
        made[n].get_or_init(|| one(&all[n]));
    });
    made.into_iter().map(|made| made.into_inner().expect("evidence does it once for each")).collect()
}

/// Rows that may have changed before their pages are hashed anew, snapshot or not: their keys are in memory. Twice as many as the daemon
/// lets change before it takes a snapshot, or they would be hashed once more shortly before most of those.
const CHANGED_MAX: usize = 131_072;

/// What is known from elsewhere, and not from the ledger itself.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// The ledger's public key.
    pub key: &'a Verifier,
    /// The leaf hash of entry 0.
    pub genesis: Digest,
}

/// The first thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{}{place}: {reason}", index.map(|index| format!("entry {index}, ")).unwrap_or_default())]
pub struct AuditError {
    /// The entry, if it is one.
    pub index: Option<u64>,
    /// The kind of the entry, or the file.
    pub place: String,
    /// What was expected, and what was found.
    pub reason: String,
}

impl AuditError {
    /// Of an entry.
    #[expect(clippy::needless_pass_by_value, reason = "given away by whoever has no more use for it")]
    pub fn entry(index: u64, place: impl ToString, reason: impl ToString) -> Self {
        Self { index: Some(index), place: place.to_string(), reason: reason.to_string() }
    }

    /// Of a file.
    #[expect(clippy::needless_pass_by_value, reason = "given away by whoever has no more use for it")]
    pub fn file(place: impl ToString, reason: impl ToString) -> Self {
        Self { index: None, place: place.to_string(), reason: reason.to_string() }
    }
}

/// Whether an entry was permitted; if not, why.
type Permitted = Result<(), String>;

/// A blob that is no document, of at most so many octets.
fn whole(evidence: &dyn Evidence, digest: Digest, len_max: u64) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut too_long = false;
    let mut take = |piece: &[u8]| {
        too_long |= (octets.len() + piece.len()) as u64 > len_max;
        if !too_long {
            octets.extend_from_slice(piece);
        }
    };
    evidence.stream(digest, &mut take).map_err(text)?;
    demand(!too_long, || format!("blob {digest}: expected at most {len_max} octets, found more"))?;
    Ok(octets)
}

fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Permitted {
    if holds { Ok(()) } else { Err(otherwise()) }
}

#[expect(clippy::needless_pass_by_value, reason = "given away by whoever has no more use for it")]
fn text(error: impl ToString) -> String {
    error.to_string()
}

/// What is still to be checked of an entry that was let pass: it takes long, and nothing of it is needed to go on. If it does not
/// hold, whatever was found wrong behind it is not what is wrong first.
#[derive(Clone, Debug)]
pub struct Check {
    /// The entry that says so.
    index: u64,
    what: Checked,
}

#[derive(Clone, Debug)]
enum Checked {
    /// The pre-command of an intent has the SHA-256 that it says.
    Command { filled: Filled, template: TemplateName, command: Digest },
    /// The command of an intent was signed so, as its outcome says.
    /// One of mode 9 has the Contingency Symmetric Key in it, which is put in here.
    Signature { intent: u64, filled: Filled, symmetric_key: Option<Arc<SymmetricKey>>, signature: [u8; 64] },
    /// The same of a certification request: its CertificationRequestInfo.
    Certification { intent: u64, info: Vec<u8>, signature: [u8; 64], key: Arc<PublicKey> },
}

impl Check {
    /// Checks it. `scratch` is for octets of a command, so that not each needs 4 kB of its own; what is in it is of no matter.
    pub fn verify(&self, scratch: &mut Vec<u8>) -> Result<(), AuditError> {
        let wrong = |kind: &str, reason: String| Err(AuditError::entry(self.index, kind, reason));
        let unsigned = |intent: u64| {
            wrong("outcome", format!("the signature of intent {intent} does not verify over what was to be signed"))
        };
        match &self.what {
            Checked::Command { filled, template, command } => {
                let signed = match filled.fill(scratch) {
                    Ok(signed) => signed,
                    Err(reason) => return wrong("intent", reason),
                };
                let found = Digest::of(signed);
                if found == *command { Ok(()) } else { wrong("intent", filled.differs(template, found, *command)) }
            }
            Checked::Signature { intent, filled, symmetric_key, signature } => {
                let verifies = match symmetric_key {
                    None => filled.fill(scratch).map(|signed| filled.key.verifies_fixed(signed, signature)),
                    Some(key) => filled
                        .fill_with(key, scratch)
                        .map(|command| filled.key.verifies_fixed(&command[1..], signature)),
                };
                match verifies {
                    Ok(true) => Ok(()),
                    Ok(false) => unsigned(*intent),
                    Err(reason) => wrong("outcome", reason),
                }
            }
            Checked::Certification { intent, info, signature, key } => {
                if key.verifies_fixed(info, signature) {
                    Ok(())
                } else {
                    unsigned(*intent)
                }
            }
        }
    }
}

/// What was counted on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Entries.
    pub entries: u64,
    /// The moment of the first.
    pub from: Option<Timestamp>,
    /// The moment of the last.
    pub until: Option<Timestamp>,
    /// Signed checkpoints.
    pub checkpoints: u64,
    /// Policies adopted.
    pub policies: u64,
    /// Incidents opened.
    pub incidents: u64,
    /// Determinations recorded.
    pub determinations: u64,
    /// Schedules recorded.
    pub schedules: u64,
    /// Suspensions.
    pub suspensions: u64,
    /// Withdrawals.
    pub withdrawals: u64,
    /// Directions about the procedure.
    pub directions: u64,
    /// Starts of the daemon.
    pub starts: u64,
    /// Batches.
    pub batches: u64,
    /// Intents to sign a command.
    pub intents: u64,
    /// Commands signed.
    pub signed: u64,
    /// Commands that the token failed at.
    pub failed: u64,
    /// Commands that were never submitted to the token.
    pub not_signed: u64,
    /// Commands of which nobody can tell.
    pub unknown: u64,
    /// Unknowns that were left so.
    pub left: u64,
    /// Intents that have no outcome yet.
    pub open: u64,
    /// Signed commands that were handed over.
    pub released: u64,
    /// Refusals, told or counted.
    pub refusals: u64,
    /// Certification requests signed.
    pub certification_requests: u64,
    /// Jumps of the clock.
    pub clock_jumps: u64,
    /// Files of the procedure taken in.
    pub files: u64,
    /// Exercises recorded.
    pub exercises: u64,
    /// Certificates of Devices that were taken in.
    pub device_certificates: u64,
    /// Responses of Devices, by what they prove.
    pub responses: ResponseTally,
    /// Times that signing went on after a foreign answer.
    pub resumptions: u64,
    /// Times that a token came to stand otherwise, told or counted.
    pub token_changes: u64,
    /// Times that an operator let a PIN be offered again.
    pub logins_retried: u64,
    /// Times that shares were dealt.
    pub deals: u64,
    /// Times that a Key Custodian presented.
    pub presentations: u64,
    /// Times that a key was activated.
    pub activations: u64,
    /// Ceremonies recorded.
    pub ceremonies: u64,
    /// Snapshots of the state.
    pub snapshots: u64,
    /// Of them those in a form that this program does not know: they were not compared.
    pub snapshots_unknown: u64,
    /// Jobs started.
    pub jobs: u64,
    /// Root OCA Certificates taken in for contingency keys.
    pub roots: u64,
    /// Contingency Symmetric Keys spent.
    pub symmetric_keys_spent: u64,
    /// Times that one was released.
    pub symmetric_releases: u64,
    /// Signatures of a Contingency Private Key that were not verified: what they are over has the Contingency Symmetric Key in it, which no
    /// ledger keeps, and whoever verified had no command to take it from.
    pub contingency_unverified: u64,
    /// Entries of a clock that was set for an exercise.
    pub clock_set: u64,
}

/// An audit on its way through the entries.
pub struct Audit<'a> {
    trust: Trust<'a>,
    evidence: &'a dyn Evidence,
    roots: Roots<'a>,
    /// The moments of the last entries under the checkpoints passed.
    head_times: Vec<Timestamp>,
    fold: Fold,
    book: MemoryBook,
    keys: BTreeMap<KeyLabel, Arc<PublicKey>>,
    /// The last start of the daemon.
    started: u64,
    /// What [`crate::domain::policy::rules::decide_batch`] allowed last, while nothing but intents has come since.
    allowed: Option<Allowed>,
    /// Intents without an outcome: what was to be signed.
    filled: HashMap<u64, Filled>,
    /// The digest of what may have been signed for these Devices.
    unknown: HashMap<(KeyLabel, DeviceId), Digest>,
    /// The lists of jobs that name their Devices, sorted.
    job_lists: HashMap<RequestId, Vec<DeviceId>>,
    /// Whose the intents are.
    runs: Vec<Run>,
    /// Signed and not released, by intent: for which Device.
    pending: Dense<u64, DeviceId>,
    /// Takes what is to be checked beside, in the order in which it is found.
    checks: &'a dyn Fn(Check),
    /// The pages of what grows with Devices, as they were made last; with the lists of their parts, some four octets for each row.
    pages: [WithParts; Table::ALL.len()],
    targets: TargetsSeen,
    /// Contingency Symmetric Keys that whoever verifies has, from commands that were handed out.
    symmetric_keys: Vec<SymmetricKey>,
    /// Of them those that are of a generation of this ledger.
    symmetric_of: BTreeMap<KeyLabel, Arc<SymmetricKey>>,
    summary: Summary,
}

impl<'a> Audit<'a> {
    /// Of a ledger with these signed checkpoints ([`Notes`]). `checks` is given what is to be checked beside, in the order in which
    /// it is found: of all that does not hold, the first is what is wrong.
    pub fn new(trust: Trust<'a>, roots: Roots<'a>, evidence: &'a dyn Evidence, checks: &'a dyn Fn(Check)) -> Self {
        Self {
            trust,
            evidence,
            roots,
            head_times: Vec::new(),
            fold: Fold::default(),
            book: MemoryBook::default(),
            keys: BTreeMap::new(),
            started: 0,
            allowed: None,
            filled: HashMap::new(),
            unknown: HashMap::new(),
            job_lists: HashMap::new(),
            runs: Vec::new(),
            pending: Dense::default(),
            checks,
            pages: Table::ALL.map(WithParts::empty),
            targets: TargetsSeen::default(),
            symmetric_keys: Vec::new(),
            symmetric_of: BTreeMap::new(),
            summary: Summary::default(),
        }
    }

    /// With the Contingency Symmetric Keys that whoever verifies took from commands of mode 9
    /// ([`crate::domain::gbcs::take_symmetric_key`]): the signatures over such commands are verified with the key that unwraps the field
    /// of their generation, and counted as not verified where none does ([`Summary::contingency_unverified`]).
    #[must_use]
    pub fn with_symmetric_keys(self, symmetric_keys: Vec<SymmetricKey>) -> Self {
        Self { symmetric_keys, ..self }
    }

    /// The next entry: as [`Entry::from_canonical_leaf`] reads it, as it lies, and its leaf hash. After an error the audit is over.
    pub fn entry(&mut self, entry: &Entry, leaf: &[u8], hash: Digest) -> Result<(), AuditError> {
        let index = self.fold.size();
        let kind = entry.event.kind();
        self.permit(entry, leaf).map_err(|reason| AuditError::entry(index, kind, reason))?;
        let mut changes = Vec::new();
        self.fold
            .apply(entry, leaf, self.evidence, &mut changes)
            .map_err(|error| AuditError::entry(index, kind, error))?;
        for change in &changes {
            self.book.apply(change, self.evidence).map_err(|error| AuditError::entry(index, kind, error))?;
        }
        if self.book.changed() >= CHANGED_MAX {
            self.renew_pages();
        }
        self.count(entry);
        if self.roots.push(hash)? {
            self.head_times.push(entry.at);
        }
        Ok(())
    }

    /// After the last entry. The checks given out must all have held.
    pub fn finish(self) -> Result<Summary, AuditError> {
        let Self { roots, fold, mut summary, .. } = self;
        summary.checkpoints = roots.finish()?;
        summary.open = fold.open_intents().len() as u64;
        Ok(summary)
    }

    /// Whether the rules, the people's signatures and the entries before bear this one out.
    fn permit(&mut self, entry: &Entry, leaf: &[u8]) -> Permitted {
        let Entry { v: _, at, clock: _, by: _, event } = entry;
        match (self.fold.size(), event) {
            (0, Event::Genesis(_)) | (1, Event::PolicyAdopted(_)) | (2.., _) => {}
            (0, _) => return Err("expected the genesis entry at the beginning".into()),
            (1, _) => return Err("expected the adoption of the first policy after the genesis entry".into()),
        }
        if let Some(last) = self.fold.last_at() {
            demand(*at >= last, || format!("it is of {at}, before the entry that precedes it, of {last}"))?;
        }
        self.again().check(entry)?;
        if !matches!(event, Event::Intent(_)) {
            self.allowed = None;
        }
        match event {
            Event::Genesis(genesis) => self.check_genesis(genesis, leaf),
            Event::CertificationIntent(intent) => self.check_certification(intent),
            Event::Intent(intent) => self.check_intent(intent, entry),
            Event::Outcome(outcome) => self.check_outcome(outcome),
            Event::Released(released) => self.check_release(released, entry),
            Event::Started(started) => self.check_start(started),
            Event::JobStarted(started) => self.keep_list(started),
            Event::KeyMade(made) => self.know_key(&made.key),
            // Judged above.
            Event::PolicyAdopted(_)
            | Event::CertificateImported(_)
            | Event::IncidentOpened(_)
            | Event::StepTaken(_)
            | Event::IncidentClosed(_)
            | Event::DeterminationRecorded(_)
            | Event::ScheduleRecorded(_)
            | Event::DeterminationSuspended(_)
            | Event::DeterminationWithdrawn(_)
            | Event::DirectionRecorded(_)
            | Event::KeyCopied(_)
            | Event::SharesBegun(_)
            | Event::SharesDealt(_)
            | Event::CustodianPresented(_)
            | Event::KeyDestruction(_)
            | Event::KeyDestroyed(_)
            | Event::CeremonyRecorded(_)
            | Event::KeyActivated(_)
            | Event::KeyLocked(_)
            | Event::FileAccepted(_)
            | Event::ExerciseRecorded(_)
            | Event::Batch(_)
            | Event::Settled(_)
            | Event::ResponsesTaken(_)
            | Event::DeviceCertificatesImported(_)
            | Event::SigningResumed(_)
            | Event::Stopped(_)
            | Event::Refused(_)
            | Event::RefusalsFolded(_)
            | Event::ClockJumped(_)
            | Event::TokenHealth(_)
            | Event::LoginRetried(_)
            | Event::JobPassed(_)
            | Event::JobPaused(_)
            | Event::JobResumed(_)
            | Event::JobCancelled(_)
            | Event::JobEnded(_)
            | Event::SymmetricKeySpent(_)
            | Event::RootImported(_)
            | Event::ContingencyChecked(_)
            | Event::ClockAccepted(_) => Ok(()),
            Event::ContingencyPrepared(prepared) => self.try_symmetric_keys(prepared),
            Event::SymmetricRelease(_) => self.check_symmetric_release(),
            Event::SymmetricReleased(released) => self.check_symmetric_released(released, entry),
            Event::Snapshot(snapshot) => self.check_snapshot(snapshot),
        }
    }

    /// It commits to the state that the entries before it come to. A start of the daemon rests on that.
    fn check_snapshot(&mut self, recorded: &Snapshot) -> Permitted {
        if recorded.form != FORM {
            self.summary.snapshots_unknown += 1;
            return Ok(());
        }
        self.renew_pages();
        let targets = self.targets.told(&self.fold);
        let made = snapshot::snapshot(
            &self.fold.kept(),
            targets,
            self.pages.each_ref().map(|of_table| of_table.pages().kept()),
        );
        snapshot::compare(recorded, &made)
    }

    /// Hashes anew the pages that changed since this was done last.
    fn renew_pages(&mut self) {
        for (pages, table) in self.pages.iter_mut().zip(Table::ALL) {
            let changed = self.book.take_changed(table);
            let Ok(()) = pages.renew(changed.iter().map(Vec::as_slice), &self.book);
        }
    }

    /// What it says of entries under no checkpoint is so.
    fn check_start(&self, started: &Started) -> Permitted {
        let covered = self.roots.covered();
        demand(started.unconfirmed.is_none_or(|from| from == covered && from < self.fold.size()), || {
            format!("unconfirmed: the last checkpoint before it is of {covered} entries")
        })
    }

    fn check_genesis(&mut self, genesis: &Genesis, leaf: &[u8]) -> Permitted {
        let found = leaf_hash(leaf);
        demand(found == self.trust.genesis, || {
            format!("expected leaf hash {}, found {found}: this is another ledger", self.trust.genesis)
        })?;
        demand(genesis.origin.as_str() == self.trust.key.name(), || {
            format!("expected origin {}, as in the checkpoints, found {}", self.trust.key.name(), genesis.origin)
        })?;
        for record in &genesis.keys {
            self.know_key(record)?;
        }
        let ledger: Vec<_> = genesis.keys.iter().filter(|record| record.use_ == KeyUse::Ledger).collect();
        let is_ours = ledger.iter().all(|record| record.spki_octets() == self.trust.key.spki());
        demand(ledger.len() == 1 && is_ours, || {
            "expected one ledger key, the one that was given to verify with; found another".into()
        })
    }

    /// A key of the ledger, under which signatures are verified from here on.
    fn know_key(&mut self, record: &KeyRecord) -> Permitted {
        let key =
            PublicKey::from_spki(&record.spki_octets()).map_err(|error| format!("key {}: {error}", record.label))?;
        demand(key.spki_sha256() == record.spki_sha256, || {
            format!("key {}: spki_sha256 is not that of spki", record.label)
        })?;
        demand(self.keys.insert(record.label.clone(), Arc::new(key)).is_none(), || {
            format!("key {} stands there twice", record.label)
        })
    }

    /// Counts what was permitted.
    fn count(&mut self, entry: &Entry) {
        let index = self.fold.size() - 1;
        let summary = &mut self.summary;
        summary.entries += 1;
        summary.from.get_or_insert(entry.at);
        summary.until = Some(entry.at);
        summary.clock_set += u64::from(entry.clock == ClockState::SetForExercise);
        match &entry.event {
            Event::PolicyAdopted(_) => summary.policies += 1,
            Event::IncidentOpened(_) => summary.incidents += 1,
            Event::DeterminationRecorded(_) => summary.determinations += 1,
            Event::ScheduleRecorded(_) => summary.schedules += 1,
            Event::DeterminationSuspended(_) => summary.suspensions += 1,
            Event::DeterminationWithdrawn(_) => summary.withdrawals += 1,
            Event::DirectionRecorded(_) => summary.directions += 1,
            Event::Started(_) => {
                summary.starts += 1;
                self.started = index;
            }
            Event::Batch(_) => summary.batches += 1,
            Event::Intent(_) => summary.intents += 1,
            Event::Outcome(outcome) if self.filled.remove(&outcome.intent).is_none() => {
                let signed = matches!(outcome.result, SignResult::Signed(_));
                summary.certification_requests += u64::from(signed);
            }
            Event::Outcome(outcome) => match outcome.result {
                SignResult::Signed(_) => summary.signed += 1,
                SignResult::Failed(_) => summary.failed += 1,
                SignResult::NotSigned(_) => summary.not_signed += 1,
                SignResult::Unknown(_) => summary.unknown += 1,
            },
            Event::Settled(_) => summary.left += 1,
            Event::Refused(_) => summary.refusals += 1,
            Event::RefusalsFolded(folded) => summary.refusals += folded.count,
            Event::ClockJumped(_) => summary.clock_jumps += 1,
            Event::FileAccepted(_) => summary.files += 1,
            Event::ExerciseRecorded(_) => summary.exercises += 1,
            Event::ResponsesTaken(taken) => summary.responses.add(&taken.tally),
            Event::DeviceCertificatesImported(imported) => summary.device_certificates += imported.tally.imported,
            Event::SigningResumed(_) => summary.resumptions += 1,
            Event::TokenHealth(health) => summary.token_changes += 1 + health.folded,
            Event::LoginRetried(_) => summary.logins_retried += 1,
            Event::Snapshot(_) => summary.snapshots += 1,
            Event::SharesDealt(_) => summary.deals += 1,
            Event::CustodianPresented(_) => summary.presentations += 1,
            Event::KeyActivated(_) => summary.activations += 1,
            Event::CeremonyRecorded(_) => summary.ceremonies += 1,
            Event::JobStarted(_) => summary.jobs += 1,
            Event::JobPassed(passed) => summary.refusals += passed.refused,
            Event::RootImported(_) => summary.roots += 1,
            Event::SymmetricKeySpent(_) => summary.symmetric_keys_spent += 1,
            Event::SymmetricReleased(released) => {
                summary.symmetric_releases += u64::from(released.result == ReleaseResult::Released);
            }
            Event::Genesis(_)
            | Event::CertificationIntent(_)
            | Event::CertificateImported(_)
            | Event::Stopped(_)
            | Event::StepTaken(_)
            | Event::IncidentClosed(_)
            | Event::KeyCopied(_)
            | Event::SharesBegun(_)
            | Event::KeyMade(_)
            | Event::KeyDestruction(_)
            | Event::KeyDestroyed(_)
            | Event::KeyLocked(_)
            | Event::Released(_)
            | Event::JobPaused(_)
            | Event::JobResumed(_)
            | Event::JobCancelled(_)
            | Event::JobEnded(_)
            | Event::ContingencyPrepared(_)
            | Event::ContingencyChecked(_)
            | Event::SymmetricRelease(_)
            | Event::ClockAccepted(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
