//! Shell: takes in what somebody signed: a determination, a schedule, a suspension, a withdrawal, a direction, the adoption of a policy.

use std::sync::Arc;

use serde::Deserialize;

use super::super::keys::Keys;
use super::keys::{Closing, active_for, gathered_for, has_ended, lock};
use super::{Answer, Daemon, PIECE_LEN, reason, refused};
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::determination::devices::DeviceListReader;
use crate::domain::determination::document::{DeviceList, Document, Form as _, Scope as DocumentScope, Written};
use crate::domain::determination::pages::Page;
use crate::domain::fold;
use crate::domain::intake::{self, Context, Submission};
use crate::domain::ledger::entry::{Actor, Event, Reason};
use crate::domain::names::{Digest, TemplateName};
use crate::domain::policy::adoption::Adoption;
use crate::domain::policy::{self, Policy};
use crate::domain::procedure::direction::{Direction, Directs, TEXT_LEN_MAX};
use crate::recorder::{CannotRecord, Moment, Recorder};
use crate::store::Staging;

/// The route, as refusals name it.
const OPERATION: &str = "document-record";

impl Daemon {
    /// Reads the device list that a document names: not on the recorder's thread, which everybody waits for, and only for a quorum,
    /// because anybody may send a list. A list is known by its SHA-256, so it is the same when it is recorded; quorum and all else
    /// is decided again there.
    pub(super) async fn count(&self, sent: &wire::Document) -> Answer<Option<Result<Counted, String>>> {
        let Some(list) = sent.devices else { return Ok(None) };
        let policy = self.read(|recorder| {
            let policy = recorder.fold().policy().map(|adopted| Arc::clone(&adopted.policy));
            Ok((policy, recorder.moment().at))
        });
        let ((policy, at), staging, octets) = (policy.await?, Arc::clone(&self.staging), sent.document.0.clone());
        let signatures: Vec<Vec<u8>> = sent.signatures.iter().map(|p7s| p7s.0.clone()).collect();
        let failed = |error: &dyn std::fmt::Display| Failure::Internal { what: error.to_string() };
        let turn = Arc::clone(&self.looks).acquire_owned().await.map_err(|error| failed(&error))?;
        let counted = tokio::task::spawn_blocking(move || {
            let (document, policy) = (Document::read(&octets).ok(), policy.as_deref());
            let is_quorate = match (&document, policy) {
                (Some(Document::Determination(document)), Some(policy)) => {
                    intake::is_quorate(policy, document, &signatures, at)
                }
                (Some(Document::Schedule(document)), Some(policy)) => {
                    intake::is_quorate(policy, document, &signatures, at)
                }
                (Some(Document::Withdrawal(_) | Document::Suspension(_)) | None, _) | (_, None) => false,
            };
            let scope = document.as_ref().and_then(scope_of);
            let counted = match (is_quorate, scope) {
                (true, Some(scope)) => {
                    let names = scope.templates.iter().map(|template| &template.name);
                    let most = policy.map_or(0, |policy| policy.limits().devices_max);
                    Some(count_devices(&staging, list, names, most))
                }
                (false, Some(_)) => None,
                (_, None) => Some(Err("a device list came, and the document names none; send it without".into())),
            };
            drop(turn);
            counted
        });
        counted.await.map_err(|error| failed(&error))
    }
}

/// A device list that was read.
pub(super) struct Counted {
    /// What a document must say of it.
    list: DeviceList,
    /// By which pages its Devices are found.
    pages: Arc<[Page]>,
}

/// Reads a device list that waits, for the templates of a document.
fn count_devices<'a>(
    staging: &Staging,
    list: Digest,
    templates: impl IntoIterator<Item = &'a TemplateName>,
    devices_max: u64,
) -> Result<Counted, String> {
    use std::io::Read as _;
    let absent = || format!("device list {list} was not uploaded, or waited too long; upload it again");
    let mut file = staging.open_staged(list).map_err(|error| error.to_string())?.ok_or_else(absent)?;
    let mut reader = DeviceListReader::new(templates, devices_max);
    let mut piece = vec![0; PIECE_LEN];
    loop {
        let len = file.read(&mut piece).map_err(|error| error.to_string())?;
        if len == 0 || reader.is_refused() {
            break;
        }
        reader.feed(&piece[..len], |_| {});
    }
    let (counted, pages) = reader.finish_with_pages().map_err(|faults| format!("device list {list}: {faults}"))?;
    Ok(Counted { list: counted, pages: pages.into() })
}

/// What a document leaves to be signed, if it says.
fn scope_of(document: &Document) -> Option<DocumentScope<'_>> {
    match document {
        Document::Determination(determination) => determination.form().scope(),
        Document::Schedule(schedule) => Some(schedule.form().scope()),
        Document::Withdrawal(_) | Document::Suspension(_) => None,
    }
}

/// A document of any type that somebody signed, read.
enum Delivered {
    Pma(Document),
    Policy(Box<Written<Adoption>>),
    Direction(Box<Written<Direction>>),
}

/// Reads a document as the type that its `type` member names.
fn read_document(octets: &[u8]) -> Result<Delivered, Vec<Reason>> {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    let unreadable = |faults: Vec<_>| intake::unreadable(&faults);
    match serde_json::from_slice(octets) {
        Ok(Typed { r#type }) if r#type == Adoption::TYPE => {
            Written::read(octets).map(|adoption| Delivered::Policy(Box::new(adoption))).map_err(unreadable)
        }
        Ok(Typed { r#type }) if r#type == Direction::TYPE => {
            Written::read(octets).map(|direction| Delivered::Direction(Box::new(direction))).map_err(unreadable)
        }
        Ok(_) | Err(_) => Document::read(octets).map(Delivered::Pma).map_err(unreadable),
    }
}

/// Takes in a document: decides, stops the tokens where it must take effect before the next signature, and records. The key of a
/// determination that ends by it is locked at once; its token is the caller's to shut down.
pub(super) fn record_document(
    recorder: &mut Recorder,
    by: &Actor,
    keys: &Keys,
    sent: wire::Document,
    listed: Option<Result<Counted, String>>,
) -> Result<Answer<(wire::DocumentRecorded, Vec<Closing>)>, CannotRecord> {
    let wire::Document { document, signatures, devices, policy_files, text } = sent;
    let text = text.map(|text| text.0);
    let (octets, p7s): (Vec<u8>, Vec<Vec<u8>>) = (document.0, signatures.into_iter().map(|p7s| p7s.0).collect());
    let sha256 = Digest::of(&octets);
    let delivered = match read_document(&octets) {
        Ok(delivered) => delivered,
        Err(reasons) => return refused(recorder, by, OPERATION, sha256, (None, None), reasons),
    };
    let scope: Option<DocumentScope<'_>> = match &delivered {
        Delivered::Pma(document) => scope_of(document),
        Delivered::Policy(_) | Delivered::Direction(_) => None,
    };
    let mut reasons = Vec::new();
    if text.is_some() && !matches!(delivered, Delivered::Direction(_)) {
        reasons.push(reason("text", "a further text came, which only a direction has; send it without".into()));
    }
    if let Some(found) = text.as_ref().map(Vec::len).filter(|found| *found > TEXT_LEN_MAX) {
        let text = format!("the direction's own text: expected at most {TEXT_LEN_MAX} octets, found {found}");
        reasons.push(reason("text", text));
    }
    let (mut counted, mut pages) = (None, None);
    match listed {
        Some(Ok(found)) => (counted, pages) = (Some(found.list), Some(found.pages)),
        Some(Err(text)) => reasons.push(reason("devices", text)),
        None => {}
    }
    let submission = Submission { signatures: &p7s, devices: counted };
    let Moment { at, clock } = recorder.moment();
    let context = Context { fold: recorder.fold(), blobs: recorder, heads: recorder, at, clock };
    let mut files = policy::Files::new();
    let (event, about) = match &delivered {
        Delivered::Pma(Document::Determination(document)) => {
            let about = (Some(document.form().incident.clone()), Some(document.form().id));
            (intake::determination(&context, document, &submission).map(Event::DeterminationRecorded), about)
        }
        Delivered::Pma(Document::Schedule(document)) => {
            let about = (None, Some(document.form().determination));
            (intake::schedule(&context, document, &submission).map(Event::ScheduleRecorded), about)
        }
        Delivered::Pma(Document::Withdrawal(document)) => {
            let about = (None, Some(document.form().determination));
            (intake::withdrawal(&context, document, &submission).map(Event::DeterminationWithdrawn), about)
        }
        Delivered::Pma(Document::Suspension(document)) => {
            let about = (None, Some(document.form().determination));
            (intake::suspension(&context, document, &submission).map(Event::DeterminationSuspended), about)
        }
        Delivered::Policy(document) => {
            files = policy_files.unwrap_or_default().into_iter().map(|(path, octets)| (path, octets.0)).collect();
            let adopted = match Policy::parse(&files) {
                Ok(new) => match new.fit_for_new_use() {
                    Ok(()) => intake::policy(&context, document, &new, &submission),
                    Err(fault) => Err(vec![reason("policy", fault.to_string())]),
                },
                Err(faults) => Err(faults.iter().map(|fault| reason("policy", fault.to_string())).collect()),
            };
            (adopted.map(Event::PolicyAdopted), (None, None))
        }
        Delivered::Direction(document) => {
            let about = match &document.form().directs {
                Directs::Extension { .. } => None,
                Directs::Departure { incident, .. } => Some(incident.clone()),
            };
            let text = text.as_deref().map(Digest::of);
            let decided = intake::direction(&context, document, text, &submission);
            (decided.map(Event::DirectionRecorded), (about, None))
        }
    };
    let event = match event {
        Ok(event) if reasons.is_empty() => event,
        Ok(_) => return refused(recorder, by, OPERATION, sha256, about, reasons),
        Err(further) => {
            reasons.extend(further);
            return refused(recorder, by, OPERATION, sha256, about, reasons);
        }
    };
    // From here on it cannot expire any more.
    if let Some(list) = devices.filter(|_| scope.is_some())
        && !recorder.claim_staged(list)
    {
        let text = format!("device list {list} waited too long and was dropped; upload it again");
        return refused(recorder, by, OPERATION, sha256, about, vec![reason("devices", text)]);
    }
    if let Some((list, pages)) = counted.zip(pages) {
        recorder.queue_pages(list.sha256, pages);
    }
    // What ends or pauses a determination takes effect before the next C_Sign: the fence stands before it is recorded.
    if ends_something(&event, &delivered) {
        keys.fence();
    }
    let signers = event.signatures().to_vec();
    recorder.queue_blob(octets);
    if let Some(text) = text {
        recorder.queue_blob(text);
    }
    for octets in p7s.into_iter().filter(|octets| signers.iter().any(|signer| signer.p7s == Digest::of(octets))) {
        recorder.queue_blob(octets);
    }
    if !files.is_empty() {
        for octets in fold::book::policy_blobs(&files) {
            recorder.queue_blob(octets);
        }
    }
    let kind = event.kind().to_owned();
    let opened = [active_for(recorder.fold()), gathered_for(recorder.fold())].concat();
    let entry = recorder.queue(by, event)?;
    let mut closing = Vec::new();
    for (key, incident, determination) in opened {
        if let Some(why) = has_ended(recorder.fold(), &incident, determination, at) {
            // Whoever brings what people signed need be no operator: it is the daemon that locks.
            closing.extend(lock(recorder, &Actor::daemon(), keys, &key, &why)?.1);
        }
    }
    let answer = wire::DocumentRecorded {
        entry,
        sha256,
        kind,
        signers: signers.into_iter().map(|signer| signer.person).collect(),
        determination: about.1,
    };
    Ok(Ok((answer, closing)))
}

/// Whether recording this ends or pauses what may be under way.
fn ends_something(event: &Event, delivered: &Delivered) -> bool {
    match delivered {
        Delivered::Pma(Document::Determination(determination)) => determination.form().supersedes.is_some(),
        Delivered::Pma(Document::Withdrawal(_) | Document::Suspension(_)) => true,
        Delivered::Policy(_) => matches!(event, Event::PolicyAdopted(_)),
        Delivered::Pma(Document::Schedule(_)) | Delivered::Direction(_) => false,
    }
}

#[cfg(test)]
mod tests;
