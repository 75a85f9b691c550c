//! Shell: what it costs to keep what Devices answered, when they answer in no order: each entry with rows all over the table, a snapshot
//! each time one is due; and what it costs whoever audits those snapshots. No message is verified here: against it stands the
//! time that `ring` needs for as many verifications, on one processor.

use std::time::{Duration, Instant};

use smkid::domain::fold::snapshot::{Table, Tables, WithParts, of_each};
use smkid::domain::fold::{Blobs, BookError, Change, MemoryBook};
use smkid::domain::ledger::merkle::{Head, Leaf};
use smkid::domain::names::{DeterminationId, DeviceId, Digest};
use smkid::domain::responses::messages::MESSAGES_MAX;
use smkid::domain::responses::{Outcome, ResultLine};
use smkid::recorder::SNAPSHOT_ROWS;
use smkid::store::sqlite::SqliteStore;
use smkid::store::{Batch, Derived, PutPart, StagingLimits, Store as _, StoreError, Vouch};

use crate::Fault;

/// What may be spent on keeping an answer, of what its verification takes.
const SHARE_MAX: f64 = 0.25;

/// How long a snapshot may hold everybody up.
const HELD_MAX: Duration = Duration::from_millis(500);

/// Odd and no multiple of five, and so coprime to round numbers: each Device has its turn, far from the one before.
const STRIDE: u64 = 7_368_787;

struct Vouched(Option<Tables>);

impl Vouch for Vouched {
    fn parts(&mut self, _put: &mut PutPart<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn leaf(&mut self, tables: &Tables) -> Option<Vec<u8>> {
        self.0 = Some(*tables);
        Some(b"{}".to_vec())
    }

    fn note(&mut self, _head: Head) -> Option<Vec<u8>> {
        Some(b"note".to_vec())
    }
}

struct NoBlobs;

impl Blobs for NoBlobs {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        Err(BookError::BlobMissing { digest })
    }

    fn stream(&self, digest: Digest, _piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        Err(BookError::BlobMissing { digest })
    }
}

/// Measures with so many Devices, each of which answers once. `verification` is what one verification takes.
pub fn run(count: u64, verification: Duration) -> Result<bool, Fault> {
    let folder = tempfile::tempdir()?;
    let limits = StagingLimits { account_len_max: 1, total_len_max: 1 };
    let mut store = SqliteStore::create(folder.path(), limits)?;
    let (mut appends, mut snapshots, mut audits) = (Duration::ZERO, Vec::new(), Duration::ZERO);
    let (mut book, mut pages) = (MemoryBook::default(), Table::ALL.map(WithParts::empty));
    let determination = DeterminationId([1; 16]);
    let mut size = 0;
    for from in (0..count).step_by(MESSAGES_MAX) {
        let mut lines: Vec<ResultLine> = (from..count.min(from + MESSAGES_MAX as u64))
            .map(|n| {
                let device = DeviceId((0x02DE_1CE0_0000_0000 + n * STRIDE % count).to_be_bytes().into());
                ResultLine::new(Some(device), Some(n), Outcome::Recovered, "")
            })
            .collect();
        lines.sort_by_key(|line| line.device);
        let begun = Instant::now();
        let derived = [Derived::Responses { determination, entry: size, lines: &lines }];
        let batch = Batch { leaves: &[Leaf::new(b"{}")?], derived: &derived, ..Batch::default() };
        let entry = size;
        size = store.append_at(size, &batch, &mut |_| ())?.size;
        appends += begun.elapsed();
        book.apply(&Change::Responses { determination, entry, lines: lines.into() }, &NoBlobs)?;
        if store.waiting() >= SNAPSHOT_ROWS || from + MESSAGES_MAX as u64 >= count {
            let mut vouched = Vouched(None);
            let begun = Instant::now();
            size = store.snapshot_at(size, &mut vouched)?.ok_or("a snapshot was not taken")?.size;
            snapshots.push(begun.elapsed());
            let begun = Instant::now();
            for (table, pages) in Table::ALL.into_iter().zip(&mut pages) {
                let Ok(()) = pages.renew(book.take_changed(table).iter().map(Vec::as_slice), &book);
            }
            audits += begun.elapsed();
            let audited = of_each(|table| Ok::<_, Fault>(pages[usize::from(table.code()) - 1].pages().kept()))?;
            if vouched.0 != Some(audited) {
                return Err("whoever audits makes other tables of the same answers".into());
            }
        }
    }
    let count = u32::try_from(count)?;
    let each = |taken: Duration| taken.as_secs_f64() * 1e6 / f64::from(count);
    let share = |taken: Duration| each(taken) / (verification.as_secs_f64() * 1e6);
    let all: Duration = snapshots.iter().sum();
    snapshots.sort_unstable();
    let (median, most) = (snapshots[snapshots.len() / 2], snapshots[snapshots.len() - 1]);
    println!("{count} answers in no order; a verification takes {:.1} us", verification.as_secs_f64() * 1e6);
    println!("  appended: {:.1} us for each, {:.2} of its verification", each(appends), share(appends));
    println!("  {} snapshots: {:.1} us for each, {:.2}", snapshots.len(), each(all), share(all));
    println!("  each held everybody up for {median:.0?} (median), {most:.0?} at most");
    println!("  audited: {:.1} us for each, {:.2}", each(audits), share(audits));
    let (cheap, short) = (share(appends + all) <= SHARE_MAX, most <= HELD_MAX);
    println!("{}: at most {SHARE_MAX} of the verification", if cheap { "met" } else { "MISSED" });
    println!("{}: no snapshot of more than {HELD_MAX:?}", if short { "met" } else { "MISSED" });
    Ok(cheap && short)
}
