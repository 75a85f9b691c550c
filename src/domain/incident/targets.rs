//! Pure. The Relevant Devices of an incident (SEC Section L10.30(a)) and what became of each.
//!
//! A list of targets is text with a Device a line, `EUI-64,SMI Status,date,evidence`, sorted by Device, each once: the status
//! is the one at or immediately before the Recovery Event, the date the day from which it applied, the evidence what shows
//! that the Device held credentials of the Compromised certificate.
//!
//! A target takes 24 octets here: 240 MB for ten million.

use std::fmt;

use super::TakeError;
use crate::domain::ledger::steps::{Method, SmiStatus};
use crate::domain::names::DeviceId;
use crate::domain::time::Timestamp;

/// Octets of one line: an EUI-64, a status, a date, and an evidence of a sentence.
pub const LINE_LEN_MAX: usize = 512;

/// Faults that are told of one list; the rest is counted.
pub const FAULTS_TOLD_MAX: usize = 50;

/// What a Device's own signed word says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Nothing yet.
    #[default]
    None,
    /// It refused, or a cell failed.
    Failed,
    /// It was recovered.
    Succeeded,
}

/// Who controls a Device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Whoever did before.
    #[default]
    AsBefore,
    /// The DCC: it was recovered by Method 2, with the DCC's ACB certificates.
    Dcc,
    /// Its Subscriber again, after Method 2.
    HandedOver,
}

/// A Relevant Device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub device: DeviceId,
    /// Its SMI Status, as last recorded.
    pub status: SmiStatus,
    /// From when.
    pub since: Timestamp,
    /// What its Response proved.
    pub proof: Proof,
    /// Left out, with a reason.
    pub excluded: bool,
    /// Who controls it.
    pub control: Control,
    /// Its status was set without the proof that the rule asks for.
    pub overridden: bool,
}

impl Target {
    /// Left in 'recovery' without a proven recovery: the DCC cannot reach it (direction of 18 July 2017, paragraph (b)).
    pub fn is_stranded(&self) -> bool {
        self.status == SmiStatus::Recovery && self.proof != Proof::Succeeded
    }

    /// Whether anything was recorded of it since it was assessed.
    pub fn is_touched(&self) -> bool {
        self.excluded
            || self.overridden
            || self.control != Control::AsBefore
            || self.proof != Proof::None
            || self.status != SmiStatus::Commissioned
    }

    /// Whether nothing more is to come from it.
    pub fn is_at_end(&self) -> bool {
        self.excluded || self.proof == Proof::Succeeded
    }
}

/// How many targets stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// All of them.
    pub targets: u64,
    /// With SMI Status 'recovery'.
    pub in_recovery: u64,
    /// With SMI Status 'recovered'.
    pub recovered: u64,
    /// Proven to be recovered by their own Responses.
    pub succeeded: u64,
    /// Whose Responses say that they are not.
    pub failed: u64,
    /// Left out.
    pub excluded: u64,
    /// Neither proven nor left out.
    pub outstanding: u64,
    /// Recovered and under the DCC's control: not handed over yet.
    pub under_dcc_control: u64,
    /// In 'recovery' without a proven recovery.
    pub stranded: u64,
}

/// The Relevant Devices, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets(Vec<Target>);

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Counted from 1.
    pub line: u64,
    /// What was expected, and what was found.
    pub fault: Box<str>,
}

/// Why a list is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", shown(faults, *more))]
pub struct TargetsError {
    /// The faults, at most [`FAULTS_TOLD_MAX`].
    pub faults: Vec<LineFault>,
    /// How many more there are.
    pub more: u64,
}

fn shown(faults: &[LineFault], more: u64) -> String {
    let mut told: Vec<String> =
        faults.iter().map(|LineFault { line, fault }| format!("line {line}: {fault}")).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told.join("; ")
}

/// Splits pieces into lines and collects the faults.
struct Lines<'a> {
    part: Vec<u8>,
    line: u64,
    error: TargetsError,
    each: &'a mut dyn FnMut(&str) -> Result<(), String>,
}

impl Lines<'_> {
    fn fault(&mut self, fault: String) {
        if self.error.faults.len() < FAULTS_TOLD_MAX {
            self.error.faults.push(LineFault { line: self.line, fault: fault.into() });
        } else {
            self.error.more += 1;
        }
    }

    fn feed(&mut self, piece: &[u8]) {
        for &octet in piece {
            if octet == b'\n' {
                self.line += 1;
                let part = std::mem::take(&mut self.part);
                let taken = if part.len() > LINE_LEN_MAX {
                    Err(format!("expected at most {LINE_LEN_MAX} octets, found more"))
                } else {
                    std::str::from_utf8(&part)
                        .map_err(|_| "expected UTF-8".to_owned())
                        .and_then(|text| (self.each)(text))
                };
                if let Err(fault) = taken {
                    self.fault(fault);
                }
            } else if self.part.len() <= LINE_LEN_MAX {
                self.part.push(octet);
            }
        }
    }
}

/// Reads a list line by line.
fn read_lines<E>(
    source: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    each: &mut dyn FnMut(&str) -> Result<(), String>,
) -> Result<(), TakeError<E>> {
    let error = TargetsError { faults: Vec::new(), more: 0 };
    let mut lines = Lines { part: Vec::new(), line: 0, error, each };
    source(&mut |piece| lines.feed(piece)).map_err(TakeError::Source)?;
    if !lines.part.is_empty() {
        lines.line += 1;
        lines.fault("expected a line feed at the end".into());
    }
    if lines.error.faults.is_empty() { Ok(()) } else { Err(lines.error.into()) }
}

/// How many lines end in these octets.
pub fn line_feeds(octets: &[u8]) -> u64 {
    octets.split(|octet| *octet == b'\n').skip(1).count() as u64
}

/// Demands that Devices come sorted, each once.
fn in_order(last: &mut Option<DeviceId>, device: DeviceId) -> Result<(), String> {
    match last.replace(device) {
        Some(before) if before == device => Err(format!("Device {device} stands there twice")),
        Some(before) if before > device => Err(format!("expected the Devices sorted; {device} comes after {before}")),
        Some(_) | None => Ok(()),
    }
}

/// One line of a list of targets.
fn target(line: &str) -> Result<Target, String> {
    let mut fields = line.splitn(4, ',');
    let (Some(device), Some(status), Some(since), Some(evidence)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("expected EUI-64,SMI Status,date,evidence".into());
    };
    let device = device.parse().map_err(|error: crate::domain::names::NameError| error.to_string())?;
    let status = SmiStatus::ALL.into_iter().find(|known| known.as_str() == status).ok_or_else(|| {
        let known: Vec<&str> = SmiStatus::ALL.iter().map(|status| status.as_str()).collect();
        format!("SMI Status: expected one of {}, found {status:?}", known.join(", "))
    })?;
    if status != SmiStatus::Commissioned {
        return Err(format!(
            "Device {device} was {status} immediately before the Recovery Event; a Relevant Device was Commissioned (SEC L10.30(a))"
        ));
    }
    let since = format!("{since}T00:00:00Z")
        .parse::<Timestamp>()
        .map_err(|_| format!("date: expected YYYY-MM-DD, found {since:?}"))?;
    if evidence.trim().is_empty() {
        return Err(format!("Device {device}: expected the evidence that it held the credentials, found none"));
    }
    Ok(Target {
        device,
        status,
        since,
        proof: Proof::None,
        excluded: false,
        control: Control::AsBefore,
        overridden: false,
    })
}

impl Targets {
    /// Reads a list of targets.
    pub fn read<E>(source: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>) -> Result<Self, TakeError<E>> {
        let (mut targets, mut last) = (Vec::new(), None);
        read_lines(source, &mut |line| {
            let target = target(line)?;
            in_order(&mut last, target.device)?;
            targets.push(target);
            Ok(())
        })?;
        if targets.is_empty() {
            let fault = "expected at least one Relevant Device, found none".into();
            return Err(TargetsError { faults: vec![LineFault { line: 1, fault }], more: 0 }.into());
        }
        Ok(Self(targets))
    }

    /// The targets of a later assessment, with what is known already of those that stay.
    #[must_use]
    pub fn reassessed(&self, mut later: Self) -> Self {
        for target in &mut later.0 {
            if let Some(known) = self.get(target.device).filter(|known| known.is_touched()) {
                *target = *known;
            }
        }
        later
    }

    /// The first Device that a later assessment may not drop: something was done to it.
    pub fn dropped_by(&self, later: &Self) -> Option<DeviceId> {
        let mut touched = self.0.iter().filter(|target| target.is_touched());
        touched.find(|target| later.get(target.device).is_none()).map(|target| target.device)
    }

    /// Of how many SMI Status 'recovery' is still wanted: neither left out, nor recovered, nor set already.
    pub fn without_recovery(&self) -> u64 {
        let wanted = |target: &&Target| {
            !target.is_at_end() && !matches!(target.status, SmiStatus::Recovery | SmiStatus::Recovered)
        };
        self.0.iter().filter(wanted).count() as u64
    }

    /// How many are proven recovered while their SMI Status says 'recovery' still.
    pub fn proven_in_recovery(&self) -> u64 {
        let wanted = |target: &&Target| target.proof == Proof::Succeeded && target.status == SmiStatus::Recovery;
        self.0.iter().filter(wanted).count() as u64
    }

    /// How many they are.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, sorted.
    pub fn all(&self) -> &[Target] {
        &self.0
    }

    /// One of them.
    pub fn get(&self, device: DeviceId) -> Option<&Target> {
        self.0.binary_search_by_key(&device, |target| target.device).ok().map(|at| &self.0[at])
    }

    /// What a Device's Response proved, under a determination of that method.
    pub fn prove(&mut self, device: DeviceId, proof: Proof, method: Option<Method>) {
        if let Ok(at) = self.0.binary_search_by_key(&device, |target| target.device) {
            let target = &mut self.0[at];
            // A Device that proved its recovery once is recovered.
            if target.proof != Proof::Succeeded {
                target.proof = proof;
                if proof == Proof::Succeeded && method == Some(Method::AcbCertificates) {
                    target.control = Control::Dcc;
                }
            }
        }
    }

    /// Does something with the targets of a list of Devices (an EUI-64 a line), or with all.
    ///
    /// # Errors
    /// A line that is no Device, out of order, or not among the targets; then nothing is done to those of that line.
    pub fn each<E, S>(&mut self, list: Option<S>, mut act: impl FnMut(&mut Target)) -> Result<(), TakeError<E>>
    where
        S: FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    {
        let Some(source) = list else {
            self.0.iter_mut().for_each(act);
            return Ok(());
        };
        let (all, mut before) = (&mut self.0, None);
        read_lines(source, &mut |line| {
            let device: DeviceId = line.parse().map_err(|error: crate::domain::names::NameError| error.to_string())?;
            in_order(&mut before, device)?;
            let at = all.binary_search_by_key(&device, |target| target.device);
            let at = at.map_err(|_| format!("Device {device} is not among the targets of the incident"))?;
            act(&mut all[at]);
            Ok(())
        })
    }

    /// How many stand where.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for target in &self.0 {
            counts.targets += 1;
            counts.in_recovery += u64::from(target.status == SmiStatus::Recovery);
            counts.recovered += u64::from(target.status == SmiStatus::Recovered);
            counts.succeeded += u64::from(target.proof == Proof::Succeeded);
            counts.failed += u64::from(target.proof == Proof::Failed);
            counts.excluded += u64::from(target.excluded);
            counts.outstanding += u64::from(!target.is_at_end());
            counts.under_dcc_control += u64::from(target.control == Control::Dcc);
            counts.stranded += u64::from(target.is_stranded());
        }
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} targets: {} proven recovered, {} failed, {} left out, {} outstanding; {} in 'recovery', {} stranded",
            self.targets, self.succeeded, self.failed, self.excluded, self.outstanding, self.in_recovery, self.stranded
        )
    }
}

#[cfg(test)]
mod tests;
