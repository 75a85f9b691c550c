//! Commands per second against the limit program, as a ratio in one run: `cargo bench`.
//!
//! See `src/docs/benchmarks.md` for what the figures mean. Rates of one machine at one moment are worth little; the two
//! sides therefore take turns, in rounds of some seconds, and what counts is the median of the rounds' ratios.

mod daemon;
mod latency;
mod scale;
mod tokens;

use std::process::{Command, ExitCode, Stdio};
use std::thread;

use clap::Parser;

use daemon::{Daemon, Hsm};
use smkid::exercise::bench::limit::{CHUNK_LEN, Limit, Measure, per_second};
use smkid::exercise::bench::statistics::Spread;
use smkid::exercise::bench::{cpu, limit};

/// Whatever stops a benchmark; its text is for a person.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Rounds of a full run: fewer make a median of nothing.
const ROUNDS: usize = 7;
/// Rounds of a quick one.
const QUICK_ROUNDS: usize = 3;
/// How long the limit program's turn takes at most; the daemon's is longer by the ratio. On a shared machine the weather changes
/// within some seconds.
const TURN_S: f64 = 1.4;
/// The same, when it is to be quick.
const QUICK_TURN_S: f64 = 0.5;
/// How long bare C_Sign is measured at a time.
const SIGN_S: f64 = 0.3;
/// Chunks of the turns that warm up and tell how many make a turn.
const WARM_UP_CHUNKS: usize = 4;
/// Chunks of a turn at most, so that a determination over all Devices can be made before anything is measured. No official
/// reference: twice what four cores do in a turn.
const TURN_CHUNKS_MAX: usize = 60;

/// End to end against the limit program, at least.
const RATIO_MIN: f64 = 0.85;
/// Exit status of `--gate` when a target is missed.
const MISSED: u8 = 1;

/// Commands per second, end to end, against the limit program.
#[derive(Parser)]
#[command(name = "end_to_end")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option that is there or not")]
struct Arguments {
    /// Three short rounds.
    #[arg(long)]
    quick: bool,
    /// Another program to measure in the same rounds, by the shell; it prints what it did per second on its last line.
    #[arg(long, value_name = "COMMAND")]
    beside: Option<String>,
    /// Tokens that take 5 ms for a signature, instead: many sessions against a bare loop, and two tokens against one.
    #[arg(long)]
    sessions: bool,
    /// 10,000 Devices against 1,000,000, instead: time and memory for each.
    #[arg(long)]
    scale: bool,
    /// How many Devices the large recovery has.
    #[arg(long, value_name = "N", requires = "scale")]
    devices: Option<usize>,
    /// One command alone, instead: its latency against the sum of what it cannot do without.
    #[arg(long)]
    latency: bool,
    /// Exit with status 1 if a target is missed.
    #[arg(long)]
    gate: bool,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some(limit::ARGUMENT) => limit::main().map(|()| true),
        Some(_) | None => run(&Arguments::parse()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(MISSED),
        Err(fault) => {
            eprintln!("end_to_end: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// Answers whether it may end well.
fn run(arguments: &Arguments) -> Result<bool, Fault> {
    let met = if arguments.sessions {
        tokens::run(arguments.quick)?
    } else if arguments.scale {
        scale::run(arguments.quick, arguments.devices)?
    } else if arguments.latency {
        latency::run(arguments.quick)?
    } else {
        rates(arguments.quick, arguments.beside.as_deref())?
    };
    Ok(met || !arguments.gate)
}

/// What was measured in one round, in operations per second.
struct Round {
    sign: f64,
    limit: Side,
    daemon: Side,
    beside: Option<f64>,
}

/// How one side did in its turn.
#[derive(Clone, Copy)]
struct Side {
    /// Commands per second.
    rate: f64,
    /// Microseconds of CPU for each command, over all its processes.
    cpu_us: f64,
}

impl Side {
    /// Has a side do its turn of so many commands.
    fn measure(commands: usize, processes: &[u32], turn: impl FnOnce() -> Result<f64, Fault>) -> Result<Self, Fault> {
        let before = cpu::used(processes)?;
        let rate = turn()?;
        let cpu_us = 1e6 / per_second(commands, cpu::used(processes)?.saturating_sub(before));
        Ok(Self { rate, cpu_us })
    }
}

/// Measures both sides in turns. Answers whether the target is met.
fn rates(quick: bool, beside: Option<&str>) -> Result<bool, Fault> {
    let (rounds, turn_s) = if quick { (QUICK_ROUNDS, QUICK_TURN_S) } else { (ROUNDS, TURN_S) };
    let folder = tempfile::tempdir()?;
    let sessions = thread::available_parallelism()?.get();
    let devices = (rounds * TURN_CHUNKS_MAX + WARM_UP_CHUNKS) * CHUNK_LEN;
    let mut daemon = Daemon::start(&folder.path().join("daemon"), devices, Hsm::Fast)?;
    let (task, environment) = daemon.task(sessions)?;
    let mut limit = Limit::start(&task, &environment)?;

    let chunks = turn_len(limit.measure(Measure::Chunks(WARM_UP_CHUNKS))?, turn_s, sessions);
    let signs = whole(limit.measure(Measure::Sign(CHUNK_LEN))? * SIGN_S);
    daemon.sign(WARM_UP_CHUNKS * CHUNK_LEN)?;
    let commands = chunks * CHUNK_LEN;

    println!(
        "{rounds} rounds; in each, both sides sign {commands} commands; the limit program has {sessions} sessions\n"
    );
    println!("{:>6} {:>12} {:>12} {:>12} {:>8}", "round", "C_Sign/s", "limit/s", "smkid/s", "ratio");
    let mut measured: Vec<Round> = Vec::new();
    for number in 1..=rounds {
        let sign = limit.measure(Measure::Sign(signs))?;
        let mut of_limit = || Side::measure(commands, &[limit.process()], || limit.measure(Measure::Chunks(chunks)));
        let mut of_daemon = || {
            let processes = daemon.processes();
            Side::measure(commands, &processes, || Ok(per_second(commands, daemon.sign(commands)?)))
        };
        // Whoever comes second might find a warmer or a busier machine, so they change places.
        let (of_limit, of_daemon) = if number % 2 == 1 {
            let first = of_limit()?;
            (first, of_daemon()?)
        } else {
            let first = of_daemon()?;
            (of_limit()?, first)
        };
        let beside = beside.map(measured_beside).transpose()?;
        let round = Round { sign, limit: of_limit, daemon: of_daemon, beside };
        let ratio = round.daemon.rate / round.limit.rate;
        println!(
            "{number:>6} {:>12.0} {:>12.0} {:>12.0} {ratio:>8.2}",
            round.sign, round.limit.rate, round.daemon.rate
        );
        measured.push(round);
    }
    let sign_after = limit.measure(Measure::Sign(signs))?;
    println!("{:>6} {sign_after:>12.0}\n", "after");

    say("C_Sign alone, per second", measured.iter().map(|round| round.sign).chain([sign_after]));
    say("limit program, commands per second", measured.iter().map(|round| round.limit.rate));
    say("smkid end to end, commands per second", measured.iter().map(|round| round.daemon.rate));
    say("smkid / C_Sign alone", measured.iter().map(|round| round.daemon.rate / round.sign));
    say("limit program, us of CPU per command", measured.iter().map(|round| round.limit.cpu_us));
    say("smkid and client, us of CPU per command", measured.iter().map(|round| round.daemon.cpu_us));
    say("CPU, limit program / smkid and client", measured.iter().map(|round| round.limit.cpu_us / round.daemon.cpu_us));
    let of_beside = || measured.iter().filter_map(|round| Some((round.beside?, round.daemon.rate)));
    if of_beside().next().is_some() {
        say("the program beside, per second", of_beside().map(|(beside, _)| beside));
        say("smkid / the program beside", of_beside().map(|(beside, ours)| ours / beside));
    }
    let ratio = say("smkid / limit program", measured.iter().map(|round| round.daemon.rate / round.limit.rate));
    Ok(judge("smkid / limit program", ratio >= RATIO_MIN, &format!("at least {RATIO_MIN}")))
}

/// Runs another program, and reads what it did per second off its last line.
fn measured_beside(command: &str) -> Result<f64, Fault> {
    let output = Command::new("sh").args(["-c", command]).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default().trim();
    let rate = last.parse().ok().filter(|_| output.status.success());
    rate.ok_or_else(|| {
        format!("{command}: expected a rate on its last line, found {last:?} ({})", output.status).into()
    })
}

fn judge(what: &str, met: bool, target: &str) -> bool {
    println!("{}: {what} {target}", if met { "met" } else { "MISSED" });
    met
}

/// How many chunks fill a turn; as many for each session, so that none waits for another in the end.
fn turn_len(commands_per_s: f64, turn_s: f64, sessions: usize) -> usize {
    let chunks = (whole(commands_per_s * turn_s) / CHUNK_LEN).min(TURN_CHUNKS_MAX);
    (chunks / sessions).max(1) * sessions
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate over some seconds: small, and not negative"
)]
fn whole(count: f64) -> usize {
    count as usize
}

/// Prints median and extremes, and answers the median.
fn say(what: &str, figures: impl IntoIterator<Item = f64>) -> f64 {
    let Some(Spread { median, least, greatest }) = Spread::of(figures) else { return f64::NAN };
    let digits = if greatest < 10.0 { 2 } else { 0 };
    println!("{what:<40} {median:>9.digits$} ({least:.digits$} to {greatest:.digits$})");
    median
}
