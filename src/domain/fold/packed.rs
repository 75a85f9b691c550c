//! Pure. What a [`super::MemoryBook`] keeps of each Device, in few octets: names of which there are few are numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::dense::Dense;
use super::{BookError, listed_line};
use crate::domain::names::{DeterminationId, DeviceId, Digest, TemplateName};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};
use crate::domain::responses::{DeviceKey, ImportedKey, Outcome, OwnResult, Responded};
use crate::domain::time::Timestamp;

/// Octets of an uncompressed point of P-256, and its first (SEC 1, 2.3.3).
const POINT_LEN: usize = 65;
const UNCOMPRESSED: u8 = 0x04;

/// Names of which there are few, by their places.
#[derive(Clone, Debug)]
struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone + PartialEq> Few<T> {
    fn place(&mut self, name: &T) -> u32 {
        self.place_of(|known| known == name, || name.clone())
    }

    fn place_of(&mut self, is_it: impl Fn(&T) -> bool, name: impl FnOnce() -> T) -> u32 {
        // The last ones are those that are asked for.
        let at = self.0.iter().rposition(is_it).unwrap_or_else(|| {
            self.0.push(name());
            self.0.len() - 1
        });
        u32::try_from(at).expect("a ledger names fewer determinations and templates than it has entries")
    }

    fn get(&self, place: u32) -> &T {
        &self.0[place as usize]
    }
}

/// What many Devices have in common.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    determination: DeterminationId,
    template: TemplateName,
    attempt: u32,
    state: IntentState,
}

/// [`DeviceFacts`] in 24 octets.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedFacts {
    intent: u64,
    counter: u64,
    kind: u32,
}

/// What packed rows have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds(Few<Kind>);

impl Kinds {
    pub(super) fn pack(&mut self, facts: &DeviceFacts) -> PackedFacts {
        let DeviceFacts { intent, determination, template, counter, attempt, state } = facts;
        let is_it = |kind: &Kind| {
            (kind.determination, kind.attempt, kind.state) == (*determination, *attempt, *state)
                && kind.template == *template
        };
        let (determination, attempt, state) = (*determination, *attempt, *state);
        let kind = || Kind { determination, template: template.clone(), attempt, state };
        PackedFacts { intent: *intent, counter: *counter, kind: self.0.place_of(is_it, kind) }
    }

    pub(super) fn unpack(&self, packed: &PackedFacts) -> DeviceFacts {
        let PackedFacts { intent, counter, kind } = *packed;
        let Kind { determination, template, attempt, state } = self.0.get(kind).clone();
        DeviceFacts { intent, determination, template, counter, attempt, state }
    }
}

/// The entries that rows came with, which come in ascending order: each by its place.
#[derive(Clone, Debug, Default)]
struct Entries(Vec<u64>);

impl Entries {
    fn place(&mut self, entry: u64) -> u32 {
        if self.0.last() != Some(&entry) {
            self.0.push(entry);
        }
        u32::try_from(self.0.len() - 1).expect("there are fewer entries with Responses or certificates than 2^32")
    }

    fn get(&self, place: u32) -> u64 {
        self.0[place as usize]
    }
}

/// What of [`Responded`] nearly every Device has: its answer to our command, about which there is nothing more to say.
#[derive(Clone, Copy, Debug)]
struct PackedAnswer {
    intent: u64,
    entry: u32,
    /// None where there is more to say: it stands with the others.
    outcome: Option<Outcome>,
}

/// What Devices have answered under one determination: 24 octets a Device, and more where there is more to say.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    rows: Dense<DeviceId, PackedAnswer>,
    others: BTreeMap<DeviceId, Responded>,
    entries: Entries,
}

impl Answers {
    /// In the place of what the Device answered before.
    pub(super) fn put(&mut self, device: DeviceId, responded: Responded) {
        let row = match &responded {
            Responded { own: Some(OwnResult { entry, intent, outcome, detail }), foreign: None }
                if detail.is_empty() =>
            {
                self.others.remove(&device);
                PackedAnswer { intent: *intent, entry: self.entries.place(*entry), outcome: Some(*outcome) }
            }
            Responded { .. } => {
                self.others.insert(device, responded);
                PackedAnswer { intent: 0, entry: 0, outcome: None }
            }
        };
        self.rows.insert(device, row);
    }

    pub(super) fn get(&self, device: DeviceId) -> Option<Responded> {
        self.unpack(device, self.rows.get(device)?)
    }

    fn unpack(&self, device: DeviceId, row: &PackedAnswer) -> Option<Responded> {
        let Some(outcome) = row.outcome else { return self.others.get(&device).cloned() };
        let own = OwnResult { entry: self.entries.get(row.entry), intent: row.intent, outcome, detail: Box::default() };
        Some(Responded { own: Some(own), foreign: None })
    }

    /// From a Device on.
    pub(super) fn from(&self, device: DeviceId) -> impl Iterator<Item = (DeviceId, Responded)> {
        self.rows.from(device).filter_map(|(device, row)| Some((*device, self.unpack(*device, row)?)))
    }
}

/// A Device's key in 88 octets.
#[derive(Clone, Copy, Debug)]
struct PackedKey {
    from: Timestamp,
    until: Timestamp,
    entry: u32,
    device_ca: u32,
    /// Behind the octet that every uncompressed point begins with.
    point: [u8; POINT_LEN - 1],
}

/// Keys out of Devices' certificates: 96 octets for the first of each Device.
#[derive(Clone, Debug, Default)]
pub(super) struct DeviceKeys {
    rows: Dense<DeviceId, PackedKey>,
    /// Those of Devices that have more than one but the first.
    more: BTreeMap<DeviceId, BTreeSet<ImportedKey>>,
    entries: Entries,
    device_cas: Few<Digest>,
}

impl DeviceKeys {
    pub(super) fn insert(&mut self, imported: ImportedKey) {
        let device = imported.key.device;
        match self.rows.get(device).map(|row| self.unpack(device, row)) {
            None => {
                let ImportedKey { key: DeviceKey { device, point, device_ca, from, until }, entry } = imported;
                let [_, point @ ..] = point;
                let (entry, device_ca) = (self.entries.place(entry), self.device_cas.place(&device_ca));
                self.rows.insert(device, PackedKey { from, until, entry, device_ca, point });
            }
            Some(first) if first == imported => {}
            Some(_) => drop(self.more.entry(device).or_default().insert(imported)),
        }
    }

    fn unpack(&self, device: DeviceId, row: &PackedKey) -> ImportedKey {
        let PackedKey { from, until, entry, device_ca, point: behind } = *row;
        let mut point = [UNCOMPRESSED; POINT_LEN];
        point[1..].copy_from_slice(&behind);
        let key = DeviceKey { device, point, device_ca: *self.device_cas.get(device_ca), from, until };
        ImportedKey { key, entry: self.entries.get(entry) }
    }

    /// All of a Device, in order.
    pub(super) fn of(&self, device: DeviceId) -> Vec<ImportedKey> {
        self.rows.get(device).map(|row| self.all(device, row)).unwrap_or_default()
    }

    fn all(&self, device: DeviceId, row: &PackedKey) -> Vec<ImportedKey> {
        let mut keys = vec![self.unpack(device, row)];
        keys.extend(self.more.get(&device).into_iter().flatten());
        keys.sort_unstable();
        keys
    }

    /// From a Device on.
    pub(super) fn from(&self, device: DeviceId) -> impl Iterator<Item = ImportedKey> {
        self.rows.from(device).flat_map(|(device, row)| self.all(*device, row))
    }
}

/// A device list: some ten octets a Device, and as many again where it gives the counter.
#[derive(Clone, Debug, Default)]
pub(super) struct PackedList {
    /// In ascending order.
    devices: Vec<DeviceId>,
    /// The template of each, by its place in `names`.
    templates: Vec<u16>,
    names: Few<TemplateName>,
    /// The counters that the list gives, by the place of the Device, in ascending order.
    counters: Vec<(u32, u64)>,
}

impl PackedList {
    /// Takes in the next line.
    pub(super) fn push(&mut self, line: &str) -> Result<(), String> {
        let Listed { device, template, counter } = listed_line(line)?;
        if let Some(last) = self.devices.last().filter(|last| **last >= device) {
            return Err(format!("expected Devices in ascending order, found {device} behind {last}"));
        }
        let place = u32::try_from(self.devices.len()).map_err(|_| "it has more than 4,294,967,295 lines")?;
        let template = self.names.place(&template);
        self.templates.push(u16::try_from(template).map_err(|_| "it names more than 65,535 templates")?);
        self.devices.push(device);
        self.counters.extend(counter.map(|counter| (place, counter)));
        Ok(())
    }

    pub(super) fn get(&self, device: DeviceId) -> Option<Listed> {
        let at = self.devices.binary_search(&device).ok()?;
        let place = u32::try_from(at).ok()?;
        let counter = self.counters.binary_search_by_key(&place, |(of, _)| *of).ok().map(|at| self.counters[at].1);
        Some(Listed { device, template: self.names.get(self.templates[at].into()).clone(), counter })
    }
}

/// Gives the lines of a blob to `line`, which is read in pieces and never whole in memory.
pub(super) fn lines(
    digest: Digest,
    blobs: &dyn super::Blobs,
    mut line: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), BookError> {
    let (mut part, mut fault) = (Vec::new(), None);
    let mut whole = |octets: &[u8], fault: &mut Option<String>| {
        if fault.is_none() {
            *fault = str::from_utf8(octets).map_err(|_| "not UTF-8".to_owned()).and_then(&mut line).err();
        }
    };
    blobs.stream(digest, &mut |piece| {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
            part.extend_from_slice(&rest[..end]);
            whole(&part, &mut fault);
            part.clear();
            rest = &rest[end + 1..];
        }
        part.extend_from_slice(rest);
    })?;
    if !part.is_empty() {
        whole(&part, &mut fault);
    }
    fault.map_or(Ok(()), |reason| Err(BookError::Store { reason: format!("blob {digest}: {reason}") }))
}
