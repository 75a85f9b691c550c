//! Pure. What entries say of keys, of who opened them, and of the daemon's life, with which every activation ends.

use std::collections::BTreeMap;

use super::{Fold, FoldError, not_known};
use crate::domain::incident::routes;
use crate::domain::ledger::contingency::{
    CheckResult, ContingencyChecked, ContingencyPrepared, ReleaseResult, RootImported, SymmetricKeySpent,
    SymmetricRelease, SymmetricReleased,
};
use crate::domain::ledger::entry::{Actor, CustodianPresented, KeyActivated, KeyRecord, OtherKey, Started};
use crate::domain::names::{Digest, IncidentId, KeyLabel, KeyUse};
use crate::domain::policy::contingency::{Checked, ContingencyFacts, Releasing};
use crate::domain::policy::custodians::Presented;
use crate::domain::policy::facts::{IncidentFacts, KeyFacts};
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
            contingency: None,
        };
        self.keys.insert(record.label.clone(), facts);
    }

    pub(super) fn prepare_contingency(&mut self, prepared: &ContingencyPrepared, index: u64) -> Result<(), FoldError> {
        self.key_mut(&prepared.key)?.contingency = Some(ContingencyFacts::new(prepared.clone(), index));
        Ok(())
    }

    pub(super) fn import_root(&mut self, imported: &RootImported, index: u64) -> Result<(), FoldError> {
        let facts = self.contingency_mut(&imported.key)?;
        (facts.root, facts.root_entry) = (Some(imported.root), Some(index));
        Ok(())
    }

    pub(super) fn check_contingency(&mut self, checked: &ContingencyChecked, index: u64) -> Result<(), FoldError> {
        let ContingencyChecked { key, incident, root, result } = checked;
        let facts = self.contingency_mut(key)?;
        // That the token failed says nothing of what it found before.
        let says_nothing = matches!(result, CheckResult::Failed(_));
        if says_nothing && facts.root == Some(*root) && facts.is_checked_for(incident) {
            return Ok(());
        }
        let (incident, result) = (incident.clone(), result.clone());
        facts.checked = Some(Checked { entry: index, incident, root: *root, result });
        Ok(())
    }

    pub(super) fn spend(&mut self, spent: &SymmetricKeySpent, at: Timestamp) -> Result<(), FoldError> {
        let SymmetricKeySpent { key, incident, determination } = spent;
        let facts = self.contingency_mut(key)?;
        facts.spent.get_or_insert_with(|| (incident.clone(), *determination));
        if let Some(progress) = self.progress_mut(incident) {
            progress.arise([routes::replacement_of(key)], at);
        }
        Ok(())
    }

    pub(super) fn release_symmetric(
        &mut self,
        release: &SymmetricRelease,
        by: &Actor,
        index: u64,
    ) -> Result<(), FoldError> {
        let releasing = Releasing { by: by.clone(), determination: release.determination, lapsed: false };
        let facts = self.contingency_mut(&release.key)?;
        facts.releasing.insert(index, releasing);
        facts.requests.insert(release.request);
        Ok(())
    }

    pub(super) fn symmetric_released(&mut self, released: &SymmetricReleased) -> Result<(), FoldError> {
        let SymmetricReleased { intent, result } = released;
        let mut generations = self.keys.values_mut().filter_map(|facts| facts.contingency.as_mut());
        let facts = generations.find(|facts| facts.releasing.contains_key(intent));
        let facts = facts.ok_or_else(|| not_known("open release of a Contingency Symmetric Key", intent))?;
        let releasing = facts.releasing.remove(intent);
        match result {
            ReleaseResult::Released => {
                facts.released = releasing.filter(|releasing| !releasing.lapsed).map(|of| of.determination);
            }
            ReleaseResult::Failed(_) | ReleaseResult::NotReleased(_) | ReleaseResult::Unknown(_) => {}
        }
        Ok(())
    }

    pub(super) fn contingency_mut(&mut self, key: &KeyLabel) -> Result<&mut ContingencyFacts, FoldError> {
        let contingency = self.key_mut(key)?.contingency.as_mut();
        contingency.ok_or_else(|| not_known("contingency material of key", key))
    }

    /// A release that was announced and has no outcome yet.
    pub fn open_release(&self, intent: u64) -> Option<&Releasing> {
        self.keys.values().find_map(|facts| facts.contingency.as_ref()?.releasing.get(&intent))
    }

    /// Releases of Contingency Symmetric Keys whose outcome is not recorded, each with its key: at a start, nobody can tell any more.
    pub fn open_releases(&self) -> impl Iterator<Item = (u64, &KeyLabel)> {
        self.keys.iter().flat_map(|(label, facts)| {
            let releasing = facts.contingency.iter().flat_map(|contingency| contingency.releasing.keys());
            releasing.map(move |intent| (*intent, label))
        })
    }

    /// What belongs to a key as contingency material.
    pub fn contingency(&self, key: &KeyLabel) -> Option<&ContingencyFacts> {
        self.keys.get(key).and_then(|facts| facts.contingency.as_ref())
    }

    /// The key whose material a Root OCA Certificate carries, as it was taken in.
    pub fn generation_of(&self, root: Digest) -> Option<&KeyLabel> {
        let carries = |facts: &KeyFacts| facts.contingency.as_ref().is_some_and(|of| of.root == Some(root));
        self.keys.iter().find(|(_, facts)| carries(facts)).map(|(label, _)| label)
    }

    /// The incident in which a contingency key that is to be the next generation is, or may be, Compromised, or the root that carries it.
    pub fn next_compromised_in(&self, key: &KeyLabel) -> Option<&IncidentId> {
        let root = self.contingency(key).and_then(|contingency| contingency.root);
        let of_root = |incident: &&IncidentFacts| {
            incident.key == Some(OtherKey::RootOca)
                && root == Some(incident.compromised.certificate_sha256)
                && !incident.is_dismissed()
        };
        self.compromised_in(key).or_else(|| self.incidents.values().find(of_root).map(|incident| &incident.id))
    }

    /// The incident in which a key of ours is, or may be, Compromised itself: from then on it is not used, and not in another incident
    /// either. One that was dismissed says nothing of it; one that is closed does not mend the key. Incidents of before anybody said which
    /// key they are about bar none.
    pub fn compromised_in(&self, key: &KeyLabel) -> Option<&IncidentId> {
        let facts = self.keys.get(key)?;
        let is_of = |incident: &&IncidentFacts| {
            let concerns = match (incident.key, facts.record.use_) {
                (Some(OtherKey::Recovery), KeyUse::Recovery) => {
                    incident.compromised.spki_sha256 == facts.record.spki_sha256
                }
                (Some(OtherKey::Contingency | OtherKey::ContingencySymmetric), KeyUse::Contingency) => {
                    let root = facts.contingency.as_ref().and_then(|contingency| contingency.root);
                    root == Some(incident.compromised.certificate_sha256)
                }
                (Some(_) | None, KeyUse::Ledger | KeyUse::Recovery | KeyUse::Contingency) => false,
            };
            concerns && !incident.is_dismissed()
        };
        self.incidents.values().find(is_of).map(|incident| &incident.id)
    }
}
