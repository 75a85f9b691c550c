use std::collections::BTreeSet;

use super::*;
use crate::domain::names::{DeterminationId, RequestId};

fn folder() -> Folder {
    let of = Header {
        origin: "smki.example/lab".parse().unwrap(),
        determination: DeterminationId([7; 16]),
        request: Some(RequestId([9; 16])),
        key: "recovery".parse().unwrap(),
        spki_sha256: Digest([3; 32]),
        templates: vec!["esme".parse().unwrap()],
    };
    Folder { version: VERSION, format: Format::Container, of, in_order: true }
}

fn file(name: &str, intents: &[(u64, u64)]) -> File {
    File {
        name: name.into(),
        octets: 10,
        sha256: Digest([1; 32]),
        commands: intents.iter().map(|(from, until)| until - from).sum(),
        first_intent: intents[0].0,
        last_intent: intents[intents.len() - 1].1 - 1,
        intents: intents.to_vec(),
        awaited: Vec::new(),
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap();
    line.push(b'\n');
    line
}

#[test]
fn ranges_are_those_of_the_indices_that_were_put_in_any_order() {
    let mut seed = 1_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 33
    };
    for _ in 0..50 {
        let (mut ranges, mut all) = (Ranges::default(), BTreeSet::new());
        for _ in 0..60 {
            let index = next() % 80;
            assert_eq!(ranges.has(index), !all.insert(index));
            ranges.insert(index);
        }
        assert!((0..90).all(|index| ranges.has(index) == all.contains(&index)));
        let said: Vec<u64> = ranges.ranges().iter().flat_map(|(from, until)| *from..*until).collect();
        assert_eq!(said, all.iter().copied().collect::<Vec<_>>());
        assert!(ranges.ranges().windows(2).all(|two| two[0].1 < two[1].0), "none touch: {ranges:?}");
        assert_eq!(ranges.ends(), all.first().copied().zip(all.last().copied()));
    }
}

#[test]
fn a_partial_manifest_counts_whole_lines_alone() {
    let files = [file("commands-000001.smkicmd", &[(3, 9)]), file("commands-000002.smkicmd", &[(12, 14), (20, 21)])];
    let whole = [line(&folder()), line(&files[0]), line(&files[1])].concat();
    assert_eq!(parse_partial(&whole).unwrap(), Some((folder(), files.to_vec())));
    let (first, second) = (line(&folder()).len(), line(&folder()).len() + line(&files[0]).len());
    for len in 0..whole.len() {
        let expected = match len {
            len if len < first => None,
            len if len < second => Some((folder(), vec![])),
            _ => Some((folder(), files[..1].to_vec())),
        };
        assert_eq!(parse_partial(&whole[..len]).unwrap(), expected, "{len} octets");
    }
    assert_eq!(Ranges::of(&files).ranges(), [(3, 9), (12, 14), (20, 21)]);
}

#[test]
fn a_manifest_whose_numbers_do_not_agree_is_none() {
    let manifest = |files: Vec<File>, commands| {
        let checkpoint = Covering { size: 30, root: Digest([2; 32]) };
        serde_json::to_vec(&Manifest { folder: folder(), files, commands, checkpoint }).unwrap()
    };
    let good = file("commands-000001.smkicmd", &[(3, 9)]);
    assert!(Manifest::parse(&manifest(vec![good.clone()], 6)).is_ok());
    let refused = |file: File, expected: &str| {
        let commands = file.commands;
        let error = Manifest::parse(&manifest(vec![file], commands)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    assert!(matches!(
        Manifest::parse(&manifest(vec![good.clone()], 5)),
        Err(ManifestError::Count { expected: 5, found: 6 })
    ));
    let shared = file("commands-000002.smkicmd", &[(8, 10)]);
    assert!(matches!(
        Manifest::parse(&manifest(vec![good.clone(), shared], 8)),
        Err(ManifestError::Twice { twice: 1 })
    ));
    let beside = file("commands-000002.smkicmd", &[(9, 10)]);
    Manifest::parse(&manifest(vec![good.clone(), beside], 7)).unwrap();
    for name in ["", ".hidden", "../up", "a/b", "a\\b"] {
        refused(File { name: name.into(), ..good.clone() }, "expected a name in the folder");
    }
    refused(File { first_intent: 4, ..good.clone() }, "are not those of its first");
    refused(File { commands: 5, ..good.clone() }, "are not those of its first");
    refused(File { intents: vec![(5, 9), (3, 5)], ..good.clone() }, "in ascending order");
    let other = Folder { version: 3, ..folder() };
    assert_eq!(parse_partial(&line(&other)), Err(ManifestError::Version { found: 3 }));
}
