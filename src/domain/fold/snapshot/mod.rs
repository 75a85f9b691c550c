//! Pure. What a `snapshot` entry commits to: the state after so many entries, so that a start need not read them all again.
//!
//! | what | how it is committed to |
//! |---|---|
//! | the fold, without the Relevant Devices | SHA-256 of its one encoding ([`crate::domain::fold::Fold::kept`]) |
//! | the Relevant Devices of each incident | SHA-256 of a head, which has the SHA-256 of each of their pages |
//! | what grows with Devices: five [`Table`]s | SHA-256 of the list of their [`Pages`], each of which has that of the list of its parts, and each part that of its rows |
//!
//! All of it is a function of the entries before, whoever computes it: where a page or a part begins depends on the keys of its rows alone, and
//! not on when they came. So the daemon hashes only the parts that changed, and so does whoever verifies the ledger: a change costs the same
//! in a small and in a large table, in whatever order they come.

pub mod pages;
pub mod rows;

pub use pages::{Made, Page, Pages, Renewed, Touched, WithParts};
pub use rows::{Row, Table};

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::domain::fold::Fold;
use crate::domain::incident::targets::PagesKept;
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

/// What the tables come to, in the order of [`Table::ALL`].
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

/// What snapshots say of the Relevant Devices, made again only after an entry that may have altered them, and of the pages that it did
/// alter: they may be ten million.
#[derive(Clone, Debug, Default)]
pub struct TargetsSeen {
    /// [`Fold::targets_altered`] when they were made.
    altered: Option<u64>,
    kept: Vec<TargetsKept>,
    pages: BTreeMap<IncidentId, PagesKept>,
}

impl TargetsSeen {
    /// The incidents whose Relevant Devices it has not seen yet.
    pub fn unseen<'a>(&'a self, fold: &'a Fold) -> impl Iterator<Item = &'a IncidentId> {
        fold.targets().map(|(incident, _)| incident).filter(move |incident| !self.pages.contains_key(*incident))
    }

    /// Those of a state. `stored` has the head of an incident's as it is kept where `put` takes what is another since, with the name of its
    /// part; it is asked once.
    pub fn of(
        &mut self,
        fold: &Fold,
        stored: &dyn Fn(&IncidentId) -> Option<Vec<u8>>,
        put: &mut dyn FnMut(String, Vec<u8>),
    ) -> Vec<TargetsKept> {
        if self.altered == Some(fold.targets_altered()) {
            return self.kept.clone();
        }
        let mut kept = Vec::new();
        for (incident, targets) in fold.targets() {
            let pages = self.pages.entry(incident.clone()).or_insert_with(|| {
                stored(incident).and_then(|head| PagesKept::of_head(&head).ok()).unwrap_or_default()
            });
            let head = targets.keep(pages, &mut |page, octets| put(targets_page(incident, page), octets));
            let of_incident = TargetsKept { incident: incident.clone(), sha256: Digest::of(&head) };
            if !self.kept.contains(&of_incident) {
                put(targets_part(incident), head);
            }
            kept.push(of_incident);
        }
        (self.altered, self.kept) = (Some(fold.targets_altered()), kept.clone());
        kept
    }

    /// The same for whoever keeps none of it.
    pub fn told(&mut self, fold: &Fold) -> Vec<TargetsKept> {
        self.of(fold, &|_| None, &mut |_, _| ())
    }

    /// They were not kept after all.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Where the store keeps the encoding of the fold.
pub const FOLD_PART: &str = "fold";

/// Where it keeps the head of the Relevant Devices of an incident.
pub fn targets_part(incident: &IncidentId) -> String {
    format!("targets/{incident}")
}

/// Where it keeps a page of them, counted from 0.
pub fn targets_page(incident: &IncidentId, page: usize) -> String {
    format!("targets/{incident}/{page}")
}

#[cfg(test)]
mod tests;
