//! Shell. Jobs: batches that the daemon runs by itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::ledger::entry::Reason;
pub use crate::domain::ledger::jobs::{DeviceRefused, JobTally, RuleCount};
use crate::domain::names::{DeterminationId, Digest, IncidentId, KeyLabel, PersonId, RequestId};
use crate::domain::time::Timestamp;

/// Asks for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobStart {
    /// Chosen by whoever asks, and the job's id. The same id with the same contents is answered with the job as it stands.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub request: RequestId,
    /// Under which determination.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub determination: DeterminationId,
    /// For which Devices: the SHA-256 of a list that was uploaded, one EUI-64 a line, 16 upper-case hex digits and a line feed, sorted,
    /// each once. For all of the determination if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{64}$")]
    pub list: Option<Digest>,
    /// At most so many intents an hour, if fewer than the determination permits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<u64>,
    /// Why, as it is to stand in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Commands are being signed.
    Running,
    /// It goes on by itself once what `why` says is over.
    Waiting,
    /// A limit of an hour is used up: it goes on by itself at `until`.
    Limited,
    /// An operator let it stand still.
    Paused,
    /// An operator ended it.
    Cancelled,
    /// It is over.
    Ended,
}

impl JobState {
    /// As it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Limited => "limited",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Ended => "ended",
        }
    }

    /// Whether it never goes on.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Running | Self::Waiting | Self::Limited | Self::Paused => false,
            Self::Cancelled | Self::Ended => true,
        }
    }
}

/// How many jobs stand so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobCount {
    /// How.
    pub state: JobState,
    /// How many.
    pub count: u64,
}

/// Who did something, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobAct {
    /// The account.
    pub account: String,
    /// The person whom the policy mapped it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub person: Option<PersonId>,
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A job and how far it has come. What is counted is the ledger's, and the same after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its request, by which it is called.
    #[schema(value_type = String)]
    pub request: RequestId,
    /// The incident.
    #[schema(value_type = String)]
    pub incident: IncidentId,
    /// Under which determination.
    #[schema(value_type = String)]
    pub determination: DeterminationId,
    /// With which key.
    #[schema(value_type = String)]
    pub key: KeyLabel,
    /// How it stands.
    pub state: JobState,
    /// What it waits for, or why it ended before every Device was come to.
    pub why: Vec<Reason>,
    /// When it goes on, if a limit of an hour is used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
    /// Who started it.
    pub started: JobAct,
    /// Who paused or cancelled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<JobAct>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ended: Option<Timestamp>,
    /// For how many Devices it is.
    pub total: u64,
    /// How many of them have come to an end.
    pub done: u64,
    /// What became of them.
    pub tally: JobTally,
    /// How often each rule refused one.
    pub rules: Vec<RuleCount>,
    /// The first that were refused, with every reason.
    pub refused: Vec<DeviceRefused>,
    /// Its own limit of intents an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<u64>,
    /// Intents that its determination permits still.
    pub intents_left: u64,
    /// Signatures a second, over the last ten seconds; none while it is not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Devices that came to an end a second, since it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_overall: Option<f64>,
    /// Seconds until its end, at the rate of the last ten and within the limits of an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<u64>,
    /// Per cent of the last ten seconds in which the sessions of its tokens were signing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsm_busy: Option<f64>,
}

/// Which jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobsOf {
    /// Those that were started by this entry or a later one; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// Jobs, the first that was started first, at most 100 at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Jobs {
    /// Them.
    pub jobs: Vec<Job>,
    /// Where to go on (`from` of the next request); none if these were all.
    pub next: Option<u64>,
}

impl Jobs {
    /// An answer of so many, each with the first Devices that it refused and every reason, stays small.
    pub const COUNT_MAX: usize = 100;
}
