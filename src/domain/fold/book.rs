//! Pure. What grows with the number of Devices, and the documents that entries name: asked for through two traits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::domain::fold::snapshot::rows::{device_key, earlier_key, imported_key, response_key, split_device_key};
use crate::domain::fold::snapshot::{Row, Rows, Table};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, NameError, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};
use crate::domain::policy::{Files, Policy};
use crate::domain::responses::{DeviceKey, ImportedKey, Responded, ResultLine};

use super::FoldError;
use super::dense::Dense;
use super::packed::{self, Answers, DeviceKeys, Kinds, PackedFacts, PackedList};

/// What an entry alters in the book. Applied in order, in the same transaction as the entry itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The device list of a determination, a blob in the form of [`crate::domain::determination::devices`], is in force.
    List {
        /// Whose.
        determination: DeterminationId,
        /// SHA-256 of the list.
        devices: Digest,
    },
    /// A request was taken in.
    Batch {
        /// Its leaf.
        index: u64,
        /// Which request.
        request: RequestId,
        /// SHA-256 of what was asked.
        asked: Digest,
    },
    /// The last intent for a Device with a key is this, and this became of it so far.
    Device {
        /// The key.
        key: KeyLabel,
        /// The Device.
        device: DeviceId,
        /// The whole row.
        facts: DeviceFacts,
    },
    /// The unknown of a Device with a key is left as it is.
    Leave {
        /// The key.
        key: KeyLabel,
        /// The Device.
        device: DeviceId,
    },
    /// The signed ones of these intents are handed over.
    Release {
        /// The first leaf of a range.
        from: u64,
        /// The first that is no longer in it.
        until: u64,
    },
    /// Devices have answered, as the lines of [`crate::domain::responses`] say.
    Responses {
        /// Under which determination.
        determination: DeterminationId,
        /// The entry.
        entry: u64,
        /// The lines, as the blob of results has them; read once for all who take them in.
        lines: Arc<[ResultLine]>,
    },
    /// Keys of Devices are known by their certificates.
    DeviceKeys {
        /// The entry.
        entry: u64,
        /// Those that were not known before, sorted.
        keys: Arc<[DeviceKey]>,
    },
}

/// What is known of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// SHA-256 of what was asked.
    pub asked: Digest,
    /// Its first batch.
    pub first_batch: u64,
    /// Its last batch so far.
    pub last_batch: u64,
}

/// Why the book gives no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// A blob that an entry names is not there.
    #[error("blob {digest} is missing")]
    BlobMissing {
        /// Its SHA-256.
        digest: Digest,
    },
    /// What lies there has another SHA-256.
    #[error("blob {digest} has another SHA-256: {found}")]
    BlobAltered {
        /// What it should be.
        digest: Digest,
        /// What it is.
        found: Digest,
    },
    /// The store failed.
    #[error("the store does not answer: {reason}")]
    Store {
        /// Why.
        reason: String,
    },
}

/// The documents that entries name by SHA-256.
pub trait Blobs {
    /// The octets, checked against the digest. For documents, not for device lists.
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError>;

    /// Streams a list, which may be too large for [`Blobs::blob`]. An error may come after the last piece, if the octets were
    /// not those of the digest.
    fn stream(&self, digest: Digest, piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError>;

    /// The keys in a bundle of Devices' certificates, sorted, where somebody has just verified those and has them still; nobody else need read
    /// them again.
    fn keys_in(&self, certificates: Digest) -> Option<Arc<[DeviceKey]>> {
        let _ = certificates;
        None
    }

    /// The lines of a list of results, where somebody has just decided them and has them still.
    fn lines_in(&self, results: Digest) -> Option<Arc<[ResultLine]>> {
        let _ = results;
        None
    }
}

/// What is kept per Device, intent and request.
pub trait Book {
    /// The last intent for a Device with a key.
    fn device(&self, key: &KeyLabel, device: DeviceId) -> Result<Option<DeviceFacts>, BookError>;
    /// The same of each of these, in their order.
    fn devices(&self, key: &KeyLabel, devices: &[DeviceId]) -> Result<Vec<Option<DeviceFacts>>, BookError> {
        devices.iter().map(|device| self.device(key, *device)).collect()
    }
    /// What the device list of a determination says about a Device.
    fn listed(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Listed>, BookError>;
    /// What is known of a request.
    fn request(&self, request: RequestId) -> Result<Option<RequestFacts>, BookError>;
    /// The intent before the last for a Device with a key that has this counter and was, or may have been, signed.
    fn earlier(&self, key: &KeyLabel, device: DeviceId, counter: u64) -> Result<Option<u64>, BookError>;
    /// What a Device has answered under a determination.
    fn responded(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Responded>, BookError>;
    /// The same of each of these, in their order.
    fn responded_many(
        &self,
        determination: DeterminationId,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<Responded>>, BookError> {
        devices.iter().map(|device| self.responded(determination, *device)).collect()
    }
    /// The keys of a Device whose certificates were imported, in no order.
    fn device_keys(&self, device: DeviceId) -> Result<Vec<ImportedKey>, BookError>;
    /// The same of each of these.
    fn device_keys_of(&self, devices: &BTreeSet<DeviceId>) -> Result<Vec<(DeviceId, Vec<ImportedKey>)>, BookError> {
        devices.iter().map(|device| Ok((*device, self.device_keys(*device)?))).collect()
    }
}

/// A book in memory, for verifiers and tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryBook {
    devices: BTreeMap<KeyLabel, Dense<DeviceId, PackedFacts>>,
    kinds: Kinds,
    lists: HashMap<DeterminationId, PackedList>,
    requests: BTreeMap<RequestId, RequestFacts>,
    /// By Device, and by the bits of the counter as a signed number: in the order of [`Table::Earlier`].
    earlier: BTreeMap<KeyLabel, BTreeMap<(DeviceId, i64), u64>>,
    responded: BTreeMap<DeterminationId, Answers>,
    /// The keys of rows that changed since somebody asked, by table.
    changed: [BTreeSet<Vec<u8>>; Table::ALL.len()],
    device_keys: DeviceKeys,
}

impl MemoryBook {
    /// How many rows changed since they were taken last.
    pub fn changed(&self) -> usize {
        self.changed.iter().map(BTreeSet::len).sum()
    }

    /// The keys of the rows of a table that changed since this was asked last, in order.
    pub fn take_changed(&mut self, table: Table) -> BTreeSet<Vec<u8>> {
        std::mem::take(&mut self.changed[usize::from(table.code()) - 1])
    }

    fn note(&mut self, table: Table, key: Vec<u8>) {
        self.changed[usize::from(table.code()) - 1].insert(key);
    }

    /// Applies a change; `blobs` has the device list or the results that it names.
    pub fn apply(&mut self, change: &Change, blobs: &dyn Blobs) -> Result<(), BookError> {
        match change {
            Change::List { determination, devices } => {
                let mut list = PackedList::default();
                packed::lines(*devices, blobs, |line| list.push(line))?;
                self.lists.insert(*determination, list);
            }
            Change::Batch { index, request, asked } => {
                let first = RequestFacts { asked: *asked, first_batch: *index, last_batch: *index };
                self.note(Table::Request, request.octets().to_vec());
                self.requests.entry(*request).and_modify(|facts| facts.last_batch = *index).or_insert(first);
            }
            Change::Device { key, device, facts } => {
                self.note(Table::Device, device_key(key, *device));
                let packed = self.kinds.pack(facts);
                let before = self.devices.entry(key.clone()).or_default().insert(*device, packed);
                let before = before.filter(|_| facts.state == IntentState::Open);
                if let Some(before) = before.map(|before| self.kinds.unpack(&before))
                    && before.is_overtaken_by(facts)
                {
                    self.note(Table::Earlier, earlier_key(key, *device, before.counter));
                    let earlier = self.earlier.entry(key.clone()).or_default();
                    earlier.insert((*device, before.counter.cast_signed()), before.intent);
                }
            }
            Change::Leave { key, device } => {
                if let Some(rows) = self.devices.get_mut(key)
                    && let Some(facts) = rows.get(*device).map(|packed| self.kinds.unpack(packed))
                {
                    rows.insert(*device, self.kinds.pack(&DeviceFacts { state: IntentState::Left, ..facts }));
                    self.note(Table::Device, device_key(key, *device));
                }
            }
            Change::Release { from: _, until: _ } => {}
            Change::Responses { determination, entry, lines } => {
                for line in &**lines {
                    let Some(device) = line.device else { continue };
                    let answers = self.responded.entry(*determination).or_default();
                    let mut known = answers.get(device).unwrap_or_default();
                    if known.absorb(line, *entry) {
                        answers.put(device, known);
                        self.note(Table::Response, response_key(*determination, device).to_vec());
                    }
                }
            }
            Change::DeviceKeys { entry, keys } => {
                for &key in &**keys {
                    self.note(Table::DeviceKey, imported_key(&key));
                    self.device_keys.insert(ImportedKey { key, entry: *entry });
                }
            }
        }
        Ok(())
    }
}

/// The lines of results of an entry, in their order.
pub(super) fn results(digest: Digest, blobs: &dyn Blobs) -> Result<Vec<ResultLine>, FoldError> {
    let mut lines = Vec::new();
    let mut fault = None;
    packed::lines(digest, blobs, |line| {
        match ResultLine::parse(line) {
            Ok(line) => lines.push(line),
            Err(reason) => fault = fault.take().or(Some(reason)),
        }
        Ok(())
    })?;
    match fault {
        None => Ok(lines),
        Some(reason) => Err(FoldError::Document { what: "list of results", digest, reason }),
    }
}

/// One line of a device list that was read and checked whole when it was taken in
/// ([`crate::domain::determination::devices`]), without its line feed.
pub fn listed_line(line: &str) -> Result<Listed, String> {
    let mut fields = line.split(',');
    let (Some(device), Some(template), counter, None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(format!("expected EUI64,template or EUI64,template,counter, found {line:?}"));
    };
    Ok(Listed {
        device: device.parse().map_err(|error: NameError| error.to_string())?,
        template: template.parse().map_err(|error: NameError| error.to_string())?,
        counter: counter.map(|text| text.parse().map_err(|_| format!("not a counter: {text:?}"))).transpose()?,
    })
}

/// From what a key begins with, filled up with the least.
fn least<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut least = [0; N];
    let len = octets.len().min(N);
    least[..len].copy_from_slice(&octets[..len]);
    least
}

impl Rows for MemoryBook {
    type Error = std::convert::Infallible;

    fn rows_from(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), Self::Error> {
        let (label, rest) = split_device_key(from);
        let first = DeviceId(least(rest).into());
        let _ = match table {
            Table::Device => {
                self.devices.iter().filter(|(key, _)| key.as_str() >= label).try_for_each(|(key, rows)| {
                    let from = if key.as_str() == label { first } else { DeviceId([0; 8].into()) };
                    rows.from(from).try_for_each(|(device, packed)| {
                        visit(Row::Device { key, device: *device, facts: &self.kinds.unpack(packed) })
                    })
                })
            }
            Table::Earlier => {
                self.earlier.iter().filter(|(key, _)| key.as_str() >= label).try_for_each(|(key, rows)| {
                    let from = if key.as_str() == label { first } else { DeviceId([0; 8].into()) };
                    rows.range((from, i64::MIN)..).try_for_each(|((device, counter), intent)| {
                        visit(Row::Earlier { key, device: *device, counter: counter.cast_unsigned(), intent: *intent })
                    })
                })
            }
            Table::Request => self
                .requests
                .range(RequestId(least(from))..)
                .try_for_each(|(id, facts)| visit(Row::Request { id: *id, facts })),
            Table::DeviceKey => {
                self.device_keys.from(DeviceId(least(from).into())).try_for_each(|key| visit(Row::DeviceKey(&key)))
            }
            Table::Response => {
                let (determination, device) = from.split_at(from.len().min(16));
                let (first, device) = (DeterminationId(least(determination)), DeviceId(least(device).into()));
                self.responded.range(first..).try_for_each(|(&determination, answers)| {
                    let from = if determination == first { device } else { DeviceId([0; 8].into()) };
                    answers.from(from).try_for_each(|(device, responded)| {
                        visit(Row::Response { determination, device, responded: &responded })
                    })
                })
            }
        };
        Ok(())
    }
}

impl Book for MemoryBook {
    fn device(&self, key: &KeyLabel, device: DeviceId) -> Result<Option<DeviceFacts>, BookError> {
        let row = self.devices.get(key).and_then(|rows| rows.get(device));
        Ok(row.map(|packed| self.kinds.unpack(packed)))
    }

    fn listed(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Listed>, BookError> {
        Ok(self.lists.get(&determination).and_then(|list| list.get(device)))
    }

    fn request(&self, request: RequestId) -> Result<Option<RequestFacts>, BookError> {
        Ok(self.requests.get(&request).copied())
    }

    fn earlier(&self, key: &KeyLabel, device: DeviceId, counter: u64) -> Result<Option<u64>, BookError> {
        Ok(self.earlier.get(key).and_then(|rows| rows.get(&(device, counter.cast_signed()))).copied())
    }

    fn responded(&self, determination: DeterminationId, device: DeviceId) -> Result<Option<Responded>, BookError> {
        Ok(self.responded.get(&determination).and_then(|answers| answers.get(device)))
    }

    fn device_keys(&self, device: DeviceId) -> Result<Vec<ImportedKey>, BookError> {
        Ok(self.device_keys.of(device))
    }
}

/// The `sha256sum` lines of a policy: each file's path and SHA-256. Lines of another form are left out; whoever decides reads
/// the policy itself, which then has another digest.
pub fn sums(lines: &[u8]) -> Vec<(String, Digest)> {
    let text = String::from_utf8_lossy(lines);
    let sum = |line: &str| line.split_once("  ").and_then(|(sum, path)| Some((path.to_owned(), sum.parse().ok()?)));
    text.lines().filter_map(sum).collect()
}

/// The blobs of a policy: its `sha256sum` lines, whose SHA-256 is the policy's digest, and each of its files.
pub fn policy_blobs(files: &Files) -> Vec<Vec<u8>> {
    let line = |(path, octets): (&String, &Vec<u8>)| format!("{}  {path}\n", Digest::of(octets));
    let lines = files.iter().map(line).collect::<Vec<_>>().concat();
    std::iter::once(lines.into_bytes()).chain(files.values().cloned()).collect()
}

/// The files of the policy of that digest.
pub fn policy_files(digest: Digest, blobs: &dyn Blobs) -> Result<Files, BookError> {
    sums(&blobs.blob(digest)?).into_iter().map(|(path, sum)| Ok((path, blobs.blob(sum)?))).collect()
}

/// Reads the policy of that digest from its blobs.
pub fn read_policy(digest: Digest, blobs: &dyn Blobs) -> Result<Policy, FoldError> {
    let wrong = |reason: String| FoldError::Document { what: "policy", digest, reason };
    let policy = Policy::parse(&policy_files(digest, blobs)?)
        .map_err(|faults| wrong(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    if policy.digest() == digest {
        Ok(policy)
    } else {
        Err(wrong(format!("its files have the digest {}", policy.digest())))
    }
}
