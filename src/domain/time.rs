//! Pure. Moments and windows. There is no `now` here: whoever decides is told the time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// A moment in UTC, counted in milliseconds since 1970-01-01T00:00:00Z.
///
/// Its text is RFC 3339 with milliseconds and `Z`: `2017-07-21T00:00:00.000Z`; fractions are optional on input, and any
/// offset is accepted and turned into UTC. Years 1970 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text or number is not a moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a moment such as 2017-07-21T00:00:00Z, between 1970 and 9999, found {found:?}")]
pub struct TimestampError {
    found: String,
}

impl Timestamp {
    /// 9999-12-31T23:59:59.999Z, the last moment that has a text.
    pub const MAX: Self = Self(253_402_300_799_999);
    /// 1970-01-01T00:00:00.000Z.
    pub const MIN: Self = Self(0);

    /// From milliseconds since 1970-01-01T00:00:00Z.
    pub fn from_unix_ms(unix_ms: i64) -> Result<Self, TimestampError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&unix_ms) {
            Ok(Self(unix_ms))
        } else {
            Err(TimestampError { found: format!("{unix_ms} ms") })
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub const fn unix_seconds(self) -> i64 {
        self.0 / 1000
    }

    /// So many milliseconds later, at most [`Timestamp::MAX`] (before 1970: 1970).
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms).clamp(Self::MIN.0, Self::MAX.0))
    }

    /// The same moment in the calendar of the `time` crate.
    pub fn to_calendar(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .expect("1970 to 9999 lies within the calendar")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.to_calendar();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.millisecond()
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let wrong = || TimestampError { found: text.chars().take(40).collect() };
        let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
        let ms = i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).map_err(|_| wrong())?;
        Self::from_unix_ms(ms).map_err(|_| wrong())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A GeneralizedTime of DER, `YYYYMMDDHHMMSSZ` (15 characters), as CS02b carries it.
pub fn from_generalized(text: &str) -> Result<Timestamp, TimestampError> {
    let wrong = || TimestampError { found: text.chars().take(40).collect() };
    let form = format_description!("[year][month][day][hour][minute][second]Z");
    if text.len() != 15 {
        return Err(wrong());
    }
    let moment = PrimitiveDateTime::parse(text, form).map_err(|_| wrong())?.assume_offset(UtcOffset::UTC);
    Timestamp::from_unix_ms(moment.unix_timestamp() * 1000).map_err(|_| wrong())
}

/// From a moment until another: the first is inside, the last is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The first moment inside.
    pub from: Timestamp,
    /// The first moment no longer inside.
    pub until: Timestamp,
}

impl Window {
    /// Whether `at` lies inside.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    /// Whether no moment lies inside.
    pub fn is_empty(&self) -> bool {
        self.until <= self.from
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} until {}", self.from, self.until)
    }
}

#[cfg(test)]
mod tests;
