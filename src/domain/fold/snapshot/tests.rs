use std::collections::BTreeMap;
use std::convert::Infallible;

use super::*;
use crate::domain::fold::tests::Lists;
use crate::domain::fold::{Change, MemoryBook};
use crate::domain::names::{DeterminationId, DeviceId, KeyLabel};
use crate::domain::policy::facts::{DeviceFacts, IntentState};
use crate::domain::responses::{DeviceKey, Outcome, ResultLine};
use crate::domain::time::Timestamp;

/// Devices of one key.
struct Devices(KeyLabel, BTreeMap<DeviceId, DeviceFacts>);

impl Rows for Devices {
    type Error = Infallible;

    fn rows_from(
        &self,
        _table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        let rows = self.1.iter().map(|(device, facts)| Row::Device { key: &self.0, device: *device, facts });
        let mut rows = rows.skip_while(|row| *row.key() < *from);
        while let Some(row) = rows.next()
            && visit(row).is_continue()
        {}
        Ok(())
    }
}

fn device(i: u64) -> DeviceId {
    DeviceId(i.to_be_bytes().into())
}

fn facts(counter: u64) -> DeviceFacts {
    DeviceFacts {
        intent: 3,
        determination: DeterminationId([1; 16]),
        template: "suppliers".parse().unwrap(),
        counter,
        attempt: 1,
        state: IntentState::Signed,
    }
}

fn key(i: u64) -> Vec<u8> {
    rows::device_key(&"recovery-1".parse().unwrap(), device(i))
}

fn devices(all: impl IntoIterator<Item = u64>) -> Devices {
    Devices("recovery-1".parse().unwrap(), all.into_iter().map(|i| (device(i), facts(i))).collect())
}

/// After these Devices changed.
fn renew(pages: &mut WithParts, rows: &Devices, changed: &[u64]) {
    let keys: Vec<_> = changed.iter().map(|i| key(*i)).collect();
    let Ok(()) = pages.renew(keys.iter().map(Vec::as_slice), rows);
}

/// All of them, with the lists of their parts.
fn made(rows: &Devices) -> (Pages, Vec<Vec<u8>>) {
    let mut lists = Vec::new();
    let Ok(pages) = Pages::made(Table::Device, rows, |made| lists.push(made.list.clone()));
    (pages, lists)
}

#[test]
fn pages_are_a_function_of_the_rows_whatever_way_they_came() {
    let all: Vec<u64> = (0..20_000).map(|i| i * 3).collect();
    let (whole, lists) = made(&devices(all.iter().copied()));
    assert!((40..200).contains(&whole.all().len()), "{} pages", whole.all().len());
    let parts: usize = lists.iter().map(|list| pages::parts(list).len()).sum();
    assert!((800..1_800).contains(&parts), "{parts} parts");
    // In order, backwards, and each a little of everything; many and few at a time.
    let orders: [fn(u64) -> u64; 3] = [|i| i, |i| 19_999 - i, |i| i * 7_919 % 20_000];
    for order in orders {
        for at_a_time in [1_900, 11] {
            let (mut rows, mut pages) = (devices([]), WithParts::empty(Table::Device));
            let until = if at_a_time < 100 { 3_000 } else { 20_000 };
            for part in (0..until).collect::<Vec<u64>>().chunks(at_a_time) {
                let mut changed: Vec<u64> = part.iter().map(|i| order(*i) * 3).collect();
                changed.sort_unstable();
                rows.1.extend(changed.iter().map(|i| (device(*i), facts(*i))));
                renew(&mut pages, &rows, &changed);
            }
            assert_eq!(*pages.pages(), made(&rows).0);
            assert!(until < 20_000 || *pages.pages() == whole);
        }
    }
}

#[test]
fn rows_of_one_device_stay_together_whichever_of_them_came_first() {
    const TABLES: [Table; 4] = [Table::Device, Table::Earlier, Table::Response, Table::DeviceKey];
    let mut number = 1_u64;
    // Numerical Recipes' generator of 64 bits: the same ones in each run, those beyond 2^63 among them.
    let mut next = || {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        number
    };
    let (mut book, mut pages) = (MemoryBook::default(), TABLES.map(WithParts::empty));
    let (label, none): (KeyLabel, _) = ("recovery-1".parse().unwrap(), Lists::default());
    let at = |seconds: u64| Timestamp::from_unix_ms(i64::try_from(seconds * 1_000).unwrap()).unwrap();
    for entry in 0..150 {
        let mut keys = Vec::new();
        for _ in 0..40 {
            let device = device((next() >> 33) % 1_200);
            let counter = next();
            for state in [IntentState::Open, IntentState::Signed] {
                let facts = DeviceFacts { state, ..facts(counter) };
                book.apply(&Change::Device { key: label.clone(), device, facts }, &none).unwrap();
            }
            let mut point = [4; 65];
            point[1..9].copy_from_slice(&next().to_be_bytes());
            let (from, until) = (at(next() >> 40), at(next() >> 40));
            keys.push(DeviceKey { device, point, device_ca: Digest([7; 32]), from, until });
        }
        keys.sort_unstable();
        let line = |key: &DeviceKey| ResultLine::new(Some(key.device), Some(entry), Outcome::Recovered, "");
        let lines = keys.iter().map(line).collect();
        let determination = DeterminationId([u8::try_from(entry % 3).unwrap(); 16]);
        book.apply(&Change::Responses { determination, entry, lines }, &none).unwrap();
        book.apply(&Change::DeviceKeys { entry, keys: keys.into() }, &none).unwrap();
        for (table, pages) in TABLES.into_iter().zip(&mut pages) {
            let changed = book.take_changed(table);
            let Ok(()) = pages.renew(changed.iter().map(Vec::as_slice), &book);
            let Ok(whole) = Pages::made(table, &book, |_| ());
            assert_eq!(*pages.pages(), whole, "table {table} after {entry}");
        }
    }
    for pages in &pages {
        assert!(pages.pages().all().len() > 2, "{} pages", pages.pages().all().len());
    }
}

#[test]
fn a_row_that_changes_alters_its_part_and_its_page_and_no_other() {
    let mut rows = devices((0..5_000).map(|i| i * 2));
    let (before, lists) = made(&rows);
    let at = before.covering(&key(4_000)).unwrap();
    rows.1.insert(device(4_000), facts(1));
    let (after, others) = made(&rows);
    let differ: Vec<_> = (0..before.all().len()).filter(|i| before.all()[*i] != after.all()[*i]).collect();
    assert_eq!((before.all().len(), differ), (after.all().len(), vec![at]));
    let (old, new) = (pages::parts(&lists[at]), pages::parts(&others[at]));
    let part = pages::part_of(Table::Device, &old, &key(4_000));
    let differ: Vec<_> = (0..old.len()).filter(|i| old[*i] != new[*i]).collect();
    assert_eq!((old.len(), differ), (new.len(), vec![part]));
    for page in 0..before.all().len() {
        assert_eq!(before.is_so(page, &rows), Ok(page != at), "page {page}");
    }
}

/// Counts the rows that are read.
struct Counted<'a>(&'a Devices, std::cell::Cell<usize>);

impl Rows for Counted<'_> {
    type Error = Infallible;

    fn rows_from(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        self.0.rows_from(table, from, &mut |row| {
            self.1.set(self.1.get() + 1);
            visit(row)
        })
    }
}

#[test]
fn rows_that_change_here_and_there_cost_as_much_in_a_large_table_as_in_a_small_one() {
    let mut each = Vec::new();
    for count in [4_000, 32_000] {
        let rows = devices(0..count);
        let mut pages = WithParts::empty(Table::Device);
        renew(&mut pages, &rows, &(0..count).collect::<Vec<_>>());
        let changed: Vec<u64> = (0..100).map(|i| i * (count / 100)).collect();
        let counted = Counted(&rows, std::cell::Cell::new(0));
        let keys: Vec<_> = changed.iter().map(|i| key(*i)).collect();
        let Ok(()) = pages.renew(keys.iter().map(Vec::as_slice), &counted);
        each.push(counted.1.get() / changed.len());
    }
    // A row falls into a long part more often than into a short one: 31 rows on average, and the one after them.
    assert!(each.iter().all(|rows| (8..60).contains(rows)), "{each:?} rows read for each that changed");
}

#[test]
fn what_lies_between_two_pages_or_beyond_them_is_in_none() {
    let rows = devices((0..5_000).map(|i| i * 2));
    let (pages, _) = made(&rows);
    let last: [u8; 8] = pages.all()[3].last[11..].try_into().unwrap();
    let last = u64::from_be_bytes(last);
    assert_eq!(pages.covering(&key(last)), Some(3));
    assert_eq!(pages.covering(&key(last + 1)), None);
    assert_eq!(pages.covering(&key(last + 2)), Some(4));
    assert_eq!((pages.covering(&key(9_998)), pages.covering(&key(9_999))), (Some(pages.all().len() - 1), None));
    assert_eq!(
        (pages.from(&key(last)), pages.from(&key(last + 1)), pages.from(&key(10_000))),
        (3, 4, pages.all().len())
    );
}

#[test]
fn every_field_of_a_row_counts() {
    let digest = |facts: DeviceFacts| {
        let rows = Devices("recovery-1".parse().unwrap(), BTreeMap::from([(device(1), facts)]));
        let (pages, _) = made(&rows);
        pages.kept().sha256
    };
    let one = facts(1);
    let others = [
        DeviceFacts { intent: 4, ..one.clone() },
        DeviceFacts { determination: DeterminationId([2; 16]), ..one.clone() },
        DeviceFacts { template: "supplier".parse().unwrap(), ..one.clone() },
        DeviceFacts { counter: 2, ..one.clone() },
        DeviceFacts { attempt: 2, ..one.clone() },
        DeviceFacts { state: IntentState::Left, ..one.clone() },
    ];
    for other in others {
        assert_ne!(digest(other.clone()), digest(one.clone()), "{other:?}");
    }
}

#[test]
fn few_runs_of_pages_and_many_are_put_in_their_places_alike() {
    // Every other page changes: runs that are no neighbours.
    let before = devices((0..60_000).map(|i| i * 2));
    let (whole, lists) = made(&before);
    let number = |key: &[u8]| u64::from_be_bytes(key[key.len() - 8..].try_into().unwrap());
    for runs in [pages::SPLICED_MAX, pages::SPLICED_MAX + 1] {
        let changed: Vec<u64> = whole.all().iter().step_by(2).take(runs).map(|page| number(&page.first) + 1).collect();
        assert_eq!(changed.len(), runs, "of {} pages", whole.all().len());
        let mut rows = devices((0..60_000).map(|i| i * 2));
        rows.1.extend(changed.iter().map(|i| (device(*i), facts(7))));
        let touched: Vec<_> = changed.iter().map(|i| key(*i)).collect();
        let Ok(touched) =
            whole.touched(touched.iter().map(Vec::as_slice), |page| Ok::<_, Infallible>(lists[page].clone()));
        assert_eq!(touched.len(), runs);
        let mut pages = WithParts::empty(Table::Device);
        renew(&mut pages, &before, &(0..60_000).map(|i| i * 2).collect::<Vec<_>>());
        renew(&mut pages, &rows, &changed);
        assert_eq!(*pages.pages(), made(&rows).0, "{runs} runs");
    }
}
