use super::settle::UNKNOWNS_READ_MAX;
use super::*;
use crate::domain::ledger::merkle::Leaf;
use crate::store::memory::MemoryStore;
use crate::store::{Batch as Appended, Derived, StagingLimits, Store as _};

/// A key with unknowns of one determination, and as many behind them of another.
#[test]
fn unknowns_of_other_determinations_take_no_room_and_what_is_cut_is_said() {
    let key: KeyLabel = "recovery-1".parse().unwrap();
    let device = |n: u64| DeviceId(n.to_be_bytes().into());
    let page = UNKNOWNS_READ_MAX as u64;
    let (first, second) = (DeterminationId([1; 16]), DeterminationId([2; 16]));
    let rows: Vec<(DeviceId, DeviceFacts)> = (0..2 * page + 2)
        .map(|n| {
            let determination = if n <= page { first } else { second };
            let template = "esme".parse().unwrap();
            let state = IntentState::Unknown;
            (device(n), DeviceFacts { intent: n, determination, template, counter: 1, attempt: 1, state })
        })
        .collect();
    let derived: Vec<Derived<'_>> =
        rows.iter().map(|(device, facts)| Derived::Device { key: &key, device: *device, row: facts }).collect();
    let mut store = MemoryStore::new(StagingLimits { account_len_max: 1, total_len_max: 1 }).unwrap();
    let leaves = [Leaf::new(b"{}").unwrap()];
    store.append_at(0, &Appended { leaves: &leaves, blobs: &[], staged: &[], derived: &derived }, &mut |_| ()).unwrap();

    let check = |determination, most: u64, from: u64, count: u64, more| {
        let found = unknowns_of(&store, &key, determination, usize::try_from(most).unwrap()).unwrap();
        let devices: Vec<DeviceId> = found.0.iter().map(|(device, _)| *device).collect();
        assert_eq!((devices, found.1), ((from..from + count).map(device).collect(), more), "{most}");
    };
    for (determination, from) in [(first, 0), (second, page + 1)] {
        check(determination, 2 * page, from, page + 1, false);
        check(determination, page + 1, from, page + 1, false);
        check(determination, page, from, page, true);
        check(determination, 1, from, 1, true);
    }
    check(DeterminationId([3; 16]), page, 0, 0, false);
}
