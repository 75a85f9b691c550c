use std::time::Duration;

use super::*;

#[test]
fn a_clock_out_of_range_stands_at_the_nearest_moment_that_has_a_text() {
    let check = |moment: SystemTime, expected: Timestamp| assert_eq!(at(moment), expected);
    check(UNIX_EPOCH - Duration::from_millis(1), Timestamp::MIN);
    check(UNIX_EPOCH, Timestamp::MIN);
    check(UNIX_EPOCH + Duration::from_millis(1), Timestamp::MIN.plus_ms(1));
    let last = Duration::from_millis(u64::try_from(Timestamp::MAX.unix_ms()).unwrap());
    check(UNIX_EPOCH + last - Duration::from_millis(1), Timestamp::MAX.plus_ms(-1));
    check(UNIX_EPOCH + last, Timestamp::MAX);
    check(UNIX_EPOCH + last + Duration::from_millis(1), Timestamp::MAX);
}
