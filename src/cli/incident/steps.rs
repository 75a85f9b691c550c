//! Shell: the steps of `smkictl incident` that move an incident on.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::CertaintyArg;
use super::recorded;
use crate::api::wire;
use crate::cli::document::upload_list;
use crate::cli::{Change, CliError, Context, Exit};
use crate::domain::ledger::steps::{DevicesNamed, Method, SmiStatus, Step as Taken};
use crate::domain::names::{Digest, DutyId, IncidentId, MechanismId};
use crate::domain::procedure::calendar::CivilDate;
use crate::domain::time::Timestamp;

/// A step of the procedure.
#[derive(Subcommand, Debug)]
pub enum Step {
    /// Record that the Compromise, or the suspicion, was confirmed by a permitted mechanism
    #[command(
        after_help = "Example:\n  smkictl incident confirm INC-2017-07 --mechanism call-back --certainty actual \\\n      \
        --evidence 'The officer was called back on the number of the register'"
    )]
    Confirm {
        /// In which incident
        incident: IncidentId,
        /// By which of the mechanisms that the procedure permits: `smkictl incident next` names them
        #[arg(long, value_name = "ID")]
        mechanism: MechanismId,
        /// Whether it is proven now, or still feared
        #[arg(long, value_enum)]
        certainty: CertaintyArg,
        /// What was seen
        #[arg(long, value_name = "TEXT")]
        evidence: String,
        #[command(flatten)]
        change: Change,
    },
    /// Record that it was no Compromise
    #[command(
        after_help = "Example:\n  smkictl incident dismiss INC-2017-07 --reason 'The log was a test of the Subscriber'"
    )]
    Dismiss {
        /// Which incident
        incident: IncidentId,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        change: Change,
    },
    /// Record the Relevant Devices, with evidence, and the method proposed
    #[command(
        after_help = "The list has a Device a line, sorted by EUI-64: the EUI-64, the SMI Status immediately before the Recovery \
        Event, the day\nsince when, and where that is known from:\n  \
        00DB1234567890A0,Commissioned,2017-03-01,read by SRV 8.2 on 22 July\n\n\
        Example:\n  smkictl incident assess INC-2017-07 --method 3 --targets targets.csv"
    )]
    Assess {
        /// In which incident
        incident: IncidentId,
        /// 1, 2, 3 or contingency (SEC Appendix L)
        #[arg(long, value_enum)]
        method: MethodArg,
        /// The Relevant Devices
        #[arg(long, value_name = "FILE")]
        targets: PathBuf,
        #[command(flatten)]
        change: Change,
    },
    /// Record that a duty to inform was met
    #[command(
        after_help = "Example:\n  smkictl incident inform INC-2017-07 --duty tell-pma-of-compromise --recipient 'the Chair' \\\n      \
        --at 2017-07-22T03:00:00Z --how telephone"
    )]
    Inform {
        /// In which incident
        incident: IncidentId,
        /// Which duty: `smkictl incident show` lists them
        #[arg(long, value_name = "ID")]
        duty: DutyId,
        /// Who was informed, by name
        #[arg(long, value_name = "NAME")]
        recipient: String,
        /// When, with its distance from UTC: 2017-07-22T03:00:00+01:00 is 3 a.m. in summer
        #[arg(long, value_name = "TIME")]
        at: Timestamp,
        /// How
        #[arg(long, value_name = "TEXT")]
        how: String,
        #[command(flatten)]
        change: Change,
    },
    /// Refer the incident to the SMKI PMA
    #[command(after_help = "Example:\n  smkictl incident refer INC-2017-07 --notification 9f86d0…")]
    Refer {
        /// Which incident
        incident: IncidentId,
        /// SHA-256 of the accepted notification file; left out where the SMKI PMA directed to depart from it
        #[arg(long, value_name = "SHA-256")]
        notification: Option<Digest>,
        /// What is new, where the PMA determined not to execute before
        #[arg(long, value_name = "TEXT")]
        new_facts: Option<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Record that the Subscriber recovers with its own key (Method 1)
    #[command(
        after_help = "Example:\n  smkictl incident subscriber-recovery INC-2017-07 --note 'The Supplier replaces by Method 1'"
    )]
    SubscriberRecovery {
        /// In which incident
        incident: IncidentId,
        /// What was agreed
        #[arg(long, value_name = "TEXT")]
        note: String,
        #[command(flatten)]
        change: Change,
    },
    /// Record the SMI Status that the DCC set
    #[command(
        after_help = "Examples:\n  smkictl incident set-status INC-2017-07 recovery --from 2017-07-23 --acknowledge-one-way\n  \
        smkictl incident set-status INC-2017-07 recovered --from 2017-07-25 --devices proven.txt"
    )]
    SetStatus(SetStatus),
    /// Record the SMI Statuses of an extract, as far as they contradict nothing that is recorded
    #[command(
        after_help = "Example:\n  smkictl incident import-statuses INC-2017-07 --extract 9f86d0… --changes 12 --contradictions 2"
    )]
    ImportStatuses(ImportStatuses),
    /// Record that everything before the use of the key is done
    #[command(
        after_help = "Example:\n  smkictl incident prepare INC-2017-07 --note 'Templates and list compared by two'"
    )]
    Prepare {
        /// In which incident
        incident: IncidentId,
        /// What was checked
        #[arg(long, value_name = "TEXT")]
        note: String,
        #[command(flatten)]
        change: Change,
    },
    /// Pause the signing, before the next signature, and lock the key
    #[command(after_help = "Example:\n  smkictl incident pause INC-2017-07 --reason 'The first Responses look odd'")]
    Pause {
        /// Of which incident
        incident: IncidentId,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        change: Change,
    },
    /// Leave Devices out, with a reason, such as that their failure is final
    #[command(
        after_help = "Example:\n  smkictl incident exclude INC-2017-07 --devices scrapped.txt --reason 'Scrapped in June'"
    )]
    Exclude {
        /// In which incident
        incident: IncidentId,
        /// The Devices: an EUI-64 a line, sorted
        #[arg(long, value_name = "FILE")]
        devices: PathBuf,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        change: Change,
    },
    /// Record that every target came to an end
    #[command(
        after_help = "Example:\n  smkictl incident finish INC-2017-07 --note 'Every target answered or is left out'"
    )]
    Finish {
        /// In which incident
        incident: IncidentId,
        /// What was checked
        #[arg(long, value_name = "TEXT")]
        note: String,
        #[command(flatten)]
        change: Change,
    },
    /// Begin Post-Recovery
    #[command(
        after_help = "Example:\n  smkictl incident begin-post-recovery INC-2017-07 --note 'The Supplier was told'"
    )]
    BeginPostRecovery {
        /// In which incident
        incident: IncidentId,
        /// What was checked
        #[arg(long, value_name = "TEXT")]
        note: String,
        #[command(flatten)]
        change: Change,
    },
    /// Record that Devices were handed back to their Subscriber (Method 2)
    #[command(
        after_help = "Example:\n  smkictl incident hand-over INC-2017-07 --evidence 'SRV 6.21 completed, report of the day'"
    )]
    HandOver {
        /// In which incident
        incident: IncidentId,
        /// The Devices: an EUI-64 a line, sorted; else all that wait for it
        #[arg(long, value_name = "FILE")]
        devices: Option<PathBuf>,
        /// What proves it
        #[arg(long, value_name = "TEXT")]
        evidence: String,
        #[command(flatten)]
        change: Change,
    },
    /// Record that the stranded Devices were reported and accepted
    #[command(
        after_help = "Example:\n  smkictl incident accept-stranded INC-2017-07 --count 3 --reason 'Accepted by the PMA on 1 August'"
    )]
    AcceptStranded {
        /// In which incident
        incident: IncidentId,
        /// How many they are: what was read must be what is so
        #[arg(long, value_name = "N")]
        count: u64,
        /// How many were set from 'recovery' to another status without proof, if any were
        #[arg(long, value_name = "N")]
        overridden: Option<u64>,
        /// Who accepted it, and why
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        change: Change,
    },
}

/// Arguments of `set-status`.
#[derive(Args, Debug)]
pub struct SetStatus {
    /// In which incident
    incident: IncidentId,
    /// To what
    #[arg(value_enum)]
    status: StatusArg,
    /// The day from which it applies (a civil date of London)
    #[arg(long, value_name = "YYYY-MM-DD")]
    from: CivilDate,
    /// Of which Devices: a file with an EUI-64 a line, sorted; else of all targets
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,
    /// Why, where nobody asks for it yet
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// You know that only the Recovery or Contingency Private Key brings a Device back from 'recovery'
    #[arg(long)]
    acknowledge_one_way: bool,
    /// Why it is set without the proof that the rule asks for
    #[arg(long = "override", value_name = "TEXT")]
    overridden: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// Arguments of `import-statuses`.
#[derive(Args, Debug)]
pub struct ImportStatuses {
    /// In which incident
    incident: IncidentId,
    /// SHA-256 of the extract, as `smkictl file submit` answered it
    #[arg(long, value_name = "SHA-256")]
    extract: Digest,
    /// How many targets get another status: what `compare-statuses` said must be what is so
    #[arg(long, value_name = "N")]
    changes: u64,
    /// How many of its lines contradict what is recorded, and change nothing
    #[arg(long, value_name = "N")]
    contradictions: u64,
    /// Why, where it says 'recovery' and nobody asks for that yet
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// You know that only the Recovery or Contingency Private Key brings a Device back from 'recovery'
    #[arg(long)]
    acknowledge_one_way: bool,
    #[command(flatten)]
    change: Change,
}

/// A method.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MethodArg {
    /// The Subscriber's own key
    #[value(name = "1")]
    One,
    /// The Recovery Private Key puts DCC ACB certificates in
    #[value(name = "2")]
    Two,
    /// The Recovery Private Key puts new Organisation Certificates in
    #[value(name = "3")]
    Three,
    /// The Contingency Private Key
    Contingency,
}

/// An SMI Status that the DCC sets in a recovery.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StatusArg {
    /// The one-way door: only the Recovery or Contingency Private Key brings a Device back
    Recovery,
    /// Proven recovered by its Response
    Recovered,
    /// Back in service, once proven recovered and, by Method 2, handed over
    Commissioned,
    /// Taken out of service
    Decommissioned,
    /// Withdrawn from the Inventory
    Withdrawn,
    /// Suspended
    Suspended,
}

impl From<StatusArg> for SmiStatus {
    fn from(argument: StatusArg) -> Self {
        match argument {
            StatusArg::Recovery => Self::Recovery,
            StatusArg::Recovered => Self::Recovered,
            StatusArg::Commissioned => Self::Commissioned,
            StatusArg::Decommissioned => Self::Decommissioned,
            StatusArg::Withdrawn => Self::Withdrawn,
            StatusArg::Suspended => Self::Suspended,
        }
    }
}

impl Step {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let (incident, step, change) = match self {
            Self::Confirm { incident, mechanism, certainty, evidence, change } => {
                let step = Taken::Confirm { mechanism, certainty: certainty.into(), evidence: evidence.into() };
                (incident, step, change)
            }
            Self::Dismiss { incident, reason, change } => (incident, Taken::Dismiss { reason: reason.into() }, change),
            Self::Assess { incident, method, targets, change } => {
                let method = match method {
                    MethodArg::One => Method::SubscriberKey,
                    MethodArg::Two => Method::AcbCertificates,
                    MethodArg::Three => Method::NewOrganisationCertificates,
                    MethodArg::Contingency => Method::Contingency,
                };
                let targets = named(context, &targets, &change).await?;
                (incident, Taken::Assess { method, targets }, change)
            }
            Self::Inform { incident, duty, recipient, at, how, change } => {
                (incident, Taken::Inform { duty, recipient: recipient.into(), at, how: how.into() }, change)
            }
            Self::Refer { incident, notification, new_facts, change } => {
                (incident, Taken::Refer { notification, new_facts: new_facts.map(Into::into) }, change)
            }
            Self::SubscriberRecovery { incident, note, change } => {
                (incident, Taken::SubscriberRecovery { note: note.into() }, change)
            }
            Self::SetStatus(asked) => {
                let SetStatus { incident, status, from, devices, reason, acknowledge_one_way, overridden, change } =
                    asked;
                let step = Taken::SetStatus {
                    status: status.into(),
                    from: from.begins(),
                    devices: some_named(context, devices.as_deref(), &change).await?,
                    reason: reason.map(Into::into),
                    acknowledged: acknowledge_one_way,
                    overridden: overridden.map(Into::into),
                };
                (incident, step, change)
            }
            Self::ImportStatuses(asked) => {
                let ImportStatuses { incident, extract, changes, contradictions, reason, acknowledge_one_way, change } =
                    asked;
                let (acknowledged, reason) = (acknowledge_one_way, reason.map(Into::into));
                (incident, Taken::ImportStatuses { extract, changes, contradictions, acknowledged, reason }, change)
            }
            Self::Prepare { incident, note, change } => (incident, Taken::Prepare { note: note.into() }, change),
            Self::Pause { incident, reason, change } => (incident, Taken::Pause { reason: reason.into() }, change),
            Self::Exclude { incident, devices, reason, change } => {
                let devices = named(context, &devices, &change).await?;
                (incident, Taken::Exclude { devices, reason: reason.into() }, change)
            }
            Self::Finish { incident, note, change } => (incident, Taken::Finish { note: note.into() }, change),
            Self::BeginPostRecovery { incident, note, change } => {
                (incident, Taken::BeginPostRecovery { note: note.into() }, change)
            }
            Self::HandOver { incident, devices, evidence, change } => {
                let devices = some_named(context, devices.as_deref(), &change).await?;
                (incident, Taken::HandOver { devices, evidence: evidence.into() }, change)
            }
            Self::AcceptStranded { incident, count, overridden, reason, change } => {
                (incident, Taken::AcceptStranded { count, overridden, reason: reason.into() }, change)
            }
        };
        recorded(context, &format!("/v1/incidents/{incident}/steps"), &wire::StepAsk { step }, change).await
    }
}

/// Uploads a list, unless nothing is to be changed, and names it.
async fn named(context: &Context, path: &Path, change: &Change) -> Result<DevicesNamed, CliError> {
    let (list, count) = upload_list(context, path, change).await?;
    Ok(DevicesNamed { list, count })
}

async fn some_named(context: &Context, path: Option<&Path>, change: &Change) -> Result<Option<DevicesNamed>, CliError> {
    match path {
        Some(path) => named(context, path, change).await.map(Some),
        None => Ok(None),
    }
}
