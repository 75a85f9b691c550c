//! Shell: takes signed commands as they are released, brings them to their Devices, and keeps what comes back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::ExerciseError;
use super::clock::Clock;
use super::fleet::Fleet;
use super::layout::{FILES_MAX, Layout};
use super::tell::Teller;
use crate::api::client::Lines;
use crate::api::wire::{ItemOutcome, Summary};
use crate::domain::gbcs::proof::Verdict;
use crate::domain::names::{DeviceId, Digest};

/// Commands that are held at a time: 40 MB, so that a fleet of any size fits a small machine.
const BLOCK_LEN: usize = 10_000;

/// What became of the commands so far.
#[derive(Default)]
pub struct Deliveries {
    /// By SHA-256 of its command, every Device that took one: a command that comes a second time must be the very same.
    taken: HashMap<DeviceId, Digest>,
    /// How many Devices were recovered, and proved it.
    pub recovered: u64,
    /// How often the daemon said that a Device's command had been signed for another request, and the Device had it already.
    pub held_already: u64,
    /// Octets of a command.
    pub command_octets: usize,
    /// How long the requests took that had something signed, to their last lines, without the time the Devices took.
    pub signing: Duration,
    /// How long the Devices took, and the checks of their Responses.
    pub devices: Duration,
    /// What was not as it must be; at most [`FAULTS_MAX`] of them.
    pub faults: Vec<String>,
    files: usize,
    /// Every Response as a line in hexadecimal, and the certificates of the Devices that sent them: what is handed in.
    pub responses: String,
    /// As PEM.
    pub certificates: String,
    clock: Clock,
}

/// The rule by which nothing is signed twice under one determination.
const ALREADY_SIGNED: &str = "already-signed";

/// A thousand Devices that fail alike are one fault, told a few times.
const FAULTS_MAX: usize = 5;

impl Deliveries {
    /// None so far, to Devices whose clock is set by so many milliseconds against this machine's, as the exercise's is.
    pub fn by_clock(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Takes every line of an answer. Answers its summary, and how long it took without the time that the Devices took.
    pub async fn take(
        &mut self,
        mut lines: Lines,
        fleet: &mut Fleet,
        layout: &Layout,
        teller: &mut Teller<'_>,
    ) -> Result<(Summary, Duration), ExerciseError> {
        let mut block = Vec::new();
        let (mut begun, mut count, mut took) = (Instant::now(), 0, Duration::ZERO);
        while let Some(item) = lines.next().await? {
            count += 1;
            teller.advance(count);
            let why = || item.reasons.iter().map(|reason| reason.text.as_ref()).collect::<Vec<&str>>().join("; ");
            match (item.outcome, item.command) {
                (ItemOutcome::Signed, Some(command)) => block.push((item.device, command.0)),
                (ItemOutcome::Refused, None)
                    if self.taken.contains_key(&item.device)
                        && item.reasons.iter().all(|reason| &*reason.rule == ALREADY_SIGNED) =>
                {
                    self.held_already += 1;
                }
                (outcome, _) => self.fault(format!("Device {}: {outcome}: {}", item.device, why())),
            }
            if block.len() == BLOCK_LEN {
                took += begun.elapsed();
                self.deliver(std::mem::take(&mut block), fleet, layout)?;
                begun = Instant::now();
            }
        }
        took += begun.elapsed();
        self.deliver(block, fleet, layout)?;
        Ok((lines.summary().ok_or(ExerciseError::NoSummary)?, took))
    }

    /// Brings a block of commands to their Devices.
    fn deliver(
        &mut self,
        block: Vec<(DeviceId, Vec<u8>)>,
        fleet: &mut Fleet,
        layout: &Layout,
    ) -> Result<(), ExerciseError> {
        let mut fresh = Vec::with_capacity(block.len());
        for (device, command) in block {
            let digest = Digest::of(&command);
            match self.taken.insert(device, digest) {
                None => fresh.push((device, command)),
                Some(before) if before == digest => {}
                Some(_) => self.fault(format!("Device {device}: two different commands came for it")),
            }
        }
        fresh.sort_unstable_by_key(|(device, _)| *device);
        let begun = Instant::now();
        let deliveries = fleet.deliver_all(&fresh, self.clock.now());
        self.devices += begun.elapsed();
        for ((device, command), delivery) in fresh.iter().zip(deliveries) {
            self.command_octets = command.len();
            match (&delivery.answer, &delivery.verdict) {
                (Ok(_), Some(Verdict::Recovered(_))) => self.recovered += 1,
                (Ok(_), verdict) => {
                    self.fault(format!("Device {device}: its Response proves something else: {verdict:?}"));
                }
                (Err(refusal), _) => self.fault(format!("Device {device}: it discarded its command: {refusal}")),
            }
            if let (Ok(response), Some(device)) = (&delivery.answer, fleet.device(*device)) {
                self.responses.push_str(&hex::encode(response));
                self.responses.push('\n');
                self.certificates.push_str(&crate::domain::certificates::pem::certificate_to_pem(device.certificate()));
            }
            if self.files < FILES_MAX {
                self.files += 1;
                layout.write_for("commands", *device, "bin", command)?;
                if let Ok(response) = &delivery.answer {
                    layout.write_for("responses", *device, "bin", response)?;
                }
                if let Some(device) = fleet.device(*device) {
                    let pem = crate::domain::certificates::pem::certificate_to_pem(device.certificate());
                    layout.write_for("certificates/devices", device.id(), "pem", pem.as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}
