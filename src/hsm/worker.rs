//! Shell: the worker process, `smkid hsm-worker`. One for each token; it alone loads the vendor's module.
//!
//! Threads: each `sign-n` owns one session, and they read the pipe in turns; the main thread reads while none of them is free (turns.rs);
//! `watch` gives signs of life, whatever the module does; `post` sends answers together that come together; `manage` does everything
//! but signing, one call after the other.
//!
//! Before an item is begun the *mark* is raised above its number (memory shared with the daemon that outlives this
//! process). So whatever kills this process, items not below the mark were provably never submitted. What was signed is noted behind it
//! until it was sent, so that only what the module had in hand is unknown.

mod turns;

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::digest;
use rustix::process::Signal;

use self::turns::{Claimed, Pipe, Queue};
use super::contingency::{Material, release_info};
use super::errors::{Certainty, Class, HsmError};
use super::hardening;
use super::kinds::{self, Facts};
use super::one_time::{OneTimeKey, PinFor, SealTo, pin_info};
use super::pin;
use super::pkcs11::contingency::WrappingKey;
use super::pkcs11::{KeyHandle, LoggedIn, Login, Signer};
use super::protocol::{self, Answer, FrameError, FromWorker, GROUP_LEN_MAX, Manage, Managed, Setup};
use super::{ExpectedKey, KeyReport, TokenReport};
use crate::domain::names::{Digest, KeyId, KeyLabel, KeyUse, Origin};

/// How long an answer may wait for those of other signers while there is more to sign. Each frame wakes the daemon four times over, and
/// on a machine with few cores each of those takes the core from a signer: at 16 sessions of 5 ms, a frame for each answer cost
/// 3 % of all signatures. What a crash meets in a group was noted behind the mark.
const GROUP_AGE_MAX: Duration = Duration::from_millis(4);
/// Answers in a frame: some 80 octets each, far below the greatest frame.
const FRAME_ANSWERS_MAX: usize = 1_024;
/// How often a signer without a session tries to open one, while others sign.
const SESSION_EVERY: Duration = Duration::from_secs(1);
/// How long all signers may be without a session before the worker gives up: another process may leave some.
const SESSION_PATIENCE: Duration = Duration::from_secs(2);
/// The hidden subcommand. Its standard input is the pipe to the daemon; it takes no arguments and reads no environment.
pub fn main() -> ExitCode {
    let warnings = harden();
    match run(warnings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is forwarded to the daemon's log.
            eprintln!("hsm-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Leaves nothing of the PIN behind, and does not outlive the daemon.
fn harden() -> Vec<String> {
    let mut warnings = hardening::harden();
    // Whatever the module starts, and lets go, is found beneath this process when it is ended.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        warnings.push(format!("no subreaper: {error}"));
    }
    warnings
}

/// Why the worker ends other than in peace.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("the pipe to the daemon: {0}")]
    Pipe(#[from] FrameError),
    #[error("the pipe to the daemon: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Stranger(#[from] protocol::Stranger),
    #[error("the PIN: {0}")]
    Pin(&'static str),
    #[error("{0}")]
    Hsm(HsmError),
}

fn run(warnings: Vec<String>) -> Result<(), WorkerError> {
    let mut from_daemon = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // What the module or a program started by it reads or inherits as standard input is nothing.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?).map_err(io::Error::from)?;
    let mark = protocol::receive_mark(&from_daemon)?;
    let mut buffer = Vec::new();
    let setup: Setup = protocol::decode(protocol::read_frame(&mut from_daemon, &mut buffer)?)?;
    protocol::admit(&setup.version, setup.parent_pid)?;

    let shared = Arc::new(Shared::new(&setup, mark, from_daemon.try_clone()?));
    shared.clone().watch(Duration::from_millis(setup.heartbeat_ms.into()));
    shared.clone().post()?;

    let opened = shared.calling(MANAGE_SLOT, "activation", || {
        let watching = shared.clone();
        let watch = Box::new(move |call| watching.begin(MANAGE_SLOT, call));
        let lost = |error: WorkerError| HsmError::Protocol { found: error.to_string() };
        let token = LoggedIn::open(&setup, watch, |count_low| {
            let key = OneTimeKey::make();
            let wanted = FromWorker::PinWanted { count_low, seal_to: key.seal_to().clone() };
            shared.send(&wanted).map_err(|error| lost(error.into()))?;
            read_login(&mut from_daemon, key, &setup).map_err(lost)
        })?;
        shared.send(&FromWorker::LoggedIn).map_err(|error| lost(error.into()))?;
        let checked = token.check(&setup)?;
        Ok::<_, HsmError>((token, checked))
    });
    let (token, (mut report, handles)) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            shared.send(&FromWorker::Refused(error.clone()))?;
            return Err(WorkerError::Hsm(error));
        }
    };
    report.warnings.extend(warnings);
    for key in &report.keys {
        shared.learn(key, handles[&key.label]);
    }

    // Trap: forking or making processes after C_Initialize hangs children; this process makes none, only threads.
    let signers: Vec<_> = (0..report.sessions)
        .map(|n| {
            let (shared, signer) = (shared.clone(), token.signer());
            thread::Builder::new().name(format!("sign-{n}")).spawn(move || shared.sign(usize::from(n), signer))
        })
        .collect::<io::Result<_>>()?;
    shared.send(&FromWorker::Ready(report.clone()))?;
    let (calls, waiting) = mpsc::channel();
    let manager = {
        let shared = shared.clone();
        thread::Builder::new()
            .name("manage".to_owned())
            .spawn(move || shared.manage(token, &setup, &report, &waiting))?
    };

    let ended = shared.read(Pipe { from_daemon, buffer: buffer.into(), calls });

    // Trap: C_Finalize, or the end of the process, beside a running call crashes. So everyone is back before either.
    shared.close();
    for signer in signers {
        let _ = signer.join();
    }
    // Nobody reads any more: so the manager has its last call.
    drop(lock(&shared.pipe).take());
    shared.send_held();
    shared.give_up();
    if let Some(error) = lock(&shared.broken).take() {
        let _ = shared.send(&FromWorker::Ending(error));
    }
    if let Ok(token) = manager.join() {
        // The daemon has what it needs; a module that cannot end well has nothing left to spoil.
        if let Err(error) = token.close() {
            eprintln!("hsm-worker: {error}");
        }
    }
    match ended {
        Ok(()) | Err(FrameError::Closed) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The PIN comes sealed, in a frame of its own, and is open in memory that is wiped alone; or the token asks by itself.
fn read_login(from: &mut UnixStream, key: OneTimeKey, setup: &Setup) -> Result<Login, WorkerError> {
    let mut buffer = Vec::new();
    let sealed = protocol::read_frame(from, &mut buffer)?;
    if setup.protected_path {
        return if sealed.is_empty() { Ok(Login::AtTheToken) } else { Err(WorkerError::Pin("the token was to ask")) };
    }
    let what = if setup.officer { PinFor::Officer } else { PinFor::Login };
    let pin = key.open(&pin_info(what, &setup.name, &setup.serial), sealed);
    let pin = pin.map_err(|_| WorkerError::Pin("it was not sealed to this worker, or altered"))?;
    pin::secret(&pin).map(Login::Pin).ok_or(WorkerError::Pin("it is not UTF-8"))
}

/// A key that may be signed with.
struct Key {
    label: KeyLabel,
    use_: KeyUse,
    handle: KeyHandle,
    spki: Vec<u8>,
}

/// A call of the module, seen from outside: when it began, in milliseconds since the worker started, plus one; 0 for none.
#[derive(Default)]
struct Slot {
    since: AtomicU64,
    /// The number of the item being signed plus one; 0 for none.
    seq: AtomicU64,
    /// How long the signer has been in `C_Sign` in all.
    busy_ns: AtomicU64,
    /// Whether the signer has a session.
    has_session: AtomicBool,
    /// What the signer has not sent yet, at most [`GROUP_LEN_MAX`] answers.
    group: Mutex<Vec<(u64, Answer)>>,
    what: Mutex<&'static str>,
}

/// The slot of `manage` and of activation; signer n has n + 1.
const MANAGE_SLOT: usize = 0;

struct Shared {
    started: Instant,
    call_deadline: Duration,
    slots: Vec<Slot>,
    generation: AtomicU64,
    closing: AtomicBool,
    /// Why the worker gives up, once it does.
    broken: Mutex<Option<HsmError>>,
    /// Why the last signer that wanted a session got none; none once one got its.
    lacking: Mutex<Option<String>>,
    queue: Mutex<Queue>,
    /// The reading side of the pipe, locked by whoever reads; none at the start and at the end.
    pipe: Mutex<Option<Pipe>>,
    /// For signers with a session: something came to be signed, or the pipe is to be read, or the worker is closing.
    come: Condvar,
    /// For the main thread, which reads when no signer is free: it is to look again, or the worker is closing.
    spare: Condvar,
    /// For signers without one, which pause: something came and nobody can sign it, or the worker is closing.
    needed: Condvar,
    mark: OwnedFd,
    keys: Mutex<BTreeMap<KeyLabel, Arc<Key>>>,
    origin: Option<Origin>,
    to_daemon: Mutex<(UnixStream, Vec<u8>)>,
    /// Whether some signer holds back an answer that `post` does not know of yet.
    held: AtomicBool,
    /// The thread of `post`, to be woken.
    post: OnceLock<thread::Thread>,
}

impl Shared {
    fn new(setup: &Setup, mark: OwnedFd, to_daemon: UnixStream) -> Self {
        Self {
            started: Instant::now(),
            call_deadline: Duration::from_millis(setup.call_deadline_ms.into()),
            slots: (0..=setup.sessions).map(|_| Slot::default()).collect(),
            generation: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            broken: Mutex::new(None),
            lacking: Mutex::new(None),
            queue: Mutex::new(Queue::unread()),
            pipe: Mutex::default(),
            come: Condvar::new(),
            spare: Condvar::new(),
            needed: Condvar::new(),
            mark,
            keys: Mutex::default(),
            origin: setup.origin.clone(),
            to_daemon: Mutex::new((to_daemon, Vec::new())),
            held: AtomicBool::new(false),
            post: OnceLock::new(),
        }
    }

    fn send(&self, message: &FromWorker) -> Result<(), FrameError> {
        let mut to_daemon = lock(&self.to_daemon);
        let (socket, buffer) = &mut *to_daemon;
        protocol::write_message(socket, message, buffer)
    }

    /// Sends what signers hold back. The pipe is locked first: whatever is sent after this returned comes behind all that was held
    /// before it was called.
    fn send_held(&self) {
        let mut to_daemon = lock(&self.to_daemon);
        let (socket, buffer) = &mut *to_daemon;
        let mut held: Vec<(u64, Answer)> = Vec::new();
        for slot in &self.slots {
            held.append(&mut lock(&slot.group));
        }
        while !held.is_empty() {
            let rest = held.split_off(held.len().min(FRAME_ANSWERS_MAX));
            // A daemon that is gone needs no answer; whoever reads sees it gone, and this process ends.
            let _ = protocol::write_message(socket, &FromWorker::Answers(held), buffer);
            held = rest;
        }
    }

    /// Holds an answer back for `post`, or sends what this signer holds once that is as much as can be noted, or nothing waits to be signed.
    fn hold(&self, n: usize, seq: u64, answer: Answer) {
        let has_more = self.has_more();
        let mut group = lock(&self.slots[n + 1].group);
        if let Answer::Signed(r, s) = &answer {
            let busy_ns = self.slots[n + 1].busy_ns.load(Ordering::Relaxed);
            protocol::note_signature(&self.mark, (n, group.len()), seq, (r, s), busy_ns);
        }
        group.push((seq, answer));
        if has_more && group.len() < GROUP_LEN_MAX {
            drop(group);
            if !self.held.swap(true, Ordering::SeqCst)
                && let Some(post) = self.post.get()
            {
                post.unpark();
            }
        } else {
            drop(group);
            self.send_held();
        }
    }

    /// A thread of its own sends what signers hold back, whatever the module is doing.
    fn post(self: Arc<Self>) -> io::Result<()> {
        let shared = self.clone();
        let post = thread::Builder::new().name("post".to_owned()).spawn(move || {
            loop {
                while !shared.held.swap(false, Ordering::SeqCst) {
                    thread::park();
                }
                thread::sleep(GROUP_AGE_MAX);
                shared.send_held();
            }
        })?;
        // Nobody signs yet.
        let _ = self.post.set(post.thread().clone());
        Ok(())
    }

    fn learn(&self, report: &KeyReport, handle: KeyHandle) {
        let KeyReport { label, id: _, use_, spki } = report.clone();
        lock(&self.keys).insert(label.clone(), Arc::new(Key { label, use_, handle, spki }));
    }

    /// A key that is destroyed is not signed with any more.
    fn forget(&self, spki: Digest) {
        lock(&self.keys).retain(|_, key| Digest::of(&key.spki) != spki);
    }

    /// Does `call`, so that `watch` can say how long it has been running.
    fn calling<T>(&self, slot: usize, what: &'static str, call: impl FnOnce() -> T) -> T {
        self.begin(slot, what);
        let result = call();
        self.slots[slot].since.store(0, Ordering::SeqCst);
        result
    }

    /// From here on it is this call that runs, and for no time yet.
    fn begin(&self, slot: usize, what: &'static str) {
        let slot = &self.slots[slot];
        *lock(&slot.what) = what;
        slot.since.store(self.now_ms() + 1, Ordering::SeqCst);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// A thread of its own says that the worker lives, and which call of the module is the oldest; the daemon judges.
    fn watch(self: Arc<Self>, every: Duration) {
        thread::spawn(move || {
            loop {
                let now = self.now_ms();
                let oldest = self
                    .slots
                    .iter()
                    .filter_map(|slot| match slot.since.load(Ordering::SeqCst) {
                        0 => None,
                        since => Some((now.saturating_sub(since - 1), *lock(&slot.what))),
                    })
                    .max();
                let oldest = oldest.map(|(ms, what)| (what.to_owned(), ms));
                let with_session = self.slots.iter().filter(|slot| slot.has_session.load(Ordering::SeqCst)).count();
                let sessions = u16::try_from(with_session).unwrap_or(u16::MAX);
                let lacking = lock(&self.lacking).clone();
                if self.send(&FromWorker::Alive { oldest, sessions, lacking }).is_err() {
                    return;
                }
                thread::sleep(every);
            }
        });
    }

    /// From now on nothing new is begun. Whoever does not come back from the module within the deadline of a call takes the
    /// process with it: to end beside a running call would crash inside the module anyhow.
    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake_all(&lock(&self.queue));
        let grace = self.call_deadline;
        thread::spawn(move || {
            thread::sleep(grace);
            eprintln!("hsm-worker: the module did not return within {grace:?}; killed");
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        });
    }

    /// Gives up because of a fault that another item would meet too. Whoever reads comes to the end of the pipe, whose reading side is
    /// closed here.
    fn break_off(&self, error: HsmError) {
        lock(&self.broken).get_or_insert(error);
        self.closing.store(true, Ordering::SeqCst);
        let _ = lock(&self.to_daemon).0.shutdown(Shutdown::Read);
        self.wake_all(&lock(&self.queue));
    }

    /// Whether any signer has a session.
    fn has_session(&self) -> bool {
        self.slots.iter().any(|slot| slot.has_session.load(Ordering::SeqCst))
    }

    /// Has a signer open a session before it claims anything: what has none would only fail what others can sign. False when
    /// the worker is to end.
    ///
    /// A token without room for one more session lets the others go on, and is asked again from time to time.
    fn equip(&self, n: usize, signer: &mut Signer) -> bool {
        let began = Instant::now();
        loop {
            if self.closing.load(Ordering::SeqCst) {
                return false;
            }
            match self.calling(n + 1, "C_OpenSession", || signer.ready()) {
                Ok(()) => {
                    self.slots[n + 1].has_session.store(true, Ordering::SeqCst);
                    let all = self.slots[1..].iter().all(|slot| slot.has_session.load(Ordering::SeqCst));
                    if all {
                        *lock(&self.lacking) = None;
                    }
                    return true;
                }
                Err(error) => {
                    let others_sign = self.has_session();
                    let may_pass = error.class() == Class::RetryOnNewSession;
                    if !may_pass || (!others_sign && began.elapsed() >= SESSION_PATIENCE) {
                        self.break_off(error);
                        return false;
                    }
                    *lock(&self.lacking) = Some(error.to_string());
                    let pause = if others_sign { SESSION_EVERY } else { SESSION_PATIENCE / 8 };
                    let queue = lock(&self.queue);
                    if !self.closing.load(Ordering::SeqCst) {
                        drop(self.needed.wait_timeout(queue, pause));
                    }
                }
            }
        }
    }

    /// One signer: owns one session and nothing else of the module.
    fn sign(&self, n: usize, mut signer: Signer) {
        let slot = &self.slots[n + 1];
        loop {
            if !signer.has_session() {
                slot.has_session.store(false, Ordering::SeqCst);
                if !self.equip(n, &mut signer) {
                    return;
                }
            }
            let claimed = self.claim(false).or_else(|| {
                self.send_held();
                self.claim(true)
            });
            let Some(item) = claimed else { return };
            let answer = self.sign_one(n, &mut signer, &item);
            let broken = match &answer {
                Answer::Failed(error) if !error.class().worker_goes_on() => Some(error.clone()),
                Answer::Failed(_) | Answer::Signed(..) | Answer::Fenced | Answer::Expired | Answer::GivenUp => None,
            };
            self.hold(n, item.seq, answer);
            if let Some(error) = broken {
                self.send_held();
                self.break_off(error);
                return;
            }
        }
    }

    /// Kind, digest, fence, time, C_Sign: in this order, the last two as late as can be.
    fn sign_one(&self, n: usize, signer: &mut Signer, item: &Claimed) -> Answer {
        let Claimed { key, generation, not_after_unix_ms, seq, kind, shown } = item;
        let facts = Facts { spki: &key.spki, origin: self.origin.as_ref() };
        if let Err(why) = kinds::permitted(key.use_, *kind, shown, facts) {
            return Answer::Failed(HsmError::Kind { label: key.label.clone(), why });
        }
        let digest = digest::digest(&digest::SHA256, shown.octets());
        let digest = digest.as_ref().try_into().expect("SHA-256 gives 32 octets");
        let mut again = true;
        loop {
            // A session is opened before the fence is read, so that nothing slow lies between the fence and C_Sign.
            let opened = self.calling(n + 1, "C_OpenSession", || signer.ready());
            let result = opened.and_then(|()| {
                let slot = &self.slots[n + 1];
                slot.seq.store(seq + 1, Ordering::SeqCst);
                let stop = if *generation < self.generation.load(Ordering::SeqCst) {
                    Some(Answer::Fenced)
                } else if unix_ms() > *not_after_unix_ms {
                    Some(Answer::Expired)
                } else {
                    None
                };
                let result = if let Some(answer) = stop {
                    Ok(answer)
                } else {
                    let began = Instant::now();
                    let made = self.calling(n + 1, "C_Sign", || signer.sign(key.handle, digest));
                    let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    slot.busy_ns.fetch_add(took_ns, Ordering::Relaxed);
                    made.and_then(|signature| self.in_time(began, &signature))
                };
                slot.seq.store(0, Ordering::SeqCst);
                result
            });
            match result {
                Ok(answer) => return answer,
                // Only what provably signed nothing is asked again, and only once: the session was spoilt, not the token.
                Err(error)
                    if again
                        && error.class() == Class::RetryOnNewSession
                        && error.certainty() == Certainty::NothingSigned =>
                {
                    again = false;
                }
                Err(error) => return Answer::Failed(error),
            }
        }
    }

    /// A signature that came after the deadline of its call is as good as none: whoever watches has given it up, or is about
    /// to, and says unknown.
    fn in_time(&self, began: Instant, signature: &[u8; 64]) -> Result<Answer, HsmError> {
        if began.elapsed() > self.call_deadline {
            let deadline_ms = u64::try_from(self.call_deadline.as_millis()).unwrap_or(u64::MAX);
            return Err(HsmError::Overrun { call: "C_Sign".to_owned(), deadline_ms });
        }
        let (r, s) = signature.split_at(32);
        Ok(Answer::Signed(r.try_into().expect("half of 64"), s.try_into().expect("half of 64")))
    }

    /// Everything but signing. Look-ups beside creation and destruction fail at random on some tokens, and leave orphans (trap);
    /// here they cannot meet, being calls of one thread. Signers go on meanwhile: they look nothing up.
    fn manage(
        &self,
        token: LoggedIn,
        setup: &Setup,
        report: &TokenReport,
        calls: &mpsc::Receiver<(u64, OwnedManage)>,
    ) -> LoggedIn {
        let mut expected: Vec<ExpectedKey> = setup.keys.clone();
        let mut pin_key = None;
        for (call, what) in calls {
            let result = self.calling(MANAGE_SLOT, what.name(), || match what {
                OwnedManage::ReadData { label } => {
                    token.read_data(&label).map(|found| Managed::Data(found.map(serde_bytes::ByteBuf::from)))
                }
                OwnedManage::WriteData { label, octets, once } => {
                    token.write_data(&label, &octets, once).map(|()| Managed::Done)
                }
                OwnedManage::GenerateKey { label, id, use_ } => {
                    token.generate_key(&label, id, use_).map(|(key, handle)| {
                        self.learn(&key, handle);
                        let spki = Some(key.spki.clone());
                        expected.push(ExpectedKey { label, id, use_, spki, cloned: false, material: None });
                        Managed::Key(key)
                    })
                }
                OwnedManage::PinKey => {
                    let key = pin_key.insert(OneTimeKey::make());
                    Ok(Managed::SealTo(key.seal_to().clone()))
                }
                OwnedManage::SetPin { sealed } => change_pin(&token, pin_key.take(), setup, &sealed),
                OwnedManage::DestroyKey { label, id, spki, material } => material
                    .map_or(Ok(()), |material| token.destroy_material(&label, material))
                    .and_then(|()| token.destroy_key(&label, id, spki))
                    .map(|()| {
                        expected.retain(|key| key.id != id);
                        self.forget(spki);
                        Managed::Done
                    }),
                OwnedManage::MakeWrapping { key, id } => {
                    let kind = if setup.officer { WrappingKey::Trusted } else { WrappingKey::Plain };
                    token.make_wrapping(&key, id, kind).map(|()| Managed::Done)
                }
                OwnedManage::MakeSymmetric { key, material } => {
                    let pair = expected.iter_mut().find(|pair| pair.label == key);
                    pair.ok_or_else(|| HsmError::KeyUnknown(key.clone())).and_then(|pair| {
                        token.make_symmetric(&key, material)?;
                        pair.material = Some(material);
                        Ok(Managed::Done)
                    })
                }
                OwnedManage::WrapPublic { key } => standing(&expected, &key)
                    .and_then(|(spki, material)| token.wrap_public(&key, spki, material).map(Managed::Extension)),
                OwnedManage::CompareWrapped { key, extension } => {
                    standing(&expected, &key).and_then(|(spki, material)| {
                        token.compare_wrapped(&key, spki, material, &extension).map(Managed::Compared)
                    })
                }
                OwnedManage::ReleaseSymmetric { key, seal_to } => standing(&expected, &key)
                    .and_then(|(_, material)| token.release_symmetric(&key, material))
                    .and_then(|symmetric| {
                        let info = release_info(&setup.name, &setup.serial, &key);
                        let sealed = seal_to.seal(&info, symmetric.octets());
                        sealed.map_err(|error| HsmError::Protocol { found: error.to_string() })
                    })
                    .map(Managed::Sealed),
                OwnedManage::ListKeys => expected
                    .iter()
                    .map(|key| token.check_key(key).map(|(report, _)| report))
                    .collect::<Result<_, _>>()
                    .map(Managed::Keys),
                OwnedManage::TokenInfo => Ok(Managed::Info(report.clone())),
            });
            // What an operator must mend, a token that is full say, is an error of this call alone: the signers are well.
            let is_broken = |error: &&HsmError| matches!(error.class(), Class::LogInAgain | Class::ReplaceWorker);
            let broken = result.as_ref().err().filter(is_broken).cloned();
            let is_call = |error: &HsmError| matches!(error, HsmError::Call(_));
            if self.send(&FromWorker::Managed { call, result }).is_err() {
                break;
            }
            if let Some(error) = broken.filter(is_call) {
                self.break_off(error);
                break;
            }
        }
        token
    }
}

/// [`Manage`], on its way from whoever read it to `manage`.
enum OwnedManage {
    ReadData { label: String },
    WriteData { label: String, octets: Vec<u8>, once: bool },
    GenerateKey { label: KeyLabel, id: KeyId, use_: KeyUse },
    PinKey,
    SetPin { sealed: Vec<u8> },
    DestroyKey { label: KeyLabel, id: KeyId, spki: Digest, material: Option<Material> },
    MakeWrapping { key: KeyLabel, id: KeyId },
    MakeSymmetric { key: KeyLabel, material: Material },
    WrapPublic { key: KeyLabel },
    CompareWrapped { key: KeyLabel, extension: Vec<u8> },
    ReleaseSymmetric { key: KeyLabel, seal_to: SealTo },
    ListKeys,
    TokenInfo,
}

/// The public half of a contingency key that was found, and what stands beside it.
fn standing<'e>(expected: &'e [ExpectedKey], key: &KeyLabel) -> Result<(&'e [u8], Material), HsmError> {
    let found = expected.iter().find(|expected| expected.label == *key && expected.use_ == KeyUse::Contingency);
    let found = found.ok_or_else(|| HsmError::KeyUnknown(key.clone()))?;
    match (&found.spki, found.material) {
        (Some(spki), Some(material)) => Ok((spki, material)),
        (_, _) => Err(HsmError::NoMaterial(key.clone())),
    }
}

/// Changes the PIN of a token. What was not sealed for this changes nothing.
fn change_pin(token: &LoggedIn, key: Option<OneTimeKey>, setup: &Setup, sealed: &[u8]) -> Result<Managed, HsmError> {
    let unfit = |found: &str| HsmError::Protocol { found: format!("a change of the PIN: {found}") };
    let key = key.ok_or_else(|| unfit("no key was asked for"))?;
    let both = key
        .open(&pin_info(PinFor::Change, &setup.name, &setup.serial), sealed)
        .map_err(|error| unfit(&error.to_string()))?;
    let (old, new) = pin::both(&both).ok_or_else(|| unfit("it is not two PINs"))?;
    token.set_pin(&old, &new).map(|()| Managed::Done)
}

impl OwnedManage {
    const fn name(&self) -> &'static str {
        match self {
            Self::ReadData { .. } => "reading a data object",
            Self::WriteData { .. } => "writing a data object",
            Self::GenerateKey { .. } => "C_GenerateKeyPair",
            Self::PinKey => "making a key",
            Self::SetPin { .. } => "C_SetPIN",
            Self::DestroyKey { .. } => "C_DestroyObject",
            Self::MakeWrapping { .. } | Self::MakeSymmetric { .. } => "C_GenerateKey",
            Self::WrapPublic { .. } => "wrapping a public key",
            Self::CompareWrapped { .. } => "comparing a wrapped public key",
            Self::ReleaseSymmetric { .. } => "letting a symmetric key out",
            Self::ListKeys => "checking the keys",
            Self::TokenInfo => "describing the token",
        }
    }
}

impl From<Manage<'_>> for OwnedManage {
    fn from(what: Manage<'_>) -> Self {
        match what {
            Manage::ReadData { label } => Self::ReadData { label: label.into_owned() },
            Manage::WriteData { label, octets, once } => {
                Self::WriteData { label: label.into_owned(), octets: octets.into_owned(), once }
            }
            Manage::GenerateKey { label, id, use_ } => Self::GenerateKey { label, id, use_ },
            Manage::PinKey => Self::PinKey,
            Manage::SetPin { sealed } => Self::SetPin { sealed: sealed.into_owned() },
            Manage::DestroyKey { label, id, spki, material } => Self::DestroyKey { label, id, spki, material },
            Manage::MakeWrapping { key, id } => Self::MakeWrapping { key, id },
            Manage::MakeSymmetric { key, material } => Self::MakeSymmetric { key, material },
            Manage::WrapPublic { key } => Self::WrapPublic { key },
            Manage::CompareWrapped { key, extension } => {
                Self::CompareWrapped { key, extension: extension.into_owned() }
            }
            Manage::ReleaseSymmetric { key, seal_to } => Self::ReleaseSymmetric { key, seal_to },
            Manage::ListKeys => Self::ListKeys,
            Manage::TokenInfo => Self::TokenInfo,
        }
    }
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// No state here is left half-changed by a panic, so a poisoned lock holds good data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
