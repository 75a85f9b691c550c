//! Shell: incidents, as the engine answers for them.

use std::fmt::Write as _;
use std::sync::Arc;

use super::keys::{closed, lock, needed_no_longer};
use super::{Answer, Daemon, answers, check_reason, history, make, pieces, reason, refused, story};
use crate::api::engine::{Caller, Octets};
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::certificates::pem;
use crate::domain::incident::targets::{Control, LeftBehind, Overridden, Proof, Target};
use crate::domain::intake::{self, Context, KeyMeant, Opening, steps};
use crate::domain::ledger::entry::Event;
use crate::domain::ledger::steps::Step;
use crate::domain::names::{DeterminationId, DeviceId, Digest, IncidentId, KeyLabel};
use crate::recorder::{Moment, Recorder};

impl Daemon {
    pub(super) async fn open_incident(&self, caller: &Caller, open: wire::IncidentOpen) -> Answer<wire::Recorded> {
        let actor = caller.actor();
        let certificate = pem::certificate(&open.certificate_pem).map_err(|error| {
            Failure::malformed(
                "certificate_pem",
                "one certificate in PEM",
                &format!("other text ({error})"),
                "Send the Compromised one.",
            )
        })?;
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let wire::IncidentOpen { incident, certificate_pem, key, description, notification } = open;
            let asked = Digest::of(certificate_pem.as_bytes());
            let opened = intake::operator(recorder.fold(), &by, &incident).and_then(|()| {
                let opening = Opening {
                    incident: &incident,
                    certificate: certificate.octets(),
                    key: KeyMeant::Said(key),
                    description: &description,
                    notification: notification.as_ref(),
                };
                intake::incident(&context(recorder), opening)
            });
            match opened {
                Ok(opened) => {
                    recorder.queue_blob(certificate.octets().to_vec());
                    Ok(Ok(wire::Recorded { entry: recorder.queue(&by, Event::IncidentOpened(opened))? }))
                }
                Err(reasons) => refused(recorder, &by, "incident-open", asked, (Some(incident), None), reasons),
            }
        })
        .await
    }

    pub(super) async fn take_step(
        &self,
        caller: &Caller,
        incident: IncidentId,
        ask: wire::StepAsk,
    ) -> Answer<wire::Recorded> {
        let asked = answers::digest_of(&ask)?;
        if let Some(devices) = ask.step.devices() {
            self.may_change()?;
            // Nobody has a list brought who may not take the step: they are refused below.
            let (actor, of) = (caller.actor(), incident.clone());
            let may_act =
                self.read(move |recorder| Ok(intake::operator(recorder.fold(), &recorder.known(actor), &of).is_ok()));
            if may_act.await? {
                self.bring(devices.list).await?;
            }
        }
        let (actor, keys) = (caller.actor(), Arc::clone(&self.keys));
        let taken = self.change(move |recorder| {
            let by = recorder.known(actor);
            let about = (Some(incident.clone()), None);
            let taken = intake::operator(recorder.fold(), &by, &incident)
                .and_then(|()| steps::step(&context(recorder), &incident, &ask.step));
            let taken = match taken {
                Ok(taken) => taken,
                Err(reasons) => return refused(recorder, &by, "incident-step", asked, about, reasons),
            };
            if let Some(devices) = taken.step.devices()
                && recorder.store().blob_len(devices.list)?.is_none()
                && !recorder.claim_staged(devices.list)
            {
                let text = format!("list {} waited too long and was dropped; upload it again", devices.list);
                return refused(recorder, &by, "incident-step", asked, about, vec![reason("devices", text)]);
            }
            // What stops the signing, of all or of some Devices, takes effect before the next C_Sign.
            if matches!(taken.step, Step::Pause { .. } | Step::Exclude { .. } | Step::Finish { .. }) {
                keys.fence();
            }
            let (pauses, finishes) =
                (matches!(taken.step, Step::Pause { .. }), matches!(taken.step, Step::Finish { .. }));
            let key = key_of(recorder, &incident).filter(|key| {
                // While this one was paused, it may have been activated for another.
                let is_ours = recorder.fold().keys().get(key).is_some_and(|facts| {
                    facts.active.is_some() && facts.active_for.as_ref().is_none_or(|of| *of == incident)
                });
                (pauses || finishes) && is_ours
            });
            let entry = recorder.queue(&by, Event::StepTaken(taken))?;
            let mut closing = Vec::new();
            if let Some(key) = key {
                let what = if pauses { "paused" } else { "executed" };
                closing.extend(lock(recorder, &by, &keys, &key, &format!("incident {incident} was {what}"))?.1);
            }
            Ok(Ok((wire::Recorded { entry }, closing)))
        });
        let (recorded, closing) = taken.await?;
        closed(closing).await;
        Ok(recorded)
    }

    pub(super) async fn close_incident(
        &self,
        caller: &Caller,
        incident: IncidentId,
        why: wire::Why,
    ) -> Answer<wire::Recorded> {
        check_reason(&why.reason)?;
        let (actor, keys) = (caller.actor(), Arc::clone(&self.keys));
        let ended = self.change(move |recorder| {
            let by = recorder.known(actor);
            if !recorder.fold().incidents().contains_key(&incident) {
                return Ok(Err(Failure::NotFound { what: format!("incident {incident}") }));
            }
            let part = intake::operator(recorder.fold(), &by, &incident);
            let closed = match (part, steps::closing(&context(recorder), &incident, &why.reason)) {
                (Ok(()), Ok(closed)) => closed,
                (part, closed) => {
                    let mut reasons = part.err().unwrap_or_default();
                    reasons.extend(closed.err().unwrap_or_default());
                    let asked = Digest::of(why.reason.as_bytes());
                    return refused(recorder, &by, "incident-close", asked, (Some(incident), None), reasons);
                }
            };
            keys.fence();
            let needless = needed_no_longer(recorder.fold(), &incident, &keys);
            let entry = recorder.queue(&by, Event::IncidentClosed(closed))?;
            let mut closing = Vec::new();
            for key in needless {
                closing.extend(lock(recorder, &by, &keys, &key, "its incident was closed")?.1);
            }
            Ok(Ok((wire::Recorded { entry }, closing)))
        });
        let (recorded, closing) = ended.await?;
        closed(closing).await;
        make::keep_head(&self.desk, &self.keys).await;
        Ok(recorded)
    }

    pub(super) async fn next_of(&self, incident: IncidentId) -> Answer<wire::Next> {
        let found = self.read(move |recorder| {
            let todo = steps::next(&context(recorder), &incident);
            let progress = recorder.fold().incidents().get(&incident).and_then(|facts| facts.progress.as_ref());
            let is_known = recorder.fold().incidents().contains_key(&incident);
            Ok((incident, is_known, todo.zip(progress.map(|progress| (progress.state, progress.since)))))
        });
        let (incident, is_known, found) = found.await?;
        let (todo, (state, since)) = found.ok_or_else(|| no_progress(&incident, is_known))?;
        Ok(wire::Next { state, since, todo })
    }

    pub(super) async fn story_of(&self, incident: IncidentId, of: wire::StoryOf) -> Answer<wire::Timeline> {
        let known = incident.clone();
        let known = self.read(move |recorder| Ok(recorder.fold().incidents().get(&known).map(|facts| facts.opened)));
        let opened = known.await?.ok_or_else(|| Failure::NotFound { what: format!("incident {incident}") })?;
        let from = of.from.unwrap_or(opened);
        self.scan(move |reader| story::story(reader, incident, (opened, from), wire::Timeline::COUNT_MAX)).await
    }

    pub(super) async fn history_of(&self, incident: IncidentId, device: DeviceId) -> Answer<wire::DeviceHistory> {
        let known = incident.clone();
        let found = self.read(move |recorder| {
            let fold = recorder.fold();
            let mut in_procedure: Vec<_> = fold.incidents().values().filter(|facts| facts.progress.is_some()).collect();
            in_procedure.sort_by_key(|facts| facts.opened);
            let begins = in_procedure.into_iter().map(|facts| {
                let in_force = fold.policies().iter().rev().find(|adopted| adopted.entry < facts.opened);
                let policy = in_force.map(|adopted| adopted.digest);
                history::Beginning { incident: facts.id.clone(), opened: facts.opened, policy }
            });
            Ok((fold.incidents().contains_key(&known), begins.collect::<Vec<_>>()))
        });
        let (is_known, all) = found.await?;
        let of = all.iter().find(|begins| begins.incident == incident).cloned();
        let of = of.ok_or_else(|| no_progress(&incident, is_known))?;
        let items = self.scan(move |reader| history::history(reader, &of, &all, device)).await?;
        let items = items.map_err(|error| Failure::Internal { what: error.to_string() })?;
        if items.is_empty() {
            return Err(Failure::NotFound { what: format!("Device {device} among those of incident {incident}") });
        }
        Ok(wire::DeviceHistory { incident, device, items })
    }

    pub(super) async fn devices_of(&self, incident: IncidentId) -> Answer<Octets> {
        let found = self.read(move |recorder| {
            let facts = recorder.fold().incidents().get(&incident);
            let targets = facts.and_then(|facts| facts.progress.as_ref()).map(|progress| progress.targets.clone());
            Ok((targets, facts.is_some(), incident))
        });
        let (targets, is_known, incident) = found.await?;
        let targets = targets.ok_or_else(|| no_progress(&incident, is_known))?;
        Ok(pieces(move |emit| {
            if emit(DEVICES_HEADER.as_bytes()).is_break() {
                return Ok(());
            }
            let mut line = String::new();
            for target in targets.iter() {
                line.clear();
                write_target(&target, targets.recovered_under(&target), &mut line);
                if emit(line.as_bytes()).is_break() {
                    break;
                }
            }
            Ok(())
        }))
    }
}

/// The moment and the state of a decision on the recorder's thread.
pub(super) fn context(recorder: &Recorder) -> Context<'_> {
    let Moment { at, clock } = recorder.moment();
    Context { fold: recorder.fold(), blobs: recorder, heads: recorder, at, clock }
}

/// The key of the determination that an incident follows.
fn key_of(recorder: &Recorder, incident: &IncidentId) -> Option<KeyLabel> {
    let fold = recorder.fold();
    let determined = fold.incidents().get(incident)?.progress.as_ref()?.determined?;
    fold.determinations().get(&determined.id)?.key.as_ref().map(|(key, _)| key.clone())
}

/// Why nothing is told of how an incident stands in the procedure.
fn no_progress(incident: &IncidentId, is_known: bool) -> Failure {
    Failure::NotFound {
        what: if is_known {
            format!("a procedure for incident {incident}, which was opened under a policy without the steps of one,")
        } else {
            format!("incident {incident}")
        },
    }
}

/// The header line of the Relevant Devices.
const DEVICES_HEADER: &str = "device,smi_status,since,response,left_out,under_dcc_control,handed_over,overridden,outstanding,recovered_under,stranded\n";

/// The line of a Relevant Device.
fn write_target(target: &Target, recovered_under: Option<DeterminationId>, to: &mut String) {
    let response = match target.answer() {
        Proof::None => "none",
        Proof::Failed => "failed",
        Proof::Succeeded => "recovered",
    };
    let stranded = match target.left_behind() {
        None => "no",
        Some(LeftBehind::Stranded) => "yes",
        Some(LeftBehind::Overridden) => "overridden",
    };
    let yes = |is: bool| if is { "yes" } else { "no" };
    let _ = writeln!(
        to,
        "{},{},{},{response},{},{},{},{},{},{},{}",
        target.device,
        target.status,
        target.since,
        yes(target.excluded),
        yes(target.waits_for_hand_over()),
        yes(target.control == Control::HandedOver),
        yes(target.overridden != Overridden::No),
        yes(!target.is_at_end()),
        recovered_under.map(|id| id.to_string()).unwrap_or_default(),
        stranded
    );
}
