//! One command alone, with the daemon warm: its latency against the sum of what it cannot do without, each part measured in the same
//! rounds: an echo on a Unix socket, two round trips to a worker process, its C_Signs, one verification, its durable commits.
//!
//! Two sums are printed. The one that counts is of parts in turn: a command does its parts in turn, also in a row of commands. C_Signs and
//! commits are the limit program's. In rows of [`ALONE`] of each, a part finds its code and data in the caches and its core awake, so that sum is
//! smaller, and the command's ratio to it greater.
//!
//! Both add the parts up. The daemon signs a checkpoint while it commits the entries, so what it adds (decisions, encodings, hops
//! between threads) is more than what is above a sum, by up to a C_Sign for each checkpoint.

use std::path::Path;

use axum::Router;
use axum::routing::post;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use smkid::api::client::Client;
use smkid::exercise::bench::statistics::Spread;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use crate::daemon::{Daemon, Hsm};
use crate::limit::{Limit, Measure, median_of};
use crate::{Fault, judge, say};

/// Rounds of a full run, and of a quick one.
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 3;
/// Commands of a round, each alone; and runs of each part.
const ALONE: usize = 60;
/// Commands before the first round.
const WARM_UP: usize = 100;
/// Octets of what is verified: a command with eight certificates.
const COMMAND_LEN: usize = 3_986;
/// Round trips to a worker that the sum counts: one for the command, one for a checkpoint.
const ROUND_TRIPS: f64 = 2.0;
/// Durable commits for each checkpoint: of the entries, and of the checkpoint itself.
const COMMITS_PER_CHECKPOINT: f64 = 2.0;
/// The latency over the sum of the parts in turn, at most.
const RATIO_MAX: f64 = 1.8;

/// Measures latency and parts in turns. Answers whether the target is met.
pub fn run(quick: bool) -> Result<bool, Fault> {
    let rounds = if quick { QUICK_ROUNDS } else { ROUNDS };
    let folder = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&folder.path().join("daemon"), WARM_UP + rounds * ALONE, Hsm::Fast)?;
    let (task, environment) = daemon.task(1)?;
    let mut limit = Limit::start(&task, &environment)?;
    let echo = Echo::start(&folder.path().join("echo.sock"))?;
    let worker = daemon.worker()?;
    let verifier = Verifier::new()?;
    median_of(WARM_UP, || daemon.sign_one().map(drop))?;

    let before = daemon.checkpoints()?;
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let command = median_of(ALONE, || daemon.sign_one().map(drop))?.as_secs_f64();
        let echoes = |count| median_of(count, || echo.once());
        let trips = |count| median_of(count, || Ok(worker.token_info().wait().map(drop)?));
        let verifications = |count| median_of(count, || verifier.once());
        let in_a_row = Parts {
            echo: echoes(ALONE)?.as_secs_f64(),
            trip: trips(ALONE)?.as_secs_f64(),
            sign: limit.seconds(Measure::SignAlone(ALONE))?,
            verify: verifications(ALONE)?.as_secs_f64(),
            commit: limit.seconds(Measure::CommitAlone(ALONE))?,
        };
        let mut turns = Turns::default();
        for _ in 0..ALONE {
            turns.echo.push(echoes(1)?.as_secs_f64());
            for is_first in [true, false] {
                // The entries, the checkpoint over them and its place on the disk.
                turns.commit.push(limit.seconds(Measure::CommitAlone(1))?);
                turns.trip.push(trips(1)?.as_secs_f64());
                turns.sign.push(limit.seconds(Measure::SignAlone(1))?);
                turns.commit.push(limit.seconds(Measure::CommitAlone(1))?);
                // The command itself, between its two checkpoints.
                if is_first {
                    turns.sign.push(limit.seconds(Measure::SignAlone(1))?);
                    turns.verify.push(verifications(1)?.as_secs_f64());
                }
            }
        }
        measured.push(Round { command, in_a_row, in_turn: turns.medians()? });
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of some hundreds")]
    let checkpoints = (daemon.checkpoints()? - before) as f64 / (rounds * ALONE) as f64;
    worker.shutdown();

    println!("{rounds} rounds of {ALONE} commands, each alone; {checkpoints:.2} checkpoints for a command\n");
    say("one command alone, us", measured.iter().map(|round| round.command * 1e6));
    let sums = |which: &str, of: fn(&Round) -> &Parts| {
        println!("\nits parts, {which}:");
        let us = |part: fn(&Parts) -> f64| measured.iter().map(move |round| part(of(round)) * 1e6).collect::<Vec<_>>();
        say("  an echo, us", us(|parts| parts.echo));
        say("  a round trip to a worker, us (twice)", us(|parts| parts.trip));
        say(&format!("  a C_Sign, us ({:.0} of them)", 1.0 + checkpoints), us(|parts| parts.sign));
        say("  a verification, us", us(|parts| parts.verify));
        say(&format!("  a commit, us ({:.0} of them)", COMMITS_PER_CHECKPOINT * checkpoints), us(|parts| parts.commit));
        say("  their sum, us", measured.iter().map(|round| of(round).sum(checkpoints) * 1e6));
        say("  command / sum", measured.iter().map(|round| round.command / of(round).sum(checkpoints)))
    };
    sums(&format!("{ALONE} of one, then of the next"), |round| &round.in_a_row);
    let ratio = sums("in turn", |round| &round.in_turn);
    println!();
    Ok(judge("latency over the sum of its parts in turn", ratio <= RATIO_MAX, &format!("at most {RATIO_MAX}")))
}

/// Medians of one round, in seconds.
struct Round {
    command: f64,
    in_a_row: Parts,
    in_turn: Parts,
}

/// What a command cannot do without, in seconds.
struct Parts {
    echo: f64,
    trip: f64,
    sign: f64,
    verify: f64,
    commit: f64,
}

impl Parts {
    fn sum(&self, checkpoints: f64) -> f64 {
        self.echo
            + ROUND_TRIPS * self.trip
            + (1.0 + checkpoints) * self.sign
            + self.verify
            + COMMITS_PER_CHECKPOINT * checkpoints * self.commit
    }
}

/// The parts as they took their turns, in seconds.
#[derive(Default)]
struct Turns {
    echo: Vec<f64>,
    trip: Vec<f64>,
    sign: Vec<f64>,
    verify: Vec<f64>,
    commit: Vec<f64>,
}

impl Turns {
    fn medians(self) -> Result<Parts, Fault> {
        let Self { echo, trip, sign, verify, commit } = self;
        let median = |took| Spread::of(took).map(|spread| spread.median).ok_or("nothing was measured");
        Ok(Parts {
            echo: median(echo)?,
            trip: median(trip)?,
            sign: median(sign)?,
            verify: median(verify)?,
            commit: median(commit)?,
        })
    }
}

/// A server that answers what it is sent, on the HTTP stack of the daemon, and the daemon's own client.
struct Echo {
    client: Client,
    ours: Runtime,
    _theirs: Runtime,
}

impl Echo {
    fn start(socket: &Path) -> Result<Self, Fault> {
        let theirs = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = {
            let _inside = theirs.enter();
            UnixListener::bind(socket)?
        };
        let router = Router::new().route("/echo", post(|body: String| async move { body }));
        theirs.spawn(async move { axum::serve(listener, router).await });
        let ours = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { client: Client::new(socket), ours, _theirs: theirs })
    }

    fn once(&self) -> Result<(), Fault> {
        let answer: u64 = self.ours.block_on(self.client.post("/echo", &42_u64))?;
        if answer == 42 { Ok(()) } else { Err("the echo answers something else".into()) }
    }
}

/// One verification with ring, of as many octets as a command has.
struct Verifier {
    message: Vec<u8>,
    signature: Vec<u8>,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl Verifier {
    fn new() -> Result<Self, Fault> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| "a key could not be made")?;
        let pair =
            EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(|_| "a key could not be read")?;
        let message = vec![0x5A; COMMAND_LEN];
        let signature = pair.sign(&random, &message).map_err(|_| "nothing was signed")?.as_ref().to_vec();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref().to_vec());
        Ok(Self { message, signature, key })
    }

    fn once(&self) -> Result<(), Fault> {
        self.key.verify(&self.message, &self.signature).map_err(|_| "a signature does not verify".into())
    }
}
