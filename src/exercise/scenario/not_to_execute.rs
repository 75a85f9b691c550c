//! Shell: the story in which the SMKI PMA determines not to execute: nothing is signed, and Devices stay stranded.

use std::time::Instant;

use super::gates::Point;
use super::{APPROVALS, DeviceId, ExerciseError, Play, State, Summary, WINDOW_MS, head, listed_ask};
use crate::api::client::Client;
use crate::api::wire;
use crate::domain::ledger::steps::Step;
use crate::domain::names::Digest;

impl Play<'_, '_> {
    /// From the notification to a closed incident without a recovery.
    pub(super) async fn not_to_execute(mut self, begun: Instant, genesis: Digest) -> Result<Summary, ExerciseError> {
        let daemon = self.open_the_incident().await?;
        let client = &daemon.client;
        self.refer_the_incident(client).await?;

        self.teller.step("The SMKI PMA determines not to execute");
        let drafter = self.drafter(&self.incident);
        let document = drafter.not_to_execute(head(client).await?, 1, self.window(WINDOW_MS))?;
        let (file, p7s) = self.record(client, &document, None, APPROVALS).await?;
        self.must_stand(client, self.incident.clone(), State::DeterminedNotToExecute).await?;
        self.check_gates(client, Point::NotToExecute).await?;
        let ask = listed_ask(document.form().id, &[self.device(0)])?;
        self.must_not_sign(client, &ask, "Signing under a determination not to execute").await?;

        self.leave_stranded(client).await?;
        self.verify(client, (&file, &p7s), None, genesis).await?;
        self.teller.step("The daemon is stopped");
        let status = daemon.stop().await?;
        self.expect(status.success(), "smkid stopped in order", &format!("smkid ended with {status}"));
        Ok(self.finish(begun.elapsed()))
    }

    /// The Devices that were set to 'recovery' stay there: they are reported, accepted by their number, and the incident is closed.
    async fn leave_stranded(&mut self, client: &Client) -> Result<(), ExerciseError> {
        self.teller.step("Devices stay in 'recovery', and are reported as stranded");
        let close = format!("/v1/incidents/{}/close", self.incident);
        let why = wire::Why { reason: "The PMA determined not to execute.".to_owned() };
        self.must_refuse(client, &close, &why, "Closing with duties open and stranded Devices not accepted").await?;
        let carrier = self.carrier(client, self.incident.clone());
        carrier.inform().await?;
        let stranded = carrier.progress().await?.devices.stranded;
        let csv = client.text(&format!("/v1/incidents/{}/devices", self.incident)).await?;
        self.stage.layout.write("stranded.csv", &csv)?;
        let all = u64::from(self.devices);
        self.expect(
            stranded == all,
            &format!(
                "{stranded} Devices are stranded: no key of the DCC may bring them back. The list is stranded.csv."
            ),
            &format!("expected {all} stranded Devices, found {stranded}"),
        );
        let steps = format!("/v1/incidents/{}/steps", self.incident);
        let accept = |count| wire::StepAsk {
            step: Step::AcceptStranded { count, reason: "Accepted by the SMKI PMA of the exercise".into() },
        };
        self.must_refuse(client, &steps, &accept(stranded + 1), "Accepting another number of stranded Devices").await?;
        let recorded: wire::Recorded = client.post(&steps, &accept(stranded)).await?;
        self.teller.good(&format!("Accepted by their number, entry {}.", recorded.entry));
        let carrier = self.carrier(client, self.incident.clone());
        let entry = carrier.close("The PMA determined not to execute; the stranded Devices are reported.").await?;
        self.teller.good(&format!("Incident {} is closed, entry {entry}.", self.incident));
        let told: Vec<DeviceId> = csv.lines().skip(1).filter_map(|line| line.split(',').next()?.parse().ok()).collect();
        self.expect(
            told.len() as u64 == all,
            "The list names each of them.",
            &format!("expected {all} Devices in stranded.csv, found {}", told.len()),
        );
        Ok(())
    }
}
