//! Shell: how the engine comes to be: lock and check the ledger, resume what was cut off, record the start; and what it does
//! by itself while it runs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::super::StartError;
use super::super::checkpoint::TokenSigner;
use super::super::clock::{Before, Clock};
use super::super::configuration::Configuration;
use super::super::keys::Keys;
use super::super::start::{self, StartFault};
use super::Daemon;
use super::heartbeat::{self, Heartbeat};
use super::keys::lock;
use crate::api::engine::{Fatal, FatalKind};
use crate::api::wire::Trouble;
use crate::domain::fold::Fold;
use crate::domain::ledger::entry::{Actor, Started};
use crate::domain::names::{Digest, KeyLabel, Purpose};
use crate::hsm::{Condition, HsmError, Token};
use crate::pipeline;
use crate::recorder::{CannotRecord, Desk, Recorded, Recorder};
use crate::store::{Reader, Store as _};

/// How often the engine looks after its keys: locks what is over, brings back a worker that died.
const TICK: Duration = Duration::from_secs(1);

/// How long an absent ledger token is waited for between two looks.
const RETRY: Duration = Duration::from_secs(5);

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
        CannotRecord::Token(_) => "Bring the ledger token back, then start smkid again",
        CannotRecord::Checkpoint(_) => "Check that the ledger token is the one of this ledger, then start smkid again",
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
    let Opened { configuration, recorder, clock, fold, staging, reader } = opened;
    let state = configuration.state.clone();
    let head_interval = Duration::from_secs(configuration.ledger.head_interval_s);
    let (configuration_digest, chunk) = (configuration.digest, configuration.signing_chunk);

    let (failure, failed) = watch::channel(None);
    let hears = failure.clone();
    let (desk, _) = Desk::open(recorder, move |why: CannotRecord| {
        hears.send_replace(Some(cannot_record(&why)));
    })
    .map_err(|error| refused(&format!("a thread could not be started: {error}"), "Check TasksMax="))?;

    let keys = Arc::new(Keys::new(configuration.clone()));
    let (ready, not_ready) = watch::channel(Some(absent("the ledger token is not there yet".to_owned())));
    let (stopping, _) = watch::channel(false);
    let daemon = Arc::new(Daemon {
        desk: desk.clone(),
        keys: Arc::clone(&keys),
        clock: Arc::clone(&clock),
        staging,
        reader: Arc::new(Mutex::new(reader)),
        state: state.clone(),
        scans: Arc::new(Semaphore::new(super::SCANS_MAX)),
        looks: Arc::new(Semaphore::new(super::LOOKS_MAX)),
        chunk,
        failed,
        heartbeat: Arc::new(Heartbeat::new(heartbeat::SILENCE_MAX)),
        stopping: stopping.clone(),
        jobs: Mutex::new(JoinSet::new()),
        running: Arc::new(Mutex::new(BTreeSet::new())),
        runs_ended: Arc::new(AtomicU64::new(0)),
        not_ready,
    });

    // The ledger token once now, so that a ledger that was rolled back is refused before anybody is answered; if it is merely
    // absent, reads are answered and it is waited for.
    let (configuration, fold) = (Arc::new(configuration), Arc::new(fold));
    match signer(Arc::clone(&configuration), Arc::clone(&fold), state.clone()).await {
        Ok(signer) => begin(&desk, &keys, signer.on_clock(clock), configuration_digest, &ready).await?,
        Err(SignerFault::Absent(why)) => {
            tracing::warn!("{why}. Reads are answered; nothing is recorded until the ledger token is there");
            ready.send_replace(Some(absent(why)));
            let (desk, ready, keys) = (desk.clone(), ready.clone(), Arc::clone(&keys));
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(RETRY).await;
                    match signer(Arc::clone(&configuration), Arc::clone(&fold), state.clone()).await {
                        Ok(signer) => {
                            let signer = signer.on_clock(clock);
                            if let Err(why) = begin(&desk, &keys, signer, configuration_digest, &ready).await {
                                // What the recorder itself said before says more.
                                failure.send_if_modified(|failed| failed.is_none() && failed.replace(why).is_none());
                            }
                            return;
                        }
                        Err(SignerFault::Absent(why)) => {
                            ready.send_replace(Some(absent(why)));
                        }
                        Err(SignerFault::Wrong(why)) => {
                            failure.send_replace(Some(why));
                            return;
                        }
                        // A PIN is offered once; an operator has to look.
                        Err(SignerFault::Locked(Fatal { kind: _, why: what, remedy })) => {
                            tracing::error!("{what}. {remedy}");
                            ready.send_replace(Some(Trouble { what, remedy }));
                            return;
                        }
                    }
                }
            });
        }
        Err(SignerFault::Wrong(why) | SignerFault::Locked(why)) => return Err(why.into()),
    }
    tokio::spawn(heartbeat::beat(Arc::clone(&daemon.heartbeat), desk));
    tokio::spawn(look_after(Arc::clone(&daemon), head_interval, stopping.subscribe()));
    Ok(daemon)
}

struct Opened {
    configuration: Configuration,
    recorder: Recorder,
    clock: Arc<Clock>,
    fold: Fold,
    staging: Arc<crate::store::Staging>,
    reader: Box<dyn Reader + Send>,
}

fn open(configuration: Configuration) -> Result<Opened, StartError> {
    let (store, fold) = start::open_ledger(&configuration)?;
    let purpose = fold.purpose().unwrap_or(Purpose::Live);
    start::check_clock(purpose, &configuration)?;
    if configuration.clock_offset_ms != 0 {
        tracing::warn!(
            offset_ms = configuration.clock_offset_ms,
            "the clock is set for an exercise; every entry says so"
        );
    }
    for key in fold.keys().values() {
        let settings = start::configured(&configuration, &key.record.token)?;
        start::check_pin_source(purpose, settings, [key.record.use_])?;
    }
    store.reserve_space(configuration.limits.reserve_octets).map_err(StartFault::from)?;
    let clock = Arc::new(Clock::start(Before::of(&fold), configuration.clock_offset_ms));
    let staging = Arc::clone(store.staging());
    let reader = store.reader().map_err(StartFault::from)?;
    let mut recorder =
        Recorder::new(Box::new(store), fold.clone(), Arc::clone(&clock).read_by()).map_err(StartFault::from)?;
    recorder.set_refusals_told_max(configuration.limits.refusals_per_minute);
    Ok(Opened { configuration, recorder, clock, fold, staging, reader })
}

/// Why there is no ledger token.
enum SignerFault {
    /// It may come.
    Absent(String),
    /// It is not the token of this ledger, this is not the ledger of the token, or the configuration is wrong.
    Wrong(Fatal),
    /// It takes an operator.
    Locked(Fatal),
}

/// While the ledger token is merely not there.
fn absent(what: String) -> Trouble {
    Trouble { what, remedy: "Insert the ledger token, or check [ledger] and its [[token]]".into() }
}

async fn signer(
    configuration: Arc<Configuration>,
    fold: Arc<Fold>,
    state: PathBuf,
) -> Result<TokenSigner, SignerFault> {
    let started = tokio::task::spawn_blocking(move || {
        let reader = crate::store::sqlite::SqliteReader::open(&state)?;
        let settings = start::configured(&configuration, &configuration.ledger.token)?;
        let absent = || StartFault::PinAbsent { token: settings.name.clone() };
        let pin = start::stored_pin(settings.pin.as_ref().ok_or_else(absent)?)?;
        start::ledger_signer(&configuration, &fold, &reader, None, pin)
    });
    let started = started.await.map_err(|error| SignerFault::Absent(error.to_string()))?;
    started.map_err(|fault| {
        let fatal = fault.fatal();
        match fault {
            StartFault::Hsm { source, .. } if source.locks() => SignerFault::Locked(fatal),
            StartFault::Hsm { .. } => SignerFault::Absent(fatal.why),
            StartFault::Store(_)
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
            | StartFault::RolledBack { .. } => SignerFault::Wrong(fatal),
        }
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
    keys.set_ledger(signer.token().clone());
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
    let head = desk.record(|recorder| {
        let signed = recorder.checkpointed() == recorder.durable().size;
        Ok(recorder.fold().origin().cloned().filter(|_| signed).map(|origin| (origin, recorder.durable())))
    });
    let Ok(Some((origin, head))) = head.await.map(Recorded::into_inner) else { return false };
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
    keys.set_head_trouble(trouble);
    is_kept
}

/// What the engine does by itself: locks keys whose time is over or whose token is locked, replaces workers that died, tells how
/// many refusals were counted, keeps the head, drops old uploads.
async fn look_after(daemon: Arc<Daemon>, head_interval: Duration, mut stopping: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut head_at = tokio::time::Instant::now() + head_interval;
    let (mut kept, mut runs_kept) = (0, 0);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        if daemon.not_ready.borrow().is_some() {
            continue;
        }
        for (key, token) in daemon.keys.all_active() {
            look_after_key(&daemon, key, token).await;
        }
        let at = daemon.clock.now().at;
        daemon.staging.expire(at.plus_ms(-UPLOAD_MS_MAX));
        let runs_ended = daemon.runs_ended.load(Ordering::Relaxed);
        let at_rest = daemon.running.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let Ok(size) = daemon
            .desk
            .record(|recorder| {
                recorder.fold_refusals(None)?;
                Ok(recorder.durable().size)
            })
            .await
        else {
            return;
        };
        let size = size.into_inner();
        // At the interval, and soon after the last job came to its end: what was signed is not to be undone by an older copy.
        let interval_is_over = tokio::time::Instant::now() >= head_at && size > kept;
        if interval_is_over || (at_rest && runs_ended > runs_kept) {
            if keep_head(&daemon.desk, &daemon.keys).await {
                kept = size;
            }
            runs_kept = runs_ended;
            head_at = tokio::time::Instant::now() + head_interval;
        }
    }
}

async fn look_after_key(daemon: &Daemon, key: KeyLabel, token: Token) {
    let why = match token.condition() {
        Condition::Up => None,
        Condition::Down(_) => {
            let brought = token.clone();
            let restarted = tokio::task::spawn_blocking(move || brought.restart()).await;
            match restarted {
                Ok(Ok(_)) => {
                    tracing::info!(key = %key, "its worker was replaced");
                    None
                }
                Ok(Err(error)) if error.locks() => Some(locked_by(&error)),
                Ok(Err(error)) => {
                    tracing::warn!(key = %key, %error, "its token is away");
                    None
                }
                Err(_) => None,
            }
        }
        Condition::Locked(error) => Some(locked_by(&error)),
    };
    let keys = Arc::clone(&daemon.keys);
    let checked = daemon.desk.record(move |recorder| {
        let now = recorder.moment().at;
        let over = recorder.fold().keys().get(&key).is_none_or(|facts| facts.active.is_some() && !facts.is_active(now));
        let Some(reason) = why.or_else(|| over.then(|| "its time limit".to_owned())) else { return Ok(None) };
        lock(recorder, &Actor::daemon(), &keys, &key, &reason).map(|(_, token)| token)
    });
    if let Ok(token) = checked.await
        && let Some(token) = token.into_inner()
    {
        let _ = tokio::task::spawn_blocking(move || token.shutdown()).await;
    }
}

fn locked_by(error: &HsmError) -> String {
    format!("its token is locked: {error}")
}

fn refused(why: &str, remedy: &str) -> StartError {
    StartError::Refused { why: why.to_owned(), remedy: remedy.to_owned() }
}

/// For the answers that come as lines.
pub(super) type Pieces = mpsc::Sender<Result<axum::body::Bytes, crate::api::failure::Failure>>;
