//! Shell: an incident's way through the SMKI Recovery Procedure, as the exercise walks it: the steps before and after the
//! determination, each by the person who takes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::ExerciseError;
use super::clock::Clock;
use super::documents;
use super::lab::Lab;
use super::layout::Layout;
use super::people::{DCC_OFFICER, People};
use super::policy::{AFFECTED, DCC};
use super::tell::Teller;
use crate::api::client::Client;
use crate::api::wire::{self, Base64};
use crate::domain::certificates::pem::certificate_to_pem;
use crate::domain::files::{Counted, DeviceState, Progress};
use crate::domain::incident::State;
use crate::domain::ledger::contingency::OtherKey;
use crate::domain::ledger::steps::{Certainty, CompromiseClass, DevicesNamed, Method, Notification, SmiStatus, Step};
use crate::domain::names::{DeviceId, Digest, FactorId, FileKind, IncidentId, KeyLabel};
use crate::domain::procedure::calendar::CivilDate;
use crate::domain::time::Timestamp;

/// Where SMI Status and ADT file stand in the procedure that the exercise plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Base: both before the referral.
    BeforeReferral,
    /// As the direction of 18 July 2017 varies it: both after a determination to execute.
    AfterDetermination,
}

impl Order {
    /// The factor that the variation offers, by clause (b): Devices in 'recovery' stay unreachable.
    pub fn optional_factor(self) -> Option<FactorId> {
        match self {
            Self::BeforeReferral => None,
            Self::AfterDetermination => Some("stays-unreachable".parse().expect("it is the id of a factor")),
        }
    }
}

/// One incident, and who carries it.
pub struct Carrier<'a> {
    /// The PKI.
    pub lab: &'a Lab,
    /// The people.
    pub people: &'a People,
    /// Where files are kept, if they are.
    pub layout: Option<&'a Layout>,
    /// The daemon.
    pub client: &'a Client,
    /// What the time is.
    pub clock: Clock,
    /// The incident.
    pub incident: IncidentId,
    /// Where SMI Status and ADT file stand.
    pub order: Order,
}

impl Carrier<'_> {
    /// Takes a step.
    pub async fn step(&self, step: Step) -> Result<u64, ExerciseError> {
        let path = format!("/v1/incidents/{}/steps", self.incident);
        let recorded: wire::Recorded = self.client.post(&path, &wire::StepAsk { step }).await?;
        Ok(recorded.entry)
    }

    /// How far the incident has come.
    pub async fn progress(&self) -> Result<wire::Progress, ExerciseError> {
        let incident: wire::Incident = self.client.get(&format!("/v1/incidents/{}", self.incident)).await?;
        incident.progress.ok_or(ExerciseError::NoProcedure)
    }

    /// Meets every duty to inform that is open.
    pub async fn inform(&self) -> Result<(), ExerciseError> {
        let open: Vec<wire::Duty> =
            self.progress().await?.duties.into_iter().filter(|duty| duty.met.is_none()).collect();
        for duty in open {
            let recipient = format!("the {} of the exercise", duty.recipient).into();
            self.step(Step::Inform { duty: duty.duty, recipient, at: self.clock.now(), how: "letter".into() }).await?;
        }
        Ok(())
    }

    /// Whether the incident is about the key of an OCA, and not of a Supplier.
    fn is_about_an_oca(&self) -> Result<bool, ExerciseError> {
        Ok(self.lab.victim(&self.incident)?.is_ca())
    }

    /// An ARO of the affected Supplier, or of the DCC where the key is an OCA's, signs a file and submits it. Answers its SHA-256.
    pub async fn submit(&self, kind: FileKind, text: &str) -> Result<Digest, ExerciseError> {
        let officer = &self.people.officers[if self.is_about_an_oca()? { DCC_OFFICER } else { 0 }];
        let p7s = documents::sign(text.as_bytes(), &officer.first, self.clock.now())?;
        if let Some(layout) = self.layout {
            layout.write(&format!("files/{}-{kind}.csv", self.incident), text)?;
            layout.write(&format!("files/{}-{kind}.csv.{}.p7s", self.incident, officer.id), &p7s)?;
        }
        let ask = wire::FileSubmit {
            kind,
            octets: Some(Base64(text.as_bytes().to_vec())),
            staged: None,
            signature: Some(Base64(p7s)),
        };
        let file: wire::File = self.client.post(&format!("/v1/incidents/{}/files", self.incident), &ask).await?;
        Ok(file.sha256)
    }

    /// The incident is notified, confirmed and assessed for these Devices; nothing is referred yet. Answers the SHA-256 of the
    /// notification file.
    pub async fn assess(&self, devices: &[DeviceId], method: Method) -> Result<Digest, ExerciseError> {
        self.find(devices, method).await?;
        let (sha256, now) = (self.lab.victim(&self.incident)?.sha256(), self.clock.now());
        if self.is_about_an_oca()? {
            let file = format!(
                "notifier,party,key,certificate-sha256,compromise,time,channel,class\n\
                 ARO Five of the exercise,{DCC},root-oca,{sha256},actual,{now},telephone,other\n"
            );
            return self.submit(FileKind::OtherNotification, &file).await;
        }
        let file = format!(
            "notifier,party,certificate-sha256,compromise,time,channel,class\n\
             ARO One of the exercise,{AFFECTED},{sha256},actual,{now},telephone,organisation\n"
        );
        self.submit(FileKind::OrganisationNotification, &file).await
    }

    /// The incident is notified, confirmed and assessed for these Devices, without any file.
    pub async fn find(&self, devices: &[DeviceId], method: Method) -> Result<(), ExerciseError> {
        let victim = self.lab.victim(&self.incident)?;
        let (by, party, class, key, description) = if victim.is_ca() {
            let what = "An exercise: the Root OCA Private Key is Compromised.";
            ("ARO Five of the exercise", DCC, CompromiseClass::Other, Some(OtherKey::RootOca), what)
        } else {
            let what = "An exercise: the Supplier's Private Key for signing is Compromised.";
            ("ARO One of the exercise", AFFECTED, CompromiseClass::Organisation, None, what)
        };
        let notification = Notification {
            by: by.into(),
            party: party.parse().map_err(ExerciseError::Name)?,
            certainty: Certainty::Suspected,
            class,
            at: self.clock.now(),
            channel: "telephone".into(),
            recovery_event: self.clock.now(),
        };
        let open = wire::IncidentOpen {
            incident: self.incident.clone(),
            certificate_pem: certificate_to_pem(victim.octets()),
            key,
            description: description.to_owned(),
            notification: Some(notification),
        };
        self.client.post::<_, wire::Recorded>("/v1/incidents", &open).await?;
        self.inform().await?;
        let mechanism = "call-back".parse().map_err(ExerciseError::Name)?;
        let evidence = "The officer was called back on the number of the register.".into();
        self.step(Step::Confirm { mechanism, certainty: Certainty::Actual, evidence }).await?;
        self.inform().await?;
        let targets = self.upload(&targets(devices, self.clock.now()), devices.len()).await?;
        self.step(Step::Assess { method, targets }).await.map(drop)
    }

    /// The DCC refers the incident to the SMKI PMA; in the base order with SMI Status and ADT file before it.
    pub async fn refer(&self, notification: Digest) -> Result<(), ExerciseError> {
        if self.order == Order::BeforeReferral {
            self.status_and_thresholds().await?;
        }
        self.step(Step::Refer { notification: Some(notification), new_facts: None }).await.map(drop)
    }

    /// The DCC sets the SMI Status, where an earlier incident did not leave every Device in it; the Subscriber's ARO submits the
    /// thresholds.
    pub async fn status_and_thresholds(&self) -> Result<(), ExerciseError> {
        let devices = self.progress().await?.devices;
        if devices.in_recovery + devices.recovered < devices.targets {
            self.step(status(SmiStatus::Recovery, None, self.clock.now())).await?;
        }
        let user = super::lab::party_of(&self.lab.before()[0]);
        // A reference of its own for each incident: a file counts in one alone.
        let file = format!(
            "smsr,user-id,service-request,period-minutes,warning,quarantine\nSMSR-{},{user},all,1440,9000,10000\n",
            self.incident
        );
        self.submit(FileKind::Adt, &file).await.map(drop)
    }

    /// After a determination to execute: what is still missing, and the word that everything is prepared.
    pub async fn prepare(&self) -> Result<(), ExerciseError> {
        self.inform().await?;
        if self.order == Order::AfterDetermination {
            self.status_and_thresholds().await?;
        }
        self.step(Step::Prepare { note: "Templates, list and certificates were compared.".into() }).await.map(drop)
    }

    /// Where the key is active for another incident, it is locked.
    pub async fn lock_for_another(&self, key: &KeyLabel) -> Result<(), ExerciseError> {
        let status: wire::Status = self.client.get("/v1/status").await?;
        let state = status.keys.iter().find(|state| state.key == *key);
        if state.is_some_and(|state| state.active && state.incident.as_ref() != Some(&self.incident)) {
            self.client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{key}/lock")).await?;
        }
        Ok(())
    }

    /// The key is activated for this incident; where it is active for another, it is locked first.
    pub async fn activate(&self, key: &KeyLabel) -> Result<wire::KeyChanged, ExerciseError> {
        self.lock_for_another(key).await?;
        let ask = wire::KeyActivate { incident: self.incident.clone() };
        Ok(self.client.post(&format!("/v1/keys/{key}/activate"), &ask).await?)
    }

    /// After the last Response: 'recovered' for what proved it, and the incident to its end.
    pub async fn end(&self, devices: &[DeviceId], method: Method) -> Result<(), ExerciseError> {
        let proven = self.upload(&plain(devices), devices.len()).await?;
        self.step(status(SmiStatus::Recovered, Some(proven), self.clock.now())).await?;
        self.step(Step::Finish { note: "Every Device answered.".into() }).await?;
        self.report().await?;
        self.step(Step::BeginPostRecovery { note: "The Supplier was told.".into() }).await?;
        if method == Method::AcbCertificates {
            self.step(Step::HandOver { devices: None, evidence: "SRV 6.21 of the Supplier, in the exercise".into() })
                .await?;
        }
        self.inform().await
    }

    /// The Subscriber's ARO reports how it ended, by what the daemon knows of it.
    pub async fn report(&self) -> Result<Digest, ExerciseError> {
        let one: wire::Incident = self.client.get(&format!("/v1/incidents/{}", self.incident)).await?;
        let progress = one.progress.ok_or(ExerciseError::NoProcedure)?;
        let counted = |state, devices| Counted { determination: None, method: progress.method, state, devices };
        let file = Progress {
            incident: self.incident.clone(),
            class: progress.notification.class,
            party: one.compromised.party,
            certificate: one.compromised.certificate_sha256,
            at: self.clock.now(),
            counts: vec![
                counted(DeviceState::Succeeded, progress.devices.succeeded),
                counted(DeviceState::LeftOut, progress.devices.excluded),
            ],
        };
        self.submit(file.kind(), &file.write()).await
    }

    /// Closes the incident.
    pub async fn close(&self, reason: &str) -> Result<u64, ExerciseError> {
        let path = format!("/v1/incidents/{}/close", self.incident);
        let recorded: wire::Recorded = self.client.post(&path, &wire::Why { reason: reason.to_owned() }).await?;
        Ok(recorded.entry)
    }

    /// Uploads a list of Devices.
    pub async fn upload(&self, text: &str, count: usize) -> Result<DevicesNamed, ExerciseError> {
        let stored: wire::Stored =
            self.client.put("/v1/uploads/devices", axum::body::Body::from(text.to_owned())).await?;
        Ok(DevicesNamed { list: stored.sha256, count: count as u64 })
    }

    /// That the incident stands where it must.
    pub async fn expect(&self, state: State, teller: &mut Teller<'_>) -> Result<bool, ExerciseError> {
        let found = self.progress().await?.state;
        if found == state {
            teller.good(&format!("Incident {} is {state}.", self.incident));
        } else {
            teller.bad(&format!("expected incident {} to be {state}, found {found}", self.incident));
        }
        Ok(found == state)
    }
}

/// The SMI Status of all targets, or of some, from today on.
pub fn status(status: SmiStatus, devices: Option<DevicesNamed>, now: Timestamp) -> Step {
    let today = CivilDate::of(now).map_or(now, CivilDate::begins);
    Step::SetStatus {
        status,
        from: today,
        devices,
        reason: None,
        acknowledged: status == SmiStatus::Recovery,
        overridden: None,
    }
}

/// A list of targets: these Devices, commissioned the day before.
pub fn targets(devices: &[DeviceId], now: Timestamp) -> String {
    let day = now.plus_ms(-24 * 60 * 60 * 1000).to_string();
    let mut text = String::new();
    for device in devices.iter().collect::<BTreeSet<_>>() {
        let _ = writeln!(text, "{device},Commissioned,{},read by SRV 8.2 in the exercise", &day[..10]);
    }
    text
}

/// A list of Devices and nothing more.
pub fn plain(devices: &[DeviceId]) -> String {
    devices.iter().collect::<BTreeSet<_>>().into_iter().fold(String::new(), |mut text, device| {
        let _ = writeln!(text, "{device}");
        text
    })
}
