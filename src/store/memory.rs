//! Shell: a store in memory, for tests. It keeps the contract by copying all it has for each transaction, and nothing for longer
//! than it lives.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::{Bound, ControlFlow, Range};
use std::sync::{Arc, PoisonError, RwLock};

use super::derived::{each_listed, out_of_order};
use super::{
    Base, Batch, Derived, DerivedState, Reader, Rebuild, SignatureRow, Staging, StagingLimits, Store, StoreError,
    StoredCheckpoint, StoredLeaf, Vouch,
};
use crate::domain::determination::document::DeviceList;
use crate::domain::fold::RequestFacts;
use crate::domain::fold::snapshot::{self, Pages, Row, Rows, Table};
use crate::domain::ledger::merkle::{Frontier, Head, Leaf, MerkleError, Subtree, leaf_hash};
use crate::domain::ledger::tiles::TILE_HEIGHT;
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};
use crate::domain::responses::{ImportedKey, Responded};

#[derive(Clone, Debug, Default)]
struct Tables {
    devices: BTreeMap<(KeyLabel, DeviceId), DeviceFacts>,
    /// Each with the SHA-256 of its blob.
    lists: BTreeMap<DeterminationId, (Digest, BTreeMap<DeviceId, Listed>)>,
    signatures: BTreeMap<u64, SignatureRow>,
    requests: BTreeMap<RequestId, RequestFacts>,
    earlier: BTreeMap<(KeyLabel, DeviceId, u64), u64>,
    responses: BTreeMap<(DeterminationId, DeviceId), Responded>,
    device_keys: BTreeMap<DeviceId, Vec<ImportedKey>>,
}

/// A leaf's hash and its octets.
type Stored = (Digest, Arc<[u8]>);

#[derive(Clone, Debug, Default)]
struct State {
    leaves: Vec<Stored>,
    nodes: BTreeMap<(u32, u64), Digest>,
    frontier: Frontier,
    checkpoints: BTreeMap<u64, StoredCheckpoint>,
    blobs: BTreeMap<Digest, Arc<[u8]>>,
    tables: Arc<Tables>,
    parts: BTreeMap<String, Vec<u8>>,
}

impl Rows for Tables {
    type Error = StoreError;

    fn rows_from(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut rows: Vec<Row<'_>> = match table {
            Table::Device => {
                let rows = self.devices.iter();
                rows.map(|((key, device), facts)| Row::Device { key, device: *device, facts }).collect()
            }
            Table::Request => self.requests.iter().map(|(id, facts)| Row::Request { id: *id, facts }).collect(),
            Table::Earlier => {
                let rows = self.earlier.iter();
                rows.map(|((key, device, counter), intent)| Row::Earlier {
                    key,
                    device: *device,
                    counter: *counter,
                    intent: *intent,
                })
                .collect()
            }
            Table::Response => {
                let rows = self.responses.iter();
                rows.map(|((determination, device), responded)| Row::Response {
                    determination: *determination,
                    device: *device,
                    responded,
                })
                .collect()
            }
            Table::DeviceKey => self.device_keys.values().flatten().map(Row::DeviceKey).collect(),
        };
        rows.sort_by_cached_key(Row::key);
        let mut rows = rows.into_iter().filter(|row| *row.key() >= *from);
        while let Some(row) = rows.next()
            && visit(row).is_continue()
        {}
        Ok(())
    }
}

impl Tables {
    fn kept(&self) -> Result<snapshot::Tables, StoreError> {
        snapshot::of_each(|table| Ok(Pages::made(table, self, |_| ())?.kept()))
    }

    fn apply(&mut self, blobs: &BTreeMap<Digest, Arc<[u8]>>, derived: &Derived<'_>) -> Result<(), StoreError> {
        match derived {
            Derived::Device { key, device, row } => {
                if let Some(before) = self.devices.insert(((*key).clone(), *device), (*row).clone())
                    && before.is_overtaken_by(row)
                {
                    self.earlier.insert(((*key).clone(), *device, before.counter), before.intent);
                }
            }
            Derived::List { determination, blob, pages: _ } => {
                if self.lists.contains_key(determination) {
                    return Err(StoreError::ListExists { determination: *determination });
                }
                let octets = blobs.get(blob).ok_or(StoreError::NoSuchBlob { digest: *blob })?;
                let mut list = BTreeMap::new();
                each_listed(*blob, &octets[..], |number, _, listed| {
                    let device = listed.device;
                    if let Some((before, _)) = list.last_key_value().filter(|(before, _)| **before >= device) {
                        return Err(out_of_order(*blob, number, *before == device, device));
                    }
                    list.insert(device, listed);
                    Ok(())
                })?;
                self.lists.insert(*determination, (*blob, list));
            }
            Derived::Signature { intent, octets, released } => {
                let row = SignatureRow { octets: **octets, released: *released };
                if self.signatures.insert(*intent, row).is_some() {
                    return Err(StoreError::SignatureExists { intent: *intent });
                }
            }
            Derived::Released { from, until } => {
                self.signatures.range_mut(*from..*until).for_each(|(_, row)| row.released = true);
            }
            Derived::Responses { determination, entry, lines } => {
                for (device, line) in lines.iter().filter_map(|line| Some((line.device?, line))) {
                    let mut responded = self.responses.get(&(*determination, device)).cloned().unwrap_or_default();
                    if responded.absorb(line, *entry) {
                        self.responses.insert((*determination, device), responded);
                    }
                }
            }
            Derived::DeviceKeys { entry, keys } => {
                let keys = keys.iter().map(|&key| ImportedKey { key, entry: *entry });
                keys.for_each(|imported| self.device_keys.entry(imported.key.device).or_default().push(imported));
            }
            Derived::Request { id, row } => {
                self.requests.insert(*id, **row);
            }
        }
        Ok(())
    }
}

/// From after this place on.
fn after<T>(place: Option<T>) -> (Bound<T>, Bound<T>) {
    (place.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

/// Has derived tables.
trait Tabled {
    fn tables(&self) -> Arc<Tables>;
}

impl Tabled for Shared {
    fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.state().tables)
    }
}

impl Tabled for Remaking {
    fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }
}

impl<S: Tabled> DerivedState for Memory<S> {
    fn device(&self, key: &KeyLabel, device: DeviceId) -> Result<Option<DeviceFacts>, StoreError> {
        Ok(self.0.tables().devices.get(&(key.clone(), device)).cloned())
    }

    fn devices_in(
        &self,
        key: &KeyLabel,
        state: IntentState,
        from: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<(DeviceId, DeviceFacts)>, StoreError> {
        let tables = self.0.tables();
        let rows = tables
            .devices
            .iter()
            .filter(|((k, device), row)| k == key && row.state == state && from.is_none_or(|from| *device > from));
        Ok(rows.map(|((_, device), row)| (*device, row.clone())).take(limit).collect())
    }

    fn listed(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Listed>, StoreError> {
        Ok(self.0.tables().lists.get(&determination).and_then(|(_, list)| list.get(&device)).cloned())
    }

    fn listed_from(
        &self,
        determination: DeterminationId,
        from: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let tables = self.0.tables();
        let list = tables.lists.get(&determination).into_iter();
        Ok(list.flat_map(|(_, list)| list.range(after(from))).map(|(_, listed)| listed.clone()).take(limit).collect())
    }

    fn list_head(&self, determination: DeterminationId) -> Result<Option<DeviceList>, StoreError> {
        let tables = self.0.tables();
        let head = |(blob, list): &(Digest, BTreeMap<DeviceId, Listed>)| {
            let mut tree = Frontier::new();
            for Listed { device, template, counter } in list.values() {
                let counter = counter.map(|counter| format!(",{counter}")).unwrap_or_default();
                tree.push(leaf_hash(format!("{device},{template}{counter}").as_bytes()));
            }
            DeviceList { count: list.len() as u64, sha256: *blob, root: tree.root() }
        };
        Ok(tables.lists.get(&determination).map(head))
    }

    fn listed_count(&self, determination: DeterminationId) -> Result<Option<u64>, StoreError> {
        Ok(self.0.tables().lists.get(&determination).map(|(_, list)| list.len() as u64))
    }

    fn signature(&self, intent: u64) -> Result<Option<SignatureRow>, StoreError> {
        Ok(self.0.tables().signatures.get(&intent).copied())
    }

    fn released_from(&self, from: u64, limit: usize) -> Result<Vec<(u64, [u8; 64])>, StoreError> {
        let tables = self.0.tables();
        let released = tables.signatures.range(from..).filter(|(_, row)| row.released);
        Ok(released.map(|(intent, row)| (*intent, row.octets)).take(limit).collect())
    }

    fn request(&self, id: RequestId) -> Result<Option<RequestFacts>, StoreError> {
        Ok(self.0.tables().requests.get(&id).copied())
    }

    fn earlier(&self, key: &KeyLabel, device: DeviceId, counter: u64) -> Result<Option<u64>, StoreError> {
        Ok(self.0.tables().earlier.get(&(key.clone(), device, counter)).copied())
    }

    fn responded(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Responded>, StoreError> {
        Ok(self.0.tables().responses.get(&(determination, device)).cloned())
    }

    fn device_keys(&self, device: DeviceId) -> Result<Vec<ImportedKey>, StoreError> {
        Ok(self.0.tables().device_keys.get(&device).cloned().unwrap_or_default())
    }

    fn has_device_keys(&self) -> Result<bool, StoreError> {
        Ok(!self.0.tables().device_keys.is_empty())
    }
}

/// Something that has derived tables, as a store or as a rebuild.
#[derive(Clone, Debug)]
pub struct Memory<S>(S);

/// The store and its readers: all of them see the same.
pub type MemoryStore = Memory<Shared>;

/// What a [`MemoryStore`] and its readers share.
#[derive(Clone, Debug)]
pub struct Shared {
    state: Arc<RwLock<Arc<State>>>,
    staging: Arc<Staging>,
    /// Where uploads lie; removed with the last handle.
    _directory: Arc<tempfile::TempDir>,
}

impl MemoryStore {
    /// An empty ledger.
    pub fn new(limits: StagingLimits) -> Result<Self, StoreError> {
        let failed = |source| StoreError::File { doing: "make a directory in", path: std::env::temp_dir(), source };
        let directory = tempfile::tempdir().map_err(failed)?;
        let staging = Staging::open(&directory.path().join("staging"), limits)?;
        Ok(Self(Shared { state: Arc::default(), staging: Arc::new(staging), _directory: Arc::new(directory) }))
    }
}

impl Shared {
    fn state(&self) -> Arc<State> {
        // A state is replaced whole, so that a panic elsewhere leaves a good one.
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }
}

impl State {
    fn range(&self, range: &Range<u64>) -> Result<&[Stored], StoreError> {
        let size = self.frontier.size();
        if range.is_empty() {
            return Ok(&[]);
        }
        let index = |n| usize::try_from(n).ok().filter(|n| *n <= self.leaves.len());
        match (index(range.start), index(range.end)) {
            (Some(start), Some(end)) => Ok(&self.leaves[start..end]),
            (None, _) | (_, None) => Err(MerkleError::NoSuchLeaf { index: range.end - 1, size }.into()),
        }
    }
}

impl Reader for MemoryStore {
    fn head(&self) -> Result<Head, StoreError> {
        Ok(self.0.state().frontier.head())
    }

    fn leaves(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(StoredLeaf<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let state = self.0.state();
        for (index, (hash, octets)) in (range.start..).zip(state.range(&range)?) {
            let found = leaf_hash(octets);
            if found != *hash {
                return Err(StoreError::LeafCorrupt { index, expected: *hash, found });
            }
            if visit(StoredLeaf { index, octets, hash: *hash }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn leaf_hashes(&self, range: Range<u64>, visit: &mut dyn FnMut(Digest)) -> Result<(), StoreError> {
        self.0.state().range(&range)?.iter().for_each(|(hash, _)| visit(*hash));
        Ok(())
    }

    fn node(&self, subtree: Subtree) -> Result<Option<Digest>, StoreError> {
        Ok(self.0.state().nodes.get(&(subtree.level, subtree.index)).copied())
    }

    fn checkpoints(&self, from_size: u64, limit: usize) -> Result<Vec<StoredCheckpoint>, StoreError> {
        Ok(self
            .0
            .state()
            .checkpoints
            .range(from_size..)
            .map(|(_, checkpoint)| checkpoint.clone())
            .take(limit)
            .collect())
    }

    fn latest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, StoreError> {
        Ok(self.0.state().checkpoints.last_key_value().map(|(_, checkpoint)| checkpoint.clone()))
    }

    fn blob_len(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.0.state().blobs.get(&digest).map(|octets| octets.len() as u64))
    }

    fn open_blob(&self, digest: Digest) -> Result<Box<dyn Read + '_>, StoreError> {
        let octets = self.0.state().blobs.get(&digest).cloned().ok_or(StoreError::NoSuchBlob { digest })?;
        Ok(Box::new(std::io::Cursor::new(octets)))
    }
}

impl Store for MemoryStore {
    fn append_at(
        &mut self,
        expected_size: u64,
        batch: &Batch<'_>,
        coming: &mut dyn FnMut(Head),
    ) -> Result<Head, StoreError> {
        let Batch { leaves, blobs, staged, derived } = *batch;
        if leaves.is_empty() {
            return Err(StoreError::NoLeaves);
        }
        let mut state = State::clone(&self.0.state());
        if state.frontier.size() != expected_size {
            return Err(StoreError::SizeMoved { expected: expected_size, found: state.frontier.size() });
        }
        let State { leaves: stored, nodes, frontier, blobs: stored_blobs, tables, checkpoints: _, parts: _ } =
            &mut state;
        for leaf in leaves {
            stored.push((leaf.hash(), leaf.octets().into()));
            frontier.push_with(leaf.hash(), |subtree, hash| {
                if subtree.level > 0 && subtree.level.is_multiple_of(TILE_HEIGHT) {
                    nodes.insert((subtree.level, subtree.index), hash);
                }
            });
        }
        coming(frontier.head());
        for (digest, octets) in blobs {
            stored_blobs.insert(*digest, (*octets).into());
        }
        for digest in staged {
            if stored_blobs.contains_key(digest) {
                continue;
            }
            let mut file = self.0.staging.open_staged(*digest)?.ok_or(StoreError::NotStaged { digest: *digest })?;
            let mut octets = Vec::new();
            file.read_to_end(&mut octets).map_err(super::StagingError::Source)?;
            let found = Digest::of(&octets);
            if found != *digest {
                return Err(StoreError::BlobCorrupt { digest: *digest, found });
            }
            stored_blobs.insert(*digest, octets.into());
        }
        let tables = Arc::make_mut(tables);
        derived.iter().try_for_each(|derived| tables.apply(stored_blobs, derived))?;
        let head = frontier.head();
        self.0.replace(state);
        self.0.staging.forget(staged);
        Ok(head)
    }

    fn put_checkpoint(&mut self, head: Head, note: &[u8]) -> Result<(), StoreError> {
        let expected = self.root_at(head.size)?;
        if head.root != expected {
            return Err(StoreError::CheckpointMismatch { size: head.size, expected, found: head.root });
        }
        let mut state = State::clone(&self.0.state());
        state.checkpoints.entry(head.size).or_insert_with(|| StoredCheckpoint { head, note: note.into() });
        self.0.replace(state);
        Ok(())
    }

    /// Its rows are always those of now.
    fn base(&self) -> Result<Base, StoreError> {
        Ok(Base { size: self.head()?.size, snapshot: None })
    }

    fn part(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.state().parts.get(name).cloned())
    }

    fn make_pages(&mut self) -> Result<(), StoreError> {
        // It makes all of them each time.
        Ok(())
    }

    fn believe(&mut self, tables: &snapshot::Tables, _now: bool) -> Result<(), StoreError> {
        for ((table, found), expected) in Table::ALL.into_iter().zip(self.0.tables().kept()?).zip(tables) {
            if found != *expected {
                return Err(StoreError::PagesDiffer {
                    table: table.as_str(),
                    expected: Box::new(*expected),
                    found: Box::new(found),
                });
            }
        }
        Ok(())
    }

    fn replay(&mut self, _derived: &[Derived<'_>]) -> Result<(), StoreError> {
        Ok(())
    }

    fn waiting(&self) -> usize {
        0
    }

    fn snapshot_at(&mut self, expected_size: u64, vouch: &mut dyn Vouch) -> Result<Option<Head>, StoreError> {
        let before = self.0.state();
        let mut parts = Vec::new();
        vouch.parts(&mut |name, octets| {
            parts.push((name.to_owned(), octets.to_vec()));
            Ok(())
        })?;
        let Some(octets) = vouch.leaf(&before.tables.kept()?) else { return Ok(None) };
        let leaves = [Leaf::new(&octets)?];
        let head = self.append_at(expected_size, &Batch { leaves: &leaves, ..Batch::default() }, &mut |_| ())?;
        let Some(note) = vouch.note(head) else {
            self.0.replace(State::clone(&before));
            return Ok(None);
        };
        let mut state = State::clone(&self.0.state());
        state.parts.extend(parts);
        self.0.replace(state);
        self.put_checkpoint(head, &note)?;
        Ok(Some(head))
    }

    fn hold(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn let_go(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn staging(&self) -> &Arc<Staging> {
        &self.0.staging
    }

    fn reader(&self) -> Result<Box<dyn Reader + Send>, StoreError> {
        Ok(Box::new(self.clone()))
    }

    fn rebuild(&mut self) -> Result<Box<dyn Rebuild + '_>, StoreError> {
        Ok(Box::new(Memory(Remaking { state: self.0.state(), tables: Arc::default() })))
    }
}

struct Remaking {
    state: Arc<State>,
    tables: Arc<Tables>,
}

/// The first entry that the two maps do not share.
fn compare<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    table: &'static str,
    recorded: &BTreeMap<K, V>,
    rebuilt: &BTreeMap<K, V>,
) -> Result<(), StoreError> {
    let (mut recorded, mut rebuilt) = (recorded.iter(), rebuilt.iter());
    loop {
        let say = |row: Option<(&K, &V)>| row.map_or("nothing".into(), |(key, row)| format!("{key:?} {row:?}"));
        match (recorded.next(), rebuilt.next()) {
            (None, None) => return Ok(()),
            (a, b) if a == b => {}
            (a, b) => return Err(StoreError::DerivedDiffers { table, recorded: say(a), rebuilt: say(b) }),
        }
    }
}

impl Rebuild for Memory<Remaking> {
    fn apply(&mut self, derived: &[Derived<'_>]) -> Result<(), StoreError> {
        let tables = Arc::make_mut(&mut self.0.tables);
        derived.iter().try_for_each(|derived| tables.apply(&self.0.state.blobs, derived))
    }

    fn replay(&mut self, _derived: &[Derived<'_>]) -> Result<(), StoreError> {
        Ok(())
    }

    fn tables(&self) -> Result<snapshot::Tables, StoreError> {
        self.0.tables.kept()
    }

    fn compare_lists(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn compare_and_finish(self: Box<Self>) -> Result<(), StoreError> {
        let recorded = &self.0.state.tables;
        compare("device", &recorded.devices, &self.0.tables.devices)?;
        compare("listed", &recorded.lists, &self.0.tables.lists)?;
        compare("signature", &recorded.signatures, &self.0.tables.signatures)?;
        compare("request", &recorded.requests, &self.0.tables.requests)?;
        compare("earlier", &recorded.earlier, &self.0.tables.earlier)?;
        compare("response", &recorded.responses, &self.0.tables.responses)?;
        compare("device_key", &recorded.device_keys, &self.0.tables.device_keys)
    }
}
