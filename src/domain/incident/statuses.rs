//! Pure. What an extract of the Smart Metering Inventory says of the targets, against what is recorded of them.
//!
//! The Inventory is the DCC's own and says what is so there; the ledger says what was done about it, and by which proof. A line that
//! agrees, or follows from what is recorded, can be recorded; one that contradicts it changes nothing and is told with its line.

use super::decide::decide_status;
use super::targets::{Target, Targets};
use crate::domain::files::{ExtractRow, FileFaults, Layout, TableReader};
use crate::domain::ledger::steps::SmiStatus;
use crate::domain::names::IncidentId;
use crate::domain::procedure::calendar::CivilDate;
use crate::domain::time::Timestamp;

/// How a line of an extract stands to what is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its Device is no target of the incident.
    NoTarget,
    /// The same status from the same day.
    Same,
    /// Another status, which may be recorded.
    New,
    /// It cannot be so by what is recorded: why.
    Contradiction(String),
}

/// What an extract comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Lines about no target.
    pub no_target: u64,
    /// Lines that say what is recorded.
    pub same: u64,
    /// Lines with another status, which may be recorded.
    pub new: u64,
    /// Of those, lines with SMI Status 'recovery'.
    pub to_recovery: u64,
    /// Lines that contradict what is recorded.
    pub contradictions: u64,
}

/// Compares one line, at a moment.
pub fn compare(target: Option<&Target>, row: &ExtractRow, incident: &IncidentId, now: Timestamp) -> Found {
    if let Some(other) = row.incident.as_ref().filter(|other| *other != incident) {
        return Found::Contradiction(format!("the line is of incident {other}, and was sent for {incident}"));
    }
    let Some(target) = target else { return Found::NoTarget };
    let &Target { device, status, since, .. } = target;
    let (found, from) = (row.status, row.from);
    if (found, from) == (status, since) {
        return Found::Same;
    }
    // A day says when a status applies from; the Inventory may know the hour too.
    let (recorded_on, found_on) = (CivilDate::of(since).ok(), CivilDate::of(from).ok());
    if found == status && found_on == recorded_on {
        return Found::Same;
    }
    let against = if from > now {
        Some(format!("Device {device}: the status applies from {from}, and it is {now}"))
    } else if found == status {
        Some(format!("Device {device}: '{status}' is recorded from {since}, the Inventory has it from {from}"))
    } else if found_on < recorded_on {
        Some(format!(
            "Device {device}: '{status}' is recorded from {since}, and the Inventory has '{found}' from {from}, before it; is the \
             extract older than what was done?"
        ))
    } else if found == SmiStatus::Pending {
        Some(format!("Device {device}: expected a status that a Device in the field can have, found {found}"))
    } else {
        decide_status(target, found, false).err()
    };
    against.map_or(Found::New, Found::Contradiction)
}

/// Compares a whole extract, laid out so; `each` is given every line, in the file's order, with the target and its place
/// among all.
///
/// # Errors
/// What `source` says; or that it is no such file by this layout.
pub fn compare_all<E>(
    targets: &Targets,
    layout: &Layout,
    (incident, now): (&IncidentId, Timestamp),
    source: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    mut each: impl FnMut(Option<(usize, &Target)>, &ExtractRow, &Found),
) -> Result<Compared, CompareError<E>> {
    let (mut compared, mut finder) = (Compared::default(), targets.finder());
    let mut reader = TableReader::<ExtractRow>::new(layout.clone());
    let mut take = |row: ExtractRow| {
        let target = finder.find(row.device);
        let target = target.as_ref().map(|(place, target)| (*place, target));
        let found = compare(target.map(|(_, target)| target), &row, incident, now);
        match &found {
            Found::NoTarget => compared.no_target += 1,
            Found::Same => compared.same += 1,
            Found::New => {
                compared.new += 1;
                compared.to_recovery += u64::from(row.status == SmiStatus::Recovery);
            }
            Found::Contradiction(_) => compared.contradictions += 1,
        }
        each(target, &row, &found);
    };
    source(&mut |piece| reader.feed(piece, &mut take)).map_err(CompareError::Source)?;
    reader.finish(&mut take).map_err(CompareError::Faults)?;
    Ok(compared)
}

/// Why an extract cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompareError<E> {
    /// It cannot be had.
    #[error(transparent)]
    Source(E),
    /// It was taken in under another layout than the one in force.
    #[error("the extract does not read by the layout of the policy in force; send it again in that one: {0}")]
    Faults(FileFaults),
}

#[cfg(test)]
mod tests;
