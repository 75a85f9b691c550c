use super::*;
use crate::domain::ledger::jobs::JobTally;
use crate::domain::time::Timestamp;

fn job(tally: JobTally, total: u64) -> Job {
    let at = Timestamp::from_unix_ms(1_500_000_000_000).unwrap();
    Job {
        request: RequestId([0x77; RequestId::LEN]),
        incident: "INC-1".parse().unwrap(),
        determination: DeterminationId([1; DeterminationId::LEN]),
        key: "recovery".parse().unwrap(),
        state: JobState::Ended,
        why: Vec::new(),
        until: None,
        started: wire::JobAct { account: "alice".into(), person: None, at, reason: None },
        stopped: None,
        ended: None,
        total,
        done: tally.done(),
        tally,
        rules: Vec::new(),
        refused: Vec::new(),
        per_hour: None,
        intents_left: 5,
        rate: None,
        rate_overall: None,
        eta_s: None,
        hsm_busy: None,
    }
}

#[test]
fn the_status_of_a_job_is_that_of_signing_what_it_was_for() {
    let none = JobTally::default();
    let check = |tally: JobTally, expected| assert_eq!(exit(&job(tally, tally.done())), expected, "{tally:?}");
    check(JobTally { signed: 3, ..none }, Exit::Done);
    check(JobTally { already: 3, ..none }, Exit::Done);
    check(JobTally { signed: 1, left: 1, ..none }, Exit::Done);
    check(JobTally { signed: 2, refused: 1, ..none }, Exit::Partly);
    check(JobTally { signed: 2, unknown: 1, ..none }, Exit::Partly);
    check(JobTally { signed: 2, not_signed: 1, ..none }, Exit::Partly);
    check(JobTally { refused: 2, ..none }, Exit::Refused);
    let why = vec![Reason { rule: "withdrawn".into(), text: "was withdrawn".into() }];
    let stopped = |tally| Job { why: why.clone(), ..job(tally, 9) };
    assert_eq!(exit(&stopped(none)), Exit::Refused);
    assert_eq!(exit(&stopped(JobTally { signed: 1, ..none })), Exit::Partly);
    let cancelled = |tally| Job { state: JobState::Cancelled, ..job(tally, 9) };
    assert_eq!(exit(&cancelled(none)), Exit::Refused);
    assert_eq!(exit(&cancelled(JobTally { signed: 1, ..none })), Exit::Partly);
}

#[test]
fn the_bar_fills_as_the_devices_are_done_and_never_wraps() {
    let half =
        Job { state: JobState::Running, ..job(JobTally { signed: 1_234_567, ..JobTally::default() }, 2_469_134) };
    assert_eq!(per_cent(&half), 50);
    let wide = bar(&half, 200);
    assert!(wide.starts_with(&format!("[{}{}] ", "#".repeat(20), ".".repeat(20))), "{wide}");
    assert!(wide.contains("1,234,567 of 2,469,134 Devices (50 %)"), "{wide}");
    for width in [60, 72, 80, 120] {
        assert!(bar(&half, width).chars().count() < width, "{width}");
    }
    assert_eq!(bar(&half, 20), line(&half), "too narrow for a bar");
    let nearly = job(JobTally { signed: 999, ..JobTally::default() }, 1_000);
    assert_eq!(per_cent(&nearly), 99, "100 per cent is all");
}

#[test]
fn spans_are_told_as_people_say_them() {
    assert_eq!(
        [59, 60, 3_599, 3_600, 7_260].map(span),
        ["59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "2 h 01 min"]
    );
    assert_eq!([0, 999, 1_000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
}

#[test]
fn a_list_is_brought_into_its_one_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list");
    std::fs::write(&path, "00DB1234567890A1\n00DB1234567890A0,esme,7\r\n").unwrap();
    let devices = input::device_lines(&path, u64::MAX).unwrap();
    assert_eq!(lines_of(&devices), b"00DB1234567890A0\n00DB1234567890A1\n");
}
