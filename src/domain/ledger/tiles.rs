//! Pure. C2SP tlog-tiles v0.1.0: a ledger as a set of named files. The shell reads and writes them.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::checkpoint::{parse_decimal, shorten};
use super::merkle::{Frontier, Head, LEAF_LEN_MAX, Leaf, MerkleError, Subtree, Subtrees, leaf_hash_behind};
use crate::domain::names::Digest;

/// How many hashes or entries a full tile has.
pub const TILE_WIDTH: u64 = 256;
/// Levels of the tree from one level of tiles to the next: 2^8 is [`TILE_WIDTH`].
pub const TILE_HEIGHT: u32 = 8;
/// A tree of at most 2^64 leaves has no higher level of tiles that is not empty.
const LEVEL_MAX: u8 = 7;

/// The greatest length of a tile file in octets: a full bundle of the longest entries.
pub const TILE_LEN_MAX: usize = 256 * (2 + LEAF_LEN_MAX);

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Entries, each behind its length.
    Entries,
    /// Hashes of subtrees of 256^level leaves.
    Hashes {
        /// 0 to 7.
        level: u8,
    },
}

/// The name of one tile. Its text is the path below the export's directory: `tile/0/x001/x234/067.p/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileName {
    kind: TileKind,
    index: u64,
    /// 1 to 256; 256 is a full tile.
    width: u16,
}

impl TileName {
    /// What it holds.
    pub const fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its place within its level.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds, 1 to 256.
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// The full bundle of that place.
    pub const fn bundle(index: u64) -> Self {
        Self { kind: TileKind::Entries, index, width: 256 }
    }

    fn full(kind: TileKind, index: u64) -> Self {
        Self { kind, index, width: 256 }
    }
}

impl fmt::Display for TileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Entries => f.write_str("tile/entries")?,
            TileKind::Hashes { level } => write!(f, "tile/{level}")?,
        }
        let mut divisor = 1;
        while self.index / divisor >= 1000 {
            divisor *= 1000;
        }
        while divisor > 1 {
            write!(f, "/x{:03}", self.index / divisor % 1000)?;
            divisor /= 1000;
        }
        write!(f, "/{:03}", self.index % 1000)?;
        if u64::from(self.width) < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for TileName {
    type Err = TileError;
    fn from_str(text: &str) -> Result<Self, TileError> {
        let wrong = || TileError::Name { found: shorten(text) };
        let (kind, place) = text.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => {
                let level = parse_decimal(level).and_then(|level| u8::try_from(level).ok()).ok_or_else(wrong)?;
                TileKind::Hashes { level }
            }
        };
        let (place, width) = match place.split_once(".p/") {
            None => (place, 256),
            Some((place, width)) => (place, parse_decimal(width).and_then(|w| w.try_into().ok()).ok_or_else(wrong)?),
        };
        let mut index: u64 = 0;
        for element in place.split('/') {
            let digits = element.strip_prefix('x').unwrap_or(element);
            let value = digits.parse().map_err(|_| wrong())?;
            index = index.checked_mul(1000).and_then(|n| n.checked_add(value)).ok_or_else(wrong)?;
        }
        let name = Self { kind, index, width };
        // One name has one text: what does not come out again as it went in is none.
        let in_range = match kind {
            TileKind::Entries => true,
            TileKind::Hashes { level } => level <= LEVEL_MAX,
        };
        if in_range && (1..=256).contains(&width) && name.to_string() == text { Ok(name) } else { Err(wrong()) }
    }
}

/// Why a set of tiles is not a ledger. `E` is the shell's error from reading a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A path that is no tile's.
    #[error("tile path: expected one such as tile/0/x001/067 or tile/entries/000.p/5, found {found:?}")]
    Name {
        /// The path, cut to 80 characters.
        found: String,
    },
    /// A tile of hashes of the wrong length.
    #[error("{name}: expected {expected} octets, found {found}")]
    Len {
        /// The tile.
        name: TileName,
        /// 32 for each hash.
        expected: usize,
        /// The file's length in octets.
        found: usize,
    },
    /// A bundle of entries that ends early or late.
    #[error("{name}, entry {index} at octet {at}: expected {expected}")]
    Bundle {
        /// The bundle.
        name: TileName,
        /// The entry's index in the ledger.
        index: u64,
        /// The octet in the file.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// An entry and its hash in the tile of level 0 differ.
    #[error("entry {index}: its hash is {found}, but {name} says {expected}; one of the two files was changed")]
    Entry {
        /// The entry's index in the ledger.
        index: u64,
        /// The tile of hashes.
        name: TileName,
        /// The hash there.
        expected: Digest,
        /// The hash of the entry.
        found: Digest,
    },
    /// A hash in a tile above level 0 is not that of the tile below.
    #[error("{name}, hash {at}: expected {expected}, found {found}")]
    Hash {
        /// The tile.
        name: TileName,
        /// Counted from 0 within the tile.
        at: usize,
        /// What the entries hash to.
        expected: Digest,
        /// What stands there.
        found: Digest,
    },
    /// All tiles agree with each other and not with the checkpoint.
    #[error(
        "{size} entries: expected the checkpoint's root {expected}, found {found}; entries were changed or belong to another ledger"
    )]
    Root {
        /// How many entries.
        size: u64,
        /// The checkpoint's root.
        expected: Digest,
        /// The root over the entries.
        found: Digest,
    },
    /// An entry is too long.
    #[error(transparent)]
    Leaf(#[from] MerkleError),
}

/// The names of all tiles of a ledger of this size, and of no others: bundles first, then level by level.
pub fn names(size: u64) -> impl Iterator<Item = TileName> {
    let levels =
        (0..=LEVEL_MAX).map(move |level| (TileKind::Hashes { level }, size >> (TILE_HEIGHT * u32::from(level))));
    std::iter::once((TileKind::Entries, size)).chain(levels).flat_map(|(kind, count)| {
        let full = count / TILE_WIDTH;
        let partial = u16::try_from(count % TILE_WIDTH).expect("a remainder below 256");
        (0..full).map(move |index| TileName::full(kind, index)).chain((partial > 0).then_some(TileName {
            kind,
            index: full,
            width: partial,
        }))
    })
}

/// Makes the tiles of a ledger from its entries in order. Holds one bundle and one tile a level.
#[derive(Debug, Default)]
pub struct Tiler {
    frontier: Frontier,
    bundle: Vec<u8>,
    /// The hashes of the tile begun at each level.
    levels: Vec<Vec<u8>>,
}

impl Tiler {
    /// Of an empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on behind `size` entries, a multiple of 256, whose full tiles are there: `read` gives some of them, at most 255 a level.
    pub fn resume<E: From<TileError>>(
        size: u64,
        mut read: impl FnMut(TileName) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut levels: Vec<Vec<Digest>> = vec![Vec::new()];
        for level in (1..=LEVEL_MAX).take_while(|level| size >> (TILE_HEIGHT * u32::from(*level)) > 0) {
            let count = size >> (TILE_HEIGHT * u32::from(level));
            let mut hashes = Vec::with_capacity(256);
            for index in count / TILE_WIDTH * TILE_WIDTH..count {
                // A hash is the root over the full tile below it.
                let name = TileName::full(TileKind::Hashes { level: level - 1 }, index);
                let mut below = Frontier::new();
                below.extend(split_hashes(name, &read(name)?)?);
                hashes.push(below.root());
            }
            levels.push(hashes);
        }
        let frontier = Frontier::load(size, |subtree| {
            // The subtrees of a size are those over the hashes of the tile begun at each level.
            let level = subtree.level / TILE_HEIGHT;
            let (len, from) = (1 << (subtree.level % TILE_HEIGHT), subtree.index << (subtree.level % TILE_HEIGHT));
            let at = usize::try_from(from % TILE_WIDTH).expect("below 256");
            let mut part = Frontier::new();
            part.extend(levels[level as usize][at..at + len].iter().copied());
            Ok::<_, E>(part.root())
        })?;
        let levels = levels.into_iter().map(|hashes| hashes.into_iter().flat_map(|hash| hash.0).collect()).collect();
        Ok(Self { frontier, bundle: Vec::new(), levels })
    }

    /// How many entries so far, and the root over them.
    pub fn head(&self) -> Head {
        self.frontier.head()
    }

    /// Appends one entry; `emit` is given each tile that this fills.
    pub fn push<E>(
        &mut self,
        leaf: &Leaf<'_>,
        mut emit: impl FnMut(TileName, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let index = self.frontier.size();
        let len = u16::try_from(leaf.octets().len()).expect("a Leaf has at most 65,535 octets");
        self.bundle.extend(len.to_be_bytes());
        self.bundle.extend(leaf.octets());
        let levels = &mut self.levels;
        self.frontier.push_with(leaf.hash(), |subtree, hash| {
            if subtree.level.is_multiple_of(TILE_HEIGHT) {
                let level = (subtree.level / TILE_HEIGHT) as usize;
                if levels.len() == level {
                    levels.push(Vec::with_capacity(256 * Digest::LEN));
                }
                levels[level].extend(hash.0);
            }
        });
        if (index + 1).is_multiple_of(TILE_WIDTH) {
            emit(TileName::full(TileKind::Entries, index / TILE_WIDTH), &self.bundle)?;
            self.bundle.clear();
        }
        for (level, hashes) in (0..).zip(&mut self.levels) {
            if hashes.len() < 256 * Digest::LEN {
                break;
            }
            emit(TileName::full(TileKind::Hashes { level }, index >> (TILE_HEIGHT * u32::from(level + 1))), hashes)?;
            hashes.clear();
        }
        Ok(())
    }

    /// Emits the partial tiles, and answers the head over all entries.
    pub fn finish<E>(self, mut emit: impl FnMut(TileName, &[u8]) -> Result<(), E>) -> Result<Head, E> {
        let Self { frontier, bundle, levels } = self;
        let size = frontier.size();
        let partial = |kind, count: u64| TileName {
            kind,
            index: count / TILE_WIDTH,
            width: u16::try_from(count % TILE_WIDTH).expect("a remainder below 256"),
        };
        if !bundle.is_empty() {
            emit(partial(TileKind::Entries, size), &bundle)?;
        }
        for (level, hashes) in (0..).zip(&levels).filter(|(_, hashes)| !hashes.is_empty()) {
            emit(partial(TileKind::Hashes { level }, size >> (TILE_HEIGHT * u32::from(level))), hashes)?;
        }
        Ok(frontier.head())
    }
}

/// Where each entry of a bundle lies in its octets, in order. Before each stands its length, two octets.
pub fn places(name: TileName, octets: &[u8]) -> Result<Vec<Range<usize>>, TileError> {
    let mut places = Vec::with_capacity(name.width.into());
    let mut until = 0;
    for index in (name.index * TILE_WIDTH..).take(name.width.into()) {
        let wrong = |expected| TileError::Bundle { name, index, at: until, expected };
        let len = octets[until..].first_chunk().ok_or_else(|| wrong("its length in 2 octets, found the end"))?;
        let (from, len) = (until + 2, usize::from(u16::from_be_bytes(*len)));
        if octets.len() - from < len {
            return Err(wrong("as many octets as its length says"));
        }
        if len == 0 {
            return Err(wrong("at least one octet"));
        }
        until = from + len;
        places.push(from..until);
    }
    if until == octets.len() {
        Ok(places)
    } else {
        let index = name.index * TILE_WIDTH + u64::from(name.width);
        Err(TileError::Bundle { name, index, at: until, expected: "the end of the file after the last entry" })
    }
}

/// The entries of a bundle, in order, with their indices in the ledger.
pub fn entries(name: TileName, octets: &[u8]) -> Result<Vec<(u64, &[u8])>, TileError> {
    let places = places(name, octets)?;
    Ok((name.index * TILE_WIDTH..).zip(places).map(|(index, place)| (index, &octets[place])).collect())
}

/// The names of the bundles of a ledger of this size, in order.
pub fn bundles(size: u64) -> impl Iterator<Item = TileName> {
    names(size).take_while(|name| name.kind == TileKind::Entries)
}

/// A bundle whose entries were hashed: each bundle by itself, so that several are on several processors.
#[derive(Debug)]
pub struct Bundle {
    /// Where the entries lie whose hash is the one that the tile of level 0 says, up to the first that is another.
    pub entries: Vec<Range<usize>>,
    /// The tree over these.
    pub tree: Subtrees,
    /// That one.
    pub fault: Option<TileError>,
}

impl Bundle {
    /// The tile of level 0 beside a bundle.
    pub const fn hashes_name(bundle: TileName) -> TileName {
        TileName { kind: TileKind::Hashes { level: 0 }, ..bundle }
    }

    /// Hashes the entries of a bundle; `hashes` is the file of [`Bundle::hashes_name`]. The octets are left as they are found.
    ///
    /// Of SHA-256 this takes half as much again as the octets by themselves: an entry of 300 octets is five blocks, and two more are the
    /// node above it.
    pub fn check(bundle: TileName, octets: &mut [u8], hashes: &[u8]) -> Result<Self, TileError> {
        let name = Self::hashes_name(bundle);
        check_len(name, hashes)?;
        let mut entries = places(bundle, octets)?;
        let mut leaves = Vec::with_capacity(2 * entries.len());
        let mut fault = None;
        for (at, (place, expected)) in entries.iter().zip(hashes.as_chunks().0).enumerate() {
            // An octet of its length stands before it.
            let found = leaf_hash_behind(&mut octets[place.start - 1..place.end]);
            if found.0 != *expected {
                let index = bundle.index * TILE_WIDTH + at as u64;
                fault = Some(TileError::Entry { index, name, expected: Digest(*expected), found });
                break;
            }
            leaves.push(found);
        }
        entries.truncate(leaves.len());
        Ok(Self { entries, tree: Subtrees::over(leaves), fault })
    }
}

/// The tree over bundles as they come in order; every tile above level 0 is compared when it is full.
///
/// Nothing seen is known to belong to a head before [`Tree::finish`] answers `Ok`.
#[derive(Debug, Default)]
pub struct Tree {
    frontier: Frontier,
    /// Hashes of level 1 and above, as they come to be; 1/255 of the leaf hashes would be much in a large ledger, so each tile is
    /// dropped once it was compared.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// Of an empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries.
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The next bundle, as the tree over it. `read` is asked for each tile that it fills.
    pub fn push<E: From<TileError>>(
        &mut self,
        bundle: &Subtrees,
        mut read: impl FnMut(TileName) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let levels = &mut self.levels;
        let completed = |subtree, hash| keep(levels, subtree, hash);
        self.frontier.push_first(bundle.leaves().len(), bundle, completed);
        for (level, hashes) in (1..).zip(&mut self.levels) {
            if hashes.len() < 256 {
                break;
            }
            let index = (self.frontier.size() - 1) >> (TILE_HEIGHT * u32::from(level + 1));
            compare(TileName::full(TileKind::Hashes { level }, index), hashes, &mut read)?;
            hashes.clear();
        }
        Ok(())
    }

    /// After the last bundle: the tiles that are not full, and the root.
    pub fn finish<E: From<TileError>>(
        self,
        head: &Head,
        mut read: impl FnMut(TileName) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        for (level, hashes) in (1..).zip(&self.levels).filter(|(_, hashes)| !hashes.is_empty()) {
            let index = head.size >> (TILE_HEIGHT * u32::from(level + 1));
            let width = u16::try_from(hashes.len()).expect("full tiles are gone, so below 256");
            compare(TileName { kind: TileKind::Hashes { level }, index, width }, hashes, &mut read)?;
        }
        let found = self.frontier.root();
        if found == head.root {
            Ok(())
        } else {
            Err(TileError::Root { size: head.size, expected: head.root, found }.into())
        }
    }
}

/// Keeps the hashes that stand in tiles above level 0.
fn keep(levels: &mut Vec<Vec<Digest>>, subtree: Subtree, hash: Digest) {
    let level = (subtree.level / TILE_HEIGHT) as usize;
    if level > 0 && subtree.level.is_multiple_of(TILE_HEIGHT) {
        if levels.len() < level {
            levels.push(Vec::with_capacity(256));
        }
        levels[level - 1].push(hash);
    }
}

fn check_len(name: TileName, hashes: &[u8]) -> Result<(), TileError> {
    let (expected, found) = (usize::from(name.width) * Digest::LEN, hashes.len());
    if found == expected { Ok(()) } else { Err(TileError::Len { name, expected, found }) }
}

fn split_hashes(name: TileName, octets: &[u8]) -> Result<Vec<Digest>, TileError> {
    check_len(name, octets)?;
    Ok(octets.as_chunks().0.iter().copied().map(Digest).collect())
}

fn compare<E: From<TileError>>(
    name: TileName,
    expected: &[Digest],
    read: &mut impl FnMut(TileName) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let found = split_hashes(name, &read(name)?)?;
    match expected.iter().zip(&found).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(TileError::Hash { name, at, expected: expected[at], found: found[at] }.into()),
    }
}

#[cfg(test)]
mod tests;
