//! Shell. The one table of calls: method, path, name, permission and handler of each.
//!
//! A handler is given a [`Permitted`], so its type says who may call it; the column `permission` is read off that type and
//! cannot say otherwise. The order within a request is fixed in [`serve`]: role, then body, then form, then the engine.

use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, RawPathParams, Request};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use futures_util::future::BoxFuture;
use ring::digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::authenticate::{Anyone, Conducting, Level, Operating, Permission, Permitted, Reading};
use super::engine::{Caller, Engine, Octets, Upload};
use super::failure::Failure;
use super::{openapi, wire};
use crate::domain::commands::container;
use crate::domain::ledger::entry::Reason;
use crate::domain::names::Digest;

/// The greatest JSON body of an ordinary request: a certificate and a long description fit many times over.
pub const BODY_LEN_MAX: u64 = 64 * 1024;
/// The greatest body with a signed document: a policy directory, or a determination with a hundred templates, in base64.
pub const DOCUMENT_LEN_MAX: u64 = 4 * 1024 * 1024;
/// The greatest request to sign: about 10,000 pre-commands of 4 kB, or a million Devices by name. Only operators may send one.
pub const SIGN_LEN_MAX: u64 = 64 * 1024 * 1024;
/// What is read of a body that nobody wants, so that its sender gets to read why.
const DRAIN_LEN_MAX: u64 = 1024 * 1024;
/// How long the head of a stream waits for the first piece, and goes with it if that comes: long for a command (some 2 ms), and too short
/// for a person to notice.
const HEAD_ALONE_AFTER: Duration = Duration::from_millis(50);

/// The methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads; changes nothing and records nothing.
    Get,
    /// Puts octets there.
    Put,
    /// Does something.
    Post,
}

impl Verb {
    /// As HTTP writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
        }
    }

    /// Whether a call may change something.
    pub const fn changes(self) -> bool {
        match self {
            Self::Get => false,
            Self::Put | Self::Post => true,
        }
    }

    /// For hyper.
    pub const fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Put => Method::PUT,
            Self::Post => Method::POST,
        }
    }

    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Put => MethodFilter::PUT,
            Self::Post => MethodFilter::POST,
        }
    }
}

/// A wire type, as the OpenAPI document needs it.
#[derive(Clone, Copy)]
pub struct SchemaOf {
    /// Its name.
    pub name: fn() -> std::borrow::Cow<'static, str>,
    /// Its schema.
    pub schema: fn() -> RefOr<Schema>,
    /// The schemas it refers to.
    pub referred: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl SchemaOf {
    /// Of a type.
    pub const fn of<T: ToSchema>() -> Self {
        Self { name: T::name, schema: T::schema, referred: T::schemas }
    }
}

/// What a call takes besides the names in its path.
#[derive(Clone, Copy)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// A query.
    Query(SchemaOf),
    /// A JSON body of at most so many octets.
    Json(SchemaOf, u64),
    /// The same, and a query.
    JsonAndQuery(SchemaOf, u64, SchemaOf),
    /// Octets, with their SHA-256 as query `sha256` if the sender wants them checked. The limit is the listener's.
    Octets,
}

/// What a call answers when it is done.
#[derive(Clone, Copy)]
pub enum Gives {
    /// JSON.
    Json(SchemaOf),
    /// Lines of NDJSON: items, why it was stopped if it was, then one summary. Or a container with the same, by the query.
    Lines,
    /// Such a container.
    Container,
    /// Lines of NDJSON likewise: what Devices answered.
    ResponseLines,
    /// A text for other tools to read.
    Text,
    /// Octets.
    Octets,
    /// The OpenAPI document.
    OpenApi,
}

impl Gives {
    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json(_) | Self::OpenApi => "application/json",
            Self::Lines | Self::ResponseLines => "application/x-ndjson",
            Self::Container => container::MEDIA_TYPE,
            Self::Text => "text/plain; charset=utf-8",
            Self::Octets => "application/octet-stream",
        }
    }
}

type Answer = Result<Response, Failure>;
/// What is left to do with a request once its caller was let through.
type Ready = Box<dyn FnOnce(Ask) -> BoxFuture<'static, Answer> + Send>;
type Handler<E> = Box<dyn Fn(Arc<E>, Caller) -> Result<Ready, Failure> + Send + Sync>;

/// One call of the API.
pub struct Route<E> {
    /// How.
    pub verb: Verb,
    /// Where, with names in braces.
    pub path: &'static str,
    /// What it is called in entries and in the OpenAPI document.
    pub name: &'static str,
    /// Who may.
    pub permission: Permission,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What it answers.
    pub gives: Gives,
    handler: Handler<E>,
}

/// What a request says.
pub struct Ask {
    names: Vec<(String, String)>,
    uri: Uri,
    body: AskBody,
}

enum AskBody {
    Whole(Bytes),
    Upload(Upload),
}

impl Ask {
    /// A name in the path.
    fn name<T: FromStr<Err: std::fmt::Display>>(&self, name: &'static str) -> Result<T, Failure> {
        let text = self
            .names
            .iter()
            .find_map(|(found, text)| (found == name).then_some(text.as_str()))
            .ok_or_else(|| Failure::Internal { what: format!("the route has no {{{name}}} in its path") })?;
        text.parse().map_err(|error: T::Err| {
            Failure::malformed(
                &format!("path: {name}"),
                "a name of its form",
                &error.to_string(),
                "Check how it is written.",
            )
        })
    }

    /// The query.
    fn query<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        Query::try_from_uri(&self.uri).map(|Query(query)| query).map_err(|error| {
            let found = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Failure::malformed("query", "the parameters of this path", &found, "See /v1/openapi.json.")
        })
    }

    /// The query of a call that answers with commands: in which form.
    fn form(&self) -> Result<wire::Form, Failure> {
        self.query().map(|wire::AnswerForm { form }| form.unwrap_or_default())
    }

    /// The body as JSON of a type.
    fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let AskBody::Whole(body) = &self.body else {
            return Err(Failure::Internal { what: "the route takes octets, and its handler reads JSON".to_owned() });
        };
        serde_json::from_slice(body).map_err(|error| {
            Failure::malformed("body", "JSON of the form in /v1/openapi.json", &error.to_string(), "Correct it there.")
        })
    }

    /// The body as octets to come.
    fn upload(self) -> Result<Upload, Failure> {
        match self.body {
            AskBody::Upload(upload) => Ok(upload),
            AskBody::Whole(_) => {
                Err(Failure::Internal { what: "the route takes JSON, and its handler reads octets".to_owned() })
            }
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Announced {
    sha256: Option<Digest>,
}

fn row<P, E, F, Fut>(
    verb: Verb,
    path: &'static str,
    name: &'static str,
    summary: &'static str,
    takes: Takes,
    gives: Gives,
    handler: F,
) -> Route<E>
where
    P: Level,
    E: Engine,
    F: Fn(Permitted<P, E>, Ask) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let handler: Handler<E> = Box::new(move |engine, caller| {
        let permitted = Permitted::<P, E>::admit(engine, caller)?;
        Ok(Box::new(move |ask| Box::pin(handler(permitted, ask))))
    });
    Route { verb, path, name, permission: P::PERMISSION, summary, takes, gives, handler }
}

const fn gives<T: ToSchema>() -> Gives {
    Gives::Json(SchemaOf::of::<T>())
}

/// A body, and the form in which commands are answered.
const fn takes_and_form<T: ToSchema>(limit: u64) -> Takes {
    Takes::JsonAndQuery(SchemaOf::of::<T>(), limit, SchemaOf::of::<wire::AnswerForm>())
}

const fn takes<T: ToSchema>(limit: u64) -> Takes {
    Takes::Json(SchemaOf::of::<T>(), limit)
}

/// Every call. The order is the document's.
#[rustfmt::skip] // One row, one glance: what a call is on its first line, what it does on the next.
#[allow(clippy::too_many_lines)] // A table.
pub fn routes<E: Engine>() -> Vec<Route<E>> {
    use Takes::{Nothing, Octets as Upload, Query};
    use Verb::{Get, Post, Put};
    vec![
        row::<Anyone, E, _, _>(Get, "/v1/openapi.json", "openapi", "This document.", Nothing, Gives::OpenApi,
            |_, _| async move { Ok(text(openapi::DOCUMENT.to_owned(), Gives::OpenApi)) }),
        row::<Anyone, E, _, _>(Get, "/v1/status", "status", "What the daemon is doing and whether it can sign.", Nothing, gives::<wire::Status>(),
            |p, _| async move { let (engine, caller) = p.pass(); json(&engine.status(caller).await?) }),

        row::<Operating, E, _, _>(Post, "/v1/incidents", "incident-open", "Opens an incident.", takes::<wire::IncidentOpen>(BODY_LEN_MAX), gives::<wire::Recorded>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.incident_open(caller, ask.json()?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/incidents", "incident-list", "Every incident.", Nothing, gives::<wire::Incidents>(),
            |p, _| async move { let (engine, caller) = p.pass(); json(&engine.incident_list(caller).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/incidents/{incident}", "incident-show", "One incident.", Nothing, gives::<wire::Incident>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.incident_show(caller, ask.name("incident")?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/incidents/{incident}/close", "incident-close", "Closes an incident.", takes::<wire::Why>(BODY_LEN_MAX), gives::<wire::Recorded>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.incident_close(caller, ask.name("incident")?, ask.json()?).await?) }),

        row::<Operating, E, _, _>(Post, "/v1/incidents/{incident}/steps", "incident-step", "Records a step of the procedure.", takes::<wire::StepAsk>(BODY_LEN_MAX), gives::<wire::Recorded>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.incident_step(caller, ask.name("incident")?, ask.json()?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/incidents/{incident}/next", "incident-next", "What is to be done now, and by whom.", Nothing, gives::<wire::Next>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.incident_next(caller, ask.name("incident")?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/incidents/{incident}/timeline", "incident-timeline", "An incident's story, a thousand items at a time.", Query(SchemaOf::of::<wire::StoryOf>()), gives::<wire::Timeline>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.incident_timeline(caller, ask.name("incident")?, ask.query()?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/incidents/{incident}/devices", "incident-devices", "The Relevant Devices and what became of each, as CSV.", Nothing, Gives::Text,
            |p, ask| async move { let (engine, caller) = p.pass(); Ok(stream(engine.incident_devices(caller, ask.name("incident")?).await?, Gives::Text).await) }),
        row::<Reading, E, _, _>(Get, "/v1/incidents/{incident}/devices/{device}", "incident-history", "One Device's story in the incident: its SMI Statuses, its commands, its Responses.", Nothing, gives::<wire::DeviceHistory>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.incident_history(caller, ask.name("incident")?, ask.name("device")?).await?) }),

        row::<Anyone, E, _, _>(Post, "/v1/incidents/{incident}/files", "file-submit", "Takes in a file of the procedure, signed by an ARO: notification, progress, thresholds. An SMI Status extract is unsigned and needs an operator.", takes::<wire::FileSubmit>(DOCUMENT_LEN_MAX), gives::<wire::File>(),
            |p, ask| async move { let (engine, caller) = p.pass(); let file = one_source(ask.json()?)?; json(&engine.file_submit(caller, ask.name("incident")?, file).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/incidents/{incident}/files", "file-list", "The files of an incident.", Nothing, gives::<wire::Files>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.file_list(caller, ask.name("incident")?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/incidents/{incident}/files/{sha256}/statuses", "file-statuses", "What an SMI Status extract says of the targets that is not recorded of them, as CSV: what is new, and what contradicts.", Nothing, Gives::Text,
            |p, ask| async move { let (engine, caller) = p.pass(); Ok(stream(engine.file_statuses(caller, ask.name("incident")?, ask.name("sha256")?).await?, Gives::Text).await) }),
        row::<Reading, E, _, _>(Get, "/v1/people/{person}/activity", "person-activity", "What a person signed or asked for, some hundreds of entries at a time.", Query(SchemaOf::of::<wire::ActivityOf>()), gives::<wire::Activity>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.person_activity(caller, ask.name("person")?, ask.query()?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/exercises", "exercise-record", "Records that the arrangements were rehearsed.", takes::<wire::ExerciseRecord>(BODY_LEN_MAX), gives::<wire::Recorded>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.exercise_record(caller, ask.json()?).await?) }),

        row::<Anyone, E, _, _>(Put, "/v1/uploads/devices", "upload-devices", "Keeps a device list, or another long file, until a document or request refers to it.", Upload, gives::<wire::Stored>(),
            |p, ask| async move { let (engine, caller) = p.pass(); let Announced { sha256 } = ask.query()?; json(&engine.upload_devices(caller, ask.upload()?, sha256).await?) }),
        row::<Operating, E, _, _>(Put, "/v1/uploads", "upload", "Keeps octets until a call refers to them.", Upload, gives::<wire::Stored>(),
            |p, ask| async move { let (engine, caller) = p.pass(); let Announced { sha256 } = ask.query()?; json(&engine.upload(caller, ask.upload()?, sha256).await?) }),
        row::<Anyone, E, _, _>(Post, "/v1/documents", "document-record", "Takes in what somebody signed: determination, schedule, suspension, withdrawal, direction, adoption of a policy.", takes::<wire::Document>(DOCUMENT_LEN_MAX), gives::<wire::DocumentRecorded>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.document_record(caller, ask.json()?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/determinations", "determination-list", "Every determination.", Nothing, gives::<wire::Determinations>(),
            |p, _| async move { let (engine, caller) = p.pass(); json(&engine.determination_list(caller).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/determinations/{determination}", "determination-show", "One determination.", Nothing, gives::<wire::Determination>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.determination_show(caller, ask.name("determination")?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/policy", "policy-show", "The policy in force.", Nothing, gives::<wire::Policy>(),
            |p, _| async move { let (engine, caller) = p.pass(); json(&engine.policy_show(caller).await?) }),

        row::<Reading, E, _, _>(Get, "/v1/procedure", "procedure-explain", "The procedure in force at a moment, and what it means for an incident.", Query(SchemaOf::of::<wire::ProcedureOf>()), gives::<wire::Explanation>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.procedure_explain(caller, ask.query()?).await?) }),

        row::<Operating, E, _, _>(Post, "/v1/keys/{key}/activate", "key-activate", "Opens a key for use in one incident.", takes::<wire::KeyActivate>(BODY_LEN_MAX), gives::<wire::KeyChanged>(),
            |p, ask| async move { let (engine, caller) = p.pass(); let key = ask.name("key")?; json(&engine.key_activate(caller, key, ask.json()?).await?) }),
        row::<Anyone, E, _, _>(Post, "/v1/keys/{key}/presentations", "custodian-present", "Begins a Key Custodian's presentation of a share.", takes::<wire::Present>(BODY_LEN_MAX), gives::<wire::PresentationBegun>(),
            |p, ask| async move { let (engine, caller) = p.pass(); let key = ask.name("key")?; json(&engine.custodian_present(caller, key, ask.json()?).await?) }),
        row::<Anyone, E, _, _>(Post, "/v1/keys/{key}/presentations/{presentation}", "custodian-share", "Gives the share, sealed to the vault of its key.", takes::<wire::SealedShare>(BODY_LEN_MAX), gives::<wire::Presented>(),
            |p, ask| async move { let (engine, caller) = p.pass(); let of = (ask.name("key")?, ask.name("presentation")?); json(&engine.custodian_share(caller, of, ask.json()?).await?) }),
        row::<Conducting, E, _, _>(Post, "/v1/ceremony/records", "ceremony-record", "Records what a ceremony did beside the running daemon: a key found on a further token, shares dealt anew, or the ceremony itself. For root and the daemon's own account.", takes::<wire::CeremonyRecord>(DOCUMENT_LEN_MAX), gives::<wire::Recorded>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.ceremony_record(caller, ask.json()?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/keys/{key}/lock", "key-lock", "Locks a key.", Nothing, gives::<wire::KeyChanged>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.key_lock(caller, ask.name("key")?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/keys/{key}/symmetric-release", "key-symmetric-release", "Releases the Contingency Symmetric Key into the commands of a determination: into the daemon's memory alone, after the token compared the Root OCA Certificate with the key. The first release spends it.", takes::<wire::SymmetricRelease>(BODY_LEN_MAX), gives::<wire::SymmetricReleased>(),
            |p, ask| async move { let (engine, caller) = p.pass(); let key = ask.name("key")?; json(&engine.key_symmetric_release(caller, key, ask.json()?).await?) }),

        row::<Reading, E, _, _>(Get, "/v1/hsm", "hsm-status", "How the tokens stand.", Nothing, gives::<wire::Tokens>(),
            |p, _| async move { let (engine, caller) = p.pass(); json(&engine.hsm_status(caller).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/hsm/{token}/retry-login", "hsm-retry-login", "Lets the PIN of a token be offered again, once it was put right.", Nothing, gives::<wire::LoginRetried>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.hsm_retry_login(caller, ask.name("token")?).await?) }),

        row::<Operating, E, _, _>(Post, "/v1/recovery/sign", "recovery-sign", "Signs recovery commands under a determination.", takes_and_form::<wire::RecoverySign>(SIGN_LEN_MAX), Gives::Lines,
            |p, ask| async move { let (engine, caller) = p.pass(); let (sign, form) = (one_scope(ask.json()?)?, ask.form()?); Ok(stream(engine.recovery_sign(caller, sign, form).await?, commands(form)).await) }),
        row::<Reading, E, _, _>(Get, "/v1/recovery/requests/{request}", "recovery-request", "How far a request has come.", Nothing, gives::<wire::RequestState>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.recovery_request(caller, ask.name("request")?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/recovery/requests/{request}/commands", "recovery-fetch", "Hands over the signed commands of a request, made again from the ledger.", takes_and_form::<wire::RecoveryFetch>(SIGN_LEN_MAX), Gives::Lines,
            |p, ask| async move { let (engine, caller) = p.pass(); let (request, form) = (ask.name("request")?, ask.form()?); Ok(stream(engine.recovery_fetch(caller, request, ask.json()?, form).await?, commands(form)).await) }),
        row::<Reading, E, _, _>(Get, "/v1/recovery/unknowns", "recovery-unknowns", "Intents whose outcome nobody knows.", Query(SchemaOf::of::<wire::UnknownsOf>()), gives::<wire::Unknowns>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.recovery_unknowns(caller, ask.query()?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/recovery/settle", "recovery-settle", "Says what is to become of unknowns.", takes_and_form::<wire::RecoverySettle>(SIGN_LEN_MAX), Gives::Lines,
            |p, ask| async move { let (engine, caller) = p.pass(); let form = ask.form()?; Ok(stream(engine.recovery_settle(caller, ask.json()?, form).await?, commands(form)).await) }),
        row::<Operating, E, _, _>(Post, "/v1/recovery/responses", "recovery-responses", "Takes in what Devices answered, and judges it.", takes::<wire::RecoveryResponses>(BODY_LEN_MAX), Gives::ResponseLines,
            |p, ask| async move { let (engine, caller) = p.pass(); Ok(stream(engine.recovery_responses(caller, ask.json()?).await?, Gives::ResponseLines).await) }),
        row::<Operating, E, _, _>(Post, "/v1/recovery/certificates", "recovery-certificates", "Verifies certificates of Devices, so that their Responses need none.", takes::<wire::DeviceCertificates>(BODY_LEN_MAX), gives::<wire::CertificatesImported>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.recovery_certificates(caller, ask.json()?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/recovery/devices", "recovery-devices", "How far each Device of a determination has come.", Query(SchemaOf::of::<wire::DevicesOf>()), gives::<wire::RecoveryDevices>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.recovery_devices(caller, ask.query()?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/recovery/resume", "recovery-resume", "Lets signing go on that a foreign answer had stopped.", takes::<wire::RecoveryResume>(BODY_LEN_MAX), gives::<wire::Recorded>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.recovery_resume(caller, ask.json()?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/recovery/jobs", "job-start", "Starts a job: a batch that the daemon runs by itself. What it signs is kept, and handed over when it is fetched.", takes::<wire::JobStart>(BODY_LEN_MAX), gives::<wire::Job>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.job_start(caller, ask.json()?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/recovery/jobs", "job-list", "Jobs and how far they have come, a hundred at a time.", Query(SchemaOf::of::<wire::JobsOf>()), gives::<wire::Jobs>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.job_list(caller, ask.query()?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/recovery/jobs/{request}", "job-show", "How far a job has come.", Nothing, gives::<wire::Job>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.job_show(caller, ask.name("request")?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/recovery/jobs/{request}/pause", "job-pause", "Lets a job stand still, before the next signature.", takes::<wire::Why>(BODY_LEN_MAX), gives::<wire::Job>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.job_pause(caller, ask.name("request")?, ask.json()?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/recovery/jobs/{request}/resume", "job-resume", "Lets a paused job go on.", Nothing, gives::<wire::Job>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.job_resume(caller, ask.name("request")?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/recovery/jobs/{request}/cancel", "job-cancel", "Ends a job, before the next signature. What is signed stays signed.", takes::<wire::Why>(BODY_LEN_MAX), gives::<wire::Job>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.job_cancel(caller, ask.name("request")?, ask.json()?).await?) }),
        row::<Operating, E, _, _>(Post, "/v1/clock/accept", "clock-accept", "Accepts the clock after a jump.", takes::<wire::ClockAccept>(BODY_LEN_MAX), gives::<wire::Recorded>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.clock_accept(caller, ask.json()?).await?) }),

        row::<Reading, E, _, _>(Get, "/v1/ledger/checkpoint", "ledger-checkpoint", "The newest checkpoint, a C2SP signed note.", Nothing, Gives::Text,
            |p, _| async move { let (engine, caller) = p.pass(); Ok(text(engine.ledger_checkpoint(caller).await?, Gives::Text)) }),
        row::<Reading, E, _, _>(Get, "/v1/ledger/checkpoints", "ledger-checkpoints", "Every checkpoint, oldest first.", Nothing, gives::<wire::Checkpoints>(),
            |p, _| async move { let (engine, caller) = p.pass(); json(&engine.ledger_checkpoints(caller).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/ledger/leaves", "ledger-leaves", "Leaves in the form of a C2SP tlog-tiles entry bundle.", Query(SchemaOf::of::<wire::LeafRange>()), Gives::Octets,
            |p, ask| async move { let (engine, caller) = p.pass(); Ok(stream(engine.ledger_leaves(caller, ask.query()?).await?, Gives::Octets).await) }),
        row::<Reading, E, _, _>(Get, "/v1/ledger/signatures", "ledger-signatures", "The released signatures of the intents in a range.", Query(SchemaOf::of::<wire::LeafRange>()), Gives::Octets,
            |p, ask| async move { let (engine, caller) = p.pass(); Ok(stream(engine.ledger_signatures(caller, ask.query()?).await?, Gives::Octets).await) }),
        row::<Reading, E, _, _>(Get, "/v1/ledger/entries", "ledger-entries", "Entries, filtered, some hundreds at a time.", Query(SchemaOf::of::<wire::EntriesOf>()), gives::<wire::Entries>(),
            |p, ask| async move { let (engine, caller) = p.pass(); json(&engine.ledger_entries(caller, ask.query()?).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/ledger/proof/{index}", "ledger-proof", "The receipt of an entry, a C2SP tlog-proof.", Nothing, Gives::Text,
            |p, ask| async move { let (engine, caller) = p.pass(); Ok(text(engine.ledger_proof(caller, ask.name("index")?).await?, Gives::Text)) }),
        row::<Reading, E, _, _>(Get, "/v1/ledger/blobs", "ledger-blobs", "The digests of all documents that entries refer to.", Nothing, gives::<wire::Blobs>(),
            |p, _| async move { let (engine, caller) = p.pass(); json(&engine.ledger_blobs(caller).await?) }),
        row::<Reading, E, _, _>(Get, "/v1/ledger/blobs/{sha256}", "ledger-blob", "One of those documents.", Nothing, Gives::Octets,
            |p, ask| async move { let (engine, caller) = p.pass(); Ok(stream(engine.ledger_blob(caller, ask.name("sha256")?).await?, Gives::Octets).await) }),
    ]
}

fn one_source(file: wire::FileSubmit) -> Result<wire::FileSubmit, Failure> {
    let found = match (&file.octets, &file.staged) {
        (Some(_), None) | (None, Some(_)) => return Ok(file),
        (Some(_), Some(_)) => "both",
        (None, None) => "neither",
    };
    Err(Failure::malformed(
        "body",
        "exactly one of `octets` and `staged`",
        found,
        "Send the file, or its SHA-256 after an upload.",
    ))
}

fn one_scope(sign: wire::RecoverySign) -> Result<wire::RecoverySign, Failure> {
    if sign.has_one_scope() {
        Ok(sign)
    } else {
        let found = if sign.devices.is_some() { "both" } else { "neither" };
        Err(Failure::malformed(
            "body",
            "exactly one of `devices` and `pre_commands`",
            found,
            "Give the other one alone.",
        ))
    }
}

/// The table as something that answers requests. The listener puts the [`Caller`] into each request's extensions.
pub fn router<E: Engine>(engine: &Arc<E>, upload_len_max: u64) -> Router {
    let mut router = Router::new();
    for route in routes::<E>() {
        let (path, filter) = (route.path, route.verb.filter());
        let (route, engine) = (Arc::new(route), Arc::clone(engine));
        router = router.route(
            path,
            on(filter, move |names: RawPathParams, request: Request| {
                serve(Arc::clone(&engine), Arc::clone(&route), upload_len_max, names, request)
            }),
        );
    }
    router
        .fallback(|uri: Uri| async move { failed(&Failure::NotFound { what: shortened("the path", uri.path()) }) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            failed(&Failure::MethodNotAllowed {
                method: method.to_string(),
                path: uri.path().chars().take(Failure::FOUND_LEN_MAX).collect(),
            })
        })
}

fn shortened(what: &str, text: &str) -> String {
    format!("{what} {}", text.chars().take(Failure::FOUND_LEN_MAX).collect::<String>())
}

async fn serve<E: Engine>(
    engine: Arc<E>,
    route: Arc<Route<E>>,
    upload_len_max: u64,
    names: RawPathParams,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Some(caller) = parts.extensions.get::<Caller>().cloned() else {
        return failed(&Failure::Internal { what: "a request without a caller reached the routes".to_owned() });
    };
    let mut asked = digest::Context::new(&digest::SHA256);
    for part in [route.verb.as_str(), " ", parts.uri.path(), "?", parts.uri.query().unwrap_or_default(), "\n"] {
        asked.update(part.as_bytes());
    }
    let names = names.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();

    let answer = match (route.handler)(Arc::clone(&engine), caller.clone()) {
        Err(forbidden) => {
            drain(body).await;
            Err(forbidden)
        }
        Ok(ready) => match taken(route.takes, upload_len_max, body, &mut asked).await {
            Err(failure) => Err(failure),
            Ok(body) => ready(Ask { names, uri: parts.uri, body }).await,
        },
    };
    let failure = match answer {
        Ok(response) => return response,
        Err(failure) => failure,
    };
    let rule = match &failure {
        Failure::Malformed { .. } | Failure::TooLarge { .. } => "form",
        Failure::Forbidden { .. } | Failure::NotConductor { .. } => "role",
        // The engine said so and recorded it if it is to be recorded; or nothing came of it for anybody.
        Failure::NotFound { .. }
        | Failure::MethodNotAllowed { .. }
        | Failure::Refused { .. }
        | Failure::TooMany { .. }
        | Failure::TooSlow { .. }
        | Failure::Unavailable { .. }
        | Failure::Stopped { .. }
        | Failure::Internal { .. } => return failed(&failure),
    };
    if !route.verb.changes() {
        return failed(&failure);
    }
    let asked = Digest::try_from(asked.finish().as_ref()).expect("SHA-256 gives 32 octets");
    let reason = Reason { rule: rule.into(), text: failure.to_string().into() };
    match engine.turned_away(&caller, route.name, asked, reason).await {
        Ok(entry) => {
            let mut problem = failure.problem();
            problem.entry = entry;
            problem_response(&failure, &problem)
        }
        Err(worse) => failed(&worse),
    }
}

/// The body as the route takes it; what is held in memory is part of `asked`.
async fn taken(takes: Takes, upload_len_max: u64, body: Body, asked: &mut digest::Context) -> Result<AskBody, Failure> {
    match takes {
        Takes::Octets => Ok(AskBody::Upload(Upload::new(body, upload_len_max))),
        Takes::Json(_, limit) | Takes::JsonAndQuery(_, limit, _) => {
            let whole = Upload::new(body, limit).whole().await?;
            asked.update(&whole);
            Ok(AskBody::Whole(whole))
        }
        Takes::Nothing | Takes::Query(_) => {
            let whole = Upload::new(body, 0).whole().await.map_err(|failure| match failure {
                Failure::TooLarge { .. } => Failure::malformed("body", "none", "one", "Send no body with this call."),
                other => other,
            })?;
            Ok(AskBody::Whole(whole))
        }
    }
}

/// Reads and forgets a body that is not wanted: a sender that is still writing would else see a broken pipe and not the reason.
async fn drain(body: Body) {
    let mut upload = Upload::new(body, DRAIN_LEN_MAX);
    while let Some(Ok(_)) = upload.next().await {}
}

fn answer(body: Body, gives: Gives) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(gives.media_type()));
    response
}

fn text(text: String, gives: Gives) -> Response {
    answer(text.into(), gives)
}

fn json<T: Serialize + ToSchema>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(octets) => Ok(answer(octets.into(), gives::<T>())),
        Err(error) => Err(Failure::Internal { what: format!("an answer could not be written: {error}") }),
    }
}

/// What is answered in this form.
const fn commands(form: wire::Form) -> Gives {
    match form {
        wire::Form::Ndjson => Gives::Lines,
        wire::Form::Container | wire::Form::Differences => Gives::Container,
    }
}

/// A failure in the middle is seen as a cut, never as a short answer that looks whole. Octets break the connection. Lines just
/// end, without their summary, so that those before them, which a broken connection may lose, still arrive.
///
/// The head waits a moment for the first piece: a caller that is woken for a head alone takes the core from whoever signs for it.
async fn stream(mut octets: Octets, gives: Gives) -> Response {
    let is_marked_by_summary = matches!(gives, Gives::Lines | Gives::Container | Gives::ResponseLines);
    let first = tokio::time::timeout(HEAD_ALONE_AFTER, octets.recv()).await.ok().flatten();
    if let Some(Err(failure)) = first.as_ref().filter(|_| !is_marked_by_summary) {
        // There is a head yet to say it. (Where a summary is due, something may have been recorded, and a failure would say that nothing was.)
        tracing::warn!(%failure, "an answer fails before its first piece");
        return failed(failure);
    }
    let pieces = futures_util::stream::unfold((first, octets), move |(first, mut octets)| async move {
        let piece = match first {
            Some(first) => first,
            None => octets.recv().await?,
        };
        if let Err(failure) = &piece {
            tracing::warn!(%failure, "an answer is cut");
            if is_marked_by_summary {
                return None;
            }
        }
        Some((piece, (None, octets)))
    });
    answer(Body::from_stream(pieces), gives)
}

/// The answer to a failure.
pub fn failed(failure: &Failure) -> Response {
    problem_response(failure, &failure.problem())
}

fn problem_response(failure: &Failure, problem: &super::failure::Problem) -> Response {
    let octets = serde_json::to_vec(problem).expect("a problem is made of texts and numbers");
    let mut response = answer(octets.into(), gives::<super::failure::Problem>());
    *response.status_mut() =
        StatusCode::from_u16(problem.error.http_status()).expect("the table holds statuses between 100 and 999");
    if let Failure::TooMany { retry_after_s, .. } = failure {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
    }
    response
}

#[cfg(test)]
mod tests;
