//! Shell: `smkictl`. One file per noun; [`mod@print`] is the one file that prints.
//!
//! A command sends one call, or two, and ends with one of the statuses of [`Exit`]. Whatever changes something takes
//! `--dry-run`, which shows what would be sent and sends nothing.

pub mod ceremony;
pub mod clock;
pub mod contingency_command;
pub mod custodian;
pub mod determination;
pub mod document;
pub mod exercise;
mod exported;
pub mod file;
pub mod gbcs;
pub mod hsm;
pub mod incident;
pub mod input;
pub mod key;
pub mod ledger;
pub mod ledger_commands;
pub mod ledger_export;
pub mod ledger_source;
pub mod ledger_verify;
pub mod member;
pub mod people;
pub mod policy;
pub mod print;
pub mod procedure;
pub mod recovery;
pub mod release;
pub mod status;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde::Serialize;

use crate::api::client::{self, Client, ClientError};
pub use crate::api::failure::Exit;
use crate::api::failure::ProblemKind;
use crate::api::routes::Verb;
use crate::exercise::bench::limit;
use input::InputError;
use print::{Output, Printer};

const AFTER_HELP: &str = "\
Examples:
  smkictl status
  smkictl incident list
  smkictl incident next INC-2017-07
  smkictl determination record 5f2c….json --devices 5f2c….devices.txt
  smkictl recovery start --determination 5f2c… --devices all
  smkictl recovery sign --determination 5f2c… --devices all --out commands/

Exit status:
  0  done
  1  local failure: a file, an argument, an answer that makes no sense
  2  usage
  3  the daemon or the HSM is not reachable
  4  refused by policy or role
  5  verification failed
  6  partly done";

/// Runs the SMKI Recovery Procedure with smkid.
///
/// Every command asks the daemon on this machine, in your own name. What you may do comes from your UNIX groups; what may be
/// signed comes from the SMKI PMA's determination.
#[derive(Parser)]
#[command(name = "smkictl", version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Common {
    /// Where the daemon listens; else SMKID_SOCKET; else /run/smkid/smkid.sock
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The form of the answer on stdout
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Output,
}

#[derive(Subcommand)]
enum Command {
    /// Make keys and ledger, with no daemon running
    #[command(subcommand)]
    Ceremony(ceremony::Ceremony),
    /// Show what the daemon is doing, whether it can sign, and what stands in the way
    Status(status::Status),
    /// Carry an incident through the SMKI Recovery Procedure; `next` says what is to be done
    #[command(subcommand)]
    Incident(incident::Incident),
    /// Submit, check and make the files of the procedure
    #[command(subcommand)]
    File(file::File),
    /// Show who the people are, and what they did
    #[command(subcommand)]
    People(people::People),
    /// Deliver and show what the SMKI PMA determined
    #[command(subcommand)]
    Determination(determination::Determination),
    /// Sign recovery commands, and settle those of unknown outcome
    #[command(subcommand)]
    Recovery(recovery::Recovery),
    /// Activate and lock keys
    #[command(subcommand)]
    Key(key::Key),
    /// Open a key with other Key Custodians: state what for, present your share
    #[command(subcommand)]
    Custodian(custodian::Custodian),
    /// Show how the tokens stand, and let a PIN be offered again
    #[command(subcommand)]
    Hsm(hsm::Hsm),
    /// Show the policy in force, deliver another one
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Explain which procedure is in force, and what it means for an incident
    #[command(subcommand)]
    Procedure(procedure::Procedure),
    /// Read the ledger
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Decode and verify GBCS messages
    #[command(subcommand)]
    Gbcs(gbcs::GbcsCommand),
    /// Accept the daemon's clock after a jump
    #[command(subcommand)]
    Clock(clock::Clock),
    /// Rehearse a whole recovery with a daemon and simulated Devices of its own; record that it was done
    Exercise(exercise::Exercise),
    /// What `exercise --bench` runs beside the daemon
    #[command(hide = true, name = limit::ARGUMENT, after_help = "Example:\n  smkictl limit-program < task")]
    LimitProgram,
    /// Print completions for a shell
    #[command(after_help = "Example:\n  smkictl completions bash > /etc/bash_completion.d/smkictl")]
    Completions {
        /// For which
        shell: clap_complete::Shell,
    },
}

/// What every command has at hand.
pub struct Context {
    /// The daemon.
    pub client: Client,
    /// Where to print.
    pub print: Printer,
}

/// Taken by every command that changes something.
#[derive(Args, Clone, Copy, Debug)]
pub struct Change {
    /// Show what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The daemon is not there, said no, or cannot be understood.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file or an argument is wrong.
    #[error(transparent)]
    Input(#[from] InputError),
    /// What was given, or what is there, does not fit.
    #[error("{0}")]
    Unfit(String),
    /// An answer cannot be printed or kept.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

impl CliError {
    /// The exit status.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Input(_) | Self::Unfit(_) | Self::Write(_) => Exit::Local,
        }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let Arguments { common, command } = Arguments::parse();
    let socket = common
        .socket
        .or_else(|| std::env::var_os(client::SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| client::SOCKET.into());
    let context = Context { client: Client::new(&socket), print: Printer::new(common.output) };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            context.print.error(&format!("cannot start: {error}"));
            return Exit::Local.into();
        }
    };
    match runtime.block_on(run(command, &context)) {
        Ok(exit) => exit.into(),
        Err(CliError::Write(error)) if has_read_enough(&error) => Exit::Done.into(),
        Err(error) => {
            if let (CliError::Client(ClientError::Problem(problem)), true) = (&error, context.print.is_json()) {
                // For programs, the daemon's own words with every reason; what cannot be printed is on stderr anyway.
                let _ = context.print.json_line(problem);
            }
            context.print.error(&told(&error));
            error.exit().into()
        }
    }
}

/// Whether an answer could not be written because whoever reads has read enough, as `head` does.
fn has_read_enough(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Reasons that are told at once: whoever gave the wrong file is not helped by a thousand lines of it.
const REASONS_TOLD_MAX: usize = 12;

/// Why it was not done, for people: with several reasons, each on a line of its own.
fn told(error: &CliError) -> String {
    let CliError::Client(ClientError::Problem(problem)) = error else { return error.to_string() };
    if problem.error == ProblemKind::NotFound {
        // What is named first was looked for.
        let listed = match problem.message.split(' ').next() {
            Some("incident") => "`smkictl incident list` shows those that are",
            Some("determination") => "`smkictl determination list` shows those that are",
            Some("key") => "`smkictl status` shows those that are",
            Some("job") => "`smkictl recovery status` shows those that are",
            Some("request") => "`smkictl recovery status` shows the jobs that are",
            Some("Device") => "`smkictl incident devices INCIDENT` shows those that are",
            Some("person") => "`smkictl people list` shows those that are",
            Some(_) | None => return error.to_string(),
        };
        return format!("{error}; {listed}");
    }
    let reasons = &problem.reasons;
    if reasons.len() < 2 {
        return error.to_string();
    }
    let mut lines = vec![format!("refused, for {} reasons:", reasons.len())];
    lines.extend(reasons.iter().take(REASONS_TOLD_MAX).map(|reason| format!("{} ({})", reason.text, reason.rule)));
    if reasons.len() > REASONS_TOLD_MAX {
        lines.push(format!("and {} more; --output json has all of them", reasons.len() - REASONS_TOLD_MAX));
    }
    lines.join("\n  ")
}

async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Ceremony(ceremony) => {
            // It waits for tokens, which only a plain thread may.
            let print = context.print;
            Ok(tokio::task::spawn_blocking(move || ceremony.run(print)).await.map_err(io::Error::from)?)
        }
        Command::Status(status) => status.run(context).await,
        Command::Incident(incident) => incident.run(context).await,
        Command::File(file) => file.run(context).await,
        Command::People(people) => people.run(context).await,
        Command::Determination(determination) => determination.run(context).await,
        Command::Recovery(recovery) => recovery.run(context).await,
        Command::Key(key) => key.run(context).await,
        Command::Custodian(custodian) => custodian.run(context).await,
        Command::Hsm(hsm) => hsm.run(context).await,
        Command::Policy(policy) => policy.run(context).await,
        Command::Procedure(procedure) => procedure.run(context).await,
        Command::Ledger(ledger) => ledger.run(context).await,
        Command::Gbcs(gbcs) => context.offline(|out, err| gbcs.run(context.print.output(), out, err)),
        Command::Clock(clock) => clock.run(context).await,
        Command::Exercise(exercise) => exercise.run(context).await,
        Command::LimitProgram => {
            limit::main().map_err(|fault| CliError::Unfit(format!("limit program: {fault}")))?;
            Ok(Exit::Done)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "smkictl", &mut script);
            context.print.octets(&script)?;
            Ok(Exit::Done)
        }
    }
}

impl Context {
    /// Runs what needs no daemon and says its exit status itself.
    pub fn offline(&self, run: impl FnOnce(&mut dyn io::Write, &mut dyn io::Write) -> u8) -> Result<Exit, CliError> {
        let status = run(&mut io::stdout().lock(), &mut io::stderr().lock());
        Ok(Exit::from_status(status).unwrap_or(Exit::Local))
    }

    /// What a dry run shows: the call, and its body.
    pub fn would_send<T: Serialize>(&self, verb: Verb, path: &str, body: Option<&T>) -> Result<Exit, CliError> {
        #[derive(Serialize)]
        struct Call<'a, T> {
            method: &'static str,
            path: &'a str,
            body: Option<&'a T>,
        }
        let call = Call { method: verb.as_str(), path, body };
        let shown = serde_json::to_string_pretty(&body).map_err(io::Error::from)?;
        self.print.answer(&call, |text| {
            text.line(&format!("Would send {} {path}", verb.as_str()));
            if body.is_some() {
                text.line(&shown);
            }
        })?;
        self.print.note("Nothing was sent.");
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests;
