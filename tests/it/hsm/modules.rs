//! What must hold with any module: the same tests with SoftHSM, with Kryoptic and with p11-kit's server in front of SoftHSM. Where
//! modules differ, the test says how. Below them is what only one of them can show: a PIN that locks, and an HSM that is killed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use smkid::domain::certificates::bodies::certification_request_info;
use smkid::domain::certificates::signature::PublicKey;
use smkid::domain::certificates::subject::OrganisationSubject;
use smkid::domain::names::{Digest, KeyId, KeyUse};
use smkid::domain::time::Timestamp;
use smkid::hsm::{
    Certainty, Condition, Expectations, ExpectedKey, HsmError, Kind, KindError, NotSigned, Outcome, Token,
};

use super::{
    CHECKPOINT, GENESIS, IN_CHILD, Made, command, commands, eventually, label, openssl_verifies, pin, refused, sign,
    sign_one, tally, this_test,
};
use crate::support::token::{Make, PIN, TestToken};

/// Each test with each module. One that cannot be had here is passed over, which is said once and never where `CI` is set.
macro_rules! with_every_module {
    ($($test:ident;)*) => {
        with_every_module! { @of soft_hsm SoftHsm: $($test)* }
        with_every_module! { @of kryoptic Kryoptic: $($test)* }
        with_every_module! { @of p11_kit P11Kit: $($test)* }
    };
    (@of $module:ident $make:ident: $($test:ident)*) => {
        mod $module {
            use crate::support::token::Make;
            $(
                #[test]
                fn $test() {
                    if Make::$make.module().is_some() {
                        super::$test(Make::$make);
                    }
                }
            )*
        }
    };
}

with_every_module! {
    signs_what_openssl_verifies_each_key_its_own_kinds_and_nothing_else;
    a_wrong_pin_is_offered_once_and_the_token_stays_locked;
    no_pin_is_offered_when_the_next_wrong_one_would_lock_the_token;
    a_key_whose_making_failed_leaves_no_orphan;
    a_certification_request_is_signed_for_the_very_key_and_in_the_smki_form_only;
    a_token_that_is_not_the_one_expected_is_refused;
    data_objects_are_replaced_and_read_back;
    a_second_key_of_the_same_name_makes_both_unusable;
    a_wrong_signature_never_leaves;
    a_fence_stops_the_rest_and_is_answered_at_once;
    a_fence_stops_what_was_decided_before_it_and_is_submitted_after_it;
    a_signature_costs_one_sign_and_no_login_and_no_look_up;
    no_key_of_ours_leaves_its_token_and_an_extractable_one_beside_it_does;
}

fn made(brand: Make) -> Made {
    Made::of(brand)
}

fn signs_what_openssl_verifies_each_key_its_own_kinds_and_nothing_else(brand: Make) {
    let made = made(brand);
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

/// The answer is named, with function, token, cause and what to do.
fn is_wrong_pin(error: &HsmError) -> bool {
    let text = error.to_string();
    let HsmError::PinRefused(fault) = error else { return false };
    let said = ["C_Login of token ", "CKR_PIN_INCORRECT", &fault.cause, &fault.advice, "retry-login"];
    fault.rv == "CKR_PIN_INCORRECT" && said.iter().all(|part| text.contains(part))
}

fn a_wrong_pin_is_offered_once_and_the_token_stays_locked(brand: Make) {
    let made = made(brand);
    let config = made.hsm.failing(1, "C_Login 0 stop");
    let error =
        Token::start(config.clone(), SecretString::from("a-wrong-pin"), made.expectations()).map(|_| ()).unwrap_err();
    assert!(is_wrong_pin(&error), "{error}");
    assert!(error.locks());
    assert_eq!(made.hsm.calls("C_Login"), 1);

    // The PIN was good at activation and is not any more: the next worker tries it once, and nobody after it.
    let token = made.start(made.hsm.failing(1, "C_Login 2 return CKR_PIN_INCORRECT\nC_Sign 1 kill"));
    assert_eq!(tally(&sign(&token, "recovery", commands(1)), 1), [0, 0, 0, 1]);
    eventually("the worker's death is noticed", || matches!(token.condition(), Condition::Down(_)));
    for _ in 0..3 {
        assert!(matches!(token.restart(), Err(HsmError::PinRefused(_))));
    }
    assert!(matches!(token.condition(), Condition::Locked(HsmError::PinRefused(_))));
    assert_eq!(made.hsm.calls("C_Login"), 2);
}

fn no_pin_is_offered_when_the_next_wrong_one_would_lock_the_token(brand: Make) {
    let made = made(brand);
    let config = made.hsm.failing(1, "C_GetTokenInfo * final-try\nC_Login 0 stop");
    let error = refused(config, made.expectations());
    assert_eq!(error, HsmError::PinAtRisk { flag: "CKF_USER_PIN_FINAL_TRY".to_owned() });
    assert!(error.locks());
    assert_eq!(made.hsm.calls("C_Login"), 0);
}

fn a_key_whose_making_failed_leaves_no_orphan(brand: Make) {
    let hsm = TestToken::of(brand, "smki-test");
    let (token, _) =
        Token::start(hsm.failing(1, "C_GenerateKeyPair 1 lose CKR_GENERAL_ERROR"), pin(), Expectations::default())
            .unwrap();
    let make = || token.generate_key(label("recovery"), KeyId([1; 16]), KeyUse::Recovery).wait();
    // The pair was made and the answer lost.
    assert!(matches!(make(), Err(HsmError::Call(fault)) if fault.rv == "CKR_GENERAL_ERROR"));
    eventually("a general error replaces the worker", || matches!(token.condition(), Condition::Down(_)));
    token.restart().unwrap();
    assert_eq!(make().unwrap().label, label("recovery"));
    let objects = hsm.pkcs11_tool_logged_in(&["--list-objects"]);
    assert_eq!(objects.matches("Private Key Object").count(), 1, "{objects}");
    assert_eq!(objects.matches("Public Key Object").count(), 1, "{objects}");
}

fn a_certification_request_is_signed_for_the_very_key_and_in_the_smki_form_only(brand: Make) {
    let made = made(brand);
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

fn a_token_that_is_not_the_one_expected_is_refused(brand: Make) {
    let made = made(brand);
    let expectations = made.expectations();

    let mut config = made.hsm.config(1);
    "0000000000000000".clone_into(&mut config.serial);
    assert!(matches!(refused(config, expectations.clone()), HsmError::TokenAbsent { .. }));
    let mut config = made.hsm.config(1);
    "another".clone_into(&mut config.label);
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

    let empty = TestToken::of(brand, "empty");
    let absent = refused(empty.config(1), Expectations { keys: Vec::new(), ..expectations });
    assert_eq!(absent, HsmError::GenesisAbsent { expected: GENESIS });
}

fn data_objects_are_replaced_and_read_back(brand: Make) {
    let made = made(brand);
    let token = made.start(made.hsm.config(1));
    assert_eq!(token.read_data("smkid-head").wait().unwrap(), None);
    for value in [&b"one"[..], b"two"] {
        token.write_data("smkid-head", value).wait().unwrap();
        assert_eq!(token.read_data("smkid-head").wait().unwrap().as_deref(), Some(value));
    }
    token.shutdown();
    let objects = made.hsm.pkcs11_tool(&["--token-label", "smki-test", "--list-objects", "--type", "data"]);
    assert_eq!(objects.matches("smkid-head").count(), 1, "{objects}");
}

fn a_second_key_of_the_same_name_makes_both_unusable(brand: Make) {
    let made = made(brand);
    let second = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "recovery", "--id", "33"];
    made.hsm.pkcs11_tool_logged_in(&second);
    let error = refused(made.hsm.config(1), made.expectations());
    assert!(matches!(error, HsmError::KeyDuplicate { count: 2, .. }), "{error:?}");
}

fn a_wrong_signature_never_leaves(brand: Make) {
    let made = made(brand);
    let token = made.start(made.hsm.failing(1, "C_Sign 4 corrupt"));
    let results = sign(&token, "recovery", commands(10));
    let wrong = results.iter().find(|result| result.tag == 3).unwrap();
    assert_eq!(wrong.outcome, Outcome::Unknown(HsmError::WrongSignature(label("recovery"))));
    assert!(results.iter().all(|result| result.tag >= 3 || matches!(result.outcome, Outcome::Signed(_))));
    // What made it is not what signs for this key: nobody is logged in there again by itself.
    eventually("locked", || matches!(token.condition(), Condition::Locked(_)));
    assert_eq!(token.condition(), Condition::Locked(HsmError::WrongSignature(label("recovery"))));
    token.restart().unwrap_err();
}

fn a_fence_stops_the_rest_and_is_answered_at_once(brand: Make) {
    let made = made(brand);
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

fn a_fence_stops_what_was_decided_before_it_and_is_submitted_after_it(brand: Make) {
    let made = made(brand);
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

fn a_signature_costs_one_sign_and_no_login_and_no_look_up(brand: Make) {
    let made = made(brand);
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

fn no_key_of_ours_leaves_its_token_and_an_extractable_one_beside_it_does(brand: Make) {
    use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
    use cryptoki::error::{Error, RvError};
    use cryptoki::mechanism::Mechanism;
    use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass};
    use cryptoki::session::UserType;

    if std::env::var_os(IN_CHILD).is_some() {
        let module = Pkcs11::new(brand.module().unwrap()).unwrap();
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
            Attribute::Private(true),
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
        // Kryoptic has no CKM_AES_KEY_WRAP_PAD, and p11-kit's server hands on no mechanism that wraps with AES.
        let wraps = brand == Make::SoftHsm;
        let wrap = |label: &str| session.wrap_key(&Mechanism::AesKeyWrapPad, wrapping, find(label));
        for ours in ["recovery", "ledger"] {
            assert!(matches!(value(ours), AttributeInfo::Sensitive), "{ours}");
            if wraps {
                assert!(matches!(wrap(ours), Err(Error::Pkcs11(RvError::KeyUnextractable, _))), "{ours}");
            }
        }
        // One key in 256 begins with a zero octet, which SoftHSM leaves out: so what comes out must be the control's very key.
        let AttributeInfo::Available(len @ 1..=32) = value("control") else { panic!("the control has a value") };
        let Attribute::Value(out) = session.get_attributes(find("control"), &[AttributeType::Value]).unwrap().remove(0)
        else {
            panic!("the control's value comes out")
        };
        assert_eq!(out.len(), len);
        let scalar = [vec![0; 32 - len], out].concat();
        let of_control = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Label("control".into())];
        let public = session.find_objects(&of_control).unwrap()[0];
        let Attribute::EcPoint(point) = session.get_attributes(public, &[AttributeType::EcPoint]).unwrap().remove(0)
        else {
            panic!("the control has a point")
        };
        let point = point.strip_prefix(&[0x04, 0x41]).unwrap();
        let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = ring::rand::SystemRandom::new();
        ring::signature::EcdsaKeyPair::from_private_key_and_public_key(algorithm, &scalar, point, &random).unwrap();
        if wraps {
            wrap("control").unwrap();
        }
        return;
    }
    let made = made(brand);
    let module = match brand {
        Make::SoftHsm => "soft_hsm",
        Make::Kryoptic => "kryoptic",
        Make::P11Kit => "p11_kit",
    };
    let name = "no_key_of_ours_leaves_its_token_and_an_extractable_one_beside_it_does";
    let child = this_test(&made.hsm, &format!("hsm::modules::{module}::{name}")).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let exports = |key: &str| {
        let url = format!("pkcs11:token=smki-test;object={key};type=private");
        let provider = format!("--provider={}", made.hsm.module().display());
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
        material: None,
    });
    let error = refused(made.hsm.config(1), expectations);
    assert!(matches!(&error, HsmError::KeyUnfit { attribute, .. } if attribute == "CKA_SENSITIVE"), "{error:?}");
}

/// A wrong PIN, offered with a vendor's tool; what the token answered.
fn offer_wrong_pin(token: &TestToken) -> String {
    let mut command = token.command("pkcs11-tool");
    command.arg("--module").arg(token.module()).args([
        "--token-label",
        &token.label,
        "--login",
        "--pin",
        "a-wrong-pin",
    ]);
    let output = command.arg("--list-objects").output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_token_that_locks_its_pin_is_never_offered_the_last_try() {
    if Make::Kryoptic.module().is_none() {
        return;
    }
    let made = made(Make::Kryoptic);
    let risk = |flag: &str| HsmError::PinAtRisk { flag: flag.to_owned() };
    // Kryoptic permits ten tries. With two left it says that the count is low, which is no reason to stay away: one good login
    // puts the count back.
    for _ in 0..8 {
        assert!(offer_wrong_pin(&made.hsm).contains("CKR_PIN_INCORRECT"));
    }
    made.start(made.hsm.config(1)).shutdown();
    for _ in 0..8 {
        offer_wrong_pin(&made.hsm);
    }
    // Our own wrong PIN is the ninth; before the tenth, which would lock it, the token is left alone, restart after restart.
    let start = |pin: &str| {
        let script = "C_Login 0 kill";
        let config = made.hsm.failing(1, script);
        Token::start(config, SecretString::from(pin), made.expectations()).map(|_| ()).unwrap_err()
    };
    let refused = start("a-wrong-pin");
    assert!(is_wrong_pin(&refused), "{refused}");
    assert_eq!(made.hsm.calls("C_Login"), 1);
    for _ in 0..3 {
        assert_eq!(start(PIN), risk("CKF_USER_PIN_FINAL_TRY"));
        assert_eq!(made.hsm.calls("C_Login"), 0);
    }
    assert!(offer_wrong_pin(&made.hsm).contains("CKR_PIN_LOCKED"));
    assert_eq!(start(PIN), risk("CKF_USER_PIN_LOCKED"));
    assert_eq!(made.hsm.calls("C_Login"), 0);
    // The security officer sets it anew, and everything is as before.
    made.hsm.init_pin();
    let token = made.start(made.hsm.config(1));
    assert_eq!(tally(&sign(&token, "recovery", commands(10)), 10), [10, 0, 0, 0]);
}

#[test]
fn an_hsm_that_is_killed_leaves_unknown_what_it_had_in_its_hands_and_serves_again_once_it_is_back() {
    let mut made = made(Make::P11Kit);
    made.hsm.kill_server();
    // So slow that the answers before it are not held back for others to go with.
    made.hsm.serve_failing("C_Sign * delay 2ms\nC_Sign 3 hang-after");
    let token = made.start(made.hsm.config(1));
    let mut results = token.sign(&label("recovery"), commands(20), Timestamp::MAX).unwrap();
    let mut all = vec![results.wait_next().unwrap(), results.wait_next().unwrap()];
    eventually("the third signature is made, and its answer still there", || made.hsm.calls("C_Sign") == 3);
    made.hsm.kill_server();
    all.extend(results.wait_all());
    let [signed, failed, not_signed, unknown] = tally(&all, 20);
    assert_eq!((signed, failed, not_signed, unknown), (2, 0, 17, 1));
    eventually("its worker is gone", || matches!(token.condition(), Condition::Down(_)));
    // While it is away each try says what is the matter, and none of them locks the token.
    let away = token.restart().unwrap_err();
    assert_eq!((away.certainty(), away.locks()), (Certainty::NothingSigned, false), "{away}");
    made.hsm.serve();
    token.restart().unwrap();
    assert_eq!(tally(&sign(&token, "recovery", commands(20)), 20), [20, 0, 0, 0]);
}

#[test]
fn an_hsm_that_is_killed_between_two_signatures_costs_none_that_it_has_not_seen() {
    let mut made = made(Make::P11Kit);
    let token = made.start(made.hsm.config(2));
    assert_eq!(tally(&sign(&token, "recovery", commands(20)), 20), [20, 0, 0, 0]);
    made.hsm.kill_server();
    // The connection is known to be dead at the first call: CKR_DEVICE_ERROR out of C_SignInit, so that nothing was signed.
    let [signed, _, _, unknown] = tally(&sign(&token, "recovery", commands(20)), 20);
    assert_eq!((signed, unknown), (0, 0));
    eventually("its worker is gone", || matches!(token.condition(), Condition::Down(_)));
    made.hsm.serve();
    token.restart().unwrap();
    assert_eq!(tally(&sign(&token, "recovery", commands(20)), 20), [20, 0, 0, 0]);
}
