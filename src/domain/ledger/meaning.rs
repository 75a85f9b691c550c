//! Pure. The steps of the procedure that this program takes or asks for itself, by meaning. A policy may have others, which nobody
//! takes but by meeting a duty.

use std::fmt;

use crate::domain::names::{FileKind, StepId};

/// What a step means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meaning {
    /// A Compromise, or the suspicion of one, was notified: the incident is opened.
    Notify,
    /// It was confirmed by a permitted mechanism.
    Confirm,
    /// It was none.
    Dismiss,
    /// Relevant Devices and method.
    Assess,
    /// A duty to inform was met.
    Inform,
    /// The Compromise Notification File.
    SubmitNotification,
    /// SMI Status 'recovery'.
    SetRecovery,
    /// The Anomaly Detection Thresholds file.
    SubmitThresholds,
    /// The incident is put before the SMKI PMA.
    Refer,
    /// The Subscriber recovers with its own key (Method 1).
    SubscriberRecovery,
    /// The SMKI PMA's determination.
    Determine,
    /// What must precede the use of the key is done.
    Prepare,
    /// The key is activated.
    ActivateKey,
    /// Commands are signed.
    Execute,
    /// Signing stands still, and the key is locked.
    Pause,
    /// Devices are left out.
    Exclude,
    /// Every target came to an end.
    Finish,
    /// A Recovery Progress file.
    ReportProgress,
    /// SMI Status 'recovered'.
    SetRecovered,
    /// Another SMI Status.
    SetStatus,
    /// What an extract of the Smart Metering Inventory says of the targets.
    ImportStatuses,
    /// Post-Recovery began.
    BeginPostRecovery,
    /// Devices under the DCC's control go back to their Subscriber.
    HandOver,
    /// Stranded Devices are accepted as such.
    AcceptStranded,
    /// The incident is over.
    Close,
}

impl Meaning {
    /// Every one.
    pub const ALL: [Self; 25] = [
        Self::Notify,
        Self::Confirm,
        Self::Dismiss,
        Self::Assess,
        Self::Inform,
        Self::SubmitNotification,
        Self::SetRecovery,
        Self::SubmitThresholds,
        Self::Refer,
        Self::SubscriberRecovery,
        Self::Determine,
        Self::Prepare,
        Self::ActivateKey,
        Self::Execute,
        Self::Pause,
        Self::Exclude,
        Self::Finish,
        Self::ReportProgress,
        Self::SetRecovered,
        Self::SetStatus,
        Self::ImportStatuses,
        Self::BeginPostRecovery,
        Self::HandOver,
        Self::AcceptStranded,
        Self::Close,
    ];

    /// As profiles and entries name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notify => "notify-compromise",
            Self::Confirm => "confirm-compromise",
            Self::Dismiss => "dismiss",
            Self::Assess => "assess",
            Self::Inform => "inform",
            Self::SubmitNotification => "submit-notification-file",
            Self::SetRecovery => "set-smi-status-recovery",
            Self::SubmitThresholds => "submit-adt-file",
            Self::Refer => "refer-to-pma",
            Self::SubscriberRecovery => "subscriber-recovery",
            Self::Determine => "determine",
            Self::Prepare => "prepare",
            Self::ActivateKey => "activate-key",
            Self::Execute => "execute",
            Self::Pause => "pause",
            Self::Exclude => "exclude",
            Self::Finish => "finish",
            Self::ReportProgress => "report-progress",
            Self::SetRecovered => "set-smi-status-recovered",
            Self::SetStatus => "set-smi-status",
            Self::ImportStatuses => "import-smi-statuses",
            Self::BeginPostRecovery => "begin-post-recovery",
            Self::HandOver => "hand-over",
            Self::AcceptStranded => "accept-stranded",
            Self::Close => "close",
        }
    }

    /// As a step id.
    pub fn id(self) -> StepId {
        self.as_str().parse().expect("the names above are step ids")
    }

    /// The step that a file is; none for what goes between the DCC and the Smart Metering Inventory.
    pub const fn of_file(kind: FileKind) -> Option<Self> {
        match kind {
            FileKind::OrganisationNotification | FileKind::OtherNotification => Some(Self::SubmitNotification),
            FileKind::Adt => Some(Self::SubmitThresholds),
            FileKind::OrganisationProgress | FileKind::OtherProgress => Some(Self::ReportProgress),
            FileKind::SmiExtract | FileKind::SmiExport => None,
        }
    }

    /// The meaning of a step, if this program knows it.
    pub fn of(step: &StepId) -> Option<Self> {
        Self::ALL.into_iter().find(|meaning| meaning.as_str() == step.as_str())
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
