//! Shell: what the time is in an exercise: this machine's clock, or one that is set against it.

use crate::domain::time::Timestamp;
use crate::wall_clock::wall_clock;

/// The clock that an exercise goes by. By default it is this machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    offset_ms: i64,
}

impl Clock {
    /// One by which it is that moment now.
    pub fn set_to(moment: Timestamp) -> Self {
        Self { offset_ms: moment.unix_ms() - wall_clock().unix_ms() }
    }

    /// Now, by this clock.
    pub fn now(self) -> Timestamp {
        wall_clock().plus_ms(self.offset_ms)
    }

    /// By how many milliseconds it is set against this machine's: behind it if negative. 0 if it is the same.
    pub const fn offset_ms(self) -> i64 {
        self.offset_ms
    }

    /// Whether it is another than this machine's.
    pub const fn is_set(self) -> bool {
        self.offset_ms != 0
    }
}
