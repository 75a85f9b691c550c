//! Shell: wire types of an incident's way through the procedure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::incident::next::ToDo;
use crate::domain::incident::{Counts, State};
use crate::domain::ledger::steps::{Method, Notification, SmiStatus, Step};
use crate::domain::names::{DeviceId, DutyId, IncidentId, ProfileId, StepId};
use crate::domain::time::Timestamp;

/// A step of the procedure to be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepAsk {
    /// The step. Lists of Devices that it names are uploaded before.
    pub step: Step,
}

/// How far an incident has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// How it came to be known.
    pub notification: Notification,
    /// Where it stands.
    pub state: State,
    /// Since when.
    #[schema(value_type = String)]
    pub since: Timestamp,
    /// The method, as proposed or determined.
    pub method: Option<Method>,
    /// How many of the Relevant Devices stand where.
    pub devices: Counts,
    /// Steps that were taken.
    pub done: Vec<Done>,
    /// Duties to inform that arose.
    pub duties: Vec<Duty>,
    /// How many stranded Devices were accepted, if they were.
    pub stranded_accepted: Option<u64>,
    /// How many were accepted with them that left 'recovery' without proof.
    pub overridden_accepted: Option<u64>,
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// By its meaning.
    #[schema(value_type = String)]
    pub step: StepId,
    /// The entry that recorded it last.
    pub entry: u64,
}

/// A duty to inform somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Duty {
    /// Which.
    #[schema(value_type = String)]
    pub duty: DutyId,
    /// Whom.
    pub recipient: String,
    /// Of what.
    pub text: String,
    /// When it arose.
    #[schema(value_type = String)]
    pub arisen: Timestamp,
    /// By when it is to be met, where there is a limit.
    #[schema(value_type = Option<String>)]
    pub due: Option<Timestamp>,
    /// The entry that met it.
    pub met: Option<u64>,
}

/// What is to be done now, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Next {
    /// Where the incident stands.
    pub state: State,
    /// Since when.
    #[schema(value_type = String)]
    pub since: Timestamp,
    /// What is to be done, the most pressing first.
    pub todo: Vec<ToDo>,
}

/// Which part of a story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StoryOf {
    /// From this entry on; from the opening of the incident if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// An incident's story, at most [`Timeline::COUNT_MAX`] items at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Timeline {
    /// What happened, in order.
    pub items: Vec<Happened>,
    /// Where to go on (`from` of the next request); none if this was the end of it.
    pub next: Option<u64>,
}

impl Timeline {
    /// What happened in an incident is some hundred entries, but for what is counted together; refusals may be many.
    pub const COUNT_MAX: usize = 1_000;
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Happened {
    /// The entry; the first of several that are told together.
    pub entry: u64,
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// Who: the person where the policy names one, else the account.
    pub who: String,
    /// What, in a sentence.
    pub what: String,
}

/// One Device's story in an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceHistory {
    /// Which incident.
    #[schema(value_type = String)]
    pub incident: IncidentId,
    /// Which Device.
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// What happened to it, oldest first.
    pub items: Vec<DeviceEvent>,
}

/// Something that happened to a Device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceEvent {
    /// The entry.
    pub entry: u64,
    /// When it was recorded.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// Who: the person where the policy names one, else the account.
    pub who: String,
    /// The procedure profile in force, the base first, then the variations laid over it; empty for entries that name none: commands,
    /// and what became of them.
    #[schema(value_type = Vec<String>)]
    pub profile: Vec<ProfileId>,
    /// The SMI Status recorded of it from here on; none while it is no Relevant Device.
    pub smi_status: Option<SmiStatus>,
    /// From when that applies.
    #[schema(value_type = Option<String>)]
    pub since: Option<Timestamp>,
    /// What, in a sentence.
    pub what: String,
}
