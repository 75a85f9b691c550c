//! Pure. Recovery Progress Files: made from facts, and read again.

use std::collections::BTreeMap;

use super::csv::write_record;
use super::faults::{Fault, FileFaults};
use super::layout::{Layout, columns};
use super::table::{Cells, Row, read_rows};
use super::words::DeviceState;
use crate::domain::ledger::steps::{CompromiseClass, Method};
use crate::domain::names::{DeterminationId, Digest, FileKind, IncidentId, PartyId};
use crate::domain::time::Timestamp;

/// How many Devices are in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Under which determination; none for what no determination is about.
    pub determination: Option<DeterminationId>,
    /// By which way, once that is determined.
    pub method: Option<Method>,
    /// The state.
    pub state: DeviceState,
    /// How many.
    pub devices: u64,
}

/// What a progress file says: everything that it is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The incident.
    pub incident: IncidentId,
    /// Its class.
    pub class: CompromiseClass,
    /// The subject of the compromised certificate.
    pub party: PartyId,
    /// SHA-256 of the compromised certificate.
    pub certificate: Digest,
    /// When it was counted.
    pub at: Timestamp,
    /// The counts, at least one; a state stands once for each determination.
    pub counts: Vec<Counted>,
}

impl Progress {
    /// The kind of file that goes with the class.
    pub const fn kind(&self) -> FileKind {
        match self.class {
            CompromiseClass::Organisation => FileKind::OrganisationProgress,
            CompromiseClass::Other => FileKind::OtherProgress,
        }
    }

    /// The file, in our layout.
    pub fn write(&self) -> String {
        let Self { incident, class, party, certificate, at, counts } = self;
        let mut text = String::new();
        write_record(columns(self.kind()).iter().map(|column| column.name), &mut text);
        let (party, certificate, at) = (party.to_string(), certificate.to_string(), at.to_string());
        for Counted { determination, method, state, devices } in counts {
            let determination = determination.map(|id| id.to_string()).unwrap_or_default();
            let devices = devices.to_string();
            let fields = [
                incident.as_str(),
                class.as_str(),
                method.map_or("", Method::as_str),
                &party,
                &certificate,
                &at,
                &determination,
                state.as_str(),
                &devices,
            ];
            write_record(fields, &mut text);
        }
        text
    }

    /// Reads such a file again, as its layout says.
    pub fn read(layout: &Layout, octets: &[u8]) -> Result<Self, FileFaults> {
        let rows = read_rows::<ProgressRow>(layout, octets)?;
        let Head { incident, class, party, certificate, at } = rows[0].head.clone(); // `end` refuses a file without rows.
        Ok(Self { incident, class, party, certificate, at, counts: rows.into_iter().map(|row| row.counted).collect() })
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Head {
    incident: IncidentId,
    class: CompromiseClass,
    party: PartyId,
    certificate: Digest,
    at: Timestamp,
}

struct ProgressRow {
    head: Head,
    counted: Counted,
}

#[derive(Default)]
struct Seen {
    head: Option<(Head, u64)>,
    lines: BTreeMap<(Option<DeterminationId>, DeviceState), u64>,
}

impl Row for ProgressRow {
    type Seen = Seen;

    fn read(cells: &mut Cells<'_>, seen: &mut Seen) -> Option<Self> {
        let incident = cells.required("incident");
        let class: Option<CompromiseClass> = cells.required("class");
        let (party, certificate, at) =
            (cells.required("party"), cells.required("certificate-sha256"), cells.required("time"));
        let (determination, method) = (cells.optional("determination"), cells.optional("method"));
        let (state, devices) = (cells.required("state"), cells.required("devices"));
        let of_kind = if cells.kind() == FileKind::OtherProgress {
            CompromiseClass::Other
        } else {
            CompromiseClass::Organisation
        };
        if let Some(class) = class.filter(|class| *class != of_kind) {
            cells.fault("class", Fault::value(&format!("{of_kind}, as this kind of file is"), class.as_str()));
        }
        let head = Head { incident: incident?, class: class?, party: party?, certificate: certificate?, at: at? };
        match &seen.head {
            None => seen.head = Some((head.clone(), cells.line())),
            Some((expected, first)) => differs(cells, expected, *first, &head),
        }
        let (state, devices) = (state?, devices?);
        if let Some(first) = seen.lines.insert((determination, state), cells.line()) {
            cells.twice("state", &state, first);
        }
        Some(Self { head, counted: Counted { determination, method, state, devices } })
    }
}

/// What each line says of the incident must be the same.
fn differs(cells: &mut Cells<'_>, expected: &Head, first: u64, found: &Head) {
    let columns = [
        ("incident", expected.incident.to_string(), found.incident.to_string()),
        ("class", expected.class.to_string(), found.class.to_string()),
        ("party", expected.party.to_string(), found.party.to_string()),
        ("certificate-sha256", expected.certificate.to_string(), found.certificate.to_string()),
        ("time", expected.at.to_string(), found.at.to_string()),
    ];
    for (column, expected, found) in columns.into_iter().filter(|(_, expected, found)| expected != found) {
        cells.fault(column, Fault::Differs { expected, first, found });
    }
}
