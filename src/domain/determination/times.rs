//! Pure. What the passing of time does to documents. Whoever asks says what time it is.

use std::fmt;

use super::document::{Determination, Written};
use crate::domain::names::DeterminationId;
use crate::domain::time::{Timestamp, Window};

/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// Why it is the wrong time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongTime {
    /// Outside of the determination's window.
    #[error("determination {id} is in force {window}; it is {at}")]
    OutsideWindow {
        /// Which.
        id: DeterminationId,
        /// Its window.
        window: Window,
        /// Now.
        at: Timestamp,
    },
    /// The window ended before the document came.
    #[error("the window of determination {id} ended at {until}; it is {at}: draft a new one")]
    Over {
        /// Which.
        id: DeterminationId,
        /// The end.
        until: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// Drafted too long ago: the drafter saw an old ledger.
    #[error(
        "the ledger head in the document is of {head}, more than {hours_max} h before {at}: draft it again on a newer head"
    )]
    HeadTooOld {
        /// When the last entry under that head was recorded.
        head: Timestamp,
        /// What the policy allows.
        hours_max: u32,
        /// Now.
        at: Timestamp,
    },
    /// The head is of a moment that has not come.
    #[error("the ledger head in the document is of {head}, which is after {at}: check the clock")]
    HeadInFuture {
        /// When the last entry under that head was recorded.
        head: Timestamp,
        /// Now.
        at: Timestamp,
    },
}

/// Whether a determination may be acted on at that moment: from the first of its window, and no longer at the last.
pub fn in_window(determination: &Written<Determination>, at: Timestamp) -> Result<(), WrongTime> {
    let Determination { id, window, .. } = *determination.form();
    if window.contains(at) { Ok(()) } else { Err(WrongTime::OutsideWindow { id, window, at }) }
}

/// Whether a determination may still be recorded: before its window is over; ahead of it is in time.
pub fn not_over(determination: &Written<Determination>, at: Timestamp) -> Result<(), WrongTime> {
    let Determination { id, window, .. } = *determination.form();
    if at < window.until { Ok(()) } else { Err(WrongTime::Over { id, until: window.until, at }) }
}

/// Whether a head whose last entry was recorded at `head` is recent enough at `at`: `hours_max` hours ago just is.
pub fn head_recent(head: Timestamp, hours_max: u32, at: Timestamp) -> Result<(), WrongTime> {
    if head > at {
        Err(WrongTime::HeadInFuture { head, at })
    } else if at.unix_ms() - head.unix_ms() > i64::from(hours_max) * HOUR_MS {
        Err(WrongTime::HeadTooOld { head, hours_max, at })
    } else {
        Ok(())
    }
}

/// A pause of a determination: from the moment its document was recorded, for its hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspended(Window);

impl Suspended {
    /// A suspension of `hours`, recorded at `from`.
    pub fn new(from: Timestamp, hours: u32) -> Self {
        Self(Window { from, until: from.plus_ms(i64::from(hours) * HOUR_MS) })
    }

    /// Whether the determination is suspended at that moment; at the end of the last hour no longer.
    pub fn holds(self, at: Timestamp) -> bool {
        self.0.contains(at)
    }

    /// The first moment at which it no longer is.
    pub fn until(self) -> Timestamp {
        self.0.until
    }
}

impl fmt::Display for Suspended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "suspended {}", self.0)
    }
}

#[cfg(test)]
mod tests;
