//! Shell: a process that holds a secret leaves nothing of it behind. What the workers and the vault do before all else, and the programs
//! at whose console a secret is typed.

use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};

/// No core dump, no ptrace, no swap. Answers what could not be done, for a person.
pub fn keep_memory() -> Vec<String> {
    let mut warnings = Vec::new();
    let mut note = |what: &str, result: rustix::io::Result<()>| {
        if let Err(error) = result {
            warnings.push(format!("{what}: {error}"));
        }
    };
    note("dumpable", rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable));
    note("core dumps", rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }));
    // Under a finite limit, locking future pages too would make later allocations fail, and the process with them.
    let unlimited = rustix::process::getrlimit(Resource::Memlock).current.is_none();
    let flags = if unlimited {
        MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT
    } else {
        MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT
    };
    note("memory is not locked and may be swapped out (raise LimitMEMLOCK)", rustix::mm::mlockall(flags));
    warnings
}

/// The same for a process that belongs to another, and does not outlive it.
pub fn harden() -> Vec<String> {
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let mut warnings = Vec::new();
    if let Err(error) = tied {
        warnings.push(format!("no parent-death signal: {error}"));
    }
    warnings.extend(keep_memory());
    warnings
}
