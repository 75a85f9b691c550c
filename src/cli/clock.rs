//! Shell: `smkictl clock`.

use clap::Subcommand;

use super::{Change, CliError, Context, Exit, incident};
use crate::api::wire;
use crate::domain::time::Timestamp;

/// Accept the daemon's clock after a jump.
#[derive(Subcommand, Debug)]
pub enum Clock {
    /// Say that you compared the clock with another one, so that signing goes on
    #[command(
        after_help = "Example:\n  smkictl clock accept --time 2026-11-28T03:12:00Z --reason 'Compared with the speaking clock; NTP was set by hand'"
    )]
    Accept {
        /// What the other clock says now, UTC, as 2026-11-28T03:12:00Z
        #[arg(long, value_name = "TIME")]
        time: Timestamp,
        /// What it was compared with, as it is to stand in the ledger
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        /// Whether to do it.
        change: Change,
    },
}

impl Clock {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Accept { time, reason, change } => {
                incident::recorded(context, "/v1/clock/accept", &wire::ClockAccept { time, reason }, change).await
            }
        }
    }
}
