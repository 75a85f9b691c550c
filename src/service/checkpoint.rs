//! Shell: the ledger key on its token, as the recorder asks it for checkpoints.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use crate::domain::ledger::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::domain::ledger::note::Verifier;
use crate::domain::names::KeyLabel;
use crate::hsm::{Condition, HsmError, Kind, NotSigned, Outcome, Results, ToSign, Token};
use crate::recorder::{CannotRecord, CheckpointSigner};

/// How long a checkpoint is waited for without sleeping: as long as a quick token takes, there and back. A slow one is not worth it, and
/// does not notice.
const AWAKE: Duration = Duration::from_micros(400);

/// Signs checkpoints with the ledger key. Waits for the token, so it belongs on a plain thread: the recorder's.
#[derive(Debug)]
pub struct TokenSigner {
    token: Token,
    key: KeyLabel,
    verifier: Verifier,
    deadline: Duration,
    clock: Arc<Clock>,
    /// What was submitted ahead of the call that asks for it.
    begun: Option<(Checkpoint, Results)>,
}

impl TokenSigner {
    /// On a token that was started with the ledger's origin. `verifier` is the key's public half by that origin; what is not
    /// submitted within `deadline` is not signed any more. It reads a clock of its own, set as the token was told, unless
    /// [`TokenSigner::on_clock`] gives one.
    pub fn new(token: Token, key: KeyLabel, verifier: Verifier, deadline: Duration) -> Self {
        let clock = Arc::new(Clock::start(None, token.clock_offset_ms()));
        Self { token, key, verifier, deadline, clock, begun: None }
    }

    /// By the clock that everything else goes by.
    #[must_use]
    pub fn on_clock(self, clock: Arc<Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The token, for the head object on it.
    pub fn token(&self) -> &Token {
        &self.token
    }

    fn submit(&self, checkpoint: &Checkpoint) -> Result<Results, HsmError> {
        let deadline_ms = i64::try_from(self.deadline.as_millis()).unwrap_or(i64::MAX);
        // The token's worker goes by the wall clock, whatever it is worth.
        let item = ToSign::new(0, Kind::Checkpoint, checkpoint.text().into_bytes());
        self.token.sign(&self.key, vec![item], self.clock.now().wall.plus_ms(deadline_ms))
    }

    fn once(&mut self, checkpoint: &Checkpoint) -> Result<SignedCheckpoint, CannotRecord> {
        let begun = self.begun.take().filter(|(begun, _)| begun == checkpoint);
        let mut results = match begun {
            Some((_, results)) => results,
            None => self.submit(checkpoint)?,
        };
        let outcome = results.wait_next_awake(AWAKE).map(|result| result.outcome);
        let signature = match outcome.unwrap_or(Outcome::NotSigned(NotSigned::NotReached)) {
            Outcome::Signed(signature) => signature,
            Outcome::Failed(error) | Outcome::Unknown(error) => return Err(error.into()),
            Outcome::NotSigned(NotSigned::Expired) => {
                let call = "the wait for a checkpoint's turn".to_owned();
                let deadline_ms = u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX);
                return Err(HsmError::Overrun { call, deadline_ms }.into());
            }
            Outcome::NotSigned(NotSigned::Fenced) => return Err(HsmError::Locked.into()),
            Outcome::NotSigned(why @ NotSigned::NotReached) => {
                return Err(HsmError::WorkerEnded { status: why.to_string() }.into());
            }
        };
        Ok(SignedCheckpoint::assemble_verified(
            checkpoint,
            &self.verifier,
            &signature,
            results.verified_with().octets(),
        )?)
    }
}

impl CheckpointSigner for TokenSigner {
    /// A second signature over the same head tells nobody anything new, so whoever gets an error may ask again. The daemon's
    /// recorder does, once its token was brought back; at a ceremony, where nobody brings it back, it is tried once more here.
    fn sign(&mut self, checkpoint: &Checkpoint) -> Result<SignedCheckpoint, CannotRecord> {
        match self.once(checkpoint) {
            Err(CannotRecord::Token(error))
                if !self.token.is_kept_up() && !matches!(error, HsmError::WrongSignature(_)) =>
            {
                tracing::warn!(token = %self.token.name(), "a checkpoint was not signed: {error}; tried once more");
                // The worker's end may not have been seen yet: a call that it does not answer shows it.
                let _ = self.token.token_info().wait();
                self.token.restart()?;
                self.once(checkpoint)
            }
            result => result,
        }
    }

    fn begin(&mut self, next: &Checkpoint) {
        // A token that is away now may be there when it is asked.
        self.begun = self.submit(next).ok().map(|results| (next.clone(), results));
    }

    fn is_ready(&self) -> bool {
        self.token.condition() == Condition::Up
    }
}
