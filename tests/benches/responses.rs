//! How fast Responses of Devices are verified, against nothing but ring's verifications on the same processors, in turns in one run.
//!
//! Each Response takes two verifications: of the Device CA over the Device's certificate, and of the Device over its Response.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(missing_docs, reason = "a program")]

use std::time::{Duration, Instant};

use smkid::domain::gbcs::proof::verify_signature;
use smkid::domain::gbcs::{Frame, Template};
use smkid::domain::names::{DeviceId, Eui64, PartyId};
use smkid::domain::responses::{Reading, Trust};
use smkid::exercise::device::{Device, Judge, Made};
use smkid::exercise::lab::{Lab, SoftKey};
use smkid::exercise::template::template;
use smkid::service::responses::verify;
use smkid::wall_clock::wall_clock;

#[path = "statistics.rs"]
mod statistics;

/// What is to be reached of ring's own rate.
const RATIO_MIN: f64 = 0.8;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (count, rounds): (u32, usize) = if quick { (1_000, 3) } else { (4_000, 9) };
    let lab = Lab::new(wall_clock()).unwrap();
    let key = SoftKey::generate().unwrap();
    let party: PartyId = "90B3D51F30000002".parse().unwrap();
    let subject = smkid::domain::certificates::OrganisationSubject { common_name: None, role: 1, party };
    let info = smkid::domain::certificates::bodies::certification_request_info(&subject, key.public()).unwrap();
    let request = smkid::domain::certificates::bodies::assemble(&info, &key.sign(&info).unwrap()).unwrap();
    let recovery = lab.certify_recovery(&request, party).unwrap();
    let commands: Template = template(&lab, &recovery, lab.after()).unwrap();
    let (made, judge) = (Made::new(&lab, &recovery), Judge::new(lab.profile().clone()));
    let (mut messages, mut certificates, mut points) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..count {
        let id = DeviceId(Eui64((0x02DE_1CE0_0000_0000 + u64::from(n)).to_be_bytes()));
        let mut device = Device::make(id, 7_000, &made, &lab).unwrap();
        let mut command = Vec::new();
        commands.fill(party, id, 7_001, &mut command).unwrap();
        let signature = key.sign(&command[1..]).unwrap();
        smkid::domain::gbcs::finish(&mut command, &signature);
        messages.push(device.receive(&command, &judge, wall_clock()).unwrap());
        certificates.push(device.certificate().to_vec());
        points.push(*device.public().point());
    }
    let trust = Trust::of_anchors(vec![lab.device_ca().clone()], lab.profile().clone());
    let threads = std::thread::available_parallelism().unwrap().get();
    let share = messages.len().div_ceil(threads);
    let plain = || {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for (messages, points) in messages.chunks(share).zip(points.chunks(share)) {
                scope.spawn(move || {
                    for (message, point) in messages.iter().zip(points) {
                        let frame = Frame::parse(message).unwrap();
                        for _ in 0..2 {
                            assert!(verify_signature(frame.tbs(), frame.signature().unwrap(), point));
                        }
                    }
                });
            }
        });
        begun.elapsed()
    };
    let ours = || {
        let begun = Instant::now();
        let (readings, _) = verify(&messages, &certificates, &trust);
        let taken = begun.elapsed();
        assert!(readings.iter().all(|reading| matches!(reading, Reading::Verified(_))));
        taken
    };
    let rate = |taken: Duration| 2.0 * f64::from(count) / taken.as_secs_f64();
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let (plain, ours) = (rate(plain()), rate(ours()));
        println!(
            "round {round}: ring alone {plain:.0} verifications/s, Responses {ours:.0}, ratio {:.2}",
            ours / plain
        );
        ratios.push(ours / plain);
    }
    let spread = statistics::Spread::of(ratios).unwrap();
    println!("ratio {:.2} ({:.2} to {:.2}); wanted at least {RATIO_MIN}", spread.median, spread.least, spread.greatest);
    if spread.median < RATIO_MIN {
        std::process::exit(1);
    }
}
