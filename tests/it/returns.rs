//! What each return value of PKCS#11 does: the page made from the table, and one row of each class at each function, through the
//! real worker and the module that fails on command.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use smkid::domain::names::{KeyId, KeyUse};
use smkid::domain::time::Timestamp;
use smkid::hsm::returns::{EXCEPTIONS, Group, Meaning, NEVER_BEGAN, VALUES, VENDOR_DEFINED, judge};
use smkid::hsm::{Certainty, Class, Condition, Expectations, HsmError, Kind, Outcome, ToSign, Token, TokenConfig};

use crate::support::token::{PIN, TestToken, eventually};

const PAGE: &str = "src/docs/hsm-errors.md";

const HEAD: &str = "\
# What a token answers, and what is done about it

Every return value of PKCS#11 3.1 (and the six that 3.2 adds), and what `smkid` makes of it. This page is made from the table in
`src/hsm/returns.rs` (`SMKID_WRITE_DOCS=1 cargo test --test it -- returns`). A message names the function, the token, the value, the
likely cause and what to do:

> C_Sign of token recovery answered CKR_DEVICE_ERROR: the token, or the connection to it, failed; the worker is replaced …

What is called a *class* is what is done by itself:

| class | what is done | what a command in hand becomes |
|---|---|---|
| retry on a new session | the session is closed and another opened; the same command once more if it provably was not signed | signed, as if nothing had been; `unknown` if it may have been signed |
| log in again | the worker ends, and its successor logs in with the PIN held since the activation | tried again by its job, since it provably was not signed |
| replace the worker | the process that holds the module is ended, and another started after a pause of 0.1 to 5 s | `unknown` if it may have been signed, else tried again by its job |
| an operator must act | the worker ends. After C_Login no PIN is offered again, across restarts too, until `smkictl hsm retry-login`; else it is tried again after a pause | `failed`; `unknown` if it may have been signed; those behind it are tried again by their job |
| our fault | nothing: the worker goes on with the next command. It is to be reported | `failed`; `unknown` if it may have been signed |

A command *may have been signed* after any answer of C_Sign but those marked †, by which PKCS#11 says that it never began. No other
function signs. A token that fails one command after the other and yet goes on is given up by the job before the list is used up. One
whose signature does not verify is locked: what signs there is not this key. What may have been signed is recorded as `unknown` and never signed anew by itself under another counter.

";

fn class_name(class: Class) -> &'static str {
    match class {
        Class::RetryOnNewSession => "retry on a new session",
        Class::LogInAgain => "log in again",
        Class::ReplaceWorker => "replace the worker",
        Class::OperatorMustAct => "an operator must act",
        Class::OurFault => "our fault",
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let row = |page: &mut String, first: &str, Meaning { class, cause, advice }: Meaning| {
        writeln!(page, "| {first} | {} | {cause} | {advice} |", class_name(class)).unwrap();
    };
    page.push_str("## Wherever it comes from\n\n| value | class | likely cause | what to do |\n|---|---|---|---|\n");
    for value in VALUES {
        let mark = if NEVER_BEGAN.contains(&value.name) { " †" } else { "" };
        row(&mut page, &format!("{}{mark} (0x{:03x})", value.name, value.code), value.meaning);
    }
    let vendors = judge("C_SignInit", VENDOR_DEFINED).meaning;
    row(&mut page, "0x80000000 and above, and any other", vendors);
    page.push_str("\n## What is different at some functions\n\n");
    page.push_str("| at | value | class | likely cause | what to do |\n|---|---|---|---|---|\n");
    for (group, names, meaning) in EXCEPTIONS {
        row(&mut page, &format!("{} | {}", group.functions(), names.join(", ")), *meaning);
    }
    page
}

#[test]
fn the_page_of_return_values_is_what_the_table_makes() {
    let made = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("SMKID_WRITE_DOCS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == made, "{PAGE} is not what the table makes: SMKID_WRITE_DOCS=1 cargo test --test it -- returns");
}

/// A value of each class, and one of a vendor's own.
const OF_EACH_CLASS: [(u64, Class); 6] = [
    (0x0b3, Class::RetryOnNewSession),
    (0x101, Class::LogInAgain),
    (0x030, Class::ReplaceWorker),
    (0x200, Class::OperatorMustAct),
    (0x007, Class::OurFault),
    (0x8000_0001, Class::ReplaceWorker),
];

const TEXT: &[u8] = b"smki.example/ledger\n42\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
const ITEMS: u64 = 5;

fn pin() -> SecretString {
    SecretString::from(PIN)
}

/// A token with a ledger key.
fn made() -> (TestToken, Expectations) {
    let hsm = TestToken::new("smki-test");
    let (token, _) = Token::start(hsm.config(1), pin(), Expectations::default()).unwrap();
    let key = token.generate_key("ledger".parse().unwrap(), KeyId([2; 16]), KeyUse::Ledger).wait().unwrap();
    token.shutdown();
    let key = smkid::hsm::ExpectedKey {
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

fn failing(hsm: &TestToken, function: &str, nth: u64, code: u64) -> TokenConfig {
    hsm.failing(1, &format!("{function} {nth} return 0x{code:x}\nC_Login 0 stop\n"))
}

/// How many were signed, failed, not signed and unknown.
fn sign(token: &Token) -> [usize; 4] {
    let items = (0..ITEMS).map(|n| ToSign::new(n, Kind::Checkpoint, TEXT.to_vec())).collect();
    let results = token.sign(&"ledger".parse().unwrap(), items, Timestamp::MAX).unwrap().wait_all();
    let mut tally = [0; 4];
    for result in &results {
        tally[match result.outcome {
            Outcome::Signed(_) => 0,
            Outcome::Failed(_) => 1,
            Outcome::NotSigned(_) => 2,
            Outcome::Unknown(_) => 3,
        }] += 1;
    }
    assert_eq!(tally.iter().sum::<usize>(), results.len());
    tally
}

/// Waits until the worker is gone.
#[track_caller]
fn gone(token: &Token) {
    let began = Instant::now();
    while token.condition() == Condition::Up {
        assert!(began.elapsed() < Duration::from_secs(10), "the worker goes on");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The error names what it must.
#[track_caller]
fn check_fault(error: &HsmError, function: &str, code: u64) {
    let (HsmError::Call(fault) | HsmError::PinRefused(fault)) = error else {
        panic!("{function} {code:#x}: {error:?}")
    };
    let expected = judge(function, code);
    assert_eq!((fault.class, fault.certainty), (expected.meaning.class, expected.certainty), "{function} {code:#x}");
    let text = error.to_string();
    for part in [function, "test-token", &expected.name, expected.meaning.cause, expected.meaning.advice] {
        assert!(text.contains(part), "{text}: no {part}");
    }
}

#[test]
fn whatever_an_activation_meets_nothing_is_signed_no_pin_is_offered_twice_and_it_is_tried_again_unless_the_login_failed()
 {
    let (hsm, expectations) = made();
    let functions =
        ["C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_GetMechanismList", "C_OpenSession", "C_FindObjectsInit"];
    let functions = functions.into_iter().chain(["C_FindObjects", "C_GetAttributeValue", "C_Login"]);
    for function in functions {
        // What C_Login alone answers: a PIN that is locked, and one that was never set.
        let of_login: &[u64] = if function == "C_Login" { &[0x0a4, 0x102] } else { &[] };
        for code in OF_EACH_CLASS.iter().map(|(code, _)| *code).chain(of_login.iter().copied()) {
            let token = Token::new(failing(&hsm, function, 1, code), pin(), expectations.clone());
            let error = token.restart().unwrap_err();
            check_fault(&error, function, code);
            assert_eq!(error.certainty(), Certainty::NothingSigned);
            let logins = hsm.calls("C_Login");
            assert_eq!(logins, u64::from(Group::of(function) >= Group::Login), "{function} {code:#x}");
            let locks = function == "C_Login" && error.class() == Class::OperatorMustAct;
            assert_eq!(error.locks(), locks, "{function} {code:#x}");
            if locks {
                assert!(matches!(token.condition(), Condition::Locked(_)));
                token.restart().unwrap_err();
                assert_eq!(hsm.calls("C_Login"), logins, "{code:#x}: offered again");
            } else {
                token.restart().unwrap_or_else(|error| panic!("{function} {code:#x}: {error}"));
                assert_eq!(sign(&token), [5, 0, 0, 0]);
            }
        }
    }
}

#[test]
fn whatever_a_signature_meets_its_class_says_what_becomes_of_it_and_of_those_behind_it() {
    let (hsm, expectations) = made();
    let doubtful = [0x150, 0x0b0, 0x0e0];
    for function in ["C_SignInit", "C_Sign"] {
        for code in OF_EACH_CLASS.iter().map(|(code, _)| *code).chain(doubtful) {
            let (token, _) = Token::start(failing(&hsm, function, 2, code), pin(), expectations.clone()).unwrap();
            let expected = judge(function, code);
            let (class, is_certain) = (expected.meaning.class, expected.certainty == Certainty::NothingSigned);
            let (failed, unknown) = match (class, is_certain) {
                (Class::RetryOnNewSession, true) => (0, 0),
                (_, true) => (1, 0),
                (_, false) => (0, 1),
            };
            let behind = if class.worker_goes_on() { 0 } else { 3 };
            let signed = 5 - failed - unknown - behind;
            assert_eq!(sign(&token), [signed, failed, behind, unknown], "{function} {code:#x}");
            if class.worker_goes_on() {
                assert_eq!(token.condition(), Condition::Up);
            } else {
                gone(&token);
                let Condition::Down(error) = token.condition() else { panic!("{function} {code:#x}") };
                check_fault(&error, function, code);
                token.restart().unwrap();
            }
            assert_eq!(sign(&token), [5, 0, 0, 0], "{function} {code:#x}: afterwards");
        }
    }
}

#[test]
fn whatever_altering_the_token_meets_is_told_and_the_next_time_it_works() {
    let (hsm, expectations) = made();
    for (code, _) in OF_EACH_CLASS {
        let (token, _) = Token::start(failing(&hsm, "C_CreateObject", 1, code), pin(), expectations.clone()).unwrap();
        let error = token.write_data("smkid-head", b"one").wait().unwrap_err();
        check_fault(&error, "C_CreateObject", code);
        // What an operator must mend, such as a token that is full, hinders nobody who signs.
        if error.class().worker_goes_on() || error.class() == Class::OperatorMustAct {
            assert_eq!(token.condition(), Condition::Up);
        } else {
            gone(&token);
            token.restart().unwrap();
        }
        token.write_data("smkid-head", b"two").wait().unwrap();
        assert_eq!(token.read_data("smkid-head").wait().unwrap().as_deref(), Some(&b"two"[..]));
    }
}

#[test]
fn what_could_not_be_destroyed_is_told_and_two_versions_of_an_object_are_never_taken_for_one() {
    let (hsm, expectations) = made();
    for (n, (code, _)) in OF_EACH_CLASS.iter().enumerate() {
        let label = format!("smkid-head-{n}");
        let (token, _) = Token::start(failing(&hsm, "C_DestroyObject", 1, *code), pin(), expectations.clone()).unwrap();
        token.write_data(&label, b"one").wait().unwrap();
        // The new one stands before the old one goes.
        let error = token.write_data(&label, b"two").wait().unwrap_err();
        check_fault(&error, "C_DestroyObject", *code);
        if !(error.class().worker_goes_on() || error.class() == Class::OperatorMustAct) {
            gone(&token);
            token.restart().unwrap();
        }
        let read = token.read_data(&label).wait();
        assert!(matches!(read, Err(HsmError::DataDuplicate { .. })), "{code:#x}: {read:?}");
        token.write_data(&label, b"three").wait().unwrap();
        assert_eq!(token.read_data(&label).wait().unwrap().as_deref(), Some(&b"three"[..]), "{code:#x}");
    }
}

#[test]
fn a_search_that_could_not_be_ended_is_told_by_the_next_one_and_the_worker_is_replaced() {
    let (hsm, expectations) = made();
    for (code, _) in OF_EACH_CLASS {
        let token = Token::new(failing(&hsm, "C_FindObjectsFinal", 1, code), pin(), expectations.clone());
        // Nobody hears what ends a search, and so the session stays in it: CKR_OPERATION_ACTIVE.
        check_fault(&token.restart().unwrap_err(), "C_FindObjectsInit", 0x090);
        token.restart().unwrap_or_else(|error| panic!("{code:#x}: {error}"));
        assert_eq!(sign(&token), [5, 0, 0, 0]);
    }
}

#[test]
fn whatever_the_making_of_a_key_meets_is_told_and_leaves_none() {
    let (hsm, expectations) = made();
    for (code, _) in OF_EACH_CLASS {
        let (token, _) =
            Token::start(failing(&hsm, "C_GenerateKeyPair", 1, code), pin(), expectations.clone()).unwrap();
        let make =
            |token: &Token| token.generate_key("recovery".parse().unwrap(), KeyId([3; 16]), KeyUse::Recovery).wait();
        let error = make(&token).unwrap_err();
        check_fault(&error, "C_GenerateKeyPair", code);
        assert_eq!(error.certainty(), Certainty::NothingSigned);
        if !(error.class().worker_goes_on() || error.class() == Class::OperatorMustAct) {
            gone(&token);
        }
        token.shutdown();
    }
}

#[test]
fn a_token_with_too_few_sessions_is_used_with_those_there_are_and_without_any_the_worker_is_replaced() {
    let (hsm, expectations) = made();
    // One session for life, one for the first signer; the others wait.
    let mut config = hsm.failing(4, "C_OpenSession 3-9999 return CKR_SESSION_COUNT\nC_Sign * delay 20ms\n");
    config.call_deadline = Duration::from_secs(5);
    let (token, _) = Token::start(config, pin(), expectations.clone()).unwrap();
    assert_eq!(sign(&token), [5, 0, 0, 0]);
    assert_eq!(token.condition(), Condition::Up);
    eventually("it is told that one of four sessions signs, and why", || {
        let held = token.sessions().unwrap();
        held.open == 1 && held.lacking.is_some_and(|why| why.contains("CKR_SESSION_COUNT"))
    });
    drop(token);
    // Another client let go of its own: all are there again, and nothing is lacking.
    let config = hsm.failing(4, "C_OpenSession 3-5 return CKR_SESSION_COUNT\n");
    let (token, _) = Token::start(config, pin(), expectations.clone()).unwrap();
    eventually("all four sessions sign", || {
        let held = token.sessions().unwrap();
        held.open == 4 && held.lacking.is_none()
    });
    drop(token);
    let config = hsm.failing(2, "C_OpenSession 2-30 return CKR_SESSION_COUNT\n");
    let (token, _) = Token::start(config, pin(), expectations).unwrap();
    assert_eq!(sign(&token), [0, 0, 5, 0], "nobody claimed what nobody could sign");
    gone(&token);
    let Condition::Down(error) = token.condition() else { panic!("{:?}", token.condition()) };
    assert!(error.to_string().contains("lower `sessions`"), "{error}");
}
