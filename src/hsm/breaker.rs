//! Pure. The circuit breaker of a token: when to try again after a failure, and which changes are to be told to the ledger.
//!
//! ```text
//!            a worker ends or fails                    the pause is over
//!   up ───────────────────────────────▶ down (until) ────────────────────▶ trying
//!    ▲                                      ▲                                │ │ │
//!    │                                      └────────── it failed again ─────┘ │ │
//!    └──────────────── logged in, keys checked ──────────────────────────────-─┘ │
//!                            an operator ◀── locked ◀── PIN refused, other keys ─┘
//! ```
//!
//! `up` is what is called closed of a circuit, `down` open, `trying` half-open. While it is down nothing is submitted. Pauses
//! double from [`PAUSE_FIRST`] to [`PAUSE_LONGEST`]; a worker that proved itself ([`PROVEN_BY`], [`STEADY`]) begins anew.

use std::collections::VecDeque;
use std::time::Duration;

use super::errors::HsmError;
use crate::domain::ledger::tokens::{Health, TokenHealth};
use crate::domain::names::TokenName;
use crate::domain::time::Timestamp;

/// The pause after the first failure. A worker that died is replaced about as fast as it can be.
pub const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause: a token that comes back serves again well within ten seconds.
pub const PAUSE_LONGEST: Duration = Duration::from_secs(5);
/// Verified signatures after which a worker has proved itself, so that its end is a first failure again.
pub const PROVEN_BY: u32 = 3;
/// How long a worker must have lived for the same.
pub const STEADY: Duration = Duration::from_secs(10);
/// How often the ledger hears of one token at most; more changes are counted in one entry.
pub const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Changes that are told one by one each time.
const TOLD_AT_ONCE: usize = 2;

/// Whether a token is asked for anything, and when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// It is asked.
    Up,
    /// It is not asked, and tried again at that moment.
    Down {
        /// When.
        until: Timestamp,
    },
    /// It is being tried.
    Trying,
    /// It is not tried by itself.
    Locked,
}

/// How a token stands, for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is asked.
    pub circuit: Circuit,
    /// Since when it is up, or is not.
    pub since: Timestamp,
    /// Failures in a row.
    pub failures: u32,
    /// What failed last, unless it is up.
    pub why: Option<HsmError>,
}

impl Standing {
    /// In words: how the token stands, since when, why, and when it is tried again.
    pub fn told_of(&self, token: &TokenName) -> String {
        let Self { circuit, since, failures, why } = self;
        let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        match circuit {
            Circuit::Up => format!("token {token} is up since {since}"),
            Circuit::Down { until } => {
                format!("token {token} is down since {since}, tried {failures} times, again at {until}{why}")
            }
            Circuit::Trying => format!("token {token} is being tried since it went down at {since}{why}"),
            Circuit::Locked => format!("token {token} waits for an operator since {since}{why}"),
        }
    }
}

/// A change that is not told yet.
#[derive(Clone, Debug)]
struct Change {
    from: Health,
    to: Health,
    since: Timestamp,
    why: Option<HsmError>,
    folded: u64,
}

/// The circuit breaker of one token.
#[derive(Debug)]
pub struct Breaker {
    circuit: Circuit,
    since: Timestamp,
    failures: u32,
    why: Option<HsmError>,
    /// What failed last, also once it is up.
    last: Option<(Timestamp, HsmError)>,
    /// As the ledger has it; a token that was never down is not spoken of.
    told: Health,
    told_at: Option<Timestamp>,
    untold: VecDeque<Change>,
}

impl Breaker {
    /// Of a token that was not tried yet.
    pub const fn new(now: Timestamp) -> Self {
        Self {
            circuit: Circuit::Trying,
            since: now,
            failures: 0,
            why: None,
            last: None,
            told: Health::Up,
            told_at: None,
            untold: VecDeque::new(),
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        Standing { circuit: self.circuit, since: self.since, failures: self.failures, why: self.why.clone() }
    }

    /// What failed last, and when.
    pub fn last_failure(&self) -> Option<(Timestamp, HsmError)> {
        self.last.clone()
    }

    /// An operator has it tried again, at once.
    pub const fn again(&mut self, now: Timestamp) {
        (self.circuit, self.failures) = (Circuit::Down { until: now }, 0);
    }

    /// It is being tried.
    pub const fn trying(&mut self) {
        self.circuit = Circuit::Trying;
    }

    /// Its worker is logged in, and its keys were checked.
    pub fn up(&mut self, now: Timestamp) {
        (self.circuit, self.since, self.why) = (Circuit::Up, now, None);
        self.note(Health::Up, now, None);
    }

    /// Its worker ended, or did not come up. `proofs` are the verified signatures of that worker. Answers how long to wait
    /// before it is tried again; `salt` spreads the tokens of a site that fail together.
    pub fn failed(&mut self, now: Timestamp, why: &HsmError, proofs: u32, salt: u64) -> Duration {
        let was_up = self.circuit == Circuit::Up;
        let lived = Duration::from_millis(u64::try_from(now.unix_ms() - self.since.unix_ms()).unwrap_or(0));
        let proved = was_up && (proofs >= PROVEN_BY || lived >= STEADY);
        self.failures = if proved { 1 } else { self.failures.saturating_add(1) };
        if was_up || self.failures == 1 {
            self.since = now;
        }
        let pause = pause(self.failures, salt);
        let until = now.plus_ms(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        (self.circuit, self.why) = (Circuit::Down { until }, Some(why.clone()));
        self.last = Some((now, why.clone()));
        self.note(Health::Down, now, Some(why));
        pause
    }

    /// Only a person can put it right.
    pub fn locked(&mut self, now: Timestamp, why: &HsmError) {
        if self.circuit != Circuit::Locked {
            self.since = now;
        }
        (self.circuit, self.why) = (Circuit::Locked, Some(why.clone()));
        self.last = Some((now, why.clone()));
        self.note(Health::Locked, now, Some(why));
    }

    fn note(&mut self, to: Health, now: Timestamp, why: Option<&HsmError>) {
        let from = self.untold.back().map_or(self.told, |change| change.to);
        if from == to {
            return;
        }
        let is_full = self.untold.len() >= TOLD_AT_ONCE;
        match self.untold.back_mut().filter(|_| is_full) {
            Some(last) => {
                last.folded += 1;
                (last.to, last.since) = (to, now);
                last.why = why.cloned().or(last.why.take());
            }
            None => self.untold.push_back(Change { from, to, since: now, why: why.cloned(), folded: 0 }),
        }
    }

    /// The changes that are to be told now, in their order: none too soon after the last.
    pub fn to_tell(&mut self, token: &TokenName, now: Timestamp) -> Vec<TokenHealth> {
        let every = i64::try_from(TOLD_EVERY.as_millis()).unwrap_or(i64::MAX);
        let is_early = self.told_at.is_some_and(|last| now < last.plus_ms(every));
        if self.untold.is_empty() || is_early {
            return Vec::new();
        }
        self.told_at = Some(now);
        self.last_to_tell(token)
    }

    /// The changes that were not told yet, however soon after the last: nobody asks this token again.
    pub fn last_to_tell(&mut self, token: &TokenName) -> Vec<TokenHealth> {
        let changes = std::mem::take(&mut self.untold);
        self.told = changes.back().map_or(self.told, |change| change.to);
        changes.into_iter().map(|change| change.tell(token)).collect()
    }
}

impl Change {
    fn tell(self, token: &TokenName) -> TokenHealth {
        let Self { from, to, since, why, folded } = self;
        let fault = match &why {
            Some(HsmError::Call(fault) | HsmError::PinRefused(fault)) => {
                Some((fault.function.as_str().into(), fault.rv.as_str().into()))
            }
            Some(_) | None => None,
        };
        let (function, code) = fault.unzip();
        let cause = why.map(|why| why.to_string().into());
        TokenHealth { token: token.clone(), from, to, since, function, code, cause, folded }
    }
}

/// The pause after so many failures in a row: doubled each time, and up to a quarter shorter by `salt`.
pub fn pause(failures: u32, salt: u64) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_LONGEST);
    let shorter = u32::try_from(salt % 256).unwrap_or(0);
    doubled.saturating_sub(doubled / 4 * shorter / 256)
}

#[cfg(test)]
mod tests;
