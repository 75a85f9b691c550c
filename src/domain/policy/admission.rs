//! Pure. Whether a document may be recorded under a policy, before anybody's signature is counted. Every rule is asked, and
//! every refusal reported.

use std::collections::BTreeSet;

use super::destruction::Destruction;
use super::{Consider, Policy};
use crate::domain::determination::document::{
    Decision, Determination, Form, Method, Proposed, Schedule, Scope, Suspension, Weight, Withdrawal, Written,
};
use crate::domain::determination::times::{self, HOUR_MS, WrongTime};
use crate::domain::names::{
    DeterminationId, Digest, FactorId, IncidentId, KeyLabel, KeyUse, Origin, PersonId, Purpose, StepId,
};
use crate::domain::procedure::Extension;
use crate::domain::procedure::direction::Direction;
use crate::domain::time::Timestamp;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * HOUR_MS;

/// Why a document may not be recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Live and exercise never mix.
    #[error("the document is {document}, the policy {policy}; live and exercise never mix")]
    Purpose {
        /// Of the document.
        document: Purpose,
        /// Of the policy.
        policy: Purpose,
    },
    /// Another ledger.
    #[error("the document is for ledger {document}, ours is {policy}")]
    Origin {
        /// Of the document.
        document: Origin,
        /// Of the policy.
        policy: Origin,
    },
    /// Another policy.
    #[error("the document names policy {document}, in force is {policy}; draft it again under that")]
    Policy {
        /// Of the document.
        document: Digest,
        /// In force.
        policy: Digest,
    },
    /// Nobody in force.
    #[error("proposer {person} is no person in force under this policy")]
    Proposer {
        /// Who.
        person: PersonId,
    },
    /// Bound by the digest, not by the id alone.
    #[error("the document is about determination {id} with SHA-256 {expected}; ours is {ours} with SHA-256 {found}")]
    OtherDetermination {
        /// What stands in the document.
        id: DeterminationId,
        /// What stands in the document.
        expected: Digest,
        /// Ours.
        ours: DeterminationId,
        /// Ours.
        found: Digest,
    },
    /// Time.
    #[error("{0}")]
    Time(WrongTime),
    /// In force for too long.
    #[error("the window is {days} days and more; the policy allows {max}")]
    WindowTooLong {
        /// Whole days.
        days: i64,
        /// Of the policy.
        max: u32,
    },
    /// No such key.
    #[error("key {key} is not in the policy")]
    KeyUnknown {
        /// Which.
        key: KeyLabel,
    },
    /// A key for something else.
    #[error("method {method} needs a {expected} key; {key} is a {found} key")]
    KeyUse {
        /// Which.
        key: KeyLabel,
        /// The word of the method.
        method: &'static str,
        /// The use that the method needs.
        expected: KeyUse,
        /// The use that it has.
        found: KeyUse,
    },
    /// A key that may sign nothing.
    #[error("key {key} may not sign mode {mode} under this policy; keys.toml permits it")]
    Mode {
        /// Which.
        key: KeyLabel,
        /// The mode that the method needs.
        mode: u8,
    },
    /// Method 1 needs no key of ours.
    #[error("method subscriber-key is the Subscriber's own; there is nothing to execute with a key of the DCC")]
    NoKeyNeeded,
    /// A factor that must be considered.
    #[error("factor or criterion {factor} must be considered and is not; add it to factors")]
    FactorMissing {
        /// Which.
        factor: FactorId,
    },
    /// A factor nobody knows.
    #[error(
        "factor {factor} is not in guidance.toml, and no variation of the procedure in force at {at} offers it; leave it out"
    )]
    FactorUnknown {
        /// Which.
        factor: FactorId,
        /// The moment of recording.
        at: Timestamp,
    },
    /// A step of the Guidance that comes before the determination.
    #[error(
        "criterion {criterion} needs step {step} taken in incident {incident} before the SMKI PMA determines; it is not: take \
             it first, or record a direction that departs from it"
    )]
    Prerequisite {
        /// Which.
        criterion: FactorId,
        /// The step that it names.
        step: StepId,
        /// Where.
        incident: IncidentId,
    },
    /// A factor is weighed and a criterion is met.
    #[error("{factor}: expected weight {expected}")]
    FactorWeight {
        /// Which.
        factor: FactorId,
        /// What its kind needs.
        expected: &'static str,
    },
    /// Beyond a ceiling of the policy.
    #[error("{field}: the policy allows at most {max}, found {found}")]
    Ceiling {
        /// Which.
        field: &'static str,
        /// Of the policy.
        max: u64,
        /// Of the document.
        found: u64,
    },
    /// A schedule for a determination that left nothing open.
    #[error("determination {id} does not leave its scope to a schedule")]
    NothingLeft {
        /// Which.
        id: DeterminationId,
    },
}

/// What the ledger says about the procedure, besides the policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded<'a> {
    /// The extensions of variations.
    pub extensions: &'a [Extension],
    /// The steps taken in the incident, and those that a direction departs from; none where no ledger is at hand, and then no
    /// step is asked for.
    pub settled: Option<&'a BTreeSet<StepId>>,
}

/// Refusals of a determination, with the moment `head` when the last entry under its ledger head was recorded.
///
/// Left to others: whether that head is a prefix of our ledger and contains the incident, whether id and decision number
/// are free, what the templates say, and the quorum.
pub fn determination(
    policy: &Policy,
    document: &Written<Determination>,
    recorded: Recorded<'_>,
    head: Timestamp,
    at: Timestamp,
) -> Vec<Refusal> {
    let form = document.form();
    let mut refusals = common(policy, document, head, at);
    refusals.extend(times::not_over(document, at).err().map(Refusal::Time));
    let length_ms = form.window.until.unix_ms() - form.window.from.unix_ms();
    let max = policy.determinations().window_days_max;
    if length_ms > i64::from(max) * DAY_MS {
        refusals.push(Refusal::WindowTooLong { days: length_ms / DAY_MS, max });
    }
    factors(policy, form, recorded, at, &mut refusals);
    if form.decision == Decision::Execute {
        key(policy, form, &mut refusals);
    }
    if let Some(found) = form.scope() {
        scope(policy, found, &mut refusals);
    }
    refusals
}

/// Refusals of a schedule of `of`.
pub fn schedule(
    policy: &Policy,
    of: &Written<Determination>,
    document: &Written<Schedule>,
    head: Timestamp,
    at: Timestamp,
) -> Vec<Refusal> {
    let form = document.form();
    let mut refusals = common(policy, document, head, at);
    refusals.extend(bound(of, form.determination, form.document));
    refusals.extend(times::not_over(of, at).err().map(Refusal::Time));
    if of.form().schedule.is_none() {
        refusals.push(Refusal::NothingLeft { id: of.form().id });
    }
    scope(policy, form.scope(), &mut refusals);
    refusals
}

/// Refusals of a withdrawal of `of`. Neither a window nor its end hinders one.
pub fn withdrawal(
    policy: &Policy,
    of: &Written<Determination>,
    document: &Written<Withdrawal>,
    head: Timestamp,
    at: Timestamp,
) -> Vec<Refusal> {
    let form = document.form();
    let mut refusals = common(policy, document, head, at);
    refusals.extend(bound(of, form.determination, form.document));
    refusals
}

/// Refusals of a suspension of `of`. How old its ledger head is does not matter: it may have been signed in advance, and
/// stopping must be easy. That it is the first, and signed by the member it names, is asked elsewhere.
pub fn suspension(policy: &Policy, of: &Written<Determination>, document: &Written<Suspension>) -> Vec<Refusal> {
    let form = document.form();
    let mut refusals = same(policy, form.purpose, &form.ledger.origin, form.policy);
    refusals.extend(bound(of, form.determination, form.document));
    let max = policy.determinations().suspension_hours_max;
    if form.hours > max {
        refusals.push(Refusal::Ceiling { field: "hours", max: max.into(), found: form.hours.into() });
    }
    refusals
}

/// What is asked of every document that is proposed.
fn common<F: Proposed + Form>(policy: &Policy, document: &Written<F>, head: Timestamp, at: Timestamp) -> Vec<Refusal> {
    let form = document.form();
    let mut refusals = same(policy, form.purpose(), &form.ledger().origin, form.policy());
    let proposer = policy.people().person(form.proposer());
    if !proposer.is_some_and(|person| person.window.contains(at)) {
        refusals.push(Refusal::Proposer { person: form.proposer().clone() });
    }
    let hours_max = policy.determinations().head_age_hours_max;
    refusals.extend(times::head_recent(head, hours_max, at).err().map(Refusal::Time));
    refusals
}

/// The same purpose, ledger and policy.
fn same(policy: &Policy, purpose: Purpose, origin: &Origin, named: Digest) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if purpose != policy.purpose() {
        refusals.push(Refusal::Purpose { document: purpose, policy: policy.purpose() });
    }
    if origin != policy.origin() {
        refusals.push(Refusal::Origin { document: origin.clone(), policy: policy.origin().clone() });
    }
    if named != policy.digest() {
        refusals.push(Refusal::Policy { document: named, policy: policy.digest() });
    }
    refusals
}

/// The determination that a document is about, by id and digest.
fn bound(of: &Written<Determination>, id: DeterminationId, expected: Digest) -> Option<Refusal> {
    let (ours, found) = (of.form().id, of.digest());
    (ours != id || found != expected).then_some(Refusal::OtherDetermination { id, expected, ours, found })
}

/// A direction, as far as every document that is proposed goes. What it may do the procedure says.
pub fn direction(policy: &Policy, document: &Written<Direction>, head: Timestamp, at: Timestamp) -> Vec<Refusal> {
    common(policy, document, head, at)
}

/// The destruction of a key, as far as every document that is proposed goes.
pub fn destruction(policy: &Policy, document: &Written<Destruction>, head: Timestamp, at: Timestamp) -> Vec<Refusal> {
    common(policy, document, head, at)
}

/// Every factor that must be considered is, and no other but those that may: by the Guidance, or by a variation in force at the
/// moment of recording. What a criterion needs to have been done, is.
fn factors(policy: &Policy, form: &Determination, recorded: Recorded<'_>, at: Timestamp, refusals: &mut Vec<Refusal>) {
    let guidance = policy.guidance();
    let must = guidance.factors.iter().filter(|(_, factor)| factor.consider == Consider::Must).map(|(id, _)| id);
    for factor in must.chain(&guidance.criteria) {
        if !form.factors.iter().any(|weighed| weighed.id == *factor) {
            refusals.push(Refusal::FactorMissing { factor: factor.clone() });
        }
    }
    let in_force = policy.procedure().map(|procedure| procedure.in_force(at, recorded.extensions));
    let is_offered = |id: &FactorId| {
        in_force.as_ref().is_some_and(|in_force| in_force.optional_factors().any(|(offered, _)| offered == id))
    };
    for weighed in &form.factors {
        let (met, factor) = (weighed.weight == Weight::Met, weighed.id.clone());
        if guidance.criteria.contains(&factor) {
            if !met {
                refusals.push(Refusal::FactorWeight { factor, expected: "\"met\": it is a criterion" });
            }
        } else if !guidance.factors.contains_key(&factor) && !is_offered(&factor) {
            refusals.push(Refusal::FactorUnknown { factor, at });
        } else if met {
            let expected = "\"towards\", \"against\" or \"neither\": it is a factor";
            refusals.push(Refusal::FactorWeight { factor, expected });
        }
    }
    let Some(settled) = recorded.settled else { return };
    for (criterion, step) in guidance.prerequisites.iter().filter(|(_, step)| !settled.contains(*step)) {
        let (criterion, step, incident) = (criterion.clone(), step.clone(), form.incident.clone());
        refusals.push(Refusal::Prerequisite { criterion, step, incident });
    }
}

/// The key that the method needs, which the policy has and permits.
fn key(policy: &Policy, form: &Determination, refusals: &mut Vec<Refusal>) {
    let (Some(chosen), Some(method)) = (&form.key, form.method) else { return };
    let (expected, mode) = match method {
        Method::SubscriberKey => return refusals.push(Refusal::NoKeyNeeded),
        Method::AcbCertificates | Method::NewOrganisationCertificates => (KeyUse::Recovery, 8),
        Method::Contingency => (KeyUse::Contingency, 9),
    };
    let method = method.as_str();
    let label = || chosen.label.clone();
    match policy.key(&chosen.label) {
        None => refusals.push(Refusal::KeyUnknown { key: label() }),
        Some(found) if found.key_use != expected => {
            refusals.push(Refusal::KeyUse { key: label(), method, expected, found: found.key_use });
        }
        Some(found) if !found.modes.contains(&mode) => refusals.push(Refusal::Mode { key: label(), mode }),
        Some(_) => {}
    }
}

/// Within the policy's ceilings.
fn scope(policy: &Policy, scope: Scope<'_>, refusals: &mut Vec<Refusal>) {
    let limits = policy.limits();
    for (field, max, found) in [
        ("devices.count", limits.devices_max, scope.devices.count),
        ("limits.per_hour", limits.intents_per_hour_max, scope.limits.per_hour),
        ("limits.retries_of_unknown", limits.retries_of_unknown_max.into(), scope.limits.retries_of_unknown.into()),
    ] {
        if found > max {
            refusals.push(Refusal::Ceiling { field, max, found });
        }
    }
}

#[cfg(test)]
mod tests;
