//! `ceremony run`: the plan, step by step. Each step says what it will do, asks, does it, and has what came of it read aloud.
//!
//! The journal is written before and after each step, and each step looks first whether it was done: so a run that was cut off
//! at any point is started again with the same command, and goes on at the step it was at.

mod generation;
mod record;
pub mod steps;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::desk::{Desk, STOP};
use super::journal::{self, GO_ON, Journal, Left, Line, SHALL_IT, What};
use super::keys::make_folder;
use super::minutes::Minutes;
use super::plan::{Against, Capacity, Kind, Person, Plan, check};
use super::rehearsal::Rehearsal;
use super::{CeremonyError, Custodians, Tokens, opened, pin_file, room};
use crate::cli::Exit;
use crate::cli::input;
use crate::cli::print::Printer;
use crate::domain::determination::words::Words;
use crate::domain::ledger::ceremonies::WITNESSES_MIN;
use crate::domain::names::{Digest, TokenName};
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::service::configuration::Configuration;
use crate::store::{Lock, StoreError};
use crate::wall_clock::wall_clock;

use steps::Step;

/// How often a word may be mistyped before the step is broken off.
const TRIES: usize = 3;
/// Words on a line, as [`Words`] shows them.
const LINE_WORDS: usize = 4;
/// What was heard is not what stands there.
const DIFFERS: &str = "differs";
/// What puts a remark on record.
const NOTE: &str = "note ";

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// The plan
    #[arg(value_name = "PLAN.toml")]
    plan: PathBuf,
    /// Rehearse: the same, on scratch tokens in SoftHSM that are destroyed at the end
    #[arg(long = "dry-run")]
    rehearse: bool,
    /// In an exercise only: answer from this file instead of the terminal
    #[arg(long, value_name = "ANSWERS.toml")]
    unattended: Option<PathBuf>,
    /// A file with the PIN of a token; in an exercise only. Else the configuration's, else it is asked for
    #[arg(long = "pin-file", value_name = "TOKEN=FILE", value_parser = pin_file)]
    pin_files: Vec<(TokenName, PathBuf)>,
    /// A file with the PIN of a token's security officer; in an exercise only. Else it is asked for, where it is needed
    #[arg(long = "so-pin-file", value_name = "TOKEN=FILE", value_parser = pin_file)]
    so_pin_files: Vec<(TokenName, PathBuf)>,
    #[command(flatten)]
    custodians: Custodians,
}

/// Why a step went no further.
enum Halt {
    /// People rise, in good order.
    Adjourned(String),
    /// Something is wrong.
    Fault(CeremonyError),
}

impl<E: Into<CeremonyError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// Names and values of what came of a step.
type Facts = Vec<(Box<str>, Box<str>)>;

/// A ceremony that goes on.
struct Conduct {
    plan: Plan,
    policy: Policy,
    configuration: Configuration,
    tokens: TokensOf,
    out: PathBuf,
    journal: Journal,
    desk: Desk,
    /// What the clock said when it was agreed upon, before the ceremony was opened.
    clock: Option<Timestamp>,
    present: Vec<Person>,
    rehearsal: Option<Rehearsal>,
    print: Printer,
}

/// [`Tokens`], made anew for each step.
struct TokensOf {
    config: PathBuf,
    pin_files: Vec<(TokenName, PathBuf)>,
    so_pin_files: Vec<(TokenName, PathBuf)>,
    custodians: Custodians,
}

impl TokensOf {
    fn tokens(&self) -> Tokens {
        Tokens {
            config: self.config.clone(),
            pin_files: self.pin_files.clone(),
            so_pin_files: self.so_pin_files.clone(),
            custodians: self.custodians.clone(),
        }
    }
}

/// What `run` answers.
#[derive(Serialize)]
struct Answer {
    plan: Digest,
    rehearsal: bool,
    /// The step it stands at; none once it is over.
    adjourned_at: Option<String>,
    why: Option<String>,
    /// SHA-256 of the transcript, once it is over.
    transcript: Option<Digest>,
    /// The entry that records it.
    entry: Option<u64>,
    journal: PathBuf,
    minutes: Vec<PathBuf>,
}

impl Run {
    pub(super) fn run(self, print: Printer) -> Result<Exit, CeremonyError> {
        let plan = Plan::read(&self.plan)?;
        let (policy, _) = room::read_policy(&plan.policy())?;
        let configuration = Configuration::read(&plan.configuration())?;
        if self.rehearse && plan.kind != Kind::First {
            return Err(CeremonyError::Rehearsal(format!(
                "only a first ceremony is rehearsed: a {} ceremony is about keys that no scratch token has",
                plan.kind
            )));
        }
        let journal = if self.rehearse { Rehearsal::out_beside(&plan.out()) } else { plan.out() };
        let begun = journal::opened(&journal, plan.digest())?;
        let at = begun.unwrap_or_else(|| wall_clock().plus_ms(configuration.clock_offset_ms));
        let ledger = opened::read(&configuration)?;
        let begun = begun.is_some();
        let against = Against { policy: &policy, configuration: &configuration, ledger: ledger.as_ref(), at, begun };
        let faults = check(&plan, against);
        drop(ledger);
        if !faults.is_empty() {
            return Err(CeremonyError::Plan { path: self.plan.clone(), faults });
        }
        if matches!(plan.kind, Kind::Renewal | Kind::NewKey) {
            // These want the ledger for themselves, and say so before anything is done.
            drop(Lock::take(&configuration.state)?);
        }
        let desk = match &self.unattended {
            None => Desk::terminal()?,
            Some(path) => Desk::file(path, policy.purpose())?,
        };
        let mut tokens = TokensOf {
            config: plan.configuration(),
            pin_files: self.pin_files,
            so_pin_files: self.so_pin_files,
            custodians: self.custodians,
        };
        let (mut out, mut rehearsal, mut configuration) = (plan.out(), None, configuration);
        if self.rehearse {
            let scratch = Rehearsal::enter(&out, &policy, &configuration)?;
            out = scratch.out();
            tokens.config = scratch.configuration();
            if self.unattended.is_some() {
                tokens.pin_files = scratch.pin_files();
                tokens.so_pin_files = scratch.so_pin_files();
            }
            configuration = Configuration::read(&tokens.config)?;
            rehearsal = Some(scratch);
        }
        make_folder(&out)?;
        // Two of these at once would write one journal.
        let _lock = Lock::take(&out).map_err(|fault| match fault {
            StoreError::Locked { path: _, pid } => CeremonyError::Busy { out: out.clone(), pid },
            other => other.into(),
        })?;
        let journal = Journal::open(&out)?;
        let (clock, present) = (None, Vec::new());
        let mut conduct =
            Conduct { plan, policy, configuration, tokens, out, journal, desk, clock, present, rehearsal, print };
        conduct.run()
    }
}

impl Conduct {
    fn now(&self) -> Timestamp {
        wall_clock().plus_ms(self.configuration.clock_offset_ms)
    }

    fn write(&mut self, what: What) -> Result<(), CeremonyError> {
        let at = self.now();
        self.journal.write(at, what)
    }

    fn run(&mut self) -> Result<Exit, CeremonyError> {
        self.open()?;
        if let Some(scratch) = &self.rehearsal {
            if matches!(self.desk, Desk::Terminal) {
                scratch.tell_pins()?;
            }
            self.print.warning(&format!(
                "REHEARSAL: scratch tokens in {}; they are destroyed at the end, and nothing made on them is ever used",
                scratch.folder().display()
            ));
        }
        let steps = Step::of(&self.plan);
        let mut adjourned = None;
        if self.journal.recorded().is_none() {
            adjourned = self.session(&steps)?;
        }
        if adjourned.is_none()
            && let Some(scratch) = self.rehearsal.take()
        {
            scratch.destroy(&self.plan.out())?;
            self.print.note("The scratch tokens are destroyed.");
        }
        for id in self.desk.unused() {
            self.print.warning(&format!("no question is named {id:?}; that answer was not used"));
        }
        self.tell(adjourned)
    }

    /// The first line, once another clock agrees; or the journal that stands is of this plan.
    fn open(&mut self) -> Result<(), CeremonyError> {
        let rehearsal = self.rehearsal.is_some();
        if self.journal.lines().is_empty() {
            // Opened by a clock that is ahead, it would be over before it began once that is set, and the ledger takes none such.
            self.clock = Some(self.ask_clock().map_err(|halt| match halt {
                Halt::Adjourned(why) => CeremonyError::NotOpened { why },
                Halt::Fault(fault) => fault,
            })?);
            let opened = What::Opened {
                plan: self.plan.digest(),
                kind: self.plan.kind,
                title: self.plan.title.as_str().into(),
                place: self.plan.place.get_ref().as_str().into(),
                purpose: self.policy.purpose(),
                origin: self.policy.origin().clone(),
                policy: self.policy.digest(),
                when_interrupted: self.plan.when_interrupted.as_str().into(),
                rehearsal,
            };
            return self.write(opened);
        }
        is_of(&self.plan, &self.out, self.journal.lines(), rehearsal)
    }

    /// One sitting. At which step it was adjourned, and why, if it was.
    fn session(&mut self, steps: &[Step]) -> Result<Option<(String, String)>, CeremonyError> {
        let interrupted = self.journal.interrupted().filter(|_| self.journal.sessions() > 0);
        let (number, left) = (self.journal.sessions() + 1, self.journal.left().filter(|_| self.clock.is_none()));
        if let Some(step) = &interrupted {
            self.print.warning(&format!("the ceremony was interrupted at: {step}. It goes on there"));
        }
        let account = room::conductor().account;
        let program = program()?.into();
        self.write(What::Session { number, account, program, interrupted: interrupted.clone() })?;
        let cut_off = interrupted.is_some();
        match self.roll_call().and_then(|()| self.ask_cause(cut_off)).and_then(|()| self.compare_left(left.as_ref())) {
            Ok(()) => {}
            Err(Halt::Fault(fault)) => return Err(fault),
            Err(Halt::Adjourned(why)) => return self.adjourn("roll-call", "The roll-call", why).map(Some),
        }
        let count = steps.len();
        for (at, step) in steps.iter().enumerate() {
            let id = step.id();
            if self.journal.is_done(&id) {
                continue;
            }
            match self.step(step, at + 1, count) {
                Ok(()) => {}
                Err(Halt::Adjourned(why)) => return self.adjourn(&id, &step.title(), why).map(Some),
                Err(Halt::Fault(fault)) => return Err(self.fail(&id, fault)),
            }
        }
        if !self.journal.is_closed() {
            self.write(What::Closed {})?;
        }
        match self.seal() {
            Ok(()) => Ok(None),
            Err(Halt::Fault(fault)) => Err(self.fail("closing", fault)),
            Err(Halt::Adjourned(why)) => self.adjourn("closing", "The transcript is compared", why).map(Some),
        }
    }

    /// Something is wrong: people rise, and find out.
    fn fail(&mut self, step: &str, fault: CeremonyError) -> CeremonyError {
        if let Err(unwritten) = self.write(What::Failed { step: step.into(), why: fault.to_string().into() }) {
            return unwritten;
        }
        let remedy = fault.remedy();
        let (source, journal) = (Box::new(fault), Words(Digest::of(self.journal.octets())));
        CeremonyError::Failed { source, remedy, journal }
    }

    /// The ledger has the transcript that those who were there have compared, and no other.
    fn seal(&mut self) -> Result<(), Halt> {
        let (_, written) = self.write_minutes()?;
        let written = written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        self.print.note(&format!(
            "\nThe transcript is closed. It is what the ledger keeps. What it says is in the minutes, with its words at their foot; read them \
             before you compare:\n  {written}"
        ));
        self.read_aloud("closing", "the transcript", Digest::of(self.journal.transcript()))?;
        if self.rehearsal.is_none() {
            self.record()?;
        }
        Ok(())
    }

    /// The minutes say why the session before was cut off.
    fn ask_cause(&mut self, cut_off: bool) -> Result<(), Halt> {
        if !cut_off {
            return Ok(());
        }
        let asked = "What interrupted the session before?";
        let answer = self.until("roll-call", "roll-call/cause", &format!("  {asked}"), "not known", |_| Ok(()))?;
        Ok(self.write(What::Answered { step: "roll-call".into(), asked: asked.into(), answer: answer.into() })?)
    }

    /// Whoever can write the journal could have written it anew since people rose, also without a word of that they did: so what they
    /// noted then is compared, and where it says that they were cut off it is on record whether anybody noted otherwise.
    fn compare_left(&mut self, left: Option<&Left>) -> Result<(), Halt> {
        let Some(&Left { rose, cut_off }) = left else { return Ok(()) };
        if let Some((at, digest)) = rose {
            self.print.note("Compare the journal with what you noted when you rose.");
            self.read_aloud("roll-call", &format!("the journal, as it was when the ceremony rose at {at}"), digest)?;
        }
        let Some((at, digest)) = cut_off else { return Ok(()) };
        self.print.note(&format!(
            "The journal says that it was cut off at {at}, and that nobody rose in good order after that. As it was then:\n  SHA-256 {digest}\n    {}",
            Words(digest).to_string().replace('\n', "\n    ")
        ));
        let asked = "Did anybody note the journal's words when you last rose, and were they not asked for yet?";
        let noted = self.choose("roll-call", "roll-call/noted", &format!("  {asked}"), "no", &["yes", "no"])?;
        if noted == "yes" {
            return self.read_aloud(
                "roll-call",
                &format!("the journal, as it was when it was cut off at {at}"),
                digest,
            );
        }
        let answer = format!("no; as it was when it was cut off at {at}, SHA-256 {digest}, it was not compared");
        Ok(self.write(What::Answered { step: "roll-call".into(), asked: asked.into(), answer: answer.into() })?)
    }

    /// Says what everyone takes along.
    fn have_noted(&self) {
        let digest = Digest::of(self.journal.octets());
        self.print.note(&format!(
            "Before you rise, everyone notes these words: they are the journal's as it is now, and are compared before it is gone on with.\n  \
             SHA-256 {digest}\n    {}",
            Words(digest).to_string().replace('\n', "\n    ")
        ));
    }

    fn adjourn(&mut self, step: &str, title: &str, why: String) -> Result<(String, String), CeremonyError> {
        self.write(What::Adjourned { step: step.into(), why: why.as_str().into() })?;
        self.have_noted();
        Ok((title.to_owned(), why))
    }

    /// Who is there, and what time it is.
    fn roll_call(&mut self) -> Result<(), Halt> {
        let kind = if self.rehearsal.is_some() { "A REHEARSAL of this ceremony" } else { "The ceremony" };
        self.print.note(&format!(
            "{kind}: {}\n  {}, {}\nRoll-call. Answer `present` or `absent` for each.",
            self.plan.title,
            self.plan.place.get_ref(),
            self.now()
        ));
        let agreed = self.clock.take();
        if let Some(clock) = agreed {
            self.write_clock(clock)?;
        }
        let expected: Vec<Person> = self.plan.persons().cloned().collect();
        for person in expected {
            let id = format!("roll-call/{}", person.handle());
            let question = format!("  {person}, {}?", person.capacity);
            let (name, capacity) = (person.name.as_str().into(), person.capacity);
            match self.choose("roll-call", &id, &question, "present", &["present", "absent"])?.as_str() {
                "present" => {
                    self.write(What::Present { person: person.id.clone(), name, capacity })?;
                    self.present.push(person);
                }
                _ => self.write(What::Absent { name, capacity })?,
            }
        }
        let conductor = self.present.iter().any(|person| person.capacity == Capacity::Conductor);
        let witnesses = self.witnesses().count();
        if !conductor || witnesses < WITNESSES_MIN {
            return Err(Halt::Adjourned(format!(
                "the conductor and at least {WITNESSES_MIN} who bear witness (witness, auditor, PMA member) must be there; found {}, and \
                 {witnesses} of them",
                if conductor { "the conductor" } else { "no conductor" }
            )));
        }
        if agreed.is_none() {
            let clock = self.ask_clock()?;
            self.write_clock(clock)?;
        }
        Ok(())
    }

    /// What this machine's clock says, if another says the same.
    fn ask_clock(&mut self) -> Result<Timestamp, Halt> {
        let now = self.now();
        let question = format!("  This machine's clock says {now}. Does another clock say the same, to the minute?");
        match self.choose("roll-call", "roll-call/clock", &question, "yes", &["yes", "no"])?.as_str() {
            "yes" => Ok(now),
            _ => Err(Halt::Adjourned("the machine's clock is wrong: set it, then go on".to_owned())),
        }
    }

    fn write_clock(&mut self, agreed: Timestamp) -> Result<(), CeremonyError> {
        let asked = format!("The machine's clock said {agreed}; does another clock agree?").into();
        self.write(What::Answered { step: "roll-call".into(), asked, answer: "yes".into() })
    }

    /// Those who bear witness.
    fn witnesses(&self) -> impl Iterator<Item = &Person> {
        self.present.iter().filter(|person| person.capacity.bears_witness())
    }

    fn step(&mut self, step: &Step, number: usize, count: usize) -> Result<(), Halt> {
        let (id, title, says) = (step.id(), step.title(), self.says(step));
        self.print.note(&format!("\nStep {number} of {count}: {title}\n  {}", says.replace('\n', "\n  ")));
        let again = self.journal.begun(&id) > 0;
        self.write(What::Begun { step: id.as_str().into(), title: title.as_str().into(), says: says.as_str().into() })?;
        let question = if again { GO_ON } else { SHALL_IT };
        self.go(&id, "go", question)?;
        let facts = self.perform(step)?;
        for (name, value) in &facts {
            self.print.note(&format!("  {name}: {value}"));
        }
        self.write(What::Done { step: id.into(), facts })?;
        self.print.note("Done.");
        Ok(())
    }

    /// Asks whether to go on: `yes`, `stop`, or first `note TEXT`, as often as there is something to note.
    fn go(&mut self, step: &str, name: &str, question: &str) -> Result<(), Halt> {
        let id = format!("{step}/{name}");
        self.choose(step, &id, question, "yes", &["yes"])?;
        Ok(self.write(What::Answered { step: step.into(), asked: question.into(), answer: "yes".into() })?)
    }

    /// One of `choices`, asked until it is.
    fn choose(
        &mut self,
        step: &str,
        id: &str,
        question: &str,
        expected: &str,
        choices: &[&str],
    ) -> Result<String, Halt> {
        let note = if self.journal.lines().is_empty() { String::new() } else { format!(", {NOTE}TEXT") };
        let question = format!("{question} [{}, {STOP}{note}]", choices.join(", "));
        self.until(step, id, &question, expected, |answer| {
            if choices.contains(&answer) { Ok(()) } else { Err(format!("expected {}", choices.join(" or "))) }
        })
    }

    /// Asks until `judge` takes the answer; `stop` adjourns, `note TEXT` goes on record, once there is one. A file that answers wrongly is wrong.
    fn until(
        &mut self,
        step: &str,
        id: &str,
        question: &str,
        expected: &str,
        judge: impl Fn(&str) -> Result<(), String>,
    ) -> Result<String, Halt> {
        loop {
            let answer = self.desk.ask(id, question, expected)?;
            if answer == STOP {
                return Err(Halt::Adjourned("the conductor stopped here".to_owned()));
            }
            if let Some(text) = answer.strip_prefix(NOTE).filter(|_| !self.journal.lines().is_empty()) {
                self.write(What::Remark { step: step.into(), text: text.trim().into() })?;
                self.print.note("That is on record.");
                if matches!(self.desk, Desk::Terminal) {
                    continue;
                }
                return Ok(expected.to_owned());
            }
            match judge(&answer) {
                Ok(()) => return Ok(answer),
                Err(why) if matches!(self.desk, Desk::Terminal) => {
                    self.print.note(&format!("  {why}; found {answer:?}"));
                }
                Err(why) => {
                    return Err(CeremonyError::Answer { question: id.to_owned(), why, found: answer }.into());
                }
            }
        }
    }

    /// Has a digest read aloud as words and compared; by whom goes on record.
    fn read_aloud(&mut self, step: &str, what: &str, sha256: Digest) -> Result<(), Halt> {
        let words = Words(sha256).to_string();
        self.print
            .note(&format!("  {what}: SHA-256 {sha256}\n  To be read aloud:\n    {}", words.replace('\n', "\n    ")));
        let line = 1 + usize::from(sha256.octets()[0]) % (Digest::LEN / LINE_WORDS);
        let word = Words(sha256).iter().nth(line * LINE_WORDS - 1).unwrap_or_default();
        let others: Vec<Person> =
            self.present.iter().filter(|person| person.capacity != Capacity::Conductor).cloned().collect();
        let named = |name: &str| {
            let is = |person: &&Person| {
                [person.handle(), person.name.as_str()].iter().any(|known| known.eq_ignore_ascii_case(name.trim()))
            };
            others.iter().find(is)
        };
        let first = self.witnesses().next().map(|person| person.handle().to_owned()).unwrap_or_default();
        let shown: Vec<String> = others.iter().map(ToString::to_string).collect();
        let question = format!(
            "  Who compared it, besides the conductor? Names or ids, with commas between; `{DIFFERS}` if what was heard is not what stands \
             there. [{}]",
            shown.join(", ")
        );
        let compared = self.until(step, &format!("{step}/compared"), &question, &first, |answer| {
            if answer == DIFFERS {
                return Ok(());
            }
            if let Some(name) = answer.split(',').find(|name| named(name).is_none()) {
                return Err(format!("{:?} is nobody who is here; names or ids, with commas between", name.trim()));
            }
            if answer.split(',').filter_map(named).any(|person| person.capacity.bears_witness()) {
                return Ok(());
            }
            Err("expected at least one who bears witness (witness, auditor, PMA member) among them".to_owned())
        })?;
        let differs = || CeremonyError::WordsDiffer { what: what.to_owned() };
        if compared == DIFFERS {
            return Err(differs().into());
        }
        let question =
            format!("  The last word of line {line}? [`{DIFFERS}` if what was heard is not what stands there]");
        let mut tries = 0;
        loop {
            let heard = self.until(step, &format!("{step}/word"), &question, word, |_| Ok(()))?;
            if heard.eq_ignore_ascii_case(word) {
                break;
            }
            tries += 1;
            if heard == DIFFERS || tries >= TRIES || !matches!(self.desk, Desk::Terminal) {
                return Err(differs().into());
            }
            self.print.note(&format!("  {heard:?} is not the last word of line {line}"));
        }
        let compared = compared.split(',').filter_map(named).map(|person| person.handle().into()).collect();
        Ok(self.write(What::Read { step: step.into(), what: what.into(), sha256, compared })?)
    }

    /// Something of an attempt before was there.
    fn found(&mut self, step: &str, what: String) -> Result<(), CeremonyError> {
        self.print.note(&format!("  Found: {what}"));
        self.write(What::Found { step: step.into(), what: what.into() })
    }

    /// Where it is written: the plan's `out`, or while it lasts that of the rehearsal.
    fn folder(&self) -> PathBuf {
        if self.out.is_dir() { self.out.clone() } else { self.plan.out() }
    }

    /// Writes the minutes, as far as they go, into the files that it names.
    fn write_minutes(&self) -> Result<(Minutes, Vec<PathBuf>), CeremonyError> {
        let minutes = Minutes::of(self.journal.lines(), self.journal.octets());
        let folder = self.folder();
        let stem = if minutes.is_rehearsal() { "minutes-of-rehearsal" } else { "minutes" };
        let files = [(format!("{stem}.txt"), minutes.text()), (format!("{stem}.html"), minutes.html())];
        let mut written = Vec::new();
        for (name, text) in files {
            let path = folder.join(name);
            room::replace(&path, text.as_bytes())?;
            written.push(path);
        }
        Ok((minutes, written))
    }

    /// Says how it stands, and writes the minutes.
    fn tell(&self, adjourned: Option<(String, String)>) -> Result<Exit, CeremonyError> {
        let (minutes, written) = self.write_minutes()?;
        let over = adjourned.is_none();
        let (adjourned_at, why) = adjourned.unzip();
        let answer = Answer {
            plan: self.plan.digest(),
            rehearsal: minutes.is_rehearsal(),
            adjourned_at,
            why,
            transcript: over.then(|| Digest::of(self.journal.transcript())),
            entry: self.journal.recorded(),
            journal: self.folder().join(journal::JOURNAL),
            minutes: written,
        };
        self.print.answer(&answer, |text| {
            match (&answer.adjourned_at, &answer.why) {
                (Some(at), Some(why)) => text.row("adjourned at", at).row("because", why),
                _ => text.row("ceremony", "over"),
            };
            text.some("transcript SHA-256", answer.transcript)
                .some("recorded", answer.entry.map(|entry| format!("entry {entry}")));
            for path in &answer.minutes {
                text.row("minutes", path.display());
            }
        })?;
        if over {
            self.print.note("Next: print the minutes, and have everyone sign them.");
            Ok(Exit::Done)
        } else {
            self.print.note("Next: start the same command again; it goes on at this step.");
            Ok(Exit::Partly)
        }
    }
}

/// Whether a journal that stands is that of the plan, on scratch tokens or not.
pub fn is_of(plan: &Plan, out: &Path, lines: &[Line], rehearsal: bool) -> Result<(), CeremonyError> {
    let (out, expected, first) = (out.to_owned(), plan.digest(), plan.kind == Kind::First);
    match lines.first().map(|line| &line.what) {
        // Not opened yet: another clock did not agree.
        None => Ok(()),
        Some(What::Opened { plan, rehearsal: theirs, .. }) if *plan == expected && *theirs == rehearsal => Ok(()),
        Some(What::Opened { plan, rehearsal: theirs, .. }) if *plan == expected => {
            Err(CeremonyError::OtherTokens { out, rehearsal: *theirs })
        }
        Some(What::Opened { plan, .. }) => Err(CeremonyError::OtherPlan { out, found: *plan, expected, first }),
        Some(_) => Err(CeremonyError::OtherPlan { out, found: Digest::of(&[]), expected, first }),
    }
}

/// Version and digest of this program.
fn program() -> Result<String, CeremonyError> {
    let octets = input::file(&std::env::current_exe()?, u64::MAX - 1)?;
    Ok(format!("smkictl {}, SHA-256 {}", env!("CARGO_PKG_VERSION"), Digest::of(&octets)))
}
