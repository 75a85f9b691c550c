use std::sync::mpsc;

use super::*;
use crate::domain::fold::Fold;
use crate::domain::ledger::entry::ClockState;
use crate::domain::time::Timestamp;
use crate::recorder::{Moment, Recorder};
use crate::store::StagingLimits;
use crate::store::memory::MemoryStore;

/// Waits until the heartbeat is so, or for ever: the test runner says which test hangs.
async fn until(heartbeat: &Heartbeat, recent: bool) {
    while heartbeat.is_recent() != recent {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_recorder_that_is_stuck_is_not_alive_and_one_that_answers_again_is() {
    let limits = StagingLimits { account_len_max: 1 << 20, total_len_max: 1 << 20 };
    let store = MemoryStore::new(limits).unwrap();
    let clock = || (Moment { at: Timestamp::MIN, clock: ClockState::Trusted }, None);
    let recorder = Recorder::new(Box::new(store), Fold::default(), Box::new(clock)).unwrap();
    let (desk, _) = Desk::open(recorder, Box::new(|_| {}), |_| {}).unwrap();
    let heartbeat = Arc::new(Heartbeat::new(Duration::from_millis(300)));
    assert!(heartbeat.is_recent());
    tokio::spawn(beat_every(Duration::from_millis(5), Arc::clone(&heartbeat), desk.clone()));

    let (go_on, held) = mpsc::channel::<()>();
    let stuck = tokio::spawn(async move {
        let ask = move |_: &mut Recorder| {
            let _ = held.recv();
            Ok(())
        };
        desk.record(ask).await.is_ok()
    });
    until(&heartbeat, false).await;
    assert!(!stuck.is_finished());
    go_on.send(()).unwrap();
    until(&heartbeat, true).await;
    assert!(stuck.await.unwrap());
}
