//! Pure. May this document be taken in? One function per type; each gives the very event to be recorded, or every reason.
//!
//! The daemon asks before it records; the audit asks again, with the state as it was, and compares the event.

mod activation;
mod asker;
mod ceremonies;
pub mod contingency;
mod custodians;
pub mod device_certificates;
mod files;
pub mod jobs;
mod opening;
mod replacements;
pub mod responses;
mod rivals;
pub mod steps;

use std::collections::BTreeSet;

use der::asn1::ObjectIdentifier;

use crate::domain::certificates::path::{self, Time};
use crate::domain::certificates::person::check_person_certificate;
use crate::domain::certificates::profile::{Kind, Profile, SmkiCertificate, Usage};
use crate::domain::certificates::x509::Certificate;
use crate::domain::determination::cms::{self, Ess};
use crate::domain::determination::document::{
    Determination, DeviceList, DocumentFault, Form, LedgerHead, Method, Proposed, Schedule, Scope, Suspension,
    Template as DocumentTemplate, Withdrawal, Written,
};
use crate::domain::determination::quorum::{Approvals, Ballot, Count, Electorates, NotQuorate, Signature};
use crate::domain::determination::times;
use crate::domain::fold::{self, Adopted, Blobs, Fold};
use crate::domain::gbcs::{CpvChecks, KeyUsage, RECOVERY_ROLE, RemotePartyRole, Template, Update};
use crate::domain::incident::decide::{Decided, decide_determination};
use crate::domain::incident::{Progress, routes, timeline};
use crate::domain::ledger::entry::{
    CertificateImported, ClockState, DeterminationRecorded, DeterminationSuspended, DeterminationWithdrawn,
    PolicyAdopted, Reason, ScheduleRecorded, SignatureRecord,
};
use crate::domain::ledger::steps::{CompromiseClass, DirectionRecorded, ProfileInForce};
use crate::domain::names::{DeterminationId, Digest, DirectionId, IncidentId, KeyLabel, KeyUse, PersonId};
use crate::domain::policy::adoption::{self, Adoption};
use crate::domain::policy::facts::{DeterminationFacts, Standing};
use crate::domain::policy::rules::Refusal;
use crate::domain::policy::separation::Part;
use crate::domain::policy::{Policy, RootCell, SigningCertificate, admission};
use crate::domain::procedure::direction::{self, Direction, Directs};
use crate::domain::time::Timestamp;

use replacements::Replacing;

pub use activation::{activation, may_activate};
pub use asker::{operator, person};
pub use ceremonies::{destruction, may_begin_deal, may_copy, may_deal, may_end, may_make, may_record};
pub use custodians::presentation;
pub use files::{FileSent, Look, NOTE_LEN_MAX, NotTaken, exercise, file, file_at_once, is_unsigned};
pub use opening::{DESCRIPTION_LEN_MAX, KeyMeant, NOTIFICATION_TEXT_LEN_MAX, OF_AN_OCA, Opening, incident, whose};
pub use replacements::is_of_dcc;

/// A signed head of this ledger: what a drafter may have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The root over so many entries.
    pub root: Digest,
    /// When the last of them was recorded.
    pub at: Timestamp,
}

/// The signed heads of this ledger, by size.
pub trait Heads {
    /// The head of that size, if a checkpoint of it was signed.
    fn head(&self, size: u64) -> Option<Head>;
}

/// What came with a document.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// The detached CMS signatures, DER or PEM.
    pub signatures: &'a [Vec<u8>],
    /// What the device list amounts to, where one came: counted, hashed and read through.
    pub devices: Option<DeviceList>,
}

/// The moment and the state of a decision.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The state.
    pub fold: &'a Fold,
    /// The documents that entries name.
    pub blobs: &'a dyn Blobs,
    /// The signed heads.
    pub heads: &'a dyn Heads,
    /// Now.
    pub at: Timestamp,
    /// What the clock is worth that says so.
    pub clock: ClockState,
}

/// Collects reasons.
#[derive(Debug, Default)]
struct Reasons(Vec<Reason>);

impl Reasons {
    #[expect(clippy::needless_pass_by_value, reason = "texts and errors are given by value")]
    fn add(&mut self, rule: &str, text: impl ToString) {
        self.0.push(Reason { rule: rule.into(), text: text.to_string().into() });
    }

    /// Adds the fault of a result and gives its value.
    fn take<T, E: ToString>(&mut self, rule: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|fault| self.add(rule, fault)).ok()
    }

    fn demand(&mut self, rule: &str, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.add(rule, text());
        }
    }

    fn end<T>(self, value: Option<T>) -> Result<T, Vec<Reason>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            Some(_) | None => Err(self.0),
        }
    }
}

/// The faults of a document that cannot be read, as reasons.
pub fn unreadable(faults: &[DocumentFault]) -> Vec<Reason> {
    faults.iter().map(|fault| Reason { rule: "document".into(), text: fault.to_string().into() }).collect()
}

/// A determination.
pub fn determination(
    context: &Context<'_>,
    document: &Written<Determination>,
    submission: &Submission<'_>,
) -> Result<DeterminationRecorded, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let (fold, form) = (context.fold, document.form());
    let adopted = policy_in_force(fold, &mut reasons)?;
    let head = head_of(context, &form.ledger, &mut reasons);
    check_clock(context, &mut reasons);
    let view = fold.incident_view(&form.incident, context.at);
    let settled = view.as_ref().map(|view| {
        let known = view.done.iter().chain(view.departures.keys());
        known.filter(|step| view.has_settled(step)).cloned().collect()
    });
    let recorded = admission::Recorded { extensions: fold.extensions(), settled: settled.as_ref() };
    for refusal in admission::determination(&adopted.policy, document, recorded, head, context.at) {
        reasons.add("admission", refusal);
    }
    reasons.demand("determination-known", !fold.determinations().contains_key(&form.id), || {
        format!("determination {} is recorded already; an id is used once", form.id)
    });
    check_incident(fold, form, &mut reasons);
    let mut uncounted = Reasons::default();
    let signatures = quorate(context, document, submission, adopted, &mut uncounted);
    let departures = check_procedure(context, form, signatures.is_some(), &mut reasons);
    check_supersession(fold, form, &mut reasons);
    check_key(fold, form, &mut reasons);
    contingency::check_line(context, &adopted.policy, form, &mut reasons);
    check_class(fold, form, &mut reasons);
    match form.scope() {
        Some(scope) => {
            let replacing = Replacing::new(context, &adopted.policy, form);
            let sent = (submission, signatures.is_some());
            check_scope(context, adopted, &scope, &replacing, sent, &mut reasons);
        }
        None => reasons.demand("devices", submission.devices.is_none(), || {
            "a device list came, and the document names none; send it without".into()
        }),
    }
    reasons.0.append(&mut uncounted.0);
    check_parts(context, Some(&form.incident), signatures.as_deref(), &mut reasons);
    reasons.end(signatures.map(|signatures| DeterminationRecorded {
        determination: form.id,
        incident: form.incident.clone(),
        document: document.digest(),
        signatures,
        devices: form.scope().map(|scope| scope.devices.sha256),
        policy: form.policy,
        profile: profile_in_force(fold, context.at),
        departures,
    }))
}

/// The schedule of a determination that left its scope open.
pub fn schedule(
    context: &Context<'_>,
    document: &Written<Schedule>,
    submission: &Submission<'_>,
) -> Result<ScheduleRecorded, Vec<Reason>> {
    let (mut reasons, mut uncounted) = (Reasons::default(), Reasons::default());
    let form = document.form();
    let adopted = policy_in_force(context.fold, &mut reasons)?;
    let head = head_of(context, &form.ledger, &mut reasons);
    check_clock(context, &mut reasons);
    let signatures = quorate(context, document, submission, adopted, &mut uncounted);
    if let Some((target, of)) = standing(context, form.determination, &mut reasons) {
        for refusal in admission::schedule(&adopted.policy, &of, document, head, context.at) {
            reasons.add("admission", refusal);
        }
        reasons.demand("scope-known", target.scope.is_none(), || {
            format!("determination {} has its schedule already; supersede it instead", target.id)
        });
        check_followed(context, target, &mut reasons);
        let of = of.form();
        contingency::check_line(context, &adopted.policy, of, &mut reasons);
        let replacing = Replacing::new(context, &adopted.policy, of);
        let sent = (submission, signatures.is_some());
        check_scope(context, adopted, &form.scope(), &replacing, sent, &mut reasons);
        let facts = context.fold.incidents().get(&target.incident);
        if let Some(progress) = facts.and_then(|facts| facts.progress.as_ref()).filter(|_| signatures.is_some()) {
            check_targets(context, progress, form.scope().devices.sha256, &mut reasons);
        }
    }
    reasons.0.append(&mut uncounted.0);
    check_parts(context, incident_of(context.fold, form.determination), signatures.as_deref(), &mut reasons);
    reasons.end(signatures.map(|signatures| ScheduleRecorded {
        determination: form.determination,
        document: document.digest(),
        signatures,
        devices: form.devices.sha256,
        policy: form.policy,
        profile: profile_in_force(context.fold, context.at),
    }))
}

/// The end of a determination.
pub fn withdrawal(
    context: &Context<'_>,
    document: &Written<Withdrawal>,
    submission: &Submission<'_>,
) -> Result<DeterminationWithdrawn, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let form = document.form();
    let adopted = policy_in_force(context.fold, &mut reasons)?;
    let head = head_of(context, &form.ledger, &mut reasons);
    if let Some((_, of)) = standing(context, form.determination, &mut reasons) {
        for refusal in admission::withdrawal(&adopted.policy, &of, document, head, context.at) {
            reasons.add("admission", refusal);
        }
    }
    let signatures = quorate(context, document, submission, adopted, &mut reasons);
    check_parts(context, incident_of(context.fold, form.determination), signatures.as_deref(), &mut reasons);
    reasons.end(signatures.map(|signatures| DeterminationWithdrawn {
        determination: form.determination,
        document: document.digest(),
        signatures,
    }))
}

/// A direction: it extends a variation of the procedure, or departs from a step in one incident. `text` is the SHA-256 of the
/// direction's own text, where that came with the document.
pub fn direction(
    context: &Context<'_>,
    document: &Written<Direction>,
    text: Option<Digest>,
    submission: &Submission<'_>,
) -> Result<DirectionRecorded, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let (fold, form) = (context.fold, document.form());
    let adopted = policy_in_force(fold, &mut reasons)?;
    let head = head_of(context, &form.ledger, &mut reasons);
    check_clock(context, &mut reasons);
    for refusal in admission::direction(&adopted.policy, document, head, context.at) {
        reasons.add("admission", refusal);
    }
    reasons.demand("direction-known", !fold.has_direction(form.id), || {
        format!("direction {} is recorded already; an id is used once", form.id)
    });
    reasons.demand("devices", submission.devices.is_none(), || {
        "a device list came, and a direction names none; send it without".into()
    });
    if let Some(found) = text {
        reasons.demand("direction-text", form.text == Some(found), || {
            let expected = form.text.map_or_else(|| "none".into(), |text| format!("SHA-256 {text}"));
            format!("the direction's own text: the document names {expected}, sent was SHA-256 {found}")
        });
    }
    let view = match &form.directs {
        Directs::Extension { .. } => None,
        Directs::Departure { incident, .. } => {
            match fold.incidents().get(incident) {
                None => reasons.add("incident-unknown", format!("no incident {incident} is open; open it first")),
                Some(facts) => {
                    reasons
                        .demand("incident-closed", facts.closed.is_none(), || format!("incident {incident} is closed"));
                }
            }
            fold.incident_view(incident, context.at)
        }
    };
    let procedure = adopted.policy.procedure();
    let checked = direction::check(document, procedure, fold.extensions(), view.as_ref(), context.at);
    reasons.take("direction", checked);
    let signatures = quorate(context, document, submission, adopted, &mut reasons);
    check_parts(context, form.directs.incident(), signatures.as_deref(), &mut reasons);
    reasons.end(signatures.map(|signatures| DirectionRecorded {
        direction: form.id,
        document: document.digest(),
        signatures,
        policy: form.policy,
        text,
    }))
}

/// A pause of a determination, by one member, once, for the hours that the policy allows. Whoever it is: that it is stopped is never
/// refused for what else they did in the incident. From then on they are of those who decide in it.
pub fn suspension(
    context: &Context<'_>,
    document: &Written<Suspension>,
    submission: &Submission<'_>,
) -> Result<DeterminationSuspended, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let form = document.form();
    let adopted = policy_in_force(context.fold, &mut reasons)?;
    if let Some((target, of)) = standing(context, form.determination, &mut reasons) {
        for refusal in admission::suspension(&adopted.policy, &of, document) {
            reasons.add("admission", refusal);
        }
        reasons.demand("suspension-used", !target.suspended_by.contains(&form.member), || {
            format!("{} has suspended determination {} before; a member may do so once", form.member, target.id)
        });
    }
    let verified = verified(document.octets(), submission, &adopted.policy, context.at, &mut reasons);
    let electorate = adopted.policy.electorate();
    let count = Count {
        document: document.digest(),
        electorates: Electorates { named: electorate, in_force: electorate },
        proposer: None,
        at: context.at,
    };
    let theirs = verified.iter().find(|signature| count.is_by(&form.member, signature).is_ok());
    if theirs.is_none() {
        for signature in &verified {
            reasons.take("signature", count.is_by(&form.member, signature));
        }
        reasons.demand("signature", !verified.is_empty(), || {
            format!("expected a signature of {}, found none that verifies", form.member)
        });
    }
    reasons.end(theirs.map(|signature| DeterminationSuspended {
        determination: form.determination,
        document: document.digest(),
        signatures: vec![record(&form.member, signature)],
        until: times::Suspended::new(context.at, form.hours).until(),
    }))
}

/// A policy takes another's place, or the first place. `new` was read from the files that came with the document.
pub fn policy(
    context: &Context<'_>,
    document: &Written<Adoption>,
    new: &Policy,
    submission: &Submission<'_>,
) -> Result<PolicyAdopted, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let (fold, form) = (context.fold, document.form());
    let old = fold.policy();
    if let (Some(genesis), None) = (fold.genesis(), old) {
        reasons.demand("policy", genesis.0.policy == new.digest(), || {
            format!("policy: the genesis entry names {}, found {}", genesis.0.policy, new.digest())
        });
    }
    // What was signed with a spent generation is made again from the policy's originator.
    for facts in fold.keys().values() {
        let spent = facts.contingency.as_ref().and_then(|contingency| contingency.spent.as_ref());
        let of = |policy: &Policy| policy.key(&facts.record.label).and_then(|key| key.originator);
        if let (Some((incident, _)), Some(old)) = (spent, old) {
            reasons.demand("originator", of(&old.policy) == of(new), || {
                format!(
                    "key {}: its symmetric key is spent in incident {incident}, whose commands name the originator of the policy in force; a later \
                     policy keeps the key and its originator",
                    facts.record.label
                )
            });
        }
    }
    // Each signer must be vouched for by the people's CA of the policy under which they are counted.
    let mut signatures = verified(document.octets(), submission, new, context.at, &mut reasons);
    if let Some(old) = old {
        let under_old = verified(document.octets(), submission, &old.policy, context.at, &mut Reasons::default());
        signatures
            .extend(under_old.into_iter().filter(|signature| !signatures.contains(signature)).collect::<Vec<_>>());
    }
    let in_force: BTreeSet<DeterminationId> = fold
        .determinations()
        .values()
        .filter(|facts| !facts.withdrawn && facts.superseded_by.is_none() && facts.dropped_by_policy.is_none())
        .map(|facts| facts.id)
        .collect();
    let is_prefix = |head: &adoption::Head| context.heads.head(head.size).is_some_and(|ours| ours.root == head.root);
    let facts = adoption::Facts {
        old: old.map(|old| (&*old.policy, old.sequence)),
        new,
        determinations: &in_force,
        is_prefix: &is_prefix,
        signatures: &signatures,
        at: context.at,
    };
    match adoption::check(document, &facts) {
        Ok(adopted) => {
            let mut by: Vec<SignatureRecord> = Vec::new();
            for (person, signature) in adopted.old.iter().flat_map(Approvals::persons).chain(adopted.new.persons()) {
                let record = record(person, signature);
                if !by.contains(&record) {
                    by.push(record);
                }
            }
            // A signature that did not verify hinders nobody, once enough others do.
            reasons.end(Some(PolicyAdopted {
                sequence: form.sequence,
                policy: new.digest(),
                predecessor: form.predecessor,
                document: document.digest(),
                signatures: by,
                carries_over: form.carries_over.clone(),
            }))
        }
        Err(refusals) => {
            for refusal in refusals {
                reasons.add("adoption", refusal);
            }
            Err(reasons.0)
        }
    }
}

/// What is decided by the date is not decided while nobody vouches for the clock: which profile is in force, which windows and
/// terms have begun or are over, which file is fresh. What stops something is taken in all the same: a suspension, a withdrawal, a
/// pause, an exclusion, a lock; and a policy, since it may take one to name the operator who accepts the clock. What Devices answered is
/// taken in too: it says what they did, and no date matters to it. Under a policy without the steps of the procedure no date but the
/// window's mattered, and that is asked where it is signed.
fn check_clock(context: &Context<'_>, reasons: &mut Reasons) {
    let is_dated = context.fold.policy().is_some_and(|adopted| adopted.policy.procedure().is_some());
    if is_dated && context.clock == ClockState::Untrusted {
        reasons.add("clock", Refusal::Clock);
    }
}

/// The certificate issued for one of our keys, with the certificates above it, leaf side first and root last.
pub fn certificate(
    context: &Context<'_>,
    key: &KeyLabel,
    certificate: &[u8],
    above: &[Vec<u8>],
) -> Result<CertificateImported, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let adopted = policy_in_force(context.fold, &mut reasons)?;
    check_clock(context, &mut reasons);
    let profile = profile(&adopted.policy);
    let Some(facts) = context.fold.keys().get(key) else {
        reasons.add("key-unknown", format!("the ledger has no key {key}"));
        return Err(reasons.0);
    };
    let leaf = reasons.take("certificate", SmkiCertificate::parse(certificate, &profile));
    let mut offered = Vec::new();
    for octets in above {
        offered.extend(reasons.take("path-certificate", SmkiCertificate::parse(octets, &profile)));
    }
    let mut party = None;
    if let Some(leaf) = &leaf {
        let found = leaf.certificate().spki_sha256();
        reasons.demand("certificate-key", found == facts.record.spki_sha256, || {
            format!("the certificate is of public key {found}; key {key} has {}", facts.record.spki_sha256)
        });
        let time = Time::At(context.at);
        check_path(&adopted.policy, &profile, leaf, &offered, time, &key.to_string(), &mut reasons);
        party = match leaf.kind() {
            Kind::Organisation { role: RECOVERY_ROLE, party, usage: Usage::DigitalSignature } => Some(party),
            kind @ (Kind::Organisation { .. }
            | Kind::IssuingOca
            | Kind::RootOca
            | Kind::DeviceCa
            | Kind::Device { .. }) => {
                reasons.add(
                    "certificate-kind",
                    format!(
                        "expected an Organisation Certificate of role 01 (recovery), digitalSignature; found {kind}"
                    ),
                );
                None
            }
        };
        let originator = adopted.policy.key(key).and_then(|key| key.originator);
        if let (Some(party), Some(originator)) = (party, originator) {
            reasons.demand("originator", party == originator, || {
                format!("the policy gives key {key} the originator {originator}; the certificate is {party}'s")
            });
        }
    }
    reasons.end(party.map(|party| CertificateImported {
        key: key.clone(),
        party,
        certificate: Digest::of(certificate),
        path: above.iter().map(|octets| Digest::of(octets)).collect(),
    }))
}

/// The procedure profile in force at the moment of a decision.
pub fn profile_in_force(fold: &Fold, at: Timestamp) -> Option<ProfileInForce> {
    Some(fold.policy()?.policy.procedure()?.in_force(at, fold.extensions()).ids())
}

/// The SMKI profile under a policy.
pub fn profile(policy: &Policy) -> Profile {
    let certificates = policy.certificates();
    Profile::with_policies(
        certificates.organisation_policy_oids.iter().copied().collect(),
        certificates.device_policy_oids.iter().copied().collect(),
    )
}

fn policy_in_force<'a>(fold: &'a Fold, reasons: &mut Reasons) -> Result<&'a Adopted, Vec<Reason>> {
    fold.policy().ok_or_else(|| {
        reasons.add("policy", "no policy is in force yet; the ceremony adopts the first");
        std::mem::take(&mut reasons.0)
    })
}

/// When the last entry under a document's ledger head was recorded; the head must be one that this ledger signed.
///
/// If it is not, the answer is the beginning of time: the document is refused anyway, and told that it is too old besides.
fn head_of(context: &Context<'_>, head: &LedgerHead, reasons: &mut Reasons) -> Timestamp {
    match context.heads.head(head.size) {
        None => reasons.add(
            "ledger-head",
            format!(
                "ledger.size: expected the size of a signed checkpoint of this ledger, found {}: the drafter saw another \
                 ledger, or this one was rolled back",
                head.size
            ),
        ),
        Some(ours) if ours.root != head.root => reasons.add(
            "ledger-head",
            format!(
                "ledger.root: expected {} at size {}, found {}: the drafter saw another ledger",
                ours.root, head.size, head.root
            ),
        ),
        Some(ours) => return ours.at,
    }
    context.at
}

/// The determination that a further document is about, if it still stands.
fn standing<'a>(
    context: &Context<'a>,
    id: DeterminationId,
    reasons: &mut Reasons,
) -> Option<(&'a DeterminationFacts, Written<Determination>)> {
    let Some(target) = context.fold.determinations().get(&id) else {
        reasons.add("determination-unknown", format!("no determination {id} is recorded"));
        return None;
    };
    reasons.demand("withdrawn", !target.withdrawn, || format!("determination {id} is withdrawn already"));
    if let Some(by) = target.superseded_by {
        reasons.add("superseded", format!("determination {id} was superseded by {by}"));
    }
    let document = reasons.take("determination-document", fold::read(target.document, context.blobs))?;
    Some((target, document))
}

/// A schedule fills in what its incident goes by: a determination that it follows still, and that has not ended.
fn check_followed(context: &Context<'_>, target: &DeterminationFacts, reasons: &mut Reasons) {
    let DeterminationFacts { id, incident, .. } = target;
    let is_open = context.fold.incidents().get(incident).is_some_and(|facts| facts.closed.is_none());
    reasons.demand("incident-closed", is_open, || format!("incident {incident} is closed"));
    let followed = context.fold.followed_by(incident);
    reasons.demand("followed", followed.as_ref() == Some(id), || {
        let found = followed.map_or_else(|| "none".into(), |followed| followed.to_string());
        format!("incident {incident} follows determination {found}, not {id}: no schedule of it is of use")
    });
    if let Some(refusal) = target.not_in_force(context.at).filter(|_| target.standing(context.at) == Standing::Expired)
    {
        reasons.add("window", refusal);
    }
}

fn check_incident(fold: &Fold, form: &Determination, reasons: &mut Reasons) {
    let Some(incident) = fold.incidents().get(&form.incident) else {
        reasons.add("incident-unknown", format!("no incident {} is open; open it first", form.incident));
        return;
    };
    reasons.demand("incident-closed", incident.closed.is_none(), || format!("incident {} is closed", form.incident));
    reasons.demand("ledger-head", incident.opened < form.ledger.size, || {
        format!(
            "ledger.size: expected more than {}, so that it contains incident {}, found {}",
            incident.opened, form.incident, form.ledger.size
        )
    });
    reasons.demand("compromised", incident.compromised == form.compromised, || {
        format!(
            "compromised: expected the incident's certificate {}, found {}",
            incident.compromised.certificate_sha256, form.compromised.certificate_sha256
        )
    });
}

/// The method is one of those that there are for the key that the incident is about.
fn check_class(fold: &Fold, form: &Determination, reasons: &mut Reasons) {
    let (Some(method), Some(facts)) = (form.method, fold.incidents().get(&form.incident)) else { return };
    let class = facts.progress.as_ref().map_or(CompromiseClass::Organisation, Progress::class);
    let of = match (facts.key, class) {
        (Some(key), _) => routes::name(key),
        (None, CompromiseClass::Organisation) => "an Organisation key",
        // Of before anybody said which key is meant: what was assessed was judged then.
        (None, CompromiseClass::Other) => return,
    };
    let methods = routes::of(facts.key).methods;
    reasons.demand("method", methods.contains(&method), || {
        let expected: Vec<&str> = methods.iter().map(|method| timeline::method(*method)).collect();
        format!(
            "method: for a Compromise of {of} expected {}, found {}",
            expected.join(" or "),
            timeline::method(method)
        )
    });
}

/// The PMA determines on what was referred to it, and only about Relevant Devices. A list is looked through for a quorum, and for
/// nobody else: it is long, and everybody waits. Answers the directions that this relied on.
fn check_procedure(
    context: &Context<'_>,
    form: &Determination,
    is_quorate: bool,
    reasons: &mut Reasons,
) -> Vec<DirectionId> {
    let facts = context.fold.incidents().get(&form.incident);
    let progress = facts.and_then(|facts| facts.progress.as_ref());
    let Some((progress, view)) = progress.zip(steps::View::of(context, &form.incident)) else {
        // It was opened under a policy without the procedure's steps, and would go round every one of them.
        let in_procedure = context.fold.policy().is_some_and(|adopted| adopted.policy.procedure().is_some());
        reasons.demand("incident-state", facts.is_none() || !in_procedure, || {
            format!(
                "incident {} was opened under a policy without the procedure's steps; close it, and open one anew under the \
                 policy in force",
                form.incident
            )
        });
        return Vec::new();
    };
    let Decided { departures } = decide_determination(&view.situation(), form.supersedes).unwrap_or_else(|further| {
        reasons.0.extend(further);
        Decided::default()
    });
    if let Some(scope) = form.scope().filter(|_| is_quorate) {
        check_targets(context, progress, scope.devices.sha256, reasons);
    }
    departures
}

/// Every Device of a list is a target of the incident, and not left out (SEC Section L10.30(a)).
fn check_targets(context: &Context<'_>, progress: &Progress, list: Digest, reasons: &mut Reasons) {
    match steps::outside_of_targets(context, progress, list) {
        Ok((outside, more)) => {
            for device in outside {
                reasons.add(
                    "not-a-target",
                    format!("Device {device} is no Relevant Device of the incident, or was left out"),
                );
            }
            reasons.demand("not-a-target", more == 0, || format!("and {more} more Devices"));
        }
        Err(error) => reasons.add("devices", error),
    }
}

fn check_supersession(fold: &Fold, form: &Determination, reasons: &mut Reasons) {
    if let Some(id) = form.supersedes {
        match fold.determinations().get(&id) {
            None => reasons.add("supersedes", format!("no determination {id} is recorded to be superseded")),
            Some(old) => {
                reasons.demand("supersedes", old.incident == form.incident, || {
                    format!("determination {id} is of incident {}, this one of {}", old.incident, form.incident)
                });
                if let Some(by) = old.superseded_by {
                    reasons.add("supersedes", format!("determination {id} was superseded by {by} already"));
                }
            }
        }
    }
    let rival = fold.determinations().values().find(|other| {
        other.incident == form.incident
            && other.decision_number == form.decision_number
            && other.superseded_by.is_none()
            && form.supersedes != Some(other.id)
    });
    if let Some(rival) = rival {
        reasons.add(
            "decision-number",
            format!(
                "decision {} of incident {} is determination {}; a second one must supersede it",
                form.decision_number, form.incident, rival.id
            ),
        );
    }
}

/// The key is one of the ledger's, with that public key, and not Compromised itself.
fn check_key(fold: &Fold, form: &Determination, reasons: &mut Reasons) {
    let Some(chosen) = &form.key else { return };
    match fold.keys().get(&chosen.label) {
        None => reasons.add("key-unknown", format!("key.label: the ledger has no key {}", chosen.label)),
        Some(key) => reasons.demand("key-differs", key.record.spki_sha256 == chosen.spki_sha256, || {
            format!("key.spki_sha256: expected {}, found {}", key.record.spki_sha256, chosen.spki_sha256)
        }),
    }
    // One authority never opens the other, whatever a policy says.
    let by_contingency = form.method == Some(Method::Contingency);
    if let Some(found) = fold.keys().get(&chosen.label).map(|key| key.record.use_) {
        reasons.demand("method", by_contingency == (found == KeyUse::Contingency), || {
            format!("key.label: the ledger has {} as a {found} key, which the method does not use", chosen.label)
        });
    }
    if let Some(incident) = fold.compromised_in(&chosen.label) {
        let refusal = Refusal::KeyCompromised { key: chosen.label.clone(), incident: incident.clone() };
        reasons.0.push(refusal.reason());
    }
}

fn check_scope(
    context: &Context<'_>,
    adopted: &Adopted,
    scope: &Scope<'_>,
    replacing: &Replacing<'_>,
    (submission, is_quorate): (&Submission<'_>, bool),
    reasons: &mut Reasons,
) {
    match submission.devices {
        // A list is read for a quorum, and for nobody else.
        None => {
            reasons.demand("devices", !is_quorate, || "the document names a device list, and none came with it".into());
        }
        Some(found) => reasons.demand("devices", found == scope.devices, || {
            format!(
                "devices: expected {} lines of SHA-256 {} and root {}, found {} lines of SHA-256 {} and root {}",
                scope.devices.count, scope.devices.sha256, scope.devices.root, found.count, found.sha256, found.root
            )
        }),
    }
    for template in scope.templates {
        check_template(&adopted.policy, template, replacing, context.at, reasons);
    }
}

/// One command template: everything in it is approved, so everything in it is looked at.
fn check_template(
    policy: &Policy,
    document: &DocumentTemplate,
    replacing: &Replacing<'_>,
    at: Timestamp,
    reasons: &mut Reasons,
) {
    let name = &document.name;
    let template = Template::parse(document.payload.octets()).map_err(|error| format!("template {name}: {error}"));
    let Some(template) = reasons.take("template", template) else { return };
    let update = template.update();
    let expected = replacing.mode();
    reasons.demand("mode", template.mode() == expected, || {
        format!(
            "template {name}: by this method expected mode {} ({expected}), found {}",
            expected.code(),
            template.mode()
        )
    });
    reasons.demand("future-dated", update.execution.is_none(), || {
        format!("template {name}: it is future dated or a cancellation, which this version does not sign")
    });
    let ceiling = policy.limits().floor_ceiling;
    for (role, floor) in update.floors() {
        reasons.demand("floor", floor <= ceiling, || {
            format!(
                "template {name}: the floor {floor} of {role} is above the policy's ceiling {ceiling}: a Device would refuse \
                 every command below it from then on"
            )
        });
    }
    check_replacements(policy, name.as_str(), &update, replacing, at, reasons);
    replacing.check_contingency(&update, name.as_str(), reasons);
}

fn check_replacements(
    policy: &Policy,
    name: &str,
    update: &Update<'_>,
    replacing: &Replacing<'_>,
    at: Timestamp,
    reasons: &mut Reasons,
) {
    let profile = profile(policy);
    let may_replace_root = replacing.by_contingency() || policy.mode_8().root_cell != RootCell::Refuse;
    reasons.demand("root-cell", !update.replaces_root() || may_replace_root, || {
        format!("template {name}: it replaces the root, which only the Contingency Private Key may")
    });
    let mut offered = Vec::new();
    for octets in &update.path_certificates {
        let parsed = SmkiCertificate::parse(octets, &profile);
        offered.extend(reasons.take("path-certificate", parsed.map_err(|error| format!("template {name}: {error}"))));
    }
    for certificate in &offered {
        replacing.check_issuer(certificate, name, reasons);
    }
    let time = match update.cpv_checks {
        CpvChecks::Apply => Time::At(at),
        CpvChecks::Disapply => Time::Disapplied,
    };
    let mut cells = BTreeSet::new();
    for replacement in &update.replacements {
        let place = format!("template {name}, cell {}", replacement.cell);
        reasons.demand("cell-twice", cells.insert(replacement.cell), || format!("{place}: it is replaced twice"));
        let parsed = SmkiCertificate::parse(replacement.certificate, &profile);
        let Some(certificate) = reasons.take("replacement", parsed.map_err(|error| format!("{place}: {error}"))) else {
            continue;
        };
        replacing.check(replacement.cell, &certificate, &place, reasons);
        let usage = match certificate.kind() {
            Kind::Organisation { usage: Usage::DigitalSignature, .. } => Some(KeyUsage::DigitalSignature),
            Kind::Organisation { usage: Usage::KeyAgreement, .. } => Some(KeyUsage::KeyAgreement),
            Kind::RootOca => Some(KeyUsage::KeyCertSign),
            Kind::IssuingOca | Kind::DeviceCa | Kind::Device { .. } => None,
        };
        reasons.demand("replacement-usage", usage == Some(replacement.cell.key_usage), || {
            format!("{place}: the certificate is of {}, which does not go there", certificate.kind())
        });
        match replacing.new_root() {
            // What it would lead to is not known, and why was said.
            None if replacing.by_contingency() => {}
            // That it is the one that carries the next generation is asked beside.
            Some(_) if replacement.cell.role == RemotePartyRole::Root => {}
            Some(root) => {
                check_path_to(policy, &certificate, &offered, std::slice::from_ref(root), time, &place, reasons);
            }
            None => check_path_to(policy, &certificate, &offered, &replacing.roots(&profile), time, &place, reasons),
        }
    }
}

/// A path to one of the policy's Root OCA Certificates.
fn check_path(
    policy: &Policy,
    profile: &Profile,
    leaf: &SmkiCertificate,
    offered: &[SmkiCertificate],
    time: Time,
    place: &str,
    reasons: &mut Reasons,
) {
    let roots: Vec<SmkiCertificate> =
        policy.anchors().root_oca.iter().filter_map(|root| SmkiCertificate::parse(root, profile).ok()).collect();
    check_path_to(policy, leaf, offered, &roots, time, place, reasons);
}

/// A path to one of these roots.
fn check_path_to(
    policy: &Policy,
    leaf: &SmkiCertificate,
    offered: &[SmkiCertificate],
    roots: &[SmkiCertificate],
    time: Time,
    place: &str,
    reasons: &mut Reasons,
) {
    let oids: Vec<ObjectIdentifier> = policy.certificates().organisation_policy_oids.iter().copied().collect();
    let mut faults = Vec::new();
    for root in roots {
        match path::check(leaf, offered, root, &oids, time) {
            Ok(_) => return,
            Err(error) => faults.push(error.to_string()),
        }
    }
    if faults.is_empty() {
        faults.push("no Root OCA Certificate is left that it could lead to".to_owned());
    }
    reasons.add("path", format!("{place}: {}", faults.join("; ")));
}

/// The signatures that verify under this policy's anchors. One that does not is a reason, which counts only if the quorum is
/// not met without it.
fn verified(
    octets: &[u8],
    submission: &Submission<'_>,
    policy: &Policy,
    at: Timestamp,
    reasons: &mut Reasons,
) -> Vec<Signature> {
    let (mut found, signed) = (Vec::new(), Digest::of(octets));
    for p7s in submission.signatures {
        let file = cms::verify_digest(p7s, &signed, ess(policy));
        found.extend(vouched(file.as_ref(), signed, Digest::of(p7s), policy, at, reasons));
    }
    found
}

/// Whether the policy has signatures carry signing-certificate-v2.
fn ess(policy: &Policy) -> Ess {
    match policy.certificates().signing_certificate_v2 {
        SigningCertificate::Require => Ess::Required,
        SigningCertificate::Waive => Ess::Waived,
    }
}

/// Those of the signatures in one file, verified over what has the SHA-256 `signed`, whose certificates the policy's anchors vouch for.
fn vouched(
    file: Result<&cms::Verified, &cms::CmsError>,
    signed: Digest,
    p7s: Digest,
    policy: &Policy,
    at: Timestamp,
    reasons: &mut Reasons,
) -> Vec<Signature> {
    let named = |error: String| format!("signature {p7s}: {error}");
    let Some(file) = reasons.take("signature", file.map_err(|error| named(error.to_string()))) else {
        return Vec::new();
    };
    let anchors: Vec<Certificate> =
        policy.anchors().people.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    let mut found = Vec::new();
    for signer in &file.signers {
        let person = check_person_certificate(&signer.certificate, &file.certificates, &anchors, at);
        if reasons.take("signer", person.map_err(|error| named(error.to_string()))).is_some() {
            found.push(Signature { spki: signer.spki_sha256(), signed, p7s });
        }
    }
    found
}

fn incident_of(fold: &Fold, determination: DeterminationId) -> Option<&IncidentId> {
    fold.determinations().get(&determination).map(|facts| &facts.incident)
}

/// Those who would approve have taken no other part in the incident. Under a policy of the first version, which names no
/// Parties, nobody asked, and what was recorded then still stands.
fn check_parts(
    context: &Context<'_>,
    incident: Option<&IncidentId>,
    signatures: Option<&[SignatureRecord]>,
    reasons: &mut Reasons,
) {
    if context.fold.policy().is_none_or(|adopted| adopted.policy.parties().is_empty()) {
        return;
    }
    let Some(facts) = incident.and_then(|incident| context.fold.incidents().get(incident)) else { return };
    for signature in signatures.unwrap_or_default() {
        reasons.take("separation", facts.parts.check(&signature.person, Part::Approver));
    }
}

fn record(person: &PersonId, signature: &Signature) -> SignatureRecord {
    SignatureRecord { person: person.clone(), spki: signature.spki, p7s: signature.p7s }
}

/// Whether the quorum of a policy signed a document, whatever else speaks against it: asked before anything dear is done for it.
pub fn is_quorate<F: Proposed + Form + Clone>(
    policy: &Policy,
    document: &Written<F>,
    signatures: &[Vec<u8>],
    at: Timestamp,
) -> bool {
    let submission = Submission { signatures, devices: None };
    ballot(policy, document, &submission, at, &mut Reasons::default()).is_ok()
}

/// Counts.
fn ballot<F: Proposed + Form + Clone>(
    policy: &Policy,
    document: &Written<F>,
    submission: &Submission<'_>,
    at: Timestamp,
    faults: &mut Reasons,
) -> Result<Vec<SignatureRecord>, NotQuorate> {
    let verified = verified(document.octets(), submission, policy, at, faults);
    let electorate = policy.electorate();
    let electorates = Electorates { named: electorate, in_force: electorate };
    match Ballot::draft(document.clone()).close(electorates, &verified, at) {
        Ok(ballot) => Ok(ballot.approvals().persons().map(|(person, signature)| record(person, signature)).collect()),
        Err((_, fault)) => Err(fault),
    }
}

/// Counts, and gives the approvals; signatures that do not verify are reasons only if the quorum is not met.
fn quorate<F: Proposed + Form + Clone>(
    context: &Context<'_>,
    document: &Written<F>,
    submission: &Submission<'_>,
    adopted: &Adopted,
    reasons: &mut Reasons,
) -> Option<Vec<SignatureRecord>> {
    let mut faults = Reasons::default();
    match ballot(&adopted.policy, document, submission, context.at, &mut faults) {
        Ok(approvals) => Some(approvals),
        Err(fault) => {
            reasons.0.append(&mut faults.0);
            reasons.add("quorum", fault);
            None
        }
    }
}
