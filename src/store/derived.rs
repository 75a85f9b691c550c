//! Pure. The rows of the derived state and the closed set of changes to them.

use crate::domain::determination::pages::Page;
use crate::domain::fold::{RequestFacts, listed_line};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, RequestId};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Listed};
use crate::domain::responses::{DeviceKey, ResultLine};

use super::StoreError;

/// The state of that number.
pub(super) fn from_code(found: i64) -> Result<IntentState, StoreError> {
    IntentState::ALL.into_iter().find(|state| i64::from(state.code()) == found).ok_or_else(|| StoreError::RowCorrupt {
        table: "device",
        expected: "a state of 1 to 6",
        found: found.to_string(),
    })
}

/// A recorded signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureRow {
    /// r ‖ s.
    pub octets: [u8; 64],
    /// Whether its release was recorded.
    pub released: bool,
}

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
        row: &'a DeviceFacts,
    },
    /// A blob becomes a determination's device list.
    List {
        /// The determination.
        determination: DeterminationId,
        /// The list's SHA-256; it is in the store or in the same batch.
        blob: Digest,
        /// By which pages its Devices are found, if somebody who read the list has made them; else they are made here.
        pages: Option<&'a [Page]>,
    },
    /// A signature was recorded.
    Signature {
        /// The leaf index of its intent.
        intent: u64,
        /// r ‖ s.
        octets: &'a [u8; 64],
        /// Whether its release is recorded with it.
        released: bool,
    },
    /// The release of the signatures of these intents was recorded; those that have none have none to release.
    Released {
        /// The first leaf of a range.
        from: u64,
        /// The first that is no longer in it.
        until: u64,
    },
    /// Devices have answered: what lines of results prove is taken in, in their order.
    Responses {
        /// Under which determination.
        determination: DeterminationId,
        /// The entry.
        entry: u64,
        /// The lines.
        lines: &'a [ResultLine],
    },
    /// Keys of Devices were imported, none of which has a row.
    DeviceKeys {
        /// The entry.
        entry: u64,
        /// The keys.
        keys: &'a [DeviceKey],
    },
    /// The row of a request becomes this one.
    Request {
        /// The request.
        id: RequestId,
        /// The whole row.
        row: &'a RequestFacts,
    },
}

/// The greatest length of a device list's line in octets, line end included: twice the longest that its form allows.
const LINE_LEN_MAX: u64 = 160;

/// Visits the lines of a device list, read. Each must be UTF-8 and ended by a line feed.
pub(super) fn each_listed(
    digest: Digest,
    octets: impl std::io::Read,
    mut visit: impl FnMut(u64, &str, Listed) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    lines(digest, octets, LINE_LEN_MAX, |number, line| {
        let listed = listed_line(line).map_err(|reason| StoreError::ListLine { digest, line: number, reason })?;
        visit(number, line, listed)
    })
}

/// A line of a device list whose Device is not above that of the line before.
pub(super) fn out_of_order(digest: Digest, line: u64, is_same: bool, device: DeviceId) -> StoreError {
    let what = if is_same { "twice" } else { "below the one before it" };
    StoreError::ListLine { digest, line, reason: format!("Device {device} stands there {what}") }
}

fn lines(
    digest: Digest,
    octets: impl std::io::Read,
    len_max: u64,
    mut visit: impl FnMut(u64, &str) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    use std::io::{BufRead as _, Read as _};
    let mut octets = std::io::BufReader::with_capacity(64 * 1024, octets);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let wrong = |reason: String| StoreError::ListLine { digest, line: number, reason };
        let len = octets
            .by_ref()
            .take(len_max)
            .read_until(b'\n', &mut line)
            .map_err(|e| wrong(format!("cannot be read: {e}")))?;
        if len == 0 {
            return Ok(number - 1);
        }
        let text = line
            .strip_suffix(b"\n")
            .and_then(|line| str::from_utf8(line).ok())
            .ok_or_else(|| wrong(format!("expected UTF-8 of at most {len_max} octets, ended by a line feed")))?;
        visit(number, text)?;
    }
    unreachable!("a list has fewer than 2^64 lines")
}
