//! Pure. SMI Statuses as they come from the Smart Metering Inventory and go to it. The daemon sets none: it records.

use std::collections::HashMap;

use super::csv::write_record;
use super::faults::Fault;
use super::layout::columns;
use super::table::{Cells, Row};
use crate::domain::determination::prose::Prose;
use crate::domain::ledger::steps::SmiStatus;
use crate::domain::names::{DeviceId, Digest, FileKind, IncidentId};
use crate::domain::time::Timestamp;

/// A line of an extract. Read it with [`super::TableReader`], which keeps none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtractRow {
    /// The line on which it stands, counted from 1.
    pub line: u64,
    /// The Device.
    pub device: DeviceId,
    /// Its status.
    pub status: SmiStatus,
    /// Since when.
    pub from: Timestamp,
    /// For a Relevant Device: the certificate whose credentials it holds, or is reasonably believed to, and where that is known
    /// from (SEC Section L10.30(a)).
    pub holds: Option<(Digest, Prose)>,
    /// The incident, in a line of an export of ours that comes back.
    pub incident: Option<IncidentId>,
}

/// The line on which each Device stands.
#[derive(Default)]
pub struct Devices(HashMap<DeviceId, u64>);

impl Devices {
    fn take(&mut self, cells: &mut Cells<'_>, device: DeviceId) {
        if let Some(first) = self.0.insert(device, cells.line()) {
            cells.twice("device", &format!("Device {device}"), first);
        }
    }
}

impl Row for ExtractRow {
    type Seen = Devices;

    fn read(cells: &mut Cells<'_>, seen: &mut Devices) -> Option<Self> {
        let device: Option<DeviceId> = cells.required("device");
        let (status, from) = (cells.required("status"), cells.required("from"));
        let (certificate, evidence) = (cells.optional("certificate-sha256"), cells.optional("evidence"));
        match (cells.has("certificate-sha256"), cells.has("evidence")) {
            (true, false) => {
                let expected = "where it is known from that the Device holds the certificate";
                cells.fault("evidence", Fault::ValueMissing { expected });
            }
            (false, true) => {
                let expected = "the certificate that the evidence is about";
                cells.fault("certificate-sha256", Fault::ValueMissing { expected });
            }
            (true, true) | (false, false) => {}
        }
        let incident = cells.optional("incident");
        let device = device?;
        seen.take(cells, device);
        let (line, holds) = (cells.line(), certificate.zip(evidence));
        Some(Self { line, device, status: status?, from: from?, holds, incident })
    }
}

/// A line of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportRow {
    /// The Device.
    pub device: DeviceId,
    /// Its status.
    pub status: SmiStatus,
    /// Since when.
    pub from: Timestamp,
    /// In which incident it was set.
    pub incident: IncidentId,
}

impl ExportRow {
    /// The header line.
    pub fn write_header(to: &mut String) {
        write_record(columns(FileKind::SmiExport).iter().map(|column| column.name), to);
    }

    /// Its line.
    pub fn write(&self, to: &mut String) {
        let Self { device, status, from, incident } = self;
        let (device, from) = (device.to_string(), from.to_string());
        write_record([device.as_str(), status.as_str(), from.as_str(), incident.as_str()], to);
    }
}

impl Row for ExportRow {
    type Seen = Devices;

    fn read(cells: &mut Cells<'_>, seen: &mut Devices) -> Option<Self> {
        let device: Option<DeviceId> = cells.required("device");
        let (status, from, incident) = (cells.required("status"), cells.required("from"), cells.required("incident"));
        let device = device?;
        seen.take(cells, device);
        Some(Self { device, status: status?, from: from?, incident: incident? })
    }
}
