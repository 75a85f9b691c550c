//! Shell: brings a token's worker back by itself, when the circuit breaker says so.
//!
//! One thread for each token that is kept up. It holds the token only while it tries, so that dropping the last handle still
//! ends the worker.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::handle::Token;
use super::keeper::lock;
use crate::domain::names::TokenName;

/// When a token is to be tried next.
#[derive(Debug)]
enum Next {
    /// It is up, or takes an operator.
    Resting,
    /// At that moment.
    At(Instant),
    /// Never: it is gone.
    Over,
}

/// What the healer waits for.
#[derive(Debug)]
pub(super) struct Healing {
    next: Mutex<Next>,
    changed: Condvar,
}

impl Healing {
    /// Nothing is to be tried yet.
    pub(super) const fn new() -> Self {
        Self { next: Mutex::new(Next::Resting), changed: Condvar::new() }
    }

    /// The token is to be tried after a pause.
    pub(super) fn after(&self, pause: Duration) {
        self.set(Next::At(Instant::now() + pause));
    }

    /// The token is up, or takes an operator.
    pub(super) fn rest(&self) {
        self.set(Next::Resting);
    }

    /// The token is gone.
    pub(super) fn end(&self) {
        self.set(Next::Over);
    }

    fn set(&self, to: Next) {
        let mut next = lock(&self.next);
        if !matches!(*next, Next::Over) {
            *next = to;
        }
        self.changed.notify_all();
    }

    /// Waits until the token is to be tried; false once it is gone.
    fn wait(&self) -> bool {
        let mut next = lock(&self.next);
        loop {
            next = match *next {
                Next::Over => return false,
                Next::Resting => self.changed.wait(next).unwrap_or_else(PoisonError::into_inner),
                Next::At(moment) => {
                    let left = moment.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        *next = Next::Resting;
                        return true;
                    }
                    self.changed.wait_timeout(next, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Starts the thread. `token` gives the token, unless it is gone.
pub(super) fn keep_up(
    name: &TokenName,
    healing: Arc<Healing>,
    token: impl Fn() -> Option<Token> + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name(format!("heal-{name}")).spawn(move || {
        while healing.wait() {
            let Some(token) = token() else { return };
            // Whatever comes of it, the breaker has it, and says when to try again. The journal hears of the first failure
            // from the keeper.
            if token.restart().is_ok() {
                tracing::info!(token = %token.name(), "the token is back");
            }
        }
    })?;
    Ok(())
}
