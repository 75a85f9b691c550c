//! How long a device list takes from the file at the operator to the first intent, and how much memory daemon and client have for it:
//! `cargo bench --bench lists`, for 1,000,000 Devices; `cargo bench --bench lists -- 10000000` for ten million.
//!
//! The daemon is a real one with the exercise's tokens, ceremony and policy; the client that uploads and delivers is `smkictl`, a process
//! of its own.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(missing_docs, reason = "a program")]

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use smkid::api::wire::{Devices, RecoverySign};
use smkid::domain::determination::devices::DeviceListReader;
use smkid::domain::determination::document::{Compromised, KeyChosen, Method};
use smkid::domain::names::{DeviceId, Eui64, IncidentId, RequestId, TemplateName};
use smkid::domain::policy::Activation;
use smkid::domain::time::Window;
use smkid::exercise::bench::cpu;
use smkid::exercise::clock::Clock;
use smkid::exercise::documents::{self, Drafter, Scope};
use smkid::exercise::people::APPROVALS;
use smkid::exercise::procedure::{Carrier, Order};
use smkid::exercise::programs::{Daemon, Programs};
use smkid::exercise::stage::Stage;
use smkid::exercise::tell::Teller;
use smkid::exercise::{lab, template};

/// How often a client's memory is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long the determination is in force: longer than this takes.
const WINDOW_MS: i64 = 24 * 3_600_000;
/// What every Device has accepted before.
const COUNTER: u64 = 7_000;

/// The n-th Device: locally administered, so that it is nobody's, and none beside the one before it.
fn device(n: u64) -> DeviceId {
    DeviceId(Eui64((0x02DE_1C00_0000_0000 + 37 * n).to_be_bytes()))
}

fn main() {
    let count = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000_u64);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{count} Devices");
    let list = folder.path().join("list.txt");
    let mut text = BufWriter::new(File::create(&list).unwrap());
    for n in 0..count {
        writeln!(text, "{},esme,{COUNTER}", device(n)).unwrap();
    }
    drop(text.into_inner().unwrap());
    read(&list);
    runtime.block_on(take(folder.path(), &list, count));
}

/// Reads the list as everybody does who is given one: against `sha256sum`'s work alone, in the same run.
fn read(list: &Path) {
    let pieces = |each: &mut dyn FnMut(&[u8])| {
        let (mut file, mut piece) = (File::open(list).unwrap(), vec![0; 64 * 1024]);
        let begun = Instant::now();
        loop {
            let len = file.read(&mut piece).unwrap();
            if len == 0 {
                return begun.elapsed();
            }
            each(&piece[..len]);
        }
    };
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let hashing = pieces(&mut |piece| hash.update(piece));
    let mut reader = DeviceListReader::new([&"esme".parse().unwrap()], u64::MAX);
    let reading = pieces(&mut |piece| reader.feed(piece, |_| {}));
    let found = reader.finish().unwrap().count;
    println!(
        "read and checked: {:.1} s, {:.2} million lines/s ({:.1} times the SHA-256 of the file alone)",
        reading.as_secs_f64(),
        f64::from(u32::try_from(found).unwrap()) / reading.as_secs_f64() / 1e6,
        reading.as_secs_f64() / hashing.as_secs_f64()
    );
}

async fn take(folder: &Path, list: &Path, count: u64) {
    let programs = Programs::new(env!("CARGO_BIN_EXE_smkictl").into(), env!("CARGO_BIN_EXE_smkid").into());
    let mut nowhere = io::sink();
    let mut teller = Teller::new(&mut nowhere, &io::stdout());
    let stage = Stage::set(&folder.join("stage"), programs, Clock::default(), Activation::Stored, &mut teller).unwrap();
    let (recovery, _) = stage.ceremony(&mut teller).await.unwrap();
    let daemon = Daemon::start(&stage.programs, &stage.configuration, &stage.socket, &stage.log).await.unwrap();
    let (client, victim) = (&daemon.client, &stage.lab.before()[0]);
    let template = template::template(&stage.lab, &recovery, stage.lab.broker()).unwrap();
    let key = KeyChosen { label: stage.names.recovery_key.clone(), spki_sha256: recovery.spki_sha256() };
    let incident: IncidentId = "INC-LISTS-1".parse().unwrap();
    let name: TemplateName = "esme".parse().unwrap();
    let carrier = Carrier {
        lab: &stage.lab,
        people: &stage.people,
        layout: None,
        client,
        clock: stage.clock,
        incident: incident.clone(),
        order: Order::BeforeReferral,
    };
    let say = |what: &str, begun: Instant| {
        println!(
            "{what}: {:.1} s; daemon at most {:.0} MB",
            begun.elapsed().as_secs_f64(),
            memory_mb(daemon.pid().as_raw_nonzero().get())
        );
    };

    let begun = Instant::now();
    let notification = {
        let targets: Vec<DeviceId> = (0..count).map(device).collect();
        carrier.assess(&targets, Method::AcbCertificates).await.unwrap()
    };
    say("assessed, with this program's making of the list", begun);
    let begun = Instant::now();
    carrier.refer(notification).await.unwrap();
    say("SMI Status 'recovery' for all, and referred", begun);

    let begun = Instant::now();
    let drafter = Drafter {
        proposer: stage.names.proposer.clone(),
        policy: &stage.policy,
        incident,
        compromised: Compromised {
            certificate_sha256: victim.sha256(),
            spki_sha256: victim.spki_sha256(),
            party: lab::party_of(victim),
        },
        key,
        also_weighed: None,
    };
    let from = stage.now();
    let document = {
        let text = std::fs::read_to_string(list).unwrap();
        let scope = Scope {
            decision_number: 1,
            method: Method::AcbCertificates,
            name: &name,
            template: &template,
            devices: &text,
            window: Window { from, until: from.plus_ms(WINDOW_MS) },
            retries_of_unknown: 0,
        };
        let head = documents::head(&client.text("/v1/ledger/checkpoint").await.unwrap()).unwrap();
        drafter.determination(head, &scope).unwrap()
    };
    say("drafted", begun);
    let paper = folder.join("determination.json");
    std::fs::write(&paper, document.octets()).unwrap();
    let mut arguments = vec!["determination".to_owned(), "record".to_owned(), paper.display().to_string()];
    for (n, member) in stage.people.members[..APPROVALS].iter().enumerate() {
        let signature = folder.join(format!("determination.{n}.p7s"));
        std::fs::write(&signature, stage.sign(document.octets(), &member.first).await.unwrap()).unwrap();
        arguments.extend(["--signature".to_owned(), signature.display().to_string()]);
    }
    arguments.extend(["--devices".to_owned(), list.display().to_string()]);
    // The time from the file at the operator to the determination on record.
    let begun = Instant::now();
    let watched = watch_status(&stage.socket);
    let most = run(&stage, &arguments);
    let waited = watched.stop();
    say("uploaded and recorded by smkictl", begun);
    println!("  smkictl at most {most:.0} MB; the slowest answer to `status` meanwhile {:.2} s", waited.as_secs_f64());

    carrier.prepare().await.unwrap();
    carrier.activate(&stage.names.recovery_key).await.unwrap();
    let ask = RecoverySign {
        request: RequestId(lab::random().unwrap()),
        determination: document.form().id,
        devices: Some(Devices::All),
        pre_commands: None,
    };
    let begun = Instant::now();
    let mut lines = client.post_for_lines("/v1/recovery/sign", &ask).await.unwrap();
    lines.next().await.unwrap().unwrap();
    say("first command signed", begun);
    drop(lines);
    let begun = Instant::now();
    daemon.stop().await.unwrap();
    println!("stopped: {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let daemon = Daemon::start(&stage.programs, &stage.configuration, &stage.socket, &stage.log).await.unwrap();
    println!(
        "started again: {:.1} s; daemon at most {:.0} MB",
        begun.elapsed().as_secs_f64(),
        memory_mb(daemon.pid().as_raw_nonzero().get())
    );
}

/// Runs `smkictl`, and says how much memory it had at most.
fn run(stage: &Stage, arguments: &[String]) -> f64 {
    let mut said = String::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_smkictl"))
        .arg("--socket")
        .arg(&stage.socket)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (pid, mut most) = (child.id().cast_signed(), 0.0_f64);
    let status = loop {
        most = most.max(memory_mb(pid));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(LOOK);
    };
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.success(), "{said}");
    most
}

/// The most memory that a process had at any moment; 0 once it is gone.
fn memory_mb(pid: i32) -> f64 {
    let kb = cpu::memory_kb_max(pid.unsigned_abs()).unwrap_or_default();
    f64::from(u32::try_from(kb).unwrap()) / 1024.0
}

/// Asks for the daemon's status again and again.
struct Watched {
    end: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

fn watch_status(socket: &Path) -> Watched {
    let end = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (ended, socket) = (std::sync::Arc::clone(&end), socket.to_owned());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = smkid::api::client::Client::new(&socket);
        let mut slowest = Duration::ZERO;
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            let begun = Instant::now();
            runtime.block_on(client.get::<smkid::api::wire::Status>("/v1/status")).unwrap();
            slowest = slowest.max(begun.elapsed());
            std::thread::sleep(LOOK);
        }
        slowest
    });
    Watched { end, thread }
}

impl Watched {
    fn stop(self) -> Duration {
        self.end.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
