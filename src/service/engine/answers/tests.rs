use super::*;
use crate::domain::determination::document::{LedgerHead, Type};
use crate::domain::ledger::entry::{
    Actor, Batch, ClockState, Compromised, DeterminationRecorded, DeterminationSuspended, DeterminationWithdrawn,
    IncidentClosed, IncidentOpened, Intent, Outcome, Refused, Released, ScheduleRecorded, Settled, Started, VERSION,
};
use crate::domain::ledger::merkle::Leaf;
use crate::domain::names::{DirectionId, Purpose};
use crate::store::memory::MemoryStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Batch as Appended, StagingLimits, Store};

const AT: Timestamp = Timestamp::MIN;
const NOTHING: Digest = Digest([0; 32]);

fn incident(n: u8) -> IncidentId {
    format!("INC-{n}").parse().unwrap()
}

fn determination(n: u8) -> DeterminationId {
    DeterminationId([n; 16])
}

fn device(n: u8) -> DeviceId {
    DeviceId([n; 8].into())
}

fn opened(n: u8) -> Event {
    let party = "90B3D51F30000009".parse().unwrap();
    let compromised = Compromised { certificate_sha256: NOTHING, spki_sha256: NOTHING, party };
    Event::IncidentOpened(IncidentOpened {
        incident: incident(n),
        compromised,
        key: None,
        description: "d".into(),
        notification: None,
        profile: None,
    })
}

fn determined(n: u8) -> Event {
    Event::DeterminationRecorded(DeterminationRecorded {
        determination: determination(n),
        incident: incident(n),
        document: NOTHING,
        signatures: Vec::new(),
        devices: None,
        policy: NOTHING,
        profile: None,
        departures: vec![],
    })
}

fn batch(n: u8) -> Event {
    let (request, key) = (RequestId([n; 16]), "recovery-1".parse().unwrap());
    let (incident, determination) = (incident(n), determination(n));
    Event::Batch(Batch { request, asked: NOTHING, incident, determination, policy: NOTHING, profile: None, key })
}

fn intent(batch: u64, n: u8) -> Event {
    let (template, device) = ("esme".parse().unwrap(), device(n));
    Event::Intent(Intent { batch, template, device, counter: 1, attempt: 1, command: NOTHING })
}

fn outcome(intent: u64) -> Event {
    Event::Outcome(Outcome { intent, result: SignResult::Signed(NOTHING) })
}

fn released(n: u8, intents: (u64, u64)) -> Event {
    let (request, determination) = (RequestId([n; 16]), determination(n));
    Event::Released(Released { request, determination, intents: vec![intents] })
}

fn refused(incident: Option<IncidentId>, determination: Option<DeterminationId>, device: Option<DeviceId>) -> Event {
    let (operation, reasons) = ("recovery-sign".into(), Vec::new());
    Event::Refused(Refused { operation, incident, determination, request: None, device, asked: NOTHING, reasons })
}

/// Two incidents, each with a determination; a Device under both.
fn events() -> Vec<Event> {
    let document = NOTHING;
    vec![
        opened(1),
        opened(2),
        determined(1),
        determined(2),
        Event::ScheduleRecorded(ScheduleRecorded {
            determination: determination(1),
            document,
            signatures: Vec::new(),
            devices: NOTHING,
            policy: NOTHING,
            profile: None,
        }),
        batch(1),
        intent(5, 0xA),
        intent(5, 0xB),
        outcome(6),
        outcome(7),
        released(1, (6, 8)),
        batch(2),
        intent(11, 0xA),
        outcome(12),
        released(2, (12, 13)),
        Event::Settled(Settled {
            intent: 7,
            determination: determination(1),
            key: "recovery-1".parse().unwrap(),
            device: device(0xB),
            reason: "r".into(),
        }),
        refused(None, Some(determination(1)), Some(device(0xA))),
        refused(Some(incident(2)), None, None),
        Event::DeterminationSuspended(DeterminationSuspended {
            determination: determination(2),
            document,
            signatures: Vec::new(),
            until: AT,
        }),
        Event::DeterminationWithdrawn(DeterminationWithdrawn {
            determination: determination(1),
            document,
            signatures: Vec::new(),
        }),
        Event::IncidentClosed(IncidentClosed {
            incident: incident(1),
            reason: "r".into(),
            profile: None,
            departures: vec![],
        }),
        Event::Started(Started { version: "1".into(), program: NOTHING, configuration: NOTHING, unconfirmed: None }),
        directed(&departure()),
        directed(&extension()),
    ]
}

fn direction(n: u8, directs: Directs) -> Written<Direction> {
    let form = Direction {
        r#type: Type::new(),
        purpose: Purpose::Exercise,
        id: DirectionId([n; 16]),
        proposer: "operator-1".parse().unwrap(),
        ledger: LedgerHead { origin: "smkid.example/ledger".parse().unwrap(), size: 9, root: NOTHING },
        policy: NOTHING,
        reference: "Meeting of 1 August".parse().unwrap(),
        text: None,
        directs,
    };
    Written::write(&form).unwrap()
}

/// A direction about the first incident.
fn departure() -> Written<Direction> {
    let (step, reason) = ("submit-adt-file".parse().unwrap(), "The thresholds suffice".parse().unwrap());
    direction(1, Directs::Departure { incident: incident(1), step, reason })
}

/// A direction about no incident by name.
fn extension() -> Written<Direction> {
    direction(2, Directs::Extension { variation: "direction-2017-07-18".parse().unwrap(), until: None })
}

fn directed(document: &Written<Direction>) -> Event {
    Event::DirectionRecorded(DirectionRecorded {
        direction: document.form().id,
        document: document.digest(),
        signatures: Vec::new(),
        policy: NOTHING,
        text: None,
    })
}

#[test]
fn entries_are_those_that_every_filter_lets_through_with_all_that_belongs_to_them() {
    let by = Actor::daemon();
    let leaves = events().into_iter().map(|event| {
        Entry { v: VERSION, at: AT, clock: ClockState::Trusted, by: by.clone(), event }.to_leaf().unwrap()
    });
    let octets: Vec<Vec<u8>> = leaves.collect();
    let leaves: Vec<Leaf<'_>> = octets.iter().map(|octets| Leaf::new(octets).unwrap()).collect();
    let limits = StagingLimits { account_len_max: 1, total_len_max: 1 };
    let folder = tempfile::tempdir().unwrap();
    let mut in_memory = MemoryStore::new(limits).unwrap();
    let mut on_disk = SqliteStore::create(folder.path(), limits).unwrap();
    for store in [&mut in_memory as &mut dyn Store, &mut on_disk] {
        check_entries(store, &leaves);
    }
}

/// Each kind of store, which finds entries in ways of its own.
fn check_entries(store: &mut dyn Store, leaves: &[Leaf<'_>]) {
    let documents = [departure(), extension()];
    let blobs: Vec<_> = documents.iter().map(|written| (Digest::of(written.octets()), written.octets())).collect();
    store.append_at(0, &Appended { leaves, blobs: &blobs, staged: &[], derived: &[] }, &mut |_| ()).unwrap();
    let reader = store.reader().unwrap();
    let check = |of: wire::EntriesOf, expected: &[u64]| {
        let found = super::entries(&*reader, &of).unwrap();
        let found: Vec<u64> = found.entries.iter().map(|entry| entry.index).collect();
        assert_eq!(found, expected, "{of:?}");
        // From anywhere on it is the same.
        for from in of.from.unwrap_or(0)..of.until.unwrap_or(24) {
            let of = wire::EntriesOf { from: Some(from), ..of.clone() };
            let found: Vec<u64> =
                super::entries(&*reader, &of).unwrap().entries.iter().map(|entry| entry.index).collect();
            assert_eq!(found, expected.iter().copied().filter(|index| *index >= from).collect::<Vec<_>>(), "{of:?}");
        }
    };
    let of = wire::EntriesOf::default;
    let of_incident = |n| wire::EntriesOf { incident: Some(incident(n)), ..of() };
    let of_determination = |n| wire::EntriesOf { determination: Some(determination(n)), ..of() };
    let of_device = |n| wire::EntriesOf { device: Some(device(n)), ..of() };
    let kind = |kind: &str| Some(kind.to_owned());

    check(of(), &(0..24).collect::<Vec<_>>());
    check(of_incident(1), &[0, 2, 4, 5, 6, 7, 8, 9, 10, 15, 16, 19, 20, 22]);
    check(of_incident(2), &[1, 3, 11, 12, 13, 14, 17, 18]);
    check(of_incident(3), &[]);
    check(of_determination(1), &[2, 4, 5, 6, 7, 8, 9, 10, 15, 16, 19]);
    check(of_determination(2), &[3, 11, 12, 13, 14, 18]);
    check(of_device(0xA), &[6, 8, 10, 12, 13, 14, 16]);
    check(of_device(0xB), &[7, 9, 10, 15]);
    check(of_device(0xC), &[]);
    // Together they narrow.
    check(wire::EntriesOf { incident: Some(incident(1)), ..of_device(0xA) }, &[6, 8, 10, 16]);
    check(wire::EntriesOf { determination: Some(determination(2)), ..of_device(0xA) }, &[12, 13, 14]);
    check(wire::EntriesOf { incident: Some(incident(2)), ..of_determination(1) }, &[]);
    check(wire::EntriesOf { kind: kind("outcome"), ..of_device(0xB) }, &[9]);
    check(wire::EntriesOf { kind: kind("batch"), ..of_incident(2) }, &[11]);
    check(wire::EntriesOf { kind: kind("intent"), ..of() }, &[6, 7, 12]);
    // A range cuts what is shown, and not what is known.
    check(wire::EntriesOf { from: Some(8), until: Some(14), ..of_device(0xA) }, &[8, 10, 12, 13]);
}
