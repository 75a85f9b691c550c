//! Shell: who reads the worker's pipe, who signs, and who waits.
//!
//! Signers read the pipe in turns: one reads, wakes another to read in its place, and signs by itself what it has read. So what comes
//! alone, a command or a checkpoint, is signed after one wake and not two; the second, of some 40 µs, would often take the core from
//! whoever waits for the signature. While no signer is free the main thread reads, so that a fence is answered at once, whatever the
//! module is doing. What it reads costs two wakes: the next frame after all were busy, and with a single session each but the first.
//!
//! What holds, and why no frame is left unread: where nobody reads, some thread was woken to, or is on its way to look. A signer
//! waits only while another thread reads; the main thread only while one reads, or more signers wait than there are items for them;
//! and whoever claims an item where nobody reads wakes one that waits. (A thread that panics takes the process with it: none is
//! lost in its turn.)

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, mpsc};

use zeroize::{Zeroize as _, Zeroizing};

use super::{Key, OwnedManage, Shared, lock};
use crate::domain::names::KeyUse;
use crate::hsm::errors::HsmError;
use crate::hsm::kinds::{Kind, Shown};
use crate::hsm::protocol::{self, Answer, FrameError, FromWorker, ToWorker};

/// A batch as it waits: its items are taken one by one, in order.
struct Job {
    key: Arc<Key>,
    generation: u64,
    not_after_unix_ms: i64,
    next_seq: u64,
    items: std::vec::IntoIter<(Kind, Shown)>,
}

/// An item that a signer has claimed.
pub(super) struct Claimed {
    pub(super) key: Arc<Key>,
    pub(super) generation: u64,
    pub(super) not_after_unix_ms: i64,
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) shown: Shown,
}

/// What waits to be signed, whether somebody reads, and who waits.
pub(super) struct Queue {
    jobs: VecDeque<Job>,
    /// Whether a thread reads the pipe, or does what it has read.
    has_reader: bool,
    /// Signers that wait on [`Shared::come`]; one that was woken counts until it runs.
    idle: usize,
    /// How reading ended, once it did.
    ended: Option<Result<(), FrameError>>,
}

impl Queue {
    /// Before the pipe is read at all: it is the main thread's.
    pub(super) const fn unread() -> Self {
        Self { jobs: VecDeque::new(), has_reader: true, idle: 0, ended: None }
    }

    /// How many items wait.
    fn len(&self) -> usize {
        self.jobs.iter().map(|job| job.items.len()).sum()
    }

    /// The next item, and its number.
    fn next(&mut self) -> Option<Claimed> {
        while let Some(job) = self.jobs.front_mut() {
            let Some((kind, shown)) = job.items.next() else {
                self.jobs.pop_front();
                continue;
            };
            let seq = job.next_seq;
            job.next_seq += 1;
            let Job { key, generation, not_after_unix_ms, .. } = job;
            let (key, generation, not_after_unix_ms) = (key.clone(), *generation, *not_after_unix_ms);
            return Some(Claimed { key, generation, not_after_unix_ms, seq, kind, shown });
        }
        None
    }
}

/// The reading side of the pipe, and where what is no signature goes.
pub(super) struct Pipe {
    pub(super) from_daemon: UnixStream,
    /// Wiped after each frame with a secret inside, and at the end, which may come in the middle of one.
    pub(super) buffer: Zeroizing<Vec<u8>>,
    pub(super) calls: mpsc::Sender<(u64, OwnedManage)>,
}

/// What a frame was.
enum Frame {
    ToSign(Job),
    Done,
    End,
}

impl Pipe {
    /// Takes one frame and does what it says, but for signing. A fence is answered at once.
    fn take(&mut self, shared: &Shared) -> Result<Frame, FrameError> {
        let Self { from_daemon, buffer, calls } = self;
        let frame = match protocol::decode(protocol::read_frame(from_daemon, buffer)?)? {
            ToWorker::Sign { first_seq, generation, not_after_unix_ms, key, items } => {
                let Some(key) = lock(&shared.keys).get(&key).cloned() else {
                    let failed = |n| (first_seq + n, Answer::Failed(HsmError::KeyUnknown(key.clone())));
                    shared.send(&FromWorker::Answers((0..items.len() as u64).map(failed).collect()))?;
                    // Nobody knows what kind of key it was to be.
                    drop(items);
                    buffer.zeroize();
                    return Ok(Frame::Done);
                };
                // A command of mode 9 has a symmetric key inside.
                let is_secret = key.use_ == KeyUse::Contingency;
                let shown = |octets: &[u8]| if is_secret { Shown::secret(octets) } else { Shown::new(octets) };
                let items: Vec<_> = items.into_iter().map(|item| (item.kind, shown(&item.octets))).collect();
                if is_secret {
                    buffer.zeroize();
                }
                let items = items.into_iter();
                Frame::ToSign(Job { key, generation, not_after_unix_ms, next_seq: first_seq, items })
            }
            ToWorker::Fence { generation } => {
                shared.generation.fetch_max(generation, Ordering::SeqCst);
                // After the store above a signer either sees the fence, or is seen here.
                let seqs = shared.slots.iter().map(|slot| slot.seq.load(Ordering::SeqCst));
                let in_flight = seqs.filter_map(|seq| seq.checked_sub(1)).collect();
                shared.send(&FromWorker::Fenced { generation, in_flight })?;
                Frame::Done
            }
            ToWorker::Manage { call, what } => {
                // A manager that is gone has said why; the daemon learns that this call came to nothing when we end.
                let _ = calls.send((call, OwnedManage::from(what)));
                Frame::Done
            }
            ToWorker::End => Frame::End,
        };
        Ok(frame)
    }
}

impl Shared {
    /// Has frames taken until the daemon says so, or closes, or the worker gives up: by signers while one is free, else by this thread.
    /// What lies in the pipe when the worker gives up is taken too: a fence among it is answered.
    pub(super) fn read(&self, pipe: Pipe) -> Result<(), FrameError> {
        *lock(&self.pipe) = Some(pipe);
        let mut queue = lock(&self.queue);
        queue.has_reader = false;
        self.come.notify_one();
        loop {
            if let Some(ended) = queue.ended.take() {
                return ended;
            }
            // Once the worker is closing, a signer that waits is on its way out.
            let is_theirs = queue.idle > queue.len() && !self.closing.load(Ordering::SeqCst);
            if queue.has_reader || is_theirs {
                queue = self.spare.wait(queue).unwrap_or_else(PoisonError::into_inner);
            } else {
                let (read, count) = self.read_one(queue);
                self.hand_on(read, count);
                queue = lock(&self.queue);
            }
        }
    }

    /// Claims the next item and raises the mark above it; both under one lock, so that the mark is exact. `wait`: until there is
    /// one, reading meanwhile if nobody does. `None`: there is none, or the worker is closing.
    pub(super) fn claim(&self, wait: bool) -> Option<Claimed> {
        let mut queue = lock(&self.queue);
        // Items that this thread has read, beyond the one for itself.
        let mut for_others = 0;
        loop {
            if self.closing.load(Ordering::SeqCst) {
                // What is left in the pipe is the main thread's.
                self.spare.notify_one();
                return None;
            }
            if let Some(item) = queue.next() {
                // A mark that cannot be raised would make this item look untouched: then it must stay untouched.
                if let Err(error) = protocol::raise_mark(&self.mark, item.seq) {
                    drop(queue);
                    let found = format!("the mark cannot be written: {error}");
                    let _ = self.send(&FromWorker::Answers(vec![(item.seq, Answer::GivenUp)]));
                    self.break_off(HsmError::Protocol { found });
                    return None;
                }
                self.hand_on(queue, for_others);
                return Some(item);
            }
            if !wait {
                return None;
            }
            if queue.has_reader {
                queue.idle += 1;
                queue = self.come.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            } else {
                let (read, count) = self.read_one(queue);
                (queue, for_others) = (read, count.saturating_sub(1));
            }
        }
    }

    /// Hands on what this thread does not do: wakes as many signers as there are items for them, and one to read where nobody does; the
    /// main thread if no signer waits. No more: one that wakes for nothing takes a core from whoever waits for what the other signs.
    fn hand_on(&self, queue: MutexGuard<'_, Queue>, items: usize) {
        let (has_reader, idle) = (queue.has_reader, queue.idle);
        drop(queue);
        let wakes = items.max(usize::from(!has_reader)).min(idle);
        (0..wakes).for_each(|_| self.come.notify_one());
        if !has_reader && idle == 0 {
            self.spare.notify_one();
        }
    }

    /// Takes one frame from the pipe, which nobody else reads: how many items it brought to sign.
    fn read_one<'q>(&'q self, mut queue: MutexGuard<'q, Queue>) -> (MutexGuard<'q, Queue>, usize) {
        queue.has_reader = true;
        drop(queue);
        let taken = lock(&self.pipe).as_mut().map_or(Err(FrameError::Closed), |pipe| pipe.take(self));
        let mut queue = lock(&self.queue);
        queue.has_reader = false;
        let ended = match taken {
            Ok(Frame::ToSign(job)) => {
                let count = job.items.len();
                queue.jobs.push_back(job);
                if !self.has_session() {
                    self.needed.notify_all();
                }
                return (queue, count);
            }
            Ok(Frame::Done) => return (queue, 0),
            Ok(Frame::End) => Ok(()),
            Err(error) => Err(error),
        };
        queue.ended = Some(ended);
        self.closing.store(true, Ordering::SeqCst);
        self.wake_all(&queue);
        (queue, 0)
    }

    /// Says of everything that still waits that it was not begun.
    pub(super) fn give_up(&self) {
        for job in std::mem::take(&mut lock(&self.queue).jobs) {
            let first = job.next_seq;
            let answers = (0..job.items.len() as u64).map(|n| (first + n, Answer::GivenUp)).collect();
            let _ = self.send(&FromWorker::Answers(answers));
        }
    }

    /// Whether anything waits to be signed.
    pub(super) fn has_more(&self) -> bool {
        lock(&self.queue).len() > 0
    }

    /// Everybody looks again. With the queue locked, so that nobody misses it between looking and waiting.
    pub(super) fn wake_all(&self, _locked: &Queue) {
        self.come.notify_all();
        self.needed.notify_all();
        self.spare.notify_all();
    }
}
