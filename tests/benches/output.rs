//! What a command costs on its way out: made again from its template, into the container, and out of it; each beside SHA-256 over the same octets,
//! which is the part of it that has to be. One core, in turns in one run.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(missing_docs, reason = "a program")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use smkid::domain::commands::container::{Fields, Header, Reader, Record, Writer};
use smkid::domain::commands::rebuild;
use smkid::domain::gbcs::Template;
use smkid::domain::ledger::entry::{Actor, ClockState, Entry, Event, Intent, VERSION};
use smkid::domain::ledger::glance::Glance;
use smkid::domain::names::{DeterminationId, DeviceId, Digest, Eui64, PartyId};
use smkid::exercise::bench::statistics;
use smkid::exercise::lab::{Lab, SoftKey};
use smkid::exercise::template::template;
use smkid::wall_clock::wall_clock;

/// Commands of a round.
const COUNT: u32 = 10_000;

fn timed(what: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    what();
    begun.elapsed()
}

fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--quick") { 3 } else { 9 };
    let lab = Lab::new(wall_clock()).unwrap();
    let key = SoftKey::generate().unwrap();
    let party: PartyId = "90B3D51F30000002".parse().unwrap();
    let subject = smkid::domain::certificates::OrganisationSubject { common_name: None, role: 1, party };
    let info = smkid::domain::certificates::bodies::certification_request_info(&subject, key.public()).unwrap();
    let request = smkid::domain::certificates::bodies::assemble(&info, &key.sign(&info).unwrap()).unwrap();
    let recovery = lab.certify_recovery(&request, party).unwrap();
    let of: Template = template(&lab, &recovery, lab.after()).unwrap();
    let intents: Vec<Intent> = (0..COUNT)
        .map(|n| {
            let device = DeviceId(Eui64((0x02DE_1CE0_0000_0000 + u64::from(n)).to_be_bytes()));
            let mut octets = Vec::new();
            of.fill(party, device, 7_001, &mut octets).unwrap();
            let command = Digest::of(&octets[1..]);
            Intent { batch: 41, template: "esme".parse().unwrap(), device, counter: 7_001, attempt: 1, command }
        })
        .collect();
    let leaves: Vec<Vec<u8>> = intents
        .iter()
        .map(|intent| {
            let event = Event::Intent(intent.clone());
            let entry = Entry { v: VERSION, at: wall_clock(), clock: ClockState::Trusted, by: Actor::daemon(), event };
            entry.to_leaf().unwrap()
        })
        .collect();
    let header = Header {
        origin: "smki.example/lab".parse().unwrap(),
        determination: DeterminationId([7; 16]),
        request: None,
        key: "recovery".parse().unwrap(),
        spki_sha256: Digest([3; 32]),
        templates: vec!["esme".parse().unwrap()],
    };
    let mut one = Vec::new();
    rebuild(&of, party, &intents[0], &[5; 64], None, &mut one).unwrap();
    println!("{} octets a command, {COUNT} a round, {rounds} rounds; microseconds a command", one.len());

    let names = ["SHA-256", "leaf read", "made again", "into a container", "out of a container"];
    let mut figures: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        let mut container = Vec::with_capacity((one.len() + 64) * COUNT as usize);
        let mut writer = Writer::begin(&header, &mut container);
        let mut octets = Vec::with_capacity(one.len() + 64);
        let spans = [
            timed(|| {
                for _ in &intents {
                    black_box(Digest::of(black_box(&one)));
                }
            }),
            timed(|| {
                for leaf in &leaves {
                    drop(black_box(Glance::at(leaf).unwrap().read::<Intent>().unwrap()));
                }
            }),
            timed(|| {
                for intent in &intents {
                    octets.clear();
                    rebuild(&of, party, intent, &[5; 64], None, &mut octets).unwrap();
                    black_box(&octets);
                }
            }),
            timed(|| {
                for (at, intent) in (0..).zip(&intents) {
                    let fields = Fields { device: intent.device, counter: intent.counter, intent: at, template: 0 };
                    writer.command(fields, &one, &mut container);
                }
            }),
            timed(|| {
                let mut reader = Reader::of_answer();
                for piece in container.chunks(64 * 1024) {
                    reader.feed(piece);
                    while let Some(record) = reader.record().unwrap() {
                        if let Record::Command(fields, octets) = record {
                            black_box((fields, reader.octets(&octets)));
                        }
                    }
                }
            }),
        ];
        for (figures, span) in figures.iter_mut().zip(spans) {
            figures.push(span.as_secs_f64() * 1e6 / f64::from(COUNT));
        }
    }
    for (name, figures) in names.iter().zip(figures) {
        let statistics::Spread { median, least, greatest } = statistics::Spread::of(figures).unwrap();
        println!("{name:<20} {median:6.2} ({least:.2} to {greatest:.2})");
    }
}
