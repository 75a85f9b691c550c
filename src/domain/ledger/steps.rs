//! Pure. What entries say about an incident's way through the SMKI Recovery Procedure (SEC Appendix L).
//!
//! *Warning:* like all of [`super::entry`], these types are what lies in ledgers.

use serde::{Deserialize, Serialize};

use super::entry::SignatureRecord;
use super::meaning::Meaning;
use super::words::words;
use crate::domain::names::{
    DeterminationId, Digest, DirectionId, DutyId, FileKind, IncidentId, MechanismId, ProfileId, SecParty, SmsrReference,
};
use crate::domain::time::Timestamp;

/// The procedure profile in force at the moment of an entry: the base, and the variations laid over it then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileInForce {
    /// The base profile.
    pub base: ProfileId,
    /// The variations in force, in the order of their ids.
    pub variations: Vec<ProfileId>,
}

words!(
    /// Whether a Compromise is proven or feared.
    #[derive(Serialize, Deserialize, utoipa::ToSchema)]
    #[serde(rename_all = "kebab-case")]
    Certainty {
        /// Trust in the key is lost.
        Actual = "actual",
        /// It may be lost.
        Suspected = "suspected",
    }
);

words!(
    /// Which kind of Relevant Private Key is concerned; each has its own files.
    #[derive(Serialize, Deserialize, utoipa::ToSchema)]
    #[serde(rename_all = "kebab-case")]
    CompromiseClass {
        /// The key behind an Organisation Certificate on Devices, other than the Recovery Private Key.
        Organisation = "organisation",
        /// Any other: Recovery, Contingency, Contingency Symmetric Key, an OCA.
        Other = "other",
    }
);

/// How an incident came to be known (SEC Section L10, item (a)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Notification {
    /// Who notified, by name.
    #[schema(value_type = String)]
    pub by: Box<str>,
    /// The Party or RDP for which.
    #[schema(value_type = String)]
    pub party: SecParty,
    /// Proven or feared.
    pub certainty: Certainty,
    /// The class of the Compromise.
    pub class: CompromiseClass,
    /// When the notification came.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// By which way it came, such as `telephone` or `service desk`.
    #[schema(value_type = String)]
    pub channel: Box<str>,
    /// The Recovery Event: Relevant Devices and the Relevant Subscriber are those of the moment before it.
    #[schema(value_type = String)]
    pub recovery_event: Timestamp,
}

words!(
    /// By which way Devices are recovered (SEC Appendix L: Methods 1, 2, 3 and Contingency).
    #[derive(Serialize, Deserialize, utoipa::ToSchema)]
    #[serde(rename_all = "kebab-case")]
    Method {
        /// Method 1: the Subscriber replaces the certificates with a key it still has. The DCC's keys are not used.
        SubscriberKey = "subscriber-key",
        /// Method 2: the Recovery Private Key puts the DCC's ACB certificates in.
        AcbCertificates = "acb-certificates",
        /// Method 3: the Recovery Private Key puts new Organisation Certificates of the Subscriber in.
        NewOrganisationCertificates = "new-organisation-certificates",
        /// The Contingency Private Key, with the Contingency Symmetric Key.
        Contingency = "contingency",
    }
);

words!(
    /// The SMI Status of a Device, as Users see it (DUIS, type `DeviceStatus`).
    #[derive(Serialize, Deserialize, utoipa::ToSchema)]
    #[serde(rename_all = "kebab-case")]
    SmiStatus {
        /// Pending.
        Pending = "Pending",
        /// Whitelisted.
        Whitelisted = "Whitelisted",
        /// Installed, not commissioned.
        InstalledNotCommissioned = "InstalledNotCommissioned",
        /// Commissioned.
        Commissioned = "Commissioned",
        /// Decommissioned.
        Decommissioned = "Decommissioned",
        /// Withdrawn.
        Withdrawn = "Withdrawn",
        /// Suspended.
        Suspended = "Suspended",
        /// 'recovery': the DCC cannot reach it again but by recovering it with the Recovery or Contingency Private Key.
        Recovery = "Recovery",
        /// 'recovered': the recovery command succeeded, normal control is not yet re-established.
        Recovered = "Recovered",
    }
);

/// Some Devices of an incident: a blob with one EUI-64 a line in 16 upper-case hexadecimal digits, sorted, each once, each line
/// ended by a line feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DevicesNamed {
    /// SHA-256 of the list.
    #[schema(value_type = String)]
    pub list: Digest,
    /// How many lines it has.
    pub count: u64,
}

/// A step of the procedure that somebody took, and everything it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// The Compromise, or the suspicion of one, was confirmed.
    Confirm {
        /// By which of the permitted mechanisms.
        #[schema(value_type = String)]
        mechanism: MechanismId,
        /// Proven or still feared.
        certainty: Certainty,
        /// What was seen.
        #[schema(value_type = String)]
        evidence: Box<str>,
    },
    /// It was none.
    Dismiss {
        /// Why.
        #[schema(value_type = String)]
        reason: Box<str>,
    },
    /// Which Devices are concerned, and by which method they could be recovered.
    Assess {
        /// The proposed method.
        method: Method,
        /// The Relevant Devices; a blob with a Device a line: EUI-64, SMI Status, since when, evidence.
        targets: DevicesNamed,
    },
    /// A duty to inform was met.
    Inform {
        /// Which duty.
        #[schema(value_type = String)]
        duty: DutyId,
        /// Who was informed, by name.
        #[schema(value_type = String)]
        recipient: Box<str>,
        /// When.
        #[schema(value_type = String)]
        at: Timestamp,
        /// How.
        #[schema(value_type = String)]
        how: Box<str>,
    },
    /// The incident was referred to the SMKI PMA.
    Refer {
        /// The notification file that went with it, accepted before; none where the SMKI PMA directed to depart from it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        notification: Option<Digest>,
        /// What is new, where the PMA determined before.
        #[schema(value_type = Option<String>)]
        new_facts: Option<Box<str>>,
    },
    /// The Subscriber recovers with its own key (Method 1).
    SubscriberRecovery {
        /// What was agreed.
        #[schema(value_type = String)]
        note: Box<str>,
    },
    /// The DCC set the SMI Status of Devices.
    SetStatus {
        /// To what.
        status: SmiStatus,
        /// The date it applies from, as the moment at which that day begins in London.
        #[schema(value_type = String)]
        from: Timestamp,
        /// Of which Devices; none for all the targets.
        devices: Option<DevicesNamed>,
        /// Why, where a reason is asked for.
        #[schema(value_type = Option<String>)]
        reason: Option<Box<str>>,
        /// Whoever set 'recovery' knows that only these keys bring the Device back.
        acknowledged: bool,
        /// Why it is set without the proof that the rule asks for.
        #[schema(value_type = Option<String>)]
        overridden: Option<Box<str>>,
    },
    /// What an extract of the Smart Metering Inventory says of the targets was recorded of them, as far as it contradicts nothing
    /// that is recorded already.
    ImportStatuses {
        /// The extract, accepted before.
        #[schema(value_type = String)]
        extract: Digest,
        /// How many targets have another status by it.
        changes: u64,
        /// How many of its lines contradict what is recorded; they change nothing.
        contradictions: u64,
        /// Whoever records 'recovery' knows that only these keys bring the Device back.
        acknowledged: bool,
        /// Why, where a reason is asked for.
        #[schema(value_type = Option<String>)]
        reason: Option<Box<str>>,
    },
    /// Everything that must precede the use of the key is done.
    Prepare {
        /// Whoever checked says so.
        #[schema(value_type = String)]
        note: Box<str>,
    },
    /// Execution was paused, and the key locked.
    Pause {
        /// Why.
        #[schema(value_type = String)]
        reason: Box<str>,
    },
    /// Devices were left out.
    Exclude {
        /// Which.
        devices: DevicesNamed,
        /// Why, such as that their failure is final.
        #[schema(value_type = String)]
        reason: Box<str>,
    },
    /// Every target came to an end.
    Finish {
        /// Whoever checked says so.
        #[schema(value_type = String)]
        note: Box<str>,
    },
    /// Post-Recovery began.
    BeginPostRecovery {
        /// Whoever checked says so.
        #[schema(value_type = String)]
        note: Box<str>,
    },
    /// Devices under the DCC's control were handed back to their Subscriber (Method 2).
    HandOver {
        /// Which; none for all that are under the DCC's control.
        devices: Option<DevicesNamed>,
        /// What proves it.
        #[schema(value_type = String)]
        evidence: Box<str>,
    },
    /// The Devices that stay in 'recovery' were reported and accepted as stranded.
    AcceptStranded {
        /// How many they are at this moment.
        count: u64,
        /// How many were set from 'recovery' to another status without proof, and are accepted too; none where there are none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overridden: Option<u64>,
        /// Who accepted it, and why.
        #[schema(value_type = String)]
        reason: Box<str>,
    },
}

impl Step {
    /// The step's meaning, by which procedure profiles know it where they have it.
    pub const fn meaning(&self) -> Meaning {
        match self {
            Self::Confirm { .. } => Meaning::Confirm,
            Self::Dismiss { .. } => Meaning::Dismiss,
            Self::Assess { .. } => Meaning::Assess,
            Self::Inform { .. } => Meaning::Inform,
            Self::Refer { .. } => Meaning::Refer,
            Self::SubscriberRecovery { .. } => Meaning::SubscriberRecovery,
            Self::SetStatus { status: SmiStatus::Recovered, .. } => Meaning::SetRecovered,
            Self::SetStatus { status: SmiStatus::Recovery, .. } => Meaning::SetRecovery,
            Self::SetStatus { .. } => Meaning::SetStatus,
            Self::ImportStatuses { .. } => Meaning::ImportStatuses,
            Self::Prepare { .. } => Meaning::Prepare,
            Self::Pause { .. } => Meaning::Pause,
            Self::Exclude { .. } => Meaning::Exclude,
            Self::Finish { .. } => Meaning::Finish,
            Self::BeginPostRecovery { .. } => Meaning::BeginPostRecovery,
            Self::HandOver { .. } => Meaning::HandOver,
            Self::AcceptStranded { .. } => Meaning::AcceptStranded,
        }
    }

    /// The lists that it names.
    pub fn devices(&self) -> Option<DevicesNamed> {
        match self {
            Self::Assess { targets, .. } => Some(*targets),
            Self::SetStatus { devices, .. } | Self::HandOver { devices, .. } => *devices,
            Self::Exclude { devices, .. } => Some(*devices),
            Self::Confirm { .. }
            | Self::Dismiss { .. }
            | Self::Inform { .. }
            | Self::Refer { .. }
            | Self::SubscriberRecovery { .. }
            | Self::ImportStatuses { .. }
            | Self::Prepare { .. }
            | Self::Pause { .. }
            | Self::Finish { .. }
            | Self::BeginPostRecovery { .. }
            | Self::AcceptStranded { .. } => None,
        }
    }
}

/// A step of the procedure was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepTaken {
    /// In which incident.
    pub incident: IncidentId,
    /// Under which profile.
    pub profile: ProfileInForce,
    /// The step.
    pub step: Step,
    /// The PMA's directions to depart from the procedure that it relied on (SEC Appendix L: "except as the SMKI PMA directs").
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departures: Vec<DirectionId>,
    /// Of the Devices of an assessment, how many keep the SMI Status that another incident recorded, as nothing but the keys leads
    /// out of it. None in the entries of older daemons, which carried nothing over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub carried: u64,
}

/// As serde asks it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A file of the procedure was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileAccepted {
    /// In which incident.
    pub incident: IncidentId,
    /// Under which profile; none where the policy has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileInForce>,
    /// Which kind of file.
    pub kind: FileKind,
    /// SHA-256 of the file, a blob.
    pub file: Digest,
    /// The ARO's signature; none for an extract of the Smart Metering Inventory, which the DCC imports itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureRecord>,
    /// For whom it was submitted: the signer's Party.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub party: Option<SecParty>,
    /// The reference of the DCC Service Management Service Request, in an ADT file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smsr: Option<SmsrReference>,
    /// Lines below its header.
    pub rows: u64,
}

/// The arrangements were rehearsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExerciseRecorded {
    /// When.
    pub at: Timestamp,
    /// SHA-256 of what came of it, the `summary.json` of an exercise or another report. The report itself is kept elsewhere.
    pub report: Digest,
    /// What was rehearsed, in the operator's words.
    pub note: Box<str>,
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
    /// The messages, a blob in a form of [`crate::domain::responses::messages::Messages::kept`].
    pub responses: Digest,
    /// The Devices' certificates that were given for them, a blob: PEM.
    pub certificates: Digest,
    /// Those of entries before this one were relied on too ([`DeviceCertificatesImported`]); none where nothing was imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_before: Option<u64>,
    /// What they prove, a blob: the lines of [`crate::domain::responses`], one for each message.
    pub results: Digest,
    /// The results, counted.
    pub tally: ResponseTally,
}

/// Certificates of Devices were verified, to be relied on from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceCertificatesImported {
    /// Those that were taken in, a blob: DER, one after another.
    pub certificates: Digest,
    /// What was handed in, counted.
    pub tally: CertificateTally,
}

/// What became of Devices' certificates that were handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateTally {
    /// Taken in: a Device CA of the policy vouches for a Device's key for signatures.
    pub imported: u64,
    /// Taken in before, with the same key, issuer and dates.
    pub known: u64,
    /// Not taken in. They are not kept, and whoever sent them was told why.
    pub refused: u64,
}

impl CertificateTally {
    /// Adds another tally to this one.
    pub fn add(&mut self, other: &Self) {
        let Self { imported, known, refused } = other;
        self.imported += imported;
        self.known += known;
        self.refused += refused;
    }

    /// All that were handed in.
    pub const fn certificates(&self) -> u64 {
        self.imported + self.known + self.refused
    }
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

/// A direction was taken in: it extends a variation, or departs from a step in one incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectionRecorded {
    /// Its id.
    pub direction: DirectionId,
    /// The document, a blob.
    pub document: Digest,
    /// Who signed it.
    pub signatures: Vec<SignatureRecord>,
    /// The policy under which the signatures were counted.
    pub policy: Digest,
    /// The direction's own text, a blob, where it came with the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Digest>,
}

#[cfg(test)]
mod tests;
