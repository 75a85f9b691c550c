//! Commands are signed and handed over at their place in the procedure, and for Relevant Devices. Rules 24 and 39, and the state machine.

use super::{BatchFacts, CommandFacts, Refusal};
use crate::domain::names::DeviceId;
use crate::domain::procedure::State;

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

/// What was signed is handed over where commands are signed, and while only the key is locked: a lock stops the signing, not what was
/// permitted and done before. Whoever wants that back too pauses the incident.
pub(super) fn check_release(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some((incident, progress)) = facts.incident.and_then(|facts| Some((facts, facts.progress.as_ref()?))) else {
        return Ok(());
    };
    if progress.state != State::Paused {
        return check_state(facts);
    }
    progress.paused_by.map_or(Ok(()), |entry| Err(Refusal::Paused { incident: incident.id.clone(), entry }))
}

/// The key is activated where the procedure has it: when everything before is done, or after a pause.
pub(super) fn check_awaits_key(facts: &BatchFacts<'_>) -> Result<(), Refusal> {
    let Some((incident, progress)) = facts.incident.and_then(|facts| Some((facts, facts.progress.as_ref()?))) else {
        return Ok(());
    };
    if progress.state.awaits_key() {
        return Ok(());
    }
    Err(Refusal::NotPrepared { incident: incident.id.clone(), state: progress.state })
}

pub(super) fn check_command(facts: &CommandFacts<'_>) -> Result<(), Refusal> {
    check_target(facts.batch, facts.device)
}

pub(super) fn check_target(facts: &BatchFacts<'_>, device: DeviceId) -> Result<(), Refusal> {
    let Some((incident, progress)) = facts.incident.and_then(|facts| Some((facts, facts.progress.as_ref()?))) else {
        return Ok(());
    };
    let id = incident.id.clone();
    match progress.targets.get(device) {
        None => Err(Refusal::NotATarget { device, incident: id }),
        Some(target) if target.excluded => Err(Refusal::Excluded { device, incident: id }),
        Some(_) => Ok(()),
    }
}
