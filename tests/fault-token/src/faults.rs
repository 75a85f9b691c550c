//! What happens around a call: the script as it stands just now, the counts, the log.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cryptoki_sys::{CK_RV, CKR_DEVICE_REMOVED, CKR_GENERAL_ERROR, CKR_OK, CKR_SESSION_COUNT};

use crate::counts::{Count, Counts};
use crate::script::{Action, Line, Script};
use crate::token::Need;
use crate::{FUNCTIONS, harm, names, token};

/// The script of this process, from its first call on; `None` without one.
static RUNNING: OnceLock<Option<Mutex<Running>>> = OnceLock::new();

struct Running {
    path: PathBuf,
    stamp: Stamp,
    script: Arc<Script>,
    /// Why the script cannot be followed: every call fails until it can.
    broken: bool,
    counts: Counts,
    log: Option<File>,
}

/// By which a changed file is known.
type Stamp = (u64, i64, i64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

/// Reads the script, once.
pub fn load() -> Result<(), String> {
    if RUNNING.get().is_some() {
        return Ok(());
    }
    let running = match std::env::var_os("FAULT_TOKEN_SCRIPT") {
        None => None,
        Some(path) => Some(Mutex::new(Running::open(PathBuf::from(path))?)),
    };
    let _ = RUNNING.set(running);
    Ok(())
}

fn running() -> Option<MutexGuard<'static, Running>> {
    Some(RUNNING.get()?.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Running {
    fn open(path: PathBuf) -> Result<Self, String> {
        let mut running =
            Self { path, stamp: (0, 0, 0, 0), script: Arc::default(), broken: false, counts: Counts::own(), log: None };
        running.read().map(|()| running)
    }

    /// Follows the script's text as it is now.
    fn read(&mut self) -> Result<(), String> {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", self.path.display());
        let stamp = stamp(&self.path);
        let text = fs::read_to_string(&self.path).map_err(|error| at(&error))?;
        let script = Script::parse(&text).map_err(|error| format!("{} {error}", self.path.display()))?;
        let beside = |ending: &str| {
            let mut path = self.path.clone().into_os_string();
            path.push(ending);
            PathBuf::from(path)
        };
        match (&self.counts, script.counts_of_process) {
            (Counts::Own(_), false) => {
                let path = beside(".counts");
                self.counts = Counts::shared(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            (Counts::Shared(_), true) => self.counts = Counts::own(),
            (Counts::Own(_), true) | (Counts::Shared(_), false) => {}
        }
        let mut digest = DefaultHasher::new();
        text.hash(&mut digest);
        self.counts.adopt(digest.finish()).map_err(|error| format!("{}: {error}", beside(".counts").display()))?;
        self.log = match &script.log {
            None => None,
            Some(log) => {
                let path = self.path.parent().unwrap_or(Path::new(".")).join(log);
                let opened = OpenOptions::new().append(true).create(true).open(&path);
                Some(opened.map_err(|error| format!("{}: {error}", path.display()))?)
            }
        };
        (self.script, self.stamp) = (Arc::new(script), stamp.unwrap_or_default());
        Ok(())
    }

    /// The same again if the file has changed since. One that is away just now, or in the middle of being written to another
    /// name, changes nothing.
    fn follow(&mut self) {
        let Some(now) = stamp(&self.path) else { return };
        if now != self.stamp {
            self.stamp = now;
            self.broken = match self.read() {
                Ok(()) => false,
                Err(error) => {
                    eprintln!("fault-token: {error}; every call answers CKR_GENERAL_ERROR until the script is mended");
                    true
                }
            };
        }
    }

    fn meets(&self, function: usize, (of, all): (Count, Count)) -> impl Iterator<Item = &Line> {
        self.script.lines.iter().filter(move |line| match line.function {
            Some(named) => named == function && line.calls.contain(of.n, of.base),
            None => line.calls.contain(all.n, all.base),
        })
    }

    /// Whether the token is gone, and how often it went.
    fn gone(&mut self) -> Result<(bool, u64), std::io::Error> {
        if self.script.lines.iter().all(|line| !matches!(line.action, Action::Gone(_))) {
            return self.counts.gone().map(|(_, times)| (false, times));
        }
        self.counts.gone().map(|(until, times)| (now_ms() < until, times))
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How what a call wrote is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spoil {
    /// One bit is flipped.
    pub corrupt: bool,
    /// So many octets more, or fewer.
    pub resize: i64,
    /// Flags that are set.
    pub set: u64,
    /// Flags that are missing.
    pub clear: u64,
}

/// How long an answer that is only asked for its length is said to be: by so many octets more or fewer.
pub fn resize_of_next(function: usize) -> i64 {
    let Some(mut running) = running() else { return 0 };
    running.follow();
    let Ok(next) = running.counts.next(function) else { return 0 };
    running
        .meets(function, next)
        .map(|line| match line.action {
            // Said to be shorter, the buffer would be too small, and the token not asked.
            Action::Resize(by) => by.max(0),
            _ => 0,
        })
        .sum()
}

/// A call that is not counted and meets no fault of its own: a token that is gone does not answer it either.
pub fn uncounted(need: Need, call: impl FnOnce() -> CK_RV) -> CK_RV {
    match running() {
        None => return call(),
        Some(running) if running.broken => return CKR_GENERAL_ERROR,
        Some(_) => {}
    }
    token::refuses(need, gone()).unwrap_or_else(|| token::asked(need, call))
}

/// Does what the script says around one call of the real module. `spoil` changes what the call has written; `seen` says what
/// shall be kept of it in the log.
pub fn around(
    function: usize,
    need: Need,
    call: impl FnOnce() -> CK_RV,
    spoil: impl FnOnce(Spoil),
    seen: impl Fn(bool) -> String,
) -> CK_RV {
    let Some(mut running) = running() else { return call() };
    running.follow();
    if running.broken {
        return CKR_GENERAL_ERROR;
    }
    let counted = match running.counts.count(function) {
        Ok(counted) => counted,
        Err(error) => {
            eprintln!("fault-token: the counts of {}: {error}", running.path.display());
            return CKR_GENERAL_ERROR;
        }
    };
    let lines: Vec<Line> = running.meets(function, counted).cloned().collect();
    let turn = Turn { function, n: counted.0.n };
    drop(running);

    let mut answer = None;
    let mut told = String::new();
    for line in lines.iter().filter(|line| !line.after) {
        if ends(&line.action) {
            turn.log("no", None, &format!("{told} {:?}", line.action), &seen(false));
        }
        told += &format!(" {:?}", line.action);
        if let Some(rv) = turn.act(&line.action) {
            answer = Some(rv);
        }
    }
    let answer = answer.or_else(|| token::refuses(need, gone()));
    let asked = answer.is_none();
    let rv = answer.unwrap_or_else(|| token::asked(need, call));
    let (mut given, mut wrong) = (rv, Spoil::default());
    let after: Vec<&Line> = lines.iter().filter(|line| line.after && asked).collect();
    for line in &after {
        told += &format!(" {:?} after", line.action);
        match line.action {
            Action::Corrupt => wrong.corrupt = true,
            Action::Resize(by) => wrong.resize += by,
            Action::Set(flags) => wrong.set |= flags,
            Action::Clear(flags) => wrong.clear |= flags,
            Action::Answer(rv) => given = rv,
            Action::Gone(_) => given = CKR_DEVICE_REMOVED,
            _ => {}
        }
    }
    // Before what happens after it, which may be the end of the process: what the token did is known.
    turn.log(if asked { "yes" } else { "no" }, Some((rv, given)), &told, &seen(asked && rv == CKR_OK));
    for line in &after {
        turn.act(&line.action);
    }
    if asked && rv == CKR_OK && wrong != Spoil::default() {
        spoil(wrong);
    }
    given
}

/// Whether the token is gone, and how often it went; never without a script.
pub fn gone() -> (bool, u64) {
    running().and_then(|mut running| running.gone().ok()).unwrap_or_default()
}

/// Whether nobody may come back from it.
const fn ends(action: &Action) -> bool {
    matches!(
        action,
        Action::Hang | Action::Spin | Action::Stop | Action::Kill | Action::Abort | Action::Segfault | Action::Exit(_)
    )
}

/// One call.
struct Turn {
    function: usize,
    n: u64,
}

impl Turn {
    /// Does it; an answer is what the client gets instead of the token's.
    fn act(&self, action: &Action) -> Option<CK_RV> {
        match action {
            Action::Delay(so_long) => std::thread::sleep(*so_long),
            Action::Hang => harm::hang(),
            Action::Spin => harm::spin(),
            Action::Stop => harm::stop(),
            Action::Kill => harm::kill(),
            Action::Abort => std::process::abort(),
            Action::Segfault => harm::segfault(),
            Action::Exit(status) => harm::exit(*status),
            Action::Answer(rv) => return Some(*rv),
            Action::Gone(so_long) => {
                let so_long =
                    so_long.map_or(u64::from(u32::MAX) << 16, |time| u64::try_from(time.as_millis()).unwrap_or(0));
                if let Some(mut running) = running()
                    && let Err(error) = running.counts.set_gone(now_ms() + so_long)
                {
                    eprintln!("fault-token: the counts of {}: {error}", running.path.display());
                }
                return Some(CKR_DEVICE_REMOVED);
            }
            Action::ShiftSlots(by) => token::shift_slots(*by),
            Action::Limit(most) if token::open_sessions() >= *most => return Some(CKR_SESSION_COUNT),
            Action::Print(octets) => harm::print(&self.chatter(*octets)),
            Action::Complain(octets) => eprint!("{}", self.chatter(*octets)),
            Action::Fork(so_long) => harm::fork(*so_long),
            Action::Handle => harm::handle_signals(),
            Action::Deaf => harm::ignore_signals(),
            Action::Leak(descriptors) => harm::leak(*descriptors),
            Action::Limit(_) | Action::Corrupt | Action::Resize(_) | Action::Set(_) | Action::Clear(_) => {}
        }
        None
    }

    /// A line, and so many octets in all if that is more.
    fn chatter(&self, octets: usize) -> String {
        let mut text = format!("fault-token: chatter at call {} of {}\n", self.n, FUNCTIONS[self.function]);
        while text.len() < octets {
            text += &"x".repeat((octets - text.len() - 1).min(119));
            text.push('\n');
        }
        text
    }

    fn log(&self, asked: &str, rv: Option<(CK_RV, CK_RV)>, faults: &str, seen: &str) {
        let Some(mut running) = running() else { return };
        let Some(log) = &mut running.log else { return };
        let (function, n, pid, now) = (FUNCTIONS[self.function], self.n, std::process::id(), now_ms());
        let token = match rv {
            Some((rv, _)) if asked == "yes" => names::code(rv),
            _ => "-".to_owned(),
        };
        let client = rv.map_or_else(|| "-".to_owned(), |(_, given)| names::code(given));
        let faults = if faults.is_empty() { String::new() } else { format!(" faults:{faults}") };
        // In one write, so that lines of several threads and processes do not mix.
        let line = format!("{now} {pid} {function} {n} asked={asked} token={token} client={client}{seen}{faults}\n");
        if let Err(error) = log.write_all(line.as_bytes()) {
            eprintln!("fault-token: the log: {error}");
        }
    }
}
