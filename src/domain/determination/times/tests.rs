use super::super::document::tests::{determination, written};
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn a_determination_is_in_force_from_its_first_moment_and_no_longer_at_its_last() {
    let d = written(&determination()); // from 2027-01-01 until 2027-01-08
    assert!(in_window(&d, at("2026-12-31T23:59:59.999Z")).is_err());
    assert!(in_window(&d, at("2027-01-01T00:00:00.000Z")).is_ok());
    assert!(in_window(&d, at("2027-01-07T23:59:59.999Z")).is_ok());
    let late = in_window(&d, at("2027-01-08T00:00:00.000Z")).unwrap_err();
    assert!(late.to_string().contains("until 2027-01-08T00:00:00.000Z; it is 2027-01-08"), "{late}");
}

#[test]
fn a_determination_may_be_recorded_ahead_of_its_window_and_not_after_it() {
    let d = written(&determination());
    assert!(not_over(&d, at("2026-06-01T00:00:00Z")).is_ok());
    assert!(not_over(&d, at("2027-01-07T23:59:59.999Z")).is_ok());
    assert!(not_over(&d, at("2027-01-08T00:00:00Z")).is_err());
}

#[test]
fn a_head_is_recent_up_to_the_last_millisecond_of_its_last_hour() {
    let head = at("2027-01-01T00:00:00Z");
    assert!(head_recent(head, 2, head).is_ok());
    assert!(head_recent(head, 2, at("2027-01-01T02:00:00.000Z")).is_ok());
    assert!(matches!(head_recent(head, 2, at("2027-01-01T02:00:00.001Z")), Err(WrongTime::HeadTooOld { .. })));
    assert!(matches!(head_recent(head, 2, at("2026-12-31T23:59:59.999Z")), Err(WrongTime::HeadInFuture { .. })));
}

#[test]
fn a_suspension_ends_with_its_last_hour() {
    let suspended = Suspended::new(at("2027-01-01T00:00:00Z"), 3);
    assert!(!suspended.holds(at("2026-12-31T23:59:59.999Z")));
    assert!(suspended.holds(at("2027-01-01T00:00:00Z")));
    assert!(suspended.holds(at("2027-01-01T02:59:59.999Z")));
    assert!(!suspended.holds(suspended.until()));
    assert_eq!(suspended.until(), at("2027-01-01T03:00:00Z"));
}

#[test]
fn hours_beyond_the_calendar_end_with_it() {
    assert_eq!(Suspended::new(Timestamp::MAX, u32::MAX).until(), Timestamp::MAX);
}
