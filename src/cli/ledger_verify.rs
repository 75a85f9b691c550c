//! Shell: `smkictl ledger verify DIR`: checks an export, and needs nothing else: no daemon, no database, no HSM.
//!
//! Every file is accounted for, every hash recomputed, every entry permitted again ([`crate::domain::audit`]), every released
//! signature verified. What is trusted is the ledger's public key and the genesis hash, which come from elsewhere.

mod files;
mod replay;

use std::fmt::{self, Write as _};
use std::fs;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use clap::Args;
use serde_json::json;

use super::contingency_command::ContingencyCommand;
use super::has_read_enough;
use super::ledger_export::{CHECKPOINT, CHECKPOINTS};
use super::print::Output;
use crate::domain::audit::{AuditError, Notes, Roots, Summary, Trust, read_checkpoint};
use crate::domain::ledger::checkpoint::{Checkpoint, CheckpointError};
use crate::domain::ledger::merkle::Head;
use crate::domain::ledger::note::{NOTE_LEN_MAX, Note, NoteError, Verifier};
use crate::domain::ledger::tiles::TileError;
use crate::domain::names::Digest;
use crate::processors;
use files::Export;

/// Done.
const DONE: u8 = 0;
/// A local failure: something cannot be read.
const LOCAL_FAILURE: u8 = 1;
/// The export is not what it should be.
const VERIFICATION_FAILED: u8 = 5;

/// Arguments of `smkictl ledger verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  smkictl ledger verify ledger/ --key keys/ledger.vkey --genesis \"$(cat keys/genesis)\""
)]
pub struct LedgerVerify {
    /// The export
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The ledger's public key: PEM, or a C2SP verifier key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The leaf hash of the genesis entry, in hexadecimal: it was written down at the ceremony, and lies on every token
    #[arg(long, value_name = "HASH")]
    pub genesis: Digest,
    /// A checkpoint seen earlier: a ledger that does not extend it is refused
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Check files, hashes and checkpoints only, and not what the entries say
    #[arg(long)]
    pub tree_only: bool,
    /// Commands by which signatures of mode 9 are verified
    #[command(flatten)]
    pub contingency: ContingencyCommand,
    /// For people or for programs
    #[arg(skip)]
    pub output: Output,
}

/// Why an export is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Something cannot be read: whether the export is good is not known.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key given is none.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NoteError,
    },
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Write(std::io::Error),
    /// A command that was given is none of mode 9.
    #[error("{0}")]
    Command(String),
    /// The export is wrong.
    #[error(transparent)]
    Wrong(#[from] AuditError),
}

impl From<TileError> for VerifyError {
    fn from(error: TileError) -> Self {
        let place = match &error {
            TileError::Entry { index, .. } => return AuditError::entry(*index, "its octets", error).into(),
            TileError::Bundle { name, .. } | TileError::Len { name, .. } | TileError::Hash { name, .. } => {
                name.to_string()
            }
            TileError::Root { .. } => CHECKPOINT.to_owned(),
            TileError::Name { .. } | TileError::Leaf(_) => tiles_folder(),
        };
        AuditError::file(place, error).into()
    }
}

fn tiles_folder() -> String {
    crate::cli::ledger_export::TILES.to_owned()
}

/// A verified export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedLedger {
    /// The ledger's name.
    pub origin: String,
    /// Its head.
    pub head: Head,
    /// What was counted; none if only the tree was checked.
    pub summary: Option<Summary>,
}

/// Verifies an export: the answer on `out`, everything else on `err`.
///
/// Returns the exit status: 0 it is good, 1 something cannot be read, 5 it is not.
pub fn run(args: &LedgerVerify, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let verified = verify(args);
    let answer = match (&verified, args.output) {
        (Ok(ledger), Output::Text) => text(ledger, args),
        (Ok(VerifiedLedger { origin, head, summary }), Output::Json) => {
            let answer = json!({
                "verified": true, "origin": origin, "size": head.size, "root": head.root, "genesis": args.genesis,
                "tree_only": args.tree_only, "summary": summary,
            });
            format!("{answer:#}\n")
        }
        (Err(VerifyError::Wrong(wrong)), Output::Json) => {
            let AuditError { index, place, reason } = wrong;
            let answer = json!({ "verified": false, "entry": index, "place": place, "reason": reason });
            format!("{answer:#}\n")
        }
        (Err(_), Output::Text | Output::Json) => String::new(),
    };
    let written = match out.write_all(answer.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if !has_read_enough(&error) => Err(VerifyError::Write(error)),
        Ok(()) | Err(_) => Ok(()),
    };
    match verified.and(written) {
        Ok(()) => DONE,
        Err(error) => {
            // Where even standard error is closed there is nobody left to tell; the exit status still says it.
            let _ = writeln!(err, "smkictl ledger verify: {error}");
            match error {
                VerifyError::Wrong(_) => VERIFICATION_FAILED,
                VerifyError::Read { .. }
                | VerifyError::Key { .. }
                | VerifyError::Write(_)
                | VerifyError::Command(_) => LOCAL_FAILURE,
            }
        }
    }
}

/// Verifies an export on every processor.
pub fn verify(args: &LedgerVerify) -> Result<VerifiedLedger, VerifyError> {
    verify_on(args, thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
}

/// Verifies an export on so many processors. The answer is the same on any number of them.
pub fn verify_on(args: &LedgerVerify, threads: NonZeroUsize) -> Result<VerifiedLedger, VerifyError> {
    let given = read(&args.key)?;
    let symmetric = args.contingency.keys().map_err(|error| VerifyError::Command(error.to_string()))?;
    let earlier = args.checkpoint.as_deref().map(read).transpose()?;
    let mut export = Export::open(&args.dir)?;
    let newest = export.read(CHECKPOINT, NOTE_LEN_MAX)?;
    let key = ledger_key(&given, &newest, &args.key)?;
    let head = read_checkpoint(&newest, &key).map_err(|reason| AuditError::file(CHECKPOINT, reason))?;
    let earlier = earlier
        .map(|octets| read_checkpoint(&octets, &key))
        .transpose()
        .map_err(|reason| AuditError::file("the checkpoint given", reason))?;
    if let Some(earlier) = earlier.filter(|earlier| earlier.size > head.size) {
        let reason =
            format!("it is of {} entries, and this ledger has {}: it was rolled back", earlier.size, head.size);
        return Err(AuditError::file("the checkpoint given", reason).into());
    }
    let all = export.read(CHECKPOINTS, usize::MAX)?;
    if !all.strip_suffix(b"\n").is_some_and(|all| all.ends_with(&newest)) {
        let reason = format!("expected the last of {CHECKPOINTS}, found another");
        return Err(AuditError::file(CHECKPOINT, reason).into());
    }
    let notes = Notes::split(&all);
    let read = processors::each(&notes.notes, |note| read_checkpoint(note, &key));
    let heads = notes.heads(read)?;
    export.expect_tiles(head.size)?;
    let roots = Roots::new(&heads, earlier);
    let summary = if args.tree_only {
        replay::tree(&export, &head, roots, args.genesis, threads)?;
        None
    } else {
        Some(replay::audit(&export, &head, (Trust { key: &key, genesis: args.genesis }, symmetric), roots, threads)?)
    };
    export.finish()?;
    Ok(VerifiedLedger { origin: key.name().to_owned(), head, summary })
}

fn read(path: &Path) -> Result<Vec<u8>, VerifyError> {
    fs::read(path).map_err(|source| VerifyError::Read { path: path.to_owned(), source })
}

/// A PEM key has no name: it takes that of the checkpoint, which the genesis entry must have too.
fn ledger_key(given: &[u8], checkpoint: &[u8], path: &Path) -> Result<Verifier, VerifyError> {
    let wrong = |source| VerifyError::Key { path: path.to_owned(), source };
    let given = str::from_utf8(given)
        .map_err(|_| wrong(NoteError::Key { what: "key", expected: "PEM, or a C2SP verifier key" }))?;
    if !given.starts_with("-----BEGIN") {
        return Verifier::from_vkey(given).map_err(wrong);
    }
    let origin = Note::parse(checkpoint)
        .map_err(CheckpointError::from)
        .and_then(|note| Checkpoint::parse(note.text()))
        .map_err(|error| AuditError::file(CHECKPOINT, error))?
        .origin;
    Verifier::from_pem(origin.as_str(), given).map_err(wrong)
}

fn text(ledger: &VerifiedLedger, args: &LedgerVerify) -> String {
    let VerifiedLedger { origin, head, summary } = ledger;
    let mut answer = String::new();
    let mut line = |name: &str, value: &dyn fmt::Display| {
        writeln!(answer, "  {name:<26}{value}").expect("a String takes what is written");
    };
    line("entries", &head.size);
    line("root", &head.root);
    line("genesis", &args.genesis);
    let Some(summary) = summary else {
        return format!(
            "{origin}: files, hashes and checkpoints are good. What the entries say was not looked at (--tree-only).\n{answer}"
        );
    };
    if let (Some(from), Some(until)) = (summary.from, summary.until) {
        line("period", &format_args!("{from} to {until}"));
    }
    for (name, count) in [
        ("checkpoints", summary.checkpoints),
        ("policies adopted", summary.policies),
        ("incidents", summary.incidents),
        ("determinations", summary.determinations),
        ("schedules", summary.schedules),
        ("suspensions", summary.suspensions),
        ("withdrawals", summary.withdrawals),
        ("directions", summary.directions),
        ("ceremonies", summary.ceremonies),
        ("jobs", summary.jobs),
        ("shares dealt", summary.deals),
        ("custodians presented", summary.presentations),
        ("keys activated", summary.activations),
        ("starts of smkid", summary.starts),
        ("Root OCA Certificates", summary.roots),
        ("symmetric keys spent", summary.symmetric_keys_spent),
        ("symmetric keys released", summary.symmetric_releases),
        ("certification requests", summary.certification_requests),
        ("intents to sign", summary.intents),
        ("commands signed", summary.signed),
        ("  of them released", summary.released),
        ("  of mode 9, not verified", summary.contingency_unverified),
        ("commands failed", summary.failed),
        ("commands not signed", summary.not_signed),
        ("commands unknown", summary.unknown),
        ("  of them left so", summary.left),
        ("without an outcome yet", summary.open),
        ("Devices' certificates", summary.device_certificates),
        ("Devices' Responses", summary.responses.messages()),
        ("  proving recovery", summary.responses.recovered),
        ("  to a foreign command", summary.responses.foreign),
        ("refusals", summary.refusals),
        ("jumps of the clock", summary.clock_jumps),
        ("changes of tokens", summary.token_changes),
        ("PINs offered again", summary.logins_retried),
        ("snapshots", summary.snapshots),
        ("  of an unknown form", summary.snapshots_unknown),
        ("by a clock that was set", summary.clock_set),
    ] {
        line(name, &count);
    }
    let unverified = summary.contingency_unverified;
    let beyond = if unverified == 0 {
        String::new()
    } else {
        format!(
            "{unverified} signatures are over commands of mode 9, whose symmetric key no ledger has, and were not verified: give \
             --contingency-command FILE, any of those commands.\n"
        )
    };
    format!("{origin}: the ledger is whole, and every entry in it was permitted.\n{beyond}{answer}")
}
