//! Pure. `smkid-direction/v1`: a direction as the SMKI PMA's quorum records it. It extends a variation, or departs from a step in
//! one incident; it never edits a profile.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Procedure;
use super::calendar::CivilDate;
use super::in_force::{Determined, IncidentView};
use super::variation::{Extension, ExtensionFault};
use crate::domain::determination::document::{DocumentFault, Form, LedgerHead, Proposed, Type, Written};
use crate::domain::determination::prose::Prose;
use crate::domain::names::{Digest, DirectionId, IncidentId, PersonId, ProfileId, Purpose, StepId};
use crate::domain::time::Timestamp;

/// The greatest length of a direction's own text in octets: that of 18 July 2017 is a letter of a few pages, as PDF under 1 MiB.
pub const TEXT_LEN_MAX: usize = 1024 * 1024;

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Direction {
    /// [`Form::TYPE`].
    pub r#type: Type<Self>,
    /// Live or exercise.
    pub purpose: Purpose,
    /// 128 random bits, single use.
    pub id: DirectionId,
    /// Who drafted it.
    pub proposer: PersonId,
    /// The head that the drafter saw.
    pub ledger: LedgerHead,
    /// The digest of the policy in force.
    pub policy: Digest,
    /// Who directed it, when, and under which power.
    pub reference: Prose,
    /// SHA-256 of the direction's own text, or null. The field is always there.
    #[serde(deserialize_with = "Option::deserialize")]
    pub text: Option<Digest>,
    /// What is directed.
    pub directs: Directs,
}

/// What a direction does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Directs {
    /// A variation lasts longer.
    Extension {
        /// Which.
        variation: ProfileId,
        /// Until which day, or null: until further notice. The field is always there.
        #[serde(deserialize_with = "Option::deserialize")]
        until: Option<CivilDate>,
    },
    /// A step need not be taken in one incident, or not in its turn.
    Departure {
        /// In which.
        incident: IncidentId,
        /// Which step.
        step: StepId,
        /// Why.
        reason: Prose,
    },
}

impl Directs {
    /// The incident that it is about; none where it is about a variation.
    pub const fn incident(&self) -> Option<&IncidentId> {
        match self {
            Self::Extension { .. } => None,
            Self::Departure { incident, .. } => Some(incident),
        }
    }
}

impl Form for Direction {
    const TYPE: &'static str = "smkid-direction/v1";

    fn faults(&self) -> Vec<DocumentFault> {
        Vec::new()
    }
}

impl Proposed for Direction {
    fn proposer(&self) -> &PersonId {
        &self.proposer
    }
    fn policy(&self) -> Digest {
        self.policy
    }
    fn ledger(&self) -> &LedgerHead {
        &self.ledger
    }
    fn purpose(&self) -> Purpose {
        self.purpose
    }
}

/// A departure, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Departure {
    /// The direction.
    pub direction: DirectionId,
    /// From which step.
    pub step: StepId,
    /// Why.
    pub reason: Prose,
    /// When it was recorded.
    pub recorded: Timestamp,
}

/// Why a direction is refused by the procedure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectionFault {
    /// The policy has no procedure.
    #[error("the policy in force has no procedure: procedure/base.toml names no steps; adopt a policy that has them")]
    NoProcedure,
    /// Nothing of that name.
    #[error("expected a variation of the policy ({}), found {found}; a new variation is a file of its own in procedure/, \
             adopted by a policy", known.join(", "))]
    VariationUnknown {
        /// What the policy has.
        known: Vec<String>,
        /// What the document names.
        found: ProfileId,
    },
    /// It cannot be extended so.
    #[error("{0}")]
    Extension(ExtensionFault),
    /// No such step.
    #[error("profile {profile} has no step {found}; `smkictl procedure explain` lists them")]
    StepUnknown {
        /// The base profile.
        profile: ProfileId,
        /// What the document names.
        found: StepId,
    },
    /// A step that no direction replaces.
    #[error(
        "no direction departs from step {step} (profile {profile}: departure = \"never\"): nothing goes on without it, and keys are \
             opened by a determination and by nothing else"
    )]
    StepFixed {
        /// The base profile.
        profile: ProfileId,
        /// Which.
        step: StepId,
    },
    /// It was taken already.
    #[error("step {step} was taken in incident {incident} already; there is nothing to depart from")]
    StepDone {
        /// In which.
        incident: IncidentId,
        /// Which.
        step: StepId,
    },
    /// It was departed from already.
    #[error("direction {by} departs from step {step} in incident {incident} already")]
    Departed {
        /// In which.
        incident: IncidentId,
        /// Which.
        step: StepId,
        /// The earlier direction.
        by: DirectionId,
    },
}

/// Whether the procedure lets a direction do what it says; `view` is of the incident that a departure names.
///
/// # Errors
/// The one reason why not.
pub fn check(
    document: &Written<Direction>,
    procedure: Option<&Procedure>,
    extensions: &[Extension],
    view: Option<&IncidentView<'_>>,
    at: Timestamp,
) -> Result<(), DirectionFault> {
    let procedure = procedure.ok_or(DirectionFault::NoProcedure)?;
    match &document.form().directs {
        Directs::Extension { variation, until } => {
            let Some(found) = procedure.variation(variation) else {
                let known = procedure.variations().iter().map(|variation| variation.id.to_string()).collect();
                return Err(DirectionFault::VariationUnknown { known, found: variation.clone() });
            };
            found.check_extension(extensions, *until, at).map_err(DirectionFault::Extension)
        }
        Directs::Departure { incident, step, reason: _ } => {
            let base = procedure.base();
            let (profile, wanted) = (base.id.clone(), step.clone());
            match base.step(step) {
                None => return Err(DirectionFault::StepUnknown { profile, found: wanted }),
                Some(step) if !step.departure => return Err(DirectionFault::StepFixed { profile, step: wanted }),
                Some(_) => {}
            }
            let Some(view) = view else { return Ok(()) };
            if let Some(by) = view.departures.get(step) {
                return Err(DirectionFault::Departed { incident: incident.clone(), step: wanted, by: *by });
            }
            if view.has_done(step) {
                return Err(DirectionFault::StepDone { incident: incident.clone(), step: wanted });
            }
            Ok(())
        }
    }
}

impl IncidentView<'_> {
    /// An incident of which nothing is known yet.
    pub const fn new() -> Self {
        Self {
            determination: Determined::None,
            not_in_force: None,
            begins: None,
            method: None,
            done: BTreeSet::new(),
            waiting: BTreeMap::new(),
            arisen: BTreeSet::new(),
            departures: BTreeMap::new(),
            state: None,
            state_name: "not opened",
        }
    }
}

impl Default for IncidentView<'_> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
