//! Pure. What a [`super::MemoryBook`] keeps of each Device, in few octets: names of which there are few are numbers.

use super::{BookError, listed_line};
use crate::domain::names::{DeterminationId, DeviceId, Digest, TemplateName};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};

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
        // The last ones are those that are asked for.
        let at = self.0.iter().rposition(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.clone());
            self.0.len() - 1
        });
        u32::try_from(at).expect("a ledger names fewer determinations and templates than it has entries")
    }

    fn get(&self, place: u32) -> &T {
        &self.0[place as usize]
    }
}

/// [`DeviceFacts`] in 32 octets.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedFacts {
    intent: u64,
    counter: u64,
    determination: u32,
    template: u32,
    attempt: u32,
    pub(super) state: IntentState,
}

/// The names in packed rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    determinations: Few<DeterminationId>,
    templates: Few<TemplateName>,
}

impl Names {
    pub(super) fn pack(&mut self, facts: &DeviceFacts) -> PackedFacts {
        let DeviceFacts { intent, determination, template, counter, attempt, state } = facts;
        PackedFacts {
            intent: *intent,
            counter: *counter,
            determination: self.determinations.place(determination),
            template: self.templates.place(template),
            attempt: *attempt,
            state: *state,
        }
    }

    pub(super) fn unpack(&self, packed: &PackedFacts) -> DeviceFacts {
        let PackedFacts { intent, counter, determination, template, attempt, state } = *packed;
        DeviceFacts {
            intent,
            determination: *self.determinations.get(determination),
            template: self.templates.get(template).clone(),
            counter,
            attempt,
            state,
        }
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
