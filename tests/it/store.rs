//! The store under SIGKILL: what was acknowledged is there, and nothing half.

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

use smkid::domain::ledger::merkle::Leaf;
use smkid::domain::names::Digest;
use smkid::domain::names::{DeterminationId, DeviceId, KeyLabel};
use smkid::domain::policy::facts::{DeviceFacts, IntentState};
use smkid::store::sqlite::SqliteStore;
use smkid::store::{Batch, Derived, DerivedState as _, Reader as _, StagingLimits, Store as _};

const LIMITS: StagingLimits = StagingLimits { account_len_max: 1 << 20, total_len_max: 1 << 20 };
/// Set in the process that is to be killed: the state directory.
const VICTIM: &str = "SMKID_TEST_STORE_VICTIM";
/// Entries a batch.
const BATCH_LEN: u64 = 20;

fn entry(index: u64) -> Vec<u8> {
    format!("{{\"entry\":{index},\"filler\":\"{}\"}}", "x".repeat(600)).into_bytes()
}

fn key() -> KeyLabel {
    "recovery-1".parse().unwrap()
}

fn device(index: u64) -> DeviceId {
    DeviceId((index % 1000).to_be_bytes().into())
}

fn row(index: u64) -> DeviceFacts {
    DeviceFacts {
        counter: index,
        determination: DeterminationId([1; 16]),
        template: "all".parse().unwrap(),
        intent: index,
        state: IntentState::Open,
        attempt: 1,
    }
}

/// Appends until killed, and says each size once it is acknowledged.
fn append_for_ever(directory: &Path) -> ! {
    let mut store = SqliteStore::open(directory, LIMITS).unwrap();
    let mut size = store.head().unwrap().size;
    let (key, mut stdout) = (key(), std::io::stdout());
    loop {
        let indices = size..size + BATCH_LEN;
        let octets: Vec<_> = indices.clone().map(entry).collect();
        let leaves: Vec<_> = octets.iter().map(|octets| Leaf::new(octets).unwrap()).collect();
        let rows: Vec<_> = indices.clone().map(row).collect();
        let derived: Vec<_> =
            indices.zip(&rows).map(|(i, row)| Derived::Device { key: &key, device: device(i), row }).collect();
        let blob = size.to_be_bytes();
        let batch = Batch { leaves: &leaves, blobs: &[(Digest::of(&blob), &blob)], staged: &[], derived: &derived };
        size = store.append_at(size, &batch, &mut |_| ()).unwrap().size;
        writeln!(stdout, "acknowledged {size}").unwrap();
        stdout.flush().unwrap();
    }
}

/// Starts this test once more as the victim, and kills it after so many acknowledgements. Answers the last one.
fn kill_after(acknowledgements: usize, directory: &Path) -> u64 {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::what_was_acknowledged_survives_sigkill_and_nothing_half_does", "--nocapture"])
        .env(VICTIM, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let last = lines
        .filter_map(|line| line.rsplit_once("acknowledged ").map(|(_, size)| size.parse().unwrap()))
        .take(acknowledgements)
        .last()
        .unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    last
}

#[test]
fn what_was_acknowledged_survives_sigkill_and_nothing_half_does() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        append_for_ever(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteStore::create(directory.path(), LIMITS).unwrap());
    // The later rounds have checkpointed the WAL several times.
    for acknowledgements in [1, 2, 5, 150, 1, 300] {
        let acknowledged = kill_after(acknowledgements, directory.path());
        let mut store = SqliteStore::open(directory.path(), LIMITS).unwrap();
        let head = store.check_tree().unwrap();
        assert!(head.size >= acknowledged, "{} of {acknowledged} entries", head.size);
        assert!(head.size.is_multiple_of(BATCH_LEN), "{} entries: half a batch", head.size);
        assert_eq!(store.blob_len(Digest::of(&(head.size - BATCH_LEN).to_be_bytes())).unwrap(), Some(8));
        assert_eq!(store.blob_len(Digest::of(&head.size.to_be_bytes())).unwrap(), None);
        // What the entries make of rows waits in memory for a snapshot, of which there was none.
        let (reader, key) = (store.reader().unwrap(), key());
        assert_eq!(store.base().unwrap().size, 0);
        for index in 0..head.size {
            store.replay(&[Derived::Device { key: &key, device: device(index), row: &row(index) }]).unwrap();
        }
        assert_eq!(store.device(&key, device(head.size - 1)).unwrap(), Some(row(head.size - 1)));
        let mut rebuild = store.rebuild().unwrap();
        reader
            .leaves(0..head.size, &mut |leaf| {
                assert_eq!(leaf.octets, entry(leaf.index));
                let derived = Derived::Device { key: &key, device: device(leaf.index), row: &row(leaf.index) };
                rebuild.apply(&[derived]).unwrap();
                ControlFlow::Continue(())
            })
            .unwrap();
        rebuild.compare_and_finish().unwrap();
    }
}
