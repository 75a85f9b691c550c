//! Shell: what the service manager is told, and the socket it may pass (sd_notify(3), sd_listen_fds(3)).
//!
//! Without systemd every call here does nothing. A child process must not inherit `NOTIFY_SOCKET`: whoever starts one
//! removes it ([`ENVIRONMENT`]).

use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use sd_notify::NotifyState;

/// What the service manager puts into our environment, to be taken from that of every child.
pub const ENVIRONMENT: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Why the sockets that were passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// More than one.
    #[error(
        "expected at most one socket from the service manager, found {found}. Keep one ListenStream= in smkid.socket"
    )]
    Sockets {
        /// How many.
        found: usize,
    },
    /// Not a listening Unix stream socket.
    #[error("the socket from the service manager is no listening Unix socket: {source}. Check smkid.socket")]
    Kind {
        /// What was found.
        source: std::io::Error,
    },
}

/// The socket that the service manager made for us, if it did. Taken once, at the start.
pub fn passed_socket() -> Result<Option<UnixListener>, NotifyError> {
    let mut passed = listenfd::ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => {
            let socket = passed.take_unix_listener(0).map_err(|source| NotifyError::Kind { source })?;
            if let Some(socket) = &socket {
                // It is passed to be inherited; by our workers it must not be.
                fcntl_setfd(socket, FdFlags::CLOEXEC).map_err(|error| NotifyError::Kind { source: error.into() })?;
            }
            Ok(socket)
        }
        found => Err(NotifyError::Sockets { found }),
    }
}

/// The daemon answers requests.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The start goes on, and may take so much longer from now.
pub fn still_starting(longer: Duration, status: &str) {
    let longer = u32::try_from(longer.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(longer), NotifyState::Status(status)]);
}

/// The daemon is ending; `systemctl status` shows why.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Pings the watchdog as long as `alive` says so, at half the interval that systemd asks for; returns if it asks for none.
///
/// Nothing pings by itself: a daemon whose engine makes no progress is restarted.
pub async fn watch(alive: impl Fn() -> bool) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    watch_every(interval / 2, alive, || tell(&[NotifyState::Watchdog])).await;
}

async fn watch_every(pause: Duration, alive: impl Fn() -> bool, ping: impl Fn()) {
    let mut was_alive = true;
    loop {
        tokio::time::sleep(pause).await;
        let is_alive = alive();
        if is_alive {
            ping();
        } else if was_alive {
            tracing::error!("the engine makes no progress; the watchdog is not pinged until it does");
        }
        was_alive = is_alive;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests;
