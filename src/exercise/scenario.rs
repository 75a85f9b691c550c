//! Shell: the story itself, from the daemon's start to the last check of its ledger. Read [`play`] first.

pub mod contingency;
mod custodians;
mod gates;
mod not_to_execute;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::Body;
use rustix::process::{Pid, Signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::gates::Point;
use super::clock::Clock;
use super::deliveries::Deliveries;
use super::documents::{self, Drafter, Scope};
use super::fleet::Fleet;
use super::layout::LayoutError;
use super::oracle::{self, Check};
use super::people::APPROVALS;
use super::procedure::{self, Carrier, Order};
use super::programs::{Daemon, ProgramError, is_vault, refusal, signal};
use super::stage::{Stage, read, text};
use super::summary::{Attempt, Summary, ms};
use super::tell::{Teller, number, seconds};
use super::template::{template, with_certificate_swapped, with_floor};
use super::{ExerciseError, lab};
use crate::api::client::{Client, ClientError};
use crate::api::wire::{self, Base64, DeviceAsk, Devices, ItemOutcome, RecoverySettle, RecoverySign, SettleAction};
use crate::domain::certificates::SmkiCertificate;
use crate::domain::determination::document::{
    Determination, Form, KeyChosen, LedgerHead, Method, SymmetricKeyLine, Written,
};
use crate::domain::determination::words::Words;
use crate::domain::gbcs::{SeqNumber, Template};
use crate::domain::incident::State;
use crate::domain::ledger::steps::{SmiStatus, Step};
use crate::domain::names::{DeterminationId, DeviceId, Digest, IncidentId, RequestId, TemplateName};
use crate::domain::time::Window;

/// Devices beside those of the determination: they are what is tried with, so that the others have one command each.
const BYSTANDERS: u32 = 4;
/// How often an unknown may be signed again, by the determination.
const RETRIES: u32 = 2;
/// How long the main determination is in force.
const WINDOW_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// How long the one is that expires: long enough to be signed and recorded, and if it was not, longer.
const SHORT_WINDOWS_MS: [i64; 2] = [3_000, 30_000];
/// The first wave is this part of the fleet.
const FIRST_WAVE_PART: u32 = 4;
/// How long recording the first intents may take before something is wrong.
const INTENTS_MAX: Duration = Duration::from_secs(60);
/// How often it is asked for.
const POLL: Duration = Duration::from_millis(5);
/// The exit status of a verification that failed.
const VERIFICATION_FAILED: i32 = 5;

/// Which story is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// The base procedure: SMI Status and thresholds file precede the referral.
    #[default]
    Base,
    /// The PMA determines not to execute: nothing is signed, and Devices stay stranded.
    NotToExecute,
    /// The same as the base, in the window of the direction of 18 July 2017: the clock is set, and SMI Status and thresholds file
    /// follow the determination. In another incident the status is set early, and Devices stay stranded.
    #[serde(rename = "variation-2017")]
    Variation2017,
    /// The Root OCA Private Key is compromised: the Contingency key replaces the Root and all below it.
    Contingency,
}

/// When the story of the variation begins: in the midst of its window.
const WITHIN_THE_VARIATION: &str = "2017-08-01T09:00:00Z";

impl Scenario {
    const fn order(self) -> Order {
        match self {
            Self::Base | Self::NotToExecute | Self::Contingency => Order::BeforeReferral,
            Self::Variation2017 => Order::AfterDetermination,
        }
    }

    /// What the time is in it.
    pub(super) fn clock(self) -> Clock {
        match self {
            Self::Base | Self::NotToExecute | Self::Contingency => Clock::default(),
            Self::Variation2017 => Clock::set_to(WITHIN_THE_VARIATION.parse().expect("it is RFC 3339")),
        }
    }
}

/// What the story is played with.
struct Play<'a, 't> {
    stage: &'a Stage,
    teller: &'a mut Teller<'t>,
    recovery: SmkiCertificate,
    fleet: Fleet,
    /// The Devices of the determination: all but the bystanders.
    devices: u32,
    incident: IncidentId,
    order: Order,
    notification: Option<Digest>,
    summary: Summary,
    deliveries: Deliveries,
    /// Statements that Key Custodians have signed so far.
    statements: u32,
}

/// Plays it with so many Devices. Whatever is not as it must be stands in the summary.
pub async fn play(
    stage: &Stage,
    devices: u32,
    scenario: Scenario,
    teller: &mut Teller<'_>,
) -> Result<Summary, ExerciseError> {
    let begun = Instant::now();
    let (recovery, genesis) = stage.ceremony(teller).await?;
    let mut summary = Summary {
        version: env!("CARGO_PKG_VERSION"),
        scenario,
        devices: devices.into(),
        genesis: Some(genesis),
        ..Summary::default()
    };

    teller.step("Devices are made");
    teller.begin("Devices made, each with a key and certificate of its own,", u64::from(devices + BYSTANDERS));
    let fleet = Fleet::make(&stage.lab, &recovery, devices + BYSTANDERS)?;
    summary.times.fleet_ms = ms(teller.end(u64::from(devices + BYSTANDERS)));

    let incident = "INC-EXERCISE-1".parse().expect("letters, digits and hyphens are an incident id");
    let deliveries = Deliveries::by_clock(stage.clock);
    let (order, notification) = (scenario.order(), None);
    let mut play = Play {
        stage,
        teller,
        recovery,
        fleet,
        devices,
        incident,
        order,
        notification,
        summary,
        deliveries,
        statements: 0,
    };

    if scenario == Scenario::NotToExecute {
        return play.not_to_execute(begun, genesis).await;
    }
    let daemon = play.open_the_incident().await?;
    play.refer_the_incident(&daemon.client).await?;
    let main = play.determine(&daemon.client).await?;
    let before = daemon.workers();
    play.open_first(&daemon.client, &main.document).await?;
    play.try_what_was_not_approved(&daemon.client, &main).await?;
    let daemon = play.sign_for_all(daemon, &before, &main).await?;
    play.ask_devices_again()?;
    play.end_the_incident(&daemon.client, &main).await?;
    play.stop_by_the_members(&daemon.client).await?;
    play.let_a_window_end(&daemon.client).await?;
    if play.order == Order::AfterDetermination {
        play.set_early_and_leave_stranded(&daemon.client).await?;
    }
    let command = play.device(0);
    play.verify(&daemon.client, (&main.document, &main.signature), Some(command), genesis).await?;

    play.teller.step("The daemon is stopped");
    let status = daemon.stop().await?;
    play.expect(status.success(), "smkid stopped in order", &format!("smkid ended with {status}"));
    Ok(play.finish(begun.elapsed()))
}

/// A template under its name.
struct Named {
    name: TemplateName,
    template: Template,
}

/// The determination that everything is signed under.
struct Main {
    determination: Written<Determination>,
    signature: PathBuf,
    document: PathBuf,
}

impl Play<'_, '_> {
    /// Says that something is as it must be, or notes that it is not.
    fn expect(&mut self, holds: bool, good: &str, bad: &str) {
        if holds {
            self.teller.good(good);
        } else {
            self.teller.bad(bad);
            self.summary.faults.push(bad.to_owned());
        }
    }

    /// Notes an attempt that had to be refused.
    fn attempted(&mut self, what: &'static str, reasons: Option<Vec<String>>) {
        self.summary.attempted(self.teller, what, reasons);
    }

    /// Calls the daemon for something that it must refuse.
    async fn must_refuse<T: Serialize>(
        &mut self,
        client: &Client,
        path: &str,
        ask: &T,
        what: &'static str,
    ) -> Result<(), ExerciseError> {
        let answer = client.post::<T, serde_json::Value>(path, ask).await;
        let reasons = refusal(answer)?.err();
        self.attempted(what, reasons);
        Ok(())
    }

    /// Enough members sign a determination, and it is refused all the same.
    async fn must_not_record(
        &mut self,
        client: &Client,
        document: &Written<Determination>,
        devices: &str,
        what: &'static str,
    ) -> Result<(), ExerciseError> {
        let mut signatures = Vec::with_capacity(APPROVALS);
        for member in &self.stage.people.members[..APPROVALS] {
            signatures.push(documents::sign(document.octets(), &member.first, self.stage.now())?);
        }
        let listed = upload(client, devices).await?;
        self.must_refuse(client, "/v1/documents", &delivery(document, &signatures, Some(listed)), what).await
    }

    /// Asks for one command that must be refused, as a whole or by itself.
    async fn must_not_sign(
        &mut self,
        client: &Client,
        ask: &RecoverySign,
        what: &'static str,
    ) -> Result<(), ExerciseError> {
        let reasons = match refusal(client.post_for_lines("/v1/recovery/sign", ask).await)? {
            Err(reasons) => Some(reasons),
            Ok(mut lines) => {
                let mut reasons = None;
                while let Some(item) = lines.next().await? {
                    let text =
                        |reason: &crate::domain::ledger::entry::Reason| format!("{} ({})", reason.text, reason.rule);
                    let is_refused = item.outcome == ItemOutcome::Refused && item.command.is_none();
                    reasons = is_refused.then(|| item.reasons.iter().map(text).collect());
                }
                reasons
            }
        };
        self.attempted(what, reasons);
        Ok(())
    }

    fn drafter(&self, incident: &IncidentId) -> Result<Drafter<'_>, ExerciseError> {
        let spki = self.recovery.spki_sha256();
        Ok(Drafter {
            proposer: self.stage.names.proposer.clone(),
            policy: &self.stage.policy,
            incident: incident.clone(),
            compromised: self.stage.lab.compromised(incident)?,
            key: KeyChosen { label: self.stage.names.recovery_key.clone(), spki_sha256: spki },
            also_weighed: self.order.optional_factor(),
        })
    }

    /// From now on, for so long.
    fn window(&self, ms: i64) -> Window {
        let from = self.stage.now();
        Window { from, until: from.plus_ms(ms) }
    }

    fn device(&self, n: u32) -> DeviceId {
        self.fleet.devices()[n as usize].id()
    }

    fn bystander(&self, n: u32) -> DeviceId {
        self.device(self.devices + n)
    }

    /// The daemon starts, an incident is opened, and nothing can be signed yet.
    async fn open_the_incident(&mut self) -> Result<Daemon, ExerciseError> {
        self.teller.step("The daemon starts, an incident is opened");
        let stage = self.stage;
        let daemon = Daemon::start(&stage.programs, &stage.configuration, &stage.socket, &stage.log).await?;
        let status: wire::Status = daemon.client.get("/v1/status").await?;
        let text = format!("smkid runs as process {}; its ledger has {} entries.", daemon.pid(), status.ledger.size);
        self.teller.good(&text);
        let devices: Vec<DeviceId> = (0..self.devices).map(|n| self.device(n)).collect();
        let carrier = self.carrier(&daemon.client, self.incident.clone());
        let notification = carrier.assess(&devices, Method::NewOrganisationCertificates).await?;
        self.teller.good(&format!(
            "Incident {}: notified by the Supplier's ARO, confirmed by a call back, assessed for {} Devices.",
            self.incident,
            number(self.devices.into())
        ));
        self.notification = Some(notification);
        let incident = self.incident.clone();
        self.check_gates(&daemon.client, &incident, Point::Assessed).await?;
        let ask = sign_ask(DeterminationId(lab::random()?), Devices::All)?;
        self.must_not_sign(&daemon.client, &ask, "Signing before the PMA has determined anything").await?;
        Ok(daemon)
    }

    /// The DCC refers the incident; what must precede is missed first.
    async fn refer_the_incident(&mut self, client: &Client) -> Result<(), ExerciseError> {
        self.teller.step("The incident is referred to the SMKI PMA");
        let notification = self.notification.ok_or(ExerciseError::NoProcedure)?;
        let steps = format!("/v1/incidents/{}/steps", self.incident);
        let ask = |step| wire::StepAsk { step };
        if self.order == Order::BeforeReferral {
            let refer = ask(Step::Refer { notification: Some(notification), new_facts: None });
            self.must_refuse(client, &steps, &refer, "Referring before SMI Status and thresholds file").await?;
        } else {
            let early = ask(procedure::status(SmiStatus::Recovery, None, self.stage.now()));
            let what = "Setting 'recovery' early, without the reason for it";
            self.must_refuse(client, &steps, &early, what).await?;
        }
        self.carrier(client, self.incident.clone()).refer(notification).await?;
        self.tell_order();
        self.must_stand(client, self.incident.clone(), State::Referred).await
    }

    /// The PMA determines: drafted, refused twice, recorded.
    async fn determine(&mut self, client: &Client) -> Result<Main, ExerciseError> {
        self.teller.step("The SMKI PMA determines");
        let esme = self.esme()?;
        let devices = self.fleet.device_list(&esme.name, &self.fleet.devices()[..self.devices as usize]);
        self.refuse_contingency(client, &esme, &devices).await?;
        let scope = Scope {
            decision_number: 1,
            method: Method::NewOrganisationCertificates,
            name: &esme.name,
            template: &esme.template,
            devices: &devices,
            window: self.window(WINDOW_MS),
            retries_of_unknown: RETRIES,
        };
        let drafter = self.drafter(&self.incident)?;
        let document = drafter.determination(head(client).await?, &scope)?;
        let listed = upload(client, &devices).await?;
        self.teller.say(
            "Drafted: the Recovery Private Key shall put new Organisation Certificates on the Devices of the list, for a week. \
             What is approved is the command itself, octet for octet, but for Device and counter.",
        );
        self.teller.fact("determination", &document.form().id.to_string());
        self.teller.fact("SHA-256", &document.digest().to_string());
        for (n, line) in Words(document.digest()).to_string().lines().enumerate() {
            self.teller.fact(if n == 0 { "read aloud" } else { "" }, line);
        }
        self.teller.fact("Devices", &format!("{}, SHA-256 {listed}", number(self.devices.into())));

        if let Some(factor) = self.order.optional_factor() {
            self.teller.say(&format!(
                "Weighed besides what the Guidance demands: {factor}, which clause (b) of the direction offers."
            ));
        }
        self.teller.say(if self.stage.clock.is_set() {
            "Each member reads it, and signs with a key of their own: here and not by `smkictl determination sign`, which goes by \
             this machine's clock."
        } else {
            "Each member reads it, and signs by `smkictl determination sign` with a key of their own."
        });
        let (stage, octets) = (self.stage, document.octets());
        let (one, two) = (&stage.people.members[0], &stage.people.members[1]);
        let first = stage.sign(octets, &one.first).await?;
        let again = stage.sign(octets, one.second.as_ref().ok_or(ExerciseError::NoSecondKey)?).await?;
        let second = stage.sign(octets, &two.first).await?;
        let few = delivery(&document, [&first, &second], Some(listed));
        self.must_refuse(client, "/v1/documents", &few, "A determination with one approver too few").await?;
        upload(client, &devices).await?;
        let twice = delivery(&document, [&first, &again, &second], Some(listed));
        self.must_refuse(client, "/v1/documents", &twice, "A determination that one person signed with two keys")
            .await?;
        upload(client, &devices).await?;
        let (file, p7s) = self.record(client, &document, Some((&devices, listed)), APPROVALS).await?;
        self.must_stand(client, self.incident.clone(), State::DeterminedToExecute).await?;
        let incident = self.incident.clone();
        self.check_gates(client, &incident, Point::ToExecute).await?;
        if self.order == Order::AfterDetermination {
            let steps = format!("/v1/incidents/{}/steps", self.incident);
            let prepare = wire::StepAsk { step: Step::Prepare { note: "too early".into() } };
            let what = "Preparing before SMI Status and thresholds file, which are due now";
            self.must_refuse(client, &steps, &prepare, what).await?;
        }
        self.carrier(client, self.incident.clone()).prepare().await?;
        self.must_stand(client, self.incident.clone(), State::Prepared).await?;
        Ok(Main { determination: document, signature: p7s, document: file })
    }

    /// A determination to execute with the Contingency Private Key is refused in an incident about a Supplier's key, and opens nothing.
    async fn refuse_contingency(&mut self, client: &Client, esme: &Named, devices: &str) -> Result<(), ExerciseError> {
        let scope = Scope {
            decision_number: 1,
            method: Method::Contingency,
            name: &esme.name,
            template: &esme.template,
            devices,
            window: self.window(WINDOW_MS),
            retries_of_unknown: 0,
        };
        let mut drafter = self.drafter(&self.incident)?;
        let [held, next] = self.stage.names.contingency_keys.clone();
        drafter.key.label = held;
        let root_sha256 = self.stage.lab.root_oca().sha256();
        let line = SymmetricKeyLine { root_sha256, next, next_root_sha256: root_sha256 };
        let document = drafter.contingency(head(client).await?, &scope, line)?;
        let what = "A determination to execute with the Contingency Private Key";
        self.must_not_record(client, &document, devices, what).await?;
        let incident = self.incident.clone();
        self.check_gates(client, &incident, Point::Referred).await
    }

    /// Who carries an incident through the procedure.
    fn carrier<'c>(&'c self, client: &'c Client, incident: IncidentId) -> Carrier<'c> {
        Carrier {
            lab: &self.stage.lab,
            people: &self.stage.people,
            layout: Some(&self.stage.layout),
            client,
            clock: self.stage.clock,
            incident,
            order: self.order,
        }
    }

    /// Says which order of the procedure is played.
    fn tell_order(&mut self) {
        self.teller.say(match self.order {
            Order::BeforeReferral => {
                "The base procedure: SMI Status 'recovery' was set and the thresholds file submitted before the referral."
            }
            Order::AfterDetermination => {
                "As the direction of 18 July 2017 varies the procedure: SMI Status and thresholds file wait for the determination."
            }
        });
    }

    async fn must_stand(&mut self, client: &Client, incident: IncidentId, state: State) -> Result<(), ExerciseError> {
        let found = self.carrier(client, incident.clone()).progress().await?.state;
        let (good, bad) = (
            format!("Incident {incident} is {state}."),
            format!("expected incident {incident} to be {state}, found {found}"),
        );
        self.expect(found == state, &good, &bad);
        Ok(())
    }

    /// Has so many members sign a document, records it, and keeps it. Answers where it and the first signature lie.
    async fn record<F: Form>(
        &mut self,
        client: &Client,
        document: &Written<F>,
        devices: Option<(&str, Digest)>,
        signers: usize,
    ) -> Result<(PathBuf, PathBuf), ExerciseError> {
        let mut signatures = Vec::new();
        for member in &self.stage.people.members[..signers] {
            signatures.push((&member.id, self.stage.sign(document.octets(), &member.first).await?));
        }
        let ask = delivery(document, signatures.iter().map(|(_, p7s)| p7s), devices.map(|(_, sha256)| sha256));
        let recorded: wire::DocumentRecorded = client.post("/v1/documents", &ask).await?;
        let id = recorded.determination.map(|id| id.to_string()).unwrap_or_default();
        let is_determination = recorded.kind == "determination-recorded";
        // In `determination/` lie determinations alone, by their ids; whatever is about one lies beside.
        let stem =
            if is_determination { format!("determination/{id}") } else { format!("documents/{id}-{}", recorded.kind) };
        let layout = &self.stage.layout;
        let file = layout.write(&format!("{stem}.json"), document.octets())?;
        let mut first = None;
        for (member, p7s) in &signatures {
            let path = layout.write(&format!("{stem}.{member}.p7s"), p7s)?;
            first.get_or_insert(path);
        }
        if let Some((devices, _)) = devices {
            layout.write(&format!("{stem}.devices.txt"), devices)?;
        }
        if is_determination {
            self.summary.determinations.extend(recorded.determination);
        }
        let signers: Vec<&str> = recorded.signers.iter().map(crate::domain::names::PersonId::as_str).collect();
        self.teller.good(&format!(
            "Recorded: {}, entry {}, signed by {}.",
            recorded.kind,
            recorded.entry,
            signers.join(", ")
        ));
        Ok((file, first.ok_or(ExerciseError::NoSummary)?))
    }

    fn esme(&self) -> Result<Named, ExerciseError> {
        named("esme", template(&self.stage.lab, &self.recovery, self.stage.lab.after())?)
    }

    /// What the members did not approve is not signed.
    async fn try_what_was_not_approved(&mut self, client: &Client, main: &Main) -> Result<(), ExerciseError> {
        self.teller.step("What the members did not approve is not signed");
        let id = main.determination.form().id;
        let out_of_scope = listed_ask(id, &[self.bystander(0)])?;
        self.must_not_sign(client, &out_of_scope, "A Device that is not on the list").await?;

        let (lab, device) = (&self.stage.lab, self.device(0));
        let next = self.fleet.devices()[0].recovery_counter() + 1;
        let swapped = with_certificate_swapped(lab, &self.recovery, lab.after(), 0, &lab.broker()[0])?;
        let floor = SeqNumber::new(1_000).expect("a thousand is a counter");
        let raised = with_floor(lab, &self.recovery, lab.after(), floor)?;
        let approved = self.esme()?.template;
        for (template, counter, file, what) in [
            (&swapped, next, "certificate-swapped", "A command made elsewhere, with another Supplier's certificate"),
            (&raised, next, "floor-changed", "A command made elsewhere, with another floor for counters"),
            (
                &approved,
                next - 1,
                "counter-replayed",
                "A command made elsewhere, with a counter that the Device has seen",
            ),
        ] {
            let pre_command = self.fill(template, device, counter)?;
            self.stage.layout.write(&format!("pre-commands/{file}.bin"), &pre_command)?;
            self.must_not_sign(client, &pre_command_ask(id, pre_command)?, what).await?;
        }
        Ok(())
    }

    fn fill(&self, template: &Template, device: DeviceId, counter: u64) -> Result<Vec<u8>, ExerciseError> {
        let mut command = Vec::new();
        template.fill(self.stage.names.recovery_party, device, counter, &mut command)?;
        Ok(command)
    }

    /// Everything is signed in two waves: the first in peace, the second with the token hanging and the daemon killed on the
    /// way. `workers` are those before the key was activated.
    async fn sign_for_all(&mut self, daemon: Daemon, workers: &[Pid], main: &Main) -> Result<Daemon, ExerciseError> {
        let id = main.determination.form().id;
        let first_wave = self.devices / FIRST_WAVE_PART;
        let [first, second] = [0..first_wave, first_wave..self.devices]
            .map(|wave| listed_ask(id, &wave.map(|n| self.device(n)).collect::<Vec<_>>()));
        let (first, second) = ((first_wave > 0).then_some(first?), second?);

        if let Some(first) = &first {
            self.teller.step("A first wave of Devices is recovered");
            let (signed, took) = self.sign(&daemon.client, first, first_wave.into()).await?;
            self.deliveries.signing += took;
            let recovered = self.deliveries.recovered;
            self.expect(
                signed == u64::from(first_wave) && recovered == signed,
                &proved(recovered),
                &format!("{signed} of {first_wave} commands were signed, {recovered} Devices recovered"),
            );
        }
        self.teller.step("The rest is signed, and the daemon is killed in the middle");
        let vaults = daemon.vaults();
        let intents = self.hang_and_kill(daemon, workers, &second).await?;
        let stage = self.stage;
        let daemon = Daemon::start(&stage.programs, &stage.configuration, &stage.socket, &stage.log).await?;
        self.settle(&daemon.client, main, intents, &vaults).await?;

        let rest = u64::from(self.devices - first_wave);
        let (signed, took) = self.sign(&daemon.client, &second, rest).await?;
        self.deliveries.signing += took;
        let done = signed + self.deliveries.held_already;
        self.expect(
            done == rest,
            "The request was made again under its id: it got the rest, and nothing was signed twice.",
            &format!("{done} of {rest} Devices have their command"),
        );
        if let Some(first) = &first {
            let (signed, _) = self.sign(&daemon.client, first, first_wave.into()).await?;
            self.expect(
                signed == u64::from(first_wave) && self.deliveries.faults.is_empty(),
                "The first wave's request was made again too: the same commands, octet for octet, and no second signature.",
                &format!("{signed} of {first_wave} commands of the first wave were given out again"),
            );
        }
        let (all, recovered) = (u64::from(self.devices), self.deliveries.recovered);
        let facts: wire::Determination = daemon.client.get(&format!("/v1/determinations/{id}")).await?;
        let (intents, expected) = (facts.done.intents, all + self.summary.settled);
        self.expect(
            intents == expected,
            &format!(
                "The ledger has {} intents: one for each Device, and one for each that was settled.",
                number(intents)
            ),
            &format!("expected {expected} intents in the ledger, found {intents}"),
        );
        self.expect(
            recovered == all,
            &proved(recovered),
            &format!("{recovered} of {all} Devices proved that they were recovered"),
        );
        let faults = std::mem::take(&mut self.deliveries.faults);
        for fault in faults {
            self.expect(false, "", &fault);
        }
        Ok(daemon)
    }

    /// Asks for commands, and brings them to their Devices. Answers how many were signed, and how long that took.
    async fn sign(&mut self, client: &Client, ask: &RecoverySign, of: u64) -> Result<(u64, Duration), ExerciseError> {
        self.teller.begin("commands asked for and answered", of);
        let lines = client.post_for_lines("/v1/recovery/sign", ask).await?;
        let (summary, took) = self.deliveries.take(lines, &mut self.fleet, &self.stage.layout, self.teller).await?;
        self.teller.end_after(of, took);
        Ok((summary.signed, took))
    }

    /// The token hangs and the daemon is killed, in the middle of a batch. Answers how many intents had been recorded.
    ///
    /// The token's worker is stopped, so that intents are recorded, nothing comes back, and the result stream stays held back:
    /// the kill falls into the middle of the batch every time, whatever the size of the fleet.
    async fn hang_and_kill(
        &mut self,
        daemon: Daemon,
        workers: &[Pid],
        ask: &RecoverySign,
    ) -> Result<u64, ExerciseError> {
        let is_new = |worker: &Pid| !workers.contains(worker) && !is_vault(*worker);
        let hanging: Vec<Pid> = daemon.workers().into_iter().filter(is_new).collect();
        for worker in &hanging {
            signal(*worker, Signal::STOP)?;
        }
        self.expect(!hanging.is_empty(), "The token hangs.", "the Recovery token has no worker to be stopped");
        let (client, sent) = (daemon.client.clone(), ask.clone());
        let held = tokio::spawn(async move { client.post_for_lines("/v1/recovery/sign", &sent).await });
        let intents = wait_for_intents(&daemon.client, ask.request).await?;
        daemon.kill().await?;
        held.abort();
        let text = format!("SIGKILL, with {} intents recorded and no outcome of any.", number(intents));
        self.expect(intents > 0, &text, "the daemon had recorded no intent before it was killed");
        Ok(intents)
    }

    /// After the kill: what is unknown is signed again, as the same octets.
    async fn settle(
        &mut self,
        client: &Client,
        main: &Main,
        intents: u64,
        vaults: &[Pid],
    ) -> Result<(), ExerciseError> {
        let id = main.determination.form().id;
        let unknowns: wire::Unknowns = client.get(&format!("/v1/recovery/unknowns?determination={id}")).await?;
        self.summary.unknown = unknowns.unknowns.len() as u64;
        let (unknown, text) = (self.summary.unknown, number(self.summary.unknown));
        self.expect(
            unknown == intents,
            &format!("Started again: it says of {text} commands that nobody knows whether they were signed."),
            &format!("after the kill, {intents} intents had no outcome and {unknown} are shown as unknown"),
        );
        self.teller.say(
            "The kill has locked the key. The Key Custodians present anew, each with a new statement; then the unknowns are settled: the same \
             octets, the same counters.",
        );
        self.must_present_anew(client, vaults).await?;
        let incident = self.incident.clone();
        self.open_key(client, &incident, &main.document, &[0, 1]).await?;

        let settle = RecoverySettle {
            request: RequestId(lab::random()?),
            determination: id,
            devices: Devices::All,
            action: SettleAction::Retry,
            reason: "The daemon was killed in the exercise".to_owned(),
        };
        self.teller.begin("unknown commands signed again", unknown);
        let lines = client.post_for_lines("/v1/recovery/settle", &settle).await?;
        let (settled, took) = self.deliveries.take(lines, &mut self.fleet, &self.stage.layout, self.teller).await?;
        self.teller.end_after(settled.signed, took);
        self.deliveries.signing += took;
        self.summary.settled = settled.signed;
        self.expect(
            settled.signed == unknown,
            "All of them are settled.",
            &format!("{} of {unknown} unknowns were signed again", settled.signed),
        );
        Ok(())
    }

    /// A Device takes nothing twice, and nothing that is not for it.
    fn ask_devices_again(&mut self) -> Result<(), ExerciseError> {
        self.teller.step("A Device looks for itself");
        let device = self.device(0);
        let command = read(&self.stage.layout.path(&format!("commands/{device}.bin")))?;
        let stranger = self.bystander(0);
        for (to, command, what) in [
            (device, &command, "A Device that gets its command a second time"),
            (stranger, &command, "A Device that gets another Device's command"),
        ] {
            let reasons =
                self.fleet.deliver(to, command, self.stage.now()).answer.err().map(|refusal| vec![refusal.to_string()]);
            self.attempted(what, reasons);
        }
        Ok(())
    }

    /// The Devices' Responses are taken in, the SMI Status follows them, and the incident comes to its end.
    async fn end_the_incident(&mut self, client: &Client, main: &Main) -> Result<(), ExerciseError> {
        self.teller.step("The Devices' Responses close the loop, and the incident is closed");
        let scratch = self.stage.scratch.path();
        let [responses, certificates] = ["responses.txt", "devices.pem"].map(|name| scratch.join(name));
        std::fs::write(&responses, std::mem::take(&mut self.deliveries.responses))
            .map_err(LayoutError::at(&responses))?;
        std::fs::write(&certificates, std::mem::take(&mut self.deliveries.certificates))
            .map_err(LayoutError::at(&certificates))?;
        let (stage, id) = (self.stage, main.determination.form().id.to_string());
        let (responses, certificates) = (text(&responses), text(&certificates));
        let arguments = ["recovery", "responses", &responses, "--certificates", &certificates, "--determination", &id];
        stage.programs.smkictl(&stage.socket, &arguments).await?;
        let carrier = self.carrier(client, self.incident.clone());
        let proven = carrier.progress().await?.devices.succeeded;
        let all = u64::from(self.devices);
        self.expect(
            proven == all,
            &format!(
                "The ledger knows of {} Devices, by their own signatures, that they were recovered.",
                number(proven)
            ),
            &format!("{proven} of {all} Devices are proven recovered in the ledger"),
        );
        let devices: Vec<DeviceId> = (0..self.devices).map(|n| self.device(n)).collect();
        let carrier = self.carrier(client, self.incident.clone());
        let method = main.determination.form().method.unwrap_or(Method::NewOrganisationCertificates);
        carrier.end(&devices, method).await?;
        self.must_stand(client, self.incident.clone(), State::PostRecovery).await?;
        let carrier = self.carrier(client, self.incident.clone());
        let entry = carrier.close("Every Device is recovered, every duty to inform is met.").await?;
        self.teller.good(&format!("Incident {} is closed, entry {entry}.", self.incident));
        Ok(())
    }

    /// A second determination: a command made elsewhere is signed under it, until one member suspends it and all withdraw it.
    async fn stop_by_the_members(&mut self, client: &Client) -> Result<(), ExerciseError> {
        self.teller.step("A command made elsewhere is signed; one member suspends, the quorum withdraws");
        let (document, esme) = self.determine_for_bystanders(client, "INC-EXERCISE-2", WINDOW_MS).await?;
        let id = document.form().id;

        let device = self.bystander(0);
        let next = self.fleet.device(device).map_or(0, |device| device.recovery_counter() + 1);
        let pre_command = self.fill(&esme.template, device, next)?;
        self.stage.layout.write("pre-commands/made-elsewhere.bin", &pre_command)?;
        let mut lines = client.post_for_lines("/v1/recovery/sign", &pre_command_ask(id, pre_command)?).await?;
        let mut recovered = false;
        while let Some(item) = lines.next().await? {
            if let Some(command) = item.command {
                self.stage.layout.write("pre-commands/made-elsewhere-signed.bin", &command.0)?;
                let mut changed = command.0.clone();
                changed[200] ^= 1;
                let refusal = self.fleet.deliver(item.device, &changed, self.stage.now()).answer.err();
                let reasons = refusal.map(|refusal| vec![refusal.to_string()]);
                self.attempted("A Device that gets its command with one bit changed", reasons);
                recovered = self.fleet.deliver(item.device, &command.0, self.stage.now()).is_recovered();
            }
        }
        self.expect(
            recovered,
            "By Method 2, a command made elsewhere put the Access Control Broker's certificates on a Device.",
            "the command made elsewhere was not signed, or its Device was not recovered",
        );

        let member = &self.stage.people.members[1];
        let drafter = self.drafter(&self.incident)?;
        let suspension = drafter.suspension(&document, &member.id, head(client).await?)?;
        let p7s = self.stage.sign(suspension.octets(), &member.first).await?;
        let recorded: wire::DocumentRecorded =
            client.post("/v1/documents", &delivery(&suspension, [&p7s], None)).await?;
        self.teller.good(&format!("Recorded: {}, entry {}, signed by {}.", recorded.kind, recorded.entry, member.id));
        let ask = listed_ask(id, &[self.bystander(1)])?;
        self.must_not_sign(client, &ask, "Signing under a determination that is suspended").await?;

        let drafter = self.drafter(&self.incident)?;
        let withdrawal = drafter.withdrawal(&document, head(client).await?)?;
        self.record(client, &withdrawal, None, APPROVALS).await?;
        let ask = listed_ask(id, &[self.bystander(1)])?;
        self.must_not_sign(client, &ask, "Signing under a determination that is withdrawn").await
    }

    /// A third determination, whose window ends before anything is asked.
    async fn let_a_window_end(&mut self, client: &Client) -> Result<(), ExerciseError> {
        self.teller.step("A window ends");
        let [short, longer] = SHORT_WINDOWS_MS;
        let document = match self.determine_for_bystanders(client, "INC-EXERCISE-3", short).await {
            // On a machine that is busy with something else it may be over before it is recorded, and is refused.
            Err(
                ExerciseError::Client(ClientError::Problem(_)) | ExerciseError::Program(ProgramError::Failed { .. }),
            ) => self.determine_for_bystanders(client, "INC-EXERCISE-4", longer).await,
            determined => determined,
        };
        let (document, _) = document?;
        let until = document.form().window.until;
        let left_ms = u64::try_from(until.unix_ms() - self.stage.now().unix_ms()).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(left_ms + 1)).await;
        let ask = listed_ask(document.form().id, &[self.bystander(2)])?;
        self.must_not_sign(client, &ask, "Signing after the window has ended").await
    }

    /// An incident and a determination about the bystanders, by Method 2.
    async fn determine_for_bystanders(
        &mut self,
        client: &Client,
        incident: &str,
        window_ms: i64,
    ) -> Result<(Written<Determination>, Named), ExerciseError> {
        let lab = &self.stage.lab;
        let esme = named("esme-acb", template(lab, &self.recovery, lab.broker())?)?;
        let bystanders = &self.fleet.devices()[self.devices as usize..];
        let devices = self.fleet.device_list(&esme.name, bystanders);
        let ids: Vec<DeviceId> = bystanders.iter().map(super::device::Device::id).collect();
        let incident: IncidentId = incident.parse().map_err(ExerciseError::Name)?;
        let carrier = self.carrier(client, incident.clone());
        let notification = carrier.assess(&ids, Method::AcbCertificates).await?;
        carrier.refer(notification).await?;
        let listed = upload(client, &devices).await?;
        let scope = Scope {
            decision_number: 1,
            method: Method::AcbCertificates,
            name: &esme.name,
            template: &esme.template,
            devices: &devices,
            window: self.window(window_ms),
            retries_of_unknown: 0,
        };
        let document = self.drafter(&incident)?.determination(head(client).await?, &scope)?;
        let (file, _) = self.record(client, &document, Some((&devices, listed)), APPROVALS).await?;
        self.carrier(client, incident.clone()).prepare().await?;
        // Any two do: others than in the first incident.
        self.open_key(client, &incident, &file, &[1, 2]).await?;
        Ok((document, esme))
    }

    /// The ledger is exported and verified by others: without the daemon, and by openssl.
    ///
    /// `document` is a determination with one of its signatures; `command`, if one was signed, is that of this Device.
    async fn verify(
        &mut self,
        client: &Client,
        (document, p7s): (&Path, &Path),
        command: Option<DeviceId>,
        genesis: Digest,
    ) -> Result<(), ExerciseError> {
        self.teller.step("An outsider checks the ledger");
        let stage = self.stage;
        let (folder, key, genesis) =
            (text(&stage.layout.path("ledger")), text(&stage.layout.path("keys/ledger.vkey")), genesis.to_string());
        let begun = Instant::now();
        stage.programs.smkictl(&stage.socket, &["ledger", "export", &folder]).await?;
        self.summary.times.export_ms = ms(begun.elapsed());
        let checkpoint = client.text("/v1/ledger/checkpoint").await?;
        self.summary.entries = documents::head(&checkpoint)?.size;
        let (entries, took) = (number(self.summary.entries), seconds(begun.elapsed()));
        self.teller.good(&format!("Exported: {entries} entries and every document they name, in {took}."));

        // Nobody listens there: what verifies needs no daemon.
        let nowhere = stage.scratch.path().join("nowhere");
        let arguments = ["ledger", "verify", &folder, "--key", &key, "--genesis", &genesis, "--output", "json"];
        let begun = Instant::now();
        let output = stage.programs.try_smkictl(&nowhere, &arguments).await?;
        self.summary.times.verify_ms = ms(begun.elapsed());
        let said =
            [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).trim().to_owned()).join("\n");
        let signatures = match self.summary.scenario {
            Scenario::Base | Scenario::NotToExecute | Scenario::Variation2017 => "every signature",
            Scenario::Contingency => "every signature but those over what has the symmetric key inside,",
        };
        self.expect(
            output.status.success(),
            &format!(
                "Verified from the export alone, {signatures} and every decision, in {}.",
                seconds(begun.elapsed())
            ),
            &format!("ledger verify ended with {}: {said}", output.status),
        );
        if stage.clock.is_set() {
            let verified: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let set = verified["summary"]["clock_set"].as_u64();
            self.expect(
                set == Some(self.summary.entries),
                &format!("Each of the {entries} entries says that its clock was set for an exercise."),
                &format!("{} of {entries} entries say that their clock was set", set.unwrap_or_default()),
            );
        }
        self.flip_and_verify(&nowhere, &arguments).await?;

        let command = match command {
            Some(device) => Some(read(&stage.layout.path(&format!("commands/{device}.bin")))?),
            None => None,
        };
        let mut checks = vec![
            ("openssl cms -verify accepts the recorded determination.", Check::Document { document, p7s }),
            ("openssl dgst -verify accepts the checkpoint's signature.", Check::Checkpoint(&checkpoint)),
        ];
        if let Some(command) = &command {
            checks.push(("openssl dgst -verify accepts a command's signature.", Check::Command(command)));
        }
        for (what, check) in checks {
            match oracle::check(&stage.layout, stage.scratch.path(), stage.now(), check).await {
                Ok(true) => self.teller.good(what),
                Ok(false) => self.teller.say("openssl is not installed, so it was not asked."),
                Err(error) => self.expect(false, what, &format!("openssl disagrees: {error}")),
            }
        }
        Ok(())
    }

    /// One bit of the export is flipped, and back again.
    async fn flip_and_verify(&mut self, nowhere: &Path, arguments: &[&str]) -> Result<(), ExerciseError> {
        let bundle = first_bundle(&self.stage.layout.path("ledger/tile/entries"))?;
        oracle::flip(&bundle, 100)?;
        let output = self.stage.programs.try_smkictl(nowhere, arguments).await;
        oracle::flip(&bundle, 100)?;
        let output = output?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let is_refused = output.status.code() == Some(VERIFICATION_FAILED);
        self.attempted("The same export with one bit flipped", is_refused.then(|| vec![said]));
        Ok(())
    }

    fn finish(self, took: Duration) -> Summary {
        let Self { mut summary, deliveries, .. } = self;
        summary.recovered = deliveries.recovered;
        summary.command_octets = deliveries.command_octets;
        summary.rates(deliveries.recovered, deliveries.signing, deliveries.recovered, deliveries.devices);
        summary.times.whole_ms = ms(took);
        summary.passed = summary.faults.is_empty() && summary.refusals.iter().all(|attempt| attempt.refused);
        summary
    }
}

impl Summary {
    /// Notes an attempt that had to be refused, and says so; that it was not is a fault.
    fn attempted(&mut self, teller: &mut Teller<'_>, what: &'static str, reasons: Option<Vec<String>>) {
        let refused = reasons.as_ref().is_some_and(|reasons| !reasons.is_empty());
        match &reasons {
            Some(reasons) if refused => teller.refused(what, reasons),
            Some(_) | None => {
                teller.bad(what);
                self.faults.push(format!("not refused: {what}"));
            }
        }
        self.refusals.push(Attempt { what, refused, reasons: reasons.unwrap_or_default() });
    }
}

/// What so many Devices have done.
fn proved(recovered: u64) -> String {
    format!(
        "{} Devices verified their commands, changed their credentials and proved it by signed Responses.",
        number(recovered)
    )
}

/// The first file of entries in an export, by name.
fn first_bundle(folder: &Path) -> Result<PathBuf, ExerciseError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(LayoutError::at(folder))? {
        let path = entry.map_err(LayoutError::at(folder))?.path();
        if path.is_file() {
            files.push(path);
        } else {
            // A ledger of fewer than 256 entries has one partial bundle, in a folder of its own.
            files.extend(first_bundle(&path).ok());
        }
    }
    files.into_iter().min().ok_or_else(|| ExerciseError::NoEntries(folder.to_owned()))
}

fn named(name: &str, template: Template) -> Result<Named, ExerciseError> {
    Ok(Named { name: name.parse().map_err(ExerciseError::Name)?, template })
}

/// The ledger's head, as a drafter sees it.
async fn head(client: &Client) -> Result<LedgerHead, ExerciseError> {
    Ok(documents::head(&client.text("/v1/ledger/checkpoint").await?)?)
}

/// Uploads a device list. Answers its SHA-256.
async fn upload(client: &Client, devices: &str) -> Result<Digest, ExerciseError> {
    let stored: wire::Stored = client.put("/v1/uploads/devices", Body::from(devices.to_owned())).await?;
    Ok(stored.sha256)
}

fn delivery<'a, F: Form>(
    document: &Written<F>,
    signatures: impl IntoIterator<Item = &'a Vec<u8>>,
    devices: Option<Digest>,
) -> wire::Document {
    wire::Document {
        document: Base64(document.octets().to_vec()),
        signatures: signatures.into_iter().map(|p7s| Base64(p7s.clone())).collect(),
        devices,
        policy_files: None,
        text: None,
    }
}

fn sign_ask(determination: DeterminationId, devices: Devices) -> Result<RecoverySign, ExerciseError> {
    let request = RequestId(lab::random()?);
    Ok(RecoverySign { request, determination, devices: Some(devices), pre_commands: None })
}

fn listed_ask(determination: DeterminationId, devices: &[DeviceId]) -> Result<RecoverySign, ExerciseError> {
    let listed = devices.iter().map(|device| DeviceAsk { device: *device }).collect();
    sign_ask(determination, Devices::Listed(listed))
}

fn pre_command_ask(determination: DeterminationId, pre_command: Vec<u8>) -> Result<RecoverySign, ExerciseError> {
    let request = RequestId(lab::random()?);
    Ok(RecoverySign { request, determination, devices: None, pre_commands: Some(vec![Base64(pre_command)]) })
}

/// Waits until intents of a request are recorded, and no more come for a moment. Answers how many.
async fn wait_for_intents(client: &Client, request: RequestId) -> Result<u64, ExerciseError> {
    /// Asked so often without a change, they are at rest.
    const STILL: u32 = 20;
    let (begun, mut last, mut still) = (Instant::now(), 0, 0);
    while begun.elapsed() < INTENTS_MAX {
        match get::<wire::RequestState>(client, &format!("/v1/recovery/requests/{request}")).await? {
            Some(state) if state.done.intents == last && last > 0 => still += 1,
            Some(state) => (last, still) = (state.done.intents, 0),
            None => {}
        }
        if still == STILL {
            return Ok(last);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(last)
}

/// Asks for what may not be there yet.
async fn get<R: DeserializeOwned>(client: &Client, path: &str) -> Result<Option<R>, ClientError> {
    match client.get(path).await {
        Ok(found) => Ok(Some(found)),
        Err(ClientError::Problem(problem)) if problem.error == crate::api::failure::ProblemKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
