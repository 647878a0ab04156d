//! Held entries: stamped further ahead of this node's clock than `DRIFT_MS_MAX` allows.

use std::collections::BTreeMap;

use crate::{id::EntryId, protocol::entry::VerifiedEntry};

/// A bounded pool of entries by the time when they are due. When it is full, the entry that is due
/// last is dropped; a peer has it still.
#[derive(Debug)]
pub struct Held {
    // By due time, then id. Its entries have `bytes` bytes together.
    entries: BTreeMap<(u64, EntryId), VerifiedEntry>,
    // The due time of each of `entries`.
    due: BTreeMap<EntryId, u64>,
    bytes: usize,
    bytes_max: usize,
}

impl Held {
    /// Makes an empty pool for at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            due: BTreeMap::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Keeps `entry` until `due_ms` (ms since 1970), or until the time that was given first if it is
    /// here already. Returns how many entries had to make room.
    pub fn insert(&mut self, entry: VerifiedEntry, due_ms: u64) -> usize {
        if self.due.contains_key(&entry.id) {
            return 0;
        }
        self.bytes = self.bytes.saturating_add(entry.bytes());
        self.due.insert(entry.id, due_ms);
        self.entries.insert((due_ms, entry.id), entry);
        let mut dropped = 0_usize;
        while self.bytes > self.bytes_max
            && let Some((_, last)) = self.entries.pop_last()
        {
            self.due.remove(&last.id);
            self.bytes = self.bytes.saturating_sub(last.bytes());
            dropped = dropped.saturating_add(1);
        }
        dropped
    }

    /// Takes out the entries that are due at `now_ms`, causes before effects.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<VerifiedEntry> {
        let mut due = Vec::new();
        while self.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms)
            && let Some((_, entry)) = self.entries.pop_first()
        {
            self.due.remove(&entry.id);
            self.bytes = self.bytes.saturating_sub(entry.bytes());
            due.push(entry);
        }
        due.sort_by_key(|entry| entry.order());
        due
    }

    /// Returns when the next entry is due; `None` when there is none.
    pub fn next_due_ms(&self) -> Option<u64> {
        let first = self.entries.first_key_value();
        first.map(|((due_ms, _), _)| *due_ms)
    }

    /// Returns the entry with `id`.
    pub fn get(&self, id: &EntryId) -> Option<&VerifiedEntry> {
        self.entries.get(&(self.due_ms(id)?, *id))
    }

    /// Returns when the entry with `id` is due, ms since 1970; `None` if it is not here.
    pub fn due_ms(&self, id: &EntryId) -> Option<u64> {
        self.due.get(id).copied()
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no entry is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns all entries with the times when they are due, earliest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &VerifiedEntry)> {
        let entries = self.entries.iter();
        entries.map(|((due_ms, _), entry)| (*due_ms, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::entry::tests::{AUTHOR_A, entry};

    fn stamped(wall_ms: u64) -> VerifiedEntry {
        entry(AUTHOR_A, 1, None, wall_ms, "/k")
    }

    #[test]
    fn due_entries_leave_earliest_first() {
        let mut held = Held::new(1 << 20);
        let (one, two, three) = (stamped(501), stamped(502), stamped(503));
        for (entry, due_ms) in [(&two, 20), (&three, 30), (&one, 10)] {
            assert_eq!(held.insert(entry.clone(), due_ms), 0);
        }
        assert_eq!(held.next_due_ms(), Some(10));
        assert_eq!(held.take_due(9), []);
        assert_eq!(held.take_due(20), [one, two]);
        assert_eq!(held.take_due(30), [three]);
        assert_eq!((held.next_due_ms(), held.bytes), (None, 0));
    }

    #[test]
    fn a_full_pool_drops_what_is_due_last() {
        let bytes = stamped(500).bytes();
        let mut held = Held::new(2 * bytes);
        let entries: Vec<_> = (500..504).map(stamped).collect();
        let dropped: Vec<_> = entries
            .iter()
            .zip([40, 10, 30, 20])
            .map(|(entry, due_ms)| held.insert(entry.clone(), due_ms))
            .collect();
        assert_eq!(dropped, [0, 0, 1, 1]);
        let due: Vec<_> = held.iter().map(|(due_ms, _)| due_ms).collect();
        assert_eq!(due, [10, 20]);
    }

    #[test]
    fn an_entry_that_comes_again_counts_once() {
        let mut held = Held::new(1 << 20);
        for _ in 0..2 {
            assert_eq!(held.insert(stamped(500), 10), 0);
        }
        assert_eq!(held.bytes, stamped(500).bytes());
    }
}
