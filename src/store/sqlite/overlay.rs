//! Shell: what grows with Devices, as of now: the rows in the tables, which are as of the last snapshot, and over them in memory those
//! that changed since. The ledger is the log of these: a start folds the entries after the snapshot again.
//!
//! Rows are believed page by page: the first read within a page hashes it and compares with the page's digest, which the snapshot
//! entry commits to. Where no snapshot was taken yet, a start has compared every row with what the ledger makes.

use std::collections::btree_map::{BTreeMap, Entry};
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use rusqlite::{Connection, OptionalExtension as _};

use super::super::{Derived, StoreError};
use super::derived::{self, Schema, StoredRows};
use super::device_keys;
use crate::domain::fold::RequestFacts;
use crate::domain::fold::snapshot::rows::{device_key, earlier_key, imported_key, put_device_key, response_key};
use crate::domain::fold::snapshot::{Made, Page, Pages, Renewed, Rows as _, Table, Tables, Touched, of_each};
use crate::domain::ledger::snapshots::TableKept;
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState};
use crate::domain::responses::{DeviceKey, ImportedKey, Responded};

/// Rows that changed since the last snapshot.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    devices: BTreeMap<KeyLabel, BTreeMap<DeviceId, DeviceFacts>>,
    requests: BTreeMap<RequestId, RequestFacts>,
    earlier: BTreeMap<KeyLabel, BTreeMap<(DeviceId, u64), u64>>,
    /// Of each only what was said since, which stands over what the row has.
    responses: BTreeMap<DeterminationId, BTreeMap<DeviceId, Responded>>,
    /// Each with the entry that it came with.
    device_keys: BTreeMap<DeviceKey, u64>,
    len: usize,
}

impl Overlay {
    /// How many rows it has.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn device(&self, key: &KeyLabel, device: DeviceId) -> Option<&DeviceFacts> {
        self.devices.get(key)?.get(&device)
    }

    fn earlier(&self, key: &KeyLabel, device: DeviceId, counter: u64) -> Option<u64> {
        self.earlier.get(key)?.get(&(device, counter)).copied()
    }

    /// The keys of a Device.
    fn device_keys(&self, device: DeviceId) -> impl Iterator<Item = ImportedKey> {
        let from = self.device_keys.range(DeviceKey::least_of(device)..);
        let theirs = from.take_while(move |(key, _)| key.device == device);
        theirs.map(|(key, entry)| ImportedKey { key: *key, entry: *entry })
    }

    fn put_device(&mut self, key: &KeyLabel, device: DeviceId, facts: DeviceFacts) {
        self.len += usize::from(under(&mut self.devices, key).insert(device, facts).is_none());
    }

    fn put_earlier(&mut self, key: &KeyLabel, device: DeviceId, counter: u64, intent: u64) {
        self.len += usize::from(under(&mut self.earlier, key).insert((device, counter), intent).is_none());
    }

    fn put_request(&mut self, id: RequestId, facts: RequestFacts) {
        self.len += usize::from(self.requests.insert(id, facts).is_none());
    }

    fn put_responded(&mut self, determination: DeterminationId, device: DeviceId, responded: Responded) {
        match self.responses.entry(determination).or_default().entry(device) {
            Entry::Vacant(place) => {
                place.insert(responded);
                self.len += 1;
            }
            Entry::Occupied(mut place) => {
                let before = std::mem::take(place.get_mut());
                place.insert(responded.over(before));
            }
        }
    }

    fn put_device_key(&mut self, key: DeviceKey, entry: u64) {
        if let Entry::Vacant(place) = self.device_keys.entry(key) {
            place.insert(entry);
            self.len += 1;
        }
    }

    /// Puts later rows over these.
    fn extend(&mut self, later: Self) {
        let Self { devices, requests, earlier, responses, device_keys, len: _ } = later;
        for (key, entry) in device_keys {
            self.put_device_key(key, entry);
        }
        for (key, devices) in devices {
            for (device, facts) in devices {
                self.put_device(&key, device, facts);
            }
        }
        for (id, facts) in requests {
            self.put_request(id, facts);
        }
        for (key, rows) in earlier {
            for ((device, counter), intent) in rows {
                self.put_earlier(&key, device, counter, intent);
            }
        }
        for (id, rows) in responses {
            for (device, responded) in rows {
                self.put_responded(id, device, responded);
            }
        }
    }

    /// The keys of the rows of a table, in order.
    fn keys(&self, table: Table) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = match table {
            Table::Device => {
                let rows = self.devices.iter().flat_map(|(key, rows)| rows.keys().map(move |device| (key, *device)));
                rows.map(|(key, device)| device_key(key, device)).collect()
            }
            Table::Request => self.requests.keys().map(|id| id.octets().to_vec()).collect(),
            Table::Earlier => {
                let rows = self.earlier.iter().flat_map(|(key, rows)| rows.keys().map(move |row| (key, *row)));
                rows.map(|(key, (device, counter))| earlier_key(key, device, counter)).collect()
            }
            Table::DeviceKey => self.device_keys.keys().map(imported_key).collect(),
            Table::Response => {
                let rows = self.responses.iter().flat_map(|(id, rows)| rows.keys().map(move |device| (*id, *device)));
                rows.map(|(id, device)| response_key(id, device).to_vec()).collect()
            }
        };
        keys.sort_unstable();
        keys
    }

    /// Writes the rows into the tables.
    pub(super) fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        for (key, rows) in &self.devices {
            for (device, facts) in rows {
                derived::put_device(connection, Schema::Main, key, *device, facts)?;
            }
        }
        for (id, facts) in &self.requests {
            derived::put_request(connection, Schema::Main, *id, facts)?;
        }
        for (key, rows) in &self.earlier {
            for ((device, counter), intent) in rows {
                derived::put_earlier(connection, key, *device, *counter, *intent)?;
            }
        }
        let responses = self.responses.iter().flat_map(|(id, rows)| {
            let id = *id;
            rows.iter().map(move |(device, said)| (id, *device, said))
        });
        derived::put_responded(connection, Schema::Main, responses)?;
        device_keys::add(connection, Schema::Main, self.device_keys.iter().map(|(key, entry)| (key, *entry)))
    }
}

/// The rows under a key, without a copy of its label where there are some.
fn under<'a, T: Default>(all: &'a mut BTreeMap<KeyLabel, T>, key: &KeyLabel) -> &'a mut T {
    if !all.contains_key(key) {
        all.insert(key.clone(), T::default());
    }
    all.get_mut(key).expect("it was put there")
}

/// The pages of a table, where each lies, and which of them were compared with their rows since the start.
#[derive(Debug)]
struct Held {
    pages: Pages,
    marks: Vec<Mark>,
    /// The page that was looked for last.
    near: AtomicUsize,
}

/// What is known of a page besides.
#[derive(Debug)]
struct Mark {
    /// Its row in `row_page`.
    id: i64,
    /// It was compared with its rows.
    seen: AtomicBool,
}

impl Mark {
    const fn new(id: i64, seen: bool) -> Self {
        Self { id, seen: AtomicBool::new(seen) }
    }
}

impl Held {
    fn new((pages, ids): (Pages, Vec<i64>), seen: bool) -> Self {
        Self { pages, marks: ids.into_iter().map(|id| Mark::new(id, seen)).collect(), near: AtomicUsize::new(0) }
    }

    /// The page of a key as `search` finds it. Many are looked up in order, and most lie in the page of the one before.
    fn find(&self, key: &[u8], search: impl FnOnce(&Pages) -> Option<usize>) -> Option<usize> {
        let near = self.near.load(Ordering::Relaxed);
        if self.pages.all().get(near).is_some_and(|page| *page.first <= *key && *key <= *page.last) {
            return Some(near);
        }
        let found = search(&self.pages)?;
        self.near.store(found, Ordering::Relaxed);
        Some(found)
    }

    /// Compares a page with its rows, unless that was done before.
    fn see(&self, connection: &Connection, table: Table, at: usize) -> Result<(), StoreError> {
        let seen = &self.marks[at].seen;
        if seen.load(Ordering::Acquire) {
            return Ok(());
        }
        if !self.pages.is_so(at, &StoredRows { connection, schema: Schema::Main })? {
            return Err(self.differs(table, at));
        }
        seen.store(true, Ordering::Release);
        Ok(())
    }

    /// A table without pages has no rows: such as lie there all the same are nobody's word, and none of them gets a good digest.
    fn see_none(&self, connection: &Connection, table: Table) -> Result<(), StoreError> {
        let mut is_any = false;
        if self.pages.all().is_empty() {
            StoredRows { connection, schema: Schema::Main }.rows_from(table, &[], &mut |_| {
                is_any = true;
                ControlFlow::Break(())
            })?;
        }
        let rows = "all that lie in it".into();
        if is_any { Err(StoreError::PageDiffers { table: table.as_str(), rows }) } else { Ok(()) }
    }

    fn differs(&self, table: Table, at: usize) -> StoreError {
        let Page { first, last, .. } = &self.pages.all()[at];
        let rows = format!("from {} to {}", shown(table, first), shown(table, last)).into();
        StoreError::PageDiffers { table: table.as_str(), rows }
    }

    /// The list of the parts of a page.
    fn list(&self, connection: &Connection, table: Table, at: usize) -> Result<Vec<u8>, StoreError> {
        let mut select = connection.prepare_cached("SELECT parts FROM main.row_page WHERE id = ?1")?;
        let list: Option<Vec<u8>> = select.query_row([self.marks[at].id], |row| row.get(0)).optional()?;
        let list = list.filter(|list| Digest::of(list) == self.pages.all()[at].digest);
        list.ok_or_else(|| self.differs(table, at))
    }

    /// Puts pages that were just made of their rows in the place of others; `ids` are where they lie.
    fn put(&mut self, renewed: Vec<Renewed>, ids: Vec<i64>) {
        let (mut ids, mut marks) = (ids.into_iter(), Vec::with_capacity(self.marks.len() + renewed.len()));
        let (mut before, mut at) = (std::mem::take(&mut self.marks).into_iter(), 0);
        for Renewed { old, new } in &renewed {
            marks.extend(before.by_ref().take(old.start - at));
            before.by_ref().take(old.len()).for_each(drop);
            marks.extend(ids.by_ref().take(new.len()).map(|id| Mark::new(id, true)));
            at = old.end;
        }
        marks.extend(before);
        self.marks = marks;
        self.pages.put(renewed);
    }
}

/// A key for a person.
fn shown(table: Table, key: &[u8]) -> String {
    match table {
        Table::Device | Table::Earlier => {
            let (label, rest) = crate::domain::fold::snapshot::rows::split_device_key(key);
            format!("key {label}, Device {}", hex::encode_upper(rest.get(..8).unwrap_or(rest)))
        }
        Table::Request => format!("request {}", hex::encode(key)),
        Table::DeviceKey => format!("Device {}", hex::encode_upper(key.get(..8).unwrap_or(key))),
        Table::Response => {
            let (determination, device) = key.split_at(key.len().min(16));
            format!("determination {}, Device {}", hex::encode(determination), hex::encode_upper(device))
        }
    }
}

/// What the writer and its readers share.
#[derive(Debug, Default)]
pub(super) struct State {
    overlay: Overlay,
    /// The pages of the tables, in the order of [`Table::ALL`]; none before the first snapshot.
    held: Option<[Held; Table::ALL.len()]>,
}

/// A handle on it.
#[derive(Debug, Default)]
pub(super) struct Shared(RwLock<State>);

/// The states of this process's open stores, by their folders: a reader of the same process sees what the store has.
static OPEN: Mutex<Vec<(PathBuf, Weak<Shared>)>> = Mutex::new(Vec::new());

fn whole(directory: &Path) -> PathBuf {
    directory.canonicalize().unwrap_or_else(|_| directory.to_owned())
}

impl Shared {
    /// Of a store that is being opened.
    pub(super) fn of_store(directory: &Path) -> Arc<Self> {
        let (shared, directory) = (Arc::<Self>::default(), whole(directory));
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(of, known)| *of != directory && known.strong_count() > 0);
        open.push((directory, Arc::downgrade(&shared)));
        shared
    }

    /// Of a reader: the store's, where it is open in this process. Else the tables as they lie, as of the last snapshot, which nobody
    /// decides by.
    pub(super) fn of_reader(directory: &Path) -> Arc<Self> {
        let directory = whole(directory);
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.iter().find(|(of, _)| *of == directory).and_then(|(_, known)| known.upgrade());
        known.unwrap_or_default()
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts rows that are durable over those that are there.
    pub(super) fn extend(&self, rows: Overlay) {
        if rows.len > 0 {
            self.write().overlay.extend(rows);
        }
    }

    /// Makes entries durable by `commit`, and what they make of rows known: nobody sees the ones without the other.
    pub(super) fn publish(
        &self,
        rows: Overlay,
        commit: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.write();
        commit()?;
        state.overlay.extend(rows);
        Ok(())
    }

    /// From here on rows are believed by these pages; with `seen` they were just made of their rows.
    pub(super) fn hold(&self, pages: Placed, seen: bool) {
        self.write().held = Some(pages.map(|pages| Held::new(pages, seen)));
    }

    /// Ends a snapshot: `commit` makes it durable, and from then on the tables have what the overlay had. Nobody reads meanwhile.
    pub(super) fn settle(
        &self,
        written: Written,
        commit: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.write();
        commit()?;
        match written {
            Written::First(pages) => state.held = Some(pages.map(|of_table| Held::new(of_table, true))),
            Written::Renewed(renewed) => {
                for (held, (renewed, ids)) in state.held.iter_mut().flatten().zip(renewed) {
                    held.put(renewed, ids);
                }
            }
        }
        state.overlay = Overlay::default();
        Ok(())
    }
}

/// The pages of each table, and where each lies.
pub(super) type Placed = [(Pages, Vec<i64>); Table::ALL.len()];

/// What a snapshot has made of the pages of each table, and where each page lies that it made.
pub(super) enum Written {
    /// All of them, which were none before.
    First(Placed),
    /// Some.
    Renewed([(Vec<Renewed>, Vec<i64>); Table::ALL.len()]),
}

impl State {
    pub(super) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Compares every page with its rows: also those of rows that changed since, which nobody would read.
    pub(super) fn see_all(&self, connection: &Connection) -> Result<(), StoreError> {
        for (held, table) in self.held.iter().flatten().zip(Table::ALL) {
            held.see_none(connection, table)?;
            (0..held.pages.all().len()).try_for_each(|at| held.see(connection, table, at))?;
        }
        Ok(())
    }

    /// Whether the table may have the row of this key; the page that would have it was compared with its rows.
    fn has(&self, connection: &Connection, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        let Some(held) = &self.held else { return Ok(true) };
        let held = &held[place(table)];
        let Some(at) = held.find(key, |pages| pages.covering(key)) else { return Ok(false) };
        held.see(connection, table, at)?;
        Ok(true)
    }

    pub(super) fn device(
        &self,
        connection: &Connection,
        key: &KeyLabel,
        device: DeviceId,
    ) -> Result<Option<DeviceFacts>, StoreError> {
        let stored = || derived::select_device(connection, Schema::Main, key)?.one(device);
        self.device_of(connection, (key, device), &device_key(key, device), stored)
    }

    /// The same of each of these, in their order.
    pub(super) fn devices(
        &self,
        connection: &Connection,
        key: &KeyLabel,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<DeviceFacts>>, StoreError> {
        let mut stored = derived::select_device(connection, Schema::Main, key)?;
        let mut row = Vec::new();
        let found = devices.iter().map(|&device| {
            row.clear();
            put_device_key(key, device, &mut row);
            self.device_of(connection, (key, device), &row, || stored.one(device))
        });
        found.collect()
    }

    /// Of a Device with the row of this key, which `stored` has if it did not change since.
    fn device_of(
        &self,
        connection: &Connection,
        (key, device): (&KeyLabel, DeviceId),
        row: &[u8],
        stored: impl FnOnce() -> Result<Option<DeviceFacts>, StoreError>,
    ) -> Result<Option<DeviceFacts>, StoreError> {
        match self.overlay.device(key, device) {
            Some(facts) => Ok(Some(facts.clone())),
            None if self.has(connection, Table::Device, row)? => stored(),
            None => Ok(None),
        }
    }

    pub(super) fn request(&self, connection: &Connection, id: RequestId) -> Result<Option<RequestFacts>, StoreError> {
        match self.overlay.requests.get(&id) {
            Some(facts) => Ok(Some(*facts)),
            None if self.has(connection, Table::Request, id.octets())? => {
                derived::request(connection, Schema::Main, id)
            }
            None => Ok(None),
        }
    }

    pub(super) fn earlier(
        &self,
        connection: &Connection,
        key: &KeyLabel,
        device: DeviceId,
        counter: u64,
    ) -> Result<Option<u64>, StoreError> {
        match self.overlay.earlier(key, device, counter) {
            Some(intent) => Ok(Some(intent)),
            None if self.has(connection, Table::Earlier, &earlier_key(key, device, counter))? => {
                derived::earlier(connection, Schema::Main, key, device, counter)
            }
            None => Ok(None),
        }
    }

    pub(super) fn responded(
        &self,
        connection: &Connection,
        determination: DeterminationId,
        device: DeviceId,
    ) -> Result<Option<Responded>, StoreError> {
        let stored = || derived::select_responded(connection, Schema::Main, determination)?.one(device);
        self.responded_of(connection, determination, device, stored)
    }

    /// The same of each of these, in their order.
    pub(super) fn responded_many(
        &self,
        connection: &Connection,
        determination: DeterminationId,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<Responded>>, StoreError> {
        let mut stored = derived::select_responded(connection, Schema::Main, determination)?;
        let found =
            devices.iter().map(|&device| self.responded_of(connection, determination, device, || stored.one(device)));
        found.collect()
    }

    /// Of a Device, with what `stored` has of it under what was said since.
    fn responded_of(
        &self,
        connection: &Connection,
        determination: DeterminationId,
        device: DeviceId,
        stored: impl FnOnce() -> Result<Option<Responded>, StoreError>,
    ) -> Result<Option<Responded>, StoreError> {
        let changed = self.overlay.responses.get(&determination).and_then(|rows| rows.get(&device));
        let is_all = changed.is_some_and(|changed| changed.own.is_some() && changed.foreign.is_some());
        let has = !is_all && self.has(connection, Table::Response, &response_key(determination, device))?;
        let before = if has { stored()? } else { None };
        Ok(match (changed, before) {
            (Some(changed), before) => Some(changed.clone().over(before.unwrap_or_default())),
            (None, before) => before,
        })
    }

    /// The keys of a Device; `stored` has those in the table.
    pub(super) fn device_keys(
        &self,
        connection: &Connection,
        device: DeviceId,
        stored: impl FnOnce() -> Result<Vec<ImportedKey>, StoreError>,
    ) -> Result<Vec<ImportedKey>, StoreError> {
        let mut found = match &self.held {
            None => stored()?,
            Some(held) => {
                let held = &held[place(Table::DeviceKey)];
                // All of one Device's are in one page: the first that reaches so far, unless it begins after them.
                let from = device.0.octets();
                let at = held.find(from, |pages| Some(pages.from(from))).unwrap_or_default();
                match held.pages.all().get(at) {
                    Some(page) if page.first.get(..8) <= Some(&device.0.octets()[..]) => {
                        held.see(connection, Table::DeviceKey, at)?;
                        stored()?
                    }
                    Some(_) | None => Vec::new(),
                }
            }
        };
        found.extend(self.overlay.device_keys(device));
        found.sort_unstable();
        Ok(found)
    }

    pub(super) fn has_device_keys(&self, connection: &Connection) -> Result<bool, StoreError> {
        let in_table = match &self.held {
            None => device_keys::is_any(connection, Schema::Main)?,
            Some(held) => !held[place(Table::DeviceKey)].pages.all().is_empty(),
        };
        Ok(in_table || !self.overlay.device_keys.is_empty())
    }

    pub(super) fn devices_in(
        &self,
        connection: &Connection,
        key: &KeyLabel,
        state: IntentState,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<(DeviceId, DeviceFacts)>, StoreError> {
        let lies = |device: &DeviceId| self.overlay.device(key, *device).is_none();
        let mut found = match &self.held {
            Some(held) => held[place(Table::Device)].devices_in(connection, (key, state), after, limit, lies)?,
            None => derived::devices_in(connection, Schema::Main, (key, state), after, limit, lies)?,
        };
        let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let changed = self.overlay.devices.get(key).into_iter().flat_map(|rows| rows.range(from));
        let changed = changed.filter(|(_, facts)| facts.state == state).take(limit);
        found.extend(changed.map(|(device, facts)| (*device, facts.clone())));
        found.sort_unstable_by_key(|(device, _)| *device);
        found.truncate(limit);
        Ok(found)
    }

    /// What these changes make of rows, on top of what they made already.
    pub(super) fn stage(
        &self,
        connection: &Connection,
        derived: &Derived<'_>,
        next: &mut Overlay,
    ) -> Result<(), StoreError> {
        match derived {
            Derived::Device { key, device, row } => {
                if row.state == IntentState::Open {
                    let before = match next.device(key, *device) {
                        Some(before) => Some(before.clone()),
                        None => self.device(connection, key, *device)?,
                    };
                    if let Some(before) = before.filter(|before| before.is_overtaken_by(row)) {
                        next.put_earlier(key, *device, before.counter, before.intent);
                    }
                }
                next.put_device(key, *device, (*row).clone());
            }
            Derived::Request { id, row } => next.put_request(*id, **row),
            Derived::Responses { determination, entry, lines } => {
                for (device, said) in lines.iter().filter_map(|line| Some((line.device?, line.said(*entry)?))) {
                    next.put_responded(*determination, device, said);
                }
            }
            Derived::DeviceKeys { entry, keys } => {
                keys.iter().for_each(|key| next.put_device_key(*key, *entry));
            }
            // They lie in tables that each entry's own digests vouch for.
            Derived::List { .. } | Derived::Signature { .. } | Derived::Released { .. } => {}
        }
        Ok(())
    }

    /// Writes the overlay into the tables, within the caller's transaction, and hashes the pages anew that it alters. Answers them, and
    /// what the tables come to.
    pub(super) fn write(&self, connection: &Connection) -> Result<(Written, Tables), StoreError> {
        let rows = StoredRows { connection, schema: Schema::Main };
        let Some(held) = &self.held else {
            self.overlay.write(connection)?;
            let pages = made(connection)?;
            let kept = pages.each_ref().map(|(pages, _)| pages.kept());
            return Ok((Written::First(pages), kept));
        };
        // A page that nobody has read since the start is compared before it is altered, so that no forged row gets a good digest.
        let keys = Table::ALL.map(|table| self.overlay.keys(table));
        let mut touched: [Vec<Touched<'_>>; Table::ALL.len()] = Default::default();
        for (((held, table), keys), touched) in held.iter().zip(Table::ALL).zip(&keys).zip(&mut touched) {
            held.see_none(connection, table)?;
            *touched = held.pages.touched(keys.iter().map(Vec::as_slice), |page| {
                held.see(connection, table, page)?;
                held.list(connection, table, page)
            })?;
        }
        self.overlay.write(connection)?;
        let mut renewed: [(Vec<Renewed>, Vec<i64>); Table::ALL.len()] = Default::default();
        let mut kept = [TableKept { rows: 0, sha256: Digest([0; 32]) }; Table::ALL.len()];
        for (at, table) in Table::ALL.into_iter().enumerate() {
            let (held, (renewed, ids)) = (&held[at], &mut renewed[at]);
            *renewed = held.pages.renewed(&touched[at], &rows)?;
            for Renewed { old, new } in &*renewed {
                // The first takes the place of the one that was there: rows are never taken away, so there is one at least.
                let mut places = held.marks[old.clone()].iter().map(|mark| mark.id);
                for made in new {
                    ids.push(put_page(connection, table, places.next(), made)?);
                }
            }
            kept[at] = held.pages.kept_with(renewed);
        }
        Ok((Written::Renewed(renewed), kept))
    }
}

/// The pages of all rows that lie in the tables, made and kept within the caller's transaction, and where each lies.
pub(super) fn made(connection: &Connection) -> Result<Placed, StoreError> {
    let rows = StoredRows { connection, schema: Schema::Main };
    connection.execute("DELETE FROM main.row_page", [])?;
    of_each(|table| {
        let (mut ids, mut fault) = (Vec::new(), None);
        let pages = Pages::made(table, &rows, |made| match put_page(connection, table, None, made) {
            Ok(id) => ids.push(id),
            Err(error) => fault = Some(error),
        })?;
        fault.map_or(Ok((pages, ids)), Err)
    })
}

fn place(table: Table) -> usize {
    usize::from(table.code()) - 1
}

impl Held {
    /// The Devices under a key in a state, from the pages that have such rows, as far as `lies` says that a row is as in the table.
    fn devices_in(
        &self,
        connection: &Connection,
        (key, state): (&KeyLabel, IntentState),
        after: Option<DeviceId>,
        limit: usize,
        lies: impl Fn(&DeviceId) -> bool,
    ) -> Result<Vec<(DeviceId, DeviceFacts)>, StoreError> {
        let (first, end) =
            (device_key(key, after.unwrap_or(DeviceId([0; 8].into()))), [key.as_str().as_bytes(), &[1]].concat());
        let mut found = Vec::new();
        let all = self.pages.all();
        for at in self.pages.from(&first)..all.len() {
            let page = &all[at];
            if found.len() >= limit || *page.first >= *end {
                break;
            }
            if state.is_pending() && page.pending == 0 {
                continue;
            }
            self.see(connection, Table::Device, at)?;
            // A page may reach over several keys; the rows of this one end with it.
            let (from, until) = (bound(key, &page.first), all.get(at + 1).map(|next| &*next.first));
            let from = from.filter(|from| after.is_none_or(|after| *from > after));
            derived::devices_of_page(connection, key, from.as_ref(), after, &mut |device, facts| {
                if until.is_some_and(|until| *device_key(key, device) >= *until) || found.len() >= limit {
                    return ControlFlow::Break(());
                }
                if facts.state == state && lies(&device) {
                    found.push((device, facts));
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    }
}

/// The Device in a page's first key, if it is of this key.
fn bound(key: &KeyLabel, first: &[u8]) -> Option<DeviceId> {
    let (label, device) = crate::domain::fold::snapshot::rows::split_device_key(first);
    let octets: [u8; 8] = device.try_into().ok()?;
    (label == key.as_str()).then(|| DeviceId(octets.into()))
}

/// Keeps a page, in the place of another if one is given; where it lies.
fn put_page(
    connection: &Connection,
    table: Table,
    place: Option<i64>,
    Made { page, list }: &Made,
) -> Result<i64, StoreError> {
    let Page { first, last, rows, pending, digest } = page;
    let sql = "INSERT OR REPLACE INTO main.row_page VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let values = (place, table.code(), &first[..], &last[..], rows, pending, digest.0, &list[..]);
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(place.unwrap_or_else(|| connection.last_insert_rowid()))
}

/// The pages of a table as they are kept, and where each lies. Whoever reads them compares [`Pages::kept`].
pub(super) fn pages(connection: &Connection, table: Table) -> Result<(Pages, Vec<i64>), StoreError> {
    let mut select = connection
        .prepare("SELECT id, first, last, rows, pending, digest FROM main.row_page WHERE tbl = ?1 ORDER BY first")?;
    let pages = select.query_map([table.code()], |row| {
        let page = Page {
            first: row.get::<_, Vec<u8>>(1)?.into(),
            last: row.get::<_, Vec<u8>>(2)?.into(),
            rows: row.get(3)?,
            pending: row.get(4)?,
            digest: Digest(row.get(5)?),
        };
        Ok((row.get::<_, i64>(0)?, page))
    })?;
    let (ids, all): (Vec<i64>, Vec<Page>) = pages.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    Ok((Pages::of(table, all), ids))
}

/// A part of the kept state.
pub(super) fn part(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut select = connection.prepare_cached("SELECT octets FROM main.part WHERE name = ?1")?;
    Ok(select.query_row([name], |row| row.get(0)).optional()?)
}
