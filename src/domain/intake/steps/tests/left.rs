//! Devices that a later determination lists again, those that are left behind at the end, and what is not read of them.

use super::*;

/// The same incident with another determination by that method, about these Devices, prepared and the key active.
fn determined_again(bench: &mut Bench, method: Method, which: &[DeviceId]) -> DeterminationId {
    let id = bench.determine_of(true, Some(method), which);
    bench.take(&Step::Prepare { note: note() });
    bench.activate();
    bench.inform();
    id
}

#[test]
fn a_device_that_the_determination_followed_lists_is_outstanding_until_it_is_proven_under_that_one() {
    let both = devices();
    let finish = Step::Finish { note: note() };
    let mut bench = standing(BASE, State::Executing, THREE, Devices::Proven, true);
    let first = bench.progress().determined.unwrap().id;
    assert!(bench.rules(&finish).is_empty());
    let second = determined_again(&mut bench, THREE, &both);
    bench.take(&Step::Pause { reason: note() });

    let counts = bench.progress().targets.counts();
    assert_eq!((counts.succeeded, counts.outstanding, counts.wanted_again, counts.stranded), (0, 2, 2, 2));
    let refused = bench.decide(&finish).unwrap_err();
    assert_eq!((refused.len(), &*refused[0].rule), (1, "outstanding"), "{refused:?}");
    assert!(refused[0].text.contains("2 were recovered under an earlier determination"), "{refused:?}");
    assert!(told(&bench).contains("Know that 2 Devices were recovered under an earlier"), "{}", told(&bench));
    // A late word about the first command says nothing of the second one.
    bench.prove_under(&both, Proof::Succeeded, first);
    bench.prove_under(&both, Proof::Failed, first);
    let counts = bench.progress().targets.counts();
    assert_eq!((counts.outstanding, counts.failed), (2, 0));
    assert_eq!(bench.rules(&finish), ["outstanding"]);
    // That it failed under the second one does.
    bench.prove(&both, Proof::Failed);
    let counts = bench.progress().targets.counts();
    assert_eq!((counts.outstanding, counts.failed, counts.wanted_again), (2, 2, 2));
    bench.prove(&both[..1], Proof::Succeeded);
    assert_eq!(bench.rules(&finish), ["outstanding"], "one of two");
    let recovered = set(&mut bench, SmiStatus::Recovered, &both[1..]);
    let refused = bench.decide(&recovered).unwrap_err();
    assert_eq!((refused.len(), &*refused[0].rule), (1, "device-unfit"), "{refused:?}");
    assert!(refused[0].text.contains("recovered under an earlier determination"), "{refused:?}");
    let targets = &bench.progress().targets;
    let under: Vec<_> = targets.all().iter().map(|target| targets.recovered_under(target)).collect();
    assert_eq!(under, [Some(second), Some(first)]);
    bench.prove(&both[1..], Proof::Succeeded);
    bench.take(&finish);
}

#[test]
fn a_device_that_a_schedule_lists_is_outstanding_from_the_schedule_on() {
    let both = devices();
    let mut bench = standing(BASE, State::Executing, THREE, Devices::Proven, true);
    bench.determine_for_a_schedule(THREE);
    assert_eq!(bench.progress().targets.counts().outstanding, 0, "nobody is listed yet");
    bench.schedule(&both[1..]);
    let counts = bench.progress().targets.counts();
    assert_eq!((counts.outstanding, counts.wanted_again, counts.succeeded), (1, 1, 1));
    bench.prove(&both[1..], Proof::Succeeded);
    assert_eq!(bench.progress().targets.counts().outstanding, 0);
}

#[test]
fn a_proof_counts_again_once_no_determination_wants_another() {
    let both = devices();
    let outstanding = |bench: &Bench| bench.progress().targets.counts().outstanding;
    let mut bench = standing(BASE, State::Executing, THREE, Devices::Proven, true);
    // The one that it does not list stays proven.
    bench.determine_of(true, Some(THREE), &both[..1]);
    assert_eq!(outstanding(&bench), 1);
    bench.determine_of(true, Some(THREE), &both[1..]);
    assert_eq!((outstanding(&bench), bench.progress().targets.all()[0].is_proven()), (1, true));
    // Not to execute, or withdrawn: nothing more is wanted of anybody.
    bench.withdraw();
    assert_eq!(outstanding(&bench), 0);
    bench.determine(true, Some(THREE));
    assert_eq!(outstanding(&bench), 2);
    bench.determine(false, None);
    assert_eq!(outstanding(&bench), 0);
    assert_eq!(bench.progress().targets.counts().succeeded, 2);
}

#[test]
fn acceptance_of_the_stranded_ends_when_a_determination_has_others_stranded() {
    let both = devices();
    let mut bench = standing(BASE, State::Executing, THREE, Devices::OneProven, true);
    bench.progress_mut().stranded_accepted = Some(stranded(1));
    bench.determine_of(true, Some(THREE), &both[1..]);
    assert_eq!(bench.progress().stranded_accepted, Some(stranded(1)), "the same one is stranded");
    bench.determine_of(true, Some(THREE), &both[..1]);
    assert_eq!(bench.progress().stranded_accepted, None);
    assert_eq!(bench.progress().targets.counts().stranded, 2);
}

#[test]
fn who_controls_a_device_follows_the_newest_recovery() {
    let both = devices();
    let waiting = |bench: &Bench| bench.progress().targets.counts().under_dcc_control;
    let all = Step::HandOver { devices: None, evidence: note() };
    // Method 2 after Method 3: the DCC's certificates are on them now.
    let mut bench = standing(BASE, State::Executing, THREE, Devices::Recovered, true);
    let first = bench.progress().determined.unwrap().id;
    determined_again(&mut bench, TWO, &both);
    assert_eq!(waiting(&bench), 0, "not before they are");
    bench.prove(&both, Proof::Succeeded);
    assert_eq!(waiting(&bench), 2);
    bench.prove_under(&both, Proof::Succeeded, first);
    assert_eq!(waiting(&bench), 2, "the first command was executed before the second, whenever it is heard of");
    bench.take(&Step::Pause { reason: note() });
    bench.take(&Step::Finish { note: note() });
    bench.force(&Step::BeginPostRecovery { note: note() });
    bench.inform();
    assert_eq!(bench.closing(), ["hand-over"]);
    bench.take(&all);
    assert!(bench.closing().is_empty(), "{:?}", bench.closing());

    // Method 3 after Method 2: its Subscriber's are, and nobody owes a handover.
    let mut bench = standing(BASE, State::Executing, TWO, Devices::Recovered, true);
    assert_eq!(waiting(&bench), 2);
    determined_again(&mut bench, THREE, &both);
    assert_eq!(waiting(&bench), 2, "not before they are");
    assert_eq!(bench.rules(&all), ["incident-state"], "no handover of what is to be recovered again");
    bench.prove(&both[..1], Proof::Succeeded);
    assert_eq!(waiting(&bench), 1);
    bench.prove(&both[1..], Proof::Succeeded);
    assert_eq!(waiting(&bench), 0);
    bench.take(&Step::Pause { reason: note() });
    bench.take(&Step::Finish { note: note() });
    bench.force(&Step::BeginPostRecovery { note: note() });
    bench.inform();
    assert!(bench.closing().is_empty(), "{:?}", bench.closing());

    // Handed over, and recovered by Method 2 again: it is owed again.
    let mut bench = standing(BASE, State::Executing, TWO, Devices::HandedOver, true);
    assert_eq!(waiting(&bench), 0);
    bench.determine(true, Some(TWO));
    bench.prove(&both, Proof::Succeeded);
    assert_eq!(waiting(&bench), 2);
}

#[test]
fn whom_somebodys_word_took_out_of_recovery_is_accepted_at_the_end_beside_the_stranded() {
    let both = devices();
    let mut bench = standing(BASE, State::Referred, THREE, Devices::InRecovery, true);
    bench.determine(false, None);
    bench.inform();
    let overriding = |step| match step {
        Step::SetStatus { status, from, devices, reason, acknowledged, .. } => {
            let overridden = Some("seen to on site".into());
            Step::SetStatus { status, from, devices, reason, acknowledged, overridden }
        }
        step => step,
    };
    let left = |bench: &Bench| {
        let counts = bench.progress().targets.counts();
        (counts.stranded, counts.overridden_out)
    };
    let step = overriding(set(&mut bench, SmiStatus::Commissioned, &both[..1]));
    bench.take(&step);
    assert_eq!(left(&bench), (1, 1));
    let accept = |count, overridden| Step::AcceptStranded { count, overridden, reason: note() };
    // Neither number stands for the other.
    for (count, overridden) in [(0, None), (1, None), (2, None), (1, Some(0)), (1, Some(2)), (0, Some(1))] {
        assert!(bench.rules(&accept(count, overridden)).contains(&"stranded".to_owned()), "{count} {overridden:?}");
    }
    assert_eq!(bench.closing(), ["stranded"]);
    assert!(told(&bench).contains("accept-stranded INCIDENT --count 1 --overridden 1 "), "{}", told(&bench));
    bench.take(&accept(1, Some(1)));
    assert!(bench.closing().is_empty(), "{:?}", bench.closing());
    // The other one goes the same way: what was accepted is not so any more.
    let step = overriding(set(&mut bench, SmiStatus::Suspended, &both[1..]));
    bench.take(&step);
    assert_eq!((left(&bench), bench.progress().stranded_accepted), ((0, 2), None));
    assert_eq!(bench.closing(), ["stranded"], "nobody is in 'recovery', and two went out of it unproven");
    // From one status to another afterwards is no proof either; back in 'recovery' it is stranded.
    let step = set(&mut bench, SmiStatus::Commissioned, &both[1..]);
    bench.take(&step);
    assert_eq!(left(&bench), (0, 2));
    let step = set(&mut bench, SmiStatus::Recovery, &both[1..]);
    bench.force(&step);
    assert_eq!(left(&bench), (1, 1));
    bench.take(&accept(1, Some(1)));
    assert!(bench.closing().is_empty(), "{:?}", bench.closing());

    // Its own Response is.
    let mut bench = standing(BASE, State::Executing, THREE, Devices::InRecovery, true);
    let step = overriding(set(&mut bench, SmiStatus::Commissioned, &both));
    bench.take(&step);
    bench.prove(&both[..1], Proof::Succeeded);
    assert_eq!(left(&bench), (0, 1));
}

#[test]
fn no_list_and_no_extract_is_read_for_a_step_that_is_refused_without_it() {
    let first = devices()[0];
    let steps = |bench: &mut Bench| {
        let (assess, named) = (bench.assess(THREE), bench.named(&[first]));
        let extract = bench.file(FileKind::SmiExtract);
        [
            assess,
            status(SmiStatus::Recovery, Some(named), bench.at),
            Step::Exclude { devices: named, reason: note() },
            Step::HandOver { devices: Some(named), evidence: note() },
            Step::ImportStatuses { extract, changes: 0, contradictions: 0, acknowledged: true, reason: None },
        ]
    };
    // In its place, but for a word that is missing; out of it; and after the end.
    let mut bench = standing(BASE, State::PostRecovery, TWO, Devices::Recovered, true);
    for step in steps(&mut bench).into_iter().filter(|step| !matches!(step, Step::ImportStatuses { .. })) {
        let (step, before) = (wordless(step), bench.lists_read());
        assert!(!bench.rules(&step).is_empty(), "{step:?}");
        assert_eq!(bench.lists_read(), before, "{step:?}");
    }
    for state in [State::Reported, State::Dismissed, State::Closed] {
        let mut bench = standing(BASE, state, TWO, Devices::Untouched, false);
        if state == State::Closed {
            bench.close();
        }
        for step in steps(&mut bench) {
            let before = bench.lists_read();
            assert!(!bench.rules(&step).is_empty(), "{state}: {step:?}");
            assert_eq!(bench.lists_read(), before, "{state}: {step:?}");
        }
    }
    // Where nothing else speaks against it, it is.
    let mut bench = standing(BASE, State::PostRecovery, TWO, Devices::Recovered, true);
    let (named, before) = (bench.named(&[first]), bench.lists_read());
    assert!(bench.rules(&Step::HandOver { devices: Some(named), evidence: note() }).is_empty());
    assert_eq!(bench.lists_read(), before + 1);
    let stranger = bench.named(&["00DB1234567890FF".parse().unwrap()]);
    assert_eq!(bench.rules(&Step::HandOver { devices: Some(stranger), evidence: note() }), ["devices"]);
}

/// The same step with nothing in the place of a text that it must have.
fn wordless(step: Step) -> Step {
    match step {
        Step::Exclude { devices, reason: _ } => Step::Exclude { devices, reason: "".into() },
        Step::HandOver { devices, evidence: _ } => Step::HandOver { devices, evidence: "".into() },
        Step::SetStatus { status, from, devices, acknowledged, overridden, .. } => {
            Step::SetStatus { status, from, devices, reason: Some("".into()), acknowledged, overridden }
        }
        step => step,
    }
}
