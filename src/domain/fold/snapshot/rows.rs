//! Pure. The rows of what grows with Devices: their order, and their one encoding.
//!
//! Numbers are big-endian; a text has its length in two octets before it. *Warning:* both are hashed in ledgers. Another encoding is
//! another form of the snapshot ([`crate::domain::ledger::snapshots::FORM`]).

use std::fmt;

use crate::domain::fold::RequestFacts;
use crate::domain::names::{DeterminationId, DeviceId, Eui64, KeyLabel, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState};
use crate::domain::responses::{DeviceKey, ImportedKey, OwnResult, Responded};

/// A table of what grows with Devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The last intent for each Device with a key.
    Device,
    /// The requests.
    Request,
    /// The intents before the last that were, or may have been, signed.
    Earlier,
    /// What Devices have answered.
    Response,
    /// The keys of Devices whose certificates were imported.
    DeviceKey,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 5] = [Self::Device, Self::Request, Self::Earlier, Self::Response, Self::DeviceKey];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Request => "request",
            Self::Earlier => "earlier",
            Self::Response => "response",
            Self::DeviceKey => "device_key",
        }
    }

    /// Its number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Device => 1,
            Self::Request => 2,
            Self::Earlier => 3,
            Self::Response => 4,
            Self::DeviceKey => 5,
        }
    }

    /// The part of a key that says whether a page begins with its row: rows that differ only in what comes after it share a page.
    pub(super) fn group(self, key: &[u8]) -> &[u8] {
        match self {
            Self::Device | Self::Request | Self::Response => key,
            Self::Earlier => &key[..key.len().saturating_sub(size_of::<u64>())],
            Self::DeviceKey => &key[..key.len().min(Eui64::LEN)],
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row<'a> {
    /// Of a Device with a key.
    Device {
        /// The key.
        key: &'a KeyLabel,
        /// The Device.
        device: DeviceId,
        /// The row.
        facts: &'a DeviceFacts,
    },
    /// Of a request.
    Request {
        /// Which.
        id: RequestId,
        /// The row.
        facts: &'a RequestFacts,
    },
    /// Of an intent that another overtook.
    Earlier {
        /// The key.
        key: &'a KeyLabel,
        /// The Device.
        device: DeviceId,
        /// Its counter.
        counter: u64,
        /// The intent.
        intent: u64,
    },
    /// Of what a Device has answered.
    Response {
        /// Under which determination.
        determination: DeterminationId,
        /// The Device.
        device: DeviceId,
        /// The row.
        responded: &'a Responded,
    },
    /// Of a key of a Device.
    DeviceKey(&'a ImportedKey),
}

/// The key of a Device's row, as rows are ordered: by label, then by Device. A label has no NUL.
pub fn device_key(key: &KeyLabel, device: DeviceId) -> Vec<u8> {
    let mut octets = Vec::with_capacity(key.as_str().len() + 1 + 8);
    put_device_key(key, device, &mut octets);
    octets
}

/// Appends [`device_key`].
pub fn put_device_key(key: &KeyLabel, device: DeviceId, out: &mut Vec<u8>) {
    out.extend_from_slice(key.as_str().as_bytes());
    out.push(0);
    out.extend_from_slice(device.0.octets());
}

/// The key of the row of an intent that was overtaken.
pub fn earlier_key(key: &KeyLabel, device: DeviceId, counter: u64) -> Vec<u8> {
    let mut octets = Vec::new();
    put_earlier_key(key, device, counter, &mut octets);
    octets
}

/// Appends [`earlier_key`].
fn put_earlier_key(key: &KeyLabel, device: DeviceId, counter: u64, out: &mut Vec<u8>) {
    put_device_key(key, device, out);
    out.extend_from_slice(&ordered(counter).to_be_bytes());
}

/// The key of the row of what a Device has answered.
pub fn response_key(determination: DeterminationId, device: DeviceId) -> [u8; 24] {
    let mut octets = [0; 24];
    octets[..16].copy_from_slice(determination.octets());
    octets[16..].copy_from_slice(device.0.octets());
    octets
}

/// The key of the row of a Device's key; those of one Device begin with its octets.
pub fn imported_key(key: &DeviceKey) -> Vec<u8> {
    let mut octets = Vec::with_capacity(120);
    put_imported_key(key, &mut octets);
    octets
}

/// Appends [`imported_key`].
fn put_imported_key(key: &DeviceKey, out: &mut Vec<u8>) {
    let DeviceKey { device, point, device_ca, from, until } = key;
    out.extend_from_slice(device.0.octets());
    out.extend_from_slice(&point[1..]);
    out.extend_from_slice(device_ca.octets());
    for moment in [from, until] {
        out.extend_from_slice(&ordered(moment.unix_seconds().cast_unsigned()).to_be_bytes());
    }
}

/// The store orders numbers as signed ones by their bits; so are they ordered here.
const fn ordered(number: u64) -> u64 {
    number ^ (1 << 63)
}

/// Takes the key of a Device's row, or the beginning of one, apart: the label and the Device's octets.
pub fn split_device_key(key: &[u8]) -> (&str, &[u8]) {
    let (label, device) = match key.iter().position(|octet| *octet == 0) {
        Some(at) => (&key[..at], &key[at + 1..]),
        None => (key, &[][..]),
    };
    (str::from_utf8(label).unwrap_or_default(), device)
}

/// The counter at the end of an overtaken intent's key.
pub fn counter_of(device: &[u8]) -> Option<u64> {
    let octets = device.get(8..)?.try_into().ok()?;
    Some(ordered(u64::from_be_bytes(octets)))
}

fn text(text: &str, out: &mut Vec<u8>) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_be_bytes());
}

impl Row<'_> {
    /// Of which table it is.
    pub const fn table(&self) -> Table {
        match self {
            Self::Device { .. } => Table::Device,
            Self::Request { .. } => Table::Request,
            Self::Earlier { .. } => Table::Earlier,
            Self::Response { .. } => Table::Response,
            Self::DeviceKey(_) => Table::DeviceKey,
        }
    }

    /// Its key: rows of a table are ordered by it, octet by octet.
    pub fn key(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        self.put_key(&mut octets);
        octets
    }

    /// Appends its key.
    pub fn put_key(&self, out: &mut Vec<u8>) {
        match self {
            Self::Device { key, device, .. } => put_device_key(key, *device, out),
            Self::Request { id, .. } => out.extend_from_slice(id.octets()),
            Self::Earlier { key, device, counter, .. } => put_earlier_key(key, *device, *counter, out),
            Self::Response { determination, device, .. } => {
                out.extend_from_slice(&response_key(*determination, *device));
            }
            Self::DeviceKey(imported) => put_imported_key(&imported.key, out),
        }
    }

    /// Whether something is still to be settled: it is open, or nobody can tell what became of it.
    pub const fn is_pending(&self) -> bool {
        match self {
            Self::Device { facts, .. } => facts.state.is_pending(),
            Self::Request { .. } | Self::Earlier { .. } | Self::Response { .. } | Self::DeviceKey(_) => false,
        }
    }

    /// Its encoding, key included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Device { key, device, facts } => {
                let DeviceFacts { intent, determination, template, counter, attempt, state } = facts;
                text(key.as_str(), out);
                out.extend_from_slice(device.0.octets());
                number(*counter, out);
                out.extend_from_slice(determination.octets());
                text(template.as_str(), out);
                number(*intent, out);
                out.push(state.code());
                out.extend_from_slice(&attempt.to_be_bytes());
            }
            Self::Request { id, facts } => {
                let RequestFacts { asked, first_batch, last_batch } = facts;
                out.extend_from_slice(id.octets());
                out.extend_from_slice(asked.octets());
                number(*first_batch, out);
                number(*last_batch, out);
            }
            Self::Earlier { key, device, counter, intent } => {
                text(key.as_str(), out);
                out.extend_from_slice(device.0.octets());
                number(*counter, out);
                number(*intent, out);
            }
            Self::Response { determination, device, responded } => {
                let Responded { own, foreign } = responded;
                out.extend_from_slice(determination.octets());
                out.extend_from_slice(device.0.octets());
                out.push(u8::from(own.is_some()));
                if let Some(OwnResult { entry, intent, outcome, detail }) = own {
                    number(*entry, out);
                    number(*intent, out);
                    text(outcome.as_str(), out);
                    text(detail, out);
                }
                out.push(u8::from(foreign.is_some()));
                if let Some(counter) = foreign {
                    number(*counter, out);
                }
            }
            Self::DeviceKey(ImportedKey { key, entry }) => {
                put_imported_key(key, out);
                number(*entry, out);
            }
        }
    }
}

impl IntentState {
    /// Its number in a row.
    pub const fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Signed => 2,
            Self::Failed => 3,
            Self::NotSigned => 4,
            Self::Unknown => 5,
            Self::Left => 6,
        }
    }

    /// Whether something is still to be settled.
    pub const fn is_pending(self) -> bool {
        match self {
            Self::Open | Self::Unknown => true,
            Self::Signed | Self::Failed | Self::NotSigned | Self::Left => false,
        }
    }
}
