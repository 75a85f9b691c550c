//! Shell: the Unix socket. Says who is at the other end of each connection, and keeps any one of them from holding up the rest.
//!
//! The limits are for accidents as much as for malice: a script that forgets to close, a terminal that was suspended in the
//! middle of an answer. Operators always find a free place: other accounts may take only half of them.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::Group;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::authenticate::Roles;
use super::engine::{Caller, Engine};
use super::routes;
use crate::domain::ledger::entry::Role;

/// Connections at a time. Each costs a task and two small buffers; a team of operators with scripts needs a dozen.
pub const CONNECTIONS_MAX: usize = 64;
/// Of them, for accounts that are neither operator nor auditor, all together.
pub const CONNECTIONS_OF_ACCOUNTS_MAX: usize = CONNECTIONS_MAX / 2;
/// Connections of one account at a time.
pub const CONNECTIONS_PER_ACCOUNT_MAX: usize = 16;
/// How long the head of a request may take, from the moment the connection is free for it. A local client sends it at once.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may leave an answer unread before it is given up. Long enough for a person who pauses a terminal.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long connections have, once the daemon is asked to stop, to take the rest of their answers.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// A request has few headers, and none of them long.
const HEADERS_MAX: usize = 64;
/// What is held of a request's head, and of an answer on its way.
const BUFFER_LEN_MAX: usize = 64 * 1024;
/// After a failed accept (too many open files): long enough for some to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Owner and group may connect; what they may do then is for the roles to say.
const SOCKET_MODE: u32 = 0o660;

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody answers there.
    #[error("{} is in use by another process. Stop that one, or set `socket` to another path", path.display())]
    Live {
        /// Where.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} exists and is not a socket. Remove it, or set `socket` to another path", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The group of the configuration does not exist.
    #[error("the group {group:?} of `socket_group` does not exist. Create it, or correct the configuration")]
    NoGroup {
        /// Its name.
        group: String,
    },
    /// The system said no.
    #[error("cannot {what} {}: {source}. Check that its directory exists and belongs to this account", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket that systemd passed cannot be used.
    #[error("the socket passed by the service manager cannot be used: {source}. Check smkid.socket")]
    Passed {
        /// What the system said.
        source: io::Error,
    },
}

/// A socket that is being listened on. Removed when dropped, if it was made here and is still the same.
pub struct Listener {
    listener: UnixListener,
    made: Option<(PathBuf, u64)>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.made
            && std::fs::symlink_metadata(path).is_ok_and(|found| found.ino() == *inode)
        {
            // What is left behind is stale, and the next start removes it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listener {
    /// Listens on `path`, mode 0660, in `group` if one is given. A stale socket is replaced, a live one is not.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, ListenError> {
        let wrong = |what, source| ListenError::System { what, path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NotASocket { path: path.to_owned() });
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Ok(_) | Err(_) => return Err(ListenError::Live { path: path.to_owned() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong("look at", error)),
        }
        // Made under another name and moved there once owner and mode are right: nobody connects before.
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        match std::fs::remove_file(&new) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong("remove the left-over beside", error)),
        }
        let listener = UnixListener::bind(&new).map_err(|error| wrong("listen on", error))?;
        std::fs::set_permissions(&new, PermissionsExt::from_mode(SOCKET_MODE))
            .map_err(|error| wrong("set the mode of", error))?;
        if let Some(name) = group {
            let group =
                Group::from_name(name).ok().flatten().ok_or_else(|| ListenError::NoGroup { group: name.to_owned() })?;
            std::os::unix::fs::chown(&new, None, Some(group.gid.as_raw()))
                .map_err(|error| wrong("set the group of", error))?;
        }
        std::fs::rename(&new, path).map_err(|error| wrong("put in place", error))?;
        let inode = std::fs::symlink_metadata(path).map_err(|error| wrong("look at", error))?.ino();
        Ok(Self { listener, made: Some((path.to_owned(), inode)) })
    }

    /// Listens on a socket that the service manager made: owner, group and mode are its business (smkid.socket).
    pub fn passed(listener: std::os::unix::net::UnixListener) -> Result<Self, ListenError> {
        listener.set_nonblocking(true).map_err(|source| ListenError::Passed { source })?;
        let listener = UnixListener::from_std(listener).map_err(|source| ListenError::Passed { source })?;
        Ok(Self { listener, made: None })
    }

    /// Answers requests until `stop` is true, then lets running answers end for at most [`STOP_GRACE`].
    pub async fn serve<E: Engine>(
        self,
        engine: Arc<E>,
        roles: Roles,
        upload_len_max: u64,
        mut stop: watch::Receiver<bool>,
    ) {
        let router = routes::router(&engine, upload_len_max);
        let roles = Arc::new(roles);
        let places = Arc::new(Places::default());
        let mut connections = JoinSet::new();
        let stopping = stop.clone();
        loop {
            tokio::select! {
                () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
                // Ended connections are forgotten one by one; the set does not grow.
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // Before anything is known of the peer: a bound on what is being looked up at a time.
                        if connections.len() >= 2 * CONNECTIONS_MAX {
                            turn_away(&stream);
                            continue;
                        }
                        let (roles, places) = (Arc::clone(&roles), Arc::clone(&places));
                        connections.spawn(connection(stream, roles, places, router.clone(), stopping.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, ended).await.is_err() {
            tracing::warn!("connections are cut: their answers were not taken in time");
        }
    }
}

async fn connection(
    stream: UnixStream,
    roles: Arc<Roles>,
    places: Arc<Places>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let uid = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(error) => return tracing::warn!(%error, "a peer without credentials is turned away"),
    };
    // The account data base may be slow (LDAP): not on the threads that serve the others.
    let caller = match tokio::task::spawn_blocking(move || roles.caller(uid)).await {
        Ok(Ok(caller)) => caller,
        Ok(Err(error)) => return tracing::warn!(%error, "a peer is turned away"),
        Err(error) => return tracing::error!(%error, "the look-up of a peer was lost"),
    };
    let Some(_place) = places.take(&caller) else {
        tracing::warn!(account = %caller.account, "too many connections");
        return turn_away(&stream);
    };
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        hyper::service::Service::call(&service, request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_LEN_MAX);
    let mut served = pin!(builder.serve_connection(TokioIo::new(Unstalled::new(stream, STALL_TIMEOUT)), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        // The guard that `wait_for` gives may not be held while the rest is awaited.
        () = async { drop(stop.wait_for(|stop| *stop).await) } => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Says so if the peer listens, and closes. Never waits.
fn turn_away(stream: &UnixStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
        connection: close\r\n\r\n\
        {\"error\":\"too-many\",\"message\":\"too many connections are open; close some first\",\"reasons\":[]}\n";
    let _ = stream.try_write(ANSWER);
}

/// Who holds how many of the connections.
#[derive(Default)]
struct Places {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    by_uid: HashMap<u32, usize>,
    by_accounts: usize,
    all: usize,
}

/// One connection's place, given back when dropped.
struct Place {
    places: Arc<Places>,
    uid: u32,
    role: Role,
}

impl Places {
    fn take(self: &Arc<Self>, caller: &Caller) -> Option<Place> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.by_uid.get(&caller.uid).copied().unwrap_or_default();
        let is_account = caller.role == Role::Account;
        if held.all >= CONNECTIONS_MAX
            || own >= CONNECTIONS_PER_ACCOUNT_MAX
            || (is_account && held.by_accounts >= CONNECTIONS_OF_ACCOUNTS_MAX)
        {
            return None;
        }
        held.all += 1;
        held.by_accounts += usize::from(is_account);
        held.by_uid.insert(caller.uid, own + 1);
        Some(Place { places: Arc::clone(self), uid: caller.uid, role: caller.role })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= 1;
        held.by_accounts -= usize::from(self.role == Role::Account);
        let left = held.by_uid.get(&self.uid).map_or(0, |own| own - 1);
        if left == 0 {
            held.by_uid.remove(&self.uid);
        } else {
            held.by_uid.insert(self.uid, left);
        }
    }
}

/// A stream whose writes fail once the peer has taken nothing for `patience`.
struct Unstalled {
    stream: UnixStream,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Unstalled {
    fn new(stream: UnixStream, patience: Duration) -> Self {
        Self { stream, patience, waiting: None }
    }

    fn or_stalled<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answer")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Unstalled {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unstalled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, octets);
        this.or_stalled(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, octets);
        this.or_stalled(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
