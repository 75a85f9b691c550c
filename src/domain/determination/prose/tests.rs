use super::*;

#[test]
fn what_a_terminal_would_hide_or_turn_round_is_refused() {
    let at = |text: &str| match text.parse::<Prose>() {
        Ok(_) => None,
        Err(ProseError::Character { at, .. }) => Some(at),
        Err(ProseError::Length { .. }) => panic!("length is right"),
    };
    assert_eq!(at("Zoë said:\nno."), None);
    assert_eq!(at("ab\u{1b}[2J"), Some(2));
    assert_eq!(at("ab\rcd"), Some(2));
    assert_eq!(at("\u{202e}evil"), Some(0));
    assert_eq!(at("a\u{200b}b"), Some(1));
}

#[test]
fn a_text_has_1_to_4000_octets() {
    assert!("".parse::<Prose>().is_err());
    assert!("a".repeat(Prose::LEN_MAX).parse::<Prose>().is_ok());
    assert!("a".repeat(Prose::LEN_MAX + 1).parse::<Prose>().is_err());
}
