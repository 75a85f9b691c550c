//! Pure. May this key be activated, and for which incident alone?

use super::{Context, Reasons, policy_in_force, profile_in_force};
use crate::domain::ledger::entry::{Actor, KeyActivated, Reason};
use crate::domain::names::{IncidentId, KeyLabel, KeyUse};
use crate::domain::policy::Activation;
use crate::domain::policy::rules::{self, Refusal};

/// The activation of a key for one incident (rule 39): prepared or paused, and its determination in force and about this key.
///
/// # Errors
/// Every reason against it.
pub fn activation(
    context: &Context<'_>,
    by: &Actor,
    key: &KeyLabel,
    incident: &IncidentId,
) -> Result<KeyActivated, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let (fold, at, clock) = (context.fold, context.at, context.clock);
    let policy = &policy_in_force(fold, &mut reasons)?.policy;
    let Some(facts) = fold.keys().get(key) else {
        reasons.add("key-unknown", format!("the ledger has no key {key}"));
        return Err(reasons.0);
    };
    match (facts.record.use_, policy.key(key).map(|key| key.activation)) {
        (KeyUse::Ledger, _) => {
            reasons.add("key-use", format!("key {key} signs checkpoints; it is active while smkid runs"));
            return Err(reasons.0);
        }
        (KeyUse::Recovery | KeyUse::Contingency, Some(Activation::Stored)) => {}
        (KeyUse::Recovery | KeyUse::Contingency, Some(Activation::Custodians)) => reasons.add(
            "activation",
            format!(
                "the policy has key {key} activated by Key Custodians, which this version cannot do yet; a stored PIN is for the \
                 ledger token, and for exercises"
            ),
        ),
        (KeyUse::Recovery | KeyUse::Contingency, None) => {
            reasons.add("activation", format!("the policy in force names no key {key}; adopt one that does"));
        }
    }
    if let Some(other) = facts.active_for.as_ref().filter(|other| *other != incident && facts.is_active(at)) {
        let refusal =
            Refusal::KeyOfAnotherIncident { key: key.clone(), active_for: other.clone(), incident: incident.clone() };
        reasons.0.push(refusal.reason());
    }
    if !fold.incidents().contains_key(incident) {
        reasons.add("incident-unknown", format!("no incident {incident} is known"));
        return Err(reasons.0);
    }
    let Some(determination) = fold.followed_by(incident) else {
        let text = format!("incident {incident} follows no determination; a key is activated for one to execute");
        reasons.add("determination-unknown", text);
        return Err(reasons.0);
    };
    if let Some(facts) = fold.batch_facts(by, determination, at, clock) {
        if let Err(refusals) = rules::decide_activation(&facts) {
            reasons.0.extend(refusals.iter().map(Refusal::reason));
        }
        let required = facts.determination.and_then(|facts| facts.key.as_ref()).map(|(label, _)| label);
        if let Some(required) = required.filter(|required| *required != key) {
            reasons.add("key-differs", format!("determination {determination} requires key {required}, not {key}"));
        }
    }
    reasons.end(Some(KeyActivated {
        key: key.clone(),
        token: facts.record.token.clone(),
        serial: facts.record.serial.clone(),
        until: Some(at.plus_ms(i64::from(policy.limits().activation_seconds) * 1_000)),
        incident: Some(incident.clone()),
        profile: profile_in_force(fold, at),
    }))
}
