//! Commands per second against the limit program, as a ratio in one run: `cargo bench`.
//!
//! See `src/docs/benchmarks.md` for what the figures mean. Rates of one machine at one moment are worth little; the two
//! sides therefore take turns, in rounds of some seconds, and what counts is the median of the rounds' ratios.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod command;
mod limit;
mod softhsm;
mod statistics;

use std::process::ExitCode;
use std::thread;

use clap::Parser;

use limit::{CHUNK_LEN, Limit, Measure, Task};
use statistics::Spread;

/// Whatever stops a benchmark; its text is for a person.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Rounds of a full run: fewer make a median of nothing.
const ROUNDS: u32 = 7;
/// Rounds of a quick one.
const QUICK_ROUNDS: u32 = 3;
/// How long one side's turn takes at most: on a shared machine the weather changes within some seconds.
const TURN_S: f64 = 1.8;
/// The same, when it is to be quick.
const QUICK_TURN_S: f64 = 0.6;
/// How long bare C_Sign is measured at a time.
const SIGN_S: f64 = 0.3;
/// Chunks of the turn that warms up and tells how many make a turn.
const WARM_UP_CHUNKS: usize = 4;

/// Commands per second, end to end, against the limit program.
#[derive(Parser)]
#[command(name = "end_to_end")]
struct Arguments {
    /// Three short rounds.
    #[arg(long)]
    quick: bool,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some(limit::ARGUMENT) => limit::main().map(|()| ExitCode::SUCCESS),
        Some(_) | None => run(&Arguments::parse()),
    };
    result.unwrap_or_else(|fault| {
        eprintln!("end_to_end: {fault}");
        ExitCode::FAILURE
    })
}

/// What was measured in one round, in operations per second.
struct Round {
    sign: f64,
    limit: f64,
}

fn run(arguments: &Arguments) -> Result<ExitCode, Fault> {
    let Arguments { quick, bench: _ } = *arguments;
    let (rounds, turn_s) = if quick { (QUICK_ROUNDS, QUICK_TURN_S) } else { (ROUNDS, TURN_S) };
    let folder = tempfile::tempdir()?;
    let token = softhsm::Token::make(folder.path())?;
    let sessions = thread::available_parallelism()?.get();
    let mut limit = Limit::start(
        &Task {
            module: token.module.clone(),
            token: token.label.into(),
            pin: token.pin.into(),
            key: token.key.into(),
            template: command::template().octets().to_vec(),
            database: folder.path().join("limit.db"),
            sessions,
        },
        &token.conf,
    )?;
    let chunks = turn_len(limit.measure(Measure::Chunks(WARM_UP_CHUNKS))?, turn_s, sessions);
    let signs = whole(limit.measure(Measure::Sign(CHUNK_LEN))? * SIGN_S);

    println!("{sessions} sessions, turns of {} commands, {rounds} rounds\n", chunks * CHUNK_LEN);
    println!("{:>6} {:>12} {:>12}", "round", "C_Sign/s", "limit/s");
    let mut measured = Vec::new();
    for number in 1..=rounds {
        let round =
            Round { sign: limit.measure(Measure::Sign(signs))?, limit: limit.measure(Measure::Chunks(chunks))? };
        println!("{number:>6} {:>12.0} {:>12.0}", round.sign, round.limit);
        measured.push(round);
    }
    let sign_after = limit.measure(Measure::Sign(signs))?;
    println!("{:>6} {sign_after:>12.0}\n", "after");

    say("C_Sign alone, per second", measured.iter().map(|round| round.sign).chain([sign_after]));
    say("limit program, commands per second", measured.iter().map(|round| round.limit));
    say("limit program / C_Sign alone", measured.iter().map(|round| round.limit / round.sign));
    Ok(ExitCode::SUCCESS)
}

/// How many chunks fill a turn; as many for each session, so that none waits for another in the end.
fn turn_len(commands_per_s: f64, turn_s: f64, sessions: usize) -> usize {
    let chunks = whole(commands_per_s * turn_s) / CHUNK_LEN;
    (chunks / sessions).max(1) * sessions
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate over some seconds: small, not negative"
)]
fn whole(count: f64) -> usize {
    count as usize
}

fn say(what: &str, figures: impl IntoIterator<Item = f64>) {
    if let Some(Spread { median, least, greatest }) = Spread::of(figures) {
        let digits = if greatest < 10.0 { 2 } else { 0 };
        println!("{what:<40} {median:>9.digits$} ({least:.digits$} to {greatest:.digits$})");
    }
}
