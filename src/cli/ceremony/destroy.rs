//! `ceremony destroy`: a key of ours ends, on every token that holds it, by a document that the policy's quorum signed.
//!
//! | order | what | and if it is cut off |
//! |---|---|---|
//! | 1 | the document and its signatures are judged; nothing is touched before | run again |
//! | 2 | `key-destruction`: from then on the key is not activated | run again: goes on there |
//! | 3 | on each token: C_DestroyObject, by label, `CKA_ID` and public key; then looked whether it is gone | run again: those that are gone are found so |
//! | 4 | `key-destroyed` | run again |

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::desk::Desk;
use super::opened::{self, Opened};
use super::{CeremonyError, Tokens, room};
use crate::cli::Change;
use crate::cli::input;
use crate::cli::print::Printer;
use crate::cli::release::write_new;
use crate::domain::determination::document::{KeyChosen, LedgerHead, Type, Written};
use crate::domain::determination::prose::Prose;
use crate::domain::determination::words::Words;
use crate::domain::intake::{self, Context, Submission};
use crate::domain::ledger::entry::{Event, KeyDestroyed, KeyDestruction, Reason, TokenFound};
use crate::domain::names::{Digest, KeyLabel, KeyUse, PersonId};
use crate::domain::policy::admission;
use crate::domain::policy::destruction::Destruction;
use crate::domain::policy::facts::Ending;
use crate::hsm::{Expectations, Material};
use crate::recorder::{Moment, Recorder, record_alone};
use crate::service::configuration::{self, Configuration};
use crate::service::start::{self, StartFault};
use crate::store::Reader as _;
use crate::store::sqlite::SqliteReader;
use crate::wall_clock::wall_clock;

/// Destroy a key under the policy's quorum.
#[derive(Subcommand, Debug)]
pub enum Destroy {
    /// Write the document by which a key is destroyed, for the quorum to sign
    #[command(after_help = "\
Example:
  smkictl ceremony destroy draft --key recovery-1 --proposer member-1 --reason 'Superseded by recovery-2' --out destruction.json
Then each member who approves: smkictl determination sign destruction.json …")]
    Draft(Draft),
    /// Destroy the key that the document names, on every token that it names
    #[command(after_help = "\
Example:
  smkictl ceremony destroy run destruction.json --signature a.p7s --signature b.p7s --signature c.p7s")]
    Run(Run),
}

/// Arguments of `draft`.
#[derive(Args, Debug)]
pub struct Draft {
    /// The configuration of smkid: its ledger is read, which a running smkid may have
    #[arg(long, value_name = "FILE", default_value = configuration::PATH)]
    config: PathBuf,
    /// The label of the key
    #[arg(long, value_name = "LABEL")]
    key: KeyLabel,
    /// Who proposes it, and may not approve it
    #[arg(long, value_name = "ID")]
    proposer: PersonId,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Prose,
    /// Where the document goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    tokens: Tokens,
    /// The document
    #[arg(value_name = "FILE.json")]
    document: PathBuf,
    /// A detached CMS signature over it; once for each person
    #[arg(long = "signature", value_name = "P7S", required = true, num_args = 1..)]
    signatures: Vec<PathBuf>,
    /// In an exercise only: answer from this file instead of the terminal
    #[arg(long, value_name = "ANSWERS.toml")]
    unattended: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

impl Destroy {
    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        match self {
            Self::Draft(draft) => draft.run(print),
            Self::Run(run) => run.run(print),
        }
    }
}

impl Draft {
    fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let configuration = Configuration::read(&self.config)?;
        // A paper is written from what stands; a daemon that runs is not disturbed.
        let fold = opened::read(&configuration)?.ok_or(StartFault::NoLedgerKey)?;
        let unknown =
            || CeremonyError::Key { key: self.key.clone(), why: "the ledger has no key of that label".into() };
        let facts = fold.keys().get(&self.key).ok_or_else(unknown)?;
        if let Some(ending) = facts.ending {
            return Err(ended(&self.key, ending));
        }
        if facts.record.use_ == KeyUse::Ledger {
            let why = "it signs this ledger's checkpoints: without it its destruction could not be recorded";
            return Err(CeremonyError::Key { key: self.key.clone(), why: why.into() });
        }
        let adopted = fold.policy().ok_or(StartFault::NoLedgerKey)?;
        let checkpoint = SqliteReader::open(&configuration.state)?.latest_checkpoint()?;
        let head = checkpoint.ok_or(StartFault::NoLedgerKey)?.head;
        let record = &facts.record;
        let first = TokenFound { token: record.token.clone(), serial: record.serial.clone() };
        let copies =
            facts.copies.iter().map(|(token, serial)| TokenFound { token: token.clone(), serial: serial.clone() });
        let form = Destruction {
            r#type: Type::default(),
            purpose: adopted.policy.purpose(),
            proposer: self.proposer,
            ledger: LedgerHead { origin: adopted.policy.origin().clone(), size: head.size, root: head.root },
            policy: adopted.policy.digest(),
            key: KeyChosen { label: record.label.clone(), spki_sha256: record.spki_sha256 },
            cka_id: record.id,
            tokens: std::iter::once(first).chain(copies).collect(),
            reason: self.reason,
        };
        let written =
            Written::write(&form).map_err(|faults| CeremonyError::Document { path: self.out.clone(), faults })?;
        let now = wall_clock().plus_ms(configuration.clock_offset_ms);
        let refusals = admission::destruction(&adopted.policy, &written, now, now);
        if !refusals.is_empty() {
            let reason =
                |refusal: &admission::Refusal| Reason { rule: "admission".into(), text: refusal.to_string().into() };
            return Err(CeremonyError::Refused(refusals.iter().map(reason).collect()));
        }
        if !self.change.dry_run {
            write_new(&self.out, written.octets())?;
        }
        print.answer(&form, |text| {
            text.row("document", self.out.display())
                .row("SHA-256", written.digest())
                .line(&Words(written.digest()).to_string())
                .row("key", format!("{}, CKA_ID {}", form.key.label, form.cka_id))
                .row("public key", form.key.spki_sha256);
            for on in &form.tokens {
                text.row("on token", format!("{}, serial number {}", on.token, on.serial));
            }
        })?;
        if self.change.dry_run {
            print.note("Nothing was written.");
        } else {
            print.note("Next: the quorum signs it (`smkictl determination sign`); then `smkictl ceremony destroy run`. No token was asked.");
        }
        Ok(())
    }
}

/// What `run` answers.
#[derive(Serialize)]
struct Answer {
    key: KeyLabel,
    spki_sha256: Digest,
    document: Digest,
    tokens: Vec<TokenFound>,
    /// The index of the entry that says that it is on no token any more; none in a dry run.
    entry: Option<u64>,
}

impl Run {
    fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let octets = input::file(&self.document, input::DOCUMENT_LEN_MAX)?;
        let document = Written::<Destruction>::read(octets)
            .map_err(|faults| CeremonyError::Document { path: self.document.clone(), faults })?;
        let signatures = self.signatures.iter().map(|path| input::file(path, input::DOCUMENT_LEN_MAX));
        let signatures: Vec<Vec<u8>> = signatures.collect::<Result<_, _>>()?;
        let form = document.form();
        let label = &form.key.label;
        let mut opened = Opened::open(&self.tokens, label)?;
        let begun = begun(&opened.ledger, &document)?;
        if begun.is_none() {
            judge(&opened.ledger, &document, &signatures).map_err(CeremonyError::Refused)?;
        }
        let mut answer = Answer {
            key: label.clone(),
            spki_sha256: form.key.spki_sha256,
            document: document.digest(),
            tokens: form.tokens.clone(),
            entry: None,
        };
        if !self.change.dry_run {
            let mut desk = match &self.unattended {
                None => Desk::terminal()?,
                Some(path) => Desk::file(path, form.purpose)?,
            };
            confirm(&mut desk, form, begun, print)?;
            answer.entry = Some(destroy(&mut opened, &document, &signatures, begun, print)?);
        }
        print.answer(&answer, |text| {
            text.row("key", &answer.key).row("public key", answer.spki_sha256).row("document", answer.document);
            for on in &answer.tokens {
                text.row("destroyed on", format!("{}, serial number {}", on.token, on.serial));
            }
            text.some("recorded", answer.entry.map(|index| format!("entry {index}")));
        })?;
        if self.change.dry_run {
            print.note("The quorum signed it. Nothing was recorded; no token was asked.");
        } else {
            print.note(
                "The key is on none of its tokens any more. Next: a policy that no longer names it. Where custodians opened a token, it keeps a \
                 PIN that nobody has: initialise it anew before it serves for anything else.",
            );
        }
        Ok(())
    }
}

/// The entry by which this very destruction was begun, if it was.
fn begun(recorder: &Recorder, document: &Written<Destruction>) -> Result<Option<u64>, CeremonyError> {
    let key = &document.form().key.label;
    match recorder.fold().keys().get(key).and_then(|facts| facts.ending) {
        Some(Ending::Begun { entry, document: of }) if of == document.digest() => Ok(Some(entry)),
        Some(ending) => Err(ended(key, ending)),
        None => Ok(None),
    }
}

/// No other document ends a key whose end was begun.
fn ended(key: &KeyLabel, ending: Ending) -> CeremonyError {
    let why = match ending {
        Ending::Begun { entry, document } => format!(
            "its destruction was begun by another document, of SHA-256 {document}, in entry {entry}; run that to its end"
        ),
        Ending::Destroyed { entry } => format!("it was destroyed, by entry {entry}; nothing is left to do"),
    };
    CeremonyError::Key { key: key.clone(), why }
}

fn judge(
    recorder: &Recorder,
    document: &Written<Destruction>,
    signatures: &[Vec<u8>],
) -> Result<KeyDestruction, Vec<Reason>> {
    let Moment { at, clock } = recorder.moment();
    let context = Context { fold: recorder.fold(), blobs: recorder, heads: recorder, at, clock };
    intake::destruction(&context, document, &Submission { signatures, devices: None })
}

/// Says what is about to end, and has its name typed.
fn confirm(desk: &mut Desk, form: &Destruction, begun: Option<u64>, print: Printer) -> Result<(), CeremonyError> {
    let label = form.key.label.as_str();
    print.note(&format!(
        "Key {label} will be destroyed, for good, on\n{}\nIts public key has the SHA-256\n  {}",
        form.tokens
            .iter()
            .map(|on| format!("  {}, serial number {}", on.token, on.serial))
            .collect::<Vec<_>>()
            .join("\n"),
        Words(form.key.spki_sha256).to_string().replace('\n', "\n  ")
    ));
    if let Some(entry) = begun {
        print.note(&format!("The destruction was begun in entry {entry}, and is gone on with."));
    }
    let found = desk.ask("destroy/label", "Type the label of the key to destroy it; anything else stops:", label)?;
    if found == label {
        return Ok(());
    }
    let why = format!("expected {label:?}; nothing was destroyed");
    Err(CeremonyError::Answer { question: "destroy/label".to_owned(), why, found })
}

/// Intent, tokens, outcome. The index of the entry of the outcome.
fn destroy(
    opened: &mut Opened,
    document: &Written<Destruction>,
    signatures: &[Vec<u8>],
    begun: Option<u64>,
    print: Printer,
) -> Result<u64, CeremonyError> {
    let form = document.form();
    let label = &form.key.label;
    let ledger_token = opened.log_in()?;
    // Every token is there and logged in before the intent: a token that is away, or a wrong PIN, leaves none.
    let mut tokens = Vec::new();
    for on in &form.tokens {
        let uses = opened.uses(&on.token);
        let mut expectations = start::expectations(opened.fold(), &on.token);
        // It may be gone from this token already.
        expectations.keys.retain(|key| key.label != *label);
        let expectations = Expectations { origin: None, ..expectations };
        let (token, report) = opened.start(&on.token, &uses, expectations)?;
        if report.serial != *on.serial {
            let why = format!("token {}: expected the serial number {}, found {}", on.token, on.serial, report.serial);
            return Err(CeremonyError::Key { key: label.clone(), why });
        }
        tokens.push(token);
    }
    let destruction = match begun {
        Some(entry) => entry,
        None => record_alone(&mut opened.ledger, |recorder| match judge(recorder, document, signatures) {
            Ok(decided) => {
                let by = recorder.known(room::conductor());
                recorder.queue_blob(document.octets().to_vec());
                for p7s in signatures {
                    let digest = Digest::of(p7s);
                    if decided.signatures.iter().any(|signature| signature.p7s == digest) {
                        recorder.queue_blob(p7s.clone());
                    }
                }
                recorder.queue(&by, Event::KeyDestruction(decided)).map(Ok)
            }
            Err(reasons) => Ok(Err(reasons)),
        })?
        .into_inner()
        .map_err(CeremonyError::Refused)?,
    };
    opened.keep_head(&ledger_token)?;
    // On every token: the maker's means may have cloned it with the pair, and that it is on none is no error.
    let facts = opened.fold().keys().get(label).and_then(|facts| facts.contingency.as_ref());
    let material = facts.map(|facts| Material::from(&facts.prepared));
    for (on, token) in form.tokens.iter().zip(&tokens) {
        let gone = token.destroy_key(label.clone(), form.cka_id, form.key.spki_sha256, material).wait();
        gone.map_err(|source| StartFault::Hsm { token: on.token.clone(), source })?;
        print.note(&format!("key {label} is not on token {} any more", on.token));
        token.shutdown();
    }
    let destroyed = KeyDestroyed { key: label.clone(), destruction, tokens: form.tokens.clone() };
    let outcome =
        record_alone(&mut opened.ledger, |recorder| match intake::may_end(recorder.fold(), form, &destroyed) {
            Ok(()) => {
                let by = recorder.known(room::conductor());
                recorder.queue(&by, Event::KeyDestroyed(destroyed)).map(Ok)
            }
            Err(reasons) => Ok(Err(reasons)),
        })?;
    let entry = outcome.into_inner().map_err(CeremonyError::Refused)?;
    opened.keep_head(&ledger_token)?;
    Ok(entry)
}
