//! Pure. What a `snapshot` entry commits to: the state after so many entries, so that a start need not read them all again.
//!
//! | what | how it is committed to |
//! |---|---|
//! | the fold, without the Relevant Devices | SHA-256 of its one encoding ([`crate::domain::fold::Fold::kept`]) |
//! | the Relevant Devices of each incident | SHA-256 of theirs |
//! | what grows with Devices: five [`Table`]s | SHA-256 of the list of their [`Pages`], each of which has the SHA-256 of its rows |
//!
//! All of it is a function of the entries before, whoever computes it: where a page begins depends on the keys of its rows alone, and
//! not on when they came. So the daemon hashes only the pages that changed, and so does whoever verifies the ledger.

pub mod pages;
pub mod rows;

pub use pages::{Page, Pages, Renewed};
pub use rows::{Row, Table};

use std::ops::ControlFlow;

use crate::domain::fold::Fold;
use crate::domain::ledger::snapshots::{FORM, Snapshot, TableKept, TargetsKept};
use crate::domain::names::{Digest, IncidentId};

/// Gives the rows of tables in the order of their keys.
pub trait Rows {
    /// Why they cannot be given.
    type Error;

    /// Visits the rows of a table from this key on, in order, until `visit` breaks.
    fn rows_from(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;
}

/// What the four tables come to, in the order of [`Table::ALL`].
pub type Tables = [TableKept; Table::ALL.len()];

/// The snapshot of a state.
pub fn snapshot(fold: &[u8], targets: Vec<TargetsKept>, tables: Tables) -> Snapshot {
    of_tables(Digest::of(fold), targets, tables)
}

/// The same of what was made of its parts before.
pub fn of_tables(fold: Digest, targets: Vec<TargetsKept>, tables: Tables) -> Snapshot {
    let [device, request, earlier, response, device_key] = tables;
    Snapshot { form: FORM, fold, targets, device, request, earlier, response, device_key }
}

/// Something of each table.
pub fn of_each<T, E>(of: impl FnMut(Table) -> Result<T, E>) -> Result<[T; Table::ALL.len()], E> {
    let made: Vec<T> = Table::ALL.into_iter().map(of).collect::<Result<_, E>>()?;
    Ok(made.try_into().unwrap_or_else(|_| unreachable!("there is one of each table")))
}

/// Whether a snapshot is that of this state. One of another form says nothing that can be compared here.
///
/// # Errors
/// What it has, and what the entries before it come to.
pub fn compare(recorded: &Snapshot, made: &Snapshot) -> Result<(), String> {
    let differs = |what: &str, recorded: &dyn std::fmt::Display, made: &dyn std::fmt::Display| {
        Err(format!("{what}: the entries before it come to {made}, found {recorded}"))
    };
    if recorded.fold != made.fold {
        return differs("the fold", &recorded.fold, &made.fold);
    }
    if recorded.targets != made.targets {
        let say = |targets: &[TargetsKept]| {
            let each = |kept: &TargetsKept| format!("{} {}", kept.incident, kept.sha256);
            targets.iter().map(each).collect::<Vec<_>>().join(", ")
        };
        return differs("the Relevant Devices", &say(&recorded.targets), &say(&made.targets));
    }
    for ((table, recorded), made) in Table::ALL.into_iter().zip(recorded.tables()).zip(made.tables()) {
        if recorded != made {
            let say = |kept: TableKept| format!("{} rows, {}", kept.rows, kept.sha256);
            return differs(&format!("table {table}"), &say(recorded), &say(made));
        }
    }
    Ok(())
}

/// What snapshots say of the Relevant Devices, made again only after an entry that may have altered them: they may be ten million.
#[derive(Clone, Debug, Default)]
pub struct TargetsSeen {
    /// [`Fold::targets_altered`] when they were made.
    altered: Option<u64>,
    kept: Vec<TargetsKept>,
}

impl TargetsSeen {
    /// Those of a state, and the encodings of those that are not what they were before.
    pub fn of(&mut self, fold: &Fold) -> (Vec<TargetsKept>, Vec<(IncidentId, Vec<u8>)>) {
        if self.altered == Some(fold.targets_altered()) {
            return (self.kept.clone(), Vec::new());
        }
        let (mut kept, mut changed) = (Vec::new(), Vec::new());
        for (incident, targets) in fold.targets() {
            let octets = targets.kept();
            let of_incident = TargetsKept { incident: incident.clone(), sha256: Digest::of(&octets) };
            if !self.kept.contains(&of_incident) {
                changed.push((incident.clone(), octets));
            }
            kept.push(of_incident);
        }
        (self.altered, self.kept) = (Some(fold.targets_altered()), kept.clone());
        (kept, changed)
    }

    /// They were not kept after all.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Where the store keeps the encoding of the fold.
pub const FOLD_PART: &str = "fold";

/// Where it keeps the Relevant Devices of an incident.
pub fn targets_part(incident: &IncidentId) -> String {
    format!("targets/{incident}")
}

#[cfg(test)]
mod tests;
