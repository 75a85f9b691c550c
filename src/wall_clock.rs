//! Shell: this machine's wall clock, read in one place, so that a clock out of range has one answer.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::time::Timestamp;

/// Now, by this machine's clock: before 1970 [`Timestamp::MIN`], after 9999 [`Timestamp::MAX`]. Neither lies in the window of
/// any determination or certificate that can be used. Whether the clock can be trusted says [`crate::service::clock`].
pub fn wall_clock() -> Timestamp {
    at(SystemTime::now())
}

fn at(moment: SystemTime) -> Timestamp {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::MIN.plus_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
