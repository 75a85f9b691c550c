//! Shell: each call of the API, as the daemon answers it.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

use tokio::sync::mpsc;

use super::check::Checking;
use super::{
    Answer, Daemon, PIECE_LEN, PIECES_MAX, answers, check_reason, documents, files, jobs, keys, make, procedure,
    reason, refused,
};
use crate::api::engine::{Caller, Engine, Fatal, Octets, Upload};
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::gbcs::{Authentication, Frame};
use crate::domain::intake;
use crate::domain::ledger::entry::{Actor, Event, Reason, Refused, Stopped};
use crate::domain::ledger::proof::Proof;
use crate::domain::names::{
    DeterminationId, DeviceId, Digest, IncidentId, KeyLabel, KeyUse, PersonId, PresentationId, RequestId, TokenName,
};
use crate::domain::policy::facts::{Wanted, WantedForm};
use crate::pipeline::{self, Leave, LeftUnknowns, News, Request, WantedSet};
use crate::recorder::Moment;
use crate::store::StoreError;

/// Signatures that are read at a time.
const SIGNATURES_READ_MAX: usize = 1_000;

/// Signatures that come with one document: a PMA has some dozen members, and each is verified while others wait.
const SIGNATURES_MAX: usize = 32;

/// Reads what is asked to be signed.
fn wanted_of(scope: wire::Scope) -> Answer<WantedSet> {
    Ok(match scope {
        wire::Scope::Devices(wire::Devices::All) => WantedSet::All,
        wire::Scope::Devices(wire::Devices::Listed(devices)) => WantedSet::These(
            devices.into_iter().map(|ask| Wanted { device: ask.device, form: WantedForm::Device }).collect(),
        ),
        wire::Scope::PreCommands(commands) => {
            let mut wanted = Vec::with_capacity(commands.len());
            for (at, octets) in commands.into_iter().enumerate() {
                let malformed = |found: String| {
                    Failure::malformed(
                        &format!("pre_commands[{at}]"),
                        "a GBCS pre-command: DF to the last octet of the payload, no signature",
                        &found,
                        "`smkictl gbcs show` says what it is.",
                    )
                };
                let frame = Frame::parse(&octets.0).map_err(|error| malformed(error.to_string()))?;
                if frame.authentication != Authentication::PreCommand {
                    return Err(malformed("a message with a signature or MAC".into()));
                }
                let device = DeviceId(frame.header.recipient);
                wanted.push(Wanted { device, form: WantedForm::PreCommand(octets.0) });
            }
            WantedSet::These(wanted)
        }
    })
}

impl Engine for Daemon {
    fn alive(&self) -> bool {
        self.failed.borrow().is_none() && self.heartbeat.is_recent()
    }

    async fn cannot_go_on(&self) -> Fatal {
        let mut failed = self.failed.clone();
        let why = failed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    async fn stop(&self, reason: &str) -> Result<(), Failure> {
        // No new intents; what is with a token comes to its outcome. What waits for the ledger token waits in vain: the next
        // start concludes it.
        self.stopping.send_replace(true);
        let is_cut_short = self.in_the_way().is_some();
        if is_cut_short {
            self.desk.give_up();
        }
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
        let locked = self.keys.all_active();
        let mut closing = Vec::new();
        for (key, tokens) in &locked {
            self.keys.remove(key);
            closing.push(keys::shut_down(tokens.clone()));
        }
        keys::closed(closing).await;
        if is_cut_short {
            return Ok(());
        }
        let (reason, keys) = (reason.to_owned(), Arc::clone(&self.keys));
        let stopped = self.desk.record(move |recorder| {
            for (key, _) in locked {
                let event = keys::locked(recorder.fold(), &key, "smkid stops");
                recorder.queue(&Actor::daemon(), event)?;
            }
            make::tell_health(recorder, keys.last_to_tell())?;
            recorder.queue(&Actor::daemon(), Event::Stopped(Stopped { reason: reason.into() }))?;
            Ok(())
        });
        stopped.await?.into_inner();
        make::keep_head(&self.desk, &self.keys).await;
        Ok(())
    }

    async fn turned_away(
        &self,
        caller: &Caller,
        operation: &'static str,
        asked: Digest,
        reason: Reason,
    ) -> Result<Option<u64>, Failure> {
        let actor = caller.actor();
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let refused = Refused {
                operation: operation.into(),
                incident: None,
                determination: None,
                request: None,
                device: None,
                asked,
                reasons: vec![reason],
            };
            recorder.refuse(&by, refused).map(Ok)
        })
        .await
    }

    async fn status(&self, _caller: &Caller) -> Result<wire::Status, Failure> {
        let now = self.clock.now();
        let offset_ms = self.clock.offset_ms();
        let clock = wire::Clock { now: now.at, wall: now.wall, state: now.state, offset_ms };
        let keys = Arc::clone(&self.keys);
        let (not_ready, stopping) = (self.in_the_way(), *self.stopping.borrow());
        let jobs = self.open_jobs();
        let read = self
            .read(move |recorder| Ok((answers::status(recorder, &keys, clock, not_ready, stopping), jobs(recorder))));
        let (status, open) = read.await?;
        let mut status = status.ok_or_else(|| Failure::Internal { what: "the ledger has no genesis".into() })?;
        status.jobs = self.counted(open);
        let checking = self.checking.borrow().as_ref().map(Checking::told);
        status.problems.extend(checking);
        Ok(status)
    }

    async fn incident_open(&self, caller: &Caller, open: wire::IncidentOpen) -> Result<wire::Recorded, Failure> {
        self.open_incident(caller, open).await
    }

    async fn incident_list(&self, _caller: &Caller) -> Result<wire::Incidents, Failure> {
        self.read(|recorder| Ok(answers::incidents(recorder.fold()))).await
    }

    async fn incident_show(&self, _caller: &Caller, incident: IncidentId) -> Result<wire::Incident, Failure> {
        let asked = incident.clone();
        let found = self.read(move |recorder| {
            let fold = recorder.fold();
            Ok(fold.incidents().get(&asked).map(|facts| answers::incident(fold, facts)))
        });
        found.await?.ok_or_else(|| Failure::NotFound { what: format!("incident {incident}") })
    }

    async fn incident_close(
        &self,
        caller: &Caller,
        incident: IncidentId,
        why: wire::Why,
    ) -> Result<wire::Recorded, Failure> {
        self.close_incident(caller, incident, why).await
    }

    async fn incident_step(
        &self,
        caller: &Caller,
        incident: IncidentId,
        ask: wire::StepAsk,
    ) -> Result<wire::Recorded, Failure> {
        self.take_step(caller, incident, ask).await
    }

    async fn incident_next(&self, _caller: &Caller, incident: IncidentId) -> Result<wire::Next, Failure> {
        self.next_of(incident).await
    }

    async fn incident_timeline(
        &self,
        _caller: &Caller,
        incident: IncidentId,
        of: wire::StoryOf,
    ) -> Result<wire::Timeline, Failure> {
        self.story_of(incident, of).await
    }

    async fn incident_devices(&self, _caller: &Caller, incident: IncidentId) -> Result<Octets, Failure> {
        self.devices_of(incident).await
    }

    async fn incident_history(
        &self,
        _caller: &Caller,
        incident: IncidentId,
        device: DeviceId,
    ) -> Result<wire::DeviceHistory, Failure> {
        self.history_of(incident, device).await
    }

    async fn file_submit(
        &self,
        caller: &Caller,
        incident: IncidentId,
        file: wire::FileSubmit,
    ) -> Result<wire::File, Failure> {
        files::submit(self, caller, incident, file).await
    }

    async fn file_list(&self, _caller: &Caller, incident: IncidentId) -> Result<wire::Files, Failure> {
        self.read(move |recorder| Ok(files::list(recorder.fold(), &incident))).await?
    }

    async fn file_statuses(&self, _caller: &Caller, incident: IncidentId, extract: Digest) -> Result<Octets, Failure> {
        files::statuses(self, incident, extract).await
    }

    async fn person_activity(
        &self,
        _caller: &Caller,
        person: PersonId,
        of: wire::ActivityOf,
    ) -> Result<wire::Activity, Failure> {
        let id = person.clone();
        let known = self.read(move |recorder| Ok(files::is_known(recorder.fold(), &id)));
        if !known.await? {
            return Err(Failure::NotFound { what: format!("person {person}") });
        }
        self.scan(move |reader| files::activity(reader, person, &of)).await
    }

    async fn exercise_record(
        &self,
        caller: &Caller,
        exercise: wire::ExerciseRecord,
    ) -> Result<wire::Recorded, Failure> {
        files::record_exercise(self, caller, exercise).await
    }

    async fn upload_devices(
        &self,
        caller: &Caller,
        upload: Upload,
        expected: Option<Digest>,
    ) -> Result<wire::Stored, Failure> {
        self.upload(caller, upload, expected).await
    }

    async fn upload(
        &self,
        caller: &Caller,
        mut upload: Upload,
        expected: Option<Digest>,
    ) -> Result<wire::Stored, Failure> {
        let at = self.clock.now().at;
        let taken = |error: crate::store::StagingError| Failure::from(StoreError::from(error));
        let mut staged = self.staging.begin(&caller.account, at, u64::MAX).map_err(taken)?;
        while let Some(piece) = upload.next().await {
            let piece = piece?;
            let written = tokio::task::spawn_blocking(move || {
                staged.write(&piece)?;
                Ok::<_, crate::store::StagingError>(staged)
            });
            staged = written.await.map_err(|error| Failure::Internal { what: error.to_string() })?.map_err(taken)?;
        }
        let (sha256, len) = staged.finish().map_err(taken)?;
        match expected.filter(|expected| *expected != sha256) {
            None => Ok(wire::Stored { sha256, len }),
            Some(expected) => Err(Failure::malformed(
                "body",
                &format!("octets of SHA-256 {expected}, as announced"),
                &sha256.to_string(),
                "Send it again.",
            )),
        }
    }

    async fn document_record(
        &self,
        caller: &Caller,
        document: wire::Document,
    ) -> Result<wire::DocumentRecorded, Failure> {
        if document.signatures.len() > SIGNATURES_MAX {
            let found = document.signatures.len().to_string();
            let expected = format!("at most {SIGNATURES_MAX} signatures");
            return Err(Failure::malformed("signatures", &expected, &found, "Send each member's signature once."));
        }
        let actor = caller.actor();
        let keys = Arc::clone(&self.keys);
        let counted = self.count(&document).await?;
        if let (Some(Ok(_)), Some(list)) = (&counted, document.devices) {
            self.bring(list).await?;
        }
        let recorded = self.change(move |recorder| {
            let by = recorder.known(actor);
            documents::record_document(recorder, &by, &keys, document, counted)
        });
        let (recorded, closing) = recorded.await?;
        keys::closed(closing).await;
        // What the people decided is not to be undone by putting an older copy of the state in the place of this one.
        make::keep_head(&self.desk, &self.keys).await;
        Ok(recorded)
    }

    async fn determination_list(&self, _caller: &Caller) -> Result<wire::Determinations, Failure> {
        self.read(answers::determinations).await
    }

    async fn determination_show(
        &self,
        _caller: &Caller,
        determination: DeterminationId,
    ) -> Result<wire::Determination, Failure> {
        let found = self.read(move |recorder| {
            let facts = recorder.fold().determinations().get(&determination);
            facts.map(|facts| answers::determined(recorder, facts)).transpose()
        });
        found.await?.ok_or_else(|| Failure::NotFound { what: format!("determination {determination}") })
    }

    async fn policy_show(&self, _caller: &Caller) -> Result<wire::Policy, Failure> {
        let found = self.read(answers::policy).await?;
        found.ok_or_else(|| Failure::NotFound { what: "a policy".into() })
    }

    async fn procedure_explain(&self, _caller: &Caller, of: wire::ProcedureOf) -> Result<wire::Explanation, Failure> {
        let now = self.clock.now().at;
        self.read(move |recorder| Ok(procedure::explained(recorder.fold(), &of, now))).await?
    }

    async fn key_activate(
        &self,
        caller: &Caller,
        key: KeyLabel,
        activate: wire::KeyActivate,
    ) -> Result<wire::KeyChanged, Failure> {
        self.activate(caller, key, activate.incident).await
    }

    async fn custodian_present(
        &self,
        caller: &Caller,
        key: KeyLabel,
        present: wire::Present,
    ) -> Result<wire::PresentationBegun, Failure> {
        self.begin_presentation(caller, key, present).await
    }

    async fn ceremony_record(&self, caller: &Caller, record: wire::CeremonyRecord) -> Result<wire::Recorded, Failure> {
        self.record_ceremony(caller, record).await
    }

    async fn custodian_share(
        &self,
        caller: &Caller,
        (key, presentation): (KeyLabel, PresentationId),
        share: wire::SealedShare,
    ) -> Result<wire::Presented, Failure> {
        self.end_presentation(caller, (key, presentation), share.sealed.0).await
    }

    async fn key_lock(&self, caller: &Caller, key: KeyLabel) -> Result<wire::KeyChanged, Failure> {
        let actor = caller.actor();
        let keys = Arc::clone(&self.keys);
        let label = key.clone();
        let is_open = self.keys.active(&key).is_some() || self.keys.vault(&key).is_some();
        if let (Some(trouble), true) = (self.in_the_way(), is_open) {
            return self.lock_unrecorded(actor, key, trouble).await;
        }
        let changed = self.change(move |recorder| {
            let by = recorder.known(actor);
            if recorder.fold().keys().get(&label).is_none_or(|facts| facts.record.use_ == KeyUse::Ledger) {
                return Ok(Err(Failure::NotFound { what: format!("key {label} that can be locked") }));
            }
            let (entry, closing) = keys::lock(recorder, &by, &keys, &label, "on demand")?;
            Ok(match answers::key_state(recorder, &keys, &label) {
                Some(key) => Ok((wire::KeyChanged { entry, key }, closing)),
                None => Err(Failure::NotFound { what: format!("key {label}") }),
            })
        });
        let (changed, closing) = changed.await?;
        keys::closed(closing).await;
        make::keep_head(&self.desk, &self.keys).await;
        Ok(changed)
    }

    async fn key_symmetric_release(
        &self,
        caller: &Caller,
        key: KeyLabel,
        release: wire::SymmetricRelease,
    ) -> Result<wire::SymmetricReleased, Failure> {
        self.release_symmetric(caller, key, release).await
    }

    async fn recovery_sign(
        &self,
        caller: &Caller,
        sign: wire::RecoverySign,
        form: wire::Form,
    ) -> Result<Octets, Failure> {
        let asked = answers::digest_of(&sign)?;
        let (id, determination) = (sign.request, sign.determination);
        let scope = sign.into_scope().ok_or_else(|| {
            Failure::malformed("body", "either devices or pre_commands", "both or neither", "Send one of the two.")
        })?;
        let wanted = wanted_of(scope)?;
        let (by, operation, chunk) = (caller.actor(), pipeline::SIGN, self.chunk);
        self.accept(Request { by, operation, id, asked, determination, wanted, chunk }, form).await
    }

    async fn recovery_fetch(
        &self,
        caller: &Caller,
        request: RequestId,
        fetch: wire::RecoveryFetch,
        form: wire::Form,
    ) -> Result<Octets, Failure> {
        self.fetch(caller, request, fetch, form).await
    }

    async fn recovery_request(&self, _caller: &Caller, request: RequestId) -> Result<wire::RequestState, Failure> {
        let running = self.is_open(request).await?;
        let found = self.scan(move |reader| answers::request(reader, request, running)).await?;
        found.ok_or_else(|| Failure::NotFound { what: format!("request {request}") })
    }

    async fn recovery_unknowns(&self, _caller: &Caller, of: wire::UnknownsOf) -> Result<wire::Unknowns, Failure> {
        let determination = of.determination;
        let key = self.read(move |recorder| {
            Ok(recorder.fold().determinations().get(&determination).map(|facts| facts.key.clone()))
        });
        match key.await? {
            None => Err(Failure::NotFound { what: format!("determination {determination}") }),
            Some(None) => Ok(wire::Unknowns { unknowns: Vec::new(), more: false }),
            Some(Some((key, _))) => self.look(move |reader| answers::unknowns(reader, &key, determination)).await,
        }
    }

    async fn recovery_settle(
        &self,
        caller: &Caller,
        settle: wire::RecoverySettle,
        form: wire::Form,
    ) -> Result<Octets, Failure> {
        let asked = answers::digest_of(&settle)?;
        check_reason(&settle.reason)?;
        let wire::RecoverySettle { request, determination, devices, action, reason } = settle;
        let devices = match devices {
            wire::Devices::All => None,
            wire::Devices::Listed(devices) => Some(devices.into_iter().map(|ask| ask.device).collect::<Vec<_>>()),
        };
        match action {
            wire::SettleAction::Retry => {
                let wanted = devices.map_or(WantedSet::Unknowns, |devices| {
                    let again = |device| Wanted { device, form: WantedForm::Retry };
                    WantedSet::These(devices.into_iter().map(again).collect())
                });
                let (by, operation, id, chunk) = (caller.actor(), pipeline::SETTLE, request, self.chunk);
                self.accept(Request { by, operation, id, asked, determination, wanted, chunk }, form).await
            }
            wire::SettleAction::Leave => {
                let leave = Leave { by: caller.actor(), id: request, asked, determination, devices, why: reason };
                let left = self.change(move |recorder| {
                    Ok(match pipeline::leave(recorder, leave)? {
                        None => Err(Failure::NotFound { what: format!("determination {determination}") }),
                        Some(Err((reasons, entry))) => Err(Failure::Refused { reasons, entry }),
                        Some(Ok(left)) => Ok((left, answers::header(recorder.fold(), determination, request))),
                    })
                });
                let (left, header) = left.await?;
                if header.is_none() && form != wire::Form::Ndjson {
                    // One that is not to execute opens no key, so nothing under it can be unknown.
                    return Err(Failure::NotFound { what: format!("a key of determination {determination}") });
                }
                let LeftUnknowns { told, more } = left;
                let (news, heard) = mpsc::channel(1);
                let (pieces, octets) = mpsc::channel(PIECES_MAX);
                tokio::spawn(async move {
                    let _ = news.send(News::Devices(told)).await;
                    if more {
                        let most = pipeline::UNKNOWNS_MAX;
                        let text = format!("one request leaves {most} unknowns at most; there are more: ask again");
                        let _ = news.send(News::Stopped(vec![super::reason("unknowns-left", text)])).await;
                    }
                });
                tokio::spawn(async move {
                    if let Some((summary, writer)) = answers::parts(heard, &pieces, form, header, false).await {
                        answers::end(summary, writer, &pieces).await;
                    }
                });
                Ok(octets)
            }
        }
    }

    async fn recovery_responses(&self, caller: &Caller, ask: wire::RecoveryResponses) -> Result<Octets, Failure> {
        self.take_responses(caller, ask).await
    }

    async fn recovery_certificates(
        &self,
        caller: &Caller,
        ask: wire::DeviceCertificates,
    ) -> Result<wire::CertificatesImported, Failure> {
        self.import_certificates(caller, ask).await
    }

    async fn recovery_devices(&self, _caller: &Caller, of: wire::DevicesOf) -> Result<wire::RecoveryDevices, Failure> {
        self.devices(of).await
    }

    async fn recovery_resume(&self, caller: &Caller, ask: wire::RecoveryResume) -> Result<wire::Recorded, Failure> {
        self.resume(caller, ask).await
    }

    async fn job_start(&self, caller: &Caller, start: wire::JobStart) -> Result<wire::Job, Failure> {
        self.start_job(caller, start).await
    }

    async fn job_list(&self, _caller: &Caller, of: wire::JobsOf) -> Result<wire::Jobs, Failure> {
        self.list_jobs(of).await
    }

    async fn job_show(&self, _caller: &Caller, request: RequestId) -> Result<wire::Job, Failure> {
        self.show_job(request).await
    }

    async fn job_pause(&self, caller: &Caller, request: RequestId, why: wire::Why) -> Result<wire::Job, Failure> {
        self.stop_job(caller, request, jobs::Stop::Pause, why.reason).await
    }

    async fn job_resume(&self, caller: &Caller, request: RequestId) -> Result<wire::Job, Failure> {
        self.resume_job(caller, request).await
    }

    async fn job_cancel(&self, caller: &Caller, request: RequestId, why: wire::Why) -> Result<wire::Job, Failure> {
        self.stop_job(caller, request, jobs::Stop::Cancel, why.reason).await
    }

    async fn hsm_status(&self, _caller: &Caller) -> Result<wire::Tokens, Failure> {
        self.tokens().await
    }

    async fn hsm_retry_login(&self, caller: &Caller, token: TokenName) -> Result<wire::LoginRetried, Failure> {
        self.retry_login(caller, token).await
    }

    async fn clock_accept(&self, caller: &Caller, ask: wire::ClockAccept) -> Result<wire::Recorded, Failure> {
        check_reason(&ask.reason)?;
        let actor = caller.actor();
        let clock = Arc::clone(&self.clock);
        self.change(move |recorder| {
            let by = recorder.known(actor);
            let wire::ClockAccept { time, reason: why } = ask;
            if let Err(reasons) = intake::person(recorder.fold(), &by) {
                return refused(recorder, &by, "clock-accept", Digest::of(why.as_bytes()), (None, None), reasons);
            }
            match clock.accept(time) {
                Ok(now) => {
                    let from = Moment { at: now.at, clock: now.state };
                    Ok(Ok(wire::Recorded { entry: recorder.accept_clock(&by, why.into(), from)? }))
                }
                Err(not_accepted) => {
                    let (asked, text) = (Digest::of(why.as_bytes()), not_accepted.to_string());
                    refused(recorder, &by, "clock-accept", asked, (None, None), vec![reason("clock", text)])
                }
            }
        })
        .await
    }

    async fn ledger_checkpoint(&self, _caller: &Caller) -> Result<String, Failure> {
        let newest = self.look(|reader| reader.latest_checkpoint()).await?;
        let newest = newest.ok_or_else(|| Failure::NotFound { what: "a checkpoint".into() })?;
        String::from_utf8(newest.note).map_err(|error| Failure::Internal { what: error.to_string() })
    }

    async fn ledger_checkpoints(&self, _caller: &Caller) -> Result<wire::Checkpoints, Failure> {
        self.look(|reader| {
            let all = reader.checkpoints(0, usize::MAX)?;
            let notes = all.into_iter().map(|checkpoint| String::from_utf8_lossy(&checkpoint.note).into_owned());
            Ok(wire::Checkpoints { checkpoints: notes.collect() })
        })
        .await
    }

    async fn ledger_leaves(&self, _caller: &Caller, range: wire::LeafRange) -> Result<Octets, Failure> {
        let size = self.look(|reader| reader.head()).await?.size;
        let (from, until) = (range.from.min(size), range.until.min(size));
        self.stream(move |reader, emit| {
            reader.leaves(from..until.max(from), &mut |leaf| {
                let len = u16::try_from(leaf.octets.len()).expect("a leaf has at most 65,535 octets").to_be_bytes();
                if emit(&len).is_break() { ControlFlow::Break(()) } else { emit(leaf.octets) }
            })
        })
    }

    async fn ledger_signatures(&self, _caller: &Caller, range: wire::LeafRange) -> Result<Octets, Failure> {
        self.stream(move |reader, emit| {
            let mut from = range.from;
            loop {
                let page = reader.released_from(from, SIGNATURES_READ_MAX)?;
                let Some((last, _)) = page.last() else { return Ok(()) };
                from = last + 1;
                for (intent, octets) in page.iter().take_while(|(intent, _)| *intent < range.until) {
                    if emit(&intent.to_be_bytes()).is_break() || emit(octets).is_break() {
                        return Ok(());
                    }
                }
                if from >= range.until {
                    return Ok(());
                }
            }
        })
    }

    async fn ledger_entries(&self, _caller: &Caller, of: wire::EntriesOf) -> Result<wire::Entries, Failure> {
        self.scan(move |reader| answers::entries(reader, &of)).await
    }

    async fn ledger_proof(&self, _caller: &Caller, index: u64) -> Result<String, Failure> {
        let proof = self.look(move |reader| {
            let Some(newest) = reader.latest_checkpoint()?.filter(|newest| index < newest.head.size) else {
                return Ok(None);
            };
            let path = reader.inclusion_path(index, newest.head.size)?;
            Ok(Some(Proof { index, path, checkpoint: newest.note }))
        });
        let proof =
            proof.await?.ok_or_else(|| Failure::NotFound { what: format!("entry {index} under a checkpoint") })?;
        String::from_utf8(proof.to_octets()).map_err(|error| Failure::Internal { what: error.to_string() })
    }

    async fn ledger_blobs(&self, _caller: &Caller) -> Result<wire::Blobs, Failure> {
        self.scan(answers::blobs).await
    }

    async fn ledger_blob(&self, _caller: &Caller, sha256: Digest) -> Result<Octets, Failure> {
        self.look(move |reader| match reader.blob_len(sha256)? {
            Some(_) => Ok(()),
            None => Err(StoreError::NoSuchBlob { digest: sha256 }),
        })
        .await?;
        self.stream(move |reader, emit| {
            let mut blob = reader.open_blob(sha256)?;
            let mut piece = vec![0; PIECE_LEN];
            loop {
                let len = blob.read(&mut piece).map_err(|error| StoreError::File {
                    doing: "read",
                    path: format!("blob {sha256}").into(),
                    source: error,
                })?;
                if len == 0 || emit(&piece[..len]).is_break() {
                    return Ok(());
                }
            }
        })
    }
}
