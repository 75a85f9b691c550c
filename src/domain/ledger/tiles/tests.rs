use std::collections::BTreeMap;

use super::*;
use crate::domain::ledger::merkle::leaf_hash;

type Files = BTreeMap<TileName, Vec<u8>>;

fn entry(i: u64) -> Vec<u8> {
    // Lengths differ, so that a shifted boundary shows.
    format!("{i}{}", "x".repeat((i % 7) as usize)).into_bytes()
}

fn export(size: u64) -> (Head, Files) {
    let mut files = Files::new();
    let mut tiler = Tiler::new();
    let mut emit = |name, octets: &[u8]| match files.insert(name, octets.to_vec()) {
        None => Ok(()),
        Some(_) => Err(name),
    };
    for i in 0..size {
        tiler.push(&Leaf::new(&entry(i)).unwrap(), &mut emit).unwrap();
    }
    let head = tiler.finish(&mut emit).unwrap();
    (head, files)
}

fn verify_files(head: &Head, files: &Files) -> Result<u64, TileError> {
    let read = |name: TileName| files.get(&name).cloned().ok_or(TileError::Name { found: name.to_string() });
    let (mut tree, mut next) = (Tree::new(), 0);
    for name in bundles(head.size) {
        let (hashes, mut octets) = (read(Bundle::hashes_name(name))?, read(name)?);
        let bundle = Bundle::check(name, &mut octets, &hashes)?;
        assert_eq!(octets, read(name)?, "hashing leaves them as they were");
        assert_eq!(bundle.entries.len(), bundle.tree.leaves().len());
        for (place, hash) in bundle.entries.iter().zip(bundle.tree.leaves()) {
            assert_eq!(octets[place.clone()], entry(next), "only entries whose hash agrees are seen");
            assert_eq!(*hash, leaf_hash(&entry(next)));
            next += 1;
        }
        bundle.fault.map_or(Ok(()), Err)?;
        tree.push(&bundle.tree, read)?;
    }
    tree.finish(head, read).map(|()| next)
}

#[track_caller]
fn named(text: &str, kind: TileKind, index: u64, width: u16) {
    let name = TileName { kind, index, width };
    assert_eq!(name.to_string(), text);
    assert_eq!(text.parse(), Ok(name));
}

#[test]
fn paths_are_those_of_the_specification() {
    let level = |level| TileKind::Hashes { level };
    named("tile/0/x001/x234/067", level(0), 1_234_067, 256);
    named("tile/entries/x001/x234/067.p/5", TileKind::Entries, 1_234_067, 5);
    named("tile/0/000", level(0), 0, 256);
    named("tile/1/999.p/255", level(1), 999, 255);
    named("tile/7/x001/000.p/1", level(7), 1000, 1);
}

#[test]
fn a_path_in_any_other_writing_is_refused() {
    for text in [
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/8/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/+01",
        "tile/0/",
        "tile/0",
        "/tile/0/000",
        "tile/0/000/",
        "tile/entry/000",
        "tile/0/000.p/5.p/5",
        "tile/0/../000",
        "checkpoint",
        "",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        "tile/0/x00é",
    ] {
        assert!(text.parse::<TileName>().is_err(), "{text}");
    }
}

#[test]
fn tiles_that_are_gone_on_with_come_out_as_those_made_at_once() {
    let (head, files) = export(66_000);
    for size in [0, 256, 512, 32_768, 65_280, 65_536, 65_792] {
        let read = |name: TileName| files.get(&name).cloned().ok_or(TileError::Name { found: name.to_string() });
        let mut tiler = Tiler::resume(size, read).unwrap();
        assert_eq!(tiler.head().size, size);
        let mut emit = |name: TileName, octets: &[u8]| {
            assert_eq!(files.get(&name).map(Vec::as_slice), Some(octets), "{name} from {size}");
            Ok::<_, TileError>(())
        };
        for i in size..66_000 {
            tiler.push(&Leaf::new(&entry(i)).unwrap(), &mut emit).unwrap();
        }
        assert_eq!(tiler.finish(&mut emit), Ok(head));
    }
}

#[test]
fn the_tiles_of_a_size_are_those_of_the_specification_s_examples() {
    let count = |size, wanted: TileKind| {
        let all: Vec<_> = names(size).filter(|name| name.kind == wanted).collect();
        (all.iter().filter(|n| n.width == 256).count(), all.iter().find(|n| n.width < 256).map(|n| n.width))
    };
    let level = |level| TileKind::Hashes { level };
    assert_eq!(count(70_000, TileKind::Entries), (273, Some(112)));
    assert_eq!(count(70_000, level(0)), (273, Some(112)));
    assert_eq!(count(70_000, level(1)), (1, Some(17)));
    assert_eq!(count(70_000, level(2)), (0, Some(1)));
    assert_eq!(count(70_000, level(3)), (0, None));
    assert_eq!(
        names(256).map(|n| n.to_string()).collect::<Vec<_>>(),
        ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    );
    assert_eq!(names(0).count(), 0);
}

#[test]
fn what_is_written_is_exactly_what_is_named_and_verifies() {
    for size in [0, 1, 2, 255, 256, 257, 511, 512, 513, 1000, 65_535, 65_536, 65_537, 70_000] {
        let (head, files) = export(size);
        assert_eq!(head.size, size);
        let mut expected: Vec<_> = names(size).collect();
        expected.sort();
        assert_eq!(files.keys().copied().collect::<Vec<_>>(), expected, "{size}");
        assert_eq!(verify_files(&head, &files), Ok(size));
    }
}

#[test]
fn any_octet_changed_in_any_tile_is_found_and_named() {
    let (head, files) = export(600);
    for (name, octets) in &files {
        // Every octet of the small tiles, and of the others each tenth, with both edges.
        let step = if octets.len() < 1000 { 1 } else { 11 };
        for at in (0..octets.len()).step_by(step).chain([octets.len() - 1]) {
            let mut changed = files.clone();
            changed.get_mut(name).unwrap()[at] ^= 1;
            let error = verify_files(&head, &changed).unwrap_err();
            match (name.kind, &error) {
                (TileKind::Entries, TileError::Bundle { name: found, .. }) => assert_eq!(found, name),
                (TileKind::Entries, TileError::Entry { index, .. }) => assert_eq!(index / TILE_WIDTH, name.index),
                (TileKind::Hashes { .. }, TileError::Entry { name: found, index, .. }) => {
                    assert_eq!((found, index % TILE_WIDTH), (name, at as u64 / 32));
                }
                (TileKind::Hashes { .. }, TileError::Hash { name: found, at: hash, .. }) => {
                    assert_eq!((found, *hash), (name, at / 32));
                }
                (kind, error) => panic!("{name} octet {at}: {kind:?} {error}"),
            }
        }
    }
}

#[test]
fn a_tile_cut_lengthened_missing_or_swapped_is_refused() {
    let (head, files) = export(600);
    for name in files.keys() {
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut changed = files.clone();
            change(changed.get_mut(name).unwrap());
            assert!(verify_files(&head, &changed).is_err(), "{name}");
        };
        refused(&|octets| octets.truncate(octets.len() - 1));
        refused(&|octets| octets.push(0));
        refused(&Vec::clear);
        let mut missing = files.clone();
        missing.remove(name);
        assert!(verify_files(&head, &missing).is_err());
    }
    let level = |index, kind| TileName::full(kind, index);
    for kind in [TileKind::Entries, TileKind::Hashes { level: 0 }] {
        let mut swapped = files.clone();
        let first = swapped[&level(0, kind)].clone();
        let second = swapped.insert(level(1, kind), first).unwrap();
        swapped.insert(level(0, kind), second);
        assert!(verify_files(&head, &swapped).is_err());
    }
}

#[test]
fn tiles_that_agree_with_each_other_must_agree_with_the_checkpoint_too() {
    let (head, files) = export(300);
    let (_, other) = export(301);
    let root = Digest([9; 32]);
    assert_eq!(
        verify_files(&Head { root, ..head }, &files),
        Err(TileError::Root { size: 300, expected: root, found: head.root })
    );
    assert!(verify_files(&Head { size: 301, ..head }, &other).is_err());
    assert!(verify_files(&Head { size: 301, ..head }, &files).is_err());
}

#[test]
fn an_empty_entry_in_a_bundle_is_refused() {
    let name = TileName { kind: TileKind::Entries, index: 0, width: 1 };
    assert!(entries(name, &[0, 0]).is_err());
    assert_eq!(entries(name, &[0, 1, 7]), Ok(vec![(0, &[7][..])]));
}
