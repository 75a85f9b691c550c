//! Shell: the processes that a worker leaves behind. A vendor's module may start processes of its own, which hold what they
//! inherited: memory with a PIN in it, a session. They end with the worker.
//!
//! A worker leads a process group of its own and is the subreaper of its descendants (`prctl(2)`), so while it lives all of them
//! are found beneath it, daemonised ones too. One that left the group and whose worker crashed is inherited by the daemon, where
//! that has said that it has no other children ([`adopt_orphans`]). Not contained: what a module starts through another
//! service of the machine.

use std::collections::BTreeSet;
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper,
    waitid, waitpid,
};

use super::keeper::lock;

/// Whether every child of this process that is no worker is an orphan of one.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// The workers of this process that are not buried yet.
static WORKERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Says that this process starts no other children than workers: from here on it inherits what a crashed worker leaves behind, and
/// ends it. For the daemon.
pub fn adopt_orphans() -> rustix::io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    ADOPTS.store(true, Ordering::SeqCst);
    Ok(())
}

/// The processes that `parent` started and did not outlive, as proc(5) tells: the field after the state, behind the name in
/// parentheses.
pub fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let parent_of = |pid: i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(*pid) == Some(parent.as_raw_nonzero().get()))
        .filter_map(Pid::from_raw)
        .collect()
}

/// A worker that was started and is not buried.
pub(super) struct Family(Pid);

impl Family {
    /// Starts a worker, while nobody looks for orphans and could take it for one. It shall lead a process group of its own.
    pub(super) fn start(start: impl FnOnce() -> io::Result<Child>) -> io::Result<(Child, Self)> {
        let mut workers = lock(&WORKERS);
        let child = start()?;
        workers.insert(child.id());
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a child has a process id that is not 0");
        Ok((child, Self(pid)))
    }

    /// Ends whatever is there of it but the worker itself, which is its keeper's to end and to bury.
    pub(super) fn end_descendants(&self) {
        let mut found = children_of(self.0);
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            found.extend(children_of(pid));
            next += 1;
        }
        // The youngest first, so that none starts another meanwhile.
        for pid in found.into_iter().rev() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Has a thread do something as soon as the worker is dead, whoever still holds its end of the pipe.
    pub(super) fn at_death(&self, act: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let pid = self.0;
        thread::Builder::new().name("worker-end".to_owned()).spawn(move || {
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            act();
        })?;
        Ok(())
    }

    /// Waits for the worker to be dead, for so long at most; it stays to be reaped.
    pub(super) fn is_dead_within(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(self.0), look), Ok(None)) {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// Ends the rest of its group. Before the worker is reaped: as long as it is not, its number is no other group's.
    pub(super) fn end_group(&self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }

    /// Once it is reaped: ends what it left to us.
    pub(super) fn end(self) {
        let mut workers = lock(&WORKERS);
        workers.remove(&self.0.as_raw_nonzero().get().cast_unsigned());
        if !ADOPTS.load(Ordering::SeqCst) {
            return;
        }
        // Still locked, so that no worker that is just being started is taken for an orphan.
        for pid in children_of(getpid()) {
            if workers.contains(&pid.as_raw_nonzero().get().cast_unsigned()) {
                continue;
            }
            let _ = kill_process(pid, Signal::KILL);
            // One that hangs in the kernel is reaped the next time.
            for _ in 0..REAP_TRIES {
                if !matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)) {
                    break;
                }
                thread::sleep(POLL);
            }
        }
    }
}

/// How often it is looked whether a killed process is gone.
const POLL: Duration = Duration::from_millis(2);

/// How often it is looked for one of the orphans.
const REAP_TRIES: u32 = 50;

#[cfg(test)]
mod tests;
