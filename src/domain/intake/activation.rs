//! Pure. May this key be activated, and for which incident alone?

use super::{Context, Reasons, policy_in_force, profile_in_force};
use crate::domain::ledger::entry::{Actor, KeyActivated, Reason, TokenFound};
use crate::domain::names::{IncidentId, KeyLabel, KeyUse};
use crate::domain::policy::Activation;
use crate::domain::policy::rules::{self, Refusal};
use crate::domain::time::Timestamp;

/// The activation of a key for one incident (rule 39), on the tokens on which it was found, in the order of the policy: prepared or
/// paused, and its determination in force and about this key.
///
/// # Errors
/// Every reason against it.
pub fn activation(
    context: &Context<'_>,
    by: &Actor,
    (key, incident): (&KeyLabel, &IncidentId),
    on: Vec<TokenFound>,
) -> Result<KeyActivated, Vec<Reason>> {
    let until = may_activate(context, by, key, incident)?;
    let mut reasons = Reasons::default();
    let policy = &policy_in_force(context.fold, &mut reasons)?.policy;
    let found = on.iter().map(|found| (&found.token, &*found.serial));
    match context.fold.keys().get(key).map(|facts| facts.may_be_on(policy, found)) {
        Some(Ok(())) => {}
        Some(Err(fault)) => reasons.add("token", fault.to_string()),
        None => reasons.add("key-unknown", format!("the ledger has no key {key}")),
    }
    let mut on = on.into_iter();
    let first = on.next();
    if first.is_none() {
        reasons.add("token", format!("key {key} was found on no token that is up"));
    }
    reasons.end(first.map(|TokenFound { token, serial }| KeyActivated {
        key: key.clone(),
        token,
        serial,
        until: Some(until),
        incident: Some(incident.clone()),
        profile: profile_in_force(context.fold, context.at),
        also: on.collect(),
    }))
}

/// Whether a key may be activated for an incident, before a token is touched; answers the first moment at which it would be locked
/// again.
///
/// # Errors
/// Every reason against it.
pub fn may_activate(
    context: &Context<'_>,
    by: &Actor,
    key: &KeyLabel,
    incident: &IncidentId,
) -> Result<Timestamp, Vec<Reason>> {
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
    reasons.end(Some(at.plus_ms(i64::from(policy.limits().activation_seconds) * 1_000)))
}
