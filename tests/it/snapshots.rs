//! The state that a snapshot keeps, under the real daemon: a start from it makes what the whole ledger makes, wherever the last life was
//! cut off; and what was altered behind its back is found before anything is decided by it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use smkid::domain::determination::devices::DeviceListReader;
use smkid::domain::fold::snapshot::Tables;
use smkid::domain::ledger::entry::{ClockState, Event, JobStarted};
use smkid::domain::ledger::jobs::JobList;
use smkid::domain::ledger::merkle::{Head, Leaf};
use smkid::domain::ledger::snapshots::TableKept;
use smkid::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel};
use smkid::domain::policy::facts::{DeviceFacts, IntentState};
use smkid::recorder::{Moment, REFUSALS_TOLD_MAX, Recorder, record_alone};
use smkid::state;
use smkid::store::sqlite::{Scratch, SqliteStore};
use smkid::store::{
    Base, Batch, Derived, DerivedState as _, PutPart, Reader as _, StagingLimits, Store as _, StoreError, Vouch,
};

use crate::lab::Key;
use crate::support::ledger_fixture::large::HandOver;
use crate::support::ledger_fixture::{Fixture, numbered, operator};
use crate::support::seeded::Seeded;
use crate::support::site::{
    DEVICES, Site, Snapshot, Which, ask_for, ask_for_all, device, lines, problem, wait_for_end, whole, with_snapshots,
};
use tokio::sync::OnceCell;

const LIMITS: StagingLimits = StagingLimits { account_len_max: 1 << 30, total_len_max: 1 << 30 };

const SIGN: &str = "/v1/recovery/sign";

fn open(site: &Site) -> SqliteStore {
    SqliteStore::open(&site.state(), LIMITS).unwrap()
}

/// A site on which half of the Devices have a command, and snapshots were taken on the way, stopped in order.
pub async fn half_signed() -> Site {
    static HALF: OnceCell<Snapshot> = OnceCell::const_new();
    Site::made(&HALF, async |site| {
        site.configure(|text| with_snapshots(&text));
        let daemon = site.start_active().await;
        whole(lines(&daemon.client, SIGN, &ask_for(site.main(), 0..DEVICES / 2)).await);
        assert!(daemon.stop().await.unwrap().success());
    })
    .await
}

fn snapshots(site: &Site) -> usize {
    site.ledger().entries.iter().filter(|entry| matches!(entry.event, Event::Snapshot(_))).count()
}

fn activations(site: &Site) -> usize {
    site.ledger().entries.iter().filter(|entry| matches!(entry.event, Event::KeyActivated(_))).count()
}

/// The same from the newest snapshot as from the first entry on.
#[track_caller]
fn check_same(site: &Site) {
    let key: KeyLabel = "recovery-1".parse().unwrap();
    let rows = |store: &SqliteStore| {
        let all = (0..DEVICES + 3).map(|n| store.device(&key, device(n)).unwrap()).collect::<Vec<_>>();
        let pending = store.devices_in(&key, IntentState::Open, None, usize::MAX).unwrap();
        (all, pending, store.devices_in(&key, IntentState::Unknown, None, usize::MAX).unwrap())
    };
    let mut store = open(site);
    assert!(store.base().unwrap().snapshot.is_some());
    let fold = state::catch_up(&mut store).unwrap();
    let since = (fold.kept(), rows(&store));
    drop(store);
    let mut store = open(site);
    let fold = state::check_all(&mut store).unwrap();
    assert_eq!((String::from_utf8(fold.kept()), rows(&store)), (String::from_utf8(since.0), since.1));
}

#[tokio::test]
async fn a_start_from_a_snapshot_makes_the_state_that_the_whole_ledger_makes_and_goes_on_from_it() {
    let site = half_signed().await;
    assert!(snapshots(&site) >= 2);
    check_same(&site);
    let daemon = site.start_active().await;
    let items = whole(lines(&daemon.client, SIGN, &ask_for_all(site.main())).await);
    assert_eq!(items.len(), DEVICES as usize);
    // Killed: what came after the last snapshot is folded again.
    site.verify_export("export");
    daemon.kill().await.unwrap();
    check_same(&site);
    let ledger = site.ledger();
    ledger.check();
    assert_eq!(ledger.signed().len(), DEVICES as usize);
}

#[test]
fn a_start_counts_the_lines_of_the_lists_that_it_reads_again_and_none_of_before_the_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let mut store = SqliteStore::open(directory.path(), LIMITS).unwrap();
        let (fold, unchecked) = state::start(&mut store, &mut |_| ()).unwrap();
        (store, fold, unchecked.is_some())
    };
    let mut fixture = Fixture::large(directory.path(), 20);
    let (request, determination) = (fixture.sign_all(0..20, HandOver::AtOnce), fixture.determination);
    assert_eq!(fixture.fold().listed_since_snapshot(), 20, "the list of its determination");
    fixture.end_with_snapshot(directory.path(), None, |kept| kept);
    let (store, fold, is_from_snapshot) = start();
    assert_eq!((fold.listed_since_snapshot(), is_from_snapshot), (0, true));
    let moment = Moment { at: fold.last_at().unwrap(), clock: ClockState::Trusted };
    let mut recorder = Recorder::new(Box::new(store), fold, Box::new(move || (moment, None))).unwrap();
    let job = record_alone(&mut recorder, |recorder| {
        let text = [0, 1, 2].map(|n| format!("{}\n", numbered(n))).concat();
        let list = JobList { sha256: recorder.queue_blob(text.into_bytes()), devices: 3 };
        let started = JobStarted {
            request,
            asked: Digest::of(&request.0),
            incident: "INC-1".parse().unwrap(),
            determination,
            key: "recovery-1".parse().unwrap(),
            list: Some(list),
            per_hour: None,
            reason: None,
        };
        recorder.queue(&recorder.known(operator()), Event::JobStarted(started))
    });
    let _ = job.unwrap();
    drop(recorder);
    let (_, fold, is_from_snapshot) = start();
    assert_eq!((fold.listed_since_snapshot(), is_from_snapshot), (3, true));
}

#[tokio::test]
async fn a_daemon_that_is_killed_in_the_middle_of_a_job_starts_from_its_last_snapshot() {
    let site = half_signed().await;
    site.configure(|text| text + "\n[signing]\nchunk = 16\n");
    site.fault(Which::Recovery, Some("C_Sign * delay 20ms"));
    for round in 0..3 {
        let daemon = site.start_active().await;
        let (client, ask) = (daemon.client.clone(), ask_for_all(site.main()));
        let answer = tokio::spawn(async move { lines(&client, SIGN, &ask).await });
        let before = snapshots(&site);
        // Some way into the job, which has another snapshot before long.
        tokio::time::timeout(Duration::from_secs(30), async {
            while snapshots(&site) == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        assert!(!answer.is_finished(), "round {round}: the job runs");
        daemon.kill().await.unwrap();
        let _ = answer.await;
        check_same(&site);
        let ledger = site.ledger();
        assert!(ledger.checkpointed <= ledger.size(), "round {round}");
    }
    let daemon = site.start_active().await;
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

/// Edits the state after a snapshot; what a start says.
async fn edited(sql: &str) -> (Site, Result<(), String>) {
    let site = half_signed().await;
    site.edit(sql, 0);
    let started = state::catch_up(&mut open(&site)).map(drop).map_err(|error| error.to_string());
    (site, started)
}

#[tokio::test]
async fn kept_state_that_was_edited_is_refused_at_the_start_by_its_part() {
    for (sql, says) in [
        (
            "UPDATE part SET octets = CAST(replace(CAST(octets AS TEXT), '\"intents\":', '\"intents\":1') AS BLOB) WHERE name = 'fold'",
            "part fold",
        ),
        ("DELETE FROM part WHERE name = 'fold'", "part fold"),
        ("DELETE FROM part WHERE name = 'targets/INC-1'", "part targets/INC-1"),
        ("DELETE FROM part WHERE name = 'targets/INC-1/0'", "part targets/INC-1/0"),
        ("UPDATE part SET octets = zeroblob(length(octets)) WHERE name = 'targets/INC-1/0'", "part targets/INC-1/0"),
        (
            "DELETE FROM row_page WHERE tbl = 1 AND first = (SELECT min(first) FROM row_page WHERE tbl = 1)",
            "table device",
        ),
        ("UPDATE page SET root = zeroblob(32)", "the store's pages make device list"),
        ("DELETE FROM page", "as many lines as its pages have"),
        ("DELETE FROM list", "the store's pages make nothing"),
        ("UPDATE list SET blob = zeroblob(32)", "the store's pages make device list 0000"),
        ("UPDATE list SET len = len + 1", "as many lines as its pages have"),
        ("UPDATE page SET at = at + 1", "pages side by side"),
        ("UPDATE base SET size = size - 1", "expected tables as of"),
        ("UPDATE base SET snapshot = snapshot - 1", "none does"),
        (
            "UPDATE leaf SET octets = CAST(replace(CAST(octets AS TEXT), '\"form\":2', '\"form\":3') AS BLOB) WHERE idx = (SELECT snapshot FROM base)",
            "hash to",
        ),
        ("UPDATE checkpoint SET root = zeroblob(32) WHERE size = (SELECT max(size) FROM checkpoint)", "root"),
    ] {
        let (_, started) = edited(sql).await;
        let said = started.unwrap_err();
        assert!(said.contains(says), "expected {says:?} in {said}");
    }
}

#[tokio::test]
async fn a_row_that_was_edited_stops_the_daemon_before_a_decision_rests_on_it() {
    let (site, started) =
        edited("UPDATE device SET counter = counter - 1 WHERE device = (SELECT min(device) FROM device)").await;
    // Not read yet.
    started.unwrap();
    let daemon = site.start_active().await;
    let signed = site.ledger().signed().len();
    let answer = lines(&daemon.client, SIGN, &ask_for(site.main(), 0..1)).await;
    assert!(!matches!(&answer, Ok((items, _)) if !items.is_empty()), "{answer:?}");
    assert_eq!(wait_for_end(daemon).await, Some(74));
    assert_eq!(site.ledger().signed().len(), signed);
}

#[tokio::test]
async fn a_state_of_the_version_before_is_checked_whole_once_and_brought_up_to_date() {
    let site = half_signed().await;
    // Refusals change no row: after a snapshot that comes among them every row is in its table, where the version before had them.
    let (before, unknown) = (snapshots(&site), ask_for_all(DeterminationId([0x77; 16])));
    for _ in 0..2 {
        let daemon = site.start().await;
        for _ in 0..REFUSALS_TOLD_MAX {
            problem(lines(&daemon.client, SIGN, &unknown).await);
        }
        assert!(daemon.stop().await.unwrap().success());
    }
    assert!(snapshots(&site) > before, "{:?}", site.ledger().entries);
    // And no pages.
    site.database()
        .execute_batch("DROP TABLE base; DROP TABLE row_page; DROP TABLE part; DROP TABLE page; DROP TABLE device_key; PRAGMA user_version = 2;
             CREATE TABLE listed (list INTEGER NOT NULL, device BLOB NOT NULL, template TEXT NOT NULL, counter INTEGER,
             PRIMARY KEY (list, device)) STRICT, WITHOUT ROWID")
        .unwrap();
    site.keep_state("old");
    let version = || site.database().query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap();
    // Cut off before the check was done: it begins again.
    drop(open(&site));
    assert_eq!(version(), 2);
    let daemon = site.start_active().await;
    assert_eq!(version(), 3);
    whole(lines(&daemon.client, SIGN, &ask_for_all(site.main())).await);
    assert!(daemon.stop().await.unwrap().success());
    check_same(&site);
    // One whose rows were edited is not.
    site.bring_back("old");
    site.edit("UPDATE device SET counter = counter - 1 WHERE device = (SELECT min(device) FROM device)", 1);
    let said = state::catch_up(&mut open(&site)).unwrap_err().to_string();
    assert!(said.contains("table device"), "{said}");
    assert_eq!(version(), 2);
}

/// Set in the process that is to be killed: the state directory.
const VICTIM: &str = "SMKID_TEST_SNAPSHOT_VICTIM";

/// Entries between two snapshots of the victim.
const BETWEEN: u64 = 40;

fn key() -> KeyLabel {
    "recovery-1".parse().unwrap()
}

/// Of the entry of this index.
fn row(index: u64) -> (DeviceId, DeviceFacts) {
    let facts = DeviceFacts {
        counter: index,
        determination: DeterminationId([1; 16]),
        template: "all".parse().unwrap(),
        intent: index,
        state: IntentState::Open,
        attempt: 1,
    };
    (DeviceId((index * 7_919 % 5_000).to_be_bytes().into()), facts)
}

/// Writes the tables into the entry.
struct Written(u64);

impl Vouch for Written {
    fn parts(&mut self, put: &mut PutPart<'_>) -> Result<(), StoreError> {
        put("fold", &self.0.to_be_bytes())
    }

    fn leaf(&mut self, tables: &Tables) -> Option<Vec<u8>> {
        Some(serde_json::to_vec(tables).unwrap())
    }

    fn note(&mut self, _head: Head) -> Option<Vec<u8>> {
        Some(b"note".to_vec())
    }
}

/// Appends and takes snapshots until killed, and says what is acknowledged.
fn snapshots_for_ever(directory: &Path) -> ! {
    let mut store = SqliteStore::open(directory, LIMITS).unwrap();
    let mut stdout = std::io::stdout();
    let mut size = store.head().unwrap().size;
    // As a start does.
    let base = store.base().unwrap().size;
    (base..size).for_each(|index| replay(&mut store, index));
    loop {
        let octets = b"{}";
        let (device, facts) = row(size);
        let derived = [Derived::Device { key: &key(), device, row: &facts }];
        let batch = Batch { leaves: &[Leaf::new(octets).unwrap()], derived: &derived, ..Batch::default() };
        size = store.append_at(size, &batch, &mut |_| ()).unwrap().size;
        if size.is_multiple_of(BETWEEN) {
            size = store.snapshot_at(size, &mut Written(size)).unwrap().unwrap().size;
        }
        writeln!(stdout, "acknowledged {size}").unwrap();
        stdout.flush().unwrap();
    }
}

/// What an entry makes of rows; a snapshot makes nothing.
fn replay(store: &mut SqliteStore, index: u64) {
    if store.leaf(index).unwrap() == b"{}" {
        let (device, facts) = row(index);
        store.replay(&[Derived::Device { key: &key(), device, row: &facts }]).unwrap();
    }
}

#[test]
fn a_snapshot_that_was_cut_off_by_sigkill_is_whole_or_was_never_begun() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        snapshots_for_ever(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteStore::create(directory.path(), LIMITS).unwrap());
    let mut random = Seeded::new(6);
    for round in 0..12 {
        let acknowledgements = usize::try_from(random.below(3 * BETWEEN)).unwrap() + 1;
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "snapshots::a_snapshot_that_was_cut_off_by_sigkill_is_whole_or_was_never_begun",
                "--nocapture",
            ])
            .env(VICTIM, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
        let acknowledged = lines
            .filter_map(|line| line.rsplit_once("acknowledged ").map(|(_, size)| size.parse::<u64>().unwrap()))
            .take(acknowledgements)
            .last()
            .unwrap();
        victim.kill().unwrap();
        victim.wait().unwrap();

        let mut store = SqliteStore::open(directory.path(), LIMITS).unwrap();
        let head = store.check_tree().unwrap();
        assert!(head.size >= acknowledged, "round {round}");
        let Base { size: base, snapshot } = store.base().unwrap();
        if let Some(at) = snapshot {
            assert_eq!((at, store.part("fold").unwrap()), (base, Some(at.to_be_bytes().to_vec())));
            assert_eq!(store.latest_checkpoint().unwrap().unwrap().head.size, at + 1);
            let tables: [TableKept; 5] = serde_json::from_slice(&store.leaf(at).unwrap()).unwrap();
            store.believe(&tables, false).unwrap();
        }
        (base..head.size).for_each(|index| replay(&mut store, index));
        // Every page is read and compared; every Device has the row of its last entry.
        let mut last = std::collections::BTreeMap::new();
        for index in (0..head.size).filter(|index| store.leaf(*index).unwrap() == b"{}") {
            let (device, facts) = row(index);
            last.insert(device, facts);
        }
        let found = store.devices_in(&key(), IntentState::Open, None, usize::MAX).unwrap();
        assert_eq!(found, last.into_iter().collect::<Vec<_>>(), "round {round}");
        assert!(!matches!(store.device(&key(), DeviceId([9; 8].into())), Err(StoreError::PageDiffers { .. })));
    }
}

/// A ledger in memory's keys that ends with a snapshot of the state as `lie` has it, which is told the ledger's own public key; under a
/// checkpoint of `by`, or of the ledger's own key. Started from that and then checked whole.
fn checked_beside(
    lie: impl FnOnce(String, &[u8]) -> String,
    by: Option<&Arc<Key>>,
    edit: &str,
) -> Result<bool, String> {
    let directory = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::large(directory.path(), 20);
    fixture.sign_all(0..20, HandOver::AtOnce);
    let ours = fixture.verifier.spki().to_vec();
    fixture.end_with_snapshot(directory.path(), by.cloned(), |kept| lie(kept, &ours));
    if !edit.is_empty() {
        let database = rusqlite::Connection::open(directory.path().join("ledger.db")).unwrap();
        assert!(database.execute(edit, []).unwrap() > 0, "{edit}");
    }
    let mut store = SqliteStore::open(directory.path(), LIMITS).unwrap();
    let (_, unchecked) = state::start(&mut store, &mut |_| ()).map_err(|error| error.to_string())?;
    let unchecked = unchecked.expect("it starts from the snapshot");
    let (reader, scratch) = (store.reader().unwrap(), Scratch::open(directory.path()).unwrap());
    let mut told = Vec::new();
    let checked = state::check_beside(&*reader, scratch.rebuild().unwrap(), unchecked, &mut |at| {
        told.push(at);
        ControlFlow::Continue(())
    });
    assert!(checked.is_err() || told.last() == Some(&unchecked.size()), "{told:?}");
    checked.map_err(|error| error.to_string())
}

#[test]
fn a_snapshot_that_lies_under_the_ledger_key_is_found_by_the_check_beside_the_daemon() {
    assert_eq!(checked_beside(|kept, _| kept, None, ""), Ok(true));
    let fewer = |kept: String, _: &[u8]| {
        let lied = kept.replace("\"intents\":20", "\"intents\":0");
        assert_ne!(lied, kept);
        lied
    };
    let said = checked_beside(fewer, None, "").unwrap_err();
    assert!(said.contains("snapshot") || said.contains("the fold"), "{said}");
    // What a start from a snapshot does not look at.
    for (sql, says) in [
        ("UPDATE list SET len = len + 1", "list"),
        ("UPDATE signature SET released = 0 WHERE intent = (SELECT min(intent) FROM signature)", "table signature"),
        (
            "UPDATE signature SET octets = zeroblob(64) WHERE intent = (SELECT min(intent) FROM signature)",
            "the signature of",
        ),
        ("DELETE FROM signature WHERE intent = (SELECT max(intent) FROM signature)", "the signature of"),
        ("UPDATE leaf SET octets = x'7b7d' WHERE idx = 5", "entry 5"),
        (
            "UPDATE chunk SET octets = CAST(replace(CAST(octets AS TEXT), '\"execute\"', '\"Execute\"') AS BLOB) WHERE CAST(octets AS TEXT) \
             LIKE '%smkid-determination/v1%'",
            "they were edited",
        ),
        (
            "UPDATE chunk SET octets = CAST(replace(CAST(octets AS TEXT), '9001,esme', '9009,esme') AS BLOB) WHERE CAST(octets AS TEXT) LIKE \
             '%9001,esme%'",
            "they were edited",
        ),
    ] {
        let said = checked_beside(|kept, _| kept, None, sql).unwrap_err();
        assert!(said.contains(says), "expected {says:?} in {said}");
    }
}

#[test]
fn a_kept_state_with_a_ledger_key_of_its_own_is_found_whoever_signed_the_checkpoint_over_it() {
    let forger = Arc::new(Key::generate());
    let own_key = |kept: String, ours: &[u8]| {
        // The genesis entry in it stays as it is: that it is the ledger's is compared.
        let (genesis, rest) = kept.split_at(kept.find("\"policies\":").unwrap());
        let theirs = forger.public.to_spki();
        let lied = rest
            .replace(&BASE64.encode(ours), &BASE64.encode(theirs))
            .replace(&Digest::of(ours).to_string(), &Digest::of(&theirs).to_string());
        assert_ne!(lied, rest);
        format!("{genesis}{lied}")
    };
    let said = checked_beside(own_key, Some(&forger), "").unwrap_err();
    assert!(said.contains("the checkpoint of size"), "{said}");
    // Nor is what the ledger key signed believed for longer than it takes to read the ledger.
    let said = checked_beside(own_key, None, "").unwrap_err();
    assert!(said.contains("snapshot") || said.contains("the fold"), "{said}");
}

#[tokio::test]
async fn a_list_of_somebodys_own_is_refused_at_the_start_though_its_page_fits_its_lines() {
    let site = half_signed().await;
    let database = site.database();
    let first = device(0).to_string();
    let (chunk, octets): (i64, Vec<u8>) = database
        .query_row(
            "SELECT chunk.id, chunk.octets FROM list JOIN blob ON blob.digest = list.blob JOIN chunk ON chunk.id = blob.id << 24",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    // Another floor for the counter of the first Device.
    let text = String::from_utf8(octets).unwrap();
    let edited = text.replacen(&format!("{first},esme,7000"), &format!("{first},esme,6000"), 1);
    assert!(edited != text && edited.len() == text.len());
    let mut reader = DeviceListReader::new(&["esme".parse().unwrap()], u64::from(DEVICES));
    reader.feed(edited.as_bytes(), |_| {});
    let (_, pages) = reader.finish_with_pages().unwrap();
    database.execute("UPDATE chunk SET octets = ?1 WHERE id = ?2", (edited.as_bytes(), chunk)).unwrap();
    for page in pages {
        let place = (page.root.0, page.first.0.octets());
        assert_eq!(database.execute("UPDATE page SET root = ?1 WHERE first = ?2", place).unwrap(), 1);
    }
    drop(database);
    let said = state::catch_up(&mut open(&site)).unwrap_err().to_string();
    assert!(said.contains("the store's pages make device list"), "{said}");
}

#[tokio::test]
async fn a_fault_from_before_the_snapshot_ends_the_daemon_and_no_key_is_activated_before() {
    let site = half_signed().await;
    let before = activations(&site);
    site.edit("UPDATE signature SET released = 0 WHERE intent = (SELECT min(intent) FROM signature)", 1);
    // Found at once, or while it serves already.
    match site.try_start().await {
        Ok(daemon) => {
            assert!(site.activate(&daemon.client).await.is_err());
            assert_eq!(wait_for_end(daemon).await, Some(70));
        }
        refused => assert_eq!(Site::refused_start(refused).0, 70),
    }
    assert_eq!(activations(&site), before);
}
