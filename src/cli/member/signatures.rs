//! Shell: who has signed a document validly, and what is missing.

use serde_json::{Value, json};

use super::files::Paper;
use super::page::Page;
use crate::domain::certificates::Certificate;
use crate::domain::certificates::person::check_person_certificate;
use crate::domain::determination::cms::{self, Ess};
use crate::domain::determination::people::Role;
use crate::domain::determination::quorum::{Count, Electorates, Quorum, Signature};
use crate::domain::names::{Digest, PersonId};
use crate::domain::policy::{Policy, SigningCertificate};
use crate::domain::time::Timestamp;

/// One signature file.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the file is called.
    pub file: String,
    /// Who signed, or why it is no signature over the document.
    pub signers: Result<Vec<Signer>, String>,
}

/// One signer of a file whose signatures verify.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The subject of the certificate.
    pub subject: String,
    /// SHA-256 of the public key, by which the policy knows the person.
    pub spki: Digest,
    /// Who it is, by the policy.
    pub person: Option<PersonId>,
    /// Why the certificate does not do, by the policy.
    pub fault: Option<String>,
}

/// How far a document has come under one policy.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Which policy.
    pub under: &'static str,
    /// What is needed, in words.
    pub needed: String,
    /// Who approved.
    pub approved: Vec<PersonId>,
    /// The signatures that do not count, and why.
    pub not_counted: Vec<String>,
    /// Who may still sign.
    pub may_sign: Vec<PersonId>,
    /// How many are missing.
    pub missing: u32,
}

/// Reads a signature file over the document.
pub fn read(file: String, p7s: &[u8], octets: &[u8], policies: &[&Policy], now: Timestamp) -> (Seen, Vec<Signature>) {
    let waived =
        policies.iter().all(|policy| policy.certificates().signing_certificate_v2 == SigningCertificate::Waive);
    let ess = if waived { Ess::Waived } else { Ess::Required };
    let verified = match cms::verify(p7s, octets, ess) {
        Ok(verified) => verified,
        Err(fault) => return (Seen { file, signers: Err(fault.to_string()) }, Vec::new()),
    };
    let mut signatures = Vec::new();
    let mut signers = Vec::new();
    for signer in &verified.signers {
        let certificate = &signer.certificate;
        let vouched = |policy: &&Policy| {
            let anchors: Vec<Certificate> =
                policy.anchors().people.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
            check_person_certificate(certificate, &verified.certificates, &anchors, now)
                .map(|_| ())
                .map_err(|fault| fault.to_string())
        };
        // One policy that vouches is enough here: the daemon asks each by itself.
        let faults: Vec<String> = policies.iter().filter_map(|policy| vouched(policy).err()).collect();
        let fault = faults.first().filter(|_| faults.len() == policies.len()).cloned();
        let spki = certificate.spki_sha256();
        let person = policies.iter().find_map(|policy| policy.person_by_spki(&spki)).map(|person| person.id.clone());
        if fault.is_none() {
            signatures.push(Signature { spki, signed: Digest::of(octets), p7s: Digest::of(p7s) });
        }
        signers.push(Signer { subject: certificate.subject_text(), spki, person, fault });
    }
    (Seen { file, signers: Ok(signers) }, signatures)
}

/// How far `paper` has come under `policy`.
pub fn standing(
    paper: &Paper,
    policy: &Policy,
    under: &'static str,
    signatures: &[Signature],
    now: Timestamp,
) -> Standing {
    let electorate = policy.electorate();
    if let Paper::Statement(document) = paper {
        return of_custodian(&document.form().person, policy, under, signatures, now);
    }
    let proposer = paper.proposer();
    let electorates = Electorates { named: electorate, in_force: electorate };
    let count = Count { document: paper.digest(), electorates, proposer, at: now };
    let members: Vec<&PersonId> =
        policy.roster(Role::PmaMember, now).map(|person| &person.id).filter(|id| Some(*id) != proposer).collect();
    if let Paper::Suspension(document) = paper {
        let member = &document.form().member;
        let by = |signature: &Signature| count.is_by(member, signature);
        let done = signatures.iter().any(|signature| by(signature).is_ok());
        return Standing {
            under,
            needed: format!("the signature of {member}, alone"),
            approved: done.then(|| member.clone()).into_iter().collect(),
            not_counted: signatures.iter().filter_map(|signature| by(signature).err()).map(|r| r.to_string()).collect(),
            may_sign: if done { Vec::new() } else { vec![member.clone()] },
            missing: u32::from(!done),
        };
    }
    let tally = count.tally(signatures);
    let approved: Vec<PersonId> = tally.persons().map(|(person, _)| person.clone()).collect();
    let may_sign: Vec<PersonId> = members.iter().filter(|id| !approved.contains(id)).map(|id| (*id).clone()).collect();
    let have = u32::try_from(approved.len()).unwrap_or(u32::MAX);
    let first = matches!(paper, Paper::Adoption(document) if document.form().sequence == 1);
    let (needed, need) = match policy.quorum(now) {
        Err(fault) => (format!("impossible now: {fault}"), u32::MAX),
        Ok(quorum) if first => {
            (format!("the signatures of all {} members: it is the first policy", quorum.of()), quorum.of())
        }
        Ok(quorum) => (in_words(quorum, proposer), quorum.approvals()),
    };
    let not_counted = tally.not_counted().iter().map(ToString::to_string).collect();
    Standing { under, needed, approved, not_counted, may_sign, missing: need.saturating_sub(have) }
}

/// Whether a custodian's statement is signed by the one whom it names, by a key that the policy knows.
fn of_custodian(
    person: &PersonId,
    policy: &Policy,
    under: &'static str,
    signatures: &[Signature],
    now: Timestamp,
) -> Standing {
    let by = |signature: &Signature| match policy.person_by_spki(&signature.spki) {
        None => Err(format!("signed by a key that the policy does not know, SHA-256 {}", signature.spki)),
        Some(found) if found.id != *person => Err(format!("signed by {}; the statement is by {person}", found.id)),
        Some(found) if !found.roles.contains(&Role::KeyCustodian) => {
            Err(format!("{person} is no key-custodian under the policy"))
        }
        Some(found) if !found.window.contains(now) => {
            Err(format!("{person} is appointed {}; it is {now}", found.window))
        }
        Some(_) => Ok(()),
    };
    let done = signatures.iter().any(|signature| by(signature).is_ok());
    Standing {
        under,
        needed: format!("the signature of {person}, alone"),
        approved: done.then(|| person.clone()).into_iter().collect(),
        not_counted: signatures.iter().filter_map(|signature| by(signature).err()).collect(),
        may_sign: if done { Vec::new() } else { vec![person.clone()] },
        missing: u32::from(!done),
    }
}

fn in_words(quorum: Quorum, proposer: Option<&PersonId>) -> String {
    let but = proposer.map_or_else(String::new, |proposer| format!(", {proposer} not among them, who proposed it"));
    format!("the signatures of {} of {} members{but}", quorum.approvals(), quorum.of())
}

/// For a person.
pub fn show(page: &mut Page, seen: &[Seen], standings: &[Standing]) {
    page.heading("SIGNATURES");
    page.indented(|page| {
        if seen.is_empty() {
            page.line("None was given (--signature).");
        }
        for Seen { file, signers } in seen {
            match signers {
                Err(fault) => page.row("NOT VALID", format!("{file}: {fault}")),
                Ok(signers) => {
                    for Signer { subject, spki, person, fault } in signers {
                        let who = person
                            .as_ref()
                            .map_or_else(|| "nobody that a policy given names".to_owned(), ToString::to_string);
                        let name = if fault.is_some() { "NOT VOUCHED FOR" } else { "verifies" };
                        page.row(name, format!("{file}: {who}, certificate {subject}, key SHA-256 {spki}"));
                        if let Some(fault) = fault {
                            page.row("", fault);
                        }
                    }
                }
            }
        }
        for Standing { under, needed, approved, not_counted, may_sign, missing } in standings {
            page.row(under, format!("needs {needed}"));
            page.row("  approved by", names(approved));
            for reason in not_counted {
                page.row("  NOT COUNTED", reason);
            }
            if *missing == 0 {
                page.row("  missing", "nothing: there are enough");
            } else {
                page.row("  missing", format!("{missing}; may still sign: {}", names(may_sign)));
            }
        }
        if standings.is_empty() {
            page.line("Who they are and whether they are enough, only the policy says (--policy).");
        }
    });
}

fn names(persons: &[PersonId]) -> String {
    if persons.is_empty() {
        return "nobody".to_owned();
    }
    persons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// For programs.
pub fn json(seen: &[Seen], standings: &[Standing]) -> Value {
    let files: Vec<Value> = seen
        .iter()
        .map(|Seen { file, signers }| match signers {
            Err(fault) => json!({ "file": file, "valid": false, "fault": fault }),
            Ok(signers) => {
                let signers: Vec<Value> = signers
                    .iter()
                    .map(|Signer { subject, spki, person, fault }| {
                        json!({ "subject": subject, "spkiSha256": spki, "person": person, "fault": fault })
                    })
                    .collect();
                json!({ "file": file, "valid": true, "signers": signers })
            }
        })
        .collect();
    let standings: Vec<Value> = standings
        .iter()
        .map(|Standing { under, needed, approved, not_counted, may_sign, missing }| {
            json!({
                "under": under, "needed": needed, "approved": approved, "notCounted": not_counted, "maySign": may_sign,
                "missing": missing, "quorate": *missing == 0,
            })
        })
        .collect();
    json!({ "files": files, "standings": standings })
}
