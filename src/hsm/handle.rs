//! Shell: the daemon's side of a token. Starts its worker, watches it, kills it when it overruns, and says what became of each
//! item: signed, failed, not signed or unknown; one of them for each, always.
//!
//! Nothing here needs an async runtime: calls return at once with [`Results`] or a [`Reply`], which can be awaited or waited
//! for on a plain thread (the recorder's, say). Three threads serve a token: the *keeper*, which starts the worker, reads from it and
//! buries it; the *writer*; and one that forwards the worker's standard error to the log.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::errors::{Certainty, HsmError};
use super::kinds::Kind;
use super::protocol::{
    self, Answer, BATCH_ITEMS_MAX, BATCH_OCTETS_MAX, FrameError, FromWorker, Item, Manage, Managed, OCTETS_LEN_MAX,
    Setup, ToWorker,
};
use super::verify::{Pool, PublicPoint};
use super::{Expectations, ExpectedKey, GENESIS_LABEL, KeyReport, QUEUE_ITEMS_MAX, TokenReport};
use crate::domain::names::{Digest, KeyId, KeyLabel, KeyUse, TokenName};
use crate::domain::time::Timestamp;

/// Activation is some dozens of calls (load, slots, login, look-ups): this many deadlines for all of it.
const ACTIVATION_DEADLINES: u32 = 6;
/// The longest time between two signs of life; a quarter of a shorter deadline. A hung call is seen this late at most.
const HEARTBEAT_MAX: Duration = Duration::from_millis(250);
/// How long a killed process may take to be gone. One that hangs in the kernel is left, and all it held counts as begun.
const BURIAL: Duration = Duration::from_secs(2);
/// What is forwarded of one line of the worker's standard error.
const LOG_LINE_LEN_MAX: u64 = 1024;
/// Longer than any PIN; so that the worker's buffer for it need not grow. No official reference.
pub const PIN_LEN_MAX: usize = 256;

/// Where a token is and how its worker is run.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// What configuration calls it.
    pub name: TokenName,
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// `CKA_LABEL` of the token.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// How many sessions sign, 1 or more. Fewer are opened when the token has no more.
    pub sessions: u16,
    /// How long one call of the module may take. What takes longer is killed, and its items become unknown.
    pub call_deadline: Duration,
    /// The worker's whole environment, such as `SOFTHSM2_CONF`: it inherits none.
    pub environment: Vec<(OsString, OsString)>,
    /// The `smkid` that is run as worker. `None`: this very program, even if its file was replaced since.
    pub program: Option<PathBuf>,
}

/// One thing to sign.
#[derive(Clone, Debug)]
pub struct ToSign {
    /// The caller's name for it, given back with the outcome. Unique within a call.
    pub tag: u64,
    kind: Kind,
    octets: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl ToSign {
    /// The whole of `octets` is what the signature covers.
    pub fn new(tag: u64, kind: Kind, octets: Vec<u8>) -> Self {
        let range = 0..octets.len();
        Self { tag, kind, octets: Arc::new(octets), range }
    }

    /// The signature covers `range` of `octets`; the rest is not sent. A range beyond the octets is `None`.
    pub fn part(tag: u64, kind: Kind, octets: Arc<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        octets.get(range.clone())?;
        Some(Self { tag, kind, octets, range })
    }

    fn octets(&self) -> &[u8] {
        &self.octets[self.range.clone()]
    }
}

/// Why something was not signed, provably.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// A fence was raised before its C_Sign.
    #[error("stopped by a fence before it was submitted to the token")]
    Fenced,
    /// Its last moment passed before its C_Sign.
    #[error("its last moment passed before it was submitted to the token")]
    Expired,
    /// The worker ended, or was never reached.
    #[error("the worker ended before it submitted this to the token")]
    NotReached,
}

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Signed, and verified with the second implementation: r, s.
    Signed([u8; 64]),
    /// The attempt failed. No signature exists, but for [`HsmError::WrongSignature`], which is withheld.
    Failed(HsmError),
    /// Provably never submitted to the token.
    NotSigned(NotSigned),
    /// It was, or may have been, submitted, and no answer came: a signature may exist.
    Unknown(HsmError),
}

/// An outcome and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignResult {
    /// [`ToSign::tag`].
    pub tag: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// The outcomes of one call, one for each item, as they come: in no particular order.
#[derive(Debug)]
pub struct Results {
    outcomes: UnboundedReceiver<SignResult>,
}

impl Results {
    /// The next one; `None` after the last.
    pub async fn next(&mut self) -> Option<SignResult> {
        self.outcomes.recv().await
    }

    /// The next one, on a plain thread. Panics within an async task.
    pub fn wait_next(&mut self) -> Option<SignResult> {
        self.outcomes.blocking_recv()
    }

    /// As many as are there, at least one, at most `limit`, appended to `into`; 0 after the last.
    pub async fn next_many(&mut self, into: &mut Vec<SignResult>, limit: usize) -> usize {
        self.outcomes.recv_many(into, limit).await
    }

    /// All of them, on a plain thread. Panics within an async task.
    pub fn wait_all(mut self) -> Vec<SignResult> {
        std::iter::from_fn(|| self.wait_next()).collect()
    }
}

/// An answer that is on its way. It comes always: with the answer, or with why there is none.
#[derive(Debug)]
#[must_use]
pub struct Reply<T>(oneshot::Receiver<Result<T, HsmError>>);

impl<T> Reply<T> {
    /// Awaits it.
    pub async fn get(self) -> Result<T, HsmError> {
        self.0.await.unwrap_or_else(|_| Err(ended("no answer came")))
    }

    /// Waits for it on a plain thread. Panics within an async task.
    pub fn wait(self) -> Result<T, HsmError> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(ended("no answer came")))
    }

    fn now(result: Result<T, HsmError>) -> Self {
        let (answer, reply) = oneshot::channel();
        let _ = answer.send(result);
        Self(reply)
    }
}

/// The fence stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceAck {
    /// What was submitted before this generation and is not yet begun will not be.
    pub generation: u64,
    /// Tags of the items whose C_Sign may have been running when the fence was raised; their outcomes come yet.
    pub in_flight: Vec<u64>,
}

/// How a token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Logged in; its keys were checked.
    Up,
    /// Its worker is gone. [`Token::restart`] brings another.
    Down(HsmError),
    /// It takes an operator: [`Token::start`] anew, with a PIN.
    Locked(HsmError),
}

/// A handle to one token. Cheap to clone. Dropping the last one ends the worker.
#[derive(Clone)]
pub struct Token(Arc<Inner>);

struct Inner {
    config: TokenConfig,
    /// Kept while the token is active, so that a dead worker can be replaced; gone when it is locked.
    pin: Mutex<Option<SecretString>>,
    expectations: Mutex<Expectations>,
    state: Mutex<State>,
    /// Held while a worker is started or ended, so that there is one at a time.
    changing: Mutex<()>,
    generation: Arc<AtomicU64>,
    waiting: Arc<AtomicUsize>,
    calls: AtomicU64,
}

enum State {
    Up { link: Arc<Link>, report: TokenReport },
    Down(HsmError),
    Locked(HsmError),
}

/// What ties us to a living worker.
struct Link {
    pid: u32,
    outgoing: mpsc::Sender<Outgoing>,
    open: Arc<Mutex<Option<Open>>>,
    keeper: Mutex<Option<thread::JoinHandle<()>>>,
}

enum Outgoing {
    Batch(Arc<Batch>),
    Fence(u64),
    Manage(u64, Manage<'static>),
    End,
}

/// What was sent and is not answered. `None` once the worker is gone: then nothing can be added.
#[derive(Default)]
struct Open {
    frames: BTreeMap<u64, Frame>,
    calls: HashMap<u64, Finish>,
    fences: VecDeque<(u64, oneshot::Sender<Result<FenceAck, HsmError>>)>,
}

/// Takes the answer to a call.
type Finish = Box<dyn FnOnce(Result<Managed, HsmError>) + Send>;

/// A part of a batch that went out as one frame: items `first..first + answered.len()` of it.
struct Frame {
    batch: Arc<Batch>,
    first: usize,
    answered: Vec<bool>,
    left: usize,
}

impl Token {
    /// Starts a worker, logs in once and checks genesis and keys. Waits for it: call it on a plain thread, or within
    /// `spawn_blocking`.
    ///
    /// The PIN goes over the pipe only, and is offered once: when the token refuses it, nothing offers it again until this is
    /// called anew.
    pub fn start(
        config: TokenConfig,
        pin: SecretString,
        expectations: Expectations,
    ) -> Result<(Self, TokenReport), HsmError> {
        let token = Self(Arc::new(Inner {
            config,
            pin: Mutex::new(Some(pin)),
            expectations: Mutex::new(expectations),
            state: Mutex::new(State::Down(ended("it was not started yet"))),
            changing: Mutex::new(()),
            generation: Arc::default(),
            waiting: Arc::default(),
            calls: AtomicU64::new(0),
        }));
        let report = token.restart()?;
        Ok((token, report))
    }

    /// Brings a worker up if there is none: logs in with the PIN held since activation, which has been good once. Waits.
    pub fn restart(&self) -> Result<TokenReport, HsmError> {
        let _changing = lock(&self.0.changing);
        match &*lock(&self.0.state) {
            State::Up { report, .. } => return Ok(report.clone()),
            State::Locked(why) => return Err(why.clone()),
            State::Down(_) => {}
        }
        let result = launch(&self.0);
        let mut state = lock(&self.0.state);
        match result {
            Ok((link, report)) => {
                // What was seen at activation is what every later worker must find: same keys, or none.
                for key in &mut lock(&self.0.expectations).keys {
                    if let Some(found) = report.keys.iter().find(|found| found.label == key.label) {
                        key.spki = Some(found.spki.clone());
                    }
                }
                let gone = lock(&link.open).is_none();
                *state = if gone {
                    State::Down(ended("it ended as soon as it was ready"))
                } else {
                    State::Up { link, report: report.clone() }
                };
                Ok(report)
            }
            Err(error) => {
                if error.locks() {
                    lock(&self.0.pin).take();
                    *state = State::Locked(error.clone());
                } else {
                    *state = State::Down(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Signs items with a key: one outcome for each, as they come.
    ///
    /// # Units
    /// `not_after` is read again before each C_Sign: at most that moment, by the wall clock.
    ///
    /// # Errors
    /// All of them mean that nothing was signed: [`HsmError::KeyUnknown`], [`HsmError::QueueFull`], [`HsmError::TooLong`],
    /// or why there is no worker.
    pub fn sign(&self, key: &KeyLabel, items: Vec<ToSign>, not_after: Timestamp) -> Result<Results, HsmError> {
        if let Some(long) = items.iter().find(|item| item.octets().len() > OCTETS_LEN_MAX) {
            return Err(HsmError::TooLong { tag: long.tag, len: long.octets().len(), limit: OCTETS_LEN_MAX });
        }
        // Read before the state, so that a fence raised meanwhile holds for this call too.
        let generation = self.0.generation.load(Ordering::SeqCst);
        let (outgoing, point) = {
            let state = lock(&self.0.state);
            match &*state {
                State::Up { link, report } => {
                    let report = report.keys.iter().find(|found| found.label == *key);
                    let point = report.and_then(|found| PublicPoint::from_spki(&found.spki));
                    let point = point.ok_or_else(|| HsmError::KeyUnknown(key.clone()))?;
                    (link.outgoing.clone(), point)
                }
                State::Down(why) | State::Locked(why) => return Err(nothing_signed(why)),
            }
        };
        let more = items.len();
        let admitted = self.0.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| {
            waiting.checked_add(more).filter(|all| *all <= QUEUE_ITEMS_MAX)
        });
        if let Err(waiting) = admitted {
            return Err(HsmError::QueueFull { waiting, more, limit: QUEUE_ITEMS_MAX });
        }
        let (results, outcomes) = unbounded_channel();
        let batch = Arc::new(Batch {
            key: key.clone(),
            point,
            generation,
            not_after,
            stages: items.iter().map(|_| AtomicU8::new(WAITING)).collect(),
            items,
            results,
            waiting: self.0.waiting.clone(),
        });
        // A writer that is gone drops the batch, which says of each item that it was not reached.
        let _ = outgoing.send(Outgoing::Batch(batch));
        Ok(Results { outcomes })
    }

    /// Raises the fence: of all that was submitted before, nothing that is not yet begun will be. Answered at once, whatever the
    /// module is doing; without a worker, there is nothing to stop.
    pub fn fence(&self) -> Reply<FenceAck> {
        let generation = self.0.generation.fetch_add(1, Ordering::SeqCst) + 1;
        let stands = || Reply::now(Ok(FenceAck { generation, in_flight: Vec::new() }));
        let state = lock(&self.0.state);
        let State::Up { link, .. } = &*state else { return stands() };
        let (answer, reply) = oneshot::channel();
        let mut open = lock(&link.open);
        let Some(open) = open.as_mut() else { return stands() };
        open.fences.push_back((generation, answer));
        let _ = link.outgoing.send(Outgoing::Fence(generation));
        Reply(reply)
    }

    /// The value of the data object with this label, if there is one.
    pub fn read_data(&self, label: &str) -> Reply<Option<Vec<u8>>> {
        self.manage(Manage::ReadData { label: label.to_owned().into() }, |managed| match managed {
            Managed::Data(found) => Some(found.map(serde_bytes::ByteBuf::into_vec)),
            Managed::Done | Managed::Key(_) | Managed::Keys(_) | Managed::Info(_) => None,
        })
    }

    /// Writes a data object, readable without login, in place of any that has this label.
    pub fn write_data(&self, label: &str, octets: &[u8]) -> Reply<()> {
        self.write(label, octets, false)
    }

    /// Writes the leaf hash of the genesis entry to the token; from now on the token is of that ledger. Writing the same again is
    /// no error; another one is refused.
    pub fn write_genesis(&self, genesis: Digest) -> Reply<()> {
        lock(&self.0.expectations).genesis.get_or_insert(genesis);
        self.write(GENESIS_LABEL, genesis.octets(), true)
    }

    /// Makes a P-256 key pair on the token that can only sign and cannot leave; it can be used at once.
    pub fn generate_key(&self, label: KeyLabel, id: KeyId, use_: KeyUse) -> Reply<KeyReport> {
        let inner = Arc::downgrade(&self.0);
        self.manage(Manage::GenerateKey { label, id, use_ }, move |managed| match managed {
            Managed::Key(key) => {
                if let Some(inner) = inner.upgrade() {
                    inner.learn(&key);
                }
                Some(key)
            }
            Managed::Data(_) | Managed::Done | Managed::Keys(_) | Managed::Info(_) => None,
        })
    }

    /// Looks every key up and checks it anew.
    pub fn list_keys(&self) -> Reply<Vec<KeyReport>> {
        self.manage(Manage::ListKeys, |managed| match managed {
            Managed::Keys(keys) => Some(keys),
            Managed::Data(_) | Managed::Done | Managed::Key(_) | Managed::Info(_) => None,
        })
    }

    /// What the token was found to be at activation, asked of the worker: an answer shows that it serves calls.
    pub fn token_info(&self) -> Reply<TokenReport> {
        self.manage(Manage::TokenInfo, |managed| match managed {
            Managed::Info(report) => Some(report),
            Managed::Data(_) | Managed::Done | Managed::Key(_) | Managed::Keys(_) => None,
        })
    }

    /// How the token stands.
    pub fn condition(&self) -> Condition {
        match &*lock(&self.0.state) {
            State::Up { .. } => Condition::Up,
            State::Down(why) => Condition::Down(why.clone()),
            State::Locked(why) => Condition::Locked(why.clone()),
        }
    }

    /// What was found at activation, and the keys made since; `None` without a worker.
    pub fn report(&self) -> Option<TokenReport> {
        match &*lock(&self.0.state) {
            State::Up { report, .. } => Some(report.clone()),
            State::Down(_) | State::Locked(_) => None,
        }
    }

    /// The worker's process id, for status; `None` without one.
    pub fn worker_pid(&self) -> Option<u32> {
        match &*lock(&self.0.state) {
            State::Up { link, .. } => Some(link.pid),
            State::Down(_) | State::Locked(_) => None,
        }
    }

    /// What configuration calls it.
    pub fn name(&self) -> &TokenName {
        &self.0.config.name
    }

    /// Locks the token: what is in flight is finished, the rest is not signed, the worker ends and the PIN is forgotten. Waits, at
    /// most for the call deadline.
    pub fn shutdown(&self) {
        let _changing = lock(&self.0.changing);
        lock(&self.0.pin).take();
        let state = std::mem::replace(&mut *lock(&self.0.state), State::Locked(HsmError::Locked));
        match state {
            State::Up { link, .. } => {
                // What was not written yet will not be, so that the word to end does not wait behind it.
                self.0.generation.fetch_add(1, Ordering::SeqCst);
                let _ = link.outgoing.send(Outgoing::End);
                if let Some(keeper) = lock(&link.keeper).take() {
                    let _ = keeper.join();
                }
            }
            State::Locked(why) => *lock(&self.0.state) = State::Locked(why),
            State::Down(_) => {}
        }
    }

    fn write(&self, label: &str, octets: &[u8], once: bool) -> Reply<()> {
        if octets.len() > OCTETS_LEN_MAX {
            return Reply::now(Err(HsmError::TooLong { tag: 0, len: octets.len(), limit: OCTETS_LEN_MAX }));
        }
        let what = Manage::WriteData { label: label.to_owned().into(), octets: octets.to_vec().into(), once };
        self.manage(what, |managed| match managed {
            Managed::Done => Some(()),
            Managed::Data(_) | Managed::Key(_) | Managed::Keys(_) | Managed::Info(_) => None,
        })
    }

    fn manage<T: Send + 'static>(
        &self,
        what: Manage<'static>,
        read: impl FnOnce(Managed) -> Option<T> + Send + 'static,
    ) -> Reply<T> {
        let state = lock(&self.0.state);
        let link = match &*state {
            State::Up { link, .. } => link.clone(),
            State::Down(why) | State::Locked(why) => return Reply::now(Err(why.clone())),
        };
        drop(state);
        let (answer, reply) = oneshot::channel();
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst);
        {
            let mut open = lock(&link.open);
            let Some(open) = open.as_mut() else { return Reply::now(Err(ended("it had ended before this call"))) };
            let finish = move |result: Result<Managed, HsmError>| {
                let result = result.and_then(|managed| {
                    read(managed).ok_or_else(|| HsmError::Protocol { found: "an answer to another call".to_owned() })
                });
                let _ = answer.send(result);
            };
            open.calls.insert(call, Box::new(finish));
        }
        let _ = link.outgoing.send(Outgoing::Manage(call, what));
        Reply(reply)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, {:?})", self.0.config.name, self.condition())
    }
}

impl Inner {
    /// A key made since activation is one to be found again by the next worker.
    fn learn(&self, key: &KeyReport) {
        if let State::Up { report, .. } = &mut *lock(&self.state) {
            report.keys.push(key.clone());
        }
        let KeyReport { label, id, use_, spki } = key.clone();
        lock(&self.expectations).keys.push(ExpectedKey { label, id, use_, spki: Some(spki) });
    }
}

/// The stages of an item: it waits here; it was written to the pipe; its answer came and is being verified, or was given.
const WAITING: u8 = 0;
const WRITTEN: u8 = 1;
const GIVEN: u8 = 2;

/// The items of one call, until each has its outcome.
struct Batch {
    key: KeyLabel,
    point: PublicPoint,
    generation: u64,
    not_after: Timestamp,
    items: Vec<ToSign>,
    stages: Vec<AtomicU8>,
    results: UnboundedSender<SignResult>,
    waiting: Arc<AtomicUsize>,
}

impl Batch {
    /// Gives an item its outcome; the first one counts.
    fn give(&self, n: usize, outcome: Outcome) {
        if self.stages[n].swap(GIVEN, Ordering::SeqCst) != GIVEN {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            // A caller that no longer listens has lost interest, not its records: those were written before.
            let _ = self.results.send(SignResult { tag: self.items[n].tag, outcome });
        }
    }

    /// Verifies a signature with the second implementation; what does not verify is not released.
    fn verify(&self, n: usize, signature: [u8; 64]) {
        let good = self.point.verifies(self.items[n].octets(), &signature);
        self.give(
            n,
            if good { Outcome::Signed(signature) } else { Outcome::Failed(HsmError::WrongSignature(self.key.clone())) },
        );
    }
}

impl Drop for Batch {
    /// Whatever way a batch went, each of its items has one outcome.
    fn drop(&mut self) {
        for n in 0..self.items.len() {
            match self.stages[n].load(Ordering::SeqCst) {
                WAITING => self.give(n, Outcome::NotSigned(NotSigned::NotReached)),
                WRITTEN => self.give(n, Outcome::Unknown(ended("its answer was lost"))),
                _ => {}
            }
        }
    }
}

/// Starts a keeper and waits until its worker is ready, or is not.
fn launch(inner: &Arc<Inner>) -> Result<(Arc<Link>, TokenReport), HsmError> {
    let pin = lock(&inner.pin).clone().ok_or(HsmError::Locked)?;
    if pin.expose_secret().len() > PIN_LEN_MAX {
        return Err(HsmError::PinRefused { rv: format!("longer than {PIN_LEN_MAX} octets") });
    }
    let config = &inner.config;
    let heartbeat = HEARTBEAT_MAX.min(config.call_deadline / 4);
    let setup = {
        let Expectations { keys, genesis, origin } = lock(&inner.expectations).clone();
        Setup {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parent_pid: rustix::process::getpid().as_raw_nonzero().get(),
            name: config.name.clone(),
            module: config.module.to_string_lossy().into_owned(),
            label: config.label.clone(),
            serial: config.serial.clone(),
            sessions: config.sessions.max(1),
            call_deadline_ms: u32::try_from(config.call_deadline.as_millis()).unwrap_or(u32::MAX),
            heartbeat_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX).max(1),
            keys,
            genesis,
            origin,
        }
    };
    let (outgoing, to_write) = mpsc::channel();
    let open = Arc::new(Mutex::new(Some(Open::default())));
    let (tell, ready) = mpsc::channel();
    let keeper = Keeper {
        config: config.clone(),
        inner: Arc::downgrade(inner),
        open: open.clone(),
        generation: inner.generation.clone(),
        ready: Some(tell),
    };
    // The parent-death signal goes by the *thread* that made the worker, so that must be one that lives as long as it.
    let keeper = thread::Builder::new()
        .name(format!("hsm-{}", config.name))
        .spawn(move || keeper.keep(&setup, pin, to_write))
        .map_err(spawn_failed)?;
    let (pid, report) = ready.recv().unwrap_or_else(|_| Err(ended("its keeper ended")))?;
    Ok((Arc::new(Link { pid, outgoing, open, keeper: Mutex::new(Some(keeper)) }), report))
}

type Ready = Result<(u32, TokenReport), HsmError>;

struct Keeper {
    config: TokenConfig,
    inner: Weak<Inner>,
    open: Arc<Mutex<Option<Open>>>,
    generation: Arc<AtomicU64>,
    /// Where to say that the worker is ready, until it was said.
    ready: Option<mpsc::Sender<Ready>>,
}

impl Keeper {
    /// From the worker's first breath to its burial.
    fn keep(mut self, setup: &Setup, pin: SecretString, to_write: mpsc::Receiver<Outgoing>) {
        let (child, mut socket, mark) = match self.spawn() {
            Ok(made) => made,
            Err(error) => {
                lock(&self.open).take();
                self.tell(Err(spawn_failed(error)));
                return;
            }
        };
        let pid = child.id();
        let why = match greet(&mut socket, &mark, setup, pin) {
            Ok(()) => self.read(&mut socket, pid, to_write),
            Err(error) => HsmError::Protocol { found: error.to_string() },
        };
        let why = self.bury(child, &socket, &mark, why);
        tracing::warn!(token = %self.config.name, worker = pid, "{why}");
        self.tell(Err(why));
    }

    fn tell(&mut self, ready: Ready) {
        if let Some(tell) = self.ready.take() {
            let _ = tell.send(ready);
        }
    }

    fn spawn(&self) -> io::Result<(Child, UnixStream, OwnedFd)> {
        let (socket, workers) = UnixStream::pair()?;
        // A worker that reads nothing must not hold us up either.
        socket.set_write_timeout(Some(self.config.call_deadline))?;
        let (log, to_log) = io::pipe()?;
        let program = self.config.program.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        // Standard output joins standard error, so that what a module prints there ends in the log and not in our protocol.
        let child = Command::new(program)
            .arg("hsm-worker")
            .env_clear()
            .envs(self.config.environment.iter().map(|(name, value)| (name, value)))
            .stdin(OwnedFd::from(workers))
            .stdout(to_log.try_clone()?)
            .stderr(to_log)
            .spawn()?;
        let name = self.config.name.clone();
        thread::Builder::new().name(format!("log-{name}")).spawn(move || forward_log(&name, log))?;
        // Hardened kernels want to be told that nothing in it is run; older ones (before 6.3) do not know the flag.
        let mark = rustix::fs::memfd_create("smkid-mark", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| rustix::fs::memfd_create("smkid-mark", MemfdFlags::CLOEXEC))?;
        Ok((child, socket, mark))
    }

    /// Reads until the worker is gone or must go; says why.
    fn read(&mut self, socket: &mut UnixStream, pid: u32, to_write: mpsc::Receiver<Outgoing>) -> HsmError {
        let deadline = self.config.call_deadline;
        let overrun = |call: &str, limit: Duration| HsmError::Overrun {
            call: call.to_owned(),
            deadline_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let mut to_write = Some(to_write);
        let mut limit = deadline * ACTIVATION_DEADLINES;
        let mut ending = None;
        let mut buffer = Vec::new();
        // Any frame is a sign of life, and `watch` in the worker sends one each heartbeat.
        if let Err(error) = socket.set_read_timeout(Some(deadline.max(Duration::from_millis(1)))) {
            return HsmError::Protocol { found: error.to_string() };
        }
        loop {
            let message = protocol::read_frame(socket, &mut buffer).and_then(protocol::decode);
            let result = match message {
                Ok(FromWorker::Ready(report)) => {
                    let Some(to_write) = to_write.take() else {
                        return HsmError::Protocol { found: "ready twice".to_owned() };
                    };
                    limit = deadline;
                    for warning in &report.warnings {
                        tracing::warn!(token = %self.config.name, worker = pid, "{warning}");
                    }
                    match self.start_writer(socket, to_write) {
                        Ok(()) => self.tell(Ok((pid, report))),
                        Err(error) => return spawn_failed(error),
                    }
                    Ok(())
                }
                Ok(FromWorker::Refused(error)) => return error,
                Ok(FromWorker::Answers(answers)) => self.answers(answers),
                Ok(FromWorker::Fenced { generation, in_flight }) => {
                    self.fenced(generation, &in_flight);
                    Ok(())
                }
                Ok(FromWorker::Managed { call, result }) => self.managed(call, result),
                Ok(FromWorker::Alive { oldest: Some((call, ms)) }) if Duration::from_millis(ms) > limit => {
                    return overrun(&call, limit);
                }
                Ok(FromWorker::Alive { oldest: _ }) => Ok(()),
                Ok(FromWorker::Ending(error)) => {
                    ending = Some(error);
                    Ok(())
                }
                Err(FrameError::Closed) => return ending.unwrap_or_else(|| ended("closed its pipe")),
                Err(FrameError::Silent) => return overrun("the worker, which gave no sign of life,", deadline),
                Err(error @ (FrameError::TooLong { .. } | FrameError::Malformed(_) | FrameError::Io(_))) => {
                    return HsmError::Protocol { found: error.to_string() };
                }
            };
            if let Err(found) = result {
                return HsmError::Protocol { found: found.to_owned() };
            }
        }
    }

    fn start_writer(&self, socket: &UnixStream, to_write: mpsc::Receiver<Outgoing>) -> io::Result<()> {
        let writer = Writer {
            socket: socket.try_clone()?,
            open: self.open.clone(),
            generation: self.generation.clone(),
            next_seq: 0,
            buffer: Vec::with_capacity(2 * BATCH_OCTETS_MAX),
        };
        thread::Builder::new().name(format!("to-{}", self.config.name)).spawn(move || writer.write(&to_write))?;
        Ok(())
    }

    /// Takes answers; an answer to what was not asked, or a second one, is a defect.
    fn answers(&self, answers: Vec<(u64, Answer)>) -> Result<(), &'static str> {
        let mut signed: Vec<(Arc<Batch>, usize, [u8; 64])> = Vec::with_capacity(answers.len());
        {
            let mut open = lock(&self.open);
            let Some(open) = open.as_mut() else { return Err("an answer after the end") };
            for (seq, answer) in answers {
                let (batch, n) = open.answered(seq).ok_or("an answer to what is not open")?;
                match answer {
                    Answer::Signed(r, s) => {
                        let mut signature = [0; 64];
                        signature[..32].copy_from_slice(&r);
                        signature[32..].copy_from_slice(&s);
                        signed.push((batch, n, signature));
                    }
                    Answer::Failed(error) => batch.give(
                        n,
                        match error.certainty() {
                            Certainty::NothingSigned => Outcome::Failed(error),
                            Certainty::SignatureMayExist => Outcome::Unknown(error),
                        },
                    ),
                    Answer::Fenced => batch.give(n, Outcome::NotSigned(NotSigned::Fenced)),
                    Answer::Expired => batch.give(n, Outcome::NotSigned(NotSigned::Expired)),
                    Answer::GivenUp => batch.give(n, Outcome::NotSigned(NotSigned::NotReached)),
                }
            }
        }
        if !signed.is_empty() {
            Pool::shared().submit(move || {
                for (batch, n, signature) in signed {
                    batch.verify(n, signature);
                }
            });
        }
        Ok(())
    }

    fn fenced(&self, generation: u64, in_flight: &[u64]) {
        let mut open = lock(&self.open);
        let Some(open) = open.as_mut() else { return };
        let tags: Vec<u64> = in_flight.iter().filter_map(|seq| open.tag_of(*seq)).collect();
        while open.fences.front().is_some_and(|(waiting, _)| *waiting <= generation) {
            if let Some((generation, answer)) = open.fences.pop_front() {
                let _ = answer.send(Ok(FenceAck { generation, in_flight: tags.clone() }));
            }
        }
    }

    fn managed(&self, call: u64, result: Result<Managed, HsmError>) -> Result<(), &'static str> {
        let finish = lock(&self.open).as_mut().and_then(|open| open.calls.remove(&call));
        finish.ok_or("an answer to a call that is not open")?(result);
        Ok(())
    }

    /// Kills what is left of the worker, then says of all that is open what became of it: the mark, which outlives the
    /// worker, tells what it had begun.
    fn bury(&self, mut child: Child, socket: &UnixStream, mark: &OwnedFd, why: HsmError) -> HsmError {
        let _ = socket.shutdown(Shutdown::Both);
        let ended_by_itself = matches!(why, HsmError::WorkerEnded { .. });
        // One that closed its pipe may be on its way out: its exit status says more than our signal would.
        let gone = (ended_by_itself && wait(&mut child, BURIAL).is_some()) || {
            let _ = child.kill();
            wait(&mut child, BURIAL).is_some()
        };
        let status =
            child.try_wait().ok().flatten().map_or_else(|| "not gone yet".to_owned(), |status| status.to_string());
        let why = match why {
            HsmError::WorkerEnded { .. } => HsmError::WorkerEnded { status },
            other => other,
        };
        let mut octets = [0; 8];
        let begun = match rustix::io::pread(mark, &mut octets, 0) {
            Ok(8) if gone => u64::from_le_bytes(octets),
            Ok(0) if gone => 0,
            // Not gone, or a mark that cannot be read: anything may have been begun.
            Ok(_) | Err(_) => u64::MAX,
        };
        // First the open things, then the state: whoever sets the state to `Up` looks at the former with the latter locked.
        let open = lock(&self.open).take();
        if let Some(inner) = self.inner.upgrade() {
            let mut state = lock(&inner.state);
            if matches!(&*state, State::Up { link, .. } if Arc::ptr_eq(&link.open, &self.open)) {
                *state = State::Down(why.clone());
            }
        }
        let Some(open) = open else { return why };
        let Open { frames, calls, fences } = open;
        let mut unknown = Vec::new();
        for (first_seq, frame) in frames {
            for (offset, answered) in frame.answered.iter().enumerate() {
                if *answered {
                    continue;
                }
                let n = frame.first + offset;
                let outcome = if first_seq + (offset as u64) < begun {
                    unknown.push(frame.batch.items[n].tag);
                    Outcome::Unknown(why.clone())
                } else {
                    Outcome::NotSigned(NotSigned::NotReached)
                };
                frame.batch.give(n, outcome);
            }
        }
        for finish in calls.into_values() {
            finish(Err(why.clone()));
        }
        for (generation, answer) in fences {
            let _ = answer.send(Ok(FenceAck { generation, in_flight: unknown.clone() }));
        }
        why
    }
}

impl Open {
    /// Notes that `seq` was answered; whose it is, if it was open.
    fn answered(&mut self, seq: u64) -> Option<(Arc<Batch>, usize)> {
        let (first_seq, frame) = self.frames.range_mut(..=seq).next_back()?;
        let first_seq = *first_seq;
        let offset = usize::try_from(seq - first_seq).ok()?;
        let answered = frame.answered.get_mut(offset).filter(|answered| !**answered)?;
        *answered = true;
        frame.left -= 1;
        let found = (frame.batch.clone(), frame.first + offset);
        if frame.left == 0 {
            self.frames.remove(&first_seq);
        }
        Some(found)
    }

    fn tag_of(&self, seq: u64) -> Option<u64> {
        let (first_seq, frame) = self.frames.range(..=seq).next_back()?;
        let offset = usize::try_from(seq - first_seq).ok()?;
        frame.answered.get(offset)?;
        Some(frame.batch.items[frame.first + offset].tag)
    }
}

/// Owns the pipe's writing side and the numbers of the items.
struct Writer {
    socket: UnixStream,
    open: Arc<Mutex<Option<Open>>>,
    generation: Arc<AtomicU64>,
    next_seq: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// Writes what comes until the token is dropped or the worker is gone.
    fn write(mut self, to_write: &mpsc::Receiver<Outgoing>) {
        for outgoing in to_write {
            let result = match outgoing {
                Outgoing::Batch(batch) => self.batch(&batch),
                Outgoing::Fence(generation) => self.message(&ToWorker::Fence { generation }),
                Outgoing::Manage(call, what) => self.message(&ToWorker::Manage { call, what }),
                Outgoing::End => self.message(&ToWorker::End),
            };
            if result.is_err() {
                break;
            }
        }
        // The worker's reader sees the end of the pipe and ends; if it hears nothing any more, the keeper sees its silence.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn message(&mut self, message: &ToWorker<'_>) -> Result<(), FrameError> {
        protocol::write_message(&mut self.socket, message, &mut self.buffer)
    }

    /// Writes a batch in frames, each noted as open before its first octet is written.
    fn batch(&mut self, batch: &Arc<Batch>) -> Result<(), FrameError> {
        let mut first = 0;
        while first < batch.items.len() {
            if batch.generation < self.generation.load(Ordering::SeqCst) {
                for n in first..batch.items.len() {
                    batch.give(n, Outcome::NotSigned(NotSigned::Fenced));
                }
                return Ok(());
            }
            let mut octets = 0;
            let fits = batch.items[first..].iter().take(BATCH_ITEMS_MAX).take_while(|item| {
                let before = octets;
                octets += item.octets().len();
                before < BATCH_OCTETS_MAX
            });
            let len = fits.count();
            {
                let mut open = lock(&self.open);
                let Some(open) = open.as_mut() else { return Err(FrameError::Closed) };
                let frame = Frame { batch: batch.clone(), first, answered: vec![false; len], left: len };
                open.frames.insert(self.next_seq, frame);
            }
            for stage in &batch.stages[first..first + len] {
                stage.store(WRITTEN, Ordering::SeqCst);
            }
            let message = ToWorker::Sign {
                first_seq: self.next_seq,
                generation: batch.generation,
                not_after_unix_ms: batch.not_after.unix_ms(),
                key: batch.key.clone(),
                items: batch.items[first..first + len]
                    .iter()
                    .map(|item| Item { kind: item.kind, octets: item.octets().into() })
                    .collect(),
            };
            self.next_seq += len as u64;
            first += len;
            self.message(&message)?;
        }
        Ok(())
    }
}

/// The start of the protocol.
fn greet(socket: &mut UnixStream, mark: &OwnedFd, setup: &Setup, pin: SecretString) -> Result<(), FrameError> {
    protocol::send_mark(socket, mark)?;
    protocol::write_message(socket, setup, &mut Vec::new())?;
    protocol::write_raw(socket, pin.expose_secret().as_bytes())?;
    drop(pin);
    Ok(())
}

/// Waits for a child to be gone, for so long at most.
fn wait(child: &mut Child, at_most: Duration) -> Option<()> {
    let until = Instant::now() + at_most;
    loop {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return Some(());
        }
        if Instant::now() >= until {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Each line of the worker's output becomes a line of our log, cut and with control characters shown.
fn forward_log(name: &TokenName, log: PipeReader) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        match log.by_ref().take(LOG_LINE_LEN_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        tracing::info!(token = %name, "worker: {}", text.trim_end().escape_debug());
    }
}

fn ended(status: &str) -> HsmError {
    HsmError::WorkerEnded { status: status.to_owned() }
}

/// Why there is no worker to sign, when nothing was submitted: not to be taken for what became of earlier items.
fn nothing_signed(why: &HsmError) -> HsmError {
    match why.certainty() {
        Certainty::NothingSigned => why.clone(),
        Certainty::SignatureMayExist => HsmError::Spawn { found: format!("none runs: {why}") },
    }
}

fn spawn_failed(error: impl std::fmt::Display) -> HsmError {
    HsmError::Spawn { found: error.to_string() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
