//! Shell: the stories in which the SMKI PMA determines not to execute: nothing is signed, and Devices stay stranded that were in
//! 'recovery' already.

use std::path::PathBuf;
use std::time::Instant;

use super::gates::Point;
use super::{
    APPROVALS, BYSTANDERS, DeviceId, ExerciseError, Method, Play, SmiStatus, State, Summary, WINDOW_MS, head,
    listed_ask, procedure,
};
use crate::api::client::Client;
use crate::api::wire;
use crate::domain::ledger::steps::Step;
use crate::domain::names::{Digest, IncidentId};

impl Play<'_, '_> {
    /// From the notification to a closed incident without a recovery.
    pub(super) async fn not_to_execute(mut self, begun: Instant, genesis: Digest) -> Result<Summary, ExerciseError> {
        let daemon = self.open_the_incident().await?;
        let client = &daemon.client;
        self.refer_the_incident(client).await?;

        self.teller.step("The SMKI PMA determines not to execute");
        let (incident, device) = (self.incident.clone(), self.device(0));
        let (file, p7s) = self.determine_not_to_execute(client, &incident, Point::NotToExecute, device).await?;

        self.leave_stranded(client, &incident, self.devices).await?;
        self.verify(client, (&file, &p7s), None, genesis).await?;
        self.teller.step("The daemon is stopped");
        let status = daemon.stop().await?;
        self.expect(status.success(), "smkid stopped in order", &format!("smkid ended with {status}"));
        Ok(self.finish(begun.elapsed()))
    }

    /// The variation relieves the DCC of setting 'recovery' before the determination, and forbids nothing: it is set early with a
    /// reason, in an incident about bystanders. Then the SMKI PMA determines not to execute.
    pub(super) async fn set_early_and_leave_stranded(&mut self, client: &Client) -> Result<(), ExerciseError> {
        self.teller.step("SMI Status is set early, and the SMKI PMA determines not to execute");
        // The first one was recovered under another determination.
        let bystanders: Vec<DeviceId> = (1..BYSTANDERS).map(|n| self.bystander(n)).collect();
        let incident: IncidentId = "INC-EXERCISE-EARLY".parse().map_err(ExerciseError::Name)?;
        let carrier = self.carrier(client, incident.clone());
        let notification = carrier.assess(&bystanders, Method::NewOrganisationCertificates).await?;
        let mut early = procedure::status(SmiStatus::Recovery, None, self.stage.now());
        if let Step::SetStatus { reason, .. } = &mut early {
            *reason = Some("Whoever has the key must not reach these Devices for another hour.".into());
        }
        let entry = carrier.step(early).await?;
        carrier.refer(notification).await?;
        self.teller
            .good(&format!("'recovery' is set with the reason for it, entry {entry}; the thresholds file waits."));
        self.must_stand(client, incident.clone(), State::Referred).await?;
        let point = Point::NotToExecuteSetEarly;
        self.determine_not_to_execute(client, &incident, point, bystanders[0]).await?;
        self.leave_stranded(client, &incident, BYSTANDERS - 1).await
    }

    /// It is determined so, and opens nothing. Answers where the document and one of its signatures lie.
    async fn determine_not_to_execute(
        &mut self,
        client: &Client,
        incident: &IncidentId,
        point: Point,
        device: DeviceId,
    ) -> Result<(PathBuf, PathBuf), ExerciseError> {
        let drafter = self.drafter(incident)?;
        let document = drafter.not_to_execute(head(client).await?, 1, self.window(WINDOW_MS))?;
        let lie = self.record(client, &document, None, APPROVALS).await?;
        self.must_stand(client, incident.clone(), State::DeterminedNotToExecute).await?;
        self.check_gates(client, incident, point).await?;
        let ask = listed_ask(document.form().id, &[device])?;
        self.must_not_sign(client, &ask, "Signing under a determination not to execute").await?;
        self.must_not_state(&lie.0, "A Key Custodian's statement under a determination not to execute").await?;
        Ok(lie)
    }

    /// The Devices that were set to 'recovery' stay there: they are reported, accepted by their number, and the incident is closed.
    async fn leave_stranded(
        &mut self,
        client: &Client,
        incident: &IncidentId,
        devices: u32,
    ) -> Result<(), ExerciseError> {
        self.teller.step("Devices stay in 'recovery', and are reported as stranded");
        let close = format!("/v1/incidents/{incident}/close");
        let why = wire::Why { reason: "The PMA determined not to execute.".to_owned() };
        self.must_refuse(client, &close, &why, "Closing with duties open and stranded Devices not accepted").await?;
        let carrier = self.carrier(client, incident.clone());
        carrier.inform().await?;
        let stranded = carrier.progress().await?.devices.stranded;
        let csv = client.text(&format!("/v1/incidents/{incident}/devices")).await?;
        self.stage.layout.write("stranded.csv", &csv)?;
        let all = u64::from(devices);
        self.expect(
            stranded == all,
            &format!(
                "{stranded} Devices are stranded: no key of the DCC may bring them back. The list is stranded.csv."
            ),
            &format!("expected {all} stranded Devices, found {stranded}"),
        );
        let steps = format!("/v1/incidents/{incident}/steps");
        let accept = |count| wire::StepAsk {
            step: Step::AcceptStranded {
                count,
                overridden: None,
                reason: "Accepted by the SMKI PMA of the exercise".into(),
            },
        };
        self.must_refuse(client, &steps, &accept(stranded + 1), "Accepting another number of stranded Devices").await?;
        let recorded: wire::Recorded = client.post(&steps, &accept(stranded)).await?;
        self.teller.good(&format!("Accepted by their number, entry {}.", recorded.entry));
        let carrier = self.carrier(client, incident.clone());
        let entry = carrier.close("The PMA determined not to execute; the stranded Devices are reported.").await?;
        self.teller.good(&format!("Incident {incident} is closed, entry {entry}."));
        let told: Vec<DeviceId> = csv.lines().skip(1).filter_map(|line| line.split(',').next()?.parse().ok()).collect();
        self.expect(
            told.len() as u64 == all,
            "The list names each of them.",
            &format!("expected {all} Devices in stranded.csv, found {}", told.len()),
        );
        Ok(())
    }
}
