//! Pure. When people are reminded that the arrangements were not rehearsed for long: SEC Section L10 wants them tested
//! periodically, and no document at hand says how often.

use time::{Date, Month, OffsetDateTime};

use crate::domain::time::Timestamp;

/// Ceremonies were about one a year (news of the code administrator, 15 August 2019). The interval that SEC Appendix L demands
/// was not read: a default of ours.
pub const CEREMONY_OR_EXERCISE_MONTHS_DEFAULT: u32 = 12;
/// Ten years: longer is no reminder.
pub const CEREMONY_OR_EXERCISE_MONTHS_MAX: u32 = 120;

/// When to remind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reminders {
    /// Months after the last ceremony or exercise.
    pub ceremony_or_exercise_months: u32,
    /// Whether the policy says so, and not the default.
    pub is_set: bool,
}

impl Reminders {
    /// Since when another ceremony or exercise is overdue, if at that moment it is.
    pub fn overdue(&self, last: Timestamp, at: Timestamp) -> Option<Timestamp> {
        Some(self.due(last)).filter(|due| at >= *due)
    }

    /// The first moment at which another ceremony or exercise is overdue: so many calendar months after the last one, in UTC. The
    /// last day of a month stands for a day that it does not have.
    pub fn due(&self, last: Timestamp) -> Timestamp {
        let last = last.to_calendar();
        let months = i64::from(last.year()) * 12 + i64::from(u8::from(last.month())) - 1
            + i64::from(self.ceremony_or_exercise_months);
        let year = i32::try_from(months.div_euclid(12)).unwrap_or(i32::MAX);
        let month = u8::try_from(months.rem_euclid(12) + 1).expect("a remainder of 12, and 1, is 1 to 12");
        let month = Month::try_from(month).expect("1 to 12 are months");
        // Beyond the calendar nothing is ever due.
        let date = Date::from_calendar_date(year, month, last.day().min(month.length(year.min(9_999))));
        let due = date.map(|date| OffsetDateTime::new_utc(date, last.time()));
        due.ok()
            .and_then(|due| i64::try_from(due.unix_timestamp_nanos() / 1_000_000).ok())
            .and_then(|ms| Timestamp::from_unix_ms(ms).ok())
            .unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests;
