//! The real `smkictl` binary against a daemon's socket: what it sends, what it prints, and with which status it ends.

use std::path::Path;
use std::process::Command;

use smkid::api::failure::Failure;
use smkid::api::wire::{Base64, ItemOutcome};
use smkid::domain::ledger::entry::Role;

use crate::support::fake_engine::{Daemon, FakeEngine, StreamEnd, command, device, reason};

const ID: &str = "07070707070707070707070707070707";

struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(socket: Option<&Path>, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
    command.env_clear().args(arguments);
    if let Some(socket) = socket {
        command.env("SMKID_SOCKET", socket);
    }
    let output = command.output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Ran { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Daemon {
    #[track_caller]
    fn ctl(&self, status: i32, arguments: &[&str]) -> Ran {
        let ran = run(Some(&self.socket()), arguments);
        assert_eq!(ran.status, Some(status), "{arguments:?}\n{}\n{}", ran.stdout, ran.stderr);
        ran
    }

    fn about(&self) -> String {
        self.engine.calls.lock().unwrap().last().unwrap().about.clone()
    }
}

fn operator() -> Daemon {
    Daemon::start(FakeEngine::new(), Role::Operator)
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn answers_go_to_stdout_as_text_or_as_json() {
    let daemon = operator();
    let text = daemon.ctl(0, &["status"]);
    assert!(text.stdout.contains("state") && text.stdout.contains("ready"), "{}", text.stdout);
    assert!(text.stderr.is_empty() && !text.stdout.contains('\x1b'), "{}", text.stdout);
    let json = daemon.ctl(0, &["status", "--output", "json"]);
    let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(value["state"], "ready");
}

#[test]
fn the_socket_is_the_options_and_else_the_environments() {
    let daemon = operator();
    let socket = daemon.socket();
    assert_eq!(run(Some(Path::new("/nowhere")), &["status", "--socket", text_of(&socket)]).status, Some(0));
    assert_eq!(run(None, &["--socket", text_of(&socket), "status"]).status, Some(0));
    let absent = run(Some(Path::new("/nowhere/s")), &["status"]);
    assert_eq!(absent.status, Some(3));
    assert!(absent.stderr.contains("/nowhere/s") && absent.stdout.is_empty(), "{}", absent.stderr);
}

#[test]
fn each_failure_has_its_exit_status() {
    let check = |failure: Failure, status: i32| {
        let text = failure.to_string();
        let ran = Daemon::start(FakeEngine::new().failing("status", failure), Role::Operator).ctl(status, &["status"]);
        assert!(ran.stderr.contains(&text) && ran.stdout.is_empty(), "{}", ran.stderr);
    };
    check(Failure::NotFound { what: "that".to_owned() }, 1);
    check(Failure::Unavailable { why: "locked".to_owned(), remedy: "Unlock it".to_owned() }, 3);
    check(Failure::Stopped { why: "full".to_owned() }, 3);
    check(Failure::Refused { reasons: vec![reason("a", "one")], entry: None }, 4);
    let several = Failure::Refused { reasons: vec![reason("a", "one"), reason("b", "two")], entry: None };
    let ran = Daemon::start(FakeEngine::new().failing("status", several), Role::Operator).ctl(4, &["status"]);
    assert_eq!(ran.stderr, "smkictl: refused, for 2 reasons:\n  one (a)\n  two (b)\n");
    check(Failure::TooMany { what: "many".to_owned(), retry_after_s: 3 }, 4);
    check(Failure::Internal { what: "bug".to_owned() }, 1);
    let auditor = Daemon::start(FakeEngine::new(), Role::Auditor);
    let ran = auditor.ctl(4, &["key", "activate", "recovery", "--incident", "INC-1"]);
    assert!(ran.stderr.contains("needs the role operator; your account has the role auditor"), "{}", ran.stderr);
    let json = auditor.ctl(4, &["key", "activate", "recovery", "--incident", "INC-1", "--output", "json"]);
    assert!(json.stdout.starts_with("{\"error\":\"forbidden\""), "{}", json.stdout);
}

#[test]
fn what_is_no_command_is_a_matter_of_usage() {
    let check = |arguments: &[&str]| {
        let ran = run(None, arguments);
        assert_eq!((ran.status, &*ran.stdout), (Some(2), ""), "{arguments:?}");
    };
    check(&["no-such"]);
    check(&["incident", "open", "lower-case", "--certificate", "f", "--description", "d"]);
    check(&["recovery", "sign", "--determination", ID, "--out", "-"]);
    check(&["recovery", "sign", "--determination", ID, "--devices", "all"]);
    check(&["recovery", "sign", "--determination", ID, "--devices", "all", "--pre-commands", "d", "--out", "-"]);
    check(&["recovery", "sign", "--determination", "07", "--devices", "all", "--out", "-"]);
    check(&["ledger", "show", "-1"]);
}

#[test]
fn commands_are_put_into_files_by_device() {
    let daemon = operator();
    let out = daemon.path("commands");
    let sign = ["recovery", "sign", "--determination", ID, "--devices", "all", "--out", text_of(&out)];
    let ran = daemon.ctl(0, &sign);
    assert!(ran.stdout.contains("signed  3"), "{}", ran.stdout);
    let mut names: Vec<String> =
        std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["00DB123400000000.bin", "00DB123400000001.bin", "00DB123400000002.bin"]);
    assert_eq!(std::fs::read(out.join(&names[0])).unwrap(), command(device(0), 100));

    // The id that was chosen was printed, and can be given again; the same commands once more are no conflict.
    let request = ran.stderr.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(daemon.about(), request);
    daemon.ctl(0, &[&sign[..], &["--request", &request]].concat());
    assert_eq!(daemon.about(), request);

    // Other commands are, and nothing is overwritten.
    daemon.engine.signing.lock().unwrap().command_len = 101;
    let ran = daemon.ctl(1, &sign);
    assert!(ran.stderr.contains("is not overwritten"), "{}", ran.stderr);
    assert_eq!(std::fs::read(out.join(&names[0])).unwrap(), command(device(0), 100));
}

#[test]
fn commands_are_lines_of_json_on_stdout_if_wanted() {
    let daemon = operator();
    let ran = daemon.ctl(0, &["recovery", "sign", "--determination", ID, "--devices", "all", "--out", "-"]);
    let lines: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["device"], "00DB123400000000");
    assert_eq!(lines[0]["command"], serde_json::to_value(Base64(command(device(0), 100))).unwrap());
    assert_eq!(lines[3]["summary"]["signed"], 3);
}

#[test]
fn partly_done_has_a_status_of_its_own_and_tells_the_reasons() {
    let check = |outcomes: fn(u64) -> ItemOutcome, status: i32, told: &str| {
        let daemon = Daemon::start(FakeEngine::new().signing(|signing| signing.outcomes = outcomes), Role::Operator);
        let out = daemon.path("commands");
        let sign = ["recovery", "sign", "--determination", ID, "--devices", "all", "--out", text_of(&out)];
        let ran = daemon.ctl(status, &sign);
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
    };
    let told = "00DB123400000001 refused\n    because (rule)";
    check(|at| if at == 1 { ItemOutcome::Refused } else { ItemOutcome::Signed }, 6, told);
    check(|at| if at == 1 { ItemOutcome::Unknown } else { ItemOutcome::Signed }, 6, "00DB123400000001 unknown");
    check(|_| ItemOutcome::Failed, 6, "00DB123400000002 failed");
    check(|_| ItemOutcome::Refused, 4, told);
}

#[test]
fn an_answer_that_is_cut_is_partly_done_and_what_came_is_kept() {
    let daemon = Daemon::start(FakeEngine::new().signing(|signing| signing.end = StreamEnd::Failing), Role::Operator);
    let out = daemon.path("commands");
    let ran = daemon.ctl(6, &["recovery", "sign", "--determination", ID, "--devices", "all", "--out", text_of(&out)]);
    assert!(ran.stderr.contains("cut after 3 lines") && ran.stdout.is_empty(), "{}{}", ran.stderr, ran.stdout);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3);
}

#[test]
fn an_answer_that_was_stopped_says_why_and_ends_by_what_was_signed() {
    let check = |outcomes: fn(u64) -> ItemOutcome, status: i32| {
        let engine = FakeEngine::new().signing(|signing| {
            (signing.end, signing.outcomes) = (StreamEnd::Stopped, outcomes);
        });
        let daemon = Daemon::start(engine, Role::Operator);
        let out = daemon.path("commands");
        let sign = ["recovery", "sign", "--determination", ID, "--devices", "all", "--out"];
        let ran = daemon.ctl(status, &[&sign[..], &[text_of(&out)]].concat());
        assert!(ran.stderr.contains("stopped before its end") && !ran.stderr.contains("cut"), "{}", ran.stderr);
        assert!(ran.stderr.contains("\n    the PMA withdrew it (withdrawn)"), "{}", ran.stderr);
        assert!(ran.stdout.contains("signed"), "{}", ran.stdout);
        // For programs it is the line before the summary.
        let ran = daemon.ctl(status, &[&sign[..], &["-"]].concat());
        let lines: Vec<serde_json::Value> =
            ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[3]["stopped"][0]["rule"], "withdrawn");
        assert!(lines[4]["summary"].is_object());
    };
    check(|_| ItemOutcome::Signed, 6);
    check(|at| if at == 0 { ItemOutcome::Signed } else { ItemOutcome::NotSigned }, 6);
    check(|_| ItemOutcome::NotSigned, 4);
}

#[test]
fn devices_and_pre_commands_come_from_files() {
    let daemon = operator();
    let list = daemon.path("devices");
    std::fs::write(&list, "00DB1234567890A0,7\n").unwrap();
    let sign = ["recovery", "sign", "--determination", ID, "--out", "-"];
    let ran = daemon.ctl(0, &[&sign[..], &["--devices", text_of(&list)]].concat());
    assert!(ran.stdout.starts_with("{\"device\":\"00DB1234567890A0\""), "{}", ran.stdout);
    let folder = daemon.path("pre");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a"), "one").unwrap();
    std::fs::write(folder.join("b"), "two").unwrap();
    let ran = daemon.ctl(0, &[&sign[..], &["--pre-commands", text_of(&folder)]].concat());
    assert_eq!(ran.stdout.lines().count(), 3);
    let ran = daemon.ctl(1, &[&sign[..], &["--devices", "/nowhere/list"]].concat());
    assert!(ran.stderr.contains("/nowhere/list"), "{}", ran.stderr);
}

#[test]
fn unknowns_are_settled() {
    let daemon = operator();
    let settle = ["recovery", "settle", "--determination", ID, "--devices", "all", "--reason", "power cycle"];
    daemon.ctl(2, &[&settle[..], &["--action", "retry"]].concat());
    daemon.ctl(0, &[&settle[..], &["--action", "retry", "--out", "-"]].concat());
    assert_eq!(daemon.about(), "Retry power cycle");
    daemon.engine.signing.lock().unwrap().outcomes = |_| ItemOutcome::Left;
    let ran = daemon.ctl(0, &[&settle[..], &["--action", "leave"]].concat());
    assert_eq!(daemon.about(), "Leave power cycle");
    assert!(ran.stdout.contains("left    3"), "{}", ran.stdout);
    daemon.ctl(0, &["recovery", "unknowns", "--determination", ID]);
    daemon.ctl(0, &["recovery", "request", ID]);
}

#[test]
fn a_determination_is_delivered_with_its_signatures_and_its_list() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Account);
    for (name, contents) in
        [("ab.json", "{}"), ("ab.alice.p7s", "a"), ("ab.bob.p7s", "b"), ("list", "00DB1234567890A0")]
    {
        std::fs::write(daemon.path(name), contents).unwrap();
    }
    let (document, list) = (daemon.path("ab.json"), daemon.path("list"));
    let record = ["determination", "record", text_of(&document), "--devices", text_of(&list)];
    let ran = daemon.ctl(0, &record);
    assert_eq!(daemon.engine.names(), ["upload-devices", "document-record"]);
    assert_eq!(daemon.about(), "2 octets, 2 signatures, devices true, files []");
    assert!(ran.stdout.contains("signed by"), "{}", ran.stdout);
    daemon.ctl(0, &["determination", "record", text_of(&document), "--signature", text_of(&daemon.path("ab.bob.p7s"))]);
    assert_eq!(daemon.about(), "2 octets, 1 signatures, devices false, files []");
}

#[test]
fn a_policy_is_delivered_with_its_files() {
    let daemon = operator();
    std::fs::create_dir_all(daemon.path("p/procedure")).unwrap();
    for (name, contents) in [("a.json", "{}"), ("a.m.p7s", "s"), ("p/policy.toml", "x"), ("p/procedure/v.toml", "y")] {
        std::fs::write(daemon.path(name), contents).unwrap();
    }
    let (document, policy) = (daemon.path("a.json"), daemon.path("p"));
    daemon.ctl(0, &["policy", "adopt", text_of(&document), "--policy", text_of(&policy)]);
    assert_eq!(daemon.about(), "2 octets, 1 signatures, devices false, files [\"policy.toml\", \"procedure/v.toml\"]");
}

#[test]
fn a_dry_run_shows_what_would_be_sent_and_sends_nothing() {
    let daemon = operator();
    for name in ["a.json", "a.m.p7s", "cert.pem"] {
        std::fs::write(daemon.path(name), "x").unwrap();
    }
    std::fs::create_dir(daemon.path("p")).unwrap();
    let (document, certificate, policy) = (daemon.path("a.json"), daemon.path("cert.pem"), daemon.path("p"));
    let check = |arguments: &[&str], shown: &str| {
        let ran = daemon.ctl(0, &[arguments, &["--dry-run"]].concat());
        assert!(ran.stdout.contains(shown) && ran.stderr.contains("Nothing was sent"), "{arguments:?}: {}", ran.stdout);
        let json = daemon.ctl(0, &[arguments, &["--dry-run", "--output", "json"]].concat());
        serde_json::from_str::<serde_json::Value>(&json.stdout).unwrap();
    };
    let open = ["incident", "open", "INC-1", "--certificate", text_of(&certificate), "--description", "text"];
    check(&open, "Would send POST /v1/incidents\n");
    check(&["incident", "close", "INC-1", "--reason", "r"], "POST /v1/incidents/INC-1/close");
    check(&["determination", "record", text_of(&document)], "POST /v1/documents");
    check(&["policy", "adopt", text_of(&document), "--policy", text_of(&policy)], "POST /v1/documents");
    check(&["key", "activate", "recovery", "--incident", "INC-1"], "POST /v1/keys/recovery/activate");
    check(&["key", "lock", "recovery"], "POST /v1/keys/recovery/lock");
    check(&["hsm", "retry-login", "ledger"], "POST /v1/hsm/ledger/retry-login");
    check(&["clock", "accept", "--time", "2026-11-28T03:12:00Z", "--reason", "r"], "POST /v1/clock/accept");
    check(&["recovery", "sign", "--determination", ID, "--devices", "all"], "\"devices\": \"all\"");
    let settle =
        ["recovery", "settle", "--determination", ID, "--devices", "all", "--action", "leave", "--reason", "r"];
    check(&settle, "\"action\": \"leave\"");
    assert!(daemon.engine.names().is_empty(), "{:?}", daemon.engine.names());
}

#[test]
fn changes_are_sent_as_they_are_given() {
    let daemon = operator();
    let certificate = daemon.path("cert.pem");
    std::fs::write(&certificate, "PEM").unwrap();
    let open = ["incident", "open", "INC-1", "--certificate", text_of(&certificate), "--description", "told at 02:10"];
    let ran = daemon.ctl(0, &open);
    assert_eq!((&*daemon.about(), &*ran.stdout), ("INC-1 told at 02:10", "recorded  entry 5\n"));
    daemon.ctl(0, &["incident", "close", "INC-1", "--reason", "done"]);
    assert_eq!(daemon.about(), "INC-1 done");
    let ran = daemon.ctl(0, &["key", "lock", "recovery"]);
    assert!(ran.stdout.contains("recovery is locked"), "{}", ran.stdout);
    daemon.ctl(0, &["clock", "accept", "--time", "2026-11-28T03:12:00Z", "--reason", "compared"]);
    assert_eq!(daemon.about(), "compared");
}

#[test]
fn the_ledger_is_listed_to_its_end() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Auditor);
    let ran = daemon.ctl(0, &["ledger", "list", "--kind", "stopped"]);
    assert_eq!(ran.stdout.lines().count(), 5, "{}", ran.stdout);
    assert!(ran.stdout.lines().next().unwrap().ends_with("alice  stopped  {\"reason\":\"SIGTERM\"}"), "{}", ran.stdout);
    assert_eq!(daemon.engine.names().len(), 3, "two at a time");
    let ran = daemon.ctl(0, &["ledger", "list", "--from", "3", "--output", "json"]);
    let first: serde_json::Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((first["index"].as_u64(), ran.stdout.lines().count()), (Some(3), 2));
    let ran = daemon.ctl(0, &["ledger", "show", "4"]);
    assert!(ran.stdout.contains("\"reason\": \"SIGTERM\""), "{}", ran.stdout);
    daemon.ctl(1, &["ledger", "show", "5"]);
}

#[test]
fn a_receipt_goes_to_stdout_or_into_a_new_file() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Auditor);
    assert_eq!(daemon.ctl(0, &["ledger", "proof", "1"]).stdout, "c2sp.org/tlog-proof@v1\n");
    let out = daemon.path("1.tlog-proof");
    daemon.ctl(0, &["ledger", "proof", "1", "--out", text_of(&out)]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "c2sp.org/tlog-proof@v1\n");
    std::fs::write(&out, "another").unwrap();
    daemon.ctl(1, &["ledger", "proof", "1", "--out", text_of(&out)]);
    assert!(daemon.ctl(0, &["ledger", "checkpoint"]).stdout.starts_with("smki.example/lab\n3\n"));
}

#[test]
fn texts_of_others_do_not_reach_the_terminal_raw() {
    let daemon = operator();
    let ran = daemon.ctl(0, &["incident", "show", "INC-1"]);
    assert!(ran.stdout.contains("told by telephone \\u{1b}[2J"), "{}", ran.stdout);
}

#[test]
fn lists_and_documents_are_shown() {
    let daemon = Daemon::start(FakeEngine::new(), Role::Auditor);
    assert!(daemon.ctl(0, &["incident", "list"]).stdout.contains("INC-1  open"));
    assert!(daemon.ctl(0, &["determination", "list"]).stdout.contains("in force"));
    assert!(daemon.ctl(0, &["policy", "show"]).stdout.ends_with("# policy.toml\nversion = 1\n"));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(None, &["completions", shell]);
        assert_eq!(ran.status, Some(0));
        assert!(ran.stdout.contains("pre-commands"), "{shell}");
    }
}

#[test]
fn a_reader_that_closes_early_is_no_failure() {
    let daemon = operator();
    let script = format!(
        "{} ledger list --output json --socket {} | head -n 1 >/dev/null; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_smkictl"),
        daemon.socket().display()
    );
    assert!(Command::new("bash").args(["-c", &script]).status().unwrap().success());
}

#[test]
fn help_tells_the_statuses_and_what_each_command_is_for() {
    let help = run(None, &["--help"]).stdout;
    for told in ["3  the daemon or the HSM is not reachable", "6  partly done", "Runs the SMKI Recovery Procedure"] {
        assert!(help.contains(told), "{help}");
    }
    for (command, about) in [
        (vec!["incident", "open"], "Open an incident for a certificate"),
        (vec!["recovery", "sign"], "Sign recovery commands under a determination"),
        (vec!["determination", "record"], "Deliver a signed determination"),
        (vec!["key", "lock"], "Lock a key"),
        (vec!["hsm", "retry-login"], "Let the PIN of a token be offered again"),
    ] {
        let help = run(None, &[&command[..], &["--help"]].concat()).stdout;
        assert!(help.starts_with(about), "{help}");
    }
}

#[test]
fn how_tokens_stand_is_told_and_a_pin_is_let_be_offered_again() {
    let daemon = operator();
    let ran = daemon.ctl(0, &["hsm", "status"]);
    for part in ["token ledger", "up since", "smki-ledger", "keys: ledger", "worker 7, 2 sessions"] {
        assert!(ran.stdout.contains(part), "no {part}: {}", ran.stdout);
    }
    assert!(daemon.ctl(0, &["status"]).stdout.contains("token ledger"), "in the status too");
    let ran = daemon.ctl(0, &["hsm", "retry-login", "ledger"]);
    assert_eq!(daemon.about(), "ledger");
    assert!(ran.stdout.contains("entry 6") && ran.stdout.contains("refused its PIN"), "{}", ran.stdout);
}

#[test]
fn whoever_has_read_enough_of_an_answer_is_told_of_no_failure() {
    for arguments in [&["determination", "draft", "--sample"][..], &["file", "layout", "adt"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_smkictl")).args(arguments).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{arguments:?}");
    }
}
