//! Pure. A map with nothing between its rows: for millions of them, which nearly always come in ascending order.

use std::collections::BTreeMap;

/// Rows that lie together. One that comes in order is appended; one that does not moves half as many at most.
const ROWS: usize = 512;

/// A map by ascending keys. A `BTreeMap` filled in ascending order is half empty; here a row takes what it is long.
#[derive(Clone, Debug)]
pub(in crate::domain) struct Dense<K, V> {
    /// By a key that is no greater than any of its own, and greater than all before it; none is empty.
    chunks: BTreeMap<K, Vec<(K, V)>>,
}

impl<K, V> Default for Dense<K, V> {
    fn default() -> Self {
        Self { chunks: BTreeMap::new() }
    }
}

impl<K: Copy + Ord, V> Dense<K, V> {
    /// The chunk where a key stands, or would, by its name: the first one takes what is less than all.
    fn chunk_of(&self, key: K) -> Option<K> {
        let before = self.chunks.range(..=key).next_back();
        before.or_else(|| self.chunks.first_key_value()).map(|(name, _)| *name)
    }

    /// The row of a key.
    pub(in crate::domain) fn get(&self, key: K) -> Option<&V> {
        let chunk = self.chunks.get(&self.chunk_of(key)?)?;
        let at = chunk.binary_search_by_key(&key, |(of, _)| *of).ok()?;
        chunk.get(at).map(|(_, row)| row)
    }

    /// Puts a row in the place of the one before, which it answers.
    pub(in crate::domain) fn insert(&mut self, key: K, row: V) -> Option<V> {
        let Some(mut name) = self.chunk_of(key) else {
            self.begin(key, row);
            return None;
        };
        if key < name {
            if self.chunks.get(&name).is_some_and(|first| first.len() == ROWS) {
                self.begin(key, row);
                return None;
            }
            // Less than all: the first one is called by it from now on, or what is split off would come before what stays.
            let first = self.chunks.remove(&name)?;
            self.chunks.insert(key, first);
            name = key;
        }
        let chunk = self.chunks.get_mut(&name)?;
        match chunk.binary_search_by_key(&key, |(of, _)| *of) {
            Ok(at) => Some(std::mem::replace(&mut chunk[at].1, row)),
            Err(at) if chunk.len() < ROWS => {
                chunk.insert(at, (key, row));
                None
            }
            Err(at) if at == ROWS => {
                // Before the next one, where that has room: rows that come backwards would have a chunk each.
                let next = self.chunks.range(key..).next().filter(|(_, chunk)| chunk.len() < ROWS);
                match next.map(|(next, _)| *next).and_then(|next| self.chunks.remove(&next)) {
                    Some(mut next) => {
                        next.insert(0, (key, row));
                        self.chunks.insert(key, next);
                    }
                    None => self.begin(key, row),
                }
                None
            }
            Err(_) => {
                let mut behind = Vec::with_capacity(ROWS);
                behind.extend(chunk.drain(ROWS / 2..));
                self.chunks.insert(behind[0].0, behind);
                self.insert(key, row)
            }
        }
    }

    fn begin(&mut self, key: K, row: V) {
        let mut chunk = Vec::with_capacity(ROWS);
        chunk.push((key, row));
        self.chunks.insert(key, chunk);
    }

    /// Takes out the first row from a key on, if its key is below `until`.
    pub(in crate::domain) fn take_first(&mut self, from: K, until: K) -> Option<(K, V)> {
        let (key, _) = self.from(from).next().filter(|(key, _)| **key < until)?;
        let key = *key;
        let name = self.chunk_of(key)?;
        let chunk = self.chunks.get_mut(&name)?;
        let at = chunk.binary_search_by_key(&key, |(of, _)| *of).ok()?;
        let row = chunk.remove(at);
        if chunk.is_empty() {
            self.chunks.remove(&name);
        }
        Some(row)
    }

    /// The rows from a key on.
    pub(in crate::domain) fn from(&self, key: K) -> impl Iterator<Item = (&K, &V)> {
        let first = self.chunk_of(key).unwrap_or(key);
        let rows = self.chunks.range(first..).flat_map(|(_, chunk)| chunk);
        rows.map(|(of, row)| (of, row)).skip_while(move |(of, _)| **of < key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_come_backwards_lie_as_close_together_as_others() {
        for from in [[0..0, 1..100_001], [1..513, 513..100_001], [50_000..50_512, 1..50_000]] {
            let [ascending, descending] = from;
            let mut dense = Dense::default();
            let all: Vec<u64> = ascending.chain(descending.rev()).collect();
            for key in &all {
                assert_eq!(dense.insert(*key, *key), None);
            }
            assert!(dense.from(0).map(|(key, _)| *key).is_sorted());
            assert_eq!(dense.from(0).count(), all.len());
            let most = 2 * all.len() / ROWS + 2;
            assert!(dense.chunks.len() <= most, "{} chunks, at most {most}", dense.chunks.len());
        }
    }

    /// The same done to both, in orders that begin, append, split and empty chunks.
    #[test]
    fn it_answers_as_any_ordered_map_does() {
        // In order, backwards, here and there; with all others above the first one, below it, or on both sides.
        for (step, first) in
            [1_u64, 7, 1_021, 4_095].into_iter().flat_map(|step| [0, 2_000, 4_095].map(|first| (step, first)))
        {
            let (mut dense, mut tree) = (Dense::default(), BTreeMap::new());
            for n in 0..4_096_u64 {
                let key = (first + n * step) % 4_096;
                assert_eq!(dense.insert(key, n), tree.insert(key, n));
            }
            for key in (0..4_096).step_by(3) {
                assert_eq!(dense.insert(key, 0), tree.insert(key, 0));
            }
            for (from, until) in [(1_000, 1_700), (0, 5), (4_000, 9_000), (1_000, 1_700)] {
                while let Some((key, row)) = dense.take_first(from, until) {
                    assert_eq!(tree.range(from..until).next(), Some((&key, &row)));
                    tree.remove(&key);
                }
                assert_eq!(tree.range(from..until).next(), None);
            }
            for from in [0, 5, 999, 1_000, 1_700, 3_999, 4_000, 5_000] {
                assert!(dense.from(from).eq(tree.range(from..)), "from {from}");
                assert_eq!(dense.get(from), tree.get(&from));
            }
        }
    }
}
