use std::fs;
use std::io::Read as _;

use tempfile::TempDir;

use super::super::super::tests::append;
use super::super::SqliteStore;
use super::*;
use crate::domain::time::Timestamp;
use crate::store::{Reader as _, StagingLimits, Store as _};

const LIMITS: StagingLimits = StagingLimits { account_len_max: 64 << 20, total_len_max: 64 << 20 };

fn made() -> (TempDir, SqliteStore, Incoming) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(directory.path(), LIMITS).unwrap();
    let incoming = Incoming::new(directory.path(), Arc::clone(store.staging()));
    (directory, store, incoming)
}

/// An upload that waits: no two chunks of it are alike.
fn upload(store: &SqliteStore, seed: u8, len: u64) -> (Digest, Vec<u8>) {
    let mut octets = vec![seed; usize::try_from(len).unwrap()];
    for (number, part) in (0_u64..).zip(octets.chunks_exact_mut(1_000)) {
        part[..8].copy_from_slice(&number.to_be_bytes());
    }
    let (digest, _) = store.staging().stage("a", Timestamp::MIN, u64::MAX, &mut &octets[..]).unwrap();
    (digest, octets)
}

fn read(store: &SqliteStore, digest: Digest) -> Vec<u8> {
    let mut octets = Vec::new();
    store.open_blob(digest).unwrap().read_to_end(&mut octets).unwrap();
    octets
}

/// Rows of a table.
fn rows(directory: &TempDir, table: &str) -> i64 {
    let connection = Connection::open(directory.path().join(DATABASE)).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn what_was_brought_is_adopted_by_its_entry_without_being_read_again() {
    let (directory, mut store, incoming) = made();
    let (digest, octets) = upload(&store, 1, BRING_LEN_MIN + 100_000);
    incoming.bring(digest).unwrap();
    assert_eq!(store.blob_len(digest).unwrap(), None, "no entry names it");
    incoming.bring(digest).unwrap();
    fs::remove_file(directory.path().join("staging").join(digest.to_string())).unwrap();
    append(&mut store, 1, &[], &[digest], &[]).unwrap();
    assert!(read(&store, digest) == octets);
    assert_eq!((rows(&directory, "incoming"), store.staging().len(digest)), (0, None));
    // What comes after it, by either way, takes none of its rows.
    let (second, others) = upload(&store, 2, BRING_LEN_MIN);
    incoming.bring(second).unwrap();
    append(&mut store, 1, &[b"small"], &[second], &[]).unwrap();
    append(&mut store, 1, &[b"another"], &[], &[]).unwrap();
    assert!(read(&store, digest) == octets && read(&store, second) == others);
    assert_eq!(read(&store, Digest::of(b"another")), b"another");
    // What is a blob already is not brought.
    upload(&store, 1, BRING_LEN_MIN + 100_000);
    incoming.bring(digest).unwrap();
    assert_eq!(rows(&directory, "incoming"), 0);
}

#[test]
fn what_is_short_comes_with_its_entry() {
    let (directory, mut store, incoming) = made();
    for (len, expected) in [(BRING_LEN_MIN - 1, 0), (BRING_LEN_MIN, 1)] {
        let (digest, octets) = upload(&store, 3, len);
        incoming.bring(digest).unwrap();
        assert_eq!(rows(&directory, "incoming"), expected, "{len}");
        append(&mut store, 1, &[], &[digest], &[]).unwrap();
        assert!(read(&store, digest) == octets);
    }
    incoming.bring(Digest::of(b"nobody sent it")).unwrap();
}

#[test]
fn what_nobody_adopted_goes_when_the_next_comes_and_can_be_recorded_all_the_same() {
    let (directory, mut store, incoming) = made();
    let ((first, octets), (second, others)) =
        (upload(&store, 4, BRING_LEN_MIN + 1), upload(&store, 5, 2 * BRING_LEN_MIN));
    incoming.bring(first).unwrap();
    incoming.bring(second).unwrap();
    assert_eq!((rows(&directory, "incoming"), rows(&directory, "chunk")), (1, 32));
    append(&mut store, 1, &[], &[first, second], &[]).unwrap();
    assert!(read(&store, first) == octets && read(&store, second) == others);
}

#[test]
fn what_was_cut_off_is_brought_anew() {
    let (directory, mut store, incoming) = made();
    let (digest, octets) = upload(&store, 6, BRING_LEN_MIN);
    incoming.bring(digest).unwrap();
    let connection = Connection::open(directory.path().join(DATABASE)).unwrap();
    connection.execute_batch("UPDATE incoming SET len = NULL; DELETE FROM chunk WHERE id & 15 > 7").unwrap();
    drop(connection);
    incoming.bring(digest).unwrap();
    assert_eq!(rows(&directory, "chunk"), 16);
    append(&mut store, 1, &[], &[digest], &[]).unwrap();
    assert!(read(&store, digest) == octets);
}

#[test]
fn an_upload_that_was_edited_meanwhile_is_refused_and_leaves_nothing() {
    let (directory, store, incoming) = made();
    let (digest, mut octets) = upload(&store, 7, BRING_LEN_MIN);
    octets[1_000_000] ^= 1;
    fs::write(directory.path().join("staging").join(digest.to_string()), &octets).unwrap();
    assert!(matches!(incoming.bring(digest), Err(StoreError::BlobCorrupt { .. })));
    assert_eq!((rows(&directory, "incoming"), rows(&directory, "chunk")), (0, 0));
}

#[test]
fn the_writer_records_while_an_upload_is_brought() {
    let (_directory, mut store, incoming) = made();
    let (digest, octets) = upload(&store, 8, 4 * BRING_LEN_MIN);
    let recorded = thread::scope(|scope| {
        let bringing = scope.spawn(|| incoming.bring(digest));
        let mut recorded = 0;
        while !bringing.is_finished() {
            append(&mut store, 1, &[b"meanwhile"], &[], &[]).unwrap();
            recorded += 1;
        }
        bringing.join().unwrap().unwrap();
        recorded
    });
    assert!(recorded > 0);
    append(&mut store, 1, &[], &[digest], &[]).unwrap();
    assert!(read(&store, digest) == octets);
}
