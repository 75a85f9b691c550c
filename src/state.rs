//! Shell: the fold, caught up with the ledger in a store; and the rows that the store keeps of what grows with Devices.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::domain::audit::{Again, Evidence};
use crate::domain::determination::document::{DOCUMENT_LEN_MAX, DeviceList};
use crate::domain::determination::pages::Page;
use crate::domain::fold::snapshot::{self, FOLD_PART, Tables, TargetsSeen, targets_page, targets_part};
use crate::domain::fold::{Blobs, Book, BookError, Change, Fold, FoldError, RequestFacts};
use crate::domain::incident::Targets;
use crate::domain::incident::targets::kept::pages_of;
use crate::domain::intake::{self, Heads};
use crate::domain::ledger::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::domain::ledger::entry::{Entry, EntryError, Event, Outcome, SignResult, Snapshot};
use crate::domain::ledger::merkle::{Frontier, Head, leaf_hash};
use crate::domain::ledger::note::{NoteError, Verifier};
use crate::domain::ledger::snapshots::{FORM, TargetsKept};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, KeyUse, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};
use crate::domain::responses::{DeviceKey, ImportedKey, Responded, ResultLine};
use crate::processors;
use crate::store::{
    Base, Derived, DerivedState, Reader, Rebuild, SignatureRow, Store, StoreError, StoredCheckpoint, each_leaf,
    same_head,
};

/// Entries that are folded in at a time when a ledger is read again.
const STRIDE: u64 = 1_000;

/// Octets of a device list that are read at a time.
const PIECE_LEN: usize = 64 * 1024;

/// Why the state cannot be made from the ledger: the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry cannot be read.
    #[error("entry {index}: {source}")]
    Entry {
        /// Which.
        index: u64,
        /// Why.
        source: EntryError,
    },
    /// An entry cannot be folded in.
    #[error("entry {index}: {source}")]
    Fold {
        /// Which.
        index: u64,
        /// Why.
        source: FoldError,
    },
    /// An entry that its documents and signatures do not bear out.
    #[error(
        "entry {index} was not permitted: {reason}. The daemon never recorded it; find out who wrote to the state directory, and \
         restore the newest copy"
    )]
    NotPermitted {
        /// Which.
        index: u64,
        /// Why not.
        reason: String,
    },
    /// A signature in the store is not the one that the outcome recorded.
    #[error(
        "entry {outcome}: the signature of intent {intent} is missing or not the one recorded; restore from a backup"
    )]
    Signature {
        /// The outcome.
        outcome: u64,
        /// Its intent.
        intent: u64,
    },
    /// The newest checkpoint is not of this ledger.
    #[error("the checkpoint of size {size}: {source}")]
    Checkpoint {
        /// Its size.
        size: u64,
        /// Why.
        source: CheckpointError,
    },
    /// The state that a snapshot keeps is not the one that it commits to.
    #[error("the snapshot of entry {index}: {what}. Restore the newest copy of the state directory")]
    Snapshot {
        /// The entry.
        index: u64,
        /// What is wrong.
        what: String,
    },
    /// Entries without any checkpoint, or a genesis without a ledger key.
    #[error("the ledger has {entries} entries and no checkpoint over them that its genesis key signed")]
    NoCheckpoint {
        /// How many.
        entries: u64,
    },
    /// The ledger key of genesis.
    #[error("the ledger key of the genesis entry: {0}")]
    LedgerKey(#[from] NoteError),
}

/// A row of the store as changes make it.
#[derive(Clone, Debug)]
pub enum Row {
    /// Of a Device with a key.
    Device {
        /// The key.
        key: KeyLabel,
        /// The Device.
        device: DeviceId,
        /// The row.
        facts: DeviceFacts,
    },
    /// Of a request.
    Request {
        /// Which.
        request: RequestId,
        /// The row.
        facts: RequestFacts,
    },
    /// Those of a device list.
    List {
        /// Whose.
        determination: DeterminationId,
        /// The list, a blob.
        devices: Digest,
        /// By which pages its Devices are found, if somebody who read it has made them.
        pages: Option<Arc<[Page]>>,
    },
    /// What Devices have answered.
    Responses {
        /// Under which determination.
        determination: DeterminationId,
        /// The entry.
        entry: u64,
        /// The lines of results.
        lines: Arc<[ResultLine]>,
    },
    /// Keys of Devices that were imported.
    DeviceKeys {
        /// The entry.
        entry: u64,
        /// The keys.
        keys: Arc<[DeviceKey]>,
    },
    /// That the signatures of these intents were released.
    Released {
        /// The first leaf of a range.
        from: u64,
        /// The first that is no longer in it.
        until: u64,
    },
}

impl Row {
    /// As the store takes it.
    pub fn derived(&self) -> Derived<'_> {
        match self {
            Self::Device { key, device, facts } => Derived::Device { key, device: *device, row: facts },
            Self::Request { request, facts } => Derived::Request { id: *request, row: facts },
            Self::List { determination, devices, pages } => {
                Derived::List { determination: *determination, blob: *devices, pages: pages.as_deref() }
            }
            Self::DeviceKeys { entry, keys } => Derived::DeviceKeys { entry: *entry, keys },
            Self::Released { from, until } => Derived::Released { from: *from, until: *until },
            Self::Responses { determination, entry, lines } => {
                Derived::Responses { determination: *determination, entry: *entry, lines }
            }
        }
    }
}

/// The rows that these changes make, on top of those in `so_far`.
pub fn rows<D: DerivedState + ?Sized>(changes: &[Change], so_far: &D) -> Result<Vec<Row>, StoreError> {
    let mut rows: Vec<Row> = Vec::with_capacity(changes.len());
    for change in changes {
        match change {
            Change::List { determination, devices } => {
                rows.push(Row::List { determination: *determination, devices: *devices, pages: None });
            }
            Change::Batch { index, request, asked } => {
                let mut facts = so_far.request(*request)?.unwrap_or(RequestFacts {
                    asked: *asked,
                    first_batch: *index,
                    last_batch: *index,
                });
                facts.last_batch = *index;
                rows.push(Row::Request { request: *request, facts });
            }
            Change::Device { key, device, facts } => {
                rows.push(Row::Device { key: key.clone(), device: *device, facts: facts.clone() });
            }
            Change::Leave { key, device } => {
                if let Some(mut facts) = so_far.device(key, *device)? {
                    facts.state = IntentState::Left;
                    rows.push(Row::Device { key: key.clone(), device: *device, facts });
                }
            }
            Change::DeviceKeys { entry, keys } => {
                rows.push(Row::DeviceKeys { entry: *entry, keys: Arc::clone(keys) });
            }
            Change::Release { from, until } => rows.push(Row::Released { from: *from, until: *until }),
            Change::Responses { determination, entry, lines } => {
                rows.push(Row::Responses { determination: *determination, entry: *entry, lines: Arc::clone(lines) });
            }
        }
    }
    Ok(rows)
}

/// A document in a store.
pub fn document<R: Reader + ?Sized>(store: &R, digest: Digest) -> Result<Vec<u8>, BookError> {
    let missing = |error: &StoreError| matches!(error, StoreError::NoSuchBlob { .. });
    let mut octets = Vec::new();
    let mut reader = match store.open_blob(digest) {
        Ok(reader) => reader.take(DOCUMENT_LEN_MAX as u64 + 1),
        Err(error) if missing(&error) => return Err(BookError::BlobMissing { digest }),
        Err(error) => return Err(no_answer(error)),
    };
    reader.read_to_end(&mut octets).map_err(|error| BookError::Store { reason: error.to_string() })?;
    let found = Digest::of(&octets);
    if found == digest { Ok(octets) } else { Err(BookError::BlobAltered { digest, found }) }
}

/// A fault of the store, as the book says it.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub fn no_answer(error: StoreError) -> BookError {
    BookError::Store { reason: error.to_string() }
}

/// The head of that size as the ledger's key signed it, if it did, and the moment of its last entry, which is proven under it.
pub fn head<R: Reader + ?Sized>(store: &R, fold: &Fold, size: u64) -> Option<intake::Head> {
    let checkpoint = store.checkpoints(size, 1).ok()?.pop()?;
    let verifier = ledger_verifier(fold).ok()??;
    let head = SignedCheckpoint::verify(&checkpoint.note, &verifier).ok()?.head();
    if head.size != size {
        return None;
    }
    let last = store.leaf_under(size.checked_sub(1)?, &head).ok()?;
    Some(intake::Head { root: head.root, at: Entry::from_leaf(&last).ok()?.at })
}

/// Documents straight from a store.
pub struct StoredDocuments<'a, R: ?Sized>(pub &'a R);

impl<R: Reader + ?Sized> Blobs for StoredDocuments<'_, R> {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        document(self.0, digest)
    }

    fn stream(&self, digest: Digest, piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        match self.0.open_blob(digest) {
            Ok(reader) => {
                let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
                pieces(reader, &mut |octets| {
                    hash.update(octets);
                    piece(octets);
                })?;
                let found = Digest::try_from(hash.finish().as_ref()).expect("SHA-256 has 32 octets");
                if found == digest { Ok(()) } else { Err(BookError::BlobAltered { digest, found }) }
            }
            Err(StoreError::NoSuchBlob { digest }) => Err(BookError::BlobMissing { digest }),
            Err(error) => Err(no_answer(error)),
        }
    }
}

/// Reads to the end, a piece at a time.
pub fn pieces(mut reader: impl io::Read, piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
    let mut octets = vec![0; PIECE_LEN];
    loop {
        match reader.read(&mut octets) {
            Ok(0) => return Ok(()),
            Ok(len) => piece(&octets[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BookError::Store { reason: error.to_string() }),
        }
    }
}

impl<R: Reader + ?Sized> Evidence for StoredDocuments<'_, R> {
    fn signature(&self, intent: u64) -> Result<Option<[u8; 64]>, BookError> {
        self.0.signature(intent).map(|row| row.map(|row| row.octets)).map_err(no_answer)
    }

    fn release(&self, intent: u64) -> Result<bool, BookError> {
        self.signature(intent).map(|found| found.is_some())
    }

    fn at_once(&self, count: usize, one: &(dyn Fn(usize) + Sync)) {
        processors::at_once(count, one);
    }
}

/// The signed heads of a ledger that is folded so far.
struct StoredHeads<'a, R: ?Sized>(&'a R, &'a Fold);

impl<R: Reader + ?Sized> Heads for StoredHeads<'_, R> {
    fn head(&self, size: u64) -> Option<intake::Head> {
        head(self.0, self.1, size)
    }
}

/// A start from a snapshot: what is still to be checked of the ledger, beside the daemon ([`check_beside`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unchecked {
    base: Base,
    head: Head,
    covered: u64,
}

impl Unchecked {
    /// How many entries there are to check.
    pub const fn size(&self) -> u64 {
        self.head.size
    }
}

/// The state of a ledger for a daemon: from its newest snapshot, if it has one that this program can read and a checkpoint covers, and
/// then with what is still to be checked; else as [`check_all`] makes it. That takes long: `tell` hears each time that it went on, and of
/// how many entries. Then the pages of the rows are made too, so that the first snapshot is as short as any other.
pub fn start(store: &mut dyn Store, tell: &mut dyn FnMut(u64)) -> Result<(Fold, Option<Unchecked>), StateError> {
    if let Some((fold, unchecked)) = since_snapshot(store)? {
        return Ok((fold, Some(unchecked)));
    }
    let (fold, has_pages) = check_all_telling(store, tell)?;
    if !has_pages {
        store.make_pages()?;
        tell(fold.size());
    }
    Ok((fold, None))
}

/// The same without a word about what is still to be checked: for whoever checks it otherwise.
pub fn catch_up(store: &mut dyn Store) -> Result<Fold, StateError> {
    start(store, &mut |_| ()).map(|(fold, _)| fold)
}

/// The state from the newest snapshot and the entries after it. None if there is no snapshot to start from.
///
/// What is believed is what the ledger key signed: the newest checkpoint, under it the snapshot entry, and by its digests the state that the
/// store keeps; of the rows that grow with Devices the list of their pages now, and each page when it is read first. The entries
/// after the snapshot are judged as [`check_all`] judges every one. Those before it are not read yet: [`check_beside`] judges them while the
/// daemon answers already, and no key is activated before that is done.
///
/// Linear in the entries since the snapshot, and in the list of pages.
fn since_snapshot(store: &mut dyn Store) -> Result<Option<(Fold, Unchecked)>, StateError> {
    let base = store.base()?;
    let Some(at) = base.snapshot else { return Ok(None) };
    let ledger = store.reader()?;
    let head = ledger.head()?;
    let Some(newest) = ledger.latest_checkpoint()? else {
        return Err(StateError::NoCheckpoint { entries: head.size });
    };
    if at >= newest.head.size {
        return Ok(None);
    }
    let wrong = |what: &str| StateError::Snapshot { index: at, what: what.to_owned() };
    let Event::Snapshot(snapshot) = entry_at(&*ledger, at)?.event else {
        return Err(wrong("the store says that a snapshot stands there, and none does"));
    };
    if snapshot.form != FORM {
        return Ok(None);
    }
    if base.size != at {
        return Err(wrong(&format!("expected tables as of {at} entries, found {}", base.size)));
    }
    let documents = StoredDocuments(&*ledger);
    let mut fold = kept_fold(store, &snapshot, at, &documents)?;
    check_genesis(&*ledger, &fold)?;
    check_since(&*ledger, &fold, &newest, at)?;
    store.believe(&snapshot.tables(), false)?;
    // Before anything is judged by them, and once more with those that came since.
    check_lists(&*store, &fold).map_err(|what| StateError::Snapshot { index: at, what })?;
    for from in (at..head.size).step_by(usize::try_from(STRIDE).unwrap_or(usize::MAX)) {
        each_entry(&*ledger, from..head.size.min(from + STRIDE), |index, octets, entry| {
            if let Event::Intent(intent) = &entry.event
                && fold.batch(intent.batch).is_none()
            {
                recall(&*ledger, &mut fold, newest.head, intent.batch)?;
            }
            let changes = take_in(&*ledger, &mut fold, &*store, newest.head.size, (index, octets, &entry))?;
            if let Event::Outcome(outcome) = &entry.event {
                check_signature(&*ledger, index, outcome)?;
            }
            for change in &changes {
                let rows = rows(std::slice::from_ref(change), &*store)?;
                let derived: Vec<Derived<'_>> = rows.iter().map(Row::derived).collect();
                store.replay(&derived)?;
            }
            Ok(())
        })?;
    }
    check_lists(&*store, &fold).map_err(|what| StateError::Snapshot { index: at, what })?;
    Ok(Some((fold, Unchecked { base, head, covered: newest.head.size })))
}

/// Every device list in force is found by what folds to the root that the SMKI PMA signed: each page that is read must make a part of
/// it. No snapshot keeps them, for a determination names them already.
fn check_lists(store: &dyn Store, fold: &Fold) -> Result<(), String> {
    for (id, facts) in fold.determinations() {
        let Some(scope) = &facts.scope else { continue };
        let found = store.list_head(*id).map_err(|error| error.to_string())?;
        let expected = DeviceList { count: scope.devices, sha256: scope.device_list, root: scope.device_root };
        if found.as_ref() != Some(&expected) {
            let say = |DeviceList { count, sha256, root }: &DeviceList| {
                format!("device list {sha256} of {count} lines with the root {root}")
            };
            return Err(format!(
                "determination {id} has the {}, the store's pages make {}: they were edited; restore from a backup",
                say(&expected),
                found.as_ref().map_or_else(|| "nothing".into(), say)
            ));
        }
    }
    Ok(())
}

fn entry_at(ledger: &dyn Reader, index: u64) -> Result<Entry, StateError> {
    Entry::from_leaf(&ledger.leaf(index)?).map_err(|source| StateError::Entry { index, source })
}

/// The fold that a snapshot keeps, its parts compared with the digests.
fn kept_fold(
    store: &dyn Store,
    snapshot: &Snapshot,
    at: u64,
    documents: &StoredDocuments<'_, dyn Reader + Send>,
) -> Result<Fold, StateError> {
    let wrong = |what: String| StateError::Snapshot { index: at, what };
    let part = |name: &str, expected: Digest| {
        let octets = store.part(name)?.ok_or_else(|| wrong(format!("the store does not have its part {name}")))?;
        let found = Digest::of(&octets);
        if found == expected {
            return Ok(octets);
        }
        Err(wrong(format!("its part {name} has the SHA-256 {expected}, the store has one of {found}: it was edited")))
    };
    let kept = part(FOLD_PART, snapshot.fold)?;
    let mut targets = Vec::with_capacity(snapshot.targets.len());
    for TargetsKept { incident, sha256 } in &snapshot.targets {
        let head = part(&targets_part(incident), *sha256)?;
        let mut fault = None;
        let pages = pages_of(&head).map_err(wrong)?.into_iter().enumerate();
        let pages = pages.map_while(|(page, sha256)| {
            part(&targets_page(incident, page), sha256).map_err(|error| fault = Some(error)).ok()
        });
        let read = Targets::of_kept(&head, pages);
        fault.map_or(Ok(()), Err)?;
        targets.push((incident.clone(), read.map_err(wrong)?));
    }
    let fold = Fold::of_kept(&kept, targets, documents).map_err(|error| wrong(error.to_string()))?;
    if fold.size() == at { Ok(fold) } else { Err(wrong(format!("it is of {} entries", fold.size()))) }
}

/// The kept state is that of the ledger which begins here: whoever kept another's genesis would have another's ledger key believed.
fn check_genesis(ledger: &dyn Reader, fold: &Fold) -> Result<(), StateError> {
    let octets = ledger.leaf(0)?;
    let entry = Entry::from_leaf(&octets).map_err(|source| StateError::Entry { index: 0, source })?;
    let is_it = match (&entry.event, fold.genesis()) {
        (Event::Genesis(found), Some((kept, hash))) => found == kept && leaf_hash(&octets) == hash,
        (_, _) => false,
    };
    if is_it { Ok(()) } else { Err(StateError::Fold { index: 0, source: FoldError::Genesis }) }
}

/// The entries from the snapshot on are those that the newest checkpoint was signed over, and those that the head has.
fn check_since(ledger: &dyn Reader, fold: &Fold, newest: &StoredCheckpoint, at: u64) -> Result<(), StateError> {
    let (head, size) = (ledger.head()?, newest.head.size);
    let verifier = ledger_verifier(fold)?.ok_or(StateError::NoCheckpoint { entries: head.size })?;
    let signed =
        SignedCheckpoint::verify(&newest.note, &verifier).map_err(|source| StateError::Checkpoint { size, source })?;
    let mut frontier = Frontier::load(at, |subtree| ledger.subtree(subtree))?;
    let mut root = None;
    ledger.leaf_hashes(at..head.size, &mut |hash| {
        frontier.push(hash);
        if frontier.size() == size {
            root = Some(frontier.root());
        }
    })?;
    let found = root.ok_or(StateError::NoCheckpoint { entries: head.size })?;
    if signed.head() != newest.head || signed.head().root != found {
        return Err(StoreError::CheckpointMismatch { size, expected: signed.head().root, found }.into());
    }
    Ok(same_head(head, frontier.head())?)
}

/// A batch from before the snapshot that an intent after it names: it stands under the same checkpoint.
fn recall(ledger: &dyn Reader, fold: &mut Fold, signed: Head, index: u64) -> Result<(), StateError> {
    let octets = ledger.leaf_under(index, &signed)?;
    let entry = Entry::from_leaf(&octets).map_err(|source| StateError::Entry { index, source })?;
    if let Event::Batch(batch) = &entry.event {
        fold.recall(index, batch);
    }
    Ok(())
}

/// Judges an entry and folds it in; what it alters in the book.
fn take_in<D: DerivedState + ?Sized>(
    ledger: &(dyn Reader + Send),
    fold: &mut Fold,
    book: &D,
    covered: u64,
    (index, octets, entry): (u64, &[u8], &Entry),
) -> Result<Vec<Change>, StateError> {
    // Under a checkpoint or not: who has the ledger key and the disk, but no quorum, gets no further than here.
    let documents = StoredDocuments(ledger);
    let book = StoredBook(book);
    let heads = StoredHeads(ledger, fold);
    let again = Again { fold, book: &book, evidence: &documents, heads: &heads };
    // What Devices answered opens no key. Under a checkpoint the daemon verified it before, and ten million
    // signatures verified anew would hold up a start for half an hour: that is `smkictl ledger verify`'s.
    let checked = if index < covered { again.check_all_but_answers(entry) } else { again.check(entry) };
    checked.map_err(|reason| StateError::NotPermitted { index, reason })?;
    let mut changes = Vec::new();
    fold.apply(entry, octets, &documents, &mut changes).map_err(|source| StateError::Fold { index, source })?;
    Ok(changes)
}

/// The signature of a signed outcome, as the store has it.
fn check_signature(ledger: &dyn Reader, index: u64, outcome: &Outcome) -> Result<Option<SignatureRow>, StateError> {
    let SignResult::Signed(digest) = outcome.result else { return Ok(None) };
    let row = ledger.signature(outcome.intent)?.filter(|row| Digest::of(&row.octets) == digest);
    row.map(Some).ok_or(StateError::Signature { outcome: index, intent: outcome.intent })
}

/// Makes the state again from the ledger, and compares with what the store keeps of it: every entry, every hash, every row,
/// every signature, every snapshot, and the newest checkpoint under the ledger key of genesis.
///
/// What rests on documents is decided again, entry by entry: nobody can tell what a crash left under no checkpoint from what
/// somebody appended while the daemon was down, and a checkpoint proves no more than that somebody had the ledger key.
///
/// Linear in the ledger, with memory for what does not grow with Devices.
pub fn check_all(store: &mut dyn Store) -> Result<Fold, StateError> {
    check_all_telling(store, &mut |_| ()).map(|(fold, _)| fold)
}

/// The same; and whether the rows are believed by the pages of a snapshot from here on.
fn check_all_telling(store: &mut dyn Store, tell: &mut dyn FnMut(u64)) -> Result<(Fold, bool), StateError> {
    let head = store.check_tree()?;
    let ledger = store.reader()?;
    // Said first: without checkpoints, every document would seem to name a head that was never signed.
    let Some(newest) = ledger.latest_checkpoint()? else {
        return Err(StateError::NoCheckpoint { entries: head.size });
    };
    let covered = newest.head.size;
    let base = store.base()?;
    if base.size > head.size {
        let expected = format!("{} entries, of which the tables are", base.size);
        return Err(StoreError::HeadCorrupt { expected, found: head.size.to_string() }.into());
    }
    let mut rebuild = store.rebuild()?;
    let through = judge(&*ledger, &mut *rebuild, Unchecked { base, head, covered }, true, &mut |entries| {
        tell(entries);
        ControlFlow::Continue(())
    })?;
    let Some((fold, believed)) = through else { return Err(StateError::NoCheckpoint { entries: head.size }) };
    rebuild.compare_and_finish()?;
    check_checkpoint(&*ledger, &fold, head)?;
    if let Some(tables) = believed {
        store.believe(&tables, true)?;
    }
    Ok((fold, believed.is_some()))
}

/// Judges the whole of a ledger beside the daemon that was started from its snapshot, as [`check_all`] does: every entry up to the head at
/// the start, every hash, every signature's digest, and that the snapshot is the one that the entries come to. `rebuild` makes the rows
/// again, in a place of its own. `tell` hears how many entries were judged, and may end it: then the answer is false.
///
/// Whoever has the ledger key and the disk, but no quorum, can have a daemon start on a forged snapshot, and gets no further than here.
pub fn check_beside(
    ledger: &(dyn Reader + Send),
    mut rebuild: Box<dyn Rebuild + '_>,
    unchecked: Unchecked,
    tell: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<bool, StateError> {
    let Some((_, believed)) = judge(ledger, &mut *rebuild, unchecked, false, tell)? else { return Ok(false) };
    if believed.is_none() {
        let index = unchecked.base.snapshot.unwrap_or_default();
        return Err(StateError::Snapshot { index, what: "no snapshot stands there".to_owned() });
    }
    rebuild.compare_lists()?;
    Ok(true)
}

/// Judges and folds the entries up to a head, making the rows again. `late`: what those after the base make of rows is told to the store.
/// None if `tell` ended it.
fn judge(
    ledger: &(dyn Reader + Send),
    rebuild: &mut dyn Rebuild,
    Unchecked { base, head, covered }: Unchecked,
    late: bool,
    tell: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Option<(Fold, Option<Tables>)>, StateError> {
    let mut believed = None;
    let mut fold = Fold::default();
    let mut frontier = Frontier::new();
    let mut targets = TargetsSeen::default();
    let mut from = 0;
    while from < head.size {
        let until = head.size.min(from + STRIDE);
        each_entry(ledger, from..until, |index, octets, entry| {
            frontier.push(leaf_hash(octets));
            if let Event::Snapshot(snapshot) = &entry.event
                && snapshot.form == FORM
            {
                // The rows are compared with the newest; those of before are an audit's, which has them page by page.
                let is_base = base.snapshot == Some(index);
                let tables = if is_base { rebuild.tables()? } else { snapshot.tables() };
                let made = snapshot::snapshot(&fold.kept(), targets.told(&fold), tables);
                snapshot::compare(snapshot, &made).map_err(|reason| StateError::NotPermitted { index, reason })?;
                believed = is_base.then_some(tables).or(believed);
            }
            let changes = take_in(ledger, &mut fold, &*rebuild, covered, (index, octets, &entry))?;
            // Before the changes: the outcome of a certification releases its signature itself.
            if let Event::Outcome(outcome) = &entry.event
                && let Some(row) = check_signature(ledger, index, outcome)?
            {
                let intent = outcome.intent;
                rebuild.apply(&[Derived::Signature { intent, octets: &row.octets, released: false }])?;
            }
            // Change by change: a row may rest on one that a change before it made, and the next entry on all of them.
            for change in &changes {
                let rows = rows(std::slice::from_ref(change), &*rebuild)?;
                let derived: Vec<Derived<'_>> = rows.iter().map(Row::derived).collect();
                rebuild.apply(&derived)?;
                if late && index >= base.size {
                    rebuild.replay(&derived)?;
                }
            }
            Ok(())
        })?;
        from = until;
        if tell(from).is_break() {
            return Ok(None);
        }
    }
    same_head(head, frontier.head())?;
    Ok(Some((fold, believed)))
}

/// Hands out each entry of a range, with its index and its leaf, to the first fault.
fn each_entry(
    ledger: &dyn Reader,
    range: Range<u64>,
    mut take: impl FnMut(u64, &[u8], Entry) -> Result<(), StateError>,
) -> Result<(), StateError> {
    each_leaf(ledger, range, |leaf| {
        let entry = Entry::from_leaf(leaf.octets).map_err(|source| StateError::Entry { index: leaf.index, source })?;
        take(leaf.index, leaf.octets, entry)
    })
}

/// The state of a ledger that a daemon is writing to, as far as a checkpoint covers it: every entry is hashed, and the root must be the one
/// that the ledger key of genesis signed. What the entries say was judged by the daemon, and is not judged again.
///
/// Linear in the ledger.
pub fn read_beside(ledger: &dyn Reader) -> Result<Fold, StateError> {
    let Some(newest) = ledger.latest_checkpoint()? else {
        return Err(StateError::NoCheckpoint { entries: ledger.head()?.size });
    };
    let Head { size, root: expected } = newest.head;
    let documents = StoredDocuments(ledger);
    let (mut fold, mut frontier) = (Fold::default(), Frontier::new());
    each_entry(ledger, 0..size, |index, octets, entry| {
        frontier.push(leaf_hash(octets));
        let folded = fold.apply(&entry, octets, &documents, &mut Vec::new());
        folded.map_err(|source| StateError::Fold { index, source })
    })?;
    let verifier = ledger_verifier(&fold)?.ok_or(StateError::NoCheckpoint { entries: size })?;
    let signed =
        SignedCheckpoint::verify(&newest.note, &verifier).map_err(|source| StateError::Checkpoint { size, source })?;
    let found = frontier.root();
    if signed.head() == newest.head && found == expected {
        Ok(fold)
    } else {
        Err(StoreError::CheckpointMismatch { size, expected: signed.head().root, found }.into())
    }
}

/// The ledger's own key, by its origin: the one of genesis.
pub fn ledger_verifier(fold: &Fold) -> Result<Option<Verifier>, NoteError> {
    let Some((genesis, _)) = fold.genesis() else { return Ok(None) };
    let record = genesis.keys.iter().find(|record| record.use_ == KeyUse::Ledger);
    record.map(|record| Verifier::from_spki(genesis.origin.as_str(), &record.spki_octets())).transpose()
}

fn check_checkpoint(ledger: &dyn Reader, fold: &Fold, head: Head) -> Result<(), StateError> {
    let none = StateError::NoCheckpoint { entries: head.size };
    let (Some(verifier), Some(newest)) = (ledger_verifier(fold)?, ledger.latest_checkpoint()?) else {
        return Err(none);
    };
    let size = newest.head.size;
    let signed =
        SignedCheckpoint::verify(&newest.note, &verifier).map_err(|source| StateError::Checkpoint { size, source })?;
    let root = ledger.root_at(size)?;
    if signed.head() == newest.head && signed.head().root == root {
        Ok(())
    } else {
        Err(StoreError::CheckpointMismatch { size, expected: root, found: signed.head().root }.into())
    }
}

/// What a decision asks of a store, and nothing queued: for reads.
pub struct StoredBook<'a, R: ?Sized>(pub &'a R);

impl<R: DerivedState + ?Sized> Book for StoredBook<'_, R> {
    fn device(&self, key: &KeyLabel, device: DeviceId) -> Result<Option<DeviceFacts>, BookError> {
        self.0.device(key, device).map_err(no_answer)
    }

    fn devices(&self, key: &KeyLabel, devices: &[DeviceId]) -> Result<Vec<Option<DeviceFacts>>, BookError> {
        self.0.devices(key, devices).map_err(no_answer)
    }

    fn listed(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Listed>, BookError> {
        self.0.listed(determination, device).map_err(no_answer)
    }

    fn request(&self, request: RequestId) -> Result<Option<RequestFacts>, BookError> {
        self.0.request(request).map_err(no_answer)
    }

    fn earlier(&self, key: &KeyLabel, device: DeviceId, counter: u64) -> Result<Option<u64>, BookError> {
        self.0.earlier(key, device, counter).map_err(no_answer)
    }

    fn responded(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Responded>, BookError> {
        self.0.responded(determination, device).map_err(no_answer)
    }

    fn responded_many(
        &self,
        determination: DeterminationId,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<Responded>>, BookError> {
        self.0.responded_many(determination, devices).map_err(no_answer)
    }

    fn device_keys(&self, device: DeviceId) -> Result<Vec<ImportedKey>, BookError> {
        self.0.device_keys(device).map_err(no_answer)
    }

    fn device_keys_of(&self, devices: &BTreeSet<DeviceId>) -> Result<Vec<(DeviceId, Vec<ImportedKey>)>, BookError> {
        self.0.device_keys_of(devices).map_err(no_answer)
    }
}
