//! Pure. The rows of the derived state and the closed set of changes to them.

use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, RequestId, TemplateName};

use super::StoreError;

/// What has become of the last command intended for a Device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceState {
    /// An intent is recorded, no outcome yet.
    Intended,
    /// Signed, and the signature recorded.
    Signed,
    /// The token answered an error that excludes a signature.
    Failed,
    /// Provably never submitted to the token.
    NotSigned,
    /// A signature may exist.
    Unknown,
}

impl DeviceState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Intended, Self::Signed, Self::Failed, Self::NotSigned, Self::Unknown];

    /// Whether something is still to be settled: `Intended` and `Unknown`.
    pub const fn is_pending(self) -> bool {
        match self {
            Self::Intended | Self::Unknown => true,
            Self::Signed | Self::Failed | Self::NotSigned => false,
        }
    }

    /// Its number in a row.
    pub(super) const fn code(self) -> i64 {
        match self {
            Self::Intended => 1,
            Self::Signed => 2,
            Self::Failed => 3,
            Self::NotSigned => 4,
            Self::Unknown => 5,
        }
    }

    pub(super) fn from_code(code: i64) -> Result<Self, StoreError> {
        Self::ALL.into_iter().find(|state| state.code() == code).ok_or_else(|| StoreError::RowCorrupt {
            table: "device",
            expected: "a state of 1 to 5",
            found: code.to_string(),
        })
    }
}

/// What is known of one Device under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// The highest counter recorded in an intent.
    pub counter: u64,
    /// The determination of the last intent.
    pub determination: DeterminationId,
    /// The template of the last intent.
    pub template: TemplateName,
    /// The leaf index of the last intent.
    pub intent: u64,
    /// What has become of it.
    pub state: DeviceState,
    /// How many intents there were with this counter.
    pub attempts: u32,
}

/// One line of a device list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The Device.
    pub device: DeviceId,
    /// The template that it gets.
    pub template: TemplateName,
    /// Its current counter, if the list says one.
    pub counter: Option<u64>,
}

/// A recorded signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureRow {
    /// r ‖ s.
    pub octets: [u8; 64],
    /// Whether its release was recorded.
    pub released: bool,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestStatus {
    /// Intents are recorded; more or their outcomes may follow.
    Open,
    /// Every command of it has an outcome.
    Done,
    /// Nothing of it was allowed.
    Refused,
}

impl RequestStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Open, Self::Done, Self::Refused];

    pub(super) const fn code(self) -> i64 {
        match self {
            Self::Open => 1,
            Self::Done => 2,
            Self::Refused => 3,
        }
    }

    pub(super) fn from_code(code: i64) -> Result<Self, StoreError> {
        Self::ALL.into_iter().find(|status| status.code() == code).ok_or_else(|| StoreError::RowCorrupt {
            table: "request",
            expected: "a status of 1 to 3",
            found: code.to_string(),
        })
    }
}

/// A request to sign, by which asking twice is answered once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// SHA-256 of the request as it came.
    pub digest: Digest,
    /// The leaf index of the first entry that belongs to it.
    pub first_leaf: u64,
    /// The leaf index of the last entry so far that belongs to it.
    pub last_leaf: u64,
    /// How many of its commands have an intent.
    pub intents: u64,
    /// How far it has come.
    pub status: RequestStatus,
}

/// Reads one line of a device list, without its line end. The text of the error goes into [`StoreError::ListLine`].
pub type LineParser = fn(&str) -> Result<Listed, String>;

/// One change of the derived state. Each is a function of entries (and of the blobs and signatures that entries name by
/// SHA-256), so that the same ones make the same tables again.
#[derive(Clone, Copy, Debug)]
pub enum Derived<'a> {
    /// The row of a Device under a key becomes this one.
    Device {
        /// The key.
        key: &'a KeyLabel,
        /// The Device.
        device: DeviceId,
        /// The whole row.
        row: &'a DeviceRow,
    },
    /// A determination's device list is imported from its blob, streaming.
    List {
        /// The determination.
        determination: DeterminationId,
        /// The list's SHA-256; it is in the store or in the same batch.
        blob: Digest,
        /// Reads each line.
        parse: LineParser,
    },
    /// A signature was recorded.
    Signature {
        /// The leaf index of its intent.
        intent: u64,
        /// r ‖ s.
        octets: &'a [u8; 64],
    },
    /// The release of a signature was recorded.
    Released {
        /// The leaf index of its intent.
        intent: u64,
    },
    /// The row of a request becomes this one.
    Request {
        /// The request.
        id: RequestId,
        /// The whole row.
        row: &'a RequestRow,
    },
}

/// The greatest length of a device list's line in octets, line end included: twice the longest that its form allows.
const LINE_LEN_MAX: u64 = 160;

/// Visits the lines of a device list. Each must be UTF-8 and ended by a line feed.
pub(super) fn each_line(
    digest: Digest,
    octets: impl std::io::Read,
    parse: LineParser,
    mut visit: impl FnMut(u64, Listed) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    use std::io::{BufRead as _, Read as _};
    let mut octets = std::io::BufReader::with_capacity(64 * 1024, octets);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let wrong = |reason: String| StoreError::ListLine { digest, line: number, reason };
        let len = octets
            .by_ref()
            .take(LINE_LEN_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|e| wrong(format!("cannot be read: {e}")))?;
        if len == 0 {
            return Ok(number - 1);
        }
        let text = line
            .strip_suffix(b"\n")
            .and_then(|line| str::from_utf8(line).ok())
            .ok_or_else(|| wrong(format!("expected UTF-8 of at most {LINE_LEN_MAX} octets, ended by a line feed")))?;
        visit(number, parse(text).map_err(wrong)?)?;
    }
    unreachable!("a list has fewer than 2^64 lines")
}
