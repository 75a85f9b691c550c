use super::*;
use crate::api::failure::Failure;
use crate::domain::intake::steps::tests::every_command;
use crate::domain::ledger::entry::Reason;

#[test]
fn the_commands_are_consistent() {
    Arguments::command().debug_assert();
}

/// Every command that does something, with its path: `recovery sign`.
fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name()).trim().to_owned();
        if sub.has_subcommands() {
            leaves(sub, &path, found);
        } else {
            found.push((path, sub.clone()));
        }
    }
}

#[test]
fn each_command_has_an_example_that_names_it() {
    let mut found = Vec::new();
    leaves(&Arguments::command(), "", &mut found);
    assert!(found.len() > 15, "{} commands", found.len());
    for (path, command) in found {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&format!("smkictl {path}")), "{path}: {help}");
    }
}

#[test]
fn each_command_that_changes_something_takes_dry_run_and_no_other_does() {
    let mut found = Vec::new();
    leaves(&Arguments::command(), "", &mut found);
    let changing = [
        "incident open",
        "incident close",
        "incident confirm",
        "incident dismiss",
        "incident assess",
        "incident inform",
        "incident refer",
        "incident subscriber-recovery",
        "incident set-status",
        "incident import-statuses",
        "incident prepare",
        "incident pause",
        "incident exclude",
        "incident finish",
        "incident begin-post-recovery",
        "incident hand-over",
        "incident accept-stranded",
        "recovery responses",
        "recovery certificates import",
        "recovery resume-after-foreign",
        "file submit",
        "exercise record",
        "determination record",
        "recovery sign",
        "recovery settle",
        "recovery start",
        "recovery pause",
        "recovery resume",
        "recovery cancel",
        "recovery fetch",
        "recovery certificates import",
        "key activate",
        "key lock",
        "key release-symmetric",
        "custodian present",
        "policy adopt",
        "clock accept",
        "ceremony keys",
        "ceremony adoption",
        "ceremony begin",
        "ceremony request",
        "ceremony import",
        "ceremony copy",
        "ceremony contingency",
        "ceremony import-root",
        "ceremony plan",
        "ceremony run",
        "ceremony deal",
        "ceremony destroy draft",
        "ceremony destroy run",
        "hsm retry-login",
    ];
    for (path, command) in found {
        let takes = command.get_arguments().any(|argument| argument.get_long() == Some("dry-run"));
        assert_eq!(takes, changing.contains(&path.as_str()), "{path}");
    }
}

/// A command as a shell gives it to a program: quotes taken off, and what stands in capitals put in as a person would.
fn as_typed(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in command.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        words.extend(part.split_whitespace().map(|word| {
            match word {
                "INCIDENT" => "INC-1",
                "TIME" => "2017-07-22T03:10:00+01:00",
                "DATE" => "2017-07-22",
                "MECHANISM" => "call-back",
                "CERTAINTY" => "actual",
                "METHOD" => "3",
                "SHA-256" => "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "ID" => "00112233445566778899aabbccddeeff",
                "KEY" => "recovery-1",
                "MEMBER" => "anna",
                other => other,
            }
            .to_owned()
        }));
    }
    words
}

#[test]
fn every_command_that_incident_next_prints_is_one_that_this_program_takes() {
    let mut seen = std::collections::BTreeSet::new();
    for commands in every_command() {
        for command in commands.split(" && ").flat_map(|commands| commands.split(" | ")) {
            let Some(rest) = command.strip_prefix("smkictl ") else { continue };
            let typed = std::iter::once("smkictl".to_owned()).chain(as_typed(rest));
            if let Err(error) = Arguments::try_parse_from(typed) {
                panic!("{command}: {error}");
            }
            seen.insert(rest.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        }
    }
    // It would say nothing if nothing were printed.
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn several_reasons_stand_on_lines_of_their_own_and_a_flood_of_them_is_cut() {
    let refused = |count: usize| {
        let reason = |n| Reason { rule: "devices".into(), text: format!("line {n}").into() };
        let reasons = (1..=count).map(reason).collect();
        told(&CliError::Client(ClientError::Problem(Failure::Refused { reasons, entry: Some(7) }.problem())))
    };
    assert_eq!(refused(1), "refused: line 1 (devices)");
    assert_eq!(refused(2), "refused, for 2 reasons:\n  line 1 (devices)\n  line 2 (devices)");
    assert!(refused(REASONS_TOLD_MAX).ends_with(&format!("line {REASONS_TOLD_MAX} (devices)")));
    assert!(refused(REASONS_TOLD_MAX + 1).ends_with("\n  and 1 more; --output json has all of them"));
}

#[test]
fn whoever_names_what_there_is_not_is_told_where_to_look() {
    let absent = |what: &str| {
        told(&CliError::Client(ClientError::Problem(Failure::NotFound { what: what.to_owned() }.problem())))
    };
    assert_eq!(absent("key recovery"), "key recovery is not known here; `smkictl status` shows those that are");
    assert!(absent("incident INC-9").ends_with("`smkictl incident list` shows those that are"));
    assert!(absent("request 77b0").ends_with("`smkictl recovery status` shows the jobs that are"));
    assert_eq!(absent("a policy"), "a policy is not known here");
}
