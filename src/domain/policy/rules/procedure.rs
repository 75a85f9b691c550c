//! Commands are signed at their place in the procedure, and for Relevant Devices. Rules 24 and 39, and the state machine.

use super::{BatchFacts, CommandFacts, Refusal};

pub(super) fn check_state(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some(incident) = facts.incident else { return Ok(()) };
    match &incident.progress {
        Some(progress) if !progress.state.may_sign() => {
            Err(Refusal::ProcedureState { incident: incident.id.clone(), state: progress.state })
        }
        // Under a policy without the procedure's steps, incidents have no state.
        Some(_) | None => Ok(()),
    }
}

pub(super) fn check_target(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    let Some((incident, progress)) = facts.batch.incident.and_then(|facts| Some((facts, facts.progress.as_ref()?)))
    else {
        return Ok(());
    };
    let (device, id) = (facts.device, incident.id.clone());
    match progress.targets.get(device) {
        None => Err(Refusal::NotATarget { device, incident: id }),
        Some(target) if target.excluded => Err(Refusal::Excluded { device, incident: id }),
        Some(_) => Ok(()),
    }
}
