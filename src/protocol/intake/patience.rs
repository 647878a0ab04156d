//! Patience: since when entries wait for a parent of an author that counts.
//!
//! An entry may cite what was never written. A node that took it in before it knew that the cited
//! author is a member did not wait for the parent; a node that knew cannot wait for ever, or the two
//! differ. So after `PARENT_WAIT_MS`, and at the end of a sync, the entry is applied all the same. A
//! parent that comes later has the keys of the entry counted again.

use std::collections::BTreeMap;

use crate::{id::EntryId, limits::PARENT_WAIT_MS};

/// Since when entries wait, ms since 1970, by entry.
#[derive(Debug, Default)]
pub(super) struct Patience(BTreeMap<EntryId, u64>);

impl Patience {
    /// Notes that `entry` waits at `now_ms`; no effect if it waited before.
    pub(super) fn note(&mut self, entry: EntryId, now_ms: u64) {
        self.0.entry(entry).or_insert(now_ms);
    }

    /// Returns whether `entry` has waited long enough. A clock that was set back makes it wait longer.
    pub(super) fn is_over(&self, entry: &EntryId, now_ms: u64) -> bool {
        let since_ms = self.0.get(entry);
        since_ms.is_some_and(|since_ms| now_ms.saturating_sub(*since_ms) >= PARENT_WAIT_MS)
    }

    /// Forgets the entries for which `waits` is false.
    pub(super) fn keep(&mut self, waits: impl Fn(&EntryId) -> bool) {
        self.0.retain(|entry, _since_ms| waits(entry));
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
