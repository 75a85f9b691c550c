//! Shell: `smkictl policy`, as far as it needs the daemon.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::document::Delivery;
use super::{CliError, Context, Exit, input, member};
use crate::api::wire::{self, Base64};

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
            Self::Member(command) => member::sit(context, command.asks(), |seat| command.run(seat)).await,
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
                let files = input::policy(&policy)?.into_iter().map(|(path, octets)| (path, Base64(octets))).collect();
                delivery.send(context, None, Some(files), None).await
            }
        }
    }
}
