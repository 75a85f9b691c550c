//! The recorder and the start that finds what it left: what is believed, and what cannot stop it.

use smkid::domain::ledger::entry::Event;
use smkid::recorder::record_alone;
use smkid::state::StateError;

use crate::support::ledger_fixture::{Fixture, operator};

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
            Err(StateError::Uncovered { index, reason }) => {
                assert_eq!(index, at);
                assert!(reason.contains("quorum: "), "{reason}");
            }
            other => panic!("{members:?}: {other:?}"),
        }
    }
}
