//! Keys in memory, a lab SMKI PKI, and openssl in a scratch folder as the oracle.

use std::path::PathBuf;
use std::process::{Command, Output};

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use smkid::domain::certificates::bodies::{Particulars, Template, assemble, tbs};
use smkid::domain::certificates::profile::{TEST_DEVICE_POLICY, TEST_ORGANISATION_POLICY};
use smkid::domain::certificates::signature::PublicKey;
use smkid::domain::certificates::{Profile, SmkiCertificate, pem};

/// A key pair in memory.
pub struct Key {
    pair: EcdsaKeyPair,
    pub public: PublicKey,
}

impl Key {
    pub fn generate() -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
        let public = PublicKey::from_point(pair.public_key().as_ref()).unwrap();
        Self { pair, public }
    }

    pub fn sign(&self, octets: &[u8]) -> [u8; 64] {
        self.pair.sign(&SystemRandom::new(), octets).unwrap().as_ref().try_into().unwrap()
    }
}

/// A certificate and its key.
pub struct Holder {
    pub key: Key,
    pub certificate: SmkiCertificate,
}

/// Issues certificates in the profile, each with a serial number of its own.
pub fn issue(template: &Template, key: Key, issuer: Option<&Holder>, validity: (&str, &str)) -> Holder {
    let octets = issue_octets(template, &key, issuer, validity);
    let certificate = SmkiCertificate::parse(&octets, &Profile::test()).unwrap();
    Holder { key, certificate }
}

pub fn issue_octets(template: &Template, key: &Key, issuer: Option<&Holder>, validity: (&str, &str)) -> Vec<u8> {
    let serial = Key::generate().public.point()[1..16].to_vec();
    let serial: Vec<u8> = [&[0x01], serial.as_slice()].concat();
    let policy = match template {
        Template::Device { .. } | Template::DeviceCa { .. } => TEST_DEVICE_POLICY,
        Template::Organisation { .. } | Template::IssuingOca { .. } | Template::RootOca { .. } => {
            TEST_ORGANISATION_POLICY
        }
    };
    let particulars = Particulars {
        serial: &serial,
        not_before: validity.0.parse().unwrap(),
        not_after: validity.1.parse().unwrap(),
        key: &key.public,
        policy,
    };
    let body = tbs(template, &particulars, issuer.map(|holder| &holder.certificate)).unwrap();
    let signer = issuer.map_or(key, |holder| &holder.key);
    assemble(&body, &signer.sign(&body)).unwrap()
}

/// Ten years around the days the tests run in.
pub const VALIDITY: (&str, &str) = ("2020-01-01T00:00:00Z", "2045-12-31T23:59:59Z");

/// A Root OCA, an Issuing OCA below it, and a CA for Devices.
pub struct Lab {
    pub root: Holder,
    pub issuing: Holder,
    pub device_ca: Holder,
}

impl Lab {
    pub fn new() -> Self {
        let root =
            issue(&Template::RootOca { common_name: "ZA".into(), contingency: None }, Key::generate(), None, VALIDITY);
        let issuing = issue(&Template::IssuingOca { common_name: "Z1".into() }, Key::generate(), Some(&root), VALIDITY);
        let device_ca = issue(&Template::DeviceCa { common_name: "E357".into() }, Key::generate(), None, VALIDITY);
        Self { root, issuing, device_ca }
    }
}

/// A folder of its own to run openssl in.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, octets: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), octets).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    pub fn write_certificate(&self, name: &str, certificate: &[u8]) {
        self.write(name, pem::certificate_to_pem(certificate));
    }

    /// Runs openssl with arguments separated by spaces.
    pub fn run(&self, arguments: &str) -> Output {
        Command::new("openssl").args(arguments.split_whitespace()).current_dir(self.0.path()).output().unwrap()
    }

    /// Runs openssl, which must succeed. Answers what it said.
    #[track_caller]
    pub fn openssl(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success(), "openssl {arguments}: {said}");
        said
    }
}
