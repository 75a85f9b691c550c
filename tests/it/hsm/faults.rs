//! Faults that come while a worker runs, and leave again.

use std::fs;
use std::path::{Path, PathBuf};

use smkid::domain::time::Timestamp;
use smkid::hsm::{Certainty, Condition, HsmError, NotSigned, Outcome};

use super::{commands, eventually, label, made, sign, tally};

#[test]
fn a_running_worker_meets_a_fault_that_was_not_there_when_it_started() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "# healthy"));
    assert_eq!(tally(&sign(&token, "recovery", commands(5)), 5), [5, 0, 0, 0]);
    made.hsm.fail_otherwise("C_Sign +2 lose CKR_DEVICE_ERROR");
    assert_eq!(tally(&sign(&token, "recovery", commands(5)), 5), [1, 0, 3, 1]);
    eventually("down", || matches!(token.condition(), Condition::Down(_)));
    made.hsm.fail_otherwise("# healthy again");
    token.restart().unwrap();
    assert_eq!(tally(&sign(&token, "recovery", commands(5)), 5), [5, 0, 0, 0]);
}

#[test]
fn a_signature_of_another_length_is_none() {
    let made = made();
    for (action, found) in [("short", 63), ("long", 65)] {
        let token = made.start(made.hsm.failing(1, &format!("C_Sign 3 {action}")));
        let results = sign(&token, "recovery", commands(5));
        let third = &results.iter().find(|result| result.tag == 2).unwrap().outcome;
        let Outcome::Unknown(error) = third else { panic!("{action}: {third:?}") };
        assert_eq!(*error, HsmError::SignatureLength { found }, "{action}");
        assert_eq!(error.certainty(), Certainty::SignatureMayExist);
    }
}

#[test]
fn a_token_that_was_pulled_out_is_served_by_another_worker_once_it_is_back() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_SignInit 3 gone"));
    let results = sign(&token, "recovery", commands(10));
    // The third was refused before it was signed; nothing is unknown.
    let [signed, _, _, unknown] = tally(&results, 10);
    assert_eq!((signed, unknown), (2, 0));
    eventually("down", || matches!(token.condition(), Condition::Down(_)));
    let away = token.restart().unwrap_err();
    assert!(matches!(away, HsmError::TokenAbsent { .. }), "{away}");
    assert!(!away.locks(), "what is away may come back");
    made.hsm.fail_otherwise("# put back");
    token.restart().unwrap();
    assert_eq!(tally(&sign(&token, "recovery", commands(10)), 10), [10, 0, 0, 0]);
}

#[test]
fn slots_that_were_renumbered_are_no_matter_to_a_token_known_by_label_and_serial_number() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Initialize 2- shift-slots 17\nC_Sign 4 kill"));
    let results = sign(&token, "recovery", commands(10));
    assert!(results.iter().any(|result| result.outcome == Outcome::NotSigned(NotSigned::NotReached)));
    eventually("down", || matches!(token.condition(), Condition::Down(_)));
    token.restart().unwrap();
    assert_eq!(tally(&sign(&token, "recovery", commands(10)), 10), [10, 0, 0, 0]);
}

#[test]
fn a_token_with_no_session_to_spare_signs_with_those_it_has_and_none_is_lost() {
    let made = made();
    // One for life and one signer of three: the others find none, and what they had taken is not signed or retried.
    let token = made.start(made.hsm.failing(3, "C_OpenSession * limit 2"));
    let results = token.sign(&label("recovery"), commands(40), Timestamp::MAX).unwrap().wait_all();
    let [signed, failed, not_signed, unknown] = tally(&results, 40);
    assert_eq!((signed + failed + not_signed, unknown), (40, 0), "{results:?}");
}

/// SoftHSM's files of a token's objects; not that of the token itself.
fn objects(token: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(token).unwrap().map(|entry| entry.unwrap().path());
    let is_object = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "object");
    files.filter(is_object).filter(|path| path.file_stem().unwrap() != "token").collect()
}

#[test]
fn a_token_that_shows_none_of_its_objects_for_a_while_waits_for_no_operator() {
    let made = made();
    let token = made.start(made.hsm.failing(1, "C_Sign 1 kill"));
    assert_eq!(tally(&sign(&token, "recovery", commands(1)), 1), [0, 0, 0, 1]);
    eventually("down", || matches!(token.condition(), Condition::Down(_)));
    // As when it is looked at while it is being put back: it is there, its PIN is good, and it seems to be empty.
    let folder = fs::read_dir(made.hsm.dir().join("tokens")).unwrap().next().unwrap().unwrap().path();
    let all = objects(&folder);
    assert!(!all.is_empty());
    for object in &all {
        fs::rename(object, object.with_extension("away")).unwrap();
    }
    let empty = token.restart().unwrap_err();
    assert!(matches!(empty, HsmError::GenesisAbsent { .. }), "{empty}");
    assert!(!empty.locks() && matches!(token.condition(), Condition::Down(_)), "nothing is concluded from an absence");
    for object in &all {
        fs::rename(object.with_extension("away"), object).unwrap();
    }
    token.restart().unwrap();
    assert_eq!(tally(&sign(&token, "recovery", commands(5)), 5), [5, 0, 0, 0]);
}
