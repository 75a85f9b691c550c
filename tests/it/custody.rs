//! Custody, over the real binary and real SoftHSM tokens: the vault, and PINs that come from it.

use std::fs;
use std::process::Command;

use secrecy::SecretString;
use smkid::custody::file::{CustodyFile, Set};
use smkid::custody::present::{self, Purpose};
use smkid::custody::scheme::{SealingSecret, Share, split};
use smkid::custody::share_file::{self, Title};
use smkid::custody::vault::{Vault, VaultConfig, VaultFault};
use smkid::domain::certificates::pem;
use smkid::domain::ledger::custody::{Holder, Sealed};
use smkid::domain::ledger::entry::TokenFound;
use smkid::domain::names::{Digest, KeyId, KeyLabel, KeyUse, PresentationId, TokenName};
use smkid::hsm::protocol::write_message;
use smkid::hsm::{Condition, Expectations, ExpectedKey, HsmError, KeyReport, PinSource, Token};
use zeroize::Zeroizing;

use super::lab::Scratch;
use super::support::token::{MODULE, PIN, TestToken};

fn key_label() -> KeyLabel {
    "recovery-1".parse().unwrap()
}

fn name() -> TokenName {
    "test-token".parse().unwrap()
}

/// A key's shares, 2 of 3, and the custody file with the PIN of one token.
struct Dealt {
    shares: Vec<Share>,
    file: CustodyFile,
}

impl Dealt {
    fn for_token(serial: &str, generation: u32) -> Self {
        let secret = SealingSecret::make();
        let (shares, commitments) = split(&secret, 2, 3).unwrap();
        let holders = ["anna", "bert", "cleo"].iter().zip(1..).map(|(person, index)| Holder {
            share: format!("share-{index}").parse().unwrap(),
            person: person.parse().unwrap(),
            index,
            sealed: Sealed::Passphrase,
        });
        let set = Set {
            origin: "smki.example/ledger".parse().unwrap(),
            key: key_label(),
            generation,
            commitments: &commitments,
            holders: holders.collect(),
        };
        let pins = [(TokenFound { token: name(), serial: serial.into() }, SecretString::from(PIN))];
        let file = CustodyFile::seal(set, &secret, &pins).unwrap();
        Self { shares, file }
    }

    fn vault(&self) -> Vault {
        Vault::start(&config(), &self.file).unwrap()
    }

    fn purpose(&self, statement: &str) -> Purpose {
        Purpose {
            origin: self.file.origin.clone(),
            key: key_label(),
            generation: self.file.generation,
            incident: "2026-001".parse().unwrap(),
            statement: Digest::of(statement.as_bytes()),
        }
    }

    /// Presents the share with that index, as its custodian does.
    fn present(&self, vault: &Vault, index: u16) -> Result<(), VaultFault> {
        let purpose = self.purpose(&format!("statement {index}"));
        let (presentation, seal_to) = vault.presentation(&purpose).unwrap();
        let sealed = present::seal(&self.shares[usize::from(index) - 1], &purpose, &seal_to).unwrap();
        vault.take(presentation, index, &sealed)
    }

    fn opened(&self) -> Vault {
        let vault = self.vault();
        self.present(&vault, 1).unwrap();
        self.present(&vault, 3).unwrap();
        vault.open(&[1, 3]).unwrap();
        vault
    }
}

fn config() -> VaultConfig {
    VaultConfig { program: Some(env!("CARGO_BIN_EXE_smkid").into()), ..VaultConfig::default() }
}

/// A token with a key, and what a worker must find on it.
fn token_with_key() -> (TestToken, Expectations) {
    let hsm = TestToken::new("custody");
    let (token, _) = Token::start(hsm.config(1), SecretString::from(PIN), Expectations::default()).unwrap();
    let made: KeyReport = token.generate_key(key_label(), KeyId([7; 16]), KeyUse::Recovery).wait().unwrap();
    token.shutdown();
    let KeyReport { label, id, use_, spki } = made;
    let keys = vec![ExpectedKey { label, id, use_, spki: Some(spki), cloned: false, material: None }];
    (hsm, Expectations { keys, genesis: None, origin: None })
}

/// Kills the worker of a token, and waits until the token knows.
fn kill_worker(token: &Token) {
    let pid = rustix::process::Pid::from_raw(token.worker_pid().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    while matches!(token.condition(), Condition::Up) {
        std::thread::yield_now();
    }
}

#[test]
fn a_token_logs_in_with_the_pin_of_the_vault_and_again_when_its_worker_dies_and_no_more_once_it_ended() {
    let (hsm, expectations) = token_with_key();
    let dealt = Dealt::for_token(&hsm.serial, 1);
    let vault = dealt.opened();
    let source = vault.pin_source(name(), hsm.serial.clone());
    let (token, report) = Token::start(hsm.config(1), source, expectations).unwrap();
    assert_eq!(report.keys.len(), 1);

    let first = token.worker_pid().unwrap();
    kill_worker(&token);
    token.restart().unwrap();
    assert_ne!(token.worker_pid().unwrap(), first);
    assert!(vault.is_open());

    vault.shutdown();
    assert!(!vault.is_open() && !vault.is_alive());
    assert!(matches!(token.condition(), Condition::Up), "what is logged in stays so, until it is locked");
    kill_worker(&token);
    let refused = token.restart().unwrap_err();
    assert!(matches!(refused, HsmError::PinNotHad { .. }), "{refused}");
    assert!(matches!(token.condition(), Condition::Locked(HsmError::PinNotHad { .. })));
}

#[test]
fn below_the_threshold_the_vault_opens_nothing() {
    let hsm = TestToken::new("custody");
    let dealt = Dealt::for_token(&hsm.serial, 1);
    let vault = dealt.vault();
    let start = || Token::start(hsm.config(1), vault.pin_source(name(), hsm.serial.clone()), Expectations::default());
    dealt.present(&vault, 2).unwrap();
    assert_eq!(vault.open(&[2]).unwrap_err(), VaultFault::TooFew { have: 1, need: 2 });
    dealt.present(&vault, 2).unwrap();
    assert_eq!(vault.open(&[2, 2]).unwrap_err(), VaultFault::TooFew { have: 1, need: 2 }, "one share twice");
    assert_eq!(vault.open(&[1, 2]).unwrap_err(), VaultFault::TooFew { have: 1, need: 2 }, "one that is not there");
    assert!(matches!(start(), Err(HsmError::PinNotHad { .. })));
    assert!(!vault.is_open());

    dealt.present(&vault, 1).unwrap();
    vault.forget(2).unwrap();
    assert_eq!(vault.open(&[1, 2]).unwrap_err(), VaultFault::TooFew { have: 1, need: 2 }, "one that was forgotten");
    dealt.present(&vault, 2).unwrap();
    vault.open(&[1, 2]).unwrap();
    assert!(start().is_ok());
}

#[test]
fn a_share_that_is_altered_or_of_another_deal_is_told_apart_from_one_that_was_not_sealed_to_this_vault() {
    let dealt = Dealt::for_token("serial", 1);
    let vault = dealt.vault();
    let take = |share: &Share, index: u16| {
        let purpose = dealt.purpose("statement");
        let (presentation, seal_to) = vault.presentation(&purpose).unwrap();
        vault.take(presentation, index, &present::seal(share, &purpose, &seal_to).unwrap())
    };
    let mut octets = *dealt.shares[0].octets();
    octets[31] ^= 1;
    let altered = Share::new(1, Zeroizing::new(octets)).unwrap();
    assert_eq!(take(&altered, 1).unwrap_err(), VaultFault::Altered { index: 1 });
    assert_eq!(take(&dealt.shares[1], 1).unwrap_err(), VaultFault::Altered { index: 1 }, "another's share");
    assert_eq!(take(&dealt.shares[0], 4).unwrap_err(), VaultFault::Altered { index: 4 }, "nobody's index");
    let other = Dealt::for_token("serial", 2);
    assert_eq!(take(&other.shares[0], 1).unwrap_err(), VaultFault::Altered { index: 1 }, "another generation");

    let share = &dealt.shares[0];
    let (presentation, seal_to) = vault.presentation(&dealt.purpose("statement")).unwrap();
    let of_another = present::seal(share, &dealt.purpose("another statement"), &seal_to).unwrap();
    assert_eq!(vault.take(presentation, 1, &of_another).unwrap_err(), VaultFault::NotOurs);
    let right = present::seal(share, &dealt.purpose("statement"), &seal_to).unwrap();
    assert_eq!(vault.take(presentation, 1, &right).unwrap_err(), VaultFault::NotOurs, "its key is used up");
    let (presentation, _) = vault.presentation(&dealt.purpose("statement")).unwrap();
    let (_, other_key) = dealt.vault().presentation(&dealt.purpose("statement")).unwrap();
    let to_another = present::seal(share, &dealt.purpose("statement"), &other_key).unwrap();
    assert_eq!(vault.take(presentation, 1, &to_another).unwrap_err(), VaultFault::NotOurs, "another vault");
    assert_eq!(vault.take(PresentationId([0; 16]), 1, &right).unwrap_err(), VaultFault::NotOurs);
    assert!(vault.is_alive(), "a refusal is no end");
    take(share, 1).unwrap();
}

#[test]
fn the_vault_gives_a_pin_for_no_token_but_those_that_were_dealt_for() {
    let dealt = Dealt::for_token("serial", 1);
    let vault = dealt.opened();
    let hsm = TestToken::new("custody");
    let source = vault.pin_source(name(), hsm.serial.clone());
    let refused = Token::start(hsm.config(1), source, Expectations::default()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("dealt without token test-token"), "{refused}");
}

#[test]
fn a_custody_file_that_was_altered_opens_nothing() {
    let dealt = Dealt::for_token("serial", 1);
    let mut altered = dealt.file.clone();
    altered.tokens[0].serial = "another".into();
    let vault = Vault::start(&config(), &altered).unwrap();
    dealt.present(&vault, 1).unwrap();
    dealt.present(&vault, 2).unwrap();
    assert!(matches!(vault.open(&[1, 2]).unwrap_err(), VaultFault::Unsealable { .. }));
    assert!(!vault.is_open());
}

#[test]
fn the_vault_has_no_core_dump_no_ptrace_and_no_arguments_that_tell_anything() {
    let vault = Dealt::for_token("serial", 1).opened();
    let proc = format!("/proc/{}", vault.pid().unwrap());
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    let arguments = fs::read(format!("{proc}/cmdline")).unwrap();
    assert!(arguments.ends_with(b"vault-worker\0"), "{}", String::from_utf8_lossy(&arguments));
    assert!(fs::read(format!("{proc}/environ")).unwrap_or_default().is_empty());
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    let locked = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    assert_ne!(locked.split_whitespace().nth(1), Some("0"), "{status}");
}

#[test]
fn a_vault_that_stops_is_killed_at_its_deadline_and_ends_with_its_last_handle() {
    let dealt = Dealt::for_token("serial", 1);
    let config = VaultConfig { deadline: std::time::Duration::from_millis(200), ..config() };
    let vault = Vault::start(&config, &dealt.file).unwrap();
    let pid = rustix::process::Pid::from_raw(vault.pid().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let fault = vault.presentation(&dealt.purpose("statement")).unwrap_err();
    assert!(matches!(fault, VaultFault::Ended { .. }), "{fault}");
    assert!(!vault.is_alive());

    let vault = dealt.opened();
    let source = vault.pin_source(name(), "serial".to_owned());
    let proc = format!("/proc/{}", vault.pid().unwrap());
    drop(vault);
    assert!(fs::exists(&proc).unwrap(), "a source of PINs keeps it");
    drop(source);
    assert!(!fs::exists(&proc).unwrap());
}

/// What a vault is told first, in the order in which it is written.
#[derive(serde::Serialize)]
struct Setup {
    version: String,
    parent_pid: i32,
    file: serde_bytes::ByteBuf,
}

#[test]
fn a_vault_serves_nobody_but_the_process_that_started_it_and_of_its_own_version() {
    let ours = rustix::process::getpid().as_raw_nonzero().get();
    let said = |version: &str, parent_pid: i32| {
        let (mut socket, vaults) = std::os::unix::net::UnixStream::pair().unwrap();
        let vault = Command::new(env!("CARGO_BIN_EXE_smkid"))
            .arg("vault-worker")
            .stdin(std::os::fd::OwnedFd::from(vaults))
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let file = serde_bytes::ByteBuf::from(Dealt::for_token("serial", 1).file.octets());
        let setup = Setup { version: version.to_owned(), parent_pid, file };
        write_message(&mut socket, &setup, &mut Vec::new()).unwrap();
        // All that it may say; then it is told nothing more.
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let output = vault.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let version = env!("CARGO_PKG_VERSION");
    assert!(said(version, ours).0, "it serves who started it");
    let (served, why) = said(version, 1);
    assert!(!served && why.contains("this is no child of the daemon any more"), "{why}");
    let (served, why) = said("0.0.0", ours);
    assert!(!served && why.contains("the daemon as 0.0.0"), "{why}");
}

#[test]
fn a_token_asks_by_itself_only_where_it_says_that_it_does() {
    let hsm = TestToken::new("pad");
    let refused = Token::start(hsm.config(1), PinSource::ProtectedPath, Expectations::default());
    assert_eq!(refused.map(|_| ()).unwrap_err(), HsmError::NoProtectedPath);

    let flag = "C_GetTokenInfo * set CKF_PROTECTED_AUTHENTICATION_PATH\n";
    // SoftHSM has no pad: what it makes of a login without a PIN shows that none was given.
    let refused = Token::start(hsm.failing(1, flag), PinSource::ProtectedPath, Expectations::default());
    match refused.map(|_| ()).unwrap_err() {
        HsmError::Call(fault) => assert_eq!((&*fault.function, &*fault.rv), ("C_Login", "CKR_ARGUMENTS_BAD")),
        other => panic!("{other}"),
    }
    // One that has a pad and is content with what was typed there.
    let config = hsm.failing(1, &format!("{flag}C_Login 1 return CKR_OK"));
    let (token, _) = Token::start(config, PinSource::ProtectedPath, Expectations::default()).unwrap();
    assert_eq!(hsm.calls("C_Login"), 1);
    token.shutdown();
    // People at a pad take longer than a call may.
    let mut config = hsm.failing(1, &format!("{flag}C_Login 1 delay 1500ms\nC_Login 1 return CKR_OK"));
    config.call_deadline = std::time::Duration::from_millis(500);
    Token::start(config, PinSource::ProtectedPath, Expectations::default()).unwrap();
}

#[test]
fn a_pin_is_changed_for_the_token_and_for_the_handle_and_the_old_one_opens_nothing() {
    let hsm = TestToken::new("change");
    let (token, _) = Token::start(hsm.config(1), SecretString::from(PIN), Expectations::default()).unwrap();
    let wrong = token.set_pin(&SecretString::from("not-the-pin"), SecretString::from("a-new-pin-4711"));
    assert!(matches!(wrong.unwrap_err(), HsmError::Call(fault) if fault.rv == "CKR_PIN_INCORRECT"));

    let token = Token::start(hsm.config(1), SecretString::from(PIN), Expectations::default()).unwrap().0;
    token.set_pin(&SecretString::from(PIN), SecretString::from("a-new-pin-4711")).unwrap();
    kill_worker(&token);
    token.restart().unwrap();
    token.shutdown();
    let old = Token::start(hsm.config(1), SecretString::from(PIN), Expectations::default()).map(|_| ()).unwrap_err();
    assert!(matches!(old, HsmError::PinRefused { .. }), "{old}");
    Token::start(hsm.config(1), SecretString::from("a-new-pin-4711"), Expectations::default()).unwrap();
}

/// A custodian's card: what it takes is ECDH with a key that cannot leave it. OpenSSL speaks with it through its engine for PKCS#11.
#[test]
fn a_share_to_a_card_is_opened_by_openssl_with_the_card_and_handed_on() {
    let card = TestToken::new("card of bert");
    let made = ["--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign", "--usage-derive", "--label", "bert"];
    card.pkcs11_tool_logged_in(&made);
    let scratch = Scratch::new();
    let openssl = |arguments: &[&str]| {
        let mut command = card.command("openssl");
        let output = command.args(arguments).current_dir(scratch.path(".")).env("PKCS11_MODULE_PATH", MODULE).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let key = format!("pkcs11:token=card%20of%20bert;object=bert;type=private;pin-value={PIN}");
    let engine = ["-engine", "pkcs11", "-keyform", "engine"];
    let request = ["req", "-x509", "-new", "-key", &key, "-subj", "/CN=bert", "-days", "30", "-out", "bert.pem"];
    openssl(&[&request[..], &engine].concat());
    let certificate = pem::certificate(&scratch.text("bert.pem")).unwrap();

    let dealt = Dealt::for_token("serial", 1);
    let (label, share, person) = (key_label(), "share-2".parse().unwrap(), "bert".parse().unwrap());
    let title = Title { key: &label, generation: 1, share: &share, person: &person };
    let file = share_file::to_certificate(&dealt.shares[1], &title, &certificate).unwrap();
    scratch.write("share.pem", file);
    let decrypt = ["cms", "-decrypt", "-inform", "PEM", "-in", "share.pem", "-recip", "bert.pem", "-inkey", &key];
    let clear = Zeroizing::new(String::from_utf8(openssl(&[&decrypt[..], &engine].concat())).unwrap());
    let nobody = || Err(std::io::Error::other("nobody is asked"));
    let opened = share_file::open(&clear, 2, None, nobody).unwrap();
    assert_eq!(opened.octets(), dealt.shares[1].octets());
}
