//! Shell: makes entries durable: hash, compare-and-append, checkpoint.
//!
//! One thread holds the [`Recorder`]: the one writer. Whoever wants something recorded asks at its [`Desk`] with a closure,
//! which decides against the durable head plus what is queued before it, queues entries, and answers. The answer leaves
//! only after everything queued is durable and under a signed checkpoint; what several askers queued meanwhile shares one
//! transaction and one signature, which the token makes while the disk writes, and which is kept and shown only once the entries
//! are durable. If the transaction fails, nobody gets an answer but that nothing more can be recorded, and the daemon stops: the state in
//! memory would be ahead of what is on the disk.
//!
//! A ledger token that is away or fails is no such failure: what was queued is durable, its answers wait until the token signs
//! again, nothing more is decided meanwhile, and whoever only looks ([`Desk::look`]) is answered as before.

mod snapshot;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::domain::determination::pages::Page;
use crate::domain::fold::snapshot::TargetsSeen;
use crate::domain::fold::{Blobs, Book, BookError, Change, Fold, FoldError, RequestFacts};
use crate::domain::gbcs::FillError;
use crate::domain::intake::{self, Heads};
use crate::domain::ledger::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::domain::ledger::entry::{
    Actor, ClockAccepted, ClockJumped, ClockState, Entry, EntryError, Event, Reason, RefusalsFolded, Refused, VERSION,
};
use crate::domain::ledger::merkle::{Head, Leaf};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, Origin, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};
use crate::domain::responses::{DeviceKey, ImportedKey, Responded, ResultLine};
use crate::domain::time::Timestamp;
use crate::hsm::{Class, HsmError};
use crate::state::{self, Row};
use crate::store::{Batch, Derived, Store, StoreError};

pub use snapshot::{SNAPSHOT_LEAVES, SNAPSHOT_LEAVES_AT_STOP, SNAPSHOT_LEAVES_MAX, SNAPSHOT_LISTED, SNAPSHOT_ROWS};

/// How many asks share one transaction at most: so that the first of them does not wait for ever on a busy night.
const GROUP_MAX: usize = 64;

/// How many asks may wait. Each is a request of somebody who waits for its answer, or the chunk of a running job.
const DESK_LEN_MAX: usize = 256;

/// How soon a ledger token that did not sign is asked again; doubled each time up to [`SIGNER_PAUSE_MAX`].
const SIGNER_PAUSE_FIRST: Duration = Duration::from_millis(20);

/// The longest pause before a ledger token that can be asked is asked again.
const SIGNER_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether it can be asked, or whether the daemon stops.
const SIGNER_POLL: Duration = Duration::from_millis(20);

/// Refusals of one account that are told one by one in [`REFUSAL_SPAN_MS`]; more are counted.
pub const REFUSALS_TOLD_MAX: u64 = 60;

/// The span over which refusals of an account are counted together.
pub const REFUSAL_SPAN_MS: i64 = 60_000;

/// Refusals of one account that are told one by one in a day; more are counted. At [`REASONS_LEN_MAX`] each they take 32 MiB,
/// whatever somebody sends who may send but has no role.
pub const REFUSALS_TOLD_A_DAY_MAX: u64 = 2_000;

/// A day in milliseconds.
const DAY_MS: i64 = 24 * 3_600_000;

/// Reasons that one refusal tells; a leaf has room for some hundred.
const REASONS_MAX: usize = 100;

/// Octets that the reasons of one refusal have in the leaf, which has room for four times as many. Reasons repeat what was sent,
/// and anybody may send something that is refused.
const REASONS_LEN_MAX: usize = 16 * 1024;

/// Characters of a text that others wrote (a caller, a vendor's module) and that an entry tells: enough to act on.
pub const TEXT_LEN_MAX: usize = 500;

/// The target of the journal's lines about checkpoints, which no setting of the log filters: what an outsider compares an older
/// copy of the ledger with.
pub const CHECKPOINT_TARGET: &str = "smkid::checkpoint";

/// Why nothing more can be recorded. The daemon stops with a status of its own.
#[derive(Debug, thiserror::Error)]
pub enum CannotRecord {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger token did not sign the checkpoint.
    #[error(
        "the ledger token does not sign checkpoints: {0}. What was recorded last is durable; start again once the token is there"
    )]
    Token(#[from] HsmError),
    /// The checkpoint does not verify.
    #[error("the checkpoint that the ledger token signed does not verify: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// An entry could not be folded in: a fault of ours.
    #[error("an entry does not fit the ledger: {0}")]
    Fold(#[from] FoldError),
    /// An entry has no encoding: a fault of ours.
    #[error("an entry cannot be written: {0}")]
    Entry(#[from] EntryError),
    /// A template that was checked cannot be filled: a fault of ours.
    #[error("a template cannot be filled: {0}")]
    Fill(FillError),
}

impl From<BookError> for CannotRecord {
    fn from(error: BookError) -> Self {
        Self::Fold(FoldError::Book(error))
    }
}

/// Signs checkpoints with the ledger key.
pub trait CheckpointSigner: Send {
    /// Says that [`CheckpointSigner::sign`] will be asked for this one once its entries are durable. It may be submitted to the token now; no
    /// result is given out before that call.
    fn begin(&mut self, _next: &Checkpoint) {}
    /// The checkpoint under a verified signature.
    ///
    /// # Errors
    /// [`CannotRecord::Token`]: it was not signed. [`CannotRecord::Checkpoint`]: it does not verify, or is another ledger's.
    fn sign(&mut self, checkpoint: &Checkpoint) -> Result<SignedCheckpoint, CannotRecord>;
    /// Whether it can be asked: its token is there.
    fn is_ready(&self) -> bool {
        true
    }
}

impl CannotRecord {
    /// Whether it passes once the ledger token is there again. What the token made wrongly, or should not have been asked, does
    /// not.
    fn passes(&self) -> bool {
        match self {
            Self::Token(error) => !matches!(error, HsmError::WrongSignature(_)) && error.class() != Class::OurFault,
            Self::Store(_) | Self::Checkpoint(_) | Self::Fold(_) | Self::Entry(_) | Self::Fill(_) => false,
        }
    }
}

/// A moment by the daemon's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What the clock is worth.
    pub clock: ClockState,
}

/// Reads the clock: the moment to record, and by how many milliseconds the wall clock jumped since it was read last, if it did.
pub type ReadClock = Box<dyn FnMut() -> (Moment, Option<i64>) + Send>;

/// What is queued: durable together, or not at all.
#[derive(Default)]
struct Queue {
    leaves: Vec<Vec<u8>>,
    /// Documents by their SHA-256, which is taken once: some have megabytes.
    blobs: Vec<(Digest, Vec<u8>)>,
    staged: Vec<Digest>,
    /// By which pages the Devices of lists are found that queued entries bring into force.
    pages: HashMap<Digest, Arc<[Page]>>,
    /// What the bundles of certificates have that queued entries name.
    keys_in: HashMap<Digest, Arc<[DeviceKey]>>,
    /// The lines of the lists of results that queued entries name.
    lines_in: HashMap<Digest, Arc<[ResultLine]>>,
    changes: Vec<Change>,
    signatures: Vec<(u64, [u8; 64], bool)>,
    /// What the changes say about Devices, for decisions that follow in the same group.
    devices: HashMap<(KeyLabel, DeviceId), DeviceFacts>,
    requests: HashMap<RequestId, RequestFacts>,
    /// Lines of results by entry, sorted by Device.
    answers: Vec<(DeterminationId, u64, Arc<[ResultLine]>)>,
    /// Keys that were imported by entry, sorted.
    device_keys: Vec<(u64, Arc<[DeviceKey]>)>,
}

impl Queue {
    /// What it says of a Device with a key, if it says anything.
    fn device(&self, key: &KeyLabel, device: DeviceId) -> Option<&DeviceFacts> {
        // The common case is that it does not, and a key to look up costs an allocation.
        if self.devices.is_empty() { None } else { self.devices.get(&(key.clone(), device)) }
    }

    /// What a Device has answered under a determination, where the store has this of it.
    fn responded(
        &self,
        determination: DeterminationId,
        device: DeviceId,
        stored: Option<Responded>,
    ) -> Option<Responded> {
        let mut known = stored;
        for (_, entry, lines) in self.answers.iter().filter(|(of, ..)| *of == determination) {
            let from = lines.partition_point(|line| line.device < Some(device));
            let of_device = lines[from..].iter().take_while(|line| line.device == Some(device));
            for said in of_device.filter_map(|line| line.said(*entry)) {
                known = Some(said.over(known.unwrap_or_default()));
            }
        }
        known
    }
}

/// The refusals of an account in the span that runs.
struct Refusals {
    since: Timestamp,
    told: u64,
    counted: u64,
    actor: Actor,
}

/// The one writer.
pub struct Recorder {
    store: Box<dyn Store>,
    fold: Fold,
    durable: Head,
    checkpointed: u64,
    signer: Option<Box<dyn CheckpointSigner>>,
    clock: ReadClock,
    /// By how many milliseconds the clock jumped, as far as no entry says so yet.
    untold_ms: Option<i64>,
    moment: Moment,
    queue: Queue,
    refusals: HashMap<Box<str>, Refusals>,
    /// The day, counted from 1970, and the refusals that were told in it, by account.
    told_today: HashMap<Box<str>, (i64, u64)>,
    refusals_told_max: u64,
    /// The Relevant Devices as the store keeps them.
    targets: TargetsSeen,
    /// The daemon's end was recorded.
    stopped: bool,
    /// Entries after which a snapshot is taken.
    snapshot_leaves: u64,
    /// Not before then, and how long to wait after the next one that the ledger token does not sign.
    snapshot_after: Option<(Instant, Duration)>,
}

/// Something that is durable and under a signed checkpoint: there is no other way to one than [`Desk::record`].
#[derive(Debug)]
#[must_use]
pub struct Recorded<T>(T);

impl<T> Recorded<T> {
    /// What was recorded.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What was recorded.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// Takes what was recorded apart: the first part is recorded still.
    pub fn split<A, B>(self, take_apart: impl FnOnce(T) -> (A, B)) -> (Recorded<A>, B) {
        let (first, second) = take_apart(self.0);
        (Recorded(first), second)
    }
}

impl<T> Recorded<Option<T>> {
    /// What was recorded, if anything was.
    pub fn into_some(self) -> Option<Recorded<T>> {
        self.0.map(Recorded)
    }
}

impl<T, E> Recorded<Result<T, E>> {
    /// What was recorded, or why it was not.
    pub fn into_result(self) -> Result<Recorded<T>, E> {
        self.0.map(Recorded)
    }
}

impl Recorder {
    /// On a store whose entries were folded into `fold`.
    pub fn new(store: Box<dyn Store>, fold: Fold, mut clock: ReadClock) -> Result<Self, StoreError> {
        let durable = store.head()?;
        let checkpointed = store.latest_checkpoint()?.map_or(0, |checkpoint| checkpoint.head.size);
        let (moment, jumped) = clock();
        Ok(Self {
            store,
            fold,
            durable,
            checkpointed,
            signer: None,
            clock,
            untold_ms: jumped,
            moment,
            queue: Queue::default(),
            refusals: HashMap::new(),
            told_today: HashMap::new(),
            refusals_told_max: REFUSALS_TOLD_MAX,
            targets: TargetsSeen::default(),
            stopped: false,
            snapshot_leaves: SNAPSHOT_LEAVES,
            snapshot_after: None,
        })
    }

    /// From here on checkpoints can be signed, and so things recorded.
    pub fn set_signer(&mut self, signer: Box<dyn CheckpointSigner>) {
        self.signer = Some(signer);
    }

    /// How many refusals of an account are told one by one in [`REFUSAL_SPAN_MS`]; else [`REFUSALS_TOLD_MAX`].
    pub fn set_refusals_told_max(&mut self, told_max: u64) {
        self.refusals_told_max = told_max;
    }

    /// After how many entries a snapshot is taken; else [`SNAPSHOT_LEAVES`].
    pub fn set_snapshot_leaves(&mut self, leaves: u64) {
        self.snapshot_leaves = leaves;
    }

    /// Whether there is a ledger token.
    pub fn has_signer(&self) -> bool {
        self.signer.is_some()
    }

    /// The state, queued entries included.
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// The store, without what is queued.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The moment of the ask that is being answered.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// The size of the newest checkpoint.
    pub fn checkpointed(&self) -> u64 {
        self.checkpointed
    }

    /// The durable head.
    pub fn durable(&self) -> Head {
        self.durable
    }

    /// Who asks, with the person whom the policy maps the account to.
    pub fn known(&self, mut actor: Actor) -> Actor {
        actor.person = self.fold.person_of_account(&actor.account);
        actor
    }

    /// Forgets a batch whose request is done.
    pub fn end_batch(&mut self, index: u64) {
        self.fold.end_batch(index);
    }

    /// Reads the clock for the next ask, and queues that it jumped.
    fn tick(&mut self) -> Result<(), CannotRecord> {
        self.read_clock();
        if self.signer.is_some() { self.tell_jump() } else { Ok(()) }
    }

    /// Records a jump of the clock that was seen and not recorded yet: while an operator has still to look at the clock, it is
    /// known without.
    pub fn tell_jump(&mut self) -> Result<(), CannotRecord> {
        let known = self.fold.clock_untrusted();
        if let Some(by_ms) = self.untold_ms.take().filter(|_| !known) {
            self.queue(&Actor::daemon(), Event::ClockJumped(ClockJumped { by_ms }))?;
        }
        Ok(())
    }

    /// Entries never go back, whatever the clock does.
    fn read_clock(&mut self) {
        let (read, jumped) = (self.clock)();
        self.moment.at = self.fold.last_at().map_or(read.at, |last| last.max(read.at));
        self.untold_ms = match (self.untold_ms, jumped) {
            (None, jumped) => jumped,
            (Some(untold_ms), jumped) => Some(untold_ms + jumped.unwrap_or(0)),
        };
        let untrusted = self.fold.clock_untrusted() || self.untold_ms.is_some();
        self.moment.clock = if untrusted { ClockState::Untrusted } else { read.clock };
    }

    /// Queues an entry and folds it in. Answers its index.
    pub fn queue(&mut self, by: &Actor, event: Event) -> Result<u64, CannotRecord> {
        let index = self.fold.size();
        let Moment { at, clock } = self.moment;
        // An entry before this one, of the same ask, may have said that the clock is not to be trusted.
        let clock = if self.fold.clock_untrusted() { ClockState::Untrusted } else { clock };
        let entry = Entry { v: VERSION, at, clock, by: by.clone(), event };
        let leaf = entry.to_leaf()?;
        let mut changes = Vec::new();
        let documents = Documents { queue: &self.queue, store: &*self.store };
        self.fold.apply(&entry, &leaf, &documents, &mut changes)?;
        self.stopped |= matches!(entry.event, Event::Stopped(_));
        self.queue.leaves.push(leaf);
        for change in changes {
            self.overlay(&change)?;
            self.queue.changes.push(change);
        }
        Ok(index)
    }

    /// Records that an operator accepted the clock, which says `from` and is worth that from here on: what the ask decides after
    /// this is decided by it. Answers the entry's index.
    pub fn accept_clock(&mut self, by: &Actor, reason: Box<str>, from: Moment) -> Result<u64, CannotRecord> {
        let index = self.queue(by, Event::ClockAccepted(ClockAccepted { reason, from: Some(from.at) }))?;
        self.moment = Moment { at: self.moment.at.max(from.at), ..from };
        Ok(index)
    }

    /// Queues a document that a queued entry is going to name: before that entry.
    pub fn queue_blob(&mut self, octets: Vec<u8>) -> Digest {
        let digest = Digest::of(&octets);
        self.queue.blobs.push((digest, octets));
        digest
    }

    /// The same where its SHA-256 was taken before, on a thread that others do not wait for.
    pub fn queue_hashed_blob(&mut self, digest: Digest, octets: Vec<u8>) {
        debug_assert_eq!(digest, Digest::of(&octets), "it is found by it from now on");
        self.queue.blobs.push((digest, octets));
    }

    /// Takes over an upload that an entry queued next is going to name; false if it waits no longer.
    #[must_use]
    pub fn claim_staged(&mut self, digest: Digest) -> bool {
        let claimed = self.store.staging().claim(digest);
        if claimed {
            self.queue.staged.push(digest);
        }
        claimed
    }

    /// Says by which pages the Devices of a list are found that an entry queued next brings into force: made of its octets by whoever
    /// read it, on a thread for which nobody waits.
    pub fn queue_pages(&mut self, list: Digest, pages: Arc<[Page]>) {
        self.queue.pages.insert(list, pages);
    }

    /// Says which keys, sorted, a bundle of certificates has that an entry queued next is going to name: found as they were verified.
    pub fn queue_keys_in(&mut self, certificates: Digest, keys: Arc<[DeviceKey]>) {
        self.queue.keys_in.insert(certificates, keys);
    }

    /// Says which lines a list of results has that an entry queued next is going to name: they were just decided.
    pub fn queue_lines_in(&mut self, results: Digest, lines: Arc<[ResultLine]>) {
        self.queue.lines_in.insert(results, lines);
    }

    /// Keeps the signature of an intent, whose SHA-256 its queued outcome has.
    pub fn queue_signature(&mut self, intent: u64, octets: [u8; 64], released: bool) {
        self.queue.signatures.push((intent, octets, released));
    }

    /// Records a refusal, or counts it if the account has had many. Answers the entry's index if there is one.
    pub fn refuse(&mut self, by: &Actor, mut refused: Refused) -> Result<Option<u64>, CannotRecord> {
        let now = self.moment.at;
        self.fold_refusals(Some(&by.account))?;
        let account = self.refusals.entry(by.account.clone()).or_insert_with(|| Refusals {
            since: now,
            told: 0,
            counted: 0,
            actor: by.clone(),
        });
        let day = now.unix_ms() / DAY_MS;
        let today = self.told_today.entry(by.account.clone()).or_insert((day, 0));
        if today.0 != day {
            *today = (day, 0);
        }
        if account.told >= self.refusals_told_max || today.1 >= REFUSALS_TOLD_A_DAY_MAX {
            account.counted += 1;
            return Ok(None);
        }
        account.told += 1;
        today.1 += 1;
        refused.reasons = told(refused.reasons);
        self.queue(by, Event::Refused(refused)).map(Some)
    }

    /// Ends the spans that are over (of all accounts, or the one), recording how many refusals were counted in each.
    pub fn fold_refusals(&mut self, only: Option<&str>) -> Result<(), CannotRecord> {
        let now = self.moment.at;
        let over: Vec<Box<str>> = self
            .refusals
            .iter()
            .filter(|(account, refusals)| {
                only.is_none_or(|only| only == &***account)
                    && now.unix_ms() - refusals.since.unix_ms() >= REFUSAL_SPAN_MS
            })
            .map(|(account, _)| account.clone())
            .collect();
        for account in over {
            let Some(Refusals { since, told: _, counted, actor }) = self.refusals.remove(&account) else { continue };
            if counted > 0 {
                self.queue(&actor, Event::RefusalsFolded(RefusalsFolded { account, count: counted, since }))?;
            }
        }
        Ok(())
    }

    /// Makes durable what is queued, and signs a checkpoint over it.
    fn settle(&mut self) -> Result<(), CannotRecord> {
        if !self.queue.leaves.is_empty() {
            self.commit()?;
        }
        self.store.let_go()?;
        if self.checkpointed < self.durable.size { self.checkpoint() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), CannotRecord> {
        let queue = std::mem::take(&mut self.queue);
        let leaves: Vec<Leaf<'_>> =
            queue.leaves.iter().map(|leaf| Leaf::new(leaf).map_err(StoreError::from)).collect::<Result<_, _>>()?;
        let blobs: Vec<(Digest, &[u8])> =
            queue.blobs.iter().map(|(digest, octets)| (*digest, octets.as_slice())).collect();
        let mut rows = state::rows(&queue.changes, &*self.store)?;
        for row in &mut rows {
            if let Row::List { devices, pages, .. } = row {
                *pages = queue.pages.get(devices).cloned();
            }
        }
        let mut derived: Vec<Derived<'_>> = Vec::with_capacity(rows.len() + queue.signatures.len());
        for (intent, octets, released) in &queue.signatures {
            derived.push(Derived::Signature { intent: *intent, octets, released: *released });
        }
        derived.extend(rows.iter().map(Row::derived));
        let batch = Batch { leaves: &leaves, blobs: &blobs, staged: &queue.staged, derived: &derived };
        // Whoever asked waits for disk and token: they work at the same time.
        let (signer, origin) = (&mut self.signer, self.fold.origin());
        let mut coming = |head| {
            if let (Some(signer), Some(origin)) = (signer.as_mut(), origin) {
                signer.begin(&Checkpoint::new(origin.clone(), head));
            }
        };
        self.durable = self.store.append_at(self.durable.size, &batch, &mut coming)?;
        Ok(())
    }

    /// Signs a checkpoint of the durable head, once there is a ledger token. It goes to the journal too, which lies elsewhere.
    fn checkpoint(&mut self) -> Result<(), CannotRecord> {
        let Some(signer) = self.signer.as_mut() else { return Ok(()) };
        let origin = self.fold.origin().ok_or(CannotRecord::Fold(FoldError::Genesis))?.clone();
        let note = signed(&mut **signer, origin, self.durable)?;
        self.store.put_checkpoint(self.durable, note.octets())?;
        self.checkpointed = self.durable.size;
        tracing::info!(target: CHECKPOINT_TARGET, size = self.durable.size, root = %self.durable.root, "checkpoint");
        Ok(())
    }

    /// Keeps what a change says, for decisions that follow in the same group.
    fn overlay(&mut self, change: &Change) -> Result<(), CannotRecord> {
        match change {
            Change::Device { key, device, facts } => {
                self.queue.devices.insert((key.clone(), *device), facts.clone());
            }
            Change::Leave { key, device } => {
                if let Some(mut facts) = self.device(key, *device)? {
                    facts.state = IntentState::Left;
                    self.queue.devices.insert((key.clone(), *device), facts);
                }
            }
            Change::Batch { index, request, asked } => {
                let mut facts = self.request(*request)?.unwrap_or(RequestFacts {
                    asked: *asked,
                    first_batch: *index,
                    last_batch: *index,
                });
                facts.last_batch = *index;
                self.queue.requests.insert(*request, facts);
            }
            Change::Responses { determination, entry, lines } => {
                self.queue.answers.push((*determination, *entry, Arc::clone(lines)));
            }
            Change::DeviceKeys { entry, keys } => {
                self.queue.device_keys.push((*entry, Arc::clone(keys)));
            }
            Change::List { .. } | Change::Release { .. } => {}
        }
        Ok(())
    }
}

/// The checkpoint over a head, signed: over this one and no other, for the store keeps the note as it is, and everything after believes it.
fn signed(signer: &mut dyn CheckpointSigner, origin: Origin, head: Head) -> Result<SignedCheckpoint, CannotRecord> {
    let note = signer.sign(&Checkpoint::new(origin, head))?;
    let Head { size, root: found } = note.head();
    if note.head() == head {
        Ok(note)
    } else {
        Err(StoreError::CheckpointMismatch { size, expected: head.root, found }.into())
    }
}

/// As many reasons as a leaf has room for, and how many more there were.
fn told(reasons: Vec<Reason>) -> Vec<Reason> {
    let (count, mut len, mut kept) = (reasons.len(), 0, Vec::new());
    for Reason { rule, text } in reasons.into_iter().take(REASONS_MAX) {
        let reason = Reason { rule, text: shortened(&text).into() };
        len += serde_json::to_vec(&reason).map_or(REASONS_LEN_MAX, |octets| octets.len());
        if len > REASONS_LEN_MAX {
            break;
        }
        kept.push(reason);
    }
    let more = count - kept.len();
    if more > 0 {
        kept.push(Reason { rule: "more".into(), text: format!("and {more} more reasons").into() });
    }
    kept
}

/// The beginning of a text, at most [`TEXT_LEN_MAX`] characters, and a sign if there was more.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_LEN_MAX) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A document that is queued.
fn queued(queue: &Queue, digest: Digest) -> Option<&[u8]> {
    queue.blobs.iter().find(|(of, _)| *of == digest).map(|(_, octets)| octets.as_slice())
}

/// Documents that are queued or in the store.
struct Documents<'a> {
    queue: &'a Queue,
    store: &'a dyn Store,
}

impl Blobs for Documents<'_> {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        match queued(self.queue, digest) {
            Some(octets) => Ok(octets.to_vec()),
            None => state::document(self.store, digest),
        }
    }

    fn stream(&self, digest: Digest, piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        if let Some(octets) = queued(self.queue, digest) {
            piece(octets);
            return Ok(());
        }
        // An upload lies under its SHA-256 until the entry that names it is durable.
        match self.store.staging().open_staged(digest) {
            Ok(Some(file)) => state::pieces(file, piece),
            Ok(None) => state::StoredDocuments(self.store).stream(digest, piece),
            Err(error) => Err(BookError::Store { reason: error.to_string() }),
        }
    }

    fn keys_in(&self, certificates: Digest) -> Option<Arc<[DeviceKey]>> {
        self.queue.keys_in.get(&certificates).cloned()
    }

    fn lines_in(&self, results: Digest) -> Option<Arc<[ResultLine]>> {
        self.queue.lines_in.get(&results).cloned()
    }
}

impl Blobs for Recorder {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        Documents { queue: &self.queue, store: &*self.store }.blob(digest)
    }

    fn stream(&self, digest: Digest, piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        Documents { queue: &self.queue, store: &*self.store }.stream(digest, piece)
    }
}

impl Book for Recorder {
    fn device(&self, key: &KeyLabel, device: DeviceId) -> Result<Option<DeviceFacts>, BookError> {
        match self.queue.device(key, device) {
            Some(facts) => Ok(Some(facts.clone())),
            None => self.store.device(key, device).map_err(state::no_answer),
        }
    }

    fn devices(&self, key: &KeyLabel, devices: &[DeviceId]) -> Result<Vec<Option<DeviceFacts>>, BookError> {
        if self.queue.devices.is_empty() {
            self.store.devices(key, devices).map_err(state::no_answer)
        } else {
            devices.iter().map(|device| self.device(key, *device)).collect()
        }
    }

    fn listed(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Listed>, BookError> {
        self.store.listed(determination, device).map_err(state::no_answer)
    }

    fn request(&self, request: RequestId) -> Result<Option<RequestFacts>, BookError> {
        match self.queue.requests.get(&request) {
            Some(facts) => Ok(Some(*facts)),
            None => self.store.request(request).map_err(state::no_answer),
        }
    }

    fn earlier(&self, key: &KeyLabel, device: DeviceId, counter: u64) -> Result<Option<u64>, BookError> {
        // What is queued may have overtaken what is in the store.
        if let Some(next) = self.queue.device(key, device)
            && let Some(before) = self.store.device(key, device).map_err(state::no_answer)?
            && before.counter == counter
            && before.is_overtaken_by(&DeviceFacts { state: IntentState::Open, ..next.clone() })
        {
            return Ok(Some(before.intent));
        }
        self.store.earlier(key, device, counter).map_err(state::no_answer)
    }

    fn responded(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Responded>, BookError> {
        let stored = self.store.responded(determination, device).map_err(state::no_answer)?;
        Ok(self.queue.responded(determination, device, stored))
    }

    fn responded_many(
        &self,
        determination: DeterminationId,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<Responded>>, BookError> {
        let stored = self.store.responded_many(determination, devices).map_err(state::no_answer)?;
        let each = devices.iter().zip(stored);
        Ok(each.map(|(device, stored)| self.queue.responded(determination, *device, stored)).collect())
    }

    fn device_keys(&self, device: DeviceId) -> Result<Vec<ImportedKey>, BookError> {
        let mut known = self.store.device_keys(device).map_err(state::no_answer)?;
        for (entry, keys) in &self.queue.device_keys {
            let from = keys.partition_point(|key| key.device < device);
            let theirs = keys[from..].iter().take_while(|key| key.device == device);
            known.extend(theirs.map(|key| ImportedKey { key: *key, entry: *entry }));
        }
        Ok(known)
    }
}

impl Heads for Recorder {
    fn head(&self, size: u64) -> Option<intake::Head> {
        state::head(&*self.store, &self.fold, size)
    }
}

/// What is asked at a desk. Each says what to do once all that was queued is durable and under a checkpoint: to answer.
enum Ask {
    /// Alters nothing.
    Look(Look),
    /// Decides, and queues.
    Record(Record, Waits),
}

/// Whether an ask is held while the ledger token is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Whatever else waits.
    Always,
    /// Where there is room.
    WithRoom,
}

type Look = Box<dyn FnOnce(&Recorder) -> Result<Done, CannotRecord> + Send>;
type Record = Box<dyn FnOnce(&mut Recorder) -> Result<Done, CannotRecord> + Send>;

type Done = Box<dyn FnOnce() + Send>;

/// Told why the ledger token does not sign, and none once it signs again.
pub type TellWait = Box<dyn FnMut(Option<&HsmError>) + Send>;

/// Where one asks the recorder. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    asks: mpsc::SyncSender<Ask>,
    /// Whether the ledger token is waited for no longer.
    given_up: Arc<AtomicBool>,
    /// The durable size.
    grown: watch::Receiver<u64>,
}

/// The recorder cannot record any more, and the daemon is stopping; or the ledger token is waited for, and the desk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this cannot be recorded: smkid is stopping, or as much as may wait for its ledger token waits already; `smkictl status` and \
     the journal say which"
)]
pub struct Closed;

impl Desk {
    /// Opens the desk on a thread of its own. `waits` hears of a ledger token that does not sign; `stopped` hears why, should
    /// nothing more be recordable; it hears nothing when the last desk is dropped.
    pub fn open(
        mut recorder: Recorder,
        waits: TellWait,
        stopped: impl FnOnce(CannotRecord) + Send + 'static,
    ) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (asks, waiting) = mpsc::sync_channel::<Ask>(DESK_LEN_MAX);
        let given_up = Arc::new(AtomicBool::new(false));
        let (tell_size, grown) = watch::channel(recorder.durable.size);
        let mut asked = Asked { waiting, held: VecDeque::new(), given_up: Arc::clone(&given_up), waits };
        let thread = thread::Builder::new().name("recorder".into()).spawn(move || {
            while let Some(first) = asked.next() {
                let served = serve(&mut recorder, first, &mut asked);
                let size = recorder.durable.size;
                tell_size.send_if_modified(|grown| std::mem::replace(grown, size) != size);
                // Whoever asked has the answer by now.
                if let Err(why) = served.and_then(|()| recorder.snapshot_if_due()) {
                    stopped(why);
                    return;
                }
            }
        })?;
        Ok((Self { asks, given_up, grown }, thread))
    }

    /// Hears of the durable size whenever it has grown (by a snapshot alone: with the next ask); of its end, where nothing more can be recorded.
    pub fn grown(&self) -> watch::Receiver<u64> {
        self.grown.clone()
    }

    /// The ledger token is waited for no longer: what waits for it comes to nothing, and the next start concludes it.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }

    /// Runs `ask` on the recorder's thread. Its answer comes back once everything it queued is durable and under a signed
    /// checkpoint. While the ledger token is waited for, so is this, whatever else waits: for what the daemon itself must record.
    pub async fn record<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Recorder) -> Result<R, CannotRecord> + Send + 'static,
    ) -> Result<Recorded<R>, Closed> {
        self.recorded(ask, Waits::Always).await
    }

    /// The same for a caller, of whom no more than a full desk may wait for the ledger token.
    pub async fn record_for_caller<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Recorder) -> Result<R, CannotRecord> + Send + 'static,
    ) -> Result<Recorded<R>, Closed> {
        self.recorded(ask, Waits::WithRoom).await
    }

    async fn recorded<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Recorder) -> Result<R, CannotRecord> + Send + 'static,
        waits: Waits,
    ) -> Result<Recorded<R>, Closed> {
        let (answer, answered) = oneshot::channel();
        let ask = Box::new(move |recorder: &mut Recorder| {
            let reply = ask(recorder)?;
            let tell: Done = Box::new(move || {
                // Whoever asked may have gone away; what was recorded stands all the same.
                let _ = answer.send(Recorded(reply));
            });
            Ok(tell)
        });
        self.ask(Ask::Record(ask, waits)).await?;
        answered.await.map_err(|_| Closed)
    }

    /// Runs what alters nothing on the recorder's thread. It is answered while the ledger token is waited for, too.
    pub async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Recorder) -> Result<R, CannotRecord> + Send + 'static,
    ) -> Result<R, Closed> {
        let (answer, answered) = oneshot::channel();
        self.ask(Ask::Look(Box::new(move |recorder| {
            let reply = look(recorder)?;
            Ok(Box::new(move || drop(answer.send(reply))))
        })))
        .await?;
        answered.await.map_err(|_| Closed)
    }

    async fn ask(&self, ask: Ask) -> Result<(), Closed> {
        // A full desk is waited for on a thread that may wait.
        let asks = self.asks.clone();
        match asks.try_send(ask) {
            Ok(()) => Ok(()),
            Err(mpsc::TrySendError::Full(ask)) => {
                let sent = tokio::task::spawn_blocking(move || asks.send(ask).is_ok()).await;
                if sent.unwrap_or(false) { Ok(()) } else { Err(Closed) }
            }
            Err(mpsc::TrySendError::Disconnected(_)) => Err(Closed),
        }
    }
}

/// The recorder's side of the desk.
struct Asked {
    waiting: mpsc::Receiver<Ask>,
    /// What came while the ledger token was waited for, and is to be recorded.
    held: VecDeque<Ask>,
    given_up: Arc<AtomicBool>,
    waits: TellWait,
}

impl Asked {
    /// The next ask, waited for; none when the last desk is dropped.
    fn next(&mut self) -> Option<Ask> {
        self.held.pop_front().or_else(|| self.waiting.recv().ok())
    }

    /// The next ask, if there is one.
    fn next_at_once(&mut self) -> Option<Ask> {
        self.held.pop_front().or_else(|| self.waiting.try_recv().ok())
    }

    /// Makes durable what is queued, and waits until the ledger token has signed a checkpoint over it. `looks` are the answers to
    /// those who only looked: they do not wait with the others.
    fn settle(&mut self, recorder: &mut Recorder, looks: &mut Vec<Done>) -> Result<(), CannotRecord> {
        let mut pause = SIGNER_PAUSE_FIRST;
        let mut waited = false;
        loop {
            let why = match recorder.settle() {
                Ok(()) => break,
                Err(why) if why.passes() => why,
                Err(why) => return Err(why),
            };
            if let CannotRecord::Token(error) = &why {
                if !waited {
                    tracing::warn!(
                        "the ledger token does not sign: {error}. Reads are answered; what is to be recorded waits"
                    );
                }
                (self.waits)(Some(error));
            }
            waited = true;
            looks.drain(..).for_each(|answer| answer());
            let next = Instant::now() + pause;
            pause = (pause * 2).min(SIGNER_PAUSE_MAX);
            loop {
                match self.waiting.recv_timeout(SIGNER_POLL) {
                    Ok(Ask::Look(look)) => {
                        recorder.read_clock();
                        look(recorder)?();
                    }
                    // Each is somebody who waits for its answer. More than that many are told that they wait in vain.
                    Ok(Ask::Record(_, Waits::WithRoom)) if self.held.len() >= DESK_LEN_MAX => {}
                    Ok(ask @ Ask::Record(..)) => self.held.push_back(ask),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Err(why),
                }
                if self.given_up.load(Ordering::SeqCst) {
                    return Err(why);
                }
                if Instant::now() >= next && recorder.signer.as_ref().is_some_and(|signer| signer.is_ready()) {
                    break;
                }
            }
        }
        if waited {
            tracing::info!("the ledger token signs again");
            (self.waits)(None);
        }
        Ok(())
    }
}

/// Serves one ask and those that wait behind it, makes all of it durable, then answers all of them.
fn serve(recorder: &mut Recorder, first: Ask, asked: &mut Asked) -> Result<(), CannotRecord> {
    let (mut looks, mut done): (Vec<Done>, Vec<Done>) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    recorder.store.hold()?;
    while let Some(ask) = next {
        recorder.tick()?;
        match ask {
            Ask::Look(look) => looks.push(look(recorder)?),
            Ask::Record(record, _) => done.push(record(recorder)?),
        }
        next = if looks.len() + done.len() < GROUP_MAX { asked.next_at_once() } else { None };
    }
    asked.settle(recorder, &mut looks)?;
    if recorder.stopped {
        // Before the answer, with which the daemon ends.
        recorder.snapshot_if_due()?;
    }
    looks.into_iter().chain(done).for_each(|answer| answer());
    Ok(())
}

/// What a ceremony records, which has the ledger for itself: an ask, without a desk.
pub fn record_alone<R>(
    recorder: &mut Recorder,
    ask: impl FnOnce(&mut Recorder) -> Result<R, CannotRecord>,
) -> Result<Recorded<R>, CannotRecord> {
    recorder.store.hold()?;
    recorder.tick()?;
    let reply = ask(recorder)?;
    recorder.settle()?;
    Ok(Recorded(reply))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::responses::{Outcome, OwnResult};

    #[test]
    fn what_is_queued_of_a_device_s_answers_stands_over_what_the_store_has() {
        let [one, other] = [[1; 8], [2; 8]].map(|octets| DeviceId(octets.into()));
        let own = |entry, outcome| Some(OwnResult { entry, intent: 3, outcome, detail: "".into() });
        let line = |device, outcome, detail: &str| ResultLine::new(Some(device), Some(3), outcome, detail);
        let [here, elsewhere] = [DeterminationId([5; 16]), DeterminationId([6; 16])];
        let foreign = line(one, Outcome::Foreign, &ResultLine::foreign_detail(88, "never signed"));
        let queue = Queue {
            answers: vec![
                (here, 7, vec![foreign, line(other, Outcome::Accepted, "")].into()),
                (elsewhere, 8, vec![line(one, Outcome::Failed, "")].into()),
                (here, 9, vec![line(other, Outcome::Alert, "said"), line(other, Outcome::Recovered, "")].into()),
            ],
            ..Queue::default()
        };
        let stored = Some(Responded { own: own(2, Outcome::Recovered), foreign: None });
        let known = Some(Responded { own: own(2, Outcome::Recovered), foreign: Some(88) });
        assert_eq!(queue.responded(here, one, stored.clone()), known);
        let known = Some(Responded { own: own(9, Outcome::Recovered), foreign: None });
        assert_eq!(queue.responded(here, other, None), known);
        assert_eq!(queue.responded(elsewhere, other, stored.clone()), stored);
        assert_eq!(queue.responded(elsewhere, other, None), None);
    }
}
