//! Shell: how the engine comes to be: lock and check the ledger, resume what was cut off, record the start; and what it does
//! by itself while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::super::StartError;
use super::super::checkpoint::TokenSigner;
use super::super::clock::{Before, Clock};
use super::super::configuration::Configuration;
use super::super::keys::{Keys, tokens_of};
use super::super::start::{self, StartFault};
use super::check::{self, Checking};
use super::heartbeat::{self, Heartbeat};
use super::keys::{active_for, closed, has_ended, lock, shut_down};
use super::{Daemon, custodians};
use crate::api::engine::{Fatal, FatalKind};
use crate::api::wire::Trouble;
use crate::domain::fold::{Fold, FoldError};
use crate::domain::ledger::entry::{Actor, Event, LoginRetried, Role, Started, TokenHealth};
use crate::domain::names::{Digest, KeyLabel, Purpose};
use crate::domain::policy::custodians::Count;
use crate::domain::policy::facts::KeyFacts;
use crate::domain::time::Timestamp;
use crate::hsm::offers::Asked;
use crate::hsm::{Condition, HsmError, Several, Token};
use crate::pipeline;
use crate::recorder::{CannotRecord, Closed, Desk, Recorded, Recorder, shortened};
use crate::state::Unchecked;
use crate::store::{Reader, Store as _};

/// How often the engine looks after its keys: locks what is over, tells how tokens stand.
const TICK: Duration = Duration::from_secs(1);

/// How often it is looked whether an absent ledger token was brought up.
const LOOK: Duration = Duration::from_millis(200);

/// Uploads that nobody recorded are dropped after a day.
const UPLOAD_MS_MAX: i64 = 24 * 3_600_000;

impl From<StartFault> for StartError {
    fn from(fault: StartFault) -> Self {
        fault.fatal().into()
    }
}

/// Why nothing more can be recorded, and what to do.
fn cannot_record(why: &CannotRecord) -> Fatal {
    let remedy = match why {
        CannotRecord::Store(_) => "Free space or mend the disk, then start smkid again: the start checks the ledger",
        CannotRecord::Token(_) => {
            "Take the ledger token out of use until its maker has said why, or put back the one of this ledger, then start smkid again"
        }
        CannotRecord::Checkpoint(_) => "Check that the ledger token is the one of this ledger, then start smkid again",
        CannotRecord::Fold(FoldError::Book(_)) => {
            "Keep the state directory, let `smkid check-state` hold it against the ledger, and restore its newest copy"
        }
        CannotRecord::Fold(_) | CannotRecord::Entry(_) | CannotRecord::Fill(_) => {
            "This is a fault in smkid: keep the state directory, and report it with the journal"
        }
    };
    Fatal { kind: FatalKind::CannotRecord, why: format!("nothing more can be recorded: {why}"), remedy: remedy.into() }
}

/// Makes the engine: everything that must hold before anybody is answered.
pub async fn make(configuration: Configuration) -> Result<Arc<Daemon>, StartError> {
    let opened = tokio::task::spawn_blocking(move || open(configuration)).await;
    let opened = opened.map_err(|error| refused(&error.to_string(), "See the journal above"))??;
    let Opened { configuration, recorder, clock, fold, staging, reader, token, unchecked } = opened;
    let state = configuration.state.clone();
    let head_interval = Duration::from_secs(configuration.ledger.head_interval_s);
    let (configuration_digest, chunk) = (configuration.digest, configuration.signing_chunk);

    let (failure, failed) = watch::channel(None);
    let hears = failure.clone();
    let (waits, waiting) = watch::channel(None);
    let tell_wait = Box::new(move |why: Option<&HsmError>| {
        waits.send_replace(why.map(not_signing));
    });
    let (desk, _) = Desk::open(recorder, tell_wait, move |why: CannotRecord| {
        hears.send_replace(Some(cannot_record(&why)));
    })
    .map_err(|error| refused(&format!("a thread could not be started: {error}"), "Check TasksMax="))?;

    let lives = super::jobs::Lives::open(&state).map_err(|error| {
        let why = format!("what was said of jobs and is not recorded yet cannot be read: {error}");
        refused(&why, "Check the disk and who owns `unrecorded-stops` in the state directory")
    })?;
    let keys = Arc::new(Keys::new(configuration.clone()));
    let (ready, not_ready) = watch::channel(Some(absent("the ledger token is not there yet".to_owned())));
    let (stopping, _) = watch::channel(false);
    let (checking, being_checked) = watch::channel(unchecked.as_ref().map(Checking::of));
    if let Some(unchecked) = unchecked {
        let hears = failure.clone();
        let fault = move |why| {
            hears.send_if_modified(|failed: &mut Option<Fatal>| failed.is_none() && failed.replace(why).is_none());
        };
        check::begin(&state, unchecked, checking, stopping.subscribe(), fault)
            .map_err(|error| refused(&format!("a thread could not be started: {error}"), "Check TasksMax="))?;
    }
    let daemon = Arc::new(Daemon {
        desk: desk.clone(),
        keys: Arc::clone(&keys),
        clock: Arc::clone(&clock),
        incoming: Arc::new(crate::store::sqlite::Incoming::new(&state, Arc::clone(&staging))),
        staging,
        reader: Arc::new(Mutex::new(reader)),
        state: state.clone(),
        scans: Arc::new(Semaphore::new(super::SCANS_MAX)),
        fetches: super::fetch::Turns::default(),
        parts: super::responses::Turns::default(),
        looks: Arc::new(Semaphore::new(super::LOOKS_MAX)),
        chunk,
        failed,
        heartbeat: Arc::new(Heartbeat::new(heartbeat::SILENCE_MAX)),
        stopping: stopping.clone(),
        tasks: Mutex::new(JoinSet::new()),
        running: Arc::new(Mutex::new(BTreeSet::new())),
        ended: Arc::new(Mutex::new(BTreeMap::new())),
        runs_ended: watch::channel(0).0,
        checking: being_checked,
        not_ready,
        waiting,
        lives,
    });

    // The ledger token once now, so that a ledger that was rolled back is refused before anybody is answered; if it is merely
    // absent, or waits for an operator, reads are answered and it is waited for.
    keys.set_ledger(token.clone());
    let fold = Arc::new(fold);
    let first = signer(token.clone(), Arc::clone(&fold), state.clone()).await;
    token.keep_up().map_err(|error| refused(&error.to_string(), "Check TasksMax="))?;
    match first {
        Ok(signer) => begin(&desk, &keys, signer.on_clock(clock), configuration_digest, &ready).await?,
        Err(SignerFault::Absent(why)) => {
            tracing::warn!("{why}. Reads are answered; nothing is recorded until the ledger token is there");
            ready.send_replace(Some(not_there(&token, why)));
            let (desk, ready, keys) = (desk.clone(), ready.clone(), Arc::clone(&keys));
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LOOK).await;
                    if !matches!(token.condition(), Condition::Up) {
                        ready.send_replace(Some(not_there(&token, token.standing().told_of(token.name()))));
                        continue;
                    }
                    match signer(token.clone(), Arc::clone(&fold), state.clone()).await {
                        Ok(signer) => {
                            let signer = signer.on_clock(clock);
                            if let Err(why) = begin(&desk, &keys, signer, configuration_digest, &ready).await {
                                // What the recorder itself said before says more.
                                failure.send_if_modified(|failed| failed.is_none() && failed.replace(why).is_none());
                            }
                            return;
                        }
                        Err(SignerFault::Absent(why)) => {
                            ready.send_replace(Some(not_there(&token, why)));
                        }
                        Err(SignerFault::Wrong(why)) => {
                            failure.send_replace(Some(why));
                            return;
                        }
                    }
                }
            });
        }
        Err(SignerFault::Wrong(why)) => return Err(why.into()),
    }
    tokio::spawn(heartbeat::beat(Arc::clone(&daemon.heartbeat), desk));
    tokio::spawn(look_after(Arc::clone(&daemon), head_interval, stopping.subscribe()));
    super::jobs::begin(&daemon);
    Ok(daemon)
}

struct Opened {
    configuration: Configuration,
    recorder: Recorder,
    clock: Arc<Clock>,
    fold: Fold,
    staging: Arc<crate::store::Staging>,
    reader: Box<dyn Reader + Send>,
    /// The ledger token, not tried yet.
    token: Token,
    /// What is still to be checked of the ledger.
    unchecked: Option<Unchecked>,
}

fn open(configuration: Configuration) -> Result<Opened, StartError> {
    let (store, fold, unchecked) = start::open_since_snapshot(&configuration)?;
    let purpose = fold.purpose().unwrap_or(Purpose::Live);
    start::check_clock(purpose, &configuration)?;
    if configuration.clock_offset_ms != 0 {
        tracing::warn!(
            offset_ms = configuration.clock_offset_ms,
            "the clock is set for an exercise; every entry says so"
        );
    }
    for key in fold.keys().values() {
        start::configured(&configuration, &key.record.token)?;
        // A copy that is not described is told at activation: the key can be used without it.
        let described =
            tokens_of(key, &fold).into_iter().filter_map(|token| start::configured(&configuration, &token).ok());
        for settings in described {
            start::check_pin_source(purpose, settings, [key.record.use_])?;
        }
    }
    let token = ledger_token(&configuration, &fold)?;
    store.reserve_space(configuration.limits.reserve_octets).map_err(StartFault::from)?;
    let covered = store.latest_checkpoint().map_err(StartFault::from)?.map_or(0, |checkpoint| checkpoint.head.size);
    let clock = Arc::new(Clock::start(Before::of(&fold, covered), configuration.clock_offset_ms));
    let staging = Arc::clone(store.staging());
    let reader = store.reader().map_err(StartFault::from)?;
    let mut recorder =
        Recorder::new(Box::new(store), fold.clone(), Arc::clone(&clock).read_by()).map_err(StartFault::from)?;
    recorder.set_refusals_told_max(configuration.limits.refusals_per_minute);
    recorder.set_snapshot_leaves(configuration.ledger.snapshot_entries);
    Ok(Opened { configuration, recorder, clock, fold, staging, reader, token, unchecked })
}

/// The ledger token with its stored PIN, not tried yet.
fn ledger_token(configuration: &Configuration, fold: &Fold) -> Result<Token, StartFault> {
    let name = &start::ledger_key(fold)?.token;
    start::check_ledger_token(configuration, name)?;
    let settings = start::configured(configuration, name)?;
    let pin = settings.pin.as_ref().ok_or_else(|| StartFault::PinAbsent { token: name.clone() })?;
    let pin = start::stored_pin(pin)?;
    Ok(Token::new(start::daemon_token_config(configuration, name)?, pin, start::expectations(fold, name)))
}

/// Why there is no ledger token.
enum SignerFault {
    /// It may come, by itself or with an operator's help.
    Absent(String),
    /// It is not the token of this ledger, this is not the ledger of the token, or the configuration is wrong.
    Wrong(Fatal),
}

/// While the ledger token is merely not there.
fn absent(what: String) -> Trouble {
    Trouble { what, remedy: "Insert the ledger token, or check [ledger] and its [[token]]".into() }
}

/// The same, by how it stands: a PIN is not offered again by itself, and the text says what to do.
fn not_there(token: &Token, what: String) -> Trouble {
    match token.condition() {
        Condition::Locked(_) => Trouble { what, remedy: "Nothing is tried by itself until then".into() },
        Condition::Up | Condition::Down(_) => absent(what),
    }
}

/// While the ledger token does not sign, in the middle of everything.
fn not_signing(why: &HsmError) -> Trouble {
    Trouble {
        what: format!("the ledger token does not sign: {why}"),
        remedy: "What was asked for is recorded once it does; `smkictl hsm status` says how the token stands".into(),
    }
}

async fn signer(token: Token, fold: Arc<Fold>, state: PathBuf) -> Result<TokenSigner, SignerFault> {
    let started = tokio::task::spawn_blocking(move || {
        let reader = crate::store::sqlite::SqliteReader::open(&state)?;
        start::ledger_signer_on(token, &fold, &reader)
    });
    let started = started.await.map_err(|error| SignerFault::Absent(error.to_string()))?;
    started.map_err(|fault| match &fault {
        StartFault::Hsm { source, .. } if source.is_about_the_pin() || !source.locks() => {
            SignerFault::Absent(fault.to_string())
        }
        StartFault::Hsm { .. }
        | StartFault::Store(_)
        | StartFault::State(_)
        | StartFault::LedgerKey(_)
        | StartFault::NoLedgerKey
        | StartFault::NotConfigured { .. }
        | StartFault::LedgerToken { .. }
        | StartFault::ClockSet { .. }
        | StartFault::PinStored { .. }
        | StartFault::PinAbsent { .. }
        | StartFault::PinFile { .. }
        | StartFault::HeadAbsent { .. }
        | StartFault::HeadUnreadable { .. }
        | StartFault::HeadOrigin { .. }
        | StartFault::RolledBack { .. } => SignerFault::Wrong(fault.fatal()),
    })
}

/// From here on things can be recorded: the start itself first, and what becomes of the intents that an end left open.
async fn begin(
    desk: &Desk,
    keys: &Keys,
    signer: TokenSigner,
    configuration: Digest,
    ready: &watch::Sender<Option<Trouble>>,
) -> Result<(), Fatal> {
    let unreadable = |error: std::io::Error| Fatal {
        kind: FatalKind::RefusedToStart,
        why: format!("the program cannot be read: {error}"),
        remedy: "Reinstall it".into(),
    };
    let program = program_digest().map_err(unreadable)?;
    let begun = desk.record(move |recorder| {
        recorder.set_signer(Box::new(signer));
        let version = env!("CARGO_PKG_VERSION").into();
        pipeline::record_start(recorder, Started { version, program, configuration, unconfirmed: None })
    });
    let closed = |_| Fatal {
        kind: FatalKind::CannotRecord,
        why: "the start could not be recorded".into(),
        remedy: "The journal says why".into(),
    };
    let (not_signed, unknown) = begun.await.map_err(closed)?.into_inner();
    if not_signed + unknown > 0 {
        tracing::warn!(
            not_signed,
            unknown,
            "resumed: intents without an outcome; `smkictl recovery unknowns` lists the unknown"
        );
    }
    keep_head(desk, keys).await;
    ready.send_replace(None);
    Ok(())
}

fn program_digest() -> std::io::Result<Digest> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut file = std::fs::File::open("/proc/self/exe")?;
    let mut piece = vec![0; 1 << 16];
    loop {
        let len = std::io::Read::read(&mut file, &mut piece)?;
        if len == 0 {
            break;
        }
        context.update(&piece[..len]);
    }
    Ok(Digest::try_from(context.finish().as_ref()).expect("SHA-256 has 32 octets"))
}

/// Keeps the newest head under a checkpoint on the ledger token; says whether it could. Why not, `smkictl status` shows.
pub(super) async fn keep_head(desk: &Desk, keys: &Keys) -> bool {
    let Some(token) = keys.ledger() else { return false };
    let head = desk.look(|recorder| {
        let signed = recorder.checkpointed() == recorder.durable().size;
        Ok(recorder.fold().origin().cloned().filter(|_| signed).map(|origin| (origin, recorder.durable())))
    });
    let Ok(Some((origin, head))) = head.await else { return false };
    let worker = token.worker_pid();
    let kept = tokio::task::spawn_blocking(move || start::write_head_object(&token, &origin, head)).await;
    let trouble = match kept {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(error) = &trouble {
        tracing::warn!(%error, "the ledger's head could not be kept on its token");
    }
    let is_kept = trouble.is_none();
    keys.set_head_trouble(trouble.map(|why| (why, worker)));
    is_kept
}

/// What the engine does by itself: locks keys whose time is over or whose token is locked, tells how tokens stand and how many
/// refusals were counted, keeps the head, drops old uploads.
async fn look_after(daemon: Arc<Daemon>, head_interval: Duration, mut stopping: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut head_at = tokio::time::Instant::now() + head_interval;
    let (mut kept, mut runs_kept) = (0, 0);
    let mut recording: Option<JoinHandle<Result<u64, Closed>>> = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        if daemon.not_ready.borrow().is_some() {
            continue;
        }
        for (key, tokens) in daemon.keys.all_active() {
            look_after_key(&daemon, key, tokens).await;
        }
        for key in daemon.keys.gathering() {
            custodians::look_after_vault(&daemon, key).await;
        }
        let at = daemon.clock.now().at;
        daemon.staging.expire(at.plus_ms(-UPLOAD_MS_MAX));
        let runs_ended = *daemon.runs_ended.borrow();
        let at_rest = daemon.running.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        // It may have to wait for the ledger token; the keys are looked after meanwhile.
        let task = recording.get_or_insert_with(|| tokio::spawn(record_standings(Arc::clone(&daemon))));
        let recorded = tokio::select! {
            recorded = task => recorded,
            () = tokio::time::sleep(TICK) => continue,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        recording = None;
        let Ok(Ok(size)) = recorded else { continue };
        // At the interval, and soon after the last job came to its end: what was signed is not to be undone by an older copy.
        let interval_is_over = tokio::time::Instant::now() >= head_at && size > kept;
        // And once the token that could not keep it is back.
        if interval_is_over || daemon.keys.owes_head() || (at_rest && runs_ended > runs_kept) {
            if keep_head(&daemon.desk, &daemon.keys).await {
                kept = size;
            }
            runs_kept = runs_ended;
            head_at = tokio::time::Instant::now() + head_interval;
        }
    }
}

/// Records how tokens stand, who let the PIN of the ledger token be offered again, and how many refusals were counted; answers the
/// ledger's size.
async fn record_standings(daemon: Arc<Daemon>) -> Result<u64, Closed> {
    let keys = Arc::clone(&daemon.keys);
    let asked = keys.asked();
    let told = asked.len();
    let size = daemon.desk.record(move |recorder| {
        recorder.fold_refusals(None)?;
        let at = recorder.moment().at;
        for asked in asked {
            let Some(Asked { by, retried }) = credible(asked, &keys, at) else {
                tracing::warn!("a file of pin-marks says of an operator what cannot be; it is not recorded");
                continue;
            };
            let by = recorder.known(by);
            recorder.queue(&by, Event::LoginRetried(retried))?;
        }
        tell_health(recorder, keys.to_tell(at))?;
        Ok(recorder.durable().size)
    });
    let size = size.await?.into_inner();
    if told > 0 {
        let keys = Arc::clone(&daemon.keys);
        let _ = tokio::task::spawn_blocking(move || keys.told(told)).await;
    }
    Ok(size)
}

/// What a file says of who let the ledger token's PIN be offered again, as it can be recorded: whoever can write to the disk could have
/// put it there, and a clock that was ahead then may have been set since. An entry that the ledger's own rules refuse would keep every
/// later start from loading it.
fn credible(Asked { by, retried }: Asked, keys: &Keys, at: Timestamp) -> Option<Asked> {
    let is_ledgers =
        keys.ledger().is_some_and(|token| *token.name() == retried.token && token.config().serial == *retried.serial);
    let retried = LoginRetried { asked: retried.asked.min(at), was: shortened(&retried.was).into(), ..retried };
    (by.role == Role::Operator && is_ledgers).then_some(Asked { by, retried })
}

/// Records changes of how tokens stand. A worker's words are cut to what an entry has room for.
pub(super) fn tell_health(recorder: &mut Recorder, changes: Vec<TokenHealth>) -> Result<(), CannotRecord> {
    let cut = |text: Option<Box<str>>| text.map(|text| shortened(&text).into());
    for health in changes {
        let health =
            TokenHealth { function: cut(health.function), code: cut(health.code), cause: cut(health.cause), ..health };
        recorder.queue(&Actor::daemon(), Event::TokenHealth(health))?;
    }
    Ok(())
}

/// Locks a key whose time is over, or all of whose tokens are locked. It is decided where it is answered while the ledger token is away,
/// and done then, too: what is recorded comes later.
async fn look_after_key(daemon: &Daemon, key: KeyLabel, tokens: Several) {
    // As long as one token is not locked, the key stays active on it.
    let why = match tokens.condition() {
        Condition::Up | Condition::Down(_) => None,
        Condition::Locked(error) => Some(format!("its token is locked: {error}")),
    };
    let (label, also) = (key.clone(), why.clone());
    let over = daemon.desk.look(move |recorder| Ok(also.or_else(|| why_over(recorder, &label))));
    let Ok(Some(reason)) = over.await else { return };
    let label = key.clone();
    lock_by_itself(daemon, key, &reason, move |recorder| why.or_else(|| why_over(recorder, &label))).await;
}

/// Locks a key for a reason that is decided again where it is recorded; at once, also where that has to wait.
pub(super) async fn lock_by_itself(
    daemon: &Daemon,
    key: KeyLabel,
    reason: &str,
    why: impl FnOnce(&Recorder) -> Option<String> + Send + 'static,
) {
    let (keys, label) = (Arc::clone(&daemon.keys), key.clone());
    let recorded = daemon.desk.record(move |recorder| {
        let Some(reason) = why(recorder) else { return Ok(None) };
        lock(recorder, &Actor::daemon(), &keys, &label, &shortened(&reason)).map(|(_, closing)| closing)
    });
    let mut waiting = daemon.waiting.clone();
    let waits = async move { waiting.wait_for(Option::is_some).await.map(drop) };
    tokio::select! {
        biased;
        recorded = recorded => closed(recorded.ok().and_then(Recorded::into_inner)).await,
        // It is asked already, and recorded once it can be.
        _ = waits => {
            tracing::warn!(key = %key, "locked while nothing can be recorded: {reason}");
            let keys = Arc::clone(&daemon.keys);
            let stopped = tokio::task::spawn_blocking(move || {
                keys.fence();
                keys.remove(&key).map(shut_down)
            });
            closed(stopped.await.ok().flatten()).await;
        }
    }
}

/// Why a key that is active is to be locked, by what is recorded.
fn why_over(recorder: &Recorder, key: &KeyLabel) -> Option<String> {
    let now = recorder.moment().at;
    let is_over = |facts: &KeyFacts| facts.active.is_some() && !facts.is_active(now);
    if recorder.fold().keys().get(key).is_none_or(is_over) {
        return Some("its time limit".to_owned());
    }
    let fold = recorder.fold();
    if let Some(incident) = fold.compromised_in(key) {
        return Some(format!("it is, or may be, Compromised itself (incident {incident})"));
    }
    let (_, incident, of) = active_for(fold).into_iter().find(|(active, ..)| active == key)?;
    has_ended(fold, &incident, of, now).or_else(|| {
        let count = Count::of_active(&fold.policy()?.policy, fold.keys().get(key)?, (&incident, of), now)?;
        (!count.is_enough()).then(|| count.shortfall())
    })
}

fn refused(why: &str, remedy: &str) -> StartError {
    StartError::Refused { why: why.to_owned(), remedy: remedy.to_owned() }
}

/// For the answers that come as lines.
pub(super) type Pieces = mpsc::Sender<Result<axum::body::Bytes, crate::api::failure::Failure>>;
