//! How fast a ledger is verified, exported and read, each beside what the machine can do, in turns in one run; what verifying takes of
//! memory for each Device, and how answers grow with the ledger.
//!
//! `cargo bench --bench ledger -- --leaves 600000` makes a ledger of that many leaves, and one of a tenth, with a key in memory; their commands
//! are those of one job. With `--keep DIR` they are made there once and used again. `--quick` is a try of the bench itself.
//!
//! The tree alone is held against SHA-256 over the octets of the entries, in memory, on one core: by the clock, for that is what
//! somebody waits for, and `smkictl` uses every core; and by the CPU that both take, which is printed beside it. Of SHA-256 alone a tree over
//! entries of 300 octets takes half as much again as the octets by themselves. Files are read, checkpoints verified and blobs hashed besides.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "octets and signatures stay far below 2^52")]
#![allow(missing_docs, reason = "a program")]

use std::fs;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use smkid::cli::contingency_command::ContingencyCommand;
use smkid::cli::ledger_export::{StoreSource, export};
use smkid::cli::ledger_verify::{LedgerVerify, verify};
use smkid::cli::print::Output;
use smkid::exercise::bench::cpu;
use smkid::exercise::bench::statistics::Spread;
use smkid::exercise::bench::verification::Verifications;
use smkid::store::sqlite::SqliteReader;
use smkid::store::{Reader as _, StoredLeaf};

#[path = "../it/support/lab.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod lab;
#[path = "../it/support/ledger_fixture.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod ledger_fixture;

use ledger_fixture::large::HandOver;
use ledger_fixture::{Fixture, numbered};

/// Of the speed of SHA-256 over the same octets, with ring on one core.
const TREE_MIN: f64 = 0.5;
/// Of ring's rate of verification on all cores.
const VERIFY_MIN: f64 = 0.8;

/// Octets that verifying may take for each Device, of a ledger where each has one command, and all of them are released in the end: 10 in the
/// list, 32 of the last command, 16 until it is released; and a tenth each of checkpoints, pages and files.
const DEVICE_LEN_MAX: f64 = 80.0;

struct Asked {
    leaves: u64,
    rounds: usize,
    keep: Option<PathBuf>,
    /// Verify this one, say how much memory that took, and nothing else.
    verify: Option<PathBuf>,
}

fn asked() -> Asked {
    let mut asked = Asked { leaves: 600_000, rounds: 7, keep: None, verify: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--leaves" => asked.leaves = arguments.next().unwrap().parse().unwrap(),
            "--rounds" => asked.rounds = arguments.next().unwrap().parse().unwrap(),
            "--keep" => asked.keep = Some(arguments.next().unwrap().into()),
            "--verify" => asked.verify = Some(arguments.next().unwrap().into()),
            "--quick" => (asked.leaves, asked.rounds) = (40_000, 3),
            // What cargo adds.
            "--bench" => {}
            other => panic!("{other}: expected --leaves N, --rounds N, --keep DIR or --quick"),
        }
    }
    asked
}

/// A ledger in a folder: the database, and beside it what an outsider trusts, and its export.
fn make(folder: &Path, leaves: u64) {
    if folder.exists() {
        return;
    }
    let making = folder.with_extension("making");
    let _ = fs::remove_dir_all(&making);
    fs::create_dir_all(making.join("state")).unwrap();
    let begun = Instant::now();
    let devices = leaves / 2;
    let mut fixture = Fixture::large(&making.join("state"), devices);
    fixture.sign_all(0..devices, HandOver::InTheEnd);
    fs::write(making.join("ledger.vkey"), fixture.verifier.vkey()).unwrap();
    fs::write(making.join("genesis"), fixture.genesis.to_string()).unwrap();
    drop(fixture);
    println!("{leaves} leaves made in {:.1} s", begun.elapsed().as_secs_f64());
    let reader = SqliteReader::open(&making.join("state")).unwrap();
    let begun = Instant::now();
    export(&StoreSource(&reader), &making.join("export")).unwrap();
    let (taken, octets) = (begun.elapsed().as_secs_f64(), len(&making.join("export")));
    println!("  exported {} MB in {taken:.2} s: {:.0} MB/s", megabytes(octets), octets as f64 / taken / 1e6);
    fs::rename(&making, folder).unwrap();
}

fn main() -> ExitCode {
    let asked = asked();
    if let Some(folder) = asked.verify {
        verify(&arguments(&folder, false)).unwrap();
        println!("{}", cpu::memory_kb_max(std::process::id()).unwrap());
        return ExitCode::SUCCESS;
    }
    let scratch = tempfile::tempdir().unwrap();
    let folder = asked.keep.clone().unwrap_or_else(|| scratch.path().to_owned());
    let ledgers = [asked.leaves / 10, asked.leaves].map(|leaves| (leaves, folder.join(leaves.to_string())));
    for (leaves, folder) in &ledgers {
        make(folder, *leaves);
    }
    for (_, folder) in &ledgers {
        answers(folder);
    }
    let mut met = memory(&ledgers);
    let [_, (_, large)] = &ledgers;
    met &= tree(large, asked.rounds);
    met &= whole(large, asked.rounds);
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How long the answers take that a ledger is asked for.
fn answers(folder: &Path) {
    let reader = SqliteReader::open(&folder.join("state")).unwrap();
    let head = reader.head().unwrap();
    println!("{} leaves, {} MB of database:", head.size, megabytes(len(&folder.join("state"))));
    let index = |at: u64| at % head.size;
    latency("a proof of inclusion", |at| drop(reader.inclusion_path(index(at), head.size).unwrap()));
    latency("a proof of consistency", |at| drop(reader.consistency_path(index(at) + 1, head.size).unwrap()));
    latency("an entry", |at| drop(reader.leaf(index(at)).unwrap()));
    latency("an entry, proven under the head", |at| drop(reader.leaf_under(index(at), &head).unwrap()));
    latency("the intents of a Device", |at| drop(reader.intents_of(numbered(index(at) / 2)).unwrap()));
    let begun = Instant::now();
    let mut uncommon = 0;
    let visit = &mut |_: StoredLeaf<'_>| {
        uncommon += 1;
        ControlFlow::Continue(())
    };
    reader.uncommon(0..head.size, visit).unwrap();
    println!("  all {uncommon} entries but intents and signatures: {:.2} ms", begun.elapsed().as_secs_f64() * 1e3);
}

/// What verifying takes of memory, in a process of its own, and by how much that grows with each Device.
fn memory(ledgers: &[(u64, PathBuf); 2]) -> bool {
    let [small, large] = ledgers.each_ref().map(|(leaves, folder)| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let answer = command.arg("--verify").arg(folder).output().unwrap();
        let kb: u64 = String::from_utf8(answer.stdout).unwrap().trim().parse().unwrap();
        println!("verifying {leaves} leaves takes {kb} kB at most");
        kb
    });
    let [(few, _), (many, _)] = ledgers;
    let slope = (large as f64 - small as f64) * 1024.0 / ((many - few) as f64 / 2.0);
    let met = slope <= DEVICE_LEN_MAX;
    let verdict = if met { "met" } else { "MISSED" };
    println!("{verdict}: {slope:.0} octets more for each Device, wanted at most {DEVICE_LEN_MAX:.0}\n");
    met
}

/// How long an answer takes, at places all over the ledger.
fn latency(what: &str, ask: impl Fn(u64)) {
    let taken = (1..=201_u64).map(|at| {
        let begun = Instant::now();
        ask(at * 104_729 * 7_919);
        begun.elapsed().as_secs_f64() * 1e3
    });
    let Spread { median, least: _, greatest } = Spread::of(taken).unwrap();
    println!("  {what}: median {median:.3} ms, at most {greatest:.3} ms");
}

fn megabytes(octets: u64) -> u64 {
    octets / 1_000_000
}

/// Octets of the files below a folder.
fn len(folder: &Path) -> u64 {
    files(folder).iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn arguments(folder: &Path, tree_only: bool) -> LedgerVerify {
    LedgerVerify {
        dir: folder.join("export"),
        key: folder.join("ledger.vkey"),
        genesis: fs::read_to_string(folder.join("genesis")).unwrap().parse().unwrap(),
        checkpoint: None,
        tree_only,
        contingency: ContingencyCommand::default(),
        output: Output::Text,
    }
}

/// The tree alone, against SHA-256 over the same octets, in memory.
fn tree(folder: &Path, rounds: usize) -> bool {
    let entries = files(&folder.join("export/tile/entries"));
    let octets: Vec<Vec<u8>> = entries.iter().map(|file| fs::read(file).unwrap()).collect();
    let total: usize = octets.iter().map(Vec::len).sum();
    let arguments = arguments(folder, true);
    let plain = || {
        let begun = Instant::now();
        for octets in &octets {
            black_box(ring::digest::digest(&ring::digest::SHA256, octets));
        }
        begun.elapsed().as_secs_f64()
    };
    let ours = || {
        let begun = Instant::now();
        verify(&arguments).unwrap();
        begun.elapsed().as_secs_f64()
    };
    let rate = |taken: f64| total as f64 / taken / 1e6;
    compare("SHA-256 MB/s", "tree-only MB/s", rounds, TREE_MIN, || rate(plain()), || rate(ours()))
}

/// All of it, against as many verifications with ring.
fn whole(folder: &Path, rounds: usize) -> bool {
    let arguments = arguments(folder, false);
    let count = fs::metadata(folder.join("export/signatures")).unwrap().len() / 72;
    let ring = Verifications::new().unwrap();
    let plain = || ring.on_all_processors(usize::try_from(count).unwrap()).unwrap().as_secs_f64();
    let ours = || {
        let begun = Instant::now();
        verify(&arguments).unwrap();
        begun.elapsed().as_secs_f64()
    };
    let rate = |taken: f64| count as f64 / taken;
    compare("ring verifications/s", "verified commands/s", rounds, VERIFY_MIN, || rate(plain()), || rate(ours()))
}

/// Turns of the one and the other; answers whether the median of the ratios by the clock is enough.
fn compare(one: &str, other: &str, rounds: usize, least: f64, plain: impl Fn() -> f64, ours: impl Fn() -> f64) -> bool {
    let mut ratios = Vec::new();
    let mut used = [0.0, 0.0];
    let mut timed = |which: usize, run: &dyn Fn() -> f64| {
        let before = cpu::used(&[std::process::id()]).unwrap();
        let rate = run();
        used[which] += cpu::used(&[std::process::id()]).unwrap().saturating_sub(before).as_secs_f64();
        rate
    };
    for round in 0..rounds {
        let (plain, ours) = if round % 2 == 0 {
            let plain = timed(0, &plain);
            (plain, timed(1, &ours))
        } else {
            let ours = timed(1, &ours);
            (timed(0, &plain), ours)
        };
        println!("{one} {plain:.0}, {other} {ours:.0}, ratio {:.2}", ours / plain);
        ratios.push(ours / plain);
    }
    let Spread { median, least: from, greatest } = Spread::of(ratios).unwrap();
    let met = median >= least;
    let verdict = if met { "met" } else { "MISSED" };
    let by_cpu = used[0] / used[1];
    println!(
        "{verdict}: {other} / {one}: {median:.2} ({from:.2} to {greatest:.2}), wanted at least {least}; by CPU {by_cpu:.2}\n"
    );
    met
}
