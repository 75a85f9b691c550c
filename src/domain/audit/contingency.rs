//! Pure. Contingency material decided again: prepared, carried by its Root OCA Certificate, checked, spent before it is released, and
//! released under checkpoints.

use std::sync::Arc;

use super::commands::allowed;
use super::documents::{Again, compare, permitted};
use super::{Audit, Permitted, demand, text, whole};
use crate::domain::certificates::apex::WrappedApexKey;
use crate::domain::certificates::x509::CERTIFICATE_LEN_MAX;
use crate::domain::gbcs::SymmetricKey;
use crate::domain::intake::contingency;
use crate::domain::ledger::contingency::{
    ContingencyChecked, ContingencyPrepared, ReleaseResult, RootImported, SymmetricKeySpent, SymmetricRelease,
    SymmetricReleased,
};
use crate::domain::ledger::entry::Entry;
use crate::domain::names::KeyLabel;
use crate::domain::policy::rules;

impl Again<'_> {
    pub(super) fn check_prepared(&self, prepared: &ContingencyPrepared) -> Permitted {
        let extension = whole(self.evidence, prepared.extension, CERTIFICATE_LEN_MAX as u64)?;
        permitted(contingency::may_prepare(self.fold, prepared, &extension))
    }

    pub(super) fn check_root(&self, imported: &RootImported, entry: &Entry) -> Permitted {
        let root = whole(self.evidence, imported.root, CERTIFICATE_LEN_MAX as u64)?;
        let RootImported { key, root: _, compared } = imported;
        compare(contingency::root(&self.context(entry), key, &root, *compared), imported)
    }

    pub(super) fn check_checked(&self, checked: &ContingencyChecked) -> Permitted {
        permitted(contingency::may_check(self.fold, checked))
    }

    pub(super) fn check_spent(&self, spent: &SymmetricKeySpent, entry: &Entry) -> Permitted {
        compare(contingency::spend(&self.context(entry), &entry.by, spent.determination), spent)
    }

    pub(super) fn check_release_of(&self, release: &SymmetricRelease, entry: &Entry) -> Permitted {
        let SymmetricRelease { request, determination, .. } = release;
        compare(contingency::release(&self.context(entry), &entry.by, *request, *determination), release)
    }
}

impl Audit<'_> {
    /// Of the symmetric keys that whoever verifies has, the one that is of this generation.
    pub(super) fn try_symmetric_keys(&mut self, prepared: &ContingencyPrepared) -> Permitted {
        if self.symmetric_keys.is_empty() {
            return Ok(());
        }
        let octets = whole(self.evidence, prepared.extension, CERTIFICATE_LEN_MAX as u64)?;
        let wrapped = WrappedApexKey::from_der(&octets).map_err(text)?;
        let spki = self.fold.keys().get(&prepared.key).map(|facts| facts.record.spki_octets()).unwrap_or_default();
        let opens = |key: &&SymmetricKey| wrapped.unwrap_with(key).is_ok_and(|found| found == spki);
        if let Some(key) = self.symmetric_keys.iter().find(opens) {
            self.symmetric_of.insert(prepared.key.clone(), Arc::new(key.clone()));
        }
        Ok(())
    }

    /// The symmetric key of a generation, where whoever verifies has it.
    pub(super) fn symmetric_key_of(&self, key: &KeyLabel) -> Option<Arc<SymmetricKey>> {
        self.symmetric_of.get(key).map(Arc::clone)
    }

    /// What was announced before a start has its outcome since: nobody can tell otherwise what the daemon of then did.
    pub(super) fn check_symmetric_release(&self) -> Permitted {
        let (open, started) = (self.fold.open_releases().next(), self.started);
        demand(open.is_none_or(|(intent, _)| intent >= started), || {
            format!(
                "release {} has no outcome, and the daemon started since (entry {started})",
                open.map_or(0, |(intent, _)| intent)
            )
        })
    }

    /// It was announced, and the announcement lies under a checkpoint: the key was spent for all the world to see before it left the
    /// token. What the daemon holds from then on it may still hold at that moment, for whoever asked.
    pub(super) fn check_symmetric_released(&self, released: &SymmetricReleased, entry: &Entry) -> Permitted {
        let SymmetricReleased { intent, result } = released;
        let open = self.fold.open_release(*intent).ok_or_else(|| {
            format!("no open release {intent} stands before it: a key left its token that was not announced")
        })?;
        if *result != ReleaseResult::Released {
            return Ok(());
        }
        let covered = self.roots.covered();
        demand(*intent < covered, || {
            format!("no checkpoint was signed between release {intent} and it; the last one covers {covered} entries")
        })?;
        demand(!open.lapsed, || format!("the key was locked since release {intent}: nobody may hold what came of it"))?;
        let facts = self.fold.batch_facts(&open.by, open.determination, entry.at, entry.clock);
        allowed(rules::decide_symmetric_release(&facts.ok_or("no policy is in force")?))
    }
}

#[cfg(test)]
mod tests;
