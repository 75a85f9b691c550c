//! Shell: the presentations whose share is still to come: one of each Key Custodian for each key, and nothing secret in it.
//!
//! A place is taken before the vault is asked, and left after what came was recorded: as long as somebody has one, the vault is not ended for want
//! of a share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::names::{KeyLabel, PersonId, PresentationId};
use crate::domain::time::Timestamp;

/// What is kept of a presentation until its share comes.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Whose account began it: the share comes from the same.
    pub account: Box<str>,
    /// The statement.
    pub statement: Vec<u8>,
    /// Its signature.
    pub signature: Vec<u8>,
    /// The index of the share that is to come.
    pub index: u16,
    /// When it is given up.
    pub until: Timestamp,
}

/// One beginning among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(u64);

struct Place {
    attempt: Attempt,
    /// Once the vault has made a key for it.
    presentation: Option<PresentationId>,
    waiting: Waiting,
}

#[derive(Default)]
struct Places {
    attempts: u64,
    of: BTreeMap<(KeyLabel, PersonId), Place>,
}

/// Those of all keys.
#[derive(Default)]
pub struct Presentations(Mutex<Places>);

impl Presentations {
    /// A custodian begins. What they began before is given up: its presentation comes back, for the vault to forget its key.
    pub fn begin(&self, of: (KeyLabel, PersonId), waiting: Waiting) -> (Attempt, Option<PresentationId>) {
        let mut places = self.places();
        places.attempts += 1;
        let attempt = Attempt(places.attempts);
        let before = places.of.insert(of, Place { attempt, presentation: None, waiting });
        (attempt, before.and_then(|before| before.presentation))
    }

    /// The vault made a key for it. False if it was given up meanwhile.
    pub fn made(&self, of: &(KeyLabel, PersonId), attempt: Attempt, presentation: PresentationId) -> bool {
        let mut places = self.places();
        let place = places.of.get_mut(of).filter(|place| place.attempt == attempt);
        place.map(|place| place.presentation = Some(presentation)).is_some()
    }

    /// The vault made none.
    pub fn give_up(&self, of: &(KeyLabel, PersonId), attempt: Attempt) {
        let mut places = self.places();
        if places.of.get(of).is_some_and(|place| place.attempt == attempt) {
            places.of.remove(of);
        }
    }

    /// The one for which an account brings a share.
    pub fn find(&self, key: &KeyLabel, presentation: PresentationId, account: &str) -> Option<Waiting> {
        let places = self.places();
        let mut of_key = places.of.iter().filter(|((of, _), _)| of == key).map(|(_, place)| place);
        let found = of_key.find(|place| place.presentation == Some(presentation))?;
        (*found.waiting.account == *account).then(|| found.waiting.clone())
    }

    /// What came for it was recorded, or refused.
    pub fn end(&self, presentation: PresentationId) {
        self.places().of.retain(|_, place| place.presentation != Some(presentation));
    }

    /// Those for which nothing came in time are given up.
    pub fn expire(&self, now: Timestamp) {
        self.places().of.retain(|_, place| now < place.waiting.until);
    }

    /// All of a key: what their shares were sealed to is gone.
    pub fn clear(&self, key: &KeyLabel) {
        self.places().of.retain(|(of, _), _| of != key);
    }

    /// Does something with the vault of a key while nobody begins: `done` is told who waits.
    pub fn held<R>(&self, key: &KeyLabel, done: impl FnOnce(&dyn Fn(&PersonId) -> bool, bool) -> R) -> R {
        let places = self.places();
        let waits = |person: &PersonId| places.of.contains_key(&(key.clone(), person.clone()));
        let any = places.of.keys().any(|(of, _)| of == key);
        done(&waits, any)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
