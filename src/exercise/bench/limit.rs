//! Shell: the limit program: the bound that the daemon is held to, in the same run and on the same token and key.
//!
//! No daemon, no API, no policy, no pipe to a worker. For each command it fills the template, takes the SHA-256, calls C_Sign
//! once, verifies the signature with ring, and encodes and hashes the two leaves of the command. For each chunk it commits
//! the intents to SQLite (WAL, FULL) before the first C_Sign and the outcomes after the last, and signs one checkpoint. That
//! is all that a recorded, verified signature cannot do without; what the daemon takes longer is the price of everything else.
//!
//! It is as fast as we could make it: each worker has a session and carries a chunk from end to end, so nothing is handed
//! over; buffers are made once; workers meet only to commit, some 3 % of the time.
//!
//! It runs as a process of its own, because SoftHSM takes its configuration from the environment: the program that measures runs
//! itself again, with [`ARGUMENT`]. The task comes as one line of JSON on standard input; then each line asks for a measurement, and each
//! is answered by the nanoseconds.
//!
//! It goes to token and disk by itself, past `hsm` and `store`, for it is what these are measured against.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::domain::gbcs::{self, Template};
use crate::domain::ledger::checkpoint::Checkpoint;
use crate::domain::ledger::entry::{
    Actor, Channel, ClockState, Entry, Event, Intent, Outcome, Role, SignResult, VERSION,
};
use crate::domain::ledger::merkle::{Frontier, Head, leaf_hash};
use crate::domain::names::{DeviceId, Digest, Eui64, Origin, PartyId, TemplateName};
use crate::hsm::PublicPoint;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Fault;
use crate::exercise::stage::RECOVERY_LABEL;

/// The argument by which a program runs itself as the limit program.
pub const ARGUMENT: &str = "limit-program";

/// Commands between two commits at most: what the daemon is compared at.
pub const CHUNK_LEN: usize = 1_000;

/// What the limit program works on.
#[derive(Serialize, Deserialize)]
pub struct Task {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The file that has its PIN.
    pub pin_file: PathBuf,
    /// The label of the key that signs.
    pub key: String,
    /// The command template.
    pub template: Vec<u8>,
    /// Where its database is made: on the same disk as the daemon's.
    pub database: PathBuf,
    /// How many sessions, each with a thread.
    pub sessions: usize,
    /// Commands between two commits.
    pub chunk: usize,
}

impl Task {
    /// The token is one that an exercise made, which the benchmarks use too. Whatever the limit program is given it signs: asked before it
    /// reads a PIN or loads a module.
    fn check(&self) -> Result<(), Fault> {
        if self.token == RECOVERY_LABEL {
            return Ok(());
        }
        let found = &self.token;
        Err(format!(
            "expected the token of an exercise, labelled {RECOVERY_LABEL}, found {found}: nothing that this program signs is determined or recorded, \
             so it signs with no other token; `smkictl exercise --bench` makes one and starts it"
        )
        .into())
    }
}

/// One measurement, as a line.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// So many chunks, whole.
    Chunks(usize),
    /// So many bare C_Sign over 32 octets.
    Sign(usize),
    /// The median of so many C_Sign, each alone and on one session.
    SignAlone(usize),
    /// The median of so many commits, each of the two leaves of one command.
    CommitAlone(usize),
}

/// The limit program as the benchmark sees it: a child that measures when asked.
pub struct Limit {
    child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    chunk: usize,
}

impl Limit {
    /// Starts it, with the environment that the module reads, and waits until it is ready.
    pub fn start(task: &Task, environment: &BTreeMap<String, String>) -> Result<Self, Fault> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asks = child.stdin.take().ok_or("a piped standard input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("a piped standard output")?).lines();
        let mut limit = Self { child, asks, answers, chunk: task.chunk };
        writeln!(limit.asks, "{}", serde_json::to_string(task)?)?;
        limit.answer()?;
        Ok(limit)
    }

    /// Operations per second.
    pub fn measure(&mut self, measure: Measure) -> Result<f64, Fault> {
        writeln!(self.asks, "{}", serde_json::to_string(&measure)?)?;
        let took = Duration::from_nanos(self.answer()?.parse()?);
        let count = match measure {
            Measure::Chunks(count) => count * self.chunk,
            Measure::Sign(count) => count,
            Measure::SignAlone(_) | Measure::CommitAlone(_) => 1,
        };
        Ok(per_second(count, took))
    }

    /// Seconds of one operation, done alone.
    pub fn seconds(&mut self, measure: Measure) -> Result<f64, Fault> {
        Ok(self.measure(measure)?.recip())
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    fn answer(&mut self) -> Result<String, Fault> {
        Ok(self.answers.next().ok_or("the limit program ended; what it said on standard error says why")??)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // It holds nothing that is worth an orderly end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A rate.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// The limit program, as a child process sees itself.
pub fn main() -> Result<(), Fault> {
    let mut lines = io::stdin().lock().lines();
    let task = lines.next().ok_or("no task on standard input")??;
    let mut program = Program::open(&serde_json::from_str(&task)?)?;
    let mut out = io::stdout().lock();
    writeln!(out, "ready")?;
    for line in lines {
        let took = match serde_json::from_str(&line?)? {
            Measure::Chunks(count) => program.chunks(count)?,
            Measure::Sign(count) => program.sign(count)?,
            Measure::SignAlone(count) => program.sign_alone(count)?,
            Measure::CommitAlone(count) => program.commit_alone(count)?,
        };
        writeln!(out, "{}", took.as_nanos())?;
    }
    Ok(())
}

/// Everything open and ready.
pub(super) struct Program {
    sessions: Vec<Session>,
    work: Work,
}

/// What the workers share.
struct Work {
    key: ObjectHandle,
    point: PublicPoint,
    template: Template,
    /// Commands of a chunk.
    len: usize,
    ledger: Mutex<Ledger>,
    /// Chunks begun since the start: each has Devices of its own.
    begun: AtomicUsize,
}

impl Program {
    pub(super) fn open(task: &Task) -> Result<Self, Fault> {
        task.check()?;
        let module = Pkcs11::new(&task.module)?;
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let slot = find_token(&module, &task.token)?;
        let sessions = (0..task.sessions).map(|_| module.open_ro_session(slot)).collect::<Result<Vec<_>, _>>()?;
        let first = sessions.first().ok_or("a limit program needs a session")?;
        let pin = Zeroizing::new(std::fs::read_to_string(&task.pin_file)?);
        first.login(UserType::User, Some(&AuthPin::from(pin.trim())))?;
        let label = || Attribute::Label(task.key.clone().into());
        let key = one(&first.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), label()])?)?;
        let public = one(&first.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY), label()])?)?;
        let point = first.get_attributes(public, &[AttributeType::EcPoint])?.into_iter().find_map(|a| match a {
            Attribute::EcPoint(octets) => PublicPoint::from_octets(octets.strip_prefix(&[0x04, 0x41])?),
            _ => None,
        });
        let work = Work {
            key,
            point: point.ok_or("the public key is not an uncompressed point of P-256")?,
            template: Template::parse(&task.template)?,
            len: task.chunk,
            ledger: Mutex::new(Ledger::create(&task.database)?),
            begun: AtomicUsize::new(0),
        };
        Ok(Self { sessions, work })
    }

    /// Does so many chunks, and says how long it took.
    fn chunks(&mut self, count: usize) -> Result<Duration, Fault> {
        let until = self.work.begun.load(Ordering::Relaxed) + count;
        let began = Instant::now();
        let took = self.each_session(|session, work| {
            let mut buffers = Buffers::new(work.len)?;
            loop {
                let chunk = work.begun.fetch_add(1, Ordering::Relaxed);
                if chunk >= until {
                    return Ok(());
                }
                work.chunk(session, chunk, &mut buffers)?;
            }
        });
        self.work.begun.store(until, Ordering::Relaxed);
        took.map(|()| began.elapsed())
    }

    /// Does so many C_Sign and nothing else, and says how long it took.
    fn sign(&mut self, count: usize) -> Result<Duration, Fault> {
        let left = AtomicUsize::new(count);
        let took = |left: &AtomicUsize| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        };
        let began = Instant::now();
        self.each_session(|session, work| {
            while took(&left) {
                session.sign(&Mechanism::Ecdsa, work.key, &[0x5A; 32])?;
            }
            Ok(())
        })?;
        Ok(began.elapsed())
    }

    /// The median of so many C_Sign, one after the other.
    fn sign_alone(&self, count: usize) -> Result<Duration, Fault> {
        let session = self.sessions.first().ok_or("a limit program needs a session")?;
        median_of(count, || {
            session.sign(&Mechanism::Ecdsa, self.work.key, &[0x5A; 32])?;
            Ok(())
        })
    }

    /// The median of so many commits, one after the other.
    fn commit_alone(&self, count: usize) -> Result<Duration, Fault> {
        let mut buffers = Buffers::new(self.work.len)?;
        let event = buffers.entry.event.clone();
        median_of(count, || {
            buffers.push_leaf(event.clone())?;
            buffers.push_leaf(event.clone())?;
            self.work.append(&mut buffers.leaves).map(drop)
        })
    }

    fn each_session(&mut self, run: impl Fn(&Session, &Work) -> Result<(), Fault> + Sync) -> Result<(), Fault> {
        let (run, work) = (&run, &self.work);
        thread::scope(|scope| {
            let threads: Vec<_> =
                self.sessions.iter_mut().map(|session| scope.spawn(move || run(session, work))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| Fault::from("a worker panicked"))?)
        })
    }
}

/// The median of so many runs of something.
pub fn median_of(count: usize, mut run: impl FnMut() -> Result<(), Fault>) -> Result<Duration, Fault> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        run()?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took.get(count / 2).copied().ok_or_else(|| "nothing was measured".into())
}

/// Where a worker keeps a chunk; made once for each measurement.
struct Buffers {
    /// Commands, one after the other, each with its signature in the end.
    commands: Vec<Vec<u8>>,
    digests: Vec<[u8; 32]>,
    leaves: Vec<Leaf>,
    entry: Entry,
}

/// A leaf and its hash.
type Leaf = (Vec<u8>, Digest);

impl Buffers {
    fn new(len: usize) -> Result<Self, Fault> {
        let by = Actor {
            person: Some("operator-one".parse()?),
            account: "operator".into(),
            role: Role::Operator,
            channel: Channel::Socket,
        };
        let at = "2026-11-24T01:02:03.456Z".parse()?;
        let event = Event::Outcome(Outcome { intent: 0, result: SignResult::Signed(Digest::of(b"")) });
        Ok(Self {
            commands: vec![Vec::new(); len],
            digests: Vec::with_capacity(len),
            leaves: Vec::with_capacity(len),
            entry: Entry { v: VERSION, at, clock: ClockState::Trusted, by, event },
        })
    }

    fn push_leaf(&mut self, event: Event) -> Result<(), Fault> {
        self.entry.event = event;
        let leaf = self.entry.to_leaf()?;
        let hash = leaf_hash(&leaf);
        self.leaves.push((leaf, hash));
        Ok(())
    }
}

impl Work {
    /// One chunk from end to end.
    fn chunk(&self, session: &Session, chunk: usize, buffers: &mut Buffers) -> Result<(), Fault> {
        let originator = PartyId(Eui64([0x90, 0xB3, 0xD5, 0x1F, 0x30, 0, 0, 1]));
        let template: TemplateName = "recovery-esme".parse()?;
        buffers.digests.clear();
        buffers.leaves.clear();
        for n in 0..self.len {
            let counter = (chunk * self.len + n) as u64 + 1;
            let device = DeviceId(Eui64(counter.to_be_bytes()));
            let mut command = std::mem::take(&mut buffers.commands[n]);
            command.clear();
            self.template.fill(originator, device, counter, &mut command)?;
            let digest = Digest::of(&command[1..]);
            buffers.commands[n] = command;
            buffers.digests.push(digest.0);
            let template = template.clone();
            buffers.push_leaf(Event::Intent(Intent {
                batch: 1,
                template,
                device,
                counter,
                attempt: 1,
                command: digest,
            }))?;
        }
        let (first, head) = self.append(&mut buffers.leaves)?;
        // The checkpoint over the intents is the one over the outcomes of the chunk before, as in a running job.
        let checkpoint = Checkpoint::new(ORIGIN.parse::<Origin>()?, head);
        session.sign(&Mechanism::Ecdsa, self.key, Digest::of(checkpoint.text().as_bytes()).octets())?;
        for n in 0..self.len {
            let signature = session.sign(&Mechanism::Ecdsa, self.key, &buffers.digests[n])?;
            let signature: [u8; 64] = signature.as_slice().try_into().map_err(|_| "a signature is not 64 octets")?;
            let command = &mut buffers.commands[n];
            if !self.point.verifies(&command[1..], &signature) {
                return Err("a signature does not verify".into());
            }
            gbcs::finish(command, &signature);
            let result = SignResult::Signed(Digest::of(&signature));
            buffers.push_leaf(Event::Outcome(Outcome { intent: first + n as u64, result }))?;
        }
        self.append(&mut buffers.leaves)?;
        Ok(())
    }

    /// Commits leaves, leaving none behind. Answers the index of the first, and the head.
    fn append(&self, leaves: &mut Vec<Leaf>) -> Result<(u64, Head), Fault> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).append(leaves)
    }
}

/// The origin on the limit program's checkpoints.
const ORIGIN: &str = "limit.example/ledger";

/// A table of leaves, and the tree over them.
struct Ledger {
    connection: Connection,
    frontier: Frontier,
}

impl Ledger {
    fn create(path: &Path) -> Result<Self, Fault> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
             CREATE TABLE leaf (idx INTEGER PRIMARY KEY, hash BLOB NOT NULL, octets BLOB NOT NULL) STRICT;",
        )?;
        Ok(Self { connection, frontier: Frontier::new() })
    }

    fn append(&mut self, leaves: &mut Vec<Leaf>) -> Result<(u64, Head), Fault> {
        let first = self.frontier.size();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO leaf VALUES (?1, ?2, ?3)")?;
            for (leaf, hash) in leaves.drain(..) {
                insert.execute((self.frontier.size().cast_signed(), hash.0, leaf))?;
                self.frontier.push(hash);
            }
        }
        transaction.commit()?;
        Ok((first, self.frontier.head()))
    }
}

fn find_token(module: &Pkcs11, label: &str) -> Result<Slot, Fault> {
    for slot in module.get_slots_with_token()? {
        // Trap: a slot that cannot describe its token is not ours, and no reason to give up.
        if module.get_token_info(slot).is_ok_and(|info| info.label().trim_end_matches(['\0', ' ']) == label) {
            return Ok(slot);
        }
    }
    Err(format!("no token has the label {label}").into())
}

fn one(found: &[ObjectHandle]) -> Result<ObjectHandle, Fault> {
    match found {
        [one] => Ok(*one),
        _ => Err(format!("expected one key of that label, found {}", found.len()).into()),
    }
}
