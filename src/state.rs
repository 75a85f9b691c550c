//! Shell: the fold, caught up with the ledger in a store; and the rows that the store keeps of what grows with Devices.

use std::io::{self, Read as _};
use std::ops::Range;

use crate::domain::audit::{Again, Evidence};
use crate::domain::determination::document::DOCUMENT_LEN_MAX;
use crate::domain::fold::{Blobs, Book, BookError, Change, Fold, FoldError, RequestFacts, listed_line};
use crate::domain::intake::{self, Heads};
use crate::domain::ledger::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::domain::ledger::entry::{Entry, EntryError, Event, SignResult};
use crate::domain::ledger::merkle::{Frontier, Head, leaf_hash};
use crate::domain::ledger::note::{NoteError, Verifier};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, KeyUse, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};
use crate::domain::responses::{Responded, ResultLine};
use crate::store::{Derived, DerivedState, Reader, Store, StoreError, each_leaf};

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
    },
    /// What Devices have answered.
    Responses {
        /// Under which determination.
        determination: DeterminationId,
        /// The entry.
        entry: u64,
        /// The lines of results, a blob.
        results: Digest,
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
            Self::List { determination, devices } => {
                Derived::List { determination: *determination, blob: *devices, parse: listed_line }
            }
            Self::Released { from, until } => Derived::Released { from: *from, until: *until },
            Self::Responses { determination, entry, results } => Derived::Responses {
                determination: *determination,
                entry: *entry,
                blob: *results,
                parse: ResultLine::parse,
            },
        }
    }
}

/// The rows that these changes make, on top of those in `so_far`.
pub fn rows<D: DerivedState + ?Sized>(changes: &[Change], so_far: &D) -> Result<Vec<Row>, StoreError> {
    let mut rows: Vec<Row> = Vec::with_capacity(changes.len());
    for change in changes {
        match change {
            Change::List { determination, devices } => {
                rows.push(Row::List { determination: *determination, devices: *devices });
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
            Change::Release { from, until } => rows.push(Row::Released { from: *from, until: *until }),
            Change::Responses { determination, entry, results } => {
                rows.push(Row::Responses { determination: *determination, entry: *entry, results: *results });
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

/// The signed head of that size, if there is one.
pub fn head<R: Reader + ?Sized>(store: &R, size: u64) -> Option<intake::Head> {
    let checkpoint = store.checkpoints(size, 1).ok()?.pop().filter(|checkpoint| checkpoint.head.size == size)?;
    let last = store.leaf(size.checked_sub(1)?).ok()?;
    Some(intake::Head { root: checkpoint.head.root, at: Entry::from_leaf(&last).ok()?.at })
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
}

impl<R: Reader + ?Sized> Heads for StoredDocuments<'_, R> {
    fn head(&self, size: u64) -> Option<intake::Head> {
        head(self.0, size)
    }
}

/// Makes the state again from the ledger, and compares with what the store keeps of it: every entry, every hash, every row,
/// every signature, and the newest checkpoint under the ledger key of genesis.
///
/// What rests on documents is decided again, entry by entry: nobody can tell what a crash left under no checkpoint from what
/// somebody appended while the daemon was down, and a checkpoint proves no more than that somebody had the ledger key.
///
/// Linear in the ledger, with memory for what does not grow with Devices.
pub fn catch_up(store: &mut dyn Store) -> Result<Fold, StateError> {
    let head = store.check_tree()?;
    let ledger = store.reader()?;
    // Said first: without checkpoints, every document would seem to name a head that was never signed.
    let Some(newest) = ledger.latest_checkpoint()? else {
        return Err(StateError::NoCheckpoint { entries: head.size });
    };
    let covered = newest.head.size;
    let mut rebuild = store.rebuild()?;
    let mut fold = Fold::default();
    let mut from = 0;
    while from < head.size {
        let until = head.size.min(from + STRIDE);
        each_entry(&*ledger, from..until, |index, octets, entry| {
            // Under a checkpoint or not: who has the ledger key and the disk, but no quorum, gets no further than here.
            let documents = StoredDocuments(&*ledger);
            let book = StoredBook(&*rebuild);
            let again = Again { fold: &fold, book: &book, evidence: &documents, heads: &documents };
            // What Devices answered opens no key. Under a checkpoint the daemon verified it before, and ten million
            // signatures verified anew would hold up a start for half an hour: that is `smkictl ledger verify`'s.
            let checked = if index < covered { again.check_all_but_answers(&entry) } else { again.check(&entry) };
            checked.map_err(|reason| StateError::NotPermitted { index, reason })?;
            let mut changes = Vec::new();
            fold.apply(&entry, octets, &documents, &mut changes)
                .map_err(|source| StateError::Fold { index, source })?;
            // Before the changes: the outcome of a certification releases its signature itself.
            if let Event::Outcome(outcome) = &entry.event
                && let SignResult::Signed(digest) = outcome.result
            {
                let (outcome, intent) = (index, outcome.intent);
                let row = ledger.signature(intent)?.filter(|row| Digest::of(&row.octets) == digest);
                let row = row.ok_or(StateError::Signature { outcome, intent })?;
                rebuild.apply(&[Derived::Signature { intent, octets: &row.octets, released: false }])?;
            }
            // Change by change: a row may rest on one that a change before it made, and the next entry on all of them.
            for change in &changes {
                let rows = rows(std::slice::from_ref(change), &*rebuild)?;
                let derived: Vec<Derived<'_>> = rows.iter().map(Row::derived).collect();
                rebuild.apply(&derived)?;
            }
            Ok(())
        })?;
        from = until;
    }
    rebuild.compare_and_finish()?;
    check_checkpoint(&*ledger, &fold, head)?;
    Ok(fold)
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

/// The ledger's own key, by its origin.
pub fn ledger_verifier(fold: &Fold) -> Result<Option<Verifier>, NoteError> {
    let Some(origin) = fold.origin() else { return Ok(None) };
    let record = fold.keys().values().map(|key| &key.record).find(|record| record.use_ == KeyUse::Ledger);
    record.map(|record| Verifier::from_spki(origin.as_str(), &record.spki_octets())).transpose()
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
}
