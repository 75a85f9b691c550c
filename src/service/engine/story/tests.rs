use super::*;
use crate::domain::determination::document::{LedgerHead, Type, Written};
use crate::domain::ledger::entry::{
    Actor, Batch, ClockState, Compromised, DeterminationRecorded, DirectionRecorded, IncidentClosed, IncidentOpened,
    Intent, Outcome, Refused, VERSION,
};
use crate::domain::ledger::merkle::Leaf;
use crate::domain::names::{DeterminationId, DeviceId, Digest, DirectionId, Purpose, RequestId};
use crate::domain::procedure::direction::{Direction, Directs};
use crate::domain::time::Timestamp;
use crate::store::memory::MemoryStore;
use crate::store::{Batch as Appended, StagingLimits, Store as _};

const NOTHING: Digest = Digest([0; 32]);

fn incident() -> IncidentId {
    "INC-1".parse().unwrap()
}

fn departure() -> Written<Direction> {
    let (step, reason) = ("submit-adt-file".parse().unwrap(), "The thresholds suffice".parse().unwrap());
    let form = Direction {
        r#type: Type::new(),
        purpose: Purpose::Exercise,
        id: DirectionId([1; 16]),
        proposer: "operator-1".parse().unwrap(),
        ledger: LedgerHead { origin: "smkid.example/ledger".parse().unwrap(), size: 9, root: NOTHING },
        policy: NOTHING,
        reference: "Meeting of 1 August".parse().unwrap(),
        text: None,
        directs: Directs::Departure { incident: incident(), step, reason },
    };
    Written::write(&form).unwrap()
}

/// An incident from its opening by entry 1 to its closure, with a direction, refusals, and two commands.
fn events() -> Vec<Event> {
    let determination = DeterminationId([1; 16]);
    let party = "90B3D51F30000009".parse().unwrap();
    let refused = |operation: &str, incident| {
        Event::Refused(Refused {
            operation: operation.into(),
            incident,
            determination: None,
            request: None,
            device: None,
            asked: NOTHING,
            reasons: Vec::new(),
        })
    };
    let intent = |n| {
        let (template, device) = ("esme".parse().unwrap(), DeviceId([n; 8].into()));
        Event::Intent(Intent { batch: 7, template, device, counter: 1, attempt: 1, command: NOTHING })
    };
    let signed = |intent| Event::Outcome(Outcome { intent, result: SignResult::Signed(NOTHING) });
    vec![
        refused("before", Some(incident())),
        Event::IncidentOpened(IncidentOpened {
            incident: incident(),
            compromised: Compromised { certificate_sha256: NOTHING, spki_sha256: NOTHING, party },
            key: None,
            description: "d".into(),
            notification: None,
            profile: None,
        }),
        refused("first", Some(incident())),
        refused("another", Some("INC-2".parse().unwrap())),
        refused("second", Some(incident())),
        Event::DirectionRecorded(DirectionRecorded {
            direction: departure().form().id,
            document: departure().digest(),
            signatures: Vec::new(),
            policy: NOTHING,
            text: None,
        }),
        Event::DeterminationRecorded(DeterminationRecorded {
            determination,
            incident: incident(),
            document: NOTHING,
            signatures: Vec::new(),
            devices: None,
            policy: NOTHING,
            profile: None,
            departures: vec![],
        }),
        Event::Batch(Batch {
            request: RequestId([1; 16]),
            asked: NOTHING,
            incident: incident(),
            determination,
            policy: NOTHING,
            profile: None,
            key: "recovery-1".parse().unwrap(),
        }),
        intent(1),
        intent(2),
        signed(8),
        signed(9),
        Event::IncidentClosed(IncidentClosed {
            incident: incident(),
            reason: "over".into(),
            profile: None,
            departures: vec![],
        }),
    ]
}

#[test]
fn a_story_is_the_same_in_parts_of_any_length_and_has_its_directions() {
    let octets: Vec<Vec<u8>> = events()
        .into_iter()
        .map(|event| {
            let (at, by) = (Timestamp::MIN, Actor::daemon());
            Entry { v: VERSION, at, clock: ClockState::Trusted, by, event }.to_leaf().unwrap()
        })
        .collect();
    let leaves: Vec<Leaf<'_>> = octets.iter().map(|octets| Leaf::new(octets).unwrap()).collect();
    let mut store = MemoryStore::new(StagingLimits { account_len_max: 1, total_len_max: 1 }).unwrap();
    let (departure, none) = (departure(), []);
    let blobs = [(Digest::of(departure.octets()), departure.octets())];
    store.append_at(0, &Appended { leaves: &leaves, blobs: &blobs, staged: &none, derived: &[] }, &mut |_| ()).unwrap();
    let reader = store.reader().unwrap();
    let part = |from, most| story(&*reader, incident(), (1, from), most).unwrap();

    let whole = part(1, usize::MAX);
    assert_eq!(whole.next, None);
    let entries: Vec<u64> = whole.items.iter().map(|item| item.entry).collect();
    assert_eq!(entries, [1, 2, 4, 5, 6, 7, 8, 12]);
    assert!(whole.items[3].what.contains("departs from step submit-adt-file"), "{}", whole.items[3].what);
    assert!(whole.items[3].what.contains("The thresholds suffice"), "{}", whole.items[3].what);
    assert_eq!(whole.items[6].what, "2 commands were intended: 2 signed");
    for most in 1..=whole.items.len() + 1 {
        let (mut items, mut from) = (Vec::new(), Some(1));
        while let Some(begin) = from {
            let part = part(begin, most);
            // What is counted together goes out with what follows it.
            assert!(part.items.len() <= most + 1, "{most}: {}", part.items.len());
            items.extend(part.items);
            from = part.next;
        }
        assert_eq!(items, whole.items, "{most} at a time");
    }
}
