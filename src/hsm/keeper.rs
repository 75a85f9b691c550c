//! Shell: what serves one living worker, from its start to its burial.
//!
//! Three threads: the *keeper*, which starts the worker, reads from it and buries it; the *writer*; and one that forwards the
//! worker's output to the log. Each item of a [`Batch`] gets one outcome, whichever way the worker goes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use zeroize::Zeroize as _;

use super::TokenReport;
use super::errors::{Certainty, HsmError};
use super::family::Family;
use super::handle::{FenceAck, NotSigned, Outcome, SignResult, ToSign, TokenConfig};
use super::offers::Offers;
use super::pin::PinSource;
use super::protocol::{
    self, Answer, BATCH_ITEMS_MAX, BATCH_OCTETS_MAX, FrameError, FromWorker, Item, Manage, Managed, Setup, ToWorker,
};
use super::verify::{Pool, PublicPoint};
use crate::domain::names::{KeyLabel, TokenName};
use crate::domain::time::Timestamp;

/// Activation is some dozens of calls (load, slots, login, look-ups): this many deadlines for all of it.
const ACTIVATION_DEADLINES: u32 = 6;
/// How long people may take at a token that asks for its PIN by itself: a PIN pad, some cards. No official reference.
const AT_THE_TOKEN_PATIENCE: Duration = Duration::from_secs(180);
/// How long a killed process may take to be gone. One that hangs in the kernel is left, and all it held counts as begun.
const BURIAL: Duration = Duration::from_secs(2);
/// What is forwarded of one line of the worker's standard error.
const LOG_LINE_LEN_MAX: u64 = 1024;
/// Lines of a worker that are forwarded in [`LOG_SPAN`]; more are counted. A module that chatters must not fill the journal.
const LOG_LINES_MAX: u32 = 200;
/// The span over which they are counted.
const LOG_SPAN: Duration = Duration::from_secs(60);

/// What the writer is told to send.
pub(super) enum Outgoing {
    Batch(Arc<Batch>),
    Fence(u64),
    Manage(u64, Manage<'static>),
    End,
}

/// The way to a worker: the writing side of its pipe, and a thread that writes what comes. What is short and first is written at once by
/// whoever sends it: a hop less, of some 40 µs, for a command or a checkpoint that somebody waits for.
#[derive(Clone)]
pub(super) struct Way {
    outgoing: mpsc::Sender<Outgoing>,
    pipe: Arc<Pipe>,
}

/// The writing side of a worker's pipe.
#[derive(Default)]
pub(super) struct Pipe {
    /// What was sent and is not written yet.
    queued: AtomicUsize,
    /// There once the worker is ready.
    writer: Mutex<Option<Writer>>,
}

/// Octets to sign that are written at once. Nothing else is in the pipe then, which has room for twice as many: nobody waits there.
const AT_ONCE_MAX: usize = 64 * 1024;

impl Way {
    /// With what a [`Keeper`] needs of it.
    pub(super) fn new() -> (Self, Arc<Pipe>, mpsc::Receiver<Outgoing>) {
        let (outgoing, to_write) = mpsc::channel();
        let pipe = Arc::<Pipe>::default();
        (Self { outgoing, pipe: pipe.clone() }, pipe, to_write)
    }

    /// Sends it. A writer that is gone drops it: a batch then says of each item that it was not reached.
    pub(super) fn send(&self, outgoing: Outgoing) {
        self.pipe.queued.fetch_add(1, Ordering::SeqCst);
        let _ = self.outgoing.send(outgoing);
    }

    /// Sends a batch, at once if it can be.
    pub(super) fn send_batch(&self, batch: Arc<Batch>) {
        let is_short = batch.items.iter().map(|item| item.octets().len()).sum::<usize>() <= AT_ONCE_MAX;
        if is_short
            && let Ok(mut writer) = self.pipe.writer.try_lock()
            && self.pipe.queued.load(Ordering::SeqCst) == 0
            && let Some(writer) = writer.as_mut().filter(|writer| writer.is_idle())
        {
            if writer.batch(&batch).is_err() {
                // As the thread does. What was noted as open gets its outcome when the worker is buried.
                let _ = writer.socket.shutdown(Shutdown::Write);
            }
        } else {
            self.send(Outgoing::Batch(batch));
        }
    }
}

/// What was sent and is not answered. `None` once the worker is gone: then nothing can be added.
#[derive(Default)]
pub(super) struct Open {
    frames: BTreeMap<u64, Frame>,
    pub(super) calls: HashMap<u64, Finish>,
    pub(super) fences: VecDeque<(u64, oneshot::Sender<Result<FenceAck, HsmError>>)>,
    /// Batches that came when the pipe was broken already.
    unwritten: Vec<Arc<Batch>>,
}

/// Takes the answer to a call.
pub(super) type Finish = Box<dyn FnOnce(Result<Managed, HsmError>) + Send>;

/// A part of a batch that went out as one frame: items `first..first + answered.len()` of it.
struct Frame {
    batch: Arc<Batch>,
    first: usize,
    answered: Vec<bool>,
    left: usize,
}

/// The stages of an item: it waits here; it was written to the pipe; its answer came and is being verified, or was given.
const WAITING: u8 = 0;
const WRITTEN: u8 = 1;
const GIVEN: u8 = 2;

/// What is counted of a token over all calls.
#[derive(Default)]
pub(super) struct Counts {
    /// Items that have no outcome yet.
    pub(super) waiting: AtomicUsize,
    /// Verified signatures of the present worker.
    pub(super) signed: AtomicU32,
    /// Signatures of all workers, as they came.
    pub(super) signed_by_all: AtomicU64,
    /// The sessions that the present worker's signers have.
    pub(super) sessions: Mutex<SessionsHeld>,
    /// The mark of the present worker, where it notes how long it signs.
    pub(super) mark: Mutex<Option<OwnedFd>>,
}

/// How many sessions sign, of those that the configuration wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionsHeld {
    /// Those that are open.
    pub open: u16,
    /// Why a further one could not be opened, if so: another is tried every second.
    pub lacking: Option<String>,
}

/// When whoever waits for outcomes hears of them. Hearing wakes a thread, which costs as much as a tenth of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// As they come, those of one frame together.
    AsTheyCome,
    /// All of a call together: nothing can be done with some of them.
    Together,
}

/// The items of one call, until each has its outcome.
pub(super) struct Batch {
    key: KeyLabel,
    point: PublicPoint,
    generation: u64,
    not_after: Timestamp,
    items: Vec<ToSign>,
    stages: Vec<AtomicU8>,
    told: Told,
    /// Outcomes that were given and are not told yet, and how many items have none.
    given: Mutex<(Vec<SignResult>, usize)>,
    results: UnboundedSender<Vec<SignResult>>,
    counts: Arc<Counts>,
}

impl Batch {
    /// Items that wait to be written; `counts` follows them as they get their outcomes.
    pub(super) fn new(
        key: (KeyLabel, PublicPoint),
        items: Vec<ToSign>,
        generation: u64,
        not_after: Timestamp,
        (results, told): (UnboundedSender<Vec<SignResult>>, Told),
        counts: Arc<Counts>,
    ) -> Self {
        let stages = items.iter().map(|_| AtomicU8::new(WAITING)).collect();
        let (key, point) = key;
        let given = Mutex::new((Vec::new(), items.len()));
        Self { key, point, generation, not_after, items, stages, told, given, results, counts }
    }

    /// Gives an item its outcome; the first one counts.
    fn give(&self, n: usize, outcome: Outcome) {
        if let Some(news) = self.note([(n, outcome)]) {
            news.tell();
        }
    }

    /// Notes the outcomes of some items; the first one of each counts. What is to be told of them now.
    fn note(&self, outcomes: impl IntoIterator<Item = (usize, Outcome)>) -> Option<News> {
        let mut given = lock(&self.given);
        let (held, left) = &mut *given;
        for (n, outcome) in outcomes {
            if self.stages[n].swap(GIVEN, Ordering::SeqCst) == GIVEN {
                continue;
            }
            self.counts.waiting.fetch_sub(1, Ordering::SeqCst);
            if matches!(outcome, Outcome::Signed(_)) {
                self.counts.signed.fetch_add(1, Ordering::Relaxed);
            }
            held.push(SignResult { tag: self.items[n].tag, outcome });
            *left -= 1;
        }
        let is_due = !held.is_empty() && (*left == 0 || self.told == Told::AsTheyCome);
        is_due.then(|| News { to: self.results.clone(), results: std::mem::take(held) })
    }

    /// Verifies a signature with the second implementation; what does not verify is not released.
    fn verify(&self, n: usize, signature: [u8; 64]) -> Outcome {
        if self.point.verifies(self.items[n].octets(), &signature) {
            Outcome::Signed(signature)
        } else {
            Outcome::Unknown(HsmError::WrongSignature(self.key.clone()))
        }
    }
}

/// Outcomes, and whom to tell them.
struct News {
    to: UnboundedSender<Vec<SignResult>>,
    results: Vec<SignResult>,
}

impl News {
    fn tell(self) {
        // A caller that no longer listens has lost interest, not its records: those were written before.
        let _ = self.to.send(self.results);
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

pub(super) type Ready = Result<(u32, TokenReport), HsmError>;

pub(super) struct Keeper {
    pub(super) config: TokenConfig,
    /// Told why, when the worker is gone: so that the handle knows before anybody hears of an outcome.
    pub(super) gone: Box<dyn Fn(&HsmError) + Send>,
    pub(super) open: Arc<Mutex<Option<Open>>>,
    pub(super) generation: Arc<AtomicU64>,
    /// Where it is told how many sessions sign.
    pub(super) counts: Arc<Counts>,
    /// Where it is kept that the PIN was offered, and what came of it.
    pub(super) offers: Arc<Offers>,
    /// Where the writing side of the worker's pipe goes once it is ready.
    pub(super) pipe: Arc<Pipe>,
    /// Where to say that the worker is ready, until it was said.
    pub(super) ready: Option<mpsc::Sender<Ready>>,
    /// Outcomes that a worker gave because it is about to end. They are told once the handle knows that it has: whoever hears that
    /// something was not submitted may submit it again, and not to this worker.
    pub(super) last_words: Vec<(Arc<Batch>, usize, Outcome)>,
    /// Set by who verifies, once a signature is none: then the worker ends, and that is why.
    pub(super) wrong: Arc<OnceLock<HsmError>>,
}

impl Keeper {
    /// From the worker's first breath to its burial.
    pub(super) fn keep(mut self, setup: &Setup, pin: PinSource, to_write: mpsc::Receiver<Outgoing>) {
        let (child, family, mut socket, mark) = match self.spawn() {
            Ok(made) => made,
            Err(error) => {
                lock(&self.open).take();
                self.tell(Err(spawn_failed(error)));
                return;
            }
        };
        let pid = child.id();
        *lock(&self.counts.mark) = mark.try_clone().ok();
        let why = match greet(&mut socket, &mark, setup) {
            Ok(()) => self.read(&mut socket, pid, pin, to_write),
            Err(error) => HsmError::Protocol { found: error.to_string() },
        };
        let why = self.bury((child, family), &socket, &mark, why);
        match &why {
            HsmError::WorkerEnded { status } if status == "exit status: 0" => {
                tracing::info!(token = %self.config.name, worker = pid, "the worker ended");
            }
            why => tracing::warn!(token = %self.config.name, worker = pid, "{why}"),
        }
        self.tell(Err(why));
    }

    fn tell(&mut self, ready: Ready) {
        if let Some(tell) = self.ready.take() {
            let _ = tell.send(ready);
        }
    }

    fn spawn(&self) -> io::Result<(Child, Family, UnixStream, OwnedFd)> {
        let (socket, workers) = UnixStream::pair()?;
        // A worker that reads nothing must not hold us up either.
        socket.set_write_timeout(Some(self.config.call_deadline))?;
        let (log, to_log) = io::pipe()?;
        let program = self.config.program.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        // Standard output joins standard error, so that what a module prints there ends in the log and not in our protocol.
        let mut command = Command::new(program);
        command
            .arg("hsm-worker")
            .env_clear()
            .envs(self.config.environment.iter().map(|(name, value)| (name, value)))
            // A group of its own: a signal of the terminal does not end it, and what a module starts ends with it.
            .process_group(0)
            .stdin(OwnedFd::from(workers))
            .stdout(to_log.try_clone()?)
            .stderr(to_log);
        let (child, family) = Family::start(|| command.spawn())?;
        // A process that the module made may hold the worker's end of the socket, so that its end alone shows nothing.
        let reading = socket.try_clone()?;
        family.at_death(move || drop(reading.shutdown(Shutdown::Read)))?;
        // Our copies of its ends of the pipes go with the command: then only it holds them.
        drop(command);
        let name = self.config.name.clone();
        thread::Builder::new().name(format!("log-{name}")).spawn(move || forward_log(&name, log))?;
        // Hardened kernels want to be told that nothing in it is run; older ones (before 6.3) do not know the flag.
        let mark = rustix::fs::memfd_create("smkid-mark", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| rustix::fs::memfd_create("smkid-mark", MemfdFlags::CLOEXEC))?;
        Ok((child, family, socket, mark))
    }

    /// Reads until the worker is gone or must go; says why.
    fn read(
        &mut self,
        socket: &mut UnixStream,
        pid: u32,
        pin: PinSource,
        to_write: mpsc::Receiver<Outgoing>,
    ) -> HsmError {
        let deadline = self.config.call_deadline;
        let overrun = |call: &str, limit: Duration| HsmError::Overrun {
            call: call.to_owned(),
            deadline_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let mut to_write = Some(to_write);
        let mut offer = None;
        let at_the_token = if pin.is_protected_path() { AT_THE_TOKEN_PATIENCE } else { Duration::ZERO };
        let activation = deadline * ACTIVATION_DEADLINES + at_the_token;
        let activated_by = Instant::now() + activation;
        let mut pin = Some(pin);
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
                    for warning in &report.warnings {
                        tracing::warn!(token = %self.config.name, worker = pid, "{warning}");
                    }
                    match self.start_writer(socket, to_write) {
                        Ok(()) => self.tell(Ok((pid, report))),
                        Err(error) => return spawn_failed(error),
                    }
                    Ok(())
                }
                Ok(FromWorker::PinWanted { count_low, seal_to }) => {
                    let Some(pin) = pin.take() else {
                        return HsmError::Protocol { found: "asked for the PIN twice".to_owned() };
                    };
                    // First it is had, sealed: what cannot be had was not offered.
                    let answer = match pin.answer(&self.config.name, &self.config.serial, &seal_to) {
                        Ok(answer) => answer,
                        Err(error) => return error,
                    };
                    match self.offers.offer(count_low) {
                        Ok(begun) => offer = Some(begun),
                        Err(withheld) => return withheld,
                    }
                    if let Err(error) = protocol::write_raw(socket, &answer) {
                        return HsmError::Protocol { found: error.to_string() };
                    }
                    Ok(())
                }
                Ok(FromWorker::LoggedIn) => match offer.take() {
                    Some(offer) => {
                        offer.answered(&Ok(()));
                        Ok(())
                    }
                    None => Err("logged in without a PIN"),
                },
                Ok(FromWorker::Refused(error)) => {
                    if let Some(offer) = offer.take() {
                        offer.answered(&Err(error.clone()));
                    }
                    return error;
                }
                Ok(FromWorker::Answers(answers)) => self.answers(socket, answers),
                Ok(FromWorker::Fenced { generation, in_flight }) => {
                    self.fenced(generation, &in_flight);
                    Ok(())
                }
                Ok(FromWorker::Managed { call, result }) => self.managed(call, result),
                Ok(FromWorker::Alive { .. }) if self.wrong.get().is_some() => {
                    return self.wrong.get().cloned().expect("it was just there");
                }
                Ok(FromWorker::Alive { oldest: Some((call, ms)), .. })
                    if Duration::from_millis(ms) > deadline.max(patience(&call)) =>
                {
                    return overrun(&call, deadline.max(patience(&call)));
                }
                Ok(FromWorker::Alive { .. }) if to_write.is_some() && Instant::now() > activated_by => {
                    return overrun("the whole activation", activation);
                }
                Ok(FromWorker::Alive { oldest: _, sessions, lacking }) => {
                    self.note_sessions(pid, SessionsHeld { open: sessions, lacking });
                    Ok(())
                }
                Ok(FromWorker::Ending(error)) => {
                    ending = Some(error);
                    Ok(())
                }
                Err(_) if self.wrong.get().is_some() => return self.wrong.get().cloned().expect("it was just there"),
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

    /// Notes how many sessions sign; the journal is told of each change once, but for the first.
    fn note_sessions(&self, worker: u32, held: SessionsHeld) {
        let mut before = lock(&self.counts.sessions);
        if *before == held {
            return;
        }
        let SessionsHeld { open, lacking } = &held;
        match lacking {
            Some(why) => {
                tracing::warn!(token = %self.config.name, worker, sessions = open, "fewer sessions sign than are wanted: {why}");
            }
            None if before.lacking.is_some() => {
                tracing::info!(token = %self.config.name, worker, sessions = open, "all sessions sign again");
            }
            None => {}
        }
        *before = held;
    }

    fn start_writer(&self, socket: &UnixStream, to_write: mpsc::Receiver<Outgoing>) -> io::Result<()> {
        *lock(&self.pipe.writer) = Some(Writer {
            socket: socket.try_clone()?,
            open: self.open.clone(),
            generation: self.generation.clone(),
            next_seq: 0,
            buffer: Vec::with_capacity(2 * BATCH_OCTETS_MAX),
        });
        let pipe = self.pipe.clone();
        thread::Builder::new().name(format!("to-{}", self.config.name)).spawn(move || pipe.write(&to_write))?;
        Ok(())
    }

    /// Takes answers; an answer to what was not asked, or a second one, is a defect. A signature that does not verify cuts the worker
    /// off: whatever made it is not what signs for this key.
    fn answers(&mut self, socket: &UnixStream, answers: Vec<(u64, Answer)>) -> Result<(), &'static str> {
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
                        batch.counts.signed_by_all.fetch_add(1, Ordering::SeqCst);
                        signed.push((batch, n, signature));
                    }
                    Answer::Failed(error) => {
                        let goes_on = error.class().worker_goes_on();
                        let outcome = match error.certainty() {
                            Certainty::NothingSigned => Outcome::Failed(error),
                            Certainty::SignatureMayExist => Outcome::Unknown(error),
                        };
                        if goes_on {
                            batch.give(n, outcome);
                        } else {
                            self.last_words.push((batch, n, outcome));
                        }
                    }
                    Answer::Fenced => batch.give(n, Outcome::NotSigned(NotSigned::Fenced)),
                    Answer::Expired => batch.give(n, Outcome::NotSigned(NotSigned::Expired)),
                    Answer::GivenUp => self.last_words.push((batch, n, Outcome::NotSigned(NotSigned::NotReached))),
                }
            }
        }
        if !signed.is_empty() {
            let (wrong, socket) = (self.wrong.clone(), socket.try_clone());
            let is_alone = signed.len() == 1;
            let verify = move || {
                // Given together, after the last of all is verified: what is called given is told, whatever a verification might run into.
                // One frame has items of one batch, or of the end of one and the beginning of the next.
                let batches = signed.chunk_by(|(one, ..), (other, ..)| Arc::ptr_eq(one, other));
                let verified: Vec<(Arc<Batch>, Vec<_>)> = batches
                    .map(|of_batch| {
                        let batch = &of_batch[0].0;
                        let verified = of_batch.iter().map(|(_, n, signature)| (*n, batch.verify(*n, *signature)));
                        (Arc::clone(batch), verified.collect())
                    })
                    .collect();
                for (_, outcome) in verified.iter().flat_map(|(_, verified)| verified) {
                    if let Outcome::Unknown(error) = outcome {
                        let _ = wrong.set(error.clone());
                        // Without a handle to it the worker is cut off at its next sign of life.
                        let _ = socket.as_ref().map(|socket| socket.shutdown(Shutdown::Both));
                    }
                }
                let noted = verified.into_iter().map(|(batch, verified)| batch.note(verified));
                let news: Vec<News> = noted.flatten().collect();
                // Let go of before: whoever hears of it goes on to the next commands, which are as many megabytes.
                drop(signed);
                news.into_iter().for_each(News::tell);
            };
            // One alone is verified here: to hand it over takes as long as to verify it, and whoever waits for a checkpoint waits for both.
            if is_alone { verify() } else { Pool::shared().submit(verify) }
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
    /// worker, tells what it had begun, and what it had signed without sending it any more.
    fn bury(
        &mut self,
        (mut child, family): (Child, Family),
        socket: &UnixStream,
        mark: &OwnedFd,
        why: HsmError,
    ) -> HsmError {
        let _ = socket.shutdown(Shutdown::Both);
        family.end_descendants();
        let ended_by_itself = matches!(why, HsmError::WorkerEnded { .. });
        // One that closed its pipe may be on its way out: its exit status says more than our signal would.
        let gone = (ended_by_itself && family.is_dead_within(BURIAL)) || {
            let _ = child.kill();
            family.is_dead_within(BURIAL)
        };
        family.end_group();
        let status =
            child.try_wait().ok().flatten().map_or_else(|| "not gone yet".to_owned(), |status| status.to_string());
        family.end();
        let why = match why {
            HsmError::WorkerEnded { .. } => HsmError::WorkerEnded { status },
            other => other,
        };
        // Not gone, or a mark that cannot be read: anything may have been begun.
        let begun = protocol::read_mark(mark).filter(|_| gone).unwrap_or(u64::MAX);
        let noted = protocol::noted_signatures(mark, self.config.sessions.max(1).into());
        // First the open things, then the word: whoever calls the token up looks at the former with its state locked.
        let open = lock(&self.open).take();
        (self.gone)(&why);
        for (batch, n, outcome) in self.last_words.drain(..) {
            batch.give(n, outcome);
        }
        let Some(open) = open else { return why };
        // What was not written says by itself that it was not reached, once it is let go.
        let Open { frames, calls, fences, unwritten: _ } = open;
        let mut unknown = Vec::new();
        for (first_seq, frame) in frames {
            for (offset, answered) in frame.answered.iter().enumerate() {
                if *answered {
                    continue;
                }
                let (n, seq) = (frame.first + offset, first_seq + offset as u64);
                let signed = noted.get(&seq).map(|signature| frame.batch.verify(n, *signature));
                let outcome = if let Some(signed @ Outcome::Signed(_)) = signed {
                    frame.batch.counts.signed_by_all.fetch_add(1, Ordering::SeqCst);
                    signed
                } else if seq < begun {
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

impl Pipe {
    /// Writes what comes until the token is dropped or the worker is gone.
    fn write(&self, to_write: &mpsc::Receiver<Outgoing>) {
        for outgoing in to_write {
            let mut writer = lock(&self.writer);
            let Some(writer) = writer.as_mut() else { break };
            let result = match outgoing {
                Outgoing::Batch(batch) => writer.batch(&batch),
                Outgoing::Fence(generation) => writer.message(&ToWorker::Fence { generation }),
                Outgoing::Manage(call, what) => writer.message(&ToWorker::Manage { call, what }),
                Outgoing::End => writer.message(&ToWorker::End),
            };
            // Not before: what is written at once comes behind what was sent before it.
            self.queued.fetch_sub(1, Ordering::SeqCst);
            if result.is_err() {
                break;
            }
        }
        // Whoever reads in the worker sees the end of the pipe, and the worker ends; if it hears nothing any more, the keeper sees its silence.
        if let Some(writer) = &*lock(&self.writer) {
            let _ = writer.socket.shutdown(Shutdown::Write);
        }
        for outgoing in to_write {
            if let (Outgoing::Batch(batch), Some(writer)) = (outgoing, &*lock(&self.writer))
                && let Some(open) = lock(&writer.open).as_mut()
            {
                open.unwritten.push(batch);
            }
        }
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
    /// Whether the worker has nothing to sign, so that nothing lies in the pipe.
    fn is_idle(&self) -> bool {
        lock(&self.open).as_ref().is_some_and(|open| open.frames.is_empty())
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
            let sent = self.message(&message);
            if batch.items[first..first + len].iter().any(ToSign::is_secret) {
                // The whole of it: what lies behind the end of this message may be of one before.
                self.buffer.zeroize();
            }
            self.next_seq += len as u64;
            first += len;
            sent?;
        }
        Ok(())
    }
}

/// How long a call may take whatever the deadline is, because people are at it.
fn patience(call: &str) -> Duration {
    if call == protocol::AT_THE_TOKEN { AT_THE_TOKEN_PATIENCE } else { Duration::ZERO }
}

/// The start of the protocol.
fn greet(socket: &mut UnixStream, mark: &OwnedFd, setup: &Setup) -> Result<(), FrameError> {
    protocol::send_mark(socket, mark)?;
    protocol::write_message(socket, setup, &mut Vec::new())
}

/// Each line of the worker's output becomes a line of our log, cut and with control characters shown.
fn forward_log(name: &TokenName, log: PipeReader) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    let (mut since, mut lines, mut dropped) = (Instant::now(), 0_u32, 0_u64);
    loop {
        line.clear();
        match log.by_ref().take(LOG_LINE_LEN_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if since.elapsed() >= LOG_SPAN {
            if dropped > 0 {
                tracing::warn!(token = %name, dropped, "the worker said more than is kept of it");
            }
            (since, lines, dropped) = (Instant::now(), 0, 0);
        }
        lines = lines.saturating_add(1);
        if lines > LOG_LINES_MAX {
            dropped += 1;
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        tracing::info!(token = %name, "worker: {}", text.trim_end().escape_debug());
    }
}

pub(super) fn ended(status: &str) -> HsmError {
    HsmError::WorkerEnded { status: status.to_owned() }
}

pub(super) fn spawn_failed(error: impl std::fmt::Display) -> HsmError {
    HsmError::Spawn { found: error.to_string() }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
