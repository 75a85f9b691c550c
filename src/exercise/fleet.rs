//! Shell: the simulated Devices, all of them, and the checks of what they answer.

use std::num::NonZero;
use std::thread;

use super::device::{Device, Judge, Made, Refusal};
use super::lab::{Lab, LabError};
use crate::domain::certificates::path::{self, Time};
use crate::domain::certificates::profile::{Kind, TEST_DEVICE_POLICY, Usage};
use crate::domain::certificates::{Profile, SmkiCertificate};
use crate::domain::gbcs::RemotePartyRole;
use crate::domain::gbcs::proof::{Expected, Verdict};
use crate::domain::names::{DeviceId, Eui64, TemplateName};
use crate::domain::time::Timestamp;

/// The most Devices that one exercise can have. Each takes about 1 kB.
pub const DEVICES_MAX: u32 = 1_000_000; // No official reference: a million meters in one determination is a large Party.

/// What every Device has accepted from Recovery before: a counter between this and [`COUNTER_SPREAD`] above it.
pub const COUNTER_BASE: u64 = 7_000; // As in a genuine Recovery command.
/// Counters differ from Device to Device, as they do in the field.
pub const COUNTER_SPREAD: u64 = 97; // No official reference: a prime, so that neighbours differ.

/// A command as it reached its Device, and what came back.
#[derive(Debug)]
pub struct Delivery {
    /// The Device.
    pub device: DeviceId,
    /// Its Response, or why it sent none.
    pub answer: Result<Vec<u8>, Refusal>,
    /// What the Response proves; none without one.
    pub verdict: Option<Verdict>,
}

impl Delivery {
    /// Whether the Device was recovered, and proved it.
    pub fn is_recovered(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Recovered(_)))
    }
}

/// All simulated Devices, sorted by EUI-64.
pub struct Fleet {
    devices: Vec<Device>,
    judge: Judge,
    device_ca: SmkiCertificate,
    profile: Profile,
}

/// The EUI-64 of the n-th Device: locally administered, so that it is nobody's. Ascending.
fn device_id(n: u32) -> DeviceId {
    const FIRST: u64 = 0x02DE_1CE0_0000_0000;
    DeviceId(Eui64((FIRST + u64::from(n)).to_be_bytes()))
}

/// How many threads share a piece of work.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

impl Fleet {
    /// Makes so many Devices, each with a key of its own and a certificate for it. All cores share the work.
    pub fn make(lab: &Lab, recovery: &SmkiCertificate, count: u32) -> Result<Self, LabError> {
        let made = Made::new(lab, recovery);
        let numbers: Vec<u32> = (1..=count).collect();
        let one = |n: &u32| Device::make(device_id(*n), COUNTER_BASE + u64::from(*n) % COUNTER_SPREAD, &made, lab);
        let share = numbers.len().div_ceil(threads()).max(1);
        let devices = thread::scope(|scope| {
            let workers: Vec<_> = numbers
                .chunks(share)
                .map(|numbers| scope.spawn(move || numbers.iter().map(one).collect::<Result<Vec<_>, _>>()))
                .collect();
            let mut devices = Vec::with_capacity(numbers.len());
            for worker in workers {
                devices.extend(worker.join().expect("making a Device does not panic")?);
            }
            Ok::<_, LabError>(devices)
        })?;
        let (device_ca, profile) = (lab.device_ca().clone(), lab.profile().clone());
        Ok(Self { devices, judge: Judge::new(profile.clone()), device_ca, profile })
    }

    /// Every Device, by EUI-64.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// That Device.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.place(id).map(|place| &self.devices[place])
    }

    fn place(&self, id: DeviceId) -> Option<usize> {
        self.devices.binary_search_by_key(&id, Device::id).ok()
    }

    /// The device list of a determination: canonical text, each Device with the counter that it is known to have accepted from Recovery.
    pub fn device_list<'a>(&self, template: &TemplateName, devices: impl IntoIterator<Item = &'a Device>) -> String {
        list(template, devices, RemotePartyRole::Recovery)
    }

    /// The same of Contingency commands, whose counter is the root's.
    pub fn contingency_list<'a>(
        &self,
        template: &TemplateName,
        devices: impl IntoIterator<Item = &'a Device>,
    ) -> String {
        list(template, devices, RemotePartyRole::Root)
    }

    /// Brings one command to one Device, and checks its Response.
    pub fn deliver(&mut self, device: DeviceId, command: &[u8], now: Timestamp) -> Delivery {
        let Some(place) = self.place(device) else { return nobody(device) };
        let Self { devices, judge, device_ca, profile } = self;
        deliver(&mut devices[place], command, &Context { judge, device_ca, profile, now })
    }

    /// Brings commands to their Devices, and checks each Response; all cores share the work. One command for a Device at most.
    ///
    /// # Shape
    /// Sorted by EUI-64.
    pub fn deliver_all(&mut self, commands: &[(DeviceId, Vec<u8>)], now: Timestamp) -> Vec<Delivery> {
        let Self { devices, judge, device_ca, profile } = self;
        let context = Context { judge, device_ca, profile, now };
        let mut sorted: Vec<&(DeviceId, Vec<u8>)> = commands.iter().collect();
        sorted.sort_unstable_by_key(|(device, _)| *device);
        let mut rest = devices.iter_mut().peekable();
        let mut pairs = Vec::with_capacity(sorted.len());
        let mut lost = Vec::new();
        for (id, command) in sorted {
            while rest.next_if(|device| device.id() < *id).is_some() {}
            match rest.next_if(|device| device.id() == *id) {
                Some(device) => pairs.push((device, command.as_slice())),
                None => lost.push(nobody(*id)),
            }
        }
        let share = pairs.len().div_ceil(threads()).max(1);
        let mut deliveries: Vec<Delivery> = thread::scope(|scope| {
            let context = &context;
            let each = |pairs: &mut [(&mut Device, &[u8])]| -> Vec<Delivery> {
                pairs.iter_mut().map(|(device, command)| deliver(device, command, context)).collect()
            };
            let workers: Vec<_> = pairs.chunks_mut(share).map(|pairs| scope.spawn(move || each(pairs))).collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("a delivery does not panic")).collect()
        });
        deliveries.append(&mut lost);
        deliveries.sort_unstable_by_key(|delivery| delivery.device);
        deliveries
    }
}

fn list<'a>(template: &TemplateName, devices: impl IntoIterator<Item = &'a Device>, role: RemotePartyRole) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for device in devices {
        writeln!(text, "{},{template},{}", device.id(), device.counter(role)).expect("a String takes all");
    }
    text
}

struct Context<'a> {
    judge: &'a Judge,
    device_ca: &'a SmkiCertificate,
    profile: &'a Profile,
    now: Timestamp,
}

/// What comes of a command for a Device that there is not.
const fn nobody(device: DeviceId) -> Delivery {
    Delivery { device, answer: Err(Refusal::Absent), verdict: None }
}

fn deliver(device: &mut Device, command: &[u8], context: &Context<'_>) -> Delivery {
    let answer = device.receive(command, context.judge, context.now);
    let verdict = answer.as_ref().ok().map(|response| {
        let expected = Expected::from_command(command).expect("the Device has read the command");
        match device_key(device.certificate(), device.id(), context) {
            Some(point) => expected.judge(response, &point),
            // Without a certificate that vouches for the key, nothing is proved.
            None => Verdict::Refused(Vec::new()),
        }
    });
    Delivery { device: device.id(), answer, verdict }
}

/// The digitalSignature key of a Device, from its certificate, which the Device CA must have issued for that very Device.
fn device_key(certificate: &[u8], device: DeviceId, context: &Context<'_>) -> Option<[u8; 65]> {
    let certificate = SmkiCertificate::parse(certificate, context.profile).ok()?;
    path::check(&certificate, &[], context.device_ca, &[TEST_DEVICE_POLICY], Time::At(context.now)).ok()?;
    let is_its = certificate.kind() == Kind::Device { device, usage: Usage::DigitalSignature };
    is_its.then(|| *certificate.key().point())
}

#[cfg(test)]
mod tests;
