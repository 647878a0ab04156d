//! Entries that wait for others: a bounded pool, oldest out first.

use std::collections::{BTreeMap, BTreeSet};

use crate::{id::EntryId, protocol::entry::VerifiedEntry};

/// Entries that wait for a prev or a parent.
///
/// Only a cache: an entry that is pushed out is asked for again.
#[derive(Debug)]
pub struct Pending {
    // By order of arrival, each with what it waits for. Same entries as `places`, and as all the
    // sets of `waiting` together, where each is in one set.
    entries: BTreeMap<u64, (VerifiedEntry, EntryId)>,
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
    ///
    /// One that waits already goes on waiting for what it waited for.
    pub fn insert(&mut self, entry: VerifiedEntry, missing: EntryId) -> Vec<EntryId> {
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

    /// Takes out those that waited for `id`, which has come, by id.
    pub fn release(&mut self, id: &EntryId) -> Vec<VerifiedEntry> {
        let waiters = self.waiting.remove(id).unwrap_or_default();
        waiters.iter().filter_map(|waiter| self.take(waiter)).collect()
    }

    fn take(&mut self, id: &EntryId) -> Option<VerifiedEntry> {
        let (entry, _missing) = self.entries.remove(&self.places.remove(id)?)?;
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        Some(entry)
    }
}
