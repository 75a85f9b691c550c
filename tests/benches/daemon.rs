//! Shell: the daemon under measurement: a real one, as its own process, with the exercise's tokens, ceremony and policy, and one
//! determination over as many Devices as the benchmark is going to ask for. Whoever asks is `smkictl`'s own client.
//!
//! Its Recovery token may be a slow one ([`Hsm::Slow`]): SoftHSM behind the fault-injecting module, which makes each signature take
//! as long as one of an HSM does; and there may be several.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use smkid::api::wire::{Checkpoints, DeviceAsk, Devices, Job, JobStart, RecoverySign};
use smkid::domain::determination::document::KeyChosen;
use smkid::domain::gbcs::Template;
use smkid::domain::names::{DeterminationId, RequestId};
use smkid::domain::policy::Activation;
use smkid::exercise::bench::recovery::determine;
pub use smkid::exercise::bench::recovery::device;
use smkid::exercise::clock::Clock;
use smkid::exercise::programs::{Daemon as Process, Programs};
use smkid::exercise::stage::Stage;
use smkid::exercise::tell::Teller;
use smkid::exercise::{lab, template};
use smkid::hsm::{Expectations, Token, TokenConfig};
use smkid::service::configuration::{self, Configuration, Pin};
use tokio::runtime::Runtime;

use crate::Fault;
use crate::cpu::memory_kb_max;
use crate::limit::{CHUNK_LEN, Task};

/// The variable by which the fault-injecting module finds its script.
const SCRIPT_VARIABLE: &str = "FAULT_TOKEN_SCRIPT";

/// Longer than any call that is measured.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// What the Recovery key lies on.
#[derive(Clone, Copy)]
pub enum Hsm {
    /// SoftHSM as it is, with the sessions of the default.
    Fast,
    /// Tokens whose signatures take longer.
    Slow {
        /// How many tokens: 1, or 2 with the key cloned to the second.
        tokens: usize,
        /// Sessions of each.
        sessions: usize,
        /// Milliseconds that each signature takes longer.
        delay_ms: u64,
    },
}

/// What the policy calls the second token.
const SECOND_TOKEN: &str = "smki-b";

/// A daemon with a determination, ready to sign.
pub struct Daemon {
    pub runtime: Runtime,
    pub process: Process,
    pub determination: DeterminationId,
    template: Template,
    pub stage: Stage,
    /// Devices of the determination that were asked for already.
    asked: usize,
    devices: usize,
}

impl Daemon {
    /// Everything from the tokens to the activated key. `folder` must be new; there may be so many Devices.
    pub fn start(folder: &Path, devices: usize, hsm: Hsm) -> Result<Self, Fault> {
        let programs = Programs::new(env!("CARGO_BIN_EXE_smkictl").into(), env!("CARGO_BIN_EXE_smkid").into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut nowhere = io::sink();
        let mut teller = Teller::new(&mut nowhere, &io::stdout());
        let mut stage = Stage::set(folder, programs, Clock::default(), Activation::Stored, &mut teller)?;
        if let Hsm::Slow { tokens, sessions, delay_ms } = hsm {
            slow_down(&stage, sessions, delay_ms)?;
            if tokens > 1 {
                name_second_token(&mut stage)?;
            }
        }
        let (process, determination, template) = runtime.block_on(async {
            let (recovery, _) = stage.ceremony(&mut teller).await?;
            if let Hsm::Slow { tokens: 2.., .. } = hsm {
                bring_second_token(&stage).await?;
            }
            let process = Process::start(&stage.programs, &stage.configuration, &stage.socket, &stage.log).await?;
            let template = template::template(&stage.lab, &recovery, stage.lab.broker())?;
            let key = KeyChosen { label: stage.names.recovery_key.clone(), spki_sha256: recovery.spki_sha256() };
            let determination = determine(&stage, &process.client, &template, key, devices).await?;
            Ok::<_, Fault>((process, determination, template))
        })?;
        Ok(Self { runtime, process, determination, template, stage, asked: 0, devices })
    }

    /// Has the next so many Devices' commands signed by `smkictl`, and says how long that took: from its start, with a device list as a
    /// file, to its end, with the commands on the disk and their manifest written.
    pub fn sign(&mut self, count: usize) -> Result<Duration, Fault> {
        let list = self.next(count)?.fold(String::new(), |list, n| list + &device(n).to_string() + "\n");
        let (devices, out) = (self.stage.scratch.path().join("turn.txt"), self.stage.scratch.path().join("turn"));
        std::fs::write(&devices, list)?;
        let determination = self.determination.to_string();
        let mut command =
            self.smkictl(&["recovery", "sign", "--format", "container", "--determination", &determination]);
        command.arg("--devices").arg(&devices).arg("--out").arg(&out);
        let began = Instant::now();
        let output = command.output()?;
        let took = began.elapsed();
        if !output.status.success() {
            return Err(
                format!("smkictl ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into()
            );
        }
        std::fs::remove_dir_all(&out)?;
        Ok(took)
    }

    /// Has the next Device's command signed by a client that runs already, and reads the answer to its last line.
    pub fn sign_one(&mut self) -> Result<Duration, Fault> {
        let listed = self.next(1)?.map(|n| DeviceAsk { device: device(n) }).collect();
        self.ask(Devices::Listed(listed), 1)
    }

    /// The numbers of the next so many Devices that nothing was asked for yet.
    fn next(&mut self, count: usize) -> Result<Range<usize>, Fault> {
        let until = self.asked + count;
        if until > self.devices {
            return Err(format!("the determination is for {} Devices, not for {until}", self.devices).into());
        }
        Ok(std::mem::replace(&mut self.asked, until)..until)
    }

    fn ask(&self, devices: Devices, count: usize) -> Result<Duration, Fault> {
        let ask = RecoverySign {
            request: RequestId(lab::random()?),
            determination: self.determination,
            devices: Some(devices),
            pre_commands: None,
        };
        let client = &self.process.client;
        self.runtime.block_on(async {
            let began = Instant::now();
            let mut lines = client.post_for_lines("/v1/recovery/sign", &ask).await?;
            while lines.next().await?.is_some() {}
            let took = began.elapsed();
            let summary = lines.summary().ok_or("the answer had no summary")?;
            if usize::try_from(summary.signed) == Ok(count) {
                Ok(took)
            } else {
                Err(format!("expected {count} commands signed, found {summary:?}").into())
            }
        })
    }

    /// The limit program's task: the same token, key, template and disk; and the environment of its module.
    pub fn task(&self, sessions: usize) -> Result<(Task, BTreeMap<String, String>), Fault> {
        let token = recovery_token(&self.stage)?;
        let Some(Pin::File(pin)) = &token.pin else { return Err("an exercise's PIN lies in a file".into()) };
        let mut environment = token.environment.clone();
        if let Some(script) = environment.get_mut(SCRIPT_VARIABLE) {
            // Calls are counted beside the script, by each process in its own.
            let own = format!("{script}.limit");
            std::fs::copy(&*script, &own)?;
            *script = own;
        }
        let task = Task {
            module: token.module.clone(),
            token: token.label.clone(),
            pin_file: pin.clone(),
            key: self.stage.names.recovery_key.to_string(),
            template: self.template.octets().to_vec(),
            database: self.stage.scratch.path().join("limit.db"),
            sessions,
            chunk: CHUNK_LEN,
        };
        Ok((task, environment))
    }

    /// Starts a job for every Device of the determination; its id.
    pub fn start_job(&self) -> Result<String, Fault> {
        let request = RequestId(lab::random()?);
        let ask = JobStart { request, determination: self.determination, list: None, per_hour: None, reason: None };
        let job: Job = self.runtime.block_on(self.process.client.post("/v1/recovery/jobs", &ask))?;
        Ok(job.request.to_string())
    }

    /// `smkictl`, to be run against this daemon.
    pub fn smkictl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
        command.args(arguments).env("SMKID_SOCKET", &self.stage.socket);
        command
    }

    /// How many checkpoints were signed so far.
    pub fn checkpoints(&self) -> Result<usize, Fault> {
        let all: Checkpoints = self.runtime.block_on(self.process.client.get("/v1/ledger/checkpoints"))?;
        Ok(all.checkpoints.len())
    }

    /// A worker of our own on the Recovery token, which signs nothing: for what a round trip to one takes.
    pub fn worker(&self) -> Result<Token, Fault> {
        let found = recovery_token(&self.stage)?;
        let Some(Pin::File(pin)) = &found.pin else { return Err("an exercise's PIN lies in a file".into()) };
        let config = TokenConfig {
            name: found.name.clone(),
            module: found.module.clone(),
            label: found.label.clone(),
            serial: found.serial.clone(),
            sessions: 1,
            call_deadline: CALL_DEADLINE,
            environment: found.environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            program: Some(env!("CARGO_BIN_EXE_smkid").into()),
            pin_marks: None,
            clock_offset_ms: 0,
        };
        let pin = SecretString::from(std::fs::read_to_string(pin)?.trim().to_owned());
        Ok(Token::start(config, pin, Expectations::default())?.0)
    }

    /// The processes whose work a command takes: the daemon, its workers, and this one, which is the client.
    pub fn processes(&self) -> Vec<u32> {
        let daemon = self.process.workers().into_iter().chain([self.process.pid()]);
        let daemon = daemon.map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        daemon.chain([std::process::id()]).collect()
    }

    /// The most memory that the daemon itself had at any moment, in kB, as proc(5) tells. Its workers are other processes.
    pub fn memory_kb_max(&self) -> Result<u64, Fault> {
        memory_kb_max(self.process.pid().as_raw_nonzero().get().unsigned_abs())
    }
}

/// Has every signature of the Recovery token take so much longer, on so many sessions.
fn slow_down(stage: &Stage, sessions: usize, delay_ms: u64) -> Result<(), Fault> {
    let script = stage.scratch.path().join("slow.script");
    std::fs::write(&script, format!("C_Sign * delay {delay_ms}ms\n"))?;
    let (module, real) = (fault_token()?, recovery_token(stage)?.module);
    change_block(stage, stage.names.recovery_token.as_str(), |line| {
        if line.starts_with("module = ") {
            format!("module = \"{}\"\nsessions = {sessions}", module.display())
        } else if let Some(own) = line.strip_prefix("environment = {") {
            let (real, script) = (real.display(), script.display());
            format!("environment = {{ FAULT_TOKEN_MODULE = \"{real}\", FAULT_TOKEN_SCRIPT = \"{script}\",{own}")
        } else {
            line.to_owned()
        }
    })
}

/// The policy, which nobody has adopted yet, has the Recovery key cloned to a second token.
fn name_second_token(stage: &mut Stage) -> Result<(), Fault> {
    let first = stage.names.recovery_token.as_str();
    let path = stage.layout.path("policy/keys.toml");
    let (name, of_key) = (format!("name = \"{first}\"\n"), format!("token = \"{first}\"\n"));
    let copies = format!("{of_key}copies = [{{ token = \"{SECOND_TOKEN}\", by = \"files of the token, copied\" }}]\n");
    let text = std::fs::read_to_string(&path)?.replace(&of_key, &copies);
    std::fs::write(&path, text.replace(&name, &format!("{name}\n[[token]]\nname = \"{SECOND_TOKEN}\"\n")))?;
    stage.policy = smkid::domain::policy::Policy::parse(&smkid::cli::input::policy(&stage.layout.path("policy"))?)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    Ok(())
}

/// Copies the files of the Recovery token under another serial number, and has the ceremony find the key there. No maker's cloning
/// is as simple, or as careless.
async fn bring_second_token(stage: &Stage) -> Result<(), Fault> {
    let first = recovery_token(stage)?;
    let other: String = first.serial.chars().rev().collect();
    let tokens = stage.scratch.path().join("tokens");
    let is_first = |folder: &Path| {
        let octets = std::fs::read(folder.join("token.object")).unwrap_or_default();
        octets.windows(first.serial.len()).any(|window| window == first.serial.as_bytes())
    };
    let mut folders = std::fs::read_dir(&tokens)?.filter_map(|entry| Some(entry.ok()?.path()));
    let from = folders.find(|folder| is_first(folder)).ok_or("the Recovery token has its folder")?;
    let to = tokens.join("second");
    std::fs::create_dir(&to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    let object = to.join("token.object");
    let mut octets = std::fs::read(&object)?;
    let at = octets.windows(other.len()).position(|window| window == first.serial.as_bytes());
    let at = at.ok_or("a token's file has its serial number")?;
    octets[at..at + other.len()].copy_from_slice(other.as_bytes());
    std::fs::write(&object, octets)?;
    // Each worker counts calls in a file of its own.
    let script = stage.scratch.path().join("slow.script");
    std::fs::copy(&script, script.with_extension("second"))?;

    let text = std::fs::read_to_string(&stage.configuration)?;
    let mut block = block_of(&text, first.name.as_str())?.to_owned();
    for (from, to) in [
        (format!("name = \"{}\"", first.name), format!("name = \"{SECOND_TOKEN}\"")),
        (first.serial.clone(), other),
        ("slow.script".to_owned(), "slow.second".to_owned()),
    ] {
        block = block.replace(&from, &to);
    }
    std::fs::write(&stage.configuration, text.replacen("\n[ledger]", &format!("\n[[token]]{block}\n[ledger]"), 1))?;
    let (key, config) = (stage.names.recovery_key.as_str(), stage.configuration.display().to_string());
    let arguments = ["ceremony", "copy", "--key", key, "--token", SECOND_TOKEN, "--config", &config];
    stage.programs.smkictl(&stage.socket, &arguments).await?;
    Ok(())
}

/// The lines of one token in the configuration, behind `[[token]]`.
fn block_of<'t>(text: &'t str, token: &str) -> Result<&'t str, Fault> {
    let name = format!("name = \"{token}\"");
    let block = text.split("[[token]]").skip(1).find(|block| block.contains(&name));
    let block = block.ok_or("the configuration has the token")?;
    Ok(block.split("\n[").next().unwrap_or(block))
}

fn change_block(stage: &Stage, token: &str, change: impl Fn(&str) -> String) -> Result<(), Fault> {
    let text = std::fs::read_to_string(&stage.configuration)?;
    let block = block_of(&text, token)?;
    let changed = block.lines().map(change).collect::<Vec<_>>().join("\n");
    std::fs::write(&stage.configuration, text.replacen(block, &changed, 1))?;
    Ok(())
}

fn recovery_token(stage: &Stage) -> Result<configuration::Token, Fault> {
    let configuration = Configuration::read(&stage.configuration)?;
    let token = configuration.tokens.into_iter().find(|token| token.name == stage.names.recovery_token);
    Ok(token.ok_or("the configuration has a Recovery token")?)
}

/// The module lands beside the benchmarks.
fn fault_token() -> Result<PathBuf, Fault> {
    let module = std::env::current_exe()?.with_file_name("libfault_token.so");
    if module.exists() { Ok(module) } else { Err(format!("{} was not built", module.display()).into()) }
}
