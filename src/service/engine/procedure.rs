//! Shell: what answers questions about the procedure.

use crate::api::failure::Failure;
use crate::api::wire::{Explanation, Instant, ProcedureOf};
use crate::domain::fold::Fold;
use crate::domain::procedure::explain;
use crate::domain::time::Timestamp;

/// The procedure of the policy in force at a moment, and what it means for an incident as it stands now.
pub(super) fn explained(fold: &Fold, of: &ProcedureOf, now: Timestamp) -> Result<Explanation, Failure> {
    let ProcedureOf { at, incident } = of;
    let at = at.map_or(now, Instant::moment);
    let adopted = fold.policy().ok_or_else(|| Failure::NotFound { what: "a policy".into() })?;
    let procedure = adopted.policy.procedure().ok_or_else(|| Failure::NotFound {
        what: "a procedure in the policy in force: procedure/base.toml names no steps".into(),
    })?;
    let view = match incident {
        None => None,
        Some(incident) => {
            let absent = || Failure::NotFound { what: format!("incident {incident}") };
            Some(fold.incident_view(incident, now).ok_or_else(absent)?)
        }
    };
    Ok(explain(&procedure.in_force(at, fold.extensions()), view.as_ref()))
}
