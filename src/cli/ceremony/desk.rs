//! Who is asked during a ceremony: whoever sits at the terminal, or in an exercise a file of answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use serde::Deserialize;

use super::CeremonyError;
use crate::cli::input;
use crate::domain::names::Purpose;

/// What ends a session in good order.
pub const STOP: &str = "stop";
/// The version of a file of answers.
const VERSION: u32 = 1;

/// `ANSWERS.toml`: what an exercise answers. A question is named as the run prints it when it was answered so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answers {
    version: u32,
    purpose: Purpose,
    /// What is answered to questions that are not named.
    otherwise: Otherwise,
    #[serde(default, rename = "answers")]
    named: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Otherwise {
    /// What the question expects.
    AsExpected,
    /// `stop`: the ceremony is adjourned there.
    Stop,
}

/// Where questions go.
pub enum Desk {
    /// A person.
    Terminal,
    /// A file, in an exercise.
    File {
        /// Its answers, by question.
        answers: BTreeMap<String, String>,
        /// Those that were used.
        used: BTreeSet<String>,
        /// What to answer otherwise; the expected, if none.
        otherwise: Option<&'static str>,
    },
}

impl Desk {
    /// The terminal, which must be one.
    pub fn terminal() -> Result<Self, CeremonyError> {
        if io::stdin().is_terminal() { Ok(Self::Terminal) } else { Err(CeremonyError::NobodyThere) }
    }

    /// A file of answers. Refused unless everything is an exercise.
    pub fn file(path: &Path, purpose: Purpose) -> Result<Self, CeremonyError> {
        let text = input::text(path, input::DOCUMENT_LEN_MAX)?;
        let wrong = |why: String| CeremonyError::Answers { path: path.to_owned(), why };
        let Answers { version, purpose: theirs, otherwise, named: answers } =
            toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        if version != VERSION {
            return Err(wrong(format!("expected version = {VERSION}, found {version}")));
        }
        match (purpose, theirs) {
            (Purpose::Exercise, Purpose::Exercise) => {}
            (Purpose::Live, _) | (_, Purpose::Live) => return Err(CeremonyError::Unattended),
        }
        let otherwise = match otherwise {
            Otherwise::AsExpected => None,
            Otherwise::Stop => Some(STOP),
        };
        Ok(Self::File { answers, used: BTreeSet::new(), otherwise })
    }

    /// Asks `question`, which files call `id`. `expected` is what a file answers that does not name it. Nothing but blanks at a terminal
    /// is asked again; its end is `stop`.
    pub fn ask(&mut self, id: &str, question: &str, expected: &str) -> Result<String, CeremonyError> {
        match self {
            Self::File { answers, used, otherwise, .. } => {
                used.insert(id.to_owned());
                let answer = answers.get(id).map_or_else(|| otherwise.unwrap_or(expected).to_owned(), Clone::clone);
                say(&format!("{question} [{id}] {answer}\n"))?;
                Ok(answer)
            }
            Self::Terminal => loop {
                say(&format!("{question} "))?;
                let mut line = String::new();
                if io::stdin().lock().read_line(&mut line)? == 0 {
                    say("\n")?;
                    return Ok(STOP.to_owned());
                }
                let answer = line.trim();
                if !answer.is_empty() {
                    return Ok(answer.to_owned());
                }
            },
        }
    }

    /// Answers of a file that no question asked for: a name that was misspelt.
    pub fn unused(&self) -> Vec<&str> {
        match self {
            Self::Terminal => Vec::new(),
            Self::File { answers, used, .. } => {
                answers.keys().filter(|id| !used.contains(*id)).map(String::as_str).collect()
            }
        }
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    stderr.write_all(text.as_bytes())?;
    stderr.flush()
}
