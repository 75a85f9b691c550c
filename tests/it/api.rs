//! The API over a real Unix socket with real peer credentials, in front of a fake engine.

use std::time::Duration;

use serde_json::{Value, json};
use smkid::api::authenticate::Permission;
use smkid::api::client::{Client, ClientError, with_query};
use smkid::api::failure::{Exit, Failure, ProblemKind};
use smkid::api::routes::{BODY_LEN_MAX, Takes, Verb, routes};
use smkid::api::wire;
use smkid::api::{listener, openapi};
use smkid::domain::ledger::entry::Role;

use crate::support::fake_engine::{
    CUT_SHA256, Daemon, FakeEngine, StreamEnd, UPLOAD_LEN_MAX, ask, ask_raw, digest, reason, roles_for,
};

/// A moment.
const TIME: &str = "2026-11-28T03:12:00Z";

const ID: &str = "07070707070707070707070707070707";
/// How long it is waited for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many equal readings, 50 ms apart, are a standstill.
const STILL_READINGS: u32 = 12;
const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A request that each route takes: its path, and its body.
fn sample(name: &str) -> (String, Vec<u8>) {
    let why = json!({ "reason": "because" });
    let (path, body) = match name {
        "openapi" => ("/v1/openapi.json".to_owned(), Value::Null),
        "status" => ("/v1/status".to_owned(), Value::Null),
        "incident-open" => (
            "/v1/incidents".to_owned(),
            json!({ "incident": "INC-1", "certificate_pem": "PEM", "description": "text" }),
        ),
        "incident-list" => ("/v1/incidents".to_owned(), Value::Null),
        "incident-show" => ("/v1/incidents/INC-1".to_owned(), Value::Null),
        "incident-close" => ("/v1/incidents/INC-1/close".to_owned(), why),
        "incident-step" => {
            ("/v1/incidents/INC-1/steps".to_owned(), json!({ "step": { "prepare": { "note": "all there" } } }))
        }
        "incident-next" => ("/v1/incidents/INC-1/next".to_owned(), Value::Null),
        "incident-timeline" => ("/v1/incidents/INC-1/timeline".to_owned(), Value::Null),
        "file-statuses" => (format!("/v1/incidents/INC-1/files/{}/statuses", "5a".repeat(32)), Value::Null),
        "incident-devices" => ("/v1/incidents/INC-1/devices".to_owned(), Value::Null),
        "incident-history" => ("/v1/incidents/INC-1/devices/00DB1234567890A0".to_owned(), Value::Null),
        "file-submit" => ("/v1/incidents/INC-1/files".to_owned(), json!({ "kind": "adt", "octets": "AA==" })),
        "file-list" => ("/v1/incidents/INC-1/files".to_owned(), Value::Null),
        "person-activity" => ("/v1/people/aro-1/activity?from=3".to_owned(), Value::Null),
        "exercise-record" => {
            ("/v1/exercises".to_owned(), json!({ "at": "2026-11-24T10:00:00Z", "report": SHA256, "note": "yearly" }))
        }
        "upload-devices" => return ("/v1/uploads/devices".to_owned(), b"00DB1234567890A0,esme\n".to_vec()),
        "document-record" => ("/v1/documents".to_owned(), json!({ "document": "e30=", "signatures": ["AA=="] })),
        "determination-list" => ("/v1/determinations".to_owned(), Value::Null),
        "determination-show" => (format!("/v1/determinations/{ID}"), Value::Null),
        "policy-show" => ("/v1/policy".to_owned(), Value::Null),
        "procedure-explain" => ("/v1/procedure?at=2017-07-21&incident=INC-1".to_owned(), Value::Null),
        "key-activate" => ("/v1/keys/recovery/activate".to_owned(), json!({ "incident": "INC-1" })),
        "custodian-present" => {
            ("/v1/keys/recovery/presentations".to_owned(), json!({ "statement": "e30=", "signature": "MAA=" }))
        }
        "custodian-share" => (format!("/v1/keys/recovery/presentations/{ID}"), json!({ "sealed": "AAAA" })),
        "ceremony-record" => ("/v1/ceremony/records".to_owned(), json!({ "shares-dealt": { "key": "recovery" } })),
        "key-lock" => ("/v1/keys/recovery/lock".to_owned(), Value::Null),
        "key-symmetric-release" => {
            ("/v1/keys/contingency-1/symmetric-release".to_owned(), json!({ "request": ID, "determination": ID }))
        }
        "recovery-sign" => {
            ("/v1/recovery/sign".to_owned(), json!({ "request": ID, "determination": ID, "devices": "all" }))
        }
        "recovery-fetch" => (format!("/v1/recovery/requests/{ID}/commands?form=container"), json!({ "follow": false })),
        "recovery-request" => (format!("/v1/recovery/requests/{ID}"), Value::Null),
        "recovery-unknowns" => (format!("/v1/recovery/unknowns?determination={ID}"), Value::Null),
        "recovery-settle" => (
            "/v1/recovery/settle".to_owned(),
            json!({ "request": ID, "determination": ID, "devices": "all", "action": "retry", "reason": "r" }),
        ),
        "upload" => return ("/v1/uploads".to_owned(), b"DF09".to_vec()),
        "recovery-responses" => (
            "/v1/recovery/responses".to_owned(),
            json!({ "determination": ID, "responses": SHA256, "certificates": SHA256 }),
        ),
        "recovery-certificates" => ("/v1/recovery/certificates".to_owned(), json!({ "certificates": SHA256 })),
        "recovery-devices" => (format!("/v1/recovery/devices?determination={ID}&state=failed"), Value::Null),
        "recovery-resume" => ("/v1/recovery/resume".to_owned(), json!({ "determination": ID, "reason": "r" })),
        "job-start" => ("/v1/recovery/jobs".to_owned(), json!({ "request": ID, "determination": ID, "list": SHA256 })),
        "job-list" => ("/v1/recovery/jobs?from=7".to_owned(), Value::Null),
        "job-show" => (format!("/v1/recovery/jobs/{ID}"), Value::Null),
        "job-pause" => (format!("/v1/recovery/jobs/{ID}/pause"), json!({ "reason": "r" })),
        "job-resume" => (format!("/v1/recovery/jobs/{ID}/resume"), Value::Null),
        "job-cancel" => (format!("/v1/recovery/jobs/{ID}/cancel"), json!({ "reason": "r" })),
        "hsm-status" => ("/v1/hsm".to_owned(), Value::Null),
        "hsm-retry-login" => ("/v1/hsm/ledger/retry-login".to_owned(), Value::Null),
        "clock-accept" => ("/v1/clock/accept".to_owned(), json!({ "time": TIME, "reason": "r" })),
        "ledger-checkpoint" => ("/v1/ledger/checkpoint".to_owned(), Value::Null),
        "ledger-checkpoints" => ("/v1/ledger/checkpoints".to_owned(), Value::Null),
        "ledger-signatures" => ("/v1/ledger/signatures?from=0&until=2".to_owned(), Value::Null),
        "ledger-leaves" => ("/v1/ledger/leaves?from=0&until=2".to_owned(), Value::Null),
        "ledger-entries" => ("/v1/ledger/entries?kind=stopped".to_owned(), Value::Null),
        "ledger-proof" => ("/v1/ledger/proof/1".to_owned(), Value::Null),
        "ledger-blobs" => ("/v1/ledger/blobs".to_owned(), Value::Null),
        "ledger-blob" => (format!("/v1/ledger/blobs/{SHA256}"), Value::Null),
        other => panic!("the route {other} has no sample here: add one"),
    };
    (path, if body.is_null() { Vec::new() } else { body.to_string().into_bytes() })
}

fn kind_of(body: &[u8]) -> ProblemKind {
    let problem: smkid::api::failure::Problem =
        serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)));
    assert!(!problem.message.is_empty());
    problem.error
}

#[test]
fn every_route_lets_every_right_caller_through_and_every_wrong_one_not() {
    for role in [Role::Operator, Role::Auditor, Role::Account] {
        for route in routes::<FakeEngine>() {
            let daemon = Daemon::start(FakeEngine::new(), role);
            let (path, body) = sample(route.name);
            let (status, answer) = ask(&daemon.socket(), route.verb.as_str(), &path, &body);
            let shown = format!("{role} {} {path}: {status} {}", route.verb.as_str(), String::from_utf8_lossy(&answer));
            let names = daemon.engine.names();
            let expected: &[&str] = match (route.permission.covers(role), route.name, route.verb.changes()) {
                // The document is the same for all, and a stranger's reads leave nothing in the ledger.
                (true, "openapi", _) | (false, _, false) => &[],
                (true, name, _) => &[name],
                (false, _, true) => &["turned-away"],
            };
            assert_eq!(names, expected, "{shown}");
            if route.permission.covers(role) {
                assert_eq!(status, 200, "{shown}");
            } else {
                assert_eq!((status, kind_of(&answer)), (403, ProblemKind::Forbidden), "{shown}");
            }
        }
    }
}

#[test]
fn each_route_asks_for_its_permission_deliveries_for_none_reads_for_reading_and_changes_for_operating() {
    for route in routes::<FakeEngine>() {
        let expected = match (route.verb, route.name) {
            // What is the same for all, whether the daemon is there, and what only a signature makes count.
            (
                _,
                "openapi" | "status" | "file-submit" | "upload-devices" | "document-record" | "custodian-present"
                | "custodian-share",
            ) => Permission::Anyone,
            // What could be done with the daemon stopped, by the same accounts.
            (_, "ceremony-record") => Permission::Conducting,
            (Verb::Get, _) => Permission::Reading,
            (Verb::Post | Verb::Put, _) => Permission::Operating,
        };
        assert_eq!(route.permission, expected, "{}", route.name);
    }
    let covered =
        |permission: Permission| [Role::Operator, Role::Auditor, Role::Account].map(|role| permission.covers(role));
    assert_eq!(covered(Permission::Anyone), [true, true, true]);
    assert_eq!(covered(Permission::Reading), [true, true, false]);
    assert_eq!(covered(Permission::Operating), [true, false, false]);
}

#[test]
fn what_a_ceremony_did_is_taken_from_root_and_the_daemons_own_account_whatever_their_role() {
    use smkid::api::authenticate::{Conducting, Permitted};
    use smkid::api::engine::Caller;
    let own = rustix::process::geteuid().as_raw();
    for (uid, role, may) in [
        (0, Role::Account, true),
        (own, Role::Account, true),
        (own + 7, Role::Operator, false),
        (own + 7, Role::Ceremony, false),
    ] {
        let caller = Caller { account: "somebody".into(), uid, role };
        let admitted = Permitted::<Conducting, FakeEngine>::admit(FakeEngine::new(), caller);
        match admitted {
            Ok(_) => assert!(may, "{uid} {role}"),
            Err(failure) => {
                assert!(!may && failure.kind() == ProblemKind::Forbidden, "{uid} {role}: {failure}");
                assert!(failure.to_string().contains("sudo -u smkid"), "{failure}");
            }
        }
    }
}

#[test]
fn unknown_paths_and_wrong_methods_are_answered_in_json() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Operator);
    let check = |method: &str, path: &str, status: u16, kind: ProblemKind| {
        let (found, body) = ask(&daemon.socket(), method, path, b"");
        assert_eq!((found, kind_of(&body)), (status, kind), "{method} {path}");
    };
    check("GET", "/", 404, ProblemKind::NotFound);
    check("GET", "/v1", 404, ProblemKind::NotFound);
    check("GET", "/v1/status/", 404, ProblemKind::NotFound);
    check("GET", "/v2/status", 404, ProblemKind::NotFound);
    check("POST", "/v1/status", 405, ProblemKind::MethodNotAllowed);
    check("DELETE", "/v1/incidents/INC-1", 405, ProblemKind::MethodNotAllowed);
    check("PATCH", "/v1/recovery/sign", 405, ProblemKind::MethodNotAllowed);
    check("GET", "/v1/incidents/INC-2", 404, ProblemKind::NotFound);
    let (_, head, _) = ask_raw(
        &daemon.socket(),
        b"POST /v1/status HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    assert!(head.contains("\r\nallow: get"), "{head}");
}

#[test]
fn a_malformed_request_is_turned_away_and_recorded_with_its_digest() {
    let check = |method: &str, path: &str, body: &str, expected: &str| {
        let daemon = Daemon::start(FakeEngine::new(), Role::Operator);
        let (status, answer) = ask(&daemon.socket(), method, path, body.as_bytes());
        let text = String::from_utf8(answer.clone()).unwrap();
        assert_eq!((status, kind_of(&answer)), (400, ProblemKind::Malformed), "{path} {body}: {text}");
        assert!(text.contains(expected), "{path} {body}: {text}");
        let calls = daemon.engine.calls.lock().unwrap().clone();
        if method == "GET" {
            assert!(calls.is_empty(), "{calls:?}");
        } else {
            assert_eq!(calls.len(), 1, "{calls:?}");
            let query = if path.contains('?') { "" } else { "?" };
            // A body that nobody wanted is not read.
            let read = if path.contains("/keys/") { "" } else { body };
            let asked = digest(format!("{method} {path}{query}\n{read}").as_bytes());
            assert!(calls[0].about.ends_with(&format!("form {asked}")), "{calls:?}");
            assert!(text.contains("\"entry\":77"), "{text}");
        }
    };
    check("POST", "/v1/clock/accept", "", "EOF");
    check("POST", "/v1/clock/accept", "{", "line 1 column 1");
    check("POST", "/v1/clock/accept", "[]", "expected struct ClockAccept");
    check("POST", "/v1/clock/accept", "{\"reason\":7}", "expected a string");
    check("POST", "/v1/clock/accept", "{\"reason\":\"a\",\"force\":true}", "unknown field `force`");
    check("POST", "/v1/clock/accept", &format!("{{\"time\":\"{TIME}\",\"reason\":\"a\"}} {{}}"), "trailing");
    check("POST", "/v1/clock/accept", "{\"time\":\"now\",\"reason\":\"a\"}", "2017");
    check("POST", "/v1/incidents", "{\"incident\":\"inc\",\"certificate_pem\":\"\",\"description\":\"\"}", "A-Z, 0-9");
    check("POST", "/v1/documents", "{\"document\":\"e30\",\"signatures\":[]}", "not base64");
    check("POST", "/v1/keys/RECOVERY/lock", "", "path: key");
    check("POST", "/v1/keys/recovery/lock", "{}", "Send no body");
    check("POST", "/v1/recovery/sign", &json!({ "request": ID, "determination": ID }).to_string(), "neither");
    let both = json!({ "request": ID, "determination": ID, "devices": "all", "pre_commands": [] });
    check("POST", "/v1/recovery/sign", &both.to_string(), "both");
    check("POST", "/v1/incidents/INC-1/files", "{\"kind\":\"adt\"}", "neither");
    let both = json!({ "kind": "adt", "octets": "", "staged": SHA256 });
    check("POST", "/v1/incidents/INC-1/files", &both.to_string(), "both");
    check("POST", "/v1/incidents/INC-1/files", "{\"kind\":\"letter\",\"octets\":\"\"}", "letter");
    check("GET", "/v1/people/aro-1/activity?colour=red", "", "colour");
    let deep = "[".repeat(100_000);
    check("POST", "/v1/recovery/sign", &deep, "");
    check("GET", "/v1/ledger/leaves?from=0", "", "until");
    check("GET", "/v1/ledger/leaves?from=-1&until=1", "", "invalid");
    check("GET", "/v1/ledger/entries?colour=red", "", "colour");
    check("GET", "/v1/ledger/proof/99999999999999999999", "", "path: index");
    check("GET", "/v1/status", "{}", "Send no body");
}

#[test]
fn no_input_is_answered_with_a_fault_of_ours() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Operator);
    let odd = ["%00", "%ff", "%2e%2e", "..", "a%2fb", "%F0%9F%90%9D", "-", "0", "'", &"A".repeat(5_000)];
    for route in routes::<FakeEngine>() {
        for text in odd {
            let path: Vec<&str> =
                route.path.split('/').map(|part| if part.starts_with('{') { text } else { part }).collect();
            for query in ["", "?", "?=&=", "?from=%ff", "?sha256=x", "?from=0&from=1"] {
                let path = format!("{}{query}", path.join("/"));
                let (status, body) = ask(&daemon.socket(), route.verb.as_str(), &path, b"\xff{");
                assert!((200..500).contains(&status), "{} {path}: {status} {body:?}", route.verb.as_str());
                if !matches!(route.takes, Takes::Octets) {
                    assert_ne!(status, 200, "{path}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_http_is_answered_or_closed_and_hurts_nobody() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Operator);
    let check = |request: &[u8]| {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    };
    check(b"");
    check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    check(b"GET /v1/status\r\n\r\n");
    check(b"GET /v1/status HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello");
    check(&[b"GET /".as_slice(), &b"a".repeat(200_000), b" HTTP/1.1\r\n\r\n"].concat());
    check(&[b"GET /v1/status HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(1_000), b"\r\n"].concat());
    assert_eq!(ask(&daemon.socket(), "GET", "/v1/status", b"").0, 200);
}

#[test]
fn a_body_is_as_long_as_its_route_takes_and_no_longer() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Operator);
    let body = |len: u64| {
        let frame = json!({ "time": TIME, "reason": "" }).to_string().len();
        json!({ "time": TIME, "reason": "x".repeat(usize::try_from(len).unwrap() - frame) }).to_string().into_bytes()
    };
    assert_eq!(ask(&daemon.socket(), "POST", "/v1/clock/accept", &body(BODY_LEN_MAX)).0, 200);
    let (status, answer) = ask(&daemon.socket(), "POST", "/v1/clock/accept", &body(BODY_LEN_MAX + 1));
    assert_eq!((status, kind_of(&answer)), (413, ProblemKind::TooLarge));
    assert_eq!(daemon.engine.names(), ["clock-accept", "turned-away"]);
}

#[test]
fn an_upload_comes_whole_with_its_digest_and_within_its_limit() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Account);
    let put = |octets: &[u8], query: &str| {
        let (status, answer) = ask(&daemon.socket(), "PUT", &format!("/v1/uploads/devices{query}"), octets);
        (status, serde_json::from_slice::<Value>(&answer).unwrap())
    };
    let limit = usize::try_from(UPLOAD_LEN_MAX).unwrap();
    let octets = vec![7; limit];
    let (status, answer) = put(&octets, &format!("?sha256={}", digest(&octets)));
    assert_eq!((status, &answer["sha256"], &answer["len"]), (200, &json!(digest(&octets)), &json!(limit)));
    assert_eq!(daemon.engine.calls.lock().unwrap()[0].about, format!("{limit} true"));
    assert_eq!(put(&vec![7; limit + 1], "").0, 413);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn sign_all() -> wire::RecoverySign {
    wire::RecoverySign {
        request: ID.parse().unwrap(),
        determination: ID.parse().unwrap(),
        devices: Some(wire::Devices::All),
        pre_commands: None,
    }
}

/// The number of items, and how the stream ended.
fn taken(daemon: &Daemon) -> (u64, Result<Option<wire::Summary>, ClientError>) {
    runtime().block_on(async {
        let client = Client::new(&daemon.socket());
        let mut lines = match client.post_for_lines("/v1/recovery/sign", &sign_all()).await {
            Ok(lines) => lines,
            Err(error) => return (0, Err(error)),
        };
        let mut count = 0;
        loop {
            match lines.next().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => return (count, Ok(lines.summary())),
                Err(error) => return (count, Err(error)),
            }
        }
    })
}

#[test]
fn a_stream_of_commands_ends_with_its_summary() {
    let daemon = Daemon::start(FakeEngine::new().signing(|signing| signing.devices = 1_000), Role::Operator);
    let (count, ended) = taken(&daemon);
    assert_eq!((count, ended.unwrap().unwrap().signed), (1_000, 1_000));
}

#[test]
fn a_stream_that_is_cut_is_recognised_however_it_is_cut() {
    for end in [StreamEnd::Silent, StreamEnd::Failing] {
        let daemon = Daemon::start(FakeEngine::new().signing(|signing| signing.end = end), Role::Operator);
        let (count, ended) = taken(&daemon);
        let error = ended.expect_err("it has no summary");
        assert!(matches!(error, ClientError::Cut { lines } if lines == count), "{end:?}: {error}");
        assert_eq!(error.exit(), Exit::Partly);
    }
}

#[test]
fn a_caller_that_does_not_read_holds_the_engine_back() {
    let devices = 5_000;
    let engine = FakeEngine::new().signing(|signing| {
        signing.devices = devices;
        signing.command_len = 4_000;
    });
    let daemon = Daemon::start(engine, Role::Operator);
    runtime().block_on(async {
        let client = Client::new(&daemon.socket());
        let mut lines = client.post_for_lines("/v1/recovery/sign", &sign_all()).await.unwrap();
        lines.next().await.unwrap().unwrap();
        // Until it stands still, and does so for a while. 27 MB do not fit into socket buffers of some 200 kB.
        let handed = || *daemon.engine.pieces.lock().unwrap();
        let (mut held, mut still) = (handed(), 0);
        while still < STILL_READINGS {
            tokio::time::sleep(Duration::from_millis(50)).await;
            still = if handed() == held { still + 1 } else { 0 };
            held = handed();
            if held == devices {
                break;
            }
        }
        assert!(held < devices / 2, "{held} of {devices} commands were handed over to somebody who does not read");
        while lines.next().await.unwrap().is_some() {}
        assert_eq!(lines.summary().unwrap().signed, devices);
    });
}

#[test]
fn an_engine_whose_caller_went_away_is_told() {
    let engine = FakeEngine::new().signing(|signing| {
        signing.devices = 100_000;
        signing.command_len = 4_000;
    });
    let daemon = Daemon::start(engine, Role::Operator);
    runtime().block_on(async {
        let client = Client::new(&daemon.socket());
        let mut lines = client.post_for_lines("/v1/recovery/sign", &sign_all()).await.unwrap();
        lines.next().await.unwrap().unwrap();
    });
    // The client is gone, and with it its connection.
    runtime().block_on(async {
        let mut told = daemon.engine.told.subscribe();
        let told = tokio::time::timeout(PATIENCE, told.wait_for(|told| *told)).await;
        assert!(told.is_ok(), "after {PATIENCE:?} the engine still hands over");
    });
    assert!(*daemon.engine.pieces.lock().unwrap() < 100_000);
}

#[test]
fn each_failure_of_the_engine_arrives_as_it_is() {
    let check = |failure: Failure| {
        let kind = failure.kind();
        let daemon = Daemon::start(FakeEngine::new().failing("recovery-sign", failure.clone()), Role::Operator);
        match taken(&daemon).1 {
            Err(ClientError::Problem(problem)) => {
                assert_eq!(problem, failure.problem());
                assert_eq!(ClientError::Problem(problem).exit(), kind.exit());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(daemon.engine.names(), ["recovery-sign"], "what the engine refused is not turned away again");
    };
    check(Failure::NotFound { what: "determination".to_owned() });
    check(Failure::Refused { reasons: vec![reason("window", "over"), reason("scope", "out")], entry: Some(4) });
    check(Failure::TooMany { what: "too many".to_owned(), retry_after_s: 7 });
    check(Failure::Unavailable { why: "the key is locked".to_owned(), remedy: "Activate it".to_owned() });
    check(Failure::Stopped { why: "the disk is full".to_owned() });
    check(Failure::Internal { what: "a bug".to_owned() });
}

#[test]
fn a_refusal_that_cannot_be_recorded_is_not_answered_as_one() {
    let stopped = Failure::Stopped { why: "the disk is full".to_owned() };
    let daemon = Daemon::start(FakeEngine::new().failing("turned-away", stopped), Role::Account);
    let (status, answer) = ask(&daemon.socket(), "POST", "/v1/clock/accept", b"{}");
    assert_eq!((status, kind_of(&answer)), (503, ProblemKind::Stopped));
}

#[test]
fn octets_that_are_cut_break_the_connection() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Auditor);
    let read = |path: String| {
        runtime().block_on(async {
            let mut pieces = Client::new(&daemon.socket()).octets(&path).await?;
            while pieces.next().await?.is_some() {}
            Ok::<(), ClientError>(())
        })
    };
    read(format!("/v1/ledger/blobs/{SHA256}")).unwrap();
    let cut = matches!(read(format!("/v1/ledger/blobs/{CUT_SHA256}")), Err(ClientError::Broken { .. }));
    assert!(cut, "a document that was cut was taken for whole");
}

#[test]
fn octets_arrive_as_they_are() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Auditor);
    assert_eq!(ask(&daemon.socket(), "GET", "/v1/ledger/leaves?from=0&until=2", b"").1, b"\x00\x02{}\x00\x03[7]");
    assert_eq!(ask(&daemon.socket(), "GET", &format!("/v1/ledger/blobs/{SHA256}"), b"").1, b"document");
}

#[test]
fn one_account_cannot_take_every_connection() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Account);
    let mut held = Vec::new();
    for _ in 0..listener::CONNECTIONS_PER_ACCOUNT_MAX {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let runtime = runtime();
    let status = || runtime.block_on(Client::new(&daemon.socket()).get::<wire::Status>("/v1/status"));
    assert!(status().is_err(), "the account has all of its connections already");
    held.pop();
    // Given back once the daemon has seen the end of it.
    let is_free = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        status().is_ok()
    });
    assert!(is_free);
}

#[test]
fn the_socket_is_gone_once_the_listener_has_ended() {
    let mut daemon = Daemon::start(FakeEngine::new(), Role::Operator);
    assert!(daemon.socket().exists());
    daemon.stop();
    assert!(!daemon.socket().exists());
    let error = runtime().block_on(Client::new(&daemon.socket()).get::<wire::Status>("/v1/status")).unwrap_err();
    assert_eq!(error.exit(), Exit::Unreachable);
}

#[test]
fn a_query_is_written_so_that_it_is_read_back() {
    let path = with_query(
        "/v1/ledger/entries",
        &[("kind", Some("a&b=ü %".to_owned())), ("from", None), ("until", Some("3".to_owned()))],
    );
    assert_eq!(path, "/v1/ledger/entries?kind=a%26b%3D%C3%BC%20%25&until=3");
    let daemon = Daemon::start(FakeEngine::new(), Role::Auditor);
    assert_eq!(ask(&daemon.socket(), "GET", &path, b"").0, 200);
    assert_eq!(daemon.engine.calls.lock().unwrap()[0].about, "None Some(3) Some(\"a&b=ü %\")");
}

#[test]
fn the_committed_openapi_document_is_the_one_of_the_route_table() {
    let made = openapi::document::<FakeEngine>();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/openapi.json");
    if std::env::var_os("SMKID_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &made).unwrap();
        return;
    }
    assert!(
        made == openapi::DOCUMENT,
        "src/api/openapi.json is not what the routes say. Run this test with SMKID_WRITE_OPENAPI=1 and read the difference"
    );
}

#[test]
fn every_reference_in_the_openapi_document_leads_somewhere() {
    let document: Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut count = 0;
    let mut rest = vec![&document];
    while let Some(value) = rest.pop() {
        if let Some(reference) = value["$ref"].as_str() {
            count += 1;
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        match value {
            Value::Object(map) => rest.extend(map.values()),
            Value::Array(list) => rest.extend(list),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    assert!(count > 30, "{count} references");
    let served = Daemon::start(FakeEngine::new(), Role::Account);
    let (status, body) = ask(&served.socket(), "GET", "/v1/openapi.json", b"");
    assert_eq!((status, &*body), (200, openapi::DOCUMENT.as_bytes()));
}

mod life {
    //! [`smkid::service::run`] from start to end.

    use std::future::{pending, ready};
    use std::sync::Arc;

    use smkid::service::configuration::Configuration;
    use smkid::service::{End, StartError, run};

    use super::*;

    fn configuration(folder: &tempfile::TempDir) -> Configuration {
        let text = format!(
            "version = 1\nsocket = \"{}/s\"\n[[token]]\nname = \"l\"\nmodule = \"/m\"\nlabel = \"l\"\nserial = \"1\"\n\
             [ledger]\ntoken = \"l\"\n",
            folder.path().display()
        );
        let mut configuration = Configuration::parse(&text).unwrap();
        configuration.roles = roles_for(Role::Operator);
        configuration
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_stops_in_order_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let engine = FakeEngine::new();
        let made = Arc::clone(&engine);
        let socket = folder.path().join("s");
        let client = Client::new(&socket);
        let asked = async {
            // Asked to stop once it has answered.
            while client.get::<wire::Status>("/v1/status").await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            "SIGTERM"
        };
        assert_eq!(run(configuration(&folder), |_| ready(Ok(made)), asked).await, End::Stopped);
        let calls = engine.calls.lock().unwrap().clone();
        assert_eq!((calls.last().unwrap().name, &*calls.last().unwrap().about), ("stop", "SIGTERM"));
        assert!(!socket.exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_ends_with_a_status_of_its_own_once_it_cannot_record() {
        let folder = tempfile::tempdir().unwrap();
        let engine = FakeEngine::new();
        engine.broken.send_replace(true);
        let end = run(configuration(&folder), |_| ready(Ok(engine)), pending()).await;
        assert_eq!((end, end.status()), (End::CannotRecord, 74));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_does_not_start_on_what_forbids_it() {
        let folder = tempfile::tempdir().unwrap();
        let absent = StartError::Refused { why: "there is no ledger".to_owned(), remedy: "Hold a ceremony".to_owned() };
        let end = run::<FakeEngine, _, _>(configuration(&folder), |_| ready(Err(absent)), pending()).await;
        assert_eq!((end, end.status()), (End::RefusedToStart, 70));
        assert!(!folder.path().join("s").exists(), "it listened before it knew");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_does_not_take_the_socket_of_another_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let _other = smkid::api::listener::Listener::bind(&folder.path().join("s"), None).unwrap();
        let engine = FakeEngine::new();
        let made = Arc::clone(&engine);
        assert_eq!(run(configuration(&folder), |_| ready(Ok(made)), pending()).await, End::RefusedToStart);
        assert_eq!(engine.names(), ["stop"], "the engine it had made is stopped");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_can_be_stopped_while_it_starts() {
        let folder = tempfile::tempdir().unwrap();
        let never = |_| pending::<Result<Arc<FakeEngine>, StartError>>();
        assert_eq!(run(configuration(&folder), never, ready("SIGTERM")).await, End::Stopped);
    }
}
