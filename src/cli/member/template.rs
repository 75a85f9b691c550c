//! Shell: a command template in full, for people and for programs. The field names for programs are those of `gbcs show`.

use serde_json::{Map, Value, json};

use super::page::{Page, moment};
use crate::domain::certificates::Certificate;
use crate::domain::certificates::apex::WrappedApexKey;
use crate::domain::certificates::profile::{Profile, SmkiCertificate};
use crate::domain::determination::words::Words;
use crate::domain::gbcs::{
    CpvChecks, SeqNumberChange, SpecialistFloor, SpecialistUse, Template, TrustAnchorCell, Update,
};
use crate::domain::names::Digest;
use crate::domain::policy::Policy;

/// A template for a person. A new root is held against the policy, if there is one.
pub fn show(page: &mut Page, octets: &[u8], policy: Option<&Policy>) {
    page.row("SHA-256", format!("{} ({} octets)", Digest::of(octets), octets.len()));
    let template = match Template::parse(octets) {
        Ok(template) => template,
        Err(fault) => {
            page.row("UNREADABLE", fault);
            return;
        }
    };
    let Update {
        mode,
        cpv_checks,
        authorising_cell,
        new_floor,
        new_specialist_floors,
        other_changes,
        replacements,
        path_certificates,
        execution,
    } = template.update();
    page.row("mode", format!("{} {mode}", mode.code()));
    match authorising_cell {
        Some(cell) => page.row("authorised by", format!("the key in cell {cell}")),
        None => page.row("authorised by", "no cell: the Access Control Broker's MAC"),
    }
    match execution {
        None => page.row("executed", "at once"),
        Some(at) if at.is_cancellation() => page.row("executed", "never: CANCELS a pending command"),
        Some(at) => page.row("executed", moment(at.timestamp())),
    }
    match cpv_checks {
        CpvChecks::Apply => page.row("validity dates", "the Device looks at them"),
        CpvChecks::Disapply => page.row("validity dates", "the Device IGNORES them"),
    }
    let top_up = |floors: Option<&[SpecialistFloor]>| {
        let mut text = String::new();
        for SpecialistFloor { usage: SpecialistUse::PrepaymentTopUp, floor } in floors.unwrap_or_default() {
            text = format!("{text}, prepayment top-up {floor}");
        }
        text
    };
    match new_floor {
        None if new_specialist_floors.is_none() => page.row("counter floor", "left as it is"),
        None => page.row("counter floor", format!("as it is{}", top_up(new_specialist_floors.as_deref()))),
        Some(floor) => page.row("counter floor", format!("{floor}{}", top_up(new_specialist_floors.as_deref()))),
    }
    for SeqNumberChange { role, floor, specialist_floors } in other_changes.iter().flatten() {
        page.row("counter floor of", format!("{role}: {floor}{}", top_up(specialist_floors.as_deref())));
    }
    for (n, replacement) in (1..).zip(&replacements) {
        page.line(format!("replacement {n} of {}, into cell {}", replacements.len(), replacement.cell));
        page.indented(|page| certificate(page, replacement.certificate));
    }
    for (n, octets) in (1..).zip(&path_certificates) {
        page.line(format!("path certificate {n} of {}", path_certificates.len()));
        page.indented(|page| certificate(page, octets));
    }
    for replacement in replacements.iter().filter(|replacement| replacement.cell == TrustAnchorCell::ROOT) {
        new_root(page, replacement.certificate, policy);
    }
}

/// What a Device trusts from then on, and everything hangs on: to be compared with what the Root OCA's operator says, by voice.
fn new_root(page: &mut Page, octets: &[u8], policy: Option<&Policy>) {
    let digest = Digest::of(octets);
    page.line("THE NEW ROOT: every Device of the list trusts it afterwards. Compare it with what the Root OCA's operator says.");
    page.indented(|page| {
        page.row("SHA-256", digest);
        for line in Words(digest).to_string().lines() {
            page.line(line);
        }
        page.row("carries", carried(octets).unwrap_or_else(|why| format!("NO contingency key: {why}")));
        page.row(
            "in the policy",
            match policy {
                None => "not looked at: no policy is given (--policy)",
                Some(policy) if is_anchor(octets, policy) => "yes: it is one of its Root OCA Certificates",
                Some(_) => "NO: it is none of its Root OCA Certificates",
            },
        );
    });
}

/// By which algorithm a Root OCA Certificate carries a contingency key, which nobody can tell from here.
fn carried(octets: &[u8]) -> Result<String, String> {
    let root = Certificate::from_der(octets).map_err(|fault| fault.to_string())?;
    match WrappedApexKey::of_certificate(&root).map_err(|fault| fault.to_string())? {
        Some(wrapped) => Ok(format!("a contingency key, wrapped by {}", wrapped.algorithm())),
        None => Err("after it no Contingency command reaches the Device".to_owned()),
    }
}

fn is_anchor(octets: &[u8], policy: &Policy) -> bool {
    policy.anchors().root_oca.iter().any(|anchor| anchor.as_slice() == octets)
}

fn certificate(page: &mut Page, octets: &[u8]) {
    page.row("SHA-256", Digest::of(octets));
    match Certificate::from_der(octets) {
        Err(fault) => page.row("UNREADABLE", fault),
        Ok(certificate) => {
            let subject = certificate.subject_text();
            page.row("subject", if subject.is_empty() { "(none)" } else { &subject });
            page.row("issuer", certificate.issuer_text());
            match SmkiCertificate::from_certificate(certificate.clone(), &Profile::shape_only()) {
                Ok(smki) => {
                    page.row("is", smki.kind());
                    page.row("key id", hex::encode(smki.subject_key_identifier()));
                }
                Err(fault) => page.row("NOT SMKI", fault),
            }
            page.row("key SHA-256", certificate.spki_sha256());
            page.row("valid", format!("from {} to {}", certificate.not_before(), certificate.not_after()));
        }
    }
}

/// A template for programs.
pub fn json(octets: &[u8], policy: Option<&Policy>) -> Value {
    let mut fields = Map::new();
    fields.insert("sha256".to_owned(), json!(Digest::of(octets)));
    fields.insert("length".to_owned(), json!(octets.len()));
    let template = match Template::parse(octets) {
        Ok(template) => template,
        Err(fault) => {
            fields.insert("error".to_owned(), json!(fault.to_string()));
            return Value::Object(fields);
        }
    };
    let update = template.update();
    let mut insert = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    insert("mode", json!(update.mode.code()));
    if update.cpv_checks == CpvChecks::Disapply {
        insert("applyTimeBasedCPVChecks", json!(1));
    }
    if let Some(found) = update.authorising_cell {
        insert("authorisingCell", cell(found));
    }
    if let Some(floor) = update.new_floor {
        insert("newFloor", json!(floor.get()));
    }
    if let Some(floors) = &update.new_specialist_floors {
        insert("newSpecialistFloor", specialist(floors));
    }
    if let Some(changes) = &update.other_changes {
        insert("otherChanges", changes.iter().map(change).collect());
    }
    if let Some(at) = update.execution {
        insert("executionDateTime", json!(at.to_string()));
    }
    let replacements = update.replacements.iter().map(|replacement| {
        let mut fields = certificate_json(replacement.certificate);
        fields.insert("cell".to_owned(), cell(replacement.cell));
        Value::Object(fields)
    });
    insert("replacements", replacements.collect());
    let path = update.path_certificates.iter().map(|octets| Value::Object(certificate_json(octets)));
    insert("pathCertificates", path.collect());
    if let Some(root) = update.replacements.iter().find(|replacement| replacement.cell == TrustAnchorCell::ROOT) {
        let digest = Digest::of(root.certificate);
        let words: Vec<&str> = Words(digest).iter().collect();
        let carries = carried(root.certificate).ok();
        let is_anchor = policy.map(|policy| is_anchor(root.certificate, policy));
        insert("newRoot", json!({ "sha256": digest, "words": words, "carries": carries, "inPolicy": is_anchor }));
    }
    Value::Object(fields)
}

fn cell(cell: TrustAnchorCell) -> Value {
    let TrustAnchorCell { role, key_usage, cell_usage } = cell;
    json!({ "role": role.name(), "keyUsage": key_usage.name(), "cellUsage": cell_usage.name() })
}

fn specialist(floors: &[SpecialistFloor]) -> Value {
    let item = |SpecialistFloor { usage: SpecialistUse::PrepaymentTopUp, floor }: &SpecialistFloor| json!({ "usage": 0, "seq": floor.get() });
    floors.iter().map(item).collect()
}

fn change(change: &SeqNumberChange) -> Value {
    let SeqNumberChange { role, floor, specialist_floors } = change;
    let specialist_floors = specialist_floors.as_deref().map(specialist);
    json!({ "role": role.name(), "floor": floor.get(), "specialist": specialist_floors })
}

fn certificate_json(octets: &[u8]) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut insert = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    insert("sha256", json!(Digest::of(octets)));
    match Certificate::from_der(octets) {
        Err(fault) => {
            insert("error", json!(fault.to_string()));
        }
        Ok(certificate) => {
            insert("subject", json!(certificate.subject_text()));
            insert("issuer", json!(certificate.issuer_text()));
            insert("notBefore", json!(certificate.not_before()));
            insert("notAfter", json!(certificate.not_after()));
            insert("spkiSha256", json!(certificate.spki_sha256()));
            match SmkiCertificate::from_certificate(certificate, &Profile::shape_only()) {
                Ok(smki) => {
                    insert("kind", json!(smki.kind().to_string()));
                    insert("keyId", json!(hex::encode(smki.subject_key_identifier())));
                }
                Err(fault) => {
                    insert("offProfile", json!(fault.to_string()));
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests;
