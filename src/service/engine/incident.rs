//! Shell: incidents, as the engine answers for them.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Answer, Daemon, answers, check_reason, make, needed_no_longer, reason, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::certificates::pem;
use crate::domain::incident::decide::decide_close;
use crate::domain::incident::targets::{Control, Proof};
use crate::domain::incident::timeline;
use crate::domain::intake::{self, Context, steps};
use crate::domain::ledger::entry::{Entry, Event, IncidentClosed, KeyLocked, SignResult};
use crate::domain::ledger::steps::Step;
use crate::domain::names::{Digest, IncidentId, KeyLabel};
use crate::recorder::Recorder;
use crate::store::Reader;

/// Items of a timeline: what happened in an incident is some hundred entries, but for what is counted together.
const ITEMS_MAX: usize = 10_000;

impl Daemon {
    pub(super) async fn open_incident(&self, caller: &Caller, open: wire::IncidentOpen) -> Answer<wire::Recorded> {
        let actor = caller.actor();
        let certificate = pem::certificate(&open.certificate_pem).map_err(|error| {
            Failure::malformed(
                "certificate_pem",
                "one certificate in PEM",
                &error.to_string(),
                "Send the Compromised one.",
            )
        })?;
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let wire::IncidentOpen { incident, certificate_pem, description, notification } = open;
            let asked = Digest::of(certificate_pem.as_bytes());
            let opened = intake::incident(
                &context(recorder),
                &incident,
                certificate.octets(),
                &description,
                notification.as_ref(),
            );
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
        let (actor, keys) = (caller.actor(), Arc::clone(&self.keys));
        let taken = self.change(move |recorder| {
            let by = recorder.known(actor);
            let about = (Some(incident.clone()), None);
            if by.person.is_none() {
                let text = format!(
                    "account {} belongs to nobody whom the policy in force names; a step of the procedure is taken by a person",
                    by.account
                );
                return refused(recorder, &by, "incident-step", asked, about, vec![reason("asker-unknown", text)]);
            }
            let taken = match steps::step(&context(recorder), &incident, &ask.step) {
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
            // A pause takes effect before the next C_Sign.
            let key = matches!(taken.step, Step::Pause { .. }).then(|| key_of(recorder, &incident)).flatten();
            if key.is_some() {
                keys.fence();
            }
            let entry = recorder.queue(&by, Event::StepTaken(taken))?;
            let mut tokens = Vec::new();
            if let Some(key) = key {
                tokens.extend(keys.remove(&key));
                let reason = format!("incident {incident} was paused").into();
                recorder.queue(&by, Event::KeyLocked(KeyLocked { key, reason }))?;
            }
            Ok(Ok((wire::Recorded { entry }, tokens)))
        });
        let (recorded, tokens) = taken.await?;
        for token in tokens {
            let _ = tokio::task::spawn_blocking(move || token.shutdown()).await;
        }
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
        let closed = self.change(move |recorder| {
            let by = recorder.known(actor);
            let Some(facts) = recorder.fold().incidents().get(&incident) else {
                return Ok(Err(Failure::NotFound { what: format!("incident {incident}") }));
            };
            let mut reasons = Vec::new();
            if facts.closed.is_some() {
                reasons.push(reason("incident-closed", format!("incident {incident} is closed already")));
            } else if let Some(Err(further)) = facts.progress.as_ref().map(decide_close) {
                reasons = further;
            }
            if !reasons.is_empty() {
                let asked = Digest::of(why.reason.as_bytes());
                return refused(recorder, &by, "incident-close", asked, (Some(incident), None), reasons);
            }
            keys.fence();
            let needless = needed_no_longer(recorder.fold(), &incident, &keys);
            let event = Event::IncidentClosed(IncidentClosed { incident, reason: why.reason.into() });
            let entry = recorder.queue(&by, event)?;
            let mut tokens = Vec::new();
            for key in needless {
                tokens.extend(keys.remove(&key));
                let reason = "its incident was closed".into();
                recorder.queue(&by, Event::KeyLocked(KeyLocked { key, reason }))?;
            }
            Ok(Ok((wire::Recorded { entry }, tokens)))
        });
        let (recorded, tokens) = closed.await?;
        for token in tokens {
            let _ = tokio::task::spawn_blocking(move || token.shutdown()).await;
        }
        make::keep_head(&self.desk, &self.keys).await;
        Ok(recorded)
    }

    pub(super) async fn next_of(&self, incident: IncidentId) -> Answer<wire::Next> {
        let found = self.read(move |recorder| {
            let todo = steps::next(&context(recorder), &incident);
            let progress = recorder.fold().incidents().get(&incident).and_then(|facts| facts.progress.as_ref());
            Ok((incident, todo.zip(progress.map(|progress| (progress.state, progress.since)))))
        });
        let (incident, found) = found.await?;
        let (todo, (state, since)) =
            found.ok_or_else(|| Failure::NotFound { what: format!("incident {incident} in the procedure") })?;
        Ok(wire::Next { state, since, todo })
    }

    pub(super) async fn story_of(&self, incident: IncidentId) -> Answer<wire::Timeline> {
        let known = incident.clone();
        let known = self.read(move |recorder| Ok(recorder.fold().incidents().get(&known).map(|facts| facts.opened)));
        let opened = known.await?.ok_or_else(|| Failure::NotFound { what: format!("incident {incident}") })?;
        self.scan(move |reader| {
            let of = wire::EntriesOf { incident: Some(incident), ..wire::EntriesOf::default() };
            let (mut story, mut about) = (Story::default(), answers::About::new(&of));
            reader.leaves(opened..reader.head()?.size, &mut |leaf| {
                if let Ok(entry) = Entry::from_leaf(leaf.octets)
                    && about.takes(leaf.index, &entry)
                {
                    story.add(reader, leaf.index, entry);
                }
                if story.items.len() < ITEMS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            Ok(story.end())
        })
        .await
    }

    pub(super) async fn devices_of(&self, incident: IncidentId) -> Answer<String> {
        let found = self.read(move |recorder| {
            let progress = recorder.fold().incidents().get(&incident).and_then(|facts| facts.progress.as_ref());
            Ok((progress.map(|progress| csv(progress.targets.all())), incident))
        });
        let (csv, incident) = found.await?;
        csv.ok_or_else(|| Failure::NotFound { what: format!("incident {incident} in the procedure") })
    }
}

/// The moment and the state of a decision on the recorder's thread.
fn context(recorder: &Recorder) -> Context<'_> {
    Context { fold: recorder.fold(), blobs: recorder, heads: recorder, at: recorder.moment().at }
}

/// The key of the determination that an incident follows.
fn key_of(recorder: &Recorder, incident: &IncidentId) -> Option<KeyLabel> {
    let fold = recorder.fold();
    let determined = fold.incidents().get(incident)?.progress.as_ref()?.determined?;
    fold.determinations().get(&determined.id)?.key.as_ref().map(|(key, _)| key.clone())
}

fn csv(targets: &[crate::domain::incident::Target]) -> String {
    let mut text = String::from("device,smi_status,since,response,left_out,handed_over,stranded\n");
    for target in targets {
        let response = match target.proof {
            Proof::None => "none",
            Proof::Failed => "failed",
            Proof::Succeeded => "recovered",
        };
        let yes = |is: bool| if is { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "{},{},{},{response},{},{},{}",
            target.device,
            target.status,
            target.since,
            yes(target.excluded),
            yes(target.control == Control::HandedOver),
            yes(target.is_stranded())
        );
    }
    text
}

/// A story as it is told: what comes in thousands is counted.
#[derive(Default)]
struct Story {
    items: Vec<wire::Happened>,
    counted: Option<Counted>,
}

/// Intents in a row, and what became of them.
struct Counted {
    entry: u64,
    at: crate::domain::time::Timestamp,
    who: String,
    intents: u64,
    signed: u64,
    failed: u64,
    not_signed: u64,
    unknown: u64,
}

impl Story {
    fn add(&mut self, reader: &dyn Reader, index: u64, entry: Entry) {
        let Entry { v: _, at, clock: _, by, event } = entry;
        match &event {
            Event::Intent(_) | Event::Outcome(_) => {
                let who = timeline::who(&by);
                let counted = self.counted.get_or_insert(Counted {
                    entry: index,
                    at,
                    who,
                    intents: 0,
                    signed: 0,
                    failed: 0,
                    not_signed: 0,
                    unknown: 0,
                });
                match event {
                    Event::Outcome(outcome) => match outcome.result {
                        SignResult::Signed(_) => counted.signed += 1,
                        SignResult::Failed(_) => counted.failed += 1,
                        SignResult::NotSigned(_) => counted.not_signed += 1,
                        SignResult::Unknown(_) => counted.unknown += 1,
                    },
                    _ => counted.intents += 1,
                }
            }
            event => {
                if let Some(mut what) = timeline::tell(event) {
                    if let Event::DeterminationRecorded(recorded) = event
                        && let Some(document) = answers::determination(reader, recorded.document)
                    {
                        let _ = write!(what, "; {}", timeline::determination(document.form()));
                    }
                    self.flush();
                    self.items.push(wire::Happened { entry: index, at, who: timeline::who(&by), what });
                }
            }
        }
    }

    fn flush(&mut self) {
        let Some(Counted { entry, at, who, intents, signed, failed, not_signed, unknown }) = self.counted.take() else {
            return;
        };
        let mut what = format!("{intents} commands were intended: {signed} signed");
        for (count, text) in [(failed, "failed"), (not_signed, "not signed"), (unknown, "of unknown outcome")] {
            if count > 0 {
                let _ = write!(what, ", {count} {text}");
            }
        }
        self.items.push(wire::Happened { entry, at, who, what });
    }

    fn end(mut self) -> wire::Timeline {
        self.flush();
        wire::Timeline { items: self.items }
    }
}
