//! Shell: the daemon's side of a token. Starts its worker, watches it, kills it when it overruns, and says what became of each
//! item: signed, failed, not signed or unknown; one of them for each, always.
//!
//! Nothing here needs an async runtime: calls return at once with [`Results`] or a [`Reply`], which can be awaited or waited
//! for on a plain thread (the recorder's, say). What serves a living worker is in keeper.rs.

mod contingency;

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::breaker::{Breaker, Standing};
use super::errors::{Certainty, Class, HsmError};
use super::healer::{self, Healing};
use super::keeper::{Batch, Counts, Keeper, Open, Outgoing, SessionsHeld, Told, Way, ended, lock, spawn_failed};
use super::kinds::Kind;
use super::offers::{Asked, Mark, Offers};
use super::one_time::{PinFor, pin_info};
use super::pin::{self, PinSource};
use super::protocol::{Manage, Managed, OCTETS_LEN_MAX, Setup};
use super::verify::PublicPoint;
use super::{CALLS_MAX, Expectations, ExpectedKey, GENESIS_LABEL, KeyReport, Material, QUEUE_ITEMS_MAX, TokenReport};
use crate::domain::ledger::tokens::TokenHealth;
use crate::domain::names::{Digest, KeyId, KeyLabel, KeyUse, TokenName};
use crate::domain::time::Timestamp;
use crate::wall_clock::wall_clock;

/// The longest time between two signs of life; a quarter of a shorter deadline. A hung call is seen this late at most.
const HEARTBEAT_MAX: Duration = Duration::from_millis(250);
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
    /// Where it is kept, across restarts, that a PIN was offered and what came of it. `None`: nowhere, as at a ceremony.
    pub pin_marks: Option<PathBuf>,
    /// By how many milliseconds the caller's clock is set against this machine's, which the worker reads: behind it if
    /// negative. 0 but in an exercise.
    pub clock_offset_ms: i64,
}

/// One thing to sign.
#[derive(Clone, Debug)]
pub struct ToSign {
    /// The caller's name for it, given back with the outcome. Unique within a call.
    pub tag: u64,
    pub(super) kind: Kind,
    octets: Octets,
    range: Range<usize>,
}

/// What is to be signed, whoever else has it.
#[derive(Clone, Debug)]
enum Octets {
    /// Of a caller that has them anyhow.
    Shared(Arc<Vec<u8>>),
    /// With a secret inside: wiped when the last of us lets go.
    Secret(Arc<Wiped>),
}

/// Octets that no Debug shows.
struct Wiped(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Wiped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} octets with a secret inside", self.0.len())
    }
}

impl ToSign {
    /// The whole of `octets` is what the signature covers.
    pub fn new(tag: u64, kind: Kind, octets: Vec<u8>) -> Self {
        let range = 0..octets.len();
        Self { tag, kind, octets: Octets::Shared(Arc::new(octets)), range }
    }

    /// The signature covers `range` of `octets`, which have a secret inside: a command with the Contingency Symmetric Key. They are
    /// wiped on their way, here and in the worker. A range beyond the octets is `None`.
    pub fn secret(tag: u64, kind: Kind, octets: Zeroizing<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        octets.get(range.clone())?;
        Some(Self { tag, kind, octets: Octets::Secret(Arc::new(Wiped(octets))), range })
    }

    /// Whether nothing of it may be left behind.
    pub(super) const fn is_secret(&self) -> bool {
        matches!(self.octets, Octets::Secret(_))
    }

    /// The signature covers `range` of `octets`; the rest is not sent. A range beyond the octets is `None`.
    pub fn part(tag: u64, kind: Kind, octets: Arc<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        octets.get(range.clone())?;
        Some(Self { tag, kind, octets: Octets::Shared(octets), range })
    }

    pub(super) fn octets(&self) -> &[u8] {
        let octets = match &self.octets {
            Octets::Shared(octets) => octets.as_slice(),
            Octets::Secret(octets) => octets.0.as_slice(),
        };
        &octets[self.range.clone()]
    }
}

/// How many fences a token had seen when something was decided: what is signed on that decision stands behind them all, and
/// every later one stops it. The default is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FencesSeen(pub(super) u64);

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
    /// The attempt failed. No signature exists.
    Failed(HsmError),
    /// Provably never submitted to the token.
    NotSigned(NotSigned),
    /// It was, or may have been, submitted, and no signature came that holds: one may exist.
    Unknown(HsmError),
}

impl Outcome {
    /// Whether the token provably was not asked, and another worker, or another token of the key, may well sign it.
    pub fn is_not_submitted(&self) -> bool {
        match self {
            Self::NotSigned(NotSigned::NotReached) => true,
            Self::Failed(error) => {
                error.certainty() == Certainty::NothingSigned
                    && matches!(error.class(), Class::RetryOnNewSession | Class::LogInAgain | Class::ReplaceWorker)
            }
            Self::Signed(_) | Self::NotSigned(NotSigned::Fenced | NotSigned::Expired) | Self::Unknown(_) => false,
        }
    }

    /// What failed at the token; `None` of what was signed, was stopped, or is not fit to be signed by any token.
    pub fn fault_of_token(&self) -> Option<&HsmError> {
        match self {
            Self::Failed(HsmError::Kind { .. }) | Self::Signed(_) | Self::NotSigned(_) => None,
            Self::Failed(error) | Self::Unknown(error) => Some(error),
        }
    }
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
    verified_with: PublicPoint,
    /// Those that came and were not taken.
    came: std::vec::IntoIter<SignResult>,
    outcomes: UnboundedReceiver<Vec<SignResult>>,
}

impl Results {
    /// The key that each signature was verified with before it was handed out.
    pub const fn verified_with(&self) -> &PublicPoint {
        &self.verified_with
    }

    /// The next one; `None` after the last.
    pub async fn next(&mut self) -> Option<SignResult> {
        if self.came.len() == 0 {
            self.came = self.outcomes.recv().await?.into_iter();
        }
        self.came.next()
    }

    /// The next one, on a plain thread. Panics within an async task.
    pub fn wait_next(&mut self) -> Option<SignResult> {
        if self.came.len() == 0 {
            self.came = self.outcomes.blocking_recv()?.into_iter();
        }
        self.came.next()
    }

    /// All of them, on a plain thread. Panics within an async task.
    pub fn wait_all(mut self) -> Vec<SignResult> {
        std::iter::from_fn(|| self.wait_next()).collect()
    }

    /// The next one where it is due in a moment: looked for that long before this thread sleeps. A thread that sleeps on an idle core is
    /// awake again some 40 µs after it is woken, and as long as it does not sleep the threads on the way to it are not sent to that core.
    pub fn wait_next_awake(&mut self, moment: Duration) -> Option<SignResult> {
        let begun = Instant::now();
        while self.came.len() == 0 && self.outcomes.is_empty() && !self.outcomes.is_closed() && begun.elapsed() < moment
        {
            thread::yield_now();
        }
        self.wait_next()
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
    /// Its worker is gone. [`Token::restart`] brings another; by itself, where it is kept up ([`Token::keep_up`]).
    Down(HsmError),
    /// It takes an operator: [`Token::unlock`], or [`Token::start`] anew, with a PIN.
    Locked(HsmError),
}

/// A handle to one token. Cheap to clone. Dropping the last one ends the worker.
#[derive(Clone)]
pub struct Token(Arc<Inner>);

struct Inner {
    config: TokenConfig,
    /// Kept while the token is active, so that a dead worker can be replaced; gone when it is locked.
    pin: Mutex<Option<PinSource>>,
    expectations: Mutex<Expectations>,
    state: Mutex<State>,
    /// Held while a worker is started or ended, so that there is one at a time.
    changing: Mutex<()>,
    breaker: Mutex<Breaker>,
    healing: Arc<Healing>,
    kept_up: AtomicBool,
    /// Once they could be read.
    offers: Mutex<Option<Arc<Offers>>>,
    generation: Arc<AtomicU64>,
    counts: Arc<Counts>,
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
    way: Way,
    open: Arc<Mutex<Option<Open>>>,
    keeper: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Link {
    /// Whether the worker is gone, although it is not said yet how it went.
    fn is_gone(&self) -> bool {
        lock(&self.open).is_none()
    }
}

impl Token {
    /// A token that was not tried yet: [`Token::restart`] does, or the healer once it is kept up and fails.
    pub fn new(config: TokenConfig, pin: impl Into<PinSource>, expectations: Expectations) -> Self {
        let now = wall_clock().plus_ms(config.clock_offset_ms);
        Self(Arc::new(Inner {
            config,
            pin: Mutex::new(Some(pin.into())),
            expectations: Mutex::new(expectations),
            state: Mutex::new(State::Down(ended("it was not started yet"))),
            changing: Mutex::new(()),
            breaker: Mutex::new(Breaker::new(now)),
            healing: Arc::new(Healing::new()),
            kept_up: AtomicBool::new(false),
            offers: Mutex::default(),
            generation: Arc::default(),
            counts: Arc::default(),
            calls: AtomicU64::new(0),
        }))
    }

    /// Starts a worker, logs in once and checks genesis and keys. Waits for it: call it on a plain thread, or within
    /// `spawn_blocking`.
    ///
    /// The PIN goes over the pipe only, sealed to the worker, and is offered once: when the token refuses it, nothing offers it again until an operator
    /// says so ([`Token::unlock`]; without [`TokenConfig::pin_marks`], until this is called anew).
    pub fn start(
        config: TokenConfig,
        pin: impl Into<PinSource>,
        expectations: Expectations,
    ) -> Result<(Self, TokenReport), HsmError> {
        let token = Self::new(config, pin, expectations);
        let report = token.restart()?;
        Ok((token, report))
    }

    /// From here on its worker is brought back by itself whenever it is gone, with the pauses of the circuit breaker, until the
    /// token is locked or the last handle dropped.
    ///
    /// # Errors
    /// [`HsmError::Spawn`].
    pub fn keep_up(&self) -> Result<(), HsmError> {
        let inner = Arc::downgrade(&self.0);
        let token = move || inner.upgrade().map(Token);
        self.0.kept_up.store(true, Ordering::SeqCst);
        if matches!(&*lock(&self.0.state), State::Down(_)) {
            self.0.healing.after(Duration::ZERO);
        }
        healer::keep_up(&self.0.config.name, self.0.healing.clone(), token).map_err(spawn_failed)
    }

    /// Whether its worker is brought back by itself.
    pub fn is_kept_up(&self) -> bool {
        self.0.kept_up.load(Ordering::SeqCst)
    }

    /// Brings a worker up if there is none: logs in with the PIN as it was had at activation. Waits.
    pub fn restart(&self) -> Result<TokenReport, HsmError> {
        let _changing = lock(&self.0.changing);
        self.settle();
        match &*lock(&self.0.state) {
            State::Up { report, .. } => return Ok(report.clone()),
            State::Locked(why) => return Err(why.clone()),
            State::Down(_) => {}
        }
        lock(&self.0.breaker).trying();
        self.0.counts.signed.store(0, Ordering::SeqCst);
        *lock(&self.0.counts.sessions) = SessionsHeld::default();
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
                lock(&self.0.breaker).up(self.0.now());
                let gone = lock(&link.open).is_none();
                if gone {
                    self.0.fall(&mut state, ended("it ended as soon as it was ready"));
                } else {
                    *state = State::Up { link, report: report.clone() };
                    self.0.healing.rest();
                }
                Ok(report)
            }
            Err(error) => {
                self.0.fall(&mut state, error.clone());
                Err(error)
            }
        }
    }

    /// Waits until it is said how a worker went that is gone.
    fn settle(&self) {
        let gone = match &*lock(&self.0.state) {
            State::Up { link, .. } if link.is_gone() => link.clone(),
            State::Up { .. } | State::Down(_) | State::Locked(_) => return,
        };
        if let Some(keeper) = lock(&gone.keeper).take() {
            let _ = keeper.join();
        }
    }

    /// An operator put the PIN right: it is offered again, once. Where the token is kept up, at once. `asked` is kept with the mark
    /// until [`Token::told`].
    ///
    /// # Errors
    /// [`HsmError::PinMark`]; [`HsmError::Locked`] if it was shut down.
    pub fn unlock(&self, pin: impl Into<PinSource>, asked: Option<Asked>) -> Result<(), HsmError> {
        let _changing = lock(&self.0.changing);
        let mut state = lock(&self.0.state);
        match &*state {
            State::Locked(HsmError::Locked) => return Err(HsmError::Locked),
            State::Up { .. } => {}
            State::Down(_) | State::Locked(_) => {
                *lock(&self.0.pin) = Some(pin.into());
                *state = State::Down(ended("an operator has its login tried again"));
                lock(&self.0.breaker).again(self.0.now());
                self.0.healing.after(Duration::ZERO);
            }
        }
        self.0.offers()?.allow_again(asked)
    }

    /// The ledger was told of the first so many of those who let the PIN be offered again.
    ///
    /// # Errors
    /// [`HsmError::PinMark`].
    pub fn told(&self, count: usize) -> Result<(), HsmError> {
        self.0.offers()?.told(count)
    }

    /// How many signatures it has made, whoever asked: whether it makes progress.
    pub fn signatures(&self) -> u64 {
        self.0.counts.signed_by_all.load(Ordering::SeqCst)
    }

    /// What failed last, and when, although it may be up again.
    pub fn last_failure(&self) -> Option<(Timestamp, HsmError)> {
        lock(&self.0.breaker).last_failure()
    }

    /// How the circuit breaker has it.
    pub fn standing(&self) -> Standing {
        lock(&self.0.breaker).standing()
    }

    /// The changes that the ledger has not been told yet, if it is time to tell it; `now` is the moment of the entry. Whoever asks
    /// records them.
    pub fn to_tell(&self, now: Timestamp) -> Vec<TokenHealth> {
        lock(&self.0.breaker).to_tell(&self.0.config.name, now)
    }

    /// The same, however soon after the last, of a token that is used no longer.
    pub fn last_to_tell(&self) -> Vec<TokenHealth> {
        lock(&self.0.breaker).last_to_tell(&self.0.config.name)
    }

    /// What is known of the offers of its PIN; none if that cannot be read.
    pub fn mark(&self) -> Option<Mark> {
        self.0.offers().ok().map(|offers| offers.mark())
    }

    /// Where the token is and how its worker is run.
    pub fn config(&self) -> &TokenConfig {
        &self.0.config
    }

    /// Signs items with a key: one outcome for each, as they come.
    ///
    /// # Units
    /// `not_after` is read again before each C_Sign: at most that moment, by the wall clock as
    /// [`TokenConfig::clock_offset_ms`] sets it.
    ///
    /// # Errors
    /// All of them mean that nothing was signed: [`HsmError::KeyUnknown`], [`HsmError::QueueFull`], [`HsmError::TooLong`],
    /// or why there is no worker.
    pub fn sign(&self, key: &KeyLabel, items: Vec<ToSign>, not_after: Timestamp) -> Result<Results, HsmError> {
        // Read before the state, so that a fence raised meanwhile holds for this call too.
        self.sign_decided(self.fences_seen(), key, items, not_after)
    }

    /// The fences raised so far: ask where the decision is taken.
    pub fn fences_seen(&self) -> FencesSeen {
        FencesSeen(self.0.generation.load(Ordering::SeqCst))
    }

    /// [`Token::sign`] for what was decided earlier: a fence raised since then stops it, although it was not submitted yet.
    ///
    /// # Errors
    /// Those of [`Token::sign`].
    pub fn sign_decided(
        &self,
        fences: FencesSeen,
        key: &KeyLabel,
        items: Vec<ToSign>,
        not_after: Timestamp,
    ) -> Result<Results, HsmError> {
        let (results, outcomes) = unbounded_channel();
        let verified_with = self.sign_into(fences, key, items, not_after, (results, Told::AsTheyCome))?;
        Ok(Results { verified_with, came: Vec::new().into_iter(), outcomes })
    }

    /// [`Token::sign_decided`], with the outcomes given to whoever holds the other end of `results`. Answers the key that they are verified with.
    ///
    /// # Errors
    /// Those of [`Token::sign`]; then nothing is given.
    pub(super) fn sign_into(
        &self,
        FencesSeen(generation): FencesSeen,
        key: &KeyLabel,
        items: Vec<ToSign>,
        not_after: Timestamp,
        results: (UnboundedSender<Vec<SignResult>>, Told),
    ) -> Result<PublicPoint, HsmError> {
        if let Some(long) = items.iter().find(|item| item.octets().len() > OCTETS_LEN_MAX) {
            return Err(HsmError::TooLong { tag: long.tag, len: long.octets().len(), limit: OCTETS_LEN_MAX });
        }
        let (way, point) = {
            let state = lock(&self.0.state);
            match &*state {
                State::Up { link, .. } if link.is_gone() => return Err(nothing_signed(&gone())),
                State::Up { link, report } => {
                    let report = report.keys.iter().find(|found| found.label == *key);
                    let point = report.and_then(|found| PublicPoint::from_spki(&found.spki));
                    let point = point.ok_or_else(|| HsmError::KeyUnknown(key.clone()))?;
                    (link.way.clone(), point)
                }
                State::Down(why) | State::Locked(why) => return Err(nothing_signed(why)),
            }
        };
        let more = items.len();
        let admitted = self.0.counts.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiting| {
            waiting.checked_add(more).filter(|all| *all <= QUEUE_ITEMS_MAX)
        });
        if let Err(waiting) = admitted {
            return Err(HsmError::QueueFull { waiting, more, limit: QUEUE_ITEMS_MAX });
        }
        let not_after = not_after.plus_ms(-self.0.config.clock_offset_ms);
        let batch = Batch::new((key.clone(), point), items, generation, not_after, results, self.0.counts.clone());
        way.send_batch(Arc::new(batch));
        Ok(point)
    }

    /// Raises the fence: of all that was submitted or decided ([`Token::fences_seen`]) before, nothing that is not yet begun will be. Answered at once, whatever the
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
        link.way.send(Outgoing::Fence(generation));
        Reply(reply)
    }

    /// The value of the data object with this label, if there is one.
    pub fn read_data(&self, label: &str) -> Reply<Option<Vec<u8>>> {
        self.manage(Manage::ReadData { label: label.to_owned().into() }, |managed| {
            if let Managed::Data(found) = managed { Some(found.map(serde_bytes::ByteBuf::into_vec)) } else { None }
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
        self.manage(Manage::GenerateKey { label, id, use_ }, move |managed| {
            let Managed::Key(key) = managed else { return None };
            if let Some(inner) = inner.upgrade() {
                inner.learn(&key);
            }
            Some(key)
        })
    }

    /// Destroys the key pair with this CKA_ID and this public key, and looks whether it is gone. A pair with another public key is
    /// left as it is; that there is none is no error, so what was cut off can be done again.
    /// With `material`, what stands beside a contingency key goes first.
    pub fn destroy_key(&self, label: KeyLabel, id: KeyId, spki: Digest, material: Option<Material>) -> Reply<()> {
        self.manage(Manage::DestroyKey { label, id, spki, material }, done)
    }

    /// Looks every key up and checks it anew.
    pub fn list_keys(&self) -> Reply<Vec<KeyReport>> {
        self.manage(Manage::ListKeys, |managed| if let Managed::Keys(keys) = managed { Some(keys) } else { None })
    }

    /// Changes the PIN of the token, from here on for this handle too. Waits.
    ///
    /// # Errors
    /// What C_SetPIN answered; [`HsmError::WorkerEnded`] and the like leave open whether the PIN was changed.
    pub fn set_pin(&self, old: &SecretString, new: SecretString) -> Result<(), HsmError> {
        let seal_to =
            self.manage(Manage::PinKey, |managed| if let Managed::SealTo(key) = managed { Some(key) } else { None });
        let seal_to = seal_to.wait()?;
        let config = &self.0.config;
        let both = pin::changed(old, &new)?;
        let sealed = seal_to.seal(&pin_info(PinFor::Change, &config.name, &config.serial), &both);
        let sealed = sealed.map_err(|error| HsmError::Protocol { found: error.to_string() })?;
        let done = self.manage(Manage::SetPin { sealed: sealed.into() }, done);
        done.wait()?;
        if let Some(held) = &mut *lock(&self.0.pin) {
            *held = new.into();
        }
        Ok(())
    }

    /// What the token was found to be at activation, asked of the worker: an answer shows that it serves calls.
    pub fn token_info(&self) -> Reply<TokenReport> {
        self.manage(Manage::TokenInfo, |managed| if let Managed::Info(report) = managed { Some(report) } else { None })
    }

    /// How the token stands.
    pub fn condition(&self) -> Condition {
        match &*lock(&self.0.state) {
            State::Up { link, .. } if link.is_gone() => Condition::Down(gone()),
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

    /// The sessions that sign, of those that are wanted; `None` without a worker.
    pub fn sessions(&self) -> Option<SessionsHeld> {
        match &*lock(&self.0.state) {
            State::Up { .. } => Some(lock(&self.0.counts.sessions).clone()),
            State::Down(_) | State::Locked(_) => None,
        }
    }

    /// How long the sessions of the present worker have been in `C_Sign`, all together, and how many they may be; `None` without a
    /// worker. Another worker begins from nothing.
    pub fn busy(&self) -> Option<(Duration, u16)> {
        let sessions = self.0.config.sessions.max(1);
        let State::Up { .. } = &*lock(&self.0.state) else { return None };
        let mark = lock(&self.0.counts.mark);
        let busy_ns = super::protocol::noted_busy(mark.as_ref()?, sessions.into());
        Some((Duration::from_nanos(busy_ns), sessions))
    }

    /// The worker's process id, for status; `None` without one.
    pub fn worker_pid(&self) -> Option<u32> {
        match &*lock(&self.0.state) {
            State::Up { link, .. } => Some(link.pid),
            State::Down(_) | State::Locked(_) => None,
        }
    }

    /// By how many milliseconds the caller's clock is set: [`TokenConfig::clock_offset_ms`].
    pub fn clock_offset_ms(&self) -> i64 {
        self.0.config.clock_offset_ms
    }

    /// What configuration calls it.
    pub fn name(&self) -> &TokenName {
        &self.0.config.name
    }

    /// Whether both are handles to one and the same.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Locks the token: what is in flight is finished, the rest is not signed, the worker ends and the PIN is forgotten. Waits, at
    /// most for the call deadline.
    pub fn shutdown(&self) {
        self.0.healing.end();
        let _changing = lock(&self.0.changing);
        lock(&self.0.pin).take();
        let state = std::mem::replace(&mut *lock(&self.0.state), State::Locked(HsmError::Locked));
        match state {
            State::Up { link, .. } => {
                // What was not written yet will not be, so that the word to end does not wait behind it.
                self.0.generation.fetch_add(1, Ordering::SeqCst);
                link.way.send(Outgoing::End);
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
        self.manage(what, done)
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
            if open.calls.len() >= CALLS_MAX {
                let waiting = open.calls.len();
                return Reply::now(Err(HsmError::QueueFull { waiting, more: 1, limit: CALLS_MAX }));
            }
            let finish = move |result: Result<Managed, HsmError>| {
                let result = result.and_then(|managed| {
                    read(managed).ok_or_else(|| HsmError::Protocol { found: "an answer to another call".to_owned() })
                });
                let _ = answer.send(result);
            };
            open.calls.insert(call, Box::new(finish));
        }
        link.way.send(Outgoing::Manage(call, what));
        Reply(reply)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, {:?})", self.0.config.name, self.condition())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.healing.end();
    }
}

impl Inner {
    /// Now, by the clock that entries go by.
    fn now(&self) -> Timestamp {
        wall_clock().plus_ms(self.config.clock_offset_ms)
    }

    /// The offers of this token's PIN.
    fn offers(&self) -> Result<Arc<Offers>, HsmError> {
        let mut offers = lock(&self.offers);
        if let Some(known) = &*offers {
            return Ok(known.clone());
        }
        let TokenConfig { pin_marks, serial, label, .. } = &self.config;
        let found = Offers::open(pin_marks.as_deref(), (serial, label))?;
        *offers = Some(found.clone());
        Ok(found)
    }

    /// There is no worker, and this is why: it takes an operator, or is tried again after a pause.
    fn fall(&self, state: &mut State, why: HsmError) {
        let mut breaker = lock(&self.breaker);
        if why.locks() {
            lock(&self.pin).take();
            breaker.locked(self.now(), &why);
            self.healing.rest();
            *state = State::Locked(why);
        } else {
            let name = Digest::of(self.config.name.as_str().as_bytes());
            let salt = u64::from(name.octets()[0]) + u64::from(breaker.standing().failures) * 37;
            let pause = breaker.failed(self.now(), &why, self.counts.signed.load(Ordering::SeqCst), salt);
            self.healing.after(pause);
            *state = State::Down(why);
        }
    }

    /// A key made since activation is one to be found again by the next worker.
    fn learn(&self, key: &KeyReport) {
        if let State::Up { report, .. } = &mut *lock(&self.state) {
            report.keys.push(key.clone());
        }
        let KeyReport { label, id, use_, spki } = key.clone();
        lock(&self.expectations).keys.push(ExpectedKey {
            label,
            id,
            use_,
            spki: Some(spki),
            cloned: false,
            material: None,
        });
    }
}

/// Starts a keeper and waits until its worker is ready, or is not.
fn launch(inner: &Arc<Inner>) -> Result<(Arc<Link>, TokenReport), HsmError> {
    let pin = lock(&inner.pin).clone().ok_or(HsmError::Locked)?;
    pin.check()?;
    // What is known of offers is of the user's PIN.
    let offers = if pin.is_officers() {
        Offers::open(None, (&inner.config.serial, &inner.config.label))?
    } else {
        inner.offers()?
    };
    // No worker is needed to know that no PIN may be offered.
    if let Some(why) = offers.mark().withheld() {
        return Err(HsmError::PinWithheld { why });
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
            protected_path: pin.is_protected_path(),
            officer: pin.is_officers(),
            keys,
            genesis,
            origin,
        }
    };
    let (way, pipe, to_write) = Way::new();
    let open = Arc::new(Mutex::new(Some(Open::default())));
    let (tell, ready) = mpsc::channel();
    let keeper = Keeper {
        config: config.clone(),
        gone: tell_gone(Arc::downgrade(inner), open.clone()),
        open: open.clone(),
        generation: inner.generation.clone(),
        counts: inner.counts.clone(),
        offers,
        pipe,
        ready: Some(tell),
        last_words: Vec::new(),
        wrong: Arc::default(),
    };
    // The parent-death signal goes by the *thread* that made the worker, so that must be one that lives as long as it.
    let keeper = thread::Builder::new()
        .name(format!("hsm-{}", config.name))
        .spawn(move || keeper.keep(&setup, pin, to_write))
        .map_err(spawn_failed)?;
    let (pid, report) = ready.recv().unwrap_or_else(|_| Err(ended("its keeper ended")))?;
    Ok((Arc::new(Link { pid, way, open, keeper: Mutex::new(Some(keeper)) }), report))
}

/// Of a call that answers nothing but that it is done.
#[expect(clippy::needless_pass_by_value, reason = "it is what `manage` gives")]
fn done(managed: Managed) -> Option<()> {
    matches!(managed, Managed::Done).then_some(())
}

/// What the keeper calls when its worker is gone: the token is down, unless it is up with another one already, or locked.
fn tell_gone(inner: Weak<Inner>, open: Arc<Mutex<Option<Open>>>) -> Box<dyn Fn(&HsmError) + Send> {
    Box::new(move |why| {
        if let Some(inner) = inner.upgrade() {
            let mut state = lock(&inner.state);
            if matches!(&*state, State::Up { link, .. } if Arc::ptr_eq(&link.open, &open)) {
                inner.fall(&mut state, why.clone());
            }
        }
    })
}

/// Of a worker that is gone, until it is said how it went.
fn gone() -> HsmError {
    ended("just now")
}

/// Why there is no worker to sign, when nothing was submitted: not to be taken for what became of earlier items.
pub(super) fn nothing_signed(why: &HsmError) -> HsmError {
    match why.certainty() {
        Certainty::NothingSigned => why.clone(),
        Certainty::SignatureMayExist => HsmError::Spawn { found: format!("none runs: {why}") },
    }
}
