//! One chunk of commands, from the request to the release, top to bottom; and [`resume`]. Read this first.
//!
//! ```text
//! listen → authenticate → decode → decide (pure) → record intent (durable, under a signed checkpoint)
//!        → sign (HSM) → verify → record outcome (durable, under a signed checkpoint) → release (recorded)
//! ```
//!
//! Listening, authenticating and decoding are the API's. From [`accept`] on it is this page. A single command is a batch of
//! one: the same code signs one command and ten million. A batch moves in chunks, and stages overlap: while the token signs one
//! chunk, the intents of the next are recorded; the outcomes of a chunk and the intents of a later one share a transaction
//! and a checkpoint.
//!
//! Invariants:
//! - The token is asked only for [`Recorded`] intents, and there is no other way to one than the recorder.
//! - Limits count intents, never outcomes.
//! - Every intent gets one outcome: signed, failed, not signed (provably never submitted) or unknown.
//! - Nothing is handed over but what a `released` entry says, while the determination is in force.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::domain::fold::{Book as _, Fold};
use crate::domain::gbcs;
use crate::domain::ledger::entry::{
    Actor, Batch, Entry, Event, Intent, Outcome as OutcomeEntry, Reason, Refused, Released, Settled, SignResult,
};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, RequestId, TemplateName};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Wanted, WantedForm};
use crate::domain::policy::rules::{self, Allowance, BatchFacts, CommandFacts, Refusal};
use crate::domain::time::Timestamp;
use crate::hsm::{Kind, Outcome, ToSign, Token};
use crate::recorder::{CannotRecord, Closed, Desk, Recorded, Recorder};
use crate::store::StoreError;

/// Commands of a chunk: enough that two durable commits and a checkpoint cost little beside so many signatures, few enough
/// that three chunks in memory (of 4 kB a command) are small and a suspension is seen within some tens of milliseconds.
pub const CHUNK_LEN: usize = 256;

/// Chunks of one job that are recorded and not yet concluded: one that the token signs, one that waits behind it.
const IN_FLIGHT_MAX: usize = 2;

/// A request to sign, as it is accepted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub by: Actor,
    /// How whoever asks calls it.
    pub id: RequestId,
    /// SHA-256 of what is asked.
    pub asked: Digest,
    /// Under which determination.
    pub determination: DeterminationId,
    /// What.
    pub wanted: WantedSet,
}

/// What a request is for.
#[derive(Clone, Debug)]
pub enum WantedSet {
    /// Every Device that the determination lists.
    All,
    /// These.
    These(Vec<Wanted>),
    /// Every Device under the determination whose outcome is unknown, again.
    Unknowns,
}

/// A request that was accepted.
#[derive(Debug)]
pub struct Job {
    request: RequestId,
    asked: Digest,
    by: Actor,
    determination: DeterminationId,
    key: KeyLabel,
    source: Source,
    /// The leaf that its intents name.
    batch: u64,
    /// Whether the request was accepted before: then Devices may have its commands already.
    repeated: bool,
    /// Whether a batch belongs to this request, as far as it was looked up.
    own_batches: HashMap<u64, bool>,
    /// Unknowns of this run that the daemon may sign again by itself.
    again: Vec<DeviceId>,
}

#[derive(Debug)]
enum Source {
    List { after: Option<DeviceId> },
    These(VecDeque<Wanted>),
    Unknowns { after: Option<DeviceId> },
}

/// What became of one Device, as it is told to whoever asked.
#[derive(Debug)]
pub struct Told {
    /// The Device.
    pub device: DeviceId,
    /// Its template, once that is known.
    pub template: Option<TemplateName>,
    /// The Originator Counter, once there is one.
    pub counter: Option<u64>,
    /// The intent's leaf, if there is one.
    pub intent: Option<u64>,
    /// What.
    pub outcome: ToldOutcome,
}

/// The ends that a Device can come to.
#[derive(Debug)]
pub enum ToldOutcome {
    /// The whole signed command, `DF` to the last octet of the signature.
    Signed(Vec<u8>),
    /// Signed and recorded, but the determination is no longer in force: it is not handed over.
    Withheld(Vec<Reason>),
    /// The token failed.
    Failed(String),
    /// Never submitted to the token.
    NotSigned(String),
    /// Nobody can tell.
    Unknown(String),
    /// Left as unknown.
    Left,
    /// Refused, with every reason.
    Refused(Vec<Reason>),
}

/// What a running job says.
#[derive(Debug)]
pub enum News {
    /// Some Devices have come to their ends, in the order of the request.
    Devices(Vec<Told>),
    /// Nothing more of it is signed: the batch is refused from here on, with every reason.
    Stopped(Vec<Reason>),
}

/// Accepts a request, or refuses all of it: nothing in it may be signed if a rule of the batch refuses.
pub fn accept(recorder: &mut Recorder, request: Request) -> Result<Result<Job, (Vec<Reason>, Option<u64>)>, CannotRecord> {
    let Request { by, id, asked, determination, wanted } = request;
    let by = recorder.known(by);
    let mut reasons: Vec<Reason> = match facts(recorder, &by, determination).map(|facts| rules::decide_batch(&facts)) {
        Some(Ok(())) => Vec::new(),
        Some(Err(refusals)) => refusals.iter().map(Refusal::reason).collect(),
        None => vec![reason("policy", "no policy is in force yet")],
    };
    let known = recorder.request(id)?;
    if known.is_some_and(|known| known.asked != asked) {
        reasons.push(reason("request-reused", "this request id was used for something else; choose a new one for a new request"));
    }
    let scope = recorder.fold().determinations().get(&determination).cloned();
    match scope.and_then(|facts| Some((facts.incident, facts.key?.0))).filter(|_| reasons.is_empty()) {
        Some((incident, key)) => {
            let policy = recorder.fold().policy().map_or(Digest([0; 32]), |adopted| adopted.digest);
            let entry = Batch { request: id, asked, incident, determination, policy, key: key.clone() };
            let batch = recorder.queue(&by, Event::Batch(entry))?;
            let source = match wanted {
                WantedSet::All => Source::List { after: None },
                WantedSet::These(these) => Source::These(these.into()),
                WantedSet::Unknowns => Source::Unknowns { after: None },
            };
            let repeated = known.is_some();
            let (own_batches, again) = (HashMap::new(), Vec::new());
            Ok(Ok(Job { request: id, asked, by, determination, key, source, batch, repeated, own_batches, again }))
        }
        None => {
            let entry = refuse(recorder, &by, "recovery-sign", id, determination, None, asked, reasons.clone())?;
            Ok(Err((reasons, entry)))
        }
    }
}

/// Runs a job to its end, or until nobody listens any more: what is recorded by then is concluded, and nothing more begun.
///
/// The channel is bounded, so that whoever reads slowly slows the job down.
pub async fn run(desk: &Desk, token: Token, job: Job, news: mpsc::Sender<News>) -> Result<(), Closed> {
    let batch = job.batch;
    let mut job = Some(job);
    let mut in_flight: VecDeque<tokio::task::JoinHandle<Signed>> = VecDeque::new();
    let mut signed: Option<Signed> = None;
    let mut more = true;
    while more || signed.is_some() || !in_flight.is_empty() {
        // Record: the outcomes of the chunk that was signed, and the intents of the next one, in one transaction.
        let wants_more = more && !news.is_closed();
        let mine = job.take().expect("the job comes back from every step");
        let done = signed.take();
        let step = desk.record(move |recorder| step(recorder, mine, done, wants_more)).await?;
        let Step { job: mine, told, stopped, next, ended } = step.get_parts();
        job = Some(mine);
        more = wants_more && !ended;

        // Sign and verify, while the rest of this turn goes on.
        if let Some(next) = next {
            in_flight.push_back(tokio::spawn(sign(token.clone(), next)));
        }
        // Release. Whoever asked may have gone away; the ledger says what was released all the same.
        if !told.is_empty() {
            let _ = news.send(News::Devices(told)).await;
        }
        if let Some(reasons) = stopped {
            let _ = news.send(News::Stopped(reasons)).await;
        }
        if in_flight.len() >= IN_FLIGHT_MAX || !more {
            signed = match in_flight.pop_front() {
                Some(chunk) => Some(chunk.await.map_err(|_| Closed)?),
                None => None,
            };
        }
    }
    desk.record(move |recorder| {
        recorder.end_batch(batch);
        Ok(())
    })
    .await?;
    Ok(())
}

/// What one turn of a job recorded.
struct Step {
    job: Job,
    told: Vec<Told>,
    stopped: Option<Vec<Reason>>,
    next: Option<Chunk>,
    ended: bool,
}

/// The parts of a recorded turn; the chunk stays under its proof.
struct Parts {
    job: Job,
    told: Vec<Told>,
    stopped: Option<Vec<Reason>>,
    next: Option<Recorded<Chunk>>,
    ended: bool,
}
