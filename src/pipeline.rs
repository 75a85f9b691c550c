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
//! - Whatever ends or pauses a determination after an intent was decided stops it, submitted or not: an intent stands behind
//!   the fences of its decision, and both are made on the recorder's thread.
//! - Limits count intents, never outcomes.
//! - Every intent gets one outcome: signed, failed, not signed (provably never submitted) or unknown.
//! - Nothing is handed over but what a `released` entry says, while the determination is in force.
//! - What is recorded of a Contingency command is without its symmetric key, which lies nowhere. It is put in right before the octets go
//!   to the token, from where a recorded release left it ([`Several::symmetric`]), and again when a command is handed over.
//! - A token that is away is waited for, for a while: what was recorded and provably never submitted is submitted once it is back,
//!   under the same intent and the same fences. What may have been signed is unknown, and not submitted again.
//!
//! Where the time goes: of 217 µs of CPU for a command (client, daemon and workers; `perf`, SoftHSM, two cores, 28 November 2026) C_Sign took
//! some 80 in the module and verification 66, which nothing here can do without. The recorder took 25 (SHA-256 of the command, two entries,
//! SQLite), the client 13, the worker's own reading and SHA-256 10, wakes of threads and pipes 20. So whatever crosses a thread does so for as
//! many commands at a time as can be: a chunk is handed to the token in one message, and told to be done in one; and an answer has of a
//! command only what the last had not.

mod jobs;
mod release;
mod settle;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::domain::commands::CommandOctets;
use crate::domain::fold::{Book as _, Fold};
use crate::domain::gbcs::{self, SymmetricKey, put_symmetric_key};
use crate::domain::intake;
use crate::domain::ledger::contingency::{ReleaseResult, SymmetricReleased};
use crate::domain::ledger::entry::{
    Actor, Batch, Entry, Event, Intent, Outcome as OutcomeEntry, Reason, Refused, SignResult, Started,
};
use crate::domain::names::{DeterminationId, DeviceId, Digest, KeyLabel, RequestId, TemplateName};
use crate::domain::policy::facts::{DeviceFacts, IntentState, Wanted, WantedForm};
use crate::domain::policy::files::{CHUNK_DEFAULT, CHUNK_MAX};
use crate::domain::policy::rules::{self, Allowance, BatchFacts, CommandFacts, Refusal};
use crate::domain::time::Timestamp;
use crate::hsm::QUEUE_ITEMS_MAX;
use crate::hsm::{Class, Condition, FencesSeen, HsmError, Kind, Outcome, Several, ToSign};
use crate::recorder::{CannotRecord, Closed, Desk, Recorded, Recorder, shortened};

use jobs::Kept;
pub use jobs::{Feed, GoOn, go_on};
pub use release::{FETCH, HandOver, hand_over, needs_symmetric, not_held};
use release::{finish, is_own, may_hand_over, recorded_before, release, release_to};
pub use settle::{Leave, LeftUnknowns, SETTLE, UNKNOWNS_MAX, leave, unknowns_of};

/// Chunks of one job that are recorded and not yet concluded: one that is signed, one that waits behind it; and one more for
/// each further token of the key, so that a chunk that a slow token has a part of does not hold up the others.
const fn in_flight_max(tokens: usize) -> usize {
    if tokens < 2 { 2 } else { tokens + 1 }
}

/// Commands of the first chunk and of the last ones, at most: with all of a chunk the token would wait for the first until all of its
/// intents are recorded, and whoever asked for the end until all of its outcomes are.
const CHUNK_EDGE: usize = 256;

const _: () = assert!(
    in_flight_max(1) * CHUNK_MAX as usize <= QUEUE_ITEMS_MAX
        && in_flight_max(2) * CHUNK_MAX as usize <= 2 * QUEUE_ITEMS_MAX,
    "the chunks in flight fit the queue of a key's tokens"
);

/// How long a job waits for a token that is away. A worker that died is replaced in a second or two, and a token that comes back
/// is found within ten; who asked waits with it. Beyond, nothing is lost by asking again.
const TOKEN_WAIT: Duration = Duration::from_secs(15);

/// How often commands are given to the token again that provably were not submitted to it, without its signing anything
/// meanwhile. A token that comes back and fails at once is not worth more: each time may leave an unknown.
const SUBMISSIONS_MAX: u32 = 3;

/// Why a Contingency command was not given to the token that was to be signed.
const NOT_HELD: &str = "the Contingency Symmetric Key was let go of before the token was asked, by a lock or an end";

/// How often it is looked.
const TOKEN_POLL: Duration = Duration::from_millis(50);

/// A request to sign, as it is accepted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub by: Actor,
    /// The route by which, as refusals name it.
    pub operation: &'static str,
    /// How whoever asks calls it.
    pub id: RequestId,
    /// SHA-256 of what is asked.
    pub asked: Digest,
    /// Under which determination.
    pub determination: DeterminationId,
    /// What.
    pub wanted: WantedSet,
    /// Commands of a chunk, by the configuration; the policy may want fewer.
    pub chunk: usize,
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
    operation: &'static str,
    determination: DeterminationId,
    key: KeyLabel,
    source: Source,
    /// Commands of a chunk.
    chunk: usize,
    /// The leaf that its intents name.
    batch: u64,
    /// Whether the request was accepted before: then Devices may have its commands already.
    repeated: bool,
    /// Whether a batch belongs to this request, as far as it was looked up.
    own_batches: HashMap<u64, bool>,
    /// Unknowns of this run that the daemon may sign again by itself.
    again: Vec<DeviceId>,
    /// Whether the account that asked became another person's meanwhile, or nobody's.
    disowned: bool,
    /// Whether its commands are of mode 9, which have the Contingency Symmetric Key inside.
    needs_symmetric: bool,
    /// That key, while a turn goes on and if it is held: what is handed over in that turn has it inside.
    symmetric: Option<SymmetricKey>,
    /// Set where the daemon runs it by itself: what is signed is kept, and nothing handed over.
    kept: Option<Kept>,
}

#[derive(Debug)]
enum Source {
    List { after: Option<DeviceId> },
    These { left: VecDeque<Wanted>, is_begun: bool },
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
    Signed(CommandOctets),
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
    /// Some Devices have come to their ends: in the order of the request within a chunk, and chunks as they are done.
    Devices(Vec<Told>),
    /// Nothing more of it is signed: the batch is refused from here on, with every reason.
    Stopped(Vec<Reason>),
}

/// Why a request was refused as a whole: every reason, and the entry that says so, if it was not counted with others.
pub type NotAccepted = (Vec<Reason>, Option<u64>);

/// Accepts a request, or refuses all of it: nothing in it may be signed if a rule of the batch refuses.
pub fn accept(recorder: &mut Recorder, request: Request) -> Result<Result<Job, NotAccepted>, CannotRecord> {
    let Request { by, operation, id, asked, determination, wanted, chunk } = request;
    let by = recorder.known(by);
    let mut reasons: Vec<Reason> = match facts(recorder, &by, determination).map(|facts| rules::decide_batch(&facts)) {
        Some(Ok(())) => Vec::new(),
        Some(Err(refusals)) => refusals.iter().map(Refusal::reason).collect(),
        None => vec![reason("policy", "no policy is in force yet")],
    };
    let known = recorder.request(id)?;
    if known.is_some_and(|known| known.asked != asked) {
        reasons.push(reason(
            "request-reused",
            "this request id was used for something else; choose a new one for a new request",
        ));
    }
    let scope = recorder.fold().determinations().get(&determination).cloned();
    let scope = scope.and_then(|facts| Some((facts.incident, facts.key?.0)));
    let Some((incident, key)) = scope.filter(|_| reasons.is_empty()) else {
        let about = About { operation, request: id, determination, asked };
        let entry = about.refuse(recorder, &by, None, reasons.clone())?;
        return Ok(Err((reasons, entry)));
    };
    let of_policy = recorder.fold().policy().map(|adopted| adopted.policy.limits().chunk);
    let of_policy = of_policy.and_then(|most| usize::try_from(most).ok()).unwrap_or(CHUNK_DEFAULT as usize);
    let chunk = chunk.min(of_policy).max(1);
    let policy = recorder.fold().policy().map_or(Digest([0; 32]), |adopted| adopted.digest);
    let profile = intake::profile_in_force(recorder.fold(), recorder.moment().at);
    let entry = Batch { request: id, asked, incident, determination, policy, profile, key: key.clone() };
    let batch = recorder.queue(&by, Event::Batch(entry))?;
    let source = match wanted {
        WantedSet::All => Source::List { after: None },
        WantedSet::These(these) => Source::These { left: these.into(), is_begun: false },
        WantedSet::Unknowns => Source::Unknowns { after: None },
    };
    let repeated = known.is_some();
    let needs_symmetric = needs_symmetric(recorder.fold(), &key);
    let (own_batches, again) = (HashMap::new(), Vec::new());
    Ok(Ok(Job {
        request: id,
        asked,
        by,
        operation,
        determination,
        key,
        source,
        chunk,
        batch,
        repeated,
        own_batches,
        again,
        disowned: false,
        needs_symmetric,
        symmetric: None,
        kept: None,
    }))
}

/// With what a run begins.
#[derive(Debug)]
pub enum First {
    /// A request that was accepted.
    Accepted(Job),
    /// A request that was accepted, and the intents of its first chunk. It must be run, or these have no outcome before the next
    /// start.
    Chunk(Step),
}

impl First {
    /// Decides the first chunk of a request that was accepted just now, and records its intents with it; leaves that to the run if
    /// no token is there.
    pub fn of(recorder: &mut Recorder, tokens: &Several, job: Job) -> Result<Self, CannotRecord> {
        match tokens.condition() {
            Condition::Up => step(recorder, tokens, job, None, Turn::Begins).map(Self::Chunk),
            Condition::Down(_) | Condition::Locked(_) => Ok(Self::Accepted(job)),
        }
    }

    const fn job(&self) -> &Job {
        match self {
            Self::Accepted(job) | Self::Chunk(Step { job, .. }) => job,
        }
    }
}

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// All of the request was looked at, or nobody listened any more.
    ToItsEnd,
    /// Nothing more of it is signed now, for these reasons.
    Stopped(Vec<Reason>),
    /// The limits of an hour leave no room before this moment: for a job alone. Whoever waits for an answer is refused.
    Limited(Timestamp),
}

/// Runs a job to its end, or until nobody listens any more or the daemon stops: what is recorded by then is concluded, and
/// nothing more begun.
///
/// The channel is bounded, so that whoever reads slowly slows the job down.
///
/// A job that the daemon runs by itself waits for no token here: it is begun again once one is up.
///
/// Answers how it ended, and a size of the ledger beyond which nothing of it lies.
pub async fn run(
    desk: &Desk,
    tokens: Several,
    first: Recorded<First>,
    news: mpsc::Sender<News>,
    stopping: watch::Receiver<bool>,
) -> Result<(Ran, u64), Closed> {
    let (is_kept, mut batch) = (first.get().job().kept.is_some(), first.get().job().batch);
    let (first, mut job) = first.split(|first| match first {
        First::Chunk(step) => (Some(step), None),
        First::Accepted(job) => (None, Some(job)),
    });
    let mut first = first.into_some();
    let mut limited: Option<Timestamp> = None;
    let mut in_flight: JoinSet<Signed> = JoinSet::new();
    let mut signed: Option<Signed> = None;
    let mut failing = Failing::default();
    let (mut more, mut why_stopped): (bool, Option<Vec<Reason>>) = (true, None);
    let mut over: Option<u64> = None;
    while more || signed.is_some() || !in_flight.is_empty() {
        let is_stopping = *stopping.borrow();
        if more && is_stopping {
            // An answer that is short and looks whole would be taken for all that there is.
            let text = "smkid is stopping; ask again with the same request id once it runs";
            why_stopped.get_or_insert_with(|| vec![reason("stopping", text)]);
        }
        let is_first = first.is_some();
        let wants_more = is_first || (more && !news.is_closed() && !is_stopping);
        let mut is_up = matches!(tokens.condition(), Condition::Up);
        if wants_more && !is_first && !is_up && signed.is_none() && in_flight.is_empty() {
            is_up = !is_kept && wait_until_up(&tokens, &stopping).await;
            if !is_up {
                let mine = job.take().expect("the job comes back from every step");
                why_stopped = Some(why_away(desk, &tokens, mine, None).await?.1);
                break;
            }
        }
        // Record: the outcomes of the chunk that was signed, and the intents of the next one, in one transaction. No intents
        // while the token is away: they would count against the limits, and none of them be signed.
        let begins = wants_more && (is_first || is_up);
        let step = if let Some(step) = first.take() {
            step
        } else {
            let mut mine = job.take().expect("the job comes back from every step");
            if begins {
                mine.fetch().await;
            }
            let done = signed.take();
            let asked = tokens.clone();
            let turn = match (begins, wants_more, in_flight.is_empty()) {
                (true, ..) => Turn::Begins,
                (false, false, true) => Turn::Last,
                (false, ..) => Turn::Concludes,
            };
            desk.record(move |recorder| step(recorder, &asked, mine, done, turn)).await?
        };
        let (next, (mine, told, halted, ended)) = step.split(|step| {
            over = step.over;
            (step.next, (step.job, step.told, step.halted, step.ended))
        });
        batch = mine.batch;
        let stopped = match halted {
            Some(Halt::Stopped(reasons)) => Some(reasons),
            Some(Halt::Limited(until)) => {
                limited = Some(until);
                None
            }
            None => None,
        };
        // What is unknown since, and may be signed again by itself, comes behind all else.
        let has_again = !mine.again.is_empty() && stopped.is_none() && why_stopped.is_none();
        job = Some(mine);
        more = (wants_more && !(begins && ended)) || (has_again && !news.is_closed() && !is_stopping);

        // Sign and verify, while the rest of this turn goes on.
        if !next.get().intents.is_empty() {
            in_flight.spawn(sign(tokens.clone(), next, stopping.clone()));
        }
        // Release. Whoever asked may have gone away; the ledger says what was released all the same.
        if !told.is_empty() {
            let _ = news.send(News::Devices(told)).await;
        }
        why_stopped = why_stopped.or(stopped);
        // Whichever chunk comes to its end first is concluded first.
        if in_flight.len() >= in_flight_max(tokens.count()) || !more || !is_up {
            signed = in_flight.join_next().await.transpose().map_err(|_| Closed)?;
        }
        if let Some(signed) = &mut signed {
            failing.follow(signed);
        }
        // A token that signs nothing would take one chunk after the other, and count each against the limits.
        if let Some(given_up) = signed.as_ref().and_then(|signed| signed.given_up.as_deref()) {
            if why_stopped.is_none() {
                let mine = job.take().expect("the job comes back from every step");
                let (mine, why) = why_away(desk, &tokens, mine, Some(given_up)).await?;
                (job, why_stopped) = (Some(mine), Some(why));
            }
            more = false;
        }
    }
    // Last: what was with the token has been told by now.
    let ran = match (why_stopped, limited) {
        (Some(reasons), _) => {
            let _ = news.send(News::Stopped(reasons.clone())).await;
            Ran::Stopped(reasons)
        }
        (None, Some(until)) => Ran::Limited(until),
        (None, None) => Ran::ToItsEnd,
    };
    let size = match over {
        Some(size) => size,
        None => desk.record(move |recorder| Ok(end(recorder, batch))).await?.into_inner(),
    };
    Ok((ran, size))
}

/// Forgets a batch whose request is done; answers the size beyond which nothing of it lies.
fn end(recorder: &mut Recorder, batch: u64) -> u64 {
    recorder.end_batch(batch);
    recorder.fold().size()
}

/// Waits for the worker of one of the key's tokens to be replaced, if all have died, up to [`TOKEN_WAIT`]; answers whether it is there.
async fn wait_until_up(tokens: &Several, stopping: &watch::Receiver<bool>) -> bool {
    let begun = tokio::time::Instant::now();
    loop {
        match tokens.condition() {
            Condition::Up => return true,
            Condition::Locked(_) => return false,
            Condition::Down(_) if begun.elapsed() > TOKEN_WAIT || *stopping.borrow() => return false,
            Condition::Down(_) => tokio::time::sleep(TOKEN_POLL).await,
        }
    }
}

/// Why a job ends whose tokens do not sign: that it may not go on, or else how they stand. A key that was locked because its
/// determination ended has no token either, and that end is what must be told.
async fn why_away(
    desk: &Desk,
    tokens: &Several,
    mut job: Job,
    last: Option<&str>,
) -> Result<(Job, Vec<Reason>), Closed> {
    let asked = desk.record(move |recorder| {
        job.follow_account(recorder);
        may_go_on(recorder, &job).map(|may| (job, may))
    });
    let (job, may_go_on) = asked.await?.into_inner();
    Ok((job, may_go_on.err().unwrap_or_else(|| away(tokens, last))))
}

/// Why nothing more is signed now: how the tokens stand, what failed last, and what to do.
fn away(tokens: &Several, last: Option<&str>) -> Vec<Reason> {
    let standings: Vec<String> = tokens.tokens().iter().map(|token| token.standing().told_of(token.name())).collect();
    let standings = standings.join("; ");
    // A token that is down says so itself.
    let last = last.filter(|last| !standings.contains(last));
    let last = last.map_or_else(String::new, |last| format!(". What failed last: {last}"));
    let why = shortened(&format!("{standings}{last}"));
    let text = format!("{why}. Ask again with the same request id once it signs; `smkictl hsm status` says when");
    vec![reason("token", &text)]
}

/// What one turn of a job recorded.
#[derive(Debug)]
pub struct Step {
    job: Job,
    told: Vec<Told>,
    halted: Option<Halt>,
    next: Chunk,
    ended: bool,
    /// Set if its batch ended with it: as [`end`] answers.
    over: Option<u64>,
}

/// What a turn is for, beside concluding what was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// To record the intents of the next chunk.
    Begins,
    /// For nothing: a chunk is with the token, or may yet be begun.
    Concludes,
    /// For nothing, and nothing comes after it, unless it leaves something that may be signed again.
    Last,
}

/// Why a turn records no intents.
#[derive(Debug)]
enum Halt {
    /// For these reasons.
    Stopped(Vec<Reason>),
    /// The limits of an hour leave no room before this moment.
    Limited(Timestamp),
}

/// Intents that are recorded together.
#[derive(Debug)]
struct Chunk {
    /// The fences that stood when it was decided.
    fences: FencesSeen,
    /// The last moment at which one of them may be submitted to the token.
    not_after: Timestamp,
    intents: Vec<Intended>,
    /// Whether the Contingency Symmetric Key goes into them.
    with_symmetric: bool,
}

impl Chunk {
    fn empty() -> Self {
        let (fences, not_after) = (FencesSeen::default(), Timestamp::MIN);
        Self { fences, not_after, intents: Vec::new(), with_symmetric: false }
    }
}

/// One intent: the whole pre-command, of which all but the first octet is signed; in mode 9 with its symmetric key put in.
#[derive(Debug)]
struct Intended {
    intent: u64,
    device: DeviceId,
    template: TemplateName,
    counter: u64,
    octets: Arc<Vec<u8>>,
}

/// What became of a chunk at the key's tokens.
struct Signed {
    intents: Vec<Intended>,
    /// For each of them, by its leaf.
    outcomes: HashMap<u64, Outcome>,
    /// Why no token took any of them.
    refused: Option<String>,
    /// Set if the token was given up, for it is away or signed nothing in the last tries: what failed last.
    given_up: Option<String>,
}

/// Commands in a row at which workers failed that went on all the same.
#[derive(Default)]
struct Failing(usize);

impl Failing {
    /// Gives the token up once a chunk has no signature, and more than one command failed since the last: a token that answers each
    /// call with a failure is up, and would be handed all there is. Where the worker ended instead, it is waited for.
    fn follow(&mut self, signed: &mut Signed) {
        if signed.outcomes.values().any(|outcome| matches!(outcome, Outcome::Signed(_))) {
            self.0 = 0;
            return;
        }
        let faults = signed.outcomes.values().filter_map(Outcome::fault_of_token);
        let went_on: Vec<&HsmError> = faults.filter(|fault| fault.class().worker_goes_on()).collect();
        self.0 += went_on.len();
        if self.0 > 1
            && let Some(last) = went_on.first()
        {
            let last = last.to_string();
            signed.given_up.get_or_insert(last);
        }
    }
}

/// One turn on the recorder's thread.
fn step(
    recorder: &mut Recorder,
    tokens: &Several,
    mut job: Job,
    done: Option<Signed>,
    turn: Turn,
) -> Result<Step, CannotRecord> {
    job.follow_account(recorder);
    job.symmetric = if job.needs_symmetric { tokens.symmetric() } else { None };
    let mut told = match done {
        Some(signed) => conclude(recorder, &mut job, signed)?,
        None => Vec::new(),
    };
    let (mut next, mut halted, mut ended) = (Chunk::empty(), None, true);
    if turn == Turn::Begins {
        // Before anything is looked at: whatever is raised from here on stops what is decided here.
        let fences = tokens.fences_seen();
        let most = may_go_on(recorder, &job)?.map_err(Halt::Stopped).and_then(|()| jobs::room(recorder, &job));
        match most {
            Ok(most) => {
                (next, ended) = intend(recorder, &mut job, most, &mut told)?;
                next.fences = fences;
            }
            Err(why) => halted = Some(why),
        }
    }
    job.symmetric = None;
    let is_over = turn == Turn::Last && job.again.is_empty();
    let over = is_over.then(|| end(recorder, job.batch));
    Ok(Step { job, told, halted, next, ended, over })
}

/// Whether the batch may still be signed for; if not, that is recorded.
fn may_go_on(recorder: &mut Recorder, job: &Job) -> Result<Result<(), Vec<Reason>>, CannotRecord> {
    let reasons: Vec<Reason> =
        match facts(recorder, &job.by, job.determination).map(|facts| rules::decide_batch(&facts)) {
            _ if job.disowned => vec![job.disowned_reason()],
            Some(Ok(())) => return Ok(Ok(())),
            Some(Err(refusals)) => refusals.iter().map(Refusal::reason).collect(),
            None => vec![reason("policy", "no policy is in force")],
        };
    // A job's state is told with it, and what stops it stands in an entry of its own.
    if job.kept.is_none() {
        job.about().refuse(recorder, &job.by, None, reasons.clone())?;
    }
    Ok(Err(reasons))
}

/// Decides the next commands of a job, at most so many, and records the intents of those that are allowed. Answers whether the
/// request is at its end.
fn intend(
    recorder: &mut Recorder,
    job: &mut Job,
    most: usize,
    told: &mut Vec<Told>,
) -> Result<(Chunk, bool), CannotRecord> {
    let (wanted, ended) =
        if job.kept.is_some() { jobs::next_wanted(recorder, job, most)? } else { next_wanted(recorder, job, most)? };
    follow_policy(recorder, job)?;
    let mut passed = jobs::Passed::of(job, &wanted);
    let mut intents = Vec::with_capacity(wanted.len());
    let mut handed: Vec<(u64, u64)> = Vec::new();
    for wanted in wanted {
        let last = recorder.device(&job.key, wanted.device)?;
        if job.kept.is_none()
            && let Some((again, at)) = recorded_before(recorder, job, &wanted, last.as_ref())?
        {
            handed.extend(matches!(again.outcome, ToldOutcome::Signed(_)).then_some((at, at + 1)));
            told.push(again);
            continue;
        }
        let intended = match decide(recorder, job, &wanted, last.as_ref())? {
            Ok(allowance) => record_intent(recorder, job, wanted.device, allowance, last.as_ref())?,
            Err(refusals) => Err(refusals),
        };
        match intended {
            Ok(intended) => intents.push(intended),
            Err(refusals) if job.kept.is_some() => passed.refused(wanted.device, &refusals),
            Err(refusals) => {
                let reasons: Vec<Reason> = refusals.iter().map(Refusal::reason).collect();
                job.about().refuse(recorder, &job.by, Some(wanted.device), reasons.clone())?;
                told.push(told_of(wanted.device, None, ToldOutcome::Refused(reasons)));
            }
        }
    }
    if !handed.is_empty() {
        release(recorder, job, handed)?;
    }
    passed.record(recorder, job)?;
    let facts = recorder.fold().determinations().get(&job.determination);
    let until = facts.map_or(Timestamp::MIN, |facts| facts.window.until);
    let active = recorder.fold().keys().get(&job.key).and_then(|key| key.active).flatten();
    let not_after = active.map_or(until, |active| active.min(until)).plus_ms(-1);
    let with_symmetric = job.needs_symmetric;
    Ok((Chunk { fences: FencesSeen::default(), not_after, intents, with_symmetric }, ended))
}

/// The next Devices of a request, at most a chunk; at its end, what the daemon may sign again by itself. And whether that is all, as
/// far as it is known.
fn next_wanted(recorder: &Recorder, job: &mut Job, most: usize) -> Result<(Vec<Wanted>, bool), CannotRecord> {
    let mut wanted: Vec<Wanted> = match &mut job.source {
        Source::List { after } => {
            let listed = recorder.store().listed_from(job.determination, *after, most)?;
            *after = listed.last().map(|listed| listed.device).or(*after);
            listed.into_iter().map(|listed| Wanted { device: listed.device, form: WantedForm::Device }).collect()
        }
        Source::These { left, is_begun } => {
            let edge = CHUNK_EDGE.min(most);
            let most = if *is_begun { left.len().div_ceil(2).clamp(edge, most) } else { edge };
            *is_begun = true;
            left.drain(..left.len().min(most)).collect()
        }
        Source::Unknowns { after } => {
            let rows = recorder.store().devices_in(&job.key, IntentState::Unknown, *after, most)?;
            *after = rows.last().map(|(device, _)| *device).or(*after);
            let determination = job.determination;
            let theirs = rows.into_iter().filter(|(_, facts)| facts.determination == determination);
            theirs.map(|(device, _)| Wanted { device, form: WantedForm::Retry }).collect()
        }
    };
    if wanted.is_empty() {
        let again = std::mem::take(&mut job.again);
        wanted.extend(again.into_iter().map(|device| Wanted { device, form: WantedForm::Retry }));
    }
    // Of a list nobody knows before it is read on.
    let is_all = match &job.source {
        Source::These { left, .. } => left.is_empty() && job.again.is_empty(),
        Source::List { .. } | Source::Unknowns { .. } => wanted.is_empty(),
    };
    Ok((wanted, is_all))
}

/// A batch names the policy and the procedure profile in force: where either became another, the request goes on in another batch.
fn follow_policy(recorder: &mut Recorder, job: &mut Job) -> Result<(), CannotRecord> {
    let in_force = recorder.fold().policy().map(|adopted| adopted.digest);
    let Some(batch) = recorder.fold().batch(job.batch).cloned() else { return Ok(()) };
    let policy = in_force.unwrap_or(batch.policy);
    let profile = intake::profile_in_force(recorder.fold(), recorder.moment().at);
    if (policy, &profile) != (batch.policy, &batch.profile) {
        job.batch = recorder.queue(&job.by, Event::Batch(Batch { policy, profile, ..batch }))?;
    }
    Ok(())
}

fn decide(
    recorder: &Recorder,
    job: &Job,
    wanted: &Wanted,
    last: Option<&DeviceFacts>,
) -> Result<Result<Allowance, Vec<Refusal>>, CannotRecord> {
    let listed = recorder.listed(job.determination, wanted.device)?;
    let Some(batch) = facts(recorder, &job.by, job.determination) else { return Ok(Err(Vec::new())) };
    let template = batch
        .determination
        .and_then(|facts| facts.scope.as_ref())
        .and_then(|scope| listed.as_ref().and_then(|listed| scope.templates.get(&listed.template)));
    let pre_command = match (&wanted.form, template) {
        (WantedForm::PreCommand(octets), Some(template)) => {
            Some(template.matches(octets).map(|(originator, _, counter)| (originator, counter)))
        }
        (WantedForm::PreCommand(_) | WantedForm::Device | WantedForm::Retry, _) => None,
    };
    Ok(rules::decide(&CommandFacts {
        batch: &batch,
        device: wanted.device,
        form: &wanted.form,
        pre_command: pre_command.as_ref(),
        listed: listed.as_ref(),
        last,
    }))
}

/// Fills the template, and records what is about to be signed. A further attempt must be the octets of the one before: they are
/// not if another Party's certificate was imported for the key since.
fn record_intent(
    recorder: &mut Recorder,
    job: &Job,
    device: DeviceId,
    allowance: Allowance,
    last: Option<&DeviceFacts>,
) -> Result<Result<Intended, Vec<Refusal>>, CannotRecord> {
    let Allowance { template_name, template, counter, attempt, originator } = allowance;
    let mut octets = Vec::with_capacity(template.filled_len_max() + gbcs::SIGNATURE_PART_LEN);
    template.fill(originator, device, counter, &mut octets).map_err(CannotRecord::Fill)?;
    let command = Digest::of(&octets[1..]);
    if let Some(last) = last.filter(|_| attempt > 1) {
        let before = intent_entry(recorder, last.intent)?.map(|entry| entry.command);
        if before != Some(command) {
            return Ok(Err(vec![Refusal::RetryDiffers { device, intent: last.intent }]));
        }
    }
    let entry = Intent { batch: job.batch, template: template_name.clone(), device, counter, attempt, command };
    let intent = recorder.queue(&job.by, Event::Intent(entry))?;
    Ok(Ok(Intended { intent, device, template: template_name, counter, octets: Arc::new(octets) }))
}

/// Has the key's tokens sign what is recorded: the one way to a Recovery Private Key. Every signature that comes back was verified
/// with a second implementation.
///
/// What tokens that went away provably were not asked for is submitted again once one of them is back.
async fn sign(tokens: Several, chunk: Recorded<Chunk>, stopping: watch::Receiver<bool>) -> Signed {
    let Chunk { fences, not_after, intents, with_symmetric } = chunk.into_inner();
    let mut outcomes: HashMap<u64, Outcome> = HashMap::with_capacity(intents.len());
    let (mut refused, mut in_vain) = (None, 0);
    loop {
        let left = intents.iter().filter(|intended| {
            let outcome = outcomes.get(&intended.intent);
            outcome.is_none_or(Outcome::is_not_submitted)
        });
        // Asked each time: it is gone once the key is locked.
        let symmetric = if with_symmetric { tokens.symmetric() } else { None };
        if with_symmetric && symmetric.is_none() {
            refused = Some(NOT_HELD.to_owned());
            break;
        }
        let items: Vec<ToSign> = left
            .filter_map(|Intended { intent, octets, .. }| {
                let filled = symmetric.as_ref().and_then(|symmetric| put_symmetric_key(octets, symmetric).ok());
                match filled {
                    Some(filled) => {
                        let range = 1..filled.len();
                        ToSign::secret(*intent, Kind::Command, filled, range)
                    }
                    // What has no place for the key is given as it is: the worker refuses it.
                    None => ToSign::part(*intent, Kind::Command, Arc::clone(octets), 1..octets.len()),
                }
            })
            .collect();
        drop(symmetric);
        if items.is_empty() {
            break;
        }
        if in_vain >= SUBMISSIONS_MAX || (in_vain > 0 && !wait_until_up(&tokens, &stopping).await) {
            // Another chunk, before this one in the token's queue, may have met what failed.
            let last = outcomes.values().find_map(Outcome::fault_of_token).map(ToString::to_string);
            let last = last.or_else(|| tokens.last_failure().map(|why| why.to_string()));
            let given_up = last.or_else(|| refused.clone()).unwrap_or_else(|| "its worker ended".to_owned());
            return Signed { intents, outcomes, refused, given_up: Some(given_up) };
        }
        let signatures = tokens.signatures();
        in_vain += 1;
        match tokens.sign_decided(fences, items, not_after).await {
            Ok(results) => {
                refused = None;
                outcomes.extend(results.into_iter().map(|result| (result.tag, result.outcome)));
                // Another chunk may have been before this one in a token's queue.
                if tokens.signatures() > signatures {
                    in_vain = 1;
                }
            }
            Err(error) => {
                let is_lasting = error.class() == Class::OurFault;
                refused = Some(error.to_string());
                if is_lasting {
                    break;
                }
            }
        }
    }
    Signed { intents, outcomes, refused, given_up: None }
}

/// Records the outcomes of a chunk, and its release while the determination is in force.
fn conclude(recorder: &mut Recorder, job: &mut Job, signed: Signed) -> Result<Vec<Told>, CannotRecord> {
    let Signed { intents, mut outcomes, refused, given_up: _ } = signed;
    let by = Actor::daemon();
    let is_kept = job.kept.is_some();
    let may_release = match facts(recorder, &job.by, job.determination).map(|facts| may_hand_over(&facts)) {
        // Whoever fetches it is asked about then.
        _ if is_kept => Err(Vec::new()),
        _ if job.disowned => Err(vec![job.disowned_reason()]),
        Some(Ok(())) => Ok(()),
        Some(Err(refusals)) => Err(refusals.iter().map(Refusal::reason).collect::<Vec<_>>()),
        None => Err(vec![reason("policy", "no policy is in force")]),
    };
    let by_itself = retries_by_itself(recorder.fold(), job.determination);
    // What is handed over, in ranges that leave out what is withheld.
    let (mut told, mut released): (Vec<Told>, Vec<(u64, u64)>) =
        (Vec::with_capacity(if is_kept { 0 } else { intents.len() }), Vec::new());
    let mut goes_on = false;
    for intended in intents {
        let Intended { intent, device, template, counter, octets } = intended;
        let outcome = outcomes.remove(&intent);
        let (result, outcome) = match outcome {
            Some(Outcome::Signed(signature)) => {
                // A Device may have been left out of the incident since its intent was recorded.
                let may_release = may_release.clone().and_then(|()| release_to(recorder, job, device));
                let may_release = may_release.and_then(|()| finish(octets, &signature, job));
                recorder.queue_signature(intent, signature, may_release.is_ok());
                match released.last_mut().filter(|_| goes_on && may_release.is_ok()) {
                    Some(last) => last.1 = intent + 1,
                    None if may_release.is_ok() => released.push((intent, intent + 1)),
                    None => {}
                }
                goes_on = may_release.is_ok();
                let outcome = match may_release {
                    Ok(command) => ToldOutcome::Signed(command),
                    Err(reasons) => ToldOutcome::Withheld(reasons),
                };
                (SignResult::Signed(Digest::of(&signature)), outcome)
            }
            Some(Outcome::Failed(error)) => {
                let why = shortened(&error.to_string());
                (SignResult::Failed(why.as_str().into()), ToldOutcome::Failed(why))
            }
            Some(Outcome::NotSigned(cause)) => {
                let why = shortened(&cause.to_string());
                (SignResult::NotSigned(why.as_str().into()), ToldOutcome::NotSigned(why))
            }
            Some(Outcome::Unknown(error)) => {
                let why = shortened(&error.to_string());
                if by_itself && !is_kept {
                    job.again.push(device);
                }
                (SignResult::Unknown(why.as_str().into()), ToldOutcome::Unknown(why))
            }
            None => {
                // Each item has an outcome unless no token took any; one without was never submitted.
                let why = refused.as_deref().map_or_else(|| "no token was asked".into(), shortened);
                (SignResult::NotSigned(why.as_str().into()), ToldOutcome::NotSigned(why))
            }
        };
        if let (Some(kept), SignResult::Signed(_)) = (&mut job.kept, &result) {
            kept.count_signed();
        }
        recorder.queue(&by, Event::Outcome(OutcomeEntry { intent, result }))?;
        if is_kept {
            continue;
        }
        told.push(Told { device, template: Some(template), counter: Some(counter), intent: Some(intent), outcome });
    }
    if !released.is_empty() {
        release(recorder, job, released)?;
    }
    Ok(told)
}

/// What becomes of the intents, and of the releases of a symmetric key, that a process left open when it died: the crash path, which every
/// start takes.
///
/// An intent that no checkpoint covers was never shown to the token: `not-signed`. One that a checkpoint covers may have been
/// signed: `unknown`.
pub fn resume(recorder: &mut Recorder) -> Result<(u64, u64), CannotRecord> {
    let covered = recorder.checkpointed();
    let fold = recorder.fold();
    let open: Vec<u64> = fold.open_intents().keys().chain(fold.open_certifications().keys()).copied().collect();
    let (mut not_signed, mut unknown) = (0, 0);
    for intent in open {
        let result = if intent < covered {
            unknown += 1;
            SignResult::Unknown("smkid ended before the outcome was recorded".into())
        } else {
            not_signed += 1;
            SignResult::NotSigned("smkid ended before the token was asked".into())
        };
        recorder.queue(&Actor::daemon(), Event::Outcome(OutcomeEntry { intent, result }))?;
    }
    // A Contingency Symmetric Key is spent from before its token is asked: only whether it left the token is not known.
    let releases: Vec<u64> = recorder.fold().open_releases().map(|(intent, _)| intent).collect();
    for intent in releases {
        let result = if intent < covered {
            ReleaseResult::Unknown("smkid ended before the outcome was recorded; what it had is gone with it".into())
        } else {
            ReleaseResult::NotReleased("smkid ended before the token was asked".into())
        };
        recorder.queue(&Actor::daemon(), Event::SymmetricReleased(SymmetricReleased { intent, result }))?;
    }
    Ok((not_signed, unknown))
}

/// Records that the daemon started, what its clock is worth, and what becomes of what an end left open ([`resume`]).
///
/// What lies under no checkpoint is told as that: before its checkpoint nobody gets an answer, so nobody knows of it yet.
pub fn record_start(recorder: &mut Recorder, started: Started) -> Result<(u64, u64), CannotRecord> {
    let (covered, size) = (recorder.checkpointed(), recorder.durable().size);
    let unconfirmed = (covered < size).then_some(covered);
    if unconfirmed.is_some() {
        tracing::warn!(
            from = covered,
            until = size,
            "entries lay under no checkpoint: an end cut them off, or somebody else wrote them. What an operator let go on there \
             stands still again"
        );
    }
    let started = Started { unconfirmed, ..started };
    recorder.queue(&Actor::daemon(), Event::Started(started))?;
    recorder.tell_jump()?;
    if recorder.fold().clock_untrusted() {
        tracing::warn!("the clock is not trusted: compare it with another source, then `smkictl clock accept`");
    }
    resume(recorder)
}

/// The route that signs, as refusals name it.
pub const SIGN: &str = "recovery-sign";

/// Whether a signature could be asked for by this actor under a determination: what costs something is done for nobody else.
pub fn may_ask(recorder: &Recorder, by: Actor, determination: DeterminationId) -> bool {
    let by = recorder.known(by);
    facts(recorder, &by, determination).is_some_and(|facts| rules::decide_asker(&facts).is_ok())
}

fn facts<'a>(recorder: &'a Recorder, by: &'a Actor, determination: DeterminationId) -> Option<BatchFacts<'a>> {
    let moment = recorder.moment();
    recorder.fold().batch_facts(by, determination, moment.at, moment.clock)
}

fn retries_by_itself(fold: &Fold, determination: DeterminationId) -> bool {
    let scope = fold.determinations().get(&determination).and_then(|facts| facts.scope.as_ref());
    scope.is_some_and(|scope| scope.retries_by_itself)
}

fn entry_at(recorder: &Recorder, index: u64) -> Result<Option<Entry>, CannotRecord> {
    // What is queued in this very group is not in the store yet, and belongs to a run that goes on.
    if index >= recorder.durable().size {
        return Ok(None);
    }
    let leaf = recorder.store().leaf_under(index, &recorder.durable())?;
    Ok(Some(Entry::from_leaf(&leaf)?))
}

fn intent_entry(recorder: &Recorder, index: u64) -> Result<Option<Intent>, CannotRecord> {
    Ok(match entry_at(recorder, index)?.map(|entry| entry.event) {
        Some(Event::Intent(intent)) => Some(intent),
        Some(_) | None => None,
    })
}

fn told_of(device: DeviceId, intent: Option<u64>, outcome: ToldOutcome) -> Told {
    Told { device, template: None, counter: None, intent, outcome }
}

fn reason(rule: &str, text: &str) -> Reason {
    Reason { rule: rule.into(), text: text.into() }
}

fn asker_changed(by: &Actor) -> Reason {
    let text = format!(
        "account {} belongs to somebody else since this was asked, by the policy in force now; who has it now must ask anew",
        by.account
    );
    reason("asker-changed", &text)
}

/// What a refusal is about.
#[derive(Clone, Copy)]
struct About {
    operation: &'static str,
    request: RequestId,
    determination: DeterminationId,
    asked: Digest,
}

impl About {
    /// Records a refusal, or counts it. Answers its entry if there is one.
    fn refuse(
        self,
        recorder: &mut Recorder,
        by: &Actor,
        device: Option<DeviceId>,
        reasons: Vec<Reason>,
    ) -> Result<Option<u64>, CannotRecord> {
        let Self { operation, request, determination, asked } = self;
        let refused = Refused {
            operation: operation.into(),
            incident: None,
            determination: Some(determination),
            request: Some(request),
            device,
            asked,
            reasons,
        };
        recorder.refuse(by, refused)
    }
}

impl Job {
    /// Each entry names the person whom the policy in force maps the account to. Where that is another than who asked, nothing more is
    /// signed or handed over for them.
    fn follow_account(&mut self, recorder: &Recorder) {
        let known = recorder.known(self.by.clone());
        self.disowned |= known.person != self.by.person;
        self.by = known;
    }

    fn disowned_reason(&self) -> Reason {
        asker_changed(&self.by)
    }

    const fn about(&self) -> About {
        About { operation: self.operation, request: self.request, determination: self.determination, asked: self.asked }
    }
}

#[cfg(test)]
mod tests;
