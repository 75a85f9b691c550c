//! The minutes of a ceremony, made from its journal or from the transcript in the ledger: as text, and as one page that is printed and
//! signed by hand. Nothing is in them that the journal does not say.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::journal::{GO_ON, Line, SHALL_IT, What};
use super::plan::Capacity;
use crate::domain::determination::prose::Prose;
use crate::domain::determination::words::Words;
use crate::domain::ledger::transcript;
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
    /// Who was there, or was not, at the moment when the last of them was called.
    RollCall(Timestamp, Vec<(String, Capacity)>, Attendance),
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

/// What a roll-call found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attendance {
    Present,
    Absent,
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
    /// Names by the ids that the policy gives.
    names: BTreeMap<String, String>,
    /// The number of each step.
    numbers: BTreeMap<String, usize>,
    /// What was read aloud in the step, and needs not stand there twice.
    read: Vec<Digest>,
    /// The program that the session before ran.
    program: Option<String>,
}

impl Minutes {
    /// From the lines of a journal, or of the transcript in a ledger, and the octets that they lie in.
    pub fn of(lines: &[Line], octets: &[u8]) -> Self {
        let closed = lines.iter().any(|line| matches!(line.what, What::Closed {}));
        let transcript = Digest::of(transcript::of(lines, octets));
        let mut minutes = Self {
            title: String::new(),
            rehearsal: false,
            head: Vec::new(),
            items: Vec::new(),
            people: Vec::new(),
            transcript,
            closed,
            names: BTreeMap::new(),
            numbers: BTreeMap::new(),
            read: Vec::new(),
            program: None,
        };
        for line in lines {
            minutes.take(line);
        }
        if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
            let moment = |at: Timestamp| format!("{} {}", day(at), hour(at));
            minutes.head.push(("From".to_owned(), moment(first.at)));
            minutes.head.push((if closed { "Until" } else { "So far until" }.to_owned(), moment(last.at)));
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
                self.title = plain(title);
                self.rehearsal = *rehearsal;
                for (name, value) in [
                    ("Ceremony", format!("{kind}, {purpose}")),
                    ("Place", plain(place)),
                    ("Ledger", origin.to_string()),
                    ("Policy", policy.to_string()),
                    ("Plan", plan.to_string()),
                ] {
                    self.head.push((name.to_owned(), value));
                }
            }
            What::Session { number, account, program, interrupted } => {
                self.items.push(Item::Heading(Some(at), format!("Session {number}")));
                if let Some(step) = interrupted {
                    let step = plain(step);
                    self.mark(
                        at,
                        format!(
                            "The session before was cut off at \u{201c}{step}\u{201d}. The ceremony is resumed there."
                        ),
                    );
                }
                let program = plain(program);
                if self.program.as_ref() != Some(&program) {
                    self.say(at, format!("The program is {program}, run by the account {}.", plain(account)));
                    self.program = Some(program);
                }
            }
            What::Present { person, name, capacity } => {
                let name = plain(name);
                let shown = person.as_ref().map_or_else(|| name.clone(), |id| format!("{name} ({id})"));
                if let Some(id) = person {
                    self.names.insert(id.to_string(), name);
                }
                if !self.people.iter().any(|(other, as_what)| *other == shown && as_what == capacity) {
                    self.people.push((shown.clone(), *capacity));
                }
                self.call(at, (shown, *capacity), Attendance::Present);
            }
            What::Absent { name, capacity } => self.call(at, (plain(name), *capacity), Attendance::Absent),
            What::Begun { step, title, says } => self.begin(at, step, &plain(title), &plain(says)),
            What::Answered { step: _, asked, answer } => self.answer(at, &plain(asked), &plain(answer)),
            What::Read { step: _, what, sha256, compared } => {
                let compared: Vec<String> = compared.iter().map(|who| self.called(who)).collect();
                let text = format!(
                    "The SHA-256 of {} was read aloud in words; {} compared it and found the same:",
                    plain(what),
                    listed(&compared)
                );
                self.say(at, text);
                self.items.push(Item::Aloud(*sha256));
                self.read.push(*sha256);
            }
            What::Found { step: _, what } => self.mark(at, format!("Found: {}.", plain(what))),
            What::Done { step: _, facts } => {
                self.say(at, "Done.".to_owned());
                for (name, value) in facts {
                    // It stands above, in words.
                    if !self.read.iter().any(|digest| digest.to_string() == **value) {
                        self.items.push(Item::Fact(plain(name), plain(value)));
                    }
                }
            }
            What::Failed { step: _, why } => {
                self.mark(at, format!("The step was broken off: {}", sentence(&plain(why))));
            }
            What::Adjourned { step: _, why } => self.mark(at, format!("Adjourned: {}", sentence(&plain(why)))),
            What::Remark { step: _, text } => {
                let text = plain(text);
                self.mark(at, format!("On record: \u{201c}{}\u{201d}.", text.trim_end_matches('.')));
            }
            What::Closed {} => {
                self.items.push(Item::Heading(Some(at), "Close".to_owned()));
                self.say(at, "Every step was done, and the transcript was closed.".to_owned());
            }
            What::Recorded { entry } => self.say(at, format!("The ledger has it as entry {entry}.")),
        }
    }

    fn begin(&mut self, at: Timestamp, step: &str, title: &str, says: &str) {
        self.read.clear();
        let next = self.numbers.len() + 1;
        let number = *self.numbers.entry(step.to_owned()).or_insert(next);
        if number == next {
            self.items.push(Item::Heading(Some(at), format!("{number}. {title}")));
            self.say(at, format!("To be done: {says}"));
        } else {
            self.items.push(Item::Heading(Some(at), format!("{number}. {title} (continued)")));
        }
    }

    /// What is asked at each step and answered with yes needs no quotation.
    fn answer(&mut self, at: Timestamp, asked: &str, answer: &str) {
        let said = match (asked, answer) {
            (SHALL_IT, "yes") => "The conductor had it done.".to_owned(),
            (GO_ON, "yes") => "The conductor had it gone on with.".to_owned(),
            (asked, answer) => {
                format!("Asked: \u{201c}{asked}\u{201d} The conductor answered: \u{201c}{answer}\u{201d}.")
            }
        };
        self.say(at, said);
    }

    /// Who is called one after the other stands in one paragraph.
    fn call(&mut self, at: Timestamp, who: (String, Capacity), found: Attendance) {
        if let Some(Item::RollCall(last, people, attendance)) = self.items.last_mut()
            && *attendance == found
        {
            *last = at;
            people.push(who);
            return;
        }
        self.items.push(Item::RollCall(at, vec![who], found));
    }

    /// By name, where an id is meant.
    fn called(&self, who: &str) -> String {
        self.names.get(who).cloned().unwrap_or_else(|| plain(who))
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
                Item::Said(at, said, tone) => write_said(&mut text, *at, said, *tone),
                Item::RollCall(at, people, found) => {
                    write_said(&mut text, *at, &roll_call(people, *found), found.tone());
                }
                Item::Fact(name, value) => {
                    let folded = folded(&format!("{name}: {value}"), WIDTH - 15);
                    let _ = writeln!(text, "{:13}{}", "", folded.join(&format!("\n{:15}", "")));
                }
                Item::Aloud(digest) => {
                    let _ = writeln!(text, "{:13}{digest}", "");
                    for line in Words(*digest).to_string().lines() {
                        let _ = writeln!(text, "{:13}{line}", "");
                    }
                }
            }
        }
        let _ = writeln!(
            text,
            "\nTranscript{}, SHA-256 of its octets{}\n  {}",
            self.so_far(),
            self.kept(),
            self.transcript
        );
        for line in Words(self.transcript).to_string().lines() {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(
            text,
            "\nSigned, for the minutes of {:?}: we were there, and it was as it stands here",
            self.title
        );
        for (name, capacity) in &self.people {
            let _ = writeln!(text, "\n  {name}, {capacity}\n\n  {:_<44}  date {:_<16}", "", "");
        }
        text
    }

    const fn so_far(&self) -> &'static str {
        if self.closed { "" } else { " so far" }
    }

    /// Where the transcript lies.
    const fn kept(&self) -> &'static str {
        if self.closed && !self.rehearsal { ", as the ledger keeps them" } else { "" }
    }

    /// As one page for a browser or a printer, with nothing outside it.
    pub fn html(&self) -> String {
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en-GB\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Minutes: {}</title>\n<style>{STYLE}@page {{ @bottom-left {{ content: {}; font-size: 8pt; }} }}\n</style>\n</head>\n<body>\n",
            escaped(&self.title),
            css_string(&self.foot())
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
            let class = if value.len() == 64 { " class=\"digest\"" } else { "" };
            let _ =
                writeln!(page, "<tr><th scope=\"row\">{}</th><td{class}>{}</td></tr>", escaped(name), escaped(value));
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
                Item::Said(at, said, tone) => page.push_str(&said_html(*at, said, *tone)),
                Item::RollCall(at, people, found) => {
                    page.push_str(&said_html(*at, &roll_call(people, *found), found.tone()));
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
            "<section class=\"seal\">\n<h2>Transcript{}</h2>\n<p>SHA-256 of the octets from which this page was made{}:</p>\n{}</section>",
            self.so_far(),
            self.kept(),
            aloud(self.transcript)
        );
        let rehearsal = if self.rehearsal { "REHEARSAL. " } else { "" };
        let _ = write!(
            page,
            "<section class=\"signatures\">\n<h2>Signatures</h2>\n<p>{rehearsal}Minutes of \u{201c}{}\u{201d}, transcript <code>{}</code>.</p>\n",
            escaped(&self.title),
            self.transcript
        );
        page.push_str("<p>We were there, and it was as it stands here.</p>\n<table>\n<thead><tr><th>Name</th><th>Capacity</th><th>Signature</th><th>Date</th></tr></thead>\n<tbody>\n");
        for (name, capacity) in &self.people {
            let _ = writeln!(page, "<tr><td>{}</td><td>{capacity}</td><td></td><td></td></tr>", unbroken(name));
        }
        page.push_str("</tbody>\n</table>\n</section>\n</body>\n</html>\n");
        page
    }

    /// What stands at the foot of each page, so that no page is put under other minutes.
    fn foot(&self) -> String {
        let rehearsal = if self.rehearsal { "REHEARSAL \u{b7} " } else { "" };
        let digest = self.transcript.to_string();
        format!("{rehearsal}{} \u{b7} transcript{} {}\u{2026}", self.title, self.so_far(), &digest[..16])
    }
}

impl Attendance {
    const fn tone(self) -> Tone {
        match self {
            Self::Present => Tone::Plain,
            Self::Absent => Tone::Marked,
        }
    }
}

/// `Present: Ada Guest, witness; …`.
fn roll_call(people: &[(String, Capacity)], found: Attendance) -> String {
    let each: Vec<String> = people.iter().map(|(who, capacity)| format!("{who}, {capacity}")).collect();
    let what = match found {
        Attendance::Present => "Present",
        Attendance::Absent => "Absent",
    };
    format!("{what}: {}.", each.join("; "))
}

fn write_said(text: &mut String, at: Timestamp, said: &str, tone: Tone) {
    let mark = if tone == Tone::Marked { "*" } else { " " };
    let folded = folded(said, WIDTH - 13);
    let _ = writeln!(text, "{} {mark} {}", hour(at), folded.join(&format!("\n{:12}", "")));
}

fn said_html(at: Timestamp, said: &str, tone: Tone) -> String {
    let class = if tone == Tone::Marked { "said marked" } else { "said" };
    let said = unbroken(said).replace('\n', "<br>");
    format!("<div class=\"{class}\"><time datetime=\"{at}\">{}</time><p>{said}</p></div>\n", hour(at))
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
.head .digest, .signatures code { font: 8.5pt/1.6 monospace; white-space: nowrap; }
.said { display: grid; grid-template-columns: 6.2em 1fr; margin: .25em 0; break-inside: avoid; }
.said p { margin: 0; overflow-wrap: anywhere; }
.said time { font-variant-numeric: tabular-nums; color: #444; }
.marked p { border-left: 2.5pt solid #111; padding-left: .6em; font-style: italic; }
.fact { margin: .1em 0 .1em 6.2em; overflow-wrap: anywhere; break-before: avoid; }
.fact span { color: #444; }
.fact span::after { content: ':'; }
.aloud { margin: .4em 0 .8em 6.2em; break-inside: avoid; break-before: avoid; }
.unbroken { white-space: nowrap; }
.aloud code { font-size: 8.5pt; overflow-wrap: anywhere; }
.aloud ol { columns: 2; column-gap: 2em; font-size: 9.5pt; margin: .3em 0; padding-left: 1.6em; }
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

/// The same, with ids in brackets that are not broken at their hyphens.
fn unbroken(text: &str) -> String {
    let mut page = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, within)) = rest.split_once('(') {
        page.push_str(&escaped(before));
        let (id, after) = within.split_once(')').unwrap_or((within, ""));
        let is_id =
            within.len() > id.len() && !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !is_id {
            page.push('(');
            rest = within;
            continue;
        }
        let _ = write!(page, "<span class=\"unbroken\">({id})</span>");
        rest = after;
    }
    page.push_str(&escaped(rest));
    page
}

/// As CSS has strings: whatever could end it is written by its number.
fn css_string(text: &str) -> String {
    let mut string = String::from("\"");
    for character in text.chars() {
        if character.is_alphanumeric() || matches!(character, ' ' | '.' | ',' | '/' | '-' | '\u{b7}' | '\u{2026}') {
            string.push(character);
        } else {
            let _ = write!(string, "\\{:06x}", u32::from(character));
        }
    }
    string.push('"');
    string
}

/// Without what would hide or reorder what is shown: a transcript may come from anywhere, and is printed on a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|character| if Prose::may_have(character) { character } else { '\u{fffd}' }).collect()
}

/// With its full stop.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '?', '!']) { text.to_owned() } else { format!("{text}.") }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "nobody".to_owned(),
        [one] => one.clone(),
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
