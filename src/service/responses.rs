//! Shell: verifies what Devices answered, and their certificates, on every processor, and not on the thread on which everybody
//! waits for the recorder.
//!
//! The time goes into ECDSA over P-256 in ring: one verification for a certificate, one for a Response; all else of either is
//! less than a tenth of that.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::domain::intake::device_certificates::Judged;
use crate::domain::names::DeviceId;
use crate::domain::responses::{Candidates, DeviceKey, Reading, Trust, device_of};

/// Processors that verify together. More gain nothing: what they wait for is the disk behind the recorder.
const THREADS_MAX: usize = 64;

/// How many are taken up at a time: some two milliseconds' work, so that no processor waits long for the last of them.
const TAKEN_LEN: usize = 32;

/// Keys that were imported, by Device; none where nothing was.
pub type ImportedKeys = Option<BTreeMap<DeviceId, Vec<DeviceKey>>>;

/// Reads messages, and verifies each with the certificates of its Device.
///
/// # Shape
/// A reading for each message, in their order, and the certificates that were of one of their Devices.
pub fn verify(
    messages: &[Vec<u8>],
    certificates: &[Vec<u8>],
    imported: ImportedKeys,
    trust: &Trust,
) -> (Vec<Reading>, Candidates) {
    let devices: BTreeSet<_> = if certificates.is_empty() { BTreeSet::new() } else { devices(messages) };
    let found = each(certificates, |octets: &Vec<u8>| trust.candidate(octets, &devices));
    let candidates = Candidates::new(found.into_iter().flatten()).and_imported(imported);
    let readings = each(messages, |octets: &Vec<u8>| Reading::of(octets, &candidates));
    (readings, candidates)
}

/// Verifies certificates that are to be imported.
pub fn import<'a>(certificates: &[&'a [u8]], trust: &Trust) -> Vec<Judged<'a>> {
    each(certificates, |octets: &&'a [u8]| (*octets, trust.import(octets)))
}

/// The Devices that messages say they are from.
pub fn devices(messages: &[Vec<u8>]) -> BTreeSet<DeviceId> {
    messages.iter().filter_map(|octets| device_of(octets)).collect()
}

/// One value for each, in their order, made by as many threads as there are processors.
fn each<T: Sync, R: Send>(all: &[T], one: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let threads = threads.min(all.len().div_ceil(TAKEN_LEN));
    let (next, one) = (AtomicUsize::new(0), &one);
    let work = || {
        let mut made = Vec::new();
        loop {
            let from = next.fetch_add(TAKEN_LEN, Ordering::Relaxed);
            let Some(taken) = all.get(from..(from + TAKEN_LEN).min(all.len())).filter(|taken| !taken.is_empty()) else {
                return made;
            };
            made.push((from, taken.iter().map(one).collect::<Vec<_>>()));
        }
    };
    let mut made: Vec<(usize, Vec<R>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("verifying does not panic")).collect()
    });
    made.sort_by_key(|(from, _)| *from);
    made.into_iter().flat_map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gives_one_value_for_each_in_their_order_however_many_there_are() {
        for len in [0, 1, TAKEN_LEN - 1, TAKEN_LEN, TAKEN_LEN + 1, 1_000] {
            let all: Vec<usize> = (0..len).collect();
            assert_eq!(each(&all, |n| n * 2), (0..len).map(|n| n * 2).collect::<Vec<_>>());
        }
    }
}
