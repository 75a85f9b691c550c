use super::*;

#[track_caller]
fn check(signed: u64, refused: u64, others: u64, left: u64, expected: Exit) {
    for (failed, not_signed, unknown) in [(others, 0, 0), (0, others, 0), (0, 0, others)] {
        let summary = Summary { intents: signed, signed, withheld: 0, refused, failed, not_signed, unknown, left };
        assert_eq!(exit(&summary, false), expected, "{summary:?}");
    }
}

#[test]
fn the_status_says_whether_all_some_or_nothing_was_done() {
    check(0, 0, 0, 0, Exit::Done);
    check(3, 0, 0, 0, Exit::Done);
    check(0, 0, 0, 2, Exit::Done);
    check(3, 1, 0, 0, Exit::Partly);
    check(3, 0, 1, 0, Exit::Partly);
    check(0, 0, 1, 0, Exit::Partly);
    check(0, 1, 1, 0, Exit::Partly);
    check(0, 1, 0, 1, Exit::Partly);
    check(0, 1, 0, 0, Exit::Refused);
}

#[test]
fn what_was_stopped_is_refused_if_nothing_was_signed_and_partly_done_else() {
    let check = |summary: Summary, expected| assert_eq!(exit(&summary, true), expected, "{summary:?}");
    check(Summary::default(), Exit::Refused);
    check(Summary { not_signed: 2, refused: 1, withheld: 1, ..Summary::default() }, Exit::Refused);
    check(Summary { signed: 1, ..Summary::default() }, Exit::Partly);
    check(Summary { left: 1, ..Summary::default() }, Exit::Partly);
}

#[test]
fn a_command_that_is_not_signed_is_told_with_every_reason() {
    let reason = |rule: &str, text: &str| crate::domain::ledger::entry::Reason { rule: rule.into(), text: text.into() };
    let item = Item {
        device: "00DB1234567890A0".parse().unwrap(),
        template: None,
        counter: None,
        outcome: ItemOutcome::Refused,
        command: None,
        intent: None,
        reasons: vec![reason("window", "it is over"), reason("scope", "not on the list")],
    };
    assert_eq!(told(&item), "00DB1234567890A0 refused\n    it is over (window)\n    not on the list (scope)");
}

#[test]
fn a_file_each_is_for_few_devices_unless_somebody_says_so() {
    assert!(few_enough(EACH_MAX).is_ok());
    let refused = few_enough(EACH_MAX + 1).unwrap_err().to_string();
    assert!(refused.contains("100001 Devices") && refused.contains("--format"), "{refused}");
}
