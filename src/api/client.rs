//! Shell: the client's side of the socket, for `smkictl`.
//!
//! One connection per call: a command makes one or two, and a broken one then belongs to one call only.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::failure::{Exit, Problem};
use super::routes::Verb;
use super::wire::{Item, Line, Summary};
use crate::domain::commands::container::{self, Fields, Header, Octets, Record};
use crate::domain::ledger::entry::Reason;

/// Where the daemon listens if nobody says otherwise.
pub const SOCKET: &str = "/run/smkid/smkid.sock";
/// The greatest answer that is read whole. Only entries and policies come near it.
const ANSWER_LEN_MAX: usize = 256 * 1024 * 1024;
/// How long an answer may take to begin: longer than the daemon's own deadlines, so that its reason arrives first.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(180);
/// The greatest line of a streamed answer: a command of 4 kB in base64 is 6 kB, reasons are longer.
const LINE_LEN_MAX: usize = 1024 * 1024;

/// The environment variable that says where the daemon listens.
pub const SOCKET_VARIABLE: &str = "SMKID_SOCKET";

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error(
        "no daemon answers at {}: {source}. Check `systemctl status smkid`, `--socket` and SMKID_SOCKET, and that your \
         account is in the socket's group",
        socket.display()
    )]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke, or the answer never began.
    #[error("the connection to the daemon broke while {while_}: {why}. See its journal")]
    Broken {
        /// What was going on.
        while_: &'static str,
        /// What went wrong.
        why: String,
    },
    /// A streamed answer ended before its summary.
    #[error(
        "the answer was cut after {lines} lines: what came is valid, the rest is unknown here. Ask again with the same request id"
    )]
    Cut {
        /// How many lines came.
        lines: u64,
    },
    /// The daemon said why not.
    #[error("{}", .0.message)]
    Problem(Problem),
    /// The answer is none of ours.
    #[error("the answer cannot be read: {why}. Check that smkictl and smkid have the same version")]
    Answer {
        /// What is wrong with it.
        why: String,
    },
}

impl ClientError {
    /// The status `smkictl` ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => Exit::Unreachable,
            Self::Cut { .. } => Exit::Partly,
            Self::Problem(problem) => problem.error.exit(),
            Self::Answer { .. } => Exit::Local,
        }
    }
}

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    /// The one user id that may answer; any, if none is said.
    only: Option<u32>,
}

impl Client {
    /// Of the daemon at `socket`. Nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), only: None }
    }

    /// Asks for JSON.
    pub async fn get<R: DeserializeOwned>(&self, path: &str) -> Result<R, ClientError> {
        read_json(self.send(Verb::Get, path, Body::empty()).await?).await
    }

    /// Asks for something to be done, without a body.
    pub async fn post_nothing<R: DeserializeOwned>(&self, path: &str) -> Result<R, ClientError> {
        read_json(self.send(Verb::Post, path, Body::empty()).await?).await
    }

    /// Asks for something to be done.
    pub async fn post<T: Serialize, R: DeserializeOwned>(&self, path: &str, ask: &T) -> Result<R, ClientError> {
        read_json(self.send(Verb::Post, path, json_body(ask)?).await?).await
    }

    /// Asks for something to be done whose answer comes line by line.
    pub async fn post_for_lines<T: Serialize>(&self, path: &str, ask: &T) -> Result<Lines, ClientError> {
        let answer = Pieces(self.send(Verb::Post, path, json_body(ask)?).await?.into_body());
        Ok(Lines { pieces: answer, held: Vec::new(), read: 0, count: 0, stopped: Vec::new(), summary: None })
    }

    /// Asks for something to be done whose answer is a container of signed commands.
    pub async fn post_for_commands<T: Serialize>(&self, path: &str, ask: &T) -> Result<Commands, ClientError> {
        let path = with_query(path, &[("form", Some("differences".to_owned()))]);
        let pieces = Pieces(self.send(Verb::Post, &path, json_body(ask)?).await?.into_body());
        let reader = container::Reader::of_answer();
        Ok(Commands { pieces, reader, header: None, count: 0, stopped: Vec::new(), summary: None })
    }

    /// Asks for something to be done whose answer is a text.
    pub async fn post_for_text<T: Serialize>(&self, path: &str, ask: &T) -> Result<String, ClientError> {
        let octets = read_whole(self.send(Verb::Post, path, json_body(ask)?).await?).await?;
        String::from_utf8(octets).map_err(|error| ClientError::Answer { why: error.to_string() })
    }

    /// Sends octets as they are read.
    pub async fn put<R: DeserializeOwned>(&self, path: &str, octets: Body) -> Result<R, ClientError> {
        read_json(self.send(Verb::Put, path, octets).await?).await
    }

    /// Asks for a text.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let octets = read_whole(self.send(Verb::Get, path, Body::empty()).await?).await?;
        String::from_utf8(octets).map_err(|error| ClientError::Answer { why: error.to_string() })
    }

    /// Asks for octets, piece by piece: leaves and documents for an export.
    pub async fn octets(&self, path: &str) -> Result<Pieces, ClientError> {
        Ok(Pieces(self.send(Verb::Get, path, Body::empty()).await?.into_body()))
    }

    /// The same, which sends nothing to a process of another user: asked of the kernel on each connection that something is sent on.
    #[must_use]
    pub fn held_to(&self, uid: u32) -> Self {
        Self { only: Some(uid), ..self.clone() }
    }

    /// The user id of the process that listens there, by the kernel (unix(7), `SO_PEERCRED`).
    pub async fn answered_by(&self) -> Result<u32, ClientError> {
        let unreachable = |source| ClientError::Unreachable { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        Ok(stream.peer_cred().map_err(unreachable)?.uid())
    }

    async fn send(&self, verb: Verb, path: &str, body: Body) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let broken = |why: String| ClientError::Broken { while_: "sending", why };
        if let Some(only) = self.only {
            let found = stream.peer_cred().map_err(|error| broken(error.to_string()))?.uid();
            if found != only {
                return Err(broken(format!(
                    "expected that a process of user {only} answers, as before; found user {found}"
                )));
            }
        }
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.to_string()))?;
        let request = Request::builder()
            .method(verb.method())
            .uri(path)
            .header(header::HOST, "smkid")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(body)
            .map_err(|error| broken(error.to_string()))?;
        // What goes wrong on the connection is told by the answer that does not come.
        tokio::spawn(connection);
        let response = tokio::time::timeout(BEGIN_TIMEOUT, sender.send_request(request))
            .await
            .map_err(|_| broken(format!("no answer began within {} s", BEGIN_TIMEOUT.as_secs())))?
            .map_err(|error| broken(with_source(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let octets = read_whole(response).await?;
        Err(match serde_json::from_slice::<Problem>(&octets) {
            Ok(problem) => ClientError::Problem(problem),
            Err(error) => ClientError::Answer { why: format!("HTTP status {status} without a reason: {error}") },
        })
    }
}

fn with_source(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn json_body<T: Serialize>(ask: &T) -> Result<Body, ClientError> {
    let octets = serde_json::to_vec(ask).map_err(|error| ClientError::Answer { why: error.to_string() })?;
    Ok(Body::from(octets))
}

async fn read_whole(response: Response<Incoming>) -> Result<Vec<u8>, ClientError> {
    let mut pieces = Pieces(response.into_body());
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await? {
        if whole.len() + piece.len() > ANSWER_LEN_MAX {
            return Err(ClientError::Answer { why: format!("it is longer than {ANSWER_LEN_MAX} octets") });
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

async fn read_json<R: DeserializeOwned>(response: Response<Incoming>) -> Result<R, ClientError> {
    let octets = read_whole(response).await?;
    serde_json::from_slice(&octets).map_err(|error| ClientError::Answer { why: error.to_string() })
}

/// An answer that comes in pieces.
pub struct Pieces(Incoming);

impl Pieces {
    /// The next piece; none at the end. An answer that is cut is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.0.frame().await {
            let frame = frame.map_err(|error| ClientError::Broken { while_: "answering", why: with_source(&error) })?;
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// The answer to sign or settle: items, why it was stopped if it was, then the summary.
pub struct Lines {
    pieces: Pieces,
    held: Vec<u8>,
    read: usize,
    count: u64,
    stopped: Vec<Reason>,
    summary: Option<Summary>,
}

impl Lines {
    /// The next item; none after the last. An answer without its summary is [`ClientError::Cut`].
    pub async fn next(&mut self) -> Result<Option<Item>, ClientError> {
        loop {
            if let Some(len) = self.held[self.read..].iter().position(|octet| *octet == b'\n') {
                let line = &self.held[self.read..self.read + len];
                let line = Line::parse(line).map_err(|error| ClientError::Answer { why: error.to_string() })?;
                self.read += len + 1;
                if self.summary.is_some() {
                    return Err(ClientError::Answer { why: "there are lines after the summary".to_owned() });
                }
                match line {
                    Line::Item(item) => {
                        self.count += 1;
                        return Ok(Some(*item));
                    }
                    Line::Stopped(reasons) => self.stopped.extend(reasons),
                    Line::Summary(summary) => self.summary = Some(summary),
                }
                continue;
            }
            self.held.drain(..self.read);
            self.read = 0;
            if self.held.len() > LINE_LEN_MAX {
                return Err(ClientError::Answer { why: format!("a line is longer than {LINE_LEN_MAX} octets") });
            }
            match self.pieces.next().await {
                Ok(Some(piece)) => self.held.extend_from_slice(&piece),
                Ok(None) if self.summary.is_some() && self.held.is_empty() => return Ok(None),
                // A daemon that was killed resets the connection; one that gave up ends the answer. Both are a cut.
                Ok(None) | Err(_) => return Err(ClientError::Cut { lines: self.count }),
            }
        }
    }

    /// Why nothing more was signed, once [`Lines::next`] gave none; empty if it was not stopped.
    pub fn stopped(&self) -> &[Reason] {
        &self.stopped
    }

    /// The summary, once [`Lines::next`] gave none.
    pub fn summary(&self) -> Option<Summary> {
        self.summary
    }
}

/// The answer to sign, settle or fetch as a container.
pub struct Commands {
    pieces: Pieces,
    reader: container::Reader,
    header: Option<Header>,
    count: u64,
    stopped: Vec<Reason>,
    summary: Option<Summary>,
}

/// One part of such an answer.
#[derive(Debug)]
pub enum Answered {
    /// A command. Its octets are [`Commands::octets`] until the next part.
    Command(Fields, Octets),
    /// What became of a Device that has none.
    Told(Box<Item>),
}

impl Commands {
    /// Where the commands are from: the first of the answer.
    pub async fn header(&mut self) -> Result<&Header, ClientError> {
        if self.header.is_none() {
            match self.record().await? {
                Some(Record::Header(header)) => self.header = Some(header),
                Some(_) | None => return Err(ClientError::Cut { lines: 0 }),
            }
        }
        self.header.as_ref().ok_or(ClientError::Cut { lines: 0 })
    }

    /// The next part; none after the last. An answer without its end is [`ClientError::Cut`].
    pub async fn next(&mut self) -> Result<Option<Answered>, ClientError> {
        self.header().await?;
        loop {
            let wrong = |why: String| ClientError::Answer { why };
            match self.record().await? {
                None => return Ok(None),
                Some(Record::Command(fields, octets)) => {
                    self.count += 1;
                    return Ok(Some(Answered::Command(fields, octets)));
                }
                Some(Record::Line(line)) => {
                    let line = Line::parse(self.reader.octets(&line)).map_err(|error| wrong(error.to_string()))?;
                    match line {
                        Line::Item(item) => {
                            self.count += 1;
                            return Ok(Some(Answered::Told(item)));
                        }
                        Line::Stopped(reasons) => self.stopped.extend(reasons),
                        Line::Summary(summary) => self.summary = Some(summary),
                    }
                }
                Some(Record::End(_)) if self.summary.is_none() => return Err(wrong("it has no summary".to_owned())),
                Some(Record::End(_)) => {}
                Some(Record::Header(_)) => return Err(wrong("it has two headers".to_owned())),
            }
        }
    }

    /// The octets of the command that came last.
    pub fn octets(&self, of: &Octets) -> &[u8] {
        self.reader.octets(of)
    }

    /// Why nothing more comes, once [`Commands::next`] gave none; empty if it was not stopped.
    pub fn stopped(&self) -> &[Reason] {
        &self.stopped
    }

    /// The summary, once [`Commands::next`] gave none.
    pub fn summary(&self) -> Option<Summary> {
        self.summary
    }

    async fn record(&mut self) -> Result<Option<Record>, ClientError> {
        loop {
            let record = self.reader.record().map_err(|error| ClientError::Answer { why: error.to_string() })?;
            if record.is_some() {
                return Ok(record);
            }
            match self.pieces.next().await {
                Ok(Some(piece)) => self.reader.feed(&piece),
                Ok(None) if self.reader.finish().is_ok() => return Ok(None),
                // As with lines.
                Ok(None) | Err(_) => return Err(ClientError::Cut { lines: self.count }),
            }
        }
    }
}

/// Appends a query of what is there to a path, in the form of URLs (RFC 3986 2).
pub fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut whole = path.to_owned();
    let mut between = '?';
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        whole.push(between);
        between = '&';
        whole.push_str(name);
        whole.push('=');
        for octet in value.bytes() {
            if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
                whole.push(char::from(octet));
            } else {
                write!(whole, "%{octet:02X}").expect("a String takes every text");
            }
        }
    }
    whole
}
