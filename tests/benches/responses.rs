//! How fast Responses of Devices are taken in, against nothing but ring's verifications on the same processors, in turns in one run.
//!
//! Each Response takes two verifications: of the Device CA over the Device's certificate, and of the Device over its Response. With
//! certificates that were imported before, the first is done once.
//!
//! Without arguments what is verified lies in memory. With `--daemon` all of it is there: files on disk, `smkictl`, its socket, a
//! daemon with its ledger, what becomes of each Device. With `--rows` only what is kept of them is measured, of any number and in no
//! order.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(missing_docs, reason = "a program")]

#[expect(dead_code, reason = "the benchmark of commands signs otherwise, and slows tokens down")]
mod daemon;
mod responses_daemon;
mod responses_rows;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use smkid::domain::gbcs::proof::verify_signature;
use smkid::domain::gbcs::{Frame, Template};
use smkid::domain::names::{DeviceId, Eui64, PartyId};
use smkid::domain::responses::{Reading, Trust};
use smkid::exercise::bench::{cpu, limit, statistics};
use smkid::exercise::device::{Device, Judge, Made};
use smkid::exercise::lab::{Lab, SoftKey};
use smkid::exercise::template::template;
use smkid::service::responses::verify;
use smkid::wall_clock::wall_clock;

/// Whatever stops a benchmark; its text is for a person.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What is to be reached of ring's own rate.
const RATIO_MIN: f64 = 0.8;

/// Responses of Devices, against ring's verifications.
#[derive(Parser)]
#[command(name = "responses")]
struct Arguments {
    /// Few rounds.
    #[arg(long)]
    quick: bool,
    /// From files on disk through smkictl and a daemon into its ledger.
    #[arg(long)]
    daemon: bool,
    /// Devices of a round with `--daemon`.
    #[arg(long)]
    devices: Option<usize>,
    /// What it costs to keep the answers of so many Devices that come in no order, against their verification.
    #[arg(long, value_name = "DEVICES", conflicts_with = "daemon")]
    rows: Option<u64>,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = match arguments.rows {
        Some(count) => responses_rows::run(count, verification()),
        None if arguments.daemon => responses_daemon::run(arguments.quick, arguments.devices),
        None => Ok(in_memory(arguments.quick)),
    };
    let met = measured.unwrap_or_else(|fault| {
        eprintln!("responses: {fault}");
        false
    });
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the bound is made of: a signed message, and the key that verifies it.
pub struct Signed {
    /// The message.
    pub message: Vec<u8>,
    /// An uncompressed point.
    pub point: [u8; 65],
}

/// Verifies each so many times on every processor, and does nothing else.
pub fn plain(all: &[Signed], times: usize) -> Duration {
    let threads = thread::available_parallelism().unwrap().get();
    let begun = Instant::now();
    thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(threads)) {
            scope.spawn(move || {
                for Signed { message, point } in part {
                    let frame = Frame::parse(message).unwrap();
                    for _ in 0..times {
                        assert!(verify_signature(frame.tbs(), frame.signature().unwrap(), point));
                    }
                }
            });
        }
    });
    begun.elapsed()
}

/// How long one verification takes, on one processor.
fn verification() -> Duration {
    const TIMES: u32 = 10_000;
    let key = SoftKey::generate().unwrap();
    let (octets, point) = ([7; 600], *key.public().point());
    let signature = key.sign(&octets).unwrap();
    let begun = Instant::now();
    (0..TIMES).for_each(|_| assert!(verify_signature(&octets, &signature, &point)));
    begun.elapsed() / TIMES
}

/// So many each second.
pub fn rate(count: usize, taken: Duration) -> f64 {
    limit::per_second(count, taken)
}

/// Prints the spread of ratios; says whether their median is enough.
pub fn judge(what: &str, ratios: Vec<f64>) -> bool {
    let spread = statistics::Spread::of(ratios).unwrap();
    let statistics::Spread { median, least, greatest } = spread;
    let met = median >= RATIO_MIN;
    let says = if met { "met" } else { "MISSED" };
    println!("{says}: {what}: ratio {median:.2} ({least:.2} to {greatest:.2}), at least {RATIO_MIN}");
    met
}

fn in_memory(quick: bool) -> bool {
    let (count, rounds): (u32, usize) = if quick { (1_000, 3) } else { (4_000, 9) };
    let lab = Lab::new(wall_clock()).unwrap();
    let key = SoftKey::generate().unwrap();
    let party: PartyId = "90B3D51F30000002".parse().unwrap();
    let subject = smkid::domain::certificates::OrganisationSubject { common_name: None, role: 1, party };
    let info = smkid::domain::certificates::bodies::certification_request_info(&subject, key.public()).unwrap();
    let request = smkid::domain::certificates::bodies::assemble(&info, &key.sign(&info).unwrap()).unwrap();
    let recovery = lab.certify_recovery(&request, party).unwrap();
    let commands: Template = template(&lab, &recovery, lab.after()).unwrap();
    let (made, judge_of) = (Made::new(&lab, &recovery), Judge::new(lab.profile().clone()));
    let (mut messages, mut certificates, mut signed) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..count {
        let id = DeviceId(Eui64((0x02DE_1CE0_0000_0000 + u64::from(n)).to_be_bytes()));
        let mut device = Device::make(id, 7_000, &made, &lab).unwrap();
        let mut command = Vec::new();
        commands.fill(party, id, 7_001, &mut command).unwrap();
        let signature = key.sign(&command[1..]).unwrap();
        smkid::domain::gbcs::finish(&mut command, &signature);
        let message = device.receive(&command, &judge_of, wall_clock()).unwrap();
        messages.push(message.clone());
        certificates.push(device.certificate().to_vec());
        signed.push(Signed { message, point: *device.public().point() });
    }
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let trust = Trust::of_anchors(vec![lab.device_ca().clone()], lab.profile().clone());
    let ours = || {
        let begun = Instant::now();
        let (readings, _) = verify(&messages, &certificates, None, &trust);
        let taken = begun.elapsed();
        assert!(readings.iter().all(|reading| matches!(reading, Reading::Verified(_))));
        taken
    };
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let (plain, ours) = (rate(2 * messages.len(), plain(&signed, 2)), rate(2 * messages.len(), ours()));
        let ratio = ours / plain;
        println!("round {round}: ring alone {plain:.0} verifications/s, Responses {ours:.0}, ratio {ratio:.2}");
        ratios.push(ratio);
    }
    judge("Responses in memory", ratios)
}
