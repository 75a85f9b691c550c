//! Shell: the ledger key on its token, as the recorder asks it for checkpoints.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use crate::domain::ledger::note::Verifier;
use crate::domain::names::KeyLabel;
use crate::hsm::{Condition, HsmError, Kind, NotSigned, Outcome, ToSign, Token};
use crate::recorder::CheckpointSigner;

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
}

impl TokenSigner {
    /// On a token that was started with the ledger's origin. `verifier` is the key's public half by that origin; what is not
    /// submitted within `deadline` is not signed any more. It reads a clock of its own, set as the token was told, unless
    /// [`TokenSigner::on_clock`] gives one.
    pub fn new(token: Token, key: KeyLabel, verifier: Verifier, deadline: Duration) -> Self {
        let clock = Arc::new(Clock::start(None, token.clock_offset_ms()));
        Self { token, key, verifier, deadline, clock }
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

    fn once(&self, text: &str) -> Result<[u8; 64], HsmError> {
        let deadline_ms = i64::try_from(self.deadline.as_millis()).unwrap_or(i64::MAX);
        // The token's worker goes by the wall clock, whatever it is worth.
        let item = ToSign::new(0, Kind::Checkpoint, text.as_bytes().to_vec());
        let mut results = self.token.sign(&self.key, vec![item], self.clock.now().wall.plus_ms(deadline_ms))?;
        let outcome = results.wait_next_awake(AWAKE).map(|result| result.outcome);
        match outcome.unwrap_or(Outcome::NotSigned(NotSigned::NotReached)) {
            Outcome::Signed(signature) => Ok(signature),
            Outcome::Failed(error) | Outcome::Unknown(error) => Err(error),
            Outcome::NotSigned(NotSigned::Expired) => Err(HsmError::Overrun {
                call: "the wait for a checkpoint's turn".to_owned(),
                deadline_ms: u64::try_from(deadline_ms).unwrap_or_default(),
            }),
            Outcome::NotSigned(NotSigned::Fenced) => Err(HsmError::Locked),
            Outcome::NotSigned(why @ NotSigned::NotReached) => Err(HsmError::WorkerEnded { status: why.to_string() }),
        }
    }
}

impl CheckpointSigner for TokenSigner {
    /// A second signature over the same head tells nobody anything new, so whoever gets an error may ask again. The daemon's
    /// recorder does, once its token was brought back; at a ceremony, where nobody brings it back, it is tried once more here.
    fn sign(&mut self, text: &str) -> Result<[u8; 64], HsmError> {
        match self.once(text) {
            Err(error) if !self.token.is_kept_up() && !matches!(error, HsmError::WrongSignature(_)) => {
                tracing::warn!(token = %self.token.name(), "a checkpoint was not signed: {error}; tried once more");
                // The worker's end may not have been seen yet: a call that it does not answer shows it.
                let _ = self.token.token_info().wait();
                self.token.restart()?;
                self.once(text)
            }
            result => result,
        }
    }

    fn is_ready(&self) -> bool {
        self.token.condition() == Condition::Up
    }

    fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}
