//! Shell: the vault process, `smkid vault-worker`. One for each key whose custodians present shares; the only process in which shares meet. One
//! thread, which answers what comes on its standard input, and ends with it. It loads no module and starts nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::VaultFault;
use super::protocol::{FromVault, Setup, ToVault};
use crate::custody::file::CustodyFile;
use crate::custody::scheme::{Commitments, SCALAR_LEN, SchemeError, Share};
use crate::domain::names::{PresentationId, TokenName};
use crate::hsm::hardening;
use crate::hsm::one_time::{OneTimeKey, PinFor, SealTo, pin_info};
use crate::hsm::protocol::{FrameError, Stranger, admit, decode, read_frame, write_message};

/// Presentations that may be begun at a time: whoever begins more has the oldest forgotten. No official reference: several for each of
/// a hundred custodians.
const PRESENTATIONS_MAX: usize = 256;

/// The hidden subcommand. Its standard input is the pipe to who started it; it takes no arguments and reads no environment.
pub fn main() -> ExitCode {
    let warnings = hardening::harden();
    match run(warnings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vault-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why the vault ends other than in peace.
#[derive(Debug, thiserror::Error)]
enum VaultError {
    #[error("the pipe to the daemon: {0}")]
    Pipe(#[from] FrameError),
    #[error("the pipe to the daemon: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Stranger(#[from] Stranger),
    #[error("the custody file: {0}")]
    File(String),
}

fn run(warnings: Vec<String>) -> Result<(), VaultError> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?).map_err(io::Error::from)?;
    let (mut inward, mut outward) = (Vec::new(), Vec::new());
    let setup: Setup = decode(read_frame(&mut socket, &mut inward)?)?;
    admit(&setup.version, setup.parent_pid)?;
    let mut holding = match Holding::new(&setup.file) {
        Ok(holding) => holding,
        Err(why) => {
            write_message(&mut socket, &FromVault::Refused { why: why.clone() }, &mut outward)?;
            return Err(VaultError::File(why));
        }
    };
    write_message(&mut socket, &FromVault::Ready { warnings }, &mut outward)?;
    loop {
        let asked = match read_frame(&mut socket, &mut inward).and_then(decode) {
            Ok(asked) => asked,
            Err(FrameError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let answer = holding.answer(asked).unwrap_or_else(FromVault::Fault);
        write_message(&mut socket, &answer, &mut outward)?;
    }
}

/// All that the vault has.
struct Holding {
    file: CustodyFile,
    commitments: Commitments,
    /// In the order in which they came.
    begun: Vec<(PresentationId, OneTimeKey, Vec<u8>)>,
    /// By index, each of which fits; gone once the PINs are open.
    shares: BTreeMap<u16, Share>,
    /// Once enough shares were put together.
    pins: Option<Vec<(TokenName, Box<str>, SecretString)>>,
}

impl Holding {
    fn new(file: &[u8]) -> Result<Self, String> {
        let file = CustodyFile::from_octets(file)?;
        let commitments = file.commitments().map_err(|error| error.to_string())?;
        Ok(Self { file, commitments, begun: Vec::new(), shares: BTreeMap::new(), pins: None })
    }

    fn answer(&mut self, asked: ToVault) -> Result<FromVault, VaultFault> {
        match asked {
            ToVault::Present { info } => self.begin(info.into_vec()),
            ToVault::Take { presentation, index, sealed } => self.take(presentation, index, &sealed),
            ToVault::Abandon { presentation } => {
                self.begun.retain(|(begun, ..)| *begun != presentation);
                Ok(FromVault::Done)
            }
            ToVault::Forget { index } => {
                self.shares.remove(&index);
                Ok(FromVault::Done)
            }
            ToVault::Open { indices } => self.open(&indices),
            ToVault::Pin { token, serial, seal_to } => self.pin(&token, &serial, &seal_to),
        }
    }

    fn begin(&mut self, info: Vec<u8>) -> Result<FromVault, VaultFault> {
        let mut id = PresentationId([0; PresentationId::LEN]);
        SystemRandom::new().fill(&mut id.0).map_err(|_| VaultFault::Ended { why: "no random numbers".to_owned() })?;
        if self.begun.len() >= PRESENTATIONS_MAX {
            self.begun.remove(0);
        }
        let key = OneTimeKey::make();
        let seal_to = key.seal_to().clone();
        self.begun.push((id, key, info));
        Ok(FromVault::SealTo { presentation: id, seal_to })
    }

    fn take(&mut self, id: PresentationId, index: u16, sealed: &[u8]) -> Result<FromVault, VaultFault> {
        let at = self.begun.iter().position(|(begun, ..)| *begun == id).ok_or(VaultFault::NotOurs)?;
        let (_, key, info) = self.begun.remove(at);
        let octets = key.open(&info, sealed).map_err(|_| VaultFault::NotOurs)?;
        let scalar = <[u8; SCALAR_LEN]>::try_from(octets.as_slice()).map(Zeroizing::new);
        let scalar = scalar.map_err(|_| VaultFault::Altered { index })?;
        let is_dealt = self.file.holders.iter().any(|holder| holder.index == index);
        let share = Share::new(index, scalar).ok().filter(|share| is_dealt && self.commitments.fit(share));
        let share = share.ok_or(VaultFault::Altered { index })?;
        // With the PINs open it has done its work already.
        if self.pins.is_none() {
            self.shares.insert(index, share);
        }
        Ok(FromVault::Done)
    }

    /// Once the PINs are open no share is needed: they are wiped, and the secret with them.
    fn open(&mut self, indices: &[u16]) -> Result<FromVault, VaultFault> {
        if self.pins.is_none() {
            let chosen: Vec<Share> = indices.iter().filter_map(|index| self.shares.get(index).cloned()).collect();
            let secret = self.commitments.combine(&chosen).map_err(|error| match error {
                SchemeError::TooFew { have, need } => VaultFault::TooFew { have, need },
                error => VaultFault::Unsealable { why: error.to_string() },
            })?;
            let open = |sealed| {
                let pin = self.file.pin(&secret, sealed)?;
                Ok((sealed.token.clone(), sealed.serial.clone(), pin))
            };
            let pins: Result<Vec<_>, crate::custody::file::FileError> = self.file.tokens.iter().map(open).collect();
            self.pins = Some(pins.map_err(|error| VaultFault::Unsealable { why: error.to_string() })?);
            self.shares.clear();
        }
        Ok(FromVault::Done)
    }

    fn pin(&self, token: &TokenName, serial: &str, seal_to: &SealTo) -> Result<FromVault, VaultFault> {
        let pins = self.pins.as_ref().ok_or(VaultFault::Closed)?;
        let Some((.., pin)) = pins.iter().find(|(name, number, _)| name == token && **number == *serial) else {
            let why = self.file.token(token, serial).map_or_else(|error| error.to_string(), |_| "no PIN".to_owned());
            return Err(VaultFault::NoPin { why });
        };
        let sealed = seal_to.seal(&pin_info(PinFor::Login, token, serial), pin.expose_secret().as_bytes());
        let sealed = sealed.map_err(|error| VaultFault::NoPin { why: error.to_string() })?;
        Ok(FromVault::Pin { sealed: ByteBuf::from(sealed) })
    }
}
