//! Pure. What entries say of jobs: batches that the daemon runs by itself, whether or not anybody listens.
//!
//! *Warning:* like all of [`super::entry`], these types are what lies in ledgers.

use serde::{Deserialize, Serialize};

use super::entry::Reason;
use crate::domain::names::{DeterminationId, DeviceId, Digest, IncidentId, KeyLabel, RequestId};

/// Devices that a job names, if it is not for all of its determination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobList {
    /// SHA-256 of the list, a blob: one EUI-64 a line ([`LIST_LINE_LEN`] octets with its line feed), sorted, distinct.
    pub sha256: Digest,
    /// Its lines.
    pub devices: u64,
}

/// Octets of a line of a job's list: 16 upper-case hex digits and a line feed.
pub const LIST_LINE_LEN: u64 = 17;

/// A job was started. The batch of its request stands before it; the intents of both are one request's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobStarted {
    /// The request, by which the job is called.
    pub request: RequestId,
    /// SHA-256 of what was asked, as in its batches.
    pub asked: Digest,
    /// The incident.
    pub incident: IncidentId,
    /// The determination under which.
    pub determination: DeterminationId,
    /// The key.
    pub key: KeyLabel,
    /// For which Devices; all of the determination if none are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<JobList>,
    /// At most so many intents an hour, where that is less than the determination permits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<u64>,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
}

/// An operator lets a job stand still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPaused {
    /// Which.
    pub request: RequestId,
    /// Why.
    pub reason: Box<str>,
}

/// An operator lets a paused job go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobResumed {
    /// Which.
    pub request: RequestId,
}

/// An operator ended a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobCancelled {
    /// Which.
    pub request: RequestId,
    /// Why.
    pub reason: Box<str>,
}

/// A job came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobEnded {
    /// Which.
    pub request: RequestId,
    /// What became of its Devices.
    pub tally: JobTally,
    /// Why it ended before every Device was come to; empty if each was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<Reason>,
}

/// Devices of a job for which no intent was recorded, up to a place in its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPassed {
    /// Which job.
    pub request: RequestId,
    /// The last Device of the list that was looked at.
    pub until: DeviceId,
    /// How many had a signed command under the determination already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub already: u64,
    /// How many were refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// How often each rule said no, in the order of their names: a Device may be refused for several reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleCount>,
    /// The first of the job that were refused, with every reason: [`REFUSED_TOLD_MAX`] over all its entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<DeviceRefused>,
}

/// Refused Devices of a job that are told one by one; the others are counted.
pub const REFUSED_TOLD_MAX: usize = 20;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// How often a rule said no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleCount {
    /// The rule, by its stable name.
    #[schema(value_type = String)]
    pub rule: Box<str>,
    /// How often.
    pub count: u64,
}

/// A Device that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceRefused {
    /// Which.
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// Every reason.
    pub reasons: Vec<Reason>,
}

/// What became of a job's Devices. Each that was come to and is not with the token now counts in one place, but for `intents`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobTally {
    /// Intents recorded, further attempts included.
    pub intents: u64,
    /// Signed.
    pub signed: u64,
    /// Without a signature for certain: the token failed, or was never asked. They are tried once more before the job ends.
    pub not_signed: u64,
    /// Of unknown outcome.
    pub unknown: u64,
    /// Unknown, and left so.
    pub left: u64,
    /// With a signed command of another request already.
    pub already: u64,
    /// Refused.
    pub refused: u64,
}

impl JobTally {
    /// Devices that were come to and are not with the token.
    pub const fn done(&self) -> u64 {
        let Self { intents: _, signed, not_signed, unknown, left, already, refused } = *self;
        signed + not_signed + unknown + left + already + refused
    }
}
