//! Shell. The boundary between the calls of the API and what does them: one method per route.
//!
//! Whoever implements [`Engine`] decides, records and acts. The API authenticates the caller, checks the role and the form
//! of the request, and writes the answer; it decides nothing else.

use std::future::Future;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::Duration;

use super::failure::Failure;
use super::wire;
use crate::domain::ledger::entry::{Actor, Channel, Reason, Role};
use crate::domain::names::{
    DeterminationId, DeviceId, Digest, IncidentId, KeyLabel, PersonId, PresentationId, RequestId, TokenName,
};

/// Who is at the other end of a connection: facts from the kernel and the system's account data base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The account's name; `#UID` if the user id has none.
    pub account: Box<str>,
    /// The user id that the kernel gave for the peer.
    pub uid: u32,
    /// The role that its UNIX groups give it.
    pub role: Role,
}

impl Caller {
    /// The caller as an entry names it. The person is the engine's to fill in: the policy maps accounts to persons.
    pub fn actor(&self) -> Actor {
        Actor { person: None, account: self.account.clone(), role: self.role, channel: Channel::Socket }
    }
}

/// Octets that come piece by piece, already as they go out. A failure cuts the stream, so that nobody takes it for whole;
/// dropping the sender ends it, which for leaves and documents means that it is whole.
///
/// The channel is bounded: a caller that reads slowly slows its sender down, and one that goes away ends it.
pub type Octets = mpsc::Receiver<Result<Bytes, Failure>>;

/// The body of an upload, pulled piece by piece: at most its limit, and no wait longer than [`Upload::IDLE`].
pub struct Upload {
    body: Body,
    taken: u64,
    limit: u64,
}

impl Upload {
    /// How long the next piece is waited for. A sender on the same machine that is silent for so long is not sending.
    pub const IDLE: Duration = Duration::from_secs(30);

    /// Of at most `limit` octets.
    pub fn new(body: Body, limit: u64) -> Self {
        Self { body, taken: 0, limit }
    }

    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        loop {
            let Ok(frame) = tokio::time::timeout(Self::IDLE, self.body.frame()).await else {
                return Some(Err(Failure::TooSlow {
                    waited_ms: Self::IDLE.as_millis().try_into().unwrap_or(u64::MAX),
                }));
            };
            let piece = match frame? {
                // Trailers carry nothing that we read.
                Ok(frame) => match frame.into_data() {
                    Ok(piece) => piece,
                    Err(_) => continue,
                },
                Err(error) => {
                    return Some(Err(Failure::malformed(
                        "body",
                        "the octets that the request announced",
                        &error.to_string(),
                        "Send it again.",
                    )));
                }
            };
            self.taken += piece.len() as u64;
            if self.taken > self.limit {
                return Some(Err(Failure::TooLarge { what: "the upload", limit: self.limit }));
            }
            return Some(Ok(piece));
        }
    }

    /// All of it in memory.
    pub async fn whole(mut self) -> Result<Bytes, Failure> {
        let Some(first) = self.next().await else { return Ok(Bytes::new()) };
        let first = first?;
        let Some(second) = self.next().await else { return Ok(first) };
        let mut whole = first.to_vec();
        whole.extend_from_slice(&second?);
        while let Some(piece) = self.next().await {
            whole.extend_from_slice(&piece?);
        }
        Ok(whole.into())
    }
}

/// Why the daemon ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}. {remedy}")]
pub struct Fatal {
    /// How it ends.
    pub kind: FatalKind,
    /// What was found.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// How the daemon ends by itself: each has an exit status of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalKind {
    /// Nothing more can be recorded.
    CannotRecord,
    /// What it found, at the start or once the ledger token came, forbids going on with this ledger.
    RefusedToStart,
    /// Its configuration does not fit the ledger or the tokens.
    Configuration,
}

/// What the daemon does. Every method is one route; the name of the route is the method's, with `-` for `_`.
///
/// Reads change nothing. Every other method records what it did, or that it refused ([`Failure::Refused`]), before it answers.
/// What cannot be done now, is not found or fails by our fault is told and not recorded, but for a key that could not be activated,
/// which is recorded as refused; and an upload is recorded only by the document that names it.
pub trait Engine: Send + Sync + 'static {
    /// Whether the daemon makes progress. Asked before each watchdog ping, so it may not block; false lets systemd restart it.
    fn alive(&self) -> bool;

    /// Resolves once the daemon cannot go on, with why; never before. It then ends with the status of the kind.
    fn cannot_go_on(&self) -> impl Future<Output = Fatal> + Send;

    /// An orderly end: no new intents, outcomes of running ones recorded, keys locked, the stop itself an entry.
    fn stop(&self, reason: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// A request that changes something was turned away before it reached its method: malformed (`rule` `form`) or from an
    /// account without the role (`rule` `role`). Records it within the account's rate, and says in which entry. `asked` is the
    /// SHA-256 of `METHOD path?query LF body`; the body only if it was to be read, and was no longer than the route takes.
    fn turned_away(
        &self,
        caller: &Caller,
        operation: &'static str,
        asked: Digest,
        reason: Reason,
    ) -> impl Future<Output = Result<Option<u64>, Failure>> + Send;

    /// `GET /v1/status`.
    fn status(&self, caller: &Caller) -> impl Future<Output = Result<wire::Status, Failure>> + Send;

    /// `POST /v1/incidents`.
    fn incident_open(
        &self,
        caller: &Caller,
        incident: wire::IncidentOpen,
    ) -> impl Future<Output = Result<wire::Recorded, Failure>> + Send;

    /// `GET /v1/incidents`.
    fn incident_list(&self, caller: &Caller) -> impl Future<Output = Result<wire::Incidents, Failure>> + Send;

    /// `GET /v1/incidents/{incident}`.
    fn incident_show(
        &self,
        caller: &Caller,
        incident: IncidentId,
    ) -> impl Future<Output = Result<wire::Incident, Failure>> + Send;

    /// `POST /v1/incidents/{incident}/close`.
    fn incident_close(
        &self,
        caller: &Caller,
        incident: IncidentId,
        why: wire::Why,
    ) -> impl Future<Output = Result<wire::Recorded, Failure>> + Send;

    /// `POST /v1/incidents/{incident}/steps`.
    fn incident_step(
        &self,
        caller: &Caller,
        incident: IncidentId,
        ask: wire::StepAsk,
    ) -> impl Future<Output = Result<wire::Recorded, Failure>> + Send;

    /// `GET /v1/incidents/{incident}/next`.
    fn incident_next(
        &self,
        caller: &Caller,
        incident: IncidentId,
    ) -> impl Future<Output = Result<wire::Next, Failure>> + Send;

    /// `GET /v1/incidents/{incident}/timeline`.
    fn incident_timeline(
        &self,
        caller: &Caller,
        incident: IncidentId,
        of: wire::StoryOf,
    ) -> impl Future<Output = Result<wire::Timeline, Failure>> + Send;

    /// `GET /v1/incidents/{incident}/devices/{device}`.
    fn incident_history(
        &self,
        caller: &Caller,
        incident: IncidentId,
        device: DeviceId,
    ) -> impl Future<Output = Result<wire::DeviceHistory, Failure>> + Send;

    /// `GET /v1/incidents/{incident}/files/{sha256}/statuses`: CSV with a header line.
    fn file_statuses(
        &self,
        caller: &Caller,
        incident: IncidentId,
        extract: Digest,
    ) -> impl Future<Output = Result<Octets, Failure>> + Send;

    /// `GET /v1/incidents/{incident}/devices`: CSV with a header line.
    fn incident_devices(
        &self,
        caller: &Caller,
        incident: IncidentId,
    ) -> impl Future<Output = Result<Octets, Failure>> + Send;

    /// `POST /v1/incidents/{incident}/files`: a file of the procedure, signed by an ARO.
    fn file_submit(
        &self,
        caller: &Caller,
        incident: IncidentId,
        file: wire::FileSubmit,
    ) -> impl Future<Output = Result<wire::File, Failure>> + Send;

    /// `GET /v1/incidents/{incident}/files`.
    fn file_list(
        &self,
        caller: &Caller,
        incident: IncidentId,
    ) -> impl Future<Output = Result<wire::Files, Failure>> + Send;

    /// `GET /v1/people/{person}/activity`: what somebody signed or asked for.
    fn person_activity(
        &self,
        caller: &Caller,
        person: PersonId,
        of: wire::ActivityOf,
    ) -> impl Future<Output = Result<wire::Activity, Failure>> + Send;

    /// `POST /v1/exercises`.
    fn exercise_record(
        &self,
        caller: &Caller,
        exercise: wire::ExerciseRecord,
    ) -> impl Future<Output = Result<wire::Recorded, Failure>> + Send;

    /// `PUT /v1/uploads/devices`. `expected` is the digest that the sender announced, if it did: another one is refused.
    fn upload_devices(
        &self,
        caller: &Caller,
        upload: Upload,
        expected: Option<Digest>,
    ) -> impl Future<Output = Result<wire::Stored, Failure>> + Send;

    /// `PUT /v1/uploads`: octets that wait until a call names them by their SHA-256. `expected` as in
    /// [`Engine::upload_devices`].
    fn upload(
        &self,
        caller: &Caller,
        upload: Upload,
        expected: Option<Digest>,
    ) -> impl Future<Output = Result<wire::Stored, Failure>> + Send;

    /// `POST /v1/documents`: the one way in for whatever somebody signed.
    fn document_record(
        &self,
        caller: &Caller,
        document: wire::Document,
    ) -> impl Future<Output = Result<wire::DocumentRecorded, Failure>> + Send;

    /// `GET /v1/determinations`.
    fn determination_list(&self, caller: &Caller)
    -> impl Future<Output = Result<wire::Determinations, Failure>> + Send;

    /// `GET /v1/determinations/{determination}`.
    fn determination_show(
        &self,
        caller: &Caller,
        determination: DeterminationId,
    ) -> impl Future<Output = Result<wire::Determination, Failure>> + Send;

    /// `GET /v1/policy`.
    fn policy_show(&self, caller: &Caller) -> impl Future<Output = Result<wire::Policy, Failure>> + Send;

    /// `GET /v1/procedure`.
    fn procedure_explain(
        &self,
        caller: &Caller,
        of: wire::ProcedureOf,
    ) -> impl Future<Output = Result<wire::Explanation, Failure>> + Send;

    /// `POST /v1/keys/{key}/activate`.
    fn key_activate(
        &self,
        caller: &Caller,
        key: KeyLabel,
        activate: wire::KeyActivate,
    ) -> impl Future<Output = Result<wire::KeyChanged, Failure>> + Send;

    /// `POST /v1/keys/{key}/presentations`.
    fn custodian_present(
        &self,
        caller: &Caller,
        key: KeyLabel,
        present: wire::Present,
    ) -> impl Future<Output = Result<wire::PresentationBegun, Failure>> + Send;

    /// `POST /v1/keys/{key}/presentations/{presentation}`.
    fn custodian_share(
        &self,
        caller: &Caller,
        of: (KeyLabel, PresentationId),
        share: wire::SealedShare,
    ) -> impl Future<Output = Result<wire::Presented, Failure>> + Send;

    /// `POST /v1/ceremony/records`.
    fn ceremony_record(
        &self,
        caller: &Caller,
        record: wire::CeremonyRecord,
    ) -> impl Future<Output = Result<wire::Recorded, Failure>> + Send;

    /// `POST /v1/keys/{key}/lock`.
    fn key_lock(
        &self,
        caller: &Caller,
        key: KeyLabel,
    ) -> impl Future<Output = Result<wire::KeyChanged, Failure>> + Send;

    /// `POST /v1/keys/{key}/symmetric-release`: the Contingency Symmetric Key, into smkid's own memory. It is run to its end though
    /// whoever asked goes away.
    fn key_symmetric_release(
        &self,
        caller: &Caller,
        key: KeyLabel,
        release: wire::SymmetricRelease,
    ) -> impl Future<Output = Result<wire::SymmetricReleased, Failure>> + Send;

    /// `POST /v1/recovery/sign`. Lines of NDJSON, several to a piece: one [`wire::Item`] per Device, a
    /// [`wire::StoppedLine`] if nothing more is signed, and one [`wire::SummaryLine`] as the last, without which the caller takes
    /// the answer for cut. Or the same as a container ([`crate::domain::commands::container`]).
    fn recovery_sign(
        &self,
        caller: &Caller,
        sign: wire::RecoverySign,
        form: wire::Form,
    ) -> impl Future<Output = Result<Octets, Failure>> + Send;

    /// `POST /v1/recovery/requests/{request}/commands`. The answer of [`Engine::recovery_sign`].
    fn recovery_fetch(
        &self,
        caller: &Caller,
        request: RequestId,
        fetch: wire::RecoveryFetch,
        form: wire::Form,
    ) -> impl Future<Output = Result<Octets, Failure>> + Send;

    /// `GET /v1/recovery/requests/{request}`.
    fn recovery_request(
        &self,
        caller: &Caller,
        request: RequestId,
    ) -> impl Future<Output = Result<wire::RequestState, Failure>> + Send;

    /// `GET /v1/recovery/unknowns`.
    fn recovery_unknowns(
        &self,
        caller: &Caller,
        of: wire::UnknownsOf,
    ) -> impl Future<Output = Result<wire::Unknowns, Failure>> + Send;

    /// `POST /v1/recovery/settle`. The answer of [`Engine::recovery_sign`].
    fn recovery_settle(
        &self,
        caller: &Caller,
        settle: wire::RecoverySettle,
        form: wire::Form,
    ) -> impl Future<Output = Result<Octets, Failure>> + Send;

    /// `POST /v1/recovery/responses`. Lines of NDJSON: one [`wire::ResponseItem`] for each message that proves no recovery, and a
    /// [`wire::ResponsesSummaryLine`] as the last, without which the answer was cut.
    fn recovery_responses(
        &self,
        caller: &Caller,
        responses: wire::RecoveryResponses,
    ) -> impl Future<Output = Result<Octets, Failure>> + Send;

    /// `POST /v1/recovery/certificates`: certificates of Devices, verified now and relied on from here on.
    fn recovery_certificates(
        &self,
        caller: &Caller,
        certificates: wire::DeviceCertificates,
    ) -> impl Future<Output = Result<wire::CertificatesImported, Failure>> + Send;

    /// `GET /v1/recovery/devices`.
    fn recovery_devices(
        &self,
        caller: &Caller,
        of: wire::DevicesOf,
    ) -> impl Future<Output = Result<wire::RecoveryDevices, Failure>> + Send;

    /// `POST /v1/recovery/resume`.
    fn recovery_resume(
        &self,
        caller: &Caller,
        resume: wire::RecoveryResume,
    ) -> impl Future<Output = Result<wire::Recorded, Failure>> + Send;

    /// `POST /v1/recovery/jobs`. Answers the job as it stands.
    fn job_start(
        &self,
        caller: &Caller,
        start: wire::JobStart,
    ) -> impl Future<Output = Result<wire::Job, Failure>> + Send;

    /// `GET /v1/recovery/jobs`.
    fn job_list(&self, caller: &Caller, of: wire::JobsOf) -> impl Future<Output = Result<wire::Jobs, Failure>> + Send;

    /// `GET /v1/recovery/jobs/{request}`.
    fn job_show(&self, caller: &Caller, request: RequestId) -> impl Future<Output = Result<wire::Job, Failure>> + Send;

    /// `POST /v1/recovery/jobs/{request}/pause`. It stands before the next `C_Sign`.
    fn job_pause(
        &self,
        caller: &Caller,
        request: RequestId,
        why: wire::Why,
    ) -> impl Future<Output = Result<wire::Job, Failure>> + Send;

    /// `POST /v1/recovery/jobs/{request}/resume`.
    fn job_resume(
        &self,
        caller: &Caller,
        request: RequestId,
    ) -> impl Future<Output = Result<wire::Job, Failure>> + Send;

    /// `POST /v1/recovery/jobs/{request}/cancel`. It stands before the next `C_Sign`.
    fn job_cancel(
        &self,
        caller: &Caller,
        request: RequestId,
        why: wire::Why,
    ) -> impl Future<Output = Result<wire::Job, Failure>> + Send;

    /// `GET /v1/hsm`.
    fn hsm_status(&self, caller: &Caller) -> impl Future<Output = Result<wire::Tokens, Failure>> + Send;

    /// `POST /v1/hsm/{token}/retry-login`: an operator put the PIN right. That of the ledger token is recorded once the token is
    /// up, for before it cannot be.
    fn hsm_retry_login(
        &self,
        caller: &Caller,
        token: TokenName,
    ) -> impl Future<Output = Result<wire::LoginRetried, Failure>> + Send;

    /// `POST /v1/clock/accept`.
    fn clock_accept(
        &self,
        caller: &Caller,
        ask: wire::ClockAccept,
    ) -> impl Future<Output = Result<wire::Recorded, Failure>> + Send;

    /// `GET /v1/ledger/checkpoint`: the newest, a C2SP signed note.
    fn ledger_checkpoint(&self, caller: &Caller) -> impl Future<Output = Result<String, Failure>> + Send;

    /// `GET /v1/ledger/checkpoints`: all of them, oldest first.
    fn ledger_checkpoints(&self, caller: &Caller) -> impl Future<Output = Result<wire::Checkpoints, Failure>> + Send;

    /// `GET /v1/ledger/leaves`: the leaves of a range in the form of a C2SP tlog-tiles entry bundle, each a big-endian uint16
    /// length and so many octets.
    fn ledger_leaves(
        &self,
        caller: &Caller,
        range: wire::LeafRange,
    ) -> impl Future<Output = Result<Octets, Failure>> + Send;

    /// `GET /v1/ledger/signatures`: the released signatures of the intents in a range, each the intent's index as a big-endian
    /// uint64 and 64 octets, r ‖ s.
    fn ledger_signatures(
        &self,
        caller: &Caller,
        range: wire::LeafRange,
    ) -> impl Future<Output = Result<Octets, Failure>> + Send;

    /// `GET /v1/ledger/entries`.
    fn ledger_entries(
        &self,
        caller: &Caller,
        of: wire::EntriesOf,
    ) -> impl Future<Output = Result<wire::Entries, Failure>> + Send;

    /// `GET /v1/ledger/proof/{index}`: a C2SP tlog-proof.
    fn ledger_proof(&self, caller: &Caller, index: u64) -> impl Future<Output = Result<String, Failure>> + Send;

    /// `GET /v1/ledger/blobs`: every digest that an entry refers to.
    fn ledger_blobs(&self, caller: &Caller) -> impl Future<Output = Result<wire::Blobs, Failure>> + Send;

    /// `GET /v1/ledger/blobs/{sha256}`.
    fn ledger_blob(&self, caller: &Caller, sha256: Digest) -> impl Future<Output = Result<Octets, Failure>> + Send;
}
