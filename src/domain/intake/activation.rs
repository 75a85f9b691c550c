//! Pure. May this key be activated, and for which incident alone?

use super::{Context, Reasons, policy_in_force, profile_in_force};
use crate::domain::ledger::entry::{Actor, KeyActivated, Reason, TokenFound};
use crate::domain::names::{DeterminationId, IncidentId, KeyLabel, KeyUse};
use crate::domain::policy::custodians::Count;
use crate::domain::policy::facts::KeyFacts;
use crate::domain::policy::rules::{self, Refusal};
use crate::domain::policy::{Activation, Policy};
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
    let Opened { until, custodians } = may_activate(context, by, key, incident)?;
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
        custodians,
    }))
}

/// Whether a key may be activated for an incident, before a token is touched; answers the first moment at which it would be locked
/// again, and by whose presentations it is opened.
///
/// # Errors
/// Every reason against it.
pub fn may_activate(
    context: &Context<'_>,
    by: &Actor,
    key: &KeyLabel,
    incident: &IncidentId,
) -> Result<Opened, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let (fold, at) = (context.fold, context.at);
    let policy = &policy_in_force(fold, &mut reasons)?.policy;
    let Some(facts) = fold.keys().get(key) else {
        reasons.add("key-unknown", format!("the ledger has no key {key}"));
        return Err(reasons.0);
    };
    if facts.record.use_ == KeyUse::Ledger {
        reasons.add("key-use", format!("key {key} signs checkpoints; it is active while smkid runs"));
        return Err(reasons.0);
    }
    let of = StandsFor { key, incident };
    let determination = standing_for(context, of, facts, policy, &mut reasons);
    if let Some(facts) = determination.and_then(|id| fold.batch_facts(by, id, at, context.clock))
        && let Err(refusals) = rules::decide_asker(&facts)
    {
        reasons.0.extend(refusals.iter().map(Refusal::reason));
    }
    let until = at.plus_ms(i64::from(policy.limits().activation_seconds) * 1_000);
    let opened = match policy.key(key).map(|key| key.activation) {
        Some(Activation::Stored) => Some(Opened { until, custodians: Vec::new() }),
        Some(Activation::Custodians | Activation::ProtectedPath) => determination
            .and_then(|determination| by_custodians(policy, facts, (incident, determination), at, &mut reasons))
            .map(|(custodians, expires)| {
                // Activating it again is for a token that was away; longer it stays open by presenting anew alone.
                let open = facts.active.flatten().filter(|_| facts.is_active(at));
                Opened { until: open.map_or(until, |open| until.min(open)).min(expires), custodians }
            }),
        None => None,
    };
    reasons.end(opened)
}

/// Until when a key is opened, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The first moment at which it is locked again.
    pub until: Timestamp,
    /// The entries of the Key Custodians who open it; none where the PIN is stored.
    pub custodians: Vec<u64>,
}

/// Whether the Key Custodians who presented are enough: their entries, and when the first of their statements expires.
fn by_custodians(
    policy: &Policy,
    facts: &KeyFacts,
    of: (&IncidentId, DeterminationId),
    at: Timestamp,
    reasons: &mut Reasons,
) -> Option<(Vec<u64>, Timestamp)> {
    let count = Count::of(policy, facts, of, at);
    let key = &facts.record.label;
    reasons.demand("custodians", count.have() >= count.need, || {
        format!(
            "{} of {} Key Custodians who are needed presented for key {key} and incident {}{}. Who still can: `smkictl custodian \
             status {key}`; each brings a share with `smkictl custodian present`",
            count.have(),
            count.need,
            of.0,
            count.why()
        )
    });
    reasons.demand("custodians-of-one-party", count.have() < count.need || count.parties_have() >= count.parties_need, || {
        format!(
            "the {} Key Custodians who presented for key {key} are of {} Party, {} needed: no Party opens a key by itself. Ask a \
             custodian of another (`smkictl custodian status {key}`)",
            count.have(),
            count.parties_have(),
            count.parties_need
        )
    });
    if count.is_enough() { count.expires().map(|expires| (count.entries(), expires)) } else { None }
}

/// What a key would be opened for.
#[derive(Clone, Copy)]
pub(super) struct StandsFor<'a> {
    /// Which key.
    pub key: &'a KeyLabel,
    /// For which incident.
    pub incident: &'a IncidentId,
}

/// What an activation and a presentation ask alike: the key is not ending, not being dealt and not active for another incident; the incident is prepared,
/// and follows a determination that is in force and about this key. Answers that determination.
pub(super) fn standing_for(
    context: &Context<'_>,
    StandsFor { key, incident }: StandsFor<'_>,
    facts: &KeyFacts,
    policy: &Policy,
    reasons: &mut Reasons,
) -> Option<DeterminationId> {
    let (fold, at) = (context.fold, context.at);
    if facts.ending.is_some() {
        reasons.add("key-ends", format!("key {key} is destroyed, or about to be: it is not activated any more"));
    }
    if let Some(dealing) = &facts.dealing {
        reasons.add(
            "deal-unfinished",
            format!(
                "shares of key {key} are being dealt anew: the PINs of its tokens change to those of generation {}, so each may be either. Let that \
                 come to its end (`smkictl ceremony deal --key {key}` goes on where it was), then ask again",
                dealing.generation
            ),
        );
    }
    if let Some(other) = facts.active_for.as_ref().filter(|other| *other != incident && facts.is_active(at)) {
        let refusal =
            Refusal::KeyOfAnotherIncident { key: key.clone(), active_for: other.clone(), incident: incident.clone() };
        reasons.0.push(refusal.reason());
    }
    if !fold.incidents().contains_key(incident) {
        reasons.add("incident-unknown", format!("no incident {incident} is known"));
        return None;
    }
    let Some(determination) = fold.followed_by(incident) else {
        let text = format!("incident {incident} follows no determination; a key is activated for one to execute");
        reasons.add("determination-unknown", text);
        return None;
    };
    let daemon = Actor::daemon();
    if let Some(facts) = fold.batch_facts(&daemon, determination, at, context.clock) {
        if let Err(refusals) = rules::decide_opening(&facts) {
            reasons.0.extend(refusals.iter().map(Refusal::reason));
        }
        let required = facts.determination.and_then(|facts| facts.key.as_ref()).map(|(label, _)| label);
        if let Some(required) = required.filter(|required| *required != key) {
            reasons.add("key-differs", format!("determination {determination} requires key {required}, not {key}"));
        }
    }
    reasons.demand("activation", policy.key(key).is_some(), || {
        format!("the policy in force names no key {key}; adopt one that does")
    });
    Some(determination)
}
