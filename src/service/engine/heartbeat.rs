//! Shell: whether the recorder makes progress, for the watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::recorder::Desk;

/// How often the recorder is asked.
const BEAT: Duration = Duration::from_secs(1);

/// For how long the recorder may owe an answer. A checkpoint may take two calls to a token that is dying, each with a deadline of
/// some seconds, and a new worker in between; together with the pause between two pings (half of `WatchdogSec=30`) it must stay
/// near what systemd waits for.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(25);

/// When the recorder answered last.
pub(super) struct Heartbeat {
    origin: Instant,
    /// Milliseconds after the origin.
    answered: AtomicU64,
    silence_max: Duration,
}

impl Heartbeat {
    /// It answered just now.
    pub(super) fn new(silence_max: Duration) -> Self {
        Self { origin: Instant::now(), answered: AtomicU64::new(0), silence_max }
    }

    /// Whether it answered lately.
    pub(super) fn is_recent(&self) -> bool {
        let answered = Duration::from_millis(self.answered.load(Ordering::Relaxed));
        self.origin.elapsed().saturating_sub(answered) <= self.silence_max
    }

    fn stamp(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.answered.store(now, Ordering::Relaxed);
    }
}

/// Asks the recorder again and again, also while the ledger token is awaited, and notes when it answered. Alone on its task: whoever
/// waits for a token here would let a healthy recorder look stuck. Ends with the recorder.
pub(super) async fn beat(heartbeat: Arc<Heartbeat>, desk: Desk) {
    beat_every(BEAT, heartbeat, desk).await;
}

async fn beat_every(pause: Duration, heartbeat: Arc<Heartbeat>, desk: Desk) {
    while desk.look(|_| Ok(())).await.is_ok() {
        heartbeat.stamp();
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
