//! Pure. May this file of the procedure be taken in? Who signed it, for whom, and whether it says what the incident is about.

use super::steps::file_in_place;
use super::{Context, OF_AN_OCA, Reasons, check_clock, policy_in_force, profile_in_force, record, vouched};
use crate::domain::determination::cms::{self, CmsError, Ess};
use crate::domain::determination::people::{Person, Role};
use crate::domain::determination::quorum::Signature;
use crate::domain::files::{Content, FileFaults, Layout, Notification, Notified, Progress, Thresholds};
use crate::domain::incident::Progress as IncidentProgress;
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::entry::{ExerciseRecorded, FileAccepted, Reason, SignatureRecord};
use crate::domain::ledger::steps::CompromiseClass;
use crate::domain::names::{Digest, FileKind, IncidentId, PartyId, SecParty};
use crate::domain::policy::Policy;
use crate::domain::policy::facts::IncidentFacts;
use crate::domain::policy::parties::{Party, PartyKind};
use crate::domain::policy::separation::Part;
use crate::domain::time::Timestamp;

/// The greatest length of the note about an exercise in octets: as that of an incident's description.
pub const NOTE_LEN_MAX: usize = super::DESCRIPTION_LEN_MAX;

/// Who signs a kind of file.
#[derive(Clone, Copy)]
enum Submitter {
    /// An ARO of the affected Subscriber (SEC Appendix L; direction of 18 July 2017, (c)).
    Subscriber,
    /// An ARO of the DCC. That these files go from the DCC to the SMKI PMA is inferred.
    Dcc,
    /// Nobody: the DCC reads it out of the Smart Metering Inventory, and an operator brings it.
    Unsigned,
}

/// Whether nobody signs files of a kind, so that an operator answers for them.
pub const fn is_unsigned(kind: FileKind) -> bool {
    match kind {
        FileKind::SmiExtract | FileKind::SmiExport => true,
        FileKind::OrganisationNotification
        | FileKind::OtherNotification
        | FileKind::OrganisationProgress
        | FileKind::OtherProgress
        | FileKind::Adt => false,
    }
}

/// A file as it was sent, and what was found out about it so far.
#[derive(Clone, Debug)]
pub struct FileSent {
    kind: FileKind,
    sha256: Digest,
    /// Of its detached signature.
    p7s: Option<Digest>,
    verified: Option<(Ess, Result<cms::Verified, CmsError>)>,
    content: Option<(Layout, Result<Content, FileFaults>)>,
}

/// What a decision on a file has to know next. It is dear, and says nothing about the state: whoever has the file finds it out where
/// nobody waits ([`FileSent::look`]), and asks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Whether its signature verifies.
    Signature(Ess),
    /// What it says.
    Content(Layout),
}

/// Why a file is not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It must not be.
    Refused(Vec<Reason>),
    /// It is not known yet.
    Look(Look),
}

impl FileSent {
    /// A file with this SHA-256, and a signature over it, of which nothing is known.
    pub const fn new(kind: FileKind, sha256: Digest, p7s: Option<Digest>) -> Self {
        Self { kind, sha256, p7s, verified: None, content: None }
    }

    /// Its SHA-256.
    pub const fn sha256(&self) -> Digest {
        self.sha256
    }

    /// Finds something out. Octets and signature are those that the file was named with.
    pub fn look(&mut self, look: Look, octets: &[u8], p7s: Option<&[u8]>) {
        match look {
            Look::Signature(ess) => {
                self.verified = Some((ess, cms::verify_digest(p7s.unwrap_or_default(), &self.sha256, ess)));
            }
            Look::Content(layout) => {
                let content = Content::read(&layout, octets);
                self.content = Some((layout, content));
            }
        }
    }
}

/// A file of the procedure, with the detached signature of an Authorised Responsible Officer: taken in whole, or not at all.
///
/// What is cheap is asked first: the incident and the kind, then who signed it, and what it says of those alone who may say it. So
/// nobody has a long file read by sending it.
///
/// An extract of the Smart Metering Inventory is not signed: that an operator brought it is asked where it comes in, and by the
/// audit of whoever is recorded.
pub fn file(context: &Context<'_>, incident: &IncidentId, sent: &FileSent) -> Result<FileAccepted, NotTaken> {
    let refused = NotTaken::Refused;
    let mut reasons = Reasons::default();
    let policy = &policy_in_force(context.fold, &mut reasons).map_err(refused)?.policy;
    let Some(facts) = context.fold.incidents().get(incident) else {
        reasons.add("incident-unknown", format!("no incident {incident} is open; open it first"));
        return Err(refused(reasons.0));
    };
    check_clock(context, &mut reasons);
    let FileSent { kind, sha256, .. } = *sent;
    reasons.demand("incident-closed", facts.closed.is_none(), || format!("incident {incident} is closed"));
    if let Err(further) = file_in_place(context, incident, kind) {
        reasons.0.extend(further);
    }
    if let Some(known) = facts.files.iter().find(|known| known.file == sha256) {
        reasons.add("file-known", format!("file {sha256} was taken in already, by entry {}", known.entry));
    }
    let submitter = submitter(facts, kind, &mut reasons);
    // What was signed for one incident says nothing in another, whoever sends it again.
    if !matches!(submitter, Some(Submitter::Unsigned)) {
        let others = context.fold.incidents().iter().filter(|(other, _)| *other != incident);
        let mut known = others.flat_map(|(other, facts)| facts.files.iter().map(move |file| (other, file)));
        if let Some((other, known)) = known.find(|(_, file)| file.file == sha256) {
            reasons.add(
                "file-known",
                format!(
                    "file {sha256} was taken in for incident {other}, by entry {}; expected one of incident {incident}'s own",
                    known.entry
                ),
            );
        }
    }
    if let Some(submitter) = submitter {
        let is_signed = sent.p7s.is_some();
        match submitter {
            Submitter::Unsigned => reasons.demand("signature", !is_signed, || {
                "an extract is brought by an operator and not signed; send it without a signature".into()
            }),
            Submitter::Subscriber | Submitter::Dcc => reasons.demand("signature", is_signed, || {
                format!("the {} needs the detached CMS signature of an ARO, found none", kind.title())
            }),
        }
    }
    let Some(submitter) = submitter.filter(|_| reasons.0.is_empty()) else { return Err(refused(reasons.0)) };
    let signed = signed(context, policy, facts, sent, submitter, &mut reasons).map_err(NotTaken::Look)?;
    if !reasons.0.is_empty() {
        return Err(refused(reasons.0));
    }
    let layout = policy.layout(kind);
    let Some((_, read)) = sent.content.as_ref().filter(|(read_by, _)| *read_by == layout) else {
        return Err(NotTaken::Look(Look::Content(layout)));
    };
    let said = match read {
        Ok(said) => Some(said),
        Err(faults) => {
            for fault in &faults.faults {
                reasons.add("file", fault);
            }
            reasons.demand("file", faults.more == 0, || format!("and {} more faults", faults.more));
            None
        }
    };
    match said {
        Some(Content::Notification(notification)) => {
            check_notification(facts, notification, signed.as_ref().map(|(_, party)| party), &mut reasons);
        }
        Some(Content::Progress(progress)) => check_progress(facts, progress, &mut reasons),
        Some(Content::Thresholds(thresholds)) => check_thresholds(policy, facts, thresholds, &mut reasons),
        Some(Content::Statuses(_)) | None => {}
    }
    let (signature, party) = signed.unzip();
    let taken = reasons.end(said.map(|said| FileAccepted {
        incident: incident.clone(),
        profile: profile_in_force(context.fold, context.at),
        kind,
        file: sha256,
        signature,
        party,
        smsr: said.smsr().cloned(),
        rows: said.rows(),
    }));
    taken.map_err(refused)
}

/// The same where nobody waits: everything is found out as it is asked for.
pub fn file_at_once(
    context: &Context<'_>,
    incident: &IncidentId,
    kind: FileKind,
    octets: &[u8],
    p7s: Option<&[u8]>,
) -> Result<FileAccepted, Vec<Reason>> {
    let mut sent = FileSent::new(kind, Digest::of(octets), p7s.map(Digest::of));
    loop {
        match file(context, incident, &sent) {
            Ok(accepted) => return Ok(accepted),
            Err(NotTaken::Refused(reasons)) => return Err(reasons),
            Err(NotTaken::Look(look)) => sent.look(look, octets, p7s),
        }
    }
}

/// Who signs a kind of file in an incident of this class.
fn submitter(facts: &IncidentFacts, kind: FileKind, reasons: &mut Reasons) -> Option<Submitter> {
    let (class, incident) = (class_of(facts), &facts.id);
    // An OCA is the DCC's: where its key is meant, or what its certificate carries, no Subscriber is the affected one.
    if kind == FileKind::Adt && facts.compromised.party == OF_AN_OCA {
        return Some(Submitter::Dcc);
    }
    match (kind, class) {
        (FileKind::OrganisationNotification | FileKind::OrganisationProgress, CompromiseClass::Organisation)
        | (FileKind::Adt, CompromiseClass::Organisation | CompromiseClass::Other) => Some(Submitter::Subscriber),
        (FileKind::OtherNotification | FileKind::OtherProgress, CompromiseClass::Other) => Some(Submitter::Dcc),
        (FileKind::SmiExtract, CompromiseClass::Organisation | CompromiseClass::Other) => Some(Submitter::Unsigned),
        (FileKind::OrganisationNotification | FileKind::OrganisationProgress, CompromiseClass::Other)
        | (FileKind::OtherNotification | FileKind::OtherProgress, CompromiseClass::Organisation) => {
            reasons.add(
                "file-kind",
                format!("incident {incident} is of class {class}; expected a file of that class, found {kind}"),
            );
            None
        }
        (FileKind::SmiExport, CompromiseClass::Organisation | CompromiseClass::Other) => {
            let text = "an export goes from the daemon to the Smart Metering Inventory; send what the Inventory says as an smi-extract";
            reasons.add("file-kind", text);
            None
        }
    }
}

/// Who signed it, and for which Party; none for what nobody signs.
///
/// # Errors
/// The signature was not looked at yet.
fn signed(
    context: &Context<'_>,
    policy: &Policy,
    facts: &IncidentFacts,
    sent: &FileSent,
    submitter: Submitter,
    reasons: &mut Reasons,
) -> Result<Option<(SignatureRecord, SecParty)>, Look> {
    let Some(p7s) = sent.p7s else { return Ok(None) };
    let ess = super::ess(policy);
    let Some((_, verified)) = sent.verified.as_ref().filter(|(asked, _)| *asked == ess) else {
        return Err(Look::Signature(ess));
    };
    let signatures = vouched(verified.as_ref(), sent.sha256, p7s, policy, context.at, reasons);
    Ok(match submitter {
        Submitter::Unsigned => None,
        Submitter::Subscriber => {
            let party = subscriber(policy, facts.compromised.party, reasons);
            let is_theirs = |of: &Party| party.is_some_and(|party| party.id == of.id);
            let whose =
                format!("the affected Subscriber, {}", party.map_or("whom nobody names", |party| party.id.as_str()));
            officer(context, policy, facts, &signatures, (&is_theirs, &whose), reasons)
        }
        Submitter::Dcc => {
            let is_theirs = |of: &Party| of.kind == PartyKind::Dcc;
            officer(context, policy, facts, &signatures, (&is_theirs, "the DCC"), reasons)
        }
    })
}

/// An exercise that took place.
pub fn exercise(at: Timestamp, report: Digest, note: &str, now: Timestamp) -> Result<ExerciseRecorded, Vec<Reason>> {
    let mut reasons = Reasons::default();
    reasons.demand("exercise-time", at <= now, || {
        format!("expected an exercise that took place, found one of {at}; it is {now}")
    });
    reasons.demand("note", !note.trim().is_empty() && note.len() <= NOTE_LEN_MAX, || {
        format!("note: expected 1 to {NOTE_LEN_MAX} octets of text, found {}", note.len())
    });
    reasons.end(Some(ExerciseRecorded { at, report, note: note.into() }))
}

/// The class of an incident. One of the first version of the procedure is about an Organisation Certificate.
fn class_of(facts: &IncidentFacts) -> CompromiseClass {
    facts.progress.as_ref().map_or(CompromiseClass::Organisation, IncidentProgress::class)
}

/// The Party that acts under the EUI-64 of the compromised certificate: the Relevant Subscriber (SEC Section L10.30(b)).
fn subscriber<'a>(policy: &'a Policy, eui64: PartyId, reasons: &mut Reasons) -> Option<&'a Party> {
    let found = policy.parties().of(eui64);
    if found.is_none() {
        reasons.add(
            "party-unknown",
            format!(
                "the compromised certificate is {eui64}'s, and no [[party]] of the policy in force has that EUI-64; the PMA must \
                 adopt a policy that names it"
            ),
        );
    }
    found
}

/// The one ARO in force, in good standing, of the right Party, who took no other part in the incident.
fn officer(
    context: &Context<'_>,
    policy: &Policy,
    facts: &IncidentFacts,
    signatures: &[Signature],
    (is_theirs, whose): (&dyn Fn(&Party) -> bool, &str),
    reasons: &mut Reasons,
) -> Option<(SignatureRecord, SecParty)> {
    let [signature] = signatures else {
        if !signatures.is_empty() {
            reasons.add("signature", format!("expected the signature of one ARO, found {}", signatures.len()));
        }
        return None;
    };
    let Some(person) = policy.person_by_spki(&signature.spki) else {
        let text =
            format!("key {} is nobody's whom the policy in force names; is it an enrolled ARO's?", signature.spki);
        reasons.add("signer", text);
        return None;
    };
    check_officer(policy, person, context.at, (is_theirs, whose), reasons);
    reasons.take("separation", facts.parts.check(&person.id, Part::Aro));
    Some((record(&person.id, signature), person.party.clone()))
}

fn check_officer(
    policy: &Policy,
    person: &Person,
    at: Timestamp,
    (is_theirs, whose): (&dyn Fn(&Party) -> bool, &str),
    reasons: &mut Reasons,
) {
    let id = &person.id;
    reasons.demand("signer-role", person.roles.contains(&Role::Aro), || {
        format!("{id} is no ARO under the policy in force; expected the signature of an ARO of {whose}")
    });
    reasons.demand("signer-ceased", person.window.contains(at), || {
        format!("{id} is appointed {}; it is {at}, so another ARO of {whose} must sign", person.window)
    });
    if let Some(credential) = person.records.credential_fault(at) {
        reasons.add(
            "signer-credential",
            format!("the credential of {id} is {credential}; another ARO of {whose} must sign"),
        );
    }
    let is_of_party = policy.parties().get(&person.party).is_some_and(is_theirs);
    reasons
        .demand("signer-party", is_of_party, || format!("{id} is an ARO of {}; expected one of {whose}", person.party));
}

fn check_notification(
    facts: &IncidentFacts,
    notification: &Notification,
    signer: Option<&SecParty>,
    reasons: &mut Reasons,
) {
    let expected = facts.compromised.certificate_sha256;
    match &notification.key {
        Notified::Organisation(found) => reasons.demand("file-certificate", *found == expected, || {
            format!("certificate-sha256: incident {} is about {expected}, the file about {found}", facts.id)
        }),
        Notified::Other(key, found, _) => {
            reasons.demand("file-key", facts.key.is_none_or(|expected| expected == *key), || {
                let expected = facts.key.map_or("", OtherKey::as_str);
                format!("key: incident {} is about the {expected} key, the file about {key}", facts.id)
            });
            if let Some(found) = found.filter(|found| *found != expected) {
                let text =
                    format!("certificate-sha256: incident {} is about {expected}, the file about {found}", facts.id);
                reasons.add("file-certificate", text);
            }
        }
    }
    if let Some(signer) = signer.filter(|signer| **signer != notification.party) {
        let text = format!("party: the file is notified by {}, and signed by an ARO of {signer}", notification.party);
        reasons.add("file-party", text);
    }
}

fn check_progress(facts: &IncidentFacts, progress: &Progress, reasons: &mut Reasons) {
    reasons.demand("file-incident", progress.incident == facts.id, || {
        format!("incident: the file is about {}, and was sent for {}", progress.incident, facts.id)
    });
    let expected = &facts.compromised;
    let is_about = progress.party == expected.party && progress.certificate == expected.certificate_sha256;
    reasons.demand("file-certificate", is_about, || {
        format!(
            "incident {} is about certificate {} of {}, the file about {} of {}",
            facts.id, expected.certificate_sha256, expected.party, progress.certificate, progress.party
        )
    });
}

fn check_thresholds(policy: &Policy, facts: &IncidentFacts, thresholds: &Thresholds, reasons: &mut Reasons) {
    // That nobody names the Subscriber was said where its signature was looked for.
    let Some(party) = policy.parties().of(facts.compromised.party) else { return };
    for threshold in &thresholds.thresholds {
        reasons.demand("file-user", party.eui64.contains(&PartyId(threshold.user)), || {
            format!("user-id: {} is not one of {}, the affected Subscriber", threshold.user, party.id)
        });
    }
}

#[cfg(test)]
mod tests;
