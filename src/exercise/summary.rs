//! Shell: what came of an exercise: for people at the end, for programs in `summary.json`.

use std::time::Duration;

use serde::Serialize;

use super::scenario::Scenario;
use super::tell::{Teller, number, rate, seconds};
use crate::domain::names::{DeterminationId, Digest, IncidentId, PersonId};

/// What came of an exercise. Its JSON is `summary.json`.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Whether everything was as it must be.
    pub passed: bool,
    /// What was not.
    pub faults: Vec<String>,
    /// The version of the programs.
    pub version: &'static str,
    /// Which story was played.
    pub scenario: Scenario,
    /// Devices of the determination.
    pub devices: u64,
    /// How many of them proved that they were recovered.
    pub recovered: u64,
    /// Commands whose outcome nobody knew after the daemon was killed.
    pub unknown: u64,
    /// How many of those were signed again, as the same octets.
    pub settled: u64,
    /// Everything that had to be refused.
    pub refusals: Vec<Attempt>,
    /// The determinations that were recorded, in that order.
    pub determinations: Vec<DeterminationId>,
    /// How often Key Custodians opened the key, in that order.
    pub openings: Vec<Opening>,
    /// Octets of one signed command.
    pub command_octets: usize,
    /// Entries of the ledger.
    pub entries: u64,
    /// The leaf hash of its first entry.
    pub genesis: Option<Digest>,
    /// Where the time went.
    pub times: Times,
}

/// Something that had to be refused.
#[derive(Debug, Serialize)]
pub struct Attempt {
    /// What was tried.
    pub what: &'static str,
    /// Whether it was refused.
    pub refused: bool,
    /// Every reason given.
    pub reasons: Vec<String>,
}

/// Key Custodians who opened the key.
#[derive(Debug, Serialize)]
pub struct Opening {
    /// For which incident.
    pub incident: IncidentId,
    /// The entry by which it was activated.
    pub entry: u64,
    /// Who presented, in that order.
    pub custodians: Vec<PersonId>,
}

/// Durations in milliseconds, and rates.
#[derive(Debug, Default, Serialize)]
pub struct Times {
    /// Making keys and certificates of all Devices.
    pub fleet_ms: u64,
    /// From the request to its last command, without the time the Devices took.
    pub signing_ms: u64,
    /// Commands signed, recorded and released each second.
    pub signed_per_second: u64,
    /// Devices verifying, executing and answering, and the checks of their Responses.
    pub devices_ms: u64,
    /// Commands each second that Devices took and whose Responses were checked.
    pub answered_per_second: u64,
    /// Exporting the ledger.
    pub export_ms: u64,
    /// Verifying the export.
    pub verify_ms: u64,
    /// All of it.
    pub whole_ms: u64,
}

/// In milliseconds.
pub fn ms(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

impl Summary {
    /// Fills in the rates.
    pub fn rates(&mut self, signed: u64, signing: Duration, answered: u64, devices: Duration) {
        self.times.signing_ms = ms(signing);
        self.times.signed_per_second = rate(signed, signing);
        self.times.devices_ms = ms(devices);
        self.times.answered_per_second = rate(answered, devices);
    }

    /// The end of the story.
    pub fn tell(&self, teller: &mut Teller<'_>) {
        let refused = self.refusals.iter().filter(|attempt| attempt.refused).count();
        let in_seconds = |ms| seconds(Duration::from_millis(ms));
        teller.line("");
        teller.heading(if self.passed { "The exercise passed." } else { "THE EXERCISE DID NOT PASS." });
        if self.scenario == Scenario::NotToExecute {
            teller.fact("Devices stranded", &number(self.devices));
        } else {
            teller.fact("Devices recovered", &format!("{} of {}", number(self.recovered), number(self.devices)));
        }
        teller.fact("refused, as it must be", &format!("{refused} of {} attempts", self.refusals.len()));
        if self.scenario != Scenario::NotToExecute {
            if self.scenario != Scenario::Contingency {
                let openings = number(self.openings.len() as u64);
                teller.fact("key opened", &format!("{openings} times, by Key Custodians who presented anew each time"));
            }
            self.tell_signing(teller);
        }
        let ledger = format!(
            "{} entries, exported in {}, verified in {}",
            number(self.entries),
            in_seconds(self.times.export_ms),
            in_seconds(self.times.verify_ms)
        );
        teller.fact("ledger", &ledger);
        teller.fact("took", &in_seconds(self.times.whole_ms));
        for fault in &self.faults {
            teller.bad(fault);
        }
    }

    fn tell_signing(&self, teller: &mut Teller<'_>) {
        if self.scenario != Scenario::Contingency {
            let unknown = format!("{} after the kill, {} settled", number(self.unknown), number(self.settled));
            teller.fact("unknown outcomes", &unknown);
        }
        let signing = format!(
            "{} commands each second ({} octets each), recorded and checked before release",
            number(self.times.signed_per_second),
            number(self.command_octets as u64)
        );
        teller.fact("signing", &signing);
        teller
            .fact("Devices", &format!("{} verified and answered each second", number(self.times.answered_per_second)));
    }
}
