//! How long a start takes with a small and a large ledger, in turns in one run; how long a snapshot holds up the recorder; and what a
//! command takes on the disk.
//!
//! `cargo bench --bench startup -- --leaves 2000000` makes two ledgers with keys in memory, one of 2,000 leaves and one of that many, and
//! opens each, as the daemon does before it answers: the database, the newest snapshot, and the entries since. What a daemon does besides
//! (the ledger token, the record of the start) is the same with every ledger. With `--keep DIR` they are made there once and used again.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(missing_docs, reason = "a program")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use smkid::state;
use smkid::store::sqlite::{SqliteReader, SqliteStore};
use smkid::store::{Reader as _, StagingLimits, Store as _};

#[path = "../it/support/lab.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod lab;
#[path = "../it/support/ledger_fixture.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod ledger_fixture;

use ledger_fixture::Fixture;
use ledger_fixture::large::HandOver;

const LIMITS: StagingLimits = StagingLimits { account_len_max: 1 << 20, total_len_max: 1 << 20 };

/// Leaves of the small ledger.
const SMALL: u64 = 2_000;

/// By how much longer the large one may take.
const LONGER_MAX: Duration = Duration::from_secs(1);

/// Makes a ledger of so many leaves in a folder, unless it is there.
fn make(folder: &Path, leaves: u64) {
    if folder.exists() {
        return;
    }
    let making = folder.with_extension("making");
    let _ = fs::remove_dir_all(&making);
    fs::create_dir_all(&making).unwrap();
    let (devices, begun) = (leaves / 2, Instant::now());
    let mut fixture = Fixture::large(&making, devices);
    fixture.sign_all(0..devices, HandOver::AtOnce);
    let mut stalls = fixture.snapshots.clone();
    println!("{leaves} leaves made in {:.1} s", begun.elapsed().as_secs_f64());
    stalls.sort_unstable();
    if let (Some(median), Some(most)) = (stalls.get(stalls.len() / 2), stalls.last()) {
        let (median, most) = (median.as_secs_f64() * 1e3, most.as_secs_f64() * 1e3);
        println!("  {} snapshots held the recorder up for {median:.0} ms (median), {most:.0} ms at most", stalls.len());
    }
    drop(fixture);
    fs::rename(&making, folder).unwrap();
}

/// Opens a ledger as the daemon does; how long that took, and how many entries were folded again.
fn start(folder: &Path) -> (Duration, u64) {
    let begun = Instant::now();
    let mut store = SqliteStore::open(folder, LIMITS).unwrap();
    let fold = state::catch_up(&mut store).unwrap();
    let taken = begun.elapsed();
    (taken, fold.size() - store.base().unwrap().size)
}

/// What the tables of a ledger take, for each command.
fn disk(folder: &Path) {
    let commands = {
        let reader = SqliteReader::open(folder).unwrap();
        reader.head().unwrap().size / 2
    };
    let database = rusqlite::Connection::open(folder.join("ledger.db")).unwrap();
    let mut select =
        database.prepare("SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY sum(pgsize) DESC").unwrap();
    let tables =
        select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).unwrap();
    println!("octets on the disk for each of {commands} commands:");
    let mut all = 0;
    for (name, octets) in tables.map(Result::unwrap) {
        all += octets;
        if octets / commands > 0 {
            println!("  {name:<28}{:>6}", octets / commands);
        }
    }
    println!("  {:<28}{:>6}", "all tables", all / commands);
}

fn main() -> ExitCode {
    let (mut leaves, mut rounds, mut keep) = (2_000_000, 7, None::<PathBuf>);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--leaves" => leaves = arguments.next().unwrap().parse().unwrap(),
            "--rounds" => rounds = arguments.next().unwrap().parse().unwrap(),
            "--keep" => keep = Some(arguments.next().unwrap().into()),
            "--quick" => (leaves, rounds) = (40_000, 3),
            // What cargo adds.
            "--bench" => {}
            other => panic!("{other}: expected --leaves N, --rounds N, --keep DIR or --quick"),
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let folder = keep.unwrap_or_else(|| scratch.path().to_owned());
    let ledgers = [SMALL, leaves].map(|leaves| (leaves, folder.join(leaves.to_string())));
    for (leaves, folder) in &ledgers {
        make(folder, *leaves);
    }
    let mut taken = [Vec::new(), Vec::new()];
    let mut again = [0, 0];
    for _ in 0..rounds {
        for (at, (_, folder)) in ledgers.iter().enumerate() {
            let (round, entries) = start(folder);
            taken[at].push(round);
            again[at] = entries;
        }
    }
    let [small, large] = taken.map(|mut rounds| {
        rounds.sort_unstable();
        rounds[rounds.len() / 2]
    });
    for ((leaves, _), (median, again)) in ledgers.iter().zip([small, large].into_iter().zip(again)) {
        println!("start with {leaves} leaves: {:.1} ms, {again} entries folded again", median.as_secs_f64() * 1e3);
    }
    disk(&ledgers[1].1);
    let is_met = large < small + LONGER_MAX;
    println!("{}: at most {LONGER_MAX:?} longer", if is_met { "met" } else { "missed" });
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
