//! Shell. The pipe between the daemon and a worker: frames of a length (u32, big-endian) and that many octets of postcard.
//!
//! It is a socketpair: the daemon's end stays with it, the worker's is the worker's standard input. Both ends are the same
//! program, so a frame that cannot be read is a defect or an attack, and ends the worker.
//!
//! Order at the start: the daemon sends the *mark* (a descriptor, [`send_mark`]) and [`Setup`]. Once the worker has found its
//! token and all else is well, it asks for the PIN ([`FromWorker::PinWanted`]) with a key that it made for this, and the PIN comes sealed
//! to that key, as a frame of its own, if it comes; an empty frame has the token ask by itself. The worker says whether the token took
//! it ([`FromWorker::LoggedIn`]), then [`FromWorker::Ready`]; or [`FromWorker::Refused`] at any point.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use super::contingency::{Compared, Material};
use super::errors::HsmError;
use super::kinds::Kind;
use super::one_time::SealTo;
use super::{ExpectedKey, KeyReport, TokenReport};
use crate::domain::names::{Digest, KeyId, KeyLabel, KeyUse, Origin, TokenName};

/// The greatest frame in octets: a batch frame holds at most [`BATCH_OCTETS_MAX`] octets to sign, and one more item, beside
/// a few octets each of framing. A greater length is refused before anything is allocated for it.
pub const FRAME_LEN_MAX: usize = 1024 * 1024;
/// How many octets to sign go into a frame before the next begins: 64 commands of 4 kB. Small enough that the worker
/// starts on the first while the rest is still on its way.
pub const BATCH_OCTETS_MAX: usize = 256 * 1024;
/// How many items go into a frame.
pub const BATCH_ITEMS_MAX: usize = 256;
/// The longest octets that are signed or stored on a token: a CS02b command of eight replacements is 4 kB (GBCS 13.3);
/// sixteen times that.
pub const OCTETS_LEN_MAX: usize = 64 * 1024;
const _: () = assert!(BATCH_OCTETS_MAX + OCTETS_LEN_MAX + BATCH_ITEMS_MAX * 16 + 1024 < FRAME_LEN_MAX);

/// What runs while the token asks for its PIN by itself. People are at it, so it has a deadline of its own.
pub const AT_THE_TOKEN: &str = "C_Login at the token's own PIN pad or cards";

/// What the worker is told first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The program's version: both sides must be the same build.
    pub version: String,
    /// The daemon's process id: a worker whose parent is another one is an orphan, and ends.
    pub parent_pid: i32,
    /// What configuration calls the token.
    pub name: TokenName,
    /// Path of the PKCS#11 module.
    pub module: String,
    /// `CKA_LABEL` of the token.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// How many sessions sign, 1 or more.
    pub sessions: u16,
    /// How long one call of the module may take, in milliseconds: so long an ending worker waits for its signers.
    pub call_deadline_ms: u32,
    /// How often a sign of life is due, in milliseconds.
    pub heartbeat_ms: u32,
    /// Whether the token asks for its PIN by itself.
    pub protected_path: bool,
    /// Whether the login is that of the token's security officer, who signs nothing.
    pub officer: bool,
    /// The keys that must be there.
    pub keys: Vec<ExpectedKey>,
    /// The leaf hash of our genesis entry; `None` at the ceremony only.
    pub genesis: Option<Digest>,
    /// The origin of our ledger; without it nothing is a checkpoint.
    pub origin: Option<Origin>,
}

/// One thing to sign, on the wire. Its number is its place: `first_seq` of the frame and upwards.
#[derive(Debug, Serialize, Deserialize)]
pub struct Item<'a> {
    /// What it is said to be.
    pub kind: Kind,
    /// The whole octets that the signature covers; never a digest.
    #[serde(borrow, with = "serde_bytes")]
    pub octets: Cow<'a, [u8]>,
}

/// From the daemon to the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker<'a> {
    /// Sign these.
    Sign {
        /// The number of the first item; numbers never repeat in a worker's life and rise by one from item to item.
        first_seq: u64,
        /// The fence that stood when the batch was submitted.
        generation: u64,
        /// The last moment, in milliseconds since 1970, at which C_Sign may be called for them.
        not_after_unix_ms: i64,
        /// The key.
        key: KeyLabel,
        /// What to sign.
        #[serde(borrow)]
        items: Vec<Item<'a>>,
    },
    /// Items of an earlier generation are not to be signed any more.
    Fence {
        /// The new generation.
        generation: u64,
    },
    /// Something other than signing.
    Manage {
        /// The number under which the answer comes.
        call: u64,
        /// What.
        #[serde(borrow)]
        what: Manage<'a>,
    },
    /// Finish what is in flight and end.
    End,
}

/// What is asked of a token besides signatures. One at a time, in order, on a session of its own.
#[derive(Debug, Serialize, Deserialize)]
pub enum Manage<'a> {
    /// The value of a data object.
    ReadData {
        /// Its label.
        label: Cow<'a, str>,
    },
    /// Writes a data object: makes the new, then destroys the old.
    WriteData {
        /// Its label.
        label: Cow<'a, str>,
        /// Its value.
        #[serde(borrow, with = "serde_bytes")]
        octets: Cow<'a, [u8]>,
        /// Whether to refuse when there is one already.
        once: bool,
    },
    /// Makes a P-256 key pair on the token.
    GenerateKey {
        /// Its label.
        label: KeyLabel,
        /// Its CKA_ID.
        id: KeyId,
        /// What it is for.
        use_: KeyUse,
    },
    /// A key of one use to which the next [`Manage::SetPin`] is sealed.
    PinKey,
    /// Changes the PIN.
    SetPin {
        /// The old PIN and the new ([`changed`](super::pin::changed)), sealed to the key of [`Manage::PinKey`].
        #[serde(borrow, with = "serde_bytes")]
        sealed: Cow<'a, [u8]>,
    },
    /// Destroys a key pair: the one with this CKA_ID and this public key, and no other.
    DestroyKey {
        /// Its label.
        label: KeyLabel,
        /// Its CKA_ID.
        id: KeyId,
        /// SHA-256 of its DER SubjectPublicKeyInfo.
        spki: Digest,
        /// What stands beside it, of a contingency key: it goes first.
        material: Option<Material>,
    },
    /// Makes the wrapping key that is to stand beside a contingency key: a trusted one, where the security officer is logged in.
    MakeWrapping {
        /// The contingency key.
        key: KeyLabel,
        /// The wrapping key's CKA_ID.
        id: KeyId,
    },
    /// Makes the Contingency Symmetric Key that is to stand beside a contingency key; its wrapping key stands.
    MakeSymmetric {
        /// The contingency key.
        key: KeyLabel,
        /// What stands beside it from then on.
        material: Material,
    },
    /// Wraps the public half of a contingency key with its symmetric key, in the token.
    WrapPublic {
        /// The contingency key.
        key: KeyLabel,
    },
    /// Unwraps a WrappedApexContingencyKey in the token and compares it with the public half of a contingency key.
    CompareWrapped {
        /// The contingency key.
        key: KeyLabel,
        /// The extension's value.
        #[serde(borrow, with = "serde_bytes")]
        extension: Cow<'a, [u8]>,
    },
    /// Lets the Contingency Symmetric Key out, to the daemon alone.
    ReleaseSymmetric {
        /// The contingency key.
        key: KeyLabel,
        /// The daemon's key for this one release.
        seal_to: SealTo,
    },
    /// Checks the keys anew and lists them.
    ListKeys,
    /// What the token says of itself.
    TokenInfo,
}

/// What became of an item, as the worker knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// r and s, 32 octets each.
    Signed([u8; 32], [u8; 32]),
    /// The call failed, or the octets were refused.
    Failed(HsmError),
    /// Its generation is past.
    Fenced,
    /// Its time is past.
    Expired,
    /// The worker gave up before it came to this one.
    GivenUp,
}

/// An answer to [`Manage`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Managed {
    /// The value of the data object, if there is one.
    Data(Option<serde_bytes::ByteBuf>),
    /// Done.
    Done,
    /// The key made.
    Key(KeyReport),
    /// The keys there.
    Keys(Vec<KeyReport>),
    /// The token.
    Info(TokenReport),
    /// The key to seal to.
    SealTo(SealTo),
    /// The value of the extension WrappedApexContingencyKey.
    Extension(#[serde(with = "serde_bytes")] Vec<u8>),
    /// What came of unwrapping one.
    Compared(Compared),
    /// A Contingency Symmetric Key, sealed with [`release_info`](super::contingency::release_info).
    Sealed(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// From the worker to the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// The token is there; now for the PIN.
    PinWanted {
        /// Whether the token says `CKF_USER_PIN_COUNT_LOW`: a wrong PIN was entered since the last good one.
        count_low: bool,
        /// To what it is to be sealed, for its login ([`pin_info`](super::one_time::pin_info)).
        seal_to: SealTo,
    },
    /// The token took the PIN.
    LoggedIn,
    /// Logged in, keys checked, sessions open.
    Ready(TokenReport),
    /// Not ready, and ending.
    Refused(HsmError),
    /// What became of some items, by number.
    Answers(Vec<(u64, Answer)>),
    /// The fence stands: nothing of an earlier generation is submitted after this.
    Fenced {
        /// The generation it stands at.
        generation: u64,
        /// The numbers of items whose C_Sign may be running.
        in_flight: Vec<u64>,
    },
    /// The answer to a call.
    Managed {
        /// Its number.
        call: u64,
        /// What came of it.
        result: Result<Managed, HsmError>,
    },
    /// A sign of life.
    Alive {
        /// The oldest call of the module that has not returned: what, and for how many milliseconds.
        oldest: Option<(String, u64)>,
        /// Signers that have a session.
        sessions: u16,
        /// Why one that has none could not open it, if that was tried.
        lacking: Option<String>,
    },
    /// The worker ends because of this.
    Ending(HsmError),
}

/// Why whoever started this process, or says so, is not served.
#[derive(Debug, thiserror::Error)]
pub enum Stranger {
    /// Who started it is gone, or another.
    #[error("started by process {found}, expected {expected}: this is no child of the daemon any more")]
    Orphan {
        /// As the setup says.
        expected: i32,
        /// As the kernel says.
        found: i32,
    },
    /// Another build.
    #[error("built as version {ours}, the daemon as {theirs}")]
    Version {
        /// Of this process.
        ours: &'static str,
        /// Of the daemon.
        theirs: String,
    },
}

/// Whether a setup comes from the daemon that started this process, of the same build. Asked before anything else that it says is looked at.
pub fn admit(version: &str, parent_pid: i32) -> Result<(), Stranger> {
    if version != env!("CARGO_PKG_VERSION") {
        return Err(Stranger::Version { ours: env!("CARGO_PKG_VERSION"), theirs: version.to_owned() });
    }
    let found = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if found == parent_pid { Ok(()) } else { Err(Stranger::Orphan { expected: parent_pid, found }) }
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed.
    #[error("closed")]
    Closed,
    /// Nothing came within the read timeout of the socket.
    #[error("silent")]
    Silent,
    /// A frame longer than any of ours.
    #[error("a frame of {len} octets, at most {FRAME_LEN_MAX} are sent")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Not a message of this protocol.
    #[error("a frame that is no message: {0}")]
    Malformed(#[from] postcard::Error),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Io(error),
        }
    }
}

/// Reads one frame into `buffer` and returns its octets.
pub fn read_frame<'b>(from: &mut impl Read, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], FrameError> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_be_bytes(len)).expect("a u32 fits a usize on every target with PKCS#11");
    if len > FRAME_LEN_MAX {
        return Err(FrameError::TooLong { len });
    }
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    from.read_exact(&mut buffer[..len])?;
    Ok(&buffer[..len])
}

/// Reads a message out of a frame; surplus octets are an error.
pub fn decode<'f, M: Deserialize<'f>>(frame: &'f [u8]) -> Result<M, FrameError> {
    let (message, rest) = postcard::take_from_bytes(frame)?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Malformed(postcard::Error::DeserializeBadEncoding)) }
}

/// Writes a message as one frame in one write. `buffer` is scratch, kept by the caller to be used again.
pub fn write_message(to: &mut impl Write, message: &impl Serialize, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let mut octets = std::mem::take(buffer);
    octets.clear();
    octets.extend_from_slice(&[0; 4]);
    let mut octets = postcard::to_extend(message, octets)?;
    let len = octets.len() - 4;
    if len > FRAME_LEN_MAX {
        return Err(FrameError::TooLong { len });
    }
    let prefix = u32::try_from(len).expect("FRAME_LEN_MAX fits a u32").to_be_bytes();
    octets[..4].copy_from_slice(&prefix);
    to.write_all(&octets)?;
    *buffer = octets;
    Ok(())
}

/// Writes octets that are no message, such as a sealed PIN, as a frame.
pub fn write_raw(to: &mut impl Write, octets: &[u8]) -> Result<(), FrameError> {
    let len = octets.len();
    if len > FRAME_LEN_MAX {
        return Err(FrameError::TooLong { len });
    }
    to.write_all(&u32::try_from(len).expect("FRAME_LEN_MAX fits a u32").to_be_bytes())?;
    to.write_all(octets)?;
    Ok(())
}

/// The most answers that are sent in one frame: so many each signer may hold back.
pub const GROUP_LEN_MAX: usize = 32;
/// A signature as it is noted behind the mark: the number of its item plus one, r, s, and how long its signer has been in `C_Sign` in all,
/// in nanoseconds.
const NOTE_LEN: usize = 8 + 64 + 8;

/// Raises the mark above an item.
pub fn raise_mark(mark: &OwnedFd, seq: u64) -> io::Result<()> {
    rustix::io::pwrite(mark, &(seq + 1).to_le_bytes(), 0)?;
    Ok(())
}

/// What the mark was raised to: items from there on were not begun. `None` if it cannot be read.
pub fn read_mark(mark: &OwnedFd) -> Option<u64> {
    let mut octets = [0; 8];
    match rustix::io::pread(mark, &mut octets, 0) {
        Ok(8) => Some(u64::from_le_bytes(octets)),
        Ok(0) => Some(0),
        Ok(_) | Err(_) => None,
    }
}

/// Notes a signature behind the mark, until it was sent: at the place of one of the answers that a signer holds back.
pub fn note_signature(
    mark: &OwnedFd,
    (signer, place): (usize, usize),
    seq: u64,
    (r, s): (&[u8; 32], &[u8; 32]),
    busy_ns: u64,
) {
    let mut note = [0; NOTE_LEN];
    note[..8].copy_from_slice(&(seq + 1).to_le_bytes());
    note[8..40].copy_from_slice(r);
    note[40..72].copy_from_slice(s);
    note[72..].copy_from_slice(&busy_ns.to_le_bytes());
    let at = 8 + (signer * GROUP_LEN_MAX + place) * NOTE_LEN;
    // Without it the item is unknown, should the worker die just now; no more than that.
    let _ = rustix::io::pwrite(mark, &note, at as u64);
}

/// The signatures that were noted last at each place, by item. Some were sent since; one may be half written.
pub fn noted_signatures(mark: &OwnedFd, signers: usize) -> BTreeMap<u64, [u8; 64]> {
    let mut octets = vec![0; signers * GROUP_LEN_MAX * NOTE_LEN];
    let len = rustix::io::pread(mark, &mut octets[..], 8).unwrap_or(0);
    let notes = octets[..len].chunks_exact(NOTE_LEN);
    let read = |note: &[u8]| {
        let (seq, rest) = note.split_at(8);
        let seq = u64::from_le_bytes(seq.try_into().ok()?).checked_sub(1)?;
        Some((seq, rest[..64].try_into().ok()?))
    };
    notes.filter_map(read).collect()
}

/// How long the signers have been in `C_Sign`, all together, as far as they noted signatures. In nanoseconds.
pub fn noted_busy(mark: &OwnedFd, signers: usize) -> u64 {
    let mut octets = vec![0; signers * GROUP_LEN_MAX * NOTE_LEN];
    let len = rustix::io::pread(mark, &mut octets[..], 8).unwrap_or(0);
    let of_note = |note: &[u8]| u64::from_le_bytes(note[72..].try_into().expect("eight octets"));
    let of_signer = |notes: &[u8]| notes.chunks_exact(NOTE_LEN).map(of_note).max().unwrap_or_default();
    octets[..len].chunks(GROUP_LEN_MAX * NOTE_LEN).map(of_signer).sum()
}

/// Hands the worker the mark: shared memory in which it counts what it has begun, before it begins, and behind that notes what it
/// has signed and not sent yet. It outlives the worker, so that after its death we know which items it never came to.
pub fn send_mark(to: &UnixStream, mark: &OwnedFd) -> io::Result<()> {
    let fds = [mark.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(to, &[IoSlice::new(&[MARK_OCTET])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the mark out of the socket, the first thing in it.
pub fn receive_mark(from: &UnixStream) -> io::Result<OwnedFd> {
    let mut octet = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut octet)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let absent =
        || io::Error::new(io::ErrorKind::InvalidData, "expected the mark, found none: is this a worker's socket?");
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            return fds.next().ok_or_else(absent);
        }
    }
    Err(absent())
}

/// What accompanies the mark's descriptor: a message must have at least one octet.
const MARK_OCTET: u8 = b'M';

#[cfg(test)]
mod tests;
