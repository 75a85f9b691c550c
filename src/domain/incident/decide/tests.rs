use super::super::targets::{Control, Proof};
use super::super::tests::notification;
use super::super::{Determined, DutyArising};
use super::*;
use crate::domain::incident::Accepted;
use crate::domain::ledger::steps::{Certainty, DevicesNamed};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_500_000_000_000 + seconds * 1_000).unwrap()
}

const LIST: &str = "00DB123456789001,Commissioned,2017-07-01,reads\n00DB123456789002,Commissioned,2017-07-01,reads\n";

/// Where a list would come from.
type Source = fn(&mut dyn FnMut(&[u8])) -> Result<(), std::convert::Infallible>;

/// Facts under which every step may be taken at its place.
struct Case {
    progress: Progress,
    mechanisms: BTreeSet<MechanismId>,
    notifications: BTreeSet<Digest>,
    determination: Option<Followed>,
    key: Option<OtherKey>,
    generation: Option<Generation>,
}

impl Case {
    fn new(state: State) -> Self {
        let mut progress = Progress::reported(notification(), at(-50), 3);
        progress.targets = super::super::Targets::read(|piece: &mut dyn FnMut(&[u8])| {
            piece(LIST.as_bytes());
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap();
        progress.method = Some(Method::NewOrganisationCertificates);
        progress.state = state;
        Self {
            progress,
            mechanisms: ["call-back".parse().unwrap()].into(),
            notifications: [Digest([1; 32])].into(),
            determination: Some(Followed { not_in_force: None, has_scope: true, key: None }),
            key: None,
            generation: None,
        }
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            progress: &self.progress,
            counts: self.progress.targets.counts(),
            now: at(0),
            // What a profile demands is held against the whole state, where that is folded.
            demands: &[],
            mechanisms: &self.mechanisms,
            notifications: &self.notifications,
            determination: self.determination.clone(),
            key: self.key,
            generation: self.generation.clone(),
        }
    }

    /// The rules by which a step is refused; none if it may be taken.
    fn rules(&self, step: &Step) -> Vec<String> {
        match decide(step, &self.situation()) {
            Ok(_) => Vec::new(),
            Err(reasons) => reasons.iter().map(|reason| reason.rule.to_string()).collect(),
        }
    }

    fn end_all(mut self, proof: Proof) -> Self {
        let devices: Vec<_> = self.progress.targets.all().iter().map(|target| target.device).collect();
        for device in devices {
            self.progress.targets.prove([(device, proof)], DeterminationId([1; 16]));
        }
        self
    }

    fn set_all(mut self, status: SmiStatus) -> Self {
        let none: Option<Source> = None;
        self.progress.targets.each(none, |target| target.status = status).unwrap();
        self
    }
}

fn named(count: u64) -> DevicesNamed {
    DevicesNamed { list: Digest([7; 32]), count }
}

fn note() -> Box<str> {
    "seen".into()
}

fn confirm() -> Step {
    let mechanism = "call-back".parse().unwrap();
    Step::Confirm { mechanism, certainty: Certainty::Actual, evidence: note() }
}

fn refer(new_facts: Option<&str>) -> Step {
    Step::Refer { notification: Some(Digest([1; 32])), new_facts: new_facts.map(Into::into) }
}

fn status(status: SmiStatus) -> Step {
    let from = CivilDate::of(at(0)).unwrap().begins();
    Step::SetStatus { status, from, devices: None, reason: None, acknowledged: true, overridden: None }
}

fn import(changes: u64, contradictions: u64) -> Step {
    Step::ImportStatuses { extract: Digest([3; 32]), changes, contradictions, acknowledged: true, reason: None }
}

/// Every transition of the state machine: the step, and the states from which alone it may be taken.
fn transitions() -> Vec<(Step, Vec<State>)> {
    use State as S;
    vec![
        (confirm(), vec![S::Reported]),
        (Step::Dismiss { reason: note() }, vec![S::Reported]),
        (
            Step::Assess { method: Method::NewOrganisationCertificates, targets: named(2) },
            vec![S::Confirmed, S::Assessed],
        ),
        (refer(None), vec![S::Assessed]),
        (refer(Some("a fourth meter was read")), vec![S::DeterminedNotToExecute]),
        (Step::Prepare { note: note() }, vec![S::DeterminedToExecute]),
        (Step::Pause { reason: note() }, vec![S::KeyActive, S::Executing, S::Paused]),
        (Step::Finish { note: note() }, vec![S::Executing, S::Paused]),
        (Step::BeginPostRecovery { note: note() }, vec![S::Executed]),
        // Beyond these no key will ever bring a Device back that is set to 'recovery'.
        (
            status(SmiStatus::Recovery),
            vec![S::Assessed, S::Referred, S::DeterminedToExecute, S::Prepared, S::KeyActive, S::Executing, S::Paused],
        ),
        (
            Step::Exclude { devices: named(1), reason: note() },
            State::ALL
                .into_iter()
                .filter(|state| !matches!(state, S::Reported | S::Confirmed | S::Dismissed | S::Closed))
                .collect(),
        ),
        (
            import(2, 1),
            State::ALL
                .into_iter()
                .filter(|state| !matches!(state, S::Reported | S::Confirmed | S::Dismissed | S::Closed))
                .collect(),
        ),
        (
            Step::AcceptStranded { count: 0, overridden: None, reason: note() },
            vec![
                S::SubscriberRecovery,
                S::DeterminedNotToExecute,
                S::Executed,
                S::PostRecovery,
                S::Withdrawn,
                S::Dismissed,
            ],
        ),
    ]
}

#[test]
fn every_step_may_be_taken_from_its_states_and_from_no_other() {
    for (step, from) in transitions() {
        for state in State::ALL {
            let case = Case::new(state).end_all(Proof::Succeeded);
            let rules = case.rules(&step);
            assert_eq!(rules.is_empty(), from.contains(&state), "{step:?} from {state}: {rules:?}");
        }
    }
}

#[test]
fn an_incident_that_a_locked_key_let_stand_still_can_be_paused_and_one_that_is_paused_cannot_again() {
    let mut case = Case::new(State::Paused);
    let pause = Step::Pause { reason: note() };
    assert!(case.rules(&pause).is_empty());
    case.progress.paused_by = Some(9);
    assert_eq!(case.rules(&pause), ["incident-state"]);
}

#[test]
fn a_subscriber_recovers_by_itself_only_with_method_1() {
    let step = Step::SubscriberRecovery { note: note() };
    for (method, allowed) in [
        (Method::SubscriberKey, true),
        (Method::AcbCertificates, false),
        (Method::NewOrganisationCertificates, false),
        (Method::Contingency, false),
    ] {
        let mut case = Case::new(State::Assessed);
        case.progress.method = Some(method);
        assert_eq!(case.rules(&step).is_empty(), allowed, "{method:?}");
    }
}

#[test]
fn only_a_permitted_mechanism_confirms() {
    let mut case = Case::new(State::Reported);
    assert!(case.rules(&confirm()).is_empty());
    case.mechanisms = ["letter".parse().unwrap()].into();
    assert_eq!(case.rules(&confirm()), ["mechanism"]);
}

#[test]
fn the_class_of_the_key_says_which_methods_there_are() {
    let assess = |method| Step::Assess { method, targets: named(2) };
    for (class, fits) in [
        (
            CompromiseClass::Organisation,
            vec![Method::SubscriberKey, Method::AcbCertificates, Method::NewOrganisationCertificates],
        ),
        (CompromiseClass::Other, vec![Method::Contingency]),
    ] {
        let mut case = Case::new(State::Confirmed);
        case.progress.notification.class = class;
        for method in
            [Method::SubscriberKey, Method::AcbCertificates, Method::NewOrganisationCertificates, Method::Contingency]
        {
            assert_eq!(case.rules(&assess(method)).is_empty(), fits.contains(&method), "{class:?} {method:?}");
        }
    }
}

#[test]
fn a_referral_names_an_accepted_notification_file() {
    let mut case = Case::new(State::Assessed);
    let without = Step::Refer { notification: None, new_facts: None };
    assert_eq!(case.rules(&without), ["notification-file"]);
    assert!(case.rules(&refer(None)).is_empty());
    case.notifications.clear();
    assert_eq!(case.rules(&refer(None)), ["notification-file"]);
    assert_eq!(case.rules(&without), ["notification-file"]);
}

#[test]
fn new_facts_are_asked_for_after_a_negative_determination_and_only_then() {
    assert_eq!(Case::new(State::Assessed).rules(&refer(Some("x"))), ["new-facts"]);
    assert_eq!(Case::new(State::DeterminedNotToExecute).rules(&refer(None)), ["new-facts"]);
}

#[test]
fn an_extract_is_recorded_as_it_was_read_and_through_the_same_one_way_door() {
    let compared = Compared { new: 2, to_recovery: 1, contradictions: 1, ..Compared::default() };
    let rules = |case: &Case, step: &Step, compared: &Compared| -> Vec<String> {
        let refused = decide_import(step, compared, &case.situation()).err().unwrap_or_default();
        refused.iter().map(|reason| reason.rule.to_string()).collect()
    };
    let case = Case::new(State::Assessed);
    assert!(rules(&case, &import(2, 1), &compared).is_empty());
    for (changes, contradictions) in [(1, 1), (3, 1), (2, 0), (2, 2)] {
        assert_eq!(rules(&case, &import(changes, contradictions), &compared), ["extract"]);
    }
    let nothing = Compared { new: 0, contradictions: 1, ..Compared::default() };
    assert_eq!(rules(&case, &import(0, 1), &nothing), ["extract"]);
    let closed = Step::ImportStatuses {
        extract: Digest([3; 32]),
        changes: 2,
        contradictions: 1,
        acknowledged: false,
        reason: None,
    };
    assert_eq!(rules(&case, &closed, &compared), ["acknowledgement"]);
    let harmless = Compared { to_recovery: 0, ..compared };
    assert!(rules(&case, &closed, &harmless).is_empty());
    // Beyond the execution no key brings a Device back, and the Inventory alone does not say otherwise.
    let late = Case::new(State::PostRecovery);
    assert_eq!(rules(&late, &import(2, 1), &compared), ["incident-state"]);
    assert!(rules(&late, &import(2, 1), &harmless).is_empty());
}

#[test]
fn recovery_is_a_one_way_door_that_is_acknowledged() {
    let case = Case::new(State::Assessed);
    let mut step = status(SmiStatus::Recovery);
    assert!(case.rules(&step).is_empty());
    if let Step::SetStatus { acknowledged, .. } = &mut step {
        *acknowledged = false;
    }
    assert_eq!(case.rules(&step), ["acknowledgement"]);
}

#[test]
fn a_status_applies_from_the_beginning_of_a_day_in_london_that_has_begun() {
    let case = Case::new(State::Assessed);
    let step = |from: Timestamp| match status(SmiStatus::Recovery) {
        Step::SetStatus { status, devices, reason, acknowledged, overridden, .. } => {
            Step::SetStatus { status, from, devices, reason, acknowledged, overridden }
        }
        _ => unreachable!("it sets a status"),
    };
    let today = CivilDate::of(at(0)).unwrap().begins();
    let tomorrow = CivilDate::of(today.plus_ms(25 * 3_600_000)).unwrap().begins();
    assert!(case.rules(&step(today)).is_empty());
    assert_eq!(case.rules(&step(tomorrow)), ["in-the-future"]);
    for besides in [-1, 1] {
        assert_eq!(case.rules(&step(today.plus_ms(besides))), ["from"]);
    }
    // It is a day of July: midnight of London is not that of Greenwich.
    assert_eq!(case.rules(&step("2017-07-13T00:00:00Z".parse().unwrap())), ["from"]);
}

#[test]
fn a_status_does_not_apply_from_before_the_one_that_it_follows() {
    let mut target = Case::new(State::Assessed).progress.targets.all()[0];
    let step = |overridden: Option<&str>| Step::SetStatus {
        status: SmiStatus::Recovery,
        from: at(0),
        devices: None,
        reason: None,
        acknowledged: true,
        overridden: overridden.map(Into::into),
    };
    target.since = at(0);
    assert!(decide_device(&step(None), &target, true).is_ok());
    target.since = at(0).plus_ms(1);
    assert!(decide_device(&step(None), &target, true).unwrap_err().contains("not before that"));
    assert!(decide_device(&step(Some("corrected")), &target, true).is_ok());
}

#[test]
fn no_way_leads_out_of_recovery_without_proof_or_an_override_and_none_to_recovered_without_proof() {
    let case = Case::new(State::PostRecovery).set_all(SmiStatus::Recovery);
    let mut target = case.progress.targets.all()[0];
    let may = |target: &Target, status: SmiStatus, overridden: bool| decide_status(target, status, overridden);
    for status in SmiStatus::ALL {
        assert_eq!(may(&target, status, false).is_ok(), status == SmiStatus::Recovery, "{status}");
        // Nobody can say in a Device's place that it is recovered.
        assert_eq!(may(&target, status, true).is_ok(), status != SmiStatus::Recovered, "{status}");
    }
    target.proof = Proof::Failed;
    for overridden in [false, true] {
        assert!(may(&target, SmiStatus::Recovered, overridden).unwrap_err().contains("one that says it failed"));
    }
    target.proof = Proof::Succeeded;
    for status in SmiStatus::ALL {
        assert_eq!(may(&target, status, false).is_ok(), status != SmiStatus::Recovery, "{status}");
    }
    // Method 2: under the DCC's control until it is handed over, and no override lets it go.
    target.control = Control::Dcc;
    for overridden in [false, true] {
        assert!(may(&target, SmiStatus::Recovered, overridden).is_ok());
        assert!(may(&target, SmiStatus::Commissioned, overridden).unwrap_err().contains("hand-over"));
    }
    target.control = Control::HandedOver;
    assert!(may(&target, SmiStatus::Commissioned, false).is_ok());
}

#[test]
fn a_device_is_handed_over_that_is_under_the_dccs_control_and_recovered() {
    let mut target = Case::new(State::PostRecovery).progress.targets.all()[0];
    let named = Step::HandOver { devices: Some(named(1)), evidence: note() };
    let all = Step::HandOver { devices: None, evidence: note() };
    for (control, status, by_name, by_all) in [
        (Control::Dcc, SmiStatus::Recovered, true, true),
        (Control::Dcc, SmiStatus::Recovery, false, false),
        (Control::Dcc, SmiStatus::Commissioned, false, false),
        // It was never the DCC's: a list does not name it, and those that wait are others.
        (Control::AsBefore, SmiStatus::Recovered, false, true),
        (Control::HandedOver, SmiStatus::Commissioned, false, true),
    ] {
        (target.control, target.status) = (control, status);
        assert_eq!(decide_device(&named, &target, true).is_ok(), by_name, "{control:?} {status}");
        assert_eq!(decide_device(&all, &target, true).is_ok(), by_all, "{control:?} {status}");
    }
}

#[test]
fn a_device_that_is_proven_recovered_is_not_left_out() {
    let mut target = Case::new(State::Executing).progress.targets.all()[0];
    let step = Step::Exclude { devices: named(1), reason: note() };
    for proof in [Proof::None, Proof::Failed, Proof::Succeeded] {
        target.proof = proof;
        assert_eq!(decide_device(&step, &target, true).is_ok(), proof != Proof::Succeeded, "{proof:?}");
    }
}

#[test]
fn a_preparation_needs_a_determination_with_its_scope() {
    let step = Step::Prepare { note: note() };
    let mut case = Case::new(State::DeterminedToExecute);
    assert!(case.rules(&step).is_empty());
    case.determination = Some(Followed { not_in_force: None, has_scope: false, key: None });
    assert_eq!(case.rules(&step), ["scope"]);
    case.determination = None;
    assert_eq!(case.rules(&step), ["determination"]);
}

#[test]
fn execution_ends_when_every_target_is_proven_or_left_out() {
    let step = Step::Finish { note: note() };
    assert_eq!(Case::new(State::Executing).rules(&step), ["outstanding"]);
    assert_eq!(Case::new(State::Executing).end_all(Proof::Failed).rules(&step), ["outstanding"]);
    assert!(Case::new(State::Executing).end_all(Proof::Succeeded).rules(&step).is_empty());
}

const fn stranded(stranded: u64) -> Accepted {
    Accepted { stranded, overridden: 0 }
}

#[test]
fn an_incident_is_closed_with_every_duty_met_and_the_stranded_accepted() {
    let rules = |case: &Case| match decide_close(&case.situation()) {
        Ok(_) => Vec::new(),
        Err(reasons) => reasons.iter().map(|reason| reason.rule.to_string()).collect(),
    };
    for state in State::ALL {
        let closable = matches!(
            state,
            State::PostRecovery
                | State::SubscriberRecovery
                | State::DeterminedNotToExecute
                | State::Dismissed
                | State::Withdrawn
        );
        assert_eq!(rules(&Case::new(state)).is_empty(), closable, "{state}");
    }
    let mut case = Case::new(State::DeterminedNotToExecute).set_all(SmiStatus::Recovery);
    assert_eq!(rules(&case), ["stranded"]);
    case.progress.stranded_accepted = Some(stranded(1));
    assert_eq!(rules(&case), ["stranded"], "another number was accepted");
    case.progress.stranded_accepted = Some(stranded(2));
    assert!(rules(&case).is_empty());
    let duty = DutyArising {
        duty: "inform-pma".parse().unwrap(),
        recipient: "SMKI PMA".into(),
        text: "the end".into(),
        within_hours: None,
        step: None,
    };
    case.progress.arise([duty], at(0));
    assert_eq!(rules(&case), ["open-duty"]);
}

#[test]
fn stranded_devices_are_accepted_by_their_number() {
    let case = Case::new(State::DeterminedNotToExecute).set_all(SmiStatus::Recovery);
    let step = |count| Step::AcceptStranded { count, overridden: None, reason: note() };
    assert!(case.rules(&step(2)).is_empty());
    assert_eq!(case.rules(&step(1)), ["stranded"]);
}

#[test]
fn the_pma_determines_on_what_was_referred_or_in_the_place_of_what_it_determined() {
    let followed = Determined { id: DeterminationId([7; 16]), execute: true, method: None };
    for state in State::ALL {
        let mut case = Case::new(state);
        case.progress.determined = Some(followed);
        assert_eq!(decide_determination(&case.situation(), None).is_ok(), state == State::Referred, "{state}");
        let may_supersede = matches!(
            state,
            State::Referred
                | State::DeterminedNotToExecute
                | State::DeterminedToExecute
                | State::Prepared
                | State::KeyActive
                | State::Executing
                | State::Paused
        );
        assert_eq!(decide_determination(&case.situation(), Some(followed.id)).is_ok(), may_supersede, "{state}");
        // In the place of another than it follows: only where it follows none any more.
        let other = Some(DeterminationId([8; 16]));
        assert_eq!(decide_determination(&case.situation(), other).is_ok(), state == State::Referred, "{state}");
    }
}

#[test]
fn a_duty_is_met_once_and_by_something_that_has_happened() {
    let mut case = Case::new(State::Reported);
    let duty = DutyArising {
        duty: "inform-pma".parse().unwrap(),
        recipient: "SMKI PMA".into(),
        text: "the Compromise".into(),
        within_hours: None,
        step: None,
    };
    case.progress.arise([duty], at(-10));
    let inform = |duty: &str, moment| Step::Inform {
        duty: duty.parse().unwrap(),
        recipient: "the Chair".into(),
        at: moment,
        how: "telephone".into(),
    };
    assert!(case.rules(&inform("inform-pma", at(0))).is_empty());
    assert_eq!(case.rules(&inform("inform-pma", at(1))), ["in-the-future"]);
    assert_eq!(case.rules(&inform("inform-nobody", at(0))), ["duty"]);
    case.progress.duties.values_mut().for_each(|duty| duty.met = Some(4));
    assert_eq!(case.rules(&inform("inform-pma", at(0))), ["duty"]);
}
