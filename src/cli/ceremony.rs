//! Shell: `smkictl ceremony`, from tokens without keys to a ledger with its first policy and a certified Recovery key.
//!
//! | step | makes | and if it is cut off |
//! |---|---|---|
//! | `keys` | key pairs on the tokens, `keys.json`, public keys | run again: goes on with those still missing |
//! | `adoption` | the document that adopts the first policy, for everyone to sign | run again |
//! | `begin` | the ledger, genesis on every token, the head on the ledger token | run again: completes what is missing |
//! | `request` | an intent, a certification request for the SMKI | run again: the intent is closed as unknown, a new one made |
//! | `import` | an entry with the issued certificate and its path | run again |
//! | `copy` | an entry that a key is on a further token, genesis on that token | run again: completes what is missing |
//!
//! No daemon runs meanwhile: the state directory is locked for as long as a step takes.

mod begin;
mod certificate;
mod copy;
mod keys;
mod opened;
mod room;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::input::InputError;
use super::print::Printer;
use super::{Change, CliError, Exit};
use crate::domain::certificates::bodies::BodyError;
use crate::domain::certificates::pem::PemError;
use crate::domain::determination::document::DocumentFault;
use crate::domain::ledger::entry::Reason;
use crate::domain::ledger::note::NoteError;
use crate::domain::names::{Digest, KeyLabel, Purpose, TokenName};
use crate::domain::policy::PolicyError;
use crate::hsm::HsmError;
use crate::recorder::CannotRecord;
use crate::service::configuration::{self, ConfigurationError};
use crate::service::start::StartFault;
use crate::store::StoreError;

pub use keys::{KeysFile, MadeKey};

/// Make the keys, begin the ledger, have the Recovery key certified.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
In this order, with no daemon running:
  smkictl ceremony keys     --policy keys-policy/ --out keys/
  smkictl ceremony adoption --policy keys-policy/ --out adoption.json
  smkictl determination sign adoption.json …             (everyone on the roster)
  smkictl ceremony begin    --policy keys-policy/ --out keys/ --adoption adoption.json --signature a.p7s --signature b.p7s
  smkictl ceremony request  --key recovery-1 --out keys/
  smkictl ceremony import   --key recovery-1 --certificate recovery.pem --chain issuing-oca.pem --chain root-oca.pem
and, for each token to which the maker's means cloned a key:
  smkictl ceremony copy     --key recovery-1 --token smki-b")]
pub enum Ceremony {
    /// Make the policy's keys on their tokens
    #[command(after_help = "Example:\n  smkictl ceremony keys --policy keys-policy/ --out keys/")]
    Keys(Keys),
    /// Write the document that adopts the first policy, for everyone on its roster to sign
    #[command(after_help = "Example:\n  smkictl ceremony adoption --policy keys-policy/ --out adoption.json")]
    Adoption(Adoption),
    /// Begin the ledger: genesis and the first policy
    #[command(after_help = "\
Example:
  smkictl ceremony begin --policy keys-policy/ --out keys/ --adoption adoption.json --signature a.p7s --signature b.p7s")]
    Begin(Begin),
    /// Make a certification request for a key, to be certified by the SMKI
    #[command(after_help = "Example:\n  smkictl ceremony request --key recovery-1 --out keys/")]
    Request(Request),
    /// Record the certificate that was issued for a key
    #[command(after_help = "\
Example:
  smkictl ceremony import --key recovery-1 --certificate recovery.pem --chain issuing-oca.pem --chain root-oca.pem")]
    Import(Import),
    /// Record that a key was cloned to a further token, once it is found there
    #[command(
        long_about = "Record that a key was cloned to a further token, once it is found there.\n\nThe clone is made before, by the means of \
                      the HSM's maker: no other way brings a key of ours to a token. This looks whether the token holds the same \
                      public key, with a private key that is as fit as the first; records it; and writes genesis to the token. The \
                      policy must name the token among the key's `copies`.",
        after_help = "Example:\n  smkictl ceremony copy --key recovery-1 --token smki-b"
    )]
    Copy(Copy),
}

/// Where the tokens are described and how to log in to them.
#[derive(Args, Debug)]
struct Tokens {
    /// The configuration of smkid: state directory and tokens
    #[arg(long, value_name = "FILE", default_value = configuration::PATH)]
    config: PathBuf,
    /// A file with the PIN of a token; in an exercise only. Else the configuration's, else it is asked for
    #[arg(long = "pin-file", value_name = "TOKEN=FILE", value_parser = pin_file)]
    pin_files: Vec<(TokenName, PathBuf)>,
}

/// `TOKEN=FILE`.
fn pin_file(text: &str) -> Result<(TokenName, PathBuf), String> {
    let (token, path) = text.split_once('=').ok_or_else(|| format!("expected TOKEN=FILE, found {text:?}"))?;
    Ok((token.parse().map_err(|error: crate::domain::names::NameError| error.to_string())?, path.into()))
}

/// Arguments of `keys`.
#[derive(Args, Debug)]
pub struct Keys {
    #[command(flatten)]
    tokens: Tokens,
    /// The directory with the policy's files
    #[arg(long, value_name = "DIR")]
    policy: PathBuf,
    /// Where keys.json and the public keys go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `adoption`.
#[derive(Args, Debug)]
pub struct Adoption {
    /// The directory with the policy's files
    #[arg(long, value_name = "DIR")]
    policy: PathBuf,
    /// Where the document goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `begin`.
#[derive(Args, Debug)]
pub struct Begin {
    #[command(flatten)]
    tokens: Tokens,
    /// The directory with the policy's files
    #[arg(long, value_name = "DIR")]
    policy: PathBuf,
    /// The directory with keys.json, where genesis, ledger.vkey and ledger.pem go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The adoption document
    #[arg(long, value_name = "FILE")]
    adoption: PathBuf,
    /// A detached CMS signature over it; once for each person
    #[arg(long = "signature", value_name = "P7S", required = true, num_args = 1..)]
    signatures: Vec<PathBuf>,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `request`.
#[derive(Args, Debug)]
pub struct Request {
    #[command(flatten)]
    tokens: Tokens,
    /// The label of the key
    #[arg(long, value_name = "LABEL")]
    key: KeyLabel,
    /// A commonName for the subject, which may be left out
    #[arg(long, value_name = "NAME")]
    common_name: Option<String>,
    /// Where recovery.csr goes
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `import`.
#[derive(Args, Debug)]
pub struct Import {
    #[command(flatten)]
    tokens: Tokens,
    /// The label of the key
    #[arg(long, value_name = "LABEL")]
    key: KeyLabel,
    /// The certificate that was issued for it, PEM or DER
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// A certificate above it; once for each, the issuer first and the root last
    #[arg(long = "chain", value_name = "FILE", required = true, num_args = 1..)]
    chain: Vec<PathBuf>,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `copy`.
#[derive(Args, Debug)]
pub struct Copy {
    #[command(flatten)]
    tokens: Tokens,
    /// The label of the key
    #[arg(long, value_name = "LABEL")]
    key: KeyLabel,
    /// The token to which it was cloned, as the policy calls it
    #[arg(long, value_name = "TOKEN")]
    token: TokenName,
    #[command(flatten)]
    change: Change,
}

/// Why a step of the ceremony was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// A file or an argument.
    #[error(transparent)]
    Cli(#[from] CliError),
    /// The configuration.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The policy.
    #[error("the policy in {}:\n{}", folder.display(), lines(faults))]
    Policy {
        /// Where.
        folder: PathBuf,
        /// All that is wrong.
        faults: Vec<PolicyError>,
    },
    /// A document.
    #[error("{}:\n{}", path.display(), lines(faults))]
    Document {
        /// Which.
        path: PathBuf,
        /// All that is wrong.
        faults: Vec<DocumentFault>,
    },
    /// Store, ledger, tokens and their PINs.
    #[error(transparent)]
    Start(#[from] StartFault),
    /// A certificate file.
    #[error("{}: {source}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: PemError,
    },
    /// The ledger's key.
    #[error("the ledger key: {0}")]
    Note(#[from] NoteError),
    /// The certification request cannot be made.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The worker's program is not there.
    #[error("{}: expected the smkid of this version beside smkictl, found none; install both together", path.display())]
    NoWorker {
        /// Where it should be.
        path: PathBuf,
    },
    /// A PIN file in earnest.
    #[error(
        "--pin-file is for exercises; this policy's purpose is {0}. Leave it out: the PIN is asked for on the terminal"
    )]
    PinFile(Purpose),
    /// A PIN file of a token that does not matter here.
    #[error("--pin-file {0}: no key of this step is on a token of that name")]
    PinFileUnused(TokenName),
    /// Nobody to ask.
    #[error("token {token}: its PIN is asked for on a terminal, and there is none; run this at the console")]
    NoTerminal {
        /// Which.
        token: TokenName,
    },
    /// Asking failed.
    #[error("token {token}: asking for its PIN failed: {source}")]
    Asking {
        /// Which.
        token: TokenName,
        /// Why.
        source: std::io::Error,
    },
    /// keys.json is no such thing.
    #[error("{}: {why}", path.display())]
    KeysFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A token that belongs to a ledger.
    #[error(
        "token {token} carries the genesis {found} of a ledger, so it is not used for another. Use another token, or initialise \
         this one anew if that ledger is given up"
    )]
    TokenTaken {
        /// Which.
        token: TokenName,
        /// The genesis it carries.
        found: Digest,
    },
    /// A key pair that no keys.json knows.
    #[error(
        "token {token} holds a key pair labelled {label} that {} does not name: an orphan, of a run that was cut off between \
         making it and writing it down, or of another ceremony. It is not used. If it is of no other ceremony, remove it (pkcs11-tool \
         --login --delete-object --type privkey --label {label}, then --type pubkey) or initialise the token anew, then run \
         this again: keys made before it stay",
        path.display()
    )]
    Orphan {
        /// On which token.
        token: TokenName,
        /// Its label.
        label: KeyLabel,
        /// The file.
        path: PathBuf,
    },
    /// There is a ledger already, and it is another one or needs nothing.
    #[error("{}: there is a ledger already, of genesis {genesis}: {why}", state.display())]
    Begun {
        /// The state directory.
        state: PathBuf,
        /// Its genesis leaf hash.
        genesis: Digest,
        /// How it differs, or that nothing is missing.
        why: String,
    },
    /// Refused, with every reason.
    #[error("refused:\n{}", reasons(.0))]
    Refused(Vec<Reason>),
    /// A key that is not there or has no such use.
    #[error("key {key}: {why}")]
    Key {
        /// Which.
        key: KeyLabel,
        /// What was expected.
        why: String,
    },
    /// The signature was not made.
    #[error("key {key}: the request was not signed ({why}). That is recorded; run this again")]
    NotSigned {
        /// The key.
        key: KeyLabel,
        /// What became of it.
        why: String,
    },
    /// Recording failed.
    #[error(transparent)]
    Record(#[from] CannotRecord),
}

impl From<InputError> for CeremonyError {
    fn from(error: InputError) -> Self {
        Self::Cli(error.into())
    }
}

impl From<std::io::Error> for CeremonyError {
    fn from(error: std::io::Error) -> Self {
        Self::Cli(error.into())
    }
}

impl From<StoreError> for CeremonyError {
    fn from(error: StoreError) -> Self {
        Self::Start(error.into())
    }
}

fn lines<T: ToString>(items: &[T]) -> String {
    items.iter().map(|item| format!("  {}", item.to_string())).collect::<Vec<_>>().join("\n")
}

fn reasons(reasons: &[Reason]) -> String {
    reasons.iter().map(|reason| format!("  {}: {}", reason.rule, reason.text)).collect::<Vec<_>>().join("\n")
}

impl CeremonyError {
    /// The exit status.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Cli(error) => error.exit(),
            Self::Refused(_)
            | Self::PinFile(_)
            | Self::Start(StartFault::PinStored { .. } | StartFault::ClockSet { .. }) => Exit::Refused,
            Self::Start(StartFault::Hsm { source, .. }) => hsm_exit(source),
            Self::Record(CannotRecord::Token(_)) | Self::NotSigned { .. } => Exit::Unreachable,
            Self::TokenTaken { .. }
            | Self::Start(StartFault::RolledBack { .. } | StartFault::HeadOrigin { .. } | StartFault::State(_)) => {
                Exit::Unverified
            }
            Self::Configuration(_)
            | Self::Policy { .. }
            | Self::Document { .. }
            | Self::Start(
                StartFault::Store(_)
                | StartFault::LedgerKey(_)
                | StartFault::NoLedgerKey
                | StartFault::NotConfigured { .. }
                | StartFault::LedgerToken { .. }
                | StartFault::PinAbsent { .. }
                | StartFault::PinFile { .. }
                | StartFault::HeadAbsent { .. }
                | StartFault::HeadUnreadable { .. },
            )
            | Self::Pem { .. }
            | Self::Note(_)
            | Self::Body(_)
            | Self::NoWorker { .. }
            | Self::PinFileUnused(_)
            | Self::NoTerminal { .. }
            | Self::Asking { .. }
            | Self::KeysFile { .. }
            | Self::Orphan { .. }
            | Self::Begun { .. }
            | Self::Key { .. }
            | Self::Record(_) => Exit::Local,
        }
    }
}

/// A token that is not the right one did not pass a check; any other trouble with it is that it cannot be used now.
fn hsm_exit(error: &HsmError) -> Exit {
    match error {
        HsmError::GenesisAbsent { .. }
        | HsmError::GenesisDiffers { .. }
        | HsmError::GenesisExists { .. }
        | HsmError::KeyAbsent { .. }
        | HsmError::KeyDuplicate { .. }
        | HsmError::KeyUnfit { .. }
        | HsmError::KeyDiffers { .. }
        | HsmError::WrongSignature(_) => Exit::Unverified,
        HsmError::Call(_)
        | HsmError::ModuleLoad { .. }
        | HsmError::TokenAbsent { .. }
        | HsmError::TokenDuplicate { .. }
        | HsmError::PinAtRisk { .. }
        | HsmError::PinRefused(_)
        | HsmError::PinWithheld { .. }
        | HsmError::PinMark { .. }
        | HsmError::MechanismAbsent { .. }
        | HsmError::DataDuplicate { .. }
        | HsmError::KeyExists { .. }
        | HsmError::KeyUnknown(_)
        | HsmError::Kind { .. }
        | HsmError::SignatureLength { .. }
        | HsmError::Overrun { .. }
        | HsmError::WorkerEnded { .. }
        | HsmError::Spawn { .. }
        | HsmError::Protocol { .. }
        | HsmError::QueueFull { .. }
        | HsmError::TooLong { .. }
        | HsmError::Locked => Exit::Unreachable,
    }
}

impl Ceremony {
    /// Does the step. Waits for tokens, so not within an async runtime.
    pub fn run(self, print: Printer) -> Exit {
        let result = match self {
            Self::Keys(keys) => keys.run(print),
            Self::Adoption(adoption) => adoption.run(print),
            Self::Begin(begin) => begin.run(print),
            Self::Request(request) => request.run(print),
            Self::Import(import) => import.run(print),
            Self::Copy(copy) => copy.run(print),
        };
        match result {
            Ok(()) => Exit::Done,
            Err(error) => {
                print.error(&error.to_string());
                error.exit()
            }
        }
    }
}
