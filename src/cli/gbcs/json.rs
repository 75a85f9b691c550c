//! Shell: a message for programs. Field names are an interface.
//!
//! EUI-64s are 16 upper-case hexadecimal digits, as everywhere; other octets are lower case. Ranges are half-open. Of a
//! Contingency Symmetric Key only the length is given, unless the key itself is asked for; 0 where its place is empty.

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::certificate::Certificate;
use super::root::{Finding, Findings};
use super::{Shown, Verification};
use crate::domain::gbcs::{
    AlertPayload, Authentication, CommandPayload, CpvChecks, CredentialsReplacementMode, ExecutionOutcome, Payload,
    RemotePartyRole, ReplacementOutcome, ResponsePayload, SeqNumberChange, SpecialistFloor, SpecialistUse,
    TrustAnchorCell, Update,
};
use crate::domain::names::Digest;

pub(super) fn render(shown: &Shown<'_>) -> Value {
    let frame = &shown.message.frame;
    let header = &frame.header;
    let (payload, tbs) = (&frame.payload, frame.tbs_range());
    let mut fields = object(json!({
        "length": frame.octets.len(),
        "craFlag": header.cra.code(),
        "messageCode": format!("{:04x}", header.code.value()),
        "originator": header.originator,
        "recipient": header.recipient,
        "originatorCounter": header.counter,
        "dateTime": header.date_time.map_or_else(String::new, |date_time| hex::encode(date_time.0)),
        "macHeader": frame.mac().is_some(),
        "groupingHeaderOffset": frame.grouping_header_at,
        "payloadRange": [payload.start, payload.end],
        "tbsRange": [tbs.start, tbs.end],
        "tbsSha256": hex::encode(digest(&SHA256, frame.tbs())),
        "signature": signature(shown),
        "decoded": match &shown.message.payload {
            Payload::Command(payload) => command(payload, shown.shows_symmetric_key),
            Payload::Response(payload) => response(payload),
            Payload::Alert(payload) => alert(payload),
        },
    }));
    if let Some(file) = shown.file {
        fields.insert("file".to_owned(), json!(file));
    }
    if let Some(mac) = frame.mac() {
        fields.insert("mac".to_owned(), json!(hex::encode(mac)));
    }
    if let Some(findings) = &shown.root {
        fields.insert("root".to_owned(), root(findings));
    }
    if let Payload::Command(payload) = &shown.message.payload {
        fields.insert("certificates".to_owned(), certificates(&payload.update));
    }
    Value::Object(fields)
}

/// What a Device finds that holds a given Root; `verified` if nothing is wrong.
fn root(findings: &Findings) -> Value {
    let all =
        findings.all.iter().map(|Finding { what, holds, text }| json!({"what": what, "holds": holds, "text": text}));
    json!({
        "sha256": findings.root,
        "subject": findings.subject,
        "verified": findings.faults().next().is_none(),
        "findings": all.collect::<Vec<_>>(),
    })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("json!({{…}}) is an object")
        }
    }
}

fn signature(shown: &Shown<'_>) -> Value {
    let frame = &shown.message.frame;
    match frame.authentication {
        Authentication::PreCommand => json!("absent (pre-command)"),
        Authentication::Mac(_) => json!("zero length (MAC only)"),
        Authentication::Signed(signature) | Authentication::SignedAndMac(signature, _) => {
            let mut fields = object(json!({
                "offset": frame.signature_at(),
                "length": signature.len(),
                "octets": hex::encode(signature),
            }));
            match shown.verification {
                Verification::NotAsked | Verification::NoSignature => {}
                Verification::Valid | Verification::Invalid => {
                    if let Some(file) = shown.certificate_file {
                        fields.insert("verifiesWith".to_owned(), json!(file.to_string_lossy()));
                    }
                    fields.insert("valid".to_owned(), json!(shown.verification == Verification::Valid));
                }
            }
            Value::Object(fields)
        }
    }
}

fn cell(cell: TrustAnchorCell) -> Value {
    let TrustAnchorCell { role, key_usage, cell_usage } = cell;
    json!({ "role": role.name(), "keyUsage": key_usage.name(), "cellUsage": cell_usage.name() })
}

fn command(payload: &CommandPayload<'_>, shows_symmetric_key: bool) -> Value {
    let CommandPayload { update, seq_number, plaintext_symmetric_key } = payload;
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
    } = update;
    let mut fields = object(json!({
        "mode": mode.code(),
        "authorisingSeq": seq_number.get(),
        "replacements": replacements.iter().map(|replacement| {
            with_names(replacement.certificate, json!({
                "cell": cell(replacement.cell),
                "certSha256": Digest::of(replacement.certificate),
                "certLength": replacement.certificate.len(),
            }))
        }).collect::<Vec<_>>(),
        "pathCertificates": path_certificates.iter().map(|certificate| {
            with_names(certificate, json!({ "length": certificate.len(), "sha256": Digest::of(certificate) }))
        }).collect::<Vec<_>>(),
    }));
    let mut insert = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    if *mode == CredentialsReplacementMode::AnyByContingency {
        insert("plaintextSymmetricKeyLength", json!(plaintext_symmetric_key.map_or(0, |key| key.expose().len())));
    }
    if let Some(key) = plaintext_symmetric_key.filter(|_| shows_symmetric_key) {
        insert("plaintextSymmetricKey", json!(hex::encode(key.expose())));
    }
    match cpv_checks {
        CpvChecks::Apply => {}
        CpvChecks::Disapply => {
            insert("applyTimeBasedCPVChecks", json!(1));
        }
    }
    if let Some(authorising_cell) = authorising_cell {
        insert("authorisingCell", cell(*authorising_cell));
    }
    if let Some(floor) = new_floor {
        insert("newFloor", json!(floor.get()));
    }
    if let Some(floors) = new_specialist_floors {
        insert("newSpecialistFloor", specialist(floors));
    }
    if let Some(list) = other_changes {
        insert("otherChanges", changes(list));
    }
    if let Some(execution) = execution {
        insert("executionDateTime", json!(execution.to_string()));
    }
    Value::Object(fields)
}

/// Adds who a certificate is for and by whom, if it can be read.
fn with_names(octets: &[u8], fields: Value) -> Value {
    let mut fields = object(fields);
    match Certificate::from_der(octets) {
        Ok(certificate) => {
            fields.insert("subject".to_owned(), json!(certificate.subject));
            fields.insert("issuer".to_owned(), json!(certificate.issuer));
            fields.insert("ski".to_owned(), json!(certificate.key_id));
        }
        Err(error) => {
            fields.insert("error".to_owned(), json!(error.to_string()));
        }
    }
    Value::Object(fields)
}

/// Every certificate of a Command in full, replacements first.
fn certificates(update: &Update<'_>) -> Value {
    let replacements = update.replacements.iter().map(|replacement| (replacement.certificate, Some(replacement.cell)));
    let path = update.path_certificates.iter().map(|certificate| (*certificate, None));
    replacements
        .chain(path)
        .map(|(octets, target)| {
            let mut fields = object(json!({ "sha256": Digest::of(octets), "length": octets.len() }));
            if let Some(target) = target {
                fields.insert("cell".to_owned(), cell(target));
            }
            match Certificate::from_der(octets) {
                Ok(certificate) => fields.extend(object(json!({
                    "subject": certificate.subject,
                    "issuer": certificate.issuer,
                    "role": certificate.role.map(RemotePartyRole::name),
                    "eui64": certificate.eui64,
                    "keyId": certificate.key_id,
                    "notBefore": certificate.not_before,
                    "notAfter": certificate.not_after,
                }))),
                Err(error) => {
                    fields.insert("error".to_owned(), json!(error.to_string()));
                }
            }
            Value::Object(fields)
        })
        .collect()
}

fn specialist(floors: &[SpecialistFloor]) -> Value {
    let item = |SpecialistFloor { usage, floor }: &SpecialistFloor| {
        let usage = match usage {
            SpecialistUse::PrepaymentTopUp => 0,
        };
        json!({ "usage": usage, "seq": floor.get() })
    };
    floors.iter().map(item).collect()
}

fn changes(list: &[SeqNumberChange]) -> Value {
    let item = |SeqNumberChange { role, floor, specialist_floors }: &SeqNumberChange| {
        let mut fields = object(json!({ "role": role.name(), "floor": floor.get() }));
        if let Some(floors) = specialist_floors {
            fields.insert("specialist".to_owned(), specialist(floors));
        }
        Value::Object(fields)
    };
    list.iter().map(item).collect()
}

fn response(payload: &ResponsePayload) -> Value {
    let ResponsePayload { outcome } = payload;
    match outcome {
        None => json!({ "accepted": true }),
        Some(outcome) => json!({ "accepted": true, "executionOutcome": execution_outcome(outcome) }),
    }
}

fn alert(payload: &AlertPayload) -> Value {
    let AlertPayload { alert_code, execution, outcome } = payload;
    json!({
        "alertCode": format!("{:04x}", alert_code.0),
        "executionDateTime": execution.to_string(),
        "executionOutcome": execution_outcome(outcome),
    })
}

fn execution_outcome(outcome: &ExecutionOutcome) -> Value {
    let ExecutionOutcome { seq_number, mode, changes: list, replacements } = outcome;
    let item = |outcome: &ReplacementOutcome| {
        let ReplacementOutcome { cell: target, status, existing_id, existing_key_id, replacing_id, replacing_key_id } =
            outcome;
        json!({
            "cell": cell(*target),
            "status": status.code(),
            "existingId": existing_id,
            "existingSki": existing_key_id.to_string(),
            "replacingId": replacing_id,
            "replacingSki": replacing_key_id.to_string(),
        })
    };
    json!({
        "authorisingSeq": seq_number.get(),
        "mode": mode.code(),
        "changes": changes(list),
        "outcomes": replacements.iter().map(item).collect::<Vec<_>>(),
    })
}
