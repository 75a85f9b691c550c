//! Shell: `smkictl custodian statement`: what a Key Custodian signs, written down for the key as it stands now.

use std::path::PathBuf;

use clap::Args;

use super::super::{CliError, Context, Exit, input};
use super::{faulty, unfit};
use crate::api::wire;
use crate::cli::member::files;
use crate::domain::custody::Statement;
use crate::domain::determination::document::{DOCUMENT_LEN_MAX, Determination, LedgerHead, Type, Written};
use crate::domain::determination::times::HOUR_MS;
use crate::domain::names::{PersonId, StatementId};

/// Arguments of `statement`.
#[derive(Args, Debug)]
pub struct Draft {
    /// Who you are, as the policy calls you
    #[arg(long, value_name = "ID")]
    person: PersonId,
    /// The determination for which the key is to be opened; its SHA-256 goes into the statement
    #[arg(long, value_name = "ID.json")]
    determination: PathBuf,
    /// For how many hours the statement holds: the key is locked by then. The policy has a limit (custodians.toml)
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    hours: u32,
    /// Where it goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub async fn write(context: &Context, draft: &Draft) -> Result<Exit, CliError> {
    let octets = input::file(&draft.determination, DOCUMENT_LEN_MAX as u64)?;
    let document: Written<Determination> = Written::read(octets).map_err(|faults| faulty(&faults))?;
    let form = document.form();
    let Some(key) = &form.key else {
        return Err(unfit("the determination is not to execute: it opens no key"));
    };
    // Whoever reaches the daemon may ask for this; a custodian need be nothing else there.
    let status: wire::Status = context.client.get("/v1/status").await?;
    let ledger = LedgerHead { origin: status.origin, size: status.ledger.size, root: status.ledger.root };
    // By the clock that the statement is judged by.
    let expires = status.clock.now.plus_ms(i64::from(draft.hours) * HOUR_MS);
    let custody = status.keys.into_iter().find(|found| found.key == key.label).and_then(|found| found.custody);
    let Some(custody) = custody else {
        return Err(unfit(&format!("key {} is not opened by Key Custodians under the policy in force", key.label)));
    };
    let mut standing = custody.presented.iter().chain(&custody.can_present);
    let Some(standing) = standing.find(|standing| standing.person == draft.person) else {
        return Err(unfit(&format!("{} is no Key Custodian in force with a share of key {}", draft.person, key.label)));
    };
    let id: StatementId = input::request_id()?.to_string().parse().map_err(|error| unfit(&format!("{error}")))?;
    let written = Written::write(&Statement {
        r#type: Type::new(),
        purpose: form.purpose,
        id,
        ledger,
        person: draft.person.clone(),
        key: key.clone(),
        incident: form.incident.clone(),
        determination: form.id,
        document: document.digest(),
        share: standing.share.clone(),
        generation: standing.share.as_ref().and(custody.generation),
        expires,
    })
    .map_err(|faults| faulty(&faults))?;
    files::write_new(&draft.out, written.octets()).map_err(|error| unfit(&error.to_string()))?;
    context.print.answer(written.form(), |text| {
        text.row("statement", draft.out.display())
            .row("SHA-256", written.digest())
            .row("you", &draft.person)
            .row("opens key", &key.label)
            .row("for incident", &form.incident)
            .row("under determination", format!("{} (SHA-256 {})", form.id, document.digest()))
            .some("with share", standing.share.as_ref())
            .row("until", expires)
            .row("next", format!("smkictl determination sign {} --key … --certificate …", draft.out.display()));
    })?;
    Ok(Exit::Done)
}
