//! Shell: what answers the calls of the API: the recorder, the pipeline and the keys, put together.

mod answers;
mod calls;
mod ceremonies;
mod check;
mod custodians;
mod device_certificates;
mod documents;
mod fetch;
mod files;
mod heartbeat;
mod history;
mod incident;
mod jobs;
mod keys;
mod make;
mod procedure;
mod responses;
mod story;
mod symmetric;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::clock::Clock;
use super::keys::Keys;
use crate::api::engine::{Fatal, Octets};
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::commands::container::Header;
use crate::domain::intake;
use crate::domain::ledger::entry::{Actor, Reason, Refused};
use crate::domain::names::{DeterminationId, Digest, IncidentId, RequestId};
use crate::hsm::Several;
use crate::pipeline::{self, First, Request};
use crate::recorder::{CannotRecord, Closed, Desk, Recorded, Recorder};
use crate::store::sqlite::Incoming;
use crate::store::{Reader, Staging, StoreError};
use heartbeat::Heartbeat;

use check::Checking;
pub use make::make;

/// Pieces of an answer that may wait for a slow reader.
const PIECES_MAX: usize = 2;

/// Requests of which it is kept where they ended: without that, a fetch looks on to the end of the ledger.
const ENDED_MAX: usize = 10_000;

/// Reads through much of the ledger that go on at a time: more would take the processor from the signing.
const SCANS_MAX: usize = 2;

/// Long files and lists that are looked through at a time: anybody may send one, and it is held in memory.
const LOOKS_MAX: usize = 1;

/// Octets of a streamed answer that go out together.
const PIECE_LEN: usize = 256 * 1024;

/// When an account whose uploads take all their room may try again: a document that names one takes it over meanwhile.
const UPLOADS_RETRY_AFTER_S: u32 = 600;

/// When a request that is still being run may be made again. Most are done in moments.
const RUNNING_RETRY_AFTER_S: u32 = 1;

/// The engine of the daemon.
pub struct Daemon {
    desk: Desk,
    keys: Arc<Keys>,
    clock: Arc<Clock>,
    staging: Arc<Staging>,
    incoming: Arc<Incoming>,
    /// A connection for short reads.
    reader: Arc<Mutex<Box<dyn Reader + Send>>>,
    /// Where further readers come from, for long answers.
    state: std::path::PathBuf,
    /// Turns at going through much of the ledger.
    scans: Arc<Semaphore>,
    /// Turns at looking through what somebody sent.
    looks: Arc<Semaphore>,
    /// Turns at fetching.
    fetches: fetch::Turns,
    /// Turns at handing in Responses or certificates, and at having them verified.
    parts: responses::Turns,
    /// Commands of a chunk.
    chunk: usize,
    /// Why it cannot go on.
    failed: watch::Receiver<Option<Fatal>>,
    /// When the recorder answered last.
    heartbeat: Arc<Heartbeat>,
    stopping: watch::Sender<bool>,
    /// What a stop waits for.
    tasks: Mutex<JoinSet<()>>,
    running: Arc<Mutex<BTreeSet<RequestId>>>,
    /// Where the ledger ended when a request that ran since the start had come to its end: nothing of it lies beyond.
    ended: Arc<Mutex<BTreeMap<RequestId, u64>>>,
    /// How many runs have come to their end.
    runs_ended: watch::Sender<u64>,
    /// How far the ledger is checked, after a start from a snapshot, until it is.
    checking: watch::Receiver<Option<Checking>>,
    /// What stands in the way of recording, until the ledger token is there.
    not_ready: watch::Receiver<Option<wire::Trouble>>,
    /// Why the ledger token does not sign, while it does not.
    waiting: watch::Receiver<Option<wire::Trouble>>,
    /// How jobs stand, beside what is recorded of them.
    lives: jobs::Lives,
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        Self::Stopped { why: closed.to_string() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchBlob { digest } => Self::NotFound { what: format!("blob {digest}") },
            StoreError::NotStaged { digest } => Self::malformed(
                "devices",
                "the SHA-256 of a list that was uploaded",
                &digest.to_string(),
                "Upload it again; what waits too long is dropped.",
            ),
            StoreError::Staging(error) => {
                Self::TooMany { what: error.to_string(), retry_after_s: UPLOADS_RETRY_AFTER_S }
            }
            other => Self::Internal { what: other.to_string() },
        }
    }
}

/// A request that is being run. Two runs of one request would each go on in a batch that the other ended.
struct Running {
    all: Arc<Mutex<BTreeSet<RequestId>>>,
    request: RequestId,
}

impl Running {
    fn begin(all: &Arc<Mutex<BTreeSet<RequestId>>>, request: RequestId) -> Answer<Self> {
        if all.lock().unwrap_or_else(PoisonError::into_inner).insert(request) {
            return Ok(Self { all: Arc::clone(all), request });
        }
        Err(Failure::TooMany {
            what: format!("request {request} is still being run"),
            retry_after_s: RUNNING_RETRY_AFTER_S,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.request);
    }
}

/// What an ask answers: done, or why not.
type Answer<R> = Result<R, Failure>;

impl Daemon {
    /// Asks the recorder something that changes nothing: answered whatever the ledger token does.
    async fn read<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&Recorder) -> Result<R, CannotRecord> + Send + 'static,
    ) -> Answer<R> {
        Ok(self.desk.look(ask).await?)
    }

    /// What stands in the way of recording.
    fn in_the_way(&self) -> Option<wire::Trouble> {
        self.not_ready.borrow().clone().or_else(|| self.waiting.borrow().clone())
    }

    /// Whether anything can be recorded now: the daemon goes on, and there is a ledger token to sign checkpoints.
    fn may_change(&self) -> Answer<()> {
        if *self.stopping.borrow() {
            return Err(Failure::Unavailable {
                why: "smkid is stopping".into(),
                remedy: "Ask again once it runs".into(),
            });
        }
        if let Some(wire::Trouble { what, remedy }) = self.in_the_way() {
            let remedy = format!(
                "{remedy}. To stop signing, `smkictl key lock` and `smkictl recovery pause` act all the same. Reads are answered; `smkictl status` says when it can record again"
            );
            return Err(Failure::Unavailable { why: what, remedy });
        }
        Ok(())
    }

    /// Asks the recorder something that is recorded, once there is a ledger token to sign checkpoints.
    async fn change<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Recorder) -> Result<Answer<R>, CannotRecord> + Send + 'static,
    ) -> Answer<R> {
        self.may_change()?;
        self.desk.record_for_caller(ask).await?.into_inner()
    }

    /// A short read, where one may wait.
    async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Reader) -> Result<R, StoreError> + Send + 'static,
    ) -> Answer<R> {
        let reader = Arc::clone(&self.reader);
        let looked = tokio::task::spawn_blocking(move || {
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            look(&**reader)
        });
        Ok(looked.await.map_err(|error| Failure::Internal { what: error.to_string() })??)
    }

    /// A read that goes through much of the ledger, with a reader of its own: short reads do not wait behind it.
    async fn scan<R: Send + 'static>(
        &self,
        scan: impl FnOnce(&dyn Reader) -> Result<R, StoreError> + Send + 'static,
    ) -> Answer<R> {
        let failed = |error: &dyn std::fmt::Display| Failure::Internal { what: error.to_string() };
        let turn = Arc::clone(&self.scans).acquire_owned().await.map_err(|error| failed(&error))?;
        let state = self.state.clone();
        let scanned = tokio::task::spawn_blocking(move || {
            let found = scan(&crate::store::sqlite::SqliteReader::open(&state)?);
            drop(turn);
            found
        });
        Ok(scanned.await.map_err(|error| failed(&error))??)
    }

    /// A long answer, piece by piece, from a reader of its own.
    fn stream(
        &self,
        produce: impl FnOnce(&dyn Reader, &mut Emit<'_>) -> Result<(), StoreError> + Send + 'static,
    ) -> Answer<Octets> {
        let reader = crate::store::sqlite::SqliteReader::open(&self.state)?;
        Ok(pieces(move |emit| produce(&reader, emit).map_err(Failure::from)))
    }

    /// Has an upload that is long copied into the database ahead of the entry that names it: the recorder, for which everybody waits, then
    /// has only to name it.
    async fn bring(&self, upload: Digest) -> Answer<()> {
        let incoming = Arc::clone(&self.incoming);
        let brought = tokio::task::spawn_blocking(move || incoming.bring(upload)).await;
        Ok(brought.map_err(|error| Failure::Internal { what: error.to_string() })??)
    }

    /// Runs something that a stop waits for.
    fn spawn(&self, run: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(run);
    }

    /// Accepts a request and runs it. It is run in a task of its own from the first, for what is recorded of it must come to its end
    /// though whoever asked goes away meanwhile.
    async fn accept(&self, request: Request, form: wire::Form) -> Answer<Octets> {
        let running = Running::begin(&self.running, request.id)?;
        self.may_change()?;
        let (answer, answered) = oneshot::channel();
        let (desk, keys, stopping) = (self.desk.clone(), Arc::clone(&self.keys), self.stopping.subscribe());
        let (ended, runs_ended) = (Arc::clone(&self.ended), self.runs_ended.clone());
        self.spawn(async move {
            let accepted = desk.record_for_caller(move |recorder| accept(recorder, &keys, request)).await;
            let accepted = accepted.map_err(Failure::from).and_then(Recorded::into_result);
            let (first, Accepted { header, has_key, tokens }) = match accepted {
                Ok(accepted) => accepted.split(|both| both),
                Err(failure) => {
                    let _ = answer.send(Err(failure));
                    return;
                }
            };
            let (news, heard) = mpsc::channel(PIECES_MAX);
            let (pieces, octets) = mpsc::channel(PIECES_MAX);
            // Whoever asked may have gone away.
            let _ = answer.send(Ok(octets));
            let run = pipeline::run(&desk, tokens, first, news, stopping);
            let (told, ran) = tokio::join!(answers::parts(heard, &pieces, form, Some(header), has_key), run);
            if let Ok((_, size)) = ran {
                let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
                ended.insert(running.request, size);
                if ended.len() > ENDED_MAX
                    && let Some(oldest) = ended.iter().min_by_key(|(_, size)| **size).map(|(request, _)| *request)
                {
                    ended.remove(&oldest);
                }
            }
            drop(running);
            runs_ended.send_modify(|count| *count += 1);
            match (ran, told) {
                // Without its summary an answer is cut, and so is this one, whatever lines went out.
                (Err(closed), _) => drop(pieces.send(Err(closed.into())).await),
                (Ok(_), Some((summary, writer))) => answers::end(summary, writer, &pieces).await,
                (Ok(_), None) => {}
            }
        });
        answered
            .await
            .map_err(|_| Failure::Internal { what: "the run of the request ended without an answer".into() })?
    }
}

/// What is known of a request once it was accepted.
struct Accepted {
    /// What stands before its commands.
    header: Header,
    /// Whether these have the Contingency Symmetric Key inside.
    has_key: bool,
    /// The tokens of its key.
    tokens: Several,
}

/// Accepts a request, and records the intents of its first chunk with it where its tokens are there: whoever waits for one command
/// waits for one checkpoint less.
fn accept(recorder: &mut Recorder, keys: &Keys, request: Request) -> Result<Answer<(First, Accepted)>, CannotRecord> {
    let (determination, id) = (request.determination, request.id);
    let job = match pipeline::accept(recorder, request)? {
        Ok(job) => job,
        Err((reasons, entry)) => return Ok(Err(Failure::Refused { reasons, entry })),
    };
    let Some(header) = answers::header(recorder.fold(), determination, id) else {
        return Ok(Err(Failure::Internal { what: "an accepted request has no key".into() }));
    };
    let Some(tokens) = keys.active(&header.key) else {
        return Ok(Err(Failure::Unavailable {
            why: format!("key {} is locked", header.key),
            remedy: "Activate it, then ask again with the same request id".into(),
        }));
    };
    let has_key = pipeline::needs_symmetric(recorder.fold(), &header.key);
    let first = First::of(recorder, &tokens, job)?;
    Ok(Ok((first, Accepted { header, has_key, tokens })))
}

/// Takes the octets of a long answer; says whether anybody still wants more.
type Emit<'a> = dyn FnMut(&[u8]) -> ControlFlow<()> + 'a;

/// A long answer, piece by piece, made where one may wait.
fn pieces(produce: impl FnOnce(&mut Emit<'_>) -> Answer<()> + Send + 'static) -> Octets {
    let (pieces, octets) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut piece = Vec::with_capacity(PIECE_LEN);
        let mut emit = |octets: &[u8]| {
            piece.extend_from_slice(octets);
            if piece.len() < PIECE_LEN {
                return ControlFlow::Continue(());
            }
            let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_LEN));
            match pieces.blocking_send(Ok(Bytes::from(full))) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        let produced = produce(&mut emit);
        let last = match produced {
            Ok(()) => Ok(Bytes::from(piece)),
            Err(failure) => Err(failure),
        };
        // Whoever asked may have gone away.
        let _ = pieces.blocking_send(last);
    });
    octets
}

/// Refuses a change and records it.
fn refused<R>(
    recorder: &mut Recorder,
    by: &Actor,
    operation: &str,
    asked: Digest,
    about: (Option<IncidentId>, Option<DeterminationId>),
    reasons: Vec<Reason>,
) -> Result<Answer<R>, CannotRecord> {
    let (incident, determination) = about;
    let refused = Refused {
        operation: operation.into(),
        incident,
        determination,
        request: None,
        device: None,
        asked,
        reasons: reasons.clone(),
    };
    let entry = recorder.refuse(by, refused)?;
    Ok(Err(Failure::Refused { reasons, entry }))
}

fn reason(rule: &str, text: String) -> Reason {
    Reason { rule: rule.into(), text: text.into() }
}

/// A reason that somebody gives stands in an entry, so it has to fit one.
fn check_reason(reason: &str) -> Answer<()> {
    let len = reason.len();
    if len <= intake::DESCRIPTION_LEN_MAX {
        return Ok(());
    }
    let expected = format!("at most {} octets", intake::DESCRIPTION_LEN_MAX);
    Err(Failure::malformed("reason", &expected, &format!("{len} octets"), "Say it shorter."))
}

#[cfg(test)]
mod tests;
