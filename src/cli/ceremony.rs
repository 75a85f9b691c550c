//! Shell: `smkictl ceremony`, from tokens without keys to a ledger with its first policy and a certified Recovery key.
//!
//! | step | makes | and if it is cut off |
//! |---|---|---|
//! | `plan`, `check` | a plan to review; nothing | run again |
//! | `run` | all that the plan says, by the steps below, with a journal | run again: goes on at the step it was at |
//! | `transcript` | the minutes, of a journal or of what the ledger keeps | run again |
//! | `keys` | key pairs on the tokens, `keys.json`, public keys | run again: goes on with those still missing |
//! | `adoption` | the document that adopts the first policy, for everyone to sign | run again |
//! | `begin` | the ledger, genesis on every token, the head on the ledger token | run again: completes what is missing |
//! | `request` | an intent, a certification request for the SMKI | run again: the intent is closed as unknown, a new one made |
//! | `import` | an entry with the issued certificate and its path | run again |
//! | `contingency` | what stands beside a contingency key, an entry, the field for the Root OCA Certificate | run again: goes on with what is missing |
//! | `import-root` | an entry with the Root OCA Certificate that carries it | run again |
//! | `copy` | an entry that a key is on a further token, genesis on that token | run again: completes what is missing |
//! | `deal` | share files, the custody file, new PINs, an entry | run again: see there |
//! | `destroy` | a document for the quorum; then an intent, a key that is on no token any more, an outcome | run again: see there |
//!
//! No daemon runs meanwhile: the state directory is locked for as long as a step takes. `copy` and `deal` go beside a running daemon as well,
//! and so does `run` for plans of these kinds: the daemon then judges and records what was done. `plan`, `check` and `destroy draft` only read.

mod begin;
mod certificate;
mod conduct;
mod contingency;
mod copy;
mod deal;
mod desk;
mod destroy;
mod journal;
mod keys;
mod minutes;
mod opened;
mod papers;
mod plan;
mod rehearsal;
mod room;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::input::InputError;
use super::print::Printer;
use super::{Change, CliError, Exit};
use crate::domain::certificates::bodies::BodyError;
use crate::domain::certificates::pem::PemError;
use crate::domain::determination::document::DocumentFault;
use crate::domain::determination::words::Words;
use crate::domain::ledger::entry::Reason;
use crate::domain::ledger::note::NoteError;
use crate::domain::ledger::transcript::LineFault;
use crate::domain::names::{Digest, KeyId, KeyLabel, PersonId, Purpose, TokenName};
use crate::domain::policy::PolicyError;
use crate::hsm::HsmError;
use crate::recorder::CannotRecord;
use crate::service::configuration::{self, ConfigurationError};
use crate::service::start::StartFault;
use crate::store::StoreError;

use plan::PlanFault;

pub use keys::{KeysFile, MadeKey};

/// Make the keys, begin the ledger, have the Recovery key certified.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
In this order, with no daemon running (copy and deal may go beside a running one):
  smkictl ceremony keys     --policy keys-policy/ --out keys/
  smkictl ceremony adoption --policy keys-policy/ --out adoption.json
  smkictl determination sign adoption.json …             (everyone on the roster)
  smkictl ceremony begin    --policy keys-policy/ --out keys/ --adoption adoption.json --signature a.p7s --signature b.p7s
  smkictl ceremony request  --key recovery-1 --out keys/
  smkictl ceremony import   --key recovery-1 --certificate recovery.pem --chain issuing-oca.pem --chain root-oca.pem
and, for a contingency key that may sign:
  smkictl ceremony contingency --key contingency-1 --out keys/
  smkictl ceremony import-root --key contingency-1 --root root-oca.pem     (the Root OCA Certificate that carries the field)
and, for each token to which the maker's means cloned a key:
  smkictl ceremony copy     --key recovery-1 --token smki-b
and, where Key Custodians open the key, when all its tokens are there:
  smkictl ceremony deal     --key recovery-1 --out shares/")]
pub enum Ceremony {
    /// Write a plan to review, from a policy and a configuration
    #[command(after_help = "\
Example:
  smkictl ceremony plan --policy keys-policy/ --conductor operator-1 --witness 'A. Guest' --witness auditor-1 --out plan.toml")]
    Plan(papers::Draft),
    /// Hold a plan against its policy and its configuration
    #[command(after_help = "Example:\n  smkictl ceremony check plan.toml")]
    Check(papers::Check),
    /// Hold the ceremony that a plan describes, step by step; go on with it after an interruption
    #[command(after_help = "\
Examples:
  smkictl ceremony run --dry-run plan.toml      (the same, on scratch tokens)
  smkictl ceremony run plan.toml

Status: 0 it is over, 6 it was adjourned in good order; anything else: a step failed. After an interruption or a failure, the same
command goes on at the step it was at.")]
    Run(conduct::Run),
    /// Print the minutes of a ceremony, and make the page that is signed by hand
    #[command(after_help = "Example:\n  smkictl ceremony transcript ceremony/ --html minutes.html")]
    Transcript(papers::Transcript),
    /// Destroy a key on all its tokens, by a document that the policy's quorum signed
    #[command(subcommand)]
    Destroy(destroy::Destroy),
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
    /// Make the Contingency Symmetric Key beside a contingency key, and the field for the Root OCA Certificate
    #[command(
        long_about = "Make the Contingency Symmetric Key beside a contingency key, and the field for the Root OCA Certificate.\n\nThe \
                      token's security officer is asked for: only they can make the wrapping key a trusted one, without which the symmetric \
                      key would leave the token under any key. The token wraps the public half of the key pair with the symmetric key; what \
                      comes of it is handed to the Root OCA's operator as DER and as text.",
        after_help = "Example:\n  smkictl ceremony contingency --key contingency-1 --out keys/"
    )]
    Contingency(Contingency),
    /// Record the Root OCA Certificate that carries a contingency key
    #[command(
        long_about = "Record the Root OCA Certificate that carries a contingency key.\n\nIts field must be the very one that `ceremony \
                      contingency` handed over, and the token must unwrap it to the key's own public half. Nothing leaves the token.",
        after_help = "Example:\n  smkictl ceremony import-root --key contingency-1 --root root-oca.pem"
    )]
    ImportRoot(ImportRoot),
    /// Record that a key was cloned to a further token, once it is found there
    #[command(
        long_about = "Record that a key was cloned to a further token, once it is found there.\n\nThe clone is made before, by the means of \
                      the HSM's maker: no other way brings a key of ours to a token. This looks whether the token holds the same \
                      public key, with a private key that is as fit as the first; records it; and writes genesis to the token. The \
                      policy must name the token among the key's `copies`.",
        after_help = "Example:\n  smkictl ceremony copy --key recovery-1 --token smki-b"
    )]
    Copy(Copy),
    /// Give the Key Custodians their shares, the first time or anew
    #[command(
        long_about = "Give the Key Custodians their shares, the first time or anew.\n\nEach token of the key gets a fresh random PIN that nobody \
                      sees; the secret that seals it is split among the custodians of the policy in force. Done again, the shares \
                      before open nothing any more, and the key is untouched: it needs as many of those shares as open the key.",
        after_help = "\
Examples:
  smkictl ceremony deal --key recovery-1 --out shares/
  smkictl ceremony deal --key recovery-1 --out shares/ --certificate cleo=cleo.pem       (others choose a passphrase)
  smkictl ceremony deal --key recovery-1 --out shares-2/ --share anna=anna.pem --share cleo=cleo.pem --key-file cleo=cleo.key"
    )]
    Deal(deal::Deal),
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
    /// A file with the PIN of a token's security officer; in an exercise only. Else it is asked for, where it is needed
    #[arg(long = "so-pin-file", value_name = "TOKEN=FILE", value_parser = pin_file)]
    so_pin_files: Vec<(TokenName, PathBuf)>,
    #[command(flatten)]
    custodians: Custodians,
}

/// What Key Custodians bring, where shares of what opens a token were dealt.
#[derive(Args, Clone, Debug)]
struct Custodians {
    /// A custodian's share, of a key whose tokens open by shares; as many as are needed. To go on with a deal that was cut off, those
    /// of both generations
    #[arg(long = "share", value_name = "PERSON=FILE", value_parser = deal::of_person)]
    shares: Vec<(PersonId, PathBuf)>,
    /// The private key to which a custodian's share was sealed
    #[arg(long = "key-file", value_name = "PERSON=FILE", value_parser = deal::of_person)]
    key_files: Vec<(PersonId, PathBuf)>,
    /// A file with a custodian's passphrase; in an exercise only. Else it is asked for
    #[arg(long = "passphrase-file", value_name = "PERSON=FILE", value_parser = deal::of_person)]
    passphrase_files: Vec<(PersonId, PathBuf)>,
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

/// Arguments of `contingency`.
#[derive(Args, Debug)]
pub struct Contingency {
    #[command(flatten)]
    tokens: Tokens,
    /// The label of the contingency key
    #[arg(long, value_name = "LABEL")]
    key: KeyLabel,
    /// Where the field for the Root OCA Certificate goes, and the CKA_IDs of what is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `import-root`.
#[derive(Args, Debug)]
pub struct ImportRoot {
    #[command(flatten)]
    tokens: Tokens,
    /// The label of the contingency key
    #[arg(long, value_name = "LABEL")]
    key: KeyLabel,
    /// The Root OCA Certificate that carries it, PEM or DER
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
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
    #[error("token {token}: its {what} is asked for on a terminal, and there is none; run this at the console")]
    NoTerminal {
        /// Which.
        token: TokenName,
        /// Whose PIN.
        what: &'static str,
    },
    /// Asking failed.
    #[error("token {token}: asking for its {what} failed: {source}")]
    Asking {
        /// Which.
        token: TokenName,
        /// Whose PIN.
        what: &'static str,
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
    /// The plan.
    #[error("the plan {}:\n{}", path.display(), lines(faults))]
    Plan {
        /// Which.
        path: PathBuf,
        /// All that is wrong, by line.
        faults: Vec<PlanFault>,
    },
    /// The folder has the journal of another plan.
    #[error(
        "{}: a ceremony was begun here by another plan (SHA-256 {found}; this one has {expected}). A plan is not changed once its ceremony has \
         begun. Go on with that one, or name another `out`{}",
        out.display(), if *first { " and begin anew with tokens that carry no genesis" } else { " in this plan: each ceremony has its own" }
    )]
    OtherPlan {
        /// The folder.
        out: PathBuf,
        /// By the journal.
        found: Digest,
        /// Of the plan given.
        expected: Digest,
        /// Whether the plan given is of a first ceremony.
        first: bool,
    },
    /// The folder has the journal of a rehearsal, or of what was done in earnest, and the other is wanted.
    #[error(
        "{}: the journal here is of {}. Neither becomes the other: move it away if it was copied here",
        out.display(), if *rehearsal { "a rehearsal, and this is in earnest" } else { "a ceremony in earnest, and this is a rehearsal" }
    )]
    OtherTokens {
        /// The folder.
        out: PathBuf,
        /// By the journal.
        rehearsal: bool,
    },
    /// The journal is not that of a ceremony that is over.
    #[error("{}: the transcript, {fault}", out.display())]
    Transcript {
        /// The folder.
        out: PathBuf,
        /// What is wrong.
        fault: LineFault,
    },
    /// A step failed, and the journal says so.
    #[error(
        "{source}\n{remedy}That is in the journal. Once it is mended, start the same command again: it goes on at this step. Before you rise, everyone \
         notes the words of the journal as it is now; they are compared before it is gone on with:\n{journal}"
    )]
    Failed {
        /// Why.
        source: Box<CeremonyError>,
        /// What is to be done otherwise than at a daemon.
        remedy: &'static str,
        /// The SHA-256 of the journal.
        journal: Words,
    },
    /// Another run of the same ceremony.
    #[error("{}: the ceremony is being held by process {pid} already; end that one first", out.display())]
    Busy {
        /// The folder.
        out: PathBuf,
        /// Its process.
        pid: String,
    },
    /// A request that the ledger does not know.
    #[error(
        "{}: this is no certification request that key {key} signed at this ceremony by the ledger, so it is not sent to the SMKI. Find out \
         who laid it there; then move it away, and start the same command again: the key signs one",
        path.display()
    )]
    ForeignRequest {
        /// Which.
        path: PathBuf,
        /// Whose it should be.
        key: KeyLabel,
    },
    /// A planned key stands before anybody made it.
    #[error(
        "{place} has a key {key} with the CKA_ID {id} of the plan, and nobody began to make it at this ceremony: whoever read the plan could \
         have made it. It is not used. Before the witnesses, initialise the token anew (or move keys.json away), then start the same command again"
    )]
    Early {
        /// Where.
        place: String,
        /// Its label.
        key: KeyLabel,
        /// Its `CKA_ID`.
        id: KeyId,
    },
    /// Nobody to ask.
    #[error("the ceremony asks before each step, and there is no terminal; run this at the console")]
    NobodyThere,
    /// The first line of the journal was not written.
    #[error("the ceremony was not opened, and nothing of it is written: {why}")]
    NotOpened {
        /// Why not.
        why: String,
    },
    /// A file of answers in earnest.
    #[error("--unattended is for exercises; plan, policy and answers must all say purpose = \"exercise\"")]
    Unattended,
    /// A file of answers that is none.
    #[error("{}: {why}", path.display())]
    Answers {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An answer that is none.
    #[error("the question {question}: {why}, found {found:?}")]
    Answer {
        /// As files of answers call it.
        question: String,
        /// What was expected.
        why: String,
        /// What was answered.
        found: String,
    },
    /// What was heard is not what is there.
    #[error(
        "{what}: the words that were heard are not those that stand here. Nothing further is done: find out what each of you has in hand"
    )]
    WordsDiffer {
        /// Of what.
        what: String,
    },
    /// Half a key pair, or one that is not as ours are, under a planned name.
    #[error(
        "token {token}: there is something labelled {label}, and it is not the whole pair with the CKA_ID {id} that the plan names: {why}. It is \
         what an interruption in the middle of the making left, or not of this ceremony. No key of it is used. Before the witnesses, initialise \
         the token anew, or remove what has this label:\n  {remove}\nThen start the same command again"
    )]
    HalfMade {
        /// On which token.
        token: TokenName,
        /// Its label.
        label: KeyLabel,
        /// The `CKA_ID` of the plan.
        id: KeyId,
        /// What was found.
        why: String,
        /// The commands that take it off the token.
        remove: String,
    },
    /// What has the names of a contingency key's material is not all of it, or not as it is made.
    #[error(
        "token {token}: there is something under the names of what stands beside key {key}, and it is not that: {why}. It is not used. Before the \
         witnesses, remove what has these labels:\n  {remove}\nThen start the same command again"
    )]
    HalfMaterial {
        /// On which token.
        token: TokenName,
        /// The contingency key.
        key: KeyLabel,
        /// What was found.
        why: String,
        /// The commands that take it off the token.
        remove: String,
    },
    /// The security officer of a token did not get to do their part.
    #[error(
        "token {token}, as its security officer: {source}. Their PIN is offered once at each start of this command; start it again with the right one"
    )]
    Officer {
        /// Which.
        token: TokenName,
        /// Why.
        source: HsmError,
    },
    /// A Root OCA Certificate whose field does not unwrap to the key.
    #[error(
        "{}: it does not carry key {key}: {why}. It was not taken in. Find out who altered the field, or on which token this key was made",
        path.display()
    )]
    NotCarried {
        /// The certificate.
        path: PathBuf,
        /// The contingency key.
        key: KeyLabel,
        /// What the token found.
        why: String,
    },
    /// No scratch tokens.
    #[error("the rehearsal: {0}")]
    Rehearsal(String),
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
         making it and writing it down, or of another ceremony. It is not used. If it is of no other ceremony, initialise the token anew, or \
         remove it:\n  {remove}\nThen run this again: keys made before it stay",
        path.display()
    )]
    Orphan {
        /// On which token.
        token: TokenName,
        /// Its label.
        label: KeyLabel,
        /// The file.
        path: PathBuf,
        /// The commands that take it off the token.
        remove: String,
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
    /// Shares were not dealt.
    #[error(transparent)]
    Deal(Box<deal::DealError>),
    /// Recording failed.
    #[error(transparent)]
    Record(#[from] CannotRecord),
}

impl From<deal::DealError> for CeremonyError {
    fn from(error: deal::DealError) -> Self {
        Self::Deal(Box::new(error))
    }
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
    /// What errors of tokens say is said to whoever runs the daemon.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Start(StartFault::Hsm { source, .. }) | Self::Officer { source, .. } if source.is_about_the_pin() => {
                "`smkictl hsm retry-login` is for a running smkid: at a ceremony the PIN is offered once at each start of the command.\n"
            }
            _ => "",
        }
    }

    /// The exit status.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Cli(error) => error.exit(),
            Self::Deal(error) => error.exit(),
            Self::Failed { source, .. } => source.exit(),
            Self::Refused(_)
            | Self::PinFile(_)
            | Self::Unattended
            | Self::Start(StartFault::PinStored { .. } | StartFault::ClockSet { .. }) => Exit::Refused,
            Self::Start(StartFault::Hsm { source, .. }) | Self::Officer { source, .. } => hsm_exit(source),
            Self::Record(CannotRecord::Token(_)) | Self::NotSigned { .. } => Exit::Unreachable,
            Self::TokenTaken { .. }
            | Self::WordsDiffer { .. }
            | Self::HalfMade { .. }
            | Self::HalfMaterial { .. }
            | Self::NotCarried { .. }
            | Self::Early { .. }
            | Self::ForeignRequest { .. }
            | Self::Start(StartFault::RolledBack { .. } | StartFault::HeadOrigin { .. } | StartFault::State(_)) => {
                Exit::Unverified
            }
            Self::Configuration(_)
            | Self::Plan { .. }
            | Self::OtherPlan { .. }
            | Self::OtherTokens { .. }
            | Self::Busy { .. }
            | Self::Transcript { .. }
            | Self::NobodyThere
            | Self::NotOpened { .. }
            | Self::Answers { .. }
            | Self::Answer { .. }
            | Self::Rehearsal(_)
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
        | HsmError::PinNotHad { .. }
        | HsmError::NoProtectedPath
        | HsmError::PinMark { .. }
        | HsmError::MechanismAbsent { .. }
        | HsmError::DataDuplicate { .. }
        | HsmError::KeyExists { .. }
        | HsmError::NotGuarded { .. }
        | HsmError::NoMaterial(_)
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
            Self::Plan(draft) => draft.run(print),
            Self::Check(check) => check.run(print),
            Self::Run(run) => {
                return run.run(print).unwrap_or_else(|error| {
                    print.error(&error.to_string());
                    error.exit()
                });
            }
            Self::Transcript(transcript) => transcript.run(print),
            Self::Destroy(destroy) => destroy.run(print),
            Self::Keys(keys) => keys.run(print),
            Self::Adoption(adoption) => adoption.run(print),
            Self::Begin(begin) => begin.run(print),
            Self::Request(request) => request.run(print),
            Self::Import(import) => import.run(print),
            Self::Contingency(contingency) => contingency.run(print),
            Self::ImportRoot(import) => import.run(print),
            Self::Copy(copy) => copy.run(print),
            Self::Deal(deal) => deal.run(print),
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
