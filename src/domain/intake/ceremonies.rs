//! Pure. What ceremonies after the first may record: a key made, cloned or destroyed, shares dealt, the ceremony itself.

use super::{Context, Reasons, Submission, check_clock, head_of, policy_in_force, quorate};
use crate::domain::determination::document::{Written, twice};
use crate::domain::fold::Fold;
use crate::domain::ledger::ceremonies::{Capacity, CeremonyRecorded, WITNESSES_MIN};
use crate::domain::ledger::custody::SharesDealt;
use crate::domain::ledger::entry::{KeyCopied, KeyDestroyed, KeyDestruction, KeyRecord, Reason};
use crate::domain::ledger::transcript;
use crate::domain::names::{Digest, KeyLabel, KeyUse, PersonId};
use crate::domain::policy::admission;
use crate::domain::policy::destruction::Destruction;
use crate::domain::policy::facts::{Ending, KeyFacts};
use crate::domain::time::Timestamp;

/// A key that was made after genesis: the policy in force names it, and nothing of it is known yet.
///
/// # Errors
/// Every reason against it.
pub fn may_make(fold: &Fold, key: &KeyRecord) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    let policy = &policy_in_force(fold, &mut reasons)?.policy;
    let label = &key.label;
    match policy.key(label) {
        None => reasons.add("key-unknown", format!("the policy in force names no key {label}; adopt one that does")),
        Some(found) => reasons.demand("key-place", found.key_use == key.use_ && found.token == key.token, || {
            format!(
                "the policy has key {label} as a {} key on token {}, found a {} key on {}",
                found.key_use, found.token, key.use_, key.token
            )
        }),
    }
    reasons.demand("key-use", key.use_ != KeyUse::Ledger, || "a ledger has one key, that of its genesis".into());
    reasons.demand("key-spki", Digest::of(&key.spki_octets()) == key.spki_sha256, || {
        format!("key {label}: spki_sha256 is not that of its public key")
    });
    for known in fold.keys().values().map(|facts| &facts.record) {
        let same = known.label == *label || known.id == key.id || known.spki_sha256 == key.spki_sha256;
        reasons.demand("key-known", !same, || {
            format!("the ledger has key {} with this label, CKA_ID or public key; a new key has its own", known.label)
        });
    }
    reasons.end(Some(()))
}

/// The destruction of a key: the quorum of the policy in force signed its document, which names the key as the ledger knows it and every
/// token that holds it.
///
/// # Errors
/// Every reason against it.
pub fn destruction(
    context: &Context<'_>,
    document: &Written<Destruction>,
    submission: &Submission<'_>,
) -> Result<KeyDestruction, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let (fold, form) = (context.fold, document.form());
    let adopted = policy_in_force(fold, &mut reasons)?;
    let head = head_of(context, &form.ledger, &mut reasons);
    check_clock(context, &mut reasons);
    for refusal in admission::destruction(&adopted.policy, document, head, context.at) {
        reasons.add("admission", refusal);
    }
    let label = &form.key.label;
    match fold.keys().get(label) {
        None => reasons.add("key-unknown", format!("the ledger has no key {label}")),
        Some(facts) => {
            let record = &facts.record;
            reasons.demand("key-use", record.use_ != KeyUse::Ledger, || {
                format!("key {label} signs this ledger's checkpoints: without it the destruction could not be recorded")
            });
            reasons.demand("key-spki", record.spki_sha256 == form.key.spki_sha256, || {
                format!(
                    "key {label}: the ledger has the public key {}, the document {}",
                    record.spki_sha256, form.key.spki_sha256
                )
            });
            reasons.demand("key-id", record.id == form.cka_id, || {
                format!("key {label}: the ledger has the CKA_ID {}, the document {}", record.id, form.cka_id)
            });
            reasons
                .demand("key-active", !facts.is_active(context.at), || format!("key {label} is active; lock it first"));
            reasons.demand("key-ends", facts.ending.is_none(), || match facts.ending {
                Some(Ending::Destroyed { entry }) => format!("key {label} was destroyed, by entry {entry}"),
                Some(Ending::Begun { entry, .. }) => {
                    format!("the destruction of key {label} was begun, by entry {entry}; run it to its end")
                }
                None => String::new(),
            });
            let mut ours: Vec<(&str, &str)> = std::iter::once((record.token.as_str(), &*record.serial))
                .chain(facts.copies.iter().map(|(token, serial)| (token.as_str(), &**serial)))
                .collect();
            let mut theirs: Vec<(&str, &str)> = form.tokens.iter().map(|on| (on.token.as_str(), &*on.serial)).collect();
            ours.sort_unstable();
            theirs.sort_unstable();
            reasons.demand("key-tokens", ours == theirs, || {
                format!("tokens: the ledger has key {label} on {ours:?} (token and serial number), the document {theirs:?}; name all of them")
            });
        }
    }
    let signatures = quorate(context, document, submission, adopted, &mut reasons);
    reasons.end(signatures.map(|signatures| KeyDestruction {
        key: label.clone(),
        document: document.digest(),
        signatures,
    }))
}

/// The end of a destruction that was begun by `document`: the key was found absent on every token that it names.
///
/// # Errors
/// Every reason against it.
pub fn may_end(fold: &Fold, document: &Destruction, destroyed: &KeyDestroyed) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    let key = &destroyed.key;
    let begun = fold.keys().get(key).and_then(|facts| match facts.ending {
        Some(Ending::Begun { entry, .. }) => Some(entry),
        Some(Ending::Destroyed { .. }) | None => None,
    });
    reasons.demand("destruction", begun == Some(destroyed.destruction) && document.key.label == *key, || {
        format!("expected the destruction of key {key} that was begun, found entry {}", destroyed.destruction)
    });
    let absent = document.tokens.len() == destroyed.tokens.len()
        && document
            .tokens
            .iter()
            .all(|on| destroyed.tokens.iter().any(|found| found.token == on.token && found.serial == on.serial));
    reasons.demand("key-tokens", absent, || {
        format!("key {key} was not looked for on every token that the document names")
    });
    reasons.end(Some(()))
}

/// A clone of a key on a further token: the policy in force names it, and it is of that key.
///
/// # Errors
/// The reason against it.
pub fn may_copy(fold: &Fold, copied: &KeyCopied) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    let policy = &policy_in_force(fold, &mut reasons)?.policy;
    let facts = known(fold, "copy", &copied.key, &mut reasons);
    facts.and_then(|facts| reasons.take("copy", facts.may_copy(policy, copied)));
    reasons.end(Some(()))
}

/// Shares of a key that are about to be dealt at that moment: the policy's custodians in force have them, and nobody else; and the former
/// custodians took part. One that was begun before and comes to nothing is replaced.
///
/// # Errors
/// The reason against it.
pub fn may_begin_deal(fold: &Fold, dealt: &SharesDealt, at: Timestamp) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    let policy = &policy_in_force(fold, &mut reasons)?.policy;
    let facts = known(fold, "deal", &dealt.key, &mut reasons);
    facts.and_then(|facts| reasons.take("deal", facts.may_deal(policy, dealt, at)));
    reasons.end(Some(()))
}

/// Shares of a key that were dealt: as it was begun, whatever the policy says meanwhile.
///
/// # Errors
/// The reason against it.
pub fn may_deal(fold: &Fold, dealt: &SharesDealt) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    if let Some(facts) = known(fold, "deal", &dealt.key, &mut reasons) {
        reasons.demand("deal", facts.dealing.as_ref() == Some(dealt), || {
            format!(
                "generation {} of the shares of key {} was not begun so: expected what its last shares-begun says",
                dealt.generation, dealt.key
            )
        });
    }
    reasons.end(Some(()))
}

fn known<'a>(fold: &'a Fold, rule: &str, key: &KeyLabel, reasons: &mut Reasons) -> Option<&'a KeyFacts> {
    reasons.take(rule, fold.keys().get(key).ok_or_else(|| format!("the ledger has no key {key}")))
}

/// A ceremony that came to its end before `at`: the entry says what its transcript says, which is of this ledger and no rehearsal.
///
/// # Errors
/// Every reason against it.
pub fn may_record(
    fold: &Fold,
    recorded: &CeremonyRecorded,
    transcript: &[u8],
    at: Timestamp,
) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    let CeremonyRecorded { kind: _, plan: _, transcript: _, from, until, people } = recorded;
    reasons.demand("ceremony-time", from <= until && *until <= at, || {
        format!("from {from} until {until}: expected a ceremony that is over at {at}")
    });
    let conductors = people.iter().filter(|found| found.capacity == Capacity::Conductor).count();
    let witnesses = people.iter().filter(|found| found.capacity.bears_witness()).count();
    reasons.demand("ceremony-people", conductors == 1 && witnesses >= WITNESSES_MIN, || {
        format!(
            "expected one conductor and at least {WITNESSES_MIN} who bear witness, found {conductors} and {witnesses}"
        )
    });
    for fault in
        twice("people", people.iter().map(|found| found.person.as_ref().map_or(&*found.name, PersonId::as_str)))
    {
        reasons.add("ceremony-people", fault);
    }
    let told = reasons.take("ceremony-transcript", transcript::told(transcript));
    if let Some(told) = told {
        reasons.demand("ceremony-transcript", told.recorded == *recorded, || {
            format!("the transcript tells of another ceremony: {:?}; the entry has {recorded:?}", told.recorded)
        });
        reasons.demand("ceremony-transcript", !told.rehearsal, || {
            "it is of a rehearsal, on scratch tokens; only what was done in earnest is recorded".into()
        });
        let genesis = fold.genesis().map(|(genesis, _)| (genesis.purpose, &genesis.origin));
        reasons.demand("ceremony-transcript", genesis == Some((told.purpose, &told.origin)), || {
            format!("it is of a ceremony of the {} ledger {}, and this is another", told.purpose, told.origin)
        });
    }
    reasons.end(Some(()))
}

#[cfg(test)]
mod tests;
