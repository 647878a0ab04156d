//! The outstanding changes of each key, in the order they were fed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::limits::OUTSTANDING_KEY_BYTES_MAX;

/// The numbers of each key. No lane is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lanes {
    numbers: BTreeMap<Bytes, BTreeSet<u64>>,
    // Sum of the bytes of the keys of all numbers.
    key_bytes: usize,
}

impl Lanes {
    /// Adds a number. Returns true if it is the first of its key.
    pub(super) fn add(&mut self, key: &Bytes, number: u64) -> bool {
        self.key_bytes = self.key_bytes.saturating_add(key.len());
        let lane = self.numbers.entry(key.clone()).or_default();
        lane.insert(number);
        lane.first() == Some(&number)
    }

    /// Removes a number. If it was the first of its key, returns the one that is the first now.
    pub(super) fn remove(&mut self, key: &Bytes, number: u64) -> Option<u64> {
        self.key_bytes = self.key_bytes.saturating_sub(key.len());
        let lane = self.numbers.get_mut(key)?;
        let was_first = lane.first() == Some(&number);
        lane.remove(&number);
        let first = lane.first().copied();
        if first.is_none() {
            self.numbers.remove(key);
        }
        first.filter(|_| was_first)
    }

    /// Returns the first number of a key.
    pub(super) fn first(&self, key: &Bytes) -> Option<u64> {
        self.numbers.get(key)?.first().copied()
    }

    /// True when the keys take as much memory as they may.
    pub(super) fn is_full(&self) -> bool {
        self.key_bytes >= OUTSTANDING_KEY_BYTES_MAX
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> BTreeSet<u64> {
        self.numbers.values().flatten().copied().collect()
    }

    #[cfg(test)]
    pub(super) fn firsts(&self) -> BTreeSet<u64> {
        let firsts = self.numbers.values().filter_map(BTreeSet::first);
        firsts.copied().collect()
    }
}
