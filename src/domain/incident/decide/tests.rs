use super::super::targets::{Control, Proof};
use super::super::tests::notification;
use super::super::{Determined, DutyArising};
use super::*;
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
    gates: Gates,
    mechanisms: BTreeSet<MechanismId>,
    notifications: BTreeSet<Digest>,
    adt_accepted: bool,
    determination: Option<Standing>,
    departures: BTreeMap<StepId, DirectionId>,
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
            gates: Gates { status: Gate::NotRequired, adt: Gate::NotRequired },
            mechanisms: ["call-back".parse().unwrap()].into(),
            notifications: [Digest([1; 32])].into(),
            adt_accepted: false,
            determination: Some(Standing {
                in_force: Ok(()),
                has_scope: true,
                key: Some("recovery-1".parse().unwrap()),
            }),
            departures: BTreeMap::new(),
        }
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            progress: &self.progress,
            now: at(0),
            gates: &self.gates,
            mechanisms: &self.mechanisms,
            notifications: &self.notifications,
            adt_accepted: self.adt_accepted,
            determination: self.determination.clone(),
            departures: &self.departures,
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
            self.progress.targets.prove(device, proof, self.progress.method);
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
    Step::Refer { notification: Digest([1; 32]), new_facts: new_facts.map(Into::into) }
}

fn status(status: SmiStatus) -> Step {
    Step::SetStatus { status, from: at(-1), devices: None, reason: None, acknowledged: true, overridden: None }
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
        (Step::Pause { reason: note() }, vec![S::KeyActive, S::Executing]),
        (Step::Finish { note: note() }, vec![S::Executing, S::Paused]),
        (Step::BeginPostRecovery { note: note() }, vec![S::Executed]),
        (status(SmiStatus::Recovery), TARGETED.to_vec()),
        (Step::Exclude { devices: named(1), reason: note() }, TARGETED.to_vec()),
        (
            Step::AcceptStranded { count: 0, reason: note() },
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
fn a_referral_needs_the_accepted_notification_file_or_a_direction_to_depart() {
    let mut case = Case::new(State::Assessed);
    case.notifications.clear();
    assert_eq!(case.rules(&refer(None)), ["notification-file"]);
    let direction: DirectionId = "0123456789abcdef0123456789abcdef".parse().unwrap();
    case.departures.insert("submit-notification-file".parse().unwrap(), direction);
    assert_eq!(decide(&refer(None), &case.situation()).unwrap().departures, [direction]);
}

#[test]
fn new_facts_are_asked_for_after_a_negative_determination_and_only_then() {
    assert_eq!(Case::new(State::Assessed).rules(&refer(Some("x"))), ["new-facts"]);
    assert_eq!(Case::new(State::DeterminedNotToExecute).rules(&refer(None)), ["new-facts"]);
}

#[test]
fn status_and_adt_file_precede_where_they_are_due_and_nowhere_else() {
    let due = |by: &str| Gate::Due { by: by.into() };
    let relieved = || Gate::Relieved { by: "clause".into() };
    let steps = [(State::Assessed, refer(None)), (State::DeterminedToExecute, Step::Prepare { note: note() })];
    for (state, step) in steps {
        for (status, adt, expected) in [
            (due("base 4.2.1.1"), due("base 4.2.1.2"), vec!["smi-status", "adt-file"]),
            (relieved(), due("base 4.2.1.2"), vec!["adt-file"]),
            (due("base 4.2.1.1"), relieved(), vec!["smi-status"]),
            (relieved(), relieved(), vec![]),
            (Gate::NotRequired, Gate::NotRequired, vec![]),
        ] {
            let mut case = Case::new(state);
            case.gates = Gates { status, adt };
            assert_eq!(case.rules(&step), expected, "{state} {:?}", case.gates);
            // Done, nothing is missing.
            case.adt_accepted = true;
            assert!(case.set_all(SmiStatus::Recovery).rules(&step).is_empty());
        }
    }
}

#[test]
fn one_target_without_the_status_is_one_too_few_unless_it_is_left_out() {
    let mut case = Case::new(State::Assessed).set_all(SmiStatus::Recovery);
    case.gates.status = Gate::Due { by: "base".into() };
    assert!(case.rules(&refer(None)).is_empty());
    let none: Option<Source> = None;
    let mut first = true;
    let reset = |target: &mut super::super::Target| {
        if std::mem::take(&mut first) {
            target.status = SmiStatus::Commissioned;
        }
    };
    case.progress.targets.each(none, reset).unwrap();
    assert_eq!(case.rules(&refer(None)), ["smi-status"]);
    let device = case.progress.targets.all()[0].device;
    case.progress.targets.each(none, |target| target.excluded |= target.device == device).unwrap();
    assert!(case.rules(&refer(None)).is_empty());
}

#[test]
fn recovery_is_a_one_way_door_that_is_acknowledged_and_explained_where_nobody_asks_for_it() {
    let mut case = Case::new(State::Assessed);
    let step = |acknowledged, reason: Option<&str>| Step::SetStatus {
        status: SmiStatus::Recovery,
        from: at(-1),
        devices: None,
        reason: reason.map(Into::into),
        acknowledged,
        overridden: None,
    };
    assert!(case.rules(&step(true, None)).is_empty());
    assert_eq!(case.rules(&step(false, None)), ["acknowledgement"]);
    // The variation relieves the DCC of it until the PMA determined: who does it all the same says why.
    case.gates.status = Gate::Relieved { by: "variation (a)".into() };
    assert_eq!(case.rules(&step(true, None)), ["reason"]);
    assert!(case.rules(&step(true, Some("the meters are read by somebody else"))).is_empty());
    let id = "0123456789abcdef0123456789abcdef".parse().unwrap();
    case.progress.determined = Some(Determined { id, execute: true, method: None });
    assert!(case.rules(&step(true, None)).is_empty());
}

#[test]
fn a_status_does_not_begin_in_the_future() {
    let case = Case::new(State::Assessed);
    let step = |from| Step::SetStatus {
        status: SmiStatus::Recovery,
        from,
        devices: None,
        reason: None,
        acknowledged: true,
        overridden: None,
    };
    assert!(case.rules(&step(at(0))).is_empty());
    assert_eq!(case.rules(&step(at(1))), ["in-the-future"]);
}

#[test]
fn no_way_leads_out_of_recovery_without_proof_or_an_override() {
    let case = Case::new(State::PostRecovery).set_all(SmiStatus::Recovery);
    let mut target = case.progress.targets.all()[0];
    for status in SmiStatus::ALL {
        let free = status == SmiStatus::Recovery;
        assert_eq!(decide_status(&target, status, false).is_ok(), free, "{status}");
        assert!(decide_status(&target, status, true).is_ok(), "{status}");
    }
    target.proof = Proof::Failed;
    assert!(decide_status(&target, SmiStatus::Recovered, false).unwrap_err().contains("one that says it failed"));
    target.proof = Proof::Succeeded;
    for status in SmiStatus::ALL {
        assert_eq!(decide_status(&target, status, false).is_ok(), status != SmiStatus::Recovery, "{status}");
    }
    // Method 2: under the DCC's control until it is handed over.
    target.control = Control::Dcc;
    assert!(decide_status(&target, SmiStatus::Recovered, false).is_ok());
    assert!(decide_status(&target, SmiStatus::Commissioned, false).is_err());
    target.control = Control::HandedOver;
    assert!(decide_status(&target, SmiStatus::Commissioned, false).is_ok());
}

#[test]
fn a_preparation_needs_a_determination_in_force_with_its_scope() {
    let step = Step::Prepare { note: note() };
    let mut case = Case::new(State::DeterminedToExecute);
    assert!(case.rules(&step).is_empty());
    case.determination = Some(Standing { in_force: Ok(()), has_scope: false, key: None });
    assert_eq!(case.rules(&step), ["scope"]);
    case.determination = Some(Standing {
        in_force: Err("it is suspended".into()),
        has_scope: true,
        key: Some("recovery-1".parse().unwrap()),
    });
    assert_eq!(case.rules(&step), ["determination"]);
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

#[test]
fn an_incident_is_closed_with_every_duty_met_and_the_stranded_accepted() {
    let rules = |progress: &Progress| match decide_close(progress) {
        Ok(()) => Vec::new(),
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
        assert_eq!(rules(&Case::new(state).progress).is_empty(), closable, "{state}");
    }
    let mut case = Case::new(State::DeterminedNotToExecute).set_all(SmiStatus::Recovery);
    assert_eq!(rules(&case.progress), ["stranded"]);
    case.progress.stranded_accepted = Some(1);
    assert_eq!(rules(&case.progress), ["stranded"], "another number was accepted");
    case.progress.stranded_accepted = Some(2);
    assert!(rules(&case.progress).is_empty());
    let duty = DutyArising {
        duty: "inform-pma".parse().unwrap(),
        recipient: "SMKI PMA".into(),
        text: "the end".into(),
        within_hours: None,
        step: None,
    };
    case.progress.arise([duty], at(0));
    assert_eq!(rules(&case.progress), ["open-duty"]);

    let case = Case::new(State::PostRecovery).end_all(Proof::Succeeded);
    assert!(rules(&case.progress).is_empty());
    // Recovered by Method 2, they are the DCC's until they are handed over, however the incident ended.
    for state in [State::PostRecovery, State::Withdrawn, State::DeterminedNotToExecute] {
        let mut case = Case::new(state);
        case.progress.method = Some(Method::AcbCertificates);
        let mut case = case.end_all(Proof::Succeeded);
        assert_eq!(rules(&case.progress), ["hand-over"], "{state}");
        case.progress.method = Some(Method::NewOrganisationCertificates);
        assert_eq!(rules(&case.progress), ["hand-over"], "{state}: another method determined later frees no Device");
    }
}

#[test]
fn stranded_devices_are_accepted_by_their_number() {
    let case = Case::new(State::DeterminedNotToExecute).set_all(SmiStatus::Recovery);
    let step = |count| Step::AcceptStranded { count, reason: note() };
    assert!(case.rules(&step(2)).is_empty());
    assert_eq!(case.rules(&step(1)), ["stranded"]);
}

#[test]
fn the_pma_determines_on_what_was_referred_or_in_the_place_of_what_it_determined() {
    let followed = Determined { id: DeterminationId([7; 16]), execute: true, method: None };
    for state in State::ALL {
        let mut progress = Case::new(state).progress;
        progress.state = state;
        progress.determined = Some(followed);
        assert_eq!(decide_determination(&progress, None).is_ok(), state == State::Referred, "{state}");
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
        assert_eq!(decide_determination(&progress, Some(followed.id)).is_ok(), may_supersede, "{state}");
        // In the place of another than it follows: only where it follows none any more.
        let other = Some(DeterminationId([8; 16]));
        assert_eq!(decide_determination(&progress, other).is_ok(), state == State::Referred, "{state}");
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

#[test]
fn every_state_but_the_last_has_something_to_do() {
    for state in State::ALL {
        let case = Case::new(state);
        let next = super::super::next::next(&case.situation());
        assert_eq!(next.is_empty(), state == State::Closed, "{state}");
    }
}

/// What is to be done in a case, as one text.
fn told(case: &Case) -> String {
    let line = |todo: super::super::next::ToDo| {
        let command = todo.command.unwrap_or_default();
        format!("{}: {} > {command}\n", todo.who, todo.what)
    };
    super::super::next::next(&case.situation()).into_iter().map(line).collect()
}

#[test]
fn a_command_to_be_done_next_holds_whatever_is_known() {
    let id = DeterminationId([9; 16]);
    let check = |state: State, expected: &str| {
        let mut case = Case::new(state);
        case.progress.determined = Some(Determined { id, execute: true, method: case.progress.method });
        let told = told(&case);
        assert!(told.contains(expected), "{state}: {expected:?} in {told}");
    };
    check(State::Reported, "by a permitted mechanism (call-back)");
    check(State::Assessed, &format!("refer INCIDENT --notification {}", Digest([1; 32])));
    check(State::Prepared, "smkictl key activate recovery-1");
    check(State::Executing, &format!("smkictl recovery sign --determination {id} "));
    check(State::Executing, &format!("--certificates DEVICE-CERTIFICATES/ --determination {id}"));

    // Which of two notification files it is, only a person knows.
    let mut two = Case::new(State::Assessed);
    two.notifications = [Digest([1; 32]), Digest([2; 32])].into();
    assert!(told(&two).contains("refer INCIDENT --notification SHA-256"), "{}", told(&two));
}

#[test]
fn after_the_execution_whatever_keeps_the_incident_open_is_to_be_done_next() {
    let (close, count) = ("> smkictl incident close INCIDENT", Case::new(State::PostRecovery).progress.targets.len());
    let proven = Case::new(State::PostRecovery).set_all(SmiStatus::Recovery).end_all(Proof::Succeeded);
    assert!(
        told(&proven).contains("set-status INCIDENT recovered --from DATE --devices proven.txt"),
        "{}",
        told(&proven)
    );
    assert!(told(&proven).contains("Then close"), "{}", told(&proven));
    let stranded = Case::new(State::PostRecovery).set_all(SmiStatus::Recovery);
    assert!(told(&stranded).contains(&format!("accept-stranded INCIDENT --count {count} ")), "{}", told(&stranded));
    let nothing = told(&Case::new(State::PostRecovery));
    assert!(nothing.contains(close) && !nothing.contains("stranded") && !nothing.contains("set-status"), "{nothing}");
}

#[test]
fn a_determination_that_is_not_in_force_is_told_of_before_the_key_is_asked_for() {
    for state in [State::DeterminedToExecute, State::Prepared, State::KeyActive, State::Executing, State::Paused] {
        let mut case = Case::new(state);
        assert!(!told(&case).contains("Nothing can be signed"), "{state}: {}", told(&case));
        case.determination = Some(Standing {
            in_force: Err("it is suspended".into()),
            has_scope: true,
            key: Some("recovery-1".parse().unwrap()),
        });
        assert!(
            told(&case).starts_with("SMKI PMA: Nothing can be signed: it is suspended"),
            "{state}: {}",
            told(&case)
        );
    }
}
