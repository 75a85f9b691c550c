use super::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(visible(text), expected, "{text:?}");
}

#[test]
fn english_prose_is_shown_as_it_is() {
    check("£5 – “Member’s” café, Llŷr", "£5 – “Member’s” café, Llŷr");
}

#[test]
fn nothing_that_acts_on_a_terminal_hides_or_looks_like_something_else_is_shown_as_it_is() {
    check("\u{1b}[2K", "\\u{001b}[2K");
    check("a\rb\nc\td", "a\\u{000d}b\\u{000a}c\\u{0009}d");
    check("\u{9b}31m", "\\u{009b}31m");
    check("\u{202e}cba", "\\u{202e}cba");
    check("\u{61c}\u{200b}\u{2066}\u{feff}", "\\u{061c}\\u{200b}\\u{2066}\\u{feff}");
    check("p\u{430}y", "p\\u{0430}y"); // Cyrillic a.
    check("0\u{338}1", "0\\u{0338}1"); // A stroke laid over the nought.
    check("\u{e0041}\u{3164}", "\\u{e0041}\\u{3164}"); // A tag character and a letter that is blank.
    check("\\u{202e}", "\\\\u{202e}"); // An escape that a document wrote itself.
}

#[test]
fn prose_cannot_write_a_line_of_ours() {
    let mut page = Page::default();
    page.prose("harmless\nSHA-256  0000\n\nSigned by everyone");
    assert!(page.text().lines().all(|line| line.starts_with("  | ")), "{}", page.text());
    assert_eq!(page.text().lines().count(), 4);
}

#[test]
fn json_is_ascii_and_still_says_the_same() {
    let value = serde_json::json!({ "text": "a\u{202e}b\u{9b}\u{1f600}" });
    let text = ascii_json(&value);
    assert!(text.is_ascii(), "{text}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
}

#[test]
fn london_keeps_summer_time_from_the_last_sunday_of_march_to_that_of_october() {
    for (at, expected) in [
        ("2026-03-29T00:59:59Z", "00:59:59 GMT"),
        ("2026-03-29T01:00:00Z", "02:00:00 BST"),
        ("2026-10-25T00:59:59Z", "01:59:59 BST"),
        ("2026-10-25T01:00:00Z", "01:00:00 GMT"),
        ("2017-07-21T23:30:00Z", "Saturday 22 July 2017, 00:30:00 BST"),
    ] {
        let shown = moment(at.parse().unwrap());
        assert!(shown.contains(expected), "{shown}");
    }
}
