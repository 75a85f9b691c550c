//! Shell: a page for a person who is about to put their name under it.
//!
//! Whatever comes out of a document or a certificate is somebody else's text. It is shown so that it cannot be taken for a
//! line of ours, move the cursor, hide, or turn the direction of writing: see [`visible`].

use std::fmt::{Display, Write};

use crate::domain::procedure::calendar::{is_summer_time, london};
use crate::domain::time::Timestamp;

/// How wide the names of rows are.
const NAME_WIDTH: usize = 18;

/// `text` on one line, in which every character is what it looks like: ASCII, Latin letters and the punctuation of English
/// prose. All else, line feeds and letters that look like Latin ones included, is shown as `\u{202e}`.
pub fn visible(text: impl Display) -> String {
    let text = text.to_string();
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => shown.push_str("\\\\"),
            ' '..='~' | '£' | '§' | '°' | '·' | '–' | '—' | '‘' | '’' | '“' | '”' | '…' | '€' => {
                shown.push(character);
            }
            '\u{c0}'..='\u{24f}' if character.is_alphabetic() => shown.push(character),
            _ => write!(shown, "\\u{{{:04x}}}", u32::from(character)).expect("a String takes everything"),
        }
    }
    shown
}

/// JSON in which nothing but ASCII stands as it is, so that it may be looked at on a terminal too.
pub fn ascii_json(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for character in format!("{value:#}\n").chars() {
        if character.is_ascii_graphic() || character == ' ' || character == '\n' {
            text.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                write!(text, "\\u{unit:04x}").expect("a String takes everything");
            }
        }
    }
    text
}

/// Lines for a person.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    indent: usize,
}

impl Page {
    /// The lines so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is written by `within` stands one step further to the right.
    pub fn indented(&mut self, within: impl FnOnce(&mut Self)) {
        self.indent += 2;
        within(self);
        self.indent -= 2;
    }

    /// A heading, after an empty line.
    pub fn heading(&mut self, text: impl Display) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(text);
    }

    /// A line.
    pub fn line(&mut self, text: impl Display) {
        let indent = self.indent;
        writeln!(self.text, "{:indent$}{}", "", visible(text)).expect("a String takes everything");
    }

    /// A name and a value.
    pub fn row(&mut self, name: &str, value: impl Display) {
        let indent = self.indent;
        let (name, value) = (visible(name), visible(value));
        writeln!(self.text, "{:indent$}{name:<NAME_WIDTH$}  {value}", "").expect("a String takes everything");
    }

    /// A text that a person wrote. Each of its lines stands behind a bar, so that none is taken for one of ours.
    pub fn prose(&mut self, text: &str) {
        let indent = self.indent + 2;
        for line in text.split('\n') {
            writeln!(self.text, "{:indent$}| {}", "", visible(line)).expect("a String takes everything");
        }
    }
}

/// A moment in UTC and by the clocks of Great Britain. The law may change; the moment in UTC is what counts.
pub fn moment(at: Timestamp) -> String {
    let local = london(at);
    let (year, month, day) = local.to_calendar_date();
    let (hour, minute, second) = local.to_hms();
    let zone = if is_summer_time(at) { "BST" } else { "GMT" };
    let weekday = local.weekday();
    format!("{at} ({weekday} {day} {month} {year}, {hour:02}:{minute:02}:{second:02} {zone} in London)")
}

#[cfg(test)]
mod tests;
