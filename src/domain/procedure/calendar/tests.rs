use super::*;

fn date(text: &str) -> CivilDate {
    text.parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn a_day_begins_at_midnight_by_the_clocks_of_london() {
    for (day, begins) in [
        // Summer, and the two days of the direction of 18 July 2017.
        ("2017-07-21", "2017-07-20T23:00:00Z"),
        ("2017-11-02", "2017-11-02T00:00:00Z"),
        ("2017-11-03", "2017-11-03T00:00:00Z"),
        // The clocks go forward on 26 March and back on 29 October 2017, at 01:00 UTC: the day itself begins as the one before.
        ("2017-03-26", "2017-03-26T00:00:00Z"),
        ("2017-03-27", "2017-03-26T23:00:00Z"),
        ("2017-10-29", "2017-10-28T23:00:00Z"),
        ("2017-10-30", "2017-10-30T00:00:00Z"),
        // A last Sunday that is the 31st, and one that is the 25th.
        ("2024-03-31", "2024-03-31T00:00:00Z"),
        ("2024-04-01", "2024-03-31T23:00:00Z"),
        ("2020-10-25", "2020-10-24T23:00:00Z"),
        ("2020-10-26", "2020-10-26T00:00:00Z"),
        ("1996-01-01", "1996-01-01T00:00:00Z"),
        ("9998-12-31", "9998-12-31T00:00:00Z"),
    ] {
        let (day, begins) = (date(day), at(begins));
        assert_eq!(day.begins(), begins, "{day}");
        assert_eq!(CivilDate::of(begins), Ok(day));
        if day != date("1996-01-01") {
            assert_ne!(CivilDate::of(begins.plus_ms(-1)), Ok(day), "{day}");
        }
        assert_eq!(CivilDate::of(day.next_day_begins().plus_ms(-1)), Ok(day));
        assert_ne!(CivilDate::of(day.next_day_begins()), Ok(day));
    }
}

#[test]
fn a_day_has_twenty_four_hours_but_for_the_two_on_which_the_clocks_change() {
    let mut day = date("2017-01-01");
    let mut lengths = std::collections::BTreeMap::<i64, u32>::new();
    while day < date("2018-01-01") {
        let hours = (day.next_day_begins().unix_ms() - day.begins().unix_ms()) / 3_600_000;
        *lengths.entry(hours).or_default() += 1;
        day = CivilDate::of(day.next_day_begins()).unwrap();
    }
    assert_eq!(lengths, [(23, 1), (24, 363), (25, 1)].into());
}

#[test]
fn an_end_day_is_over_at_its_beginning_or_at_its_end_as_it_is_treated() {
    let day = date("2017-11-02");
    assert_eq!(EndDay::Excluded.end_of(day), at("2017-11-02T00:00:00Z"));
    assert_eq!(EndDay::Included.end_of(day), at("2017-11-03T00:00:00Z"));
}

#[test]
fn what_is_no_date_is_refused_with_what_was_expected() {
    for wrong in [
        "",
        "2017-7-21",
        "21-07-2017",
        "2017-02-29",
        "2017-11-31",
        "1995-12-31",
        "9999-01-01",
        "+2017-07-2",
        "2017-07-21T00:00:00Z",
        " 2017-07-21",
    ] {
        let error = wrong.parse::<CivilDate>().unwrap_err().to_string();
        assert!(error.contains("such as 2017-07-21, from 1996 to 9998") && error.contains(wrong), "{error}");
    }
    assert_eq!(date("2016-02-29").to_string(), "2016-02-29");
    assert_eq!(serde_json::to_string(&date("2017-07-21")).unwrap(), "\"2017-07-21\"");
    assert!(CivilDate::of(at("1995-12-31T23:59:59.999Z")).is_err());
    assert!(CivilDate::of(at("9999-01-01T00:00:00Z")).is_err());
}
