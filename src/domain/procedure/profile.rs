//! Pure. A base profile: the steps of the procedure by their meaning, and the duties to inform.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::determination::document::Method;
use crate::domain::determination::prose::Prose;
use crate::domain::names::{DutyId, MechanismId, ProfileId, StepId};

/// Steps of one profile. SEC Appendix L has some dozen in each method. No official reference.
pub const STEPS_MAX: usize = 64;

/// Who takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// The DCC, by an operator whom the policy knows.
    Dcc,
    /// The affected Subscriber, by an SMKI ARO and a signed file.
    Subscriber,
    /// Any other SEC Party.
    Party,
    /// A Registration Data Provider.
    Rdp,
    /// The SMKI PMA, by a signed document.
    Pma,
    /// The Key Custodians.
    KeyCustodians,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dcc => "DCC",
            Self::Subscriber => "Subscriber (ARO)",
            Self::Party => "Party",
            Self::Rdp => "RDP",
            Self::Pma => "SMKI PMA",
            Self::KeyCustodians => "Key Custodians",
        })
    }
}

/// Who is informed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Recipient {
    /// The DCC.
    Dcc,
    /// The affected Subscriber.
    Subscriber,
    /// SEC Parties.
    Parties,
    /// Registration Data Providers.
    Rdps,
    /// The SMKI PMA.
    Pma,
    /// The Security Sub-Committee.
    Ssc,
    /// The SEC Panel.
    Panel,
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dcc => "DCC",
            Self::Subscriber => "affected Subscriber",
            Self::Parties => "Parties",
            Self::Rdps => "RDPs",
            Self::Pma => "SMKI PMA",
            Self::Ssc => "Security Sub-Committee",
            Self::Panel => "SEC Panel",
        })
    }
}

/// The three phases that each method has (SEC Appendix L).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before commands are signed.
    PreRecovery,
    /// While they are.
    Execution,
    /// After.
    PostRecovery,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreRecovery => "Pre-Recovery",
            Self::Execution => "Execution",
            Self::PostRecovery => "Post-Recovery",
        })
    }
}

/// What the SMKI PMA must have done before something opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// It determined whether or not to execute recovery: one way or the other.
    AnyDetermination,
    /// It determined to execute recovery.
    DeterminationToExecute,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AnyDetermination => "a determination of the SMKI PMA, either way",
            Self::DeterminationToExecute => "a determination of the SMKI PMA to execute",
        })
    }
}

/// Whether somebody owes a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Owed {
    /// It must be taken.
    #[default]
    Must,
    /// It may be.
    May,
}

/// What a version of a document prints beside a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Which document, and which version of it.
    #[schema(value_type = String)]
    pub document: Prose,
    /// What it prints, such as `4.2.1.2`.
    #[schema(value_type = String)]
    pub printed: Prose,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.printed, self.document)
    }
}

/// A step, by its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it means.
    pub id: StepId,
    /// Where it stands; no two steps stand at one place.
    pub order: u32,
    /// In which phase.
    pub phase: Phase,
    /// Who may take it.
    pub actors: BTreeSet<Actor>,
    /// What is done.
    pub text: Prose,
    /// What is printed beside it, by version of a document. None where no document at hand shows one.
    pub labels: Vec<Label>,
    /// The methods that it belongs to.
    pub methods: BTreeSet<Method>,
    /// Steps that come before it: each of a lower order.
    pub after: BTreeSet<StepId>,
    /// What the SMKI PMA must have determined before it may be taken at all. No relief and no direction opens that.
    pub needs: Option<Gate>,
    /// Whether it must be taken.
    pub owed: Owed,
    /// Whether a determination not to execute ends the duty: what is only done in order to recover.
    pub lapses: bool,
    /// Whether it may be taken again.
    pub repeats: bool,
    /// Whether a direction of the SMKI PMA may depart from it.
    pub departure: bool,
    /// Within how many hours it is to be taken, where that is configured.
    pub hours: Option<u32>,
}

/// A duty to inform somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty {
    /// Its id.
    pub id: DutyId,
    /// Who is to be informed.
    pub to: Recipient,
    /// The step with which it arises.
    pub arises_with: StepId,
    /// The step by which it is met, if one does so.
    pub met_by: Option<StepId>,
    /// Of what.
    pub text: Prose,
}

/// What holds where nothing is varied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What entries call it.
    pub id: ProfileId,
    /// What people call it.
    pub title: Prose,
    /// The text that it renders.
    pub document: Prose,
    /// The steps, by their order.
    pub steps: Vec<Step>,
    /// The duties to inform.
    pub duties: Vec<Duty>,
    /// The permitted mechanisms for confirming a Compromise (SEC Appendix L 2.2).
    pub mechanisms: Vec<Mechanism>,
}

/// A permitted mechanism for confirming a Compromise, or the suspicion of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mechanism {
    /// What entries call it.
    pub id: MechanismId,
    /// What is done.
    pub text: Prose,
}

impl Profile {
    /// The step of that meaning.
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == *id)
    }
}
