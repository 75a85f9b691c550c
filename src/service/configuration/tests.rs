use super::*;

const TOKEN: &str = r#"
[[token]]
name = "ledger"
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "smki-ledger"
serial = "0123456789abcdef"
"#;

fn whole(more: &str) -> String {
    format!("version = 1\n{more}\n{TOKEN}\n[ledger]\ntoken = \"ledger\"\n")
}

/// Refused with exactly this, line and all; `more` begins on line 2.
#[track_caller]
fn check_refused(text: &str, expected: &[&str]) {
    let faults = Configuration::parse(text).expect_err("it was accepted");
    let shown: Vec<String> = faults.iter().map(|f| format!("{}: {}: {}", f.line, f.name, f.text)).collect();
    assert_eq!(shown, expected, "of\n{text}");
}

#[test]
fn a_file_with_the_necessary_only_has_every_default() {
    let found = Configuration::parse(&whole("")).unwrap();
    assert_eq!(found.state, Path::new("/var/lib/smkid"));
    assert_eq!(found.socket, Path::new("/run/smkid/smkid.sock"));
    assert_eq!(found.roles, Roles { root_is_operator: true, ..Roles::default() });
    assert_eq!(found.signing_chunk, 256);
    assert_eq!(found.clock_offset_ms, 0);
    assert_eq!(found.tokens.len(), 1);
    assert_eq!((found.tokens[0].sessions, found.tokens[0].deadline_ms), (2, 10_000));
    assert_eq!(found.tokens[0].pin, None);
    let chunk = found.settings.iter().find(|setting| setting.name == "signing.chunk").unwrap();
    assert_eq!(chunk.to_string(), "signing.chunk = 256  # default");
    let label = found.settings.iter().find(|setting| setting.name == "token[0].label").unwrap();
    assert_eq!(label.to_string(), "token[0].label = \"smki-ledger\"  # line 7");
}

#[test]
fn every_setting_is_read() {
    let text = r#"
version = 1
state = "/srv/smkid"
socket = "/run/s.sock"
socket_group = "smki"
roles = { operator = ["smki-ops"], auditor = ["audit", "regulator"], root_is_operator = false }
[[token]]
name = "ledger"
module = "/m.so"
label = "l"
serial = "1"
sessions = 4
deadline_ms = 2_500
pin = { credential = "ledger-pin" }
environment = { SOFTHSM2_CONF = "/etc/softhsm2.conf" }
[[token]]
name = "recovery"
module = "/m.so"
label = "r"
serial = "2"
sessions = 1
deadline_ms = 100
pin = { file = "/pin" }
[ledger]
token = "ledger"
head_interval_s = 5
snapshot_entries = 512
[limits]
refusals_per_minute = 10
upload_quota_octets = 2097152
disk_budget_octets = 0x400000
reserve_octets = 8388608
[signing]
chunk = 500
[exercise]
clock_offset_ms = -86_400_000
"#;
    let found = Configuration::parse(text).unwrap();
    assert_eq!(found.socket_group.as_deref(), Some("smki"));
    assert_eq!(found.roles.auditor, ["audit", "regulator"]);
    assert!(!found.roles.root_is_operator);
    assert_eq!(found.tokens[0].pin, Some(Pin::Credential("ledger-pin".into())));
    assert_eq!(found.tokens[0].environment["SOFTHSM2_CONF"], "/etc/softhsm2.conf");
    assert_eq!((found.tokens[0].sessions, found.tokens[0].deadline_ms), (4, 2_500));
    assert_eq!(found.tokens[1].pin, Some(Pin::File("/pin".into())));
    assert_eq!((found.ledger.head_interval_s, found.ledger.snapshot_entries), (5, 512));
    assert_eq!(
        found.limits,
        Limits {
            refusals_per_minute: 10,
            upload_quota_octets: 2 << 20,
            disk_budget_octets: 4 << 20,
            reserve_octets: 8 << 20
        }
    );
    assert_eq!(found.signing_chunk, 500);
    assert_eq!(found.clock_offset_ms, -86_400_000);
    assert!(found.warnings().iter().any(|warning| warning.contains("set for an exercise")), "{:?}", found.warnings());
    assert!(found.settings.iter().all(|setting| setting.source != Source::Default), "{:?}", found.settings);
}

#[test]
fn an_offset_of_the_clock_has_a_sign_and_a_limit() {
    let offset = |text: &str| Configuration::parse(&whole(&format!("[exercise]\nclock_offset_ms = {text}")));
    for offset_ms in [-CLOCK_OFFSET_MS_MAX, -1, 0, 1, CLOCK_OFFSET_MS_MAX] {
        let found = offset(&offset_ms.to_string()).unwrap();
        assert_eq!(found.clock_offset_ms, offset_ms);
        let shown = found.settings.iter().find(|setting| setting.name == "exercise.clock_offset_ms").unwrap();
        assert_eq!(shown.to_string(), format!("exercise.clock_offset_ms = {offset_ms}  # line 3"));
    }
    for beyond in [-CLOCK_OFFSET_MS_MAX - 1, CLOCK_OFFSET_MS_MAX + 1] {
        let faults = offset(&beyond.to_string()).unwrap_err();
        assert!(faults[0].text.starts_with("expected an integer from -"), "{faults:?}");
    }
    assert!(Configuration::parse(&whole("[signing]\nchunk = -1")).is_err());
}

#[test]
fn a_deadline_is_short_enough_for_the_watchdog_and_that_of_the_ledger_token_for_two_calls() {
    let with = |ledger: u64, other: u64| {
        let more = format!(
            "[[token]]\nname = \"smki-a\"\nmodule = \"/m.so\"\nlabel = \"B\"\nserial = \"2\"\ndeadline_ms = {other}\n\
             pin.file = \"/pin\"\n"
        );
        let text =
            whole(&more).replacen("name = \"ledger\"\n", &format!("name = \"ledger\"\ndeadline_ms = {ledger}\n"), 1);
        Configuration::parse(&text)
    };
    let (ledger_max, max) = (LEDGER_DEADLINE_MS_MAX, DEADLINE_MS_MAX);
    let found = with(ledger_max, max);
    assert!(found.is_ok(), "{found:?}");
    for (ledger, other) in [(ledger_max + 1, max), (ledger_max, max + 1)] {
        let faults = with(ledger, other).unwrap_err();
        assert!(faults[0].text.contains("at most") || faults[0].text.contains("20000"), "{faults:?}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_what_is_known() {
    check_refused(
        &whole("stat = \"/srv\""),
        &[
            "2: stat: unknown; known here are exercise, ledger, limits, roles, signing, socket, socket_group, state, token, version",
        ],
    );
    check_refused(&whole("[signing]\nchunks = 7"), &["3: signing.chunks: unknown; known here are chunk"]);
}

#[test]
fn all_faults_are_told_at_once_by_line() {
    check_refused(
        &whole("state = \"here\"\nsocket = 7\n[signing]\nchunk = 0"),
        &[
            "2: state: expected a path from the root, found \"here\"",
            "3: socket: expected a path in quotation marks, found integer",
            "5: signing.chunk: expected an integer from 1 to 2000, found 0",
        ],
    );
}

#[test]
fn an_integer_is_within_its_range() {
    let check = |chunk: &str, is_accepted: bool| {
        let found = Configuration::parse(&whole(&format!("[signing]\nchunk = {chunk}")));
        assert_eq!(found.is_ok(), is_accepted, "{chunk}");
    };
    check("0", false);
    check("1", true);
    check("2_000", true);
    check("2_001", false);
    check("-1", false);
    check("1.0", false);
    check("99999999999999999999", false);
    // What changed since the last snapshot is in memory.
    for (entries, is_accepted) in
        [(63, false), (64, true), (SNAPSHOT_LEAVES_MAX, true), (SNAPSHOT_LEAVES_MAX + 1, false)]
    {
        let found = Configuration::parse(&format!("{}snapshot_entries = {entries}\n", whole("")));
        assert_eq!(found.is_ok(), is_accepted, "{entries}");
    }
}

#[test]
fn a_version_of_another_program_is_refused() {
    check_refused(&whole("").replace("version = 1", "version = 2"), &["1: version: expected 1, found 2"]);
    check_refused(&whole("").replace("version = 1", ""), &["1: version: expected 1, found nothing. Set it"]);
}

#[test]
fn a_text_that_is_not_toml_is_told_with_its_line() {
    let faults = Configuration::parse("version = 1\nstate = \n").unwrap_err();
    assert_eq!(faults[0].line, 2, "{faults:?}");
    let faults = Configuration::parse("version = 1\nversion = 1\n").unwrap_err();
    assert!(faults[0].line == 2 && faults[0].text.contains("duplicate"), "{faults:?}");
}

#[test]
fn the_ledger_token_is_one_that_is_described() {
    check_refused(
        &whole("").replace("token = \"ledger\"", "token = \"lager\""),
        &["11: ledger.token: expected the name of a [[token]], found \"lager\". Describe that token too"],
    );
    check_refused(
        "version = 1\n[ledger]\ntoken = \"ledger\"\n",
        &[
            "1: token: expected at least one [[token]], found none. Describe the token of the ledger's key",
            "3: ledger.token: expected the name of a [[token]], found \"ledger\". Describe that token too",
        ],
    );
}

#[test]
fn two_tokens_do_not_share_a_name() {
    let faults = Configuration::parse(&whole(TOKEN)).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].text.contains("two tokens by the name ledger"), "{faults:?}");
}

#[test]
fn one_token_does_not_stand_there_under_two_names() {
    let other = |label: &str, serial: &str| {
        let token = TOKEN.replace("name = \"ledger\"", "name = \"smki-a\"");
        let token = token.replace("smki-ledger", label).replace("0123456789abcdef", serial);
        Configuration::parse(&whole(&token))
    };
    let faults = other("smki-ledger", "0123456789abcdef").unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].text.contains("smki-a and ledger") && faults[0].text.contains("one token under two names"),
        "{faults:?}"
    );
    // Clones of a maker's may have one label, and two makers may count alike.
    for (label, serial) in [("smki-ledger", "0123456789abcdee"), ("smki-recovery", "0123456789abcdef")] {
        assert_eq!(other(label, serial).unwrap().tokens.len(), 2);
    }
}

#[test]
fn a_pin_is_somewhere_and_never_here() {
    let pin = |pin: &str| whole("").replace("serial =", &format!("pin = {pin}\nserial ="));
    let check = |text: &str, expected: &str| {
        check_refused(&pin(text), &[&format!("8: token[0].pin{expected}")]);
    };
    check("{ }", ".credential: expected either `credential` or `file`, found neither");
    check("{ credential = \"a\", file = \"/b\" }", ".credential: expected either `credential` or `file`, found both");
    check(
        "{ credential = \"../a\" }",
        ".credential: expected the name of a credential: letters, digits and . _ -, found another text",
    );
    check("{ file = \"pin\" }", ".file: expected a path from the root, found \"pin\"");
    let text = Configuration::parse(&pin("\"1234\"")).unwrap_err()[0].text.clone();
    assert!(!text.contains("1234"), "a PIN that was written here by mistake is not repeated: {text}");
}

#[test]
fn an_environment_has_texts_only() {
    let text = whole("").replace("serial =", "environment = { A = 1 }\nserial =");
    check_refused(&text, &["8: token[0].environment.A: expected a text in quotation marks, found integer"]);
}
