use super::super::in_force::tests::{at, extension, shipped, step, view};
use super::*;
use crate::domain::procedure::State;

fn explained(moment: &str, view: Option<&IncidentView<'_>>) -> Explanation {
    let policy = shipped("included");
    explain(&policy.procedure().unwrap().in_force(at(moment), &[]), view)
}

#[test]
fn a_moment_is_told_by_both_clocks_with_the_profile_and_each_clause_and_its_effect() {
    let varied = explained("2017-07-20T23:00:00Z", None);
    assert_eq!((varied.london.as_str(), varied.base.as_str()), ("2017-07-21 00:00:00 BST", "base"));
    let variation = &varied.variations[0];
    assert_eq!(variation.standing, StandingWord::InForce);
    assert_eq!(variation.window, "from 2017-07-21 until 2017-11-02, that day included");
    assert_eq!(variation.until, Some(at("2017-11-03T00:00:00Z")));
    let letters: Vec<&str> = variation.clauses.iter().map(|clause| clause.clause.as_str()).take(3).collect();
    assert_eq!(letters, ["a", "b", "c"]);
    assert!(variation.clauses.iter().all(|clause| clause.has_effect));
    assert!(
        variation.clauses[0]
            .effect
            .contains("relieves the DCC of set-smi-status-recovered and set-smi-status-recovery")
    );
    assert_eq!(varied.optional_factors[0].factor.as_str(), "stays-unreachable");
    assert!(varied.incident.is_none() && varied.steps.iter().all(|step| step.standing.is_none()));

    let base = explained("2017-07-20T22:59:59Z", None);
    assert_eq!((base.london.as_str(), base.variations[0].standing), ("2017-07-20 23:59:59 BST", StandingWord::NotYet));
    assert!(base.variations[0].clauses.iter().all(|clause| !clause.has_effect));
    assert!(base.optional_factors.is_empty());

    let after = explained("2017-11-03T00:00:00Z", None);
    assert_eq!((after.london.as_str(), after.variations[0].standing), ("2017-11-03 00:00:00 GMT", StandingWord::Over));
    // The reliefs are over; what was removed, activated and designated stays so.
    let effects: Vec<bool> = after.variations[0].clauses.iter().map(|clause| clause.has_effect).collect();
    assert_eq!(effects[..3], [false; 3]);
    assert!(effects[3..].iter().all(|has| *has));
}

#[test]
fn a_step_shows_its_labels_actors_and_what_varies_it() {
    let find = |explained: Explanation| {
        explained.steps.into_iter().find(|found| found.step == step("submit-adt-file")).unwrap()
    };
    let varied = find(explained("2017-08-01T00:00:00Z", None));
    assert_eq!(varied.labels[0].printed.as_str(), "4.2.1.2");
    assert_eq!((varied.actors.as_slice(), varied.phase), (&[Actor::Subscriber][..], Phase::PreRecovery));
    assert!(varied.varied[0].contains("Subscriber (ARO) relieved until") && varied.varied[0].contains("clause (c)"));
    assert!(find(explained("2017-07-01T00:00:00Z", None)).varied.is_empty());
}

#[test]
fn an_incident_is_told_what_is_due_by_whom_and_by_which_text() {
    let done = ["notify-compromise", "confirm-compromise", "assess"];
    let mut view = view(Determined::None, &done);
    view.state_name = "assessed";
    view.arisen.insert("tell-pma-of-compromise".parse().unwrap());
    let told = explained("2017-08-01T00:00:00Z", Some(&view));
    let standing = |id: &str| {
        told.steps.iter().find(|found| found.step == step(id)).and_then(|found| found.standing.clone()).unwrap()
    };
    let incident = told.incident.as_ref().unwrap();
    assert_eq!((incident.state.as_str(), incident.determination.as_str()), ("assessed", "none yet"));
    assert!(!incident.recovery_key_may_sign && !incident.contingency_key_may_sign);
    assert_eq!(standing("notify-compromise").is, "done");
    assert_eq!((standing("inform-pma").is.as_str(), standing("inform-pma").may_be_taken), ("due", MayWord::Yes));
    let status = standing("set-smi-status-recovery");
    assert_eq!((status.is.as_str(), status.may_be_taken), ("not-yet-due", MayWord::WithReason));
    assert!(status.by.contains("direction-2017-07-18, clause (a)"), "{}", status.by);
    let execute = standing("execute");
    assert_eq!((execute.is.as_str(), execute.may_be_taken), ("blocked", MayWord::No));
    assert_eq!(execute.awaits.as_deref(), Some("a determination of the SMKI PMA to execute"));
    assert_eq!(standing("report-progress").is, "permitted");
    let arisen: Vec<&str> =
        told.duties.iter().filter(|duty| duty.has_arisen == Some(true)).map(|duty| duty.duty.as_str()).collect();
    assert_eq!(arisen, ["tell-pma-of-compromise"]);
}

#[test]
fn what_is_explained_is_what_is_required() {
    let policy = shipped("excluded");
    for (moment, extensions) in [("2017-11-02T00:00:00Z", vec![]), ("2017-11-02T00:00:00Z", vec![extension(1, None)])] {
        let in_force = policy.procedure().unwrap().in_force(at(moment), &extensions);
        for determined in [Determined::None, Determined::NotToExecute, Determined::Execute(WithKey::Recovery)] {
            let view = view(determined, &["notify-compromise", "confirm-compromise", "assess"]);
            let told = explain(&in_force, Some(&view));
            for found in &told.steps {
                let requirement = super::super::required(&found.step, &in_force, &view);
                let standing = found.standing.as_ref().unwrap();
                assert_eq!(standing.is, requirement.word(), "{}", found.step);
                assert_eq!(standing.may_be_taken, requirement.may().into(), "{}", found.step);
            }
        }
    }
    let told = explain(&policy.procedure().unwrap().in_force(at("2030-01-01T00:00:00Z"), &[extension(1, None)]), None);
    assert!(told.variations[0].window.contains("without an end, as extended by direction 0101"));
    assert_eq!(told.variations[0].extended_by, Some(DirectionId([1; 16])));
}

#[test]
fn an_incident_that_has_ended_owes_its_closure_and_nothing_else() {
    for (state, closure) in [(State::Dismissed, "due"), (State::Withdrawn, "due"), (State::Closed, "done")] {
        let mut done = vec!["notify-compromise", "inform-parties", "inform-rdps", "inform-pma"];
        if state == State::Closed {
            done.push("close");
        }
        let mut view = view(Determined::None, &done);
        (view.state, view.state_name) = (Some(state), state.as_str());
        let told = explained("2026-01-01T00:00:00Z", Some(&view));
        for found in &told.steps {
            let (is, may) =
                found.standing.as_ref().map(|standing| (standing.is.as_str(), standing.may_be_taken)).unwrap();
            let expected = match found.step.as_str() {
                "close" => closure,
                id if done.contains(&id) => "done",
                _ => "not-required",
            };
            // What is left to be reported after a withdrawal is owed by nobody.
            let is_reported = state == State::Withdrawn && found.step.as_str() == "report-progress";
            let (expected, late) = if is_reported { ("permitted", true) } else { (expected, false) };
            assert_eq!(is, expected, "{} of an incident that is {state}", found.step);
            assert_eq!(may == MayWord::Yes, is == "due" || late, "{} of an incident that is {state}", found.step);
        }
    }
}

#[test]
fn a_key_may_sign_until_the_execution_ends_and_what_was_repeated_before_is_done() {
    let done =
        ["notify-compromise", "confirm-compromise", "assess", "refer-to-pma", "determine", "prepare", "activate-key"];
    let mut view = view(Determined::Execute(WithKey::Recovery), &done);
    for (state, may_sign, activation) in [
        (State::Prepared, true, MayWord::Yes),
        (State::Paused, true, MayWord::Yes),
        (State::Executing, true, MayWord::No),
        (State::Executed, false, MayWord::No),
        (State::PostRecovery, false, MayWord::No),
        (State::Closed, false, MayWord::No),
    ] {
        (view.state, view.state_name) = (Some(state), state.as_str());
        view.done.extend(["inform-parties", "inform-rdps", "inform-pma", "submit-notification-file"].map(step));
        view.done.extend(["set-smi-status-recovery", "submit-adt-file"].map(step));
        let told = explained("2026-01-01T00:00:00Z", Some(&view));
        let standing = |id: &str| {
            told.steps.iter().find(|found| found.step == step(id)).and_then(|found| found.standing.clone()).unwrap()
        };
        assert_eq!(told.incident.as_ref().unwrap().recovery_key_may_sign, may_sign, "{state}");
        let (key, referral) = (standing("activate-key"), standing("refer-to-pma"));
        assert_eq!(key.may_be_taken, activation, "{state}");
        assert_eq!(key.is, "done", "{state}");
        assert_eq!((referral.is.as_str(), referral.may_be_taken), ("done", MayWord::No), "{state}");
    }
}
