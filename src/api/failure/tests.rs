use super::*;

#[track_caller]
fn check(kind: ProblemKind, http_status: u16, exit: u8) {
    assert_eq!((kind.http_status(), kind.exit().status()), (http_status, exit), "{kind:?}");
}

#[test]
fn each_kind_of_failure_has_one_http_status_and_one_exit_status() {
    check(ProblemKind::Malformed, 400, 1);
    check(ProblemKind::Forbidden, 403, 4);
    check(ProblemKind::NotFound, 404, 1);
    check(ProblemKind::MethodNotAllowed, 405, 1);
    check(ProblemKind::TooSlow, 408, 1);
    check(ProblemKind::Refused, 409, 4);
    check(ProblemKind::TooLarge, 413, 1);
    check(ProblemKind::TooMany, 429, 4);
    check(ProblemKind::Internal, 500, 1);
    check(ProblemKind::Unavailable, 503, 3);
    check(ProblemKind::Stopped, 503, 3);
}

#[test]
fn a_problem_names_every_reason_and_the_entry() {
    let reason = |rule: &str| Reason { rule: rule.into(), text: "why".into() };
    let problem = Failure::Refused { reasons: vec![reason("window"), reason("scope")], entry: Some(7) }.problem();
    assert_eq!(
        serde_json::to_string(&problem).unwrap(),
        r#"{"error":"refused","message":"refused: why (window); why (scope)","reasons":[{"rule":"window","text":"why"},{"rule":"scope","text":"why"}],"entry":7}"#
    );
}

#[test]
fn an_error_repeats_only_the_beginning_of_what_was_found() {
    let found = "x".repeat(1_000_000);
    let text = Failure::malformed("body", "JSON", &found, "Send JSON.").to_string();
    assert!(text.len() < 2 * Failure::FOUND_LEN_MAX, "{} octets", text.len());
}
