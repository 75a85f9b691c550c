//! Shell: the entries of an export: in order on one thread, and on all of them what each takes by itself.
//!
//! Where the time goes: a command costs one ECDSA verification (54 us), the SHA-256 of 4 kB twice, once by itself and once within
//! that verification, and two leaves that are read, hashed, parsed and written again (each some us). All of that is done by the
//! workers. What must be in order, whether an entry was permitted after those before it, is left to the thread that replays: some us
//! an entry, so that it keeps some ten workers busy.
//!
//! Nothing grows with the ledger: bundles are read at most [`BUNDLES_AHEAD`] ahead, and at most [`BATCHES_WAITING`] batches of checks
//! wait for each worker; then the replay waits.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::VerifyError;
use super::files::{Export, Tiles};
use crate::domain::audit::{Audit, AuditError, Check, Roots, Summary, Trust};
use crate::domain::gbcs::SymmetricKey;
use crate::domain::ledger::entry::{Entry, EntryError};
use crate::domain::ledger::merkle::{Head, Subtrees};
use crate::domain::ledger::tiles::{self, Bundle, TileName, Tree};
use crate::domain::names::Digest;

/// Bundles of 256 entries that are read ahead of the replay, for each worker.
const BUNDLES_AHEAD: usize = 8;
/// As many are ready before the replay, which waits for the first of them, is woken: to be woken takes longer than to look at one.
const WAKE: usize = 4;
/// Checks that a worker takes at a time: 4 ms of work.
const BATCH: usize = 64;
/// A ledger of so few bundles is verified on one thread: to begin and end others takes longer.
const BUNDLES_ALONE: usize = 2;
/// Batches that may wait, for each worker.
const BATCHES_WAITING: usize = 16;

/// The tree alone: everything but what the entries say.
pub(super) fn tree(
    export: &Export,
    head: &Head,
    mut roots: Roots<'_>,
    genesis: Digest,
    threads: NonZeroUsize,
) -> Result<(), VerifyError> {
    let pool = Pool::new(export.tiles(), head.size, threads, |_, _| ());
    pool.run(head, |tree| {
        while let Some(Ready { read: (), bundle, fault }) = pool.take()? {
            let first = bundle.leaves().first().filter(|found| tree.size() == 0 && **found != genesis);
            if let Some(found) = first {
                let reason = format!("expected leaf hash {genesis}, found {found}: this is another ledger");
                return Err(AuditError::entry(0, "genesis", reason).into());
            }
            roots.push_bundle(&bundle)?;
            fault.map_or(Ok(()), Err)?;
            tree.push(&bundle, |name| export.tiles().read(name))?;
        }
        Ok(())
    })?;
    roots.finish()?;
    export.check_blobs()
}

/// All of it.
pub(super) fn audit(
    export: &Export,
    head: &Head,
    (trust, symmetric): (Trust<'_>, Vec<SymmetricKey>),
    roots: Roots<'_>,
    threads: NonZeroUsize,
) -> Result<Summary, VerifyError> {
    let pool = Pool::new(export.tiles(), head.size, threads, |octets: &[u8], places: Vec<Range<usize>>| {
        let octets = octets.to_vec();
        let read =
            places.into_iter().map(|place| (Entry::from_canonical_leaf(&octets[place.clone()]), place)).collect();
        Entries { octets, read }
    });
    let batch = RefCell::new(Vec::with_capacity(BATCH));
    let checks = |check| {
        let mut batch = batch.borrow_mut();
        batch.push(check);
        if batch.len() >= BATCH {
            pool.check(std::mem::replace(&mut *batch, Vec::with_capacity(BATCH)));
        }
    };
    let mut audit = Audit::new(trust, roots, export, &checks).with_symmetric_keys(symmetric);
    pool.run(head, |tree| {
        let mut replay = || -> Result<(), VerifyError> {
            while let Some(Ready { read: Entries { octets, read }, bundle, fault }) = pool.take()? {
                for (index, ((entry, place), hash)) in (tree.size()..).zip(read.into_iter().zip(bundle.leaves())) {
                    let entry = entry.map_err(|error| AuditError::entry(index, "entry", error))?;
                    audit.entry(&entry, &octets[place], *hash)?;
                }
                fault.map_or(Ok(()), Err)?;
                tree.push(&bundle, |name| export.tiles().read(name))?;
            }
            Ok(())
        };
        let replayed = replay();
        // What waits is of entries before the one that is wrong, if one is.
        pool.check(batch.take());
        replayed
    })?;
    Ok(audit.finish()?)
}

/// The entries of a bundle, read.
struct Entries {
    octets: Vec<u8>,
    /// Each with where it lies in the octets.
    read: Vec<(Result<Entry, EntryError>, Range<usize>)>,
}

/// A bundle that waits for its turn.
struct Ready<R> {
    /// What was read in its entries.
    read: R,
    bundle: Subtrees,
    /// What is wrong behind these.
    fault: Option<VerifyError>,
}

/// What workers and the replay share.
struct Pool<'a, R, F> {
    tiles: Tiles<'a>,
    bundles: Vec<TileName>,
    /// How many workers there are. With none the replay does it all.
    workers: usize,
    /// Reads the entries of a bundle, from its octets and the places in them.
    read: F,
    state: Mutex<State<R>>,
    /// What the replay waits for: a bundle, or room for checks.
    for_replay: Condvar,
    /// What workers wait for.
    for_workers: Condvar,
}

struct State<R> {
    /// The bundle that is to be read next.
    next: usize,
    /// The bundle that the replay waits for, or will.
    wanted: usize,
    /// Those that were read.
    ready: BTreeMap<usize, Result<Ready<R>, VerifyError>>,
    /// Checks that wait, in batches, each with its number.
    waiting: VecDeque<(u64, Vec<Check>)>,
    /// How many batches were given.
    given: u64,
    /// How many batches are being checked.
    checking: usize,
    /// How many workers have nothing to do.
    idle: usize,
    /// The first batch in which something does not hold, and what is first there.
    fault: Option<(u64, AuditError)>,
    /// The replay is done.
    is_over: bool,
    /// A worker has panicked.
    is_broken: bool,
}

impl<'a, R: Send, F: Fn(&[u8], Vec<Range<usize>>) -> R + Sync> Pool<'a, R, F> {
    fn new(tiles: Tiles<'a>, size: u64, threads: NonZeroUsize, read: F) -> Self {
        let state = State {
            next: 0,
            wanted: 0,
            ready: BTreeMap::new(),
            waiting: VecDeque::new(),
            given: 0,
            checking: 0,
            idle: 0,
            fault: None,
            is_over: false,
            is_broken: false,
        };
        let bundles: Vec<TileName> = tiles::bundles(size).collect();
        let workers = if bundles.len() <= BUNDLES_ALONE { 0 } else { threads.get() };
        let (for_replay, for_workers) = (Condvar::new(), Condvar::new());
        Self { tiles, bundles, workers, read, state: Mutex::new(state), for_replay, for_workers }
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'b>(&self, state: MutexGuard<'b, State<R>>) -> MutexGuard<'b, State<R>> {
        let state = self.for_replay.wait(state).unwrap_or_else(PoisonError::into_inner);
        assert!(!state.is_broken, "a worker panicked");
        state
    }

    /// Replays on this thread, with the workers beside it. Of what does not hold, answers what is first in the ledger.
    fn run(&self, head: &Head, replay: impl FnOnce(&mut Tree) -> Result<(), VerifyError>) -> Result<(), VerifyError> {
        thread::scope(|scope| {
            for _ in 0..self.workers {
                scope.spawn(|| self.work());
            }
            let _ended = Ended(self);
            let mut tree = Tree::new();
            let replayed = replay(&mut tree);
            let mut state = self.state();
            while !state.waiting.is_empty() || state.checking > 0 {
                state = self.wait(state);
            }
            if let Some((_, fault)) = state.fault.take() {
                return Err(fault.into());
            }
            drop(state);
            replayed?;
            tree.finish(head, |name| self.tiles.read(name))
        })
    }

    /// The next bundle in order; none behind the last, or once a check before it did not hold.
    fn take(&self) -> Result<Option<Ready<R>>, VerifyError> {
        let mut state = self.state();
        let place = state.wanted;
        if place == self.bundles.len() {
            return Ok(None);
        }
        loop {
            if state.fault.is_some() {
                return Ok(None);
            }
            if let Some(ready) = state.ready.remove(&place) {
                state.wanted += 1;
                self.wake(&state);
                return ready.map(Some);
            }
            if self.workers == 0 {
                state.wanted += 1;
                drop(state);
                return self.bundle(self.bundles[place], &mut Buffers::default()).map(Some);
            }
            state = self.wait(state);
        }
    }

    /// Gives out a batch of checks.
    fn check(&self, batch: Vec<Check>) {
        let mut state = self.state();
        if self.workers == 0 {
            if state.fault.is_none() {
                let mut scratch = Vec::new();
                let checked = batch.iter().try_for_each(|check| check.verify(&mut scratch));
                state.fault = checked.err().map(|fault| (0, fault));
            }
            return;
        }
        while state.waiting.len() >= BATCHES_WAITING * self.workers {
            state = self.wait(state);
        }
        let number = state.given;
        state.given += 1;
        state.waiting.push_back((number, batch));
        self.wake(&state);
    }

    /// Wakes a worker, if one sleeps.
    fn wake(&self, state: &State<R>) {
        if state.idle > 0 {
            self.for_workers.notify_one();
        }
    }

    fn work(&self) {
        let _ended = Broken(self);
        let (mut scratch, mut buffers) = (Vec::new(), Buffers::default());
        let mut state = self.state();
        loop {
            let ahead = state.wanted + BUNDLES_AHEAD * self.workers;
            if !state.is_over && state.fault.is_none() && state.next < self.bundles.len().min(ahead) {
                let place = state.next;
                state.next += 1;
                drop(state);
                let ready = self.bundle(self.bundles[place], &mut buffers);
                state = self.state();
                state.ready.insert(place, ready);
                if state.ready.len() >= WAKE || state.next == self.bundles.len() {
                    self.for_replay.notify_one();
                }
            } else if let Some((number, batch)) = state.waiting.pop_front() {
                state.checking += 1;
                // The replay may wait for half of the room: there is enough left to do meanwhile.
                if state.waiting.len() == BATCHES_WAITING * self.workers / 2 {
                    self.for_replay.notify_one();
                }
                // Behind what does not hold, nothing matters.
                let matters = state.fault.as_ref().is_none_or(|(first, _)| number < *first);
                drop(state);
                let checked =
                    if matters { batch.iter().try_for_each(|check| check.verify(&mut scratch)) } else { Ok(()) };
                drop(batch);
                state = self.state();
                state.checking -= 1;
                if let Err(fault) = checked
                    && state.fault.as_ref().is_none_or(|(first, _)| number < *first)
                {
                    state.fault = Some((number, fault));
                }
                if state.fault.is_some() || (state.waiting.is_empty() && state.checking == 0) {
                    self.for_replay.notify_one();
                }
            } else if state.is_over {
                return;
            } else {
                // Whatever the replay waits for, no more of it comes before it goes on.
                self.for_replay.notify_one();
                state.idle += 1;
                state = self.for_workers.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    /// Reads a bundle, hashes its entries and reads them.
    fn bundle(&self, name: TileName, buffers: &mut Buffers) -> Result<Ready<R>, VerifyError> {
        let Buffers { hashes, octets } = buffers;
        let len = self.tiles.read_into(Bundle::hashes_name(name), hashes)?;
        let hashes = &hashes[..len];
        let len = self.tiles.read_into(name, octets)?;
        let octets = &mut octets[..len];
        let Bundle { entries, tree: bundle, fault } = Bundle::check(name, octets, hashes)?;
        Ok(Ready { read: (self.read)(octets, entries), bundle, fault: fault.map(VerifyError::from) })
    }
}

/// Files as a worker reads them, one after the other in the same place.
#[derive(Default)]
struct Buffers {
    hashes: Vec<u8>,
    octets: Vec<u8>,
}

/// The replay has ended, in whichever way: the workers end too.
struct Ended<'a, 'b, R, F>(&'a Pool<'b, R, F>);

impl<R, F> Drop for Ended<'_, '_, R, F> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.0.for_workers.notify_all();
    }
}

/// A worker ends; if it panics, the replay must not wait for it.
struct Broken<'a, 'b, R, F>(&'a Pool<'b, R, F>);

impl<R, F> Drop for Broken<'_, '_, R, F> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_broken = true;
            self.0.for_replay.notify_one();
        }
    }
}
