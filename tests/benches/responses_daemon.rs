//! Shell: Responses from files on disk into the ledger, all of it: `smkictl` as its own process, the daemon as another.
//!
//! Beside the rates it says what CPU time both sides used for each verification: on a crowded machine that is what holds.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use smkid::api::wire::{DeviceAsk, Devices, RecoverySign, Status};
use smkid::domain::certificates::pem::{certificate_to_pem, certificates};
use smkid::domain::certificates::{Profile, SmkiCertificate};
use smkid::domain::names::{DeviceId, Digest, RequestId};
use smkid::exercise::bench::recovery::COUNTER;
use smkid::exercise::device::{Device, Judge, Made};
use smkid::exercise::lab;
use smkid::exercise::stage::certificate_path;
use smkid::wall_clock::wall_clock;

use crate::daemon::{Daemon, Hsm, device};
use crate::{Fault, Signed, cpu, judge, plain, rate};

/// Devices of a round: so many parts of what one entry takes that their beginning and end, when only one processor works, are a small
/// share, as in a file of millions; and as many answers as two snapshots.
const DEVICES: usize = 131_072;
/// The same when it is to be quick.
const QUICK_DEVICES: usize = 8_192;
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 2;

/// What one round hands in.
struct Round {
    responses: String,
    certificates: String,
    signed: Vec<Signed>,
}

/// Measures both ways. Answers whether the targets are met.
pub fn run(quick: bool, devices: Option<usize>) -> Result<bool, Fault> {
    let (rounds, most) = if quick { (QUICK_ROUNDS, QUICK_DEVICES) } else { (ROUNDS, DEVICES) };
    let count = devices.unwrap_or(most);
    let folder = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&folder.path().join("daemon"), 2 * rounds * count, Hsm::Fast)?;
    let (mut given, mut import, mut imported) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=rounds {
        // Certificates that come with the Responses: two verifications each.
        let round = answers(&mut daemon, 2 * (number - 1) * count, count, folder.path())?;
        let alone = || side(&[], 2 * count, || Ok(plain(&round.signed, 2)));
        let before = alone()?;
        let arguments = ["responses", &round.responses, "--certificates", &round.certificates];
        let ours = smkictl(&daemon, 2 * count, &arguments, true)?;
        given.push(told("Responses with certificates", between(before, alone()?), ours));
        // Certificates first, then Responses: one verification each.
        let round = answers(&mut daemon, (2 * number - 1) * count, count, folder.path())?;
        let alone = || side(&[], count, || Ok(plain(&round.signed, 1)));
        let before = alone()?;
        let ours = smkictl(&daemon, count, &["certificates", "import", &round.certificates], false)?;
        let amid = alone()?;
        import.push(told("certificates imported", between(before, amid), ours));
        let ours = smkictl(&daemon, count, &["responses", &round.responses], true)?;
        imported.push(told("Responses without", between(amid, alone()?), ours));
    }
    println!("\nsmkid: VmHWM {} kB", daemon.memory_kb_max()?);
    // Each is judged, also where one is missed.
    let met = [
        judge("Responses with certificates", given),
        judge("import of certificates", import),
        judge("Responses whose Devices' certificates were imported", imported),
    ];
    Ok(met.into_iter().all(|met| met))
}

/// How one side did: verifications each second, and microseconds of CPU for each.
#[derive(Clone, Copy)]
struct Side {
    rate: f64,
    cpu_us: f64,
}

/// What ring alone did before a turn of ours and after it, as one: ours takes seconds, in which a shared machine drifts.
fn between(before: Side, after: Side) -> Side {
    let rate = 2.0 / (before.rate.recip() + after.rate.recip());
    Side { rate, cpu_us: f64::midpoint(before.cpu_us, after.cpu_us) }
}

fn side(processes: &[u32], count: usize, turn: impl FnOnce() -> Result<Duration, Fault>) -> Result<Side, Fault> {
    // This process waits for the clients, whose time is then its own.
    let used = || Ok::<_, Fault>(cpu::used(processes)? + cpu::used(&[std::process::id()])?);
    let before = used()?;
    let taken = turn()?;
    let cpu_us = 1e6 / rate(count, used()?.saturating_sub(before));
    Ok(Side { rate: rate(count, taken), cpu_us })
}

fn told(what: &str, alone: Side, ours: Side) -> f64 {
    let ratio = ours.rate / alone.rate;
    println!(
        "{what:<28} ring alone {:>6.0}/s {:>4.0} us of CPU; ours {:>6.0}/s {:>4.0} us; ratio {ratio:.2}, of CPU {:.2}",
        alone.rate,
        alone.cpu_us,
        ours.rate,
        ours.cpu_us,
        alone.cpu_us / ours.cpu_us
    );
    ratio
}

/// Runs `smkictl recovery`, which must take in everything.
fn smkictl(daemon: &Daemon, verifications: usize, arguments: &[&str], of_determination: bool) -> Result<Side, Fault> {
    let pid = daemon.process.pid().as_raw_nonzero().get().unsigned_abs();
    let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
    command.arg("recovery").args(arguments).env("SMKID_SOCKET", &daemon.stage.socket);
    if of_determination {
        command.args(["--determination", &daemon.determination.to_string()]);
    }
    let mut memory = 0;
    let took = side(&[pid], verifications, || {
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            memory = memory.max(cpu::memory_kb_max(child.id()).unwrap_or_default());
            // To look costs some 0.1 ms, on processors that all work.
            thread::sleep(Duration::from_millis(20));
        };
        // A snapshot of what was taken in comes after the last answer, and whoever asks the recorder then waits for it.
        let _: Status = daemon.runtime.block_on(daemon.process.client.get("/v1/status"))?;
        let taken = begun.elapsed();
        if status.success() { Ok(taken) } else { Err(format!("smkictl ended with {status}").into()) }
    })?;
    println!("    smkictl: VmHWM {memory} kB");
    Ok(took)
}

/// Has so many commands signed, and Devices answer them, on every processor.
fn answers(daemon: &mut Daemon, from: usize, count: usize, folder: &Path) -> Result<Round, Fault> {
    let commands = sign(daemon, from, count)?;
    let pem = std::fs::read_to_string(certificate_path(&daemon.stage.layout, "recovery"))?;
    let recovery = certificates(&pem)?.into_iter().next().ok_or("the Recovery key has a certificate")?;
    let recovery = SmkiCertificate::from_certificate(recovery, &Profile::shape_only())?;
    let of_lab = &daemon.stage.lab;
    let (made, judge) = (Made::new(of_lab, &recovery), Judge::new(of_lab.profile().clone()));
    let threads = thread::available_parallelism()?.get();
    let mut answered: Vec<(Signed, Vec<u8>)> = thread::scope(|scope| {
        let workers: Vec<_> = commands
            .chunks(count.div_ceil(threads))
            .map(|commands| {
                let (made, judge) = (&made, &judge);
                scope.spawn(move || {
                    let answer = |(id, command): &(DeviceId, Vec<u8>)| {
                        let mut device = Device::make(*id, COUNTER, made, of_lab).unwrap();
                        let message = device.receive(command, judge, wall_clock()).unwrap();
                        (Signed { message, point: *device.public().point() }, device.certificate().to_vec())
                    };
                    commands.iter().map(answer).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    // Devices answer in no order.
    answered.sort_by_cached_key(|(one, _)| Digest::of(&one.message));
    let (mut messages, mut bundle, mut signed) = (Vec::new(), String::new(), Vec::new());
    for (one, certificate) in answered {
        messages.extend_from_slice(&one.message);
        write!(bundle, "{}", certificate_to_pem(&certificate))?;
        signed.push(one);
    }
    let path = |name: String| folder.join(name).display().to_string();
    let (responses, certificates) = (path(format!("{from}.bin")), path(format!("{from}.pem")));
    std::fs::write(&responses, messages)?;
    std::fs::write(&certificates, bundle)?;
    Ok(Round { responses, certificates, signed })
}

fn sign(daemon: &mut Daemon, from: usize, count: usize) -> Result<Vec<(DeviceId, Vec<u8>)>, Fault> {
    let ask = RecoverySign {
        request: RequestId(lab::random()?),
        determination: daemon.determination,
        devices: Some(Devices::Listed((from..from + count).map(|n| DeviceAsk { device: device(n) }).collect())),
        pre_commands: None,
    };
    let client = &daemon.process.client;
    daemon.runtime.block_on(async {
        let mut lines = client.post_for_lines("/v1/recovery/sign", &ask).await?;
        let mut commands = Vec::with_capacity(count);
        while let Some(item) = lines.next().await? {
            commands.push((item.device, item.command.ok_or("every command is signed")?.0));
        }
        Ok(commands)
    })
}
