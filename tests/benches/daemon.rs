//! Shell: the daemon under measurement: a real one, as its own process, with the exercise's tokens, ceremony and policy, and one
//! determination over as many Devices as the benchmark is going to ask for. Whoever asks is `smkictl`'s own client.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::Body;
use smkid::api::wire::{Base64, DeviceAsk, Devices, Document, DocumentRecorded, RecoverySign, Stored};
use smkid::domain::determination::document::{Compromised, KeyChosen, Method};
use smkid::domain::gbcs::Template;
use smkid::domain::names::{DeterminationId, DeviceId, Eui64, IncidentId, RequestId, TemplateName};
use smkid::domain::time::Window;
use smkid::exercise::clock::Clock;
use smkid::exercise::documents::{self, Drafter, Scope};
use smkid::exercise::people::APPROVALS;
use smkid::exercise::procedure::{Carrier, Order};
use smkid::exercise::programs::{Daemon as Process, Programs};
use smkid::exercise::stage::Stage;
use smkid::exercise::tell::Teller;
use smkid::exercise::{lab, template};
use smkid::service::configuration::{Configuration, Pin};
use tokio::runtime::Runtime;

use crate::Fault;
use crate::limit::Task;

/// How long the determination is in force: longer than any benchmark.
const WINDOW_MS: i64 = 24 * 3_600_000;
/// What every Device has accepted before.
const COUNTER: u64 = 7_000;
/// The variable by which SoftHSM finds its configuration.
const SOFTHSM_VARIABLE: &str = "SOFTHSM2_CONF";

/// A daemon with a determination, ready to sign.
pub struct Daemon {
    runtime: Runtime,
    process: Process,
    determination: DeterminationId,
    template: Template,
    stage: Stage,
    /// Devices of the determination that were asked for already.
    asked: usize,
    devices: usize,
}

impl Daemon {
    /// Everything from the tokens to the activated key. `folder` must be new; there may be so many Devices.
    pub fn start(folder: &Path, devices: usize) -> Result<Self, Fault> {
        let programs = Programs::new(env!("CARGO_BIN_EXE_smkictl").into(), env!("CARGO_BIN_EXE_smkid").into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut nowhere = io::sink();
        let mut teller = Teller::new(&mut nowhere, &io::stdout());
        let stage = Stage::set(folder, programs, Clock::default(), &mut teller)?;
        let (process, determination, template) = runtime.block_on(async {
            let (recovery, _) = stage.ceremony(&mut teller).await?;
            let process = Process::start(&stage.programs, &stage.configuration, &stage.socket, &stage.log).await?;
            let template = template::template(&stage.lab, &recovery, stage.lab.broker())?;
            let key = KeyChosen { label: stage.names.recovery_key.clone(), spki_sha256: recovery.spki_sha256() };
            let determination = determine(&stage, &process, &template, key, devices).await?;
            Ok::<_, Fault>((process, determination, template))
        })?;
        Ok(Self { runtime, process, determination, template, stage, asked: 0, devices })
    }

    /// Has the next so many Devices' commands signed, and says how long that took: from the request to the last line of the
    /// answer, all of which is read as `smkictl` reads it.
    pub fn sign(&mut self, count: usize) -> Result<Duration, Fault> {
        let until = self.asked + count;
        if until > self.devices {
            return Err(format!("the determination is for {} Devices, not for {until}", self.devices).into());
        }
        let listed = (self.asked..until).map(|n| DeviceAsk { device: device(n) }).collect();
        self.asked = until;
        self.ask(Devices::Listed(listed), count)
    }

    /// The same for every Device of the determination, as a recovery asks whose whole fleet is listed there.
    pub fn sign_all(&mut self) -> Result<Duration, Fault> {
        self.asked = self.devices;
        self.ask(Devices::All, self.devices)
    }

    fn ask(&self, devices: Devices, count: usize) -> Result<Duration, Fault> {
        let ask = RecoverySign {
            request: RequestId(lab::random()?),
            determination: self.determination,
            devices: Some(devices),
            pre_commands: None,
        };
        let client = &self.process.client;
        self.runtime.block_on(async {
            let began = Instant::now();
            let mut lines = client.post_for_lines("/v1/recovery/sign", &ask).await?;
            while lines.next().await?.is_some() {}
            let took = began.elapsed();
            let summary = lines.summary().ok_or("the answer had no summary")?;
            if usize::try_from(summary.signed) == Ok(count) {
                Ok(took)
            } else {
                Err(format!("expected {count} commands signed, found {summary:?}").into())
            }
        })
    }

    /// The limit program's task: the same token, key, template and disk.
    pub fn task(&self, sessions: usize) -> Result<(Task, PathBuf), Fault> {
        let configuration = Configuration::read(&self.stage.configuration)?;
        let token = configuration.tokens.iter().find(|token| token.name == self.stage.names.recovery_token);
        let token = token.ok_or("the configuration has a Recovery token")?;
        let Some(Pin::File(pin)) = &token.pin else { return Err("an exercise's PIN lies in a file".into()) };
        let conf = token.environment.get(SOFTHSM_VARIABLE).ok_or("the token's module is SoftHSM")?;
        let task = Task {
            module: token.module.clone(),
            token: token.label.clone(),
            pin: std::fs::read_to_string(pin)?.trim().to_owned(),
            key: self.stage.names.recovery_key.to_string(),
            template: self.template.octets().to_vec(),
            database: self.stage.scratch.path().join("limit.db"),
            sessions,
        };
        Ok((task, conf.into()))
    }

    /// The processes whose work a command takes: the daemon, its workers, and this one, which is the client.
    pub fn processes(&self) -> Vec<u32> {
        let daemon = self.process.workers().into_iter().chain([self.process.pid()]);
        let daemon = daemon.map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        daemon.chain([std::process::id()]).collect()
    }

    /// The most memory that the daemon itself had at any moment, in kB, as proc(5) tells. Its workers are other processes.
    pub fn memory_kb_max(&self) -> Result<u64, Fault> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid().as_raw_nonzero()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("proc(5) has a line VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

/// The n-th Device: locally administered, so that it is nobody's.
fn device(n: usize) -> DeviceId {
    DeviceId(Eui64((0x02DE_1CE0_0000_0000 + n as u64).to_be_bytes()))
}

/// Opens an incident, and has a determination over so many Devices drafted, signed and recorded.
async fn determine(
    stage: &Stage,
    process: &Process,
    template: &Template,
    key: KeyChosen,
    devices: usize,
) -> Result<DeterminationId, Fault> {
    let (client, victim) = (&process.client, &stage.lab.before()[0]);
    let incident: IncidentId = "INC-BENCHMARK-1".parse()?;
    let name: TemplateName = "esme".parse()?;
    let carrier = Carrier {
        lab: &stage.lab,
        people: &stage.people,
        layout: None,
        client,
        clock: stage.clock,
        incident: incident.clone(),
        order: Order::BeforeReferral,
    };
    let targets: Vec<DeviceId> = (0..devices).map(device).collect();
    let notification = carrier.assess(&targets, Method::AcbCertificates).await?;
    carrier.refer(notification).await?;
    let mut list = String::new();
    for n in 0..devices {
        writeln!(list, "{},{name},{COUNTER}", device(n))?;
    }
    let stored: Stored = client.put("/v1/uploads/devices", Body::from(list.clone())).await?;
    let drafter = Drafter {
        proposer: stage.names.proposer.clone(),
        policy: &stage.policy,
        incident,
        compromised: Compromised {
            certificate_sha256: victim.sha256(),
            spki_sha256: victim.spki_sha256(),
            party: lab::party_of(victim),
        },
        key,
        also_weighed: None,
    };
    let from = stage.now();
    let scope = Scope {
        decision_number: 1,
        method: Method::AcbCertificates,
        name: &name,
        template,
        devices: &list,
        window: Window { from, until: from.plus_ms(WINDOW_MS) },
        retries_of_unknown: 0,
    };
    let head = documents::head(&client.text("/v1/ledger/checkpoint").await?)?;
    let document = drafter.determination(head, &scope)?;
    let mut signatures = Vec::with_capacity(APPROVALS);
    for member in &stage.people.members[..APPROVALS] {
        signatures.push(Base64(stage.sign(document.octets(), &member.first).await?));
    }
    let ask = Document {
        document: Base64(document.octets().to_vec()),
        signatures,
        devices: Some(stored.sha256),
        policy_files: None,
        text: None,
    };
    let _: DocumentRecorded = client.post("/v1/documents", &ask).await?;
    carrier.prepare().await?;
    carrier.activate(&stage.names.recovery_key).await?;
    Ok(document.form().id)
}
