//! Devices that stand in another incident so that only the keys lead out of it.

use super::*;
use crate::domain::incident::timeline;
use crate::domain::ledger::entry::Event;

fn stands(bench: &Bench) -> Vec<SmiStatus> {
    bench.progress().targets.all().iter().map(|target| target.status).collect()
}

#[test]
fn a_device_that_only_the_keys_bring_back_is_assessed_as_the_other_incident_left_it() {
    let mut bench = standing(BASE, State::DeterminedNotToExecute, THREE, Devices::OneInRecovery, true);
    let since = bench.progress().targets.all()[0].since;
    bench.close();
    bench.begin_another();
    let assess = bench.assess(THREE);
    let taken = bench.take(&assess);
    assert_eq!(taken.carried, 1);
    let story = timeline::tell(&Event::StepTaken(taken)).unwrap();
    assert!(story.contains("; 1 Device in 'recovery'"), "{story}");
    assert_eq!(stands(&bench), [SmiStatus::Recovery, SmiStatus::Commissioned]);
    let targets = &bench.progress().targets;
    assert_eq!(targets.all()[0].since, since, "from when it applies is carried too");
    let counts = targets.counts();
    assert_eq!((counts.in_recovery, counts.stranded, targets.without_recovery()), (1, 1, 1));
    // The door is as narrow here as it was there.
    let back = set(&mut bench, SmiStatus::Commissioned, &devices()[..1]);
    assert_eq!(bench.rules(&back), ["device-unfit"]);
    // Assessed again it stands as it stands.
    let again = bench.assess(TWO);
    assert_eq!(bench.take(&again).carried, 0);
    assert_eq!(stands(&bench), [SmiStatus::Recovery, SmiStatus::Commissioned]);
}

#[test]
fn what_is_under_the_dccs_control_in_another_incident_is_recovered_and_what_was_handed_back_is_not() {
    for (how, carried, status) in [
        (Devices::Recovered, 2, SmiStatus::Recovered),
        (Devices::HandedOver, 0, SmiStatus::Commissioned),
        (Devices::Untouched, 0, SmiStatus::Commissioned),
    ] {
        let mut bench = standing(BASE, State::PostRecovery, TWO, how, true);
        bench.begin_another();
        let assess = bench.assess(THREE);
        assert_eq!(bench.take(&assess).carried, carried, "{how:?}");
        assert_eq!(stands(&bench), [status; 2], "{how:?}");
    }
    // By Method 3 it was its Subscriber's all the time.
    let mut bench = standing(BASE, State::PostRecovery, THREE, Devices::Recovered, true);
    bench.begin_another();
    let assess = bench.assess(THREE);
    assert_eq!(bench.take(&assess).carried, 0);
}

#[test]
fn of_several_incidents_that_recorded_a_status_the_newest_word_counts() {
    let mut bench = standing(BASE, State::DeterminedNotToExecute, THREE, Devices::InRecovery, true);
    bench.begin_another();
    let assess = bench.assess(THREE);
    assert_eq!(bench.take(&assess).carried, 2);
    // One was seen to on site, the same day.
    let Step::SetStatus { status, from, devices, acknowledged, .. } =
        set(&mut bench, SmiStatus::Commissioned, &devices()[..1])
    else {
        unreachable!()
    };
    let overridden = Some("exchanged on site".into());
    bench.take(&Step::SetStatus { status, from, devices, reason: None, acknowledged, overridden });
    bench.begin_another();
    let assess = bench.assess(THREE);
    assert_eq!(bench.take(&assess).carried, 1);
    assert_eq!(stands(&bench), [SmiStatus::Commissioned, SmiStatus::Recovery]);
}

#[test]
fn an_assessment_of_an_older_daemon_carries_nothing_over() {
    let mut bench = standing(BASE, State::DeterminedNotToExecute, THREE, Devices::InRecovery, true);
    bench.begin_another();
    let assess = bench.assess(THREE);
    bench.force(&assess);
    assert_eq!(stands(&bench), [SmiStatus::Commissioned; 2]);
}
