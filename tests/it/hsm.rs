//! The worker, over a real SoftHSM token and the real binary.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use smkid::domain::certificates::bodies::certification_request_info;
use smkid::domain::certificates::signature::PublicKey;
use smkid::domain::certificates::subject::OrganisationSubject;
use smkid::domain::gbcs::{
    CommandPayload, CpvChecks, Cra, CredentialsReplacementMode, Header, Payload, PlaintextSymmetricKey, Replacement,
    SeqNumber, TrustAnchorCell, Update, encode_unsigned,
};
use smkid::domain::names::{Digest, Eui64, KeyId, KeyLabel, KeyUse};
use smkid::domain::time::Timestamp;
use smkid::hsm::{
    Certainty, Class, Condition, Expectations, ExpectedKey, HsmError, KeyReport, Kind, KindError, NotSigned, Outcome,
    PublicPoint, SignResult, ToSign, Token, TokenConfig,
};

use crate::support::softhsm::{MODULE, PIN, SoftHsm};

const GENESIS: Digest = Digest([0x47; 32]);

/// A token after its ceremony: a recovery and a ledger key, and genesis.
struct Made {
    hsm: SoftHsm,
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
    let hsm = SoftHsm::new("smki-test");
    let (token, report) = Token::start(hsm.config(1), pin(), Expectations::default()).unwrap();
    assert_eq!((report.label.as_str(), report.genesis), ("smki-test", None));
    let recovery = token.generate_key(label("recovery"), KeyId([1; 16]), KeyUse::Recovery).wait().unwrap();
    let ledger = token.generate_key(label("ledger"), KeyId([2; 16]), KeyUse::Ledger).wait().unwrap();
    token.write_genesis(GENESIS).wait().unwrap();
    token.shutdown();
    Made { hsm, recovery, ledger }
}

impl Made {
    fn expectations(&self) -> Expectations {
        let expected = |key: &KeyReport| ExpectedKey {
            label: key.label.clone(),
            id: key.id,
            use_: key.use_,
            spki: Some(key.spki.clone()),
            cloned: false,
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

/// Waits until `condition` holds; fails after ten seconds.
#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        thread::sleep(Duration::from_millis(5));
    }
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
fn signs_what_openssl_verifies_each_key_its_own_kinds_and_nothing_else() {
    let made = made();
    let token = made.start(made.hsm.config(2));

    let Outcome::Signed(signature) = sign_one(&token, "recovery", Kind::Command, &command(8, 1)) else {
        panic!("not signed")
    };
    assert!(openssl_verifies(made.hsm.dir(), &made.recovery.spki, &command(8, 1), &signature));
    assert!(!openssl_verifies(made.hsm.dir(), &made.recovery.spki, &command(8, 2), &signature));
    let Outcome::Signed(signature) = sign_one(&token, "ledger", Kind::Checkpoint, CHECKPOINT) else {
        panic!("not signed")
    };
    assert!(openssl_verifies(made.hsm.dir(), &made.ledger.spki, CHECKPOINT, &signature));

    let not_of_its_kind = |key: &str, kind, octets: &[u8]| match sign_one(&token, key, kind, octets) {
        Outcome::Failed(error @ HsmError::Kind { .. }) => {
            assert_eq!(error.certainty(), Certainty::NothingSigned);
            let HsmError::Kind { why, .. } = error else { unreachable!() };
            why
        }
        other => panic!("expected a refusal, found {other:?}"),
    };
    let by_use = |use_, kind| KindError::Use { use_, kind };
    assert_eq!(not_of_its_kind("recovery", Kind::Checkpoint, CHECKPOINT), by_use(KeyUse::Recovery, Kind::Checkpoint));
    assert_eq!(not_of_its_kind("ledger", Kind::Command, &command(8, 1)), by_use(KeyUse::Ledger, Kind::Command));
    assert!(matches!(not_of_its_kind("recovery", Kind::Command, CHECKPOINT), KindError::Form { .. }));
    assert!(matches!(not_of_its_kind("recovery", Kind::Command, &command(9, 1)), KindError::Form { .. }));
    for kind in [Kind::Command, Kind::CertificationRequest] {
        assert!(
            matches!(not_of_its_kind("recovery", kind, &[0x5a; 32]), KindError::Form { .. }),
            "a bare digest as {kind}"
        );
    }
    assert!(matches!(not_of_its_kind("ledger", Kind::Checkpoint, &[0x5a; 32]), KindError::Form { .. }));

    let unknown = token.sign(&label("no-such-key"), commands(1), Timestamp::MAX).unwrap_err();
    assert_eq!(unknown, HsmError::KeyUnknown(label("no-such-key")));
    assert!(matches!(token.sign(&label("recovery"), commands(4097), Timestamp::MAX), Err(HsmError::QueueFull { .. })));
    assert_eq!(tally(&sign(&token, "recovery", commands(4096)), 4096), [4096, 0, 0, 0], "the limit itself fits");
}

#[test]
fn signs_on_while_awaited_in_an_async_task() {
    let made = made();
    let token = made.start(made.hsm.config(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let results = runtime.block_on(async {
        let mut results = token.sign(&label("recovery"), commands(100), Timestamp::MAX).unwrap();
        let mut all = Vec::new();
        while results.next_many(&mut all, 32).await > 0 {}
        assert_eq!(token.list_keys().get().await.unwrap().len(), 2);
        all
    });
    assert_eq!(tally(&results, 100), [100, 0, 0, 0]);
}

#[test]
fn a_wrong_pin_is_offered_once_and_the_token_stays_locked() {
    let made = made();
    let config = made.hsm.failing(1, "C_Login 0 stop");
    let error = Token::start(config.clone(), SecretString::from("wrong"), made.expectations()).map(|_| ()).unwrap_err();
    assert_eq!(error, HsmError::PinRefused { rv: "CKR_PIN_INCORRECT".to_owned() });
    assert!(error.locks());
    assert_eq!(made.hsm.calls("C_Login"), 1);

    // The PIN was good at activation and is not any more: the next worker tries it once, and nobody after it.
    let token = made.start(made.hsm.failing(1, "C_Login 2 return CKR_PIN_INCORRECT\nC_Sign 1 kill"));
    assert_eq!(tally(&sign(&token, "recovery", commands(1)), 1), [0, 0, 0, 1]);
    eventually("the worker's death is noticed", || matches!(token.condition(), Condition::Down(_)));
    for _ in 0..3 {
        assert!(matches!(token.restart(), Err(HsmError::PinRefused { .. })));
    }
    assert!(matches!(token.condition(), Condition::Locked(HsmError::PinRefused { .. })));
    assert_eq!(made.hsm.calls("C_Login"), 2);
}

#[test]
fn no_pin_is_offered_when_the_next_wrong_one_would_lock_the_token() {
    let made = made();
    let config = made.hsm.failing(1, "C_GetTokenInfo * final-try\nC_Login 0 stop");
    let error = refused(config, made.expectations());
    assert_eq!(error, HsmError::PinAtRisk { flag: "CKF_USER_PIN_FINAL_TRY".to_owned() });
    assert!(error.locks());
    assert_eq!(made.hsm.calls("C_Login"), 0);
}

#[test]
fn a_key_whose_making_failed_leaves_no_orphan() {
    let hsm = SoftHsm::new("smki-test");
    let (token, _) =
        Token::start(hsm.failing(1, "C_GenerateKeyPair 1 lose CKR_GENERAL_ERROR"), pin(), Expectations::default())
            .unwrap();
    let make = || token.generate_key(label("recovery"), KeyId([1; 16]), KeyUse::Recovery).wait();
    // The pair was made and the answer lost.
    assert!(matches!(make(), Err(HsmError::Call(fault)) if fault.rv == "CKR_GENERAL_ERROR"));
    eventually("a general error replaces the worker", || matches!(token.condition(), Condition::Down(_)));
    token.restart().unwrap();
    assert_eq!(make().unwrap().label, label("recovery"));
    let objects =
        hsm.run("pkcs11-tool", &["--module", MODULE, "--token-label", "smki-test", "--login", "--pin", PIN, "-O"]);
    assert_eq!(objects.matches("Private Key Object").count(), 1, "{objects}");
    assert_eq!(objects.matches("Public Key Object").count(), 1, "{objects}");
}

#[test]
fn a_certification_request_is_signed_for_the_very_key_and_in_the_smki_form_only() {
    let made = made();
    let token = made.start(made.hsm.config(1));
    let subject = OrganisationSubject { common_name: None, role: 1, party: "90B3D51F30000002".parse().unwrap() };
    let request = |spki: &[u8]| certification_request_info(&subject, &PublicKey::from_spki(spki).unwrap()).unwrap();
    let ours = request(&made.recovery.spki);
    let Outcome::Signed(signature) = sign_one(&token, "recovery", Kind::CertificationRequest, &ours) else {
        panic!("not signed")
    };
    assert!(openssl_verifies(made.hsm.dir(), &made.recovery.spki, &ours, &signature));
    // For another key, and for this one without a subject.
    let another = request(&made.ledger.spki);
    let body = [&[0x02, 0x01, 0x00, 0x30, 0x00][..], &made.recovery.spki, &[0xa0, 0x00]].concat();
    let nameless = [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat();
    for octets in [another, nameless] {
        assert!(matches!(
            sign_one(&token, "recovery", Kind::CertificationRequest, &octets),
            Outcome::Failed(HsmError::Kind { why: KindError::Form { .. }, .. })
        ));
    }
}

#[test]
fn a_token_that_is_not_the_one_expected_is_refused() {
    let made = made();
    let expectations = made.expectations();

    let mut config = made.hsm.config(1);
    config.serial = "0000000000000000".to_owned();
    assert!(matches!(refused(config, expectations.clone()), HsmError::TokenAbsent { .. }));
    let mut config = made.hsm.config(1);
    config.label = "another".to_owned();
    let error = refused(config, expectations.clone());
    assert!(error.to_string().contains("smki-test"), "says what is there: {error}");
    let mut config = made.hsm.config(1);
    config.module = PathBuf::from("/nonexistent.so");
    assert!(matches!(refused(config, expectations.clone()), HsmError::ModuleLoad { .. }));

    let other = Digest([0x48; 32]);
    let wrong = Expectations { genesis: Some(other), ..expectations.clone() };
    assert_eq!(
        refused(made.hsm.config(1), wrong),
        HsmError::GenesisDiffers { expected: other, found: GENESIS.to_string() }
    );
    let mut wrong = expectations.clone();
    wrong.keys[0].spki = Some(made.ledger.spki.clone());
    assert!(matches!(refused(made.hsm.config(1), wrong), HsmError::KeyDiffers { .. }));
    let mut wrong = expectations.clone();
    wrong.keys[0].id = KeyId([9; 16]);
    assert!(matches!(refused(made.hsm.config(1), wrong), HsmError::KeyAbsent { .. }));

    let token = made.start(made.hsm.config(1));
    assert!(matches!(token.write_genesis(other).wait(), Err(HsmError::GenesisExists { .. })));
    token.write_genesis(GENESIS).wait().unwrap();
    let second = token.generate_key(label("recovery"), KeyId([7; 16]), KeyUse::Recovery).wait();
    assert!(matches!(second, Err(HsmError::KeyExists { .. })));

    let empty = SoftHsm::new("empty");
    let absent = refused(empty.config(1), Expectations { keys: Vec::new(), ..expectations });
    assert_eq!(absent, HsmError::GenesisAbsent { expected: GENESIS });
}

#[test]
fn data_objects_are_replaced_and_read_back() {
    let made = made();
    let token = made.start(made.hsm.config(1));
    assert_eq!(token.read_data("smkid-head").wait().unwrap(), None);
    for value in [&b"one"[..], b"two"] {
        token.write_data("smkid-head", value).wait().unwrap();
        assert_eq!(token.read_data("smkid-head").wait().unwrap().as_deref(), Some(value));
    }
    token.shutdown();
    let objects = made
        .hsm
        .run("pkcs11-tool", &["--module", MODULE, "--token-label", "smki-test", "--list-objects", "--type", "data"]);
    assert_eq!(objects.matches("smkid-head").count(), 1, "{objects}");
}

#[test]
fn a_second_key_of_the_same_name_makes_both_unusable() {
    let made = made();
    made.hsm.run(
        "pkcs11-tool",
        &["--module", MODULE, "--token-label", "smki-test", "--login", "--pin", PIN, "--keypairgen", "--key-type"]
            .into_iter()
            .chain(["EC:prime256v1", "--label", "recovery", "--id", "33"])
            .collect::<Vec<_>>(),
    );
    let error = refused(made.hsm.config(1), made.expectations());
    assert!(matches!(error, HsmError::KeyDuplicate { count: 2, .. }), "{error:?}");
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
        // With two sessions the other may be on its way to C_Sign as well.
        assert!((nth..nth + usize::from(sessions)).contains(&submitted), "{nth} {action}: {submitted} submitted");
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
fn a_wrong_signature_never_leaves() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Sign 4 corrupt"));
    let results = sign(&token, "recovery", commands(10));
    assert_eq!(tally(&results, 10), [9, 1, 0, 0]);
    let wrong = results.iter().find(|result| result.tag == 3).unwrap();
    assert_eq!(wrong.outcome, Outcome::Failed(HsmError::WrongSignature(label("recovery"))));
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
fn a_fence_stops_the_rest_and_is_answered_at_once() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Sign * delay 150ms"));
    let mut results = token.sign(&label("recovery"), commands(20), Timestamp::MAX).unwrap();
    let first = results.wait_next().unwrap();
    let raised = Instant::now();
    let ack = token.fence().wait().unwrap();
    let answered = raised.elapsed();
    assert!(answered < Duration::from_millis(100), "answered after {answered:?}, a signature taking 150 ms");
    let mut all = results.wait_all();
    all.push(first);
    let [signed, failed, not_signed, unknown] = tally(&all, 20);
    assert!((1..=3).contains(&signed), "{signed} signed");
    assert_eq!((failed, signed + not_signed, unknown), (0, 20, 0));
    for result in &all {
        if ack.in_flight.contains(&result.tag) {
            assert!(matches!(result.outcome, Outcome::Signed(_)));
        } else if result.tag >= 3 {
            assert_eq!(result.outcome, Outcome::NotSigned(NotSigned::Fenced));
        }
    }
    // What is submitted after the fence is not stopped by it.
    assert_eq!(tally(&sign(&token, "recovery", commands(1)), 1), [1, 0, 0, 0]);
}

#[test]
fn a_fence_stops_what_was_decided_before_it_and_is_submitted_after_it() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Sign 0 stop"));
    let decided = token.fences_seen();
    let submit =
        |decided| token.sign_decided(decided, &label("recovery"), commands(10), Timestamp::MAX).unwrap().wait_all();
    assert_eq!(tally(&submit(decided), 10), [10, 0, 0, 0], "no fence since");
    token.fence().wait().unwrap();
    let results = submit(decided);
    assert!(results.iter().all(|result| result.outcome == Outcome::NotSigned(NotSigned::Fenced)), "{results:?}");
    assert_eq!(made.hsm.calls("C_Sign"), 10, "the token saw none of them");
    assert_eq!(tally(&submit(token.fences_seen()), 10), [10, 0, 0, 0], "decided after the fence");
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
fn a_signature_costs_one_sign_and_no_login_and_no_look_up() {
    let made = made();
    let counted = ["C_SignInit", "C_Sign", "C_Login", "C_FindObjectsInit", "C_OpenSession"];
    let script = format!("{} 0 stop", counted.join(" 0 stop\n"));
    let token = made.start(made.hsm.failing(2, &script));
    assert_eq!(tally(&sign(&token, "recovery", commands(10)), 10), [10, 0, 0, 0]);
    let calls = || counted.map(|function| made.hsm.calls(function));
    let [init, signs, login, find, open] = calls();
    assert_eq!((init, signs, login), (10, 10, 1));
    assert!(open <= 3, "one for life and one for each signer: {open}");
    assert_eq!(tally(&sign(&token, "recovery", commands(1000)), 1000), [1000, 0, 0, 0]);
    let after = calls();
    assert_eq!(after[..4], [1010, 1010, login, find]);
    assert!(after[4] <= 3);
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
fn this_test(hsm: &SoftHsm, name: &str) -> Command {
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
    let hsm = SoftHsm::new("orphan");
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
fn no_key_of_ours_leaves_its_token_and_an_extractable_one_beside_it_does() {
    use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
    use cryptoki::error::{Error, RvError};
    use cryptoki::mechanism::Mechanism;
    use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass};
    use cryptoki::session::UserType;

    if std::env::var_os(IN_CHILD).is_some() {
        let module = Pkcs11::new(MODULE).unwrap();
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        let session = module.open_rw_session(module.get_slots_with_initialized_token().unwrap()[0]).unwrap();
        session.login(UserType::User, Some(&PIN.into())).unwrap();
        let find = |label: &str| {
            session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.into())]).unwrap()
                [0]
        };
        let p256 = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let public = [
            Attribute::Token(true),
            Attribute::EcParams(p256),
            Attribute::Label("control".into()),
            Attribute::Id(vec![0x44; 16]),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::Sign(true),
            Attribute::Label("control".into()),
            Attribute::Id(vec![0x44; 16]),
        ];
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
        let wrapping = session
            .generate_key(
                &Mechanism::AesKeyGen,
                &[Attribute::Token(false), Attribute::ValueLen(32.into()), Attribute::Wrap(true)],
            )
            .unwrap();
        let value = |label: &str| session.get_attribute_info(find(label), &[AttributeType::Value]).unwrap().remove(0);
        let wrap = |label: &str| session.wrap_key(&Mechanism::AesKeyWrapPad, wrapping, find(label));
        for ours in ["recovery", "ledger"] {
            assert!(matches!(value(ours), AttributeInfo::Sensitive), "{ours}");
            assert!(matches!(wrap(ours), Err(Error::Pkcs11(RvError::KeyUnextractable, _))), "{ours}");
        }
        assert!(matches!(value("control"), AttributeInfo::Available(32)));
        wrap("control").unwrap();
        return;
    }
    let made = made();
    let name = "hsm::no_key_of_ours_leaves_its_token_and_an_extractable_one_beside_it_does";
    let child = this_test(&made.hsm, name).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let exports = |key: &str| {
        let url = format!("pkcs11:token=smki-test;object={key};type=private");
        let provider = format!("--provider={MODULE}");
        let output =
            made.hsm.command("p11tool").args([&provider, "--login", "--export", &url]).env("GNUTLS_PIN", PIN).output();
        let output = output.unwrap();
        output.status.success() && output.stdout.starts_with(b"-----BEGIN")
    };
    assert!(!exports("recovery"));
    assert!(!exports("ledger"));
    assert!(exports("control"), "the control must export, or the two above prove nothing");

    // And such a key is not used, whatever a policy says.
    let mut expectations = made.expectations();
    expectations.keys.push(ExpectedKey {
        label: label("control"),
        id: KeyId([0x44; 16]),
        use_: KeyUse::Recovery,
        spki: None,
        cloned: false,
    });
    let error = refused(made.hsm.config(1), expectations);
    assert!(matches!(&error, HsmError::KeyUnfit { attribute, .. } if attribute == "CKA_SENSITIVE"), "{error:?}");
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
