//! The contract of a store, kept by each of them.

use std::collections::BTreeMap;

use super::memory::MemoryStore;
use super::sqlite::SqliteStore;
use super::*;
use crate::domain::ledger::merkle::{self, leaf_hash, verify_consistency, verify_inclusion};
use crate::domain::responses::{DeviceKey, ImportedKey, Outcome, OwnResult, ResultLine};
use crate::domain::time::Timestamp;

/// Room for the octets that the tests name, and for the cost of one upload each.
pub(super) const LIMITS: StagingLimits =
    StagingLimits { account_len_max: 2_000_000 + UPLOAD_COST, total_len_max: 3_000_000 + 2 * UPLOAD_COST };

/// Runs a test against each store, empty.
fn each(test: impl Fn(&mut dyn Store)) {
    test(&mut MemoryStore::new(LIMITS).unwrap());
    let directory = tempfile::tempdir().unwrap();
    test(&mut SqliteStore::create(directory.path(), LIMITS).unwrap());
}

pub(super) fn entry(i: u64) -> Vec<u8> {
    format!("{{\"entry\":{i}}}").into_bytes()
}

/// Appends so many entries of [`entry`], with what belongs to the last.
pub(super) fn append(
    store: &mut dyn Store,
    count: u64,
    blobs: &[&[u8]],
    staged: &[Digest],
    derived: &[Derived<'_>],
) -> Result<Head, StoreError> {
    let size = store.head().unwrap().size;
    let octets: Vec<_> = (size..size + count).map(entry).collect();
    let leaves: Vec<_> = octets.iter().map(|octets| Leaf::new(octets).unwrap()).collect();
    let blobs: Vec<_> = blobs.iter().map(|octets| (Digest::of(octets), *octets)).collect();
    store.append_at(size, &Batch { leaves: &leaves, blobs: &blobs, staged, derived }, &mut |_| ())
}

/// Vouches for whatever it is shown, or not.
pub(super) struct Voucher {
    pub(super) leaf: bool,
    pub(super) note: bool,
    /// What it was shown.
    pub(super) tables: Option<Tables>,
}

impl Voucher {
    pub(super) const fn willing() -> Self {
        Self { leaf: true, note: true, tables: None }
    }
}

impl Vouch for Voucher {
    fn parts(&mut self, put: &mut PutPart<'_>) -> Result<(), StoreError> {
        put("fold", &[1])
    }

    fn leaf(&mut self, tables: &Tables) -> Option<Vec<u8>> {
        self.tables = Some(*tables);
        self.leaf.then(|| entry(u64::MAX))
    }

    fn note(&mut self, _head: Head) -> Option<Vec<u8>> {
        self.note.then(|| b"note".to_vec())
    }
}

/// Takes a snapshot of a store of this size.
pub(super) fn keep(store: &mut dyn Store, size: u64) -> Result<Head, StoreError> {
    store.snapshot_at(size, &mut Voucher::willing()).map(|taken| taken.unwrap())
}

pub(super) fn key() -> KeyLabel {
    "recovery-1".parse().unwrap()
}

pub(super) fn device(i: u64) -> DeviceId {
    DeviceId(i.to_be_bytes().into())
}

pub(super) fn row(intent: u64, state: IntentState) -> DeviceFacts {
    DeviceFacts {
        counter: u64::MAX - intent,
        determination: DeterminationId([3; 16]),
        template: "suppliers".parse().unwrap(),
        intent,
        state,
        attempt: 1,
    }
}

pub(super) fn list(devices: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let line = |i| if i % 2 == 0 { format!("{},even,{i}\n", device(i)) } else { format!("{},odd\n", device(i)) };
    devices.into_iter().map(line).collect::<String>().into_bytes()
}

pub(super) fn request(last_batch: u64) -> RequestFacts {
    RequestFacts { asked: Digest::of(b"request"), first_batch: 4, last_batch }
}

fn read(reader: &dyn Reader, digest: Digest) -> std::io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    reader.open_blob(digest).unwrap().read_to_end(&mut octets)?;
    Ok(octets)
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(ms).unwrap()
}

fn stage(store: &dyn Store, account: &str, octets: &[u8]) -> Result<Digest, StagingError> {
    store.staging().stage(account, at(1000), u64::MAX, &mut &octets[..]).map(|(digest, len)| {
        assert_eq!((digest, len), (Digest::of(octets), octets.len() as u64));
        digest
    })
}

#[test]
fn what_is_held_for_reading_is_let_go_before_each_write() {
    each(|store| {
        store.hold().unwrap();
        store.hold().unwrap();
        assert_eq!(store.head().unwrap(), Head::empty());
        let head = append(store, 3, &[], &[], &[]).unwrap();
        store.hold().unwrap();
        store.put_checkpoint(head, b"note").unwrap();
        // Another handle sees both, so nothing of them waits in an open transaction.
        let reader = store.reader().unwrap();
        assert_eq!(reader.head().unwrap(), head);
        assert_eq!(reader.latest_checkpoint().unwrap().map(|checkpoint| checkpoint.head), Some(head));
        store.hold().unwrap();
        store.let_go().unwrap();
        store.let_go().unwrap();
        store.hold().unwrap();
        store.rebuild().unwrap().compare_and_finish().unwrap();
    });
}

#[test]
fn an_empty_ledger_has_the_empty_root() {
    each(|store| {
        assert_eq!(store.head().unwrap(), Head::empty());
        assert_eq!(store.check_tree().unwrap(), Head::empty());
        assert!(matches!(store.leaf(0), Err(StoreError::Merkle(MerkleError::NoSuchLeaf { index: 0, size: 0 }))));
        assert_eq!(store.latest_checkpoint().unwrap(), None);
    });
}

#[test]
fn what_is_appended_is_read_back_in_order_under_the_tree_s_root() {
    each(|store| {
        let mut frontier = Frontier::new();
        for count in [1, 2, 250, 3, 256, 300] {
            frontier.extend((frontier.size()..frontier.size() + count).map(|i| leaf_hash(&entry(i))));
            assert_eq!(append(store, count, &[], &[], &[]).unwrap(), frontier.head());
        }
        assert_eq!(store.head().unwrap(), frontier.head());
        assert_eq!(store.check_tree().unwrap(), frontier.head());
        let mut next = 5;
        store
            .leaves(5..700, &mut |leaf| {
                assert_eq!((leaf.index, leaf.octets), (next, entry(next).as_slice()));
                next += 1;
                if next == 600 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(next, 600);
        assert_eq!(store.leaf(811).unwrap(), entry(811));
        for range in [0..813, 812..813, 900..901] {
            assert!(store.leaves(range.clone(), &mut |_| ControlFlow::Continue(())).is_err(), "{range:?}");
            assert!(store.leaf_hashes(range, &mut |_| ()).is_err());
        }
        store.leaves(900..900, &mut |_| panic!("an empty range has no entries")).unwrap();
    });
}

#[test]
fn proofs_come_from_a_few_stored_hashes_and_verify() {
    each(|store| {
        append(store, 1000, &[], &[], &[]).unwrap();
        for size in [1, 255, 256, 257, 512, 700, 1000] {
            let head = Head { size, root: store.root_at(size).unwrap() };
            let octets: Vec<_> = (0..size).map(entry).collect();
            assert_eq!(head, merkle::head_of(octets.iter().map(Vec::as_slice)));
            for index in [0, size / 2, size - 1] {
                let path = store.inclusion_path(index, size).unwrap();
                verify_inclusion(leaf_hash(&entry(index)), index, &head, &path).unwrap();
                assert_eq!(store.leaf_under(index, &head).unwrap(), entry(index));
                let other = Head { root: leaf_hash(b"another"), ..head };
                assert!(matches!(store.leaf_under(index, &other), Err(StoreError::HeadCorrupt { .. })));
            }
            let path = store.consistency_path(size, 1000).unwrap();
            verify_consistency(&head, &store.head().unwrap(), &path).unwrap();
        }
        assert!(store.root_at(1001).is_err());
        assert!(store.inclusion_path(0, 1001).is_err());
    });
}

#[test]
fn a_ledger_that_has_moved_on_takes_nothing() {
    each(|store| {
        append(store, 3, &[], &[], &[]).unwrap();
        for expected in [0, 2, 4] {
            let octets = entry(3);
            let leaves = [Leaf::new(&octets).unwrap()];
            let blobs = [(Digest::of(b"blob"), &b"blob"[..])];
            let batch = Batch { leaves: &leaves, blobs: &blobs, ..Batch::default() };
            let result =
                store.append_at(expected, &batch, &mut |head| panic!("a head of {} entries is coming", head.size));
            assert!(matches!(result, Err(StoreError::SizeMoved { expected: e, found: 3 }) if e == expected));
            assert_eq!(store.head().unwrap().size, 3);
            assert_eq!(store.blob_len(Digest::of(b"blob")).unwrap(), None);
        }
        assert!(matches!(store.append_at(3, &Batch::default(), &mut |_| ()), Err(StoreError::NoLeaves)));
    });
}

#[test]
fn the_head_that_a_batch_leads_to_is_told_once_before_it_is_there() {
    each(|store| {
        append(store, 3, &[], &[], &[]).unwrap();
        let octets = [entry(3), entry(4)];
        let leaves = octets.each_ref().map(|octets| Leaf::new(octets).unwrap());
        let mut told = Vec::new();
        let head =
            store.append_at(3, &Batch { leaves: &leaves, ..Batch::default() }, &mut |head| told.push(head)).unwrap();
        assert_eq!((told.as_slice(), head.size), ([head].as_slice(), 5));
        // Told, and come to nothing: another one follows at the same size.
        let missing = [Digest::of(b"never uploaded")];
        let comes_to_nothing = Batch { leaves: &leaves, staged: &missing, ..Batch::default() };
        assert!(store.append_at(5, &comes_to_nothing, &mut |head| told.push(head)).is_err());
        assert_eq!((told.len(), told[1].size, store.head().unwrap()), (2, 7, head));
    });
}

#[test]
fn a_batch_that_fails_at_its_last_part_leaves_nothing_of_it() {
    each(|store| {
        let uploaded = stage(store, "a", b"uploaded").unwrap();
        let (good, bad) = (list(0..5), b"00DB\n".to_vec());
        let twice = list([1, 2, 2]);
        let unended = list([1]).strip_suffix(b"\n").unwrap().to_vec();
        append(
            store,
            3,
            &[&good, &bad, &twice, &unended],
            &[],
            &[Derived::Signature { intent: 1, octets: &[7; 64], released: false }],
        )
        .unwrap();
        let before = store.head().unwrap();
        let determination = DeterminationId([1; 16]);
        let import = |octets: &[u8]| Derived::List { determination, blob: Digest::of(octets), pages: None };
        let intended = row(3, IntentState::Open);
        let first = Derived::Device { key: &key(), device: device(1), row: &intended };
        let mut refused = |last: Derived<'_>, staged: &[Digest], expected: &str| {
            let derived =
                [first, Derived::Signature { intent: 2, octets: &[8; 64], released: false }, import(&good), last];
            let error = append(store, 2, &[b"small"], staged, &derived).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(import(&good), &[uploaded], "device list already");
        refused(
            Derived::Signature { intent: 1, octets: &[7; 64], released: false },
            &[uploaded],
            "recorded signature already",
        );
        let other = |octets: &[u8]| Derived::List {
            determination: DeterminationId([2; 16]),
            blob: Digest::of(octets),
            pages: None,
        };
        refused(other(&bad), &[uploaded], "line 1: expected EUI64,template");
        refused(other(&twice), &[uploaded], "line 3: Device 0000000000000002 stands there twice");
        refused(other(&unended), &[uploaded], "line 1: expected UTF-8");
        refused(other(b"nowhere"), &[uploaded], "not in the store");
        refused(Derived::Released { from: 2, until: 3 }, &[uploaded, Digest::of(b"never")], "not staged");

        assert_eq!(store.head().unwrap(), before);
        assert_eq!(store.check_tree().unwrap(), before);
        assert_eq!(store.blob_len(Digest::of(b"small")).unwrap(), None);
        assert_eq!(store.blob_len(uploaded).unwrap(), None);
        assert_eq!(store.staging().len(uploaded), Some(8));
        assert_eq!(store.device(&key(), device(1)).unwrap(), None);
        assert_eq!(store.signature(2).unwrap(), None);
        assert_eq!(store.listed_count(determination).unwrap(), None);
        assert_eq!(store.listed_from(determination, None, 9).unwrap(), []);
        append(store, 1, &[], &[uploaded], &[first, import(&good)]).unwrap();
        assert_eq!(store.listed_count(determination).unwrap(), Some(5));
    });
}

#[test]
fn a_reader_on_another_thread_sees_what_is_appended_after_it_was_opened() {
    each(|store| {
        let reader = store.reader().unwrap();
        append(store, 300, &[b"blob"], &[], &[]).unwrap();
        let head = store.head().unwrap();
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    assert_eq!(reader.head().unwrap(), head);
                    assert_eq!(reader.check_tree().unwrap(), head);
                    assert_eq!(read(&*reader, Digest::of(b"blob")).unwrap(), b"blob");
                })
                .join()
                .unwrap();
        });
    });
}

#[test]
fn checkpoints_are_those_of_our_own_heads_and_the_first_of_a_size_stays() {
    each(|store| {
        let first = append(store, 3, &[], &[], &[]).unwrap();
        let second = append(store, 300, &[], &[], &[]).unwrap();
        store.put_checkpoint(second, b"second").unwrap();
        store.put_checkpoint(first, b"first").unwrap();
        store.put_checkpoint(first, b"first again").unwrap();
        let stored = |head, note: &[u8]| StoredCheckpoint { head, note: note.to_vec() };
        assert_eq!(store.latest_checkpoint().unwrap(), Some(stored(second, b"second")));
        assert_eq!(store.checkpoints(0, 9).unwrap(), [stored(first, b"first"), stored(second, b"second")]);
        assert_eq!(store.checkpoints(0, 1).unwrap(), [stored(first, b"first")]);
        assert_eq!(store.checkpoints(4, 9).unwrap(), [stored(second, b"second")]);
        let other = Head { root: first.root, ..second };
        assert!(matches!(store.put_checkpoint(other, b"x"), Err(StoreError::CheckpointMismatch { size: 303, .. })));
        let other = Head { size: 2, ..first };
        assert!(matches!(store.put_checkpoint(other, b"x"), Err(StoreError::CheckpointMismatch { size: 2, .. })));
        assert!(store.put_checkpoint(Head { size: 304, ..second }, b"x").is_err());
    });
}

#[test]
fn blobs_of_any_length_come_out_as_they_went_in() {
    each(|store| {
        for len in [0, 1, 262_143, 262_144, 262_145, 700_000] {
            let octets: Vec<u8> = (0..len).map(|i: u32| (i % 251) as u8).collect();
            let digest = stage(store, "a", &octets).unwrap();
            assert_eq!(store.blob_len(digest).unwrap(), None, "an upload is not in the store before an entry names it");
            assert!(store.open_blob(digest).is_err());
            append(store, 1, &[], &[digest], &[]).unwrap();
            assert_eq!(store.blob_len(digest).unwrap(), Some(u64::from(len)));
            assert_eq!(read(store, digest).unwrap(), octets);
            assert_eq!(store.staging().len(digest), None);
            // Named by a further entry, uploaded anew or not, as a small blob or a large one: one blob.
            append(store, 1, &[&octets, &octets], &[digest], &[]).unwrap();
            assert_eq!(read(store, digest).unwrap(), octets);
        }
    });
}

#[test]
fn a_quota_counts_what_waits_of_an_account_and_a_budget_what_waits_of_all() {
    each(|store| {
        let octets = |len: u64, fill: u8| vec![fill; usize::try_from(len).unwrap()];
        let first = stage(store, "a", &octets(2_000_000, 1)).unwrap();
        assert!(matches!(stage(store, "a", b"x"), Err(StagingError::AccountQuota { .. })));
        let rest = 1_000_000;
        assert!(matches!(stage(store, "b", &octets(rest + 1, 2)), Err(StagingError::Budget { .. })));
        stage(store, "b", &octets(rest, 2)).unwrap();
        assert!(matches!(stage(store, "c", b"x"), Err(StagingError::Budget { .. })));
        append(store, 1, &[], &[first], &[]).unwrap();
        stage(store, "a", &octets(2_000_000, 3)).unwrap();
        assert_eq!(store.staging().expire(at(1000)), 0);
        assert_eq!(store.staging().expire(at(1001)), 2);
        assert!(store.staging().is_empty());
        // Once more by another account: it is then that account's.
        stage(store, "a", &octets(2_000_000, 4)).unwrap();
        store.staging().expire(at(1001));
        stage(store, "a", b"same").unwrap();
        stage(store, "b", b"same").unwrap();
        stage(store, "a", &octets(2_000_000, 5)).unwrap();
    });
}

#[test]
fn many_small_uploads_use_up_a_quota_too_and_dropping_them_gives_all_of_it_back() {
    each(|store| {
        let most = LIMITS.account_len_max / (UPLOAD_COST + 8);
        for n in 0..most {
            stage(store, "a", &n.to_be_bytes()).unwrap();
        }
        assert!(matches!(stage(store, "a", &most.to_be_bytes()), Err(StagingError::AccountQuota { .. })));
        store.staging().expire(at(1001));
        stage(store, "a", &vec![0; 2_000_000]).unwrap();
    });
}

#[test]
fn an_upload_that_an_entry_is_about_to_adopt_does_not_expire() {
    each(|store| {
        let (meant, other) = (stage(store, "a", b"meant").unwrap(), stage(store, "a", b"other").unwrap());
        assert!(store.staging().claim(meant));
        // Once more by somebody: it is still meant.
        stage(store, "b", b"meant").unwrap();
        assert_eq!(store.staging().expire(at(1001)), 1);
        assert!(!store.staging().claim(other));
        append(store, 1, &[], &[meant], &[]).unwrap();
        assert_eq!(read(store, meant).unwrap(), b"meant");
        assert!(!store.staging().claim(meant), "it is in the store now, and waits no longer");
    });
}

#[test]
fn an_upload_too_long_or_broken_off_leaves_nothing() {
    each(|store| {
        let staging = store.staging();
        assert!(staging.stage("a", at(0), 5, &mut &b"12345"[..]).is_ok());
        assert!(matches!(staging.stage("a", at(0), 5, &mut &b"123456"[..]), Err(StagingError::TooLong { len_max: 5 })));
        let mut upload = staging.begin("b", at(0), u64::MAX).unwrap();
        upload.write(&vec![0; 2_000_000]).unwrap();
        assert!(stage(store, "b", b"x").is_err());
        drop(upload);
        stage(store, "b", &vec![0; 2_000_000]).unwrap();
        assert_eq!(staging.len(Digest::of(b"12345")), Some(5));
        assert_eq!(staging.len(Digest::of(b"123456")), None);
    });
}

#[test]
fn the_last_row_of_a_device_is_the_one_that_counts() {
    each(|store| {
        let put = |store: &mut dyn Store, device, row: &DeviceFacts| {
            append(store, 1, &[], &[], &[Derived::Device { key: &key(), device, row }]).unwrap();
        };
        for (i, state) in (0..).zip(IntentState::ALL) {
            put(store, device(i), &row(i, IntentState::Open));
            put(store, device(i), &row(i, state));
            assert_eq!(store.device(&key(), device(i)).unwrap(), Some(row(i, state)));
        }
        put(store, device(u64::MAX), &row(9, IntentState::Unknown));
        let other: KeyLabel = "contingency".parse().unwrap();
        assert_eq!(store.device(&other, device(1)).unwrap(), None);
        let found = store.devices(&key(), &[device(2), device(7), device(0)]).unwrap();
        assert_eq!(found, [Some(row(2, IntentState::Failed)), None, Some(row(0, IntentState::Open))]);
        let ids = |state, after, limit| -> Vec<_> {
            let found = store.devices_in(&key(), state, after, limit).unwrap();
            assert!(found.iter().all(|(_, row)| row.state == state));
            found.into_iter().map(|(device, _)| device).collect()
        };
        assert_eq!(ids(IntentState::Open, None, 9), [device(0)]);
        assert_eq!(ids(IntentState::Open, Some(device(0)), 9), []);
        assert_eq!(ids(IntentState::Signed, None, 9), [device(1)]);
        assert_eq!(ids(IntentState::Unknown, None, 9), [device(4), device(u64::MAX)]);
        assert_eq!(ids(IntentState::Unknown, None, 1), [device(4)]);
        assert_eq!(ids(IntentState::Unknown, Some(device(4)), 9), [device(u64::MAX)]);
        assert_eq!(store.devices_in(&other, IntentState::Unknown, None, 9).unwrap(), []);
    });
}

#[test]
fn a_device_list_is_read_by_device_and_in_order() {
    each(|store| {
        let (determination, octets) = (DeterminationId([1; 16]), list((0..3000).chain([u64::MAX])));
        let digest = stage(store, "a", &octets).unwrap();
        append(store, 1, &[], &[digest], &[Derived::List { determination, blob: digest, pages: None }]).unwrap();
        assert_eq!(store.listed_count(determination).unwrap(), Some(3001));
        let listed = |i: u64| {
            let (template, counter) = if i.is_multiple_of(2) { ("even", Some(i)) } else { ("odd", None) };
            Listed { device: device(i), template: template.parse().unwrap(), counter }
        };
        assert_eq!(store.listed(determination, device(4)).unwrap(), Some(listed(4)));
        assert_eq!(store.listed(determination, device(u64::MAX)).unwrap(), Some(listed(u64::MAX)));
        assert_eq!(store.listed(determination, device(3000)).unwrap(), None);
        assert_eq!(store.listed(DeterminationId([2; 16]), device(4)).unwrap(), None);
        let many = store.listed_many(determination, &[device(3000), device(5)]).unwrap();
        assert_eq!(many, [None, Some(listed(5))]);
        assert_eq!(store.listed_many(DeterminationId([2; 16]), &[device(5)]).unwrap(), [None]);
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = store.listed_from(determination, after, 7).unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.device);
            all.extend(page);
        }
        assert_eq!(all, (0..3000).chain([u64::MAX]).map(listed).collect::<Vec<_>>());
    });
}

#[test]
fn a_signature_is_recorded_once_and_released_after() {
    each(|store| {
        append(store, 1, &[], &[], &[Derived::Signature { intent: 5, octets: &[7; 64], released: false }]).unwrap();
        assert_eq!(store.signature(5).unwrap(), Some(SignatureRow { octets: [7; 64], released: false }));
        assert_eq!(store.signature(6).unwrap(), None);
        append(store, 1, &[], &[], &[Derived::Released { from: 5, until: 6 }]).unwrap();
        assert_eq!(store.signature(5).unwrap(), Some(SignatureRow { octets: [7; 64], released: true }));
    });
}

#[test]
fn a_request_is_found_by_its_id() {
    each(|store| {
        let id = RequestId([6; 16]);
        assert_eq!(store.request(id).unwrap(), None);
        for row in [request(4), request(u64::MAX)] {
            append(store, 1, &[], &[], &[Derived::Request { id, row: &row }]).unwrap();
            assert_eq!(store.request(id).unwrap(), Some(row));
        }
    });
}

#[test]
fn a_command_that_another_counter_overtakes_is_found_by_its_counter_if_it_may_be_signed() {
    each(|store| {
        let key = key();
        let of = |counter, intent, state| DeviceFacts { counter, ..row(intent, state) };
        let mut put = |n, counter, intent, state| {
            let row = of(counter, intent, state);
            let derived = [Derived::Device { key: &key, device: device(n), row: &row }];
            append(store, 1, &[], &[], &derived).unwrap();
        };
        put(1, 7, 3, IntentState::Open);
        put(1, 7, 3, IntentState::Signed);
        put(1, 9, 5, IntentState::Open);
        // A further attempt has the same counter, and what was never signed is no command.
        put(2, 7, 4, IntentState::Unknown);
        put(2, 7, 6, IntentState::Open);
        put(3, 7, 8, IntentState::NotSigned);
        put(3, 8, 9, IntentState::Open);
        let found = |n, counter| store.earlier(&key, device(n), counter).unwrap();
        assert_eq!([found(1, 7), found(1, 9), found(1, 8)], [Some(3), None, None]);
        assert_eq!([found(2, 7), found(3, 7), found(3, 8)], [None, None, None]);
    });
}

#[test]
fn what_devices_answered_is_kept_for_each_determination_and_device() {
    let lines = format!(
        "-,-,malformed,octet 3\n{},7,failed,a: x\n{},8,recovered\n{},-,foreign,counter 88: x\n{},-,unverified,x\n",
        device(1),
        device(2),
        device(2),
        device(3)
    );
    let later = format!("{},7,contradiction,both\n", device(1));
    let [lines, later] =
        [lines, later].map(|text| text.lines().map(|line| ResultLine::parse(line).unwrap()).collect::<Vec<_>>());
    each(|store| {
        let take = |determination, entry, lines| Derived::Responses {
            determination: DeterminationId([determination; 16]),
            entry,
            lines,
        };
        append(store, 1, &[], &[], &[take(1, 0, &lines)]).unwrap();
        append(store, 1, &[], &[], &[take(1, 1, &later)]).unwrap();
        let found = |determination, n| store.responded(DeterminationId([determination; 16]), device(n)).unwrap();
        let own =
            |entry, intent, outcome, detail: &str| Some(OwnResult { entry, intent, outcome, detail: detail.into() });
        assert_eq!(found(1, 1).unwrap().own, own(1, 7, Outcome::Contradiction, "both"));
        let second = Responded { own: own(0, 8, Outcome::Recovered, ""), foreign: Some(88) };
        assert_eq!(found(1, 2), Some(second));
        assert_eq!((found(1, 3), found(2, 1)), (None, None));
        let mut rebuild = store.rebuild().unwrap();
        rebuild.apply(&[take(1, 0, &lines), take(1, 1, &later)]).unwrap();
        rebuild.compare_and_finish().unwrap();
        let mut rebuild = store.rebuild().unwrap();
        rebuild.apply(&[take(1, 0, &lines)]).unwrap();
        let differs = rebuild.compare_and_finish();
        assert!(matches!(differs, Err(StoreError::DerivedDiffers { table: "response", .. })), "{differs:?}");
    });
}

#[test]
fn what_a_device_says_stands_over_what_it_said_before_and_a_snapshot_between_them_alters_nothing() {
    let said = ["-,foreign,counter 88: x", "7,recovered", "7,contradiction,both", "-,foreign,counter 89: x"];
    let said = said.map(|line| [ResultLine::parse(&format!("{},{line}", device(1))).unwrap()]);
    let id = DeterminationId([1; 16]);
    each(|store| {
        let (mut expected, mut all) = (Responded::default(), Vec::new());
        for (entry, lines) in (0..).zip(&said) {
            all.push(Derived::Responses { determination: id, entry, lines });
            append(store, 1, &[], &[], &all[all.len() - 1..]).unwrap();
            assert!(expected.absorb(&lines[0], entry));
            assert_eq!(store.responded(id, device(1)).unwrap().as_ref(), Some(&expected));
            if entry != 1 {
                let size = store.head().unwrap().size;
                keep(store, size).unwrap();
            }
            assert_eq!(store.responded(id, device(1)).unwrap().as_ref(), Some(&expected));
        }
        let mut rebuild = store.rebuild().unwrap();
        rebuild.apply(&all).unwrap();
        rebuild.compare_and_finish().unwrap();
    });
}

#[test]
fn the_keys_of_devices_are_only_added_and_each_keeps_the_entry_that_it_came_with() {
    let moment = |text: &str| text.parse::<Timestamp>().unwrap();
    let of = |n, octet, until| DeviceKey {
        device: device(n),
        point: std::array::from_fn(|at| if at == 0 { 4 } else { octet }),
        device_ca: Digest([9; 32]),
        from: moment("2026-01-01T00:00:00Z"),
        until: moment(until),
    };
    let (short, long) = ("2026-12-31T23:59:59Z", "9999-12-31T23:59:59Z");
    let (first, second) = ([of(1, 1, short), of(2, 2, long)], [of(1, 1, long), of(1, 3, short)]);
    each(|store| {
        assert!(!store.has_device_keys().unwrap());
        let add = |entry, keys| Derived::DeviceKeys { entry, keys };
        append(store, 1, &[], &[], &[add(0, &first)]).unwrap();
        append(store, 1, &[], &[], &[add(1, &second)]).unwrap();
        assert!(store.has_device_keys().unwrap());
        let mut found = store.device_keys(device(1)).unwrap();
        found.sort();
        let known = |key, entry| ImportedKey { key, entry };
        assert_eq!(found, [known(first[0], 0), known(second[0], 1), known(second[1], 1)]);
        assert_eq!(store.device_keys(device(2)).unwrap(), [known(first[1], 0)]);
        assert_eq!(store.device_keys(device(3)).unwrap(), []);
        let mut rebuild = store.rebuild().unwrap();
        rebuild.apply(&[add(0, &first), add(1, &second)]).unwrap();
        assert!(rebuild.has_device_keys().unwrap());
        rebuild.compare_and_finish().unwrap();
        let mut rebuild = store.rebuild().unwrap();
        rebuild.apply(&[add(0, &first)]).unwrap();
        let differs = rebuild.compare_and_finish();
        assert!(matches!(differs, Err(StoreError::DerivedDiffers { table: "device_key", .. })), "{differs:?}");
    });
}

/// What the rebuilding tests apply: one of each kind, with changes of rows.
fn history(blobs: &[Vec<u8>; 2], then: impl FnOnce(&[Derived<'_>])) {
    let (intended, signed) = (row(2, IntentState::Open), row(2, IntentState::Signed));
    let (open, done) = (request(4), request(9));
    let (key, id) = (key(), RequestId([6; 16]));
    let list = |n: u8, octets: &[u8]| Derived::List {
        determination: DeterminationId([n; 16]),
        blob: Digest::of(octets),
        pages: None,
    };
    then(&[
        list(9, &blobs[0]),
        list(1, &blobs[1]),
        Derived::Request { id, row: &open },
        Derived::Device { key: &key, device: device(1), row: &intended },
        Derived::Device { key: &key, device: device(2), row: &intended },
        Derived::Signature { intent: 2, octets: &[7; 64], released: false },
        Derived::Device { key: &key, device: device(1), row: &signed },
        Derived::Released { from: 2, until: 3 },
        Derived::Request { id, row: &done },
    ]);
}

#[test]
fn derived_state_made_again_must_be_what_the_store_has() {
    let blobs = [list(0..10), list([3, 4])];
    each(|store| {
        let [first, second] = &blobs;
        history(&blobs, |derived| {
            append(store, 1, &[first, second], &[], derived).unwrap();
            let mut rebuild = store.rebuild().unwrap();
            assert_eq!(rebuild.device(&key(), device(1)).unwrap(), None, "nothing of the store's shows through");
            for one in derived {
                rebuild.apply(std::slice::from_ref(one)).unwrap();
            }
            assert_eq!(rebuild.device(&key(), device(1)).unwrap(), Some(row(2, IntentState::Signed)));
            assert_eq!(rebuild.listed(DeterminationId([1; 16]), device(4)).unwrap().unwrap().counter, Some(4));
            assert_eq!(rebuild.devices_in(&key(), IntentState::Open, None, 9).unwrap().len(), 1);
            rebuild.compare_and_finish().unwrap();

            // Any one operation left out is noticed, and in the table that it is about.
            for skipped in 0..derived.len() {
                let mut rebuild = store.rebuild().unwrap();
                let mut rest = derived.iter().enumerate().filter(|(i, _)| *i != skipped);
                let applied = rest.try_for_each(|(_, one)| rebuild.apply(std::slice::from_ref(one)));
                let table = match (derived[skipped], applied) {
                    (Derived::List { .. }, Ok(())) => "list",
                    // The rows before the last of their kind are replaced, so that leaving them out changes nothing.
                    (Derived::Request { row, .. }, Ok(())) if row.last_batch == 4 => continue,
                    (Derived::Request { .. }, Ok(())) => "request",
                    (Derived::Device { device: d, row, .. }, Ok(()))
                        if d == device(1) && row.state == IntentState::Open =>
                    {
                        continue;
                    }
                    (Derived::Device { .. }, Ok(())) => "device",
                    (Derived::Released { .. } | Derived::Signature { .. }, Ok(())) => "signature",
                    other => panic!("{other:?}"),
                };
                match rebuild.compare_and_finish() {
                    Err(StoreError::DerivedDiffers { table: found, .. }) => {
                        assert!(found.starts_with(table), "{found}");
                    }
                    other => panic!("{skipped}: {other:?}"),
                }
            }

            // One row too many is noticed too; a rebuild given up does not disturb the next.
            drop(store.rebuild().unwrap());
            let mut rebuild = store.rebuild().unwrap();
            rebuild.apply(derived).unwrap();
            rebuild
                .apply(&[Derived::Device { key: &key(), device: device(77), row: &row(2, IntentState::Failed) }])
                .unwrap();
            let error = rebuild.compare_and_finish().unwrap_err();
            assert!(error.to_string().contains("the store has nothing"), "{error}");
        });
    });
}

#[test]
fn a_rebuild_may_be_made_while_a_reader_streams_the_entries() {
    each(|store| {
        let rows: BTreeMap<u64, DeviceFacts> = (0..500).map(|i| (i, row(i, IntentState::Open))).collect();
        for (i, row) in &rows {
            append(store, 1, &[], &[], &[Derived::Device { key: &key(), device: device(i % 50), row }]).unwrap();
        }
        let (reader, key) = (store.reader().unwrap(), key());
        let size = reader.head().unwrap().size;
        let mut rebuild = store.rebuild().unwrap();
        reader
            .leaves(0..size, &mut |leaf| {
                let row = &rows[&leaf.index];
                rebuild.apply(&[Derived::Device { key: &key, device: device(leaf.index % 50), row }]).unwrap();
                ControlFlow::Continue(())
            })
            .unwrap();
        rebuild.compare_and_finish().unwrap();
        append(store, 1, &[], &[], &[]).unwrap();
    });
}

/// Rows of every table, some of them twice.
fn many(store: &mut dyn Store, seed: u64, count: u64) {
    let key = key();
    for i in 0..count {
        let at = (i * 7_919 + seed) % count;
        let rows = [row(i, IntentState::Open), row(i, IntentState::Signed), row(count + i, IntentState::Open)];
        let asked = request(i);
        let mut derived = vec![Derived::Request { id: RequestId([u8::try_from(i % 50).unwrap(); 16]), row: &asked }];
        derived.extend(rows.iter().map(|row| Derived::Device { key: &key, device: device(at), row }));
        append(store, 1, &[], &[], &derived).unwrap();
    }
}

#[test]
fn a_snapshot_commits_to_the_rows_whenever_it_is_taken() {
    // Once at the end, and often on the way: the last ones say the same, in each store.
    let mut said: Vec<Tables> = Vec::new();
    let last = std::cell::RefCell::new(&mut said);
    each(|store| {
        for often in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let mut fresh = SqliteStore::create(directory.path(), LIMITS).unwrap();
            let store: &mut dyn Store = if often { &mut fresh } else { &mut *store };
            for part in 0..4 {
                many(store, part, 300);
                if often {
                    let size = store.head().unwrap().size;
                    keep(store, size).unwrap();
                    assert_eq!(store.waiting(), 0);
                }
            }
            let (size, mut voucher) = (store.head().unwrap().size, Voucher::willing());
            store.snapshot_at(size, &mut voucher).unwrap().unwrap();
            last.borrow_mut().extend(voucher.tables);
        }
    });
    assert_eq!(said[0].map(|table| table.rows), [300, 50, 2_100, 0, 0]);
    assert!(said.iter().all(|tables| *tables == said[0]), "{said:?}");
}

#[test]
fn a_snapshot_alters_nothing_that_is_read_and_one_that_nobody_vouches_for_is_undone() {
    each(|store| {
        many(store, 1, 40);
        let key = key();
        let read = |store: &dyn Store| {
            let devices: Vec<_> = (0..41).map(|i| store.device(&key, device(i)).unwrap()).collect();
            let open = store.devices_in(&key, IntentState::Open, Some(device(3)), 10).unwrap();
            let asked = store.request(RequestId([3; 16])).unwrap();
            (devices, open, asked, store.earlier(&key, device(1), u64::MAX).unwrap())
        };
        let (before, head) = (read(store), store.head().unwrap());
        for voucher in [Voucher { leaf: false, ..Voucher::willing() }, Voucher { note: false, ..Voucher::willing() }] {
            let mut voucher = voucher;
            assert_eq!(store.snapshot_at(40, &mut voucher).unwrap(), None);
            assert_eq!((store.head().unwrap(), store.part("fold").unwrap()), (head, None));
            assert_eq!(store.latest_checkpoint().unwrap(), None);
            assert_eq!(read(store), before);
        }
        let taken = store.snapshot_at(40, &mut Voucher::willing()).unwrap().unwrap();
        assert_eq!((taken, store.part("fold").unwrap()), (store.head().unwrap(), Some(vec![1])));
        assert_eq!(store.latest_checkpoint().unwrap().unwrap().head, taken);
        assert_eq!(read(store), before);
        assert!(matches!(keep(store, 40), Err(StoreError::SizeMoved { expected: 40, found: 41 })));
        assert_eq!(store.check_tree().unwrap(), taken);
    });
}
