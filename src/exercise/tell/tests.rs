use super::*;

fn told(tell: impl FnOnce(&mut Teller<'_>)) -> String {
    let mut out = Vec::new();
    tell(&mut Teller::plain(&mut out));
    String::from_utf8(out).unwrap()
}

#[test]
fn steps_are_numbered_and_reasons_stand_below_what_was_refused() {
    let text = told(|teller| {
        teller.step("Begin");
        teller.good("All is well.");
        teller.step("Refuse");
        teller.refused("One approver too few", &["quorum: expected 3, found 2"]);
    });
    assert_eq!(
        text,
        "\n 1. Begin\n    ok      All is well.\n\n 2. Refuse\n    refused One approver too few\n            · quorum: expected 3, found 2\n"
    );
}

#[test]
fn plain_text_has_no_escape_codes_and_no_progress_line() {
    let text = told(|teller| {
        teller.begin("commands signed", 10);
        teller.advance(5);
        teller.bad("A signature too many.");
        teller.end(10);
    });
    assert!(!text.contains('\x1b') && !text.contains('\r'), "{text:?}");
    assert!(text.contains("WRONG") && text.contains("10 commands signed in"), "{text}");
}

#[test]
fn long_prose_is_broken_at_spaces_and_nothing_is_lost() {
    let words = "one two three ".repeat(30) + &"f".repeat(200);
    let lines = wrap(words.trim(), 40);
    assert!(lines.iter().rev().skip(1).all(|line| line.len() <= 40));
    assert_eq!(lines.join(" "), words.trim());
}

#[test]
fn numbers_and_times_are_for_people() {
    let check = |value, expected: &str| assert_eq!(number(value), expected);
    check(0, "0");
    check(999, "999");
    check(1_000, "1,000");
    check(12_345_678, "12,345,678");
    assert_eq!(seconds(Duration::from_millis(1_250)), "1.25 s");
    assert_eq!(seconds(Duration::from_secs(192)), "3 min 12 s");
    assert_eq!(rate(10_000, Duration::from_millis(500)), 20_000);
    assert_eq!(bar(5, 10).chars().filter(|cell| *cell == '█').count(), 12);
    assert_eq!(bar(3, 0).chars().filter(|cell| *cell == '█').count(), 24);
}
