//! Shell: the vault of a key, seen from the daemon. It starts the process, asks it, and ends it; what goes through here is sealed.
//!
//! ```text
//!   custodian's console ──share, sealed──▶ daemon ──▶ vault ──PIN, sealed──▶ daemon ──▶ worker of the token
//! ```
//!
//! Every call waits for the answer, at most for the deadline: call on a plain thread, or within `spawn_blocking`. A vault that does not
//! answer is killed, and what it held is gone.

pub mod process;
mod protocol;

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::file::CustodyFile;
use super::present::Purpose;
use crate::domain::names::{KeyLabel, PresentationId, TokenName};
use crate::hsm::family::Family;
use crate::hsm::one_time::SealTo;
use crate::hsm::protocol::{FrameError, decode, read_frame, write_message};
use crate::hsm::{PinKeeper, PinSource};
use protocol::{FromVault, Setup, ToVault};

/// How long a vault may take to answer: what it does is some thousandths of a second.
const DEADLINE: Duration = Duration::from_secs(5);

/// How a vault is run.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// The `smkid` that is run. `None`: this very program, even if its file was replaced since.
    pub program: Option<PathBuf>,
    /// How long an answer may take.
    pub deadline: Duration,
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self { program: None, deadline: DEADLINE }
    }
}

/// Why a vault did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum VaultFault {
    /// The share is not the one that was dealt with that index.
    #[error(
        "the share with index {index} does not fit its commitment: it was altered, or is of another generation or key. Is it the right \
         share file?"
    )]
    Altered {
        /// The index that it should have.
        index: u16,
    },
    /// What came was not sealed to this vault, for this presentation and statement.
    #[error(
        "what came was not sealed to this vault for this statement, or it was presented before, or altered on its way. Present the share \
         again"
    )]
    NotOurs,
    /// Too few shares.
    #[error("{have} shares are in the vault; {need} are needed")]
    TooFew {
        /// That are here.
        have: usize,
        /// k.
        need: usize,
    },
    /// The shares open nothing: the custody file was altered.
    #[error("the shares do not open the custody file: {why}")]
    Unsealable {
        /// What does not open.
        why: String,
    },
    /// Not enough shares were put together yet.
    #[error("the vault is closed: its shares were not put together yet")]
    Closed,
    /// There is no PIN of that token.
    #[error("{why}")]
    NoPin {
        /// Why not.
        why: String,
    },
    /// It is gone, and with it all that it held.
    #[error("the vault has ended ({why}): the shares in it are gone; present them again")]
    Ended {
        /// How.
        why: String,
    },
}

/// A vault. Cheap to clone; the process ends with the last handle, the PIN sources among them, or when it is shut down.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    /// One asking at a time; `None` once it has ended.
    pipe: Mutex<Option<Pipe>>,
    is_open: AtomicBool,
    process: Arc<Process>,
}

struct Pipe {
    socket: UnixStream,
    inward: Vec<u8>,
    outward: Vec<u8>,
}

/// The process itself.
struct Process {
    /// As long as it is not reaped.
    pid: Mutex<Option<Pid>>,
    keeper: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Vault {
    /// Starts a vault for the shares of a custody file.
    ///
    /// # Errors
    /// [`VaultFault::Ended`]: it could not be started, or cannot use the file.
    pub fn start(config: &VaultConfig, file: &CustodyFile) -> Result<Self, VaultFault> {
        let ended = |error: io::Error| VaultFault::Ended { why: format!("it could not be started: {error}") };
        let (socket, vaults) = UnixStream::pair().map_err(ended)?;
        socket.set_read_timeout(Some(config.deadline)).map_err(ended)?;
        socket.set_write_timeout(Some(config.deadline)).map_err(ended)?;
        let process = Process::start(config, &file.key, vaults, socket.try_clone().map_err(ended)?).map_err(ended)?;
        let setup = Setup {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parent_pid: rustix::process::getpid().as_raw_nonzero().get(),
            file: ByteBuf::from(file.octets()),
        };
        let mut pipe = Pipe { socket, inward: Vec::new(), outward: Vec::new() };
        match pipe.ask(&setup) {
            Ok(FromVault::Ready { warnings }) => {
                for warning in warnings {
                    tracing::warn!(key = %file.key, "vault: {warning}");
                }
            }
            Ok(FromVault::Refused { why }) => {
                process.end();
                return Err(VaultFault::Ended { why });
            }
            Ok(_) => {
                process.end();
                return Err(out_of_turn());
            }
            Err(error) => {
                process.end();
                return Err(VaultFault::Ended { why: error.to_string() });
            }
        }
        Ok(Self(Arc::new(Inner { pipe: Mutex::new(Some(pipe)), is_open: AtomicBool::new(false), process })))
    }

    /// Begins a presentation: the key to which the share is to be sealed ([`present::seal`](super::present::seal)), for this purpose alone.
    pub fn presentation(&self, purpose: &Purpose) -> Result<(PresentationId, SealTo), VaultFault> {
        match self.ask(&ToVault::Present { info: ByteBuf::from(purpose.info()) })? {
            FromVault::SealTo { presentation, seal_to } => Ok((presentation, seal_to)),
            _ => Err(self.misbehaved()),
        }
    }

    /// Takes the share with that index, as it was sealed for that presentation. Another with this index is replaced by it.
    ///
    /// # Errors
    /// [`VaultFault::NotOurs`], [`VaultFault::Altered`]: the presentation is used up all the same.
    pub fn take(&self, presentation: PresentationId, index: u16, sealed: &[u8]) -> Result<(), VaultFault> {
        self.done(&ToVault::Take { presentation, index, sealed: ByteBuf::from(sealed) })
    }

    /// Nothing will come for that presentation: its key is wiped.
    pub fn abandon(&self, presentation: PresentationId) -> Result<(), VaultFault> {
        self.done(&ToVault::Abandon { presentation })
    }

    /// The share with that index counts no more, and is wiped. Once the vault is open, shutting it down is what takes a PIN back.
    pub fn forget(&self, index: u16) -> Result<(), VaultFault> {
        self.done(&ToVault::Forget { index })
    }

    /// Puts the shares with these indices together and opens the PINs. Of a vault that is open already nothing is asked.
    ///
    /// # Errors
    /// [`VaultFault::TooFew`], [`VaultFault::Unsealable`].
    pub fn open(&self, indices: &[u16]) -> Result<(), VaultFault> {
        self.done(&ToVault::Open { indices: indices.to_vec() })?;
        self.0.is_open.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Where the worker of a token gets its PIN from, as long as the vault lives.
    pub fn pin_source(&self, token: TokenName, serial: String) -> PinSource {
        PinSource::Apart(Arc::new(PinOf { vault: self.clone(), token, serial }))
    }

    /// Whether the other handle is of this very vault.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it lives and its PINs are open.
    pub fn is_open(&self) -> bool {
        self.0.is_open.load(Ordering::SeqCst) && self.is_alive()
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.0.process.pid().is_some()
    }

    /// Its process id, for status; `None` once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.0.process.pid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned())
    }

    /// Ends it: shares, secret and PINs are gone when this returns.
    pub fn shutdown(&self) {
        self.0.process.end();
        lock(&self.0.pipe).take();
    }

    fn done(&self, asked: &ToVault) -> Result<(), VaultFault> {
        match self.ask(asked)? {
            FromVault::Done => Ok(()),
            _ => Err(self.misbehaved()),
        }
    }

    fn ask(&self, asked: &ToVault) -> Result<FromVault, VaultFault> {
        let mut pipe = lock(&self.0.pipe);
        let Some(open) = pipe.as_mut() else {
            return Err(VaultFault::Ended { why: "it was shut down".to_owned() });
        };
        match open.ask(asked) {
            Ok(FromVault::Fault(fault)) => Err(fault),
            Ok(answer) => Ok(answer),
            Err(error) => {
                // Whatever it is, the next answer could be one to this asking.
                pipe.take();
                self.0.process.end();
                Err(VaultFault::Ended { why: error.to_string() })
            }
        }
    }

    fn misbehaved(&self) -> VaultFault {
        self.shutdown();
        out_of_turn()
    }
}

fn out_of_turn() -> VaultFault {
    VaultFault::Ended { why: "it answered something else than it was asked".to_owned() }
}

impl Pipe {
    fn ask(&mut self, asked: &impl Serialize) -> Result<FromVault, FrameError> {
        write_message(&mut self.socket, asked, &mut self.outward)?;
        decode(read_frame(&mut self.socket, &mut self.inward)?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.process.end();
    }
}

impl Process {
    fn start(config: &VaultConfig, key: &KeyLabel, vaults: UnixStream, ours: UnixStream) -> io::Result<Arc<Self>> {
        let program = config.program.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let mut command = Command::new(program);
        // A group of its own: a signal of the terminal does not end it.
        command.arg("vault-worker").env_clear().process_group(0).stdin(OwnedFd::from(vaults)).stdout(std::io::stderr());
        let process = Arc::new(Self { pid: Mutex::new(None), keeper: Mutex::new(None) });
        let (tell, told) = mpsc::channel();
        let kept = Arc::clone(&process);
        // The parent-death signal goes by the *thread* that made the process, so that must be one that lives as long as it.
        let keeper = thread::Builder::new().name(format!("vault-{key}")).spawn(move || {
            let (mut child, family) = match Family::start(|| command.spawn()) {
                Ok(made) => made,
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            // Our copy of its end of the pipe goes with the command: then only it holds it.
            drop(command);
            *lock(&kept.pid) = Some(family.pid());
            let _ = tell.send(Ok(()));
            family.wait_for_death();
            let _ = ours.shutdown(Shutdown::Both);
            // Before it is reaped: from then on its number may be another's.
            lock(&kept.pid).take();
            let _ = child.wait();
            family.end();
        })?;
        *lock(&process.keeper) = Some(keeper);
        told.recv().unwrap_or_else(|_| Err(io::Error::other("its keeper ended")))?;
        Ok(process)
    }

    fn pid(&self) -> Option<Pid> {
        *lock(&self.pid)
    }

    /// It has nothing to finish, so it is killed; waits until it is gone.
    fn end(&self) {
        if let Some(pid) = *lock(&self.pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Some(keeper) = lock(&self.keeper).take() {
            let _ = keeper.join();
        }
    }
}

/// The PIN of one token, in a vault.
struct PinOf {
    vault: Vault,
    token: TokenName,
    serial: String,
}

impl PinKeeper for PinOf {
    fn seal_pin(&self, seal_to: &SealTo) -> Result<Vec<u8>, String> {
        let asked = ToVault::Pin { token: self.token.clone(), serial: self.serial.clone(), seal_to: seal_to.clone() };
        match self.vault.ask(&asked) {
            Ok(FromVault::Pin { sealed }) => Ok(sealed.into_vec()),
            Ok(_) => Err(self.vault.misbehaved().to_string()),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
