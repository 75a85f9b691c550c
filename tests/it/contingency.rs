//! The Contingency Symmetric Key, from its release to the commands that have it inside, on real tokens with the real programs: nothing is
//! signed or handed over without it, it is gone with a lock and a restart, and it lies nowhere but in what is handed out.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use smkid::api::client::Client;
use smkid::api::wire::{self, Base64, DeviceAsk, Devices, Item, ItemOutcome, RecoverySign};
use smkid::domain::certificates::apex::WrappedApexKey;
use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::certificates::signature::PublicKey;
use smkid::domain::determination::document::{Determination, Form, KeyChosen, Method, SymmetricKeyLine, Written};
use smkid::domain::gbcs::{SIGNATURE_PART_LEN, take_symmetric_key};
use smkid::domain::ledger::contingency::{CheckResult, ReleaseResult};
use smkid::domain::ledger::steps::CompromiseClass;
use smkid::domain::names::{DeterminationId, Digest, IncidentId};
use smkid::domain::time::Window;
use smkid::exercise::clock::Clock;
use smkid::exercise::documents::{self, Drafter, Scope};
use smkid::exercise::lab::Renewal;
use smkid::exercise::people::{APPROVALS, Member};
use smkid::exercise::procedure::{Carrier, Order};
use smkid::exercise::programs::{Daemon, Programs};
use smkid::exercise::stage::Stage;
use smkid::exercise::tell::Teller;
use smkid::exercise::template;
use tempfile::TempDir;

use crate::support::site as support;
use crate::support::site::{
    Ended, device, device_list, head, lines, problem, request, rules, template_name, upload, whole,
};
use crate::support::token::{MODULE, fault_token};

const KEY: &str = "contingency-1";
const NEXT: &str = "contingency-2";
const INCIDENT: &str = "INC-ROOT";
const SIGN: &str = "/v1/recovery/sign";
/// Devices of the determination: so many that a job can be stopped in the middle.
const DEVICES: u32 = 1_000;
/// Those that are signed for by name.
const SOME: u32 = 5;

/// A site whose policy has two contingency keys, each a generation with its Root OCA Certificate, and a determination about the Compromise of
/// the root: recorded, and prepared.
struct Site {
    stage: Stage,
    _out: TempDir,
    determination: DeterminationId,
    document: Option<Written<Determination>>,
    /// The field of the Root OCA Certificate that Devices hold.
    field: WrappedApexKey,
    spki: Vec<u8>,
}

fn path(text: &Path) -> &str {
    text.to_str().unwrap()
}

impl Site {
    async fn set() -> Self {
        let out = tempfile::tempdir().unwrap();
        let programs = Programs::new(env!("CARGO_BIN_EXE_smkictl").into(), env!("CARGO_BIN_EXE_smkid").into());
        let mut said = Vec::new();
        let mut teller = Teller::new(&mut said, &std::io::stderr());
        let folder = out.path().join("out");
        let mut stage = Stage::set_with_contingency(&folder, programs, Clock::default(), &mut teller).unwrap();
        let (recovery, _) = Box::pin(stage.ceremony(&mut teller)).await.unwrap();
        let (renewal, _) = Box::pin(stage.contingency(&recovery, &mut teller)).await.unwrap();
        let root = stage.lab.root_oca();
        stage.lab.compromise(&INCIDENT.parse().unwrap(), root);
        let field = WrappedApexKey::of_certificate(root.certificate()).unwrap().unwrap();
        let listing = fs::read_to_string(stage.layout.path("keys/keys.json")).unwrap();
        let (spki, determination) = (spki_of(&listing, KEY), DeterminationId([0; 16]));
        let mut site = Self { stage, _out: out, determination, document: None, field, spki };
        let daemon = site.start().await;
        let carrier = site.carrier(&daemon.client);
        let devices: Vec<_> = (0..DEVICES).map(device).collect();
        let notification = carrier.assess(&devices, Method::Contingency).await.unwrap();
        carrier.refer(notification).await.unwrap();
        let document = site.determine(&daemon.client, &renewal).await;
        carrier.prepare().await.unwrap();
        (site.determination, site.document) = (document.form().id, Some(document));
        assert!(daemon.stop().await.unwrap().success());
        site
    }

    async fn start(&self) -> Daemon {
        let Stage { programs, configuration, socket, .. } = &self.stage;
        Daemon::start(programs, configuration, socket, &self.log()).await.unwrap()
    }

    fn log(&self) -> PathBuf {
        self.stage.scratch.path().join("smkid.log")
    }

    fn carrier<'a>(&'a self, client: &'a Client) -> Carrier<'a> {
        let Stage { lab, people, clock, .. } = &self.stage;
        let (incident, order) = (INCIDENT.parse().unwrap(), Order::BeforeReferral);
        Carrier { lab, people, layout: None, client, clock: *clock, incident, order }
    }

    /// The SMKI PMA determines that the root is replaced, with the symmetric key in the commands.
    async fn determine(&self, client: &Client, renewal: &Renewal) -> Written<Determination> {
        let root = self.stage.lab.root_oca();
        let (name, template) = (template_name(), template::contingency(renewal).unwrap());
        let (from, list) = (self.stage.now(), device_list(0..DEVICES));
        let scope = Scope {
            decision_number: 1,
            method: Method::Contingency,
            name: &name,
            template: &template,
            devices: &list,
            window: Window { from, until: from.plus_ms(24 * 3_600_000) },
            retries_of_unknown: 1,
        };
        let drafter = self.drafter();
        let line = SymmetricKeyLine {
            root_sha256: root.sha256(),
            next: NEXT.parse().unwrap(),
            next_root_sha256: renewal.root_oca().sha256(),
        };
        let written = drafter.contingency(head(client).await, &scope, line).unwrap();
        let listed = upload(client, &list).await.unwrap().sha256;
        self.deliver(client, &written, Some(listed)).await;
        written
    }

    fn drafter(&self) -> Drafter<'_> {
        let incident: IncidentId = INCIDENT.parse().unwrap();
        Drafter {
            proposer: self.stage.names.proposer.clone(),
            policy: &self.stage.policy,
            compromised: self.stage.lab.compromised(&incident).unwrap(),
            incident,
            key: KeyChosen { label: KEY.parse().unwrap(), spki_sha256: Digest::of(&self.spki) },
            also_weighed: None,
        }
    }

    /// Enough members sign a document, and it is recorded.
    async fn deliver<F: Form>(&self, client: &Client, document: &Written<F>, devices: Option<Digest>) {
        let members = self.stage.people.members[..APPROVALS].iter();
        let sign =
            |member: &Member| Base64(documents::sign(document.octets(), &member.first, self.stage.now()).unwrap());
        let ask = wire::Document {
            document: Base64(document.octets().to_vec()),
            signatures: members.map(sign).collect(),
            devices,
            policy_files: None,
            text: None,
        };
        client.post::<_, wire::DocumentRecorded>("/v1/documents", &ask).await.unwrap();
    }

    /// From the next start on the token of the contingency keys fails so; or no more.
    fn fault(&self, script: Option<&str>) {
        let path = self.stage.scratch.path().join("contingency.script");
        let _ = fs::remove_file(self.stage.scratch.path().join("contingency.script.counts"));
        fs::write(&path, script.unwrap_or_default()).unwrap();
        let text = fs::read_to_string(&self.stage.configuration).unwrap();
        let name = format!("name = \"{}\"", self.stage.names.contingency_token);
        let (before, after) = text.split_once(&name).unwrap();
        let module = |module: &Path| format!("module = \"{}\"", module.display());
        let through = "environment = { FAULT_TOKEN_MODULE";
        let more = format!("{through} = \"{MODULE}\", FAULT_TOKEN_SCRIPT = \"{}\", ", path.display());
        let after = if after.contains(through) {
            after.to_owned()
        } else {
            after.replacen(&module(Path::new(MODULE)), &module(&fault_token()), 1).replacen(
                "environment = { ",
                &more,
                1,
            )
        };
        fs::write(&self.stage.configuration, format!("{before}{name}{after}")).unwrap();
    }

    /// The entries of a kind.
    async fn entries(&self, client: &Client, kind: &str) -> Vec<wire::EntryAt> {
        client.get::<wire::Entries>(&format!("/v1/ledger/entries?kind={kind}")).await.unwrap().entries
    }

    async fn activate(&self, client: &Client) {
        self.carrier(client).activate(&KEY.parse().unwrap()).await.unwrap();
    }

    fn ask(&self, devices: std::ops::Range<u32>) -> RecoverySign {
        let devices = devices.map(|n| DeviceAsk { device: device(n) }).collect();
        RecoverySign {
            request: request(),
            determination: self.determination,
            devices: Some(Devices::Listed(devices)),
            pre_commands: None,
        }
    }

    async fn release(&self, client: &Client, ask: &wire::SymmetricRelease) -> Answer<wire::SymmetricReleased> {
        client.post(&format!("/v1/keys/{KEY}/symmetric-release"), ask).await
    }

    fn ask_release(&self) -> wire::SymmetricRelease {
        wire::SymmetricRelease { request: request(), determination: self.determination, check_only: false }
    }

    async fn fetch(&self, client: &Client, of: &RecoverySign) -> Answer<(Vec<Item>, Ended)> {
        let path = format!("/v1/recovery/requests/{}/commands", of.request);
        lines(client, &path, &wire::RecoveryFetch::default()).await
    }

    async fn state(&self, client: &Client) -> wire::ContingencyState {
        let status: wire::Status = client.get("/v1/status").await.unwrap();
        status.keys.into_iter().find(|key| key.key.as_str() == KEY).unwrap().contingency.unwrap()
    }

    /// A Device takes the key out of the command, unwraps the public key in its root with it, and verifies.
    #[track_caller]
    fn check_as_a_device(&self, command: &[u8]) -> Vec<u8> {
        let (key, _) = take_symmetric_key(command).unwrap();
        let spki = self.field.unwrap_with(&key).unwrap();
        assert_eq!(spki, self.spki);
        let end = command.len() - SIGNATURE_PART_LEN;
        let signature: [u8; 64] = command[end + 1..].try_into().unwrap();
        assert!(PublicKey::from_spki(&spki).unwrap().verifies_fixed(&command[1..end], &signature));
        key.octets().to_vec()
    }

    async fn smkictl(&self, arguments: &[&str], status: i32) -> String {
        self.stage.programs.smkictl_ending(&self.stage.socket, arguments, status).await.unwrap()
    }
}

type Answer<T> = Result<T, smkid::api::client::ClientError>;

/// The SubjectPublicKeyInfo of a key, as the ceremony listed it.
fn spki_of(listing: &str, label: &str) -> Vec<u8> {
    let listing: serde_json::Value = serde_json::from_str(listing).unwrap();
    let keys = listing["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["label"] == label).unwrap();
    let text = key["spki"].as_str().unwrap();
    hex::decode(text).unwrap_or_else(|_| STANDARD.decode(text).unwrap())
}

/// The commands of an answer, each signed.
#[track_caller]
fn commands(items: &[Item]) -> Vec<Vec<u8>> {
    let command = |item: &Item| {
        assert_eq!(item.outcome, ItemOutcome::Signed, "{:?}", item.reasons);
        item.command.as_ref().unwrap().0.clone()
    };
    items.iter().map(command).collect()
}

/// Files below a folder in which a key is: as octets, in hexadecimal, or in base64 wherever it begins within three octets.
fn with_the_key(folder: &Path, key: &[u8]) -> Vec<PathBuf> {
    let mut needles = vec![key.to_vec(), hex::encode(key).into_bytes(), hex::encode_upper(key).into_bytes()];
    for lead in 0..3 {
        let text = STANDARD.encode([&vec![0; lead], key].concat());
        // Without what depends on the octets around it.
        let from = if lead == 0 { 0 } else { 4 };
        needles.push(text.as_bytes()[from..text.len() - 4].to_vec());
    }
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let octets = fs::read(entry.path()).unwrap();
                let has = |needle: &Vec<u8>| octets.windows(needle.len()).any(|window| window == needle.as_slice());
                if needles.iter().any(has) {
                    found.push(entry.path());
                }
            }
        }
    }
    found
}

#[tokio::test]
async fn the_symmetric_key_is_in_what_is_handed_out_and_nowhere_else() {
    let site = Site::set().await;
    let id = site.determination.to_string();
    let daemon = site.start().await;
    let client = &daemon.client;

    // Locked, nothing is released; open, nothing is signed before it is.
    let locked = problem(site.release(client, &site.ask_release()).await);
    assert!(rules(&locked).contains(&"key-locked"), "{locked:?}");
    site.activate(client).await;
    let ask = site.ask(0..SOME);
    let early = problem(lines(client, SIGN, &ask).await);
    assert!(rules(&early).contains(&"symmetric-key-released"), "{early:?}");
    assert_eq!(site.state(client).await.spent, None);

    // The check alone spends nothing.
    let release = ["key", "release-symmetric", KEY, "--determination", &id];
    site.smkictl(&[&release[..], &["--check"]].concat(), 0).await;
    let state = site.state(client).await;
    assert_eq!((state.spent, state.released, state.held), (None, None, false));

    // Released, and told again by its id.
    let first = site.ask_release();
    let released = site.release(client, &first).await.unwrap();
    assert_eq!(released.checked.as_ref().unwrap().result, CheckResult::Matches);
    assert_eq!(
        (&released.outcome, released.spent_before, released.held),
        (&Some(ReleaseResult::Released), false, true)
    );
    let again = site.release(client, &first).await.unwrap();
    assert_eq!(
        (again.intent, &again.outcome, again.checked, again.held),
        (released.intent, &released.outcome, None, true)
    );
    let other = wire::SymmetricRelease { determination: DeterminationId([7; 16]), ..first.clone() };
    assert_eq!(rules(&problem(site.release(client, &other).await)), ["request-reused"]);
    let state = site.state(client).await;
    assert_eq!((state.released, state.held), (Some(site.determination), true));
    assert_eq!(state.spent.unwrap().incident.as_str(), INCIDENT);

    // What is signed, a Device takes.
    let signed = commands(&whole(lines(client, SIGN, &ask).await));
    assert_eq!(signed.len(), SOME as usize);
    let keys: Vec<Vec<u8>> = signed.iter().map(|command| site.check_as_a_device(command)).collect();
    let key = keys[0].clone();
    assert!(keys.iter().all(|other| *other == key));
    assert_eq!(commands(&whole(site.fetch(client, &ask).await)), signed);
    assert_eq!(commands(&whole(lines(client, SIGN, &ask).await)), signed, "the same request again");

    // What was sent is not handed in as what Devices answered.
    let stored: wire::Stored = client.put("/v1/uploads", axum::body::Body::from(signed.concat())).await.unwrap();
    let handed =
        wire::RecoveryResponses { determination: site.determination, responses: stored.sha256, certificates: None };
    let refused = client.post_for_lines("/v1/recovery/responses", &handed).await;
    assert!(refused.is_err(), "a command has the key inside, and would be kept for good");

    // A restart forgets it. What was signed is handed over once it is released again, under the same determination.
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    let client = &daemon.client;
    let gone = problem(site.fetch(client, &ask).await);
    assert!(rules(&gone).contains(&"symmetric-key-released"), "{gone:?}");
    assert!(!site.release(client, &first).await.unwrap().held);
    site.activate(client).await;
    let gone = problem(site.fetch(client, &ask).await);
    assert!(rules(&gone).contains(&"symmetric-key-released"), "{gone:?}");
    let out = site.stage.scratch.path().join("commands");
    site.smkictl(&release, 0).await;
    assert_eq!(commands(&whole(site.fetch(client, &ask).await)), signed);
    let fetched = ask.request.to_string();
    site.smkictl(&["recovery", "fetch", &fetched, "--out", path(&out), "--format", "container"], 0).await;

    // A lock forgets it too.
    client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{KEY}/lock")).await.unwrap();
    let state = site.state(client).await;
    assert_eq!((state.released, state.held), (None, false));
    assert!(rules(&problem(site.fetch(client, &ask).await)).contains(&"symmetric-key-released"));

    // An auditor verifies the signatures with one of the commands, and makes all of them again.
    let export = site.stage.scratch.path().join("export");
    site.smkictl(&["ledger", "export", path(&export)], 0).await;
    let one = site.stage.scratch.path().join("one.bin");
    fs::write(&one, &signed[0]).unwrap();
    let (vkey, genesis) = (site.stage.layout.path("keys/ledger.vkey"), site.stage.layout.path("keys/genesis"));
    let genesis = fs::read_to_string(genesis).unwrap().trim().to_owned();
    let verify = ["ledger", "verify", path(&export), "--key", path(&vkey), "--genesis", &genesis, "--output", "json"];
    let with = ["--contingency-command", path(&one)];
    for (arguments, unverified) in [(verify.to_vec(), u64::from(SOME)), ([&verify[..], &with].concat(), 0)] {
        let answer: serde_json::Value = serde_json::from_str(&site.smkictl(&arguments, 0).await).unwrap();
        assert_eq!(answer["summary"]["contingency_unverified"], unverified, "{answer}");
    }
    let made = site.stage.scratch.path().join("made");
    let commands =
        ["ledger", "commands", path(&export), "--determination", &id, "--out", path(&made), "--format", "each"];
    site.smkictl(&commands, 1).await;
    let _ = fs::remove_dir_all(&made);
    site.smkictl(&[&commands[..], &with].concat(), 0).await;
    for (n, command) in (0..).zip(&signed) {
        assert_eq!(fs::read(made.join(format!("{}.bin", device(n)))).unwrap(), *command);
    }
    site.smkictl(&["recovery", "check", path(&out), "--ledger", path(&export)], 0).await;
    assert!(daemon.stop().await.unwrap().success());

    // It lies nowhere but in what was handed out: neither in what the daemon keeps, nor in its log, nor in the export.
    let kept = site.stage.scratch.path().join("state");
    for folder in [&kept, &export, &site.stage.layout.path(".")] {
        assert_eq!(with_the_key(folder, &key), Vec::<PathBuf>::new(), "in {}", folder.display());
    }
    let log = fs::read(site.log()).unwrap();
    assert!(!log.is_empty() && !log.windows(key.len()).any(|window| window == key));
    assert!(!String::from_utf8_lossy(&log).contains(&hex::encode(&key)));
    // The same search finds it where it is.
    assert_eq!(with_the_key(&made, &key).len(), SOME as usize);
    assert_eq!(with_the_key(&out, &key).len(), 1);
}

#[tokio::test]
async fn a_root_that_does_not_carry_the_key_stops_the_release_before_anything_is_spent() {
    let site = Site::set().await;
    // What the token unwraps has a bit that is not the key's.
    site.fault(Some("C_Decrypt * corrupt\n"));
    let daemon = site.start().await;
    let client = &daemon.client;
    site.activate(client).await;
    let ask = site.ask_release();
    let checked = site.release(client, &wire::SymmetricRelease { check_only: true, ..ask.clone() }).await.unwrap();
    assert!(matches!(checked.checked.unwrap().result, CheckResult::Differs(_)));
    assert_eq!((checked.intent, checked.outcome, checked.held), (None, None, false));
    let refused = problem(site.release(client, &ask).await);
    assert_eq!(rules(&refused), ["preflight"], "{refused:?}");
    assert_eq!(site.entries(client, "contingency-checked").await.len(), 2);
    for kind in ["symmetric-key-spent", "symmetric-release"] {
        assert!(site.entries(client, kind).await.is_empty(), "{kind}");
    }
    assert_eq!(site.state(client).await.spent, None);
    let early = problem(lines(client, SIGN, &site.ask(0..1)).await);
    assert!(rules(&early).contains(&"preflight"), "{early:?}");
    assert!(daemon.stop().await.unwrap().success());

    // With the token as it is, the same request is a new one: nothing was recorded of it but that it was refused.
    site.fault(None);
    let daemon = site.start().await;
    site.activate(&daemon.client).await;
    assert!(site.release(&daemon.client, &ask).await.unwrap().held);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_release_that_was_cut_off_leaves_the_key_spent_and_unknown_and_another_brings_it_back() {
    let site = Site::set().await;
    site.fault(Some("log calls\nC_WrapKey * hang\n"));
    let daemon = site.start().await;
    site.activate(&daemon.client).await;
    let ask = site.ask_release();
    let (client, cut) = (daemon.client.clone(), ask.clone());
    let asking = tokio::spawn(async move {
        let path = format!("/v1/keys/{KEY}/symmetric-release");
        drop(client.post::<_, wire::SymmetricReleased>(&path, &cut).await);
    });
    let calls = site.stage.scratch.path().join("calls");
    while !fs::read_to_string(&calls).unwrap_or_default().contains("C_WrapKey") {
        tokio::task::yield_now().await;
    }
    daemon.kill().await.unwrap();
    asking.await.unwrap();

    site.fault(None);
    let daemon = site.start().await;
    let client = &daemon.client;
    assert_eq!(site.entries(client, "symmetric-key-spent").await.len(), 1);
    let told = site.release(client, &ask).await.unwrap();
    assert!(matches!(told.outcome, Some(ReleaseResult::Unknown(_))), "{told:?}");
    assert!(told.spent_before && !told.held);
    assert_eq!(site.state(client).await.spent.unwrap().incident.as_str(), INCIDENT);
    site.activate(client).await;
    assert!(rules(&problem(lines(client, SIGN, &site.ask(0..1)).await)).contains(&"symmetric-key-released"));
    let again = site.release(client, &site.ask_release()).await.unwrap();
    assert!(again.spent_before && again.held);
    let signed = commands(&whole(lines(client, SIGN, &site.ask(0..1)).await));
    site.check_as_a_device(&signed[0]);
    assert_eq!(site.entries(client, "symmetric-key-spent").await.len(), 1, "it is spent once");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_determination_that_is_withdrawn_takes_the_key_with_it() {
    let site = Site::set().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    site.activate(client).await;
    site.release(client, &site.ask_release()).await.unwrap();
    let ask = site.ask(0..1);
    whole(lines(client, SIGN, &ask).await);
    let withdrawal = site.drafter().withdrawal(site.document.as_ref().unwrap(), head(client).await).unwrap();
    site.deliver(client, &withdrawal, None).await;
    let state = site.state(client).await;
    assert_eq!((state.released, state.held), (None, false));
    assert!(rules(&problem(site.fetch(client, &ask).await)).contains(&"withdrawn"));
    let refused = problem(site.release(client, &site.ask_release()).await);
    assert!(rules(&refused).contains(&"withdrawn"), "{refused:?}");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_job_waits_for_the_release_and_goes_on_by_itself() {
    let site = Site::set().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    site.activate(client).await;
    site.release(client, &site.ask_release()).await.unwrap();
    let start = wire::JobStart {
        request: request(),
        determination: site.determination,
        list: None,
        per_hour: None,
        reason: None,
    };
    client.post::<_, wire::Job>("/v1/recovery/jobs", &start).await.unwrap();
    client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{KEY}/lock")).await.unwrap();
    let job = async || client.get::<wire::Job>(&format!("/v1/recovery/jobs/{}", start.request)).await.unwrap();
    assert!(job().await.done < u64::from(DEVICES), "it was locked in the middle");
    site.activate(client).await;
    let waits = |job: &wire::Job| job.why.iter().any(|reason| &*reason.rule == "symmetric-key-released");
    while !waits(&job().await) {
        tokio::task::yield_now().await;
    }
    site.release(client, &site.ask_release()).await.unwrap();
    while job().await.state != wire::JobState::Ended {
        tokio::task::yield_now().await;
    }
    assert_eq!(job().await.tally.signed, u64::from(DEVICES));
    let path = format!("/v1/recovery/requests/{}/commands", start.request);
    let fetched = commands(&whole(lines(client, &path, &wire::RecoveryFetch::default()).await));
    assert_eq!(fetched.len(), DEVICES as usize);
    for command in &fetched {
        site.check_as_a_device(command);
    }
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_lock_while_the_token_gives_the_key_out_leaves_nobody_with_it() {
    let site = Site::set().await;
    site.fault(Some("log calls\nC_WrapKey * delay 2s\n"));
    let daemon = site.start().await;
    let client = &daemon.client;
    site.activate(client).await;
    let (asking, ask) = (client.clone(), site.ask_release());
    let asked = tokio::spawn(async move {
        let path = format!("/v1/keys/{KEY}/symmetric-release");
        asking.post::<_, wire::SymmetricReleased>(&path, &ask).await
    });
    let calls = site.stage.scratch.path().join("calls");
    while !fs::read_to_string(&calls).unwrap_or_default().contains("C_WrapKey") {
        tokio::task::yield_now().await;
    }
    client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{KEY}/lock")).await.unwrap();
    let released = asked.await.unwrap().unwrap();
    assert!(!released.held && released.outcome != Some(ReleaseResult::Released), "{released:?}");
    let state = site.state(client).await;
    assert_eq!((state.spent.is_some(), state.released, state.held), (true, None, false));
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn what_the_token_gives_out_and_is_not_the_key_is_recorded_as_failed_and_held_by_nobody() {
    let site = Site::set().await;
    site.fault(Some("C_WrapKey * corrupt\n"));
    let daemon = site.start().await;
    let client = &daemon.client;
    site.activate(client).await;
    let released = site.release(client, &site.ask_release()).await.unwrap();
    assert_eq!(released.checked.unwrap().result, CheckResult::Matches);
    assert!(matches!(released.outcome, Some(ReleaseResult::Failed(_) | ReleaseResult::Unknown(_))));
    assert!(!released.held);
    assert!(rules(&problem(lines(client, SIGN, &site.ask(0..1)).await)).contains(&"symmetric-key-released"));
    let id = site.determination.to_string();
    site.smkictl(&["key", "release-symmetric", KEY, "--determination", &id], 3).await;
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_compromise_of_the_recovery_key_bars_it_whether_or_not_it_is_called_so() {
    let site = support::Site::determined().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    // That of a Supplier's key bars none of ours.
    let supplier = support::incident_of(&site.base.lab, "INC-8");
    client.post::<_, wire::Recorded>("/v1/incidents", &supplier).await.unwrap();
    site.activate(client).await.unwrap();
    site.lock(client).await.unwrap();
    let mut recovery = support::incident_of(&site.base.lab, "INC-9");
    recovery.certificate_pem = certificate_to_pem(site.base.recovery.octets());
    let notification = recovery.notification.as_mut().unwrap();
    (notification.class, notification.party) = (CompromiseClass::Other, "dcc".parse().unwrap());
    client.post::<_, wire::Recorded>("/v1/incidents", &recovery).await.unwrap();
    let refused = problem(site.activate(client).await);
    assert!(rules(&refused).contains(&"key-compromised"), "{refused:?}");
    assert!(daemon.stop().await.unwrap().success());
}
