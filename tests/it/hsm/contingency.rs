//! What stands beside a contingency key: made, checked, compared and let out, on real tokens.
//!
//! SoftHSM holds to `CKA_WRAP_WITH_TRUSTED`, and lets none but the security officer mark a key as trusted. Kryoptic lets the user too, so
//! there a policy that wants the key guarded is refused, and an exercise does without. p11-kit's server passes no AES key wrap on.

use std::time::Duration;

use secrecy::SecretString;
use smkid::domain::certificates::apex::{WrapAlgorithm, WrapParameters, WrappedApexKey};
use smkid::domain::certificates::signature::PublicKey;
use smkid::domain::gbcs::SymmetricKey;
use smkid::domain::names::{Digest, KeyId, KeyLabel, KeyUse};
use smkid::domain::time::Timestamp;
use smkid::hsm::{
    Compared, Condition, Expectations, ExpectedKey, HsmError, KeyReport, Kind, Material, Outcome, PinSource, Several,
    ToSign, Token, TokenConfig,
};
use zeroize::Zeroizing;

use super::{command, label, pin, sign_one};
use crate::support::copies::clone_token;
use crate::support::token::{Make, SO_PIN, TestToken};

const PAIR: &str = "contingency-1";
const PAIR_ID: KeyId = KeyId([9; 16]);
const MATERIAL: Material =
    Material { symmetric: KeyId([0x51; 16]), wrapping: KeyId([0x57; 16]), bits: 256, wrap_with_trusted: true };
/// As an exercise's policy has it for a module that does not guard the key.
const UNGUARDED: Material = Material { wrap_with_trusted: false, ..MATERIAL };

/// The wrapping key, made by the security officer, in a login of its own.
fn make_trusted(hsm: &TestToken) {
    let officer = PinSource::Officer(SecretString::from(SO_PIN));
    let (token, report) = Token::start(hsm.config(1), officer, Expectations::default()).unwrap();
    assert_eq!(report.sessions, 0, "a security officer signs nothing");
    token.make_wrapping(label(PAIR), MATERIAL.wrapping).wait().unwrap();
    token.shutdown();
}

/// A token after its ceremony: the pair, and what stands beside it. It is logged in.
struct Beside {
    hsm: TestToken,
    token: Token,
    pair: KeyReport,
}

impl Beside {
    /// The pair, its wrapping key, and no symmetric key yet.
    fn half(make: Make, material: Material) -> Self {
        let hsm = TestToken::of(make, "smki-test");
        if material.wrap_with_trusted {
            make_trusted(&hsm);
        }
        let (token, _) = Token::start(hsm.config(1), pin(), Expectations::default()).unwrap();
        let pair = token.generate_key(label(PAIR), PAIR_ID, KeyUse::Contingency).wait().unwrap();
        if !material.wrap_with_trusted {
            token.make_wrapping(label(PAIR), material.wrapping).wait().unwrap();
        }
        Self { hsm, token, pair }
    }

    fn of(make: Make, material: Material) -> Self {
        let beside = Self::half(make, material);
        beside.token.make_symmetric(label(PAIR), material).wait().unwrap();
        beside
    }

    fn expectations(&self, material: Material) -> Expectations {
        let KeyReport { label, id, use_, spki } = self.pair.clone();
        let key = ExpectedKey { label, id, use_, spki: Some(spki), cloned: false, material: Some(material) };
        Expectations { keys: vec![key], genesis: None, origin: None }
    }

    fn start(&self, material: Material) -> Result<Token, HsmError> {
        Token::start(self.hsm.config(1), pin(), self.expectations(material)).map(|(token, _)| token)
    }

    fn compare(&self, extension: &WrappedApexKey) -> Compared {
        self.token.compare_wrapped(label(PAIR), extension.to_der()).wait().unwrap()
    }
}

fn release(token: &Token, key: &KeyLabel) -> Result<SymmetricKey, HsmError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(token.release_symmetric(key))
}

/// What is let out unwraps, in software, what the token wrapped, to the pair's own public half.
fn whole(make: Make, material: Material) {
    let beside = Beside::of(make, material);
    let token = &beside.token;
    let extension = token.wrap_public(label(PAIR)).wait().unwrap();
    assert_ne!(extension, token.wrap_public(label(PAIR)).wait().unwrap(), "each has a nonce of its own");
    let extension = WrappedApexKey::from_der(&extension).unwrap();
    let algorithm = if material.bits == 128 { WrapAlgorithm::Aes128Gcm } else { WrapAlgorithm::Aes256Gcm };
    assert_eq!(extension.algorithm(), algorithm);
    assert_eq!(beside.compare(&extension), Compared::Matches);
    let key = release(token, &label(PAIR)).unwrap();
    assert_eq!(key.octets().len(), algorithm.key_len());
    assert_eq!(extension.unwrap_with(&key).unwrap(), beside.pair.spki);
    assert_eq!(release(token, &label(PAIR)).unwrap().octets(), key.octets(), "a second release is of the same key");

    // Altered, and of another pair.
    let parameters = extension.parameters();
    let mut octets = extension.wrapped().to_vec();
    *octets.last_mut().unwrap() ^= 1;
    let altered = WrappedApexKey::new(algorithm, parameters, octets).unwrap();
    let failed = beside.compare(&altered);
    assert!(matches!(&failed, Compared::Failed(why) if why.contains("does not open it")), "{failed:?}");
    let other = token.generate_key(label("contingency-2"), KeyId([8; 16]), KeyUse::Contingency).wait().unwrap();
    let public = PublicKey::from_spki(&other.spki).unwrap();
    let differs = beside.compare(&WrappedApexKey::wrap(&public, &key, algorithm, parameters).unwrap());
    let both = [Digest::of(&other.spki), Digest::of(&beside.pair.spki)].map(|digest| digest.to_string());
    assert!(matches!(&differs, Compared::Differs(why) if both.iter().all(|one| why.contains(one))), "{differs:?}");
    // Wrapped by what the token does not do, and by a key of another size: said plainly.
    let iv = WrapParameters::Cbc { iv: [7; 16] };
    let cbc = if material.bits == 128 { WrapAlgorithm::Aes128Cbc } else { WrapAlgorithm::Aes256Cbc };
    let failed = beside.compare(&WrappedApexKey::wrap(&public, &key, cbc, iv).unwrap());
    assert!(matches!(&failed, Compared::Failed(why) if why.contains("only what is wrapped by AES-GCM")), "{failed:?}");
    let short = SymmetricKey::new(&[7; 16]).unwrap();
    let long = SymmetricKey::new(&[7; 32]).unwrap();
    let (another, wrong) =
        if material.bits == 128 { (WrapAlgorithm::Aes256Gcm, &long) } else { (WrapAlgorithm::Aes128Gcm, &short) };
    let failed = beside.compare(&WrappedApexKey::wrap(&public, wrong, another, parameters).unwrap());
    assert!(matches!(&failed, Compared::Failed(why) if why.contains("the symmetric key has")), "{failed:?}");

    // The other pair has nothing beside it; and the worker goes on after all that was refused.
    assert_eq!(release(token, &label("contingency-2")).unwrap_err(), HsmError::NoMaterial(label("contingency-2")));
    assert!(matches!(sign_one(token, PAIR, Kind::Command, &command(9, 1)), Outcome::Signed(_)));
    // A token that is locked lets nothing out, nor does it compare.
    token.shutdown();
    assert_eq!(release(token, &label(PAIR)).unwrap_err(), HsmError::Locked);
    assert_eq!(token.compare_wrapped(label(PAIR), extension.to_der()).wait(), Err(HsmError::Locked));
}

#[test]
fn what_softhsm_lets_out_unwraps_what_it_wrapped() {
    whole(Make::SoftHsm, MATERIAL);
    whole(Make::SoftHsm, Material { bits: 128, ..MATERIAL });
}

#[test]
fn kryoptic_does_the_same_and_is_refused_where_the_key_is_to_be_guarded() {
    if Make::Kryoptic.module().is_none() {
        return;
    }
    whole(Make::Kryoptic, UNGUARDED);
    let Beside { hsm, token, pair } = Beside::half(Make::Kryoptic, MATERIAL);
    let refused = token.make_symmetric(label(PAIR), MATERIAL).wait().unwrap_err();
    let HsmError::NotGuarded { why, .. } = &refused else { panic!("{refused:?}") };
    assert!(why.contains("CKA_TRUSTED"), "{refused}");
    token.shutdown();
    let listed = hsm.pkcs11_tool_logged_in(&["--list-objects", "--type", "secrkey"]);
    assert!(listed.contains("contingency-1-wrapping") && !listed.contains("contingency-1-symmetric"), "{listed}");

    // Cut off between the making and the trial, the key stands and looks as it should: it is tried before it wraps anything.
    let expected = |material| {
        let (label, id, spki) = (label(PAIR), PAIR_ID, Some(pair.spki.clone()));
        let key = ExpectedKey { label, id, use_: KeyUse::Contingency, spki, cloned: false, material };
        Expectations { keys: vec![key], genesis: None, origin: None }
    };
    let (token, _) = Token::start(hsm.failing(1, "C_WrapKey 1 kill"), pin(), expected(None)).unwrap();
    token.make_symmetric(label(PAIR), MATERIAL).wait().unwrap_err();
    token.shutdown();
    let (token, _) = Token::start(hsm.config(1), pin(), expected(Some(MATERIAL))).unwrap();
    let refused = token.wrap_public(label(PAIR)).wait().unwrap_err();
    assert!(matches!(refused, HsmError::NotGuarded { .. }), "{refused}");
}

#[test]
fn a_module_without_aes_key_wrap_is_told_before_anything_is_made() {
    let hsm = TestToken::of(Make::P11Kit, "smki-test");
    let (token, _) = Token::start(hsm.config(1), pin(), Expectations::default()).unwrap();
    token.generate_key(label(PAIR), PAIR_ID, KeyUse::Contingency).wait().unwrap();
    let refused = token.make_wrapping(label(PAIR), MATERIAL.wrapping).wait().unwrap_err();
    assert_eq!(refused, HsmError::MechanismAbsent { mechanism: "CKM_AES_KEY_WRAP".to_owned() });
}

#[test]
fn the_symmetric_key_is_wrapped_by_the_trusted_key_alone() {
    let beside = Beside::of(Make::SoftHsm, MATERIAL);
    beside.token.shutdown();
    let tool = |arguments: &[&str]| {
        let login =
            ["--module", beside.hsm.module().to_str().unwrap(), "--token-label", "smki-test", "--login", "--pin"];
        let output =
            beside.hsm.command("pkcs11-tool").args(login).arg(crate::support::token::PIN).args(arguments).output();
        let output = output.unwrap();
        (output.status.success(), [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat())
    };
    let (_, listed) = tool(&["--list-objects", "--type", "secrkey"]);
    let symmetric = &listed[listed.find("contingency-1-symmetric").unwrap()..];
    assert!(symmetric.contains("sensitive, always sensitive, extractable"), "{listed}");
    // A wrapping key that the user makes wraps one of the user's own, and not this one.
    assert!(tool(&["--keygen", "--key-type", "AES:32", "--id", "a1", "--label", "self-made", "--usage-wrap"]).0);
    assert!(tool(&["--keygen", "--key-type", "AES:32", "--id", "a2", "--label", "control", "--extractable"]).0);
    let out = beside.hsm.dir().join("wrapped");
    let wrap = |key: &str, by: &str| {
        let ids = ["--id", by, "--application-id", key, "--output-file", out.to_str().unwrap()];
        tool(&[&["--wrap", "--mechanism", "AES-KEY-WRAP"][..], &ids].concat())
    };
    let (done, said) = wrap("a2", "a1");
    assert!(done, "the control must wrap, or the other proves nothing: {said}");
    let (done, said) = wrap(&"51".repeat(16), "a1");
    assert!(!done && said.contains("CKR_KEY_NOT_WRAPPABLE"), "{said}");
    // Nor is its value read.
    let read = tool(&["--read-object", "--type", "secrkey", "--id", &"51".repeat(16)]);
    assert!(!read.0 || read.1.contains("CKR_ATTRIBUTE_SENSITIVE"), "{}", read.1);
}

#[test]
fn what_stands_beside_the_key_is_checked_at_each_login() {
    let beside = Beside::of(Make::SoftHsm, MATERIAL);
    beside.token.shutdown();
    beside.start(MATERIAL).unwrap().shutdown();
    let refused = |material: Material| beside.start(material).map(|_| ()).unwrap_err();
    let other = KeyId([0x77; 16]);
    let absent = refused(Material { wrapping: other, ..MATERIAL });
    assert!(
        matches!(&absent, HsmError::KeyAbsent { id, class, .. } if *id == other && class == "wrapping key"),
        "{absent}"
    );
    let absent = refused(Material { symmetric: other, ..MATERIAL });
    assert!(matches!(&absent, HsmError::KeyAbsent { class, .. } if class == "Contingency Symmetric Key"), "{absent}");
    let unfit = refused(Material { bits: 128, ..MATERIAL });
    assert!(unfit.to_string().contains("CKA_VALUE_LEN of the Contingency Symmetric Key 16, found 32"), "{unfit}");

    // A key in its place that is not guarded, made with the user's PIN alone, is not taken for it.
    let delete = |name: &str| {
        beside.hsm.pkcs11_tool_logged_in(&["--delete-object", "--type", "secrkey", "--label", name]);
    };
    delete("contingency-1-symmetric");
    let make =
        ["--keygen", "--key-type", "AES:32", "--label", "contingency-1-symmetric", "--sensitive", "--extractable"];
    beside.hsm.pkcs11_tool_logged_in(&[&make[..], &["--usage-decrypt", "--id", &"51".repeat(16)]].concat());
    let unfit = refused(MATERIAL);
    assert!(matches!(&unfit, HsmError::KeyUnfit { .. }) && unfit.locks(), "{unfit}");
    assert!(unfit.to_string().contains("of the Contingency Symmetric Key"), "{unfit}");
    // With a clean token once more; a second of the name makes both unusable.
    delete("contingency-1-symmetric");
    assert!(matches!(refused(MATERIAL), HsmError::KeyAbsent { .. }));
}

#[test]
fn a_destroyed_contingency_key_takes_its_symmetric_key_along() {
    let beside = Beside::of(Make::SoftHsm, MATERIAL);
    let KeyReport { label: name, id, spki, .. } = beside.pair.clone();
    let destroy = || beside.token.destroy_key(name.clone(), id, Digest::of(&spki), Some(MATERIAL)).wait();
    destroy().unwrap();
    // Cut off and done again, it is as good.
    destroy().unwrap();
    beside.token.shutdown();
    let listed = beside.hsm.pkcs11_tool_logged_in(&["--list-objects"]);
    assert!(!listed.contains(PAIR), "{listed}");
}

#[test]
fn the_daemon_forgets_the_symmetric_key_when_the_key_is_locked() {
    let beside = Beside::of(Make::SoftHsm, MATERIAL);
    let several = Several::new(label(PAIR));
    assert!(several.add(beside.token.clone()).is_none());
    assert!(several.symmetric().is_none(), "none was released");
    let key = release(&beside.token, &label(PAIR)).unwrap();
    several.hold_symmetric(key.clone());
    assert_eq!(several.symmetric().unwrap().octets(), key.octets());
    assert!(!format!("{several:?} {key:?}").contains(&hex::encode(key.octets())), "no Debug shows it");
    several.shutdown();
    assert!(several.symmetric().is_none());

    // The same where the token locks by itself.
    let token = beside.start(MATERIAL).unwrap();
    let several = Several::new(label(PAIR));
    assert!(several.add(token.clone()).is_none());
    several.hold_symmetric(key);
    token.shutdown();
    assert!(matches!(token.condition(), Condition::Locked(_)));
    assert!(several.symmetric().is_none());
}

#[test]
fn a_release_that_hangs_or_fails_gives_nothing_and_can_be_asked_for_again() {
    let beside = Beside::of(Make::SoftHsm, MATERIAL);
    let key = release(&beside.token, &label(PAIR)).unwrap();
    beside.token.shutdown();
    let start = |script: &str| {
        let config = TokenConfig { call_deadline: Duration::from_secs(2), ..beside.hsm.failing(1, script) };
        Token::start(config, pin(), beside.expectations(MATERIAL)).unwrap().0
    };
    let hung = start("C_UnwrapKey 1 hang");
    let overrun = release(&hung, &label(PAIR)).unwrap_err();
    assert!(matches!(overrun, HsmError::Overrun { .. }), "{overrun}");
    hung.restart().unwrap();
    assert_eq!(release(&hung, &label(PAIR)).unwrap().octets(), key.octets());
    hung.shutdown();
    // The first wrapping is under the trusted key, the second under the key of the moment.
    for call in ["C_WrapKey 1", "C_WrapKey 2", "C_UnwrapKey 1", "C_CreateObject 1"] {
        let failing = start(&format!("{call} return CKR_FUNCTION_FAILED"));
        let failed = release(&failing, &label(PAIR)).unwrap_err();
        assert!(matches!(&failed, HsmError::Call(fault) if call.starts_with(&fault.function)), "{call}: {failed}");
        failing.shutdown();
    }
}

#[test]
fn a_key_on_two_tokens_signs_on_both_with_what_the_one_has_released() {
    let beside = Beside::of(Make::SoftHsm, MATERIAL);
    beside.token.shutdown();
    let serial: String = beside.hsm.serial.chars().rev().collect();
    clone_token(&beside.hsm.dir().join("tokens"), &beside.hsm.serial, &serial);
    let first = beside.start(MATERIAL).unwrap();
    let config = TokenConfig { name: "its-clone".parse().unwrap(), serial, ..beside.hsm.config(1) };
    let mut expectations = beside.expectations(MATERIAL);
    // The ledger knows of the material on the token of its ceremony alone.
    (expectations.keys[0].cloned, expectations.keys[0].material) = (true, None);
    let (second, _) = Token::start(config, pin(), expectations).unwrap();
    let several = Several::new(label(PAIR));
    for token in [&first, &second] {
        assert!(several.add(token.clone()).is_none());
    }
    assert_eq!(release(&second, &label(PAIR)).unwrap_err(), HsmError::NoMaterial(label(PAIR)));
    several.hold_symmetric(release(&first, &label(PAIR)).unwrap());

    let commands = (0..400).map(|n| {
        let octets = Zeroizing::new(command(9, n));
        let range = 0..octets.len();
        ToSign::secret(n, Kind::Command, octets, range).unwrap()
    });
    let commands: Vec<ToSign> = commands.collect();
    assert!(!format!("{:?}", commands[0]).contains("238, 238"), "no Debug shows what is inside");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let signed = runtime.block_on(several.sign_decided(several.fences_seen(), commands, Timestamp::MAX)).unwrap();
    assert!(signed.iter().all(|result| matches!(result.outcome, Outcome::Signed(_))) && signed.len() == 400);
    let made = [&first, &second].map(Token::signatures);
    assert!(made.iter().all(|made| *made > 0) && made.iter().sum::<u64>() == 400, "{made:?}");

    // One of them locked, the other goes on, and the key is still held; with the last it is forgotten.
    second.shutdown();
    assert!(several.symmetric().is_some());
    first.shutdown();
    assert!(several.symmetric().is_none());
}
