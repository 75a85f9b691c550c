//! Shell: verifies what Devices answered, on every processor, and not on the thread on which everybody waits for the recorder.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::thread;

use crate::domain::responses::{Candidates, Reading, Trust, device_of};

/// Processors that verify together. More gain nothing: what they wait for is the disk behind the recorder.
const THREADS_MAX: usize = 64;

/// Reads messages, and verifies each with the certificates of its Device.
///
/// # Shape
/// A reading for each message, in their order, and the certificates that were of one of their Devices.
pub fn verify(messages: &[Vec<u8>], certificates: &[Vec<u8>], trust: &Trust) -> (Vec<Reading>, Candidates) {
    let devices: BTreeSet<_> = messages.iter().filter_map(|octets| device_of(octets)).collect();
    let found = each(certificates, |octets: &Vec<u8>| trust.candidate(octets, &devices));
    let candidates = Candidates::new(found.into_iter().flatten());
    let readings = each(messages, |octets: &Vec<u8>| Reading::of(octets, &candidates));
    (readings, candidates)
}

/// One value for each, in their order, made by as many threads as there are processors.
fn each<T: Sync, R: Send>(all: &[T], one: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let share = all.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let one = &one;
        let workers: Vec<_> =
            all.chunks(share).map(|part| scope.spawn(move || part.iter().map(one).collect::<Vec<_>>())).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("reading a message does not panic")).collect()
    })
}
