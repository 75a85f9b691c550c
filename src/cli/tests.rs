use super::*;
use crate::api::failure::Failure;
use crate::domain::incident::decide::{Gate, Gates, Standing};
use crate::domain::incident::next::next;
use crate::domain::incident::targets::Proof;
use crate::domain::incident::{DutyArising, Progress, Situation, State};
use crate::domain::ledger::entry::Reason;
use crate::domain::ledger::steps::{Certainty, CompromiseClass, DevicesNamed, Method, Notification, SmiStatus, Step};
use crate::domain::names::Digest;
use crate::domain::time::Timestamp;

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
    ];
    for (path, command) in found {
        let takes = command.get_arguments().any(|argument| argument.get_id() == "dry_run");
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

/// A program of Devices, in every way in which they may stand.
fn targets(progress: &mut Progress) {
    const LIST: &str = "00DB123456789001,Commissioned,2017-07-01,read\n00DB123456789002,Commissioned,2017-07-01,read\n\
                        00DB123456789003,Commissioned,2017-07-01,read\n00DB123456789004,Commissioned,2017-07-01,read\n";
    let assess = Step::Assess {
        method: Method::AcbCertificates,
        targets: DevicesNamed { list: Digest([7; 32]), count: LIST.lines().count() as u64 },
    };
    let at = progress.since;
    let source = |piece: &mut dyn FnMut(&[u8])| {
        piece(LIST.as_bytes());
        Ok::<(), std::convert::Infallible>(())
    };
    progress.take(&assess, 4, at, source).unwrap();
    let all: Vec<_> = progress.targets.all().iter().map(|target| target.device).collect();
    progress.targets.prove(all[0], Proof::Succeeded, Some(Method::AcbCertificates));
    progress.targets.prove(all[1], Proof::Failed, Some(Method::AcbCertificates));
    let recovery = Step::SetStatus {
        status: SmiStatus::Recovery,
        from: at,
        devices: None,
        reason: None,
        acknowledged: true,
        overridden: None,
    };
    progress.take(&recovery, 5, at, source).unwrap();
}

#[test]
fn every_command_that_incident_next_prints_is_one_that_this_program_takes() {
    let at: Timestamp = "2017-07-22T02:10:00Z".parse().unwrap();
    let by = || "the text".into();
    let all_gates = [
        Gates { status: Gate::Due { by: by() }, adt: Gate::Due { by: by() } },
        Gates { status: Gate::Relieved { by: by() }, adt: Gate::Relieved { by: by() } },
    ];
    let (mechanisms, departures) = (["call-back".parse().unwrap()].into(), std::collections::BTreeMap::new());
    let notification = |class| Notification {
        by: "Officer One".into(),
        party: "supplier-b".parse().unwrap(),
        certainty: Certainty::Suspected,
        class,
        at,
        channel: "telephone".into(),
        recovery_event: at,
    };
    let methods =
        [Method::SubscriberKey, Method::AcbCertificates, Method::NewOrganisationCertificates, Method::Contingency];
    let mut seen = std::collections::BTreeSet::new();
    for (state, method) in State::ALL.into_iter().flat_map(|state| methods.map(|method| (state, method))) {
        for (gates, has_targets) in all_gates.iter().flat_map(|gates| [true, false].map(|has| (gates, has))) {
            let class =
                if method == Method::Contingency { CompromiseClass::Other } else { CompromiseClass::Organisation };
            let mut progress = Progress::reported(notification(class), at, 3);
            if has_targets {
                targets(&mut progress);
            }
            let duty = DutyArising {
                duty: "tell-pma-of-compromise".parse().unwrap(),
                recipient: "SMKI PMA".into(),
                text: "the Compromise".into(),
                within_hours: None,
                step: None,
            };
            progress.arise([duty], at);
            progress.method = Some(method);
            progress.enter(state, at);
            for (has_scope, files) in [(true, vec![[1; 32]]), (false, Vec::new())] {
                let notifications = files.into_iter().map(Digest).collect();
                let key = has_scope.then(|| "recovery-1".parse().unwrap());
                let situation = Situation {
                    progress: &progress,
                    now: at,
                    gates,
                    mechanisms: &mechanisms,
                    notifications: &notifications,
                    adt_accepted: false,
                    determination: Some(Standing { in_force: Ok(()), has_scope, key }),
                    departures: &departures,
                };
                for todo in next(&situation) {
                    let commands = todo.command.as_deref().unwrap_or_default();
                    for command in commands.split(" && ").flat_map(|commands| commands.split(" | ")) {
                        let Some(rest) = command.strip_prefix("smkictl ") else { continue };
                        let typed = std::iter::once("smkictl".to_owned()).chain(as_typed(rest));
                        if let Err(error) = Arguments::try_parse_from(typed) {
                            panic!("{state}, {method:?}: {command}: {error}");
                        }
                        seen.insert(rest.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
                    }
                }
            }
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
    assert_eq!(absent("a policy"), "a policy is not known here");
}
