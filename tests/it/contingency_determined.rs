//! What a determination by the Contingency route must say, and what an Issuing OCA's Compromise forbids: the daemon's own decision on a
//! state that is folded from entries, without a token. Nobody signs and nothing was referred, so a document is never taken in here; of all
//! that is told against it, what one change adds is what that change is refused for.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use smkid::domain::certificates::SmkiCertificate;
use smkid::domain::certificates::apex::{WrapAlgorithm, WrapParameters, WrappedApexKey};
use smkid::domain::certificates::signature::PublicKey;
use smkid::domain::determination::document::{
    Compromised, Determination, KeyChosen, LedgerHead, Method, Payload, Schedule, ScopeLeft, SymmetricKeyLine, Type,
    Written,
};
use smkid::domain::fold::book::policy_blobs;
use smkid::domain::fold::{Blobs, BookError, Fold};
use smkid::domain::gbcs::{SeqNumber, SymmetricKey, Template, TrustAnchorCell, Update};
use smkid::domain::intake::{self, Context, Head, Heads, KeyMeant, OF_AN_OCA, Opening, Submission, contingency};
use smkid::domain::ledger::contingency::{
    CheckResult, Compared, ContingencyChecked, ContingencyPrepared, OtherKey, RootImported, SymmetricKeySpent,
};
use smkid::domain::ledger::entry::{
    Actor, Channel, ClockState, DeterminationRecorded, Entry, Event, Genesis, IncidentOpened, KeyRecord, PolicyAdopted,
    Reason, Role, VERSION,
};
use smkid::domain::ledger::steps::{Certainty, CompromiseClass, Notification};
use smkid::domain::names::{DeterminationId, Digest, IncidentId, KeyId, KeyLabel, KeyUse, Purpose, RequestId};
use smkid::domain::policy::{Activation, Policy};
use smkid::domain::time::{Timestamp, Window};
use smkid::exercise::documents::{Drafter, Scope};
use smkid::exercise::lab::{Lab, Renewal, SoftKey};
use smkid::exercise::people::People;
use smkid::exercise::policy::{self, CONTINGENCY_KEYS, CONTINGENCY_TOKEN, Names, ORIGIN};
use smkid::exercise::template;

use crate::support::site::{device_list, template_name};

/// Documents by their SHA-256, and no signed head.
#[derive(Default)]
struct Papers(BTreeMap<Digest, Vec<u8>>);

impl Papers {
    fn add(&mut self, octets: &[u8]) -> Digest {
        let digest = Digest::of(octets);
        self.0.insert(digest, octets.to_vec());
        digest
    }
}

impl Blobs for Papers {
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, BookError> {
        self.0.get(&digest).cloned().ok_or(BookError::BlobMissing { digest })
    }

    fn stream(&self, digest: Digest, piece: &mut dyn FnMut(&[u8])) -> Result<(), BookError> {
        piece(&self.blob(digest)?);
        Ok(())
    }
}

impl Heads for Papers {
    fn head(&self, _: u64) -> Option<Head> {
        None
    }
}

/// A lab PKI whose root carries the first generation, a new root that carries the second, and a ledger that knows both.
struct Case {
    now: Timestamp,
    lab: Lab,
    renewal: Renewal,
    recovery: SmkiCertificate,
    policy: Policy,
    fields: [WrappedApexKey; 2],
    keys: [SoftKey; 2],
    fold: Fold,
    papers: Papers,
}

fn label(n: usize) -> KeyLabel {
    CONTINGENCY_KEYS[n].parse().unwrap()
}

fn incident() -> IncidentId {
    "INC-ROOT".parse().unwrap()
}

fn wrapped(public: &PublicKey, key: u8) -> WrappedApexKey {
    let symmetric = SymmetricKey::new(&[key; 32]).unwrap();
    let parameters = WrapParameters::Gcm { nonce: [7; 12], icv_len: 16 };
    WrappedApexKey::wrap(public, &symmetric, WrapAlgorithm::Aes256Gcm, parameters).unwrap()
}

fn by(role: Role) -> Actor {
    Actor { person: None, account: "somebody".into(), role, channel: Channel::Internal }
}

fn rules(reasons: &[Reason]) -> Vec<String> {
    let mut rules: Vec<String> = reasons.iter().map(|reason| reason.rule.to_string()).collect();
    rules.dedup();
    rules
}

impl Case {
    fn new() -> Self {
        let now: Timestamp = "2027-01-01T12:00:00Z".parse().unwrap();
        let mut lab = Lab::new(now).unwrap();
        let people = People::new(now).unwrap();
        let mut files = policy::files(&lab, &people, &"somebody".parse().unwrap(), Activation::Stored, now);
        policy::add_contingency_keys(&mut files);
        let policy = Policy::parse(&files).unwrap();
        let keys = [SoftKey::generate().unwrap(), SoftKey::generate().unwrap()];
        let fields = [wrapped(keys[0].public(), 1), wrapped(keys[1].public(), 2)];
        lab.carry(fields[0].clone()).unwrap();
        // Whichever of the DCC's Parties: its EUI-64 is what the certificate below the new root has.
        let recovery = lab.before()[5].clone();
        let renewal = lab.renew(Some(fields[1].clone()), &recovery).unwrap();
        let mut papers = Papers::default();
        for octets in policy_blobs(&files) {
            papers.add(&octets);
        }
        let mut case = Self { now, lab, renewal, recovery, policy, fields, keys, fold: Fold::default(), papers };
        let record = |label: &str, use_, token: &str, n: u8, public: &PublicKey| KeyRecord {
            label: label.parse().unwrap(),
            use_,
            token: token.parse().unwrap(),
            serial: "1".into(),
            id: KeyId([n; 16]),
            spki_sha256: public.spki_sha256(),
            spki: STANDARD.encode(public.to_spki()).into(),
        };
        let recovery_key = SoftKey::generate().unwrap();
        let [first, second] = [0, 1].map(|n| {
            record(
                CONTINGENCY_KEYS[n],
                KeyUse::Contingency,
                CONTINGENCY_TOKEN,
                u8::try_from(n).unwrap() + 3,
                case.keys[n].public(),
            )
        });
        let genesis = Genesis {
            origin: ORIGIN.parse().unwrap(),
            purpose: Purpose::Exercise,
            nonce: RequestId([1; 16]),
            keys: vec![record("recovery-1", KeyUse::Recovery, "smki-a", 1, recovery_key.public()), first, second],
            policy: case.policy.digest(),
        };
        case.record(Event::Genesis(genesis));
        case.record(Event::PolicyAdopted(PolicyAdopted {
            sequence: 1,
            policy: case.policy.digest(),
            predecessor: None,
            document: Digest([1; 32]),
            signatures: Vec::new(),
            carries_over: Vec::new(),
        }));
        case
    }

    /// Both generations are made and taken in, each as it would be decided.
    fn with_generations() -> Self {
        let mut case = Self::new();
        for n in 0..2 {
            let prepared = case.prepared(n);
            let octets = case.fields[n].to_der();
            contingency::may_prepare(&case.fold, &prepared, &octets).unwrap();
            case.papers.add(&octets);
            case.record(Event::ContingencyPrepared(prepared));
            let root = case.root(n);
            let imported = contingency::root(&case.context(), &label(n), &root, Compared::InToken).unwrap();
            case.papers.add(&root);
            case.record(Event::RootImported(imported));
        }
        case
    }

    fn prepared(&self, n: usize) -> ContingencyPrepared {
        ContingencyPrepared {
            key: label(n),
            token: CONTINGENCY_TOKEN.parse().unwrap(),
            symmetric: KeyId([u8::try_from(n).unwrap() + 0x30; 16]),
            wrapping: KeyId([u8::try_from(n).unwrap() + 0x40; 16]),
            bits: 256,
            wrap_with_trusted: true,
            algorithm: "aes-256-gcm".into(),
            extension: Digest::of(&self.fields[n].to_der()),
        }
    }

    fn root(&self, n: usize) -> Vec<u8> {
        [self.lab.root_oca(), self.renewal.root_oca()][n].octets().to_vec()
    }

    fn record(&mut self, event: Event) {
        let entry = Entry { v: VERSION, at: self.now, clock: ClockState::Trusted, by: by(Role::Ceremony), event };
        self.fold.apply(&entry, &entry.to_leaf().unwrap(), &self.papers, &mut Vec::new()).unwrap();
    }

    fn context(&self) -> Context<'_> {
        Context { fold: &self.fold, blobs: &self.papers, heads: &self.papers, at: self.now, clock: ClockState::Trusted }
    }

    /// An incident, as it would be decided.
    fn open(&mut self, id: &str, certificate: &[u8], key: Option<OtherKey>) {
        let class = if key.is_some() { CompromiseClass::Other } else { CompromiseClass::Organisation };
        let notification = Notification {
            by: "Officer".into(),
            party: "dcc".parse().unwrap(),
            certainty: Certainty::Actual,
            class,
            at: self.now,
            channel: "telephone".into(),
            recovery_event: self.now,
        };
        let opening = Opening {
            incident: &id.parse().unwrap(),
            certificate,
            key: KeyMeant::Recorded(key),
            description: "seen",
            notification: Some(&notification),
        };
        let opened: IncidentOpened = intake::incident(&self.context(), opening).unwrap();
        self.papers.add(certificate);
        self.record(Event::IncidentOpened(opened));
    }

    /// The root's own key is Compromised.
    fn open_root(&mut self) {
        let root = self.root(0);
        self.open("INC-ROOT", &root, Some(OtherKey::RootOca));
    }

    fn head() -> LedgerHead {
        LedgerHead { origin: ORIGIN.parse().unwrap(), size: 1_000, root: Digest([5; 32]) }
    }

    /// A determination by the Contingency route with this template.
    fn form(&self, template: &Template) -> Determination {
        let (root, name) = (self.lab.root_oca(), template_name());
        let list = device_list(0..2);
        let scope = Scope {
            decision_number: 1,
            method: Method::Contingency,
            name: &name,
            template,
            devices: &list,
            window: Window { from: self.now, until: self.now.plus_ms(3_600_000) },
            retries_of_unknown: 1,
        };
        let drafter = Drafter {
            proposer: Names::new().proposer,
            policy: &self.policy,
            incident: incident(),
            compromised: Compromised {
                certificate_sha256: root.sha256(),
                spki_sha256: root.spki_sha256(),
                party: OF_AN_OCA,
            },
            key: KeyChosen { label: label(0), spki_sha256: self.keys[0].public().spki_sha256() },
            also_weighed: None,
        };
        let line = SymmetricKeyLine {
            root_sha256: root.sha256(),
            next: label(1),
            next_root_sha256: self.renewal.root_oca().sha256(),
        };
        drafter.contingency(Self::head(), &scope, line).unwrap().form().clone()
    }

    fn good(&self) -> Template {
        template::contingency(&self.renewal).unwrap()
    }

    fn altered(&self, change: impl FnOnce(&mut Update<'_>)) -> Template {
        let good = self.good();
        let mut update = good.update();
        change(&mut update);
        Template::from_update(&update).unwrap()
    }

    fn refused(&self, form: &Determination) -> Vec<Reason> {
        let written = Written::write(form).unwrap();
        let submission = Submission { signatures: &[], devices: None };
        intake::determination(&self.context(), &written, &submission).unwrap_err()
    }

    /// What a change adds to what is told against a determination that is good but for its signatures.
    fn adds(&self, form: &Determination) -> Vec<String> {
        let usual = rules(&self.refused(&self.form(&self.good())));
        let mut found = rules(&self.refused(form));
        found.retain(|rule| !usual.contains(rule));
        found
    }

    #[track_caller]
    fn check(&self, form: &Determination, added: &[&str]) {
        assert_eq!(self.adds(form), added, "{:#?}", self.refused(form));
    }

    #[track_caller]
    fn check_template(&self, change: impl FnOnce(&mut Update<'_>), added: &[&str]) {
        self.check(&self.form(&self.altered(change)), added);
    }
}

#[test]
fn a_contingency_determination_replaces_the_root_first_by_the_one_that_carries_the_next_generation() {
    let mut case = Case::with_generations();
    let root = case.root(0);
    case.open("INC-ROOT", &root, Some(OtherKey::RootOca));
    // Nobody signed it, nothing was referred, and the head is none of this ledger: that is all that is told against it.
    let usual = rules(&case.refused(&case.form(&case.good())));
    for rule in &usual {
        assert!(["ledger-head", "incident-state", "quorum", "admission"].contains(&&**rule), "{usual:?}");
    }
    let (old, bare) = (root.clone(), case.lab.renew(None, &case.recovery).unwrap());
    // The root: there, once, first, and the very certificate.
    case.check_template(
        |update| {
            update.replacements.remove(0);
        },
        &["root-first"],
    );
    case.check_template(|update| update.replacements.swap(0, 1), &["root-first"]);
    let twice = |update: &mut Update<'_>| {
        let root = update.replacements[0];
        update.replacements.push(root);
    };
    let added = case.adds(&case.form(&case.altered(twice)));
    assert!(added.contains(&"root-first".to_owned()) && added.contains(&"cell-twice".to_owned()), "{added:?}");
    for root in [&old, &bare.root_oca().octets().to_vec()] {
        let altered = {
            let good = case.good();
            let mut update = good.update();
            update.replacements[0].certificate = root;
            Template::from_update(&update).unwrap()
        };
        let added = case.adds(&case.form(&altered));
        assert!(added.contains(&"next-generation".to_owned()), "{added:?}");
    }
    // Everything else leads to the new root, and not to the old one.
    case.check_template(|update| update.path_certificates.clear(), &["path"]);
    let of_old = {
        let good = case.good();
        let mut update = good.update();
        update.replacements[2].certificate = case.lab.after()[0].octets();
        update.path_certificates.push(case.lab.issuing_oca().octets());
        Template::from_update(&update).unwrap()
    };
    case.check(&case.form(&of_old), &["path"]);
    // Floors for the root and for each role that is replaced, but for the recovery cell's.
    case.check_template(|update| update.new_floor = None, &["floor-missing"]);
    for n in 0..4 {
        case.check_template(|update| drop(update.other_changes.as_mut().unwrap().remove(n)), &["floor-missing"]);
    }
    case.check_template(|update| update.replacements.retain(|of| of.cell != TrustAnchorCell::RECOVERY), &[]);
    // Before the new root is in force no Device should get it.
    let now = case.now;
    case.now = case.renewal.root_oca().certificate().not_before().plus_ms(-1);
    assert!(rules(&case.refused(&case.form(&case.good()))).contains(&"next-root-time".to_owned()));
    case.now = now;
    // Mode 8 is not opened by this route, nor by this key.
    let mode_8 = template::template(&case.lab, &case.recovery, case.lab.after()).unwrap();
    assert!(case.adds(&case.form(&mode_8)).contains(&"mode".to_owned()));
    // A later generation is counted on from the floors of the one before.
    let mut high = case.form(&case.altered(|update| update.new_floor = SeqNumber::new(500)));
    high.id = DeterminationId([0x0F; 16]);
    let written = Written::write(&high).unwrap();
    case.papers.add(written.octets());
    case.record(Event::DeterminationRecorded(DeterminationRecorded {
        determination: high.id,
        incident: incident(),
        document: written.digest(),
        signatures: Vec::new(),
        devices: high.devices.map(|list| list.sha256),
        policy: high.policy,
        profile: None,
        departures: Vec::new(),
    }));
    let from = |start| Determination { counter_start: Some(start), ..case.form(&case.good()) };
    let against = |start| rules(&case.refused(&from(start)));
    assert!(against(499).contains(&"counter-start".to_owned()) && !against(500).contains(&"counter-start".to_owned()));
    // Left to a schedule, the line is judged with the determination.
    let mut later = case.form(&case.good());
    (later.schedule, later.templates, later.devices, later.limits) = (Some(ScopeLeft::Later), None, None, None);
    case.check(&later, &[]);
    later.symmetric_key.as_mut().unwrap().next = label(0);
    case.check(&later, &["next-generation"]);
}

#[test]
fn the_line_names_the_root_on_the_devices_and_a_next_generation_that_is_there_unused_and_sound() {
    let mut case = Case::with_generations();
    case.open_root();
    let line = |change: &dyn Fn(&mut SymmetricKeyLine)| {
        let mut form = case.form(&case.good());
        change(form.symmetric_key.as_mut().unwrap());
        form
    };
    case.check(&line(&|line| line.root_sha256 = Digest([9; 32])), &["symmetric-key-line"]);
    case.check(&line(&|line| line.next_root_sha256 = Digest([9; 32])), &["next-generation"]);
    let another = |label: &str| line(&|line| line.next = label.parse().unwrap());
    for next in ["contingency-1", "contingency-3", "recovery-1"] {
        assert_eq!(case.adds(&another(next)), ["next-generation"], "{next}");
    }
    // The Recovery key by this route, and the contingency key by another.
    let mut form = case.form(&case.good());
    form.key = Some(KeyChosen { label: "recovery-1".parse().unwrap(), spki_sha256: Digest([1; 32]) });
    assert!(rules(&case.refused(&form)).contains(&"admission".to_owned()), "{:?}", case.refused(&form));
    let mut form = case.form(&case.good());
    (form.method, form.symmetric_key) = (Some(Method::NewOrganisationCertificates), None);
    let refused = case.refused(&form);
    let texts: Vec<&str> = refused.iter().map(|reason| &*reason.text).collect();
    assert!(texts.iter().any(|text| text.contains("needs a recovery key")), "{texts:?}");
    assert!(case.adds(&form).contains(&"method".to_owned()), "a root is recovered by no other route: {refused:?}");

    let spend = |case: &mut Case, n: usize, incident: &str| {
        let (incident, determination) = (incident.parse().unwrap(), DeterminationId([4; 16]));
        case.record(Event::SymmetricKeySpent(SymmetricKeySpent { key: label(n), incident, determination }));
    };
    // Spent in this incident it is released again; in another it is barred.
    let against = |case: &Case| rules(&case.refused(&case.form(&case.good())));
    spend(&mut case, 0, "INC-ROOT");
    assert!(!against(&case).contains(&"spent-elsewhere".to_owned()));
    let mut case = Case::with_generations();
    case.open_root();
    spend(&mut case, 0, "INC-OTHER");
    assert!(against(&case).contains(&"spent-elsewhere".to_owned()));
    let mut case = Case::with_generations();
    case.open_root();
    spend(&mut case, 1, "INC-OTHER");
    assert!(against(&case).contains(&"next-generation".to_owned()));
    // Compromised itself, the one generation or the other.
    for (n, rule) in [(0, "key-compromised"), (1, "next-generation")] {
        for key in [OtherKey::Contingency, OtherKey::ContingencySymmetric] {
            let mut case = Case::with_generations();
            case.open_root();
            let carrier = case.root(n);
            case.open("INC-KEY", &carrier, Some(key));
            assert!(against(&case).contains(&rule.to_owned()), "{n} {key}: {:?}", against(&case));
        }
    }
}

#[test]
fn a_schedule_of_a_contingency_determination_is_held_to_the_same() {
    let mut case = Case::with_generations();
    case.open_root();
    let good = case.form(&case.good());
    let mut later = good.clone();
    (later.schedule, later.templates, later.devices, later.limits) = (Some(ScopeLeft::Later), None, None, None);
    let written = Written::write(&later).unwrap();
    case.papers.add(written.octets());
    case.record(Event::DeterminationRecorded(DeterminationRecorded {
        determination: later.id,
        incident: incident(),
        document: written.digest(),
        signatures: Vec::new(),
        devices: None,
        policy: later.policy,
        profile: None,
        departures: Vec::new(),
    }));
    let against = |case: &Case, template: &Template| {
        let mut templates = good.templates.clone().unwrap();
        templates[0].payload = Payload::new(template.octets()).unwrap();
        let schedule = Schedule {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            determination: later.id,
            document: written.digest(),
            proposer: later.proposer.clone(),
            ledger: Case::head(),
            policy: later.policy,
            templates,
            devices: good.devices.unwrap(),
            limits: good.limits.unwrap(),
        };
        let submission = Submission { signatures: &[], devices: None };
        rules(&intake::schedule(&case.context(), &Written::write(&schedule).unwrap(), &submission).unwrap_err())
    };
    let usual = against(&case, &case.good());
    assert!(usual.iter().all(|rule| ["ledger-head", "admission", "quorum"].contains(&&**rule)), "{usual:?}");
    let added = |case: &Case, template: &Template| {
        against(case, template).into_iter().filter(|rule| !usual.contains(rule)).collect::<Vec<_>>()
    };
    let later_root = case.altered(|update| update.replacements.swap(0, 1));
    assert_eq!(added(&case, &later_root), ["root-first"]);
    assert_eq!(added(&case, &case.altered(|update| update.new_floor = None)), ["floor-missing"]);
    let mode_8 = template::template(&case.lab, &case.recovery, case.lab.after()).unwrap();
    assert!(added(&case, &mode_8).contains(&"mode".to_owned()));
    // The next generation was used since: nothing is settled any more.
    let (incident, determination) = ("INC-OTHER".parse().unwrap(), DeterminationId([4; 16]));
    case.record(Event::SymmetricKeySpent(SymmetricKeySpent { key: label(1), incident, determination }));
    assert!(added(&case, &case.good()).contains(&"next-generation".to_owned()));
}

#[test]
fn contingency_material_is_recorded_once_as_the_policy_wants_it_and_its_root_carries_it() {
    let mut case = Case::new();
    let field = case.fields[0].to_der();
    let check = |case: &Case, change: &dyn Fn(&mut ContingencyPrepared), octets: &[u8], expected: &[&str]| {
        let mut prepared = case.prepared(0);
        change(&mut prepared);
        let refused = contingency::may_prepare(&case.fold, &prepared, octets).err().unwrap_or_default();
        assert_eq!(rules(&refused), expected, "{refused:?}");
    };
    check(&case, &|_| {}, &field, &[]);
    check(&case, &|of| of.key = "recovery-1".parse().unwrap(), &field, &["key-use"]);
    check(&case, &|of| of.key = "contingency-9".parse().unwrap(), &field, &["key-unknown"]);
    check(&case, &|of| of.token = "smki-a".parse().unwrap(), &field, &["contingency-token"]);
    check(&case, &|of| of.wrapping = of.symmetric, &field, &["contingency-id"]);
    check(&case, &|of| of.symmetric = KeyId([3; 16]), &field, &["contingency-id"]);
    check(&case, &|of| of.wrap_with_trusted = false, &field, &["wrap-with-trusted"]);
    check(&case, &|of| of.bits = 128, &field, &["contingency-bits"]);
    check(&case, &|of| of.algorithm = "aes-256-cbc".into(), &field, &["contingency-algorithm"]);
    check(&case, &|_| {}, &case.fields[1].to_der(), &["contingency-extension"]);
    check(&case, &|of| of.extension = Digest::of(b"none"), b"none", &["contingency-extension"]);
    let prepared = case.prepared(0);
    case.papers.add(&field);
    // No root before the material is made.
    let root = case.root(0);
    let import = |case: &Case, n: usize, root: &[u8]| {
        rules(&contingency::root(&case.context(), &label(n), root, Compared::InToken).err().unwrap_or_default())
    };
    assert_eq!(import(&case, 0, &root), ["contingency-unknown"]);
    case.record(Event::ContingencyPrepared(prepared));
    check(&case, &|_| {}, &field, &["contingency-known", "contingency-id"]);
    assert_eq!(import(&case, 0, &root), [""; 0]);
    let bare = case.lab.renew(None, &case.recovery).unwrap();
    assert_eq!(import(&case, 0, bare.root_oca().octets()), ["root-without-field"]);
    assert_eq!(import(&case, 0, case.renewal.root_oca().octets()), ["root-of-another-key"]);
    let issuing = import(&case, 0, case.lab.issuing_oca().octets());
    assert!(issuing.contains(&"certificate-kind".to_owned()), "{issuing:?}");
    assert!(import(&case, 0, b"none").contains(&"certificate".to_owned()));
    let compared = Compared::InToken;
    let digest = case.papers.add(&root);
    case.record(Event::RootImported(RootImported { key: label(0), root: digest, compared }));
    assert_eq!(import(&case, 0, &root), ["root-known"]);
    // The next generation under the same root key: its Compromise would be one of both.
    let second = case.prepared(1);
    let octets = case.fields[1].to_der();
    case.papers.add(&octets);
    case.record(Event::ContingencyPrepared(second));
    case.lab.carry(case.fields[1].clone()).unwrap();
    let same_key = case.lab.root_oca().octets().to_vec();
    assert_eq!(import(&case, 1, &same_key), ["root-of-another-generation"]);
    assert_eq!(import(&case, 1, case.renewal.root_oca().octets()), [""; 0]);
    // What came of a check is recorded for that root, and an incident that is open.
    let checked = |root: Digest, incident: &str| ContingencyChecked {
        key: label(0),
        incident: incident.parse().unwrap(),
        root,
        result: CheckResult::Matches,
    };
    case.open("INC-ROOT", &root, Some(OtherKey::RootOca));
    let may = |case: &Case, checked: &ContingencyChecked| {
        rules(&contingency::may_check(&case.fold, checked).err().unwrap_or_default())
    };
    assert_eq!(may(&case, &checked(Digest::of(&root), "INC-ROOT")), [""; 0]);
    assert_eq!(may(&case, &checked(Digest([8; 32]), "INC-ROOT")), ["contingency-root"]);
    assert_eq!(may(&case, &checked(Digest::of(&root), "INC-NONE")), ["incident-closed"]);
}

#[test]
fn no_certificate_leads_over_an_oca_whose_key_is_compromised() {
    let mut case = Case::with_generations();
    let victim = case.lab.before()[0].octets().to_vec();
    case.open("INC-SUPPLIER", &victim, None);
    let form = |case: &Case| {
        let template = template::template(&case.lab, &case.recovery, case.lab.after()).unwrap();
        let mut form = case.form(&template);
        form.incident = "INC-SUPPLIER".parse().unwrap();
        (form.method, form.symmetric_key) = (Some(Method::NewOrganisationCertificates), None);
        let payload = Payload::new(template.octets()).unwrap();
        form.templates.as_mut().unwrap()[0].payload = payload;
        form
    };
    let against = |case: &Case| rules(&case.refused(&form(case)));
    assert!(!against(&case).iter().any(|rule| rule.starts_with("path")), "{:?}", against(&case));
    let issuing = case.lab.issuing_oca().octets().to_vec();
    case.open("INC-ISSUING", &issuing, Some(OtherKey::IssuingOca));
    assert!(against(&case).contains(&"path-compromised".to_owned()), "{:?}", against(&case));
    let mut case = Case::with_generations();
    case.open("INC-SUPPLIER", &victim, None);
    case.open_root();
    assert!(against(&case).contains(&"path".to_owned()), "{:?}", against(&case));
}
