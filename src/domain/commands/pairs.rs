//! Pure. The intents of some requests and what became of them, from the entries as they come: what every reader of a ledger asks who is after
//! commands, and answers alike.
//!
//! A command stands in one place, that of an intent of the request that asked for it. Where what became of that intent is unknown, a further
//! attempt, for the same octets, may settle it. If that is the request's own, it stands in a place of its own; one of another request
//! stands in the place of the request's last. So a place says which request, and whoever has all up to a place lacks only what was unknown,
//! or was withheld.

use std::collections::{HashMap, VecDeque};

use crate::domain::ledger::entry::{Batch, Intent, Outcome, SignResult};
use crate::domain::ledger::glance::Glance;
use crate::domain::names::{DeterminationId, Digest};

/// An entry that [`Pairs`] take in, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A request, or the next part of it.
    Batch(u64, Batch),
    /// An intent.
    Intent(u64, Intent),
    /// What became of one.
    Outcome(Outcome),
}

impl Step {
    /// Of an entry; none for the other kinds.
    pub fn at(index: u64, glance: &Glance<'_>) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match glance.kind {
            b"batch" => Self::Batch(index, glance.read()?),
            b"intent" => Self::Intent(index, glance.read()?),
            b"outcome" => Self::Outcome(glance.read()?),
            _ => return Ok(None),
        }))
    }
}

/// What the intents of a batch are to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// They are asked for.
    Asked,
    /// They are of somebody else, who may have settled what is unknown of those.
    Other,
    /// They do not matter.
    Elsewhere,
}

/// What became of an intent. `T` is what whoever asks keeps of the moment of the intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled<T = ()> {
    /// The intent in whose place it stands: one that is asked for.
    pub place: u64,
    /// The intent itself: the same, or a further attempt of somebody else's.
    pub signed_as: u64,
    /// What it says.
    pub intent: Intent,
    /// Its outcome.
    pub result: SignResult,
    /// Of its moment.
    pub with: T,
}

struct Waiting<T> {
    place: u64,
    at: u64,
    intent: Intent,
    result: Option<SignResult>,
    with: T,
}

/// Pairs intents with their outcomes. What it holds is what waits (a few chunks), what is unknown, and a word for each batch.
pub struct Pairs<T = ()> {
    batches: HashMap<u64, (Whose, DeterminationId)>,
    waiting: VecDeque<Waiting<T>>,
    /// The last place of those octets of which nobody knows whether they were signed: also where a further attempt came to nothing.
    /// Of each determination alone: another's key may sign the same octets, which are then another command.
    unknown: HashMap<(DeterminationId, Digest), u64>,
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self { batches: HashMap::new(), waiting: VecDeque::new(), unknown: HashMap::new() }
    }
}

impl<T> Pairs<T> {
    /// What the intents of a batch are, from here on.
    pub fn batch(&mut self, index: u64, whose: Whose, determination: DeterminationId) {
        self.batches.insert(index, (whose, determination));
    }

    /// What they are and of which determination, if anybody said so. Whoever begins in the middle of a ledger meets intents whose batch stands
    /// before that.
    pub fn of(&self, batch: u64) -> Option<(Whose, DeterminationId)> {
        self.batches.get(&batch).copied()
    }

    /// What they are.
    pub fn whose(&self, batch: u64) -> Option<Whose> {
        self.of(batch).map(|(whose, _)| whose)
    }

    /// The next intent. Of a batch of which nothing was said it does not matter.
    pub fn intent(&mut self, at: u64, intent: Intent, with: T) {
        let Some((whose, determination)) = self.of(intent.batch) else { return };
        let place = match whose {
            Whose::Asked => Some(at),
            Whose::Other if intent.attempt > 1 => self.unknown.get(&(determination, intent.command)).copied(),
            Whose::Other | Whose::Elsewhere => None,
        };
        if let Some(place) = place {
            self.waiting.push_back(Waiting { place, at, intent, result: None, with });
        }
    }

    /// The next outcome.
    pub fn outcome(&mut self, outcome: Outcome) {
        let Outcome { intent, result } = outcome;
        let Ok(at) = self.waiting.binary_search_by_key(&intent, |waiting| waiting.at) else { return };
        let Some((_, determination)) = self.of(self.waiting[at].intent.batch) else { return };
        let waiting = &mut self.waiting[at];
        // Known at once, and not in its turn: the next attempt may come before what waits in front of it.
        let command = (determination, waiting.intent.command);
        match result {
            SignResult::Signed(_) => drop(self.unknown.remove(&command)),
            SignResult::Unknown(_) => drop(self.unknown.insert(command, waiting.place)),
            SignResult::Failed(_) | SignResult::NotSigned(_) if waiting.intent.attempt > 1 => {
                self.unknown.insert(command, waiting.place);
            }
            SignResult::Failed(_) | SignResult::NotSigned(_) => {}
        }
        waiting.result = Some(result);
    }

    /// The next that came to its end, in the order of the intents: nothing while one before it waits.
    pub fn settled(&mut self) -> Option<Settled<T>> {
        self.waiting.front()?.result.as_ref()?;
        let Waiting { place, at, intent, result, with } = self.waiting.pop_front()?;
        Some(Settled { place, signed_as: at, intent, result: result?, with })
    }

    /// Whether no intent waits for its outcome, or behind one that does.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests;
