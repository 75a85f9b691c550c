//! What a ceremony of a plan records itself: a key made after genesis, and in the end the ceremony with plan and transcript.

use super::{Conduct, Facts, Halt};
use crate::cli::ceremony::journal::{Line, What};
use crate::cli::ceremony::keys::{KeysFile, MadeKey};
use crate::cli::ceremony::opened::Opened;
use crate::cli::ceremony::{CeremonyError, room};
use crate::domain::intake;
use crate::domain::ledger::ceremonies::{Attendance, CeremonyRecorded, KeyMade};
use crate::domain::ledger::custody::SharesDealt;
use crate::domain::ledger::entry::{Entry, Event};
use crate::domain::names::{Digest, KeyLabel, KeyUse};
use crate::domain::time::Timestamp;
use crate::hsm::Expectations;
use crate::recorder::{CannotRecord, record_alone};
use crate::service::ceremony::Record;
use crate::service::start::StartFault;
use crate::store::Reader as _;
use crate::store::sqlite::SqliteReader;

impl Conduct {
    /// The new key goes into the ledger, and genesis to its token. Each is done or not, so it can be done again.
    pub(super) fn record_key(&mut self, id: &str, label: &KeyLabel) -> Result<Facts, Halt> {
        let file = KeysFile::read(&self.out, &self.policy, &self.configuration)?;
        let made = file.keys.iter().find(|made| made.label == *label);
        let not_made = || CeremonyError::Key { key: label.clone(), why: "it stands in no keys.json".to_owned() };
        let record = made.ok_or_else(not_made)?.record();
        let mut opened = Opened::ledger(&self.tokens.tokens())?;
        let known = opened.fold().keys().get(label).is_some_and(|facts| facts.record == record);
        let (_, genesis) = opened.fold().genesis().ok_or(StartFault::NoLedgerKey)?;
        let ledger_token = opened.log_in()?;
        let mut entry = None;
        if known {
            self.found(id, format!("key {label}, recorded before an interruption"))?;
        } else {
            let outcome =
                record_alone(&mut opened.ledger, |recorder| match intake::may_make(recorder.fold(), &record) {
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
        let (token, report) = opened.start(&record.token, &uses, Expectations { keys, genesis: None, origin: None })?;
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
        let mut opened = Opened::any(&self.tokens.tokens())?;
        let entry = if let Some(entry) = self::recorded(&opened.reader()?, digest)? {
            // Cut off between the ledger and the journal.
            entry
        } else {
            let ledger_token = opened.log_in()?;
            let entry = opened.ledger.record(Record::Held { recorded, plan, transcript })?;
            opened.keep_head(ledger_token.as_ref())?;
            entry
        };
        self.write(What::Recorded { entry })
    }

    /// The shares of a key that were dealt since this ceremony was opened, and the entry that says so.
    pub(super) fn dealt(&self, key: &KeyLabel) -> Result<Option<(u64, SharesDealt)>, CeremonyError> {
        let (from, _) = self.span();
        let store = SqliteReader::open(&self.configuration.state)?;
        let size = store.head()?.size;
        for index in (0..size).rev() {
            let entry = Entry::from_leaf(&store.leaf(index)?).map_err(CannotRecord::from)?;
            match entry.event {
                _ if entry.at < from => break,
                Event::SharesDealt(dealt) if dealt.key == *key => return Ok(Some((index, dealt))),
                _ => {}
            }
        }
        Ok(None)
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
fn recorded(reader: &SqliteReader, transcript: Digest) -> Result<Option<u64>, CeremonyError> {
    for index in (0..reader.head()?.size).rev() {
        let entry = Entry::from_leaf(&reader.leaf(index)?).map_err(CannotRecord::from)?;
        if matches!(&entry.event, Event::CeremonyRecorded(found) if found.transcript == transcript) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}
