//! Shell: the story in which the Root OCA Private Key is compromised: the Contingency key replaces the Root on every Device, and all that hangs on
//! it; then the next generation is in place, and the old one opens nothing any more.
//!
//! The PINs of the keys are stored here, as in an exercise alone: how Key Custodians open a key, the other stories show.

use std::path::{Path, PathBuf};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{
    BYSTANDERS, DeviceId, ExerciseError, Main, Named, Play, Scenario, State, WINDOW_MS, head, listed_ask, named, upload,
};
use crate::api::client::Client;
use crate::api::failure::Exit;
use crate::api::wire;
use crate::domain::determination::document::{Determination, KeyChosen, Method, SymmetricKeyLine, Written};
use crate::domain::gbcs::{SymmetricKey, take_symmetric_key};
use crate::domain::names::{DeterminationId, Digest, IncidentId, RequestId};
use crate::exercise::deliveries::Deliveries;
use crate::exercise::documents::Scope;
use crate::exercise::fleet::Fleet;
use crate::exercise::lab::{self, Renewal};
use crate::exercise::layout::LayoutError;
use crate::exercise::people::APPROVALS;
use crate::exercise::procedure::Order;
use crate::exercise::programs::Daemon;
use crate::exercise::stage::{Stage, certificate_path, read, text};
use crate::exercise::summary::{Summary, ms};
use crate::exercise::tell::{Teller, number};
use crate::exercise::template;

/// A determination by the Contingency route, as it is drafted.
struct Draft<'a> {
    incident: &'a IncidentId,
    esme: &'a Named,
    devices: &'a str,
    line: SymmetricKeyLine,
}

/// Plays it with so many Devices. Whatever is not as it must be stands in the summary.
pub async fn play(stage: &mut Stage, devices: u32, teller: &mut Teller<'_>) -> Result<Summary, ExerciseError> {
    let begun = Instant::now();
    let (recovery, genesis) = stage.ceremony(teller).await?;
    let (renewal, tried) = stage.contingency(&recovery, teller).await?;
    let stage = &*stage;
    let mut summary = Summary {
        version: env!("CARGO_PKG_VERSION"),
        scenario: Scenario::Contingency,
        devices: devices.into(),
        genesis: Some(genesis),
        ..Summary::default()
    };

    for (what, reasons) in tried {
        summary.attempted(teller, what, reasons);
    }
    teller.step("Devices are made");
    let all = u64::from(devices + BYSTANDERS);
    teller.begin("Devices made, each with a key of its own and the Root that carries the wrapped key,", all);
    let fleet = Fleet::make(&stage.lab, &recovery, devices + BYSTANDERS)?;
    summary.times.fleet_ms = ms(teller.end(all));

    let incident: IncidentId = "INC-EXERCISE-ROOT".parse().expect("letters and hyphens are an incident id");
    stage.lab.compromise(&incident, stage.lab.root_oca());
    let mut play = Play {
        stage,
        teller,
        recovery,
        fleet,
        devices,
        incident,
        order: Order::BeforeReferral,
        notification: None,
        summary,
        deliveries: Deliveries::by_clock(stage.clock),
        statements: 0,
    };
    let daemon = play.notify_of_the_root().await?;
    let client = &daemon.client;
    let main = play.determine_contingency(client, &renewal).await?;
    play.release(client, &main).await?;
    play.sign_contingency(client, &main).await?;
    let command = read(&stage.layout.path(&format!("commands/{}.bin", play.device(0))))?;
    play.look_as_a_device(&command).await?;
    play.ask_devices_again()?;
    play.end_the_incident(client, &main).await?;
    play.use_it_a_second_time(client, &renewal).await?;
    play.verify(client, (&main.document, &main.signature), None, genesis).await?;
    play.verify_with_a_command(genesis).await?;

    play.teller.step("The daemon is stopped, and what it leaves behind is searched for the symmetric key");
    let status = daemon.stop().await?;
    play.expect(status.success(), "smkid stopped in order", &format!("smkid ended with {status}"));
    let (key, _) = take_symmetric_key(&command)?;
    play.search(&key)?;
    Ok(play.finish(begun.elapsed()))
}

impl Play<'_, '_> {
    /// The daemon starts; it is notified that the Root's own key is compromised, and the incident comes to the SMKI PMA.
    async fn notify_of_the_root(&mut self) -> Result<Daemon, ExerciseError> {
        self.teller.step("The daemon starts; the Root OCA Private Key is compromised");
        let stage = self.stage;
        let daemon = Daemon::start(&stage.programs, &stage.configuration, &stage.socket, &stage.log).await?;
        let devices: Vec<DeviceId> = (0..self.devices).map(|n| self.device(n)).collect();
        let client = &daemon.client;
        let notification = self.carrier(client, self.incident.clone()).assess(&devices, Method::Contingency).await?;
        self.teller.good(&format!(
            "Incident {}: notified by the DCC's ARO, confirmed by a call back, assessed for {} Devices: by the Contingency route, the only one there is.",
            self.incident,
            number(self.devices.into())
        ));
        self.carrier(client, self.incident.clone()).refer(notification).await?;
        self.must_stand(client, self.incident.clone(), State::Referred).await?;
        Ok(daemon)
    }

    /// What the new Root is determined with.
    fn line(&self, renewal: &Renewal) -> SymmetricKeyLine {
        let [_, next] = self.stage.names.contingency_keys.clone();
        let (root_sha256, next_root_sha256) = (self.stage.lab.root_oca().sha256(), renewal.root_oca().sha256());
        SymmetricKeyLine { root_sha256, next, next_root_sha256 }
    }

    /// The contingency key of the generation that Devices hold, as the ceremony made it.
    fn held_key(&self) -> Result<KeyChosen, ExerciseError> {
        let [label, _] = self.stage.names.contingency_keys.clone();
        let made: serde_json::Value = serde_json::from_slice(&read(&self.stage.layout.path("keys/keys.json"))?)?;
        let all = made["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = all.iter().find(|key| key["label"] == label.as_str());
        let spki = found.and_then(|key| key["spki_sha256"].as_str()).ok_or(ExerciseError::NoContingency)?;
        Ok(KeyChosen { label, spki_sha256: spki.parse().map_err(ExerciseError::Name)? })
    }

    /// A determination by the Contingency route, with the contingency key, or with another.
    async fn draft(
        &self,
        client: &Client,
        draft: Draft<'_>,
        key: KeyChosen,
    ) -> Result<Written<Determination>, ExerciseError> {
        let Draft { incident, esme, devices, line } = draft;
        let scope = Scope {
            decision_number: 1,
            method: Method::Contingency,
            name: &esme.name,
            template: &esme.template,
            devices,
            window: self.window(WINDOW_MS),
            retries_of_unknown: 0,
        };
        let mut drafter = self.drafter(incident)?;
        drafter.key = key;
        Ok(drafter.contingency(head(client).await?, &scope, line)?)
    }

    /// The PMA determines; what is not the right way is refused first.
    async fn determine_contingency(&mut self, client: &Client, renewal: &Renewal) -> Result<Main, ExerciseError> {
        self.teller.step("The SMKI PMA determines");
        let (incident, key, line) = (self.incident.clone(), self.held_key()?, self.line(renewal));
        let esme = named("esme", template::contingency(renewal)?)?;
        let devices = self.fleet.contingency_list(&esme.name, &self.fleet.devices()[..self.devices as usize]);
        let by_recovery = self.esme()?;

        let scope = Scope {
            decision_number: 1,
            method: Method::NewOrganisationCertificates,
            name: &by_recovery.name,
            template: &by_recovery.template,
            devices: &devices,
            window: self.window(WINDOW_MS),
            retries_of_unknown: 0,
        };
        let document = self.drafter(&incident)?.determination(head(client).await?, &scope)?;
        let what = "A determination with the Recovery Private Key about a compromised Root";
        self.must_not_record(client, &document, &devices, what).await?;

        let recovery = self.drafter(&incident)?.key;
        let draft = |esme, line| Draft { incident: &incident, esme, devices: &devices, line };
        let document = self.draft(client, draft(&esme, line.clone()), recovery).await?;
        let what = "A determination for mode 9 with the Recovery Private Key";
        self.must_not_record(client, &document, &devices, what).await?;
        let document = self.draft(client, draft(&by_recovery, line.clone()), key.clone()).await?;
        let what = "A determination for mode 8 with the Contingency Private Key";
        self.must_not_record(client, &document, &devices, what).await?;

        let bare = self.stage.lab.renew(None, &self.recovery)?;
        let without = named("esme", template::contingency(&bare)?)?;
        let document = self.draft(client, draft(&without, line.clone()), key.clone()).await?;
        let what = "A determination with a new Root that carries no wrapped key";
        self.must_not_record(client, &document, &devices, what).await?;
        let other_root = SymmetricKeyLine { root_sha256: renewal.root_oca().sha256(), ..line.clone() };
        let document = self.draft(client, draft(&esme, other_root), key.clone()).await?;
        let what = "A determination that names another Root as the one that Devices hold";
        self.must_not_record(client, &document, &devices, what).await?;
        let same = SymmetricKeyLine { next: key.label.clone(), ..line.clone() };
        let document = self.draft(client, draft(&esme, same), key.clone()).await?;
        let what = "A determination whose next generation is the one that is spent by it";
        self.must_not_record(client, &document, &devices, what).await?;

        let document = self.draft(client, draft(&esme, line), key).await?;
        self.teller.say(
            "Drafted: the Contingency Private Key shall put the new Root on the Devices of the list, and everything below it. It has a line of its own \
             that the Contingency Symmetric Key is released into these commands. What is approved is the command, octet for octet, but for Device, \
             counter and that key, whose place is empty.",
        );
        self.teller.fact("determination", &document.form().id.to_string());
        let listed = upload(client, &devices).await?;
        let (file, p7s) = self.record(client, &document, Some((&devices, listed)), APPROVALS).await?;
        self.must_stand(client, incident.clone(), State::DeterminedToExecute).await?;
        self.carrier(client, incident).prepare().await?;
        Ok(Main { determination: document, signature: p7s, document: file })
    }

    /// The key is opened, and the symmetric key released: not before the one, and signed is nothing before the other.
    async fn release(&mut self, client: &Client, main: &Main) -> Result<(), ExerciseError> {
        self.teller.step("The Contingency Symmetric Key is released");
        let (id, key) = (main.determination.form().id, self.held_key()?.label);
        let path = format!("/v1/keys/{key}/symmetric-release");
        let request = RequestId(lab::random()?);
        let ask = wire::SymmetricRelease { request, determination: id, check_only: false };
        self.must_refuse(client, &path, &ask, "Releasing the symmetric key while the contingency key is locked")
            .await?;
        self.carrier(client, self.incident.clone()).activate(&key).await?;
        self.teller.good(&format!("Key {key} can be used for {} alone.", self.incident));
        let early = listed_ask(id, &[self.device(0)])?;
        self.must_not_sign(client, &early, "Signing before the symmetric key is released").await?;

        let check = wire::SymmetricRelease { request: RequestId(lab::random()?), determination: id, check_only: true };
        let checked: wire::SymmetricReleased = client.post(&path, &check).await?;
        self.expect(
            checked.checked.is_some() && checked.outcome.is_none() && !checked.spent_before,
            "The token unwrapped the key in the Root OCA Certificate that Devices hold: it is its own. Nothing left it.",
            "the check before the release did not say what it found, or released something",
        );
        let released = self.smkictl_release(id).await?;
        self.expect(
            released.held && !released.spent_before,
            "Recorded as spent, and then released: smkid has it in memory, and it is in no entry, document, table or log.",
            "the symmetric key was released and is not held, or had been spent before",
        );
        Ok(())
    }

    /// As an operator does it.
    async fn smkictl_release(&self, id: DeterminationId) -> Result<wire::SymmetricReleased, ExerciseError> {
        let (key, id, stage) = (self.held_key()?.label, id.to_string(), self.stage);
        let arguments = ["key", "release-symmetric", key.as_str(), "--determination", &id, "--output", "json"];
        let said = stage.programs.smkictl(&stage.socket, &arguments).await?;
        Ok(serde_json::from_str(&said)?)
    }

    /// Everything is signed; then the key is locked, and what was signed cannot be had without another release.
    async fn sign_contingency(&mut self, client: &Client, main: &Main) -> Result<(), ExerciseError> {
        self.teller.step("The commands are signed, and each Device replaces its Root and all below it");
        let (id, all) = (main.determination.form().id, u64::from(self.devices));
        let ask = listed_ask(id, &(0..self.devices).map(|n| self.device(n)).collect::<Vec<_>>())?;
        let (signed, took) = self.sign(client, &ask, all).await?;
        self.deliveries.signing += took;
        let recovered = self.deliveries.recovered;
        self.expect(
            signed == all && recovered == all,
            &format!(
                "{} Devices unwrapped the contingency public key, verified their commands, put in the new Root and what is below it, and proved it.",
                number(recovered)
            ),
            &format!("{signed} of {all} commands were signed, {recovered} Devices recovered"),
        );
        let key = self.held_key()?.label;
        client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{key}/lock")).await?;
        self.carrier(client, self.incident.clone()).activate(&key).await?;
        self.must_not_sign(client, &ask, "Asking for the commands again after the key was locked").await?;
        let released = self.smkictl_release(id).await?;
        let (signed, _) = self.sign(client, &ask, all).await?;
        self.expect(
            released.held && released.spent_before && signed == all && self.deliveries.faults.is_empty(),
            "Released again under the same determination, and asked again: the same commands, octet for octet, and no second signature.",
            &format!("{signed} of {all} commands were given out again after another release"),
        );
        for fault in std::mem::take(&mut self.deliveries.faults) {
            self.expect(false, "", &fault);
        }
        Ok(())
    }

    /// Anyone who has the Root that was held, or the one that replaced it, looks at a command.
    async fn look_as_a_device(&mut self, command: &[u8]) -> Result<(), ExerciseError> {
        let stage = self.stage;
        let file = stage.scratch.path().join("command.bin");
        std::fs::write(&file, command).map_err(LayoutError::at(&file))?;
        let file = text(&file);
        let nowhere = stage.scratch.path().join("nowhere");
        let [held, next] = ["held/root-oca", "next/root-oca"].map(|name| text(&certificate_path(&stage.layout, name)));
        stage.programs.smkictl(&nowhere, &["gbcs", "show", &file, "--root", &held]).await?;
        self.teller.good("`smkictl gbcs show --root` verifies a command with the Root that the Device held.");
        let output = stage.programs.try_smkictl(&nowhere, &["gbcs", "show", &file, "--root", &next]).await?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let is_refused = output.status.code() == Some(i32::from(Exit::Unverified.status()));
        self.attempted("The same command for a Device that holds the new Root", is_refused.then(|| vec![said]));
        Ok(())
    }

    /// The new Root is compromised too: the generation that is spent opens nothing more, for anyone.
    async fn use_it_a_second_time(&mut self, client: &Client, renewal: &Renewal) -> Result<(), ExerciseError> {
        self.teller.step("The generation that is spent is used a second time");
        let incident: IncidentId = "INC-EXERCISE-AGAIN".parse().map_err(ExerciseError::Name)?;
        self.stage.lab.compromise(&incident, renewal.root_oca());
        let bystanders = &self.fleet.devices()[self.devices as usize..];
        let ids: Vec<DeviceId> = bystanders.iter().map(crate::exercise::device::Device::id).collect();
        let esme = named("esme", template::contingency(renewal)?)?;
        let devices = self.fleet.contingency_list(&esme.name, bystanders);
        let carrier = self.carrier(client, incident.clone());
        let notification = carrier.assess(&ids, Method::Contingency).await?;
        carrier.refer(notification).await?;
        let draft = Draft { incident: &incident, esme: &esme, devices: &devices, line: self.line(renewal) };
        let document = self.draft(client, draft, self.held_key()?).await?;
        let what = "A determination in another incident with the generation that is spent";
        self.must_not_record(client, &document, &devices, what).await
    }

    /// The ledger has no symmetric key: an auditor says how many signatures that leaves, and verifies them once there is a command.
    async fn verify_with_a_command(&mut self, genesis: Digest) -> Result<(), ExerciseError> {
        let (stage, all) = (self.stage, u64::from(self.devices));
        let [folder, key] = ["ledger", "keys/ledger.vkey"].map(|name| text(&stage.layout.path(name)));
        let (command, genesis) =
            (text(&stage.layout.path(&format!("commands/{}.bin", self.device(0)))), genesis.to_string());
        let without = ["ledger", "verify", &folder, "--key", &key, "--genesis", &genesis, "--output", "json"];
        let with = [&without[..], &["--contingency-command", &command]].concat();
        let nowhere = stage.scratch.path().join("nowhere");
        let mut unverified = Vec::with_capacity(2);
        for arguments in [&without[..], &with] {
            let said: serde_json::Value = serde_json::from_str(&stage.programs.smkictl(&nowhere, arguments).await?)?;
            unverified.push(said["summary"]["contingency_unverified"].as_u64());
        }
        self.expect(
            unverified == [Some(all), Some(0)],
            &format!(
                "With one of the commands, the {} signatures under the Contingency Private Key are verified too.",
                number(all)
            ),
            &format!(
                "expected {all} signatures left to verify without a command and none with one, found {unverified:?}"
            ),
        );
        Ok(())
    }

    /// Neither state, log nor anything that is left behind has the symmetric key; the commands have.
    fn search(&mut self, key: &SymmetricKey) -> Result<(), ExerciseError> {
        let (scratch, layout) = (self.stage.scratch.path(), self.stage.layout.path("."));
        let commands = self.stage.layout.path("commands");
        let everywhere = [scratch.join("state"), layout];
        let mut found = Vec::new();
        for folder in &everywhere {
            search(folder, &forms(key), &mut found)?;
        }
        let (in_commands, elsewhere): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|path| path.starts_with(&commands));
        self.expect(
            elsewhere.is_empty(),
            "State, database, log and export have no octet sequence of the symmetric key, raw, in hexadecimal or in base64.",
            &format!("the symmetric key lies in {elsewhere:?}"),
        );
        self.expect(
            !in_commands.is_empty(),
            &format!("The same search finds it in each of {} commands.", number(in_commands.len() as u64)),
            "the search does not find the symmetric key in the commands, where it is: it proves nothing",
        );
        Ok(())
    }
}

/// The key as it could lie somewhere.
fn forms(key: &SymmetricKey) -> Vec<Vec<u8>> {
    let octets = key.octets();
    let mut forms = vec![octets.to_vec(), hex::encode(octets).into_bytes(), hex::encode_upper(octets).into_bytes()];
    // Base64 of octets that begin at any of three places of a group; the ends mix with what stands beside and are left out.
    for skip in 0..3 {
        let whole = &octets[skip..];
        forms.push(STANDARD.encode(&whole[..whole.len() / 3 * 3]).into_bytes());
    }
    forms
}

/// The files below a folder that have one of these sequences inside.
fn search(folder: &Path, forms: &[Vec<u8>], found: &mut Vec<PathBuf>) -> Result<(), LayoutError> {
    for entry in std::fs::read_dir(folder).map_err(LayoutError::at(folder))? {
        let path = entry.map_err(LayoutError::at(folder))?.path();
        if path.is_dir() {
            search(&path, forms, found)?;
        } else if path.is_file() {
            let octets = std::fs::read(&path).map_err(LayoutError::at(&path))?;
            if forms.iter().any(|form| octets.windows(form.len()).any(|window| window == form)) {
                found.push(path);
            }
        }
    }
    Ok(())
}
