//! Shell: `smkictl exercise`, the rehearsal of a whole recovery, from the ceremony to the last Device's Response.
//!
//! | file | what |
//! |---|---|
//! | `scenario` | ★ the story. Read this first |
//! | `stage` | what stands before it begins: tokens, PKI, people, policy |
//! | `ceremony` | the ceremony: keys, ledger, shares, certificate |
//! | `programs` | the daemon and other programs, as processes |
//! | `documents` | determinations and what is about them, drafted and signed |
//! | `clock` | what the time is, where the story lies at another |
//! | `deliveries` | commands to Devices, and what comes back |
//! | `oracle` | what openssl says |
//! | `lab` | the lab SMKI PKI, with keys in memory |
//! | `people` | PMA members, AROs and Key Custodians, and their certificates |
//! | `policy` | the policy, made from the example in `keys-policy/` |
//! | `template` | the Recovery command that is approved and sent |
//! | `device`, `fleet` | simulated Devices, and the checks of what they answer |
//! | `softhsm` | the tokens |
//! | `layout` | what is left behind |
//! | `tell`, `summary` | what is said to whoever watches |
//! | `bench` | `--bench`: what a recovery costs on this machine, against a bound that is measured beside it |
//!
//! It uses nothing that a live daemon would not, but for what `purpose = "exercise"` in genesis, policy and documents permits:
//! answers and passphrases from files, and a clock that is set.

pub mod bench;
pub mod ceremony;
pub mod clock;
pub mod deliveries;
pub mod device;
pub mod documents;
pub mod fleet;
pub mod lab;
pub mod layout;
pub mod oracle;
pub mod people;
pub mod policy;
pub mod procedure;
pub mod programs;
pub mod scenario;
pub mod softhsm;
pub mod stage;
pub mod summary;
pub mod tell;
pub mod template;

use std::io;
use std::path::{Path, PathBuf};

use crate::api::client::ClientError;
use crate::custody::scheme::SchemeError;
use crate::custody::share_file::ShareFileError;
use crate::domain::certificates::apex::ApexError;
use crate::domain::certificates::pem::PemError;
use crate::domain::gbcs::{FillError, FillKeyError, TemplateError};
use crate::domain::names::NameError;
use crate::domain::policy::{Activation, PolicyError};
use documents::DocumentError;
use lab::LabError;
use layout::LayoutError;
use programs::{ProgramError, Programs};
use scenario::Scenario;
use softhsm::SoftHsmError;
use stage::Stage;
use summary::Summary;
use tell::Teller;

/// Why an exercise came to no end.
#[derive(Debug, thiserror::Error)]
pub enum ExerciseError {
    /// No tokens.
    #[error(transparent)]
    SoftHsm(#[from] SoftHsmError),
    /// A program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The daemon's answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The scratch folder.
    #[error("no folder for tokens and state can be made in the folder for temporary files: {0}")]
    Scratch(#[source] io::Error),
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The policy that was made.
    #[error("the policy of the exercise: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Policy(Vec<PolicyError>),
    /// A document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A command.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// A name.
    #[error(transparent)]
    Name(NameError),
    /// A PEM file.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The stage was set without contingency material.
    #[error("expected a stage with a token for contingency material, whose security officer's PIN is kept; found none")]
    NoContingency,
    /// What a token made is no wrapped key.
    #[error(transparent)]
    Apex(#[from] ApexError),
    /// The symmetric key of a command.
    #[error(transparent)]
    SymmetricKey(#[from] FillKeyError),
    /// JSON of a program or a ceremony.
    #[error("what a program wrote: {0}")]
    Json(#[from] serde_json::Error),
    /// The certification request.
    #[error("keys/recovery.csr: expected a block of PEM, found none")]
    NoRequest,
    /// The plan's draft is another than is expected here.
    #[error(
        "the plan of the ceremony: expected {expected} in what `smkictl ceremony plan` writes, once; is smkictl of this version?"
    )]
    Plan {
        /// What was looked for.
        expected: String,
    },
    /// The account has no name.
    #[error(
        "account {uid} or its group has no name on this machine; the exercise needs an account that can be an operator"
    )]
    Account {
        /// Its number.
        uid: u32,
    },
    /// The incident knows no procedure.
    #[error("the incident was opened under a policy without the steps of the procedure")]
    NoProcedure,
    /// A share file.
    #[error(transparent)]
    ShareFile(#[from] ShareFileError),
    /// A share.
    #[error(transparent)]
    Share(#[from] SchemeError),
    /// The daemon asks for no share.
    #[error(
        "expected that the daemon asks for the Key Custodian's share, and says to what it is sealed; found neither"
    )]
    NoShareWanted,
    /// The answer ended too early.
    #[error("the daemon's answer ended without its summary")]
    NoSummary,
    /// The first member has one key.
    #[error("expected a member with two keys, found none")]
    NoSecondKey,
    /// A measurement.
    #[error("the measurement: {0}")]
    Measure(#[source] bench::Fault),
    /// The export is empty.
    #[error("{}: expected files with the ledger's entries, found none", .0.display())]
    NoEntries(PathBuf),
    /// Ended by a signal.
    #[error("interrupted; everything that was started is stopped")]
    Interrupted,
}

/// Rehearses a recovery of so many Devices, and leaves everything behind in `out`, a new or empty folder.
///
/// # Errors
/// It came to no end. What was not as it must be, if it did, stands in the summary.
pub async fn run(
    out: &Path,
    devices: u32,
    scenario: Scenario,
    teller: &mut Teller<'_>,
) -> Result<Summary, ExerciseError> {
    let (programs, clock) = (Programs::find()?, scenario.clock());
    let (stage, summary) = if scenario == Scenario::Contingency {
        let mut stage = Stage::set_with_contingency(out, programs, clock, teller)?;
        let summary = Box::pin(scenario::contingency::play(&mut stage, devices, teller)).await?;
        (stage, summary)
    } else {
        let stage = Stage::set(out, programs, clock, Activation::Custodians, teller)?;
        let summary = Box::pin(scenario::play(&stage, devices, scenario, teller)).await?;
        (stage, summary)
    };
    let mut json = serde_json::to_vec_pretty(&summary).expect("a summary is made of texts and numbers");
    json.push(b'\n');
    stage.layout.write("summary.json", json)?;
    summary.tell(teller);
    Ok(summary)
}
