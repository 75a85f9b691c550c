//! `ceremony plan`, `check` and `transcript`: what needs no token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::conduct;
use super::contingency::{self, Ids};
use super::journal::{self, JOURNAL};
use super::keys::draw_id;
use super::minutes::Minutes;
use super::plan::{self, Against, Beginnings, Holder, Kind, Plan};
use super::{CeremonyError, opened, room};
use crate::cli::Change;
use crate::cli::input;
use crate::cli::print::Printer;
use crate::cli::release::write_new;
use crate::domain::determination::words::Words;
use crate::domain::ledger::transcript::TRANSCRIPT_LEN_MAX;
use crate::domain::names::Digest;
use crate::service::configuration::{self, Configuration};
use crate::wall_clock::wall_clock;

/// Arguments of `plan`.
#[derive(Args, Debug)]
pub struct Draft {
    /// What the ceremony is for
    #[arg(long, value_parser = kind(), default_value = "first")]
    kind: Kind,
    /// The directory with the policy's files
    #[arg(long, value_name = "DIR")]
    policy: PathBuf,
    /// The configuration of smkid: state directory and tokens
    #[arg(long, value_name = "FILE", default_value = configuration::PATH)]
    config: PathBuf,
    /// Who conducts it: an id of the policy, or a name
    #[arg(long, value_name = "WHO")]
    conductor: String,
    /// Who bears witness: an id of the policy, or a name; once for each
    #[arg(long = "witness", value_name = "WHO")]
    witnesses: Vec<String>,
    /// Where the plan goes
    #[arg(long, value_name = "PLAN.toml")]
    out: PathBuf,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// The plan
    #[arg(value_name = "PLAN.toml")]
    plan: PathBuf,
}

/// Arguments of `transcript`.
#[derive(Args, Debug)]
pub struct Transcript {
    /// A journal, a transcript of an export (blobs/sha256/…), or the folder with the journal
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Write the printable page here, too
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
}

/// A kind by its name, of which the help lists all.
fn kind() -> impl TypedValueParser<Value = Kind> {
    let named = |text: String| Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or("no such ceremony");
    PossibleValuesParser::new(Kind::ALL.map(Kind::as_str)).try_map(named)
}

impl Draft {
    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let (policy, _) = room::read_policy(&self.policy)?;
        let configuration = Configuration::read(&self.config)?;
        let at = wall_clock().plus_ms(configuration.clock_offset_ms);
        // Keys that stand keep their CKA_ID.
        let ledger = opened::read(&configuration)?;
        let standing = ledger.iter().flat_map(|fold| fold.keys().values());
        let standing: BTreeMap<_, _> = standing.map(|key| (key.record.label.clone(), key.record.id)).collect();
        // The plan is read from where it lies.
        let (policy_path, config_path) = (std::path::absolute(&self.policy)?, std::path::absolute(&self.config)?);
        let mut drawn = Vec::new();
        for key in policy.keys() {
            drawn.push(match standing.get(&key.label) {
                Some(id) => (key.label.clone(), *id),
                None => (key.label.clone(), draw_id()?),
            });
        }
        let mut material = BTreeMap::new();
        for key in policy.keys().filter(|key| contingency::is_wanted(key)) {
            material.insert(key.label.clone(), Ids { symmetric: draw_id()?, wrapping: draw_id()? });
        }
        let beginnings = Beginnings {
            material,
            kind: self.kind,
            policy: &policy_path,
            configuration: &config_path,
            conductor: &self.conductor,
            witnesses: &self.witnesses,
            standing: standing.keys().cloned().collect(),
            at,
        };
        let text = plan::template(&policy, &beginnings, &drawn.into_iter().collect());
        if self.change.dry_run {
            print.octets(text.as_bytes())?;
            print.note("Nothing was written.");
            return Ok(());
        }
        write_new(&self.out, text.as_bytes())?;
        let digest = Digest::of(text.as_bytes());
        print.answer(&Written { plan: self.out.clone(), sha256: digest }, |text| {
            text.row("plan", self.out.display()).row("SHA-256", digest);
        })?;
        print.note(match self.kind {
            Kind::First => "Next: review it, everyone who will be there; then `smkictl ceremony check`, and `smkictl ceremony run --dry-run`.",
            Kind::Renewal | Kind::NewKey | Kind::Copy | Kind::ReShare => {
                "Next: review it, everyone who will be there; then `smkictl ceremony check`. Only a first ceremony is rehearsed."
            }
        });
        Ok(())
    }
}

#[derive(Serialize)]
struct Written {
    plan: PathBuf,
    sha256: Digest,
}

impl Check {
    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let plan = Plan::read(&self.plan)?;
        let (policy, _) = room::read_policy(&plan.policy())?;
        let configuration = Configuration::read(&plan.configuration())?;
        let at = wall_clock().plus_ms(configuration.clock_offset_ms);
        let ledger = opened::read(&configuration)?;
        let against =
            Against { policy: &policy, configuration: &configuration, ledger: ledger.as_ref(), at, begun: false };
        let faults = plan::check(&plan, against);
        if !faults.is_empty() {
            return Err(CeremonyError::Plan { path: self.plan, faults });
        }
        let (out, journal) = (plan.out(), plan.out().join(JOURNAL));
        if journal.exists() {
            let octets = input::file(&journal, TRANSCRIPT_LEN_MAX)?;
            conduct::is_of(&plan, &out, &journal::read(&journal, &octets)?, false)?;
        }
        print.answer(&Written { plan: self.plan.clone(), sha256: plan.digest() }, |text| {
            text.row("plan", self.plan.display())
                .row("SHA-256", plan.digest())
                .line(&Words(plan.digest()).to_string())
                .row("ceremony", plan.kind)
                .row("purpose", policy.purpose())
                .row("place", plan.place.get_ref().as_str())
                .row("policy", policy.digest());
            for key in plan.keys() {
                text.row("key", format!("{} ({}) on token {}, CKA_ID {}", key.label, key.r#use, key.token, key.cka_id));
                if let Some(Ids { symmetric, wrapping }) = key.material() {
                    text.row(
                        "beside it",
                        format!(
                            "its Contingency Symmetric Key, CKA_ID {symmetric}, and the wrapping key, CKA_ID {wrapping}"
                        ),
                    );
                }
            }
            for person in plan.persons() {
                text.row("comes", format!("{person}, {}", person.capacity));
            }
            for shares in plan.shares() {
                text.row(
                    "shares",
                    format!("of key {}, {} of {} needed", shares.key, shares.threshold, shares.holders.len()),
                );
                for Holder { share, person, certificate, .. } in &shares.holders {
                    let sealed = match certificate {
                        Some(path) => format!("sealed to the certificate {}", plan.path(path).display()),
                        None => "under a passphrase".to_owned(),
                    };
                    text.row("takes", format!("{person}: {share}, {sealed}"));
                }
            }
        })?;
        match (plan.kind, ledger) {
            (Kind::First, _) => print.note("The plan fits its policy and its configuration. No token was asked."),
            (_, Some(_)) => print.note("The plan fits its policy, its configuration and the ledger. No token was asked."),
            (_, None) => print.note(
                "The plan fits its policy and its configuration. The ledger is not on this machine: check it again where it is. No token was asked.",
            ),
        }
        Ok(())
    }
}

impl Transcript {
    pub(super) fn run(self, print: Printer) -> Result<(), CeremonyError> {
        let path = if self.from.is_dir() { self.from.join(JOURNAL) } else { self.from };
        let minutes = read(&path)?;
        if let Some(html) = &self.html {
            room::replace(html, minutes.html().as_bytes())?;
            print.note(&format!("{} is for printing", html.display()));
        }
        Ok(print.octets(minutes.text().as_bytes())?)
    }
}

/// The minutes of a journal or a transcript.
fn read(path: &Path) -> Result<Minutes, CeremonyError> {
    let octets = input::file(path, TRANSCRIPT_LEN_MAX)?;
    let lines = journal::read(path, &octets)?;
    Ok(Minutes::of(&lines, &octets))
}
