//! What a ceremony of a plan records itself: a key made after genesis, and in the end the ceremony with plan and transcript.

use super::{Conduct, Facts, Halt};
use crate::cli::ceremony::keys::{KeysFile, MadeKey};
use crate::cli::ceremony::opened::Opened;
use crate::cli::ceremony::{CeremonyError, room};
use crate::domain::intake;
use crate::domain::ledger::ceremonies::KeyMade;
use crate::domain::ledger::custody::SharesDealt;
use crate::domain::ledger::entry::{Entry, Event};
use crate::domain::ledger::transcript::{self, What};
use crate::domain::names::{KeyLabel, KeyUse};
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
        // The token is looked at first: what the ledger says of it is what was found.
        let uses: Vec<KeyUse> = opened.uses(&record.token).into_iter().chain([record.use_]).collect();
        let keys = file.on(&record.token).map(MadeKey::expected).collect();
        let (token, report) = opened.start(&record.token, &uses, Expectations { keys, genesis: None, origin: None })?;
        if let Some(found) = report.genesis.filter(|found| *found != genesis) {
            return Err(CeremonyError::TokenTaken { token: record.token.clone(), found }.into());
        }
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
        if report.genesis.is_none() {
            let written = token.write_genesis(genesis).wait();
            written.map_err(|source| StartFault::Hsm { token: record.token.clone(), source })?;
        }
        token.shutdown();
        opened.keep_head(&ledger_token)?;
        let entry = entry.map_or_else(|| "before".to_owned(), |entry| format!("entry {entry}"));
        Ok(vec![("recorded".into(), entry.into())])
    }

    /// The ceremony goes into the ledger, once.
    pub(super) fn record(&mut self) -> Result<(), CeremonyError> {
        let (plan, octets) = (self.plan.octets().to_vec(), self.journal.transcript().to_vec());
        let told = transcript::told(&octets);
        let recorded = told.map_err(|fault| CeremonyError::Transcript { out: self.out.clone(), fault })?.recorded;
        // Cut off between the ledger and the journal, it is there.
        let there = self.since(|event| match event {
            Event::CeremonyRecorded(found) if found.transcript == recorded.transcript => Some(()),
            _ => None,
        })?;
        let entry = if let Some((entry, ())) = there {
            entry
        } else {
            let mut opened = Opened::any(&self.tokens.tokens())?;
            let ledger_token = opened.log_in()?;
            let entry = opened.ledger.record(Record::Held { recorded, plan, transcript: octets })?;
            opened.keep_head(ledger_token.as_ref())?;
            entry
        };
        self.write(What::Recorded { entry })
    }

    /// The shares of a key that were dealt since this ceremony was opened, and the entry that says so.
    pub(super) fn dealt(&self, key: &KeyLabel) -> Result<Option<(u64, SharesDealt)>, CeremonyError> {
        self.since(|event| match event {
            Event::SharesDealt(dealt) if dealt.key == *key => Some(dealt),
            _ => None,
        })
    }

    /// The last entry since this ceremony was opened of which `wanted` makes something.
    pub(super) fn since<T>(
        &self,
        mut wanted: impl FnMut(Event) -> Option<T>,
    ) -> Result<Option<(u64, T)>, CeremonyError> {
        let from = self.opened();
        let reader = SqliteReader::open(&self.configuration.state)?;
        for index in (0..reader.head()?.size).rev() {
            let entry = Entry::from_leaf(&reader.leaf(index)?).map_err(CannotRecord::from)?;
            if entry.at < from {
                break;
            }
            if let Some(found) = wanted(entry.event) {
                return Ok(Some((index, found)));
            }
        }
        Ok(None)
    }

    /// When the ceremony was opened.
    pub(super) fn opened(&self) -> Timestamp {
        self.journal.lines().first().map_or_else(|| self.now(), |line| line.at)
    }
}
