//! Pure. The Merkle tree of RFC 9162 section 2.1 (the same as RFC 6962 section 2.1) over SHA-256.
//!
//! The whole tree is never in memory: [`Frontier`] keeps O(log n) hashes, and proofs ask a closure for the few subtrees
//! they need.

use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::domain::names::Digest;

/// The greatest length of a leaf in octets: C2SP tlog-tiles gives the length of an entry as a uint16.
pub const LEAF_LEN_MAX: usize = 0xFFFF;

/// Why octets are no leaf, or why a proof does not prove.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    /// A leaf is too long or empty.
    #[error(
        "leaf: expected 1 to {LEAF_LEN_MAX} octets, found {len}; put what is larger into a blob and name its SHA-256"
    )]
    LeafLen {
        /// Its length in octets.
        len: usize,
    },
    /// There is no such leaf in a tree of this size.
    #[error("leaf {index}: expected an index below the tree's size of {size}")]
    NoSuchLeaf {
        /// The index asked for.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// A tree does not extend a larger one.
    #[error("consistency: expected the first size to be at most the second, found {first} and {second}")]
    SizesReversed {
        /// The size that should be the smaller.
        first: u64,
        /// The size that should be the greater.
        second: u64,
    },
    /// A path has too few or too many hashes for the place it is about.
    #[error("{what} proof: expected {expected} hashes, found {found}")]
    PathLen {
        /// `inclusion` or `consistency`.
        what: &'static str,
        /// How many hashes a proof of this place has.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The path leads to another root.
    #[error("{what} proof: expected the {which} root {expected}, found {found}")]
    Root {
        /// `inclusion` or `consistency`.
        what: &'static str,
        /// `only`, `first` or `second`.
        which: &'static str,
        /// The root that was given.
        expected: Digest,
        /// The root that the path leads to.
        found: Digest,
    },
    /// Octets that are no frontier.
    #[error("frontier: expected {expected} octets for its size, found {found}")]
    FrontierLen {
        /// The length that belongs to the size at its beginning; 8 when not even that is there.
        expected: usize,
        /// Its length in octets.
        found: usize,
    },
}

/// `MTH({d(0)})` = SHA-256(0x00 ‖ d(0)). RFC 9162 2.1.1.
pub fn leaf_hash(octets: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(&[0x00]);
    context.update(octets);
    to_digest(context.finish())
}

/// [`leaf_hash`] of all of these octets but the first: the prefix stands in its place meanwhile, so that SHA-256 is taken in one call.
///
/// # Panics
/// There is no first octet.
pub fn leaf_hash_behind(octets: &mut [u8]) -> Digest {
    let first = std::mem::replace(&mut octets[0], 0x00);
    let hash = to_digest(digest(&SHA256, octets));
    octets[0] = first;
    hash
}

/// SHA-256(0x01 ‖ left ‖ right). RFC 9162 2.1.1.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut octets = [0x01; 1 + 2 * Digest::LEN];
    octets[1..=Digest::LEN].copy_from_slice(&left.0);
    octets[1 + Digest::LEN..].copy_from_slice(&right.0);
    to_digest(digest(&SHA256, &octets))
}

fn to_digest(digest: ring::digest::Digest) -> Digest {
    Digest(digest.as_ref().try_into().expect("SHA-256 has 32 octets"))
}

/// A leaf and its hash: 1 to [`LEAF_LEN_MAX`] octets, and always their own hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<'a> {
    octets: &'a [u8],
    hash: Digest,
}

impl<'a> Leaf<'a> {
    /// Hashes the octets of one entry.
    pub fn new(octets: &'a [u8]) -> Result<Self, MerkleError> {
        if !(1..=LEAF_LEN_MAX).contains(&octets.len()) {
            return Err(MerkleError::LeafLen { len: octets.len() });
        }
        Ok(Self { octets, hash: leaf_hash(octets) })
    }

    /// The octets as they were given.
    pub const fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// Their [`leaf_hash`].
    pub const fn hash(&self) -> Digest {
        self.hash
    }
}

/// The head of a tree: how many leaves, and the hash over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// How many leaves.
    pub size: u64,
    /// `MTH` of RFC 9162 2.1.1 over them.
    pub root: Digest,
}

impl Head {
    /// The head of the empty tree: SHA-256 of nothing.
    pub fn empty() -> Self {
        Self { size: 0, root: Digest::of(b"") }
    }
}

/// The complete subtree over the leaves `index << level` until `(index + 1) << level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subtree {
    /// Its height: 0 is a leaf.
    pub level: u32,
    /// Its place among those of its height.
    pub index: u64,
}

/// All complete subtrees over a few leaves, so that the root of any number of the first of them is some hashes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtrees {
    /// Level by level, the leaves first: one hash less than there are leaves, twice, if they are a power of two.
    hashes: Vec<Digest>,
    leaves: usize,
}

impl Subtrees {
    /// Over these leaves.
    pub fn over(mut leaves: Vec<Digest>) -> Self {
        let count = leaves.len();
        leaves.reserve_exact(count);
        let (mut from, mut width) = (0, count);
        while width > 1 {
            for left in (from..from + width / 2 * 2).step_by(2) {
                let hash = node_hash(&leaves[left], &leaves[left + 1]);
                leaves.push(hash);
            }
            (from, width) = (from + width, width / 2);
        }
        Self { hashes: leaves, leaves: count }
    }

    /// The leaves.
    pub fn leaves(&self) -> &[Digest] {
        &self.hashes[..self.leaves]
    }

    /// One of them, by its place from the first leaf on.
    fn root(&self, Subtree { level, index }: Subtree) -> Digest {
        let from: usize = (0..level).map(|level| self.leaves >> level).sum();
        self.hashes[from + usize::try_from(index).expect("below the number of leaves")]
    }
}

/// An append-only tree, as the roots of its complete subtrees: O(log n) memory, O(1) hashes a leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One root for each bit set in `size`, the largest subtree first.
    roots: Vec<Digest>,
}

impl Frontier {
    /// The empty tree.
    pub const fn new() -> Self {
        Self { size: 0, roots: Vec::new() }
    }

    /// The tree of `size` leaves whose complete subtrees `subtree` knows.
    pub fn load<E>(size: u64, mut subtree: impl FnMut(Subtree) -> Result<Digest, E>) -> Result<Self, E> {
        let mut roots = Vec::with_capacity(size.count_ones() as usize);
        for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
            // The leaves before this subtree are those of the larger ones, so its index is even at its own level.
            roots.push(subtree(Subtree { level, index: (size >> level) - 1 })?);
        }
        Ok(Self { size, roots })
    }

    /// How many leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Digest) {
        self.push_with(leaf, |_, _| ());
    }

    /// Appends a leaf by its hash, and tells of each subtree that this completes, from the leaf itself upwards.
    pub fn push_with(&mut self, leaf: Digest, completed: impl FnMut(Subtree, Digest)) {
        self.push_subtree(0, leaf, completed);
    }

    /// Appends a complete subtree of this height by its root, and tells of each subtree that this completes, from itself upwards.
    ///
    /// # Panics
    /// It does not begin where a subtree of its height begins: the leaves so far are no multiple of its own.
    pub fn push_subtree(&mut self, height: u32, root: Digest, mut completed: impl FnMut(Subtree, Digest)) {
        assert!(self.size.trailing_zeros() >= height, "a subtree begins at a multiple of its leaves");
        let (mut hash, mut level) = (root, height);
        completed(Subtree { level, index: self.size >> level }, hash);
        while self.size >> level & 1 == 1 {
            let left = self.roots.pop().expect("one root for each bit set in the size");
            hash = node_hash(&left, &hash);
            level += 1;
            completed(Subtree { level, index: self.size >> level }, hash);
        }
        self.roots.push(hash);
        self.size += 1 << height;
    }

    /// Appends the first `count` of these leaves, by the subtrees over them, and tells of each subtree that this completes.
    ///
    /// # Panics
    /// The leaves so far are no multiple of a power of two that is at least `count`, or there are no so many more.
    pub fn push_first(&mut self, count: usize, of: &Subtrees, mut completed: impl FnMut(Subtree, Digest)) {
        assert!(count <= of.leaves, "no more leaves are appended than there are");
        for level in (0..usize::BITS).rev().filter(|level| count >> level & 1 == 1) {
            let index = ((count >> level) - 1) as u64;
            self.push_subtree(level, of.root(Subtree { level, index }), &mut completed);
        }
    }

    /// The root over all leaves; of no leaves, SHA-256 of nothing.
    pub fn root(&self) -> Digest {
        let mut smallest_first = self.roots.iter().rev();
        match smallest_first.next() {
            None => Head::empty().root,
            Some(last) => smallest_first.fold(*last, |right, left| node_hash(left, &right)),
        }
    }

    /// Size and root.
    pub fn head(&self) -> Head {
        Head { size: self.size, root: self.root() }
    }

    /// The size as 8 octets, most significant first, then its roots, 32 octets each.
    pub fn to_octets(&self) -> Vec<u8> {
        let Self { size, roots } = self;
        let mut octets = size.to_be_bytes().to_vec();
        octets.extend(roots.iter().flat_map(|root| root.0));
        octets
    }

    /// Reads what [`Frontier::to_octets`] wrote. Whether the roots are those of any leaves is for the caller to check.
    pub fn from_octets(octets: &[u8]) -> Result<Self, MerkleError> {
        let Some((size, roots)) = octets.split_first_chunk() else {
            return Err(MerkleError::FrontierLen { expected: 8, found: octets.len() });
        };
        let size = u64::from_be_bytes(*size);
        let expected = 8 + Digest::LEN * size.count_ones() as usize;
        if octets.len() != expected {
            return Err(MerkleError::FrontierLen { expected, found: octets.len() });
        }
        let (roots, _) = roots.as_chunks();
        Ok(Self { size, roots: roots.iter().copied().map(Digest).collect() })
    }
}

impl Extend<Digest> for Frontier {
    fn extend<I: IntoIterator<Item = Digest>>(&mut self, leaves: I) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

/// The tree over these octet strings, such as the lines of a device list (without their line ends).
pub fn head_of<'a>(leaves: impl IntoIterator<Item = &'a [u8]>) -> Head {
    let mut frontier = Frontier::new();
    frontier.extend(leaves.into_iter().map(leaf_hash));
    frontier.head()
}

/// The root of the first `size` leaves.
pub fn root_at<E>(size: u64, subtree: impl FnMut(Subtree) -> Result<Digest, E>) -> Result<Digest, E> {
    Frontier::load(size, subtree).map(|frontier| frontier.root())
}

/// `PATH(index, D[size])` of RFC 9162 2.1.3.1, from the leaf's sibling upwards.
///
/// `subtree` is asked for complete subtrees within the first `size` leaves only, O(log² n) of them at most.
pub fn inclusion_path<E: From<MerkleError>>(
    index: u64,
    size: u64,
    mut subtree: impl FnMut(Subtree) -> Result<Digest, E>,
) -> Result<Vec<Digest>, E> {
    if index >= size {
        return Err(MerkleError::NoSuchLeaf { index, size }.into());
    }
    let mut path = Vec::new();
    let (mut from, mut until) = (0, size);
    while until - from > 1 {
        let middle = from + split(until - from);
        if index < middle {
            path.push(range_root(middle, until, &mut subtree)?);
            until = middle;
        } else {
            path.push(range_root(from, middle, &mut subtree)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// `PROOF(first, D[second])` of RFC 9162 2.1.4.1. Empty when the sizes are equal or the first is 0.
pub fn consistency_path<E: From<MerkleError>>(
    first: u64,
    second: u64,
    mut subtree: impl FnMut(Subtree) -> Result<Digest, E>,
) -> Result<Vec<Digest>, E> {
    if first > second {
        return Err(MerkleError::SizesReversed { first, second }.into());
    }
    let mut path = Vec::new();
    if first == 0 || first == second {
        return Ok(path);
    }
    // SUBPROOF(m, D_n, b), as a loop: b says whether the range still begins at 0, so that its root is the first root.
    let (mut from, mut until) = (0, second);
    while first < until {
        let middle = from + split(until - from);
        if first <= middle {
            path.push(range_root(middle, until, &mut subtree)?);
            until = middle;
        } else {
            path.push(range_root(from, middle, &mut subtree)?);
            from = middle;
        }
    }
    if from > 0 {
        path.push(range_root(from, until, &mut subtree)?);
    }
    path.reverse();
    Ok(path)
}

/// The largest power of two smaller than `n`, for n > 1: `k` of RFC 9162 2.1.1.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// `MTH(D[from:until])`, where `from` is a multiple of the smallest power of two that is at least `until - from`.
fn range_root<E>(from: u64, until: u64, subtree: &mut impl FnMut(Subtree) -> Result<Digest, E>) -> Result<Digest, E> {
    let len = until - from;
    Frontier::load(len, |part| subtree(Subtree { level: part.level, index: (from >> part.level) + part.index }))
        .map(|frontier| frontier.root())
}

/// Checks that the leaf with this hash stands at `index` in the tree of this head. RFC 9162 2.1.3.2.
pub fn verify_inclusion(leaf: Digest, index: u64, head: &Head, path: &[Digest]) -> Result<(), MerkleError> {
    const WHAT: &str = "inclusion";
    let wrong_len =
        || MerkleError::PathLen { what: WHAT, expected: inclusion_path_len(index, head.size), found: path.len() };
    // 1. Compare leaf_index to tree_size: it must be smaller.
    if index >= head.size {
        return Err(MerkleError::NoSuchLeaf { index, size: head.size });
    }
    // 2. fn = leaf_index, sn = tree_size - 1.
    let (mut fnode, mut snode) = (index, head.size - 1);
    // 3. r = hash.
    let mut root = leaf;
    // 4. For each value p of the path:
    for p in path {
        // a. If sn is 0, fail.
        if snode == 0 {
            return Err(wrong_len());
        }
        // b. If LSB(fn) is set, or if fn equals sn:
        if fnode & 1 == 1 || fnode == snode {
            // i. r = HASH(0x01 || p || r).
            root = node_hash(p, &root);
            // ii. If LSB(fn) is not set, right-shift both until it is or fn is 0.
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            // Otherwise: r = HASH(0x01 || r || p).
            root = node_hash(&root, p);
        }
        // c. Right-shift both once more.
        fnode >>= 1;
        snode >>= 1;
    }
    // 5. sn must be 0 and r the root.
    if snode != 0 {
        return Err(wrong_len());
    }
    same_root(WHAT, "only", head.root, root)
}

/// Checks that the tree of the first head is a prefix of that of the second. RFC 9162 2.1.4.2.
///
/// The RFC's steps are for 0 < first < second. Equal sizes need an empty path and equal roots; the empty tree is a prefix of
/// every tree, with an empty path and its one root.
pub fn verify_consistency(first: &Head, second: &Head, path: &[Digest]) -> Result<(), MerkleError> {
    const WHAT: &str = "consistency";
    let wrong_len = || MerkleError::PathLen {
        what: WHAT,
        expected: consistency_path_len(first.size, second.size),
        found: path.len(),
    };
    if first.size > second.size {
        return Err(MerkleError::SizesReversed { first: first.size, second: second.size });
    }
    if first.size == 0 || first.size == second.size {
        if !path.is_empty() {
            return Err(wrong_len());
        }
        if first.size == 0 {
            same_root(WHAT, "first", first.root, Head::empty().root)?;
        }
        if first.size < second.size {
            return Ok(());
        }
        return same_root(WHAT, "second", second.root, first.root);
    }
    // 2. If first is an exact power of 2, prepend first_hash to the path.
    let mut values = first.size.is_power_of_two().then_some(&first.root).into_iter().chain(path);
    // 3. fn = first - 1, sn = second - 1.
    let (mut fnode, mut snode) = (first.size - 1, second.size - 1);
    // 4. If LSB(fn) is set, right-shift both until it is not.
    while fnode & 1 == 1 {
        fnode >>= 1;
        snode >>= 1;
    }
    // 1. An empty path fails: (with first a power of 2, step 7 sees that sn is not 0). 5. fr = sr = the first value.
    let (mut froot, mut sroot) = match values.next() {
        None => return Err(wrong_len()),
        Some(value) => (*value, *value),
    };
    // 6. For each subsequent value c:
    for c in values {
        // a. If sn is 0, fail.
        if snode == 0 {
            return Err(wrong_len());
        }
        // b. If LSB(fn) is set, or if fn equals sn:
        if fnode & 1 == 1 || fnode == snode {
            // i. fr = HASH(0x01 || c || fr). ii. sr = HASH(0x01 || c || sr).
            froot = node_hash(c, &froot);
            sroot = node_hash(c, &sroot);
            // iii. If LSB(fn) is not set, right-shift both until it is or fn is 0.
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            // Otherwise: sr = HASH(0x01 || sr || c).
            sroot = node_hash(&sroot, c);
        }
        // c. Right-shift both once more.
        fnode >>= 1;
        snode >>= 1;
    }
    // 7. fr must be first_hash, sr second_hash, and sn 0.
    if snode != 0 {
        return Err(wrong_len());
    }
    same_root(WHAT, "first", first.root, froot)?;
    same_root(WHAT, "second", second.root, sroot)
}

fn same_root(what: &'static str, which: &'static str, expected: Digest, found: Digest) -> Result<(), MerkleError> {
    if expected == found { Ok(()) } else { Err(MerkleError::Root { what, which, expected, found }) }
}

/// How many hashes a path has; computed only to say so in an error.
fn inclusion_path_len(index: u64, size: u64) -> usize {
    inclusion_path::<MerkleError>(index, size, |_| Ok(Digest([0; 32]))).map_or(0, |path| path.len())
}

fn consistency_path_len(first: u64, second: u64) -> usize {
    consistency_path::<MerkleError>(first, second, |_| Ok(Digest([0; 32]))).map_or(0, |path| path.len())
}

#[cfg(test)]
mod tests;
