//! Shell: how often a PIN was offered to a token, and what came of it; kept in a file where there is a folder for it, so that no
//! restart forgets that a token refused its PIN.
//!
//! The offer is written before the PIN is offered, and made undone by the answer. What a crash leaves behind is an offer that
//! got no answer: it may have been counted against us. [`UNANSWERED_MAX`] of them in a row are as bad as a refusal.
//!
//! Who let the PIN of the ledger token be offered again stands there too, until the ledger, which needs that token, was told.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use super::errors::{Class, HsmError};
use super::keeper::lock;
use crate::domain::ledger::entry::{Actor, LoginRetried};
use crate::domain::time::Timestamp;
use crate::durable_file;
use crate::wall_clock::wall_clock;

/// How many offers in a row may get no answer that tells whether the PIN was counted as wrong: a hang, a crash, a code of the
/// vendor's own. No official reference: tokens lock after 3 to 15 wrong PINs, and most say so one before
/// (`CKF_USER_PIN_FINAL_TRY`), which stops us too.
pub const UNANSWERED_MAX: u32 = 3;

/// How many operators' askings a mark has room for. Each follows a refusal, and a token takes 3 to 15 of those.
pub const ASKED_MAX: usize = 16;

/// The longest file that is one of ours.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// What is known about the offers to one token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Offers in a row of which nobody knows whether the token counted the PIN as wrong.
    pub unanswered: u32,
    /// That the token refused the PIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// Who let it be offered again, while the ledger could not be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
}

/// An operator who let a PIN be offered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Who.
    pub by: Actor,
    /// What the ledger is to be told.
    pub retried: LoginRetried,
}

/// A refusal of the PIN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What C_Login answered, or the token's flag by which no PIN was offered.
    pub rv: String,
    /// When.
    pub at: Timestamp,
}

impl Mark {
    /// Why no PIN may be offered now; none if one may.
    pub fn withheld(&self) -> Option<String> {
        match &self.refused {
            Some(Refusal { rv, at }) => Some(format!("the token refused its PIN at {at} ({rv})")),
            None if self.unanswered >= UNANSWERED_MAX => Some(format!(
                "{} offers of its PIN in a row got no answer that tells whether the PIN was counted as wrong",
                self.unanswered
            )),
            None => None,
        }
    }

    /// Decides about an offer, with what the token says: whether a wrong PIN was entered since the last good one. If that may
    /// have been ours, one more is one too many.
    fn offer(&self, count_low: bool) -> Result<Self, HsmError> {
        if let Some(why) = self.withheld() {
            return Err(HsmError::PinWithheld { why });
        }
        if count_low && self.unanswered > 0 {
            let why = "the token says CKF_USER_PIN_COUNT_LOW after an offer of its PIN that got no answer".to_owned();
            return Err(HsmError::PinWithheld { why });
        }
        Ok(self.now(self.unanswered + 1, None))
    }

    /// What an answer to the offer makes of it; none: it tells nothing, and the offer stays one without an answer.
    fn answered(&self, answer: &Result<(), HsmError>, at: Timestamp) -> Option<Self> {
        match answer {
            Ok(()) => Some(self.now(0, None)),
            Err(HsmError::PinRefused(fault)) => Some(self.now(0, Some(Refusal { rv: fault.rv.clone(), at }))),
            Err(HsmError::Call(fault)) if fault.class == Class::OperatorMustAct => {
                Some(self.now(0, Some(Refusal { rv: fault.rv.clone(), at })))
            }
            // It was not offered after all.
            Err(HsmError::Call(fault)) if is_before_the_token(&fault.rv) => {
                Some(self.now(self.unanswered.saturating_sub(1), None))
            }
            Err(_) => None,
        }
    }

    /// The same askings, with other offers.
    fn now(&self, unanswered: u32, refused: Option<Refusal>) -> Self {
        Self { unanswered, refused, asked: self.asked.clone() }
    }
}

/// Answers of C_Login that come before a token is asked: there is none, no session to it, or the module itself cannot. A device's error
/// may come after it counted the PIN as wrong, as may a session that is gone when the answer comes; so may whatever else is not known.
fn is_before_the_token(rv: &str) -> bool {
    matches!(
        rv,
        "CKR_TOKEN_NOT_PRESENT"
            | "CKR_SLOT_ID_INVALID"
            | "CKR_CRYPTOKI_NOT_INITIALIZED"
            | "CKR_SESSION_HANDLE_INVALID"
            | "CKR_HOST_MEMORY"
    )
}

/// The offers to one token, whoever in this process has to do with it.
#[derive(Debug)]
pub struct Offers {
    path: Option<PathBuf>,
    mark: Mutex<Mark>,
    /// Whether somebody offers the PIN just now. Two keys may lie on one token, and two operators activate one at a time: whoever
    /// comes second waits for the answer, and offers nothing after a refusal.
    is_offering: Mutex<bool>,
    answered: Condvar,
}

/// The offers that somebody in this process has to do with, by their files.
static KNOWN: Mutex<BTreeMap<PathBuf, Weak<Offers>>> = Mutex::new(BTreeMap::new());

/// An offer that is under way. Let go without an answer it stays one that got none.
#[derive(Debug)]
pub(super) struct Offer(Arc<Offers>);

impl Offer {
    /// Notes what the token answered.
    pub(super) fn answered(self, answer: &Result<(), HsmError>) {
        let mut mark = lock(&self.0.mark);
        let Some(next) = mark.answered(answer, wall_clock()) else { return };
        if let Err(error) = self.0.keep(&mut mark, next.clone()) {
            // On the disk stands an offer without an answer, which is no less careful.
            tracing::warn!("{error}");
            *mark = next;
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        *lock(&self.0.is_offering) = false;
        self.0.answered.notify_one();
    }
}

impl Offers {
    /// Those to the token with this serial number and label, as the folder has them: a card may show two tokens under one serial number,
    /// each with a PIN of its own. Without a folder they are forgotten at the end of the process, as suits a ceremony, which has people
    /// in the room.
    ///
    /// # Errors
    /// [`HsmError::PinMark`]: there is a file, and nobody can tell what it says.
    pub fn open(folder: Option<&Path>, (serial, label): (&str, &str)) -> Result<Arc<Self>, HsmError> {
        let new = |path, mark| {
            let (mark, is_offering) = (Mutex::new(mark), Mutex::new(false));
            Arc::new(Self { path, mark, is_offering, answered: Condvar::new() })
        };
        let Some(folder) = folder else { return Ok(new(None, Mark::default())) };
        let path = folder.join(format!("{}-{}.json", hex::encode(serial), hex::encode(label)));
        let mut known = lock(&KNOWN);
        if let Some(offers) = known.get(&path).and_then(Weak::upgrade) {
            return Ok(offers);
        }
        let offers = new(Some(path.clone()), read(&path)?);
        known.insert(path, Arc::downgrade(&offers));
        Ok(offers)
    }

    /// What is known.
    pub fn mark(&self) -> Mark {
        lock(&self.mark).clone()
    }

    /// Notes that the PIN is about to be offered: it may be, once this has returned. Waits while somebody else offers it.
    ///
    /// # Errors
    /// [`HsmError::PinWithheld`], or [`HsmError::PinMark`] if it cannot be noted: then it may not be offered.
    pub(super) fn offer(self: &Arc<Self>, count_low: bool) -> Result<Offer, HsmError> {
        let mut is_offering = lock(&self.is_offering);
        while *is_offering {
            is_offering = self.answered.wait(is_offering).unwrap_or_else(PoisonError::into_inner);
        }
        let mut mark = lock(&self.mark);
        let next = mark.offer(count_low)?;
        self.keep(&mut mark, next)?;
        *is_offering = true;
        Ok(Offer(Arc::clone(self)))
    }

    /// An operator put the PIN right: it may be offered again. `asked` is kept until the ledger was told ([`Offers::told`]); none if
    /// it was told before.
    ///
    /// # Errors
    /// [`HsmError::PinMark`], also if it has no room for one more asking.
    pub fn allow_again(&self, asked: Option<Asked>) -> Result<(), HsmError> {
        let mut mark = lock(&self.mark);
        if asked.is_some() && mark.asked.len() >= ASKED_MAX {
            let path = self.path.clone().unwrap_or_default();
            return Err(unusable(
                &path,
                format!("it has {ASKED_MAX} askings already of which the ledger was not told"),
            ));
        }
        let mut next = mark.now(0, None);
        next.asked.extend(asked);
        self.keep(&mut mark, next)
    }

    /// The ledger was told of the first so many askings.
    ///
    /// # Errors
    /// [`HsmError::PinMark`]: it is told again after the next start.
    pub fn told(&self, count: usize) -> Result<(), HsmError> {
        let mut mark = lock(&self.mark);
        let mut next = mark.clone();
        next.asked.drain(..count.min(next.asked.len()));
        let kept = self.keep(&mut mark, next.clone());
        *mark = next;
        kept
    }

    fn keep(&self, mark: &mut Mark, next: Mark) -> Result<(), HsmError> {
        if let Some(path) = &self.path {
            write(path, &next).map_err(|error| unusable(path, format!("it cannot be written ({error})")))?;
        }
        *mark = next;
        Ok(())
    }
}

fn unusable(path: &Path, found: String) -> HsmError {
    HsmError::PinMark { path: path.display().to_string(), found }
}

fn read(path: &Path) -> Result<Mark, HsmError> {
    let text = durable_file::read(path, FILE_LEN_MAX);
    let Some(text) = text.map_err(|error| unusable(path, format!("it cannot be read ({error})")))? else {
        return Ok(Mark::default());
    };
    serde_json::from_slice(&text).map_err(|error| unusable(path, format!("it is not of its form ({error})")))
}

/// A mark that says nothing is no file.
fn write(path: &Path, mark: &Mark) -> io::Result<()> {
    if *mark == Mark::default() {
        durable_file::remove(path)
    } else {
        durable_file::replace(path, &serde_json::to_vec(mark)?)
    }
}

#[cfg(test)]
mod tests;
