//! Pure. What entries say about the steps of the procedure. The kinds themselves are in [`super::entry::Event`].

use serde::{Deserialize, Serialize};

use crate::domain::names::{DeterminationId, Digest, IncidentId, ProfileId};

/// The procedure profile under which something was done: the ids in force at the entry's own time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileInForce {
    /// The base profile.
    pub base: ProfileId,
    /// The variations laid over it, in their order.
    pub variations: Vec<ProfileId>,
}

/// Responses of Devices were taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponsesTaken {
    /// The incident of the determination.
    pub incident: IncidentId,
    /// The procedure profile in force; none where the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
    /// The determination under which the commands were signed.
    pub determination: DeterminationId,
    /// The messages as they came, a blob: lower-case hexadecimal, one a line.
    pub responses: Digest,
    /// The Devices' certificates that were given for them, a blob: PEM.
    pub certificates: Digest,
    /// What they prove, a blob: the lines of [`crate::domain::responses`], one for each message.
    pub results: Digest,
    /// The results, counted.
    pub tally: ResponseTally,
}

/// How many messages came to which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseTally {
    /// The Device holds every certificate that was sent.
    pub recovered: u64,
    /// The Device executed the command, and at least one cell failed.
    pub failed: u64,
    /// The Device accepted the command and says nothing of its execution.
    pub accepted: u64,
    /// Alerts about one of our commands.
    pub alert: u64,
    /// Answers to a command that this ledger never signed.
    pub foreign: u64,
    /// Answers to other Parties, or to commands under other determinations.
    pub unmatched: u64,
    /// No trusted certificate of the Device, or no valid signature.
    pub unverified: u64,
    /// Not a message.
    pub malformed: u64,
    /// Said before.
    pub duplicate: u64,
    /// The Device has signed something else before about the same command.
    pub contradiction: u64,
}

impl ResponseTally {
    /// Adds another tally to this one.
    pub fn add(&mut self, other: &Self) {
        let Self {
            recovered,
            failed,
            accepted,
            alert,
            foreign,
            unmatched,
            unverified,
            malformed,
            duplicate,
            contradiction,
        } = *other;
        self.recovered += recovered;
        self.failed += failed;
        self.accepted += accepted;
        self.alert += alert;
        self.foreign += foreign;
        self.unmatched += unmatched;
        self.unverified += unverified;
        self.malformed += malformed;
        self.duplicate += duplicate;
        self.contradiction += contradiction;
    }

    /// All messages.
    pub fn messages(&self) -> u64 {
        let Self {
            recovered,
            failed,
            accepted,
            alert,
            foreign,
            unmatched,
            unverified,
            malformed,
            duplicate,
            contradiction,
        } = *self;
        recovered + failed + accepted + alert + foreign + unmatched + unverified + malformed + duplicate + contradiction
    }
}

/// An operator lets signing go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningResumed {
    /// The incident of the determination.
    pub incident: IncidentId,
    /// The procedure profile in force; none where the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
    /// Which determination.
    pub determination: DeterminationId,
    /// The entry whose foreign answer had stopped it.
    pub stopped_by: u64,
    /// What was found out, and why it is right to go on.
    pub reason: Box<str>,
}
