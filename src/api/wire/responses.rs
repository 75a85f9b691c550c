//! Shell. Responses of Devices: what is sent, and what they prove.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::ledger::entry::{CertificateTally, ResponseTally};
use crate::domain::names::{DeterminationId, DeviceId, Digest, TemplateName};

/// Responses to be taken in. Both files are uploaded first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryResponses {
    /// The determination under which the commands were signed.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub determination: DeterminationId,
    /// The messages: hexadecimal, one a line, or binary one after another. SHA-256 of the upload.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    pub responses: Digest,
    /// The Devices' certificates, DER one after another or PEM, beside those that were imported. SHA-256 of the upload; none if there are no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{64}$")]
    pub certificates: Option<Digest>,
}

/// A message that proves no recovery: one line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResponseItem {
    /// Which message of the file, counted from 1.
    pub message: u64,
    /// The Device that it says it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub device: Option<DeviceId>,
    /// The index of the intent that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<u64>,
    /// `failed`, `accepted`, `alert`, `foreign`, `unmatched`, `unverified`, `malformed`, `duplicate` or `contradiction`.
    pub result: String,
    /// Why.
    pub detail: String,
}

/// What was recorded: the last line of the answer. An answer without it was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResponsesSummary {
    /// The entry.
    pub entry: u64,
    /// SHA-256 of the lines of results.
    #[schema(value_type = String)]
    pub results: Digest,
    /// How many messages came to which result.
    pub tally: ResponseTally,
}

/// The line with the summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResponsesSummaryLine {
    /// What was recorded.
    pub summary: ResponsesSummary,
}

/// Certificates of Devices to be imported. They are uploaded first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceCertificates {
    /// DER, one after another. SHA-256 of the upload.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    pub certificates: Digest,
}

/// What became of a bundle of certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificatesImported {
    /// The entry; none if every one of them was known, which changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// How many became what.
    pub tally: CertificateTally,
    /// Those that were refused.
    pub refused: Vec<CertificateRefused>,
}

/// A certificate that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateRefused {
    /// Which of the bundle, counted from 1.
    pub certificate: u64,
    /// The Device that it says it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub device: Option<DeviceId>,
    /// Why.
    pub why: String,
}

/// How far a Device has come under a determination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// Listed, and no signed command for it.
    Unsigned,
    /// A command was signed, and the Device has not answered.
    NoResponse,
    /// It accepted the command and has not said that it executed it.
    Accepted,
    /// It proved that it holds every certificate that was sent.
    Succeeded,
    /// It proved that at least one cell failed.
    Failed,
    /// It proved two things that exclude each other.
    Contradicted,
    /// It answered a command that this ledger never signed: what it holds is not known.
    Foreign,
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unsigned => "no signed command",
            Self::NoResponse => "no Response yet",
            Self::Accepted => "accepted, not executed yet",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Contradicted => "contradicted itself",
            Self::Foreign => "answered a foreign command",
        })
    }
}

/// Which Devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StateWanted {
    /// A command was signed, whatever came back.
    Signed,
    /// As [`DeviceState::Unsigned`].
    Unsigned,
    /// As [`DeviceState::NoResponse`].
    NoResponse,
    /// As [`DeviceState::Accepted`].
    Accepted,
    /// As [`DeviceState::Succeeded`].
    Succeeded,
    /// As [`DeviceState::Failed`].
    Failed,
    /// As [`DeviceState::Contradicted`].
    Contradicted,
    /// As [`DeviceState::Foreign`].
    Foreign,
}

impl StateWanted {
    /// Whether a Device in that state is wanted.
    pub fn takes(self, state: DeviceState) -> bool {
        match self {
            Self::Signed => state != DeviceState::Unsigned,
            Self::Unsigned => state == DeviceState::Unsigned,
            Self::NoResponse => state == DeviceState::NoResponse,
            Self::Accepted => state == DeviceState::Accepted,
            Self::Succeeded => state == DeviceState::Succeeded,
            Self::Failed => state == DeviceState::Failed,
            Self::Contradicted => state == DeviceState::Contradicted,
            Self::Foreign => state == DeviceState::Foreign,
        }
    }
}

/// Whose Devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DevicesOf {
    /// The determination.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub determination: DeterminationId,
    /// In this state; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub state: Option<StateWanted>,
    /// After this Device; from the first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9A-F]{16}$")]
    pub after: Option<DeviceId>,
}

/// Devices of a determination's list, at most [`RecoveryDevices::COUNT_MAX`] at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryDevices {
    /// Them, by EUI-64.
    pub devices: Vec<RecoveryDevice>,
    /// Where to go on (`after` of the next request); none if these were all.
    #[schema(value_type = Option<String>)]
    pub next: Option<DeviceId>,
}

impl RecoveryDevices {
    /// An answer of so many stays small.
    pub const COUNT_MAX: usize = 1_000;
}

/// A Device of a determination's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryDevice {
    /// Which.
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// Its template.
    #[schema(value_type = String)]
    pub template: TemplateName,
    /// How far it has come.
    pub state: DeviceState,
    /// The index of the last intent for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<u64>,
    /// The entry that has what it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// The cells that failed, or what contradicts what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Lets signing go on that a foreign answer had stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryResume {
    /// Under which determination.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    pub determination: DeterminationId,
    /// What was found out, and why it is right to go on.
    pub reason: String,
}
