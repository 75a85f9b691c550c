//! Shell: snapshots of the state, which the recorder takes when it has answered: what a start begins from.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{CHECKPOINT_TARGET, CannotRecord, CheckpointSigner, Documents, Moment, Recorder, SIGNER_PAUSE_MAX, signed};
use crate::domain::fold::snapshot::{self, FOLD_PART, Tables, TargetsSeen, targets_part};
use crate::domain::fold::{Fold, FoldError};
use crate::domain::ledger::entry::{Actor, ClockState, Entry, Event, VERSION};
use crate::domain::ledger::merkle::Head;
use crate::domain::ledger::snapshots::TargetsKept;
use crate::domain::names::{Digest, IncidentId, Origin};
use crate::domain::time::Timestamp;
use crate::store::{PutPart, StoreError, Vouch};

/// The longest pause before a snapshot is tried again that the ledger token did not sign.
const SNAPSHOT_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Entries after which a snapshot is taken: a start folds no more than these again, in some tenths of a second, and what they changed is
/// in memory until then. A command has two.
pub const SNAPSHOT_LEAVES: u64 = 16_384;

/// The most that may be asked for: a row of some 200 octets for each in memory, and a start that folds them again in a second or two.
pub const SNAPSHOT_LEAVES_MAX: u64 = 131_072;

/// Changed rows after which a snapshot is taken, though entries are fewer, for one entry can take in the answers of many Devices; or as
/// many rows as entries, where more of those are asked for. The more there are, the fewer times a part of a page is read and hashed again
/// for answers in no order, and the longer everybody waits for one: `cargo bench --bench responses -- --rows` has both.
pub const SNAPSHOT_ROWS: usize = 65_536;

/// Entries after which a snapshot is taken where the daemon stops in order: fewer are folded again faster than it is worth an entry.
pub const SNAPSHOT_LEAVES_AT_STOP: u64 = 2_048;

/// Lines of device lists that entries name after which a snapshot is taken, though entries are fewer: a start reads each of those lists again,
/// at some two microseconds a line. One that read as many takes a snapshot at once, and the next reads none of them.
pub const SNAPSHOT_LISTED: u64 = 250_000;

/// What has come since the newest snapshot.
#[derive(Clone, Copy, Debug, Default)]
struct Since {
    entries: u64,
    /// Changed rows in memory.
    rows: usize,
    /// Lines of lists that those entries name.
    listed: u64,
}

impl Since {
    /// Whether a snapshot is due, where one is taken every so many entries.
    fn is_due(self, every: u64, stopped: bool) -> bool {
        let most = if stopped { every.min(SNAPSHOT_LEAVES_AT_STOP) } else { every };
        self.entries >= most
            || self.rows >= SNAPSHOT_ROWS.max(usize::try_from(every).unwrap_or(usize::MAX))
            || self.listed >= SNAPSHOT_LISTED
    }
}

impl Recorder {
    /// Takes a snapshot if one is due: everything is durable and under a checkpoint, and enough has come since the last. A ledger token
    /// that does not sign now is asked again after the next ask.
    pub fn snapshot_if_due(&mut self) -> Result<(), CannotRecord> {
        let settled = self.queue.leaves.is_empty() && self.checkpointed == self.durable.size;
        let entries = self.durable.size - self.fold.last_snapshot().unwrap_or(0);
        let may_sign = self.signer.as_ref().is_some_and(|signer| signer.is_ready())
            && self.snapshot_after.is_none_or(|(next, _)| Instant::now() >= next);
        let is_due = || {
            let since = Since { entries, rows: self.store.waiting(), listed: self.fold.listed_since_snapshot() };
            since.is_due(self.snapshot_leaves, self.stopped)
        };
        if settled && may_sign && is_due() { self.snapshot() } else { Ok(()) }
    }

    /// Takes a snapshot of the state as it is durable and under a checkpoint.
    fn snapshot(&mut self) -> Result<(), CannotRecord> {
        let Some(signer) = self.signer.as_mut() else { return Ok(()) };
        let origin = self.fold.origin().ok_or(CannotRecord::Fold(FoldError::Genesis))?.clone();
        let kept = self.fold.kept();
        let fold = Digest::of(&kept);
        let mut heads = BTreeMap::new();
        for incident in self.targets.unseen(&self.fold) {
            heads.extend(self.store.part(&targets_part(incident))?.map(|head| (incident.clone(), head)));
        }
        let Moment { at, clock } = self.moment;
        let mut vouching = Vouching {
            state: &self.fold,
            kept,
            fold,
            seen: &mut self.targets,
            heads,
            targets: Vec::new(),
            at: self.fold.last_at().map_or(at, |last| last.max(at)),
            clock: if self.fold.clock_untrusted() { ClockState::Untrusted } else { clock },
            origin,
            signer: &mut **signer,
            entry: None,
            fault: None,
        };
        let taken = self.store.snapshot_at(self.durable.size, &mut vouching);
        let Vouching { entry, fault, .. } = vouching;
        let head = match (taken, fault) {
            (Ok(Some(head)), _) => head,
            (Ok(None), Some(why)) => {
                self.targets.forget();
                let pause =
                    self.snapshot_after.map_or(SIGNER_PAUSE_MAX, |(_, pause)| (pause * 2).min(SNAPSHOT_PAUSE_MAX));
                self.snapshot_after = Some((Instant::now() + pause, pause));
                return if why.passes() { Ok(()) } else { Err(why) };
            }
            (Ok(None), None) => {
                self.targets.forget();
                return Ok(());
            }
            (Err(error), _) => return Err(error.into()),
        };
        let (entry, leaf) = entry.expect("a snapshot that was taken has an entry");
        let documents = Documents { queue: &self.queue, store: &*self.store };
        self.fold.apply(&entry, &leaf, &documents, &mut Vec::new())?;
        (self.durable, self.checkpointed, self.snapshot_after) = (head, head.size, None);
        tracing::info!(target: CHECKPOINT_TARGET, size = head.size, root = %head.root, "checkpoint over a snapshot");
        Ok(())
    }
}

/// What vouches for a snapshot: its entry, and the ledger token's signature over the head that has it.
struct Vouching<'a> {
    state: &'a Fold,
    /// The fold's encoding, and its SHA-256.
    kept: Vec<u8>,
    fold: Digest,
    /// The Relevant Devices as they were kept last; the heads of those that were not looked at since the start.
    seen: &'a mut TargetsSeen,
    heads: BTreeMap<IncidentId, Vec<u8>>,
    targets: Vec<TargetsKept>,
    at: Timestamp,
    clock: ClockState,
    origin: Origin,
    signer: &'a mut dyn CheckpointSigner,
    /// The entry and its leaf, once it is known what the tables come to.
    entry: Option<(Entry, Vec<u8>)>,
    /// Why there is none, or no signature.
    fault: Option<CannotRecord>,
}

impl Vouching<'_> {
    fn sign(&mut self, head: Head) -> Result<Vec<u8>, CannotRecord> {
        // Signed before it is durable: nobody is shown it before it is, and a crash in between leaves it with nobody.
        Ok(signed(self.signer, self.origin.clone(), head)?.octets().to_vec())
    }
}

impl Vouch for Vouching<'_> {
    fn parts(&mut self, put: &mut PutPart<'_>) -> Result<(), StoreError> {
        put(FOLD_PART, &self.kept)?;
        let (heads, mut fault) = (&self.heads, None);
        self.targets = self.seen.of(self.state, &|incident| heads.get(incident).cloned(), &mut |name, octets| {
            if fault.is_none() {
                fault = put(&name, &octets).err();
            }
        });
        fault.map_or(Ok(()), Err)
    }

    fn leaf(&mut self, tables: &Tables) -> Option<Vec<u8>> {
        let (fold, targets) = (self.fold, self.targets.clone());
        let event = Event::Snapshot(snapshot::of_tables(fold, targets, *tables));
        let entry = Entry { v: VERSION, at: self.at, clock: self.clock, by: Actor::daemon(), event };
        match entry.to_leaf() {
            Ok(leaf) => {
                self.entry = Some((entry, leaf.clone()));
                Some(leaf)
            }
            Err(error) => {
                self.fault = Some(error.into());
                None
            }
        }
    }

    fn note(&mut self, head: Head) -> Option<Vec<u8>> {
        self.sign(head).map_err(|fault| self.fault = Some(fault)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_after_so_many_entries_rows_or_lines_of_lists_and_after_fewer_entries_at_the_end() {
        let every = SNAPSHOT_LEAVES;
        let entries = |entries| Since { entries, ..Since::default() };
        let rows = |rows| Since { entries: 1, rows, ..Since::default() };
        let listed = |listed| Since { entries: 1, listed, ..Since::default() };
        assert!(!entries(every - 1).is_due(every, false));
        assert!(entries(every).is_due(every, false));
        // One entry may change many rows, and another name a long list.
        assert!(!rows(SNAPSHOT_ROWS - 1).is_due(every, false));
        assert!(rows(SNAPSHOT_ROWS).is_due(every, false));
        assert!(!listed(SNAPSHOT_LISTED - 1).is_due(every, false));
        assert!(listed(SNAPSHOT_LISTED).is_due(every, false));
        // Who has them taken more seldom has more in memory.
        let seldom = 2 * SNAPSHOT_ROWS;
        assert!(!rows(seldom - 1).is_due(seldom as u64, false));
        assert!(rows(seldom).is_due(seldom as u64, false));
        assert!(!entries(SNAPSHOT_LEAVES_AT_STOP - 1).is_due(every, true));
        assert!(entries(SNAPSHOT_LEAVES_AT_STOP).is_due(every, true));
        assert!(!entries(SNAPSHOT_LEAVES_AT_STOP).is_due(every, false));
        assert!(entries(64).is_due(64, true) && !entries(63).is_due(64, true));
    }
}
