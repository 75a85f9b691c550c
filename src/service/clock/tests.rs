use super::*;

const START_MS: i64 = 1_500_000_000_000;

fn reading(wall_ms: i64, monotonic_ms: i64) -> Reading {
    Reading { wall: Timestamp::from_unix_ms(START_MS + wall_ms).unwrap(), monotonic_ms }
}

/// Starts at 0/0, takes the readings, and says what came of the last one.
#[track_caller]
fn check(readings: &[(i64, i64)], at_ms: i64, state: ClockState, jump_ms: Option<i64>) {
    let mut comparison = Comparison::start(reading(0, 0), None);
    let mut last = None;
    for (wall, monotonic) in readings {
        last = Some(comparison.take(reading(*wall, *monotonic)));
    }
    let wall = reading(readings.last().unwrap().0, 0).wall;
    assert_eq!(last, Some(Now { at: reading(at_ms, 0).wall, wall, state, jump_ms }));
}

#[test]
fn clocks_that_go_together_are_trusted() {
    check(&[(60_000, 60_000)], 60_000, ClockState::Trusted, None);
    check(&[(1_000, 1_000), (2_000, 2_001), (3_001, 3_000)], 3_001, ClockState::Trusted, None);
}

#[test]
fn a_difference_is_a_jump_beyond_the_tolerance_and_not_before() {
    check(&[(TOLERANCE_MS, 0)], TOLERANCE_MS, ClockState::Trusted, None);
    check(&[(TOLERANCE_MS + 1, 0)], 0, ClockState::Untrusted, Some(TOLERANCE_MS + 1));
    check(&[(10_000, 10_000 + TOLERANCE_MS)], 10_000, ClockState::Trusted, None);
    check(&[(10_000, 10_001 + TOLERANCE_MS)], 10_000, ClockState::Untrusted, Some(-TOLERANCE_MS - 1));
}

#[test]
fn a_jump_in_small_steps_is_a_jump() {
    check(&[(900, 0), (1_800, 0), (2_700, 0)], 1_800, ClockState::Untrusted, Some(2_700));
}

#[test]
fn a_jump_is_said_once_and_the_clock_stays_untrusted() {
    check(&[(100_000, 1_000), (101_000, 2_000)], 2_000, ClockState::Untrusted, None);
    // And back again is another one.
    check(&[(100_000, 1_000), (2_000, 2_000)], 2_000, ClockState::Untrusted, Some(-99_000));
}

#[test]
fn after_a_jump_either_way_time_goes_on_from_the_last_moment_that_was_relied_on() {
    const YEARS_MS: i64 = 14 * 365 * 24 * 3_600_000;
    // Behind it at half the pace, until the wall clock has come up.
    check(&[(50_000, 50_000), (10_000, 51_000), (11_000, 52_000)], 51_000, ClockState::Untrusted, None);
    check(&[(50_000, 50_000), (YEARS_MS, 51_000), (YEARS_MS + 1_000, 52_000)], 52_000, ClockState::Untrusted, None);
}

#[test]
fn a_clock_before_the_last_entry_or_long_after_it_is_untrusted_from_the_start() {
    let last = reading(0, 0).wall;
    let start = |wall_ms, untrusted| {
        let mut comparison = Comparison::start(reading(wall_ms, 7), Some(Before { last, untrusted }));
        let Now { at, state, jump_ms, .. } = comparison.take(reading(wall_ms + 5, 12));
        assert_eq!(comparison.take(reading(wall_ms + 6, 13)).jump_ms, None, "it is said once");
        (at.unix_ms() - last.unix_ms(), state, jump_ms)
    };
    assert_eq!(start(0, false), (5, ClockState::Trusted, None));
    // Within the tolerance it waits for the clock to come up to it; beyond, that is a jump too.
    assert_eq!(start(-TOLERANCE_MS, false), (0, ClockState::Trusted, None));
    assert_eq!(start(-TOLERANCE_MS - 1, false), (2, ClockState::Untrusted, Some(-TOLERANCE_MS - 1)));
    let most = SILENCE_MS_MAX;
    assert_eq!(start(most, false), (most + 5, ClockState::Trusted, None));
    assert_eq!(start(most + 1, false), (5, ClockState::Untrusted, Some(most + 1)));
    // What an operator has still to look at was told before.
    assert_eq!(start(1_000, true), (5, ClockState::Untrusted, None));
    assert_eq!(start(most + 1, true), (5, ClockState::Untrusted, None));
}

#[test]
fn a_clock_that_was_ahead_for_an_hour_and_was_put_right_can_be_accepted_after_as_long_again() {
    const HOUR_MS: i64 = 3_600_000;
    let mut comparison = Comparison::start(reading(HOUR_MS, 0), None);
    assert_eq!(comparison.take(reading(HOUR_MS, 0)).state, ClockState::Trusted);
    let accept = |comparison: &mut Comparison, ms| {
        // It is looked at often meanwhile.
        for at in (ms - 60_000..=ms).step_by(1_000) {
            comparison.take(reading(at, at));
        }
        comparison.accept(reading(ms, ms), reading(ms, 0).wall)
    };
    let early = accept(&mut comparison, HOUR_MS);
    assert!(matches!(early, Err(NotAccepted::Before { .. })), "{early:?}");
    let now = accept(&mut comparison, 2 * HOUR_MS).unwrap();
    assert_eq!((now.at, now.state), (reading(2 * HOUR_MS, 0).wall, ClockState::Trusted));
}

#[test]
fn a_jump_that_is_seen_when_the_clock_is_accepted_is_told_if_it_is_not() {
    let start = || Compared { comparison: Comparison::start(reading(0, 0), None), untold_ms: None };
    let (mut refused, mut accepted) = (start(), start());
    let at = reading(90_000_000, 1);
    assert!(refused.accept(at, reading(0, 0).wall).is_err());
    assert_eq!(refused.tell(at).jump_ms, Some(89_999_999));
    assert_eq!(accepted.accept(at, at.wall).unwrap().state, ClockState::Trusted);
    assert_eq!(accepted.tell(at).jump_ms, None);
}

#[test]
fn a_jump_there_and_back_leaves_a_clock_that_can_be_accepted_at_once() {
    let mut comparison = Comparison::start(reading(0, 0), None);
    assert_eq!(comparison.take(reading(1_000_000_000, 1_000)).state, ClockState::Untrusted);
    assert_eq!(comparison.take(reading(2_000, 2_000)).at, reading(2_000, 0).wall);
    let now = comparison.accept(reading(3_000, 3_000), reading(3_000, 0).wall).unwrap();
    assert_eq!(now, Now { at: now.wall, wall: reading(3_000, 0).wall, state: ClockState::Trusted, jump_ms: None });
}

#[test]
fn a_clock_is_accepted_as_another_says_it_and_not_before_the_ledger_and_counts_from_there() {
    let mut comparison = Comparison::start(reading(0, 0), None);
    assert_eq!(comparison.take(reading(100_000_000, 0)).state, ClockState::Untrusted);
    let true_time = |wall_ms| reading(wall_ms, 0).wall;
    for off_ms in [-ACCEPTED_OFF_MS_MAX - 1, ACCEPTED_OFF_MS_MAX + 1] {
        let wall = true_time(100_000_000);
        let time = wall.plus_ms(off_ms);
        assert_eq!(comparison.accept(reading(100_000_000, 1), time), Err(NotAccepted::Differs { wall, time }));
        assert_eq!(comparison.take(reading(100_000_000, 1)).state, ClockState::Untrusted);
    }
    // Entries never go back. What the tolerance lets pass waits for the clock to come up to it.
    let (ledger, wall) = (true_time(500), true_time(499 - TOLERANCE_MS));
    let refused = comparison.accept(reading(499 - TOLERANCE_MS, 1_000), wall);
    assert_eq!(refused, Err(NotAccepted::Before { wall, ledger }));
    let mut behind = comparison.clone();
    let now = behind.accept(reading(500 - TOLERANCE_MS, 1_000), wall).unwrap();
    assert_eq!((now.state, now.at), (ClockState::Trusted, ledger));
    assert_eq!(behind.take(reading(600 - TOLERANCE_MS, 1_100)).at, ledger);
    assert_eq!(behind.take(reading(1_100, 1_100 + TOLERANCE_MS)).at, true_time(1_100));
    for off_ms in [-ACCEPTED_OFF_MS_MAX, ACCEPTED_OFF_MS_MAX] {
        let mut comparison = comparison.clone();
        let wall = true_time(100_000_002);
        let now = comparison.accept(reading(100_000_002, 1_002), wall.plus_ms(off_ms)).unwrap();
        assert_eq!((now.at, now.state), (wall, ClockState::Trusted));
        let now = comparison.take(reading(100_001_002, 2_002));
        assert_eq!((now.at, now.state, now.jump_ms), (true_time(100_001_002), ClockState::Trusted, None));
    }
}

#[test]
fn a_clock_that_is_set_is_off_by_the_offset_and_never_called_trusted() {
    const BACK: i64 = -9 * 365 * 24 * 3_600_000;
    let (real, set) = (Clock::start(None, 0), Clock::start(None, BACK));
    let accepted = |clock: &Clock| clock.accept(clock.now().wall).map(|now| now.state);
    assert_eq!((real.now().state, accepted(&real)), (ClockState::Trusted, Ok(ClockState::Trusted)));
    let (before, now, after) = (wall_clock(), set.now(), wall_clock());
    assert!((before.plus_ms(BACK)..=after.plus_ms(BACK)).contains(&now.at), "{now:?} between {before} and {after}");
    assert_eq!((now.state, now.jump_ms), (ClockState::SetForExercise, None));
    assert_eq!(accepted(&set), Ok(ClockState::SetForExercise));
    // An entry of a time when the clock was not set: it stands before that, and nobody can accept it.
    let behind = Clock::start(Some(Before { last: before, untrusted: false }), BACK);
    assert_eq!(behind.now().state, ClockState::Untrusted);
    assert!(matches!(accepted(&behind), Err(NotAccepted::Before { .. })));
}

#[test]
fn a_jump_that_somebody_else_saw_is_told_to_whoever_records_it_and_once() {
    let comparison = Comparison::start(reading(0, 0), None);
    let mut compared = Compared { comparison, untold_ms: None };
    assert_eq!(compared.tell(reading(1, 1)).jump_ms, None);
    let seen = compared.take(reading(60_000, 2));
    assert_eq!((seen.state, seen.jump_ms), (ClockState::Untrusted, None));
    assert_eq!(compared.take(reading(90_000, 3)).jump_ms, None);
    assert_eq!(compared.tell(reading(90_001, 4)).jump_ms, Some(89_997));
    assert_eq!(compared.tell(reading(90_002, 5)).jump_ms, None);
}
