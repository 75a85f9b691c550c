//! Shell: `smkictl exercise --bench`: what a recovery costs on this machine, each figure as a ratio within one run.
//!
//! The tokens, ceremony, procedure and daemon are the exercise's; only the key is opened by a PIN that is stored, for nobody is there to present
//! shares a dozen times. The Devices are signed for in rounds. In each a job signs for as many of them as any other, `smkictl` fetches the
//! commands into files, and the [limit program](limit) does its work on the same token, key and disk; the first of the two changes from round to
//! round. Then the ledger is exported and verified, against as many verifications with ring alone; and the daemon is started again, against the start
//! before anything was signed.
//!
//! | file | what |
//! |---|---|
//! | `recovery` | the determination over all Devices |
//! | `limit` | the limit program: the bound |
//! | `verification` | ring's verifications and nothing else: the bound of an audit |
//! | `cpu`, `statistics` | what processes used; medians |
//!
//! `tests/benches` measures with the same bounds.

pub mod cpu;
pub mod limit;
pub mod recovery;
pub mod statistics;
pub mod verification;

use std::fs;
use std::io;
use std::num::NonZero;
use std::path::Path;
use std::pin::pin;
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::ExerciseError;
use super::clock::Clock;
use super::layout::LayoutError;
use super::programs::{Daemon, Programs};
use super::softhsm::CONFIGURATION_VARIABLE;
use super::stage::{Stage, text};
use super::summary::ms;
use super::tell::{Teller, number};
use super::template::template;
use crate::api::wire::{Job, Status};
use crate::domain::determination::document::KeyChosen;
use crate::domain::names::{DeterminationId, Digest, RequestId};
use crate::domain::policy::Activation;
use limit::{CHUNK_LEN, Limit, Measure, Task, per_second};
use recovery::{activate, determine, device};
use statistics::Spread;
use verification::Verifications;

/// Whatever stops a measurement; its text is for a person.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Devices if nobody says: a turn then takes a second or so on two cores.
pub const DEVICES: u32 = 80_000; // No official reference.
/// Devices at least: below it a turn measures how long programs take to start.
pub const DEVICES_MIN: u32 = 8_000; // No official reference: a thousand for each round and the one that warms up.

/// Rounds at least: fewer make a median of nothing.
const ROUNDS_MIN: usize = 7;
/// Commands of a turn at most: on a shared machine the weather changes within some seconds.
const TURN_MAX: usize = 20_000; // No official reference: two seconds on two cores.
/// Rounds of the audit against ring.
const VERIFY_ROUNDS: usize = 3;
/// For how long C_Sign alone is measured at a time, in seconds.
const SIGN_S: f64 = 0.3;
/// How often a client is asked for its memory.
const LOOK: Duration = Duration::from_millis(10);

/// What was measured. Its JSON is `bench.json`.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The version of the programs.
    pub version: &'static str,
    /// Where.
    pub machine: Machine,
    /// Devices that were signed for.
    pub devices: u64,
    /// Octets of one signed command.
    pub command_octets: usize,
    /// Commands of a turn.
    pub turn: usize,
    /// Each round.
    pub rounds: Vec<Round>,
    /// smkid's rate over the limit program's, of each round.
    pub rate_over_limit: Spread,
    /// The limit program's CPU time for a command over that of smkid, its workers and smkictl, of each round.
    pub limit_cpu_over_cpu: Spread,
    /// The rate of `ledger verify` over ring's, of each round of its own.
    pub verify_over_ring: Spread,
    /// Commands that `ledger verify` checked each second.
    pub verified_per_s: Spread,
    /// From the daemon's start until it was ready, before anything was signed.
    pub start_before: Start,
    /// The same with all of it.
    pub start_after: Start,
    /// The most memory that the daemon had while it signed, in kB.
    pub smkid_memory_kb: u64,
    /// The most that a client had that fetched, in kB, as far as it was seen.
    pub smkictl_memory_kb: u64,
    /// By how much the state directory grew for each command, in octets.
    pub disk_octets_per_command: u64,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Processors that may be used.
    pub processors: usize,
    /// What they are, if the system says.
    pub processor: Option<String>,
    /// The PKCS#11 module.
    pub module: String,
    /// Sessions of the limit program.
    pub limit_sessions: usize,
}

/// What was measured in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// Bare C_Sign each second, on all sessions.
    pub sign_per_s: f64,
    /// The limit program.
    pub limit: Side,
    /// smkid and smkictl.
    pub smkid: Side,
}

/// How one side did in its turn.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Side {
    /// Commands each second.
    pub commands_per_s: f64,
    /// Microseconds of CPU for each command, over all its processes.
    pub cpu_us: f64,
}

/// A start of the daemon.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Start {
    /// Entries of the ledger.
    pub entries: u64,
    /// Until it was ready.
    pub ms: u64,
}

/// Measures a recovery of so many Devices, at least [`DEVICES_MIN`]. What an exercise leaves behind goes into `out`, a new or empty folder; so does
/// `bench.json`.
///
/// # Errors
/// It came to no end.
pub async fn run(out: &Path, devices: u32, teller: &mut Teller<'_>) -> Result<Figures, ExerciseError> {
    let stage = Stage::set(out, Programs::find()?, Clock::default(), Activation::Stored, teller)?;
    let figures = measure(&stage, devices as usize, teller).await?;
    let mut json = serde_json::to_vec_pretty(&figures).expect("figures are made of texts and numbers");
    json.push(b'\n');
    stage.layout.write("bench.json", json)?;
    figures.tell(teller);
    Ok(figures)
}

async fn measure(stage: &Stage, devices: usize, teller: &mut Teller<'_>) -> Result<Figures, ExerciseError> {
    let (recovery, genesis) = stage.ceremony(teller).await?;
    let template = template(&stage.lab, &recovery, stage.lab.broker())?;
    let daemon = start(stage).await?.0;
    let key = KeyChosen { label: stage.names.recovery_key.clone(), spki_sha256: recovery.spki_sha256() };
    let determination = determine(stage, &daemon.client, &template, key, devices).await?;
    daemon.stop().await?;
    let disk_before = len(&stage.scratch.path().join("state"))?;
    let (daemon, start_before) = start(stage).await?;
    activate(stage, &daemon.client).await?;
    teller.good(&format!("{} Devices are determined, and the key is open for them.", number(devices as u64)));

    let sessions = thread::available_parallelism().map_or(1, NonZero::get);
    let machine = Machine {
        processors: sessions,
        processor: processor(),
        module: text(stage.softhsm.module()),
        limit_sessions: sessions,
    };
    let plan = Plan::of(devices, sessions);
    let task = Task {
        module: stage.softhsm.module().to_owned(),
        token: stage.recovery_token.label.clone(),
        pin_file: stage.recovery_token.pin_file.clone(),
        key: stage.names.recovery_key.to_string(),
        template: template.octets().to_vec(),
        database: stage.scratch.path().join("limit.db"),
        sessions,
        chunk: plan.chunk,
    };
    let environment = [(CONFIGURATION_VARIABLE.to_owned(), text(stage.softhsm.configuration()))].into();
    let mut limit = Limit::start(&task, &environment).map_err(ExerciseError::Measure)?;
    let mut jobs = Jobs { stage, daemon: &daemon, determination, begun: 0, client_kb: 0 };
    let rounds = plan.rounds(&mut jobs, &mut limit, teller).await?;
    drop(limit);
    let smkictl_memory_kb = jobs.client_kb;
    let smkid_memory_kb = cpu::memory_kb_max(pid(&daemon)).map_err(ExerciseError::Measure)?;

    let verified = verify(stage, devices, genesis, teller).await?;
    daemon.stop().await?;
    let disk_after = len(&stage.scratch.path().join("state"))?;
    let (daemon, start_after) = start(stage).await?;
    daemon.stop().await?;
    let of = |figure: &dyn Fn(&Round) -> f64| spread(rounds.iter().map(figure));
    let mut command = Vec::new();
    template.fill(stage.names.recovery_party, device(0), recovery::COUNTER + 1, &mut command)?;
    Ok(Figures {
        version: env!("CARGO_PKG_VERSION"),
        machine,
        devices: devices as u64,
        command_octets: command.len() + crate::domain::gbcs::SIGNATURE_PART_LEN,
        turn: plan.turn,
        rate_over_limit: of(&|round| round.smkid.commands_per_s / round.limit.commands_per_s),
        limit_cpu_over_cpu: of(&|round| round.limit.cpu_us / round.smkid.cpu_us),
        verify_over_ring: spread(verified.iter().map(|(ours, ring)| ours / ring)),
        verified_per_s: spread(verified.iter().map(|(ours, _)| *ours)),
        rounds,
        start_before,
        start_after,
        smkid_memory_kb,
        smkictl_memory_kb,
        disk_octets_per_command: disk_after.saturating_sub(disk_before) / devices.max(1) as u64,
    })
}

fn spread(figures: impl IntoIterator<Item = f64>) -> Spread {
    Spread::of(figures).expect("there is a round at least")
}

/// How the Devices are parted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    rounds: usize,
    /// Commands of a turn.
    turn: usize,
    /// Those of the turn that warms up: what is left over is in it.
    first: usize,
    /// Commands of a chunk of the limit program, and its chunks in a turn: as many for each session, so that none waits in the end.
    chunk: usize,
    chunks: usize,
}

impl Plan {
    fn of(devices: usize, sessions: usize) -> Self {
        let rounds = (devices.div_ceil(TURN_MAX).saturating_sub(1)).max(ROUNDS_MIN);
        let turn = devices / (rounds + 1);
        let chunks = turn.div_ceil(CHUNK_LEN).next_multiple_of(sessions);
        Self { rounds, turn, first: devices - rounds * turn, chunk: (turn / chunks).max(1), chunks }
    }

    /// Both sides in turns.
    async fn rounds(
        self,
        jobs: &mut Jobs<'_>,
        limit: &mut Limit,
        teller: &mut Teller<'_>,
    ) -> Result<Vec<Round>, ExerciseError> {
        let Self { rounds, turn, first, chunk: _, chunks } = self;
        teller.step("Signing, against the limit program");
        teller.say(&format!(
            "In each of {rounds} rounds smkid signs {} commands by a job, and smkictl fetches them into files; the limit program does as much of what \
             a recorded and verified signature cannot do without, and nothing else. They take turns.",
            number(turn as u64)
        ));
        jobs.sign(first).await?;
        let mut of_limit = |measure| limit.measure(measure).map_err(ExerciseError::Measure);
        of_limit(Measure::Chunks(chunks))?;
        let signs = whole(of_limit(Measure::Sign(CHUNK_LEN))? * SIGN_S);
        let process = limit.process();
        teller.line(&format!(
            "\n    {:>5} {:>12} {:>12} {:>12} {:>8}",
            "round", "C_Sign/s", "limit/s", "smkid/s", "ratio"
        ));
        let mut measured = Vec::with_capacity(rounds);
        for n in 1..=rounds {
            let sign_per_s = limit.measure(Measure::Sign(signs)).map_err(ExerciseError::Measure)?;
            // Whoever comes second might find a warmer or a busier machine, so they change places.
            let mut sides = [None, None];
            for side in if n % 2 == 1 { [0, 1] } else { [1, 0] } {
                let processes = if side == 0 { vec![process] } else { jobs.processes() };
                let before = used(&processes)?;
                let (rate, commands) = if side == 0 {
                    (limit.measure(Measure::Chunks(chunks)).map_err(ExerciseError::Measure)?, chunks * self.chunk)
                } else {
                    (per_second(turn, jobs.sign(turn).await?), turn)
                };
                let cpu_us = 1e6 / per_second(commands, used(&processes)?.saturating_sub(before));
                sides[side] = Some(Side { commands_per_s: rate, cpu_us });
            }
            let [Some(limit), Some(smkid)] = sides else { unreachable!("each side had its turn") };
            let ratio = smkid.commands_per_s / limit.commands_per_s;
            teller.line(&format!(
                "    {n:>5} {:>12} {:>12} {:>12} {ratio:>8.2}",
                counted(sign_per_s),
                counted(limit.commands_per_s),
                counted(smkid.commands_per_s)
            ));
            measured.push(Round { sign_per_s, limit, smkid });
        }
        Ok(measured)
    }
}

/// smkid's side: jobs, each for the next Devices of the determination.
struct Jobs<'a> {
    stage: &'a Stage,
    daemon: &'a Daemon,
    determination: DeterminationId,
    /// Devices that were signed for.
    begun: usize,
    /// The most memory that a client had.
    client_kb: u64,
}

impl Jobs<'_> {
    /// From a device list as a file to the commands in files, with their manifest.
    async fn sign(&mut self, count: usize) -> Result<Duration, ExerciseError> {
        let Stage { scratch, programs, socket, .. } = self.stage;
        let (list, out) = (scratch.path().join("turn.txt"), scratch.path().join("turn"));
        let devices = self.begun..self.begun + count;
        let lines = devices.fold(String::new(), |lines, n| lines + &device(n).to_string() + "\n");
        fs::write(&list, lines).map_err(LayoutError::at(&list))?;
        self.begun += count;
        let determination = self.determination.to_string();
        let (devices, folder) = (text(&list), text(&out));
        let began = Instant::now();
        let start = ["recovery", "start", "--determination", &determination, "--devices", &devices, "--output", "json"];
        let job = job_of(&programs.smkictl(socket, &start).await?)?.to_string();
        let fetch = ["recovery", "fetch", &job, "--follow", "--format", "container", "--out", &folder];
        let mut command = programs.command(socket, &fetch);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(not_started)?;
        let process = child.id();
        // What it says is read as it comes: a pipe that is full would hold it up.
        let mut ended = pin!(child.wait_with_output());
        let output = loop {
            tokio::select! {
                output = &mut ended => break output.map_err(not_started)?,
                () = tokio::time::sleep(LOOK) => {
                    let seen = process.and_then(|pid| cpu::memory_kb_max(pid).ok());
                    self.client_kb = self.client_kb.max(seen.unwrap_or_default());
                }
            }
        };
        let took = began.elapsed();
        let Output { status, stdout: _, stderr } = output;
        if !status.success() {
            let said = String::from_utf8_lossy(&stderr);
            let expected =
                format!("expected all {count} commands of job {job}, `smkictl recovery fetch` ended with {status}");
            return Err(ExerciseError::Measure(format!("{expected}: {}", said.trim()).into()));
        }
        fs::remove_dir_all(&out).map_err(LayoutError::at(&out))?;
        Ok(took)
    }

    /// The processes whose work a command takes: the daemon, its workers, and this one, whose children the clients are.
    fn processes(&self) -> Vec<u32> {
        let workers = self.daemon.workers().into_iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        workers.chain([pid(self.daemon), std::process::id()]).collect()
    }
}

/// The id in the answer to `recovery start`.
fn job_of(answer: &str) -> Result<RequestId, ExerciseError> {
    let job: Job = serde_json::from_str(answer).map_err(|error| ExerciseError::Measure(error.into()))?;
    Ok(job.request)
}

fn not_started(error: io::Error) -> ExerciseError {
    super::programs::ProgramError::NotStarted { program: "smkictl".to_owned(), error }.into()
}

fn used(processes: &[u32]) -> Result<Duration, ExerciseError> {
    cpu::used(processes).map_err(ExerciseError::Measure)
}

fn pid(daemon: &Daemon) -> u32 {
    daemon.pid().as_raw_nonzero().get().unsigned_abs()
}

/// Starts the daemon, and says how long it took to be ready.
async fn start(stage: &Stage) -> Result<(Daemon, Start), ExerciseError> {
    let began = Instant::now();
    let daemon = Daemon::start(&stage.programs, &stage.configuration, &stage.socket, &stage.log).await?;
    let took = began.elapsed();
    let status: Status = daemon.client.get("/v1/status").await?;
    Ok((daemon, Start { entries: status.ledger.size, ms: ms(took) }))
}

/// Exports the ledger and verifies it, in turns with ring alone: commands each second of both, for each round.
async fn verify(
    stage: &Stage,
    commands: usize,
    genesis: Digest,
    teller: &mut Teller<'_>,
) -> Result<Vec<(f64, f64)>, ExerciseError> {
    teller.step("The audit, against ring");
    let (export, key, genesis) =
        (text(&stage.layout.path("ledger")), text(&stage.layout.path("keys/ledger.vkey")), genesis.to_string());
    stage.programs.smkictl(&stage.socket, &["ledger", "export", &export]).await?;
    let verify = ["ledger", "verify", &export, "--key", &key, "--genesis", &genesis];
    let ring = Verifications::new().map_err(ExerciseError::Measure)?;
    teller.line(&format!("    {:>5} {:>12} {:>12} {:>8}", "round", "ring/s", "verify/s", "ratio"));
    let mut measured = Vec::with_capacity(VERIFY_ROUNDS);
    for n in 1..=VERIFY_ROUNDS {
        let (mut ours, mut plain) = (Duration::ZERO, Duration::ZERO);
        for side in if n % 2 == 1 { [0, 1] } else { [1, 0] } {
            if side == 0 {
                plain = ring.on_all_processors(commands).map_err(ExerciseError::Measure)?;
            } else {
                let began = Instant::now();
                stage.programs.smkictl(&stage.socket, &verify).await?;
                ours = began.elapsed();
            }
        }
        let (ours, plain) = (per_second(commands, ours), per_second(commands, plain));
        teller.line(&format!("    {n:>5} {:>12} {:>12} {:>8.2}", counted(plain), counted(ours), ours / plain));
        measured.push((ours, plain));
    }
    Ok(measured)
}

/// What the processors are, as proc(5) tells.
fn processor() -> Option<String> {
    let all = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = all.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
}

/// Octets of the files in a folder and below it.
fn len(folder: &Path) -> Result<u64, ExerciseError> {
    let at = || LayoutError::at(folder);
    let mut octets = 0;
    for entry in fs::read_dir(folder).map_err(at())? {
        let entry = entry.map_err(at())?;
        let metadata = entry.metadata().map_err(at())?;
        octets += if metadata.is_dir() { len(&entry.path())? } else { metadata.len() };
    }
    Ok(octets)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate over some seconds: small, and not negative"
)]
fn whole(count: f64) -> usize {
    count.round() as usize
}

/// A rate, with commas between thousands.
fn counted(rate: f64) -> String {
    number(whole(rate) as u64)
}

impl Figures {
    /// The table, and how to read it.
    pub fn tell(&self, teller: &mut Teller<'_>) {
        let Machine { processors, processor, module, limit_sessions: _ } = &self.machine;
        let of = |figure: &dyn Fn(&Round) -> f64| spread(self.rounds.iter().map(figure));
        teller.step("The figures");
        let processor = processor.as_deref().unwrap_or("unknown");
        teller.line(&format!("    {} processors ({processor}), {module}", number(*processors as u64)));
        let devices = number(self.devices);
        teller.line(&format!("    {devices} Devices, {} octets a command\n", number(self.command_octets as u64)));
        teller.line(&format!("    {:<46} {:>10}  {}", "", "median", "least to greatest"));
        let mut row = |what: &str, figure: Spread| teller.line(&format!("    {what:<46} {}", shown(figure)));
        row("smkid / limit program, commands each second", self.rate_over_limit);
        row("limit program / smkid, CPU of a command", self.limit_cpu_over_cpu);
        row("ledger verify / ring alone", self.verify_over_ring);
        row("smkid, list to files, commands each second", of(&|round| round.smkid.commands_per_s));
        row("limit program, commands each second", of(&|round| round.limit.commands_per_s));
        row("C_Sign alone, each second", of(&|round| round.sign_per_s));
        row("smkid and smkictl, us of CPU for a command", of(&|round| round.smkid.cpu_us));
        row("ledger verify, commands each second", self.verified_per_s);
        let mut row = |what: &str, figure: &str| teller.line(&format!("    {what:<46} {figure:>10}"));
        let Start { entries, ms } = self.start_before;
        row(&format!("start with {} entries, ms", number(entries)), &number(ms));
        let Start { entries, ms } = self.start_after;
        row(&format!("start with {} entries, ms", number(entries)), &number(ms));
        row("most memory of smkid, MiB", &number(self.smkid_memory_kb / 1024));
        row("most memory of smkictl, MiB", &number(self.smkictl_memory_kb / 1024));
        row("disk for each command, octets", &number(self.disk_octets_per_command));
        teller.line("");
        teller.say(
            "Read the ratios, and of each the median: both sides did the same in turns, on the same processors, token and disk. A rate is this \
             machine's at this moment. Where least and greatest lie far apart the machine was busy, and the run says little; of the rate's ratio \
             and the CPU's believe the smaller. Few Devices make short turns, in which the start of programs counts: take ten times as many and \
             see whether the ratio stays.",
        );
    }
}

fn shown(figure: Spread) -> String {
    let Spread { median, least, greatest } = figure;
    if greatest < 10.0 {
        format!("{median:>10.2}  {least:.2} to {greatest:.2}")
    } else {
        format!("{:>10}  {} to {}", counted(median), counted(least), counted(greatest))
    }
}

#[cfg(test)]
mod tests;
