//! Shell: Responses of Devices, from the uploads to the entry; and how far each Device has come.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Answer, Daemon, PIECES_MAX, refused};
use crate::api::engine::{Caller, Octets};
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::gbcs::CredentialsReplacementMode;
use crate::domain::intake;
use crate::domain::intake::responses::{Handed, ResponsesError, Taken, imported_keys, responses as decide, resumption};
use crate::domain::ledger::entry::{Actor, Event, Reason};
use crate::domain::names::{DeterminationId, Digest, KeyLabel};
use crate::domain::policy::Policy;
use crate::domain::responses::bundle;
use crate::domain::responses::messages::{FILE_LEN_MAX, MESSAGES_LEN_MAX, Messages};
use crate::domain::responses::trust::CERTIFICATES_LEN_MAX;
use crate::domain::responses::{Outcome, Reading, Responded, ResultLine, Trust};
use crate::recorder::Recorder;
use crate::service::responses::{self, ImportedKeys};
use crate::state::StoredBook;
use crate::store::{Reader, Staging, StoreError};

/// Lines of a device list that are looked at in one call at most, so that a rare state does not hold a reader for minutes.
const LISTED_READ_MAX: usize = 100_000;

/// The first octets of a Command (GBCS 7.2.7): general-signing, the length of what follows, the CRA flag.
const BEGINNING_OF_A_COMMAND: [u8; 3] = [0xDF, 0x09, 0x01];
/// Where a Grouping Header says how long its date-time is; behind that come the length of the Message Code and the code.
const DATE_TIME_AT: usize = 29;

/// Whether a message is a Command of mode 9, by these octets alone: it has the Contingency Symmetric Key inside, whatever else may be
/// wrong with it.
fn is_contingency_command(message: &[u8]) -> bool {
    let code_at = message.get(DATE_TIME_AT).map(|len| DATE_TIME_AT + 2 + usize::from(*len));
    let code = code_at.and_then(|at| message.get(at..)?.first_chunk());
    message.starts_with(&BEGINNING_OF_A_COMMAND)
        && code == Some(&CredentialsReplacementMode::AnyByContingency.message_code().value().to_be_bytes())
}

/// Octets of lines that go out together.
const LINES_LEN: usize = 64 * 1024;

/// Parts of Responses or certificates that are held in memory at a time: one whose upload is read, one that is verified, one that
/// waits for the recorder, and one to spare. Each has some 30 MiB at most.
const PARTS_MAX: usize = 4;

/// Turns at handing in what Devices sent. Each goes to whoever has waited longest, so that parts come to the recorder as they were
/// sent.
#[derive(Clone)]
pub(super) struct Turns {
    /// At being held in memory.
    held: Arc<Semaphore>,
    /// At all processors.
    verified: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { held: Arc::new(Semaphore::new(PARTS_MAX)), verified: Arc::new(Semaphore::new(1)) }
    }
}

impl Turns {
    /// Reads a part while another is verified, then has it verified. It is held until what comes back with it is dropped.
    pub(super) async fn verify<T: Send + 'static, R: Send + 'static>(
        &self,
        read: impl FnOnce() -> Answer<T> + Send + 'static,
        verify: impl FnOnce(T) -> R + Send + 'static,
    ) -> Answer<(R, OwnedSemaphorePermit)> {
        let failed = |error: &dyn std::fmt::Display| Failure::Internal { what: error.to_string() };
        let held = Arc::clone(&self.held).acquire_owned().await.map_err(|error| failed(&error))?;
        let read = tokio::task::spawn_blocking(read).await.map_err(|error| failed(&error))??;
        let turn = Arc::clone(&self.verified).acquire_owned().await.map_err(|error| failed(&error))?;
        let verified = tokio::task::spawn_blocking(move || {
            let verified = verify(read);
            drop(turn);
            verified
        });
        Ok((verified.await.map_err(|error| failed(&error))?, held))
    }
}

/// What was handed in, read: everything that needs nothing but what is durable.
struct Sent {
    messages: Messages,
    /// A bundle, those that came with the messages.
    certificates: Vec<u8>,
    imported: ImportedKeys,
    imported_before: Option<u64>,
}

/// What was handed in, verified.
struct Prepared {
    messages: Messages,
    readings: Vec<Reading>,
    /// The messages as they are kept, where that is not as they lie.
    text: Option<Vec<u8>>,
    /// Of the messages as they are kept.
    responses_sha256: Digest,
    /// The certificates that are kept: DER, one after another.
    certificates: Vec<u8>,
    certificates_sha256: Digest,
    imported_before: Option<u64>,
}

/// Reads a whole upload that waits.
pub(super) fn staged(staging: &Staging, field: &str, digest: Digest, len_max: u64) -> Answer<Vec<u8>> {
    let file: Option<File> = staging.open_staged(digest).map_err(StoreError::from)?;
    let file = file.ok_or_else(|| {
        let remedy = "Upload it again; what waits too long is dropped.";
        Failure::malformed(field, "the SHA-256 of an upload that waits", &digest.to_string(), remedy)
    })?;
    // Room for all of it at once: one that grows would be copied.
    let room = staging.len(digest).unwrap_or_default().min(len_max);
    let mut octets = Vec::with_capacity(usize::try_from(room).unwrap_or_default());
    file.take(len_max + 1).read_to_end(&mut octets).map_err(|error| Failure::Internal { what: error.to_string() })?;
    if octets.len() as u64 > len_max {
        return Err(Failure::TooLarge { what: "the upload", limit: len_max });
    }
    Ok(octets)
}

fn read(staging: &Staging, ask: &wire::RecoveryResponses, trust: &Trust, ledger: &dyn Reader) -> Answer<Sent> {
    let sent = staged(staging, "responses", ask.responses, FILE_LEN_MAX)?;
    let messages = Messages::split(sent).map_err(|error| {
        Failure::malformed("responses", "a file of messages", &error.to_string(), "Mend it and send it again.")
    })?;
    // What is handed in is kept for good, and the Contingency Symmetric Key in nothing that is.
    if let Some(n) = messages.all().into_iter().position(is_contingency_command) {
        staging.discard(&[ask.responses]);
        return Err(Failure::malformed(
            "responses",
            "what Devices answered",
            &format!("message {} is a Command, with a Contingency Symmetric Key inside", n + 1),
            "Hand in the Responses, and not the commands that were sent.",
        ));
    }
    // What is kept, and read again by every audit, is the messages; as octets alone they are not halved.
    if messages.octets_len() > MESSAGES_LEN_MAX {
        return Err(Failure::TooLarge { what: "the messages of one upload together", limit: MESSAGES_LEN_MAX });
    }
    let mut certificates = match ask.certificates {
        Some(certificates) => staged(staging, "certificates", certificates, CERTIFICATES_LEN_MAX)?,
        None => Vec::new(),
    };
    if certificates.iter().all(u8::is_ascii_whitespace) {
        certificates.clear();
    }
    bundle::given(&certificates).map_err(|error| {
        Failure::malformed(
            "certificates",
            "certificates in DER, one after another, or in PEM",
            &format!("something else ({error})"),
            "Mend it and send it again.",
        )
    })?;
    let (mut imported, mut imported_before) = (None, None);
    // In this order: what is imported after the head was read does not count, and so cannot be there for one Device and not for
    // another.
    let head = ledger.head()?;
    if ledger.has_device_keys()? {
        let keys = imported_keys(&StoredBook(ledger), trust, &responses::devices(&messages.all()), head.size);
        imported = Some(keys.map_err(|error| Failure::Internal { what: error.to_string() })?);
        imported_before = Some(head.size);
    }
    Ok(Sent { messages, certificates, imported, imported_before })
}

fn verified(sent: Sent, trust: &Trust) -> Prepared {
    let Sent { messages, certificates, imported, imported_before } = sent;
    let given = bundle::given(&certificates).expect("what was sent was taken apart when it was read");
    let (readings, candidates) = responses::verify(&messages.all(), &given, imported, trust);
    let certificates = candidates.octets().collect::<Vec<_>>().concat();
    let certificates_sha256 = Digest::of(&certificates);
    let kept = messages.kept();
    let responses_sha256 = Digest::of(&kept);
    let text = match kept {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    };
    Prepared { messages, readings, text, responses_sha256, certificates, certificates_sha256, imported_before }
}

/// The lines of what proves no recovery, and the summary.
fn lines(taken: &Taken, entry: u64) -> Vec<Bytes> {
    let (mut pieces, mut piece) = (Vec::new(), Vec::with_capacity(LINES_LEN));
    let mut put = |line: Result<Vec<u8>, serde_json::Error>| {
        piece.extend(line.expect("a line is made of texts and numbers"));
        piece.push(b'\n');
        if piece.len() >= LINES_LEN {
            pieces.push(Bytes::from(std::mem::take(&mut piece)));
        }
    };
    for (message, line) in (1..).zip(&taken.lines) {
        if line.outcome != Outcome::Recovered {
            let ResultLine { device, intent, outcome, detail } = line;
            put(serde_json::to_vec(&wire::ResponseItem {
                message,
                device: *device,
                intent: *intent,
                result: outcome.to_string(),
                detail: detail.to_string(),
            }));
        }
    }
    let summary = wire::ResponsesSummary { entry, results: taken.event.results, tally: taken.event.tally };
    put(serde_json::to_vec(&wire::ResponsesSummaryLine { summary }));
    pieces.push(Bytes::from(piece));
    pieces
}

impl Daemon {
    pub(super) async fn take_responses(&self, caller: &Caller, ask: wire::RecoveryResponses) -> Answer<Octets> {
        let asked = super::answers::digest_of(&ask)?;
        let (policy_digest, policy) = self.policy_in_force().await?;
        let (staging, of, state) = (Arc::clone(&self.staging), ask.clone(), self.state.clone());
        let trust = Arc::new(Trust::new(&policy));
        let of_read = Arc::clone(&trust);
        let read = move || read(&staging, &of, &of_read, &crate::store::sqlite::SqliteReader::open(&state)?);
        let (prepared, held) = self.parts.verify(read, move |sent| verified(sent, &trust)).await?;

        let actor = caller.actor();
        let keys = Arc::clone(&self.keys);
        let determination = ask.determination;
        let taken = self.change(move |recorder| {
            let Prepared {
                messages,
                readings,
                text,
                responses_sha256,
                certificates,
                certificates_sha256,
                imported_before,
            } = prepared;
            let by = recorder.known(actor);
            if recorder.fold().policy().map(|adopted| adopted.digest) != Some(policy_digest) {
                return Ok(Err(another_policy()));
            }
            let handed = Handed {
                messages: &messages.all(),
                readings: &readings,
                responses: responses_sha256,
                certificates: certificates_sha256,
                imported_before,
            };
            let at = recorder.moment().at;
            if let Err(reasons) = may_act(recorder, &by, determination) {
                return refused(recorder, &by, "recovery-responses", asked, (None, Some(determination)), reasons);
            }
            let mut taken = match decide(recorder.fold(), recorder, at, determination, &handed) {
                Ok(taken) => taken,
                Err(ResponsesError::Refused(reasons)) => {
                    let about = (None, Some(determination));
                    return refused(recorder, &by, "recovery-responses", asked, about, reasons);
                }
                Err(ResponsesError::Book(error)) => return Err(error.into()),
            };
            // What somebody else signs with the key is to be stopped before the next C_Sign, as far as that is ours to do.
            if taken.event.tally.foreign > 0 {
                keys.fence();
            }
            recorder.queue_hashed_blob(responses_sha256, text.unwrap_or_else(|| messages.into_octets()));
            recorder.queue_hashed_blob(certificates_sha256, certificates);
            recorder.queue_lines_in(taken.event.results, Arc::clone(&taken.sorted));
            recorder.queue_hashed_blob(taken.event.results, std::mem::take(&mut taken.results).into_bytes());
            let entry = recorder.queue(&by, Event::ResponsesTaken(taken.event.clone()))?;
            Ok(Ok((taken, entry)))
        });
        let (taken, entry) = taken.await?;
        // What is kept are the messages in their one form, and of the certificates those that were used.
        let done: Vec<Digest> = std::iter::once(ask.responses).chain(ask.certificates).collect();
        self.staging.discard(&done);
        drop(held);
        let (pieces, octets) = mpsc::channel(PIECES_MAX);
        tokio::spawn(async move {
            for piece in lines(&taken, entry) {
                if pieces.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
        });
        Ok(octets)
    }

    /// The policy in force with its digest.
    pub(super) async fn policy_in_force(&self) -> Answer<(Digest, Arc<Policy>)> {
        let in_force = self
            .read(|recorder| Ok(recorder.fold().policy().map(|adopted| (adopted.digest, Arc::clone(&adopted.policy)))));
        in_force.await?.ok_or_else(|| Failure::NotFound { what: "a policy".into() })
    }

    pub(super) async fn resume(&self, caller: &Caller, ask: wire::RecoveryResume) -> Answer<wire::Recorded> {
        let asked = super::answers::digest_of(&ask)?;
        super::check_reason(&ask.reason)?;
        let actor = caller.actor();
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let wire::RecoveryResume { determination, reason: why } = ask;
            let decided = may_act(recorder, &by, determination)
                .and_then(|()| resumption(recorder.fold(), determination, &why, recorder.moment().at));
            match decided {
                Ok(event) => Ok(Ok(wire::Recorded { entry: recorder.queue(&by, Event::SigningResumed(event))? })),
                Err(reasons) => refused(recorder, &by, "recovery-resume", asked, (None, Some(determination)), reasons),
            }
        })
        .await
    }

    pub(super) async fn devices(&self, of: wire::DevicesOf) -> Answer<wire::RecoveryDevices> {
        let determination = of.determination;
        let key = self.read(move |recorder| {
            Ok(recorder.fold().determinations().get(&determination).map(|facts| facts.key.clone()))
        });
        match key.await? {
            None => Err(Failure::NotFound { what: format!("determination {determination}") }),
            Some(key) => self.scan(move |reader| page(reader, key.as_ref().map(|(key, _)| key), &of)).await,
        }
    }
}

/// What was verified was so under another policy than the one in force.
pub(super) fn another_policy() -> Failure {
    Failure::Unavailable { why: "another policy came into force meanwhile".into(), remedy: "Send it again".into() }
}

/// Whether whoever asks may act in the incident of a determination. One that is not recorded is refused by whatever asks next.
fn may_act(recorder: &Recorder, by: &Actor, determination: DeterminationId) -> Result<(), Vec<Reason>> {
    let fold = recorder.fold();
    let facts = fold.determinations().get(&determination);
    facts.map_or(Ok(()), |facts| intake::operator(fold, by, &facts.incident))
}

/// Some Devices in the state that is asked for.
fn page(
    reader: &dyn Reader,
    key: Option<&KeyLabel>,
    of: &wire::DevicesOf,
) -> Result<wire::RecoveryDevices, StoreError> {
    let mut devices = Vec::new();
    let (mut after, mut looked_at) = (of.after, 0);
    loop {
        let listed = reader.listed_from(of.determination, after, wire::RecoveryDevices::COUNT_MAX)?;
        let Some(last) = listed.last().map(|listed| listed.device) else {
            return Ok(wire::RecoveryDevices { devices, next: None });
        };
        looked_at += listed.len();
        for listed in listed {
            let found = state_of(reader, key, of.determination, listed.device)?;
            let (state, intent, entry, detail) = found;
            if of.state.is_some_and(|wanted| !wanted.takes(state)) {
                continue;
            }
            let (device, template) = (listed.device, listed.template);
            devices.push(wire::RecoveryDevice { device, template, state, intent, entry, detail });
            if devices.len() == wire::RecoveryDevices::COUNT_MAX {
                return Ok(wire::RecoveryDevices { devices, next: Some(device) });
            }
        }
        after = Some(last);
        if looked_at >= LISTED_READ_MAX {
            return Ok(wire::RecoveryDevices { devices, next: after });
        }
    }
}

type Found = (wire::DeviceState, Option<u64>, Option<u64>, Option<String>);

fn state_of(
    reader: &dyn Reader,
    key: Option<&KeyLabel>,
    determination: DeterminationId,
    device: crate::domain::names::DeviceId,
) -> Result<Found, StoreError> {
    let last = match key {
        Some(key) => reader.device(key, device)?.filter(|last| last.determination == determination),
        None => None,
    };
    let intent = last.as_ref().map(|last| last.intent);
    let Responded { own, foreign } = reader.responded(determination, device)?.unwrap_or_default();
    if let Some(counter) = foreign {
        let detail = format!("it answered counter {counter}, which was never signed");
        return Ok((wire::DeviceState::Foreign, intent, own.map(|own| own.entry), Some(detail)));
    }
    let Some(own) = own else {
        let signed = last.is_some_and(|last| last.state == crate::domain::policy::facts::IntentState::Signed);
        let state = if signed { wire::DeviceState::NoResponse } else { wire::DeviceState::Unsigned };
        return Ok((state, intent, None, None));
    };
    let state = match own.outcome {
        Outcome::Recovered => wire::DeviceState::Succeeded,
        Outcome::Failed => wire::DeviceState::Failed,
        Outcome::Accepted => wire::DeviceState::Accepted,
        // Nothing else is kept of a Device.
        Outcome::Contradiction
        | Outcome::Alert
        | Outcome::Foreign
        | Outcome::Unmatched
        | Outcome::Unverified
        | Outcome::Malformed
        | Outcome::Duplicate => wire::DeviceState::Contradicted,
    };
    Ok((state, Some(own.intent), Some(own.entry), (!own.detail.is_empty()).then(|| own.detail.into())))
}
