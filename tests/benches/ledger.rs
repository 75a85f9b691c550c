//! How fast a ledger is verified, exported and read, each beside what the machine can do, in turns in one run.
//!
//! `cargo bench --bench ledger -- --leaves 200000` makes a ledger of that many leaves with a key in memory, whose commands are those
//! of one job. With `--keep DIR` it is made there once and used again. `--quick` is a try of the bench itself.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "octets and signatures stay far below 2^52")]
#![allow(missing_docs, reason = "a program")]

use std::fs;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use smkid::cli::ledger_export::{StoreSource, export};
use smkid::cli::ledger_verify::{LedgerVerify, verify};
use smkid::cli::print::Output;
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

struct Asked {
    leaves: u64,
    rounds: usize,
    keep: Option<PathBuf>,
}

fn asked() -> Asked {
    let mut asked = Asked { leaves: 200_000, rounds: 7, keep: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--leaves" => asked.leaves = arguments.next().unwrap().parse().unwrap(),
            "--rounds" => asked.rounds = arguments.next().unwrap().parse().unwrap(),
            "--keep" => asked.keep = Some(arguments.next().unwrap().into()),
            "--quick" => (asked.leaves, asked.rounds) = (10_000, 3),
            // What cargo adds.
            "--bench" => {}
            other => panic!("{other}: expected --leaves N, --rounds N, --keep DIR or --quick"),
        }
    }
    asked
}

/// A ledger in a folder: the database, and beside it what an outsider trusts.
fn make(folder: &Path, leaves: u64) {
    if folder.join("genesis").exists() {
        return;
    }
    fs::create_dir_all(folder.join("state")).unwrap();
    let begun = Instant::now();
    let devices = (leaves / 2).max(1_000);
    let mut fixture = Fixture::large(&folder.join("state"), devices);
    fixture.sign_all(0..devices, HandOver::AtOnce);
    fs::write(folder.join("ledger.vkey"), fixture.verifier.vkey()).unwrap();
    fs::write(folder.join("genesis"), fixture.genesis.to_string()).unwrap();
    println!("made in {:.1} s", begun.elapsed().as_secs_f64());
}

fn main() -> ExitCode {
    let asked = asked();
    let scratch = tempfile::tempdir().unwrap();
    let folder = asked.keep.clone().unwrap_or_else(|| scratch.path().to_owned());
    make(&folder, asked.leaves);
    let reader = SqliteReader::open(&folder.join("state")).unwrap();
    let head = reader.head().unwrap();
    println!("{} leaves, {} MB of database", head.size, megabytes(len(&folder.join("state"))));

    let exported = folder.join("export");
    if !exported.exists() {
        let begun = Instant::now();
        export(&StoreSource(&reader), &exported).unwrap();
        let taken = begun.elapsed().as_secs_f64();
        let octets = len(&exported);
        println!("exported {} MB in {taken:.2} s: {:.0} MB/s", megabytes(octets), octets as f64 / taken / 1e6);
    }
    let index = |at: u64| at % head.size;
    latency("a proof of inclusion", |at| drop(reader.inclusion_path(index(at), head.size).unwrap()));
    latency("a proof of consistency", |at| drop(reader.consistency_path(index(at) + 1, head.size).unwrap()));
    latency("the intents of a Device", |at| drop(reader.intents_of(numbered(index(at) / 2)).unwrap()));
    latency("an entry", |at| drop(reader.leaf(index(at)).unwrap()));
    let begun = Instant::now();
    let mut uncommon = 0;
    let visit = &mut |_: StoredLeaf<'_>| {
        uncommon += 1;
        ControlFlow::Continue(())
    };
    reader.uncommon(0..head.size, visit).unwrap();
    println!("all {uncommon} uncommon entries: {:.2} ms\n", begun.elapsed().as_secs_f64() * 1e3);
    let mut met = true;
    met &= tree(&exported, &folder, asked.rounds);
    met &= whole(&exported, &folder, asked.rounds);
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How long an answer takes, at places all over the ledger.
fn latency(what: &str, ask: impl Fn(u64)) {
    let taken = (1..=201_u64).map(|at| {
        let begun = Instant::now();
        ask(at * 104_729 * 7_919);
        begun.elapsed().as_secs_f64() * 1e3
    });
    let Spread { median, least: _, greatest } = Spread::of(taken).unwrap();
    println!("{what}: median {median:.3} ms, at most {greatest:.3} ms");
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

fn arguments(exported: &Path, folder: &Path, tree_only: bool) -> LedgerVerify {
    LedgerVerify {
        dir: exported.to_owned(),
        key: folder.join("ledger.vkey"),
        genesis: fs::read_to_string(folder.join("genesis")).unwrap().parse().unwrap(),
        checkpoint: None,
        tree_only,
        output: Output::Text,
    }
}

/// The tree alone, against SHA-256 over the same octets, in memory.
fn tree(exported: &Path, folder: &Path, rounds: usize) -> bool {
    let entries = files(&exported.join("tile/entries"));
    let octets: Vec<Vec<u8>> = entries.iter().map(|file| fs::read(file).unwrap()).collect();
    let total: usize = octets.iter().map(Vec::len).sum();
    let arguments = arguments(exported, folder, true);
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
fn whole(exported: &Path, folder: &Path, rounds: usize) -> bool {
    let arguments = arguments(exported, folder, false);
    let count = fs::metadata(exported.join("signatures")).unwrap().len() / 72;
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

/// Turns of the one and the other; answers whether the median of the ratios is enough.
fn compare(one: &str, other: &str, rounds: usize, least: f64, plain: impl Fn() -> f64, ours: impl Fn() -> f64) -> bool {
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let (plain, ours) = if round % 2 == 0 {
            let plain = plain();
            (plain, ours())
        } else {
            let ours = ours();
            (plain(), ours)
        };
        println!("{one} {plain:.0}, {other} {ours:.0}, ratio {:.2}", ours / plain);
        ratios.push(ours / plain);
    }
    let Spread { median, least: from, greatest } = Spread::of(ratios).unwrap();
    let met = median >= least;
    let verdict = if met { "met" } else { "MISSED" };
    println!("{verdict}: {other} / {one}: {median:.2} ({from:.2} to {greatest:.2}), wanted at least {least}\n");
    met
}
