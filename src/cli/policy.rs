//! Shell: `smkictl policy`, as far as it needs the daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::document::Delivery;
use super::input::{self, InputError};
use super::{CliError, Context, Exit, member};
use crate::api::wire::{self, Base64};

/// How deep the folders of a policy may lie: `keys-policy/procedure/` is one.
const DEPTH_MAX: usize = 4;

/// Show the policy in force, deliver another one.
#[derive(Subcommand, Debug)]
pub enum Policy {
    /// What needs no daemon
    #[command(flatten)]
    Member(member::Policy),
    /// Show the policy in force
    #[command(
        after_help = "Examples:\n  smkictl policy show\n  smkictl policy show --output json | jq -r '.files | keys[]'"
    )]
    Show,
    /// Deliver another policy, with the signed document that adopts it
    #[command(after_help = "Example:\n  smkictl policy adopt adoption-2.json --policy keys-policy/")]
    Adopt(Adopt),
}

/// Arguments of `adopt`.
#[derive(Args, Debug)]
pub struct Adopt {
    #[command(flatten)]
    delivery: Delivery,
    /// The directory with the policy's files
    #[arg(long, value_name = "DIR")]
    policy: PathBuf,
}

impl Policy {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Member(command) => member::sit(context, command.asks_daemon(), |desk| command.run(desk)).await,
            Self::Show => {
                let policy: wire::Policy = context.client.get("/v1/policy").await?;
                context.print.answer(&policy, |text| {
                    text.row("number", policy.sequence)
                        .row("purpose", policy.purpose)
                        .row("sha256", policy.sha256)
                        .row("adopted", format!("entry {}", policy.entry));
                    for (path, octets) in &policy.files {
                        text.line(&format!("\n# {path}"));
                        text.line(String::from_utf8_lossy(&octets.0).trim_end());
                    }
                })?;
                Ok(Exit::Done)
            }
            Self::Adopt(Adopt { delivery, policy }) => {
                let mut files = BTreeMap::new();
                collect(&policy, "", DEPTH_MAX, &mut files)?;
                delivery.send(context, None, Some(files)).await
            }
        }
    }
}

/// Every regular file below `folder`, by its path from there with `/` between.
fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut BTreeMap<String, Base64>) -> Result<(), InputError> {
    let unreadable = |source| InputError::Unreadable { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|_| InputError::NotText { path: path.clone() })?;
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() && depth > 0 {
            collect(&path, &format!("{prefix}{name}/"), depth - 1, files)?;
        } else if kind.is_file() {
            files.insert(format!("{prefix}{name}"), Base64(input::file(&path, input::DOCUMENT_LEN_MAX)?));
        } else {
            return Err(InputError::Empty { path, expected: "a file, or a folder that is not deeper than a policy's" });
        }
    }
    Ok(())
}
