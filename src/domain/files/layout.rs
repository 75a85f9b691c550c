//! Pure. The layouts: which columns each kind of file has, what they mean, and how a policy gives them other names.
//!
//! The SEC's own layouts (columns, naming, container, signature) were not read: SEC Appendix L and Appendix AA 5.1 have them.
//! These are defaults of ours, and `files.toml` of the policy maps the columns of another layout to them.

use std::collections::BTreeMap;

use super::faults::{Fault, FileFaults};
use crate::domain::names::FileKind;

/// What is said of every default layout.
pub const DEFAULT_LABEL: &str = "default of ours; the SEC's own layout was not read";

/// What a policy maps a column to that nobody looks at.
pub const IGNORE: &str = "ignore";

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Our name for it, and its heading unless the policy says otherwise.
    pub name: &'static str,
    /// Whether the header line must have it.
    pub required: bool,
    /// The form of its values, as faults say it.
    pub form: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// A value, for the documentation.
    pub example: &'static str,
}

const fn must(name: &'static str, form: &'static str, meaning: &'static str, example: &'static str) -> Column {
    Column { name, required: true, form, meaning, example }
}

const fn may(name: &'static str, form: &'static str, meaning: &'static str, example: &'static str) -> Column {
    Column { name, required: false, form, meaning, example }
}

const MOMENT: &str = "a moment such as 2017-07-21T02:10:00Z";
const DIGEST: &str = "64 lower-case hexadecimal digits";
const EUI64: &str = "16 upper-case hexadecimal digits";
const COUNT: &str = "a whole number";
const TEXT: &str = "1 to 4000 octets of text without control characters";
const PARTY: &str = "1 to 32 characters of a-z, 0-9 and -";
const SHA256_EXAMPLE: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

const NOTIFIER: Column = must("notifier", TEXT, "who notifies: a person's name", "A. Officer");
const NOTIFIED_PARTY: Column =
    must("party", PARTY, "the notifier's Party or RDP, as the policy's persons.toml calls it", "supplier-a");
const CERTAINTY: Column =
    must("compromise", "actual or suspected", "whether the Compromise is proven or feared", "suspected");
const TIME: Column = must("time", MOMENT, "when it was notified", "2017-07-21T02:10:00Z");
const CHANNEL: Column = must("channel", TEXT, "by which way: telephone, SSI, letter ...", "telephone");
const REMARK: Column =
    may("remark", TEXT, "anything else, in the notifier's words; may be left empty", "Laptop stolen");
const IDS: &str = "1 to 40 characters of A-Z, 0-9 and -";
const INCIDENT: Column = must("incident", IDS, "the incident, as the DCC calls it", "INC-2017-07");

const ORGANISATION_NOTIFICATION: &[Column] = &[
    NOTIFIER,
    NOTIFIED_PARTY,
    must("certificate-sha256", DIGEST, "SHA-256 of the DER certificate whose Private Key is meant", SHA256_EXAMPLE),
    CERTAINTY,
    TIME,
    CHANNEL,
    must(
        "class",
        "organisation",
        "the class of the incident: the key behind an Organisation Certificate",
        "organisation",
    ),
    REMARK,
];

const OTHER_NOTIFICATION: &[Column] = &[
    NOTIFIER,
    NOTIFIED_PARTY,
    must(
        "key",
        "recovery, contingency, contingency-symmetric, issuing-oca or root-oca",
        "which key is meant",
        "recovery",
    ),
    may("certificate-sha256", DIGEST, "SHA-256 of its DER certificate, where it has one", SHA256_EXAMPLE),
    may("key-id", TEXT, "what its keeper calls it, where it has no certificate; one of the two is needed", ""),
    CERTAINTY,
    TIME,
    CHANNEL,
    must("class", "other", "the class of the incident: any other Relevant Private Key", "other"),
    REMARK,
];

/// Both classes have the same columns; only `class` tells them apart.
const PROGRESS: &[Column] = &[
    INCIDENT,
    must("class", "organisation or other", "the class of the incident", "organisation"),
    may(
        "method",
        "subscriber-key, acb-certificates, new-organisation-certificates or contingency",
        "Method 1, 2, 3 or Contingency (SEC Appendix L 4 and 5); empty while undetermined",
        "new-organisation-certificates",
    ),
    must("party", EUI64, "the subject of the compromised certificate", "00DB1234567890A0"),
    must("certificate-sha256", DIGEST, "SHA-256 of the compromised certificate", SHA256_EXAMPLE),
    must("time", MOMENT, "when it was counted", "2017-07-22T18:00:00Z"),
    may(
        "determination",
        "32 lower-case hexadecimal digits",
        "under which determination; empty for what is counted of all targets of the incident",
        "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
    ),
    must(
        "state",
        "listed, commissioned, recovery, signed, not-signed, signing-failed, signing-unknown, left, sent, succeeded, failed, \
         recovered, under-dcc-control, handed-back, stranded, overridden or left-out",
        "what is counted: Devices in this state",
        "signed",
    ),
    must("devices", COUNT, "how many", "998"),
];

const ADT: &[Column] = &[
    must(
        "smsr",
        "1 to 64 characters of A-Z, a-z, 0-9, - _ . and /",
        "reference of the DCC Service Management Service Request; the same in every line",
        "SMSR-0012345",
    ),
    must("user-id", EUI64, "the User whose communications are counted", "00DB1234567890A0"),
    must(
        "service-request",
        "a service reference variant such as 6.15.1, or all",
        "which communications are counted",
        "6.15.1",
    ),
    must("period-minutes", "a whole number from 1 to 44640", "the period in which they are counted", "1440"),
    must("warning", COUNT, "above so many in a period the User is warned", "900"),
    must("quarantine", COUNT, "above so many in a period they are quarantined; not below the warning", "1000"),
];

const SMI_STATUS: Column = must(
    "status",
    "one of the nine of the DUIS type DeviceStatus",
    "the SMI Status: Pending, Whitelisted, InstalledNotCommissioned, Commissioned, Decommissioned, Withdrawn, Suspended, Recovery \
     or Recovered",
    "Commissioned",
);
const DEVICE: Column = must("device", EUI64, "the Device", "00DB123456789001");
const FROM: Column = must("from", MOMENT, "since when the status applies", "2016-11-03T00:00:00Z");

const SMI_EXTRACT: &[Column] = &[
    DEVICE,
    SMI_STATUS,
    FROM,
    may(
        "certificate-sha256",
        DIGEST,
        "for a Relevant Device: SHA-256 of the certificate whose credentials it holds, or is reasonably believed to",
        SHA256_EXAMPLE,
    ),
    may("evidence", TEXT, "where that is known from; needed with certificate-sha256", "SRV 8.2 of 2017-07-20"),
    may(
        "incident",
        IDS,
        "the incident, in an export of ours that comes back; another one is a contradiction",
        "INC-2017-07",
    ),
];

const SMI_EXPORT: &[Column] = &[DEVICE, SMI_STATUS, FROM, INCIDENT];

/// The columns of a kind, in the order in which our files have them.
pub const fn columns(kind: FileKind) -> &'static [Column] {
    match kind {
        FileKind::OrganisationNotification => ORGANISATION_NOTIFICATION,
        FileKind::OtherNotification => OTHER_NOTIFICATION,
        FileKind::OrganisationProgress | FileKind::OtherProgress => PROGRESS,
        FileKind::Adt => ADT,
        FileKind::SmiExtract => SMI_EXTRACT,
        FileKind::SmiExport => SMI_EXPORT,
    }
}

/// Where the columns of a kind stand, as files that come in have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    kind: FileKind,
    /// By their heading: our name, or none for one that is ignored.
    headings: BTreeMap<String, Option<&'static str>>,
    label: String,
}

/// Why a mapping is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutFault {
    /// No such column of ours.
    #[error(
        "{kind}: {heading:?} is mapped to {column:?}, which is no column of this kind; `smkictl file layout {kind}` prints them"
    )]
    NoColumn {
        /// Of which kind.
        kind: FileKind,
        /// The other layout's heading.
        heading: String,
        /// What it is mapped to.
        column: String,
    },
    /// Two headings for one column.
    #[error("{kind}: column {column} has two headings, {first:?} and {second:?}; give it one")]
    Twice {
        /// Of which kind.
        kind: FileKind,
        /// Our column.
        column: &'static str,
        /// One heading.
        first: String,
        /// Another.
        second: String,
    },
}

impl Layout {
    /// Ours.
    pub fn standard(kind: FileKind) -> Self {
        let headings = columns(kind).iter().map(|column| (column.name.to_owned(), Some(column.name))).collect();
        Self { kind, headings, label: DEFAULT_LABEL.to_owned() }
    }

    /// That of another's files: `mapping` gives our column, or [`IGNORE`], for each of their headings that is not ours. `label`
    /// says where that layout was read.
    pub fn mapped(kind: FileKind, label: &str, mapping: &BTreeMap<String, String>) -> Result<Self, Vec<LayoutFault>> {
        let mut faults = Vec::new();
        let mut headings: BTreeMap<String, Option<&'static str>> = BTreeMap::new();
        let mut of_column: BTreeMap<&'static str, &str> = BTreeMap::new();
        for (heading, column) in mapping {
            if column == IGNORE {
                headings.insert(heading.clone(), None);
                continue;
            }
            let Some(ours) = columns(kind).iter().find(|ours| ours.name == column) else {
                let (heading, column) = (heading.clone(), column.clone());
                faults.push(LayoutFault::NoColumn { kind, heading, column });
                continue;
            };
            if let Some(first) = of_column.insert(ours.name, heading) {
                let (first, second) = (first.to_owned(), heading.clone());
                faults.push(LayoutFault::Twice { kind, column: ours.name, first, second });
            }
            headings.insert(heading.clone(), Some(ours.name));
        }
        for column in columns(kind) {
            if !of_column.contains_key(column.name) {
                headings.entry(column.name.to_owned()).or_insert(Some(column.name));
            }
        }
        if faults.is_empty() { Ok(Self { kind, headings, label: label.to_owned() }) } else { Err(faults) }
    }

    /// Of which files.
    pub const fn kind(&self) -> FileKind {
        self.kind
    }

    /// Where this layout comes from.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The heading of a column of ours in such a file; none if nothing leads to it.
    pub fn heading(&self, column: &str) -> Option<&str> {
        self.headings.iter().find(|(_, ours)| **ours == Some(column)).map(|(heading, _)| heading.as_str())
    }

    /// The headings that nobody looks at.
    pub fn ignored(&self) -> impl Iterator<Item = &str> {
        self.headings.iter().filter(|(_, ours)| ours.is_none()).map(|(heading, _)| heading.as_str())
    }

    /// Reads the header line: for each field of a line, which column of ours it is.
    pub(super) fn header(&self, line: u64, fields: &[String], faults: &mut FileFaults) -> Vec<Option<&'static str>> {
        if let [whole] = fields
            && let Some((at, separator)) = whole.char_indices().find(|(_, found)| matches!(found, ';' | '\t'))
            && self.headings.contains_key(&whole[..at])
        {
            faults.add(line, Some(1), None, Fault::Separator { found: separator });
            return Vec::new();
        }
        let mut found: Vec<Option<&'static str>> = Vec::with_capacity(fields.len());
        for (at, field) in fields.iter().enumerate() {
            let known = self.headings.get(field);
            if known.is_none() {
                let found = field.chars().take(80).collect();
                faults.add(line, Some(at + 1), None, Fault::ColumnUnknown { found });
            }
            let column = known.copied().flatten();
            if let Some(column) = column
                && let Some(first) = found.iter().position(|before| *before == Some(column))
            {
                faults.add(line, Some(at + 1), None, Fault::ColumnTwice { column, first: first + 1 });
            }
            found.push(column);
        }
        for column in columns(self.kind).iter().filter(|column| column.required) {
            if !found.contains(&Some(column.name)) {
                let heading = self.heading(column.name).filter(|heading| *heading != column.name).map(str::to_owned);
                faults.add(line, None, None, Fault::ColumnMissing { column: column.name, heading });
            }
        }
        found
    }

    /// An example of such a file: the header line and one line below it.
    pub fn example(&self) -> String {
        let mut text = String::new();
        let present =
            || columns(self.kind).iter().filter_map(|column| Some((self.heading(column.name)?, column.example)));
        super::csv::write_record(present().map(|(heading, _)| heading), &mut text);
        super::csv::write_record(present().map(|(_, example)| example), &mut text);
        text
    }
}
