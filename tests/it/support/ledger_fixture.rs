//! A small ledger as the daemon would write it, with keys in memory; and the means to rewrite it as somebody would who holds
//! the ledger key.

#[path = "large_ledger.rs"]
pub mod large;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smkid::cli::ledger_export::{ExportError, Source};
use smkid::domain::certificates::bodies::{Template as Certified, certification_request_info};
use smkid::domain::certificates::profile::Usage;
use smkid::domain::certificates::{Certificate, OrganisationSubject, pem};
use smkid::domain::determination::cms;
use smkid::domain::determination::document::{
    Compromised, Decision, Determination, DeviceList, Factor, Form, KeyChosen, LedgerHead, Limits, Method, Payload,
    Suspension, Template as DocumentTemplate, Type, Weight, Withdrawal, Written,
};
use smkid::domain::fold::{Book as _, Fold};
use smkid::domain::gbcs::{
    CpvChecks, CredentialsReplacementMode, KeyUsage, RemotePartyRole, Replacement, SeqNumber, Template,
    TrustAnchorCell, Update,
};
use smkid::domain::intake::{self, Context, Submission};
use smkid::domain::ledger::checkpoint::{Checkpoint, SignedCheckpoint};
use smkid::domain::ledger::entry::{
    Actor, Batch, CertificationIntent, Channel, ClockState, DeterminationRecorded, Entry, Event, Genesis, Intent,
    KeyActivated, KeyRecord, Outcome, Reason, Refused, Released, Role, Settled, SignResult, SignatureRecord, Started,
    Stopped, VERSION,
};
use smkid::domain::ledger::merkle::{Frontier, Head, leaf_hash};
use smkid::domain::ledger::note::Verifier;
use smkid::domain::names::{DeterminationId, DeviceId, Digest, Eui64, KeyId, KeyUse, PartyId, Purpose, RequestId};
use smkid::domain::policy::adoption::Adoption;
use smkid::domain::policy::facts::WantedForm;
use smkid::domain::policy::rules::{self, CommandFacts};
use smkid::domain::policy::{Policy, digest};
use smkid::domain::time::{Timestamp, Window};
use smkid::hsm::signer::{PemSigner, PersonSigner as _};
use smkid::recorder::{CannotRecord, CheckpointSigner, Moment, Recorder, record_alone};
use smkid::service::clock::{Before, Comparison, Now, Reading};
use smkid::store::memory::MemoryStore;
use smkid::store::{Reader, StagingLimits, Store};
use zeroize::Zeroizing;

use super::lab::{Holder, Key, Lab, VALIDITY, issue};

const ORIGIN: &str = "smkid.example/test";
const RECOVERY_PARTY: &str = "90B3D51F30000002";
pub const DEVICES: [&str; 5] =
    ["00DB123456789001", "00DB123456789002", "00DB123456789003", "00DB123456789004", "00DB123456789005"];
/// Every counter is above this.
pub const COUNTER_START: u64 = 7_000;
/// Intents an hour, so few that a test reaches them.
pub const PER_HOUR: u64 = 9;
const STAGING: StagingLimits = StagingLimits { account_len_max: 1 << 20, total_len_max: 1 << 20 };
/// The cell that the small ledger's command replaces.
const SUPPLIER: TrustAnchorCell = TrustAnchorCell::management(RemotePartyRole::Supplier, KeyUsage::DigitalSignature);
/// When the ledger begins.
const BEGIN: &str = "2026-11-01T09:00:00Z";
pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;

/// A Device by its number, of however many.
pub fn numbered(at: u64) -> DeviceId {
    let first: DeviceId = DEVICES[0].parse().unwrap();
    DeviceId(Eui64((u64::from_be_bytes(first.0.0) + at).to_be_bytes()))
}

pub fn device(at: usize) -> DeviceId {
    DEVICES[at].parse().unwrap()
}

struct Member {
    id: &'static str,
    certificate: Certificate,
    signer: PemSigner,
}

impl Member {
    fn sign(&self, document: Digest, at: Timestamp) -> Vec<u8> {
        let attributes = cms::signed_attributes(&document, &self.certificate, at).unwrap();
        let signature = self.signer.sign(&attributes).unwrap();
        cms::assemble(&attributes, &signature, &self.certificate, &[]).unwrap()
    }
}

/// The people's CA, and three members.
fn people() -> (String, Vec<Member>) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    let name = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut params = name("PMA CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let anchor = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let member = |id| {
        let mut params = name(id);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = pem::certificate(&params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        let text = Zeroizing::new(key.serialize_pem());
        let signer = PemSigner::from_pem(&text, certificate.clone(), || panic!("no passphrase is needed")).unwrap();
        Member { id, certificate, signer }
    };
    (anchor, ["member-1", "member-2", "member-3"].map(member).into())
}

/// The example of `keys-policy/` with the people and anchors of the test, and without its comments.
fn policy_files(anchor: &str, members: &[Member], lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-policy/example");
    let mut files = BTreeMap::new();
    for name in ["policy.toml", "keys.toml", "custodians.toml", "guidance.toml"] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let text = lines
            .collect::<Vec<_>>()
            .join("\n")
            .replace("purpose = \"live\"", "purpose = \"exercise\"")
            .replace("smkid.example/ledger", ORIGIN)
            .replace("approvals = 3", "approvals = 2");
        files.insert(name.to_owned(), format!("{text}\n").into_bytes());
    }
    // A policy of the first kind: its ledger is one of the first version, whose incidents know no procedure.
    let header = "version = 1\nid = \"base\"\ntitle = \"Base procedure, without variation\"\n";
    files.insert("procedure/base.toml".to_owned(), header.into());
    let mut persons = String::from("version = 1\n");
    for member in members {
        let key = Digest::of(member.certificate.spki());
        let (id, from) = (member.id, "from = \"2026-01-01T00:00:00Z\"");
        write!(
            persons,
            "[[person]]\nid = \"{id}\"\nname = \"{id}\"\nparty = \"dcc\"\nroles = [\"pma-member\"]\nkeys = [\"{key}\"]\n\
             accounts = [\"{id}\"]\n{from}\n"
        )
        .unwrap();
    }
    for (id, role, party, more) in [
        ("custodian-1", "key-custodian", "supplier-a", "shares = [\"share-1\"]"),
        ("custodian-2", "key-custodian", "supplier-b", "shares = [\"share-2\"]"),
        ("operator-1", "operator", "dcc", "accounts = [\"operator-1\"]"),
    ] {
        write!(
            persons,
            "[[person]]\nid = \"{id}\"\nname = \"{id}\"\nparty = \"{party}\"\nroles = [\"{role}\"]\n{more}\n\
             from = \"2026-01-01T00:00:00Z\"\n"
        )
        .unwrap();
    }
    files.insert("persons.toml".into(), persons.into_bytes());
    files.insert("anchors/people.pem".into(), anchor.as_bytes().to_vec());
    for (name, holder) in [("root-oca", &lab.root), ("issuing-oca", &lab.issuing), ("device-ca", &lab.device_ca)] {
        let pem = pem::certificate_to_pem(holder.certificate.octets());
        files.insert(format!("anchors/{name}.pem"), pem.into_bytes());
    }
    files
}

pub struct Signer {
    pub key: Arc<Key>,
    pub verifier: Verifier,
}

impl CheckpointSigner for Signer {
    fn sign(&mut self, checkpoint: &Checkpoint) -> Result<SignedCheckpoint, CannotRecord> {
        let signature = self.key.sign(checkpoint.text().as_bytes());
        Ok(SignedCheckpoint::assemble(checkpoint, &self.verifier, &signature)?)
    }
}

pub fn operator() -> Actor {
    actor("operator-1", Role::Operator)
}

fn actor(account: &str, role: Role) -> Actor {
    let channel = if role == Role::Ceremony { Channel::Console } else { Channel::Socket };
    Actor { person: None, account: account.into(), role, channel }
}

/// The wall clock is the monotonic one: what it jumped by while nobody looked, the ledger's last entry shows.
struct Clocks {
    now: Arc<AtomicI64>,
    comparison: Mutex<Comparison>,
}

fn reading(now: &AtomicI64) -> Reading {
    let monotonic_ms = now.load(Ordering::Relaxed);
    Reading { wall: Timestamp::from_unix_ms(monotonic_ms).unwrap(), monotonic_ms }
}

/// A ledger, and everything that it takes to go on with it.
pub struct Fixture {
    recorder: Recorder,
    /// None, if it lies elsewhere: then nobody else goes on with it.
    store: Option<MemoryStore>,
    /// How long each snapshot took.
    pub snapshots: Vec<Duration>,
    /// How many Devices there are: those of [`DEVICES`], and on from there.
    devices: u64,
    now: Arc<AtomicI64>,
    /// The clock of the process that was started last.
    clocks: Option<Arc<Clocks>>,
    ledger_key: Arc<Key>,
    pub verifier: Verifier,
    pub recovery_key: Key,
    members: Vec<Member>,
    lab: Lab,
    supplier: [Holder; 2],
    pub policy: Digest,
    pub genesis: Digest,
    pub template: Template,
    /// The determination that was recorded.
    pub determination: DeterminationId,
    /// Every document that was ever handed in.
    pub blobs: HashMap<Digest, Vec<u8>>,
    /// Sizes of the ledger at some points, by name.
    pub marks: BTreeMap<&'static str, u64>,
    requests: u8,
    /// What was signed for each request of a large ledger, as ranges of intents.
    signed: BTreeMap<RequestId, Vec<(u64, u64)>>,
}

/// What becomes of an intent in the fixture.
pub enum Fate {
    Signed,
    Withheld,
    Unknown,
    NotSigned,
    Failed,
}

impl Fixture {
    /// From the ceremony to a withdrawn determination.
    pub fn new() -> Self {
        let store = MemoryStore::new(STAGING).unwrap();
        let mut fixture = Self::begin(Box::new(store.clone()), Some(store), DEVICES.len() as u64, &[SUPPLIER]);
        fixture.certify();
        fixture.start();
        fixture.open_incident();
        fixture.determination = fixture.record_determination();
        fixture.mark("determination");
        fixture.activate();
        fixture.refuse("Devices before their key is active");
        fixture.mark("ready");
        let fates = [Fate::Signed, Fate::Unknown, Fate::NotSigned, Fate::Signed, Fate::Failed];
        fixture.job((0..5).map(|at| (device(at), WantedForm::Device)).zip(fates).collect());
        fixture.mark("first job");
        fixture.job(vec![((device(1), WantedForm::Retry), Fate::Signed)]);
        let pre_command = fixture.fill(device(2), COUNTER_START + 9);
        fixture.job(vec![((device(2), WantedForm::PreCommand(pre_command)), Fate::Unknown)]);
        fixture.leave(device(2));
        fixture.job(vec![((device(4), WantedForm::Device), Fate::Withheld)]);
        fixture.suspend();
        fixture.mark("suspended");
        fixture.wait(2 * HOUR_MS);
        fixture.refuse("nothing in particular");
        fixture.mark("resumed");
        fixture.withdraw();
        let stopped = Stopped { reason: "SIGTERM".into() };
        fixture.record(|recorder| recorder.queue(&Actor::daemon(), Event::Stopped(stopped)).unwrap());
        fixture.start();
        fixture.mark("end");
        fixture
    }

    fn begin(store: Box<dyn Store>, memory: Option<MemoryStore>, devices: u64, cells: &[TrustAnchorCell]) -> Self {
        let (anchor, members) = people();
        let lab = Lab::new();
        let (ledger_key, recovery_key) = (Arc::new(Key::generate()), Key::generate());
        let verifier = Verifier::from_spki(ORIGIN, &ledger_key.public.to_spki()).unwrap();
        let files = policy_files(&anchor, &members, &lab);
        let policy = Policy::parse(&files).unwrap_or_else(|errors| panic!("{errors:#?}"));
        let supplier = |role, usage| {
            let party: PartyId = "90B3D51F30000009".parse().unwrap();
            let subject = OrganisationSubject { common_name: None, role, party };
            let template = Certified::Organisation { subject, usage };
            issue(&template, Key::generate(), Some(&lab.issuing), VALIDITY)
        };
        let agreement = supplier(2, Usage::KeyAgreement);
        let supplier = [supplier(2, Usage::DigitalSignature), supplier(2, Usage::DigitalSignature)];
        let certificate = |cell: &TrustAnchorCell| match cell.key_usage {
            KeyUsage::DigitalSignature => supplier[1].certificate.octets(),
            _ => agreement.certificate.octets(),
        };
        let replacements = cells.iter().map(|cell| Replacement { certificate: certificate(cell), cell: *cell });
        let template = Template::from_update(&Update {
            mode: CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery,
            cpv_checks: CpvChecks::Disapply,
            authorising_cell: Some(TrustAnchorCell::RECOVERY),
            new_floor: Some(SeqNumber::ZERO),
            new_specialist_floors: None,
            other_changes: None,
            replacements: replacements.collect(),
            path_certificates: vec![lab.issuing.certificate.octets()],
            execution: None,
        })
        .unwrap();
        let now = Arc::new(AtomicI64::new(BEGIN.parse::<Timestamp>().unwrap().unix_ms()));
        let clock = Arc::clone(&now);
        let read = move || {
            let at = Timestamp::from_unix_ms(clock.load(Ordering::Relaxed)).unwrap();
            (Moment { at, clock: ClockState::Trusted }, None)
        };
        let mut recorder = Recorder::new(store, Fold::default(), Box::new(read)).unwrap();
        recorder.set_signer(Box::new(Signer { key: Arc::clone(&ledger_key), verifier: verifier.clone() }));
        let mut fixture = Self {
            recorder,
            store: memory,
            snapshots: Vec::new(),
            devices,
            now,
            clocks: None,
            ledger_key,
            verifier,
            recovery_key,
            members,
            lab,
            supplier,
            policy: policy.digest(),
            genesis: Digest([0; 32]),
            template,
            determination: DeterminationId([0xD1; 16]),
            blobs: HashMap::new(),
            marks: BTreeMap::new(),
            requests: 0,
            signed: BTreeMap::new(),
        };
        let sums: Vec<String> = files.iter().map(|(path, file)| format!("{}  {path}\n", Digest::of(file))).collect();
        let sums = sums.concat();
        assert_eq!(Digest::of(sums.as_bytes()), digest(&files));
        fixture.blob(sums.into_bytes());
        for file in files.into_values() {
            fixture.blob(file);
        }
        fixture.write_genesis();
        fixture.adopt(&policy);
        fixture
    }

    fn write_genesis(&mut self) {
        let record = |label: &str, use_, token: &str, id, key: &Key| KeyRecord {
            label: label.parse().unwrap(),
            use_,
            token: token.parse().unwrap(),
            serial: format!("{token}-serial").into(),
            id: KeyId([id; 16]),
            spki_sha256: key.public.spki_sha256(),
            spki: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key.public.to_spki()).into(),
        };
        let keys = vec![
            record("ledger-1", KeyUse::Ledger, "ledger-a", 1, &self.ledger_key),
            record("recovery-1", KeyUse::Recovery, "smki-a", 2, &self.recovery_key),
        ];
        let (origin, policy) = (ORIGIN.parse().unwrap(), self.policy);
        let genesis = Genesis { origin, purpose: Purpose::Exercise, nonce: RequestId([7; 16]), keys, policy };
        let blobs: Vec<Vec<u8>> = self.blobs.values().cloned().collect();
        self.record(|recorder| {
            queue_all(recorder, blobs);
            recorder.queue(&actor("root", Role::Ceremony), Event::Genesis(genesis)).unwrap();
        });
        self.genesis = self.recorder.fold().genesis().unwrap().1;
    }

    fn adopt(&mut self, policy: &Policy) {
        let form = Adoption {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            origin: ORIGIN.parse().unwrap(),
            sequence: 1,
            policy: policy.digest(),
            predecessor: None,
            ledger: None,
            carries_over: vec![],
        };
        let document = Written::write(&form).unwrap();
        let signatures = self.signed(&document, &[0, 1, 2]);
        self.record(|recorder| {
            let submission = Submission { signatures: &signatures, devices: None };
            let event = intake::policy(&context(recorder), &document, policy, &submission).unwrap();
            queue_document(recorder, &document, &signatures);
            recorder.queue(&actor("root", Role::Ceremony), Event::PolicyAdopted(event)).unwrap();
        });
    }

    fn certify(&mut self) {
        let party: PartyId = RECOVERY_PARTY.parse().unwrap();
        let subject = OrganisationSubject { common_name: None, role: 1, party };
        let info = self.blob(certification_request_info(&subject, &self.recovery_key.public).unwrap());
        let conductor = actor("root", Role::Ceremony);
        let key: smkid::domain::names::KeyLabel = "recovery-1".parse().unwrap();
        let intent = CertificationIntent { key: key.clone(), request_info: info };
        let octets = self.blobs[&info].clone();
        let signature = self.recovery_key.sign(&octets);
        let intent = self.record(|recorder| {
            recorder.queue_blob(octets);
            recorder.queue(&conductor, Event::CertificationIntent(intent)).unwrap()
        });
        let template = Certified::Organisation { subject, usage: Usage::DigitalSignature };
        let issued = super::lab::issue_octets(&template, &self.recovery_key, Some(&self.lab.issuing), VALIDITY);
        let above: Vec<Vec<u8>> =
            [&self.lab.issuing, &self.lab.root].iter().map(|ca| ca.certificate.octets().to_vec()).collect();
        for octets in above.iter().chain([&issued]) {
            self.blob(octets.clone());
        }
        self.record(|recorder| {
            recorder.queue_signature(intent, signature, false);
            let result = SignResult::Signed(Digest::of(&signature));
            recorder.queue(&conductor, Event::Outcome(Outcome { intent, result })).unwrap();
        });
        self.record(|recorder| {
            let event = intake::certificate(&context(recorder), &key, &issued, &above).unwrap();
            recorder.queue_blob(issued);
            queue_all(recorder, above);
            recorder.queue(&conductor, Event::CertificateImported(event)).unwrap();
        });
    }

    fn start(&mut self) {
        self.wait(MINUTE_MS);
        let digest = Digest([0xAB; 32]);
        let started = Started { version: "0.1.0".into(), program: digest, configuration: digest, unconfirmed: None };
        self.record(|recorder| recorder.queue(&Actor::daemon(), Event::Started(started)).unwrap());
    }

    fn open_incident(&mut self) {
        let octets = self.supplier[0].certificate.octets().to_vec();
        self.blob(octets.clone());
        self.record(|recorder| {
            let opening = intake::Opening {
                incident: &"INC-1".parse().unwrap(),
                certificate: &octets,
                key: intake::KeyMeant::Said(None),
                description: "Notified",
                notification: None,
            };
            let event = intake::incident(&context(recorder), opening).unwrap();
            recorder.queue_blob(octets);
            let by = recorder.known(operator());
            recorder.queue(&by, Event::IncidentOpened(event)).unwrap();
        });
    }

    fn activate(&mut self) {
        let until = Some(self.at().plus_ms(12 * HOUR_MS));
        let (key, token) = ("recovery-1".parse().unwrap(), "smki-a".parse().unwrap());
        let (serial, also) = ("smki-a-serial".into(), Vec::new());
        let activated =
            KeyActivated { key, token, serial, until, incident: None, profile: None, also, custodians: Vec::new() };
        self.record(|recorder| {
            let by = recorder.known(operator());
            recorder.queue(&by, Event::KeyActivated(activated)).unwrap();
        });
    }

    fn list(&self) -> Vec<u8> {
        (0..self.devices).flat_map(|at| format!("{},esme\n", numbered(at)).into_bytes()).collect()
    }

    fn device_list(&self) -> DeviceList {
        let mut lines = Frontier::new();
        lines.extend((0..self.devices).map(|at| leaf_hash(format!("{},esme", numbered(at)).as_bytes())));
        DeviceList { count: self.devices, sha256: Digest::of(&self.list()), root: lines.root() }
    }

    /// The small one's are so few that a test reaches them.
    fn limits(&self) -> Limits {
        let (intents, per_hour) =
            if self.store.is_some() { (20, PER_HOUR) } else { (self.devices * 4, self.devices * 4) };
        Limits { intents, per_hour, retries_of_unknown: 3, retry_by_itself: false }
    }

    fn head(&self) -> LedgerHead {
        let Head { size, root } = self.recorder.durable();
        LedgerHead { origin: ORIGIN.parse().unwrap(), size, root }
    }

    /// The head under which the determination was drafted is that of the ledger then.
    fn determination_form(&self, proposer: &str) -> Determination {
        let compromised = &self.supplier[0].certificate;
        let factor = |id: &str, weight| Factor {
            id: id.parse().unwrap(),
            weight,
            comment: "As weighed by the PMA".parse().unwrap(),
        };
        Determination {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            id: self.determination,
            incident: "INC-1".parse().unwrap(),
            decision_number: 1,
            proposer: proposer.parse().unwrap(),
            ledger: self.head(),
            policy: self.policy,
            decision: Decision::Execute,
            compromised: Compromised {
                certificate_sha256: Digest::of(compromised.octets()),
                spki_sha256: compromised.certificate().spki_sha256(),
                party: "90B3D51F30000009".parse().unwrap(),
            },
            factors: vec![
                factor("devices-affected", Weight::Towards),
                factor("misuse-seen", Weight::Towards),
                factor("compromise-confirmed", Weight::Met),
            ],
            window: Window { from: self.at(), until: self.at().plus_ms(6 * HOUR_MS) },
            supersedes: None,
            key: Some(KeyChosen {
                label: "recovery-1".parse().unwrap(),
                spki_sha256: self.recovery_key.public.spki_sha256(),
            }),
            method: Some(Method::NewOrganisationCertificates),
            symmetric_key: None,
            counter_start: Some(COUNTER_START),
            schedule: None,
            templates: Some(vec![DocumentTemplate {
                name: "esme".parse().unwrap(),
                payload: Payload::new(self.template.octets()).unwrap(),
            }]),
            devices: Some(self.device_list()),
            limits: Some(self.limits()),
        }
    }

    fn record_determination(&mut self) -> DeterminationId {
        self.wait(MINUTE_MS);
        let document = Written::write(&self.determination_form("operator-1")).unwrap();
        let signatures = self.signed(&document, &[0, 2]);
        let (list, devices) = (self.list(), Some(self.device_list()));
        self.blob(list.clone());
        self.record(|recorder| {
            let submission = Submission { signatures: &signatures, devices };
            let event = intake::determination(&context(recorder), &document, &submission).unwrap();
            queue_document(recorder, &document, &signatures);
            recorder.queue_blob(list);
            let by = recorder.known(actor("member-1", Role::Account));
            recorder.queue(&by, Event::DeterminationRecorded(event)).unwrap();
        });
        document.form().id
    }

    /// The digest of the determination's document.
    fn document(&self) -> Digest {
        self.recorder.fold().determinations()[&self.determination].document
    }

    fn suspend(&mut self) {
        let form = Suspension {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            determination: self.determination,
            document: self.document(),
            member: "member-2".parse().unwrap(),
            hours: 1,
            ledger: self.head(),
            policy: self.policy,
            reason: "A doubt".parse().unwrap(),
        };
        let document = Written::write(&form).unwrap();
        let signatures = self.signed(&document, &[1]);
        self.record(|recorder| {
            let submission = Submission { signatures: &signatures, devices: None };
            let event = intake::suspension(&context(recorder), &document, &submission).unwrap();
            queue_document(recorder, &document, &signatures);
            let by = recorder.known(actor("member-2", Role::Account));
            recorder.queue(&by, Event::DeterminationSuspended(event)).unwrap();
        });
    }

    fn withdraw(&mut self) {
        let form = Withdrawal {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            determination: self.determination,
            document: self.document(),
            proposer: "operator-1".parse().unwrap(),
            ledger: self.head(),
            policy: self.policy,
            reason: "It is done".parse().unwrap(),
        };
        let document = Written::write(&form).unwrap();
        let signatures = self.signed(&document, &[1, 2]);
        self.record(|recorder| {
            let submission = Submission { signatures: &signatures, devices: None };
            let event = intake::withdrawal(&context(recorder), &document, &submission).unwrap();
            queue_document(recorder, &document, &signatures);
            let by = recorder.known(actor("member-2", Role::Account));
            recorder.queue(&by, Event::DeterminationWithdrawn(event)).unwrap();
        });
    }

    /// The whole pre-command.
    pub fn fill(&self, device: DeviceId, counter: u64) -> Vec<u8> {
        let mut octets = Vec::new();
        self.template.fill(RECOVERY_PARTY.parse().unwrap(), device, counter, &mut octets).unwrap();
        octets
    }

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId([self.requests; 16])
    }

    fn job(&mut self, wanted: Vec<((DeviceId, WantedForm), Fate)>) {
        self.wait(MINUTE_MS);
        let (request, determination, policy) = (self.next_request(), self.determination, self.policy);
        let template = self.template.clone();
        let intended: Vec<(u64, Vec<u8>, Fate)> = self.record(|recorder| {
            let by = recorder.known(operator());
            let batch = Batch {
                request,
                asked: Digest([request.0, request.0].concat().try_into().expect("twice 16 octets are 32")),
                incident: "INC-1".parse().unwrap(),
                determination,
                policy,
                profile: None,
                key: "recovery-1".parse().unwrap(),
            };
            let batch = recorder.queue(&by, Event::Batch(batch)).unwrap();
            let mut intended = Vec::new();
            for ((device, form), fate) in wanted {
                let Moment { at, clock } = recorder.moment();
                let facts = recorder.fold().batch_facts(&by, determination, at, clock).unwrap();
                rules::decide_batch(&facts).unwrap();
                let pre_command = match &form {
                    WantedForm::PreCommand(octets) => {
                        Some(template.matches(octets).map(|(originator, _, counter)| (originator, counter)))
                    }
                    WantedForm::Device | WantedForm::Retry => None,
                };
                let (listed, last) = (
                    recorder.listed(determination, device).unwrap(),
                    recorder.device(&"recovery-1".parse().unwrap(), device).unwrap(),
                );
                let facts = CommandFacts {
                    batch: &facts,
                    device,
                    form: &form,
                    pre_command: pre_command.as_ref(),
                    listed: listed.as_ref(),
                    last: last.as_ref(),
                };
                let allowance = rules::decide(&facts).unwrap();
                let mut octets = Vec::new();
                allowance.template.fill(allowance.originator, device, allowance.counter, &mut octets).unwrap();
                let intent = Intent {
                    batch,
                    template: allowance.template_name,
                    device,
                    counter: allowance.counter,
                    attempt: allowance.attempt,
                    command: Digest::of(&octets[1..]),
                };
                let index = recorder.queue(&by, Event::Intent(intent)).unwrap();
                intended.push((index, octets, fate));
            }
            intended
        });
        let signatures: Vec<[u8; 64]> =
            intended.iter().map(|(_, octets, _)| self.recovery_key.sign(&octets[1..])).collect();
        self.record(|recorder| {
            let mut released = Vec::new();
            for ((intent, _, fate), signature) in intended.into_iter().zip(signatures) {
                let result = match fate {
                    Fate::Signed | Fate::Withheld => {
                        let release = matches!(fate, Fate::Signed);
                        recorder.queue_signature(intent, signature, release);
                        released.extend(release.then_some((intent, intent + 1)));
                        SignResult::Signed(Digest::of(&signature))
                    }
                    Fate::Unknown => SignResult::Unknown("the worker ended".into()),
                    Fate::NotSigned => SignResult::NotSigned("the token was not asked".into()),
                    Fate::Failed => SignResult::Failed("CKR_FUNCTION_FAILED".into()),
                };
                recorder.queue(&Actor::daemon(), Event::Outcome(Outcome { intent, result })).unwrap();
            }
            if !released.is_empty() {
                let by = recorder.known(operator());
                let event = Released { request, determination, intents: released };
                recorder.queue(&by, Event::Released(event)).unwrap();
            }
        });
    }

    fn leave(&mut self, device: DeviceId) {
        let determination = self.determination;
        self.record(|recorder| {
            let by = recorder.known(operator());
            let key: smkid::domain::names::KeyLabel = "recovery-1".parse().unwrap();
            let intent = recorder.device(&key, device).unwrap().unwrap().intent;
            let settled = Settled { intent, determination, key, device, reason: "It is to be visited".into() };
            recorder.queue(&by, Event::Settled(settled)).unwrap();
        });
    }

    fn refuse(&mut self, what: &str) {
        let request = Some(self.next_request());
        self.record(|recorder| {
            let by = recorder.known(operator());
            let refused = Refused {
                operation: "recovery-sign".into(),
                incident: None,
                determination: None,
                request,
                device: None,
                asked: Digest::of(what.as_bytes()),
                reasons: vec![Reason { rule: "key-locked".into(), text: what.into() }],
            };
            recorder.refuse(&by, refused).unwrap();
        });
    }

    /// Records alone, and takes a snapshot if one is due.
    pub fn record<R>(&mut self, ask: impl FnOnce(&mut Recorder) -> R) -> R {
        let reply = record_alone(&mut self.recorder, |recorder| Ok(ask(recorder))).unwrap().into_inner();
        let (before, begun) = (self.recorder.durable().size, Instant::now());
        self.recorder.snapshot_if_due().unwrap();
        if self.recorder.durable().size > before {
            self.snapshots.push(begun.elapsed());
        }
        reply
    }

    /// A recorder that has no ledger key, on the same ledger: what it records is durable and under no checkpoint, as after a
    /// crash, or when somebody else wrote it.
    pub fn without_key(&self) -> Recorder {
        let at = self.at();
        let read = move || (Moment { at, clock: ClockState::Trusted }, None);
        Recorder::new(Box::new(self.in_memory()), self.recorder.fold().clone(), Box::new(read)).unwrap()
    }

    /// What signs its checkpoints.
    pub fn signer(&self) -> Signer {
        Signer { key: Arc::clone(&self.ledger_key), verifier: self.verifier.clone() }
    }

    /// The recorder of another process, which knows what the ledger says.
    pub fn restart(&mut self) {
        let now = Arc::clone(&self.now);
        let fold = self.caught_up().unwrap();
        let covered = self.in_memory().latest_checkpoint().unwrap().map_or(0, |checkpoint| checkpoint.head.size);
        let clocks = Arc::new(Clocks {
            comparison: Mutex::new(Comparison::start(reading(&now), Before::of(&fold, covered))),
            now,
        });
        self.clocks = Some(Arc::clone(&clocks));
        let read = move || {
            let Now { at, state, jump_ms, .. } = clocks.comparison.lock().unwrap().take(reading(&clocks.now));
            (Moment { at, clock: state }, jump_ms)
        };
        let mut recorder = Recorder::new(Box::new(self.in_memory()), fold, Box::new(read)).unwrap();
        recorder.set_signer(Box::new(self.signer()));
        self.recorder = recorder;
    }

    /// The state.
    pub fn fold(&self) -> &Fold {
        self.recorder.fold()
    }

    /// An operator accepts the clock of the process that was started last.
    pub fn accept_clock(&mut self) {
        let clocks = Arc::clone(self.clocks.as_ref().unwrap());
        let by = Forge::operator();
        self.record(|recorder| {
            let now = reading(&clocks.now);
            let Now { at, state, .. } = clocks.comparison.lock().unwrap().accept(now, now.wall).unwrap();
            let from = Moment { at, clock: state };
            recorder.accept_clock(&by, "Compared with the radio clock".into(), from).unwrap();
            assert_eq!(recorder.moment().clock, ClockState::Trusted);
        });
    }

    /// What a start makes of the ledger.
    pub fn caught_up(&self) -> Result<Fold, smkid::state::StateError> {
        smkid::state::catch_up(&mut self.in_memory())
    }

    /// The determination again under another id and number, signed by these members: the event is as if two had signed.
    pub fn another_determination(&mut self, members: &[usize]) -> (Vec<Vec<u8>>, DeterminationRecorded) {
        let mut form = self.determination_form("operator-1");
        form.id = DeterminationId([0xD2; 16]);
        form.decision_number = 2;
        let document = Written::write(&form).unwrap();
        let mut blobs = self.signed(&document, members);
        let signatures = members.iter().zip(&blobs).map(|(member, p7s)| {
            let member = &self.members[*member];
            let spki = Digest::of(member.certificate.spki());
            SignatureRecord { person: member.id.parse().unwrap(), spki, p7s: Digest::of(p7s) }
        });
        let event = DeterminationRecorded {
            determination: form.id,
            incident: form.incident.clone(),
            document: document.digest(),
            signatures: signatures.collect(),
            devices: form.devices.as_ref().map(|devices| devices.sha256),
            policy: form.policy,
            profile: None,
            departures: vec![],
        };
        blobs.push(document.octets().to_vec());
        (blobs, event)
    }

    /// The store, as another process has it.
    pub fn in_memory(&self) -> MemoryStore {
        self.store.clone().expect("only a small ledger is gone on with by another process")
    }

    fn mark(&mut self, name: &'static str) {
        self.marks.insert(name, self.recorder.durable().size);
    }

    /// So many milliseconds pass.
    pub fn wait(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.now.load(Ordering::Relaxed)).unwrap()
    }

    fn blob(&mut self, octets: Vec<u8>) -> Digest {
        let digest = Digest::of(&octets);
        self.blobs.insert(digest, octets);
        digest
    }

    /// The signatures of these members, which are kept with the document.
    fn signed<F: Form>(&mut self, document: &Written<F>, members: &[usize]) -> Vec<Vec<u8>> {
        self.blob(document.octets().to_vec());
        let at = self.at();
        let signatures: Vec<_> = members.iter().map(|at_| self.members[*at_].sign(document.digest(), at)).collect();
        for p7s in &signatures {
            self.blob(p7s.clone());
        }
        signatures
    }

    pub fn reader(&self) -> Box<dyn Reader + Send> {
        self.recorder.store().reader().unwrap()
    }

    /// The ledger up to a mark, to be gone on with by somebody who holds the ledger key.
    pub fn forge(&self, mark: &str) -> Forge<'_> {
        let reader = self.reader();
        let mut entries = Vec::new();
        reader
            .leaves(0..self.marks[mark], &mut |leaf| {
                entries.push(Entry::from_leaf(leaf.octets).unwrap());
                ControlFlow::Continue(())
            })
            .unwrap();
        let size = entries.len() as u64;
        let sizes = reader.checkpoints(0, usize::MAX).unwrap().into_iter().map(|checkpoint| checkpoint.head.size);
        let signatures = (0..size).filter_map(|at| Some((at, reader.signature(at).unwrap()?.octets))).collect();
        Forge {
            fixture: self,
            leaves: entries.iter().map(|entry| entry.to_leaf().unwrap()).collect(),
            at: entries.last().unwrap().at,
            clock: ClockState::Trusted,
            sizes: sizes.filter(|at| *at <= size).collect(),
            signatures,
            blobs: self.blobs.clone(),
        }
    }
}

fn context(recorder: &Recorder) -> Context<'_> {
    let Moment { at, clock } = recorder.moment();
    Context { fold: recorder.fold(), blobs: recorder, heads: recorder, at, clock }
}

fn queue_document<F>(recorder: &mut Recorder, document: &Written<F>, signatures: &[Vec<u8>]) {
    recorder.queue_blob(document.octets().to_vec());
    queue_all(recorder, signatures.to_vec());
}

fn queue_all(recorder: &mut Recorder, blobs: Vec<Vec<u8>>) {
    for blob in blobs {
        recorder.queue_blob(blob);
    }
}

/// A ledger rewritten: whatever is put in is hashed and signed, and nothing is asked.
pub struct Forge<'a> {
    pub fixture: &'a Fixture,
    pub leaves: Vec<Vec<u8>>,
    pub at: Timestamp,
    pub clock: ClockState,
    pub sizes: BTreeSet<u64>,
    pub signatures: BTreeMap<u64, [u8; 64]>,
    pub blobs: HashMap<Digest, Vec<u8>>,
}

impl Forge<'_> {
    pub fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    pub fn entry(&self, index: u64) -> Entry {
        Entry::from_leaf(&self.leaves[usize::try_from(index).unwrap()]).unwrap()
    }

    /// The index of the last entry of this kind.
    pub fn last(&self, kind: &str) -> u64 {
        (0..self.size()).rev().find(|index| self.entry(*index).event.kind() == kind).unwrap()
    }

    /// Back to this many entries.
    pub fn cut(&mut self, size: u64) {
        self.leaves.truncate(usize::try_from(size).unwrap());
        self.sizes.retain(|at| *at <= size);
        self.signatures.retain(|at, _| *at < size);
    }

    pub fn push_by(&mut self, by: Actor, event: Event) -> u64 {
        let entry = Entry { v: VERSION, at: self.at, clock: self.clock, by, event };
        self.leaves.push(entry.to_leaf().unwrap());
        self.size() - 1
    }

    pub fn operator() -> Actor {
        Actor { person: Some("operator-1".parse().unwrap()), ..operator() }
    }

    pub fn push(&mut self, event: Event) -> u64 {
        self.push_by(Self::operator(), event)
    }

    /// Records the determination in another way: back to where it was, its document changed, signed by these members.
    pub fn determination(
        &mut self,
        members: &[usize],
        change: impl FnOnce(&mut Determination),
        record: impl FnOnce(&mut DeterminationRecorded),
    ) -> u64 {
        let index = self.last("determination-recorded");
        let Entry { at, event: Event::DeterminationRecorded(mut recorded), by, .. } = self.entry(index) else {
            panic!("no determination")
        };
        self.cut(index);
        self.at = at;
        let document = Written::<Determination>::read(self.blobs[&recorded.document].clone()).unwrap();
        let mut form = document.form().clone();
        change(&mut form);
        let document = Written::write(&form).unwrap();
        recorded.document = self.blob_of(document.octets().to_vec());
        recorded.signatures = Vec::new();
        for member in members {
            let member = &self.fixture.members[*member];
            let p7s = self.blob_of(member.sign(document.digest(), at));
            let spki = Digest::of(member.certificate.spki());
            recorded.signatures.push(SignatureRecord { person: member.id.parse().unwrap(), spki, p7s });
        }
        record(&mut recorded);
        self.push_by(by, Event::DeterminationRecorded(recorded))
    }

    /// Another event in the place of the last of that kind, where the ledger then ends.
    pub fn replace(&mut self, kind: &str, change: impl FnOnce(&mut Event)) -> u64 {
        let index = self.last(kind);
        let Entry { at, mut event, by, clock, .. } = self.entry(index);
        change(&mut event);
        self.cut(index);
        (self.at, self.clock) = (at, clock);
        self.push_by(by, event)
    }

    pub fn blob_of(&mut self, octets: Vec<u8>) -> Digest {
        let digest = Digest::of(&octets);
        self.blobs.insert(digest, octets);
        digest
    }

    pub fn checkpoint(&mut self) {
        self.sizes.insert(self.size());
    }

    pub fn batch(&mut self, request: u8) -> u64 {
        let fixture = self.fixture;
        self.push(Event::Batch(Batch {
            request: RequestId([request; 16]),
            asked: Digest([request; 32]),
            incident: "INC-1".parse().unwrap(),
            determination: fixture.determination,
            policy: fixture.policy,
            profile: None,
            key: "recovery-1".parse().unwrap(),
        }))
    }

    pub fn intent(&mut self, batch: u64, device: DeviceId, counter: u64, attempt: u32) -> u64 {
        let command = Digest::of(&self.fixture.fill(device, counter)[1..]);
        let template = "esme".parse().unwrap();
        self.push(Event::Intent(Intent { batch, template, device, counter, attempt, command }))
    }

    /// A signed outcome, over what the intent says.
    pub fn sign(&mut self, intent: u64) -> u64 {
        let Event::Intent(Intent { device, counter, .. }) = self.entry(intent).event else { panic!("no intent") };
        let signature = self.fixture.recovery_key.sign(&self.fixture.fill(device, counter)[1..]);
        self.outcome(intent, signature)
    }

    pub fn outcome(&mut self, intent: u64, signature: [u8; 64]) -> u64 {
        self.signatures.insert(intent, signature);
        let result = SignResult::Signed(Digest::of(&signature));
        self.push_by(Actor::daemon(), Event::Outcome(Outcome { intent, result }))
    }

    pub fn not_signed(&mut self, intent: u64) -> u64 {
        let result = SignResult::NotSigned("the token was not asked".into());
        self.push_by(Actor::daemon(), Event::Outcome(Outcome { intent, result }))
    }

    pub fn release(&mut self, request: u8, intents: Vec<(u64, u64)>) -> u64 {
        let (request, determination) = (RequestId([request; 16]), self.fixture.determination);
        self.push(Event::Released(Released { request, determination, intents }))
    }

    /// A whole honest command: batch, intent, checkpoint, signature, release.
    pub fn command(&mut self, request: u8, device: DeviceId, counter: u64) -> u64 {
        let batch = self.batch(request);
        let intent = self.intent(batch, device, counter, 1);
        self.checkpoint();
        self.sign(intent);
        self.release(request, vec![(intent, intent + 1)]);
        intent
    }
}

impl Source for Forge<'_> {
    fn checkpoints(&self) -> Result<Vec<Vec<u8>>, ExportError> {
        let mut sizes = self.sizes.clone();
        sizes.insert(self.size());
        let (mut frontier, mut notes) = (Frontier::new(), Vec::new());
        for leaf in &self.leaves {
            frontier.push(leaf_hash(leaf));
            if sizes.contains(&frontier.size()) {
                let checkpoint = Checkpoint::new(ORIGIN.parse().unwrap(), frontier.head());
                let signature = self.fixture.ledger_key.sign(checkpoint.text().as_bytes());
                let signed = SignedCheckpoint::assemble(&checkpoint, &self.fixture.verifier, &signature).unwrap();
                notes.push(signed.octets().to_vec());
            }
        }
        Ok(notes)
    }

    fn leaves(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        range.zip(&self.leaves).try_for_each(|(index, leaf)| visit(index, leaf))
    }

    fn blob(&self, digest: Digest) -> Result<Box<dyn Read + '_>, ExportError> {
        Ok(Box::new(std::io::Cursor::new(&self.blobs[&digest])))
    }

    fn signatures(
        &self,
        _: Range<u64>,
        wanted: &dyn Fn(u64) -> bool,
        visit: &mut dyn FnMut(u64, &[u8; 64]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        self.signatures.iter().filter(|(at, _)| wanted(**at)).try_for_each(|(at, octets)| visit(*at, octets))
    }
}

impl Fixture {
    /// A Device's certificate, issued by the CA for Devices that the policy names.
    pub fn device_certificate(&self, device: DeviceId, key: &Key) -> Vec<u8> {
        let hardware_type = smkid::domain::certificates::profile::TEST_HARDWARE_TYPE;
        let template = Certified::Device { device, usage: Usage::DigitalSignature, hardware_type };
        let validity = (VALIDITY.0, "9999-12-31T23:59:59Z");
        super::lab::issue_octets(&template, key, Some(&self.lab.device_ca), validity)
    }
}
