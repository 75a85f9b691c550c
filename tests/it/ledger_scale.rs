//! A ledger of some thousand entries: verified on several threads, exported again and again, and searched.

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;

use smkid::cli::contingency_command::ContingencyCommand;
use smkid::cli::ledger_export::{ExportError, Exported, Source, StoreSource, export, export_keeping};
use smkid::cli::ledger_verify::{LedgerVerify, VerifyError, verify_on};
use smkid::cli::print::Output;
use smkid::domain::ledger::entry::{Entry, Event};
use smkid::domain::names::{DeviceId, Digest};

use crate::audit::files;
use crate::support::ledger_fixture::large::HandOver;
use crate::support::ledger_fixture::{Fixture, numbered};

const RECORD_LEN: usize = 72;

/// A large ledger, and exports of it.
struct Large {
    folder: tempfile::TempDir,
    fixture: Fixture,
}

impl Large {
    fn new(devices: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        let fixture = Fixture::large(&folder.path().join("state"), devices);
        fs::write(folder.path().join("ledger.vkey"), fixture.verifier.vkey()).unwrap();
        Self { folder, fixture }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn export(&self, name: &str) -> Exported {
        export(&StoreSource(&*self.fixture.reader()), &self.path(name)).unwrap()
    }

    /// What is wrong with an export, if anything: the same on any number of threads, in full and of the tree alone.
    #[track_caller]
    fn wrong(&self, name: &str, tree_only: bool) -> Option<String> {
        let args = LedgerVerify {
            dir: self.path(name),
            key: self.path("ledger.vkey"),
            genesis: self.fixture.genesis,
            checkpoint: None,
            tree_only,
            contingency: ContingencyCommand::default(),
            output: Output::Text,
        };
        let found = [1, 2, 5].map(|threads| match verify_on(&args, NonZeroUsize::new(threads).unwrap()) {
            Ok(_) => None,
            Err(VerifyError::Wrong(error)) => Some(error.to_string()),
            Err(error) => panic!("{error}"),
        });
        assert!(found.iter().all(|other| *other == found[0]), "{found:?}");
        found[0].clone()
    }

    /// Alters a file for as long as something is done.
    fn altered<R>(&self, file: &str, alter: impl FnOnce(&mut Vec<u8>), then: impl FnOnce() -> R) -> R {
        let path = self.path(file);
        let before = fs::read(&path).unwrap();
        let mut octets = before.clone();
        alter(&mut octets);
        fs::write(&path, octets).unwrap();
        let done = then();
        fs::write(&path, before).unwrap();
        done
    }

    fn entry(&self, index: u64) -> Entry {
        Entry::from_leaf(&self.fixture.reader().leaf(index).unwrap()).unwrap()
    }

    fn size(&self) -> u64 {
        self.fixture.reader().head().unwrap().size
    }

    /// Every entry, read one by one.
    fn all(&self) -> Vec<Entry> {
        let mut all = Vec::new();
        let visit = &mut |leaf: smkid::store::StoredLeaf<'_>| {
            all.push(Entry::from_leaf(leaf.octets).unwrap());
            ControlFlow::Continue(())
        };
        self.fixture.reader().leaves(0..self.size(), visit).unwrap();
        all
    }
}

/// The intent of a record of the signatures.
fn intent(record: usize, octets: &[u8]) -> u64 {
    u64::from_be_bytes(octets[record * RECORD_LEN..][..8].try_into().unwrap())
}

fn flip(record: usize, octets: &mut [u8]) {
    octets[record * RECORD_LEN + 40] ^= 1;
}

#[test]
fn devices_that_come_after_others_of_greater_numbers_are_found_by_whoever_verifies() {
    let mut large = Large::new(1_400);
    large.fixture.sign_all(700..1_400, HandOver::AtOnce);
    large.fixture.sign_all(0..700, HandOver::AtOnce);
    // What the tables come to is in the ledger, and computed again.
    large.fixture.record(|recorder| recorder.set_snapshot_leaves(1));
    assert!(matches!(large.entry(large.size() - 1).event, Event::Snapshot(_)));
    large.export("ledger");
    assert_eq!(large.wrong("ledger", false), None);
}

#[test]
fn what_is_wrong_first_is_named_whichever_thread_finds_it() {
    let mut large = Large::new(700);
    large.fixture.sign_all(0..700, HandOver::AtOnce);
    large.export("ledger");
    for tree_only in [false, true] {
        assert_eq!(large.wrong("ledger", tree_only), None);
    }
    let border = |at: usize| {
        // Entries 0 to 255 are the first bundle: the last octet of an entry is a brace.
        let octets = fs::read(large.path(&format!("ledger/tile/entries/00{}", at / 256))).unwrap();
        let mut until = 0;
        for _ in 0..=at % 256 {
            until += 2 + usize::from(u16::from_be_bytes([octets[until], octets[until + 1]]));
        }
        until - 1
    };
    for at in [0, 255, 256, 511, 512] {
        let file = format!("ledger/tile/entries/00{}", at / 256);
        for tree_only in [false, true] {
            let place = border(at);
            let wrong = large.altered(&file, |octets| octets[place] = b' ', || large.wrong("ledger", tree_only));
            let wrong = wrong.unwrap();
            assert!(wrong.starts_with(&format!("entry {at}, its octets: entry {at}: its hash is")), "{wrong}");
        }
    }
    // Of two, the first; also where the second is found in an instant, and the first by a worker.
    let two = large.altered(
        "ledger/tile/entries/004",
        |octets| octets[9] ^= 1,
        || large.altered("ledger/tile/0/002", |octets| octets[31] ^= 1, || large.wrong("ledger", false)),
    );
    assert!(two.as_deref().is_some_and(|wrong| wrong.starts_with("entry 512, ")), "{two:?}");
    for (file, name) in [("ledger/tile/1/000.p/5", "tile/1/000.p/5"), ("ledger/tile/0/001", "tile/0/001")] {
        let wrong = large.altered(file, |octets| octets.push(0), || large.wrong("ledger", true)).unwrap();
        assert!(wrong.starts_with(&format!("{name}: ")), "{wrong}");
    }
}

/// The command of a template is checked by a worker, long after the replay has passed its intent.
#[test]
fn a_signature_over_something_else_is_found_before_what_is_wrong_behind_it() {
    let mut large = Large::new(300);
    // By another key: the SHA-256 in its outcome is right, and it verifies over nothing.
    let ours = std::mem::replace(&mut large.fixture.recovery_key, crate::lab::Key::generate());
    large.fixture.sign_all(100..110, HandOver::AtOnce);
    large.fixture.recovery_key = ours;
    large.fixture.sign_all(110..300, HandOver::AtOnce);
    large.export("ledger");
    let first = (0..large.size())
        .find(|index| matches!(large.entry(*index).event, Event::Intent(intent) if intent.device == numbered(100)))
        .unwrap();
    let expected = format!("the signature of intent {first} does not verify over what was to be signed");
    let wrong = large.wrong("ledger", false).unwrap();
    assert!(wrong.contains(&expected), "{wrong}");
    // Behind it a signature is missing: that is found at once, and is not what is wrong first.
    let wrong = large.altered(
        "ledger/signatures",
        |octets| octets.truncate(octets.len() - RECORD_LEN),
        || large.wrong("ledger", false).unwrap(),
    );
    assert!(wrong.contains(&expected), "{wrong}");
    // Before it: it is.
    let at = intent(1, &fs::read(large.path("ledger/signatures")).unwrap());
    let wrong = large.altered("ledger/signatures", |octets| flip(1, octets), || large.wrong("ledger", false).unwrap());
    assert!(wrong.contains(&format!("the signature of intent {at}: its outcome has SHA-256")), "{wrong}");
    assert_eq!(large.wrong("ledger", true), None);
}

/// Counts the entries that are asked for, and breaks off: after so many, or where it is asked for a document or for signatures.
struct Breaking<'a> {
    of: StoreSource<'a>,
    asked: Cell<u64>,
    most: u64,
    gives_blobs: bool,
    gives_signatures: bool,
}

impl<'a> Breaking<'a> {
    fn after(most: u64, of: StoreSource<'a>) -> Self {
        Self { of, asked: Cell::new(0), most, gives_blobs: true, gives_signatures: true }
    }
}

fn unless_broken(goes_on: bool) -> Result<(), ExportError> {
    if goes_on { Ok(()) } else { Err(ExportError::Unreachable { reason: "it was killed".into() }) }
}

impl Source for Breaking<'_> {
    fn checkpoints(&self) -> Result<Vec<Vec<u8>>, ExportError> {
        self.of.checkpoints()
    }

    fn leaves(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        self.of.leaves(range, &mut |index, octets| {
            self.asked.set(self.asked.get() + 1);
            unless_broken(self.asked.get() <= self.most)?;
            visit(index, octets)
        })
    }

    fn blob(&self, digest: Digest) -> Result<Box<dyn Read + '_>, ExportError> {
        unless_broken(self.gives_blobs)?;
        self.of.blob(digest)
    }

    fn signatures(
        &self,
        range: Range<u64>,
        wanted: &dyn Fn(u64) -> bool,
        visit: &mut dyn FnMut(u64, &[u8; 64]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        unless_broken(self.gives_signatures)?;
        self.of.signatures(range, wanted, visit)
    }
}

#[test]
fn an_export_is_brought_up_to_date_and_comes_out_as_one_made_anew() {
    let mut large = Large::new(900);
    large.export("kept");
    let mut jobs = vec![(0..150, HandOver::AtOnce), (150..400, HandOver::Never), (400..520, HandOver::InTheEnd)];
    jobs.push((520..900, HandOver::AtOnce));
    for (devices, hand_over) in jobs {
        let before = large.size();
        large.fixture.sign_all(devices, hand_over);
        let reader = large.fixture.reader();
        let source = |most| Breaking::after(most, StoreSource(&*reader));
        // It is interrupted once, and gone on with.
        let interrupted = source(100);
        assert!(export(&interrupted, &large.path("kept")).is_err());
        assert!(!large.path("kept").exists() && large.path("kept.partial").is_dir());
        let whole = source(u64::MAX);
        let kept = export(&whole, &large.path("kept")).unwrap();
        assert!(whole.asked.get() <= large.size() - before / 256 * 256, "only what is new is asked for");
        assert!(!large.path("kept.partial").exists());
        let _ = fs::remove_dir_all(large.path("anew"));
        assert_eq!(kept, large.export("anew"));
        let (kept, anew) = (files(&large.path("kept")), files(&large.path("anew")));
        assert_eq!(kept.keys().collect::<Vec<_>>(), anew.keys().collect::<Vec<_>>());
        assert!(kept == anew);
        assert_eq!(large.wrong("kept", false), None);
    }
}

#[test]
fn an_export_that_was_broken_off_after_it_kept_some_is_whole_once_it_has_gone_on() {
    const KEEP_EVERY: u64 = 512;
    let mut large = Large::new(1_200);
    for (round, from) in [0, 600].into_iter().enumerate() {
        // The second time an export lies there already, of fewer entries.
        large.fixture.sign_all(from..from + 600, HandOver::AtOnce);
        large.export(&format!("anew-{round}"));
        let anew = files(&large.path(&format!("anew-{round}")));
        for (n, (most, gives_blobs, gives_signatures)) in
            [(1_000, true, true), (u64::MAX, false, true), (u64::MAX, true, false)].into_iter().enumerate()
        {
            let name = format!("kept-{n}");
            let reader = large.fixture.reader();
            let breaking = Breaking { gives_blobs, gives_signatures, ..Breaking::after(most, StoreSource(&*reader)) };
            let broke_off = export_keeping(&breaking, &large.path(&name), KEEP_EVERY).is_err();
            // Commands alone bring no new document.
            assert_eq!(broke_off, round == 0 || gives_blobs, "{round} {n}");
            if !broke_off {
                continue;
            }
            let progress = fs::read_to_string(large.path(&format!("{name}.partial/progress"))).unwrap();
            assert!(progress.trim().parse::<u64>().unwrap() >= KEEP_EVERY, "{progress}");
            export_keeping(&StoreSource(&*reader), &large.path(&name), KEEP_EVERY).unwrap();
            let kept = files(&large.path(&name));
            assert_eq!(kept.keys().collect::<Vec<_>>(), anew.keys().collect::<Vec<_>>(), "{round} {n}");
            assert!(kept == anew, "{round} {n}");
            assert_eq!(large.wrong(&name, false), None);
        }
    }
}

#[test]
fn what_is_released_after_an_export_is_in_the_next_though_its_entries_are_old() {
    let mut large = Large::new(800);
    let request = large.fixture.sign_all(0..500, HandOver::Never);
    large.fixture.sign_all(500..600, HandOver::AtOnce);
    large.export("kept");
    large.fixture.sign_all(600..800, HandOver::AtOnce);
    large.fixture.hand_over(request);
    assert_eq!(large.export("kept").signatures, 800 + 1, "of 800 commands and one certification request");
    large.export("anew");
    assert!(files(&large.path("kept")) == files(&large.path("anew")));
    assert_eq!(large.wrong("kept", false), None);
}

#[test]
fn an_export_of_another_ledger_or_one_that_was_changed_is_not_gone_on_with() {
    let (mut one, other) = (Large::new(300), Large::new(300));
    one.fixture.sign_all(0..300, HandOver::AtOnce);
    other.export("ledger");
    let kept = one.path("ledger");
    fs::rename(other.path("ledger"), &kept).unwrap();
    let error = export(&StoreSource(&*one.fixture.reader()), &kept).unwrap_err().to_string();
    assert!(error.contains("are not those of this ledger"), "{error}");
    fs::remove_dir_all(one.path("ledger.partial")).unwrap();
    one.export("ledger");
    fs::write(kept.join("tile/0/000"), vec![1; 8_192]).unwrap();
    let error = export(&StoreSource(&*one.fixture.reader()), &kept).unwrap_err().to_string();
    assert!(error.contains("remove it, and export anew"), "{error}");
}

#[test]
fn few_among_many_entries_are_found_as_by_reading_all_of_them() {
    let mut large = Large::new(400);
    large.fixture.sign_all(0..300, HandOver::AtOnce);
    large.fixture.sign_all(300..400, HandOver::InTheEnd);
    let (all, reader) = (large.all(), large.fixture.reader());
    let is_common = |entry: &Entry| match &entry.event {
        Event::Intent(_) => true,
        Event::Outcome(outcome) => matches!(outcome.result, smkid::domain::ledger::entry::SignResult::Signed(_)),
        _ => false,
    };
    let expected: Vec<u64> = (0..).zip(&all).filter(|(_, entry)| !is_common(entry)).map(|(at, _)| at).collect();
    let uncommon = |range: Range<u64>| {
        let mut found = Vec::new();
        let visit = &mut |leaf: smkid::store::StoredLeaf<'_>| {
            found.push(leaf.index);
            ControlFlow::Continue(())
        };
        reader.uncommon(range, visit).unwrap();
        found
    };
    assert_eq!(uncommon(0..large.size()), expected);
    assert!(expected.len() < 50);
    let middle = expected[expected.len() / 2];
    assert_eq!(uncommon(middle..middle + 1), [middle]);
    assert_eq!(uncommon(middle + 1..large.size()), expected[expected.len() / 2 + 1..]);
    let of = |device: DeviceId| -> Vec<u64> {
        let is_of = |entry: &Entry| matches!(&entry.event, Event::Intent(intent) if intent.device == device);
        (0..).zip(&all).filter(|(_, entry)| is_of(entry)).map(|(at, _)| at).collect()
    };
    for (at, times) in [(0, 1), (299, 1), (300, 1), (399, 1), (400, 0)] {
        let found = reader.intents_of(numbered(at)).unwrap();
        assert_eq!((found.len(), &found), (times, &of(numbered(at))), "Device {at}");
    }
}
