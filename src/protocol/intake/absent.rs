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
    protocol::{
        entry::{Entry, Op, Parent},
        fork::takes_back,
    },
};

/// Absent parents as they are saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AbsentParents {
    /// Ids of absent parents.
    pub ids: BTreeSet<EntryId>,
    /// Authors of absent parents for which there was no room in `ids`.
    pub authors: BTreeSet<Author>,
}

/// A bounded set of absent parents, by id. Of those for which there is no room, the authors are
/// remembered: every entry of theirs may have been cited. So the bound decides how much is counted
/// again, and never which entries apply.
#[derive(Debug, Default)]
pub struct Absent {
    // Includes `staged` and `unsaved`.
    ids: BTreeSet<EntryId>,
    // Authors of those that are not in `ids`. As many as there are authors who are not members and
    // were cited; kept when a group is taken back, which costs a needless count at most.
    authors: BTreeSet<Author>,
    // Added by the current group. Moved to `unsaved` by `commit`, taken back by `roll_back`.
    staged: Vec<EntryId>,
    // Committed, and not in the state's notes yet.
    unsaved: Vec<EntryId>,
    unsaved_authors: Vec<Author>,
    // Keys of those that the current group has brought.
    come: BTreeSet<Bytes>,
    ids_max: usize,
}

impl Absent {
    /// Makes a set of those that were saved, with room for at most `ids_max`.
    pub fn new(saved: AbsentParents, ids_max: usize) -> Self {
        Self {
            ids: saved.ids,
            authors: saved.authors,
            ids_max,
            ..Self::default()
        }
    }

    /// Adds a parent.
    pub fn add(&mut self, parent: &Parent) {
        if self.ids.contains(&parent.id) {
            return;
        }
        if self.ids.len() < self.ids_max {
            self.ids.insert(parent.id);
            self.staged.push(parent.id);
        } else if self.authors.insert(parent.author) {
            self.unsaved_authors.push(parent.author);
        }
    }

    /// Notes that `entry` is applied: if it was absent, its keys must be counted again.
    pub fn note_applied(&mut self, entry: &Entry) {
        if self.ids.contains(&entry.id) || self.authors.contains(&entry.author()) {
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

    /// Takes out the ids and authors committed since the last call: they go into the state's notes.
    pub fn take_unsaved(&mut self) -> (Vec<EntryId>, Vec<Author>) {
        (
            mem::take(&mut self.unsaved),
            mem::take(&mut self.unsaved_authors),
        )
    }

    /// Marks all as unsaved: the state file is a new one.
    pub fn forget_saved(&mut self) {
        self.unsaved = self.ids.iter().copied().collect();
        self.unsaved_authors = self.authors.iter().copied().collect();
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
    pub fn absent<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Parent> {
        let newest = |author| self.0.get(author).copied().unwrap_or(0);
        let parents = entry.header.parents.iter();
        parents
            .filter(move |parent| parent.seq > newest(&parent.author) && !takes_back(entry, parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        entry::tests::{AUTHOR_A, entry},
        hlc::Hlc,
    };

    const AUTHOR: Author = Author([7; 32]);

    fn id(byte: u8) -> EntryId {
        EntryId([byte; 32])
    }

    fn parent(byte: u8) -> Parent {
        Parent {
            hlc: Hlc::ZERO,
            author: AUTHOR,
            id: id(byte),
            seq: 1,
        }
    }

    fn saved(ids: &[u8]) -> AbsentParents {
        AbsentParents {
            ids: ids.iter().map(|byte| id(*byte)).collect(),
            authors: BTreeSet::new(),
        }
    }

    // It stayed in the set after the group was taken back: memory that no note explained.
    #[test]
    fn a_group_that_is_taken_back_leaves_nothing() {
        let mut absent = Absent::new(saved(&[1]), 3);
        absent.add(&parent(2));
        absent.roll_back();
        assert_eq!(absent.ids, BTreeSet::from([id(1)]));
        absent.add(&parent(3));
        assert_eq!(absent.commit(), BTreeSet::new());
        absent.roll_back();
        assert_eq!(absent.take_unsaved().0, [id(3)]);
        assert_eq!(absent.take_unsaved(), (vec![], vec![]));
        absent.forget_saved();
        assert_eq!(absent.take_unsaved().0, [id(1), id(3)]);
    }

    // Whether an entry applies depended on the room in this table: two nodes could differ for ever.
    #[test]
    fn a_full_set_counts_every_entry_of_the_author_again() {
        let late = entry(AUTHOR_A, 1, None, 5, "/k");
        let mut absent = Absent::new(saved(&[1]), 1);
        absent.add(&late.as_parent());
        assert_eq!(absent.take_unsaved(), (vec![], vec![late.author()]));
        absent.note_applied(&late);
        assert_eq!(absent.commit(), BTreeSet::from(["/k".into()]));
        let saved = AbsentParents {
            ids: absent.ids,
            authors: absent.authors,
        };
        let mut again = Absent::new(saved, 1);
        again.note_applied(&late);
        assert_eq!(again.commit(), BTreeSet::from(["/k".into()]));
    }

    #[test]
    fn keys_of_an_absent_parent_that_comes_are_counted_again() {
        let entry = entry(AUTHOR_A, 1, None, 5, "/k");
        let mut absent = Absent::new(AbsentParents::default(), 1);
        absent.note_applied(&entry);
        assert_eq!(absent.commit(), BTreeSet::new());
        absent.add(&entry.as_parent());
        absent.note_applied(&entry);
        assert_eq!(absent.commit(), BTreeSet::from(["/k".into()]));
    }
}
