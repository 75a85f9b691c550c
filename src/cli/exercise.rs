//! Shell: `smkictl exercise`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::{Change, CliError, Context, Exit, document, incident};
use crate::api::wire;
use crate::domain::time::Timestamp;
use crate::exercise::bench::{self, DEVICES_MIN, Figures};
use crate::exercise::fleet::DEVICES_MAX;
use crate::exercise::scenario::Scenario;
use crate::exercise::softhsm::SoftHsmError;
use crate::exercise::summary::Summary;
use crate::exercise::tell::Teller;
use crate::exercise::{self, ExerciseError};

/// How many Devices there are if nobody says.
const DEVICES: u32 = 1_000;

/// Rehearse a whole recovery: ceremony, determination, signing, a crash, Devices, verification
///
/// Makes tokens in SoftHSM, a lab SMKI PKI, PMA members, Key Custodians and simulated Devices; holds the ceremony; starts a daemon of
/// its own; has the members determine and custodians open the key; signs for all Devices; kills the daemon in the middle and carries
/// on; lets each Device verify its command and answer; tries what must be refused; and verifies the ledger. Nothing of the machine's
/// own smkid is touched.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  smkictl exercise
  smkictl exercise --devices 10000 --out rehearsal/
  smkictl exercise --scenario not-to-execute
  smkictl exercise --scenario variation-2017
  smkictl exercise --scenario contingency
  smkictl exercise --bench --devices 400000

Needs SoftHSM (apt-get install softhsm2), and asks openssl if it is there.

In DIR it leaves
  commands/EUI64.bin         each Device's signed command, up to 10,000 of them
  responses/EUI64.bin        its signed Response
  certificates/NAME.pem      root-oca, issuing-oca, device-ca, recovery, the replacements;
                             before/NAME.pem, what they replaced; devices/EUI64.pem;
                             held/root-oca.pem and next/NAME.pem, where the Root is replaced
  keys/                      recovery.pem, ledger.pem, ledger.vkey, genesis: all public
  ceremony/                  plan.toml, minutes.txt and .html, the adoption with its signatures
  determination/             ID.json, ID.MEMBER.p7s, ID.devices.txt
  documents/                 withdrawal, with signatures
  documents/custody/         NN.json, NN.PERSON.p7s: what each Key Custodian stated
  files/                     notification and thresholds files, each signed by an ARO
  pre-commands/              commands made elsewhere, one signed, the others refused
  stranded.csv               the Devices that stay in 'recovery', where any do
  ledger/                    the export, for: smkictl ledger verify DIR/ledger \\
                               --key DIR/keys/ledger.vkey --genesis $(cat DIR/keys/genesis)
  policy/                    the policy in force
  summary.json, smkid.log

With --bench nothing is rehearsed; what a recovery costs on this machine is measured instead: a job signs
for N Devices in rounds and its commands are fetched, in turns with a program that does only what a recorded
and verified signature cannot do without, on the same token and key; then the audit, in turns with bare
verifications. A table says the ratios and how to read them. DIR has bench.json in the place of summary.json.

Status: 0 everything was as it must be, 5 something was not, 3 no SoftHSM or no daemon, 1 anything else."
)]
pub struct Exercise {
    #[command(subcommand)]
    record: Option<Afterwards>,
    /// How many Devices are recovered [default: 1000; with --bench 80000, and 8000 at least]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    devices: Option<u32>,
    /// Which story is played
    #[arg(long, value_enum, default_value_t = ScenarioArg::Base)]
    scenario: ScenarioArg,
    /// Measure instead of rehearse: signing and audit, each against a bound that is measured beside it
    #[arg(long, conflicts_with = "scenario")]
    bench: bool,
    /// Leave everything behind in this folder, new or empty; else it goes into a temporary one, which is removed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the temporary folder, and say where it is
    #[arg(long, conflicts_with = "out")]
    keep: bool,
}

/// A story.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ScenarioArg {
    /// The base procedure: SMI Status and thresholds file precede the referral
    Base,
    /// The PMA determines not to execute: nothing is signed, and Devices stay stranded
    NotToExecute,
    /// In the window of the direction of 18 July 2017, by a clock that is set: SMI Status and thresholds file follow the
    /// determination
    #[value(name = "variation-2017")]
    Variation2017,
    /// The Root OCA Private Key is compromised: the Contingency key replaces the Root and all below it on every Device
    Contingency,
}

impl From<ScenarioArg> for Scenario {
    fn from(argument: ScenarioArg) -> Self {
        match argument {
            ScenarioArg::Base => Self::Base,
            ScenarioArg::NotToExecute => Self::NotToExecute,
            ScenarioArg::Variation2017 => Self::Variation2017,
            ScenarioArg::Contingency => Self::Contingency,
        }
    }
}

/// What is done once it is over.
#[derive(Subcommand, Debug)]
pub enum Afterwards {
    /// Record in the ledger of this machine's smkid that the arrangements were rehearsed
    #[command(
        after_help = "Example:\n  smkictl exercise record --summary rehearsal/summary.json --note 'Yearly rehearsal, site B'"
    )]
    Record(Record),
}

/// Arguments of `record`.
#[derive(Args, Debug)]
pub struct Record {
    /// What came of it: its SHA-256 goes into the ledger
    #[arg(long, value_name = "FILE")]
    summary: PathBuf,
    /// What was rehearsed, as it is to stand in the ledger
    #[arg(long, value_name = "TEXT")]
    note: String,
    /// When it took place. [the daemon's time]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    #[command(flatten)]
    change: Change,
}

impl Record {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let Self { summary, note, at, change } = self;
        let (report, _) = document::digest_of(&summary)?;
        let at = match at {
            Some(at) => at,
            None => context.client.get::<wire::Status>("/v1/status").await?.clock.now,
        };
        incident::recorded(context, "/v1/exercises", &wire::ExerciseRecord { at, report, note }, change).await
    }
}

/// What came of it.
enum Came {
    Summary(Box<Summary>),
    Figures(Box<Figures>),
}

/// Rehearses a scenario, or measures without one.
async fn play(
    out: &Path,
    devices: Option<u32>,
    scenario: Option<Scenario>,
    teller: &mut Teller<'_>,
) -> Result<Came, ExerciseError> {
    Ok(match scenario {
        Some(scenario) => {
            let devices = devices.unwrap_or(DEVICES);
            Came::Summary(Box::new(exercise::run(out, devices, scenario, teller).await?))
        }
        None => Came::Figures(Box::new(bench::run(out, devices.unwrap_or(bench::DEVICES), teller).await?)),
    })
}

impl Exercise {
    /// Does it. The story goes to stdout, and to stderr if stdout is for programs.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        if let Some(Afterwards::Record(record)) = self.record {
            return record.run(context).await;
        }
        if self.bench && self.devices.is_some_and(|devices| devices < DEVICES_MIN) {
            let few = format!(
                "--bench takes at least {DEVICES_MIN} Devices: with fewer it would measure how long programs take to start"
            );
            context.print.error(&few);
            return Ok(Exit::Usage);
        }
        let is_json = context.print.is_json();
        let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
        let mut teller = if is_json {
            Teller::new(&mut stderr as &mut dyn Write, &io::stderr())
        } else {
            Teller::new(&mut stdout as &mut dyn Write, &io::stdout())
        };
        let temporary = match &self.out {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("smkictl-exercise-").tempdir()?),
        };
        let out = self.out.as_deref().or(temporary.as_ref().map(tempfile::TempDir::path));
        let out = out.expect("the folder is named, or temporary").to_owned();
        let scenario = (!self.bench).then(|| self.scenario.into());
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // Dropping the exercise stops what it has started and removes its tokens.
        let ended = tokio::select! {
            ended = play(&out, self.devices, scenario, &mut teller) => ended,
            _ = interrupt.recv() => Err(ExerciseError::Interrupted),
            _ = terminate.recv() => Err(ExerciseError::Interrupted),
        };
        match temporary {
            Some(folder) if self.keep => {
                let path = folder.keep();
                teller.line(&format!("\nEverything is in {}", path.display()));
            }
            Some(_) => teller.line("\nWith --out DIR, everything is left behind in DIR."),
            None => teller.line(&format!("\nEverything is in {}", out.display())),
        }
        match ended {
            Ok(Came::Summary(summary)) => {
                if is_json {
                    context.print.json_line(&summary)?;
                }
                Ok(if summary.passed { Exit::Done } else { Exit::Unverified })
            }
            Ok(Came::Figures(figures)) => {
                if is_json {
                    context.print.json_line(&figures)?;
                }
                Ok(Exit::Done)
            }
            Err(error) => {
                context.print.error(&error.to_string());
                Ok(match error {
                    ExerciseError::SoftHsm(SoftHsmError::NoModule | SoftHsmError::NoTool(_)) => Exit::Unreachable,
                    ExerciseError::Client(error) => error.exit(),
                    _ => Exit::Local,
                })
            }
        }
    }
}
