//! Shell: the procedure's files, what people did, and exercises.

use std::io::Read as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Answer, Daemon, reason, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire::{self, Act, Activity, ActivityOf, Did};
use crate::domain::files::FILE_LEN_MAX;
use crate::domain::fold::Fold;
use crate::domain::intake::{self, Context};
use crate::domain::ledger::entry::{Actor, Entry, Event, Role};
use crate::domain::names::{Digest, IncidentId, PersonId};
use crate::domain::policy::facts::AcceptedFile;
use crate::recorder::{CannotRecord, Recorder};
use crate::store::{Reader, Staging, StoreError};

/// The name of the route, which a refusal is recorded under.
const SUBMIT: &str = "file-submit";

/// Takes in a file, or refuses it and records that.
pub(super) async fn submit(
    daemon: &Daemon,
    caller: &Caller,
    incident: IncidentId,
    file: wire::FileSubmit,
) -> Answer<wire::File> {
    let wire::FileSubmit { kind, octets, staged, signature } = file;
    let octets = match (octets, staged) {
        (Some(octets), _) => octets.0,
        (None, Some(digest)) => staged_octets(&daemon.staging, digest).await?,
        (None, None) => {
            return Err(Failure::malformed(
                "body",
                "`octets` or `staged`",
                "neither",
                "Send the file, or upload it first.",
            ));
        }
    };
    let actor = caller.actor();
    let recorded = daemon.change(move |recorder| {
        let by = recorder.known(actor);
        let sha256 = Digest::of(&octets);
        let about = (Some(incident.clone()), None);
        let p7s = signature.map(|p7s| p7s.0);
        let event = {
            let context = Context { fold: recorder.fold(), blobs: recorder, heads: recorder, at: recorder.moment().at };
            intake::file(&context, &incident, kind, &octets, p7s.as_deref())
        };
        let event = match event {
            Ok(event) if event.signature.is_none() && by.role != Role::Operator => {
                let text = format!(
                    "a {} is unsigned, so an operator brings it; {} acts as {}",
                    kind.title(),
                    by.account,
                    by.role
                );
                return refused(recorder, &by, SUBMIT, sha256, about, vec![reason("role", text)]);
            }
            Ok(event) => event,
            Err(reasons) => return refused(recorder, &by, SUBMIT, sha256, about, reasons),
        };
        // A staged file is adopted by its entry; one that came with the request is queued.
        let is_claimed = staged.is_some_and(|digest| recorder.claim_staged(digest));
        if !is_claimed {
            recorder.queue_blob(octets);
        }
        if let Some(p7s) = p7s {
            recorder.queue_blob(p7s);
        }
        let entry = recorder.queue(&by, Event::FileAccepted(event))?;
        Ok(match recorder.fold().incidents().get(&incident).and_then(|facts| facts.files.last()) {
            Some(file) if file.entry == entry => Ok(shown(file)),
            Some(_) | None => Err(Failure::Internal { what: "a file that was recorded is not known".into() }),
        })
    });
    recorded.await
}

/// A file that was uploaded, whole: it is looked through from its first octet to its last anyway.
async fn staged_octets(staging: &Arc<Staging>, digest: Digest) -> Answer<Vec<u8>> {
    let staging = Arc::clone(staging);
    let read = tokio::task::spawn_blocking(move || -> Answer<Vec<u8>> {
        let file = staging.open_staged(digest).map_err(StoreError::from)?.ok_or(StoreError::NotStaged { digest })?;
        let mut octets = Vec::new();
        let taken = file.take(FILE_LEN_MAX + 1).read_to_end(&mut octets);
        taken.map_err(|error| Failure::Internal { what: format!("upload {digest}: {error}") })?;
        if octets.len() as u64 > FILE_LEN_MAX {
            return Err(Failure::TooLarge { what: "the file", limit: FILE_LEN_MAX });
        }
        Ok(octets)
    });
    read.await.map_err(|error| Failure::Internal { what: error.to_string() })?
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
    let (mut acts, mut next) = (Vec::new(), None);
    reader.leaves(of.from.unwrap_or(0).min(size)..size, &mut |leaf| {
        let Ok(entry) = Entry::from_leaf(leaf.octets) else { return ControlFlow::Continue(()) };
        // Time never goes back in a ledger.
        if of.until.is_some_and(|until| entry.at >= until) {
            return ControlFlow::Break(());
        }
        let Some(did) = did(&entry, &person).filter(|_| of.since.is_none_or(|since| entry.at >= since)) else {
            return ControlFlow::Continue(());
        };
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
    match intake::exercise(*at, *report, note, recorder.moment().at) {
        Ok(event) => Ok(Ok(wire::Recorded { entry: recorder.queue(&by, Event::ExerciseRecorded(event))? })),
        Err(reasons) => refused(recorder, &by, "exercise-record", *report, (None, None), reasons),
    }
}
