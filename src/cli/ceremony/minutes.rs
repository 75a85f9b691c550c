//! The minutes of a ceremony, made from its journal or from the transcript in the ledger: as text, and as one page that is printed and
//! signed by hand. Nothing is in them that the journal does not say.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::journal::{Line, What};
use super::plan::Capacity;
use crate::domain::determination::words::Words;
use crate::domain::names::Digest;
use crate::domain::time::Timestamp;

/// Where a line of text is broken.
const WIDTH: usize = 100;

/// One thing that the minutes say.
enum Item {
    /// A heading: its time, and its text.
    Heading(Option<Timestamp>, String),
    /// A sentence, and when it was so.
    Said(Timestamp, String, Tone),
    /// A name and a value.
    Fact(String, String),
    /// A digest in words.
    Aloud(Digest),
}

/// How a sentence is set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    /// Something went otherwise than planned.
    Marked,
}

/// Minutes.
pub struct Minutes {
    title: String,
    rehearsal: bool,
    head: Vec<(String, String)>,
    items: Vec<Item>,
    /// Everyone who was ever there, as what.
    people: Vec<(String, Capacity)>,
    transcript: Digest,
    closed: bool,
}

impl Minutes {
    /// From the lines of a journal. `transcript` is the SHA-256 of the octets that they lie in.
    pub fn of(lines: &[Line], transcript: Digest, closed: bool) -> Self {
        let mut minutes = Self {
            title: String::new(),
            rehearsal: false,
            head: Vec::new(),
            items: Vec::new(),
            people: Vec::new(),
            transcript,
            closed,
        };
        let mut number = 0;
        let mut seen = BTreeSet::new();
        for line in lines {
            if let What::Begun { step, title, says } = &line.what {
                if seen.insert(step.clone()) {
                    number += 1;
                    minutes.items.push(Item::Heading(Some(line.at), format!("{number}. {title}")));
                    minutes.say(line.at, says.to_string());
                } else {
                    minutes.items.push(Item::Heading(Some(line.at), format!("{title}, gone on with")));
                }
                continue;
            }
            minutes.take(line);
        }
        if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
            minutes.head.push(("From".to_owned(), first.at.to_string()));
            minutes.head.push((if closed { "Until" } else { "So far until" }.to_owned(), last.at.to_string()));
        }
        minutes
    }

    /// Whether the tokens were scratch.
    pub const fn is_rehearsal(&self) -> bool {
        self.rehearsal
    }

    fn say(&mut self, at: Timestamp, text: String) {
        self.items.push(Item::Said(at, text, Tone::Plain));
    }

    fn mark(&mut self, at: Timestamp, text: String) {
        self.items.push(Item::Said(at, text, Tone::Marked));
    }

    fn take(&mut self, line: &Line) {
        let at = line.at;
        match &line.what {
            What::Opened { plan, kind, title, place, purpose, origin, policy, when_interrupted: _, rehearsal } => {
                self.title = title.to_string();
                self.rehearsal = *rehearsal;
                for (name, value) in [
                    ("Ceremony", kind.to_string()),
                    ("Place", place.to_string()),
                    ("Purpose", purpose.to_string()),
                    ("Ledger", origin.to_string()),
                    ("Policy", policy.to_string()),
                    ("Plan, SHA-256", plan.to_string()),
                ] {
                    self.head.push((name.to_owned(), value));
                }
            }
            What::Session { number, account, program, interrupted } => {
                self.items.push(Item::Heading(Some(at), format!("Session {number}: roll-call")));
                if let Some(step) = interrupted {
                    self.mark(at, format!("The session before was interrupted at \u{201c}{step}\u{201d} without having been adjourned. The ceremony is resumed there."));
                }
                self.say(at, format!("The program is {program}, run by the account {account}."));
            }
            What::Present { person, name, capacity } => {
                let shown = person.as_ref().map_or_else(|| name.to_string(), |id| format!("{name} ({id})"));
                self.say(at, format!("Present: {shown}, {capacity}."));
                if !self.people.iter().any(|(other, as_what)| *other == shown && as_what == capacity) {
                    self.people.push((shown, *capacity));
                }
            }
            What::Absent { name, capacity } => self.mark(at, format!("Absent: {name}, {capacity}.")),
            What::Begun { .. } => {}
            What::Answered { step: _, asked, answer } => {
                self.say(
                    at,
                    format!("The conductor was asked: \u{201c}{asked}\u{201d} and answered: \u{201c}{answer}\u{201d}."),
                );
            }
            What::Read { step: _, what, sha256, compared } => {
                self.say(
                    at,
                    format!(
                        "The SHA-256 of {what} was read aloud in words. {} compared and confirmed it:",
                        listed(compared)
                    ),
                );
                self.items.push(Item::Aloud(*sha256));
            }
            What::Found { step: _, what } => self.mark(at, format!("Found: {what}.")),
            What::Done { step: _, facts } => {
                for (name, value) in facts {
                    self.items.push(Item::Fact(name.to_string(), value.to_string()));
                }
                self.say(at, "The step is done.".to_owned());
            }
            What::Failed { step: _, why } => self.mark(at, format!("The step failed: {why}")),
            What::Adjourned { step: _, why } => self.mark(at, format!("The ceremony was adjourned: {why}.")),
            What::Remark { step: _, text } => self.mark(at, format!("Put on record: \u{201c}{text}\u{201d}.")),
            What::Closed {} => {
                self.items.push(Item::Heading(Some(at), "Close".to_owned()));
                self.say(at, "All steps were done, and the transcript was closed.".to_owned());
            }
            What::Recorded { entry } => self.say(at, format!("The ledger has it as entry {entry}.")),
        }
    }

    /// What stands above everything of a rehearsal.
    const REHEARSAL: &'static str = "REHEARSAL on scratch tokens. No key in it was used or kept.";

    /// As text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.rehearsal {
            let _ = writeln!(text, "{}\n", Self::REHEARSAL);
        }
        let _ = writeln!(text, "MINUTES\n{}\n", self.title);
        for (name, value) in &self.head {
            let _ = writeln!(text, "{name:<14}  {value}");
        }
        for item in &self.items {
            match item {
                Item::Heading(at, heading) => {
                    let at = at.map(|at| format!("  {}", day(at))).unwrap_or_default();
                    let _ = writeln!(text, "\n{heading}{at}\n");
                }
                Item::Said(at, said, tone) => {
                    let mark = if *tone == Tone::Marked { "*" } else { " " };
                    let folded = folded(said, WIDTH - 12);
                    let _ = writeln!(text, "{} {mark} {}", hour(*at), folded.join(&format!("\n{:11}", "")));
                }
                Item::Fact(name, value) => {
                    let _ = writeln!(text, "{:11}{name}: {value}", "");
                }
                Item::Aloud(digest) => {
                    let _ = writeln!(text, "{:13}{digest}", "");
                    for line in Words(*digest).to_string().lines() {
                        let _ = writeln!(text, "{:13}{line}", "");
                    }
                }
            }
        }
        let _ = writeln!(text, "\nTranscript{}, SHA-256\n  {}", self.so_far(), self.transcript);
        for line in Words(self.transcript).to_string().lines() {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str("\nSigned\n");
        for (name, capacity) in &self.people {
            let _ = writeln!(text, "\n  {name}, {capacity}\n\n  {:_<44}  date {:_<16}", "", "");
        }
        text
    }

    const fn so_far(&self) -> &'static str {
        if self.closed { "" } else { " so far" }
    }

    /// As one page for a browser or a printer, with nothing outside it.
    pub fn html(&self) -> String {
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en-GB\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Minutes: {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
            escaped(&self.title)
        );
        if self.rehearsal {
            let _ = writeln!(page, "<p class=\"rehearsal\">{}</p>", escaped(Self::REHEARSAL));
        }
        let _ = writeln!(
            page,
            "<header><p class=\"kind\">Minutes</p><h1>{}</h1></header>\n<table class=\"head\">",
            escaped(&self.title)
        );
        for (name, value) in &self.head {
            let _ = writeln!(page, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escaped(name), escaped(value));
        }
        page.push_str("</table>\n");
        let mut open = false;
        for item in &self.items {
            if let Item::Heading(at, heading) = item {
                if open {
                    page.push_str("</section>\n");
                }
                open = true;
                let at = at.map(|at| format!(" <small>{}</small>", day(at))).unwrap_or_default();
                let _ = writeln!(page, "<section>\n<h2>{}{at}</h2>", escaped(heading));
                continue;
            }
            match item {
                Item::Heading(..) => {}
                Item::Said(at, said, tone) => {
                    let class = if *tone == Tone::Marked { "said marked" } else { "said" };
                    let _ = writeln!(
                        page,
                        "<div class=\"{class}\"><time datetime=\"{at}\">{}</time><p>{}</p></div>",
                        hour(*at),
                        escaped(said).replace('\n', "<br>")
                    );
                }
                Item::Fact(name, value) => {
                    let _ =
                        writeln!(page, "<div class=\"fact\"><span>{}</span> {}</div>", escaped(name), escaped(value));
                }
                Item::Aloud(digest) => page.push_str(&aloud(*digest)),
            }
        }
        if open {
            page.push_str("</section>\n");
        }
        let _ = writeln!(
            page,
            "<section class=\"seal\">\n<h2>Transcript{}</h2>\n<p>SHA-256 of the octets from which this page was made, as the ledger keeps them:</p>\n{}</section>",
            self.so_far(),
            aloud(self.transcript)
        );
        page.push_str("<section class=\"signatures\">\n<h2>Signatures</h2>\n<p>We were there, and it was as it stands here.</p>\n<table>\n<thead><tr><th>Name</th><th>Capacity</th><th>Signature</th><th>Date</th></tr></thead>\n<tbody>\n");
        for (name, capacity) in &self.people {
            let _ = writeln!(page, "<tr><td>{}</td><td>{capacity}</td><td></td><td></td></tr>", escaped(name));
        }
        page.push_str("</tbody>\n</table>\n</section>\n</body>\n</html>\n");
        page
    }
}

/// Black on white, for A4; lines of one step stay together where they can.
const STYLE: &str = "
@page { size: A4; margin: 20mm 18mm; @bottom-right { content: counter(page) ' / ' counter(pages); font-size: 9pt; } }
body { font: 10.5pt/1.45 Georgia, 'Times New Roman', serif; color: #111; max-width: 174mm; margin: 2em auto; padding: 0 1em; }
.rehearsal { border: 3px double #111; padding: .6em; text-align: center; font-weight: bold; letter-spacing: .06em; }
.kind { text-transform: uppercase; letter-spacing: .2em; margin: 0; font-size: 9pt; }
h1 { font-size: 18pt; line-height: 1.2; margin: .1em 0 .6em; }
h2 { font-size: 12.5pt; border-bottom: .6pt solid #111; margin: 1.6em 0 .6em; break-after: avoid; }
h2 small { float: right; font-weight: normal; font-size: 9pt; padding-top: .35em; }
table { border-collapse: collapse; width: 100%; }
.head th { text-align: left; font-weight: normal; width: 9em; color: #444; vertical-align: top; }
.head td { overflow-wrap: anywhere; }
.said { display: grid; grid-template-columns: 5em 1fr; margin: .25em 0; break-inside: avoid; }
.said p { margin: 0; overflow-wrap: anywhere; }
.said time { font-variant-numeric: tabular-nums; color: #444; }
.marked p { border-left: 2.5pt solid #111; padding-left: .6em; font-style: italic; }
.fact { margin: .1em 0 .1em 5em; overflow-wrap: anywhere; }
.fact span { color: #444; }
.fact span::after { content: ':'; }
.aloud { margin: .4em 0 .8em 5em; break-inside: avoid; }
.aloud code { font-size: 8.5pt; overflow-wrap: anywhere; }
.aloud ol { columns: 2; margin: .3em 0; padding-left: 1.6em; }
.signatures { break-before: auto; break-inside: avoid; }
.signatures th { text-align: left; font-weight: normal; color: #444; }
.signatures td { border-bottom: .6pt solid #111; height: 14mm; vertical-align: bottom; padding: 0 .5em 1mm 0; }
.signatures td:nth-child(1) { width: 30%; } .signatures td:nth-child(2) { width: 20%; } .signatures td:nth-child(4) { width: 15%; }
@media print { body { margin: 0; max-width: none; padding: 0; } }
";

fn aloud(digest: Digest) -> String {
    let lines = Words(digest).to_string();
    // The list numbers its lines itself.
    let lines = lines
        .lines()
        .map(|line| format!("<li>{}</li>", line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ')));
    format!("<div class=\"aloud\"><code>{digest}</code><ol>{}</ol></div>\n", lines.collect::<String>())
}

/// What people and tokens called things is text, and no markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn listed(names: &[Box<str>]) -> String {
    match names {
        [] => "Nobody".to_owned(),
        [one] => one.to_string(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `2026-11-28`.
fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// `05:41:07Z`.
fn hour(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}Z", text.get(11..19).unwrap_or_default())
}

/// Broken at blanks; its own line feeds stay.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}
