//! A token of one test's own, in a folder that is gone afterwards; and the fault-injecting module in front of it.
//!
//! SoftHSM is what most tests use. Two other modules stand beside it ([`Make`]): Kryoptic, whose tokens lock their PINs, and the
//! server of p11-kit in front of SoftHSM, which is an HSM that can be cut off and killed.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use smkid::hsm::TokenConfig;
use tempfile::TempDir;

/// The user PIN of every test token. Long enough that finding it somewhere is no chance.
pub const PIN: &str = "pin-of-the-test-token-7391";
/// That of its security officer.
pub const SO_PIN: &str = "so-pin-1234";
/// SoftHSM, as Debian installs it.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// What a client of p11-kit's server loads, as Debian installs it.
static P11_KIT_CLIENT: LazyLock<PathBuf> =
    LazyLock::new(|| format!("/usr/lib/{}-linux-gnu/pkcs11/p11-kit-client.so", std::env::consts::ARCH).into());

/// Whose module a token has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    SoftHsm,
    Kryoptic,
    /// A SoftHSM token behind p11-kit's server.
    P11Kit,
}

impl Make {
    /// The module that a worker loads; `None` if it cannot be had here.
    pub fn module(self) -> Option<&'static Path> {
        match self {
            Self::SoftHsm => Some(Path::new(MODULE)),
            Self::Kryoptic => kryoptic(),
            Self::P11Kit => Some(&P11_KIT_CLIENT),
        }
    }
}

/// A token.
pub struct TestToken {
    make: Make,
    server: Option<Server>,
    dir: TempDir,
    pub label: String,
    pub serial: String,
}

impl TestToken {
    /// Initialises a token of SoftHSM.
    pub fn new(label: &str) -> Self {
        Self::of(Make::SoftHsm, label)
    }

    /// Initialises a token. One at a time: the tools write and look up at once.
    pub fn of(make: Make, label: &str) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let mut token = Self { make, server: None, dir, label: label.to_owned(), serial: String::new() };
        token.serial = match make {
            Make::SoftHsm | Make::P11Kit => token.init_soft_hsm(),
            Make::Kryoptic => token.init_kryoptic(),
        };
        if make == Make::P11Kit {
            token.serve();
        }
        token
    }

    fn init_soft_hsm(&self) -> String {
        let tokens = self.dir().join("tokens");
        fs::create_dir(&tokens).unwrap();
        let conf =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        fs::write(self.dir().join("softhsm2.conf"), conf).unwrap();
        let tool = |arguments: &[&str]| {
            let mut command = Command::new("softhsm2-util");
            run(command.args(arguments).env("SOFTHSM2_CONF", self.dir().join("softhsm2.conf")))
        };
        tool(&["--init-token", "--free", "--label", &self.label, "--so-pin", SO_PIN, "--pin", PIN]);
        let slots = tool(&["--show-slots"]);
        let serial = slots.lines().find_map(|line| line.trim().strip_prefix("Serial number:"));
        serial.expect("the first slot is the token's").trim().to_owned()
    }

    fn init_kryoptic(&self) -> String {
        let conf = format!(
            "[[slots]]\nslot = 42\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
            self.dir().join("token.sql").display()
        );
        fs::write(self.dir().join("kryoptic.toml"), conf).unwrap();
        self.pkcs11_tool(&["--slot", "42", "--init-token", "--label", &self.label, "--so-pin", SO_PIN]);
        self.init_pin();
        let slots = self.pkcs11_tool(&["--list-token-slots"]);
        let serial = slots.lines().find_map(|line| line.trim().strip_prefix("serial num"));
        serial.expect("the slot's token has a serial number").trim_start_matches([' ', ':']).to_owned()
    }

    /// The security officer sets the user's PIN, as at first.
    pub fn init_pin(&self) {
        let officer = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
        self.pkcs11_tool(&[&["--token-label", &self.label][..], &officer, &["--init-pin", "--pin", PIN]].concat());
    }

    /// Where the test may put files of its own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The module that workers and tools load.
    pub fn module(&self) -> &'static Path {
        self.make.module().expect("the token was made with it")
    }

    /// What tools and workers need to find the token.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![match self.make {
            Make::SoftHsm => ("SOFTHSM2_CONF".into(), self.dir().join("softhsm2.conf").into()),
            Make::Kryoptic => ("KRYOPTIC_CONF".into(), self.dir().join("kryoptic.toml").into()),
            Make::P11Kit => (
                "P11_KIT_SERVER_ADDRESS".into(),
                format!("unix:path={}", self.dir().join("p11-kit.sock").display()).into(),
            ),
        }]
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
        run(self.command(program).args(arguments))
    }

    /// Runs pkcs11-tool on the token's module; its output.
    #[track_caller]
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> String {
        run(self.command("pkcs11-tool").arg("--module").arg(self.module()).args(arguments))
    }

    /// The same, logged in to this token.
    #[track_caller]
    pub fn pkcs11_tool_logged_in(&self, arguments: &[&str]) -> String {
        self.pkcs11_tool(&[&["--token-label", &self.label, "--login", "--pin", PIN], arguments].concat())
    }

    /// The token, served by a worker of the real binary.
    pub fn config(&self, sessions: u16) -> TokenConfig {
        TokenConfig {
            name: "test-token".parse().unwrap(),
            module: self.module().to_owned(),
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
        let mut config = self.config(sessions);
        config.module = fault_token();
        config.environment.extend(self.with_script(self.module(), script));
        config
    }

    /// A script of its own, whose counts begin anew: what the fault-injecting module in front of `module` is told.
    fn with_script(&self, module: &Path, script: &str) -> Vec<(OsString, OsString)> {
        let path = self.dir().join("script");
        fs::write(&path, script).unwrap();
        let _ = fs::remove_file(self.dir().join("script.counts"));
        vec![("FAULT_TOKEN_MODULE".into(), module.into()), ("FAULT_TOKEN_SCRIPT".into(), path.into())]
    }

    /// From the next call on the token fails as this says instead, in a worker that runs too.
    pub fn fail_otherwise(&self, script: &str) {
        write_script(&self.dir().join("script"), script);
    }

    /// How often the function was called.
    pub fn calls(&self, function: &str) -> u64 {
        calls(&self.dir().join("script"), function)
    }

    /// Starts the server that the token lies behind.
    pub fn serve(&mut self) {
        self.serve_with(Path::new(MODULE), Vec::new());
    }

    /// The same, and the token behind it fails as `script` says.
    pub fn serve_failing(&mut self, script: &str) {
        let environment = self.with_script(MODULE.as_ref(), script);
        self.serve_with(&fault_token(), environment);
    }

    fn serve_with(&mut self, provider: &Path, environment: Vec<(OsString, OsString)>) {
        assert_eq!(self.make, Make::P11Kit, "only p11-kit's tokens have a server");
        let mut command = Command::new("p11-kit");
        command
            .args(["server", "--foreground", "--provider"])
            .arg(provider)
            .arg("--name")
            .arg(self.dir().join("p11-kit.sock"))
            .arg(format!("pkcs11:serial={}", self.serial))
            .envs(environment)
            .env("SOFTHSM2_CONF", self.dir().join("softhsm2.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It makes a process for each client: all of them are to end together.
            .process_group(0);
        let mut process = command.spawn().unwrap();
        // It says where it listens, once it does.
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("p11-kit.sock"), "p11-kit server said {line:?}");
        self.server = Some(Server { process });
    }

    /// Kills the server and whoever it has for each client, as a power cut does.
    pub fn kill_server(&mut self) {
        assert!(self.server.take().is_some(), "there is no server");
        // It leaves its socket, at which the next one would take offence.
        fs::remove_file(self.dir().join("p11-kit.sock")).unwrap();
    }
}

/// p11-kit's server.
struct Server {
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        self.process.wait().unwrap();
    }
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The module lands beside the test binaries.
pub fn fault_token() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let module = tests.parent().unwrap().join("libfault_token.so");
    assert!(module.exists(), "{} was not built", module.display());
    module
}

/// Gives a script another text, in one step: whoever reads it sees the old one or the new one.
pub fn write_script(script: &Path, text: &str) {
    let new = script.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, script).unwrap();
}

/// How often a function was called under a script; 0 before anybody has read it.
pub fn calls(script: &Path, function: &str) -> u64 {
    counts(script, function)[0]
}

/// How many of these calls were made before the script had its present text.
pub fn calls_before(script: &Path, function: &str) -> u64 {
    counts(script, function)[1]
}

/// By which text the calls are counted just now: it changes when the module has taken in another one.
pub fn script_known(script: &Path) -> u64 {
    counts(script, "script")[0]
}

fn counts(script: &Path, of: &str) -> [u64; 2] {
    let mut path = script.to_owned().into_os_string();
    path.push(".counts");
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.into_iter().find(|line| line[0] == of).map_or([0; 2], |line| [1, 2].map(|at| line[at].parse().unwrap()))
}

/// Kryoptic's module, built once from its own package into a folder of its own. Where that cannot be done it is said once, past the
/// capture of the test runner, that its tests see nothing; where `CI` is set it must be done.
fn kryoptic() -> Option<&'static Path> {
    static BUILT: LazyLock<Option<PathBuf>> = LazyLock::new(|| match build_kryoptic() {
        Ok(module) => Some(module),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "Kryoptic's module is required where CI is set: {why}");
            let last = why.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            let line = format!("\nskipped: Kryoptic's module cannot be built, so nothing is tried with it: {last}\n");
            // One write, so that the lines of other tests do not come in between.
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
    });
    BUILT.as_deref()
}

fn build_kryoptic() -> Result<PathBuf, String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kryoptic");
    // Beside the profile's folder in which this very program lies.
    let tests = std::env::current_exe().unwrap();
    let target = tests.ancestors().nth(3).unwrap().join("kryoptic");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(target.join("debug/libkryoptic_module.so"))
}

/// Waits until `condition` holds; fails after ten seconds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
