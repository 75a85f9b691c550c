use super::*;
use crate::domain::ledger::entry::{Actor, ClockState, Entry, Event, Intent, Outcome, SignResult, Stopped, VERSION};
use crate::domain::names::Digest;

fn leaf(event: Event) -> Vec<u8> {
    let by = Actor { account: r#"a","event":{"intent":{}}"#.into(), ..Actor::daemon() };
    let at = "2017-07-21T10:00:00Z".parse().unwrap();
    Entry { v: VERSION, at, clock: ClockState::Trusted, by, event }.to_leaf().unwrap()
}

#[test]
fn a_glance_reads_what_the_whole_reading_reads_whatever_an_account_is_called() {
    let intent = Intent {
        batch: 41,
        template: "esme".parse().unwrap(),
        device: "00DB1234567890A0".parse().unwrap(),
        counter: 7_000,
        attempt: 1,
        command: Digest([7; 32]),
    };
    let octets = leaf(Event::Intent(intent.clone()));
    let glance = Glance::at(&octets).unwrap();
    assert_eq!(glance.kind, b"intent");
    assert_eq!(glance.read::<Intent>().unwrap(), intent);
    for result in [SignResult::Signed(Digest([1; 32])), SignResult::Unknown(r#"it said "no" {}"#.into())] {
        let outcome = Outcome { intent: 42, result };
        let octets = leaf(Event::Outcome(outcome.clone()));
        let glance = Glance::at(&octets).unwrap();
        assert_eq!((glance.kind, glance.read::<Outcome>().unwrap()), (&b"outcome"[..], outcome));
    }
    let octets = leaf(Event::Stopped(Stopped { reason: "SIGTERM".into() }));
    assert_eq!(Glance::at(&octets).unwrap().kind, b"stopped");
}

#[test]
fn what_is_no_entry_has_no_glance() {
    for octets in [&b""[..], b"{}", br#"{"v":1,"event":{"intent"#, br#"{"v":1,"event":{"intent":{}"#] {
        assert_eq!(Glance::at(octets), None);
    }
}
