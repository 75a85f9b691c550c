use super::*;
use crate::domain::fold::BookError;
use crate::domain::ledger::entry::{Actor, Batch, ClockState, Intent, Settled, VERSION};
use crate::domain::names::RequestId;

/// No document is asked for.
struct Nothing;

impl Blobs for Nothing {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        unreachable!("document {digest} was asked for")
    }

    fn stream(&self, digest: Digest, _: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        unreachable!("list {digest} was asked for")
    }
}

const DETERMINATION: DeterminationId = DeterminationId([7; 16]);

fn device(n: u8) -> DeviceId {
    format!("00DB1234567890{n:02X}").parse().unwrap()
}

/// The story of Device 1 by these events, the first of which stands at entry 10.
fn told(events: Vec<Event>) -> Vec<String> {
    let mut history = History::of(device(1));
    for (index, event) in (10..).zip(events) {
        let entry = Entry { v: VERSION, at: Timestamp::MIN, clock: ClockState::Trusted, by: Actor::daemon(), event };
        history.take(index, &entry, &Nothing).unwrap();
    }
    history.told.into_iter().map(|event| event.what).collect()
}

fn batch() -> Event {
    Event::Batch(Batch {
        request: RequestId([1; 16]),
        asked: Digest([1; 32]),
        incident: "INC-1".parse().unwrap(),
        determination: DETERMINATION,
        policy: Digest([2; 32]),
        key: "recovery-1".parse().unwrap(),
        profile: None,
    })
}

fn intent(of: u8, attempt: u32) -> Event {
    Event::Intent(Intent {
        batch: 10,
        template: "t-1".parse().unwrap(),
        device: device(of),
        counter: 42,
        attempt,
        command: Digest([3; 32]),
    })
}

fn outcome(intent: u64, result: SignResult) -> Event {
    Event::Outcome(Outcome { intent, result })
}

#[test]
fn a_command_that_the_token_failed_at_or_never_had_is_told_with_the_reason() {
    let failed = outcome(11, SignResult::Failed("CKR_DEVICE_ERROR".into()));
    let not_signed = outcome(13, SignResult::NotSigned("the incident was paused".into()));
    let told = told(vec![batch(), intent(1, 1), failed, intent(1, 1), not_signed]);
    assert_eq!(
        told,
        [
            format!("Command intended: template t-1, counter 42, attempt 1 under determination {DETERMINATION}"),
            "Command of intent 11 failed: CKR_DEVICE_ERROR".to_owned(),
            format!("Command intended: template t-1, counter 42, attempt 1 under determination {DETERMINATION}"),
            "Command of intent 13 not signed: the incident was paused".to_owned(),
        ]
    );
}

#[test]
fn an_unknown_outcome_is_told_and_what_became_of_it_attempt_by_attempt() {
    let unknown = |intent| outcome(intent, SignResult::Unknown("the worker died".into()));
    let settled = Event::Settled(Settled {
        intent: 13,
        determination: DETERMINATION,
        key: "recovery-1".parse().unwrap(),
        device: device(1),
        reason: "the meter is scrapped".into(),
    });
    let told = told(vec![batch(), intent(1, 1), unknown(11), intent(1, 2), unknown(13), settled]);
    assert_eq!(told[1], "Command of intent 11 is of unknown outcome: the worker died");
    assert!(told[2].contains("attempt 2"), "{told:?}");
    assert_eq!(told[3], "Command of intent 13 is of unknown outcome: the worker died");
    assert_eq!(told[4], "Unknown of intent 13 left as it is: the meter is scrapped");
    assert_eq!(told.len(), 5);
}

#[test]
fn what_became_of_another_devices_command_is_not_told() {
    let unknown = outcome(11, SignResult::Unknown("the worker died".into()));
    let failed = outcome(13, SignResult::Failed("CKR_DEVICE_ERROR".into()));
    let told = told(vec![batch(), intent(2, 1), unknown, intent(1, 1), failed]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("of intent 13 failed"), "{told:?}");
}
