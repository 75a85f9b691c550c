//! Shell: what a PMA member, a proposer and a reviewer do at their own machine: `smkictl determination draft | suspend |
//! withdraw | show | sign` and `smkictl policy check | draft`. None of it needs the daemon or a network.
//!
//! [`show`] is the heart: whoever signs has seen the page that it makes, and [`sign`] signs nothing that it cannot decode.
//! Texts out of documents cannot act on a terminal (`page.rs`); what is dangerous is warned of (`warnings.rs`).

pub mod draft;
pub mod files;
pub mod list;
mod page;
pub mod policy;
mod scope;
pub mod show;
pub mod sign;
mod signatures;
mod template;
mod warnings;

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;

use clap::Subcommand;
use secrecy::SecretString;

use crate::api::failure::Exit;
use crate::api::wire;
use crate::cli::input::InputError;
use crate::cli::{CliError, Context, has_read_enough};
use crate::domain::determination::cms::CmsError;
use crate::domain::names::DeterminationId;
use crate::domain::time::Timestamp;
use crate::hsm::signer::SignerError;
use crate::wall_clock::wall_clock;
use page::{Page, ascii_json, visible};

/// Draft, read and sign what the SMKI PMA determines
#[derive(Debug, Subcommand)]
pub enum Determination {
    /// Draft a determination, schedule, withdrawal, suspension or direction from a description
    #[command(after_help = "Examples:\n  smkictl determination draft --sample > draft.toml\n  \
        smkictl determination draft --from draft.toml --head checkpoint --policy keys-policy/\n\n\
        Needs no daemon. --head takes a checkpoint, or what `smkictl status --output json` printed.")]
    Draft(draft::Draft),
    /// Make a device list of a file that a spreadsheet or a database gave out, and say whatever was changed
    #[command(
        after_help = "Examples:\n  smkictl determination devices export.csv --template esme --out devices.txt\n  \
        smkictl determination devices devices.txt --faults 1000\n\n\
        Sorts any number of Devices, tells every line that it cannot read, and needs no daemon. Status 5: no device \
        list can be made of it; nothing is written then."
    )]
    Devices(list::Devices),
    /// Draft a suspension: one member stops a determination for some hours
    #[command(after_help = "The whole way, for one member alone:\n  \
        smkictl determination suspend 5f2c….json --member anna --hours 24 --reason 'The list is wrong.' \\\n    \
        --head checkpoint --policy keys-policy/\n  \
        smkictl determination sign 5f2c…-suspension-anna.json --key me.key --certificate me.pem --member anna\n  \
        smkictl determination record 5f2c…-suspension-anna.json\n\n\
        Nothing is suspended until it is recorded. Does what `draft --type suspension` does; with a file and --head it needs no \
        daemon.")]
    Suspend(draft::Suspend),
    /// Draft a withdrawal: the quorum ends a determination
    #[command(after_help = "The whole way:\n  \
        smkictl determination withdraw 5f2c….json --proposer operator-1 --reason 'Not confirmed.' \\\n    \
        --head checkpoint --policy keys-policy/\n  \
        smkictl determination sign 5f2c…-withdrawal.json --key me.key --certificate me.pem --member anna   # each of the quorum\n  \
        smkictl determination record 5f2c…-withdrawal.json\n\n\
        Nothing is withdrawn until it is recorded. Does what `draft --type withdrawal` does; with a file and --head it needs no \
        daemon.")]
    Withdraw(draft::Withdraw),
    /// Show a document in full, with all that is dangerous in it
    #[command(
        after_help = "Examples:\n  smkictl determination show 5f2c….json --devices 5f2c….devices.txt --policy keys-policy/ \
        --compromised old.pem\n  smkictl determination show 5f2c….json --policy keys-policy/ --signature 5f2c….anna.p7s\n\n\
        Needs no daemon. Status 5: the device list or a signature is not the document's."
    )]
    Show(show::Show),
    /// Sign a document with your own key, after having been shown it
    #[command(
        after_help = "Examples:\n  smkictl determination sign 5f2c….json --key me.key --certificate me.pem --member anna\n  \
        smkictl determination sign 5f2c….json --pkcs11-module /usr/lib/opensc-pkcs11.so --token 'Anna' --key-label sign \
        --member anna\n\nNeeds no daemon and no network."
    )]
    Sign(Box<sign::Sign>),
}

/// Check a policy and draft its adoption
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Check the files of a policy: every fault, its digest, who decides, and what to look at
    #[command(
        after_help = "Example:\n  smkictl policy check keys-policy/\n\nNeeds no daemon. Status 4: it is no policy."
    )]
    Check(policy::Check),
    /// Draft the document by which a policy is adopted, to be signed like a determination
    #[command(after_help = "Examples:\n  smkictl policy draft keys-policy/ --first\n  \
        smkictl policy draft keys-policy/ --head status.json --predecessor old-policy/ --sequence 2\n\nNeeds no daemon.")]
    Draft(policy::DraftAdoption),
}

/// What a command wants to know of the daemon before it begins; a command that wants nothing needs none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// The ledger's head, since no file says it.
    pub status: bool,
    /// The document of a determination.
    pub determination: Option<DeterminationId>,
}

/// Sits down at the terminal. What the command wants to know of the daemon is asked before.
pub async fn sit(context: &Context, asks: Asks, run: impl FnOnce(&mut Seat<'_>) -> Exit) -> Result<Exit, CliError> {
    struct Answered {
        status: Option<Vec<u8>>,
        determination: Option<Vec<u8>>,
    }
    impl draft::Daemon for Answered {
        fn status(&self) -> Result<Vec<u8>, String> {
            self.status.clone().ok_or_else(|| "the daemon was not asked for its status".to_owned())
        }

        fn determination(&self) -> Result<Vec<u8>, String> {
            self.determination.clone().ok_or_else(|| "the daemon was not asked for a determination".to_owned())
        }
    }
    let mut answered = Answered { status: None, determination: None };
    if asks.status {
        let status: wire::Status = context.client.get("/v1/status").await?;
        answered.status = Some(serde_json::to_vec(&status).map_err(io::Error::from)?);
    }
    if let Some(id) = asks.determination {
        let found: wire::Determination = context.client.get(&format!("/v1/determinations/{id}")).await?;
        answered.determination = Some(found.document.0);
    }
    let daemon = (asks != Asks::default()).then_some(answered);
    Ok(run(&mut Seat {
        out: &mut io::stdout().lock(),
        err: &mut io::stderr(),
        ask: &mut Terminal,
        // It decides nothing but what is shown, and whether a certificate is in force.
        now: wall_clock(),
        json: context.print.is_json(),
        daemon: daemon.as_ref().map(|daemon| daemon as &dyn draft::Daemon),
    }))
}

impl Determination {
    /// What it wants to know of the daemon.
    pub fn asks(&self) -> Asks {
        let status = |seen: &draft::SeenArgs| seen.head.is_none();
        match self {
            Self::Draft(args) => Asks { status: !args.sample && status(&args.seen), determination: None },
            Self::Suspend(args) => Asks { status: status(&args.seen), determination: args.about.recorded() },
            Self::Withdraw(args) => Asks { status: status(&args.seen), determination: args.about.recorded() },
            Self::Devices(_) | Self::Show(_) | Self::Sign(_) => Asks::default(),
        }
    }

    /// Does it.
    pub fn run(&self, seat: &mut Seat<'_>) -> Exit {
        let done = match self {
            Self::Draft(args) => draft::run(args, seat),
            Self::Devices(args) => list::run(args, seat),
            Self::Suspend(args) => draft::suspend(args, seat),
            Self::Withdraw(args) => draft::withdraw(args, seat),
            Self::Show(args) => show::run(args, seat),
            Self::Sign(args) => sign::run(args, seat),
        };
        seat.end(done)
    }
}

impl Policy {
    /// What it wants to know of the daemon.
    pub fn asks(&self) -> Asks {
        match self {
            Self::Draft(args) => Asks { status: !args.first && args.head.is_none(), determination: None },
            Self::Check(_) => Asks::default(),
        }
    }

    /// Does it.
    pub fn run(&self, seat: &mut Seat<'_>) -> Exit {
        let done = match self {
            Self::Check(args) => policy::check(args, seat),
            Self::Draft(args) => policy::draft(args, seat),
        };
        seat.end(done)
    }
}

/// Where somebody sits: what they see, whom to ask, and what time it is.
pub struct Seat<'a> {
    /// Answers.
    pub out: &'a mut dyn Write,
    /// Everything else.
    pub err: &'a mut dyn Write,
    /// The person.
    pub ask: &'a mut dyn Ask,
    /// Now.
    pub now: Timestamp,
    /// Whether answers are for programs.
    pub json: bool,
    /// Whom a draft asks for what no file says.
    pub daemon: Option<&'a dyn draft::Daemon>,
}

/// Who is asked.
pub trait Ask {
    /// Whether there is a person, and not a script.
    fn is_there(&self) -> bool;
    /// A line, typed after `prompt` was shown.
    fn line(&mut self, prompt: &str) -> io::Result<String>;
    /// A PIN or passphrase, typed without being shown.
    fn secret(&mut self, prompt: &str) -> io::Result<SecretString>;
}

/// The person at the terminal.
#[derive(Clone, Copy, Debug)]
pub struct Terminal;

impl Ask for Terminal {
    fn is_there(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    fn line(&mut self, prompt: &str) -> io::Result<String> {
        write!(io::stderr().lock(), "{prompt}")?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        Ok(line)
    }

    fn secret(&mut self, prompt: &str) -> io::Result<SecretString> {
        rpassword::prompt_password(prompt).map(SecretString::from)
    }
}

impl Seat<'_> {
    /// The answer.
    pub fn answer(&mut self, json: &serde_json::Value, page: &Page) -> Result<(), MemberError> {
        let text = if self.json { ascii_json(json) } else { page.text().to_owned() };
        self.write(&text)
    }

    /// The same, as it lies.
    pub fn write(&mut self, text: &str) -> Result<(), MemberError> {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(error) if !has_read_enough(&error) => Err(MemberError::Answer(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Something to know.
    pub fn note(&mut self, text: &str) {
        // Nobody reads: nobody to tell.
        let _ = writeln!(self.err, "{}", visible(text));
    }

    fn end(&mut self, done: Result<Exit, MemberError>) -> Exit {
        match done {
            Ok(exit) => exit,
            Err(error) => {
                let text = error.to_string();
                for line in text.split('\n') {
                    self.note(line);
                }
                error.exit()
            }
        }
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A policy's files, or another input, cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A file is too long to be what it should be.
    #[error("{}: expected at most {max} octets, found more", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
    /// A file is no text, or its name is none.
    #[error("{}: expected text in UTF-8, found other octets", path.display())]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// A file has other contents than it should have.
    #[error("{}: {fault}", path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// What was expected, and what was found.
        fault: String,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing is overwritten.
    #[error("{}: exists already and is not overwritten; move it away, or name another with --out", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Answer(#[source] io::Error),
    /// Asking failed.
    #[error("cannot ask: {0}")]
    Ask(#[source] io::Error),
    /// Not a document that people sign.
    #[error("{}: not a document that can be signed:\n  {faults}", path.display())]
    Document {
        /// Which.
        path: PathBuf,
        /// Every fault, one a line.
        faults: String,
    },
    /// Not a device list.
    #[error("{}: not a device list for this document:\n  {faults}", path.display())]
    Devices {
        /// Which.
        path: PathBuf,
        /// Every fault, one a line.
        faults: String,
    },
    /// Not a policy.
    #[error("{}: not a policy:\n  {faults}", path.display())]
    Policy {
        /// Which.
        path: PathBuf,
        /// Every fault, one a line.
        faults: String,
    },
    /// A description says too little, too much, or something that contradicts what else was given.
    #[error("{field}: {fault}")]
    Described {
        /// Where in the description, or which option.
        field: String,
        /// What was expected, and what was found.
        fault: String,
    },
    /// What the description amounts to would be refused.
    #[error("the draft would be refused:\n  {faults}")]
    Draft {
        /// Every fault, one a line.
        faults: String,
    },
    /// Nobody may sign what cannot be shown.
    #[error("not signed: {what} cannot be decoded, and nobody can know what would be signed: {fault}")]
    Undecodable {
        /// Which part.
        what: String,
        /// Why.
        fault: String,
    },
    /// The file is another one than the person thinks.
    #[error("not signed: expected the document's SHA-256 to be {expected}, as confirmed; found {found}")]
    NotConfirmed {
        /// What was typed or given.
        expected: String,
        /// Of the document.
        found: String,
    },
    /// A script must say what it signs.
    #[error("not signed: nobody is at the terminal to confirm it; give --confirm with the document's SHA-256")]
    NobodyThere,
    /// The certificate's time.
    #[error(
        "not signed: the certificate of {subject} is valid from {not_before} to {not_after}; it is {at} by this clock"
    )]
    NotInForce {
        /// Whose.
        subject: String,
        /// Its first second.
        not_before: Timestamp,
        /// Its last second.
        not_after: Timestamp,
        /// Now.
        at: Timestamp,
    },
    /// The policy does not know the signer, or not as one who may sign this.
    #[error("not signed: {0}")]
    NotCounted(String),
    /// The key.
    #[error("not signed: {0}")]
    Signer(#[from] SignerError),
    /// The signature cannot be put together, or does not verify.
    #[error("the signature was made and is not kept: {0}")]
    Signature(#[from] CmsError),
    /// The system gave no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
}

impl MemberError {
    /// The exit status.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Devices { .. } | Self::NotConfirmed { .. } | Self::Signature(_) => Exit::Unverified,
            Self::Policy { .. } | Self::NotCounted(_) | Self::Undecodable { .. } => Exit::Refused,
            Self::Read { .. }
            | Self::Input(_)
            | Self::TooLong { .. }
            | Self::NotText { .. }
            | Self::Unfit { .. }
            | Self::Write { .. }
            | Self::Exists { .. }
            | Self::Answer(_)
            | Self::Ask(_)
            | Self::Document { .. }
            | Self::Described { .. }
            | Self::Draft { .. }
            | Self::NobodyThere
            | Self::NotInForce { .. }
            | Self::Signer(_)
            | Self::NoRandom => Exit::Local,
        }
    }
}
