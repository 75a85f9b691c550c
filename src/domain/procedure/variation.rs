//! Pure. A variation: what a direction changes, from when, and until when.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::calendar::{CivilDate, EndDay};
use super::profile::{Actor, Gate};
use crate::domain::determination::prose::Prose;
use crate::domain::names::{ClauseId, DirectionId, FactorId, ProfileId, StepId};
use crate::domain::time::Timestamp;

/// A variation of the procedure for a time, with all else that the same direction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variation {
    /// What entries call it.
    pub id: ProfileId,
    /// What people call it.
    pub title: Prose,
    /// The direction, and the power under which it was made.
    pub reference: Prose,
    /// Its first day.
    pub from: CivilDate,
    /// The day that it lasts until; none if it has no end. A later one comes by an [`Extension`], never by an edit.
    pub until: Option<CivilDate>,
    /// Whether that day is part of it.
    pub end_day: EndDay,
    /// What it says.
    pub clauses: Vec<Clause>,
}

/// A clause of a variation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// As the direction letters it, or a name where it has no letter.
    pub id: ClauseId,
    /// What it says, in our words.
    pub text: Prose,
    /// What it does.
    pub effect: Effect,
}

/// What a clause does. What no clause touches keeps its base rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Steps are not owed before a gate opens. A relief and no prohibition: whoever it relieves may still take them earlier,
    /// and says why; a Subscriber by the file that its ARO signed.
    NotRequiredBefore {
        /// Which steps.
        steps: BTreeSet<StepId>,
        /// What ends the relief.
        gate: Gate,
        /// Whose duty it is.
        relieves: Actor,
    },
    /// A factor that the SMKI PMA may weigh while the variation is in force, and never must.
    OptionalFactor {
        /// As a determination names it.
        factor: FactorId,
    },
    /// Something else that the direction does on a day, and that does not end with the variation.
    Record(Record),
}

/// What a direction does to another text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What.
    pub what: Recorded,
    /// To which provision or document.
    pub provision: Prose,
    /// The day from which.
    pub with_effect: CivilDate,
    /// The version that a document has from then on.
    pub version: Option<Prose>,
}

/// What is done to a provision or document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recorded {
    /// A variation of it ceases to apply.
    Removed,
    /// It, or a variation of it, begins to apply.
    Activated,
    /// It is designated again, in another form.
    ReDesignated,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "variation removed",
            Self::Activated => "activated",
            Self::ReDesignated => "re-designated",
        })
    }
}

/// A direction that moves the end of a variation, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// The direction.
    pub direction: DirectionId,
    /// Which variation.
    pub variation: ProfileId,
    /// The day that it lasts until from then on; none if it has no end any more.
    pub until: Option<CivilDate>,
    /// The direction's own reference.
    pub reference: Prose,
    /// When it was recorded.
    pub recorded: Timestamp,
}

/// Why a variation cannot be extended so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionFault {
    /// It would not end later.
    #[error("variation {variation} lasts until {}, and an extension to {} would not prolong it; an extension only \
             lengthens, and a variation that is to end earlier needs another policy", day(*ends), day(Some(*wanted)))]
    NotLater {
        /// Which.
        variation: ProfileId,
        /// Its last day as it stands.
        ends: Option<CivilDate>,
        /// What was asked for.
        wanted: CivilDate,
    },
    /// It has no end already.
    #[error("variation {variation} has no end as it stands; there is nothing to extend")]
    NoEnd {
        /// Which.
        variation: ProfileId,
    },
    /// It is over.
    #[error(
        "variation {variation} ended at {ended}, and an extension does not bridge a gap: what was done since was done \
             under the procedure without it. Write a new variation file with dates of its own, and adopt it by a policy"
    )]
    Over {
        /// Which.
        variation: ProfileId,
        /// Since when.
        ended: Timestamp,
    },
}

fn day(date: Option<CivilDate>) -> String {
    date.map_or_else(|| "further notice".into(), |date| date.to_string())
}

/// Where a variation ends, and what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The day that it lasts until; none if it has no end.
    pub date: Option<CivilDate>,
    /// The first moment at which it is over.
    pub at: Option<Timestamp>,
    /// The extension that says so; none if its own file does.
    pub extended_by: Option<DirectionId>,
}

impl Variation {
    /// The first moment at which it is in force.
    pub fn begins(&self) -> Timestamp {
        self.from.begins()
    }

    /// Where it ends, with every extension: the latest day that any of them says.
    pub fn end(&self, extensions: &[Extension]) -> End {
        let mut end = (self.until, None);
        for extension in extensions.iter().filter(|extension| extension.variation == self.id) {
            let is_later = match (extension.until, end.0) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(later), Some(date)) => later > date,
            };
            if is_later {
                end = (extension.until, Some(extension.direction));
            }
        }
        let (date, extended_by) = end;
        End { date, at: date.map(|date| self.end_day.end_of(date)), extended_by }
    }

    /// Whether it may last until another day, asked at a moment.
    ///
    /// # Errors
    /// If it has no end, would not end later, or is over.
    pub fn check_extension(
        &self,
        extensions: &[Extension],
        until: Option<CivilDate>,
        at: Timestamp,
    ) -> Result<(), ExtensionFault> {
        let End { date, at: over, extended_by: _ } = self.end(extensions);
        let variation = || self.id.clone();
        let (Some(date), Some(over)) = (date, over) else {
            return Err(ExtensionFault::NoEnd { variation: variation() });
        };
        if over <= at {
            return Err(ExtensionFault::Over { variation: variation(), ended: over });
        }
        match until {
            Some(wanted) if wanted <= date => {
                Err(ExtensionFault::NotLater { variation: variation(), ends: Some(date), wanted })
            }
            Some(_) | None => Ok(()),
        }
    }
}
