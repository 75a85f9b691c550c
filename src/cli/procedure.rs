//! Shell: `smkictl procedure`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::input::InputError;
use super::print::Text;
use super::{CliError, Context, Exit, input};
use crate::api::client::with_query;
use crate::api::wire::{Explanation, Instant};
use crate::domain::names::IncidentId;
use crate::domain::policy::{Policy, PolicyError};
use crate::domain::procedure::calendar::shown;
use crate::domain::procedure::explain;
use crate::domain::procedure::explain::{MayWord, StandingWord, StepExplained, StepStanding};
use crate::domain::procedure::profile::Owed;
use crate::wall_clock::wall_clock;

/// The standings of a step, with their headings: what somebody has to do stands first.
const HEADINGS: [(&str, &str); 6] = [
    ("due", "DUE NOW"),
    ("permitted", "PERMITTED, and owed by nobody"),
    ("not-yet-due", "NOT YET DUE"),
    ("blocked", "BLOCKED"),
    ("not-required", "NOT REQUIRED in this incident"),
    ("done", "DONE"),
];

/// Explain which procedure is in force, and what it means for an incident.
#[derive(Subcommand, Debug)]
pub enum Procedure {
    /// Say which profile is in force at a moment, what each clause does, and each step; for an incident, what is due, by whom,
    /// and by which text
    #[command(after_help = "Examples:\n  smkictl procedure explain --at 2017-07-21 --policy keys-policy/\n  \
        smkictl procedure explain --incident INC-2017-07\n\n\
        A date is one of Europe/London, and stands for its first instant. With --policy no daemon is needed; extensions and \
        incidents are in the ledger, so only the daemon knows them.")]
    Explain(Explain),
}

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// A date of Europe/London, or a moment such as 2017-07-21T00:00:00Z; else now
    #[arg(long, value_name = "DATE|TIMESTAMP")]
    at: Option<Instant>,
    /// Say what it means for this incident, as it stands now
    #[arg(long, value_name = "ID")]
    incident: Option<IncidentId>,
    /// The directory of a policy, read here: no daemon is asked
    #[arg(long, value_name = "DIR", conflicts_with = "incident")]
    policy: Option<PathBuf>,
}

impl Procedure {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self::Explain(Explain { at, incident, policy }) = self;
        let explanation: Explanation = if let Some(folder) = policy {
            let files = input::policy(&folder)?;
            let faults = |faults: Vec<PolicyError>| {
                let faults = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
                InputError::Policy { path: folder.clone(), faults }
            };
            let policy = Policy::parse(&files).map_err(faults)?;
            policy.fit_for_new_use().map_err(|fault| faults(vec![fault]))?;
            let procedure = policy.procedure().into_iter();
            let at = at.map_or_else(wall_clock, Instant::moment);
            let mut explained = procedure.map(|procedure| explain(&procedure.in_force(at, &[]), None));
            explained.next().expect("a policy that is fit for new use has a procedure")
        } else {
            let parameters =
                [("at", at.map(|at| at.to_string())), ("incident", incident.as_ref().map(ToString::to_string))];
            context.client.get(&with_query("/v1/procedure", &parameters)).await?
        };
        context.print.answer(&explanation, |text| render(text, &explanation))?;
        Ok(Exit::Done)
    }
}

fn render(text: &mut Text, found: &Explanation) {
    text.line(&format!("PROCEDURE in force at {} ({} in London)", found.at, found.london));
    text.line(&format!("  profile {}: {}", found.base, found.title));
    text.line(&format!("  {}", found.document));
    for one in &found.variations {
        if found.incident.is_some() && one.standing != StandingWord::InForce {
            let (variation, standing, window) = (&one.variation, one.standing, &one.window);
            text.line(&format!("\nVARIATION {variation}: {standing}, alters nothing now ({window})"));
            continue;
        }
        text.line(&format!("\nVARIATION {}: {}", one.variation, one.standing));
        text.line(&format!("  {}", one.title));
        text.line(&format!("  {}", one.reference));
        let until = one.until.map_or_else(|| "open".to_owned(), |until| format!("over at {}", shown(until)));
        text.line(&format!("  {} (begins {}, {until})", one.window, shown(one.from)));
        for clause in &one.clauses {
            let has = if clause.has_effect { "" } else { " NO EFFECT at that moment." };
            text.line(&format!("  ({}){has} {}", clause.clause, clause.effect));
            text.line(&format!("      {}", clause.text));
        }
    }
    for one in &found.optional_factors {
        text.line(&format!("\nOPTIONAL FACTOR {}, never mandatory\n  {}", one.factor, one.text));
    }
    match &found.incident {
        None => {
            text.line("\nSTEPS");
            for step in &found.steps {
                step_lines(text, step);
            }
        }
        Some(incident) => {
            text.line(&format!("\nINCIDENT: {}; determination {}", incident.state, incident.determination));
            let may = |may: bool| if may { "may sign, once it is activated" } else { "may not sign" };
            text.line(&format!("  Recovery Private Key {}", may(incident.recovery_key_may_sign)));
            text.line(&format!("  Contingency Private Key {}", may(incident.contingency_key_may_sign)));
            for (word, heading) in HEADINGS {
                let mut theirs = found.steps.iter().filter(|step| is(step, word)).peekable();
                if theirs.peek().is_some() {
                    text.line(&format!("\n{heading}"));
                }
                for step in theirs {
                    step_lines(text, step);
                }
            }
            text.line("\n`smkictl incident next` says who does what now, with the commands; `incident show`, which duties are met.");
        }
    }
    text.line("\nDUTIES TO INFORM");
    for duty in &found.duties {
        let arisen = match duty.has_arisen {
            Some(true) => " (has arisen)",
            Some(false) => " (has not arisen)",
            None => "",
        };
        text.line(&format!("  {}: the {}, with {}{arisen}: {}", duty.duty, duty.to, duty.arises_with, duty.text));
    }
}

fn is(step: &StepExplained, word: &str) -> bool {
    step.standing.as_ref().is_some_and(|standing| standing.is == word)
}

fn step_lines(text: &mut Text, step: &StepExplained) {
    let actors: Vec<String> = step.actors.iter().map(ToString::to_string).collect();
    let labels: Vec<String> = step.labels.iter().map(|label| format!(" [{label}]")).collect();
    let owed = match step.owed {
        Owed::Must => "",
        Owed::May => ", optional",
    };
    let hours = step.hours.map_or_else(String::new, |hours| format!(", within {hours} h"));
    text.line(&format!("  {} ({}; {}{owed}{hours}){}", step.step, actors.join(" or "), step.phase, labels.concat()));
    match &step.standing {
        None => {
            text.line(&format!("      {}", step.text));
            if let Some(needs) = step.needs {
                text.line(&format!("      needs {needs}"));
            }
            for varied in &step.varied {
                text.line(&format!("      varied: {varied}"));
            }
        }
        Some(StepStanding { is, by, awaits, may_be_taken }) => {
            // What is over is only named.
            if is == "done" || is == "not-required" {
                text.line(&format!("      by {by}"));
                return;
            }
            text.line(&format!("      {}", step.text));
            if let Some(awaits) = awaits {
                text.line(&format!("      waits for {awaits}"));
            }
            match may_be_taken {
                MayWord::WithReason => {
                    text.line(
                        "      may be done before that, with a stated reason: the clause relieves, and forbids nothing",
                    );
                }
                MayWord::Yes if is == "not-yet-due" => {
                    text.line("      may be taken before: the clause relieves, and forbids nothing");
                }
                MayWord::Yes | MayWord::No => {}
            }
            text.line(&format!("      by {by}"));
        }
    }
}
