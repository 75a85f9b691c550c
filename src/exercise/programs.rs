//! Shell: the programs that the exercise runs as processes of their own: the daemon, `smkictl` itself, openssl. Whatever is
//! started here is stopped here, also when the exercise ends early.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::api::client::SOCKET_VARIABLE;
use crate::api::client::{Client, ClientError};
use crate::api::wire::{ServiceState, Status};
use crate::hsm::family::children_of;

/// How long a start may take: the fold is rebuilt, and two tokens are logged in to.
const START_MAX: Duration = Duration::from_secs(120);
/// How long an orderly stop may take: longer than the daemon itself gives its engine.
const STOP_MAX: Duration = Duration::from_secs(90);
/// How often it is asked whether it has come so far.
const POLL: Duration = Duration::from_millis(20);
/// How much of the daemon's log is told when it ends by itself.
const LOG_TAIL_LINES: usize = 12;

/// Why a program did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// This program's own place is not known.
    #[error("where this program lies is not known: {0}")]
    NoPlace(#[source] io::Error),
    /// The daemon's program.
    #[error("{}: expected the smkid of this version beside smkictl, found none; install both together", .0.display())]
    NoDaemon(PathBuf),
    /// A program did not start.
    #[error("{program} did not start: {error}")]
    NotStarted {
        /// Which.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// A program failed.
    #[error("{command} ended with {status}: {said}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// The daemon ended.
    #[error("smkid ended by itself with {status}; the end of its log:\n{log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The last lines.
        log: String,
    },
    /// The daemon does not get ready.
    #[error("smkid was not ready after {} s: {why}; the end of its log:\n{log}", START_MAX.as_secs())]
    NotReady {
        /// What it says.
        why: String,
        /// The last lines.
        log: String,
    },
    /// The daemon does not end.
    #[error("smkid did not stop within {} s", STOP_MAX.as_secs())]
    NotStopped,
    /// A signal was not delivered.
    #[error("process {pid} cannot be signalled: {error}")]
    Signal {
        /// Whose.
        pid: i32,
        /// What the system said.
        error: io::Error,
    },
    /// A file of the daemon's.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    smkictl: PathBuf,
    smkid: PathBuf,
}

impl Programs {
    /// These. For whoever runs from elsewhere, such as a test.
    pub fn new(smkictl: PathBuf, smkid: PathBuf) -> Self {
        Self { smkictl, smkid }
    }

    /// This program, and the daemon beside it.
    pub fn find() -> Result<Self, ProgramError> {
        let smkictl = std::env::current_exe().map_err(ProgramError::NoPlace)?;
        let smkid = smkictl.with_file_name("smkid");
        if smkid.is_file() { Ok(Self { smkictl, smkid }) } else { Err(ProgramError::NoDaemon(smkid)) }
    }

    /// Runs `smkictl` with these arguments, to its end, whatever that is. It talks to the daemon at `socket`.
    pub async fn try_smkictl<A: AsRef<OsStr>>(&self, socket: &Path, arguments: &[A]) -> Result<Output, ProgramError> {
        run(&mut self.command(socket, arguments)).await
    }

    /// `smkictl` with these arguments, to be run by whoever asks. It ends when whoever runs it does.
    pub fn command<A: AsRef<OsStr>>(&self, socket: &Path, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.smkictl);
        command.args(arguments).env(SOCKET_VARIABLE, socket).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// The same, which must succeed. Answers what it printed.
    pub async fn smkictl<A: AsRef<OsStr>>(&self, socket: &Path, arguments: &[A]) -> Result<String, ProgramError> {
        self.smkictl_ending(socket, arguments, 0).await
    }

    /// The same, which must end with that exit status.
    pub async fn smkictl_ending<A: AsRef<OsStr>>(
        &self,
        socket: &Path,
        arguments: &[A],
        status: i32,
    ) -> Result<String, ProgramError> {
        let output = self.try_smkictl(socket, arguments).await?;
        ended("smkictl", arguments, output, status)
    }
}

/// Runs openssl in a folder, which must succeed; `None` if there is none on this machine.
pub async fn openssl(folder: &Path, arguments: &[&str]) -> Result<Option<String>, ProgramError> {
    match run(Command::new("openssl").args(arguments).current_dir(folder)).await {
        Ok(output) => ended("openssl", arguments, output, 0).map(Some),
        Err(ProgramError::NotStarted { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn run(command: &mut Command) -> Result<Output, ProgramError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| ProgramError::NotStarted { program, error })
}

fn ended<A: AsRef<OsStr>>(program: &str, arguments: &[A], output: Output, status: i32) -> Result<String, ProgramError> {
    if output.status.code() == Some(status) {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).trim().to_owned());
    Err(ProgramError::Failed {
        command: format!("{program} {}", arguments.join(" ")),
        status: output.status,
        said: said.join("\n").trim().to_owned(),
    })
}

/// A running daemon. It is killed when this is dropped.
pub struct Daemon {
    child: Child,
    pid: Pid,
    log: PathBuf,
    /// Talks to it.
    pub client: Client,
}

impl Daemon {
    /// Starts it with this configuration, and waits until it is ready. Its log is appended to a file.
    pub async fn start(
        programs: &Programs,
        configuration: &Path,
        socket: &Path,
        log: &Path,
    ) -> Result<Self, ProgramError> {
        let file = |error| ProgramError::File { path: log.to_owned(), error };
        let appended = File::options().create(true).append(true).open(log).map_err(file)?;
        let child = Command::new(&programs.smkid)
            .arg("--config")
            .arg(configuration)
            // As the systemd unit has it: what is rehearsed and measured is what runs.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(appended)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| ProgramError::NotStarted { program: "smkid".to_owned(), error })?;
        let pid =
            child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("a child not waited for has a pid");
        let mut daemon = Self { child, pid, log: log.to_owned(), client: Client::new(socket) };
        daemon.wait_until_ready().await?;
        Ok(daemon)
    }

    async fn wait_until_ready(&mut self) -> Result<(), ProgramError> {
        let begun = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(ProgramError::Ended { status, log: self.log_tail() });
            }
            let why = match self.client.get::<Status>("/v1/status").await {
                Ok(status) if status.state == ServiceState::Ready => return Ok(()),
                Ok(status) => status.problems.iter().map(|trouble| trouble.what.clone()).collect::<Vec<_>>().join("; "),
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > START_MAX {
                return Err(ProgramError::NotReady { why, log: self.log_tail() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Its process.
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// The processes that it started: one worker for each token it is logged in to, and one vault for each key of which it has shares.
    pub fn workers(&self) -> Vec<Pid> {
        children_of(self.pid)
    }

    /// The vaults among them.
    pub fn vaults(&self) -> Vec<Pid> {
        self.workers().into_iter().filter(|child| is_vault(*child)).collect()
    }

    /// Ends it as power that fails would: SIGKILL.
    pub async fn kill(mut self) -> Result<(), ProgramError> {
        signal(self.pid, Signal::KILL)?;
        self.child.wait().await.map_err(|error| self.not_waited(error))?;
        Ok(())
    }

    /// Asks it to stop, and waits for that.
    pub async fn stop(mut self) -> Result<ExitStatus, ProgramError> {
        signal(self.pid, Signal::TERM)?;
        match tokio::time::timeout(STOP_MAX, self.child.wait()).await {
            Ok(ended) => ended.map_err(|error| self.not_waited(error)),
            Err(_) => Err(ProgramError::NotStopped),
        }
    }

    fn not_waited(&self, error: io::Error) -> ProgramError {
        ProgramError::Signal { pid: self.pid.as_raw_nonzero().get(), error }
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

/// Whether that process lives, and is one that puts shares together.
pub fn is_vault(pid: Pid) -> bool {
    let arguments = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    arguments.split(|octet| *octet == 0).any(|argument| argument == b"vault-worker")
}

/// Signals a process that we, or a process of ours, started.
pub fn signal(pid: Pid, signal: Signal) -> Result<(), ProgramError> {
    kill_process(pid, signal)
        .map_err(|error| ProgramError::Signal { pid: pid.as_raw_nonzero().get(), error: error.into() })
}

/// A call that the daemon must refuse: with the reasons, if it did.
pub fn refusal<T>(answer: Result<T, ClientError>) -> Result<Result<T, Vec<String>>, ClientError> {
    match answer {
        Ok(done) => Ok(Ok(done)),
        Err(ClientError::Problem(problem)) if !problem.reasons.is_empty() => {
            let text = |reason: &crate::domain::ledger::entry::Reason| format!("{} ({})", reason.text, reason.rule);
            Ok(Err(problem.reasons.iter().map(text).collect()))
        }
        Err(error) => Err(error),
    }
}
