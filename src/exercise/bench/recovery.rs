//! Shell: a determination over as many Devices as are to be measured, and the key open for it: the exercise's procedure without what
//! must be refused on the way.

use std::fmt::Write as _;

use axum::body::Body;

use crate::api::client::Client;
use crate::api::wire::{Base64, Document, DocumentRecorded, Stored};
use crate::domain::determination::document::{Compromised, KeyChosen, Method};
use crate::domain::gbcs::Template;
use crate::domain::names::{DeterminationId, DeviceId, Eui64, IncidentId, TemplateName};
use crate::domain::time::Window;
use crate::exercise::ExerciseError;
use crate::exercise::documents::{self, Drafter, Scope};
use crate::exercise::lab;
use crate::exercise::people::APPROVALS;
use crate::exercise::procedure::{Carrier, Order};
use crate::exercise::stage::Stage;

/// How long the determination is in force: longer than anything that is measured.
const WINDOW_MS: i64 = 24 * 3_600_000;

/// What every Device has accepted before.
pub const COUNTER: u64 = 7_000; // As in a genuine Recovery command.

/// What the incident is called.
pub const INCIDENT: &str = "INC-BENCHMARK-1";

/// The n-th Device: locally administered, so that it is nobody's.
pub fn device(n: usize) -> DeviceId {
    DeviceId(Eui64((0x02DE_1CE0_0000_0000 + n as u64).to_be_bytes()))
}

/// Opens an incident, has a determination over so many Devices drafted, signed and recorded, and opens the key for it.
///
/// # Errors
/// The daemon refused, or a document could not be made.
pub async fn determine(
    stage: &Stage,
    client: &Client,
    template: &Template,
    key: KeyChosen,
    devices: usize,
) -> Result<DeterminationId, ExerciseError> {
    let victim = &stage.lab.before()[0];
    let incident: IncidentId = INCIDENT.parse().map_err(ExerciseError::Name)?;
    let name: TemplateName = "esme".parse().map_err(ExerciseError::Name)?;
    let carrier = carrier(stage, client)?;
    let targets: Vec<DeviceId> = (0..devices).map(device).collect();
    let notification = carrier.assess(&targets, Method::AcbCertificates).await?;
    carrier.refer(notification).await?;
    let mut list = String::new();
    for n in 0..devices {
        writeln!(list, "{},{name},{COUNTER}", device(n)).expect("a String takes all");
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

/// Opens the key for it again, after a restart.
///
/// # Errors
/// The daemon refused.
pub async fn activate(stage: &Stage, client: &Client) -> Result<(), ExerciseError> {
    carrier(stage, client)?.activate(&stage.names.recovery_key).await.map(drop)
}

fn carrier<'c>(stage: &'c Stage, client: &'c Client) -> Result<Carrier<'c>, ExerciseError> {
    Ok(Carrier {
        lab: &stage.lab,
        people: &stage.people,
        layout: None,
        client,
        clock: stage.clock,
        incident: INCIDENT.parse().map_err(ExerciseError::Name)?,
        order: Order::BeforeReferral,
    })
}
