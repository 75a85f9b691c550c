use super::*;
use crate::domain::fold::tests::{BASE, Bench, OVER, VARIED, devices, incident, note, status};
use crate::domain::incident::decide::decide_determination;
use crate::domain::incident::next::ToDo;
use crate::domain::incident::targets::{Control, Proof};
use crate::domain::incident::{Accepted, State};
use crate::domain::ledger::steps::{Certainty, CompromiseClass, Method, SmiStatus};
use crate::domain::names::{DeterminationId, DirectionId, KeyLabel, StepId};
use crate::domain::policy::tests::{changed, policy};
use crate::domain::procedure::explain::{MayWord, explain};
use crate::domain::procedure::in_force::{Requirement, required};

const THREE: Method = Method::NewOrganisationCertificates;
const TWO: Method = Method::AcbCertificates;
const ONE: Method = Method::SubscriberKey;

/// So many stranded Devices were accepted.
const fn stranded(stranded: u64) -> Accepted {
    Accepted { stranded, overridden: 0 }
}

/// What people are told of a step.
fn explained(bench: &Bench, step: Meaning) -> (String, MayWord) {
    let context = bench.context();
    let procedure = context.fold.policy().unwrap().policy.procedure().unwrap();
    let view = context.fold.incident_view(&incident(), context.at).unwrap();
    let told = explain(&procedure.in_force(context.at, context.fold.extensions()), Some(&view));
    let found = told.steps.into_iter().find(|found| found.step == step.id()).unwrap();
    let standing = found.standing.unwrap();
    (standing.is, standing.may_be_taken)
}

fn requirement(bench: &Bench, step: &str) -> Requirement {
    let context = bench.context();
    let procedure = context.fold.policy().unwrap().policy.procedure().unwrap();
    let view = context.fold.incident_view(&incident(), context.at).unwrap();
    required(&step.parse().unwrap(), &procedure.in_force(context.at, context.fold.extensions()), &view)
}

fn todo(bench: &Bench) -> Vec<ToDo> {
    next(&bench.context(), &incident()).unwrap()
}

fn with_reason(step: Step) -> Step {
    match step {
        Step::SetStatus { status, from, devices, acknowledged, overridden, .. } => {
            let reason = Some("the meters are read by somebody else".into());
            Step::SetStatus { status, from, devices, reason, acknowledged, overridden }
        }
        step => step,
    }
}

fn set(bench: &mut Bench, to: SmiStatus, which: &[DeviceId]) -> Step {
    let named = bench.named(which);
    status(to, Some(named), bench.at)
}

/// How the Devices stand, whatever the incident's state.
#[derive(Clone, Copy, Debug)]
enum Devices {
    Untouched,
    OneInRecovery,
    InRecovery,
    OneProven,
    Proven,
    Recovered,
    HandedOver,
    LeftOut,
}

const EVERY: [Devices; 8] = [
    Devices::Untouched,
    Devices::OneInRecovery,
    Devices::InRecovery,
    Devices::OneProven,
    Devices::Proven,
    Devices::Recovered,
    Devices::HandedOver,
    Devices::LeftOut,
];

/// An incident in that state, with what comes before taken as the profile in force has it, or as little of it as can be.
fn standing(moment: &str, state: State, method: Method, how: Devices, has_files: bool) -> Bench {
    let mut bench = Bench::new(moment);
    bench.inform();
    let has_targets = !matches!(state, State::Reported | State::Dismissed | State::Confirmed);
    if state != State::Reported && state != State::Dismissed {
        let mechanism = "call-back".parse().unwrap();
        bench.force(&Step::Confirm { mechanism, certainty: Certainty::Actual, evidence: note() });
    }
    if has_targets {
        let assess = bench.assess(method);
        bench.force(&assess);
        if has_files {
            bench.file(FileKind::OrganisationNotification);
            bench.file(FileKind::Adt);
        }
    }
    let is_referred = has_targets && !matches!(state, State::Assessed | State::SubscriberRecovery);
    if is_referred {
        bench.force(&Step::Refer { notification: None, new_facts: None });
    }
    match state {
        State::Dismissed => bench.force(&Step::Dismiss { reason: note() }),
        State::SubscriberRecovery => bench.force(&Step::SubscriberRecovery { note: note() }),
        State::DeterminedNotToExecute => {
            bench.determine(false, None);
        }
        state if is_referred && state != State::Referred => {
            bench.determine(true, Some(method));
        }
        _ => {}
    }
    let (is_prepared, is_active) = match state {
        State::Prepared => (true, false),
        State::KeyActive | State::Executing | State::Paused | State::Executed | State::PostRecovery => (true, true),
        _ => (false, false),
    };
    if is_prepared {
        bench.force(&Step::Prepare { note: note() });
    }
    if is_active {
        bench.activate();
    }
    if has_targets {
        let both = devices();
        let is_referred_by_key = is_active || state == State::Withdrawn;
        let set_all = |bench: &mut Bench| {
            let step = status(SmiStatus::Recovery, None, bench.at);
            bench.force(&step);
        };
        match how {
            Devices::Untouched => {}
            Devices::OneInRecovery => {
                let step = set(&mut bench, SmiStatus::Recovery, &both[..1]);
                bench.force(&step);
            }
            Devices::InRecovery => set_all(&mut bench),
            Devices::OneProven | Devices::Proven | Devices::Recovered | Devices::HandedOver => {
                set_all(&mut bench);
                // Nobody proves anything before a key was used.
                if is_referred_by_key {
                    let which = if matches!(how, Devices::OneProven) { &both[..1] } else { &both[..] };
                    bench.prove(which, Proof::Succeeded);
                    if matches!(how, Devices::Recovered | Devices::HandedOver) {
                        let step = status(SmiStatus::Recovered, None, bench.at);
                        bench.force(&step);
                    }
                    if matches!(how, Devices::HandedOver) {
                        bench.force(&Step::HandOver { devices: None, evidence: note() });
                    }
                }
            }
            Devices::LeftOut => {
                let named = bench.named(&both);
                bench.force(&Step::Exclude { devices: named, reason: note() });
            }
        }
    }
    match state {
        State::Paused => bench.force(&Step::Pause { reason: note() }),
        State::Executed | State::PostRecovery => bench.force(&Step::Finish { note: note() }),
        State::Withdrawn => bench.withdraw(),
        State::Executing => {
            let at = bench.at;
            bench.progress_mut().enter(State::Executing, at);
        }
        State::Closed => {
            let at = bench.at;
            bench.progress_mut().enter(State::Closed, at);
        }
        _ => {}
    }
    if has_files && matches!(state, State::Executed | State::PostRecovery) {
        bench.file(FileKind::OrganisationProgress);
    }
    if state == State::PostRecovery {
        bench.force(&Step::BeginPostRecovery { note: note() });
    }
    // Duties are asked about elsewhere.
    bench.progress_mut().duties.values_mut().for_each(|duty| duty.met = Some(1));
    assert_eq!(bench.progress().state, state);
    bench
}

/// The step that a meaning is, with all that it must say itself; none where no Device is fit for it, or where it is no step.
fn well_formed(bench: &mut Bench, step: Meaning) -> Option<Step> {
    let progress = bench.progress();
    let state = progress.state;
    let notification = bench.context().fold.notifications(&incident(), CompromiseClass::Organisation).first().copied();
    let fit = |bench: &mut Bench, step: &Step| -> Vec<DeviceId> {
        let all = bench.progress().targets.all();
        all.iter().filter(|target| decide_device(step, target, true).is_ok()).map(|target| target.device).collect()
    };
    Some(match step {
        Meaning::Confirm => {
            Step::Confirm { mechanism: "call-back".parse().unwrap(), certainty: Certainty::Actual, evidence: note() }
        }
        Meaning::Dismiss => Step::Dismiss { reason: note() },
        Meaning::Assess => {
            let method = progress.method.unwrap_or(THREE);
            bench.assess(method)
        }
        Meaning::Refer => {
            let new_facts = (state == State::DeterminedNotToExecute).then(note);
            Step::Refer { notification, new_facts }
        }
        Meaning::SubscriberRecovery => Step::SubscriberRecovery { note: note() },
        Meaning::Prepare => Step::Prepare { note: note() },
        Meaning::BeginPostRecovery => Step::BeginPostRecovery { note: note() },
        Meaning::SetRecovery | Meaning::SetRecovered | Meaning::HandOver => {
            let of = |devices, at| match step {
                Meaning::SetRecovery => with_reason(status(SmiStatus::Recovery, devices, at)),
                Meaning::SetRecovered => with_reason(status(SmiStatus::Recovered, devices, at)),
                _ => Step::HandOver { devices, evidence: note() },
            };
            let at = bench.at;
            let some = bench.named(&devices());
            let which = fit(bench, &of(Some(some), at));
            if which.is_empty() {
                return None;
            }
            let named = bench.named(&which);
            of(Some(named), at)
        }
        _ => return None,
    })
}

/// Whether the guards let a step be taken, with a reason or without.
fn guarded(bench: &mut Bench, step: Meaning) -> Option<Result<(), Vec<Reason>>> {
    Some(match step {
        Meaning::SubmitNotification => {
            file_in_place(&bench.context(), &incident(), FileKind::OrganisationNotification).map(drop)
        }
        Meaning::SubmitThresholds => file_in_place(&bench.context(), &incident(), FileKind::Adt).map(drop),
        Meaning::ReportProgress => {
            file_in_place(&bench.context(), &incident(), FileKind::OrganisationProgress).map(drop)
        }
        Meaning::Determine => {
            let supersedes = bench.progress().determined.map(|determined| determined.id);
            let view = View::of(&bench.context(), &incident()).unwrap();
            decide_determination(&view.situation(), supersedes).map(drop)
        }
        Meaning::Close => {
            let left = bench.progress().targets.counts().stranded;
            bench.progress_mut().stranded_accepted = Some(stranded(left));
            closing(&bench.context(), &incident(), "over").map(drop)
        }
        step => {
            let step = well_formed(bench, step)?;
            bench.decide(&step).map(drop)
        }
    })
}

#[test]
fn what_is_explained_as_permitted_is_permitted_and_nothing_else_in_every_state_and_profile() {
    let (mut asked, mut permitted) = (0, 0);
    for moment in [BASE, VARIED] {
        for state in State::ALL {
            for method in [ONE, TWO, THREE] {
                for (how, has_files) in EVERY.into_iter().flat_map(|how| [(how, true), (how, false)]) {
                    let mut bench = standing(moment, state, method, how, has_files);
                    for step in Meaning::ALL {
                        let Some(guarded) = guarded(&mut bench, step) else { continue };
                        let (is, may) = explained(&bench, step);
                        let place = format!("{moment} {state} {method} {how:?} {has_files}: {step} is {is}");
                        assert_eq!(guarded.is_ok(), may != MayWord::No, "{place}, {guarded:?}");
                        asked += 1;
                        permitted += u32::from(guarded.is_ok());
                    }
                    // Method 1 is the Subscriber's, and comes to no key.
                    if method != ONE {
                        let (is, may) = explained(&bench, Meaning::Execute);
                        assert_eq!(may == MayWord::Yes, state.may_sign(), "{moment} {state} {method} {how:?}: {is}");
                    }
                }
            }
        }
    }
    assert!(asked > 10_000 && permitted > 1_000, "{asked} were asked, {permitted} permitted");
}

#[test]
fn every_owed_to_do_that_is_a_step_is_accepted_and_every_open_incident_has_one() {
    for moment in [BASE, VARIED] {
        for state in State::ALL {
            for method in [ONE, TWO, THREE] {
                if (method == ONE) != (state == State::SubscriberRecovery) && state != State::Assessed {
                    continue;
                }
                for (how, has_files) in EVERY.into_iter().flat_map(|how| [(how, true), (how, false)]) {
                    let mut bench = standing(moment, state, method, how, has_files);
                    let todo = todo(&bench);
                    let place = format!("{moment} {state} {method} {how:?} {has_files}");
                    assert_eq!(todo.iter().any(|todo| todo.required), state != State::Closed, "{place}: {todo:#?}");
                    // What begins so waits for what stands above it.
                    for owed in todo.iter().filter(|todo| todo.required && !todo.what.starts_with("Then ")) {
                        let command = owed.command.as_deref().unwrap_or_default();
                        let counts = bench.progress().targets.counts();
                        let step = match command.split(' ').nth(2).unwrap_or_default() {
                            "confirm" => well_formed(&mut bench, Meaning::Confirm),
                            "assess" => well_formed(&mut bench, Meaning::Assess),
                            "refer" => well_formed(&mut bench, Meaning::Refer),
                            "prepare" => well_formed(&mut bench, Meaning::Prepare),
                            "subscriber-recovery" => well_formed(&mut bench, Meaning::SubscriberRecovery),
                            "begin-post-recovery" => well_formed(&mut bench, Meaning::BeginPostRecovery),
                            "hand-over" => Some(Step::HandOver { devices: None, evidence: note() }),
                            // It begins with the list of those that are proven.
                            "devices" => well_formed(&mut bench, Meaning::SetRecovered),
                            "set-status" => Some(status(SmiStatus::Recovery, None, bench.at)),
                            "finish" => Some(Step::Finish { note: note() }),
                            "pause" => Some(Step::Pause { reason: note() }),
                            "accept-stranded" => {
                                Some(Step::AcceptStranded { count: counts.stranded, overridden: None, reason: note() })
                            }
                            "close" => {
                                let closed = closing(&bench.context(), &incident(), "over");
                                assert!(closed.is_ok(), "{place}: {closed:?}");
                                continue;
                            }
                            "submit" => {
                                let kind = command.split(' ').nth(5).unwrap().parse().unwrap();
                                let taken = file_in_place(&bench.context(), &incident(), kind);
                                assert!(taken.is_ok(), "{place}: {taken:?}");
                                continue;
                            }
                            // What a Device, a member or a custodian does, and what a refusal of another room decides.
                            "" | "draft" | "activate" | "sign" | "responses" => continue,
                            other => panic!("{place}: nobody knows {other:?} of {command:?}"),
                        };
                        let step = step.unwrap_or_else(|| panic!("{place}: no Device is fit for {command:?}"));
                        let decided = bench.decide(&step);
                        assert!(decided.is_ok(), "{place}: {command:?}: {decided:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_gates_of_status_thresholds_referral_and_preparation_stand_as_the_truth_table_has_them() {
    // Before any determination: the base profile wants both before the referral, the variation of 2017 neither.
    for (moment, expected) in
        [(BASE, &["smi-status", "adt-file"][..]), (VARIED, &[]), (OVER, &["smi-status", "adt-file"])]
    {
        let (mut bench, notification) = Bench::assessed(moment, THREE);
        let refer = Step::Refer { notification: Some(notification), new_facts: None };
        assert_eq!(bench.rules(&refer), expected, "{moment}");
        // A relief and no prohibition: early, with a reason.
        let early = status(SmiStatus::Recovery, None, bench.at);
        let wants_reason = moment == VARIED;
        assert_eq!(bench.rules(&early), if wants_reason { vec!["reason"] } else { vec![] }, "{moment}");
        // The ARO's signed file is its own word.
        assert!(file_in_place(&bench.context(), &incident(), FileKind::Adt).is_ok(), "{moment}");
        bench.take(&with_reason(early));
        bench.file(FileKind::Adt);
        assert!(bench.rules(&refer).is_empty(), "{moment}");
    }
    for moment in [BASE, VARIED, OVER] {
        let prepare = Step::Prepare { note: note() };
        // Not to execute: nothing is to be recovered, so neither is asked for or taken, and nothing is prepared.
        let mut bench = Bench::referred(moment, THREE);
        bench.determine(false, None);
        assert_eq!(bench.rules(&status(SmiStatus::Recovery, None, bench.at)), ["incident-state"], "{moment}");
        assert!(file_in_place(&bench.context(), &incident(), FileKind::Adt).is_err(), "{moment}");
        assert_eq!(bench.rules(&prepare)[0], "incident-state", "{moment}");
        // To execute: both are owed by now, and no reason is asked for.
        let mut bench = Bench::referred(moment, THREE);
        bench.determine(true, Some(THREE));
        let expected: &[&str] = if moment == VARIED { &["smi-status", "adt-file"] } else { &[] };
        assert_eq!(bench.rules(&prepare), expected, "{moment}");
        bench.ready();
        assert!(bench.rules(&prepare).is_empty(), "{moment}");
    }
}

#[test]
fn post_recovery_begins_once_a_progress_file_says_how_it_ended() {
    let mut bench = standing(BASE, State::Executing, THREE, Devices::Recovered, true);
    let begin = Step::BeginPostRecovery { note: note() };
    bench.file(FileKind::OrganisationProgress);
    bench.take(&Step::Finish { note: note() });
    assert_eq!(bench.rules(&begin), ["progress-file"], "one from before says nothing of the end");
    assert_eq!(explained(&bench, Meaning::BeginPostRecovery), ("not-yet-due".to_owned(), MayWord::No));
    let owed = |bench: &Bench| -> Vec<String> {
        todo(bench).iter().filter(|todo| todo.required).map(|todo| todo.what.to_string()).collect()
    };
    let wanted = owed(&bench);
    assert!(wanted.iter().any(|what| what.starts_with("Submit that file, signed")), "{wanted:?}");
    assert!(wanted.contains(&"Then begin Post-Recovery".to_owned()), "{wanted:?}");
    bench.file(FileKind::OrganisationProgress);
    assert_eq!(owed(&bench).last().unwrap(), "Begin Post-Recovery");
    assert_eq!(explained(&bench, Meaning::BeginPostRecovery).1, MayWord::Yes);
    bench.take(&begin);
}

#[test]
fn a_status_that_was_set_early_for_one_device_makes_it_due_for_no_other() {
    let (mut bench, notification) = Bench::assessed(VARIED, THREE);
    let refer = Step::Refer { notification: Some(notification), new_facts: None };
    let first = set(&mut bench, SmiStatus::Recovery, &devices()[..1]);
    assert_eq!(bench.rules(&first), ["reason"]);
    bench.take(&with_reason(first));
    assert!(bench.rules(&refer).is_empty(), "the variation relieves of the second as of the first");
    let second = set(&mut bench, SmiStatus::Recovery, &devices()[1..]);
    assert_eq!(bench.rules(&second), ["reason"], "who sets it early says why, each time");

    // Where the base profile wants it, one of two is not done, and one may depart from the rest.
    let (mut bench, notification) = Bench::assessed(BASE, THREE);
    let refer = Step::Refer { notification: Some(notification), new_facts: None };
    bench.file(FileKind::Adt);
    let first = set(&mut bench, SmiStatus::Recovery, &devices()[..1]);
    bench.take(&first);
    assert_eq!(explained(&bench, Meaning::SetRecovery), ("due".to_owned(), MayWord::Yes));
    assert_eq!(explained(&bench, Meaning::Refer).1, MayWord::No);
    assert_eq!(bench.rules(&refer), ["smi-status"]);
    let view = bench.fold.incident_view(&incident(), bench.at).unwrap();
    assert!(!view.has_settled(&Meaning::SetRecovery.id()), "no prerequisite of the Guidance is met by it");
    let direction = bench.depart("set-smi-status-recovery");
    assert_eq!(bench.decide(&refer).unwrap().departures, [direction]);
}

#[test]
fn what_goes_on_without_a_step_by_a_direction_says_so() {
    for missing in
        [&["set-smi-status-recovery"][..], &["submit-adt-file"], &["set-smi-status-recovery", "submit-adt-file"]]
    {
        let (mut bench, notification) = Bench::assessed(BASE, THREE);
        if !missing.contains(&"set-smi-status-recovery") {
            bench.take(&status(SmiStatus::Recovery, None, bench.at));
        }
        if !missing.contains(&"submit-adt-file") {
            bench.file(FileKind::Adt);
        }
        let refer = Step::Refer { notification: Some(notification), new_facts: None };
        assert_eq!(bench.rules(&refer).len(), missing.len());
        let directions: Vec<DirectionId> = missing.iter().map(|step| bench.depart(step)).collect();
        let taken = bench.take(&refer);
        assert_eq!(taken.departures, directions, "{missing:?}");
        // And so does what is prepared without it.
        bench.determine(true, Some(THREE));
        assert_eq!(bench.take(&Step::Prepare { note: note() }).departures, directions, "{missing:?}");
    }
    // Nothing is marked where nothing was left out.
    let (mut bench, notification) = Bench::assessed(BASE, THREE);
    bench.depart("submit-adt-file");
    bench.ready();
    assert!(bench.take(&Step::Refer { notification: Some(notification), new_facts: None }).departures.is_empty());
}

#[test]
fn a_referral_names_no_file_only_where_the_pma_directed_to_do_without() {
    let (mut bench, _) = Bench::assessed(BASE, THREE);
    bench.ready();
    let bare = Step::Refer { notification: None, new_facts: None };
    assert_eq!(bench.rules(&bare), ["notification-file"], "one was accepted: it is named");

    let mut bench = standing(BASE, State::Assessed, THREE, Devices::InRecovery, false);
    bench.file(FileKind::Adt);
    assert_eq!(bench.rules(&bare), ["notification-file"]);
    let direction = bench.depart("submit-notification-file");
    assert_eq!(bench.take(&bare).departures, [direction]);
}

#[test]
fn a_duty_is_owed_no_more_where_the_pma_directed_to_depart_from_its_step() {
    let mut bench = Bench::new(BASE);
    let direction = bench.depart("inform-rdps");
    let owed: Vec<String> = todo(&bench).into_iter().filter_map(|todo| todo.command.map(String::from)).collect();
    assert!(!owed.iter().any(|command| command.contains("tell-rdps")), "{owed:?}");
    assert!(owed.iter().any(|command| command.contains("tell-pma")), "{owed:?}");
    assert_eq!(bench.rules(&Step::Dismiss { reason: note() }), ["open-duty"], "the others are to be told");
    for duty in ["tell-pma-of-compromise", "tell-parties-of-compromise"] {
        let at = bench.at;
        bench.take(&Step::Inform { duty: duty.parse().unwrap(), recipient: "them".into(), at, how: "letter".into() });
    }
    assert_eq!(bench.take(&Step::Dismiss { reason: note() }).departures, [direction]);
    let at = bench.at;
    let duty = "tell-pma-of-dismissal".parse().unwrap();
    bench.take(&Step::Inform { duty, recipient: "the Chair".into(), at, how: "letter".into() });
    let closed = closing(&bench.context(), &incident(), "over").unwrap();
    assert_eq!((closed.departures, closed.profile.unwrap().base.as_str()), (vec![direction], "base"));
}

#[test]
fn a_departure_from_the_handover_lets_an_incident_end_and_is_marked() {
    let mut bench = standing(BASE, State::PostRecovery, TWO, Devices::Recovered, true);
    assert_eq!(bench.closing(), ["hand-over"]);
    let direction = bench.depart("hand-over");
    assert_eq!(closing(&bench.context(), &incident(), "over").unwrap().departures, [direction]);
    let mut bench = standing(BASE, State::PostRecovery, THREE, Devices::Proven, true);
    assert_eq!(bench.closing(), ["smi-status"]);
    let direction = bench.depart("set-smi-status-recovered");
    assert_eq!(closing(&bench.context(), &incident(), "over").unwrap().departures, [direction]);
}

#[test]
fn method_1_is_not_referred_and_uses_no_key_of_the_dcc() {
    for (method, expected) in [(ONE, &["procedure"][..]), (TWO, &[]), (THREE, &[])] {
        let (mut bench, notification) = Bench::assessed(VARIED, method);
        let refer = Step::Refer { notification: Some(notification), new_facts: None };
        assert_eq!(bench.rules(&refer), expected, "{method}");
        // No key will ever bring the Device back.
        let early = with_reason(status(SmiStatus::Recovery, None, bench.at));
        assert_eq!(bench.rules(&early), expected, "{method}");
        assert_eq!(bench.rules(&Step::SubscriberRecovery { note: note() }).is_empty(), method == ONE, "{method}");
        let again = bench.assess(THREE);
        bench.take(&again);
        assert!(bench.rules(&refer).is_empty(), "it was assessed again");
    }
}

#[test]
fn a_device_whose_recovery_is_proven_is_recorded_so_before_the_end() {
    for state in [State::PostRecovery, State::Withdrawn] {
        let mut bench = standing(BASE, state, THREE, Devices::OneProven, true);
        let left = bench.named(&devices()[1..]);
        bench.force(&Step::Exclude { devices: left, reason: note() });
        bench.progress_mut().stranded_accepted = Some(stranded(1));
        assert_eq!(bench.closing(), ["smi-status"], "{state}");
        let owed = todo(&bench);
        let owed =
            owed.iter().find(|todo| todo.command.as_deref().is_some_and(|command| command.contains(" recovered ")));
        assert!(owed.is_some_and(|todo| todo.required && todo.what.contains("of 1 Device,")), "{state}: {owed:?}");
        let step = set(&mut bench, SmiStatus::Recovered, &devices()[..1]);
        bench.take(&step);
        assert!(bench.closing().is_empty(), "{state}: {:?}", bench.closing());
    }
    // While others are still being recovered too.
    let mut bench = standing(BASE, State::Executing, THREE, Devices::OneProven, true);
    let step = set(&mut bench, SmiStatus::Recovered, &devices()[..1]);
    bench.take(&step);
    let both = status(SmiStatus::Recovered, None, bench.at);
    assert_eq!(bench.rules(&both), ["device-unfit"]);
}

#[test]
fn no_override_says_recovered_in_a_devices_place() {
    let mut bench = standing(BASE, State::Executing, THREE, Devices::InRecovery, true);
    let overriding = |step| match step {
        Step::SetStatus { status, from, devices, reason, acknowledged, .. } => {
            let overridden = Some("seen to on site".into());
            Step::SetStatus { status, from, devices, reason, acknowledged, overridden }
        }
        step => step,
    };
    let [first, second] = devices();
    bench.prove(&[first], Proof::Failed);
    bench.prove(&[second], Proof::Succeeded);
    let step = overriding(set(&mut bench, SmiStatus::Recovered, &[first]));
    assert_eq!(bench.rules(&step), ["device-unfit"]);
    // It was seen to on site: it is commissioned, and it stands among those that nothing proves.
    let step = overriding(set(&mut bench, SmiStatus::Commissioned, &[first]));
    bench.take(&step);
    let counts = bench.progress().targets.counts();
    assert_eq!((counts.overridden, counts.stranded, counts.succeeded), (1, 0, 1));
}

#[test]
fn devices_of_method_2_are_handed_over_once_recovered_and_nothing_ends_before() {
    let all = Step::HandOver { devices: None, evidence: note() };
    for state in [State::PostRecovery, State::Withdrawn] {
        let mut bench = standing(BASE, state, TWO, Devices::Proven, true);
        assert_eq!(bench.rules(&all), ["smi-status"], "{state}: none is 'recovered'");
        assert_eq!(bench.progress().targets.counts().under_dcc_control, 2, "nothing was handed over by it");
        let step = status(SmiStatus::Recovered, None, bench.at);
        bench.take(&step);
        let named = bench.named(&devices()[..1]);
        bench.take(&Step::HandOver { devices: Some(named), evidence: note() });
        assert_eq!(bench.closing(), ["hand-over"], "{state}: one waits");
        let again = Step::HandOver { devices: Some(named), evidence: note() };
        assert_eq!(bench.rules(&again), ["device-unfit"], "it was handed over");
        bench.take(&all);
        assert_eq!(bench.rules(&all), ["method"], "nobody waits any more");
        let targets = bench.progress().targets.all();
        assert!(targets.iter().all(|target| target.control == Control::HandedOver), "{targets:?}");
        assert!(bench.closing().is_empty(), "{state}: {:?}", bench.closing());
    }
    // Determined anew by another method, or not to execute: they are the DCC's all the same.
    let mut bench = standing(BASE, State::Executing, TWO, Devices::Recovered, true);
    bench.determine(false, None);
    bench.inform();
    assert_eq!(bench.closing(), ["hand-over"]);
    let next: Vec<String> = todo(&bench).into_iter().filter_map(|todo| todo.command.map(String::from)).collect();
    assert!(next.iter().any(|command| command.contains("hand-over")), "{next:?}");
    bench.take(&all);
    assert!(bench.closing().is_empty(), "{:?}", bench.closing());
}

#[test]
fn nothing_is_prepared_under_a_determination_that_is_not_in_force() {
    let prepare = Step::Prepare { note: note() };
    let new = || {
        let mut bench = Bench::referred(BASE, THREE);
        bench.determine(true, Some(THREE));
        bench
    };
    assert!(new().rules(&prepare).is_empty());
    for (change, says) in [
        (
            Box::new(|bench: &mut Bench| bench.followed().dropped_by_policy = Some(Digest([9; 32])))
                as Box<dyn Fn(&mut Bench)>,
            "not carried over",
        ),
        (
            Box::new(|bench| {
                let at = bench.at;
                bench.followed().suspended_until = Some(at.plus_ms(1));
            }),
            "suspended",
        ),
        (
            Box::new(|bench| {
                let at = bench.at;
                bench.followed().window.until = at;
            }),
            "in force from",
        ),
    ] {
        let mut bench = new();
        change(&mut bench);
        let refused = bench.decide(&prepare).unwrap_err();
        assert_eq!((refused.len(), &*refused[0].rule), (1, "determination"), "{refused:?}");
        assert!(refused[0].text.contains(says), "{refused:?}");
        let (is, may) = explained(&bench, Meaning::Prepare);
        assert_eq!((is.as_str(), may), ("blocked", MayWord::No));
        // Who is told to go on is the PMA, and nobody is sent to the key.
        let told = todo(&bench);
        assert!(told.iter().any(|todo| todo.required && todo.what.contains(says)), "{told:?}");
        assert!(!told.iter().any(|todo| todo.required && todo.what.contains("prepared")), "{told:?}");
    }
    // Before its window begins everything may be prepared, and no key is used.
    let mut bench = new();
    let at = bench.at;
    bench.followed().window.from = at.plus_ms(1);
    bench.take(&prepare);
    assert_eq!(explained(&bench, Meaning::ActivateKey).1, MayWord::No);
    bench.followed().window.from = at;
    assert_eq!(explained(&bench, Meaning::ActivateKey).1, MayWord::Yes);
}

#[test]
fn a_file_has_its_place_in_the_procedure() {
    let may = |state, kind| {
        let bench = standing(BASE, state, THREE, Devices::Untouched, false);
        file_in_place(&bench.context(), &incident(), kind).is_ok()
    };
    for (state, notification, thresholds, progress) in [
        (State::Reported, true, false, false),
        (State::Confirmed, true, false, false),
        (State::Assessed, true, true, true),
        (State::Referred, true, true, true),
        (State::DeterminedToExecute, false, true, true),
        (State::Executed, false, false, true),
        (State::Withdrawn, false, false, true),
        (State::Dismissed, false, false, false),
    ] {
        let found = [FileKind::OrganisationNotification, FileKind::Adt, FileKind::OrganisationProgress]
            .map(|kind| may(state, kind));
        assert_eq!(found, [notification, thresholds, progress], "{state}");
    }
}

#[test]
fn a_party_that_the_policy_does_not_name_is_found_before_the_devices_are_assessed() {
    let files = changed("persons.toml", "02DB1234567890B0\", \"", "");
    let mut bench = Bench::new(BASE);
    bench.adopt(policy(&files));
    bench.inform();
    let mechanism = "call-back".parse().unwrap();
    bench.take(&Step::Confirm { mechanism, certainty: Certainty::Actual, evidence: note() });
    let assess = bench.assess(THREE);
    let refused = bench.decide(&assess).unwrap_err();
    assert_eq!((refused.len(), &*refused[0].rule), (1, "party-unknown"), "{refused:?}");
    assert!(refused[0].text.contains("02DB1234567890B0"), "{refused:?}");
    bench.adopt(policy(&changed("persons.toml", "version = 1", "version = 1")));
    assert!(bench.rules(&assess).is_empty());
}

#[test]
fn a_time_limit_runs_from_the_step_before() {
    let files = changed("procedure/base.toml", "id = \"refer-to-pma\"", "id = \"refer-to-pma\"\nhours = 4");
    let (mut bench, _) = Bench::assessed(VARIED, THREE);
    bench.adopt(policy(&files));
    let assessed = bench.at;
    bench.at = assessed.plus_ms(60_000);
    bench.file(FileKind::OrganisationNotification);
    let due = |bench: &Bench| {
        let told = todo(bench);
        told.into_iter().find(|todo| todo.what.starts_with("Refer")).and_then(|todo| todo.due)
    };
    assert_eq!(due(&bench), Some(assessed.plus_ms(60_000 + 4 * 3_600_000)));
}

#[test]
fn a_step_that_only_the_policy_knows_holds_up_what_it_says_comes_after() {
    // A reviewer with the text puts one in, and the guard asks for it.
    let inserted = "[[step]]\nid = \"warn-the-market\"\norder = 65\nphase = \"pre-recovery\"\nactors = [\"dcc\"]\n\
                    text = \"The market is warned.\"\n\n[[duty]]\nid = \"tell-the-market\"\nto = \"parties\"\n\
                    arises_with = \"assess\"\nmet_by = \"warn-the-market\"\ntext = \"That Devices are concerned.\"\n\n\
                    [[step]]\nid = \"refer-to-pma\"";
    let files = changed("procedure/base.toml", "[[step]]\nid = \"refer-to-pma\"", inserted);
    let text = String::from_utf8(files["procedure/base.toml"].clone()).unwrap();
    let with = text.replace(
        "after = [\"assess\", \"submit-notification-file\",",
        "after = [\"assess\", \"warn-the-market\", \"submit-notification-file\",",
    );
    assert_ne!(with, text);
    let mut files = files;
    files.insert("procedure/base.toml".into(), with.into_bytes());
    let mut bench = Bench::new(VARIED);
    bench.adopt(policy(&files));
    bench.inform();
    let mechanism = "call-back".parse().unwrap();
    bench.take(&Step::Confirm { mechanism, certainty: Certainty::Actual, evidence: note() });
    let assess = bench.assess(THREE);
    bench.take(&assess);
    let notification = bench.file(FileKind::OrganisationNotification);
    let refer = Step::Refer { notification: Some(notification), new_facts: None };
    assert_eq!(bench.rules(&refer), ["open-duty"]);
    assert_eq!(explained(&bench, Meaning::Refer).1, MayWord::No);
    let id: StepId = "warn-the-market".parse().unwrap();
    assert!(requirement(&bench, id.as_str()).is_due());
    bench.inform();
    assert!(bench.rules(&refer).is_empty());
}

/// What is to be done, as one text.
fn told(bench: &Bench) -> String {
    let line = |todo: ToDo| format!("{}: {} > {}\n", todo.who, todo.what, todo.command.unwrap_or_default());
    todo(bench).into_iter().map(line).collect()
}

#[test]
fn a_command_to_be_done_next_holds_whatever_is_known() {
    let key: KeyLabel = "recovery-1".parse().unwrap();
    let check = |state: State, expected: &dyn Fn(&Bench) -> String| {
        let mut bench = standing(BASE, state, THREE, Devices::InRecovery, true);
        if bench.progress().determined.is_some() {
            bench.followed().key = Some((key.clone(), Digest([6; 32])));
        }
        let (told, expected) = (told(&bench), expected(&bench));
        assert!(told.contains(&expected), "{state}: {expected:?} in {told}");
    };
    let followed = |bench: &Bench| bench.progress().determined.unwrap().id;
    check(State::Reported, &|_| "by a permitted mechanism (call-back".to_owned());
    check(State::Assessed, &|bench| {
        let file = *bench.context().fold.notifications(&incident(), CompromiseClass::Organisation).first().unwrap();
        format!("refer INCIDENT --notification {file}")
    });
    check(State::Prepared, &|_| "smkictl key activate recovery-1 --incident INCIDENT".to_owned());
    check(State::Executing, &|bench| format!("smkictl recovery sign --determination {} ", followed(bench)));
    check(State::Executing, &|bench| {
        format!("--certificates DEVICE-CERTIFICATES/ --determination {}", followed(bench))
    });

    // Which of two notification files it is, only a person knows.
    let mut two = standing(BASE, State::Assessed, THREE, Devices::InRecovery, true);
    two.file(FileKind::OrganisationNotification);
    assert!(told(&two).contains("refer INCIDENT --notification SHA-256"), "{}", told(&two));
}

#[test]
fn after_the_execution_whatever_keeps_the_incident_open_is_to_be_done_next() {
    let told = |how| told(&standing(BASE, State::PostRecovery, THREE, how, true));
    let close = "Close the incident > smkictl incident close INCIDENT";
    let proven = told(Devices::Proven);
    assert!(proven.contains("set-status INCIDENT recovered --from DATE --devices proven.txt"), "{proven}");
    assert!(proven.contains("Then close the incident"), "{proven}");
    let stranded = told(Devices::InRecovery);
    assert!(stranded.contains(&format!("accept-stranded INCIDENT --count {} ", devices().len())), "{stranded}");
    assert!(stranded.contains("Then close the incident"), "{stranded}");
    let nothing = told(Devices::Recovered);
    assert!(nothing.contains(close) && !nothing.contains("stranded") && !nothing.contains("set-status"), "{nothing}");
}

#[test]
fn a_determination_that_is_not_in_force_is_told_of_before_the_key_is_asked_for() {
    for state in [State::DeterminedToExecute, State::Prepared, State::KeyActive, State::Executing, State::Paused] {
        let mut bench = standing(BASE, state, THREE, Devices::InRecovery, true);
        assert!(!told(&bench).contains("Nothing can be signed"), "{state}: {}", told(&bench));
        let at = bench.at;
        bench.followed().suspended_until = Some(at.plus_ms(1));
        let told = told(&bench);
        assert!(told.starts_with("SMKI PMA: Nothing can be signed: "), "{state}: {told}");
        assert!(told.lines().next().unwrap().contains("suspended"), "{state}: {told}");
    }
}

/// Every command that is to be done next, wherever an incident may stand.
pub(crate) fn every_command() -> BTreeSet<String> {
    let mut commands = BTreeSet::new();
    let mut add = |bench: &Bench| {
        let told = todo(bench).into_iter().filter_map(|todo| todo.command.map(String::from));
        commands.extend(told);
    };
    for moment in [BASE, VARIED] {
        // Nobody is informed yet.
        add(&Bench::new(moment));
        for (state, method) in State::ALL.into_iter().flat_map(|state| [ONE, TWO, THREE].map(|method| (state, method)))
        {
            for (how, has_files) in EVERY.into_iter().flat_map(|how| [(how, true), (how, false)]) {
                let mut bench = standing(moment, state, method, how, has_files);
                add(&bench);
                if bench.progress().determined.is_some() {
                    bench.followed().scope = None;
                    bench.followed().key = Some(("recovery-1".parse().unwrap(), Digest([6; 32])));
                    bench.prove(&devices()[..1], Proof::Failed);
                    add(&bench);
                }
                bench.progress_mut().notification.class = CompromiseClass::Other;
                bench.progress_mut().method = Some(Method::Contingency);
                add(&bench);
            }
        }
    }
    commands
}

mod carried;
mod left;
