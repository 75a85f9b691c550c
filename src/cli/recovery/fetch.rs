//! Shell: `smkictl recovery fetch`.

use std::path::PathBuf;

use clap::Args;

use super::super::{Change, CliError, Context, Exit, input};
use super::out::files::Order;
use super::out::{As, Format, Out};
use super::take;
use crate::api::routes::Verb;
use crate::api::wire;
use crate::domain::names::RequestId;

/// Arguments of `fetch`.
#[derive(Args, Debug)]
pub struct Fetch {
    /// The request, or the job
    request: RequestId,
    /// Where signed commands go: a directory, or `-` for stdout
    #[arg(long, value_name = "DIR|-", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: As,
    /// Go on until the request has come to its end
    #[arg(long)]
    follow: bool,
    /// Only those of these Devices: a file with one EUI-64 a line
    #[arg(long, value_name = "FILE", conflicts_with = "follow")]
    devices: Option<PathBuf>,
    #[command(flatten)]
    change: Change,
}

impl Fetch {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { request, out, how, follow, devices, change } = self;
        let devices = match devices {
            None => None,
            Some(path) => match input::devices(&path.to_string_lossy())? {
                wire::Devices::Listed(devices) => Some(devices.into_iter().map(|ask| ask.device).collect()),
                wire::Devices::All => None,
            },
        };
        let order = if devices.is_some() { Order::Any } else { Order::InOrder };
        let out = out.filter(|_| !change.dry_run);
        let out = Out::open(out.as_deref(), how, Format::Container, Some(request), order)?;
        let ask = wire::RecoveryFetch { after: out.after(), devices, until: None, follow };
        if let Some(after) = ask.after {
            context.print.note(&format!("going on after intent {after}: what is whole there is kept"));
        }
        let path = format!("/v1/recovery/requests/{request}/commands");
        if change.dry_run {
            return context.would_send(Verb::Post, &path, Some(&ask));
        }
        take(context, context.client.post_for_commands(&path, &ask).await?, out, Some(&path)).await
    }
}
