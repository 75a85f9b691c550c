use std::collections::BTreeSet;

use super::*;
use crate::domain::commands::container::{Reader, Record};
use crate::domain::names::{DeterminationId, DeviceId, Eui64};

const REQUEST: RequestId = RequestId([9; 16]);
const COVERING: Covering = Covering { size: 1_000, root: Digest([2; 32]) };

fn header() -> Header {
    Header {
        origin: "smki.example/lab".parse().unwrap(),
        determination: DeterminationId([7; 16]),
        request: Some(REQUEST),
        key: "recovery".parse().unwrap(),
        spki_sha256: Digest([3; 32]),
        templates: vec!["esme".parse().unwrap()],
    }
}

fn open(path: &Path, size: FileSize) -> Result<Files, CliError> {
    Files::open(path, Format::Container, size, Some(REQUEST), Order::InOrder)
}

fn put(files: &mut Files, intents: impl IntoIterator<Item = u64>) {
    for intent in intents {
        let device = DeviceId(Eui64(intent.to_be_bytes()));
        files.put(Fields { device, counter: 7, intent, template: 0 }, &[0xDF; 100]).unwrap();
    }
}

/// A folder that is whole, with these commands in files of four.
fn whole(path: &Path, intents: impl IntoIterator<Item = u64>) {
    let mut files = open(path, FileSize::Commands(4)).unwrap();
    files.begin(&header()).unwrap();
    put(&mut files, intents);
    files.finish(COVERING).unwrap();
}

/// The intents in all files that have their names.
fn intents(path: &Path) -> Vec<u64> {
    let mut names: BTreeSet<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|ending| ending == "smkicmd"));
    let mut intents = Vec::new();
    for name in names {
        let mut reader = Reader::of_file();
        reader.feed(&fs::read(name).unwrap());
        while let Some(record) = reader.record().unwrap() {
            if let Record::Command(fields, _) = record {
                intents.push(fields.intent);
            }
        }
        reader.finish().unwrap();
    }
    intents
}

#[test]
fn files_have_their_size_and_the_manifest_says_what_they_hold() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("commands");
    let mut files = open(&path, FileSize::Commands(4)).unwrap();
    files.begin(&header()).unwrap();
    put(&mut files, (10..14).chain(20..25));
    files.finish(COVERING).unwrap();
    let manifest = Manifest::parse(&fs::read(path.join(NAME)).unwrap()).unwrap();
    let held: Vec<_> = manifest.files.iter().map(|file| (&*file.name, file.commands, &file.intents[..])).collect();
    assert_eq!(
        held,
        [
            ("commands-000001.smkicmd", 4, &[(10, 14)][..]),
            ("commands-000002.smkicmd", 4, &[(20, 24)][..]),
            ("commands-000003.smkicmd", 1, &[(24, 25)][..]),
        ]
    );
    assert_eq!((manifest.commands, manifest.checkpoint), (9, COVERING));
    for file in &manifest.files {
        assert_eq!(digest_of(&path.join(&*file.name)).unwrap(), Some((file.octets, file.sha256)));
    }
    assert_eq!(intents(&path), (10..14).chain(20..25).collect::<Vec<_>>());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 4, "no left-overs");
}

#[test]
fn a_file_of_a_number_of_octets_is_not_longer_but_for_its_last_command() {
    let scratch = tempfile::tempdir().unwrap();
    let mut files = open(scratch.path(), FileSize::Octets(1_024)).unwrap();
    files.begin(&header()).unwrap();
    put(&mut files, 0..40);
    files.finish(COVERING).unwrap();
    let manifest = Manifest::parse(&fs::read(scratch.path().join(NAME)).unwrap()).unwrap();
    assert!(manifest.files.len() > 5);
    assert!(manifest.files.iter().all(|file| file.octets < 1_024 + 200), "{:?}", manifest.files);
}

#[test]
fn what_is_whole_is_kept_and_what_was_being_written_is_not_taken_for_it() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    let mut files = open(path, FileSize::Commands(4)).unwrap();
    files.begin(&header()).unwrap();
    put(&mut files, 0..10);
    // As a kill leaves it: the third file has no name yet, and two lie in the partial manifest.
    files.syncer.take().unwrap().end().unwrap();
    files.current.as_mut().unwrap().flush_all().unwrap();
    drop(files);
    assert_eq!(intents(path), (0..8).collect::<Vec<_>>());
    assert!(!path.join(NAME).exists());

    let mut files = open(path, FileSize::Commands(4)).unwrap();
    assert_eq!(files.after(), Some(7));
    files.begin(&header()).unwrap();
    put(&mut files, 8..10);
    files.finish(COVERING).unwrap();
    assert_eq!(intents(path), (0..10).collect::<Vec<_>>());
    // Once more there is nothing to do, and all is as it was.
    let before = fs::read(path.join(NAME)).unwrap();
    let mut files = open(path, FileSize::Commands(4)).unwrap();
    assert_eq!((files.after(), files.has(9), files.has(10)), (Some(9), true, false));
    files.begin(&header()).unwrap();
    files.finish(COVERING).unwrap();
    assert_eq!(fs::read(path.join(NAME)).unwrap(), before);
}

#[test]
fn a_file_that_was_entered_and_not_named_gets_its_name_and_a_lost_one_is_fetched_again() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    let mut files = open(path, FileSize::Commands(4)).unwrap();
    files.begin(&header()).unwrap();
    put(&mut files, 0..8);
    files.keep().unwrap();
    let first = path.join("commands-000001.smkicmd");
    fs::rename(&first, hidden(&first)).unwrap();
    let files = open(path, FileSize::Commands(4)).unwrap();
    assert_eq!((files.after(), intents(path).len()), (Some(7), 8));
    drop(files);
    fs::remove_file(&first).unwrap();
    let mut files = open(path, FileSize::Commands(4)).unwrap();
    // Not in order any more: all is asked for, and what is there is left as it is.
    assert_eq!((files.after(), files.has(3), files.has(4)), (None, false, true));
    files.begin(&header()).unwrap();
    // In files of one command each: none of them takes the number of one that has not got its name yet, nor of one that is there.
    files.size = FileSize::Commands(1);
    put(&mut files, 0..4);
    files.finish(COVERING).unwrap();
    assert_eq!(intents(path).into_iter().collect::<BTreeSet<_>>(), (0..8).collect());
    let manifest = Manifest::parse(&fs::read(path.join(NAME)).unwrap()).unwrap();
    let names: Vec<_> = manifest.files.iter().map(|file| &*file.name).collect();
    assert_eq!(names, [2, 3, 4, 5, 6].map(|number| format!("commands-{number:06}.smkicmd")));
}

#[test]
fn whose_command_did_not_come_is_asked_for_by_name_until_it_is_there_also_after_a_cut() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    let size = FileSize::Commands(4);
    let device = |intent: u64| DeviceId(Eui64(intent.to_be_bytes()));
    let named = |intents: &[u64]| intents.iter().map(|intent| device(*intent)).collect::<BTreeSet<_>>();
    let mut files = open(path, size).unwrap();
    files.begin(&header()).unwrap();
    put(&mut files, 10..15);
    files.awaits(device(15));
    files.awaits(device(16));
    put(&mut files, 17..19);
    // One that is told twice is one.
    files.awaits(device(16));
    put(&mut files, [19]);
    files.awaits(device(20));
    // It is cut here: what was told behind the last file comes again by itself.
    files.keep().unwrap();
    let mut files = open(path, size).unwrap();
    assert_eq!((files.after(), files.take_awaited()), (Some(19), named(&[15, 16])));
    drop(files);
    let mut files = open(path, size).unwrap();
    files.begin(&header()).unwrap();
    files.awaits(device(20));
    put(&mut files, [21]);
    // Now by name: what came already is known, however it is asked for.
    assert_eq!(files.take_awaited(), named(&[15, 16]));
    files.begin(&header()).unwrap();
    assert!(files.has(21) && files.has(19) && !files.has(16));
    put(&mut files, [16]);
    files.awaits(device(15));
    files.finish(COVERING).unwrap();
    let awaited = || {
        let manifest = Manifest::parse(&fs::read(path.join(NAME)).unwrap()).unwrap();
        manifest.files.into_iter().map(|file| file.awaited.into_iter().collect::<BTreeSet<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(awaited(), [named(&[]), named(&[]), named(&[15, 20])], "the last file tells of all");
    let mut files = open(path, size).unwrap();
    assert_eq!(files.after(), Some(21));
    files.begin(&header()).unwrap();
    assert_eq!(files.take_awaited(), named(&[15, 20]));
    put(&mut files, [15]);
    files.finish(COVERING).unwrap();
    // 20 was told of no more: it never comes.
    assert!(awaited().iter().all(BTreeSet::is_empty));
    assert_eq!(intents(path).into_iter().collect::<BTreeSet<_>>(), (10..22).filter(|intent| *intent != 20).collect());
}

#[test]
fn a_folder_of_the_version_before_is_not_gone_on_with_for_it_does_not_say_what_it_lacks() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    whole(path, [0, 1, 3]);
    let before = fs::read_to_string(path.join(NAME)).unwrap().replacen("\"version\": 2", "\"version\": 1", 1);
    fs::write(path.join(NAME), &before).unwrap();
    let error = open(path, FileSize::Commands(4)).err().unwrap().to_string();
    assert!(
        error.contains("its manifest has version 1, and only version 2 is gone on with; choose another --out"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(path.join(NAME)).unwrap(), before);
}

#[test]
fn an_export_that_is_older_than_a_folder_changes_nothing_in_it() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    whole(path, [0]);
    let files = Files::open(path, Format::Container, FileSize::Commands(4), Some(REQUEST), Order::Any).unwrap();
    files.covered_by(COVERING.size).unwrap();
    let error = files.covered_by(COVERING.size - 1).unwrap_err().to_string();
    assert!(error.contains("covered by a checkpoint of 1000 entries, and the export has 999"), "{error}");
    assert!(path.join(NAME).exists());
}

#[test]
fn a_manifest_names_no_checkpoint_that_covers_less_than_its_files() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    let finish = |intent: u64| {
        let mut files = open(path, FileSize::Commands(4)).unwrap();
        files.begin(&header()).unwrap();
        put(&mut files, [intent]);
        files.finish(COVERING).map_err(|error| error.to_string())
    };
    finish(COVERING.size - 1).unwrap();
    let error = finish(COVERING.size).unwrap_err();
    assert!(error.contains("it has a command of entry 1000, and the checkpoint covers 1000 entries"), "{error}");
    assert!(
        !path.join(NAME).exists() && intents(path) == [999, 1000],
        "what lies there stays, and is not called whole"
    );
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    let mut files = open(path, FileSize::Commands(4)).unwrap();
    let refused = |opened: Result<Files, CliError>, expected: &str| {
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(open(path, FileSize::Commands(4)), "another smkictl is writing there");
    files.begin(&header()).unwrap();
    put(&mut files, 0..4);
    files.keep().unwrap();
    let size = FileSize::Commands(4);
    refused(Files::open(path, Format::Hex, size, Some(REQUEST), Order::InOrder), "of the format container");
    refused(Files::open(path, Format::Container, size, Some(RequestId([1; 16])), Order::InOrder), "of request 0909");
    let mut other = open(path, size).unwrap();
    let error = other.begin(&Header { determination: DeterminationId([8; 16]), ..header() }).unwrap_err().to_string();
    assert!(error.contains("of determination 0707"), "{error}");
    drop(other);
    fs::write(path.join("commands-000001.smkicmd"), b"altered").unwrap();
    refused(open(path, size), "it was changed since. Remove it");
}

#[test]
fn files_of_many_blocks_are_what_was_put_whatever_is_left_of_the_last() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    // Commands of a length that no block is a multiple of; the last file has less than a block.
    let command = |intent: u64| vec![u8::try_from(intent % 251).unwrap(); 4_053];
    let mut files = open(path, FileSize::Commands(700)).unwrap();
    files.begin(&header()).unwrap();
    for intent in 0..1_500_u64 {
        let device = DeviceId(Eui64(intent.to_be_bytes()));
        files.put(Fields { device, counter: 7, intent, template: 0 }, &command(intent)).unwrap();
    }
    files.finish(Covering { size: 2_000, ..COVERING }).unwrap();
    let manifest = Manifest::parse(&fs::read(path.join(NAME)).unwrap()).unwrap();
    let mut next = 0;
    for file in &manifest.files {
        assert_eq!(digest_of(&path.join(&*file.name)).unwrap(), Some((file.octets, file.sha256)));
        let mut reader = Reader::of_file();
        reader.feed(&fs::read(path.join(&*file.name)).unwrap());
        while let Some(record) = reader.record().unwrap() {
            if let Record::Command(fields, octets) = record {
                assert_eq!(fields.intent, next);
                assert!(reader.octets(&octets) == command(next), "{next}");
                next += 1;
            }
        }
        reader.finish().unwrap();
    }
    assert_eq!((next, manifest.files.len()), (1_500, 3));
}
