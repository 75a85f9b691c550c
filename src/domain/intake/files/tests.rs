use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn an_exercise_took_place_and_is_said_in_words() {
    let report = Digest::of(b"summary");
    let now = at("2026-11-24T10:00:00Z");
    let rules = |of: &str, note: &str| -> Vec<String> {
        let refused = exercise(at(of), report, note, now).err().unwrap_or_default();
        refused.iter().map(|reason| reason.rule.to_string()).collect()
    };
    assert!(rules("2026-11-24T10:00:00Z", "x").is_empty());
    assert_eq!(rules("2026-11-24T10:00:00.001Z", "x"), ["exercise-time"]);
    assert_eq!(rules("2026-11-24T10:00:00Z", " "), ["note"]);
    assert!(rules("2026-11-24T10:00:00Z", &"x".repeat(NOTE_LEN_MAX)).is_empty());
    assert_eq!(rules("2026-11-25T10:00:00Z", &"x".repeat(NOTE_LEN_MAX + 1)), ["exercise-time", "note"]);
}
