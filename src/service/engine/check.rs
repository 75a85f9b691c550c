//! Shell: after a start from a snapshot the whole ledger is judged beside the daemon. It answers meanwhile, and activates no key.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Daemon;
use crate::api::engine::Fatal;
use crate::api::failure::Failure;
use crate::api::wire::Trouble;
use crate::service::start::StartFault;
use crate::state::{self, Unchecked};
use crate::store::sqlite::{Scratch, SqliteReader};

/// How long an activation waits for the end of a check: that of a small ledger is done in moments.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How far a check is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checking {
    size: u64,
    checked: u64,
    begun: Instant,
}

impl Checking {
    /// Before it begins.
    pub(super) fn of(unchecked: &Unchecked) -> Self {
        Self { size: unchecked.size(), checked: 0, begun: Instant::now() }
    }

    fn what(&self) -> String {
        let share = self.checked * 100 / self.size.max(1);
        let rest = self.size.saturating_sub(self.checked);
        let seconds = self.begun.elapsed().as_millis() * u128::from(rest) / u128::from(self.checked.max(1)) / 1_000;
        let left = if self.checked == 0 { String::new() } else { format!(", some {seconds} s to go") };
        format!("the ledger is being checked since the start: {share} %{left}")
    }

    /// For `status`.
    pub(super) fn told(&self) -> Trouble {
        Trouble {
            what: self.what(),
            remedy: "Until it is done no key is activated; everything else is answered".into(),
        }
    }
}

/// Judges the whole ledger on a thread of its own. `failed` hears of a fault.
pub(super) fn begin(
    state: &Path,
    unchecked: Unchecked,
    checking: watch::Sender<Option<Checking>>,
    stopping: watch::Receiver<bool>,
    failed: impl FnOnce(Fatal) + Send + 'static,
) -> std::io::Result<()> {
    let state = state.to_owned();
    std::thread::Builder::new().name("ledger-check".into()).spawn(move || {
        let mut tell = |checked| {
            checking.send_modify(|checking| {
                if let Some(checking) = checking {
                    checking.checked = checked;
                }
            });
            if *stopping.borrow() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match check(&state, unchecked, &mut tell) {
            Ok(true) => {
                tracing::info!("the whole ledger was checked");
                checking.send_replace(None);
            }
            // The daemon stops.
            Ok(false) => {}
            Err(fault) => failed(fault.fatal()),
        }
    })?;
    Ok(())
}

fn check(state: &Path, unchecked: Unchecked, tell: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<bool, StartFault> {
    let (reader, scratch) = (SqliteReader::open(state)?, Scratch::open(state)?);
    Ok(state::check_beside(&reader, scratch.rebuild()?, unchecked, tell)?)
}

impl Daemon {
    /// That the ledger was checked since the start: until then no key is activated.
    pub(super) async fn is_checked(&self) -> Result<(), Failure> {
        let mut checking = self.checking.clone();
        let done = tokio::time::timeout(WAIT_MAX, checking.wait_for(Option::is_none)).await;
        if let Ok(Ok(_)) = done {
            return Ok(());
        }
        let why = self.checking.borrow().as_ref().map(Checking::what);
        match why {
            None => Ok(()),
            Some(why) => {
                let remedy = "No key is activated, and no command fetched, before: ask again then. `smkictl status` says how far it is".into();
                Err(Failure::Unavailable { why, remedy })
            }
        }
    }
}
