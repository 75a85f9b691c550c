//! What an image of a process's memory tells: while a key is open the PIN is found in the vault, so the search can find it; in whoever stands
//! between custodian, vault and token there is never a share, the secret or the PIN; and once all is locked, nobody has them.
//!
//! The daemon's part is played by this very program, started anew ([`stand_in`]): it has the vault and the token as the daemon has them, and is
//! handed nothing but what is sealed.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use memchr::memmem::Finder;
use secrecy::{ExposeSecret as _, SecretString};
use smkid::custody::file::{CustodyFile, Set};
use smkid::custody::present::{self, Purpose};
use smkid::custody::scheme::{SealingSecret, Share, split};
use smkid::custody::vault::{Vault, VaultConfig};
use smkid::domain::ledger::custody::{Holder, Sealed};
use smkid::domain::ledger::entry::TokenFound;
use smkid::domain::names::Digest;
use smkid::hsm::one_time::SealTo;
use smkid::hsm::{Expectations, Token, TokenConfig};

use crate::support::token::{PIN, TestToken};

/// The folder of the stand-in; set for it alone.
const FOLDER: &str = "SMKID_TEST_STAND_IN";
const KEY: &str = "recovery-1";

fn purpose(index: u16) -> Purpose {
    Purpose {
        origin: "smki.example/ledger".parse().unwrap(),
        key: KEY.parse().unwrap(),
        generation: 1,
        incident: "INC-1".parse().unwrap(),
        statement: Digest::of(&index.to_be_bytes()),
    }
}

/// As the daemon: a vault takes what is sealed, opens, and a token logs in with its PIN. Without a folder there is nothing to play.
#[test]
fn stand_in() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let line = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let mut asked = std::io::stdin().lines().map(Result::unwrap);
    let say = |text: String| {
        let mut out = std::io::stdout().lock();
        // Behind whatever the test runner writes before it.
        writeln!(out, "\nstand-in {text}").unwrap();
        out.flush().unwrap();
    };
    let file = CustodyFile::find(folder, &KEY.parse().unwrap(), 1).unwrap().unwrap();
    let program = Some(env!("CARGO_BIN_EXE_smkid").into());
    let vault = Vault::start(&VaultConfig { program: program.clone(), ..VaultConfig::default() }, &file).unwrap();
    for index in [1, 3] {
        let (presentation, seal_to) = vault.presentation(&purpose(index)).unwrap();
        say(hex::encode(seal_to.octets()));
        vault.take(presentation, index, &hex::decode(asked.next().unwrap()).unwrap()).unwrap();
    }
    say(format!("gathered {}", vault.pid().unwrap()));
    asked.next().unwrap();
    vault.open(&[1, 3]).unwrap();
    let serial = line("serial");
    let config = TokenConfig {
        name: "test-token".parse().unwrap(),
        module: line("module").into(),
        label: "memory".to_owned(),
        serial: serial.clone(),
        sessions: 1,
        call_deadline: std::time::Duration::from_secs(20),
        environment: vec![("SOFTHSM2_CONF".into(), line("conf").into())],
        program,
        pin_marks: Some(folder.join("pin-marks")),
        clock_offset_ms: 0,
    };
    let source = vault.pin_source(config.name.clone(), serial);
    let (token, _) = Token::start(config, source, Expectations::default()).unwrap();
    say(format!("active {} {}", vault.pid().unwrap(), token.worker_pid().unwrap()));
    asked.next().unwrap();
    token.shutdown();
    vault.shutdown();
    say("locked".to_owned());
    asked.next();
}

/// All that can be read of a process's memory, each mapping in pieces that overlap.
fn image_has(pid: u32, needles: &[(&str, Vec<u8>)]) -> Vec<String> {
    const PIECE: usize = 1 << 20;
    let finders: Vec<_> = needles.iter().map(|(what, needle)| (*what, Finder::new(needle))).collect();
    let longest = needles.iter().map(|(_, needle)| needle.len()).max().unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = Vec::new();
    let mut read = 0;
    for mapping in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let mut fields = mapping.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with('r') || mapping.ends_with("[vvar]") || mapping.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [mut from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        while from < to {
            let mut piece = vec![0; PIECE.min(usize::try_from(to - from).unwrap())];
            let Ok(len) = memory.read_at(&mut piece, from) else { break };
            if len == 0 {
                break;
            }
            read += len;
            for (what, finder) in &finders {
                if finder.find(&piece[..len]).is_some() {
                    found.push((*what).to_owned());
                }
            }
            let step = if len > longest { len - longest } else { len };
            from += u64::try_from(step.max(1)).unwrap();
        }
    }
    assert!(read > 1 << 20, "{read} octets of the memory of process {pid} could be read: is this an image?");
    found.sort();
    found.dedup();
    found
}

/// A secret as it may lie in memory.
fn forms(what: &'static str, octets: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let backwards: Vec<u8> = octets.iter().rev().copied().collect();
    vec![(what, octets.to_vec()), (what, backwards), (what, hex::encode(octets).into_bytes())]
}

struct StandIn {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl StandIn {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::stand_in", "--nocapture"])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, said }
    }

    /// What it says next.
    fn hear(&mut self) -> String {
        loop {
            let line = self.said.next().expect("it says something").unwrap();
            if let Some(said) = line.strip_prefix("stand-in ") {
                return said.to_owned();
            }
        }
    }

    fn tell(&mut self, text: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{text}").unwrap();
    }
}

#[test]
fn an_image_finds_the_pin_in_the_vault_while_it_is_open_never_in_who_carries_it_and_nowhere_once_locked() {
    if !rustix::process::geteuid().is_root() {
        std::io::stderr().write_all(b"\nskipped: memory images, which only root can take\n").unwrap();
        return;
    }
    // A PIN of the moment: one that stands in this program would be found in every process that runs it.
    let hsm = TestToken::new("memory");
    let mut random = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random).unwrap();
    let pin = SecretString::from(hex::encode(random));
    let (token, _) = Token::start(hsm.config(1), SecretString::from(PIN), Expectations::default()).unwrap();
    token.set_pin(&SecretString::from(PIN), pin.clone()).unwrap();
    token.shutdown();

    let secret = SealingSecret::make();
    let (shares, commitments) = split(&secret, 2, 3).unwrap();
    let holders = (1..=3).map(|index| Holder {
        share: format!("share-{index}").parse().unwrap(),
        person: format!("custodian-{index}").parse().unwrap(),
        index,
        sealed: Sealed::Passphrase,
    });
    let set = Set {
        origin: purpose(1).origin,
        key: purpose(1).key,
        generation: 1,
        commitments: &commitments,
        holders: holders.collect(),
    };
    let found = TokenFound { token: "test-token".parse().unwrap(), serial: hsm.serial.as_str().into() };
    let state = tempfile::tempdir().unwrap();
    CustodyFile::seal(set, &secret, &[(found, pin.clone())]).unwrap().write(state.path()).unwrap();
    let conf = hsm.dir().join("softhsm2.conf").display().to_string();
    let module = hsm.module().display().to_string();
    for (name, text) in [("serial", hsm.serial.as_str()), ("module", &module), ("conf", &conf)] {
        fs::write(state.path().join(name), text).unwrap();
    }
    let needles: Vec<(&str, Vec<u8>)> = [
        vec![("PIN", pin.expose_secret().as_bytes().to_vec())],
        forms("secret", secret.octets()),
        forms("share", shares[0].octets()),
        forms("share", shares[2].octets()),
    ]
    .concat();

    let mut daemon = StandIn::start(state.path());
    let carrier = daemon.process.id();
    let mut hand_over = |share: &Share| {
        let seal_to = SealTo::from_octets(&hex::decode(daemon.hear()).unwrap()).unwrap();
        daemon.tell(&hex::encode(present::seal(share, &purpose(share.index()), &seal_to).unwrap()));
    };
    hand_over(&shares[0]);
    hand_over(&shares[2]);
    let gathered = daemon.hear();
    let vault: u32 = gathered.strip_prefix("gathered ").unwrap().parse().unwrap();
    let in_vault = image_has(vault, &needles);
    assert!(in_vault.contains(&"share".to_owned()), "the search must find what is there: {in_vault:?}");
    assert!(!in_vault.contains(&"PIN".to_owned()) && !in_vault.contains(&"secret".to_owned()), "{in_vault:?}");
    assert_eq!(image_has(carrier, &needles), Vec::<String>::new(), "while shares are gathered");

    daemon.tell("open");
    let active = daemon.hear();
    let pids: Vec<u32> = active.split(' ').skip(1).map(|pid| pid.parse().unwrap()).collect();
    let in_vault = image_has(pids[0], &needles);
    assert!(in_vault.contains(&"PIN".to_owned()), "the search must find what is there: {in_vault:?}");
    assert_eq!(image_has(carrier, &needles), Vec::<String>::new(), "while the key is open");
    let in_worker = image_has(pids[1], &needles);
    assert!(!in_worker.contains(&"secret".to_owned()) && !in_worker.contains(&"share".to_owned()), "{in_worker:?}");

    daemon.tell("lock");
    assert_eq!(daemon.hear(), "locked");
    for pid in &pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
    assert_eq!(image_has(carrier, &needles), Vec::<String>::new(), "once it is locked");
    daemon.tell("end");
    assert!(daemon.process.wait().unwrap().success());
    let mut folders = vec![state.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let octets = fs::read(&path).unwrap();
            for (what, needle) in &needles {
                assert!(Finder::new(needle).find(&octets).is_none(), "{} has the {what}", path.display());
            }
        }
    }
    assert!(files >= 5, "custody file, log and what the stand-in was told");
}
