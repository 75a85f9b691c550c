use super::*;

#[track_caller]
fn check_devices(text: &str, expected: &str) {
    let found = match serde_json::from_str::<Devices>(text) {
        Ok(Devices::All) => "all".to_owned(),
        Ok(Devices::Listed(devices)) => format!("{} listed", devices.len()),
        Err(error) => error.to_string(),
    };
    assert!(found.contains(expected), "{text}: {found}");
}

#[test]
fn devices_are_all_or_a_list_with_at_least_one() {
    check_devices(r#""all""#, "all");
    check_devices(r#"[{"device":"00DB1234567890A0"}]"#, "1 listed");
    check_devices(r#"[{"device":"00DB1234567890A0"},{"device":"00DB1234567890A1"}]"#, "2 listed");
    check_devices("[]", "the list of devices is empty");
    check_devices(r#""some""#, r#"expected "all" or a list"#);
    check_devices("{}", r#"expected "all" or a list"#);
    check_devices(r#"[{"device":"00db1234567890a0"}]"#, "16 upper-case");
    check_devices(r#"[{"device":"00DB1234567890A0","count":7}]"#, "unknown field `count`");
}

#[track_caller]
fn check_scope(devices: Option<Devices>, pre_commands: Option<Vec<Base64>>, one: bool) {
    let sign =
        RecoverySign { request: RequestId([1; 16]), determination: DeterminationId([2; 16]), devices, pre_commands };
    assert_eq!(sign.has_one_scope(), one);
    assert_eq!(sign.into_scope().is_some(), one);
}

#[test]
fn a_request_to_sign_has_devices_or_pre_commands_and_not_both() {
    check_scope(Some(Devices::All), None, true);
    check_scope(None, Some(vec![Base64(vec![1])]), true);
    check_scope(None, None, false);
    check_scope(Some(Devices::All), Some(vec![]), false);
}

#[test]
fn a_line_is_read_as_it_was_written() {
    let item = Item {
        device: "00DB1234567890A0".parse().unwrap(),
        template: Some("esme".parse().unwrap()),
        counter: Some(7),
        outcome: ItemOutcome::Signed,
        command: Some(Base64(vec![0xdf, 9])),
        intent: Some(41),
        reasons: vec![],
    };
    let summary = Summary { intents: 1, signed: 1, ..Summary::default() };
    let mut lines = Vec::new();
    item.append_line(&mut lines);
    SummaryLine { summary }.append_line(&mut lines);
    assert_eq!(
        String::from_utf8(lines.clone()).unwrap(),
        "{\"device\":\"00DB1234567890A0\",\"template\":\"esme\",\"counter\":7,\"outcome\":\"signed\",\"command\":\"3wk=\",\
         \"intent\":41}\n{\"summary\":{\"intents\":1,\"signed\":1,\"withheld\":0,\"failed\":0,\"not_signed\":0,\"unknown\":0,\"refused\":0,\
         \"left\":0}}\n"
    );
    let read: Vec<Line> = lines.split_inclusive(|b| *b == b'\n').map(|line| Line::parse(line).unwrap()).collect();
    assert_eq!(read, [Line::Item(Box::new(item)), Line::Summary(summary)]);
}

#[test]
fn a_summary_counts_each_outcome_once() {
    let mut summary = Summary::default();
    for outcome in [
        ItemOutcome::Signed,
        ItemOutcome::Failed,
        ItemOutcome::NotSigned,
        ItemOutcome::Unknown,
        ItemOutcome::Refused,
        ItemOutcome::Left,
    ] {
        summary.count(outcome);
    }
    let expected =
        Summary { intents: 0, signed: 1, withheld: 0, failed: 1, not_signed: 1, unknown: 1, refused: 1, left: 1 };
    assert_eq!((summary, summary.others()), (expected, 5));
}
