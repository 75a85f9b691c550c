//! The script: which fault meets which call. Text in, lines out; nothing is done here.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cryptoki_sys::{CK_FLAGS, CK_RV};

use crate::names::{CODES, FLAGS, value};
use crate::{FUNCTIONS, flagged, spoilable};

/// One script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Its faults, in order.
    pub lines: Vec<Line>,
    /// Where each call is written down, if anywhere: relative to the script's folder.
    pub log: Option<PathBuf>,
    /// Whether every process counts its own calls, instead of all of them together in a file beside the script.
    pub counts_of_process: bool,
}

/// A fault, and which calls it meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The place of the function in [`FUNCTIONS`]; `None` for any.
    pub function: Option<usize>,
    /// Which of its calls.
    pub calls: Calls,
    /// What happens.
    pub action: Action,
    /// Whether the real module is asked first.
    pub after: bool,
}

/// Calls by their number, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Each so-manieth, beginning with the first.
    pub step: u64,
    /// Whether they are counted since the script has this text.
    pub since: bool,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It takes so much longer.
    Delay(Duration),
    /// It never returns.
    Hang,
    /// It never returns, and takes a processor with it.
    Spin,
    /// The process stops (SIGSTOP).
    Stop,
    /// The process is killed (SIGKILL).
    Kill,
    /// The process aborts (SIGABRT).
    Abort,
    /// The process touches memory that is not there (SIGSEGV).
    Segfault,
    /// The process exits with this status.
    Exit(i32),
    /// This is the answer.
    Answer(CK_RV),
    /// One bit of what it writes is wrong.
    Corrupt,
    /// What it writes is so many octets longer, or shorter.
    Resize(i64),
    /// These flags are set in what it writes.
    Set(CK_FLAGS),
    /// These flags are missing in what it writes.
    Clear(CK_FLAGS),
    /// The token is gone: for so long, or while the script has this text.
    Gone(Option<Duration>),
    /// The slots have other numbers from here on, by so many.
    ShiftSlots(u64),
    /// No session is opened beyond so many of this process.
    Limit(usize),
    /// So many octets on standard output.
    Print(usize),
    /// So many octets on standard error.
    Complain(usize),
    /// A child process that lives for so long.
    Fork(Duration),
    /// A handler for every signal that can be caught.
    Handle,
    /// Every signal that can be is ignored.
    Deaf,
    /// So many descriptors are opened, inherited by whatever is executed, and never closed.
    Leak(usize),
}

/// What is wrong with a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What should be there.
    pub expected: String,
    /// What is.
    pub found: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: expected {}, found {:?}", self.line, self.expected, self.found)
    }
}

/// What a line may say, for whoever wrote another.
const ACTIONS: &str = "one of: return CODE, lose CODE, delay TIME, hang, spin, stop, kill, abort, segfault, exit STATUS, corrupt, \
                       short [OCTETS], long [OCTETS], set FLAG, clear FLAG, final-try, gone [TIME], shift-slots N, limit N, \
                       print [OCTETS], complain [OCTETS], fork [TIME], handle, deaf, leak [N]; or with -after, as kill-after";

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// The first line that is none: where it is, what was expected and what was found.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let wrong = |(expected, found): Wrong| ScriptError { line: n + 1, expected, found };
            match line.split_once(char::is_whitespace) {
                None if line.is_empty() => {}
                Some(("log", path)) => script.log = Some(PathBuf::from(path.trim())),
                Some(("counts", of)) => {
                    script.counts_of_process = match of.trim() {
                        "file" => false,
                        "process" => true,
                        other => return Err(wrong(expected("`counts file` or `counts process`", other))),
                    }
                }
                _ => script.lines.push(self::line(line).map_err(wrong)?),
            }
        }
        Ok(script)
    }
}

/// What was expected, and what was found.
type Wrong = (String, String);

fn expected(what: &str, found: &str) -> Wrong {
    (what.to_owned(), found.to_owned())
}

fn line(text: &str) -> Result<Line, Wrong> {
    let words: Vec<_> = text.split_whitespace().collect();
    let [function, calls, action, rest @ ..] = &words[..] else {
        return Err(expected("FUNCTION CALLS ACTION [ARGUMENT], `log PATH` or `counts file|process`", text));
    };
    if rest.len() > 1 {
        return Err(expected("one argument at most after the action", &rest.join(" ")));
    }
    let name = *function;
    let function = match name {
        "*" => None,
        _ => Some(
            FUNCTIONS
                .iter()
                .position(|known| *known == name)
                .ok_or_else(|| expected("a function of PKCS#11 2.40, such as C_Sign, or * for any", name))?,
        ),
    };
    let calls = self::calls(calls)?;
    let (action, after) = self::action(action, rest.first().copied())?;
    let fits = match action {
        Action::Corrupt | Action::Resize(_) if !spoilable(name) => Err("a function that writes octets, such as C_Sign"),
        Action::Set(_) | Action::Clear(_) if !flagged(name) => {
            Err("a function that writes flags: C_GetTokenInfo, C_GetSlotInfo, C_GetMechanismInfo or C_GetSessionInfo")
        }
        Action::Limit(_) if name != "C_OpenSession" => Err("C_OpenSession, whose sessions are limited"),
        _ => Ok(()),
    };
    fits.map_err(|what| expected(what, name))?;
    Ok(Line { function, calls, action, after })
}

/// `3`, `3-5`, `3-`, `*`; each of them with `/2` for every second; with `+` before it counted since the script has this text.
fn calls(text: &str) -> Result<Calls, Wrong> {
    let wrong = || expected("calls as 3, 3-5, 3-, *, */2 or 3-/2, or with a + before them: +1", text);
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (since, rest) = text.strip_prefix('+').map_or((false, text), |rest| (true, rest));
    let (range, step) = match rest.split_once('/') {
        Some((range, step)) => (range, Some(number(step)?)),
        None => (rest, None),
    };
    let (from, to) = match range.split_once('-') {
        // Every second of all is the second, the fourth and so on.
        _ if range == "*" => (step.unwrap_or(1), u64::MAX),
        Some((from, "")) => (number(from)?, u64::MAX),
        Some((from, to)) => (number(from)?, number(to)?),
        None if step.is_none() => (number(range)?, number(range)?),
        None => return Err(wrong()),
    };
    if step == Some(0) || from > to {
        return Err(wrong());
    }
    Ok(Calls { from, to, step: step.unwrap_or(1), since })
}

impl Calls {
    /// Whether the n-th call is one of them; `base` calls were made before the script had this text.
    pub const fn contain(&self, n: u64, base: u64) -> bool {
        let n = if self.since { n.saturating_sub(base) } else { n };
        self.from <= n && n <= self.to && (n - self.from).is_multiple_of(self.step)
    }
}

fn action(text: &str, argument: Option<&str>) -> Result<(Action, bool), Wrong> {
    let (name, after) = text.strip_suffix("-after").map_or((text, false), |name| (name, true));
    let wanted = |what: &str| expected(what, argument.unwrap_or_default());
    let none = |action| match argument {
        None => Ok(action),
        Some(_) => Err(wanted(&format!("nothing after {name}"))),
    };
    let number = |default: Option<u64>| match argument {
        None => default.ok_or_else(|| wanted(&format!("a number after {name}"))),
        Some(text) => text.parse().map_err(|_| wanted(&format!("a number after {name}"))),
    };
    let count = |default| number(default).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let code = || {
        let code = argument.and_then(|text| value(CODES, text));
        code.ok_or_else(|| wanted("a return value by name, such as CKR_DEVICE_ERROR, or by number, such as 0x80000001"))
    };
    let flag = || {
        let flag = argument.and_then(|text| value(FLAGS, text));
        flag.ok_or_else(|| wanted("a flag by name, such as CKF_USER_PIN_LOCKED, or by number"))
    };
    let time =
        || argument.map(|text| duration(text).ok_or_else(|| wanted("a time such as 50us, 5ms or 2s"))).transpose();
    let octets = |sign: i64| number(Some(1)).map(|n| sign * i64::try_from(n).unwrap_or(i64::from(i32::MAX)));
    let action = match name {
        "return" => Action::Answer(code()?),
        // The token is asked, and its answer lost.
        "lose" => return Ok((Action::Answer(code()?), true)),
        "delay" => Action::Delay(time()?.ok_or_else(|| wanted("a time such as 50us, 5ms or 2s"))?),
        "hang" => none(Action::Hang)?,
        "spin" => none(Action::Spin)?,
        "stop" => none(Action::Stop)?,
        "kill" => none(Action::Kill)?,
        "abort" => none(Action::Abort)?,
        "segfault" => none(Action::Segfault)?,
        "exit" => Action::Exit(i32::try_from(number(None)?).unwrap_or(i32::MAX)),
        "corrupt" => none(Action::Corrupt)?,
        "short" => Action::Resize(octets(-1)?),
        "long" => Action::Resize(octets(1)?),
        "set" => Action::Set(flag()?),
        "clear" => Action::Clear(flag()?),
        "final-try" => none(Action::Set(cryptoki_sys::CKF_USER_PIN_FINAL_TRY))?,
        "gone" => Action::Gone(time()?),
        "shift-slots" => Action::ShiftSlots(number(None)?),
        "limit" => Action::Limit(count(None)?),
        "print" => Action::Print(count(Some(0))?),
        "complain" => Action::Complain(count(Some(0))?),
        "fork" => Action::Fork(time()?.unwrap_or(CHILD_LIVES)),
        "handle" => none(Action::Handle)?,
        "deaf" => none(Action::Deaf)?,
        "leak" => Action::Leak(count(Some(1))?),
        _ => return Err(expected(ACTIONS, text)),
    };
    // These change what was written, so that the token was asked.
    let spoils = matches!(action, Action::Corrupt | Action::Resize(_) | Action::Set(_) | Action::Clear(_));
    Ok((action, after || spoils))
}

/// How long a child lives whose script does not say: it must not outlive the test by hours.
const CHILD_LIVES: Duration = Duration::from_secs(60);

fn duration(text: &str) -> Option<Duration> {
    let number = |unit| text.strip_suffix(unit).and_then(|number: &str| number.parse().ok());
    number("us")
        .map(Duration::from_micros)
        .or_else(|| number("ms").map(Duration::from_millis))
        .or_else(|| number("s").map(Duration::from_secs))
}
