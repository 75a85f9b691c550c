//! Pure. The procedure as dated data: a base profile, and variations laid over it for a time.
//!
//! Nothing of the SMKI Recovery Procedure is compiled in but how its parts fit together. Its steps stand in
//! `keys-policy/procedure/base.toml`, what varies them in a file of its own ([`variation`]), and what prolongs a variation or
//! departs from a step is a direction in the ledger ([`direction`]). [`Procedure::in_force`] lays them over each other for one
//! moment; [`in_force::demands`] is the one gate: guards refuse by it, and what is to be done next and what is explained are read from it
//! ([`explain`](mod@explain)). Dates are civil dates of Europe/London ([`calendar`]).

pub mod calendar;
pub mod direction;
pub mod explain;
pub mod in_force;
pub mod profile;
pub mod state;
pub mod variation;

pub use calendar::{CivilDate, EndDay};
pub use explain::{Explanation, explain};
pub use in_force::{Determined, InForce, IncidentView, May, Requirement, Text, WithKey, required};
pub use profile::{Actor, Duty, Gate, Label, Phase, Profile, Step};
pub use state::{State, places};
pub use variation::{Clause, Effect, Extension, Record, Variation};

use crate::domain::names::ProfileId;

/// A base profile and the variations that may lie over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Procedure {
    base: Profile,
    variations: Vec<Variation>,
}

impl Procedure {
    /// Of a base and its variations; in the order of their ids.
    ///
    /// Whether clauses name steps that the base has is asked where the files are read.
    pub fn new(base: Profile, mut variations: Vec<Variation>) -> Self {
        variations.sort_by(|one, other| one.id.cmp(&other.id));
        Self { base, variations }
    }

    /// What holds where nothing is varied.
    pub fn base(&self) -> &Profile {
        &self.base
    }

    /// What may lie over it.
    pub fn variations(&self) -> &[Variation] {
        &self.variations
    }

    /// The variation of that id.
    pub fn variation(&self, id: &ProfileId) -> Option<&Variation> {
        self.variations.iter().find(|variation| variation.id == *id)
    }
}
