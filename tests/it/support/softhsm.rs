//! A SoftHSM token of one test's own, in a folder that is gone afterwards; and the fault-injecting module in front of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use smkid::hsm::TokenConfig;
use tempfile::TempDir;

/// The user PIN of every test token. Long enough that finding it somewhere is no chance.
pub const PIN: &str = "pin-of-the-test-token-7391";
/// The module, as Debian installs it.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A token.
pub struct SoftHsm {
    dir: TempDir,
    pub label: String,
    pub serial: String,
}

impl SoftHsm {
    /// Initialises a token. One at a time: the tool writes and looks up at once.
    pub fn new(label: &str) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        let conf =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        fs::write(dir.path().join("softhsm2.conf"), conf).unwrap();
        let mut token = Self { dir, label: label.to_owned(), serial: String::new() };
        let init = ["--init-token", "--free", "--label", label, "--so-pin", "so-pin-1234", "--pin", PIN];
        token.run("softhsm2-util", &init);
        let slots = token.run("softhsm2-util", &["--show-slots"]);
        let serial = slots.lines().find_map(|line| line.trim().strip_prefix("Serial number:"));
        serial.expect("the first slot is the token's").trim().clone_into(&mut token.serial);
        token
    }

    /// Where the test may put files of its own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What tools and workers need to find the token.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![("SOFTHSM2_CONF".into(), self.dir().join("softhsm2.conf").into())]
    }

    /// A tool with the token's environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment());
        command
    }

    /// Runs a tool that must succeed; its output.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The token, served by a worker of the real binary.
    pub fn config(&self, sessions: u16) -> TokenConfig {
        TokenConfig {
            name: "test-token".parse().unwrap(),
            module: PathBuf::from(MODULE),
            label: self.label.clone(),
            serial: self.serial.clone(),
            sessions,
            call_deadline: Duration::from_secs(20),
            environment: self.environment(),
            program: Some(PathBuf::from(env!("CARGO_BIN_EXE_smkid"))),
            pin_marks: None,
            clock_offset_ms: 0,
        }
    }

    /// The same through the module that fails as `script` says.
    pub fn failing(&self, sessions: u16, script: &str) -> TokenConfig {
        let path = self.dir().join("script");
        fs::write(&path, script).unwrap();
        let _ = fs::remove_file(self.dir().join("script.counts"));
        let mut config = self.config(sessions);
        config.module = fault_token();
        config.environment.push(("FAULT_TOKEN_MODULE".into(), MODULE.into()));
        config.environment.push(("FAULT_TOKEN_SCRIPT".into(), path.into()));
        config
    }

    /// How often the function was called, of those that the script names.
    pub fn calls(&self, function: &str) -> u64 {
        let counts = fs::read_to_string(self.dir().join("script.counts")).unwrap_or_default();
        let count = counts.lines().find_map(|line| line.strip_prefix(function)).unwrap_or(" 0");
        count.trim().parse().unwrap()
    }
}

/// Makes a second token of one in a folder of tokens: the same label, PIN, keys and objects under another serial number, which is
/// answered. This is what a maker's cloning comes to; SoftHSM has none, and a key brought in from outside is not what we accept.
pub fn clone_token(tokens: &Path, serial: &str) -> String {
    let folder = folder_of(tokens, serial);
    // The slot's number is made of the last eight digits, so those must differ.
    let other: String = serial.chars().rev().collect();
    assert_ne!(other, serial);
    let copy = tokens.join(format!("copy-{other}"));
    super::desk::copy(&folder, &copy);
    rename_token(&copy, serial, &other);
    other
}

/// Gives the token in that folder another serial number of as many digits.
pub fn rename_token(folder: &Path, from: &str, to: &str) {
    let path = folder.join("token.object");
    let mut octets = fs::read(&path).unwrap();
    let at = octets.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    octets[at..at + from.len()].copy_from_slice(to.as_bytes());
    fs::write(path, octets).unwrap();
}

/// Where the files of the token with that serial number lie.
pub fn folder_of(tokens: &Path, serial: &str) -> PathBuf {
    let mut folders = fs::read_dir(tokens).unwrap().map(|entry| entry.unwrap().path());
    let found = folders.find(|folder| {
        let octets = fs::read(folder.join("token.object")).unwrap_or_default();
        octets.windows(serial.len()).any(|window| window == serial.as_bytes())
    });
    found.unwrap()
}

/// The module lands beside the test binaries.
pub fn fault_token() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let module = tests.parent().unwrap().join("libfault_token.so");
    assert!(module.exists(), "{} was not built", module.display());
    module
}
