//! The Contingency Symmetric Key, from its release to the commands that have it inside, on real tokens with the real programs: nothing is
//! signed or handed over without it, it is gone with a lock and a restart, and it lies nowhere but in what is handed out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use smkid::api::client::Client;
use smkid::api::wire::{self, Base64, DeviceAsk, Devices, Item, ItemOutcome, RecoverySign};
use smkid::domain::certificates::SmkiCertificate;
use smkid::domain::certificates::apex::WrappedApexKey;
use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::certificates::signature::PublicKey;
use smkid::domain::determination::document::{
    Compromised, Determination, KeyChosen, Method, SymmetricKeyLine, Written,
};
use smkid::domain::gbcs::{SIGNATURE_PART_LEN, take_symmetric_key};
use smkid::domain::intake::OF_AN_OCA;
use smkid::domain::ledger::contingency::{CheckResult, OtherKey, ReleaseResult};
use smkid::domain::ledger::steps::{Certainty, CompromiseClass, Notification, SmiStatus, Step};
use smkid::domain::names::{DeterminationId, Digest, FileKind, IncidentId, KeyLabel};
use smkid::domain::policy::{Activation, Policy};
use smkid::domain::time::Window;
use smkid::exercise::clock::Clock;
use smkid::exercise::documents::{self, Drafter, Scope};
use smkid::exercise::people::APPROVALS;
use smkid::exercise::procedure::{self, Carrier, Order};
use smkid::exercise::programs::{Daemon, Programs};
use smkid::exercise::stage::Stage;
use smkid::exercise::tell::Teller;
use smkid::exercise::template;
use tempfile::TempDir;

use crate::support::site::{
    Ended, device, device_list, head, lines, problem, request, rules, template_name, upload, whole,
};

const KEY: &str = "contingency-1";
const NEXT: &str = "contingency-2";
const TOKEN: &str = "contingency-a";
const INCIDENT: &str = "INC-ROOT";
const SIGN: &str = "/v1/recovery/sign";
const DEVICES: u32 = 5;

/// A site whose policy has two contingency keys, each a generation with its Root OCA Certificate, and a determination about the Compromise of
/// the root: recorded, and prepared.
struct Site {
    stage: Stage,
    _out: TempDir,
    determination: DeterminationId,
    /// The field of the Root OCA Certificate that Devices hold.
    field: WrappedApexKey,
    spki: Vec<u8>,
}

fn path(text: &Path) -> &str {
    text.to_str().unwrap()
}

/// The policy's files, by their paths.
fn files(folder: &Path, within: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder.join(within)).unwrap().map(Result::unwrap) {
        let name = format!("{within}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files(folder, &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

impl Site {
    async fn set() -> Self {
        let out = tempfile::tempdir().unwrap();
        let programs = Programs::new(env!("CARGO_BIN_EXE_smkictl").into(), env!("CARGO_BIN_EXE_smkid").into());
        let mut said = Vec::new();
        let mut teller = Teller::new(&mut said, &std::io::stderr());
        let mut stage =
            Stage::set(&out.path().join("out"), programs, Clock::default(), Activation::Stored, &mut teller).unwrap();
        let token = stage.softhsm.make_token_with_officer("exercise-contingency").unwrap();
        let so_pin = format!("{TOKEN}={}", path(token.so_pin_file.as_ref().unwrap()));
        Self::configure(&mut stage, &token);
        let (recovery, _) = stage.ceremony(&mut teller).await.unwrap();
        let (config, keys) = (path(&stage.configuration).to_owned(), path(&stage.layout.path("keys")).to_owned());
        let made = async |stage: &Stage, key: &str| {
            let arguments = [
                "ceremony",
                "contingency",
                "--config",
                &config,
                "--key",
                key,
                "--out",
                &keys,
                "--so-pin-file",
                &so_pin,
            ];
            stage.programs.smkictl(&stage.socket, &arguments).await.unwrap();
            let octets = fs::read(stage.layout.path(&format!("keys/{key}.wrapped-apex.der"))).unwrap();
            WrappedApexKey::from_der(&octets).unwrap()
        };
        let (first, second) = (made(&stage, KEY).await, made(&stage, NEXT).await);
        stage.lab.carry(first.clone()).unwrap();
        let renewal = stage.lab.renew(Some(second), &recovery).unwrap();
        for (key, root) in [(KEY, stage.lab.root_oca()), (NEXT, renewal.root_oca())] {
            let file = stage.scratch.path().join(format!("{key}.root.pem"));
            fs::write(&file, certificate_to_pem(root.octets())).unwrap();
            let arguments = ["ceremony", "import-root", "--config", &config, "--key", key, "--root", path(&file)];
            stage.programs.smkictl(&stage.socket, &arguments).await.unwrap();
        }
        let mut site =
            Self { stage, _out: out, determination: DeterminationId([0; 16]), field: first, spki: Vec::new() };
        let daemon = site.start().await;
        site.refer(&daemon.client).await;
        let written = site.determination(&daemon.client, &renewal).await;
        site.determination = written.form().id;
        site.carrier(&daemon.client).inform().await.unwrap();
        let prepared = Step::Prepare { note: "Templates, list and certificates were compared.".into() };
        site.carrier(&daemon.client).step(prepared).await.unwrap();
        assert!(daemon.stop().await.unwrap().success());
        site
    }

    /// A third token with two contingency keys; the DCC's ARO; the EUI-64s of the DCC's certificates below the new root.
    fn configure(stage: &mut Stage, token: &smkid::exercise::softhsm::Token) {
        let folder = stage.layout.path("policy");
        let change = |name: &str, change: &dyn Fn(String) -> String| {
            let file = folder.join(name);
            fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
        };
        let key = |label: &str| {
            format!(
                "\n[[key]]\nlabel = \"{label}\"\nuse = \"contingency\"\ntoken = \"{TOKEN}\"\nmodes = [9]\noriginator = \
                 \"025EAF0000000009\"\nactivation = \"stored\"\n[key.contingency]\nwrap_algorithm = \
                 \"aes-256-gcm\"\nwrap_with_trusted = \"required\"\n"
            )
        };
        change("keys.toml", &|text| format!("{text}\n[[token]]\nname = \"{TOKEN}\"\n{}{}", key(KEY), key(NEXT)));
        let officer = stage.people.officers[1].id.clone();
        change("persons.toml", &|text| {
            let (before, after) = text.split_once(&format!("id = \"{officer}\"")).unwrap();
            let after = after.replacen("party = \"supplier-b\"", "party = \"dcc\"", 1);
            let (dcc, rest) = after.split_once("\0").unwrap_or((&after, ""));
            let text = format!("{before}id = \"{officer}\"{dcc}{rest}");
            let (before, after) = text.split_once("kind = \"dcc\"\neui64 = [").unwrap();
            // Role 5 and 6: Access Control Broker and transitional CoS, of the lab's fourth generation.
            format!("{before}kind = \"dcc\"\neui64 = [\"025EAF0400000005\", \"025EAF0400000006\", {after}")
        });
        let mut found = BTreeMap::new();
        files(&folder, "", &mut found);
        stage.policy = Policy::parse(&found).unwrap();
        let text = fs::read_to_string(&stage.configuration).unwrap();
        let quoted = |path: &Path| toml::Value::String(path.to_str().unwrap().to_owned()).to_string();
        let described = format!(
            "\n[[token]]\nname = \"{TOKEN}\"\nmodule = {}\nlabel = \"{}\"\nserial = \"{}\"\nenvironment = {{ SOFTHSM2_CONF = {} \
             }}\npin = {{ file = {} }}\n",
            quoted(stage.softhsm.module()),
            token.label,
            token.serial,
            quoted(stage.softhsm.configuration()),
            quoted(&token.pin_file),
        );
        let text = text.replace("reserve_octets = 16777216", "reserve_octets = 1048576");
        fs::write(&stage.configuration, text.replacen("\n[ledger]\n", &format!("{described}\n[ledger]\n"), 1)).unwrap();
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

    /// A file that the DCC's ARO signs.
    async fn submit(&self, client: &Client, kind: FileKind, text: &str) -> Digest {
        let p7s = documents::sign(text.as_bytes(), &self.stage.people.officers[1].first, self.stage.now()).unwrap();
        let ask = wire::FileSubmit {
            kind,
            octets: Some(Base64(text.as_bytes().to_vec())),
            staged: None,
            signature: Some(Base64(p7s)),
        };
        let file: wire::File = client.post(&format!("/v1/incidents/{INCIDENT}/files"), &ask).await.unwrap();
        file.sha256
    }

    /// The root is Compromised: opened, confirmed, assessed, referred to the SMKI PMA.
    async fn refer(&self, client: &Client) {
        let (root, now) = (self.stage.lab.root_oca(), self.stage.now());
        let open = wire::IncidentOpen {
            incident: INCIDENT.parse().unwrap(),
            certificate_pem: certificate_to_pem(root.octets()),
            key: Some(OtherKey::RootOca),
            description: "The Root OCA Private Key is Compromised.".to_owned(),
            notification: Some(Notification {
                by: "ARO of the DCC".into(),
                party: "dcc".parse().unwrap(),
                certainty: Certainty::Suspected,
                class: CompromiseClass::Other,
                at: now,
                channel: "telephone".into(),
                recovery_event: now,
            }),
        };
        client.post::<_, wire::Recorded>("/v1/incidents", &open).await.unwrap();
        let carrier = self.carrier(client);
        carrier.inform().await.unwrap();
        let evidence = "The officer was called back on the number of the register.".into();
        let mechanism = "call-back".parse().unwrap();
        carrier.step(Step::Confirm { mechanism, certainty: Certainty::Actual, evidence }).await.unwrap();
        carrier.inform().await.unwrap();
        let devices: Vec<_> = (0..DEVICES).map(device).collect();
        let targets = carrier.upload(&procedure::targets(&devices, now), devices.len()).await.unwrap();
        carrier.step(Step::Assess { method: Method::Contingency, targets }).await.unwrap();
        let file = format!(
            "notifier,party,key,certificate-sha256,key-id,compromise,time,channel,class\nARO of the \
             DCC,dcc,root-oca,{},,actual,{now},telephone,other\n",
            root.sha256()
        );
        let notification = self.submit(client, FileKind::OtherNotification, &file).await;
        carrier.step(procedure::status(SmiStatus::Recovery, None, now)).await.unwrap();
        let user = smkid::exercise::lab::party_of(&self.stage.lab.before()[0]);
        let thresholds = format!(
            "smsr,user-id,service-request,period-minutes,warning,quarantine\nSMSR-{INCIDENT},{user},all,1440,9000,10000\n"
        );
        self.submit(client, FileKind::Adt, &thresholds).await;
        carrier.step(Step::Refer { notification: Some(notification), new_facts: None }).await.unwrap();
    }

    async fn determination(
        &mut self,
        client: &Client,
        renewal: &smkid::exercise::lab::Renewal,
    ) -> Written<Determination> {
        let status: wire::Status = client.get("/v1/status").await.unwrap();
        let root: &SmkiCertificate = self.stage.lab.root_oca();
        let state = status.keys.iter().find(|key| key.key.as_str() == KEY).unwrap();
        assert_eq!(state.contingency.as_ref().unwrap().root, Some(root.sha256()));
        let listing = fs::read_to_string(self.stage.layout.path("keys/keys.json")).unwrap();
        self.spki = spki_of(&listing, KEY);
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
        let compromised =
            Compromised { certificate_sha256: root.sha256(), spki_sha256: root.spki_sha256(), party: OF_AN_OCA };
        let drafter = Drafter {
            proposer: self.stage.names.proposer.clone(),
            policy: &self.stage.policy,
            incident: INCIDENT.parse::<IncidentId>().unwrap(),
            compromised,
            key: KeyChosen { label: KEY.parse().unwrap(), spki_sha256: Digest::of(&self.spki) },
            also_weighed: None,
        };
        let drafted = drafter.determination(head(client).await, &scope).unwrap();
        let mut form = drafted.form().clone();
        let next: KeyLabel = NEXT.parse().unwrap();
        form.symmetric_key = Some(SymmetricKeyLine { root_sha256: root.sha256(), next });
        let written = Written::write(&form).unwrap();
        let listed = upload(client, &list).await.unwrap().sha256;
        let members = self.stage.people.members[..APPROVALS].iter();
        let sign = |member: &smkid::exercise::people::Member| {
            Base64(documents::sign(written.octets(), &member.first, self.stage.now()).unwrap())
        };
        let ask = wire::Document {
            document: Base64(written.octets().to_vec()),
            signatures: members.map(sign).collect(),
            devices: Some(listed),
            policy_files: None,
            text: None,
        };
        client.post::<_, wire::DocumentRecorded>("/v1/documents", &ask).await.unwrap();
        written
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
        wire::SymmetricRelease { request: request(), determination: self.determination, dry_run: false }
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
    let ask = site.ask(0..DEVICES);
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
    assert_eq!(signed.len(), DEVICES as usize);
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
    for (arguments, unverified) in [(verify.to_vec(), u64::from(DEVICES)), ([&verify[..], &with].concat(), 0)] {
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
    assert_eq!(with_the_key(&made, &key).len(), DEVICES as usize);
    assert_eq!(with_the_key(&out, &key).len(), 1);
}
