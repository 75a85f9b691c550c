//! An engine that keeps what it was asked and answers from its settings, and a daemon's socket in front of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use smkid::api::authenticate::Roles;
use smkid::api::engine::{Caller, Engine, Fatal, FatalKind, Octets, Upload};
use smkid::api::failure::Failure;
use smkid::api::listener::Listener;
use smkid::api::wire::{self, Base64, Devices, Item, ItemOutcome, Scope, StoppedLine, Summary, SummaryLine};
use smkid::domain::commands::container::Header;
use smkid::domain::incident::State;
use smkid::domain::incident::next::ToDo;
use smkid::domain::ledger::contingency::{CheckResult, ReleaseResult};
use smkid::domain::ledger::entry::{CertificateTally, ClockState, Compromised, Reason, ResponseTally, Role};
use smkid::domain::ledger::steps::SmiStatus;
use smkid::domain::names::{
    DeterminationId, DeviceId, Digest, Eui64, FileKind, IncidentId, KeyLabel, KeyUse, PersonId, PresentationId,
    Purpose, RequestId, TokenName,
};
use smkid::domain::procedure::Actor as Who;
use smkid::domain::time::Timestamp;
use tokio::sync::{mpsc, watch};

/// The greatest upload of the fake daemon.
pub const UPLOAD_LEN_MAX: u64 = 1024 * 1024;

/// The document that cannot be read to its end.
pub const CUT_SHA256: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What the fake does when asked to sign.
#[derive(Clone, Debug)]
pub struct Signing {
    /// The number of Devices of the determination.
    pub devices: u64,
    /// What becomes of the n-th.
    pub outcomes: fn(u64) -> ItemOutcome,
    /// How the stream ends.
    pub end: StreamEnd,
    /// The octets of a command.
    pub command_len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// With its summary.
    Whole,
    /// Silently, before its summary.
    Silent,
    /// With a failure, before its summary.
    Failing,
    /// Stopped, which it says, and with its summary.
    Stopped,
}

/// A call, and what was said in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: &'static str,
    pub account: String,
    pub about: String,
}

pub struct FakeEngine {
    pub calls: Mutex<Vec<Call>>,
    /// Answered to every call of this name.
    pub failure: Mutex<Option<(&'static str, Failure)>>,
    pub signing: Mutex<Signing>,
    /// The number of pieces that the last stream has handed over.
    pub pieces: Mutex<u64>,
    /// Whether a stream was told that nobody takes it any more.
    pub told: watch::Sender<bool>,
    pub broken: watch::Sender<bool>,
    me: Mutex<std::sync::Weak<FakeEngine>>,
}

/// The counter of every command.
const COUNTER: u64 = 7;

pub fn digest(octets: &[u8]) -> Digest {
    Digest::try_from(ring::digest::digest(&ring::digest::SHA256, octets).as_ref()).unwrap()
}

pub fn device(at: u64) -> DeviceId {
    DeviceId(Eui64((0x00DB_1234_0000_0000 + at).to_be_bytes()))
}

/// What is handed over for a Device: its counter and it where a Grouping Header has them (GBCS 7.2), and nothing else that means anything.
pub fn command(device: DeviceId, len: usize) -> Vec<u8> {
    let mut octets = vec![0xdf; len];
    octets[3..11].copy_from_slice(&COUNTER.to_be_bytes());
    octets[21..29].copy_from_slice(device.0.octets());
    octets
}

pub fn at() -> Timestamp {
    "2017-07-21T10:00:00Z".parse().unwrap()
}

impl FakeEngine {
    pub fn new() -> Arc<Self> {
        let engine = Arc::new(Self {
            calls: Mutex::default(),
            failure: Mutex::default(),
            signing: Mutex::new(Signing {
                devices: 3,
                outcomes: |_| ItemOutcome::Signed,
                end: StreamEnd::Whole,
                command_len: 100,
            }),
            pieces: Mutex::default(),
            told: watch::Sender::new(false),
            broken: watch::Sender::new(false),
            me: Mutex::default(),
        });
        *engine.me.lock().unwrap() = Arc::downgrade(&engine);
        engine
    }

    pub fn failing(self: Arc<Self>, name: &'static str, failure: Failure) -> Arc<Self> {
        *self.failure.lock().unwrap() = Some((name, failure));
        self
    }

    pub fn signing(self: Arc<Self>, set: impl FnOnce(&mut Signing)) -> Arc<Self> {
        set(&mut self.signing.lock().unwrap());
        self
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().iter().map(|call| call.name).collect()
    }

    fn called(&self, name: &'static str, caller: &Caller, about: impl Into<String>) -> Result<(), Failure> {
        let call = Call { name, account: caller.account.to_string(), about: about.into() };
        self.calls.lock().unwrap().push(call);
        match &*self.failure.lock().unwrap() {
            Some((failing, failure)) if *failing == name => Err(failure.clone()),
            Some(_) | None => Ok(()),
        }
    }

    fn stream(&self, devices: Vec<DeviceId>, form: wire::Form) -> Octets {
        let signing = self.signing.lock().unwrap().clone();
        let engine = self.me.lock().unwrap().upgrade().unwrap();
        *engine.pieces.lock().unwrap() = 0;
        let (sender, octets) = mpsc::channel(2);
        tokio::spawn(async move {
            let mut summary = Summary { intents: devices.len() as u64, ..Summary::default() };
            let mut lines = Vec::new();
            let mut writer = wire::AnswerWriter::begin(form, Some(header()), &mut lines);
            for (at, device) in devices.into_iter().enumerate() {
                let outcome = (signing.outcomes)(at as u64);
                summary.count(outcome);
                let is_signed = outcome == ItemOutcome::Signed;
                let item = Item {
                    device,
                    template: Some("esme".parse().unwrap()),
                    counter: Some(COUNTER),
                    outcome,
                    command: is_signed.then(|| Base64(command(device, signing.command_len))),
                    intent: Some(at as u64),
                    reasons: if is_signed { vec![] } else { vec![reason("rule", "because")] },
                };
                writer.item(&item, &mut lines);
                if sender.send(Ok(std::mem::take(&mut lines).into())).await.is_err() {
                    engine.told.send_replace(true);
                    return;
                }
                *engine.pieces.lock().unwrap() += 1;
            }
            let last = match signing.end {
                StreamEnd::Whole => {
                    writer.end(SummaryLine { summary }, &mut lines);
                    Ok(lines.into())
                }
                StreamEnd::Stopped => {
                    let stopped = vec![reason("withdrawn", "the PMA withdrew it")];
                    writer.stopped(&StoppedLine { stopped }, &mut lines);
                    writer.end(SummaryLine { summary }, &mut lines);
                    Ok(lines.into())
                }
                StreamEnd::Silent => return,
                StreamEnd::Failing => Err(Failure::Stopped { why: "the disk is full".to_owned() }),
            };
            let _ = sender.send(last).await;
        });
        octets
    }

    fn devices(&self, devices: &Devices) -> Vec<DeviceId> {
        match devices {
            Devices::All => (0..self.signing.lock().unwrap().devices).map(device).collect(),
            Devices::Listed(listed) => listed.iter().map(|ask| ask.device).collect(),
        }
    }
}

/// Where the fake's commands are from.
pub fn header() -> Header {
    Header {
        origin: "smki.example/lab".parse().unwrap(),
        determination: DeterminationId([7; 16]),
        request: Some(RequestId([7; 16])),
        key: "recovery".parse().unwrap(),
        spki_sha256: digest(b""),
        templates: vec!["esme".parse().unwrap()],
    }
}

pub fn reason(rule: &str, text: &str) -> Reason {
    Reason { rule: rule.into(), text: text.into() }
}

fn pieces(octets: &'static [u8]) -> Octets {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for piece in octets.chunks(2) {
            if sender.send(Ok(piece.into())).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn key(label: &KeyLabel, active: bool) -> wire::KeyState {
    wire::KeyState {
        key: label.clone(),
        use_: KeyUse::Recovery,
        token: "smki-a".parse().unwrap(),
        active,
        until: active.then(at),
        incident: None,
        trouble: None,
        tokens: vec![wire::KeyToken {
            token: "smki-a".parse().unwrap(),
            serial: Some("0001".to_owned()),
            state: if active { wire::KeyTokenState::Up } else { wire::KeyTokenState::Off },
            trouble: None,
        }],
        custody: None,
        contingency: None,
    }
}

pub fn incident(id: &IncidentId) -> wire::Incident {
    wire::Incident {
        incident: id.clone(),
        compromised: Compromised {
            certificate_sha256: digest(b"c"),
            spki_sha256: digest(b"s"),
            party: "00DB1234567890A0".parse().unwrap(),
        },
        key: None,
        description: "told by telephone \x1b[2J".to_owned(),
        opened: at(),
        closed: None,
        determinations: vec![],
        progress: None,
    }
}

fn accepted(kind: FileKind) -> wire::File {
    let (signer, party) = (Some("carol".parse().unwrap()), Some("supplier-a".parse().unwrap()));
    wire::File { entry: 7, at: at(), kind, sha256: digest(b"f"), signer, party, smsr: None, rows: 1 }
}

fn determination(id: DeterminationId) -> wire::Determination {
    wire::Determination {
        determination: id,
        incident: "INC-1".parse().unwrap(),
        standing: wire::Standing::InForce,
        key: Some("recovery".parse().unwrap()),
        from: at(),
        until: at().plus_ms(1),
        proposer: "alice".parse().unwrap(),
        signers: vec!["bob".parse().unwrap()],
        sha256: digest(b"d"),
        devices: None,
        devices_count: Some(3),
        entry: 9,
        intents_max: Some(3),
        done: Summary::default(),
        document: Base64(b"{}".to_vec()),
    }
}

impl Engine for FakeEngine {
    fn alive(&self) -> bool {
        true
    }

    async fn cannot_go_on(&self) -> Fatal {
        let _ = self.broken.subscribe().wait_for(|broken| *broken).await;
        Fatal { kind: FatalKind::CannotRecord, why: "the disk is full".to_owned(), remedy: "Free space".to_owned() }
    }

    async fn stop(&self, reason: &str) -> Result<(), Failure> {
        let daemon = Caller { account: "smkid".into(), uid: 0, role: Role::Daemon };
        self.called("stop", &daemon, reason)
    }

    async fn turned_away(
        &self,
        caller: &Caller,
        operation: &'static str,
        asked: Digest,
        reason: Reason,
    ) -> Result<Option<u64>, Failure> {
        self.called("turned-away", caller, format!("{operation} {} {asked}", reason.rule))?;
        Ok(Some(77))
    }

    async fn status(&self, caller: &Caller) -> Result<wire::Status, Failure> {
        self.called("status", caller, "")?;
        Ok(wire::Status {
            version: "0.1.0".to_owned(),
            purpose: Purpose::Exercise,
            origin: "smki.example/lab".parse().unwrap(),
            genesis: digest(b"g"),
            state: wire::ServiceState::Ready,
            problems: vec![],
            clock: wire::Clock { now: at(), wall: at(), state: ClockState::Trusted, offset_ms: 0 },
            ledger: wire::Head { size: 3, root: digest(b"r") },
            policy: Some(wire::PolicyHead { sequence: 1, sha256: digest(b"p") }),
            keys: vec![key(&"recovery".parse().unwrap(), true)],
            tokens: vec![token(&"ledger".parse().unwrap())],
            incidents_open: 1,
            determinations_in_force: 1,
            unknowns: 0,
            jobs: vec![],
            reminders: vec![],
        })
    }

    async fn incident_open(&self, caller: &Caller, ask: wire::IncidentOpen) -> Result<wire::Recorded, Failure> {
        self.called("incident-open", caller, format!("{} {}", ask.incident, ask.description))?;
        Ok(wire::Recorded { entry: 5 })
    }

    async fn incident_list(&self, caller: &Caller) -> Result<wire::Incidents, Failure> {
        self.called("incident-list", caller, "")?;
        Ok(wire::Incidents { incidents: vec![incident(&"INC-1".parse().unwrap())] })
    }

    async fn incident_show(&self, caller: &Caller, id: IncidentId) -> Result<wire::Incident, Failure> {
        self.called("incident-show", caller, id.as_str())?;
        if id.as_str() == "INC-1" {
            Ok(incident(&id))
        } else {
            Err(Failure::NotFound { what: format!("incident {id}") })
        }
    }

    async fn incident_close(&self, caller: &Caller, id: IncidentId, why: wire::Why) -> Result<wire::Recorded, Failure> {
        self.called("incident-close", caller, format!("{id} {}", why.reason))?;
        Ok(wire::Recorded { entry: 6 })
    }

    async fn incident_step(
        &self,
        caller: &Caller,
        id: IncidentId,
        ask: wire::StepAsk,
    ) -> Result<wire::Recorded, Failure> {
        self.called("incident-step", caller, format!("{id} {}", ask.step.meaning()))?;
        Ok(wire::Recorded { entry: 7 })
    }

    async fn incident_next(&self, caller: &Caller, id: IncidentId) -> Result<wire::Next, Failure> {
        self.called("incident-next", caller, id.as_str())?;
        let todo = ToDo {
            who: Who::Dcc,
            what: "Assess".into(),
            command: Some("smkictl incident assess INCIDENT".into()),
            by: Some("base".into()),
            due: Some(at()),
            required: true,
        };
        Ok(wire::Next { state: State::Confirmed, since: at(), todo: vec![todo] })
    }

    async fn incident_timeline(
        &self,
        caller: &Caller,
        id: IncidentId,
        of: wire::StoryOf,
    ) -> Result<wire::Timeline, Failure> {
        self.called("incident-timeline", caller, id.as_str())?;
        let what = "told by telephone \x1b[2J".to_owned();
        // In two parts.
        let (entry, next) = if of.from.is_none() { (3, Some(4)) } else { (4, None) };
        Ok(wire::Timeline { items: vec![wire::Happened { entry, at: at(), who: "operator-1".to_owned(), what }], next })
    }

    async fn file_statuses(&self, caller: &Caller, id: IncidentId, extract: Digest) -> Result<Octets, Failure> {
        self.called("file-statuses", caller, format!("{id} {extract}"))?;
        Ok(pieces(b"line,device\r\n2,00DB1234567890A0\r\n"))
    }

    async fn incident_devices(&self, caller: &Caller, id: IncidentId) -> Result<Octets, Failure> {
        self.called("incident-devices", caller, id.as_str())?;
        Ok(pieces(b"device\n00DB1234567890A0\n"))
    }

    async fn incident_history(
        &self,
        caller: &Caller,
        incident: IncidentId,
        device: DeviceId,
    ) -> Result<wire::DeviceHistory, Failure> {
        self.called("incident-history", caller, format!("{incident} {device}"))?;
        let item = wire::DeviceEvent {
            entry: 3,
            at: at(),
            who: "operator-1".to_owned(),
            profile: vec!["base".parse().unwrap()],
            smi_status: Some(SmiStatus::Recovery),
            since: Some(at()),
            what: "SMI Status 'Recovery' \x1b[2J".to_owned(),
        };
        Ok(wire::DeviceHistory { incident, device, items: vec![item] })
    }

    async fn file_submit(
        &self,
        caller: &Caller,
        incident: IncidentId,
        file: wire::FileSubmit,
    ) -> Result<wire::File, Failure> {
        self.called("file-submit", caller, format!("{incident} {}", file.kind))?;
        Ok(accepted(file.kind))
    }

    async fn file_list(&self, caller: &Caller, incident: IncidentId) -> Result<wire::Files, Failure> {
        self.called("file-list", caller, incident.as_str())?;
        Ok(wire::Files { incident, files: vec![accepted(FileKind::Adt)] })
    }

    async fn person_activity(
        &self,
        caller: &Caller,
        person: PersonId,
        of: wire::ActivityOf,
    ) -> Result<wire::Activity, Failure> {
        self.called("person-activity", caller, format!("{person} {:?}", of.from))?;
        let event = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
        let act = wire::Act { index: 7, at: at(), did: wire::Did::Signed, kind: "file-accepted".to_owned(), event };
        Ok(wire::Activity { person, acts: vec![act], next: None })
    }

    async fn exercise_record(
        &self,
        caller: &Caller,
        exercise: wire::ExerciseRecord,
    ) -> Result<wire::Recorded, Failure> {
        self.called("exercise-record", caller, exercise.note)?;
        Ok(wire::Recorded { entry: 8 })
    }

    async fn upload_devices(
        &self,
        caller: &Caller,
        mut upload: Upload,
        expected: Option<Digest>,
    ) -> Result<wire::Stored, Failure> {
        let mut octets = Vec::new();
        while let Some(piece) = upload.next().await {
            octets.extend_from_slice(&piece?);
        }
        let stored = wire::Stored { sha256: digest(&octets), len: octets.len() as u64 };
        self.called("upload-devices", caller, format!("{} {}", stored.len, expected == Some(stored.sha256)))?;
        Ok(stored)
    }

    async fn upload(&self, caller: &Caller, upload: Upload, expected: Option<Digest>) -> Result<wire::Stored, Failure> {
        let octets = upload.whole().await?;
        let stored = wire::Stored { sha256: digest(&octets), len: octets.len() as u64 };
        self.called("upload", caller, format!("{} {}", stored.len, expected == Some(stored.sha256)))?;
        Ok(stored)
    }

    async fn document_record(&self, caller: &Caller, ask: wire::Document) -> Result<wire::DocumentRecorded, Failure> {
        let files: Vec<&String> = ask.policy_files.iter().flat_map(|files| files.keys()).collect();
        let about = format!(
            "{} octets, {} signatures, devices {}, files {files:?}",
            ask.document.0.len(),
            ask.signatures.len(),
            ask.devices.is_some()
        );
        self.called("document-record", caller, about)?;
        Ok(wire::DocumentRecorded {
            entry: 8,
            sha256: digest(&ask.document.0),
            kind: "determination".to_owned(),
            signers: vec!["alice".parse().unwrap()],
            determination: Some(DeterminationId([7; 16])),
        })
    }

    async fn determination_list(&self, caller: &Caller) -> Result<wire::Determinations, Failure> {
        self.called("determination-list", caller, "")?;
        Ok(wire::Determinations { determinations: vec![determination(DeterminationId([7; 16]))] })
    }

    async fn determination_show(&self, caller: &Caller, id: DeterminationId) -> Result<wire::Determination, Failure> {
        self.called("determination-show", caller, id.to_string())?;
        Ok(determination(id))
    }

    async fn policy_show(&self, caller: &Caller) -> Result<wire::Policy, Failure> {
        self.called("policy-show", caller, "")?;
        let files = [("policy.toml".to_owned(), Base64(b"version = 1\n".to_vec()))].into();
        Ok(wire::Policy { sequence: 1, sha256: digest(b"p"), purpose: Purpose::Exercise, entry: 1, files })
    }

    async fn procedure_explain(&self, caller: &Caller, of: wire::ProcedureOf) -> Result<wire::Explanation, Failure> {
        let text = |text: Option<String>| text.unwrap_or_default();
        let of = (text(of.at.map(|at| at.to_string())), text(of.incident.map(|incident| incident.to_string())));
        self.called("procedure-explain", caller, format!("{} {}", of.0, of.1))?;
        Ok(wire::Explanation {
            at: Timestamp::MIN,
            london: String::new(),
            base: "base".parse().unwrap(),
            title: String::new(),
            document: String::new(),
            variations: Vec::new(),
            steps: Vec::new(),
            duties: Vec::new(),
            optional_factors: Vec::new(),
            incident: None,
        })
    }

    async fn key_activate(
        &self,
        caller: &Caller,
        label: KeyLabel,
        activate: wire::KeyActivate,
    ) -> Result<wire::KeyChanged, Failure> {
        self.called("key-activate", caller, format!("{label} {}", activate.incident))?;
        Ok(wire::KeyChanged { entry: 4, key: key(&label, true) })
    }

    async fn custodian_present(
        &self,
        caller: &Caller,
        label: KeyLabel,
        _: wire::Present,
    ) -> Result<wire::PresentationBegun, Failure> {
        self.called("custodian-present", caller, label.as_str())?;
        let share = wire::ShareWanted {
            presentation: "0102030405060708090a0b0c0d0e0f10".parse().unwrap(),
            seal_to: wire::Base64(vec![4; 65]),
            share: "share-1".parse().unwrap(),
            index: 1,
            generation: 1,
        };
        Ok(wire::PresentationBegun { share: Some(share), recorded: None })
    }

    async fn ceremony_record(&self, caller: &Caller, record: wire::CeremonyRecord) -> Result<wire::Recorded, Failure> {
        let what = match record {
            wire::CeremonyRecord::KeyCopied { .. } => "key-copied",
            wire::CeremonyRecord::SharesBegun { .. } => "shares-begun",
            wire::CeremonyRecord::SharesDealt { .. } => "shares-dealt",
            wire::CeremonyRecord::CeremonyRecorded { .. } => "ceremony-recorded",
        };
        self.called("ceremony-record", caller, what)?;
        Ok(wire::Recorded { entry: 4 })
    }

    async fn custodian_share(
        &self,
        caller: &Caller,
        (label, presentation): (KeyLabel, PresentationId),
        _: wire::SealedShare,
    ) -> Result<wire::Presented, Failure> {
        self.called("custodian-share", caller, format!("{label} {presentation}"))?;
        let standing = wire::Custody {
            generation: Some(1),
            have: 1,
            need: 2,
            parties: 1,
            parties_need: 2,
            enough: false,
            presented: Vec::new(),
            can_present: Vec::new(),
            not_counted: Vec::new(),
        };
        Ok(wire::Presented { entry: 5, standing })
    }

    async fn key_lock(&self, caller: &Caller, label: KeyLabel) -> Result<wire::KeyChanged, Failure> {
        self.called("key-lock", caller, label.as_str())?;
        Ok(wire::KeyChanged { entry: 4, key: key(&label, false) })
    }

    async fn key_symmetric_release(
        &self,
        caller: &Caller,
        label: KeyLabel,
        release: wire::SymmetricRelease,
    ) -> Result<wire::SymmetricReleased, Failure> {
        self.called("key-symmetric-release", caller, format!("{label} {}", release.determination))?;
        Ok(wire::SymmetricReleased {
            key: label,
            determination: release.determination,
            checked: Some(wire::CheckedRoot { entry: 4, root: Digest([7; 32]), result: CheckResult::Matches }),
            spent_before: false,
            intent: Some(6),
            outcome: Some(ReleaseResult::Released),
            held: true,
        })
    }

    async fn hsm_status(&self, caller: &Caller) -> Result<wire::Tokens, Failure> {
        self.called("hsm-status", caller, "")?;
        let state = wire::TokenState {
            standing: token(&"ledger".parse().unwrap()),
            label: "smki-ledger".to_owned(),
            serial: "0123".to_owned(),
            module: "/usr/lib/module.so".to_owned(),
            keys: vec!["ledger".parse().unwrap()],
            worker: Some(7),
            sessions: Some(2),
            sessions_wanted: Some(2),
            sessions_lacking: None,
            is_a: Some("Maker Model, firmware 1.0".to_owned()),
        };
        Ok(wire::Tokens { tokens: vec![state] })
    }

    async fn hsm_retry_login(&self, caller: &Caller, name: TokenName) -> Result<wire::LoginRetried, Failure> {
        self.called("hsm-retry-login", caller, name.as_str())?;
        Ok(wire::LoginRetried { entry: Some(6), was: "the token refused its PIN".to_owned(), token: token(&name) })
    }

    async fn recovery_fetch(
        &self,
        caller: &Caller,
        request: RequestId,
        ask: wire::RecoveryFetch,
        form: wire::Form,
    ) -> Result<Octets, Failure> {
        self.called("recovery-fetch", caller, format!("{request} after {:?}", ask.after))?;
        let devices = ask.devices.unwrap_or_else(|| self.devices(&Devices::All));
        Ok(self.stream(devices, form))
    }

    async fn recovery_sign(
        &self,
        caller: &Caller,
        ask: wire::RecoverySign,
        form: wire::Form,
    ) -> Result<Octets, Failure> {
        self.called("recovery-sign", caller, ask.request.to_string())?;
        Ok(match ask.into_scope().expect("the route has checked it") {
            Scope::Devices(devices) => self.stream(self.devices(&devices), form),
            Scope::PreCommands(commands) => self.stream((0..commands.len() as u64).map(device).collect(), form),
        })
    }

    async fn recovery_request(&self, caller: &Caller, request: RequestId) -> Result<wire::RequestState, Failure> {
        self.called("recovery-request", caller, request.to_string())?;
        Ok(wire::RequestState {
            request,
            determination: DeterminationId([7; 16]),
            at: at(),
            running: false,
            done: Summary::default(),
        })
    }

    async fn recovery_unknowns(&self, caller: &Caller, of: wire::UnknownsOf) -> Result<wire::Unknowns, Failure> {
        self.called("recovery-unknowns", caller, of.determination.to_string())?;
        Ok(wire::Unknowns { unknowns: vec![], more: false })
    }

    async fn recovery_settle(
        &self,
        caller: &Caller,
        ask: wire::RecoverySettle,
        form: wire::Form,
    ) -> Result<Octets, Failure> {
        self.called("recovery-settle", caller, format!("{:?} {}", ask.action, ask.reason))?;
        Ok(self.stream(self.devices(&ask.devices), form))
    }

    async fn recovery_responses(&self, caller: &Caller, ask: wire::RecoveryResponses) -> Result<Octets, Failure> {
        self.called("recovery-responses", caller, ask.determination.to_string())?;
        let (pieces, octets) = tokio::sync::mpsc::channel(1);
        let summary = wire::ResponsesSummary { entry: 3, results: digest(b""), tally: ResponseTally::default() };
        let line = serde_json::to_vec(&wire::ResponsesSummaryLine { summary }).expect("it is made of numbers");
        pieces.try_send(Ok(line.into())).expect("there is room for one");
        Ok(octets)
    }

    async fn recovery_certificates(
        &self,
        caller: &Caller,
        ask: wire::DeviceCertificates,
    ) -> Result<wire::CertificatesImported, Failure> {
        self.called("recovery-certificates", caller, ask.certificates.to_string())?;
        Ok(wire::CertificatesImported { entry: Some(3), tally: CertificateTally::default(), refused: vec![] })
    }

    async fn recovery_devices(&self, caller: &Caller, of: wire::DevicesOf) -> Result<wire::RecoveryDevices, Failure> {
        self.called("recovery-devices", caller, of.determination.to_string())?;
        Ok(wire::RecoveryDevices { devices: vec![], next: None })
    }

    async fn recovery_resume(&self, caller: &Caller, ask: wire::RecoveryResume) -> Result<wire::Recorded, Failure> {
        self.called("recovery-resume", caller, ask.reason)?;
        Ok(wire::Recorded { entry: 3 })
    }

    async fn job_start(&self, caller: &Caller, start: wire::JobStart) -> Result<wire::Job, Failure> {
        self.called("job-start", caller, start.request.to_string())?;
        Ok(job(start.request))
    }

    async fn job_list(&self, caller: &Caller, of: wire::JobsOf) -> Result<wire::Jobs, Failure> {
        self.called("job-list", caller, format!("{:?}", of.from))?;
        Ok(wire::Jobs { jobs: vec![job(RequestId([7; RequestId::LEN]))], next: None })
    }

    async fn job_show(&self, caller: &Caller, request: RequestId) -> Result<wire::Job, Failure> {
        self.called("job-show", caller, request.to_string())?;
        Ok(job(request))
    }

    async fn job_pause(&self, caller: &Caller, request: RequestId, why: wire::Why) -> Result<wire::Job, Failure> {
        self.called("job-pause", caller, why.reason)?;
        Ok(job(request))
    }

    async fn job_resume(&self, caller: &Caller, request: RequestId) -> Result<wire::Job, Failure> {
        self.called("job-resume", caller, request.to_string())?;
        Ok(job(request))
    }

    async fn job_cancel(&self, caller: &Caller, request: RequestId, why: wire::Why) -> Result<wire::Job, Failure> {
        self.called("job-cancel", caller, why.reason)?;
        Ok(job(request))
    }

    async fn clock_accept(&self, caller: &Caller, ask: wire::ClockAccept) -> Result<wire::Recorded, Failure> {
        self.called("clock-accept", caller, ask.reason)?;
        Ok(wire::Recorded { entry: 3 })
    }

    async fn ledger_checkpoint(&self, caller: &Caller) -> Result<String, Failure> {
        self.called("ledger-checkpoint", caller, "")?;
        Ok("smki.example/lab\n3\nAAAA\n\n— smki.example/lab AAAA\n".to_owned())
    }

    async fn ledger_checkpoints(&self, caller: &Caller) -> Result<wire::Checkpoints, Failure> {
        self.called("ledger-checkpoints", caller, "")?;
        Ok(wire::Checkpoints { checkpoints: vec!["note".to_owned()] })
    }

    async fn ledger_leaves(&self, caller: &Caller, range: wire::LeafRange) -> Result<Octets, Failure> {
        self.called("ledger-leaves", caller, format!("{}..{}", range.from, range.until))?;
        Ok(pieces(b"\x00\x02{}\x00\x03[7]"))
    }

    async fn ledger_signatures(&self, caller: &Caller, range: wire::LeafRange) -> Result<Octets, Failure> {
        self.called("ledger-signatures", caller, format!("{}..{}", range.from, range.until))?;
        Ok(pieces(b"\x00\x02{}\x00\x03[7]"))
    }

    async fn ledger_entries(&self, caller: &Caller, of: wire::EntriesOf) -> Result<wire::Entries, Failure> {
        self.called("ledger-entries", caller, format!("{:?} {:?} {:?}", of.from, of.until, of.kind))?;
        let from = of.from.unwrap_or_default();
        let leaf = r#"{"v":1,"at":"2017-07-21T10:00:00.000Z","clock":"trusted","by":{"account":"alice","role":"operator","channel":"socket"},"event":{"stopped":{"reason":"SIGTERM"}}}"#;
        let entry =
            |index| wire::EntryAt { index, entry: serde_json::value::RawValue::from_string(leaf.to_owned()).unwrap() };
        // Five entries, two at a time.
        let until = of.until.unwrap_or(5).min(5);
        let end = until.min(from.saturating_add(2));
        Ok(wire::Entries { entries: (from..end).map(entry).collect(), next: (end < until).then_some(end) })
    }

    async fn ledger_proof(&self, caller: &Caller, index: u64) -> Result<String, Failure> {
        self.called("ledger-proof", caller, index.to_string())?;
        Ok("c2sp.org/tlog-proof@v1\n".to_owned())
    }

    async fn ledger_blobs(&self, caller: &Caller) -> Result<wire::Blobs, Failure> {
        self.called("ledger-blobs", caller, "")?;
        Ok(wire::Blobs { blobs: vec![digest(b"d")] })
    }

    async fn ledger_blob(&self, caller: &Caller, sha256: Digest) -> Result<Octets, Failure> {
        self.called("ledger-blob", caller, sha256.to_string())?;
        if sha256.to_string() == CUT_SHA256 {
            let (sender, receiver) = mpsc::channel(2);
            let _ = sender.send(Ok(b"docu".as_slice().into())).await;
            let _ = sender.send(Err(Failure::Internal { what: "the document is damaged".to_owned() })).await;
            return Ok(receiver);
        }
        Ok(pieces(b"document"))
    }
}

/// A token that is up.
fn token(name: &TokenName) -> wire::TokenStanding {
    let (token, circuit) = (name.clone(), wire::TokenCircuit::Up);
    wire::TokenStanding { token, circuit, since: Some(at()), until: None, failures: 0, trouble: None }
}

/// The socket of a daemon with a fake engine, served by a thread of its own until dropped.
pub struct Daemon {
    pub engine: Arc<FakeEngine>,
    pub folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
    serving: Option<std::thread::JoinHandle<()>>,
}

/// Settings under which whoever runs the tests has this role: by the groups of the account, as in the field.
pub fn roles_for(role: Role) -> Roles {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap();
    let group = nix::unistd::Group::from_gid(user.gid).unwrap().unwrap().name;
    let nobody = Roles { operator: vec![], auditor: vec![], root_is_operator: false };
    match role {
        Role::Operator => Roles { operator: vec![group], ..nobody },
        Role::Auditor => Roles { auditor: vec![group], ..nobody },
        Role::Account => nobody,
        Role::Ceremony | Role::Daemon => panic!("{role} does not come by a socket"),
    }
}

impl Daemon {
    pub fn start(engine: Arc<FakeEngine>, role: Role) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (stop, stopping) = watch::channel(false);
        let (path, served) = (folder.path().join("smkid.sock"), Arc::clone(&engine));
        let (bound, is_bound) = std::sync::mpsc::channel();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = Listener::bind(&path, None).unwrap();
                bound.send(()).unwrap();
                listener.serve(served, roles_for(role), UPLOAD_LEN_MAX, stopping).await;
            });
            runtime.shutdown_background();
        });
        is_bound.recv().unwrap();
        Self { engine, folder, stop, serving: Some(serving) }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("smkid.sock")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Asks the listener to end; waits until it has.
    pub fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(serving) = self.serving.take() {
            serving.join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// One request over a connection of its own, as octets; the status and the body of the answer. Chunks are put together.
pub fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: smkid\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let (status, _, body) = ask_raw(socket, &[head.as_bytes(), body].concat());
    (status, body)
}

/// The same with the octets of the request as they are; status, head and body.
pub fn ask_raw(socket: &Path, request: &[u8]) -> (u16, String, Vec<u8>) {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let (mut writer, request) = (stream.try_clone().unwrap(), request.to_vec());
    // A daemon that has read enough closes while we write; what it says is what counts.
    let writing = std::thread::spawn(move || drop(writer.write_all(&request)));
    let (mut answer, mut piece) = (Vec::new(), vec![0; 65536]);
    while let Ok(read) = stream.read(&mut piece) {
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..read]);
    }
    writing.join().unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = &answer[end + 4..];
    if !head.contains("transfer-encoding: chunked") {
        return (status, head, rest.to_vec());
    }
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[line + 2..line + 2 + len]);
        rest = &rest[line + 4 + len..];
    }
    (status, head, body)
}

/// A job that came to its end.
fn job(request: RequestId) -> wire::Job {
    let at: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
    let tally = wire::JobTally { intents: 2, signed: 2, ..wire::JobTally::default() };
    wire::Job {
        request,
        incident: "INC-1".parse().unwrap(),
        determination: DeterminationId([1; DeterminationId::LEN]),
        key: "recovery".parse().unwrap(),
        state: wire::JobState::Ended,
        why: Vec::new(),
        until: None,
        started: wire::JobAct { account: "alice".to_owned(), person: None, at, reason: None },
        stopped: None,
        ended: Some(at),
        total: 2,
        done: 2,
        tally,
        rules: Vec::new(),
        refused: Vec::new(),
        per_hour: None,
        intents_left: 4,
        rate: None,
        rate_overall: None,
        eta_s: None,
        hsm_busy: None,
    }
}
