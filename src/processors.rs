//! Shell: work that is spread over the processors, where each piece takes long and none waits for another.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Processors that work together. More gain nothing: what they wait for is the disk.
const THREADS_MAX: usize = 64;

/// How many are taken up at a time: some two milliseconds of verifying, so that no processor waits long for the last of them.
const TAKEN_LEN: usize = 32;

/// One value for each, in their order, made by as many threads as there are processors.
pub fn each<T: Sync, R: Send>(all: &[T], one: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let made = spread(all.len(), |from, until| all[from..until].iter().map(&one).collect::<Vec<_>>());
    let mut flat = Vec::with_capacity(all.len());
    for piece in made {
        flat.extend(piece);
    }
    flat
}

/// Does it for each number below this one.
pub fn at_once(count: usize, one: &(dyn Fn(usize) + Sync)) {
    spread(count, |from, until| (from..until).for_each(one));
}

/// What is made of each piece of so many, in their order.
fn spread<R: Send>(count: usize, piece: impl Fn(usize, usize) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let threads = threads.min(count.div_ceil(TAKEN_LEN));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        loop {
            let from = next.fetch_add(TAKEN_LEN, Ordering::Relaxed);
            if from >= count {
                return made;
            }
            made.push((from, piece(from, (from + TAKEN_LEN).min(count))));
        }
    };
    if threads <= 1 {
        // A thread costs more than what little there is.
        return work().into_iter().map(|(_, made)| made).collect();
    }
    let mut made: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("the work does not panic")).collect()
    });
    made.sort_by_key(|(from, _)| *from);
    made.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gives_one_value_for_each_in_their_order_however_many_there_are() {
        for len in [0, 1, TAKEN_LEN - 1, TAKEN_LEN, TAKEN_LEN + 1, 1_000] {
            let all: Vec<usize> = (0..len).collect();
            assert_eq!(each(&all, |n| n * 2), (0..len).map(|n| n * 2).collect::<Vec<_>>());
            let done = AtomicUsize::new(0);
            at_once(len, &|n| {
                done.fetch_add(n + 1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), (1..=len).sum::<usize>());
        }
    }
}
