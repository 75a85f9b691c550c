use std::ops::ControlFlow;

use tempfile::TempDir;

use super::super::DerivedState as _;
use super::super::tests::{LIMITS, append, device, entry, keep, key, list, row};
use super::*;
use crate::domain::determination::devices::DeviceListReader;
use crate::domain::ledger::merkle::leaf_hash;
use crate::domain::names::{DeterminationId, DeviceId};
use crate::domain::responses::{DeviceKey, ResultLine};
use crate::domain::time::Timestamp;
use crate::store::{DeviceFacts, IntentState};

fn made(entries: u64) -> (TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::create(directory.path(), LIMITS).unwrap();
    if entries > 0 {
        append(&mut store, entries, &[], &[], &[]).unwrap();
    }
    (directory, store)
}

fn open(directory: &TempDir) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(directory.path(), LIMITS)
}

/// Somebody with a database tool.
fn edit(directory: &TempDir, sql: &str) {
    let connection = Connection::open(directory.path().join(DATABASE)).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
}

fn edit_with(directory: &TempDir, sql: &str, value: &[u8]) {
    let connection = Connection::open(directory.path().join(DATABASE)).unwrap();
    assert!(connection.execute(sql, [value]).unwrap() > 0, "{sql}");
}

#[test]
fn everything_is_there_when_the_store_is_opened_again() {
    let (directory, mut store) = made(300);
    let head = append(
        &mut store,
        1,
        &[b"blob"],
        &[],
        &[Derived::Device { key: &key(), device: device(1), row: &row(300, IntentState::Open) }],
    )
    .unwrap();
    let head = keep(&mut store, head.size).unwrap();
    let staged = store.staging().stage("a", crate::domain::time::Timestamp::MIN, 9, &mut &b"upload"[..]).unwrap().0;
    drop(store);
    let store = open(&directory).unwrap();
    assert_eq!(store.check_tree().unwrap(), head);
    assert_eq!(store.latest_checkpoint().unwrap().unwrap().head, head);
    assert_eq!(store.device(&key(), device(1)).unwrap(), Some(row(300, IntentState::Open)));
    assert_eq!(store.blob_len(Digest::of(b"blob")).unwrap(), Some(4));
    assert_eq!(store.staging().len(staged), None, "what no entry named is dropped at a restart");
    assert_eq!(std::fs::read_dir(directory.path().join("staging")).unwrap().count(), 0);
}

#[test]
fn a_ledger_is_made_once_and_never_by_opening() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(open(&directory), Err(StoreError::Absent { .. })));
    assert!(matches!(SqliteReader::open(directory.path()), Err(StoreError::Absent { .. })));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    drop(SqliteStore::create(directory.path(), LIMITS).unwrap());
    assert!(matches!(SqliteStore::create(directory.path(), LIMITS), Err(StoreError::Exists { .. })));
    assert!(open(&directory).is_ok());
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_with_the_first_one_s_process_id() {
    let (directory, store) = made(1);
    let pid = std::process::id().to_string();
    assert!(matches!(open(&directory), Err(StoreError::Locked { pid: found, .. }) if found == pid));
    assert!(matches!(
        SqliteStore::create(directory.path(), LIMITS),
        Err(StoreError::Locked { pid: found, .. }) if found == pid
    ));
    assert_eq!(SqliteReader::open(directory.path()).unwrap().head().unwrap().size, 1);
    drop(store);
    assert!(open(&directory).is_ok());
}

#[test]
fn a_database_of_another_kind_or_version_is_refused() {
    for (pragma, what) in [
        ("application_id = 7", "application id"),
        ("user_version = 4", "schema version"),
        ("user_version = 0", "schema version"),
    ] {
        let (directory, store) = made(1);
        drop(store);
        let connection = Connection::open(directory.path().join(DATABASE)).unwrap();
        connection.execute_batch(&format!("PRAGMA {pragma}")).unwrap();
        drop(connection);
        assert!(matches!(open(&directory), Err(StoreError::Foreign { what: found, .. }) if found == what));
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(DATABASE), b"").unwrap();
    assert!(matches!(open(&directory), Err(StoreError::Foreign { .. })));
    std::fs::write(directory.path().join(DATABASE), vec![b'x'; 5000]).unwrap();
    assert!(open(&directory).is_err());
}

/// The tables of schema version 1, as the first version of the program made them.
fn of_version_1(directory: &TempDir) {
    let connection = Connection::open(directory.path().join(DATABASE)).unwrap();
    of_version_2(directory);
    let older = "DROP TABLE earlier; DROP TABLE response; PRAGMA user_version = 1";
    connection.execute_batch(older).unwrap();
}

/// Those of version 2: every row lay in its table, with its entry.
fn of_version_2(directory: &TempDir) {
    let connection = Connection::open(directory.path().join(DATABASE)).unwrap();
    let listed =
        "CREATE TABLE listed (list INTEGER NOT NULL, device BLOB NOT NULL, template TEXT NOT NULL, counter INTEGER,
         PRIMARY KEY (list, device)) STRICT, WITHOUT ROWID";
    let newer = "DROP TABLE base; DROP TABLE row_page; DROP TABLE part; DROP TABLE page; DROP TABLE device_key";
    connection.execute_batch(&format!("{newer}; {listed}; PRAGMA user_version = 2")).unwrap();
}

#[test]
fn a_database_of_version_1_gets_the_new_tables_and_the_rows_that_the_ledger_makes() {
    let (directory, mut store) = made(0);
    let key = key();
    let first = DeviceFacts { counter: 7, ..row(1, IntentState::Signed) };
    let second = DeviceFacts { counter: 8, ..row(2, IntentState::Open) };
    let derived = [&first, &second].map(|row| Derived::Device { key: &key, device: device(1), row });
    append(&mut store, 1, &[], &[], &derived).unwrap();
    keep(&mut store, 1).unwrap();
    drop(store);
    of_version_1(&directory);
    let tables = |store: &SqliteStore| (schema::version(&store.connection).unwrap(), store.earlier(&key, device(1), 7));
    // Opened, and killed before the state was made again: the next start has it still to do.
    for _ in 0..2 {
        let store = open(&directory).unwrap();
        assert!(matches!(tables(&store), (1, Ok(None))));
        SqliteReader::open(directory.path()).unwrap().head().unwrap();
    }
    let mut store = open(&directory).unwrap();
    let mut rebuild = store.rebuild().unwrap();
    rebuild.apply(&derived).unwrap();
    rebuild.compare_and_finish().unwrap();
    assert!(matches!(tables(&store), (schema::SCHEMA_VERSION, Ok(Some(1)))));
    assert_eq!(store.base().unwrap(), Base { size: 2, snapshot: None });
    drop(store);
    // From here on they are compared like the others.
    let mut store = open(&directory).unwrap();
    edit(&directory, "UPDATE earlier SET intent = 9");
    let mut rebuild = store.rebuild().unwrap();
    rebuild.apply(&derived).unwrap();
    let differs = rebuild.compare_and_finish();
    assert!(matches!(differs, Err(StoreError::DerivedDiffers { table: "earlier", .. })), "{differs:?}");
}

#[test]
fn an_old_database_whose_other_tables_were_edited_is_still_found_out() {
    let (directory, mut store) = made(0);
    let (key, intended) = (key(), row(1, IntentState::Open));
    let derived = [Derived::Device { key: &key, device: device(1), row: &intended }];
    append(&mut store, 1, &[], &[], &derived).unwrap();
    keep(&mut store, 1).unwrap();
    drop(store);
    of_version_1(&directory);
    edit(&directory, "UPDATE device SET state = 2");
    let mut store = open(&directory).unwrap();
    let mut rebuild = store.rebuild().unwrap();
    rebuild.apply(&derived).unwrap();
    assert!(matches!(rebuild.compare_and_finish(), Err(StoreError::DerivedDiffers { table: "device", .. })));
    assert_eq!(schema::version(&store.connection).unwrap(), 1);
}

#[test]
fn the_lists_of_an_older_database_are_found_by_pages_and_its_rows_for_each_device_are_gone() {
    let (directory, mut store) = made(0);
    let (determination, octets) = (DeterminationId([1; 16]), list(0..600));
    let derived = [Derived::List { determination, blob: Digest::of(&octets), pages: None }];
    append(&mut store, 1, &[&octets], &[], &derived).unwrap();
    drop(store);
    of_version_1(&directory);
    edit(&directory, "INSERT INTO listed VALUES (1, x'0000000000000000', 'even', 0)");
    let mut store = open(&directory).unwrap();
    let mut rebuild = store.rebuild().unwrap();
    rebuild.apply(&derived).unwrap();
    rebuild.compare_and_finish().unwrap();
    assert_eq!(store.listed(determination, device(599)).unwrap().unwrap().device, device(599));
    assert_eq!(store.listed_count(determination).unwrap(), Some(600));
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'listed'";
    assert_eq!(store.connection.query_row(tables, [], |row| row.get(0)), Ok(0));
}

#[test]
fn pages_made_by_whoever_read_the_list_are_those_that_the_store_makes() {
    let (_directory, mut store) = made(0);
    let (determination, octets) = (DeterminationId([1; 16]), list((0..2_000).map(|n| 3 * n)));
    let mut reader = DeviceListReader::new(&["even".parse().unwrap(), "odd".parse().unwrap()], 2_000);
    reader.feed(&octets, |_| {});
    let (counted, pages) = reader.finish_with_pages().unwrap();
    let [brought, made] =
        [Some(&*pages), None].map(|pages| Derived::List { determination, blob: counted.sha256, pages });
    append(&mut store, 1, &[&octets], &[], &[brought]).unwrap();
    let mut rebuild = store.rebuild().unwrap();
    rebuild.apply(&[made]).unwrap();
    rebuild.compare_and_finish().unwrap();
    for n in 0..6_000 {
        assert_eq!(store.listed(determination, device(n)).unwrap().is_some(), n % 3 == 0, "{n}");
    }
    // Those of a list that nobody brought serve nobody.
    let other =
        Derived::List { determination: DeterminationId([2; 16]), blob: Digest::of(b"nowhere"), pages: Some(&pages) };
    let error = append(&mut store, 1, &[], &[], &[other]).unwrap_err();
    assert!(matches!(error, StoreError::NoSuchBlob { .. }), "{error}");
}

#[test]
fn a_page_of_a_list_that_was_edited_answers_nothing_and_the_others_do() {
    let (directory, mut store) = made(0);
    let (determination, octets) = (DeterminationId([1; 16]), list(0..20_000));
    let derived = [Derived::List { determination, blob: Digest::of(&octets), pages: None }];
    append(&mut store, 1, &[&octets], &[], &derived).unwrap();
    let (second, mut edited) = (&octets[262_144..], octets[262_144..].to_vec());
    // One octet of the last line.
    let last = edited.len() - 2;
    edited[last] ^= 1;
    assert_ne!(edited, second);
    edit_with(&directory, "UPDATE chunk SET octets = ?1 WHERE id % 16777216 = 1", &edited);
    assert_eq!(store.listed(determination, device(0)).unwrap().unwrap().counter, Some(0));
    let error = store.listed(determination, device(19_999)).unwrap_err().to_string();
    assert!(error.contains("it was edited, or the disk is failing"), "{error}");
    assert!(store.listed_from(determination, Some(device(19_800)), 200).is_err());
    assert_eq!(store.listed_from(determination, Some(device(100)), 2_000).unwrap().len(), 2_000);
    edit_with(&directory, "UPDATE chunk SET octets = ?1 WHERE id % 16777216 = 1", second);
    assert_eq!(store.listed(determination, device(19_999)).unwrap().unwrap().counter, None);
    // A row that says that a page begins later would hide the Devices before: they are not said to be absent.
    edit(&directory, "UPDATE page SET first = x'0000000000000110' WHERE first = x'0000000000000100'");
    let reader = SqliteReader::open(directory.path()).unwrap();
    for hidden in [256, 260, 271, 272, 300] {
        assert!(reader.listed(determination, device(hidden)).is_err(), "{hidden}");
    }
    assert!(reader.listed_from(determination, None, 400).is_err());
    edit(&directory, "UPDATE page SET first = x'0000000000000100' WHERE first = x'0000000000000110'");
    // The row of a page that names another place.
    edit(&directory, "UPDATE page SET at = at + 1 WHERE first = x'0000000000000100'");
    let store = SqliteReader::open(directory.path()).unwrap();
    assert!(store.listed(determination, device(256)).is_err());
    assert!(store.listed(determination, device(255)).unwrap().is_some());
}

#[test]
fn no_one_but_the_owner_reads_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, mut store) = made(1);
    store.reserve_space(10).unwrap();
    let rebuild = store.rebuild().unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", file.path().display());
        }
    }
    drop(rebuild);
    assert!(!directory.path().join(REBUILT).exists());
}

#[test]
fn an_edited_entry_is_named() {
    let (directory, store) = made(700);
    edit(&directory, "UPDATE leaf SET octets = x'7b7d' WHERE idx = 300");
    assert!(matches!(store.leaf(300), Err(StoreError::LeafCorrupt { index: 300, .. })));
    assert!(matches!(store.check_tree(), Err(StoreError::LeafCorrupt { index: 300, .. })));
    assert!(store.leaf(299).is_ok());
    // With a hash to match, it is still not under the root.
    edit_with(&directory, "UPDATE leaf SET hash = ?1 WHERE idx = 300", leaf_hash(b"{}").octets());
    assert!(store.leaf(300).is_ok());
    assert!(matches!(store.check_tree(), Err(StoreError::HeadCorrupt { .. })));
    let head = store.head().unwrap();
    assert!(matches!(store.leaf_under(300, &head), Err(StoreError::HeadCorrupt { .. })));
    assert!(store.leaf_under(299, &head).is_err(), "its path has the hash beside it");
    assert!(store.leaf_under(600, &head).is_ok());
}

#[test]
fn rows_removed_added_or_edited_are_noticed() {
    #[track_caller]
    fn check(sql: &str, at_open: bool) {
        let (directory, store) = made(700);
        drop(store);
        edit(&directory, sql);
        let opened = open(&directory);
        assert_eq!(opened.is_err(), at_open, "{sql}");
        if let Ok(store) = opened {
            let error = store.check_tree().unwrap_err();
            assert!(matches!(error, StoreError::HeadCorrupt { .. } | StoreError::LeafCorrupt { .. }), "{error}");
        }
    }
    check("DELETE FROM leaf WHERE idx = 699", true);
    check("DELETE FROM leaf WHERE idx = 600", true);
    check("DELETE FROM leaf WHERE idx = 100", false);
    check("INSERT INTO leaf VALUES (700, zeroblob(32), x'7b7d')", true);
    check("UPDATE head SET size = 699", true);
    check("UPDATE head SET root = zeroblob(32)", true);
    check("UPDATE leaf SET hash = zeroblob(32) WHERE idx = 650", true);
    check("UPDATE leaf SET hash = zeroblob(32) WHERE idx = 10", false);
    check("UPDATE node SET hash = zeroblob(32) WHERE level = 8 AND idx = 1", true);
    check("DELETE FROM node WHERE level = 8 AND idx = 0", true);
    check("UPDATE leaf SET octets = x'7b7d' WHERE idx = 699", false);
}

#[test]
fn another_process_that_appended_is_the_fence_s_business() {
    let (directory, mut store) = made(5);
    // As a process would that ignores the lock.
    edit(&directory, "UPDATE head SET size = 6");
    let octets = entry(5);
    let leaves = [crate::domain::ledger::merkle::Leaf::new(&octets).unwrap()];
    let batch = Batch { leaves: &leaves, ..Batch::default() };
    assert!(matches!(store.append_at(5, &batch, &mut |_| ()), Err(StoreError::SizeMoved { expected: 5, found: 6 })));
    assert!(matches!(store.append_at(6, &batch, &mut |_| ()), Err(StoreError::HeadCorrupt { .. })));
}

#[test]
fn an_edited_row_of_derived_state_is_named() {
    let (directory, mut store) = made(0);
    let (determination, octets) = (DeterminationId([1; 16]), list(0..4));
    let (key, intended) = (key(), row(3, IntentState::Open));
    let derived = [
        Derived::List { determination, blob: Digest::of(&octets), pages: None },
        Derived::Device { key: &key, device: device(1), row: &intended },
        Derived::Signature { intent: 3, octets: &[7; 64], released: false },
    ];
    append(&mut store, 1, &[&octets], &[], &derived).unwrap();
    keep(&mut store, 1).unwrap();
    let mut check = |sql: &str, undo: &str, expected: &str| {
        edit(&directory, sql);
        let mut rebuild = store.rebuild().unwrap();
        rebuild.apply(&derived).unwrap();
        let error = rebuild.compare_and_finish().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        edit(&directory, undo);
    };
    check("UPDATE device SET state = 2", "UPDATE device SET state = 1", "device 0000000000000001");
    check(
        "UPDATE device SET counter = 1",
        &format!("UPDATE device SET counter = {}", (u64::MAX - 3).cast_signed()),
        "counter 1,",
    );
    check("UPDATE page SET at = 9", "UPDATE page SET at = 0", "at 9,");
    check("UPDATE signature SET released = 1", "UPDATE signature SET released = 0", "table signature");
    check(
        "INSERT INTO request VALUES (zeroblob(16), zeroblob(32), 1, 2)",
        "DELETE FROM request",
        "ledger makes nothing",
    );
    let mut rebuild = store.rebuild().unwrap();
    rebuild.apply(&derived).unwrap();
    rebuild.compare_and_finish().unwrap();
    edit(&directory, "UPDATE device SET state = 9");
    assert!(matches!(store.device(&key, device(1)), Err(StoreError::RowCorrupt { table: "device", .. })));
}

#[test]
fn an_edited_blob_is_noticed_at_its_end_and_no_device_list_is_made_of_it() {
    let (directory, mut store) = made(0);
    let octets = list(0..20_000);
    let digest = Digest::of(&octets);
    append(&mut store, 1, &[&octets], &[], &[]).unwrap();
    let edited = list(1..20_001);
    edit_with(&directory, "UPDATE chunk SET octets = ?1 WHERE id % 16777216 = 1", &edited[262_144..]);
    let mut read = Vec::new();
    let error = std::io::Read::read_to_end(&mut store.open_blob(digest).unwrap(), &mut read).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains(&digest.to_string()));
    let determination = DeterminationId([1; 16]);
    assert!(append(&mut store, 1, &[], &[], &[Derived::List { determination, blob: digest, pages: None }]).is_err());
    assert_eq!(store.listed_count(determination).unwrap(), None);
}

#[test]
fn a_full_disk_records_nothing_releases_the_reserved_space_and_lets_one_more_entry_in_after() {
    let (directory, mut store) = made(10);
    store.reserve_space(1_000_000).unwrap();
    let ballast = directory.path().join("ballast");
    assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 1_000_000);
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let limit = |store: &SqliteStore, pages: i64| {
        let _: i64 =
            store.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get(0)).unwrap();
    };
    limit(&store, pages + 3);
    let blob = vec![1; 100_000];
    let before = store.head().unwrap();
    for released in [true, false] {
        match append(&mut store, 1, &[&blob], &[], &[]) {
            Err(StoreError::CannotRecord { released: found, .. }) => assert_eq!(found, released),
            other => panic!("{other:?}"),
        }
        assert!(!ballast.exists());
        assert_eq!(store.head().unwrap(), before);
    }
    limit(&store, 1_000_000);
    append(&mut store, 1, &[&blob], &[], &[]).unwrap();
    assert_eq!(store.check_tree().unwrap().size, 11);
}

/// What a power cut leaves: the database and any beginning of the WAL. The files are copied while the store is open.
#[test]
fn whatever_beginning_of_the_wal_survives_opens_as_a_ledger_that_was_once_recorded() {
    let (directory, mut store) = made(0);
    let mut heads = vec![store.head().unwrap()];
    let mut wal_len_of_head = Vec::new();
    let wal = directory.path().join("ledger.db-wal");
    for i in 0..12 {
        let row = row(i, IntentState::Open);
        let derived = [Derived::Device { key: &key(), device: device(i), row: &row }];
        heads.push(append(&mut store, 1 + i * 7, &[&entry(i)], &[], &derived).unwrap());
        wal_len_of_head.push(std::fs::metadata(&wal).unwrap().len());
    }
    let octets = std::fs::read(&wal).unwrap();
    let database = std::fs::read(directory.path().join(DATABASE)).unwrap();
    // At each commit, one octet before it, and at places between.
    let ends = wal_len_of_head.iter().flat_map(|len| [*len, len - 1, len - 2000]).chain([0, 31, 32, 33]);
    for end in ends {
        let copy = tempfile::tempdir().unwrap();
        std::fs::write(copy.path().join(DATABASE), &database).unwrap();
        std::fs::write(copy.path().join("ledger.db-wal"), &octets[..usize::try_from(end).unwrap()]).unwrap();
        let acknowledged = wal_len_of_head.iter().filter(|len| **len <= end).count();
        let store = open(&copy).unwrap();
        let head = store.check_tree().unwrap();
        assert_eq!(head, heads[acknowledged], "the WAL up to octet {end}");
        assert_eq!(store.device(&key(), device(acknowledged as u64)).unwrap(), None);
        let mut count = 0;
        store
            .leaves(0..head.size, &mut |_| {
                count += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(count, head.size);
    }
}

#[test]
fn the_bundled_sqlite_is_late_enough() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

/// A store with so many Devices in its tables, opened again and told to believe them by the pages of the snapshot.
fn kept(devices: u64) -> (TempDir, SqliteStore, KeptTables) {
    let (directory, mut store) = made(0);
    let key = key();
    let rows: Vec<_> =
        (0..devices).map(|i| row(i, if i % 100 == 7 { IntentState::Unknown } else { IntentState::Signed })).collect();
    let derived: Vec<_> =
        rows.iter().zip(0..).map(|(row, i)| Derived::Device { key: &key, device: device(i), row }).collect();
    append(&mut store, 1, &[], &[], &derived).unwrap();
    keep(&mut store, 1).unwrap();
    drop(store);
    let store = open(&directory).unwrap();
    let tables = StoredRows { connection: &store.connection, schema: Schema::Main };
    let tables = Table::ALL.map(|table| Pages::made(table, &tables, |_| ()).unwrap().kept());
    (directory, store, tables)
}

#[test]
fn a_row_that_was_edited_is_found_before_it_is_read_and_the_others_are_not_held_up() {
    for sql in [
        "UPDATE device SET counter = 7 WHERE device = x'00000000000003E8'",
        "UPDATE device SET state = 3 WHERE device = x'00000000000003E9'",
        "DELETE FROM device WHERE device = x'00000000000003E8'",
        "INSERT INTO device SELECT key, x'00000000000003E900', counter, determination, template, intent, state, attempt FROM device LIMIT 1",
    ] {
        let (directory, mut store, tables) = kept(2_000);
        edit(&directory, sql);
        store.believe(&tables, false).unwrap();
        let read = store.device(&key(), device(1_000));
        let said = read.unwrap_err().to_string();
        assert!(said.contains("table device") && said.contains("edited"), "{said}");
        assert_eq!(store.device(&key(), device(0)).unwrap(), Some(row(0, IntentState::Signed)));
        let all = store.devices_in(&key(), IntentState::Signed, None, 5_000);
        assert!(all.unwrap_err().to_string().contains("table device"));
        // A reader of the same process is told alike.
        let reader = store.reader().unwrap();
        assert!(reader.device(&key(), device(1_000)).is_err());
    }
}

#[test]
fn many_devices_are_looked_up_as_each_alone_in_the_table_and_in_what_changed_since() {
    let (_directory, mut store, tables) = kept(2_000);
    store.believe(&tables, false).unwrap();
    let (key, determination) = (key(), DeterminationId([4; 16]));
    let line = |i: u64, said: &str| ResultLine::parse(&format!("{},{i},{said}", device(i))).unwrap();
    let put = |store: &mut SqliteStore, derived: &[Derived<'_>]| store.replay(derived).unwrap();
    put(
        &mut store,
        &[Derived::Responses { determination, entry: 7, lines: &[line(3, "recovered"), line(900, "failed,x")] }],
    );
    let size = store.head().unwrap().size;
    keep(&mut store, size).unwrap();
    let foreign = ResultLine::parse(&format!("{},-,foreign,counter 5: none", device(900))).unwrap();
    put(&mut store, &[Derived::Responses { determination, entry: 8, lines: &[foreign, line(1_000, "recovered")] }]);
    put(&mut store, &[Derived::Device { key: &key, device: device(4), row: &row(9_000, IntentState::Open) }]);
    // In no order, one twice, and some that nobody knows.
    let asked = [900, 4, 1_000, 5_000, 3, 900, 0].map(device);
    let (many, said) = (store.devices(&key, &asked).unwrap(), store.responded_many(determination, &asked).unwrap());
    let alone = |one: DeviceId| (store.device(&key, one).unwrap(), store.responded(determination, one).unwrap());
    assert_eq!(many.iter().cloned().zip(said.iter().cloned()).collect::<Vec<_>>(), asked.map(alone));
    assert_eq!(many.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, true, false, true, true, true]);
    assert_eq!(many[1], Some(row(9_000, IntentState::Open)));
    assert_eq!(said.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, false, true, true, false]);
    let both = said[0].as_ref().unwrap();
    assert_eq!((both.own.as_ref().map(|own| own.entry), both.foreign), (Some(7), Some(5)));
    assert_eq!(store.reader().unwrap().responded_many(determination, &asked).unwrap(), said);
}

#[test]
fn a_row_that_cannot_be_read_does_not_spoil_the_look_up_of_the_next() {
    let connection = Connection::open_in_memory().unwrap();
    schema::create_derived(&connection, "main").unwrap();
    for (i, determination) in [(1, "zeroblob(16)"), (2, "zeroblob(15)"), (3, "zeroblob(16)")] {
        let sql = format!("INSERT INTO device VALUES ('recovery-1', ?1, {i}, {determination}, 'suppliers', {i}, 2, 1)");
        connection.execute(&sql, [device(i).0.octets()]).unwrap();
    }
    let select = || derived::select_device(&connection, Schema::Main, &key()).unwrap();
    let counter = |found: Result<Option<DeviceFacts>, StoreError>| found.unwrap().map(|facts| facts.counter);
    let (mut one, mut other) = (select(), select());
    assert_eq!(counter(one.one(device(1))), Some(1));
    assert!(matches!(one.one(device(2)), Err(StoreError::RowCorrupt { table: "device", .. })));
    assert_eq!(counter(other.one(device(3))), Some(3));
    assert_eq!(counter(one.one(device(4))), None);
    assert_eq!(counter(one.one(device(3))), Some(3));
    assert!(other.all(device(2)).is_err());
    assert_eq!(other.all(device(1)).unwrap().len(), 1);
}

#[test]
fn a_snapshot_does_not_make_a_forged_row_good() {
    let (directory, mut store, tables) = kept(2_000);
    edit(&directory, "UPDATE device SET counter = 7 WHERE device = x'00000000000003E8'");
    store.believe(&tables, false).unwrap();
    let (key, next) = (key(), row(9_000, IntentState::Open));
    // Its neighbour changes, in the same page.
    append(
        &mut store,
        1,
        &[],
        &[],
        &[Derived::Request { id: crate::domain::names::RequestId([1; 16]), row: &super::super::tests::request(1) }],
    )
    .unwrap();
    store.replay(&[Derived::Device { key: &key, device: device(5_000), row: &next }]).unwrap();
    let size = store.head().unwrap().size;
    keep(&mut store, size).unwrap();
    let size = store.head().unwrap().size;
    let near =
        store.replay(&[Derived::Device { key: &key, device: device(1_001), row: &row(9_001, IntentState::Signed) }]);
    let kept = near.and_then(|()| keep(&mut store, size));
    assert!(matches!(kept, Err(StoreError::PageDiffers { table: "device", .. })), "{kept:?}");
}

#[test]
fn a_row_forged_into_a_table_that_had_none_is_not_made_good_by_a_snapshot_of_others() {
    let key = DeviceKey {
        device: device(8),
        point: [4; 65],
        device_ca: Digest([5; 32]),
        from: "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap(),
        until: "2027-01-01T00:00:00Z".parse::<Timestamp>().unwrap(),
    };
    let line = ResultLine::parse(&format!("{},7,recovered", device(8))).unwrap();
    let forged = [
        "INSERT INTO response VALUES (zeroblob(16), x'0000000000000007', 1, 1, 'recovered', '', NULL)",
        "INSERT INTO device_key VALUES (x'0000000000000007', zeroblob(64), zeroblob(32), 0, 9, 1)",
    ];
    for (sql, table, derived) in [
        (
            forged[0],
            "response",
            Derived::Responses { determination: DeterminationId([0; 16]), entry: 9, lines: &[line] },
        ),
        (forged[1], "device_key", Derived::DeviceKeys { entry: 9, keys: &[key] }),
    ] {
        let (directory, mut store, tables) = kept(10);
        store.believe(&tables, true).unwrap();
        store.replay(std::slice::from_ref(&derived)).unwrap();
        let size = store.head().unwrap().size;
        keep(&mut store, size).unwrap();

        let (directory_forged, mut store, tables) = kept(10);
        edit(&directory_forged, sql);
        // Nobody reads it.
        store.believe(&tables, false).unwrap();
        store.replay(std::slice::from_ref(&derived)).unwrap();
        let kept = keep(&mut store, size);
        assert!(matches!(&kept, Err(StoreError::PageDiffers { table: of, .. }) if *of == table), "{kept:?}");
        // Whoever looks at all of them finds it.
        let store = SqliteStore::open(directory_forged.path(), LIMITS);
        assert!(store.and_then(|mut store| store.believe(&tables, true)).is_err());
        drop(directory);
    }
}

#[test]
fn what_is_still_to_be_settled_is_found_by_pages_that_were_compared() {
    let (directory, mut store, tables) = kept(2_000);
    store.believe(&tables, false).unwrap();
    let unknown = |store: &SqliteStore, after: Option<u64>, limit| {
        store
            .devices_in(&key(), IntentState::Unknown, after.map(device), limit)
            .map(|rows| rows.into_iter().map(|(device, _)| u64::from_be_bytes(*device.0.octets())).collect::<Vec<_>>())
    };
    assert_eq!(unknown(&store, None, 3).unwrap(), [7, 107, 207]);
    assert_eq!(unknown(&store, Some(207), 100).unwrap().len(), 17);
    // One was settled since, and another came in between.
    let (key, settled, open) = (key(), row(107, IntentState::Left), row(9_000, IntentState::Unknown));
    let later = [
        Derived::Device { key: &key, device: device(107), row: &settled },
        Derived::Device { key: &key, device: device(150), row: &open },
    ];
    append(&mut store, 1, &[], &[], &later).unwrap();
    assert_eq!(unknown(&store, None, 3).unwrap(), [7, 150, 207]);
    assert_eq!(unknown(&store, Some(7), 2).unwrap(), [150, 207]);
    let size = store.head().unwrap().size;
    keep(&mut store, size).unwrap();
    assert_eq!(unknown(&store, None, 3).unwrap(), [7, 150, 207]);
    drop(store);
    // Hidden from whoever looks for it, and its page says that there is one.
    let mut store = open_again(&directory);
    edit(&directory, "UPDATE device SET state = 2 WHERE device = x'0000000000000096'");
    assert!(matches!(unknown(&store, None, 9), Err(StoreError::PageDiffers { .. })));
    let _ = &mut store;
}

/// The store again, believing the pages that it keeps.
fn open_again(directory: &TempDir) -> SqliteStore {
    let mut store = open(directory).unwrap();
    let tables = Table::ALL.map(|table| overlay::pages(&store.connection, table).unwrap().0.kept());
    store.believe(&tables, false).unwrap();
    store
}

#[test]
fn a_list_of_pages_that_was_edited_is_refused() {
    for sql in [
        "UPDATE row_page SET pending = 0",
        "UPDATE row_page SET digest = zeroblob(32) WHERE tbl = 1",
        "DELETE FROM row_page",
    ] {
        let (directory, mut store, tables) = kept(2_000);
        edit(&directory, sql);
        let believed = store.believe(&tables, false);
        assert!(matches!(believed, Err(StoreError::PagesDiffer { table: "device", .. })), "{believed:?}");
    }
}

#[test]
fn a_list_of_parts_that_was_edited_is_found_before_a_snapshot_rests_on_it() {
    for sql in [
        "UPDATE row_page SET parts = zeroblob(64) WHERE tbl = 1",
        "UPDATE row_page SET parts = (SELECT parts FROM row_page WHERE id = (SELECT max(id) FROM row_page))",
    ] {
        let (directory, mut store, tables) = kept(2_000);
        edit(&directory, sql);
        // A start does not look at them; what is read needs none.
        store.believe(&tables, true).unwrap();
        assert_eq!(store.device(&key(), device(0)).unwrap(), Some(row(0, IntentState::Signed)));
        let size = store.head().unwrap().size;
        let changed = row(9_000, IntentState::Signed);
        store.replay(&[Derived::Device { key: &key(), device: device(3), row: &changed }]).unwrap();
        let kept = keep(&mut store, size);
        assert!(matches!(kept, Err(StoreError::PageDiffers { table: "device", .. })), "{sql}: {kept:?}");
    }
}

#[test]
fn snapshots_of_rows_that_come_in_any_order_keep_the_pages_that_their_rows_come_to() {
    let (directory, store, _) = kept(2_000);
    drop(store);
    let mut store = open_again(&directory);
    for round in 0..6_u64 {
        let changed: Vec<_> = (0..300).map(|i| (i * 7_919 + round * 131) % 6_000).collect();
        let facts = row(10_000 + round, IntentState::Signed);
        let key = key();
        let derived: Vec<_> =
            changed.iter().map(|i| Derived::Device { key: &key, device: device(*i), row: &facts }).collect();
        append(&mut store, 1, &[], &[], &derived).unwrap();
        let size = store.head().unwrap().size;
        keep(&mut store, size).unwrap();
        let rows = StoredRows { connection: &store.connection, schema: Schema::Main };
        for table in Table::ALL {
            let mut lists = Vec::new();
            let made = Pages::made(table, &rows, |made| lists.push(made.list.clone())).unwrap();
            assert_eq!(overlay::pages(&store.connection, table).unwrap().0, made, "round {round}");
            let mut select =
                store.connection.prepare("SELECT parts FROM row_page WHERE tbl = ?1 ORDER BY first").unwrap();
            let stored: Vec<Vec<u8>> =
                select.query_map([table.code()], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            assert_eq!(stored, lists, "round {round}");
        }
    }
    drop(store);
    // Every page is there again, and holds.
    let store = open_again(&directory);
    store.shared.read().see_all(&store.connection).unwrap();
}

#[test]
fn pages_that_were_made_before_the_first_snapshot_are_those_that_it_keeps() {
    let tables_after = |with_pages: bool| {
        let (_directory, mut store) = made(0);
        let (key, first, second) = (key(), row(1, IntentState::Signed), row(2, IntentState::Signed));
        let rows = |row, from: u64| (from..from + 700).map(move |i| (device(i * 3), row));
        let derived = |row, from| -> Vec<Derived<'_>> {
            rows(row, from).map(|(device, row)| Derived::Device { key: &key, device, row }).collect()
        };
        append(&mut store, 1, &[], &[], &derived(&first, 0)).unwrap();
        // As an older version left them: rows in their tables, and no pages.
        store.shared.read().overlay().write(&store.connection).unwrap();
        if with_pages {
            store.make_pages().unwrap();
        }
        append(&mut store, 1, &[], &[], &derived(&second, 500)).unwrap();
        keep(&mut store, 2).unwrap();
        Table::ALL.map(|table| overlay::pages(&store.connection, table).unwrap().0)
    };
    assert_eq!(tables_after(true), tables_after(false));
}

#[test]
fn an_entry_and_what_it_makes_of_rows_are_seen_at_once_by_whoever_reads_beside() {
    const IMPORTS: u64 = 400;
    let (directory, mut store) = made(0);
    let imported = |entry: u64| DeviceKey {
        device: device(1),
        point: std::array::from_fn(|at| if at == 0 { 4 } else { 7 }),
        device_ca: Digest([9; 32]),
        from: Timestamp::from_unix_ms(0).unwrap(),
        until: Timestamp::from_unix_ms(i64::try_from(entry).unwrap() * 1_000).unwrap(),
    };
    let looked = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = SqliteReader::open(directory.path()).unwrap();
                scope.spawn(move || {
                    let mut looked = 0_u64;
                    loop {
                        let size = reader.head().unwrap().size;
                        let keys = reader.device_keys(device(1)).unwrap();
                        let before = keys.iter().filter(|imported| imported.entry < size).count() as u64;
                        assert_eq!(before, size, "each entry below the head brought one");
                        looked += 1;
                        if size == IMPORTS {
                            return looked;
                        }
                    }
                })
            })
            .collect();
        for entry in 0..IMPORTS {
            let keys = [imported(entry)];
            append(&mut store, 1, &[], &[], &[Derived::DeviceKeys { entry, keys: &keys }]).unwrap();
        }
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });
    assert!(looked > 10, "{looked}");
}
