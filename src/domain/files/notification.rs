//! Pure. Compromise Notification Files: who says which Private Key is, or may be, Compromised.

use super::faults::{Fault, FileFaults};
use super::layout::Layout;
use super::table::{Cells, Row, read_rows};
use crate::domain::determination::prose::Prose;
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::steps::{Certainty, CompromiseClass};
use crate::domain::names::{Digest, FileKind, SecParty};
use crate::domain::time::Timestamp;

/// Which key a notification is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notified {
    /// That of the Organisation Certificate with this SHA-256.
    Organisation(Digest),
    /// Another one: which, the SHA-256 of its certificate and what its keeper calls it, of which one at least is there.
    Other(OtherKey, Option<Digest>, Option<Prose>),
}

impl Notified {
    /// The class that goes with it.
    pub const fn class(&self) -> CompromiseClass {
        match self {
            Self::Organisation(_) => CompromiseClass::Organisation,
            Self::Other(..) => CompromiseClass::Other,
        }
    }
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Who notifies.
    pub notifier: Prose,
    /// Whose employee that is.
    pub party: SecParty,
    /// The key.
    pub key: Notified,
    /// Actual or suspected.
    pub certainty: Certainty,
    /// When it was notified.
    pub time: Timestamp,
    /// By which way.
    pub channel: Prose,
    /// Anything else.
    pub remark: Option<Prose>,
}

impl Notification {
    /// Reads a file of one of the two kinds, as its layout says.
    pub fn read(layout: &Layout, octets: &[u8]) -> Result<Self, FileFaults> {
        let mut rows = read_rows::<Self>(layout, octets)?;
        Ok(rows.remove(0)) // `end` refuses any number but one.
    }
}

impl Row for Notification {
    type Seen = ();

    fn read(cells: &mut Cells<'_>, (): &mut ()) -> Option<Self> {
        let notifier = cells.required("notifier");
        let party = cells.required("party");
        let certainty = cells.required("compromise");
        let time = cells.required("time");
        let channel = cells.required("channel");
        let remark = cells.optional("remark");
        let class: Option<CompromiseClass> = cells.required("class");
        let key = if cells.kind() == FileKind::OtherNotification {
            let key: Option<OtherKey> = cells.required("key");
            let (certificate, id) = (cells.optional("certificate-sha256"), cells.optional("key-id"));
            if !cells.has("certificate-sha256") && !cells.has("key-id") {
                let expected = "certificate-sha256 or key-id, so that the key is named";
                cells.fault("key", Fault::ValueMissing { expected });
            }
            key.map(|key| Notified::Other(key, certificate, id))
        } else {
            cells.required("certificate-sha256").map(Notified::Organisation)
        };
        if let (Some(class), Some(key)) = (class, &key)
            && class != key.class()
        {
            cells.fault("class", Fault::value(&format!("{}, as this kind of file is", key.class()), class.as_str()));
        }
        Some(Self {
            notifier: notifier?,
            party: party?,
            key: key?,
            certainty: certainty?,
            time: time?,
            channel: channel?,
            remark,
        })
    }

    fn end(rows: u64, faults: &mut FileFaults) {
        match rows {
            0 => faults.add(1, None, None, Fault::NoRows),
            1 => {}
            found => faults.add(3, None, None, Fault::OneRow { found }),
        }
    }
}
