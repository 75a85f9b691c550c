//! Pure. The state machine of an incident: where each step may be taken, and what leads where. No official reference: the states
//! render the phases of SEC Appendix L, whose step tables are not public to us.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::ledger::meaning::Meaning;

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A Compromise was notified.
    Reported,
    /// It was confirmed by a permitted mechanism.
    Confirmed,
    /// It was none.
    Dismissed,
    /// Class, Relevant Subscriber, Relevant Devices and method are known.
    Assessed,
    /// The Subscriber recovers with its own key (Method 1).
    SubscriberRecovery,
    /// The SMKI PMA has it.
    Referred,
    /// The PMA determined not to execute.
    DeterminedNotToExecute,
    /// The PMA determined to execute.
    DeterminedToExecute,
    /// What must precede the use of the key is done.
    Prepared,
    /// The key of the determination is active.
    KeyActive,
    /// Commands are being signed.
    Executing,
    /// Signing was paused or the key was locked.
    Paused,
    /// Every target came to an end.
    Executed,
    /// Control is handed back, spent material replaced.
    PostRecovery,
    /// It is over.
    Closed,
    /// The PMA withdrew its determination.
    Withdrawn,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 16] = [
        Self::Reported,
        Self::Confirmed,
        Self::Dismissed,
        Self::Assessed,
        Self::SubscriberRecovery,
        Self::Referred,
        Self::DeterminedNotToExecute,
        Self::DeterminedToExecute,
        Self::Prepared,
        Self::KeyActive,
        Self::Executing,
        Self::Paused,
        Self::Executed,
        Self::PostRecovery,
        Self::Closed,
        Self::Withdrawn,
    ];

    /// Its name, as programs read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Confirmed => "confirmed",
            Self::Dismissed => "dismissed",
            Self::Assessed => "assessed",
            Self::SubscriberRecovery => "subscriber-recovery",
            Self::Referred => "referred",
            Self::DeterminedNotToExecute => "determined-not-to-execute",
            Self::DeterminedToExecute => "determined-to-execute",
            Self::Prepared => "prepared",
            Self::KeyActive => "key-active",
            Self::Executing => "executing",
            Self::Paused => "paused",
            Self::Executed => "executed",
            Self::PostRecovery => "post-recovery",
            Self::Closed => "closed",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// What it means, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Reported => "a Compromise was notified, and is not confirmed yet",
            Self::Confirmed => "the Compromise, or the suspicion, was confirmed by a permitted mechanism",
            Self::Dismissed => "it was no Compromise; the incident waits to be closed",
            Self::Assessed => "Relevant Devices and method are recorded; the SMKI PMA does not have it yet",
            Self::SubscriberRecovery => "the Subscriber recovers with its own key (Method 1)",
            Self::Referred => "it is before the SMKI PMA, which has not determined yet",
            Self::DeterminedNotToExecute => "the SMKI PMA determined that recovery is not executed",
            Self::DeterminedToExecute => "the SMKI PMA determined that recovery is executed; it is being prepared",
            Self::Prepared => "everything before the use of the key is done; the key is locked",
            Self::KeyActive => "the key is active, and nothing is signed yet",
            Self::Executing => "commands are being signed, and Devices answer",
            Self::Paused => "the key is locked, and nothing is signed",
            Self::Executed => "every target is proven recovered or left out; Post-Recovery has not begun",
            Self::PostRecovery => "SMI Status, handover and reports are brought to their end",
            Self::Closed => "it is over",
            Self::Withdrawn => "the SMKI PMA withdrew its determination; the incident waits to be closed",
        }
    }

    /// Whether an incident goes no further than to its closure, so that Devices left in 'recovery' are stranded for good.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Dismissed
            | Self::SubscriberRecovery
            | Self::DeterminedNotToExecute
            | Self::Executed
            | Self::PostRecovery
            | Self::Closed
            | Self::Withdrawn => true,
            Self::Reported
            | Self::Confirmed
            | Self::Assessed
            | Self::Referred
            | Self::DeterminedToExecute
            | Self::Prepared
            | Self::KeyActive
            | Self::Executing
            | Self::Paused => false,
        }
    }

    /// The states that follow at once.
    const fn leads_to(self) -> &'static [Self] {
        match self {
            Self::Reported => &[Self::Confirmed, Self::Dismissed],
            Self::Confirmed => &[Self::Assessed],
            Self::Assessed => &[Self::Assessed, Self::SubscriberRecovery, Self::Referred],
            Self::Referred => &[Self::DeterminedNotToExecute, Self::DeterminedToExecute, Self::Withdrawn],
            Self::DeterminedNotToExecute => &[Self::Referred, Self::DeterminedToExecute, Self::Withdrawn, Self::Closed],
            Self::DeterminedToExecute => &[Self::Prepared, Self::DeterminedNotToExecute, Self::Withdrawn],
            Self::Prepared => {
                &[Self::KeyActive, Self::DeterminedToExecute, Self::DeterminedNotToExecute, Self::Withdrawn]
            }
            Self::KeyActive => &[
                Self::Executing,
                Self::Paused,
                Self::DeterminedToExecute,
                Self::DeterminedNotToExecute,
                Self::Withdrawn,
            ],
            Self::Executing | Self::Paused => &[
                Self::KeyActive,
                Self::Paused,
                Self::Executed,
                Self::DeterminedToExecute,
                Self::DeterminedNotToExecute,
                Self::Withdrawn,
            ],
            Self::Executed => &[Self::PostRecovery],
            Self::Dismissed | Self::SubscriberRecovery | Self::PostRecovery | Self::Withdrawn => &[Self::Closed],
            Self::Closed => &[],
        }
    }

    /// Whether an incident that stands here may come to stand in any of these, now or later.
    pub fn may_reach(self, states: &[Self]) -> bool {
        let (mut seen, mut at) = (vec![self], 0);
        while let Some(state) = seen.get(at).copied() {
            if states.contains(&state) {
                return true;
            }
            seen.extend(state.leads_to().iter().filter(|next| !seen.contains(next)).copied().collect::<Vec<_>>());
            at += 1;
        }
        false
    }

    /// Whether the activation of its key is what comes next.
    pub const fn awaits_key(self) -> bool {
        matches!(self, Self::Prepared | Self::Paused)
    }

    /// Whether commands may be signed. What was signed may be handed over for longer (`check_release` in
    /// `domain/policy/rules/procedure.rs`).
    pub const fn may_sign(self) -> bool {
        matches!(self, Self::KeyActive | Self::Executing)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// States in which the targets are known and the incident is not over.
const TARGETED: &[State] = &[
    State::Assessed,
    State::SubscriberRecovery,
    State::Referred,
    State::DeterminedNotToExecute,
    State::DeterminedToExecute,
    State::Prepared,
    State::KeyActive,
    State::Executing,
    State::Paused,
    State::Executed,
    State::PostRecovery,
    State::Withdrawn,
];

/// States in which a recovery with the DCC's key is still to come: beyond them nothing brings a Device back that is set to 'recovery'.
const TO_BE_RECOVERED: &[State] = &[
    State::Assessed,
    State::Referred,
    State::DeterminedToExecute,
    State::Prepared,
    State::KeyActive,
    State::Executing,
    State::Paused,
];

/// The states in which a step may be taken. That the profile has it in its turn is asked besides.
pub const fn places(step: Meaning) -> &'static [State] {
    match step {
        // It is what begins an incident.
        Meaning::Notify => &[],
        Meaning::Confirm | Meaning::Dismiss => &[State::Reported],
        Meaning::Assess => &[State::Confirmed, State::Assessed],
        Meaning::Inform => &[
            State::Reported,
            State::Confirmed,
            State::Dismissed,
            State::Assessed,
            State::SubscriberRecovery,
            State::Referred,
            State::DeterminedNotToExecute,
            State::DeterminedToExecute,
            State::Prepared,
            State::KeyActive,
            State::Executing,
            State::Paused,
            State::Executed,
            State::PostRecovery,
            State::Withdrawn,
        ],
        // It may be what notified the Compromise; new facts may come with another.
        Meaning::SubmitNotification => &[
            State::Reported,
            State::Confirmed,
            State::Assessed,
            State::SubscriberRecovery,
            State::Referred,
            State::DeterminedNotToExecute,
        ],
        Meaning::SetRecovery | Meaning::SubmitThresholds => TO_BE_RECOVERED,
        Meaning::Refer => &[State::Assessed, State::DeterminedNotToExecute],
        Meaning::SubscriberRecovery => &[State::Assessed],
        Meaning::Determine => &[
            State::Referred,
            State::DeterminedNotToExecute,
            State::DeterminedToExecute,
            State::Prepared,
            State::KeyActive,
            State::Executing,
            State::Paused,
        ],
        Meaning::Prepare => &[State::DeterminedToExecute],
        Meaning::ActivateKey => &[State::Prepared, State::Paused],
        Meaning::Execute => &[State::KeyActive, State::Executing],
        // It may stand still because its key is locked, and what was signed be handed over all the same.
        Meaning::Pause => &[State::KeyActive, State::Executing, State::Paused],
        Meaning::Finish => &[State::Executing, State::Paused],
        Meaning::Exclude | Meaning::SetStatus | Meaning::ImportStatuses | Meaning::ReportProgress => TARGETED,
        // A Device's Response may come after any determination, and late.
        Meaning::SetRecovered => &[
            State::Referred,
            State::DeterminedNotToExecute,
            State::DeterminedToExecute,
            State::Prepared,
            State::KeyActive,
            State::Executing,
            State::Paused,
            State::Executed,
            State::PostRecovery,
            State::Withdrawn,
        ],
        Meaning::BeginPostRecovery => &[State::Executed],
        Meaning::HandOver => &[State::PostRecovery, State::DeterminedNotToExecute, State::Withdrawn],
        Meaning::AcceptStranded => &[
            State::DeterminedNotToExecute,
            State::SubscriberRecovery,
            State::Executed,
            State::PostRecovery,
            State::Withdrawn,
            State::Dismissed,
        ],
        Meaning::Close => &[
            State::PostRecovery,
            State::SubscriberRecovery,
            State::DeterminedNotToExecute,
            State::Dismissed,
            State::Withdrawn,
        ],
    }
}

/// Whether anything goes on without a step of this meaning when the SMKI PMA directs to depart from it. Without the others an incident
/// has no next state, or a key would be opened by something else than a determination.
pub const fn may_be_departed_from(step: Meaning) -> bool {
    match step {
        Meaning::SubmitNotification
        | Meaning::SetRecovery
        | Meaning::SubmitThresholds
        | Meaning::SetRecovered
        | Meaning::HandOver => true,
        Meaning::Notify
        | Meaning::Confirm
        | Meaning::Dismiss
        | Meaning::Assess
        | Meaning::Inform
        | Meaning::Refer
        | Meaning::SubscriberRecovery
        | Meaning::Determine
        | Meaning::Prepare
        | Meaning::ActivateKey
        | Meaning::Execute
        | Meaning::Pause
        | Meaning::Exclude
        | Meaning::Finish
        | Meaning::ReportProgress
        | Meaning::SetStatus
        | Meaning::ImportStatuses
        | Meaning::BeginPostRecovery
        | Meaning::AcceptStranded
        | Meaning::Close => false,
    }
}

#[cfg(test)]
mod tests;
