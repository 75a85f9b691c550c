//! Shell: `smkictl determination`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::document::Delivery;
use super::{CliError, Context, Exit, member};
use crate::api::wire::{self, Standing};
use crate::domain::procedure::calendar::shown;

/// Deliver and show what the SMKI PMA determined.
#[derive(Subcommand, Debug)]
pub enum Determination {
    /// What needs no daemon
    #[command(flatten)]
    Member(Box<member::Determination>),
    /// Deliver a signed determination, schedule, suspension, withdrawal or direction
    #[command(after_help = "Examples:\n  smkictl determination record 5f2c….json --devices 5f2c….devices.txt\n  \
        smkictl determination record 5f2c….json --signature 5f2c….alice.p7s --signature 5f2c….bob.p7s\n\n\
        Who delivers it does not matter: who signed it does.")]
    Record(Record),
    /// Show every determination on record and where it stands
    #[command(after_help = "Example:\n  smkictl determination list")]
    List,
}

/// Arguments of `record`.
#[derive(Args, Debug)]
pub struct Record {
    #[command(flatten)]
    delivery: Delivery,
    /// The device list that the document refers to
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,
    /// Of a direction: its own text, to be kept beside it
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
}

impl Determination {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Member(command) => member::sit(context, command.asks(), |seat| command.run(seat)).await,
            Self::Record(Record { delivery, devices, text }) => {
                delivery.send(context, devices.as_deref(), None, text.as_deref()).await
            }
            Self::List => {
                let all: wire::Determinations = context.client.get("/v1/determinations").await?;
                context.print.answer(&all, |text| {
                    for one in &all.determinations {
                        let done = format!("{} of {} signed", one.done.signed, one.devices_count.unwrap_or_default());
                        text.row(
                            &one.determination.to_string(),
                            format!(
                                "{}, {}, {}, until {}, {done}",
                                one.incident,
                                standing(one.standing),
                                one.key.as_ref().map_or_else(|| "no key".into(), |key| format!("key {key}")),
                                shown(one.until)
                            ),
                        );
                    }
                    if all.determinations.is_empty() {
                        text.line("There are no determinations.");
                    }
                })?;
                Ok(Exit::Done)
            }
        }
    }
}

const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::NotYet => "not yet in force",
        Standing::AwaitsSchedule => "awaits its schedule",
        Standing::InForce => "in force",
        Standing::Suspended => "suspended",
        Standing::Withdrawn => "withdrawn",
        Standing::Superseded => "superseded",
        Standing::Expired => "expired",
        Standing::NotExecute => "decided not to execute",
        Standing::IncidentClosed => "over: its incident is closed",
        Standing::NotCarriedOver => "not carried over by the policy in force",
    }
}
