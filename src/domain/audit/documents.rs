//! Pure. What was recorded, decided again: the same documents, the same signatures, the state of then; and the event must come out
//! the same.

use serde::Serialize;

use super::{Audit, Evidence, Permitted, demand, text, whole};
use crate::domain::certificates::bodies::is_certification_request_info;
use crate::domain::custody::Statement;
use crate::domain::determination::devices::DeviceListReader;
use crate::domain::determination::document::{
    Determination, DeviceList, Schedule, Suspension, Template, Withdrawal, Written,
};
use crate::domain::files::FILE_LEN_MAX;
use crate::domain::fold::{self, Book, Fold, book};
use crate::domain::intake::{self, Context, Heads, KeyMeant, Opening, Submission, jobs, steps};
use crate::domain::ledger::ceremonies::CeremonyRecorded;
use crate::domain::ledger::custody::CustodianPresented;
use crate::domain::ledger::entry::{
    CertificateImported, CertificationIntent, DeterminationRecorded, DeterminationSuspended, DeterminationWithdrawn,
    DirectionRecorded, Entry, Event, ExerciseRecorded, FileAccepted, IncidentClosed, IncidentOpened, JobCancelled,
    JobPaused, JobResumed, KeyActivated, KeyDestroyed, KeyDestruction, KeyLocked, LoginRetried, PolicyAdopted, Reason,
    ScheduleRecorded, Settled, SignatureRecord, TokenFound, TokenHealth,
};
use crate::domain::ledger::transcript::TRANSCRIPT_LEN_MAX;
use crate::domain::names::{Digest, KeyUse};
use crate::domain::policy::Activation;
use crate::domain::policy::adoption::Adoption;
use crate::domain::policy::destruction::Destruction;
use crate::domain::policy::facts::{Ending, IntentState};
use crate::domain::procedure::direction::Direction;
use crate::domain::time::Timestamp;

pub(super) fn permitted<T>(decided: Result<T, Vec<Reason>>) -> Result<T, String> {
    decided.map_err(|reasons| {
        let reasons: Vec<String> = reasons.iter().map(|Reason { rule, text }| format!("{rule}: {text}")).collect();
        format!("it was not permitted: {}", reasons.join("; "))
    })
}

/// The event that the functions of intake give, against the one that was recorded.
pub(super) fn compare<T: PartialEq + Serialize>(decided: Result<T, Vec<Reason>>, recorded: &T) -> Permitted {
    let decided = permitted(decided)?;
    demand(decided == *recorded, || {
        let say = |event: &T| serde_json::to_string(event).unwrap_or_else(|error| error.to_string());
        format!("expected {}, found {}", say(&decided), say(recorded))
    })
}

fn check_health(health: &TokenHealth) -> Permitted {
    demand(health.from != health.to || health.folded > 0, || {
        format!("expected a change of how token {} stands", health.token)
    })
}

fn check_retried(retried: &LoginRetried, at: Timestamp) -> Permitted {
    demand(retried.asked <= at, || format!("it was asked for at {}, after the entry", retried.asked))
}

/// What was taken in, taken in again with the state, the documents and the signed heads of then. The audit asks it of every
/// entry, and so does each start: whoever can write to the disk could have put them there.
#[derive(Clone, Copy)]
pub struct Again<'a> {
    /// The state before the entry.
    pub fold: &'a Fold,
    /// What that state keeps of Devices.
    pub book: &'a dyn Book,
    /// The documents.
    pub evidence: &'a dyn Evidence,
    /// The heads signed before the entry.
    pub heads: &'a dyn Heads,
}

impl Again<'_> {
    /// Whether this entry is the very one that the documents and the signatures it names come to, by somebody who may record it.
    /// What a token was asked for and what came of it (intents, outcomes, releases, certification) is not looked at here: the
    /// audit follows it signature by signature.
    pub fn check(&self, entry: &Entry) -> Result<(), String> {
        self.check_all_but_answers(entry)?;
        match &entry.event {
            Event::ResponsesTaken(taken) => self.check_responses(taken, entry.at),
            Event::DeviceCertificatesImported(imported) => self.check_device_certificates(imported, entry.at),
            _ => Ok(()),
        }
    }

    /// As [`Again::check`], but that the messages and certificates of Devices are not verified again.
    pub fn check_all_but_answers(&self, entry: &Entry) -> Result<(), String> {
        self.check_clock(entry)?;
        self.check_actor(entry)?;
        self.check_part(entry)?;
        let at = entry.at;
        match &entry.event {
            Event::PolicyAdopted(adopted) => self.check_policy(adopted, entry),
            Event::CertificateImported(imported) => self.check_certificate(imported, entry),
            Event::IncidentOpened(opened) => self.check_incident(opened, entry),
            Event::StepTaken(taken) => compare(steps::step(&self.context(entry), &taken.incident, &taken.step), taken),
            Event::IncidentClosed(closed) => self.check_closing(closed, entry),
            Event::DeterminationRecorded(recorded) => self.check_determination(recorded, entry),
            Event::ScheduleRecorded(recorded) => self.check_schedule(recorded, entry),
            Event::DeterminationSuspended(suspended) => self.check_suspension(suspended, entry),
            Event::DeterminationWithdrawn(withdrawn) => self.check_withdrawal(withdrawn, entry),
            Event::DirectionRecorded(recorded) => self.check_direction(recorded, entry),
            Event::KeyCopied(copied) => permitted(intake::may_copy(self.fold, copied)),
            Event::SharesBegun(begun) => permitted(intake::may_begin_deal(self.fold, begun, at)),
            Event::SharesDealt(dealt) => permitted(intake::may_deal(self.fold, dealt)),
            Event::CustodianPresented(presented) => self.check_presentation(presented, entry),
            Event::KeyMade(made) => permitted(intake::may_make(self.fold, &made.key)),
            Event::KeyDestruction(destruction) => self.check_destruction(destruction, entry),
            Event::KeyDestroyed(destroyed) => self.check_destroyed(destroyed),
            Event::CeremonyRecorded(recorded) => self.check_ceremony(recorded, entry),
            Event::KeyActivated(activated) => self.check_activation(activated, entry),
            Event::KeyLocked(locked) => self.check_lock(locked),
            Event::Batch(batch) => self.check_batch(batch, entry),
            Event::Settled(settled) => self.check_settled(settled),
            Event::SigningResumed(resumed) => self.check_resumption(resumed, at),
            Event::RefusalsFolded(folded) => demand(folded.count > 0 && folded.since <= at, || {
                "expected a count of at least 1 since a moment before".into()
            }),
            Event::TokenHealth(health) => check_health(health),
            Event::LoginRetried(retried) => check_retried(retried, at),
            Event::FileAccepted(accepted) => self.check_file(accepted, entry),
            Event::ExerciseRecorded(recorded) => {
                let ExerciseRecorded { at: of, report, note } = recorded;
                compare(intake::exercise(*of, *report, note, at), recorded)
            }
            Event::JobStarted(started) => self.check_job(started, entry),
            Event::JobPassed(passed) => self.check_passed(passed, entry),
            Event::JobPaused(JobPaused { request, reason }) => permitted(jobs::may_pause(self.fold, *request, reason)),
            Event::JobResumed(JobResumed { request }) => permitted(jobs::may_resume(self.fold, *request)),
            Event::JobCancelled(JobCancelled { request, reason }) => {
                permitted(jobs::may_cancel(self.fold, *request, reason))
            }
            Event::JobEnded(ended) => self.check_job_ended(ended),
            Event::ContingencyPrepared(prepared) => self.check_prepared(prepared),
            Event::RootImported(imported) => self.check_root(imported, entry),
            Event::ContingencyChecked(checked) => self.check_checked(checked),
            Event::SymmetricKeySpent(spent) => self.check_spent(spent, entry),
            Event::SymmetricRelease(release) => self.check_release_of(release, entry),
            Event::Genesis(_)
            | Event::CertificationIntent(_)
            | Event::Started(_)
            | Event::Stopped(_)
            | Event::Snapshot(_)
            | Event::Intent(_)
            | Event::Outcome(_)
            | Event::Released(_)
            | Event::Refused(_)
            | Event::ClockJumped(_)
            | Event::ClockAccepted(_)
            | Event::SymmetricReleased(_)
            | Event::ResponsesTaken(_)
            | Event::DeviceCertificatesImported(_) => Ok(()),
        }
    }

    pub(super) fn context(&self, entry: &Entry) -> Context<'_> {
        Context { fold: self.fold, blobs: self.evidence, heads: self.heads, at: entry.at, clock: entry.clock }
    }

    fn blob(&self, digest: Digest) -> Result<Vec<u8>, String> {
        self.evidence.blob(digest).map_err(text)
    }

    /// The files of signatures, each once: one file may hold several signatures.
    fn signatures(&self, records: &[SignatureRecord]) -> Result<Vec<Vec<u8>>, String> {
        let mut digests: Vec<Digest> = Vec::new();
        for record in records {
            if !digests.contains(&record.p7s) {
                digests.push(record.p7s);
            }
        }
        digests.into_iter().map(|digest| self.blob(digest)).collect()
    }

    fn device_list(&self, digest: Digest, templates: &[Template]) -> Result<DeviceList, String> {
        let max = self.fold.policy().map_or(0, |adopted| adopted.policy.limits().devices_max);
        let names = templates.iter().map(|template| &template.name);
        let mut reader = DeviceListReader::new(names, max);
        self.evidence.stream(digest, &mut |piece| reader.feed(piece, |_| {})).map_err(text)?;
        reader.finish().map_err(|faults| format!("device list {digest}: {faults}"))
    }

    fn check_policy(&self, recorded: &PolicyAdopted, entry: &Entry) -> Permitted {
        let document: Written<Adoption> = fold::read(recorded.document, self.evidence).map_err(text)?;
        let new = book::read_policy(recorded.policy, self.evidence).map_err(text)?;
        let (genesis, _) = self.fold.genesis().ok_or("no genesis entry stands before it")?;
        demand(genesis.purpose == new.purpose() && genesis.origin == *new.origin(), || {
            format!(
                "the ledger is {} and {}, the policy {} and {}",
                genesis.purpose,
                genesis.origin,
                new.purpose(),
                new.origin()
            )
        })?;
        let signatures = self.signatures(&recorded.signatures)?;
        let submission = Submission { signatures: &signatures, devices: None };
        compare(intake::policy(&self.context(entry), &document, &new, &submission), recorded)
    }

    fn check_certificate(&self, recorded: &CertificateImported, entry: &Entry) -> Permitted {
        let certificate = self.blob(recorded.certificate)?;
        let path = recorded.path.iter().map(|digest| self.blob(*digest)).collect::<Result<Vec<_>, _>>()?;
        compare(intake::certificate(&self.context(entry), &recorded.key, &certificate, &path), recorded)
    }

    fn check_closing(&self, recorded: &IncidentClosed, entry: &Entry) -> Permitted {
        compare(intake::steps::closing(&self.context(entry), &recorded.incident, &recorded.reason), recorded)
    }

    fn check_incident(&self, recorded: &IncidentOpened, entry: &Entry) -> Permitted {
        let certificate = self.blob(recorded.compromised.certificate_sha256)?;
        let IncidentOpened { incident, compromised: _, key, description, notification, profile: _ } = recorded;
        let opening = Opening {
            incident,
            certificate: &certificate,
            key: KeyMeant::Recorded(*key),
            description,
            notification: notification.as_ref(),
        };
        let decided = intake::incident(&self.context(entry), opening);
        compare(decided, recorded)
    }

    fn check_determination(&self, recorded: &DeterminationRecorded, entry: &Entry) -> Permitted {
        let document: Written<Determination> = fold::read(recorded.document, self.evidence).map_err(text)?;
        let devices = match (recorded.devices, document.form().scope()) {
            (None, _) => None,
            (Some(digest), Some(scope)) => Some(self.device_list(digest, scope.templates)?),
            (Some(digest), None) => return Err(format!("it has device list {digest}, and the document names none")),
        };
        let signatures = self.signatures(&recorded.signatures)?;
        let submission = Submission { signatures: &signatures, devices };
        compare(intake::determination(&self.context(entry), &document, &submission), recorded)
    }

    fn check_schedule(&self, recorded: &ScheduleRecorded, entry: &Entry) -> Permitted {
        let document: Written<Schedule> = fold::read(recorded.document, self.evidence).map_err(text)?;
        let devices = Some(self.device_list(recorded.devices, document.form().scope().templates)?);
        let signatures = self.signatures(&recorded.signatures)?;
        let submission = Submission { signatures: &signatures, devices };
        compare(intake::schedule(&self.context(entry), &document, &submission), recorded)
    }

    fn check_suspension(&self, recorded: &DeterminationSuspended, entry: &Entry) -> Permitted {
        let document: Written<Suspension> = fold::read(recorded.document, self.evidence).map_err(text)?;
        let signatures = self.signatures(&recorded.signatures)?;
        let submission = Submission { signatures: &signatures, devices: None };
        compare(intake::suspension(&self.context(entry), &document, &submission), recorded)
    }

    fn check_withdrawal(&self, recorded: &DeterminationWithdrawn, entry: &Entry) -> Permitted {
        let document: Written<Withdrawal> = fold::read(recorded.document, self.evidence).map_err(text)?;
        let signatures = self.signatures(&recorded.signatures)?;
        let submission = Submission { signatures: &signatures, devices: None };
        compare(intake::withdrawal(&self.context(entry), &document, &submission), recorded)
    }

    fn check_file(&self, recorded: &FileAccepted, entry: &Entry) -> Permitted {
        // A table of Devices is as long as they are many: no document.
        let octets = whole(self.evidence, recorded.file, FILE_LEN_MAX)?;
        let p7s = recorded.signature.as_ref().map(|signature| self.blob(signature.p7s)).transpose()?;
        let FileAccepted { incident, kind, .. } = recorded;
        compare(intake::file_at_once(&self.context(entry), incident, *kind, &octets, p7s.as_deref()), recorded)
    }

    fn check_direction(&self, recorded: &DirectionRecorded, entry: &Entry) -> Permitted {
        let document: Written<Direction> = fold::read(recorded.document, self.evidence).map_err(text)?;
        if let Some(text) = recorded.text {
            self.evidence.stream(text, &mut |_| ()).map_err(super::text)?;
        }
        let signatures = self.signatures(&recorded.signatures)?;
        let submission = Submission { signatures: &signatures, devices: None };
        compare(intake::direction(&self.context(entry), &document, recorded.text, &submission), recorded)
    }

    fn check_destruction(&self, recorded: &KeyDestruction, entry: &Entry) -> Permitted {
        let document: Written<Destruction> = fold::read(recorded.document, self.evidence).map_err(text)?;
        let signatures = self.signatures(&recorded.signatures)?;
        let submission = Submission { signatures: &signatures, devices: None };
        compare(intake::destruction(&self.context(entry), &document, &submission), recorded)
    }

    /// It was found absent on every token that the document names.
    fn check_destroyed(&self, destroyed: &KeyDestroyed) -> Permitted {
        let facts = self.fold.keys().get(&destroyed.key);
        let Some(Ending::Begun { document, .. }) = facts.and_then(|facts| facts.ending) else {
            return Err(format!("no destruction of key {} was begun", destroyed.key));
        };
        let document: Written<Destruction> = fold::read(document, self.evidence).map_err(text)?;
        permitted(intake::may_end(self.fold, document.form(), destroyed))
    }

    /// Its plan and its transcript are there.
    fn check_ceremony(&self, recorded: &CeremonyRecorded, entry: &Entry) -> Permitted {
        self.evidence.stream(recorded.plan, &mut |_| ()).map_err(text)?;
        let transcript = whole(self.evidence, recorded.transcript, TRANSCRIPT_LEN_MAX)?;
        permitted(intake::may_record(self.fold, recorded, &transcript, entry.at))
    }

    fn check_presentation(&self, recorded: &CustodianPresented, entry: &Entry) -> Permitted {
        let document: Written<Statement> = fold::read(recorded.statement, self.evidence).map_err(text)?;
        let signatures = vec![self.blob(recorded.signature.p7s)?];
        let submission = Submission { signatures: &signatures, devices: None };
        compare(intake::presentation(&self.context(entry), &document, &submission), recorded)
    }

    /// The key is there, and on tokens that the policy gives it and a ceremony found it on; and activated for one incident, where
    /// any was before.
    fn check_activation(&self, activated: &KeyActivated, entry: &Entry) -> Permitted {
        let at = entry.at;
        let KeyActivated { key, token: _, serial: _, until, incident, profile, also: _, custodians } = activated;
        if let Some(incident) = incident {
            let on =
                activated.tokens().map(|(token, serial)| TokenFound { token: token.clone(), serial: serial.into() });
            let decided = intake::activation(&self.context(entry), &entry.by, (key, incident), on.collect());
            let names_none = profile.is_none() && !self.fold.profiles_named();
            let decided =
                decided.map(|decided| if names_none { KeyActivated { profile: None, ..decided } } else { decided });
            return compare(decided, activated);
        }
        demand(custodians.is_empty(), || "Key Custodians open a key for one incident, and it names none".into())?;
        demand(!self.fold.activations_bound(), || {
            "it names no incident, and an activation before it did: from then on a key is active for one alone".into()
        })?;
        let facts = self.fold.keys().get(key).ok_or_else(|| format!("the ledger has no key {key}"))?;
        demand(facts.shares.is_none(), || "shares of it were dealt, and no Key Custodians opened it".into())?;
        let policy = &self.fold.policy().ok_or("no policy is in force yet")?.policy;
        let is_asked = policy.key(key).is_some_and(|key| key.activation == Activation::ProtectedPath);
        demand(!is_asked, || "the policy has the HSM ask Key Custodians, who open a key for one incident".into())?;
        facts.may_be_on(policy, activated.tokens()).map_err(text)?;
        demand(until.is_none_or(|until| until > at), || "it is active until a moment that is over".into())
    }
}

impl Again<'_> {
    /// The incident that stands still is the one for which the key was active.
    fn check_lock(&self, locked: &KeyLocked) -> Permitted {
        let active_for = self.fold.keys().get(&locked.key).and_then(|facts| facts.active_for.as_ref());
        demand(locked.incident.is_none() || locked.incident.as_ref() == active_for, || {
            format!("key {} was not active for the incident that it names", locked.key)
        })
    }

    fn check_settled(&self, settled: &Settled) -> Permitted {
        let last = self.book.device(&settled.key, settled.device).map_err(text)?;
        let unknown = last.is_some_and(|last| {
            last.intent == settled.intent
                && last.determination == settled.determination
                && last.state == IntentState::Unknown
        });
        demand(unknown, || {
            let (intent, device) = (settled.intent, settled.device);
            format!(
                "what became of intent {intent} is not unknown, or it is not the last for Device {device} under determination {}",
                settled.determination
            )
        })
    }
}

impl Audit<'_> {
    /// Documents with the state as it was.
    pub(super) fn again(&self) -> Again<'_> {
        Again { fold: &self.fold, book: &self.book, evidence: self.evidence, heads: self }
    }

    pub(super) fn check_certification(&self, intent: &CertificationIntent) -> Permitted {
        let key = self.keys.get(&intent.key).ok_or_else(|| format!("the ledger has no key {}", intent.key))?;
        let of_ledger = self.fold.keys().get(&intent.key).is_some_and(|facts| facts.record.use_ == KeyUse::Ledger);
        demand(!of_ledger, || format!("key {} signs checkpoints and nothing else", intent.key))?;
        let info = self.evidence.blob(intent.request_info).map_err(text)?;
        is_certification_request_info(&info, key).map(drop).map_err(text)
    }
}
