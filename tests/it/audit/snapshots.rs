//! Snapshots: computed again, and forged.

use smkid::cli::ledger_export::StoreSource;
use smkid::domain::ledger::entry::Entry;

use super::*;

/// The snapshot that the recorder takes at the end of the fixture's ledger.
fn snapshot(fixture: &mut Fixture) -> smkid::domain::ledger::snapshots::Snapshot {
    fixture.record(|recorder| recorder.set_snapshot_leaves(1));
    let reader = fixture.reader();
    let last = reader.leaf(reader.head().unwrap().size - 1).unwrap();
    let Event::Snapshot(snapshot) = Entry::from_leaf(&last).unwrap().event else { panic!("no snapshot was taken") };
    snapshot
}

/// What is changed in a snapshot.
type Lie<'a> = &'a dyn Fn(&mut smkid::domain::ledger::snapshots::Snapshot);

#[test]
fn a_snapshot_is_computed_again_and_one_that_lies_is_refused() {
    let mut fixture = Fixture::new();
    let taken = snapshot(&mut fixture);
    assert!(taken.device.rows > 0 && taken.request.rows > 0, "{taken:?}");
    let export = Export::of(&fixture, &StoreSource(&*fixture.reader()));
    let (status, out, err) = export.verify();
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("snapshots"), "{out}");
    let digest = Digest([0xAB; 32]);
    let lies: [(&str, Lie); 4] = [
        ("the fold", &|snapshot| snapshot.fold = digest),
        ("table device", &|snapshot| snapshot.device.sha256 = digest),
        ("table request", &|snapshot| snapshot.request.rows += 1),
        ("table response", &|snapshot| snapshot.response = snapshot.device),
    ];
    for (expected, lie) in lies {
        let mut snapshot = taken.clone();
        lie(&mut snapshot);
        forged(&fixture, "end", expected, |forge| forge.push_by(Actor::daemon(), Event::Snapshot(snapshot)));
    }
    // By somebody else than the daemon.
    forged(&fixture, "end", "expected it to be asked for by daemon", |forge| {
        forge.push(Event::Snapshot(taken.clone()))
    });
}
