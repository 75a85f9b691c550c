use super::*;

#[test]
fn rows_are_aligned_and_coloured_only_where_colour_is_wanted() {
    let mut text = Text::default();
    text.row("State", "ready").toned("Ledger size", 7, Tone::Good).line("Nothing else.").some("None", None::<u8>);
    assert_eq!(text.render(false), "State        ready\nLedger size  7\nNothing else.\n");
    assert_eq!(text.render(true), "State        ready\nLedger size  \x1b[32m7\x1b[0m\nNothing else.\n");
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(clean(text), expected);
}

#[test]
fn texts_of_others_cannot_steer_the_terminal() {
    check("plain, with a\nline feed and é", "plain, with a\nline feed and é");
    check("\x1b[2Jgone", "\\u{1b}[2Jgone");
    check("over\rwritten", "over\\rwritten");
    check("\u{9b}31m", "\\u{9b}31m");
}
