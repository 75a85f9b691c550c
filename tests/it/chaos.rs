//! Chaos: the real daemon under load, while its tokens fail in every way that we know of, one fault after the other, drawn by a
//! seed. The module in front of each token writes down what the token signed; in the end that is held against the ledger.
//! Whatever happened, no signature is lost, none is made twice, and none is uncounted.
//!
//! `SMKID_CHAOS_FAULTS` says how many faults (200 without it), `SMKID_CHAOS_SEED` with which seed; the seed and what came of it
//! are printed at the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smkid::api::client::Client;
use smkid::api::wire::{self, Item, ItemOutcome};
use smkid::domain::names::DeterminationId;
use smkid::exercise::programs::{Daemon, signal};
use smkid::wall_clock::wall_clock;

use crate::support::accounts::{held_against, setting};
use crate::support::seeded::Seeded;
use crate::support::site::{Handed, Site, Which, ask_for, device_list, lines, settle_all};
use crate::support::token::{calls, calls_before, script_known, write_script};

const SIGN: &str = "/v1/recovery/sign";
const SETTLE: &str = "/v1/recovery/settle";

/// How many faults the suite has room for.
const FAULTS: u64 = 200;
/// The seed of the suite, so that a run that fails there fails again.
const SEED: u64 = 2017;
/// How long one call of a module may take.
const DEADLINE_MS: u64 = 300;
/// How long a signature takes, so that there is load from the first fault to the last.
const SLOW: &str = "C_Sign * delay 10ms";
/// Devices for each fault: more than can be signed from one to the next.
const DEVICES_PER_FAULT: u64 = 60;
/// The first of them, beyond those of the site's own determination.
const FIRST: u32 = 10_000;
/// Devices of one request.
const BATCH: usize = 16;
/// Service is back when so many signatures were handed over since.
const BACK: u64 = 4;
/// And that within so long.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// How long is waited for a fault to be met.
const MET_WITHIN: Duration = Duration::from_secs(10);
/// A hung call is contained within its deadline and so much.
const CONTAINED_WITHIN: Duration = Duration::from_millis(DEADLINE_MS + 1000);
const POLL: Duration = Duration::from_millis(5);

/// What is done beside the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    /// The token's worker is killed.
    Kill,
    /// It is stopped.
    Stop,
    /// The token's directory is moved away, and put back.
    TakeAway,
}

/// A fault: lines of the script, what is done besides, and the call that is the last to meet it.
struct Fault {
    script: &'static str,
    act: Act,
    met: Option<(&'static str, u64)>,
    /// Whether a call hangs in it until its worker is killed.
    hangs: bool,
}

const fn met(script: &'static str, function: &'static str, calls: u64) -> Fault {
    Fault { script, act: Act::Nothing, met: Some((function, calls)), hangs: false }
}

const fn hangs(script: &'static str, function: &'static str) -> Fault {
    Fault { script, act: Act::Nothing, met: Some((function, 1)), hangs: true }
}

/// A fault that the next worker meets while it starts.
const fn at_start(script: &'static str, function: &'static str) -> Fault {
    Fault { script, act: Act::Kill, met: Some((function, 1)), hangs: false }
}

const fn done(act: Act) -> Fault {
    Fault { script: "", act, met: None, hangs: false }
}

/// At any token: answers by their class, delays, hangs, ends, a token that is gone, sessions that are exhausted, noise.
const FAULTS_DRAWN: &[Fault] = &[
    met("C_SignInit +1 return CKR_SESSION_HANDLE_INVALID", "C_SignInit", 1),
    met("C_SignInit +1 return CKR_OPERATION_ACTIVE", "C_SignInit", 1),
    met("C_SignInit +1 return CKR_USER_NOT_LOGGED_IN", "C_SignInit", 1),
    met("C_SignInit +1 return CKR_DEVICE_ERROR", "C_SignInit", 1),
    met("C_SignInit +1 return CKR_OBJECT_HANDLE_INVALID", "C_SignInit", 1),
    met("C_Sign +1 return CKR_DEVICE_ERROR", "C_Sign", 1),
    met("C_Sign +1 lose CKR_DEVICE_ERROR", "C_Sign", 1),
    met("C_Sign +1 lose CKR_DEVICE_REMOVED", "C_Sign", 1),
    met("C_Sign +1 lose CKR_FUNCTION_FAILED", "C_Sign", 1),
    met("C_Sign +1 lose CKR_SESSION_CLOSED", "C_Sign", 1),
    met("C_Sign +1 return CKR_GENERAL_ERROR", "C_Sign", 1),
    met("C_Sign +1 return CKR_HOST_MEMORY", "C_Sign", 1),
    met("C_Sign +1 return CKR_SESSION_HANDLE_INVALID", "C_Sign", 1),
    met("C_Sign +1 return CKR_USER_NOT_LOGGED_IN", "C_Sign", 1),
    met("C_Sign +1 return CKR_CRYPTOKI_NOT_INITIALIZED", "C_Sign", 1),
    met("C_Sign +1 return CKR_TOKEN_NOT_PRESENT", "C_Sign", 1),
    met("C_Sign +1 return 0x80000001", "C_Sign", 1),
    met("C_Sign +1 lose 0x80000002", "C_Sign", 1),
    met("C_Sign +1 short", "C_Sign", 1),
    met("C_Sign +1 delay 100ms", "C_Sign", 1),
    met("C_Sign +1-5 delay 20ms", "C_Sign", 5),
    met("C_Sign +1 delay 1s", "C_Sign", 1),
    met("C_Sign +1 delay-after 1s", "C_Sign", 1),
    hangs("C_Sign +1 hang", "C_Sign"),
    hangs("C_Sign +1 hang-after", "C_Sign"),
    hangs("C_SignInit +1 hang", "C_SignInit"),
    hangs("C_Sign +1 deaf\nC_Sign +1 hang", "C_Sign"),
    hangs("C_Sign +1 spin", "C_Sign"),
    hangs("C_Sign +1 stop", "C_Sign"),
    met("C_Sign +1 kill", "C_Sign", 1),
    met("C_Sign +1 kill-after", "C_Sign", 1),
    met("C_Sign +1 abort", "C_Sign", 1),
    met("C_Sign +1 segfault", "C_Sign", 1),
    met("C_Sign +1 segfault-after", "C_Sign", 1),
    met("C_Sign +1 exit 0", "C_Sign", 1),
    met("C_SignInit +1 gone 100ms", "C_SignInit", 1),
    met("C_Sign +1 gone-after 100ms", "C_Sign", 1),
    met(
        "C_SignInit +1-2 return CKR_SESSION_HANDLE_INVALID\nC_OpenSession +1-2 return CKR_SESSION_COUNT",
        "C_OpenSession",
        2,
    ),
    met("C_Sign +1 print 200000\nC_Sign +1 complain 20000", "C_Sign", 1),
    met("C_Sign +1 fork 2s\nC_Sign +2 kill", "C_Sign", 2),
    met("C_Sign +1 leak 5\nC_Sign +1 handle", "C_Sign", 1),
    at_start("C_Initialize +1 return CKR_GENERAL_ERROR", "C_Initialize"),
    at_start("C_Initialize +1 shift-slots 5", "C_Initialize"),
    at_start("C_Initialize +1 hang", "C_Initialize"),
    at_start("C_GetSlotList +1 return CKR_FUNCTION_FAILED", "C_GetSlotList"),
    at_start("C_GetTokenInfo +1 return CKR_TOKEN_NOT_RECOGNIZED", "C_GetTokenInfo"),
    at_start("C_GetTokenInfo +1 gone 100ms", "C_GetTokenInfo"),
    at_start("C_OpenSession +1 return CKR_DEVICE_MEMORY", "C_OpenSession"),
    at_start("C_OpenSession +1 limit 0", "C_OpenSession"),
    at_start("C_Login +1 return CKR_DEVICE_ERROR", "C_Login"),
    at_start("C_Login +1 hang", "C_Login"),
    at_start("C_FindObjects +1 return CKR_DEVICE_ERROR", "C_FindObjects"),
    at_start("C_GetAttributeValue +1 kill", "C_GetAttributeValue"),
    done(Act::Kill),
    done(Act::Stop),
    done(Act::TakeAway),
];

/// The load: requests one after the other for Devices that have no command yet.
struct Load {
    client: Client,
    determination: DeterminationId,
    waiting: Mutex<VecDeque<u32>>,
    asked: Mutex<BTreeSet<u32>>,
    items: Mutex<Vec<Item>>,
    signed: AtomicU64,
    /// Why nothing was answered, the last time.
    refused: Mutex<String>,
    ending: AtomicBool,
}

/// A Device's number, out of its name.
fn number(item: &Item) -> u32 {
    u32::try_from(u64::from_be_bytes(item.device.0.0) & 0xFFFF_FFFF).unwrap()
}

impl Load {
    fn keep(&self, items: Vec<Item>) {
        let signed = items.iter().filter(|item| item.outcome == ItemOutcome::Signed).count() as u64;
        self.items.lock().unwrap().extend(items);
        self.signed.fetch_add(signed, Ordering::SeqCst);
    }

    /// Asks until it is told to end; every so often for what is unknown, again.
    async fn run(self: Arc<Self>) {
        for turn in 1_u64.. {
            if self.ending.load(Ordering::SeqCst) {
                return;
            }
            if turn.is_multiple_of(32)
                && let Ok((items, _)) = lines(&self.client, SETTLE, &settle_all(self.determination)).await
            {
                self.keep(items);
            }
            let batch: Vec<u32> = {
                let mut waiting = self.waiting.lock().unwrap();
                let most = waiting.len().min(BATCH);
                waiting.drain(..most).collect()
            };
            assert!(!batch.is_empty(), "the Devices are used up: more are needed for each fault");
            self.asked.lock().unwrap().extend(&batch);
            let answer = lines(&self.client, SIGN, &ask_for(self.determination, batch.iter().copied())).await;
            let items = match answer {
                Ok((items, _)) => items,
                Err(why) => {
                    *self.refused.lock().unwrap() = why.to_string();
                    tokio::time::sleep(POLL).await;
                    Vec::new()
                }
            };
            // What was signed is done, and what is unknown is settled; the rest is asked for again.
            let ended = |item: &&Item| matches!(item.outcome, ItemOutcome::Signed | ItemOutcome::Unknown);
            let ended: BTreeSet<u32> = items.iter().filter(ended).map(number).collect();
            self.waiting.lock().unwrap().extend(batch.iter().filter(|device| !ended.contains(device)));
            self.keep(items);
        }
    }
}

/// What a run came to.
#[derive(Default)]
struct Report {
    longest_back: Duration,
    longest_contained: Duration,
    /// How often each fault came, and how long it took in all, until service was back.
    by_fault: BTreeMap<String, (u64, Duration)>,
}

struct Chaos<'s> {
    site: &'s Site,
    daemon: &'s Daemon,
    load: Arc<Load>,
    round: u64,
    report: Report,
}

fn name(which: Which) -> &'static str {
    match which {
        Which::Ledger => "ledger",
        Which::Recovery => "recovery",
        Which::Copy => "copy",
    }
}

impl Chaos<'_> {
    fn script(&self, which: Which) -> PathBuf {
        self.site.script(which)
    }

    /// Where the module writes down what its token did.
    fn calls_log(&self, which: Which) -> PathBuf {
        self.site.path(&format!("{}.calls", name(which)))
    }

    fn text(&self, which: Which, fault: &str) -> String {
        let slow = match which {
            Which::Ledger => "",
            Which::Recovery | Which::Copy => SLOW,
        };
        format!("# {}\nlog {}.calls\n{slow}\n{fault}\n", self.round, name(which))
    }

    /// The worker of a token, as the daemon tells anybody: only root may look into the process itself.
    async fn worker(&self, which: Which) -> Option<rustix::process::Pid> {
        let begun = Instant::now();
        loop {
            let found: wire::Tokens = self.daemon.client.get("/v1/hsm").await.unwrap();
            let of = found.tokens.into_iter().find(|token| token.standing.token.as_str() == which.name());
            let worker = of.and_then(|token| rustix::process::Pid::from_raw(token.worker?.try_into().unwrap()));
            // One that is just being replaced comes soon.
            if worker.is_some() || begun.elapsed() > BACK_WITHIN {
                return worker;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// One fault, from its beginning until it was met; what it is called. Where the one before is not over, that may end the worker just
    /// as it comes to this one.
    async fn make(&mut self, which: Which, fault: &Fault, may_be_overtaken: bool) -> String {
        self.round += 1;
        let script = self.script(which);
        let known = script_known(&script);
        let logged = fs::metadata(self.calls_log(which)).map_or(0, |log| log.len());
        write_script(&script, &self.text(which, fault.script));
        let kind = format!("{}: {} {:?}", name(which), fault.script.replace('\n', "; "), fault.act);
        match fault.act {
            Act::Nothing => {}
            Act::Kill | Act::Stop => {
                let how =
                    if fault.act == Act::Kill { rustix::process::Signal::KILL } else { rustix::process::Signal::STOP };
                // One that is gone already, or is just being replaced, needs no end.
                if let Some(worker) = self.worker(which).await {
                    let _ = signal(worker, how);
                }
            }
            Act::TakeAway => {
                let folder = self.site.token_folder(which);
                let away = folder.with_extension("away");
                fs::rename(&folder, &away).unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                fs::rename(&away, &folder).unwrap();
            }
        }
        let begun = Instant::now();
        if let Some((function, times)) = fault.met {
            let met = || {
                script_known(&script) != known && calls(&script, function) >= calls_before(&script, function) + times
            };
            while !met() {
                assert!(begun.elapsed() < MET_WITHIN, "{kind} was not met: {}", self.log_end());
                tokio::time::sleep(POLL).await;
            }
        }
        if fault.hangs {
            self.contained(which, &kind, logged, may_be_overtaken).await;
        }
        kind
    }

    fn note(&mut self, kind: String, took: Duration) {
        let (times, all) = self.report.by_fault.entry(kind).or_default();
        *times += 1;
        *all += took;
    }

    /// The worker that hangs is gone within the deadline of a call and a second. What was logged before is of others.
    async fn contained(&mut self, which: Which, kind: &str, logged: u64, may_be_overtaken: bool) {
        let begun = Instant::now();
        let (at, pid) = loop {
            let mut log = fs::File::open(self.calls_log(which)).unwrap();
            log.seek(SeekFrom::Start(logged)).unwrap();
            let log = std::io::read_to_string(log).unwrap();
            let hung = log.lines().rev().find(|line| ["Hang", "Spin", "Stop"].iter().any(|word| line.contains(word)));
            // After the call the line is written first, and of one that is asked for nothing more is heard.
            if let Some(line) = hung {
                let mut words = line.split(' ');
                break (words.next().unwrap().parse::<i64>().unwrap(), words.next().unwrap().to_owned());
            }
            if begun.elapsed() > MET_WITHIN {
                assert!(
                    may_be_overtaken,
                    "{kind}: the call was counted, and no worker hangs in it: {}",
                    self.log_end()
                );
                return;
            }
            tokio::time::sleep(POLL).await;
        };
        let lives = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        };
        let begun = Instant::now();
        while lives() {
            assert!(begun.elapsed() < MET_WITHIN, "{kind}: worker {pid} hangs still");
            tokio::time::sleep(POLL).await;
        }
        let took = Duration::from_millis(u64::try_from(wall_clock().unix_ms() - at).unwrap_or(0));
        assert!(took < CONTAINED_WITHIN, "{kind}: contained after {took:?}");
        self.report.longest_contained = self.report.longest_contained.max(took);
    }

    /// Service comes back by itself.
    async fn back(&mut self, after: &str) -> Duration {
        let (begun, before) = (Instant::now(), self.load.signed.load(Ordering::SeqCst));
        while self.load.signed.load(Ordering::SeqCst) < before + BACK {
            assert!(
                begun.elapsed() < BACK_WITHIN,
                "no service {:?} after {after}; refused last: {}\n{}",
                begun.elapsed(),
                self.load.refused.lock().unwrap(),
                self.log_end()
            );
            tokio::time::sleep(POLL).await;
        }
        let took = begun.elapsed();
        self.report.longest_back = self.report.longest_back.max(took);
        took
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.site.path("smkid.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("worker: xxx")).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_under_load_no_signature_is_lost_doubled_or_uncounted_and_service_returns_by_itself() {
    let (faults, seed) = (setting("SMKID_CHAOS_FAULTS", FAULTS), setting("SMKID_CHAOS_SEED", SEED));
    let begun = Instant::now();
    let site = Site::determined().await;
    site.configure(|text| {
        text.replace("[[token]]\n", &format!("[[token]]\nsessions = 2\ndeadline_ms = {DEADLINE_MS}\n"))
    });
    for which in [Which::Ledger, Which::Recovery] {
        let slow = if matches!(which, Which::Recovery) { SLOW } else { "" };
        site.fault(which, Some(&format!("log {}.calls\n{slow}\n", name(which))));
    }
    let daemon = site.start().await;
    let last = FIRST + u32::try_from(faults * DEVICES_PER_FAULT).unwrap();
    let determination = site.determine(&daemon.client, 2, &device_list(FIRST..last), |_| {}).await.form().id;
    site.activate_for(&daemon.client, "INC-2").await.unwrap();

    let load = Arc::new(Load {
        client: daemon.client.clone(),
        determination,
        waiting: Mutex::new((FIRST..last).collect()),
        asked: Mutex::default(),
        items: Mutex::default(),
        signed: AtomicU64::new(0),
        refused: Mutex::default(),
        ending: AtomicBool::new(false),
    });
    let loaders: Vec<_> = (0..2).map(|_| tokio::spawn(load.clone().run())).collect();
    let mut chaos = Chaos { site: &site, daemon: &daemon, load: load.clone(), round: 0, report: Report::default() };
    let mut seeded = Seeded::new(seed);
    chaos.back("the start").await;
    let mut at_once = false;
    for n in 0..faults {
        let which = if seeded.below(4) == 0 { Which::Ledger } else { Which::Recovery };
        let fault = &FAULTS_DRAWN[usize::try_from(seeded.below(FAULTS_DRAWN.len() as u64)).unwrap()];
        let begun = Instant::now();
        let kind = chaos.make(which, fault, at_once).await;
        // Now and then the next one comes while this one is not over.
        at_once = seeded.below(4) == 0 && fault.act == Act::Nothing;
        if !at_once {
            chaos.back(&format!("fault {n}, {kind}")).await;
        }
        chaos.note(kind, begun.elapsed());
    }
    let after_the_last = chaos.back("the last fault").await;
    for which in [Which::Ledger, Which::Recovery] {
        write_script(&site.script(which), &format!("log {}.calls\n", name(which)));
    }
    load.ending.store(true, Ordering::SeqCst);
    for loader in loaders {
        loader.await.unwrap();
    }

    // What is unknown is signed again, with the same octets; then whoever asks gets what was signed, once.
    let settled = lines(&daemon.client, SETTLE, &settle_all(determination)).await.unwrap();
    load.keep(settled.0);
    let asked: Vec<u32> = load.asked.lock().unwrap().iter().copied().collect();
    for batch in asked.chunks(200) {
        let (items, ended) = lines(&daemon.client, SIGN, &ask_for(determination, batch.iter().copied())).await.unwrap();
        assert_eq!(ended, Ok(()));
        load.keep(items);
    }
    let mut handed = Handed::default();
    handed.take(&site, &load.items.lock().unwrap());
    let ledger = site.ledger();
    let unsettled = asked.len() - handed.len();
    // What the token signed beyond what the ledger says is told there.
    let (made, [signed, failed, not_signed, unknown]) = held_against(&site, &site.path("recovery.calls"));
    let [not_handed, doubled] = [ledger.signed().len().abs_diff(handed.len()), signed.abs_diff(ledger.signed().len())];
    assert_eq!((not_handed, doubled), (0, 0), "every command that was signed was handed over, and each Device has one");
    site.verify_export("export");
    let Report { longest_back, longest_contained, by_fault } = chaos.report;
    assert!(daemon.stop().await.unwrap().success());

    println!("chaos: seed {seed}, {faults} faults in {:?} under load", begun.elapsed());
    println!(
        "chaos: the token made {made} signatures; intents: {signed} signed, {failed} failed, {not_signed} not signed, {unknown} unknown"
    );
    println!("chaos: {not_handed} lost, {doubled} doubled; {unsettled} Devices of {} have no command", asked.len());
    println!(
        "chaos: back {after_the_last:?} after the last fault, {longest_back:?} at most; hung calls contained within {longest_contained:?}"
    );
    for (fault, (times, all)) in by_fault {
        println!("chaos: {times:4} times, {:?} each: {fault}", all / u32::try_from(times).unwrap());
    }
}
