//! Pure. What entries say of keys, of who opened them, and of the daemon's life, with which every activation ends.

use std::collections::BTreeMap;

use super::{Fold, FoldError};
use crate::domain::ledger::entry::{CustodianPresented, KeyActivated, KeyRecord, Started};
use crate::domain::policy::custodians::Presented;
use crate::domain::policy::facts::KeyFacts;
use crate::domain::time::Timestamp;

impl Fold {
    /// The daemon's own death locks every key, and its batches get no further intents: a request that goes on after a start begins another.
    /// A clock that nobody accepted stays untrusted.
    pub(super) fn start(&mut self, started: &Started, at: Timestamp) {
        if let Some(from) = started.unconfirmed {
            self.take_back(from);
            self.take_back_jobs(from, at);
        }
        self.keys.values_mut().for_each(KeyFacts::lock);
        self.keys_locked(None, at);
        let open = &self.open;
        self.batches.retain(|index, _| open.values().any(|intent| intent.intent.batch == *index));
        let batches = &self.batches;
        self.last_batches.retain(|_, index| batches.contains_key(index));
    }

    pub(super) fn activate(&mut self, activated: &KeyActivated, index: u64, at: Timestamp) -> Result<(), FoldError> {
        let KeyActivated { key, until, incident, token: _, serial: _, profile, also: _, custodians: _ } = activated;
        let facts = self.key_mut(key)?;
        (facts.active, facts.active_for) = (Some(*until), incident.clone());
        self.activations_bound |= incident.is_some();
        self.profiles_named |= profile.is_some();
        self.key_activated(key, incident.as_ref(), index, at);
        Ok(())
    }

    pub(super) fn present(&mut self, presented: &CustodianPresented, index: u64) -> Result<(), FoldError> {
        let CustodianPresented { key, incident, determination, share, id, statement, signature, until, expires } =
            presented;
        self.statements.insert(*id);
        self.statement_digests.insert(*statement);
        let share = share.as_ref().map(|share| (share.name.clone(), share.generation));
        let (incident, determination) = (incident.clone(), *determination);
        let presented = Presented { entry: index, incident, determination, share, until: *until, expires: *expires };
        self.key_mut(key)?.presented.insert(signature.person.clone(), presented);
        Ok(())
    }

    pub(super) fn know(&mut self, record: &KeyRecord) {
        let (copies, certificate) = (BTreeMap::new(), None);
        let facts = KeyFacts {
            record: record.clone(),
            copies,
            shares: None,
            dealing: None,
            certificate,
            active: None,
            active_for: None,
            ending: None,
            presented: BTreeMap::new(),
        };
        self.keys.insert(record.label.clone(), facts);
    }
}
