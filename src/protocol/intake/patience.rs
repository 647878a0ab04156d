//! Patience: since when entries wait for a parent of an author that counts.
//!
//! An entry may cite what was never written. A node that took it in before it knew that the cited
//! author is a member did not wait for the parent; a node that knew cannot wait for ever, or the two
//! differ. So after `PARENT_WAIT_MS`, and at the end of a sync, the entry is applied all the same. A
//! parent that comes later is superseded at the keys of the entry.

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

    /// Ends the wait of `entry`, however long it has waited.
    pub(super) fn end(&mut self, entry: EntryId) {
        self.0.insert(entry, 0);
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

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: EntryId = EntryId([1; 32]);
    const OTHER: EntryId = EntryId([2; 32]);

    #[test]
    fn wait_counts_from_the_first_note() {
        let mut patience = Patience::default();
        patience.note(ENTRY, 1_000);
        patience.note(ENTRY, 1_000 + PARENT_WAIT_MS / 2);
        assert!(!patience.is_over(&ENTRY, 1_000));
        assert!(!patience.is_over(&ENTRY, 999 + PARENT_WAIT_MS));
        assert!(patience.is_over(&ENTRY, 1_000 + PARENT_WAIT_MS));
        assert!(patience.is_over(&ENTRY, u64::MAX));
    }

    // An entry that had begun to wait was not staged with the run that it belongs to, which is staged
    // whole: the writer panicked.
    #[test]
    fn a_wait_that_has_begun_can_be_ended() {
        let mut patience = Patience::default();
        patience.note(ENTRY, PARENT_WAIT_MS);
        assert!(!patience.is_over(&ENTRY, PARENT_WAIT_MS + 1));
        patience.end(ENTRY);
        assert!(patience.is_over(&ENTRY, PARENT_WAIT_MS + 1));
    }

    #[test]
    fn clock_set_back_makes_an_entry_wait_longer() {
        let mut patience = Patience::default();
        patience.note(ENTRY, u64::MAX);
        for now_ms in [0, 1, PARENT_WAIT_MS, u64::MAX] {
            assert!(!patience.is_over(&ENTRY, now_ms), "{now_ms}");
        }
    }

    #[test]
    fn entry_that_is_not_noted_goes_on_waiting() {
        let mut patience = Patience::default();
        patience.note(ENTRY, 0);
        assert!(!patience.is_over(&OTHER, u64::MAX));
        patience.note(OTHER, 0);
        assert_eq!(patience.len(), 2);
        patience.keep(|entry| *entry == OTHER);
        assert_eq!(patience.len(), 1);
        assert!(patience.is_over(&OTHER, u64::MAX));
        assert!(!patience.is_over(&ENTRY, u64::MAX));
        // One that comes again begins again.
        patience.note(ENTRY, u64::MAX);
        assert!(!patience.is_over(&ENTRY, u64::MAX));
    }
}
