//! Shell: the daemon's clock. Entries and windows need the wall clock; whether it can be trusted, the monotonic one says.
//!
//! A wall clock that is set in the middle of an incident would open a window that is closed, or close one that is open. So
//! each reading is compared with the monotonic clock: a difference beyond [`TOLERANCE_MS`] is a jump, signing stops, and an
//! operator has to look at the clock and accept it.
//!
//! Entries never go back in time, so what a wrong clock says must not get into one: one bad answer of a time service would end
//! every window and every term, and no entry could be written at the true time again. While the clock is not trusted, time is
//! carried on by the monotonic clock from the last moment that could be relied on; at half its rate where the wall clock stands
//! behind it, so that a clock that was put back, and is right now, is caught up with.
//!
//! An exercise may set the clock by an offset, to rehearse what has its window elsewhere in time. Every entry then says so
//! ([`ClockState::SetForExercise`]), and [`super::start::check_clock`] refuses it where anything says live.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::domain::fold::Fold;
use crate::domain::ledger::entry::ClockState;
use crate::domain::time::Timestamp;
use crate::recorder::{Moment, ReadClock};
pub use crate::wall_clock::wall_clock;

/// By how much wall and monotonic clock may drift apart between two readings, and since the start or the last acceptance,
/// in milliseconds. Time services slew at 500 ppm at most (adjtimex(2)), 1.8 s an hour, and to the monotonic clock too; a
/// leap second is 1 s. What is more than that was set by somebody.
pub const TOLERANCE_MS: i64 = 2_000;

/// How long the ledger may have been silent before a start: a clock that was set while nobody looked shows as a silence, and so
/// does a long rest. After a longer one an operator compares the clock before anything is signed. No official reference: a day.
pub const SILENCE_MS_MAX: i64 = 24 * 3_600_000;

/// How far the time by another clock, which an operator gives to the minute and types by hand, may be off this clock's when it
/// is accepted, in milliseconds.
pub const ACCEPTED_OFF_MS_MAX: i64 = 120_000;

/// What the ledger says of the time before this clock was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// When its last entry was recorded.
    pub last: Timestamp,
    /// Whether an operator still has to look at the clock.
    pub untrusted: bool,
}

impl Before {
    /// Of a ledger whose newest checkpoint covers so many entries; none while it is empty. An acceptance that it does not cover is
    /// taken back at the next start.
    pub fn of(fold: &Fold, covered: u64) -> Option<Self> {
        fold.last_at().map(|last| Self { last, untrusted: fold.clock_untrusted_but_for(covered) })
    }
}

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
    /// What the wall clock says.
    pub wall: Timestamp,
    /// Whether it can be relied on.
    pub state: ClockState,
    /// By how many milliseconds the wall clock jumped, forwards if positive; none if it did not. Said once.
    pub jump_ms: Option<i64>,
}

/// Why a clock was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// It stands before the moment up to which the ledger has come.
    #[error(
        "this machine's clock says {wall}, before {ledger}, up to which the ledger has come: entries never go back. Set the clock \
         right, then accept it; if it is right, wait: the ledger goes on at half its pace until the clock has come up to it"
    )]
    Before {
        /// What the clock says.
        wall: Timestamp,
        /// How far the ledger is.
        ledger: Timestamp,
    },
    /// It does not say what the clock says that it was compared with.
    #[error(
        "this machine's clock says {wall}, and the clock that it was compared with {time}: expected at most {} s between them. Set \
         this machine's clock right, then accept it with the time of the other one as it is by then",
        ACCEPTED_OFF_MS_MAX / 1000
    )]
    Differs {
        /// What the clock says.
        wall: Timestamp,
        /// What the other one said.
        time: Timestamp,
    },
}

/// Compares the clocks, reading by reading. Knows none itself.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Where both agreed.
    anchor: Reading,
    /// The difference that was last reported as a jump, so that it is reported once.
    told_ms: i64,
    /// A jump that was seen before the first reading.
    before_ms: Option<i64>,
    state: ClockState,
    /// The last moment that can be relied on, and when it was, by the monotonic clock.
    vouched: Reading,
}

impl Comparison {
    /// Starts at a reading. A clock that stands before the ledger's last entry, or more than [`SILENCE_MS_MAX`] after it, is not
    /// to be trusted, nor one that was not before.
    pub fn start(at: Reading, before: Option<Before>) -> Self {
        let silence_ms = before.map_or(0, |before| at.wall.unix_ms() - before.last.unix_ms());
        let untrusted = before.is_some_and(|before| before.untrusted);
        let jumped = !(-TOLERANCE_MS..=SILENCE_MS_MAX).contains(&silence_ms);
        let (state, vouched) = match before {
            Some(before) if untrusted || jumped => (ClockState::Untrusted, Reading { wall: before.last, ..at }),
            Some(before) => (ClockState::Trusted, Reading { wall: at.wall.max(before.last), ..at }),
            None => (ClockState::Trusted, at),
        };
        let before_ms = (jumped && !untrusted).then_some(silence_ms);
        Self { anchor: at, told_ms: 0, before_ms, state, vouched }
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
        let at = match self.state {
            ClockState::Untrusted => self.carried(reading),
            ClockState::Trusted | ClockState::SetForExercise => self.vouched.wall.max(reading.wall),
        };
        self.vouched = Reading { wall: at, ..reading };
        let jump_ms = match (jumped, self.before_ms.take()) {
            (true, before_ms) => Some(jump_ms + before_ms.unwrap_or(0)),
            (false, before_ms) => before_ms,
        };
        Now { at, wall: reading.wall, state: self.state, jump_ms }
    }

    /// The time by the monotonic clock; slower while the wall clock is behind, which is the way to come together again.
    fn carried(&self, reading: Reading) -> Timestamp {
        let elapsed_ms = reading.monotonic_ms - self.vouched.monotonic_ms;
        let (half, full) = (self.vouched.wall.plus_ms(elapsed_ms / 2), self.vouched.wall.plus_ms(elapsed_ms));
        reading.wall.clamp(half, full)
    }

    /// An operator compared the clock with another one, which said `time`: from here on it is trusted again, and the time is
    /// what it says. Entries never go back: while it stands before the ledger, it stays untrusted.
    pub fn accept(&mut self, reading: Reading, time: Timestamp) -> Result<Now, NotAccepted> {
        let (wall, ledger) = (reading.wall, self.take(reading).at);
        if (wall.unix_ms() - time.unix_ms()).abs() > ACCEPTED_OFF_MS_MAX {
            return Err(NotAccepted::Differs { wall, time });
        }
        if wall.plus_ms(TOLERANCE_MS) < ledger {
            return Err(NotAccepted::Before { wall, ledger });
        }
        (self.anchor, self.told_ms, self.state) = (reading, 0, ClockState::Trusted);
        Ok(self.take(reading))
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

    fn accept(&mut self, reading: Reading, time: Timestamp) -> Result<Now, NotAccepted> {
        // A jump that is seen only now is told if the clock is not accepted, and accepted with it if it is.
        self.take(reading);
        let accepted = self.comparison.accept(reading, time)?;
        self.untold_ms = None;
        Ok(accepted)
    }

    fn tell(&mut self, reading: Reading) -> Now {
        let now = self.take(reading);
        Now { jump_ms: self.untold_ms.take(), ..now }
    }
}

impl Clock {
    /// Starts comparing. `before` is what the ledger says, none if there is none yet; `offset_ms` is by how many milliseconds the
    /// clock is set for an exercise, 0 otherwise.
    pub fn start(before: Option<Before>, offset_ms: i64) -> Self {
        let origin = Instant::now();
        let comparison = Comparison::start(read(origin, offset_ms), before);
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

    /// As a recorder reads it.
    pub fn read_by(self: Arc<Self>) -> ReadClock {
        Box::new(move || {
            let now = self.tell();
            (Moment { at: now.at, clock: now.state }, now.jump_ms)
        })
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

    /// Accepts the clock as it is, compared with another that said `time`. Answers the moment from which on it counts.
    pub fn accept(&self, time: Timestamp) -> Result<Now, NotAccepted> {
        let accepted = self.lock().accept(read(self.origin, self.offset_ms), time)?;
        Ok(Now { state: self.worth(accepted.state), ..accepted })
    }
}

/// The difference between two readings, and so a jump, is the same whatever the offset.
fn read(origin: Instant, offset_ms: i64) -> Reading {
    let monotonic_ms = i64::try_from(origin.elapsed().as_millis()).unwrap_or(i64::MAX);
    Reading { wall: wall_clock().plus_ms(offset_ms), monotonic_ms }
}

#[cfg(test)]
mod tests;
