//! Entries that wait for others: a bounded pool, oldest out first.

use std::collections::{BTreeMap, BTreeSet};

use crate::{id::EntryId, protocol::entry::VerifiedEntry};

/// Entries that wait for a prev or a parent.
///
/// Only a cache: an entry that is pushed out is asked for again.
#[derive(Debug)]
pub struct Pending {
    // By order of arrival. Same entries as `places`, and as the sets of `waiting`.
    entries: BTreeMap<u64, VerifiedEntry>,
    places: BTreeMap<EntryId, u64>,
    // What is missing -> who waits for it.
    waiting: BTreeMap<EntryId, BTreeSet<EntryId>>,
    next: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Pending {
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

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns their bytes in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets `entry` wait for `missing`. Returns what had to go to make room, oldest first.
    pub fn insert(&mut self, entry: VerifiedEntry, missing: EntryId) -> Vec<EntryId> {
        let id = entry.id;
        self.waiting.entry(missing).or_default().insert(id);
        if self.places.contains_key(&id) {
            return Vec::new();
        }
        self.bytes = self.bytes.saturating_add(entry.bytes());
        self.places.insert(id, self.next);
        self.entries.insert(self.next, entry);
        self.next = self.next.saturating_add(1);
        let mut gone = Vec::new();
        while self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.entries.pop_first() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(oldest.bytes());
            self.places.remove(&oldest.id);
            gone.push(oldest.id);
        }
        if !gone.is_empty() {
            self.waiting.retain(|_, waiters| {
                waiters.retain(|id| self.places.contains_key(id));
                !waiters.is_empty()
            });
        }
        gone
    }

    /// Takes out those that waited for `id`, which has come.
    pub fn release(&mut self, id: &EntryId) -> Vec<VerifiedEntry> {
        let waiters = self.waiting.remove(id).unwrap_or_default();
        waiters
            .iter()
            .filter_map(|waiter| self.take(waiter))
            .collect()
    }

    fn take(&mut self, id: &EntryId) -> Option<VerifiedEntry> {
        let entry = self.entries.remove(&self.places.remove(id)?)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        Some(entry)
    }
}
