//! Absent parents: cited by applied entries, not here, and not waited for, because they do not count.
//!
//! An author may cite an entry whose author turns out not to be a member; it could not know. Whether
//! such an entry will ever count is known only when everybody's acts are here. If it comes and
//! counts after all, its keys are counted again, as if it had come first.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use bytes::Bytes;

use crate::{
    id::{Author, EntryId, Seq},
    protocol::entry::{Entry, Op},
};

/// A bounded set of absent parents, by id.
#[derive(Debug, Default)]
pub struct Absent {
    // Includes `staged` and `unsaved`.
    ids: BTreeSet<EntryId>,
    // Added by the current group. Moved to `unsaved` by `commit`, taken back by `roll_back`.
    staged: Vec<EntryId>,
    // Committed, and not in the state's notes yet.
    unsaved: Vec<EntryId>,
    // Keys of those that the current group has brought.
    come: BTreeSet<Bytes>,
    ids_max: usize,
}

impl Absent {
    /// Makes a set of those that were saved, with room for at most `ids_max`.
    pub fn new(saved: BTreeSet<EntryId>, ids_max: usize) -> Self {
        Self {
            ids: saved,
            ids_max,
            ..Self::default()
        }
    }

    /// Returns whether another one fits.
    pub fn has_room(&self) -> bool {
        self.ids.len() < self.ids_max
    }

    /// Adds a parent. One for which there is no room is not noted.
    pub fn add(&mut self, id: EntryId) {
        if self.has_room() && self.ids.insert(id) {
            self.staged.push(id);
        }
    }

    /// Notes that `entry` is applied: if it was absent, its keys must be counted again.
    pub fn note_applied(&mut self, entry: &Entry) {
        if self.ids.contains(&entry.id) {
            self.come.extend(entry.ops.iter().map(Op::key).cloned());
        }
    }

    /// Ends a group that is durable. Returns the keys that must be counted again.
    #[must_use]
    pub fn commit(&mut self) -> BTreeSet<Bytes> {
        self.unsaved.append(&mut self.staged);
        mem::take(&mut self.come)
    }

    /// Ends a group that was not written.
    pub fn roll_back(&mut self) {
        for id in self.staged.drain(..) {
            self.ids.remove(&id);
        }
        self.come.clear();
    }

    /// Takes out the ids committed since the last call: they go into the state's notes.
    pub fn take_unsaved(&mut self) -> Vec<EntryId> {
        mem::take(&mut self.unsaved)
    }

    /// Marks all as unsaved: the state file is a new one.
    pub fn forget_saved(&mut self) {
        self.unsaved = self.ids.iter().copied().collect();
    }
}

/// How far each author's log reaches. Parents above that are absent.
#[derive(Debug, Clone, Default)]
pub struct Reach(BTreeMap<Author, Seq>);

impl Reach {
    /// Notes that `author` has a branch that ends at `seq`.
    pub fn extend(&mut self, author: Author, seq: Seq) {
        let newest = self.0.entry(author).or_default();
        *newest = seq.max(*newest);
    }

    /// Returns the parents of `entry` that lie above the end of their author's log.
    pub fn absent<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = EntryId> + 'a {
        let newest = |author| self.0.get(author).copied().unwrap_or(0);
        let parents = entry.header.parents.iter();
        let absent = parents.filter(move |parent| parent.seq > newest(&parent.author));
        absent.map(|parent| parent.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::entry::tests::{AUTHOR_A, entry};

    fn id(byte: u8) -> EntryId {
        EntryId([byte; 32])
    }

    // It stayed in the set after the group was taken back: memory that no note explained.
    #[test]
    fn a_group_that_is_taken_back_leaves_nothing() {
        let mut absent = Absent::new(BTreeSet::from([id(1)]), 3);
        absent.add(id(2));
        absent.roll_back();
        assert_eq!(absent.ids, BTreeSet::from([id(1)]));
        absent.add(id(3));
        assert_eq!(absent.commit(), BTreeSet::new());
        absent.roll_back();
        assert_eq!(absent.take_unsaved(), [id(3)]);
        assert_eq!(absent.take_unsaved(), []);
        absent.forget_saved();
        assert_eq!(absent.take_unsaved(), [id(1), id(3)]);
    }

    #[test]
    fn a_full_set_notes_no_more() {
        let mut absent = Absent::new(BTreeSet::new(), 1);
        absent.add(id(1));
        absent.add(id(2));
        assert!(!absent.has_room());
        assert_eq!(absent.ids, BTreeSet::from([id(1)]));
    }

    #[test]
    fn keys_of_an_absent_parent_that_comes_are_counted_again() {
        let entry = entry(AUTHOR_A, 1, None, 5, "/k");
        let mut absent = Absent::new(BTreeSet::new(), 1);
        absent.note_applied(&entry);
        assert_eq!(absent.commit(), BTreeSet::new());
        absent.add(entry.id);
        absent.note_applied(&entry);
        assert_eq!(absent.commit(), BTreeSet::from(["/k".into()]));
    }
}
