//! Shell: an incident's story, told from the ledger in parts.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use super::answers;
use crate::api::wire;
use crate::domain::incident::timeline;
use crate::domain::ledger::entry::{Entry, Event, SignResult};
use crate::domain::names::IncidentId;
use crate::store::{Reader, StoreError};

/// What happened in an incident that was opened by entry `opened`, from an entry on: at most some `most` items, and where the next part
/// begins.
pub(super) fn story(
    reader: &dyn Reader,
    incident: IncidentId,
    (opened, from): (u64, u64),
    most: usize,
) -> Result<wire::Timeline, StoreError> {
    let size = reader.head()?.size;
    let from = from.max(opened).min(size);
    let of = wire::EntriesOf { incident: Some(incident), from: Some(from), ..wire::EntriesOf::default() };
    let (mut story, mut about) = (Story::default(), answers::About::new(&of, reader));
    // Which batches are the incident's is known only from its opening on; a batch is uncommon.
    reader.uncommon(opened.min(from)..from, &mut |leaf| {
        if let Ok(entry) = Entry::from_leaf(leaf.octets) {
            about.takes(leaf.index, &entry);
        }
        ControlFlow::Continue(())
    })?;
    let end = size.min(from + answers::READ_MAX);
    reader.leaves(from..end, &mut |leaf| {
        if let Ok(entry) = Entry::from_leaf(leaf.octets)
            && about.takes(leaf.index, &entry)
        {
            story.add(reader, leaf.index, entry);
        }
        if story.items.len() < most {
            return ControlFlow::Continue(());
        }
        story.next = Some(leaf.index + 1);
        ControlFlow::Break(())
    })?;
    story.next = story.next.or((end < size).then_some(end));
    Ok(story.end())
}

/// A story as it is told: what comes in thousands is counted.
#[derive(Default)]
struct Story {
    items: Vec<wire::Happened>,
    counted: Option<Counted>,
    next: Option<u64>,
}

/// Intents in a row, and what became of them.
struct Counted {
    entry: u64,
    at: crate::domain::time::Timestamp,
    who: String,
    intents: u64,
    signed: u64,
    failed: u64,
    not_signed: u64,
    unknown: u64,
}

impl Story {
    fn add(&mut self, reader: &dyn Reader, index: u64, entry: Entry) {
        let Entry { v: _, at, clock: _, by, event } = entry;
        match &event {
            Event::Intent(_) | Event::Outcome(_) => {
                let who = timeline::who(&by);
                let counted = self.counted.get_or_insert(Counted {
                    entry: index,
                    at,
                    who,
                    intents: 0,
                    signed: 0,
                    failed: 0,
                    not_signed: 0,
                    unknown: 0,
                });
                match event {
                    Event::Outcome(outcome) => match outcome.result {
                        SignResult::Signed(_) => counted.signed += 1,
                        SignResult::Failed(_) => counted.failed += 1,
                        SignResult::NotSigned(_) => counted.not_signed += 1,
                        SignResult::Unknown(_) => counted.unknown += 1,
                    },
                    _ => counted.intents += 1,
                }
            }
            event => {
                if let Some(what) = tell(reader, event) {
                    self.flush();
                    self.items.push(wire::Happened { entry: index, at, who: timeline::who(&by), what });
                }
            }
        }
    }

    fn flush(&mut self) {
        let Some(Counted { entry, at, who, intents, signed, failed, not_signed, unknown }) = self.counted.take() else {
            return;
        };
        let mut what = format!("{intents} commands were intended: {signed} signed");
        for (count, text) in [(failed, "failed"), (not_signed, "not signed"), (unknown, "of unknown outcome")] {
            if count > 0 {
                let _ = write!(what, ", {count} {text}");
            }
        }
        self.items.push(wire::Happened { entry, at, who, what });
    }

    fn end(mut self) -> wire::Timeline {
        self.flush();
        wire::Timeline { items: self.items, next: self.next }
    }
}

/// What an event says: a direction in the words of its document, a determination with what it determined.
fn tell(reader: &dyn Reader, event: &Event) -> Option<String> {
    let told = timeline::tell(event)?;
    Some(match event {
        Event::DirectionRecorded(recorded) => {
            answers::direction(reader, recorded).map_or(told, |document| timeline::direction(&document))
        }
        Event::DeterminationRecorded(recorded) => match answers::determination(reader, recorded) {
            Some(document) => format!("{told}; {}", timeline::determination(document.form())),
            None => told,
        },
        _ => told,
    })
}

#[cfg(test)]
mod tests;
