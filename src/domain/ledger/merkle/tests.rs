use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;

use super::*;

type Oracle = MemoryBackedTree<sha2::Sha256, Vec<u8>>;

fn entry(i: u64) -> Vec<u8> {
    format!("entry {i}").into_bytes()
}

fn oracle(size: u64) -> Oracle {
    let mut tree = Oracle::new();
    (0..size).for_each(|i| tree.push(entry(i)));
    tree
}

/// The tree of RFC 9162 2.1.1 written as it is defined, for subtrees.
#[expect(clippy::unnecessary_wraps, reason = "the generators ask a closure that may fail")]
fn subtree(part: Subtree) -> Result<Digest, MerkleError> {
    let from = part.index << part.level;
    Ok(head_of((from..from + (1 << part.level)).map(entry).collect::<Vec<_>>().iter().map(Vec::as_slice)).root)
}

fn head(size: u64) -> Head {
    Head { size, root: root_at(size, subtree).unwrap() }
}

fn octets(path: &[Digest]) -> Vec<u8> {
    path.iter().flat_map(|hash| hash.0).collect()
}

#[track_caller]
fn check(size: u64, frontier: &Frontier) {
    let tree = oracle(size);
    assert_eq!(frontier.head(), Head { size, root: Digest(tree.root().as_bytes().as_slice().try_into().unwrap()) });
    assert_eq!(head(size), frontier.head());
    assert_eq!(&Frontier::load(size, subtree).unwrap(), frontier);
}

#[test]
fn the_empty_tree_and_one_leaf_have_the_hashes_of_the_rfc() {
    // printf '' | sha256sum; printf '\0' | sha256sum
    assert_eq!(Frontier::new().root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(leaf_hash(b"").to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    assert_eq!(Leaf::new(b"x").unwrap().hash(), leaf_hash(b"x"));
}

#[test]
fn a_leaf_has_1_to_65535_octets() {
    let octets = vec![b'x'; LEAF_LEN_MAX + 1];
    assert!(Leaf::new(&octets[..LEAF_LEN_MAX]).is_ok());
    assert_eq!(Leaf::new(&octets), Err(MerkleError::LeafLen { len: 65_536 }));
    assert_eq!(Leaf::new(b""), Err(MerkleError::LeafLen { len: 0 }));
}

#[test]
fn roots_are_those_of_another_implementation_at_every_size() {
    let mut frontier = Frontier::new();
    for size in 0..=130 {
        check(size, &frontier);
        let read = Frontier::from_octets(&frontier.to_octets()).unwrap();
        assert_eq!(read, frontier);
        frontier.push(leaf_hash(&entry(size)));
    }
}

#[test]
fn a_frontier_of_the_wrong_length_is_refused() {
    let mut frontier = Frontier::new();
    frontier.extend([leaf_hash(b"a"), leaf_hash(b"b"), leaf_hash(b"c")]);
    let octets = frontier.to_octets();
    for len in 0..octets.len() {
        assert!(Frontier::from_octets(&octets[..len]).is_err(), "{len}");
    }
    assert!(Frontier::from_octets(&[&octets[..], &[0]].concat()).is_err());
}

#[test]
fn inclusion_paths_are_those_of_another_implementation_and_verify() {
    for size in 1..=130 {
        let tree = oracle(size);
        let head = head(size);
        for index in 0..size {
            let path = inclusion_path(index, size, subtree).unwrap();
            let theirs = tree.prove_inclusion(index.try_into().unwrap());
            assert_eq!(octets(&path), theirs.as_bytes(), "{index} of {size}");
            verify_inclusion(leaf_hash(&entry(index)), index, &head, &path).unwrap();
            assert!(verify_inclusion(leaf_hash(b"another"), index, &head, &path).is_err());
            let elsewhere = (index + 1) % size;
            assert_eq!(
                verify_inclusion(leaf_hash(&entry(index)), elsewhere, &head, &path).is_ok(),
                elsewhere == index,
                "{index} of {size}"
            );
        }
        assert_eq!(inclusion_path(size, size, subtree), Err(MerkleError::NoSuchLeaf { index: size, size }));
    }
}

#[test]
fn consistency_paths_are_those_of_another_implementation_and_verify() {
    for second in 1..=130 {
        let tree = oracle(second);
        for first in 1..=second {
            let path = consistency_path(first, second, subtree).unwrap();
            let theirs = tree.prove_consistency((second - first).try_into().unwrap());
            assert_eq!(octets(&path), theirs.as_bytes(), "{first} to {second}");
            verify_consistency(&head(first), &head(second), &path).unwrap();
        }
    }
}

#[test]
fn the_empty_tree_is_a_prefix_of_every_tree_by_an_empty_path() {
    assert_eq!(consistency_path(0, 5, subtree), Ok(vec![]));
    verify_consistency(&Head::empty(), &head(5), &[]).unwrap();
    verify_consistency(&Head::empty(), &Head::empty(), &[]).unwrap();
    assert!(verify_consistency(&Head::empty(), &head(5), &[head(5).root]).is_err());
    assert!(verify_consistency(&Head { size: 0, root: head(1).root }, &head(5), &[]).is_err());
    assert!(verify_consistency(&head(5), &Head::empty(), &[]).is_err());
    assert!(verify_consistency(&Head::empty(), &Head { size: 0, root: head(1).root }, &[]).is_err());
}

/// Every octet of every hash flipped, every hash dropped or doubled: `verify` must refuse each.
fn each_tampering(path: &[Digest], mut verify: impl FnMut(&[Digest]) -> Result<(), MerkleError>) {
    verify(path).unwrap();
    for at in 0..path.len() {
        for octet in 0..Digest::LEN {
            let mut changed = path.to_vec();
            changed[at].0[octet] ^= 1;
            assert!(matches!(verify(&changed), Err(MerkleError::Root { .. })));
        }
        let mut dropped = path.to_vec();
        dropped.remove(at);
        assert!(verify(&dropped).is_err());
        let mut doubled = path.to_vec();
        doubled.insert(at, path[at]);
        assert!(verify(&doubled).is_err());
    }
    let mut longer = path.to_vec();
    longer.push(Digest([7; 32]));
    assert!(matches!(verify(&longer), Err(MerkleError::PathLen { .. })));
    if let Some(shorter) = path.split_last().map(|(_, rest)| rest) {
        assert!(verify(shorter).is_err());
    }
}

#[test]
fn a_path_with_any_octet_changed_proves_nothing() {
    for size in [1, 2, 3, 7, 8, 13, 64, 65, 130] {
        let second = head(size);
        for index in [0, size / 2, size - 1] {
            let leaf = leaf_hash(&entry(index));
            let path = inclusion_path(index, size, subtree).unwrap();
            each_tampering(&path, |path| verify_inclusion(leaf, index, &second, path));
        }
        for first in [1, size / 2, size - 1].into_iter().filter(|first| (1..size).contains(first)) {
            let path = consistency_path(first, size, subtree).unwrap();
            each_tampering(&path, |path| verify_consistency(&head(first), &second, path));
        }
    }
}

#[test]
fn roots_and_sizes_are_bound_by_a_proof() {
    let path = consistency_path(6, 13, subtree).unwrap();
    let (first, second) = (head(6), head(13));
    let other = Digest([1; 32]);
    assert!(verify_consistency(&Head { root: other, ..first }, &second, &path).is_err());
    assert!(verify_consistency(&first, &Head { root: other, ..second }, &path).is_err());
    assert!(verify_consistency(&second, &first, &path).is_err());
    assert!(verify_consistency(&first, &Head { root: other, ..first }, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn proofs_at_any_size_and_place_verify(size in 2..3000_u64, at in any::<prop::sample::Index>()) {
        let mut hashes = Vec::new();
        let mut frontier = Frontier::new();
        let mut complete = std::collections::HashMap::new();
        for i in 0..size {
            let hash = leaf_hash(&entry(i));
            hashes.push(hash);
            frontier.push_with(hash, |part, hash| { complete.insert(part, hash); });
        }
        // The closure knows complete subtrees only: asking for another is a failure of the generator.
        let known = |part: Subtree| complete.get(&part).copied()
            .ok_or(MerkleError::NoSuchLeaf { index: part.index, size });
        let index = u64::try_from(at.index(hashes.len())).unwrap();
        let path = inclusion_path(index, size, known).unwrap();
        verify_inclusion(hashes[usize::try_from(index).unwrap()], index, &frontier.head(), &path).unwrap();
        let first = Head { size: index, root: root_at(index, known).unwrap() };
        let path = consistency_path(index, size, known).unwrap();
        verify_consistency(&first, &frontier.head(), &path).unwrap();
    }
}

#[test]
fn leaves_appended_by_the_subtrees_over_them_make_the_tree_of_each_of_them() {
    for len in [1, 2, 3, 5, 8, 13, 64, 255, 256] {
        let leaves: Vec<Digest> = (0..len).map(|i| leaf_hash(&entry(i))).collect();
        let subtrees = Subtrees::over(leaves.clone());
        assert_eq!(subtrees.leaves(), leaves);
        for before in [0, 256, 768] {
            let mut one_by_one = Frontier::new();
            one_by_one.extend((0..before).map(|i| leaf_hash(&entry(i + 1_000))));
            let begun = one_by_one.clone();
            let mut completed = Vec::new();
            for count in 0..=leaves.len() {
                let (mut at_once, mut told) = (begun.clone(), Vec::new());
                at_once.push_first(count, &subtrees, |subtree, _| told.push(subtree));
                assert_eq!(at_once, one_by_one, "{count} of {len} behind {before}");
                assert!(told.iter().all(|subtree| completed.contains(subtree)), "only what each of them completes");
                if let Some(leaf) = leaves.get(count) {
                    one_by_one.push_with(*leaf, |subtree, _| completed.push(subtree));
                }
            }
        }
    }
}

#[test]
fn a_leaf_is_hashed_with_its_prefix_in_the_place_of_the_octet_before_it() {
    let mut octets = *b"7abc";
    assert_eq!(leaf_hash_behind(&mut octets), leaf_hash(b"abc"));
    assert_eq!(&octets, b"7abc");
    assert_eq!(leaf_hash_behind(&mut [9]), leaf_hash(b""));
}
