//! What stands beside a contingency key: made, checked, compared and let out, on real tokens.
//!
//! SoftHSM, alone and behind p11-kit's server, holds to `CKA_WRAP_WITH_TRUSTED`; Kryoptic does too, but lets the user mark a key as
//! trusted, so there the ceremony refuses it and an exercise does without.

use secrecy::SecretString;
use smkid::domain::names::{KeyId, KeyLabel, KeyUse};
use smkid::hsm::{Compared, Expectations, ExpectedKey, HsmError, KeyReport, Material, PinSource, Token};

use super::{label, pin};
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
    fn of(make: Make, material: Material) -> Self {
        let hsm = TestToken::of(make, "smki-test");
        if material.wrap_with_trusted {
            make_trusted(&hsm);
        }
        let (token, _) = Token::start(hsm.config(1), pin(), Expectations::default()).unwrap();
        let pair = token.generate_key(label(PAIR), PAIR_ID, KeyUse::Contingency).wait().unwrap();
        if !material.wrap_with_trusted {
            token.make_wrapping(label(PAIR), material.wrapping).wait().unwrap();
        }
        token.make_symmetric(label(PAIR), material).wait().unwrap();
        Self { hsm, token, pair }
    }

    fn expectations(&self, material: Material) -> Expectations {
        let KeyReport { label, id, use_, spki } = self.pair.clone();
        let key = ExpectedKey { label, id, use_, spki: Some(spki), cloned: false, material: Some(material) };
        Expectations { keys: vec![key], genesis: None, origin: None }
    }
}

fn release(token: &Token, key: &KeyLabel) -> Result<Vec<u8>, HsmError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(token.release_symmetric(key)).map(|key| key.octets().to_vec())
}

fn whole(make: Make, material: Material) {
    let Beside { hsm: _, token, pair } = &Beside::of(make, material);
    let extension = token.wrap_public(label(PAIR)).wait().unwrap();
    assert_ne!(extension, token.wrap_public(label(PAIR)).wait().unwrap(), "each has a nonce of its own");
    assert_eq!(token.compare_wrapped(label(PAIR), extension.clone()).wait().unwrap(), Compared::Matches);
    let mut altered = extension.clone();
    *altered.last_mut().unwrap() ^= 1;
    let failed = token.compare_wrapped(label(PAIR), altered).wait().unwrap();
    assert!(matches!(&failed, Compared::Failed(why) if why.contains("does not open it")), "{failed:?}");
    let key = release(token, &label(PAIR)).unwrap();
    assert_eq!(key.len(), 32);
    assert_eq!(release(token, &label(PAIR)).unwrap(), key, "a second release is of the same key");
    let _ = pair;
}

#[test]
fn soft_hsm() {
    whole(Make::SoftHsm, MATERIAL);
}

#[test]
fn p11_kit() {
    whole(Make::P11Kit, MATERIAL);
}

#[test]
fn kryoptic() {
    if Make::Kryoptic.module().is_some() {
        whole(Make::Kryoptic, UNGUARDED);
    }
}
