//! Pure. May a Key Custodian's presentation be taken? Asked before the share is sealed to the vault, and again before it is recorded.

use super::activation::{StandsFor, standing_for};
use super::{Context, Reasons, head_of, policy_in_force, record, verified};
use crate::domain::custody::Statement;
use crate::domain::determination::document::Written;
use crate::domain::determination::people::{Person, Role};
use crate::domain::determination::quorum::Signature;
use crate::domain::determination::times::{self, HOUR_MS};
use crate::domain::fold::Fold;
use crate::domain::intake::Submission;
use crate::domain::ledger::custody::{CustodianPresented, SharePresented};
use crate::domain::ledger::entry::{ClockState, Reason};
use crate::domain::names::{DeterminationId, KeyLabel};
use crate::domain::policy::facts::KeyFacts;
use crate::domain::policy::rules::Refusal;
use crate::domain::policy::separation::Part;
use crate::domain::policy::{Activation, Policy};
use crate::domain::time::Timestamp;

/// Milliseconds of a minute.
const MINUTE_MS: i64 = 60_000;

/// A presentation by the custodian who signed its statement: for the incident that is prepared, the determination that it follows, the key
/// that is required, and the share that the policy and the last deal give them.
///
/// # Errors
/// Every reason against it.
pub fn presentation(
    context: &Context<'_>,
    document: &Written<Statement>,
    submission: &Submission<'_>,
) -> Result<CustodianPresented, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let (fold, at, form) = (context.fold, context.at, document.form());
    let policy = &policy_in_force(fold, &mut reasons)?.policy;
    let key = &form.key.label;
    let Some(facts) = fold.keys().get(key) else {
        reasons.add("key-unknown", format!("the ledger has no key {key}"));
        return Err(reasons.0);
    };
    // Nothing is opened by the date while nobody vouches for the clock: both the window and the statement's expiry are read off it.
    reasons.demand("clock", context.clock != ClockState::Untrusted, || Refusal::Clock.to_string());
    reasons.demand(
        "statement-ledger",
        form.purpose == policy.purpose() && form.ledger.origin == *policy.origin(),
        || {
            let (purpose, origin) = (policy.purpose(), policy.origin());
            format!(
                "the statement is {} and of ledger {}; ours is {purpose} and {origin}",
                form.purpose, form.ledger.origin
            )
        },
    );
    check_times(context, document, policy, &mut reasons);
    reasons.demand("statement-replayed", !fold.is_statement_used(form.id, document.digest()), || {
        format!(
            "statement {} was presented before, and counts once; make a new one (smkictl custodian statement)",
            form.id
        )
    });
    reasons.demand("statement-key", form.key.spki_sha256 == facts.record.spki_sha256, || {
        let (ours, theirs) = (facts.record.spki_sha256, form.key.spki_sha256);
        format!("key {key}: the ledger has the public key {ours}, the statement {theirs}")
    });
    let of = StandsFor { key, incident: &form.incident };
    let determination = standing_for(context, of, facts, policy, &mut reasons);
    if let Some(followed) = determination {
        check_determination(fold, form, followed, &mut reasons);
    }
    let mut signatures = Reasons::default();
    let verified = verified(document.octets(), submission, policy, at, &mut signatures);
    let signer = signer(policy, form, &verified, signatures, at, &mut reasons);
    if let Some((person, _)) = signer {
        check_person(fold, form, facts, person, at, &mut reasons);
    }
    let share = check_share(policy, key, form, facts, &mut reasons);
    let counted = at.plus_ms(i64::from(policy.custodians().gather_minutes) * MINUTE_MS).min(form.expires);
    reasons.end(signer.zip(determination).map(|((person, signature), determination)| CustodianPresented {
        key: key.clone(),
        incident: form.incident.clone(),
        determination,
        share,
        id: form.id,
        statement: document.digest(),
        signature: record(&person.id, &signature),
        until: counted,
        expires: form.expires,
    }))
}

fn check_times(context: &Context<'_>, document: &Written<Statement>, policy: &Policy, reasons: &mut Reasons) {
    let (form, at) = (document.form(), context.at);
    let hours = policy.custodians().statement_hours_max;
    let head = head_of(context, &form.ledger, reasons);
    reasons.take("statement-head", times::head_recent(head, hours, at));
    let expires = form.expires;
    reasons.demand("statement-expired", at < expires, || {
        format!("the statement expired at {expires}; it is {at}: make a new one (smkictl custodian statement)")
    });
    reasons.demand("statement-too-long", expires <= at.plus_ms(i64::from(hours) * HOUR_MS), || {
        format!(
            "the statement expires at {expires}; the policy allows {hours} h from {at}: make one that expires sooner"
        )
    });
}

fn check_determination(fold: &Fold, form: &Statement, followed: DeterminationId, reasons: &mut Reasons) {
    let digest = fold.determinations().get(&followed).map(|facts| facts.document);
    reasons.demand("statement-determination", form.determination == followed && digest == Some(form.document), || {
        format!(
            "the statement is about determination {} with SHA-256 {}; incident {} follows {followed}: make one about that",
            form.determination, form.document, form.incident
        )
    });
}

/// Who signed: one person, by a key that the policy knows, who is the one whom the statement names.
fn signer<'p>(
    policy: &'p Policy,
    form: &Statement,
    verified: &[Signature],
    faults: Reasons,
    at: Timestamp,
    reasons: &mut Reasons,
) -> Option<(&'p Person, Signature)> {
    let by = |signature: &Signature| policy.person_by_spki(&signature.spki).map(|person| (person, *signature));
    let theirs = verified.iter().filter_map(by).find(|(person, _)| person.id == form.person);
    let Some((person, signature)) = theirs else {
        reasons.0.extend(faults.0);
        for signature in verified {
            let whose =
                by(signature).map_or_else(|| "nobody the policy knows".into(), |(person, _)| person.id.to_string());
            let spki = signature.spki;
            reasons.add(
                "custodian-unknown",
                format!("the statement names {}, and is signed by {whose} (SPKI SHA-256 {spki})", form.person),
            );
        }
        reasons.demand("custodian-unknown", !verified.is_empty(), || {
            format!("expected a signature of {}, found none that verifies", form.person)
        });
        return None;
    };
    reasons.demand("custodian-unknown", person.roles.contains(&Role::KeyCustodian), || {
        format!("{} is no key-custodian of the policy in force", person.id)
    });
    reasons.demand("custodian-ceased", person.window.contains(at), || {
        format!(
            "{} is appointed {}; it is {at}. Ask a custodian in force (smkictl custodian status)",
            person.id, person.window
        )
    });
    Some((person, signature))
}

fn check_person(
    fold: &Fold,
    form: &Statement,
    facts: &KeyFacts,
    person: &Person,
    at: Timestamp,
    reasons: &mut Reasons,
) {
    if let Some(before) = facts.presented.get(&person.id).filter(|before| {
        before.incident == form.incident && before.determination == form.determination && at < before.until
    }) {
        reasons.add(
            "custodian-twice",
            format!(
                "{} presented already, by entry {}; a person counts once, however many shares they bring",
                person.id, before.entry
            ),
        );
    }
    if let Some(incident) = fold.incidents().get(&form.incident) {
        reasons.take("separation", incident.parts.check(&person.id, Part::Custodian));
    }
}

/// The share is the one that both the policy and the last deal give this person; none where the HSM itself asks.
fn check_share(
    policy: &Policy,
    key: &KeyLabel,
    form: &Statement,
    facts: &KeyFacts,
    reasons: &mut Reasons,
) -> Option<SharePresented> {
    let activation = policy.key(key).map(|key| key.activation);
    match (activation, &form.share, form.generation) {
        (Some(Activation::Custodians), Some(name), Some(generation)) => {
            let Some(dealt) = &facts.shares else {
                reasons
                    .add("share-generation", format!("no shares of key {key} were dealt yet (smkictl ceremony deal)"));
                return None;
            };
            reasons.demand("share-generation", dealt.generation == generation, || {
                format!(
                    "share {name} is of generation {generation}; generation {} was dealt last, and older shares open nothing",
                    dealt.generation
                )
            });
            let of_policy = policy.people().person(&form.person).is_some_and(|person| person.shares.contains(name));
            let of_deal = dealt.holders.iter().any(|holder| holder.share == *name && holder.person == form.person);
            reasons.demand("share-of-another", of_policy && of_deal, || {
                let holder = dealt.holders.iter().find(|holder| holder.share == *name);
                let whose = holder.map_or_else(|| "nobody".to_owned(), |holder| holder.person.to_string());
                format!(
                    "share {name} was dealt to {whose}, and persons.toml gives it to {}; {} cannot present it",
                    policy.share_holder(name).map_or_else(|| "nobody".to_owned(), ToString::to_string),
                    form.person
                )
            });
            Some(SharePresented { name: name.clone(), generation })
        }
        (Some(Activation::Custodians), _, _) => {
            reasons.add("share-missing", format!("key {key} is opened by shares: the statement must name yours"));
            None
        }
        (Some(Activation::ProtectedPath), None, _) => None,
        (Some(Activation::ProtectedPath), Some(_), _) => {
            reasons
                .add("share-missing", format!("the HSM asks for key {key} itself: the statement must name no share"));
            None
        }
        (Some(Activation::Stored) | None, _, _) => {
            reasons.add("activation", format!("key {key} is not opened by Key Custodians under the policy in force"));
            None
        }
    }
}
