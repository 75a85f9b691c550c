//! Shell: `smkid`, from its arguments to its end. [`run`] is the order in which it starts and stops.

pub mod ceremony;
pub mod checkpoint;
pub mod clock;
pub mod configuration;
pub mod engine;
pub mod keys;
pub mod notify;
pub mod presentations;
pub mod responses;
pub mod start;

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::api::engine::{Engine, Fatal, FatalKind};
use crate::api::listener::{ListenError, Listener};
use crate::recorder::CHECKPOINT_TARGET;
use configuration::Configuration;
use notify::NotifyError;

/// How long the engine may take to stop: the commands that are with a token, and one checkpoint. Less than `TimeoutStopSec=` of
/// systemd/smkid.service, after which systemd would kill it without a word.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// The environment variable that says what is logged, such as `debug` or `smkid::hsm=trace`. Logs are not the audit.
const LOG: &str = "SMKID_LOG";

/// How the daemon ended. The numbers are those of sysexits(3) where one fits; `systemctl status` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Stopped,
    /// What it found forbids a start: no ledger, a rolled-back one, a socket in use.
    RefusedToStart,
    /// It could not record any more, be it its own end (`EX_IOERR`).
    CannotRecord,
    /// Its configuration is wrong (`EX_CONFIG`).
    BadConfiguration,
}

impl End {
    /// The exit status.
    pub const fn status(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::RefusedToStart => 70,
            Self::CannotRecord => 74,
            Self::BadConfiguration => 78,
        }
    }

    /// In words, for `systemctl status`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::RefusedToStart => "refused to start",
            Self::CannotRecord => "cannot record",
            Self::BadConfiguration => "wrong configuration",
        }
    }
}

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What was found forbids it.
    #[error("{why}. {remedy}")]
    Refused {
        /// What was found.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The configuration does not fit what was found.
    #[error("{why}. {remedy}")]
    Configuration {
        /// What was found.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// The start itself could not be recorded.
    #[error("cannot record: {why}. {remedy}")]
    CannotRecord {
        /// Why not.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// There is nothing to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The service manager passed something else than a socket.
    #[error(transparent)]
    Notify(#[from] NotifyError),
}

impl StartError {
    /// How the daemon ends by it.
    pub const fn end(&self) -> End {
        match self {
            Self::CannotRecord { .. } => End::CannotRecord,
            Self::Configuration { .. } => End::BadConfiguration,
            Self::Refused { .. } | Self::Listen(_) | Self::Notify(_) => End::RefusedToStart,
        }
    }
}

impl From<Fatal> for StartError {
    fn from(Fatal { kind, why, remedy }: Fatal) -> Self {
        match kind {
            FatalKind::CannotRecord => Self::CannotRecord { why, remedy },
            FatalKind::RefusedToStart => Self::Refused { why, remedy },
            FatalKind::Configuration => Self::Configuration { why, remedy },
        }
    }
}

/// HSM-backed SMKI key management daemon.
///
/// Signs GBCS recovery commands only under a recorded determination of the SMKI PMA. It is asked through its Unix socket, by
/// `smkictl`.
#[derive(Parser)]
#[command(
    name = "smkid",
    version,
    after_help = "Example:\n  smkid check-config --config /etc/smkid/smkid.toml\n\n\
    Exit status: 0 stopped when asked, 2 usage, 70 refused to start, 74 cannot record, 78 configuration"
)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, value_name = "FILE", default_value = configuration::PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Reads the configuration, says all that is wrong with it, or shows each setting in effect and where it came from.
    CheckConfig,
    /// Checks every entry, document, signature and row in the state directory, while smkid is stopped. A start checks what came after
    /// the last snapshot.
    CheckState,
    /// The process that holds one vendor's module; the daemon starts it.
    #[command(hide = true)]
    HsmWorker,
    /// The process that puts the shares of Key Custodians together; the daemon starts it.
    #[command(hide = true)]
    VaultWorker,
}

/// The whole program. `hsm_worker` and `vault_worker` are what the hidden subcommands do; `daemon` is [`daemon`] with the engine of this build.
pub fn main(
    hsm_worker: impl FnOnce() -> ExitCode,
    vault_worker: impl FnOnce() -> ExitCode,
    daemon: impl FnOnce(&Path) -> End,
) -> ExitCode {
    abort_on_panic();
    let arguments = Arguments::parse();
    let config = arguments.config.as_path();
    match arguments.command {
        Some(Command::HsmWorker) => hsm_worker(),
        Some(Command::VaultWorker) => vault_worker(),
        Some(Command::CheckConfig) => check_config(config).into(),
        Some(Command::CheckState) => check_state(config).into(),
        None => daemon(config).into(),
    }
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(end.status())
    }
}

/// A thread that panicked may have held a lock, a session or half a decision: the process ends and the start finds the truth
/// in the ledger. A daemon that lives on with a dead part is worse than one that restarts.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

fn check_config(path: &Path) -> End {
    let mut stderr = io::stderr().lock();
    match Configuration::read(path) {
        Ok(configuration) => {
            let mut stdout = io::stdout().lock();
            for setting in &configuration.settings {
                // Whoever closed the pipe has read enough.
                if writeln!(stdout, "{setting}").is_err() {
                    break;
                }
            }
            for warning in configuration.warnings() {
                let _ = writeln!(stderr, "warning: {warning}");
            }
            match clock_against_ledger(&configuration) {
                Ok(()) => End::Stopped,
                Err(fault) => {
                    let _ = writeln!(stderr, "{}: {fault}", path.display());
                    End::BadConfiguration
                }
            }
        }
        Err(error) => {
            let _ = writeln!(stderr, "{error}");
            End::BadConfiguration
        }
    }
}

fn check_state(path: &Path) -> End {
    let mut stderr = io::stderr().lock();
    let configuration = match Configuration::read(path) {
        Ok(configuration) => configuration,
        Err(error) => {
            let _ = writeln!(stderr, "{error}");
            return End::BadConfiguration;
        }
    };
    match start::check_state(&configuration) {
        Ok(fold) => {
            let _ = writeln!(io::stdout(), "{} entries, and what is kept of them: good", fold.size());
            End::Stopped
        }
        Err(fault) => {
            let _ = writeln!(stderr, "{}", StartError::from(fault.fatal()));
            End::RefusedToStart
        }
    }
}

/// A clock that is set, held against the ledger that lies there. One that is not set needs none, and none is opened.
fn clock_against_ledger(configuration: &Configuration) -> Result<(), start::StartFault> {
    if configuration.clock_offset_ms == 0 {
        return Ok(());
    }
    match start::ledger_purpose(configuration)? {
        Some(purpose) => start::check_clock(purpose, configuration),
        None => Ok(()),
    }
}

/// The daemon, with the configuration in the file at `path`. `make_engine` locks the state, resumes from the ledger and gives
/// what answers requests.
pub fn daemon<E, M, F>(path: &Path, make_engine: M) -> End
where
    E: Engine,
    M: FnOnce(Configuration) -> F,
    F: Future<Output = Result<Arc<E>, StartError>>,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter(std::env::var(LOG).ok().as_deref()))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();

    let configuration = match Configuration::read(path) {
        Ok(configuration) => configuration,
        Err(error) => {
            fatal(&error);
            return End::BadConfiguration;
        }
    };
    // PINs pass through this process: no core dump, no debugger of another account.
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps could not be forbidden");
    }
    // The workers are its only children: what a module started and a crash left over ends here.
    if let Err(error) = crate::hsm::family::adopt_orphans() {
        tracing::warn!(%error, "processes that a vendor's module leaves behind may outlive it");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            fatal(&format!("threads could not be started: {error}. Check TasksMax= and memory"));
            return End::RefusedToStart;
        }
    };
    let end = runtime.block_on(async {
        match asked_to_stop() {
            Ok(asked) => run(configuration, make_engine, asked).await,
            Err(error) => {
                fatal(&format!("signals cannot be awaited: {error}"));
                End::RefusedToStart
            }
        }
    });
    // What is still blocked in a look-up or a write may not hold up the end.
    runtime.shutdown_background();
    end
}

/// What is logged by the setting; always the checkpoints, which outsiders compare with the ledger.
fn filter(setting: Option<&str>) -> EnvFilter {
    let wanted = setting.and_then(|setting| EnvFilter::try_new(setting).ok()).unwrap_or_else(|| EnvFilter::new("info"));
    let checkpoints = format!("{CHECKPOINT_TARGET}=info").parse().expect("a target and a level are a directive");
    wanted.add_directive(checkpoints)
}

fn fatal(error: &dyn std::fmt::Display) {
    tracing::error!("{error}");
}

/// Says which signal came: SIGTERM of the service manager, SIGINT of a terminal.
fn asked_to_stop() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// The life of the daemon, top to bottom. `asked_to_stop` resolves with the reason once somebody wants its end.
pub async fn run<E, M, F>(
    configuration: Configuration,
    make_engine: M,
    asked_to_stop: impl Future<Output = &'static str>,
) -> End
where
    E: Engine,
    M: FnOnce(Configuration) -> F,
    F: Future<Output = Result<Arc<E>, StartError>>,
{
    let mut asked_to_stop = std::pin::pin!(asked_to_stop);
    let (roles, upload_len_max) = (configuration.roles.clone(), configuration.limits.upload_quota_octets);
    let (socket, group) = (configuration.socket.clone(), configuration.socket_group.clone());

    // 1. The engine: lock the state, read and check the ledger, resume what was cut off, record the start. It comes first, so
    //    that a second daemon on the same state fails at the lock and never touches the socket of the first.
    let made = tokio::select! {
        made = make_engine(configuration) => made,
        reason = asked_to_stop.as_mut() => {
            tracing::info!(reason, "stopped before the start was complete");
            return End::Stopped;
        }
    };
    let engine = match made {
        Ok(engine) => engine,
        Err(error) => return refused(&error),
    };

    // 2. The socket: passed by systemd, or made here. Nobody is answered before the engine knows where it stands.
    let listener = match listener(&socket, group.as_deref()) {
        Ok(listener) => listener,
        Err(error) => {
            if let Err(failure) = engine.stop("no socket to listen on").await {
                fatal(&failure);
            }
            return refused(&error);
        }
    };

    // 3. Serve, until asked to stop or unable to record.
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(listener.serve(Arc::clone(&engine), roles, upload_len_max, stopping));
    notify::ready("answering requests");
    tracing::info!("answering requests");
    let watched = Arc::clone(&engine);
    let watchdog = tokio::spawn(async move { notify::watch(|| watched.alive()).await });
    let end = tokio::select! {
        why = engine.cannot_go_on() => {
            let error = StartError::from(why);
            fatal(&format!("{error}. Nothing more is signed or released"));
            let end = error.end();
            notify::stopping(end.as_str());
            end
        }
        reason = asked_to_stop => {
            tracing::info!(reason, "stopping");
            notify::stopping("stopping");
            end_of(&*engine, reason, &stop).await
        }
    };

    // 4. Running answers get to their end, for a while; the socket is gone already.
    stop.send_replace(true);
    watchdog.abort();
    if let Err(error) = serving.await {
        tracing::warn!(%error, "the listener did not end by itself");
    }
    end
}

async fn end_of<E: Engine>(engine: &E, reason: &str, stop: &watch::Sender<bool>) -> End {
    stop.send_replace(true);
    match tokio::time::timeout(STOP_TIMEOUT, engine.stop(reason)).await {
        Ok(Ok(())) => End::Stopped,
        Ok(Err(failure)) => {
            fatal(&failure);
            End::CannotRecord
        }
        Err(_) => {
            fatal(&format!(
                "stopping took longer than {} s: a token still has commands or does not answer. This end is not recorded; the \
                 next start records what becomes of them",
                STOP_TIMEOUT.as_secs()
            ));
            notify::stopping("did not come to its end in time");
            End::CannotRecord
        }
    }
}

fn listener(path: &Path, group: Option<&str>) -> Result<Listener, StartError> {
    Ok(match notify::passed_socket()? {
        Some(passed) => Listener::passed(passed)?,
        None => Listener::bind(path, group)?,
    })
}

fn refused(error: &StartError) -> End {
    fatal(error);
    notify::stopping(error.end().as_str());
    error.end()
}

#[cfg(test)]
mod tests;
