//! Entries that wait: for other entries, or for the clock.

use std::collections::{BTreeMap, HashMap};

use crate::{
    id::EntryId,
    limits::{HELD_BYTES_MAX, PENDING_BYTES_MAX},
    protocol::{
        entry::{Parent, VerifiedEntry},
        pending::Pending,
    },
};

/// Entries that wait, and what the current group has staged.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pending: Pending,
    // By due time. Bounded by HELD_BYTES_MAX: the one due last goes.
    held: BTreeMap<(u64, EntryId), VerifiedEntry>,
    held_bytes: usize,
    // Entries staged and not yet readable in the logs. Cleared by commit and roll back.
    pub(super) group: HashMap<EntryId, Parent>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            pending: Pending::new(PENDING_BYTES_MAX),
            held: BTreeMap::new(),
            held_bytes: 0,
            group: HashMap::new(),
        }
    }

    /// Returns held entries by due time.
    pub(super) fn held(&self) -> impl Iterator<Item = (u64, &VerifiedEntry)> {
        self.held
            .iter()
            .map(|((due_ms, _), entry)| (*due_ms, entry))
    }

    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.held.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }

    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms)
    }

    /// Keeps an entry until it is due.
    pub(super) fn hold(&mut self, entry: VerifiedEntry, due_ms: u64) {
        let bytes = entry.bytes();
        if self.held.insert((due_ms, entry.id), entry).is_none() {
            self.held_bytes += bytes;
        }
        while self.held_bytes > HELD_BYTES_MAX {
            let Some((_, last)) = self.held.pop_last() else {
                break;
            };
            self.held_bytes -= last.bytes();
        }
    }

    /// Takes out what is due.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<VerifiedEntry> {
        let mut due = Vec::new();
        while self.is_due(now_ms)
            && let Some((_, entry)) = self.held.pop_first()
        {
            self.held_bytes -= entry.bytes();
            due.push(entry);
        }
        due
    }
}
