//! Shell: the one file that prints. Answers go to stdout, everything else to stderr; colour only to a terminal, and not if
//! `NO_COLOR` is set (no-color.org).

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

/// The form of answers on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON value, or one a line where a command says so.
    Json,
}

/// Columns of a terminal that does not say how many it has.
const WIDTH_DEFAULT: usize = 80;

/// How something is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Look at this.
    Warning,
    /// Not as it should be.
    Bad,
}

/// Where a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    output: Output,
    colour_stdout: bool,
    colour_stderr: bool,
}

/// An answer for people: lines of names and values, aligned.
#[derive(Clone, Debug, Default)]
pub struct Text {
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
enum Line {
    Row { name: String, value: String, tone: Option<Tone> },
    Free(String),
}

impl Text {
    /// One more row.
    #[allow(clippy::needless_pass_by_value)] // Numbers, names and texts stand at the call as they are.
    pub fn row(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.lines.push(Line::Row { name: name.to_owned(), value: clean(&value.to_string()), tone: None });
        self
    }

    /// One more row, in a tone.
    #[allow(clippy::needless_pass_by_value)] // As above.
    pub fn toned(&mut self, name: &str, value: impl ToString, tone: Tone) -> &mut Self {
        self.lines.push(Line::Row { name: name.to_owned(), value: clean(&value.to_string()), tone: Some(tone) });
        self
    }

    /// One more row, if there is something to say.
    pub fn some(&mut self, name: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.row(name, value);
        }
        self
    }

    /// A line of its own.
    pub fn line(&mut self, text: &str) -> &mut Self {
        self.lines.push(Line::Free(clean(text)));
        self
    }

    fn render(&self, colour: bool) -> String {
        let width = self
            .lines
            .iter()
            .filter_map(|line| match line {
                Line::Row { name, .. } => Some(name.chars().count()),
                Line::Free(_) => None,
            })
            .max()
            .unwrap_or_default();
        let mut text = String::new();
        for line in &self.lines {
            match line {
                Line::Row { name, value, tone } => {
                    let value = paint(value, *tone, colour);
                    writeln!(text, "{name:<width$}  {value}").expect("a String takes every text");
                }
                Line::Free(line) => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        text
    }
}

/// Texts of other people may not move the cursor or set colours: control characters are shown as escapes.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

fn paint(text: &str, tone: Option<Tone>, colour: bool) -> String {
    let code = match tone {
        Some(Tone::Good) => "32",
        Some(Tone::Warning) => "33",
        Some(Tone::Bad) => "31",
        None => return text.to_owned(),
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

impl Printer {
    /// The form that was asked for.
    pub const fn output(&self) -> Output {
        self.output
    }

    /// Looks at the terminal once.
    pub fn new(output: Output) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            output,
            colour_stdout: wanted && io::stdout().is_terminal(),
            colour_stderr: wanted && io::stderr().is_terminal(),
        }
    }

    /// Whether answers are for programs.
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// The answer: `value` for programs, `text` for people.
    pub fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce(&mut Text)) -> io::Result<()> {
        match self.output {
            Output::Text => {
                let mut rows = Text::default();
                text(&mut rows);
                self.octets(rows.render(self.colour_stdout).as_bytes())
            }
            Output::Json => self.json_line(value),
        }
    }

    /// One JSON value on a line of its own.
    pub fn json_line<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.octets(&line)
    }

    /// Octets as they are: checkpoints, proofs, documents, completions.
    pub fn octets(&self, octets: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(octets)?;
        stdout.flush()
    }

    /// Something to know, on stderr.
    pub fn note(&self, text: &str) {
        self.say(&clean(text), None);
    }

    /// Rows to know, on stderr.
    pub fn rows(&self, text: &Text) {
        self.say(text.render(false).trim_end(), None);
    }

    /// Something to look at, on stderr.
    pub fn warning(&self, text: &str) {
        self.say(&format!("warning: {}", clean(text)), Some(Tone::Warning));
    }

    /// Why it was not done, on stderr.
    pub fn error(&self, text: &str) {
        self.say(&format!("smkictl: {}", clean(text)), Some(Tone::Bad));
    }

    /// How wide the terminal is that [`Printer::progress`] draws on; none if there is none.
    pub fn progress_width(&self) -> Option<usize> {
        if self.is_json() || !io::stderr().is_terminal() {
            return None;
        }
        let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
        Some(if columns == 0 { WIDTH_DEFAULT } else { columns.into() })
    }

    /// Draws a line over the one that was drawn last, on stderr.
    pub fn progress(&self, text: &str, width: usize) {
        // One column stays free: some terminals break the line when the last is written.
        let room = width.saturating_sub(1);
        let line: String = clean(text).chars().filter(|character| *character != '\n').take(room).collect();
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "\r{line:<room$}").and_then(|()| stderr.flush());
    }

    /// Leaves the line that was drawn last as it is.
    pub fn progress_done(&self) {
        let _ = writeln!(io::stderr().lock());
    }

    fn say(self, text: &str, tone: Option<Tone>) {
        // Nobody reads: nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{}", paint(text, tone, self.colour_stderr));
    }
}

#[cfg(test)]
mod tests;
