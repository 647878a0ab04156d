//! Pending entries: each waits for something that must come first. A bounded pool.

use std::collections::{BTreeMap, BTreeSet};

use crate::{id::EntryId, protocol::entry::VerifiedEntry};

/// A bounded pool of entries, each with the key of what it waits for: the id of its predecessor or
/// of a parent, or an author that is not admitted yet.
///
/// It is only a cache: when it is full, the oldest entry is dropped, and asked for again later.
#[derive(Debug)]
pub struct Pending<K = EntryId> {
    // By order of arrival, each with what it waits for. The same entries are in `places`, and each is
    // in exactly one set of `waiting`.
    entries: BTreeMap<u64, (VerifiedEntry, K)>,
    places: BTreeMap<EntryId, u64>,
    // Ids of the entries that wait for each key. No set is empty.
    waiting: BTreeMap<K, BTreeSet<EntryId>>,
    next: u64,
    bytes: usize,
    bytes_max: usize,
}

impl<K: Copy + Ord> Pending<K> {
    /// Makes an empty pool that holds at most `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            places: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no entry waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns about how many bytes of memory the entries take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the entry with `id`.
    pub fn get(&self, id: &EntryId) -> Option<&VerifiedEntry> {
        let place = self.places.get(id)?;
        self.entries.get(place).map(|(entry, _missing)| entry)
    }

    /// Keeps `entry` until `missing` comes. Returns the ids of the entries that were dropped to make
    /// room, oldest first.
    ///
    /// An entry that is here already goes on waiting for what it waited for.
    pub fn insert(&mut self, entry: VerifiedEntry, missing: K) -> Vec<EntryId> {
        let id = entry.id;
        if self.places.contains_key(&id) {
            return Vec::new();
        }
        self.bytes = self.bytes.saturating_add(entry.bytes());
        self.waiting.entry(missing).or_default().insert(id);
        self.places.insert(id, self.next);
        self.entries.insert(self.next, (entry, missing));
        self.next = self.next.saturating_add(1);
        let mut gone = Vec::new();
        while self.bytes > self.bytes_max {
            let Some((_, (oldest, missing))) = self.entries.pop_first() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(oldest.bytes());
            self.places.remove(&oldest.id);
            if let Some(waiters) = self.waiting.get_mut(&missing) {
                waiters.remove(&oldest.id);
                if waiters.is_empty() {
                    self.waiting.remove(&missing);
                }
            }
            gone.push(oldest.id);
        }
        gone
    }

    /// Takes out the entries that waited for `come`, in order of their ids.
    pub fn release(&mut self, come: &K) -> Vec<VerifiedEntry> {
        let waiters = self.waiting.remove(come).unwrap_or_default();
        waiters
            .iter()
            .filter_map(|waiter| self.take(waiter))
            .collect()
    }

    /// Takes out all entries, in order of arrival.
    pub fn take_all(&mut self) -> Vec<VerifiedEntry> {
        self.places.clear();
        self.waiting.clear();
        self.bytes = 0;
        let entries = std::mem::take(&mut self.entries).into_values();
        entries.map(|(entry, _missing)| entry).collect()
    }

    /// Takes out the entry with `id`.
    pub fn remove(&mut self, id: &EntryId) -> Option<VerifiedEntry> {
        let missing = self.entries.get(self.places.get(id)?)?.1;
        if let Some(waiters) = self.waiting.get_mut(&missing) {
            waiters.remove(id);
            if waiters.is_empty() {
                self.waiting.remove(&missing);
            }
        }
        self.take(id)
    }

    fn take(&mut self, id: &EntryId) -> Option<VerifiedEntry> {
        let (entry, _missing) = self.entries.remove(&self.places.remove(id)?)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::entry::tests::{AUTHOR_A, entry};

    const MISSING: EntryId = EntryId([1; 32]);
    const OTHER: EntryId = EntryId([2; 32]);

    fn waiting(wall_ms: u64) -> VerifiedEntry {
        entry(AUTHOR_A, 2, Some(MISSING), wall_ms, "/k")
    }

    /// Panics unless the fields agree, and nothing is left where no entry waits.
    fn assert_consistent(pending: &Pending) {
        let mut waiters = BTreeMap::new();
        for (missing, ids) in &pending.waiting {
            assert!(!ids.is_empty(), "nobody waits for {missing}");
            waiters.extend(ids.iter().map(|id| (*id, *missing)));
        }
        let entries = pending.entries.iter();
        assert_eq!(
            waiters,
            entries
                .map(|(_, (entry, missing))| (entry.id, *missing))
                .collect()
        );
        let entries = pending.entries.iter();
        assert_eq!(
            pending.places,
            entries
                .map(|(place, (entry, _))| (entry.id, *place))
                .collect()
        );
        assert_eq!(
            pending.waiting.values().map(BTreeSet::len).sum::<usize>(),
            pending.len()
        );
        let bytes: usize = pending
            .entries
            .values()
            .map(|(entry, _)| entry.bytes())
            .sum();
        assert_eq!(pending.bytes(), bytes);
        assert!(pending.bytes() <= pending.bytes_max);
    }

    #[test]
    fn all_that_wait_for_an_entry_are_released_by_id_and_the_rest_stay() {
        let mut pending: Pending = Pending::new(1 << 20);
        let entries: Vec<_> = (5..25).map(waiting).collect();
        for (index, entry) in entries.iter().enumerate() {
            let missing = if index < 15 { MISSING } else { OTHER };
            assert_eq!(pending.insert(entry.clone(), missing), []);
            assert_consistent(&pending);
        }
        let mut expected = entries[..15].to_vec();
        expected.sort_by_key(|entry| entry.id);
        assert_eq!(pending.release(&MISSING), expected);
        assert_consistent(&pending);
        assert_eq!(pending.release(&MISSING), []);
        assert_eq!(pending.release(&EntryId([9; 32])), []);
        assert_eq!(pending.release(&OTHER).len(), 5);
        assert!(pending.is_empty());
        assert_consistent(&pending);
    }

    #[test]
    fn n3_a_full_pool_lets_the_oldest_go_and_forgets_it() {
        let one = waiting(500).bytes();
        let mut pending: Pending = Pending::new(10 * one);
        let entries: Vec<_> = (500..600).map(waiting).collect();
        for (index, entry) in entries.iter().enumerate() {
            let missing = if index % 2 == 0 { MISSING } else { OTHER };
            let gone = pending.insert(entry.clone(), missing);
            let oldest = index.checked_sub(10).map(|index| entries[index].id);
            assert_eq!(gone, oldest.into_iter().collect::<Vec<_>>());
            assert_consistent(&pending);
        }
        assert_eq!(pending.len(), 10);
        assert_eq!(pending.release(&MISSING).len(), 5);
        // One that had to go may come again.
        assert_eq!(pending.insert(entries[0].clone(), MISSING), []);
        assert_eq!(pending.release(&MISSING), entries[..1]);
    }

    #[test]
    fn n3_an_entry_larger_than_the_pool_goes_itself() {
        let entry = waiting(5);
        let mut pending: Pending = Pending::new(entry.bytes() - 1);
        assert_eq!(pending.insert(entry.clone(), MISSING), [entry.id]);
        assert_consistent(&pending);
        assert!(pending.is_empty() && pending.waiting.is_empty());
    }

    // The second wait stayed behind when the first was over: memory that nothing gave back.
    #[test]
    fn n3_an_entry_that_comes_again_waits_for_one_thing_only() {
        let mut pending: Pending = Pending::new(1 << 20);
        let entry = waiting(5);
        for missing in [MISSING, MISSING, OTHER] {
            assert_eq!(pending.insert(entry.clone(), missing), []);
            assert_consistent(&pending);
        }
        assert_eq!(pending.release(&OTHER), []);
        assert_eq!(pending.release(&MISSING), [entry]);
        assert_consistent(&pending);
    }
}
