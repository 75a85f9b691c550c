//! Pure. Contingency material: may it be recorded as made, as carried by a Root OCA Certificate, as checked, spent and released?

use super::rivals::is_of_contingency;
use super::{Context, Reasons, check_clock, policy_in_force, profile};
use crate::domain::certificates::apex::WrappedApexKey;
use crate::domain::certificates::profile::{Kind, SmkiCertificate, WRAPPED_APEX_CONTINGENCY_KEY};
use crate::domain::determination::document::{Determination, SymmetricKeyLine};
use crate::domain::fold::Fold;
use crate::domain::gbcs::{CredentialsReplacementMode, SeqNumber};
use crate::domain::incident::routes::Generation;
use crate::domain::ledger::contingency::{
    Compared, ContingencyChecked, ContingencyPrepared, OtherKey, RootImported, SymmetricKeySpent, SymmetricRelease,
};
use crate::domain::ledger::entry::{Actor, Reason};
use crate::domain::names::{DeterminationId, Digest, IncidentId, KeyLabel, KeyUse, RequestId};
use crate::domain::policy::facts::{DeterminationFacts, KeyFacts};
use crate::domain::policy::rules::{self, BatchFacts, Next, NotNext, Refusal};
use crate::domain::policy::{Policy, WrapWithTrusted};

/// Contingency material that a ceremony made: of a contingency key that has none yet, on its own token, as the policy wants it.
/// `extension` is what the entry names.
///
/// # Errors
/// Every reason against it.
pub fn may_prepare(fold: &Fold, prepared: &ContingencyPrepared, extension: &[u8]) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    let policy = &policy_in_force(fold, &mut reasons)?.policy;
    let ContingencyPrepared { key, token, symmetric, wrapping, bits, wrap_with_trusted, algorithm, extension: digest } =
        prepared;
    let Some(facts) = contingency_key(fold, key, &mut reasons) else { return Err(reasons.0) };
    reasons.demand("key-ends", facts.ending.is_none(), || format!("key {key} is destroyed, or about to be"));
    reasons.demand("contingency-known", facts.contingency.is_none(), || {
        format!("key {key} has its contingency material already; another generation is another key")
    });
    let is_there = facts.record.token == *token;
    reasons.demand("contingency-token", is_there, || {
        format!("key {key} was made on token {}, and its material on {token}; expected both on one", facts.record.token)
    });
    let mut others: Vec<_> = fold.keys().values().map(|facts| facts.record.id).collect();
    let generations = fold.keys().values().filter_map(|facts| facts.contingency.as_ref());
    others.extend(generations.flat_map(|of| [of.prepared.symmetric, of.prepared.wrapping]));
    let own = symmetric != wrapping && !others.contains(symmetric) && !others.contains(wrapping);
    reasons.demand("contingency-id", own, || {
        format!("CKA_ID {symmetric} and {wrapping}: expected two that no other key of the ledger has")
    });
    let rules = policy.key(key).and_then(|key| key.contingency);
    let Some(rules) = rules else {
        reasons.add("key-unknown", format!("the policy in force names no contingency key {key}; adopt one that does"));
        return Err(reasons.0);
    };
    reasons.demand("wrap-with-trusted", *wrap_with_trusted || rules.wrap_with_trusted == WrapWithTrusted::NotEnforced, || {
        format!(
            "the token does not keep the Contingency Symmetric Key of {key} from being wrapped with any key (CKA_WRAP_WITH_TRUSTED), and the \
             policy in force wants that; use a module that does, or, in an exercise, wrap_with_trusted = \"not-enforced\""
        )
    });
    let wanted = rules.wrap_algorithm;
    reasons.demand("contingency-algorithm", wanted.as_str() == &**algorithm, || {
        format!("the policy in force has key {key} wrapped by {wanted}, found {algorithm}")
    });
    let wanted_bits = wanted.key_len() * 8;
    reasons.demand("contingency-bits", usize::from(*bits) == wanted_bits, || {
        format!("bits: {wanted} takes a symmetric key of {wanted_bits}, found {bits}")
    });
    reasons.demand("contingency-extension", Digest::of(extension) == *digest, || {
        format!("extension: expected SHA-256 {digest}, found {}", Digest::of(extension))
    });
    if let Some(found) = reasons.take("contingency-extension", WrappedApexKey::from_der(extension)) {
        reasons.demand("contingency-extension", found.algorithm() == wanted, || {
            format!("extension: expected it to be wrapped by {wanted}, found {}", found.algorithm())
        });
    }
    reasons.end(Some(()))
}

/// The Root OCA Certificate that carries a contingency key: its field is the one that the ceremony made, octet for octet. That it
/// unwraps to the key's own public half was looked at with the symmetric key, which no audit has.
///
/// # Errors
/// Every reason against it.
pub fn root(
    context: &Context<'_>,
    key: &KeyLabel,
    root: &[u8],
    compared: Compared,
) -> Result<RootImported, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let (fold, adopted) = (context.fold, policy_in_force(context.fold, &mut reasons)?);
    check_clock(context, &mut reasons);
    let Some(facts) = contingency_key(fold, key, &mut reasons) else { return Err(reasons.0) };
    let digest = Digest::of(root);
    match &facts.contingency {
        None => reasons
            .add("contingency-unknown", format!("key {key} has no contingency material; a ceremony makes it first")),
        Some(contingency) => {
            if let Some(known) = contingency.root {
                reasons.add(
                    "root-known",
                    format!(
                        "key {key} has its Root OCA Certificate already, {known}; another is of another generation"
                    ),
                );
            }
        }
    }
    let parsed = reasons.take("certificate", SmkiCertificate::parse(root, &profile(&adopted.policy)));
    if let Some(parsed) = &parsed {
        reasons.demand("certificate-kind", parsed.kind() == Kind::RootOca, || {
            format!("expected a Root OCA Certificate, found {}", parsed.kind())
        });
        reasons.demand("certificate-signature", is_signed_by_itself(parsed), || {
            "expected a Root OCA Certificate that is signed with its own key, found another signature".into()
        });
        let certificate = parsed.certificate();
        reasons.demand("certificate-time", context.at <= certificate.not_after(), || {
            format!("it is in force until {}, and it is {}", certificate.not_after(), context.at)
        });
        let found = certificate.extension(WRAPPED_APEX_CONTINGENCY_KEY).map(|extension| Digest::of(&extension.value));
        let expected = facts.contingency.as_ref().map(|contingency| contingency.prepared.extension);
        reasons.demand("root-without-field", found.is_some(), || {
            format!(
                "the Root OCA Certificate has no WrappedApexContingencyKey field ({WRAPPED_APEX_CONTINGENCY_KEY}): Devices that hold it \
                 could never be recovered with key {key}; have it issued anew with the field that the ceremony handed over"
            )
        });
        reasons.demand("root-of-another-key", found.is_none() || expected.is_none() || found == expected, || {
            format!(
                "the field of the Root OCA Certificate is not the one that was made for key {key}: expected SHA-256 {}, found {}",
                expected.unwrap_or(Digest([0; 32])),
                found.unwrap_or(Digest([0; 32]))
            )
        });
        let shares_key = |facts: &&KeyFacts| {
            let other = facts.contingency.as_ref().and_then(|contingency| contingency.root);
            let octets = other.filter(|_| facts.record.label != *key).and_then(|root| context.blobs.blob(root).ok());
            let other = octets.and_then(|octets| SmkiCertificate::parse(&octets, &profile(&adopted.policy)).ok());
            other.is_some_and(|other| other.certificate().spki_sha256() == certificate.spki_sha256())
        };
        if let Some(other) = fold.keys().values().find(shares_key) {
            reasons.add(
                "root-of-another-generation",
                format!(
                    "its own key is that of the Root OCA Certificate that carries {}: a Compromise of the one root would be one of both; have it \
                     issued with a key of its own",
                    other.record.label
                ),
            );
        }
        let compromised = fold.incidents().values().find(|incident| {
            incident.compromised.spki_sha256 == certificate.spki_sha256() && !is_of_contingency(incident.key)
        });
        if let Some(incident) = compromised {
            reasons.add("root-compromised", format!("its key is the one that incident {} is about", incident.id));
        }
    }
    reasons.end(Some(RootImported { key: key.clone(), root: digest, compared }))
}

/// What came of a check is recorded for a generation that has its Root OCA Certificate, and an incident that is open.
///
/// # Errors
/// Every reason against it.
pub fn may_check(fold: &Fold, checked: &ContingencyChecked) -> Result<(), Vec<Reason>> {
    let mut reasons = Reasons::default();
    let ContingencyChecked { key, incident, root, result: _ } = checked;
    let Some(facts) = contingency_key(fold, key, &mut reasons) else { return Err(reasons.0) };
    let known = facts.contingency.as_ref().and_then(|contingency| contingency.root);
    reasons.demand("contingency-root", known == Some(*root), || {
        let known = known.map_or_else(|| "none".to_owned(), |known| known.to_string());
        format!("root: expected the Root OCA Certificate that carries key {key}, {known}, found {root}")
    });
    let is_open = fold.incidents().get(incident).is_some_and(|facts| facts.closed.is_none());
    reasons.demand("incident-closed", is_open, || format!("incident {incident} is not open"));
    reasons.end(Some(()))
}

/// The line of a determination that releases the symmetric key: of this very generation, unspent or spent in this incident, and with a
/// next one that the Devices have afterwards.
pub(super) fn check_line(context: &Context<'_>, policy: &Policy, form: &Determination, reasons: &mut Reasons) {
    let fold = context.fold;
    let (Some(chosen), Some(line)) = (&form.key, &form.symmetric_key) else { return };
    let Some(facts) = fold.keys().get(&chosen.label).filter(|facts| facts.record.use_ == KeyUse::Contingency) else {
        return;
    };
    let mut refusals = Vec::new();
    refusals.extend(rules::check_line(facts, Some(line), form.id, policy).err());
    if let Some(spent) = facts.contingency.as_ref().and_then(|contingency| contingency.spent_elsewhere(&form.incident))
    {
        refusals.push(Refusal::SpentElsewhere { key: chosen.label.clone(), spent: spent.clone() });
    }
    refusals.extend(next_root(fold, policy, &chosen.label, line).err());
    reasons.extend(Err(refusals));
    let parsed = |digest| {
        let octets = context.blobs.blob(digest).ok()?;
        SmkiCertificate::parse(&octets, &profile(policy)).ok()
    };
    let incident = fold.incidents().get(&form.incident).filter(|incident| incident.key == Some(OtherKey::RootOca));
    if let (Some(incident), Some(root)) = (incident, parsed(line.root_sha256)) {
        let found = root.certificate().spki_sha256();
        reasons.demand("root-of-the-incident", found == incident.compromised.spki_sha256, || {
            format!(
                "the line names a Root OCA Certificate of public key {found}; the incident is about the root of public key {}",
                incident.compromised.spki_sha256
            )
        });
    }
    if let Some(root) = parsed(line.next_root_sha256) {
        let certificate = root.certificate();
        reasons.demand("next-root-time", certificate.is_in_force(context.at), || {
            format!(
                "the new Root OCA Certificate is in force from {} until {}, and it is {}: no Device should get it now",
                certificate.not_before(),
                certificate.not_after(),
                context.at
            )
        });
    }
    let floor = highest_root_floor(fold);
    reasons.demand("counter-start", form.counter_start.unwrap_or(0) >= floor, || {
        format!(
            "counter_start: expected at least {floor}, the highest counter floor for the root of a recorded command of mode 9: a Device would take \
             what is below it for a replay, whichever contingency key signed"
        )
    });
}

/// The highest counter floor that a recorded template of mode 9 sets for the root, under which every contingency key is counted.
fn highest_root_floor(fold: &Fold) -> u64 {
    let scopes = fold.determinations().values().filter_map(|facts| facts.scope.as_ref());
    let templates = scopes.flat_map(|scope| scope.templates.values());
    let of_mode_9 = templates.filter(|template| template.mode() == CredentialsReplacementMode::AnyByContingency);
    of_mode_9.filter_map(|template| template.update().new_floor).map(SeqNumber::get).max().unwrap_or(0)
}

/// The Root OCA Certificate that carries the next generation.
pub(super) fn next_root(
    fold: &Fold,
    policy: &Policy,
    key: &KeyLabel,
    line: &SymmetricKeyLine,
) -> Result<Digest, Refusal> {
    rules::next_root(key, line, known_of(fold, policy, &line.next))
        .map_err(|why| Refusal::NextGeneration { next: line.next.clone(), why })
}

/// What is known of a key that may be the next generation.
fn known_of<'a>(fold: &'a Fold, policy: &'a Policy, next: &KeyLabel) -> Next<'a> {
    Next { key: fold.keys().get(next), compromised_in: fold.next_compromised_in(next), policy }
}

/// The contingency generation of an incident: that of the determination that it follows, or the one that was spent in it.
pub(super) fn generation(
    fold: &Fold,
    incident: &IncidentId,
    followed: Option<&DeterminationFacts>,
) -> Option<Generation> {
    let of_use = |facts: &&KeyFacts| facts.record.use_ == KeyUse::Contingency;
    let spent_here = |facts: &KeyFacts| {
        let spent = facts.contingency.as_ref().and_then(|contingency| contingency.spent.as_ref());
        spent.is_some_and(|(spent, _)| spent == incident)
    };
    let required = followed.and_then(|facts| facts.key.as_ref()).and_then(|(label, _)| fold.keys().get(label));
    let key = required.filter(of_use).or_else(|| fold.keys().values().find(|facts| spent_here(facts)))?;
    let label = &key.record.label;
    let policy = &fold.policy()?.policy;
    let line = followed.and_then(|facts| facts.symmetric_key.as_ref());
    // Whichever the determination names; where there is none, any that is there.
    let next = if let Some(line) = line {
        match next_root(fold, policy, label, line) {
            Ok(_) => Ok(line.next.clone()),
            // Used itself since, it was in place.
            Err(Refusal::NextGeneration { why: NotNext::Spent(_), .. }) if spent_here(key) => Ok(line.next.clone()),
            Err(refusal) => Err(refusal.to_string().into()),
        }
    } else {
        let is_next = |next: &&KeyLabel| rules::root_after(label, next, known_of(fold, policy, next)).is_ok();
        fold.keys().keys().find(is_next).cloned().ok_or_else(|| {
            "no other contingency key has a Root OCA Certificate that carries it; have one made at a ceremony".into()
        })
    };
    let released = key.contingency.as_ref().and_then(|contingency| contingency.released);
    Some(Generation {
        key: label.clone(),
        spent: spent_here(key),
        released: released.is_some() && released == followed.map(|facts| facts.id),
        next,
    })
}

/// What is to be checked before a symmetric key may be released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The contingency key.
    pub key: KeyLabel,
    /// The incident.
    pub incident: IncidentId,
    /// The Root OCA Certificate that is to carry it.
    pub root: Digest,
}

/// May the token be asked whether the Root OCA Certificate carries the key of this determination?
///
/// # Errors
/// Every reason against it.
pub fn check_wanted(context: &Context<'_>, by: &Actor, determination: DeterminationId) -> Result<Wanted, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let facts = facts(context, by, determination, &mut reasons)?;
    reasons.extend(rules::decide_preflight(&facts));
    reasons.end(wanted(&facts))
}

/// A symmetric key is spent: what must be durable before it is released for the first time.
///
/// # Errors
/// Every reason against it; that it is spent already among them.
pub fn spend(
    context: &Context<'_>,
    by: &Actor,
    determination: DeterminationId,
) -> Result<SymmetricKeySpent, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let facts = facts(context, by, determination, &mut reasons)?;
    reasons.extend(rules::decide_symmetric_release(&facts));
    let spent = facts.key.and_then(|key| key.contingency.as_ref()).and_then(|contingency| contingency.spent.as_ref());
    if let Some((incident, id)) = spent {
        reasons.add("spent-already", format!("it was spent in incident {incident}, under determination {id}"));
    }
    reasons.end(wanted(&facts).map(|Wanted { key, incident, root: _ }| SymmetricKeySpent {
        key,
        incident,
        determination,
    }))
}

/// The release of a symmetric key into the commands of a determination, once it is spent: the first, and every one that is needed again.
///
/// # Errors
/// Every reason against it; that it is not spent yet among them.
pub fn release(
    context: &Context<'_>,
    by: &Actor,
    request: RequestId,
    determination: DeterminationId,
) -> Result<SymmetricRelease, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let facts = facts(context, by, determination, &mut reasons)?;
    reasons.extend(rules::decide_symmetric_release(&facts));
    if let Some((label, contingency)) = facts.key.and_then(|key| Some((&key.record.label, key.contingency.as_ref()?))) {
        reasons.demand("not-spent", contingency.spent.is_some(), || {
            format!("that the Contingency Symmetric Key of {label} is spent must be recorded before it is released")
        });
        reasons.demand("request-used", !contingency.requests.contains(&request), || {
            format!("request {request} was used for a release of this key before; a further one has an id of its own")
        });
        if let Some(intent) = contingency.releasing.keys().next() {
            reasons.add("release-open", format!("the release of entry {intent} has no outcome yet; wait for it"));
        }
    }
    let policy = facts.policy_digest;
    reasons.end(wanted(&facts).map(|Wanted { key, incident, root }| SymmetricRelease {
        request,
        key,
        incident,
        determination,
        policy,
        root,
    }))
}

fn facts<'a>(
    context: &Context<'a>,
    by: &'a Actor,
    determination: DeterminationId,
    reasons: &mut Reasons,
) -> Result<BatchFacts<'a>, Vec<Reason>> {
    policy_in_force(context.fold, reasons)?;
    let facts = context.fold.batch_facts(by, determination, context.at, context.clock);
    let facts = facts.ok_or_else(|| std::mem::take(&mut reasons.0))?;
    if facts.incident.is_some_and(|incident| incident.progress.is_none()) {
        reasons.add(
            "no-procedure",
            "the incident was opened under a policy without the procedure's steps: no symmetric key is released in it; open it anew under the \
             policy in force",
        );
    }
    if let Some(key) = facts.key.filter(|key| key.record.use_ != KeyUse::Contingency) {
        let (label, found) = (&key.record.label, key.record.use_);
        reasons.add(
            "key-use",
            format!("determination {determination} requires {label}, a {found} key: it has no Contingency Symmetric Key to release"),
        );
    }
    Ok(facts)
}

fn wanted(facts: &BatchFacts<'_>) -> Option<Wanted> {
    let (key, determination) = (facts.key?, facts.determination?);
    Some(Wanted {
        key: key.record.label.clone(),
        incident: determination.incident.clone(),
        root: key.contingency.as_ref()?.root?,
    })
}

fn is_signed_by_itself(root: &SmkiCertificate) -> bool {
    let certificate = root.certificate();
    certificate.subject() == certificate.issuer()
        && root.key().verifies_der(certificate.body(), certificate.signature())
}

fn contingency_key<'a>(fold: &'a Fold, key: &KeyLabel, reasons: &mut Reasons) -> Option<&'a KeyFacts> {
    let Some(facts) = fold.keys().get(key) else {
        reasons.add("key-unknown", format!("the ledger has no key {key}"));
        return None;
    };
    let found = facts.record.use_;
    reasons.demand("key-use", found == KeyUse::Contingency, || {
        format!("expected a contingency key; {key} is a {found} key")
    });
    Some(facts).filter(|_| found == KeyUse::Contingency)
}

impl Reasons {
    fn extend(&mut self, decided: Result<(), Vec<Refusal>>) {
        self.0.extend(decided.err().into_iter().flatten().map(|refusal| refusal.reason()));
    }
}

#[cfg(test)]
pub(in crate::domain) mod tests;
