use super::*;

#[test]
fn the_reminder_comes_so_many_calendar_months_later() {
    for (last, months, due) in [
        ("2026-01-15T10:00:00Z", 12, "2027-01-15T10:00:00Z"),
        ("2026-01-31T10:00:00Z", 1, "2026-02-28T10:00:00Z"),
        ("2028-01-31T10:00:00.250Z", 1, "2028-02-29T10:00:00.250Z"),
        ("2028-02-29T00:00:00Z", 12, "2029-02-28T00:00:00Z"),
        ("2026-12-31T23:59:59Z", 2, "2027-02-28T23:59:59Z"),
        ("9999-06-01T00:00:00Z", 12, "9999-12-31T23:59:59.999Z"),
    ] {
        let reminders = Reminders { ceremony_or_exercise_months: months, is_set: true };
        let (last, due): (Timestamp, Timestamp) = (last.parse().unwrap(), due.parse().unwrap());
        assert_eq!(reminders.due(last), due, "{last} and {months} months");
        assert_eq!(reminders.overdue(last, due.plus_ms(-1)), None);
        assert_eq!(reminders.overdue(last, due), Some(due));
    }
}
