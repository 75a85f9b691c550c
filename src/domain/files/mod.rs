//! Pure. The procedure's files: Compromise Notification, Recovery Progress and Anomaly Detection Thresholds Files, and SMI
//! Statuses. CSV in UTF-8 with a header line (RFC 4180).
//!
//! [`layout`] says which columns each has and how a policy maps another layout to ours, [`table`] reads lines piece by piece,
//! and every fault is told with line and column ([`faults`]). Nothing of a file with a fault is taken in. Who signed a file,
//! and whether it may be taken in, is asked elsewhere ([`crate::domain::intake`]).

mod adt;
mod csv;
mod faults;
mod layout;
mod notification;
mod progress;
mod smi;
mod table;
mod words;

pub use adt::{PERIOD_MINUTES_MAX, ServiceRequest, Threshold, Thresholds};
pub use csv::{FIELD_LEN_MAX, FIELDS_MAX, write_record};
pub use faults::{FAULTS_MAX, Fault, FileFault, FileFaults};
pub use layout::{Column, DEFAULT_LABEL, IGNORE, Layout, LayoutFault, columns};
pub use notification::{Notification, Notified};
pub use progress::{Counted, Progress};
pub use smi::{ExportRow, ExtractRow};
pub use table::{Cells, FILE_LEN_MAX, ROWS_MAX, Row, TableReader};
pub use words::DeviceState;

use crate::domain::names::{FileKind, SmsrReference};

/// What a file of any kind amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A notification of either class.
    Notification(Notification),
    /// A progress file of either class.
    Progress(Progress),
    /// Thresholds.
    Thresholds(Thresholds),
    /// An extract or export of SMI Statuses: how many Devices. They are read with [`TableReader`].
    Statuses(u64),
}

impl Content {
    /// Reads a whole file, as its layout says; its kind is the layout's.
    pub fn read(layout: &Layout, octets: &[u8]) -> Result<Self, FileFaults> {
        fn count<R: Row>(layout: &Layout, octets: &[u8]) -> Result<Content, FileFaults> {
            let mut reader = TableReader::<R>::new(layout.clone());
            reader.feed(octets, &mut |_| {});
            reader.finish(&mut |_| {}).map(Content::Statuses)
        }
        match layout.kind() {
            FileKind::OrganisationNotification | FileKind::OtherNotification => {
                Notification::read(layout, octets).map(Self::Notification)
            }
            FileKind::OrganisationProgress | FileKind::OtherProgress => {
                Progress::read(layout, octets).map(Self::Progress)
            }
            FileKind::Adt => Thresholds::read(layout, octets).map(Self::Thresholds),
            FileKind::SmiExtract => count::<ExtractRow>(layout, octets),
            FileKind::SmiExport => count::<ExportRow>(layout, octets),
        }
    }

    /// Lines below the header.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Notification(_) => 1,
            Self::Progress(progress) => progress.counts.len() as u64,
            Self::Thresholds(thresholds) => thresholds.thresholds.len() as u64,
            Self::Statuses(rows) => *rows,
        }
    }

    /// The reference that an ADT file has.
    pub const fn smsr(&self) -> Option<&SmsrReference> {
        match self {
            Self::Thresholds(thresholds) => Some(&thresholds.smsr),
            Self::Notification(_) | Self::Progress(_) | Self::Statuses(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
