use super::*;
use crate::domain::policy::facts::{RECENT_MINUTES, Recent, count_recent};
use crate::domain::time::Window;

fn read(text: &str, piece: usize) -> Result<Vec<String>, ListFaults> {
    let (mut reader, mut devices) = (ListReader::default(), Vec::new());
    for octets in text.as_bytes().chunks(piece) {
        reader.feed(octets, |device| devices.push(device.to_string()));
    }
    assert_eq!(reader.finish()?, devices.len() as u64);
    Ok(devices)
}

#[test]
fn a_list_has_one_form_and_each_fault_is_told_by_its_line() {
    let good = "00DB1234567890A0\n00DB1234567890A1\n";
    for piece in [1, 7, 17, 100] {
        assert_eq!(read(good, piece).unwrap(), ["00DB1234567890A0", "00DB1234567890A1"]);
    }
    assert_eq!(read("", 1).unwrap(), [""; 0]);
    for (text, lines) in [
        ("00DB1234567890A1\n00DB1234567890A0\n", vec![2]),
        ("00DB1234567890A0\n00DB1234567890A0\n", vec![2]),
        ("00db1234567890a0\n", vec![1]),
        ("00DB1234567890A0\r\n00DB1234567890A1\r\n", vec![1, 2]),
        ("00DB1234567890A0,esme\n00DB1234567890A1\n00DB1234567890A1,esme,9\n", vec![1, 3]),
        ("00DB1234567890A0\n00DB1234567890A1", vec![2]),
        ("00DB1234567890A0\n\n00DB1234567890A1\n00DB1234567890A0\n00DB1234567890A2\n00", vec![2, 4, 6]),
    ] {
        for piece in [1, 5, 100] {
            let faults = read(text, piece).unwrap_err().faults;
            assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), lines, "{text:?}");
        }
    }
    let twice = read("00DB1234567890A0\n00DB1234567890A0\n", 9).unwrap_err().to_string();
    assert_eq!(twice, "line 2: Device 00DB1234567890A0 stands in line 1 already");
}

#[test]
fn of_the_faults_of_a_list_the_first_are_told_and_the_others_counted() {
    let faults = |count: usize| read(&"00\n".repeat(count), 64).unwrap_err();
    let (all, more) = (faults(FAULTS_MAX), faults(FAULTS_MAX + 1));
    assert_eq!((all.faults.len(), all.more), (FAULTS_MAX, 0));
    assert_eq!((more.faults.len(), more.more), (FAULTS_MAX, 1));
    assert!(more.to_string().ends_with("; and 1 more") && !all.to_string().contains("more"), "{more}");
}

#[test]
fn an_hour_frees_by_whole_minutes_and_never_early() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut recent = Recent::new();
    assert_eq!(frees_at(&recent, at("2026-11-24T10:00:00Z")), None);
    for moment in ["2026-11-24T10:00:59.999Z", "2026-11-24T10:01:00Z", "2026-11-24T10:01:30Z"] {
        count_recent(&mut recent, at(moment));
    }
    let frees = at("2026-11-24T11:01:00Z");
    assert_eq!(RECENT_MINUTES, 61);
    for moment in ["2026-11-24T10:30:00Z", "2026-11-24T11:00:59.999Z"] {
        assert_eq!((last_hour(&recent, at(moment)), frees_at(&recent, at(moment))), (3, Some(frees)), "{moment}");
    }
    assert_eq!((last_hour(&recent, frees), frees_at(&recent, frees)), (2, Some(at("2026-11-24T11:02:00Z"))));
    assert_eq!(last_hour(&recent, at("2026-11-24T11:02:00Z")), 0);
}

#[test]
fn what_passes_is_waited_for_and_what_does_not_ends_a_job() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let (from, until) = (at("2026-11-24T10:00:00Z"), at("2026-11-25T10:00:00Z"));
    let id = crate::domain::names::DeterminationId([1; 16]);
    let window = |now| Refusal::Window { id, window: Window { from, until }, now };
    let before = from.plus_ms(-1);
    assert!(!ends_job(&window(before), before), "it has not begun");
    assert!(ends_job(&window(until), until), "it is over");
    let suspended = Refusal::Suspended { id, until };
    for (refusal, expected) in [
        (Refusal::Withdrawn { id }, true),
        (Refusal::Superseded { id, by: id }, true),
        (Refusal::IntentsSpent { limit: 1, used: 1 }, true),
        (suspended, false),
        (Refusal::KeyLocked { key: "recovery".parse().unwrap() }, false),
        (Refusal::Clock, false),
        (Refusal::Rate { limit: 1, used: 1 }, false),
    ] {
        assert_eq!(ends_job(&refusal, from), expected, "{refusal}");
    }
}
