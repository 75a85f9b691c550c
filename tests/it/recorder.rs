//! The recorder and the start that finds what it left: what is believed, and what cannot stop it.

use smkid::domain::ledger::entry::{Actor, Entry, Event, Reason, Refused};
use smkid::domain::names::Digest;
use smkid::recorder::record_alone;
use smkid::state::StateError;

use crate::support::ledger_fixture::{Fixture, operator};

#[test]
fn no_refusal_is_too_long_to_be_recorded_whatever_was_sent() {
    let fixture = Fixture::new();
    let mut recorder = fixture.without_key();
    let check = |recorder: &mut smkid::recorder::Recorder, reasons: Vec<Reason>, told: usize| {
        let by = Actor { account: format!("account-{}", reasons.len()).into(), ..operator() };
        let refused = Refused {
            operation: "document-record".into(),
            incident: None,
            determination: None,
            request: None,
            device: None,
            asked: Digest([0; 32]),
            reasons,
        };
        let entry = record_alone(recorder, |recorder| recorder.refuse(&by, refused)).unwrap().into_inner();
        let leaf = recorder.store().leaf(entry.unwrap()).unwrap();
        let Event::Refused(refused) = Entry::from_leaf(&leaf).unwrap().event else { panic!("no refusal") };
        assert_eq!(refused.reasons.len(), told);
    };
    let reason = |text: &str, times: usize| Reason { rule: "policy".into(), text: text.repeat(times).into() };
    check(&mut recorder, vec![reason("a", 1); 100], 100);
    check(&mut recorder, vec![reason("a", 1); 101], 101);
    check(&mut recorder, vec![reason("a", 1); 200], 101);
    // A path of 70,000 characters, which the fault repeats; and each character the longest that JSON can make it.
    check(&mut recorder, vec![reason("a", 70_000)], 1);
    check(&mut recorder, vec![reason("\u{1}", 70_000); 3], 3);
    check(&mut recorder, vec![reason("\u{1}", 70_000); 99], 6);
}

#[test]
fn a_start_believes_no_document_that_lies_under_no_checkpoint_and_that_too_few_signed() {
    let append = |members: &[usize]| {
        let mut fixture = Fixture::new();
        let (blobs, event) = fixture.another_determination(members);
        let mut without_key = fixture.without_key();
        let queued = record_alone(&mut without_key, |recorder| {
            for blob in blobs {
                recorder.queue_blob(blob);
            }
            recorder.queue(&operator(), Event::DeterminationRecorded(event.clone()))
        });
        let index = queued.unwrap().into_inner();
        assert!(without_key.checkpointed() <= index, "no checkpoint covers it");
        (index, event.determination, fixture.caught_up())
    };
    // The crash between commit and checkpoint: what two members signed stands.
    let (_, determination, fold) = append(&[0, 2]);
    assert!(fold.unwrap().determinations().contains_key(&determination));
    for members in [&[][..], &[0]] {
        let (at, _, fold) = append(members);
        match fold {
            Err(StateError::NotPermitted { index, reason }) => {
                assert_eq!(index, at);
                assert!(reason.contains("quorum: "), "{reason}");
            }
            other => panic!("{members:?}: {other:?}"),
        }
    }
}
