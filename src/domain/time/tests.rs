use super::*;

#[test]
fn a_moment_reads_as_it_is_written() {
    let at: Timestamp = "2017-07-21T00:00:00Z".parse().unwrap();
    assert_eq!(at.to_string(), "2017-07-21T00:00:00.000Z");
    assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
    assert_eq!("2017-07-21T01:00:00+01:00".parse::<Timestamp>().unwrap(), at);
}

#[test]
fn what_is_not_a_moment_is_refused() {
    for text in ["", "2017-07-21", "21 July 2017", "2017-02-30T00:00:00Z", "1969-12-31T23:59:59Z"] {
        assert!(text.parse::<Timestamp>().is_err(), "{text}");
    }
    assert!(Timestamp::from_unix_ms(-1).is_err());
    assert!(Timestamp::from_unix_ms(Timestamp::MAX.unix_ms() + 1).is_err());
}

#[test]
fn a_window_holds_its_first_moment_and_not_its_last() {
    let window = Window { from: Timestamp::from_unix_ms(1000).unwrap(), until: Timestamp::from_unix_ms(2000).unwrap() };
    assert!(!window.contains(Timestamp::from_unix_ms(999).unwrap()));
    assert!(window.contains(Timestamp::from_unix_ms(1000).unwrap()));
    assert!(window.contains(Timestamp::from_unix_ms(1999).unwrap()));
    assert!(!window.contains(Timestamp::from_unix_ms(2000).unwrap()));
}

#[test]
fn generalized_time_is_read_with_seconds_and_z_only() {
    assert_eq!(from_generalized("20300115000000Z").unwrap().to_string(), "2030-01-15T00:00:00.000Z");
    assert_eq!(from_generalized("99991231235959Z").unwrap().to_string(), "9999-12-31T23:59:59.000Z");
    for text in ["203001150000Z", "20300115000000", "20301315000000Z", "20300115000000+0000"] {
        assert!(from_generalized(text).is_err(), "{text}");
    }
}
