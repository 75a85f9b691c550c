//! Pure. May this file of the procedure be taken in? Who signed it, for whom, and whether it says what the incident is about.

use super::steps::file_in_place;
use super::{Context, Reasons, Submission, policy_in_force, profile_in_force, record, verified};
use crate::domain::determination::people::{Person, Role};
use crate::domain::files::{Class, Content, Notification, Notified, Progress, Thresholds};
use crate::domain::incident::Progress as IncidentProgress;
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
enum Submitter {
    /// An ARO of the affected Subscriber (SEC Appendix L; direction of 18 July 2017, (c)).
    Subscriber,
    /// An ARO of the DCC. That these files go from the DCC to the SMKI PMA is inferred.
    Dcc,
    /// Nobody: the DCC reads it out of the Smart Metering Inventory, and an operator brings it.
    Unsigned,
}

/// A file of the procedure, with the detached signature of an Authorised Responsible Officer: taken in whole, or not at all.
///
/// An extract of the Smart Metering Inventory is not signed: that an operator brought it is asked where it comes in, and by the
/// audit of whoever is recorded.
pub fn file(
    context: &Context<'_>,
    incident: &IncidentId,
    kind: FileKind,
    octets: &[u8],
    p7s: Option<&[u8]>,
) -> Result<FileAccepted, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let policy = &policy_in_force(context.fold, &mut reasons)?.policy;
    let Some(facts) = context.fold.incidents().get(incident) else {
        reasons.add("incident-unknown", format!("no incident {incident} is open; open it first"));
        return Err(reasons.0);
    };
    reasons.demand("incident-closed", facts.closed.is_none(), || format!("incident {incident} is closed"));
    if let Err(further) = file_in_place(context, incident, kind) {
        reasons.0.extend(further);
    }
    let digest = Digest::of(octets);
    if let Some(known) = facts.files.iter().find(|known| known.file == digest) {
        reasons.add("file-known", format!("file {digest} was taken in already, by entry {}", known.entry));
    }
    let class = class_of(facts);
    let submitter = match (kind, class) {
        (FileKind::OrganisationNotification | FileKind::OrganisationProgress, Class::Organisation)
        | (FileKind::Adt, Class::Organisation | Class::Other) => Submitter::Subscriber,
        (FileKind::OtherNotification | FileKind::OtherProgress, Class::Other) => Submitter::Dcc,
        (FileKind::SmiExtract, Class::Organisation | Class::Other) => Submitter::Unsigned,
        (FileKind::OrganisationNotification | FileKind::OrganisationProgress, Class::Other)
        | (FileKind::OtherNotification | FileKind::OtherProgress, Class::Organisation) => {
            reasons.add(
                "file-kind",
                format!("incident {incident} is of class {class}; expected a file of that class, found {kind}"),
            );
            return Err(reasons.0);
        }
        (FileKind::SmiExport, Class::Organisation | Class::Other) => {
            let text =
                "an export goes from the daemon to the Smart Metering Inventory; expected any other kind of file";
            reasons.add("file-kind", text);
            return Err(reasons.0);
        }
    };
    let said = read(policy, kind, octets, &mut reasons);
    let signed = match (submitter, p7s) {
        (Submitter::Unsigned, None) => None,
        (Submitter::Unsigned, Some(_)) => {
            reasons
                .add("signature", "an extract is brought by an operator and not signed; send it without a signature");
            None
        }
        (Submitter::Subscriber | Submitter::Dcc, None) => {
            reasons
                .add("signature", format!("a {} needs the detached CMS signature of an ARO, found none", kind.title()));
            None
        }
        (Submitter::Subscriber, Some(p7s)) => {
            let party = subscriber(policy, facts.compromised.party, &mut reasons);
            let is_theirs = |of: &Party| party.is_some_and(|party| party.id == of.id);
            let whose =
                format!("the affected Subscriber, {}", party.map_or("whom nobody names", |party| party.id.as_str()));
            signature(context, policy, facts, octets, p7s, (&is_theirs, &whose), &mut reasons)
        }
        (Submitter::Dcc, Some(p7s)) => {
            let is_theirs = |of: &Party| of.kind == PartyKind::Dcc;
            signature(context, policy, facts, octets, p7s, (&is_theirs, "the DCC"), &mut reasons)
        }
    };
    if let Some(said) = &said {
        let of = signed.as_ref().map(|(_, party)| party);
        match said {
            Content::Notification(notification) => check_notification(facts, notification, of, &mut reasons),
            Content::Progress(progress) => check_progress(facts, progress, &mut reasons),
            Content::Thresholds(thresholds) => check_thresholds(policy, facts, thresholds, &mut reasons),
            Content::Statuses(_) => {}
        }
    }
    let (signature, party) = signed.unzip();
    reasons.end(said.map(|said| FileAccepted {
        incident: incident.clone(),
        profile: profile_in_force(context.fold, context.at),
        kind,
        file: digest,
        signature,
        party,
        smsr: said.smsr().cloned(),
        rows: said.rows(),
    }))
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
fn class_of(facts: &IncidentFacts) -> Class {
    match facts.progress.as_ref().map(IncidentProgress::class) {
        Some(CompromiseClass::Organisation) | None => Class::Organisation,
        Some(CompromiseClass::Other) => Class::Other,
    }
}

fn read(policy: &Policy, kind: FileKind, octets: &[u8], reasons: &mut Reasons) -> Option<Content> {
    match Content::read(&policy.layout(kind), octets) {
        Ok(content) => Some(content),
        Err(faults) => {
            for fault in &faults.faults {
                reasons.add("file", fault);
            }
            if faults.more > 0 {
                reasons.add("file", format!("and {} more faults", faults.more));
            }
            None
        }
    }
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

/// The signature of one ARO in force, in good standing, of the right Party, who took no other part in the incident.
fn signature(
    context: &Context<'_>,
    policy: &Policy,
    facts: &IncidentFacts,
    octets: &[u8],
    p7s: &[u8],
    (is_theirs, whose): (&dyn Fn(&Party) -> bool, &str),
    reasons: &mut Reasons,
) -> Option<(SignatureRecord, SecParty)> {
    let files = [p7s.to_vec()];
    let submission = Submission { signatures: &files, devices: None };
    let verified = verified(octets, &submission, policy, context.at, reasons);
    let [signature] = verified.as_slice() else {
        if !verified.is_empty() {
            reasons.add("signature", format!("expected the signature of one ARO, found {}", verified.len()));
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
        Notified::Other(_, found, _) => {
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
