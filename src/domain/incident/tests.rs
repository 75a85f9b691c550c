use super::*;
use crate::domain::ledger::steps::{Certainty, DevicesNamed};
use crate::domain::names::Digest;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_500_000_000_000 + seconds * 1_000).unwrap()
}

pub(super) fn notification() -> Notification {
    Notification {
        by: "Officer One".into(),
        party: "supplier-b".parse().unwrap(),
        certainty: Certainty::Suspected,
        class: CompromiseClass::Organisation,
        at: at(-60),
        channel: "telephone".into(),
        recovery_event: at(-3_600),
    }
}

const LIST: &str =
    "00DB123456789001,Commissioned,2017-07-01,reads of June\n00DB123456789002,Commissioned,2017-07-01,reads of June\n";
const ONE: DeterminationId = DeterminationId([1; 16]);
const FIRST: &str = "00DB123456789001\n";

fn named(count: u64) -> DevicesNamed {
    DevicesNamed { list: Digest([7; 32]), count }
}

/// Takes a step whose list, if it names one, is this.
fn take(progress: &mut Progress, step: &Step, list: &str) {
    let source = |piece: &mut dyn FnMut(&[u8])| {
        piece(list.as_bytes());
        Ok::<(), std::convert::Infallible>(())
    };
    progress.take(step, 9, at(9), source).unwrap();
}

/// The SMKI PMA determines to execute by that method.
fn follow(progress: &mut Progress, id: u8, method: Method) -> DeterminationId {
    let id = DeterminationId([id; 16]);
    progress.follow(Determined { id, execute: true, method: Some(method) }, [], at(5));
    id
}

fn assessed() -> Progress {
    let mut progress = Progress::reported(notification(), at(0), 3);
    take(&mut progress, &Step::Assess { method: Method::NewOrganisationCertificates, targets: named(2) }, LIST);
    progress
}

#[test]
fn each_step_brings_the_incident_where_the_procedure_says() {
    let note = || Box::<str>::from("done");
    let check = |step: Step, list: &str, expected: State| {
        let mut progress = assessed();
        take(&mut progress, &step, list);
        assert_eq!(progress.state, expected, "{step:?}");
        assert!(progress.has_done(step.meaning()));
    };
    let mechanism = "call-back".parse().unwrap();
    check(Step::Confirm { mechanism, certainty: Certainty::Actual, evidence: note() }, "", State::Confirmed);
    check(Step::Dismiss { reason: note() }, "", State::Dismissed);
    check(Step::Refer { notification: Some(Digest([1; 32])), new_facts: None }, "", State::Referred);
    check(Step::SubscriberRecovery { note: note() }, "", State::SubscriberRecovery);
    check(Step::Prepare { note: note() }, "", State::Prepared);
    check(Step::Pause { reason: note() }, "", State::Paused);
    check(Step::Finish { note: note() }, "", State::Executed);
    check(Step::BeginPostRecovery { note: note() }, "", State::PostRecovery);
    // These leave it where it is.
    check(Step::Exclude { devices: named(1), reason: note() }, FIRST, State::Assessed);
    check(Step::HandOver { devices: None, evidence: note() }, "", State::Assessed);
    check(Step::AcceptStranded { count: 0, overridden: None, reason: note() }, "", State::Assessed);
}

#[test]
fn a_pause_by_a_person_lasts_over_a_lock_and_ends_with_the_next_activation() {
    let mut progress = assessed();
    progress.enter(State::Executing, at(1));
    progress.enter(State::Paused, at(2));
    assert_eq!(progress.paused_by, None, "its key was locked");
    take(&mut progress, &Step::Pause { reason: "the first Responses look odd".into() }, "");
    assert!(progress.paused_by.is_some());
    progress.enter(State::Paused, at(3));
    assert!(progress.paused_by.is_some(), "its key was locked once more");
    progress.enter(State::KeyActive, at(4));
    assert_eq!(progress.paused_by, None);
}

#[test]
fn a_status_is_set_for_the_devices_of_the_list_or_for_all() {
    let status = |devices| Step::SetStatus {
        status: SmiStatus::Recovery,
        from: at(1),
        devices,
        reason: None,
        acknowledged: true,
        overridden: None,
    };
    let mut progress = assessed();
    take(&mut progress, &status(Some(named(1))), FIRST);
    assert_eq!(progress.targets.counts().in_recovery, 1);
    take(&mut progress, &status(None), "");
    let counts = progress.targets.counts();
    assert_eq!((counts.in_recovery, counts.stranded, counts.targets), (2, 2, 2));
}

#[test]
fn a_device_under_the_dccs_control_is_handed_over_and_is_commissioned_then() {
    let mut progress = assessed();
    let recovered = progress.targets.all()[0].device;
    let id = follow(&mut progress, 1, Method::AcbCertificates);
    progress.prove(recovered, targets::Proof::Succeeded, id);
    let list = FIRST;
    let status = Step::SetStatus {
        status: SmiStatus::Recovered,
        from: at(1),
        devices: Some(named(1)),
        reason: None,
        acknowledged: false,
        overridden: None,
    };
    take(&mut progress, &status, list);
    assert_eq!(progress.targets.counts().under_dcc_control, 1);
    take(&mut progress, &Step::HandOver { devices: None, evidence: "SRV 6.21".into() }, "");
    let (first, second) = (progress.targets.all()[0], progress.targets.all()[1]);
    assert!(first.control == targets::Control::HandedOver && first.status == SmiStatus::Commissioned);
    assert!(second.control == targets::Control::AsBefore, "it was not recovered");
}

#[test]
fn a_duty_is_met_by_the_first_entry_that_says_so_and_arises_anew_once_it_was_met() {
    let mut progress = assessed();
    let step: StepId = "inform-pma".parse().unwrap();
    let duty = |within_hours| DutyArising {
        duty: "tell-pma".parse().unwrap(),
        recipient: "SMKI PMA".into(),
        text: "the Compromise".into(),
        within_hours,
        step: Some(step.clone()),
    };
    progress.arise([duty(Some(24))], at(0));
    progress.arise([duty(None)], at(50));
    let (id, open) = progress.open_duties().next().unwrap();
    assert_eq!((open.arisen, open.due), (at(0), Some(at(24 * 3_600))), "an open one stays as it is");
    let inform = Step::Inform { duty: id.clone(), recipient: "Chair".into(), at: at(5), how: "letter".into() };
    take(&mut progress, &inform, "");
    assert_eq!((progress.open_duties().count(), progress.done[&step].entry), (0, 9));
    progress.arise([duty(Some(1))], at(100));
    let (_, open) = progress.open_duties().next().unwrap();
    assert_eq!((open.arisen, open.due, open.met), (at(100), Some(at(100 + 3_600)), None));
    assert!(!progress.done.contains_key(&step), "what met it is to be done again");
}

#[test]
fn an_override_marks_the_devices_that_needed_one() {
    type Lines = fn(&mut dyn FnMut(&[u8])) -> Result<(), std::convert::Infallible>;
    let mut progress = assessed();
    let proven = progress.targets.all()[0].device;
    let none: Option<Lines> = None;
    progress.targets.each(none, |target| target.status = SmiStatus::Recovery).unwrap();
    let id = follow(&mut progress, 1, Method::NewOrganisationCertificates);
    progress.prove(proven, targets::Proof::Succeeded, id);
    let step = Step::SetStatus {
        status: SmiStatus::Commissioned,
        from: at(1),
        devices: None,
        reason: None,
        acknowledged: false,
        overridden: Some("one was seen to on site".into()),
    };
    take(&mut progress, &step, "");
    let overridden: Vec<_> = progress.targets.all().iter().map(|target| target.overridden).collect();
    assert_eq!(overridden, [targets::Overridden::No, targets::Overridden::OutOfRecovery]);
    let counts = progress.targets.counts();
    assert_eq!((counts.overridden, counts.overridden_out, counts.stranded), (1, 1, 0));
}

#[test]
fn acceptance_of_the_stranded_ends_when_others_are_stranded() {
    let recovery = |devices| Step::SetStatus {
        status: SmiStatus::Recovery,
        from: at(1),
        devices,
        reason: None,
        acknowledged: true,
        overridden: None,
    };
    let accepted = || {
        let mut progress = assessed();
        follow(&mut progress, 1, Method::NewOrganisationCertificates);
        take(&mut progress, &recovery(Some(named(1))), FIRST);
        take(&mut progress, &Step::AcceptStranded { count: 1, overridden: None, reason: "r".into() }, "");
        progress
    };
    // The one recovers, the other is stranded in its place: it is one as before, and another.
    let mut progress = accepted();
    let (first, second) = (progress.targets.all()[0].device, progress.targets.all()[1].device);
    progress.prove(first, targets::Proof::Succeeded, ONE);
    assert_eq!(progress.stranded_accepted, None);
    let mut progress = accepted();
    take(&mut progress, &recovery(None), "");
    assert_eq!((progress.stranded_accepted, progress.targets.counts().stranded), (None, 2));
    // What alters nothing of them leaves it as it is.
    let mut progress = accepted();
    progress.prove(second, targets::Proof::Succeeded, ONE);
    progress.prove(first, targets::Proof::Failed, ONE);
    take(&mut progress, &recovery(Some(named(1))), FIRST);
    assert_eq!(progress.stranded_accepted, Some(Accepted { stranded: 1, overridden: 0 }));
}

#[test]
fn a_list_that_names_a_stranger_alters_nothing_of_the_line_and_is_refused() {
    let mut progress = assessed();
    let source = |piece: &mut dyn FnMut(&[u8])| {
        piece(b"00DB1234567890FF\n");
        Ok::<(), std::convert::Infallible>(())
    };
    let error = progress.take(&Step::Exclude { devices: named(1), reason: "r".into() }, 9, at(9), source).unwrap_err();
    assert_eq!(error.to_string(), "line 1: Device 00DB1234567890FF is not among the targets of the incident");
    assert_eq!(progress.targets.counts().excluded, 0);
}
