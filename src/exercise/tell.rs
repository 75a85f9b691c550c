//! Shell: the narration. Everything that the exercise says to the person who watches it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How wide a line of prose is at most.
const WIDTH: usize = 96;
/// How often a progress line is drawn anew: often enough to look alive.
const REDRAW: Duration = Duration::from_millis(100);

/// How text is set off. Nothing but the words where nobody looks, or where `NO_COLOR` is set (no-color.org).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ink {
    /// On a terminal.
    Colour,
    /// Into a file or pipe.
    Plain,
}

#[derive(Clone, Copy)]
enum Tone {
    Heading,
    Good,
    Refused,
    Bad,
    Quiet,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Heading => "1",
            Self::Good => "32",
            Self::Refused => "33",
            Self::Bad => "1;31",
            Self::Quiet => "2",
        }
    }
}

/// Tells the story to a writer. Writing never stops the exercise: who closed the pipe does not want to hear more.
pub struct Teller<'a> {
    out: &'a mut dyn Write,
    ink: Ink,
    steps: u32,
    progress: Option<Progress>,
}

struct Progress {
    what: String,
    of: u64,
    begun: Instant,
    drawn: Option<Instant>,
}

impl<'a> Teller<'a> {
    /// Tells to `out`, in colour if `stream`, which that is, is a terminal.
    pub fn new(out: &'a mut dyn Write, stream: &impl IsTerminal) -> Self {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let ink = if stream.is_terminal() && !is_plain { Ink::Colour } else { Ink::Plain };
        Self { out, ink, steps: 0, progress: None }
    }

    /// Tells to `out`, without colour.
    pub fn plain(out: &'a mut dyn Write) -> Self {
        Self { out, ink: Ink::Plain, steps: 0, progress: None }
    }

    /// Begins the next step of the story.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        let heading = self.set(Tone::Heading, &format!("{:>2}. {title}", self.steps));
        self.line(&format!("\n{heading}"));
    }

    /// Says something about the step.
    pub fn say(&mut self, text: &str) {
        for line in wrap(text, WIDTH - 4) {
            self.line(&format!("    {line}"));
        }
    }

    /// A fact with a name, in a column.
    pub fn fact(&mut self, name: &str, value: &str) {
        let name = self.set(Tone::Quiet, &format!("{name:<22}"));
        self.line(&format!("    {name} {value}"));
    }

    /// Something that is as it must be.
    pub fn good(&mut self, text: &str) {
        self.marked(Tone::Good, "ok", text);
    }

    /// Something that was refused, as it must be, with every reason.
    pub fn refused<T: AsRef<str>>(&mut self, what: &str, reasons: &[T]) {
        self.marked(Tone::Refused, "refused", what);
        for reason in reasons {
            for (i, line) in wrap(reason.as_ref(), WIDTH - 16).into_iter().enumerate() {
                let line = self.set(Tone::Quiet, &line);
                self.line(&format!("            {} {line}", if i == 0 { "·" } else { " " }));
            }
        }
    }

    /// Something that is not as it must be.
    pub fn bad(&mut self, text: &str) {
        self.marked(Tone::Bad, "WRONG", text);
    }

    fn marked(&mut self, tone: Tone, mark: &str, text: &str) {
        let set = self.set(tone, &format!("{mark:<7}"));
        let mut lines = wrap(text, WIDTH - 12).into_iter();
        let first = lines.next().unwrap_or_default();
        self.line(&format!("    {set} {first}"));
        for line in lines {
            self.line(&format!("            {line}"));
        }
    }

    /// Begins to count up to `of`. On a terminal a line is drawn over and over.
    pub fn begin(&mut self, what: &str, of: u64) {
        self.progress = Some(Progress { what: what.to_owned(), of, begun: Instant::now(), drawn: None });
    }

    /// Has come so far.
    pub fn advance(&mut self, done: u64) {
        let (Ink::Colour, Some(progress)) = (self.ink, &mut self.progress) else { return };
        if progress.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        progress.drawn = Some(Instant::now());
        let text =
            format!("\r    {} {}", bar(done, progress.of), counted(done, &progress.what, progress.begun.elapsed()));
        // Nothing depends on what the watcher sees.
        let _ = write!(self.out, "{text}\x1b[K");
        let _ = self.out.flush();
    }

    /// Has come to the end; says so with the rate. Answers how long it took.
    pub fn end(&mut self, done: u64) -> Duration {
        let took = self.progress.as_ref().map_or(Duration::ZERO, |progress| progress.begun.elapsed());
        self.end_after(done, took);
        took
    }

    /// The same where only `took` of the time went into it.
    pub fn end_after(&mut self, done: u64, took: Duration) {
        let Some(progress) = self.progress.take() else { return };
        if self.ink == Ink::Colour {
            let _ = write!(self.out, "\r\x1b[K");
        }
        self.good(&counted(done, &progress.what, took));
    }

    /// A line as it is.
    pub fn line(&mut self, text: &str) {
        // As in `advance`.
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    /// A line that is set off as a heading.
    pub fn heading(&mut self, text: &str) {
        let text = self.set(Tone::Heading, text);
        self.line(&text);
    }

    fn set(&self, tone: Tone, text: &str) -> String {
        match self.ink {
            Ink::Colour => format!("\x1b[{}m{text}\x1b[0m", tone.code()),
            Ink::Plain => text.to_owned(),
        }
    }
}

/// `1,000 commands signed in 0.21 s, 4,762 each second`.
fn counted(done: u64, what: &str, took: Duration) -> String {
    format!("{} {what} in {}, {} each second", number(done), seconds(took), number(rate(done, took)))
}

/// How many each second, rounded.
pub fn rate(done: u64, took: Duration) -> u64 {
    u64::try_from(u128::from(done) * 1_000_000_000 / took.as_nanos().max(1)).unwrap_or(u64::MAX)
}

/// `1.25 s`, and for long times `3 min 12 s`.
pub fn seconds(took: Duration) -> String {
    let whole = took.as_secs();
    if whole < 100 { format!("{:.2} s", took.as_secs_f64()) } else { format!("{} min {} s", whole / 60, whole % 60) }
}

/// With commas between thousands.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bar(done: u64, of: u64) -> String {
    const CELLS: u64 = 24;
    let full = (done.min(of) * CELLS).checked_div(of).unwrap_or(CELLS);
    (0..CELLS).map(|cell| if cell < full { '█' } else { '░' }).collect()
}

/// Breaks prose at spaces. A word that is longer than a line, such as a digest, stays whole.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests;
