//! The worker, over a real SoftHSM token and the real binary; with other modules in `hsm/modules.rs`.

mod contingency;
mod faults;
mod modules;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use smkid::domain::gbcs::{
    CommandPayload, CpvChecks, Cra, CredentialsReplacementMode, Header, Payload, PlaintextSymmetricKey, Replacement,
    SeqNumber, TrustAnchorCell, Update, encode_unsigned,
};
use smkid::domain::names::{Digest, Eui64, KeyId, KeyLabel, KeyUse};
use smkid::domain::time::Timestamp;
use smkid::hsm::{
    Certainty, Class, Condition, Expectations, ExpectedKey, HsmError, KeyReport, Kind, NotSigned, Outcome, PublicPoint,
    SignResult, ToSign, Token, TokenConfig,
};

use crate::support::token::{MODULE, Make, PIN, TestToken, eventually};

const GENESIS: Digest = Digest([0x47; 32]);

/// A token after its ceremony: a recovery and a ledger key, and genesis.
struct Made {
    hsm: TestToken,
    recovery: KeyReport,
    ledger: KeyReport,
}

fn label(text: &str) -> KeyLabel {
    text.parse().unwrap()
}

fn pin() -> SecretString {
    SecretString::from(PIN)
}

fn made() -> Made {
    Made::of(Make::SoftHsm)
}

impl Made {
    fn of(make: Make) -> Self {
        let hsm = TestToken::of(make, "smki-test");
        let (token, report) = Token::start(hsm.config(1), pin(), Expectations::default()).unwrap();
        assert_eq!((report.label.as_str(), report.genesis), ("smki-test", None));
        let recovery = token.generate_key(label("recovery"), KeyId([1; 16]), KeyUse::Recovery).wait().unwrap();
        let ledger = token.generate_key(label("ledger"), KeyId([2; 16]), KeyUse::Ledger).wait().unwrap();
        token.write_genesis(GENESIS).wait().unwrap();
        token.shutdown();
        Self { hsm, recovery, ledger }
    }

    fn expectations(&self) -> Expectations {
        let expected = |key: &KeyReport| ExpectedKey {
            label: key.label.clone(),
            id: key.id,
            use_: key.use_,
            spki: Some(key.spki.clone()),
            cloned: false,
            material: None,
        };
        Expectations {
            keys: vec![expected(&self.recovery), expected(&self.ledger)],
            genesis: Some(GENESIS),
            origin: Some("smki.example/ledger".parse().unwrap()),
        }
    }

    fn start(&self, config: TokenConfig) -> Token {
        Token::start(config, pin(), self.expectations()).unwrap().0
    }
}

fn refused(config: TokenConfig, expectations: Expectations) -> HsmError {
    Token::start(config, pin(), expectations).map(|_| ()).unwrap_err()
}

/// The signed range of a command of this mode, as long as a real one of eight replacements (GBCS 13.3).
fn command(mode: u8, device: u64) -> Vec<u8> {
    let mode = match mode {
        8 => CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery,
        9 => CredentialsReplacementMode::AnyByContingency,
        other => panic!("mode {other}"),
    };
    // Of a certificate only the outer framing is read.
    let certificate = [&[0x30, 0x82, 0x01, 0xa0][..], &[0x5a; 0x1a0]].concat();
    let cell = TrustAnchorCell::RECOVERY;
    let counter = 7000;
    let header = Header {
        cra: Cra::Command,
        counter,
        originator: Eui64([0x90, 0xb3, 0xd5, 0x1f, 0x30, 0, 0, 1]),
        recipient: Eui64(device.to_be_bytes()),
        date_time: None,
        code: mode.message_code(),
    };
    let payload = CommandPayload {
        update: Update {
            mode,
            cpv_checks: CpvChecks::Disapply,
            authorising_cell: Some(cell),
            new_floor: None,
            new_specialist_floors: None,
            other_changes: None,
            replacements: vec![Replacement { certificate: &certificate, cell }; 8],
            path_certificates: Vec::new(),
            execution: None,
        },
        seq_number: SeqNumber::new(counter).unwrap(),
        plaintext_symmetric_key: (mode == CredentialsReplacementMode::AnyByContingency)
            .then(|| PlaintextSymmetricKey::new(&[0xee; 32]).unwrap()),
    };
    let mut octets = Vec::new();
    encode_unsigned(&header, &Payload::Command(payload), &mut octets).unwrap();
    octets.split_off(1)
}

const CHECKPOINT: &[u8] = b"smki.example/ledger\n42\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

fn commands(count: u64) -> Vec<ToSign> {
    (0..count).map(|n| ToSign::new(n, Kind::Command, command(8, n))).collect()
}

fn sign(token: &Token, key: &str, items: Vec<ToSign>) -> Vec<SignResult> {
    token.sign(&label(key), items, Timestamp::MAX).unwrap().wait_all()
}

fn sign_one(token: &Token, key: &str, kind: Kind, octets: &[u8]) -> Outcome {
    let mut results = sign(token, key, vec![ToSign::new(7, kind, octets.to_vec())]);
    assert_eq!(results.len(), 1, "one outcome for one item");
    assert_eq!(results[0].tag, 7);
    results.remove(0).outcome
}

/// How many of each: signed, failed, not signed, unknown. Each tag of `0..count` has exactly one.
#[track_caller]
fn tally(results: &[SignResult], count: u64) -> [usize; 4] {
    let tags: BTreeSet<_> = results.iter().map(|result| result.tag).collect();
    assert_eq!(results.len(), tags.len(), "a tag has two outcomes");
    assert_eq!(tags, (0..count).collect(), "a tag has none");
    let mut tally = [0; 4];
    for result in results {
        tally[match result.outcome {
            Outcome::Signed(_) => 0,
            Outcome::Failed(_) => 1,
            Outcome::NotSigned(_) => 2,
            Outcome::Unknown(_) => 3,
        }] += 1;
    }
    tally
}

/// r, s as the DER that openssl reads.
fn to_der(signature: &[u8; 64]) -> Vec<u8> {
    let integer = |octets: &[u8]| {
        let octets = &octets[octets.iter().take_while(|octet| **octet == 0).count()..];
        let mut der = vec![0x02, 0];
        if octets[0] >= 0x80 {
            der.push(0);
        }
        der.extend(octets);
        der[1] = u8::try_from(der.len() - 2).unwrap();
        der
    };
    let body = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat()
}

fn openssl_verifies(dir: &std::path::Path, spki: &[u8], octets: &[u8], signature: &[u8; 64]) -> bool {
    fs::write(dir.join("spki.der"), spki).unwrap();
    fs::write(dir.join("octets"), octets).unwrap();
    fs::write(dir.join("signature"), to_der(signature)).unwrap();
    Command::new("openssl")
        .args(["dgst", "-sha256", "-keyform", "DER", "-verify", "spki.der", "-signature", "signature", "octets"])
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[test]
fn signs_on_while_awaited_in_an_async_task() {
    let made = made();
    let token = made.start(made.hsm.config(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let results = runtime.block_on(async {
        let mut results = token.sign(&label("recovery"), commands(100), Timestamp::MAX).unwrap();
        let mut all = Vec::new();
        while let Some(result) = results.next().await {
            all.push(result);
        }
        assert_eq!(token.list_keys().get().await.unwrap().len(), 2);
        all
    });
    assert_eq!(tally(&results, 100), [100, 0, 0, 0]);
}

/// Signers read the pipe in turns, and hand the turn on with what they read: were nobody woken where nobody reads, the next frame would
/// stay unread.
#[test]
fn whatever_comes_alone_or_together_is_signed_on_any_number_of_sessions() {
    let made = made();
    for sessions in 1..=3 {
        let token = made.start(made.hsm.config(sessions));
        let (done, all_done) = mpsc::channel();
        for asker in 0..3 {
            let (token, done) = (token.clone(), done.clone());
            thread::spawn(move || {
                for n in 0..60 {
                    // One alone mostly, as many as there are sessions, or more; now and then nothing for a while.
                    let count = [1, 1, 2, 1, 3, 1, 7][(n + asker) % 7];
                    let results = sign(&token, "recovery", commands(count));
                    assert_eq!(tally(&results, count)[1..], [0, 0, 0]);
                    if n % 16 == 0 {
                        thread::sleep(Duration::from_millis(5));
                        // A frame with nothing to sign; whoever read it hands on all the same.
                        assert_eq!(token.list_keys().wait().unwrap().len(), 2);
                    }
                }
                done.send(()).unwrap();
            });
        }
        drop(done);
        for _ in 0..3 {
            let ended = all_done.recv_timeout(Duration::from_secs(60));
            assert!(ended.is_ok(), "with {sessions} sessions: something was not signed, or never answered");
        }
    }
}

/// With each session on a command that came alone, nobody who signs is free to read. A fence that had to wait for a signature would not
/// find it in flight.
#[test]
fn a_fence_is_answered_while_every_session_signs_a_command_that_came_alone() {
    let made = made();
    for sessions in 1..=2 {
        let token = made.start(made.hsm.failing(sessions, "C_Sign 0 stop"));
        let alone = |tag| {
            let item = ToSign::new(tag, Kind::Command, command(8, tag));
            token.sign(&label("recovery"), vec![item], Timestamp::MAX).unwrap()
        };
        // Whoever read at the start, signers have taken over where there are several.
        for n in 0..8 {
            assert_eq!(tally(&alone(0).wait_all(), 1)[0], 1, "{n}");
        }
        let before = made.hsm.calls("C_Sign");
        made.hsm.fail_otherwise("C_Sign * delay 2s");
        let tags: BTreeSet<u64> = (0..u64::from(sessions)).collect();
        let asked: Vec<_> = tags.iter().map(|tag| alone(*tag)).collect();
        eventually("all sessions sign", || made.hsm.calls("C_Sign") - before == u64::from(sessions));
        let stopped = alone(9);
        let ack = token.fence().wait().unwrap();
        assert_eq!(ack.in_flight.into_iter().collect::<BTreeSet<_>>(), tags, "{sessions} sessions");
        assert_eq!(stopped.wait_all()[0].outcome, Outcome::NotSigned(NotSigned::Fenced));
        for results in asked {
            assert!(matches!(results.wait_all()[0].outcome, Outcome::Signed(_)));
        }
    }
}

#[test]
fn a_call_that_overruns_is_contained_and_its_item_unknown() {
    let made = made();
    for action in ["stop", "hang", "delay 60000ms"] {
        let mut config = made.hsm.failing(1, &format!("C_Sign 3 {action}"));
        config.call_deadline = Duration::from_secs(1);
        let token = made.start(config);
        let began = Instant::now();
        let results = sign(&token, "recovery", commands(300));
        let took = began.elapsed();
        let [signed, failed, not_signed, unknown] = tally(&results, 300);
        assert!(took < Duration::from_secs(4), "{action}: contained after {took:?}");
        assert_eq!((failed, signed + unknown, not_signed), (0, 3, 297), "{action}");
        assert!(results.iter().any(|r| r.tag == 2 && matches!(r.outcome, Outcome::Unknown(HsmError::Overrun { .. }))));
        eventually("down", || matches!(token.condition(), Condition::Down(HsmError::Overrun { .. })));
        assert!(
            matches!(token.sign(&label("recovery"), commands(1), Timestamp::MAX), Err(e) if e.certainty() == Certainty::NothingSigned)
        );
        token.restart().unwrap();
        assert_eq!(tally(&sign(&token, "recovery", commands(300)), 300), [300, 0, 0, 0], "{action}: after the restart");
    }
}

#[test]
fn a_worker_killed_at_the_nth_signature_leaves_unknown_what_it_may_have_submitted_and_nothing_else() {
    let made = made();
    for (nth, sessions, action) in
        [(1, 1, "kill"), (5, 1, "kill"), (40, 1, "kill-after"), (40, 2, "kill"), (7, 1, "abort")]
    {
        let token = made.start(made.hsm.failing(sessions, &format!("C_Sign {nth} {action}")));
        let results = sign(&token, "recovery", commands(600));
        let [signed, failed, not_signed, unknown] = tally(&results, 600);
        let submitted = signed + unknown;
        // The other of two sessions goes on until the process is gone, and may be on its way to C_Sign then.
        let called = usize::try_from(made.hsm.calls("C_Sign")).unwrap();
        assert!(called == nth || (called > nth && sessions > 1), "{nth} {action}: {called} calls");
        assert!((called..called + usize::from(sessions)).contains(&submitted), "{called} calls, {submitted} submitted");
        assert_eq!((failed, not_signed), (0, 600 - submitted));
        assert!(unknown >= 1, "the one that killed it");
        let first_not_reached = u64::try_from(submitted).unwrap();
        for result in results {
            let reached = !matches!(result.outcome, Outcome::NotSigned(NotSigned::NotReached));
            assert_eq!(reached, result.tag < first_not_reached, "{nth} {action}: item {}", result.tag);
        }
    }
}

#[test]
fn return_values_do_what_their_class_says() {
    let made = made();
    // In C_SignInit nothing was signed: another session, the same item, and nobody notices.
    for rv in ["CKR_SESSION_HANDLE_INVALID", "CKR_OPERATION_ACTIVE"] {
        let token = made.start(made.hsm.failing(1, &format!("C_SignInit 3 return {rv}\nC_OpenSession 0 stop")));
        assert_eq!(tally(&sign(&token, "recovery", commands(10)), 10), [10, 0, 0, 0], "{rv}");
        assert_eq!(made.hsm.calls("C_OpenSession"), 3, "one for life, one, and another");
    }
    // Lost after the token was asked: a signature may exist; the rest was not begun.
    let rows = [
        ("lose CKR_DEVICE_ERROR", Class::ReplaceWorker),
        ("return 0x80000001", Class::ReplaceWorker),
        ("lose CKR_FUNCTION_FAILED", Class::ReplaceWorker),
    ];
    for (action, class) in rows {
        let token = made.start(made.hsm.failing(1, &format!("C_Sign 3 {action}")));
        let results = sign(&token, "recovery", commands(10));
        assert_eq!(tally(&results, 10), [2, 0, 7, 1], "{action}");
        let third = results.iter().find(|result| result.tag == 2).unwrap();
        assert!(matches!(&third.outcome, Outcome::Unknown(error) if error.class() == class), "{third:?}");
        eventually("down", || matches!(token.condition(), Condition::Down(HsmError::Call(_))));
        token.restart().unwrap();
        assert_eq!(tally(&sign(&token, "recovery", commands(10)), 10), [10, 0, 0, 0], "{action}");
    }
    // The login is gone, provably before anything was signed.
    let token = made.start(made.hsm.failing(1, "C_SignInit 3 return CKR_USER_NOT_LOGGED_IN"));
    let results = sign(&token, "recovery", commands(10));
    assert_eq!(tally(&results, 10), [2, 1, 7, 0]);
    eventually("down", || matches!(token.condition(), Condition::Down(HsmError::Call(_))));
    token.restart().unwrap();
}

#[test]
fn nothing_is_signed_after_its_last_moment() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Sign * delay 100ms"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let soon = Timestamp::from_unix_ms(i64::try_from(now).unwrap()).unwrap().plus_ms(250);
    let results = token.sign(&label("recovery"), commands(20), soon).unwrap().wait_all();
    let [signed, failed, not_signed, unknown] = tally(&results, 20);
    assert!((1..=4).contains(&signed), "{signed}");
    assert_eq!((failed, not_signed, unknown), (0, 20 - signed, 0));
    assert!(results.iter().any(|result| result.outcome == Outcome::NotSigned(NotSigned::Expired)));
}

#[test]
fn a_last_moment_is_one_of_the_clock_that_the_exercise_has_set() {
    const BACK: i64 = -9 * 365 * 24 * 3_600_000;
    let made = made();
    let config = TokenConfig { clock_offset_ms: BACK, ..made.hsm.config(1) };
    let token = made.start(config);
    let set = smkid::wall_clock::wall_clock().plus_ms(BACK);
    let sign = |not_after: Timestamp| {
        let results = token.sign(&label("recovery"), commands(2), not_after).unwrap().wait_all();
        tally(&results, 2)
    };
    assert_eq!(sign(set.plus_ms(60_000)), [2, 0, 0, 0], "long ago by the machine's clock");
    assert_eq!(sign(set.plus_ms(-1)), [0, 0, 2, 0], "over by the clock that is set");
}

#[test]
fn chatter_of_the_module_on_standard_output_does_no_harm() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Initialize 1 print\nC_Sign 2 print"));
    assert_eq!(tally(&sign(&token, "recovery", commands(5)), 5), [5, 0, 0, 0]);
}

#[test]
fn a_lock_ends_the_worker_and_what_waits_is_not_signed() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Sign * delay 100ms"));
    let pid = token.worker_pid().unwrap();
    let mut results = token.sign(&label("recovery"), commands(20), Timestamp::MAX).unwrap();
    let first = results.wait_next().unwrap();
    token.shutdown();
    let mut all = results.wait_all();
    all.push(first);
    let [signed, failed, not_signed, unknown] = tally(&all, 20);
    assert!((1..=3).contains(&signed), "{signed}");
    assert_eq!((failed, not_signed, unknown), (0, 20 - signed, 0));
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    assert_eq!(token.condition(), Condition::Locked(HsmError::Locked));
    assert_eq!(token.restart(), Err(HsmError::Locked));
}

#[test]
fn dropping_the_last_handle_ends_the_worker_and_what_waits_has_its_outcome() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Sign * delay 100ms"));
    let worker = PathBuf::from(format!("/proc/{}", token.worker_pid().unwrap()));
    let mut results = token.sign(&label("recovery"), commands(20), Timestamp::MAX).unwrap();
    let first = results.wait_next().unwrap();
    let another = token.clone();
    drop(token);
    assert_eq!(another.condition(), Condition::Up, "one handle is left");
    drop(another);
    let mut all = results.wait_all();
    all.push(first);
    let [signed, failed, not_signed, unknown] = tally(&all, 20);
    assert_eq!((failed, signed + not_signed, unknown), (0, 20, 0));
    assert!(signed < 20, "{signed}");
    eventually("the worker is gone", || !worker.exists());
}

#[test]
fn the_pin_is_in_no_argument_no_environment_and_no_log_of_the_worker() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // The token's threads log too, so this is the subscriber of the whole process.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Sign 2 print\nC_Sign 3 kill"));
    let proc = PathBuf::from(format!("/proc/{}", token.worker_pid().unwrap()));
    let holds_pin = |octets: &[u8]| octets.windows(PIN.len()).any(|window| window == PIN.as_bytes());
    let arguments = fs::read(proc.join("cmdline")).unwrap();
    assert!(arguments.ends_with(b"hsm-worker\0"), "{}", String::from_utf8_lossy(&arguments));
    assert!(!holds_pin(&arguments));
    // Readable for root only, since the worker is not dumpable; whoever may read it finds no PIN.
    match fs::read(proc.join("environ")) {
        Ok(environment) => {
            assert!(environment.starts_with(b"FAULT_TOKEN") || environment.starts_with(b"SOFTHSM2_CONF"));
            assert!(!holds_pin(&environment));
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
    sign(&token, "recovery", commands(5));
    eventually("the worker's words reach the log", || log.text().contains("fault-token: chatter"));
    eventually("its death does too", || log.text().contains("the worker ended"));
    assert!(!log.text().contains(PIN));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Set in the process that a test starts of itself, to do what needs an environment of its own.
const IN_CHILD: &str = "SMKID_TEST_IN_CHILD";

/// This test again, as a process of its own, on this token.
fn this_test(hsm: &TestToken, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]).env(IN_CHILD, hsm.dir()).envs(hsm.environment());
    command
}

#[test]
fn the_worker_dies_with_the_daemon() {
    if let Some(dir) = std::env::var_os(IN_CHILD) {
        // The daemon: starts a worker, tells its process id, and hangs until it is killed.
        let dir = PathBuf::from(dir);
        let text = fs::read_to_string(dir.join("token")).unwrap();
        let (label, serial) = text.split_once('\n').unwrap();
        let config = TokenConfig {
            name: "test-token".parse().unwrap(),
            module: PathBuf::from(MODULE),
            label: label.to_owned(),
            serial: serial.to_owned(),
            sessions: 1,
            call_deadline: Duration::from_secs(20),
            environment: vec![("SOFTHSM2_CONF".into(), dir.join("softhsm2.conf").into())],
            program: Some(PathBuf::from(env!("CARGO_BIN_EXE_smkid"))),
            pin_marks: None,
            clock_offset_ms: 0,
        };
        let (token, _) = Token::start(config, pin(), Expectations::default()).unwrap();
        fs::write(dir.join("pid.new"), token.worker_pid().unwrap().to_string()).unwrap();
        fs::rename(dir.join("pid.new"), dir.join("pid")).unwrap();
        thread::sleep(Duration::from_secs(60));
        panic!("nobody killed the daemon");
    }
    let hsm = TestToken::new("orphan");
    fs::write(hsm.dir().join("token"), format!("{}\n{}", hsm.label, hsm.serial)).unwrap();
    let mut daemon = this_test(&hsm, "hsm::the_worker_dies_with_the_daemon")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the worker is up", || hsm.dir().join("pid").exists());
    let worker = PathBuf::from(format!("/proc/{}", fs::read_to_string(hsm.dir().join("pid")).unwrap()));
    assert!(worker.exists());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    // Its new parent may be slow to bury it; a dead process has no memory map.
    eventually("the worker is gone", || {
        fs::read_to_string(worker.join("maps")).is_ok_and(|maps| maps.is_empty()) || !worker.exists()
    });
}

#[test]
fn a_public_point_is_found_in_what_openssl_calls_a_public_key() {
    let made = made();
    let point = PublicPoint::from_spki(&made.recovery.spki).unwrap();
    fs::write(made.hsm.dir().join("key.der"), &made.recovery.spki).unwrap();
    let text = made
        .hsm
        .command("openssl")
        .args(["pkey", "-pubin", "-inform", "DER", "-text", "-noout", "-in"])
        .arg(made.hsm.dir().join("key.der"))
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("prime256v1"));
    let shown: String =
        text.lines().filter(|line| line.starts_with("    ")).map(|line| line.trim().replace(':', "")).collect();
    assert_eq!(shown, hex::encode(point.octets()));
}

#[test]
fn a_key_is_destroyed_by_its_name_and_public_key_and_no_other_is() {
    let made = made();
    let token = made.start(made.hsm.config(1));
    let destroy =
        |key: &KeyReport, spki: &[u8]| token.destroy_key(key.label.clone(), key.id, Digest::of(spki), None).wait();
    let left = |kind: &str| made.hsm.pkcs11_tool_logged_in(&["--list-objects", "--type", kind]);
    // The name of the one with the public key of the other.
    let refused = destroy(&made.recovery, &made.ledger.spki).unwrap_err();
    assert!(matches!(refused, HsmError::KeyDiffers { .. }), "{refused}");
    assert!(left("privkey").contains("recovery") && left("privkey").contains("ledger"));

    destroy(&made.recovery, &made.recovery.spki).unwrap();
    for kind in ["privkey", "pubkey"] {
        assert!(!left(kind).contains("recovery") && left(kind).contains("ledger"), "{}", left(kind));
    }
    // Done again after it was cut off, it is as done; and nothing is signed with it any more.
    destroy(&made.recovery, &made.recovery.spki).unwrap();
    let item = ToSign::new(1, Kind::Command, vec![1]);
    let refused = token.sign(&made.recovery.label, vec![item], Timestamp::from_unix_ms(i64::MAX / 1_000_000).unwrap());
    assert!(
        refused
            .map(|results| results.wait_all().pop().unwrap().outcome)
            .is_ok_and(|outcome| !matches!(outcome, Outcome::Signed(_))),
        "a destroyed key signed"
    );

    // Cut off between the halves: the private half went first.
    made.hsm.pkcs11_tool_logged_in(&["--delete-object", "--type", "privkey", "--label", "ledger"]);
    destroy(&made.ledger, &made.ledger.spki).unwrap();
    assert!(!left("pubkey").contains("ledger"), "{}", left("pubkey"));
}

#[test]
fn a_private_key_whose_public_half_is_missing_is_destroyed_by_nobody() {
    let made = made();
    let token = made.start(made.hsm.config(1));
    made.hsm.pkcs11_tool_logged_in(&["--delete-object", "--type", "pubkey", "--label", "recovery"]);
    let spki = Digest::of(&made.recovery.spki);
    let refused = token.destroy_key(made.recovery.label.clone(), made.recovery.id, spki, None).wait().unwrap_err();
    assert!(matches!(refused, HsmError::KeyAbsent { .. }), "{refused}");
    let left = made.hsm.pkcs11_tool_logged_in(&["--list-objects", "--type", "privkey"]);
    assert!(left.contains("recovery"), "{left}");
}
