//! Shell: `smkictl custodian check`: does a share still open, and is it the one that was dealt? Asked at home, once a year, and not in the
//! night in which it is needed.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::super::{CliError, Context, Exit, input};
use super::share::{Closed, Key, keep_memory};
use super::unfit;
use crate::custody::file::{CustodyFile, FILE_LEN_MAX};
use crate::custody::scheme::Share;
use crate::domain::ledger::custody::Holder;
use crate::domain::names::{Digest, KeyLabel, PersonId, ShareName};

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Your share; - is what comes by a pipe
    #[arg(long, value_name = "FILE")]
    share: PathBuf,
    /// Your copy of the custody file
    #[arg(long, value_name = "KEY.GENERATION.json")]
    custody: PathBuf,
    #[command(flatten)]
    key: Key,
}

/// What a share is.
#[derive(Serialize)]
struct Checked<'a> {
    share: &'a ShareName,
    key: &'a KeyLabel,
    generation: u32,
    holder: &'a PersonId,
    need: u32,
    of: usize,
    custody_sha256: Digest,
}

/// Does it.
pub fn run(context: &Context, check: &Check) -> Result<Exit, CliError> {
    keep_memory(context);
    let name = check.custody.display();
    let octets = input::file(&check.custody, FILE_LEN_MAX)?;
    let custody = CustodyFile::from_octets(&octets)
        .map_err(|found| unfit(&format!("{name}: expected a custody file, found {found}")))?;
    let commitments = custody.commitments().map_err(|error| unfit(&format!("{name}: {error}")))?;
    let closed = Closed::read(&check.share, &check.key)?;
    let scalar = closed.open(context, None)?;
    let is_its = |holder: &&Holder| Share::new(holder.index, scalar.clone()).is_ok_and(|share| commitments.fit(&share));
    let CustodyFile { key, generation, threshold, holders, .. } = &custody;
    let Some(holder) = holders.iter().find(is_its) else {
        context.print.error(&format!(
            "{}: it opens, and is no share of key {key}, generation {generation}, which {name} is about: it is of another generation or key, \
             or was altered. Compare what stands in its first line",
            closed.name
        ));
        return Ok(Exit::Unverified);
    };
    let checked = Checked {
        share: &holder.share,
        key,
        generation: *generation,
        holder: &holder.person,
        need: *threshold,
        of: holders.len(),
        custody_sha256: custody.digest(),
    };
    context.print.answer(&checked, |text| {
        text.row("share", format!("{}, of {}: it opens, and is the one that was dealt", checked.share, checked.holder))
            .row("of key", format!("{key}, generation {generation}"))
            .row("opens with", format!("{} of {} shares", checked.need, checked.of))
            .row("custody file", format!("SHA-256 {}", checked.custody_sha256))
            .line("Whether that generation is the last, the ledger says: smkictl ledger list --kind shares-dealt");
    })?;
    Ok(Exit::Done)
}
