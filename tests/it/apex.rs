//! The Contingency Public Key in a Root OCA Certificate, unwrapped by tools that are not ours, as src/docs/contingency.md says.

use std::io::Write as _;
use std::process::{Command, Stdio};

use smkid::domain::certificates::apex::{WrapAlgorithm, WrapParameters, WrappedApexKey};
use smkid::domain::certificates::pem;
use smkid::domain::certificates::signature::PublicKey;
use smkid::domain::gbcs::SymmetricKey;
use smkid::exercise::lab::{Lab, SoftKey, random};
use smkid::wall_clock::wall_clock;

use crate::lab::Scratch;

const PAGE: &str = include_str!("../../src/docs/contingency.md");

/// The block of code that stands behind a mark in the page.
fn block(mark: &str) -> &'static str {
    let (_, after) = PAGE.split_once(&format!("<!-- {mark} -->\n")).unwrap_or_else(|| panic!("{mark} is not marked"));
    let (_, code) = after.strip_prefix("```").and_then(|after| after.split_once('\n')).unwrap();
    code.split_once("```").unwrap().0
}

/// A contingency key pair's public half, in the Root OCA Certificate `root.pem`, wrapped with a symmetric key.
struct Wrapped {
    scratch: Scratch,
    public: PublicKey,
    symmetric: SymmetricKey,
    field: WrappedApexKey,
}

impl Wrapped {
    fn new(algorithm: WrapAlgorithm) -> Self {
        let public = *SoftKey::generate().unwrap().public();
        let octets = random::<32>().unwrap();
        let symmetric = SymmetricKey::new(&octets[..algorithm.key_len()]).unwrap();
        let parameters = match algorithm {
            WrapAlgorithm::Aes128WrapPad | WrapAlgorithm::Aes256WrapPad => WrapParameters::None,
            WrapAlgorithm::Aes128Gcm | WrapAlgorithm::Aes256Gcm => {
                WrapParameters::Gcm { nonce: random().unwrap(), icv_len: 16 }
            }
            WrapAlgorithm::Aes128Cbc | WrapAlgorithm::Aes256Cbc => WrapParameters::Cbc { iv: random().unwrap() },
        };
        let wrapped = WrappedApexKey::wrap(&public, &symmetric, algorithm, parameters).unwrap();
        let mut lab = Lab::new(wall_clock()).unwrap();
        lab.carry(wrapped.clone()).unwrap();
        let scratch = Scratch::new();
        scratch.write_certificate("root.pem", lab.root_oca().octets());
        Self { scratch, public, symmetric, field: wrapped }
    }

    fn key(&self) -> String {
        hex::encode(self.symmetric.octets())
    }

    /// Runs lines of a shell in the folder, `KEY` being the symmetric key.
    fn shell(&self, lines: &str) -> bool {
        let mut shell = Command::new("sh");
        shell.args(["-eu", "-c", lines]).env("KEY", self.key()).current_dir(self.scratch.path("."));
        shell.status().unwrap().success()
    }

    /// Runs the page's Python with this key. What it wrote, if it did.
    fn python(&self, key: &str) -> Option<Vec<u8>> {
        self.scratch.write("unwrap.py", block("python"));
        let mut python = Command::new("python3");
        python.args(["unwrap.py", "root.pem"]).current_dir(self.scratch.path("."));
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        output.status.success().then_some(output.stdout)
    }
}

#[test]
fn python_cryptography_unwraps_every_algorithm_of_the_table() {
    for algorithm in WrapAlgorithm::ALL {
        let made = Wrapped::new(algorithm);
        let spki = made.public.to_spki();
        assert_eq!(made.field.unwrap_with(&made.symmetric).unwrap(), spki);
        assert_eq!(made.python(&made.key()).as_deref(), Some(&spki[..]), "{algorithm}");
        let wrong = hex::encode(vec![0x5A; algorithm.key_len()]);
        assert_ne!(made.python(&wrong).as_deref(), Some(&spki[..]), "{algorithm}");
    }
}

#[test]
fn openssl_unwraps_all_but_gcm() {
    for (algorithm, mark, written, meant) in [
        (WrapAlgorithm::Aes128WrapPad, "openssl: wrap-pad", "-id-aes256-wrap-pad", "-id-aes128-wrap-pad"),
        (WrapAlgorithm::Aes256WrapPad, "openssl: wrap-pad", "-id-aes256-wrap-pad", "-id-aes256-wrap-pad"),
        (WrapAlgorithm::Aes128Cbc, "openssl: cbc", "-aes-256-cbc", "-aes-128-cbc"),
        (WrapAlgorithm::Aes256Cbc, "openssl: cbc", "-aes-256-cbc", "-aes-256-cbc"),
    ] {
        let made = Wrapped::new(algorithm);
        assert!(PAGE.contains(&format!("`{meant}`")) || written == meant, "{algorithm} is not in the page");
        assert!(made.shell(block("openssl: extension")));
        assert_eq!(made.scratch.read("extension.der"), made.field.to_der(), "{algorithm}");
        let unwrap = block(mark).replace(written, meant);
        assert!(made.shell(&unwrap), "{algorithm}");
        assert_eq!(made.scratch.read("public.der"), made.public.to_spki(), "{algorithm}");
        assert!(made.shell(block("openssl: public")));
        assert_eq!(made.scratch.text("public.pem"), pem::public_key_to_pem(&made.public));
    }
}

#[test]
fn what_openssl_wraps_is_unwrapped() {
    for (algorithm, cipher) in [
        (WrapAlgorithm::Aes128WrapPad, "-id-aes128-wrap-pad -iv A65959A6"),
        (WrapAlgorithm::Aes256WrapPad, "-id-aes256-wrap-pad -iv A65959A6"),
        (WrapAlgorithm::Aes128Cbc, "-aes-128-cbc -iv 07070707070707070707070707070707"),
        (WrapAlgorithm::Aes256Cbc, "-aes-256-cbc -iv 07070707070707070707070707070707"),
    ] {
        let made = Wrapped::new(algorithm);
        made.scratch.write("clear", made.public.to_spki());
        assert!(made.shell(&format!("openssl enc -e {cipher} -K \"$KEY\" -in clear -out wrapped")));
        let parameters = match made.field.parameters() {
            WrapParameters::Cbc { .. } => WrapParameters::Cbc { iv: [7; 16] },
            other @ (WrapParameters::None | WrapParameters::Gcm { .. }) => other,
        };
        let read = WrappedApexKey::new(algorithm, parameters, made.scratch.read("wrapped")).unwrap();
        assert_eq!(read.unwrap_with(&made.symmetric).unwrap(), made.public.to_spki(), "{algorithm}");
    }
}
