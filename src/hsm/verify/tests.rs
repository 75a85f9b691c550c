use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use super::*;

#[test]
fn a_signature_verifies_over_its_own_octets_under_its_own_key_only() {
    let random = SystemRandom::new();
    let pair = || {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
    };
    let (ours, other) = (pair(), pair());
    let point = PublicPoint::from_octets(ours.public_key().as_ref()).unwrap();
    let signature: [u8; 64] = ours.sign(&random, b"octets").unwrap().as_ref().try_into().unwrap();
    assert!(point.verifies(b"octets", &signature));
    assert!(!point.verifies(b"octetS", &signature));
    assert!(!PublicPoint::from_octets(other.public_key().as_ref()).unwrap().verifies(b"octets", &signature));
    for n in 0..64 {
        let mut wrong = signature;
        wrong[n] ^= 1;
        assert!(!point.verifies(b"octets", &wrong), "octet {n}");
    }
    let spki = point.to_spki();
    assert_eq!(spki.len(), 91);
    assert_eq!(PublicPoint::from_spki(&spki), Some(point));
    assert_eq!(PublicPoint::from_spki(&spki[..90]), None);
    assert_eq!(PublicPoint::from_spki(&[&spki[..], &[0]].concat()), None);
    let mut compressed = *point.octets();
    compressed[0] = 0x02;
    assert_eq!(PublicPoint::from_octets(&compressed), None);
}

#[test]
fn the_pool_does_every_job_given_to_it() {
    let (done, jobs) = mpsc::channel();
    for n in 0..100 {
        let done = done.clone();
        Pool::shared().submit(move || done.send(n).unwrap());
    }
    drop(done);
    let mut seen: Vec<u32> = jobs.iter().collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}
