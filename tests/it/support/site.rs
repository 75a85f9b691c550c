//! A site: two SoftHSM tokens, a policy, its people, a ledger after its ceremony, and the real daemon on it. The site is made
//! once; every test has a copy of its own to break.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use axum::body::Body;
use smkid::api::client::{Client, ClientError};
use smkid::api::failure::{Problem, ProblemKind};
use smkid::api::wire::{self, Base64, DeviceAsk, Devices, Item, ItemOutcome, RecoverySettle, RecoverySign};
use smkid::domain::certificates::SmkiCertificate;
use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::determination::document::{
    Decision, Determination, Form, KeyChosen, LedgerHead, Method, ScopeLeft, Type, Withdrawal, Written,
};
use smkid::domain::gbcs::{SIGNATURE_PART_LEN, Template};
use smkid::domain::ledger::entry::{Entry, Event, Intent, Reason, Refused, SignResult};
use smkid::domain::ledger::steps::{Certainty, CompromiseClass, Notification, Step};
use smkid::domain::names::{
    DeterminationId, DeviceId, Digest, Eui64, IncidentId, Origin, Purpose, RequestId, TemplateName,
};
use smkid::domain::policy::adoption::{Adoption, Head};
use smkid::domain::policy::{Activation, Policy};
use smkid::domain::time::{Timestamp, Window};
use smkid::exercise::clock::Clock;
use smkid::exercise::documents::{self, Drafter, Scope};
use smkid::exercise::lab::{self, Lab};
use smkid::exercise::people::{APPROVALS, People};
use smkid::exercise::policy::{AFFECTED, LEDGER_TOKEN, Names, PROPOSER, RECOVERY_KEY, RECOVERY_TOKEN};
use smkid::exercise::procedure::{Carrier, Order};
use smkid::exercise::programs::{Daemon, ProgramError, Programs};
use smkid::exercise::stage::Stage;
use smkid::exercise::tell::Teller;
use smkid::exercise::template::template;
use smkid::store::Reader as _;
use smkid::store::sqlite::SqliteReader;
use smkid::wall_clock::wall_clock;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::copies::COPY_TOKEN;
use super::desk::Done;
use super::token::{self, MODULE, fault_token};

/// Devices of the determination that stands: two whole chunks, and some of a third.
pub const DEVICES: u32 = 2 * 256 + 8;
/// How often an unknown may be signed again under it: as often as the policy permits.
pub const RETRIES: u32 = 3;
/// Its incident.
pub const INCIDENT: &str = "INC-1";
/// How long a token may take to come to the call that is waited for.
const REACH_MAX: Duration = Duration::from_secs(60);
/// How often it is looked.
const POLL: Duration = Duration::from_millis(2);

/// The files of a site, held in memory so that nothing of it is left on the disk.
pub struct Snapshot {
    home: PathBuf,
    files: Vec<(PathBuf, u32, Vec<u8>)>,
    folders: Vec<(PathBuf, u32)>,
}

/// What all sites have in common.
pub struct Base {
    pub lab: Lab,
    pub people: People,
    pub names: Names,
    pub policy: Policy,
    pub recovery: SmkiCertificate,
    pub genesis: Digest,
    /// The determination that stands where one does.
    pub main: Written<Determination>,
    clock: Clock,
    order: Order,
    founded: Snapshot,
    determined: Snapshot,
}

static BASE: OnceCell<Base> = OnceCell::const_new();

fn programs() -> Programs {
    Programs::new(env!("CARGO_BIN_EXE_smkictl").into(), env!("CARGO_BIN_EXE_smkid").into())
}

impl Snapshot {
    pub(super) fn take(home: &Path) -> Self {
        let mut snapshot = Self { home: home.to_owned(), files: Vec::new(), folders: Vec::new() };
        snapshot.walk(home);
        snapshot
    }

    fn walk(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let (inner, mode) =
                (path.strip_prefix(&self.home).unwrap().to_owned(), entry.metadata().unwrap().permissions());
            if kind.is_dir() {
                self.folders.push((inner, mode.mode()));
                self.walk(&path);
            } else if kind.is_file() {
                self.files.push((inner, mode.mode(), fs::read(&path).unwrap()));
            }
        }
    }

    fn put(&self, to: &Path) {
        for (folder, mode) in &self.folders {
            fs::create_dir(to.join(folder)).unwrap();
            fs::set_permissions(to.join(folder), fs::Permissions::from_mode(*mode)).unwrap();
        }
        for (file, mode, octets) in &self.files {
            let path = to.join(file);
            // Configurations name the folder that they lie in.
            let is_configuration = matches!(file.extension().and_then(|ending| ending.to_str()), Some("toml" | "conf"));
            match std::str::from_utf8(octets) {
                Ok(text) if is_configuration => {
                    fs::write(&path, text.replace(self.home.to_str().unwrap(), to.to_str().unwrap())).unwrap();
                }
                Ok(_) | Err(_) => fs::write(&path, octets).unwrap(),
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}

impl Base {
    /// The ceremony, an incident, a determination; each once.
    async fn make(clock: Clock, order: Order) -> Self {
        let out = tempfile::tempdir().unwrap();
        let mut said = Vec::new();
        let (stage, recovery, genesis) = {
            let mut teller = Teller::new(&mut said, &std::io::stderr());
            let stage = Stage::set(out.path(), programs(), clock, Activation::Stored, &mut teller).unwrap();
            let (recovery, genesis) = stage.ceremony(&mut teller).await.unwrap();
            (stage, recovery, genesis)
        };
        let Stage { scratch, layout, programs: _, lab, people, names, policy, configuration, socket, .. } = stage;
        let text = fs::read_to_string(&configuration).unwrap();
        // A small reserve, so that a copy is quick.
        fs::write(&configuration, text.replace("reserve_octets = 16777216", "reserve_octets = 1048576")).unwrap();
        for folder in ["keys", "policy"] {
            fs::rename(layout.path(folder), scratch.path().join(folder)).unwrap();
        }
        let founded = Snapshot::take(scratch.path());

        let log = scratch.path().join("smkid.log");
        let daemon = Daemon::start(&programs(), &configuration, &socket, &log).await.unwrap();
        let client = &daemon.client;
        let known =
            Known { lab: &lab, people: &people, policy: &policy, names: &names, recovery: &recovery, clock, order };
        let list = device_list(0..DEVICES);
        // More targets than the determination lists, so that a Device can be out of its scope and a target all the same.
        known.refer(client, INCIDENT, (0..2 * DEVICES).map(device)).await;
        let main = known.determination(client, 1, &list, |_| {}).await;
        known.deliver(client, &main, APPROVALS, Some(&list)).await.unwrap();
        known.carrier(client, INCIDENT).prepare().await.unwrap();
        assert!(daemon.stop().await.unwrap().success());
        let determined = Snapshot::take(scratch.path());
        Self { lab, people, names, policy, recovery, genesis, main, clock, order, founded, determined }
    }

    const fn known(&self, clock: Clock, order: Order) -> Known<'_> {
        let Self { lab, people, names, policy, recovery, .. } = self;
        Known { lab, people, policy, names, recovery, clock, order }
    }
}

/// What documents are made from.
struct Known<'a> {
    lab: &'a Lab,
    people: &'a People,
    policy: &'a Policy,
    names: &'a Names,
    recovery: &'a SmkiCertificate,
    clock: Clock,
    order: Order,
}

impl<'a> Known<'a> {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn drafter(&self) -> Drafter<'a> {
        let incident: IncidentId = INCIDENT.parse().unwrap();
        Drafter {
            proposer: self.names.proposer.clone(),
            policy: self.policy,
            compromised: self.lab.compromised(&incident).unwrap(),
            incident,
            key: KeyChosen { label: self.names.recovery_key.clone(), spki_sha256: self.recovery.spki_sha256() },
            also_weighed: self.order.optional_factor(),
        }
    }

    /// Who carries an incident through the procedure.
    fn carrier<'c>(&self, client: &'c Client, incident: &str) -> Carrier<'c>
    where
        'a: 'c,
    {
        let Self { lab, people, clock, order, .. } = *self;
        Carrier { lab, people, layout: None, client, clock, incident: incident.parse().unwrap(), order }
    }

    /// Opens an incident and carries it to the SMKI PMA.
    async fn refer(&self, client: &Client, incident: &str, devices: impl IntoIterator<Item = DeviceId>) {
        let carrier = self.carrier(client, incident);
        let devices: Vec<DeviceId> = devices.into_iter().collect();
        let notification = carrier.assess(&devices, Method::NewOrganisationCertificates).await.unwrap();
        carrier.refer(notification).await.unwrap();
    }

    fn template(&self) -> Template {
        template(self.lab, self.recovery, self.lab.after()).unwrap()
    }

    async fn determination(
        &self,
        client: &Client,
        decision_number: u32,
        devices: &str,
        change: impl FnOnce(&mut Determination),
    ) -> Written<Determination> {
        let (name, template) = (template_name(), self.template());
        let from = self.now();
        let scope = Scope {
            decision_number,
            method: Method::NewOrganisationCertificates,
            name: &name,
            template: &template,
            devices,
            window: Window { from, until: from.plus_ms(24 * 3_600_000) },
            retries_of_unknown: RETRIES,
        };
        let drafted = self.drafter().determination(head(client).await, &scope).unwrap();
        let mut form = drafted.form().clone();
        change(&mut form);
        // Each further determination is about an incident of its own, unless it takes another's place.
        if decision_number > 1 && form.supersedes.is_none() {
            let incident = format!("INC-{decision_number}");
            let listed = devices.lines().map(|line| line.split(',').next().unwrap().parse().unwrap());
            if client.get::<wire::Incident>(&format!("/v1/incidents/{incident}")).await.is_err() {
                self.refer(client, &incident, listed).await;
            }
            (form.incident, form.decision_number) = (incident.parse().unwrap(), 1);
            form.ledger = head(client).await;
        }
        // Each incident is about a certificate of its own; whoever means another one said so.
        if form.compromised == drafted.form().compromised {
            form.compromised = self.lab.compromised(&form.incident).unwrap();
        }
        Written::write(&form).unwrap()
    }

    async fn deliver<F: Form>(
        &self,
        client: &Client,
        document: &Written<F>,
        signers: usize,
        devices: Option<&str>,
    ) -> Result<wire::DocumentRecorded, ClientError> {
        let listed = match devices {
            Some(devices) => Some(upload(client, devices).await?.sha256),
            None => None,
        };
        let members = self.people.members[..signers].iter();
        let signatures =
            members.map(|member| Base64(documents::sign(document.octets(), &member.first, self.now()).unwrap()));
        let document = Base64(document.octets().to_vec());
        let ask = wire::Document {
            document,
            signatures: signatures.collect(),
            devices: listed,
            policy_files: None,
            text: None,
        };
        client.post("/v1/documents", &ask).await
    }
}

/// A configuration by which snapshots are taken often.
pub fn with_snapshots(text: &str) -> String {
    let often = text.replace("[ledger]\n", "[ledger]\nsnapshot_entries = 64\n");
    assert_ne!(often, text);
    often
}

/// What the Devices' template is called.
pub fn template_name() -> TemplateName {
    "esme".parse().unwrap()
}

/// The n-th Device.
pub fn device(n: u32) -> DeviceId {
    DeviceId(Eui64((0x02DE_1CE0_0000_0000 + u64::from(n)).to_be_bytes()))
}

/// A device list of these.
pub fn device_list(devices: impl IntoIterator<Item = u32>) -> String {
    let name = template_name();
    devices
        .into_iter()
        .fold(String::new(), |list, n| list + &format!("{},{name},{}\n", device(n), 7_000 + u64::from(n % 7)))
}

/// Makes a determination not to execute of one to execute.
pub fn not_execute(form: &mut Determination) {
    form.decision = Decision::NotExecute;
    (form.key, form.method, form.counter_start) = (None, None, None);
    (form.templates, form.devices, form.limits) = (None, None, None);
}

/// Makes one of it that leaves its scope to a schedule.
pub fn left_to_a_schedule(form: &mut Determination) {
    form.schedule = Some(ScopeLeft::Later);
    (form.templates, form.devices, form.limits) = (None, None, None);
}

/// The rules that a refusal names, in their order.
pub fn rules(problem: &Problem) -> Vec<&str> {
    problem.reasons.iter().map(|reason| &*reason.rule).collect()
}

/// Opens the incident.
pub fn incident(lab: &Lab) -> wire::IncidentOpen {
    incident_of(lab, INCIDENT)
}

/// Opens an incident of that id.
pub fn incident_of(lab: &Lab, id: &str) -> wire::IncidentOpen {
    let incident: IncidentId = id.parse().unwrap();
    let certificate_pem = certificate_to_pem(lab.victim(&incident).unwrap().octets());
    let notification = Notification {
        by: "ARO One".into(),
        party: AFFECTED.parse().unwrap(),
        certainty: Certainty::Suspected,
        class: CompromiseClass::Organisation,
        at: wall_clock(),
        channel: "telephone".into(),
        recovery_event: wall_clock(),
    };
    wire::IncidentOpen {
        incident,
        certificate_pem,
        key: None,
        description: "A Private Key is Compromised.".to_owned(),
        notification: Some(notification),
    }
}

/// An operator accepts the clock, which another says the same as.
pub async fn accept_clock(client: &Client) {
    let time = client.get::<wire::Status>("/v1/status").await.unwrap().clock.wall;
    let ask = wire::ClockAccept { time, reason: "the exercise has moved it on".to_owned() };
    client.post::<_, wire::Recorded>("/v1/clock/accept", &ask).await.unwrap();
}

/// The head that a drafter sees.
pub async fn head(client: &Client) -> LedgerHead {
    documents::head(&client.text("/v1/ledger/checkpoint").await.unwrap()).unwrap()
}

/// Uploads a device list.
pub async fn upload(client: &Client, devices: &str) -> Result<wire::Stored, ClientError> {
    client.put("/v1/uploads/devices", Body::from(devices.to_owned())).await
}

/// A request id of its own.
pub fn request() -> RequestId {
    RequestId(lab::random().unwrap())
}

/// Asks for these Devices.
pub fn ask_for(determination: DeterminationId, devices: impl IntoIterator<Item = u32>) -> RecoverySign {
    let listed = devices.into_iter().map(|n| DeviceAsk { device: device(n) }).collect();
    RecoverySign { request: request(), determination, devices: Some(Devices::Listed(listed)), pre_commands: None }
}

/// Asks for every Device.
pub fn ask_for_all(determination: DeterminationId) -> RecoverySign {
    RecoverySign { request: request(), determination, devices: Some(Devices::All), pre_commands: None }
}

/// Asks for a command made elsewhere.
pub fn ask_pre_command(determination: DeterminationId, octets: Vec<u8>) -> RecoverySign {
    let pre_commands = Some(vec![Base64(octets)]);
    RecoverySign { request: request(), determination, devices: None, pre_commands }
}

/// Whether an answer came to its end; why not, if it was cut or stopped.
pub type Ended = Result<(), String>;

/// The lines of an answer, and whether it came to its end.
pub async fn lines<T: serde::Serialize>(
    client: &Client,
    path: &str,
    ask: &T,
) -> Result<(Vec<Item>, Ended), ClientError> {
    let (items, stopped) = lines_and_stop(client, path, ask).await?;
    let ended = match stopped {
        Some(reasons) if reasons.is_empty() => Ok(()),
        Some(reasons) => Err(format!("it was stopped: {reasons:?}")),
        None => Err("it was cut".to_owned()),
    };
    Ok((items, ended))
}

/// The lines of an answer, and why it was stopped; none if it was cut.
pub async fn lines_and_stop<T: serde::Serialize>(
    client: &Client,
    path: &str,
    ask: &T,
) -> Result<(Vec<Item>, Option<Vec<Reason>>), ClientError> {
    let mut lines = client.post_for_lines(path, ask).await?;
    let mut items = Vec::new();
    loop {
        match lines.next().await {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return Ok((items, Some(lines.stopped().to_vec()))),
            Err(ClientError::Cut { .. }) => return Ok((items, None)),
            Err(error) => return Err(error),
        }
    }
}

/// The whole answer to a request to sign.
#[track_caller]
pub fn whole(answer: Result<(Vec<Item>, Ended), ClientError>) -> Vec<Item> {
    let (items, ended) = answer.unwrap();
    assert_eq!(ended, Ok(()), "after {} lines", items.len());
    items
}

/// What the daemon said why not.
#[track_caller]
pub fn problem<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Problem {
    match answer {
        Err(ClientError::Problem(problem)) => problem,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

/// One of the tokens.
#[derive(Clone, Copy)]
pub enum Which {
    Ledger,
    Recovery,
    /// The clone of the Recovery key, where a site has one.
    Copy,
}

impl Which {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ledger => LEDGER_TOKEN,
            Self::Recovery => RECOVERY_TOKEN,
            Self::Copy => COPY_TOKEN,
        }
    }
}

/// A copy of the site.
pub struct Site {
    folder: TempDir,
    pub base: &'static Base,
    pub configuration: PathBuf,
    pub socket: PathBuf,
    clock: Clock,
    order: Order,
}

impl Site {
    pub(super) fn copy(base: &'static Base, of: &Snapshot) -> Self {
        let folder = tempfile::Builder::new().prefix("smkid-site-").tempdir().unwrap();
        of.put(folder.path());
        let (configuration, socket) = (folder.path().join("smkid.toml"), folder.path().join("smkid.sock"));
        Self { folder, base, configuration, socket, clock: base.clock, order: base.order }
    }

    /// After the ceremony: nothing has happened.
    pub async fn founded() -> Self {
        let base = BASE.get_or_init(|| Box::pin(Base::make(Clock::default(), Order::BeforeReferral))).await;
        Self::copy(base, &base.founded)
    }

    /// An incident is open, and a determination for [`DEVICES`] recorded.
    pub async fn determined() -> Self {
        let base = BASE.get_or_init(|| Box::pin(Base::make(Clock::default(), Order::BeforeReferral))).await;
        Self::copy(base, &base.determined)
    }

    /// What is made of such a site, once for all tests that begin there: each has a copy.
    pub async fn made(once: &'static OnceCell<Snapshot>, make: impl AsyncFnOnce(&Self)) -> Self {
        let first = async || {
            let site = Self::determined().await;
            make(&site).await;
            Snapshot::take(site.folder.path())
        };
        let snapshot = once.get_or_init(first).await;
        Self::copy(BASE.get().expect("the first one was made of it"), snapshot)
    }

    /// The same of another ledger, with other tokens.
    pub async fn of_another_ledger() -> Self {
        static OTHER: OnceCell<Base> = OnceCell::const_new();
        let base = OTHER.get_or_init(|| Box::pin(Base::make(Clock::default(), Order::BeforeReferral))).await;
        Self::copy(base, &base.determined)
    }

    /// What sites are copied from whose clock is set for the exercise, from the ceremony on: the day before the direction of
    /// 18 July 2017 takes effect, when the base procedure stands alone.
    pub async fn set_before_the_variation() -> &'static Base {
        static SET: OnceCell<Base> = OnceCell::const_new();
        let clock = || Clock::set_to("2017-07-20T09:00:00Z".parse().unwrap());
        SET.get_or_init(|| Box::pin(Base::make(clock(), Order::BeforeReferral))).await
    }

    /// As it was founded.
    pub fn founded_of(base: &'static Base) -> Self {
        Self::copy(base, &base.founded)
    }

    /// With its determination.
    pub fn determined_of(base: &'static Base) -> Self {
        Self::copy(base, &base.determined)
    }

    /// From the next start on it is that moment, and SMI Status and thresholds file stand where the procedure has them then.
    pub fn set_clock(&mut self, moment: &str, order: Order) {
        self.clock = Clock::set_to(moment.parse().unwrap());
        self.order = order;
        let set = format!("[exercise]\nclock_offset_ms = {}\n", self.clock.offset_ms());
        self.configure(|text| format!("{}{set}", text.split("[exercise]").next().unwrap()));
    }

    fn known(&self) -> Known<'static> {
        self.base.known(self.clock, self.order)
    }

    /// Who carries an incident through the procedure.
    pub fn carrier<'c>(&'c self, client: &'c Client, incident: &str) -> Carrier<'c> {
        self.known().carrier(client, incident)
    }

    /// The determination that stands.
    pub fn main(&self) -> DeterminationId {
        self.base.main.form().id
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// A copy of the state directory's files, under another name.
    pub fn keep_state(&self, name: &str) {
        super::desk::copy(&self.state(), &self.path(name));
    }

    /// Puts such a copy in the place of the state.
    pub fn bring_back(&self, name: &str) {
        fs::remove_dir_all(self.state()).unwrap();
        super::desk::copy(&self.path(name), &self.state());
    }

    /// The same of the tokens.
    pub fn keep_tokens(&self, name: &str) {
        super::desk::copy(&self.path("tokens"), &self.path(name));
    }

    /// Puts such a copy in the place of the tokens.
    pub fn bring_back_tokens(&self, name: &str) {
        fs::remove_dir_all(self.path("tokens")).unwrap();
        super::desk::copy(&self.path(name), &self.path("tokens"));
    }

    /// The database, as whoever breaks in would open it.
    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.state().join("ledger.db")).unwrap()
    }

    /// Edits rows behind the daemon's back; so many, or some if that is 0.
    #[track_caller]
    pub fn edit(&self, sql: &str, rows: usize) {
        let edited = self.database().execute(sql, []).unwrap();
        assert!(if rows == 0 { edited > 0 } else { edited == rows }, "{sql}: {edited} rows");
    }

    /// The policy's files.
    pub fn policy_files(&self) -> BTreeMap<String, Vec<u8>> {
        let (folder, mut files) = (self.path("policy"), BTreeMap::new());
        for inner in [".", "anchors", "procedure"] {
            for entry in fs::read_dir(folder.join(inner)).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_file() {
                    let name = entry.file_name().into_string().unwrap();
                    let path = if inner == "." { name } else { format!("{inner}/{name}") };
                    files.insert(path, fs::read(entry.path()).unwrap());
                }
            }
        }
        files
    }

    /// What is sent to record a document with the signatures of so many members, and further files.
    pub fn signed_by<F: Form>(
        &self,
        document: &Written<F>,
        signers: usize,
        policy_files: Option<&BTreeMap<String, Vec<u8>>>,
    ) -> wire::Document {
        let members = self.base.people.members[..signers].iter();
        let sign = |member: &smkid::exercise::people::Member| {
            Base64(documents::sign(document.octets(), &member.first, self.known().now()).unwrap())
        };
        let files = |files: &BTreeMap<String, Vec<u8>>| {
            files.iter().map(|(path, octets)| (path.clone(), Base64(octets.clone()))).collect()
        };
        wire::Document {
            document: Base64(document.octets().to_vec()),
            signatures: members.map(sign).collect(),
            devices: None,
            policy_files: policy_files.map(files),
            text: None,
        }
    }

    /// The policy's files, with one of them changed.
    #[track_caller]
    pub fn changed_policy(&self, file: &str, change: impl FnOnce(&str) -> String) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.policy_files();
        let text = String::from_utf8(files[file].clone()).unwrap();
        let changed = change(&text);
        assert_ne!(changed, text, "{file} is as before");
        files.insert(file.to_owned(), changed.into_bytes());
        files
    }

    /// Drafts the adoption of other policy files after those in force.
    pub async fn adoption(
        &self,
        client: &Client,
        files: &BTreeMap<String, Vec<u8>>,
        carries_over: Vec<DeterminationId>,
    ) -> Written<Adoption> {
        let in_force = client.get::<wire::Status>("/v1/status").await.unwrap().policy.unwrap();
        let LedgerHead { origin, size, root } = head(client).await;
        Written::write(&Adoption {
            r#type: Type::new(),
            purpose: Purpose::Exercise,
            origin,
            sequence: u32::try_from(in_force.sequence).unwrap() + 1,
            policy: Policy::parse(files).unwrap().digest(),
            predecessor: Some(in_force.sha256),
            ledger: Some(Head { size, root }),
            carries_over,
        })
        .unwrap()
    }

    /// Adopts them. Answers the digest of the policy that is in force from here on.
    pub async fn adopt(
        &self,
        client: &Client,
        files: &BTreeMap<String, Vec<u8>>,
        carries_over: Vec<DeterminationId>,
    ) -> Digest {
        let adoption = self.adoption(client, files, carries_over).await;
        let sent = self.signed_by(&adoption, 5, Some(files));
        client.post::<_, wire::DocumentRecorded>("/v1/documents", &sent).await.unwrap();
        adoption.form().policy
    }

    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(&self.configuration).unwrap();
        fs::write(&self.configuration, change(text)).unwrap();
    }

    /// The script by which a token fails.
    pub fn script(&self, which: Which) -> PathBuf {
        self.path(&format!("{}.script", which.name()))
    }

    /// Where SoftHSM keeps a token.
    pub fn token_folder(&self, which: Which) -> PathBuf {
        let configuration: toml::Table = fs::read_to_string(&self.configuration).unwrap().parse().unwrap();
        let tokens = configuration["token"].as_array().unwrap();
        let token = tokens.iter().find(|token| token["name"].as_str() == Some(which.name())).unwrap();
        let serial = token["serial"].as_str().unwrap();
        // A folder is named by a UUID whose end is the token's serial number.
        let folders = fs::read_dir(self.path("tokens")).unwrap().map(|entry| entry.unwrap().path());
        let is_its = |folder: &PathBuf| folder.to_str().unwrap().replace('-', "").ends_with(serial);
        folders.into_iter().find(is_its).unwrap()
    }

    /// From the next start on a token fails as `script` says; without one it is healthy.
    pub fn fault(&self, which: Which, script: Option<&str>) {
        let path = self.script(which);
        let _ = fs::remove_file(self.path(&format!("{}.script.counts", which.name())));
        fs::write(&path, script.unwrap_or_default()).unwrap();
        if script.is_none() {
            return self.set_module(which, Path::new(MODULE), "");
        }
        let more = format!("FAULT_TOKEN_MODULE = \"{MODULE}\", FAULT_TOKEN_SCRIPT = \"{}\", ", path.display());
        self.set_module(which, &fault_token(), &more);
    }

    /// From the next start on a token is reached through that module, with `more` in its environment.
    pub fn set_module(&self, which: Which, module: &Path, more: &str) {
        self.configure(|text| {
            let mut blocks: Vec<String> = text.split("[[token]]").map(ToOwned::to_owned).collect();
            let name = format!("name = \"{}\"", which.name());
            let block = blocks.iter_mut().find(|block| block.contains(&name)).unwrap();
            let lines = block.split_inclusive('\n').map(|line| {
                if line.starts_with("module = ") {
                    format!("module = \"{}\"\n", module.display())
                } else if line.starts_with("environment = ") {
                    let own = line.find("SOFTHSM2_CONF").unwrap();
                    format!("environment = {{ {more}{}", &line[own..])
                } else {
                    line.to_owned()
                }
            });
            *block = lines.collect();
            blocks.join("[[token]]")
        });
    }

    /// How often a function was called at a token.
    pub fn calls(&self, which: Which, function: &str) -> u64 {
        token::calls(&self.script(which), function)
    }

    /// Waits until a token has come to its n-th call.
    pub async fn reach(&self, which: Which, function: &str, n: u64) {
        let begun = Instant::now();
        while self.calls(which, function) < n {
            assert!(begun.elapsed() < REACH_MAX, "{function} was called {} times of {n}", self.calls(which, function));
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until entries are durable that no checkpoint covers.
    pub async fn reach_uncovered(&self) {
        let begun = Instant::now();
        let reader = SqliteReader::open(&self.state()).unwrap();
        while reader.latest_checkpoint().unwrap().unwrap().head == reader.head().unwrap() {
            assert!(begun.elapsed() < REACH_MAX, "a checkpoint covers everything");
            tokio::time::sleep(POLL).await;
        }
    }

    pub async fn try_start(&self) -> Result<Daemon, ProgramError> {
        Daemon::start(&programs(), &self.configuration, &self.socket, &self.path("smkid.log")).await
    }

    pub async fn start(&self) -> Daemon {
        self.try_start().await.unwrap()
    }

    /// Starts the daemon and opens the Recovery key.
    pub async fn start_active(&self) -> Daemon {
        let daemon = self.start().await;
        self.activate(&daemon.client).await.unwrap();
        daemon
    }

    pub async fn activate(&self, client: &Client) -> Result<wire::KeyChanged, ClientError> {
        self.activate_for(client, INCIDENT).await
    }

    /// Opens the Recovery key for an incident.
    pub async fn activate_for(&self, client: &Client, incident: &str) -> Result<wire::KeyChanged, ClientError> {
        let ask = wire::KeyActivate { incident: incident.parse().unwrap() };
        client.post(&format!("/v1/keys/{RECOVERY_KEY}/activate"), &ask).await
    }

    /// Locks the Recovery key.
    pub async fn lock(&self, client: &Client) -> Result<wire::KeyChanged, ClientError> {
        client.post_nothing(&format!("/v1/keys/{RECOVERY_KEY}/lock")).await
    }

    /// The start is refused: the status, and what was logged.
    #[track_caller]
    pub fn refused_start(started: Result<Daemon, ProgramError>) -> (i32, String) {
        match started {
            Err(ProgramError::Ended { status, log }) => (status.code().unwrap(), log),
            Err(other) => panic!("expected a refusal to start, found {other}"),
            Ok(_) => panic!("expected a refusal to start, found a daemon that runs"),
        }
    }

    pub async fn determination(
        &self,
        client: &Client,
        decision_number: u32,
        devices: &str,
        change: impl FnOnce(&mut Determination),
    ) -> Written<Determination> {
        self.known().determination(client, decision_number, devices, change).await
    }

    pub async fn deliver<F: Form>(
        &self,
        client: &Client,
        document: &Written<F>,
        signers: usize,
        devices: Option<&str>,
    ) -> Result<wire::DocumentRecorded, ClientError> {
        self.known().deliver(client, document, signers, devices).await
    }

    /// Drafts a determination, has it signed and records it.
    pub async fn determine(
        &self,
        client: &Client,
        decision_number: u32,
        devices: &str,
        change: impl FnOnce(&mut Determination),
    ) -> Written<Determination> {
        let document = self.determination(client, decision_number, devices, change).await;
        let list = document.form().devices.is_some().then_some(devices);
        self.deliver(client, &document, APPROVALS, list).await.unwrap();
        if document.form().devices.is_some() && document.form().supersedes.is_none() {
            self.prepare(client, document.form().incident.as_str()).await;
        }
        document
    }

    /// The SMKI PMA withdraws a determination.
    pub async fn withdraw(&self, client: &Client, of: &Written<Determination>) {
        let withdrawal: Written<Withdrawal> = self.drafter().withdrawal(of, head(client).await).unwrap();
        self.deliver(client, &withdrawal, APPROVALS, None).await.unwrap();
    }

    /// One member suspends a determination.
    pub async fn suspend(&self, client: &Client, of: &Written<Determination>) {
        let member = &self.base.people.members[1];
        let suspension = self.drafter().suspension(of, &member.id, head(client).await).unwrap();
        let p7s = documents::sign(suspension.octets(), &member.first, self.known().now()).unwrap();
        let sent = wire::Document {
            document: Base64(suspension.octets().to_vec()),
            signatures: vec![Base64(p7s)],
            devices: None,
            policy_files: None,
            text: None,
        };
        client.post::<_, wire::DocumentRecorded>("/v1/documents", &sent).await.unwrap();
    }

    /// Calls the daemon for something that it must refuse: the refusal is recorded, and nothing else.
    pub async fn refused<T: serde::Serialize + Sync>(&self, client: &Client, path: &str, ask: &T) -> Problem {
        let before = self.ledger().size();
        let problem = problem(client.post::<T, serde_json::Value>(path, ask).await);
        assert_eq!((problem.error, problem.entry), (ProblemKind::Refused, Some(before)), "{problem:?}");
        let ledger = self.ledger();
        assert_eq!(ledger.size(), before + 1, "the refusal alone is recorded");
        assert_eq!(ledger.refusals().pop().unwrap().reasons, problem.reasons);
        problem
    }

    /// Runs `smkictl` in the site's folder, as whoever sits there. Arguments are separated by spaces.
    pub fn smkictl(&self, arguments: &str) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
        command.args(arguments.split_whitespace()).current_dir(self.folder.path()).env("SMKID_SOCKET", &self.socket);
        Done::from(command.stdin(std::process::Stdio::null()).output().unwrap())
    }

    /// Everything that precedes the use of the key is done; a key that is active for another incident is for this one from here on, if
    /// it can be.
    pub async fn prepare(&self, client: &Client, incident: &str) {
        let known = self.known();
        let carrier = known.carrier(client, incident);
        carrier.prepare().await.unwrap();
        let status: wire::Status = client.get("/v1/status").await.unwrap();
        if status.keys.iter().any(|key| key.key.as_str() == RECOVERY_KEY && key.active) {
            let _ = carrier.activate(&self.base.names.recovery_key).await;
        }
    }

    /// Opens an incident and carries it to the SMKI PMA.
    pub async fn refer(&self, client: &Client, incident: &str, devices: impl IntoIterator<Item = DeviceId>) {
        self.known().refer(client, incident, devices).await;
    }

    /// Dismisses an incident that was reported, and closes it.
    pub async fn dismiss(&self, client: &Client, incident: &str) -> wire::Recorded {
        let known = self.known();
        let carrier = known.carrier(client, incident);
        carrier.inform().await.unwrap();
        carrier.step(Step::Dismiss { reason: "it was a test".into() }).await.unwrap();
        carrier.inform().await.unwrap();
        let why = wire::Why { reason: "over".to_owned() };
        client.post(&format!("/v1/incidents/{incident}/close"), &why).await.unwrap()
    }

    /// Closes an incident whose determination was withdrawn: duties met, the stranded accepted.
    pub async fn close_withdrawn(&self, client: &Client, incident: &str) -> wire::Recorded {
        let known = self.known();
        let carrier = known.carrier(client, incident);
        carrier.inform().await.unwrap();
        let count = carrier.progress().await.unwrap().devices.stranded;
        carrier.step(Step::AcceptStranded { count, overridden: None, reason: "by the PMA".into() }).await.unwrap();
        let why = wire::Why { reason: "over".to_owned() };
        client.post(&format!("/v1/incidents/{incident}/close"), &why).await.unwrap()
    }

    /// A command of the approved template, without signature.
    pub fn pre_command(&self, n: u32, counter: u64) -> Vec<u8> {
        let mut octets = Vec::new();
        self.known().template().fill(self.base.names.recovery_party, device(n), counter, &mut octets).unwrap();
        octets
    }

    /// Drafts what is about the determination.
    pub fn drafter(&self) -> Drafter<'static> {
        self.known().drafter()
    }

    /// Everything in the ledger.
    pub fn ledger(&self) -> Ledger {
        let reader = SqliteReader::open(&self.state()).unwrap();
        let size = reader.head().unwrap().size;
        let mut entries = Vec::new();
        reader
            .leaves(0..size, &mut |leaf| {
                entries.push(Entry::from_leaf(leaf.octets).unwrap());
                ControlFlow::Continue(())
            })
            .unwrap();
        let checkpointed = reader.latest_checkpoint().unwrap().unwrap().head.size;
        Ledger { entries, checkpointed }
    }

    /// Exports the ledger of the running daemon and has it verified from the export alone.
    #[track_caller]
    pub fn verify_export(&self, name: &str) {
        self.smkictl(&format!("ledger export {name}")).ok();
        self.verify(name).ok();
    }

    /// Verifies an export.
    pub fn verify(&self, name: &str) -> Done {
        let genesis = self.base.genesis;
        self.smkictl(&format!("ledger verify {name} --key keys/ledger.vkey --genesis {genesis}"))
    }

    /// A direction about the procedure, of which `directs` is the description: drafted by `smkictl`, signed by so many members of
    /// the SMKI PMA by the site's clock, and delivered by `smkictl`.
    pub fn direct(&self, directs: &str, signers: usize) -> Done {
        let said = "reference = \"Direction of the Secretary of State of 1 November 2017, under SEC Section X6\"";
        fs::write(self.path("direction.toml"), format!("proposer = \"{PROPOSER}\"\n{said}\n{directs}")).unwrap();
        let draft = "determination draft --type direction --from direction.toml --output json";
        let drafted = self.smkictl(draft).ok().json();
        let document = drafted["document"].as_str().unwrap();
        let (octets, stem) = (fs::read(self.path(document)).unwrap(), document.strip_suffix(".json").unwrap());
        for member in &self.base.people.members[..signers] {
            let p7s = documents::sign(&octets, &member.first, self.known().now()).unwrap();
            fs::write(self.path(&format!("{stem}.{}.p7s", member.id)), p7s).unwrap();
        }
        self.smkictl(&format!("determination record {document}"))
    }

    /// That a command is what the determination's template and the Recovery key make of Device and counter.
    #[track_caller]
    pub fn check_command(&self, item: &Item) -> Vec<u8> {
        let command = item.command.as_ref().unwrap().0.clone();
        let (body, part) = command.split_at(command.len() - SIGNATURE_PART_LEN);
        let n = u32::try_from(u64::from_be_bytes(item.device.0.0) & 0xFFFF_FFFF).unwrap();
        let pre_command = self.pre_command(n, item.counter.unwrap());
        assert_eq!(body[1..], pre_command[1..], "{}", item.device);
        let signature: [u8; 64] = part[part.len() - 64..].try_into().unwrap();
        assert!(self.base.recovery.key().verifies_fixed(&body[1..], &signature), "{}", item.device);
        command
    }
}

/// The entries of a ledger, and how many of them are under a signed checkpoint.
pub struct Ledger {
    pub entries: Vec<Entry>,
    pub checkpointed: u64,
}

impl Ledger {
    pub fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Of the genesis.
    pub fn origin(&self) -> Origin {
        let Event::Genesis(genesis) = &self.entries[0].event else { panic!("no genesis: {:?}", self.entries[0]) };
        genesis.origin.clone()
    }

    fn each(&self) -> impl Iterator<Item = (u64, &Event)> {
        (0..).zip(self.entries.iter().map(|entry| &entry.event))
    }

    pub fn intents(&self) -> BTreeMap<u64, &Intent> {
        let events = self.each();
        events
            .filter_map(|(at, event)| if let Event::Intent(intent) = event { Some((at, intent)) } else { None })
            .collect()
    }

    /// What became of the intents. Each has one outcome at most.
    #[track_caller]
    pub fn outcomes(&self) -> BTreeMap<u64, &SignResult> {
        let mut outcomes = BTreeMap::new();
        for (_, event) in self.each() {
            if let Event::Outcome(outcome) = event {
                assert!(
                    outcomes.insert(outcome.intent, &outcome.result).is_none(),
                    "two outcomes of {}",
                    outcome.intent
                );
            }
        }
        outcomes
    }

    /// The intents that have no outcome.
    pub fn open(&self) -> Vec<u64> {
        let outcomes = self.outcomes();
        self.intents().into_keys().filter(|at| !outcomes.contains_key(at)).collect()
    }

    /// The intents that a released entry covers.
    pub fn released(&self) -> BTreeSet<u64> {
        let mut all = BTreeSet::new();
        for (_, event) in self.each() {
            if let Event::Released(released) = event {
                released.intents.iter().for_each(|(from, until)| all.extend(*from..*until));
            }
        }
        all
    }

    pub fn refusals(&self) -> Vec<&Refused> {
        let events = self.each();
        events.filter_map(|(_, event)| if let Event::Refused(refused) = event { Some(refused) } else { None }).collect()
    }

    /// No Device has two signed commands, no counter stands for two commands, and after an unknown nothing but the same octets
    /// is tried, as the next attempt.
    #[track_caller]
    pub fn check(&self) {
        let outcomes = self.outcomes();
        let (mut signed, mut counters, mut unknown) = (BTreeSet::new(), HashMap::new(), HashMap::new());
        for (at, intent) in self.intents() {
            let Intent { device, counter, attempt, command, .. } = intent;
            let of = *counters.entry((device, counter)).or_insert(command);
            assert_eq!(of, command, "counter {counter} of {device} stands for two commands");
            match unknown.get(device) {
                Some(before) => assert_eq!((*command, *attempt), *before, "intent {at} of {device} follows an unknown"),
                None => assert_eq!(*attempt, 1, "intent {at} tries again what was not unknown"),
            }
            match outcomes.get(&at) {
                Some(SignResult::Signed(_)) => {
                    assert!(signed.insert(device), "{device} has two signed commands");
                    unknown.remove(device);
                }
                Some(SignResult::Unknown(_)) => drop(unknown.insert(device, (*command, attempt + 1))),
                Some(SignResult::Failed(_) | SignResult::NotSigned(_)) | None => {
                    unknown.entry(device).and_modify(|(_, next)| *next += 1);
                }
            }
        }
    }

    /// The Devices with a signed command.
    pub fn signed(&self) -> BTreeSet<DeviceId> {
        let outcomes = self.outcomes();
        let intents = self.intents().into_iter();
        intents
            .filter(|(at, _)| matches!(outcomes.get(at), Some(SignResult::Signed(_))))
            .map(|(_, intent)| intent.device)
            .collect()
    }
}

/// Every command that was handed out: a Device never gets another one.
#[derive(Default)]
pub struct Handed(HashMap<DeviceId, Vec<u8>>);

impl Handed {
    #[track_caller]
    pub fn take(&mut self, site: &Site, items: &[Item]) {
        for item in items {
            assert_eq!(item.command.is_some(), item.outcome == ItemOutcome::Signed, "{item:?}");
            if item.command.is_some() {
                let command = site.check_command(item);
                let before = self.0.insert(item.device, command.clone());
                assert!(before.is_none_or(|before| before == command), "{} got two commands", item.device);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Has everything unknown signed again.
pub fn settle_all(determination: DeterminationId) -> RecoverySettle {
    RecoverySettle {
        request: request(),
        determination,
        devices: Devices::All,
        action: wire::SettleAction::Retry,
        reason: "smkid was killed".to_owned(),
    }
}

/// A moment so many milliseconds from now.
pub fn in_ms(ms: i64) -> Timestamp {
    wall_clock().plus_ms(ms)
}

/// The daemon ends by itself; its status.
pub async fn wait_for_end(daemon: Daemon) -> Option<i32> {
    let begun = Instant::now();
    while daemon.client.get::<wire::Status>("/v1/status").await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it still answers");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    match daemon.stop().await {
        Ok(status) => status.code(),
        Err(ProgramError::Signal { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}
