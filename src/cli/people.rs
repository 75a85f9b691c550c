//! Shell: `smkictl people`: who they are, and what they did.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::print::Text;
use super::{CliError, Context, Exit, file, input, ledger};
use crate::api::client::with_query;
use crate::api::wire::{self, Activity, Did};
use crate::domain::determination::people::{Person, Role};
use crate::domain::determination::prose::Prose;
use crate::domain::files::write_record;
use crate::domain::names::{PersonId, SecParty};
use crate::domain::policy::Policy;
use crate::domain::procedure::calendar::shown;
use crate::domain::time::Timestamp;

/// Show who the people are, and what they did.
#[derive(Subcommand, Debug)]
pub enum People {
    /// Show everyone whom the policy names, with appointment, credential and screening
    #[command(
        after_help = "Examples:\n  smkictl people list --role aro\n  smkictl people list --at 2026-06-01T00:00:00Z\n  \
        smkictl people list --policy keys-policy/"
    )]
    List(List),
    /// Show every entry that a person, or anybody of a Party, signed or asked for
    #[command(after_help = "Examples:\n  smkictl people activity aro-1\n  \
        smkictl people activity --party supplier-a --from 2026-01-01T00:00:00Z --csv > activity.csv")]
    Activity(ActivityArgs),
}

/// Arguments of `list`.
#[derive(Args, Debug)]
pub struct List {
    /// In this role only: pma-member, key-custodian, aro, operator or auditor
    #[arg(long, value_parser = role)]
    role: Option<Role>,
    /// Of those appointed at this moment only
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Of this policy; else of the one in force
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
}

/// Arguments of `activity`.
#[derive(Args, Debug)]
pub struct ActivityArgs {
    /// Who
    #[arg(value_name = "PERSON", required_unless_present = "party")]
    person: Option<PersonId>,
    /// Everyone of this Party under the policy in force
    #[arg(long, conflicts_with = "person")]
    party: Option<SecParty>,
    /// Recorded at this moment or later
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Recorded before this moment
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// As CSV, for a spreadsheet
    #[arg(long)]
    csv: bool,
}

fn role(text: &str) -> Result<Role, String> {
    let all = [Role::PmaMember, Role::KeyCustodian, Role::Aro, Role::Operator, Role::Auditor];
    all.into_iter()
        .find(|role| role.to_string() == text)
        .ok_or_else(|| "expected pma-member, key-custodian, aro, operator or auditor".to_owned())
}

impl People {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::List(list) => list.run(context).await,
            Self::Activity(activity) => activity.run(context).await,
        }
    }
}

/// The policy in a directory, or the one in force.
async fn policy(folder: Option<&Path>, context: &Context) -> Result<Policy, CliError> {
    if let Some(folder) = folder {
        return file::read_policy(folder);
    }
    let policy: wire::Policy = context.client.get("/v1/policy").await?;
    let files = policy.files.into_iter().map(|(path, octets)| (path, octets.0)).collect();
    Policy::parse(&files).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let path = "the policy in force".into();
        CliError::Input(input::InputError::Faulty { path, faults: faults.join("\n  ") })
    })
}

/// A person, as the list shows them.
#[derive(Serialize)]
struct Shown<'a> {
    person: &'a PersonId,
    name: &'a str,
    party: &'a SecParty,
    party_kind: Option<String>,
    roles: Vec<String>,
    from: Timestamp,
    until: Option<Timestamp>,
    appointed: Option<&'a str>,
    ceased: Option<&'a str>,
    credential: Option<String>,
    screening: Option<String>,
}

impl<'a> Shown<'a> {
    fn new(policy: &Policy, person: &'a Person) -> Self {
        let records = &person.records;
        let until = person.window.until;
        Self {
            person: &person.id,
            name: person.name.as_str(),
            party: &person.party,
            party_kind: policy.parties().get(&person.party).map(|party| party.kind.to_string()),
            roles: person.roles.iter().map(ToString::to_string).collect(),
            from: person.window.from,
            until: (until != Timestamp::MAX).then_some(until),
            appointed: records.appointed.as_ref().map(Prose::as_str),
            ceased: records.ceased.as_ref().map(Prose::as_str),
            credential: records.credential.map(|credential| credential.to_string()),
            screening: records
                .screening
                .as_ref()
                .map(|screening| format!("{}, {} of {}", screening.standard, screening.reference, screening.date)),
        }
    }

    fn show(&self, text: &mut Text) {
        let roles = self.roles.join(", ");
        text.row(self.person.as_str(), format!("{}, {}: {roles}", self.name, self.party));
        let until = self.until.map(|until| format!(" until {}", shown(until))).unwrap_or_default();
        text.row("", format!("from {}{until}", shown(self.from)));
        for (what, value) in [
            ("appointed by", self.appointed),
            ("ceased by", self.ceased),
            ("credential", self.credential.as_deref()),
            ("screened to", self.screening.as_deref()),
        ] {
            if let Some(value) = value {
                text.row("", format!("{what} {value}"));
            }
        }
    }
}

impl List {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { role, at, policy: folder } = self;
        let policy = policy(folder.as_deref(), context).await?;
        let is_asked_for = |person: &&Person| {
            role.is_none_or(|role| person.roles.contains(&role)) && at.is_none_or(|at| person.window.contains(at))
        };
        let people: Vec<Shown<'_>> =
            policy.people().persons().filter(is_asked_for).map(|person| Shown::new(&policy, person)).collect();
        context.print.answer(&people, |text| {
            for person in &people {
                person.show(text);
            }
            if people.is_empty() {
                text.line("There is nobody.");
            }
        })?;
        Ok(Exit::Done)
    }
}

const fn did(did: Did) -> &'static str {
    match did {
        Did::Signed => "signed",
        Did::Asked => "asked",
        Did::SignedAndAsked => "signed and asked",
    }
}

impl ActivityArgs {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { person, party, from: since, until, csv } = self;
        let persons = match (person, party) {
            (Some(person), _) => vec![person],
            (None, Some(party)) => {
                let policy = policy(None, context).await?;
                policy.people().persons().filter(|of| of.party == party).map(|of| of.id.clone()).collect()
            }
            (None, None) => Vec::new(), // clap asks for one of the two.
        };
        if csv {
            let mut header = String::new();
            write_record(["person", "entry", "time", "did", "kind", "event"], &mut header);
            context.print.octets(header.as_bytes())?;
        }
        for person in persons {
            let (mut from, mut any) = (None, false);
            loop {
                let path = with_query(
                    &format!("/v1/people/{person}/activity"),
                    &[
                        ("from", from.map(|index: u64| index.to_string())),
                        ("since", since.map(|at| at.to_string())),
                        ("until", until.map(|at| at.to_string())),
                    ],
                );
                let some: Activity = context.client.get(&path).await?;
                // A part of a long ledger may have nothing of the person.
                any |= !some.acts.is_empty();
                if !some.acts.is_empty() || (some.next.is_none() && !any) {
                    show(&some, csv, context)?;
                }
                match some.next {
                    Some(next) if from.is_none_or(|from| next > from) => from = Some(next),
                    Some(_) | None => break,
                }
            }
        }
        Ok(Exit::Done)
    }
}

fn show(some: &Activity, csv: bool, context: &Context) -> Result<(), CliError> {
    let person = some.person.as_str();
    if csv {
        let mut lines = String::new();
        for act in &some.acts {
            let (index, at) = (act.index.to_string(), act.at.to_string());
            write_record([person, &index, &at, did(act.did), &act.kind, act.event.get()], &mut lines);
        }
        context.print.octets(lines.as_bytes())?;
    } else {
        context.print.answer(some, |text| {
            for act in &some.acts {
                let what = ledger::told(act.event.get());
                let what = what.unwrap_or_else(|| format!("{}, as `smkictl ledger show` shows it", act.kind));
                let (at, did) = (shown(act.at), did(act.did));
                text.row(&format!("{person} {at}"), format!("{did}: {what}  [entry {}]", act.index));
            }
            if some.acts.is_empty() {
                text.line(&format!("{person} signed nothing and asked for nothing in that time."));
            }
        })?;
    }
    Ok(())
}
