//! What a vendor's module can do to its process, and that it ends there: the daemon, its descriptors and the next worker have nothing
//! of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use secrecy::SecretString;
use smkid::domain::names::{KeyId, KeyUse};
use smkid::domain::time::Timestamp;
use smkid::exercise::programs::signal;
use smkid::hsm::family::children_of;
use smkid::hsm::{Condition, Expectations, ExpectedKey, HsmError, Kind, Outcome, ToSign, Token, TokenConfig};

use crate::support::site::{Site, Which, ask_for, lines_and_stop};
use crate::support::token::{PIN, TestToken, eventually};

const TEXT: &[u8] = b"smki.example/ledger\n42\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
/// The deadline of a call in these tests.
const DEADLINE: Duration = Duration::from_millis(800);
/// How much longer until the call is contained.
const BEYOND: Duration = Duration::from_secs(1);

fn made() -> (TestToken, Expectations) {
    let hsm = TestToken::new("smki-test");
    let (token, _) = Token::start(hsm.config(1), SecretString::from(PIN), Expectations::default()).unwrap();
    let key = token.generate_key("ledger".parse().unwrap(), KeyId([2; 16]), KeyUse::Ledger).wait().unwrap();
    token.shutdown();
    let key = ExpectedKey {
        label: key.label,
        id: key.id,
        use_: key.use_,
        spki: Some(key.spki),
        cloned: false,
        material: None,
    };
    let origin = Some("smki.example/ledger".parse().unwrap());
    (hsm, Expectations { keys: vec![key], genesis: None, origin })
}

fn start(config: TokenConfig, expectations: &Expectations) -> Token {
    Token::start(config, SecretString::from(PIN), expectations.clone()).unwrap().0
}

fn quick(config: TokenConfig) -> TokenConfig {
    TokenConfig { call_deadline: DEADLINE, ..config }
}

fn sign(token: &Token, count: u64) -> Vec<Outcome> {
    let items = (0..count).map(|n| ToSign::new(n, Kind::Checkpoint, TEXT.to_vec())).collect();
    let mut results = token.sign(&"ledger".parse().unwrap(), items, Timestamp::MAX).unwrap().wait_all();
    results.sort_by_key(|result| result.tag);
    results.into_iter().map(|result| result.outcome).collect()
}

/// Whether a process runs: a dead one that nobody has buried has no memory.
fn runs(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

fn worker(token: &Token) -> Pid {
    Pid::from_raw(token.worker_pid().unwrap().cast_signed()).unwrap()
}

#[test]
fn a_call_that_hangs_in_any_function_is_contained_within_its_deadline_and_a_second() {
    // Each waits for deadlines most of the time: at once, each with a token of its own.
    std::thread::scope(|scope| {
        for action in ["hang", "stop", "spin"] {
            scope.spawn(move || is_contained(action));
        }
    });
}

fn is_contained(action: &str) {
    let (hsm, expectations) = made();
    for function in ["C_Initialize", "C_GetSlotList", "C_OpenSession", "C_Login", "C_FindObjectsInit"] {
        let token = Token::new(
            quick(hsm.failing(1, &format!("{function} 1 {action}"))),
            SecretString::from(PIN),
            expectations.clone(),
        );
        let began = Instant::now();
        let error = token.restart().unwrap_err();
        let took = began.elapsed();
        assert!(matches!(error, HsmError::Overrun { .. }), "{function} {action}: {error}");
        assert!(took < DEADLINE + BEYOND, "{function} {action}: contained after {took:?}");
        assert!(action == "stop" || error.to_string().contains(function.trim_end_matches("Init")), "{error}");
        token.restart().unwrap_or_else(|error| panic!("{function} {action}: {error}"));
    }
    for function in ["C_SignInit", "C_Sign"] {
        let token = start(quick(hsm.failing(1, &format!("{function} 2 {action}"))), &expectations);
        let began = Instant::now();
        let outcomes = sign(&token, 3);
        let took = began.elapsed();
        assert!(took < DEADLINE + BEYOND, "{function} {action}: contained after {took:?}");
        assert!(matches!(outcomes[0], Outcome::Signed(_)), "{function} {action}: {outcomes:?}");
        assert!(matches!(outcomes[1], Outcome::Unknown(HsmError::Overrun { .. })), "{function}: {outcomes:?}");
        assert!(matches!(outcomes[2], Outcome::NotSigned(_)), "{function}: {outcomes:?}");
    }
}

#[test]
fn what_was_signed_before_a_crash_is_not_lost_by_it_and_what_was_not_begun_is_not_unknown() {
    let (hsm, expectations) = made();
    for action in ["kill", "abort", "segfault", "exit 1"] {
        let token = start(quick(hsm.failing(1, &format!("C_Sign 12 {action}"))), &expectations);
        let outcomes = sign(&token, 20);
        let found: Vec<_> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Signed(_) => 's',
                Outcome::Unknown(_) => 'u',
                Outcome::NotSigned(_) => 'n',
                Outcome::Failed(_) => 'f',
            })
            .collect();
        assert_eq!(found.iter().collect::<String>(), "sssssssssssunnnnnnnn", "{action}: {outcomes:?}");
    }
}

#[test]
fn a_signature_that_comes_after_its_deadline_is_dropped_and_unknown() {
    let (hsm, expectations) = made();
    // The token has signed; whether the worker is killed first or gives it up itself.
    for late in ["850ms", "950ms", "1100ms"] {
        let token = start(quick(hsm.failing(1, &format!("C_Sign 2 delay-after {late}"))), &expectations);
        let outcomes = sign(&token, 3);
        assert!(matches!(outcomes[0], Outcome::Signed(_)));
        assert!(matches!(outcomes[1], Outcome::Unknown(HsmError::Overrun { .. })), "{late}: {outcomes:?}");
        eventually("its worker is replaced", || matches!(token.condition(), Condition::Down(_)));
    }
    let token = start(quick(hsm.failing(1, "C_Sign 2 delay-after 300ms")), &expectations);
    assert!(sign(&token, 3).iter().all(|outcome| matches!(outcome, Outcome::Signed(_))), "in time is in time");
}

#[test]
fn a_module_that_takes_or_ignores_every_signal_is_ended_all_the_same() {
    let (hsm, expectations) = made();
    for action in ["handle", "deaf"] {
        let script = format!("C_Initialize 1 {action}\nC_Sign 2 hang");
        let token = start(quick(hsm.failing(1, &script)), &expectations);
        let pid = worker(&token);
        signal(pid, rustix::process::Signal::TERM).unwrap();
        assert!(matches!(sign(&token, 1)[0], Outcome::Signed(_)), "{action}");
        let began = Instant::now();
        assert!(matches!(sign(&token, 1)[0], Outcome::Unknown(_)), "{action}");
        assert!(began.elapsed() < DEADLINE + BEYOND);
        assert!(!runs(pid), "{action}");
    }
}

#[test]
fn what_a_module_starts_ends_with_its_worker_however_that_ends() {
    type End = fn(&Token);
    let (hsm, expectations) = made();
    let ends: [(&str, End); 3] = [
        ("C_Sign 0 stop", |token| token.shutdown()),
        ("C_Sign 1 hang", |token| assert!(matches!(sign(token, 1)[0], Outcome::Unknown(_)))),
        ("C_Sign 1 kill", |token| assert!(matches!(sign(token, 1)[0], Outcome::Unknown(_)))),
    ];
    for (fault, end) in ends {
        let token = start(quick(hsm.failing(1, &format!("C_Login 1 fork 60s\n{fault}"))), &expectations);
        let children = children_of(worker(&token));
        assert_eq!(children.len(), 1, "{fault}");
        end(&token);
        eventually("the child is gone", || !runs(children[0]));
        // And nobody waits for what the child held: the worker's end was seen at once.
        assert!(token.condition() != Condition::Up, "{fault}");
    }
}

#[tokio::test]
async fn the_daemon_ends_what_a_crashed_worker_leaves_behind() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Login 1 fork 60s\nC_Sign 3 kill"));
    let daemon = site.start_active().await;
    let children: Vec<Pid> = daemon.workers().into_iter().flat_map(children_of).collect();
    assert_eq!(children.len(), 1);
    lines_and_stop(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..8)).await.unwrap();
    let began = Instant::now();
    while runs(children[0]) {
        assert!(began.elapsed() < Duration::from_secs(10), "the child of the dead worker runs on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(daemon.workers().len(), 2, "both workers live");
    assert!(daemon.stop().await.unwrap().success());
}

/// What the open descriptors of a process are. Daemon and workers are not dumpable: only root may look, and others see nothing of
/// this test.
fn descriptors(pid: Pid) -> Option<BTreeSet<PathBuf>> {
    match fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) {
        Ok(open) => Some(open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            None
        }
    }
}

#[tokio::test]
async fn a_worker_inherits_no_descriptor_of_the_daemon_or_of_another_worker_and_leaves_none() {
    let site = Site::determined().await;
    site.fault(Which::Recovery, Some("C_Initialize * leak 5\nC_Sign 3 kill"));
    let daemon = site.start_active().await;
    let Some(of_daemon) = descriptors(daemon.pid()) else { return };
    let is_the_states = |path: &Path| path.starts_with(site.state());
    assert!(of_daemon.iter().any(|path| is_the_states(path)), "the daemon has its ledger open");
    let of_test = descriptors(rustix::process::getpid()).unwrap();
    let workers = daemon.workers();
    assert_eq!(workers.len(), 2);
    for pid in &workers {
        let open = descriptors(*pid).unwrap();
        assert!(!open.iter().any(|path| is_the_states(path)), "{open:?}");
        // Its end of the socket, the mark, the pipe of its words; the rest is the module's.
        let sockets = open.iter().filter(|path| path.to_string_lossy().starts_with("socket:"));
        assert_eq!(sockets.count(), 1, "{open:?}");
        for other in workers.iter().filter(|other| *other != pid) {
            let shared: Vec<_> = open.intersection(&descriptors(*other).unwrap()).cloned().collect();
            // What whoever started this test left open for everybody is not ours.
            let ours = |path: &&PathBuf| {
                ["socket:", "pipe:"].iter().any(|kind| path.to_string_lossy().starts_with(kind))
                    && !of_test.contains(*path)
            };
            assert!(!shared.iter().any(|path| ours(&path)), "{shared:?}");
        }
    }
    let count = || fs::read_dir(format!("/proc/{}/fd", daemon.pid().as_raw_nonzero())).unwrap().count();
    let before = count();
    for _ in 0..3 {
        lines_and_stop(&daemon.client, "/v1/recovery/sign", &ask_for(site.main(), 0..8)).await.unwrap();
    }
    let began = Instant::now();
    while daemon.workers().len() != 2 || count() > before {
        assert!(began.elapsed() < Duration::from_secs(10), "{} descriptors, {before} before", count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(daemon.stop().await.unwrap().success());
}

#[test]
fn a_module_that_floods_its_output_does_no_harm_and_is_not_kept_in_full() {
    let (hsm, expectations) = made();
    let token = start(quick(hsm.failing(1, "C_Sign * print 100000\nC_Sign * complain 100000")), &expectations);
    assert!(sign(&token, 20).iter().all(|outcome| matches!(outcome, Outcome::Signed(_))));
}

#[test]
fn calls_that_wait_are_bounded() {
    let (hsm, expectations) = made();
    let token = start(hsm.failing(1, "C_FindObjectsInit 4- delay 50ms"), &expectations);
    let calls: Vec<_> = (0..200).map(|_| token.read_data("smkid-head")).collect();
    let results: Vec<_> = calls.into_iter().map(smkid::hsm::handle::Reply::wait).collect();
    let refused = results.iter().filter(|result| matches!(result, Err(HsmError::QueueFull { .. }))).count();
    let answered = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(refused + answered, 200, "{:?}", results.iter().find(|result| result.is_err()));
    assert!(refused > 0 && answered >= smkid::hsm::CALLS_MAX, "{refused} refused");
}
