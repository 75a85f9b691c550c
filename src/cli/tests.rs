use super::*;

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
        "recovery resume-after-foreign",
        "file submit",
        "exercise record",
        "determination record",
        "recovery sign",
        "recovery settle",
        "key activate",
        "key lock",
        "policy adopt",
        "clock accept",
        "ceremony keys",
        "ceremony adoption",
        "ceremony begin",
        "ceremony request",
        "ceremony import",
        "ceremony copy",
        "hsm retry-login",
    ];
    for (path, command) in found {
        let takes = command.get_arguments().any(|argument| argument.get_id() == "dry_run");
        assert_eq!(takes, changing.contains(&path.as_str()), "{path}");
    }
}
