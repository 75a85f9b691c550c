//! What a ceremony of a plan records itself: a key made after genesis, and in the end the ceremony with plan and transcript.

use super::{Conduct, Facts, Halt};
use crate::cli::ceremony::journal::{Line, What};
use crate::cli::ceremony::keys::{KeysFile, MadeKey};
use crate::cli::ceremony::opened::Opened;
use crate::cli::ceremony::{CeremonyError, room};
use crate::domain::intake;
use crate::domain::ledger::ceremonies::{Attendance, CeremonyRecorded, KeyMade};
use crate::domain::ledger::entry::{Entry, Event, Reason};
use crate::domain::names::{Digest, KeyLabel, KeyUse};
use crate::domain::time::Timestamp;
use crate::hsm::Expectations;
use crate::recorder::{CannotRecord, Recorder, record_alone};
use crate::service::start::StartFault;

impl Conduct {
    /// The new key goes into the ledger, and genesis to its token. Each is done or not, so it can be done again.
    pub(super) fn record_key(&mut self, id: &str, label: &KeyLabel) -> Result<Facts, Halt> {
        let file = KeysFile::read(&self.out, &self.policy, &self.configuration)?;
        let made = file.keys.iter().find(|made| made.label == *label);
        let not_made = || CeremonyError::Key { key: label.clone(), why: "it stands in no keys.json".to_owned() };
        let record = made.ok_or_else(not_made)?.record();
        let mut opened = Opened::ledger(&self.tokens.tokens())?;
        let known = opened.recorder.fold().keys().get(label).is_some_and(|facts| facts.record == record);
        let (_, genesis) = opened.recorder.fold().genesis().ok_or(StartFault::NoLedgerKey)?;
        let ledger_token = opened.log_in()?;
        let mut entry = None;
        if known {
            self.found(id, format!("key {label}, recorded before an interruption"))?;
        } else {
            let outcome =
                record_alone(&mut opened.recorder, |recorder| match intake::may_make(recorder.fold(), &record) {
                    Ok(()) => {
                        let by = recorder.known(room::conductor());
                        recorder.queue(&by, Event::KeyMade(KeyMade { key: record.clone() })).map(Ok)
                    }
                    Err(reasons) => Ok(Err(reasons)),
                })
                .map_err(CeremonyError::from)?;
            entry = Some(outcome.into_inner().map_err(CeremonyError::Refused)?);
        }
        let uses: Vec<KeyUse> = opened.uses(&record.token);
        let keys = file.on(&record.token).map(MadeKey::expected).collect();
        let (token, report) =
            opened.room.start(&record.token, &uses, Expectations { keys, genesis: None, origin: None })?;
        match report.genesis {
            Some(found) if found != genesis => {
                return Err(CeremonyError::TokenTaken { token: record.token.clone(), found }.into());
            }
            Some(_) => {}
            None => {
                let written = token.write_genesis(genesis).wait();
                written.map_err(|source| StartFault::Hsm { token: record.token.clone(), source })?;
            }
        }
        token.shutdown();
        opened.keep_head(&ledger_token)?;
        let entry = entry.map_or_else(|| "before".to_owned(), |entry| format!("entry {entry}"));
        Ok(vec![("recorded".into(), entry.into())])
    }

    /// The ceremony goes into the ledger, once.
    pub(super) fn record(&mut self) -> Result<(), CeremonyError> {
        if self.journal.recorded().is_some() {
            return Ok(());
        }
        let (plan, transcript) = (self.plan.octets().to_vec(), self.journal.transcript().to_vec());
        let digest = Digest::of(&transcript);
        let (from, until) = self.span();
        let people = attendances(self.journal.lines());
        let recorded = CeremonyRecorded {
            kind: self.plan.kind.into(),
            plan: Digest::of(&plan),
            transcript: digest,
            from,
            until,
            people,
        };
        let mut opened = Opened::ledger(&self.tokens.tokens())?;
        let entry = match self::recorded(&opened.recorder, digest)? {
            // Cut off between the ledger and the journal.
            Some(entry) => entry,
            None => {
                let ledger_token = opened.log_in()?;
                let outcome = record_alone(&mut opened.recorder, |recorder| {
                    match intake::may_record(&recorded, recorder.moment().at) {
                        Ok(()) => {
                            let by = recorder.known(room::conductor());
                            recorder.queue_blob(plan);
                            recorder.queue_blob(transcript);
                            recorder.queue(&by, Event::CeremonyRecorded(recorded)).map(Ok)
                        }
                        Err(reasons) => Ok::<_, CannotRecord>(Err::<u64, Vec<Reason>>(reasons)),
                    }
                })?;
                let entry = outcome.into_inner().map_err(CeremonyError::Refused)?;
                opened.keep_head(&ledger_token)?;
                entry
            }
        };
        self.write(What::Recorded { entry })
    }

    /// From the line that opened the ceremony to the one that closed it.
    fn span(&self) -> (Timestamp, Timestamp) {
        let lines = self.journal.lines();
        let from = lines.first().map_or_else(|| self.now(), |line| line.at);
        let closed = lines.iter().find(|line| matches!(line.what, What::Closed {}));
        (from, closed.map_or_else(|| self.now(), |line| line.at))
    }
}

/// Everyone who was there in any session, once.
fn attendances(lines: &[Line]) -> Vec<Attendance> {
    let mut people: Vec<Attendance> = Vec::new();
    for line in lines {
        let What::Present { person, name, capacity } = &line.what else { continue };
        let found = Attendance { person: person.clone(), name: name.clone(), capacity: *capacity };
        if !people.contains(&found) {
            people.push(found);
        }
    }
    people
}

/// The entry that records a ceremony with this transcript, looked for from the end.
fn recorded(recorder: &Recorder, transcript: Digest) -> Result<Option<u64>, CeremonyError> {
    let reader = recorder.store().reader().map_err(StartFault::from)?;
    for index in (0..recorder.durable().size).rev() {
        let entry = Entry::from_leaf(&reader.leaf(index)?).map_err(CannotRecord::from)?;
        if matches!(&entry.event, Event::CeremonyRecorded(recorded) if recorded.transcript == transcript) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}
