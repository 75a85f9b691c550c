//! Shell: the procedure's files, what people did, and exercises.

use std::io::Read as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answers::READ_MAX;
use super::{Answer, Daemon, pieces, reason, refused};
use crate::api::engine::{Caller, Octets};
use crate::api::failure::Failure;
use crate::api::wire::{self, Act, Activity, ActivityOf, Did};
use crate::domain::files::{FILE_LEN_MAX, write_record};
use crate::domain::fold::{Blobs as _, Fold};
use crate::domain::incident::statuses::{Found, compare_all};
use crate::domain::intake::{self, Context, FileSent, Look, NotTaken};
use crate::domain::ledger::entry::{Actor, Entry, Event, Role};
use crate::domain::names::{Digest, FileKind, IncidentId, PersonId};
use crate::domain::policy::facts::AcceptedFile;
use crate::domain::time::Timestamp;
use crate::recorder::{CannotRecord, Moment, Recorder};
use crate::state::StoredDocuments;
use crate::store::{Reader, Staging, StoreError};

/// The name of the route, which a refusal is recorded under.
const SUBMIT: &str = "file-submit";

/// What was sent: octets that came with the request, or an upload that waits.
#[derive(Clone)]
enum Source {
    Sent(Arc<[u8]>),
    Staged(Arc<Staging>, Digest),
}

/// What a visit to the recorder came to.
enum Visit {
    Taken(wire::File),
    Look(Look),
}

/// Takes in a file, or refuses it and records that.
///
/// The recorder decides; what it has to know of a long file is found out apart, for one file at a time, and each time it is asked
/// again, with the state as it is then.
pub(super) async fn submit(
    daemon: &Daemon,
    caller: &Caller,
    incident: IncidentId,
    file: wire::FileSubmit,
) -> Answer<wire::File> {
    let wire::FileSubmit { kind, octets, staged, signature } = file;
    let p7s: Option<Arc<[u8]>> = signature.map(|p7s| p7s.0.into());
    let (source, sha256) = match (octets, staged) {
        (Some(octets), _) => {
            let octets: Arc<[u8]> = octets.0.into();
            let hashed = Arc::clone(&octets);
            let sha256 = apart(move || Ok(Digest::of(&hashed))).await?;
            (Source::Sent(octets), sha256)
        }
        (None, Some(digest)) => {
            let len = daemon.staging.len(digest).ok_or(StoreError::NotStaged { digest })?;
            if len > FILE_LEN_MAX {
                return Err(Failure::TooLarge { what: "the file", limit: FILE_LEN_MAX });
            }
            (Source::Staged(Arc::clone(&daemon.staging), digest), digest)
        }
        (None, None) => {
            return Err(Failure::malformed(
                "body",
                "`octets` or `staged`",
                "neither",
                "Send the file, or upload it first.",
            ));
        }
    };
    let mut sent = FileSent::new(kind, sha256, p7s.as_deref().map(Digest::of));
    let mut turn = None;
    loop {
        let (actor, incident, asked) = (caller.actor(), incident.clone(), sent.clone());
        let (source_then, p7s_then) = (source.clone(), p7s.clone());
        let visit =
            daemon.change(move |recorder| visit(recorder, actor, &incident, kind, &asked, source_then, p7s_then));
        let look = match visit.await? {
            Visit::Taken(file) => return Ok(file),
            Visit::Look(look) => look,
        };
        if turn.is_none() {
            let waited = Arc::clone(&daemon.looks).acquire_owned().await;
            turn = Some(waited.map_err(|error| Failure::Internal { what: error.to_string() })?);
            if let Source::Staged(_, digest) = &source {
                daemon.bring(*digest).await?;
            }
        }
        let (source, p7s) = (source.clone(), p7s.clone());
        sent = apart(move || {
            let octets = match (&look, &source) {
                // A signature is over the digest.
                (Look::Signature(_), _) => Arc::from([]),
                (Look::Content(_), Source::Sent(octets)) => Arc::clone(octets),
                (Look::Content(_), Source::Staged(staging, digest)) => staged_octets(staging, *digest)?.into(),
            };
            sent.look(look, &octets, p7s.as_deref());
            Ok(sent)
        })
        .await?;
    }
}

/// Does something where it holds up neither the recorder nor those who wait for other answers.
async fn apart<R: Send + 'static>(work: impl FnOnce() -> Answer<R> + Send + 'static) -> Answer<R> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::Internal { what: error.to_string() })?
}

/// Decides with what is known of a file: takes it in, refuses it, or says what is missing.
fn visit(
    recorder: &mut Recorder,
    actor: Actor,
    incident: &IncidentId,
    kind: FileKind,
    sent: &FileSent,
    source: Source,
    p7s: Option<Arc<[u8]>>,
) -> Result<Answer<Visit>, CannotRecord> {
    let by = recorder.known(actor);
    let about = (Some(incident.clone()), None);
    let sha256 = sent.sha256();
    if intake::is_unsigned(kind) {
        if by.role != Role::Operator {
            let text = format!(
                "the {} is unsigned, so an operator brings it; {} acts as {}",
                kind.title(),
                by.account,
                by.role
            );
            return refused(recorder, &by, SUBMIT, sha256, about, vec![reason("role", text)]);
        }
        // What nobody signed stands on the operator who brought it.
        if let Err(reasons) = intake::operator(recorder.fold(), &by, incident) {
            return refused(recorder, &by, SUBMIT, sha256, about, reasons);
        }
    }
    let Moment { at, clock } = recorder.moment();
    let context = Context { fold: recorder.fold(), blobs: recorder, heads: recorder, at, clock };
    let event = match intake::file(&context, incident, sent) {
        Ok(event) => event,
        Err(NotTaken::Look(look)) => return Ok(Ok(Visit::Look(look))),
        Err(NotTaken::Refused(reasons)) => return refused(recorder, &by, SUBMIT, sha256, about, reasons),
    };
    match source {
        // Adopted by its entry.
        Source::Staged(_, digest) if !recorder.claim_staged(digest) => {
            let text = format!("file {digest} waited too long and was dropped; upload it again");
            return refused(recorder, &by, SUBMIT, sha256, about, vec![reason("file", text)]);
        }
        Source::Staged(..) => {}
        Source::Sent(octets) => drop(recorder.queue_blob(octets.to_vec())),
    }
    if let Some(p7s) = p7s {
        recorder.queue_blob(p7s.to_vec());
    }
    let entry = recorder.queue(&by, Event::FileAccepted(event))?;
    Ok(match recorder.fold().incidents().get(incident).and_then(|facts| facts.files.last()) {
        Some(file) if file.entry == entry => Ok(Visit::Taken(shown(file))),
        Some(_) | None => Err(Failure::Internal { what: "a file that was recorded is not known".into() }),
    })
}

/// A file that was uploaded, whole: it is looked through from its first octet to its last anyway.
fn staged_octets(staging: &Staging, digest: Digest) -> Answer<Vec<u8>> {
    let file = staging.open_staged(digest).map_err(StoreError::from)?.ok_or(StoreError::NotStaged { digest })?;
    let mut octets = Vec::new();
    let taken = file.take(FILE_LEN_MAX).read_to_end(&mut octets);
    taken.map_err(|error| Failure::Internal { what: format!("upload {digest}: {error}") })?;
    Ok(octets)
}

fn shown(file: &AcceptedFile) -> wire::File {
    let AcceptedFile { entry, at, kind, file: sha256, signer, party, smsr, rows } = file.clone();
    wire::File { entry, at, kind, sha256, signer, party, smsr, rows }
}

/// The files of an incident.
pub(super) fn list(fold: &Fold, incident: &IncidentId) -> Answer<wire::Files> {
    let facts = fold.incidents().get(incident);
    let facts = facts.ok_or_else(|| Failure::NotFound { what: format!("incident {incident}") })?;
    Ok(wire::Files { incident: incident.clone(), files: facts.files.iter().map(shown).collect() })
}

/// The header line of an extract that was compared.
const COMPARED_HEADER: [&str; 8] =
    ["line", "device", "recorded", "recorded_since", "extract", "extract_from", "found", "why"];

/// What an extract says of the targets that is not recorded of them, a line each: new, or a contradiction and why.
pub(super) async fn statuses(daemon: &Daemon, incident: IncidentId, extract: Digest) -> Answer<Octets> {
    let of = incident.clone();
    let found = daemon.read(move |recorder| {
        let (fold, at) = (recorder.fold(), recorder.moment().at);
        let facts = fold.incidents().get(&of).filter(|facts| facts.has_extract(extract));
        let targets = facts.and_then(|facts| facts.progress.as_ref()).map(|progress| progress.targets.clone());
        let layout = fold.policy().map(|adopted| adopted.policy.layout(FileKind::SmiExtract));
        Ok(targets.zip(layout).map(|(targets, layout)| (targets, layout, at)))
    });
    let absent = || Failure::NotFound { what: format!("SMI Status extract {extract} in incident {incident}") };
    let (targets, layout, at) = found.await?.ok_or_else(absent)?;
    let state = daemon.state.clone();
    Ok(pieces(move |emit| {
        let reader = crate::store::sqlite::SqliteReader::open(&state)?;
        let (documents, mut text, mut gone) = (StoredDocuments(&reader), String::new(), false);
        write_record(COMPARED_HEADER, &mut text);
        let source = |piece: &mut dyn FnMut(&[u8])| documents.stream(extract, piece);
        let compared = compare_all(&targets, &layout, (&incident, at), source, |target, row, found| {
            let (word, why) = match found {
                Found::NoTarget | Found::Same => return,
                Found::New => ("new", ""),
                Found::Contradiction(why) => ("contradiction", why.as_str()),
            };
            if gone {
                return;
            }
            let (line, device, from) = (row.line.to_string(), row.device.to_string(), row.from.to_string());
            let since = target.map(|(_, target)| target.since.to_string()).unwrap_or_default();
            let recorded = target.map_or("", |(_, target)| target.status.as_str());
            write_record([&line, &device, recorded, &since, row.status.as_str(), &from, word, why], &mut text);
            gone = emit(text.as_bytes()).is_break();
            text.clear();
        });
        compared.map_err(|error| Failure::Internal { what: format!("extract {extract}: {error}") })?;
        let _ = emit(text.as_bytes());
        Ok(())
    }))
}

/// Whether any policy ever named that person.
pub(super) fn is_known(fold: &Fold, person: &PersonId) -> bool {
    fold.policies().iter().any(|adopted| adopted.policy.people().person(person).is_some())
}

/// An entry's event, as its octets have it.
#[derive(Deserialize)]
struct Raw {
    event: Box<RawValue>,
}

/// What a person signed or asked for, entry by entry.
pub(super) fn activity(reader: &dyn Reader, person: PersonId, of: &ActivityOf) -> Result<Activity, StoreError> {
    let size = reader.head()?.size;
    let since = of.since.map(|since| first_at(reader, size, since)).transpose()?;
    let until = of.until.map_or(Ok(size), |until| first_at(reader, size, until))?;
    let from = of.from.unwrap_or(0).max(since.unwrap_or(0)).min(until);
    let end = until.min(from + READ_MAX);
    let (mut acts, mut next) = (Vec::new(), (end < until).then_some(end));
    reader.leaves(from..end, &mut |leaf| {
        let Ok(entry) = Entry::from_leaf(leaf.octets) else { return ControlFlow::Continue(()) };
        let Some(did) = did(&entry, &person) else { return ControlFlow::Continue(()) };
        if acts.len() == Activity::COUNT_MAX {
            next = Some(leaf.index);
            return ControlFlow::Break(());
        }
        if let Ok(Raw { event }) = serde_json::from_slice(leaf.octets) {
            acts.push(Act { index: leaf.index, at: entry.at, did, kind: entry.event.kind().to_owned(), event });
        }
        ControlFlow::Continue(())
    })?;
    Ok(Activity { person, acts, next })
}

/// The first entry that was recorded at a moment or later; the size where none was. Time never goes back in a ledger.
fn first_at(reader: &dyn Reader, size: u64, at: Timestamp) -> Result<u64, StoreError> {
    let (mut low, mut high) = (0, size);
    while low < high {
        let middle = low.midpoint(high);
        let is_before = Entry::from_leaf(&reader.leaf(middle)?).is_ok_and(|entry| entry.at < at);
        if is_before { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

fn did(entry: &Entry, person: &PersonId) -> Option<Did> {
    let has_signed = entry.event.signatures().iter().any(|signature| signature.person == *person);
    match (has_signed, entry.by.person.as_ref() == Some(person)) {
        (true, true) => Some(Did::SignedAndAsked),
        (true, false) => Some(Did::Signed),
        (false, true) => Some(Did::Asked),
        (false, false) => None,
    }
}

/// Records an exercise, or refuses it and records that.
pub(super) async fn record_exercise(
    daemon: &Daemon,
    caller: &Caller,
    exercise: wire::ExerciseRecord,
) -> Answer<wire::Recorded> {
    let actor = caller.actor();
    daemon.change(move |recorder| take_exercise(recorder, actor, &exercise)).await
}

fn take_exercise(
    recorder: &mut Recorder,
    actor: Actor,
    exercise: &wire::ExerciseRecord,
) -> Result<Answer<wire::Recorded>, CannotRecord> {
    let by = recorder.known(actor);
    let wire::ExerciseRecord { at, report, note } = exercise;
    if let Err(reasons) = intake::person(recorder.fold(), &by) {
        return refused(recorder, &by, "exercise-record", *report, (None, None), reasons);
    }
    match intake::exercise(*at, *report, note, recorder.moment().at) {
        Ok(event) => Ok(Ok(wire::Recorded { entry: recorder.queue(&by, Event::ExerciseRecorded(event))? })),
        Err(reasons) => refused(recorder, &by, "exercise-record", *report, (None, None), reasons),
    }
}
