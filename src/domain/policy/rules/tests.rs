//! Each rule at its edges: what is just allowed, and what is just refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::domain::determination::document::SymmetricKeyLine;
use crate::domain::fold::Fold;
use crate::domain::fold::tests::carrying;
use crate::domain::gbcs::samples::{RECOVERY, contingency_update, framed, recovery_update};
use crate::domain::gbcs::{CredentialsReplacementMode, KeyUsage, RemotePartyRole, TrustAnchorCell, Update};
use crate::domain::incident::{Determined, Progress, State, Targets};
use crate::domain::ledger::contingency::{CheckResult, ContingencyPrepared};
use crate::domain::ledger::custody::{Holder, Sealed, SharesDealt};
use crate::domain::ledger::entry::{Channel, Compromised, KeyRecord, Notification, ResponseTally};
use crate::domain::ledger::steps::{Certainty, CompromiseClass, Method};
use crate::domain::names::{Eui64, KeyId, KeyUse};
use crate::domain::policy::contingency::Checked;
use crate::domain::policy::custodians::Presented;
use crate::domain::policy::facts::{Ending, IntentState, RECENT_MINUTES, Tally};
use crate::domain::policy::separation::{Part, PartsTaken};
use crate::domain::policy::tests::{changed, example, policy, replaced, with_next};

const ID: DeterminationId = DeterminationId([1; 16]);
const OTHER: DeterminationId = DeterminationId([2; 16]);
const DEVICE: DeviceId = DeviceId(Eui64([0, 0xDB, 0, 0, 0, 0, 0, 1]));
/// The leaf of the Device's last intent, where it has one.
const INTENT: u64 = 42;
/// Counters start above this.
const START: u64 = 7_000;

pub(in crate::domain) fn now() -> Timestamp {
    "2027-01-01T12:00:00Z".parse().unwrap()
}

fn template(change: impl FnOnce(&mut Update<'_>)) -> Arc<Template> {
    let certificates = [framed(100)];
    let mut update = recovery_update(&certificates, &[]);
    change(&mut update);
    Arc::new(Template::from_update(&update).unwrap())
}

/// Everything that a decision rests on, to be changed in one place.
struct World {
    clock: ClockState,
    by: Actor,
    policy: Policy,
    determination: Option<DeterminationFacts>,
    incident: Option<IncidentFacts>,
    key: Option<KeyFacts>,
    stopped_by: Option<(DeterminationId, u64)>,
    compromised_in: Option<IncidentId>,
    next: Option<KeyFacts>,
    next_compromised_in: Option<IncidentId>,
    form: WantedForm,
    pre_command: Option<Result<(PartyId, u64), Mismatch>>,
    listed: Option<Listed>,
    last: Option<DeviceFacts>,
}

impl World {
    /// A command that may be signed, with nothing to spare.
    fn good() -> Self {
        let key: KeyLabel = "recovery-1".parse().unwrap();
        let policy = policy(&example());
        let scope = Scope {
            templates: BTreeMap::from([("esme".parse().unwrap(), template(|_| {}))]),
            devices: 1,
            device_list: Digest([3; 32]),
            device_root: Digest([8; 32]),
            intents_max: 10,
            per_hour_max: 5,
            retries_max: 1,
            retries_by_itself: false,
            counter_start: START,
        };
        let determination = DeterminationFacts {
            id: ID,
            incident: "INC-1".parse().unwrap(),
            decision_number: 1,
            method: Some(crate::domain::ledger::steps::Method::NewOrganisationCertificates),
            recorded: 5,
            document: Digest([4; 32]),
            execute: true,
            key: Some((key.clone(), Digest([1; 32]))),
            symmetric_key: None,
            counter_start: START,
            window: Window { from: now(), until: now().plus_ms(1) },
            policy: policy.digest(),
            proposer: "proposer-1".parse().unwrap(),
            approvers: ["member-1", "member-2", "member-3"].map(|id| id.parse().unwrap()).into(),
            scope: Some(scope),
            suspended_until: Some(now()),
            suspended_ms: 0,
            suspended_by: BTreeSet::new(),
            withdrawn: false,
            superseded_by: None,
            dropped_by_policy: None,
            intents: 9,
            tally: Tally::default(),
            foreign: None,
            resumed: None,
            responses: ResponseTally::default(),
            recent: VecDeque::new(),
        };
        let compromised =
            Compromised { certificate_sha256: Digest([5; 32]), spki_sha256: Digest([6; 32]), party: RECOVERY };
        let incident = IncidentFacts {
            id: "INC-1".parse().unwrap(),
            opened: 3,
            compromised,
            key: None,
            description: "told".into(),
            opened_at: now(),
            closed: None,
            closed_at: None,
            progress: None,
            files: Vec::new(),
            parts: PartsTaken::default(),
        };
        let record = KeyRecord {
            label: key,
            use_: KeyUse::Recovery,
            token: "smki-a".parse().unwrap(),
            serial: "1".into(),
            id: KeyId([7; 16]),
            spki_sha256: Digest([1; 32]),
            spki: "".into(),
        };
        let active = Some(Some(now().plus_ms(1)));
        Self {
            clock: ClockState::Trusted,
            by: Actor {
                person: Some("operator-1".parse().unwrap()),
                account: "olga".into(),
                role: Role::Operator,
                channel: Channel::Socket,
            },
            policy,
            determination: Some(determination),
            incident: Some(incident),
            key: Some(KeyFacts {
                shares: None,
                dealing: None,
                record,
                copies: BTreeMap::new(),
                certificate: Some((Digest([8; 32]), RECOVERY)),
                active,
                ending: None,
                active_for: None,
                presented: BTreeMap::new(),
                contingency: None,
            }),
            stopped_by: None,
            compromised_in: None,
            next: None,
            next_compromised_in: None,
            form: WantedForm::Device,
            pre_command: None,
            listed: Some(Listed { device: DEVICE, template: "esme".parse().unwrap(), counter: None }),
            last: None,
        }
    }

    fn determination(&mut self) -> &mut DeterminationFacts {
        self.determination.as_mut().unwrap()
    }

    fn scope(&mut self) -> &mut Scope {
        self.determination().scope.as_mut().unwrap()
    }

    fn key(&mut self) -> &mut KeyFacts {
        self.key.as_mut().unwrap()
    }

    /// Key Custodians opened the key for this incident and no other.
    fn opened_by(&mut self, custodians: &[&str]) {
        let shares = ["custodian-1", "custodian-2"].into_iter().zip(1..).map(|(person, index)| Holder {
            share: format!("share-{index}").parse().unwrap(),
            person: person.parse().unwrap(),
            index,
            sealed: Sealed::Passphrase,
        });
        let dealt = SharesDealt {
            key: self.key().record.label.clone(),
            generation: 1,
            threshold: 2,
            commitments: Vec::new(),
            holders: shares.collect(),
            tokens: Vec::new(),
            sealed: Digest([0; 32]),
            left: Vec::new(),
            by: Vec::new(),
            former: None,
        };
        let presented = |(person, entry): (&&str, u64)| {
            let presented = Presented {
                entry,
                incident: "INC-1".parse().unwrap(),
                determination: ID,
                share: Some((format!("share-{entry}").parse().unwrap(), 1)),
                until: now(),
                expires: now().plus_ms(1),
            };
            (person.parse().unwrap(), presented)
        };
        let key = self.key();
        key.active_for = Some("INC-1".parse().unwrap());
        key.presented = custodians.iter().zip(1..).map(presented).collect();
        key.shares = Some(dealt);
    }

    fn pre_command(&mut self, originator: PartyId, counter: u64) {
        self.form = WantedForm::PreCommand(Vec::new());
        self.pre_command = Some(Ok((originator, counter)));
    }

    fn last(&mut self, state: IntentState, determination: DeterminationId, counter: u64, attempt: u32) {
        let template = "esme".parse().unwrap();
        self.last = Some(DeviceFacts { intent: INTENT, determination, template, counter, attempt, state });
    }

    fn batch(&self) -> BatchFacts<'_> {
        BatchFacts {
            now: now(),
            clock: self.clock,
            by: &self.by,
            policy: &self.policy,
            policy_digest: self.policy.digest(),
            determination_id: ID,
            determination: self.determination.as_ref(),
            incident: self.incident.as_ref(),
            key: self.key.as_ref(),
            stopped_by: self.stopped_by,
            compromised_in: self.compromised_in.as_ref(),
            next: self.next.as_ref(),
            next_compromised_in: self.next_compromised_in.as_ref(),
        }
    }

    /// As the daemon asks: the command only where its batch is allowed.
    fn decide(&self) -> Result<Allowance, Vec<Refusal>> {
        let batch = self.batch();
        decide_batch(&batch)?;
        decide(&CommandFacts {
            batch: &batch,
            device: DEVICE,
            form: &self.form,
            pre_command: self.pre_command.as_ref(),
            listed: self.listed.as_ref(),
            last: self.last.as_ref(),
        })
    }
}

/// Keeps which refusals were seen.
#[derive(Default)]
struct Edges(BTreeSet<&'static str>);

impl Edges {
    /// The good command, so changed, is refused by exactly these rules; by none, allowed.
    #[track_caller]
    fn check(&mut self, change: impl FnOnce(&mut World), refused: &[&str]) {
        let mut world = World::good();
        change(&mut world);
        let found: Vec<&str> = match world.decide() {
            Ok(_) => Vec::new(),
            Err(refusals) => refusals.iter().map(Refusal::rule).collect(),
        };
        assert_eq!(found, refused);
        self.0.extend(found);
    }
}

fn asker(edges: &mut Edges) {
    edges.check(|_| {}, &[]);
    for role in [Role::Auditor, Role::Account, Role::Ceremony, Role::Daemon] {
        edges.check(|world| world.by.role = role, &["asker"]);
    }
    edges.check(|world| world.by.person = None, &["asker-unknown"]);
    edges.check(|world| world.by.person = Some("member-1".parse().unwrap()), &["asker-approved"]);
    edges.check(|world| world.by.person = Some("member-4".parse().unwrap()), &[]);
    // What somebody did before in the incident bars them from asking, and asking again does not.
    for (part, refused) in [
        (Part::Operator, &[][..]),
        (Part::Approver, &["separation"]),
        (Part::Aro, &["separation"]),
        (Part::Custodian, &["separation"]),
    ] {
        edges.check(
            |world| {
                let person = world.by.person.clone().unwrap();
                world.incident.as_mut().unwrap().parts.take(&person, part);
            },
            refused,
        );
    }
    edges.check(|world| world.clock = ClockState::Untrusted, &["clock"]);
    for (purpose, refused) in [("live", &["clock"][..]), ("exercise", &[])] {
        edges.check(
            |world| {
                world.clock = ClockState::SetForExercise;
                let said = format!("purpose = \"{purpose}\"");
                world.policy = policy(&changed("policy.toml", "purpose = \"live\"", &said));
                world.determination().policy = world.policy.digest();
            },
            refused,
        );
    }
}

fn determination(edges: &mut Edges) {
    edges.check(|world| world.determination = None, &["determination-unknown"]);
    edges.check(|world| world.determination().execute = false, &["determination-negative"]);
    edges.check(|world| world.determination().window.from = now().plus_ms(1), &["window"]);
    edges.check(|world| world.determination().window.until = now(), &["window"]);
    edges.check(|world| world.determination().suspended_until = Some(now().plus_ms(1)), &["suspended"]);
    edges.check(|world| world.determination().suspended_until = None, &[]);
    edges.check(|world| world.determination().withdrawn = true, &["withdrawn"]);
    edges.check(|world| world.determination().superseded_by = Some(OTHER), &["superseded"]);
    edges.check(|world| world.determination().dropped_by_policy = Some(Digest([9; 32])), &["not-carried-over"]);
    edges.check(|world| world.determination().scope = None, &["scope-outstanding"]);
    edges.check(|world| world.incident = None, &["incident-not-open"]);
    edges.check(|world| world.incident.as_mut().unwrap().closed = Some("over".into()), &["incident-not-open"]);
}

fn key(edges: &mut Edges) {
    edges.check(|world| world.key = None, &["key-unknown"]);
    edges.check(|world| world.key().record.spki_sha256 = Digest([2; 32]), &["key-differs"]);
    edges.check(|world| world.determination().key.as_mut().unwrap().1 = Digest([2; 32]), &["key-differs"]);
    edges.check(|world| world.key().certificate = None, &["key-without-certificate"]);
    edges.check(|world| world.key().active = None, &["key-locked"]);
    edges.check(|world| world.key().active = Some(Some(now())), &["key-locked"]);
    edges.check(|world| world.key().active = Some(None), &[]);
    // Active for this incident alone, or for another.
    edges.check(|world| world.opened_by(&["custodian-1", "custodian-2"]), &[]);
    edges.check(|world| world.opened_by(&["custodian-1"]), &["custodians"]);
    edges.check(|world| world.opened_by(&["custodian-1", "member-1"]), &["custodians"]);
    let closed = |world: &mut World| {
        world.opened_by(&["custodian-1"]);
        world.key().active = None;
    };
    edges.check(closed, &["key-locked"]);
    edges.check(|world| world.key().active_for = Some("INC-2".parse().unwrap()), &["key-of-another-incident"]);

    let templates = |template: Arc<Template>| BTreeMap::from([("esme".parse().unwrap(), template)]);
    let mode_9 = || {
        template(|update| {
            update.mode = CredentialsReplacementMode::AnyByContingency;
            update.authorising_cell = Some(TrustAnchorCell::ROOT);
        })
    };
    edges.check(|world| world.scope().templates = templates(mode_9()), &["mode-not-permitted"]);
    let no_modes = || policy(&changed("keys.toml", "modes = [8]", "modes = []"));
    edges.check(|world| world.policy = no_modes(), &["mode-not-permitted"]);
    // The policy permits mode 8 to the Recovery key; a key that the ledger knows for another use has it not.
    edges.check(|world| world.key().record.use_ = KeyUse::Ledger, &["mode-not-permitted"]);
    edges.check(
        |world| world.key().record.use_ = KeyUse::Contingency,
        &["mode-not-permitted", "symmetric-key-line", "symmetric-key-released"],
    );
    edges.check(|world| world.compromised_in = Some("INC-2".parse().unwrap()), &["key-compromised"]);
    let root = TrustAnchorCell::management(RemotePartyRole::Root, KeyUsage::KeyCertSign);
    let of_root = || template(|update| update.replacements[0].cell = root);
    edges.check(|world| world.scope().templates = templates(of_root()), &["root-cell"]);
    edges.check(
        |world| {
            world.scope().templates = templates(of_root());
            world.policy = policy(&changed("policy.toml", "root_cell = \"refuse\"", "root_cell = \"permit\""));
        },
        &[],
    );
}

/// The Root OCA Certificates that carry the two generations.
const ROOT: Digest = Digest([0x71; 32]);

fn new_root() -> Vec<u8> {
    framed(101)
}

fn generation(label: &str, root: Option<Digest>) -> ContingencyFacts {
    let prepared = ContingencyPrepared {
        key: label.parse().unwrap(),
        token: "smki-c".parse().unwrap(),
        symmetric: KeyId([8; 16]),
        wrapping: KeyId([9; 16]),
        bits: 256,
        wrap_with_trusted: true,
        algorithm: "aes-256-gcm".into(),
        extension: Digest([0x70; 32]),
    };
    ContingencyFacts { root, ..ContingencyFacts::new(prepared, 7) }
}

fn line_of(world: &mut World) -> &mut SymmetricKeyLine {
    world.determination().symmetric_key.as_mut().unwrap()
}

impl World {
    /// A command of mode 9 that may be signed, with nothing to spare.
    fn contingency() -> Self {
        let mut world = Self::good();
        world.policy = policy(&with_next());
        let certificates = [new_root(), framed(100)];
        let template = Template::from_update(&contingency_update(&certificates, &[])).unwrap();
        world.scope().templates = BTreeMap::from([("esme".parse().unwrap(), Arc::new(template))]);
        let label: KeyLabel = "contingency-1".parse().unwrap();
        let key = world.key();
        (key.record.label, key.record.use_, key.certificate) = (label.clone(), KeyUse::Contingency, None);
        key.contingency = Some(ContingencyFacts {
            checked: Some(Checked {
                entry: 9,
                incident: "INC-1".parse().unwrap(),
                root: ROOT,
                result: CheckResult::Matches,
            }),
            spent: Some(("INC-1".parse().unwrap(), ID)),
            released: Some(ID),
            ..generation("contingency-1", Some(ROOT))
        });
        let mut next = key.clone();
        (next.record.label, next.active) = ("contingency-2".parse().unwrap(), None);
        next.contingency = Some(generation("contingency-2", Some(Digest::of(&new_root()))));
        world.next = Some(next);
        let (digest, spki) = (world.policy.digest(), world.key().record.spki_sha256);
        let determination = world.determination();
        determination.policy = digest;
        determination.method = Some(Method::Contingency);
        determination.key = Some((label, spki));
        determination.symmetric_key = Some(SymmetricKeyLine {
            root_sha256: ROOT,
            next: "contingency-2".parse().unwrap(),
            next_root_sha256: Digest::of(&new_root()),
        });
        world
    }

    /// Nothing came of the check yet, and the symmetric key never left its token.
    fn before_release() -> Self {
        let mut world = Self::contingency();
        in_procedure(&mut world, State::KeyActive, &format!("{DEVICE},Commissioned,2017-07-01,reads\n"));
        let incident = world.incident.as_mut().unwrap();
        let determined = Determined { id: ID, execute: true, method: Some(Method::Contingency) };
        incident.progress.as_mut().unwrap().determined = Some(determined);
        let of_key = world.of_key();
        (of_key.checked, of_key.spent, of_key.released) = (None, None, None);
        world
    }

    fn of_key(&mut self) -> &mut ContingencyFacts {
        self.key().contingency.as_mut().unwrap()
    }

    fn of_next(&mut self) -> &mut ContingencyFacts {
        self.next.as_mut().unwrap().contingency.as_mut().unwrap()
    }
}

fn contingency(edges: &mut Edges) {
    let mut check = |change: &dyn Fn(&mut World), refused: &[&str]| {
        edges.check(
            |world| {
                *world = World::contingency();
                change(world);
            },
            refused,
        );
    };
    check(&|_| {}, &[]);
    check(&|world| world.key().active = None, &["key-locked"]);
    // What the determination says, and what the ledger has.
    check(&|world| world.determination().symmetric_key = None, &["symmetric-key-line"]);
    let other_root = |world: &mut World| world.determination().symmetric_key.as_mut().unwrap().root_sha256.0[0] ^= 1;
    check(&other_root, &["symmetric-key-line"]);
    check(&|world| world.of_key().root = None, &["symmetric-key-line"]);
    check(&|world| world.of_key().prepared.wrap_with_trusted = false, &["symmetric-key-line"]);
    check(&|world| world.key().contingency = None, &["symmetric-key-line", "symmetric-key-released"]);
    check(
        &|world| {
            world.of_key().prepared.wrap_with_trusted = false;
            let keys =
                replaced(with_next(), "wrap_with_trusted = \"required\"", "wrap_with_trusted = \"not-enforced\"");
            let mut files = changed("policy.toml", "purpose = \"live\"", "purpose = \"exercise\"");
            files.insert("keys.toml".into(), keys["keys.toml"].clone());
            world.policy = policy(&files);
            world.determination().policy = world.policy.digest();
        },
        &[],
    );
    // The next generation.
    check(&|world| world.next = None, &["next-generation"]);
    check(
        &|world| {
            world.determination().symmetric_key.as_mut().unwrap().next =
                world.key.as_ref().unwrap().record.label.clone();
        },
        &["next-generation"],
    );
    check(&|world| world.next.as_mut().unwrap().record.use_ = KeyUse::Recovery, &["next-generation"]);
    check(&|world| world.next.as_mut().unwrap().ending = Some(Ending::Destroyed { entry: 8 }), &["next-generation"]);
    check(&|world| world.next.as_mut().unwrap().contingency = None, &["next-generation"]);
    check(&|world| world.of_next().root = None, &["next-generation"]);
    check(&|world| world.of_next().root = Some(ROOT), &["next-generation"]);
    check(&|world| line_of(world).next_root_sha256 = ROOT, &["next-generation"]);
    // The line and what carries it agree, and the template puts another one in.
    check(
        &|world| {
            world.of_next().root = Some(ROOT);
            line_of(world).next_root_sha256 = ROOT;
        },
        &["next-generation"],
    );
    check(
        &|world| {
            let keys = "label = \"contingency-2\"\nuse = \"contingency\"\ntoken = \"smki-c\"\nmodes = [9]";
            world.policy = policy(&replaced(with_next(), keys, &keys.replace("[9]", "[]")));
            world.determination().policy = world.policy.digest();
        },
        &["next-generation"],
    );
    check(&|world| world.of_next().spent = Some(("INC-3".parse().unwrap(), OTHER)), &["next-generation"]);
    check(&|world| world.next_compromised_in = Some("INC-3".parse().unwrap()), &["next-generation"]);
    // Spent in this incident, under whichever of its determinations; and in no other.
    check(&|world| world.of_key().spent = Some(("INC-1".parse().unwrap(), OTHER)), &[]);
    check(&|world| world.of_key().spent = Some(("INC-2".parse().unwrap(), OTHER)), &["spent-elsewhere"]);
    // The check before use: for this incident, of that root, and it matched.
    check(&|world| world.of_key().checked = None, &["preflight"]);
    check(&|world| world.of_key().checked.as_mut().unwrap().incident = "INC-2".parse().unwrap(), &["preflight"]);
    check(&|world| world.of_key().checked.as_mut().unwrap().root.0[0] ^= 1, &["preflight"]);
    for result in [CheckResult::Differs("another key".into()), CheckResult::Failed("CKR_DEVICE_ERROR".into())] {
        check(&|world| world.of_key().checked.as_mut().unwrap().result = result.clone(), &["preflight"]);
    }
    // Released under this determination, and not since wiped.
    check(&|world| world.of_key().released = None, &["symmetric-key-released"]);
    check(&|world| world.of_key().released = Some(OTHER), &["symmetric-key-released"]);
    check(&|world| world.key().lock(), &["key-locked", "symmetric-key-released"]);
    // The key of the one authority, and a command of the other.
    let mode_8 = |world: &mut World| {
        world.scope().templates = BTreeMap::from([("esme".parse().unwrap(), template(|_| {}))]);
    };
    check(&mode_8, &["mode-not-permitted"]);
    check(&|world| world.compromised_in = Some("INC-2".parse().unwrap()), &["key-compromised"]);
    let by_policy: PartyId = "90B3D51F30000003".parse().unwrap();
    check(&|world| world.pre_command(by_policy, START + 1), &[]);
    check(&|world| world.pre_command(RECOVERY, START + 1), &["originator"]);
}

#[test]
fn a_contingency_key_is_checked_before_its_symmetric_key_is_released_and_that_before_it_signs() {
    let mut world = World::contingency();
    world.of_key().released = None;
    let rules = |decided: Result<(), Vec<Refusal>>| {
        decided.err().unwrap_or_default().iter().map(Refusal::rule).collect::<Vec<_>>()
    };
    assert_eq!(rules(decide_symmetric_release(&world.batch())), [""; 0]);
    assert_eq!(rules(decide_batch(&world.batch())), ["symmetric-key-released"]);
    assert_eq!(decide_filling(&world.batch()).err().map(|refusal| refusal.rule()), Some("symmetric-key-released"));
    world.of_key().checked = None;
    assert_eq!(rules(decide_preflight(&world.batch())), [""; 0]);
    assert_eq!(rules(decide_symmetric_release(&world.batch())), ["preflight"]);
    world.of_key().spent = Some(("INC-2".parse().unwrap(), OTHER));
    assert_eq!(rules(decide_preflight(&world.batch())), ["spent-elsewhere"]);
    assert_eq!(decide_filling(&World::contingency().batch()), Ok(()));
    let mut compromised = World::contingency();
    compromised.compromised_in = Some("INC-2".parse().unwrap());
    assert_eq!(decide_filling(&compromised.batch()).err().map(|refusal| refusal.rule()), Some("key-compromised"));
    assert_eq!(decide_filling(&World::good().batch()), Ok(()), "a recovery key needs none");
}

/// A ledger whose incident INC-1 follows a determination by the Contingency route, at the moment [`now`]: its key is open, and its symmetric
/// key neither checked nor spent. `change` is told the key, the next one and the incident.
pub(in crate::domain) fn before_release(change: impl FnOnce(&mut KeyFacts, &mut KeyFacts, &mut IncidentFacts)) -> Fold {
    let World { policy, determination, incident, key, next, .. } = World::before_release();
    let (mut key, mut next, mut incident) = (key.unwrap(), next.unwrap(), incident.unwrap());
    change(&mut key, &mut next, &mut incident);
    carrying(policy, vec![key, next], incident, determination.unwrap())
}

fn command(edges: &mut Edges) {
    edges.check(|world| world.listed = None, &["device-out-of-scope"]);
    edges.check(|world| world.listed.as_mut().unwrap().template = "another".parse().unwrap(), &["device-out-of-scope"]);
    let of_another = PartyId(Eui64([9; 8]));
    edges.check(|world| world.pre_command(RECOVERY, START + 1), &[]);
    edges.check(|world| world.pre_command(of_another, START + 1), &["originator"]);
    edges.check(
        |world| {
            world.form = WantedForm::PreCommand(Vec::new());
            world.pre_command = Some(Err(Mismatch::Short { need: 34, found: 0 }));
        },
        &["not-the-template"],
    );
    edges.check(|world| world.determination().intents = 10, &["intents-spent"]);
    let minute = now().unix_ms() / 60_000;
    let recent = |minute, count| move |world: &mut World| world.determination().recent = [(minute, count)].into();
    edges.check(recent(minute, 4), &[]);
    edges.check(recent(minute, 5), &["rate"]);
    edges.check(recent(minute - RECENT_MINUTES + 1, 5), &["rate"]);
    edges.check(recent(minute - RECENT_MINUTES, 5), &[]);
}

fn counter(edges: &mut Edges) {
    let step = World::good().policy.limits().max_counter_step;
    let listed = START + 100;
    let last = START + 200;
    edges.check(|world| world.pre_command(RECOVERY, START), &["counter-too-low"]);
    edges.check(|world| world.pre_command(RECOVERY, START + step), &[]);
    edges.check(|world| world.pre_command(RECOVERY, START + step + 1), &["counter-too-high"]);
    let on_list = |counter| {
        move |world: &mut World| {
            world.listed.as_mut().unwrap().counter = Some(listed);
            world.pre_command(RECOVERY, counter);
        }
    };
    edges.check(on_list(listed), &["counter-too-low"]);
    edges.check(on_list(listed + 1), &[]);
    // A counter that was recorded counts, whatever came of it, and under whichever determination.
    for (state, determination) in [(IntentState::Failed, ID), (IntentState::Signed, OTHER)] {
        let after = |counter| {
            move |world: &mut World| {
                on_list(counter)(world);
                world.last(state, determination, last, 1);
            }
        };
        edges.check(after(last), &["counter-too-low"]);
        edges.check(after(last + 1), &[]);
    }
    let from_list = |counter| move |world: &mut World| world.listed.as_mut().unwrap().counter = Some(counter);
    edges.check(from_list(COUNTER_MAX - 1), &[]);
    edges.check(from_list(COUNTER_MAX), &["counter-exhausted"]);
}

fn again(edges: &mut Edges) {
    use IntentState::{Failed, Left, NotSigned, Open, Signed, Unknown};
    // The state of the last intent, under this determination or another; what refuses a new command, and a further attempt.
    for (state, determination, new, retry) in [
        (Open, ID, &["in-flight"][..], &["in-flight", "nothing-unknown"][..]),
        (Open, OTHER, &["in-flight"], &["in-flight", "nothing-unknown"]),
        (Signed, ID, &["already-signed"], &["already-signed", "nothing-unknown"]),
        (Signed, OTHER, &[], &["nothing-unknown"]),
        (Unknown, ID, &["outcome-unknown"], &[]),
        (Unknown, OTHER, &[], &["nothing-unknown"]),
        (Left, ID, &["left-unknown"], &["left-unknown", "nothing-unknown"]),
        (Left, OTHER, &[], &["nothing-unknown"]),
        (Failed, ID, &[], &["nothing-unknown"]),
        (Failed, OTHER, &[], &["nothing-unknown"]),
        (NotSigned, ID, &[], &["nothing-unknown"]),
        (NotSigned, OTHER, &[], &["nothing-unknown"]),
    ] {
        edges.check(|world| world.last(state, determination, START, 1), new);
        edges.check(
            |world| {
                world.pre_command(RECOVERY, START + 1);
                world.last(state, determination, START, 1);
            },
            new,
        );
        edges.check(
            |world| {
                world.form = WantedForm::Retry;
                world.last(state, determination, START, 1);
            },
            retry,
        );
    }
    let retry = |attempt, retries_max| {
        move |world: &mut World| {
            world.form = WantedForm::Retry;
            world.scope().retries_max = retries_max;
            // The counter stands already: that no other is left does not matter.
            world.last(Unknown, ID, COUNTER_MAX, attempt);
        }
    };
    edges.check(retry(1, 0), &["retries-spent"]);
    edges.check(retry(1, 1), &[]);
    edges.check(retry(2, 1), &["retries-spent"]);
    edges.check(retry(2, 2), &[]);
    edges.check(|world| world.form = WantedForm::Retry, &["nothing-unknown"]);
}

/// Where a list would come from.
type Source = fn(&mut dyn FnMut(&[u8])) -> Result<(), std::convert::Infallible>;

/// An incident of the procedure in that state, with the Device as its one target.
fn in_procedure(world: &mut World, state: State, target: &str) {
    let source = |piece: &mut dyn FnMut(&[u8])| {
        piece(target.as_bytes());
        Ok::<(), std::convert::Infallible>(())
    };
    let notification = Notification {
        by: "Officer One".into(),
        party: "supplier-b".parse().unwrap(),
        certainty: Certainty::Actual,
        class: CompromiseClass::Organisation,
        at: now(),
        channel: "telephone".into(),
        recovery_event: now(),
    };
    let mut progress = Progress::reported(notification, now(), 3);
    progress.state = state;
    progress.determined = Some(Determined { id: ID, execute: true, method: Some(Method::NewOrganisationCertificates) });
    progress.targets = Targets::read(source).unwrap();
    world.incident.as_mut().unwrap().progress = Some(progress);
}

fn procedure(edges: &mut Edges) {
    let ours = format!("{DEVICE},Commissioned,2017-07-01,reads\n");
    for state in State::ALL {
        let refused: &[&str] = if state.may_sign() { &[] } else { &["procedure-state"] };
        edges.check(|world| in_procedure(world, state, &ours), refused);
    }
    // Where the incident stands follows from a locked key, and is not said beside it.
    edges.check(
        |world| {
            in_procedure(world, State::Paused, &ours);
            world.key().active = None;
        },
        &["key-locked"],
    );
    let anothers = "00DB1234567890FF,Commissioned,2017-07-01,reads\n";
    edges.check(|world| in_procedure(world, State::Executing, anothers), &["not-a-target"]);
    edges.check(
        |world| {
            in_procedure(world, State::Executing, &ours);
            let none: Option<Source> = None;
            let progress = world.incident.as_mut().unwrap().progress.as_mut().unwrap();
            progress.targets.each(none, |target| target.excluded = true).unwrap();
        },
        &["excluded"],
    );
    edges.check(|world| world.stopped_by = Some((OTHER, 9)), &["foreign-response"]);
    // It follows this determination, another, or none.
    for (id, refused) in [(Some(ID), &[][..]), (Some(OTHER), &["not-followed"]), (None, &["not-followed"])] {
        edges.check(
            |world| {
                in_procedure(world, State::Executing, &ours);
                let determined = id.map(|id| Determined { id, execute: true, method: None });
                world.incident.as_mut().unwrap().progress.as_mut().unwrap().determined = determined;
            },
            refused,
        );
    }
}

#[test]
fn every_rule_allows_up_to_its_edge_and_refuses_beyond() {
    let mut edges = Edges::default();
    for rule in [asker, determination, key, contingency, command, counter, again, procedure] {
        rule(&mut edges);
    }
    // Every name that `Refusal::rule` can give, from its own source.
    let names = include_str!("mod.rs").lines().filter_map(|line| {
        let (variant, name) = line.trim().split_once(" => \"")?;
        variant.trim_start_matches("| ").starts_with("Self::").then(|| name.trim_end_matches("\","))
    });
    // Whether a further attempt has the same octets is looked at where they are made: in the pipeline, and in the audit; and where
    // an incident awaits its key, when that is activated. A pause keeps back what was signed before it: below, with releases.
    let elsewhere = ["retry-differs", "not-prepared", "incident-paused"];
    let unseen: Vec<&str> = names.filter(|name| !elsewhere.contains(name) && !edges.0.contains(name)).collect();
    assert!(unseen.is_empty(), "no edge here reaches {unseen:?}");
    assert!(edges.0.len() > 30, "{:?}", edges.0);
}

#[test]
fn what_is_allowed_is_the_next_counter_and_for_a_further_attempt_the_same_one() {
    let allowed = |change: &dyn Fn(&mut World)| {
        let mut world = World::good();
        change(&mut world);
        let Allowance { counter, attempt, originator, .. } = world.decide().unwrap();
        assert_eq!(originator, RECOVERY);
        (counter, attempt)
    };
    assert_eq!(allowed(&|_| {}), (START + 1, 1));
    assert_eq!(allowed(&|world| world.listed.as_mut().unwrap().counter = Some(START + 5)), (START + 6, 1));
    assert_eq!(allowed(&|world| world.last(IntentState::Failed, ID, START + 7, 1)), (START + 8, 1));
    assert_eq!(allowed(&|world| world.pre_command(RECOVERY, START + 9)), (START + 9, 1));
    let retry = |world: &mut World| {
        world.form = WantedForm::Retry;
        world.last(IntentState::Unknown, ID, START + 7, 1);
    };
    assert_eq!(allowed(&retry), (START + 7, 2));
}

#[test]
fn a_release_asks_nothing_of_the_key_and_everything_of_the_asker_and_the_determination() {
    let check = |change: &dyn Fn(&mut World), refused: &[&str]| {
        let mut world = World::good();
        change(&mut world);
        let refusals = decide_release(&world.batch()).err().unwrap_or_default();
        assert_eq!(refusals.iter().map(Refusal::rule).collect::<Vec<_>>(), refused);
    };
    check(&|world| world.key().active = None, &[]);
    check(&|world| world.key = None, &[]);
    check(&|world| world.by.person = None, &["asker-unknown"]);
    check(&|world| world.clock = ClockState::Untrusted, &["clock"]);
    check(&|world| world.determination().withdrawn = true, &["withdrawn"]);
    check(&|world| world.incident = None, &["incident-not-open"]);
    // It is released under the determination that is followed, while commands are signed, and while only the key is locked.
    let ours = format!("{DEVICE},Commissioned,2017-07-01,reads\n");
    for state in State::ALL {
        let may = state.may_sign() || state == State::Paused;
        let refused: &[&str] = if may { &[] } else { &["procedure-state"] };
        check(&|world| in_procedure(world, state, &ours), refused);
    }
    // What was signed before somebody paused the incident waits for the next activation.
    check(
        &|world| {
            in_procedure(world, State::Paused, &ours);
            world.incident.as_mut().unwrap().progress.as_mut().unwrap().paused_by = Some(9);
        },
        &["incident-paused"],
    );
    check(
        &|world| {
            in_procedure(world, State::Executing, &ours);
            world.incident.as_mut().unwrap().progress.as_mut().unwrap().determined.as_mut().unwrap().id = OTHER;
        },
        &["not-followed"],
    );
}

#[test]
fn what_was_signed_for_a_device_is_released_while_it_is_a_target_and_not_left_out() {
    let check = |targets: &str, excluded: bool, refused: Option<&str>| {
        let mut world = World::good();
        in_procedure(&mut world, State::Executing, targets);
        let progress = world.incident.as_mut().unwrap().progress.as_mut().unwrap();
        progress.targets.each(None::<Source>, |target| target.excluded = excluded).unwrap();
        let refusal = decide_release_to(&world.batch(), DEVICE).err();
        assert_eq!(refusal.as_ref().map(Refusal::rule), refused);
    };
    let ours = format!("{DEVICE},Commissioned,2017-07-01,reads\n");
    check(&ours, false, None);
    check(&ours, true, Some("excluded"));
    check("00DB1234567890FF,Commissioned,2017-07-01,reads\n", false, Some("not-a-target"));
}

#[test]
fn a_key_is_activated_where_its_incident_awaits_it_and_its_determination_is_in_force() {
    let check = |change: &dyn Fn(&mut World), refused: &[&str]| {
        let mut world = World::good();
        let ours = format!("{DEVICE},Commissioned,2017-07-01,reads\n");
        in_procedure(&mut world, State::Prepared, &ours);
        change(&mut world);
        let facts = world.batch();
        let refusals = [decide_asker(&facts), decide_opening(&facts)].into_iter().filter_map(Result::err).flatten();
        assert_eq!(refusals.map(|refusal| refusal.rule()).collect::<Vec<_>>(), refused);
    };
    for state in State::ALL {
        let refused: &[&str] = if matches!(state, State::Prepared | State::Paused) { &[] } else { &["not-prepared"] };
        check(&|world| world.incident.as_mut().unwrap().progress.as_mut().unwrap().state = state, refused);
    }
    check(&|world| world.key().active = None, &[]);
    check(&|world| world.by.person = Some("member-1".parse().unwrap()), &["asker-approved"]);
    check(&|world| world.by.person = None, &["asker-unknown"]);
    check(&|world| world.by.role = Role::Daemon, &["asker"]);
    check(&|world| world.clock = ClockState::Untrusted, &["clock"]);
    check(&|world| world.stopped_by = Some((OTHER, 9)), &["foreign-response"]);
    check(&|world| world.determination().execute = false, &["determination-negative"]);
    check(&|world| world.determination().window.from = now().plus_ms(1), &["window"]);
    check(&|world| world.determination().window.until = now(), &["window"]);
    check(&|world| world.determination().withdrawn = true, &["withdrawn"]);
    check(&|world| world.determination().superseded_by = Some(OTHER), &["superseded"]);
    check(&|world| world.determination().suspended_until = Some(now().plus_ms(1)), &["suspended"]);
    check(&|world| world.determination().scope = None, &["scope-outstanding"]);
    check(&|world| world.key().certificate = None, &["key-without-certificate"]);
    check(&|world| world.incident.as_mut().unwrap().closed = Some("over".into()), &["incident-not-open"]);
}

#[test]
fn a_determination_is_in_force_outside_its_suspension_until_its_window_ends_or_something_ends_it() {
    let until = now().plus_ms(1_000);
    let check = |alter: &dyn Fn(&mut DeterminationFacts), at: Timestamp, expected: &str| {
        let mut good = World::good();
        let facts = good.determination();
        (facts.window, facts.suspended_until) = (Window { from: now(), until }, None);
        alter(facts);
        let found = facts.not_in_force(at).map(|refusal| refusal.to_string()).unwrap_or_default();
        assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{expected:?}: {found:?}");
    };
    check(&|_| {}, until.plus_ms(-1), "");
    check(&|_| {}, until, "is in force");
    // What must precede the use of the key may be done before the window begins.
    check(&|_| {}, now().plus_ms(-1), "");
    let suspend = |facts: &mut DeterminationFacts| facts.suspended_until = Some(now().plus_ms(10));
    check(&suspend, now().plus_ms(9), "suspended");
    check(&suspend, now().plus_ms(10), "");
    check(&|facts| facts.withdrawn = true, now(), "was withdrawn");
    check(&|facts| facts.superseded_by = Some(DeterminationId([9; 16])), now(), "superseded");
    check(&|facts| facts.dropped_by_policy = Some(Digest([9; 32])), now(), "policy");
}
