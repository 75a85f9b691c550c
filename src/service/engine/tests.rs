use super::*;

#[test]
fn a_request_is_run_once_at_a_time_and_again_after_its_end() {
    let all = Arc::default();
    let (one, other) = (RequestId([1; 16]), RequestId([2; 16]));
    let running = Running::begin(&all, one).unwrap();
    assert!(matches!(Running::begin(&all, one), Err(Failure::TooMany { .. })));
    let beside = Running::begin(&all, other).unwrap();
    // The one that was turned away takes nothing from the one that runs.
    assert!(matches!(Running::begin(&all, one), Err(Failure::TooMany { .. })));
    drop(running);
    drop(Running::begin(&all, one).unwrap());
    assert!(matches!(Running::begin(&all, other), Err(Failure::TooMany { .. })));
    drop(beside);
    assert!(all.lock().unwrap().is_empty());
}

#[test]
fn a_reason_that_no_entry_could_hold_is_refused_before_it_is_recorded() {
    assert!(check_reason(&"a".repeat(intake::DESCRIPTION_LEN_MAX)).is_ok());
    assert!(matches!(check_reason(&"a".repeat(intake::DESCRIPTION_LEN_MAX + 1)), Err(Failure::Malformed { .. })));
}
