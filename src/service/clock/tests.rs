use super::*;

const START_MS: i64 = 1_500_000_000_000;

fn reading(wall_ms: i64, monotonic_ms: i64) -> Reading {
    Reading { wall: Timestamp::from_unix_ms(START_MS + wall_ms).unwrap(), monotonic_ms }
}

/// Starts at 0/0, takes the readings, and says what came of the last one.
#[track_caller]
fn check(readings: &[(i64, i64)], at_ms: i64, state: ClockState, jump_ms: Option<i64>) {
    let mut comparison = Comparison::start(reading(0, 0), Timestamp::MIN);
    let mut last = None;
    for (wall, monotonic) in readings {
        last = Some(comparison.take(reading(*wall, *monotonic)));
    }
    assert_eq!(last, Some(Now { at: reading(at_ms, 0).wall, state, jump_ms }));
}

#[test]
fn clocks_that_go_together_are_trusted() {
    check(&[(60_000, 60_000)], 60_000, ClockState::Trusted, None);
    check(&[(1_000, 1_000), (2_000, 2_001), (3_001, 3_000)], 3_001, ClockState::Trusted, None);
}

#[test]
fn a_difference_is_a_jump_beyond_the_tolerance_and_not_before() {
    check(&[(TOLERANCE_MS, 0)], TOLERANCE_MS, ClockState::Trusted, None);
    check(&[(TOLERANCE_MS + 1, 0)], TOLERANCE_MS + 1, ClockState::Untrusted, Some(TOLERANCE_MS + 1));
    check(&[(10_000, 10_000 + TOLERANCE_MS)], 10_000, ClockState::Trusted, None);
    check(&[(10_000, 10_001 + TOLERANCE_MS)], 10_000, ClockState::Untrusted, Some(-TOLERANCE_MS - 1));
}

#[test]
fn a_jump_in_small_steps_is_a_jump() {
    check(&[(900, 0), (1_800, 0), (2_700, 0)], 2_700, ClockState::Untrusted, Some(2_700));
}

#[test]
fn a_jump_is_said_once_and_the_clock_stays_untrusted() {
    check(&[(100_000, 1_000), (101_000, 2_000)], 101_000, ClockState::Untrusted, None);
    // And back again is another one.
    check(&[(100_000, 1_000), (2_000, 2_000)], 100_000, ClockState::Untrusted, Some(-99_000));
}

#[test]
fn the_time_never_goes_back() {
    check(&[(50_000, 50_000), (10_000, 51_000)], 50_000, ClockState::Untrusted, Some(-41_000));
}

#[test]
fn a_clock_before_the_last_entry_is_untrusted_from_the_start() {
    let last = reading(1, 0).wall;
    let mut behind = Comparison::start(reading(0, 0), last);
    assert_eq!(behind.take(reading(0, 0)), Now { at: last, state: ClockState::Untrusted, jump_ms: None });
    assert_eq!(Comparison::start(reading(1, 0), last).take(reading(1, 0)).state, ClockState::Trusted);
}

#[test]
fn an_accepted_clock_is_trusted_from_there_unless_it_stands_before_the_last_entry() {
    let mut comparison = Comparison::start(reading(0, 0), Timestamp::MIN);
    assert_eq!(comparison.take(reading(100_000, 0)).state, ClockState::Untrusted);
    assert!(!comparison.accept(reading(99_999, 1)));
    assert_eq!(comparison.take(reading(100_000, 1)).state, ClockState::Untrusted);
    assert!(comparison.accept(reading(100_000, 2)));
    let now = comparison.take(reading(101_000, 1_002));
    assert_eq!((now.state, now.jump_ms), (ClockState::Trusted, None));
}

#[test]
fn a_clock_that_is_set_is_off_by_the_offset_and_never_called_trusted() {
    const BACK: i64 = -9 * 365 * 24 * 3_600_000;
    let (real, set) = (Clock::start(Timestamp::MIN, 0), Clock::start(Timestamp::MIN, BACK));
    assert_eq!((real.now().state, real.accept()), (ClockState::Trusted, Some(ClockState::Trusted)));
    let (before, now, after) = (wall_clock(), set.now(), wall_clock());
    assert!((before.plus_ms(BACK)..=after.plus_ms(BACK)).contains(&now.at), "{now:?} between {before} and {after}");
    assert_eq!((now.state, now.jump_ms), (ClockState::SetForExercise, None));
    assert_eq!(set.accept(), Some(ClockState::SetForExercise));
    // An entry of a time when the clock was not set: it stands before that, and nobody can accept it.
    let behind = Clock::start(before, BACK);
    assert_eq!((behind.now().state, behind.accept()), (ClockState::Untrusted, None));
}

#[test]
fn a_jump_that_somebody_else_saw_is_told_to_whoever_records_it_and_once() {
    let comparison = Comparison::start(reading(0, 0), Timestamp::MIN);
    let mut compared = Compared { comparison, untold_ms: None };
    assert_eq!(compared.tell(reading(1, 1)).jump_ms, None);
    let seen = compared.take(reading(60_000, 2));
    assert_eq!((seen.state, seen.jump_ms), (ClockState::Untrusted, None));
    assert_eq!(compared.take(reading(90_000, 3)).jump_ms, None);
    assert_eq!(compared.tell(reading(90_001, 4)).jump_ms, Some(89_997));
    assert_eq!(compared.tell(reading(90_002, 5)).jump_ms, None);
}
