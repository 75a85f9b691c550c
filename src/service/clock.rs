//! Shell: the daemon's clock. Entries and windows need the wall clock; whether it can be trusted, the monotonic one says.
//!
//! A wall clock that is set in the middle of an incident would open a window that is closed, or close one that is open. So
//! each reading is compared with the monotonic clock: a difference beyond [`TOLERANCE_MS`] is a jump, signing stops, and an
//! operator has to look at the clock and accept it.
//!
//! An exercise may set the clock by an offset, to rehearse what has its window elsewhere in time. Every entry then says so
//! ([`ClockState::SetForExercise`]), and [`super::start::check_clock`] refuses it where anything says live.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::domain::ledger::entry::ClockState;
use crate::domain::time::Timestamp;
pub use crate::wall_clock::wall_clock;

/// By how much wall and monotonic clock may drift apart between two readings, and since the start or the last acceptance,
/// in milliseconds. Time services slew at 500 ppm at most (adjtimex(2)), 1.8 s an hour, and to the monotonic clock too; a
/// leap second is 1 s. What is more than that was set by somebody.
pub const TOLERANCE_MS: i64 = 2_000;

/// One look at both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: Timestamp,
    /// The monotonic clock, in milliseconds since an arbitrary moment.
    pub monotonic_ms: i64,
}

/// What the clock is worth now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The moment to record. Never before the one of an earlier call.
    pub at: Timestamp,
    /// Whether it can be relied on.
    pub state: ClockState,
    /// By how many milliseconds the wall clock jumped, forwards if positive; none if it did not. Said once.
    pub jump_ms: Option<i64>,
}

/// Compares the clocks, reading by reading. Knows none itself.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Where both agreed.
    anchor: Reading,
    /// The difference that was last reported as a jump, so that it is reported once.
    told_ms: i64,
    state: ClockState,
    latest: Timestamp,
}

impl Comparison {
    /// Starts at a reading. `not_before` is the time of the ledger's last entry: a clock before it is not to be trusted.
    pub fn start(at: Reading, not_before: Timestamp) -> Self {
        let state = if at.wall < not_before { ClockState::Untrusted } else { ClockState::Trusted };
        Self { anchor: at, told_ms: 0, state, latest: at.wall.max(not_before) }
    }

    /// Takes one more reading.
    pub fn take(&mut self, reading: Reading) -> Now {
        let wall_ms = reading.wall.unix_ms() - self.anchor.wall.unix_ms();
        let monotonic_ms = reading.monotonic_ms - self.anchor.monotonic_ms;
        let apart_ms = wall_ms - monotonic_ms;
        let jump_ms = apart_ms - self.told_ms;
        let jumped = jump_ms.abs() > TOLERANCE_MS;
        if jumped {
            self.told_ms = apart_ms;
            self.state = ClockState::Untrusted;
        }
        self.latest = self.latest.max(reading.wall);
        Now { at: self.latest, state: self.state, jump_ms: jumped.then_some(jump_ms) }
    }

    /// An operator compared the clock with another one: from here on it is trusted again. Entries still never go back: while
    /// the wall clock stands before the last of them, it stays untrusted, and this says false.
    #[must_use]
    pub fn accept(&mut self, reading: Reading) -> bool {
        if reading.wall < self.latest {
            return false;
        }
        self.anchor = reading;
        self.told_ms = 0;
        self.latest = reading.wall;
        self.state = ClockState::Trusted;
        true
    }
}

/// The system's clocks under comparison. Shared by all who need the time.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    /// By how many milliseconds it is set against this machine's wall clock; 0 but in an exercise.
    offset_ms: i64,
    compared: Mutex<Compared>,
}

/// A comparison, and the jump that was seen and not yet recorded.
#[derive(Debug)]
struct Compared {
    comparison: Comparison,
    untold_ms: Option<i64>,
}

impl Compared {
    fn take(&mut self, reading: Reading) -> Now {
        let now = self.comparison.take(reading);
        if let Some(jump_ms) = now.jump_ms {
            self.untold_ms = Some(self.untold_ms.unwrap_or(0) + jump_ms);
        }
        Now { jump_ms: None, ..now }
    }

    fn tell(&mut self, reading: Reading) -> Now {
        let now = self.take(reading);
        Now { jump_ms: self.untold_ms.take(), ..now }
    }
}

impl Clock {
    /// Starts comparing. `not_before` is the time of the ledger's last entry, [`Timestamp::MIN`] if there is none; `offset_ms`
    /// is by how many milliseconds the clock is set for an exercise, 0 otherwise.
    pub fn start(not_before: Timestamp, offset_ms: i64) -> Self {
        let origin = Instant::now();
        let comparison = Comparison::start(read(origin, offset_ms), not_before);
        Self { origin, offset_ms, compared: Mutex::new(Compared { comparison, untold_ms: None }) }
    }

    /// By how many milliseconds it is set against this machine's wall clock: behind it if negative.
    pub const fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// The time, and what it is worth; a jump waits for [`Clock::tell`]. Cheap: two clock readings without a system call.
    pub fn now(&self) -> Now {
        let now = self.lock().take(read(self.origin, self.offset_ms));
        Now { state: self.worth(now.state), ..now }
    }

    /// The time for whoever records jumps: with the one that nobody was told of yet, whoever read the clock when it was seen.
    pub fn tell(&self) -> Now {
        let now = self.lock().tell(read(self.origin, self.offset_ms));
        Now { state: self.worth(now.state), ..now }
    }

    /// A clock that was set is never called trusted.
    const fn worth(&self, compared: ClockState) -> ClockState {
        match compared {
            ClockState::Trusted if self.offset_ms != 0 => ClockState::SetForExercise,
            ClockState::Trusted | ClockState::Untrusted | ClockState::SetForExercise => compared,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Compared> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts the clock as it is. Answers what it is worth from here on; none if it stands before what was already recorded.
    #[must_use]
    pub fn accept(&self) -> Option<ClockState> {
        let accepted = self.lock().comparison.accept(read(self.origin, self.offset_ms));
        accepted.then(|| self.worth(ClockState::Trusted))
    }
}

/// The difference between two readings, and so a jump, is the same whatever the offset.
fn read(origin: Instant, offset_ms: i64) -> Reading {
    let monotonic_ms = i64::try_from(origin.elapsed().as_millis()).unwrap_or(i64::MAX);
    Reading { wall: wall_clock().plus_ms(offset_ms), monotonic_ms }
}

#[cfg(test)]
mod tests;
