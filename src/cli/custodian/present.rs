//! Shell: `smkictl custodian present`: a share is opened at this console, and leaves it sealed to the vault of its key.

use std::path::PathBuf;

use clap::Args;
use nix::unistd::User;
use zeroize::Zeroizing;

use super::super::{Change, CliError, Context, Exit, input};
use super::share::{Closed, Key, keep_memory};
use super::{faulty, standing, unfit};
use crate::api::client::{ClientError, with_query};
use crate::api::failure::ProblemKind;
use crate::api::routes::Verb;
use crate::api::wire::{self, Base64};
use crate::custody::present::{self, Purpose};
use crate::custody::scheme::{Commitments, SCALAR_LEN, Share};
use crate::domain::custody::Statement;
use crate::domain::determination::cms::{self, Ess, P7S_LEN_MAX};
use crate::domain::determination::document::{DOCUMENT_LEN_MAX, Written};
use crate::domain::ledger::custody::SharesDealt;
use crate::domain::ledger::entry::{Entry, Event};
use crate::domain::names::{self, KeyLabel};
use crate::hsm::one_time::SealTo;

/// Arguments of `present`.
#[derive(Args, Debug)]
pub struct Present {
    /// The key's label
    key: KeyLabel,
    /// Your share; - is what comes by a pipe. Left out where the HSM itself asks
    #[arg(long, value_name = "FILE")]
    share: Option<PathBuf>,
    /// Your statement, octet for octet as you signed it
    #[arg(long, value_name = "FILE")]
    statement: PathBuf,
    /// Your signature over it, DER or PEM
    #[arg(long, value_name = "STATEMENT.PERSON.p7s")]
    signature: PathBuf,
    #[command(flatten)]
    opened_by: Key,
    /// In an exercise only: a file whose first line is the passphrase, of the share or of --key-file
    #[arg(long, value_name = "FILE", requires = "share")]
    passphrase_file: Option<PathBuf>,
    /// The account that smkid runs as. In earnest nothing is sent to a process of another, but root's
    #[arg(long, value_name = "ACCOUNT", default_value = "smkid")]
    answered_by: String,
    #[command(flatten)]
    change: Change,
}

/// Does it.
pub async fn run(context: &Context, args: &Present) -> Result<Exit, CliError> {
    keep_memory(context);
    let name = args.statement.display();
    let octets = input::file(&args.statement, DOCUMENT_LEN_MAX as u64)?;
    let statement: Written<Statement> = Written::read(octets).map_err(|faults| faulty(&faults))?;
    let form = statement.form();
    if form.key.label != args.key {
        let found = &form.key.label;
        return Err(unfit(&format!("{name}: expected a statement about key {}, found one about {found}", args.key)));
    }
    let closed = match (&args.share, &form.share) {
        (Some(path), Some(_)) => Some(Closed::read(path, &args.opened_by)?),
        (None, None) => None,
        (None, Some(share)) => return Err(unfit(&format!("{name} names {share}: give its file with --share"))),
        (Some(_), None) => {
            return Err(unfit(&format!(
                "{name} names no share, for the HSM itself asks the Key Custodians: leave --share out, or make a statement that names \
                 yours (smkictl custodian statement)"
            )));
        }
    };
    let signature = input::file(&args.signature, P7S_LEN_MAX as u64)?;
    if let Err(fault) = cms::verify(&signature, statement.octets(), Ess::Waived) {
        context.print.error(&format!("{}: no signature over {name}: {fault}", args.signature.display()));
        return Ok(Exit::Unverified);
    }
    let path = format!("/v1/keys/{}/presentations", args.key);
    let sent = wire::Present { statement: Base64(statement.octets().to_vec()), signature: Base64(signature) };
    if args.change.dry_run {
        return context.would_send(Verb::Post, &path, Some(&sent));
    }
    let held;
    let context = if form.purpose == names::Purpose::Live {
        let answers = answerer(context, &args.answered_by).await?;
        held = Context { client: context.client.held_to(answers), print: context.print };
        &held
    } else {
        context
    };
    if args.passphrase_file.is_some() {
        let status: wire::Status = context.client.get("/v1/status").await?;
        if (form.purpose, status.purpose) != (names::Purpose::Exercise, names::Purpose::Exercise) {
            return Err(unfit(&format!(
                "--passphrase-file is for exercises; the statement is {} and the ledger is {}. Leave it out, and type the passphrase",
                form.purpose, status.purpose
            )));
        }
    }
    let begun: wire::PresentationBegun = context.client.post(&path, &sent).await?;
    let presented = match (closed, begun.share, begun.recorded) {
        (Some(closed), Some(wanted), None) => {
            let scalar = closed.open(context, args.passphrase_file.as_deref())?;
            let share = fitting(context, form, (&closed.name, scalar), &wanted).await?;
            let Some(share) = share else { return Ok(Exit::Unverified) };
            let purpose = Purpose {
                origin: form.ledger.origin.clone(),
                key: args.key.clone(),
                generation: wanted.generation,
                incident: form.incident.clone(),
                statement: statement.digest(),
            };
            let seal_to = SealTo::from_octets(&wanted.seal_to.0)
                .ok_or_else(|| unfit("expected the vault's point of P-256 to seal to, found other octets"))?;
            let sealed = present::seal(&share, &purpose, &seal_to).map_err(|error| unfit(&error.to_string()))?;
            let sealed = wire::SealedShare { sealed: Base64(sealed) };
            context.client.post(&format!("{path}/{}", wanted.presentation), &sealed).await?
        }
        (None, None, Some(presented)) => presented,
        (Some(_) | None, _, _) => {
            let what = "expected that a share is asked for where the statement names one, and nowhere else; found the contrary: is smkictl of \
                        smkid's version?";
            return Err(unfit(what));
        }
    };
    tell(context, form, &presented)?;
    Ok(Exit::Done)
}

/// Whoever answers on the socket says to what key the share is sealed, and could open it: so it must be smkid.
async fn answerer(context: &Context, account: &str) -> Result<u32, CliError> {
    let found = context.client.answered_by().await?;
    let expected = User::from_name(account).ok().flatten().map(|user| user.uid.as_raw());
    if found == 0 || Some(found) == expected {
        return Ok(found);
    }
    let name = User::from_uid(found.into()).ok().flatten().map_or_else(String::new, |user| format!(", {}", user.name));
    Err(unfit(&format!(
        "what answers at the socket runs as user {found}{name}; expected root or {account}, as which smkid runs (--answered-by). Whoever answers \
         could open your share: nothing was sent. Check --socket and SMKID_SOCKET"
    )))
}

/// The share with the index that is wanted, if it fits the commitments that the ledger has; says why not.
async fn fitting(
    context: &Context,
    form: &Statement,
    (name, scalar): (&str, Zeroizing<[u8; SCALAR_LEN]>),
    wanted: &wire::ShareWanted,
) -> Result<Option<Share>, CliError> {
    let share = Share::new(wanted.index, scalar).map_err(|error| unfit(&format!("{name}: {error}")))?;
    let key = &form.key.label;
    let fits = match dealt(context, key, wanted.generation)
        .await?
        .and_then(|dealt| Commitments::read_hex(&dealt.commitments).ok())
    {
        Some(commitments) => commitments.fit(&share),
        // Then the vault says it.
        None => true,
    };
    if fits {
        return Ok(Some(share));
    }
    context.print.error(&format!(
        "{name}: it opens, and is not {} of key {key}, generation {}: it is another's, of another generation or key, or was altered. Nothing \
         of it was sent. With your copy of the custody file, `smkictl custodian check` says which it is",
        wanted.share, wanted.generation
    ));
    Ok(None)
}

/// What the ledger says of that generation of a key's shares.
async fn dealt(context: &Context, key: &KeyLabel, generation: u32) -> Result<Option<SharesDealt>, CliError> {
    let mut from = None;
    loop {
        let query = [("kind", Some("shares-dealt".to_owned())), ("from", from.map(|from: u64| from.to_string()))];
        let some: wire::Entries = match context.client.get(&with_query("/v1/ledger/entries", &query)).await {
            Ok(some) => some,
            // An account that may not read the ledger may present all the same.
            Err(ClientError::Problem(problem)) if problem.error == ProblemKind::Forbidden => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        for entry in &some.entries {
            if let Ok(Entry { event: Event::SharesDealt(dealt), .. }) = Entry::from_leaf(entry.entry.get().as_bytes())
                && dealt.key == *key
                && dealt.generation == generation
            {
                return Ok(Some(dealt));
            }
        }
        match some.next {
            Some(next) if from.is_none_or(|from| next > from) => from = Some(next),
            Some(_) | None => return Ok(None),
        }
    }
}

/// Who is there by now, and what is next.
fn tell(context: &Context, form: &Statement, presented: &wire::Presented) -> Result<(), CliError> {
    let (key, incident) = (&form.key.label, &form.incident);
    context.print.answer(presented, |text| {
        text.row("presented", format!("{}, entry {}", form.person, presented.entry))
            .row("for key", key)
            .row("for incident", incident);
        let custody = &presented.standing;
        standing(custody, text);
        if custody.enough {
            text.row("next", format!("smkictl key activate {key} --incident {incident}"));
        } else if custody.have >= custody.need {
            text.row(
                "next",
                format!("a custodian of another Party presents; then smkictl key activate {key} --incident {incident}"),
            );
        } else {
            let more = custody.need - custody.have;
            text.row("next", format!("{more} more to present; then smkictl key activate {key} --incident {incident}"));
        }
    })?;
    Ok(())
}
