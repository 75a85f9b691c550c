use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::domain::determination::document::{self, LedgerHead, Type};
use crate::domain::gbcs::samples::{framed, recovery_update};
use crate::domain::incident::targets::{Proof, TargetsError};
use crate::domain::incident::{State, TakeError};
use crate::domain::intake::{Context, Head, Heads, steps};
use crate::domain::ledger::ceremonies::{CeremonyKind, CeremonyRecorded};
use crate::domain::ledger::contingency::{
    CheckResult, Compared, ContingencyChecked, ContingencyPrepared, OtherKey, ReleaseResult, RootImported,
    SymmetricKeySpent, SymmetricRelease, SymmetricReleased,
};
use crate::domain::ledger::entry::{Actor, Channel, Compromised, KeyLocked, KeyRecord, Reason, Role, Started, VERSION};
use crate::domain::ledger::steps::{
    Certainty, CompromiseClass, DevicesNamed, ExerciseRecorded, FileAccepted, Method, Notification, ProfileInForce,
    SmiStatus, Step, StepTaken,
};
use crate::domain::names::{DeviceId, DirectionId, FileKind, KeyId, KeyUse, StepId};
use crate::domain::policy::facts::{Scope, Standing};
use crate::domain::procedure::calendar::CivilDate;
use crate::domain::procedure::direction::{Direction, Directs};
use crate::domain::procedure::in_force::tests::shipped;
use crate::domain::time::Window;

/// Before the variation of 2017, while it is in force, and after.
pub(in crate::domain) const BASE: &str = "2017-07-01T12:00:00Z";
pub(in crate::domain) const VARIED: &str = "2017-08-01T12:00:00Z";
pub(in crate::domain) const OVER: &str = "2017-12-01T12:00:00Z";

/// Two Devices of the affected Subscriber.
pub(in crate::domain) fn devices() -> [DeviceId; 2] {
    ["00DB123456789001", "00DB123456789002"].map(|device| device.parse().unwrap())
}

const LIST: &str =
    "00DB123456789001,Commissioned,2017-06-01,reads of June\n00DB123456789002,Commissioned,2017-06-01,reads of June\n";

/// The policy that is shipped, read once.
static SHIPPED: LazyLock<Arc<Policy>> = LazyLock::new(|| Arc::new(shipped("included")));

/// One incident under the policy that is shipped, and what its entries say, without any signature.
pub(in crate::domain) struct Bench {
    pub(in crate::domain) fold: Fold,
    lists: Lists,
    pub(in crate::domain) at: Timestamp,
    index: u64,
}

/// Documents by their SHA-256, and no signed head.
#[derive(Default)]
pub(in crate::domain) struct Lists(BTreeMap<Digest, Vec<u8>>, AtomicUsize);

impl Lists {
    pub(in crate::domain) fn add(&mut self, octets: Vec<u8>) -> Digest {
        let digest = Digest::of(&octets);
        self.0.insert(digest, octets);
        digest
    }
}

impl Blobs for Lists {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        Ok(self.0[&digest].clone())
    }

    fn stream(&self, digest: Digest, piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        piece(&self.0[&digest]);
        Ok(())
    }
}

impl Heads for Lists {
    fn head(&self, _: u64) -> Option<Head> {
        None
    }
}

pub(in crate::domain) fn incident() -> IncidentId {
    "INC-1".parse().unwrap()
}

pub(in crate::domain) fn note() -> Box<str> {
    "seen by two".into()
}

/// From the day on that it is.
pub(in crate::domain) fn status(status: SmiStatus, devices: Option<DevicesNamed>, now: Timestamp) -> Step {
    let from = CivilDate::of(now).unwrap().begins();
    Step::SetStatus { status, from, devices, reason: None, acknowledged: true, overridden: None }
}

/// A ledger that stands with the policy that is shipped, these keys and no incident.
pub(in crate::domain) fn standing(keys: Vec<KeyFacts>) -> Fold {
    let policy = Arc::clone(&SHIPPED);
    let genesis = Genesis {
        origin: policy.origin().clone(),
        purpose: policy.purpose(),
        nonce: RequestId([1; 16]),
        keys: keys.iter().map(|facts| facts.record.clone()).collect(),
        policy: policy.digest(),
    };
    let mut fold = Fold { genesis: Some((genesis, Digest([9; 32]))), ..Fold::default() };
    fold.policies.push(Adopted { sequence: 1, digest: policy.digest(), entry: 1, policy });
    fold.keys = keys.into_iter().map(|facts| (facts.record.label.clone(), facts)).collect();
    fold
}

/// So many entries lie before what a test adds to [`carrying`].
pub(in crate::domain) const CARRIED: u64 = 50;

/// A ledger with this policy in force, these keys, one incident, and one determination in it.
pub(in crate::domain) fn carrying(
    policy: Policy,
    keys: Vec<KeyFacts>,
    incident: IncidentFacts,
    determination: DeterminationFacts,
) -> Fold {
    let (digest, policy) = (policy.digest(), Arc::new(policy));
    let mut fold = Fold { size: CARRIED, ..Fold::default() };
    fold.policies.push(Adopted { sequence: 1, digest, entry: 1, policy });
    fold.keys = keys.into_iter().map(|facts| (facts.record.label.clone(), facts)).collect();
    fold.incidents.insert(incident.id.clone(), incident);
    fold.determinations.insert(determination.id, determination);
    fold
}

impl Bench {
    /// An incident that was just reported, at that moment.
    pub(in crate::domain) fn new(moment: &str) -> Self {
        let (at, policy) = (moment.parse().unwrap(), Arc::clone(&SHIPPED));
        let mut fold = Fold::default();
        fold.policies.push(Adopted { sequence: 1, digest: policy.digest(), entry: 0, policy });
        let notification = Notification {
            by: "Officer One".into(),
            party: "supplier-b".parse().unwrap(),
            certainty: Certainty::Suspected,
            class: CompromiseClass::Organisation,
            at,
            channel: "telephone".into(),
            recovery_event: at,
        };
        let compromised = Compromised {
            certificate_sha256: Digest([1; 32]),
            spki_sha256: Digest([2; 32]),
            party: "02DB1234567890B0".parse().unwrap(),
        };
        let opened = IncidentOpened {
            incident: incident(),
            compromised,
            key: None,
            description: "a key".into(),
            notification: Some(notification),
            profile: None,
        };
        fold.open_incident(&opened, 1, at).unwrap();
        Self { fold, lists: Lists::default(), at, index: 2 }
    }

    /// What was carried so far is another incident's from here on, and this one was just reported and confirmed, about another key.
    pub(in crate::domain) fn begin_another(&mut self) {
        self.index += 1;
        let other: IncidentId = format!("INC-BEFORE-{}", self.index).parse().unwrap();
        let mut facts = self.fold.incidents.remove(&incident()).unwrap();
        facts.id = other.clone();
        self.fold.incidents.insert(other.clone(), facts);
        for determination in self.fold.determinations.values_mut().filter(|facts| facts.incident == incident()) {
            determination.incident = other.clone();
        }
        let new = Self::new(&self.at.to_string());
        let mut facts = new.fold.incidents[&incident()].clone();
        facts.opened = self.index;
        self.fold.incidents.insert(incident(), facts);
        self.inform();
        let mechanism = "call-back".parse().unwrap();
        self.take(&Step::Confirm { mechanism, certainty: Certainty::Actual, evidence: note() });
        self.inform();
    }

    /// Another policy is in force.
    pub(in crate::domain) fn adopt(&mut self, policy: Policy) {
        self.fold.policies[0].policy = Arc::new(policy);
    }

    pub(in crate::domain) fn context(&self) -> Context<'_> {
        Context { fold: &self.fold, blobs: &self.lists, heads: &self.lists, at: self.at, clock: ClockState::Trusted }
    }

    pub(in crate::domain) fn progress(&self) -> &Progress {
        self.fold.incidents[&incident()].progress.as_ref().unwrap()
    }

    pub(in crate::domain) fn progress_mut(&mut self) -> &mut Progress {
        self.fold.progress_mut(&incident()).unwrap()
    }

    /// A list of Devices.
    pub(in crate::domain) fn named(&mut self, devices: &[DeviceId]) -> DevicesNamed {
        let lines: Vec<String> = devices.iter().map(ToString::to_string).collect();
        let text = lines.join("\n") + "\n";
        DevicesNamed { list: self.lists.add(text.into_bytes()), count: devices.len() as u64 }
    }

    pub(in crate::domain) fn assess(&mut self, method: Method) -> Step {
        let list = self.lists.add(LIST.as_bytes().to_vec());
        Step::Assess { method, targets: DevicesNamed { list, count: 2 } }
    }

    /// How often a list was read.
    pub(in crate::domain) fn lists_read(&self) -> usize {
        self.lists.1.load(Ordering::Relaxed)
    }

    /// The incident is closed, whatever speaks against it.
    pub(in crate::domain) fn close(&mut self) {
        let at = self.at;
        self.progress_mut().enter(State::Closed, at);
        self.fold.incident_mut(&incident()).unwrap().closed = Some(note());
    }

    /// Decides a step as the daemon does.
    pub(in crate::domain) fn decide(&self, step: &Step) -> Result<StepTaken, Vec<Reason>> {
        steps::step(&self.context(), &incident(), step)
    }

    /// The rules by which a step is refused; none if it may be taken.
    pub(in crate::domain) fn rules(&self, step: &Step) -> Vec<String> {
        rules(self.decide(step))
    }

    /// The rules by which the incident may not be closed.
    pub(in crate::domain) fn closing(&self) -> Vec<String> {
        rules(steps::closing(&self.context(), &incident(), "over"))
    }

    /// Decides a step, and takes it.
    pub(in crate::domain) fn take(&mut self, step: &Step) -> StepTaken {
        let taken = self.decide(step).unwrap_or_else(|reasons| panic!("{step:?}: {reasons:?}"));
        self.index += 1;
        self.fold.take_step(&taken, self.index, self.at, &self.lists).unwrap();
        taken
    }

    /// Takes a step that nobody decided.
    pub(in crate::domain) fn force(&mut self, step: &Step) {
        let profile = ProfileInForce { base: "base".parse().unwrap(), variations: Vec::new() };
        let taken = StepTaken { incident: incident(), profile, step: step.clone(), departures: Vec::new(), carried: 0 };
        self.index += 1;
        self.fold.take_step(&taken, self.index, self.at, &self.lists).unwrap();
    }

    /// Meets every duty that is open.
    pub(in crate::domain) fn inform(&mut self) {
        let open: Vec<_> = self.progress().open_duties().map(|(duty, _)| duty.clone()).collect();
        for duty in open {
            let step = Step::Inform { duty, recipient: "the Chair".into(), at: self.at, how: "letter".into() };
            self.take(&step);
        }
    }

    /// A file is accepted; answers its SHA-256.
    pub(in crate::domain) fn file(&mut self, kind: FileKind) -> Digest {
        self.index += 1;
        let accepted = FileAccepted {
            incident: incident(),
            profile: None,
            kind,
            file: Digest([u8::try_from(self.index).unwrap(); 32]),
            signature: None,
            party: None,
            smsr: None,
            rows: 1,
        };
        self.fold.accept_file(&accepted, self.index, self.at).unwrap();
        accepted.file
    }

    /// The PMA determines so, of all Devices.
    pub(in crate::domain) fn determine(&mut self, execute: bool, method: Option<Method>) -> DeterminationId {
        self.determine_of(execute, method, &devices())
    }

    /// The same, with these Devices.
    pub(in crate::domain) fn determine_of(
        &mut self,
        execute: bool,
        method: Option<Method>,
        devices: &[DeviceId],
    ) -> DeterminationId {
        self.index += 1;
        let id = DeterminationId([u8::try_from(self.index).unwrap(); 16]);
        if let Some(before) = self.progress().determined {
            self.fold.determination_mut(before.id).unwrap().superseded_by = Some(id);
        }
        let mut facts = determination(id, self.index, execute, method, self.at);
        let lines: Vec<String> = devices.iter().map(|device| format!("{device},t-1\n")).collect();
        let list = self.lists.add(lines.concat().into_bytes());
        if let Some(scope) = &mut facts.scope {
            scope.device_list = list;
        }
        self.fold.determinations.insert(id, facts);
        self.fold.follow(&incident(), Determined { id, execute, method }, self.index, self.at, &self.lists).unwrap();
        id
    }

    /// The PMA determines to execute, and leaves the Devices to a schedule.
    pub(in crate::domain) fn determine_for_a_schedule(&mut self, method: Method) -> DeterminationId {
        let id = self.determine_of(true, Some(method), &[]);
        self.followed().scope = None;
        id
    }

    /// A schedule settles the scope of the determination that is followed, with these Devices.
    pub(in crate::domain) fn schedule(&mut self, devices: &[DeviceId]) {
        self.index += 1;
        let (certificates, path) = ([framed(406), framed(432)], [framed(420)]);
        let template = Template::from_update(&recovery_update(&certificates, &path)).unwrap();
        let lines: Vec<String> = devices.iter().map(|device| format!("{device},t-1\n")).collect();
        let list = self.lists.add(lines.concat().into_bytes());
        let determination = self.progress().determined.unwrap().id;
        let form = Schedule {
            r#type: Type::new(),
            purpose: Purpose::Live,
            determination,
            document: Digest([4; 32]),
            proposer: "operator-1".parse().unwrap(),
            ledger: LedgerHead { origin: "smkid.example/ledger".parse().unwrap(), size: 1, root: Digest([2; 32]) },
            policy: Digest([3; 32]),
            templates: vec![document::Template {
                name: "t-1".parse().unwrap(),
                payload: document::Payload::new(template.octets()).unwrap(),
            }],
            devices: document::DeviceList { count: devices.len() as u64, sha256: list, root: Digest([8; 32]) },
            limits: document::Limits { intents: 1, per_hour: 1, retries_of_unknown: 0, retry_by_itself: false },
        };
        let recorded = ScheduleRecorded {
            determination,
            document: self.lists.add(Written::write(&form).unwrap().octets().to_vec()),
            signatures: Vec::new(),
            devices: list,
            policy: Digest([3; 32]),
            profile: None,
        };
        self.fold.schedule(&recorded, &self.lists, &mut Vec::new()).unwrap();
    }

    /// What the ledger knows of the determination that the incident follows.
    pub(in crate::domain) fn followed(&mut self) -> &mut DeterminationFacts {
        let id = self.progress().determined.unwrap().id;
        self.fold.determination_mut(id).unwrap()
    }

    /// The PMA withdraws it.
    pub(in crate::domain) fn withdraw(&mut self) {
        self.followed().withdrawn = true;
        let at = self.at;
        self.progress_mut().withdraw(at);
    }

    /// The key is activated, as far as the incident goes.
    pub(in crate::domain) fn activate(&mut self) {
        self.index += 1;
        let at = self.at;
        self.progress_mut().enter(State::KeyActive, at);
        self.fold.settle(&incident(), Meaning::ActivateKey, self.index, at);
    }

    /// The Devices prove what became of them, under the determination that is followed.
    pub(in crate::domain) fn prove(&mut self, devices: &[DeviceId], proof: Proof) {
        let determined = self.progress().determined.unwrap();
        self.prove_under(devices, proof, determined.id);
    }

    /// The same, under an earlier one.
    pub(in crate::domain) fn prove_under(&mut self, devices: &[DeviceId], proof: Proof, id: DeterminationId) {
        for device in devices {
            self.progress_mut().prove(*device, proof, id);
        }
    }

    /// The PMA directs to depart from a step.
    pub(in crate::domain) fn depart(&mut self, step: &str) -> DirectionId {
        self.index += 1;
        let id = DirectionId([u8::try_from(self.index).unwrap(); 16]);
        let form = Direction {
            r#type: Type::new(),
            purpose: Purpose::Live,
            id,
            proposer: "operator-1".parse().unwrap(),
            ledger: LedgerHead { origin: "smkid.example/ledger".parse().unwrap(), size: 1, root: Digest([2; 32]) },
            policy: Digest([3; 32]),
            reference: "Direction of the SMKI PMA".parse().unwrap(),
            text: None,
            directs: Directs::Departure {
                incident: incident(),
                step: step.parse::<StepId>().unwrap(),
                reason: "It serves nothing here.".parse().unwrap(),
            },
        };
        let document = self.lists.add(Written::write(&form).unwrap().octets().to_vec());
        let recorded = crate::domain::ledger::steps::DirectionRecorded {
            direction: id,
            document,
            signatures: Vec::new(),
            policy: Digest([3; 32]),
            text: None,
        };
        self.fold.directions.take_in(&recorded, self.at, &self.lists).unwrap();
        id
    }

    /// Notified, informed of, confirmed and assessed, with the notification file; answers its SHA-256.
    pub(in crate::domain) fn assessed(moment: &str, method: Method) -> (Self, Digest) {
        let mut bench = Self::new(moment);
        bench.inform();
        let mechanism = "call-back".parse().unwrap();
        bench.take(&Step::Confirm { mechanism, certainty: Certainty::Actual, evidence: note() });
        bench.inform();
        let assess = bench.assess(method);
        bench.take(&assess);
        let notification = bench.file(FileKind::OrganisationNotification);
        (bench, notification)
    }

    /// The same, and referred, with what the profile in force wants before.
    pub(in crate::domain) fn referred(moment: &str, method: Method) -> Self {
        let (mut bench, notification) = Self::assessed(moment, method);
        if moment != VARIED {
            bench.ready();
        }
        bench.take(&Step::Refer { notification: Some(notification), new_facts: None });
        bench
    }

    /// SMI Status of all Devices, and the thresholds.
    pub(in crate::domain) fn ready(&mut self) {
        self.take(&status(SmiStatus::Recovery, None, self.at));
        self.file(FileKind::Adt);
    }

    /// The same, determined to execute, prepared, and the key active.
    pub(in crate::domain) fn key_active(moment: &str, method: Method) -> Self {
        let mut bench = Self::referred(moment, method);
        bench.determine(true, Some(method));
        if moment == VARIED {
            bench.ready();
        }
        bench.take(&Step::Prepare { note: note() });
        bench.activate();
        bench.inform();
        bench
    }
}

fn rules<T>(decided: Result<T, Vec<Reason>>) -> Vec<String> {
    decided.err().unwrap_or_default().iter().map(|reason| reason.rule.to_string()).collect()
}

fn determination(
    id: DeterminationId,
    recorded: u64,
    execute: bool,
    method: Option<Method>,
    at: Timestamp,
) -> DeterminationFacts {
    let scope = Scope {
        templates: BTreeMap::new(),
        devices: 2,
        device_list: Digest([5; 32]),
        device_root: Digest([8; 32]),
        intents_max: 2,
        per_hour_max: 2,
        retries_max: 0,
        retries_by_itself: false,
        counter_start: 0,
    };
    DeterminationFacts {
        id,
        incident: incident(),
        decision_number: 1,
        method,
        recorded,
        document: Digest([4; 32]),
        execute,
        key: None,
        symmetric_key: None,
        counter_start: 0,
        window: window(at.plus_ms(-1), at.plus_ms(24 * 3_600_000)),
        policy: Digest([3; 32]),
        proposer: "operator-1".parse().unwrap(),
        approvers: BTreeSet::new(),
        scope: execute.then_some(scope),
        suspended_until: None,
        suspended_ms: 0,
        suspended_by: BTreeSet::new(),
        withdrawn: false,
        superseded_by: None,
        dropped_by_policy: None,
        intents: 0,
        tally: Tally::default(),
        responses: ResponseTally::default(),
        foreign: None,
        resumed: None,
        recent: std::collections::VecDeque::new(),
    }
}

fn window(from: Timestamp, until: Timestamp) -> Window {
    Window { from, until }
}

fn open_duties(bench: &Bench) -> Vec<String> {
    bench.progress().open_duties().map(|(duty, _)| duty.to_string()).collect()
}

#[test]
fn a_duty_arises_with_every_step_that_the_profile_has_it_arise_with() {
    let mut bench = Bench::new(BASE);
    assert_eq!(
        open_duties(&bench),
        ["tell-parties-of-compromise", "tell-pma-of-compromise", "tell-rdps-of-compromise"]
    );
    bench.inform();
    bench.take(&Step::Dismiss { reason: note() });
    assert_eq!(open_duties(&bench), ["tell-pma-of-dismissal"]);
    assert_eq!(bench.closing(), ["open-duty"], "the PMA is told before it is closed");
    bench.inform();
    assert!(bench.closing().is_empty());

    let (mut bench, _) = Bench::assessed(BASE, Method::SubscriberKey);
    bench.take(&Step::SubscriberRecovery { note: note() });
    assert_eq!(open_duties(&bench), ["tell-pma-of-method-1"]);
    assert_eq!(bench.closing(), ["open-duty"]);
    bench.inform();
    assert!(bench.closing().is_empty());
}

#[test]
fn a_duty_arises_with_a_file_and_with_the_activation_of_a_key_where_the_profile_says_so() {
    for (step, act) in [
        (
            "submit-adt-file",
            Box::new(|bench: &mut Bench| {
                bench.file(FileKind::Adt);
            }) as Box<dyn Fn(&mut Bench)>,
        ),
        ("activate-key", Box::new(Bench::activate)),
        ("hand-over", Box::new(|bench| bench.force(&Step::HandOver { devices: None, evidence: note() }))),
        ("execute", Box::new(|bench| bench.force(&Step::Finish { note: note() }))),
    ] {
        let files = crate::domain::policy::tests::changed(
            "procedure/base.toml",
            "arises_with = \"dismiss\"",
            &format!("arises_with = \"{step}\""),
        );
        let mut bench = Bench::new(BASE);
        bench.fold.policies[0].policy = Arc::new(crate::domain::policy::tests::policy(&files));
        act(&mut bench);
        assert!(open_duties(&bench).contains(&"tell-pma-of-dismissal".to_owned()), "{step}");
    }
}

#[test]
fn a_second_determination_is_told_to_the_subscriber_too() {
    let mut bench = Bench::referred(BASE, Method::NewOrganisationCertificates);
    bench.determine(true, Some(Method::NewOrganisationCertificates));
    assert_eq!(open_duties(&bench), ["tell-subscriber-of-determination"]);
    bench.inform();
    bench.determine(false, None);
    assert_eq!(open_duties(&bench), ["tell-subscriber-of-determination"], "nobody was told of the second");
    assert!(bench.closing().contains(&"open-duty".to_owned()));
}

#[test]
fn what_a_determination_opens_begins_again_with_another() {
    let mut bench = Bench::key_active(BASE, Method::NewOrganisationCertificates);
    assert!(bench.progress().has_done(Meaning::Prepare) && bench.progress().has_done(Meaning::ActivateKey));
    bench.determine(true, Some(Method::NewOrganisationCertificates));
    assert_eq!(bench.progress().state, State::DeterminedToExecute);
    assert!(!bench.progress().has_done(Meaning::Prepare) && !bench.progress().has_done(Meaning::ActivateKey));
    assert!(bench.progress().has_done(Meaning::SetRecovery), "what none opens stays done");
    bench.take(&Step::Prepare { note: note() });
}

#[test]
fn a_determination_stands_as_its_facts_say_and_what_ends_it_for_good_is_said_first() {
    type Change = fn(&mut DeterminationFacts, Timestamp);
    let at: Timestamp = BASE.parse().unwrap();
    let new = || determination(DeterminationId([1; 16]), 1, true, None, at);
    let changes: [(Change, Standing, bool); 9] = [
        (|_, _| {}, Standing::InForce, true),
        (|facts, _| facts.scope = None, Standing::AwaitsSchedule, true),
        (|facts, at| facts.window = window(at.plus_ms(1), at.plus_ms(9)), Standing::NotYet, true),
        (|facts, at| facts.suspended_until = Some(at.plus_ms(1)), Standing::Suspended, false),
        (|facts, at| facts.window = window(at.plus_ms(-9), at), Standing::Expired, false),
        (|facts, _| facts.execute = false, Standing::NotExecute, true),
        (|facts, _| facts.dropped_by_policy = Some(Digest([9; 32])), Standing::NotCarriedOver, false),
        (|facts, _| facts.superseded_by = Some(DeterminationId([9; 16])), Standing::Superseded, false),
        (|facts, _| facts.withdrawn = true, Standing::Withdrawn, false),
    ];
    let mut worse = new();
    for (change, expected, lets_prepare) in changes {
        let mut facts = new();
        change(&mut facts, at);
        assert_eq!(facts.standing(at), expected);
        assert_eq!(facts.not_in_force(at).is_none(), lets_prepare, "{expected:?}");
        change(&mut worse, at);
        assert_eq!(worse.standing(at), expected, "it is the last word of all before it");
    }
    // Both sides of an edge.
    let mut facts = new();
    facts.suspended_until = Some(at);
    assert_eq!(facts.standing(at), Standing::InForce);
    facts.window = window(at, at.plus_ms(1));
    assert_eq!((facts.standing(at), facts.standing(at.plus_ms(1))), (Standing::InForce, Standing::Expired));
}

#[test]
fn a_list_that_cannot_be_read_is_no_step() {
    let mut bench = Bench::new(BASE);
    let list = bench.lists.add(b"dance\n".to_vec());
    let step = Step::Exclude { devices: DevicesNamed { list, count: 1 }, reason: note() };
    let progress = bench.fold.progress_mut(&incident()).unwrap();
    let lists = &bench.lists;
    let taken = progress.take(&step, 9, bench.at, |piece| lists.stream(list, piece));
    assert!(matches!(taken, Err(TakeError::Targets(TargetsError { .. }))), "{taken:?}");
}

#[test]
fn the_reminder_counts_from_the_last_ceremony_or_exercise_whichever_is_later() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let mut bench = Bench::new(BASE);
    let first: Timestamp = BASE.parse().unwrap();
    (bench.fold.size, bench.fold.ceremony_at) = (bench.index, Some(first));
    let rehearsed = |bench: &mut Bench, days: i64, event: Event| {
        let by = Actor { person: None, account: "root".into(), role: Role::Ceremony, channel: Channel::Console };
        let entry = Entry { v: VERSION, at: first.plus_ms(days * DAY_MS), clock: ClockState::Trusted, by, event };
        bench.fold.apply(&entry, &entry.to_leaf().unwrap(), &bench.lists, &mut Vec::new()).unwrap();
        bench.fold.rehearsed_at().unwrap()
    };
    let exercise = |days: i64| {
        let at = first.plus_ms(days * DAY_MS);
        Event::ExerciseRecorded(ExerciseRecorded { at, report: Digest([7; 32]), note: note() })
    };
    let ceremony = |from: i64, until: i64| {
        let [from, until] = [from, until].map(|days| first.plus_ms(days * DAY_MS));
        let (plan, transcript, people) = (Digest([8; 32]), Digest([9; 32]), Vec::new());
        Event::CeremonyRecorded(CeremonyRecorded { kind: CeremonyKind::ReShare, plan, transcript, from, until, people })
    };
    // When the exercise was counts, not when somebody wrote it down.
    for (days, event, counts_from) in
        [(20, exercise(10), 10), (21, exercise(5), 10), (40, ceremony(39, 40), 40), (41, exercise(30), 40)]
    {
        assert_eq!(rehearsed(&mut bench, days, event), first.plus_ms(counts_from * DAY_MS));
    }
    let (reminders, last) = (bench.fold.policy().unwrap().policy.reminders(), bench.fold.rehearsed_at().unwrap());
    let due: Timestamp = "2018-08-10T12:00:00Z".parse().unwrap();
    assert_eq!(reminders.overdue(last, due.plus_ms(-1)), None);
    assert_eq!(reminders.overdue(last, due), Some(due));
}

/// Contingency material of a key that the bench knows, and what becomes of it.
fn with_contingency(bench: &mut Bench) -> KeyLabel {
    let label: KeyLabel = "contingency-1".parse().unwrap();
    let record = KeyRecord {
        label: label.clone(),
        use_: KeyUse::Contingency,
        token: "smki-c".parse().unwrap(),
        serial: "3".into(),
        id: KeyId([3; 16]),
        spki_sha256: Digest([0x33; 32]),
        spki: "".into(),
    };
    bench.fold.know(&record);
    let prepared = ContingencyPrepared {
        key: label.clone(),
        token: record.token,
        symmetric: KeyId([4; 16]),
        wrapping: KeyId([5; 16]),
        bits: 256,
        wrap_with_trusted: true,
        algorithm: "aes-256-gcm".into(),
        extension: Digest([0x55; 32]),
    };
    bench.record(Event::ContingencyPrepared(prepared));
    let root = Digest([0x77; 32]);
    bench.record(Event::RootImported(RootImported { key: label.clone(), root, compared: Compared::InToken }));
    label
}

const OF_FIRST: DeterminationId = DeterminationId([0xD1; 16]);

impl Bench {
    /// Folds an entry in, as it would lie, and answers its index.
    fn record(&mut self, event: Event) -> u64 {
        self.fold.size = self.fold.size.max(self.index);
        let by = Actor { person: None, account: "smkid".into(), role: Role::Daemon, channel: Channel::Internal };
        let entry = Entry { v: VERSION, at: self.at, clock: ClockState::Trusted, by, event };
        self.fold.apply(&entry, &entry.to_leaf().unwrap(), &self.lists, &mut Vec::new()).unwrap();
        self.fold.size - 1
    }

    /// Every target proved its recovery under the determination that is followed.
    fn prove_all(&mut self) {
        let determination = self.progress().determined.unwrap().id;
        let proofs: Vec<_> = devices().into_iter().map(|device| (device, Proof::Succeeded)).collect();
        self.progress_mut().prove_all(proofs, determination);
    }

    fn spend(&mut self, key: &KeyLabel) {
        let spent = SymmetricKeySpent { key: key.clone(), incident: incident(), determination: OF_FIRST };
        self.record(Event::SymmetricKeySpent(spent));
    }

    fn release(&mut self, key: &KeyLabel) -> u64 {
        self.record(Event::SymmetricRelease(SymmetricRelease {
            request: RequestId([7; 16]),
            key: key.clone(),
            incident: incident(),
            determination: OF_FIRST,
            policy: Digest([9; 32]),
            root: Digest([0x77; 32]),
        }))
    }

    fn released(&mut self, intent: u64) {
        self.record(Event::SymmetricReleased(SymmetricReleased { intent, result: ReleaseResult::Released }));
    }
}

#[test]
fn a_symmetric_key_is_held_from_its_release_until_its_key_is_locked_or_the_daemon_starts() {
    let mut bench = Bench::new(BASE);
    let key = with_contingency(&mut bench);
    let held = |bench: &Bench| bench.fold.contingency(&key).unwrap().released;
    bench.spend(&key);
    assert_eq!(held(&bench), None, "it is spent before it is released");
    let intent = bench.release(&key);
    assert_eq!(bench.fold.open_releases().collect::<Vec<_>>(), [(intent, &key)]);
    bench.released(intent);
    assert_eq!((held(&bench), bench.fold.open_releases().next()), (Some(OF_FIRST), None));
    bench.record(Event::KeyLocked(KeyLocked { key: key.clone(), reason: note(), incident: None }));
    assert_eq!(held(&bench), None);
    // Locked while the token was asked: what came out is held by nobody.
    let intent = bench.release(&key);
    bench.record(Event::KeyLocked(KeyLocked { key: key.clone(), reason: note(), incident: None }));
    bench.released(intent);
    assert_eq!(held(&bench), None);
    let intent = bench.release(&key);
    bench.released(intent);
    assert_eq!(held(&bench), Some(OF_FIRST));
    let lost = bench.release(&key);
    let digest = Digest([1; 32]);
    bench.record(Event::Started(Started {
        version: "0".into(),
        program: digest,
        configuration: digest,
        unconfirmed: None,
    }));
    assert_eq!(held(&bench), None);
    assert_eq!(bench.fold.open_releases().collect::<Vec<_>>(), [(lost, &key)], "nobody can tell what became of it");
    let unknown = ReleaseResult::Unknown("the daemon ended".into());
    bench.record(Event::SymmetricReleased(SymmetricReleased { intent: lost, result: unknown }));
    assert_eq!((held(&bench), bench.fold.open_releases().next()), (None, None));
    // All of it is kept in a snapshot.
    let kept = bench.fold.kept();
    let text = String::from_utf8(kept.clone()).unwrap();
    assert!(text.contains(r#""spent":["INC-1","#), "{text}");
    let key_kept = serde_json::to_string(&bench.fold.keys()[&key]).unwrap();
    let again: KeyFacts = serde_json::from_str(&key_kept).unwrap();
    assert_eq!(again, bench.fold.keys()[&key]);
}

#[test]
fn a_key_without_contingency_material_is_kept_as_it_was_before_there_was_any() {
    let mut bench = Bench::new(BASE);
    let key = with_contingency(&mut bench);
    let mut facts = bench.fold.keys()[&key].clone();
    facts.contingency = None;
    let text = serde_json::to_string(&facts).unwrap();
    assert!(text.ends_with(r#""presented":{}}"#), "{text}");
    let incident = serde_json::to_string(&bench.fold.incidents()[&incident()]).unwrap();
    assert!(!incident.contains(r#""key":"#), "{incident}");
}

#[test]
fn a_spent_symmetric_key_is_of_its_incident_for_ever_and_its_replacement_is_owed_until_it_is_there() {
    let mut bench = Bench::key_active(BASE, Method::NewOrganisationCertificates);
    let key = with_contingency(&mut bench);
    let owed = |bench: &Bench| open_duties(bench).contains(&"replace-contingency-1".to_owned());
    assert!(!owed(&bench));
    bench.spend(&key);
    let facts = bench.fold.contingency(&key).unwrap();
    assert_eq!(facts.spent_elsewhere(&incident()), None);
    assert_eq!(facts.spent_elsewhere(&"INC-2".parse().unwrap()), Some(&incident()));
    assert!(owed(&bench) && bench.closing().contains(&"open-duty".to_owned()));
    let inform = |bench: &Bench| Step::Inform {
        duty: "replace-contingency-1".parse().unwrap(),
        recipient: "SMKI PMA".into(),
        at: bench.at,
        how: note(),
    };
    let refused = rules(bench.decide(&inform(&bench)));
    assert_eq!(refused, ["next-generation", "next-generation"], "nothing has taken its place, and no Device holds it");
    // Another generation with its Root OCA Certificate.
    let next: KeyLabel = "contingency-2".parse().unwrap();
    let mut facts = bench.fold.keys()[&key].clone();
    facts.record.label = next.clone();
    let material = facts.contingency.as_mut().unwrap();
    (material.spent, material.root) = (None, Some(Digest([0x78; 32])));
    bench.fold.keys.insert(next, facts);
    assert_eq!(rules(bench.decide(&inform(&bench))), ["next-generation", "next-generation"], "no policy has it sign");
    bench.adopt(crate::domain::policy::tests::policy(&crate::domain::policy::tests::with_next()));
    assert_eq!(rules(bench.decide(&inform(&bench))), ["next-generation"], "no Device has proved that it holds it");
    bench.prove_all();
    bench.take(&inform(&bench));
    assert!(!owed(&bench));
}

#[test]
fn what_a_ceremony_did_under_no_checkpoint_is_not_believed_at_a_start() {
    let started = |unconfirmed| {
        let digest = Digest([1; 32]);
        Event::Started(Started { version: "0".into(), program: digest, configuration: digest, unconfirmed })
    };
    let mut bench = Bench::new(BASE);
    let key = with_contingency(&mut bench);
    let entry = bench.fold.contingency(&key).unwrap().entry;
    let root = bench.fold.contingency(&key).unwrap().root_entry.unwrap();
    bench.record(started(Some(root + 1)));
    assert!(bench.fold.contingency(&key).unwrap().root.is_some(), "both lie under a checkpoint");
    bench.record(started(Some(root)));
    let facts = bench.fold.contingency(&key).unwrap();
    assert_eq!((facts.root, facts.root_entry), (None, None));
    bench.record(started(Some(entry)));
    assert_eq!(bench.fold.contingency(&key), None);
}

#[test]
fn a_check_that_the_token_failed_at_takes_nothing_from_one_that_matched_for_the_same_root_and_incident() {
    let mut bench = Bench::new(BASE);
    let key = with_contingency(&mut bench);
    let ours = Digest([0x77; 32]);
    let check = |bench: &mut Bench, of: &str, result: CheckResult| {
        let incident = of.parse().unwrap();
        bench.record(Event::ContingencyChecked(ContingencyChecked { key: key.clone(), incident, root: ours, result }));
    };
    let holds = |bench: &Bench| bench.fold.contingency(&key).unwrap().is_checked_for(&incident());
    check(&mut bench, "INC-1", CheckResult::Failed("CKR_DEVICE_ERROR".into()));
    assert!(!holds(&bench));
    check(&mut bench, "INC-1", CheckResult::Matches);
    check(&mut bench, "INC-1", CheckResult::Failed("CKR_DEVICE_ERROR".into()));
    assert!(holds(&bench));
    check(&mut bench, "INC-1", CheckResult::Differs("another key".into()));
    assert!(!holds(&bench));
    check(&mut bench, "INC-1", CheckResult::Matches);
    check(&mut bench, "INC-2", CheckResult::Failed("CKR_DEVICE_ERROR".into()));
    assert!(!holds(&bench), "the last check was for another incident");
}

#[test]
fn a_key_that_an_incident_is_about_is_compromised_in_it_unless_it_is_dismissed() {
    let mut bench = Bench::new(BASE);
    let key = with_contingency(&mut bench);
    let about = |bench: &mut Bench, of: Option<OtherKey>, root: Digest| {
        let facts = bench.fold.incidents.get_mut(&incident()).unwrap();
        (facts.key, facts.compromised.certificate_sha256) = (of, root);
    };
    let (ours, another) = (Digest([0x77; 32]), Digest([0x78; 32]));
    for (of, root, expected) in [
        (None, ours, false),
        (Some(OtherKey::RootOca), ours, false),
        (Some(OtherKey::Contingency), ours, true),
        (Some(OtherKey::ContingencySymmetric), ours, true),
        (Some(OtherKey::Contingency), another, false),
    ] {
        about(&mut bench, of, root);
        assert_eq!(bench.fold.compromised_in(&key).is_some(), expected, "{of:?}");
    }
    // To be the next generation, the root that carries it must be sound too.
    for (of, root, expected) in [
        (Some(OtherKey::RootOca), ours, true),
        (Some(OtherKey::RootOca), another, false),
        (Some(OtherKey::IssuingOca), ours, false),
        (Some(OtherKey::Contingency), ours, true),
    ] {
        about(&mut bench, of, root);
        assert_eq!(bench.fold.next_compromised_in(&key).is_some(), expected, "{of:?}");
    }
    about(&mut bench, Some(OtherKey::Contingency), ours);
    bench.close();
    assert!(bench.fold.compromised_in(&key).is_some(), "an incident that is closed mends no key");
    bench.progress_mut().note_done(Meaning::Dismiss.id(), 9, BASE.parse().unwrap());
    assert_eq!(bench.fold.compromised_in(&key), None);
}
