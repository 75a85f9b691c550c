//! What fails when: the script, and the counts that outlive the process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use cryptoki_sys as ck;
use cryptoki_sys::CK_RV;

/// What is done before the real module is called.
pub enum Before {
    /// It is called.
    Go,
    /// It is not called; this is the answer.
    Answer(CK_RV),
}

/// What is done after it has answered.
pub enum After {
    /// Its answer stands.
    Leave,
    /// This is the answer.
    Answer(CK_RV),
    /// The process is killed.
    Kill,
    /// What it wrote is spoilt.
    Corrupt,
}

/// What happens to one call.
pub struct Fault {
    /// Before it.
    pub before: Before,
    /// After it.
    pub after: After,
}

#[derive(Clone, Copy)]
enum Action {
    Delay(Duration),
    Stop,
    Hang,
    Kill,
    KillAfter,
    Abort,
    Return(CK_RV),
    Lose(CK_RV),
    Corrupt,
    Print,
}

struct Line {
    function: String,
    from: u64,
    to: u64,
    action: Action,
}

struct Script {
    lines: Vec<Line>,
    counts_path: PathBuf,
    counts: Mutex<BTreeMap<String, u64>>,
}

static SCRIPT: OnceLock<Script> = OnceLock::new();

/// Reads the script, and the counts of whoever ran it before.
pub fn load() -> Result<(), String> {
    let Some(path) = std::env::var_os("FAULT_TOKEN_SCRIPT") else { return Ok(()) };
    let path = PathBuf::from(path);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut lines = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            lines.push(parse(line).ok_or_else(|| format!("{} line {}: {line:?} is no fault", path.display(), n + 1))?);
        }
    }
    let mut counts_path = path.into_os_string();
    counts_path.push(".counts");
    let counts_path = PathBuf::from(counts_path);
    let counts = fs::read_to_string(&counts_path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(function, count)| Some((function.to_owned(), count.parse().ok()?)))
        .collect();
    let _ = SCRIPT.set(Script { lines, counts_path, counts: Mutex::new(counts) });
    Ok(())
}

fn parse(line: &str) -> Option<Line> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (function, calls, action, argument) = match words[..] {
        [function, calls, action] => (function, calls, action, None),
        [function, calls, action, argument] => (function, calls, action, Some(argument)),
        _ => return None,
    };
    let (from, to) = match calls.split_once('-') {
        _ if calls == "*" => (1, u64::MAX),
        Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
        None => (calls.parse().ok()?, calls.parse().ok()?),
    };
    let action = match (action, argument) {
        ("delay", Some(ms)) => Action::Delay(Duration::from_millis(ms.strip_suffix("ms")?.parse().ok()?)),
        ("stop", None) => Action::Stop,
        ("hang", None) => Action::Hang,
        ("kill", None) => Action::Kill,
        ("kill-after", None) => Action::KillAfter,
        ("abort", None) => Action::Abort,
        ("return", Some(rv)) => Action::Return(code(rv)?),
        ("lose", Some(rv)) => Action::Lose(code(rv)?),
        ("corrupt" | "final-try", None) => Action::Corrupt,
        ("print", None) => Action::Print,
        _ => return None,
    };
    Some(Line { function: function.to_owned(), from, to, action })
}

/// Return values by name, the ones that tokens in trouble give; any other by number.
fn code(text: &str) -> Option<CK_RV> {
    let known = [
        ("CKR_OK", ck::CKR_OK),
        ("CKR_HOST_MEMORY", ck::CKR_HOST_MEMORY),
        ("CKR_GENERAL_ERROR", ck::CKR_GENERAL_ERROR),
        ("CKR_FUNCTION_FAILED", ck::CKR_FUNCTION_FAILED),
        ("CKR_DEVICE_ERROR", ck::CKR_DEVICE_ERROR),
        ("CKR_DEVICE_MEMORY", ck::CKR_DEVICE_MEMORY),
        ("CKR_DEVICE_REMOVED", ck::CKR_DEVICE_REMOVED),
        ("CKR_FUNCTION_CANCELED", ck::CKR_FUNCTION_CANCELED),
        ("CKR_KEY_HANDLE_INVALID", ck::CKR_KEY_HANDLE_INVALID),
        ("CKR_OBJECT_HANDLE_INVALID", ck::CKR_OBJECT_HANDLE_INVALID),
        ("CKR_OPERATION_ACTIVE", ck::CKR_OPERATION_ACTIVE),
        ("CKR_OPERATION_NOT_INITIALIZED", ck::CKR_OPERATION_NOT_INITIALIZED),
        ("CKR_PIN_INCORRECT", ck::CKR_PIN_INCORRECT),
        ("CKR_PIN_LOCKED", ck::CKR_PIN_LOCKED),
        ("CKR_SESSION_CLOSED", ck::CKR_SESSION_CLOSED),
        ("CKR_SESSION_COUNT", ck::CKR_SESSION_COUNT),
        ("CKR_SESSION_HANDLE_INVALID", ck::CKR_SESSION_HANDLE_INVALID),
        ("CKR_TOKEN_NOT_PRESENT", ck::CKR_TOKEN_NOT_PRESENT),
        ("CKR_USER_NOT_LOGGED_IN", ck::CKR_USER_NOT_LOGGED_IN),
        ("CKR_CRYPTOKI_NOT_INITIALIZED", ck::CKR_CRYPTOKI_NOT_INITIALIZED),
    ];
    match text.strip_prefix("0x") {
        Some(hex) => CK_RV::from_str_radix(hex, 16).ok(),
        None => known.iter().find(|(name, _)| *name == text).map(|(_, code)| *code),
    }
}

/// Counts a call and says what happens to it; delays, stops and ends are done here, before the call.
pub fn next(function: &'static str) -> Fault {
    let mut fault = Fault { before: Before::Go, after: After::Leave };
    let Some(script) = SCRIPT.get() else { return fault };
    if script.lines.iter().all(|line| line.function != function) {
        return fault;
    }
    let count = script.count(function);
    for line in &script.lines {
        if line.function != function || !(line.from..=line.to).contains(&count) {
            continue;
        }
        match line.action {
            Action::Delay(so_long) => thread::sleep(so_long),
            Action::Stop => signal_self(SIGSTOP),
            Action::Hang => loop {
                thread::sleep(Duration::from_secs(3600));
            },
            Action::Kill => kill_self(),
            Action::Abort => std::process::abort(),
            Action::Return(rv) => fault.before = Before::Answer(rv),
            Action::KillAfter => fault.after = After::Kill,
            Action::Lose(rv) => fault.after = After::Answer(rv),
            Action::Corrupt => fault.after = After::Corrupt,
            Action::Print => println!("fault-token: chatter at call {count} of {function}"),
        }
    }
    fault
}

impl Script {
    /// One more; kept in the file before anything happens, so that a killed process has counted.
    fn count(&self, function: &str) -> u64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(function.to_owned()).or_default();
        *count += 1;
        let count = *count;
        let mut text = String::new();
        for (function, count) in &*counts {
            writeln!(text, "{function} {count}").expect("writing to a string does not fail");
        }
        // In one step: a process that is stopped or killed just now leaves the counts of before or after, never none.
        let new = self.counts_path.with_extension("new");
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.counts_path)) {
            eprintln!("fault-token: {}: {error}", self.counts_path.display());
        }
        count
    }
}

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;

unsafe extern "C" {
    fn raise(signal: i32) -> i32;
}

/// To the calling thread, so that it does not go on while another takes the signal in.
fn signal_self(signal: i32) {
    // SAFETY: raise(3) touches no memory of ours, and both signals stop or end the process as a whole.
    unsafe { raise(signal) };
}

/// Ends the process as nothing can prevent.
pub fn kill_self() -> ! {
    signal_self(SIGKILL);
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
