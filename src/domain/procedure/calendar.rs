//! Pure. Civil dates of Europe/London, in which directions are written, and the moments in UTC at which they begin.
//!
//! British summer time is one hour ahead of UTC, from 01:00 UTC on the last Sunday of March until 01:00 UTC on the last
//! Sunday of October (Summer Time Act 1972, section 1; the Sundays of all Member States since 1996, Directive 94/21/EC and
//! its successors, kept by the Summer Time Order 2002). Earlier years went by other days, so they are refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::{Date, Duration, Month, OffsetDateTime};

use crate::domain::time::Timestamp;

/// The first year whose summer time follows the rule above.
pub const YEAR_MIN: i32 = 1996;

/// The last year, so that the day after each date has a moment too ([`Timestamp::MAX`]).
pub const YEAR_MAX: i32 = 9998;

/// The last day of March and October.
const LAST_DAY: u8 = 31;

/// A day by the calendar of Great Britain. Its text is `2017-07-21`. Years [`YEAR_MIN`] to [`YEAR_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CivilDate(Date);

/// Why a text or a moment is no civil date.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a date such as 2017-07-21, from {YEAR_MIN} to {YEAR_MAX}, found {found:?}")]
pub struct CivilDateError {
    found: String,
}

/// Whether the day on which something ends is still part of it. A direction that says "until 2 November" leaves that open, so
/// each variation says how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndDay {
    /// In force through the end of that day.
    Included,
    /// Until the first instant of it.
    Excluded,
}

impl EndDay {
    /// The first moment at which what lasts until `date` is over.
    pub fn end_of(self, date: CivilDate) -> Timestamp {
        match self {
            Self::Included => date.next_day_begins(),
            Self::Excluded => date.begins(),
        }
    }
}

impl fmt::Display for EndDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Included => "that day included",
            Self::Excluded => "that day excluded",
        })
    }
}

impl CivilDate {
    /// The day that the clocks of London show at that moment.
    ///
    /// # Errors
    /// Before [`YEAR_MIN`] or after [`YEAR_MAX`].
    pub fn of(at: Timestamp) -> Result<Self, CivilDateError> {
        Self::new(london(at).date()).ok_or_else(|| CivilDateError { found: at.to_string() })
    }

    /// The first moment of that day, in UTC.
    pub fn begins(self) -> Timestamp {
        first_instant(self.0)
    }

    /// The first moment of the day after it.
    pub fn next_day_begins(self) -> Timestamp {
        first_instant(self.0 + Duration::DAY)
    }

    fn new(date: Date) -> Option<Self> {
        (YEAR_MIN..=YEAR_MAX).contains(&date.year()).then_some(Self(date))
    }
}

/// Whether London is an hour ahead of UTC at that moment. For years before [`YEAR_MIN`] it is the rule of today, carried back.
pub fn is_summer_time(at: Timestamp) -> bool {
    let utc = at.to_calendar();
    let turn = |month: Month| {
        let last = Date::from_calendar_date(utc.year(), month, LAST_DAY).expect("both months have 31 days");
        let back = i64::from(last.weekday().number_days_from_sunday());
        (last - Duration::days(back)).with_hms(1, 0, 0).expect("01:00:00 is a time").assume_utc()
    };
    turn(Month::March) <= utc && utc < turn(Month::October)
}

/// What the clocks of London show at that moment.
pub fn london(at: Timestamp) -> OffsetDateTime {
    let utc = at.to_calendar();
    if is_summer_time(at) { utc + Duration::HOUR } else { utc }
}

/// A moment by the clocks of London, to the second, for people: `2017-07-21 03:10:00 BST`.
pub fn shown(at: Timestamp) -> String {
    let local = london(at);
    let zone = if is_summer_time(at) { "BST" } else { "GMT" };
    let (hour, minute, second) = local.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} {zone}", local.date())
}

/// Midnight in London. The clocks change at 01:00 UTC, never at midnight, so there is exactly one.
fn first_instant(date: Date) -> Timestamp {
    let utc = date.midnight().assume_utc();
    let at = |moment: OffsetDateTime| {
        Timestamp::from_unix_ms(moment.unix_timestamp() * 1_000).expect("1996 to 9999 lies within what has a text")
    };
    let in_summer = at(utc - Duration::HOUR);
    if is_summer_time(in_summer) { in_summer } else { at(utc) }
}

impl fmt::Display for CivilDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), u8::from(self.0.month()), self.0.day())
    }
}

impl fmt::Debug for CivilDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CivilDate {
    type Err = CivilDateError;
    fn from_str(text: &str) -> Result<Self, CivilDateError> {
        let wrong = || CivilDateError { found: text.chars().take(40).collect() };
        let form = time::macros::format_description!("[year]-[month]-[day]");
        if text.len() != 10 {
            return Err(wrong());
        }
        Date::parse(text, form).ok().and_then(Self::new).ok_or_else(wrong)
    }
}

impl Serialize for CivilDate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CivilDate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
